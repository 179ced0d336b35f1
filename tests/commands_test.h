/* commands.h: tests of the other commands, as a user runs them. */
#ifndef TESTS_COMMANDS_H
#define TESTS_COMMANDS_H

#include "method_test.h"
#include "tasks_test.h"
#include "train_test.h"

/* sft learns, and its loss is the mean of -log p over what is trained on: `score` agrees. */
static void test_sft(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    char *text = read_file(tmp_path("base/metrics.jsonl").s, &n);
    double first = field(text, "loss"), last = field(strrchr(text, '{'), "loss");
    free(text);
    CHECK(first > 2.5 && last < 1.0, "loss from %g to %g", first, last);
    double losses[2], grad_norms[2];
    for (int k = 0; k < 2; k++) { /* one micro-batch; and three, of 2, 2 and 1, by two threads */
        CHECK(cli("sft --preset nano --task add:digits=1 --steps 2 --batch 5 --micro-batch %d "
                  "--threads %d --out %s/cut%d", 5 - 3 * k, 1 + k, dir, k) == 0, "%s", cli_err);
        text = read_file(tmp_path(k ? "cut1/metrics.jsonl" : "cut0/metrics.jsonl").s, &n);
        losses[k] = field(strrchr(text, '{'), "loss");
        grad_norms[k] = field(strrchr(text, '{'), "grad_norm");
        free(text);
    }
    CHECK(losses[0] == losses[1] && grad_norms[0] == grad_norms[1],
          "micro-batches change the loss, %g and %g, or the gradient, %g and %g", losses[0],
          losses[1], grad_norms[0], grad_norms[1]);
    Path data = tmp_path("two.jsonl");
    const char *records = "{\"input_ids\": [1, 2, 3, 4, 5]}\n"
                          "{\"input_ids\": [6, 7, 8, 9], \"labels\": [-100, -100, 8, -100]}\n";
    write_file(data.s, records, strlen(records));
    CHECK(cli("sft --model %s --data %s --steps 1 --batch 2 --lr 0 --out %s/two", base, data.s,
              dir) == 0, "%s", cli_err);
    text = read_file(tmp_path("two/metrics.jsonl").s, &n);
    double loss = field(text, "loss");
    free(text);
    CHECK(cli_in(records, "score --model %s", base) == 0, "%s", cli_err);
    double sum = 0, p[8];
    const char *at = cli_out;
    for (int line = 0, k = 0; line < 2; line++) {
        at = strstr(at, "[null") + 5;
        for (; *at == ','; k++)
            p[k] = strtod(at + 1, (char **)&at);
    }
    sum = -(p[0] + p[1] + p[2] + p[3] + p[5]);
    CHECK(fabs(loss - sum / 5) < 1e-6, "loss %g, but score says %g", loss, sum / 5);
    /* --shuffle 0 takes the records in file order: one a step. */
    cli("sft --model %s --data %s --steps 2 --batch 1 --lr 0 --shuffle 0 --out %s/order", base,
        data.s, dir);
    text = read_file(tmp_path("order/metrics.jsonl").s, &n);
    CHECK(fabs(field(text, "loss") + (p[0] + p[1] + p[2] + p[3]) / 4) < 1e-6 &&
              fabs(field(strchr(text, '\n'), "loss") + p[5]) < 1e-6, "--shuffle 0");
    free(text);
    /* Of a text, the response and its end token are trained on, the prompt is not. */
    const char *pair = "{\"prompt\": \"4+5:\", \"response\": \"9\"}\n";
    write_file(data.s, pair, strlen(pair));
    cli("sft --model %s --data %s --steps 1 --batch 1 --lr 0 --out %s/pair", base, data.s, dir);
    text = read_file(tmp_path("pair/metrics.jsonl").s, &n);
    cli_in("{\"text\": \"4+5:9" END_TOKEN "\"}\n", "score --model %s", base);
    at = strstr(cli_out, "[null") + 5;
    for (int k = 0; k < 5; k++)
        p[k] = strtod(at + 1, (char **)&at);
    CHECK(fabs(field(text, "loss") + (p[3] + p[4]) / 2) < 1e-6, "loss of a text: %g, not %g",
          field(text, "loss"), -(p[3] + p[4]) / 2);
    free(text);
    const char *bad = "{\"input_ids\": [1, 2], \"labels\": [1]}\n";
    write_file(data.s, bad, strlen(bad));
    CHECK(cli("sft --model %s --data %s --out %s/no_run", base, data.s, dir) == 1 &&
              strstr(cli_err, "line 1") && strstr(cli_err, "labels"), "%s", cli_err);
    CHECK(!is_dir(tmp_path("no_run").s), "a failed command left its directory behind");
}

/* A group as a line of explain --data. */
static void put_group(Buf *b, const Group *g)
{
    buf_str(b, "{\"prompt_ids\": [");
    for (int i = 0; i < g->prompt_length; i++)
        buf_printf(b, "%s%d", i ? "," : "", g->prompt[i]);
    buf_str(b, "], \"response_ids\": [");
    for (int i = 0; i < g->m; i++) {
        buf_str(b, i ? ",[" : "[");
        for (int t = g->start[i]; t < g->start[i + 1]; t++)
            buf_printf(b, "%s%d", t > g->start[i] ? "," : "", g->token[t]);
        buf_str(b, "]");
    }
    buf_str(b, "]");
    put_vector(b, "rewards", g->reward, g->m);
    buf_str(b, "}\n");
}

/* A group of distinct responses that are all right, worked from its own S by Eq 10 to 13 and 2:
 * w = 1 / (m - 1), and r~ = 1 + nubar / 2. */
static void check_all_right(const char *line, int m)
{
    double S[64], nu[8], low = 1, high = 0, shaped[8], mean = 0, variance = 0, A[8], told[8];
    const char *at = strstr(line, "\"S\": [[");
    CHECK(at != NULL && numbers(line, "rtilde", told, 8) == m, "%s", line);
    at = at ? at + 6 : "";
    for (int k = 0; k < m * m; k++) {
        at += strspn(at, "[], ");
        S[k] = strtod(at, (char **)(uintptr_t)&at);
    }
    for (int i = 0; i < m; i++) {
        nu[i] = 1;
        for (int j = 0; j < m; j++)
            nu[i] -= j == i ? 0 : S[i * m + j] * S[i * m + j] / (m - 1);
        low = fmin(low, nu[i]);
        high = fmax(high, nu[i]);
    }
    for (int i = 0; i < m; i++)
        mean += (shaped[i] = 1 + 0.5 * (nu[i] - low) / (high - low)) / m;
    for (int i = 0; i < m; i++) {
        variance += (shaped[i] - mean) * (shaped[i] - mean) / m;
        CHECK(fabs(shaped[i] - told[i]) < 1e-5, "r~_%d is %g, not %g", i, told[i], shaped[i]);
    }
    CHECK(high - low > 0.01 && numbers(line, "A", A, 8) == m, "%s", line);
    for (int i = 0; i < m; i++)
        CHECK(fabs(A[i] - (shaped[i] - mean) / sqrt(variance)) < 1e-4, "A_%d is %g, not %g", i,
              A[i], (shaped[i] - mean) / sqrt(variance));
}

/* The first row of a matrix that begins with `name`. */
static bool first_row(const char *line, const char *name, double row[ORACLE_M])
{
    char *at = strstr(line, name);
    at = at ? at + strlen(name) : NULL;
    for (int j = 0; at && j < ORACLE_M; j++) {
        row[j] = strtod(at, &at);
        at += strspn(at, ", ");
    }
    return at != NULL;
}

/* explain --novelty count: S is what Eq 11 had, 1 for equal responses and 0 for others, and nu
 * follows from it. The oracle's third group is six equal responses, its fourth has a pair. */
static void check_copies_shown(const char *model)
{
    CHECK(cli("explain --model %s --data %s --json --novelty count", model,
              tmp_path("group.jsonl").s) == 0, "%s", cli_err);
    const char *line = cli_out;
    double ones = 0, S[ORACLE_M], w[ORACLE_M], nu[ORACLE_M];
    for (int k = 0; k < ORACLE_GROUPS; k++, line += strcspn(line, "\n") + 1) {
        double repeated = 0;
        CHECK(first_row(line, "\"S\": [[", S) && first_row(line, "\"w\": [[", w) &&
              numbers(line, "nu", nu, ORACLE_M) == ORACLE_M, "group %d: %s", k, line);
        for (int j = 0; j < ORACLE_M; j++) {
            CHECK(S[j] == 0 || S[j] == 1, "group %d: S_0%d is %g", k, j, S[j]);
            ones += S[j];
            repeated += j ? w[j] * S[j] : 0;
        }
        CHECK(fabs(nu[0] - (1 - repeated)) < 1e-6, "group %d: nu_0 %g, not %g", k, nu[0],
              1 - repeated);
    }
    CHECK(ones > ORACLE_M + 2, "%g equal pairs", ones);
}

/* explain --data --json on the oracle's groups, without options: the whole path, from ids to r~ of
 * Eq 12 as printed, and A; then on one of them as if all of it were right. */
