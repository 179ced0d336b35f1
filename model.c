/* model.c: the transformer, by hand.
 *
 *   A decoder-only language model of the Qwen3 family (RMSNorm, rotary positions, grouped-query
 *   attention with normalised queries and keys, SwiGLU), its exact gradients, and its optimizer.
 *   The same text runs Qwen2 (biases on q, k, v; no norm on q and k) and Llama (neither). It knows
 *   nothing of rewards, groups or advantages. fp32 throughout.
 *
 * A Batch packs sequences end to end, without padding, into rows:
 *     tokens -> embedding rows -> layer 0 .. L-1 -> final norm of the rows that predict something
 *     (targets) -> head: log-prob, entropy and feature phi of each target.
 * The backward pass walks the same list from its end. A sequence may name another one as its
 * prefix: it then attends to that one's keys first, so a prompt that many responses share is
 * computed once.
 *
 * In this file: each layer's forward followed by its backward; the head; a layer, a pass; the
 * gradients of the weights; AdamW. The table of tensors is lib/model/tensors.h, a model's files are
 * lib/model/files.h. How products are made fast is lib/num's affair.
 *
 * A row's result depends on its own sequence alone: not on the batch it is in, nor on the threads,
 * nor on whether keys come from this batch or from a cache (see gemm.h, attention.h). */
#ifndef MODEL_C
#define MODEL_C

#include "lib/model/activations.h" /* defines: Layer, LayerGrad, Keep; tensors.h: Model, weight */
#include "lib/model/files.h"       /* defines: model_save, model_dir */
#include "lib/model/lora.h"        /* defines: model_load, Lora, adapted, trained */
#include "lib/num/attention.h"     /* defines: attend_rows; batch.h: Batch; engine.h: Engine */
#include "lib/num/gemm.h"          /* defines: gemm, Mat; simd.h: rows of vectors */

/* ================================================================ embedding */

/* x[r] = E[token[r]]    x: [rows, hidden_size] */
static void embed_forward(float *x, const float *embed, const Batch *b, int d)
{
    for (int r = 0; r < b->n_rows; r++)
        memcpy(row(x, r, d), row(embed, b->token[r], d),
               d * sizeof(float));
}

/* dE[token[r]] += dx[r], row after row, for the tokens first .. first + n - 1. */
static void embed_backward(float *dembed, const float *dx, const Batch *b, int d, int first, int n)
{
    for (int r = 0; r < b->n_rows; r++)
        if (b->token[r] >= first && b->token[r] < first + n)
            row_axpy(row(dembed, b->token[r], d), 1.0f, row(dx, r, d), d);
}

/* ================================================================ RMSNorm */

/* y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps)    x, y: [n], w: [n] */
static float norm_row(float *y, const float *x, const float *w, int n, float eps)
{
    float rstd = 1.0f / sqrtf(row_dot(x, x, n) / (float)n + eps);
    FOR_ROW (i, part, n) {
        vf v = vmul(vmul(vrow_load(x + i, part), vset(rstd)), vrow_load(w + i, part));
        vrow_store(y + i, v, part);
    }
    return rstd;
}

/* With g = dy w:  dx = base + rstd (g - x rstd^2 mean(g x)).   Forward: y = x rstd w, and rstd
 * depends on every x of the row: d rstd / dx_j = -rstd^3 x_j / n. `base` is what dx has already
 * (the residual stream's own gradient), or NULL; dx may be dy or base. */
static void norm_row_backward(float *dx, const float *base, const float *dy, const float *x,
                              const float *w, float rstd, int n)
{
    Lanes s = lanes_zero();
    FOR_ROW (i, part, n) {
        vf g = vmul(vrow_load(dy + i, part), vrow_load(w + i, part));
        LANE_OF(s, i) = vfma(g, vrow_load(x + i, part), LANE_OF(s, i));
    }
    vf c = vset(-rstd * rstd * lanes_sum(s) / (float)n), r = vset(rstd);
    FOR_ROW (i, part, n) {
        vf g = vmul(vrow_load(dy + i, part), vrow_load(w + i, part));
        vf v = vfma(vrow_load(x + i, part), c, g);
        v = base ? vfma(v, r, vrow_load(base + i, part)) : vmul(v, r);
        vrow_store(dx + i, v, part);
    }
}

/* dw_j += sum_r dy[r][j] x[r][j] rstd[r], rows in order.   Forward: y[r][j] = x[r][j] rstd[r] w_j.
 * dy, x: [rows, d] */
static void norm_weights_backward(float *dw, const float *dy, const float *x, const float *rstd,
                                  int rows, int d)
{
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, d) {
            vf x_hat = vmul(vrow_load(row(x, r, d) + i, part), vset(rstd[r]));
            vf g = vrow_load(row(dy, r, d) + i, part);
            vrow_store(dw + i, vfma(g, x_hat, vrow_load(dw + i, part)), part);
        }
}

/* y[r] = RMSNorm(x[r]) w    y: like x; rstd: [rows], kept for the backward pass */
static void rmsnorm_forward(float *y, float *rstd, Mat x, const float *w, float eps, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < x.rows; r++)
        rstd[r] = norm_row(y + r * x.rs, x.at + r * x.rs, w, x.cols, eps);
}

/* dx[r] = base[r] + the gradient through the norm; base may be NULL. */
static void rmsnorm_backward(float *dx, const float *base, const float *dy, Mat x, const float *w,
                             const float *rstd, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < x.rows; r++) {
        ptrdiff_t at = r * x.rs;
        norm_row_backward(dx + at, base ? base + at : NULL, dy + at, x.at + at, w, rstd[r], x.cols);
    }
}

/* ================================================================ linear layers */

/* y = base + x W^T    x: [rows, k], W: [n, k], y and base: [rows, n]; base NULL: zero */
static void linear_forward(Arena *a, float *y, const float *x, int rows, Mat W, const float *base)
{
    gemm(a, y, W.rows, mat(x, rows, W.cols), transposed(W), base);
}

/* y[r] = bias    y: [rows, n] */
static void bias_forward(float *y, const float *bias, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        memcpy(row(y, r, n), bias, n * sizeof(float));
}

/* Forward: y_i = sum_j W_ij x_j, so dx_j = sum_i dy_i W_ij: dx = dy W. */
static void linear_backward(Arena *a, float *dx, const float *dy, int rows, Mat W)
{
    gemm(a, dx, W.cols, mat(dy, rows, W.rows), W, NULL);
}

/* Forward: y_i = sum_j W_ij x_j, so dW_ij = sum_r dy_ri x_rj: dW += dy^T x, one chain over the
 * rows. The rows of dW are ld floats apart. */
static void linear_weights_backward(Arena *a, float *dW, ptrdiff_t ld, Mat dy, Mat x)
{
    gemm(a, dW, ld, transposed(dy), x, dW);
}

/* dbias_j += sum_r dy[r][j] */
static void bias_backward(float *dbias, const float *dy, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        row_axpy(dbias, 1.0f, row(dy, r, n), n);
}

/* ================================================================ heads: q/k norm and rotation */

/* A rotary frequency, scaled as the config says: in floats, as transformers does it. Llama 3.1
 * stretches slow rotations by `factor`, so that more positions fit, and leaves fast ones alone. */
static float rope_scaled(const Rope *rope, float frequency)
{
    float factor = (float)rope->factor, original = (float)rope->original;
    float low = (float)rope->low, high = (float)rope->high;
    float wavelength = 6.2831855f / frequency, share = (original / wavelength - low) / (high - low);
    if (rope->type == ROPE_DEFAULT || (rope->type == ROPE_LLAMA3 && wavelength < original / high))
        return frequency;
    if (rope->type == ROPE_LINEAR || wavelength > original / low)
        return frequency / factor;
    return (1.0f - share) * frequency / factor + share * frequency;
}

/* Rotary positions (Su et al. 2021, in the half-split form of Llama and Qwen): the pair
 * (x_i, x_{i + hd/2}) turns by the angle position * theta^(-2i / hd). A query at p and a key at j
 * that both are turned have the product <R_p q, R_j k> = <q, R_(j - p) k>: scores depend on the
 * distance alone. Frequencies, angles, cosines and sines are floats, as transformers trains models
 * with them: each is rounded from double, so that the table is the same on every machine. Not to be
 * called while threads run. */
