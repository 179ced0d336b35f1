/* rollouts.h: responses sampled from the policy, exactly at temperature T, with a cache of keys and
 * values; many at a time, and the same whichever are sampled together. */
#ifndef ROLLOUTS_H
#define ROLLOUTS_H

#include "group.h" /* defines: Group; model.c: forward, KvSeq, head_columns, softmax_tile */
#include "../base/interrupt.h" /* defines: interrupted */

VECTOR_CODE

/* How tokens are drawn. The policy IS the tempered distribution: log-probs, entropy and features
 * use the same temperature. top_p and top_k cut the distribution and so are for `sample` and
 * `eval` only. */
typedef struct {
    double temperature, top_p;
    int top_k, max_tokens;
    uint64_t seed;
    int step, first;                  /* first: the number of a group's first response */
    const Stops *stops;               /* what ends a response besides end tokens; NULL: nothing */
    const Tokenizer *tokenizer;       /* that reads them */
    void (*on_token)(void *, int id); /* called for each token as it is drawn, or NULL */
    void *context;
} Sampling;

/* A response while it is being sampled. */
typedef struct {
    Group *group;
    int index, length; /* which of the group's m; tokens so far */
    bool stopped;      /* it has a stop text or token */
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
    memcpy(sorted, p, n * sizeof(float));
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
    int d = m->config.hidden_size, V = m->n_vocab, ld = padded(V);
    size_t mark = a->used;
    float *z = arena_floats(a, (size_t)imin(DRAWN_ROWS, n) * (size_t)ld);
    float *scratch = arena_floats(a, 2 * (size_t)(V * a->threads));
    for (int first = 0; first < n; first += DRAWN_ROWS) {
        int rows = imin(DRAWN_ROWS, n - first);
        const float *h = row(hidden, first, d);
        gemm(a, z, ld, mat(h, rows, d), head_columns(m, 0, V), NULL);
        PARALLEL_FOR (a->threads)
        for (int i = 0; i < rows; i++) {
            Rollout *x = r[first + i];
            float *own = scratch + (ptrdiff_t)(a->threads > 1 ? thread_index() : 0) * 2 * V;
            double u = uniform(philox(s->seed, STREAM_SAMPLE, (uint32_t)s->step, x->group->index,
                                      (uint32_t)x->index, (uint32_t)x->length));
            x->token[x->length] = draw_token(row(z, i, ld), V, s, u, &x->logprob[x->length],
                                             own);
            x->length++;
        }
    }
    a->used = mark;
}

/* Copies finished responses into the group, end to end. `r`: the group's m rollouts, in order. */
static void group_fill(Group *g, const Rollout *r, const Config *c, const Sampling *s)
{
    g->stops = s->stops;
    g->seed = s->seed;
    g->step = s->step;
    g->seen = false;
    g->reads_saved = g->saved.row != NULL;
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
        b.seq[s].saved = group_saved(&groups[i], -1, 0);
        for (int k = 0; k < groups[i].m; k++)
            batch_target(&b, b.n_rows - 1, 0);
    }
    return forward(a, m, &b, KEEP_NOTHING).hidden;
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
        b.seq[k].saved = group_saved(r[i]->group, r[i]->index - s->first, own - 1);
        batch_target(&b, i, 0);
    }
    draw_tokens(a, m, forward(a, m, &b, KEEP_NOTHING).hidden, r, n, s);
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
    Rollout *all = arena_alloc(a, total, sizeof *all), *r = all;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < groups[i].m; j++) {
            *r = (Rollout){.group = &groups[i], .index = s->first + j, .prompt_kv = &prompt_kv[i]};
            r->token = arena_alloc(a, s->max_tokens, sizeof(int));
            r->logprob = arena_floats(a, s->max_tokens);
            r++->kv = kv_seq_new(a, s->max_tokens);
        }
    return all;
}

/* Is the last token a stop, or has the text so far a stop in it? The tokens that make it up stay in
 * the response: what was sampled is what is trained on. */
static bool has_stopped(const Rollout *r, const Sampling *s)
{
    Buf text = {0};
    bool found = false;
    for (int i = 0; s->stops && i < s->stops->n_ids; i++)
        found |= r->token[r->length - 1] == s->stops->id[i];
    if (found || !s->stops || !s->stops->text.n)
        return found;
    tokenizer_decode(s->tokenizer, r->token, r->length, true, &text);
    found = find_stop(s->stops, text.s) != NULL;
    buf_free(&text);
    return found;
}

