/* explain.h: the command `explain`: the whole computation of one group, for people: a table with a
 * row for each response, S and w, and a sentence for each advantage. At most 100 columns for up to
 * 8 responses. --json has the same numbers for programs. */
#ifndef EXPLAIN_H
#define EXPLAIN_H

/* ---------------------------------------------------------------- a sentence for each response */

/* Are all rewards +1 or -1? Then the words are right and wrong. */
static bool is_binary(const Group *g)
{
    for (int i = 0; i < g->m; i++)
        if (fabs(g->reward[i]) != 1)
            return false;
    return true;
}

static bool same_reward(const Group *g, int i, int j)
{
    return fabs(g->reward[i] - g->reward[j]) < FLOOR;
}

static bool all_zero(const double *x, int n)
{
    for (int i = 0; i < n; i++)
        if (x[i] != 0)
            return false;
    return true;
}

/* Is all novelty equal? Then it shapes nothing. */
static bool novelty_is_flat(const Group *g) { return all_zero(g->nubar, g->m); }

static bool has_no_advantage(const Group *g) { return all_zero(g->advantage, g->m); }

static bool shapes_by_novelty(const MethodOptions *o)
{
    return o->method == G2RL && o->lambda > 0;
}

/* "right", "wrong (the verifier's reason)", "reward 0.5 (the command's reason)". */
static void say_reward(const Group *g, int i, Buf *b)
{
    const char *why = g->reason[i] ? g->reason[i] : "";
    if (is_binary(g))
        buf_str(b, is_right(g->reward[i]) ? "right" : "wrong");
    else
        buf_printf(b, "reward %.3g", g->reward[i]);
    if (*why && !among(why, "right|wrong|given"))
        buf_printf(b, " (%s)", why);
}

/* The rank of novelty x_i among responses of equal reward: ", the most novel of the right ones".
 * NAN is not counted. */
static void say_rank(const Group *g, const double *x, int i, Buf *b)
{
    int alike = 0, above = 0, below = 0; /* at least as novel; at most */
    const char *class = !is_binary(g) ? "those with this reward"
                        : is_right(g->reward[i]) ? "the right ones" : "the wrong ones";
    for (int j = 0; j < g->m; j++)
        if (j != i && same_reward(g, i, j) && !isnan(x[j])) {
            alike++;
            above += x[j] > x[i] - FLOOR;
            below += x[j] < x[i] + FLOOR;
        }
    if (!alike && is_binary(g))
        buf_printf(b, ", the only %s one", is_right(g->reward[i]) ? "right" : "wrong");
    else if (alike && (!above || !below))
        buf_printf(b, ", the %s novel of %s", above ? "least" : "most", class);
}

/* The responses of the same tokens: ", the same answer as 0, 3 and 5". */
static void say_twins(const Group *g, int i, Buf *b)
{
    enum { NAMED = 4 };
    int twins = 0, said = 0;
    for (int j = 0; j < g->m; j++)
        twins += j != i && same_response(g, i, j);
    for (int j = 0; j < g->m && said < imin(twins, NAMED); j++) {
        if (j == i || !same_response(g, i, j))
            continue;
        bool last = ++said == twins;
        buf_printf(b, "%s %d", said == 1 ? ", the same answer as" : last ? " and" : ",", j);
    }
    if (twins > NAMED)
        buf_printf(b, " and %d more", twins - NAMED);
}

/* The part of nu_i that response j takes away (Eq 11). */
static double taken(const Group *g, int i, int j)
{
    double S = g->S[i * g->m + j];
    return g->w[i * g->m + j] * S * S;
}

/* The response that subtracts most from nu_i; and the next one if it subtracts at least half as
 * much, with an S of the same sign: ", most like 2 and 4 (S +0.83, +0.71)". */
