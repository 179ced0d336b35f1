/* bench.h: the command `bench`: how fast this machine runs the program, against its own limit.
 *
 *   peak        fused multiply-adds in registers: the limit, measured in the same run
 *   gemm        each product of the presets: forward, dx (backward), dw (weights)
 *   head        the streamed head with phi, 256 targets
 *   train_step  forward, backward and AdamW of tiny, small and medium
 *   sample      64 new tokens after a prompt of 16 that is already in the cache
 *   rl_step     16 prompts x 16 rollouts: sampling, reference, update
 *
 * Work is counted as floating-point operations of the mathematics: 6 (training) or 2 (sampling) for
 * each weight of a matrix and token, and causal attention. Recomputation and padding do not count.
 * Each figure is a median of 7; --quick measures once, with less work. */
#ifndef BENCH_H
#define BENCH_H

typedef struct {
    const Options *o;
    double peak; /* GFLOP/s of `threads` threads */
    int threads, repetitions;
} Bench;

static double median(double *x, int n)
{
    qsort(x, n, sizeof *x, by_value);
    return x[n / 2];
}

/* Median seconds of one call; short work is repeated within a measurement, for `least` seconds or
 * more. The first call warms up; with --quick it is the measurement of long work. */
static double seconds_of(const Bench *b, void (*run)(void *), void *work, double least)
{
    double sample[16], clock = now_seconds();
    run(work);
    double once = lap(&clock);
    if (b->o->quick && once > 0.3)
        return once;
    int inner = imax(1, (int)fmin(1e6, least / fmax(once, 1e-9)));
    for (int r = 0; r < b->repetitions; r++) {
        clock = now_seconds();
        for (int i = 0; i < inner; i++)
            run(work);
        sample[r] = lap(&clock) / inner;
    }
    return median(sample, b->repetitions);
}

/* Whether --only selects this row of BENCH_ROWS. */
static bool bench_wants(const Bench *b, const char *name)
{
    return !b->o->only || choice_index(BENCH_ROWS, name, strlen(name)) == b->o->only;
}

/* Ends a row of which n characters are printed, as JSON or text. tokens_per_s 0: not counted. */
static void end_row(const Bench *b, int n, double gflops, double tokens_per_s)
{
    bool json = b->o->json;
    if (json)
        printf(", \"threads\": %d", b->threads);
    else
        printf("%*s %d thr", imax(0, 46 - n), "", b->threads);
    if (tokens_per_s > 0)
        printf(json ? ", \"tokens_per_s\": %.6g" : "  %9.0f tokens/s", tokens_per_s);
    if (json)
        printf(", \"gflops\": %.6g, \"peak_gflops\": %.6g, \"fraction\": %.4g}\n", gflops, b->peak,
               gflops / b->peak);
    else
        printf("  %7.1f GFLOP/s  %5.1f %%\n", gflops, 100 * gflops / b->peak);
    fflush(stdout);
}

/* ---------------------------------------------------------------- products */

typedef struct {
    int layout, m, n, k; /* layout: forward, dx or dw */
    float *x, *w, *y;
    Mat W; /* [n, k], with its transpose packed */
    Arena arena;
} GemmWork;

static void gemm_run(void *work)
{
    GemmWork *g = work;
    if (g->layout == 0)
        linear_forward(&g->arena, g->y, g->x, g->m, g->W, NULL);
    else if (g->layout == 1)
        linear_backward(&g->arena, g->x, g->y, g->m, g->W);
    else
        linear_weights_backward(&g->arena, g->w, g->k, mat(g->y, g->m, g->n),
                                mat(g->x, g->m, g->k));
}

static float *bench_noise(size_t n)
{
    float *x = floats_new(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i * 2654435761u % 65536) / 65536.0f - 0.5f;
    return x;
}

