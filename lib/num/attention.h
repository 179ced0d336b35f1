/* lib/num/attention.h: what each row of a batch sees of the rows before it.
 *
 *   Batches: sequences packed end to end, some of them behind a prefix that they share. Attention:
 *   forward, from the keys of the batch or from a cache; backward. The cache that sampling keeps.
 *
 *   A prompt and the responses behind it are a tree: its keys are packed once for all of them, and
 *   their gradients collect what each sends back. */
#ifndef ATTENTION_C
#define ATTENTION_C

#include "../model/config.h" /* defines: Config */
#include "engine.h" /* defines: Engine, engine_each */
#include "gemm.h"   /* defines: gemm_small; simd.h's rows */

/* ================================================================ batches */

/* Attention reads keys and values in blocks of KEYS positions, for one layer and kv head: k
 * transposed, so that a query meets many keys at a time, [KEYS / LANES][head_dim][LANES], and v
 * [KEYS][head_dim, padded to LANES]. So what is read of either lies together, however many there
 * are. */
enum { KEYS = 32 };
typedef struct {
    const float *k, *v;
    int n;             /* keys in it */
    const float *next; /* the k, and behind it the v, that are read next in their place, or NULL */
} KvBlock;

/* Keys and values of one sequence, kept while it is being sampled. A block here stands for KEYS
 * positions in all layers and kv heads; it points at the KvBlock's memory of the first. */
typedef struct {
    float **block;
    int n_blocks;
} KvSeq;

/* Blocks are handed out one by one and handed back to a stack; those never used cost nothing. The
 * memory is [layers][kv heads][blocks]: those of one layer and kv head, which are read one after
 * the other, lie side by side. */
typedef struct {
    float **free_block;
    int n_free;
    ptrdiff_t ld; /* floats from one kv head's blocks to the next one's */
} KvPool;

/* What the layers make of each row of a sequence, written while it is sampled: `floats` a row, see
 * trace_floats. row NULL: it is not kept. */
typedef struct {
    float *row;
    size_t floats;
} Trace;

/* A sequence: `rows` rows from `row` on, at absolute positions start, start + 1, ... It sees the
 * keys of its prefix (positions 0 .. prefix_length - 1), then its own. While sampling, keys and
 * values live in `kv` (the prefix's in prefix_kv); otherwise they are the rows of this batch. */
typedef struct {
    int row, rows, start;
    int prefix; /* index of the sequence in this batch that comes before this one, or -1 */
    KvSeq *kv, *prefix_kv;
    int prefix_length;
    Trace trace; /* of all sequences of a batch, or of none */
} Seq;

/* Sequences packed end to end, and what is asked of them: row target_row[i] shall predict token
 * target[i]. Sequences that share a prefix follow it directly. */
typedef struct {
    int n_rows, n_seqs, n_targets, n_roots;
    int max_rows, max_seqs, max_targets;
    int *token, *position;
    Seq *seq;
    int *root; /* indices of the sequences without a prefix; root[n_roots] = n_seqs */
    int *target_row, *target;
    KvPool *pool; /* not NULL while sampling */
} Batch;

static Batch batch_new(Arena *a, int max_rows, int max_seqs, int max_targets)
{
    Batch b = {.max_rows = max_rows, .max_seqs = max_seqs, .max_targets = max_targets};
    b.token = arena_alloc(a, (size_t)max_rows, sizeof(int));
    b.position = arena_alloc(a, (size_t)max_rows, sizeof(int));
    b.seq = arena_alloc(a, (size_t)max_seqs, sizeof(Seq));
    b.root = arena_alloc(a, (size_t)max_seqs + 1, sizeof(int));
    b.target_row = arena_alloc(a, (size_t)max_targets, sizeof(int));
    b.target = arena_alloc(a, (size_t)max_targets, sizeof(int));
    return b;
}

