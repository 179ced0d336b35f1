/* g2rl.c: gradient-guided reinforcement learning for small language models, in plain C.
 *
 * The method is that of "Can LLMs Guide Their Own Exploration? Gradient-Guided Reinforcement
 * Learning for LLM Reasoning" (Liang et al., arXiv 2512.15687); equation numbers are the paper's.
 * One step of training:
 *
 *   1. sample    m responses to each of a few prompts, exactly from the policy at temperature T
 *   2. verify    reward +1 (right) or -1 (wrong) for each response
 *   3. feature   phi_t: how each token would move the model's last hidden state      Eq 6-7, 14
 *                Phi_i: one direction per response                                   Eq 8
 *   4. novelty   nu_i: how little a response's direction repeats its group's         Eq 9-11
 *   5. shape     r~ = r (1 + lambda nubar), clipped                                  Eq 12-13
 *   6. advantage A = (r~ - mean) / std within the group                              Eq 2
 *   7. update    PPO's clipped objective with a KL penalty, AdamW                    Eq 3-4
 *
 * How data flows. The Group, a prompt and its m responses, is the unit of everything: sampling
 * fills it, rewards and features annotate it, the forward and backward pass run over it packed,
 * and the ledger prints it. The forward pass keeps phi; phi makes the group's advantages; and the
 * same phi, scaled by them, is what the backward pass starts from (METHOD I1), so the features
 * cost nothing.
 *
 * Where we differ from the paper, or it from itself:
 *   1. Eq 12 as printed punishes a wrong and novel response LESS; the text of section 2.4 says
 *      more. Default --shaping text (r~ = r (1 + lambda nubar)); --shaping literal is Eq 12.
 *   2. lambda is never given: 1. "Right" means reward above 0.
 *   3. All nu of a group equal (within 1e-6): nubar = 0. The same floor for the std of Eq 2.
 *   4. A group that is all right or all wrong has no signal under GRPO, and nothing but novelty
 *      under G2RL, blown up to full size by Eq 2. --dead-groups full is the paper; zero skips them.
 *   5. The ratio is per token (verl), not per sequence (Eq 3). --loss token: mean over all tokens
 *      of the batch; sequence: mean over a response's tokens, then over responses.
 *   6. The KL penalty is k3 on the sampled tokens (verl's low_var_kl). Used as a loss its expected
 *      gradient is that of KL(reference || policy).
 *   7. Eq 5 writes a bias and W^T h; these models have none, and we write W h, W: [vocab, hidden].
 *   8. Eq 28 (upstream gradients are a linear image of Phi) does not hold in general; that
 *      cosines of Phi stand for cosines of gradients is an empirical matter.
 *   9. The paper makes several updates on one batch of rollouts (--mini-batch, --epochs); our
 *      default is one, exactly on-policy. Novelty is computed once, with the sampling policy's phi.
 *
 * The file in order: the method; rollouts; training; supervised training; evaluation; commands. */
#include "model.c"       /* defines: Model, Batch, forward, backward, adamw_step, KvSeq, ... */
#include "tokenizer.c"   /* defines: Tokenizer, tokenizer_encode, tokenizer_decode */
#include "lib/options.h" /* defines: Option, options_parse, options_help */
#include "lib/task.h"    /* defines: Task, task_problem, task_solution, task_verify */

#define VERSION "0.1"

/* ================================================================ the group */

/* A prompt and its m responses. Response i is token[start[i]] .. token[start[i + 1] - 1], the end
 * token included; whatever is per token is indexed like `token`, [n_tokens]. */
typedef struct {
    uint32_t index;       /* which problem this is */
    char *text, *answer;  /* the prompt as text, and the gold answer */
    int *prompt, prompt_length;
    int m, max_tokens, n_tokens;
    int *token, *start;   /* [n_tokens], [m + 1] */
    bool *truncated;      /* [m] ended by max_tokens, not by the end token */
    const char **reason;  /* [m] the verifier's */

    float *logprob_old;   /* log p under the policy that sampled */
    float *logprob_ref;   /* under the reference */
    float *logprob;       /* under the policy being trained */
    float *entropy;       /* of the policy's distribution, exact */

    float *Phi;           /* [m, hidden_size]  Eq 8 */
    double *reward;       /* [m] */
    double *S, *w;        /* [m, m]            Eq 9, Eq 10 */
    double *nu, *nubar;   /* [m]               Eq 11 and its min-max */
    double *shaped;       /* [m] r~            Eq 12-13 */
    double *advantage;    /* [m]               Eq 2 */
} Group;

static Group group_new(Arena *a, int m, int max_prompt, int max_tokens, int hidden_size)
{
    size_t n = (size_t)m, t = n * (size_t)max_tokens;
    Group g = {.m = m, .max_tokens = max_tokens};
    g.prompt = arena_alloc(a, (size_t)max_prompt, sizeof(int));
    g.token = arena_alloc(a, t, sizeof(int));
    g.start = arena_alloc(a, n + 1, sizeof(int));
    g.truncated = arena_alloc(a, n, sizeof(bool));
    g.reason = arena_alloc(a, n, sizeof(char *));
    g.logprob_old = arena_floats(a, t);
    g.logprob_ref = arena_floats(a, t);
    g.logprob = arena_floats(a, t);
    g.entropy = arena_floats(a, t);
    g.Phi = arena_floats(a, n * (size_t)hidden_size);
    g.S = arena_alloc(a, n * n, sizeof(double));
    g.w = arena_alloc(a, n * n, sizeof(double));
    double **vectors[] = {&g.reward, &g.nu, &g.nubar, &g.shaped, &g.advantage};
    for (int i = 0; i < 5; i++)
        *vectors[i] = arena_alloc(a, n, sizeof(double));
    g.start[0] = 0;
    return g;
}

static int response_length(const Group *g, int i) { return g->start[i + 1] - g->start[i]; }

/* ================================================================ the method */

typedef enum { GRPO, G2RL } Method;
typedef enum { SHAPING_TEXT, SHAPING_LITERAL } Shaping;
typedef enum { DEAD_FULL, DEAD_ZERO } DeadGroups;
typedef enum { ADV_STD, ADV_NONE } AdvNorm;
typedef enum { LOSS_TOKEN, LOSS_SEQUENCE } Loss;
typedef enum { NOVELTY_GRADIENT, NOVELTY_RANDOM } Novelty;

/* Everything that the method's equations leave open. */
typedef struct {
    Method method;
    Shaping shaping;
    DeadGroups dead_groups;
    AdvNorm adv_norm;
    Loss loss;
    Novelty novelty;
    double lambda;              /* strength of the shaping */
    double clip_low, clip_high; /* PPO: the ratio stays in [1 - low, 1 + high] */
    double kl_coef;             /* beta of Eq 4 */
} MethodOptions;

#define SHAPED_LIMIT 3.0  /* c of section 2.5: r~ is clipped to [-c, c] */
#define FLOOR 1e-6        /* differences below this are rounding, not signal */
#define LOG_RATIO_LIMIT 20.0

/* Eq 8: Phi = sum_t a_t phi_t / (sum_t a_t + eps), a_t = 1 on the response's tokens.
 * phi: [tokens, d], Phi: [d] */
static void sequence_feature(float *Phi, const float *phi, int tokens, int d)
{
    memset(Phi, 0, (size_t)d * sizeof(float));
    for (int t = 0; t < tokens; t++)
        row_axpy(Phi, 1.0f, phi + (ptrdiff_t)t * d, d);
    row_scale(Phi, Phi, (float)(1.0 / (tokens + 1e-8)), d);
}

/* Eq 9: S_ij = <Phi_i, Phi_j> / (|Phi_i| |Phi_j|); 0 where a feature vanishes, that is where the
 * policy was certain of every token. */
static void similarity(Group *g, int d)
{
    for (int i = 0; i < g->m; i++)
        for (int j = 0; j <= i; j++) {
            const float *a = g->Phi + (ptrdiff_t)i * d, *b = g->Phi + (ptrdiff_t)j * d;
            double dot = 0, aa = 0, bb = 0;
            for (int k = 0; k < d; k++) {
                dot += (double)a[k] * (double)b[k];
                aa += (double)a[k] * (double)a[k];
                bb += (double)b[k] * (double)b[k];
            }
            bool certain = sqrt(aa) < 1e-12 || sqrt(bb) < 1e-12;
            g->S[i * g->m + j] = g->S[j * g->m + i] = certain ? 0 : dot / sqrt(aa * bb);
        }
}

/* Eq 10: w_ij = exp(r_j) / sum_{k != i} exp(r_k) for j != i, and w_ii = 0. Rewards are a user's
 * and unbounded, so the largest is taken out of the exponents first. */
static void reward_weights(Group *g)
{
    for (int i = 0; i < g->m; i++) {
        double *w = g->w + (ptrdiff_t)i * g->m, largest = -HUGE_VAL, sum = 0;
        for (int j = 0; j < g->m; j++)
            if (j != i && g->reward[j] > largest)
                largest = g->reward[j];
        for (int j = 0; j < g->m; j++)
            sum += w[j] = j == i ? 0 : exp(g->reward[j] - largest);
        for (int j = 0; j < g->m; j++)
            w[j] /= sum;
    }
}

/* Eq 11: nu_i = max(1 - sum_{j != i} w_ij S_ij^2, 0): the share of a response's direction that
 * the others, good ones first, do not already point along. Certainty is not novelty: 0. */
static void exploration_score(Group *g)
{
    for (int i = 0; i < g->m; i++) {
        double repeated = 0;
        for (int j = 0; j < g->m; j++)
            if (j != i)
                repeated += g->w[i * g->m + j] * g->S[i * g->m + j] * g->S[i * g->m + j];
        bool certain = g->S[i * g->m + i] == 0;
        g->nu[i] = certain || repeated > 1 ? 0 : 1 - repeated;
    }
}

/* The control of the experiment: the group's nu, handed to its responses at random. */
static void permute_novelty(Group *g, uint64_t seed, int step)
{
    for (int i = g->m - 1; i > 0; i--) {
        Random r = philox(seed, STREAM_SHUFFLE, (uint32_t)step, g->index, (uint32_t)i, 0);
        int j = (int)below(r, (uint32_t)i + 1);
        double swap = g->nu[i];
        g->nu[i] = g->nu[j];
        g->nu[j] = swap;
    }
}

/* nubar: nu taken to [0, 1] by the group's smallest and largest; 0 for all where they agree, so
 * that the rounding noise of identical responses does not become novelty. */
static void normalize_novelty(Group *g)
{
    double low = g->nu[0], high = g->nu[0];
    for (int i = 1; i < g->m; i++) {
        low = fmin(low, g->nu[i]);
        high = fmax(high, g->nu[i]);
    }
    for (int i = 0; i < g->m; i++)
        g->nubar[i] = high - low < FLOOR ? 0 : (g->nu[i] - low) / (high - low);
}

/* Eq 12-13: r~ = r (1 + lambda nubar) by the paper's text, or, as Eq 12 prints it,
 * r~ = r (1 + lambda r nubar); then clipped to [-3, 3]. GRPO: r~ = r. */
static double shape_reward(double reward, double nubar, const MethodOptions *o)
{
    if (o->method == GRPO)
        return reward;
    double r = o->shaping == SHAPING_TEXT ? 1 : reward;
    double shaped = reward * (1 + o->lambda * r * nubar);
    return fmax(-SHAPED_LIMIT, fmin(SHAPED_LIMIT, shaped));
}

static bool is_right(double reward) { return reward > 0; }

static int count_right(const Group *g)
{
    int right = 0;
    for (int i = 0; i < g->m; i++)
        right += is_right(g->reward[i]);
    return right;
}

/* All right or all wrong. */
static bool is_dead(const Group *g) { return count_right(g) % g->m == 0; }

/* Eq 2: A_i = (r~_i - mean) / (std + 1e-6), population std; 0 for all where std is below 1e-6. */
static void advantages(Group *g, const MethodOptions *o)
{
    double mean = 0, variance = 0;
    for (int i = 0; i < g->m; i++)
        mean += g->shaped[i] / g->m;
    for (int i = 0; i < g->m; i++)
        variance += (g->shaped[i] - mean) * (g->shaped[i] - mean) / g->m;
    double std = sqrt(variance);
    bool none = std < FLOOR || (o->dead_groups == DEAD_ZERO && is_dead(g));
    double scale = none ? 0 : o->adv_norm == ADV_STD ? 1 / (std + 1e-6) : 1;
    for (int i = 0; i < g->m; i++)
        g->advantage[i] = (g->shaped[i] - mean) * scale;
}

/* From token features to advantages: the whole method for one group. phi: [n_tokens, d] */
static void annotate(Group *g, const float *phi, int d, const MethodOptions *o, uint64_t seed,
                     int step)
{
    for (int i = 0; i < g->m; i++)
        sequence_feature(g->Phi + (ptrdiff_t)i * d, phi + (ptrdiff_t)g->start[i] * d,
                         response_length(g, i), d);
    similarity(g, d);
    reward_weights(g);
    exploration_score(g);
    if (o->novelty == NOVELTY_RANDOM)
        permute_novelty(g, seed, step);
    normalize_novelty(g);
    for (int i = 0; i < g->m; i++)
        g->shaped[i] = shape_reward(g->reward[i], g->nubar[i], o);
    advantages(g, o);
}

/* What the loss says about the tokens that went through it. */
typedef struct {
    double policy, k1, k3; /* sums over tokens: -min(..) and the KL estimators (Eq 4) */
    double entropy;
    int tokens, clipped_low, clipped_high, clamped;
} LossSums;

static double clamp(double x, double low, double high) { return fmax(low, fmin(high, x)); }

/* Eq 3-4 for one token: the loss -min(rho A, clip(rho) A) + beta k3, and its derivative by log p.
 * rho = p / p_old, so d rho / d log p = rho; where the clipped branch is the smaller one, the
 * policy term's derivative is 0. k3 = e^q - q - 1 with q = log p_ref - log p: derivative 1 - e^q. */
