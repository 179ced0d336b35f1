/* model.c: the transformer, by hand.
 *
 *   What it is: a decoder-only language model of the Qwen3 family (RMSNorm, rotary positions,
 *   grouped-query attention with normalised queries and keys, SwiGLU), its exact gradients, the
 *   cache of keys and values that sampling uses, its optimizer, and its directory on disk in the
 *   Hugging Face layout. The same text runs Qwen2 (biases on q, k, v; no norm on q and k) and
 *   Llama (neither).
 *   What it is not: it knows nothing of rewards, groups or advantages. fp32 throughout.
 *
 *   How data flows. A Batch packs sequences end to end, without padding, into rows:
 *       tokens -> embedding rows -> layer 0 .. L-1 -> final norm of the rows that predict
 *       something (targets) -> head: log-prob, entropy and feature phi of each target.
 *   The backward pass walks the same list from its end. A sequence may name another one as its
 *   prefix: it then attends to that one's keys first, so a prompt that many responses share is
 *   computed once.
 *
 *   Order of reading: the tensor table; then each layer's forward followed by its backward, with
 *   attention, and the batches that it walks over, in attention.h; then the whole model, the
 *   optimizer, and the files. The configuration is in lib/model/config.h.
 *
 *   Every row's result depends on its own sequence alone, not on the rows beside it, the threads,
 *   or whether keys come from this batch or from a cache: see gemm.h, and lib/num/attention.h. */
#ifndef MODEL_C
#define MODEL_C

#include "lib/num/attention.h"     /* defines: Batch, attention_forward, KvSeq; engine.h: Engine */
#include "lib/model/config.h"      /* defines: Config, config_parse, config_write */
#include "lib/num/gemm.h"        /* defines: gemm, gemm_packed, gemm_small; simd.h's rows */
#include "lib/model/safetensors.h" /* defines: SafeTensors, st_*; json.h's parser */

/* ================================================================ the tensor table */

/* One table drives names, shapes, files, the optimizer, gradient checks and test labels. The
 * order within a layer makes what is multiplied together lie together: q, k, v are one matrix of
 * (heads + 2 kv heads) head_dim rows, gate and up one of 2 intermediate_size rows. */
enum {
    INPUT_NORM, Q_PROJ, K_PROJ, V_PROJ, Q_BIAS, K_BIAS, V_BIAS, Q_NORM, K_NORM, O_PROJ, POST_NORM,
    GATE_PROJ, UP_PROJ, DOWN_PROJ,
    LAYER_TENSORS
};
static const char *const LAYER_NAMES[LAYER_TENSORS] = {
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
    "self_attn.v_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.bias",
    "self_attn.v_proj.bias", "self_attn.q_norm.weight", "self_attn.k_norm.weight",
    "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight", "mlp.down_proj.weight",
};

typedef struct {
    char name[80];
    int rows, cols;   /* cols 0: a vector; rows 0: this model has no such tensor */
    size_t offset, size; /* in floats, in each of the flat arrays */
    int dtype;        /* in files: ST_F32, ST_BF16 or ST_F16 */
} Tensor;

/* Parameters, gradients and Adam's two moments are flat arrays of one layout. `packed` holds the
 * matrices once more in the panels that gemm reads for y = x W^T, and `packed_back` for dx = dy W;
 * model_pack refreshes them after an update. Without them each product packs for itself. */
typedef struct {
    Config config;
    int n_vocab; /* the head looks at tokens 0 .. n_vocab - 1: those that have a text, or all */
    char *config_text; /* the config.json it was read from, or NULL */
    Tensor *tensors;
    int n_tensors;
    size_t n_params, n_grads; /* n_grads: see model_table */
    float *params, *grads, *m, *v;
    double *partial; /* [flat_blocks] the gradient norm's partial sums */
    bool frugal; /* memory matters more than time: see model_trainable */
    float *packed, *packed_back;
    float *rope; /* [n_positions][head_dim]: half of it cosines, half sines */
    int n_positions;
} Model;

enum { EMBED = 0 };
static int layer_tensor(int layer, int kind) { return 1 + layer * LAYER_TENSORS + kind; }
static int final_norm(const Config *c) { return layer_tensor(c->num_hidden_layers, 0); }
static int lm_head(const Config *c) { return final_norm(c) + 1; }

static void add_tensor(Model *m, const char *name, int rows, int cols)
{
    Tensor *t = &m->tensors[m->n_tensors++];
    *t = (Tensor){.rows = rows, .cols = cols, .offset = m->n_params,
                  .size = (size_t)rows * (size_t)(cols ? cols : 1)};
    snprintf(t->name, sizeof t->name, "%s", name);
    m->n_params += t->size;
}

static void add_layer(Model *m, int layer)
{
    const Config *c = &m->config;
    int d = c->hidden_size, ff = c->intermediate_size, hd = c->head_dim;
    int q = c->num_attention_heads * hd, kv = c->num_key_value_heads * hd;
    bool bias = c->model_type == QWEN2, norm = c->model_type == QWEN3;
    int shape[LAYER_TENSORS][2] = {
        {d, 0}, {q, d}, {kv, d}, {kv, d}, {bias * q, 0}, {bias * kv, 0}, {bias * kv, 0},
        {norm * hd, 0}, {norm * hd, 0}, {d, q}, {d, 0}, {ff, d}, {ff, d}, {d, ff},
    };
    for (int k = 0; k < LAYER_TENSORS; k++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, LAYER_NAMES[k]);
        add_tensor(m, name, shape[k][0], shape[k][1]);
    }
}

/* The table alone, of a model of this shape. A tied head has no parameters of its own, but it has a
 * gradient of its own, kept after the others and added to the embedding's before the update: so
 * each of the two stays one chain over the rows of the whole batch, however the batch was cut. */
static Model model_table(const Config *config)
{
    Model m = {.config = *config, .n_vocab = config->vocab_size};
    const Config *c = &m.config;
    m.tensors = xcalloc((size_t)c->num_hidden_layers * LAYER_TENSORS + 3, sizeof(Tensor));
    add_tensor(&m, "model.embed_tokens.weight", c->vocab_size, c->hidden_size);
    for (int l = 0; l < c->num_hidden_layers; l++)
        add_layer(&m, l);
    add_tensor(&m, "model.norm.weight", c->hidden_size, 0);
    add_tensor(&m, "lm_head.weight", c->tie_word_embeddings ? 0 : c->vocab_size, c->hidden_size);
    m.n_grads = m.n_params + (c->tie_word_embeddings ? m.tensors[EMBED].size : 0);
    return m;
}

/* An empty model of this shape: the table, and parameters all zero. */
static Model model_new(const Config *config)
{
    Model m = model_table(config);
    m.params = floats_new(m.n_params);
    return m;
}

/* Everything that walks the flat arrays does so in blocks of this many floats: the unit that
 * threads take, and the unit of the gradient norm's partial sums. */
enum { FLAT = 4096 };
static int flat_blocks(const Model *m) { return (int)((m->n_params + FLAT - 1) / FLAT); }

static void model_free(Model *m)
{
    free(m->config_text);
    free(m->tensors);
    free(m->params);
    free(m->grads);
    free(m->m);
    free(m->v);
    free(m->partial);
    free(m->packed);
    free(m->packed_back);
    free(m->rope);
    *m = (Model){0};
}

/* The place of a tensor in one of the flat arrays. */
static float *at(const Model *m, float *flat, int tensor)
{
    return flat + m->tensors[tensor].offset;
}

static const float *head_weight(const Model *m)
{
    return at(m, m->params, m->config.tie_word_embeddings ? EMBED : lm_head(&m->config));
}

/* A standard normal pair's first member (Box and Muller). */
static float normal(Random r)
{
    double u = ((double)r.r[0] + 1) * 0x1p-32, angle = (double)r.r[1] * 0x1p-32;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * angle));
}

/* Random weights: norms 1, biases 0, matrices normal with standard deviation 0.02, or 0.5 / sqrt of
 * their width where that is more (small models); those that write into the residual stream are
 * scaled down by sqrt(2 layers), so that its variance does not grow with depth (GPT-2). */
