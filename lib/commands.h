/* commands.h: every command but `train` (g2rl.c), `bench` (bench.h), `geometry` (geometry.h) and
 * `replay` (replay.h); then help and main.
 *
 *   sft      supervised training        eval     models compared on held-out problems
 *   sample   text for a prompt          score    log-probs of given tokens
 *   explain  one group as a table       data     problems of a task
 *   tokenize text to ids and back
 *   verify   predictions against gold answers
 *   report   runs compared, as a table and a page
 *
 * They only call what g2rl.c and model.c define; no equation lives here. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "../g2rl.c"  /* defines: Group, look, sample_groups, evaluate, cmd_train, ... */
#include "bench.h"    /* defines: cmd_bench */
#include "chat.h"     /* defines: Message, chat_render */
#include "explain.h"  /* defines: explain_table, explain_json */
#include "geometry.h" /* defines: cmd_geometry */
#include "math.h"     /* defines: math_verify, math_extract, math_normal */
#include "replay.h"   /* defines: cmd_replay */
#include "report.h"   /* defines: report */

/* ================================================================ sft */

/* One supervised example: token ids, and for each position the id to be learned there, or -100. */
typedef struct {
    int *ids, *labels, n;
} Record;

enum { NOT_TRAINED = -100 };

/* The problem as a prompt (--template) + response + end token, of which the prompt is not trained
 * on. */
static Record record_of_text(const Session *s, const char *problem, const char *response,
                             const char *what)
{
    int room = s->model.config.max_position_embeddings;
    Buf text = {0};
    template_render(&s->template, problem, &text);
    Ids ids = encode(&s->tokenizer, true, text.s, text.n, room, what);
    Ids answer = encode(&s->tokenizer, false, response, strlen(response), room, what);
    buf_free(&text);
    int first = ids.n;
    for (int i = 0; i < answer.n; i++)
        ids_add(&ids, answer.id[i]);
    if (s->model.config.n_eos)
        ids_add(&ids, s->model.config.eos_token_id[0]);
    ids_free(&answer);
    Record r = {ids.id, xmalloc((size_t)ids.n * sizeof(int)), ids.n};
    for (int i = 0; i < r.n; i++)
        r.labels[i] = i < first ? NOT_TRAINED : r.ids[i];
    return r;
}

/* A list of records that grows. */
typedef struct {
    Record *record;
    int n;
} Records;

static void records_add(Records *all, Record r)
{
    all->record = room_for_one(all->record, all->n, sizeof r);
    all->record[all->n++] = r;
}

/* Plain text, all of it trained on: the token that begins a text, its own, and the end token, cut
 * into records of at most --max-length tokens. */