static double token_loss(double logprob, double old, double ref, double advantage,
                         const MethodOptions *o, double *derivative, LossSums *sums)
{
    double log_ratio = clamp(logprob - old, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    double rho = exp(log_ratio), q = clamp(ref - logprob, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    double clipped = clamp(rho, 1 - o->clip_low, 1 + o->clip_high);
    bool inside = rho * advantage <= clipped * advantage;
    double policy = -fmin(rho * advantage, clipped * advantage), k3 = exp(q) - q - 1;
    *derivative = inside && log_ratio == logprob - old ? -rho * advantage : 0;
    if (q == ref - logprob)
        *derivative += o->kl_coef * (1 - exp(q));
    sums->policy += policy;
    sums->k1 += -q;
    sums->k3 += k3;
    sums->tokens++;
    sums->clamped += log_ratio != logprob - old || q != ref - logprob;
    sums->clipped_low += !inside && advantage < 0;
    sums->clipped_high += !inside && advantage > 0;
    return policy + o->kl_coef * k3;
}

/* coef[t] = dL / d log p_t for the group's tokens, and its part of the loss. The optimizer batch
 * holds `tokens` response tokens and `responses` responses: --loss token weighs each token
 * 1 / tokens, --loss sequence 1 / (responses * its response's length). */
static double group_loss(const Group *g, const MethodOptions *o, int tokens, int responses,
                         float *coef, LossSums *sums)
{
    double loss = 0;
    for (int i = 0; i < g->m; i++) {
        double weight = o->loss == LOSS_TOKEN ? 1.0 / tokens
                                              : 1.0 / ((double)responses * response_length(g, i));
        for (int t = g->start[i]; t < g->start[i + 1]; t++) {
            double derivative;
            double ref = o->kl_coef > 0 ? (double)g->logprob_ref[t] : (double)g->logprob[t];
            loss += weight * token_loss((double)g->logprob[t], (double)g->logprob_old[t], ref,
                                        g->advantage[i], o, &derivative, sums);
            coef[t] = (float)(weight * derivative);
            sums->entropy += (double)g->entropy[t];
        }
    }
    return loss;
}

/* ================================================================ rollouts */

/* How tokens are drawn. The policy IS the tempered distribution: log-probs, entropy and features
 * use the same temperature. top_p and top_k cut the distribution and so are for `sample` and
 * `eval` only. */
typedef struct {
    double temperature, top_p;
    int top_k, max_tokens;
    uint64_t seed;
    int step;
    int n_vocab;                      /* ids from here on have no token: never drawn */
    void (*on_token)(void *, int id); /* called for each token as it is drawn, or NULL */
    void *context;
} Sampling;

/* A response while it is being sampled. */
typedef struct {
    Group *group;
    int index, length; /* which of the group's m; tokens so far */
    int *token;        /* [max_tokens] */
    float *logprob;
    KvSeq kv;
    KvSeq *prompt_kv;
} Rollout;

static bool is_eos(const Config *c, int token)
{
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_token_id[i] == token)
            return true;
    return false;
}

static int by_probability(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Sets to zero the probabilities outside the top_k largest and the smallest set that holds top_p
 * of their sum. `sorted`: room for n. Equal probabilities at the border stay in together. */
static void cut_distribution(float *p, int n, const Sampling *s, float *sorted)
{
    memcpy(sorted, p, (size_t)n * sizeof(float));
    qsort(sorted, (size_t)n, sizeof(float), by_probability);
    int keep = s->top_k > 0 ? imin(n, s->top_k) : n;
    double total = 0, sum = 0;
    for (int i = 0; i < keep; i++)
        total += (double)sorted[i];
    int last = 0;
    for (sum = (double)sorted[0]; last + 1 < keep && sum < s->top_p * total; last++)
        sum += (double)sorted[last + 1];
    for (int i = 0; i < n; i++)
        p[i] = p[i] >= sorted[last] ? p[i] : 0;
}

/* Draws a token from softmax(z / T) by inverting its cumulative distribution at `u`, and gives its
 * log-prob, made by the very functions that the trainer uses (promise 1). Temperature 0: the
 * largest logit. z: [V]; scratch: [2 V] */
static int draw_token(const float *z, int V, const Sampling *s, double u, float *logprob,
                      float *scratch)
{
    float inverse = s->temperature > 0 ? 1.0f / (float)s->temperature : 1.0f;
    int n = imin(V, s->n_vocab), token = 0;
    Softmax total = SOFTMAX_EMPTY;
    for (int v0 = 0; v0 < V; v0 += TILE)
        softmax_tile(&total, z + v0, scratch + v0, imin(TILE, V - v0), inverse);
    if (s->temperature > 0) {
        double sum = 0, target, so_far = 0;
        row_exp(scratch, z, n, row_max(z, n), inverse);
        if (s->top_k > 0 || s->top_p < 1)
            cut_distribution(scratch, n, s, scratch + V);
        for (int v = 0; v < n; v++)
            sum += (double)scratch[v];
        target = u * sum;
        for (int v = 0; v < n; v++) {
            if (scratch[v] > 0)
                token = v;
            so_far += (double)scratch[v];
            if (so_far > target)
                break;
        }
    } else
        for (int v = 1; v < n; v++)
            token = z[v] > z[token] ? v : token;
    *logprob = softmax_logprob(&total, z[token], inverse);
    return token;
}

/* One more token for each of n rollouts, from the hidden rows that predict them. A token depends
 * on (seed, step, prompt, sample, position) alone: not on who is in the batch. */
static void draw_tokens(Engine *e, const Model *m, const float *hidden, Rollout *const *r, int n,
                        const Sampling *s)
{
    int d = m->config.hidden_size, V = m->config.vocab_size;
    int at_once = imax(1, imin(n, (4 << 20) / V));
    size_t mark = e->arena.used;
    float *z = arena_floats(&e->arena, (size_t)at_once * (size_t)V);
    float *scratch = arena_floats(&e->arena, (size_t)e->threads * 2 * (size_t)V);
    for (int first = 0; first < n; first += at_once) {
        int rows = imin(at_once, n - first);
        const float *h = hidden + (ptrdiff_t)first * d;
        if (m->packed)
            gemm_packed(e->threads, rows, V, d, h, d, 1, m->packed + head_packed(m), z, V, false);
        else
            gemm(&e->arena, e->threads, rows, V, d, h, d, 1, head_weight(m), 1, d, z, V, false);
        PARALLEL_FOR (e->threads)
        for (int i = 0; i < rows; i++) {
            Rollout *x = r[first + i];
            double u = uniform(philox(s->seed, STREAM_SAMPLE, (uint32_t)s->step, x->group->index,
                                      (uint32_t)x->index, (uint32_t)x->length));
            x->token[x->length] = draw_token(z + (ptrdiff_t)i * V, V, s, u, &x->logprob[x->length],
                                             scratch + (ptrdiff_t)thread_index() * 2 * V);
            x->length++;
        }
    }
    e->arena.used = mark;
}

/* Copies finished responses into the group, end to end. `r`: the group's m rollouts, in order. */
static void group_fill(Group *g, const Rollout *r, const Config *c)
{
    for (int i = 0; i < g->m; i++) {
        size_t n = (size_t)r[i].length;
        g->start[i + 1] = g->start[i] + r[i].length;
        memcpy(g->token + g->start[i], r[i].token, n * sizeof(int));
        memcpy(g->logprob_old + g->start[i], r[i].logprob, n * sizeof(float));
        g->truncated[i] = !is_eos(c, r[i].token[n - 1]);
    }
    g->n_tokens = g->start[g->m];
}

/* The prompts' keys and values, each prompt once; returns the hidden rows that predict the first
 * tokens: one for each rollout, prompt after prompt. */
static const float *prefill(Engine *e, Model *m, const Group *groups, int n, KvPool *pool,
                            KvSeq *prompt_kv)
{
    int rows = 0, targets = 0;
    for (int i = 0; i < n; i++) {
        rows += groups[i].prompt_length;
        targets += groups[i].m;
    }
    Batch b = batch_new(&e->arena, rows, n, targets);
    b.pool = pool;
    for (int i = 0; i < n; i++) {
        int s = batch_seq(&b, groups[i].prompt, groups[i].prompt_length, 0, -1);
        prompt_kv[i] = kv_seq_new(&e->arena, groups[i].prompt_length);
        kv_reserve(pool, &prompt_kv[i], groups[i].prompt_length);
        b.seq[s].kv = &prompt_kv[i];
        for (int k = 0; k < groups[i].m; k++)
            batch_target(&b, b.n_rows - 1, 0);
    }
    return forward(e, m, &b, false).hidden;
}

/* One step of the rollouts that are still going: their last tokens in, the next tokens drawn. */
static void decode(Engine *e, const Model *m, Rollout *const *r, int n, KvPool *pool,
                   const Sampling *s)
{
    Batch b = batch_new(&e->arena, n, n, n);
    b.pool = pool;
    for (int i = 0; i < n; i++) {
        int prompt = r[i]->group->prompt_length, own = r[i]->length;
        int k = batch_seq(&b, &r[i]->token[own - 1], 1, prompt + own - 1, -1);
        kv_reserve(pool, &r[i]->kv, own);
        b.seq[k].kv = &r[i]->kv;
        b.seq[k].prefix_kv = r[i]->prompt_kv;
        b.seq[k].prefix_length = prompt;
        batch_target(&b, i, 0);
    }
    draw_tokens(e, m, forward(e, m, &b, false).hidden, r, n, s);
}

/* Cache blocks that sampling may use at most: each prompt's, and each response's. */
static int sampling_blocks(const Group *groups, int n, int max_tokens)
{
    int blocks = 0;
    for (int i = 0; i < n; i++)
        blocks += kv_blocks(groups[i].prompt_length) + groups[i].m * kv_blocks(max_tokens);
    return blocks;
}

/* A rollout for each response of each group. */
static Rollout *rollouts_new(Arena *a, Group *groups, int n, int total, int max_tokens,
                             KvSeq *prompt_kv)
{
    Rollout *all = arena_alloc(a, (size_t)total, sizeof *all), *r = all;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < groups[i].m; j++) {
            *r = (Rollout){.group = &groups[i], .index = j, .prompt_kv = &prompt_kv[i]};
            r->token = arena_alloc(a, (size_t)max_tokens, sizeof(int));
            r->logprob = arena_floats(a, (size_t)max_tokens);
            r++->kv = kv_seq_new(a, max_tokens);
        }
    return all;
}

/* Keeps the rollouts that go on; the others give their cache back. Returns how many go on. */
static int drop_finished(const Config *c, Rollout **going, int live, KvPool *pool,
                         const Sampling *s)
{
    int still = 0;
    for (int i = 0; i < live; i++) {
        Rollout *r = going[i];
        int token = r->token[r->length - 1];
        if (s->on_token)
            s->on_token(s->context, token);
        if (r->length == s->max_tokens || is_eos(c, token))
            kv_release(pool, &r->kv);
        else
            going[still++] = r;
    }
    return still;
}

/* Samples all responses of all groups together: a prompt is computed once and its keys are shared
 * by its m responses; a finished response leaves the batch at once. */
static void sample_groups(Engine *e, Model *m, Group *groups, int n, const Sampling *s)
{
    Arena *a = &e->arena;
    int live = 0, longest = 0;
    size_t mark = a->used;
    for (int i = 0; i < n; i++) {
        live += groups[i].m;
        longest = imax(longest, groups[i].prompt_length + s->max_tokens);
    }
    rope_reserve(m, longest);
    KvPool pool = kv_pool_new(a, &m->config, sampling_blocks(groups, n, s->max_tokens));
    KvSeq *prompt_kv = arena_alloc(a, (size_t)n, sizeof *prompt_kv);
    Rollout *all = rollouts_new(a, groups, n, live, s->max_tokens, prompt_kv);
    Rollout **going = arena_alloc(a, (size_t)live, sizeof *going);
    for (int i = 0; i < live; i++)
        going[i] = &all[i];
    const float *hidden = prefill(e, m, groups, n, &pool, prompt_kv);
    size_t step_mark = a->used; /* the prompts' block lists lie below it */
    draw_tokens(e, m, hidden, going, live, s);
    while ((live = drop_finished(&m->config, going, live, &pool, s))) {
        decode(e, m, going, live, &pool, s);
        a->used = step_mark;
    }
    for (int i = 0, k = 0; i < n; k += groups[i++].m)
        group_fill(&groups[i], &all[k], &m->config);
    a->used = mark;
}

/* ================================================================ groups as batches */

/* Rows that a group takes: the prompt once, and of each response all but its last token, which
 * predicts nothing. */
static int group_rows(const Group *g) { return g->prompt_length + g->n_tokens - g->m; }

/* Packs groups for a forward pass: every response token is a target, in the order of the groups'
 * own token arrays. The first token of each response is predicted by the prompt's last row. */
static Batch pack_groups(Arena *a, const Group *groups, int n)
{
    int rows = 0, seqs = 0, targets = 0;
    for (int i = 0; i < n; i++) {
        rows += group_rows(&groups[i]);
        seqs += 1 + groups[i].m;
        targets += groups[i].n_tokens;
    }
    Batch b = batch_new(a, rows, seqs, targets);
    for (int i = 0; i < n; i++) {
        const Group *g = &groups[i];
        int prompt = batch_seq(&b, g->prompt, g->prompt_length, 0, -1), last = b.n_rows - 1;
        for (int k = 0; k < g->m; k++) {
            const int *y = g->token + g->start[k];
            int length = response_length(g, k), row = b.n_rows;
            if (length > 1)
                batch_seq(&b, y, length - 1, g->prompt_length, prompt);
            for (int t = 0; t < length; t++)
                batch_target(&b, t == 0 ? last : row + t - 1, y[t]);
        }
    }
    return b;
}

/* The longest sequence among groups, in tokens. */
static int longest_sequence(const Group *groups, int n)
{
    int longest = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < groups[i].m; k++)
            longest = imax(longest, groups[i].prompt_length + response_length(&groups[i], k));
    return longest;
}

