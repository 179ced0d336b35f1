/* attention.h: rows of queries over blocks of keys and values.
 *
 *   attend_rows            softmax(q K^T / sqrt(hd)) V for some rows of one query head
 *   attend_rows_backward   its gradients
 *   key_blocks, load_keys   keys and values of a sequence as blocks, for model.c
 *   attention_cached       the forward pass while sampling: keys and values live in a cache
 *
 * The whole row of scores is made (no online softmax): exact maximum, the sum over 16 lanes by
 * absolute key position, the values as one chain over the keys. So the same bits come out whether
 * the keys lie in this batch or in a cache, in one piece or behind a shared prefix, and whether one
 * row is computed or many. */
#ifndef ATTENTION_H
#define ATTENTION_H

#include "batch.h"  /* defines: Batch, Seq, KvSeq, KvPool, KEYS */
#include "engine.h" /* defines: Engine, engine_each */
#include "gemm.h"   /* defines: gemm_small; simd.h's rows */

enum { QUERIES = 32 }; /* rows of scores held at a time; no fewer than MR */

/* The shape of attention. Query head h reads kv head h / group. */
typedef struct {
    int H, KV, group, hd, hd_pad; /* query heads, kv heads, H / KV, head_dim, padded to LANES */
    ptrdiff_t ld_qk, ld_qkv, ld_out; /* leading dimensions of qk, of qkv, of att */
    float scale;                     /* 1 / sqrt(hd) */
} Heads;

/* ---------------------------------------------------------------- blocks of keys and values */

/* KEYS keys and values of one kv head: k transposed, so that a query meets many keys at a time,
 * [KEYS / LANES][head_dim][LANES], and v [KEYS][head_dim, padded to LANES]. */
typedef struct {
    const float *k, *v;
    int n;             /* keys in it */
    const float *next; /* the k, and behind it the v, to prefetch meanwhile; or NULL */
} KvBlock;

/* Floats of a block; a line more, so that blocks do not alias in the cache. */
ALWAYS_INLINE ptrdiff_t kv_block_floats(const Heads *s)
{
    return KEYS * (ptrdiff_t)(s->hd + s->hd_pad) + LINE;
}

/* Where in a block's k the slot-th key begins; its numbers are LANES apart. */
ALWAYS_INLINE int key_at(const Heads *s, int slot)
{
    return slot / LANES * LANES * s->hd + slot % LANES;
}

/* Puts one key and value into a block, the slot-th of each. */
ALWAYS_INLINE void kv_put(const Heads *s, float *block, int slot, const float *k, const float *v)
{
    float *key = block + key_at(s, slot);
    for (int i = 0; i < s->hd; i++)
        key[i * LANES] = k[i];
    memcpy(block + KEYS * s->hd + slot * s->hd_pad, v, s->hd * sizeof(float));
}

/* K^T, [hd, n], and V, [n, hd], of the first n keys of a block. */
ALWAYS_INLINE LaneMat block_keys(const Heads *s, const KvBlock *b, int n)
{
    return (LaneMat){b->k, s->hd, n, LANES, LANES * s->hd, b->next};
}

ALWAYS_INLINE LaneMat block_values(const Heads *s, const KvBlock *b, int n)
{
    return (LaneMat){b->v, n, s->hd, s->hd_pad, LANES, b->next ? b->next + KEYS * s->hd : NULL};
}

/* The keys or values of a sequence's rows, one kv head's: row i is that of its i-th row. */
ALWAYS_INLINE Mat seq_keys(const Heads *s, const Seq *seq, int kv_head, const float *qk)
{
    const float *k = qk + seq->row * s->ld_qk + (s->H + kv_head) * s->hd;
    return (Mat){.at = k, .rows = seq->rows, .cols = s->hd, .rs = s->ld_qk, .cs = 1};
}

ALWAYS_INLINE Mat seq_values(const Heads *s, const Seq *seq, int kv_head, const float *qkv)
{
    const float *v = qkv + seq->row * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd;
    return (Mat){.at = v, .rows = seq->rows, .cols = s->hd, .rs = s->ld_qkv, .cs = 1};
}

