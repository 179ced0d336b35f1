/* tensors.h: the parameters of a model, and the one table of them. */
#ifndef TENSORS_H
#define TENSORS_H

#include "../num/attention.h" /* defines: Heads; gemm.h: Mat, gemm_pack, packed_floats */
#include "config.h"           /* defines: Config */

static Heads heads_of(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (Heads){H, KV, H / KV, hd, round_up(hd, LANES), (H + KV) * hd, (H + 2 * KV) * hd,
                   H * hd, (float)(1.0 / sqrt((double)hd))};
}

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

/* Parameters, gradients and Adam's two moments are flat arrays of one layout. `packed_t` holds the
 * matrices once more in the panels that gemm reads for y = x W^T, `packed` for dx = dy W;
 * model_pack refreshes them after an update. Without them each product packs for itself. */
typedef struct {
    Config config;
    int n_vocab; /* the head sees tokens 0 .. n_vocab - 1: those that have a text, or all */
    char *config_text; /* the config.json it was read from, or NULL */
    char *path;        /* the directory it was read from, or NULL */
    char *unplaced;    /* names of tensors there that it has no place for, or NULL */
    Tensor *tensors;
    int n_tensors;
    size_t n_params, n_grads; /* n_grads: see model_table */
    float *params, *grads, *m, *v;
    double *partial; /* [flat_blocks] the gradient norm's partial sums */
    bool recompute; /* activation checkpointing: see model_trainable */
    float *packed, *packed_t;
    float *rope; /* [n_positions][head_dim]: half of it cosines, half sines */
    int n_positions;
    struct Lora *lora; /* the adapter that is trained in place of the weights, or NULL */
} Model;
typedef struct Lora Lora; /* see lora.h */
static void lora_free(Lora *l);
static Model *trained(const Model *m);

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
    free(m->path);
    free(m->unplaced);
    free(m->tensors);
    free(m->params);
    free(m->grads);
    free(m->m);
    free(m->v);
    free(m->partial);
    free(m->packed);
    free(m->packed_t);
    free(m->rope);
    lora_free(m->lora);
    *m = (Model){0};
}

static uint64_t weights_hash(const Model *m)
{
    return hash64(m->params, m->n_params * sizeof(float));
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
                                     (uint32_t)((uint64_t)i >> 32), 0));
            else
                w[i] = strstr(x->name, "bias") ? 0.0f : 1.0f;
    }
}

/* ---------------------------------------------------------------- matrices, packed or not */

/* The four matrices of a layer, W: [n, k], and where their packed copies begin. Layers lie one
 * after the other, so the place of layer num_hidden_layers is that of the head. */
enum { QKV, O, GATE_UP, DOWN, MATRICES };
typedef struct {
    int n, k;
    size_t packed, packed_t; /* offsets in the model's arrays of these names */
} Place;

static Place place(const Config *c, int layer, int kind)
{
    int d = c->hidden_size, ff = c->intermediate_size, q = c->num_attention_heads * c->head_dim;
    int n[MATRICES] = {q + 2 * c->num_key_value_heads * c->head_dim, d, 2 * ff, d};
    int k[MATRICES] = {d, q, d, ff};
    Place x = {.n = n[kind], .k = k[kind]};
    for (int i = 0; i < MATRICES; i++) {
        x.packed += packed_floats(n[i], k[i]) * (size_t)(layer + (i < kind));
        x.packed_t += packed_floats(k[i], n[i]) * (size_t)(layer + (i < kind));
    }
    return x;
}

static Place head_place(const Config *c)
{
    Place x = place(c, c->num_hidden_layers, 0);
    x.n = c->vocab_size;
    x.k = c->hidden_size;
    return x;
}

/* The tensor that matrix `kind` of a layer begins with. */
static int matrix_tensor(int layer, int kind)
{
    static const int first[MATRICES] = {Q_PROJ, O_PROJ, GATE_PROJ, DOWN_PROJ};
    return layer_tensor(layer, first[kind]);
}

/* W, with its packed copies where there are any. */
static Mat weight(const Model *m, int layer, int kind)
{
    Place x = place(&m->config, layer, kind);
    Mat w = mat(at(m, m->params, matrix_tensor(layer, kind)), x.n, x.k);
    w.packed = m->packed ? m->packed + x.packed : NULL;
    w.packed_t = m->packed_t ? m->packed_t + x.packed_t : NULL;
    return w;
}

