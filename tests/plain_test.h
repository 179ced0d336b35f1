/* plain_test.h: plain.c against differences, and the program against plain.c: log-probs, features,
 * everything from Eq 2 to Eq 14, every gradient, the optimizer, whole training steps; its maze
 * against the task's. */
#ifndef TESTS_PLAIN_TEST_H
#define TESTS_PLAIN_TEST_H

#include "plain_oracle.h"
#include "rollouts_test.h"

enum { PLAIN_PROMPT = 12 };

static Config plain_config(void)
{
    return (Config){.model_type = QWEN3, .vocab_size = PLAIN_VOCAB, .hidden_size = PLAIN_D,
                    .intermediate_size = PLAIN_FF, .num_hidden_layers = PLAIN_LAYERS,
                    .num_attention_heads = PLAIN_HEADS, .num_key_value_heads = PLAIN_KV_HEADS,
                    .head_dim = PLAIN_HD, .max_position_embeddings = 256,
                    .rms_norm_eps = PLAIN_NORM_EPS, .rope_theta = PLAIN_ROPE_THETA,
                    .bos_token_id = -1, .eos_token_id = {PLAIN_END}, .n_eos = 1};
}

/* A random model, in the program and in plain.c: the flat layouts are the same. */
static Model plain_pair(void)
{
    Config c = plain_config();
    Model m = noisy_model(&c);
    PlainModel p = plain_model();
    CHECK(m.n_params == (size_t)p.n, "%zu parameters; plain.c has %d", m.n_params, p.n);
    for (int i = 0; i < p.n; i++) {
        p.params[i] = (double)m.params[i];
        p.grads[i] = p.m[i] = p.v[i] = 0;
    }
    return m;
}

/* The prompt of group k. */
static void plain_prompt(int *token, int k)
{
    tree_tokens(token, PLAIN_PROMPT, PLAIN_VOCAB, (uint32_t)k, 0);
}

/* All groups, with their prompts and no responses yet, as of training step `step`. */
static void plain_prompts(int step)
{
    for (int k = 0; k < PLAIN_GROUPS; k++) {
        plain_begin(k, step * PLAIN_GROUPS + k);
        for (int i = 0; i < PLAIN_M; i++) {
            PlainResponse r = plain_response(k, i);
            plain_prompt(r.token, k);
            *r.prompt = *r.length = PLAIN_PROMPT;
        }
    }
}

/* Moves log p_old away from log p, and so the ratios away from 1, on both sides of the clip. */
static float plain_drift(int k, int i, int t)
{
    return 0.5f * noise(77, (size_t)((k * PLAIN_M + i) * PLAIN_N + t));
}

static double plain_reward(int k, int i) { return k == 2 || (k + i) % 3 ? -1 : 1; }

/* ---------------------------------------------------------------- plain.c against differences */

/* The loss and all advantages are given; the parameters change. */
static double plain_loss_now(void) { return plain_loss(plain_forward()); }

/* |difference - gradient| over n parameters from `first` on, by the gradient's norm there. */
static double plain_gradient_error(int first, int n)
{
    PlainModel p = plain_model();
    double error = 0, norm = 0;
    int stride = imax(1, n / 7);
    for (int i = first; i < first + n; i += stride) {
        double h = 1e-5, old = p.params[i];
        p.params[i] = old + h;
        double up = plain_loss_now();
        p.params[i] = old - h;
        double difference = (up - plain_loss_now()) / (2 * h);
        p.params[i] = old;
        error += (difference - p.grads[i]) * (difference - p.grads[i]);
        norm += p.grads[i] * p.grads[i];
    }
    return norm > 0 ? sqrt(error / norm) : (double)NAN;
}

static void test_plain_differences(void)
{
    Model m = plain_pair();
    plain_prompts(0);
    for (int k = 0; k < PLAIN_GROUPS; k++)
        for (int i = 0; i < PLAIN_M; i++) {
            PlainResponse r = plain_response(k, i);
            *r.length += 1 + 3 * i;
            tree_tokens(r.token + PLAIN_PROMPT, 1 + 3 * i, PLAIN_VOCAB, (uint32_t)k, i + 1);
            plain_group(k).advantage[i] = (double)noise(78, (size_t)(k * PLAIN_M + i));
        }
    plain_forward();
    for (int k = 0; k < PLAIN_GROUPS; k++)
        for (int i = 0; i < PLAIN_M; i++)
            for (int t = PLAIN_PROMPT; t < *plain_response(k, i).length; t++)
                plain_response(k, i).logprob_old[t] =
                    plain_response(k, i).logprob[t] + (double)plain_drift(k, i, t);
    plain_loss_now();
    plain_backward();
    for (int t = 0; t < m.n_tensors; t++) {
        const Tensor *x = &m.tensors[t];
        double error = x->size ? plain_gradient_error((int)x->offset, (int)x->size) : 0;
        CHECK(error < 1e-6, "%s: plain.c's gradient is off by %.1e of its norm", x->name, error);
    }
    model_free(&m);
}

