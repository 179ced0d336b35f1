/* plain.c, chapter 0: a transformer and its training by gradient-guided reinforcement learning.
 *
 *   cc -O2 plain.c -lm && ./a.out          about two minutes on one core
 *
 * A small language model learns to solve mazes: first from examples (supervised learning), then
 * from its own attempts (G2RL, arXiv 2512.15687; Eq N is the paper's number). Plain loops, to be
 * read from top to bottom; each backward pass stands directly below its forward pass. It is slow
 * and incomplete: one whole sequence at a time, no threads, batching or key-value cache, no
 * reference model, no KL term (beta = 0 in Eq 4). g2rl.c has all that; tests compare the two.
 *
 * A shape [n, d] means n rows of d numbers: x[t * d + i]. dx is short for dL/dx, L being the loss.
 * Backward functions add to the gradients that they are given. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ================================================================ 1. numbers, tensors */
/* Everything that can be chosen. (The tests define their own, with double as `real`.) */
#ifndef PLAIN_CONFIG
typedef float real;
enum { VOCAB = 6, D = 32, FF = 96, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HD = 8 }; /* the model */
enum { N = 33, M = 16, GROUPS = 8 }; /* most tokens; responses of a group; groups of a step */
enum { SEED = 1, EXAMPLES = 32, SFT_STEPS = 1500, RL_STEPS = 200, PROBLEMS = 500, TRIES = 4 };
static const double NORM_EPS = 1e-6, ROPE_THETA = 10000, TEMPERATURE = 1, LAMBDA = 0.5;
static const double REWARD_LIMIT = 3, CLIP = 0.2, MAX_NORM = 1, WEIGHT_DECAY = 0;
static const double SFT_LR = 3e-3, RL_LR = 2e-4, BETA1 = 0.9, BETA2 = 0.99, ADAM_EPS = 1e-8;
#endif
enum { Q = HEADS * HD, KV = KV_HEADS * HD }; /* widths of all queries and of all keys */
enum { SIZE = 4, CELLS = SIZE * SIZE, LOOPS = 2 }; /* of a maze */
enum { STREAM_INIT = 1, STREAM_DATA, STREAM_SAMPLE, STREAM_SPLIT }; /* of random numbers */

/* A random number in [0, 1): Philox 4x32-10, a hash of the counter a, b, c, d. It has no state. */
static double uniform(uint32_t stream, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t k0 = SEED, k1 = stream;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53 * a, p1 = (uint64_t)0xCD9E8D57 * c;
        a = (uint32_t)(p1 >> 32) ^ b ^ k0;
        c = (uint32_t)(p0 >> 32) ^ d ^ k1;
        b = (uint32_t)p1, d = (uint32_t)p0;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    return (((uint64_t)a << 32 | b) >> 11) * 0x1p-53;
}

static real dot(const real *a, const real *b, int n)
{
    real sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* y += a x */
static void add_scaled(real *y, real a, const real *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += a * x[i];
}

typedef struct {
    real norm1[D], wq[Q * D], wk[KV * D], wv[KV * D], qnorm[HD], knorm[HD], wo[D * Q];
    real norm2[D], gate[FF * D], up[FF * D], down[D * FF];
} Layer; /* a matrix W lies row by row: W_ij is W[i * cols + j] */

/* All tensors of the model. Parameters, gradients and AdamW's m and v are one such struct each. */
typedef struct {
    real embed[VOCAB * D];
    Layer layer[LAYERS];
    real norm[D], head[VOCAB * D];
} Tensors;

typedef struct { Tensors params, grads, m, v; } Model;
enum { N_PARAMS = sizeof(Tensors) / sizeof(real) }; /* of Tensors seen as one flat array */

/* Matrices start as small random numbers, the weights of norms as 1. */
static void model_init(Model *model)
{
    Tensors *w = &model->params;
    for (int i = 0; i < N_PARAMS; i++)
        ((real *)w)[i] = 0.3 * uniform(STREAM_INIT, i, 0, 0, 0) - 0.15;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < D; i++)
            w->layer[l].norm1[i] = w->layer[l].norm2[i] = w->norm[i] = 1;
        for (int i = 0; i < HD; i++)
            w->layer[l].qnorm[i] = w->layer[l].knorm[i] = 1;
    }
}

