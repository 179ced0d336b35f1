/* method.h: tests of features, novelty, shaping, advantages, losses. */
#ifndef TESTS_METHOD_H
#define TESTS_METHOD_H

#include "model_test.h"

/* ---------------------------------------------------------------- steps of training */

/* A policy without a reference, and how its groups are run through it. The passes are those of the
 * learner made last. */
static Learner test_learner(Engine *e, Model *m, double temperature, const MethodOptions *o,
                            int micro_batch)
{
    enum { MOST = 16 };
    static Pass pass[MOST];
    return (Learner){e, m, NULL, temperature, o, micro_batch, pass};
}

/* Steps 3 and 4 for n groups, in one pass: log-probs, features, advantages. */
static Pass forward_advantages(Arena *a, const Learner *l, Group *g, int n, Keep keep)
{
    Pass p = forward_groups(a, l, g, n, keep);
    for (int i = 0; i < n; i++)
        group_advantages(a, &g[i], l->method, l->policy->config.hidden_size);
    return p;
}

/* Steps 3 to 6 for n groups: adds the gradient of their loss to the policy's. Returns the loss. */
static LossSums groups_gradient(const Learner *l, Group *g, int n, Keep keep)
{
    LossSums sums = {0};
    LossSize size = loss_size(g, n, l->method);
    for (Wave w; n > 0; g += w.n, n -= w.n) {
        w = next_wave(l, g, n);
        forward_wave(l, &w, keep);
        wave_advantages(l, &w);
        wave_loss(l, &w, size, &sums);
        backward(l->engine, l->policy, l->pass, w.passes);
    }
    workers_reset(l->engine);
    return sums;
}

/* ---------------------------------------------------------------- the oracle's groups */

/* Groups of oracle/MODEL.g2rl.safetensors: 4 of 6 responses. Group 1 is all wrong, group 2 six
 * times the same response, group 3 holds a duplicate pair and a response of one token. */
enum { ORACLE_GROUPS = 4, ORACLE_M = 6 };

static void oracle_groups(const SafeTensors *st, Engine *e, int d, Group *g)
{
    const StTensor *t = st_find(st, "tokens");
    int width = (int)t->shape[1], first = 0;
    int32_t *tokens = xmalloc((size_t)(24 * width) * sizeof *tokens), lengths[24];
    float *mask = tensor_values(st, "mask", NULL), *reward = tensor_values(st, "rewards", NULL);
    st_read_i32(t, tokens);
    st_read_i32(st_find(st, "lengths"), lengths);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        g[k] = group_new(&e->arena, ORACLE_M, width, width, d);
        g[k].index = (uint32_t)k;
        for (int i = 0; i < ORACLE_M; i++) {
            int row = k * ORACLE_M + i;
            for (first = 0; mask[row * (width - 1) + first] == 0;)
                first++;
            g[k].prompt_length = first + 1;
            for (int j = 0; j <= first; j++)
                g[k].prompt[j] = tokens[row * width + j];
            int n = lengths[row] - first - 1;
            for (int j = 0; j < n; j++)
                g[k].token[g[k].start[i] + j] = tokens[row * width + first + 1 + j];
            g[k].start[i + 1] = g[k].start[i] + n;
            g[k].reward[i] = (double)reward[row];
        }
        g[k].n_tokens = g[k].start[ORACLE_M];
    }
    free(tokens);
    free(mask);
    free(reward);
}

/* Copies a per-token field of the oracle, [24, width - 1] by position, into a group's order. */
static void oracle_tokens(const SafeTensors *st, const char *name, const Group *g, int k,
                          float *out)
{
    size_t count;
    float *x = tensor_values(st, name, &count);
    int width = (int)(count / 24);
    for (int i = 0; i < g->m; i++)
        for (int t = 0; t < response_length(g, i); t++)
            out[g->start[i] + t] = x[(k * ORACLE_M + i) * width + g->prompt_length - 1 + t];
    free(x);
}

/* Compares a field of all groups, n numbers each, with the oracle's tensor. */
static void check_field(const SafeTensors *st, const char *name, const char *suffix, const Group *g,
                        size_t offset, int n, double tolerance)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    float *x = tensor_values(st, full, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        const double *y = *(double *const *)((const char *)&g[k] + offset);
        for (int i = 0; i < n; i++)
            CHECK(fabs(y[i] - (double)x[k * n + i]) < tolerance,
                  "%s, group %d, entry %d: %g, not %g", full, k, i, y[i], (double)x[k * n + i]);
    }
    free(x);
}

