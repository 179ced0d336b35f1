/* rollouts.h: tests of sampled groups, and what is counted over them. */
#ifndef TESTS_ROLLOUTS_H
#define TESTS_ROLLOUTS_H

#include "method_test.h"

/* ================================================================ rollouts */

/* Groups of a task, sampled. */
static Group *sampled(Engine *e, Model *m, const Task *task, int n, int first, int size,
                      const Sampling *s)
{
    Tokenizer t = tokenizer_characters(TASK_ALPHABET);
    Problems p = {.task = *task, .judge.task = *task, .seed = 11};
    Extent x = {n, size, TASK_PROMPT_MAX, s->max_tokens, 1, KEEP_NOTHING, false, SAVE_NOTHING};
    Group *g = groups_new(e, m, x);
    for (int i = 0; i < n; i++)
        group_pose(&g[i], &e->arena, &p, (uint32_t)(first + i), &t, TASK_PROMPT_MAX);
    sample_groups(e, m, g, n, s);
    for (int i = 0; i < n; i++)
        verify_group(&g[i], &p.judge, &t);
    tokenizer_free(&t);
    return g;
}

static bool same_responses(const Group *a, const Group *b)
{
    return a->n_tokens == b->n_tokens &&
           !memcmp(a->start, b->start, (size_t)(a->m + 1) * sizeof(int)) &&
           !memcmp(a->token, b->token, (size_t)a->n_tokens * sizeof(int)) &&
           !memcmp(a->logprob_old, b->logprob_old, (size_t)a->n_tokens * sizeof(float));
}

/* What the sampler saw is what the trainer sees, bit for bit; and a sample depends on its counters
 * alone, not on its company or on threads. */
static void test_on_policy(void)
{
    Task task;
    char error[200];
    task_parse("countdown:numbers=3", &task, error, sizeof error);
    Model m = small_model(6.0f);
    MethodOptions o = {.method = G2RL, .lambda = 1};
    Sampling s = {.temperature = 0.8, .top_p = 1, .max_tokens = 40, .seed = 3};
    Engine e = engine_new(3, 1 << 24, 1 << 26);
    Learner l = test_learner(&e, &m, 0.8, &o, 1);
    e.threads = 1;
    Group *alone = sampled(&e, &m, &task, 1, 2, 5, &s);
    Group *g = sampled(&e, &m, &task, 4, 0, 5, &s);
    CHECK(same_responses(alone, &g[2]), "a group sampled alone differs from the same in a batch");
    e.threads = 3;
    Group *threads = sampled(&e, &m, &task, 4, 0, 5, &s);
    model_unpack(&m);
    Group *unpacked = sampled(&e, &m, &task, 4, 0, 5, &s);
    int longest = 0, shortest = 99;
    for (int k = 0; k < 4; k++) {
        CHECK(same_responses(&g[k], &threads[k]), "three threads changed group %d", k);
        CHECK(same_responses(&g[k], &unpacked[k]), "unpacked weights changed group %d", k);
        for (int i = 0; i < 5; i++) {
            longest = imax(longest, response_length(&g[k], i));
            shortest = imin(shortest, response_length(&g[k], i));
        }
    }
    CHECK(longest > 34 && shortest < 20, "lengths %d to %d exercise nothing", shortest, longest);
    for (int at_once = 1; at_once <= 4; at_once += 3)
        for (int i = 0; i < 4; i += at_once) {
            forward_groups(&e.worker[0], &l, g + i, at_once, KEEP_NOTHING);
            for (int k = i; k < i + at_once; k++)
                CHECK(!memcmp(g[k].logprob, g[k].logprob_old,
                              (size_t)g[k].n_tokens * sizeof(float)) && g[k].logp_gap == 0,
                      "sampler and trainer disagree on group %d (%d at once)", k, at_once);
        }
    s.step = 1;
    Group *next = sampled(&e, &m, &task, 1, 2, 5, &s);
    CHECK(!same_responses(alone, next), "another step must draw other samples");
    model_free(&m);
    engine_free(&e);
}

/* The most threads that were seen to share worker 0's products while tokens were drawn. */
typedef struct {
    const Engine *e;
    int most;
} Helpers;

static void see_helpers(void *context, int token)
{
    Helpers *h = context;
    h->most = imax(h->most, h->e->worker[0].threads);
    (void)token;
}

/* How many of three threads take part in a loop: one without OpenMP. */
static size_t helpers_of_three(void)
{
    bool seen[3] = {false};
    PARALLEL_FOR (3)
    for (int i = 0; i < 3; i++)
        seen[thread_index()] = true;
    return (size_t)seen[0] + seen[1] + seen[2];
}

/* Floats of a nan_engine's worker 0 that were written. */
static size_t touched(const Engine *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->worker[0].capacity; i += sizeof(float))
        n += memcmp(e->worker[0].base + i, "\xFF\xFF\xFF\xFF", sizeof(float)) != 0;
    return n;
}

/* Threads that draw together write to scratch memory of their own, each as much as one alone, and
 * draw the same; so does each rollout for itself. */