/* Rows of query head h of a sequence, in an array of queries or of outputs. */
ALWAYS_INLINE Mat head_rows(const Heads *s, const Seq *seq, int h, const float *x,
                            ptrdiff_t ld)
{
    return (Mat){.at = x + seq->row * ld + h * s->hd, .rows = seq->rows, .cols = s->hd, .rs = ld,
                 .cs = 1};
}

/* Packs keys and values, [rows, hd] each, into blocks at `memory`; returns how many. */
static int key_blocks(const Heads *s, Mat k, Mat v, KvBlock *blocks, float *memory)
{
    int n = 0;
    memset(memory, 0, sizeof(float) * kv_block_floats(s) * kv_blocks(k.rows));
    for (int i = 0; i < k.rows; i++) {
        float *block = memory + kv_block_floats(s) * (i / KEYS);
        kv_put(s, block, i % KEYS, k.at + i * k.rs, v.at + i * v.rs);
        if (i % KEYS == 0)
            blocks[n++] = (KvBlock){block, block + KEYS * s->hd, imin(KEYS, k.rows - i), NULL};
    }
    return n;
}

/* ---------------------------------------------------------------- rows of queries */

/* p[i][j] = e^(s_ij - max_i), s = q K^T / sqrt(hd), for the first visible + i * step keys of row i,
 * 0 beyond them up to the last row's; inverse[i] = 1 / sum_j p[i][j].   p: [rows, ld] */
ALWAYS_INLINE void attention_weights(const Heads *s, Mat q, int visible, int step,
                                     const KvBlock *blocks, float *p, ptrdiff_t ld,
                                     float *inverse)
{
    int keys = visible + (q.rows - 1) * step;
    for (int start = 0; start < keys; start += blocks->n, blocks++)
        gemm_small(p + start, ld, q, block_keys(s, blocks, imin(blocks->n, keys - start)), NULL);
    for (int i = 0; i < q.rows; i++) {
        float *row = p + i * ld;
        int n = visible + i * step;
        inverse[i] = 1.0f / row_exp(row, row, n, row_max(row, n), s->scale);
        memset(row + n, 0, sizeof(float) * (keys - n));
    }
}

/* Floats of scratch that attend_rows (MR rows of weights) and attend_sharers (QUERIES) need for
 * sequences of up to `keys` keys. */
static size_t attend_floats(const Heads *s, int keys)
{
    return QUERIES * (size_t)(keys + 2 * KEYS + s->hd_pad + LANES);
}

/* out_i = sum_j p_ij v_j, p = softmax(q K^T / sqrt(hd)): row i sees the first visible + i * step
 * keys. MR rows at a time, each lot no further than its last row sees. */
ALWAYS_INLINE void attend_rows(const Heads *s, Mat q, int visible, int step,
                               const KvBlock *blocks, float *out, ptrdiff_t ld_out, float *scratch)
{
    int ld = round_up(visible + (q.rows - 1) * step, KEYS) + KEYS;
    float *p = scratch, *sum = row(p, MR, ld), inverse[MR];
    for (int i0 = 0; i0 < q.rows; i0 += MR) {
        Mat qi = rows_of(q, i0, imin(MR, q.rows - i0));
        int first = visible + i0 * step, keys = first + (qi.rows - 1) * step;
        attention_weights(s, qi, first, step, blocks, p, ld, inverse);
        const KvBlock *b = blocks;
        for (int start = 0; start < keys; start += b->n, b++) {
            int n = imin(b->n, keys - start);
            Mat pj = {.at = p + start, .rows = qi.rows, .cols = n, .rs = ld, .cs = 1};
            gemm_small(sum, s->hd_pad, pj, block_values(s, b, n), start > 0 ? sum : NULL);
        }
        for (int i = 0; i < qi.rows; i++)
            row_scale(out + (i0 + i) * ld_out, row(sum, i, s->hd_pad), inverse[i], s->hd);
    }
}

/* Memory of the backward pass. `keys`, `values`: the keys and the values as KvBlocks (in `values` k
 * and v change places, since dp = do V^T reads v as q K^T reads k); `k`: keys by rows; `dk`, `dv`:
 * gradients; all by absolute position. `p`, `ds`, `dq`: p, dp (then ds) and dq of a few rows. */
