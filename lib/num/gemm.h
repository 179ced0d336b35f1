/* gemm.h: single-precision matrix products.
 *
 *   gemm        C[M,N] = base + A[M,K] B[K,N], any strides: a layer's forward pass (B = W^T), the
 *               gradient of its input (B = W) and, with A = dY^T and base = C, of its weights
 *   gemm_small  the same with B read in place: attention's products
 *
 * Both make each output by exactly one chain, on which every promise of equal bits rests:
 *         s = base[i,j] or 0;   for k = 0 .. K-1 in order:  s = fmaf(A[i,k], B[k,j], s)
 * whatever the tile, the blocking, the threads or the instruction set. So a row does not depend on
 * the rows that it is computed with, and a sum over rows (the gradient of the weights) may be cut
 * into pieces that continue each other.
 *
 * The scheme is Goto's: B is packed into panels of NR = 2 vectors, [k][NR], zero-padded; a tile of
 * MR rows times one panel stays in registers while k runs; A is read by broadcast. While a panel is
 * multiplied, the next one is prefetched. */
#ifndef GEMM_H
#define GEMM_H

#include "simd.h"

enum {
    NR = 2 * VL,   /* columns of a panel */
    MR = VL == 16 ? 14 : VL == 8 ? 6 : VL == 4 ? 10 : 6, /* rows of a tile: fills the registers */
    KC = 1024,     /* k is cut into blocks so that a panel stays in the cache */
    BLOCK = 1 << 17, /* floats of A that go through one panel after the other: half a MiB of L2 */
    K_STEPS = 4      /* values of k between two prefetches */
};

/* A matrix: element [i][j] is at[i * rs + j * cs]; one of the strides is 1. It may have packed
 * copies (see gemm_pack): of itself, to be B of a product, and of its transpose. A copy has all
 * rows and `of` columns, of which the matrix is those from `first` on. */
typedef struct {
    const float *at;
    int rows, cols;
    ptrdiff_t rs, cs;
    const float *packed, *packed_t; /* or NULL */
    int of, first;
} Mat;

/* Rows that lie one behind the other. */
ALWAYS_INLINE Mat mat(const float *at, int rows, int cols)
{
    return (Mat){.at = at, .rows = rows, .cols = cols, .rs = cols, .cs = 1, .of = cols};
}

ALWAYS_INLINE Mat transposed(Mat a)
{
    return (Mat){.at = a.at, .rows = a.cols, .cols = a.rows, .rs = a.cs, .cs = a.rs,
                 .packed = a.packed_t, .packed_t = a.packed, .of = a.rows};
}

/* n columns from `first` on, a multiple of NR where the matrix is packed. */
ALWAYS_INLINE Mat columns_of(Mat a, int first, int n)
{
    a.at += first * a.cs;
    a.cols = n;
    a.first += first;
    return a;
}

/* Rows i0 .. i0 + n - 1, of a matrix without packed copies. */
ALWAYS_INLINE Mat rows_of(Mat a, int i0, int n)
{
    a.at += i0 * a.rs;
    a.rows = n;
    return a;
}

/* ---------------------------------------------------------------- the tile */

/* What a tile works on: C = base + A B for mr rows and nv vectors of columns. A[i][k] is at
 * a[i * stride + k] or, `down`, a[i + k * stride]; row k of B begins at b + k * ldb, its vectors
 * are `second` floats apart; base has C's layout, may be C, and stands for zero where it is NULL.
 *
 * Prefetch: at every `every`-th step (0: never) the tile fetches `lines` floats, in lines, from
 * each of four places `quarter` floats apart, since memory serves several streams faster than one;
 * and a row of the C that is written next. */
typedef struct {
    int K;
    const float *a, *b;
    ptrdiff_t stride, ldb, second;
    const float *base;
    float *c;
    ptrdiff_t ldc;
    const float *next, *next_c;
    ptrdiff_t quarter;
    ptrdiff_t next_row; /* from one row of that C to the next; 0: the first alone */
    int every, lines;
} Tile;

/* Rows of A, four to a pointer: where rows are contiguous, first[g] is at row 4 g's next element;
 * where columns are (`down`), first[0] is at the next column. */
typedef struct {
    const float *first[(MR + 3) / 4];
    ptrdiff_t stride, twice, thrice;
} TileRows;

