/* plain.c: ../plain.c in double, with the tests' shapes, behind plain_oracle.h. */
#include "plain_oracle.h"
#include <stdlib.h>

#pragma GCC diagnostic ignored "-Wdouble-promotion" /* plain.c's angles are floats */
#pragma GCC diagnostic ignored "-Wunused-function"  /* in a lesson: its functions are blank */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-const-variable"

#define PLAIN_CONFIG
typedef double real;
enum {
    VOCAB = PLAIN_VOCAB, D = PLAIN_D, FF = PLAIN_FF, LAYERS = PLAIN_LAYERS, HEADS = PLAIN_HEADS,
    KV_HEADS = PLAIN_KV_HEADS, HD = PLAIN_HD, N = PLAIN_N, M = PLAIN_M, GROUPS = PLAIN_GROUPS,
    SEED = PLAIN_SEED, EXAMPLES = 1, SFT_STEPS = 1, RL_STEPS = 1, PROBLEMS = 1, TRIES = 1
};
static const double NORM_EPS = PLAIN_NORM_EPS, ROPE_THETA = PLAIN_ROPE_THETA;
static const double TEMPERATURE = PLAIN_TEMPERATURE, LAMBDA = PLAIN_LAMBDA, CLIP = PLAIN_CLIP;
static const double REWARD_LIMIT = 3, SFT_LR = 0, RL_LR = 0, BETA1 = PLAIN_BETA1;
static const double BETA2 = PLAIN_BETA2, ADAM_EPS = PLAIN_ADAM_EPS, MAX_NORM = PLAIN_MAX_NORM;
static const double WEIGHT_DECAY = PLAIN_WEIGHT_DECAY;

static int plain_main(void) __attribute__((unused));
#define main plain_main
#include "../plain.c"

_Static_assert((int)CELLS == PLAIN_CELLS && (int)END == PLAIN_END, "plain_oracle.h says otherwise");

static Model model;

/* Group i; from the heap, since the tests also run with hardly any memory. */
static Group *group(int i)
{
    static Group *all;
    if (!all && !(all = calloc(GROUPS, sizeof *all)))
        abort();
    return &all[i];
}

PlainModel plain_model(void)
{
    return (PlainModel){N_PARAMS, (real *)&model.params, (real *)&model.grads, (real *)&model.m,
                        (real *)&model.v};
}

PlainGroup plain_group(int i)
{
    Group *g = group(i);
    return (PlainGroup){g->reward, g->nu, g->nubar, g->shaped, g->advantage, g->S[0]};
}

PlainResponse plain_response(int i, int k)
{
    Sequence *s = &group(i)->response[k];
    return (PlainResponse){s->token, &s->prompt, &s->length, s->logprob, s->logprob_old, s->coef,
                           s->h, s->p, s->phi, s->Phi};
}

/* The attention of a block that nothing else needs at the moment. */
static Attention *attention(int k) { return &group(0)->response[k].block[0].a; }

PlainAttention plain_attention(int k)
{
    Attention *a = attention(k);
    return (PlainAttention){a->q, a->k, a->v, a->p, a->y};
}

void plain_attention_forward(int n) { attention_forward(attention(0), n); }
void plain_attention_backward(int n) { attention_backward(attention(1), attention(0), n); }
void plain_softmax(double *p, int n, double scale) { softmax(p, n, scale); }

void plain_rmsnorm_forward(double *y, const double *x, const double *w, int n, int cols)
{
    rmsnorm_forward(y, x, w, n, cols);
}

void plain_rmsnorm_backward(double *dx, double *dw, const double *dy, const double *x,
                            const double *w, int n, int cols)
{
    rmsnorm_backward(dx, dw, dy, x, w, n, cols);
}

void plain_begin(int i, int index)
{
    group(i)->index = index;
    group(i)->m = M;
}

void plain_sample(int i, int step) { sample(&model.params, group(i), step); }
void plain_predict(int i, int k, int t) { predict(&model.params, &group(i)->response[k], t); }
void plain_sequence_feature(int i, int k) { sequence_feature(&group(i)->response[k]); }
void plain_cosines(int i) { cosines(group(i)); }
void plain_novelty(int i) { novelty(group(i)); }
void plain_advantages(int i) { advantages(group(i)); }
double plain_clipped_loss(int i, int tokens) { return clipped_loss(group(i), tokens); }

int plain_forward(void)
{
    int tokens = 0;
    for (int i = 0; i < GROUPS * M; i++)
        tokens += forward(&model.params, &group(i / M)->response[i % M]);
    return tokens;
}

double plain_loss(int tokens)
{
    double loss = 0;
    for (int i = 0; i < GROUPS; i++)
        loss += clipped_loss(group(i), tokens);
    return loss;
}

void plain_backward(void)
{
    for (int i = 0; i < GROUPS * M; i++)
        backward(&model.grads, &group(i / M)->response[i % M], &model.params);
}

void plain_gradient(int i, int k)
{
    Sequence *s = &group(i)->response[k];
    memset(&model.grads, 0, sizeof model.grads);
    forward(&model.params, s);
    for (int t = s->prompt; t < s->length; t++)
        s->coef[t] = 1;
    backward(&model.grads, s, &model.params);
}

void plain_adamw(double lr, int step) { adamw(&model, lr, step); }
void plain_pose(int i, int index, int held_out) { pose(group(i), index, M, held_out); }
void plain_show(int i, int k) { show(group(i), &group(i)->response[k]); }
int plain_verify(int i) { return verify(group(i)); }
double plain_pass_at_k(int n, int c, int k) { return pass_at_k(n, c, k); }
int plain_majority(int i) { return majority(group(i)); }