static void records_of_plain(const Session *s, const char *text, size_t n, const char *what,
                             Records *all)
{
    int most = imin(s->o.max_length, s->model.config.max_position_embeddings);
    Ids ids = encode(&s->tokenizer, true, text, n, INT_MAX, what);
    if (s->model.config.n_eos)
        ids_add(&ids, s->model.config.eos_token_id[0]);
    for (int first = 0; first + 1 < ids.n; first += most) {
        int length = imin(most, ids.n - first);
        size_t bytes = (size_t)length * sizeof(int);
        if (length < 2) /* nothing to predict it from */
            break;
        Record r = {xmalloc(bytes), xmalloc(bytes), length};
        memcpy(r.ids, ids.id + first, bytes);
        memcpy(r.labels, ids.id + first, bytes);
        records_add(all, r);
    }
    ids_free(&ids);
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

/* One line of --data: prompt and response, or text, or input_ids and labels (default: the ids). */
static void record_read(const Session *s, Json *j, const char *path, int line, Records *all)
{
    Record r = {0};
    int labels = -1;
    Buf key = {0}, prompt = {0}, response = {0}, text = {0};
    char what[sizeof(Path) + 32];
    for (json_object(j); json_key(j, &key);)
        if (is_one_of(key.s, "prompt", "question", "problem"))
            json_string(j, &prompt);
        else if (is_one_of(key.s, "response", "completion", "answer"))
            json_string(j, &response);
        else if (!strcmp(key.s, "text"))
            json_string(j, &text);
        else if (!strcmp(key.s, "input_ids"))
            r.n = read_ids(j, &s->model.config, false, &r.ids, path, line);
        else if (!strcmp(key.s, "labels"))
            labels = read_ids(j, &s->model.config, true, &r.labels, path, line);
        else
            json_skip(j);
    jsonl_end(j, path, line);
    snprintf(what, sizeof what, "%s: line %d", path, line);
    if (!r.ids && prompt.n && response.n)
        r = record_of_text(s, prompt.s, response.s, what);
    else if (!r.ids && text.n)
        records_of_plain(s, text.s, text.n, what, all);
    else if (!r.ids || r.n < 2)
        die("%s: line %d: expected prompt and response, text, or at least two input_ids", path,
            line);
    else if (r.n > s->model.config.max_position_embeddings)
        die("%s: line %d: %d input_ids; expected at most %d (max_position_embeddings)", path, line,
            r.n, s->model.config.max_position_embeddings);
    else if (labels < 0) {
        r.labels = xmalloc((size_t)r.n * sizeof(int));
        memcpy(r.labels, r.ids, (size_t)r.n * sizeof(int));
    } else if (labels != r.n)
        die("%s: line %d: %d labels for %d input_ids; expected as many", path, line, labels, r.n);
    if (r.ids)
        records_add(all, r);
    buf_free(&key);
    buf_free(&prompt);
    buf_free(&response);
    buf_free(&text);
}

/* The records of a file: JSONL, or, where its name ends in .txt, plain text. */
static Records records_read(const Session *s, const char *path)
{
    Records all = {0};
    size_t n, offset = 0, name = strlen(path);
    int line = 0;
    char *text = read_file(path, &n);
    if (name > 4 && !strcmp(path + name - 4, ".txt"))
        records_of_plain(s, text, n, path, &all);
    else
        for (Json j; jsonl_next(text, n, &offset, &line, &j);)
            record_read(s, &j, path, line, &all);
    if (!all.n)
        die("%s: holds no records", path);
    free(text);
    return all;
}

static int longest_record(const Records *all)
{
    int longest = 0;
    for (int i = 0; i < all->n; i++)
        longest = imax(longest, all->record[i].n);
    return longest;
}

static void records_free(Records *all)
{
    for (int i = 0; i < all->n; i++)
        record_free(&all->record[i]);
    free(all->record);
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

/* The records of one batch. */
typedef struct {
    const Model *m;
    const Record *records;
    int n, at_once, targets;
    int *offset;    /* [n] where a record's targets begin among the batch's */
    float *logprob; /* [targets] */
} RecordBatch;

/* n records as a batch, in the engine's memory. */
static RecordBatch record_batch(Session *s, const Record *r, int n, int at_once)
{
    RecordBatch x = {.m = &s->model, .records = r, .n = n, .at_once = at_once};
    x.offset = arena_alloc(&s->engine.arena, (size_t)n, sizeof(int));
    for (int i = 0; i < n; i++) {
        x.offset[i] = x.targets;
        x.targets += record_targets(&r[i]);
    }
    x.logprob = arena_floats(&s->engine.arena, (size_t)x.targets);
    return x;
}

/* Micro-batch i, forward: loss = mean of -log p over all trained-on tokens of the batch. */
static Pass look_at_records(Arena *a, int i, Keep keep, void *context)
{
    const RecordBatch *x = context;
    int first = i * x->at_once, end = imin(first + x->at_once, x->n), rows = 0;
    for (int k = first; k < end; k++)
        rows += x->records[k].n - 1;
    Batch b = batch_new(a, rows, end - first, rows);
    for (int k = first; k < end; k++) {
        const Record *r = &x->records[k];
        int row = b.n_rows;
        batch_seq(&b, r->ids, r->n - 1, 0, -1);
        for (int t = 1; t < r->n; t++)
            if (r->labels[t] != NOT_TRAINED)
                batch_target(&b, row + t - 1, r->labels[t]);
    }
    float *coef = arena_floats(a, (size_t)b.n_targets);
    for (int t = 0; t < b.n_targets; t++)
        coef[t] = (float)(-1.0 / x->targets);
    Pass p = forward(a, x->m, &b, keep);
    forward_head(a, x->m, &p, 1.0f, keep != KEEP_NOTHING);
    memcpy(x->logprob + x->offset[first], p.head.logprob, (size_t)b.n_targets * sizeof(float));
    p.coef.logprob = coef;
    return p;
}

/* Adds the gradient of one batch to the model's, and returns its loss. */
static double sft_gradient(Session *s, const Record *r, int n, int at_once, int *tokens)
{
    Engine *e = &s->engine;
    double loss = 0, seconds[2] = {0};
    size_t mark = e->arena.used;
    RecordBatch x = record_batch(s, r, n, at_once);
    *tokens = x.targets;
    if (x.targets)
        gradient(e, &s->model, (n + at_once - 1) / at_once, look_at_records, &x, seconds);
    for (int t = 0; t < x.targets; t++)
        loss -= (double)x.logprob[t] / x.targets;
    e->arena.used = mark;
    return loss;
}

/* --tokenizer: the preset keeps its own vocab_size where that is enough, so that the shapes are
 * those that it is named for. Responses end with END_TOKEN. */
static void sft_tokenizer(Session *s, Config *c)
{
    const char *path = s->o.tokenizer;
    Ids ids = {0};
    size_t bad;
    if (is_dir(path)) {
        s->tokenizer_path = path_join(path, "tokenizer.json");
        carry_files(s, path, "generation_config.json");
    } else {
        snprintf(s->tokenizer_path.s, sizeof s->tokenizer_path.s, "%s", path);
        carry_file(s, path, "tokenizer.json");
    }
    s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    c->vocab_size = imax(c->vocab_size, s->tokenizer.n_vocab);
    if (!tokenizer_encode(&s->tokenizer, END_TOKEN, strlen(END_TOKEN), &ids, &bad) || ids.n != 1)
        die("%s: has no token " END_TOKEN ", with which responses end", s->tokenizer_path.s);
    c->eos_token_id[c->n_eos++] = ids.id[0];
    ids_free(&ids);
}

static void validate_part(Arena *a, int i, void *context)
{
    look_at_records(a, i, KEEP_NOTHING, context);
}

/* The loss over all records, a batch at a time. */
static double validation_loss(Session *s, const Records *all, int at_once, int *tokens)
{
    double sum = 0;
    *tokens = 0;
    for (int i = 0; i < all->n; i += s->o.batch) {
        size_t mark = s->engine.arena.used;
        RecordBatch x = record_batch(s, all->record + i, imin(s->o.batch, all->n - i), at_once);
        engine_each(&s->engine, (x.n + at_once - 1) / at_once, validate_part, &x);
        for (int t = 0; t < x.targets; t++)
            sum -= (double)x.logprob[t];
        *tokens += x.targets;
        s->engine.arena.used = mark;
    }
    return *tokens ? sum / *tokens : 0;
}

/* Weights and tokenizer to start from: --preset at random, or --model; or those of a checkpoint. */
static void sft_model(Session *s, const Run *run)
{
    const Options *o = &s->o;
    const Config *preset = o->preset ? preset_find(o->preset) : NULL;
    if (!o->preset == !o->model)
        usage("sft: expected one of --preset NAME (random weights) and --model DIR");
    if (o->model && o->tokenizer)
        usage("sft: --tokenizer goes with --preset; --model brings its own");
    if (*run->from.s) {
        session_load(s, run->from.s, true);
        return;
    }
    if (!preset)
        usage("--preset: '%.60s'; expected nano, tiny, small, medium or qwen3-0.6b", o->preset);
    Config c = *preset;
    if (o->tokenizer)
        sft_tokenizer(s, &c);
    else {
        s->tokenizer = tokenizer_characters(TASK_ALPHABET);
        c.vocab_size = s->tokenizer.n_vocab;
        c.n_eos = 1; /* id 0 */
    }
    s->model = model_new(&c);
    model_init(&s->model, o->seed);
}

/* A supervised run: what lasts from step to step. */
typedef struct {
    Session *s;
    Records records, valid; /* of --data and --valid */
    Record *batch;          /* the step's */
    int *order, epoch, at_once;
    bool ask; /* problems too, with --eval-every */
    Problems held_out;
    Run run;
} Teacher;

/* The records of one step: fresh from the task, or the next ones of the file. */
static void sft_batch(Teacher *t, int step)
{
    const Options *o = &t->s->o;
    for (int i = 0; i < o->batch; i++) {
        uint32_t index = (uint32_t)step * (uint32_t)o->batch + (uint32_t)i;
        if (!t->records.n) {
            t->batch[i] = record_draw(t->s, index);
            continue;
        }
        int pass = (int)(index / (uint32_t)t->records.n);
        int at = (int)(index % (uint32_t)t->records.n);
        if (pass != t->epoch)
            shuffle(t->order, t->records.n, o->seed, t->epoch = pass);
        t->batch[i] = t->records.record[o->shuffle ? t->order[at] : at];
    }
}

static void sft_step(Teacher *t, Progress *report)
{
    Session *s = t->s;
    const Options *o = &s->o;
    int step = t->run.step++;
    double start = now_seconds(), lr = learning_rate(o, step);
    int tokens;
    Buf line = {0};
    char note[64];
    sft_batch(t, step);
    grads_zero(&s->model);
    double loss = sft_gradient(s, t->batch, o->batch, t->at_once, &tokens);
    double norm = adamw_step(&s->model, &t->run.adam, lr, s->engine.threads);
    for (int i = 0; i < o->batch && !t->records.n; i++)
        record_free(&t->batch[i]);
    demand_finite(&s->model, step + 1, loss, norm);
    buf_printf(&line, "{\"step\": %d", step + 1);
    put(&line, "loss", loss);
    put(&line, "lr", lr);
    put(&line, "grad_norm", norm);
    put(&line, "tokens", tokens);
    put(&line, "tokens_per_s", tokens / (now_seconds() - start));
    put_hash(&line, &s->model);
    run_line(t->run.metrics, &line, o->out, "metrics.jsonl");
    snprintf(note, sizeof note, "loss %.4f", loss);
    progress(report, step + 1, note);
    buf_free(&line);
}

/* Memory for a pass over the longest records, and for evaluation on the side. */
static Engine sft_engine(const Teacher *t, int longest)
{
    const Session *s = t->s;
    const Model *m = &s->model;
    size_t rows = (size_t)t->at_once * (size_t)longest;
    Keep keep = s->o.recompute ? KEEP_INPUTS : KEEP_ALL;
    Needs n = {.shared = (size_t)s->o.batch * (8 + (size_t)longest * 4) + (1 << 20),
               .pass = pass_bytes(m, rows, rows, longest, keep) + rows * 8,
               .piece = pieces_bytes(&m->config, rows)};
    if (t->ask) {
        Extent x = eval_extent(&t->held_out, s->o.samples, s->o.max_tokens);
        n.shared += groups_bytes(m, x);
        n.sampling = worker_bytes(m, x);
    }
    return run_engine(s, n);
}

/* A row of eval.jsonl: the loss on --valid, what the model answers to held-out problems, or both,
 * a row each. */
static void sft_eval(Teacher *t, int step)
{
    Session *s = t->s;
    Buf line = {0};
    if (t->ask)
        eval_on_the_side(s, &t->held_out, t->run.evals, step);
    if (!t->valid.n)
        return;
    int tokens;
    double loss = validation_loss(s, &t->valid, t->at_once, &tokens);
    buf_printf(&line, "{\"step\": %d", step);
    put(&line, "loss", loss);
    put(&line, "tokens", tokens);
    run_line(t->run.evals, &line, s->o.out, "eval.jsonl");
    fprintf(stderr, "step %d: validation loss %.4f\n", step, loss);
    buf_free(&line);
}

/* The records to train on and those of --valid; returns the length of the longest. */
static int sft_records(Teacher *t)
{
    const Options *o = &t->s->o;
    int longest = TASK_PROMPT_MAX + TASK_RESPONSE_MAX;
    if (o->data) {
        t->records = records_read(t->s, o->data);
        longest = longest_record(&t->records);
    }
    if (o->valid) {
        if (!o->eval_every)
            usage("--valid: expected --eval-every too");
        t->valid = records_read(t->s, o->valid);
        longest = imax(longest, longest_record(&t->valid));
    }
    t->ask = o->eval_every && (!o->valid || o->eval_data || !o->data);
    return longest;
}

static void cmd_sft(Session *s)
{
    const Options *o = &s->o;
    Teacher t = {.s = s, .epoch = -1, .run = run_find(s, SFT)};
    Run *run = &t.run;
    sft_model(s, run);
    int longest = sft_records(&t);
    rope_reserve(&s->model, longest);
    if (t.ask) {
        t.held_out = session_held_out(s);
        problems_fit(&t.held_out, &s->tokenizer, prompt_limit(s, &s->model.config));
    }
    session_prepare_saving(s, run->from.s);
    t.order = xcalloc((size_t)t.records.n, sizeof(int));
    t.batch = xcalloc((size_t)o->batch, sizeof(Record));
    t.at_once = good_micro_batch(o->micro_batch, o->batch, o->data ? longest : 32);
    s->engine = o->steps ? sft_engine(&t, longest) : s->engine;
    if (o->steps) /* none: the model is only saved */
        model_trainable(&s->model, o->recompute);
    run_load(run);
    if (o->steps && !o->recompute)
        model_pack(&s->model, s->engine.threads);
    run_begin(run);
    Progress report = progress_new("sft", o->steps);
    report.first = run->step;
    while (run_goes_on(run)) {
        sft_step(&t, &report);
        if (o->eval_every && run->step % o->eval_every == 0)
            sft_eval(&t, run->step);
        run_step(run);
    }
    run_finish(run);
    records_free(&t.records);
    records_free(&t.valid);
    problems_free(&t.held_out);
    free(t.order);
    free(t.batch);
}

/* ================================================================ eval */

/* The metrics that `eval` prints: pass@1, maj@k, and pass@16 or as much of it as there is. */
static void eval_columns(const Evaluation *ev, int column[3])
{
    column[0] = 0;
    column[1] = passes(ev->samples);
    column[2] = passes(imin(ev->samples, 16)) - 1;
}

/* The table of models, a row each. */
static void print_evaluations(const Evaluation *all, int n, FILE *f)
{
    int column[3];
    char name[32];
    eval_columns(all, column);
    fprintf(f, "%-10s", "percent");
    for (int k = 0; k < 3; k++) {
        evaluation_metric(all, column[k], name);
        fprintf(f, "  %-18s", name);
    }
    fprintf(f, "  %7s  %8s  %8s  %6s\n", "cosine", "negative", "entropy", "length");
    for (const Evaluation *ev = all; ev < all + n; ev++) {
        const GroupSums *s = &ev->sums;
        fprintf(f, "%-10s", ev->name);
        for (int k = 0; k < 3; k++) {
            const double *x = evaluation_metric(ev, column[k], name);
            Estimate e = bootstrap(x, ev->problems, ev->seed);
            fprintf(f, "  %5.1f [%4.1f, %4.1f]", 100 * e.value, 100 * e.low, 100 * e.high);
        }
        fprintf(f, "  %7.3f  %6.1f %%  %8.3f  %6.1f\n", ratio(s->cosine, s->pairs),
                100 * ratio(s->negative, s->pairs), ratio(s->entropy, s->tokens),
                ratio(s->tokens, s->responses));
    }
}

/* What each later model has more than the first, problem by problem. */
static void print_differences(const Evaluation *all, int n, FILE *f)
{
    int column[3];
    char name[32];
    eval_columns(all, column);
    fprintf(f, "\nminus %-4s", all->name);
    for (int k = 0; k < 3; k++) {
        evaluation_metric(all, column[k], name);
        fprintf(f, "  %-*s", k < 2 ? 20 : 0, name);
    }
    for (const Evaluation *ev = all + 1; ev < all + n; ev++) {
        fprintf(f, "\n%-10s", ev->name);
        for (int k = 0; k < 3; k++) {
            const double *x = evaluation_metric(ev, column[k], name);
            const double *y = evaluation_metric(all, column[k], name);
            Estimate e = paired(x, y, ev->problems, ev->seed);
            fprintf(f, "  %+5.1f [%+5.1f, %+5.1f]", 100 * e.value, 100 * e.low, 100 * e.high);
        }
    }
    fputc('\n', f);
}

/* The problems that all n models answer. An answer that no verifier takes stays in, and counts as
 * wrong. */
static Problems eval_problems(Session *s, int n)
{
    Problems p = session_problems(s, s->o.data, s->o.split == 1 || s->o.data);
    if (s->o.data)
        problems_check_gold(&p, false);
    session_fit(s, &p, n);
    return p;
}

/* The models to evaluate: --model, or words NAME=DIR, each a row of one table. */
static void cmd_eval(Session *s)
{
    const Options *o = &s->o;
    int n = imax(1, s->words.n_words);
    FILE *table = o->json ? stderr : stdout;
    Buf b = {0};
    if (!s->words.n_words == !o->model)
        usage("eval: expected --model DIR, or models to compare as NAME=DIR");
    Problems p = eval_problems(s, n);
    int problems = p.n ? imin(p.n, o->problems) : o->problems;
    Evaluation *all = xcalloc((size_t)n, sizeof *all);
    for (int i = 0; i < n; i++) {
        char name[64];
        const char *dir = session_named(s, i, name);
        session_sampler(s, dir);
        Sampling sampling = session_sampling(s, 0);
        Extent x = eval_extent(&p, o->samples, o->max_tokens);
        s->engine = extent_engine(&s->model, s->engine.threads, x);
        all[i] = evaluation_new(xstrdup(name), problems, o->samples, o->seed);
        Progress report = progress_new(name, problems);
        evaluate(&s->engine, &s->model, &s->tokenizer, &p, &sampling, x.groups, &all[i], &report);
        engine_free(&s->engine);
        model_free(&s->model);
        tokenizer_free(&s->tokenizer);
        if (!o->model) {
            buf_str(&b, i ? ",\n  " : "\n  ");
            json_put_string(&b, name, strlen(name));
            buf_str(&b, ": ");
        }
        buf_str(&b, "{\"name\": ");
        json_put_string(&b, name, strlen(name));
        evaluation_json(&all[i], &b);
        if (i)
            difference_json(&all[i], &all[0], &b);
        buf_str(&b, "}");
    }
    print_evaluations(all, n, table);
    if (n > 1)
        print_differences(all, n, table);
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

/* ================================================================ sample, score */

/* Prints a response as it grows, held back by what may still become --stop. */
typedef struct {
    const Session *s;
    Decoder decoder;
    Buf text;
    size_t shown;
    bool stopped;
} Printer;

static void printer_token(void *context, int id)
{
    Printer *p = context;
    const char *stop = p->s->o.stop, *found;
    decoder_add(&p->decoder, &p->s->tokenizer, id, true, &p->text);
    size_t end = p->text.n, hold = stop ? strlen(stop) - 1 : 0;
    if (stop && (found = strstr(p->text.s, stop))) {
        end = (size_t)(found - p->text.s);
        p->stopped = true;
    } else
        end -= hold < end ? hold : end;
    if (end > p->shown) {
        fwrite(p->text.s + p->shown, 1, end - p->shown, stdout);
        demand_output(true);
        p->shown = end;
    }
}

static void cmd_sample(Session *s)
{
    const Options *o = &s->o;
    if (!o->prompt)
        usage("sample: --prompt is missing");
    session_sampler(s, o->model);
    Buf text = {0};
    template_render(&s->template, o->prompt, &text);
    Ids prompt = encode(&s->tokenizer, true, text.s, text.n, INT_MAX, "--prompt");
    buf_free(&text);
    Extent x = {1, o->samples, imax(prompt.n, 64), o->max_tokens, 1, KEEP_NOTHING, false};
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    Group *g = groups_new(&s->engine, &s->model, x);
    group_prompt(g, prompt);
    rope_reserve(&s->model, g->prompt_length + o->max_tokens);
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
        decoder_end(&p.decoder, &p.text);
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
    j->nul = true;
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
        Ids all = encode(&s->tokenizer, true, text.s, text.n, INT_MAX, "stdin");
        ids = all.id;
        n = all.n;
    }
    if (n < 1)
        die("stdin: line %d: expected text or input_ids, at least one token", line);
    if (n > s->model.config.max_position_embeddings)
        die("stdin: line %d: %d tokens; expected at most %d (max_position_embeddings)", line, n,
            s->model.config.max_position_embeddings);
    size_t rows = (size_t)n;
    rope_reserve(&s->model, n);
    Arena a = arena_new(pass_bytes(&s->model, rows, rows, n, KEEP_NOTHING));
    a.threads = imin(s->engine.threads, HELPERS);
    Batch b = batch_new(&a, n, 1, n);
    batch_seq(&b, ids, n, 0, -1);
    for (int t = 0; t + 1 < n; t++)
        batch_target(&b, t, ids[t + 1]);
    Pass p = forward(&a, &s->model, &b, KEEP_NOTHING);
    forward_head(&a, &s->model, &p, (float)s->o.temperature, false);
    buf_str(out, "{\"input_ids\": [");
    for (int t = 0; t < n; t++)
        buf_printf(out, t ? ", %d" : "%d", ids[t]);
    buf_str(out, "], \"logprobs\": [null");
    for (int t = 0; t + 1 < n; t++) {
        buf_str(out, ", ");
        json_put_number(out, (double)p.head.logprob[t]);
    }
    buf_str(out, "]}\n");
    arena_free(&a);
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
    model_pack(&s->model, s->engine.threads);
    char *text = read_stream(stdin, "stdin", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        score_line(s, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        demand_output(false);
        out.n = 0;
    }
    buf_free(&out);
    free(text);
}

/* ================================================================ tokenize */

/* A line of `tokenize`: what it may hold. */
typedef struct {
    Buf text;
    bool has_text, has_ids, generate;
    Ids ids;
    Message *message;
    int n_messages, thinking; /* -1: not set */
} TokenizeLine;

static char *json_text(Json *j)
{
    Buf s = {0};
    json_string(j, &s);
    return s.s;
}

/* [{"role": "user", "content": "..."}, ...] */
static void read_messages(Json *j, TokenizeLine *x, int line)
{
    Buf key = {0};
    for (json_array(j); json_item(j);) {
        Message m = {NULL, NULL};
        for (json_object(j); json_key(j, &key);)
            if (!strcmp(key.s, "role") && !m.role)
                m.role = json_text(j);
            else if (!strcmp(key.s, "content") && !m.content)
                m.content = json_text(j);
            else
                die("stdin: line %d: messages: '%.60s'; expected role and content", line, key.s);
        x->message = room_for_one(x->message, x->n_messages, sizeof m);
        x->message[x->n_messages++] = m;
        if (j->error)
            break;
        if (!m.content || !m.role ||
            !(is_one_of(m.role, "system", "user", "assistant") || is_role(&m, "tool")))
            die("stdin: line %d: messages: expected content, and role system, user, assistant or "
                "tool", line);
    }
    buf_free(&key);
}

static void line_free(TokenizeLine *x)
{
    for (int i = 0; i < x->n_messages; i++) {
        free((char *)x->message[i].role);
        free((char *)x->message[i].content);
    }
    free(x->message);
    ids_free(&x->ids);
    buf_free(&x->text);
}

static TokenizeLine line_read(Json *j, int line)
{
    static const Config any = {.vocab_size = INT_MAX};
    TokenizeLine x = {.thinking = -1};
    Buf key = {0};
    bool think = false;
    j->nul = true;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "text"))
            x.has_text = json_string(j, &x.text);
        else if ((!strcmp(key.s, "input_ids") || !strcmp(key.s, "ids")) && !x.has_ids) {
            x.ids.n = read_ids(j, &any, false, &x.ids.id, "stdin", line);
            x.has_ids = true;
        } else if (!strcmp(key.s, "messages")) {
            j->nul = false; /* a Message is made of C strings */
            read_messages(j, &x, line);
            j->nul = true;
        } else if (!strcmp(key.s, "add_generation_prompt"))
            json_bool(j, &x.generate);
        else if (!strcmp(key.s, "enable_thinking") && json_peek(j) != 'n')
            x.thinking = json_bool(j, &think) ? think : -1;
        else if (!strcmp(key.s, "tools") && json_peek(j) != 'n')
            die("stdin: line %d: tools are not supported; expected messages alone", line);
        else
            json_skip(j);
    jsonl_end(j, "stdin", line);
    buf_free(&key);
    return x;
}

/* {"text"} to {"input_ids"}, with --decode back; {"messages"} to {"prompt", "input_ids"}. */
static void tokenize_line(const Session *s, Json *j, int line, Buf *out)
{
    TokenizeLine x = line_read(j, line);
    size_t bad = 0;
    if (s->o.decode) {
        if (!x.has_ids)
            die("stdin: line %d: expected input_ids", line);
        tokenizer_decode(&s->tokenizer, x.ids.id, x.ids.n, s->o.skip_special, &x.text);
        buf_str(out, "{\"text\": ");
        json_put_string(out, x.text.s, x.text.n);
    } else {
        bool chat = x.n_messages > 0;
        if (x.has_text == chat)
            die("stdin: line %d: expected text, or messages", line);
        if (chat)
            chat_render(x.message, x.n_messages, x.generate, x.thinking, &x.text);
        x.ids.n = 0;
        if (!tokenizer_encode(&s->tokenizer, x.text.s, x.text.n, &x.ids, &bad))
            die("stdin: line %d: no token for the character at byte %zu", line, bad);
        buf_str(out, chat ? "{\"prompt\": " : "{\"input_ids\": [");
        if (chat) {
            json_put_string(out, x.text.s, x.text.n);
            buf_str(out, ", \"input_ids\": [");
        }
        for (int i = 0; i < x.ids.n; i++)
            buf_printf(out, i ? ", %d" : "%d", x.ids.id[i]);
        buf_str(out, "]");
    }
    buf_str(out, "}\n");
    line_free(&x);
}

static void cmd_tokenize(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    Buf out = {0};
    if (!s->o.tokenizer)
        usage("tokenize: --tokenizer is missing");
    s->tokenizer = tokenizer_load(s->o.tokenizer);
    char *text = read_stream(stdin, "stdin", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        tokenize_line(s, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        demand_output(false);
        out.n = 0;
    }
    buf_free(&out);
    free(text);
}

/* ================================================================ explain */

/* explain.h, which may be what includes this file: */
static void explain_table(const Group *g, const Tokenizer *t, const MethodOptions *o);
static void explain_json(const Group *g, int d);

/* Features, advantages and output of a group whose responses and rewards are there. */
static void explain_group(Session *s, Group *g)
{
    View view = {&s->model, NULL, s->o.temperature, method_options(&s->o), s->o.seed, 0};
    reference_hidden(&s->engine, &s->model, g, 1); /* --encoder ref: the model is its own */
    look(&s->engine.worker[0], &view, g, 1, KEEP_NOTHING, true);
    if (s->o.json)
        explain_json(g, s->model.config.hidden_size);
    else
        explain_table(g, &s->tokenizer, &view.method);
}

enum { MOST_GIVEN = 4096 }; /* responses, as for --rollouts */

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
    x->response = room_for_one(x->response, x->m, sizeof *x->response);
    x->length = room_for_one(x->length, x->m, sizeof *x->length);
    x->response[x->m] = ids;
    x->length[x->m++] = n;
}

/* Text to ids: a prompt by --template; a response with the end token, which is part of y. */
static int *given_text(Session *s, Json *j, bool response, int *n)
{
    Buf given = {0}, text = {0};
    if (!json_string(j, &given))
        return NULL;
    if (!s->tokenizer.n_vocab)
        s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    if (response)
        buf_str(&text, given.s);
    else
        template_render(&s->template, given.s, &text);
    Ids ids = {0};
    if (text.n)
        ids = encode(&s->tokenizer, !response, text.s, text.n, INT_MAX, "--data");
    if (response && s->model.config.n_eos)
        ids_add(&ids, s->model.config.eos_token_id[0]);
    buf_free(&given);
    buf_free(&text);
    *n = ids.n;
    return ids.id;
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
                x.reward = room_for_one(x.reward, x.rewards, sizeof(double));
                if (!json_number(j, &x.reward[x.rewards]))
                    break;
            }
        } else
            json_skip(j);
    jsonl_end(j, path, line);
    if (x.prompt_length < 1 || x.m < 2 || x.m > MOST_GIVEN || x.rewards != x.m)
        die("%s: line %d: a prompt of %d tokens, %d responses, %d rewards; expected a prompt, two "
            "to %d responses, and as many rewards", path, line, x.prompt_length, x.m, x.rewards,
            MOST_GIVEN);
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
    Extent extent = {1, x->m, x->prompt_length, longest, 1, KEEP_NOTHING, true};
    s->engine = extent_engine(&s->model, threads, extent);
    rope_reserve(&s->model, x->prompt_length + longest);
    Group *g = groups_new(&s->engine, &s->model, extent);
    g->prompt_length = x->prompt_length;
    memcpy(g->prompt, x->prompt, (size_t)x->prompt_length * sizeof(int));
    for (int i = 0; i < x->m; i++) {
        memcpy(g->token + g->start[i], x->response[i], (size_t)x->length[i] * sizeof(int));
        g->start[i + 1] = g->start[i] + x->length[i];
        g->truncated[i] = false;
        g->reward[i] = x->reward[i];
        g->answered[i] = true;
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
    engine_free(&s->engine);
}

