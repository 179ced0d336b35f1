/* bench.h: how fast this machine runs the program, beside what it could do at most.
 *
 *   peak        fused multiply-adds in registers: the machine's own limit, measured here and now
 *   gemm        each product that the presets use: forward, dx (backward), dw (weights)
 *   head        the streamed head with phi, 256 targets
 *   kernel      what lies between the products, for one layer and 256 rows
 *   train_step  forward, backward and AdamW of presets tiny, small and medium
 *   sample      64 new tokens after a prompt of 16, from when the prompts are in the cache
 *   rl_step     16 prompts x 16 rollouts: sampling, reference, update
 *
 * Work is counted as floating-point operations that the mathematics asks for: 6 (training) or 2
 * (sampling) for each weight of a matrix and token, and causal attention. What is computed twice
 * or padded does not count. Each figure is a median of 7; --quick takes one, of less work. */
#ifndef BENCH_H
#define BENCH_H

typedef struct {
    const Options *o;
    double peak; /* GFLOP/s of `threads` threads */
    int threads, repetitions;
} Bench;

/* Sorts x, and gives its middle. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

/* Median seconds of one call, over the bench's repetitions; short work is repeated inside one, for
 * at least `least` seconds. The first call warms up (with --quick, long work is not done again). */
static double seconds_of(const Bench *b, void (*run)(void *), void *what, double least)
{
    double sample[16], once, clock = now_seconds();
    run(what);
    once = lap(&clock);
    if (b->o->quick && once > 0.3)
        return once;
    int inner = imax(1, (int)fmin(1e6, least / fmax(once, 1e-9)));
    for (int r = 0; r < b->repetitions; r++) {
        clock = now_seconds();
        for (int i = 0; i < inner; i++)
            run(what);
        sample[r] = lap(&clock) / inner;
    }
    return median(sample, b->repetitions);
}

static const char *const ROW_NAMES[] = {"peak",       "gemm",   "head",   "kernel",
                                        "train_step", "sample", "rl_step"};

/* Is a row of this name wanted (--only)? */
static bool bench_wants(const Bench *b, const char *name)
{
    return !b->o->only || !strcmp(b->o->only, name);
}

/* Prints a row: as JSON, or as a line. `json`: its members before the figures; `text`: the same. */
static void bench_row(const Bench *b, const char *name, const char *json, const char *text,
                      double gflops, double tokens_per_s)
{
    if (b->o->json) {
        printf("{\"name\": \"%s\", %s, \"threads\": %d", name, json, b->threads);
        if (tokens_per_s > 0)
            printf(", \"tokens_per_s\": %.6g", tokens_per_s);
        printf(", \"gflops\": %.6g, \"peak_gflops\": %.6g, \"fraction\": %.4g}\n", gflops, b->peak,
               gflops / b->peak);
    } else {
        printf("%-11s %-34s %d thr", name, text, b->threads);
        if (tokens_per_s > 0)
            printf("  %9.0f tokens/s", tokens_per_s);
        printf("  %7.1f GFLOP/s  %5.1f %%\n", gflops, 100 * gflops / b->peak);
    }
    fflush(stdout);
}

/* ---------------------------------------------------------------- products */

typedef struct {
    int m, n, k;
    float *x, *w, *y;
    Mat W; /* [n, k], with its transpose packed */
    Arena arena;
} GemmWork;

static void gemm_forward_run(void *what)
{
    GemmWork *g = what;
    linear_forward(&g->arena, g->y, g->x, g->m, g->W, NULL);
}

static void gemm_dx_run(void *what)
{
    GemmWork *g = what;
    linear_backward(&g->arena, g->x, g->y, g->m, g->W);
}

static void gemm_dw_run(void *what)
{
    GemmWork *g = what;
    linear_weights_backward(&g->arena, g->w, g->k, mat(g->y, g->m, g->n), mat(g->x, g->m, g->k));
}

static float *bench_noise(size_t n, float scale)
{
    float *x = floats_new(n);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * ((float)uniform(philox(1, STREAM_DATA, (uint32_t)i, 0, 0, 0)) - 0.5f);
    return x;
}