static void rope_reserve(Model *m, int positions)
{
    const Config *c = &m->config;
    int half = c->head_dim / 2;
    if (positions <= m->n_positions)
        return;
    if (positions > c->max_position_embeddings)
        die("a sequence of %d tokens is longer than max_position_embeddings %d", positions,
            c->max_position_embeddings);
    m->rope = xrealloc(m->rope, sizeof(float) * positions * c->head_dim);
    for (int p = m->n_positions; p < positions; p++)
        for (int i = 0; i < half; i++) {
            float power = (float)pow(c->rope_theta, (double)(2.0f * (float)i / (float)c->head_dim));
            float angle = (float)p * rope_scaled(&c->rope, 1.0f / power);
            row(m->rope, p, c->head_dim)[i] = (float)cos((double)angle);
            row(m->rope, p, c->head_dim)[half + i] = (float)sin((double)angle);
        }
    m->n_positions = positions;
}

/* (a, b) -> (a cos - b sin, b cos + a sin) over the halves of one head; `turn` is 1 forward and
 * -1 backward: the transpose of a rotation is the rotation back. */
static void rotate(float *y, const float *x, const float *rope, int hd, float turn)
{
    int half = hd / 2;
    FOR_ROW (i, part, half) {
        vf a = vrow_load(x + i, part), b = vrow_load(x + half + i, part);
        vf cosine = vrow_load(rope + i, part);
        vf sine = vmul(vset(turn), vrow_load(rope + half + i, part));
        vf u = vfma(vsub(vset(0.0f), b), sine, vmul(a, cosine));
        vrow_store(y + half + i, vfma(a, sine, vmul(b, cosine)), part);
        vrow_store(y + i, u, part);
    }
}

/* qk[r] = rotate(norm(q)), rotate(norm(k)) for every head of row r; v stays where it is.
 * qkv: [rows, (H + 2 KV) hd], qk: [rows, (H + KV) hd]; rstd: [rows, H + KV] */
static void heads_forward(const Model *m, int layer, const Batch *b, const float *qkv, float *qk,
                          float *rstd, int threads)
{
    const Config *c = &m->config;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    const float *wq = at(m, m->params, layer_tensor(layer, Q_NORM));
    const float *wk = at(m, m->params, layer_tensor(layer, K_NORM));
    PARALLEL_FOR (threads)
    for (int r = 0; r < b->n_rows; r++)
        for (int h = 0; h < H + KV; h++) {
            const float *x = row(qkv, r, (H + 2 * KV) * hd) + h * hd;
            float *y = row(qk, r, (H + KV) * hd) + h * hd;
            if (c->model_type == QWEN3) {
                rstd[r * (H + KV) + h] = norm_row(y, x, h < H ? wq : wk, hd,
                                                  (float)c->rms_norm_eps);
                x = y;
            }
            rotate(y, x, row(m->rope, b->position[r], hd), hd, 1.0f);
        }
}

/* In: g->qkv holds the gradients by the rotated q and k (and by v, which is done). Out: those of
 * the projections; g->heads keeps those of the norms' outputs, for their weights. Forward: qk =
 * rotate(norm(x)). */
static void heads_backward(const Model *m, int layer, const Batch *b, const Layer *l, LayerGrad *g,
                           int threads)
{
    const Config *c = &m->config;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    const float *wq = at(m, m->params, layer_tensor(layer, Q_NORM));
    const float *wk = at(m, m->params, layer_tensor(layer, K_NORM));
    PARALLEL_FOR (threads)
    for (ptrdiff_t r = 0; r < b->n_rows; r++)
        for (int h = 0; h < H + KV; h++) {
            ptrdiff_t head = r * (H + KV) + h, place = r * (H + 2 * KV) * hd + h * hd;
            float *dx = g->qkv + place, *dy = g->heads + head * hd;
            rotate(dy, dx, row(m->rope, b->position[r], hd), hd, -1.0f);
            if (c->model_type == QWEN3)
                norm_row_backward(dx, NULL, dy, l->qkv + place, h < H ? wq : wk,
                                  l->rstd_head[head], hd);
            else
                memcpy(dx, dy, hd * sizeof(float));
        }
}

/* ================================================================ attention */

/* For one query head and one row at position p:
 *     s_j = <q, k_j> / sqrt(hd),   p_j = e^(s_j - max) / sum,   o = sum_j p_j v_j,    j = 0 .. p.
 * A prompt and the responses behind it are a tree: its keys are laid out once for all of them, and
 * their gradients collect what each sends back. A unit of work is such a tree, for one kv head. */

/* A thread's memory: the blocks of keys and values of one unit, and rows of weights. */
typedef struct {
    KvBlock *blocks;
    float *keys, *rows;
} AttentionScratch;

static AttentionScratch attention_scratch(Arena *a, const Heads *s, int keys)
{
    int most = keys / KEYS + 2;
    return (AttentionScratch){arena_alloc(a, most, sizeof(KvBlock)),
                              arena_floats(a, kv_block_floats(s) * most),
                              arena_floats(a, attend_floats(s, keys))};
}

/* att: [rows, H hd]. A unit writes, in the rows of its own tree of sequences, the columns of its kv
 * head's query heads. */
static void attention_forward(Arena *a, Heads s, const Batch *b, const float *qk, const float *qkv,
                              float *att)
{
    size_t mark = a->used;
    AttentionScratch *memory = arena_alloc(a, a->threads, sizeof *memory);
    for (int t = 0; t < a->threads; t++)
        memory[t] = attention_scratch(a, &s, batch_keys(b));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++) {
        const AttentionScratch *x = &memory[a->threads > 1 ? thread_index() : 0];
        int first = b->root[unit / s.KV], end = b->root[unit / s.KV + 1], kv = unit % s.KV;
        int shared = 0; /* blocks of the prompt */
        for (int i = first; i < end; i++) {
            const Seq *seq = &b->seq[i];
            int n = key_blocks(&s, seq_keys(&s, seq, kv, qk), seq_values(&s, seq, kv, qkv),
                              x->blocks + shared, x->keys + kv_block_floats(&s) * shared);
            for (int h = kv * s.group; h < (kv + 1) * s.group; h++)
                attend_rows(&s, head_rows(&s, seq, h, qk, s.ld_qk), seq->start + 1, 1, x->blocks,
                            att + seq->row * s.ld_out + h * s.hd, s.ld_out, x->rows);
            shared = i == first ? n : shared;
        }
    }
    a->used = mark;
}

/* dqkv: [rows, (H + 2 KV) hd], gradients by the rotated q and k and by v. A unit writes, in the
 * rows of its own tree of sequences, the columns of its kv head and of that head's query heads; the
 * prompt's keys collect the gradients of all sequences behind it, in order. */
static void attention_backward(Arena *a, Heads s, const Batch *b, const Layer *l,
                               const float *datt, float *dqkv)
{
    size_t mark = a->used;
    AttentionGrad *memory = arena_alloc(a, a->threads, sizeof *memory);
    for (int t = 0; t < a->threads; t++)
        memory[t] = attention_grad_new(a, &s, batch_keys(b));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++) {
        AttentionGrad *g = &memory[a->threads > 1 ? thread_index() : 0];
        int first = b->root[unit / s.KV], end = b->root[unit / s.KV + 1], kv = unit % s.KV;
        int shared = 0;
        for (int i = first; i < end; i++) {
            const Seq *seq = &b->seq[i];
            int n = load_keys(&s, seq, shared, seq_keys(&s, seq, kv, l->qk),
                              seq_values(&s, seq, kv, l->qkv), g);
            for (int h = kv * s.group; h < (kv + 1) * s.group; h++)
                attend_rows_backward(&s, seq->start, head_rows(&s, seq, h, l->qk, s.ld_qk),
                                     head_rows(&s, seq, h, l->att, s.ld_out),
                                     head_rows(&s, seq, h, datt, s.ld_out),
                                     dqkv + seq->row * s.ld_qkv + h * s.hd, g);
            if (i > first)
                store_key_grads(&s, seq, kv, g, dqkv);
            shared = i == first ? n : shared;
        }
        store_key_grads(&s, &b->seq[first], kv, g, dqkv);
    }
    a->used = mark;
}