static void check_shared_draws(void)
{
    enum { V = 500, N = DRAWN_ROWS + 14 };
    Model m = tiny_model(LLAMA, true, V);
    Sampling s = {.temperature = 1, .top_p = 1, .seed = 12};
    Group g = {.index = 3};
    Rollout rollout[N], *r[N];
    float *hidden = noise_new(66, N * (size_t)m.config.hidden_size), logprob[2][N];
    int token[2][N];
    size_t written[2];
    model_pack(&m, 1);
    for (int k = 0; k < 2; k++) {
        Engine e = nan_engine(1, 1 << 18);
        e.worker->threads = k ? 3 : 1;
        for (int i = 0; i < N; i++) {
            rollout[i] = (Rollout){.group = &g, .index = i, .token = &token[k][i],
                                   .logprob = &logprob[k][i]};
            r[i] = &rollout[i];
        }
        draw_tokens(e.worker, &m, hidden, r, N, &s);
        written[k] = touched(&e);
        engine_free(&e);
    }
    CHECK(is_alive(logprob[0], N) && !memcmp(token[0], token[1], sizeof token[0]) &&
              same_bits(logprob[0], logprob[1], N), "three threads draw other tokens");
    CHECK(written[1] == written[0] + (helpers_of_three() - 1) * V,
          "%zu floats of scratch; by one thread %zu", written[1], written[0]);
    Engine alone = nan_engine(1, 1 << 18);
    for (int i = 0; i < N; i++) {
        rollout[i].length = 0;
        draw_tokens(alone.worker, &m, hidden + (ptrdiff_t)i * m.config.hidden_size, &r[i], 1, &s);
    }
    CHECK(!memcmp(token[0], token[1], sizeof token[0]) && same_bits(logprob[0], logprob[1], N),
          "a rollout for itself draws another token");
    engine_free(&alone);
    free(hidden);
    model_free(&m);
}

/* The same of attention over a cache: three sequences of one length. */
static void check_shared_attention(void)
{
    enum { SEQUENCES = 3, ROWS = 40 };
    Model m = tiny_model(LLAMA, true, 50);
    Heads h = heads_of(&m.config);
    size_t rows = SEQUENCES * ROWS, n = rows * (size_t)h.ld_out, written[2];
    float *qkv = noise_new(67, rows * (size_t)h.ld_qkv), *att[2];
    int tokens[ROWS] = {0};
    for (int k = 0; k < 2; k++) {
        Engine e = nan_engine(1, 1 << 18);
        KvPool pool = kv_pool_new(&e.arena, &h, m.config.num_hidden_layers,
                                  SEQUENCES * kv_blocks(ROWS));
        KvSeq kv[SEQUENCES];
        Batch b = batch_new(&e.arena, (int)rows, SEQUENCES, 1);
        b.pool = &pool;
        for (int i = 0; i < SEQUENCES; i++) {
            kv[i] = kv_seq_new(&e.arena, ROWS);
            kv_reserve(&pool, &kv[i], ROWS);
            b.seq[batch_seq(&b, tokens, ROWS, 0, -1)].kv = &kv[i];
        }
        att[k] = nan_new(n + LANES);
        e.worker->threads = k ? 3 : 1;
        attention_cached(e.worker, h, 1, &b, qkv, qkv, att[k]);
        written[k] = touched(&e);
        engine_free(&e);
    }
    CHECK(is_alive(att[0], n) && same_bits(att[0], att[1], n), "three threads change attention");
    size_t cuts = SEQUENCES + 1; /* where the runs begin: once for all threads */
    CHECK(written[1] - cuts == (written[0] - cuts) * helpers_of_three(),
          "%zu floats of scratch; by one thread %zu", written[1], written[0]);
    free(att[0]);
    free(att[1]);
    free(qkv);
    model_free(&m);
}

/* Few rollouts of a model with large weights: all threads share the products of one batch, which
 * changes no bit, in memory of the size that worker_bytes asks for. */