static void bench_gemm(const Bench *b, int m, int k, int n, bool training)
{
    static void (*const run[])(void *) = {gemm_forward_run, gemm_dx_run, gemm_dw_run};
    static const char *const layouts[] = {"fwd", "dx", "dw"};
    size_t mk = (size_t)m * (size_t)k, nk = (size_t)n * (size_t)k, mn = (size_t)m * (size_t)n;
    GemmWork g = {.m = m, .n = n, .k = k, .x = bench_noise(mk, 1), .w = bench_noise(nk, 1),
                  .y = bench_noise(mn, 1)};
    float *packed = floats_new(packed_floats(k, n));
    g.W = mat(g.w, n, k);
    gemm_pack(transposed(g.W), packed);
    g.W.packed_t = packed;
    g.arena = arena_new((packed_floats(n, k) + packed_floats(m, k) + 4 * BLOCK) * sizeof(float));
    for (int i = 0; i < (training ? 3 : 1); i++) {
        char json[128], text[64];
        double seconds = seconds_of(b, run[i], &g, 0.01);
        snprintf(json, sizeof json, "\"layout\": \"%s\", \"m\": %d, \"k\": %d, \"n\": %d",
                 layouts[i], m, k, n);
        snprintf(text, sizeof text, "%-3s %4d x %4d x %4d", layouts[i], m, k, n);
        bench_row(b, "gemm", json, text, 2e-9 * (double)mn * k / seconds, 0);
    }
    free(g.x);
    free(g.w);
    free(g.y);
    free(packed);
    arena_free(&g.arena);
}

/* Every product of a preset's layer, with the rows of a pass, of a large batch, and of sampling. */
static void bench_gemms(const Bench *b, const Config *c)
{
    static const int rows[] = {16, 64, 256, 1024};
    for (int i = 0; i < MATRICES; i++)
        for (int r = 0; r < 4; r++) {
            Place x = place(c, 0, i);
            bench_gemm(b, rows[r], x.k, x.n, rows[r] >= 256);
        }
}

/* ---------------------------------------------------------------- whole steps */

/* Floating-point operations a token: training on sequences of `length`, or one token sampled with
 * `length` keys before it. */
static double train_flops(const Config *c, int length)
{
    return 6 * (layer_weights(c) + head_weights(c)) + 3 * attention_flops(c) * length / 2;
}

static double sample_flops(const Config *c, int length)
{
    return 2 * (layer_weights(c) + head_weights(c)) + attention_flops(c) * length;
}

typedef struct {
    Model m;
    Engine e;
    AdamW adam;
    int batch, length, at_once; /* sequences, tokens each, sequences in one pass */
    int *token;
    Group *groups;
    Sampling sampling;
    Learner learner;
    int n_groups;
    int kernel; /* which one kernel_run runs, on this pass, writing to `out` */
    Pass pass, *passes; /* passes: [threads] */
    float *out;
} StepWork;

/* Micro-batch `part`, forward. */
static void bench_forward(StepWork *w, Arena *a, int part, Pass *p)
{
    int first = part * w->at_once, n = imin(w->at_once, w->batch - first);
    Batch b = batch_new(a, n * w->length, n, n * w->length);
    float *coef = arena_floats(a, (size_t)(n * w->length));
    for (int i = 0; i < n; i++) {
        const int *ids = w->token + (first + i) * (w->length + 1);
        batch_seq(&b, ids, w->length, 0, -1);
        for (int t = 0; t < w->length; t++) {
            coef[i * w->length + t] = -1.0f / (float)(w->batch * w->length);
            batch_target(&b, i * w->length + t, ids[t + 1]);
        }
    }
    *p = forward(a, &w->m, &b, KEEP_ALL);
    forward_head(a, &w->m, p, 1.0f, true, NULL);
    p->coef.logprob = coef;
}

static void train_run(void *what)
{
    StepWork *w = what;
    Engine *e = &w->e;
    int parts = (w->batch + w->at_once - 1) / w->at_once, most = passes_at_once(e, parts);
    grads_zero(&w->m);
    for (int k = 0; k < parts; k += most) {
        int n = imin(most, parts - k);
        workers_reset(e);
        if (n == 1) {
            e->worker[0].threads = imin(e->threads, HELPERS);
            bench_forward(w, &e->worker[0], k, w->passes);
            e->worker[0].threads = 1;
        } else {
            PARALLEL_FOR_DYNAMIC (e->threads)
            for (int i = 0; i < n; i++)
                bench_forward(w, &e->worker[i], k + i, &w->passes[i]);
        }
        backward(e, &w->m, w->passes, n);
    }
    adamw_step(e, &w->m, &w->adam, 1e-5);
}

static double sample_run(StepWork *w)
{
    return sample_groups(&w->e, &w->m, w->groups, w->n_groups, &w->sampling);
}