/* Does a file give groups, responses and all? Else its lines are problems. The first line tells. */
static bool holds_groups(const char *path)
{
    size_t n, offset = 0;
    int line = 0;
    bool groups = false;
    char *text = read_file(path, &n);
    Buf key = {0};
    Json j = json_open("", 0);
    jsonl_next(text, n, &offset, &line, &j);
    for (json_object(&j); json_key(&j, &key); json_skip(&j))
        groups |= is_one_of(key.s, "responses", "response_ids", "prompt_ids") ||
                  !strcmp(key.s, "rewards");
    buf_free(&key);
    free(text);
    return groups;
}

static void explain_file(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    if (s->reward.watcher)
        usage("explain: --data gives the rewards; expected no --reward-cmd");
    char *text = read_file(s->o.data, &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Given x = given_read(s, &j, s->o.data, line);
        explain_given(s, &x);
        given_free(&x);
    }
    free(text);
}

/* The problem of --prompt, which has no gold answer; or those of --data or --task. */
static Problems explain_problems(Session *s)
{
    const Options *o = &s->o;
    Problems p = session_problems(s, o->data, o->data || o->split == 1);
    if (o->prompt) {
        p.path = "--prompt";
        problems_add(&p, o->prompt, "", 0);
        p.held_out = true;
        Reward *command = p.judge.command;
        p.judge = judge_new((Verifier)o->verifier, &s->task, o->prompt);
        p.judge.command = command;
        if (!command && p.judge.verifier >= VERIFY_MATH)
            usage("--prompt: has no gold answer to compare with; expected a problem of --task, "
                  "--data FILE, or --reward-cmd");
    } else if (o->data)
        problems_check_gold(&p, false);
    return p;
}

