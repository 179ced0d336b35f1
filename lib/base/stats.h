/* stats.h: statistics of evaluations.
 *
 *   pass_at_k      unbiased pass@k                  majority       votes, ties in expectation
 *   bootstrap      a mean over problems             paired         the same of a difference
 *   mean_interval  a mean over runs                 t_test         is it 0?
 *
 * bootstrap, paired and mean_interval give an Estimate: a value with its 95 % interval. */
#ifndef STATS_H
#define STATS_H

#include "util.h" /* defines: philox, below */

/* pass@k, unbiased: of n samples c were right; 1 - C(n - c, k) / C(n, k) (Chen et al. 2021). */
static double pass_at_k(int n, int c, int k)
{
    double all_wrong = 1;
    for (int i = n - c + 1; i <= n; i++)
        all_wrong *= 1 - (double)k / i;
    return n - c < k ? 1 : 1 - all_wrong;
}

/* Is the most frequent answer of k samples right? class[i], right[i]: the answer class of sample i,
 * and is it right. Ties count in expectation: the share of the tied classes that are right. */
static double majority(const int *class, const bool *right, int k)
{
    int most = 0;
    double tied = 0, tied_right = 0;
    for (int i = 0; i < k; i++) {
        int votes = 0;
        bool first = true;
        for (int j = 0; j < k; j++) {
            votes += class[j] == class[i];
            first &= j >= i || class[j] != class[i];
        }
        if (votes > most) {
            most = votes;
            tied = tied_right = 0;
        }
        if (votes == most && first) {
            tied++;
            tied_right += right[i];
        }
    }
    return tied_right / tied;
}

typedef struct {
    double value, low, high; /* an estimate with its 95 % interval */
} Estimate;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The mean over problems, with a percentile interval from 1,000 bootstrap samples: the 26th
 * smallest and the 26th largest of their means. class[i] is the first row with the problem of row
 * i; NULL: all differ. A sample draws whole classes, as many as there are; its mean is over their
 * rows (the cluster bootstrap). The draws depend on seed and the number of classes alone. */
static Estimate bootstrap(const double *x, const int *class, int n, uint64_t seed)
{
    enum { RESAMPLES = 1000 };
    double means[RESAMPLES], mean = 0;
    double *sum = xcalloc(n, sizeof *sum); /* of a class, at its first row, by n */
    int *rows = xcalloc(n, sizeof *rows), *first = xcalloc(n, sizeof *first);
    int classes = 0;
    for (int i = 0; i < n; i++) {
        int c = class ? class[i] : i;
        if (c == i)
            first[classes++] = i;
        mean += x[i] / n;
        sum[c] += x[i] / n;
        rows[c]++;
    }
    for (int r = 0; r < RESAMPLES; r++) {
        int drawn = 0;
        means[r] = 0;
        for (int i = 0; i < classes; i++) {
            int c = first[below(philox(seed, STREAM_BOOTSTRAP, (uint32_t)r, (uint32_t)i, 0, 0),
                                (uint32_t)classes)];
            means[r] += sum[c];
            drawn += rows[c];
        }
        means[r] *= (double)n / drawn; /* 1 where no problem repeats */
    }
    free(sum);
    free(rows);
    free(first);
    qsort(means, RESAMPLES, sizeof *means, by_value);
    return (Estimate){mean, means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]};
}

/* The mean of x - y over the same n problems, with a bootstrap interval over problems. */
static Estimate paired(const double *x, const double *y, const int *class, int n, uint64_t seed)
{
    double *difference = xmalloc((size_t)n * sizeof *difference);
    for (int i = 0; i < n; i++)
        difference[i] = x[i] - y[i];
    Estimate e = bootstrap(difference, class, n, seed);
    free(difference);
    return e;
}

/* P(|T| < t) of Student's t with `df` degrees of freedom, theta = atan(t / sqrt(df)): the finite
 * sums of Abramowitz and Stegun, 26.7.3 and 26.7.4. */
static double student_inside(double theta, int df)
{
    bool odd = df % 2;
    double cosine = cos(theta), sum = 0, term = odd ? cosine : 1;
    for (int k = odd; k <= df - 2; k += 2) {
        sum += term;
        term *= (k + 1) * cosine * cosine / (k + 2);
    }
    sum *= sin(theta);
    return odd ? (theta + sum) / acos(0) : sum;
}

/* The t with P(|T| < t) = 0.95, by bisection of its angle: 12.706 for df = 1, 1.960 for many. */
static double student_quantile(int df)
{
    double low = 0, high = acos(0);
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        *(student_inside(middle, df) < 0.95 ? &low : &high) = middle;
    }
    return sqrt(df) * tan((low + high) / 2);
}

/* The mean of n values, and its standard error s / sqrt(n), s the sample standard deviation; of one
 * value 0. */
static double mean_error(const double *x, int n, double *error)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    *error = n > 1 ? sqrt(squares / (n - 1) / n) : 0;
    return mean;
}

/* The mean over n independent runs with a Student-t interval: mean +- t s / sqrt(n). The interval
 * of a single run is its value. */
static Estimate mean_interval(const double *x, int n)
{
    double error, mean = mean_error(x, n, &error);
    double half = n > 1 ? student_quantile(n - 1) * error : 0;
    return (Estimate){mean, mean - half, mean + half};
}

/* Student's t test that the mean of n > 1 independent runs is 0: p, two-sided. */
static double t_test(const double *x, int n)
{
    double error, mean = mean_error(x, n, &error);
    return 1 - student_inside(atan2(fabs(mean), error * sqrt(n - 1)), n - 1);
}

#endif