/* ================================================================ SwiGLU */

/* out = silu(g) u, silu(g) = g / (1 + e^-g)    gu: [rows, 2 ff] (g, then u), out: [rows, ff] */
static void swiglu_forward(float *out, const float *gu, int rows, int ff, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, ff) {
            const float *g = row(gu, r, 2 * ff) + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf silu = vdiv(x, vadd(one, vexp(vsub(vset(0.0f), x))));
            vrow_store(row(out, r, ff) + i, vmul(silu, u), part);
        }
}

/* Forward: out = g s u, s = 1 / (1 + e^-g). Since s' = s (1 - s), (g s)' = s (1 + g (1 - s)):
 *     dg = dout u s (1 + g (1 - s)),    du = dout g s
 * dgu may not be gu. */
static void swiglu_backward(float *dgu, const float *dout, const float *gu, int rows, int ff,
                            int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, ff) {
            const float *g = row(gu, r, 2 * ff) + i;
            float *dg = row(dgu, r, 2 * ff) + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf d = vrow_load(row(dout, r, ff) + i, part);
            vf s = vdiv(one, vadd(one, vexp(vsub(vset(0.0f), x))));
            vf slope = vmul(s, vfma(x, vsub(one, s), one));
            vrow_store(dg, vmul(vmul(d, u), slope), part);
            vrow_store(dg + ff, vmul(d, vmul(x, s)), part);
        }
}

/* ================================================================ the head */

/* The head turns a hidden row h into logits z = W h and these into log p_y = z_y / T - log sum_v
 * e^(z_v / T). Its gradient is where the method's feature comes from:
 *     d log p_y / d z_v = (1[v = y] - p_v) / T
 *     d log p_y / d h   = sum_v W[v] (1[v = y] - p_v) / T = (W[y] - E_{v ~ p} W[v]) / T = phi / T
 * So phi (Eq 6-7, 14) is what the backward pass of any loss by log p begins with, before anybody
 * calls it a feature. And E_{y ~ p} phi = 0, as W[y] has that very mean: by itself no direction is
 * favoured.
 *
 * The head is attention over the vocabulary: query h, keys W, and for phi values W as well. It is
 * streamed over tiles of TILE tokens with an online softmax, so that its memory does not grow with
 * the vocabulary (but see MOST_LOGITS). This is the one place where a sum over the vocabulary is
 * made: sampler, trainer and `score` all go through softmax_tile, with the same tiles, and so see
 * the same bits. */
enum { HEAD_ROWS = 128 };

/* A softmax on its way through the vocabulary. It does not change where all z change by the same:
 * with the largest taken off no e^ is above 1. */
typedef struct {
    float max, sum; /* of z / T, and of e^(z / T - max) */
    float spread;   /* sum of e^y y, y = z / T - max: the entropy is log sum - spread / sum */
} Softmax;

#define SOFTMAX_EMPTY ((Softmax){-INFINITY, 0.0f, 0.0f})

static float exp_one(float x)
{
    float t[VL];
    vstore(t, vexp(vset(x)));
    return t[0];
}

/* Takes n more logits z into the softmax at temperature T; e_i = e^(z_i / T - max). Returns the
 * factor by which sums made under the old maximum shrink. e may be z. */
static float softmax_tile(Softmax *s, const float *z, float *e, int n, float inverse_temperature)
{
    float max = row_max(z, n) * inverse_temperature, shrink = 0.0f;
    Lanes sum = lanes_zero(), spread = lanes_zero();
    max = s->max > max ? s->max : max;
    FOR_ROW (i, part, n) {
        vf x = vmul(vrow_load(z + i, part), vset(inverse_temperature));
        vf y = vsub(x, vset(max)), v = vexp(y);
        vrow_store(e + i, v, part);
        v = vrow_load(e + i, part); /* 0 beyond the row's end */
        LANE_OF(sum, i) = vadd(LANE_OF(sum, i), v);
        LANE_OF(spread, i) = vfma(v, y, LANE_OF(spread, i));
    }
    if (s->sum > 0) {
        shrink = s->max == max ? 1.0f : exp_one(s->max - max);
        s->spread = fmaf(s->sum, s->max - max, s->spread) * shrink;
    }
    s->sum = fmaf(s->sum, shrink, lanes_sum(sum));
    s->spread += lanes_sum(spread);
    s->max = max;
    return shrink;
}

static float softmax_logprob(const Softmax *s, float z, float inverse_temperature)
{
    return z * inverse_temperature - s->max - (float)log((double)s->sum);
}

static float softmax_entropy(const Softmax *s)
{
    return (float)log((double)s->sum) - s->spread / s->sum;
}

/* The reference, q beside the policy p: a model and its hidden rows of the same targets. */
typedef struct {
    const Model *m; /* NULL: none */
    const float *h; /* [targets, hidden_size] */
} Reference;

/* The head's targets, and what it makes of them. */
typedef struct {
    const float *h;    /* [targets, hidden_size] hidden rows, after the final norm */
    const int *target; /* [targets] the token that followed each */
    int targets;
    float inverse_temperature;
    float *logprob, *entropy;
    Softmax *softmax;
    float *phi;    /* [targets, hidden_size]: W[y] - E_p W[v], Eq 14; NULL: not wanted */
    float *logits; /* [tiles][targets][TILE], kept for the backward pass; NULL: made again there */
    Reference ref;
    Softmax *ref_softmax;
    float *ref_logprob, *kl; /* log q of each target; KL(p || q), exact */
} Head;

/* The loss's derivatives by what the head made of each target: by log p, by the entropy H of the
 * whole distribution, by KL(p || q). NULL: it has no part in the loss. */
typedef struct {
    float *logprob, *entropy, *kl;
} Coef;

/* Floats of logits that a pass would keep for its backward pass, and the most that one does keep
 * (64 MiB). Beyond that they are computed twice, with the same bits. */
enum { MOST_LOGITS = 1 << 24 };
static size_t logits_floats(const Config *c, size_t targets)
{
    return targets * ((c->vocab_size + TILE - 1) / TILE * TILE);
}

/* Where the logit of token v for target i is kept. */
static float *kept_logits(const Head *head, int v, int i)
{
    return head->logits + ((ptrdiff_t)(v / TILE) * head->targets + i) * TILE + v % TILE;
}

/* phi = base + e W[v0 .. v0 + TILE): one tile as values. Tokens from n_vocab on have no share.
 * e: [rows, TILE], phi and base: [rows, hidden_size] */
static void head_values(Arena *a, const Model *m, float *e, int rows, int v0, const float *base,
                        float *phi)
{
    int n = imin(TILE, m->config.vocab_size - v0), there = imin(n, m->n_vocab - v0);
    for (int r = 0; r < rows && there < n; r++)
        memset(e + r * TILE + there, 0, sizeof(float) * (n - there));
    Mat weights = {.at = e, .rows = rows, .cols = n, .rs = TILE, .cs = 1};
    gemm(a, phi, m->config.hidden_size, weights, head_tile(m, v0, n), base);
}

/* Eq 6-7, 14: phi = W[y] - E_{v ~ p} W[v], where phi is sum_v e_v W[v] on entry, `sum` is
 * sum_v e_v, and w is W[y].    phi, w: [d] */
static void token_feature(float *phi, const float *w, float sum, int d)
{
    vf scale = vset(-1.0f / sum);
    FOR_ROW (i, part, d)
        vrow_store(phi + i, vfma(vrow_load(phi + i, part), scale, vrow_load(w + i, part)), part);
}

/* A block of targets under the reference, on its way through the vocabulary. */
typedef struct {
    float *z;   /* [HEAD_ROWS, TILE] its logits, then what e^z makes of them */
    float *gap; /* [HEAD_ROWS, TILE] the policy's logits minus its */
    float target_z[HEAD_ROWS], gap_sum[HEAD_ROWS]; /* sum of e^(z / T - max) gap, by the policy */
} RefBlock;

static RefBlock *ref_block_new(Arena *a)
{
    RefBlock *b = arena_alloc(a, 1, sizeof *b);
    b->z = arena_floats(a, HEAD_ROWS * TILE);
    b->gap = arena_floats(a, HEAD_ROWS * TILE);
    return b;
}

