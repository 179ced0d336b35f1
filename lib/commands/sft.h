/* sft.h: the command `sft`: supervised next-token training, which makes the model that
 * reinforcement learning begins with. Records come from a file or are drawn from a task; a step is
 * forward, backward and AdamW over a batch of them. */
#ifndef SFT_H
#define SFT_H

/* One example: token ids, and for each position the id to be predicted there, or NOT_TRAINED. */
typedef struct {
    int *ids, *labels, n;
} Record;

typedef struct {
    Record *record;
    int n, longest;
    int too_long, too_long_line; /* records left out; the first one's line */
} Records;

/* A record of these ids, which it takes over; those before `first` are not trained on. */
static Record record_of_ids(Ids ids, int first)
{
    Record r = {ids.id, xcalloc(ids.n, sizeof(int)), ids.n};
    for (int i = 0; i < r.n; i++)
        r.labels[i] = i < first ? NOT_TRAINED : r.ids[i];
    return r;
}

static void record_free(Record *r)
{
    free(r->ids);
    free(r->labels);
}

/* Prompt (--template), response and end token; the prompt is not trained on. */
static Record record_of_text(Session *s, const char *problem, const char *response,
                             const char *source)
{
    Buf text = {0};
    session_prompter(s);
    template_render(&s->template, problem, &text);
    Ids ids = encode(&s->tokenizer, true, text.s, text.n, INT_MAX, source);
    Ids answer = encode(&s->tokenizer, false, response, strlen(response), INT_MAX, source);
    int first = ids.n;
    for (int i = 0; i < answer.n; i++)
        ids_add(&ids, answer.id[i]);
    if (session_end_token(s) >= 0)
        ids_add(&ids, session_end_token(s));
    ids_free(&answer);
    buf_free(&text);
    return record_of_ids(ids, first);
}

/* Adds the ids of bytes begin .. end - 1 of a rendered conversation, with their labels. */
static void record_part(Session *s, const Buf *text, size_t begin, size_t end, bool trained,
                        const char *source, Ids *ids, Ids *labels)
{
    if (begin == end)
        return;
    Ids part = encode(&s->tokenizer, begin == 0, text->s + begin, end - begin, INT_MAX, source);
    for (int i = 0; i < part.n; i++) {
        ids_add(ids, part.id[i]);
        ids_add(labels, trained ? part.id[i] : NOT_TRAINED);
    }
    ids_free(&part);
}

/* A conversation, rendered by the chat template. Trained on is what a model would generate: the
 * assistant's messages from number `from` on, each with the token that ends its turn. They are
 * encoded apart from what is before them, as they are when the model samples. */
static Record record_of_messages(Session *s, Messages *x, int from, const char *source)
{
    int given = x->n;
    session_prompter(s);
    messages_fit(x, &s->template, source);
    from += x->n - given; /* --system put one before them */
    Buf text = {0};
    Ids ids = {0}, labels = {0};
    TextSpan *turn = xcalloc(x->n, sizeof *turn);
    messages_render(x, &s->template, false, &text, turn);
    size_t done = 0;
    for (int i = from; i < x->n; i++) {
        if (!is_role(&x->message[i], "assistant"))
            continue;
        record_part(s, &text, done, turn[i].begin, false, source, &ids, &labels);
        record_part(s, &text, turn[i].begin, turn[i].end, true, source, &ids, &labels);
        done = turn[i].end;
    }
    if (!done)
        die("%s: messages: none of the assistant's to train on", source);
    free(turn);
    buf_free(&text);
    return (Record){ids.id, labels.id, ids.n};
}

/* Plain text with its begin and end tokens, all trained on, cut into records of at most
 * --max-length tokens. */
static void records_of_plain(Session *s, const char *text, size_t n, const char *source,
                             Records *all)
{
    int most = imin(s->o.max_length, s->model.config.max_position_embeddings);
    session_tokenizer(s);
    Ids ids = encode(&s->tokenizer, true, text, n, INT_MAX, source);
    if (s->model.config.n_eos)
        ids_add(&ids, s->model.config.eos_token_id[0]);
    for (int first = 0; most > 1 && first + 1 < ids.n; first += most) {
        Ids part = {0};
        for (int i = first; i < imin(first + most, ids.n); i++)
            ids_add(&part, ids.id[i]);
        APPEND(all->record, all->n, record_of_ids(part, 0));
    }
    ids_free(&ids);
}

