/* engine.h: what the work runs on: threads, their memory, and a stopwatch for each phase.
 *
 * Threads take whole passes, whole rollouts or whole tensors, each with an arena of its own. Where
 * there are fewer passes than threads, or memory for one only, all threads help with each
 * (Arena.threads): they split its rows, its heads, and its products' columns. */
#ifndef ENGINE_H
#define ENGINE_H

#include "../base/util.h" /* defines: Arena, PARALLEL_FOR_DYNAMIC, thread_index */

/* The phases of a step of training. */
enum { SAMPLE, VERIFY, REFERENCE, FORWARD, BACKWARD, OPTIMIZER, PHASES };

typedef struct {
    int threads;
    Arena arena;    /* what a step holds together: its groups */
    Arena *worker;  /* [threads] a pass, or a batch of rollouts */
    bool one_pass;  /* memory for one pass at a time */
    double clock, seconds[PHASES]; /* see phase_ends */
} Engine;

enum { HELPERS = 16 }; /* threads that help with one pass, at most */

static Engine engine_new(int threads, size_t bytes, size_t worker_bytes)
{
    Engine e = {.threads = threads, .arena = arena_new(bytes),
                .worker = xcalloc(threads, sizeof(Arena))};
    for (int i = 0; i < threads; i++)
        e.worker[i] = arena_new(worker_bytes);
    return e;
}

/* An engine that runs one pass at a time: only the first thread's arena has room for one. */
static Engine engine_one_pass(int threads, size_t bytes, size_t worker_bytes, size_t piece_bytes)
{
    Engine e = engine_new(threads, bytes, piece_bytes);
    arena_free(&e.worker[0]);
    e.worker[0] = arena_new(worker_bytes);
    e.one_pass = true;
    return e;
}

static void engine_free(Engine *e)
{
    for (int i = 0; e->worker && i < e->threads; i++)
        arena_free(&e->worker[i]);
    free(e->worker);
    e->worker = NULL;
    arena_free(&e->arena);
}

/* Adds the time since the last call to a phase. */
static void phase_ends(Engine *e, int phase) { e->seconds[phase] += lap(&e->clock); }

/* The workers' memory is free again. */
static void workers_reset(Engine *e)
{
    for (int i = 0; i < e->threads; i++)
        e->worker[i].used = 0;
}

/* Whether all threads help with each of n passes, one after the other. */
static bool one_by_one(const Engine *e, int n) { return e->one_pass || n < e->threads; }

/* How many of n passes are in memory at once: one, or one for each thread. */
static int passes_at_once(const Engine *e, int n) { return one_by_one(e, n) ? 1 : e->threads; }

/* Runs work(a, i, context) for i = 0 .. n - 1. What it takes from the arena is given back. `work`
 * writes only what is number i behind its context. */
static void engine_each(Engine *e, int n, void (*work)(Arena *, int, void *), void *context)
{
    if (one_by_one(e, n)) {
        Arena *a = &e->worker[0];
        size_t mark = a->used;
        a->threads = imin(e->threads, HELPERS);
        for (int i = 0; i < n; i++, a->used = mark)
            work(a, i, context);
        a->threads = 1;
        return;
    }
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < n; i++) {
        Arena *a = &e->worker[thread_index()];
        size_t mark = a->used;
        work(a, i, context);
        a->used = mark;
    }
}

#endif