static void model_init(Model *m, uint64_t seed)
{
    double depth = sqrt(2.0 * m->config.num_hidden_layers);
    for (int t = 0; t < m->n_tensors; t++) {
        const Tensor *x = &m->tensors[t];
        float *w = at(m, m->params, t);
        bool residual = strstr(x->name, "o_proj") || strstr(x->name, "down_proj");
        double deviation = fmax(0.02, 0.5 / sqrt(x->cols ? x->cols : 1)) / (residual ? depth : 1);
        for (size_t i = 0; i < x->size; i++)
            if (x->cols)
                w[i] = (float)deviation *
                       normal(philox(seed, STREAM_INIT, (uint32_t)t, (uint32_t)i,
                                     (uint32_t)(i >> 32), 0));
            else
                w[i] = strstr(x->name, "bias") ? 0.0f : 1.0f;
    }
}

/* ---------------------------------------------------------------- matrices, packed or not */

/* The four products of a layer, as gemm sees them: [n, k]. */
enum { QKV, O, GATE_UP, DOWN, MATRICES };
typedef struct {
    int tensor, n, k;
    int next_n, next_k;         /* of the matrix behind it in `packed`: the one that is used next */
    size_t packed, packed_back; /* offsets in the model's arrays of these names */
} Matrix;

/* Matrix `kind` of a layer. Layers lie one after the other, so the place of layer
 * num_hidden_layers is where the head begins. */
static Matrix matrix(const Model *m, int layer, int kind)
{
    static const int first[MATRICES] = {Q_PROJ, O_PROJ, GATE_PROJ, DOWN_PROJ};
    const Config *c = &m->config;
    int d = c->hidden_size, ff = c->intermediate_size, q = c->num_attention_heads * c->head_dim;
    bool last = kind + 1 == MATRICES && layer + 1 == c->num_hidden_layers;
    int n[MATRICES + 1] = {q + 2 * c->num_key_value_heads * c->head_dim, d, 2 * ff, d};
    int k[MATRICES + 1] = {d, q, d, ff, d};
    n[MATRICES] = last ? c->vocab_size : n[QKV];
    Matrix x = {.tensor = layer_tensor(layer, first[kind]), .n = n[kind], .k = k[kind],
                .next_n = n[kind + 1], .next_k = k[kind + 1]};
    for (int i = 0; i < MATRICES; i++) {
        x.packed += packed_floats(k[i], n[i]) * (size_t)(layer + (i < kind));
        x.packed_back += packed_floats(n[i], k[i]) * (size_t)(layer + (i < kind));
    }
    return x;
}

/* The head as a matrix, of which head_weight gives the weights (`tensor` says nothing here). It is
 * worked on in tiles of TILE tokens; packed_back holds these one by one, the tile of token v0
 * packed_floats(v0, k) behind the first. */
enum { TILE = 256 };
static Matrix head_matrix(const Model *m)
{
    Matrix x = matrix(m, m->config.num_hidden_layers, 0);
    x.k = m->config.hidden_size;
    x.n = m->config.vocab_size;
    return x;
}

/* Floats of Model.packed, or of Model.packed_back. */
static size_t model_packed_floats(const Model *m, bool back)
{
    Matrix x = head_matrix(m);
    return back ? x.packed_back + packed_floats(x.n, x.k) : x.packed + packed_floats(x.k, x.n);
}

/* Brings the packed copies up to date with the parameters. Without `packed_back`, as in a model
 * that is only read, or one that saves memory, the backward pass packs for each product. */
static void model_pack(Model *m, int threads)
{
    const Config *c = &m->config;
    Matrix head = head_matrix(m);
    int matrices = c->num_hidden_layers * MATRICES, tiles = (head.n + TILE - 1) / TILE;
    if (!m->packed)
        m->packed = floats_new(model_packed_floats(m, false));
    if (m->grads && !m->frugal && !m->packed_back)
        m->packed_back = floats_new(model_packed_floats(m, true));
    PARALLEL_FOR_DYNAMIC (threads)
    for (int i = -1; i < matrices; i++) { /* the largest first */
        Matrix x = i < 0 ? head : matrix(m, i / MATRICES, i % MATRICES);
        const float *w = i < 0 ? head_weight(m) : at(m, m->params, x.tensor);
        gemm_pack(x.k, x.n, w, 1, x.k, m->packed + x.packed);
        if (m->packed_back && i >= 0)
            gemm_pack(x.n, x.k, w, x.k, 1, m->packed_back + x.packed_back);
    }
    PARALLEL_FOR (threads)
    for (int t = 0; t < (m->packed_back ? tiles : 0); t++) {
        int v0 = t * TILE;
        gemm_pack(imin(TILE, head.n - v0), head.k, head_weight(m) + (ptrdiff_t)v0 * head.k, head.k,
                  1, m->packed_back + head.packed_back + packed_floats(v0, head.k));
    }
}

/* Gives the packed copies back. */
static void model_unpack(Model *m)
{
    free(m->packed);
    free(m->packed_back);
    m->packed = m->packed_back = NULL;
}

/* Weights of the layers' matrices, and of the head's: each is one multiply-add a row. */
static double layer_weights(const Config *c)
{
    Model m = {.config = *c};
    double n = 0;
    for (int i = 0; i < MATRICES; i++)
        n += (double)matrix(&m, 0, i).n * matrix(&m, 0, i).k;
    return n * c->num_hidden_layers;
}

static double head_weights(const Config *c) { return (double)c->vocab_size * c->hidden_size; }

/* Floating-point operations of attention for one row and each key that it sees. */
static double attention_flops(const Config *c)
{
    return 4.0 * c->num_attention_heads * c->head_dim * c->num_hidden_layers;
}

/* ================================================================ embedding */

/* x[r] = E[token[r]]    x: [rows, hidden_size] */
static void embed_forward(float *x, const float *embed, const Batch *b, int d)
{
    for (int r = 0; r < b->n_rows; r++)
        memcpy(x + (size_t)r * (size_t)d, embed + (size_t)b->token[r] * (size_t)d,
               (size_t)d * sizeof(float));
}

/* dE[token[r]] += dx[r], row after row, for the tokens first .. first + n - 1. */
static void embed_backward(float *dembed, const float *dx, const Batch *b, int d, int first, int n)
{
    for (int r = 0; r < b->n_rows; r++)
        if (b->token[r] >= first && b->token[r] < first + n)
            row_axpy(dembed + (ptrdiff_t)b->token[r] * d, 1.0f, dx + (ptrdiff_t)r * d, d);
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
            vf x_hat = vmul(vrow_load(x + (ptrdiff_t)r * d + i, part), vset(rstd[r]));
            vf g = vrow_load(dy + (ptrdiff_t)r * d + i, part);
            vrow_store(dw + i, vfma(g, x_hat, vrow_load(dw + i, part)), part);
        }
}

/* y[r] = RMSNorm(x[r]) w    x, y: [rows, d]; rstd: [rows], kept for the backward pass */
static void rmsnorm_forward(float *y, float *rstd, const float *x, const float *w, int rows, int d,
                            float eps, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        rstd[r] = norm_row(y + (ptrdiff_t)r * d, x + (ptrdiff_t)r * d, w, d, eps);
}

/* dx[r] = base[r] + the gradient through the norm; base may be NULL. */
static void rmsnorm_backward(float *dx, const float *base, const float *dy, const float *x,
                             const float *w, const float *rstd, int rows, int d, int threads)
{
    PARALLEL_FOR (threads)
    for (ptrdiff_t r = 0; r < rows; r++)
        norm_row_backward(dx + r * d, base ? base + r * d : NULL, dy + r * d, x + r * d, w, rstd[r],
                          d);
}

/* ================================================================ linear layers */

/* y = base + x W^T    x: [rows, k], W: [n, k], y and base: [rows, n]; base NULL: zero */
static void linear_forward(Arena *a, const Model *m, Matrix w, int rows, const float *x,
                           const float *base, float *y)
{
    if (m->packed) {
        Packed b = {m->packed + w.packed, w.k, w.n};
        Packed then = {b.b + packed_floats(w.k, w.n), w.next_k, w.next_n};
        gemm_packed(a, rows, x, w.k, 1, b, base, y, w.n, &then);
    } else
        gemm(a, rows, w.n, w.k, x, w.k, 1, at(m, m->params, w.tensor), 1, w.k, base, y, w.n);
}

/* y[r] = bias    y: [rows, n] */
static void bias_forward(float *y, const float *bias, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        memcpy(y + (ptrdiff_t)r * n, bias, (size_t)n * sizeof(float));
}