/* Adds a record of a line, unless it has more tokens than the model has positions. */
static void records_add(Records *all, Record r, int most, int line)
{
    if (r.n <= most) {
        APPEND(all->record, all->n, r);
        return;
    }
    if (!all->too_long++)
        all->too_long_line = line;
    record_free(&r);
}

/* A question and its response where one of them, or both, are messages. */
static Record record_of_turns(Session *s, Messages *asked, const Buf *prompt, Messages *answered,
                              const Buf *response, const char *source)
{
    if (!asked->n)
        messages_add(asked, "user", prompt->s);
    int from = asked->n;
    for (int i = 0; i < answered->n; i++)
        messages_add(asked, answered->message[i].role, answered->message[i].content);
    if (!answered->n)
        messages_add(asked, "assistant", response->s);
    return record_of_messages(s, asked, from, source);
}

/* One line of --data: prompt and response, or messages, or text, or input_ids and labels (default:
 * the ids), which need no tokenizer. Prompt and response may be messages, too. */
static void record_read(Session *s, Json *j, const char *path, int line, Records *all)
{
    const Config *c = &s->model.config;
    Record r = {0};
    int labels = -1, most = c->max_position_embeddings;
    Buf key = {0}, prompt = {0}, response = {0}, answer = {0}, text = {0};
    Messages asked = {0}, answered = {0}, whole = {0};
    TextField field[] = {
        {.names = "prompt|question|problem", .text = &prompt, .list = messages_read, .to = &asked},
        {.names = "response|completion|output", .text = &response, .number = true,
         .list = messages_read, .to = &answered},
        {.names = "answer|solution|ground_truth", .text = &answer, .number = true},
        {.names = "messages", .list = messages_read, .to = &whole},
        {.names = "text", .text = &text}};
    Path source = path_printf("%s: line %d", path, line);
    for (json_object(j); json_key(j, &key);)
        if (json_missing(j))
            continue;
        else if (among(key.s, "input_ids"))
            r.n = read_ids(j, c, false, &r.ids, path, line);
        else if (among(key.s, "labels"))
            labels = read_ids(j, c, true, &r.labels, path, line);
        else if (!text_fields(j, &key, field, sizeof field / sizeof *field, source.s))
            json_skip(j);
    if (j->error && key.n)
        die("%s: %.60s: %s", source.s, key.s, j->error);
    jsonl_end(j, path, line);
    const Buf *reply = response.n ? &response : &answer;
    bool talk = whole.n || ((asked.n || prompt.n) && (answered.n || reply->n));
    if (!r.ids) { /* labels of nothing */
        free(r.labels);
        if (whole.n)
            records_add(all, record_of_messages(s, &whole, 0, source.s), most, line);
        else if (talk && !asked.n && !answered.n)
            records_add(all, record_of_text(s, prompt.s, reply->s, source.s), most, line);
        else if (talk)
            records_add(all, record_of_turns(s, &asked, &prompt, &answered, reply, source.s), most,
                        line);
        else if (text.n)
            records_of_plain(s, text.s, text.n, source.s, all);
    }
    if (r.ids ? r.n < 2 : !talk && !text.n)
        die("%s: expected prompt and response, messages, text, or at least two input_ids",
            source.s);
    if (r.ids && labels >= 0 && labels != r.n)
        die("%s: %d labels for %d input_ids; expected as many", source.s, labels, r.n);
    if (r.ids)
        records_add(all, labels < 0 ? record_of_ids((Ids){.id = r.ids, .n = r.n}, 0) : r, most,
                    line);
    messages_free(&asked);
    messages_free(&answered);
    messages_free(&whole);
    buf_free(&key, &prompt, &response, &answer, &text);
}

/* Says which records of a file were left out, if any. */
static void records_dropped(const Session *s, const Records *all, const char *path)
{
    if (all->too_long)
        warn("%s: dropped %d of %d records (%.1f %%): over %d tokens (max_position_embeddings), "
             "the first in line %d", path, all->too_long, all->n + all->too_long,
             100.0 * all->too_long / (all->n + all->too_long),
             s->model.config.max_position_embeddings, all->too_long_line);
}