/* ---------------------------------------------------------------- the program against plain.c */

/* How far the program is from plain.c: what the checks see, at most. */
typedef struct {
    double logprob, old, Phi, method, loss, gradient, update;
} PlainGap;

/* |a - b| / |b| of a float tensor and a double one. */
static double plain_error(const float *a, const double *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference / norm);
}

static void check_plain_responses(const Group *g, int k, PlainGap *gap)
{
    for (int i = 0; i < PLAIN_M; i++) {
        PlainResponse r = plain_response(k, i);
        int n = response_length(g, i), first = g->start[i];
        bool same = n == *r.length - PLAIN_PROMPT &&
                    !memcmp(g->token + first, r.token + PLAIN_PROMPT, (size_t)n * sizeof(int));
        CHECK(same, "group %d: response %d has other tokens in plain.c", k, i);
        for (int t = 0; t < n && same; t++) {
            double p = r.logprob_old[PLAIN_PROMPT + t];
            gap->old = fmax(gap->old, fabs((double)g->logprob_old[first + t] - p));
        }
    }
}

/* Eq 2 to Eq 14 for one group. */
static void check_plain_method(const Group *g, int k, PlainGap *gap)
{
    PlainGroup p = plain_group(k);
    const struct {
        const char *name;
        const double *got, *want;
        int n;
    } field[] = {
        {"Eq 9: S", g->S, p.S, PLAIN_M * PLAIN_M}, {"Eq 10-11: nu", g->nu, p.nu, PLAIN_M},
        {"nubar", g->nubar, p.nubar, PLAIN_M}, {"Eq 12-13: r~", g->shaped, p.shaped, PLAIN_M},
        {"Eq 2: A", g->advantage, p.advantage, PLAIN_M},
    };
    for (int i = 0; i < PLAIN_M; i++) {
        PlainResponse r = plain_response(k, i);
        double error = plain_error(g->Phi + i * PLAIN_D, r.Phi, PLAIN_D);
        CHECK(error < 2e-5, "Eq 6-8, 14: Phi of group %d, response %d: off by %.1e", k, i, error);
        gap->Phi = fmax(gap->Phi, error);
        for (int t = 0; t < response_length(g, i); t++) {
            double want = r.logprob[PLAIN_PROMPT + t];
            error = fabs((double)g->logprob[g->start[i] + t] - want);
            CHECK(error < 5e-5, "log p of group %d, response %d, token %d: %g, not %g", k, i, t,
                  (double)g->logprob[g->start[i] + t], want);
            gap->logprob = fmax(gap->logprob, error);
        }
    }
    for (size_t f = 0; f < sizeof field / sizeof *field; f++)
        for (int i = 0; i < field[f].n; i++) {
            double error = fabs(field[f].got[i] - field[f].want[i]);
            CHECK(error < 1e-4, "%s of group %d, entry %d: %g, not %g", field[f].name, k, i,
                  field[f].got[i], field[f].want[i]);
            gap->method = fmax(gap->method, error);
        }
}

static void check_plain_gradients(const Model *m, PlainGap *gap)
{
    PlainModel p = plain_model();
    for (int t = 0; t < m->n_tensors; t++) {
        const Tensor *x = &m->tensors[t];
        if (!x->size)
            continue;
        double error = plain_error(at(m, m->grads, t), p.grads + x->offset, x->size);
        CHECK(error < 1e-4, "%s: the gradient is off by %.1e of its norm", x->name, error);
        gap->gradient = fmax(gap->gradient, error);
    }
}