static void say_nearest(const Group *g, int i, Buf *b)
{
    const double *S = g->S + (ptrdiff_t)i * g->m;
    int best = i, second = i; /* w_ii = 0: taken is 0 */
    for (int j = 0; j < g->m; j++)
        if (taken(g, i, j) > taken(g, i, best)) {
            second = best;
            best = j;
        } else if (taken(g, i, j) > taken(g, i, second))
            second = j;
    if (taken(g, i, best) < 0.01) {
        buf_str(b, ", like no other");
        return;
    }
    if (same_response(g, i, best))
        return;
    bool both = taken(g, i, second) >= taken(g, i, best) / 2 && (S[second] > 0) == (S[best] > 0);
    int first = both ? imin(best, second) : best, last = imax(best, second);
    buf_printf(b, ", most %s %d", S[best] > 0 ? "like" : "opposed to", first);
    if (both)
        buf_printf(b, " and %d (S %+.2f, %+.2f)", last, S[first], S[last]);
    else
        buf_printf(b, " (S %+.2f)", S[first]);
}

/* The novelty of a response under G2RL. */
static void say_novelty(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    if (o->novelty == NOVELTY_RANDOM)
        buf_printf(b, ", dealt nu %.2f", g->nu[i]);
    else if (o->novelty == NOVELTY_GRADIENT && g->S[i * g->m + i] == 0)
        buf_str(b, ", the policy certain of its every token (certainty is not novelty: nu 0)");
    else {
        say_twins(g, i, b);
        say_rank(g, g->nu, i, b);
        buf_printf(b, ", nu %.2f", g->nu[i]);
        if (o->novelty == NOVELTY_GRADIENT)
            say_nearest(g, i, b);
    }
}

/* From r to r~ under G2RL. */
static void say_shaping(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    double r = g->reward[i], shaped = g->shaped[i] + 0; /* no -0 */
    bool text = o->shaping == SHAPING_TEXT;
    if (fabs(r) > SHAPED_LIMIT)
        buf_printf(b, ": clipped to %+.0f", shaped);
    else if (fabs(shaped - r) < 0.005) {
        bool least_novel = r < 0 && g->nubar[i] < FLOOR && !novelty_is_flat(g);
        buf_printf(b, ": stays at %+.2f%s", shaped, !least_novel ? "" :
                   text ? ", the least loss" : ", the full loss");
    } else if (fabs(shaped) == SHAPED_LIMIT)
        buf_printf(b, ": %s as far as the clip at %+.0f", shaped > r ? "raised" : "lowered",
                   shaped);
    else
        buf_printf(b, ": %s to %+.2f",
                   r > 0 ? "boosted" : text ? "loses more, down" : "loses less, up", shaped);
}

/* EVOL-RL: the novelty of the embedding, and the reward it makes within its class. */
static void say_meaning(const Group *g, int i, Buf *b)
{
    const double *cosine = g->semantic + (ptrdiff_t)i * g->m;
    int near = -1;
    if (!g->answered[i] || isnan(g->u[i])) {
        buf_printf(b, "%s: r~ is %+.2f", g->answered[i] ? ", the group's only answer" :
                   ", without an answer", g->shaped[i]);
        return;
    }
    for (int j = 0; j < g->m; j++)
        if (j != i && g->answered[j] && (near < 0 || cosine[j] > cosine[near]))
            near = j;
    say_twins(g, i, b);
    say_rank(g, g->u, i, b);
    buf_printf(b, ", u %.2f", g->u[i]);
    if (!same_response(g, i, near))
        buf_printf(b, ", most like %d (cosine %+.2f)", near, cosine[near]);
    buf_printf(b, ": r~ is %+.2f, between %s", g->shaped[i],
               is_right(g->reward[i]) ? "+0.5 and +1" : "-1 and -0.5");
}

/* From r~ to A (Eq 2). */
static void say_advantage(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    double A = g->advantage[i];
    const char *unit = o->adv_norm == ADV_STD ? " standard deviations" : "", *though = "";
    if (is_binary(g) && (A > 0) != is_right(g->reward[i]))
        though = A > 0 ? ", so more likely though wrong" : ", so less likely though right";
    if (has_no_advantage(g))
        buf_str(b, "; no advantage.");
    else if (fabs(A) < 0.005)
        buf_str(b, "; at the group's mean.");
    else
        buf_printf(b, "; %s the group's mean by %.2f%s%s.", A > 0 ? "above" : "below", fabs(A),
                   unit, though);
}