/* Appends a sequence at positions start ..; returns its index. */
static int batch_seq(Batch *b, const int *tokens, int n, int start, int prefix)
{
    if (b->n_seqs == b->max_seqs || n > b->max_rows - b->n_rows)
        die("internal error: a batch of %d rows is full", b->max_rows);
    Seq *s = &b->seq[b->n_seqs];
    *s = (Seq){.row = b->n_rows, .rows = n, .start = start, .prefix = prefix};
    for (int i = 0; i < n; i++) {
        b->token[b->n_rows + i] = tokens[i];
        b->position[b->n_rows + i] = start + i;
    }
    b->n_rows += n;
    if (prefix < 0)
        b->root[b->n_roots++] = b->n_seqs;
    b->root[b->n_roots] = b->n_seqs + 1;
    return b->n_seqs++;
}

static void batch_target(Batch *b, int row, int token)
{
    if (b->n_targets == b->max_targets)
        die("internal error: a batch of %d targets is full", b->max_targets);
    b->target_row[b->n_targets] = row;
    b->target[b->n_targets++] = token;
}

/* ================================================================ attention */

/* For one query head and one row at position p:
 *     s_j = <q, k_j> / sqrt(hd),  a_j = e^(s_j - max) / sum,  out = sum_j a_j v_j,   j = 0 .. p.
 * The whole row of scores is made (no online softmax): exact maximum, the sum over 16 lanes by
 * absolute key position, the values as one chain over the keys. So the same bits come out
 * whether the keys lie in this batch or in a cache, in one piece or behind a shared prefix, and
 * whether one row is asked for or many. The kv head h / (H / KV) serves query head h. */

enum { QUERIES = 32 }; /* rows of scores held at a time; no fewer than MR */

typedef struct {
    int H, KV, group, hd, hd_pad; /* query heads, kv heads, H / KV, head_dim, padded to LANES */
    ptrdiff_t ld_qk, ld_qkv, ld_out; /* floats from one row to the next of qk, of qkv, of att */
    ptrdiff_t ld_kv;                 /* from one kv head to the next of a cache: KvPool */
    float scale;                     /* 1 / sqrt(hd) */
} Heads;

static Heads heads_of(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (Heads){H, KV, H / KV, hd, round_up(hd, LANES), (H + KV) * hd, (H + 2 * KV) * hd,
                   H * hd, 0, (float)(1.0 / sqrt((double)hd))};
}

/* One block of keys and values; a line more, so that blocks do not collide in the cache. */
static size_t kv_block_floats(const Heads *s)
{
    return (size_t)KEYS * (size_t)(s->hd + s->hd_pad) + LINE;
}

/* Where in a block's k the slot-th key begins; its numbers are LANES apart. */
static int key_at(const Heads *s, int slot)
{
    return slot / LANES * LANES * s->hd + slot % LANES;
}

/* Puts one key and value into a block, the slot-th of each. */
static void kv_put(const Heads *s, float *block, int slot, const float *k, const float *v)
{
    float *key = block + key_at(s, slot);
    for (int i = 0; i < s->hd; i++)
        key[i * LANES] = k[i];
    memcpy(block + KEYS * s->hd + slot * s->hd_pad, v, (size_t)s->hd * sizeof(float));
}

/* scores[i][j] = <q_i, k_j> for the first n keys of a block. q row i: q + i * stride */
static void block_scores(const Heads *s, int rows, const float *q, ptrdiff_t stride,
                         const KvBlock *b, int n, float *scores, ptrdiff_t ld)
{
    gemm_small(rows, n, s->hd, q, stride, 1, b->k, LANES, LANES * s->hd, NULL, scores, ld,
               b->next);
}

/* sum_i (+)= sum_j scores[i][j] v_j over the first n keys of a block. Sums are ld apart. */
static void block_values(const Heads *s, int rows, const float *scores, ptrdiff_t ld_scores,
                         const KvBlock *b, int n, bool add, float *sum, ptrdiff_t ld)
{
    gemm_small(rows, s->hd, n, scores, ld_scores, 1, b->v, s->hd_pad, LANES, add ? sum : NULL, sum,
               ld, b->next ? b->next + KEYS * s->hd : NULL);
}

/* scores[i][j] = e^(s_ij - max_i) for the first visible + i * step keys of row i, 0 beyond them
 * up to `keys`; inverse[i] = 1 / sum. q row i: q + i * stride; scores: [rows, ld]. */