/* Groups from `first` on that fit a micro-batch: at most `most` of them. */
static int micro_batch(int first, int n, int most) { return imin(most, n - first); }

/* Where the time goes. */
enum { SAMPLE, VERIFY, REFERENCE, FORWARD, BACKWARD, OPTIMIZER, PHASES };
static const char *const PHASE_NAMES[PHASES] = {"sample",  "verify",   "reference",
                                                "forward", "backward", "optimizer"};

static double lap(double *since)
{
    double now = now_seconds(), passed = now - *since;
    *since = now;
    return passed;
}

/* Log-probs of all groups' tokens under a frozen model, into logprob_ref. */
static void reference_logprobs(Engine *e, Model *ref, Group *groups, int n, int at_once,
                               double temperature)
{
    rope_reserve(ref, longest_sequence(groups, n));
    for (int i = 0, k; i < n; i += k) {
        size_t mark = e->arena.used, offset = 0;
        k = micro_batch(i, n, at_once);
        Batch b = pack_groups(&e->arena, groups + i, k);
        Forward f = forward(e, ref, &b, false);
        forward_head(e, ref, &b, &f, (float)temperature, false);
        for (int j = i; j < i + k; offset += (size_t)groups[j++].n_tokens)
            memcpy(groups[j].logprob_ref, f.head.logprob + offset,
                   (size_t)groups[j].n_tokens * sizeof(float));
        e->arena.used = mark;
    }
}

/* A forward pass over packed groups: their log-probs and entropies, and, the first time they are
 * seen (`fresh`), their features and advantages. */
static Forward look(Engine *e, const Model *m, const Batch *b, Group *groups, int n, bool keep,
                    double temperature, const MethodOptions *o, uint64_t seed, int step,
                    bool fresh)
{
    Forward f = forward(e, m, b, keep);
    size_t offset = 0, d = (size_t)m->config.hidden_size;
    forward_head(e, m, b, &f, (float)temperature, true);
    for (int i = 0; i < n; offset += (size_t)groups[i++].n_tokens) {
        Group *g = &groups[i];
        memcpy(g->logprob, f.head.logprob + offset, (size_t)g->n_tokens * sizeof(float));
        memcpy(g->entropy, f.head.entropy + offset, (size_t)g->n_tokens * sizeof(float));
        if (fresh)
            annotate(g, f.head.phi + offset * d, (int)d, o, seed, step);
    }
    return f;
}

/* What an update needs to know. */
typedef struct {
    MethodOptions method;
    double temperature;
    uint64_t seed;
    int step, micro_batch;
    double seconds[PHASES];
    double logp_gap; /* largest |log p of the sampler - log p of the trainer|, before any update */
} Update;

/* Adds to m->grads the gradient of the loss over n groups (one optimizer batch), micro-batch by
 * micro-batch: every sum over rows continues where the last one stopped, so the cut changes no
 * bit. Returns the loss. */
static double accumulate_gradient(Engine *e, Model *m, Group *groups, int n, Update *u, bool fresh,
                                  LossSums *sums)
{
    int tokens = 0, responses = 0;
    double loss = 0, clock = now_seconds();
    for (int i = 0; i < n; i++) {
        tokens += groups[i].n_tokens;
        responses += groups[i].m;
    }
    for (int i = 0, k; i < n; i += k) {
        size_t mark = e->arena.used;
        k = micro_batch(i, n, u->micro_batch);
        Batch b = pack_groups(&e->arena, groups + i, k);
        float *coef = arena_floats(&e->arena, (size_t)b.n_targets);
        Forward f = look(e, m, &b, groups + i, k, true, u->temperature, &u->method, u->seed,
                         u->step, fresh);
        for (int j = i, offset = 0; j < i + k; offset += groups[j++].n_tokens) {
            loss += group_loss(&groups[j], &u->method, tokens, responses, coef + offset, sums);
            for (int t = 0; fresh && t < groups[j].n_tokens; t++)
                u->logp_gap = fmax(u->logp_gap, fabs((double)groups[j].logprob[t] -
                                                     (double)groups[j].logprob_old[t]));
        }
        u->seconds[FORWARD] += lap(&clock);
        backward(e, m, &b, &f, coef);
        e->arena.used = mark;
        u->seconds[BACKWARD] += lap(&clock);
    }
    return loss;
}

/* ================================================================ problems */

/* Where prompts come from: a built-in task draws as many as are wanted; a file holds so many. */
typedef struct {
    Task task;
    bool held_out;
    uint64_t seed;
    char **prompt, **answer; /* of a file */
    int n;                   /* 0: drawn */
    int *order, epoch;       /* the file's problems in the order of one pass through it */
    const char *path;
} Problems;

/* The next line of a JSONL text that is not blank, as a parser; false at the end. Lines end at
 * 0x0A only. */
static bool jsonl_next(const char *text, size_t n, size_t *offset, int *line, Json *j)
{
    while (*offset < n) {
        const char *from = text + *offset, *newline = memchr(from, '\n', n - *offset);
        size_t length = newline ? (size_t)(newline - from) : n - *offset;
        *offset += length + 1;
        ++*line;
        size_t blank = 0;
        while (blank < length && strchr(" \t\r", from[blank]) && from[blank])
            blank++;
        if (blank == length)
            continue;
        *j = json_open(from, length);
        return true;
    }
    return false;
}

static void jsonl_end(Json *j, const char *path, int line)
{
    if (!json_end(j))
        die("%s: line %d: %s", path, line, j->error ? j->error : "text after the object");
}

static bool is_one_of(const char *key, const char *a, const char *b, const char *c)
{
    return !strcmp(key, a) || !strcmp(key, b) || !strcmp(key, c);
}

/* Reads a JSONL file of problems: `prompt`, `question` or `problem`, and `answer` or `solution`. */
static Problems problems_read(const char *path, const Task *task)
{
    Problems p = {.task = *task, .path = path, .epoch = -1};
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    Buf key = {0}, prompt = {0}, answer = {0}, solution = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        prompt.n = answer.n = solution.n = 0;
        for (json_object(&j); json_key(&j, &key);)
            if (is_one_of(key.s, "prompt", "question", "problem"))
                json_string(&j, &prompt);
            else if (!strcmp(key.s, "answer"))
                json_string(&j, &answer);
            else if (!strcmp(key.s, "solution"))
                json_string(&j, &solution);
            else
                json_skip(&j);
        jsonl_end(&j, path, line);
        if (!prompt.n)
            die("%s: line %d: no question; expected a prompt, question or problem", path, line);
        if (!answer.n && !solution.n)
            die("%s: line %d: no answer; expected an answer or a solution", path, line);
        size_t bytes = (size_t)(p.n + 1) * sizeof(char *);
        p.prompt = xrealloc(p.prompt, bytes);
        p.answer = xrealloc(p.answer, bytes);
        p.prompt[p.n] = xstrdup(prompt.s);
        p.answer[p.n++] = xstrdup(answer.n ? answer.s : solution.s);
    }
    if (!p.n)
        die("%s: holds no problems", path);
    p.order = xcalloc((size_t)p.n, sizeof(int));
    free(text);
    buf_free(&key);
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&solution);
    return p;
}

static void problems_free(Problems *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->prompt[i]);
        free(p->answer[i]);
    }
    free(p->prompt);
    free(p->answer);
    free(p->order);
    *p = (Problems){0};
}

/* The order of n things in pass number `epoch`, shuffled anew for each (Fisher and Yates). */
static void shuffle(int *order, int n, uint64_t seed, int epoch)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        Random r = philox(seed, STREAM_SHUFFLE, (uint32_t)epoch, (uint32_t)i, 0, 1);
        int j = (int)below(r, (uint32_t)i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

/* Problem number `index`. Training walks a file in shuffled passes, held-out problems in order. */
static void problem_get(Problems *p, uint32_t index, Buf *prompt, Buf *answer)
{
    prompt->n = answer->n = 0;
    if (!p->n) {
        task_problem(&p->task, p->seed, p->held_out, index, prompt, answer);
        return;
    }
    int at = (int)(index % (uint32_t)p->n);
    if (!p->held_out) {
        int epoch = (int)(index / (uint32_t)p->n);
        if (epoch != p->epoch)
            shuffle(p->order, p->n, p->seed, epoch);
        p->epoch = epoch;
        at = p->order[at];
    }
    buf_str(prompt, p->prompt[at]);
    buf_str(answer, p->answer[at]);
}

/* Ids of a text; dies where a character has no token. `room`: of ids. */
static int encode(const Tokenizer *t, const char *text, size_t n, int *ids, int room,
                  const char *what)
{
    size_t bad = 0;
    int *all = xmalloc((n + 1) * sizeof(int)), count = tokenizer_encode(t, text, n, all, &bad);
    if (count < 0)
        die("%s: '%.40s': no token for the character at byte %zu", what, text, bad);
    if (count == 0)
        die("%s: is empty", what);
    if (count > room)
        die("%s: '%.40s...' is %d tokens long; expected at most %d", what, text, count, room);
    memcpy(ids, all, (size_t)count * sizeof(int));
    free(all);
    return count;
}

enum { MAX_PROMPT = 4096 }; /* tokens */

/* Sets problem `index` as a group's prompt. The texts live in the arena. */
static void group_ask(Group *g, Arena *a, Problems *p, uint32_t index, const Tokenizer *t,
                      int max_prompt)
{
    Buf prompt = {0}, answer = {0};
    problem_get(p, index, &prompt, &answer);
    g->index = index;
    g->text = memcpy(arena_alloc(a, prompt.n + 1, 1), prompt.s, prompt.n + 1);
    g->answer = memcpy(arena_alloc(a, answer.n + 1, 1), answer.s, answer.n + 1);
    g->prompt_length = encode(t, prompt.s, prompt.n, g->prompt, max_prompt,
                              p->n ? p->path : "prompt");
    buf_free(&prompt);
    buf_free(&answer);
}

/* A response as text, without the end token. */
static void response_text(const Group *g, int i, const Tokenizer *t, Buf *out)
{
    out->n = 0;
    tokenizer_decode(t, g->token + g->start[i], response_length(g, i), true, out);
}

/* Rewards: +1 for a right and finished response, -1 for any other. */
static void verify_group(Group *g, const Task *task, const Tokenizer *t)
{
    Buf text = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        Verdict v = task_verify(task, g->text, text.s);
        if (g->truncated[i])
            v = (Verdict){false, "cut off at --max-tokens"};
        g->reward[i] = v.right ? 1 : -1;
        g->reason[i] = v.reason;
    }
    buf_free(&text);
}

/* ================================================================ what a batch of groups shows */

/* Sums over groups; each metric is one of them divided by another. */
typedef struct {
    double responses, tokens, groups, right, dead, truncated, reward, reward_std;
    double pairs, cosine, negative, nu, entropy;
    double advantage2, novelty2; /* sums of A^2, and of its part within right and within wrong */
} GroupSums;

/* The part of a group's A^2 that novelty makes: what is left inside the class of right and inside
 * the class of wrong responses, whose rewards are equal. */
static double novelty_part(const Group *g)
{
    double sum[2] = {0}, squares = 0;
    int n[2] = {0};
    for (int i = 0; i < g->m; i++) {
        int c = is_right(g->reward[i]);
        sum[c] += g->advantage[i];
        squares += g->advantage[i] * g->advantage[i];
        n[c]++;
    }
    for (int c = 0; c < 2; c++)
        squares -= n[c] ? sum[c] * sum[c] / n[c] : 0;
    return fmax(squares, 0);
}

static void group_sums(GroupSums *s, const Group *g)
{
    double mean = 0, variance = 0;
    for (int i = 0; i < g->m; i++) {
        mean += g->reward[i] / g->m;
        s->truncated += g->truncated[i];
        s->nu += g->nu[i];
        s->advantage2 += g->advantage[i] * g->advantage[i];
        for (int j = 0; j < i; j++) {
            s->cosine += g->S[i * g->m + j];
            s->negative += g->S[i * g->m + j] < 0;
            s->pairs++;
        }
    }
    for (int i = 0; i < g->m; i++)
        variance += (g->reward[i] - mean) * (g->reward[i] - mean) / g->m;
    for (int t = 0; t < g->n_tokens; t++)
        s->entropy += (double)g->entropy[t];
    s->groups++;
    s->responses += g->m;
    s->tokens += g->n_tokens;
    s->right += count_right(g);
    s->dead += is_dead(g);
    s->reward += mean;
    s->reward_std += sqrt(variance);
    s->novelty2 += novelty_part(g);
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

/* One member of a JSON object. */
static void put(Buf *b, const char *name, double value)
{
    buf_printf(b, ", \"%s\": ", name);
    json_put_number(b, value);
}

static void put_text(Buf *b, const char *name, const char *text, size_t n)
{
    buf_printf(b, ", \"%s\": ", name);
    json_put_string(b, text, n);
}

static void put_vector(Buf *b, const char *name, const double *x, int n)
{
    buf_printf(b, ", \"%s\": [", name);
    for (int i = 0; i < n; i++) {
        buf_str(b, i ? ", " : "");
        json_put_number(b, x[i]);
    }
    buf_str(b, "]");
}

/* Two dimensions, as rows. */
static void put_matrix(Buf *b, const char *name, const double *x, int rows, int columns)
{
    buf_printf(b, ", \"%s\": [", name);
    for (int i = 0; i < rows; i++) {
        buf_str(b, i ? ", [" : "[");
        for (int j = 0; j < columns; j++) {
            buf_str(b, j ? ", " : "");
            json_put_number(b, x[i * columns + j]);
        }
        buf_str(b, "]");
    }
    buf_str(b, "]");
}

/* ================================================================ evaluation */

typedef struct {
    double value, low, high; /* an estimate with its 95 % interval */
} Estimate;

enum { MAX_K = 12 }; /* pass@k for k = 1, 2, 4, ... */

/* What one model does on held-out problems, a row for each problem. */
typedef struct {
    const char *name;
    int problems, samples;
    int maj_k;       /* votes are taken among so many samples */
    double *pass[MAX_K], *maj; /* [problems] */
    GroupSums sums;
    uint64_t seed;
} Evaluation;

/* pass@k, unbiased: of n samples c were right; 1 - C(n - c, k) / C(n, k) (Chen et al. 2021). */
static double pass_at_k(int n, int c, int k)
{
    double all_wrong = 1;
    for (int i = n - c + 1; i <= n; i++)
        all_wrong *= 1 - (double)k / i;
    return n - c < k ? 1 : 1 - all_wrong;
}

/* Is the most frequent answer of k samples right? `class`: the answer class of each; right[i]: is
 * sample i right. Ties count in expectation: the share of the tied classes that are right. */
static double majority(const int *class, const bool *right, int k)
{
    int most = 0;
    double tied = 0, tied_right = 0;
    for (int i = 0; i < k; i++) {
        int votes = 0;
        bool first = true;
        for (int j = 0; j < k; j++) {
            votes += class[j] == class[i];
            first &= j >= i || class[j] != class[i];
        }
        if (votes > most) {
            most = votes;
            tied = tied_right = 0;
        }
        if (votes == most && first) {
            tied++;
            tied_right += right[i];
        }
    }
    return tied_right / tied;
}

/* maj@k of a group: the mean over its disjoint blocks of k samples. */
static double group_majority(const Group *g, const Task *task, const Tokenizer *t, int k)
{
    char **answer = xcalloc((size_t)g->m, sizeof *answer);
    int *class = xcalloc((size_t)g->m, sizeof *class);
    bool *right = xcalloc((size_t)g->m, sizeof *right);
    Buf text = {0}, name = {0};
    double sum = 0;
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        name.n = 0;
        buf_str(&name, g->truncated[i] ? "cut off " : "");
        task_answer_class(task, g->text, text.s, &name);
        answer[i] = xstrdup(name.s);
        right[i] = is_right(g->reward[i]);
        for (class[i] = 0; strcmp(answer[class[i]], answer[i]);)
            class[i]++;
    }
    for (int i = 0; i + k <= g->m; i += k)
        sum += majority(class + i, right + i, k);
    for (int i = 0; i < g->m; i++)
        free(answer[i]);
    free(answer);
    free(class);
    free(right);
    buf_free(&text);
    buf_free(&name);
    return sum / (g->m / k);
}

