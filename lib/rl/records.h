/* records.h: the records of a training step: the metrics of its groups, and the ledger, a row for
 * each rollout with every number that made its advantage. */
#ifndef RECORDS_H
#define RECORDS_H

#include "session.h" /* defines: Session; group.h: Group */

static const char *const PHASE_NAMES[PHASES] = {"sample",  "verify",   "reference",
                                                "forward", "backward", "optimizer"};

/* Sums over groups; each metric is one of them divided by another. */
typedef struct {
    double responses, tokens, groups, right, dead, all_right, all_wrong, truncated;
    double reward, reward_std;
    double pairs, cosine, negative, nu, entropy, kl, semantic;
    double logp_gap;             /* the largest */
    double advantage2, novelty2; /* A^2, and its part among equal rewards */
} GroupSums;

/* The part of a group's A^2 that is due to novelty: the variance of A among responses of equal
 * reward, such as all right ones. (0 where real-valued rewards are all different.) */
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
    for (int t = 0; t < g->n_tokens; t++)
        s->entropy += (double)g->entropy_old[t];
    s->kl += g->hidden_ref ? g->kl_old : 0;
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

/* A copy, to print; the caller frees it. */
static double *doubles_of(const float *x, int n)
{
    double *copy = xcalloc(n, sizeof *copy);
    for (int i = 0; i < n; i++)
        copy[i] = (double)x[i];
    return copy;
}

/* Response i, as members of a JSON object. */
static void put_response(Buf *b, const Group *g, int i, const Tokenizer *t)
{
    Buf text = {0};
    double logprob = 0, entropy = 0;
    int n = response_length(g, i);
    for (int k = g->start[i]; k < g->start[i + 1]; k++) {
        logprob += (double)g->logprob_old[k];
        entropy += (double)g->entropy_old[k] / n;
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

/* A row of the ledger; `rows`: with the response's rows of the group's matrices. */
static void put_rollout(Buf *b, const Group *g, int i, int step, const Tokenizer *t, bool rows)
{
    buf_printf(b, "{\"step\": %d, \"prompt_index\": %u, \"rollout\": %d", step, g->index, i);
    put_response(b, g, i, t);
    if (rows) {
        put_vector(b, "S", g->S + i * g->m, g->m);
        put_vector(b, "w", g->w + i * g->m, g->m);
    }
    put(b, "nu", g->nu[i]);
    put(b, "nubar", g->nubar[i]);
    if (rows && g->embedded)
        put_vector(b, "semantic", g->semantic + i * g->m, g->m);
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

/* Ends a run whose loss, gradient or weights are not finite, before they are saved. Called after
 * each update, with the step's number from 1. */
static void demand_finite(const Model *m, int step, double loss, double norm)
{
    const Model *t = trained(m);
    const char *gradient = isfinite(norm) ? NULL : first_not_finite(t, t->grads);
    const char *weight = first_not_finite(m, m->params);
    if (gradient || !isfinite(loss))
        die("step %d: the loss is %g, and the gradient of %s is not finite; nothing of it is "
            "saved; try a smaller --lr", step, loss, gradient ? gradient : "no tensor");
    if (weight)
        die("step %d: the update made a weight of %s that is not finite; nothing of it is saved; "
            "try a smaller --lr", step, weight);
}

#endif