/* Forward: y_i = sum_j W_ij x_j, so dx_j = sum_i dy_i W_ij: dx = dy W.   (dW_ij = dy_i x_j, summed
 * over rows: see matrix_backward.) */
static void linear_backward(Arena *a, const Model *m, Matrix w, int rows, const float *dy,
                            float *dx)
{
    if (m->packed_back)
        gemm_packed(a, rows, dy, w.n, 1, (Packed){m->packed_back + w.packed_back, w.n, w.k}, NULL,
                    dx, w.k, NULL);
    else
        gemm_backward(a, rows, w.n, w.k, dy, at(m, m->params, w.tensor), dx);
}

/* dbias_j += sum_r dy[r][j] */
static void bias_backward(float *dbias, const float *dy, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        row_axpy(dbias, 1.0f, dy + (ptrdiff_t)r * n, n);
}

/* ================================================================ heads: q/k norm and rotation */

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
    m->rope = xrealloc(m->rope, (size_t)positions * (size_t)c->head_dim * sizeof(float));
    for (int p = m->n_positions; p < positions; p++)
        for (int i = 0; i < half; i++) {
            float power = (float)pow(c->rope_theta, (double)(2.0f * (float)i / (float)c->head_dim));
            float frequency = 1.0f / power, angle = (float)p * frequency;
            m->rope[(ptrdiff_t)p * c->head_dim + i] = (float)cos((double)angle);
            m->rope[(ptrdiff_t)p * c->head_dim + half + i] = (float)sin((double)angle);
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
            const float *x = qkv + (ptrdiff_t)r * (H + 2 * KV) * hd + h * hd;
            float *y = qk + (ptrdiff_t)r * (H + KV) * hd + h * hd;
            if (c->model_type == QWEN3) {
                rstd[r * (H + KV) + h] = norm_row(y, x, h < H ? wq : wk, hd,
                                                  (float)c->rms_norm_eps);
                x = y;
            }
            rotate(y, x, m->rope + (ptrdiff_t)b->position[r] * hd, hd, 1.0f);
        }
}

/* In: dqkv holds the gradients of the rotated q and k (and of v, which is done). Out: those of the
 * projections; dheads [rows, (H + KV) hd] keeps those of the norms' outputs, for their weights.
 * Forward: qk = rotate(norm(x)). */
static void heads_backward(const Model *m, int layer, const Batch *b, const float *qkv,
                           const float *rstd, float *dqkv, float *dheads, int threads)
{
    const Config *c = &m->config;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    const float *wq = at(m, m->params, layer_tensor(layer, Q_NORM));
    const float *wk = at(m, m->params, layer_tensor(layer, K_NORM));
    PARALLEL_FOR (threads)
    for (ptrdiff_t r = 0; r < b->n_rows; r++)
        for (int h = 0; h < H + KV; h++) {
            ptrdiff_t head = r * (H + KV) + h, place = r * (H + 2 * KV) * hd + h * hd;
            float *g = dqkv + place, *kept = dheads + head * hd;
            rotate(kept, g, m->rope + (ptrdiff_t)b->position[r] * hd, hd, -1.0f);
            if (c->model_type == QWEN3)
                norm_row_backward(g, NULL, kept, qkv + place, h < H ? wq : wk, rstd[head], hd);
            else
                memcpy(g, kept, (size_t)hd * sizeof(float));
        }
}

/* ================================================================ SwiGLU */