/* Appends the sentence of response i. */
static void explain_response(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    buf_printf(b, "%d: ", i);
    say_reward(g, i, b);
    if (o->method == EVOL)
        say_meaning(g, i, b);
    else if (shapes_by_novelty(o)) {
        say_novelty(g, i, o, b);
        say_shaping(g, i, o, b);
    } else
        buf_printf(b, ": stays at %+.2f", g->shaped[i]);
    say_advantage(g, i, o, b);
}

/* Appends special cases of the whole group; nothing in the usual case. */
static void explain_whole(const Group *g, const MethodOptions *o, Buf *b)
{
    static const char *const dead_names[] = {"full", "zero", "right", "wrong"}; /* by DeadGroups */
    bool flat = novelty_is_flat(g) && shapes_by_novelty(o);
    if (o->method == GRPO || o->method == ENTROPY)
        buf_printf(b, "%s shapes nothing: r~ = r, whatever nu is. ", METHODS[o->method]);
    else if (o->method == G2RL && !(o->lambda > 0))
        buf_str(b, "lambda 0 shapes nothing: r~ = r, as under GRPO. ");
    else if (o->method == G2RL && o->novelty == NOVELTY_RANDOM)
        buf_str(b, "nu was dealt out at random inside the group: a control. ");
    else if (o->method == G2RL && o->novelty == NOVELTY_COUNT)
        buf_str(b, "S_ij is 1 for equal responses and 0 for others: nu counts copies, a control. ");
    if (shapes_by_novelty(o) && wrong_is_zero(g, 1))
        buf_str(b, "A reward of 0 stays 0, however novel the response (Eq 12 multiplies): only "
                   "rewards of +1 and -1 turn the whole method on. ");
    if (is_dead(g)) {
        buf_str(b, "All rewards are equal");
        if (!shapes_dead(g, o->dead_groups))
            buf_printf(b, ": with --dead-groups %s this group teaches nothing.",
                       dead_names[o->dead_groups]);
        else if (has_no_advantage(g))
            buf_printf(b, "%s: this group teaches nothing.", flat ? ", and so is all novelty" : "");
        else
            buf_str(b, ": under GRPO this group would teach nothing; here only novelty speaks.");
    } else if (flat)
        buf_str(b, "All nu are equal: nothing is shaped, as under GRPO.");
    while (b->n && b->s[b->n - 1] == ' ')
        b->s[--b->n] = 0;
}

/* ---------------------------------------------------------------- table and matrices */

enum { WIDTH = 100 };

/* Makes text one line of at most `most` characters, with ".." in place of more; returns their
 * number. */
static int one_line(Buf *text, int most)
{
    int characters = 0;
    size_t cut = 0;
    for (size_t k = 0; k < text->n; k++) {
        if ((unsigned char)text->s[k] < ' ')
            text->s[k] = ' ';
        if ((text->s[k] & 0xC0) != 0x80 && characters++ == most - 2)
            cut = k;
    }
    if (characters <= most)
        return characters;
    text->n = cut;
    buf_str(text, "..");
    return most;
}

/* A row for each response, with the numbers that made its advantage. */
static void print_responses(const Group *g, const Tokenizer *t, const MethodOptions *o)
{
    enum { LONGEST = 56 };
    bool evol = o->method == EVOL;
    int width = 8;
    Buf text = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        width = imax(width, one_line(&text, LONGEST));
    }
    printf("%3s  %-*s %5s  %6s %6s %6s %7s\n", "i", width, "response", "r", evol ? "u" : "nu",
           evol ? "n" : "nubar", "r~", "A");
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        int blank = width - one_line(&text, LONGEST);
        printf("%3d  %s%*s %+5.3g  %6.3f %6.3f %+6.2f %+7.3f\n", i, text.s, blank, "",
               g->reward[i], evol ? g->u[i] : g->nu[i], g->nubar[i], g->shaped[i] + 0,
               g->advantage[i]);
    }
    buf_free(&text);
}