static void test_shared_batch(void)
{
    enum { V = 2001, PROMPT = 100, GROUPS = 2, M = 4, LONGEST = 5 };
    Config c = *preset_find("small");
    c.num_hidden_layers = 2;
    c.vocab_size = V;
    Model m = model_new(&c);
    Extent x = {GROUPS, M, PROMPT, LONGEST, 1, KEEP_NOTHING, false, SAVE_NOTHING};
    Engine e = engine_new(3, 1 << 22, worker_bytes(&m, x));
    Helpers seen = {.e = &e};
    Sampling s = {.temperature = 1, .top_p = 1, .max_tokens = LONGEST, .seed = 4,
                  .on_token = see_helpers, .context = &seen};
    Group *g[4], *alone = groups_new(&e, &m, x);
    model_init(&m, 6);
    model_pack(&m, 2);
    rope_reserve(&m, PROMPT + LONGEST);
    memset(e.worker[0].base, 0xFF, e.worker[0].capacity);
    for (int threads = 0; threads <= 3; threads++) { /* 0: each group alone */
        Group *mine = g[threads] = threads ? groups_new(&e, &m, x) : alone;
        for (int k = 0; k < GROUPS; k++) {
            mine[k].index = (uint32_t)k;
            mine[k].prompt_length = PROMPT - 7 * k;
            tree_tokens(mine[k].prompt, PROMPT, V, (uint32_t)k, 0);
        }
        e.threads = imax(1, threads);
        seen.most = 0;
        for (int k = 0; k < GROUPS; k += threads ? GROUPS : 1)
            sample_groups(&e, &m, mine + k, threads ? GROUPS : 1, &s);
        CHECK(seen.most == e.threads, "%d threads shared the batch of %d", seen.most, e.threads);
        for (int k = 0; k < GROUPS; k++) {
            CHECK(mine[k].n_tokens == M * LONGEST && is_alive(mine[k].logprob_old, M * LONGEST),
                  "group %d: %d tokens", k, mine[k].n_tokens);
            CHECK(same_responses(&alone[k], &mine[k]), "%d threads changed group %d", threads, k);
        }
    }
    CHECK(!same_responses(&alone[0], &alone[1]), "two prompts, one response");
    s.max_tokens = 2; /* so few that the last one is drawn by all */
    sample_groups(&e, &m, g[3], GROUPS, &s);
    CHECK(e.worker[0].threads == 1 && e.worker[0].used == 0, "worker 0 was not left as found");
    model_free(&m);
    engine_free(&e);
    check_shared_draws();
    check_shared_attention();
}

/* A distribution over several tiles, with nothing in the last ones, against its sums one by one. */
static void check_inversion(void)
{
    enum { N = 4 * TILE + 77, THERE = 2 * TILE + 100 };
    static float p[N];
    static double sum[N + 1];
    for (int v = 0; v < N; v++) {
        Random r = philox(9, 2, (uint32_t)v, 0, 0, 0);
        p[v] = v < THERE && v % 5 ? (float)pow(uniform(r), 9) : 0;
        sum[v + 1] = sum[v] + (double)p[v];
    }
    for (int i = 0; i < 4000; i++) {
        double u = i == 0 ? 0 : i == 1 ? 1 : uniform(philox(4, 3, (uint32_t)i, 0, 0, 0));
        int y = invert_distribution(p, N, u);
        double slack = 1e-6 * sum[N], target = u * sum[N];
        CHECK(p[y] > 0 && sum[y] <= target + slack && target <= sum[y + 1] + slack,
              "u = %.17g draws %d, whose share is %g to %g", u, y, sum[y] / sum[N],
              sum[y + 1] / sum[N]);
    }
}

/* Several tiles, with likelier tokens in each than in those before: with u in the middle of what is
 * token y's, y is drawn. */
static void check_rising_tiles(void)
{
    enum { V = 3 * TILE + 5 };
    float z[V], scratch[2 * V], logprob;
    double below[V + 1] = {0};
    Sampling s = {.temperature = 0.7, .top_p = 1};
    for (int v = 0; v < V; v++) {
        z[v] = normal(philox(9, 2, (uint32_t)v, 0, 0, 0)) + 2.0f * (float)(v / TILE);
        below[v + 1] = below[v] + exp((double)z[v] / 0.7);
    }
    for (int v0 = 0, y; v0 < V; v0 += TILE) {
        y = v0;
        for (int v = v0; v < imin(V, v0 + TILE); v++)
            y = z[v] > z[y] ? v : y;
        double u = (below[y] + below[y + 1]) / 2 / below[V];
        CHECK(draw_token(z, V, &s, u, &logprob, scratch) == y, "not token %d", y);
        CHECK(fabs((double)logprob - log((below[y + 1] - below[y]) / below[V])) < 1e-5,
              "log-prob of %d", y);
    }
}

/* Draws follow the policy: 40,000 first tokens against the exact distribution (chi squared), with
 * and without cuts; temperature 0 takes the largest logit. */