/* One tile for row r: `z` are the policy's logits, not yet e^; s is the reference's softmax. */
static void ref_tile(RefBlock *b, int r, const float *z, int n, int target, Softmax *s, float inv)
{
    float *q = b->z + r * TILE, *gap = b->gap + r * TILE;
    FOR_ROW (i, part, n)
        vrow_store(gap + i, vsub(vrow_load(z + i, part), vrow_load(q + i, part)), part);
    if (target >= 0 && target < n)
        b->target_z[r] = q[target];
    softmax_tile(s, q, q, n, inv);
}

/* KL(p || q) = E_p[(z - z') / T] - log sum e^(z / T) + log sum e^(z' / T);   gap: sum of
 * e^(z / T - max) (z - z') */
static float exact_kl(float gap, const Softmax *p, const Softmax *q, float inv)
{
    double ours = (double)p->max + log((double)p->sum), its = (double)q->max + log((double)q->sum);
    return (float)((double)gap / (double)p->sum * (double)inv - (ours - its));
}

/* One tile, from token v0 on, of the targets from `first` on: logits, softmax, and e W added to
 * phi. The loop over rows writes what has the number of its row. */
static void head_tile_forward(Arena *a, const Model *m, Head *out, int first, int rows, int v0,
                            float *target_z, RefBlock *ref)
{
    int d = m->config.hidden_size, n = imin(TILE, m->n_vocab - v0);
    ptrdiff_t at_row = (ptrdiff_t)first * d;
    float inv = out->inverse_temperature, *phi = out->phi ? out->phi + at_row : NULL;
    float *e = arena_floats(a, HEAD_ROWS * TILE);
    float *z = out->logits ? kept_logits(out, v0, first) : e;
    gemm(a, z, TILE, mat(out->h + at_row, rows, d), head_columns(m, v0, n), NULL);
    if (ref)
        gemm(a, ref->z, TILE, mat(out->ref.h + at_row, rows, d), head_columns(out->ref.m, v0, n),
             NULL);
    PARALLEL_FOR (a->threads)
    for (int r = 0; r < rows; r++) {
        float *zr = z + r * TILE;
        int target = out->target[first + r] - v0;
        if (target >= 0 && target < n)
            target_z[r] = zr[target];
        if (ref)
            ref_tile(ref, r, zr, n, target, &out->ref_softmax[first + r], inv);
        float shrink = softmax_tile(&out->softmax[first + r], zr, e + r * TILE, n, inv);
        if (ref)
            ref->gap_sum[r] = fmaf(ref->gap_sum[r], shrink,
                                   row_dot(e + r * TILE, ref->gap + r * TILE, n));
        if (phi && v0 > 0 && shrink != 1.0f)
            row_scale(row(phi, r, d), row(phi, r, d), shrink, d);
    }
    if (phi)
        head_values(a, m, e, rows, v0, v0 > 0 ? phi : NULL, phi);
}

/* Log-prob and entropy of each target under softmax(W h / T), phi where `out->phi` is given, and
 * what the reference says where there is one. The memory of `out` is the caller's. */
static void head_forward(Arena *a, const Model *m, Head *out)
{
    int d = m->config.hidden_size;
    size_t mark = a->used;
    float inv = out->inverse_temperature;
    RefBlock *ref = out->ref.m ? ref_block_new(a) : NULL;
    size_t tile_mark = a->used;
    for (int i = 0; i < out->targets; i++) {
        out->softmax[i] = SOFTMAX_EMPTY;
        if (ref)
            out->ref_softmax[i] = SOFTMAX_EMPTY;
    }
    for (int first = 0; first < out->targets; first += HEAD_ROWS) {
        int rows = imin(HEAD_ROWS, out->targets - first);
        float target_z[HEAD_ROWS] = {0};
        if (ref)
            memset(ref->gap_sum, 0, sizeof ref->gap_sum);
        for (int v0 = 0; v0 < m->n_vocab; v0 += TILE) {
            head_tile_forward(a, m, out, first, rows, v0, target_z, ref);
            a->used = tile_mark;
        }
        for (int r = 0, i = first; r < rows; r++, i++) {
            const Softmax *s = &out->softmax[i];
            out->logprob[i] = softmax_logprob(s, target_z[r], inv);
            out->entropy[i] = softmax_entropy(s);
            if (ref) {
                out->ref_logprob[i] = softmax_logprob(&out->ref_softmax[i], ref->target_z[r], inv);
                out->kl[i] = exact_kl(ref->gap_sum[r], s, &out->ref_softmax[i], inv);
            }
            if (out->phi)
                token_feature(row(out->phi, i, d), row(head_weight(m), out->target[i], d), s->sum,
                              d);
        }
    }
    a->used = mark;
}

/* With c = dL / d log p, a = dL / dH and b = dL / dK of a target. Forward: z = W h,
 *     log p = z_y / T - log sum_v e^(z_v / T)     H = -sum_v p_v ln p_v     K = KL(p || q)
 * so that
 *     dz_v = (c 1[v = y] + p_v (s_v - c)) / T,    s_v = -a (ln p_v + H) + b (ln p_v - ln q_v - K)
 *     dh = W^T dz = (c phi + sum_v p_v s_v W[v]) / T,       dW = dz^T h
 * phi is there already: the features are free. Only with an entropy or a KL term does dh take a
 * pass over the vocabulary of its own, with the reference's logits made once more.
 *
 * dz_v = p_v (s_v - c) / T, n tokens of row i: logits z of the policy, q of the reference. */
static void head_terms(const Head *head, const Coef *coef, int i, float c, const float *z,
                       const float *q, int n, float *dz)
{
    const Softmax *s = &head->softmax[i], *o = coef->kl ? &head->ref_softmax[i] : s;
    double inv = (double)head->inverse_temperature, log_sum = log((double)s->sum);
    double a = coef->entropy ? (double)coef->entropy[i] : 0;
    double b = coef->kl ? (double)coef->kl[i] : 0, K = coef->kl ? (double)head->kl[i] : 0;
    double between = (double)s->max + log_sum - (double)o->max - log((double)o->sum);
    vf rest = vset((float)(-(double)c - a * ((double)head->entropy[i] - log_sum) -
                           b * (between + K)));
    vf slope = vset((float)-a), gap = vset((float)(b * inv)), scale = vset((float)inv / s->sum);
    FOR_ROW (v, part, n) { /* ln p_v = y - log_sum */
        vf x = vrow_load(z + v, part), y = vsub(vmul(x, vset((float)inv)), vset(s->max));
        vf t = vfma(slope, y, rest);
        if (coef->kl)
            t = vfma(gap, vsub(x, vrow_load(q + v, part)), t);
        vrow_store(dz + v, vmul(vmul(vexp(y), scale), t), part);
    }
}

/* Adds to dh, which holds c phi / T, the gradients of the entropy and of the KL divergence. */
static void head_terms_backward(Arena *a, const Model *m, const Head *head, const Coef *coef,
                                float *dh)
{
    int d = m->config.hidden_size, V = m->n_vocab;
    size_t mark = a->used;
    float *dz = arena_floats(a, HEAD_ROWS * TILE), *made = arena_floats(a, HEAD_ROWS * TILE);
    float *q = arena_floats(a, HEAD_ROWS * TILE);
    for (int first = 0; first < head->targets; first += HEAD_ROWS)
        for (int v0 = 0; v0 < V; v0 += TILE) {
            int rows = imin(HEAD_ROWS, head->targets - first), n = imin(TILE, V - v0);
            ptrdiff_t at_row = (ptrdiff_t)first * d;
            const float *z = made;
            if (head->logits)
                z = kept_logits(head, v0, first);
            else
                gemm(a, made, TILE, mat(head->h + at_row, rows, d), head_columns(m, v0, n), NULL);
            if (coef->kl)
                gemm(a, q, TILE, mat(head->ref.h + at_row, rows, d),
                     head_columns(head->ref.m, v0, n), NULL);
            PARALLEL_FOR (a->threads)
            for (int r = 0; r < rows; r++)
                head_terms(head, coef, first + r, 0, z + r * TILE, q + r * TILE, n, dz + r * TILE);
            head_values(a, m, dz, rows, v0, dh + at_row, dh + at_row);
        }
    a->used = mark;
}