typedef struct {
    KvBlock *keys, *values;
    float *key_memory, *value_memory, *k, *dk, *dv;
    float *p, *ds, *dq; /* [QUERIES, ld], [QUERIES, ld], [MR, hd_pad] */
    ptrdiff_t ld;
} AttentionGrad;

static AttentionGrad attention_grad_new(Arena *a, const Heads *s, int keys)
{
    int blocks = keys / KEYS + 2, positions = blocks * KEYS;
    AttentionGrad g = {.ld = round_up(keys, KEYS) + KEYS};
    g.keys = arena_alloc(a, blocks, sizeof(KvBlock));
    g.values = arena_alloc(a, blocks, sizeof(KvBlock));
    g.key_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.value_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.k = arena_rows(a, positions, s->hd_pad);
    g.dk = arena_rows(a, positions, s->hd_pad);
    g.dv = arena_rows(a, positions, s->hd_pad);
    g.p = arena_rows(a, QUERIES, g.ld);
    g.ds = arena_rows(a, QUERIES, g.ld);
    g.dq = arena_rows(a, MR, s->hd_pad);
    return g;
}

/* p, ds and dq of the i-th of n <= MR rows of a block of queries; `sees`: the keys that the first
 * of them sees. The rows of dq lie as those of q do in qkv. */
static void attend_dq(const Heads *s, int i, int sees, Mat q, Mat o, Mat d_o, float *dq,
                      AttentionGrad *g)
{
    int keys = sees + q.rows - 1;
    float *p = g->p + i * g->ld, *ds = g->ds + i * g->ld, inverse[MR];
    attention_weights(s, q, sees, 1, g->keys, p, g->ld, inverse);
    const KvBlock *v = g->values;
    for (int start = 0; start < keys; start += v->n, v++)
        gemm_small(ds + start, g->ld, d_o, block_keys(s, v, imin(v->n, keys - start)), NULL);
    for (int r = 0; r < q.rows; r++, sees++) {
        float *pr = p + r * g->ld, *dsr = ds + r * g->ld;
        vf dot = vset(row_dot(d_o.at + r * d_o.rs, o.at + r * o.rs, s->hd));
        row_scale(pr, pr, inverse[r], sees);
        FOR_ROW (j, part, sees) {
            vf x = vmul(vrow_load(pr + j, part), vsub(vrow_load(dsr + j, part), dot));
            vrow_store(dsr + j, vmul(x, vset(s->scale)), part);
        }
        memset(dsr + sees, 0, sizeof(float) * (keys - sees));
    }
    Mat ds_rows = {.at = ds, .rows = q.rows, .cols = keys, .rs = g->ld, .cs = 1};
    LaneMat k = {g->k, keys, s->hd, s->hd_pad, LANES, NULL};
    gemm_small(g->dq, s->hd_pad, ds_rows, k, NULL);
    for (int r = 0; r < q.rows; r++)
        memcpy(dq + r * s->ld_qkv, row(g->dq, r, s->hd_pad),
               s->hd * sizeof(float));
}

/* The gradient of one query head over the rows of one sequence, whose first row sees `before` keys
 * and itself. Forward: p = softmax(q K^T scale), o = p V.
 *     dV += p^T do,   dp = do V^T,   ds = p (dp - <do, o>) scale,   dq = ds K,   dK += ds^T q
 * (<do, o> = sum_j p_j dp_j: the softmax's Jacobian is diag(p) - p p^T.) p and ds are triangles, of
 * which only those tiles are made that are not all zero: row i of a block sees before + 1 + i keys,
 * so a tile of rows goes no further than its last row sees, and a tile of the block's own keys
 * takes nothing from the rows before its first key. */