static void bench_gemm(const Bench *b, int m, int k, int n, bool training)
{
    static const char *const layouts[] = {"fwd", "dx", "dw"};
    float *packed = floats_new(packed_floats(k, n));
    size_t scratch = packed_floats(n, k) + packed_floats(m, k) + 4 * BLOCK;
    GemmWork g = {.m = m, .n = n, .k = k, .x = bench_noise((size_t)m * k),
                  .w = bench_noise((size_t)n * k), .y = bench_noise((size_t)m * n),
                  .arena = arena_new(scratch * sizeof(float))};
    g.W = mat(g.w, n, k);
    gemm_pack(transposed(g.W), packed);
    g.W.packed_t = packed;
    for (; g.layout < (training ? 3 : 1); g.layout++) {
        double gflops = 2e-9 * m * n * k / seconds_of(b, gemm_run, &g, 0.01);
        int printed = printf(b->o->json ? "{\"name\": \"gemm\", \"layout\": \"%s\", \"m\": %d, "
                                          "\"k\": %d, \"n\": %d"
                                        : "gemm        %-3s %4d x %4d x %4d",
                             layouts[g.layout], m, k, n);
        end_row(b, printed, gflops, 0);
    }
    free(g.x);
    free(g.w);
    free(g.y);
    free(packed);
    arena_free(&g.arena);
}

/* Every product of a preset's layer, with the rows of sampling, of a pass, and of a large batch. */
static void bench_gemms(const Bench *b, const Config *c)
{
    for (int i = 0; i < MATRICES; i++)
        for (int rows = 16; rows <= 1024; rows *= 4) {
            Place x = place(c, 0, i);
            bench_gemm(b, rows, x.k, x.n, rows >= 256);
        }
}

/* ---------------------------------------------------------------- the head and a training step */

/* Floating-point operations of a forward pass over one token with `keys` keys. */
static double token_flops(const Config *c, double keys)
{
    return 2 * (layer_weights(c) + head_weights(c)) + attention_flops(c) * keys;
}

/* A preset's model and engine, and the work of a row: records to train on, or groups. */
typedef struct {
    Session s;
    const char *preset;
    AdamW adam;
    Record *records;
    int batch, at_once; /* records; records in one pass */
    Pass pass;          /* over the first of them */
    Group *groups;
    int n_groups;
    Sampling sampling;
    Learner learner;
} StepWork;

/* A model of a preset's shape; with gradients and moments to train it. */
static StepWork step_work(const char *preset, int threads, bool train)
{
    StepWork w = {.preset = preset, .adam = {0.9, 0.99, 1e-8, 0, 1, 0}};
    Model m = model_new(preset_find(preset));
    model_init(&m, 1);
    if (train)
        model_trainable(&m, false);
    model_pack(&m, threads);
    rope_reserve(&m, 512);
    w.s.model = m;
    return w;
}

static void train_run(void *work)
{
    StepWork *w = work;
    int tokens;
    grads_zero(&w->s.model);
    sft_gradient(&w->s, w->records, w->batch, w->at_once, &tokens);
    adamw_step(&w->s.engine, &w->s.model, &w->adam, 1e-5);
}

static void head_run(void *work)
{
    StepWork *w = work;
    head_forward(&w->s.engine.worker[0], &w->s.model, &w->pass.head);
}

static void bench_head(const Bench *b, StepWork *w)
{
    const Config *c = &w->s.model.config;
    RecordBatch batch = record_batch(&w->s, w->records, w->batch, w->at_once);
    w->pass = records_forward(&w->s.engine.worker[0], &batch, 0, KEEP_ALL);
    double n = w->pass.batch.n_rows, seconds = seconds_of(b, head_run, w, 0.01);
    double gb = 4e-9 * (head_weights(c) + 2 * n * c->hidden_size); /* read and written */
    int printed = printf(b->o->json ? "{\"name\": \"head\", \"kernel\": \"head\", \"preset\": "
                                      "\"%s\", \"rows\": %.0f, \"seconds\": %.6g, "
                                      "\"gb_per_s\": %.4g"
                                    : "head        %-6s %3.0f rows %.0e s %.1f GB/s",
                         w->preset, n, seconds, gb / seconds);
    end_row(b, printed, 4e-9 * n * head_weights(c) / seconds, 0); /* logits and phi */
}