static Records records_read(Session *s, const char *path)
{
    Records all = {0};
    size_t n, offset = 0, name = strlen(path);
    int line = 0;
    bool plain = name > 4 && !strcmp(path + name - 4, ".txt");
    char *text = (plain ? read_text_file : jsonl_read)(path, &n);
    if (plain)
        records_of_plain(s, text, n, path, &all);
    else
        for (Json j; jsonl_next(text, n, &offset, &line, &j);)
            record_read(s, &j, path, line, &all);
    if (!all.n && all.too_long)
        die("%s: all %d records are over %d tokens (max_position_embeddings)", path, all.too_long,
            s->model.config.max_position_embeddings);
    if (!all.n)
        die("%s: holds no records", path);
    records_dropped(s, &all, path);
    for (int i = 0; i < all.n; i++)
        all.longest = imax(all.longest, all.record[i].n);
    free(text);
    return all;
}

static void records_free(Records *all)
{
    for (int i = 0; i < all->n; i++)
        record_free(&all->record[i]);
    free(all->record);
}

/* A training problem of the task with one of its solutions. */
static Record record_draw(Session *s, uint32_t index)
{
    Buf prompt = {0}, answer = {0}, response = {0};
    task_problem(&s->task, s->o.seed, SPLIT_TRAIN, index, &prompt, &answer);
    task_solution(&s->task, prompt.s, s->o.seed, index, &response);
    Record r = record_of_text(s, prompt.s, response.s, "task");
    if (r.n > s->model.config.max_position_embeddings)
        die("--task: a problem and its solution are %d tokens; expected at most the model's "
            "max_position_embeddings %d", r.n, s->model.config.max_position_embeddings);
    buf_free(&prompt, &answer, &response);
    return r;
}

/* A batch of records, at_once of them in a micro-batch. */
typedef struct {
    const Model *m;
    const Record *records;
    int n, at_once, targets;
    int *offset;    /* [n] where a record's targets begin among the batch's */
    float *logprob; /* [targets] */
} RecordBatch;

static RecordBatch record_batch(Session *s, const Record *r, int n, int at_once)
{
    RecordBatch x = {.m = &s->model, .records = r, .n = n, .at_once = at_once};
    x.offset = arena_alloc(&s->engine.arena, n, sizeof(int));
    for (int i = 0; i < n; i++) {
        x.offset[i] = x.targets;
        for (int t = 1; t < r[i].n; t++) /* the first token has nothing to be predicted from */
            x.targets += r[i].labels[t] != NOT_TRAINED;
    }
    x.logprob = arena_floats(&s->engine.arena, x.targets);
    return x;
}

/* Forward over micro-batch i. loss = mean of -log p over the trained-on tokens of the batch. */
static Pass records_forward(Arena *a, const RecordBatch *x, int i, Keep keep)
{
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
    float *coef = arena_floats(a, b.n_targets);
    for (int t = 0; t < b.n_targets; t++)
        coef[t] = -1.0 / x->targets;
    Pass p = forward(a, x->m, &b, keep);
    forward_head(a, x->m, &p, 1.0f, keep != KEEP_NOTHING, NULL);
    memcpy(x->logprob + x->offset[first], p.head.logprob, b.n_targets * sizeof(float));
    p.coef.logprob = coef;
    return p;
}

/* Forward over micro-batches first .. first + n - 1 in parallel; all threads help a single one. */
static void records_wave(Engine *e, const RecordBatch *x, int first, int n, Pass *p)
{
    Keep keep = e->one_pass ? KEEP_INPUTS : KEEP_ALL;
    workers_reset(e);
    if (n == 1) {
        e->worker[0].threads = imin(e->threads, HELPERS);
        p[0] = records_forward(&e->worker[0], x, first, keep);
        e->worker[0].threads = 1;
        return;
    }
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < n; i++)
        p[i] = records_forward(&e->worker[i], x, first + i, keep);
}

/* Adds the gradient of a batch to the model's, and returns its loss, a mean over *tokens; neither
 * is whole where interrupted(). */
static double sft_gradient(Session *s, const Record *r, int n, int at_once, int *tokens)
{
    Engine *e = &s->engine;
    double loss = 0;
    size_t mark = e->arena.used;
    RecordBatch x = record_batch(s, r, n, at_once);
    int parts = x.targets ? (n + at_once - 1) / at_once : 0, most = passes_at_once(e, parts);
    Pass *p = arena_alloc(&e->arena, most, sizeof *p);
    for (int i = 0; i < parts && !interrupted(); i += most) {
        int k = imin(most, parts - i);
        records_wave(e, &x, i, k, p);
        backward(e, &s->model, p, k);
    }
    workers_reset(e);
    *tokens = x.targets;
    for (int t = 0; t < x.targets; t++)
        loss -= (double)x.logprob[t] / x.targets;
    e->arena.used = mark;
    return loss;
}