/* s[i][v] += a_i,k b_k,v for element k of those that `r` points at */
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

/* One tile; compiled for each height mr. `ldb` and `second` are t's, or constants. */
ALWAYS_INLINE void tile(const int mr, const int nv, const bool down, const Tile *t,
                        const ptrdiff_t ldb, const ptrdiff_t second)
{
    const float *b = t->b, *next = t->next, *next_c = t->next_c, *base = t->base;
    const ptrdiff_t quarter = t->quarter, ldc = t->ldc, next_row = t->next_row;
    const int every = t->every, lines = t->lines, K = t->K;
    float *c = t->c;
    vf s[MR][2];
    TileRows r = {{t->a}, t->stride, 2 * t->stride, 3 * t->stride};
    UNROLL for (int g = 1; g < (mr + 3) / 4; g++)
        r.first[g] = t->a + 4 * g * t->stride;
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < nv; v++)
            s[i][v] = base ? vload(base + i * ldc + v * VL) : vset(0.0f);
    int k = 0, wait = every > 0;
    for (; k + K_STEPS <= K; k += K_STEPS) {
        if (--wait == 0) {
            wait = every;
            for (const float *end = next + lines; next < end; next += LINE)
                UNROLL for (int u = 0; u < 4; u++)
                    PREFETCH(next + u * quarter);
            PREFETCH_WRITE(next_c);
            PREFETCH_WRITE(next_c + (nv - 1) * VL);
            next_c += next_row;
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

#define TILE_CASE(h, nv, ldb, second)                 \
    case h:                                           \
        if (down)                                     \
            tile(h, nv, true, t, ldb, second);        \
        else                                          \
            tile(h, nv, false, t, ldb, second);       \
        break;
#if VL == 16
#define TILE_HEIGHTS(CASE, ...)                                                               \
    CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) CASE(4, __VA_ARGS__)       \
    CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__)       \
    CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__) CASE(11, __VA_ARGS__) CASE(12, __VA_ARGS__)    \
    CASE(13, __VA_ARGS__) CASE(14, __VA_ARGS__)
#elif VL == 4
#define TILE_HEIGHTS(CASE, ...)                                                               \
    CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) CASE(4, __VA_ARGS__)       \
    CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__)       \
    CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__)
#else
#define TILE_HEIGHTS(CASE, ...)                                                               \
    CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) CASE(4, __VA_ARGS__)       \
    CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__)
#endif

/* A tile of `mr` rows times a panel, whose rows lie close together: constants lead to each. */
static void tile_panel(int mr, bool down, const Tile *t)
{
    switch (mr) { TILE_HEIGHTS(TILE_CASE, 2, NR, VL) }
}

/* The same times nv vectors of a matrix in place. */
static void tile_in_place(int mr, int nv, bool down, const Tile *t)
{
    const ptrdiff_t ldb = t->ldb, second = t->second;
    if (nv == 2)
        switch (mr) { TILE_HEIGHTS(TILE_CASE, 2, ldb, second) }
    else
        switch (mr) { TILE_HEIGHTS(TILE_CASE, 1, ldb, second) }
}
#undef TILE_CASE
#undef TILE_HEIGHTS

ALWAYS_INLINE int tiles_of(int M) { return (M + MR - 1) / MR; }

/* M rows cut into tiles of nearly equal height: the first `taller` have one row more. */
typedef struct {
    int tiles, height, taller;
} RowCut;

ALWAYS_INLINE RowCut cut_rows(int M)
{
    int tiles = tiles_of(M);
    return M <= MR ? (RowCut){tiles, M, 0} : (RowCut){tiles, M / tiles, M % tiles};
}

/* The first row of tile t. */
ALWAYS_INLINE int tile_begin(RowCut cut, int t)
{
    return t * cut.height + imin(t, cut.taller);
}

/* ---------------------------------------------------------------- small products, B in place */

/* A matrix whose columns lie in groups of LANES, `group` floats from one group to the next. Columns
 * up to the next multiple of VL must be readable. `next`: as many floats as it has, in whole
 * groups, to prefetch while it is read; or NULL. */
typedef struct {
    const float *at;
    int rows, cols;
    ptrdiff_t rs, group;
    const float *next;
} LaneMat;

