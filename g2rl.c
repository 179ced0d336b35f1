/* g2rl.c: gradient-guided reinforcement learning for small language models, in plain C.
 *
 * The method is that of "Can LLMs Guide Their Own Exploration? Gradient-Guided Reinforcement
 * Learning for LLM Reasoning" (Liang et al., arXiv 2512.15687); equation numbers are the paper's.
 * One step of training:
 *
 *   1. sample    m responses to each of a few prompts, exactly from the policy at temperature T
 *   2. verify    reward +1 (right) or -1 (wrong) for each response, or what --reward-cmd says
 *   3. feature   phi_t: how each token would move the model's last hidden state      Eq 6-7, 14
 *                Phi_i: one direction per response                                   Eq 8
 *   4. novelty   nu_i: how little a response's direction repeats its group's         Eq 9-11
 *   5. shape     r~ = r (1 + lambda nubar), clipped                                  Eq 12-13
 *   6. advantage A = (r~ - mean) / std within the group                              Eq 2
 *   7. update    PPO's clipped objective with a KL penalty, AdamW                    Eq 3-4
 *
 * How data flows. The Group, a prompt and its m responses, is the unit of everything: sampling
 * fills it, rewards and features annotate it, the forward and backward pass run over it packed,
 * and the ledger prints it. Sampling leaves what the layers made of each row (Trace); the forward
 * pass goes on from there with the head, and keeps phi; phi makes the group's advantages; and the
 * same phi, scaled by them, is what the backward pass starts from: the features cost nothing.
 *
 * The methods it is compared with (--method) share all the rest: `grpo` has no steps 3 to 5;
 * `entropy` is grpo with an entropy bonus in step 7; `evol` (EVOL-RL, arXiv 2509.15194) takes
 * novelty from embeddings of the responses, and shapes by it in a way of its own.
 *
 * Where we differ from the paper, or it from itself:
 *   1. Eq 12 as printed, r~ = r (1 + lambda r nubar), punishes a wrong and novel response LESS; the
 *      text of section 2.4 says more. We follow the equation: code of a later paper (DiRL, arXiv
 *      2606.10346), by authors who overlap with this one's, computes it as printed. --shaping text,
 *      r~ = r (1 + lambda nubar), is the other reading. That code also takes the square root of
 *      Eq 11's nu, which the paper does not print: there we follow the paper.
 *   2. lambda is never given in the paper; it is 0.5 in that code, and here. "Right" means reward
 *      above 0.
 *   3. All nu of a group equal (within 1e-6): nubar = 0. The same floor for the std of Eq 2.
 *   4. A dead group, all right or all wrong (of real-valued rewards: all equal), has no signal
 *      under GRPO, and nothing but novelty under G2RL, blown up to full size by Eq 2, whatever
 *      lambda is. --dead-groups full is the paper, and that code; zero skips them; right and wrong
 *      keep only those that are all right, or all wrong.
 *   5. The ratio is per token (verl), not per sequence (Eq 3). --loss token: mean over all tokens
 *      of the batch; sequence: mean over a response's tokens, then over responses.
 *   6. The KL penalty is k3 on the sampled tokens (verl's low_var_kl). Its expectation is KL(policy
 *      || reference), but used as a loss its expected gradient is that of KL(reference || policy).
 *      --kl k2 has the gradient of KL(policy || reference) in expectation, exact has it without
 *      sampling noise.
 *   7. Eq 5 writes a bias and W^T h; these models have none, and we write W h, W: [vocab, hidden].
 *   8. Eq 28 (upstream gradients are a linear image of Phi) does not hold in general; that
 *      cosines of Phi stand for cosines of gradients is an empirical matter, which
 *      `geometry --true-gradients` measures.
 *   9. The paper makes several updates on one batch of rollouts (--mini-batch, --epochs); our
 *      default is one, exactly on-policy. Novelty is computed once, with the sampling policy's phi.
 *
 * The file in order: the group; the method; rollouts; groups as batches, and updates; asking and
 * judging; what is counted; memory and options; evaluation; training. Every other command is in a
 * file of lib/, and main in g2rl.c. */
#ifndef G2RL_C
#define G2RL_C

#include "model.c"          /* defines: Model, Batch, forward, backward, adamw_step, KvSeq, ... */
#include "tokenizer.c"      /* defines: Tokenizer, tokenizer_encode, tokenizer_decode */
#include "lib/num/peak.h"       /* defines: measure_peak */
#include "lib/tasks/problems.h"   /* defines: Problems, problem_of_list; judge.h: Judge, ... */
#include "lib/base/stats.h"      /* defines: pass_at_k, majority, bootstrap, paired, ... */
#include "lib/rl/checkpoint.h" /* defines: Run, run_find, run_line; session.h: Options */

/* ================================================================ the group */

/* A prompt and its m responses. Response i is token[start[i]] .. token[start[i + 1] - 1], the end
 * token included; whatever is per token is indexed like `token`, [n_tokens]. */
typedef struct {
    uint32_t index;       /* which problem this is */
    const char *text;     /* the problem, without the template */
    const char *answer;   /* the gold answer */
    const char *stop;     /* the text that ended responses; NULL: none */
    int *prompt, prompt_length;
    int m, max_tokens, n_tokens;
    int *token, *start;   /* [n_tokens], [m + 1] */
    bool *truncated;      /* [m] ended by max_tokens, not by the end token or the stop text */
    bool *answered;       /* [m] an answer can be read from it */
    const char **reason;  /* [m] the verifier's, or the reward command's */

    Trace trace;          /* what sampling made of its rows: see group_trace */
    float *logprob_old;   /* log p under the policy that sampled */
    float *logprob_ref;   /* under the reference */
    float *hidden_ref;    /* [n_tokens, hidden_size] what the reference's head reads; or NULL */
    float *kl;            /* KL(policy || reference), exact */
    float *logprob;       /* under the policy being trained */
    float *entropy;       /* of the policy's distribution, exact */
    double logp_gap;      /* largest |logprob - logprob_old| when it was first seen */

    float *Phi;           /* [m, hidden_size]  Eq 8 */
    double *reward;       /* [m] */
    double *S, *w;        /* [m, m]            Eq 9, Eq 10 */
    double *nu, *nubar;   /* [m]               Eq 11 and its min-max */
    double *shaped;       /* [m] r~            Eq 12-13 */
    double *advantage;    /* [m]               Eq 2 */

    bool embedded;        /* the two that follow are known */
    double *semantic;     /* [m, m] cosines of the responses' embeddings */
    double *u;            /* [m]    their semantic novelty; NAN where there is no answer */
} Group;

static Group group_new(Arena *a, int m, int max_prompt, int max_tokens, int hidden_size)
{
    size_t n = (size_t)m, t = n * (size_t)max_tokens;
    Group g = {.m = m, .max_tokens = max_tokens};
    g.prompt = arena_alloc(a, (size_t)max_prompt, sizeof(int));
    g.token = arena_alloc(a, t, sizeof(int));
    g.start = arena_alloc(a, n + 1, sizeof(int));
    g.truncated = arena_alloc(a, n, sizeof(bool));
    g.answered = arena_alloc(a, n, sizeof(bool));
    g.reason = arena_alloc(a, n, sizeof(char *));
    g.logprob_old = arena_floats(a, t);
    g.logprob_ref = arena_floats(a, t);
    g.kl = arena_floats(a, t);
    g.logprob = arena_floats(a, t);
    g.entropy = arena_floats(a, t);
    g.Phi = arena_floats(a, n * (size_t)hidden_size);
    g.S = arena_alloc(a, n * n, sizeof(double));
    g.w = arena_alloc(a, n * n, sizeof(double));
    g.semantic = arena_alloc(a, n * n, sizeof(double));
    double **vectors[] = {&g.reward, &g.nu, &g.nubar, &g.shaped, &g.advantage, &g.u};
    for (int i = 0; i < 6; i++)
        *vectors[i] = arena_alloc(a, n, sizeof(double));
    g.start[0] = 0;
    return g;
}

/* The trace of response i from its row on, or, with i -1, of the prompt. Each response has room for
 * all its tokens but the last, which no pass reads. */
static Trace group_trace(const Group *g, int i, int row)
{
    size_t before = i < 0 ? 0 : (size_t)g->prompt_length + (size_t)i * (size_t)(g->max_tokens - 1);
    Trace t = g->trace;
    if (t.row)
        t.row += (before + (size_t)row) * t.floats;
    return t;
}

static int response_length(const Group *g, int i) { return g->start[i + 1] - g->start[i]; }

/* Are two responses equal token by token? */
static bool same_response(const Group *g, int i, int j)
{
    int n = response_length(g, i);
    return n == response_length(g, j) &&
           !memcmp(g->token + g->start[i], g->token + g->start[j], (size_t)n * sizeof(int));
}

/* ================================================================ the method */

typedef enum { GRPO, ENTROPY, EVOL, G2RL } Method;
static const char *const METHODS[] = {"grpo", "entropy", "evol", "g2rl"};
typedef enum { SHAPING_LITERAL, SHAPING_TEXT } Shaping;
typedef enum { DEAD_FULL, DEAD_ZERO, DEAD_RIGHT, DEAD_WRONG } DeadGroups;
typedef enum { ADV_STD, ADV_NONE } AdvNorm;
typedef enum { LOSS_TOKEN, LOSS_SEQUENCE } Loss;
typedef enum { NOVELTY_GRADIENT, NOVELTY_RANDOM, NOVELTY_COUNT } Novelty;
typedef enum { KL_K3, KL_K2, KL_EXACT } KlTerm;
typedef enum { EMBED_REF, EMBED_NGRAM } Embedding;

/* Everything that the method's equations leave open. */
typedef struct {
    Method method;
    Shaping shaping;            /* Eq 12 as printed, or the text's reading of it */
    DeadGroups dead_groups;     /* of groups whose rewards are all equal, which have an advantage */
    AdvNorm adv_norm;           /* none: advantages are not divided by the standard deviation */
    Loss loss;                  /* mean over tokens, or over each response's and then responses */
    Novelty novelty;            /* what nu is made of: gradient features, or one of two controls */
    Embedding encoder;          /* EVOL-RL: what embeds a response */
    KlTerm kl;
    bool mask_truncated;        /* responses that were cut off are left out of the loss */
    double lambda;              /* strength of the shaping */
    double clip_low, clip_high; /* PPO: the ratio stays in [1 - low, 1 + high] */
    double kl_coef;             /* beta of Eq 4 */
    double entropy_coef;        /* of the mean token entropy in the objective */
} MethodOptions;

#define SHAPED_LIMIT 3.0  /* c of section 2.5: r~ is clipped to [-c, c] */
#define FLOOR 1e-6        /* differences below this are rounding, not signal */
#define LOG_RATIO_LIMIT 20.0 /* log ratios are held within +-20, so that e^ of them is bounded */

/* Eq 8: Phi = sum_t a_t phi_t / (sum_t a_t + eps), a_t = 1 on the response's tokens.
 * phi: [tokens, d], Phi: [d] */
static void sequence_feature(float *Phi, const float *phi, int tokens, int d)
{
    memset(Phi, 0, (size_t)d * sizeof(float));
    for (int t = 0; t < tokens; t++)
        row_axpy(Phi, 1.0f, phi + (ptrdiff_t)t * d, d);
    row_scale(Phi, Phi, (float)(1.0 / (tokens + 1e-8)), d);
}

/* S_ij = <x_i, x_j> / (|x_i| |x_j|); 0 where a vector vanishes. x: [m, d], S: [m, m] */
static void cosines(const float *x, int m, int d, double *S)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++) {
            const float *a = x + (ptrdiff_t)i * d, *b = x + (ptrdiff_t)j * d;
            double dot = 0, aa = 0, bb = 0;
            for (int k = 0; k < d; k++) {
                dot += (double)a[k] * (double)b[k];
                aa += (double)a[k] * (double)a[k];
                bb += (double)b[k] * (double)b[k];
            }
            bool vanishes = sqrt(aa) < 1e-12 || sqrt(bb) < 1e-12;
            S[i * m + j] = S[j * m + i] = vanishes ? 0 : dot / sqrt(aa * bb);
        }
}

/* Eq 9: the cosines of the features. A feature vanishes where the policy was certain of every
 * token. */
static void similarity(Group *g, int d) { cosines(g->Phi, g->m, d, g->S); }

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

/* S_ij of Eq 11. --novelty count puts 1 for the same tokens and 0 for others in the place of the
 * cosine: the control that asks whether directions say more than copies do. */
static double likeness(const Group *g, int i, int j, Novelty novelty)
{
    return novelty == NOVELTY_COUNT ? same_response(g, i, j) : g->S[i * g->m + j];
}

/* Eq 11: nu_i = max(1 - sum_{j != i} w_ij S_ij^2, 0): the share of a response's direction that
 * the others, good ones first, do not already point along. Certainty is not novelty: 0. */