/* The rows of head and train_step, over random sequences. */
static void bench_training(const Bench *b, int batch, int length, StepWork *w)
{
    const Config *c = &w->s.model.config;
    int rows = good_micro_batch(0, batch, length) * length;
    int *id = xcalloc(batch * (length + 1), sizeof *id);
    w->batch = batch;
    w->at_once = rows / length;
    w->records = xcalloc(batch, sizeof(Record));
    for (int i = 0; i < batch * (length + 1); i++)
        id[i] = (int)below(philox(2, STREAM_DATA, i, 0, 0, 0), c->vocab_size);
    for (int i = 0; i < batch; i++) {
        int *ids = id + i * (length + 1);
        w->records[i] = (Record){ids, ids, length + 1};
    }
    w->s.engine = engine_new(b->threads, 1 << 20,
                             pass_bytes(&w->s.model, rows, rows, length, KEEP_ALL) + rows * 8);
    if (bench_wants(b, "head") && b->threads == 1)
        bench_head(b, w);
    if (bench_wants(b, "train_step")) {
        double seconds = seconds_of(b, train_run, w, 0), tokens = batch * length;
        int printed = printf(b->o->json ? "{\"name\": \"train_step\", \"preset\": \"%s\", "
                                          "\"batch\": %d, \"length\": %d"
                                        : "train_step  %-6s %3d x %3d tokens",
                             w->preset, batch, length);
        end_row(b, printed, 3e-9 * tokens * token_flops(c, length / 2.0) / seconds,
                tokens / seconds);
    }
    free(id);
    free(w->records);
    engine_free(&w->s.engine);
}

/* ---------------------------------------------------------------- sampling, and whole RL steps */

/* Groups of m with a prompt of 16 tokens; there is no end token, so every response is full. */
static void bench_groups(StepWork *w, int threads, int groups, int m, int new_tokens, Keep keep)
{
    enum { PROMPT = 16 };
    Engine *e = &w->s.engine;
    Model *model = &w->s.model;
    int at_once = good_micro_batch(0, groups, PROMPT + m * new_tokens);
    Extent x = {groups, m, PROMPT, new_tokens, at_once, keep, keep != KEEP_NOTHING,
                keep ? SAVE_ALL : SAVE_NOTHING};
    *e = extent_engine(model, threads, x);
    w->n_groups = groups;
    w->groups = groups_new(e, model, x);
    w->learner = (Learner){e, model, model, 1, NULL, at_once, xcalloc(threads, sizeof(Pass))};
    w->sampling = (Sampling){.temperature = 1, .top_p = 1, .max_tokens = new_tokens, .seed = 1};
    for (int i = 0; i < groups; i++) {
        w->groups[i].index = i;
        w->groups[i].prompt_length = PROMPT;
        for (int t = 0; t < PROMPT; t++)
            w->groups[i].prompt[t] = (i * 7 + t * 3) % model->config.vocab_size;
    }
}

static double sample_run(StepWork *w)
{
    return sample_groups(&w->s.engine, &w->s.model, w->groups, w->n_groups, &w->sampling);
}

/* New tokens of each of `sequences` sequences, measured once their prompts are in the cache. */
static void bench_sample(const Bench *b, StepWork *w, int sequences)
{
    int new_tokens = b->o->quick ? 8 : 64;
    double each[16], tokens = sequences * new_tokens;
    bench_groups(w, b->threads, sequences, 1, new_tokens, KEEP_NOTHING);
    for (int r = b->o->quick ? 0 : -1; r < b->repetitions; r++) /* -1 warms up */
        each[imax(r, 0)] = sample_run(w);
    double rate = tokens / median(each, b->repetitions);
    int printed = printf(b->o->json ? "{\"name\": \"sample\", \"preset\": \"%s\", "
                                      "\"sequences\": %d, \"new_tokens\": %d"
                                    : "sample      %-6s %3d sequences x %2d tokens",
                         w->preset, sequences, new_tokens);
    end_row(b, printed, 1e-9 * rate * token_flops(&w->s.model.config, 16 + new_tokens / 2), rate);
    free(w->learner.pass);
    engine_free(&w->s.engine);
}

/* One step of reinforcement learning, as train_step makes it; the reference is the model itself,
 * and every third response counts as right. The engine has the seconds of each phase. */
static void rl_run(StepWork *w, Method method)
{
    const MethodOptions o = {.method = method, .lambda = 0.5, .clip_low = 0.2, .clip_high = 0.2,
                             .kl_coef = 0.001};
    Engine *e = &w->s.engine;
    Model *m = &w->s.model;
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
    reference_hidden(e, m, w->groups, w->n_groups);
    LossSize size = loss_size(w->groups, w->n_groups, &o);
    grads_zero(m);
    for (int k = 0; k < w->n_groups;) {
        Wave wave = next_wave(l, w->groups + k, w->n_groups - k);
        forward_wave(l, &wave, KEEP_ALL);
        wave_advantages(l, &wave);
        wave_loss(l, &wave, size, &sums);
        backward(e, m, l->pass, wave.passes);
        k += wave.n;
    }
    adamw_step(e, m, &w->adam, 1e-6);
    e->arena.used = mark;
}