/* ================================================================ 2. layers */
/* Linear: y_ti = sum_j W_ij x_tj.                  y: [n, rows], x: [n, cols], W: [rows, cols] */
static void linear_forward(real *y, const real *x, const real *W, int n, int rows, int cols)
{
    for (int t = 0; t < n; t++)
        for (int i = 0; i < rows; i++)
            y[t * rows + i] = dot(W + i * cols, x + t * cols, cols);
}

/* Forward: y_ti = sum_j W_ij x_tj. So dx_tj = sum_i dy_ti W_ij, and dW_ij = sum_t dy_ti x_tj. */
static void linear_backward(real *dx, real *dW, const real *dy, const real *x, const real *W,
                            int n, int rows, int cols)
{
    for (int t = 0; t < n; t++)
        for (int i = 0; i < rows; i++) {
            add_scaled(dx + t * cols, dy[t * rows + i], W + i * cols, cols);
            add_scaled(dW + i * cols, dy[t * rows + i], x + t * cols, cols);
        }
}

/* RMSNorm: y_i = s x_i w_i, s = 1 / sqrt(mean_j x_j^2 + eps), row by row.    y, x: [n, cols] */
static void rmsnorm_forward(real *y, const real *x, const real *w, int n, int cols)
{
    for (int t = 0; t < n; t++) {
        const real *xt = x + t * cols;
        real s = 1 / sqrt(dot(xt, xt, cols) / cols + NORM_EPS);
        for (int i = 0; i < cols; i++)
            y[t * cols + i] = s * xt[i] * w[i];
    }
}

/* Forward: y_i = s x_i w_i, where s depends on every x_j: ds/dx_j = -s^3 x_j / cols. So
 * dw_i = dy_i s x_i, and dx_i = s dy_i w_i - (s^3 x_i / cols) sum_j dy_j w_j x_j. */
static void rmsnorm_backward(real *dx, real *dw, const real *dy, const real *x, const real *w,
                             int n, int cols)
{
    for (int t = 0; t < n; t++) {
        const real *xt = x + t * cols, *dyt = dy + t * cols;
        real s = 1 / sqrt(dot(xt, xt, cols) / cols + NORM_EPS), sum = 0;
        for (int j = 0; j < cols; j++)
            sum += dyt[j] * w[j] * xt[j];
        for (int i = 0; i < cols; i++) {
            dw[i] += dyt[i] * s * xt[i];
            dx[t * cols + i] += s * dyt[i] * w[i] - s * s * s * xt[i] / cols * sum;
        }
    }
}

/* Rotary positions: at position t, the pair (x_i, x_{i + HD/2}) of a head turns by t theta^(-2i/HD)
 * radians, so <query, key> depends on their distance, not on their places. `sense` is 1 forward, -1
 * backward: a gradient turns back. Angles are floats, as in published models. x: [n, heads, HD] */
static void rope(real *x, int n, int heads, int sense)
{
    for (int t = 0; t < n; t++)
        for (int i = 0; i < HD / 2; i++) {
            float angle = (float)t * (1.0f / (float)pow(ROPE_THETA, 2.0f * (float)i / (float)HD));
            real cosine = cos(angle), sine = sense * sin(angle);
            for (int h = 0; h < heads; h++) {
                real *a = x + (t * heads + h) * HD + i, *b = a + HD / 2, old = *a;
                *a = *a * cosine - *b * sine;
                *b = *b * cosine + old * sine;
            }
        }
}

