/* checkpoint.h: a run's directory; how a run is stopped and resumed.
 *
 *   run.json             every option
 *   metrics.jsonl        a line a step; so are rollouts.jsonl (a line a rollout) and eval.jsonl
 *   checkpoint-<step>/   a model directory with a card, and the rest of the state:
 *                        trainer.safetensors
 *
 *   run_options          the options of a run, from run.json
 *   run_find, run_load   the run of --out, new or at the checkpoint to resume from; its moments
 *   run_begin            the directory and its files, truncated to that checkpoint
 *   run_line             writes a line to one of them
 *   run_goes_on, run_step_done, run_finish
 *
 * Random numbers and data are functions of options and step, so that the state of a run is the
 * step, the weights and AdamW's moments. A resumed run reads these, and ends with the same bits as
 * one that was never stopped.
 *
 * A checkpoint is complete when it has its name: it is written as tmp-checkpoint-<step>, synced
 * with the lines up to its step (fsync), then renamed. Older ones are deleted after that. So a run
 * may be killed at any moment. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "session.h" /* defines: Session, OPTIONS; model.c: Model, AdamW, model_save */

#include <signal.h>
#include <sys/file.h>

/* Options that name an input file of the run. */
static const char *const INPUTS[] = {"data", "valid", "eval-data", "template"};
enum { N_INPUTS = sizeof INPUTS / sizeof *INPUTS };

enum { RUN_TOTALS = 16 };

/* A training run: what lasts from step to step. */
typedef struct {
    Session *s;
    int command;
    Path from;                 /* the directory of its weights */
    int step, saved;           /* steps done; the newest checkpoint's step, -1: none */
    AdamW adam;
    uint64_t start;            /* weights_hash of the initial model */
    double totals[RUN_TOTALS]; /* seconds and work so far */
    uint64_t inputs[N_INPUTS]; /* hashes of the input files */
    FILE *metrics, *ledger, *evals; /* NULL: not written */
    int lock;                  /* the directory, locked by one process */
    int different;             /* inputs and options that have changed */
} Run;

/* ---------------------------------------------------------------- options */

/* Reads the options of a run from its run.json; missing ones have their defaults. */
static RunOptions run_options(const char *dir, int command, Words *words)
{
    Path path = path_join(dir, "run.json");
    if (!is_file(path.s))
        die("%s: is not there; expected the directory of a run", path.s);
    RunOptions x = {.version = "unknown"};
    OptionError error = {""};
    Buf key = {0}, text = {0};
    size_t n;
    char *json = read_text_file(path.s, &n);
    Json j = json_open(json, n);
    options_default(OPTIONS, N_OPTIONS, command, &x.o);
    for (json_object(&j); !error.s[0] && json_key(&j, &key);) {
        const Option *o = option_named(OPTIONS, N_OPTIONS, command, key.s);
        if (among(key.s, "command|version")) {
            json_string(&j, &text);
            if (*key.s == 'v')
                snprintf(x.version, sizeof x.version, "%s", text.s);
            else if (!j.error && strcmp(text.s, COMMANDS[command].name))
                die("%s: a run of %.60s; expected one of %s", path.s, text.s,
                    COMMANDS[command].name);
        } else if (o && !among(key.s, "force|resume"))
            option_read(o, &x.o, &j, words, &error);
        else
            json_skip(&j);
    }
    if (error.s[0] || !json_end(&j))
        die("%s: line %d: %s", path.s, json_line(&j), error.s[0] ? error.s : j.error);
    free(json);
    buf_free(&key, &text);
    return x;
}

/* The options of --resume: those of the run, overridden by the command line. */
static void resume_options(Session *s, int command, int argc, char **argv)
{
    if (!s->o.out)
        usage("--resume: goes on with the run of --out, which is missing");
    s->was = run_options(s->o.out, command, &s->words);
    s->o = s->was.o;
    options_parse(OPTIONS, N_OPTIONS, command, COMMANDS[command].name, &s->o, argc, argv,
                  &s->words);
}