static void attend_softmax(const Heads *s, const float *q, ptrdiff_t stride, int rows, int visible,
                           int step, const KvBlock *blocks, int keys, float *scores, ptrdiff_t ld,
                           float *inverse)
{
    for (int start = 0; start < keys; start += blocks->n, blocks++)
        block_scores(s, rows, q, stride, blocks, imin(blocks->n, keys - start), scores + start, ld);
    for (int i = 0; i < rows; i++) {
        float *row = scores + (ptrdiff_t)i * ld;
        int n = visible + i * step;
        inverse[i] = 1.0f / row_exp(row, row, n, row_max(row, n), s->scale);
        memset(row + n, 0, (size_t)(keys - n) * sizeof(float));
    }
}

/* Floats of scratch that attend (MR rows of scores) and attend_sharers (QUERIES) need for sequences
 * of up to `keys` keys. */
static size_t attend_floats(const Heads *s, int keys)
{
    return (size_t)QUERIES * (size_t)(keys + 2 * KEYS + s->hd_pad + LANES);
}

/* Attention of `rows` query rows over blocks of keys: row i sees the first visible + i * step. A
 * tile of MR rows at a time, each no further than its last row sees. */
static void attend(const Heads *s, const float *q, ptrdiff_t stride, int rows, int visible,
                   int step, const KvBlock *blocks, float *out, ptrdiff_t out_stride,
                   float *scratch)
{
    int ld = round_up(visible + (rows - 1) * step, KEYS) + KEYS;
    float *scores = scratch, *sum = scores + (ptrdiff_t)MR * ld, inverse[MR];
    for (int i0 = 0; i0 < rows; i0 += MR) {
        int n = imin(MR, rows - i0), first = visible + i0 * step;
        int keys = first + (n - 1) * step;
        attend_softmax(s, q + i0 * stride, stride, n, first, step, blocks, keys, scores, ld,
                       inverse);
        const KvBlock *b = blocks;
        for (int start = 0; start < keys; start += b->n, b++)
            block_values(s, n, scores + start, ld, b, imin(b->n, keys - start), start > 0, sum,
                         s->hd_pad);
        for (int i = 0; i < n; i++)
            row_scale(out + (i0 + i) * out_stride, sum + (ptrdiff_t)i * s->hd_pad, inverse[i],
                      s->hd);
    }
}

/* All query heads of one kv head, for one sequence: head after head, or, for a single row, the
 * heads as the rows. */
static void attend_seq(const Heads *s, const Seq *seq, int kv_head, const float *qk,
                       const KvBlock *blocks, float *att, float *scratch)
{
    int h = kv_head * s->group, visible = seq->start + 1;
    const float *q = qk + seq->row * s->ld_qk + h * s->hd;
    float *out = att + seq->row * s->ld_out + h * s->hd;
    if (seq->rows == 1) {
        attend(s, q, s->hd, s->group, visible, 0, blocks, out, s->hd, scratch);
        return;
    }
    for (int i = 0; i < s->group; i++)
        attend(s, q + i * s->hd, s->ld_qk, seq->rows, visible, 1, blocks, out + i * s->hd,
               s->ld_out, scratch);
}

/* The longest stretch of keys that a tree of sequences needs: prefix and longest follower. */
static int batch_keys(const Batch *b)
{
    int longest = 0;
    for (int i = 0; i < b->n_seqs; i++)
        longest = imax(longest, b->seq[i].start + b->seq[i].rows);
    return longest;
}

/* Packs one sequence's keys and values, from the rows of the batch, into blocks at `memory`;
 * returns how many blocks. */
static int pack_keys(const Heads *s, const Seq *seq, int kv_head, const float *qk,
                     const float *qkv, KvBlock *blocks, float *memory)
{
    const float *k = qk + seq->row * s->ld_qk + (s->H + kv_head) * s->hd;
    const float *v = qkv + seq->row * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd;
    int n = 0;
    memset(memory, 0, kv_block_floats(s) * (size_t)((seq->rows + KEYS - 1) / KEYS) * sizeof(float));
    for (int i = 0; i < seq->rows; i++) {
        float *block = memory + kv_block_floats(s) * (size_t)(i / KEYS);
        kv_put(s, block, i % KEYS, k + i * s->ld_qk, v + i * s->ld_qkv);
        if (i % KEYS == 0)
            blocks[n++] = (KvBlock){block, block + KEYS * s->hd, imin(KEYS, seq->rows - i), NULL};
    }
    return n;
}