static void exploration_score(Group *g, Novelty novelty)
{
    for (int i = 0; i < g->m; i++) {
        double repeated = 0;
        for (int j = 0; j < g->m; j++)
            if (j != i) {
                double S = likeness(g, i, j, novelty);
                repeated += g->w[i * g->m + j] * S * S;
            }
        bool certain = likeness(g, i, i, novelty) == 0;
        g->nu[i] = certain || repeated > 1 ? 0 : 1 - repeated;
    }
}

/* --novelty random, the other control: the group's nu, handed to its responses at random. */
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

/* Eq 12-13: r~ = r (1 + lambda r nubar), or, by the paper's text, r~ = r (1 + lambda nubar); then
 * clipped to [-3, 3]. Other methods: r~ = r. */
static double shape_reward(double reward, double nubar, const MethodOptions *o)
{
    if (o->method != G2RL)
        return reward;
    double by = o->shaping == SHAPING_LITERAL ? reward : 1;
    double shaped = reward * (1 + o->lambda * by * nubar);
    return fmax(-SHAPED_LIMIT, fmin(SHAPED_LIMIT, shaped));
}

/* Is the lowest reward of n groups 0, as where wrong is 0 and right is 1? Then Eq 12 leaves wrong
 * responses at r~ = 0, however novel they are. (GRPO only sees differences, and does not mind.) */
static bool wrong_is_zero(const Group *g, int n)
{
    double lowest = HUGE_VAL;
    for (int i = 0; i < n * g->m; i++)
        lowest = fmin(lowest, g[i / g->m].reward[i % g->m]);
    return lowest == 0;
}

static bool is_right(double reward) { return reward > 0; }

static int count_right(const Group *g)
{
    int right = 0;
    for (int i = 0; i < g->m; i++)
        right += is_right(g->reward[i]);
    return right;
}

/* All right or all wrong; of real-valued rewards: all equal. Such a group has nothing but novelty
 * to tell its responses apart. */
static bool is_dead(const Group *g)
{
    double low = g->reward[0], high = g->reward[0];
    for (int i = 1; i < g->m; i++) {
        low = fmin(low, g->reward[i]);
        high = fmax(high, g->reward[i]);
    }
    return high - low < FLOOR;
}

/* Has a dead group an advantage under --dead-groups? */
static bool shapes_dead(const Group *g, DeadGroups which)
{
    bool right = is_right(g->reward[0]);
    return which == DEAD_FULL || (which == DEAD_RIGHT && right) || (which == DEAD_WRONG && !right);
}

/* Eq 2: A_i = (r~_i - mean) / (std + 1e-6), population std; 0 for all where std is below 1e-6.
 *
 * Why the gradient of the expected reward is made of log-probs, and why a mean may be taken off: as
 * grad p = p grad log p,
 *     grad E_{y ~ p}[r(y)] = sum_y r(y) grad p(y) = E[r grad log p]
 *     E[b grad log p] = b grad sum_y p(y) = b grad 1 = 0           for any b that does not know y
 * so (r - b) grad log p is an estimate of it for every b, and with b near the mean one that
 * fluctuates less. (The group's mean knows y_i, by 1 / m of it: a scale of (m - 1) / m.)
 * log p(y) is the sum of its tokens' log p: hence a loss for each token, whose derivative by its
 * log p is -A_i (token_loss, at rho = 1). The division by std gives each group the same weight,
 * however little its rewards differ; no estimate of the gradient asks for it. */
static void advantages(Group *g, const MethodOptions *o)
{
    double mean = 0, variance = 0;
    for (int i = 0; i < g->m; i++)
        mean += g->shaped[i] / g->m;
    for (int i = 0; i < g->m; i++)
        variance += (g->shaped[i] - mean) * (g->shaped[i] - mean) / g->m;
    double std = sqrt(variance);
    bool none = std < FLOOR || (is_dead(g) && !shapes_dead(g, o->dead_groups));
    double scale = none ? 0 : o->adv_norm == ADV_STD ? 1 / (std + 1e-6) : 1;
    for (int i = 0; i < g->m; i++)
        g->advantage[i] = (g->shaped[i] - mean) * scale;
}

enum { NGRAM_BUCKETS = 512 };

/* --encoder ref: the mean of the reference model's last hidden states over a response's tokens. Row
 * t of hidden_ref predicts token t, so the state at it is row t + 1; that of the last token is not
 * computed. A response of one token has the prompt's last state. E: [m, d] */
static void embed_by_reference(const Group *g, int d, float *E)
{
    for (int i = 0; i < g->m; i++) {
        int first = g->start[i] + (response_length(g, i) > 1), n = g->start[i + 1] - first;
        float *mean = E + (ptrdiff_t)i * d;
        memset(mean, 0, (size_t)d * sizeof(float));
        for (int t = 0; t < n; t++)
            row_axpy(mean, 1.0f / (float)n, g->hidden_ref + (ptrdiff_t)(first + t) * d, d);
    }
}

/* --encoder ngram: how often each trigram of tokens occurs, by hash. E: [m, NGRAM_BUCKETS] */
static void embed_by_ngrams(const Group *g, float *E)
{
    memset(E, 0, (size_t)g->m * NGRAM_BUCKETS * sizeof(float));
    for (int i = 0; i < g->m; i++) {
        int gram[3] = {-1, -1, -1};
        for (int t = g->start[i]; t < g->start[i + 1]; t++) {
            gram[0] = gram[1];
            gram[1] = gram[2];
            gram[2] = g->token[t];
            E[i * NGRAM_BUCKETS + (int)(hash64(gram, sizeof gram) % NGRAM_BUCKETS)]++;
        }
    }
}

/* Cosines of the responses' embeddings; none where --encoder ref has no reference. */
static void semantic_similarity(Arena *a, Group *g, Embedding encoder, int d)
{
    size_t mark = a->used;
    int width = encoder == EMBED_NGRAM ? NGRAM_BUCKETS : d;
    g->embedded = encoder == EMBED_NGRAM || g->hidden_ref;
    if (!g->embedded)
        return;
    float *E = arena_floats(a, (size_t)g->m * (size_t)width);
    if (encoder == EMBED_NGRAM)
        embed_by_ngrams(g, E);
    else
        embed_by_reference(g, d, E);
    cosines(E, g->m, width, g->semantic);
    a->used = mark;
}

/* EVOL-RL's novelty of an answer: u = 1 - (mean + max) / 2 of its cosines, clipped to [0, 1], with
 * the other answers: the mean over those of its class, right or wrong (over all where it is alone
 * there), the maximum over all. NAN for a response without an answer, and for a lone answer. */
static double semantic_novelty(const Group *g, int i)
{
    double same = 0, all = 0, most = 0;
    int n_same = 0, n_all = 0;
    for (int j = 0; j < g->m; j++) {
        double s = fmax(0, fmin(1, g->semantic[i * g->m + j]));
        if (j == i || !g->answered[j])
            continue;
        all += s;
        n_all++;
        most = fmax(most, s);
        if (is_right(g->reward[i]) == is_right(g->reward[j])) {
            same += s;
            n_same++;
        }
    }
    return g->answered[i] && n_all ? 1 - 0.5 * ((n_same ? same / n_same : all / n_all) + most)
                                   : (double)NAN;
}

/* EVOL-RL's reward: with n in [0, 1] the min-max of u inside the class, 0.5 + 0.5 n for a right
 * answer, -1 + 0.5 n for a wrong one: novel is better in both. An answer alone in its class has
 * n = 1; where all u of a class are equal, n = 0.5. No answer, or at most one in the group: -1. */
static void shape_by_meaning(Group *g)
{
    for (int i = 0; i < g->m; i++) {
        double low = g->u[i], high = g->u[i];
        bool right = is_right(g->reward[i]), alone = true;
        for (int j = 0; j < g->m; j++)
            if (j != i && g->answered[j] && is_right(g->reward[j]) == right) {
                low = fmin(low, g->u[j]);
                high = fmax(high, g->u[j]);
                alone = false;
            }
        double among = high - low >= FLOOR ? (g->u[i] - low) / (high - low) : alone ? 1 : 0.5;
        g->nubar[i] = isnan(g->u[i]) ? 0 : among;
        g->shaped[i] = isnan(g->u[i]) ? -1 : (right ? 0.5 : -1) + 0.5 * among;
    }
}

/* From token features to advantages: the whole method for one group. phi: [n_tokens, d] */
static void annotate(Arena *a, Group *g, const float *phi, int d, const MethodOptions *o,
                     uint64_t seed, int step)
{
    for (int i = 0; i < g->m; i++)
        sequence_feature(g->Phi + (ptrdiff_t)i * d, phi + (ptrdiff_t)g->start[i] * d,
                         response_length(g, i), d);
    similarity(g, d);
    reward_weights(g);
    exploration_score(g, o->novelty);
    semantic_similarity(a, g, o->encoder, d);
    for (int i = 0; i < g->m; i++)
        g->u[i] = g->embedded ? semantic_novelty(g, i) : (double)NAN;
    if (o->novelty == NOVELTY_RANDOM)
        permute_novelty(g, seed, step);
    normalize_novelty(g);
    for (int i = 0; i < g->m; i++)
        g->shaped[i] = shape_reward(g->reward[i], g->nubar[i], o);
    if (o->method == EVOL)
        shape_by_meaning(g);
    advantages(g, o);
}

/* What the loss says about the tokens that went through it. */
typedef struct {
    double loss, k1, k3; /* sums; k1 = -q and k3: the KL estimators */
    double entropy;
    int tokens, clipped_low, clipped_high, clamped; /* clamped: by LOG_RATIO_LIMIT */
} LossSums;

static void loss_sums_add(LossSums *total, const LossSums *s)
{
    total->loss += s->loss;
    total->k1 += s->k1;
    total->k3 += s->k3;
    total->entropy += s->entropy;
    total->tokens += s->tokens;
    total->clipped_low += s->clipped_low;
    total->clipped_high += s->clipped_high;
    total->clamped += s->clamped;
}

static double clamp(double x, double low, double high) { return fmax(low, fmin(high, x)); }

/* Eq 3 for one token: the loss -min(rho A, clip(rho) A), and its derivative by log p.
 * rho = p / p_old = e^(log p - log p_old), so d rho / d log p = rho, and -rho A has the derivative
 * -rho A. Where the clipped branch is the smaller one it is a constant, with derivative 0: with
 * A > 0 above 1 + clip_high, with A < 0 below 1 - clip_low, where the policy has gone far enough
 * in the direction that A asks for. On the other side the clip does nothing, and A pulls rho
 * back. */
static double clipped_loss(double log_ratio, double advantage, const MethodOptions *o,
                           double *derivative)
{
    double rho = exp(log_ratio), clipped = clamp(rho, 1 - o->clip_low, 1 + o->clip_high);
    bool inside = rho * advantage <= clipped * advantage;
    *derivative = inside ? -rho * advantage : 0;
    return -fmin(rho * advantage, clipped * advantage);
}

/* The KL estimate of one token, q = log p_ref - log p: k3 = e^q - q - 1 or k2 = q^2 / 2, and its
 * derivative by log p: 1 - e^q or -q. The exact KL looks at the whole vocabulary, so here it is 0:
 * see group_loss. */
static double kl_estimate(double q, KlTerm kl, double *derivative)
{
    *derivative = kl == KL_K3 ? 1 - exp(q) : kl == KL_K2 ? -q : 0;
    return kl == KL_K3 ? exp(q) - q - 1 : kl == KL_K2 ? q * q / 2 : 0;
}

/* Eq 3-4 for one token: the clipped loss + beta KL, and its derivative by log p. Where a log ratio
 * was clamped, its part of the derivative is 0. */