static void cmd_explain(Session *s)
{
    const Options *o = &s->o;
    bool given = o->data && holds_groups(o->data);
    check_method(o, false);
    if (o->data && o->prompt)
        usage("explain: expected one of --data and --prompt");
    if (given) {
        session_load(s, o->model, false);
        explain_file(s);
        return;
    }
    session_sampler(s, o->model);
    Problems p = explain_problems(s);
    problems_fit(&p, &s->tokenizer, prompt_limit(s, &s->model.config));
    Extent x = {1, o->rollouts, p.longest, o->max_tokens, 1, KEEP_NOTHING, true};
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    Group *g = groups_new(&s->engine, &s->model, x);
    group_ask(g, &s->engine.arena, &p, 0, &s->tokenizer, x.max_prompt);
    Sampling sampling = session_sampling(s, 0);
    rope_reserve(&s->model, g->prompt_length + o->max_tokens);
    sample_groups(&s->engine, &s->model, g, 1, &sampling);
    verify_groups(g, 1, &p.judge, &s->tokenizer);
    explain_group(s, g);
    problems_free(&p);
}

/* ================================================================ data, help, main */

static void cmd_data(Session *s)
{
    Problems p = session_problems(s, s->o.data, s->o.split == 1);
    Buf prompt = {0}, answer = {0}, line = {0};
    if (s->o.data)
        printf("%s: %d problems\n", s->o.data, p.n);
    for (int i = 0; !s->o.data && i < s->o.problems; i++) {
        prompt.n = answer.n = 0;
        task_problem(&p.task, p.seed, p.held_out, (uint32_t)i, &prompt, &answer);
        buf_str(&line, "{\"prompt\": ");
        json_put_string(&line, prompt.s, prompt.n);
        put_text(&line, "answer", answer.s, answer.n);
        printf("%s}\n", line.s);
        demand_output(false);
        line.n = 0;
    }
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&line);
    problems_free(&p);
}