/* The methods that bench_rl compares with the first. */
static const Method RL_METHODS[] = {GRPO, G2RL};

/* Seconds of a step: of each method, phase (the last one: the whole step), and repetition. */
typedef double RlSeconds[2][PHASES + 1][16];

/* The medians of the steps of method k, and of their ratios to the GRPO steps next to them. */
static void rl_row(const Bench *b, const char *preset, int prompts, int k, RlSeconds seconds)
{
    double middle[PHASES + 1], ratios[16];
    int n = b->repetitions;
    for (int r = 0; r < n; r++)
        ratios[r] = seconds[k][PHASES][r] / seconds[0][PHASES][r];
    for (int i = 0; i <= PHASES; i++) {
        double sorted[16];
        memcpy(sorted, seconds[k][i], sizeof sorted);
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

/* GRPO and G2RL steps by turns, so that disturbances hit both. */
static void bench_rl(const Bench *b, StepWork *w)
{
    enum { ROLLOUTS = 16, NEW_TOKENS = 48 };
    int prompts = b->o->quick ? 2 : 16;
    RlSeconds seconds = {0};
    bench_groups(w, b->threads, prompts, ROLLOUTS, NEW_TOKENS, KEEP_ALL);
    for (int r = -1; r < b->repetitions; r++) /* -1 warms up */
        for (int k = 0; k < 2; k++) {
            int turn = (r + 1 + k) % 2; /* each goes first in every other repetition */
            double clock = now_seconds();
            rl_run(w, RL_METHODS[turn]);
            seconds[turn][PHASES][imax(r, 0)] = lap(&clock);
            for (int i = 0; i < PHASES; i++)
                seconds[turn][i][imax(r, 0)] = w->s.engine.seconds[i];
        }
    for (int k = 0; k < 2; k++)
        rl_row(b, w->preset, prompts, k, seconds);
    free(w->learner.pass);
    engine_free(&w->s.engine);
}

/* ---------------------------------------------------------------- the command */

static void bench_preset(const Bench *b, int batch, int length, StepWork *w)
{
    if (bench_wants(b, "gemm") && b->threads == 1)
        bench_gemms(b, &w->s.model.config);
    if (bench_wants(b, "head") || bench_wants(b, "train_step"))
        bench_training(b, batch, length, w);
    for (int sequences = 16; sequences <= 64 && bench_wants(b, "sample"); sequences += 48)
        bench_sample(b, w, sequences);
    if (bench_wants(b, "rl_step") && strcmp(w->preset, "medium"))
        bench_rl(b, w);
}

static void cmd_bench(Session *s)
{
    static const struct {
        const char *name;
        int batch, length;
    } presets[] = {{"tiny", 64, 64}, {"small", 16, 256}, {"medium", 4, 256}}; /* --preset's order */
    const Options *o = &s->o;
    int threads = s->engine.threads, runs = threads > 1 && !o->threads ? 2 : 1;
    Bench b[2];
    for (int i = 0; i < runs; i++) {
        int n = i == runs - 1 ? threads : 1;
        b[i] = (Bench){o, measure_peak(n), n, o->quick ? 1 : 7};
        if (bench_wants(&b[i], "peak"))
            end_row(&b[i], printf(o->json ? "{\"name\": \"peak\", \"simd\": \"%s\""
                                          : "peak        %s", SIMD_NAME), b[i].peak, 0);
    }
    bool any = !o->only || !bench_wants(b, "peak");
    for (int p = 0; p < 3 && any; p++) {
        if (o->shape && o->shape != p + 1)
            continue;
        bool train = !o->only || !(bench_wants(b, "gemm") || bench_wants(b, "sample"));
        StepWork w = step_work(presets[p].name, threads, train);
        for (int i = 0; i < runs; i++)
            bench_preset(&b[i], o->quick && p ? 2 : presets[p].batch, presets[p].length, &w);
        model_free(&w.s.model);
    }
}

#endif