/* Loads --tokenizer. The preset keeps its own vocab_size if that is enough, and so its shapes.
 * Responses end with END_TOKEN. */
static void sft_tokenizer(Session *s, Config *c)
{
    Path at = model_dir(s->o.tokenizer);
    const char *path = at.s;
    Ids ids = {0};
    size_t bad;
    if (is_dir(path)) {
        s->tokenizer_path = path_join(path, "tokenizer.json");
        carry_files(s, path, "generation_config.json");
    } else {
        snprintf(s->tokenizer_path.s, sizeof s->tokenizer_path.s, "%s", path);
        carry_file(s, path, "tokenizer.json");
        for (int i = 0; i < N_SIBLINGS; i++)
            if (is_file(sibling(path, SIBLINGS[i]).s))
                carry_file(s, sibling(path, SIBLINGS[i]).s, SIBLINGS[i]);
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
    records_forward(a, context, i, KEEP_NOTHING);
}

/* The loss over all records, a batch at a time; over some, where interrupted(). */
static double validation_loss(Session *s, const Records *all, int at_once, int *tokens)
{
    double sum = 0;
    *tokens = 0;
    for (int i = 0; i < all->n && !interrupted(); i += s->o.batch) {
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

/* The initial weights and tokenizer: of --preset, --model, or a checkpoint. */
static void sft_model(Session *s, const Run *run)
{
    const Options *o = &s->o;
    const Config *preset = o->preset ? preset_find(o->preset) : NULL;
    if (!o->preset == !o->model)
        usage("sft: expected one of --preset NAME (random weights) and --model DIR");
    if (o->model && o->tokenizer)
        usage("sft: --tokenizer goes with --preset; --model brings its own");
    if (*run->from.s) {
        session_learner(s, run->from.s);
        return;
    }
    if (o->lora || o->adapter)
        usage("sft: --lora and --adapter go with --model; --preset makes random weights");
    if (!preset)
        usage("--preset: '%.60s'; expected nano, tiny, small, medium or qwen3-0.6b", o->preset);
    Config c = *preset;
    if (o->tokenizer)
        sft_tokenizer(s, &c);
    else {
        s->tokenizer = tokenizer_characters(TASK_ALPHABET);
        c.vocab_size = s->tokenizer.n_vocab;
        c.n_eos = 1; /* eos_token_id[0] is 0, as the tasks' end token is */
    }
    s->model = model_new(&c);
    model_init(&s->model, o->seed);
}

typedef struct {
    Session *s;
    Records records, valid; /* of --data and --valid */
    Record *batch;          /* the step's */
    int *order, epoch, at_once;
    bool samples; /* --eval-every samples responses to problems */
    Problems held_out;
    Run run;
} Sft;

/* The records of one step: drawn from the task, or the next ones of the file. */
static void sft_batch(Sft *t, int step)
{
    const Options *o = &t->s->o;
    for (int i = 0; i < o->batch; i++) {
        uint32_t index = (uint32_t)step * o->batch + i, n = t->records.n;
        if (!n) {
            t->batch[i] = record_draw(t->s, index);
            continue;
        }
        int epoch = index / n;
        if (epoch != t->epoch)
            shuffle(t->order, n, o->seed, epoch);
        t->epoch = epoch;
        t->batch[i] = t->records.record[o->shuffle ? t->order[index % n] : (int)(index % n)];
    }
}

/* A step, written down; one that a signal ends is left undone. */
static void sft_step(Sft *t, Progress *report)
{
    Session *s = t->s;
    const Options *o = &s->o;
    int tokens, step = t->run.step;
    double start = now_seconds(), lr = learning_rate(o, step);
    Buf line = {0};
    char note[64];
    sft_batch(t, step);
    grads_zero(&s->model);
    double loss = sft_gradient(s, t->batch, o->batch, t->at_once, &tokens);
    for (int i = 0; i < o->batch && !t->records.n; i++)
        record_free(&t->batch[i]);
    if (interrupted())
        return;
    double norm = adamw_step(&s->engine, &s->model, &t->run.adam, lr);
    t->run.updating = isfinite(norm);
    demand_finite(&s->model, step + 1, loss, norm);
    t->run.step = step + 1;
    t->run.updating = false;
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

/* Memory for a pass over the longest records, and for evaluations. */
static Engine sft_engine(const Sft *t, int longest)
{
    const Session *s = t->s;
    const Model *m = &s->model;
    int rows = t->at_once * longest;
    Keep keep = s->o.recompute ? KEEP_INPUTS : KEEP_ALL;
    Needs n = {.shared = s->o.batch * (8 + (size_t)longest * 4) + (2 << 20),
               .pass = pass_bytes(m, rows, rows, longest, keep) + rows * (size_t)8,
               .piece = pieces_bytes(m, rows, rows)};
    if (t->samples) {
        Extent x = eval_extent(&t->held_out, s->o.samples, s->o.max_tokens);
        n.shared += groups_bytes(m, x);
        n.sampling = worker_bytes(m, x);
    }
    return run_engine(s, n);
}

/* Rows of eval.jsonl, if this step has an evaluation: responses to held-out problems, the loss on
 * --valid, or both. */
static void sft_eval(Sft *t)
{
    Session *s = t->s;
    Buf line = {0};
    int tokens, step = t->run.step;
    if (!run_evaluates(&t->run) ||
        (t->samples && !eval_on_the_side(s, &t->held_out, t->run.evals, step)))
        return;
    t->run.evaluated = step;
    if (!t->valid.n)
        return;
    double loss = validation_loss(s, &t->valid, t->at_once, &tokens);
    if (interrupted())
        return;
    buf_printf(&line, "{\"step\": %d", step);
    put(&line, "loss", loss);
    put(&line, "tokens", tokens);
    run_line(t->run.evals, &line, s->o.out, "eval.jsonl");
    fprintf(stderr, "step %d: validation loss %.4f\n", step, loss);
    buf_free(&line);
}

/* The records to train on and those of --valid; returns the length of the longest. */
static int sft_records(Sft *t)
{
    const Options *o = &t->s->o;
    int longest = TASK_PROMPT_MAX + TASK_RESPONSE_MAX;
    if (o->data) {
        t->records = records_read(t->s, o->data);
        longest = t->records.longest;
    }
    if (o->valid) {
        if (!o->eval_every)
            usage("--valid: expected --eval-every too");
        t->valid = records_read(t->s, o->valid);
        longest = imax(longest, t->valid.longest);
    }
    t->samples = o->eval_every && (!o->valid || o->eval_data || !o->data);
    if (o->data && (!t->samples || o->eval_data))
        t->s->o.task = t->s->was.o.task = NULL; /* in run.json: no task is used */
    return longest;
}

static void cmd_sft(Session *s)
{
    enum { TYPICAL = 32 }; /* tokens of a drawn record */
    const Options *o = &s->o;
    if (o->reward_cmd && !o->eval_every)
        usage("--reward-cmd: judges the answers of --eval-every; expected that too");
    Sft t = {.s = s, .epoch = -1, .run = run_find(s, SFT)};
    Run *run = &t.run;
    sft_model(s, run);
    int longest = sft_records(&t);
    rope_reserve(&s->model, longest);
    if (t.samples) {
        session_stops(s);
        t.held_out = session_evaluated(s, s->o.eval_data);
        problems_fit(&t.held_out, &s->tokenizer, prompt_limit(s, &s->model.config));
    }
    session_prepare_saving(s, run->from.s);
    t.order = xcalloc(t.records.n, sizeof(int));
    t.batch = xcalloc(o->batch, sizeof(Record));
    t.at_once = good_micro_batch(o->micro_batch, o->batch, o->data ? longest : TYPICAL);
    s->engine = o->steps ? sft_engine(&t, longest) : s->engine;
    if (o->steps) /* none: the model is only saved */
        model_trainable(&s->model, o->recompute);
    run_load(run);
    if (o->steps && !o->recompute)
        model_pack(&s->model, s->engine.threads);
    run->eval_rows = t.samples + (t.valid.n > 0);
    run_begin(run);
    Progress report = progress_new("sft", o->steps);
    report.first = run->step;
    sft_eval(&t);
    while (run_goes_on(run)) {
        sft_step(&t, &report);
        run_step_done(run);
        sft_eval(&t);
    }
    run_finish(run);
    records_dropped(s, &t.records, o->data); /* again, below the lines of progress */
    records_free(&t.records);
    records_free(&t.valid);
    problems_free(&t.held_out);
    free(t.order);
    free(t.batch);
}

#endif