/* out = silu(g) u, silu(g) = g / (1 + e^-g)    gu: [rows, 2 ff] (g, then u), out: [rows, ff] */
static void swiglu_forward(float *out, const float *gu, int rows, int ff, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, ff) {
            const float *g = gu + (ptrdiff_t)r * 2 * ff + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf silu = vdiv(x, vadd(one, vexp(vsub(vset(0.0f), x))));
            vrow_store(out + (ptrdiff_t)r * ff + i, vmul(silu, u), part);
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
            const float *g = gu + (ptrdiff_t)r * 2 * ff + i;
            float *dg = dgu + (ptrdiff_t)r * 2 * ff + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf d = vrow_load(dout + (ptrdiff_t)r * ff + i, part);
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

/* What the head made of each target i (a row and the token that followed it). */
typedef struct {
    float *logprob, *entropy;
    Softmax *softmax;
    float *phi;    /* [targets, hidden_size]: W[y] - E_p W[v], Eq 14; NULL unless asked for */
    float *logits; /* [tiles][targets][TILE], kept for the backward pass; NULL: made again there */
    float inverse_temperature;
    /* Beside another model, q: its hidden rows of the same targets, [targets, hidden_size]. */
    const Model *other;
    const float *other_hidden;
    Softmax *other_softmax;
    float *other_logprob, *kl; /* log q of each target; KL(p || q), exact */
} Head;

/* What a loss says of each target: its derivative by log p, by the entropy H of the whole
 * distribution, and by KL(p || q). NULL: the loss does not look at it. */
typedef struct {
    const float *logprob, *entropy, *kl;
} HeadCoef;

/* Floats of logits that a pass would keep for its backward pass, and the most that one does keep
 * (64 MiB). Beyond that they are computed twice, with the same bits. */
enum { MOST_LOGITS = 1 << 24 };
static size_t logits_floats(const Config *c, size_t targets)
{
    return targets * (size_t)((c->vocab_size + TILE - 1) / TILE * TILE);
}

/* Where the logit of token v for a target is kept. */
static float *kept_logits(const Head *head, int v, int targets, int target)
{
    return head->logits + ((ptrdiff_t)(v / TILE) * targets + target) * TILE + v % TILE;
}

/* Logits of n tokens from v0 on, for some rows: z[rows, ld] = h W[v0 .. v0 + n)^T. v0 is a multiple
 * of NR; columns beyond n, up to the next multiple of NR, may be written too. */
static void head_logits(Arena *a, const Model *m, const float *h, int rows, int v0, int n,
                        float *z, int ld)
{
    Matrix w = head_matrix(m);
    if (m->packed)
        gemm_panels(a, rows, h, w.k, 1, (Packed){m->packed + w.packed, w.k, w.n}, v0 / NR,
                    panels_of(v0 + n), NULL, z, ld, NULL);
    else
        gemm(a, rows, n, w.k, h, w.k, 1, head_weight(m) + (ptrdiff_t)v0 * w.k, 1, w.k, NULL, z, ld);
}

/* phi[rows, d] = base + e[rows, n] W[v0 .. v0 + n): one tile as values. Tokens from n_vocab on have
 * no share. */
static void head_values(Arena *a, const Model *m, float *e, int rows, int v0, const float *base,
                        float *phi)
{
    Matrix w = head_matrix(m);
    int n = imin(TILE, w.n - v0), there = imin(n, m->n_vocab - v0);
    for (int r = 0; r < rows && there < n; r++)
        memset(e + r * TILE + there, 0, (size_t)(n - there) * sizeof(float));
    if (m->packed_back)
        gemm_packed(a, rows, e, TILE, 1,
                    (Packed){m->packed_back + w.packed_back + packed_floats(v0, w.k), n, w.k},
                    base, phi, w.k, NULL);
    else
        gemm(a, rows, w.k, n, e, TILE, 1, head_weight(m) + (ptrdiff_t)v0 * w.k, w.k, 1, base, phi,
             w.k);
}

/* Eq 6-7, 14: phi = W[y] - E_{v ~ p} W[v], where phi is sum_v e_v W[v] on entry, `sum` is
 * sum_v e_v, and w is W[y].    phi, w: [d] */
static void token_feature(float *phi, const float *w, float sum, int d)
{
    vf scale = vset(-1.0f / sum);
    FOR_ROW (i, part, d)
        vrow_store(phi + i, vfma(vrow_load(phi + i, part), scale, vrow_load(w + i, part)), part);
}

/* A block of targets under the other model, on its way through the vocabulary. */
typedef struct {
    float *z;         /* [HEAD_ROWS, TILE] its logits, then what e^z makes of them */
    float *gap;       /* [HEAD_ROWS, TILE] our logits minus its */
    Softmax *softmax; /* of each row */
    float target_z[HEAD_ROWS], gap_sum[HEAD_ROWS]; /* sum of e^(z / T - max) gap, over ours */
} Beside;

/* One tile for row r: `z` are our logits, before they become e. */
static void beside_tile(Beside *b, int r, const float *z, int n, int target, float inv)
{
    float *q = b->z + r * TILE, *gap = b->gap + r * TILE;
    FOR_ROW (i, part, n)
        vrow_store(gap + i, vsub(vrow_load(z + i, part), vrow_load(q + i, part)), part);
    if (target >= 0 && target < n)
        b->target_z[r] = q[target];
    softmax_tile(&b->softmax[r], q, q, n, inv);
}

/* KL(p || q) = E_p[(z - z') / T] - log sum e^(z / T) + log sum e^(z' / T) */
static float beside_kl(const Beside *b, int r, const Softmax *s, float inv)
{
    const Softmax *q = &b->softmax[r];
    double ours = (double)s->max + log((double)s->sum), its = (double)q->max + log((double)q->sum);
    return (float)((double)b->gap_sum[r] / (double)s->sum * (double)inv - (ours - its));
}

/* The targets first .. first + rows - 1, of `targets`, through the whole vocabulary. The loop over
 * rows writes the r-th row, or number, of `e`, `phi`, `s`, `target_z` and all of `b`. */
static void head_block(Arena *a, const Model *m, const float *h, const int *target, int targets,
                       Head *out, int first, int rows)
{
    int d = m->config.hidden_size, V = m->n_vocab;
    size_t mark = a->used;
    float inv = out->inverse_temperature, *phi = out->phi ? out->phi + (ptrdiff_t)first * d : NULL;
    float *e = arena_floats(a, HEAD_ROWS * TILE), target_z[HEAD_ROWS] = {0};
    Softmax *s = out->softmax + first;
    Beside *b = out->other ? arena_alloc(a, 1, sizeof *b) : NULL;
    target += first;
    for (int r = 0; r < rows; r++)
        s[r] = SOFTMAX_EMPTY;
    if (b) {
        b->z = arena_floats(a, HEAD_ROWS * TILE);
        b->gap = arena_floats(a, HEAD_ROWS * TILE);
        b->softmax = out->other_softmax + first;
        for (int r = 0; r < rows; r++) {
            b->softmax[r] = SOFTMAX_EMPTY;
            b->gap_sum[r] = 0;
        }
    }
    for (int v0 = 0; v0 < V; v0 += TILE) {
        int n = imin(TILE, V - v0);
        float *z = out->logits ? kept_logits(out, v0, targets, first) : e;
        head_logits(a, m, h + (ptrdiff_t)first * d, rows, v0, n, z, TILE);
        if (b)
            head_logits(a, out->other, out->other_hidden + (ptrdiff_t)first * d, rows, v0, n, b->z,
                        TILE);
        PARALLEL_FOR (a->threads)
        for (int r = 0; r < rows; r++) {
            float *zr = z + r * TILE;
            if (target[r] >= v0 && target[r] < v0 + n)
                target_z[r] = zr[target[r] - v0];
            if (b)
                beside_tile(b, r, zr, n, target[r] - v0, inv);
            float shrink = softmax_tile(&s[r], zr, e + r * TILE, n, inv);
            if (b)
                b->gap_sum[r] = fmaf(b->gap_sum[r], shrink,
                                     row_dot(e + r * TILE, b->gap + r * TILE, n));
            if (phi && v0 > 0 && shrink != 1.0f)
                row_scale(phi + (ptrdiff_t)r * d, phi + (ptrdiff_t)r * d, shrink, d);
        }
        if (phi)
            head_values(a, m, e, rows, v0, v0 > 0 ? phi : NULL, phi);
    }
    for (int r = 0; r < rows; r++) {
        out->logprob[first + r] = softmax_logprob(&s[r], target_z[r], inv);
        out->entropy[first + r] = softmax_entropy(&s[r]);
        if (b) {
            out->other_logprob[first + r] = softmax_logprob(&b->softmax[r], b->target_z[r], inv);
            out->kl[first + r] = beside_kl(b, r, &s[r], inv);
        }
        if (phi)
            token_feature(phi + (ptrdiff_t)r * d, head_weight(m) + (ptrdiff_t)target[r] * d,
                          s[r].sum, d);
    }
    a->used = mark;
}

/* Log-prob and entropy of each target under softmax(W h / T), and phi where `out->phi` is given.
 * h: [targets, hidden_size]. The memory of `out` is the caller's. */
static void head_forward(Arena *a, const Model *m, const float *h, const int *target, int targets,
                         Head *out)
{
    for (int first = 0; first < targets; first += HEAD_ROWS)
        head_block(a, m, h, target, targets, out, first, imin(HEAD_ROWS, targets - first));
}

/* With c = dL / d log p, a = dL / dH and b = dL / dK of a target. Forward: z = W h,
 *     log p = z_y / T - log sum_v e^(z_v / T)     H = -sum_v p_v ln p_v     K = KL(p || q)
 * so that
 *     dz_v = (c 1[v = y] + p_v (s_v - c)) / T,    s_v = -a (ln p_v + H) + b (ln p_v - ln q_v - K)
 *     dh = W^T dz = (c phi + sum_v p_v s_v W[v]) / T,       dW = dz^T h
 * phi is there already: the features are free. Only where a or b is asked for does dh take a pass
 * over the vocabulary of its own, with the other model's logits made once more.
 *
 * p_v (s_v - c) / T for n tokens of row i, from the logits z of this model and q of the other. */
static void head_terms(const Head *head, const HeadCoef *coef, int i, float c, const float *z,
                       const float *q, int n, float *dz)
{
    const Softmax *s = &head->softmax[i], *o = coef->kl ? &head->other_softmax[i] : s;
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

/* Adds to dh, which holds c phi / T, what the entropy and the KL divergence ask for. */
static void head_terms_backward(Arena *a, const Model *m, const float *h, int targets,
                                const Head *head, const HeadCoef *coef, float *dh)
{
    int d = m->config.hidden_size, V = m->n_vocab;
    size_t mark = a->used;
    float *dz = arena_floats(a, HEAD_ROWS * TILE), *made = arena_floats(a, HEAD_ROWS * TILE);
    float *q = arena_floats(a, HEAD_ROWS * TILE);
    for (int first = 0; first < targets; first += HEAD_ROWS)
        for (int v0 = 0; v0 < V; v0 += TILE) {
            int rows = imin(HEAD_ROWS, targets - first), n = imin(TILE, V - v0);
            ptrdiff_t at_row = (ptrdiff_t)first * d;
            const float *z = made;
            if (head->logits)
                z = kept_logits(head, v0, targets, first);
            else
                head_logits(a, m, h + at_row, rows, v0, n, made, TILE);
            if (coef->kl)
                head_logits(a, head->other, head->other_hidden + at_row, rows, v0, n, q, TILE);
            PARALLEL_FOR (a->threads)
            for (int r = 0; r < rows; r++)
                head_terms(head, coef, first + r, 0, z + r * TILE, q + r * TILE, n, dz + r * TILE);
            head_values(a, m, dz, rows, v0, dh + at_row, dh + at_row);
        }
    a->used = mark;
}

/* dh of each target, [targets, hidden_size]. */
static void head_backward(Arena *a, const Model *m, const float *h, int targets, const Head *head,
                          const HeadCoef *coef, float *dh)
{
    int d = m->config.hidden_size;
    for (ptrdiff_t i = 0; i < targets; i++)
        row_scale(dh + i * d, head->phi + i * d, coef->logprob[i] * head->inverse_temperature, d);
    if (coef->entropy || coef->kl)
        head_terms_backward(a, m, h, targets, head, coef, dh);
}

/* dW += dz^T h, with dz as above: its rows first .. first + n - 1, from the logits that were kept
 * or are made once more. `first` is where a tile begins. */
static void head_weights_backward(Arena *a, const Model *m, const float *h, const int *target,
                                  int targets, const Head *head, const HeadCoef *coef, int first,
                                  int n, float *dw)
{
    enum { COLUMNS = 128 }; /* rows of dW made at a time: a divisor of TILE */
    int d = m->config.hidden_size;
    bool terms = coef->entropy || coef->kl;
    float inv = head->inverse_temperature;
    size_t mark = a->used, block = (size_t)imin(KC, targets) * COLUMNS;
    n = imin(n, m->n_vocab - first);
    float *packed_h = arena_floats(a, packed_floats(targets, d));
    float *dz = arena_floats(a, block), *q = arena_floats(a, block);
    gemm_pack(targets, d, h, d, 1, packed_h);
    for (int v0 = first; v0 < first + n; v0 += COLUMNS)
        for (int r0 = 0; r0 < targets; r0 += KC) {
            int rows = imin(KC, targets - r0), columns = imin(COLUMNS, first + n - v0);
            ptrdiff_t ld = head->logits ? TILE : COLUMNS, at_row = (ptrdiff_t)r0 * d;
            const float *z = dz;
            if (head->logits)
                z = kept_logits(head, v0, targets, r0);
            else
                head_logits(a, m, h + at_row, rows, v0, columns, dz, COLUMNS);
            if (coef->kl)
                head_logits(a, head->other, head->other_hidden + at_row, rows, v0, columns, q,
                            COLUMNS);
            for (int r = 0; r < rows; r++) {
                const Softmax *s = &head->softmax[r0 + r];
                float c = coef->logprob[r0 + r], *out = dz + r * COLUMNS;
                int y = target[r0 + r] - v0;
                if (terms)
                    head_terms(head, coef, r0 + r, c, z + r * ld, q + r * COLUMNS, columns, out);
                else
                    row_exp_scaled(out, z + r * ld, columns, inv, s->max, -c * inv / s->sum);
                if (y >= 0 && y < columns)
                    out[y] += c * inv;
            }
            gemm_packed(a, columns, dz, 1, COLUMNS,
                        (Packed){packed_h + packed_floats(r0, d), rows, d},
                        dw + (ptrdiff_t)v0 * d, dw + (ptrdiff_t)v0 * d, d, NULL);
        }
    a->used = mark;
}

/* ================================================================ the whole model */

/* What the forward pass leaves behind in one layer, a row each, for the backward pass. */
typedef struct {
    float *x;                    /* [d] the residual stream on entry */
    float *rstd1, *normed1;      /* [1], [d] */
    float *qkv, *qk, *rstd_head; /* [(H + 2 KV) hd], [(H + KV) hd], [H + KV] */
    float *att;                  /* [H hd] */
    float *x2;                   /* [d] the residual stream after attention */
    float *rstd2, *normed2;      /* [1], [d] */
    float *gate_up, *act;        /* [2 ff], [ff] */
} Layer;

/* What the backward pass makes of one layer, for the gradients of its weights: dL / d of the above.
 * All layers use the same memory, one after the other. */
typedef struct {
    float *out;            /* [d] of the residual stream on exit */
    float *gate_up;        /* [2 ff] */
    float *normed2, *x2;   /* [d] each */
    float *heads, *qkv;    /* [(H + KV) hd] of normed q and k, before rotation; [(H + 2 KV) hd] */
    float *normed1;        /* [d] */
} LayerGrad;

/* What a pass keeps for a backward pass: nothing; all of each layer; or each layer's input alone,
 * of which the backward pass makes the rest again, with the same bits. */
typedef enum { KEEP_NOTHING, KEEP_ALL, KEEP_INPUTS } Keep;

/* A pass over a batch. `hidden` is what the head reads: the final norm of each target's row. */
typedef struct {
    Batch batch;
    Keep keep;
    Layer *layer;    /* all layers if kept, else the memory of one, which they share */
    float *x;        /* [rows, d] after the last layer */
    float *target_x; /* [targets, d] x of each target's row */
    float *rstd, *hidden;
    Head head;
    HeadCoef coef;
    float *dhidden; /* [targets, d] */
    LayerGrad grad;
    float *dx;      /* [rows, d] dL / dx of the layer's input; in the end, of the embedding rows */
} Pass;

/* Floats that one row takes in one Layer, and in one LayerGrad. */
static size_t layer_floats(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (size_t)(4 * c->hidden_size + 2 + (3 * H + 3 * KV) * hd + H + KV +
                    3 * c->intermediate_size);
}

static size_t layer_grad_floats(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (size_t)(4 * c->hidden_size + (2 * H + 3 * KV) * hd + 2 * c->intermediate_size);
}

static Layer layer_new(Arena *a, const Config *c, int rows)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    size_t n = (size_t)rows, d = (size_t)c->hidden_size, ff = (size_t)c->intermediate_size;
    Layer l;
    l.x = arena_floats(a, n * d);
    l.rstd1 = arena_floats(a, n);
    l.normed1 = arena_floats(a, n * d);
    l.qkv = arena_floats(a, n * (size_t)((H + 2 * KV) * hd));
    l.qk = arena_floats(a, n * (size_t)((H + KV) * hd));
    l.rstd_head = arena_floats(a, n * (size_t)(H + KV));
    l.att = arena_floats(a, n * (size_t)(H * hd));
    l.x2 = arena_floats(a, n * d);
    l.rstd2 = arena_floats(a, n);
    l.normed2 = arena_floats(a, n * d);
    l.gate_up = arena_floats(a, n * 2 * ff);
    l.act = arena_floats(a, n * ff);
    return l;
}

static LayerGrad layer_grad_new(Arena *a, const Config *c, int rows)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    size_t n = (size_t)rows, d = (size_t)c->hidden_size;
    LayerGrad g;
    g.out = arena_floats(a, n * d);
    g.gate_up = arena_floats(a, n * 2 * (size_t)c->intermediate_size);
    g.normed2 = arena_floats(a, n * d);
    g.x2 = arena_floats(a, n * d);
    g.heads = arena_floats(a, n * (size_t)((H + KV) * hd));
    g.qkv = arena_floats(a, n * (size_t)((H + 2 * KV) * hd));
    g.normed1 = arena_floats(a, n * d);
    return g;
}