static double token_loss(double logprob, double old, double ref, double advantage,
                         const MethodOptions *o, double *derivative, LossSums *sums)
{
    double log_ratio = clamp(logprob - old, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    double q = clamp(ref - logprob, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT), slope, kl_slope;
    double policy = clipped_loss(log_ratio, advantage, o, &slope);
    double kl = kl_estimate(q, o->kl, &kl_slope);
    *derivative = log_ratio == logprob - old ? slope : 0;
    if (q == ref - logprob)
        *derivative += o->kl_coef * kl_slope;
    sums->k1 += -q;
    sums->k3 += exp(q) - q - 1;
    sums->tokens++;
    sums->clamped += log_ratio != logprob - old || q != ref - logprob;
    sums->clipped_low += slope == 0 && advantage < 0;
    sums->clipped_high += slope == 0 && advantage > 0;
    return policy + o->kl_coef * kl;
}

/* Whether response i counts in the loss. */
static bool is_in_loss(const Group *g, int i, const MethodOptions *o)
{
    return !(o->mask_truncated && g->truncated[i]);
}

static bool uses_entropy(const MethodOptions *o) { return o->entropy_coef > 0; }
static bool uses_exact_kl(const MethodOptions *o) { return o->kl == KL_EXACT && o->kl_coef > 0; }

/* How the loss looks at each token of a group: its derivatives by log p, by the entropy and by the
 * exact KL divergence; the last two are NULL where they have no part in it. */
typedef struct {
    float *logprob, *entropy, *kl;
} Coef;

static Coef coef_new(Arena *a, size_t tokens, const MethodOptions *o)
{
    return (Coef){arena_floats(a, tokens), uses_entropy(o) ? arena_floats(a, tokens) : NULL,
                  uses_exact_kl(o) ? arena_floats(a, tokens) : NULL};
}

/* Where the next group's tokens lie. */
static Coef coef_after(Coef c, int tokens)
{
    return (Coef){c.logprob + tokens, c.entropy ? c.entropy + tokens : NULL,
                  c.kl ? c.kl + tokens : NULL};
}

/* The group's coefficients and its part of the loss. The optimizer batch holds `tokens` response
 * tokens and `responses` responses in the loss: --loss token weighs each token 1 / tokens, --loss
 * sequence 1 / (responses * its response's length). */
static double group_loss(const Group *g, const MethodOptions *o, int tokens, int responses,
                         Coef coef, LossSums *sums)
{
    double loss = 0;
    for (int i = 0; i < g->m; i++) {
        double weight = o->loss == LOSS_TOKEN ? 1.0 / tokens
                                              : 1.0 / ((double)responses * response_length(g, i));
        bool in = is_in_loss(g, i, o);
        for (int t = g->start[i]; t < g->start[i + 1]; t++) {
            double derivative = 0, part = 0;
            double ref = (double)(o->kl_coef > 0 || g->hidden_ref ? g->logprob_ref : g->logprob)[t];
            if (in) {
                part = token_loss((double)g->logprob[t], (double)g->logprob_old[t], ref,
                                  g->advantage[i], o, &derivative, sums);
                part -= o->entropy_coef * (double)g->entropy[t];
                part += coef.kl ? o->kl_coef * (double)g->kl[t] : 0;
                sums->entropy += (double)g->entropy[t];
                loss += weight * part;
            }
            coef.logprob[t] = in ? (float)(weight * derivative) : 0;
            if (coef.entropy)
                coef.entropy[t] = in ? (float)(-weight * o->entropy_coef) : 0;
            if (coef.kl)
                coef.kl[t] = in ? (float)(weight * o->kl_coef) : 0;
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
    int step, first;                  /* first: the number of a group's first response */
    const char *stop;                 /* a response ends where it has this text; NULL: none */
    const Tokenizer *tokenizer;       /* that reads it */
    void (*on_token)(void *, int id); /* called for each token as it is drawn, or NULL */
    void *context;
} Sampling;

/* A response while it is being sampled. */
typedef struct {
    Group *group;
    int index, length; /* which of the group's m; tokens so far */
    bool stopped;      /* it has the stop text */
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

/* Inverts a cumulative distribution, which need not add up to 1, at u in [0, 1]: finds the tile and
 * then the token in it. Where rounding lets nothing reach u, it is the last token that can be. */
static int invert_distribution(const float *p, int n, double u)
{
    int token = 0, v = 0;
    double sum = 0, so_far = 0;
    for (int v0 = 0; v0 < n; v0 += TILE)
        sum += (double)row_sum(p + v0, imin(TILE, n - v0));
    double target = u * sum;
    for (; v + TILE < n; v += TILE) {
        double next = so_far + (double)row_sum(p + v, TILE);
        if (next > target || next == sum)
            break;
        so_far = next;
    }
    for (; v < n && so_far <= target; v++) {
        if (p[v] > 0)
            token = v;
        so_far += (double)p[v];
    }
    return token;
}

/* Draws a token from softmax(z / T), and gives its log-prob, made by the very functions that the
 * trainer uses, and so of the same bits. Temperature 0: the largest logit. z: [V]; scratch: [2V] */
static int draw_token(const float *z, int V, const Sampling *s, double u, float *logprob,
                      float *scratch)
{
    float inverse = s->temperature > 0 ? 1.0f / (float)s->temperature : 1.0f;
    float *p = scratch, *sorted = scratch + V;
    int token = 0;
    Softmax total = SOFTMAX_EMPTY;
    for (int v0 = 0; v0 < V; v0 += TILE) {
        float shrink = softmax_tile(&total, z + v0, p + v0, imin(TILE, V - v0), inverse);
        if (shrink < 1)
            row_scale(p, p, shrink, v0);
    }
    if (s->temperature > 0) {
        if (s->top_k > 0 || s->top_p < 1)
            cut_distribution(p, V, s, sorted);
        token = invert_distribution(p, V, u);
    } else
        for (int v = 1; v < V; v++)
            token = z[v] > z[token] ? v : token;
    *logprob = softmax_logprob(&total, z[token], inverse);
    return token;
}

enum { DRAWN_ROWS = 64 }; /* rows of logits held at a time; each lot reads the head once more */

/* One more token for each of n rollouts, from the hidden rows that predict them. A token depends
 * on (seed, step, prompt, sample, position) alone: not on who is in the batch. No rollout is there
 * twice. */
static void draw_tokens(Arena *a, const Model *m, const float *hidden, Rollout *const *r, int n,
                        const Sampling *s)
{
    int d = m->config.hidden_size, V = m->n_vocab, ld = apart(V);
    size_t mark = a->used;
    float *z = arena_floats(a, (size_t)imin(DRAWN_ROWS, n) * (size_t)ld);
    float *scratch = arena_floats(a, 2 * (size_t)(V * a->threads));
    for (int first = 0; first < n; first += DRAWN_ROWS) {
        int rows = imin(DRAWN_ROWS, n - first);
        const float *h = hidden + (ptrdiff_t)first * d;
        head_logits(a, m, h, rows, 0, V, z, ld);
        PARALLEL_FOR (a->threads)
        for (int i = 0; i < rows; i++) {
            Rollout *x = r[first + i];
            float *own = scratch + (ptrdiff_t)(a->threads > 1 ? thread_index() : 0) * 2 * V;
            double u = uniform(philox(s->seed, STREAM_SAMPLE, (uint32_t)s->step, x->group->index,
                                      (uint32_t)x->index, (uint32_t)x->length));
            x->token[x->length] = draw_token(z + (ptrdiff_t)i * ld, V, s, u, &x->logprob[x->length],
                                             own);
            x->length++;
        }
    }
    a->used = mark;
}

/* Copies finished responses into the group, end to end. `r`: the group's m rollouts, in order. */
static void group_fill(Group *g, const Rollout *r, const Config *c, const Sampling *s)
{
    g->stop = s->stop;
    for (int i = 0; i < g->m; i++) {
        size_t n = (size_t)r[i].length;
        g->start[i + 1] = g->start[i] + r[i].length;
        memcpy(g->token + g->start[i], r[i].token, n * sizeof(int));
        memcpy(g->logprob_old + g->start[i], r[i].logprob, n * sizeof(float));
        g->truncated[i] = !is_eos(c, r[i].token[n - 1]) && !r[i].stopped;
    }
    g->n_tokens = g->start[g->m];
}

/* The prompts' keys and values, each prompt once; returns the hidden rows that predict the first
 * tokens: one for each rollout, prompt after prompt. */
static const float *prefill(Arena *a, const Model *m, const Group *groups, int n, KvPool *pool,
                            KvSeq *prompt_kv)
{
    int rows = 0, targets = 0;
    for (int i = 0; i < n; i++) {
        rows += groups[i].prompt_length;
        targets += groups[i].m;
    }
    Batch b = batch_new(a, rows, n, targets);
    b.pool = pool;
    for (int i = 0; i < n; i++) {
        int s = batch_seq(&b, groups[i].prompt, groups[i].prompt_length, 0, -1);
        prompt_kv[i] = kv_seq_new(a, groups[i].prompt_length);
        kv_reserve(pool, &prompt_kv[i], groups[i].prompt_length);
        b.seq[s].kv = &prompt_kv[i];
        b.seq[s].trace = group_trace(&groups[i], -1, 0);
        for (int k = 0; k < groups[i].m; k++)
            batch_target(&b, b.n_rows - 1, 0);
    }
    return forward(a, m, &b, false).hidden;
}

/* One step of the rollouts that are still going: their last tokens in, the next tokens drawn. */
static void decode(Arena *a, const Model *m, Rollout *const *r, int n, KvPool *pool,
                   const Sampling *s)
{
    Batch b = batch_new(a, n, n, n);
    b.pool = pool;
    for (int i = 0; i < n; i++) {
        int prompt = r[i]->group->prompt_length, own = r[i]->length;
        int k = batch_seq(&b, &r[i]->token[own - 1], 1, prompt + own - 1, -1);
        kv_reserve(pool, &r[i]->kv, own);
        b.seq[k].kv = &r[i]->kv;
        b.seq[k].prefix_kv = r[i]->prompt_kv;
        b.seq[k].prefix_length = prompt;
        b.seq[k].trace = group_trace(r[i]->group, r[i]->index - s->first, own - 1);
        batch_target(&b, i, 0);
    }
    draw_tokens(a, m, forward(a, m, &b, false).hidden, r, n, s);
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
static Rollout *rollouts_new(Arena *a, Group *groups, int n, int total, const Sampling *s,
                             KvSeq *prompt_kv)
{
    Rollout *all = arena_alloc(a, (size_t)total, sizeof *all), *r = all;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < groups[i].m; j++) {
            *r = (Rollout){.group = &groups[i], .index = s->first + j, .prompt_kv = &prompt_kv[i]};
            r->token = arena_alloc(a, (size_t)s->max_tokens, sizeof(int));
            r->logprob = arena_floats(a, (size_t)s->max_tokens);
            r++->kv = kv_seq_new(a, s->max_tokens);
        }
    return all;
}

/* Has the text so far the stop text in it? The tokens that make it up stay in the response: what
 * was sampled is what is trained on. */
static bool has_stopped(const Rollout *r, const Sampling *s)
{
    Buf text = {0};
    if (!s->stop)
        return false;
    tokenizer_decode(s->tokenizer, r->token, r->length, true, &text);
    bool found = strstr(text.s, s->stop) != NULL;
    buf_free(&text);
    return found;
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
        r->stopped = has_stopped(r, s);
        if (r->length == s->max_tokens || is_eos(c, token) || r->stopped)
            kv_release(pool, &r->kv);
        else
            going[still++] = r;
    }
    return still;
}

/* Threads that share the products of one batch meet many times a step, and wait for each other
 * where another program holds a core. So, now and then, one step is made by all and one alone, and
 * the faster way is kept. Both give the same bits. */
typedef struct {
    int all, keep, step; /* threads, threads that were faster, steps so far */
    double together;     /* seconds of the last step tried by all */
} Pace;

/* Threads for the next step, given the seconds that the last one took. */
static int pace_next(Pace *p, double seconds)
{
    int phase = p->step++ % 64;
    if (phase == 1)
        p->together = seconds;
    if (phase == 2)
        p->keep = p->together < seconds ? p->all : 1;
    return phase == 0 ? p->all : phase == 1 ? 1 : p->keep;
}

/* Samples all responses of a few groups together: a prompt is computed once and its keys are shared
 * by its m responses; a finished response leaves the batch at once. Returns the seconds that this
 * took, prompts aside. */
static double sample_together(Arena *a, const Model *m, Group *groups, int n, const Sampling *s)
{
    int live = 0;
    size_t mark = a->used;
    for (int i = 0; i < n; i++)
        live += groups[i].m;
    KvPool pool = kv_pool_new(a, &m->config, sampling_blocks(groups, n, s->max_tokens));
    KvSeq *prompt_kv = arena_alloc(a, (size_t)n, sizeof *prompt_kv);
    Rollout *all = rollouts_new(a, groups, n, live, s, prompt_kv);
    Rollout **going = arena_alloc(a, (size_t)live, sizeof *going);
    for (int i = 0; i < live; i++)
        going[i] = &all[i];
    const float *hidden = prefill(a, m, groups, n, &pool, prompt_kv);
    size_t step_mark = a->used; /* the prompts' block lists lie below it */
    Pace pace = {.all = a->threads};
    double start = now_seconds(), clock = start;
    draw_tokens(a, m, hidden, going, live, s);
    while ((live = drop_finished(&m->config, going, live, &pool, s))) {
        a->threads = pace_next(&pace, lap(&clock));
        decode(a, m, going, live, &pool, s);
        a->used = step_mark;
    }
    for (int i = 0, k = 0; i < n; k += groups[i++].m)
        group_fill(&groups[i], &all[k], &m->config, s);
    a->threads = pace.all;
    trace_end(a->threads);
    a->used = mark;
    return now_seconds() - start;
}

/* Groups that one thread samples together: enough rows for the kernels to run at speed. */
static int groups_together(int m)
{
    enum { GOOD_ROWS = 64 };
    return imax(1, GOOD_ROWS / m);
}

/* Samples n groups of one size. Threads take a few groups each. But where that would leave each
 * with few rows, and the weights are too large for every thread to read them for itself, or where
 * there is one group only, or memory for one batch, all threads share its products. It changes no
 * bit of the groups. Returns the seconds that this took, prompts aside: a thread's mean. */
static double sample_groups(Engine *e, const Model *m, Group *groups, int n, const Sampling *s)
{
    enum { FEW_ROWS = 32, LARGE = 1 << 22 }; /* parameters: 16 MiB */
    int each = groups_together(groups[0].m), share = (n + e->threads - 1) / e->threads;
    bool few = e->frugal || (share * groups[0].m < FEW_ROWS && m->n_params >= LARGE);
    size_t mark = e->arena.used;
    double sum = 0;
    each = few ? each : imin(each, share);
    if (few || each >= n) {
        e->worker[0].threads = imin(e->threads, HELPERS);
        for (int i = 0; i < n; i += each)
            sum += sample_together(&e->worker[0], m, groups + i, imin(each, n - i), s);
        e->worker[0].threads = 1;
        return sum;
    }
    int units = (n + each - 1) / each;
    double *seconds = arena_alloc(&e->arena, (size_t)units, sizeof *seconds);
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < units; i++)
        seconds[i] = sample_together(&e->worker[thread_index()], m, groups + i * each,
                                     imin(each, n - i * each), s);
    for (int i = 0; i < units; i++)
        sum += seconds[i];
    e->arena.used = mark;
    return sum / imin(e->threads, units);
}

/* ================================================================ groups as batches */

/* Rows that a group takes: the prompt once, and of each response all but its last token, which
 * predicts nothing. */
static int group_rows(const Group *g) { return g->prompt_length + g->n_tokens - g->m; }

/* Packs groups for a forward pass: every response token is a target, in the order of the groups'
 * own token arrays. The first token of each response is predicted by the prompt's last row.
 * `traced`: with the traces, to be read, that sampling left. */
static Batch pack_groups(Arena *a, const Group *groups, int n, bool traced)
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
        if (traced)
            b.seq[prompt].trace = group_trace(g, -1, 0);
        for (int k = 0; k < g->m; k++) {
            const int *y = g->token + g->start[k];
            int length = response_length(g, k), row = b.n_rows;
            int s = length > 1 ? batch_seq(&b, y, length - 1, g->prompt_length, prompt) : -1;
            if (traced && s >= 0)
                b.seq[s].trace = group_trace(g, k, 0);
            for (int t = 0; t < length; t++)
                batch_target(&b, t == 0 ? last : row + t - 1, y[t]);
        }
    }
    return b;
}

