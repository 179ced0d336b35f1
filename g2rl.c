/* g2rl.c: gradient-guided reinforcement learning for small language models, in plain C.
 *
 * The method is that of "Can LLMs Guide Their Own Exploration? Gradient-Guided Reinforcement
 * Learning for LLM Reasoning" (Liang et al., arXiv 2512.15687); equation numbers are the paper's.
 * plain.c is the whole of it in plain loops: read that first. One step of training (train_step):
 *
 *   1. sample      m responses to each of a few prompts, exactly from the policy at temperature T
 *   2. verify      reward +1 (right) or -1 (wrong) for each response, or what --reward-cmd says
 *   3. forward     log p and phi_t of each token: how it would move the hidden state  Eq 5-7, 14
 *   4. advantages  Phi_i, one direction per response; its novelty nu_i in the group; the shaped
 *                  reward r~ = r (1 + lambda r nubar); A = (r~ - mean) / std   Eq 8, 9-11, 12-13, 2
 *   5. loss        PPO's clipped objective with a KL penalty, and its gradient by log p     Eq 3-4
 *   6. backward    the gradient by every parameter
 *   7. update      AdamW
 *
 * The Group, a prompt and its m responses, is the unit of everything: sampling fills it, rewards
 * and features annotate it, the forward and backward pass run over it packed, and the ledger prints
 * it. The phi of step 3 makes the group's advantages; scaled by these it is what the backward pass
 * starts from: the features cost nothing.
 *
 * The methods it is compared with (--method) share all the rest: `grpo` has r~ = r; `entropy` is
 * grpo with an entropy bonus in the loss; `evol` (EVOL-RL, arXiv 2509.15194) takes novelty from
 * embeddings of the responses, and shapes by it in a way of its own (lib/rl/evol.h).
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
 * The file in order: from features to advantages; the loss; groups through the model; the training
 * step; the commands, and main. */
#ifndef G2RL_C
#define G2RL_C

#include "model.c"              /* defines: Model, Pass, forward, backward, adamw_step, ... */
#include "tokenizer.c"          /* defines: Tokenizer, tokenizer_encode, tokenizer_decode */
#include "lib/base/start.h"     /* defines: wait_asleep */
#include "lib/base/stats.h"     /* defines: pass_at_k, majority, bootstrap, paired, ... */
#include "lib/rl/group.h"       /* defines: Group, MethodOptions, verify_groups */
#include "lib/rl/rollouts.h"    /* defines: Sampling, sample_groups, draw_token */
#include "lib/rl/packing.h"     /* defines: pack_groups, reference_hidden */
#include "lib/rl/evol.h"        /* defines: embed_responses, semantic_novelty, shape_by_meaning */
#include "lib/rl/session.h"     /* defines: Session, Options */
#include "lib/rl/run_memory.h"  /* defines: Extent, groups_new, run_engine */
#include "lib/rl/records.h"     /* defines: GroupSums, put_rollout, put_metrics */
#include "lib/rl/preflight.h"   /* defines: preflight, demand_signal */
#include "lib/rl/checkpoint.h"  /* defines: Run, run_find, run_line */

/* ================================================================ features and advantages */

#define LOG_RATIO_LIMIT 20.0 /* log ratios are held within +-20, so that e^ of them is bounded */

/* Eq 8: Phi = sum_t a_t phi_t / (sum_t a_t + eps), a_t = 1 on the response's tokens.
 * phi: [tokens, d], Phi: [d] */
static void sequence_feature(float *Phi, const float *phi, int tokens, int d)
{
    memset(Phi, 0, d * sizeof(float));
    for (int t = 0; t < tokens; t++)
        row_axpy(Phi, 1.0f, row(phi, t, d), d);
    row_scale(Phi, Phi, (float)(1.0 / (tokens + 1e-8)), d);
}