/* Phi, S, w, nu, nubar, shaped rewards in both readings and advantages at one temperature. */
static void oracle_method(Engine *e, Model *m, Group *g, const SafeTensors *st, double temperature,
                          const char *suffix)
{
    int d = m->config.hidden_size, mm = ORACLE_M * ORACLE_M;
    char name[32];
    MethodOptions o = {.method = G2RL, .lambda = 0.5, .shaping = SHAPING_LITERAL};
    Learner l = test_learner(e, m, temperature, &o, 1);
    forward_advantages(&e->worker[0], &l, g, ORACLE_GROUPS, KEEP_NOTHING);
    snprintf(name, sizeof name, "Phi%s", suffix);
    float *Phi = tensor_values(st, name, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        double error = relative_error(g[k].Phi, Phi + k * ORACLE_M * d, (size_t)(ORACLE_M * d));
        CHECK(error < 1e-5, "Eq 6-8, 14: %s of group %d is off by %g", name, k, error);
    }
    free(Phi);
    check_field(st, "S", suffix, g, offsetof(Group, S), mm, 1e-5);         /* Eq 9 */
    check_field(st, "w", suffix, g, offsetof(Group, w), mm, 1e-6);         /* Eq 10 */
    check_field(st, "nu", suffix, g, offsetof(Group, nu), ORACLE_M, 1e-5); /* Eq 11 */
    check_field(st, "nubar", suffix, g, offsetof(Group, nubar), ORACLE_M, 2e-5);
    check_field(st, "rtilde", suffix, g, offsetof(Group, shaped), ORACLE_M, 2e-5); /* Eq 12-13 */
    check_field(st, "A", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-4);   /* Eq 2 */
    o.shaping = SHAPING_TEXT;
    forward_advantages(&e->worker[0], &l, g, ORACLE_GROUPS, KEEP_NOTHING);
    check_field(st, "rtilde_text", suffix, g, offsetof(Group, shaped), ORACLE_M, 4e-5);
    check_field(st, "A_text", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-4);
    for (int i = 0; i < ORACLE_M; i++)
        CHECK(g[2].nubar[i] == 0 && g[2].advantage[i] == 0,
              "six identical responses: nubar %g, A %g", g[2].nubar[i], g[2].advantage[i]);
    o.method = GRPO;
    forward_advantages(&e->worker[0], &l, g, ORACLE_GROUPS, KEEP_NOTHING);
    check_field(st, "A_grpo", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-5);
    workers_reset(e);
}

static void test_method_oracle(void)
{
    static const char *const models[] = {"q3_tied_f32", "q3_untied_f32"};
    for (int i = 0; i < 2; i++) {
        char name[96];
        Path dir, file;
        snprintf(name, sizeof name, "models/%s", models[i]);
        bool there = vectors(&dir, name);
        snprintf(name, sizeof name, "oracle/%s.g2rl.safetensors", models[i]);
        if (!there || !vectors(&file, name)) {
            skip("q3_untied_f32 needs ../shared/data");
            continue;
        }
        Engine e = engine_new(2, 1 << 26, 1 << 26);
        Model m = model_load(dir.s);
        SafeTensors st = st_open_file(file.s);
        Group g[ORACLE_GROUPS];
        oracle_groups(&st, &e, m.config.hidden_size, g);
        rope_reserve(&m, 64);
        oracle_method(&e, &m, g, &st, 1.0, "");
        oracle_method(&e, &m, g, &st, 0.8, "_T0.8");
        st_close(&st);
        model_free(&m);
        engine_free(&e);
    }
}

/* One loss of the oracle, at a temperature: the files that it is in, and the names of its tensors.
 * `gradient`: what those of its gradient begin with. */
typedef struct {
    const SafeTensors *groups, *values, *gradients; /* gradients NULL: not there */
    Loss kind;
    double temperature;
    const char *advantage, *loss, *gradient;
} OracleLoss;

static void check_oracle_gradients(const OracleLoss *x, const Model *m)
{
    for (int i = 0; i < m->n_tensors; i++) {
        char name[128];
        const Tensor *t = &m->tensors[i];
        if (!t->size)
            continue;
        snprintf(name, sizeof name, "%s.%s", x->gradient, t->name);
        float *values = tensor_values(x->gradients, name, NULL);
        double error = relative_error(at(m, m->grads, i), values, t->size);
        CHECK(error < 2e-5, "%s: %s is off by %g", x->loss, name, error);
        free(values);
    }
}

