/* replay.h: the command `replay`: regenerates one rollout of a run, alone, token by token.
 *
 * A rollout depends on the weights before its step and on the counters (seed, step, prompt,
 * rollout, position), not on the rest of its batch. The weights are those of the newest checkpoint
 * before the step or, without one, of the run's start, trained in memory up to the step. The result
 * must equal the run's files to the bit; else the command names the difference, with status 1. It
 * writes no file. */
#ifndef REPLAY_H
#define REPLAY_H

/* The members of a row of the ledger that are checked. */
typedef struct {
    Buf prompt, response;
    double length, logprob;
} RolloutRow;

/* Row `index` of a step in a file of the run; the caller frees it. */
static char *row_of_step(const Path *path, int step, int index)
{
    FILE *f = fopen(path->s, "rb");
    char *line = NULL;
    size_t room = 0;
    int at, rows = 0;
    if (!f)
        die("%s: cannot be opened: %s", path->s, strerror(errno));
    while (rows <= index && getline(&line, &room, f) > 0)
        rows += sscanf(line, "{\"step\": %d", &at) == 1 && at == step;
    if (rows <= index)
        die("%s: step %d has %d rows; expected one for row %d", path->s, step, rows, index);
    fclose(f);
    return line;
}

/* Row `index` of the ledger at a step. The caller frees its texts. */
static RolloutRow rollout_row(const char *run, int step, int index)
{
    Path path = path_join(run, "rollouts.jsonl");
    char *line = row_of_step(&path, step, index);
    RolloutRow row = {0};
    Buf key = {0};
    Json j = json_open(line, strlen(line));
    for (json_object(&j); json_key(&j, &key);)
        if (among(key.s, "prompt|response"))
            json_string(&j, *key.s == 'p' ? &row.prompt : &row.response);
        else if (among(key.s, "length|logprob"))
            json_number(&j, key.s[1] == 'e' ? &row.length : &row.logprob);
        else
            json_skip(&j);
    if (!json_end(&j) || !row.prompt.s || !row.response.s)
        die("%s: step %d, row %d: %s", path.s, step, index, j.error ? j.error : "not a rollout");
    free(line);
    buf_free(&key);
    return row;
}

/* Dies unless the run's metrics have the weights_hash of this step. */
static void demand_hash(const Trainer *t)
{
    Path path = path_join(t->s->o.out, "metrics.jsonl");
    char *line = row_of_step(&path, t->run.step, 0), expected[64];
    unsigned long long hash = weights_hash(&t->s->model);
    snprintf(expected, sizeof expected, "\"weights_hash\": \"%016llx\"", hash);
    if (!strstr(line, expected))
        die("%s: step %d, replayed, ends with weights_hash %016llx; expected that of its line",
            path.s, t->run.step, hash);
    free(line);
}

/* Regenerates rollout r of group g of the next step, and runs the forward pass over it. */
static Group *replay_group(Trainer *t, int g, int r, Pass *pass)
{
    Session *s = t->s;
    Extent x = t->extent;
    x.groups = x.m = 1;
    Group *group = groups_new(&s->engine, &s->model, x);
    train_prompt(t, group, t->run.step, g);
    Sampling sampling = session_sampling(s, t->run.step);
    sampling.first = r;
    sample_groups(&s->engine, &s->model, group, 1, &sampling);
    group->reads_saved = false;
    t->learner.reference = NULL; /* set by train_step */
    *pass = forward_groups(&s->engine.worker[0], &t->learner, group, 1, KEEP_NOTHING);
    return group;
}

/* Dies unless the rollout equals the ledger's row. */
static void demand_equal(const Trainer *t, const Group *g, const RolloutRow *row)
{
    const char *out = t->s->o.out;
    Buf text = {0};
    double logprob = 0;
    for (int i = 0; i < g->n_tokens; i++)
        logprob += (double)g->logprob_old[i];
    response_text(g, 0, &t->s->tokenizer, &text);
    if (strcmp(g->text, row->prompt.s))
        die("%s/rollouts.jsonl: the prompt is '%.60s'; replayed: '%.60s'", out, row->prompt.s,
            g->text);
    if (g->n_tokens != (int)row->length || strcmp(text.s, row->response.s))
        die("%s/rollouts.jsonl: the response is '%.60s' of %g tokens; replayed: '%.60s' of %d", out,
            row->response.s, row->length, text.s, g->n_tokens);
    if (logprob != row->logprob)
        die("%s/rollouts.jsonl: the response's log-prob is %.17g; replayed: %.17g", out,
            row->logprob, logprob);
    for (int i = 0; i < g->n_tokens; i++)
        if (g->logprob[i] != g->logprob_old[i])
            die("token %d: its log-prob is %.9g as sampled, and %.9g as the trainer sees it", i,
                (double)g->logprob_old[i], (double)g->logprob[i]);
    buf_free(&text);
}

/* |phi| of each token. phi: [tokens, d] */
static double *phi_lengths(const float *phi, int tokens, int d)
{
    double *x = xcalloc(tokens, sizeof *x);
    for (int t = 0; t < tokens; t++, phi += d) {
        for (int k = 0; k < d; k++)
            x[t] += (double)phi[k] * (double)phi[k];
        x[t] = sqrt(x[t]);
    }
    return x;
}