/* Row i of a matrix, a cell by `form`; row -1: the numbers of its columns. */
static void print_row(const double *x, int m, int i, int width, const char *form)
{
    if (i < 0)
        printf("    ");
    else
        printf("%3d ", i);
    for (int j = 0; j < m; j++)
        printf(i < 0 ? "%*.0f" : form, width, i < 0 ? j : x[i * m + j]);
}

/* S, and w next to it if there is room. */
static void print_matrices(const Group *g, const MethodOptions *o)
{
    enum { NARROW = 8, S_WIDTH = 6, W_WIDTH = 5 };
    bool evol = o->method == EVOL, both = !evol && g->m <= NARROW;
    int m = g->m, gap = imax(2, 46 - (4 + m * S_WIDTH));
    const char *of = evol ? "cosines of embeddings (--encoder)" :
                     o->novelty == NOVELTY_COUNT ? "S: 1 where responses are equal" :
                     "S: cosines of features (Eq 9)";
    const char *title = "w: whose likeness counts (Eq 10)";
    printf("\n%-*s%s\n", both ? 4 + m * S_WIDTH + gap : 0, of, both ? title : "");
    for (int i = -1; i < m; i++) {
        print_row(evol ? g->semantic : g->S, m, i, S_WIDTH, "%+*.2f");
        if (both) {
            printf("%*s", gap, "");
            print_row(g->w, m, i, W_WIDTH, "%*.2f");
        }
        putchar('\n');
    }
    if (both || evol)
        return;
    printf("\n%s\n", title);
    for (int i = -1; i < m; i++) {
        print_row(g->w, m, i, S_WIDTH, "%*.3f");
        putchar('\n');
    }
}

/* The whole computation of one group: table, matrices, sentences, and a key. */
static void explain_table(const Group *g, const Tokenizer *t, const MethodOptions *o)
{
    Buf text = {0};
    printf("prompt %s\n\n", g->text);
    print_responses(g, t, o);
    print_matrices(g, o);
    putchar('\n');
    explain_whole(g, o, &text);
    if (text.n)
        put_wrapped(stdout, text.s, 0, 0, WIDTH);
    for (int i = 0; i < g->m; i++) {
        text.n = 0;
        explain_response(g, i, o, &text);
        put_wrapped(stdout, text.s, 0, 5, WIDTH);
    }
    putchar('\n');
    put_wrapped(stdout, o->method == EVOL ? "u = 1 - (mean cosine to its class + largest to any) / "
                "2. n: u taken to 0 .. 1 inside the class, right or wrong. r~: right 0.5 + 0.5 n, "
                "wrong -1 + 0.5 n, no answer -1." : "nu = 1 - sum_j w_ij S_ij^2: what a response's "
                "direction adds to the others', opposite ones included (Eq 11). nubar: nu taken to "
                "0 .. 1 inside the group. r~: the shaped reward (Eq 12-13).", 0, 0, WIDTH);
    text.n = 0;
    buf_printf(&text, "A: r~ less the group's mean%s (Eq 2); above 0 an update makes the response "
               "more likely, below 0 less.",
               o->adv_norm == ADV_STD ? ", in standard deviations" : "");
    put_wrapped(stdout, text.s, 0, 0, WIDTH);
    buf_free(&text);
}

/* ---------------------------------------------------------------- for programs */

static void explain_json(const Group *g, int d)
{
    Buf b = {0};
    double *Phi = doubles_of(g->Phi, g->m * d);
    put_matrix(&b, "Phi", Phi, g->m, d);
    put_matrix(&b, "S", g->S, g->m, g->m);
    put_matrix(&b, "w", g->w, g->m, g->m);
    put_vector(&b, "r", g->reward, g->m);
    put_vector(&b, "nu", g->nu, g->m);
    put_vector(&b, "nubar", g->nubar, g->m);
    if (g->embedded)
        put_matrix(&b, "semantic", g->semantic, g->m, g->m);
    put_vector(&b, "u", g->u, g->m);
    put_vector(&b, "rtilde", g->shaped, g->m);
    put_vector(&b, "A", g->advantage, g->m);
    printf("{%s}\n", b.s + 2);
    free(Phi);
    buf_free(&b);
}