/* Lists the options that have changed and may change the results; returns how many. */
static int run_differences(const Session *s, int command)
{
    static const char ignored[] = "out|steps|threads|micro-batch|recompute|save-every|eval-every|"
                                  "keep|reward-timeout|force|resume";
    Buf was = {0}, is = {0};
    int n = strcmp(s->was.version, VERSION) != 0;
    if (n)
        warn("version: was %s, is %s", s->was.version, VERSION);
    for (const Option *o = OPTIONS; o < OPTIONS + N_OPTIONS; o++) {
        if (!option_known(o, command) || among(o->name, ignored))
            continue;
        was.n = is.n = 0;
        option_get(o, &s->was.o, &was);
        option_get(o, &s->o, &is);
        if (strcmp(was.s, is.s)) {
            warn("--%s: was %s, is %s", o->name, was.s, is.s);
            n++;
        }
    }
    buf_free(&was, &is);
    return n;
}

/* ---------------------------------------------------------------- trainer.safetensors */

/* Is this tensor in trainer.safetensors? w: weights that model.safetensors rounds; m and v: AdamW's
 * moments, which are all 0 before the first update. */
static bool in_trainer(const Tensor *t, char kind, int64_t updates)
{
    return t->size && (kind == 'w' ? t->dtype != ST_F32 : updates > 0);
}

/* The hash of an input file; 0 where the run has none. */
static uint64_t input_hash(const Run *run, const char *name)
{
    const Option *o = option_named(OPTIONS, N_OPTIONS, run->command, name);
    const char *path = o ? *(const char *const *)((const char *)&run->s->o + o->offset) : NULL;
    if (!path || !is_file(path))
        return 0;
    size_t n;
    char *text = read_file(path, &n);
    uint64_t hash = hash64(text, n);
    free(text);
    return hash;
}

/* Saves each tensor's m and v in F32, and w where the saved model rounds it; the rest as notes. */
static void trainer_save(const Run *run, const char *path)
{
    const Model *m = &run->s->model;
    StOut *out = xcalloc(3 * m->n_tensors, sizeof *out);
    char (*name)[96] = xcalloc(3 * m->n_tensors, sizeof *name);
    float *const flat[3] = {m->params, m->m, m->v};
    int n = 0;
    Buf notes = {0};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < m->n_tensors; i++) {
            const Tensor *t = &m->tensors[i];
            if (!in_trainer(t, "wmv"[k], run->adam.step))
                continue;
            snprintf(name[n], sizeof *name, "%c.%s", "wmv"[k], t->name);
            StOut one = {name[n], t->cols ? 2 : 1, {t->rows, t->cols}, at(m, flat[k], i), ST_F32};
            out[n++] = one;
        }
    buf_printf(&notes, ",\"step\":\"%d\",\"updates\":\"%lld\",\"weights_hash\":\"%016llx\","
               "\"start\":\"%016llx\",\"totals\":\"", run->step, (long long)run->adam.step,
               (unsigned long long)weights_hash(m), (unsigned long long)run->start);
    for (int i = 0; i < RUN_TOTALS; i++)
        buf_printf(&notes, "%s%.17g", i ? " " : "", run->totals[i]);
    buf_str(&notes, "\"");
    for (int i = 0; i < N_INPUTS; i++)
        buf_printf(&notes, ",\"%s\":\"%016llx\"", INPUTS[i], (unsigned long long)run->inputs[i]);
    st_write(path, notes.s, out, n);
    buf_free(&notes);
    free(out);
    free(name);
}

static const char *trainer_note(const SafeTensors *st, const char *key)
{
    const char *text = st_note(st, key);
    if (!text)
        die("%s: __metadata__ has no %s", st->path, key);
    return text;
}

static uint64_t trainer_hash(const SafeTensors *st, const char *key)
{
    return strtoull(trainer_note(st, key), NULL, 16);
}

/* Loads the state of the checkpoint to resume from: AdamW's, and the weights that the saved model
 * rounds. A new run is unchanged. Needs memory for the moments. */
