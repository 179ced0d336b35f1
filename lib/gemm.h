/* gemm.h: single-precision matrix products, in the three layouts that training needs.
 *
 *   forward   Y[m,n]  (+)= X[m,k]  W[n,k]^T     a layer's output
 *   backward  dX[m,k] (+)= dY[m,n] W[n,k]       the gradient of its input
 *   weights   dW[n,k]  += dY[m,n]^T X[m,k]      the gradient of its weights
 *
 * All three are C[M,N] (+)= A[M,K] B[K,N] with A and B read through strides, so there is one
 * kernel text. THE promise, on which every bitwise guarantee of this program rests: each output is
 * exactly the chain
 *         s = C[i,j] or 0;   for k = 0 .. K-1 in order:  s = fmaf(A[i,k], B[k,j], s)
 * whatever the tile, the blocking or the instruction set. So a row's result
 * does not depend on the rows it is computed beside, and a sum over rows (the weights' gradient)
 * may be cut into pieces that continue each other.
 *
 * How (Goto's scheme): B is packed into panels of NR = 2 vectors, [k][NR], zero-padded; a tile of
 * MR rows times one panel lives in registers while k runs; A is read in place by broadcast. */
#ifndef GEMM_H
#define GEMM_H

#include "simd.h"

enum {
    NR = 2 * VL,   /* columns of a panel */
    MR = VL == 16 ? 14 : VL == 8 ? 6 : VL == 4 ? 10 : 6, /* rows of a tile: fills the registers */
    KC = 1024,     /* k is cut into blocks so that a panel stays in the cache */
    MC = 112       /* rows that go through one panel after the other */
};

/* C[mr, nv * VL] (+)= A[mr, K] B[K, nv * VL]: the register tile. A[i][k] is a[i * rs + k * cs]. */
ALWAYS_INLINE void tile(const int mr, const int nv, int K, const float *a, ptrdiff_t rs,
                        ptrdiff_t cs, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
                        bool accumulate)
{
    vf s[MR][2];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            s[i][v] = accumulate ? vload(c + i * ldc + v * VL) : vset(0.0f);
    for (int k = 0; k < K; k++, a += cs, b += ldb) {
        vf b0 = vload(b), b1 = nv > 1 ? vload(b + VL) : b0;
        UNROLL for (int i = 0; i < mr; i++) {
            vf x = vset(a[i * rs]);
            s[i][0] = vfma(x, b0, s[i][0]);
            if (nv > 1)
                s[i][1] = vfma(x, b1, s[i][1]);
        }
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            vstore(c + i * ldc + v * VL, s[i][v]);
}

/* The tile of each height, compiled with its height known. */
static void tile_rows(int mr, int nv, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                      const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, bool accumulate)
{
#define CASE(h)                                                        \
    case h:                                                            \
        if (nv == 2)                                                   \
            tile(h, 2, K, a, rs, cs, b, ldb, c, ldc, accumulate);      \
        else                                                           \
            tile(h, 1, K, a, rs, cs, b, ldb, c, ldc, accumulate);      \
        break;
    switch (mr) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if VL == 16 || VL == 4
        CASE(7) CASE(8) CASE(9) CASE(10)
#endif
#if VL == 16
        CASE(11) CASE(12) CASE(13) CASE(14)
#endif
    }
#undef CASE
}

/* C[M,N] (+)= A B for N columns of one panel (N <= NR), B[k][j] at b[k * ldb + j] and readable up
 * to the next multiple of VL columns. Rows are split into tiles of nearly equal height. Where N is
 * no multiple of VL the tile goes through a small copy, so that nothing beside C is written. */
static void gemm_panel(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, bool accumulate)
{
    float edge[MR * NR];
    int tiles = (M + MR - 1) / MR, nv = (N + VL - 1) / VL;
    for (int t = 0; t < tiles; t++) {
        int i0 = (int)((int64_t)M * t / tiles), mr = (int)((int64_t)M * (t + 1) / tiles) - i0;
        const float *ai = a + i0 * rs;
        float *ci = c + i0 * ldc;
        if (N == nv * VL) {
            tile_rows(mr, nv, K, ai, rs, cs, b, ldb, ci, ldc, accumulate);
            continue;
        }
        size_t bytes = (size_t)N * sizeof(float);
        memset(edge, 0, sizeof edge);
        for (int i = 0; accumulate && i < mr; i++)
            memcpy(edge + i * NR, ci + i * ldc, bytes);
        tile_rows(mr, nv, K, ai, rs, cs, b, ldb, edge, NR, accumulate);
        for (int i = 0; i < mr; i++)
            memcpy(ci + i * ldc, edge + i * NR, bytes);
    }
}

