/* batch.h: sequences packed end to end, and the cache of keys and values that sampling keeps. */
#ifndef BATCH_H
#define BATCH_H

#include "../base/util.h" /* defines: Arena, die */

enum { KEYS = 32 }; /* positions in a block of keys and values: see attention.h */

/* Keys and values of one sequence, kept while it is being sampled. A block here stands for KEYS
 * positions in all layers and kv heads; it points at the memory of the first. */
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
 * saved_floats. row NULL: it is not kept. */
typedef struct {
    float *row;
    size_t floats;
} Saved;

/* A sequence: `rows` rows from `row` on, at absolute positions start, start + 1, ... It sees the
 * keys of its prefix (positions 0 .. prefix_length - 1), then its own. While sampling, keys and
 * values live in `kv` (the prefix's in prefix_kv); otherwise they are the rows of this batch. */
typedef struct {
    int row, rows, start;
    int prefix; /* index of the sequence in this batch that comes before this one, or -1 */
    KvSeq *kv, *prefix_kv;
    int prefix_length;
    Saved saved; /* of all sequences of a batch, or of none */
} Seq;

/* Sequences packed end to end, and their targets: row target_row[i] predicts token target[i].
 * Sequences that share a prefix follow it directly. */
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
    b.token = arena_alloc(a, max_rows, sizeof(int));
    b.position = arena_alloc(a, max_rows, sizeof(int));
    b.seq = arena_alloc(a, max_seqs, sizeof(Seq));
    b.root = arena_alloc(a, max_seqs + 1, sizeof(int));
    b.target_row = arena_alloc(a, max_targets, sizeof(int));
    b.target = arena_alloc(a, max_targets, sizeof(int));
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

/* The longest stretch of keys that a sequence and its prefix have. */
static int batch_keys(const Batch *b)
{
    int longest = 0;
    for (int i = 0; i < b->n_seqs; i++)
        longest = imax(longest, b->seq[i].start + b->seq[i].rows);
    return longest;
}

/* ---------------------------------------------------------------- the cache */

static int kv_blocks(int length) { return (length + KEYS - 1) / KEYS; }

static KvSeq kv_seq_new(Arena *a, int longest)
{
    return (KvSeq){arena_alloc(a, kv_blocks(longest), sizeof(float *)), 0};
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