/* What the reference's head reads for the targets of packed groups. */
static const float *pack_hidden_ref(Arena *a, const Group *groups, int n, size_t d)
{
    size_t targets = 0, offset = 0;
    for (int i = 0; i < n; i++)
        targets += (size_t)groups[i].n_tokens;
    float *all = arena_floats(a, targets * d);
    for (int i = 0; i < n; offset += (size_t)groups[i++].n_tokens)
        memcpy(all + offset * d, groups[i].hidden_ref,
               (size_t)groups[i].n_tokens * d * sizeof(float));
    return all;
}

/* How groups are looked at: by which policy and beside which reference (or NULL), at the
 * temperature that they were sampled at, for which method. */
typedef struct {
    const Model *m, *ref;
    double temperature;
    MethodOptions method;
    uint64_t seed;
    int step;
} View;

/* Groups are seen again, or for the first time: by a forward pass, or by the traces that this very
 * policy left when it sampled them. */
typedef enum { AGAIN, FRESH, TRACED } Sight;

/* A forward pass over packed groups: their log-probs and entropies, and, the first time they are
 * seen, their features and advantages, what sampling and training differ by, and, where there is a
 * reference, how far the policy is from it. */
static Pass look(Arena *a, const View *v, Group *groups, int n, Keep keep, Sight sight)
{
    Batch b = pack_groups(a, groups, n, sight == TRACED);
    Pass p = forward(a, v->m, &b, keep);
    size_t offset = 0, d = (size_t)v->m->config.hidden_size;
    bool beside = v->ref && (sight != AGAIN || uses_exact_kl(&v->method));
    forward_head_beside(a, v->m, &p, (float)v->temperature, true, beside ? v->ref : NULL,
                  beside ? pack_hidden_ref(a, groups, n, d) : NULL);
    for (int i = 0; i < n; offset += (size_t)groups[i++].n_tokens) {
        Group *g = &groups[i];
        memcpy(g->logprob, p.head.logprob + offset, (size_t)g->n_tokens * sizeof(float));
        memcpy(g->entropy, p.head.entropy + offset, (size_t)g->n_tokens * sizeof(float));
        if (beside) {
            memcpy(g->logprob_ref, p.head.other_logprob + offset,
                   (size_t)g->n_tokens * sizeof(float));
            memcpy(g->kl, p.head.kl + offset, (size_t)g->n_tokens * sizeof(float));
        }
        if (sight == AGAIN)
            continue;
        annotate(a, g, p.head.phi + offset * d, (int)d, &v->method, v->seed, v->step);
        g->logp_gap = 0;
        for (int t = 0; t < g->n_tokens; t++)
            g->logp_gap = fmax(g->logp_gap, fabs((double)g->logprob[t] -
                                                 (double)g->logprob_old[t]));
    }
    return p;
}

/* Groups under a model that is not being trained. */
typedef struct {
    const Model *m;
    Group *groups;
} Frozen;

static void reference_group(Arena *a, int i, void *context)
{
    const Frozen *f = context;
    Group *g = &f->groups[i];
    Batch b = pack_groups(a, g, 1, false);
    Pass p = forward(a, f->m, &b, KEEP_NOTHING);
    memcpy(g->hidden_ref, p.hidden,
           (size_t)g->n_tokens * (size_t)f->m->config.hidden_size * sizeof(float));
}

/* Runs all groups through a frozen model, up to its head: that runs beside the policy's own (see
 * look), so that log-probs and the exact KL divergence take one pass over the vocabulary. */
static void reference_hidden(Engine *e, const Model *ref, Group *groups, int n)
{
    Frozen f = {ref, groups};
    size_t d = (size_t)ref->config.hidden_size;
    for (int i = 0; i < n; i++)
        groups[i].hidden_ref = arena_floats(&e->arena, (size_t)groups[i].n_tokens * d);
    engine_each(e, n, reference_group, &f);
}

/* Where the time goes. (`gradient` writes two of them, FORWARD and the next.) */
enum { SAMPLE, VERIFY, REFERENCE, FORWARD, BACKWARD, OPTIMIZER, PHASES };
static const char *const PHASE_NAMES[PHASES] = {"sample",  "verify",   "reference",
                                                "forward", "backward", "optimizer"};

/* What an update needs to know, and what its phases took. */
typedef struct {
    View view;
    int micro_batch;        /* groups in one pass */
    double seconds[PHASES], flops[PHASES]; /* flops: as count_work has them */
} Update;

/* The groups of one optimizer batch, with what their loss needs. */
typedef struct {
    Group *groups;
    int n, tokens, responses; /* response tokens and responses that are in the loss */
    const Update *update;
    bool fresh;               /* not seen by the trainer yet */
    LossSums *sums;           /* [n] */
} GroupBatch;

/* Micro-batch i, forward: log-probs, advantages where they are not there yet, and the loss. The
 * first one of a step does without what sampling left: so logp_gap stays a measurement. */
static Pass look_at_groups(Arena *a, int i, Keep keep, void *context)
{
    const GroupBatch *x = context;
    const Update *u = x->update;
    int first = i * u->micro_batch, end = imin(first + u->micro_batch, x->n), targets = 0;
    for (int k = first; k < end; k++)
        targets += x->groups[k].n_tokens;
    Coef coef = coef_new(a, (size_t)targets, &u->view.method);
    Sight sight = !x->fresh ? AGAIN : i == 0 ? FRESH : TRACED;
    Pass p = look(a, &u->view, x->groups + first, end - first, keep, sight);
    p.coef = (HeadCoef){coef.logprob, coef.entropy, coef.kl};
    for (int k = first; k < end; coef = coef_after(coef, x->groups[k++].n_tokens)) {
        const Group *g = &x->groups[k];
        LossSums *sums = &x->sums[k];
        *sums = (LossSums){0};
        sums->loss = group_loss(g, &u->view.method, x->tokens, x->responses, coef, sums);
    }
    return p;
}

/* Features and advantages of one group, before any update. */
static void annotate_group(Arena *a, int i, void *context)
{
    const GroupBatch *x = context;
    look(a, &x->update->view, &x->groups[i], 1, KEEP_NOTHING,
         i < x->update->micro_batch ? FRESH : TRACED);
}

/* Adds to m->grads the gradient of the loss over n groups (one optimizer batch). */
static void accumulate_gradient(Engine *e, Model *m, Group *groups, int n, Update *u, bool fresh,
                                LossSums *total)
{
    GroupBatch x = {.groups = groups, .n = n, .update = u, .fresh = fresh};
    size_t mark = e->arena.used;
    x.sums = arena_alloc(&e->arena, (size_t)n, sizeof *x.sums);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < groups[i].m; k++)
            if (is_in_loss(&groups[i], k, &u->view.method)) {
                x.tokens += response_length(&groups[i], k);
                x.responses++;
            }
    gradient(e, m, (n + u->micro_batch - 1) / u->micro_batch, look_at_groups, &x,
             u->seconds + FORWARD);
    for (int i = 0; i < n; i++)
        loss_sums_add(total, &x.sums[i]);
    e->arena.used = mark;
}

/* ================================================================ asking and judging */

/* Ids of a text, of a `prompt` with the token that begins it; the caller frees them. Dies where a
 * character has no token, and where there are none or more than `most`. */
static Ids encode(const Tokenizer *t, bool prompt, const char *text, size_t n, int most,
                  const char *what)
{
    size_t bad = 0;
    Ids ids = {0};
    if (!(prompt ? tokenizer_prompt : tokenizer_encode)(t, text, n, &ids, &bad))
        die("%s: %s: no token for the character at byte %zu", what, shown(text, n).s, bad);
    if (ids.n == 0)
        die("%s: is empty", what);
    if (ids.n > most)
        die("%s: %s is %d tokens long; expected at most %d", what, shown(text, n).s, ids.n, most);
    return ids;
}

/* Sets the prompt of a group, and frees the ids. */
static void group_prompt(Group *g, Ids ids)
{
    memcpy(g->prompt, ids.id, (size_t)ids.n * sizeof(int));
    g->prompt_length = ids.n;
    ids_free(&ids);
}

static const char *arena_text(Arena *a, const Buf *text)
{
    return memcpy(arena_alloc(a, text->n + 1, 1), text->s, text->n + 1);
}

/* Sets problem `index` as a group's prompt. A list's texts stay where they are; those of a problem
 * drawn here, which are short, go into the arena. */
static void group_ask(Group *g, Arena *a, Problems *p, uint32_t index, const Tokenizer *t,
                      int max_prompt)
{
    Buf prompt = {0}, answer = {0}, asked = {0};
    g->index = index;
    if (p->n) {
        const Problem *q = problem_of_list(p, index);
        g->text = q->prompt;
        g->answer = q->answer;
    } else {
        task_problem(&p->task, p->seed, p->split, index, &prompt, &answer);
        g->text = arena_text(a, &prompt);
        g->answer = arena_text(a, &answer);
    }
    template_render(&p->template, g->text, &asked);
    group_prompt(g, encode(t, true, asked.s, asked.n, max_prompt, p->n ? p->path : "prompt"));
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&asked);
}

/* A response as text, without the end token, and up to the stop text. */
static void response_text(const Group *g, int i, const Tokenizer *t, Buf *out)
{
    out->n = 0;
    tokenizer_decode(t, g->token + g->start[i], response_length(g, i), true, out);
    char *stop = g->stop ? strstr(out->s, g->stop) : NULL;
    if (stop) {
        *stop = 0;
        out->n = (size_t)(stop - out->s);
    }
}

/* Rewards by a verifier: +1 for a right and finished response, -1 for any other. */
static void verify_group(Group *g, const Judge *j, const Tokenizer *t)
{
    Buf text = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        Verdict v = judge(j, g->text, g->answer, text.s);
        g->answered[i] = judge_finds(j, g->text, text.s);
        if (g->truncated[i])
            v = (Verdict){false, "cut off at --max-tokens"};
        g->reward[i] = v.right ? 1 : -1;
        g->reason[i] = v.reason;
    }
    buf_free(&text);
}