/* One update with the gradients as they are: the change of the parameters. */
static void check_plain_update(Model *m, AdamW *o, PlainGap *gap)
{
    PlainModel p = plain_model();
    float *start = copy_new(m->params, m->n_params);
    double *plain_start = xmalloc(m->n_params * sizeof(double)), error = 0, norm = 0, lr = 1e-3;
    memcpy(plain_start, p.params, m->n_params * sizeof(double));
    adamw_step(&(Engine){.threads = 1}, m, o, lr);
    plain_adamw(lr, (int)o->step);
    for (size_t i = 0; i < m->n_params; i++) {
        double change = (double)m->params[i] - (double)start[i];
        double want = p.params[i] - plain_start[i];
        error += (change - want) * (change - want);
        norm += want * want;
    }
    gap->update = fmax(gap->update, sqrt(error / norm));
    CHECK(sqrt(error / norm) < 1e-3, "update %d is off by %.1e of its norm", (int)o->step,
          sqrt(error / norm));
    free(start);
    free(plain_start);
}

/* One training step of both: sampled by the same draws, at `drifted` with other log p_old. */
static void check_plain_step(Engine *e, Model *m, AdamW *o, int step, bool drifted, PlainGap *gap)
{
    Extent x = {PLAIN_GROUPS, PLAIN_M, PLAIN_PROMPT, PLAIN_N - PLAIN_PROMPT, 1, KEEP_ALL, false,
                SAVE_NOTHING};
    MethodOptions method = {.method = G2RL, .lambda = PLAIN_LAMBDA, .clip_low = PLAIN_CLIP,
                            .clip_high = PLAIN_CLIP};
    Sampling s = {.temperature = PLAIN_TEMPERATURE, .top_p = 1, .max_tokens = x.max_tokens,
                  .seed = PLAIN_SEED, .step = step};
    Learner l = test_learner(e, m, PLAIN_TEMPERATURE, &method, 2);
    size_t mark = e->arena.used;
    Group *g = groups_new(e, m, x);
    plain_prompts(step);
    for (int k = 0; k < PLAIN_GROUPS; k++) {
        g[k].index = (uint32_t)(step * PLAIN_GROUPS + k);
        g[k].prompt_length = PLAIN_PROMPT;
        plain_prompt(g[k].prompt, k);
        plain_sample(k, step);
    }
    sample_groups(e, m, g, PLAIN_GROUPS, &s);
    for (int k = 0; k < PLAIN_GROUPS; k++) {
        check_plain_responses(&g[k], k, gap);
        for (int i = 0; i < PLAIN_M; i++) {
            g[k].reward[i] = plain_group(k).reward[i] = plain_reward(k, i);
            g[k].answered[i] = true;
            for (int t = 0; t < response_length(&g[k], i) && drifted; t++) {
                g[k].logprob_old[g[k].start[i] + t] += plain_drift(k, i, t);
                plain_response(k, i).logprob_old[PLAIN_PROMPT + t] += (double)plain_drift(k, i, t);
            }
        }
    }
    grads_zero(m);
    LossSums sums = groups_gradient(&l, g, PLAIN_GROUPS, KEEP_ALL);
    int tokens = plain_forward();
    for (int k = 0; k < PLAIN_GROUPS; k++) {
        plain_advantages(k);
        check_plain_method(&g[k], k, gap);
    }
    double loss = plain_loss(tokens);
    CHECK(fabs(sums.loss - loss) < 1e-5, "Eq 3-4: loss %g, not %g", sums.loss, loss);
    CHECK(!drifted || (sums.clipped_low > 2 && sums.clipped_high > 2), "the clip was not tried");
    gap->loss = fmax(gap->loss, fabs(sums.loss - loss));
    plain_backward();
    check_plain_gradients(m, gap);
    check_plain_update(m, o, gap);
    e->arena.used = mark;
}

static void test_plain_steps(void)
{
    Model m = plain_pair();
    Engine e = engine_new(1, 16 << 20, 16 << 20);
    AdamW o = {.beta1 = PLAIN_BETA1, .beta2 = PLAIN_BETA2, .eps = PLAIN_ADAM_EPS,
               .weight_decay = PLAIN_WEIGHT_DECAY, .clip_norm = PLAIN_MAX_NORM};
    PlainGap gap = {0};
    for (int step = 0; step < 4; step++)
        check_plain_step(&e, &m, &o, step, step % 2, &gap);
    CHECK(gap.old < 5e-5, "log p when sampled is off by %.1e", gap.old);
    if (getenv("PLAIN_GAP"))
        printf("    log p %.1e, Phi %.1e, S to A %.1e, loss %.1e, gradient %.1e, update %.1e\n",
               gap.logprob, gap.Phi, gap.method, gap.loss, gap.gradient, gap.update);
    engine_free(&e);
    model_free(&m);
}