static void check_oracle_loss(Engine *e, Model *m, OracleLoss x)
{
    size_t mark = e->arena.used;
    Group g[ORACLE_GROUPS];
    MethodOptions o = {.loss = x.kind, .clip_low = 0.2, .clip_high = 0.2, .kl_coef = 0.001};
    Learner l = test_learner(e, m, x.temperature, &o, 3);
    oracle_groups(x.groups, e, m->config.hidden_size, g);
    float *A = tensor_values(x.values, x.advantage, NULL);
    float *want = tensor_values(x.values, x.loss, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        oracle_tokens(x.values, "old_logprobs", &g[k], k, g[k].logprob_old);
        oracle_tokens(x.values, "ref_logprobs", &g[k], k, g[k].logprob_ref);
        for (int i = 0; i < ORACLE_M; i++)
            g[k].advantage[i] = (double)A[k * ORACLE_M + i];
        g[k].seen = true; /* the advantages are there */
    }
    grads_zero(m);
    LossSums sums = groups_gradient(&l, g, ORACLE_GROUPS, KEEP_ALL);
    grads_finish(m);
    CHECK(fabs(sums.loss - (double)*want) < 1e-5, "Eq 3-4: %s is %.8g, not %.8g", x.loss,
          sums.loss, (double)*want);
    if (x.gradients)
        check_oracle_gradients(&x, m);
    if (st_find(x.values, "clipfrac")) {
        float *clipped = tensor_values(x.values, "clipfrac", NULL);
        double share = (double)(sums.clipped_low + sums.clipped_high) / sums.tokens;
        CHECK(fabs(share - (double)*clipped) < 1e-6, "clip fraction %g, not %g", share,
              (double)*clipped);
        free(clipped);
    }
    free(A);
    free(want);
    e->arena.used = mark;
}

static void test_loss_oracle(void)
{
    static const char *const models[] = {"q3_tied_f32", "q3_untied_f32"};
    for (int i = 0; i < 2; i++) {
        char name[96];
        Path dir, file[3];
        bool there[3];
        static const char *const kinds[] = {"g2rl", "g2rl_grad", "g2rl_T0.8"};
        snprintf(name, sizeof name, "models/%s", models[i]);
        if (!vectors(&dir, name)) {
            skip("q3_untied_f32 needs ../shared/data");
            continue;
        }
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "oracle/%s.%s.safetensors", models[i], kinds[k]);
            there[k] = vectors(&file[k], name);
        }
        Engine e = engine_new(2, 1 << 26, 1 << 26);
        Model m = model_load(dir.s);
        model_trainable(&m, false);
        rope_reserve(&m, 64);
        SafeTensors st = st_open_file(file[0].s), grads = {0};
        if (there[1])
            grads = st_open_file(file[1].s);
        else
            skip("gradients of the oracle's losses need ../shared/data");
        const SafeTensors *gradients = there[1] ? &grads : NULL;
        check_oracle_loss(&e, &m, (OracleLoss){&st, &st, gradients, LOSS_SEQUENCE, 1.0, "A",
                                               "loss_seqmean", "grad"});
        check_oracle_loss(&e, &m, (OracleLoss){&st, &st, NULL, LOSS_TOKEN, 1.0, "A",
                                               "loss_tokenmean", ""});
        if (there[1])
            st_close(&grads);
        if (there[2]) {
            SafeTensors cold = st_open_file(file[2].s);
            check_oracle_loss(&e, &m, (OracleLoss){&st, &cold, &cold, LOSS_TOKEN, 0.8, "A",
                                                   "loss_token", "grad_token"});
            check_oracle_loss(&e, &m, (OracleLoss){&st, &cold, &cold, LOSS_SEQUENCE, 0.8, "A",
                                                   "loss_sequence", "grad_sequence"});
            st_close(&cold);
        } else
            skip("losses at temperature 0.8 need ../shared/data");
        st_close(&st);
        model_free(&m);
        engine_free(&e);
    }
}

/* The derivative of Eq 4's term, in every region of the clip, against central differences. */
static void test_token_loss(void)
{
    MethodOptions o = {.clip_low = 0.2, .clip_high = 0.3, .kl_coef = 0.5};
    LossSums sums = {0};
    const double old = -1.5, ref = -2.25, h = 1e-6;
    for (int kl = KL_K3; kl <= KL_EXACT; kl++)
        for (double A = -1.5; A < 2; A += 0.75)
            for (double log_ratio = -0.62; log_ratio < 0.63; log_ratio += 0.04) {
                double x = old + log_ratio, slope, unused;
                o.kl = kl;
                double up = token_loss(x + h, old, ref, A, &o, &unused, &sums);
                double down = token_loss(x - h, old, ref, A, &o, &unused, &sums);
                token_loss(x, old, ref, A, &o, &slope, &sums);
                CHECK(fabs((up - down) / (2 * h) - slope) < 1e-6, "KL %d, A %g, log ratio %g: %g, "
                      "not %g", kl, A, log_ratio, slope, (up - down) / (2 * h));
            }
    o.kl = KL_K2;
    double k2 = token_loss(-1, -1, -3, 0, &o, &(double){0}, &sums);
    o.kl = KL_K3;
    double k3 = token_loss(-1, -1, -3, 0, &o, &(double){0}, &sums);
    CHECK(fabs(k2 - 0.5 * 2) < 1e-12 && fabs(k3 - 0.5 * (exp(-2) + 1)) < 1e-12,
          "k2 %g and k3 %g of q = -2, times 0.5", k2, k3);
    sums = (LossSums){0};
    double slope;
    CHECK(token_loss(30, -1, 30, 1, &o, &slope, &sums) == -1.3 && slope == 0 && sums.clamped == 1,
          "a log ratio of 31 must be clamped and counted");
    sums = (LossSums){0};
    token_loss(old + 0.5, old, ref, 1, &o, &slope, &sums);
    token_loss(old - 0.5, old, ref, -1, &o, &slope, &sums);
    token_loss(old - 0.5, old, ref, 1, &o, &slope, &sums);
    CHECK(sums.clipped_high == 1 && sums.clipped_low == 1 && sums.tokens == 3, "clip counts");
    CHECK(fabs(sums.k1 - 3 * (old - ref) - 0.5 + 0.5 + 0.5) < 1e-12, "k1 = log p - log p_ref");
}