/* Dies where numbers made of a model's logits are not finite: these overflow floats. */
static void demand_logits(const Model *m, const float *x, int n)
{
    if (!all_finite(x, n))
        die("%s: the logits are not finite: its weights are too large, or not those of a trained "
            "model", m->path ? m->path : "the model");
}

/* Keeps the rollouts that go on; the others give their cache back: those that have ended, and those
 * whose logits overflow, at which sample_groups ends the program. Returns how many go on. */
static int drop_finished(const Config *c, Rollout **going, int live, KvPool *pool,
                         const Sampling *s)
{
    int still = 0;
    for (int i = 0; i < live; i++) {
        Rollout *r = going[i];
        int token = r->token[r->length - 1];
        bool finite = isfinite(r->logprob[r->length - 1]);
        if (s->on_token && finite)
            s->on_token(s->context, token);
        r->stopped = has_stopped(r, s);
        if (!finite || r->length == s->max_tokens || is_eos(c, token) || r->stopped)
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
 * took, prompts aside. Where a signal ends the run, it stops as it is. */
static double sample_together(Arena *a, const Model *m, Group *groups, int n, const Sampling *s)
{
    int live = 0;
    size_t mark = a->used;
    if (interrupted())
        return 0;
    for (int i = 0; i < n; i++)
        live += groups[i].m;
    Heads heads = heads_of(&m->config);
    KvPool pool = kv_pool_new(a, &heads, m->config.num_hidden_layers,
                              sampling_blocks(groups, n, s->max_tokens));
    KvSeq *prompt_kv = arena_alloc(a, n, sizeof *prompt_kv);
    Rollout *all = rollouts_new(a, groups, n, live, s, prompt_kv);
    Rollout **going = arena_alloc(a, live, sizeof *going);
    for (int i = 0; i < live; i++)
        going[i] = &all[i];
    const float *hidden = prefill(a, m, groups, n, &pool, prompt_kv);
    size_t step_mark = a->used; /* the prompts' block lists lie below it */
    Pace pace = {.all = a->threads};
    double start = now_seconds(), clock = start;
    draw_tokens(a, m, hidden, going, live, s);
    while ((live = drop_finished(&m->config, going, live, &pool, s)) && !interrupted()) {
        a->threads = pace_next(&pace, lap(&clock));
        decode(a, m, going, live, &pool, s);
        a->used = step_mark;
    }
    for (int i = 0, k = 0; i < n; k += groups[i++].m)
        group_fill(&groups[i], &all[k], &m->config, s);
    a->threads = pace.all;
    saving_end(a->threads);
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
 * bit of the groups. Returns the seconds that this took, prompts aside: a thread's mean. When
 * interrupted(), the groups are not whole, and may not be read. */
static double sample_packed(Engine *e, const Model *m, Group *groups, int n, const Sampling *s)
{
    enum { FEW_ROWS = 32, LARGE = 1 << 22 }; /* parameters: 16 MiB */
    int each = groups_together(groups[0].m), share = (n + e->threads - 1) / e->threads;
    bool few = e->one_pass || (share * groups[0].m < FEW_ROWS && m->n_params >= LARGE);
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
    double *seconds = arena_alloc(&e->arena, units, sizeof *seconds);
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < units; i++)
        seconds[i] = sample_together(&e->worker[thread_index()], m, groups + i * each,
                                     imin(each, n - i * each), s);
    for (int i = 0; i < units; i++)
        sum += seconds[i];
    e->arena.used = mark;
    return sum / imin(e->threads, units);
}

/* The same, with the workers' memory all free. A model that saves memory (Model.recompute) is
 * packed while it samples, in memory that its passes do not need then. */
static double sample_groups(Engine *e, Model *m, Group *groups, int n, const Sampling *s)
{
    workers_reset(e);
    if (m->recompute) {
        arena_release(&e->worker[0]);
        model_pack(m, e->threads);
    }
    double seconds = sample_packed(e, m, groups, n, s);
    if (m->recompute)
        model_unpack(m);
    for (int i = 0; i < n; i++)
        demand_logits(m, groups[i].logprob_old, groups[i].n_tokens);
    phase_ends(e, SAMPLE);
    return seconds;
}

END_OF_VECTOR_CODE

#endif
