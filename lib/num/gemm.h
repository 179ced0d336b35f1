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
 * MR rows times one panel lives in registers while k runs; A is read by broadcast, in place or,
 * down its columns, from a copy in the order of the tiles. While one panel is multiplied, the next
 * is already on its way from memory. What a tile does beside its multiply-adds (loads, addresses,
 * prefetching) takes turns with them, so it is kept little: four steps of k at once. */
#ifndef GEMM_H
#define GEMM_H

#include "simd.h"

enum {
    NR = 2 * VL,   /* columns of a panel */
    MR = VL == 16 ? 14 : VL == 8 ? 6 : VL == 4 ? 10 : 6, /* rows of a tile: fills the registers */
    KC = 1024,     /* k is cut into blocks so that a panel stays in the cache */
    BLOCK = 1 << 17, /* floats of A that go through one panel after the other: half a MiB of L2 */
    K_STEPS = 4      /* values of k from one look at what is to be asked for to the next */
};

/* The rows of A that a tile reads, element k of row i: where rows are contiguous, `first` points at
 * row 0's next one, and so on by fours; where columns are (`down`), at the next column's first. */
typedef struct {
    const float *first[(MR + 3) / 4];
    ptrdiff_t stride, twice, thrice; /* from one row to the next, or from one column */
} TileRows;

/* s[i][v] += a_i,k b_k,v for the k-th of the elements that `r` points at; b_k,0 and b_k,1 are at b
 * and b + second */
ALWAYS_INLINE void tile_step(const int mr, const int nv, const bool down, vf s[MR][2],
                             const TileRows *r, const int k, const float *b, ptrdiff_t second)
{
    const ptrdiff_t past[4] = {0, r->stride, r->twice, r->thrice};
    vf b0 = vload(b), b1 = nv > 1 ? vload(b + second) : b0;
    UNROLL for (int i = 0; i < mr; i++) {
        vf x = vset(down ? r->first[0][i] : (r->first[i / 4] + past[i % 4])[k]);
        vfma_to(s[i][0], x, b0);
        if (nv > 1)
            vfma_to(s[i][1], x, b1);
    }
}

ALWAYS_INLINE void tile_next(const int mr, const bool down, TileRows *r, const int k)
{
    UNROLL for (int g = 0; g < (mr + 3) / 4; g++)
        r->first[g] += down ? r->stride : k;
}

/* What a tile asks the memory for while it works, a little at a time, or what is needed now would
 * stand in line: at every `every`-th look (0: at none) `step` floats, in lines, of each quarter of
 * the next panel, or of its HALVES by turns (a memory fetches several streams faster than one), and
 * a row of the C that is written next. */
enum { HALVES = VL == 16 ? 2 : 1 }; /* of narrow panels, four streams are as fast or faster */
typedef struct {
    const float *panel, *c;
    ptrdiff_t quarter; /* floats */
    ptrdiff_t row;     /* from one row of that C to the next; 0: the first alone */
    int every, step;
} Soon;

/* C[mr, nv * VL] = base + A[mr, K] B[K, nv * VL]: the register tile. A[i][k] is a[i * stride + k],
 * or, `down`, a[i + k * stride]; B's row k is at b + k * ldb, its vectors `second` floats apart;
 * base has C's layout, may be C, and stands for zero where it is NULL. */