/* ================================================================ verify */

/* A prediction is a response, or, where it states no answer in a way that is known, an answer. */
static Verdict verify_one(const char *pred, const char *gold, bool response, Buf *answer)
{
    Buf bare = {0};
    const char *fault = math_extract(pred, answer);
    if (fault && !response) {
        fault = NULL;
        answer->n = 0;
        buf_str(answer, pred);
    }
    math_gold(gold, &bare);
    Verdict v = fault ? verdict(fault) : math_compare(answer->s, answer->n, bare.s);
    buf_free(&bare);
    return v;
}

/* One verdict; as JSON, or as lines for people. */
static bool verify_print(const char *pred, const char *gold, bool response, bool json)
{
    Buf answer = {0}, normal = {0}, bare = {0}, gold_normal = {0}, out = {0};
    Verdict v = verify_one(pred, gold, response, &answer);
    math_gold(gold, &bare);
    math_normal(answer.s, &normal);
    math_normal(bare.s, &gold_normal);
    if (json) {
        buf_printf(&out, "{\"right\": %s", v.right ? "true" : "false");
        put_text(&out, "reason", v.reason, strlen(v.reason));
        put_text(&out, "answer", answer.s, answer.n);
        put_text(&out, "normal", normal.s, normal.n);
        put_text(&out, "gold", bare.s, bare.n);
        put_text(&out, "gold_normal", gold_normal.s, gold_normal.n);
        buf_str(&out, "}");
    } else
        buf_printf(&out, "%s: %s\nanswer  %s\nnormal  %s\ngold    %s\nnormal  %s",
                   v.right ? "right" : "wrong", v.reason, answer.s, normal.s, bare.s,
                   gold_normal.s);
    puts(out.s);
    buf_free(&answer);
    buf_free(&normal);
    buf_free(&bare);
    buf_free(&gold_normal);
    buf_free(&out);
    return v.right;
}