/* A group whose every number is noise, of a batch of 9 tokens and 4 responses; response 1 was cut
 * off. */
static const LossSize NOISE_SIZE = {.tokens = 9, .responses = 4};

static Group noise_group(Engine *e)
{
    enum { M = 3 };
    static const int lengths[M] = {2, 3, 1};
    Group g = group_new(&e->arena, M, 4, 4, 8);
    float **rows[] = {&g.logprob, &g.logprob_old, &g.logprob_ref, &g.entropy, &g.kl};
    for (int i = 0; i < M; i++) {
        g.start[i + 1] = g.start[i] + lengths[i];
        g.truncated[i] = i == 1;
        g.advantage[i] = i - 0.7;
    }
    g.n_tokens = g.start[M];
    for (int k = 0; k < 5; k++) {
        float *x = noise_new((uint32_t)(70 + k), (size_t)g.n_tokens);
        memcpy(*rows[k], x, (size_t)g.n_tokens * sizeof(float));
        free(x);
    }
    return g;
}

/* d loss / d x[t] of a group's loss, by central differences; the loss is piecewise smooth. */
static double loss_slope(Group *g, const MethodOptions *o, Coef scratch, float *x)
{
    const float h = 0x1p-10f, before = *x;
    double f[2];
    g->coef = scratch;
    for (int k = 0; k < 2; k++) {
        *x = before + (k ? h : -h);
        group_loss(g, o, NOISE_SIZE);
        f[k] = g->loss.loss;
    }
    *x = before;
    return (f[1] - f[0]) / (2 * (double)h);
}

/* Every choice of loss: what it says of each token's log p, entropy and exact KL is the derivative
 * of the number that it reports. */
static void test_group_loss(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    Group g = noise_group(&e);
    for (int k = 0; k < 24; k++) {
        MethodOptions o = {.loss = k % 2, .kl = k / 2 % 3, .clip_low = 0.2,
                           .clip_high = 0.3, .kl_coef = 0.5, .mask_truncated = k / 6 % 2,
                           .entropy_coef = k / 12 ? 0.3 : 0};
        size_t mark = e.arena.used, n = (size_t)g.n_tokens;
        Coef c = coef_new(&e.arena, n, &o), scratch = coef_new(&e.arena, n, &o);
        CHECK(!c.kl == (o.kl != KL_EXACT) && !c.entropy == !o.entropy_coef, "NULL where idle: %d",
              k);
        g.coef = c;
        group_loss(&g, &o, NOISE_SIZE);
        CHECK(g.loss.tokens == (o.mask_truncated ? 3 : 6), "%d tokens", g.loss.tokens);
        LossSize size = loss_size(&g, 1, &o);
        CHECK(size.tokens == g.loss.tokens && size.responses == (o.mask_truncated ? 2 : 3),
              "a loss over %d tokens, %d responses", size.tokens, size.responses);
        for (size_t t = 0; t < n; t++) {
            double p = loss_slope(&g, &o, scratch, &g.logprob[t]) - (double)c.logprob[t];
            double h = loss_slope(&g, &o, scratch, &g.entropy[t]) -
                       (c.entropy ? (double)c.entropy[t] : 0);
            double kl = loss_slope(&g, &o, scratch, &g.kl[t]) - (c.kl ? (double)c.kl[t] : 0);
            CHECK(fabs(p) < 1e-4 && fabs(h) < 1e-5 && fabs(kl) < 1e-5, "loss %d, token %zu: off by "
                  "%g (log p), %g (entropy), %g (KL)", k, t, p, h, kl);
            CHECK(!(o.mask_truncated && (int)t >= g.start[1] && (int)t < g.start[2]) ||
                      c.logprob[t] == 0, "a response that was cut off is in the loss");
        }
        e.arena.used = mark;
    }
    engine_free(&e);
}

/* A group of m responses with features of our own choosing. */
static Group made_group(Engine *e, int m, int d, const float *Phi, const double *reward)
{
    Group g = group_new(&e->arena, m, 4, 1, d);
    memcpy(g.Phi, Phi, (size_t)(m * d) * sizeof(float));
    memcpy(g.reward, reward, (size_t)m * sizeof(double));
    for (int i = 0; i < m; i++)
        g.start[i + 1] = i + 1;
    cosines(g.Phi, m, d, g.S);
    reward_weights(&g);
    exploration_score(&g, NOVELTY_GRADIENT);
    normalize_novelty(&g);
    return g;
}