static void test_draws(void)
{
    enum { V = 19, N = 40000 };
    float z[V], scratch[2 * V], logprob;
    Sampling s = {.temperature = 0.7, .top_p = 1};
    double p[V], sum = 0, chi = 0;
    int count[V] = {0};
    for (int v = 0; v < V; v++)
        z[v] = 2 * normal(philox(9, 1, (uint32_t)v, 0, 0, 0));
    for (int v = 0; v < V; v++)
        sum += p[v] = exp((double)z[v] / 0.7);
    for (int i = 0; i < N; i++) {
        double u = uniform(philox(4, 1, (uint32_t)i, 0, 0, 0));
        int y = draw_token(z, V, &s, u, &logprob, scratch);
        CHECK(fabs((double)logprob - log(p[y] / sum)) < 1e-5, "log-prob of %d", y);
        count[y]++;
    }
    for (int v = 0; v < V; v++)
        chi += pow(count[v] - N * p[v] / sum, 2) / (N * p[v] / sum);
    CHECK(chi < 45, "chi squared of 18 degrees of freedom is %g", chi); /* 1 in 2,500 */
    int order[3] = {0};
    for (int k = 0; k < 3; k++) /* the three most likely tokens */
        for (int v = 0; v < V; v++) {
            bool used = (k > 0 && v == order[0]) || (k > 1 && v == order[1]);
            bool last = (k > 0 && order[k] == order[0]) || (k > 1 && order[k] == order[1]);
            if (!used && (last || p[v] > p[order[k]]))
                order[k] = v;
        }
    for (int cut = 0; cut < 2; cut++) {
        s.top_k = cut ? 0 : 2;
        s.top_p = cut ? (p[order[0]] + 0.5 * p[order[1]]) / sum : 1;
        int seen[2] = {0};
        for (int i = 0; i < 2000; i++) {
            double u = uniform(philox(4, 2, (uint32_t)i, 0, 0, 0));
            int y = draw_token(z, V, &s, u, &logprob, scratch);
            CHECK(y == order[0] || y == order[1], "token %d is outside the cut", y);
            seen[y == order[1]]++;
        }
        CHECK(fabs(seen[1] / 2000.0 - p[order[1]] / (p[order[0]] + p[order[1]])) < 0.05,
              "the cut distribution is not renormalised: %d, %d", seen[0], seen[1]);
    }
    s = (Sampling){.temperature = 0, .top_p = 1};
    CHECK(draw_token(z, V, &s, 0.999, &logprob, scratch) == order[0], "greedy");
    check_rising_tiles();
    check_inversion();
}

/* Whether two passes over `rows` rows left the same in one layer. */
static bool same_layer(const Config *c, const Layer *x, const Layer *y, size_t rows)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    int d = c->hidden_size, ff = c->intermediate_size, norms = c->model_type == QWEN3 ? H + KV : 0;
    struct {
        const float *x, *y;
        int n;
    } part[] = {
        {x->x, y->x, d}, {x->rstd1, y->rstd1, 1}, {x->normed1, y->normed1, d},
        {x->qkv, y->qkv, (H + 2 * KV) * hd}, {x->qk, y->qk, (H + KV) * hd},
        {x->rstd_head, y->rstd_head, norms}, {x->att, y->att, H * hd}, {x->x2, y->x2, d},
        {x->rstd2, y->rstd2, 1}, {x->normed2, y->normed2, d}, {x->gate_up, y->gate_up, 2 * ff},
        {x->act, y->act, ff},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (!same_bits(part[i].x, part[i].y, rows * (size_t)part[i].n))
            return false;
    return true;
}

enum { SAVED_GROUPS = 3, SAVED_M = 5, SAVED_PROMPT = 35, SAVED_TOKENS = 40 };

/* Three groups with prompts of different lengths, sampled by all of an engine's threads. */
static Group *sample_saving(Engine *e, Model *m, Saving what)
{
    Extent x = {SAVED_GROUPS, SAVED_M, SAVED_PROMPT, SAVED_TOKENS, 1, KEEP_ALL, false, what};
    Sampling s = {.temperature = 1, .top_p = 1, .max_tokens = SAVED_TOKENS, .seed = 4};
    Group *g = groups_new(e, m, x);
    for (int k = 0; k < SAVED_GROUPS; k++) {
        g[k].index = (uint32_t)k;
        g[k].prompt_length = SAVED_PROMPT - 17 * k;
        tree_tokens(g[k].prompt, SAVED_PROMPT, m->config.vocab_size, (uint32_t)k, 0);
        g[k].seen = true;
        g[k].step = -1;
    }
    sample_groups(e, m, g, SAVED_GROUPS, &s);
    for (int k = 0; k < SAVED_GROUPS; k++)
        CHECK(g[k].reads_saved && !g[k].seen && g[k].seed == s.seed && g[k].step == s.step,
              "group %d: activations saved, not seen yet, and the counters", k);
    return g;
}

/* Whether groups read what sampling saved. */
static void set_reads_saved(Group *g, int n, bool reads)
{
    for (int i = 0; i < n; i++)
        g[i].reads_saved = reads;
}

/* A pass over n groups that reads the saved activations is the pass that computes all of them. */
static void check_restored_pass(Arena *a, const Learner *l, Group *g, int n, Saving what)
{
    const Config *c = &l->policy->config;
    Keep keep = what == SAVE_ALL ? KEEP_ALL : KEEP_NOTHING;
    a->used = 0;
    set_reads_saved(g, n, false);
    Pass made = forward_groups(a, l, g, n, KEEP_ALL);
    set_reads_saved(g, n, true);
    Pass read = forward_groups(a, l, g, n, keep);
    size_t rows = (size_t)made.batch.n_rows, d = (size_t)c->hidden_size;
    size_t targets = (size_t)made.batch.n_targets;
    for (int k = 0; k < c->num_hidden_layers && keep; k++)
        CHECK(same_layer(c, &made.layer[k], &read.layer[k], rows), "layer %d", k);
    CHECK(is_alive(read.hidden, targets * d) && same_bits(made.x, read.x, rows * d) &&
              same_bits(made.hidden, read.hidden, targets * d),
          "groups %u to %u: the output", g->index, g[n - 1].index);
    float *last = group_saved(g, 0, 0).row - 1, before = *last; /* the prompt's last number */
    *last += 1;
    read = forward_groups(a, l, g, n, keep);
    CHECK(!same_bits(made.x, read.x, rows * d), "the saved activations are not read");
    *last = before;
}