static void verify_file(const char *path)
{
    size_t n, offset = 0;
    int line = 0, rows = 0, right = 0;
    char *text = read_file(path, &n);
    Buf key = {0}, response = {0}, pred = {0}, gold = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        int responses = 0, preds = 0, golds = 0;
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "response"))
                responses += json_string(&j, &response);
            else if (!strcmp(key.s, "pred"))
                preds += json_string(&j, &pred);
            else if (!strcmp(key.s, "gold"))
                golds += json_string(&j, &gold);
            else
                json_skip(&j);
        jsonl_end(&j, path, line);
        if (responses + preds != 1 || golds != 1)
            die("%s: line %d: expected one response or pred, and one gold", path, line);
        right += verify_print(responses ? response.s : pred.s, gold.s, responses, true);
        demand_output(false);
        rows++;
    }
    fprintf(stderr, "%s: %d of %d right\n", path, right, rows);
    free(text);
    buf_free(&key);
    buf_free(&response);
    buf_free(&pred);
    buf_free(&gold);
}

static void cmd_verify(Session *s)
{
    if (s->o.data && !s->o.pred && !s->o.gold)
        verify_file(s->o.data);
    else if (s->o.pred && s->o.gold && !s->o.data)
        verify_print(s->o.pred, s->o.gold, false, s->o.json);
    else
        usage("verify wants --pred TEXT and --gold TEXT, or --data FILE");
}