static void attend_rows_backward(const Heads *s, int before, Mat q, Mat o, Mat d_o, float *dq,
                                 AttentionGrad *g)
{
    for (int first = 0; first < q.rows; first += QUERIES, before += QUERIES) {
        int n = imin(QUERIES, q.rows - first);
        for (int i = 0; i < n; i += MR) {
            int m = imin(MR, n - i), row = first + i;
            attend_dq(s, i, before + 1 + i, rows_of(q, row, m), rows_of(o, row, m),
                      rows_of(d_o, row, m), dq + row * s->ld_qkv, g);
        }
        for (int j = 0, m; j < before + n; j += m) { /* the keys before the block; then its own */
            int i = imax(0, j - before);
            float *dv = row(g->dv, j, s->hd_pad), *dk = row(g->dk, j, s->hd_pad);
            m = j < before ? before : imin(MR, n - i);
            Mat p = {.at = g->p + i * g->ld + j, .rows = m, .cols = n - i, .rs = 1, .cs = g->ld};
            Mat ds = {.at = g->ds + i * g->ld + j, .rows = m, .cols = n - i, .rs = 1, .cs = g->ld};
            const float *rows = d_o.at + (first + i) * d_o.rs, *qs = q.at + (first + i) * q.rs;
            gemm_small(dv, s->hd_pad, p, (LaneMat){rows, n - i, s->hd, d_o.rs, LANES, NULL}, dv);
            gemm_small(dk, s->hd_pad, ds, (LaneMat){qs, n - i, s->hd, q.rs, LANES, NULL}, dk);
        }
    }
}

/* Brings one sequence's keys and values into the forms that attend_rows_backward reads, and sets
 * their gradients to zero. `shared` blocks before them belong to the prefix. Returns how many. */
static int load_keys(const Heads *s, const Seq *seq, int shared, Mat k, Mat v, AttentionGrad *g)
{
    ptrdiff_t skip = kv_block_floats(s) * shared, at = (ptrdiff_t)seq->start * s->hd_pad;
    size_t bytes = sizeof(float) * seq->rows * s->hd_pad;
    int n = key_blocks(s, k, v, g->keys + shared, g->key_memory + skip);
    key_blocks(s, v, k, g->values + shared, g->value_memory + skip);
    memset(g->k + at, 0, bytes);
    memset(g->dk + at, 0, bytes);
    memset(g->dv + at, 0, bytes);
    for (int i = 0; i < seq->rows; i++)
        memcpy(row(g->k + at, i, s->hd_pad), k.at + i * k.rs,
               s->hd * sizeof(float));
    return n;
}

/* dqkv's k and v parts of one sequence's rows, from the accumulated gradients. */
static void store_key_grads(const Heads *s, const Seq *seq, int kv_head, const AttentionGrad *g,
                            float *dqkv)
{
    size_t bytes = s->hd * sizeof(float);
    for (int i = 0; i < seq->rows; i++) {
        float *to = dqkv + (seq->row + i) * s->ld_qkv + (s->H + kv_head) * s->hd;
        memcpy(to, row(g->dk, seq->start + i, s->hd_pad), bytes);
        memcpy(to + s->KV * s->hd, row(g->dv, seq->start + i, s->hd_pad), bytes);
    }
}

/* ---------------------------------------------------------------- keys and values in a cache */

/* Attention over a cache, in one layer. */
typedef struct {
    Heads s;
    int layer;
    ptrdiff_t ld_kv; /* from one kv head to the next: KvPool */
    const float *qk, *qkv;
    float *att;
} Cached;

/* A thread's scratch memory. */
typedef struct {
    KvBlock *blocks;
    float *floats;
} CachedScratch;

/* The memory of a cached block for one kv head. */
ALWAYS_INLINE float *kv_piece(const Cached *x, const KvSeq *kv, int block, int kv_head)
{
    return kv->block[block] + x->ld_kv * (x->layer * x->s.KV + kv_head);
}

/* The blocks that hold the first `keys` keys of a cache; returns how many. Where one row alone
 * reads them there is little to do for each key, and most of the time would be spent waiting for
 * memory: so those of the cache `next`, or NULL, are prefetched meanwhile, block for block. */
static int cached_blocks(const Cached *x, const KvSeq *kv, const KvSeq *next, int kv_head, int keys,
                         KvBlock *out)
{
    int n = 0;
    for (; n * KEYS < keys; n++) {
        const float *piece = kv_piece(x, kv, n, kv_head);
        out[n] = (KvBlock){piece, piece + KEYS * x->s.hd, imin(KEYS, keys - n * KEYS), NULL};
        if (next && n < next->n_blocks)
            out[n].next = kv_piece(x, next, n, kv_head);
    }
    return n;
}

/* The keys that a sequence has of its own. */
static int own_keys(const Seq *seq) { return seq->start + seq->rows - seq->prefix_length; }