static void test_explain(void)
{
    Path dir, file;
    Engine e = engine_new(1, 1 << 24, 1 << 24);
    Group g[ORACLE_GROUPS];
    Buf b = {0};
    vectors(&dir, "models/q3_tied_f32");
    vectors(&file, "oracle/q3_tied_f32.g2rl.safetensors");
    SafeTensors st = st_open_file(file.s);
    oracle_groups(&st, &e, 64, g);
    for (int k = 0; k < ORACLE_GROUPS; k++)
        put_group(&b, &g[k]);
    for (int i = 0; i < ORACLE_M; i++)
        g[0].reward[i] = 1;
    put_group(&b, &g[0]);
    write_file(tmp_path("group.jsonl").s, b.s, b.n);
    CHECK(cli("explain --model %s --data %s --json", dir.s, tmp_path("group.jsonl").s) == 0, "%s",
          cli_err);
    float *A = tensor_values(&st, "A", NULL), *rtilde = tensor_values(&st, "rtilde", NULL);
    const char *line = cli_out;
    for (int k = 0; k < ORACLE_GROUPS; k++, line += strcspn(line, "\n") + 1) {
        double a[ORACLE_M], r[ORACLE_M];
        CHECK(numbers(line, "A", a, ORACLE_M) == ORACLE_M &&
              numbers(line, "rtilde", r, ORACLE_M) == ORACLE_M, "group %d: %s", k, line);
        for (int i = 0; i < ORACLE_M; i++)
            CHECK(fabs(a[i] - (double)A[k * ORACLE_M + i]) < 1e-4 &&
                  fabs(r[i] - (double)rtilde[k * ORACLE_M + i]) < 2e-5,
                  "group %d: r~_%d is %g, A %g; not %g, %g", k, i, r[i], a[i],
                  (double)rtilde[k * ORACLE_M + i], (double)A[k * ORACLE_M + i]);
    }
    check_all_right(line, ORACLE_M);
    check_copies_shown(dir.s);
    free(A);
    free(rtilde);
    const char *few = "{\"prompt_ids\": [1], \"response_ids\": [[1], [2]], \"rewards\": [1]}\n";
    write_file(tmp_path("group.jsonl").s, few, strlen(few));
    CHECK(cli("explain --model %s --data %s --json", dir.s, tmp_path("group.jsonl").s) == 1 &&
              strstr(cli_err, "rewards"), "%s", cli_err);
    buf_free(&b);
    st_close(&st);
    engine_free(&e);
    for (int m = 4; m <= 16; m *= 2) {
        CHECK(cli("explain --model %s --task add:digits=1 --rollouts %d --method %s", base_model(),
                  m, m == 8 ? "evol" : "g2rl") == 0 && strstr(cli_out, m == 8 ? " u " : " nubar "),
              "%s", cli_err);
        for (line = cli_out; *line; line += *line == '\n') {
            size_t columns = strcspn(line, "\n");
            CHECK(columns <= 100, "over 100 columns: %s", line);
            line += columns;
        }
        char last[16];
        snprintf(last, sizeof last, "\n%d: ", m - 1);
        CHECK(strstr(cli_out, "\n0: ") && strstr(cli_out, last), "a sentence each: %s", cli_out);
    }
    Buf text = {0};
    buf_str(&text, "a\nb\xc3\xa9\xc3\xa9");
    CHECK(one_line(&text, 5) == 5 && !strcmp(text.s, "a b\xc3\xa9\xc3\xa9"), "'%s'", text.s);
    CHECK(one_line(&text, 4) == 4 && !strcmp(text.s, "a .."), "'%s'", text.s);
    buf_free(&text);
    b.n = 0;
    buf_str(&b, "{\"prompt_ids\": [1], \"rewards\": [1");
    for (int i = 1; i < 40; i++)
        buf_printf(&b, ", %d", i % 3 - 1);
    buf_str(&b, "], \"response_ids\": [");
    for (int i = 0; i < 40 * 400; i++)
        buf_printf(&b, "%s%d", i % 400 ? ", " : i ? "], [" : "[", 1 + i * 7919 % 18);
    buf_str(&b, "]]}\n");
    write_file(tmp_path("long-group.jsonl").s, b.s, b.n);
    CHECK(cli("explain --model %s --method evol --json --data %s/long-group.jsonl", base_model(),
              tmp_dir()) == 0, "long responses: %s", cli_err);
    buf_free(&b);
}

/* Two models on one set of problems: the differences that are printed and written are those of
 * their own rows' problems. */
static void eval_of_two(const char *base)
{
    double right[2][16], maj[2][16], interval[2];
    CHECK(cli("train --model %s --task add:digits=1 --steps 2 --lr 3e-3 --out %s/other", base,
              tmp_dir()) == 0, "%s", cli_err);
    CHECK(cli("eval --json --task add:digits=1 --split train --problems 16 --samples 2 --seed 3 "
              "x=%s y=%s/other", base, tmp_dir()) == 0, "%s", cli_err);
    const char *row[2] = {strstr(cli_out, "\"x\": {"), strstr(cli_out, "\"y\": {")};
    const char *difference = strstr(cli_out, "\"difference\"");
    for (int i = 0; i < 2; i++) {
        CHECK(row[i] && numbers(row[i], "right", right[i], 16) == 16 &&
                  numbers(row[i], "maj", maj[i], 16) == 16, "%s", cli_out);
        for (int k = 0; k < 16; k++)
            right[i][k] /= 2;
    }
    for (int i = 0; i < 2 && difference; i++) {
        const char *name = i ? "maj@2" : "pass@1";
        const char *other = i ? "maj@2/interval" : "pass@1/interval";
        Estimate e = i ? paired(maj[1], maj[0], NULL, 16, 3)
                       : paired(right[1], right[0], NULL, 16, 3);
        CHECK(fabs(field(difference, name) - e.value) < 1e-9 && fabs(e.value) > 0.01 &&
                  numbers(difference, other, interval, 2) == 2 &&
                  fabs(interval[0] - e.low) < 1e-5 && fabs(interval[1] - e.high) < 1e-5,
              "%s: %g [%g, %g]: %s", name, e.value, e.low, e.high, difference);
        char printed[64];
        snprintf(printed, sizeof printed, "  %+5.1f [%+5.1f, %+5.1f]", 100 * e.value, 100 * e.low,
                 100 * e.high);
        CHECK(strstr(cli_err, "minus x") && strstr(strstr(cli_err, "minus x"), printed),
              "the table has no '%s': %s", printed, cli_err);
    }
    CHECK(difference != NULL, "%s", cli_out);
}

/* A group of m answers of one token each, as the method sees them: features in the plane at `angle`
 * degrees, of length 0 where the angle is negative. */
static Group told_group(Engine *e, int m, const int *angle, const int *token, const double *reward,
                        const MethodOptions *o)
{
    float Phi[16] = {0};
    for (int i = 0; i < m; i++)
        for (int k = 0; k < 2; k++) {
            double a = angle[i] * acos(0) / 90;
            Phi[2 * i + k] = angle[i] < 0 ? 0 : (float)(k ? sin(a) : cos(a));
        }
    Group g = made_group(e, m, 2, Phi, reward);
    for (int i = 0; i < m; i++) {
        g.token[i] = token[i];
        g.answered[i] = true;
        g.reason[i] = is_right(reward[i]) ? "right" : "off by one";
    }
    exploration_score(&g, o->novelty);
    g.seed = 1;
    if (o->novelty == NOVELTY_RANDOM)
        permute_novelty(&g);
    normalize_novelty(&g);
    for (int i = 0; i < m; i++)
        g.shaped[i] = shape_reward(reward[i], g.nubar[i], o);
    advantages(&g, o);
    return g;
}

static void check_told(const Group *g, int i, const MethodOptions *o, const char *sentence)
{
    Buf b = {0};
    if (i < 0)
        explain_whole(g, o, &b);
    else
        explain_response(g, i, o, &b);
    CHECK(!strcmp(b.n ? b.s : "", sentence), "told:\n      %s\n    not:\n      %s",
          b.n ? b.s : "", sentence);
    buf_free(&b);
}

/* What is said of one group, under one method. `told`: of the group, then of each response; NULL:
 * nothing new. */
typedef struct {
    MethodOptions o;
    int m, angle[6], token[6];
    double reward[6];
    const char *told[7];
} Told;

