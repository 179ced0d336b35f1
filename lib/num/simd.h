/* simd.h: one vector vocabulary for AVX-512, AVX2+FMA, NEON, WebAssembly and plain C.
 *
 * Every kernel of the program is written once, over `vf` (VL floats) and the operations below.
 * The promise that makes results equal on every machine, bit for bit:
 *   - an operation on a lane is one IEEE operation: add, subtract, multiply, divide, square root
 *     or a fused multiply-add, each correctly rounded, on every instruction set;
 *   - whatever runs ACROSS lanes (a sum over a row) goes over 16 virtual lanes: element i is added
 *     to lane i mod 16, and the 16 lanes are added in one fixed tree, whatever VL is;
 *   - exp is ours (vexp), so no library's version of it matters.
 * It holds with -ffp-contract=off and without -ffast-math, which the Makefile sees to. */
#ifndef SIMD_H
#define SIMD_H

#include "../base/util.h"

/* Vector code asks gcc for -O2 itself, between these two: then the rest may be built at -O1, in
 * half the time. It reaches from here to the end of model.c; rollouts.h is the other place. */
#if defined(__OPTIMIZE__) && !defined(__clang__) && !defined(G2RL_TEST) && \
    !defined(__SANITIZE_ADDRESS__)
#define VECTOR_CODE _Pragma("GCC push_options") _Pragma("GCC optimize(\"O2\")")
#define END_OF_VECTOR_CODE _Pragma("GCC pop_options")
#else
#define VECTOR_CODE
#define END_OF_VECTOR_CODE
#endif
VECTOR_CODE

#if !defined(SIMD_SCALAR) && defined(__AVX512F__)

#include <immintrin.h>
#define SIMD_NAME "avx512"
#define VL 16
typedef __m512 vf;
#define vload(p) _mm512_loadu_ps(p)
#define vstore(p, a) _mm512_storeu_ps(p, a)
#define vstream(p, a) _mm512_stream_ps(p, a) /* p is aligned: see row_stream */
#define vset(x) _mm512_set1_ps(x)
#define vadd(a, b) _mm512_add_ps(a, b)
#define vsub(a, b) _mm512_sub_ps(a, b)
#define vmul(a, b) _mm512_mul_ps(a, b)
#define vdiv(a, b) _mm512_div_ps(a, b)
#define vsqrt(a) _mm512_sqrt_ps(a)
#define vfma(a, b, c) _mm512_fmadd_ps(a, b, c) /* a b + c */
#define vmax(a, b) _mm512_max_ps(a, b)         /* a > b ? a : b, so b where one is NaN */
#define vmin(a, b) _mm512_min_ps(a, b)         /* a < b ? a : b */
/* p * 2^n, where n is the low bits of `r` (see vexp). */
#define vscale_exp(p, r)                                                              \
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p),                      \
                                         _mm512_slli_epi32(_mm512_castps_si512(r), 23)))

#elif !defined(SIMD_SCALAR) && defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>
#define SIMD_NAME "avx2"
#define VL 8
typedef __m256 vf;
#define vload(p) _mm256_loadu_ps(p)
#define vstore(p, a) _mm256_storeu_ps(p, a)
#define vstream(p, a) _mm256_stream_ps(p, a)
#define vset(x) _mm256_set1_ps(x)
#define vadd(a, b) _mm256_add_ps(a, b)
#define vsub(a, b) _mm256_sub_ps(a, b)
#define vmul(a, b) _mm256_mul_ps(a, b)
#define vdiv(a, b) _mm256_div_ps(a, b)
#define vsqrt(a) _mm256_sqrt_ps(a)
#define vfma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vmax(a, b) _mm256_max_ps(a, b)
#define vmin(a, b) _mm256_min_ps(a, b)
#define vscale_exp(p, r)                                                              \
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p),                      \
                                         _mm256_slli_epi32(_mm256_castps_si256(r), 23)))