/* Rewards by --reward-cmd, for all responses at once: what it says of each, finished or cut off.
 * The reasons last until it is asked again. */
static void ask_command(Group *groups, int n, Reward *command, const Tokenizer *t)
{
    Buf text = {0}, lines = {0};
    int total = 0;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < groups[k].m; i++, total++) {
            response_text(&groups[k], i, t, &text);
            reward_request(groups[k].text, text.s, text.n, groups[k].answer, &lines);
        }
    double *reward = xcalloc((size_t)total, sizeof *reward), *r = reward;
    const char **reason = xcalloc((size_t)total, sizeof *reason), **why = reason;
    reward_ask(command, &lines, total, reward, reason);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < groups[k].m; i++) {
            groups[k].reward[i] = *r++;
            groups[k].reason[i] = *why++;
            groups[k].answered[i] = true;
        }
    free(reward);
    free(reason);
    buf_free(&text);
    buf_free(&lines);
}

static void verify_groups(Group *groups, int n, const Judge *j, const Tokenizer *t)
{
    if (j->command)
        ask_command(groups, n, j->command, t);
    for (int i = 0; i < n && !j->command; i++)
        verify_group(&groups[i], j, t);
}

/* ================================================================ what a batch of groups shows */

/* Sums over groups; each metric is one of them divided by another. */
typedef struct {
    double responses, tokens, groups, right, dead, all_right, all_wrong, truncated;
    double reward, reward_std;
    double pairs, cosine, negative, nu, entropy, kl, semantic;
    double logp_gap;             /* the largest */
    double advantage2, novelty2; /* sums of A^2, and of its part among equal rewards */
} GroupSums;

/* The part of a group's A^2 that novelty makes: what is left among responses of equal reward, as
 * all right ones are, and all wrong ones. (Where real-valued rewards are all different it is 0:
 * then nothing tells the two apart.) */
static double novelty_part(const Group *g)
{
    double part = 0;
    for (int i = 0; i < g->m; i++) {
        double sum = 0;
        int n = 0;
        for (int j = 0; j < g->m; j++)
            if (fabs(g->reward[j] - g->reward[i]) < FLOOR) {
                sum += g->advantage[j];
                n++;
            }
        part += g->advantage[i] * (g->advantage[i] - sum / n);
    }
    return fmax(part, 0);
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
            s->semantic += g->embedded ? g->semantic[i * g->m + j] : (double)NAN;
            s->pairs++;
        }
    }
    for (int i = 0; i < g->m; i++)
        variance += (g->reward[i] - mean) * (g->reward[i] - mean) / g->m;
    for (int t = 0; t < g->n_tokens; t++) {
        s->entropy += (double)g->entropy[t];
        s->kl += g->hidden_ref ? (double)g->kl[t] : 0;
    }
    s->groups++;
    s->responses += g->m;
    s->tokens += g->n_tokens;
    s->right += count_right(g);
    s->all_right += count_right(g) == g->m;
    s->all_wrong += count_right(g) == 0;
    s->dead += is_dead(g);
    s->reward += mean;
    s->reward_std += sqrt(variance);
    s->novelty2 += novelty_part(g);
    s->logp_gap = fmax(s->logp_gap, g->logp_gap);
}

/* a / b; 0 where there is nothing to divide by. */
static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

/* ================================================================ memory and options */

/* A command without --top-p and --top-k draws from the whole distribution. */
static Sampling session_sampling(const Session *s, int step)
{
    const Options *o = &s->o;
    return (Sampling){.temperature = o->temperature, .top_p = o->top_p > 0 ? o->top_p : 1,
                      .top_k = o->top_k,
                      .max_tokens = o->max_tokens, .seed = o->seed, .step = step,
                      .stop = o->stop, .tokenizer = &s->tokenizer};
}

/* How large the groups of a run are, at most. */
typedef struct {
    int groups, m, max_prompt, max_tokens, at_once; /* at_once: groups in one pass */
    Keep keep;
    bool reference; /* with hidden_ref */
    Tracing trace;
} Extent;

/* Floats of one group's trace, and bytes of all. */
static size_t group_trace_floats(const Model *m, Extent x)
{
    size_t rows = (size_t)x.max_prompt + (size_t)x.m * (size_t)(x.max_tokens - 1);
    return rows * trace_floats(&m->config, x.trace);
}

static size_t traces_bytes(const Model *m, Extent x)
{
    return (size_t)x.groups * group_trace_floats(m, x) * sizeof(float);
}

/* Bytes for the groups themselves. */
static size_t groups_bytes(const Model *m, Extent x)
{
    size_t tokens = (size_t)x.max_tokens, d = (size_t)m->config.hidden_size;
    size_t ref = x.reference ? tokens * d * 4 : 0;
    size_t each = (size_t)x.max_prompt * 8 + (size_t)x.m * (tokens * 28 + ref + d * 4 + 128) +
                  (size_t)(x.m * x.m) * 24 + 8192;
    return (size_t)x.groups * (each + sizeof(Group) + 512) + traces_bytes(m, x) + (1 << 20);
}

/* Bytes for a thread that samples a few groups together. */
static size_t sampling_bytes(const Model *m, Extent x)
{
    int together = imin(x.groups, groups_together(x.m)), longest = x.max_prompt + x.max_tokens;
    size_t all = (size_t)(together * x.m), tokens = (size_t)x.max_tokens;
    size_t prompts = (size_t)(together * x.max_prompt);
    int blocks = together * (kv_blocks(x.max_prompt) + x.m * kv_blocks(x.max_tokens));
    size_t drawn = (size_t)imin(DRAWN_ROWS, (int)all) + 2 * HELPERS;
    size_t logits = (size_t)apart(m->config.vocab_size) * drawn;
    return pass_bytes(m, prompts, all, longest, KEEP_NOTHING) +
           pass_bytes(m, all, all, longest, KEEP_NOTHING) + kv_pool_bytes(&m->config, blocks) +
           (all + (size_t)together) * 512 + all * tokens * 8 + logits * sizeof(float) + (1 << 16);
}

/* Bytes for a pass over `at_once` groups. */
static size_t groups_pass_bytes(const Model *m, Extent x)
{
    size_t targets = (size_t)x.at_once * (size_t)x.m * (size_t)x.max_tokens;
    size_t rows = (size_t)x.at_once * (size_t)x.max_prompt + targets;
    int longest = x.max_prompt + x.max_tokens;
    size_t embeddings = (size_t)x.m * (size_t)imax(NGRAM_BUCKETS, m->config.hidden_size) * 4;
    return pass_bytes(m, rows, targets, longest, x.keep) + targets * 16 + embeddings + (1 << 16);
}

/* Bytes for a thread, which does the one, then the other. */
static size_t worker_bytes(const Model *m, Extent x)
{
    size_t sampling = sampling_bytes(m, x), pass = groups_pass_bytes(m, x);
    return sampling > pass ? sampling : pass;
}

static Engine extent_engine(const Model *m, int threads, Extent x)
{
    return engine_new(threads, groups_bytes(m, x), worker_bytes(m, x));
}

/* Sequences or groups that make a good pass: enough rows for the kernels, few enough that what
 * they leave behind stays in the cache. */
static int good_micro_batch(int asked, int n, int rows_each)
{
    enum { GOOD_ROWS = 256 };
    return asked ? imin(asked, n) : imax(1, imin(n, GOOD_ROWS / rows_each));
}

/* Bytes that a run's work takes: one worker's, to sample and for a pass, and what all share. */
typedef struct {
    size_t shared, sampling, pass, piece; /* piece: see pieces_bytes */
    size_t trace;                         /* of `shared` */
    bool reference;
} Needs;

/* Bytes that a run takes at most, in all and in parts. */
typedef struct {
    double weights, gradients, adam, reference, sampling, pass, work, all;
} Memory;

static Memory run_memory(const Session *s, Needs n)
{
    const Model *m = &s->model;
    bool frugal = s->o.recompute;
    int threads = s->engine.threads;
    double f = sizeof(float), packed = f * (double)model_packed_floats(m, false);
    double copies = frugal ? 0 : packed + f * (double)model_packed_floats(m, true);
    Memory x = {.weights = f * (double)m->n_params + copies, .gradients = f * (double)m->n_grads,
                .adam = 2 * f * (double)m->n_params};
    x.reference = n.reference ? f * (double)m->n_params + (frugal ? 0 : packed) : 0;
    x.sampling = (double)n.sampling + (frugal ? packed : 0);
    x.pass = (double)n.pass;
    x.work = fmax(x.sampling, x.pass) * (frugal ? 1 : threads) + (double)n.shared +
             (frugal ? (double)n.piece * (threads - 1) : 0);
    x.all = x.weights + x.gradients + x.adam + x.reference + x.work;
    return x;
}

/* Bytes that a run may take, when the weights are there and nothing else. */
static double run_available(const Model *m)
{
    return memory_available() + sizeof(float) * (double)m->n_params;
}

/* The engine of a run. Says in one line what memory the run will need at most, and ends where the
 * machine does not have it. To be called when the weights are there, and nothing else. */
static Engine run_engine(const Session *s, Needs n)
{
    bool frugal = s->o.recompute;
    Memory x = run_memory(s, n);
    double MiB = 1 << 20, all = x.all / MiB, has = run_available(&s->model) / MiB;
    fprintf(stderr, "memory: at most %.0f MiB of %.0f (weights %.0f, gradients %.0f, Adam %.0f, "
            "reference %.0f, work %.0f: KV cache %.0f, then activations %.0f", all, has,
            x.weights / MiB, x.gradients / MiB, x.adam / MiB, x.reference / MiB, x.work / MiB,
            x.sampling / MiB, x.pass / MiB);
    if (n.trace)
        fprintf(stderr, ", kept from sampling %.0f", (double)n.trace / MiB);
    fputs(")\n", stderr);
    if (all > has)
        die("the run needs %.0f MiB and there are %.0f MiB; try %s", all, has,
            frugal ? "a smaller --micro-batch, --max-tokens or --rollouts" : "--recompute");
    size_t most = n.sampling > n.pass ? n.sampling : n.pass;
    return frugal ? engine_frugal(s->engine.threads, n.shared, most, n.piece)
                  : engine_new(s->engine.threads, n.shared, most);
}

static Group *groups_new(Engine *e, const Model *m, Extent x)
{
    Group *g = arena_alloc(&e->arena, (size_t)x.groups, sizeof *g);
    size_t floats = trace_floats(&m->config, x.trace);
    for (int i = 0; i < x.groups; i++) {
        g[i] = group_new(&e->arena, x.m, x.max_prompt, x.max_tokens, m->config.hidden_size);
        if (x.trace)
            g[i].trace = (Trace){arena_floats(&e->arena, group_trace_floats(m, x)), floats};
    }
    return g;
}

static MethodOptions method_options(const Options *o)
{
    return (MethodOptions){.method = (Method)o->method, .shaping = (Shaping)o->shaping,
                           .dead_groups = (DeadGroups)o->dead_groups,
                           .adv_norm = (AdvNorm)o->adv_norm, .loss = (Loss)o->loss,
                           .novelty = (Novelty)o->novelty, .encoder = (Embedding)o->encoder,
                           .kl = (KlTerm)o->kl, .mask_truncated = o->mask_truncated,
                           .lambda = o->lambda, .clip_low = o->clip_low,
                           .clip_high = o->clip_high, .kl_coef = o->kl_coef,
                           .entropy_coef = o->entropy_coef};
}

/* Refuses options that would do nothing, or nothing sensible, with the others. */
static void check_method(const Options *o, bool train)
{
    if (o->method != G2RL && (o->novelty || o->shaping || o->lambda != 0.5))
        usage("--method %s: knows no --lambda, --shaping or --novelty; these shape the rewards of "
              "--method g2rl", METHODS[o->method]);
    if (o->method == EVOL && o->reward_cmd)
        usage("--method evol: knows right and wrong answers only; expected a verifier, not "
              "--reward-cmd");
    if (o->method == ENTROPY && train && o->entropy_coef == 0)
        usage("--method entropy: is GRPO without its bonus; expected --entropy-coef above 0");
    if (o->kl && o->kl_coef == 0)
        usage("--kl %s: expected --kl-coef above 0", o->kl == KL_K2 ? "k2" : "exact");
    if (train && o->method == G2RL && o->rollouts == 2)
        warn("--rollouts 2: each response has one other, so both nu of a group are equal, and g2rl "
             "is grpo; expected 3 or more");
    bool once = o->epochs == 1 && (!o->mini_batch || o->mini_batch >= o->prompts);
    if (train && once && (o->clip_low != 0.2 || o->clip_high != 0.2))
        warn("--clip-low, --clip-high: one exactly on-policy update a step has a ratio of 1, which "
             "no clip holds; see --mini-batch and --epochs");
}

/* Is the reference needed, the model that training began with: for a KL penalty, or for EVOL-RL's
 * embeddings? */