/* A model of a preset's shape. Its gradients and moments only where a row trains. */
static StepWork step_work(const char *preset, int threads, bool train)
{
    StepWork w = {.adam = {0.9, 0.99, 1e-8, 0, 1, 0}};
    w.m = model_new(preset_find(preset));
    for (size_t i = 0; i < w.m.n_params; i++)
        w.m.params[i] = 0.02f * ((float)(i * 2654435761u % 65536) / 65536.0f - 0.5f);
    for (int t = 0; t < w.m.n_tensors; t++)
        for (size_t i = 0; !w.m.tensors[t].cols && i < w.m.tensors[t].size; i++)
            at(&w.m, w.m.params, t)[i] = 1;
    if (train)
        model_trainable(&w.m, false);
    model_pack(&w.m, threads);
    rope_reserve(&w.m, 512);
    return w;
}

/* Random sequences, and memory for a pass over them. */
static void train_begin(StepWork *w, int threads, int batch, int length)
{
    w->batch = batch;
    w->length = length;
    w->at_once = good_micro_batch(0, batch, length);
    w->token = xmalloc((size_t)(batch * (length + 1)) * sizeof(int));
    for (int i = 0; i < batch * (length + 1); i++)
        w->token[i] = (int)below(philox(2, STREAM_DATA, (uint32_t)i, 0, 0, 0),
                                 (uint32_t)w->m.config.vocab_size);
    int rows = w->at_once * length;
    size_t bytes = pass_bytes(&w->m, rows, rows, length, KEEP_ALL) + (size_t)rows * 8;
    w->e = engine_new(threads, 1 << 16, bytes);
    w->passes = xcalloc((size_t)threads, sizeof(Pass));
}

static void train_end(StepWork *w)
{
    free(w->token);
    free(w->passes);
    engine_free(&w->e);
}

static void bench_train(const Bench *b, const char *preset, StepWork *w)
{
    char json[128], text[64];
    double seconds = seconds_of(b, train_run, w, 0), tokens = (double)w->batch * w->length;
    snprintf(json, sizeof json, "\"preset\": \"%s\", \"batch\": %d, \"length\": %d", preset,
             w->batch, w->length);
    snprintf(text, sizeof text, "%-6s %3d x %3d tokens", preset, w->batch, w->length);
    double gflops = 1e-9 * tokens * train_flops(&w->m.config, w->length) / seconds;
    bench_row(b, "train_step", json, text, gflops, tokens / seconds);
}

/* ---------------------------------------------------------------- the head and the kernels */

enum { HEAD_K, RMSNORM_K, RMSNORM_BACK_K, HEADS_K, HEADS_BACK_K, ATTENTION_K, ATTENTION_BACK_K,
       SWIGLU_K, SWIGLU_BACK_K, EXP_K, ADAMW_K, KERNELS };
static const char *const KERNEL_NAMES[KERNELS] = {
    "head", "rmsnorm", "rmsnorm backward", "norm + rope", "norm + rope back", "attention",
    "attention back", "swiglu", "swiglu backward", "exp", "adamw + packing"};

static void kernel_run(void *what)
{
    StepWork *w = what;
    const Config *c = &w->m.config;
    const Batch *b = &w->pass.batch;
    const Layer *l = &w->pass.layer[0];
    LayerGrad *g = &w->pass.grad;
    const float *norm = at(&w->m, w->m.params, layer_tensor(0, INPUT_NORM));
    Arena *a = &w->e.worker[0];
    int n = b->n_rows, d = c->hidden_size, ff = c->intermediate_size;
    switch (w->kernel) {
    case HEAD_K: head_forward(a, &w->m, &w->pass.head); break;
    case RMSNORM_K: rmsnorm_forward(w->out, l->rstd1, mat(l->x, n, d), norm, 1e-6f, 1); break;
    case RMSNORM_BACK_K:
        rmsnorm_backward(w->out, g->x2, g->normed1, mat(l->x, n, d), norm, l->rstd1, 1);
        break;
    case HEADS_K: heads_forward(&w->m, 0, b, l->qkv, l->qk, l->rstd_head, 1); break;
    case HEADS_BACK_K: heads_backward(&w->m, 0, b, l, g, 1); break;
    case ATTENTION_K: attention_forward(a, heads_of(c), b, l->qk, l->qkv, l->att); break;
    case ATTENTION_BACK_K: attention_backward(a, heads_of(c), b, l, l->att, g->qkv); break;
    case SWIGLU_K: swiglu_forward(l->act, l->gate_up, n, ff, 1); break;
    case SWIGLU_BACK_K: swiglu_backward(w->out, l->act, l->gate_up, n, ff, 1); break;
    case EXP_K: row_exp(w->out, l->gate_up, n * ff, 0, 1); break;
    case ADAMW_K: adamw_step(&w->e, &w->m, &w->adam, 0); break;
    }
}