static void run_load(Run *run)
{
    Model *m = &run->s->model;
    float *const flat[3] = {m->params, m->m, m->v};
    for (int i = 0; i < N_INPUTS; i++)
        run->inputs[i] = input_hash(run, INPUTS[i]);
    if (run->saved < 0) {
        run->start = weights_hash(m);
        return;
    }
    SafeTensors st = st_open_file(path_join(run->from.s, "trainer.safetensors").s);
    run->adam.step = strtoll(trainer_note(&st, "updates"), NULL, 10);
    run->start = trainer_hash(&st, "start");
    for (int i = 0; i < N_INPUTS; i++)
        if (run->inputs[i] != trainer_hash(&st, INPUTS[i])) {
            warn("--%s: the file's content is another", INPUTS[i]);
            run->different++;
        }
    const char *totals = trainer_note(&st, "totals");
    for (int i = 0; i < RUN_TOTALS; i++)
        run->totals[i] = strtod(totals, (char **)&totals);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < m->n_tensors; i++) {
            const Tensor *t = &m->tensors[i];
            char name[96];
            int64_t shape[2] = {t->rows, t->cols};
            snprintf(name, sizeof name, "%c.%s", "wmv"[k], t->name);
            if (k ? in_trainer(t, "wmv"[k], run->adam.step) : st_find(&st, name) != NULL)
                load_tensor(st_need(&st, name, t->cols ? 2 : 1, shape), at(m, flat[k], i), false);
        }
    if (weights_hash(m) != trainer_hash(&st, "weights_hash"))
        die("%s: is not of these weights: their weights_hash is %016llx; remove %s to go on from "
            "the checkpoint before it", st.path, (unsigned long long)weights_hash(m), run->from.s);
    st_close(&st);
}

/* ---------------------------------------------------------------- checkpoints */

/* Is a file of a checkpoint whole, with notes of this step (-1: any)? Else `why` has the reason. */
static bool is_whole(const char *dir, const char *name, int step, Buf *why)
{
    SafeTensors st = {0};
    Buf error = {0};
    if (st_try(&st, path_join(dir, name).s, &error) && step >= 0) {
        const char *note = st_note(&st, "step");
        if (!note || atoi(note) != step)
            buf_printf(&error, "is of step %s", note ? note : "unknown");
    }
    bool whole = !error.n;
    why->n = 0;
    if (!whole)
        buf_printf(why, "%s: %s", name, error.s);
    st_close(&st);
    buf_free(&error);
    return whole;
}

/* The newest checkpoint of a directory at or before step `most`; -1: none. */
static int newest_name(const char *out, int most)
{
    int newest = -1;
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        int step = checkpoint_step(entry->d_name);
        newest = step <= most ? imax(newest, step) : newest;
    }
    if (dir)
        closedir(dir);
    return newest;
}

static Path checkpoint_path(const char *out, const char *prefix, int step)
{
    return path_printf("%s/%scheckpoint-%d", out, prefix, step);
}

/* Sets a run to its newest complete checkpoint up to step `most`; warns of incomplete ones. */
static bool run_at(Run *run, int most)
{
    const char *out = run->s->o.out;
    Buf why = {0};
    for (int step; run->saved < 0 && (step = newest_name(out, most)) >= 0; most = step - 1) {
        Path dir = checkpoint_path(out, "", step);
        why.n = 0;
        if (!is_file(path_join(dir.s, "config.json").s)) {
            buf_str(&why, "config.json: is not there");
        } else if (is_whole(dir.s, "model.safetensors", -1, &why) &&
                   is_whole(dir.s, "trainer.safetensors", step, &why)) {
            run->from = dir;
            run->step = run->saved = step;
            break;
        }
        warn("%s: passed over, is not complete: %s", dir.s, why.s);
    }
    buf_free(&why);
    return run->saved >= 0;
}

/* Deletes a checkpoint, renamed first: under its own name it is always whole. */
static void checkpoint_remove(const char *out, int step)
{
    Path path = checkpoint_path(out, "", step), old = checkpoint_path(out, "old-", step);
    remove_dir(old.s);
    if (rename(path.s, old.s))
        die("%s: cannot be removed: %s", path.s, strerror(errno));
    remove_dir(old.s);
}

