/* plain.c: ../plain.c in double, with the tests' shapes, behind plain_oracle.h. */
#include "plain_oracle.h"
#include <stdlib.h>

#pragma GCC diagnostic ignored "-Wdouble-promotion" /* plain.c's angles are floats */

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
    return (PlainResponse){s->token, &s->prompt, &s->length, s->logprob, s->logprob_old, s->Phi};
}

void plain_begin(int i, int index)
{
    group(i)->index = index;
    group(i)->m = M;
}

void plain_sample(int i, int step) { sample(&model.params, group(i), step); }
void plain_advantages(int i) { advantages(group(i)); }

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

void plain_adamw(double lr, int step) { adamw(&model, lr, step); }
void plain_ask(int i, int index, int held_out) { ask(group(i), index, M, held_out); }
void plain_show(int i, int k) { show(group(i), &group(i)->response[k]); }
int plain_verify(int i) { return verify(group(i)); }
double plain_pass_at_k(int n, int c, int k) { return pass_at_k(n, c, k); }
int plain_majority(int i) { return majority(group(i)); }