/* Softmax, z = old p: p_i = e^(scale z_i) / sum_j e^(scale z_j). Less max z, so no overflow. */
static void softmax(real *p, int n, double scale)
{
    real largest = p[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = p[i] > largest ? p[i] : largest;
    for (int i = 0; i < n; i++)
        sum += p[i] = exp(scale * (p[i] - largest));
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

/* Causal attention with grouped queries. At position t, query head h reads key head g:
 *     z_u = <q_th, k_ug> / sqrt(HD) for u <= t,   p = softmax(z),   y_th = sum_u p_u v_ug */
typedef struct {
    real q[N * Q], k[N * KV], v[N * KV]; /* [n, HEADS, HD]; k and v: [n, KV_HEADS, HD] */
    real p[HEADS * N * N], y[N * Q];     /* [HEADS, N, N]; [n, HEADS, HD] */
} Attention; /* or the gradients of all these */
static void attention_forward(Attention *a, int n)
{
    memset(a->y, 0, sizeof a->y);
    for (int h = 0; h < HEADS; h++)
        for (int t = 0; t < n; t++) {
            int row = t * Q + h * HD, g = h / (HEADS / KV_HEADS) * HD;
            real *p = a->p + (h * N + t) * N;
            for (int u = 0; u <= t; u++)
                p[u] = dot(a->q + row, a->k + u * KV + g, HD);
            softmax(p, t + 1, 1 / sqrt(HD));
            for (int u = 0; u <= t; u++)
                add_scaled(a->y + row, p[u], a->v + u * KV + g, HD);
        }
}

/* From da->y to da->q, da->k and da->v.
 * Forward: y = sum_u p_u v_u.         So dv_u = p_u dy, and dp_u = <dy, v_u>.
 * Forward: p = softmax(z).            So dz_u = p_u (dp_u - sum_j p_j dp_j).
 * Forward: z_u = <q, k_u> / sqrt(HD). So dq = sum_u e_u k_u, dk_u = e_u q, e = dz / sqrt(HD). */
static void attention_backward(Attention *da, const Attention *a, int n)
{
    for (int h = 0; h < HEADS; h++)
        for (int t = 0; t < n; t++) {
            int row = t * Q + h * HD, g = h / (HEADS / KV_HEADS) * HD;
            const real *p = a->p + (h * N + t) * N, *dy = da->y + row;
            real dp[N], mean = 0;
            for (int u = 0; u <= t; u++) {
                add_scaled(da->v + u * KV + g, p[u], dy, HD);
                dp[u] = dot(dy, a->v + u * KV + g, HD);
                mean += p[u] * dp[u];
            }
            for (int u = 0; u <= t; u++) {
                real e = p[u] * (dp[u] - mean) / sqrt(HD);
                add_scaled(da->q + row, e, a->k + u * KV + g, HD);
                add_scaled(da->k + u * KV + g, e, a->q + row, HD);
            }
        }
}

/* SwiGLU: y = a s u, s = 1 / (1 + e^-a).                          y, a (gate), u (up): [n] */
static void swiglu_forward(real *y, const real *a, const real *u, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = a[i] * u[i] / (1 + exp(-a[i]));
}

/* Forward: y = a s u, and ds/da = s (1 - s). So du = dy a s, and da = dy u s (1 + a (1 - s)). */
static void swiglu_backward(real *da, real *du, const real *dy, const real *a, const real *u, int n)
{
    for (int i = 0; i < n; i++) {
        real s = 1 / (1 + exp(-a[i]));
        du[i] += dy[i] * a[i] * s;
        da[i] += dy[i] * u[i] * s * (1 + a[i] * (1 - s));
    }
}

/* A block's activations for up to N tokens, saved for the backward pass; or their gradients. */
typedef struct {
    real x[N * D], xn[N * D];                   /* the input; normed */
    real q[N * Q], k[N * KV];                   /* queries and keys, before norm and rotation */
    Attention a;                                /* the same after both; values; a.y */
    real y[N * D], yn[N * D];                   /* x + attention; normed */
    real gate[N * FF], up[N * FF], act[N * FF]; /* inside SwiGLU */
} Block;

/* out = y + SwiGLU(norm(y)), y = x + attention(norm(x)).                 out, b->x: [n, D] */
static void block_forward(real *out, Block *b, const Layer *w, int n)
{
    rmsnorm_forward(b->xn, b->x, w->norm1, n, D);
    linear_forward(b->q, b->xn, w->wq, n, Q, D);
    linear_forward(b->k, b->xn, w->wk, n, KV, D);
    linear_forward(b->a.v, b->xn, w->wv, n, KV, D);
    rmsnorm_forward(b->a.q, b->q, w->qnorm, n * HEADS, HD);
    rmsnorm_forward(b->a.k, b->k, w->knorm, n * KV_HEADS, HD);
    rope(b->a.q, n, HEADS, 1);
    rope(b->a.k, n, KV_HEADS, 1);
    attention_forward(&b->a, n);
    linear_forward(b->y, b->a.y, w->wo, n, D, Q);
    add_scaled(b->y, 1, b->x, n * D);
    rmsnorm_forward(b->yn, b->y, w->norm2, n, D);
    linear_forward(b->gate, b->yn, w->gate, n, FF, D);
    linear_forward(b->up, b->yn, w->up, n, FF, D);
    swiglu_forward(b->act, b->gate, b->up, n * FF);
    linear_forward(out, b->act, w->down, n, D, FF);
    add_scaled(out, 1, b->y, n * D);
}

/* The same, from last to first. dx: dL/dout, then dL/dx. Both terms of a sum get its gradient. */
static void block_backward(real *dx, Layer *dw, const Block *b, const Layer *w, int n)
{
    Block db = {0};
    add_scaled(db.y, 1, dx, n * D);
    linear_backward(db.act, dw->down, dx, b->act, w->down, n, D, FF);
    swiglu_backward(db.gate, db.up, db.act, b->gate, b->up, n * FF);
    linear_backward(db.yn, dw->up, db.up, b->yn, w->up, n, FF, D);
    linear_backward(db.yn, dw->gate, db.gate, b->yn, w->gate, n, FF, D);
    rmsnorm_backward(db.y, dw->norm2, db.yn, b->y, w->norm2, n, D);
    add_scaled(db.x, 1, db.y, n * D);
    linear_backward(db.a.y, dw->wo, db.y, b->a.y, w->wo, n, D, Q);
    attention_backward(&db.a, &b->a, n);
    rope(db.a.k, n, KV_HEADS, -1);
    rope(db.a.q, n, HEADS, -1);
    rmsnorm_backward(db.k, dw->knorm, db.a.k, b->k, w->knorm, n * KV_HEADS, HD);
    rmsnorm_backward(db.q, dw->qnorm, db.a.q, b->q, w->qnorm, n * HEADS, HD);
    linear_backward(db.xn, dw->wv, db.a.v, b->xn, w->wv, n, KV, D);
    linear_backward(db.xn, dw->wk, db.k, b->xn, w->wk, n, KV, D);
    linear_backward(db.xn, dw->wq, db.q, b->xn, w->wq, n, Q, D);
    rmsnorm_backward(db.x, dw->norm1, db.xn, b->x, w->norm1, n, D);
    memcpy(dx, db.x, sizeof(real) * n * D);
}

/* ================================================================ 3. the model */
/* A prompt, one response to it, and the model's numbers for them. Those of token t have the index
 * t, but the hidden state that predicts token t is h[t - 1]. */
typedef struct {
    int token[N], prompt, length;             /* token[prompt] .. token[length - 1]: the response */
    Block block[LAYERS];
    real x[N * D], h[N * D];                  /* what leaves the last block; normed */
    real p[N * VOCAB], phi[N * D], Phi[D];    /* policy; feature; its mean */
    real logprob[N], logprob_old[N], coef[N]; /* now; when sampled; dL/dlogprob */
} Sequence;

/* Hidden states of the first n tokens: embedding, blocks, last norm. */
static void hidden_forward(const Tensors *w, Sequence *s, int n)
{
    for (int t = 0; t < n; t++)
        memcpy(s->block[0].x + t * D, w->embed + s->token[t] * D, sizeof(real) * D);
    for (int l = 0; l < LAYERS; l++)
        block_forward(l + 1 < LAYERS ? s->block[l + 1].x : s->x, &s->block[l], &w->layer[l], n);
    rmsnorm_forward(s->h, s->x, w->norm, n, D);
}

/* The policy, Eq 5: p_t = softmax(W h_{t-1} / T) is the distribution of token t. */
static void predict(const Tensors *w, Sequence *s, int t)
{
    linear_forward(s->p + t * VOCAB, s->h + (t - 1) * D, w->head, 1, VOCAB, D);
    softmax(s->p + t * VOCAB, VOCAB, 1 / TEMPERATURE);
}

/* Eq 6-7, 14, the feature of token t, y: the direction in which h makes y likelier.
 *     phi = T dlog p(y) / dh = W[y] - sum_v p_v W[v] */
static void token_feature(const Tensors *w, Sequence *s, int t)
{
    real *phi = s->phi + t * D;
    memcpy(phi, w->head + s->token[t] * D, sizeof(real) * D);
    for (int v = 0; v < VOCAB; v++)
        add_scaled(phi, -s->p[t * VOCAB + v], w->head + v * D, D);
}

/* Eq 8, the feature of the response: Phi is the mean of phi. */
static void sequence_feature(Sequence *s)
{
    memset(s->Phi, 0, sizeof s->Phi);
    for (int t = s->prompt; t < s->length; t++)
        add_scaled(s->Phi, 1.0 / (s->length - s->prompt + 1e-8), s->phi + t * D, D);
}

/* Log-probs and features of a response. Returns its number of tokens. */
static int forward(const Tensors *w, Sequence *s)
{
    hidden_forward(w, s, s->length - 1);
    for (int t = s->prompt; t < s->length; t++) {
        predict(w, s, t);
        s->logprob[t] = log(s->p[t * VOCAB + s->token[t]]);
        token_feature(w, s, t);
    }
    sequence_feature(s);
    return s->length - s->prompt;
}

/* From s->coef to the gradients dw. The loss sees the model through its log-probs alone: with c_t =
 * dL/dlog p_t (coef), dh = c_t phi_t / T. Every backward pass needs phi: as a feature it is free.
 * Forward: log p(y) = z_y/T - log sum_v e^(z_v/T), z = W h. So dW[v] = c_t (1[v = y] - p_v) h/T.
 * Then the lines of hidden_forward, from last to first. */
static void backward(Tensors *dw, const Sequence *s, const Tensors *w)
{
    int n = s->length - 1;
    real dh[N * D] = {0}, dx[N * D] = {0};
    for (int t = s->prompt; t < s->length; t++) {
        real c = s->coef[t] / TEMPERATURE;
        const real *h = s->h + (t - 1) * D, *p = s->p + t * VOCAB;
        add_scaled(dh + (t - 1) * D, c, s->phi + t * D, D);
        for (int v = 0; v < VOCAB; v++)
            add_scaled(dw->head + v * D, c * ((v == s->token[t]) - p[v]), h, D);
    }
    rmsnorm_backward(dx, dw->norm, dh, s->x, w->norm, n, D);
    for (int l = LAYERS - 1; l >= 0; l--)
        block_backward(dx, &dw->layer[l], &s->block[l], &w->layer[l], n);
    for (int t = 0; t < n; t++)
        add_scaled(dw->embed + s->token[t] * D, 1, dx + t * D, D);
}

/* ================================================================ 4. the method */
/* A problem, m responses to it, and the numbers from their features to their advantages. */
typedef struct {
    int index, maze[CELLS], m;
    uint32_t dice;                  /* counter of the problem's next random number */
    Sequence response[M];
    double reward[M], S[M][M];      /* +1 right, -1 wrong; cosines, Eq 9 */
    double nu[M], nubar[M];         /* exploration score, Eq 11; rescaled to 0 .. 1 */
    double shaped[M], advantage[M]; /* r~, Eq 12-13; A, Eq 2 */
} Group;

/* Eq 9: S_ij = <Phi_i, Phi_j> / (|Phi_i| |Phi_j|): do two responses push the model the same way?
 * Where the model was certain of every token, Phi is 0, and S, too. */
static void cosines(Group *g)
{
    for (int i = 0; i < g->m; i++)
        for (int j = 0; j < g->m; j++) {
            const real *a = g->response[i].Phi, *b = g->response[j].Phi;
            double norms = sqrt(dot(a, a, D)) * sqrt(dot(b, b, D));
            g->S[i][j] = norms < 1e-24 ? 0 : dot(a, b, D) / norms;
        }
}

/* Eq 10: w_ij = e^r_j / sum_{k != i} e^r_k: right responses count more.
 * Eq 11: nu_i = max(1 - sum_{j != i} w_ij S_ij^2, 0): how much of i's direction the others lack; 0
 * where Phi_i = 0. nubar: nu rescaled to 0 .. 1 within the group; 0 where all are equal. */
static void novelty(Group *g)
{
    double low = 1, high = 0;
    for (int i = 0; i < g->m; i++) {
        double sum = 0, repeated = 0;
        for (int j = 0; j < g->m; j++) {
            double weight = j == i ? 0 : exp(g->reward[j]);
            repeated += weight * g->S[i][j] * g->S[i][j];
            sum += weight;
        }
        g->nu[i] = g->S[i][i] == 0 ? 0 : fmax(1 - repeated / sum, 0);
        low = fmin(low, g->nu[i]), high = fmax(high, g->nu[i]);
    }
    for (int i = 0; i < g->m; i++)
        g->nubar[i] = high - low < 1e-6 ? 0 : (g->nu[i] - low) / (high - low);
}

/* From features and rewards to advantages: cosines and novelty, then
 * Eq 12-13: r~ = r (1 + lambda r nubar), clipped to -REWARD_LIMIT .. REWARD_LIMIT.
 * Eq 2: A_i = (r~_i - mean) / (std + 1e-6) within the group; 0 where all r~ are equal. */
static void advantages(Group *g)
{
    double mean = 0, variance = 0;
    cosines(g);
    novelty(g);
    for (int i = 0; i < g->m; i++) {
        double r = g->reward[i], shaped = r * (1 + LAMBDA * r * g->nubar[i]);
        g->shaped[i] = fmax(-REWARD_LIMIT, fmin(REWARD_LIMIT, shaped));
        mean += g->shaped[i] / g->m;
    }
    for (int i = 0; i < g->m; i++)
        variance += (g->shaped[i] - mean) * (g->shaped[i] - mean) / g->m;
    double std = sqrt(variance);
    for (int i = 0; i < g->m; i++)
        g->advantage[i] = std < 1e-6 ? 0 : (g->shaped[i] - mean) / (std + 1e-6);
}

/* ================================================================ 5. the loss, AdamW */
/* Eq 3-4: L = -mean over the tokens of all groups of min(rho A, clip(rho) A), rho = p / p_old, clip
 * to 1 - CLIP .. 1 + CLIP. drho/dlog p = rho, so coef = -rho A / tokens, or 0 where the clipped
 * term, a constant, is smaller. On fresh samples rho is 1. Returns this group's part of L. */
static double clipped_loss(Group *g, int tokens)
{
    double loss = 0;
    for (Sequence *s = g->response; s < g->response + g->m; s++)
        for (int t = s->prompt; t < s->length; t++) {
            double A = g->advantage[s - g->response];
            double rho = exp(s->logprob[t] - s->logprob_old[t]);
            double clipped = fmax(1 - CLIP, fmin(1 + CLIP, rho));
            loss -= fmin(rho * A, clipped * A) / tokens;
            s->coef[t] = rho * A <= clipped * A ? -rho * A / tokens : 0;
        }
    return loss;
}

/* Update number `step`, from 1 on. With g the gradient, scaled to a norm of at most MAX_NORM:
 *     m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
 *     w = w - lr decay w - lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
 * m and v are running means of g and g^2 that begin at 0; the divisions correct for that. */
static void adamw(Model *model, double lr, int step)
{
    real *w = (real *)&model->params, *grad = (real *)&model->grads;
    real *m = (real *)&model->m, *v = (real *)&model->v;
    double norm = sqrt(dot(grad, grad, N_PARAMS));
    double scale = norm > MAX_NORM ? MAX_NORM / (norm + 1e-6) : 1;
    for (int i = 0; i < N_PARAMS; i++) {
        double g = scale * grad[i];
        m[i] = BETA1 * m[i] + (1 - BETA1) * g;
        v[i] = BETA2 * v[i] + (1 - BETA2) * g * g;
        double mean = m[i] / (1 - pow(BETA1, step)), square = v[i] / (1 - pow(BETA2, step));
        w[i] -= lr * (WEIGHT_DECAY * w[i] + mean / (sqrt(square) + ADAM_EPS));
        grad[i] = 0;
    }
}

/* ================================================================ 6. the task */
/* A maze of SIZE x SIZE cells, from the top left to the bottom right. The prompt has a digit for
 * each cell (1: open to the east, 2: to the south, 3: both, 0: neither), then ":". The response has
 * a digit for each move (0 east, 1 south, 2 west, 3 north), then END. A digit is one token. */
enum { COLON = 4, END };

/* The cell that a move leads to; -1 beyond the border, or if `maze` is given, through a wall. */
static int enter(const int *maze, int cell, int move)
{
    int x = cell % SIZE + (move == 0) - (move == 2), y = cell / SIZE + (move == 1) - (move == 3);
    int to = y * SIZE + x;
    if (x < 0 || x == SIZE || y < 0 || y == SIZE)
        return -1;
    return !maze || maze[move < 2 ? cell : to] & 1 << move % 2 ? to : -1;
}

/* Rewards the responses. Right: no move through a wall or into a cell twice, the last one into the
 * goal, then END. Returns how many are right. */
static int verify(Group *g)
{
    int right = 0;
    for (int k = 0; k < g->m; k++) {
        int *y = g->response[k].token + CELLS + 1, entered[CELLS] = {1}, cell = 0;
        for (; cell >= 0 && *y < COLON; y++) {
            cell = enter(g->maze, cell, *y);
            cell = cell >= 0 && entered[cell]++ ? -1 : cell;
        }
        g->reward[k] = cell == CELLS - 1 && *y == END ? 1 : -1;
        right += g->reward[k] > 0;
    }
    return right;
}

static int roll(Group *g, int n) { return n * uniform(STREAM_DATA, g->dice++, 0, 0, 0); } /* < n */

/* Prim's algorithm: random walls between the tree and the rest are opened until the tree has all
 * cells; then LOOPS more. A fifth of all mazes, by a hash of their digits, is held out. */
static void draw_maze(Group *g, int held_out)
{
    uint32_t digits = 0;
    int inside[CELLS] = {1};
    memset(g->maze, 0, sizeof g->maze);
    for (int opened = 0; opened < CELLS - 1 + LOOPS;) {
        int cell = roll(g, CELLS), side = roll(g, 2), bit = 1 << side, to = enter(NULL, cell, side);
        if (to < 0 || g->maze[cell] & bit || (opened < CELLS - 1 && inside[cell] == inside[to]))
            continue;
        g->maze[cell] |= bit;
        inside[cell] = inside[to] = 1;
        opened++;
    }
    for (int i = 0; i < CELLS; i++)
        digits = digits << 2 | g->maze[i];
    if ((uniform(STREAM_SPLIT, digits, 0, 0, 0) < 0.2) != held_out)
        draw_maze(g, held_out);
}

/* Draws problem `index` and makes it the prompt of m responses to come. */
static void pose(Group *g, int index, int m, int held_out)
{
    g->index = index;
    g->m = m;
    g->dice = index << 12;
    draw_maze(g, held_out);
    for (Sequence *s = g->response; s < g->response + m; s++) {
        memcpy(s->token, g->maze, sizeof g->maze);
        s->token[CELLS] = COLON;
        s->length = s->prompt = CELLS + 1;
    }
}

/* An example: random moves into cells not entered yet; started again if they miss the goal. */
static void show(Group *g, Sequence *s)
{
    int entered[CELLS] = {1}, cell = 0;
    s->length = s->prompt;
    for (int tries = 0; tries < 64 && cell != CELLS - 1; tries++) {
        int move = roll(g, 4), to = enter(g->maze, cell, move);
        if (to < 0 || entered[to]++)
            continue;
        s->token[s->length++] = move;
        cell = to;
    }
    s->token[s->length++] = END;
    if (cell != CELLS - 1)
        show(g, s);
}

/* ================================================================ 7. sampling and training */
/* Samples the responses from the policy, token by token. */
static void sample(const Tensors *w, Group *g, int step)
{
    for (int k = 0; k < g->m; k++) {
        Sequence *s = &g->response[k];
        do {
            int t = s->length++, y = 0;
            hidden_forward(w, s, t);
            predict(w, s, t);
            const real *p = s->p + t * VOCAB;
            double u = uniform(STREAM_SAMPLE, step, g->index, k, t - s->prompt), sum = p[0];
            while (sum <= u && y < VOCAB - 1)
                sum += p[++y];
            s->token[t] = y;
            s->logprob_old[t] = log(p[y]);
        } while (s->token[s->length - 1] != END && s->length < N);
    }
}

/* The chance that at least one of k responses, drawn from n of which c are right, is right. */
static double pass_at_k(int n, int c, int k)
{
    double all_wrong = 1;
    for (int i = 0; i < k; i++)
        all_wrong *= fmax(n - c - i, 0) / (n - i);
    return 1 - all_wrong;
}

/* Is the most frequent response right? Of tied ones, the one sampled first: a fair draw. */
static int majority(const Group *g)
{
    int most = 0, winner = 0;
    for (int i = 0; i < g->m; i++) {
        const Sequence *a = &g->response[i], *b = g->response;
        int votes = 0;
        for (; b < g->response + g->m; b++)
            votes += a->length == b->length && !memcmp(a->token, b->token, sizeof(int) * a->length);
        if (votes > most)
            most = votes, winner = i;
    }
    return g->reward[winner] > 0;
}

/* Prints and returns pass@1 on held-out problems. */
static double evaluate(const Tensors *w, Group *g, const char *name)
{
    double one = 0, any = 0, vote = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        pose(g, i, TRIES, 1);
        sample(w, g, 0);
        int right = verify(g);
        one += pass_at_k(TRIES, right, 1) / PROBLEMS;
        any += pass_at_k(TRIES, right, TRIES) / PROBLEMS;
        vote += (double)majority(g) / PROBLEMS;
    }
    printf("%s: pass@1 %.3f, pass@%d %.3f, maj@%d %.3f\n", name, one, TRIES, any, TRIES, vote);
    return one;
}

/* A step on EXAMPLES right responses: L = -mean of their log p; coef = -1 / EXAMPLES. Returns L. */
static double supervised_step(Model *model, Group *g, double lr, int step)
{
    double loss = 0;
    for (int i = 0; i < EXAMPLES; i++) {
        Sequence *s = g->response;
        pose(g, step * EXAMPLES + i, 1, 0);
        show(g, s);
        forward(&model->params, s);
        for (int t = s->prompt; t < s->length; t++) {
            loss -= s->logprob[t] / EXAMPLES;
            s->coef[t] = -1.0 / EXAMPLES;
        }
        backward(&model->grads, s, &model->params);
    }
    adamw(model, lr, step);
    return loss;
}

/* A step of G2RL. Returns the share of right responses. */
static double train_step(Model *model, Group *batch, double lr, int step)
{
    Tensors *w = &model->params, *dw = &model->grads;
    int tokens = 0, right = 0;
    for (Group *g = batch; g < batch + GROUPS; g++) {
        pose(g, step * GROUPS + (int)(g - batch), M, 0);
        sample(w, g, step);                          /* 1. responses */
        right += verify(g);                          /* 2. rewards */
        for (int k = 0; k < M; k++)
            tokens += forward(w, &g->response[k]);   /* 3. log-probs and features */
        advantages(g);                               /* 4. what each response is worth */
    }
    for (Group *g = batch; g < batch + GROUPS; g++) {
        clipped_loss(g, tokens);                     /* 5. dL/dlogprob of each token */
        for (int k = 0; k < M; k++)
            backward(dw, &g->response[k], w);        /* 6. dL/dw of each parameter */
    }
    adamw(model, lr, step);                          /* 7. the update */
    return (double)right / (GROUPS * M);
}

int main(void)
{
    static Model model;
    static Group batch[GROUPS];
    double mean = 0;
    setbuf(stdout, NULL);
    model_init(&model);
    for (int step = 1; step <= SFT_STEPS; step++) {
        double loss = supervised_step(&model, batch, SFT_LR * (SFT_STEPS - step) / SFT_STEPS, step);
        if (step % 100 == 0)
            printf("supervised step %4d: loss %.3f\n", step, loss);
    }
    double base = evaluate(&model.params, batch, "base");
    memset(&model.m, 0, sizeof model.m);
    memset(&model.v, 0, sizeof model.v);
    for (int step = 1; step <= RL_STEPS; step++) {
        mean += train_step(&model, batch, RL_LR, step) / 20;
        if (step % 20)
            continue;
        printf("G2RL step %3d: pass@1 %.3f %*c\n", step, mean, (int)(60 * mean), '*');
        mean = 0;
    }
    double trained = evaluate(&model.params, batch, "g2rl");
    printf("base pass@1 %.3f\ng2rl pass@1 %.3f\n", base, trained);
    return 0;
}