/* Every cut of groups into passes. Returns the lengths of their responses, as bits. */
static unsigned check_saved(Model *m, Saving what, int threads)
{
    Engine e = nan_engine(threads, 16 << 20);
    MethodOptions o = {.method = G2RL, .lambda = 1};
    Learner l = test_learner(&e, m, 1, &o, 1);
    Group *g = sample_saving(&e, m, what);
    unsigned lengths = 0;
    e.worker[0].threads = threads;
    for (int n = 1; n <= SAVED_GROUPS; n += 2)
        for (int k = 0; k < SAVED_GROUPS; k += n)
            check_restored_pass(&e.worker[0], &l, g + k, n, what);
    for (int i = 0; i < SAVED_GROUPS * SAVED_M; i++)
        lengths |= 1u << imin(response_length(&g[i / SAVED_M], i % SAVED_M), 31);
    engine_free(&e);
    return lengths;
}

/* A trainer that runs one group at a time, and the groups of its first step. */
static Group *roll_out_once(Trainer *t, Session *s, const Model *m)
{
    *s = (Session){.model = *m, .engine = nan_engine(1, 16 << 20),
                   .tokenizer = tokenizer_characters(TASK_ALPHABET)};
    s->o.prompts = SAVED_GROUPS;
    s->o.rollouts = SAVED_M;
    s->o.max_tokens = SAVED_TOKENS;
    s->o.temperature = 1;
    s->o.rl = (MethodOptions){.method = G2RL, .lambda = 1, .clip_high = 0.2};
    *t = (Trainer){.s = s, .extent = {SAVED_GROUPS, SAVED_M, TASK_PROMPT_MAX, SAVED_TOKENS, 1,
                                      KEEP_ALL, false, SAVE_ALL}};
    char error[200];
    task_parse("countdown:numbers=3", &t->problems.task, error, sizeof error);
    t->learner = test_learner(&s->engine, &s->model, 1, &s->o.rl, 1);
    Group *g = roll_out(t, 0);
    for (int i = 0; i < SAVED_GROUPS * SAVED_M; i++) {
        g[i / SAVED_M].reward[i % SAVED_M] = i % 3 ? -1 : 1;
        g[i / SAVED_M].answered[i % SAVED_M] = true;
    }
    return g;
}

/* The first pass of a step reads no saved activations, so that logp_gap is a measurement; the
 * others do. Advantages and logp_gap are those of the first time that a group is seen. */
static void check_first_pass(const Model *m)
{
    Session s;
    Trainer t;
    Group *g = roll_out_once(&t, &s, m);
    Model *policy = &s.model;
    for (int broken = 0; broken < 2; broken++) {
        group_saved(&g[broken], -1, 0).row[0] = NAN; /* a q of the prompt's first row */
        for (int i = 0; i < SAVED_GROUPS; i++) {     /* as roll_out left them */
            g[i].seen = false;
            g[i].reads_saved = i > 0;
        }
        grads_zero(policy);
        groups_gradient(&t.learner, g, SAVED_GROUPS, KEEP_ALL);
        CHECK(all_finite(policy->grads, policy->n_grads) == !broken, "group %d: %s", broken,
              broken ? "saved activations are not read" : "saved activations are read");
        CHECK(g[1].seen && !g[1].reads_saved, "group 1 is not marked as seen");
    }
    engine_free(&s.engine);
    tokenizer_free(&s.tokenizer);
}

/* Before several updates on one batch of rollouts all groups get their advantages, by the outputs
 * that sampling saved; later passes keep these and logp_gap. */
static void check_several_updates(const Model *m)
{
    Session s;
    Trainer t;
    Group *g = roll_out_once(&t, &s, m);
    double advantage[SAVED_M];
    for (int k = 0; k < 2; k++)
        group_saved(&g[k], 0, 0).row[-1] = NAN; /* the output of the prompt's last row */
    g[0].logprob_old[2] -= 0.25f;
    CHECK(!g[0].reads_saved && g[1].reads_saved && g[2].reads_saved, "the first one reads nothing");
    reference_hidden(&s.engine, &s.model, g, SAVED_GROUPS);
    CHECK(all_finite(g[1].hidden_ref, (size_t)(g[1].n_tokens * m->config.hidden_size)),
          "the reference reads the policy's saved activations");
    for (int k = 0; k < SAVED_GROUPS; k++)
        g[k].hidden_ref = NULL;
    all_advantages(&t.learner, g, SAVED_GROUPS);
    for (int k = 0; k < SAVED_GROUPS; k++)
        CHECK(isnan(g[k].logprob[0]) == (k == 1) && g[k].seen && !g[k].reads_saved,
              "group %d: log p %g", k, (double)g[k].logprob[0]);
    CHECK(g[0].logp_gap == 0.25 && g[2].logp_gap == 0, "logp_gap is %g and %g", g[0].logp_gap,
          g[2].logp_gap);
    memcpy(advantage, g[0].advantage, sizeof advantage);
    row_scale(s.model.params, s.model.params, 1.01f, (int)s.model.n_params);
    model_pack(&s.model, 1);
    grads_zero(&s.model);
    groups_gradient(&t.learner, g, SAVED_GROUPS, KEEP_ALL);
    CHECK(!memcmp(advantage, g[0].advantage, sizeof advantage) && g[0].logp_gap == 0.25,
          "a second update has advantages of its own");
    CHECK(all_finite(s.model.grads, s.model.n_grads), "a second update reads saved activations");
    row_scale(s.model.params, s.model.params, 1 / 1.01f, (int)s.model.n_params);
    engine_free(&s.engine);
    tokenizer_free(&s.tokenizer);
}

