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
 * whatever the tile, the blocking or the instruction set. So a row's result does not depend on the
 * rows it is computed beside, and a sum over rows (the weights' gradient) may be cut into pieces
 * that continue each other.
 *
 * How (Goto's scheme): B is packed into panels of NR = 2 vectors, [k][NR], zero-padded; a tile of
 * MR rows times one panel lives in registers while k runs; A is read in place by broadcast. While
 * one panel is multiplied, the next is already on its way from memory. */
#ifndef GEMM_H
#define GEMM_H

#include "simd.h"

enum {
    NR = 2 * VL,   /* columns of a panel */
    MR = VL == 16 ? 14 : VL == 8 ? 6 : VL == 4 ? 10 : 6, /* rows of a tile: fills the registers */
    KC = 1024,     /* k is cut into blocks so that a panel stays in the cache */
    BLOCK = 1 << 17 /* floats of A that go through one panel after the other: half of 1 MiB of L2 */
};

/* C[mr, nv * VL] = base + A[mr, K] B[K, nv * VL]: the register tile. A[i][k] is a[i * rs + k * cs];
 * base has C's layout, may be C, and stands for zero where it is NULL. Every step of k also asks
 * for a line of the panel to come, for A's 16 steps ahead, and now and then for one of the C below,
 * where the next tile will be: few at a time, or those that are needed now would stand in line. */
ALWAYS_INLINE void tile(const int mr, const int nv, int K, const float *a, ptrdiff_t rs,
                        ptrdiff_t cs, const float *b, ptrdiff_t ldb, const float *base, float *c,
                        ptrdiff_t ldc, const float *next)
{
    vf s[MR][2];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            s[i][v] = base ? vload(base + i * ldc + v * VL) : vset(0.0f);
    for (int k = 0; k < K; k++, a += cs, b += ldb, next += LINE) {
        vf b0 = vload(b), b1 = nv > 1 ? vload(b + VL) : b0;
        PREFETCH(next);
        PREFETCH(a + 16 * cs);
        PREFETCH(a + 16 * cs + (mr - 1) * rs);
        if (k < 4 * mr && k % 4 == 0) {
            PREFETCH_WRITE(c + (mr + k / 4) * ldc);
            PREFETCH_WRITE(c + (mr + k / 4) * ldc + (nv - 1) * VL);
        }
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
                      const float *b, ptrdiff_t ldb, const float *base, float *c, ptrdiff_t ldc,
                      const float *next)
{
#define CASE(h)                                                        \
    case h:                                                            \
        if (nv == 2)                                                   \
            tile(h, 2, K, a, rs, cs, b, ldb, base, c, ldc, next);      \
        else                                                           \
            tile(h, 1, K, a, rs, cs, b, ldb, base, c, ldc, next);      \
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

/* C[M,N] = base + A B for N columns of one panel (N <= NR), B[k][j] at b[k * ldb + j] and readable
 * up to the next multiple of VL columns. Rows are split into tiles of nearly equal height; the
 * first ones prefetch the panel at `next`, as large as this one. Where N is no multiple of VL the
 * tile goes through a small copy, so that nothing beside C is written. */
static void gemm_panel(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t ldb, const float *base, float *c, ptrdiff_t ldc,
                       const float *next)
{
    float edge[MR * NR];
    int tiles = (M + MR - 1) / MR, nv = (N + VL - 1) / VL;
    size_t bytes = (size_t)N * sizeof(float);
    for (int t = 0; t < tiles; t++) {
        int i0 = (int)((int64_t)M * t / tiles), mr = (int)((int64_t)M * (t + 1) / tiles) - i0;
        const float *ai = a + i0 * rs, *from = base ? base + i0 * ldc : NULL;
        const float *soon = t * LINE < NR ? next + (ptrdiff_t)t * K * LINE : next;
        float *ci = c + i0 * ldc;
        if (N == nv * VL) {
            tile_rows(mr, nv, K, ai, rs, cs, b, ldb, from, ci, ldc, soon);
            continue;
        }
        memset(edge, 0, sizeof edge);
        for (int i = 0; base && i < mr; i++)
            memcpy(edge + i * NR, from + i * ldc, bytes);
        tile_rows(mr, nv, K, ai, rs, cs, b, ldb, edge, edge, NR, soon);
        for (int i = 0; i < mr; i++)
            memcpy(ci + i * ldc, edge + i * NR, bytes);
    }
}

/* A small product with B in place: attention's. B and C must be readable, and C writable, up to the
 * next multiple of VL columns. */
static void gemm_small(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t ldb, const float *base, float *c, ptrdiff_t ldc)
{
    for (int j = 0; j < N; j += NR)
        gemm_panel(M, imin(NR, round_up(N - j, VL)), K, a, rs, cs, b + j, ldb,
                   base ? base + j : NULL, c + j, ldc, b + j);
}

/* ---------------------------------------------------------------- packing */

/* Floats that a packed B[K,N] takes: panels are whole. */
static size_t packed_floats(int K, int N) { return (size_t)K * (size_t)round_up(N, NR); }

/* Packs one panel of kc values of k: out[k][0 .. NR), zero from column `width` on. B[k][j] is
 * b[k * rsb + j * csb]; one of the strides is 1. */
static void pack_panel(float *out, const float *b, ptrdiff_t rsb, ptrdiff_t csb, int kc, int width)
{
    if (width < NR)
        memset(out, 0, (size_t)kc * NR * sizeof(float));
    if (csb == 1) {
        for (int k = 0; k < kc; k++, out += NR, b += rsb)
            FOR_ROW (j, part, width)
                vrow_store(out + j, vrow_load(b + j, part), part);
        return;
    }
    for (int k0 = 0; k0 < kc; k0 += 16) /* 16 at a time: both sides stay in the cache */
        for (int j = 0; j < width; j++)
            for (int k = k0; k < imin(kc, k0 + 16); k++)
                out[(ptrdiff_t)k * NR + j] = b[k * rsb + j * csb];
}

/* Packs panels p0 .. p1-1 of one block of kc values of k. */
static void pack_range(int kc, int N, int p0, int p1, const float *b, ptrdiff_t rsb, ptrdiff_t csb,
                       float *out)
{
    for (int p = p0; p < p1; p++)
        pack_panel(out + (ptrdiff_t)kc * p * NR, b + (ptrdiff_t)p * NR * csb, rsb, csb, kc,
                   imin(NR, N - p * NR));
}

/* Packs all of B[K,N]: for each block of KC values of k, panel after panel. */
static void gemm_pack(int K, int N, const float *b, ptrdiff_t rsb, ptrdiff_t csb, float *out)
{
    int panels = (N + NR - 1) / NR;
    for (int k0 = 0; k0 < K; k0 += KC)
        pack_range(imin(KC, K - k0), N, 0, panels, b + k0 * rsb, rsb, csb,
                   out + (size_t)k0 * (size_t)(panels * NR));
}

/* ---------------------------------------------------------------- whole products */

/* Rows (or, where A is read down its columns, columns) a multiple of 2 KiB apart fall on the same
 * few sets of the cache and push each other out. */
static bool collide(ptrdiff_t stride) { return stride % 512 == 0; }

/* Copies a block of A[m, k] to where its rows (or columns) do not collide, an odd number of lines
 * of the cache apart, and sets the strides to match. */
static const float *spread_out(Arena *arena, int m, int k, const float *a, ptrdiff_t *rs,
                               ptrdiff_t *cs)
{
    bool along = *cs == 1; /* rows are contiguous, or columns are */
    int runs = along ? m : k, length = along ? k : m;
    ptrdiff_t *stride = along ? rs : cs, ld = round_up(length, 2 * LINE) + LINE;
    float *copy = arena_floats(arena, (size_t)runs * (size_t)ld);
    for (int r = 0; r < runs; r++)
        memcpy(copy + r * ld, a + r * *stride, (size_t)length * sizeof(float));
    *stride = ld;
    return copy;
}

/* The columns of panels p0 .. p1-1 for one block of rows and of k. b points at panel 0, c and base
 * at column `left`. */
static void gemm_range(int M, int N, int K, int p0, int p1, const float *a, ptrdiff_t rs,
                       ptrdiff_t cs, const float *b, const float *base, float *c, ptrdiff_t ldc,
                       int left)
{
    for (int p = p0; p < p1; p++) {
        const float *panel = b + (ptrdiff_t)K * p * NR;
        int j = p * NR - left;
        gemm_panel(M, imin(NR, N - p * NR), K, a, rs, cs, panel, NR, base ? base + j : NULL, c + j,
                   ldc, p + 1 < p1 ? panel + (ptrdiff_t)K * NR : panel);
    }
}

/* The columns of panels p0 .. p1-1 of C[M,N] = base + A[M,K] B, with B packed by gemm_pack. c and
 * base point at the first of these columns; base may be c, or NULL for zero. */
static void gemm_panels(Arena *arena, int M, int N, int K, int p0, int p1, const float *a,
                        ptrdiff_t rs, ptrdiff_t cs, const float *packed, const float *base,
                        float *c, ptrdiff_t ldc)
{
    size_t panels = (size_t)((N + NR - 1) / NR), mark = arena->used;
    int threads = arena->threads; /* a region costs too much where one thread is alone */
    int blocks = (int)(((int64_t)M * imin(K, KC) + BLOCK - 1) / BLOCK);
    for (int t = 0; t < blocks; t++) {
        int i0 = (int)((int64_t)M * t / blocks), m = (int)((int64_t)M * (t + 1) / blocks) - i0;
        for (int k0 = 0; k0 < K; k0 += KC) {
            int kc = imin(KC, K - k0);
            ptrdiff_t rsa = rs, csa = cs;
            const float *block = packed + (size_t)k0 * panels * NR, *ai = a + i0 * rs + k0 * cs;
            const float *from = k0 > 0 ? c : base;
            if (m > MR / 2 && collide(rs == 1 ? cs : rs))
                ai = spread_out(arena, m, kc, ai, &rsa, &csa);
            from = from ? from + i0 * ldc : NULL;
            if (threads > 1) {
                PARALLEL_FOR (threads)
                for (int u = 0; u < threads; u++)
                    gemm_range(m, N, kc, p0 + (p1 - p0) * u / threads,
                               p0 + (p1 - p0) * (u + 1) / threads, ai, rsa, csa, block, from,
                               c + i0 * ldc, ldc, p0 * NR);
            } else
                gemm_range(m, N, kc, p0, p1, ai, rsa, csa, block, from, c + i0 * ldc, ldc, p0 * NR);
            arena->used = mark;
        }
    }
}

/* All columns. */
static void gemm_packed(Arena *arena, int M, int N, int K, const float *a, ptrdiff_t rs,
                        ptrdiff_t cs, const float *packed, const float *base, float *c,
                        ptrdiff_t ldc)
{
    gemm_panels(arena, M, N, K, 0, (N + NR - 1) / NR, a, rs, cs, packed, base, c, ldc);
}

/* The same with B as it lies: packed here, into the arena's memory, KC values of k at a time. */
static void gemm(Arena *arena, int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                 const float *b, ptrdiff_t rsb, ptrdiff_t csb, const float *base, float *c,
                 ptrdiff_t ldc)
{
    size_t mark = arena->used;
    int panels = (N + NR - 1) / NR, threads = arena->threads;
    float *packed = arena_floats(arena, packed_floats(imin(K, KC), N));
    for (int k0 = 0; k0 < K; k0 += KC) {
        int kc = imin(KC, K - k0);
        const float *block = b + k0 * rsb;
        if (threads > 1) {
            PARALLEL_FOR (threads)
            for (int u = 0; u < threads; u++)
                pack_range(kc, N, panels * u / threads, panels * (u + 1) / threads, block, rsb, csb,
                           packed);
        } else
            pack_range(kc, N, 0, panels, block, rsb, csb, packed);
        gemm_packed(arena, M, N, kc, a + k0 * cs, rs, cs, packed, k0 > 0 ? c : base, c, ldc);
    }
    arena->used = mark;
}

/* dX[m,k] = dY[m,n] W[n,k] */
static void gemm_backward(Arena *arena, int m, int n, int k, const float *dy, const float *w,
                          float *dx)
{
    gemm(arena, m, k, n, dy, n, 1, w, k, 1, NULL, dx, k);
}

/* dW[n,k] += dY[m,n]^T X[m,k]: one chain over the m rows, in order. dY's rows are ldy apart. */
static void gemm_weights(Arena *arena, int m, int n, int k, const float *dy, ptrdiff_t ldy,
                         const float *x, float *dw)
{
    gemm(arena, n, k, m, dy, 1, ldy, x, k, 1, dw, dw, k);
}

#endif