/* ================================================================ report */

static void cmd_report(Session *s)
{
    const Options *o = &s->o;
    if (!s->words.n_words)
        usage("report: expected run directories, e.g. g2rl report runs/grpo runs/g2rl");
    ReportOptions x = {s->words.word, s->words.n_words, o->geometry, o->out, o->svg, o->json};
    report(&x);
}

static void help(FILE *f)
{
    fprintf(f, "g2rl %s: gradient-guided reinforcement learning for small language models\n\n"
               "usage: g2rl COMMAND [--option value]... [@file]\n\ncommands:\n", VERSION);
    for (int c = 0; c < N_COMMANDS; c++)
        fprintf(f, "  %-10s %s\n", COMMANDS[c], SUMMARIES[c]);
    fprintf(f, "  %-10s this text; g2rl COMMAND --help: its options; g2rl help metrics: what "
               "the\n             numbers of metrics.jsonl and eval.jsonl are\n\nfirst steps:\n"
               "  g2rl sft --preset nano --task countdown --steps 1600 --out runs/base\n"
               "  g2rl train --model runs/base --method g2rl --out runs/g2rl\n"
               "  g2rl eval base=runs/base g2rl=runs/g2rl\n"
               "  g2rl explain --model runs/g2rl --rollouts 8\n", "help");
}