/* A unit of attention is a prompt with everything that follows it, for one kv head: its keys are
 * packed once. blocks and memory: room for the longest stretch of keys. */
static void attend_unit(const Heads *s, const Batch *b, int unit, const float *qk, const float *qkv,
                        KvBlock *blocks, float *memory, float *att, float *scratch)
{
    int root = unit / s->KV, kv_head = unit % s->KV, shared = 0;
    for (int i = b->root[root]; i < b->root[root + 1]; i++) {
        const Seq *seq = &b->seq[i];
        int n = pack_keys(s, seq, kv_head, qk, qkv, blocks + shared,
                          memory + kv_block_floats(s) * (size_t)shared);
        attend_seq(s, seq, kv_head, qk, blocks, att, scratch);
        if (i == b->root[root])
            shared = n;
    }
}

/* att: [rows, H hd]. A unit writes, in the rows of its own tree of sequences, the columns of its kv
 * head's query heads. */
static void attention_forward(Arena *a, const Config *c, const Batch *b, const float *qk,
                              const float *qkv, float *att)
{
    Heads s = heads_of(c);
    int keys = batch_keys(b), most = keys / KEYS + 2;
    size_t mark = a->used, threads = (size_t)a->threads;
    size_t each = attend_floats(&s, keys), room = kv_block_floats(&s) * (size_t)most;
    float *memory = arena_floats(a, room * threads), *scratch = arena_floats(a, each * threads);
    KvBlock *blocks = arena_alloc(a, (size_t)most * threads, sizeof(KvBlock));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++) {
        size_t t = a->threads > 1 ? (size_t)thread_index() : 0;
        attend_unit(&s, b, unit, qk, qkv, blocks + t * (size_t)most, memory + t * room, att,
                    scratch + t * each);
    }
    a->used = mark;
}

/* The memory of a cached block for one layer and kv head. */
static float *kv_piece(const Heads *s, const KvSeq *kv, int block, int layer, int kv_head)
{
    return kv->block[block] + s->ld_kv * (layer * s->KV + kv_head);
}

/* The blocks that hold the first `keys` keys of a cache, and, block for block, those of the cache
 * `next` that is read after it, or NULL; returns how many. */
static int cached_blocks(const Heads *s, const KvSeq *kv, const KvSeq *next, int layer,
                         int kv_head, int keys, KvBlock *out)
{
    int n = 0;
    for (; n * KEYS < keys; n++) {
        const float *piece = kv_piece(s, kv, n, layer, kv_head);
        bool more = next && n < next->n_blocks;
        out[n] = (KvBlock){piece, piece + KEYS * s->hd, imin(KEYS, keys - n * KEYS),
                           more ? kv_piece(s, next, n, layer, kv_head) : NULL};
    }
    return n;
}

/* The keys that a sequence has of its own, as blocks. */
static int own_blocks(const Heads *s, const Seq *seq, const KvSeq *next, int layer, int kv_head,
                      KvBlock *out)
{
    int own = seq->start + seq->rows - seq->prefix_length;
    return cached_blocks(s, seq->kv, next, layer, kv_head, own, out);
}

/* n sequences of one row each that share a prefix, for one kv head: the prefix's keys and values
 * are read once for all of them; `after` is the sequence behind them, or NULL. Row g * n + i of
 * the scores is head g of sequence i, so that both "all sequences of a head" and "all heads of a
 * sequence" are rows with one stride. Each row's numbers are those that `attend` makes. */