static void put_floats(Buf *b, const char *name, const float *x, int n)
{
    double *copy = doubles_of(x, n);
    put_vector(b, name, copy, n);
    free(copy);
}

static void token_text(const Tokenizer *t, int id, Buf *text)
{
    text->n = 0;
    tokenizer_decode(t, &id, 1, false, text);
}

static void replay_json(const Trainer *t, const Options *own, const Group *g, const double *phi)
{
    const Tokenizer *tokenizer = &t->s->tokenizer;
    Buf b = {0}, text = {0};
    buf_printf(&b, "{\"step\": %d, \"group\": %d, \"rollout\": %d", own->step, own->group,
               own->rollout);
    put_text(&b, "prompt", g->text, strlen(g->text));
    response_text(g, 0, tokenizer, &text);
    put_text(&b, "response", text.s, text.n);
    buf_str(&b, ", \"ids\": ");
    json_put_ints(&b, g->token, g->n_tokens);
    buf_str(&b, ", \"tokens\": [");
    for (int i = 0; i < g->n_tokens; i++) {
        token_text(tokenizer, g->token[i], &text);
        buf_str(&b, i ? ", " : "");
        json_put_string(&b, text.s, text.n);
    }
    buf_str(&b, "]");
    put_floats(&b, "logprob", g->logprob, g->n_tokens);
    put_floats(&b, "entropy", g->entropy, g->n_tokens);
    put_vector(&b, "phi", phi, g->n_tokens);
    printf("%s}\n", b.s);
    buf_free(&b, &text);
}

static void replay_table(const Trainer *t, const Options *own, const Group *g, const double *phi)
{
    const Tokenizer *tokenizer = &t->s->tokenizer;
    Buf text = {0};
    double sum[3] = {0};
    response_text(g, 0, tokenizer, &text);
    printf("step %d, group %d, rollout %d, as the run has it\nprompt    %s\nresponse  %s\n\n"
           "    t      id  token             log-prob   entropy     |phi|\n",
           own->step, own->group, own->rollout, g->text, text.s);
    for (int i = 0; i < g->n_tokens; i++) {
        token_text(tokenizer, g->token[i], &text);
        printf("%5d %7d  %-16s %9.4f %9.4f %9.4f\n", i, g->token[i], shown(text.s, text.n).s,
               (double)g->logprob[i], (double)g->entropy[i], phi[i]);
        sum[0] += (double)g->logprob[i];
        sum[1] += (double)g->entropy[i];
        sum[2] += phi[i];
    }
    printf("%15s%-16s %9.4f %9.4f %9.4f\n", "", "sum, mean, mean", sum[0],
           sum[1] / g->n_tokens, sum[2] / g->n_tokens);
    buf_free(&text);
}

/* The run, whose options replace the command's. */
static Run replay_run(Session *s, const Options *own)
{
    const char *dir = s->words.word[0];
    s->o = run_options(dir, TRAIN, &s->words).o;
    if (own->group >= s->o.prompts || own->rollout >= s->o.rollouts)
        usage("replay: the run's steps have %d groups of %d rollouts, counted from 0", s->o.prompts,
              s->o.rollouts);
    s->o.out = dir;
    s->o.threads = own->threads;
    s->o.eval_every = 0;
    Run run = run_new(s, TRAIN);
    run_at(&run, own->step - 1);
    session_begin(s);
    return run;
}

/* Dies where the run's checkpoints say that it began with another model than --model now is. */
static void demand_same_start(const Trainer *t)
{
    Run newest = run_new(t->s, TRAIN);
    if (t->run.saved >= 0 || !run_at(&newest, INT_MAX))
        return;
    SafeTensors st = st_open_file(path_join(newest.from.s, "trainer.safetensors").s);
    demand_start(&t->s->model, t->run.from.s, trainer_hash(&st, "start"));
    st_close(&st);
}

static void cmd_replay(Session *s)
{
    Options own = s->o;
    if (s->words.n_words != 1)
        usage("replay: expected one run directory, e.g. g2rl replay runs/g2rl --step 1");
    if (!own.step)
        usage("replay: --step is missing");
    Run run = replay_run(s, &own);
    RolloutRow row = rollout_row(s->o.out, own.step, own.group * s->o.rollouts + own.rollout);
    Trainer t = train_open(s, run);
    demand_same_start(&t);
    Progress report = progress_new("replay", own.step - 1);
    report.first = run.step;
    while (t.run.step < own.step - 1) {
        train_and_record(&t, &report);
        demand_hash(&t);
    }
    Pass pass;
    Group *g = replay_group(&t, own.group, own.rollout, &pass);
    demand_equal(&t, g, &row);
    double *phi = phi_lengths(pass.head.phi, g->n_tokens, s->model.config.hidden_size);
    (own.json ? replay_json : replay_table)(&t, &own, g, phi);
    free(phi);
    buf_free(&row.prompt, &row.response);
    train_close(&t);
}

#endif