/* C = base + A B. C must be readable and writable up to the next multiple of VL columns. */
ALWAYS_INLINE void gemm_small(float *c, ptrdiff_t ldc, Mat A, LaneMat B, const float *base)
{
    bool down = A.rs == 1;
    RowCut cut = cut_rows(A.rows);
    Tile t = {.K = B.rows, .stride = down ? A.cs : A.rs, .ldb = B.rs,
              .second = VL < LANES ? VL : B.group, .ldc = ldc};
    for (int j = 0; j < B.cols; j += NR) {
        int nv = B.cols - j > VL ? 2 : 1;
        t.b = B.at + j / LANES * B.group + j % LANES;
        t.next = B.next ? B.next + (ptrdiff_t)B.rows * j : NULL;
        t.next_c = c;
        t.lines = imin(NR, round_up(B.cols - j, LANES));
        t.quarter = (ptrdiff_t)B.rows * t.lines / 4;
        t.every = B.next != NULL; /* the first tile alone */
        for (int k = 0, i = 0, end; i < A.rows; k++, i = end, t.every = 0) {
            end = tile_begin(cut, k + 1);
            t.a = A.at + i * A.rs;
            t.base = base ? base + i * ldc + j : NULL;
            t.c = c + i * ldc + j;
            tile_in_place(end - i, nv, down, &t);
        }
    }
}

/* ---------------------------------------------------------------- packing */

/* B[K,N] packed: for each block of KC values of k, panel after panel. */
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

/* Packs panels p0 .. p1-1 of one block of kc = B.rows values of k. */
static void pack_range(Mat B, int p0, int p1, float *out)
{
    int kc = B.rows, step = B.cs == 1 ? STRETCH : kc;
    for (int k0 = 0; k0 < kc; k0 += step)
        for (int p = p0; p < p1; p++)
            pack_panel(out + ((ptrdiff_t)kc * p + k0) * NR, B.at + k0 * B.rs + p * NR * B.cs, B.rs,
                       B.cs, imin(step, kc - k0), imin(NR, B.cols - p * NR));
}

/* Rows k0 .. of B, as many as a block has. */
static Mat k_block(Mat B, int k0)
{
    B.at += k0 * B.rs;
    B.rows = imin(KC, B.rows - k0);
    return B;
}

/* Packs all of B. */
static void gemm_pack(Mat B, float *out)
{
    for (int k0 = 0; k0 < B.rows; k0 += KC)
        pack_range(k_block(B, k0), 0, panels_of(B.cols), out + packed_floats(k0, B.cols));
}

/* The same matrix, ready to be B of many products: its packed copy is in the arena. */
static Mat prepared(Arena *arena, Mat B)
{
    float *copy = arena_floats(arena, packed_floats(B.rows, B.cols));
    gemm_pack(B, copy);
    B.packed = copy;
    return B;
}

/* The memory that a prepared matrix takes. */
static void prepared_scratch(Arena *arena, int rows, int cols)
{
    arena_floats(arena, packed_floats(rows, cols));
}

/* The block of rows from r0 on, a multiple of KC, of a prepared matrix: as many as a block has. */
static Mat prepared_rows(Mat B, int r0)
{
    B.packed += packed_floats(r0, B.of);
    return k_block(B, r0);
}

/* ---------------------------------------------------------------- whole products */

/* Aliasing: rows a multiple of 4 KiB apart fall on one set of the cache, which holds WAYS lines, or
 * a few more; the rows of a taller tile would evict each other. */
enum { WAYS = 8 };
static bool aliases(ptrdiff_t stride) { return stride % 1024 == 0; }

/* A leading dimension for rows of n floats that does not alias: an odd number of lines. */
static int padded(int n) { return round_up(n, 2 * LINE) + LINE; }

/* A block of A as the tiles read it: element [i][k] at a[i * rs + k * cs]; or, `tiled`, tile after
 * tile, each [K][TILED]. */
enum { TILED = (MR + VL - 1) / VL * VL };
typedef struct {
    const float *a;
    ptrdiff_t rs, cs;
    bool tiled;
} Rows;

/* Copies rows to where they do not alias. */
static Rows spread_out(Arena *arena, Mat A)
{
    ptrdiff_t ld = padded(A.cols);
    float *copy = arena_rows(arena, A.rows, ld);
    for (int i = 0; i < A.rows; i++)
        memcpy(copy + i * ld, A.at + i * A.rs, A.cols * sizeof(float));
    return (Rows){copy, ld, 1, false};
}