/* The mean over problems, with a percentile interval from 1,000 bootstrap samples of problems. */
static Estimate bootstrap(const double *x, int n, uint64_t seed)
{
    enum { RESAMPLES = 1000 };
    double means[RESAMPLES], mean = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int r = 0; r < RESAMPLES; r++) {
        means[r] = 0;
        for (int i = 0; i < n; i++)
            means[r] += x[below(philox(seed, STREAM_BOOTSTRAP, (uint32_t)r, (uint32_t)i, 0, 0),
                                (uint32_t)n)] / n;
        for (int k = r; k > 0 && means[k] < means[k - 1]; k--) {
            double swap = means[k];
            means[k] = means[k - 1];
            means[k - 1] = swap;
        }
    }
    return (Estimate){mean, means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]};
}

static int passes(int samples)
{
    int n = 0;
    while (n < MAX_K && 1 << n <= samples)
        n++;
    return n;
}

static Evaluation evaluation_new(const char *name, int problems, int samples, uint64_t seed)
{
    Evaluation ev = {.name = name, .problems = problems, .samples = samples, .seed = seed,
                     .maj_k = imin(16, samples)};
    for (int k = 0; k < passes(samples); k++)
        ev.pass[k] = xcalloc((size_t)problems, sizeof(double));
    ev.maj = xcalloc((size_t)problems, sizeof(double));
    return ev;
}

static void evaluation_free(Evaluation *ev)
{
    for (int k = 0; k < MAX_K; k++)
        free(ev->pass[k]);
    free(ev->maj);
}

/* The whole evaluation as the members of a JSON object. */
static void evaluation_json(const Evaluation *ev, Buf *b)
{
    const GroupSums *s = &ev->sums;
    char name[32];
    for (int k = 0; k <= passes(ev->samples); k++) {
        bool maj = k == passes(ev->samples);
        Estimate x = bootstrap(maj ? ev->maj : ev->pass[k], ev->problems, ev->seed);
        snprintf(name, sizeof name, maj ? "maj@%d" : "pass@%d", maj ? ev->maj_k : 1 << k);
        put(b, name, x.value);
        buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", name, x.low, x.high);
    }
    snprintf(name, sizeof name, "mean@%d", ev->samples);
    put(b, name, ratio(s->right, s->responses));
    put(b, "problems", ev->problems);
    put(b, "samples", ev->samples);
    put(b, "phi/cos_mean", ratio(s->cosine, s->pairs));
    put(b, "phi/neg_ratio", ratio(s->negative, s->pairs));
    put(b, "phi/nu_mean", ratio(s->nu, s->responses));
    put(b, "entropy", ratio(s->entropy, s->tokens));
    put(b, "completions/mean_length", ratio(s->tokens, s->responses));
    put(b, "completions/clipped_ratio", ratio(s->truncated, s->responses));
}

/* ================================================================ commands: what they share */

enum { SFT, TRAIN, EVAL, SAMPLE_TEXT, SCORE, EXPLAIN, DATA, N_COMMANDS };
static const char *const COMMANDS[N_COMMANDS] = {"sft",   "train",   "eval", "sample",
                                                 "score", "explain", "data"};
static const char *const SUMMARIES[N_COMMANDS] = {
    "teach a model from examples: supervised next-token training",
    "reinforcement learning: GRPO, or G2RL's gradient-guided exploration",
    "pass@1, maj@k and pass@k with intervals, on held-out problems",
    "text for a prompt",
    "log-probs of given texts or token ids (JSONL in, JSONL out)",
    "one group, the whole computation as a table: r, S, w, nu, nubar, r~, A",
    "write problems of a task as JSONL, or check a file of them",
};

typedef struct {
    const char *model, *task, *data, *out, *preset, *prompt, *stop;
    int split, steps, warmup, schedule, batch, micro_batch, shuffle, prompts, rollouts, epochs;
    int mini_batch, max_tokens, samples, problems, top_k, threads, save_every, eval_every;
    int method, shaping, dead_groups, adv_norm, loss, novelty;
    double lr, beta1, beta2, adam_eps, weight_decay, clip_norm, temperature, top_p;
    double lambda, clip_low, clip_high, kl_coef;
    uint64_t seed;
    bool json, force;
} Options;

#define C(x) (1u << (x))
#define LEARN (C(SFT) | C(TRAIN))
#define RL (C(TRAIN) | C(EXPLAIN))
#define DRAW (C(TRAIN) | C(EVAL) | C(SAMPLE_TEXT) | C(EXPLAIN))
#define ALL ((1u << N_COMMANDS) - 1)
#define O(field) offsetof(Options, field)
static const Option OPTIONS[] = {
    {"model", OPT_TEXT, O(model), NULL, 0, 0, ALL & ~C(DATA), "DIR",
     "model directory, or a run: its newest checkpoint"},
    {"preset", OPT_TEXT, O(preset), NULL, 0, 0, C(SFT), "NAME",
     "start from random weights: nano, tiny, small, medium, qwen3-0.6b"},
    {"task", OPT_TEXT, O(task), "countdown", 0, 0, ALL & ~C(SCORE), "NAME[:key=value,..]",
     "built-in task (see: g2rl data --help)"},
    {"data", OPT_TEXT, O(data), NULL, 0, 0, ALL & ~(C(SCORE) | C(SAMPLE_TEXT)), "FILE",
     "JSONL file to use in place of the task's generator"},
    {"split", OPT_CHOICE, O(split), "test", 0, 0, C(EVAL) | C(EXPLAIN), "train|test",
     "which side of the task's problems"},
    {"split", OPT_CHOICE, O(split), "train", 0, 0, C(DATA), "train|test",
     "which side of the task's problems"},
    {"problems", OPT_INT, O(problems), "200", 1, 1e7, C(EVAL) | C(DATA), "N",
     "how many problems"},
    {"problems", OPT_INT, O(problems), "50", 1, 1e7, C(TRAIN), "N",
     "held-out problems for --eval-every"},
    {"out", OPT_TEXT, O(out), NULL, 0, 0, LEARN, "DIR", "run directory to write (required)"},
    {"steps", OPT_INT, O(steps), "1000", 0, 1e9, C(SFT), "N", "updates"},
    {"steps", OPT_INT, O(steps), "150", 0, 1e9, C(TRAIN), "N", "rollout batches"},

    {"prompts", OPT_INT, O(prompts), "16", 1, 65536, C(TRAIN), "N", "prompts a step"},
    {"rollouts", OPT_INT, O(rollouts), "16", 2, 4096, RL, "N", "responses to each: the group's m"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, RL, "T",
     "of sampling, log-probs and features alike"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0, 100, C(EVAL) | C(SAMPLE_TEXT), "T",
     "of sampling; 0: always the most likely token"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, C(SCORE), "T", "of the log-probs"},
    {"top-p", OPT_NUMBER, O(top_p), "1", 1e-6, 1, C(EVAL) | C(SAMPLE_TEXT), "P",
     "draw from the smallest set of tokens that holds this probability"},
    {"top-k", OPT_INT, O(top_k), "0", 0, 1e9, C(EVAL) | C(SAMPLE_TEXT), "K",
     "draw from the K most likely tokens; 0: all"},
    {"max-tokens", OPT_INT, O(max_tokens), "48", 1, 1e6, DRAW, "N",
     "longest response, its end token included"},
    {"samples", OPT_INT, O(samples), "32", 1, 4096, C(EVAL), "N", "responses to each problem"},
    {"samples", OPT_INT, O(samples), "16", 1, 4096, C(TRAIN), "N",
     "responses to each held-out problem for --eval-every"},
    {"samples", OPT_INT, O(samples), "1", 1, 4096, C(SAMPLE_TEXT), "N", "responses"},
    {"prompt", OPT_TEXT, O(prompt), NULL, 0, 0, C(SAMPLE_TEXT) | C(EXPLAIN), "TEXT",
     "the prompt, e.g. '3574>26:'"},
    {"stop", OPT_TEXT, O(stop), NULL, 0, 0, C(SAMPLE_TEXT), "TEXT",
     "end a response before this text"},

    {"method", OPT_CHOICE, O(method), "g2rl", 0, 0, RL, "grpo|g2rl", "how rewards are shaped"},
    {"lambda", OPT_NUMBER, O(lambda), "1", 0, 1e6, RL, "X",
     "strength of the shaping; 0 is GRPO to the bit"},
    {"shaping", OPT_CHOICE, O(shaping), "text", 0, 0, RL, "text|literal",
     "r (1 + lambda nubar), or Eq 12 as printed"},
    {"novelty", OPT_CHOICE, O(novelty), "gradient", 0, 0, RL, "gradient|random",
     "random: the control, nu dealt out at random inside the group"},
    {"dead-groups", OPT_CHOICE, O(dead_groups), "full", 0, 0, RL, "full|zero",
     "zero: groups all right or all wrong get no advantage"},
    {"adv-norm", OPT_CHOICE, O(adv_norm), "std", 0, 0, RL, "std|none",
     "divide advantages by the group's standard deviation, or not"},
    {"loss", OPT_CHOICE, O(loss), "token", 0, 0, C(TRAIN), "token|sequence",
     "mean over tokens, or over each response's tokens and then responses"},
    {"clip-low", OPT_NUMBER, O(clip_low), "0.2", 0, 1, C(TRAIN), "X",
     "the ratio's lower clip is 1 - X"},
    {"clip-high", OPT_NUMBER, O(clip_high), "0.2", 0, 1e6, C(TRAIN), "X",
     "the ratio's upper clip is 1 + X"},
    {"kl-coef", OPT_NUMBER, O(kl_coef), "0.001", 0, 1e6, C(TRAIN), "X",
     "weight of the k3 KL penalty to the starting model; 0: none is kept"},
    {"mini-batch", OPT_INT, O(mini_batch), "0", 0, 65536, C(TRAIN), "N",
     "prompts an update; 0: all of the step's, one exactly on-policy update"},
    {"epochs", OPT_INT, O(epochs), "1", 1, 1000, C(TRAIN), "N",
     "passes over each batch of rollouts"},

    {"batch", OPT_INT, O(batch), "128", 1, 65536, C(SFT), "N", "records an update"},
    {"shuffle", OPT_CHOICE, O(shuffle), "1", 0, 0, C(SFT), "0|1",
     "0 takes the records of --data in file order"},
    {"micro-batch", OPT_INT, O(micro_batch), "0", 0, 65536, LEARN, "N",
     "sequences (sft) or groups (train) in memory at once; 0: a good number"},
    {"lr", OPT_NUMBER, O(lr), "2e-3", 0, 10, C(SFT), "X", "learning rate"},
    {"lr", OPT_NUMBER, O(lr), "1e-4", 0, 10, C(TRAIN), "X", "learning rate"},
    {"schedule", OPT_CHOICE, O(schedule), "cosine", 0, 0, C(SFT), "constant|linear|cosine",
     "of the learning rate"},
    {"schedule", OPT_CHOICE, O(schedule), "constant", 0, 0, C(TRAIN), "constant|linear|cosine",
     "of the learning rate"},
    {"warmup", OPT_INT, O(warmup), "50", 0, 1e9, C(SFT), "N", "steps of rising learning rate"},
    {"warmup", OPT_INT, O(warmup), "0", 0, 1e9, C(TRAIN), "N", "steps of rising learning rate"},
    {"beta1", OPT_NUMBER, O(beta1), "0.9", 0, 0.999999, LEARN, "X", "AdamW's first moment"},
    {"beta2", OPT_NUMBER, O(beta2), "0.99", 0, 0.999999, LEARN, "X", "AdamW's second moment"},
    {"adam-eps", OPT_NUMBER, O(adam_eps), "1e-8", 0, 1, LEARN, "X", "AdamW's epsilon"},
    {"weight-decay", OPT_NUMBER, O(weight_decay), "0", 0, 10, LEARN, "X", "decoupled, all tensors"},
    {"clip-norm", OPT_NUMBER, O(clip_norm), "1", 0, 1e9, LEARN, "X",
     "gradients are scaled to at most this norm; 0: never"},

    {"eval-every", OPT_INT, O(eval_every), "0", 0, 1e9, C(TRAIN), "N",
     "evaluate every N steps into eval.jsonl; 0: never"},
    {"save-every", OPT_INT, O(save_every), "0", 0, 1e9, LEARN, "N",
     "checkpoint every N steps; 0: at the end"},
    {"seed", OPT_SEED, O(seed), "1", 0, 0, ALL & ~C(SCORE), "N", "of all random numbers"},
    {"threads", OPT_INT, O(threads), "0", 0, 1024, ALL & ~C(DATA), "N",
     "0: one for each core; the results do not depend on it"},
    {"json", OPT_FLAG, O(json), NULL, 0, 0, C(EVAL) | C(EXPLAIN), "", "results as JSON"},
    {"force", OPT_FLAG, O(force), NULL, 0, 0, LEARN, "", "replace a run that is already there"},
};
#undef O
#undef ALL
#undef DRAW
#undef RL
#undef LEARN
#undef C
enum { N_OPTIONS = sizeof OPTIONS / sizeof *OPTIONS };