#elif !defined(SIMD_SCALAR) && defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>
#define SIMD_NAME "neon"
#define VL 4
typedef float32x4_t vf;
#define vload(p) vld1q_f32(p)
#define vstore(p, a) vst1q_f32(p, a)
#define vstream(p, a) vst1q_f32(p, a)
#define vset(x) vdupq_n_f32(x)
#define vadd(a, b) vaddq_f32(a, b)
#define vsub(a, b) vsubq_f32(a, b)
#define vmul(a, b) vmulq_f32(a, b)
#define vdiv(a, b) vdivq_f32(a, b)
#define vsqrt(a) vsqrtq_f32(a)
#define vfma(a, b, c) vfmaq_f32(c, a, b)
static inline vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
#define vscale_exp(p, r)                                                              \
    vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p),                         \
                                    vshlq_n_s32(vreinterpretq_s32_f32(r), 23)))

#elif !defined(SIMD_SCALAR) && defined(__wasm_simd128__)

#include <wasm_simd128.h>
#define VL 4
typedef v128_t vf;
#define vload(p) wasm_v128_load(p)
#define vstore(p, a) wasm_v128_store(p, a)
#define vstream(p, a) wasm_v128_store(p, a)
#define vset(x) wasm_f32x4_splat(x)
#define vadd(a, b) wasm_f32x4_add(a, b)
#define vsub(a, b) wasm_f32x4_sub(a, b)
#define vmul(a, b) wasm_f32x4_mul(a, b)
#define vdiv(a, b) wasm_f32x4_div(a, b)
#define vsqrt(a) wasm_f32x4_sqrt(a)
#define vmax(a, b) wasm_f32x4_pmax(b, a) /* pmax(x, y) is x < y ? y : x */
#define vmin(a, b) wasm_f32x4_pmin(b, a)
#define vscale_exp(p, r) wasm_i32x4_add(p, wasm_i32x4_shl(r, 23))
#ifdef __wasm_relaxed_simd__
/* One rounding or two, as the engine likes; cpu_lacks (start.h) refuses those that take two. */
#define SIMD_NAME "wasm-relaxed"
#define vfma(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#else
#define SIMD_NAME "wasm"

/* Lanes 0 and 1, or 2 and 3, as doubles, in which a product of two floats is exact. */
#define vlower(x) wasm_f64x2_promote_low_f32x4(x)
#define vupper(x) wasm_f64x2_promote_low_f32x4(wasm_i32x4_shuffle(x, x, 2, 3, 2, 3))
#define vjoin(low, high)                                                     \
    wasm_i32x4_shuffle(wasm_f32x4_demote_f64x2_zero(low),                    \
                       wasm_f32x4_demote_f64x2_zero(high), 0, 1, 4, 5)

/* p + c, doubles, rounded to odd: where the sum is no double, the one of its two neighbours whose
 * last bit is 1. Rounded to float, that is never a tie, and so becomes what the sum itself would
 * (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008). `error` is what the
 * nearest double s lacks, exactly (Knuth's TwoSum). */
static inline v128_t add_to_odd(v128_t p, v128_t c)
{
    v128_t s = wasm_f64x2_add(p, c), t = wasm_f64x2_sub(s, p), zero = wasm_i64x2_splat(0);
    v128_t error = wasm_f64x2_add(wasm_f64x2_sub(p, wasm_f64x2_sub(s, t)), wasm_f64x2_sub(c, t));
    v128_t more = wasm_f64x2_gt(error, zero), less = wasm_f64x2_lt(error, zero); /* NaN: neither */
    v128_t even = wasm_i64x2_eq(wasm_v128_and(s, wasm_i64x2_splat(1)), zero);
    v128_t away = wasm_v128_xor(more, wasm_i64x2_shr(s, 63)); /* from zero: the bits go up by 1 */
    v128_t step = wasm_v128_bitselect(wasm_i64x2_splat(1), wasm_i64x2_splat(-1), away);
    return wasm_i64x2_add(s, wasm_v128_and(step, wasm_v128_and(even, wasm_v128_or(more, less))));
}