/* Copies A, which is read down its columns, tile by tile: then a tile reads one line after the
 * other. Vectors are copied whole where there is more of A behind them. */
static Rows cut_tiles(Arena *arena, Mat A)
{
    int M = A.rows, K = A.cols;
    RowCut cut = cut_rows(M);
    float *copy = arena_floats(arena, (size_t)cut.tiles * (size_t)K * TILED);
    ptrdiff_t end = (K - 1) * A.cs + M;
    for (int k0 = 0; k0 < K; k0 += STRETCH) {
        int k1 = imin(K, k0 + STRETCH);
        for (int t = 0; t < cut.tiles; t++) {
            int i0 = tile_begin(cut, t), mr = tile_begin(cut, t + 1) - i0;
            float *to = copy + ((ptrdiff_t)t * K + k0) * TILED;
            for (int k = k0; k < k1; k++, to += TILED) {
                ptrdiff_t at = i0 + k * A.cs;
                for (int i = 0; i < mr; i += VL)
                    vstore(to + i, at + i + VL <= end ? vload(A.at + at + i)
                                                      : vload_part(A.at + at + i, mr - i));
            }
        }
    }
    return (Rows){copy, 1, TILED, true};
}

/* Floats of the copy of a block of `rows` rows of A, at most. */
static size_t arranged_floats(size_t rows)
{
    return 3 * BLOCK / 2 + 2 * KC * TILED + 3 * LINE * rows;
}

/* The scratch memory of a product, at most: A of M rows, B of N columns that are not packed. */
static void gemm_scratch(Arena *arena, int M, int N)
{
    arena_floats(arena, packed_floats(KC, N));
    arena_floats(arena, arranged_floats((size_t)M));
}

/* A block of A, copied where N columns of products pay for it. */
static Rows arranged(Arena *arena, Mat A, int N)
{
    bool tall = (A.rows + tiles_of(A.rows) - 1) / tiles_of(A.rows) > WAYS;
    if (A.rs == 1 && A.rows > 1 && (N >= 8 * NR || aliases(A.cs)))
        return cut_tiles(arena, A);
    return tall && aliases(A.rs) ? spread_out(arena, A) : (Rows){A.at, A.rs, A.cs, false};
}

/* One block of a product: M rows of A, K values of k, and panels of B, [K][NR] each, of which the
 * last ends at column N. c and base are at the first of these panels. */
typedef struct {
    int M, N, K;
    Rows A;
    RowCut cut;
    int lines; /* of each quarter of the next panel, that a tile prefetches */
    Tile tile; /* what all tiles have in common */
    const float *panels, *base;
    float *c;
    ptrdiff_t ldc;
} Product;

/* Fills in how the rows are cut, and what the tiles have in common. A tile prefetches evenly, from
 * its first step to its last: all at once memory delivers less. */
static void product_cut(Product *x)
{
    int steps = imax(1, x->K / K_STEPS);
    x->cut = cut_rows(x->M);
    int tiles = x->cut.tiles, lines = (x->K * NR / (4 * LINE) + tiles - 1) / tiles;
    int every = imax(1, steps / imax(tiles > 3 ? MR : 1, lines));
    x->lines = lines;
    x->tile = (Tile){.K = x->K, .stride = x->A.rs == 1 ? x->A.cs : x->A.rs, .ldc = x->ldc,
                     .quarter = (ptrdiff_t)x->K * NR / 4, .every = every,
                     .lines = (lines * LINE * every + steps - 1) / steps,
                     .next_row = tiles > 6 ? x->ldc : 0}; /* the C of a few tiles is near anyway */
}

/* The rows of A of tile k, the first of which is row i0. */
static const float *tile_rows(const Product *x, int k, int i0)
{
    return x->A.a + (x->A.tiled ? (ptrdiff_t)k * x->K * TILED : i0 * x->A.rs);
}

/* The columns of the last panel, where it is wider than C: its tiles go through a small copy, so
 * that nothing beyond C is written. */