/* S_ij = <x_i, x_j> / (|x_i| |x_j|); 0 where a vector vanishes. x: [m, d], S: [m, m] */
static void cosines(const float *x, int m, int d, double *S)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++) {
            const float *a = row(x, i, d), *b = row(x, j, d);
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

/* Eq 10: w_ij = exp(r_j) / sum_{k != i} exp(r_k) for j != i, and w_ii = 0. Rewards are a user's
 * and unbounded, so the largest is taken out of the exponents first. */
static void reward_weights(Group *g)
{
    for (int i = 0; i < g->m; i++) {
        double *w = row(g->w, i, g->m), largest = -HUGE_VAL, sum = 0;
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
static double similarity(const Group *g, int i, int j, int novelty)
{
    return novelty == NOVELTY_COUNT ? same_response(g, i, j) : g->S[i * g->m + j];
}

/* Eq 11: nu_i = max(1 - sum_{j != i} w_ij S_ij^2, 0): the share of a response's direction that
 * the others, good ones first, do not already point along. A feature that vanishes, as the policy
 * was certain of every token, is not novel: 0. */
static void exploration_score(Group *g, int novelty)
{
    for (int i = 0; i < g->m; i++) {
        double repeated = 0;
        for (int j = 0; j < g->m; j++)
            if (j != i) {
                double S = similarity(g, i, j, novelty);
                repeated += g->w[i * g->m + j] * S * S;
            }
        bool certain = similarity(g, i, i, novelty) == 0;
        g->nu[i] = certain || repeated > 1 ? 0 : 1 - repeated;
    }
}

/* --novelty random, the other control: the group's nu, handed to its responses at random. */
static void permute_novelty(Group *g)
{
    for (int i = g->m - 1; i > 0; i--) {
        Random r = philox(g->seed, STREAM_SHUFFLE, (uint32_t)g->step, g->index, (uint32_t)i, 0);
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

/* Has a dead group an advantage under --dead-groups? */
static bool shapes_dead(const Group *g, int which)
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
 * however little its rewards differ; an unbiased estimate of the gradient does not need it. */
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

/* Cosines of the responses' embeddings; none where --encoder ref has no reference. */
static void semantic_similarity(Arena *a, Group *g, int encoder, int d)
{
    size_t mark = a->used;
    int width = embedding_width(encoder, d);
    g->embedded = encoder == EMBED_NGRAM || g->hidden_ref;
    if (!g->embedded)
        return;
    float *E = arena_rows(a, g->m, width);
    embed_responses(g, encoder, d, E);
    cosines(E, g->m, width, g->semantic);
    a->used = mark;
}

/* Eq 8-9: directions of the responses, from g->phi, and their cosines. */
static void group_features(Group *g, int d)
{
    for (int i = 0; i < g->m; i++)
        sequence_feature(row(g->Phi, i, d), row(g->phi, g->start[i], d),
                         response_length(g, i), d);
    cosines(g->Phi, g->m, d, g->S);
}

/* Step 4, the whole method for one group: from token features to advantages. */
static void group_advantages(Arena *a, Group *g, const MethodOptions *o, int d)
{
    group_features(g, d);                                              /* Eq 8-9 */
    reward_weights(g);                                                 /* Eq 10 */
    exploration_score(g, o->novelty);                                  /* Eq 11 */
    if (o->novelty == NOVELTY_RANDOM)
        permute_novelty(g);
    normalize_novelty(g);
    for (int i = 0; i < g->m; i++)                                     /* Eq 12-13 */
        g->shaped[i] = shape_reward(g->reward[i], g->nubar[i], o);
    semantic_similarity(a, g, o->encoder, d);
    for (int i = 0; i < g->m; i++)
        g->u[i] = g->embedded ? semantic_novelty(g, i) : (double)NAN;
    if (o->method == EVOL)
        shape_by_meaning(g);
    advantages(g, o);                                                  /* Eq 2 */
}

/* ================================================================ the loss */

static double clamp(double x, double low, double high) { return fmax(low, fmin(high, x)); }

/* Eq 3 for one token: the loss -min(rho A, clip(rho) A), and its derivative by log p.
 * rho = p / p_old = e^(log p - log p_old), so d rho / d log p = rho, and -rho A has the derivative
 * -rho A. Where the clipped branch is the smaller one it is a constant, with derivative 0: with
 * A > 0 above 1 + clip_high, with A < 0 below 1 - clip_low, where the policy has gone far enough
 * in the direction of A. On the other side the clip does nothing, and A pulls rho back. */
static double clipped_loss(double log_ratio, double advantage, const MethodOptions *o,
                           double *derivative)
{
    double rho = exp(log_ratio), clipped = clamp(rho, 1 - o->clip_low, 1 + o->clip_high);
    bool inside = rho * advantage <= clipped * advantage;
    *derivative = inside ? -rho * advantage : 0;
    return -fmin(rho * advantage, clipped * advantage);
}

/* The KL estimate of one token, q = log p_ref - log p: k3 = e^q - q - 1 or k2 = q^2 / 2, and its
 * derivative by log p: 1 - e^q or -q. The exact KL is a sum over the vocabulary: it is 0 here,
 * and group_loss adds it. */
static double kl_estimate(double q, int kl, double *derivative)
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
    double q = clamp(ref - logprob, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT), slope = 0, kl_slope = 0;
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

/* Room for the loss's derivatives by what the head makes of each token; NULL where it has no such
 * term. */
static Coef coef_new(Arena *a, size_t tokens, const MethodOptions *o)
{
    return (Coef){arena_floats(a, tokens), uses_entropy(o) ? arena_floats(a, tokens) : NULL,
                  uses_exact_kl(o) ? arena_floats(a, tokens) : NULL};
}

/* What a loss is a mean over: the response tokens and the responses of an optimizer batch that are
 * in it. */
typedef struct {
    int tokens, responses;
} LossSize;

static LossSize loss_size(const Group *groups, int n, const MethodOptions *o)
{
    LossSize size = {0, 0};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < groups[i].m; k++)
            if (is_in_loss(&groups[i], k, o)) {
                size.tokens += response_length(&groups[i], k);
                size.responses++;
            }
    return size;
}

/* Step 5 for one group: its part of the loss, in g->loss, and the derivatives of each token, in
 * g->coef. --loss token weighs each token 1 / tokens, --loss sequence 1 / (responses * its
 * response's length). */
static void group_loss(Group *g, const MethodOptions *o, LossSize size)
{
    Coef coef = g->coef;
    g->loss = (LossSums){0};
    for (int i = 0; i < g->m; i++) {
        double length = response_length(g, i);
        double weight = o->loss == LOSS_TOKEN ? 1.0 / size.tokens : 1.0 / (size.responses * length);
        bool in = is_in_loss(g, i, o);
        for (int t = g->start[i]; t < g->start[i + 1]; t++) {
            double derivative = 0, part = 0;
            double ref = (double)(o->kl_coef > 0 || g->hidden_ref ? g->logprob_ref : g->logprob)[t];
            if (in) {
                part = token_loss((double)g->logprob[t], (double)g->logprob_old[t], ref,
                                  g->advantage[i], o, &derivative, &g->loss);
                part -= o->entropy_coef * (double)g->entropy[t];
                part += coef.kl ? o->kl_coef * (double)g->kl[t] : 0;
                g->loss.entropy += (double)g->entropy[t];
                g->loss.loss += weight * part;
            }
            coef.logprob[t] = in ? (float)(weight * derivative) : 0;
            if (coef.entropy)
                coef.entropy[t] = in ? (float)(-weight * o->entropy_coef) : 0;
            if (coef.kl)
                coef.kl[t] = in ? (float)(weight * o->kl_coef) : 0;
        }
    }
}

/* ================================================================ groups through the model */

/* What groups are run through: the policy, beside its reference or NULL, at the temperature that
 * they were sampled at, for which method. */
typedef struct {
    Engine *engine;
    Model *policy, *reference;
    double temperature;
    const MethodOptions *method;
    int micro_batch; /* groups in one pass of the model */
    Pass *pass;      /* [threads] */
} Learner;

/* The policy of a session, without a reference. The caller frees `pass`. */
static Learner learner_new(Session *s, int micro_batch)
{
    return (Learner){&s->engine, &s->model, NULL, s->o.temperature, &s->o.rl, micro_batch,
                     xcalloc(s->engine.threads, sizeof(Pass))};
}

/* Reads what the head made of a group's tokens, the pass's targets from `first` on. When they are
 * first seen, the policy is the one that sampled them. */
static void group_read(Group *g, const Pass *p, size_t first, int d)
{
    const Head *head = &p->head;
    size_t bytes = g->n_tokens * sizeof(float);
    memcpy(g->logprob, head->logprob + first, bytes);
    memcpy(g->entropy, head->entropy + first, bytes);
    if (head->ref.m) {
        memcpy(g->logprob_ref, head->ref_logprob + first, bytes);
        memcpy(g->kl, head->kl + first, bytes);
    }
    g->phi = head->phi + first * (size_t)d;
    g->coef = p->coef;
    g->coef.logprob += first;
    if (g->coef.entropy)
        g->coef.entropy += first;
    if (g->coef.kl)
        g->coef.kl += first;
    if (g->seen)
        return;
    g->logp_gap = g->kl_old = 0;
    memcpy(g->entropy_old, g->entropy, bytes);
    for (int t = 0; t < g->n_tokens; t++) {
        g->logp_gap = fmax(g->logp_gap, fabs((double)g->logprob[t] - (double)g->logprob_old[t]));
        g->kl_old += head->ref.m ? (double)g->kl[t] : 0;
    }
}

/* Step 3 for n groups in one pass: log p, entropy and phi of each token; with a reference, how far
 * the policy is from it, the first time that groups are seen. */
static Pass forward_groups(Arena *a, const Learner *l, Group *groups, int n, Keep keep)
{
    size_t first = 0;
    int d = l->policy->config.hidden_size;
    bool kl = l->reference && (!groups->seen || uses_exact_kl(l->method));
    Batch b = pack_groups(a, groups, n);
    Pass p = forward(a, l->policy, &b, keep);
    Reference ref = {l->reference, kl ? pack_hidden_ref(a, groups, n, (size_t)d) : NULL};
    forward_head(a, l->policy, &p, (float)l->temperature, true, kl ? &ref : NULL);
    p.coef = coef_new(a, (size_t)b.n_targets, l->method);
    for (int i = 0; i < n; i++) {
        group_read(&groups[i], &p, first, d);
        first += (size_t)groups[i].n_tokens;
    }
    return p;
}

/* A wave: the groups of a batch that are in memory at once, a pass for each micro-batch. */
typedef struct {
    Group *groups;
    int n, passes;
} Wave;

/* The next wave of n groups. */
static Wave next_wave(const Learner *l, Group *groups, int n)
{
    int passes = (n + l->micro_batch - 1) / l->micro_batch;
    int most = passes_at_once(l->engine, passes);
    return (Wave){groups, imin(n, most * l->micro_batch), imin(passes, most)};
}

/* Micro-batch i of a wave. */
static void forward_micro_batch(Arena *a, const Learner *l, const Wave *w, int i, Keep keep)
{
    int first = i * l->micro_batch, n = imin(l->micro_batch, w->n - first);
    l->pass[i] = forward_groups(a, l, w->groups + first, n, keep);
}

/* Step 3 for a wave: its passes side by side; one alone has the help of all threads. */
static void forward_wave(const Learner *l, const Wave *w, Keep keep)
{
    Engine *e = l->engine;
    workers_reset(e);
    if (w->passes == 1) {
        e->worker[0].threads = imin(e->threads, HELPERS);
        forward_micro_batch(&e->worker[0], l, w, 0, keep);
        e->worker[0].threads = 1;
    } else {
        PARALLEL_FOR_DYNAMIC (e->threads)
        for (int i = 0; i < w->passes; i++)
            forward_micro_batch(&e->worker[i], l, w, i, keep);
    }
}

/* Step 4 for a wave, the first time that its groups are seen: later updates on one batch of
 * rollouts keep the advantages that the sampling policy gave it. */
static void wave_advantages(const Learner *l, const Wave *w)
{
    int threads = l->engine->one_pass ? 1 : l->engine->threads;
    PARALLEL_FOR_DYNAMIC (threads)
    for (int i = 0; i < w->n; i++) {
        Group *g = &w->groups[i];
        if (!g->seen)
            group_advantages(&l->engine->worker[thread_index()], g, l->method,
                             l->policy->config.hidden_size);
        g->seen = true;
        g->reads_saved = false;
    }
}

/* Step 5 for a wave. */
static void wave_loss(const Learner *l, const Wave *w, LossSize size, LossSums *sums)
{
    PARALLEL_FOR_DYNAMIC (l->engine->threads)
    for (int i = 0; i < w->n; i++)
        group_loss(&w->groups[i], l->method, size);
    for (int i = 0; i < w->n; i++)
        loss_sums_add(sums, &w->groups[i].loss);
    phase_ends(l->engine, FORWARD);
}

/* ================================================================ the training step */

/* A run of train. The totals of its Run are the phases' seconds, then their work. */
typedef struct {
    Session *s;
    Run run;
    Model reference;
    Problems problems, held_out;
    Extent extent;
    Learner learner;
    Group *groups;   /* of the step, sampled and judged; NULL: not yet */
    size_t mark;     /* the arena, before them */
    LossSums sums;   /* of its updates */
    double norm;     /* mean norm of their gradients */
    char note[96];   /* for the line of progress */
    bool warned;     /* of rewards that Eq 13 clips */
    Signal signal;
} Trainer;

/* Training prompts are drawn from this index on: not those that supervised training began with. */
enum { FIRST_PROMPT = 1 << 30 };

/* Puts the problem of group i of a step to it. */
static void train_prompt(Trainer *t, Group *g, int step, int i)
{
    uint32_t index = (uint32_t)step * (uint32_t)t->s->o.prompts + (uint32_t)i;
    group_pose(g, &t->s->engine.arena, &t->problems, index + (t->problems.n ? 0 : FIRST_PROMPT),
              &t->s->tokenizer, t->extent.max_prompt);
}

/* Step 1: the groups of a step, sampled. The first micro-batch shall not read the activations that
 * sampling saved: so logp_gap stays a measurement. */
static Group *roll_out(Trainer *t, int step)
{
    Session *s = t->s;
    Sampling sampling = session_sampling(s, step);
    Group *g = groups_new(&s->engine, &s->model, t->extent);
    for (int i = 0; i < s->o.prompts; i++)
        train_prompt(t, &g[i], step, i);
    sample_groups(&s->engine, &s->model, g, s->o.prompts, &sampling);
    for (int i = 0; i < t->extent.at_once; i++)
        g[i].reads_saved = false;
    return g;
}

/* Steps 1 and 2 of the next step, where this has not been done. */
static void next_groups(Trainer *t)
{
    Engine *e = &t->s->engine;
    if (t->groups)
        return;
    t->mark = e->arena.used;
    e->clock = now_seconds();
    t->groups = roll_out(t, t->run.step);                         /* 1. responses */
    if (!interrupted())
        verify_groups(t->groups, t->s->o.prompts, &t->problems.judge, &t->s->tokenizer);
    phase_ends(e, VERIFY);                                        /* 2. rewards */
}

/* Advantages of all groups of a batch of rollouts, before several updates on it. */
static void all_advantages(const Learner *l, Group *g, int n)
{
    for (Wave w; n > 0; g += w.n, n -= w.n) {
        w = next_wave(l, g, n);
        forward_wave(l, &w, KEEP_NOTHING);
        wave_advantages(l, &w);
    }
    phase_ends(l->engine, FORWARD);
}

/* One step of training. With --mini-batch or --epochs it makes several updates, with the advantages
 * that the sampling policy gave the responses. False: a signal ends the run before an update; the
 * step is left undone. */
static bool train_step(Trainer *t)
{
    Session *s = t->s;
    Learner *l = &t->learner;
    Engine *e = &s->engine;
    Model *policy = &s->model;
    int step = t->run.step, n = s->o.prompts, updates = 0;
    int size = s->o.mini_batch ? imin(s->o.mini_batch, n) : n; /* groups of an update */
    double lr = learning_rate(&s->o, step);
    t->sums = (LossSums){0};
    t->norm = 0;
    l->reference = !keeps_reference(&s->o) ? NULL : policy->lora ? policy : &t->reference;
    next_groups(t);                                               /* 1, 2. responses, rewards */
    Group *g = t->groups;
    if (interrupted())
        return false;
    if (l->reference)
        reference_hidden(e, l->reference, g, n);
    if (size < n || s->o.epochs > 1)
        all_advantages(l, g, n);
    for (int i = 0, k; i < n * s->o.epochs; i += k, updates++) {
        k = imin(size, n - i % n); /* the last update of an epoch may have fewer groups */
        Group *batch = g + i % n, *end = batch + k;
        LossSize all = loss_size(batch, k, l->method);
        grads_zero(policy);
        while (batch < end) {
            if (updates == 0 && interrupted())
                return false;
            Wave w = next_wave(l, batch, (int)(end - batch));
            forward_wave(l, &w, t->extent.keep);                  /* 3. log p and phi */
            wave_advantages(l, &w);                               /* 4. A of each response */
            wave_loss(l, &w, all, &t->sums);                      /* 5. dL / d log p */
            backward(e, policy, l->pass, w.passes);               /* 6. dL / d parameters */
            batch += w.n;
        }
        double norm = adamw_step(e, policy, &t->run.adam, lr);    /* 7. the update */
        t->run.updating |= isfinite(norm);
        demand_finite(policy, step + 1, t->sums.loss, norm);
        t->norm += norm;
    }
    t->sums.loss /= updates;
    t->norm /= updates;
    t->run.step = step + 1;
    t->run.updating = false;
    workers_reset(e);
    return true;
}

/* ================================================================ the commands */

/* Each is a file of lib/commands, and part of this one: it includes no other. */
#include "lib/commands/eval.h"     /* defines: cmd_eval, eval_on_the_side */
#include "lib/commands/train.h"    /* defines: cmd_train, check_method */
#include "lib/commands/sft.h"      /* defines: cmd_sft, sft_gradient */
#include "lib/commands/bench.h"    /* defines: cmd_bench */
#include "lib/commands/data.h"     /* defines: cmd_data */
#include "lib/commands/explain.h"  /* defines: cmd_explain */
#include "lib/commands/geometry.h" /* defines: cmd_geometry */
#include "lib/commands/help.h"     /* defines: help, help_command, help_metrics */
#include "lib/commands/merge.h"    /* defines: cmd_merge */
#include "lib/commands/replay.h"   /* defines: cmd_replay */
#include "lib/commands/sample.h"   /* defines: cmd_sample */
#include "lib/commands/score.h"    /* defines: cmd_score */
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
        "text for a prompt, or for each of a file",
        "--model DIR (--prompt TEXT | --data FILE)", cmd_sample},
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
    [MERGE] = {"merge",
        "a model with its adapter added to the weights, written as a model of its own",
        "--model DIR --adapter DIR --out DIR", cmd_merge},
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

#ifndef COMMIT /* "commit 1a2b3c4, ", where the Makefile knows it */
#define COMMIT ""
#endif

/* The program, from its words; tests call it too. */
static int run_command(int argc, char **argv)
{
    Session s = {0};
    fill_standard_files();
    bool asked = argc > 1 && (is_help(argv[1]) || !strcmp(argv[1], "help"));
    bool version = argc > 1 && !strcmp(argv[1], "--version");
    if (argc < 2 || asked || version) {
        const char *topic = argc > 2 ? argv[2] : "";
        if (version)
            puts("g2rl " VERSION " (" COMMIT SIMD_NAME ")");
        else if (!strcmp(topic, "metrics"))
            help_metrics(stdout);
        else if (*topic && !is_help(topic))
            help_command(command_find(topic), stdout);
        else
            help(asked ? stdout : stderr);
        demand_output(true);
        return argc < 2 ? 2 : 0;
    }
    int c = command_find(argv[1]);
    options_default(OPTIONS, N_OPTIONS, c, &s.o);
    s.o.rl.entropy_coef = -1;
    options_parse(OPTIONS, N_OPTIONS, c, argv[1], &s.o, argc - 2, argv + 2, &s.words);
    if (s.o.resume && !s.words.help)
        resume_options(&s, c, argc - 2, argv + 2);
    if (s.o.rl.entropy_coef < 0)
        s.o.rl.entropy_coef = s.o.rl.method == ENTROPY ? 0.003 : 0;
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
int main(int argc, char **argv)
{
    wait_asleep(argv);
    return run_command(argc, argv);
}
#endif

#endif