static const Told TOLD[] = {
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1},
     6, {0, 60, 0, 90, 100, -1}, {1, 2, 1, 3, 4, 5}, {1, 1, 1, -1, -1, -1},
     {"",
      "0: right, the same answer as 2, nu 0.48: boosted to +1.63; above the group's "
      "mean by 0.92 standard deviations.",
      "1: right, the most novel of the right ones, nu 0.72, most like 0 and 2 (S "
      "+0.50, +0.50): boosted to +1.94; above the group's mean by 1.10 standard "
      "deviations.",
      NULL,
      "3: wrong (off by one), nu 0.73, most like 1 (S +0.87): loses more, down to "
      "-1.96; below the group's mean by 1.16 standard deviations.",
      "4: wrong (off by one), the most novel of the wrong ones, nu 0.76, most like 1 "
      "(S +0.77): loses more, down to -2.00; below the group's mean by 1.18 standard "
      "deviations.",
      "5: wrong (off by one), the policy certain of its every token (certainty is not"
      " novelty: nu 0): stays at -1.00, the least loss; below the group's mean by "
      "0.60 standard deviations."}},
    {{.method = G2RL, .lambda = 1},
     4, {0, 50, 90, 120}, {1, 2, 3, 4}, {1, 1, -1, -1},
     {NULL,
      "0: right, the most novel of the right ones, nu 0.65, most like 1 (S +0.64): "
      "boosted to +1.27; above the group's mean by 1.13 standard deviations.",
      "1: right, the least novel of the right ones, nu 0.60, most like 0 (S +0.64): "
      "stays at +1.00; above the group's mean by 0.77 standard deviations.",
      "2: wrong (off by one), the least novel of the wrong ones, nu 0.68, most like 1"
      " (S +0.77): loses less, up to -0.57; below the group's mean by 1.34 standard "
      "deviations.",
      "3: wrong (off by one), the most novel of the wrong ones, nu 0.78, most opposed"
      " to 0 (S -0.50): loses less, up to +0.00; below the group's mean by 0.57 "
      "standard deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 5},
     4, {0, 50, 90, 120}, {1, 2, 3, 4}, {1, 1, -1, -1},
     {NULL,
      "0: right, the most novel of the right ones, nu 0.65, most like 1 (S +0.64): "
      "boosted to +2.34; above the group's mean by 1.26 standard deviations.",
      NULL,
      "2: wrong (off by one), the least novel of the wrong ones, nu 0.68, most like 1"
      " (S +0.77): lowered as far as the clip at -3; below the group's mean by 0.98 "
      "standard deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: under GRPO this group would teach nothing; here only "
      "novelty speaks.",
      "0: wrong (off by one), nu 0.42, most opposed to 3 (S -1.00): stays at -1.00, "
      "the least loss; above the group's mean by 0.58 standard deviations, so more "
      "likely though wrong.",
      "1: wrong (off by one), nu 0.42, most like 0 (S +0.87): stays at -1.00, the "
      "least loss; above the group's mean by 0.58 standard deviations, so more likely"
      " though wrong.",
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 "
      "(S +0.50): loses more, down to -2.00; below the group's mean by 1.73 standard "
      "deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {1, 1, 1, 1},
     {NULL,
      "0: right, nu 0.42, most opposed to 3 (S -1.00): stays at +1.00; below the "
      "group's mean by 0.58 standard deviations, so less likely though right."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1, .dead_groups = DEAD_ZERO},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: with --dead-groups zero this group teaches nothing.",
      NULL,
      NULL,
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 "
      "(S +0.50): loses more, down to -2.00; no advantage."}},
    {{.method = GRPO, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"grpo shapes nothing: r~ = r, whatever nu is. All rewards are equal: this group"
      " teaches nothing.",
      "0: wrong (off by one): stays at -1.00; no advantage."}},
    {{.method = ENTROPY, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"entropy shapes nothing: r~ = r, whatever nu is.",
      NULL,
      NULL,
      "2: right: stays at +1.00; above the group's mean by 1.73 standard deviations."}},
    {{.method = G2RL},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"lambda 0 shapes nothing: r~ = r, as under GRPO.",
      NULL,
      NULL,
      "2: right: stays at +1.00; above the group's mean by 1.73 standard deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1, .novelty = NOVELTY_RANDOM},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"nu was dealt out at random inside the group: a control.",
      "0: wrong (off by one), dealt nu 0.81: loses more, down to -1.62; below the "
      "group's mean by 0.62 standard deviations.",
      "1: wrong (off by one), dealt nu 0.64: stays at -1.00, the least loss; below "
      "the group's mean by 0.18 standard deviations.",
      "2: right, dealt nu 0.81: boosted to +1.62; above the group's mean by 1.68 "
      "standard deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1},
     6, {20, 20, 20, 20, 20, 20}, {7, 7, 7, 7, 7, 7}, {-1, -1, 1, -1, -1, -1},
     {"All nu are equal: nothing is shaped, as under GRPO.",
      NULL,
      NULL,
      "2: right, the same answer as 0, 1, 3, 4 and 1 more, the only right one, nu "
      "0.00: stays at +1.00; above the group's mean by 2.24 standard deviations.",
      NULL,
      NULL,
      "5: wrong (off by one), the same answer as 0, 1, 2, 3 and 1 more, nu 0.00: "
      "stays at -1.00; below the group's mean by 0.45 standard deviations."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1},
     3, {20, 20, 20}, {7, 7, 7}, {-1, -1, -1},
     {"All rewards are equal, and so is all novelty: this group teaches nothing.",
      NULL,
      "1: wrong (off by one), the same answer as 0 and 2, nu 0.00: stays at -1.00; no"
      " advantage."}},
    {{.method = G2RL, .shaping = SHAPING_TEXT, .lambda = 1, .adv_norm = ADV_NONE},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {0.5, 0.5, 7, 0},
     {NULL,
      "0: reward 0.5, the most novel of those with this reward, nu 1.00, like no "
      "other: boosted to +1.00; below the group's mean by 0.12.",
      "1: reward 0.5, the least novel of those with this reward, nu 0.75, most like 2"
      " (S +0.50): stays at +0.50; below the group's mean by 0.62.",
      "2: reward 7, nu 0.90, most like 1 (S +0.50): clipped to +3; above the group's "
      "mean by 1.88.",
      "3: reward 0 (off by one), nu 1.00, like no other: stays at +0.00; below the "
      "group's mean by 1.12."}},
    /* Eq 12 as printed, in a group that is all wrong: the novel answers lose least. */
    {{.method = G2RL, .lambda = 0.5},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: under GRPO this group would teach nothing; here only novelty "
      "speaks.",
      "0: wrong (off by one), nu 0.42, most opposed to 3 (S -1.00): stays at -1.00, the full "
      "loss; below the group's mean by 0.58 standard deviations.",
      NULL,
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 (S +0.50): "
      "loses less, up to -0.50; above the group's mean by 1.73 standard deviations, so more "
      "likely though wrong."}},
    {{.method = G2RL, .lambda = 0.5, .dead_groups = DEAD_RIGHT},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {1, 1, 1, 1},
     {"All rewards are equal: under GRPO this group would teach nothing; here only novelty "
      "speaks.",
      NULL,
      NULL,
      "2: right, the most novel of the right ones, nu 0.92, most like 1 (S +0.50): boosted to "
      "+1.50; above the group's mean by 1.73 standard deviations."}},
    {{.method = G2RL, .lambda = 0.5, .dead_groups = DEAD_RIGHT},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: with --dead-groups right this group teaches nothing.",
      NULL,
      NULL,
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 (S +0.50): "
      "loses less, up to -0.50; no advantage."}},
    {{.method = G2RL, .lambda = 0.5, .dead_groups = DEAD_WRONG},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {1, 1, 1, 1},
     {"All rewards are equal: with --dead-groups wrong this group teaches nothing.",
      NULL,
      NULL,
      "2: right, the most novel of the right ones, nu 0.92, most like 1 (S +0.50): boosted to "
      "+1.50; no advantage."}},
    {{.method = G2RL, .lambda = 0.5, .novelty = NOVELTY_COUNT},
     5, {0, 0, 90, 180, 40}, {1, 1, 1, 2, 3}, {1, 1, 1, 1, -1},
     {"S_ij is 1 for equal responses and 0 for others: nu counts copies, a control.",
      "0: right, the same answer as 1 and 2, nu 0.36: stays at +1.00; above the group's mean by "
      "0.29 standard deviations.",
      NULL,
      NULL,
      "3: right, the most novel of the right ones, nu 1.00: boosted to +1.50; above the group's "
      "mean by 1.03 standard deviations.",
      "4: wrong (off by one), the only wrong one, nu 1.00: loses less, up to -0.50; below the "
      "group's mean by 1.92 standard deviations."}},
    {{.method = G2RL, .lambda = 0.5},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {0, 0, 1, 0},
     {"A reward of 0 stays 0, however novel the response (Eq 12 multiplies): only rewards of +1 "
      "and -1 turn the whole method on.",
      "0: reward 0 (off by one), nu 0.63, most opposed to 3 (S -1.00): stays at +0.00; below "
      "the group's mean by 0.58 standard deviations.",
      NULL,
      "2: reward 1, nu 0.92, most like 1 (S +0.50): boosted to +1.50; above the group's mean by "
      "1.73 standard deviations."}},
};

/* EVOL-RL's: two right answers that are alike, a right one of its own, a lone wrong one, no answer;
 * then a group with one answer alone. */
static void check_told_evol(Engine *e)
{
    static const double angle[] = {0, 0, 60, 90, 0};
    static const double reward[] = {1, 1, 1, -1, -1};
    static const int turn[] = {0, 0, 0, 0, 0}, token[] = {1, 1, 2, 3, 4};
    const MethodOptions o = {.method = EVOL, .lambda = 1};
    static const char *const told[] = {
        "",
        "0: right, the same answer as 1, u 0.12: r~ is +0.50, between +0.5 and +1; above the "
        "group's mean by 0.54 standard deviations.",
        "1: right, the same answer as 0, u 0.12: r~ is +0.50, between +0.5 and +1; above the "
        "group's mean by 0.54 standard deviations.",
        "2: right, the most novel of the right ones, u 0.32, most like 3 (cosine +0.87): r~ is "
        "+1.00, between +0.5 and +1; above the group's mean by 1.22 standard deviations.",
        "3: wrong (off by one), the only wrong one, u 0.42, most like 2 (cosine +0.87): r~ is "
        "-0.50, between -1 and -0.5; below the group's mean by 0.82 standard deviations.",
        "4: wrong (off by one), without an answer: r~ is -1.00; below the group's mean by 1.50 "
        "standard deviations."};
    Group g = told_group(e, 5, turn, token, reward, &o);
    g.answered[4] = false;
    for (int i = 0; i < 25; i++)
        g.semantic[i] = cos((angle[i / 5] - angle[i % 5]) * acos(0) / 90);
    g.embedded = true;
    for (int alone = 0; alone < 2; alone++) {
        for (int i = 0; i < 5; i++)
            g.u[i] = semantic_novelty(&g, i);
        shape_by_meaning(&g);
        advantages(&g, &o);
        for (int i = -1; i < 5 && !alone; i++)
            check_told(&g, i, &o, told[i + 1]);
        for (int i = 1; i < 4; i++)
            g.answered[i] = false;
    }
    check_told(&g, 0, &o, "0: right, the group's only answer: r~ is -1.00; no advantage.");
}