static void multiply_edge(const Product *x, int p)
{
    float edge[MR * NR] = {0};
    int j = p * NR;
    size_t bytes = (size_t)(x->N - j) * sizeof(float);
    Tile t = x->tile;
    t.b = row(x->panels, x->K, j);
    t.c = edge;
    t.base = x->base ? edge : NULL;
    t.ldc = NR;
    t.every = 0;
    for (int k = 0, i0 = 0, i1; k < x->cut.tiles; k++, i0 = i1) {
        i1 = tile_begin(x->cut, k + 1);
        t.a = tile_rows(x, k, i0);
        for (int i = i0; x->base && i < i1; i++)
            memcpy(edge + (i - i0) * NR, x->base + i * x->ldc + j, bytes);
        tile_panel(i1 - i0, x->A.rs == 1, &t);
        for (int i = i0; i < i1; i++)
            memcpy(x->c + i * x->ldc + j, edge + (i - i0) * NR, bytes);
    }
}

/* The columns of panel p, while panel p + 1 is prefetched, a part of it by each tile. */
static void multiply_panel(const Product *x, int p)
{
    int j = p * NR;
    if (x->N - j < NR) {
        multiply_edge(x, p);
        return;
    }
    const float *panel = row(x->panels, x->K, j);
    Tile t = x->tile;
    t.b = panel;
    for (int k = 0, i0 = 0, i1; k < x->cut.tiles; k++, i0 = i1) {
        i1 = tile_begin(x->cut, k + 1);
        t.a = tile_rows(x, k, i0);
        t.base = x->base ? x->base + i0 * x->ldc + j : NULL;
        t.c = x->c + i0 * x->ldc + j;
        t.next = panel + (ptrdiff_t)x->K * NR + (ptrdiff_t)k * x->lines * LINE;
        t.next_c = i1 < x->M ? x->c + i1 * x->ldc + j : x->c + j + NR;
        tile_panel(i1 - i0, x->A.rs == 1, &t);
    }
}

/* Packs a block of k of B into `out`, with the help of the arena's threads. */
static void pack_block(Mat B, int threads, float *out)
{
    int panels = panels_of(B.cols);
    if (threads == 1) {
        pack_range(B, 0, panels, out);
        return;
    }
    PARALLEL_FOR (threads)
    for (int u = 0; u < threads; u++)
        pack_range(B, panels * u / threads, panels * (u + 1) / threads, out);
}

/* C = base + A B; base may be c, or NULL for zero. The rows of both are ldc floats apart. Scratch
 * memory and threads are the arena's. */
static void gemm(Arena *arena, float *c, ptrdiff_t ldc, Mat A, Mat B, const float *base)
{
    size_t mark = arena->used;
    int threads = arena->threads; /* a parallel region costs too much where one thread is alone */
    float *own = B.packed ? NULL : arena_floats(arena, packed_floats(imin(B.rows, KC), B.cols));
    int blocks = (int)(((int64_t)A.rows * imin(B.rows, KC) + BLOCK - 1) / BLOCK);
    size_t after_own = arena->used;
    for (int k0 = 0; k0 < B.rows; k0 += KC) {
        int kc = imin(KC, B.rows - k0);
        const float *from = k0 > 0 ? c : base;
        Product x = {.N = B.cols, .K = kc, .panels = own, .ldc = ldc};
        if (own)
            pack_block(k_block(B, k0), threads, own);
        else
            x.panels = B.packed + packed_floats(k0, B.of) + packed_floats(kc, B.first);
        for (int i = 0; i < blocks; i++) {
            int i0 = (int)((int64_t)A.rows * i / blocks);
            x.M = (int)((int64_t)A.rows * (i + 1) / blocks) - i0;
            x.A = arranged(arena, (Mat){.at = A.at + i0 * A.rs + k0 * A.cs, .rows = x.M, .cols = kc,
                                        .rs = A.rs, .cs = A.cs}, B.cols);
            x.base = from ? from + i0 * ldc : NULL;
            x.c = c + i0 * ldc;
            product_cut(&x);
            if (threads > 1) {
                PARALLEL_FOR (threads)
                for (int p = 0; p < panels_of(B.cols); p++)
                    multiply_panel(&x, p);
            } else
                for (int p = 0; p < panels_of(B.cols); p++)
                    multiply_panel(&x, p);
            arena->used = after_own;
        }
    }
    arena->used = mark;
}

#endif