/* dh of each target, [targets, hidden_size]. */
static void head_backward(Arena *a, const Model *m, const Head *head, const Coef *coef, float *dh)
{
    int d = m->config.hidden_size;
    for (ptrdiff_t i = 0; i < head->targets; i++)
        row_scale(dh + i * d, head->phi + i * d, coef->logprob[i] * head->inverse_temperature, d);
    if (coef->entropy || coef->kl)
        head_terms_backward(a, m, head, coef, dh);
}

/* A part of dz: `rows` targets from r0 on, n tokens from v0 on. */
enum { HEAD_COLUMNS = 128 }; /* most tokens of a part: a divisor of TILE */
typedef struct {
    int r0, rows, v0, n;
} HeadPart;

/* dz of a part, from logits that were kept or are recomputed.   dz, q: [rows, HEAD_COLUMNS] */
static void head_dz(Arena *a, const Model *m, const Head *head, const Coef *coef, HeadPart part,
                    float *dz, float *q)
{
    int d = m->config.hidden_size, r0 = part.r0, v0 = part.v0, rows = part.rows, n = part.n;
    float inv = head->inverse_temperature;
    ptrdiff_t ld = head->logits ? TILE : HEAD_COLUMNS, at_row = (ptrdiff_t)r0 * d;
    const float *z = head->logits ? kept_logits(head, v0, r0) : dz;
    if (!head->logits)
        gemm(a, dz, HEAD_COLUMNS, mat(head->h + at_row, rows, d), head_columns(m, v0, n), NULL);
    if (coef->kl)
        gemm(a, q, HEAD_COLUMNS, mat(head->ref.h + at_row, rows, d),
             head_columns(head->ref.m, v0, n), NULL);
    for (int r = 0; r < rows; r++) {
        const Softmax *s = &head->softmax[r0 + r];
        float c = coef->logprob[r0 + r], *out = dz + r * HEAD_COLUMNS;
        int y = head->target[r0 + r] - v0;
        if (coef->entropy || coef->kl)
            head_terms(head, coef, r0 + r, c, z + r * ld, q + r * HEAD_COLUMNS, n, out);
        else
            row_exp_scaled(out, z + r * ld, n, inv, s->max, -c * inv / s->sum);
        if (y >= 0 && y < n)
            out[y] += c * inv;
    }
}

/* dW += dz^T h, with dz as above: its rows first .. first + n - 1, where a tile begins at first. */
static void head_weights_backward(Arena *a, const Model *m, const Head *head, const Coef *coef,
                                  int first, int n, float *dW)
{
    int d = m->config.hidden_size, targets = head->targets;
    size_t mark = a->used, block = imin(KC, targets) * HEAD_COLUMNS;
    n = imin(n, m->n_vocab - first);
    Mat all = prepared(a, mat(head->h, targets, d));
    float *dz = arena_floats(a, block), *q = arena_floats(a, block);
    for (int v0 = first; v0 < first + n; v0 += HEAD_COLUMNS)
        for (int r0 = 0; r0 < targets; r0 += KC) {
            Mat h = prepared_rows(all, r0);
            HeadPart part = {r0, h.rows, v0, imin(HEAD_COLUMNS, first + n - v0)};
            head_dz(a, m, head, coef, part, dz, q);
            float *to = row(dW, v0, d);
            Mat dz_t = {.at = dz, .rows = part.n, .cols = part.rows, .rs = 1, .cs = HEAD_COLUMNS};
            gemm(a, to, d, dz_t, h, to);
        }
    a->used = mark;
}

/* ================================================================ the whole model */

/* A pass over a batch. `hidden` is what the head reads: the final norm of each target's row. */
typedef struct {
    Batch batch;
    Keep keep;
    Layer *layer;    /* all layers if kept, else the memory of one, which they share */
    float *x;        /* [rows, d] after the last layer */
    float *target_x; /* [targets, d] x of each target's row */
    float *rstd, *hidden;
    Head head;
    Coef coef;      /* dL / d of what the head made: the loss's */
    float *dhidden; /* [targets, d] */
    LayerGrad grad;
    float *dx;      /* [rows, d] dL / dx of the layer's input; in the end, of the embedding rows */
} Pass;

/* x_out = x2 + mlp(norm(x2)),  x2 = x + attention(norm(x)).   x_out may be l->x; with NULL only
 * the activations in `l` are made. */
static void layer_forward(Arena *a, const Model *m, int layer, const Batch *b, Layer *l,
                          float *x_out)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size;
    float eps = (float)c->rms_norm_eps, *bias = NULL;
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));
    rmsnorm_forward(l->normed1, l->rstd1, mat(l->x, n, d), norm1, eps, a->threads);
    if (c->model_type == QWEN2) {
        bias = l->qkv;
        bias_forward(bias, at(m, m->params, layer_tensor(layer, Q_BIAS)), n,
                     weight(m, layer, QKV).rows);
    }
    linear_forward(a, l->qkv, l->normed1, n, weight(m, layer, QKV), bias);
    heads_forward(m, layer, b, l->qkv, l->qk, l->rstd_head, a->threads);
    if (b->pool)
        attention_cached(a, heads_of(c), layer, b, l->qk, l->qkv, l->att);
    else
        attention_forward(a, heads_of(c), b, l->qk, l->qkv, l->att);
    linear_forward(a, l->x2, l->att, n, weight(m, layer, O), l->x);
    rmsnorm_forward(l->normed2, l->rstd2, mat(l->x2, n, d), norm2, eps, a->threads);
    linear_forward(a, l->gate_up, l->normed2, n, weight(m, layer, GATE_UP), NULL);
    swiglu_forward(l->act, l->gate_up, n, c->intermediate_size, a->threads);
    if (x_out)
        linear_forward(a, x_out, l->act, n, weight(m, layer, DOWN), l->x2);
}

/* What layer_forward leaves in `l` and x_out, from l->x and what sampling saved: what lies between
 * the products is made again. */
static void layer_restore(const Model *m, int layer, const Batch *b, Layer *l, float *x_out,
                          int threads)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size;
    float eps = (float)c->rms_norm_eps;
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));
    saved_layer(c, layer, b, l, x_out, threads);
    rmsnorm_forward(l->normed1, l->rstd1, mat(l->x, n, d), norm1, eps, threads);
    heads_forward(m, layer, b, l->qkv, l->qk, l->rstd_head, threads);
    rmsnorm_forward(l->normed2, l->rstd2, mat(l->x2, n, d), norm2, eps, threads);
    swiglu_forward(l->act, l->gate_up, n, c->intermediate_size, threads);
}

/* dL / d of the heads' outputs, [rows, H hd]; attention's products read past a short last head. */
static float *datt_new(Arena *a, const Config *c, int rows)
{
    return arena_rows(a, rows + 1, imax(LANES, c->num_attention_heads * c->head_dim));
}

/* From g->out = dL / d x_out to dx = dL / d x; what the weights' gradients need stays in g.
 * Forward, twice: y = x + f(norm(x)). So the gradient of y goes past f unchanged, and what comes
 * back through f and the norm is added to it: by rmsnorm_backward. */
static void layer_backward(Arena *a, const Model *m, int layer, const Batch *b, const Layer *l,
                           LayerGrad *g, float *dx)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size, ff = c->intermediate_size;
    size_t mark = a->used;
    float *dact = arena_rows(a, n, ff), *datt = datt_new(a, c, n);
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));

    linear_backward(a, dact, g->out, n, weight(m, layer, DOWN));
    swiglu_backward(g->gate_up, dact, l->gate_up, n, ff, a->threads);
    linear_backward(a, g->normed2, g->gate_up, n, weight(m, layer, GATE_UP));
    rmsnorm_backward(g->x2, g->out, g->normed2, mat(l->x2, n, d), norm2, l->rstd2, a->threads);

    linear_backward(a, datt, g->x2, n, weight(m, layer, O));
    attention_backward(a, heads_of(c), b, l, datt, g->qkv);
    heads_backward(m, layer, b, l, g, a->threads);
    linear_backward(a, g->normed1, g->qkv, n, weight(m, layer, QKV));
    rmsnorm_backward(dx, g->x2, g->normed1, mat(l->x, n, d), norm1, l->rstd1, a->threads);
    a->used = mark;
}