static __attribute__((noinline)) vf vfma_to_odd(vf a, vf b, vf c)
{
    return vjoin(add_to_odd(wasm_f64x2_mul(vlower(a), vlower(b)), vlower(c)),
                 add_to_odd(wasm_f64x2_mul(vupper(a), vupper(b)), vupper(c)));
}

/* The sum in double, rounded again to float. That is wrong only where the first rounding can make a
 * tie for the second: the 29 bits that a float lacks are 1 and zeros, or the result is subnormal
 * (or the smallest normal number), and has its ties elsewhere. */
static inline vf vfma(vf a, vf b, vf c)
{
    v128_t low = wasm_f64x2_add(wasm_f64x2_mul(vlower(a), vlower(b)), vlower(c));
    v128_t high = wasm_f64x2_add(wasm_f64x2_mul(vupper(a), vupper(b)), vupper(c));
    vf r = vjoin(low, high);
    v128_t rest = wasm_v128_and(wasm_i32x4_shuffle(low, high, 0, 2, 4, 6),
                                wasm_i32x4_splat(0x1FFFFFFF));
    v128_t tie = wasm_i32x4_eq(rest, wasm_i32x4_splat(0x10000000));
    v128_t bits = wasm_v128_and(r, wasm_i32x4_splat(0x7FFFFFFF));
    v128_t small = wasm_u32x4_lt(wasm_i32x4_sub(bits, wasm_i32x4_splat(1)),
                                 wasm_i32x4_splat(0x00800000)); /* but for 0, which is exact */
    bool wrong = wasm_v128_any_true(wasm_v128_or(tie, small));
    return __builtin_expect(wrong, 0) ? vfma_to_odd(a, b, c) : r;
}
#endif

#else

#define SIMD_NAME "scalar"
#define VL 1
typedef float vf;
#define vload(p) (*(p))
#define vstore(p, a) (*(p) = (a))
#define vstream(p, a) (*(p) = (a))
#define vset(x) (x)
#define vadd(a, b) ((a) + (b))
#define vsub(a, b) ((a) - (b))
#define vmul(a, b) ((a) * (b))
#define vdiv(a, b) ((a) / (b))
#define vsqrt(a) sqrtf(a)
#define vfma(a, b, c) fmaf(a, b, c)
static inline vf vmax(vf a, vf b) { return a > b ? a : b; }
static inline vf vmin(vf a, vf b) { return a < b ? a : b; }
static inline vf vscale_exp(vf p, vf r)
{
    uint32_t ip, ir;
    memcpy(&ip, &p, 4);
    memcpy(&ir, &r, 4);
    ip += ir << 23;
    memcpy(&p, &ip, 4);
    return p;
}

#endif

/* s = a b + s, where s is. A compiler that may choose puts the sum where b was, now and then; and
 * where all registers are taken, as in gemm.h, it moves and spills others to make up for it. */
#if VL == 16 && defined(__GNUC__)
#define vfma_to(s, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(s) : "v"(a), "v"(b))
#elif VL == 8 && defined(__GNUC__)
#define vfma_to(s, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(s) : "x"(a), "x"(b))
#else
#define vfma_to(s, a, b) ((s) = vfma(a, b, s))
#endif

#define LANES 16 /* virtual lanes of every sum across a row */

/* Lanes 0 .. 7 and 8 .. 15 of the vectors at v, combined by `op`. */
#if VL == 16
#define FOLD_TO_8(v, op)               \
    op(_mm512_castps512_ps256((v)[0]), \
       _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((v)[0]), 1)))
#elif VL == 8
#define FOLD_TO_8(v, op) op((v)[0], (v)[1])
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 32")
#else
#define UNROLL
#endif
#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE static inline
#endif

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#define PREFETCH_WRITE(p) __builtin_prefetch(p, 1, 3)
#else
#define PREFETCH(p) ((void)(p))
#define PREFETCH_WRITE(p) ((void)(p))
#endif
#define LINE 16 /* floats in a line of the cache */