static bool keeps_reference(const Options *o)
{
    return o->kl_coef > 0 || (o->method == EVOL && o->encoder == EMBED_REF);
}

/* ================================================================ evaluation */

enum { MAX_K = 13 }; /* pass@k for k = 1, 2, 4, .. 4096 */

/* What one model does on held-out problems at one temperature, a row for each problem. */
typedef struct {
    const char *name;
    double temperature;
    int problems, samples;
    int few;         /* votes and distinct answers are counted among so many samples: 16, or all */
    int distinct;    /* problems that differ */
    int *class;      /* [problems] the first that is the same one */
    double *right, *pass[MAX_K], *maj; /* [problems] right: samples that are */
    double *distinct_right;            /* [problems] expected among `few` samples */
    double right_classes, two_right;   /* sums: distinct right answers among all samples; problems
                                          that have two or more */
    GroupSums sums;
    uint64_t seed;
    Buf *responses; /* a line for each is added; or NULL */
} Evaluation;

/* The class of response i: the first response, perhaps itself, that answers the same. */
static int first_alike(const Group *g, const Judge *j, char **answer, const int *class, int i)
{
    for (int k = 0; k < i; k++)
        if (class[k] == k && g->truncated[k] == g->truncated[i] &&
            judge_same(j, answer[k], answer[i]))
            return k;
    return i;
}

/* Which responses of a group answer the same.   class: [m] */
static void group_classes(const Group *g, const Judge *j, const Tokenizer *t, int *class)
{
    char **answer = xcalloc((size_t)g->m, sizeof *answer);
    Buf text = {0}, name = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        judge_class(j, g->text, text.s, &name);
        answer[i] = xstrdup(name.s);
        class[i] = first_alike(g, j, answer, class, i);
    }
    for (int i = 0; i < g->m; i++)
        free(answer[i]);
    free(answer);
    buf_free(&text);
    buf_free(&name);
}

/* How many pass@k there are of so many samples: k = 1, 2, 4, .. */
static int passes(int samples)
{
    int n = 0;
    while (n < MAX_K && 1 << n <= samples)
        n++;
    return n;
}

/* Of the first --problems of a list. */
static Evaluation evaluation_new(const char *name, const Problems *p, const Options *o)
{
    size_t n = (size_t)imin(p->n, o->problems);
    Evaluation ev = {.name = name, .temperature = o->temperature, .problems = (int)n,
                     .samples = o->samples, .few = imin(16, o->samples), .seed = o->seed};
    for (int k = 0; k < passes(o->samples); k++)
        ev.pass[k] = xcalloc(n, sizeof(double));
    ev.right = xcalloc(n, sizeof(double));
    ev.maj = xcalloc(n, sizeof(double));
    ev.distinct_right = xcalloc(n, sizeof(double));
    ev.class = xcalloc(n, sizeof(int));
    ev.distinct = problems_classes(p, (int)n, ev.class);
    return ev;
}

static void evaluation_free(Evaluation *ev)
{
    for (int k = 0; k < MAX_K; k++)
        free(ev->pass[k]);
    free(ev->right);
    free(ev->maj);
    free(ev->distinct_right);
    free(ev->class);
}

/* Metric k of an evaluation, a value for each problem: pass@1, pass@2, pass@4, ..; after these
 * maj@k and distinct_right@k; then NULL. */
static const double *evaluation_metric(const Evaluation *ev, int k, char name[32])
{
    int last = passes(ev->samples);
    snprintf(name, 32, k < last ? "pass@%d" : k == last ? "maj@%d" : "distinct_right@%d",
             k < last ? 1 << k : ev->few);
    return k < last ? ev->pass[k] : k == last ? ev->maj : k == last + 1 ? ev->distinct_right : NULL;
}

/* The mean of a metric, its interval over problems that differ; and what it is above another's. */
static Estimate evaluation_mean(const Evaluation *ev, const double *x)
{
    return bootstrap(x, ev->class, ev->problems, ev->seed);
}

static Estimate evaluation_difference(const Evaluation *ev, const double *x, const double *y)
{
    return paired(x, y, ev->class, ev->problems, ev->seed);
}

static void put_estimate(Buf *b, const char *name, Estimate x)
{
    put(b, name, x.value);
    buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", name, x.low, x.high);
}

/* How an evaluation differs from another on the same problems, metric by metric. */
static void difference_json(const Evaluation *ev, const Evaluation *from, Buf *b)
{
    const double *x, *y;
    char name[32];
    buf_str(b, ", \"difference\": {\"from\": ");
    json_put_string(b, from->name, strlen(from->name));
    for (int k = 0; (x = evaluation_metric(ev, k, name)); k++) {
        y = evaluation_metric(from, k, name);
        put_estimate(b, name, evaluation_difference(ev, x, y));
    }
    buf_str(b, "}");
}

/* The whole evaluation as the members of a JSON object. */
static void evaluation_json(const Evaluation *ev, Buf *b)
{
    const GroupSums *s = &ev->sums;
    const double *x;
    char name[32];
    for (int k = 0; (x = evaluation_metric(ev, k, name)); k++)
        put_estimate(b, name, evaluation_mean(ev, x));
    snprintf(name, sizeof name, "mean@%d", ev->samples);
    put(b, name, ratio(s->right, s->responses));
    put(b, "problems", ev->problems);
    put(b, "distinct_problems", ev->distinct);
    put(b, "samples", ev->samples);
    put(b, "temperature", ev->temperature);
    put(b, "frac_two_right", ratio(ev->two_right, ev->problems));
    put(b, "frac_copies", ratio(s->right - ev->right_classes, s->right));
    put(b, "frac_all_right", ratio(s->all_right, s->groups));
    put(b, "frac_all_wrong", ratio(s->all_wrong, s->groups));
    put(b, "phi/cos_mean", ratio(s->cosine, s->pairs));
    put(b, "phi/neg_ratio", ratio(s->negative, s->pairs));
    put(b, "phi/nu_mean", ratio(s->nu, s->responses));
    put(b, "entropy", ratio(s->entropy, s->tokens));
    put(b, "completions/mean_length", ratio(s->tokens, s->responses));
    put(b, "completions/clipped_ratio", ratio(s->truncated, s->responses));
    put_vector(b, "right", ev->right, ev->problems);
    put_vector(b, "maj", ev->maj, ev->problems);
    put_vector(b, "distinct_right", ev->distinct_right, ev->problems);
    if (ev->distinct == ev->problems)
        return;
    buf_str(b, ", \"problem_class\": [");
    for (int i = 0; i < ev->problems; i++)
        buf_printf(b, i ? ", %d" : "%d", ev->class[i]);
    buf_str(b, "]");
}

/* What a group's answer classes say of a problem: maj@k, the mean over its disjoint blocks of k
 * samples, and distinct right answers. An answer that n_c of m samples give is among k of them,
 * drawn without putting back, with the chance pass_at_k(m, n_c, k). */
static void evaluate_classes(Evaluation *ev, int row, const Group *g, const int *class)
{
    int k = ev->few, *count = xcalloc((size_t)g->m, sizeof *count), kinds = 0;
    bool *right = xcalloc((size_t)g->m, sizeof *right);
    for (int i = 0; i < g->m; i++) {
        right[i] = is_right(g->reward[i]);
        count[class[i]] += right[i];
    }
    for (int i = 0; i + k <= g->m; i += k)
        ev->maj[row] += majority(class + i, right + i, k) / (g->m / k);
    for (int i = 0; i < g->m; i++) {
        ev->distinct_right[row] += count[i] ? pass_at_k(g->m, count[i], k) : 0;
        kinds += count[i] > 0;
    }
    ev->right_classes += kinds;
    ev->two_right += kinds >= 2;
    free(count);
    free(right);
}

/* A few problems of an evaluation, sampled: rows `first`, first + 1, ... */
typedef struct {
    const Model *m;
    const Tokenizer *t;
    const Judge *judge;
    Group *groups;
    const Sampling *s;
    Evaluation *ev;
    int first, *class; /* class: [groups, samples] */
} Answers;

/* One problem's row of an evaluation: features and votes. */
static void evaluate_group(Arena *a, int i, void *context)
{
    const Answers *x = context;
    Evaluation *ev = x->ev;
    Group *g = &x->groups[i];
    View view = {.m = x->m, .temperature = x->s->temperature > 0 ? x->s->temperature : 1,
                 .method = {.method = GRPO}, .seed = x->s->seed};
    look(a, &view, g, 1, KEEP_NOTHING, TRACED);
    for (int k = 0; k < passes(ev->samples); k++)
        ev->pass[k][x->first + i] = pass_at_k(ev->samples, count_right(g), 1 << k);
    ev->right[x->first + i] = count_right(g);
    group_classes(g, x->judge, x->t, x->class + (ptrdiff_t)i * g->m);
}

/* What is known of response i by itself, as members of a JSON object. */
static void put_response(Buf *b, const Group *g, int i, const Tokenizer *t)
{
    Buf text = {0};
    double logprob = 0, entropy = 0;
    int n = response_length(g, i);
    for (int k = g->start[i]; k < g->start[i + 1]; k++) {
        logprob += (double)g->logprob_old[k];
        entropy += (double)g->entropy[k] / n;
    }
    response_text(g, i, t, &text);
    put_text(b, "prompt", g->text, strlen(g->text));
    put_text(b, "response", text.s, text.n);
    put_text(b, "answer", g->answer, strlen(g->answer));
    put(b, "length", n);
    buf_printf(b, ", \"truncated\": %s", g->truncated[i] ? "true" : "false");
    put(b, "reward", g->reward[i]);
    put_text(b, "reason", g->reason[i], strlen(g->reason[i]));
    put(b, "logprob", logprob);
    put(b, "entropy", entropy);
    buf_free(&text);
}

/* A line of eval --responses for each response of a problem; class: [m] */
static void write_responses(const Evaluation *ev, int row, const Group *g, const int *class,
                            const Tokenizer *t)
{
    Buf b = {0};
    for (int i = 0; i < g->m && ev->responses; i++) {
        b.n = 0;
        put_text(&b, "name", ev->name, strlen(ev->name));
        put(&b, "temperature", ev->temperature);
        put(&b, "problem", row);
        put(&b, "sample", i);
        put(&b, "answer_class", class[i]);
        put_response(&b, g, i, t);
        buf_printf(ev->responses, "{%s}\n", b.s + 2);
    }
    buf_free(&b);
}

/* The groups of an evaluation that are sampled together: about 512 responses. */
static Extent eval_extent(const Problems *p, int samples, int max_tokens)
{
    int at_once = imax(1, 512 / samples);
    return (Extent){at_once, samples, p->longest, max_tokens, 1, KEEP_NOTHING, false, TRACE_OUTPUT};
}

/* Samples and judges every problem, `at_once` together, and takes their features as well. The same
 * seed draws the same random numbers for every model: comparisons are paired. */
static void evaluate(Engine *e, Model *m, const Tokenizer *t, Problems *p, const Sampling *s,
                     int at_once, Evaluation *ev, Progress *report)
{
    Extent x = eval_extent(p, ev->samples, s->max_tokens);
    rope_reserve(m, x.max_prompt + x.max_tokens);
    int *class = xcalloc((size_t)at_once * (size_t)ev->samples, sizeof *class);
    for (int i = 0; i < ev->problems; i += x.groups) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, ev->problems - i);
        Group *g = groups_new(e, m, x);
        for (int k = 0; k < x.groups; k++)
            group_ask(&g[k], &e->arena, p, (uint32_t)(i + k), t, x.max_prompt);
        sample_groups(e, m, g, x.groups, s);
        verify_groups(g, x.groups, &p->judge, t);
        Answers answers = {m, t, &p->judge, g, s, ev, i, class};
        engine_each(e, x.groups, evaluate_group, &answers);
        for (int k = 0; k < x.groups; k++) {
            const int *of_group = class + (ptrdiff_t)k * ev->samples;
            group_sums(&ev->sums, &g[k]);
            evaluate_classes(ev, i + k, &g[k], of_group);
            write_responses(ev, i + k, &g[k], of_group, t);
        }
        e->arena.used = mark;
        if (report)
            progress(report, i + x.groups, "problems");
    }
    free(class);
}

/* A frugal model is packed while it samples, in memory that its passes do not need then. */
static void sampling_begins(Session *s)
{
    if (!s->model.frugal)
        return;
    arena_release(&s->engine.worker[0]);
    model_pack(&s->model, s->engine.threads);
}

static void sampling_ends(Session *s)
{
    if (s->model.frugal)
        model_unpack(&s->model);
}