static void test_explained(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    for (size_t k = 0; k < sizeof TOLD / sizeof *TOLD; k++) {
        const Told *t = &TOLD[k];
        Group g = told_group(&e, t->m, t->angle, t->token, t->reward, &t->o);
        for (int i = 0; i <= t->m; i++)
            if (t->told[i])
                check_told(&g, i - 1, &t->o, t->told[i]);
    }
    check_told_evol(&e);
    engine_free(&e);
}

/* eval: its numbers belong together, and a model compared with itself is equal to itself. */
static void test_eval(void)
{
    const char *base = base_model();
    CHECK(cli("eval --json --task add:digits=1 --split train --problems 8 --samples 4 "
              "--max-tokens 20 x=%s y=%s", base, base) == 0, "%s", cli_err);
    const char *x = strstr(cli_out, "\"x\": {"), *y = strstr(cli_out, "\"y\": {");
    static const char *const names[] = {"pass@1", "pass@2", "pass@4", "maj@4", "entropy",
                                        "phi/cos_mean", "completions/mean_length"};
    for (int i = 0; i < 7 && x && y; i++)
        CHECK(field(x, names[i]) == field(y, names[i]) && isfinite(field(x, names[i])),
              "%s: %g, %g", names[i], field(x, names[i]), field(y, names[i]));
    CHECK(x && field(x, "pass@1") < field(x, "pass@2") && field(x, "pass@2") < field(x, "pass@4"),
          "pass@k must grow with k: %s", cli_out);
    CHECK(fabs(field(x, "pass@1") - field(x, "mean@4")) < 1e-9, "mean@k is pass@1");
    double right[9], maj[9], sum[2] = {0};
    CHECK(numbers(x, "right", right, 9) == 8 && numbers(x, "maj", maj, 9) == 8, "%s", x);
    for (int i = 0; i < 8; i++) {
        sum[0] += right[i] / 4 / 8;
        sum[1] += maj[i] / 8;
    }
    CHECK(fabs(sum[0] - field(x, "pass@1")) < 1e-9 && fabs(sum[1] - field(x, "maj@4")) < 1e-9,
          "right makes %g, maj %g: %s", sum[0], sum[1], x);
    const char *difference = y ? strstr(y, "\"difference\": {\"from\": \"x\"") : NULL;
    CHECK(difference && strstr(cli_out, "\"difference\"") > y, "in the later model: %s", cli_out);
    static const char *const columns[] = {"pass@1", "pass@2", "pass@4", "maj@4"};
    for (int i = 0; i < 4 && difference; i++) {
        char text[96];
        snprintf(text, sizeof text, "\"%s\": 0, \"%s/interval\": [0, 0]", columns[i], columns[i]);
        CHECK(strstr(difference, text), "a model less itself: %s", difference);
    }
    eval_of_two(base);
    CHECK(cli("eval x=%s x=%s", base, base) == 2 && strstr(cli_err, "two models"), "%s", cli_err);
}

/* Features and entropy of an evaluation are those of the policy that sampled: at its temperature
 * the trainer's log-probs are the sampler's, to the bit. Greedy sampling has those at 1. */
static void test_eval_features(void)
{
    static const double temperatures[] = {0.7, 1, 1.4, 0};
    char error[200];
    for (int i = 0; i < 4; i++) {
        Session s = {.model = small_model(6.0f), .tokenizer = tokenizer_characters(TASK_ALPHABET)};
        s.o.temperature = temperatures[i];
        s.o.samples = 4;
        s.o.problems = 3;
        s.o.max_tokens = 20;
        task_parse("countdown:numbers=3", &s.task, error, sizeof error);
        Problems p = session_evaluated(&s, NULL);
        problems_fit(&p, &s.tokenizer, 64);
        s.engine = extent_engine(&s.model, 1, eval_extent(&p, s.o.samples, s.o.max_tokens));
        Evaluation ev = evaluation_new("it", &p, &s.o);
        evaluate(&s, &p, &ev, NULL);
        CHECK(ev.sums.responses == 12 && ev.sums.entropy > 0 && (ev.sums.logp_gap == 0 || i == 3),
              "temperature %g: logp_gap %g", temperatures[i], ev.sums.logp_gap);
        evaluation_free(&ev);
        problems_free(&p);
        session_free(&s);
    }
}

/* Distinct right answers among k of m samples, and maj@k, against every way to choose the k. */
static void test_distinct_right(void)
{
    enum { M = 6 };
    static const int class[M] = {0, 0, 2, 3, 2, 5};
    static const double reward[M] = {1, 1, 1, -1, 1, 1};
    Engine e = engine_new(1, 1 << 20, 64);
    Group g = group_new(&e.arena, M, 4, 1, 1);
    memcpy(g.reward, reward, sizeof reward);
    for (int k = 1; k <= M; k++) {
        double maj[1] = {0}, distinct[1] = {0}, sum = 0;
        Evaluation ev = {.few = k, .maj = maj, .distinct_right = distinct};
        int subsets = 0;
        for (unsigned set = 0; set < 1u << M; set++) {
            unsigned seen = 0;
            int size = 0;
            for (int i = 0; i < M; i++)
                size += set >> i & 1;
            for (int i = 0; i < M && size == k; i++)
                if (set >> i & 1 && reward[i] > 0)
                    seen |= 1u << class[i];
            for (int c = 0; c < M && size == k; c++)
                sum += seen >> c & 1;
            subsets += size == k;
        }
        evaluate_classes(&ev, 0, &g, class);
        CHECK(fabs(distinct[0] - sum / subsets) < 1e-12, "%d of %d: %g distinct right answers, not "
              "%g", k, M, distinct[0], sum / subsets);
        CHECK(ev.right_classes == 3 && ev.two_right == 1, "3 right answers: %g, %g",
              ev.right_classes, ev.two_right);
    }
    engine_free(&e);
}

/* Problems of an evaluation all differ, on each side of the split; where a task has too few, it
 * says so; of a file, those that repeat are one class, and intervals resample classes. */
static void test_distinct_problems(void)
{
    const char *base = base_model();
    Map seen = {0};
    for (int split = SPLIT_TRAIN; split <= SPLIT_TEST; split++) {
        Problems p = {.task = task_of("countdown:numbers=2"), .split = (Split)split, .seed = 1};
        problems_draw(&p, split == SPLIT_TRAIN ? 60 : 1000, NULL, NULL);
        CHECK(p.n >= 3 && (split != SPLIT_TRAIN || p.n == 60), "split %d: %d problems", split, p.n);
        for (int i = 0; i < p.n; i++) {
            uint64_t key = task_key(&p.task, p.problem[i].prompt);
            CHECK(map_get(&seen, key) < 0, "split %d: %s again", split, p.problem[i].prompt);
            map_set(&seen, key, i);
        }
        problems_free(&p);
    }
    map_free(&seen);
    CHECK(cli("eval --json --model %s --task countdown:numbers=2 --problems 400 --samples 2", base)
              == 0 && strstr(cli_err, "problems that differ; asked for 400") &&
              field(cli_out, "problems") < 30 && !strstr(cli_out, "problem_class") &&
              field(cli_out, "distinct_problems") == field(cli_out, "problems"), "%s", cli_out);

    Buf rows = {0};
    for (int i = 0; i < 12; i++) /* three problems, four times each */
        buf_printf(&rows, "{\"prompt\": \"%d+3:\", \"answer\": \"%d+3=%d,%d\"}\n", 2 + i % 3,
                   2 + i % 3, 5 + i % 3, 5 + i % 3);
    put_file("repeated.jsonl", rows.s);
    buf_free(&rows);
    CHECK(cli("eval --json --model %s --task add:digits=1 --data %s/repeated.jsonl --samples 4 "
              "--seed 5 --temperature 1.5", base, tmp_dir()) == 0, "%s", cli_err);
    double right[12], class[12], interval[2];
    int of[12];
    CHECK(field(cli_out, "problems") == 12 && field(cli_out, "distinct_problems") == 3 &&
          numbers(cli_out, "right", right, 12) == 12 &&
          numbers(cli_out, "problem_class", class, 12) == 12 &&
          numbers(cli_out, "pass@1/interval", interval, 2) == 2, "%s", cli_out);
    for (int i = 0; i < 12; i++) {
        CHECK(class[i] == i % 3, "class %d is %g", i, class[i]);
        right[i] /= 4;
        of[i] = i % 3;
    }
    Estimate e = bootstrap(right, of, 12, 5);
    CHECK(e.low < bootstrap(right, NULL, 12, 5).low, "rows are no problems: the interval is wider");
    CHECK(fabs(e.low - interval[0]) < 1e-5 && fabs(e.high - interval[1]) < 1e-5,
          "resampled by problem: [%g, %g], not [%g, %g]", interval[0], interval[1], e.low, e.high);
    CHECK(strstr(cli_err, "12 problems, 3 of them different, 4 samples of each"), "%s", cli_err);
}