/* Removes the partial checkpoints of a killed run. */
static void remove_leftovers(const char *out)
{
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "tmp-checkpoint-", 15) ||
            !strncmp(entry->d_name, "old-checkpoint-", 15))
            remove_dir(path_join(out, entry->d_name).s);
        else if (!strncmp(entry->d_name, "run.json.tmp-", 13))
            unlink(path_join(out, entry->d_name).s);
    if (dir)
        closedir(dir);
}

/* Syncs the lines of a file. */
static void run_sync(FILE *f, const char *out, const char *name)
{
    if (f && (fflush(f) || (fsync(fileno(f)) && errno != EINVAL)))
        die("%s/%s: cannot be written: %s", out, name, strerror(errno));
}

/* ---------------------------------------------------------------- the model card */

/* An item of the card's list: its text in quotes. */
static void card_text(Buf *b, const char *name, const char *text)
{
    buf_printf(b, "- %s: ", name);
    json_put_string(b, text, strlen(text));
}

/* README.md of a checkpoint, what Hugging Face shows of a model: made from what, how, and which
 * weights, of which so many are rounded in the files. */
static void card_save(const Run *run, size_t rounded, const char *path)
{
    const Options *o = &run->s->o;
    bool sft = run->command == SFT;
    Buf b = {0};
    buf_printf(&b, "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
               "# A model trained with g2rl %s\n\n", VERSION);
    card_text(&b, "base", o->model ? o->model : o->preset);
    buf_printf(&b, "%s, weights_hash %016llx\n", o->model ? "" : " (preset, random weights)",
               (unsigned long long)run->start);
    buf_printf(&b, "- method: %s\n- steps: %d of %d\n", sft ? "sft, supervised next-token training"
               : METHODS[o->rl.method], run->step, o->steps);
    card_text(&b, o->data ? "data" : "task", o->data ? o->data : o->task);
    if (o->data)
        buf_printf(&b, ", hash of its content %016llx", (unsigned long long)run->inputs[0]);
    buf_str(&b, "\n");
    if (!sft && o->reward_cmd) {
        card_text(&b, "rewards", o->reward_cmd);
        buf_str(&b, "\n");
    }
    buf_printf(&b, "- weights_hash: %016llx%s\n\nEvery option is in `run.json` of the run.\n",
               (unsigned long long)weights_hash(&run->s->model),
               rounded ? ", before weights were rounded to BF16 or F16" : "");
    write_file(path, b.s, b.n);
    buf_free(&b);
}

/* Writes a checkpoint into an empty directory; returns how many weights are rounded. */
static size_t checkpoint_write(const Run *run, const char *dir)
{
    const Session *s = run->s;
    size_t rounded = model_save(&s->model, dir);
    for (int i = 0; i < s->n_carried; i++)
        write_file(path_join(dir, s->carried[i].name).s, s->carried[i].text, s->carried[i].n);
    if (!s->tokenizer_path.s[0])
        tokenizer_write(path_join(dir, "tokenizer.json").s, TASK_ALPHABET);
    trainer_save(run, path_join(dir, "trainer.safetensors").s);
    /* The card replaces that of the model that training began with. */
    card_save(run, rounded, path_join(dir, "README.md").s);
    sync_dir(dir);
    return rounded;
}

/* Saves checkpoint-<step>, then deletes those beyond the newest --keep. */
static void run_save(Run *run)
{
    const Session *s = run->s;
    const Model *m = &s->model;
    const char *out = s->o.out, *bad = first_not_finite(m, m->params);
    Path path = checkpoint_path(out, "", run->step);
    Path temporary = checkpoint_path(out, "tmp-", run->step);
    for (int k = 0; k < 2 && run->adam.step && !bad; k++)
        bad = first_not_finite(m, k ? m->v : m->m);
    if (bad)
        die("step %d: %s or its moments are not finite; nothing is saved", run->step, bad);
    run_sync(run->metrics, out, "metrics.jsonl");
    run_sync(run->ledger, out, "rollouts.jsonl");
    run_sync(run->evals, out, "eval.jsonl");
    remove_dir(temporary.s);
    if (mkdir(temporary.s, 0777))
        die("%s: cannot be made: %s", temporary.s, strerror(errno));
    size_t rounded = checkpoint_write(run, temporary.s);
    if (rename(temporary.s, path.s))
        die("%s: cannot be written: %s", path.s, strerror(errno));
    sync_dir(out);
    run->saved = run->step;
    if (rounded)
        warn("%s: %zu of %zu weights are rounded to BF16 or F16; --dtype f32 keeps every bit",
             path.s, rounded, m->n_params);
    int kept = 1, older = run->step;
    while (s->o.keep && (older = newest_name(out, older - 1)) >= 0)
        if (++kept > s->o.keep)
            checkpoint_remove(out, older);
}