/* x_out = x2 + mlp(norm(x2)),  x2 = x + attention(norm(x)).   x_out may be l->x; with NULL only
 * what stands in `l` is made. */
static void layer_forward(Arena *a, const Model *m, int layer, const Batch *b, Layer *l,
                          float *x_out)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size;
    float eps = (float)c->rms_norm_eps;
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));
    bool biased = c->model_type == QWEN2;
    Matrix qkv = matrix(m, layer, QKV);
    rmsnorm_forward(l->normed1, l->rstd1, l->x, norm1, n, d, eps, a->threads);
    if (biased)
        bias_forward(l->qkv, at(m, m->params, layer_tensor(layer, Q_BIAS)), n, qkv.n);
    linear_forward(a, m, qkv, n, l->normed1, biased ? l->qkv : NULL, l->qkv);
    heads_forward(m, layer, b, l->qkv, l->qk, l->rstd_head, a->threads);
    if (b->pool)
        attention_cached(a, c, layer, b, l->qk, l->qkv, l->att);
    else
        attention_forward(a, c, b, l->qk, l->qkv, l->att);
    linear_forward(a, m, matrix(m, layer, O), n, l->att, l->x, l->x2);
    rmsnorm_forward(l->normed2, l->rstd2, l->x2, norm2, n, d, eps, a->threads);
    linear_forward(a, m, matrix(m, layer, GATE_UP), n, l->normed2, NULL, l->gate_up);
    swiglu_forward(l->act, l->gate_up, n, c->intermediate_size, a->threads);
    if (x_out)
        linear_forward(a, m, matrix(m, layer, DOWN), n, l->act, l->x2, x_out);
}

/* A model that samples makes of every row, bit for bit, what its forward pass over the finished
 * sequences would make of it. So it may write it down, and that pass reads it. A row's trace has,
 * of each layer, what the products left; the last layer's output comes last. A trace of that alone
 * is enough for a pass that goes no further back than the head. */
typedef enum { TRACE_NOTHING, TRACE_OUTPUT, TRACE_ALL } Tracing;

static size_t traced_layer_floats(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (size_t)((2 * H + 2 * KV) * hd + 2 * c->hidden_size + 2 * c->intermediate_size);
}

/* Floats of a row's trace. */
static size_t trace_floats(const Config *c, Tracing what)
{
    return what == TRACE_ALL ? (size_t)c->num_hidden_layers * traced_layer_floats(c)
                             : what * (size_t)c->hidden_size;
}

/* Moves parts of a sequence's rows, n[i] floats each, between the batch and the trace, where those
 * of a row lie end to end, `offset` floats into it: into the trace while sampling, out of it
 * later. */