/* Six responses: right, right, wrong, wrong, no answer, wrong. Their embeddings are unit vectors in
 * the plane at 0, 60, 0, 90, 0 and 180 degrees. */
static void test_evol(void)
{
    enum { M = 6, D = 2 };
    static const double degrees[M] = {0, 60, 0, 90, 0, 180}, pi = 3.14159265358979323846;
    static const double reward[M] = {1, 1, -1, -1, -1, -1};
    Engine e = engine_new(1, 1 << 20, 1 << 20);
    Arena *a = &e.worker[0];
    float Phi[M * D] = {0};
    Group g = made_group(&e, M, D, Phi, reward);
    MethodOptions o = {.method = EVOL, .encoder = EMBED_REF};
    float hidden[M * D], phi[M * D] = {0};
    for (int i = 0; i < M; i++) {
        hidden[i * D] = (float)(3 * cos(degrees[i] * pi / 180));
        hidden[i * D + 1] = (float)(3 * sin(degrees[i] * pi / 180));
        g.answered[i] = i != 4;
        g.token[i] = i;
    }
    g.phi = phi;
    group_advantages(a, &g, &o, D);
    CHECK(!g.embedded && isnan(g.u[0]), "embedded without a reference");
    g.hidden_ref = hidden;
    group_advantages(a, &g, &o, D);
    /* 0: its class has 1 (0.5); the nearest is 2 (1). 3: 2 (0), 5 (0); nearest 1 (0.866). */
    double u[M] = {1 - (0.5 + 1) / 2, 1 - (0.5 + sqrt(0.75)) / 2, 1 - (0 + 1) / 2.0,
                   1 - (0 + sqrt(0.75)) / 2, 0, 1};
    for (int i = 0; i < M; i++)
        CHECK(i == 4 ? isnan(g.u[i]) : fabs(g.u[i] - u[i]) < 1e-6, "u[%d] = %g, not %g", i, g.u[i],
              u[i]);
    double n3 = (u[3] - u[2]) / (u[5] - u[2]), r[M] = {0.5, 1, -1, -1 + 0.5 * n3, -1, -0.5};
    for (int i = 0; i < M; i++)
        CHECK(fabs(g.shaped[i] - r[i]) < 1e-6, "r~[%d] = %g, not %g", i, g.shaped[i], r[i]);
    g.reward[1] = -1; /* 0 is the only right one; then 2 the only wrong one with an answer */
    group_advantages(a, &g, &o, D);
    CHECK(g.shaped[0] == 1 && fabs(g.u[0] - (1 - (1.5 / 4 + 1) / 2)) < 1e-6, "a lone right one: "
          "%g, u %g", g.shaped[0], g.u[0]);
    g.reward[1] = g.reward[3] = g.reward[5] = 1;
    group_advantages(a, &g, &o, D);
    CHECK(g.shaped[2] == -0.5, "a lone wrong one: %g", g.shaped[2]);
    for (int i = 0; i < M; i++)
        memcpy(hidden + i * D, (float[]){1, 2}, sizeof(float[2]));
    group_advantages(a, &g, &o, D);
    CHECK(g.shaped[0] == 0.75 && g.shaped[4] == -1, "all alike: %g, %g", g.shaped[0], g.shaped[4]);
    for (int i = 1; i < M; i++)
        g.answered[i] = false;
    group_advantages(a, &g, &o, D);
    CHECK(g.shaped[0] == -1 && g.advantage[0] == 0, "one answer in the group: %g", g.shaped[0]);
    engine_free(&e);
}

/* Embeddings of three responses: 5 6 7 8, 9 6 7 8 and 4. */
static void test_encoders(void)
{
    enum { M = 3, D = 2 };
    static const int tokens[] = {5, 6, 7, 8, 9, 6, 7, 8, 4};
    float hidden[9 * D], E[M * NGRAM_BUCKETS];
    Engine e = engine_new(1, 1 << 20, 1 << 20);
    Group g = group_new(&e.arena, M, 4, 4, D);
    double S[M * M] = {0};
    g.start[1] = 4, g.start[2] = 8, g.start[3] = 9;
    memcpy(g.token, tokens, sizeof tokens);
    for (int i = 0; i < 9 * D; i++)
        hidden[i] = (float)(i * i);
    g.hidden_ref = hidden;
    embed_by_reference(&g, D, E);
    /* rows 1, 2, 3: the states at tokens 0, 1, 2; of the last, row 8: there is no other */
    CHECK(fabsf(E[0] - (4 + 16 + 36) / 3.0f) < 1e-4f && E[2 * D] == 256 && E[2 * D + 1] == 289,
          "mean state %g, %g", (double)E[0], (double)E[2 * D]);
    embed_by_ngrams(&g, E);
    cosines(E, M, NGRAM_BUCKETS, S);
    CHECK(fabs(S[1] - 0.25) < 1e-9 && fabs(S[2]) < 1e-9 && fabs(S[0] - 1) < 1e-12,
          "1 of 4 trigrams in common: cosine %g; none: %g", S[1], S[2]);
    engine_free(&e);
}