/* n sequences of one row each that share a prefix, for one kv head: the prefix's keys and values
 * are read once for all of them. Row g * n + i of the weights is head g of sequence i, so that both
 * "all sequences of a head" and "all heads of a sequence" are rows with one stride. Each row's
 * numbers are those that attend_rows makes. */
static void attend_sharers(const Cached *x, int kv_head, const Seq *seq, int n, const Seq *after,
                           const CachedScratch *scratch)
{
    const Heads *s = &x->s;
    int prefix = seq->prefix_length, ld = prefix, h = kv_head * s->group;
    for (int i = 0; i < n; i++)
        ld = imax(ld, round_up(seq[i].start + 1, KEYS) + KEYS);
    const float *q = x->qk + seq->row * s->ld_qk + h * s->hd;
    float *p = scratch->floats, *sum = row(p, QUERIES, ld), inverse[QUERIES];
    int shared = cached_blocks(x, seq->prefix_kv, NULL, kv_head, prefix, scratch->blocks);
    KvBlock *block = scratch->blocks, *own = block + shared;
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++) {
            Mat qg = {.at = q + g * s->hd, .rows = n, .cols = s->hd, .rs = s->ld_qk, .cs = 1};
            gemm_small(p + g * n * ld + k * KEYS, ld, qg, block_keys(s, &block[k], block[k].n),
                       NULL);
        }
    for (int i = 0; i < n; i++) {
        const Seq *next = i + 1 < n ? &seq[i + 1] : after;
        int owned = cached_blocks(x, seq[i].kv, next ? next->kv : NULL, kv_head, own_keys(&seq[i]),
                                  own);
        int keys = seq[i].start + 1;
        Mat qi = {.at = q + i * s->ld_qk, .rows = s->group, .cols = s->hd, .rs = s->hd, .cs = 1};
        for (int k = 0; k < owned; k++)
            gemm_small(p + i * ld + prefix + k * KEYS, n * ld, qi,
                       block_keys(s, &own[k], own[k].n), NULL);
        for (int r = i; r < s->group * n; r += n) {
            float *row = row(p, r, ld);
            inverse[r] = 1.0f / row_exp(row, row, keys, row_max(row, keys), s->scale);
        }
    }
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++) {
            float *to = sum + g * n * s->hd_pad;
            Mat pg = {.at = p + g * n * ld + k * KEYS, .rows = n, .cols = block[k].n, .rs = ld,
                      .cs = 1};
            gemm_small(to, s->hd_pad, pg, block_values(s, &block[k], block[k].n),
                       k > 0 ? to : NULL);
        }
    for (int i = 0; i < n; i++) {
        const Seq *next = i + 1 < n ? &seq[i + 1] : after;
        int owned = cached_blocks(x, seq[i].kv, next ? next->kv : NULL, kv_head, own_keys(&seq[i]),
                                  own);
        float *to = sum + i * s->hd_pad;
        for (int k = 0; k < owned; k++) {
            Mat pi = {.at = p + i * ld + prefix + k * KEYS, .rows = s->group, .cols = own[k].n,
                      .rs = n * ld, .cs = 1};
            gemm_small(to, n * s->hd_pad, pi, block_values(s, &own[k], own[k].n),
                       prefix + k > 0 ? to : NULL);
        }
        for (int g = 0; g < s->group; g++)
            row_scale(x->att + (seq->row + i) * s->ld_out + (h + g) * s->hd,
                      to + g * n * s->hd_pad, inverse[g * n + i], s->hd);
    }
}

/* One sequence, for one kv head: its query heads one after the other or, for a single row, the
 * heads as the rows. */
static void attend_alone(const Cached *x, int kv_head, const Seq *seq, const Seq *after,
                         const CachedScratch *scratch)
{
    const Heads *s = &x->s;
    bool one = seq->rows == 1;
    const Seq *next = one ? after : NULL;
    int h = kv_head * s->group;
    int shared = cached_blocks(x, seq->prefix_kv, next ? next->prefix_kv : NULL, kv_head,
                               seq->prefix_length, scratch->blocks);
    cached_blocks(x, seq->kv, next ? next->kv : NULL, kv_head, own_keys(seq),
                  scratch->blocks + shared);
    Mat q = {.at = x->qk + seq->row * s->ld_qk + h * s->hd, .rows = one ? s->group : seq->rows,
             .cols = s->hd, .rs = one ? s->hd : s->ld_qk, .cs = 1};
    float *out = x->att + seq->row * s->ld_out + h * s->hd;
    for (int i = 0; i < (one ? 1 : s->group); i++) {
        attend_rows(s, q, seq->start + 1, !one, scratch->blocks, out + i * s->hd,
                    one ? s->hd : s->ld_out, scratch->floats);
        q.at += s->hd;
    }
}