/* eval --temperature with several, and --responses: rows and lines that fit together. */
static void test_eval_rows(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--json --task add:digits=1 --split train --problems 5 --samples 4";
    double one;
    CHECK(cli("eval %s --model %s --temperature 0.5", common, base) == 0 &&
              !strncmp(cli_out, "{\"name\": \"model\"", 16), "%s%s", cli_err, cli_out);
    one = field(cli_out, "entropy");
    CHECK(cli("eval %s x=%s y=%s --temperature 0,0.5,2 --responses %s/said.jsonl", common, base,
              base, dir) == 0, "%s", cli_err);
    static const char *const names[] = {"x T 0", "x T 0.5", "x T 2", "y T 0", "y T 0.5", "y T 2"};
    const char *at = cli_out;
    for (int i = 0; i < 6; i++) {
        char quoted[32], from[48];
        snprintf(quoted, sizeof quoted, "\"%s\": {", names[i]);
        at = strstr(at, quoted);
        if (!CHECK(at != NULL, "no row %s: %s", names[i], cli_out))
            return;
        CHECK(field(at, "temperature") == (i % 3 == 2 ? 2 : i % 3 * 0.5), "%s", quoted);
        snprintf(from, sizeof from, "\"difference\": {\"from\": \"%s\"", names[i % 3]);
        const char *next = strstr(at, "\n  \""), *difference = strstr(at, "\"difference\"");
        bool has = difference && (!next || difference < next);
        CHECK(has == (i > 2) && (!has || !strncmp(difference, from, strlen(from))), "%s of %s",
              from, at);
        CHECK(i % 3 != 1 || field(at, "entropy") == one, "T 0.5 among others: entropy %g, not %g",
              field(at, "entropy"), one);
    }
    size_t n;
    int rows = 0, right = 0;
    char *said = read_file(tmp_path("said.jsonl").s, &n);
    for (char *line = said, *next; *line; line = next, rows++) {
        next = strchr(line, '\n') + 1;
        next[-1] = 0;
        CHECK(field(line, "problem") == rows / 4 % 5 && field(line, "sample") == rows % 4 &&
              strstr(line, names[rows / 20]), "row %d: %s", rows, line);
        right += rows / 20 == 1 && field(line, "reward") > 0;
    }
    free(said);
    CHECK(rows == 120, "%d rows", rows);
    char *table = xstrdup(cli_out);
    CHECK(cli("eval %s --model %s --responses %s/none/said.jsonl", common, base, dir) == 1 &&
              strstr(cli_err, "none/said.jsonl") && strstr(cli_out, "\"pass@1\""),
          "a file that cannot be written costs no table: %s", cli_err);
    memcpy(cli_out, table, strlen(table) + 1);
    free(table);
    at = strstr(cli_out, names[1]);
    CHECK(fabs(field(at, "pass@1") - right / 20.0) < 1e-9, "%d right, pass@1 %g", right,
          field(at, "pass@1"));
    static const char *const bad[] = {"", ",", "1,", "1,,2", "-1", "101", "nan", "1x", "0x1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(cli("eval %s --model %s --temperature=%s", common, base, bad[i]) == 2 &&
                  strstr(cli_err, "--temperature"), "'%s': %s", bad[i], cli_err);
}

/* sft and geometry judge as train does: --verifier, --reward-cmd; and sft's records of ids need no
 * tokenizer. */
static void test_judged_commands(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    char options[400];
    size_t n;
    Path ids = put_file("ids.jsonl", "{\"input_ids\": [1, 2, 3]}\n"), bare = tmp_path("bare");
    put_file("asked.jsonl", "{\"prompt\": \"37,4>26:\"}\n{\"prompt\": \"1+2:\"}\n");
    put_file("yes.sh", "while read -r x; do echo 1; read -r x; echo -1; done\n");
    snprintf(options, sizeof options, "--reward-cmd sh %.150s/yes.sh\n", dir);
    put_file("cmd", options);
    CHECK(cli("sft --model %s --data %s --eval-data %s/asked.jsonl --eval-every 1 --samples 4 "
              "--max-tokens 8 --steps 1 --out %s/sided --force @%s/cmd", base, ids.s, dir, dir, dir)
              == 0, "%s", cli_err);
    char *text = read_file(tmp_path("sided/eval.jsonl").s, &n);
    CHECK(field(text, "pass@1") == 0.5 && field(text, "problems") == 2, "%s", text);
    free(text);
    CHECK(cli("sft --model %s --data %s --steps 1 --out %s/no @%s/cmd", base, ids.s, dir, dir) == 2
              && strstr(cli_err, "--eval-every"), "%s", cli_err);
    CHECK(cli("geometry --json --model %s --data %s/asked.jsonl --samples 4 --max-tokens 8 @%s/cmd",
              base, dir, dir) == 0 && field(cli_out, "pass@1") == 0.5 &&
              strstr(cli_out, "\"cos_one_right\""), "%s%s", cli_err, cli_out);
    CHECK(cli("geometry --json --model %s --data %s/asked.jsonl --samples 4 --max-tokens 8", base,
              dir) == 0 && !strstr(cli_out, "cos_one_right"), "%s%s", cli_err, cli_out);
    CHECK(cli("geometry --model %s --data %s/asked.jsonl --verifier exact", base, dir) == 1 &&
              strstr(cli_err, "line 1: no answer"), "%s", cli_err);

    CHECK(cli("sft --model %s --data %s --steps 1 --out %s", base, ids.s, bare.s) == 0, "%s",
          cli_err);
    Path checkpoint = path_join(bare.s, "checkpoint-1");
    unlink(path_join(checkpoint.s, "tokenizer.json").s);
    CHECK(cli("sft --model %s --data %s --steps 1 --out %s/idless --force", checkpoint.s, ids.s,
              dir) == 0, "ids need no tokenizer: %s", cli_err);
    put_file("text.jsonl", "{\"text\": \"1+2\"}\n");
    CHECK(cli("sft --model %s --data %s/text.jsonl --steps 1 --out %s/idless --force", checkpoint.s,
              dir, dir) == 1 && strstr(cli_err, "tokenizer.json"), "text does: %s", cli_err);
}

/* A name as `help metrics` writes it: pass@4 is pass@k, mean@4 is mean@n, time/x is time/PHASE. */
static void add_name(Buf *names, const char *name, size_t n)
{
    char plain[64], *at;
    snprintf(plain, sizeof plain, "|%.*s|", (int)n, name);
    if ((at = strchr(plain, '@')) && strcmp(plain, "|pass@1|") && at[1] != 'k' && at[1] != 'n') {
        char *rest = at + 1 + strspn(at + 1, "0123456789");
        at[1] = strncmp(plain, "|mean", 5) ? 'k' : 'n';
        memmove(at + 2, rest, strlen(rest) + 1);
    }
    if (!strncmp(plain, "|time/", 6))
        strcpy(plain, "|time/PHASE|");
    if (!strstr(names->n ? names->s : "", plain))
        buf_str(names, plain);
}

/* Do the keys of a row and the names that `help metrics` defines under a heading agree? */
static void check_defined(const char *heading, const Buf *keys)
{
    Buf names = {0};
    cli("help metrics");
    char *at = strstr(cli_out, heading), *end = at ? strstr(at, "\n\n") : NULL;
    CHECK(at != NULL, "no '%s' in: %s", heading, cli_out);
    if (end)
        end[1] = 0;
    for (at = at ? strchr(at, '\n') + 1 : NULL; at && *at; at = strchr(at, '\n') + 1) {
        size_t n, line = strcspn(at, "\n");
        for (char *name = at + 2; *name != ' ' && name < at + line; name += n + 2) {
            n = strcspn(name, ", \n");
            add_name(&names, name, n);
            if (name[n] != ',')
                break;
        }
    }
    for (int way = 0; way < 2; way++) {
        const char *some = way ? names.s : keys->s, *all = way ? keys->s : names.s, *name;
        for (name = some; *name; name += strcspn(name + 1, "|") + 2) {
            char one[64];
            snprintf(one, sizeof one, "%.*s", (int)strcspn(name + 1, "|") + 2, name);
            bool first = !strcmp(one, "|pass@1|") && strstr(all, "|pass@k|");
            CHECK(first || strstr(all, one), "%s: %s is %s", heading, one,
                  way ? "defined, and not written" : "written, and not defined");
        }
    }
    buf_free(&names);
}

static void add_keys(Buf *names, const char *row)
{
    Buf key = {0};
    Json j = json_open(row, strcspn(row, "\n"));
    for (json_object(&j); json_key(&j, &key); json_skip(&j))
        add_name(names, key.s, key.n);
    buf_free(&key);
}

static void add_file_keys(Buf *names, const char *path)
{
    size_t n;
    char *text = read_file(tmp_path(path).s, &n);
    add_keys(names, text);
    free(text);
}

/* help metrics defines every number that a run writes, and no other. */
static void test_metrics(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Buf names[4] = {{0}};
    put_file("valid.jsonl", "{\"prompt\": \"4+5:\", \"response\": \"9\"}\n");
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --prompts 2 --rollouts 2 --lora 1 "
              "--eval-every 1 --samples 2 --problems 2 --out %s/keys", base, dir) == 0, "%s",
          cli_err);
    CHECK(cli("sft --model %s --data %s/valid.jsonl --valid %s/valid.jsonl --steps 1 --batch 1 "
              "--lora 1 --eval-every 1 --out %s/more_keys", base, dir, dir, dir) == 0, "%s",
          cli_err);
    add_file_keys(&names[0], "keys/metrics.jsonl");
    add_file_keys(&names[1], "keys/eval.jsonl");
    add_file_keys(&names[2], "more_keys/metrics.jsonl");
    add_file_keys(&names[3], "more_keys/eval.jsonl");
    put_file("twice.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n"
                            "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n");
    CHECK(cli("eval --json --task add:digits=1 --data %s/twice.jsonl --samples 2 x=%s y=%s", dir,
              base, base) == 0, "%s", cli_err);
    const char *y = strstr(cli_out, "\"y\": {");
    if (CHECK(y != NULL, "%s", cli_out))
        add_keys(&names[1], y + 5);
    static const char *const headings[] = {"metrics.jsonl of train", "eval.jsonl of train and sft",
                                           "metrics.jsonl of sft", "eval.jsonl of sft --valid"};
    for (int i = 0; i < 4; i++) {
        check_defined(headings[i], &names[i]);
        buf_free(&names[i]);
    }
}

