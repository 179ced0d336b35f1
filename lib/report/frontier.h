/* frontier.h: how much more of a measure a method has than another at the same pass@1.
 *
 *   frontier_at            a path's measure where it first reaches a pass@1
 *   frontier_difference    of two paths
 *   frontier               of pairs of paths, one a seed: the mean with its two intervals
 *   frontier_measure, arm_frontier        the same of runs
 *
 * Training moves a model along a path: a point for every evaluation, the base model's first, with
 * pass@1 to the right (x) and a measure of variety upward (y). At the end of training two methods
 * stand at different pass@1, where their y cannot be compared. So y becomes a function of x: y(v)
 * lies on the line between the two points where the path FIRST reaches v; a path that turns back
 * later counts no second time. The difference of two paths a and b of one seed is the mean
 *
 *     D = 1/20 sum_j [ y_a(v_j) - y_b(v_j) ],    v_j = x_0 + j/19 (X - x_0),    j = 0 .. 19,
 *
 * from the base's x_0 to X = min(max x_a, max x_b), which both paths reach: nothing is
 * extrapolated. A seed with X - x_0 < 0.03 has hardly a range to compare on; it counts as missing.
 *
 * Intervals, both of 95 %: Student's t over seeds, and one from 1,000 bootstrap samples of the
 * problems inside each seed, the same problems for both paths, which are walked again from their
 * x_0 to their X. A seed whose range vanishes in a sample is left out of that sample. */
#ifndef FRONTIER_H
#define FRONTIER_H

#include "runs.h" /* defines: Runs, Arm, estimate, problem_value; stats.h: mean_interval */

enum { FRONTIER_POINTS = 20 };
static const double FRONTIER_RANGE = 0.03, FRONTIER_FULL = 0.95, ROUNDING = 1e-9;

typedef struct {
    const double *x, *y; /* [n] in the order of training, the base model first */
    int n;
} FrontierPath;

/* The two paths of a seed, and what they are means of: for each problem x and y of a, then x and y
 * of b, as each [problems][2 (a.n + b.n)]; NULL: unknown. `class` is that of `bootstrap`. */
typedef struct {
    FrontierPath a, b;
    double *each;
    const int *class;
    int problems;
    uint64_t seed;
} FrontierPair;

typedef struct {
    Estimate over_seeds, over_problems; /* of one value; no interval: its bounds are NaN */
    double p;                           /* of a t test over seeds that it is 0; NaN: one seed */
    int seeds, missing;
} Frontier;

/* ================================================================ paths in, an estimate out */

/* y where the path first reaches v, for v from its first x to its largest. */
static inline double frontier_at(const FrontierPath *p, double v)
{
    int i = 0;
    while (p->x[i] < v)
        i++;
    if (i == 0)
        return p->y[0];
    double share = (v - p->x[i - 1]) / (p->x[i] - p->x[i - 1]);
    return p->y[i - 1] + share * (p->y[i] - p->y[i - 1]);
}

/* x_0: the base's pass@1, which both paths begin with. If they do not, the larger of the two. */
static inline double frontier_begin(const FrontierPair *p) { return fmax(p->a.x[0], p->b.x[0]); }

static inline double path_best(const FrontierPath *p)
{
    double best = p->x[0];
    for (int i = 1; i < p->n; i++)
        best = fmax(best, p->x[i]);
    return best;
}

/* X: the largest pass@1 that both paths reach. */
static inline double frontier_end(const FrontierPair *p)
{
    return fmin(path_best(&p->a), path_best(&p->b));
}

static inline bool frontier_missing(const FrontierPair *p)
{
    return !(frontier_end(p) - frontier_begin(p) >= FRONTIER_RANGE - ROUNDING);
}

/* D; NaN if the paths have no range in common. */
static inline double frontier_difference(const FrontierPair *p)
{
    double begin = frontier_begin(p), end = frontier_end(p), sum = 0;
    if (!(end > begin))
        return NO_NUMBER;
    for (int j = 0; j < FRONTIER_POINTS; j++) {
        double t = (double)j / (FRONTIER_POINTS - 1), v = fmin(begin + t * (end - begin), end);
        sum += frontier_at(&p->a, v) - frontier_at(&p->b, v);
    }
    return sum / FRONTIER_POINTS;
}