/* What sampling saved of each row is what the trainer would make of it, for every kind of model. */
static void test_saved_activations(void)
{
    unsigned lengths = 0;
    for (int type = 0; type < 3; type++)
        for (int threads = 1; threads <= 7; threads += 6) { /* more than groups: they share one */
            Model m = tiny_model((ModelType)type, true, 50);
            for (m.config.n_eos = 0; m.config.n_eos < 4; m.config.n_eos++)
                m.config.eos_token_id[m.config.n_eos] = 7 * m.config.n_eos;
            model_pack(&m, 1);
            lengths |= check_saved(&m, SAVE_ALL, threads);
            lengths |= check_saved(&m, SAVE_OUTPUT, threads);
            check_first_pass(&m);
            check_several_updates(&m);
            model_free(&m);
        }
    CHECK((lengths & 2) && lengths >> 31, "no response of one token, or none of 31: %x", lengths);
}

/* Another prompt's group in the same pass changes not one bit of a group's numbers; permuting its
 * responses only permutes them, within rounding. */
static void test_groups_stand_alone(void)
{
    Task task;
    char error[200];
    task_parse("countdown:numbers=3", &task, error, sizeof error);
    Model m = small_model(6.0f);
    MethodOptions o = {.method = G2RL, .lambda = 1};
    Sampling s = {.temperature = 1, .top_p = 1, .max_tokens = 30, .seed = 8};
    Engine e = engine_new(2, 1 << 24, 1 << 26);
    Learner l = test_learner(&e, &m, 1, &o, 1);
    Group *g = sampled(&e, &m, &task, 2, 0, 4, &s), *alone = sampled(&e, &m, &task, 1, 0, 4, &s);
    g[0].reward[1] = alone->reward[1] = 1;
    forward_advantages(&e.worker[0], &l, g, 2, KEEP_NOTHING);
    forward_advantages(&e.worker[0], &l, alone, 1, KEEP_NOTHING);
    CHECK(!memcmp(g->advantage, alone->advantage, 4 * sizeof(double)) &&
              !memcmp(g->Phi, alone->Phi, 4 * 64 * sizeof(float)) &&
              !memcmp(g->entropy, alone->entropy, (size_t)alone->n_tokens * sizeof(float)),
          "a neighbour changed a group's numbers");
    Group *turned = sampled(&e, &m, &task, 1, 0, 4, &s);
    for (int i = 0; i < 4; i++) { /* the responses in reverse */
        int n = response_length(alone, 3 - i);
        memcpy(turned->token + turned->start[i], alone->token + alone->start[3 - i],
               (size_t)n * sizeof(int));
        turned->start[i + 1] = turned->start[i] + n;
        turned->reward[i] = alone->reward[3 - i];
    }
    forward_advantages(&e.worker[0], &l, turned, 1, KEEP_NOTHING);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(turned->advantage[i] - alone->advantage[3 - i]) < 1e-5 &&
                  fabs(alone->advantage[i]) > 1e-3,
              "permuting responses: A_%d is %g, not %g", i, turned->advantage[i],
              alone->advantage[3 - i]);
    model_free(&m);
    engine_free(&e);
}

/* ================================================================ evaluation */

/* pass@k against counting all subsets of k samples. */
static void test_pass_at_k(void)
{
    for (int n = 1; n <= 8; n++)
        for (int c = 0; c <= n; c++)
            for (int k = 1; k <= n; k++) {
                int subsets = 0, hits = 0;
                for (unsigned set = 0; set < 1u << n; set++) {
                    int size = 0;
                    for (int i = 0; i < n; i++)
                        size += set >> i & 1;
                    subsets += size == k;
                    hits += size == k && (set & ((1u << c) - 1)); /* samples 0 .. c-1 are right */
                }
                double exact = (double)hits / subsets;
                CHECK(fabs(pass_at_k(n, c, k) - exact) < 1e-12, "n %d, c %d, k %d: %g, not %g", n,
                      c, k, pass_at_k(n, c, k), exact);
            }
}

