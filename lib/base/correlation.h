/* correlation.h: means, ratios, Pearson's and Spearman's correlation over entries in groups, with
 * bootstrap intervals: only the groups are independent of each other. */
#ifndef CORRELATION_H
#define CORRELATION_H

#include "stats.h" /* defines: Estimate; util.h: philox, PARALLEL_FOR */

/* n entries, entry k of group group[k]. The orders sort x and y; `spearman` alone needs them. */
typedef struct {
    int n, groups;
    int *group;          /* [n] from 0 to groups - 1 */
    double *x, *y;       /* [n] each; y NULL: ones */
    int *x_order, *y_order;
} Grouped;

/* A statistic of entries; entry k counts weight[k] times. NaN: undefined. */
typedef double Measure(const Grouped *g, const double *weight);

/* sum x / sum y: the mean of x, where y is all ones */
static double mean_ratio(const Grouped *g, const double *weight)
{
    double sum = 0, of = 0;
    for (int k = 0; k < g->n; k++) {
        sum += weight[k] * g->x[k];
        of += weight[k] * (g->y ? g->y[k] : 1);
    }
    return of != 0 ? sum / of : (double)NAN;
}

/* sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2), all weighted; NaN
 * where x or y does not vary by more than rounding. x, y, weight: [n] */
static double correlation(const double *x, const double *y, const double *weight, int n)
{
    double all = 0, mean_x = 0, mean_y = 0, xx = 0, yy = 0, xy = 0, rounding = 1e-12;
    for (int k = 0; k < n; k++) {
        all += weight[k];
        mean_x += weight[k] * x[k];
        mean_y += weight[k] * y[k];
    }
    mean_x /= all;
    mean_y /= all;
    for (int k = 0; k < n; k++) {
        double a = x[k] - mean_x, b = y[k] - mean_y;
        xx += weight[k] * a * a;
        yy += weight[k] * b * b;
        xy += weight[k] * a * b;
    }
    bool varies = sqrt(xx / all) > rounding && sqrt(yy / all) > rounding;
    return varies ? fmax(-1, fmin(1, xy / sqrt(xx * yy))) : (double)NAN;
}

static double pearson(const Grouped *g, const double *weight)
{
    return correlation(g->x, g->y, weight, g->n);
}

typedef struct {
    double value;
    int index;
} Ordered;

static int by_entry(const void *a, const void *b)
{
    const Ordered *x = a, *y = b;
    int order = (x->value > y->value) - (x->value < y->value);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* The indices of x, its smallest value first; the caller frees them. */
static int *order_of(const double *x, int n)
{
    Ordered *sorted = xcalloc(n, sizeof *sorted);
    int *order = xcalloc(n, sizeof *order);
    for (int k = 0; k < n; k++)
        sorted[k] = (Ordered){x[k], k};
    qsort(sorted, n, sizeof *sorted, by_entry);
    for (int k = 0; k < n; k++)
        order[k] = sorted[k].index;
    free(sorted);
    return order;
}

/* rank[k]: the rank of x[k] from 1 on, where each entry occurs weight times; ties share the mean of
 * their ranks. */
static void mid_ranks(const double *x, const int *order, const double *weight, int n, double *rank)
{
    double before = 0;
    for (int k = 0, end; k < n; k = end) {
        double tied = 0;
        for (end = k; end < n && x[order[end]] == x[order[k]]; end++)
            tied += weight[order[end]];
        for (int i = k; i < end; i++)
            rank[order[i]] = before + (tied + 1) / 2;
        before += tied;
    }
}

/* Pearson's correlation of the ranks. */
static double spearman(const Grouped *g, const double *weight)
{
    double *rank = xcalloc(2 * (size_t)g->n, sizeof *rank);
    mid_ranks(g->x, g->x_order, weight, g->n, rank);
    mid_ranks(g->y, g->y_order, weight, g->n, rank + g->n);
    double result = correlation(rank, rank + g->n, weight, g->n);
    free(rank);
    return result;
}

static void grouped_free(Grouped *g)
{
    free(g->group);
    free(g->x);
    free(g->y);
    free(g->x_order);
    free(g->y_order);
    *g = (Grouped){0};
}

/* One bootstrap sample: groups drawn with replacement (the draws of `bootstrap` for this seed); an
 * entry counts as often as its group was drawn. */
static double resample(const Grouped *g, Measure *f, uint64_t seed, int r)
{
    double *drawn = xcalloc(g->groups + g->n, sizeof *drawn), *weight = drawn + g->groups;
    for (int i = 0; i < g->groups; i++)
        drawn[below(philox(seed, STREAM_BOOTSTRAP, (uint32_t)r, (uint32_t)i, 0, 0),
                    (uint32_t)g->groups)]++;
    for (int k = 0; k < g->n; k++)
        weight[k] = drawn[g->group[k]];
    double result = f(g, weight);
    free(drawn);
    return result;
}

/* A measure with its 95 % percentile interval from 1,000 bootstrap samples of groups; undefined
 * samples are left out. NaN where it is undefined. */
static Estimate group_bootstrap(const Grouped *g, Measure *f, uint64_t seed, int threads)
{
    enum { RESAMPLES = 1000 };
    double found[RESAMPLES];
    int n = 0;
    double *once = xcalloc(g->n, sizeof *once);
    PARALLEL_FOR_DYNAMIC (threads)
    for (int r = 0; r < RESAMPLES; r++)
        found[r] = resample(g, f, seed, r);
    for (int r = 0; r < RESAMPLES; r++)
        if (!isnan(found[r]))
            found[n++] = found[r];
    qsort(found, n, sizeof *found, by_value);
    for (int k = 0; k < g->n; k++)
        once[k] = 1;
    Estimate e = {f(g, once), (double)NAN, (double)NAN};
    free(once);
    if (n && !isnan(e.value)) {
        e.low = found[n / 40];
        e.high = found[n - 1 - n / 40];
    }
    return e;
}

#endif