/* ---------------------------------------------------------------- its task */

/* Digits of tokens, as text. */
static void plain_text(char *out, const int *token, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = token[i] == 4 ? ':' : (char)('0' + token[i]);
    out[n] = 0;
}

/* Mazes are what the task says, examples are right, and all verdicts are those of the task. */
static void test_plain_maze(void)
{
    Task task = {.kind = TASK_MAZE, .size = 4, .loops = 2};
    int n_right = 0, wrong = 0;
    for (int index = 0; index < 200; index++) {
        char prompt[64], response[64];
        Maze maze;
        plain_pose(0, index, index % 2);
        PlainResponse first = plain_response(0, 0);
        plain_text(prompt, first.token, *first.prompt);
        if (!CHECK(maze_read_prompt(&task, prompt, &maze), "%s is no maze", prompt))
            continue;
        MazeSearch search = maze_search(&maze);
        int ways = maze_count(&search, PLAIN_CELLS - 1), open = 0;
        for (int i = 0; i < PLAIN_CELLS; i++)
            open += (maze.open[i] & 1) + (maze.open[i] >> 1);
        CHECK(ways >= 1 && ways <= 4 && open == PLAIN_CELLS + 1, "%s: %d ways, %d walls open",
              prompt, ways, open);
        for (int k = 0; k < PLAIN_M; k++) {
            PlainResponse r = plain_response(0, k);
            plain_show(0, k);
            int n = *r.length - *r.prompt;
            CHECK(r.token[*r.length - 1] == PLAIN_END, "an example does not end");
            int at = *r.prompt + (int)below(philox(5, 0, (uint32_t)index, (uint32_t)k, 0, 0),
                                            (uint32_t)(2 * n));
            if (k && at < *r.length) /* some are spoiled */
                r.token[at] = (r.token[at] + k) % 6;
        }
        plain_verify(0);
        for (int k = 0; k < PLAIN_M; k++) {
            PlainResponse r = plain_response(0, k);
            bool ended = r.token[*r.length - 1] == PLAIN_END, inside = false;
            for (int t = *r.prompt; t < *r.length - 1; t++)
                inside |= r.token[t] == PLAIN_END;
            plain_text(response, r.token + *r.prompt, *r.length - *r.prompt - ended);
            bool right = ended && !inside && task_verify(&task, prompt, response).right;
            CHECK(inside || right == (plain_group(0).reward[k] > 0), "%s%s: %g", prompt, response,
                  plain_group(0).reward[k]);
            CHECK(k || right, "%s%s: an example is wrong", prompt, response);
            n_right += right;
            wrong += !right;
        }
    }
    CHECK(n_right > 300 && wrong > 200, "%d right and %d wrong responses", n_right, wrong);
}

/* pass@k and the vote, against the program's; where votes are tied plain.c takes one of them. */
static void test_plain_counts(void)
{
    for (int n = 1; n < 12; n++)
        for (int c = 0; c <= n; c++)
            for (int k = 1; k <= n; k++)
                CHECK(fabs(plain_pass_at_k(n, c, k) - pass_at_k(n, c, k)) < 1e-12,
                      "pass@%d of %d with %d right: %g", k, n, c, plain_pass_at_k(n, c, k));
    for (uint32_t draw = 0; draw < 300; draw++) {
        int class[PLAIN_M];
        bool right[PLAIN_M];
        plain_begin(0, 0);
        for (int i = 0; i < PLAIN_M; i++) {
            PlainResponse r = plain_response(0, i);
            class[i] = (int)below(philox(6, 0, draw, (uint32_t)i, 0, 0), 4);
            right[i] = class[i] % 2;
            *r.prompt = 1;
            *r.length = 2 + class[i] / 2;
            r.token[0] = 0;
            r.token[1] = class[i];
            r.token[2] = 1;
            plain_group(0).reward[i] = right[i] ? 1 : -1;
        }
        double share = majority(class, right, PLAIN_M);
        CHECK((share > 0 && share < 1) || plain_majority(0) == (int)share, "vote %d, not %g",
              plain_majority(0), share);
    }
}

#endif