static void trace_seq(const Seq *s, int parts, float *const *part, const int *n, size_t offset,
                      bool sampling)
{
    for (int r = 0; r < s->rows; r++) {
        float *there = s->trace.row + (size_t)r * s->trace.floats + offset;
        for (int i = 0; i < parts; there += n[i++]) {
            float *here = part[i] + (ptrdiff_t)(s->row + r) * n[i];
            if (sampling)
                row_stream(there, here, n[i]);
            else
                memcpy(here, there, (size_t)n[i] * sizeof(float));
        }
    }
}

static void trace_batch(const Batch *b, int parts, float *const *part, const int *n, size_t offset,
                        int threads)
{
    PARALLEL_FOR (threads)
    for (int i = 0; i < b->n_seqs; i++)
        trace_seq(&b->seq[i], parts, part, n, offset, b->pool != NULL);
}

/* To be called when sampling ends, with all threads that took part: from then on any thread may
 * read the traces. */
static void trace_end(int threads)
{
    PARALLEL_FOR (threads)
    for (int i = 0; i < threads; i++)
        stream_end();
}

static void trace_layer(const Config *c, int layer, const Batch *b, const Layer *l, float *x_out,
                        int threads)
{
    enum { PARTS = 5 };
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    int d = c->hidden_size, n[PARTS] = {(H + 2 * KV) * hd, H * hd, d, 2 * c->intermediate_size, d};
    float *part[PARTS] = {l->qkv, l->att, l->x2, l->gate_up, x_out};
    trace_batch(b, PARTS, part, n, (size_t)layer * traced_layer_floats(c), threads);
}

/* The last layer's output. */
static void trace_output(const Config *c, const Batch *b, float *x, int threads)
{
    int d = c->hidden_size;
    trace_batch(b, 1, &x, &d, b->seq->trace.floats - (size_t)d, threads);
}

/* What layer_forward leaves in `l` and x_out, from l->x and the trace: what lies between the
 * products is made again. */
static void layer_recall(const Model *m, int layer, const Batch *b, Layer *l, float *x_out,
                         int threads)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size;
    float eps = (float)c->rms_norm_eps;
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));
    trace_layer(c, layer, b, l, x_out, threads);
    rmsnorm_forward(l->normed1, l->rstd1, l->x, norm1, n, d, eps, threads);
    heads_forward(m, layer, b, l->qkv, l->qk, l->rstd_head, threads);
    rmsnorm_forward(l->normed2, l->rstd2, l->x2, norm2, n, d, eps, threads);
    swiglu_forward(l->act, l->gate_up, n, c->intermediate_size, threads);
}

/* From g->out = dL / d x_out to dx = dL / d x; what the weights' gradients need stays in g.
 * Forward, twice: y = x + f(norm(x)). So the gradient of y goes past f unchanged, and what comes
 * back through f and the norm is added to it: by rmsnorm_backward. */
static void layer_backward(Arena *a, const Model *m, int layer, const Batch *b, const Layer *l,
                           LayerGrad *g, float *dx)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size, ff = c->intermediate_size;
    size_t mark = a->used, rows = (size_t)n;
    float *dact = arena_floats(a, rows * (size_t)ff);
    size_t width = (size_t)(c->num_attention_heads * c->head_dim);
    float *datt = arena_floats(a, rows * width + LANES); /* gemm_small reads past a short head */
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));

    linear_backward(a, m, matrix(m, layer, DOWN), n, g->out, dact);
    swiglu_backward(g->gate_up, dact, l->gate_up, n, ff, a->threads);
    linear_backward(a, m, matrix(m, layer, GATE_UP), n, g->gate_up, g->normed2);
    rmsnorm_backward(g->x2, g->out, g->normed2, l->x2, norm2, l->rstd2, n, d, a->threads);

    linear_backward(a, m, matrix(m, layer, O), n, g->x2, datt);
    attention_backward(a, c, b, l->qk, l->qkv, l->att, datt, g->qkv);
    heads_backward(m, layer, b, l->qkv, l->rstd_head, g->qkv, g->heads, a->threads);
    linear_backward(a, m, matrix(m, layer, QKV), n, g->qkv, g->normed1);
    rmsnorm_backward(dx, g->x2, g->normed1, l->x, norm1, l->rstd1, n, d, a->threads);
    a->used = mark;
}

/* From tokens to the last layer's output. Leaves a trace where the batch has room for one. */
static void run_layers(Arena *a, const Model *m, const Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    const Trace *trace = &b->seq->trace;
    bool all = trace->floats == trace_floats(c, TRACE_ALL);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        float *x_out = l + 1 < c->num_hidden_layers ? p->layer[l + 1].x : p->x;
        layer_forward(a, m, l, b, &p->layer[l], x_out);
        if (trace->row && all)
            trace_layer(c, l, b, &p->layer[l], x_out, a->threads);
    }
    if (trace->row && !all)
        trace_output(c, b, p->x, a->threads);
}

/* The same, from the trace; where nothing is kept, the output alone. */
static void recall_layers(Arena *a, const Model *m, const Pass *p)
{
    int L = m->config.num_hidden_layers;
    for (int l = 0; l < L && p->keep; l++)
        layer_recall(m, l, &p->batch, &p->layer[l], l + 1 < L ? p->layer[l + 1].x : p->x,
                     a->threads);
    if (!p->keep)
        trace_output(&m->config, &p->batch, p->x, a->threads);
}

/* Runs the layers and norms the rows that have targets. What is kept stays in the arena. */
static Pass forward(Arena *a, const Model *m, const Batch *b, Keep keep)
{
    const Config *c = &m->config;
    int L = c->num_hidden_layers, d = c->hidden_size, n = b->n_rows;
    size_t width = (size_t)d * sizeof(float), targets = (size_t)b->n_targets;
    Pass p = {.batch = *b, .keep = keep, .layer = arena_alloc(a, (size_t)L, sizeof(Layer))};
    for (int l = 0; l < L; l++) {
        p.layer[l] = keep == KEEP_ALL || l == 0 ? layer_new(a, c, n) : p.layer[0];
        if (keep == KEEP_INPUTS && l > 0)
            p.layer[l].x = arena_floats(a, (size_t)n * (size_t)d);
    }
    p.x = keep ? arena_floats(a, (size_t)n * (size_t)d) : p.layer[0].x;
    p.target_x = arena_floats(a, targets * (size_t)d);
    p.rstd = arena_floats(a, targets);
    p.hidden = arena_floats(a, targets * (size_t)d);
    embed_forward(p.layer[0].x, at(m, m->params, EMBED), b, d);
    if (b->seq->trace.row && !b->pool)
        recall_layers(a, m, &p);
    else
        run_layers(a, m, &p);
    for (int i = 0; i < b->n_targets; i++)
        memcpy(p.target_x + (ptrdiff_t)i * d, p.x + (ptrdiff_t)b->target_row[i] * d, width);
    rmsnorm_forward(p.hidden, p.rstd, p.target_x, at(m, m->params, final_norm(c)), b->n_targets, d,
                    (float)c->rms_norm_eps, a->threads);
    return p;
}

/* Log-prob, entropy and, if `features`, phi of every target at this temperature; and, where `other`
 * is given with its hidden rows, its log-probs and the KL divergence from it. */
static void forward_head_beside(Arena *a, const Model *m, Pass *p, float temperature,
                                bool features, const Model *other, const float *other_hidden)
{
    size_t n = (size_t)p->batch.n_targets, d = (size_t)m->config.hidden_size;
    size_t logits = logits_floats(&m->config, n);
    p->head = (Head){.logprob = arena_floats(a, n), .entropy = arena_floats(a, n),
                     .softmax = arena_alloc(a, n, sizeof(Softmax)),
                     .phi = features ? arena_floats(a, n * d) : NULL,
                     .logits = p->keep && logits <= MOST_LOGITS ? arena_floats(a, logits) : NULL,
                     .inverse_temperature = 1.0f / temperature,
                     .other = other, .other_hidden = other_hidden};
    if (other) {
        p->head.other_softmax = arena_alloc(a, n, sizeof(Softmax));
        p->head.other_logprob = arena_floats(a, n);
        p->head.kl = arena_floats(a, n);
    }
    head_forward(a, m, p->hidden, p->batch.target, p->batch.n_targets, &p->head);
}

static void forward_head(Arena *a, const Model *m, Pass *p, float temperature, bool features)
{
    forward_head_beside(a, m, p, temperature, features, NULL, NULL);
}

