/* preflight.h: what the first batch of rollouts says about the run that begins with it, rewards
 * that teach nothing, and the work that a step takes. */
#ifndef PREFLIGHT_H
#define PREFLIGHT_H

#include "../num/peak.h" /* defines: measure_peak */
#include "run_memory.h"  /* defines: Extent; session.h: Session */
#include "packing.h"     /* defines: group_rows */
#include "records.h"     /* defines: GroupSums */

/* Whether the first pass over group i of a step reads the activations that sampling saved. */
static bool is_restored(Extent x, int i) { return x.saved == SAVE_ALL && i >= x.at_once; }

/* Adds the floating-point operations of one group in each phase: one multiply-add for
 * every weight and row, and attention; twice that going back. What is done again counts once, what
 * sampling saved not at all. */
static void count_work(const Session *s, const Group *g, bool restored, double *flops)
{
    const Model *m = &s->model;
    const Options *o = &s->o;
    const Config *c = &m->config;
    bool several = o->epochs > 1 || (o->mini_batch && o->mini_batch < o->prompts);
    bool beyond = o->rl.entropy_coef > 0 || (o->rl.kl == KL_EXACT && o->rl.kl_coef > 0);
    double keys = 0.5 * g->prompt_length * (g->prompt_length + 1); /* seen by all rows together */
    for (int k = 0; k < g->m; k++) {
        double n = response_length(g, k) - 1;
        keys += n * g->prompt_length + 0.5 * n * (n + 1);
    }
    double layers = 2 * layer_weights(c) * group_rows(g) + attention_flops(c) * keys;
    double head = 2.0 * m->n_vocab * c->hidden_size * g->n_tokens;
    flops[SAMPLE] += layers + head;
    flops[REFERENCE] += keeps_reference(o) ? layers : 0;
    flops[FORWARD] += (o->epochs + several - restored) * layers +
                      (o->epochs + several) * 2 * head + /* the features too */
                      (keeps_reference(o) ? head : 0);
    /* to the rows and to the weights; of an adapter's model the latter are next to nothing */
    flops[BACKWARD] += o->epochs * ((m->lora ? 1 : 2) * layers + (!m->lora + beyond) * head);
}

/* Seconds that the rest of a step will take, from its work and half of the machine's peak. */
static double update_seconds(const Session *s, Extent x, const Group *g)
{
    double flops[PHASES] = {0}, sum = 0;
    for (int i = 0; i < s->o.prompts; i++)
        count_work(s, &g[i], is_restored(x, i), flops);
    for (int i = REFERENCE; i < PHASES; i++)
        sum += flops[i];
    return sum / (0.5e9 * measure_peak(s->engine.threads));
}

/* Says once that rewards of the user's own are larger than what Eq 13 lets through. */
static void warn_clipped(const Session *s, const Group *g, bool *warned)
{
    for (int i = 0; i < s->o.prompts * g->m && s->o.rl.method == G2RL && !*warned; i++) {
        double reward = g[i / g->m].reward[i % g->m];
        *warned = fabs(reward) > SHAPED_LIMIT;
        if (*warned)
            warn("--reward-cmd: a reward of %g; shaped rewards are clipped to [-3, 3] (Eq 13), so "
                 "larger ones become alike; let it scale them", reward);
    }
}

/* What the first batch says about the run that begins with it. Where every response was cut off the
 * run ends here, before it has written anything; where none earned a reward the next may. */
static void preflight(const Session *s, const Judge *judge, Extent x, const Group *g)
{
    const Options *o = &s->o;
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
            reward, live, n, tokens, s->engine.seconds[SAMPLE] + update_seconds(s, x, g));
    if (o->rl.method == G2RL && o->rl.lambda > 0 && wrong_is_zero(g, n))
        warn("rewards of 0 stay 0 under g2rl, however novel a response is (Eq 12 multiplies): half "
             "of the method is off; let --reward-cmd give +1 for right and -1 for wrong");
    if (right || live || o->no_check)
        return;
    if (!ended)
        die("--max-tokens %d: every response was cut off before its end token; raise it, or name "
            "where a response ends with --stop, or go on with --no-check", o->max_tokens);
    warn("no response of the first batch earned a reward: look at responses with explain; a better "
         "model (see sft) or easier problems may be needed");
}

/* What a run has seen of steps that teach nothing. */
typedef struct {
    bool rewarded; /* a response was right, or rewards of a group differed */
    bool learned;  /* a step had an advantage */
    int idle;      /* steps that had none */
    double responses;
} Signal;

/* Says in words that a step had no advantage, and so taught nothing, the first time. Ends a run of
 * which this is true of all steps so far, so that its weights are as they were: after a few, if
 * rewards are there. Where no response was right the next one may be: such a run, also where
 * novelty alone moves its weights, ends after many responses. */
static void demand_signal(const Session *s, int step, const GroupSums *g, Signal *x)
{
    enum { FEW = 5, MANY = 4096 };
    x->responses += g->responses;
    x->rewarded |= g->right > 0 || g->dead < g->groups;
    if (!x->rewarded && x->responses >= MANY && !s->o.no_check)
        die("none of the first %.0f responses earned a reward: begin with a better model (see sft) "
            "or easier problems, look at responses with explain, or go on with --no-check",
            x->responses);
    x->learned |= g->advantage2 > 0 || s->o.rl.entropy_coef > 0;
    if (g->advantage2 > 0)
        return;
    if (x->idle++ == 0)
        warn("step %d: no group has an advantage, since its rewards are equal (%.0f %% of the "
             "groups all right, %.0f %% all wrong): this step teaches nothing", step,
             100 * ratio(g->all_right, g->groups), 100 * ratio(g->all_wrong, g->groups));
    if (x->rewarded && x->idle >= FEW && !x->learned && !s->o.no_check)
        die("no weight has moved in %d steps: no group of responses had different rewards; take "
            "problems that are neither solved always nor never, rewards that tell responses apart, "
            "or go on with --no-check", x->idle);
}

#endif