/* What a command runs on. */
typedef struct {
    Options o;
    Words words;
    Task task;
    Tokenizer tokenizer;
    Path tokenizer_path; /* "": the built-in vocabulary */
    Model model;
    Engine engine;
} Session;

static int default_threads(int asked)
{
#ifdef _OPENMP
    return asked ? asked : omp_get_max_threads();
#else
    (void)asked;
    return 1;
#endif
}

static void session_free(Session *s)
{
    words_free(&s->words);
    tokenizer_free(&s->tokenizer);
    model_free(&s->model);
    arena_free(&s->engine.arena);
}

/* The model of --model, packed for sampling, and its tokenizer. */
static void session_load(Session *s, const char *path, bool tokenizer)
{
    if (!path)
        usage("--model is missing");
    Path dir = model_dir(path);
    s->model = model_load(dir.s);
    s->tokenizer_path = path_join(dir.s, "tokenizer.json");
    if (tokenizer)
        s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    if (s->tokenizer.n_vocab > s->model.config.vocab_size)
        die("%s: has ids up to %d, but vocab_size of config.json is %d", s->tokenizer_path.s,
            s->tokenizer.n_vocab - 1, s->model.config.vocab_size);
    model_pack(&s->model, s->engine.threads);
}

/* The problems of --data, or of --task. */
static Problems session_problems(const Session *s, bool held_out)
{
    Problems p = {.task = s->task};
    if (s->o.data)
        p = problems_read(s->o.data, &s->task);
    p.held_out = held_out;
    p.seed = s->o.seed;
    return p;
}

/* The longest prompt to make room for, in tokens. A token is at least one byte. */
static int longest_prompt(const Problems *p)
{
    int longest = TASK_PROMPT_MAX;
    for (int i = 0; i < p->n; i++)
        longest = imax(longest, (int)imin(MAX_PROMPT, (int)strlen(p->prompt[i])));
    return longest;
}

/* A command without --top-p and --top-k draws from the whole distribution. */
static Sampling session_sampling(const Session *s, int step)
{
    const Options *o = &s->o;
    return (Sampling){.temperature = o->temperature, .top_p = o->top_p > 0 ? o->top_p : 1,
                      .top_k = o->top_k,
                      .max_tokens = o->max_tokens, .seed = o->seed, .step = step,
                      .n_vocab = imax(1, s->tokenizer.n_vocab)};
}

/* How large the groups of a run are, at most. */
typedef struct {
    int groups, m, max_prompt, max_tokens, at_once; /* at_once: groups in one forward pass */
    bool train;
} Extent;

/* Bytes of arena for sampling all groups and for passes over `at_once` of them. */
static size_t extent_bytes(const Model *m, int threads, Extent x)
{
    size_t all = (size_t)x.groups * (size_t)x.m, tokens = (size_t)x.max_tokens;
    size_t prompt = (size_t)x.max_prompt, d = (size_t)m->config.hidden_size;
    size_t V = (size_t)m->config.vocab_size, mm = (size_t)(x.m * x.m);
    size_t group = (prompt + (size_t)x.m * (tokens * 24 + d * 4 + 64) + mm * 16 + 4096) * 2;
    size_t rows = (size_t)x.at_once * (prompt + (size_t)x.m * tokens);
    size_t targets = (size_t)x.at_once * (size_t)x.m * tokens;
    int longest = x.max_prompt + x.max_tokens;
    int blocks = x.groups * (kv_blocks(x.max_prompt) + x.m * kv_blocks(x.max_tokens));
    size_t sampling = pass_bytes(m, threads, all + (size_t)x.groups * prompt, all, longest, false) +
                      pass_bytes(m, threads, all, all, longest, false) +
                      kv_pool_bytes(&m->config, blocks) + (all + (size_t)x.groups) * 512 +
                      all * tokens * 8 + ((4 << 20) + V * (2 * (size_t)threads + 1)) * 4;
    size_t pass = pass_bytes(m, threads, rows, targets, longest, x.train) + targets * 8;
    return (size_t)x.groups * group + (sampling > pass ? sampling : pass);
}

/* Groups that make a good micro-batch: enough rows for the kernels, few enough for the cache. */
static int good_micro_batch(int asked, int n, int rows_each)
{
    enum { GOOD_ROWS = 4096 };
    return asked ? imin(asked, n) : imax(1, imin(n, GOOD_ROWS / rows_each));
}

static Group *groups_new(Engine *e, const Model *m, Extent x)
{
    Group *g = arena_alloc(&e->arena, (size_t)x.groups, sizeof *g);
    for (int i = 0; i < x.groups; i++)
        g[i] = group_new(&e->arena, x.m, x.max_prompt, x.max_tokens, m->config.hidden_size);
    return g;
}

static MethodOptions method_options(const Options *o)
{
    return (MethodOptions){.method = (Method)o->method, .shaping = (Shaping)o->shaping,
                           .dead_groups = (DeadGroups)o->dead_groups,
                           .adv_norm = (AdvNorm)o->adv_norm, .loss = (Loss)o->loss,
                           .novelty = (Novelty)o->novelty, .lambda = o->lambda,
                           .clip_low = o->clip_low, .clip_high = o->clip_high,
                           .kl_coef = o->kl_coef};
}

/* Progress on stderr: one line that changes on a terminal, else a line now and then. */
typedef struct {
    const char *phase;
    int total;
    double start, last;
} Progress;

static Progress progress_new(const char *phase, int total)
{
    return (Progress){phase, total, now_seconds(), 0};
}

static void progress(Progress *p, int done, const char *note)
{
    bool terminal = isatty(STDERR_FILENO), end = done >= p->total;
    double now = now_seconds(), spent = now - p->start;
    if (!end && now - p->last < (terminal ? 0.2 : 10.0) && p->last > 0)
        return;
    p->last = now;
    fprintf(stderr, "%s%-12s %*d/%d  %s  %s %.0f s%s%s", terminal ? "\r" : "", p->phase,
            terminal ? 1 : (int)(log10(p->total + 0.5) + 1), done, p->total, note,
            end ? "took" : "left", end ? spent : done ? spent / done * (p->total - done) : 0,
            terminal ? "\033[K" : "", end || !terminal ? "\n" : "");
    fflush(stderr);
}

/* ---------------------------------------------------------------- a run's directory */

/* Makes the run directory, refusing one that holds a run already, and writes run.json. */
static void run_start(const Session *s, int command)
{
    const char *out = s->o.out;
    Buf b = {0};
    if (!out)
        usage("--out is missing");
    if (is_file(path_join(out, "run.json").s) && !s->o.force)
        die("%s: holds a run already; choose another --out, or --force to replace it", out);
    make_dirs(out);
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "checkpoint-", 11))
            remove_dir(path_join(out, entry->d_name).s);
    if (dir)
        closedir(dir);
    buf_printf(&b, "{\n  \"version\": \"%s\",\n  \"simd\": \"%s\",\n  \"command\": \"%s\",", VERSION,
               SIMD_NAME, COMMANDS[command]);
    options_json(OPTIONS, N_OPTIONS, command, &s->o, &b);
    buf_str(&b, "\n}\n");
    write_file(path_join(out, "run.json").s, b.s, b.n);
    buf_free(&b);
}

static FILE *run_file(const char *out, const char *name)
{
    Path p = path_join(out, name);
    FILE *f = fopen(p.s, "wb");
    if (!f)
        die("%s: cannot be written: %s", p.s, strerror(errno));
    return f;
}

static void run_line(FILE *f, Buf *b, const char *out, const char *name)
{
    buf_str(b, "}\n");
    if (fwrite(b->s, 1, b->n, f) != b->n || fflush(f))
        die("%s/%s: cannot be written: %s", out, name, strerror(errno));
    b->n = 0;
}

/* checkpoint-<step>: a whole model directory, made under another name and then renamed. */
static void save_checkpoint(const Session *s, int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%d", step);
    Path final = path_join(s->o.out, name), temporary;
    snprintf(name, sizeof name, "tmp-checkpoint-%d", step);
    temporary = path_join(s->o.out, name);
    remove_dir(temporary.s);
    make_dirs(temporary.s);
    model_save(&s->model, temporary.s);
    Path tokenizer = path_join(temporary.s, "tokenizer.json");
    if (s->tokenizer_path.s[0]) {
        size_t n;
        char *text = read_file(s->tokenizer_path.s, &n);
        write_file(tokenizer.s, text, n);
        free(text);
    } else
        tokenizer_write(tokenizer.s, TASK_ALPHABET);
    sync_dir(temporary.s);
    remove_dir(final.s);
    if (rename(temporary.s, final.s))
        die("%s: cannot be written: %s", final.s, strerror(errno));
    sync_dir(s->o.out);
}

static double learning_rate(const Options *o, int step)
{
    return schedule_lr((Schedule)o->schedule, o->lr, step, o->warmup, o->steps);
}

static AdamW optimizer(const Options *o)
{
    return (AdamW){o->beta1, o->beta2, o->adam_eps, o->weight_decay, o->clip_norm, 0};
}

static void put_hash(Buf *b, const Model *m)
{
    buf_printf(b, ", \"weights_hash\": \"%016llx\"", (unsigned long long)weights_hash(m));
}

/* ================================================================ sft */

/* One supervised example: token ids, and for each position the id to be learned there, or -100. */
typedef struct {
    int *ids, *labels, n;
} Record;

enum { NOT_TRAINED = -100 };

/* prompt + response + end token, of which the prompt is not trained on. */
static Record record_of_text(const Session *s, const char *prompt, const char *response,
                             const char *what)
{
    int room = s->model.config.max_position_embeddings;
    size_t np = strlen(prompt), nr = strlen(response);
    Record r = {xmalloc((np + nr + 2) * sizeof(int)), xmalloc((np + nr + 2) * sizeof(int)), 0};
    int first = r.n = encode(&s->tokenizer, prompt, np, r.ids, room, what);
    r.n += encode(&s->tokenizer, response, nr, r.ids + r.n, room, what);
    if (s->model.config.n_eos)
        r.ids[r.n++] = s->model.config.eos_token_id[0];
    for (int i = 0; i < r.n; i++)
        r.labels[i] = i < first ? NOT_TRAINED : r.ids[i];
    return r;
}

static void record_free(Record *r)
{
    free(r->ids);
    free(r->labels);
}

/* A JSON array of ids in [low, vocab), or NOT_TRAINED where that is allowed. */
static int read_ids(Json *j, const Config *c, bool labels, int **ids, const char *path, int line)
{
    int n = 0, room = 0;
    for (json_array(j); json_item(j); n++) {
        int64_t id;
        if (!json_int(j, &id))
            break;
        if ((id < 0 || id >= c->vocab_size) && !(labels && id == NOT_TRAINED))
            die("%s: line %d: %s holds %lld; expected ids from 0 to %d%s", path, line,
                labels ? "labels" : "the list of ids", (long long)id, c->vocab_size - 1,
                labels ? ", or -100" : "");
        if (n == room)
            *ids = xrealloc(*ids, (size_t)(room = room * 2 + 64) * sizeof(int));
        (*ids)[n] = (int)id;
    }
    return n;
}

/* One line of --data: prompt and response, or input_ids and labels (default: the ids). */
static Record record_read(const Session *s, Json *j, const char *path, int line)
{
    Record r = {0};
    int labels = -1;
    Buf key = {0}, prompt = {0}, response = {0};
    char what[64];
    for (json_object(j); json_key(j, &key);)
        if (is_one_of(key.s, "prompt", "question", "problem"))
            json_string(j, &prompt);
        else if (is_one_of(key.s, "response", "completion", "answer"))
            json_string(j, &response);
        else if (!strcmp(key.s, "input_ids"))
            r.n = read_ids(j, &s->model.config, false, &r.ids, path, line);
        else if (!strcmp(key.s, "labels"))
            labels = read_ids(j, &s->model.config, true, &r.labels, path, line);
        else
            json_skip(j);
    jsonl_end(j, path, line);
    snprintf(what, sizeof what, "line %d", line);
    if (!r.ids && prompt.n && response.n)
        r = record_of_text(s, prompt.s, response.s, what);
    else if (!r.ids || r.n < 2)
        die("%s: line %d: expected prompt and response, or at least two input_ids", path, line);
    else if (labels < 0) {
        r.labels = xmalloc((size_t)r.n * sizeof(int));
        memcpy(r.labels, r.ids, (size_t)r.n * sizeof(int));
    } else if (labels != r.n)
        die("%s: line %d: %d labels for %d input_ids; expected as many", path, line, labels, r.n);
    buf_free(&key);
    buf_free(&prompt);
    buf_free(&response);
    return r;
}