ALWAYS_INLINE void tile(const int mr, const int nv, const bool down, int K, const float *a,
                        ptrdiff_t stride, const float *b, ptrdiff_t ldb, ptrdiff_t second,
                        const float *base, float *c, ptrdiff_t ldc, const Soon *soon)
{
    const float *panel = soon->panel, *next_c = soon->c;
    const ptrdiff_t quarter = soon->quarter;
    ptrdiff_t jump = quarter / 2; /* to the other half of each quarter, and back */
    vf s[MR][2];
    TileRows r = {{a}, stride, 2 * stride, 3 * stride};
    UNROLL for (int g = 1; g < (mr + 3) / 4; g++)
        r.first[g] = a + 4 * g * stride;
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            s[i][v] = base ? vload(base + i * ldc + v * VL) : vset(0.0f);
    int k = 0, wait = soon->every > 0;
    for (; k + K_STEPS <= K; k += K_STEPS) {
        if (--wait == 0) {
            wait = soon->every;
            for (const float *line = panel; line < panel + soon->step; line += LINE)
                UNROLL for (int u = 0; u < 4; u++)
                    PREFETCH(line + u * quarter);
            PREFETCH_WRITE(next_c);
            PREFETCH_WRITE(next_c + (nv - 1) * VL);
            panel += HALVES > 1 ? jump : soon->step;
            jump = soon->step - jump;
            next_c += soon->row;
        }
        OPAQUE(r.stride); /* each time, or their sums with u would be kept in memory */
        OPAQUE(r.twice);
        OPAQUE(r.thrice);
        UNROLL for (int u = 0; u < K_STEPS; u++, b += ldb) {
            tile_step(mr, nv, down, s, &r, down ? 0 : u, b, second);
            if (down)
                tile_next(mr, down, &r, 1);
        }
        if (!down)
            tile_next(mr, down, &r, K_STEPS);
    }
    for (; k < K; k++, b += ldb) {
        tile_step(mr, nv, down, s, &r, 0, b, second);
        tile_next(mr, down, &r, 1);
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            vstore(c + i * ldc + v * VL, s[i][v]);
}

/* The tile of each height, compiled with its height known. Element [i][k] of A is at
 * a[i * rs + k * cs]; one of the strides is 1. */
ALWAYS_INLINE void tile_rows(int mr, const int nv, int K, const float *a, ptrdiff_t rs,
                             ptrdiff_t cs, const float *b, ptrdiff_t ldb, ptrdiff_t second,
                             const float *base, float *c, ptrdiff_t ldc, const Soon *soon)
{
#define CASE(h)                                                               \
    case h:                                                                   \
        if (rs == 1)                                                          \
            tile(h, nv, true, K, a, cs, b, ldb, second, base, c, ldc, soon);  \
        else                                                                  \
            tile(h, nv, false, K, a, rs, b, ldb, second, base, c, ldc, soon); \
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

/* Once more for each kind of B: a panel, whose rows lie close together, so that one pointer and
 * constants lead to each; and any matrix in place, nv vectors of each row. */
static void tile_panel(int mr, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *panel, const float *base, float *c, ptrdiff_t ldc,
                       const Soon *soon)
{
    tile_rows(mr, 2, K, a, rs, cs, panel, NR, VL, base, c, ldc, soon);
}

static void tile_in_place(int mr, int nv, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                          const float *b, ptrdiff_t ldb, ptrdiff_t second, const float *base,
                          float *c, ptrdiff_t ldc, const Soon *soon)
{
    if (nv == 2)
        tile_rows(mr, 2, K, a, rs, cs, b, ldb, second, base, c, ldc, soon);
    else
        tile_rows(mr, 1, K, a, rs, cs, b, ldb, 0, base, c, ldc, soon);
}

/* Where A[M,K] lies: element [i][k] at a[i * rs + k * cs], one of the strides being 1; or, `tiled`,
 * tile after tile as gemm_panel cuts it, each [K][TILED]. */
enum { TILED = (MR + VL - 1) / VL * VL };
typedef struct {
    const float *a;
    ptrdiff_t rs, cs;
    bool tiled;
} Rows;

static int tiles_of(int M) { return (M + MR - 1) / MR; }

/* The first row of tile t: M rows are cut into tiles of nearly equal height. */
static int tile_begin(int M, int t)
{
    int tiles = tiles_of(M);
    return t < tiles ? (int)((int64_t)M * t / tiles) : M; /* often the only tile: no division */
}

/* A panel, [K][NR]. */
typedef struct {
    const float *b;
    int K;
} Panel;

/* How each of some tiles asks: for `lines` lines of each quarter of the next panel, and, unless the
 * tiles are so few that C is near anyway, for as many rows of C as it may have. Evenly, from its
 * first step to its last: a memory that is asked for all at once delivers less. Up to three tiles
 * may have more lines than looks, or not a whole number a look: there the step makes up for it. */
static Soon ask_evenly(int tiles, int lines, int K, ptrdiff_t ldc)
{
    int looks = imax(1, K / K_STEPS), every = imax(1, looks / imax(tiles > 3 ? MR : 1, lines));
    int step = tiles > 3 ? LINE : (lines * LINE * every + looks - 1) / looks;
    return (Soon){.row = tiles > 6 ? ldc : 0, .every = every, .step = step};
}

/* C[M,N] = base + A B for N columns (N <= NR) of a panel. The tiles ask for the `next` one, and
 * each for the C of the tile below, or, after the last one, beside the first. Where the panel is
 * wider than C the tile goes through a small copy, so that nothing beside C is written. */
static void gemm_panel(int M, int N, Rows A, Panel panel, Panel next, const float *base, float *c,
                       ptrdiff_t ldc)
{
    float edge[MR * NR];
    bool whole = N == NR;
    size_t bytes = (size_t)N * sizeof(float);
    int K = panel.K, tiles = tiles_of(M), stream = next.K * NR / (4 * HALVES * LINE);
    int lines = (stream + tiles - 1) / tiles * HALVES;
    Soon soon = ask_evenly(tiles, lines, K, ldc);
    soon.quarter = (ptrdiff_t)next.K * NR / 4;
    if (!whole)
        memset(edge, 0, sizeof edge);
    for (int t = 0, i0 = 0, i1; t < tiles; t++, i0 = i1) {
        i1 = tile_begin(M, t + 1);
        int mr = i1 - i0;
        const float *a = A.a + (A.tiled ? (ptrdiff_t)t * K * TILED : i0 * A.rs);
        const float *from = base ? base + i0 * ldc : NULL;
        float *ci = c + i0 * ldc;
        soon.panel = next.b + (ptrdiff_t)t * (lines / HALVES) * LINE;
        soon.c = i1 < M ? c + i1 * ldc : c + NR;
        for (int i = 0; !whole && base && i < mr; i++)
            memcpy(edge + i * NR, from + i * ldc, bytes);
        tile_panel(mr, K, a, A.rs, A.cs, panel.b, whole || !base ? from : edge, whole ? ci : edge,
                   whole ? ldc : NR, &soon);
        for (int i = 0; !whole && i < mr; i++)
            memcpy(ci + i * ldc, edge + i * NR, bytes);
    }
}

/* A small product with B in place: attention's. B's columns lie in groups of LANES, `group` floats
 * from one to the next (LANES: side by side), its rows ldb apart. B and C must be readable, and C
 * writable, up to the next multiple of VL columns. Meanwhile the first tile asks for what is read
 * after B: as many floats, in whole groups, from `next` on, if that is not NULL. */
static void gemm_small(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t ldb, ptrdiff_t group, const float *base, float *c,
                       ptrdiff_t ldc, const float *next)
{
    for (int j = 0; j < N; j += NR) {
        const float *bj = b + j / LANES * group + j % LANES;
        int nv = N - j > VL ? 2 : 1, ask = imin(NR, round_up(N - j, LANES));
        Soon soon = {.panel = next ? next + (ptrdiff_t)K * j : NULL, .c = c,
                     .quarter = (ptrdiff_t)K * ask / 4, .every = next != NULL, .step = ask};
        for (int t = 0, i = 0, end; i < M; t++, i = end, soon.every = 0) {
            end = tile_begin(M, t + 1);
            tile_in_place(end - i, nv, K, a + i * rs, rs, cs, bj, ldb, VL < LANES ? VL : group,
                          base ? base + i * ldc + j : NULL, c + i * ldc + j, ldc, &soon);
        }
    }
}

/* ---------------------------------------------------------------- packing */

/* A B[K,N], packed: for each block of KC values of k, panel after panel. */
typedef struct {
    const float *b;
    int K, N;
} Packed;

static int panels_of(int N) { return (N + NR - 1) / NR; }

/* Floats that it takes: panels are whole. */
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
    for (int k0 = 0; k0 < kc; k0 += LINE) /* a line at a time: both sides stay in the cache */
        for (int j0 = 0; j0 < width; j0 += 4) {
            int k1 = imin(kc, k0 + LINE), k = k0;
            for (; j0 + 4 <= width && k + 4 <= k1; k += 4)
                transpose_4x4(out + (ptrdiff_t)k * NR + j0, NR, b + k + j0 * csb, csb);
            for (; k < k1; k++)
                for (int j = j0; j < imin(width, j0 + 4); j++)
                    out[(ptrdiff_t)k * NR + j] = b[k + j * csb];
        }
}

/* Copies go through STRETCH rows at a time, from the first column to the last: so memory is read
 * in long stretches, and has time to bring the rows that come next. */
enum { STRETCH = 16 };

/* Packs panels p0 .. p1-1 of one block of kc values of k. */
static void pack_range(int kc, int N, int p0, int p1, const float *b, ptrdiff_t rsb, ptrdiff_t csb,
                       float *out)
{
    int step = csb == 1 ? STRETCH : kc;
    for (int k0 = 0; k0 < kc; k0 += step)
        for (int p = p0; p < p1; p++)
            pack_panel(out + ((ptrdiff_t)kc * p + k0) * NR,
                       b + k0 * rsb + (ptrdiff_t)p * NR * csb, rsb, csb, imin(step, kc - k0),
                       imin(NR, N - p * NR));
}

/* Packs all of B[K,N]. */
static void gemm_pack(int K, int N, const float *b, ptrdiff_t rsb, ptrdiff_t csb, float *out)
{
    int panels = panels_of(N);
    for (int k0 = 0; k0 < K; k0 += KC)
        pack_range(imin(KC, K - k0), N, 0, panels, b + k0 * rsb, rsb, csb,
                   out + (size_t)k0 * (size_t)(panels * NR));
}

/* ---------------------------------------------------------------- whole products */

/* Rows a multiple of 4 KiB apart fall on one set of the cache. It holds WAYS lines, or a few more;
 * the rows of a taller tile push each other out. */
enum { WAYS = 8 };
static bool collide(ptrdiff_t stride) { return stride % 1024 == 0; }

/* Floats from one row of n to the next where none collide: an odd number of lines. */
static int apart(int n) { return round_up(n, 2 * LINE) + LINE; }

/* Copies M rows of K floats to where they do not collide. */
static Rows spread_out(Arena *arena, int M, int K, Rows A)
{
    ptrdiff_t ld = apart(K);
    float *copy = arena_floats(arena, (size_t)M * (size_t)ld);
    for (int i = 0; i < M; i++)
        memcpy(copy + i * ld, A.a + i * A.rs, (size_t)K * sizeof(float));
    return (Rows){copy, ld, 1, false};
}

/* Copies A, which is read down its columns, tile by tile: then a tile reads one line after the
 * other. Vectors are copied whole where there is more of A behind them. */
static Rows cut_tiles(Arena *arena, int M, int K, Rows A)
{
    int tiles = tiles_of(M);
    float *copy = arena_floats(arena, (size_t)tiles * (size_t)K * TILED);
    ptrdiff_t end = (K - 1) * A.cs + M;
    for (int k0 = 0; k0 < K; k0 += STRETCH) {
        int k1 = imin(K, k0 + STRETCH);
        for (int k = k1; k < imin(K, k1 + STRETCH); k++)
            for (int i = 0; i < M; i += LINE)
                PREFETCH(A.a + i + k * A.cs);
        for (int t = 0; t < tiles; t++) {
            int i0 = tile_begin(M, t), mr = tile_begin(M, t + 1) - i0;
            float *to = copy + ((ptrdiff_t)t * K + k0) * TILED;
            for (int k = k0; k < k1; k++, to += TILED) {
                ptrdiff_t at = i0 + k * A.cs;
                for (int i = 0; i < mr; i += VL)
                    vstore(to + i, at + i + VL <= end ? vload(A.a + at + i)
                                                      : vload_part(A.a + at + i, mr - i));
            }
        }
    }
    return (Rows){copy, 1, TILED, true};
}

/* Floats that a block of `rows` rows of A takes at most in the form in which N columns are made of
 * it, and that form. */
static size_t arranged_floats(size_t rows)
{
    return 3 * BLOCK / 2 + 2 * KC * TILED + 3 * LINE * rows;
}

static Rows arranged(Arena *arena, int M, int N, int K, Rows A)
{
    bool tall = (M + tiles_of(M) - 1) / tiles_of(M) > WAYS;
    if (A.rs == 1 && M > 1 && (N >= 8 * NR || collide(A.cs)))
        return cut_tiles(arena, M, K, A);
    return tall && collide(A.rs) ? spread_out(arena, M, K, A) : A;
}

/* Panel p of the block of k that begins at k0. */
static Panel panel_of(const Packed *B, int k0, int p)
{
    int K = imin(KC, B->K - k0);
    return (Panel){B->b + packed_floats(k0, B->N) + packed_floats(K, p * NR), K};
}

/* Of panels p0 .. p1-1, thread u has those from share(.., u, ..) to before share(.., u + 1, ..). */
static int share(int p0, int p1, int u, int threads) { return p0 + (p1 - p0) * u / threads; }

/* What thread u needs after its share of panels p0 .. p1-1 of a block of k: its first panel of the
 * next block; after the last one, that of the product `then`; or, with NULL, of those behind. */
static Panel next_panel(const Packed *B, int k0, int p0, int p1, const Packed *then, int u,
                        int threads)
{
    if (k0 + KC < B->K)
        return panel_of(B, k0 + KC, share(p0, p1, u, threads));
    if (then)
        return panel_of(then, 0, share(0, panels_of(then->N), u, threads));
    return panel_of(B, k0, share(p1, 2 * p1 - p0, u, threads));
}

/* The columns of panels p0 .. p1-1 for one block of rows and of k. c and base point at column
 * `left`. Each panel asks for the one behind it, the last for `next`. */
static void gemm_range(int M, Rows A, const Packed *B, int k0, int p0, int p1, Panel next,
                       const float *base, float *c, ptrdiff_t ldc, int left)
{
    for (int p = p0; p < p1; p++) {
        int j = p * NR - left;
        gemm_panel(M, imin(NR, B->N - p * NR), A, panel_of(B, k0, p),
                   p + 1 < p1 ? panel_of(B, k0, p + 1) : next, base ? base + j : NULL, c + j, ldc);
    }
}

/* Where several threads work, some of A was written by others and lies in their caches. A thread
 * asks for the rows that it needs first all at once: one by one they would come too late. */
static void ask_rows(int M, int K, Rows A)
{
    for (int i = 0; i < imin(M, 3 * MR) && A.cs == 1; i++)
        for (int k = 0; k < K; k += LINE)
            PREFETCH(A.a + i * A.rs + k);
}

/* The columns of panels p0 .. p1-1 of C[M,N] = base + A[M,K] B[K,N]. c and base point at the first
 * of these columns; base may be c, or NULL for zero. `then`: what A's successor is multiplied by,
 * where the caller knows. */
static void gemm_panels(Arena *arena, int M, const float *a, ptrdiff_t rs, ptrdiff_t cs, Packed B,
                        int p0, int p1, const float *base, float *c, ptrdiff_t ldc,
                        const Packed *then)
{
    size_t mark = arena->used;
    int threads = arena->threads; /* a region costs too much where one thread is alone */
    int blocks = (int)(((int64_t)M * imin(B.K, KC) + BLOCK - 1) / BLOCK);
    for (int t = 0; t < blocks; t++) {
        int i0 = (int)((int64_t)M * t / blocks), m = (int)((int64_t)M * (t + 1) / blocks) - i0;
        for (int k0 = 0; k0 < B.K; k0 += KC) {
            const float *from = k0 > 0 ? c : base;
            Rows A = arranged(arena, m, (p1 - p0) * NR, imin(KC, B.K - k0),
                              (Rows){a + i0 * rs + k0 * cs, rs, cs, false});
            from = from ? from + i0 * ldc : NULL;
            if (threads > 1) {
                PARALLEL_FOR (threads)
                for (int u = 0; u < threads; u++) {
                    ask_rows(m, imin(KC, B.K - k0), A);
                    gemm_range(m, A, &B, k0, share(p0, p1, u, threads),
                               share(p0, p1, u + 1, threads),
                               next_panel(&B, k0, p0, p1, then, u, threads), from, c + i0 * ldc,
                               ldc, p0 * NR);
                }
            } else
                gemm_range(m, A, &B, k0, p0, p1, next_panel(&B, k0, p0, p1, then, 0, 1), from,
                           c + i0 * ldc, ldc, p0 * NR);
            arena->used = mark;
        }
    }
}

/* All columns. */
static void gemm_packed(Arena *arena, int M, const float *a, ptrdiff_t rs, ptrdiff_t cs, Packed B,
                        const float *base, float *c, ptrdiff_t ldc, const Packed *then)
{
    gemm_panels(arena, M, a, rs, cs, B, 0, panels_of(B.N), base, c, ldc, then);
}

/* The same with B as it lies: packed here, into the arena's memory, KC values of k at a time. */
static void gemm(Arena *arena, int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                 const float *b, ptrdiff_t rsb, ptrdiff_t csb, const float *base, float *c,
                 ptrdiff_t ldc)
{
    size_t mark = arena->used;
    int panels = panels_of(N), threads = arena->threads;
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
        gemm_packed(arena, M, a + k0 * cs, rs, cs, (Packed){packed, kc, N}, k0 > 0 ? c : base, c,
                    ldc, NULL);
    }
    arena->used = mark;
}

/* dX[m,k] = dY[m,n] W[n,k] */
static void gemm_backward(Arena *arena, int m, int n, int k, const float *dy, const float *w,
                          float *dx)
{
    gemm(arena, m, k, n, dy, n, 1, w, k, 1, NULL, dx, k);
}

/* dW[n,k] += dY[m,n]^T X[m,k]: one chain over the m rows, in order. The rows of dY are ldy apart,
 * those of X and dW ldx. */
static void gemm_weights(Arena *arena, int m, int n, int k, const float *dy, ptrdiff_t ldy,
                         const float *x, float *dw, ptrdiff_t ldx)
{
    gemm(arena, n, k, m, dy, 1, ldy, x, ldx, 1, dw, dw, ldx);
}

#endif