/* The command: its members, equal lines for equal models and for any threads, agreement with
 * eval; what each option changes; what it refuses. */
static void test_geometry(void)
{
    static const char *const common =
        "--task add:digits=1 --split train --problems 6 --samples 4 --max-tokens 20 --seed 4 "
        "--temperature 1.2";
    static const char *const members[] = {
        "name", "model", "temperature", "feature_temperature", "encoder", "groups", "samples",
        "pairs", "distinct_pairs", "identical", "cos", "cos_distinct", "neg_ratio",
        "neg_ratio_distinct", "semantic", "semantic_distinct", "zero_mean/sum", "zero_mean/mean",
        "histogram/cos", "histogram/cos_distinct", "histogram/semantic",
        "histogram/semantic_distinct", "histogram/neg_ratio", "true", "all", "pearson/phi",
        "spearman/phi", "pearson/semantic", "spearman/semantic", "head", "embedding", "layer 0",
        "layer 3", "true_pairs"};
    const char *base = base_model();
    char *lines, name[64];
    CHECK(cli("geometry %s --json --true-gradients --threads 1 x=%s y=%s", common, base, base) == 0,
          "%s", cli_err);
    lines = xstrdup(cli_out);
    char *y = strstr(lines, "\n{\"name\": \"y\"");
    CHECK(y && !strncmp(lines, "{\"name\": \"x\"", 12) && !strcmp(strchr(y + 1, '\n'), "\n") &&
              !strncmp(lines + 12, y + 13, strlen(y + 13) - 1), "two equal lines: %s", lines);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        snprintf(name, sizeof name, "\"%s\": ", members[i]);
        CHECK(strstr(lines, name), "no %s", members[i]);
    }
    CHECK(field(lines, "groups") == 6 && field(lines, "pairs") == 36 &&
              fabs(field(lines, "identical") - 1 + field(lines, "distinct_pairs") / 36) < 1e-12 &&
              field(lines, "distinct_pairs") < 36, "counts: %s", lines);
    cli("geometry %s --json --true-gradients --threads 3 x=%s y=%s", common, base, base);
    CHECK(!strcmp(lines, cli_out), "threads changed the numbers");
    cli("eval %s --json --model %s", common, base);
    double cosine = field(strstr(lines, "\"cos\""), "mean");
    CHECK(fabs(field(cli_out, "phi/cos_mean") - cosine) < 1e-9, "eval has %g, geometry %g",
          field(cli_out, "phi/cos_mean"), cosine);
    cli("geometry %s --json --model %s --encoder ngram", common, base);
    CHECK(!strncmp(cli_out, "{\"name\": \"model\"", 16) && !strstr(cli_out, "\"true\"") &&
              strstr(cli_out, "\"encoder\": \"ngram\"") &&
              field(strstr(cli_out, "\"cos\""), "mean") == cosine, "%s", cli_out);
    cli("geometry %s --json --true-gradients --feature-temperature 1.2 x=%s y=%s", common, base,
        base);
    CHECK(!strcmp(lines, cli_out), "features are at the sampling temperature");
    cli("geometry %s --json --true-gradients --feature-temperature 0.5 x=%s", common, base);
    CHECK(field(cli_out, "temperature") == 1.2 && field(cli_out, "feature_temperature") == 0.5 &&
              field(cli_out, "distinct_pairs") == field(lines, "distinct_pairs") &&
              field(strstr(cli_out, "\"semantic\""), "mean") ==
                  field(strstr(lines, "\"semantic\""), "mean"), "other responses: %s", cli_out);
    CHECK(field(strstr(cli_out, "\"cos\""), "mean") != cosine &&
              field(strstr(cli_out, "\"pearson/semantic\""), "mean") !=
                  field(strstr(lines, "\"pearson/semantic\""), "mean"), "%s", cli_out);
    CHECK(cli("geometry %s --true-gradients x=%s", common, base) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "zero-mean check") && strstr(cli_out, "\n  layer 3 ") &&
              strstr(cli_out, "Encoder: ref, x."), "%s", cli_out);
    free(lines);
}

static void gradients_for_dying(void *model) { free(gradients_new(model, 8)); }

/* Problems need no answers; a reference with other tokens is refused; usage. */
static void test_geometry_inputs(void)
{
    const char *base = base_model();
    Path data = put_file("asked.jsonl", "{\"prompt\": \"1+2:\"}\n{\"prompt\": \"3+4:\"}\n");
    Path file = tmp_path("others.json"), other = tmp_path("others");
    CHECK(cli("geometry --json --data %s --samples 3 --max-tokens 9 --model %s", data.s, base) == 0
              && field(cli_out, "groups") == 2, "%s", cli_err);
    tokenizer_write(file.s, "0123456789abcdef+-*/=>:,");
    cli("sft --preset nano --tokenizer %s --steps 0 --out %s", file.s, other.s);
    CHECK(cli("geometry --data %s --samples 3 --max-tokens 9 x=%s y=%s", data.s, base, other.s) == 1
              && strstr(cli_err, "other tokens"), "%s", cli_err);
    CHECK(cli("geometry --data %s --samples 3 --max-tokens 9 --encoder ngram x=%s y=%s", data.s,
              base, other.s) == 0, "%s", cli_err);
    cli("sft --preset nano --steps 0 --out %s", tmp_path("another").s);
    CHECK(cli("geometry --json --data %s --samples 3 --max-tokens 9 --model %s", data.s,
              tmp_path("another").s) == 0, "%s", cli_err);
    double cosine = field(strstr(cli_out, "\"cos\""), "mean");
    double semantic = field(strstr(cli_out, "\"semantic\""), "mean");
    cli("geometry --json --data %s --samples 3 --max-tokens 9 x=%s y=%s", data.s, base,
        tmp_path("another").s);
    const char *y = strstr(cli_out, "\n{\"name\": \"y\"");
    CHECK(y && field(strstr(y, "\"cos\""), "mean") == cosine &&
              field(strstr(y, "\"semantic\""), "mean") != semantic,
          "the first model is the ruler of texts, and of nothing else: %s", cli_out);
    CHECK(cli("geometry") == 2 && strstr(cli_err, "NAME=DIR"), "%s", cli_err);
    CHECK(cli("geometry %s", base) == 2 && strstr(cli_err, "NAME=DIR"), "%s", cli_err);
    CHECK(cli("geometry --samples 1 --model %s", base) == 2, "a pair needs two");
    CHECK(cli("geometry --samples 4096 --problems 300 --task countdown --model %s", base) == 2 &&
              strstr(cli_err, "pairs; expected"), "%s", cli_err);
    Model m = {.n_grads = (size_t)1 << 50};
    char err[256];
    CHECK(dies(gradients_for_dying, &m, err, sizeof err) == 1 && strstr(err, "fewer --samples"),
          "%s", err);
}

static void test_sample(void)
{
    const char *base = base_model();
    char once[256];
    CHECK(cli("sample --model %s --prompt 4+5: --temperature 0", base) == 0, "%s", cli_err);
    snprintf(once, sizeof once, "%.255s", cli_out);
    CHECK(strlen(once) > 3 && strchr(once, '\n') == once + strlen(once) - 1, "'%s'", once);
    cli("sample --model %s --prompt 4+5: --temperature 0 --samples 2", base);
    CHECK(!strncmp(cli_out, once, strlen(once)) && !strcmp(cli_out + strlen(once), once),
          "streamed and collected text differ: %s", cli_out);
    cli("sample --model %s --prompt 4+5: --temperature 0 --stop =", base);
    CHECK(strlen(cli_out) == strcspn(once, "=") + 1 && !strncmp(cli_out, once, strcspn(once, "=")),
          "--stop: '%s'", cli_out);
    CHECK(cli("sample --model %s --prompt hello", base) == 1 && strstr(cli_err, "no token"), "%s",
          cli_err);
}

/* sample --data: a line for each response to each prompt of a file, as --prompt answers it. */
static void test_sample_file(void)
{
    const char *base = base_model();
    Path file = put_file("prompts.jsonl", "{\"prompt\": \"4+5:\"}\n{\"question\": \"12+3:\"}\n");
    Buf expected = {0};
    static const char *const prompts[] = {"4+5:", "12+3:"};
    for (int i = 0; i < 2; i++) {
        CHECK(cli("sample --model %s --prompt %s --temperature 0", base, prompts[i]) == 0, "%s",
              cli_err);
        for (int k = 0; k < 2; k++)
            buf_printf(&expected, "{\"prompt\": \"%s\", \"response\": \"%.*s\"}\n", prompts[i],
                       (int)strcspn(cli_out, "\n"), cli_out);
    }
    CHECK(cli("sample --model %s --data %s --samples 2 --temperature 0", base, file.s) == 0 &&
              !strcmp(cli_out, expected.s), "%s; expected %s; %s", cli_out, expected.s, cli_err);
    CHECK(cli("sample --model %s --data %s --prompt x", base, file.s) == 2, "%s", cli_err);
    buf_free(&expected);
}