/* A definition that fills more than a line goes on in the next row, without a name. */
static void help_metrics(FILE *f)
{
    static const char *const rows[][2] = {
        {NULL, "metrics.jsonl of train, a line a step; means are over the step's batch:"},
        {"step", "batches of rollouts so far, this one included"},
        {"reward", "mean of r: +1 right, -1 wrong, or what --reward-cmd gave"},
        {"reward_std", "sqrt(mean (r - mean r)^2) of a group, mean over groups"},
        {"pass@1", "responses with r > 0 / responses"},
        {"frac_dead", "groups whose r are all equal (within 1e-6) / groups"},
        {"completions/mean_length", "response tokens, end tokens included / responses"},
        {"completions/clipped_ratio", "responses cut off at --max-tokens / responses"},
        {"entropy", "-sum_v p_v ln p_v at temperature T, exact, mean over tokens in the loss"},
        {"kl_exact", "sum_v p_v (ln p_v - ln pref_v), pref: the reference, exact, mean over"},
        {"", "response tokens, before the update; null where no reference is kept"},
        {"kl_k1, kl_k3", "q = ln pref - ln p of the sampled token: mean of -q, of e^q - q - 1;"},
        {"", "null where no reference is kept (--kl-coef 0)"},
        {"clip_low, clip_high", "share of tokens that the clip of Eq 3 holds: A < 0 and ratio"},
        {"", "rho < 1 - clip-low; A > 0 and rho > 1 + clip-high"},
        {"log_ratio_clamped", "tokens whose ln rho or q passed +-20"},
        {"phi/cos_mean", "mean of S_ij over the pairs i < j of each group (Eq 9)"},
        {"phi/neg_ratio", "pairs with S_ij < 0 / pairs"},
        {"phi/nu_mean", "mean of nu_i = max(1 - sum_j w_ij S_ij^2, 0) (Eq 10-11)"},
        {"semantic/cos_mean", "mean over the pairs of the cosines of the responses' embeddings"},
        {"", "(--encoder); null where there is no reference to make them"},
        {"adv/novelty_share", "sum A_i (A_i - mean of A where r is r_i) / sum A_i^2"},
        {"logp_gap", "largest |ln p of the sampler - ln p of the trainer| before any update"},
        {"loss", "-min(rho A, clip(rho) A) + beta KL - entropy-coef * entropy (Eq 3-4),"},
        {"", "mean as --loss says; KL: as --kl says"},
        {"grad_norm", "sqrt(sum of squares of all gradients), before clipping"},
        {"lr", "the step's learning rate"},
        {"time/PHASE", "seconds; sample, verify, reference, forward, backward, optimizer"},
        {"tokens_per_s", "response tokens / seconds of the whole step"},
        {"weights_hash", "names the weights after the step, bit for bit"},
        {NULL, "eval.jsonl of train and sft, eval --json: of P problems n samples each, c right:"},
        {"step", "batches trained on so far (eval.jsonl)"},
        {"name", "the model's (eval --json)"},
        {"pass@k", "1 - C(n - c, k) / C(n, k), mean over problems; k = 1, 2, 4, .. n"},
        {"mean@n", "c / n, mean over problems: pass@1 once more"},
        {"maj@k", "1 if the most frequent answer of k samples is right, else 0; of a tie,"},
        {"", "the share of the tied answers that are right; mean over disjoint blocks"},
        {"", "of k, then over problems; k = 16, or n if that is less"},
        {"pass@k/interval, maj@k/interval", ""},
        {"", "[26th smallest, 26th largest] of the means of 1,000 resamples of the P"},
        {"", "problems: 95 %"},
        {"problems, samples", "P, n"},
        {"right, maj", "c of each problem; maj@k of each problem"},
        {"phi/cos_mean, phi/neg_ratio, phi/nu_mean, entropy", ""},
        {"", "as above, over all responses"},
        {"completions/mean_length, completions/clipped_ratio", ""},
        {"", "as above, over all responses"},
        {"difference", "from the first model (eval of several): of each metric the mean over"},
        {"", "problems of x - y, its interval from resamples of the pairs (x, y)"},
        {NULL, "metrics.jsonl of sft, a line a step:"},
        {"loss", "-ln p, mean over the batch's tokens that are trained on"},
        {"tokens", "how many these are"},
        {"tokens_per_s", "tokens / seconds of the whole step"},
        {"step, lr, grad_norm, weights_hash", ""},
        {"", "as above"},
        {NULL, "eval.jsonl of sft --valid:"},
        {"step", "batches trained on so far"},
        {"loss", "-ln p, mean over the tokens of its records that sft would train on"},
        {"tokens", "how many these are"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!rows[i][0])
            fprintf(f, "%s%s\n", i ? "\n" : "", rows[i][1]);
        else if (!*rows[i][1])
            fprintf(f, "  %s\n", rows[i][0]);
        else
            fprintf(f, "  %-26s %s\n", rows[i][0], rows[i][1]);
}

static void help_resume(FILE *f)
{
    fputs("\nStopping and going on: Ctrl-C (or SIGTERM) ends a run after its step: it saves a\n"
          "checkpoint and exits with status 130. A second one ends it at once. --resume goes on\n"
          "from the newest complete checkpoint of --out, also where the run was killed. Options\n"
          "that are not given are the run's own. Given ones that differ are listed, and refused\n"
          "without --force; --steps, --threads, --micro-batch, --recompute, --save-every,\n"
          "--eval-every, --keep and --reward-timeout may differ. Lines of later steps are removed\n"
          "from the run's files: in the end these are those of a run that was never stopped.\n", f);
}

static void help_methods(FILE *f)
{
    fputs("\n--method: they differ in the reward r~ that advantages are made of, or in the loss.\n"
          "    grpo     r~ = r: +1 right, -1 wrong\n"
          "    entropy  GRPO, with --entropy-coef times the mean token entropy in the objective\n"
          "    evol     EVOL-RL: 0.5 to 1 right, -1 to -0.5 wrong, higher where an answer's\n"
          "             embedding (--encoder) is less like the others'; -1 without an answer.\n"
          "             With --encoder ref the starting model is kept in any case\n"
          "    g2rl     r (1 + lambda nubar): nubar from the cosines of the responses' gradient\n"
          "             features (Eq 9-13)\n", f);
}

static void help_rewards(FILE *f)
{
    fputs("\n--data FILE: JSONL of `prompt`, `question` or `problem`, and `answer` or `solution`.\n"
          "    GSM8K, MATH and SVAMP files as they are.\n"
          "--verifier: +1 for a right and finished response, -1 for any other.\n"
          "    countdown, add  any right derivation of the built-in task's problem\n"
          "    math            the final answer equals the gold answer as mathematics\n"
          "    exact           the response is the gold answer, white space around it aside\n"
          "    auto            the task's own for --task, and for --data whose first prompt is\n"
          "                    written like a built-in task's (`3574>26:`); else math\n"
          "--reward-cmd CMD: started once by /bin/sh. For each response it reads a line\n"
          "    {\"prompt\": \"..\", \"response\": \"..\", \"answer\": \"..\"}\n"
          "    and writes, in the same order, {\"reward\": 0.5, \"reason\": \"..\"} or a number,\n"
          "    one a line. All lines of a step are sent at once; each answer must be flushed.\n"
          "    Any real number is a reward; one above 0 counts as right in pass@1; shaped rewards\n"
          "    (g2rl) are clipped to [-3, 3]. The data needs no answers then, and responses that\n"
          "    were cut off are judged like any other. Example: data/reward_story.sh\n", f);
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

/* These files may be what includes this one. */
static void cmd_bench(Session *s);    /* bench.h */
static void cmd_geometry(Session *s); /* geometry.h */
static void cmd_replay(Session *s);   /* replay.h */

static void (*const RUN[N_COMMANDS])(Session *) = {
    cmd_sft,      cmd_train,   cmd_eval,   cmd_geometry, cmd_report, cmd_sample, cmd_score,
    cmd_tokenize, cmd_explain, cmd_replay, cmd_data, cmd_verify, cmd_bench};

/* What `g2rl COMMAND --help` prints. */
static void help_command(int c)
{
    printf("g2rl %s: %s\n\n", COMMANDS[c], SUMMARIES[c]);
    options_help(OPTIONS, N_OPTIONS, c, stdout);
    if (c == DATA)
        printf("\n%s", task_help());
    if (c == SFT || c == TRAIN)
        help_resume(stdout);
    if (c == TRAIN || c == EXPLAIN)
        help_methods(stdout);
    if (c == TRAIN || c == EVAL || c == EXPLAIN)
        help_rewards(stdout);
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
        help_command(c);
        words_free(&s.words);
        demand_output(true);
        return 0;
    }
    if (s.words.n_words && c != EVAL && c != GEOMETRY && c != REPORT && c != REPLAY)
        usage("%s: '%.60s' is not an option; options are --name value", argv[1], s.words.word[0]);
    signal(SIGXFSZ, SIG_IGN); /* a file that grows too large is an error of write like others */
    session_begin(&s);
    RUN[c](&s);
    session_free(&s);
    demand_output(true);
    return s.status;
}

#ifndef G2RL_TEST
int main(int argc, char **argv) { return run_command(argc, argv); }
#endif

#endif
