/* geometry.h: the command `geometry`: the similarity of a model's responses to one problem: of
 * their gradient features (Eq 9), of their texts, and, with --true-gradients, of the gradients of
 * all parameters.
 *
 * Statistics are over pairs i < j of a group's responses; intervals come from resampling groups,
 * since pairs of one group are not independent. Responses of equal tokens have cosine 1 by any
 * measure, so there are statistics of distinct pairs too. All models have the same problems and
 * random numbers. */
#ifndef GEOMETRY_H
#define GEOMETRY_H

#include "../base/correlation.h"  /* defines: Grouped, group_bootstrap, pearson, spearman */

/* ================================================================ true gradients */

/* The parts of the parameters. A tied matrix is embedding by one use, head by the other. */
enum { ALL_PART, HEAD_PART, EMBEDDING_PART, FIRST_LAYER_PART };

static int gradient_parts(const Config *c) { return FIRST_LAYER_PART + c->num_hidden_layers; }

static void part_name(int part, char name[32])
{
    static const char *const names[] = {"all", "head", "embedding", "layer %d"};
    snprintf(name, 32, names[imin(part, FIRST_LAYER_PART)], part - FIRST_LAYER_PART);
}

/* sum a_k b_k in double, in 16 chains */
static double span_dot(const float *a, const float *b, size_t n)
{
    enum { AT_ONCE = 16 };
    double s[AT_ONCE] = {0}, sum = 0;
    size_t k = 0;
    for (; k + AT_ONCE <= n; k += AT_ONCE)
        for (size_t i = 0; i < AT_ONCE; i++)
            s[i] += (double)a[k + i] * (double)b[k + i];
    for (; k < n; k++)
        s[0] += (double)a[k] * (double)b[k];
    for (int i = 0; i < AT_ONCE; i++)
        sum += s[i];
    return sum;
}

/* <a, b> of two gradients (Model.grads before grads_finish), for each part; dot: [parts]. As a part
 * of all, a tied matrix's gradient is the sum over both uses: <e + h, e' + h'>. */
static void part_dots(const Model *m, const float *a, const float *b, double *dot)
{
    const Config *c = &m->config;
    const Tensor *t = m->tensors;
    int L = c->num_hidden_layers;
    size_t matrix_size = t[EMBED].size, head = t[lm_head(c)].offset;
    size_t norm = t[final_norm(c)].offset, norm_size = t[final_norm(c)].size;
    dot[HEAD_PART] = span_dot(a + head, b + head, matrix_size);
    dot[EMBEDDING_PART] = span_dot(a, b, matrix_size);
    dot[ALL_PART] = dot[HEAD_PART] + dot[EMBEDDING_PART] + span_dot(a + norm, b + norm, norm_size);
    for (int l = 0; l < L; l++) {
        size_t first = t[layer_tensor(l, 0)].offset, end = t[layer_tensor(l + 1, 0)].offset;
        dot[FIRST_LAYER_PART + l] = span_dot(a + first, b + first, end - first);
        dot[ALL_PART] += dot[FIRST_LAYER_PART + l];
    }
    if (c->tie_word_embeddings)
        dot[ALL_PART] += span_dot(a, b + head, matrix_size) + span_dot(a + head, b, matrix_size);
}

/* The responses of a group, and room for their gradients. */
typedef struct {
    Engine *e;
    const Model *m;
    const Group *g;
    double temperature;
    float *grads; /* [m, n_grads] */
} Responses;

/* Forward over response i alone, for the gradient of sum_t log p(y_t): all coefficients are 1. */
static Pass response_forward(Arena *a, const Responses *x, int i)
{
    int length = response_length(x->g, i), start[2] = {0, length};
    Group one = *x->g;
    one.m = 1;
    one.n_tokens = length;
    one.token = x->g->token + x->g->start[i];
    one.start = start;
    one.reads_saved = false;
    Batch b = pack_groups(a, &one, 1);
    float *coef = arena_floats(a, length);
    for (int t = 0; t < length; t++)
        coef[t] = 1;
    Pass p = forward(a, x->m, &b, KEEP_ALL);
    forward_head(a, x->m, &p, (float)x->temperature, true, NULL);
    p.coef.logprob = coef;
    return p;
}