/* Room for the gradients of the rows, and from the loss by each target (p->coef) to the gradient of
 * the last layer's output. */
static void backward_start(Arena *a, const Model *m, Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    int d = c->hidden_size;
    size_t targets = (size_t)b->n_targets, rows = (size_t)b->n_rows;
    p->dhidden = arena_floats(a, targets * (size_t)d);
    p->dx = arena_floats(a, rows * (size_t)d);
    p->grad = layer_grad_new(a, c, b->n_rows);
    size_t mark = a->used;
    float *dtarget = arena_floats(a, targets * (size_t)d), *dx = p->grad.out;
    head_backward(a, m, p->hidden, b->n_targets, &p->head, &p->coef, p->dhidden);
    rmsnorm_backward(dtarget, NULL, p->dhidden, p->target_x, at(m, m->params, final_norm(c)),
                     p->rstd, b->n_targets, d, a->threads);
    memset(dx, 0, rows * (size_t)d * sizeof(float));
    for (int i = 0; i < b->n_targets; i++) /* several targets may share a row: in order */
        row_axpy(dx + (ptrdiff_t)b->target_row[i] * d, 1.0f, dtarget + (ptrdiff_t)i * d, d);
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

/* ---------------------------------------------------------------- room for training */

/* Gradients and Adam's moments. `frugal`: the weights are packed while sampling only, and the
 * backward pass makes each layer's activations a second time. */
static void model_trainable(Model *m, bool frugal)
{
    m->frugal = frugal;
    m->partial = xcalloc((size_t)flat_blocks(m), sizeof(double));
    m->grads = floats_new(m->n_grads);
    m->m = floats_new(m->n_params);
    m->v = floats_new(m->n_params);
    if (m->packed)
        model_pack(m, 1);
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
        Matrix w = matrix(m, layer, order[i]);
        double share = (double)w.n * w.k / all;
        n = add_pieces(out, n, order[i], imax(w.n, w.k), NR, (int)ceil(shares * share));
    }
    return add_pieces(out, n, VECTORS, 1, 1, 1);
}

/* dW of a piece of one of a layer's matrices. */
static void matrix_backward(Arena *a, Model *m, int layer, const Piece *piece, const Pass *p)
{
    const Layer *l = &p->layer[layer];
    const LayerGrad *g = &p->grad;
    const float *x[MATRICES] = {l->normed1, l->att, l->normed2, l->act};
    const float *dy[MATRICES] = {g->qkv, g->x2, g->gate_up, g->out};
    Matrix w = matrix(m, layer, piece->kind);
    float *dw = at(m, m->grads, w.tensor);
    int kind = piece->kind, first = piece->first, rows = p->batch.n_rows;
    if (w.k > w.n)
        gemm_weights(a, rows, w.n, piece->n, dy[kind], w.n, x[kind] + first, dw + first, w.k);
    else
        gemm_weights(a, rows, piece->n, w.k, dy[kind] + first, w.n, x[kind],
                     dw + (ptrdiff_t)first * w.k, w.k);
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
    if (x->kind < MATRICES)
        matrix_backward(a, m, layer, x, p);
    else if (x->kind == VECTORS)
        vectors_backward(m, layer, p);
    else if (x->kind == HEAD)
        head_weights_backward(a, m, p->hidden, b->target, b->n_targets, &p->head, &p->coef,
                              x->first, x->n, at(m, m->grads, head));
    else if (x->kind == EMBEDDING)
        embed_backward(at(m, m->grads, EMBED), p->dx, b, d, x->first, x->n);
    else
        norm_weights_backward(at(m, m->grads, final_norm(c)), p->dhidden, p->target_x, p->rstd,
                              b->n_targets, d);
}

/* Adds to m->grads the gradients of a layer's weights, or of those at the ends, over n passes, in
 * order. No two pieces have a weight in common. The scratch memory is what the passes left free in
 * the workers' arenas. */
static void weights_backward(Engine *e, Model *m, const Pass *p, int n, int layer)
{
    Piece piece[MOST_PIECES];
    int pieces = cut_pieces(m, layer, e->threads, piece);
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < pieces; i++)
        for (int k = 0; k < n; k++)
            piece_backward(&e->worker[thread_index()], m, layer, &piece[i], &p[k]);
}

/* Adds to m->grads the gradient over n passes, of which worker i holds number i: layer after
 * layer, first the gradients of the rows, then, while these are near, those of the weights. The
 * passes go side by side; one alone has the help of worker 0's threads. */
static void backward(Engine *e, Model *m, Pass *p, int n)
{
    Arena *a = &e->worker[0];
    int helpers = a->threads;
    for (int l = m->config.num_hidden_layers - 1; l >= 0; l--) {
        if (n > 1) {
            PARALLEL_FOR_DYNAMIC (e->threads)
            for (int i = 0; i < n; i++)
                backward_layer(&e->worker[i], m, &p[i], l);
        } else
            backward_layer(a, m, p, l);
        a->threads = 1; /* now threads take pieces */
        weights_backward(e, m, p, n, l);
        a->threads = helpers;
    }
    a->threads = 1;
    weights_backward(e, m, p, n, ENDS);
    a->threads = helpers;
}

/* Part i of a batch, run forward: what `gradient` asks its caller for. The pass's `coef` says how
 * the loss looks at each target. */
typedef Pass Look(Arena *a, int i, Keep keep, void *context);

/* Adds to m->grads the gradient over n parts of a batch, and to seconds[0] and [1] the time that
 * going forward and backward took: as many parts as there are threads side by side, or one after
 * the other with the help of all. Part i writes its worker's arena and, through `look`, what is its
 * own behind `context`. Every sum over rows continues where the last one stopped, so that neither
 * the cut into parts nor the threads change a bit. */
static void gradient(Engine *e, Model *m, int n, Look *look, void *context, double *seconds)
{
    bool together = one_by_one(e, n);
    int at_once = together ? 1 : e->threads;
    Keep keep = e->frugal ? KEEP_INPUTS : KEEP_ALL;
    size_t mark = e->arena.used;
    Pass *p = arena_alloc(&e->arena, (size_t)at_once, sizeof *p);
    e->worker[0].threads = together ? imin(e->threads, HELPERS) : 1;
    for (int first = 0, count; first < n; first += count) {
        double clock = now_seconds();
        count = imin(at_once, n - first);
        for (int i = 0; i < count; i++)
            e->worker[i].used = 0;
        if (count > 1) {
            PARALLEL_FOR_DYNAMIC (e->threads)
            for (int i = 0; i < count; i++)
                p[i] = look(&e->worker[i], first + i, keep, context);
        } else
            p[0] = look(&e->worker[0], first, keep, context);
        seconds[0] += lap(&clock);
        backward(e, m, p, count);
        seconds[1] += lap(&clock);
    }
    e->worker[0].threads = 1;
    for (int i = 0; i < e->threads; i++)
        e->worker[i].used = 0;
    e->arena.used = mark;
}

/* Bytes of arena that one thread needs for its part of weights_backward, at most. */
static size_t pieces_bytes(const Config *c, size_t targets)
{
    size_t widest = (size_t)imax(imax(c->intermediate_size, c->hidden_size),
                                 c->num_attention_heads * c->head_dim);
    size_t floats = KC * (widest + NR) + arranged_floats(widest) +
                    targets * ((size_t)c->hidden_size + NR) + KC * TILE;
    return floats * sizeof(float) + (1 << 16);
}

/* Bytes of arena that a pass over a batch of this size needs, at most; where something is kept,
 * through its backward pass and one thread's part of weights_backward. */