/* From tokens to the last layer's output. Saves activations where the batch has room for them. */
static void run_layers(Arena *a, const Model *m, const Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    const Saved *saved = &b->seq->saved;
    bool all = saved->floats == saved_floats(c, SAVE_ALL);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        float *x_out = l + 1 < c->num_hidden_layers ? p->layer[l + 1].x : p->x;
        layer_forward(a, m, l, b, &p->layer[l], x_out);
        if (saved->row && all)
            saved_layer(c, l, b, &p->layer[l], x_out, a->threads);
    }
    if (saved->row && !all)
        saved_output(c, b, p->x, a->threads);
}

/* The same from what sampling saved; where nothing is kept, the output alone. */
static void restore_layers(Arena *a, const Model *m, const Pass *p)
{
    int L = m->config.num_hidden_layers;
    for (int l = 0; l < L && p->keep; l++)
        layer_restore(m, l, &p->batch, &p->layer[l], l + 1 < L ? p->layer[l + 1].x : p->x,
                     a->threads);
    if (!p->keep)
        saved_output(&m->config, &p->batch, p->x, a->threads);
}

/* Memory for a pass, and for what it keeps. */
static Pass pass_new(Arena *a, const Config *c, const Batch *b, Keep keep)
{
    int L = c->num_hidden_layers, d = c->hidden_size;
    Pass p = {.batch = *b, .keep = keep};
    Layer *layer = p.layer = arena_alloc(a, L, sizeof *layer);
    for (int l = 0; l < L; l++) {
        layer[l] = keep == KEEP_ALL || l == 0 ? layer_new(a, c, b->n_rows) : layer[0];
        if (keep == KEEP_INPUTS && l > 0)
            layer[l].x = arena_rows(a, b->n_rows, d);
    }
    p.x = keep ? arena_rows(a, b->n_rows, d) : layer[0].x;
    p.target_x = arena_rows(a, b->n_targets, d);
    p.rstd = arena_floats(a, b->n_targets);
    p.hidden = arena_rows(a, b->n_targets, d);
    return p;
}

/* Runs the layers and norms the rows that have targets. What is kept stays in the arena. */
static Pass forward(Arena *a, const Model *m, const Batch *b, Keep keep)
{
    const Config *c = &m->config;
    int d = c->hidden_size;
    Pass p = pass_new(a, c, b, keep);
    embed_forward(p.layer[0].x, at(m, m->params, EMBED), b, d);
    if (b->seq->saved.row && !b->pool)
        restore_layers(a, m, &p);
    else
        run_layers(a, m, &p);
    for (int i = 0; i < b->n_targets; i++)
        memcpy(row(p.target_x, i, d), row(p.x, b->target_row[i], d),
               d * sizeof(float));
    rmsnorm_forward(p.hidden, p.rstd, mat(p.target_x, b->n_targets, d),
                    at(m, m->params, final_norm(c)), (float)c->rms_norm_eps, a->threads);
    return p;
}

/* Memory for what the head makes of a pass's targets. */
static Head head_new(Arena *a, const Config *c, const Pass *p, bool features, bool ref)
{
    size_t n = p->batch.n_targets, logits = logits_floats(c, n);
    Head head = {.h = p->hidden, .target = p->batch.target, .targets = p->batch.n_targets};
    head.logprob = arena_floats(a, n);
    head.entropy = arena_floats(a, n);
    head.softmax = arena_alloc(a, n, sizeof(Softmax));
    head.phi = features ? arena_floats(a, n * c->hidden_size) : NULL;
    head.logits = p->keep && logits <= MOST_LOGITS ? arena_floats(a, logits) : NULL;
    if (ref) {
        head.ref_softmax = arena_alloc(a, n, sizeof(Softmax));
        head.ref_logprob = arena_floats(a, n);
        head.kl = arena_floats(a, n);
    }
    return head;
}

/* Log-prob, entropy and, if `features`, phi of every target at this temperature; with a reference,
 * its log-probs and the KL divergence from it. */
static void forward_head(Arena *a, const Model *m, Pass *p, float temperature, bool features,
                         const Reference *ref)
{
    p->head = head_new(a, &m->config, p, features, ref != NULL);
    p->head.inverse_temperature = 1.0f / temperature;
    if (ref)
        p->head.ref = *ref;
    head_forward(a, m, &p->head);
}

/* Memory for the gradients of a pass's rows. */
static void pass_grads_new(Arena *a, const Config *c, Pass *p)
{
    p->dhidden = arena_rows(a, p->batch.n_targets, c->hidden_size);
    p->dx = arena_rows(a, p->batch.n_rows, c->hidden_size);
    p->grad = layer_grad_new(a, c, p->batch.n_rows);
}

/* From the loss by each target (p->coef) to the gradient of the last layer's output. */
static void backward_start(Arena *a, const Model *m, Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    int d = c->hidden_size;
    pass_grads_new(a, c, p);
    size_t mark = a->used;
    float *dtarget = arena_rows(a, b->n_targets, d), *dx = p->grad.out;
    head_backward(a, m, &p->head, &p->coef, p->dhidden);
    rmsnorm_backward(dtarget, NULL, p->dhidden, mat(p->target_x, b->n_targets, d),
                     at(m, m->params, final_norm(c)), p->rstd, a->threads);
    memset(dx, 0, sizeof(float) * b->n_rows * d);
    for (int i = 0; i < b->n_targets; i++) /* several targets may share a row: in order */
        row_axpy(row(dx, b->target_row[i], d), 1.0f, row(dtarget, i, d), d);
    a->used = mark;
}

/* One layer of the backward pass, the last one first. Where each layer's input alone was kept, the
 * rest is made again; that of the last one is still there. */
static void backward_layer(Arena *a, const Model *m, Pass *p, int layer)
{
    if (layer == m->config.num_hidden_layers - 1) {
        backward_start(a, m, p);
    } else {
        float *out = p->dx; /* what came out of the layer above goes into this one */
        p->dx = p->grad.out;
        p->grad.out = out;
        if (p->keep == KEEP_INPUTS)
            layer_forward(a, m, layer, &p->batch, &p->layer[layer], NULL);
    }
    layer_backward(a, m, layer, &p->batch, &p->layer[layer], &p->grad, p->dx);
}

/* ---------------------------------------------------------------- gradients of the weights */

/* q_norm's (h0 = 0) or k_norm's weights: one chain over rows and, in each row, heads. */
static void head_norm_backward(const Config *c, float *dw, const Layer *l, const LayerGrad *g,
                               int rows, int h0, int heads)
{
    int all = c->num_attention_heads + c->num_key_value_heads, hd = c->head_dim;
    ptrdiff_t ld = (all + c->num_key_value_heads) * hd;
    for (ptrdiff_t r = 0; r < rows; r++)
        norm_weights_backward(dw, g->heads + (r * all + h0) * hd, l->qkv + r * ld + h0 * hd,
                              l->rstd_head + r * all + h0, heads, hd);
}

/* A piece of the weights' gradients, the unit that threads take: of a matrix, its rows first ..
 * first + n - 1 or, if it is wider than high, so many columns; or what a layer has beside its
 * matrices; or what lies before and behind the layers. */
enum { VECTORS = MATRICES, HEAD, EMBEDDING, FINAL_NORM };
typedef struct {
    int kind, first, n;
} Piece;

/* Cuts `all` rows or columns into at most `parts` pieces of whole units, behind the n of `out`;
 * returns how many it has then. */
static int add_pieces(Piece *out, int n, int kind, int all, int unit, int parts)
{
    int units = (all + unit - 1) / unit;
    parts = imin(parts, units);
    for (int i = 0; i < parts; i++) {
        int first = unit * (int)((int64_t)units * i / parts);
        int end = imin(all, unit * (int)((int64_t)units * (i + 1) / parts));
        out[n++] = (Piece){kind, first, end - first};
    }
    return n;
}

/* The pieces of a layer, or of the ends, for so many threads: as large as lets these share the work
 * evenly, since each piece copies what it multiplies; the largest first. */