/* The gradient of response i, by one thread; by all, where responses come one at a time. */
static void response_gradient(Arena *a, int i, void *context)
{
    const Responses *x = context;
    Engine alone = {.threads = 1, .worker = a};
    Model own = *x->m;
    own.grads = x->grads + (size_t)i * own.n_grads;
    Pass p = response_forward(a, x, i);
    backward(a->threads > 1 ? x->e : &alone, &own, &p, 1);
}

/* G_i = d/dtheta sum_t log p(y_t) for each response of a group, at this temperature, as Model.grads
 * holds it before grads_finish.   grads: [m, n_grads] */
static void true_gradients(Engine *e, const Model *m, const Group *g, double temperature,
                           float *grads)
{
    Responses x = {e, m, g, temperature, grads};
    memset(grads, 0, (size_t)g->m * m->n_grads * sizeof(float));
    engine_each(e, g->m, response_gradient, &x);
}

/* cosine[part][i][j] of G_i and G_j; 0 where one vanishes.   cosine: [parts, m, m] */
static void gradient_cosines(Engine *e, const Model *m, const float *grads, int n, double *cosine)
{
    int parts = gradient_parts(&m->config), square = n * n;
    double *dot = xcalloc(square * parts, sizeof *dot);
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int k = 0; k < square; k++)
        if (k % n <= k / n)
            part_dots(m, grads + (size_t)(k / n) * m->n_grads, grads + (size_t)(k % n) * m->n_grads,
                      dot + (ptrdiff_t)k * parts);
    for (int part = 0; part < parts; part++)
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                double ij = dot[(i * n + j) * parts + part], ii = dot[(i * n + i) * parts + part];
                double jj = dot[(j * n + j) * parts + part];
                bool vanishes = sqrt(ii) < 1e-12 || sqrt(jj) < 1e-12;
                double *to = cosine + (ptrdiff_t)part * square;
                to[i * n + j] = to[j * n + i] = vanishes ? 0 : ij / sqrt(ii * jj);
            }
    free(dot);
}

/* ================================================================ measurements */

/* The encoder of texts, for all models: the first model named, or n-grams. */
typedef struct {
    Embedding encoder;
    const Model *model; /* NULL: n-grams */
    Tokenizer tokenizer;
} Ruler;

static const char *const ENCODER_NAMES[] = {"ref", "ngram"}; /* by Embedding */

enum { SUM_FORM, MEAN_FORM, FORMS };

/* The measurements of one model. Pair k belongs to group k / pairs. */
typedef struct {
    const char *name, *model;
    int groups, samples, pairs; /* pairs of one group: samples (samples - 1) / 2 */
    bool *same;                 /* [groups * pairs] equal tokens */
    int *right;                 /* [groups * pairs] how many of the two are right; or NULL */
    double pass_1;              /* the share of right responses; NAN if none is judged */
    double *cosine, *semantic;  /* [groups * pairs] Eq 9, and of the texts */
    double *cross[FORMS], *square[FORMS]; /* [groups] mean <Phi_i, Phi_j>, i != j; mean |Phi|^2 */
    int parts;
    double *truth;              /* [parts, groups * pairs] of the true gradients; or NULL */
    const Options *o;
    int threads;
} Geometry;

/* The temperature of features and true gradients. */
static double feature_temperature(const Options *o)
{
    return o->feature_temperature > 0 ? o->feature_temperature : o->temperature;
}

static int all_pairs(const Geometry *x) { return x->groups * x->pairs; }

static Geometry geometry_new(const char *name, const char *model, int groups, const Options *o)
{
    int m = o->samples, pairs = m * (m - 1) / 2;
    size_t all = (size_t)groups * pairs;
    if (all > INT_MAX)
        usage("--problems %d and --samples %d: %zu pairs; expected at most %d", groups, m, all,
              INT_MAX);
    double *x = xcalloc(2 * all + 2 * FORMS * groups, sizeof *x), *form = x + 2 * all;
    return (Geometry){.name = xstrdup(name), .model = xstrdup(model), .groups = groups,
                      .samples = m, .pairs = pairs, .o = o, .pass_1 = (double)NAN,
                      .same = xcalloc(all, sizeof(bool)), .cosine = x, .semantic = x + all,
                      .cross = {form, form + groups},
                      .square = {form + 2 * groups, form + 3 * groups}};
}