static Record *records_read(const Session *s, const char *path, int *count)
{
    Record *all = NULL;
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    *count = 0;
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        all = xrealloc(all, (size_t)(*count + 1) * sizeof *all);
        all[(*count)++] = record_read(s, &j, path, line);
    }
    if (!*count)
        die("%s: holds no records", path);
    free(text);
    return all;
}

/* A fresh example of the task: a training problem with one of its derivations. */
static Record record_draw(const Session *s, uint32_t index)
{
    Buf prompt = {0}, answer = {0}, response = {0};
    task_problem(&s->task, s->o.seed, false, index, &prompt, &answer);
    task_solution(&s->task, prompt.s, s->o.seed, index, &response);
    Record r = record_of_text(s, prompt.s, response.s, "task");
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&response);
    return r;
}

/* Labels of a record that have something before them to be predicted from. */
static int record_targets(const Record *r)
{
    int n = 0;
    for (int i = 1; i < r->n; i++)
        n += r->labels[i] != NOT_TRAINED;
    return n;
}

/* One update on n records: loss = mean of -log p over all trained-on tokens of the batch. */
static double sft_update(Session *s, const Record *r, int n, int at_once, int *tokens)
{
    Engine *e = &s->engine;
    Model *m = &s->model;
    int targets = 0;
    double loss = 0;
    for (int i = 0; i < n; i++)
        targets += record_targets(&r[i]);
    *tokens = targets;
    for (int i = 0, k; i < n && targets; i += k) {
        int rows = 0;
        size_t mark = e->arena.used;
        k = imin(at_once, n - i);
        for (int j = i; j < i + k; j++)
            rows += r[j].n - 1;
        Batch b = batch_new(&e->arena, rows, k, rows);
        for (int j = i; j < i + k; j++) {
            int row = b.n_rows;
            batch_seq(&b, r[j].ids, r[j].n - 1, 0, -1);
            for (int t = 1; t < r[j].n; t++)
                if (r[j].labels[t] != NOT_TRAINED)
                    batch_target(&b, row + t - 1, r[j].labels[t]);
        }
        float *coef = arena_floats(&e->arena, (size_t)b.n_targets);
        Forward f = forward(e, m, &b, true);
        forward_head(e, m, &b, &f, 1.0f, true);
        for (int t = 0; t < b.n_targets; t++) {
            loss -= (double)f.head.logprob[t] / targets;
            coef[t] = (float)(-1.0 / targets);
        }
        backward(e, m, &b, &f, coef);
        e->arena.used = mark;
    }
    return loss;
}

/* Weights and tokenizer to start from: --preset at random, or --model. */
static void sft_model(Session *s)
{
    const Options *o = &s->o;
    const Config *preset = o->preset ? preset_find(o->preset) : NULL;
    if (!o->preset == !o->model)
        usage("sft: expected one of --preset NAME (random weights) and --model DIR");
    if (o->model) {
        session_load(s, o->model, true);
        return;
    }
    if (!preset)
        usage("--preset: '%.60s'; expected nano, tiny, small, medium or qwen3-0.6b", o->preset);
    Config c = *preset;
    s->tokenizer = tokenizer_characters(TASK_ALPHABET);
    c.vocab_size = s->tokenizer.n_vocab;
    c.n_eos = 1; /* id 0 */
    s->model = model_new(&c);
    model_init(&s->model, o->seed);
    model_pack(&s->model, s->engine.threads);
}

static void cmd_sft(Session *s)
{
    const Options *o = &s->o;
    int n_records = 0, longest = TASK_PROMPT_MAX + TASK_RESPONSE_MAX, *order = NULL, epoch = -1;
    sft_model(s);
    Record *records = o->data ? records_read(s, o->data, &n_records) : NULL;
    run_start(s, SFT);
    for (int i = 0; i < n_records; i++)
        longest = i ? imax(longest, records[i].n) : records[i].n;
    order = xcalloc((size_t)n_records, sizeof(int));
    int at_once = good_micro_batch(o->micro_batch, o->batch, imin(longest, n_records ? longest : 32));
    size_t rows = (size_t)at_once * (size_t)longest;
    model_trainable(&s->model);
    rope_reserve(&s->model, longest);
    s->engine.arena = arena_new(pass_bytes(&s->model, s->engine.threads, rows, rows, longest, true) +
                                rows * 8);
    AdamW adam = optimizer(o);
    FILE *metrics = run_file(o->out, "metrics.jsonl");
    Progress p = progress_new("sft", o->steps);
    Record *batch = xcalloc((size_t)o->batch, sizeof *batch);
    Buf line = {0};
    char note[64] = "";
    for (int step = 0; step < o->steps; step++) {
        double start = now_seconds(), lr = learning_rate(o, step);
        int tokens;
        for (int i = 0; i < o->batch; i++) {
            uint32_t index = (uint32_t)step * (uint32_t)o->batch + (uint32_t)i;
            int pass = n_records ? (int)(index / (uint32_t)n_records) : 0;
            if (n_records && pass != epoch)
                shuffle(order, n_records, o->seed, epoch = pass);
            int at = n_records ? (int)(index % (uint32_t)n_records) : 0;
            batch[i] = n_records ? records[o->shuffle ? order[at] : at] : record_draw(s, index);
        }
        grads_zero(&s->model);
        double loss = sft_update(s, batch, o->batch, at_once, &tokens);
        double norm = adamw_step(&s->model, &adam, lr, s->engine.threads);
        for (int i = 0; i < o->batch && !n_records; i++)
            record_free(&batch[i]);
        buf_printf(&line, "{\"step\": %d", step + 1);
        put(&line, "loss", loss);
        put(&line, "lr", lr);
        put(&line, "grad_norm", norm);
        put(&line, "tokens", tokens);
        put(&line, "tokens_per_s", tokens / (now_seconds() - start));
        put_hash(&line, &s->model);
        run_line(metrics, &line, o->out, "metrics.jsonl");
        if (!isfinite(loss) || !isfinite(norm))
            die("step %d: the loss is %g and the gradient's norm %g; try a smaller --lr", step + 1,
                loss, norm);
        if (o->save_every && (step + 1) % o->save_every == 0 && step + 1 < o->steps)
            save_checkpoint(s, step + 1);
        snprintf(note, sizeof note, "loss %.4f", loss);
        progress(&p, step + 1, note);
    }
    save_checkpoint(s, o->steps);
    fclose(metrics);
    for (int i = 0; i < n_records; i++)
        record_free(&records[i]);
    free(records);
    free(order);
    free(batch);
    buf_free(&line);
}

/* ================================================================ evaluation on a model */

/* Samples and judges every problem, `at_once` together, and takes their features as well. The same
 * seed draws the same random numbers for every model: comparisons are paired. */
static void evaluate(Engine *e, Model *m, const Tokenizer *t, Problems *p, const Sampling *s,
                     int at_once, Evaluation *ev, Progress *report)
{
    MethodOptions grpo = {.method = GRPO};
    Extent x = {.m = ev->samples, .max_prompt = longest_prompt(p), .max_tokens = s->max_tokens};
    double temperature = s->temperature > 0 ? s->temperature : 1;
    for (int i = 0; i < ev->problems; i += x.groups) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, ev->problems - i);
        Group *g = groups_new(e, m, x);
        for (int k = 0; k < x.groups; k++)
            group_ask(&g[k], &e->arena, p, (uint32_t)(i + k), t, x.max_prompt);
        sample_groups(e, m, g, x.groups, s);
        for (int k = 0; k < x.groups; k++) {
            size_t inner = e->arena.used;
            verify_group(&g[k], &p->task, t);
            Batch b = pack_groups(&e->arena, &g[k], 1);
            look(e, m, &b, &g[k], 1, false, temperature, &grpo, s->seed, 0, true);
            group_sums(&ev->sums, &g[k]);
            for (int q = 0; q < passes(ev->samples); q++)
                ev->pass[q][i + k] = pass_at_k(ev->samples, count_right(&g[k]), 1 << q);
            ev->maj[i + k] = group_majority(&g[k], &p->task, t, ev->maj_k);
            e->arena.used = inner;
        }
        e->arena.used = mark;
        if (report)
            progress(report, i + x.groups, "problems");
    }
}

static Extent eval_extent(const Problems *p, int samples, int max_tokens)
{
    int at_once = imax(1, 512 / samples);
    return (Extent){at_once, samples, longest_prompt(p), max_tokens, 1, false};
}

/* One row of the table that `eval` prints. */
static void print_evaluation(const Evaluation *ev, FILE *f)
{
    const GroupSums *s = &ev->sums;
    int last = passes(imin(ev->samples, 16)) - 1;
    const double *columns[3] = {ev->pass[0], ev->maj, ev->pass[last]};
    fprintf(f, "%-10s", ev->name);
    for (int i = 0; i < 3; i++) {
        Estimate x = bootstrap(columns[i], ev->problems, ev->seed);
        fprintf(f, "  %5.1f [%4.1f, %4.1f]", 100 * x.value, 100 * x.low, 100 * x.high);
    }
    fprintf(f, "  %7.3f  %6.1f %%  %8.3f  %6.1f\n", ratio(s->cosine, s->pairs),
            100 * ratio(s->negative, s->pairs), ratio(s->entropy, s->tokens),
            ratio(s->tokens, s->responses));
}

static void print_evaluation_head(const Evaluation *ev, FILE *f)
{
    char maj[16], pass[16];
    snprintf(maj, sizeof maj, "maj@%d", ev->maj_k);
    snprintf(pass, sizeof pass, "pass@%d", 1 << (passes(imin(ev->samples, 16)) - 1));
    fprintf(f, "%-10s  %-18s  %-18s  %-18s  %7s  %8s  %8s  %6s\n", "percent", "pass@1", maj, pass,
            "cosine", "negative", "entropy", "length");
}

/* The models to evaluate: --model, or words NAME=DIR, each a row of one table. */
static void cmd_eval(Session *s)
{
    const Options *o = &s->o;
    int n = imax(1, s->words.n_words);
    Problems p = session_problems(s, o->split == 1 || o->data);
    int problems = p.n ? imin(p.n, o->problems) : o->problems;
    Evaluation *all = xcalloc((size_t)n, sizeof *all);
    FILE *table = o->json ? stderr : stdout;
    Buf b = {0};
    if (!s->words.n_words == !o->model)
        usage("eval: expected --model DIR, or models to compare as NAME=DIR");
    for (int i = 0; i < n; i++) {
        const char *word = o->model ? o->model : s->words.word[i], *equals = strchr(word, '=');
        char name[64] = "model";
        if (!o->model && (!equals || equals == word))
            usage("eval: '%.60s'; expected NAME=DIR", word);
        if (!o->model)
            snprintf(name, sizeof name, "%.*s", (int)imin(60, (int)(equals - word)), word);
        session_load(s, o->model ? word : equals + 1, true);
        Sampling sampling = session_sampling(s, 0);
        Extent x = eval_extent(&p, o->samples, o->max_tokens);
        s->engine.arena = arena_new(extent_bytes(&s->model, s->engine.threads, x));
        all[i] = evaluation_new(xstrdup(name), problems, o->samples, o->seed);
        rope_reserve(&s->model, x.max_prompt + x.max_tokens);
        Progress report = progress_new(name, problems);
        evaluate(&s->engine, &s->model, &s->tokenizer, &p, &sampling, x.groups, &all[i], &report);
        arena_free(&s->engine.arena);
        model_free(&s->model);
        tokenizer_free(&s->tokenizer);
        buf_printf(&b, o->model ? "%s{\"name\": \"model\"" : "%s\n  \"%s\": {\"name\": \"%s\"",
                   i ? "," : "", name, name);
        evaluation_json(&all[i], &b);
        buf_str(&b, "}");
    }
    print_evaluation_head(&all[0], table);
    for (int i = 0; i < n; i++)
        print_evaluation(&all[i], table);
    if (o->json)
        printf(o->model ? "%s\n" : "{%s\n}\n", b.s);
    for (int i = 0; i < n; i++) {
        free((char *)all[i].name);
        evaluation_free(&all[i]);
    }
    free(all);
    buf_free(&b);
    problems_free(&p);
}

/* ================================================================ train */

/* One row of the ledger: a rollout with every number that made its advantage. */
static void put_rollout(Buf *b, const Group *g, int i, int step, const Tokenizer *t)
{
    Buf text = {0};
    double logprob = 0, entropy = 0;
    int n = response_length(g, i);
    for (int k = g->start[i]; k < g->start[i + 1]; k++) {
        logprob += (double)g->logprob_old[k];
        entropy += (double)g->entropy[k] / n;
    }
    response_text(g, i, t, &text);
    buf_printf(b, "{\"step\": %d, \"prompt_index\": %u, \"rollout\": %d", step, g->index, i);
    put_text(b, "prompt", g->text, strlen(g->text));
    put_text(b, "response", text.s, text.n);
    put_text(b, "answer", g->answer, strlen(g->answer));
    put(b, "length", n);
    buf_printf(b, ", \"truncated\": %s", g->truncated[i] ? "true" : "false");
    put(b, "reward", g->reward[i]);
    put_text(b, "reason", g->reason[i], strlen(g->reason[i]));
    put_vector(b, "S", g->S + (ptrdiff_t)i * g->m, g->m);
    put_vector(b, "w", g->w + (ptrdiff_t)i * g->m, g->m);
    put(b, "nu", g->nu[i]);
    put(b, "nubar", g->nubar[i]);
    put(b, "rtilde", g->shaped[i]);
    put(b, "advantage", g->advantage[i]);
    put(b, "logprob", logprob);
    put(b, "entropy", entropy);
    buf_free(&text);
}