enum { ENDS = -1, MOST_SHARES = 64, MOST_PIECES = 2 * MOST_SHARES + 1 };
static int cut_pieces(const Model *m, int layer, int threads, Piece *out)
{
    static const int order[MATRICES] = {GATE_UP, DOWN, QKV, O};
    const Config *c = &m->config;
    int n = 0, shares = threads > 1 ? imin(2 * threads, MOST_SHARES) : 1;
    double all = layer_weights(c) / c->num_hidden_layers;
    if (layer == ENDS) {
        n = add_pieces(out, n, HEAD, c->vocab_size, TILE, shares);
        n = add_pieces(out, n, EMBEDDING, c->vocab_size, TILE, shares);
        return add_pieces(out, n, FINAL_NORM, 1, 1, 1);
    }
    for (int i = 0; i < MATRICES; i++) {
        Place w = place(c, layer, order[i]);
        double share = (double)w.n * w.k / all;
        n = add_pieces(out, n, order[i], imax(w.n, w.k), NR, (int)ceil(shares * share));
    }
    return add_pieces(out, n, VECTORS, 1, 1, 1);
}

/* What a matrix of a layer read in the forward pass, x: [rows, k], and the gradient of what it
 * made, dy: [rows, n]. */
typedef struct {
    Mat x, dy;
} LinearRows;

static LinearRows linear_rows(const Config *c, int layer, int kind, const Pass *p)
{
    const Layer *l = &p->layer[layer];
    const LayerGrad *g = &p->grad;
    const float *x[MATRICES] = {l->normed1, l->att, l->normed2, l->act};
    const float *dy[MATRICES] = {g->qkv, g->x2, g->gate_up, g->out};
    Place w = place(c, layer, kind);
    int rows = p->batch.n_rows;
    return (LinearRows){mat(x[kind], rows, w.k), mat(dy[kind], rows, w.n)};
}

/* dW of a piece of a layer's matrix: rows or, where it is wider than high, columns. */
static void matrix_backward(Arena *a, Model *m, int layer, const Piece *piece, const Pass *p)
{
    Place w = place(&m->config, layer, piece->kind);
    float *dW = at(m, m->grads, matrix_tensor(layer, piece->kind));
    int first = piece->first;
    LinearRows l = linear_rows(&m->config, layer, piece->kind, p);
    if (w.k > w.n)
        linear_weights_backward(a, dW + first, w.k, l.dy, columns_of(l.x, first, piece->n));
    else
        linear_weights_backward(a, row(dW, first, w.k), w.k,
                                columns_of(l.dy, first, piece->n), l.x);
}

/* Forward: y = x W^T, W = W0 + s B A, which is y = x W0^T + s (x A^T) B^T. So, with U = s x A^T and
 * V = s dy B, both [rows, r]:
 *     dB = dy^T U,    dA = V^T x
 * and W itself has no gradient. linear: an index of LINEARS. Sums over rows are one chain each, as
 * those of W are. */
static void adapter_backward(Arena *a, Model *m, int layer, int linear, const Pass *p)
{
    static const int kind[LINEARS] = {QKV, QKV, QKV, O, GATE_UP, GATE_UP, DOWN};
    Model *ab = &m->lora->ab;
    Adapted t = adapted(layer, linear);
    const Tensor *w = &m->tensors[t.weight];
    const Tensor *first = &m->tensors[matrix_tensor(layer, kind[linear])];
    LinearRows l = linear_rows(&m->config, layer, kind[linear], p);
    int r = lora_rank(m->lora, layer, linear), rows = p->batch.n_rows;
    int before = (int)((w->offset - first->offset) / (size_t)w->cols); /* rows of the same matrix */
    float s = lora_scale(m->lora, r);
    size_t mark = a->used;
    float *U = arena_rows(a, rows, r), *V = arena_rows(a, rows, r);
    Mat A = mat(at(ab, ab->params, t.A), r, w->cols), B = mat(at(ab, ab->params, t.B), w->rows, r);
    Mat dy = columns_of(l.dy, before, w->rows);
    gemm(a, U, r, l.x, transposed(A), NULL);
    gemm(a, V, r, dy, B, NULL);
    row_scale(U, U, s, rows * r);
    row_scale(V, V, s, rows * r);
    linear_weights_backward(a, at(ab, ab->grads, t.B), r, dy, mat(U, rows, r));
    linear_weights_backward(a, at(ab, ab->grads, t.A), w->cols, mat(V, rows, r), l.x);
    a->used = mark;
}

/* The pieces of a model that trains its adapter: the adapted weights of a layer, largest first. */
static int adapter_pieces(const Model *m, int layer, Piece *out)
{
    static const int order[LINEARS] = {6, 4, 5, 0, 3, 1, 2};
    int n = 0;
    for (int i = 0; i < LINEARS && layer != ENDS; i++)
        if (lora_rank(m->lora, layer, order[i]))
            out[n++] = (Piece){.kind = order[i]};
    return n;
}

/* A layer's norms and biases. */
static void vectors_backward(Model *m, int layer, const Pass *p)
{
    const Config *c = &m->config;
    const Layer *l = &p->layer[layer];
    const LayerGrad *g = &p->grad;
    int rows = p->batch.n_rows, d = c->hidden_size;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, ld = (H + 2 * KV) * c->head_dim;
    float *dw[LAYER_TENSORS];
    for (int k = 0; k < LAYER_TENSORS; k++)
        dw[k] = at(m, m->grads, layer_tensor(layer, k));
    norm_weights_backward(dw[INPUT_NORM], g->normed1, l->x, l->rstd1, rows, d);
    norm_weights_backward(dw[POST_NORM], g->normed2, l->x2, l->rstd2, rows, d);
    if (c->model_type == QWEN3) {
        head_norm_backward(c, dw[Q_NORM], l, g, rows, 0, H);
        head_norm_backward(c, dw[K_NORM], l, g, rows, H, KV);
    }
    if (c->model_type == QWEN2) /* q, k and v together, as they lie */
        bias_backward(dw[Q_BIAS], g->qkv, rows, ld);
}

/* Adds one piece's gradient over one pass. Each element is one chain over the rows of the batch, in
 * order; nothing here splits a sum. */
static void piece_backward(Arena *a, Model *m, int layer, const Piece *x, const Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    int d = c->hidden_size, head = lm_head(c);
    if (m->lora)
        adapter_backward(a, m, layer, x->kind, p);
    else if (x->kind < MATRICES)
        matrix_backward(a, m, layer, x, p);
    else if (x->kind == VECTORS)
        vectors_backward(m, layer, p);
    else if (x->kind == HEAD)
        head_weights_backward(a, m, &p->head, &p->coef, x->first, x->n, at(m, m->grads, head));
    else if (x->kind == EMBEDDING)
        embed_backward(at(m, m->grads, EMBED), p->dx, b, d, x->first, x->n);
    else
        norm_weights_backward(at(m, m->grads, final_norm(c)), p->dhidden, p->target_x, p->rstd,
                              b->n_targets, d);
}

/* Adds the gradients of a layer's weights, or of those at the ends, over n passes, in order. No two
 * pieces have a weight in common. The scratch memory is what the passes left free in the workers'
 * arenas. */
static void weights_backward(Engine *e, Model *m, const Pass *p, int n, int layer)
{
    Piece piece[MOST_PIECES];
    int pieces = m->lora ? adapter_pieces(m, layer, piece)
                         : cut_pieces(m, layer, e->threads, piece);
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < pieces; i++)
        for (int k = 0; k < n; k++)
            piece_backward(&e->worker[thread_index()], m, layer, &piece[i], &p[k]);
}

/* Adds to m->grads the gradient over n passes, of which worker i holds number i: layer after
 * layer, first the gradients of the rows, then, while these are near, those of the weights. The
 * passes go side by side; one alone has the help of all threads. Every sum over rows continues
 * where the last one stopped, so that neither the cut into passes nor the threads change a bit. */