/* Held-out problems, every --eval-every steps of sft or train: a row of eval.jsonl. */
static void eval_on_the_side(Session *s, Problems *held_out, FILE *file, int step)
{
    Buf b = {0};
    Evaluation ev = evaluation_new("held-out", held_out, &s->o);
    Sampling sampling = session_sampling(s, 0);
    Extent x = eval_extent(held_out, s->o.samples, s->o.max_tokens);
    int n_vocab = s->model.n_vocab;
    s->model.n_vocab = s->tokenizer.n_vocab; /* sft trains on all ids, some without a text */
    sampling_begins(s);
    evaluate(&s->engine, &s->model, &s->tokenizer, held_out, &sampling, x.groups, &ev, NULL);
    sampling_ends(s);
    s->model.n_vocab = n_vocab;
    buf_printf(&b, "{\"step\": %d", step);
    evaluation_json(&ev, &b);
    run_line(file, &b, s->o.out, "eval.jsonl");
    evaluation_free(&ev);
    buf_free(&b);
}

/* Ends a run whose numbers are no numbers any more, before they reach a file: to be called after
 * each update, with the step's number from 1, its loss, and the gradient's norm. */
static void demand_finite(const Model *m, int step, double loss, double norm)
{
    const char *gradient = isfinite(norm) ? NULL : first_not_finite(m, m->grads);
    const char *weight = first_not_finite(m, m->params);
    if (gradient || !isfinite(loss))
        die("step %d: the loss is %g, and the gradient of %s is not finite; nothing of it is "
            "saved; try a smaller --lr", step, loss, gradient ? gradient : "no tensor");
    if (weight)
        die("step %d: the update made a weight of %s that is not finite; nothing of it is saved; "
            "try a smaller --lr", step, weight);
}

/* ================================================================ train */

/* One row of the ledger: a rollout with every number that made its advantage. */
static void put_rollout(Buf *b, const Group *g, int i, int step, const Tokenizer *t)
{
    buf_printf(b, "{\"step\": %d, \"prompt_index\": %u, \"rollout\": %d", step, g->index, i);
    put_response(b, g, i, t);
    put_vector(b, "S", g->S + (ptrdiff_t)i * g->m, g->m);
    put_vector(b, "w", g->w + (ptrdiff_t)i * g->m, g->m);
    put(b, "nu", g->nu[i]);
    put(b, "nubar", g->nubar[i]);
    if (g->embedded)
        put_vector(b, "semantic", g->semantic + (ptrdiff_t)i * g->m, g->m);
    put(b, "u", g->u[i]);
    put(b, "rtilde", g->shaped[i]);
    put(b, "advantage", g->advantage[i]);
}

/* The row of metrics.jsonl for one step. */
static void put_metrics(Buf *b, int step, const GroupSums *s, const LossSums *l, bool reference)
{
    buf_printf(b, "{\"step\": %d", step);
    put(b, "reward", ratio(s->reward, s->groups));
    put(b, "reward_std", ratio(s->reward_std, s->groups));
    put(b, "pass@1", ratio(s->right, s->responses));
    put(b, "frac_dead", ratio(s->dead, s->groups));
    put(b, "frac_all_right", ratio(s->all_right, s->groups));
    put(b, "frac_all_wrong", ratio(s->all_wrong, s->groups));
    put(b, "completions/mean_length", ratio(s->tokens, s->responses));
    put(b, "completions/clipped_ratio", ratio(s->truncated, s->responses));
    put(b, "entropy", ratio(l->entropy, l->tokens));
    put(b, "kl_exact", reference ? ratio(s->kl, s->tokens) : (double)NAN);
    put(b, "kl_k1", reference ? ratio(l->k1, l->tokens) : (double)NAN);
    put(b, "kl_k3", reference ? ratio(l->k3, l->tokens) : (double)NAN);
    put(b, "clip_low", ratio(l->clipped_low, l->tokens));
    put(b, "clip_high", ratio(l->clipped_high, l->tokens));
    put(b, "log_ratio_clamped", l->clamped);
    put(b, "phi/cos_mean", ratio(s->cosine, s->pairs));
    put(b, "phi/neg_ratio", ratio(s->negative, s->pairs));
    put(b, "phi/nu_mean", ratio(s->nu, s->responses));
    put(b, "semantic/cos_mean", ratio(s->semantic, s->pairs));
    put(b, "adv/novelty_share", ratio(s->novelty2, s->advantage2));
    put(b, "logp_gap", s->logp_gap);
}

/* A run of train. The totals of its Run are the phases' seconds, then their work. */
typedef struct {
    Session *s;
    Run run;
    Model reference;
    Problems problems, held_out;
    Extent extent;
    bool warned; /* of rewards that Eq 13 clips */
} Trainer;

_Static_assert(2 * PHASES <= RUN_TOTALS, "room for the seconds and the work of each phase");

/* Training prompts are drawn from this index on: not those that supervised training began with. */
enum { FIRST_PROMPT = 1 << 30 };

/* Says once that rewards of the user's own are larger than what Eq 13 lets through. */
static void warn_clipped(Trainer *t, const Group *g, int n)
{
    for (int i = 0; i < n * g->m && t->s->o.method == G2RL && !t->warned; i++) {
        double reward = g[i / g->m].reward[i % g->m];
        t->warned = fabs(reward) > SHAPED_LIMIT;
        if (t->warned)
            warn("--reward-cmd: a reward of %g; shaped rewards are clipped to [-3, 3] (Eq 13), so "
                 "larger ones become alike; let it scale them", reward);
    }
}

/* Asks the problem of group i of a step. */
static void train_ask(Trainer *t, Group *g, int step, int i)
{
    uint32_t index = (uint32_t)step * (uint32_t)t->s->o.prompts + (uint32_t)i;
    group_ask(g, &t->s->engine.arena, &t->problems, index + (t->problems.n ? 0 : FIRST_PROMPT),
              &t->s->tokenizer, t->extent.max_prompt);
}

/* Steps 1 and 2: the groups of this step, sampled and verified. */
static void roll_out(Trainer *t, Group *g, int step, double *seconds)
{
    Session *s = t->s;
    int n = s->o.prompts;
    double clock = now_seconds();
    for (int i = 0; i < n; i++)
        train_ask(t, &g[i], step, i);
    Sampling sampling = session_sampling(s, step);
    sampling_begins(s);
    sample_groups(&s->engine, &s->model, g, n, &sampling);
    sampling_ends(s);
    seconds[SAMPLE] += lap(&clock);
    verify_groups(g, n, &t->problems.judge, &s->tokenizer);
    warn_clipped(t, g, n);
    seconds[VERIFY] += lap(&clock);
}

/* Whether the first forward pass over group i of a step reads what sampling left. */
static bool is_recalled(const Trainer *t, int i)
{
    return t->extent.trace == TRACE_ALL && i >= t->extent.at_once;
}

/* Adds the floating-point operations that one group asked for in each phase: one multiply-add for
 * every weight and row, and attention; twice that going back. What is done again counts once, what
 * is recalled from sampling not at all. */
static void count_work(const Trainer *t, const Group *g, bool recalled, double *flops)
{
    const Model *m = &t->s->model;
    const Options *o = &t->s->o;
    const Config *c = &m->config;
    bool several = o->epochs > 1 || (o->mini_batch && o->mini_batch < o->prompts);
    bool beyond = o->entropy_coef > 0 || (o->kl == KL_EXACT && o->kl_coef > 0);
    double keys = 0.5 * g->prompt_length * (g->prompt_length + 1); /* seen by all rows together */
    for (int k = 0; k < g->m; k++) {
        double n = response_length(g, k) - 1;
        keys += n * g->prompt_length + 0.5 * n * (n + 1);
    }
    double layers = 2 * layer_weights(c) * group_rows(g) + attention_flops(c) * keys;
    double head = 2.0 * m->n_vocab * c->hidden_size * g->n_tokens;
    flops[SAMPLE] += layers + head;
    flops[REFERENCE] += keeps_reference(o) ? layers : 0;
    flops[FORWARD] += (o->epochs + several - recalled) * layers +
                      (o->epochs + several) * 2 * head + /* the features too */
                      (keeps_reference(o) ? head : 0);
    flops[BACKWARD] += o->epochs * (2 * layers + (beyond ? 2 : 1) * head);
}

/* Seconds that the rest of a step will take, from its work and half of the machine's peak. */
static double update_seconds(const Trainer *t, const Group *g)
{
    const Session *s = t->s;
    double flops[PHASES] = {0}, sum = 0;
    for (int i = 0; i < s->o.prompts; i++)
        count_work(t, &g[i], is_recalled(t, i), flops);
    for (int i = REFERENCE; i < PHASES; i++)
        sum += flops[i];
    return sum / (0.5e9 * measure_peak(s->engine.threads));
}

/* What the first batch says about the run that begins with it. A run that has nothing to learn from
 * ends here: no response right, no reward different from another. */
static void preflight(const Trainer *t, const Group *g, double sample_seconds)
{
    const Session *s = t->s;
    const Options *o = &s->o;
    const Judge *judge = &t->problems.judge;
    int n = o->prompts, all = n * o->rollouts, tokens = 0;
    int ended = 0, found = 0, right = 0, live = 0;
    double reward = 0;
    for (int i = 0; i < n; i++) {
        live += !is_dead(&g[i]);
        right += count_right(&g[i]);
        tokens += g[i].n_tokens;
        for (int k = 0; k < g[i].m; k++) {
            ended += !g[i].truncated[k];
            found += g[i].answered[k];
            reward += g[i].reward[k] / all;
        }
    }
    fprintf(stderr, "before training: %d responses to %d prompts. %.0f %% ended before "
            "--max-tokens %d; ", all, n, 100.0 * ended / all, o->max_tokens);
    if (!judge->command)
        fprintf(stderr, "%.0f %% hold an answer, ", 100.0 * found / all);
    fprintf(stderr, "%.0f %% are right: mean reward %.3g. In %d of %d groups rewards differ: only "
            "these say what is better. A step: %d tokens, about %.1f s.\n", 100.0 * right / all,
            reward, live, n, tokens, sample_seconds + update_seconds(t, g));
    if (o->method == G2RL && o->lambda > 0 && wrong_is_zero(g, n))
        warn("rewards of 0 stay 0 under g2rl, however novel a response is (Eq 12 multiplies): half "
             "of the method is off; let --reward-cmd give +1 for right and -1 for wrong");
    if (right || live || o->force)
        return;
    if (!ended)
        die("--max-tokens %d: every response was cut off before its end token; raise it, or name "
            "where a response ends with --stop, or go on with --force", o->max_tokens);
    die("no response earned a reward: begin with a better model (see sft) or easier problems, "
        "look at responses with explain, or go on with --force");
}

/* Step 7, with 3 to 6 inside its first forward pass: one update on all groups, or, with
 * --mini-batch and --epochs, several. Then the advantages are made first, once, by the policy that
 * sampled. Returns the mean gradient norm. */
static double update(Trainer *t, Group *g, Update *u, double lr, LossSums *sums)
{
    Session *s = t->s;
    Engine *e = &s->engine;
    const Options *o = &s->o;
    int n = o->prompts, size = o->mini_batch ? imin(o->mini_batch, n) : n, updates = 0;
    bool several = size < n || o->epochs > 1;
    double norm = 0, clock = now_seconds();
    GroupBatch all = {.groups = g, .update = u};
    if (several)
        engine_each(e, n, annotate_group, &all);
    u->seconds[FORWARD] += lap(&clock);
    for (int epoch = 0; epoch < o->epochs; epoch++)
        for (int i = 0; i < n; i += size, updates++) {
            grads_zero(&s->model);
            accumulate_gradient(e, &s->model, g + i, imin(size, n - i), u, !several, sums);
            clock = now_seconds();
            double length = adamw_step(&s->model, &t->run.adam, lr, e->threads);
            demand_finite(&s->model, u->view.step + 1, sums->loss, length);
            norm += length;
            u->seconds[OPTIMIZER] += lap(&clock);
        }
    sums->loss /= updates;
    return norm / updates;
}