/* The row of metrics.jsonl for one step. */
static void put_metrics(Buf *b, int step, const GroupSums *s, const LossSums *l, const Update *u,
                        bool reference)
{
    buf_printf(b, "{\"step\": %d", step);
    put(b, "reward", ratio(s->reward, s->groups));
    put(b, "reward_std", ratio(s->reward_std, s->groups));
    put(b, "pass@1", ratio(s->right, s->responses));
    put(b, "frac_dead", ratio(s->dead, s->groups));
    put(b, "completions/mean_length", ratio(s->tokens, s->responses));
    put(b, "completions/clipped_ratio", ratio(s->truncated, s->responses));
    put(b, "entropy", ratio(l->entropy, l->tokens));
    put(b, "kl_exact", (double)NAN);
    put(b, "kl_k1", reference ? ratio(l->k1, l->tokens) : (double)NAN);
    put(b, "kl_k3", reference ? ratio(l->k3, l->tokens) : (double)NAN);
    put(b, "clip_low", ratio(l->clipped_low, l->tokens));
    put(b, "clip_high", ratio(l->clipped_high, l->tokens));
    put(b, "log_ratio_clamped", l->clamped);
    put(b, "phi/cos_mean", ratio(s->cosine, s->pairs));
    put(b, "phi/neg_ratio", ratio(s->negative, s->pairs));
    put(b, "phi/nu_mean", ratio(s->nu, s->responses));
    put(b, "adv/novelty_share", ratio(s->novelty2, s->advantage2));
    put(b, "logp_gap", u->logp_gap);
}

/* A training run: what lasts from step to step. */
typedef struct {
    Session *s;
    Model reference;
    Problems problems, held_out;
    AdamW adam;
    Extent extent;
    FILE *metrics, *ledger, *evals;
    double seconds[PHASES];
} Trainer;

/* Training prompts are drawn from this index on: not those that supervised training began with. */
enum { FIRST_PROMPT = 1 << 30 };

/* Steps 1 and 2: the groups of this step, sampled and verified. */
static void roll_out(Trainer *t, Group *g, int step, double *seconds)
{
    Session *s = t->s;
    int n = s->o.prompts;
    double clock = now_seconds();
    for (int i = 0; i < n; i++)
        group_ask(&g[i], &s->engine.arena, &t->problems,
                  (uint32_t)(step * n + i) + (t->problems.n ? 0 : FIRST_PROMPT), &s->tokenizer,
                  t->extent.max_prompt);
    Sampling sampling = session_sampling(s, step);
    sample_groups(&s->engine, &s->model, g, n, &sampling);
    seconds[SAMPLE] += lap(&clock);
    for (int i = 0; i < n; i++)
        verify_group(&g[i], &s->task, &s->tokenizer);
    seconds[VERIFY] += lap(&clock);
}

/* Step 7, with 3 to 6 inside its first forward pass: one update on all groups, or, with
 * --mini-batch and --epochs, several. Then the advantages are made first, once, by the policy that
 * sampled. Returns the mean gradient norm. */
static double update(Trainer *t, Group *g, Update *u, double lr, LossSums *sums, double *loss)
{
    Session *s = t->s;
    const Options *o = &s->o;
    int n = o->prompts, size = o->mini_batch ? imin(o->mini_batch, n) : n, updates = 0;
    bool several = size < n || o->epochs > 1;
    double norm = 0, clock = now_seconds();
    for (int i = 0, k; several && i < n; i += k) {
        size_t mark = s->engine.arena.used;
        k = micro_batch(i, n, u->micro_batch);
        Batch b = pack_groups(&s->engine.arena, g + i, k);
        look(&s->engine, &s->model, &b, g + i, k, false, u->temperature, &u->method, u->seed,
             u->step, true);
        s->engine.arena.used = mark;
    }
    u->seconds[FORWARD] += lap(&clock);
    for (int epoch = 0; epoch < o->epochs; epoch++)
        for (int i = 0; i < n; i += size, updates++) {
            grads_zero(&s->model);
            *loss += accumulate_gradient(&s->engine, &s->model, g + i, imin(size, n - i), u,
                                         !several, sums);
            clock = now_seconds();
            norm += adamw_step(&s->model, &t->adam, lr, s->engine.threads);
            u->seconds[OPTIMIZER] += lap(&clock);
        }
    *loss /= updates;
    return norm / updates;
}

/* Held-out problems, every --eval-every steps: a row of eval.jsonl. */
static void train_eval(Trainer *t, int step)
{
    Session *s = t->s;
    Buf b = {0};
    Evaluation ev = evaluation_new("held-out", t->held_out.n ? imin(t->held_out.n, s->o.problems)
                                                             : s->o.problems,
                                   s->o.samples, s->o.seed);
    Sampling sampling = session_sampling(s, 0);
    evaluate(&s->engine, &s->model, &s->tokenizer, &t->held_out, &sampling,
             imax(1, t->extent.groups * t->extent.m / s->o.samples), &ev, NULL);
    buf_printf(&b, "{\"step\": %d", step);
    evaluation_json(&ev, &b);
    run_line(t->evals, &b, s->o.out, "eval.jsonl");
    evaluation_free(&ev);
    buf_free(&b);
}

/* One step of training, and its rows in the run's files. */
static void train_step(Trainer *t, int step, Progress *report)
{
    Session *s = t->s;
    const Options *o = &s->o;
    size_t mark = s->engine.arena.used;
    double start = now_seconds(), clock = start, lr = learning_rate(o, step), loss = 0;
    Update u = {.method = method_options(o), .temperature = o->temperature, .seed = o->seed,
                .step = step, .micro_batch = t->extent.at_once};
    LossSums sums = {0};
    GroupSums groups = {0};
    Buf b = {0};
    char note[96];
    Group *g = groups_new(&s->engine, &s->model, t->extent);
    roll_out(t, g, step, u.seconds);
    clock = now_seconds();
    if (o->kl_coef > 0)
        reference_logprobs(&s->engine, &t->reference, g, o->prompts, u.micro_batch, o->temperature);
    u.seconds[REFERENCE] += lap(&clock);
    double norm = update(t, g, &u, lr, &sums, &loss);
    if (!isfinite(loss) || !isfinite(norm))
        die("step %d: the loss is %g and the gradient's norm %g; try a smaller --lr", step + 1,
            loss, norm);
    for (int i = 0; i < o->prompts; i++) {
        group_sums(&groups, &g[i]);
        for (int k = 0; k < g[i].m; k++) {
            put_rollout(&b, &g[i], k, step + 1, &s->tokenizer);
            run_line(t->ledger, &b, o->out, "rollouts.jsonl");
        }
    }
    put_metrics(&b, step + 1, &groups, &sums, &u, o->kl_coef > 0);
    put(&b, "loss", loss);
    put(&b, "grad_norm", norm);
    put(&b, "lr", lr);
    for (int i = 0; i < PHASES; i++) {
        char name[32];
        snprintf(name, sizeof name, "time/%s", PHASE_NAMES[i]);
        put(&b, name, u.seconds[i]);
        t->seconds[i] += u.seconds[i];
    }
    put(&b, "tokens_per_s", groups.tokens / (now_seconds() - start));
    put_hash(&b, &s->model);
    run_line(t->metrics, &b, o->out, "metrics.jsonl");
    snprintf(note, sizeof note, "pass@1 %.3f  entropy %.3f  cosine %+.3f",
             ratio(groups.right, groups.responses), ratio(sums.entropy, sums.tokens),
             ratio(groups.cosine, groups.pairs));
    progress(report, step + 1, note);
    s->engine.arena.used = mark;
    buf_free(&b);
}

/* Where the time went. */
static void print_profile(const Trainer *t)
{
    double total = 0;
    for (int i = 0; i < PHASES; i++)
        total += t->seconds[i];
    fprintf(stderr, "time:");
    for (int i = 0; i < PHASES; i++)
        fprintf(stderr, "  %s %.1f s (%.0f %%)", PHASE_NAMES[i], t->seconds[i],
                100 * ratio(t->seconds[i], total));
    fputc('\n', stderr);
}

static void cmd_train(Session *s)
{
    const Options *o = &s->o;
    Trainer t = {.s = s, .adam = optimizer(o)};
    session_load(s, o->model, true);
    t.problems = session_problems(s, false);
    t.held_out = (Problems){.task = s->task, .held_out = true, .seed = o->seed};
    int longest = longest_prompt(&t.problems), threads = s->engine.threads;
    t.extent = (Extent){o->prompts, o->rollouts, longest, o->max_tokens,
                        good_micro_batch(o->micro_batch, o->prompts,
                                         longest + o->rollouts * o->max_tokens / 2), true};
    run_start(s, TRAIN);
    if (o->kl_coef > 0) {
        Path dir = model_dir(o->model);
        t.reference = model_load(dir.s);
        model_pack(&t.reference, threads);
        rope_reserve(&t.reference, longest + o->max_tokens);
    }
    model_trainable(&s->model);
    rope_reserve(&s->model, longest + o->max_tokens);
    Extent look_back = eval_extent(&t.held_out, o->samples, o->max_tokens);
    look_back.groups = imax(1, o->prompts * o->rollouts / o->samples);
    size_t bytes = extent_bytes(&s->model, threads, t.extent);
    size_t eval_bytes = o->eval_every ? extent_bytes(&s->model, threads, look_back) : 0;
    s->engine.arena = arena_new(bytes > eval_bytes ? bytes : eval_bytes);
    t.metrics = run_file(o->out, "metrics.jsonl");
    t.ledger = run_file(o->out, "rollouts.jsonl");
    t.evals = o->eval_every ? run_file(o->out, "eval.jsonl") : NULL;
    Progress report = progress_new(o->method == GRPO ? "train grpo" : "train g2rl", o->steps);
    if (o->eval_every)
        train_eval(&t, 0);
    for (int step = 0; step < o->steps; step++) {
        train_step(&t, step, &report);
        if (o->eval_every && (step + 1) % o->eval_every == 0)
            train_eval(&t, step + 1);
        if (o->save_every && (step + 1) % o->save_every == 0 && step + 1 < o->steps)
            save_checkpoint(s, step + 1);
    }
    save_checkpoint(s, o->steps);
    print_profile(&t);
    fclose(t.metrics);
    fclose(t.ledger);
    if (t.evals)
        fclose(t.evals);
    model_free(&t.reference);
    problems_free(&t.problems);
}

/* ================================================================ sample, score */

/* Prints a response as it grows, held back by what may still become --stop. */
typedef struct {
    const Session *s;
    Buf text;
    size_t shown;
    bool stopped;
} Printer;

static void printer_token(void *context, int id)
{
    Printer *p = context;
    const char *stop = p->s->o.stop, *found;
    tokenizer_decode(&p->s->tokenizer, &id, 1, true, &p->text);
    size_t end = p->text.n, hold = stop ? strlen(stop) - 1 : 0;
    if (stop && (found = strstr(p->text.s, stop))) {
        end = (size_t)(found - p->text.s);
        p->stopped = true;
    } else
        end -= hold < end ? hold : end;
    if (end > p->shown) {
        fwrite(p->text.s + p->shown, 1, end - p->shown, stdout);
        fflush(stdout);
        p->shown = end;
    }
}

static void cmd_sample(Session *s)
{
    const Options *o = &s->o;
    if (!o->prompt)
        usage("sample: --prompt is missing");
    if (o->stop && !*o->stop)
        usage("--stop: expected some text");
    session_load(s, o->model, true);
    int length = (int)strlen(o->prompt) + 1;
    Extent x = {1, o->samples, imax(length, 64), o->max_tokens, 1, false};
    s->engine.arena = arena_new(extent_bytes(&s->model, s->engine.threads, x));
    Group *g = groups_new(&s->engine, &s->model, x);
    g->prompt_length = encode(&s->tokenizer, o->prompt, strlen(o->prompt), g->prompt, x.max_prompt,
                              "--prompt");
    Printer p = {.s = s};
    Sampling sampling = session_sampling(s, 0);
    if (o->samples == 1) { /* streamed */
        sampling.on_token = printer_token;
        sampling.context = &p;
    }
    sample_groups(&s->engine, &s->model, g, 1, &sampling);
    for (int i = 0; i < g->m; i++) {
        for (int k = g->start[i]; o->samples > 1 && k < g->start[i + 1]; k++)
            printer_token(&p, g->token[k]);
        if (!p.stopped && p.text.n > p.shown)
            fwrite(p.text.s + p.shown, 1, p.text.n - p.shown, stdout);
        putchar('\n');
        p.text.n = p.shown = 0;
        p.stopped = false;
    }
    buf_free(&p.text);
}

/* One line in, one line out: log p of each id given those before it; the first has none. */
static void score_line(Session *s, Json *j, int line, Buf *out)
{
    Buf key = {0}, text = {0};
    int *ids = NULL, n = 0;
    bool have_text = false;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "input_ids"))
            n = read_ids(j, &s->model.config, false, &ids, "stdin", line);
        else if (!strcmp(key.s, "text"))
            have_text = json_string(j, &text);
        else
            json_skip(j);
    jsonl_end(j, "stdin", line);
    if (!ids && have_text) {
        if (!s->tokenizer.n_vocab)
            s->tokenizer = tokenizer_load(s->tokenizer_path.s);
        ids = xmalloc((text.n + 1) * sizeof(int));
        n = encode(&s->tokenizer, text.s, text.n, ids, (int)text.n + 1, "stdin");
    }
    if (n < 1)
        die("stdin: line %d: expected text or input_ids, at least one token", line);
    size_t rows = (size_t)n;
    rope_reserve(&s->model, n);
    s->engine.arena = arena_new(pass_bytes(&s->model, s->engine.threads, rows, rows, n, false));
    Batch b = batch_new(&s->engine.arena, n, 1, n);
    batch_seq(&b, ids, n, 0, -1);
    for (int t = 0; t + 1 < n; t++)
        batch_target(&b, t, ids[t + 1]);
    Forward f = forward(&s->engine, &s->model, &b, false);
    forward_head(&s->engine, &s->model, &b, &f, (float)s->o.temperature, false);
    buf_str(out, "{\"input_ids\": [");
    for (int t = 0; t < n; t++)
        buf_printf(out, t ? ", %d" : "%d", ids[t]);
    buf_str(out, "], \"logprobs\": [null");
    for (int t = 0; t + 1 < n; t++) {
        buf_str(out, ", ");
        json_put_number(out, (double)f.head.logprob[t]);
    }
    buf_str(out, "]}\n");
    arena_free(&s->engine.arena);
    free(ids);
    buf_free(&key);
    buf_free(&text);
}