static void attend_sharers(const Heads *s, int layer, int kv_head, const Seq *seq, int n,
                           const Seq *after, const float *qk, KvBlock *blocks, float *att,
                           float *scratch)
{
    int prefix = seq->prefix_length, ld = prefix, h = kv_head * s->group;
    for (int i = 0; i < n; i++)
        ld = imax(ld, round_up(seq[i].start + 1, KEYS) + KEYS);
    const float *q = qk + seq->row * s->ld_qk + h * s->hd;
    float *scores = scratch, *sum = scores + (ptrdiff_t)QUERIES * ld, inverse[QUERIES];
    int shared = cached_blocks(s, seq->prefix_kv, NULL, layer, kv_head, prefix, blocks);
    KvBlock *own = blocks + shared;
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++)
            block_scores(s, n, q + g * s->hd, s->ld_qk, &blocks[k], blocks[k].n,
                         scores + g * n * ld + k * KEYS, ld);
    for (int i = 0; i < n; i++) {
        const Seq *next = i + 1 < n ? &seq[i + 1] : after;
        int owned = own_blocks(s, &seq[i], next ? next->kv : NULL, layer, kv_head, own);
        int keys = seq[i].start + 1;
        for (int k = 0; k < owned; k++)
            block_scores(s, s->group, q + i * s->ld_qk, s->hd, &own[k], own[k].n,
                         scores + i * ld + prefix + k * KEYS, n * ld);
        for (int r = i; r < s->group * n; r += n) {
            float *row = scores + (ptrdiff_t)r * ld;
            inverse[r] = 1.0f / row_exp(row, row, keys, row_max(row, keys), s->scale);
        }
    }
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++)
            block_values(s, n, scores + g * n * ld + k * KEYS, ld, &blocks[k], blocks[k].n, k > 0,
                         sum + g * n * s->hd_pad, s->hd_pad);
    for (int i = 0; i < n; i++) {
        const Seq *next = i + 1 < n ? &seq[i + 1] : after;
        int owned = own_blocks(s, &seq[i], next ? next->kv : NULL, layer, kv_head, own);
        float *to = sum + i * s->hd_pad;
        for (int k = 0; k < owned; k++)
            block_values(s, s->group, scores + i * ld + prefix + k * KEYS, n * ld, &own[k],
                         own[k].n, prefix + k > 0, to, n * s->hd_pad);
        for (int g = 0; g < s->group; g++)
            row_scale(att + (seq->row + i) * s->ld_out + (h + g) * s->hd,
                      to + g * n * s->hd_pad, inverse[g * n + i], s->hd);
    }
}

/* n sequences for one kv head, over keys that live in caches; their new keys go into their own
 * caches first. blocks: room for as many as the keys of one need. Where one row alone reads them,
 * there is little to do for each key, and most of the time is spent waiting for memory: so those of
 * the sequence `after`, or NULL, are asked for meanwhile. */
static void attend_cached(const Heads *s, int layer, int kv_head, const Seq *seq, int n,
                          const Seq *after, const float *qk, const float *qkv, KvBlock *blocks,
                          float *att, float *scratch)
{
    for (int i = 0; i < n; i++)
        for (int r = 0; r < seq[i].rows; r++) {
            int slot = seq[i].start - seq[i].prefix_length + r;
            kv_put(s, kv_piece(s, seq[i].kv, slot / KEYS, layer, kv_head), slot % KEYS,
                   qk + (seq[i].row + r) * s->ld_qk + (s->H + kv_head) * s->hd,
                   qkv + (seq[i].row + r) * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd);
        }
    if (n > 1) {
        attend_sharers(s, layer, kv_head, seq, n, after, qk, blocks, att, scratch);
        return;
    }
    bool ask = after && seq->rows == 1;
    int shared = cached_blocks(s, seq->prefix_kv, ask ? after->prefix_kv : NULL, layer, kv_head,
                               seq->prefix_length, blocks);
    own_blocks(s, seq, ask ? after->kv : NULL, layer, kv_head, blocks + shared);
    attend_seq(s, seq, kv_head, qk, blocks, att, scratch);
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

/* A unit writes, in the rows of its run of sequences, the columns of its kv head's query heads; and
 * in the caches of these sequences, each of which has its own, the part of this layer and kv head.
 * What several runs share, the prefix, is read. */
static void attention_cached(Arena *a, const Config *c, int layer, const Batch *b,
                             const float *qk, const float *qkv, float *att)
{
    Heads s = heads_of(c);
    s.ld_kv = b->pool->ld;
    int keys = batch_keys(b), most = keys / KEYS + 3;
    size_t mark = a->used, each = attend_floats(&s, keys), threads = (size_t)a->threads;
    float *scratch = arena_floats(a, each * threads);
    KvBlock *blocks = arena_alloc(a, (size_t)most * threads, sizeof(KvBlock));
    int *first = arena_alloc(a, (size_t)b->n_seqs + 1, sizeof(int));
    int runs = cut_sharers(&s, b, first);
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < runs * s.KV; unit++) {
        int t = a->threads > 1 ? thread_index() : 0, run = unit % runs;
        const Seq *seq = &b->seq[first[run]], *end = &b->seq[first[run + 1]];
        attend_cached(&s, layer, unit / runs, seq, (int)(end - seq), run + 1 < runs ? end : NULL,
                      qk, qkv, blocks + t * most, att, scratch + each * (size_t)t);
    }
    a->used = mark;
}