static void test_method_by_hand(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    /* Three responses in the plane: 0 and 1 along x (opposite ways), 2 along y; 3 vanishes. */
    const float Phi[] = {2, 0, -1, 0, 0, 3, 0, 0};
    const double reward[] = {1, -1, 1, -1};
    Group g = made_group(&e, 4, 2, Phi, reward);
    double s = exp(1) + 2 * exp(-1), t = 2 * exp(1) + exp(-1);
    CHECK(g.S[1] == -1 && g.S[2] == 0 && g.S[0] == 1 && g.S[15] == 0, "Eq 9: cosines");
    CHECK(fabs(g.w[1] - exp(-1) / s) < 1e-12 && g.w[0] == 0, "Eq 10: w_01 is %g", g.w[1]);
    CHECK(fabs(g.nu[0] - (1 - exp(-1) / s)) < 1e-12, "Eq 11: nu_0 is %g", g.nu[0]);
    CHECK(fabs(g.nu[1] - (1 - exp(1) / t)) < 1e-12, "Eq 11: nu_1 is %g", g.nu[1]);
    CHECK(g.nu[2] == 1, "Eq 11: an orthogonal response has nu 1, not %g", g.nu[2]);
    CHECK(g.nu[3] == 0, "certainty is not novelty: nu is 0, not %g", g.nu[3]);
    CHECK(g.nubar[2] == 1 && g.nubar[3] == 0, "nubar runs from 0 to 1");

    /* All right, and all different: 0 and 1 at right angles, 2 between them. On paper: S = 0 and
     * twice 1 / sqrt 2; w = 1/2; nu = 3/4, 3/4, 1/2; nubar = 1, 1, 0; r~ = 3/2, 3/2, 1; std = 1 /
     * sqrt 18. */
    MethodOptions o = {.method = G2RL, .lambda = 0.5};
    g = made_group(&e, 3, 2, (float[]){1, 0, 0, 1, 1, 1}, (double[]){1, 1, 1});
    for (int i = 0; i < 3; i++) {
        CHECK(fabs(g.nu[i] - (i < 2 ? 0.75 : 0.5)) < 1e-12, "Eq 11, all right: nu_%d is %g", i,
              g.nu[i]);
        g.shaped[i] = shape_reward(g.reward[i], g.nubar[i], &o);
        CHECK(fabs(g.shaped[i] - (i < 2 ? 1.5 : 1)) < 1e-12, "Eq 12, all right: r~_%d is %g", i,
              g.shaped[i]);
    }
    advantages(&g, &o);
    for (int i = 0; i < 3; i++)
        CHECK(fabs(g.advantage[i] - (i < 2 ? sqrt(0.5) : -sqrt(2))) < 1e-5, "Eq 2, all right: A_%d "
              "is %g", i, g.advantage[i]);

    const double huge[] = {1e6, -1e6, 1e6, 0}; /* a user's rewards: no overflow in Eq 10 */
    g = made_group(&e, 4, 2, Phi, huge);
    CHECK(isfinite(g.nu[0]) && fabs(g.w[1] - 0) < 1e-300 && fabs(g.w[2] - 1) < 1e-12,
          "Eq 10 at rewards of a million: w_02 is %g", g.w[2]);
    const double one_huge[] = {1e6, 0, 0, -1}; /* the largest of the OTHERS is taken out */
    g = made_group(&e, 4, 2, Phi, one_huge);
    CHECK(fabs(g.w[1] - 1 / (2 + exp(-1))) < 1e-12, "Eq 10 next to a huge reward: %g", g.w[1]);

    float same[8]; /* equal directions up to rounding */
    for (int i = 0; i < 8; i += 2) {
        same[i] = 0.1f * (1 + 1e-7f * (float)i);
        same[i + 1] = 0.3f;
    }
    g = made_group(&e, 4, 2, same, reward);
    CHECK(g.nubar[0] == 0 && g.nubar[3] == 0, "rounding noise became novelty: %g", g.nubar[3]);
    for (int i = 0; i < 16; i++)
        g.S[i] = 1 + 1e-9; /* rounding puts a cosine above 1 */
    exploration_score(&g, NOVELTY_GRADIENT);
    CHECK(g.nu[0] == 0, "Eq 11: nu is at least 0, not %g", g.nu[0]);
    engine_free(&e);
}