static void test_majority(void)
{
    const int a[] = {0, 1, 1, 3, 4}, tie[] = {0, 1, 1, 0, 4}, three[] = {0, 1, 2, 3};
    const bool right[] = {true, false, false, true, false}, none[5] = {false};
    const bool some[] = {true, false, true, false};
    CHECK(majority(a, right, 5) == 0, "the most frequent class is wrong");
    CHECK(majority(tie, right, 5) == 0.5, "a tie counts in expectation");
    CHECK(majority(three, some, 4) == 0.5, "all different: the mean");
    CHECK(majority(a, none, 5) == 0 && majority(a, right, 1) == 1, "edges");
    /* Every way to spread 5 samples over 4 classes, every set of right classes: the mean over all
     * draws among the classes with most votes. */
    for (unsigned code = 0; code < 1u << 10; code++)
        for (unsigned set = 0; set < 1u << 4; set++) {
            int class[5], votes[4] = {0}, most = 0, draws = 0, good = 0;
            bool is[5];
            for (int i = 0; i < 5; i++) {
                class[i] = code >> 2 * i & 3;
                is[i] = set >> class[i] & 1;
                most = imax(most, ++votes[class[i]]);
            }
            for (int c = 0; c < 4; c++) {
                draws += votes[c] == most;
                good += votes[c] == most && set >> c & 1;
            }
            double exact = (double)good / draws, got = majority(class, is, 5);
            CHECK(fabs(got - exact) < 1e-12, "classes %x, right %x: %g, not %g", code, set, got,
                  exact);
        }
}

/* The means of all n^n resamples of n numbers, in order; n at most 4. Returns how many. */
static int all_resamples(const double *x, int n, double *means)
{
    int all = n == 4 ? 256 : 27;
    for (int code = 0; code < all; code++) {
        means[code] = 0;
        for (int i = 0, rest = code; i < n; i++, rest /= n)
            means[code] += x[rest % n] / n;
    }
    qsort(means, (size_t)all, sizeof *means, by_value);
    return all;
}

/* The bounds of 1,000 draws lie where the exact distribution has 2.5 % below, or above: between its
 * 1 % and its 4.5 %, which 1,000 draws leave once in a thousand times. Returns how often these two
 * are one value, so that the bound must be it. */
static int check_interval(Estimate e, const double *means, int all, const char *what)
{
    int near = all / 100, far = all * 45 / 1000, bound = 0;
    for (int side = 0; side < 2; side++) {
        double outer = means[side ? all - 1 - near : near];
        double inner = means[side ? all - 1 - far : far], got = side ? e.high : e.low;
        CHECK(got >= fmin(outer, inner) - 1e-12 && got <= fmax(outer, inner) + 1e-12,
              "%s: %s bound %g, not in [%g, %g]", what, side ? "upper" : "lower", got,
              fmin(outer, inner), fmax(outer, inner));
        bound += fabs(outer - inner) < 1e-12;
    }
    return bound;
}

static void test_bootstrap(void)
{
    double x[400], constant[10];
    for (int i = 0; i < 400; i++)
        x[i] = i % 4 == 0;
    for (int i = 0; i < 10; i++)
        constant[i] = 0.25;
    Estimate a = bootstrap(x, NULL, 400, 1), b = bootstrap(constant, NULL, 10, 1);
    double half = 1.96 * sqrt(0.25 * 0.75 / 400);
    CHECK(fabs(a.value - 0.25) < 1e-12, "mean %g", a.value);
    CHECK(fabs(a.low - 0.25 + half) < 0.01 && fabs(a.high - 0.25 - half) < 0.01,
          "interval [%g, %g]; the normal one is .25 +- %g", a.low, a.high, half);
    CHECK(fabs(b.low - 0.25) < 1e-12 && fabs(b.high - 0.25) < 1e-12, "constant data");
    static const double small[][4] = {{0, 0, 1}, {0.1, 0.9, 0.4}, {0, 0, 0, 1}, {0, 1, 0, 1},
                                      {0.05, 0.3, 0.35, 1}, {1, 1, 1, 0}};
    double means[256];
    int bound = 0;
    for (int k = 0; k < 6; k++)
        for (uint64_t seed = 0; seed < 10; seed++) {
            int n = k < 2 ? 3 : 4, all = all_resamples(small[k], n, means);
            bound += check_interval(bootstrap(small[k], NULL, n, seed), means, all, "bootstrap");
        }
    CHECK(bound > 30, "%d bounds are exact", bound);
}

/* Whole classes are drawn: against all resamples of three classes of 1, 2 and 3 rows, whose means
 * are sums over rows by their number; and rows that are all their own class are rows. */