static void geometry_free(Geometry *x)
{
    free((char *)x->name);
    free((char *)x->model);
    free(x->same);
    free(x->right);
    free(x->cosine); /* and all that follow it */
    free(x->truth);
}

/* The entries i < j of a symmetric matrix, row by row.   pair: [m (m - 1) / 2] */
static void upper_triangle(const double *matrix, int m, double *pair)
{
    for (int i = 0; i < m; i++)
        for (int j = i + 1; j < m; j++)
            *pair++ = matrix[i * m + j];
}

/* The zero-mean check: on-policy, E[sum_t phi_t] = 0, so <Phi_i, Phi_j> of two responses has mean
 * 0; here of one group, by  sum_{i != j} <Phi_i, Phi_j> = |sum_i Phi_i|^2 - sum_i |Phi_i|^2.
 * In the sum form Phi = sum_t phi_t; the mean form is Eq 8. */
static void zero_mean(const Group *g, int d, int form, double *cross, double *square)
{
    double total = 0, squares = 0;
    for (int k = 0; k < d; k++) {
        double sum = 0;
        for (int i = 0; i < g->m; i++) {
            double length = form == SUM_FORM ? response_length(g, i) : 1;
            double x = length * (double)g->Phi[(ptrdiff_t)i * d + k];
            sum += x;
            squares += x * x;
        }
        total += sum * sum;
    }
    *cross = (total - squares) / ((double)g->m * (g->m - 1));
    *square = squares / g->m;
}

/* A few groups of a model, measured into rows `first`, first + 1, ... of `out`. */
typedef struct {
    Model *m;
    Group *groups;
    const Ruler *ruler;
    double features; /* their temperature */
    Geometry *out;
    int first;
} Sampled;

/* The cosines of a group's texts: g->semantic. */
static void measure_texts(Arena *a, const Ruler *ruler, Group *g)
{
    if (ruler->model) {
        g->reads_saved = false;
        Batch b = pack_groups(a, g, 1);
        g->hidden_ref = forward(a, ruler->model, &b, KEEP_NOTHING).hidden;
    }
    semantic_similarity(a, g, ruler->encoder, ruler->model ? ruler->model->config.hidden_size : 0);
    g->hidden_ref = NULL;
}

/* One group: features and texts. */
static void measure_group(Arena *a, int index, void *context)
{
    const Sampled *x = context;
    Geometry *out = x->out;
    Group *g = &x->groups[index];
    int d = x->m->config.hidden_size, row = x->first + index, m = g->m, at_pair = row * out->pairs;
    const MethodOptions plain = {.method = GRPO};
    Learner l = {.policy = x->m, .temperature = x->features, .method = &plain};
    forward_groups(a, &l, g, 1, KEEP_NOTHING);
    group_features(g, d);
    upper_triangle(g->S, m, out->cosine + at_pair);
    measure_texts(a, x->ruler, g);
    upper_triangle(g->semantic, m, out->semantic + at_pair);
    bool *same = out->same + at_pair;
    for (int i = 0; i < m; i++)
        for (int j = i + 1; j < m; j++)
            *same++ = same_response(g, i, j);
    for (int f = 0; f < FORMS; f++)
        zero_mean(g, d, f, &out->cross[f][row], &out->square[f][row]);
}

/* The cosines of the true gradients' part: [groups * pairs]. */
static double *truth_of(const Geometry *x, int part)
{
    return x->truth + (ptrdiff_t)part * all_pairs(x);
}