/* ================================================================ the command */

/* Features, advantages and output of a group with responses and rewards. */
static void explain_group(Session *s, Group *g)
{
    Learner l = learner_new(s, 1);
    int d = s->model.config.hidden_size;
    reference_hidden(&s->engine, &s->model, g, 1); /* --encoder ref: the model is its own */
    forward_groups(&s->engine.worker[0], &l, g, 1, KEEP_NOTHING);
    demand_logits(&s->model, g->logprob, g->n_tokens);
    demand_logits(&s->model, g->entropy, g->n_tokens);
    group_advantages(&s->engine.worker[0], g, l.method, d);
    free(l.pass);
    for (int k = 0; k < g->m * g->m; k++) /* S as Eq 11 had it */
        g->S[k] = similarity(g, k / g->m, k % g->m, l.method->novelty);
    if (s->o.json)
        explain_json(g, d);
    else
        explain_table(g, &s->tokenizer, l.method);
}

enum { MOST_GIVEN = 4096 }; /* responses, as for --rollouts */

/* A line of --data: a prompt, its responses and their rewards. */
typedef struct {
    Ids prompt, *response;
    int m, rewards;
    double *reward;
} Given;

static void given_free(Given *x)
{
    for (int i = 0; i < x->m; i++)
        ids_free(&x->response[i]);
    ids_free(&x->prompt);
    free(x->response);
    free(x->reward);
}

/* The ids of a text: a prompt by --template; a response with the end token, which is part of y. */
static Ids given_text(Session *s, Json *j, bool response)
{
    Buf given = {0}, text = {0};
    Ids ids = {0};
    if (!json_string(j, &given))
        return ids;
    session_prompter(s);
    if (response)
        buf_str(&text, given.s);
    else
        template_render(&s->template, given.s, &text);
    if (text.n)
        ids = encode(&s->tokenizer, !response, text.s, text.n, INT_MAX, "--data");
    if (response && session_end_token(s) >= 0)
        ids_add(&ids, session_end_token(s));
    buf_free(&given, &text);
    return ids;
}

static Ids given_ids(Session *s, Json *j, const char *path, int line)
{
    Ids ids = {0};
    ids.n = read_ids(j, &s->model.config, false, &ids.id, path, line);
    return ids;
}

/* {"prompt", "responses", "rewards"}, or prompt_ids and response_ids in place of the texts. */
static Given given_read(Session *s, Json *j, const char *path, int line)
{
    Given x = {0};
    Buf key = {0};
    for (json_object(j); json_key(j, &key);)
        if (json_missing(j)) {
            continue;
        } else if (among(key.s, "prompt|prompt_ids")) {
            ids_free(&x.prompt);
            x.prompt = key.s[6] ? given_ids(s, j, path, line) : given_text(s, j, false);
        } else if (among(key.s, "responses|response_ids")) {
            for (json_array(j); json_item(j);)
                APPEND(x.response, x.m, key.s[8] == 's' ? given_text(s, j, true)
                                                        : given_ids(s, j, path, line));
        } else if (!strcmp(key.s, "rewards")) {
            double reward;
            for (json_array(j); json_item(j) && json_number(j, &reward);)
                APPEND(x.reward, x.rewards, reward);
        } else
            json_skip(j);
    jsonl_end(j, path, line);
    if (x.prompt.n < 1 || x.m < 2 || x.m > MOST_GIVEN || x.rewards != x.m)
        die("%s: line %d: a prompt of %d tokens, %d responses, %d rewards; expected a prompt, two "
            "to %d responses, and as many rewards", path, line, x.prompt.n, x.m, x.rewards,
            MOST_GIVEN);
    for (int i = 0; i < x.m; i++)
        if (x.response[i].n < 1)
            die("%s: line %d: response %d is empty", path, line, i);
    buf_free(&key);
    return x;
}