/* Problems of one's own: prompts that only look like a built-in task's are judged as mathematics,
 * a run says that it had no task, and goes on. */
static void test_own_problems(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    put_file("own.jsonl", "{\"prompt\": \"37,4>26:\", \"answer\": \"9\"}\n");
    put_file("posed.jsonl", "{\"prompt\": \"37,4>26:\", \"answer\": \"4*3=12,12+7=19,19+7=26\"}\n");
    static const struct {
        const char *command, *data, *task, *verifier;
    } rows[] = {
        {"train --prompts 1 --rollouts 2 --max-tokens 8 --force", "own", "null", "math"},
        {"train --prompts 1 --rollouts 2 --max-tokens 8 --force", "posed", "null", "reach"},
        {"train --task reach:digits=2 --prompts 1 --rollouts 2 --max-tokens 8 --force", "posed",
         "\"reach:digits=2\"", "reach"},
        {"sft --schedule constant --batch 1 --eval-every 1 --samples 2 --max-tokens 8 --eval-data",
         "own", "null", "auto"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool sft = *rows[i].command == 's';
        char eval[300] = "", task[64], verifier[64];
        if (sft)
            snprintf(eval, sizeof eval, "%.200s/own.jsonl", dir);
        CHECK(cli("%s %s --model %s --data %s/%s.jsonl --steps 1 --out %s/own%zu", rows[i].command,
                  eval, base, dir, rows[i].data, dir, i) == 0, "%s", cli_err);
        CHECK(cli("%s --resume --steps 2 --out %s/own%zu", sft ? "sft" : "train", dir, i) == 0,
              "%s", cli_err);
        snprintf(task, sizeof task, "own%zu/run.json", i);
        size_t n;
        char *text = read_file(tmp_path(task).s, &n);
        snprintf(task, sizeof task, "\"task\": %s,", rows[i].task);
        snprintf(verifier, sizeof verifier, "\"verifier\": \"%s\"", rows[i].verifier);
        CHECK(strstr(text, task) && strstr(text, verifier), "row %zu: %s", i, text);
        free(text);
    }
}

/* Plain text, in a file of its own or in records, is the ids of the text, cut to length, all of
 * them trained on; --valid reports the loss of a step that changes nothing. */
static void test_sft_text(void)
{
    static const char *const files[] = {"cut.txt", "cut.jsonl", "ids.jsonl"};
    const char *base = base_model(), *dir = tmp_dir();
    uint64_t hash[3] = {0};
    put_file("cut.txt", "1+2=3,4");
    put_file("cut.jsonl", "{\"text\": \"1+2=3,4\"}\n");
    put_file("ids.jsonl", "{\"input_ids\": [2, 11, 3]}\n{\"input_ids\": [15, 4, 16]}\n"
                          "{\"input_ids\": [5, 0]}\n");
    for (int i = 0; i < 3; i++) {
        CHECK(cli("sft --model %s --data %s/%s --max-length 3 --steps 2 --batch 3 --shuffle 0 "
                  "--out %s/t%d", base, dir, files[i], dir, i) == 0, "%s", cli_err);
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        Model m = model_load(tmp_path(name).s);
        hash[i] = weights_hash(&m);
        model_free(&m);
    }
    CHECK(hash[0] == hash[1] && hash[0] == hash[2], "text and ids train to other weights");
    for (int recompute = 0; recompute < 2; recompute++) {
        size_t n;
        CHECK(cli("sft --model %s --data %s/ids.jsonl --valid %s/cut.txt --max-length 3 --batch 2 "
                  "--eval-every 1 --steps 1 --lr 0 --force --out %s/valid %s", base, dir, dir, dir,
                  recompute ? "--recompute" : "") == 0, "%s", cli_err);
        char *text = read_file(tmp_path("valid/eval.jsonl").s, &n);
        double loss = field(text, "loss");
        CHECK(field(text, "tokens") == 5 && fabs(loss) > 0.01, "%s", text);
        free(text);
        CHECK(cli_in("{\"input_ids\": [2, 11, 3]}\n{\"input_ids\": [15, 4, 16]}\n"
                     "{\"input_ids\": [5, 0]}\n", "score --model %s", base) == 0, "%s", cli_err);
        double sum = 0;
        for (char *p = strstr(cli_out, "[null"); p; p = strstr(p, "[null"))
            for (p += 5; *p == ',';)
                sum -= strtod(p + 1, &p);
        CHECK(fabs(loss - sum / 5) < 1e-6, "validation loss %g; score says %g", loss, sum / 5);
    }
    put_file("short.txt", "");
    CHECK(cli("sft --model %s --data %s/short.txt --out %s/no_text", base, dir, dir) == 1 &&
              strstr(cli_err, "short.txt"), "%s", cli_err);
    CHECK(cli("sft --model %s --data %s/cut.txt --valid %s/cut.txt --out %s/no_text", base, dir,
              dir, dir) == 2 && strstr(cli_err, "--eval-every"), "%s", cli_err);
}

/* The first batch is checked before training; a run that cannot learn ends. */
static void test_preflight(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --out %s/ready", base, dir) == 0 &&
              strstr(cli_err, "before training: 256 responses to 16 prompts"), "%s", cli_err);
    CHECK(cli("train --model %s --max-tokens 1 --prompts 2 --rollouts 2 --steps 1 --out %s/cut",
              base, dir) == 1 && strstr(cli_err, "--max-tokens 1: every response was cut off"),
          "%s", cli_err);
    CHECK(cli("train --model %s --task countdown:numbers=6 --prompts 2 --rollouts 32 --steps 1 "
              "--out %s/hopeless", base, dir) == 0 && strstr(cli_err, " 0 % are right") &&
              strstr(cli_err, "In 0 of 2 groups") &&
              strstr(cli_err, "no response of the first batch earned a reward"),
          "%s", cli_err);
    CHECK(cli("train --model %s --max-tokens 1 --prompts 2 --rollouts 2 --steps 1 --no-check "
              "--out %s/cut", base, dir) == 0, "%s", cli_err);
    CHECK(cli("train --model %s --steps 1 --prompts 64 --rollouts 4096 --max-tokens 400 --out "
              "%s/large", base, dir) == 1 && strstr(cli_err, "try --recompute"), "%s", cli_err);
}

static void test_data(void)
{
    CHECK(cli("data --task countdown:numbers=3 --split test --problems 20") == 0, "%s", cli_err);
    write_file(tmp_path("p.jsonl").s, cli_out, strlen(cli_out));
    CHECK(cli("data --data %s", tmp_path("p.jsonl").s) == 0 && strstr(cli_out, "20 problems"), "%s",
          cli_out);
    CHECK(cli("eval --model %s --data %s --task countdown:numbers=3 --problems 3 --samples 2",
              base_model(), tmp_path("p.jsonl").s) == 0, "%s", cli_err);
    CHECK(cli("train --model %s --data %s --task countdown:numbers=3 --steps 2 --prompts 2 "
              "--rollouts 2 --force --out %s/file", base_model(), tmp_path("p.jsonl").s,
              tmp_dir()) == 0,
          "%s", cli_err);
    static const char *const bad[][2] = {
        {"", "no problems"},
        {"{\"prompt\": \"1\"}\n", "line 1"},
        {"\n{\"answer\": \"1\"}\n", "line 2"},
        {"{\"prompt\": \"1\", \"answer\": \"1\"}\n[1]\n", "line 2"},
        {"{\"prompt\": \"1\", \"answer\": \"1\"} {}\n", "line 1"},
        {"{\"prompt\": \"\", \"answer\": \"1\"}\n", "question"},
    };
    for (int i = 0; i < 6; i++) {
        write_file(tmp_path("bad.jsonl").s, bad[i][0], strlen(bad[i][0]));
        CHECK(cli("data --data %s", tmp_path("bad.jsonl").s) == 1 && strstr(cli_err, bad[i][1]) &&
                  strstr(cli_err, "bad.jsonl"), "case %d: %s", i, cli_err);
    }
}

static void bench_rl_child(void *argument)
{
    (void)argument;
    Options o = {.json = true, .quick = true};
    Bench b = {&o, 1, 1, 1};
    StepWork w = step_work("nano", 1, true);
    bench_rl(&b, &w);
    model_free(&w.s.model);
}

/* bench: a row's figures belong together. (How fast it is, no test can say.) */
static void test_bench(void)
{
    char out[4096], err[256];
    int status = in_child(bench_rl_child, NULL, "", out, sizeof out, err, sizeof err);
    const char *grpo = strstr(out, "\"method\": \"grpo\""), *g2rl = strstr(out, "\"g2rl\"");
    CHECK(status == 0 && grpo && g2rl, "%d, %s %s", status, out, err);
    CHECK(g2rl && field(g2rl, "seconds") > 0 && field(g2rl, "ratio_to_grpo") > 0.1, "%s", out);
    CHECK(cli("bench --json --quick --threads 1 --only peak") == 0, "%s", cli_err);
    double peak = field(cli_out, "peak_gflops");
    CHECK(peak > 0.1 && field(cli_out, "fraction") == 1, "%s", cli_out);
    CHECK(cli("bench --only peaks") == 2 && strstr(cli_err, "--only"), "%s", cli_err);
    CHECK(cli("bench --preset nano") == 2 && strstr(cli_err, "--preset"), "%s", cli_err);
    CHECK(token_flops(preset_find("tiny"), 32) == 2 * (786432 + 64 * 128.0) + 2 * 128.0 * 64 * 4,
          "operations a token of tiny: %g", token_flops(preset_find("tiny"), 32));
    CHECK(fabs(token_flops(preset_find("small"), 48) / 22.46e6 - 1) < 0.001,
          "operations a sampled token of small: %g", token_flops(preset_find("small"), 48));
}