/* Memory of the backward pass. `keys`, `values`: the keys and the values as KvBlocks (in `values` k
 * and v change places, since dA = dO V^T reads v as q K^T reads k); `k`: keys by rows; `dk`, `dv`:
 * gradients; all by absolute position. `p`, `ds`, `dq`: A, dA (then dS) and dQ of a few rows. */
typedef struct {
    KvBlock *keys, *values;
    float *key_memory, *value_memory, *k, *dk, *dv;
    float *p, *ds, *dq; /* [QUERIES, ld], [QUERIES, ld], [MR, hd_pad] */
    ptrdiff_t ld;
} AttentionGrad;

static AttentionGrad attention_grad(Arena *a, const Heads *s, int keys)
{
    size_t blocks = (size_t)(keys / KEYS + 2), positions = blocks * KEYS;
    AttentionGrad g = {.ld = round_up(keys, KEYS) + KEYS};
    g.keys = arena_alloc(a, blocks, sizeof(KvBlock));
    g.values = arena_alloc(a, blocks, sizeof(KvBlock));
    g.key_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.value_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.k = arena_floats(a, positions * (size_t)s->hd_pad);
    g.dk = arena_floats(a, positions * (size_t)s->hd_pad);
    g.dv = arena_floats(a, positions * (size_t)s->hd_pad);
    g.p = arena_floats(a, (size_t)(QUERIES * g.ld));
    g.ds = arena_floats(a, (size_t)(QUERIES * g.ld));
    g.dq = arena_floats(a, (size_t)(MR * s->hd_pad));
    return g;
}

/* The gradient of one query head over one sequence. Forward: A = softmax(Q K^T scale), O = A V.
 *     dV += A^T dO,   dA = dO V^T,   dS = A (dA - <dO, O>) scale,   dQ = dS K,   dK += dS^T Q
 * (<dO, O> = sum_j A_j dA_j: the softmax's Jacobian is diag(A) - A A^T.) A and dS are triangles, of
 * which only those tiles are made that are not all zero: row i of a block sees before + 1 + i keys,
 * so a tile of rows goes no further than its last row sees, and a tile of the block's own keys
 * takes nothing from the rows before its first key.
 *
 * A, dS and dQ of n <= MR rows of a block, from row i0 on; q, o, d_o, dq: row 0's. */
static void attend_rows_backward(const Heads *s, int before, int i0, int n, const float *q,
                                 const float *o, const float *d_o, float *dq, AttentionGrad *g)
{
    int sees = before + 1 + i0, keys = sees + n - 1;
    float *p = g->p + i0 * g->ld, *ds = g->ds + i0 * g->ld, inverse[MR];
    q += i0 * s->ld_qk;
    o += i0 * s->ld_out;
    d_o += i0 * s->ld_out;
    attend_softmax(s, q, s->ld_qk, n, sees, 1, g->keys, keys, p, g->ld, inverse);
    const KvBlock *v = g->values;
    for (int start = 0; start < keys; start += v->n, v++)
        block_scores(s, n, d_o, s->ld_out, v, imin(v->n, keys - start), ds + start, g->ld);
    for (int i = 0; i < n; i++, sees++) {
        float *pi = p + i * g->ld, *dsi = ds + i * g->ld;
        vf dot = vset(row_dot(d_o + i * s->ld_out, o + i * s->ld_out, s->hd));
        row_scale(pi, pi, inverse[i], sees);
        FOR_ROW (j, part, sees) {
            vf x = vmul(vrow_load(pi + j, part), vsub(vrow_load(dsi + j, part), dot));
            vrow_store(dsi + j, vmul(x, vset(s->scale)), part);
        }
        memset(dsi + sees, 0, (size_t)(keys - sees) * sizeof(float));
    }
    gemm_small(n, s->hd, keys, ds, g->ld, 1, g->k, s->hd_pad, LANES, NULL, g->dq, s->hd_pad,
               NULL);
    for (int i = 0; i < n; i++)
        memcpy(dq + (i0 + i) * s->ld_qkv, g->dq + (ptrdiff_t)i * s->hd_pad,
               (size_t)s->hd * sizeof(float));
}