/* The numbers that a kernel reads and writes, and the operations of those that consist of products
 * (the head makes two: logits and phi; attention has as many rows as keys, half of them seen). */
static void kernel_cost(const StepWork *w, int kernel, double *floats, double *flops)
{
    const Config *c = &w->m.config;
    double n = w->pass.batch.n_rows, d = c->hidden_size, ff = c->intermediate_size;
    double params = (double)w->m.n_params, hd = c->head_dim;
    double qk = (c->num_attention_heads + c->num_key_value_heads) * hd;
    double qkv = qk + c->num_key_value_heads * hd, att = c->num_attention_heads * hd;
    double moved[KERNELS] = {head_weights(c) + 2 * n * d, 2 * n * d, 4 * n * d, 2 * n * qk,
                             4 * n * qk, n * (qkv + att), 2 * n * (qkv + att), 3 * n * ff,
                             5 * n * ff, 2 * n * ff, 9 * params};
    double one = attention_flops(c) / c->num_hidden_layers * n * w->length / 2;
    *floats = moved[kernel];
    *flops = kernel == HEAD_K ? 4 * n * head_weights(c) : kernel == ATTENTION_K ? one
           : kernel == ATTENTION_BACK_K ? 2 * one : 0;
}

/* The streamed head with phi, and what lies between the products, over 256 rows. */
static void bench_kernels(const Bench *b, const char *preset, StepWork *w)
{
    w->e.worker[0].used = 0;
    Arena *a = &w->e.worker[0];
    bench_forward(w, a, 0, &w->pass);
    backward(&w->e, &w->m, &w->pass, 1);
    w->out = floats_new((size_t)w->pass.batch.n_rows * 2 * (size_t)w->m.config.intermediate_size);
    for (w->kernel = 0; w->kernel < KERNELS; w->kernel++) {
        double floats, flops;
        const char *kernel = KERNEL_NAMES[w->kernel];
        const char *name = w->kernel == HEAD_K ? "head" : "kernel";
        if (!bench_wants(b, name))
            continue;
        double seconds = seconds_of(b, kernel_run, w, 0.01);
        kernel_cost(w, w->kernel, &floats, &flops);
        double gb = 4e-9 * floats / seconds, rate = 1e-9 * flops / seconds;
        if (b->o->json) {
            printf("{\"name\": \"%s\", \"kernel\": \"%s\", \"preset\": \"%s\", \"rows\": %d, "
                   "\"threads\": 1, \"seconds\": %.6g, \"gb_per_s\": %.4g", name, kernel, preset,
                   w->pass.batch.n_rows, seconds, gb);
            if (flops > 0)
                printf(", \"gflops\": %.6g, \"peak_gflops\": %.6g, \"fraction\": %.4g", rate,
                       b->peak, rate / b->peak);
            puts("}");
        } else {
            printf("%-11s %-6s %-27s 1 thr  %9.1f us", name, preset, kernel, 1e6 * seconds);
            if (flops > 0)
                printf("        %7.1f GFLOP/s  %5.1f %%\n", rate, 100 * rate / b->peak);
            else
                printf("        %7.1f GB/s\n", gb);
        }
        fflush(stdout);
    }
    free(w->out);
}

/* ---------------------------------------------------------------- sampling, and whole RL steps */

/* Groups of m with a prompt of 16 tokens; there is no end token, so every response is full. */
static void bench_groups(StepWork *w, int groups, int m, int new_tokens, Keep keep)
{
    int at_once = good_micro_batch(0, groups, 16 + m * new_tokens);
    Extent x = {groups, m, 16, new_tokens, at_once, keep, keep != KEEP_NOTHING,
                keep ? SAVE_ALL : SAVE_NOTHING};
    w->e = extent_engine(&w->m, w->e.threads, x);
    w->n_groups = groups;
    w->groups = groups_new(&w->e, &w->m, x);
    w->learner = (Learner){&w->e, &w->m, &w->m, 1, NULL, at_once,
                           xcalloc((size_t)w->e.threads, sizeof(Pass))};
    w->sampling = (Sampling){.temperature = 1, .top_p = 1, .max_tokens = new_tokens, .seed = 1};
    for (int i = 0; i < groups; i++) {
        w->groups[i].index = (uint32_t)i;
        w->groups[i].prompt_length = 16;
        for (int t = 0; t < 16; t++)
            w->groups[i].prompt[t] = (i * 7 + t * 3) % w->m.config.vocab_size;
    }
}