/* Which dead groups have an advantage, for one that is all wrong, then all right. */
static void check_dead_groups(Group *g)
{
    MethodOptions o = {.method = G2RL, .lambda = 0.5};
    for (int right = 0; right < 2; right++)
        for (int which = DEAD_FULL; which <= DEAD_WRONG; which++) {
            bool shaped = which == DEAD_FULL || which == (right ? DEAD_RIGHT : DEAD_WRONG);
            o.dead_groups = which;
            for (int i = 0; i < g->m; i++) {
                g->reward[i] = right ? 1 : -1;
                g->shaped[i] = shape_reward(g->reward[i], g->nubar[i], &o);
            }
            advantages(g, &o);
            for (int i = 0; i < g->m; i++)
                CHECK((fabs(g->advantage[i]) > 0.01) == shaped, "--dead-groups %d, all %s: A_%d is "
                      "%g", which, right ? "right" : "wrong", i, g->advantage[i]);
        }
}

/* --novelty count: S_ij is 1 for equal responses and 0 for others, whatever their features. In a
 * dead group nu = 1 - (copies - 1) / (m - 1); in a live one the copies' rewards weigh. */
static void check_copies_novelty(Engine *e)
{
    enum { M = 5 };
    static const int token[M] = {7, 7, 7, 8, 9}, copies[M] = {3, 3, 3, 1, 1};
    const float Phi[2 * M] = {1, 0, 1, 1, 0, 1, 1, 0, 0, 0};
    double reward[M] = {1, 1, 1, 1, 1};
    Group g = made_group(e, M, 2, Phi, reward);
    memcpy(g.token, token, sizeof token);
    exploration_score(&g, NOVELTY_COUNT);
    for (int i = 0; i < M; i++)
        CHECK(fabs(g.nu[i] - (1 - (copies[i] - 1) / (M - 1.0))) < 1e-12, "count, dead: nu_%d is %g",
              i, g.nu[i]);
    g.reward[0] = -1;
    reward_weights(&g);
    exploration_score(&g, NOVELTY_COUNT);
    CHECK(fabs(g.nu[0] - 0.5) < 1e-12, "count: two of four right ones are copies: %g", g.nu[0]);
    CHECK(fabs(g.nu[1] - (1 - (exp(1) + exp(-1)) / (3 * exp(1) + exp(-1)))) < 1e-12 &&
          g.nu[3] == 1, "count, live: nu_1 is %g, nu_3 %g", g.nu[1], g.nu[3]);
}

/* --novelty random: the same values in another order, by the group's seed, step and index. */
static void check_random_novelty(Group *g)
{
    double dealt[4][4];
    for (int k = 0; k < 4; k++) {
        double sum = 0, before = 0;
        for (int i = 0; i < 4; i++)
            before += g->nu[i] = i * i;
        g->seed = k == 1 ? 8 : 7;
        g->step = k == 2 ? 4 : 3;
        g->index = k == 3;
        permute_novelty(g);
        for (int i = 0; i < 4; i++)
            sum += g->nu[i];
        memcpy(dealt[k], g->nu, sizeof dealt[k]);
        CHECK(sum == before && (g->nu[0] != 0 || g->nu[1] != 1 || g->nu[2] != 4),
              "--novelty random deals out the same values");
        CHECK(k == 0 || memcmp(dealt[k], dealt[0], sizeof dealt[k]), "counter %d has no effect", k);
    }
}

/* Eq 12-13 in both readings, the clip, Eq 2, dead groups, and novelty's share of A^2. */
static void test_shaping(void)
{
    MethodOptions literal = {.method = G2RL, .lambda = 1}, text = literal, grpo = literal;
    grpo.method = GRPO;
    text.shaping = SHAPING_TEXT;
    CHECK(shape_reward(1, 0.5, &text) == 1.5 && shape_reward(-1, 0.5, &text) == -1.5,
          "Eq 12, text: wrong and novel is punished more");
    CHECK(shape_reward(1, 0.5, &literal) == 1.5 && shape_reward(-1, 0.5, &literal) == -0.5,
          "Eq 12, literal: wrong and novel is punished less");
    CHECK(shape_reward(-1, 0.5, &grpo) == -1, "GRPO leaves rewards alone");
    text.lambda = 9;
    CHECK(shape_reward(1, 1, &text) == 3 && shape_reward(-1, 1, &text) == -3, "Eq 13: the clip");
    text.lambda = 1;

    Engine e = engine_new(1, 1 << 20, 64);
    const float Phi[] = {1, 0, 1, 1, 0, 1, -1, 2};
    const double wrong[] = {-1, -1, -1, -1}, mixed[] = {1, 1, -1, -1};
    Group g = made_group(&e, 4, 2, Phi, wrong), h = made_group(&e, 4, 2, Phi, wrong);
    for (int i = 0; i < 4; i++) {
        g.shaped[i] = shape_reward(g.reward[i], g.nubar[i], &text);
        h.shaped[i] = shape_reward(h.reward[i], h.nubar[i], &literal);
    }
    advantages(&g, &text);
    advantages(&h, &literal);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(g.advantage[i] + h.advantage[i]) < 1e-12 && fabs(g.advantage[i]) > 0.01,
              "all wrong: the two readings must be opposite");
    CHECK(is_dead(&g) && fabs(novelty_part(&g) - 4) < 1e-4,
          "in a dead group all of A^2 = 4 is novelty's, not %g", novelty_part(&g));
    check_dead_groups(&g);

    g = made_group(&e, 4, 2, Phi, mixed);
    for (int i = 0; i < 4; i++)
        g.shaped[i] = g.reward[i];
    advantages(&g, &grpo);
    CHECK(fabs(g.advantage[0] - 1 / (1 + 1e-6)) < 1e-12 && !is_dead(&g), "Eq 2: A = 1 / (1 + eps)");
    CHECK(novelty_part(&g) < 1e-12, "GRPO has no novelty in it");
    for (int i = 0; i < 4; i++)
        g.shaped[i] = 0.5 + 1e-9 * i;
    advantages(&g, &grpo);
    CHECK(g.advantage[3] == 0, "Eq 2: a standard deviation of rounding noise gives no advantage");
    g.shaped[0] = 5;
    grpo.adv_norm = ADV_NONE;
    advantages(&g, &grpo);
    CHECK(fabs(g.advantage[0] - 3.375) < 1e-6, "--adv-norm none only takes the mean out");

    check_random_novelty(&g);
    check_copies_novelty(&e);
    engine_free(&e);
}