/* All of it, a block of QUERIES rows at a time. */
static void attend_backward(const Heads *s, const Seq *seq, int head, const float *qk,
                            const float *att, const float *datt, float *dqkv, AttentionGrad *g)
{
    for (int first = 0; first < seq->rows; first += QUERIES) {
        int n = imin(QUERIES, seq->rows - first), before = seq->start + first;
        ptrdiff_t row = seq->row + first;
        const float *q = qk + row * s->ld_qk + head * s->hd;
        const float *o = att + row * s->ld_out + head * s->hd;
        const float *d_o = datt + row * s->ld_out + head * s->hd;
        float *dq = dqkv + row * s->ld_qkv + head * s->hd;
        for (int i = 0; i < n; i += MR)
            attend_rows_backward(s, before, i, imin(MR, n - i), q, o, d_o, dq, g);
        for (int j = 0, m; j < before + n; j += m) { /* the keys before the block; then its own */
            int i = imax(0, j - before);
            float *dv = g->dv + (ptrdiff_t)j * s->hd_pad, *dk = g->dk + (ptrdiff_t)j * s->hd_pad;
            m = j < before ? before : imin(MR, n - i);
            gemm_small(m, s->hd, n - i, g->p + i * g->ld + j, 1, g->ld, d_o + i * s->ld_out,
                       s->ld_out, LANES, dv, dv, s->hd_pad, NULL);
            gemm_small(m, s->hd, n - i, g->ds + i * g->ld + j, 1, g->ld, q + i * s->ld_qk,
                       s->ld_qk, LANES, dk, dk, s->hd_pad, NULL);
        }
    }
}

/* Brings one sequence's keys and values into the forms that attend_backward reads, and sets their
 * gradients to zero. `shared` blocks before them belong to the prefix. */
static int load_keys(const Heads *s, const Seq *seq, int kv_head, int shared, const float *qk,
                     const float *qkv, AttentionGrad *g)
{
    const float *k = qk + seq->row * s->ld_qk + (s->H + kv_head) * s->hd;
    const float *v = qkv + seq->row * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd;
    size_t skip = kv_block_floats(s) * (size_t)shared, pad = (size_t)s->hd_pad;
    size_t at = (size_t)seq->start * pad, bytes = (size_t)seq->rows * pad * sizeof(float);
    int n = pack_keys(s, seq, kv_head, qk, qkv, g->keys + shared, g->key_memory + skip);
    for (int i = 0; i < n; i++) {
        float *block = g->value_memory + skip + kv_block_floats(s) * (size_t)i;
        memset(block, 0, kv_block_floats(s) * sizeof(float));
        g->values[shared + i] = (KvBlock){block, NULL, g->keys[shared + i].n, NULL};
    }
    memset(g->k + at, 0, bytes);
    memset(g->dk + at, 0, bytes);
    memset(g->dv + at, 0, bytes);
    for (int i = 0; i < seq->rows; i++) {
        kv_put(s, g->value_memory + skip + kv_block_floats(s) * (size_t)(i / KEYS), i % KEYS,
               v + i * s->ld_qkv, k + i * s->ld_qk);
        memcpy(g->k + at + (ptrdiff_t)i * s->hd_pad, k + i * s->ld_qk,
               (size_t)s->hd * sizeof(float));
    }
    return n;
}