/* The compiler shall not know how x came about: it would make, and keep in memory, what the
 * processor adds up by itself in an address. */
#if defined(__GNUC__)
#define OPAQUE(x) __asm__("" : "+r"(x))
#else
#define OPAQUE(x) ((void)(x))
#endif

/* The first n < VL floats of p, the rest 0; and the first n lanes of a to p. */
#if VL == 16
static inline vf vload_part(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void vstore_part(float *p, vf a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
#else
static inline vf vload_part(const float *p, int n)
{
    float t[VL] = {0};
    for (int i = 0; i < n; i++)
        t[i] = p[i];
    return vload(t);
}
static inline void vstore_part(float *p, vf a, int n)
{
    float t[VL];
    vstore(t, a);
    for (int i = 0; i < n; i++)
        p[i] = t[i];
}
#endif

/* out[i * ldo + j] = in[j * ldi + i] for i, j < 4 */
static inline void transpose_4x4(float *out, ptrdiff_t ldo, const float *in, ptrdiff_t ldi)
{
#if VL >= 8
    __m128 r[4] = {_mm_loadu_ps(in), _mm_loadu_ps(in + ldi), _mm_loadu_ps(in + 2 * ldi),
                   _mm_loadu_ps(in + 3 * ldi)};
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    for (int i = 0; i < 4; i++)
        _mm_storeu_ps(out + i * ldo, r[i]);
#else
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            out[i * ldo + j] = in[j * ldi + i];
#endif
}

/* Walks i over a row of n floats in steps of VL, binding `part` to how many floats are there
 * (VL but for the last step). Use vrow_load and vrow_store inside. */
#define FOR_ROW(i, part, n) \
    for (int i = 0, part; i < (n) && (part = (n) - i < VL ? (n) - i : VL, 1); i += VL)
#define vrow_load(p, part) ((part) == VL ? vload(p) : vload_part(p, part))
#define vrow_store(p, a, part)        \
    do {                              \
        if ((part) == VL)             \
            vstore(p, a);             \
        else                          \
            vstore_part(p, a, part);  \
    } while (0)

/* exp(x) per lane, within 1.01 ulp for -87.3 <= x <= 88.3; clamped outside, NaN stays NaN.
 * x = n ln 2 + f with |f| <= ln 2 / 2 (Cody and Waite), e^f by a polynomial of degree 5
 * (Cephes expf), and n added to the exponent. Adding 1.5 * 2^23 rounds x log2 e to a whole number
 * and leaves n in the low bits of the sum. */
static inline vf vexp(vf x)
{
    const vf magic = vset(12582912.0f);
    x = vmin(vset(88.3f), vmax(vset(-87.3f), x));
    vf r = vfma(x, vset(1.44269504f), magic);
    vf n = vsub(r, magic);
    vf f = vfma(n, vset(-0.693359375f), x);
    f = vfma(n, vset(2.12194440e-4f), f);
    vf p = vfma(vset(1.9875691500e-4f), f, vset(1.3981999507e-3f));
    p = vfma(p, f, vset(8.3334519073e-3f));
    p = vfma(p, f, vset(4.1665795894e-2f));
    p = vfma(p, f, vset(1.6666665459e-1f));
    p = vfma(p, f, vset(5.0000001201e-1f));
    p = vadd(vfma(p, vmul(f, f), f), vset(1.0f));
    return vmul(p, vscale_exp(vset(1.0f), r)); /* a product, so that NaN stays NaN */
}

/* ---------------------------------------------------------------- sums across a row */

/* The 16 virtual lanes, as 16 / VL vectors: element i of a row belongs to lane i mod 16. */
typedef struct {
    vf v[LANES / VL];
} Lanes;

static inline Lanes lanes_zero(void)
{
    Lanes s;
    for (int u = 0; u < LANES / VL; u++)
        s.v[u] = vset(0.0f);
    return s;
}

#define LANE_OF(s, i) ((s).v[(i) / VL % (LANES / VL)])

/* The fixed tree: the upper half of the lanes is added to the lower half until one is left. */
static inline float lanes_sum(Lanes s)
{
#if VL >= 8
    __m256 h = FOLD_TO_8(s.v, _mm256_add_ps);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#else
    float t[LANES];
    for (int u = 0; u < LANES; u += VL)
        vstore(t + u, s.v[u / VL]);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int u = 0; u < half; u++)
            t[u] += t[u + half];
    return t[0];
#endif
}

/* The largest lane; a maximum is exact, so its order is free. */
static inline float vmax_lane(vf a)
{
#if VL >= 8
    vf both[2] = {a, a};
    __m256 h = FOLD_TO_8(both, _mm256_max_ps);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
#else
    float t[VL];
    vstore(t, a);
    for (int u = 1; u < VL; u++)
        t[0] = t[u] > t[0] ? t[u] : t[0];
    return t[0];
#endif
}

/* sum_i a_i b_i */
static inline float row_dot(const float *a, const float *b, int n)
{
    Lanes s = lanes_zero();
    FOR_ROW (i, part, n)
        LANE_OF(s, i) = vfma(vrow_load(a + i, part), vrow_load(b + i, part), LANE_OF(s, i));
    return lanes_sum(s);
}

/* sum_i x_i */
static inline float row_sum(const float *x, int n)
{
    Lanes s = lanes_zero();
    FOR_ROW (i, part, n)
        LANE_OF(s, i) = vadd(LANE_OF(s, i), vrow_load(x + i, part));
    return lanes_sum(s);
}

/* max_i x_i. NaN anywhere may be lost here: the exps that follow carry it. */
static inline float row_max(const float *x, int n)
{
    float best = x[0];
    int i = 0;
    if (n >= VL) {
        vf m = vload(x);
        for (i = VL; i + VL <= n; i += VL)
            m = vmax(m, vload(x + i));
        best = vmax_lane(m);
    }
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

/* out_i = exp((x_i - shift) scale); returns their sum over the 16 lanes. out may be x. What is
 * added is loaded again: beyond the row's end it is 0 then, and not some exp. */
static inline float row_exp(float *out, const float *x, int n, float shift, float scale)
{
    Lanes s = lanes_zero();
    FOR_ROW (i, part, n) {
        vf e = vexp(vmul(vsub(vrow_load(x + i, part), vset(shift)), vset(scale)));
        vrow_store(out + i, e, part);
        LANE_OF(s, i) = vadd(LANE_OF(s, i), vrow_load(out + i, part));
    }
    return lanes_sum(s);
}

/* out_i = exp(x_i scale - shift) factor; out may be x */
static inline void row_exp_scaled(float *out, const float *x, int n, float scale, float shift,
                                  float factor)
{
    FOR_ROW (i, part, n) {
        vf e = vexp(vsub(vmul(vrow_load(x + i, part), vset(scale)), vset(shift)));
        vrow_store(out + i, vmul(e, vset(factor)), part);
    }
}

/* y_i = x_i, where y is not read soon: past the cache, which would first fetch the lines that are
 * written. Other threads see what a thread wrote after its stream_end. */
static inline void row_stream(float *y, const float *x, int n)
{
    int i = 0;
    for (; (uintptr_t)y % sizeof(vf) == 0 && i + VL <= n; i += VL)
        vstream(y + i, vload(x + i));
    memcpy(y + i, x + i, (size_t)(n - i) * sizeof(float));
}

static inline void stream_end(void)
{
#if VL >= 8
    _mm_sfence();
#endif
}

/* y_i = x_i * a */
static inline void row_scale(float *y, const float *x, float a, int n)
{
    FOR_ROW (i, part, n)
        vrow_store(y + i, vmul(vrow_load(x + i, part), vset(a)), part);
}

/* y_i = a x_i + y_i */
static inline void row_axpy(float *y, float a, const float *x, int n)
{
    FOR_ROW (i, part, n)
        vrow_store(y + i, vfma(vset(a), vrow_load(x + i, part), vrow_load(y + i, part)), part);
}

#endif