/* A small random model of 19 symbols, as the tasks use it; `scale` sharpens its predictions. */
static Model small_model(float scale)
{
    Config c = *preset_find("nano");
    c.num_hidden_layers = 2;
    c.vocab_size = (int)strlen(TASK_ALPHABET) + 1;
    c.n_eos = 1;
    Model m = model_new(&c);
    model_init(&m, 5);
    row_scale(at(&m, m.params, lm_head(&c)), at(&m, m.params, lm_head(&c)), scale,
              c.vocab_size * c.hidden_size);
    model_pack(&m, 1);
    rope_reserve(&m, 128);
    return m;
}

/* E_y[sum_t phi_t] = 0 under the policy itself: features of the score function have mean zero. All
 * responses of a model of three tokens, cut off after three, are enumerated. */
static void test_zero_mean(void)
{
    enum { LONGEST = 3, ALL = 15, D = 64 };
    Config c = *preset_find("nano");
    c.num_hidden_layers = 1;
    c.vocab_size = 3;
    c.n_eos = 1;
    for (int t = 0; t < 2; t++) {
        double temperature = t ? 0.6 : 1, total = 0, norm = 0, mean[D] = {0};
        Engine e = engine_new(1, 1 << 24, 1 << 24);
        Model m = model_new(&c);
        MethodOptions o = {.method = GRPO};
        Learner l = test_learner(&e, &m, temperature, &o, 1);
        model_init(&m, 3);
        rope_reserve(&m, 16);
        Group g = group_new(&e.arena, ALL, 4, LONGEST, D);
        g.prompt[0] = 1;
        g.prompt[1] = 2;
        g.prompt_length = 2;
        int n = 0;
        for (int code = 0; code < 27; code++) { /* y = the digits of code in base 3 */
            int y[LONGEST] = {code / 9, code / 3 % 3, code % 3}, length = LONGEST;
            for (int k = LONGEST - 1; k >= 0; k--)
                length = y[k] == 0 ? k + 1 : length;
            bool first = (length > 2 || y[2] == 0) && (length > 1 || y[1] == 0);
            if (!first)
                continue; /* the same response as an earlier code: what follows the end is void */
            memcpy(g.token + g.start[n], y, (size_t)length * sizeof(int));
            g.start[n + 1] = g.start[n] + length;
            g.reward[n++] = -1;
        }
        g.n_tokens = g.start[n];
        CHECK(n == ALL, "%d responses", n);
        forward_groups(&e.worker[0], &l, &g, 1, KEEP_NOTHING);
        for (int i = 0; i < ALL; i++) {
            double p = 0, square = 0;
            for (int k = g.start[i]; k < g.start[i + 1]; k++)
                p += (double)g.logprob[k];
            total += p = exp(p);
            for (int j = 0; j < D; j++) {
                double sum = 0;
                for (int k = g.start[i]; k < g.start[i + 1]; k++)
                    sum += (double)g.phi[k * D + j];
                mean[j] += p * sum;
                square += p * sum * sum;
            }
            norm += square;
        }
        double length = 0;
        for (int j = 0; j < D; j++)
            length += mean[j] * mean[j];
        CHECK(fabs(total - 1) < 1e-6, "the responses' probabilities add up to %g", total);
        CHECK(sqrt(length / norm) < 1e-6, "T %g: the mean of sum phi has relative length %g",
              temperature, sqrt(length / norm));
        model_free(&m);
        engine_free(&e);
    }
}

#endif
