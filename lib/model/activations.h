/* activations.h: the activations of a layer: what the forward pass leaves for the backward pass,
 * their gradients, and what sampling saves of them for the first pass of training.
 *
 * One table (activations) has the width of each. */
#ifndef ACTIVATIONS_H
#define ACTIVATIONS_H

#include "tensors.h" /* defines: Model, Config */

/* The activations of one layer, a row for each row of the batch. */
typedef struct {
    float *x;              /* the residual stream on entry */
    float *rstd1, *normed1;
    float *qkv, *qk, *rstd_head; /* projections; q and k normed and rotated */
    float *att;
    float *x2;             /* the residual stream after attention */
    float *rstd2, *normed2;
    float *gate_up, *act;
} Layer;

/* Gradients of the loss by these, which the gradients of the weights need. All layers use the same
 * memory, one after the other. */
typedef struct {
    float *normed1;
    float *qkv, *heads;    /* heads: by q and k after the norm, before the rotation */
    float *x2, *normed2;
    float *gate_up;
    float *out;            /* by the residual stream on exit */
} LayerGrad;

/* What a pass keeps for a backward pass: nothing; all of each layer; or each layer's input alone,
 * of which the backward pass makes the rest again, with the same bits. */
typedef enum { KEEP_NOTHING, KEEP_ALL, KEEP_INPUTS } Keep;

/* What sampling saves of each row: nothing; the last layer's output; or of each layer what the
 * products left. A model that samples makes of every row, bit for bit, what its forward pass over
 * the finished sequences would make of it: so that pass may read it instead. The output alone is
 * enough for a pass that goes no further back than the head. */
typedef enum { SAVE_NOTHING, SAVE_OUTPUT, SAVE_ALL } Saving;

/* A row of the table: floats in each row of the batch, the place in Layer and in LayerGrad (-1:
 * none), and whether sampling saves it. The last row is the layer's output. */
enum { ACTIVATIONS = 13 };
typedef struct {
    int width, layer, grad;
    bool saved;
} Activation;

static void activations(const Config *c, Activation t[ACTIVATIONS])
{
#define AT(type, field) (int)offsetof(type, field)
    int d = c->hidden_size, ff = c->intermediate_size, hd = c->head_dim;
    int H = c->num_attention_heads, KV = c->num_key_value_heads;
    const Activation table[ACTIVATIONS] = {
        {d, AT(Layer, x), -1, false},
        {1, AT(Layer, rstd1), -1, false},
        {d, AT(Layer, normed1), AT(LayerGrad, normed1), false},
        {(H + 2 * KV) * hd, AT(Layer, qkv), AT(LayerGrad, qkv), true},
        {(H + KV) * hd, AT(Layer, qk), AT(LayerGrad, heads), false},
        {H + KV, AT(Layer, rstd_head), -1, false},
        {H * hd, AT(Layer, att), -1, true},
        {d, AT(Layer, x2), AT(LayerGrad, x2), true},
        {1, AT(Layer, rstd2), -1, false},
        {d, AT(Layer, normed2), AT(LayerGrad, normed2), false},
        {2 * ff, AT(Layer, gate_up), AT(LayerGrad, gate_up), true},
        {ff, AT(Layer, act), -1, false},
        {d, -1, AT(LayerGrad, out), true},
    };
#undef AT
    memcpy(t, table, sizeof table);
}

static float **field_at(void *of, int offset) { return (float **)((char *)of + offset); }

/* Memory for the activations of `rows` rows, a Layer, or for their gradients, a LayerGrad. */
static void activations_new(Arena *a, const Config *c, int rows, bool grad, void *out)
{
    Activation t[ACTIVATIONS];
    activations(c, t);
    for (int i = 0; i < ACTIVATIONS; i++) {
        int offset = grad ? t[i].grad : t[i].layer;
        if (offset >= 0)
            *field_at(out, offset) = arena_rows(a, rows, t[i].width);
    }
}

static Layer layer_new(Arena *a, const Config *c, int rows)
{
    Layer l;
    activations_new(a, c, rows, false, &l);
    return l;
}

static LayerGrad layer_grad_new(Arena *a, const Config *c, int rows)
{
    LayerGrad g;
    activations_new(a, c, rows, true, &g);
    return g;
}

/* Floats that are saved of a row in one layer, and in all. */
static size_t saved_layer_floats(const Config *c)
{
    Activation t[ACTIVATIONS];
    size_t n = 0;
    activations(c, t);
    for (int i = 0; i < ACTIVATIONS; i++)
        n += t[i].saved ? (size_t)t[i].width : 0;
    return n;
}

static size_t saved_floats(const Config *c, Saving what)
{
    return what == SAVE_ALL ? (size_t)c->num_hidden_layers * saved_layer_floats(c)
                            : what * (size_t)c->hidden_size;
}

/* Moves `width` floats of each row of a sequence between x and what is saved, `offset` floats into
 * each saved row: while sampling there, later back. */
static void move_saved(const Seq *s, bool sampling, float *x, int width, size_t offset)
{
    for (int r = 0; r < s->rows; r++) {
        float *there = s->saved.row + (size_t)r * s->saved.floats + offset;
        float *here = x + (ptrdiff_t)(s->row + r) * width;
        if (sampling)
            row_stream(there, here, width);
        else
            memcpy(here, there, width * sizeof(float));
    }
}

/* The saved activations of one layer, all sequences of a batch; x_out: the layer's output. */
static void saved_layer(const Config *c, int layer, const Batch *b, Layer *l, float *x_out,
                        int threads)
{
    Activation t[ACTIVATIONS];
    activations(c, t);
    PARALLEL_FOR (threads)
    for (int k = 0; k < b->n_seqs; k++) {
        size_t offset = (size_t)layer * saved_layer_floats(c);
        for (int i = 0; i < ACTIVATIONS; i++) {
            if (!t[i].saved)
                continue;
            move_saved(&b->seq[k], b->pool != NULL,
                       t[i].layer < 0 ? x_out : *field_at(l, t[i].layer), t[i].width, offset);
            offset += (size_t)t[i].width;
        }
    }
}

/* The last layer's output. */
static void saved_output(const Config *c, const Batch *b, float *x, int threads)
{
    int d = c->hidden_size;
    PARALLEL_FOR (threads)
    for (int k = 0; k < b->n_seqs; k++)
        move_saved(&b->seq[k], b->pool != NULL, x, d, b->seq[k].saved.floats - (size_t)d);
}

/* To be called when sampling ends, with all threads that took part: from then on any thread may
 * read what was saved. */
static void saving_end(int threads)
{
    PARALLEL_FOR (threads)
    for (int i = 0; i < threads; i++)
        stream_end();
}

#endif