/* One group: the cosines of true gradients.   grads: [m, n_grads] */
static void measure_truth(Engine *e, const Model *m, const Group *g, double temperature,
                          float *grads, Geometry *out, int row)
{
    int square = g->m * g->m;
    double *cosine = xcalloc(out->parts * square, sizeof *cosine);
    true_gradients(e, m, g, temperature, grads);
    gradient_cosines(e, m, grads, g->m, cosine);
    for (int part = 0; part < out->parts; part++)
        upper_triangle(cosine + part * square, g->m, truth_of(out, part) + row * out->pairs);
    free(cosine);
}

/* One judged group: how many responses of each pair are right. */
static void measure_rewards(const Group *g, Geometry *out, int row)
{
    int *pair = out->right + row * out->pairs;
    for (int i = 0; i < g->m; i++)
        for (int j = i + 1; j < g->m; j++)
            *pair++ = is_right(g->reward[i]) + is_right(g->reward[j]);
    out->pass_1 += (double)count_right(g) / g->m / out->groups;
}

/* Room for all gradients of a group; dies with a hint where memory is short. [samples, n_grads] */
static float *gradients_new(const Model *m, int samples)
{
    double bytes = (double)sizeof(float) * samples * (double)m->n_grads, MiB = 1 << 20;
    double has = memory_available();
    if (bytes > has)
        die("--true-gradients: %d gradients of %zu numbers need %.0f MiB and there are %.0f MiB; "
            "try fewer --samples", samples, m->n_grads, bytes / MiB, has / MiB);
    return floats_new((size_t)samples * m->n_grads);
}

/* The engine of one model, for sampling, both models' forward passes, and true gradients. */
static Engine geometry_engine(const Session *s, const Problems *p, const Ruler *ruler)
{
    const Model *m = &s->model;
    Extent x = eval_extent(p, s->o.samples, s->o.max_tokens), one = x;
    one.m = 1;
    one.keep = KEEP_ALL;
    size_t bytes = worker_bytes(m, x), more = ruler->model ? groups_pass_bytes(ruler->model, x) : 0;
    size_t back = s->o.true_gradients ? groups_pass_bytes(m, one) : 0;
    bytes = (bytes > back ? bytes : back) + more;
    return engine_new(s->engine.threads, groups_bytes(m, x), bytes);
}

/* Samples and measures every problem; the rewards too if `judged`. */
static void measure(Session *s, Problems *p, const Ruler *ruler, bool judged, Geometry *out)
{
    const Options *o = &s->o;
    Engine *e = &s->engine;
    Model *m = &s->model;
    Extent x = eval_extent(p, o->samples, o->max_tokens);
    Progress report = progress_new(out->name, out->groups);
    float *grads = o->true_gradients ? gradients_new(m, o->samples) : NULL;
    int at_once = x.groups;
    if (grads) {
        out->parts = gradient_parts(&m->config);
        out->truth = xcalloc((size_t)out->parts * all_pairs(out), sizeof(double));
    }
    if (judged) {
        out->right = xcalloc(all_pairs(out), sizeof *out->right);
        out->pass_1 = 0;
    }
    for (int i = 0; i < out->groups; i += x.groups) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, out->groups - i);
        Group *g = sample_problems(s, p, x, i);
        Sampled sampled = {m, g, ruler, feature_temperature(o), out, i};
        engine_each(e, x.groups, measure_group, &sampled);
        if (judged)
            verify_groups(g, x.groups, &p->judge, &s->tokenizer);
        for (int k = 0; k < x.groups && judged; k++)
            measure_rewards(&g[k], out, i + k);
        for (int k = 0; grads && k < x.groups; k++)
            measure_truth(e, m, &g[k], feature_temperature(o), grads, out, i + k);
        e->arena.used = mark;
        progress(&report, i + x.groups, "problems");
    }
    free(grads);
}

/* ================================================================ statistics */

/* Flags that choose pairs: distinct ones; two right responses, one, none. NEGATIVE: the share below
 * 0 instead of the mean. */
enum { DISTINCT = 1, NEGATIVE = 2, BOTH_RIGHT = 4, ONE_RIGHT = 8, BOTH_WRONG = 16 };

