/* kernels.h: tests of random numbers, exp, sums, products, and the gradient of each layer. */
#ifndef TESTS_KERNELS_H
#define TESTS_KERNELS_H

#include "noise.h"

/* ---------------------------------------------------------------- random numbers */

static bool random_is(Random x, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return x.r[0] == a && x.r[1] == b && x.r[2] == c && x.r[3] == d;
}

/* The known answers of the authors' own Random123 (kat_vectors, philox4x32 10). */
static void test_philox(void)
{
    const uint32_t ff = 0xFFFFFFFFu;
    CHECK(random_is(philox(0, 0, 0, 0, 0, 0), 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
          "philox of zeros");
    CHECK(random_is(philox(UINT64_MAX, 0, ff, ff, ff, ff), 0x408F276D, 0x41C83B0E, 0xA20BC7C6,
                    0x6D5451FD), "philox of ones");
    CHECK(random_is(philox(0x299F31D0A4093822u, 0, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1), "philox of the digits of pi");
    CHECK(random_is(philox(0xA4093822u, 0x299F31D0, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1), "stream is key word 1");
    Random streamed = philox(0x123456789ABCDEFu, 3, 1, 2, 3, 4);
    Random keyed = philox(0x123456789ABCDEFu ^ (uint64_t)3 << 32, 0, 1, 2, 3, 4);
    CHECK(!memcmp(&streamed, &keyed, sizeof keyed), "stream is not xored into key word 1");

    CHECK(uniform((Random){{0, 0, ff, ff}}) == 0, "uniform of zeros");
    CHECK(uniform((Random){{ff, ff, 0, 0}}) == 1 - 0x1p-53, "uniform of ones");
    CHECK(uniform((Random){{0x80000000u, 0, 0, 0}}) == 0.5, "uniform: word 0 is the upper one");
    CHECK(uniform((Random){{0, 0x800, 0, 0}}) == 0x1p-53, "uniform has 53 bits");
    CHECK(below((Random){{9, 9, 1, 0}}, 10) == 6, "below: 2^32 mod 10");
    CHECK(below((Random){{9, 9, 0, 17}}, 7) == 3, "below: 17 mod 7");

    enum { DRAWS = 20000, FACES = 6 };
    int count[FACES] = {0};
    double sum = 0, square = 0, chi2 = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        Random r = philox(1, STREAM_SAMPLE, 0, 0, 0, i);
        double u = uniform(r);
        sum += u;
        square += u * u;
        count[below(r, FACES)]++;
    }
    for (int i = 0; i < FACES; i++)
        chi2 += pow(count[i] - DRAWS / 6.0, 2) / (DRAWS / 6.0);
    CHECK(fabs(sum / DRAWS - 1.0 / 2) < 4 * sqrt(1.0 / 12 / DRAWS), "mean %g", sum / DRAWS);
    CHECK(fabs(square / DRAWS - 1.0 / 3) < 4 * sqrt(4.0 / 45 / DRAWS), "E u^2 %g", square / DRAWS);
    CHECK(chi2 < 20.5, "die: chi-squared %g of 5 degrees; p = 0.001 is 20.5", chi2);
}

/* ---------------------------------------------------------------- exp and rows */

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* vfma of one lane; the other lanes have plain sums or, where the lane is odd, ties. */
static float fma_one(float a, float b, float c, int lane)
{
    float x[4][LANES];
    for (int i = 0; i < LANES; i++) {
        x[0][i] = i == lane ? a : 0x1p-12f;
        x[1][i] = i == lane ? b : lane % 2 ? 0x1p-12f : 1.0f;
        x[2][i] = i == lane ? c : 1.0f;
    }
    for (int i = 0; i < LANES; i += VL)
        vstore(x[3] + i, vfma(vload(x[0] + i), vload(x[1] + i), vload(x[2] + i)));
    return x[3][lane];
}

/* t + h + d, where t = n u is a float, h half the way to the next float away from zero, and d so
 * small that double precision has t + h (for the largest x: its neighbour) as the sum of c = t and
 * the product h (1 + x^3), whose factors have few bits; d decides. `back`: from the next float to
 * the tie, with a product below zero. */
static void check_tie(uint32_t n, float u, float x, bool back, float sign, int lane)
{
    float t = (float)n * u * sign, next = (float)(n + 1) * u * sign, root = 0x1p-40f;
    float a = (1 + x) * root, b = (1 - x + x * x) * (u / root / 2) * sign, c = t;
    bool to_next = x > 0 || (x == 0 && n % 2 == 1);
    if (back) {
        c = next;
        b = -b;
        to_next = x < 0 || (x == 0 && n % 2 == 1);
    }
    float sum = fma_one(a, b, c, lane), expected = to_next ? next : t;
    CHECK(same_bits(&sum, &expected, 1), "%a x %a + %a in lane %d is %a; expected %a", (double)a,
          (double)b, (double)c, lane, (double)sum, (double)expected);
}

static void test_fma(void)
{
    static const float xs[] = {0, 0x1p-10f, -0x1p-10f, 0x1p-11f, -0x1p-11f, 0x3p-11f, -0x3p-11f};
    static const uint32_t ends[] = {0x800000, 0xFFFFFE, 0xFFFFFF};
    for (uint32_t i = 0; i < 4000; i++) {
        uint32_t n = i < 3 ? ends[i] : 0x800000 + below(philox(81, 0, i, 0, 0, 0), 0x7FFFFF);
        float x = xs[i % 7], sign = i / 20 % 2 ? 1.0f : -1.0f;
        bool back = i / 10 % 2;
        check_tie(n, ldexpf(1, (int)(i % 90) - 60), x, back, sign, (int)(i % LANES));
        check_tie(n, 0x1p-149f, x, back, sign, (int)(i % LANES)); /* the smallest normals ... */
        check_tie(n & 0x7FFFFF, 0x1p-149f, x, back, sign, (int)(i % LANES)); /* ... and below */
    }
    check_tie(0x7FFFFF, 0x1p-149f, -0x1p-11f, false, 1, 1); /* the largest subnormal */
    float large = fma_one(0x1.fffffep127f, 1, 0x1p103f, 0), less = -0x1.fffffep+127f;
    CHECK(isinf(large), "the tie above the largest float is %a", (double)large);
    CHECK(fma_one(-(1 - 0x1p-15f), (1 + 0x1p-15f) * 0x1p103f, less, 2) == less, "below that tie");
    CHECK(isnan(fma_one(INFINITY, 0, 1, 3)) && isnan(fma_one(NAN, 0, 1, 0)) &&
          isnan(fma_one(INFINITY, 1, -INFINITY, 1)), "no NaN");
    CHECK(fma_one(INFINITY, -1, 3, 2) == -INFINITY, "infinite");
    float zero = fma_one(-0.0f, 1, -0.0f, 3), other = fma_one(1, 1, -1, 0);
    CHECK(zero == 0 && signbit(zero) && other == 0 && !signbit(other), "zero's sign");
    CHECK(fma_one(0x1p-100f, 0x1p-100f, 0, 1) == 0, "not underflown");
    for (uint32_t i = 0; i < 100000; i++) { /* normal sums of any alignment, as the library's */
        Random r = philox(82, 0, i, 0, 0, 0);
        float a = ldexpf((float)(int32_t)r.r[0], -31), b = ldexpf((float)(int32_t)r.r[1], -31);
        float c = ldexpf((float)(int32_t)r.r[2], -(int)(r.r[3] % 60) - 10);
        float sum = fma_one(a, b, c, (int)(i % LANES)), expected = fmaf(a, b, c);
        CHECK(same_bits(&sum, &expected, 1), "%a x %a + %a is %a; fmaf says %a", (double)a,
              (double)b, (double)c, (double)sum, (double)expected);
    }
}

/* |vexp(x) - e^x| in units of the last place of e^x. */
static double exp_ulps(float x)
{
    double exact = exp((double)x);
    return fabs((double)exp_one(x) - exact) / ldexp(1, ilogb(exact) - 23);
}

/* In how many rows with one NaN, of many lengths and places, a softmax loses it. */
static int softmax_losses(float nan)
{
    int lost = 0;
    for (int n = 1; n <= 40; n += 3)
        for (int i = 0; i < n; i++) {
            float *row = noise_new(1, (size_t)n);
            Softmax s = SOFTMAX_EMPTY;
            row[i] = nan;
            softmax_tile(&s, row, row, n, 1.0f);
            lost += !isnan(softmax_logprob(&s, 0, 1));
            row[i] = nan;
            lost += !isnan(row_exp(row, row, n, row_max(row, n), 1.0f));
            free(row);
        }
    return lost;
}

static void test_exp(void)
{
    enum { POINTS = 400000 };
    double worst = 0, where = 0;
    for (int i = 0; i <= POINTS + 2000; i++) {
        float x = (float)(-87.0 + 175.0 * i / POINTS); /* evenly over [-87, 88] ... */
        if (i > POINTS) /* ... and around each (n + 1/2) ln 2, where the reduction changes n */
            x = (float)(((i - POINTS) % 250 - 125 + 0.5) * 0.6931471805599453 *
                        (1 + 1e-7 * ((i - POINTS) / 250 - 4)));
        double ulps = exp_ulps(x);
        if (!(ulps <= worst)) {
            worst = ulps;
            where = (double)x;
        }
    }
    CHECK(worst < 1.01, "exp is %.3f ulp off at %.9g", worst, where);
    CHECK(exp_one(0.0f) == 1.0f && exp_one(-0.0f) == 1.0f, "exp(0) is not 1");
    CHECK(exp_one(-1e4f) == exp_one(-87.3f) && exp_one(-INFINITY) == exp_one(-87.3f),
          "not clamped below");
    CHECK(exp_one(1e4f) == exp_one(88.3f) && exp_one(INFINITY) == exp_one(88.3f),
          "not clamped above");
    CHECK(isfinite(exp_one(88.3f)) && exp_one(-87.3f) >= 0x1p-126f, "the ends leave the normals");

    /* NaN, whatever its sign and payload (a file of weights may hold any), stays NaN. */
    static const uint32_t nans[] = {0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFC001FF};
    for (size_t k = 0; k < sizeof nans / sizeof *nans; k++) {
        float nan = float_of_bits(nans[k]);
        CHECK(isnan(exp_one(nan)), "exp of NaN %08x is %g", nans[k], (double)exp_one(nan));
        CHECK(softmax_losses(nan) == 0, "NaN %08x is lost in %d softmaxes", nans[k],
              softmax_losses(nan));
    }
}

/* A softmax of n logits in tiles of `width`, against double: log-probs, entropy, the numbers e that
 * each tile leaves, and the factor by which those of the earlier tiles shrink. */
static void check_softmax(int n, int width, float size, double temperature)
{
    float *z = noise_new(80, (size_t)n), *e = nan_new((size_t)n), inv = (float)(1 / temperature);
    double largest = -HUGE_VAL, sum = 0, entropy = 0, worst = 0;
    Softmax s = SOFTMAX_EMPTY;
    for (int i = 0; i < n; i++) {
        z[i] = size * z[i] + size * (float)(i / width); /* every tile has a larger one */
        largest = fmax(largest, (double)z[i] / temperature);
    }
    for (int i = 0; i < n; i++)
        sum += exp((double)z[i] / temperature - largest);
    for (int start = 0; start < n; start += width) {
        int part = imin(width, n - start);
        memcpy(e + start, z + start, (size_t)part * sizeof(float)); /* e may be z */
        float shrink = softmax_tile(&s, e + start, e + start, part, inv);
        for (int i = 0; i < start; i++)
            e[i] *= shrink;
    }
    double total = (double)s.sum * exp((double)s.max - largest);
    CHECK(fabs(total / sum - 1) < 1e-4, "%d logits of size %g in tiles of %d, T %g: sum e^(z / T - "
          "max) is %g, not %g", n, (double)size, width, temperature, total, sum);
    for (int i = 0; i < n; i++) {
        double y = (double)z[i] / temperature - largest, logprob = y - log(sum);
        entropy -= exp(logprob) * logprob;
        worst = fmax(worst, fabs((double)e[i] * exp((double)s.max - largest) - exp(y)));
        double got = (double)softmax_logprob(&s, z[i], inv);
        CHECK(fabs(got - logprob) < 1e-4 * (1 + fabs(largest)), "log p of z = %g among %d, T %g: "
              "%g, not %g", (double)z[i], n, temperature, got, logprob);
    }
    CHECK(worst < 1e-4, "%d in tiles of %d: some e^(z / T - max) is off by %g", n, width, worst);
    CHECK(fabs((double)softmax_entropy(&s) - entropy) < 1e-4 * (1 + entropy), "the entropy of %d "
          "tokens in tiles of %d, T %g: %g, not %g", n, width, temperature,
          (double)softmax_entropy(&s), entropy);
    free(z);
    free(e);
}

/* One tile, then several, each with a larger logit than those before; logits whose e^z no float
 * holds. */
static void test_softmax(void)
{
    check_softmax(5, 5, 1, 1);
    check_softmax(5, 5, 1, 0.5);
    check_softmax(1, 1, 3, 1);
    check_softmax(37, 37, 200, 1);
    check_softmax(37, 16, 1, 1);
    check_softmax(600, 256, 2, 0.7);
    check_softmax(60, 16, 200, 1);
}

/* The rule of simd.h: 16 virtual lanes, added as a tree. */
static float lanes_tree(const float *lane)
{
    float t[16];
    memcpy(t, lane, sizeof t);
    for (int half = 8; half; half /= 2)
        for (int u = 0; u < half; u++)
            t[u] += t[u + half];
    return t[0];
}

/* What writes a row, with `room` floats of guard behind it (0: the sanitizer watches). */
static void check_row_writers(int n, int room)
{
    size_t all = (size_t)(n + room);
    float *x = noise_new(20, (size_t)n), *y = noise_new(21, all), *expected = copy_new(y, all);
    float lane[16] = {0};
    for (int i = 0; i < n; i++) {
        expected[i] = exp_one((x[i] - 0.25f) * 3.0f);
        lane[i % 16] += expected[i];
    }
    float sum = row_exp(y, x, n, 0.25f, 3.0f), tree = lanes_tree(lane);
    CHECK(same_bits(y, expected, all), "row_exp of %d", n);
    CHECK(same_bits(&sum, &tree, 1), "row_exp of %d: its sum", n);

    row_exp_scaled(y, y, n, 2.0f, 0.5f, -0.75f);
    for (int i = 0; i < n; i++)
        expected[i] = exp_one(expected[i] * 2.0f - 0.5f) * -0.75f;
    CHECK(same_bits(y, expected, all), "row_exp_scaled of %d", n);

    row_axpy(y, 1.7f, x, n);
    for (int i = 0; i < n; i++)
        expected[i] = fmaf(1.7f, x[i], expected[i]);
    CHECK(same_bits(y, expected, all), "row_axpy of %d", n);

    row_scale(y, x, -0.3f, n);
    for (int i = 0; i < n; i++)
        expected[i] = x[i] * -0.3f;
    CHECK(same_bits(y, expected, all), "row_scale of %d", n);
    free(x);
    free(y);
    free(expected);
}

static void test_rows(void)
{
    for (int n = 1; n <= 70; n++) {
        float *a = noise_new(22, (size_t)n), *b = noise_new(23, (size_t)n), lane[16] = {0};
        float most = -INFINITY;
        for (int i = 0; i < n; i++)
            lane[i % 16] = fmaf(a[i], b[i], lane[i % 16]);
        float dot = row_dot(a, b, n), tree = lanes_tree(lane);
        CHECK(same_bits(&dot, &tree, 1), "row_dot of %d", n);
        for (int i = 0; i < n; i++) { /* all negative, and the largest moves through the row */
            a[i] -= 200;
            most = a[i] > most ? a[i] : most;
        }
        CHECK(row_max(a, n) == most, "row_max of %d", n);
        for (int i = 0; i < n; i++) {
            float before = a[i];
            a[i] = -5;
            CHECK(row_max(a, n) == -5, "row_max of %d: missed at %d", n, i);
            a[i] = before;
        }
        check_row_writers(n, 0);
        check_row_writers(n, 2 * LANES);
        free(a);
        free(b);
    }
}

/* ---------------------------------------------------------------- matrix products */

/* C = base + A B as gemm.h promises it: each output is one chain over k, in order. */
static void gemm_naive(float *c, ptrdiff_t ldc, Mat A, Mat B, const float *base)
{
    for (int i = 0; i < A.rows; i++)
        for (int j = 0; j < B.cols; j++) {
            float s = base ? base[i * ldc + j] : 0.0f;
            for (int k = 0; k < A.cols; k++)
                s = fmaf(A.at[i * A.rs + k * A.cs], B.at[k * B.rs + j * B.cs], s);
            c[i * ldc + j] = s;
        }
}

/* One shape: operands of exact size, and an output whose rows lie `ldc` apart. Between its rows
 * are guards: all of it, guards too, must come out as expected. */
typedef struct {
    int M, N, K, ldc;
    float *a, *b, *before, *c, *expected; /* M x K, K x N, 3 x [M,ldc] */
} GemmCase;

static size_t case_floats(const GemmCase *x) { return (size_t)x->M * (size_t)x->ldc; }

static GemmCase case_new(int M, int N, int K, int ldc)
{
    GemmCase x = {M, N, K, ldc, NULL, NULL, NULL, NULL, NULL};
    x.a = noise_new(30, (size_t)M * (size_t)K);
    x.b = noise_new(31, (size_t)N * (size_t)K);
    x.before = noise_new(32, case_floats(&x));
    x.c = copy_new(x.before, case_floats(&x));
    x.expected = copy_new(x.before, case_floats(&x));
    return x;
}

static void case_free(GemmCase *x)
{
    free(x->a);
    free(x->b);
    free(x->before);
    free(x->c);
    free(x->expected);
}

/* Puts NaN where the product will be: it may not be read. */
static void case_blank(GemmCase *x)
{
    for (int i = 0; i < x->M; i++)
        for (int j = 0; j < x->N; j++)
            x->c[(ptrdiff_t)i * x->ldc + j] = NAN;
}

/* Compares, and takes the output back to what it was. */
static void check_case(GemmCase *x, const char *what, const char *how)
{
    CHECK(same_bits(x->c, x->expected, case_floats(x)), "%s: M %d, N %d, K %d, %s", what, x->M,
          x->N, x->K, how);
    memcpy(x->c, x->before, case_floats(x) * sizeof(float));
}

/* Scratch memory, all NaN, of the size that gemm_scratch asks for. */
static Arena gemm_arena(int M, int N)
{
    Arena count = arena_counting(1);
    gemm_scratch(&count, M, N);
    Arena a = arena_new(arena_counted(&count));
    memset(a.base, 0xFF, a.capacity);
    return a;
}

/* One product by gemm, whole and as two pieces of its columns. base: the output itself, an array
 * elsewhere, or NULL. */
static void check_gemm_product(GemmCase *x, Arena *arena, Mat A, Mat B, const float *base)
{
    int cut = panels_of(x->N) / 2 * NR;
    char how[64];
    snprintf(how, sizeof how, "A %s, B %s%s, base %s, %d thread(s)",
             A.rs == A.cols ? "by rows" : "transposed", B.rs == B.cols ? "by rows" : "transposed",
             B.packed ? ", packed" : "", !base ? "NULL" : base == x->c ? "C" : "elsewhere",
             arena->threads);
    if (base != x->c)
        case_blank(x);
    gemm(arena, x->c, x->ldc, A, B, base);
    check_case(x, "gemm", how);
    if (base != x->c)
        case_blank(x);
    gemm(arena, x->c, x->ldc, A, columns_of(B, 0, cut), base);
    gemm(arena, x->c + cut, x->ldc, A, columns_of(B, cut, x->N - cut), base ? base + cut : NULL);
    check_case(x, "gemm, in two pieces", how);
}

/* A and B by rows and transposed; B packed or not, its copy hung on it or on its transpose; with
 * every base; by one thread and, where `threads` is 3, by three. */
static void check_gemm(int M, int N, int K, int ldc, int threads)
{
    GemmCase x = case_new(M, N, K, ldc);
    Arena arena = gemm_arena(M, N);
    float *packed = nan_new(packed_floats(K, N));
    for (int form = 0; form < 4; form++) {
        Mat A = form % 2 ? transposed(mat(x.a, K, M)) : mat(x.a, M, K), W = mat(x.b, K, N);
        if (form / 2)
            W = transposed(mat(x.b, N, K));
        gemm_pack(W, packed);
        for (int b = 0; b < 3; b++) {
            const float *base[] = {NULL, x.c, x.before};
            gemm_naive(x.expected, ldc, A, W, b ? x.before : NULL);
            for (arena.threads = 1; arena.threads <= threads; arena.threads += 2)
                for (int copy = 0; copy < 3; copy++) {
                    Mat B = W, B_t = transposed(W);
                    B.packed = copy == 1 ? packed : NULL;
                    B_t.packed_t = packed;
                    check_gemm_product(&x, &arena, A, copy == 2 ? transposed(B_t) : B, base[b]);
                }
        }
    }
    free(packed);
    arena_free(&arena);
    case_free(&x);
}

/* dW += dY^T X, dY: [m, n], X: [m, k], dW: [n, k]: whole, by pieces of its rows and of its
 * columns. */
static void check_gemm_weights(int m, int k, int n)
{
    Arena arena = gemm_arena(n, k);
    GemmCase x = case_new(n, k, m, k);
    Mat dY = mat(x.a, m, n), X = mat(x.b, m, k);
    gemm_naive(x.expected, k, transposed(dY), X, x.before);
    for (arena.threads = 1; arena.threads <= 3; arena.threads += 2) {
        linear_weights_backward(&arena, x.c, k, dY, X);
        check_case(&x, "linear_weights_backward", "whole");
        int cut = n / 3; /* some of dW's rows, then the others: columns of dY apart */
        linear_weights_backward(&arena, x.c, k, columns_of(dY, 0, cut), X);
        linear_weights_backward(&arena, x.c + (ptrdiff_t)cut * k, k, columns_of(dY, cut, n - cut),
                                X);
        check_case(&x, "linear_weights_backward", "first rows and then the others");
        cut = k / 3;
        linear_weights_backward(&arena, x.c, k, dY, columns_of(X, 0, cut));
        linear_weights_backward(&arena, x.c + cut, k, dY, columns_of(X, cut, k - cut));
        check_case(&x, "linear_weights_backward", "first columns and then the others");
    }
    case_free(&x);
    arena_free(&arena);
}

/* B in place, its columns side by side or in groups; up to the next multiple of VL columns are the
 * callee's to write, no more. */
static void check_gemm_small(int M, int N, int K, bool down, bool accumulate, bool grouped)
{
    int columns = round_up(N, VL);
    GemmCase x = case_new(M, N, K, columns + 1);
    float *b = noise_new(33, (size_t)K * (size_t)columns);
    float *groups = nan_new((size_t)K * (size_t)round_up(N, LANES));
    Mat A = down ? transposed(mat(x.a, K, M)) : mat(x.a, M, K);
    Mat B = {.at = b, .rows = K, .cols = N, .rs = columns, .cs = 1};
    for (int k = 0; k < K; k++)
        for (int j = 0; j < columns; j++)
            groups[(j / LANES * K + k) * LANES + j % LANES] = b[k * columns + j];
    gemm_naive(x.expected, x.ldc, A, B, accumulate ? x.before : NULL);
    if (!accumulate)
        case_blank(&x);
    LaneMat in_place = {.at = b, .rows = K, .cols = N, .rs = columns, .group = LANES};
    LaneMat in_groups = {.at = groups, .rows = K, .cols = N, .rs = LANES, .group = LANES * K};
    in_place.next = in_groups.next = accumulate ? b : NULL;
    gemm_small(x.c, x.ldc, A, grouped ? in_groups : in_place, accumulate ? x.c : NULL);
    for (int i = 0; i < M; i++)
        for (int j = N; j < columns; j++)
            x.c[i * x.ldc + j] = x.expected[i * x.ldc + j];
    check_case(&x, down ? "gemm_small, A transposed" : "gemm_small",
               accumulate ? "base C" : "base NULL");
    free(b);
    free(groups);
    case_free(&x);
}

static void test_gemm(void)
{
    static const int sizes[][3] = {
        {1, 1, 1}, {1, 33, 5}, {7, 1, 3}, {2, 2, 40}, {13, 31, 17}, {14, 32, 16}, {15, 33, 1},
        {29, 5, KC + 1}, {3, 70, 2 * KC + 2}, {16, 16, KC}, {113, 65, 70}, {230, 47, 130},
        {43, 163, 37}, {57, 129, 19}, {5, 300, 90}, {1, 520, 200},
        {300, 20, KC - 4}, /* three blocks of rows */
        {9, 40, 512}, {MR + 1, 3, 2 * KC}, /* A's rows, or dY's columns, collide in the cache ... */
        {290, 5, 2 * KC}, {KC + 3, 4, 512}, /* ... and come in blocks */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
        check_gemm(M, N, K, i % 2 ? N + 3 : padded(N), 3);
        check_gemm_weights(M, N, K);
        for (int k = 0; k < 4; k++)
            check_gemm_small(M, N, K, k % 2, k / 2, (N + k) % 2);
    }
    /* Every height of a tile, by rows and down columns, four steps of k at once and the rest. */
    for (int M = 1; M <= 2 * MR + 1; M++)
        for (int N = 1; N <= NR + 1; N += imax(1, VL / 4)) {
            check_gemm(M, N, 7, N + M % 2, 1);
            check_gemm_small(M, N, 7, true, M % 2, M % 4 < 2);
        }
}

/* ---------------------------------------------------------------- gradients of each layer */

/* What the check of a gradient works on. L = sum_i weight_i out_i, so that dL / d out_i is
 * weight_i: the outputs are fp32, L is a double. */
typedef struct {
    Engine e;
    Model m;
    Batch b;
    int rows, n_out, terms;
    float temperature;
    const Model *ref;
    float *in, *scale, *kept, *out, *weight;
} Layers;

typedef double LossFn(Layers *);

/* dL / dx by the five-point central difference,
 *     f' = (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12 h + O(h^4).
 * How h was chosen: rounding puts about eps / h on it (eps = 6e-8, values are of order 1) and the
 * remainder h^4 f^(5) / 30; h = 2^-6 puts both near 1e-5, where the usual two points would have
 * either 1e-4 from h^2 / 6 or, with a smaller h, more rounding. */
static double numerical_gradient(LossFn *loss, Layers *l, float *x)
{
    const float h = 0x1p-6f, before = *x;
    double f[4];
    for (int k = 0; k < 4; k++) {
        static const float steps[] = {-2, -1, 1, 2};
        *x = before + steps[k] * h;
        f[k] = loss(l);
    }
    *x = before;
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * (double)h);
}

/* |numerical - g| / |g| over a sample of a tensor's n entries: of each of `slices` parts the entry
 * with the largest gradient, and one more. A gradient that is all zero gives NaN: a failure. */
static double gradient_error(LossFn *loss, Layers *l, float *x, const float *g, size_t n,
                             size_t slices)
{
    double error = 0, norm = 0;
    slices = slices < n ? slices : n;
    for (size_t s = 0; s < slices; s++) {
        size_t first = n * s / slices, end = n * (s + 1) / slices;
        size_t pick[2] = {first + 7 * s % (end - first), first};
        for (size_t i = first; i < end; i++)
            if (fabsf(g[i]) > fabsf(g[pick[1]]))
                pick[1] = i;
        for (int k = 0; k < 2; k++) {
            double numerical = numerical_gradient(loss, l, &x[pick[k]]);
            error += pow(numerical - (double)g[pick[k]], 2);
            norm += pow((double)g[pick[k]], 2);
        }
    }
    return sqrt(error) / sqrt(norm);
}

/* fp32 leaves 1e-6 to 3e-4 (measured, all models and instruction sets); a wrong formula, 1e-2. */
static void check_gradient(LossFn *loss, Layers *l, float *x, const float *g, size_t n,
                           size_t slices, const char *what)
{
    double error = gradient_error(loss, l, x, g, n, slices);
    CHECK(error < 1e-3, "%s: the gradient is off by %.1e of its norm", what, error);
}

static void layers_free(Layers *l)
{
    free(l->in);
    free(l->scale);
    free(l->kept);
    free(l->out);
    free(l->weight);
    model_free(&l->m);
    engine_free(&l->e);
}

static double norm_loss(Layers *l)
{
    Mat x = mat(l->in, l->rows, l->n_out / l->rows);
    rmsnorm_forward(l->out, l->kept, x, l->scale, 1e-3f, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_norm_gradient(void)
{
    enum { ROWS = 5, D = 37, N = ROWS * D };
    Layers l = {.rows = ROWS, .n_out = N, .in = noise_new(40, N), .scale = noise_new(41, D),
                .kept = nan_new(ROWS), .out = nan_new(N), .weight = noise_new(42, N)};
    float *dx = nan_new(N), *added = noise_new(43, N), *start = copy_new(added, N);
    float *dw = xcalloc(D, sizeof *dw);
    Mat x = mat(l.in, ROWS, D);
    norm_loss(&l);
    rmsnorm_backward(dx, NULL, l.weight, x, l.scale, l.kept, 1);
    norm_weights_backward(dw, l.weight, l.in, l.kept, ROWS, D);
    check_gradient(norm_loss, &l, l.in, dx, N, N, "RMSNorm: input");
    check_gradient(norm_loss, &l, l.scale, dw, D, D, "RMSNorm: weight");

    float *dw2 = copy_new(dw, D); /* a second pass adds: to dw always, to dx where asked */
    rmsnorm_backward(added, added, l.weight, x, l.scale, l.kept, 1);
    norm_weights_backward(dw2, l.weight, l.in, l.kept, ROWS, D);
    for (int i = 0; i < N; i++)
        start[i] += dx[i];
    for (int i = 0; i < D; i++)
        dw[i] *= 2;
    CHECK(relative_error(added, start, N) < 1e-6, "RMSNorm does not add to dx");
    CHECK(relative_error(dw2, dw, D) < 1e-6, "RMSNorm does not add to dw");
    free(dx);
    free(added);
    free(start);
    free(dw);
    free(dw2);
    layers_free(&l);
}

static double heads_loss(Layers *l)
{
    heads_forward(&l->m, 1, &l->b, l->in, l->out, l->kept, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

/* The gradient of the rotated q and k goes in, with v's, which must pass untouched. */
static void check_heads_gradient(ModelType type)
{
    static const Tree tree = {5, 2, {4, 9}};
    Layers l = {.e = nan_engine(2, 1 << 20), .m = tiny_model(type, true, 50)};
    const Config *c = &l.m.config;
    int qk = (c->num_attention_heads + c->num_key_value_heads) * c->head_dim;
    int v = c->num_key_value_heads * c->head_dim, width = qk + v;
    l.b = batch_new(&l.e.arena, 32, 4, 32);
    add_tree(&l.b, &tree, 50, 1);
    l.rows = l.b.n_rows;
    l.n_out = l.rows * qk;
    l.in = noise_new(44, (size_t)(l.rows * width));
    l.kept = nan_new((size_t)(l.n_out / c->head_dim));
    l.out = nan_new((size_t)l.n_out);
    l.weight = noise_new(45, (size_t)l.n_out);
    heads_loss(&l);
    float *g = noise_new(46, (size_t)(l.rows * width)), *before = copy_new(g, (size_t)width);
    for (int r = 0; r < l.rows; r++)
        memcpy(g + r * width, l.weight + r * qk, (size_t)qk * sizeof *g);
    Layer layer = {.qkv = l.in, .rstd_head = l.kept};
    LayerGrad grad = {.qkv = g, .heads = nan_new((size_t)l.n_out)};
    heads_backward(&l.m, 1, &l.b, &layer, &grad, 1);
    for (int k = Q_NORM; k <= K_NORM && type == QWEN3; k++)
        head_norm_backward(c, at(&l.m, l.m.grads, layer_tensor(1, k)), &layer, &grad, l.rows,
                           k == K_NORM ? c->num_attention_heads : 0,
                           k == K_NORM ? c->num_key_value_heads : c->num_attention_heads);
    free(grad.heads);
    CHECK(same_bits(g + qk, before + qk, (size_t)v), "heads_backward changes v's gradient");
    for (int r = 0; r < l.rows; r++) /* L does not see v */
        memset(g + r * width + qk, 0, (size_t)v * sizeof *g);
    check_gradient(heads_loss, &l, l.in, g, (size_t)(l.rows * width), 200, MODEL_TYPES[type]);
    for (int k = Q_NORM; k <= K_NORM && type == QWEN3; k++) {
        int t = layer_tensor(1, k);
        check_gradient(heads_loss, &l, at(&l.m, l.m.params, t), at(&l.m, l.m.grads, t), 6, 6,
                       l.m.tensors[t].name);
    }
    free(g);
    free(before);
    layers_free(&l);
}

static void test_heads_gradient(void)
{
    check_heads_gradient(QWEN3);
    check_heads_gradient(LLAMA);
}

/* Cosines and sines as transformers' rotary embedding makes them (PyTorch, float32), where doubles
 * would differ by up to 1e-4; ours differ in the last bit at most. */
static void test_rotary_table(void)
{
#define LLAMA32 {ROPE_LLAMA3, 32, 1, 4, 8192}
    static const struct {
        double theta;
        int head_dim, position, i;
        float cosine, sine;
        Rope rope;
    } table[] = {
        {1e4, 64, 1, 3, 0.912395835f, 0.40930894f, {0}},
        {1e4, 64, 3000, 1, 0.954661071f, 0.297694951f, {0}},
        {1e4, 64, 4000, 5, 0.977708101f, -0.209968656f, {0}},
        {1e6, 128, 3000, 1, 0.0710045919f, -0.997475982f, {0}},
        {1e6, 128, 3000, 2, 0.936791301f, 0.349888653f, {0}},
        {5e5, 80, 3000, 2, -0.0744960532f, -0.997221291f, {0}},
        {5e5, 80, 4000, 5, -0.960404634f, 0.278608948f, {0}},
        {5e5, 64, 3000, 2, -0.0601064302f, 0.998191953f, LLAMA32}, /* as it is */
        {5e5, 64, 4000, 14, 0.961217344f, 0.275792003f, LLAMA32},
        {5e5, 64, 4000, 15, 0.434788048f, -0.900532842f, LLAMA32}, /* between */
        {5e5, 64, 4000, 16, -0.146896958f, 0.989151776f, LLAMA32},
        {5e5, 64, 4000, 17, 0.925542116f, 0.378644615f, LLAMA32},
        {5e5, 64, 4000, 20, 0.999412477f, 0.0342743099f, LLAMA32}, /* divided */
        {5e5, 64, 4000, 28, 0.999999166f, 0.0012891728f, LLAMA32},
        {1e4, 64, 3000, 1, -0.99714601f, -0.0754973963f, {ROPE_LINEAR, 4, 0, 0, 0}},
        {1e4, 64, 4001, 5, 0.00639462518f, -0.999979556f, {ROPE_LINEAR, 4, 0, 0, 0}},
    };
#undef LLAMA32
    for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
        Config c = *preset_find("nano");
        c.rope_theta = table[k].theta;
        c.rope = table[k].rope;
        c.head_dim = table[k].head_dim;
        c.max_position_embeddings = 4096;
        Model m = {.config = c};
        rope_reserve(&m, 4096);
        const float *row = m.rope + (ptrdiff_t)table[k].position * c.head_dim;
        float cosine = row[table[k].i], sine = row[c.head_dim / 2 + table[k].i];
        CHECK(fabsf(cosine - table[k].cosine) < 2e-7f && fabsf(sine - table[k].sine) < 2e-7f,
              "theta %g, position %d, pair %d: %.9g, %.9g; not %.9g, %.9g", c.rope_theta,
              table[k].position, table[k].i, (double)cosine, (double)sine,
              (double)table[k].cosine, (double)table[k].sine);
        free(m.rope);
    }
}

/* in: rotated q and k; scale: q, k, v as projected, of which attention reads v. */
static double attention_loss(Layers *l)
{
    attention_forward(&l->e.worker[0], heads_of(&l->m.config), &l->b, l->in, l->scale, l->out);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

/* Two kv groups of three heads; prompts and responses shorter, equal and longer than the blocks of
 * KEYS keys and QUERIES rows. Some followers see keys of two and more blocks of their prompt. */
static void test_attention_gradient(void)
{
    static const Tree trees[] = {{37, 3, {4, 46, 2}}, {70, 0, {0}}, {32, 2, {33, 66}}, {1, 1, {2}}};
    Layers l = {.e = nan_engine(2, 4 << 20), .m = tiny_model(LLAMA, true, 50)};
    const Config *c = &l.m.config;
    int q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    l.b = batch_new(&l.e.arena, 400, 12, 400);
    for (int i = 0; i < 4; i++)
        add_tree(&l.b, &trees[i], 50, (uint32_t)i);
    l.rows = l.b.n_rows;
    l.n_out = l.rows * q;
    size_t rows = (size_t)l.rows, wide = (size_t)(q + 2 * kv), n_qk = rows * (size_t)(q + kv);
    l.in = noise_new(47, n_qk);
    for (size_t i = 0; i < n_qk; i++)
        l.in[i] *= 2; /* scores far from equal */
    l.scale = noise_new(48, rows * wide);
    l.out = nan_new((size_t)l.n_out + LANES);
    l.weight = noise_new(49, (size_t)l.n_out + LANES);
    attention_loss(&l);
    float *g = nan_new(rows * wide), *g_qk = nan_new(n_qk);
    Layer layer = {.qk = l.in, .qkv = l.scale, .att = l.out};
    attention_backward(&l.e.worker[0], heads_of(c), &l.b, &layer, l.weight, g);
    for (size_t r = 0; r < rows; r++) {
        memcpy(g_qk + r * (size_t)(q + kv), g + r * wide, (size_t)(q + kv) * sizeof *g);
        memset(g + r * wide, 0, (size_t)(q + kv) * sizeof *g); /* of `scale`, only v is read */
    }
    check_gradient(attention_loss, &l, l.in, g_qk, n_qk, 120, "attention: q and k");
    check_gradient(attention_loss, &l, l.scale, g, rows * wide, 80, "attention: v");
    free(g);
    free(g_qk);
    layers_free(&l);
}

static double swiglu_loss(Layers *l)
{
    swiglu_forward(l->out, l->in, l->rows, l->n_out / l->rows, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_swiglu_gradient(void)
{
    enum { ROWS = 4, FF = 37, N = ROWS * FF };
    Layers l = {.rows = ROWS, .n_out = N, .in = noise_new(50, 2 * N), .out = nan_new(N),
                .weight = noise_new(51, N)};
    float *g = nan_new(2 * N);
    for (int i = 0; i < 2 * N; i++)
        l.in[i] *= 4;
    swiglu_backward(g, l.weight, l.in, ROWS, FF, 1);
    check_gradient(swiglu_loss, &l, l.in, g, 2 * N, 2 * N, "SwiGLU");
    for (int i = 0; i < ROWS; i++) { /* the formula itself, once */
        double x = (double)l.in[i * 2 * FF], u = (double)l.in[i * 2 * FF + FF];
        double y = x / (1 + exp(-x)) * u;
        CHECK(fabs((double)l.out[i * FF] - y) < 1e-6 * (1 + fabs(y)), "SwiGLU(%g, %g)", x, u);
    }
    float *three = nan_new(N);
    swiglu_forward(l.out, l.in, ROWS, FF, 1);
    swiglu_forward(three, l.in, ROWS, FF, 3);
    CHECK(same_bits(three, l.out, N), "three threads change SwiGLU");
    free(three);
    free(g);
    layers_free(&l);
}

/* y = x W^T + bias: the q, k, v product of a Qwen2 layer, its three matrices and biases as one. */
static double linear_loss(Layers *l)
{
    const float *bias = at(&l->m, l->m.params, layer_tensor(1, Q_BIAS));
    Mat W = weight(&l->m, 1, QKV);
    bias_forward(l->out, bias, l->rows, W.rows);
    linear_forward(&l->e.worker[0], l->out, l->in, l->rows, W, l->out);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_linear_gradient(void)
{
    enum { ROWS = 9 };
    Layers l = {.e = nan_engine(2, 1 << 20), .m = tiny_model(QWEN2, true, 50), .rows = ROWS};
    Mat W = weight(&l.m, 1, QKV);
    int n = W.rows, k = W.cols, tensor = matrix_tensor(1, QKV);
    size_t n_in = (size_t)(ROWS * k), n_w = (size_t)n * (size_t)k;
    l.n_out = ROWS * n;
    l.in = noise_new(52, n_in);
    l.out = nan_new((size_t)l.n_out);
    l.weight = noise_new(53, (size_t)l.n_out);
    float *dx = nan_new(n_in), *dw = at(&l.m, l.m.grads, tensor);
    float *dbias = at(&l.m, l.m.grads, layer_tensor(1, Q_BIAS));
    linear_backward(&l.e.worker[0], dx, l.weight, ROWS, W);
    linear_weights_backward(&l.e.worker[0], dw, k, mat(l.weight, ROWS, n), mat(l.in, ROWS, k));
    bias_backward(dbias, l.weight, ROWS, n);
    check_gradient(linear_loss, &l, l.in, dx, n_in, 60, "linear: input");
    check_gradient(linear_loss, &l, at(&l.m, l.m.params, tensor), dw, n_w, 60,
                   "linear: weight");
    check_gradient(linear_loss, &l, at(&l.m, l.m.params, layer_tensor(1, Q_BIAS)), dbias,
                   (size_t)n, 60, "linear: bias");
    free(dx);
    layers_free(&l);
}

/* What a loss says of each target: noise for log p and, where asked for, for entropy and KL. */
static Coef head_coef(const Layers *l)
{
    float *more = l->weight + l->b.n_targets;
    return (Coef){l->weight, l->terms & 1 ? more : NULL, l->terms & 2 ? more + 5 : NULL};
}

static double head_sum(const Head *head, const Coef *coef, size_t n)
{
    return weighted_sum(head->logprob, coef->logprob, n) +
           (coef->entropy ? weighted_sum(head->entropy, coef->entropy, n) : 0) +
           (coef->kl ? weighted_sum(head->kl, coef->kl, n) : 0);
}

/* in: hidden rows; scale: the reference's. The targets, chosen in check_head_gradient, are those
 * of the batch. */
static double head_loss(Layers *l)
{
    size_t mark = l->e.worker->used;
    Pass f = {.batch = l->b, .hidden = l->in};
    Coef coef = head_coef(l);
    Reference ref = {l->ref, l->scale};
    forward_head(&l->e.worker[0], &l->m, &f, l->temperature, false, l->ref ? &ref : NULL);
    double loss = head_sum(&f.head, &coef, (size_t)l->b.n_targets);
    l->e.worker->used = mark;
    return loss;
}

/* 600 tokens are two tiles and a part; 130 targets are one block of rows and a part. `terms`: 1 the
 * entropy, 2 the KL divergence from the reference; `keep`: the logits, or they are made again. */
static void check_head_gradient(float temperature, int terms, Keep keep)
{
    enum { V = 600, TARGETS = HEAD_ROWS + 2 };
    Layers l = {.e = nan_engine(2, 8 << 20), .m = tiny_model(LLAMA, false, V), .terms = terms,
                .temperature = temperature, .weight = noise_new(54, 2 * TARGETS + 5)};
    Model reference = tiny_model(LLAMA, false, V);
    size_t d = (size_t)l.m.config.hidden_size;
    int head = lm_head(&l.m.config);
    row_scale(reference.params, reference.params, 0.7f, (int)reference.n_params);
    l.in = noise_new(55, TARGETS * d);
    l.scale = noise_new(57, TARGETS * d);
    l.ref = terms & 2 ? &reference : NULL;
    l.b = batch_new(&l.e.arena, 1, 1, TARGETS);
    for (int i = 0; i < TARGETS; i++)
        batch_target(&l.b, 0, i * 37 % V);
    float *dh = nan_new(TARGETS * d), *dw = at(&l.m, l.m.grads, head);
    Pass f = {.batch = l.b, .hidden = l.in, .keep = keep};
    Coef coef = head_coef(&l);
    Reference ref = {l.ref, l.scale};
    forward_head(&l.e.worker[0], &l.m, &f, temperature, true, l.ref ? &ref : NULL);
    head_backward(&l.e.worker[0], &l.m, &f.head, &coef, dh);
    for (int v = 0; v < V; v += TILE) /* in slices */
        head_weights_backward(&l.e.worker[0], &l.m, &f.head, &coef, v, imin(TILE, V - v), dw);
    check_gradient(head_loss, &l, l.in, dh, TARGETS * d, 60, "head: h");
    check_gradient(head_loss, &l, at(&l.m, l.m.params, head), dw, V * d, 60, "head: W");
    free(dh);
    model_free(&reference);
    layers_free(&l);
}

static void test_head_gradient(void)
{
    check_head_gradient(1.0f, 0, KEEP_NOTHING);
    check_head_gradient(0.7f, 0, KEEP_NOTHING);
}

static void test_head_terms(void)
{
    for (int terms = 1; terms <= 3; terms++)
        for (int keep = KEEP_NOTHING; keep <= KEEP_ALL; keep++)
            check_head_gradient(terms == 1 ? 1.0f : 0.7f, terms, (Keep)keep);
}

#endif