static void test_bootstrap_class(void)
{
    static const double x[] = {0.9, 0.2, 0.1, 0.5, 0.3, 0.8};
    static const int class[] = {0, 1, 2, 1, 2, 2}, own[] = {0, 1, 2, 3, 4, 5};
    static const double sum[] = {0.9, 0.7, 1.2}, zero[6];
    double means[27];
    for (int code = 0; code < 27; code++) {
        int a = code % 3, b = code / 3 % 3, c = code / 9;
        means[code] = (sum[a] + sum[b] + sum[c]) / (a + b + c + 3);
    }
    qsort(means, 27, sizeof *means, by_value);
    for (uint64_t seed = 0; seed < 10; seed++) {
        Estimate e = bootstrap(x, class, 6, seed), pair = paired(x, zero, class, 6, seed);
        Estimate each = bootstrap(x, own, 6, seed), rows = bootstrap(x, NULL, 6, seed);
        check_interval(e, means, 27, "by class");
        CHECK(fabs(e.value - 2.8 / 6) < 1e-12, "mean %g", e.value);
        CHECK(!memcmp(&pair, &e, sizeof e), "paired with 0: [%g, %g]", pair.low, pair.high);
        CHECK(!memcmp(&each, &rows, sizeof rows), "classes of one row: [%g, %g], not [%g, %g]",
              each.low, each.high, rows.low, rows.high);
    }
}

/* Differences by pairs: against all resamples of the pairs, and exactly 0 for x against itself. */
static void test_paired(void)
{
    static const double x[] = {0.9, 0.2, 0.6, 0.7}, y[] = {0.5, 0.1, 0.7, 0.1};
    double difference[4], means[256], shifted[4];
    for (int i = 0; i < 4; i++) {
        difference[i] = x[i] - y[i];
        shifted[i] = x[i] + 0.5;
    }
    int all = all_resamples(difference, 4, means);
    for (uint64_t seed = 0; seed < 10; seed++) {
        Estimate e = paired(x, y, NULL, 4, seed), same = paired(x, x, NULL, 4, seed);
        Estimate up = paired(shifted, x, NULL, 4, seed);
        Estimate down = paired(x, shifted, NULL, 4, seed);
        check_interval(e, means, all, "paired");
        CHECK(fabs(e.value - 0.25) < 1e-12, "mean difference %g", e.value);
        CHECK(same.value == 0 && same.low == 0 && same.high == 0, "x against x: %g [%g, %g]",
              same.value, same.low, same.high);
        CHECK(fabs(up.low - 0.5) < 1e-12 && fabs(up.high - 0.5) < 1e-12 &&
                  fabs(down.low + 0.5) < 1e-12, "x is always 0.5 less: [%g, %g]", up.low, up.high);
    }
}

/* Student's t against its table; an interval by hand; and how often it holds the mean of normal
 * numbers. */
static void test_mean_interval(void)
{
    static const int df[] = {1, 2, 3, 4, 5, 6, 9, 10, 30, 100, 1000};
    static const double t[] = {12.7062047362, 4.3026527297, 3.1824463053, 2.7764451052,
                               2.5705818356, 2.4469118511, 2.2621571628, 2.2281388520,
                               2.0422724563, 1.9839715185, 1.9623390808};
    const double x[] = {1, 2, 3, 4}, half = 3.1824463053 * sqrt(5.0 / 3) / 2;
    for (int i = 0; i < 11; i++)
        CHECK(fabs(student_quantile(df[i]) - t[i]) < 1e-9, "t for %d: %.10f, not %.10f", df[i],
              student_quantile(df[i]), t[i]);
    Estimate e = mean_interval(x, 4), one = mean_interval(x + 2, 1);
    CHECK(fabs(e.value - 2.5) < 1e-12 && fabs(e.low - 2.5 + half) < 1e-9 &&
              fabs(e.high - 2.5 - half) < 1e-9, "%g [%g, %g]", e.value, e.low, e.high);
    CHECK(one.value == 3 && one.low == 3 && one.high == 3, "one run: %g [%g, %g]", one.value,
          one.low, one.high);
    /* p, by SciPy's ttest_1samp; a certain difference, and none */
    const double both[] = {-1, 1, -2, 2, -0.5, -3}, same[] = {2, 2, 2}, none[] = {0, 0};
    CHECK(fabs(t_test(x, 4) - 0.030466291662) < 1e-11 &&
          fabs(t_test(both, 6) - 0.475972868965) < 1e-11, "p = %.12f, %.12f", t_test(x, 4),
          t_test(both, 6));
    CHECK(t_test(same, 3) < 1e-15 && t_test(none, 2) == 1, "p = %g, %g", t_test(same, 3),
          t_test(none, 2));
    int holds = 0, runs = 4000;
    for (int k = 0; k < runs; k++) {
        double seeds[3];
        for (int i = 0; i < 3; i++) { /* Box and Muller */
            Random r = philox(1, STREAM_INIT, (uint32_t)k, (uint32_t)i, 0, 0);
            double u = uniform(r), v = r.r[2] * 0x1p-32;
            seeds[i] = 5 + sqrt(-2 * log(1 - u)) * cos(4 * acos(0) * v);
        }
        e = mean_interval(seeds, 3);
        holds += e.low <= 5 && e.high >= 5;
    }
    CHECK(abs(holds - runs * 95 / 100) < 50, "the interval held the mean %d times of %d", holds,
          runs);
}

#endif