static bool pair_counts(const Geometry *x, int k, int which)
{
    static const int by_right[] = {BOTH_WRONG, ONE_RIGHT, BOTH_RIGHT};
    int rewards = which & (BOTH_RIGHT | ONE_RIGHT | BOTH_WRONG);
    return !(which & DISTINCT && x->same[k]) && (!rewards || rewards & by_right[x->right[k]]);
}

static int count_pairs(const Geometry *x, int which)
{
    int n = 0;
    for (int k = 0; k < all_pairs(x); k++)
        n += pair_counts(x, k, which);
    return n;
}

static int count_distinct(const Geometry *x) { return count_pairs(x, DISTINCT); }

static Grouped over_pairs(const Geometry *x, int which, const double *first, const double *second)
{
    int all = all_pairs(x);
    Grouped g = {.groups = x->groups, .group = xcalloc(all, sizeof(int)),
                 .x = xcalloc(all, sizeof(double)),
                 .y = second ? xcalloc(all, sizeof(double)) : NULL};
    for (int k = 0; k < all; k++) {
        if (!pair_counts(x, k, which))
            continue;
        g.group[g.n] = k / x->pairs;
        g.x[g.n] = first[k];
        if (second)
            g.y[g.n] = second[k];
        g.n++;
    }
    return g;
}

/* The mean of a cosine over the pairs of `which`, or the share of negative ones. */
static Estimate pair_mean(const Geometry *x, const double *cosine, int which)
{
    Grouped g = over_pairs(x, which, cosine, NULL);
    for (int k = 0; k < g.n && which & NEGATIVE; k++)
        g.x[k] = g.x[k] < 0;
    Estimate e = group_bootstrap(&g, mean_ratio, x->o->seed, x->threads);
    grouped_free(&g);
    return e;
}

static Estimate pair_correlation(const Geometry *x, bool distinct, const double *predictor,
                                 const double *truth, Measure *f)
{
    Grouped g = over_pairs(x, distinct, predictor, truth);
    if (f == spearman) {
        g.x_order = order_of(g.x, g.n);
        g.y_order = order_of(g.y, g.n);
    }
    Estimate e = group_bootstrap(&g, f, x->o->seed, x->threads);
    grouped_free(&g);
    return e;
}

/* The mean of <Phi_i, Phi_j> over pairs i != j, as a share of the mean of |Phi|^2. */
static Estimate zero_mean_check(const Geometry *x, int form)
{
    Grouped g = {.n = x->groups, .groups = x->groups, .group = xcalloc(x->groups, sizeof(int)),
                 .x = x->cross[form], .y = x->square[form]};
    for (int k = 0; k < g.n; k++)
        g.group[k] = k;
    Estimate e = group_bootstrap(&g, mean_ratio, x->o->seed, x->threads);
    free(g.group);
    return e;
}

/* Counts of x in equal bins from `low` to 1, without the entries of `without` (NULL: none). Within
 * rounding of an edge, an entry goes to the bin above. */
static void put_histogram(Buf *b, const char *name, const double *x, const bool *without, int n,
                          double low, int bins)
{
    double count[64] = {0};
    for (int k = 0; k < n; k++)
        if (!without || !without[k])
            count[imax(0, imin(bins - 1, floor((x[k] - low) / (1 - low) * bins + 1e-9)))]++;
    put_vector(b, name, count, bins);
}

static void put_interval(Buf *b, const char *name, Estimate e)
{
    buf_printf(b, ", \"%s\": {\"mean\": ", name);
    json_put_number(b, e.value);
    put_vector(b, "interval", (double[]){e.low, e.high}, 2);
    buf_str(b, "}");
}

/* The share of negative pairs of each group, as a histogram. */
static void put_negative_groups(Buf *b, const Geometry *x)
{
    double *share = xcalloc(x->groups, sizeof *share);
    for (int k = 0; k < all_pairs(x); k++)
        share[k / x->pairs] += x->cosine[k] < 0;
    for (int i = 0; i < x->groups; i++)
        share[i] /= x->pairs;
    put_histogram(b, "histogram/neg_ratio", share, NULL, x->groups, 0, 20);
    free(share);
}