/* n rows of the head's W, [vocab_size, hidden_size], from token v0 on. `packed` holds these in
 * tiles of TILE tokens; so there v0 is a multiple of TILE, and n TILE or what is left. */
enum { TILE = 256 };
static Mat head_tile(const Model *m, int v0, int n)
{
    Place x = head_place(&m->config);
    Mat w = mat(head_weight(m) + (ptrdiff_t)v0 * x.k, n, x.k);
    w.packed = m->packed ? m->packed + x.packed + packed_floats(v0, x.k) : NULL;
    return w;
}

/* n columns of its transpose, from v0 on, a multiple of NR. */
static Mat head_columns(const Model *m, int v0, int n)
{
    Place x = head_place(&m->config);
    Mat w = mat(head_weight(m), x.n, x.k);
    w.packed_t = m->packed_t ? m->packed_t + x.packed_t : NULL;
    return columns_of(transposed(w), v0, n);
}

/* Floats of Model.packed, and of Model.packed_t. */
static size_t packed_size(const Config *c)
{
    Place x = head_place(c);
    return x.packed + packed_floats(x.n, x.k);
}

static size_t packed_t_size(const Config *c)
{
    Place x = head_place(c);
    return x.packed_t + packed_floats(x.k, x.n);
}

/* Brings the packed copies up to date with the parameters. A model that is only read, or one that
 * saves memory, has no `packed`: then the backward pass packs for each product. */
static void model_pack(Model *m, int threads)
{
    const Config *c = &m->config;
    Place head = head_place(c);
    int matrices = c->num_hidden_layers * MATRICES, tiles = (head.n + TILE - 1) / TILE;
    if (!m->packed_t)
        m->packed_t = floats_new(packed_t_size(c));
    if (trained(m)->grads && !m->recompute && !m->packed)
        m->packed = floats_new(packed_size(c));
    PARALLEL_FOR_DYNAMIC (threads)
    for (int i = -1; i < matrices; i++) { /* the largest first */
        Place x = i < 0 ? head : place(c, i / MATRICES, i % MATRICES);
        const float *w = i < 0 ? head_weight(m)
                               : at(m, m->params, matrix_tensor(i / MATRICES, i % MATRICES));
        gemm_pack(transposed(mat(w, x.n, x.k)), m->packed_t + x.packed_t);
        if (m->packed && i >= 0)
            gemm_pack(mat(w, x.n, x.k), m->packed + x.packed);
    }
    PARALLEL_FOR (threads)
    for (int t = 0; t < (m->packed ? tiles : 0); t++) {
        int v0 = t * TILE;
        gemm_pack(mat(head_weight(m) + (ptrdiff_t)v0 * head.k, imin(TILE, head.n - v0), head.k),
                  m->packed + head.packed + packed_floats(v0, head.k));
    }
}

/* To be called when the parameters have changed: packed copies, where there are any, follow. */
static void model_updated(Model *m, int threads)
{
    if (m->packed_t)
        model_pack(m, threads);
}

/* Gives the packed copies back. */
static void model_unpack(Model *m)
{
    free(m->packed);
    free(m->packed_t);
    m->packed = m->packed_t = NULL;
}

/* Weights of the layers' matrices, and of the head's: each is one multiply-add a row. */
static double layer_weights(const Config *c)
{
    double n = 0;
    for (int i = 0; i < MATRICES; i++)
        n += (double)place(c, 0, i).n * place(c, 0, i).k;
    return n * c->num_hidden_layers;
}

static double head_weights(const Config *c) { return (double)c->vocab_size * c->hidden_size; }

/* Floating-point operations of attention for one row and each key that it sees. */
static double attention_flops(const Config *c)
{
    return 4.0 * c->num_attention_heads * c->head_dim * c->num_hidden_layers;
}

/* Gradients and Adam's moments of what is trained. `recompute` (activation checkpointing) saves
 * memory: the weights are packed while sampling only, and the backward pass makes each layer's
 * activations a second time. */
static void model_trainable(Model *m, bool recompute)
{
    Model *t = trained(m);
    m->recompute = recompute;
    t->partial = xcalloc((size_t)flat_blocks(t), sizeof(double));
    t->grads = floats_new(t->n_grads);
    t->m = floats_new(t->n_params);
    t->v = floats_new(t->n_params);
    if (m->packed_t)
        model_pack(m, 1);
}

#endif
