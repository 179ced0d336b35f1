/* noise.h: tests of numbers. Where the program promises bits, the oracle is a naive loop that
 * follows the promised order, and memcmp judges. Where it promises a value, the oracle is double
 * precision (a formula, finite differences, or vectors that an independent program made), and an
 * error counts relative to the norm of the whole tensor. Inputs come from `noise`, outputs and
 * working memory start as NaN, and rows lie in heap blocks of their exact size, so that
 * AddressSanitizer sees one step beyond. */
#ifndef TESTS_NOISE_H
#define TESTS_NOISE_H

#include "check.h"

/* A number in [-1, 1) that depends on (seed, i) alone. */
static float noise(uint32_t seed, size_t i)
{
    return (float)(2 * uniform(philox(7, 0, seed, (uint32_t)i, 0, 0)) - 1);
}

static float *noise_new(uint32_t seed, size_t n)
{
    float *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = noise(seed, i);
    return x;
}

static float *nan_new(size_t n)
{
    float *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static float *copy_new(const float *x, size_t n)
{
    return memcpy(xmalloc(n * sizeof *x), x, n * sizeof *x);
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return !memcmp(a, b, n * sizeof *a);
}

static double weighted_sum(const float *x, const float *weight, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)weight[i];
    return sum;
}

/* Working memory full of NaN: what is read before it was written does not stay hidden. */
static Engine nan_engine(int threads, size_t bytes)
{
    Engine e = engine_new(threads, bytes, bytes);
    memset(e.arena.base, 0xFF, e.arena.capacity);
    for (int i = 0; i < threads; i++)
        memset(e.worker[i].base, 0xFF, e.worker[i].capacity);
    return e;
}

/* A model whose every tensor is random: norms are not 1 and biases not 0. */
static Model noisy_model(const Config *c)
{
    Model m = model_new(c);
    model_trainable(&m, false);
    for (int t = 0; t < m.n_tensors; t++) {
        const Tensor *x = &m.tensors[t];
        float scale = t == EMBED ? 1.0f : 0.5f, shift = strstr(x->name, "norm") ? 1.0f : 0.0f;
        for (size_t i = 0; i < x->size; i++)
            at(&m, m.params, t)[i] = scale * noise((uint32_t)t, i) + shift;
    }
    rope_reserve(&m, 192);
    return m;
}

/* A small one. No size is a multiple of a vector, a tile or a block. */
static Model tiny_model(ModelType type, bool tied, int vocab)
{
    Config c = {.model_type = type, .vocab_size = vocab, .hidden_size = 20,
                .intermediate_size = 27, .num_hidden_layers = 2, .num_attention_heads = 6,
                .num_key_value_heads = 2, .head_dim = 6, .max_position_embeddings = 256,
                .rms_norm_eps = 1e-5, .rope_theta = 100, .tie_word_embeddings = tied,
                .bos_token_id = -1};
    return noisy_model(&c);
}

/* A prompt and the responses that follow it. */
typedef struct {
    int prompt, n, length[4];
} Tree;

static void tree_tokens(int *tokens, int n, int vocab, uint32_t seed, int response)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int)below(philox(11, 0, seed, (uint32_t)response, (uint32_t)i, 0),
                               (uint32_t)vocab);
}

/* Appends a tree, packed as for training: the prompt once, and of each response all but its last
 * token; the first tokens are all predicted by the prompt's last row. `seed` makes its tokens,
 * wherever it stands. */
static void add_tree(Batch *b, const Tree *t, int vocab, uint32_t seed)
{
    int tokens[128];
    tree_tokens(tokens, t->prompt, vocab, seed, 0);
    int root = batch_seq(b, tokens, t->prompt, 0, -1), last = b->n_rows - 1;
    for (int k = 0; k < t->n; k++) {
        int row = b->n_rows;
        tree_tokens(tokens, t->length[k], vocab, seed, k + 1);
        if (t->length[k] > 1)
            batch_seq(b, tokens, t->length[k] - 1, t->prompt, root);
        for (int i = 0; i < t->length[k]; i++)
            batch_target(b, i ? row + i - 1 : last, tokens[i]);
    }
}

#endif