/* What goes wrong on a command line gets one line and status 2. */
static void test_command_line(void)
{
    static const char *const wrong[][2] = {
        {"trian", "train"},
        {"train --lamda 1", "--lambda"},
        {"train --lambda", "needs a value"},
        {"train --lambda x", "expected a number"},
        {"train --steps 1.5", "whole number"},
        {"train --steps -1", "from 0"},
        {"train --method ppo", "grpo|entropy|evol|g2rl"},
        {"train --model x --out x --method grpo --lambda 2", "no --lambda"},
        {"train --model x --out x --method evol --novelty random", "no --lambda"},
        {"train --model x --out x --method entropy --shaping text", "no --lambda"},
        {"train --model x --out x --method evol --reward-cmd cat", "expected a verifier"},
        {"train --model x --out x --method entropy --entropy-coef 0", "--entropy-coef above 0"},
        {"train --model x --out x --kl exact --kl-coef 0", "--kl-coef above 0"},
        {"train --model x --out x --kl k2 --kl-coef 0", "--kl-coef above 0"},
        {"explain --model x --method grpo --lambda 2", "no --lambda"},
        {"train --task count", "countdown"},
        {"train --seed -1", "whole number"},
        {"train -x", "options are long"},
        {"train --force=1", "no value"},
        {"train word", "word"},
        {"train --prompt 1", "no option --prompt"},
        {"train", "--model"},
        {"train --model x --out=", "--out is missing"},
        {"sft --out x", "--preset"},
        {"sft --preset huge --out x", "nano"},
        {"eval", "--model"},
        {"sample", "--prompt"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = cli("%s", wrong[i][0]);
        CHECK(status == 2 && strstr(cli_err, wrong[i][1]) && !strncmp(cli_err, "g2rl: ", 6) &&
                  strchr(cli_err, '\n') == cli_err + strlen(cli_err) - 1,
              "'%s': status %d, %s", wrong[i][0], status, cli_err);
    }
    CHECK(cli("train --model /nonexistent --out %s/x", tmp_dir()) == 1 &&
              strstr(cli_err, "config.json"), "%s", cli_err);
    Path p = put_file("escapes.jsonl", "{\"a\\nb\\u001b\": tru}\n");
    CHECK(cli("data --data %s", p.s) == 1 && strstr(cli_err, "line 1: a?b?: ") &&
              strchr(cli_err, '\n') == cli_err + strlen(cli_err) - 1, "%s", cli_err);
    for (int c = 0; c < N_COMMANDS; c++) {
        CHECK(cli("%s --help", COMMANDS[c].name) == 0 && !*cli_err, "help of %s: %s",
              COMMANDS[c].name, cli_err);
        for (int i = 0; i < N_OPTIONS; i++) {
            char name[64];
            snprintf(name, sizeof name, "--%s ", OPTIONS[i].name);
            if (option_known(&OPTIONS[i], c))
                CHECK(strstr(cli_out, name), "%s --help does not name --%s", COMMANDS[c].name,
                      OPTIONS[i].name);
        }
    }
    CHECK(cli("help") == 0 && strstr(cli_out, "explain"), "help");
    CHECK(cli("help metrics") == 0 && strstr(cli_out, "logp_gap"), "help metrics");
}

/* Help where people look for it. */
static void test_help(void)
{
    static const char *const same[][2] = {
        {"-h", "help"}, {"--help", "help"}, {"help --help", "help"},
        {"train -h", "train --help"}, {"help train", "train --help"},
        {"--help eval", "eval --help"}, {"train --steps 3 -h", "train --help"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        CHECK(cli("%s", same[i][1]) == 0, "%s: %s", same[i][1], cli_err);
        char *expected = xstrdup(cli_out);
        CHECK(cli("%s", same[i][0]) == 0 && !strcmp(cli_out, expected) && !*cli_err,
              "%s is not %s: %s", same[i][0], same[i][1], cli_err);
        free(expected);
    }
    CHECK(cli("--version") == 0 && !strcmp(cli_out, "g2rl " VERSION " (" SIMD_NAME ")\n"), "%s",
          cli_out);
    CHECK(cli("help tran") == 2 && strstr(cli_err, "did you mean train"), "%s", cli_err);
}

/* What progress writes to a terminal of this kind and width. */
static Buf progress_shown(const char *kind, int columns, const char *phase)
{
    struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), saved = dup(STDERR_FILENO), n;
    char *before = getenv("TERM") ? xstrdup(getenv("TERM")) : NULL, text[4096];
    Buf out = {0};
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal))
        die("no pseudo-terminal: %s", strerror(errno));
    int end = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    ioctl(end, TIOCSWINSZ, &size);
    setenv("TERM", kind, 1);
    dup2(end, STDERR_FILENO);
    Progress p = progress_new(phase, 3);
    for (int i = 1; i <= 3; i++, p.last = -1)
        progress(&p, i, "loss 1.2345  and a note that goes on and on");
    dup2(saved, STDERR_FILENO);
    while (poll(&(struct pollfd){.fd = terminal, .events = POLLIN}, 1, 0) > 0 &&
           (n = (int)read(terminal, text, sizeof text)) > 0)
        buf_add(&out, text, (size_t)n);
    buf_str(&out, "");
    close(end);
    close(terminal);
    close(saved);
    before ? setenv("TERM", before, 1) : unsetenv("TERM");
    free(before);
    return out;
}

/* One changing line, narrower than the terminal, in whole characters; on a dumb terminal lines. */
static void test_progress(void)
{
    static const int widths[] = {20, 40, 200};
    for (int i = 0; i < 3; i++) {
        Buf b = progress_shown("xterm", widths[i], "\xC3\xA9t\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
        int lines = 0;
        for (const char *s = b.s; *s; s++)
            lines += *s == '\n';
        CHECK(lines == 1 && b.s[b.n - 1] == '\n', "%d columns: %s", widths[i], b.s);
        for (char *line = strtok(b.s, "\r\n"); line; line = strtok(NULL, "\r\n")) {
            int shown = 0;
            char *escape = strstr(line, "\033[K");
            for (char *s = line; escape && s < escape; s++)
                shown += (*s & 0xC0) != 0x80;
            CHECK(escape && shown < widths[i] && (shown == widths[i] - 1 || widths[i] == 200),
                  "%d columns: %d: %s", widths[i], shown, line);
            uint32_t code;
            for (char *s = line; *s; s += imax(utf8_decode(s, strlen(s), &code), 1))
                CHECK(utf8_decode(s, strlen(s), &code) > 0, "half a character: %s", line);
        }
        buf_free(&b);
    }
    Buf b = progress_shown("dumb", 80, "train");
    CHECK(!strchr(b.s, '\033') && strstr(b.s, "1/3") && strstr(b.s, "3/3"), "%s", b.s);
    buf_free(&b);
}

/* One option, one row for each command; defaults lie inside their own bounds; @file. */
static void test_options(void)
{
    for (int i = 0; i < N_OPTIONS; i++)
        for (int j = 0; j < i; j++)
            CHECK(strcmp(OPTIONS[i].name, OPTIONS[j].name) ||
                      !(OPTIONS[i].commands & OPTIONS[j].commands),
                  "--%s has two rows for one command", OPTIONS[i].name);
    for (int c = 0; c < N_COMMANDS; c++) {
        Options o = {0};
        options_default(OPTIONS, N_OPTIONS, c, &o);
    }
    const char *file = "# a comment\n--steps 7\n\n--method grpo\n--force\n  --lr   0.5\n";
    write_file(tmp_path("options").s, file, strlen(file));
    char at[128];
    snprintf(at, sizeof at, "@%.120s", tmp_path("options").s);
    char *argv[] = {at, (char *)"--steps=9", (char *)"--out", (char *)"x"};
    Options o = {0};
    Words w = {0};
    options_default(OPTIONS, N_OPTIONS, TRAIN, &o);
    options_parse(OPTIONS, N_OPTIONS, TRAIN, "train", &o, 4, argv, &w);
    CHECK(o.steps == 9 && o.rl.method == GRPO && o.force && o.lr == 0.5 && !strcmp(o.out, "x"),
          "@file, and what comes later wins");
    words_free(&w);
    Buf loop = {0}; /* a file that names itself, behind an option without a value */
    buf_printf(&loop, "--force @%s\n--steps 8\n", tmp_path("loop").s);
    write_file(tmp_path("loop").s, loop.s, loop.n);
    buf_free(&loop);
    CHECK(cli("train @%s", tmp_path("loop").s) == 2 && strstr(cli_err, "no value"), "%s", cli_err);
    CHECK(edit_distance("lamda", "lambda") == 1 && edit_distance("abc", "abc") == 0 &&
              edit_distance("", "abc") == 3 && edit_distance("kitten", "sitting") == 3,
          "edit distance");
    static const double exact[] = {0.1, 1e-4, 1.0 / 3, (double)0.1f, 1e-8, 123456789.125};
    for (int i = 0; i < 6; i++) {
        Buf b = {0};
        put_exactly(&b, exact[i], 15);
        CHECK(strtod(b.s, NULL) == exact[i], "%s is not %.17g", b.s, exact[i]);
        buf_free(&b);
    }
}

#endif