/* For each class of equal problems the sums of `each` over its rows, then how many rows those are:
 * sum [classes][width]. */
typedef struct {
    double *sum;
    int classes;
    ptrdiff_t width;
} ClassSums;

static inline ClassSums class_sums(const FrontierPair *p)
{
    ptrdiff_t w = 2 * (p->a.n + p->b.n);
    int *place = xcalloc(p->problems, sizeof *place);
    ClassSums c = {.sum = xcalloc(p->problems * (w + 1), sizeof(double)), .width = w + 1};
    for (int i = 0; i < p->problems; i++) {
        int first = p->class ? p->class[i] : i;
        if (first == i)
            place[i] = c.classes++;
        double *to = c.sum + place[first] * c.width;
        for (int k = 0; k < w; k++)
            to[k] += p->each[i * w + k];
        to[w]++;
    }
    free(place);
    return c;
}

/* D of sample r: both paths again, from as many classes as there are, drawn as in `bootstrap`.
 * mean [width] is for working in. */
static inline double frontier_resample(const FrontierPair *p, const ClassSums *c, int r,
                                       double *mean)
{
    ptrdiff_t rows = c->width - 1;
    int a = p->a.n, b = p->b.n;
    memset(mean, 0, c->width * sizeof *mean);
    for (int i = 0; i < c->classes; i++) {
        uint32_t drawn = below(philox(p->seed, STREAM_BOOTSTRAP, (uint32_t)r, (uint32_t)i, 0, 0),
                               (uint32_t)c->classes);
        const double *sum = c->sum + drawn * c->width;
        for (int k = 0; k < c->width; k++)
            mean[k] += sum[k];
    }
    for (int k = 0; k < rows; k++)
        mean[k] /= mean[rows];
    FrontierPair again = {.a = {mean, mean + a, a},
                          .b = {mean + 2 * a, mean + 2 * a + b, b}};
    return frontier_difference(&again);
}

/* The bounds over problems of the mean D of those of n seeds that are not missing. */
static inline Estimate frontier_problems(const FrontierPair *pair, int n, double value)
{
    enum { RESAMPLES = 1000 };
    double sum[RESAMPLES] = {0};
    int seeds[RESAMPLES] = {0}, found = 0;
    for (int i = 0; i < n; i++) {
        if (frontier_missing(&pair[i]))
            continue;
        if (!pair[i].each)
            return point_estimate(value);
        ClassSums c = class_sums(&pair[i]);
        double *mean = xmalloc(c.width * sizeof *mean);
        for (int r = 0; r < RESAMPLES; r++) {
            double d = frontier_resample(&pair[i], &c, r, mean);
            sum[r] += isfinite(d) ? d : 0;
            seeds[r] += isfinite(d);
        }
        free(mean);
        free(c.sum);
    }
    for (int r = 0; r < RESAMPLES; r++)
        if (seeds[r])
            sum[found++] = sum[r] / seeds[r];
    if (!found)
        return point_estimate(value);
    qsort(sum, found, sizeof *sum, by_value);
    return (Estimate){value, sum[found / 40], sum[found - 1 - found / 40]};
}

/* The mean D over n seeds, without those that are missing. */
static inline Frontier frontier(const FrontierPair *pair, int n)
{
    double *d = xcalloc(n, sizeof *d);
    Frontier f = {point_estimate(NO_NUMBER), point_estimate(NO_NUMBER), NO_NUMBER, 0, 0};
    for (int i = 0; i < n; i++)
        if (frontier_missing(&pair[i]))
            f.missing++;
        else
            d[f.seeds++] = frontier_difference(&pair[i]);
    if (f.seeds) {
        f.over_seeds = f.seeds > 1 ? mean_interval(d, f.seeds) : point_estimate(d[0]);
        f.over_problems = frontier_problems(pair, n, f.over_seeds.value);
        f.p = f.seeds > 1 ? t_test(d, f.seeds) : NO_NUMBER;
    }
    free(d);
    return f;
}