static void cmd_score(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    Buf out = {0};
    session_load(s, s->o.model, false);
    char *text = read_stream(stdin, "stdin", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        score_line(s, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        out.n = 0;
    }
    buf_free(&out);
    free(text);
}

/* ================================================================ explain */

static void explain_json(const Group *g, int d)
{
    Buf b = {0};
    double *Phi = xmalloc((size_t)(g->m * d) * sizeof *Phi);
    for (int i = 0; i < g->m * d; i++)
        Phi[i] = (double)g->Phi[i];
    put_matrix(&b, "Phi", Phi, g->m, d);
    put_matrix(&b, "S", g->S, g->m, g->m);
    put_matrix(&b, "w", g->w, g->m, g->m);
    put_vector(&b, "r", g->reward, g->m);
    put_vector(&b, "nu", g->nu, g->m);
    put_vector(&b, "nubar", g->nubar, g->m);
    put_vector(&b, "rtilde", g->shaped, g->m);
    put_vector(&b, "A", g->advantage, g->m);
    printf("{%s}\n", b.s + 2);
    free(Phi);
    buf_free(&b);
}

/* The table that a class can follow, a response a row; below it the matrix S. */
static void explain_table(const Group *g, const Tokenizer *t)
{
    Buf text = {0};
    printf("prompt %s\n\n%3s  %-32s %4s  %6s %6s %6s %7s   reason\n", g->text, "i", "response", "r",
           "nu", "nubar", "r~", "A");
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        printf("%3d  %-32.60s %+4.3g  %6.3f %6.3f %+6.2f %+7.3f   %s\n", i, text.s, g->reward[i],
               g->nu[i], g->nubar[i], g->shaped[i], g->advantage[i], g->reason[i]);
    }
    printf("\nS: cosines of the responses' gradient features (Eq 9)\n    ");
    for (int j = 0; j < g->m; j++)
        printf("%6d", j);
    for (int i = 0; i < g->m; i++) {
        printf("\n%3d ", i);
        for (int j = 0; j < g->m; j++)
            printf(" %+5.2f", g->S[i * g->m + j]);
    }
    printf("\n\nnu = 1 - sum_j w_ij S_ij^2, w from the others' rewards: what a response's direction "
           "adds (Eq 10-11).\nnubar: nu taken to 0 .. 1 inside the group. r~: the shaped reward "
           "(Eq 12-13). A: its distance from the mean, in standard deviations (Eq 2).\n");
    buf_free(&text);
}

/* Features, advantages and output of a group whose responses and rewards are there. */
static void explain_group(Session *s, Group *g)
{
    MethodOptions o = method_options(&s->o);
    size_t mark = s->engine.arena.used;
    rope_reserve(&s->model, longest_sequence(g, 1));
    Batch b = pack_groups(&s->engine.arena, g, 1);
    look(&s->engine, &s->model, &b, g, 1, false, s->o.temperature, &o, s->o.seed, 0, true);
    s->engine.arena.used = mark;
    if (s->o.json)
        explain_json(g, s->model.config.hidden_size);
    else
        explain_table(g, &s->tokenizer);
}

/* A line of --data: a prompt, its responses and their rewards. */
typedef struct {
    int *prompt, prompt_length, m, rewards;
    int **response, *length;
    double *reward;
} Given;

static void given_free(Given *x)
{
    for (int i = 0; i < x->m; i++)
        free(x->response[i]);
    free(x->response);
    free(x->length);
    free(x->reward);
    free(x->prompt);
}

/* Appends a response to what is given. */
static void given_response(Given *x, int *ids, int n)
{
    size_t count = (size_t)x->m + 1;
    x->response = xrealloc(x->response, count * sizeof *x->response);
    x->length = xrealloc(x->length, count * sizeof *x->length);
    x->response[x->m] = ids;
    x->length[x->m++] = n;
}

/* Text to ids; a response's text ends with the end token, which is part of y. */
static int *given_text(Session *s, Json *j, bool response, int *n)
{
    Buf text = {0};
    if (!json_string(j, &text))
        return NULL;
    if (!s->tokenizer.n_vocab)
        s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    int *ids = xmalloc((text.n + 2) * sizeof(int));
    *n = text.n ? encode(&s->tokenizer, text.s, text.n, ids, (int)text.n + 1, "--data") : 0;
    if (response && s->model.config.n_eos)
        ids[(*n)++] = s->model.config.eos_token_id[0];
    buf_free(&text);
    return ids;
}

/* {"prompt", "responses", "rewards"}, or prompt_ids and response_ids in place of the texts. */
static Given given_read(Session *s, Json *j, const char *path, int line)
{
    const Config *c = &s->model.config;
    Given x = {0};
    Buf key = {0};
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "prompt"))
            x.prompt = given_text(s, j, false, &x.prompt_length);
        else if (!strcmp(key.s, "prompt_ids"))
            x.prompt_length = read_ids(j, c, false, &x.prompt, path, line);
        else if (!strcmp(key.s, "responses") || !strcmp(key.s, "response_ids")) {
            for (json_array(j); json_item(j);) {
                int *ids = NULL, n = 0;
                if (key.s[8] == 's')
                    ids = given_text(s, j, true, &n);
                else
                    n = read_ids(j, c, false, &ids, path, line);
                given_response(&x, ids, n);
            }
        } else if (!strcmp(key.s, "rewards")) {
            for (json_array(j); json_item(j); x.rewards++) {
                x.reward = xrealloc(x.reward, (size_t)(x.rewards + 1) * sizeof(double));
                if (!json_number(j, &x.reward[x.rewards]))
                    break;
            }
        } else
            json_skip(j);
    jsonl_end(j, path, line);
    if (x.prompt_length < 1 || x.m < 2 || x.rewards != x.m)
        die("%s: line %d: a prompt of %d tokens, %d responses, %d rewards; expected a prompt, at "
            "least two responses, and as many rewards", path, line, x.prompt_length, x.m,
            x.rewards);
    for (int i = 0; i < x.m; i++)
        if (x.length[i] < 1)
            die("%s: line %d: response %d is empty", path, line, i);
    buf_free(&key);
    return x;
}

static void explain_given(Session *s, const Given *x)
{
    int longest = 1, threads = s->engine.threads;
    for (int i = 0; i < x->m; i++)
        longest = imax(longest, x->length[i]);
    Extent extent = {1, x->m, x->prompt_length, longest, 1, false};
    s->engine.arena = arena_new(extent_bytes(&s->model, threads, extent));
    Group *g = groups_new(&s->engine, &s->model, extent);
    g->prompt_length = x->prompt_length;
    memcpy(g->prompt, x->prompt, (size_t)x->prompt_length * sizeof(int));
    for (int i = 0; i < x->m; i++) {
        memcpy(g->token + g->start[i], x->response[i], (size_t)x->length[i] * sizeof(int));
        g->start[i + 1] = g->start[i] + x->length[i];
        g->truncated[i] = false;
        g->reward[i] = x->reward[i];
        g->reason[i] = "given";
    }
    g->n_tokens = g->start[x->m];
    Buf text = {0};
    if (!s->o.json && !s->tokenizer.n_vocab)
        s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    tokenizer_decode(&s->tokenizer, g->prompt, g->prompt_length, false, &text);
    g->text = text.s;
    explain_group(s, g);
    buf_free(&text);
    arena_free(&s->engine.arena);
}

static void cmd_explain(Session *s)
{
    const Options *o = &s->o;
    session_load(s, o->model, !o->data);
    if (o->data) {
        size_t n, offset = 0;
        int line = 0;
        char *text = read_file(o->data, &n);
        for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
            Given x = given_read(s, &j, o->data, line);
            explain_given(s, &x);
            given_free(&x);
        }
        free(text);
        return;
    }
    Problems p = {.task = s->task, .held_out = o->split == 1, .seed = o->seed};
    Extent x = {1, o->rollouts, MAX_PROMPT, o->max_tokens, 1, false};
    s->engine.arena = arena_new(extent_bytes(&s->model, s->engine.threads, x));
    Group *g = groups_new(&s->engine, &s->model, x);
    if (o->prompt) {
        g->text = (char *)o->prompt;
        g->prompt_length = encode(&s->tokenizer, o->prompt, strlen(o->prompt), g->prompt,
                                  MAX_PROMPT, "--prompt");
    } else
        group_ask(g, &s->engine.arena, &p, 0, &s->tokenizer, MAX_PROMPT);
    Sampling sampling = session_sampling(s, 0);
    sample_groups(&s->engine, &s->model, g, 1, &sampling);
    verify_group(g, &s->task, &s->tokenizer);
    explain_group(s, g);
}

/* ================================================================ data, help, main */

static void cmd_data(Session *s)
{
    Problems p = session_problems(s, s->o.split == 1);
    Buf prompt = {0}, answer = {0}, line = {0};
    if (s->o.data)
        printf("%s: %d problems\n", s->o.data, p.n);
    for (int i = 0; !s->o.data && i < s->o.problems; i++) {
        problem_get(&p, (uint32_t)i, &prompt, &answer);
        buf_str(&line, "{\"prompt\": ");
        json_put_string(&line, prompt.s, prompt.n);
        put_text(&line, "answer", answer.s, answer.n);
        printf("%s}\n", line.s);
        line.n = 0;
    }
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&line);
    problems_free(&p);
}

static void help(FILE *f)
{
    fprintf(f, "g2rl %s: gradient-guided reinforcement learning for small language models\n\n"
               "usage: g2rl COMMAND [--option value]... [@file]\n\ncommands:\n", VERSION);
    for (int c = 0; c < N_COMMANDS; c++)
        fprintf(f, "  %-10s %s\n", COMMANDS[c], SUMMARIES[c]);
    fprintf(f, "  %-10s this text; g2rl COMMAND --help: its options; g2rl help metrics: what "
               "metrics.jsonl holds\n\nfirst steps:\n"
               "  g2rl sft --preset nano --task countdown --steps 1600 --out runs/base\n"
               "  g2rl train --model runs/base --method g2rl --out runs/g2rl\n"
               "  g2rl eval base=runs/base g2rl=runs/g2rl\n"
               "  g2rl explain --model runs/g2rl --rollouts 8\n", "help");
}

static void help_metrics(FILE *f)
{
    static const char *const rows[][2] = {
        {"reward", "mean reward: +1 right, -1 wrong"},
        {"reward_std", "standard deviation of rewards within a group, mean over groups"},
        {"pass@1", "share of responses that are right"},
        {"frac_dead", "share of groups all right or all wrong"},
        {"completions/mean_length", "response tokens, end token included, mean over responses"},
        {"completions/clipped_ratio", "share of responses cut off at --max-tokens"},
        {"entropy", "-sum_v p_v ln p_v of the policy, exact, mean over response tokens"},
        {"kl_k1, kl_k3", "with q = ln p_ref - ln p: mean of -q, and of e^q - q - 1"},
        {"kl_exact", "null: not computed"},
        {"clip_low, clip_high", "share of tokens whose ratio the clip holds, A < 0 and A > 0"},
        {"log_ratio_clamped", "tokens whose log-ratio passed +-20"},
        {"phi/cos_mean", "mean of S_ij over pairs i < j of a group (Eq 9)"},
        {"phi/neg_ratio", "share of pairs with S_ij < 0"},
        {"phi/nu_mean", "mean exploration score nu (Eq 11)"},
        {"adv/novelty_share", "share of sum A^2 within right and within wrong responses"},
        {"logp_gap", "largest |ln p of the sampler - ln p of the trainer|: 0 when on-policy"},
        {"loss", "-min(rho A, clip(rho) A) + beta k3 (Eq 4), mean over tokens or responses"},
        {"grad_norm", "of all gradients, before clipping"},
        {"lr", "learning rate of the step"},
        {"time/...", "seconds of each phase"},
        {"tokens_per_s", "response tokens over the whole step's time"},
        {"weights_hash", "names the weights after the step, bit for bit"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(f, "  %-26s %s\n", rows[i][0], rows[i][1]);
}

static int command_find(const char *name)
{
    int best = 1000, nearest = 0;
    for (int c = 0; c < N_COMMANDS; c++) {
        int distance = edit_distance(name, COMMANDS[c]);
        if (!strcmp(name, COMMANDS[c]))
            return c;
        if (distance < best) {
            best = distance;
            nearest = c;
        }
    }
    usage("unknown command '%.60s'; did you mean %s? (see: g2rl help)", name, COMMANDS[nearest]);
    return -1;
}

static void (*const RUN[N_COMMANDS])(Session *) = {cmd_sft,   cmd_train,   cmd_eval, cmd_sample,
                                                   cmd_score, cmd_explain, cmd_data};

/* The program, from its words; tests call it too. */
static int run_command(int argc, char **argv)
{
    Session s = {0};
    char error[256];
    bool metrics = argc > 2 && !strcmp(argv[2], "metrics");
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help")) {
        (metrics ? help_metrics : help)(argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    int c = command_find(argv[1]);
    options_default(OPTIONS, N_OPTIONS, c, &s.o);
    options_parse(OPTIONS, N_OPTIONS, c, argv[1], &s.o, argc - 2, argv + 2, &s.words);
    if (s.words.help) {
        printf("g2rl %s: %s\n\n", COMMANDS[c], SUMMARIES[c]);
        options_help(OPTIONS, N_OPTIONS, c, stdout);
        if (c == DATA)
            printf("\n%s", task_help());
        words_free(&s.words);
        return 0;
    }
    if (s.words.n_words && c != EVAL)
        usage("%s: '%.60s' is not an option; options are --name value", argv[1], s.words.word[0]);
    if (s.o.task && !task_parse(s.o.task, &s.task, error, sizeof error))
        usage("--task: %s", error);
    s.engine.threads = default_threads(s.o.threads);
    RUN[c](&s);
    session_free(&s);
    if (fflush(stdout) || ferror(stdout))
        die("stdout: cannot be written: %s", strerror(errno));
    return 0;
}

#ifndef G2RL_TEST
int main(int argc, char **argv) { return run_command(argc, argv); }
#endif