/* 64 new tokens for each of `sequences` sequences, from when their prompts are in the cache. */
static void bench_sample(const Bench *b, const char *preset, StepWork *w, int sequences)
{
    int new_tokens = b->o->quick ? 8 : 64;
    double each[16], tokens = (double)sequences * new_tokens;
    char json[128], text[64];
    bench_groups(w, sequences, 1, new_tokens, KEEP_NOTHING);
    for (int r = b->o->quick ? 0 : -1; r < b->repetitions; r++) /* -1 warms up */
        each[imax(r, 0)] = sample_run(w);
    double seconds = median(each, b->repetitions);
    double flops = sample_flops(&w->m.config, 16 + new_tokens / 2);
    snprintf(json, sizeof json, "\"preset\": \"%s\", \"sequences\": %d, \"new_tokens\": %d", preset,
             sequences, new_tokens);
    snprintf(text, sizeof text, "%-6s %3d sequences", preset, sequences);
    bench_row(b, "sample", json, text, 1e-9 * tokens * flops / seconds, tokens / seconds);
    free(w->learner.pass);
    engine_free(&w->e);
}

/* One step of reinforcement learning, as train_step makes it; the reference is the model itself.
 * Rewards are made up: every third response is right. The engine has the seconds of each phase. */
static void rl_run(StepWork *w, Method method)
{
    const MethodOptions o = {.method = method, .lambda = 0.5, .clip_low = 0.2, .clip_high = 0.2,
                             .kl_coef = 0.001};
    Engine *e = &w->e;
    Learner *l = &w->learner;
    LossSums sums = {0};
    size_t mark = e->arena.used;
    l->method = &o;
    memset(e->seconds, 0, sizeof e->seconds);
    e->clock = now_seconds();
    sample_run(w);
    for (int i = 0; i < w->n_groups; i++)
        for (int k = 0; k < w->groups[i].m; k++) {
            w->groups[i].reward[k] = (i + k) % 3 ? -1 : 1;
            w->groups[i].answered[k] = true;
        }
    for (int i = 0; i < l->micro_batch; i++)
        w->groups[i].reads_saved = false;
    phase_ends(e, VERIFY);
    reference_hidden(e, &w->m, w->groups, w->n_groups);
    LossSize size = loss_size(w->groups, w->n_groups, &o);
    grads_zero(&w->m);
    for (int k = 0; k < w->n_groups;) {
        Wave wave = next_wave(l, w->groups + k, w->n_groups - k);
        forward_wave(l, &wave, KEEP_ALL);
        wave_advantages(l, &wave);
        wave_loss(l, &wave, size, &sums);
        backward(e, &w->m, l->pass, wave.passes);
        k += wave.n;
    }
    adamw_step(e, &w->m, &w->adam, 1e-6);
    e->arena.used = mark;
}

/* The methods that bench_rl compares: with the first. */
static const Method RL_METHODS[] = {GRPO, G2RL};

/* The medians of the steps of method k, and of their ratios to the steps of GRPO made by turns.
 * seconds: of each method, phase (after the last one: of the whole step), and repetition. */
static void rl_row(const Bench *b, const char *preset, int prompts, int k,
                   double seconds[2][PHASES + 1][16])
{
    double middle[PHASES + 1], sorted[16], ratios[16];
    int n = b->repetitions;
    for (int r = 0; r < n; r++)
        ratios[r] = seconds[k][PHASES][r] / seconds[0][PHASES][r];
    for (int i = 0; i <= PHASES; i++) {
        memcpy(sorted, seconds[k][i], (size_t)n * sizeof(double));
        middle[i] = median(sorted, n);
    }
    printf(b->o->json ? "{\"name\": \"rl_step\", \"preset\": \"%s\", \"method\": \"%s\", "
                        "\"prompts\": %d, \"threads\": %d, \"seconds\": %.6g, "
                        "\"ratio_to_grpo\": %.4f"
                      : "rl_step     %-6s %s %3d prompts %12d thr  %.3f s, %.3f of grpo:",
           preset, METHODS[RL_METHODS[k]], prompts, b->threads, middle[PHASES], median(ratios, n));
    for (int i = 0; i < PHASES; i++)
        printf(b->o->json ? ", \"time/%s\": %.6g" : "  %s %.3f", PHASE_NAMES[i], middle[i]);
    puts(b->o->json ? "}" : "");
    fflush(stdout);
}