static size_t pass_bytes(const Model *m, size_t rows, size_t targets, int longest, Keep keep)
{
    const Config *c = &m->config;
    Heads s = heads_of(c);
    size_t d = (size_t)c->hidden_size, ff = (size_t)c->intermediate_size, keys = (size_t)longest;
    size_t widest = (size_t)imax(imax(2 * c->intermediate_size, (int)s.ld_qkv), c->hidden_size);
    size_t layers = keep == KEEP_ALL ? (size_t)c->num_hidden_layers : 1;
    size_t floats = rows * (layer_floats(c) * layers + d) + targets * (5 * d + 24);
    if (keep == KEEP_INPUTS)
        floats += rows * d * (size_t)(c->num_hidden_layers + 1);
    if (keep)
        floats += rows * (layer_grad_floats(c) + d + ff + (size_t)s.ld_out) +
                  targets * 2 * d + pieces_bytes(c, targets) / sizeof(float);
    size_t logits = logits_floats(c, targets);
    if (keep) /* a batch with fewer targets may keep its logits where the largest does not */
        floats += logits < MOST_LOGITS ? logits : MOST_LOGITS;
    floats += HELPERS * ((keys + 3 * KEYS) * (size_t)(3 * s.hd + 6 * s.hd_pad) +
                         QUERIES * (2 * keys + 8 * KEYS + 2 * (size_t)s.hd_pad));
    floats += (KC + NR) * (widest + NR);                                        /* packing */
    floats += arranged_floats(rows + widest);
    floats += (size_t)(3 * HEAD_ROWS + KC) * TILE + (d + NR) * TILE + (d + KC) * (TILE + NR) +
              sizeof(Beside);                                                   /* head */
    size_t pieces = (size_t)c->num_hidden_layers * 24 + 64 + HELPERS * (keys / KEYS + 2);
    return floats * sizeof(float) + pieces * 128 + (rows + targets) * 64 + (1 << 16);
}

/* ================================================================ the optimizer */

static void grads_zero(Model *m) { memset(m->grads, 0, m->n_grads * sizeof(float)); }

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
 * decay is no part of g, so that it is not divided by sqrt(v). Returns the norm before clipping. */
static double adamw_step(Model *m, AdamW *o, double lr, int threads)
{
    grads_finish(m);
    double norm = grads_norm(m, threads);
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
    if (m->packed)
        model_pack(m, threads);
    return norm;
}

static bool all_finite(const float *x, size_t n)
{
    uint32_t bits, bad = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, &x[i], 4);
        bad |= (bits & 0x7F800000) == 0x7F800000;
    }
    return !bad;
}

/* The first tensor that holds a value that is not finite in `flat`, one of the flat arrays; NULL if
 * none does. */
static const char *first_not_finite(const Model *m, const float *flat)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (!all_finite(flat + m->tensors[i].offset, m->tensors[i].size))
            return m->tensors[i].name;
    return NULL;
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

static uint64_t weights_hash(const Model *m)
{
    return hash64(m->params, m->n_params * sizeof(float));
}

/* ================================================================ the directory on disk */

/* The step of a checkpoint by its directory's name; -1 if it is none. */
static int checkpoint_step(const char *name)
{
    char *end;
    if (strncmp(name, "checkpoint-", 11))
        return -1;
    long step = strtol(name + 11, &end, 10);
    return name[11] && !*end && step >= 0 && step <= INT_MAX ? (int)step : -1;
}

/* A model directory, or a run's: then its newest checkpoint. */
static Path model_dir(const char *path)
{
    Path p = path_join(path, "config.json"), best = path_join(path, ".");
    int newest = -1;
    if (is_file(p.s) || !is_dir(path)) {
        snprintf(p.s, sizeof p.s, "%s", path);
        return p;
    }
    DIR *dir = opendir(path);
    if (!dir)
        die("%s: cannot be opened: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        int step = checkpoint_step(entry->d_name);
        if (step > newest) {
            newest = step;
            best = path_join(path, entry->d_name);
        }
    }
    closedir(dir);
    if (newest < 0)
        snprintf(best.s, sizeof best.s, "%s", path);
    return best;
}

/* Reads one tensor by blocks, whose pages of the file are let go at once: so the peak is one model
 * in floats, whatever the file holds. With `compare` the values must be those that `w` holds. */
static void load_tensor(const StTensor *s, float *w, bool compare)
{
    enum { AT_ONCE = 1 << 20 };
    float *block = compare ? xmalloc(AT_ONCE * sizeof *block) : NULL;
    for (size_t i = 0, n, count = st_values(s); i < count; i += n) {
        n = count - i < AT_ONCE ? count - i : AT_ONCE;
        float *to = compare ? block : w + i;
        st_read_part(s, i, n, to);
        st_release(s, i, n);
        if (!all_finite(to, n))
            die("%s: tensor %s holds a value that is not finite", s->path, s->name);
        if (compare && memcmp(block, w + i, n * sizeof *block))
            die("%s: tensor %s is not the embedding, and tie_word_embeddings is true; expected "
                "equal values, or false", s->path, s->name);
    }
    free(block);
}

/* Reads config.json, whose text goes to *text for the caller to free, and
 * generation_config.json. */
static Config config_read(const char *path, char **text)
{
    Path dir = model_dir(path), file = path_join(dir.s, "config.json");
    size_t length;
    *text = read_file(file.s, &length);
    Config c = config_parse(file.s, *text, length);
    config_generation(&c, path_join(dir.s, "generation_config.json").s);
    return c;
}

/* Reads a model's configuration and its weights. Every tensor must be there with its exact shape,
 * in F32, BF16 or F16; tensors that nobody asks for are let be. A tied model may store its head
 * again: then it must be the embedding. */
static Model model_load(const char *path)
{
    Path dir = model_dir(path), file = path_join(dir.s, "config.json");
    char *text;
    Config c = config_read(dir.s, &text);
    SafeTensors st = st_open_dir(dir.s);
    const StTensor *embed = st_find(&st, "model.embed_tokens.weight");
    if (embed && (embed->rank != 2 || embed->shape[0] != c.vocab_size ||
                  embed->shape[1] != c.hidden_size))
        die("%s: vocab_size %d, hidden_size %d do not fit tensor model.embed_tokens.weight "
            "of %s", file.s, c.vocab_size, c.hidden_size, embed->path);
    Model m = model_table(&c);
    m.config_text = text;
    const StTensor **source = xcalloc((size_t)m.n_tensors, sizeof *source);
    for (int i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensors[i];
        int64_t shape[2] = {t->rows, t->cols};
        if (t->size)
            source[i] = st_need(&st, t->name, t->cols ? 2 : 1, shape);
    }
    m.params = floats_new(m.n_params); /* no more than the files hold */
    for (int i = 0; i < m.n_tensors; i++)
        if (source[i]) {
            load_tensor(source[i], at(&m, m.params, i), false);
            m.tensors[i].dtype = source[i]->dtype;
        }
    free(source);
    int64_t shape[2] = {c.vocab_size, c.hidden_size};
    if (c.tie_word_embeddings && st_find(&st, "lm_head.weight"))
        load_tensor(st_need(&st, "lm_head.weight", 2, shape), m.params, true);
    st_close(&st);
    return m;
}

/* Every tensor is written as `dtype` from now on. */
static void model_set_dtype(Model *m, int dtype)
{
    for (int i = 0; i < m->n_tensors; i++)
        m->tensors[i].dtype = dtype;
    if (m->config_text) {
        char *text = config_with_dtype(m->config_text, dtype);
        free(m->config_text);
        m->config_text = text;
    }
}

/* How many weights a file cannot hold as they are. Dies at one that it cannot hold at all. */
static size_t count_rounded(const Model *m, const char *dir)
{
    size_t rounded = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        const float *w = at(m, m->params, i);
        for (size_t k = 0; t->dtype != ST_F32 && k < t->size; k++) {
            float stored = st_round(w[k], t->dtype);
            if (isinf(stored) && !isinf(w[k]))
                die("%s: tensor %s holds %g, which %s cannot; expected --dtype f32", dir, t->name,
                    (double)w[k], st_dtypes[t->dtype].name);
            rounded += stored != w[k];
        }
    }
    return rounded;
}

/* Writes config.json and model.safetensors into an existing directory: each tensor in its dtype,
 * and the config.json that the model came with, or one of our own. A model that was read and not
 * changed is written with the same values. Returns how many weights had to be rounded. */
static size_t model_save(const Model *m, const char *dir)
{
    Path config = path_join(dir, "config.json");
    StOut *out = xcalloc((size_t)m->n_tensors, sizeof *out);
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        if (t->size)
            out[n++] = (StOut){t->name, t->cols ? 2 : 1, {t->rows, t->cols}, at(m, m->params, i),
                               t->dtype};
    }
    size_t rounded = count_rounded(m, dir);
    if (m->config_text)
        write_file(config.s, m->config_text, strlen(m->config_text));
    else
        config_write(&m->config, m->tensors[EMBED].dtype, config.s);
    st_write(path_join(dir, "model.safetensors").s, "", out, n);
    free(out);
    return rounded;
}

#endif