/* A small product with B in place: attention's. Both B and C must be readable and
 * C writable up to the next multiple of VL columns. */
static void gemm_small(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc, bool accumulate)
{
    for (int j = 0; j < N; j += NR)
        gemm_panel(M, imin(NR, round_up(N - j, VL)), K, a, rs, cs, b + j, ldb, c + j, ldc,
                   accumulate);
}

/* ---------------------------------------------------------------- packing */

/* Floats that a packed B[K,N] takes: panels are whole. */
static size_t packed_floats(int K, int N) { return (size_t)K * (size_t)round_up(N, NR); }

/* Packs panel j of the k-block [k0, k0 + kc): out[k][0..NR). B[k][j] is b[k * rsb + j * csb]; one
 * of the strides is 1. */
static void pack_panel(float *out, const float *b, ptrdiff_t rsb, ptrdiff_t csb, int kc, int width)
{
    if (width < NR)
        memset(out, 0, (size_t)kc * NR * sizeof(float));
    if (csb == 1) {
        for (int k = 0; k < kc; k++)
            memcpy(out + (ptrdiff_t)k * NR, b + k * rsb, (size_t)width * sizeof(float));
        return;
    }
    for (int k0 = 0; k0 < kc; k0 += 16) /* 16 at a time: both sides stay in the cache */
        for (int j = 0; j < width; j++)
            for (int k = k0; k < imin(kc, k0 + 16); k++)
                out[(ptrdiff_t)k * NR + j] = b[k * rsb + j * csb];
}

/* Packs all of B[K,N]: for each block of KC values of k, panel after panel. */
static void gemm_pack(int K, int N, const float *b, ptrdiff_t rsb, ptrdiff_t csb, float *out)
{
    int panels = (N + NR - 1) / NR;
    for (int k0 = 0; k0 < K; k0 += KC)
        for (int j = 0; j < N; j += NR) {
            int kc = imin(KC, K - k0);
            pack_panel(out + (size_t)k0 * (size_t)(panels * NR) + (size_t)kc * (size_t)j,
                       b + k0 * rsb + j * csb, rsb, csb, kc, imin(NR, N - j));
        }
}

/* ---------------------------------------------------------------- whole products */

/* The columns of panels p0 .. p1-1 of C[M,N] (+)= A[M,K] B, with B packed by gemm_pack. c points at
 * the first of these columns. */
static void gemm_panels(int M, int N, int K, int p0, int p1, const float *a, ptrdiff_t rs,
                        ptrdiff_t cs, const float *packed, float *c, ptrdiff_t ldc, bool accumulate)
{
    size_t panels = (size_t)((N + NR - 1) / NR);
    for (int i0 = 0; i0 < M; i0 += MC)
        for (int k0 = 0; k0 < K; k0 += KC) {
            int kc = imin(KC, K - k0);
            const float *block = packed + (size_t)k0 * panels * NR;
            for (int p = p0; p < p1; p++)
                gemm_panel(imin(MC, M - i0), imin(NR, N - p * NR), kc, a + i0 * rs + k0 * cs, rs,
                           cs, block + (size_t)kc * (size_t)p * NR, NR,
                           c + i0 * ldc + (p - p0) * NR, ldc, accumulate || k0 > 0);
        }
}

/* All columns. */
static void gemm_packed(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                        const float *packed, float *c, ptrdiff_t ldc, bool accumulate)
{
    gemm_panels(M, N, K, 0, (N + NR - 1) / NR, a, rs, cs, packed, c, ldc, accumulate);
}

/* The same with B as it lies: packed here, into the arena's memory. */
static void gemm(Arena *arena, int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                 const float *b, ptrdiff_t rsb, ptrdiff_t csb, float *c, ptrdiff_t ldc,
                 bool accumulate)
{
    size_t mark = arena->used;
    float *packed = arena_floats(arena, packed_floats(K, N));
    gemm_pack(K, N, b, rsb, csb, packed);
    gemm_packed(M, N, K, a, rs, cs, packed, c, ldc, accumulate);
    arena->used = mark;
}

/* dX[m,k] = dY[m,n] W[n,k] */
static void gemm_backward(Arena *arena, int m, int n, int k, const float *dy, const float *w,
                          float *dx)
{
    gemm(arena, m, k, n, dy, n, 1, w, k, 1, dx, k, false);
}

/* dW[n,k] += dY[m,n]^T X[m,k]: one chain over the m rows, in order. dY's rows are ldy apart. */
static void gemm_weights(Arena *arena, int m, int n, int k, const float *dy, ptrdiff_t ldy,
                         const float *x, float *dw)
{
    gemm(arena, n, k, m, dy, 1, ldy, x, k, 1, dw, k, true);
}

#endif