/* ---------------------------------------------------------------- a run's files */

/* Truncates a file at the first line of a later step, or the first one that is not whole. Returns
 * the last line's step, or 0. */
static int cut_lines(const char *path, int step)
{
    FILE *f = fopen(path, "rb");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    off_t end = 0;
    int last = 0, at;
    while (f && (n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n' &&
           sscanf(line, "{\"step\": %d", &at) == 1 && at <= step) {
        end += n;
        last = at;
    }
    if (f && truncate(path, end))
        die("%s: cannot be cut back to step %d: %s", path, step, strerror(errno));
    if (f)
        fclose(f);
    free(line);
    return last;
}

/* Truncates a file of a resumed run to its step. `each`: it has a line for each step. */
static void run_cut(const Run *run, const char *name, bool each)
{
    Path p = path_join(run->s->o.out, name);
    int last = cut_lines(p.s, run->step);
    if (each && last < run->step && !run->s->o.force)
        die("%s: ends with step %d, and the checkpoint is of step %d; --force goes on all the same",
            p.s, last, run->step);
}

/* Opens a file of the run to append to it; a new run's is empty. */
static FILE *run_file(const Run *run, const char *name, bool wanted)
{
    Path p = path_join(run->s->o.out, name);
    bool fresh = run->saved < 0;
    if (fresh && !wanted)
        unlink(p.s); /* an older run's */
    FILE *f = wanted ? fopen(p.s, fresh ? "wb" : "ab") : NULL;
    if (wanted && !f)
        die("%s: cannot be written: %s", p.s, strerror(errno));
    return f;
}

/* Ends a line and writes it, if there is a file. */
static void run_line(FILE *f, Buf *b, const char *out, const char *name)
{
    struct stat info;
    buf_str(b, "}\n");
    if (f && (fwrite(b->s, 1, b->n, f) != b->n || fflush(f)))
        die("%s/%s: cannot be written: %s", out, name, strerror(errno));
    if (f && !fstat(fileno(f), &info) && !info.st_nlink)
        die("%s/%s: was removed while the run wrote it", out, name);
    b->n = 0;
}

/* ---------------------------------------------------------------- signals */

static const int INTERRUPTS[2] = {SIGINT, SIGTERM};

/* The first SIGINT or SIGTERM ends the run after its step: it restores the default handlers, which
 * interrupted() sees. A second one ends the program. */
static void interrupt(int number)
{
    struct sigaction now;
    (void)number;
    for (int i = 0; i < 2; i++)
        if (!sigaction(INTERRUPTS[i], NULL, &now) && now.sa_handler == interrupt) {
            now.sa_handler = SIG_DFL;
            sigaction(INTERRUPTS[i], &now, NULL);
        }
}

static bool interrupt_is_default(int i)
{
    struct sigaction now;
    return !sigaction(INTERRUPTS[i], NULL, &now) && now.sa_handler == SIG_DFL;
}

/* Signals that are ignored (nohup, a job in the background) stay so. */
static void interrupts_catch(void)
{
    struct sigaction ours = {.sa_handler = interrupt, .sa_flags = SA_RESTART};
    for (int i = 0; i < 2; i++)
        if (interrupt_is_default(i))
            sigaction(INTERRUPTS[i], &ours, NULL);
}

static bool interrupted(void) { return interrupt_is_default(0) || interrupt_is_default(1); }

/* ---------------------------------------------------------------- a run, from begin to end */

static AdamW optimizer(const Options *o)
{
    return (AdamW){o->beta1, o->beta2, o->adam_eps, o->weight_decay, o->clip_norm, 0};
}

/* A run before its first step. */
static Run run_new(Session *s, int command)
{
    Run run = {.s = s, .command = command, .saved = -1, .adam = optimizer(&s->o)};
    if (s->o.model)
        run.from = model_dir(s->o.model);
    return run;
}

/* The run of --out: a new one, or, with --resume, at its newest complete checkpoint. */
static Run run_find(Session *s, int command)
{
    const Options *o = &s->o;
    Run run = run_new(s, command);
    if (!o->out || !*o->out)
        usage("--out is missing%s", o->model || o->preset ? "" : ", and --model");
    if (!o->resume && !o->force && is_file(path_join(o->out, "run.json").s))
        die("%s: holds a run already; choose another --out, --resume to go on with it, or --force "
            "to replace it", o->out);
    if (o->resume && !run_at(&run, INT_MAX))
        die("%s: has no complete checkpoint to go on from; begin again, with --force", o->out);
    if (o->resume && command == TRAIN && !o->model)
        die("%s/run.json: has no model", o->out);
    if (o->resume && run.step > o->steps)
        die("%s: has done %d steps; expected --steps %d or more", o->out, run.step, run.step);
    return run;
}

/* Makes the directory of a run, or truncates it to the checkpoint to resume from, which has been
 * read. */
static void run_begin(Run *run)
{
    const Session *s = run->s;
    const char *out = s->o.out;
    Buf b = {0};
    bool ledger = run->command == TRAIN;
    run->different += s->o.resume ? run_differences(s, run->command) : 0;
    if (run->different && !s->o.force)
        die("%s: the run was another (see above); expected the same, or --force", out);
    make_dirs(out);
    run->lock = open(out, O_RDONLY | O_CLOEXEC);
    if (flock(run->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        die("%s: another process is writing this run", out);
    if (run->saved >= 0) {
        run_cut(run, "metrics.jsonl", true);
        run_cut(run, "rollouts.jsonl", ledger);
        run_cut(run, "eval.jsonl", false);
    }
    remove_leftovers(out);
    for (int step; (step = newest_name(out, INT_MAX)) > run->saved;)
        checkpoint_remove(out, step);
    run->metrics = run_file(run, "metrics.jsonl", true);
    run->ledger = run_file(run, "rollouts.jsonl", ledger);
    run->evals = run_file(run, "eval.jsonl", s->o.eval_every);
    buf_printf(&b, "{\n  \"version\": \"%s\",\n  \"simd\": \"%s\",", VERSION, SIMD_NAME);
    buf_printf(&b, "\n  \"command\": \"%s\",", COMMANDS[run->command].name);
    options_json(OPTIONS, N_OPTIONS, run->command, &s->o, &b);
    buf_str(&b, "\n}\n");
    interrupts_catch();
    write_file(path_join(out, "run.json").s, b.s, b.n);
    buf_free(&b);
    if (run->saved >= 0)
        fprintf(stderr, "going on from %s\n", run->from.s);
}

static bool run_goes_on(const Run *run) { return run->step < run->s->o.steps && !interrupted(); }

/* Saves a checkpoint after a step, if it is time for one. */
static void run_step_done(Run *run)
{
    const Options *o = &run->s->o;
    if (o->save_every && run->step % o->save_every == 0 && run->step < o->steps)
        run_save(run);
}

/* Saves the run, done or interrupted. */
static void run_finish(Run *run)
{
    const Options *o = &run->s->o;
    FILE *files[3] = {run->metrics, run->ledger, run->evals};
    if (run->saved != run->step)
        run_save(run);
    for (int i = 0; i < 3; i++)
        if (files[i])
            fclose(files[i]);
    close(run->lock);
    if (!interrupted())
        return;
    run->s->status = 130;
    warn("stopped after step %d of %d, which is saved; to go on: g2rl %s --resume --out %s",
         run->step, o->steps, COMMANDS[run->command].name, o->out);
}

#endif