/* {"all": {"pearson/phi": .., ..}, "head": .., ..} over distinct pairs */
static void put_truth(Buf *b, const Geometry *x)
{
    static const char *const names[] = {"pearson/phi", "spearman/phi", "pearson/semantic",
                                        "spearman/semantic"};
    const double *predictor[] = {x->cosine, x->cosine, x->semantic, x->semantic};
    buf_str(b, ", \"true\": {");
    for (int part = 0; part < x->parts; part++) {
        const double *truth = truth_of(x, part);
        char name[32];
        Buf one = {0};
        part_name(part, name);
        for (int i = 0; i < 4; i++)
            put_interval(&one, names[i], pair_correlation(x, true, predictor[i], truth,
                                                          i % 2 ? spearman : pearson));
        put_interval(&one, "cos", pair_mean(x, truth, DISTINCT));
        buf_printf(b, "%s\"%s\": {", part ? ", " : "", name);
        buf_str(b, one.s + 2);
        buf_str(b, "}");
        buf_free(&one);
    }
    buf_str(b, "}");
}

/* [cosine of Phi, of true gradients, of texts] of up to 500 distinct pairs, evenly spaced. */
static void put_true_pairs(Buf *b, const Geometry *x)
{
    enum { MOST = 500 };
    int n = count_distinct(x), rows = 0, seen = 0;
    double row[MOST][3];
    for (int k = 0; k < all_pairs(x); k++)
        if (!x->same[k] && (int64_t)rows * n <= (int64_t)seen++ * MOST) {
            double one[] = {x->cosine[k], x->truth[k], x->semantic[k]};
            memcpy(row[rows++], one, sizeof one);
        }
    put_matrix(b, "true_pairs", row[0], rows, 3);
}

static void geometry_json(const Geometry *x)
{
    const Options *o = x->o;
    const char *encoder = ENCODER_NAMES[o->rl.encoder];
    int n = all_pairs(x), distinct = count_distinct(x);
    Buf b = {0};
    put_text(&b, "name", x->name, strlen(x->name));
    put_text(&b, "model", x->model, strlen(x->model));
    put(&b, "temperature", o->temperature);
    put(&b, "feature_temperature", feature_temperature(o));
    put_text(&b, "encoder", encoder, strlen(encoder));
    put(&b, "groups", x->groups);
    put(&b, "samples", x->samples);
    put(&b, "pairs", n);
    put(&b, "distinct_pairs", distinct);
    put(&b, "identical", (double)(n - distinct) / n);
    put_interval(&b, "cos", pair_mean(x, x->cosine, 0));
    put_interval(&b, "cos_distinct", pair_mean(x, x->cosine, DISTINCT));
    put_interval(&b, "neg_ratio", pair_mean(x, x->cosine, NEGATIVE));
    put_interval(&b, "neg_ratio_distinct", pair_mean(x, x->cosine, NEGATIVE | DISTINCT));
    if (x->right) {
        put(&b, "pass@1", x->pass_1);
        put_interval(&b, "cos_both_right", pair_mean(x, x->cosine, DISTINCT | BOTH_RIGHT));
        put_interval(&b, "cos_one_right", pair_mean(x, x->cosine, DISTINCT | ONE_RIGHT));
        put_interval(&b, "cos_both_wrong", pair_mean(x, x->cosine, DISTINCT | BOTH_WRONG));
    }
    put_interval(&b, "semantic", pair_mean(x, x->semantic, 0));
    put_interval(&b, "semantic_distinct", pair_mean(x, x->semantic, DISTINCT));
    put_interval(&b, "zero_mean/sum", zero_mean_check(x, SUM_FORM));
    put_interval(&b, "zero_mean/mean", zero_mean_check(x, MEAN_FORM));
    put_histogram(&b, "histogram/cos", x->cosine, NULL, n, -1, 40);
    put_histogram(&b, "histogram/cos_distinct", x->cosine, x->same, n, -1, 40);
    put_histogram(&b, "histogram/semantic", x->semantic, NULL, n, -1, 40);
    put_histogram(&b, "histogram/semantic_distinct", x->semantic, x->same, n, -1, 40);
    put_negative_groups(&b, x);
    if (x->truth) {
        put_truth(&b, x);
        put_true_pairs(&b, x);
    }
    printf("{%s}\n", b.s + 2);
    buf_free(&b);
}

