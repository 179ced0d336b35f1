/* stats.h: what evaluation counts. pass@k without bias, majority votes with ties in expectation,
 * and bootstrap intervals. */
#ifndef STATS_H
#define STATS_H

#include "util.h" /* defines: philox, below */

/* pass@k, unbiased: of n samples c were right; 1 - C(n - c, k) / C(n, k) (Chen et al. 2021). */
static inline double pass_at_k(int n, int c, int k)
{
    double all_wrong = 1;
    for (int i = n - c + 1; i <= n; i++)
        all_wrong *= 1 - (double)k / i;
    return n - c < k ? 1 : 1 - all_wrong;
}

/* Is the most frequent answer of k samples right? `class`: the answer class of each; right[i]: is
 * sample i right. Ties count in expectation: the share of the tied classes that are right. */
static inline double majority(const int *class, const bool *right, int k)
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

/* The mean over problems, with a percentile interval from 1,000 bootstrap samples of problems. */
static inline Estimate bootstrap(const double *x, int n, uint64_t seed)
{
    enum { RESAMPLES = 1000 };
    double means[RESAMPLES], mean = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int r = 0; r < RESAMPLES; r++) {
        means[r] = 0;
        for (int i = 0; i < n; i++)
            means[r] += x[below(philox(seed, STREAM_BOOTSTRAP, (uint32_t)r, (uint32_t)i, 0, 0),
                                (uint32_t)n)] / n;
        for (int k = r; k > 0 && means[k] < means[k - 1]; k--) {
            double swap = means[k];
            means[k] = means[k - 1];
            means[k - 1] = swap;
        }
    }
    return (Estimate){mean, means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]};
}

#endif
