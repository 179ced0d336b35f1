/* geometry.h: tests of cosines, correlations, true gradients. */
#ifndef TESTS_GEOMETRY_H
#define TESTS_GEOMETRY_H

#include "plain_test.h"

/* Correlations against numbers worked out by hand; ties; weights as repetitions. */
static void test_correlation(void)
{
    double x[] = {10, 20, 20, 30, 40}, y[] = {1, 3, 2, 3, 5}, ones[] = {1, 1, 1, 1, 1, 1, 1};
    double weight[] = {2, 0, 1, 3, 1}, u[] = {10, 10, 20, 30, 30, 30, 40};
    double v[] = {1, 1, 2, 3, 3, 3, 5}, rank[5], a[] = {1, 2, 3, 4}, b[] = {1, 3, 2, 5};
    double flat[] = {0.1, 0.1, 0.1, 0.1, 0.1};
    const double places[] = {1, 2.5, 2.5, 4, 5};
    Grouped g = {.n = 5, .groups = 5, .x = x, .y = y, .x_order = order_of(x, 5),
                 .y_order = order_of(y, 5)};
    Grouped repeated = {.n = 7, .groups = 7, .x = u, .y = v, .x_order = order_of(u, 7),
                        .y_order = order_of(v, 7)};
    mid_ranks(x, g.x_order, ones, 5, rank);
    CHECK(!memcmp(rank, places, sizeof rank), "ranks %g %g %g", rank[0], rank[1], rank[2]);
    CHECK(fabs(spearman(&g, ones) - 8.75 / 9.5) < 1e-12, "ties: %g", spearman(&g, ones));
    CHECK(fabs(correlation(a, b, ones, 4) - 5.5 / sqrt(5 * 8.75)) < 1e-12, "Pearson");
    CHECK(fabs(pearson(&g, weight) - pearson(&repeated, ones)) < 1e-12, "Pearson, repeated");
    CHECK(fabs(spearman(&g, weight) - spearman(&repeated, ones)) < 1e-12, "Spearman, repeated");
    CHECK(fabs(mean_ratio(&g, weight) - 170.0 / 18) < 1e-12, "ratio %g", mean_ratio(&g, weight));
    CHECK(isnan(correlation(flat, y, ones, 5)), "nothing varies with what does not");
    CHECK(isnan(correlation(y, flat, ones, 5)), "nor the other way round");
    free(g.x_order);
    free(g.y_order);
    free(repeated.x_order);
    free(repeated.y_order);
}

/* Groups are drawn, not entries: with one entry a group it is `bootstrap`; entries that repeat
 * their group's make it no narrower. */
static void test_group_bootstrap(void)
{
    enum { GROUPS = 40, EACH = 9, N = GROUPS * EACH };
    double x[N], means[GROUPS];
    int group[N], own[GROUPS];
    for (int i = 0; i < GROUPS; i++)
        own[i] = i;
    for (int k = 0; k < N; k++) {
        group[k] = k / EACH;
        x[k] = means[k / EACH] = (double)noise(5, (size_t)(k / EACH));
    }
    Grouped entries = {.n = N, .groups = GROUPS, .group = group, .x = x};
    Grouped groups = {.n = GROUPS, .groups = GROUPS, .group = own, .x = means};
    Estimate plain = bootstrap(means, NULL, GROUPS, 3);
    Estimate one = group_bootstrap(&groups, mean_ratio, 3, 1);
    Estimate many = group_bootstrap(&entries, mean_ratio, 3, 3);
    CHECK(fabs(one.value - plain.value) < 1e-12 && fabs(one.low - plain.low) < 1e-12 &&
              fabs(one.high - plain.high) < 1e-12, "%g [%g, %g]; bootstrap has %g [%g, %g]",
          one.value, one.low, one.high, plain.value, plain.low, plain.high);
    CHECK(fabs(many.low - one.low) < 1e-12 && fabs(many.high - one.high) < 1e-12,
          "[%g, %g] of entries, [%g, %g] of groups", many.low, many.high, one.low, one.high);
    groups.n = 0;
    Estimate none = group_bootstrap(&groups, mean_ratio, 3, 1);
    CHECK(isnan(none.value) && isnan(none.low) && isnan(none.high), "of nothing: %g", none.value);
}

/* ---------------------------------------------------------------- true gradients */