/* "mean [low, high]" in 24 columns, after `before` */
static void print_estimate(const char *before, Estimate e, double scale, int digits)
{
    fputs(before, stdout);
    if (isnan(e.value))
        printf("%7s%17s", "-", "");
    else
        printf("%7.*f [%6.*f, %6.*f]", digits, scale * e.value, digits, scale * e.low, digits,
               scale * e.high);
}

/* Rows of each model for all pairs, for distinct ones and, if judged, for kinds of these. */
static void print_pairs(const Geometry *all, int n)
{
    static const struct {
        const char *name;
        int which;
    } rows[] = {{"", 0}, {"  distinct", DISTINCT}, {"    both right", DISTINCT | BOTH_RIGHT},
                {"    one right", DISTINCT | ONE_RIGHT}, {"    both wrong", DISTINCT | BOTH_WRONG}};
    printf("%-18s %7s  %-26s%-26s%s\n", "", "pairs", "gradient cosine (Phi)",
           "negative, percent", "semantic cosine");
    for (const Geometry *x = all; x < all + n; x++)
        for (int i = 0; i < (x->right ? 5 : 2); i++) {
            int which = rows[i].which;
            printf("%-18s %7d", i ? rows[i].name : x->name, count_pairs(x, which));
            print_estimate("", pair_mean(x, x->cosine, which), 1, 3);
            print_estimate("  ", pair_mean(x, x->cosine, which | NEGATIVE), 100, 1);
            print_estimate("  ", pair_mean(x, x->semantic, which), 1, 3);
            putchar('\n');
        }
}

static void print_zero_mean(const Geometry *all, int n)
{
    printf("\n%-28s%-26s%s\n", "zero-mean check", "sum of phi_t", "mean of phi_t");
    for (const Geometry *x = all; x < all + n; x++) {
        printf("%-26s", x->name);
        print_estimate("", zero_mean_check(x, SUM_FORM), 1, 4);
        print_estimate("  ", zero_mean_check(x, MEAN_FORM), 1, 4);
        putchar('\n');
    }
}

/* A row: correlations of the cosines of features and of texts with those of true gradients. */
static void print_prediction(const Geometry *x, const char *name, int part, bool distinct)
{
    const double *truth = truth_of(x, part), *predictor[2] = {x->cosine, x->semantic};
    printf("%-26s", name);
    for (int i = 0; i < 2; i++) {
        print_estimate("", pair_correlation(x, distinct, predictor[i], truth, pearson), 1, 3);
        printf(" %8.3f   ", pair_correlation(x, distinct, predictor[i], truth, spearman).value);
    }
    printf("%7.3f\n", pair_mean(x, truth, distinct).value);
}

static void print_truth(const Geometry *all, int n)
{
    printf("\n%-28s%-36s%-36s%s\n%-26s%24s %8s   %24s %8s   %7s\n", "true gradients",
           "predicted by Phi", "predicted by texts", "mean", "", "Pearson", "Spearman", "Pearson",
           "Spearman", "cosine");
    for (const Geometry *x = all; x < all + n; x++)
        for (int part = 0; part < x->parts; part++) {
            char name[32], row[128];
            part_name(part, name);
            snprintf(row, sizeof row, "%s %s", part ? " " : x->name, name);
            print_prediction(x, row, part, true);
            if (part == ALL_PART && count_distinct(x) < all_pairs(x))
                print_prediction(x, "  all, identical pairs too", part, false);
        }
}