/* ================================================================ runs in */

/* The measure: pass@16, or the most there is up to it. Where the base has that nearly always there
 * is nothing left to lose, and it is distinct_right@k, if the files have it. */
static inline int frontier_measure(const Runs *all, const Arm *base)
{
    int q = headline(all, 2);
    double full = estimate(base, AT_START, q, NULL).value;
    double distinct = estimate(base, AT_START, DISTINCT_RIGHT, NULL).value;
    return full >= FRONTIER_FULL - ROUNDING && isfinite(distinct) ? DISTINCT_RIGHT : q;
}

static inline bool is_point(const EvalRow *e, int q)
{
    return isfinite(e->value[0]) && isfinite(e->value[q]);
}

/* A run's path, whose x and y are the caller's to free (x alone: y lies behind it). n = 0: it does
 * not begin with the base model. */
static inline FrontierPath run_path(const RunFiles *r, int q)
{
    FrontierPath p = {0};
    if (!r->n_evals || r->eval[0].step || !is_point(&r->eval[0], q))
        return p;
    double *x = xcalloc(2 * r->n_evals, sizeof *x), *y = x + r->n_evals;
    for (int i = 0; i < r->n_evals; i++)
        if (is_point(&r->eval[i], q)) {
            x[p.n] = r->eval[i].value[0];
            y[p.n++] = r->eval[i].value[q];
        }
    p.x = x;
    p.y = y;
    return p;
}

/* Writes the run's n points of each problem into columns of `each` [problems][width]: first all x,
 * then all y. False if a point does not know its problems. */
static inline bool run_points(const RunFiles *r, int q, int n, double *each, ptrdiff_t width)
{
    int point = 0;
    for (const EvalRow *e = r->eval; e < r->eval + r->n_evals; e++) {
        if (!is_point(e, q))
            continue;
        if (!problem_list(e, 0) || !problem_list(e, q))
            return false;
        for (int k = 0; k < e->problems; k++) {
            double *row = each + k * width;
            row[point] = problem_value(e, 0, k);
            row[n + point] = problem_value(e, q, k);
        }
        point++;
    }
    return true;
}

/* Both runs' paths; a.n = 0 or b.n = 0: there is no pair. */
static inline FrontierPair run_pair(const RunFiles *a, const RunFiles *b, int q)
{
    FrontierPair p = {.a = run_path(a, q), .b = run_path(b, q), .seed = a->seed};
    ptrdiff_t width = 2 * (p.a.n + p.b.n);
    if (!p.a.n || !p.b.n)
        return p;
    p.problems = a->eval[0].problems;
    p.class = a->class ? a->class : b->class;
    p.each = xcalloc(p.problems * width, sizeof *p.each);
    if (!run_points(a, q, p.a.n, p.each, width) ||
        !run_points(b, q, p.b.n, p.each + 2 * p.a.n, width)) {
        free(p.each);
        p.each = NULL;
    }
    return p;
}

static inline void pair_free(FrontierPair *p)
{
    free((void *)p->a.x);
    free((void *)p->b.x);
    free(p->each);
}

/* Are two runs of one seed and one learning rate? Another rate is another path of its own. */
static inline bool is_pair(const RunFiles *a, const RunFiles *b)
{
    double lr = strtod(run_option(a, "lr"), NULL);
    return a->seed == b->seed && lr == strtod(run_option(b, "lr"), NULL);
}

/* How much more of quantity q an arm has than another at the same pass@1. */
static inline Frontier arm_frontier(const Arm *a, const Arm *against, int q)
{
    FrontierPair *pair = NULL;
    int n = 0;
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < against->n; k++) {
            if (!is_pair(a->run[i], against->run[k]))
                continue;
            pair = room_for_one(pair, n, sizeof *pair);
            pair[n] = run_pair(a->run[i], against->run[k], q);
            if (pair[n].a.n && pair[n].b.n)
                n++;
            else
                pair_free(&pair[n]);
        }
    Frontier f = frontier(pair, n);
    for (int i = 0; i < n; i++)
        pair_free(&pair[i]);
    free(pair);
    return f;
}

#endif