/* GRPO and G2RL steps by turns, so that what disturbs one disturbs the other. */
static void bench_rl(const Bench *b, const char *preset, StepWork *w)
{
    enum { ROLLOUTS = 16, NEW_TOKENS = 48 };
    int prompts = b->o->quick ? 2 : 16;
    double seconds[2][PHASES + 1][16];
    w->e.threads = b->threads;
    bench_groups(w, prompts, ROLLOUTS, NEW_TOKENS, KEEP_ALL);
    for (int r = -1; r < b->repetitions; r++) /* -1 warms up */
        for (int k = 0; k < 2; k++) {
            int turn = (r + 1 + k) % 2; /* each goes first in every other repetition */
            double clock = now_seconds();
            rl_run(w, RL_METHODS[turn]);
            seconds[turn][PHASES][imax(r, 0)] = lap(&clock);
            for (int i = 0; i < PHASES; i++)
                seconds[turn][i][imax(r, 0)] = w->e.seconds[i];
        }
    for (int k = 0; k < 2; k++)
        rl_row(b, preset, prompts, k, seconds);
    free(w->learner.pass);
    engine_free(&w->e);
}

/* All rows of one preset on b->threads threads. */
static void bench_preset(const Bench *b, const char *preset, int batch, int length, StepWork *w)
{
    bool kernels = b->threads == 1 && (bench_wants(b, "head") || bench_wants(b, "kernel"));
    if (bench_wants(b, "gemm") && b->threads == 1)
        bench_gemms(b, &w->m.config);
    if (kernels || bench_wants(b, "train_step")) {
        train_begin(w, b->threads, batch, length);
        if (kernels)
            bench_kernels(b, preset, w);
        if (bench_wants(b, "train_step"))
            bench_train(b, preset, w);
        train_end(w);
    }
    for (int sequences = 16; sequences <= 64 && bench_wants(b, "sample"); sequences += 48) {
        w->e.threads = b->threads;
        bench_sample(b, preset, w, sequences);
    }
    if (bench_wants(b, "rl_step") && strcmp(preset, "medium"))
        bench_rl(b, preset, w);
}

static void cmd_bench(Session *s)
{
    static const struct {
        const char *name;
        int batch, length;
    } presets[] = {{"tiny", 64, 64}, {"small", 16, 256}, {"medium", 4, 256}};
    const Options *o = &s->o;
    int counts[2] = {1, s->engine.threads}, runs = s->engine.threads > 1 && !o->threads ? 2 : 1;
    if (o->threads)
        counts[0] = o->threads;
    bool row = !o->only, preset = !o->preset;
    for (size_t i = 0; i < sizeof ROW_NAMES / sizeof *ROW_NAMES; i++)
        row |= o->only && !strcmp(o->only, ROW_NAMES[i]);
    for (int i = 0; i < 3; i++)
        preset |= o->preset && !strcmp(o->preset, presets[i].name);
    if (!row)
        usage("--only: '%.60s'; see g2rl bench --help for the names of the rows", o->only);
    if (!preset)
        usage("--preset: '%.60s'; bench knows tiny, small and medium", o->preset);
    Bench b[2];
    for (int i = 0; i < runs; i++) {
        b[i] = (Bench){o, measure_peak(counts[i]), counts[i], o->quick ? 1 : 7};
        if (bench_wants(&b[i], "peak"))
            bench_row(&b[i], "peak", "\"simd\": \"" SIMD_NAME "\"", SIMD_NAME, b[i].peak, 0);
    }
    for (int p = 0; p < 3 && (!o->only || strcmp(o->only, "peak")); p++) {
        if (o->preset && strcmp(o->preset, presets[p].name))
            continue;
        bool train = !o->only || (strcmp(o->only, "gemm") && strcmp(o->only, "sample"));
        StepWork w = step_work(presets[p].name, counts[runs - 1], train);
        for (int i = 0; i < runs; i++)
            bench_preset(&b[i], presets[p].name, o->quick && p ? 2 : presets[p].batch,
                         presets[p].length, &w);
        model_free(&w.m);
    }
}

#endif