/* dqkv's k and v parts of one sequence's rows, from the accumulated gradients. */
static void store_key_grads(const Heads *s, const Seq *seq, int kv_head, const AttentionGrad *g,
                            float *dqkv)
{
    size_t bytes = (size_t)s->hd * sizeof(float);
    for (int i = 0; i < seq->rows; i++) {
        float *to = dqkv + (seq->row + i) * s->ld_qkv + (s->H + kv_head) * s->hd;
        memcpy(to, g->dk + (ptrdiff_t)(seq->start + i) * s->hd_pad, bytes);
        memcpy(to + s->KV * s->hd, g->dv + (ptrdiff_t)(seq->start + i) * s->hd_pad, bytes);
    }
}

/* The gradient of one unit. A prompt's keys collect the gradients of all that followed it, in
 * order. */
static void unit_backward(const Heads *s, const Batch *b, int unit, const float *qk,
                          const float *qkv, const float *att, const float *datt, float *dqkv,
                          AttentionGrad *g)
{
    int first = b->root[unit / s->KV], end = b->root[unit / s->KV + 1], kv_head = unit % s->KV;
    int shared = load_keys(s, &b->seq[first], kv_head, 0, qk, qkv, g);
    for (int i = first; i < end; i++) {
        if (i > first)
            load_keys(s, &b->seq[i], kv_head, shared, qk, qkv, g);
        for (int h = kv_head * s->group; h < (kv_head + 1) * s->group; h++)
            attend_backward(s, &b->seq[i], h, qk, att, datt, dqkv, g);
        if (i > first)
            store_key_grads(s, &b->seq[i], kv_head, g, dqkv);
    }
    store_key_grads(s, &b->seq[first], kv_head, g, dqkv);
}

/* dqkv: [rows, (H + 2 KV) hd], gradients of the rotated q, k and of v. A unit writes, in the rows
 * of its own tree of sequences, the columns of its kv head and of that head's query heads. */
static void attention_backward(Arena *a, const Config *c, const Batch *b, const float *qk,
                               const float *qkv, const float *att, const float *datt, float *dqkv)
{
    Heads s = heads_of(c);
    size_t mark = a->used;
    AttentionGrad *g = arena_alloc(a, (size_t)a->threads, sizeof *g);
    for (int t = 0; t < a->threads; t++)
        g[t] = attention_grad(a, &s, batch_keys(b));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++)
        unit_backward(&s, b, unit, qk, qkv, att, datt, dqkv,
                      &g[a->threads > 1 ? thread_index() : 0]);
    a->used = mark;
}

/* ================================================================ the cache */

static size_t kv_pool_bytes(const Config *c, int blocks)
{
    Heads s = heads_of(c);
    size_t layers = (size_t)c->num_hidden_layers * (size_t)c->num_key_value_heads;
    return (size_t)blocks * (kv_block_floats(&s) * layers * sizeof(float) + sizeof(float *)) + 256;
}

static KvPool kv_pool_new(Arena *a, const Config *c, int blocks)
{
    Heads s = heads_of(c);
    size_t heads = (size_t)c->num_hidden_layers * (size_t)c->num_key_value_heads;
    size_t each = kv_block_floats(&s), one_head = each * (size_t)blocks;
    KvPool p = {.free_block = arena_alloc(a, (size_t)blocks, sizeof(float *)),
                .ld = (ptrdiff_t)one_head};
    float *memory = arena_floats(a, one_head * heads);
    for (; p.n_free < blocks; p.n_free++) /* the first block on top */
        p.free_block[p.n_free] = memory + each * (size_t)(blocks - 1 - p.n_free);
    return p;
}

static int kv_blocks(int length) { return (length + KEYS - 1) / KEYS; }

static KvSeq kv_seq_new(Arena *a, int longest)
{
    return (KvSeq){arena_alloc(a, (size_t)kv_blocks(longest), sizeof(float *)), 0};
}

/* Makes room in `kv` for `length` keys. */
static void kv_reserve(KvPool *p, KvSeq *kv, int length)
{
    while (kv->n_blocks < kv_blocks(length))
        kv->block[kv->n_blocks++] = p->free_block[--p->n_free];
}

/* Hands a finished sequence's blocks back. */
static void kv_release(KvPool *p, KvSeq *kv)
{
    while (kv->n_blocks > 0)
        p->free_block[p->n_free++] = kv->block[--kv->n_blocks];
}

#endif