enum { TRUE_M = PLAIN_M, TRUE_V = PLAIN_VOCAB }; /* the shapes of plain.c in the tests */

/* A group of five responses, of which two are the same and one is a single token. */
static Group true_group(Engine *e)
{
    static const int tokens[] = {3, 1, 4, 0, 2, 0, 3, 1, 4, 0, 0, 5, 5, 16, 2, 1};
    static const int length[TRUE_M] = {4, 2, 4, 1, 5}, prompt[] = {6, 22, 5};
    Group g = group_new(&e->arena, TRUE_M, 4, 5, PLAIN_D);
    memcpy(g.prompt, prompt, sizeof prompt);
    g.prompt_length = 3;
    memcpy(g.token, tokens, sizeof tokens);
    for (int i = 0; i < TRUE_M; i++)
        g.start[i + 1] = g.start[i] + length[i];
    g.n_tokens = g.start[TRUE_M];
    return g;
}

/* The gradient of each response's log-prob by plain.c, in double. Its head is a tensor of its own,
 * and so are the gradients of a tied head in Model.grads.             out: [TRUE_M, n_grads] */
static void plain_gradients(const Model *m, const Group *g, float *out)
{
    PlainModel p = plain_model();
    size_t head = m->tensors[lm_head(&m->config)].offset;
    bool tied = m->config.tie_word_embeddings;
    CHECK(m->n_grads == (size_t)p.n, "%zu gradients; plain.c has %d", m->n_grads, p.n);
    for (size_t k = 0; k < m->n_grads; k++)
        p.params[k] = (double)m->params[tied && k >= head ? k - head : k];
    for (int i = 0; i < TRUE_M; i++) {
        PlainResponse r = plain_response(0, i);
        int n = response_length(g, i);
        memcpy(r.token, g->prompt, (size_t)g->prompt_length * sizeof(int));
        memcpy(r.token + g->prompt_length, g->token + g->start[i], (size_t)n * sizeof(int));
        *r.prompt = g->prompt_length;
        *r.length = g->prompt_length + n;
        plain_gradient(0, i);
        for (size_t k = 0; k < m->n_grads; k++)
            out[(size_t)i * m->n_grads + k] = (float)p.grads[k];
    }
}

/* cos(a, b) by definition, over floats `from` to `to`; with `tied`, a tied head's part is added to
 * the embedding's first. */