/* n sequences for one kv head; `after`: the sequence behind them, or NULL. Their new keys go into
 * their own caches first. */
static void attend_cached(const Cached *x, int kv_head, const Seq *seq, int n, const Seq *after,
                          const CachedScratch *scratch)
{
    const Heads *s = &x->s;
    for (int i = 0; i < n; i++) {
        Mat k = seq_keys(s, &seq[i], kv_head, x->qk), v = seq_values(s, &seq[i], kv_head, x->qkv);
        for (int r = 0; r < seq[i].rows; r++) {
            int slot = seq[i].start - seq[i].prefix_length + r;
            kv_put(s, kv_piece(x, seq[i].kv, slot / KEYS, kv_head), slot % KEYS, k.at + r * k.rs,
                   v.at + r * v.rs);
        }
    }
    if (n > 1)
        attend_sharers(x, kv_head, seq, n, after, scratch);
    else
        attend_alone(x, kv_head, seq, after, scratch);
}

/* Cuts a batch into runs of sequences that attend_cached takes together; run u is the sequences
 * first[u] .. first[u + 1] - 1. Returns how many. */
static int cut_sharers(const Heads *s, const Batch *b, int *first)
{
    int n = 0, most = imax(1, QUERIES / s->group);
    for (int i = 0; i < b->n_seqs; i++) {
        const Seq *x = &b->seq[i];
        if (i == 0 || x->rows > 1 || x[-1].rows > 1 || i - first[n - 1] == most ||
            x->prefix_kv != x[-1].prefix_kv)
            first[n++] = i;
    }
    first[n] = b->n_seqs;
    return n;
}

/* att: [rows, H hd]. A unit writes, in the rows of its run of sequences, the columns of its kv
 * head's query heads; and in the caches of these sequences, each of which has its own, the part of
 * this layer and kv head. What several runs share, the prefix, is only read. */
static void attention_cached(Arena *a, Heads s, int layer, const Batch *b, const float *qk,
                             const float *qkv, float *att)
{
    Cached x = {s, layer, b->pool->ld, qk, qkv, att};
    int keys = batch_keys(b), most = keys / KEYS + 3;
    size_t mark = a->used, each = attend_floats(&s, keys), threads = a->threads;
    float *floats = arena_floats(a, each * threads);
    KvBlock *blocks = arena_alloc(a, most * threads, sizeof(KvBlock));
    int *first = arena_alloc(a, b->n_seqs + 1, sizeof(int));
    int runs = cut_sharers(&s, b, first);
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < runs * s.KV; unit++) {
        int t = a->threads > 1 ? thread_index() : 0, run = unit % runs;
        CachedScratch scratch = {blocks + t * most, floats + each * t};
        const Seq *seq = &b->seq[first[run]], *end = &b->seq[first[run + 1]];
        const Seq *after = run + 1 < runs ? end : NULL;
        attend_cached(&x, unit / runs, seq, (int)(end - seq), after, &scratch);
    }
    a->used = mark;
}

/* ---------------------------------------------------------------- the cache's memory */

static size_t kv_pool_bytes(const Heads *s, int layers, int blocks)
{
    size_t each = kv_block_floats(s) * (layers * s->KV) * sizeof(float);
    return (size_t)blocks * (each + sizeof(float *)) + 256;
}

static KvPool kv_pool_new(Arena *a, const Heads *s, int layers, int blocks)
{
    ptrdiff_t each = kv_block_floats(s), one_head = each * blocks;
    KvPool p = {.free_block = arena_alloc(a, blocks, sizeof(float *)),
                .ld = one_head};
    float *memory = arena_rows(a, layers * s->KV, one_head);
    for (; p.n_free < blocks; p.n_free++) /* the first block on top */
        p.free_block[p.n_free] = memory + each * (blocks - 1 - p.n_free);
    return p;
}

#endif