static void backward(Engine *e, Model *m, Pass *p, int n)
{
    Arena *a = &e->worker[0];
    int before = a->threads, helpers = n == 1 ? imin(e->threads, HELPERS) : 1;
    for (int l = m->config.num_hidden_layers - 1; l >= 0; l--) {
        if (n > 1) {
            PARALLEL_FOR_DYNAMIC (e->threads)
            for (int i = 0; i < n; i++)
                backward_layer(&e->worker[i], m, &p[i], l);
        } else {
            a->threads = helpers;
            backward_layer(a, m, p, l);
        }
        a->threads = 1; /* now threads take pieces */
        weights_backward(e, m, p, n, l);
    }
    weights_backward(e, m, p, n, ENDS);
    a->threads = before;
    phase_ends(e, BACKWARD);
}

/* Lays out the memory of head_weights_backward. */
static void head_weights_scratch(Arena *a, const Config *c, int targets)
{
    prepared_scratch(a, targets, c->hidden_size);
    arena_floats(a, 2 * KC * HEAD_COLUMNS);
    gemm_scratch(a, KC, TILE);
}

/* The widest of the matrices that products are made of. */
static int widest(const Config *c)
{
    int qkv = (c->num_attention_heads + 2 * c->num_key_value_heads) * c->head_dim;
    return imax(imax(2 * c->intermediate_size, qkv), c->hidden_size);
}

/* Bytes of arena that one thread needs for its part of weights_backward, at most. */
static size_t pieces_bytes(const Model *m, int rows, int targets)
{
    const Config *c = &m->config;
    Arena a = arena_counting(1);
    if (m->lora) {
        int r = m->lora->most_rank;
        arena_rows(&a, rows, r);
        arena_rows(&a, rows, r);
        gemm_scratch(&a, imax(rows, widest(c)), imax(r, widest(c)));
    } else {
        gemm_scratch(&a, widest(c), widest(c));
        a.used = 0;
        head_weights_scratch(&a, c, targets);
    }
    return arena_counted(&a) + (1 << 16);
}

/* Lays out the memory of a pass over as many rows and targets; where something is kept, through its
 * backward pass. */
static void pass_layout(Arena *a, const Config *c, int rows, int targets, int longest, Keep keep)
{
    Heads s = heads_of(c);
    Batch b = batch_new(a, rows, rows, targets);
    b.n_rows = rows;
    b.n_targets = targets;
    Pass p = pass_new(a, c, &b, keep);
    size_t mark = a->used;
    for (int t = 0; t < HELPERS; t++)
        attention_scratch(a, &s, longest + KEYS);
    a->used = mark;
    gemm_scratch(a, rows, widest(c));
    a->used = mark;
    p.head = head_new(a, c, &p, true, true);
    if (keep && !p.head.logits) /* a batch with fewer targets may keep its logits */
        arena_floats(a, MOST_LOGITS);
    mark = a->used;
    ref_block_new(a);
    arena_floats(a, 3 * HEAD_ROWS * TILE);
    gemm_scratch(a, HEAD_ROWS, imax(TILE, c->hidden_size));
    a->used = mark;
    if (!keep)
        return;
    pass_grads_new(a, c, &p);
    arena_rows(a, targets, c->hidden_size);
    arena_rows(a, rows, c->intermediate_size);
    datt_new(a, c, rows);
    mark = a->used;
    for (int t = 0; t < HELPERS; t++)
        attention_grad_new(a, &s, longest);
    a->used = mark;
    gemm_scratch(a, rows, widest(c));
}

/* Bytes of arena that a pass takes at most, and one thread's part of weights_backward with it. */
static size_t pass_bytes(const Model *m, int rows, int targets, int longest, Keep keep)
{
    Arena a = arena_counting(HELPERS);
    pass_layout(&a, &m->config, rows, targets, longest, keep);
    return arena_counted(&a) + (keep ? pieces_bytes(m, rows, targets) : 0) + (1 << 16);
}

/* ================================================================ the optimizer */

static void grads_zero(Model *m)
{
    memset(trained(m)->grads, 0, trained(m)->n_grads * sizeof(float));
}

/* A tied head's own gradient joins the embedding's (see model_table). */
static void grads_finish(Model *m)
{
    if (m->config.tie_word_embeddings)
        for (size_t i = 0; i < m->tensors[EMBED].size; i++)
            m->grads[i] += m->grads[m->n_params + i];
}

/* |g|, in double: partial sums over blocks of FLAT, added in order. */
static double grads_norm(const Model *m, int threads)
{
    double sum = 0;
    PARALLEL_FOR (threads)
    for (int k = 0; k < flat_blocks(m); k++) {
        size_t i0 = (size_t)k * FLAT, i1 = i0 + FLAT < m->n_params ? i0 + FLAT : m->n_params;
        double s[4] = {0};
        for (size_t i = i0; i < i1; i++)
            s[i % 4] += (double)m->grads[i] * (double)m->grads[i];
        m->partial[k] = (s[0] + s[1]) + (s[2] + s[3]);
    }
    for (int k = 0; k < flat_blocks(m); k++)
        sum += m->partial[k];
    return sqrt(sum);
}

typedef struct {
    double beta1, beta2, eps, weight_decay, clip_norm; /* clip_norm 0: no clipping */
    int64_t step; /* updates made so far */
} AdamW;

/* AdamW (Loshchilov and Hutter 2019) with the decay on every tensor, and the gradient scaled to at
 * most clip_norm first:
 *     m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
 *     w = w - lr decay w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 * m and v begin at 0, so after t updates they are means of g and g^2 by weights that add up to
 * 1 - b^t: hence the divisions. A weight moves by about lr, however large its gradient is; the
 * decay is no part of g, so that it is not divided by sqrt(v). Of a model with an adapter w are its
 * A and B. Returns the norm before clipping; where it is not finite, nothing is changed. */
static double adamw_step(Engine *e, Model *model, AdamW *o, double lr)
{
    int threads = e->threads;
    Model *m = trained(model);
    grads_finish(m);
    double norm = grads_norm(m, threads);
    if (!isfinite(norm))
        return norm;
    double clip = o->clip_norm > 0 && norm > o->clip_norm ? o->clip_norm / (norm + 1e-6) : 1.0;
    double t = (double)++o->step;
    double correct1 = 1 - pow(o->beta1, t), correct2 = 1 - pow(o->beta2, t);
    vf b1 = vset((float)o->beta1), b2 = vset((float)o->beta2), scale = vset((float)clip);
    vf c1 = vset((float)(1 - o->beta1)), c2 = vset((float)(1 - o->beta2));
    vf rate = vset((float)(-lr / correct1)), root = vset((float)(1 / sqrt(correct2)));
    vf eps = vset((float)o->eps), keep = vset((float)(1 - lr * o->weight_decay));
    PARALLEL_FOR (threads)
    for (int k = 0; k < flat_blocks(m); k++) {
        size_t i0 = (size_t)k * FLAT;
        int n = (int)(m->n_params - i0 < FLAT ? m->n_params - i0 : FLAT);
        float *w = m->params + i0, *g = m->grads + i0, *m1 = m->m + i0, *m2 = m->v + i0;
        FOR_ROW (i, part, n) {
            vf gi = vmul(vrow_load(g + i, part), scale);
            vf a = vfma(b1, vrow_load(m1 + i, part), vmul(c1, gi));
            vf v = vfma(b2, vrow_load(m2 + i, part), vmul(c2, vmul(gi, gi)));
            vf step = vdiv(a, vfma(vsqrt(v), root, eps));
            vrow_store(m1 + i, a, part);
            vrow_store(m2 + i, v, part);
            vrow_store(w + i, vfma(rate, step, vmul(keep, vrow_load(w + i, part))), part);
        }
    }
    trained_updated(model, threads);
    phase_ends(e, OPTIMIZER);
    return norm;
}

typedef enum { CONSTANT, LINEAR, COSINE } Schedule;

/* The learning rate of step 0 .. steps-1: up over `warmup` steps, then as the schedule says. */
static double schedule_lr(Schedule kind, double lr, int step, int warmup, int steps)
{
    if (step < warmup)
        return lr * (step + 1) / warmup;
    double progress = steps > warmup ? (double)(step - warmup) / (steps - warmup) : 0;
    if (kind == LINEAR)
        return lr * (1 - progress);
    return kind == COSINE ? lr * 0.5 * (1 + cos(3.141592653589793 * progress)) : lr;
}

END_OF_VECTOR_CODE

#endif