static double cosine_naive(const Model *m, const float *a, const float *b, size_t from, size_t to,
                           bool tied)
{
    double ab = 0, aa = 0, bb = 0;
    size_t head = m->tensors[lm_head(&m->config)].offset, embed = m->tensors[EMBED].size;
    for (size_t k = from; k < to; k++) {
        bool both = tied && k < embed;
        double x = (double)a[k] + (both ? (double)a[head + k] : 0);
        double y = (double)b[k] + (both ? (double)b[head + k] : 0);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    return ab / sqrt(aa * bb);
}

/* Every cosine that is given, against those of plain.c's gradients: `truth`. */
static void check_true_cosines(const Model *m, const float *truth, const double *cosine)
{
    const Tensor *t = m->tensors;
    bool tied = m->config.tie_word_embeddings;
    size_t head = t[lm_head(&m->config)].offset, embed = t[EMBED].size, n = m->n_grads;
    const size_t part[5][2] = {{0, tied ? head : n}, {head, n}, {0, embed},
                               {embed, t[layer_tensor(1, 0)].offset},
                               {t[layer_tensor(1, 0)].offset, t[final_norm(&m->config)].offset}};
    CHECK(gradient_parts(&m->config) == 5, "parts");
    for (int p = 0; p < 5; p++)
        for (int i = 0; i < TRUE_M; i++)
            for (int j = 0; j < TRUE_M; j++) {
                const double *c = cosine + p * TRUE_M * TRUE_M;
                double expected = cosine_naive(m, truth + (size_t)i * n, truth + (size_t)j * n,
                                               part[p][0], part[p][1], tied && p == ALL_PART);
                bool same = i == j || i + j == 2; /* responses 0 and 2 are equal */
                CHECK(fabs(c[i * TRUE_M + j] - expected) < 2e-5, "%s, part %d: %d, %d: %g, %g",
                      tied ? "tied" : "own head", p, i, j, c[i * TRUE_M + j], expected);
                CHECK(c[i * TRUE_M + j] == c[j * TRUE_M + i], "part %d is not symmetric", p);
                CHECK(!same || c[i * TRUE_M + j] == 1, "part %d: %d and %d are the same: %.17g", p,
                      i, j, c[i * TRUE_M + j]);
            }
}

/* Without a matrix of V x d:  <G_i, G_j>_head = sum_{s, t} <r_s, r_t> <h_s, h_t> / T^2,
 * r = e(y) - p. */
static void check_head_products(Engine *e, const Model *m, const Group *g, double T,
                                const float *grads)
{
    enum { N = 16 };
    int d = m->config.hidden_size, V = m->config.vocab_size;
    size_t mark = e->worker[0].used;
    double r[N][TRUE_V], dot[TRUE_M][TRUE_M] = {{0}};
    int owner[N];
    Batch b = pack_groups(&e->worker[0], g, 1);
    Pass p = forward(&e->worker[0], m, &b, KEEP_NOTHING);
    for (int t = 0; t < N; t++) {
        double z[TRUE_V], sum = 0;
        for (owner[t] = 0; g->start[owner[t] + 1] <= t;)
            owner[t]++;
        logits_naive(m, p.hidden + t * d, V, z);
        for (int v = 0; v < V; v++)
            sum += exp(z[v] / T);
        for (int v = 0; v < V; v++)
            r[t][v] = (v == g->token[t]) - exp(z[v] / T) / sum;
    }
    for (int s = 0; s < N; s++)
        for (int t = 0; t < N; t++) {
            double rr = 0, hh = 0;
            for (int v = 0; v < V; v++)
                rr += r[s][v] * r[t][v];
            for (int k = 0; k < d; k++)
                hh += (double)p.hidden[s * d + k] * (double)p.hidden[t * d + k];
            dot[owner[s]][owner[t]] += rr * hh / (T * T);
        }
    for (int i = 0; i < TRUE_M; i++)
        for (int j = 0; j < TRUE_M; j++) {
            double found[8];
            part_dots(m, grads + (size_t)i * m->n_grads, grads + (size_t)j * m->n_grads, found);
            CHECK(fabs(found[HEAD_PART] - dot[i][j]) < 1e-4 * (fabs(dot[i][j]) + 0.1),
                  "head: <G_%d, G_%d> = %g, by tokens %g", i, j, found[HEAD_PART], dot[i][j]);
        }
    e->worker[0].used = mark;
}

/* The gradient of all responses in one batch is the sum of theirs. */
static void check_gradient_sum(Engine *e, Model *m, const Group *g, double T, const float *grads)
{
    float coef[16], *sum = floats_new(m->n_grads), *own = floats_new(m->n_grads);
    size_t mark = e->worker[0].used;
    for (int t = 0; t < g->n_tokens; t++)
        coef[t] = 1;
    m->grads = own;
    Batch b = pack_groups(&e->worker[0], g, 1);
    Pass p = forward(&e->worker[0], m, &b, KEEP_ALL);
    forward_head(&e->worker[0], m, &p, (float)T, true, NULL);
    p.coef.logprob = coef;
    backward(e, m, &p, 1);
    for (int i = 0; i < g->m; i++)
        for (size_t k = 0; k < m->n_grads; k++)
            sum[k] += grads[(size_t)i * m->n_grads + k];
    CHECK(relative_error(sum, own, m->n_grads) < 1e-5, "the group's gradient is not the sum: %g",
          relative_error(sum, own, m->n_grads));
    e->worker[0].used = mark;
    m->grads = NULL;
    free(sum);
    free(own);
}

static void check_true_gradients(bool tied)
{
    enum { SQUARE = TRUE_M * TRUE_M, WORKERS = 7 }; /* more than responses: all help with each */
    const double T = PLAIN_TEMPERATURE;
    Config c = plain_config();
    c.tie_word_embeddings = tied;
    Model m = noisy_model(&c);
    Engine e = engine_new(WORKERS, 1 << 20, 1 << 23);
    size_t n = m.n_grads;
    Group g = true_group(&e);
    float *grads = floats_new(n * TRUE_M), *alone = floats_new(n * TRUE_M);
    float *truth = floats_new(n * TRUE_M);
    double cosine[5 * SQUARE], single[5 * SQUARE];
    free(m.grads);
    e.threads = 1;
    true_gradients(&e, &m, &g, T, alone);
    gradient_cosines(&e, &m, alone, TRUE_M, single);
    e.threads = WORKERS;
    true_gradients(&e, &m, &g, T, grads);
    CHECK(same_bits(alone, grads, n * TRUE_M), "seven threads changed the gradients");
    e.threads = 3;
    static float saved[4096];
    g.saved = (Saved){saved, 0}; /* activations that sampling saved: no pass here may read them */
    g.reads_saved = true;
    true_gradients(&e, &m, &g, T, grads);
    g.saved.row = NULL;
    g.reads_saved = false;
    gradient_cosines(&e, &m, grads, TRUE_M, cosine);
    CHECK(same_bits(alone, grads, n * TRUE_M) && !memcmp(single, cosine, sizeof cosine),
          "threads changed gradients or cosines");
    plain_gradients(&m, &g, truth);
    for (int i = 0; i < TRUE_M; i++) {
        float *own = grads + (size_t)i * n, *exact_one = truth + (size_t)i * n;
        CHECK(relative_error(own, exact_one, n) < 1e-5, "%s: response %d differs by %g",
              tied ? "tied" : "own head", i, relative_error(own, exact_one, n));
    }
    check_true_cosines(&m, truth, cosine);
    check_head_products(&e, &m, &g, T, grads);
    check_gradient_sum(&e, &m, &g, T, grads);
    free(grads);
    free(alone);
    free(truth);
    model_free(&m);
    e.threads = WORKERS;
    engine_free(&e);
}

static void test_true_gradients(void)
{
    check_true_gradients(false);
    check_true_gradients(true);
}

/* ---------------------------------------------------------------- what is measured */

/* Features of sampled groups at another temperature; with `cut`, without the end tokens. */
static Geometry measured(Engine *e, Model *m, Group *g, int n, double temperature, bool cut)
{
    static Options o = {.seed = 1};
    Ruler ruler = {.encoder = EMBED_NGRAM};
    Sampled x = {m, g, &ruler, temperature, NULL, 0};
    o.samples = g->m;
    Geometry out = geometry_new("x", "y", n, &o);
    out.threads = 1;
    x.out = &out;
    for (int k = 0; cut && k < n; k++)
        for (int i = 0, from = 0, to = 0; i < g[k].m; i++) {
            int end = g[k].start[i + 1], length = end - from;
            length -= length > 1 && is_eos(&m->config, g[k].token[end - 1]);
            memmove(g[k].token + to, g[k].token + from, (size_t)length * sizeof(int));
            from = end;
            to = g[k].start[i + 1] = to + length;
            g[k].n_tokens = to;
        }
    engine_each(e, n, measure_group, &x);
    return out;
}

/* The texts of sampled groups are measured by another model: not by what the policy saved. */
static void test_other_ruler(void)
{
    Model m = tiny_model(QWEN3, true, 50), other = tiny_model(QWEN2, true, 50);
    Engine e = nan_engine(1, 16 << 20);
    Ruler ruler = {.encoder = EMBED_REF, .model = &other};
    Group *g = sample_saving(&e, &m, SAVE_OUTPUT);
    double saved[SAVED_M * SAVED_M];
    for (int k = 0; k < SAVED_GROUPS; k++) {
        set_reads_saved(&g[k], 1, true);
        measure_texts(&e.worker[0], &ruler, &g[k]);
        memcpy(saved, g[k].semantic, sizeof saved);
        set_reads_saved(&g[k], 1, false);
        measure_texts(&e.worker[0], &ruler, &g[k]);
        CHECK(!memcmp(saved, g[k].semantic, sizeof saved), "group %d: %g, not %g", k, saved[1],
              g[k].semantic[1]);
        ruler.model = &m;
        measure_texts(&e.worker[0], &ruler, &g[k]);
        CHECK(memcmp(saved, g[k].semantic, sizeof saved), "both models measure the same");
        ruler.model = &other;
    }
    engine_free(&e);
    model_free(&m);
    model_free(&other);
}

/* Does the check's interval of these groups hold 0, as it should? */
static void check_zero_mean(Engine *e, Model *m, Group *g, int n, double temperature,
                            bool cut, bool expected)
{
    Geometry x = measured(e, m, g, n, temperature, cut);
    Estimate sum = zero_mean_check(&x, SUM_FORM);
    CHECK((sum.low <= 0 && sum.high >= 0) == expected, "features at %g%s: %g [%g, %g]", temperature,
          cut ? ", no end tokens" : "", sum.value, sum.low, sum.high);
    CHECK(sum.value > -1.0 / (g->m - 1) && sum.value < 1, "no ratio: %g", sum.value);
    geometry_free(&x);
}

/* On-policy it does; not where features have another temperature, or where the end tokens are
 * missing. A model of six symbols, so that many responses end, and soon. */
static void test_zero_mean_check(void)
{
    enum { GROUPS = 60, M = 8, PROMPT = 6 };
    Config c = *preset_find("nano");
    c.num_hidden_layers = 1;
    c.vocab_size = 6;
    c.n_eos = 1;
    Model m = model_new(&c);
    Engine e = engine_new(3, 1 << 25, 1 << 25);
    Sampling s = {.top_p = 1, .max_tokens = 16, .seed = 3};
    Extent x = {GROUPS, M, PROMPT, s.max_tokens, 1, KEEP_NOTHING, false, SAVE_NOTHING};
    Group *g = groups_new(&e, &m, x);
    model_init(&m, 3);
    rope_reserve(&m, 32);
    for (int k = 0; k < GROUPS; k++) {
        g[k].index = (uint32_t)k;
        g[k].prompt_length = PROMPT;
        tree_tokens(g[k].prompt, PROMPT, c.vocab_size, (uint32_t)k, 0);
    }
    for (int t = 0; t < 2; t++) {
        s.temperature = t ? 1 : 0.7;
        sample_groups(&e, &m, g, GROUPS, &s);
        check_zero_mean(&e, &m, g, GROUPS, s.temperature, false, true);
    }
    check_zero_mean(&e, &m, g, GROUPS, 0.5, false, false);
    check_zero_mean(&e, &m, g, GROUPS, 1, true, false);
    model_free(&m);
    engine_free(&e);
}

/* Every count from features made by hand: the pairs' order, what is distinct, edges of bins. */
static void test_geometry_counts(void)
{
    enum { D = 2 };
    Options o = {.samples = 3, .seed = 1, .temperature = 1};
    Geometry x = geometry_new("x", "y", 2, &o);
    double cosine[] = {1, -0.5, -0.5, 0, 0.25, -1}, square[] = {1, 2, 3, 2, 1, 4, 3, 4, 1}, pair[3];
    float Phi[] = {1, 0, 1, 2, 3, -1};
    double cross, mean;
    int start[] = {0, 1, 3, 7}, token[] = {5, 5, 6, 5, 6, 5, 6};
    Group g = {.m = 3, .Phi = Phi, .start = start, .token = token};
    Buf b = {0};
    x.threads = 1;
    memcpy(x.cosine, cosine, sizeof cosine);
    x.same[0] = true;
    CHECK(all_pairs(&x) == 6 && count_distinct(&x) == 5, "pairs");
    upper_triangle(square, 3, pair);
    CHECK(pair[0] == 2 && pair[1] == 3 && pair[2] == 4, "pairs i < j, row by row");
    CHECK(fabs(pair_mean(&x, x.cosine, 0).value + 0.125) < 1e-12, "mean");
    CHECK(fabs(pair_mean(&x, x.cosine, DISTINCT).value + 0.35) < 1e-12, "of distinct pairs");
    CHECK(fabs(pair_mean(&x, x.cosine, NEGATIVE).value - 0.5) < 1e-12, "negative: 0 is not");
    CHECK(fabs(pair_mean(&x, x.cosine, NEGATIVE | DISTINCT).value - 0.6) < 1e-12, "of distinct");
    CHECK(pair_mean(&x, x.cosine, 0).low == -0.25, "low %g", pair_mean(&x, x.cosine, 0).low);
    put_histogram(&b, "all", x.cosine, NULL, 6, -1, 4);
    put_histogram(&b, "distinct", x.cosine, x.same, 6, -1, 4);
    put_negative_groups(&b, &x);
    CHECK(!strcmp(b.s, ", \"all\": [1, 2, 2, 1], \"distinct\": [1, 2, 2, 0], "
                       "\"histogram/neg_ratio\": "
                       "[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]"), "%s", b.s);
    zero_mean(&g, D, MEAN_FORM, &cross, &mean); /* <Phi_i, Phi_j>: 1, 3, 1; squares 1, 5, 10 */
    CHECK(fabs(cross - 5.0 / 3) < 1e-12 && fabs(mean - 16.0 / 3) < 1e-12, "%g, %g", cross, mean);
    zero_mean(&g, D, SUM_FORM, &cross, &mean); /* lengths 1, 2, 4 */
    CHECK(fabs(cross - 22.0 / 3) < 1e-12 && fabs(mean - 181.0 / 3) < 1e-12, "%g, %g", cross, mean);
    CHECK(!same_response(&g, 0, 1) && !same_response(&g, 1, 2), "a beginning is not the same");
    buf_free(&b);
    geometry_free(&x);
}

/* What is said of the true gradients: of distinct pairs alone, and at most 500 of them, one by
 * one. */
/* Pairs of two right responses, of one, of none; those that differ alone. */
static void test_geometry_rewards(void)
{
    Options o = {.samples = 4, .seed = 1, .temperature = 1};
    Geometry x = geometry_new("x", "y", 1, &o);
    double cosine[] = {1, 0.5, -0.25, 0.5, -0.25, -0.75}, reward[] = {1, 1, 1, -1};
    Group g = {.m = 4, .reward = reward};
    x.threads = 1;
    memcpy(x.cosine, cosine, sizeof cosine);
    x.same[0] = true;
    x.right = xcalloc(6, sizeof *x.right);
    x.pass_1 = 0;
    measure_rewards(&g, &x, 0); /* pairs 01 02 03 12 13 23: 2 2 1 2 1 1 right */
    CHECK(x.pass_1 == 0.75 && x.right[0] == 2 && x.right[2] == 1 && x.right[5] == 1, "rewards");
    CHECK(count_pairs(&x, DISTINCT | BOTH_RIGHT) == 2 && count_pairs(&x, BOTH_RIGHT) == 3 &&
          count_pairs(&x, ONE_RIGHT) == 3 && count_pairs(&x, BOTH_WRONG) == 0, "counts");
    CHECK(pair_mean(&x, x.cosine, DISTINCT | BOTH_RIGHT).value == 0.5, "both right");
    CHECK(fabs(pair_mean(&x, x.cosine, DISTINCT | ONE_RIGHT).value + 1.25 / 3) < 1e-12, "one is");
    CHECK(isnan(pair_mean(&x, x.cosine, BOTH_WRONG).value), "none is there");
    geometry_free(&x);
}

static void test_geometry_truth(void)
{
    enum { GROUPS = 40, EACH = 28, ALL = GROUPS * EACH };
    Options o = {.samples = 8, .seed = 1, .temperature = 1};
    Geometry x = geometry_new("x", "y", GROUPS, &o);
    double ones[ALL], phi[ALL], truth[ALL];
    int rows = 0, n = 0, widest = 0;
    Buf b = {0};
    x.threads = x.parts = 1;
    x.truth = xcalloc(ALL, sizeof(double));
    for (int k = 0; k < ALL; k++) {
        x.same[k] = k % 10 == 9;
        x.cosine[k] = x.same[k] ? 1 : (double)noise(1, (size_t)k);
        x.semantic[k] = k;
        x.truth[k] = x.same[k] ? 1 : x.cosine[k] + (double)noise(2, (size_t)k);
        if (x.same[k])
            continue;
        ones[n] = 1;
        phi[n] = x.cosine[k];
        truth[n++] = x.truth[k];
    }
    put_truth(&b, &x);
    double r = field(strstr(b.s, "pearson/phi"), "mean");
    CHECK(fabs(r - correlation(phi, truth, ones, n)) < 1e-12, "Pearson of distinct pairs: %g", r);
    double s = field(strstr(b.s, "spearman/phi"), "mean");
    CHECK(fabs(s - r) < 0.1 && s != r, "Spearman %g, Pearson %g", s, r);
    CHECK(fabs(field(strstr(b.s, "pearson/semantic"), "mean")) < 0.1, "of what is unrelated");
    b.n = 0;
    put_true_pairs(&b, &x);
    int last = -1;
    for (char *p = b.s; (p = strchr(p, ']')) && p[1] == ','; p++, rows++) {
        char *number = p;
        while (number[-1] != ' ')
            number--;
        int k = atoi(number);
        widest = imax(widest, k - last);
        last = k;
    }
    CHECK(rows + 1 == 500 && widest <= 4 && last > ALL - 9, "%d rows, %d apart, up to %d", rows + 1,
          widest, last);
    buf_free(&b);
    geometry_free(&x);
}

#endif
