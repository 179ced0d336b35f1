/* plain_oracle.h: what the tests see of plain.c. plain_oracle.c compiles it as a translation unit
 * of its own, in double, with the shapes below. So it is the oracle of the fast program. */
#ifndef TESTS_PLAIN_ORACLE_H
#define TESTS_PLAIN_ORACLE_H

/* No size is a multiple of a vector, a tile or a block. */
enum {
    PLAIN_VOCAB = 23, PLAIN_D = 20, PLAIN_FF = 27, PLAIN_LAYERS = 2, PLAIN_HEADS = 6,
    PLAIN_KV_HEADS = 2, PLAIN_HD = 6, PLAIN_N = 40, PLAIN_M = 5, PLAIN_GROUPS = 3, PLAIN_SEED = 3,
    PLAIN_END = 5, PLAIN_CELLS = 16
};
#define PLAIN_NORM_EPS 1e-5
#define PLAIN_ROPE_THETA 100
#define PLAIN_TEMPERATURE 0.8
#define PLAIN_LAMBDA 0.5
#define PLAIN_CLIP 0.2
#define PLAIN_BETA1 0.9
#define PLAIN_BETA2 0.99
#define PLAIN_ADAM_EPS 1e-8
#define PLAIN_WEIGHT_DECAY 0.1
#define PLAIN_MAX_NORM 0.5

/* The flat arrays, in the order of model.c's tensors. */
typedef struct {
    int n;
    double *params, *grads, *m, *v;
} PlainModel;

/* What belongs to token t has the index t; the response is token[*prompt] .. token[*length - 1]. */
typedef struct {
    int *token, *prompt, *length;
    double *logprob, *logprob_old, *coef, *h, *p, *phi, *Phi;
} PlainResponse;

typedef struct {
    double *reward, *nu, *nubar, *shaped, *advantage; /* [PLAIN_M] */
    double *S;                                        /* [PLAIN_M, PLAIN_M] */
} PlainGroup;

/* q, y: [n, HEADS, HD], k, v: [n, KV_HEADS, HD], p: [HEADS, N, N] */
typedef struct {
    double *q, *k, *v, *p, *y;
} PlainAttention;

PlainModel plain_model(void);
PlainGroup plain_group(int group);
PlainResponse plain_response(int group, int k);

/* Layers. Attention 0 is that of the forward pass, 1 has its gradients. They lie in group 0. */
PlainAttention plain_attention(int k);
void plain_attention_forward(int n);
void plain_attention_backward(int n);
void plain_softmax(double *p, int n, double scale);
void plain_rmsnorm_forward(double *y, const double *x, const double *w, int n, int cols);
void plain_rmsnorm_backward(double *dx, double *dw, const double *dy, const double *x,
                            const double *w, int n, int cols);

void plain_begin(int group, int index); /* a problem with PLAIN_M empty responses */
void plain_sample(int group, int step);
void plain_predict(int group, int k, int t);
void plain_sequence_feature(int group, int k);
void plain_cosines(int group);
void plain_novelty(int group);
void plain_advantages(int group); /* with cosines and novelty */
double plain_clipped_loss(int group, int tokens);
int plain_forward(void);            /* all responses of all groups; returns their tokens */
double plain_loss(int tokens);      /* of all groups */
void plain_backward(void);
void plain_gradient(int group, int k); /* grads: of log p of the whole response */
void plain_adamw(double lr, int step);

void plain_pose(int group, int index, int held_out); /* a maze */
void plain_show(int group, int k);                  /* a right response */
int plain_verify(int group);
double plain_pass_at_k(int n, int c, int k);
int plain_majority(int group);

#endif