/* The next step of training, and its rows in the run's files. */
static void train_step(Trainer *t, Progress *report)
{
    Session *s = t->s;
    const Options *o = &s->o;
    int step = t->run.step++;
    size_t mark = s->engine.arena.used;
    double start = now_seconds(), clock = start, lr = learning_rate(o, step);
    Update u = {.view = {&s->model, keeps_reference(o) ? &t->reference : NULL, o->temperature,
                         method_options(o), o->seed, step},
                .micro_batch = t->extent.at_once};
    LossSums sums = {0};
    GroupSums groups = {0};
    Buf b = {0};
    char note[96];
    Group *g = groups_new(&s->engine, &s->model, t->extent);
    roll_out(t, g, step, u.seconds);
    if (step == 0 && t->run.metrics)
        preflight(t, g, u.seconds[SAMPLE]);
    clock = now_seconds();
    if (keeps_reference(o))
        reference_hidden(&s->engine, &t->reference, g, o->prompts);
    u.seconds[REFERENCE] += lap(&clock);
    double norm = update(t, g, &u, lr, &sums);
    for (int i = 0; i < o->prompts; i++)
        count_work(t, &g[i], is_recalled(t, i), u.flops);
    for (int i = 0; i < o->prompts; i++) {
        group_sums(&groups, &g[i]);
        for (int k = 0; k < g[i].m; k++) {
            put_rollout(&b, &g[i], k, step + 1, &s->tokenizer);
            run_line(t->run.ledger, &b, o->out, "rollouts.jsonl");
        }
    }
    put_metrics(&b, step + 1, &groups, &sums, keeps_reference(o));
    put(&b, "loss", sums.loss);
    put(&b, "grad_norm", norm);
    put(&b, "lr", lr);
    for (int i = 0; i < PHASES; i++) {
        char name[32];
        snprintf(name, sizeof name, "time/%s", PHASE_NAMES[i]);
        put(&b, name, u.seconds[i]);
        t->run.totals[i] += u.seconds[i];
        t->run.totals[PHASES + i] += u.flops[i];
    }
    put(&b, "tokens_per_s", groups.tokens / (now_seconds() - start));
    put_hash(&b, &s->model);
    run_line(t->run.metrics, &b, o->out, "metrics.jsonl");
    snprintf(note, sizeof note, "pass@1 %.3f  entropy %.3f  cosine %+.3f",
             ratio(groups.right, groups.responses), ratio(sums.entropy, sums.tokens),
             ratio(groups.cosine, groups.pairs));
    progress(report, step + 1, note);
    s->engine.arena.used = mark;
    buf_free(&b);
}

/* Where the time went, and how fast each phase was beside what this machine can do at most. */
static void print_profile(const Trainer *t)
{
    int threads = t->s->engine.threads;
    const double *seconds = t->run.totals, *flops = t->run.totals + PHASES;
    double total = 0, peak = measure_peak(threads);
    for (int i = 0; i < PHASES; i++)
        total += seconds[i];
    fprintf(stderr, "time %.1f s on %d thread%s, which do at most %.0f GFLOP/s:\n", total, threads,
            threads > 1 ? "s" : "", peak);
    for (int i = 0; i < PHASES; i++) {
        double rate = 1e-9 * ratio(flops[i], seconds[i]);
        if (seconds[i] < 0.0005 * total)
            continue;
        fprintf(stderr, "  %-10s %8.1f s %5.1f %%", PHASE_NAMES[i], seconds[i],
                100 * ratio(seconds[i], total));
        if (rate > 0)
            fprintf(stderr, " %8.1f GFLOP/s, %4.1f %% of that", rate, 100 * rate / peak);
        fputc('\n', stderr);
    }
}

/* What a step's groups, their rollouts and passes, and evaluation aside take. */
static Needs train_needs(const Trainer *t)
{
    const Session *s = t->s;
    const Model *m = &s->model;
    Extent x = t->extent, aside = eval_extent(&t->held_out, s->o.samples, s->o.max_tokens);
    size_t targets = (size_t)x.at_once * (size_t)x.m * (size_t)x.max_tokens;
    Needs n = {groups_bytes(m, x), sampling_bytes(m, x), groups_pass_bytes(m, x),
               pieces_bytes(&m->config, targets), traces_bytes(m, x), keeps_reference(&s->o)};
    if (s->o.eval_every) {
        n.shared += groups_bytes(m, aside);
        n.sampling += worker_bytes(m, aside);
    }
    return n;
}

/* Memory for these. What sampling makes of each row is kept where that leaves half of the memory
 * free; it saves time, and changes no bit. */
static Engine train_engine(Trainer *t)
{
    const Session *s = t->s;
    t->extent.trace = s->o.recompute ? TRACE_NOTHING : TRACE_ALL;
    if (run_memory(s, train_needs(t)).all > run_available(&s->model) / 2)
        t->extent.trace = TRACE_NOTHING;
    return run_engine(s, train_needs(t));
}

/* The problems to train on, and those for --eval-every: read, their answers tried, and all that
 * are too long left out. */
static void train_problems(Trainer *t)
{
    Session *s = t->s;
    t->problems = session_problems(s, s->o.data, SPLIT_TRAIN);
    t->problems.shuffled = true;
    if (s->o.data)
        problems_check_gold(&t->problems, true);
    if (!s->o.reward_cmd)
        s->o.verifier = (int)t->problems.judge.verifier; /* for run.json */
    int limit = prompt_limit(s, &s->model.config);
    problems_fit(&t->problems, &s->tokenizer, limit);
    if (!s->o.eval_every)
        return;
    if (s->o.data && !s->o.eval_data && !task_key(&s->task, t->problems.problem[0].prompt))
        usage("--eval-every: with --data, expected --eval-data FILE too");
    t->held_out = session_evaluated(s, s->o.eval_data);
    problems_fit(&t->held_out, &s->tokenizer, limit);
}

/* The model that training began with, beside the policy. */
static void train_reference(Trainer *t, int positions)
{
    Session *s = t->s;
    Path dir = model_dir(s->o.model);
    t->reference = model_load(dir.s);
    t->reference.n_vocab = s->model.n_vocab;
    rope_reserve(&t->reference, positions);
    if (!s->o.recompute)
        model_pack(&t->reference, s->engine.threads);
    if (weights_hash(&t->reference) != t->run.start)
        die("%s: is not the model that the run began with: its weights_hash is %016llx, and was "
            "%016llx", dir.s, (unsigned long long)weights_hash(&t->reference),
            (unsigned long long)t->run.start);
}

/* Everything that a run needs before its next step, wherever it stands. Writes nothing. */
static Trainer train_open(Session *s, Run run)
{
    const Options *o = &s->o;
    Trainer t = {.s = s, .run = run};
    session_load(s, *run.from.s ? run.from.s : NULL);
    session_tokenizer(s);
    s->model.n_vocab = s->tokenizer.n_vocab;
    train_problems(&t);
    int longest = t.problems.longest;
    t.extent = (Extent){o->prompts, o->rollouts, longest, o->max_tokens,
                        good_micro_batch(o->micro_batch, o->prompts,
                                         longest + o->rollouts / 2 * o->max_tokens),
                        o->recompute ? KEEP_INPUTS : KEEP_ALL, keeps_reference(o), TRACE_NOTHING};
    session_prepare_saving(s, run.from.s);
    s->engine = train_engine(&t);
    model_trainable(&s->model, o->recompute);
    run_load(&t.run);
    rope_reserve(&s->model, longest + o->max_tokens);
    if (keeps_reference(o))
        train_reference(&t, longest + o->max_tokens);
    if (!o->recompute)
        model_pack(&s->model, s->engine.threads);
    return t;
}

static void train_close(Trainer *t)
{
    model_free(&t->reference);
    problems_free(&t->problems);
    problems_free(&t->held_out);
}

static void cmd_train(Session *s)
{
    const Options *o = &s->o;
    check_method(o, true);
    Trainer t = train_open(s, run_find(s, TRAIN));
    Run *run = &t.run;
    run_begin(run); /* may delete what --model named */
    char phase[32];
    snprintf(phase, sizeof phase, "train %s", METHODS[o->method]);
    Progress report = progress_new(phase, o->steps);
    report.first = run->step;
    if (o->eval_every && !o->resume)
        eval_on_the_side(s, &t.held_out, run->evals, 0);
    while (run_goes_on(run)) {
        train_step(&t, &report);
        if (o->eval_every && run->step % o->eval_every == 0)
            eval_on_the_side(s, &t.held_out, run->evals, run->step);
        run_step_done(run);
    }
    run_finish(run);
    if (!s->status)
        print_profile(&t);
    train_close(&t);
}

/* ================================================================ the commands */

/* Each is a file of lib/commands, and part of this one: it includes no other. */
#include "lib/commands/bench.h"    /* defines: cmd_bench */
#include "lib/commands/data.h"     /* defines: cmd_data */
#include "lib/commands/eval.h"     /* defines: cmd_eval */
#include "lib/commands/explain.h"  /* defines: cmd_explain */
#include "lib/commands/geometry.h" /* defines: cmd_geometry */
#include "lib/commands/help.h"     /* defines: help, help_command, help_metrics */
#include "lib/commands/replay.h"   /* defines: cmd_replay */
#include "lib/commands/sample.h"   /* defines: cmd_sample */
#include "lib/commands/score.h"    /* defines: cmd_score */
#include "lib/commands/sft.h"      /* defines: cmd_sft */
#include "lib/commands/tokenize.h" /* defines: cmd_tokenize */
#include "lib/commands/verify.h"   /* defines: cmd_verify */
#include "lib/report/report.h"     /* defines: cmd_report */

/* A row for each command: its name, what it does, what it cannot do without, and its function. */
static const Command COMMANDS[N_COMMANDS] = {
    [SFT] = {"sft",
        "teach a model from examples: supervised next-token training",
        "(--model DIR | --preset NAME) --out DIR", cmd_sft},
    [TRAIN] = {"train",
        "reinforcement learning: GRPO, an entropy bonus, EVOL-RL, or G2RL",
        "--model DIR --out DIR", cmd_train},
    [EVAL] = {"eval",
        "pass@1, maj@k and pass@k with intervals, on held-out problems",
        "(--model DIR | NAME=DIR...)", cmd_eval},
    [GEOMETRY] = {"geometry",
        "how alike responses are: cosines of gradient features, texts, true gradients",
        "(--model DIR | NAME=DIR...)", cmd_geometry},
    [REPORT] = {"report",
        "runs compared: a table, and one HTML page of figures",
        "RUN...", cmd_report},
    [SAMPLE_TEXT] = {"sample",
        "text for a prompt",
        "--model DIR --prompt TEXT", cmd_sample},
    [SCORE] = {"score",
        "log-probs of given texts or token ids",
        "--model DIR <JSONL", cmd_score},
    [TOKENIZE] = {"tokenize",
        "text to token ids, or back",
        "--tokenizer DIR <JSONL", cmd_tokenize},
    [EXPLAIN] = {"explain",
        "one group, the whole computation as a table: r, S, w, nu, nubar, r~, A",
        "--model DIR", cmd_explain},
    [REPLAY] = {"replay",
        "one rollout of a run again, alone, checked against the run's ledger",
        "RUN --step S", cmd_replay},
    [DATA] = {"data",
        "write problems of a task as JSONL, or check a file of them",
        "", cmd_data},
    [VERIFY_ANSWER] = {"verify",
        "is a prediction right? against gold answers, or by a task's rules",
        "(--pred TEXT --gold TEXT | [--task NAME] --data FILE)", cmd_verify},
    [BENCH] = {"bench",
        "how fast each part runs, beside this machine's peak",
        "", cmd_bench},
};

/* The command of this name; a wrong name ends the program and names the nearest one. */
static int command_find(const char *name)
{
    int best = 1000, nearest = 0;
    for (int c = 0; c < N_COMMANDS; c++) {
        int distance = edit_distance(name, COMMANDS[c].name);
        if (!strcmp(name, COMMANDS[c].name))
            return c;
        if (distance < best) {
            best = distance;
            nearest = c;
        }
    }
    usage("unknown command '%.60s'; did you mean %s? (see: g2rl help)", name,
          COMMANDS[nearest].name);
    return -1;
}


/* The program, from its words; tests call it too. */
static int run_command(int argc, char **argv)
{
    Session s = {0};
    bool metrics = argc > 2 && !strcmp(argv[2], "metrics");
    fill_standard_files();
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help")) {
        (metrics ? help_metrics : help)(argc < 2 ? stderr : stdout);
        demand_output(true);
        return argc < 2 ? 2 : 0;
    }
    int c = command_find(argv[1]);
    options_default(OPTIONS, N_OPTIONS, c, &s.o);
    s.o.entropy_coef = -1;
    options_parse(OPTIONS, N_OPTIONS, c, argv[1], &s.o, argc - 2, argv + 2, &s.words);
    if (s.o.resume && !s.words.help)
        resume_options(&s, c, argc - 2, argv + 2);
    if (s.o.entropy_coef < 0)
        s.o.entropy_coef = s.o.method == ENTROPY ? 0.003 : 0;
    if (s.words.help) {
        help_command(c, stdout);
        words_free(&s.words);
        demand_output(true);
        return 0;
    }
    if (s.words.n_words && c != EVAL && c != GEOMETRY && c != REPORT && c != REPLAY)
        usage("%s: '%.60s' is not an option; options are --name value", argv[1], s.words.word[0]);
    signal(SIGXFSZ, SIG_IGN); /* a file that grows too large is an error of write like others */
    session_begin(&s);
    COMMANDS[c].run(&s);
    session_free(&s);
    demand_output(true);
    return s.status;
}

#ifndef G2RL_TEST
int main(int argc, char **argv) { return run_command(argc, argv); }
#endif

#endif