static void explain_given(Session *s, const Given *x)
{
    int longest = 1, threads = s->engine.threads;
    for (int i = 0; i < x->m; i++)
        longest = imax(longest, x->response[i].n);
    Extent extent = {1, x->m, x->prompt.n, longest, 1, KEEP_NOTHING, true, SAVE_NOTHING};
    s->engine = extent_engine(&s->model, threads, extent);
    rope_reserve(&s->model, x->prompt.n + longest);
    Group *g = groups_new(&s->engine, &s->model, extent);
    g->prompt_length = x->prompt.n;
    memcpy(g->prompt, x->prompt.id, x->prompt.n * sizeof(int));
    for (int i = 0; i < x->m; i++) {
        Ids y = x->response[i];
        memcpy(g->token + g->start[i], y.id, y.n * sizeof(int));
        g->start[i + 1] = g->start[i] + y.n;
        g->truncated[i] = false;
        g->reward[i] = x->reward[i];
        g->answered[i] = true;
        g->reason[i] = "given";
    }
    g->n_tokens = g->start[x->m];
    Buf text = {0};
    if (!s->o.json)
        session_tokenizer(s);
    tokenizer_decode(&s->tokenizer, g->prompt, g->prompt_length, false, &text);
    g->text = text.s;
    explain_group(s, g);
    buf_free(&text);
    engine_free(&s->engine);
}

/* Does the first line of a file hold a group? Else the file holds problems. */
static bool holds_groups(const char *path)
{
    size_t n, offset = 0;
    int line = 0;
    bool groups = false;
    char *text = jsonl_read(path, &n);
    Buf key = {0};
    Json j = json_open("", 0);
    jsonl_next(text, n, &offset, &line, &j);
    for (json_object(&j); json_key(&j, &key); json_skip(&j))
        groups |= among(key.s, "responses|response_ids|prompt_ids|rewards");
    buf_free(&key);
    free(text);
    return groups;
}

static void explain_file(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    if (s->reward.watcher)
        usage("explain: --data gives the rewards; expected no --reward-cmd");
    char *text = jsonl_read(s->o.data, &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Given x = given_read(s, &j, s->o.data, line);
        explain_given(s, &x);
        given_free(&x);
    }
    free(text);
}

/* The problem of --prompt, without a gold answer; or those of --data or --task. */
static Problems explain_problems(Session *s)
{
    const Options *o = &s->o;
    Problems p = session_problems(s, o->data, o->split);
    if (o->prompt) {
        p.path = "--prompt";
        problems_add(&p, o->prompt, "", 0);
        Reward *command = p.judge.command;
        p.judge = judge_new(o->verifier, &s->task, o->prompt);
        p.judge.command = command;
        if (!command && p.judge.verifier >= VERIFY_MATH)
            usage("--prompt: has no gold answer to compare with; expected a problem of --task, "
                  "--data FILE, or --reward-cmd");
    } else if (o->data)
        problems_check_gold(&p, false);
    return p;
}

static void cmd_explain(Session *s)
{
    const Options *o = &s->o;
    bool given = o->data && holds_groups(o->data);
    check_method(o, false);
    if (o->data && o->prompt)
        usage("explain: expected one of --data and --prompt");
    if (given) {
        session_load(s, o->model);
        explain_file(s);
        return;
    }
    session_sampler(s, o->model);
    Problems p = explain_problems(s);
    problems_fit(&p, &s->tokenizer, prompt_limit(s, &s->model.config));
    Extent x = {1, o->rollouts, p.longest, o->max_tokens, 1, KEEP_NOTHING, true, SAVE_NOTHING};
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    rope_reserve(&s->model, x.max_prompt + o->max_tokens);
    Group *g = sample_problems(s, &p, x, 0);
    verify_groups(g, 1, &p.judge, &s->tokenizer);
    explain_group(s, g);
    problems_free(&p);
}

#endif