/* A key to the tables. */
static void print_key(const Geometry *x)
{
    printf("\nPairs: of responses to one problem; distinct: their tokens differ. Gradient cosine: "
           "S of Eq 9;\nnegative: the share of pairs where it is below 0. In brackets: 95 %% "
           "intervals over problems.\n"
           "Zero-mean check: mean <Phi_i, Phi_j> of two responses, over mean |Phi|^2. For the sum "
           "it is 0\nin expectation, if both temperatures are equal. An interval without 0 is then "
           "chance once in about\n20 times, else an error: does it stay with more --problems? For "
           "the mean over tokens it need not be 0.\n");
    if (x->truth)
        printf("True gradients: of a response's log-prob by all parameters, or by a part of them. "
               "Over distinct\npairs: identical ones have cosine 1 by any measure, and make every "
               "prediction look better.\n");
}

static void print_geometry(const Geometry *all, int n)
{
    const Options *o = all->o;
    bool reference = o->rl.encoder == EMBED_REF;
    printf("%d problems, %d responses to each. Temperatures: sampling %g, features %g. Encoder: %s"
           "%s%s.\n\n", all->groups, all->samples, o->temperature, feature_temperature(o),
           ENCODER_NAMES[o->rl.encoder], reference ? ", " : "", reference ? all->name : "");
    print_pairs(all, n);
    print_zero_mean(all, n);
    if (all->truth)
        print_truth(all, n);
    print_key(all);
}

/* ================================================================ the command */

static bool same_vocabulary(const Tokenizer *a, const Tokenizer *b)
{
    bool same = a->n_vocab == b->n_vocab;
    for (int i = 0; same && i < a->n_vocab; i++)
        same = a->token[i].length == b->token[i].length &&
               !memcmp(a->bytes.s + a->token[i].at, b->bytes.s + b->token[i].at,
                       a->token[i].length);
    return same;
}

/* Keeps the first model if it is the encoder, and frees any other. */
static void keep_or_free(Session *s, Ruler *ruler, Model *kept)
{
    if (ruler->model == &s->model) {
        *kept = s->model;
        ruler->model = kept;
        ruler->tokenizer = s->tokenizer;
        s->model = (Model){0};
        s->tokenizer = (Tokenizer){0};
    }
    model_free(&s->model);
    tokenizer_free(&s->tokenizer);
}

/* Can responses be judged: by a command, or since every problem has an answer? */
static bool geometry_judged(const Problems *p)
{
    for (int i = 0; i < p->n && !p->judge.command; i++)
        if (!*p->problem[i].answer)
            return false;
    return true;
}

/* Measures models, --model or words NAME=DIR: each a row of every table. */
static void cmd_geometry(Session *s)
{
    const Options *o = &s->o;
    int n = session_models(s, "geometry");
    Ruler ruler = {.encoder = o->rl.encoder};
    Model kept = {0};
    Problems p = session_prompts(s, o->data, o->split, o->verifier != VERIFY_AUTO);
    bool judged = geometry_judged(&p);
    if (!o->data)
        p.wanted = o->problems;
    else if (judged)
        problems_check_gold(&p, false);
    session_fit(s, &p, n);
    Geometry *all = xcalloc(n, sizeof *all);
    for (int i = 0; i < n; i++) {
        char name[64];
        const char *dir = session_named(s, i, name);
        session_sampler(s, dir);
        rope_reserve(&s->model, p.longest + o->max_tokens);
        if (ruler.encoder == EMBED_REF && i == 0)
            ruler.model = &s->model;
        if (ruler.model && i > 0 && !same_vocabulary(&ruler.tokenizer, &s->tokenizer))
            die("%s: has other tokens than the first model, which cannot read its responses; "
                "expected one tokenizer, or --encoder ngram", s->tokenizer_path.s);
        s->engine = geometry_engine(s, &p, &ruler);
        all[i] = geometry_new(name, dir, imin(p.n, o->problems), o);
        all[i].threads = s->engine.threads;
        measure(s, &p, &ruler, judged, &all[i]);
        engine_free(&s->engine);
        keep_or_free(s, &ruler, &kept);
        if (o->json) {
            geometry_json(&all[i]);
            fflush(stdout);
        }
    }
    if (!o->json)
        print_geometry(all, n);
    for (int i = 0; i < n; i++)
        geometry_free(&all[i]);
    free(all);
    model_free(&kept);
    tokenizer_free(&ruler.tokenizer);
    problems_free(&p);
}

#endif
