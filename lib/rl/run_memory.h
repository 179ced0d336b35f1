/* run_memory.h: what the groups of a run need in memory, and the engine that has it. The code that
 * lays memory out measures it, in arenas that only count. */
#ifndef RUN_MEMORY_H
#define RUN_MEMORY_H

#include "evol.h"    /* defines: NGRAM_BUCKETS */
#include "session.h" /* defines: Session; rollouts.h: groups_together, DRAWN_ROWS */

/* How large the groups of a run are, at most. */
typedef struct {
    int groups, m, max_prompt, max_tokens, at_once; /* at_once: groups in one pass */
    Keep keep;
    bool reference; /* with hidden_ref */
    Saving saved;   /* what sampling saves of its activations */
} Extent;

/* Floats that sampling saves of one group, and bytes of all. */
static size_t group_saved_floats(const Model *m, Extent x)
{
    size_t rows = (size_t)x.max_prompt + (size_t)x.m * (size_t)(x.max_tokens - 1);
    return rows * saved_floats(&m->config, x.saved);
}

static size_t saved_bytes(const Model *m, Extent x)
{
    return (size_t)x.groups * group_saved_floats(m, x) * sizeof(float);
}

/* Bytes for the groups themselves. */
static size_t groups_bytes(const Model *m, Extent x)
{
    enum { TEXTS = 8192, ALL = 1 << 20 }; /* a drawn problem's; what else a step holds together */
    size_t d = (size_t)m->config.hidden_size, tokens = (size_t)x.m * (size_t)x.max_tokens;
    Arena a = arena_counting(1);
    arena_alloc(&a, 1, sizeof(Group));
    group_new(&a, x.m, x.max_prompt, x.max_tokens, m->config.hidden_size);
    arena_floats(&a, x.reference ? tokens * d : 0);
    arena_floats(&a, group_saved_floats(m, x));
    return (size_t)x.groups * (arena_counted(&a) + TEXTS) + ALL;
}

/* Bytes for a thread that samples a few groups together: its pass over the prompts, and then a pass
 * for each token; the cache; a Rollout with its tokens for each response; logits and what is drawn
 * from them. */
static size_t sampling_bytes(const Model *m, Extent x)
{
    Heads s = heads_of(&m->config);
    int together = imin(x.groups, groups_together(x.m)), longest = x.max_prompt + x.max_tokens;
    int all = together * x.m;
    int blocks = together * kv_blocks(x.max_prompt) + all * kv_blocks(x.max_tokens);
    Arena a = arena_counting(HELPERS);
    arena_alloc(&a, (size_t)(all + together), 512);
    arena_floats(&a, 2 * (size_t)all * (size_t)x.max_tokens);
    arena_floats(&a, (size_t)imin(DRAWN_ROWS, all) * (size_t)padded(m->config.vocab_size));
    arena_floats(&a, 2 * HELPERS * (size_t)m->config.vocab_size);
    return arena_counted(&a) + kv_pool_bytes(&s, m->config.num_hidden_layers, blocks) +
           pass_bytes(m, together * x.max_prompt, all, longest, KEEP_NOTHING) +
           pass_bytes(m, all, all, longest, KEEP_NOTHING);
}

/* Bytes for a pass over `at_once` groups: with the loss's coefficients, the reference's hidden
 * rows, and embeddings. */
static size_t groups_pass_bytes(const Model *m, Extent x)
{
    int targets = x.at_once * x.m * x.max_tokens, rows = x.at_once * x.max_prompt + targets;
    int d = m->config.hidden_size;
    Arena a = arena_counting(1);
    arena_floats(&a, 4 * (size_t)targets);
    arena_floats(&a, x.reference ? (size_t)targets * (size_t)d : 0);
    arena_floats(&a, (size_t)x.m * (size_t)imax(NGRAM_BUCKETS, d));
    return arena_counted(&a) + pass_bytes(m, rows, targets, x.max_prompt + x.max_tokens, x.keep);
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
static int good_micro_batch(int given, int n, int rows_each)
{
    enum { GOOD_ROWS = 256 };
    return given ? imin(given, n) : imax(1, imin(n, GOOD_ROWS / rows_each));
}

/* Bytes that a run's work takes: one worker's, to sample and for a pass, and what all share. */
typedef struct {
    size_t shared, sampling, pass, piece; /* piece: see pieces_bytes */
    size_t saved;                         /* of `shared` */
    bool reference;
} Needs;

/* Bytes that a run takes at most, in all and in parts. */
typedef struct {
    double weights, gradients, adam, reference, sampling, pass, work, all;
} Memory;

static Memory run_memory(const Session *s, Needs n)
{
    const Model *m = &s->model;
    bool recompute = s->o.recompute;
    int threads = s->engine.threads;
    double f = sizeof(float), packed = f * (double)packed_t_size(&m->config);
    double copies = recompute ? 0 : packed + f * (double)packed_size(&m->config);
    const Model *t = trained(m);
    Memory x = {.weights = f * (double)m->n_params + copies, .gradients = f * (double)t->n_grads,
                .adam = 2 * f * (double)t->n_params};
    if (m->lora) /* A and B, as they are and as they began */
        x.weights += 2 * f * (double)t->n_params;
    x.reference = n.reference ? f * (double)m->n_params + (recompute ? 0 : packed) : 0;
    x.sampling = (double)n.sampling + (recompute ? packed : 0);
    x.pass = (double)n.pass;
    x.work = fmax(x.sampling, x.pass) * (recompute ? 1 : threads) + (double)n.shared +
             (recompute ? (double)n.piece * (threads - 1) : 0);
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
    bool recompute = s->o.recompute;
    Memory x = run_memory(s, n);
    double MiB = 1 << 20, all = x.all / MiB, has = run_available(&s->model) / MiB;
    fprintf(stderr, "memory: at most %.0f MiB of %.0f (weights %.0f, gradients %.0f, Adam %.0f, "
            "reference %.0f, work %.0f: KV cache %.0f, then activations %.0f", all, has,
            x.weights / MiB, x.gradients / MiB, x.adam / MiB, x.reference / MiB, x.work / MiB,
            x.sampling / MiB, x.pass / MiB);
    if (n.saved)
        fprintf(stderr, ", kept from sampling %.0f", (double)n.saved / MiB);
    fputs(")\n", stderr);
    if (all > has)
        die("the run needs %.0f MiB and there are %.0f MiB; try %s", all, has,
            recompute ? "a smaller --micro-batch, --max-tokens or --rollouts" : "--recompute");
    size_t most = n.sampling > n.pass ? n.sampling : n.pass;
    return recompute ? engine_one_pass(s->engine.threads, n.shared, most, n.piece)
                  : engine_new(s->engine.threads, n.shared, most);
}

static Group *groups_new(Engine *e, const Model *m, Extent x)
{
    Group *g = arena_alloc(&e->arena, x.groups, sizeof *g);
    size_t floats = saved_floats(&m->config, x.saved);
    for (int i = 0; i < x.groups; i++) {
        g[i] = group_new(&e->arena, x.m, x.max_prompt, x.max_tokens, m->config.hidden_size);
        if (x.saved)
            g[i].saved = (Saved){arena_floats(&e->arena, group_saved_floats(m, x)), floats};
    }
    return g;
}

#endif
