/* peak.h: how many floating-point operations a second this machine can do at most.
 *
 * Chains of fused multiply-adds that stay in registers: no program does more. Every fraction that
 * `bench` and `train` print is a fraction of this, measured on the spot, with as many threads. */
#ifndef PEAK_H
#define PEAK_H

#include "simd.h"

enum { CHAINS = VL == 16 ? 24 : 12, PEAK_STEPS = 1 << 16 };

/* CHAINS independent chains, so that none waits for its own last result. `from` ties one call to
 * the one before it, so that the compiler leaves none out. */
static float peak_chain(float from)
{
    vf s[CHAINS], x = vset(0.9999f), y = vset(1e-5f);
    float t[VL], sum = 0;
    for (int i = 0; i < CHAINS; i++)
        s[i] = vset((float)i + from);
    for (int k = 0; k < PEAK_STEPS; k++)
        UNROLL for (int i = 0; i < CHAINS; i++)
            s[i] = vfma(s[i], x, y);
    for (int i = 0; i < CHAINS; i++) {
        vstore(t, s[i]);
        sum += t[0];
    }
    return sum;
}

/* GFLOP/s of `threads` threads, at most MOST_THREADS: the best of a few tries of about 10 ms. */
static double measure_peak(int threads)
{
    enum { TRIES = 6, INNER = 8 };
    double best = 0;
    float sums[MOST_THREADS] = {0};
    for (int r = 0; r < TRIES; r++) {
        double start = now_seconds();
        PARALLEL_FOR (threads)
        for (int i = 0; i < threads; i++)
            for (int k = 0; k < INNER; k++)
                sums[i] = peak_chain(sums[i]);
        double seconds = now_seconds() - start;
        best = fmax(best, 2e-9 * CHAINS * VL * (double)PEAK_STEPS * INNER * threads / seconds);
    }
    return isfinite(sums[0]) ? best : 0; /* and so that the last one is needed */
}

#endif
