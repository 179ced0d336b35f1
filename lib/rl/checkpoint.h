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
 *   run_goes_on, run_step_done, run_evaluates, run_finish
 *   run_rescue           an error ends the run: its last whole step is saved
 *
 * Random numbers and data are functions of options and step, so that the state of a run is the
 * step, the weights and AdamW's moments. A resumed run reads these, and ends with the same bits as
 * one that was never stopped.
 *
 * A checkpoint is complete when it has its name: it is written as tmp-checkpoint-<step>, synced
 * with the lines up to its step (fsync), then renamed. Older ones are deleted after that. So a run
 * may be killed at any moment. A checkpoint comes before the evaluation of its step; where the
 * lines of that are not there, the resumed run begins with it. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "session.h" /* defines: Session, OPTIONS; model.c: Model, AdamW, model_save */
#include "../base/interrupt.h" /* defines: interrupted, interrupts_catch */

#include <sys/file.h>

/* Options that name an input file of the run. */
static const char *const INPUTS[] = {"data", "valid", "eval-data", "template"};
enum { N_INPUTS = sizeof INPUTS / sizeof *INPUTS };

enum { RUN_TOTALS = 16, SAVE_SECONDS = 600 };

/* A training run: what lasts from step to step. */
typedef struct {
    Session *s;
    int command;
    Path from;                 /* the directory of its weights */
    int step, saved;           /* steps done; the newest checkpoint's step, -1: none */
    int passing;               /* step of a checkpoint that the next one replaces, -1: none */
    int evaluated;             /* step of the latest whole evaluation, -1: none */
    int eval_rows;             /* lines of an evaluation */
    bool updating;             /* between two updates of a step: the weights are those of none */
    double since;              /* when the newest checkpoint was made */
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

/* ---------------------------------------------------------------- trainer.safetensors */

/* Is this tensor in trainer.safetensors? w: weights that model.safetensors rounds; m and v: AdamW's
 * moments, which are all 0 before the first update. */
static bool in_trainer(const Tensor *t, char kind, int64_t updates)
{
    return t->size && (kind == 'w' ? t->dtype != ST_F32 : updates > 0);
}

/* Where the options of a command have this text; NULL: the command has no such option. */
static const char **option_text(Options *options, int command, const char *name)
{
    const Option *o = option_named(OPTIONS, N_OPTIONS, command, name);
    return o && o->kind == OPT_TEXT ? (const char **)(void *)((char *)options + o->offset) : NULL;
}

/* The hash of an input file; 0 where the run has none. */
static uint64_t input_hash(const Run *run, const char *name)
{
    const char **option = option_text(&run->s->o, run->command, name);
    const char *path = option ? *option : NULL;
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
    const Model *m = trained(&run->s->model);
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
               (unsigned long long)weights_hash(&run->s->model), (unsigned long long)run->start);
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

/* A and B of the checkpoint to resume from, for a model that is what it was at step 0. */
static void run_load_adapter(Run *run, Model *m)
{
    SafeTensors st = st_open_file(path_join(run->from.s, "adapter_model.safetensors").s);
    if (weights_hash(m) != run->start)
        die("%s: the run began with another model or adapter: weights_hash was %016llx, and is "
            "%016llx", run->from.s, (unsigned long long)run->start,
            (unsigned long long)weights_hash(m));
    lora_read_weights(m->lora, &st);
    lora_merge(m, m->lora->ab.params, run->s->engine.threads);
    st_close(&st);
}

/* The options of a run as run.json has them: paths from the root, which name the same files
 * wherever the run is gone on with, and of --model the checkpoint itself. */
static Options options_resolved(Session *s, int command)
{
    static const char *const paths[] = {"model", "adapter", "data", "valid", "eval-data",
                                        "template", "tokenizer", "out"};
    Options o = s->o;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char **path = option_text(&o, command, paths[i]);
        if (!path || !*path)
            continue;
        if (!strcmp(paths[i], "template") && among(*path, TEMPLATES)) /* which are no files */
            continue;
        Path dir = i < 2 ? model_dir(*path) : path_printf("%s", *path);
        char *resolved = realpath(dir.s, NULL);
        if (!resolved)
            continue;
        APPEND(s->words.file, s->words.n_files, resolved);
        *path = resolved;
    }
    return o;
}

/* Does the run read a file by this option? */
static bool is_input(const Run *run, const char *option)
{
    int i = 0;
    while (i < N_INPUTS && strcmp(INPUTS[i], option))
        i++;
    return i < N_INPUTS && run->inputs[i];
}

/* Is --model, however it is written, the model that the run began with? */
static bool same_model(const Run *run)
{
    const char *was = run->s->was.o.model, *is = run->s->o.model;
    if (!was || !is || !strcmp(was, is))
        return was && is;
    Model m = model_load(is);
    bool same = weights_hash(&m) == run->start;
    model_free(&m);
    return same;
}

/* Lists the options that have changed and may change the results; returns how many. Of files the
 * content counts, which run_load has compared. */
static int run_differences(const Run *run)
{
    static const char ignored[] = "out|threads|micro-batch|recompute|save-every|eval-every|keep|"
                                  "reward-timeout|force|no-check|resume";
    const Session *s = run->s;
    bool constant = s->o.schedule == CONSTANT;
    Buf was = {0}, is = {0};
    int n = strcmp(s->was.version, VERSION) != 0;
    if (n)
        warn("version: was %s, is %s", s->was.version, VERSION);
    for (const Option *o = OPTIONS; o < OPTIONS + N_OPTIONS; o++) {
        if (!option_known(o, run->command) || among(o->name, ignored))
            continue;
        bool steps = !strcmp(o->name, "steps"), model = !strcmp(o->name, "model");
        if (s->model.lora && among(o->name, "model|adapter"))
            continue; /* compared in run_load_adapter */
        if ((steps && constant) || (model && same_model(run)) || is_input(run, o->name))
            continue;
        was.n = is.n = 0;
        option_get(o, &s->was.o, &was);
        option_get(o, &s->o, &is);
        if (strcmp(was.s, is.s)) {
            warn("--%s: was %s, is %s%s", o->name, was.s, is.s,
                 steps ? "; --schedule spreads the learning rate over them" : "");
            n++;
        }
    }
    buf_free(&was, &is);
    return n;
}

/* Loads the state of the checkpoint to resume from: AdamW's, and the weights that the saved model
 * rounds. A new run is unchanged. Needs memory for the moments. */
static void run_load(Run *run)
{
    Model *model = &run->s->model, *m = trained(model);
    float *const flat[3] = {m->params, m->m, m->v};
    for (int i = 0; i < N_INPUTS; i++)
        run->inputs[i] = input_hash(run, INPUTS[i]);
    if (run->saved < 0) {
        run->start = weights_hash(model);
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
    if (model->lora)
        run_load_adapter(run, model);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < m->n_tensors; i++) {
            const Tensor *t = &m->tensors[i];
            char name[96];
            int64_t shape[2] = {t->rows, t->cols};
            snprintf(name, sizeof name, "%c.%s", "wmv"[k], t->name);
            if (k ? in_trainer(t, "wmv"[k], run->adam.step) : st_find(&st, name) != NULL)
                load_tensor(st_need(&st, name, t->cols ? 2 : 1, shape), at(m, flat[k], i), false);
        }
    if (weights_hash(model) != trainer_hash(&st, "weights_hash"))
        die("%s: is not of these weights: their weights_hash is %016llx; remove %s to go on from "
            "the checkpoint before it", st.path, (unsigned long long)weights_hash(model),
            run->from.s);
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
        bool adapter = is_adapter(dir.s);
        why.n = 0;
        if (!adapter && !is_file(path_join(dir.s, "config.json").s)) {
            buf_str(&why, "config.json: is not there");
        } else if (is_whole(dir.s, adapter ? "adapter_model.safetensors" : "model.safetensors", -1,
                            &why) &&
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

/* Deletes what is left of a checkpoint. A folder that others have put there stays, and is named. */
static void remove_left(const char *path)
{
    if (!remove_dir(path))
        warn("%s: cannot be removed: %s; it may hold what the run has not put there", path,
             strerror(errno));
}

/* Deletes a checkpoint, renamed first: under its own name it is always whole. False, with a
 * warning, where it stays. */
static bool checkpoint_remove(const char *out, int step)
{
    Path path = checkpoint_path(out, "", step), old = checkpoint_path(out, "old-", step);
    for (int i = 1; !remove_dir(old.s); i++) /* an earlier one that holds more than files */
        old = path_printf("%s/old-checkpoint-%d.%d", out, step, i);
    if (rename(path.s, old.s) && errno != ENOENT) {
        warn("%s: cannot be removed: %s", path.s, strerror(errno));
        return false;
    }
    remove_left(old.s);
    return true;
}

/* Removes the partial checkpoints of a killed run. */
static void remove_leftovers(const char *out)
{
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "tmp-checkpoint-", 15) ||
            !strncmp(entry->d_name, "old-checkpoint-", 15))
            remove_left(path_join(out, entry->d_name).s);
        else if (!strncmp(entry->d_name, "run.json.tmp-", 13))
            unlink(path_join(out, entry->d_name).s);
    if (dir)
        closedir(dir);
}

/* Syncs the lines of a file, if they could be written. */
static void run_sync(FILE *f, const char *out, const char *name)
{
    if (f && !ferror(f) && (fflush(f) || (fsync(fileno(f)) && errno != EINVAL)))
        die("%s/%s: cannot be written: %s", out, name, strerror(errno));
}

/* ---------------------------------------------------------------- the model card */

/* An item of the card's list: its text in quotes. */
static void card_text(Buf *b, const char *name, const char *text)
{
    buf_printf(b, "- %s: ", name);
    json_put_string(b, text, strlen(text));
}

/* The same of a file: by its path from the root, so that a card does not depend on where the run
 * was gone on with. */
static void card_path(Buf *b, const char *name, const char *path)
{
    char *resolved = realpath(path, NULL);
    card_text(b, name, resolved ? resolved : path);
    free(resolved);
}

/* README.md of a checkpoint, what Hugging Face shows of a model: made from what, how, and which
 * weights, of which so many are rounded in the files. */
static void card_save(const Run *run, size_t rounded, const char *path)
{
    const Options *o = &run->s->o;
    bool sft = run->command == SFT;
    Buf b = {0};
    buf_printf(&b, "---\nlibrary_name: %s\npipeline_tag: text-generation\n---\n\n"
               "# %s trained with g2rl %s\n\n",
               run->s->model.lora ? "peft" : "transformers",
               run->s->model.lora ? "An adapter" : "A model", VERSION);
    if (o->model)
        card_path(&b, "base", model_dir(o->model).s);
    else
        card_text(&b, "base", o->preset);
    buf_printf(&b, "%s, weights_hash %016llx\n", o->model ? "" : " (preset, random weights)",
               (unsigned long long)run->start);
    buf_printf(&b, "- method: %s\n- steps: %d of %d\n", sft ? "sft, supervised next-token training"
               : METHODS[o->rl.method], run->step, o->steps);
    if (o->data) {
        card_path(&b, "data", o->data);
        buf_printf(&b, ", hash of its content %016llx", (unsigned long long)run->inputs[0]);
    } else
        card_text(&b, "task", o->task);
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
    const Lora *lora = s->model.lora;
    size_t rounded = 0;
    if (lora)
        lora_save(lora, dir);
    else
        rounded = model_save(&s->model, dir);
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

/* Saves checkpoint-<step>, then deletes the passing one, and those beyond the newest --keep. */
static void run_save(Run *run)
{
    const Session *s = run->s;
    void (*rescue)(void) = at_error;
    at_error = NULL; /* what cannot be saved now cannot be rescued */
    const Model *m = trained(&s->model);
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
    if (mkdir(temporary.s, 0777) && errno != EEXIST)
        die("%s: cannot be made: %s", temporary.s, strerror(errno));
    size_t rounded = checkpoint_write(run, temporary.s);
    if (rename(temporary.s, path.s))
        die("%s: cannot be written: %s", path.s, strerror(errno));
    sync_dir(out);
    run->saved = run->step;
    run->since = now_seconds();
    at_error = rescue;
    if (rounded)
        warn("%s: %zu of %zu weights are rounded to BF16 or F16; --dtype f32 keeps every bit",
             path.s, rounded, m->n_params);
    if (run->passing >= 0)
        checkpoint_remove(out, run->passing);
    run->passing = -1;
    int kept = 1, older = run->step;
    while (s->o.keep && (older = newest_name(out, older - 1)) >= 0)
        if (++kept > s->o.keep)
            checkpoint_remove(out, older);
}

/* ---------------------------------------------------------------- a run's files */

/* Truncates a file at the first line of a later step, or the first one that is not whole. Returns
 * the last line's step, or 0; *rows: how many lines this step has. */
static int cut_lines(const char *path, int step, int *rows)
{
    FILE *f = fopen(path, "rb");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    off_t end = 0;
    int last = 0, at;
    *rows = 0;
    while (f && (n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n' &&
           sscanf(line, "{\"step\": %d", &at) == 1 && at <= step) {
        end += n;
        *rows = at == last ? *rows + 1 : 1;
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
    int rows, last = cut_lines(p.s, run->step, &rows);
    if (each && last < run->step && !run->s->o.force)
        die("%s: ends with step %d, and the checkpoint is of step %d; --force goes on all the same",
            p.s, last, run->step);
}

/* The same for eval.jsonl. An evaluation of which lines are missing goes, to be made again. */
static void run_cut_evals(Run *run)
{
    Path p = path_join(run->s->o.out, "eval.jsonl");
    int rows, last = cut_lines(p.s, run->step, &rows);
    if (rows && last == run->step && rows < run->eval_rows)
        last = cut_lines(p.s, run->step - 1, &rows);
    run->evaluated = rows ? last : -1;
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

/* ---------------------------------------------------------------- a run, from begin to end */

static AdamW optimizer(const Options *o)
{
    return (AdamW){o->beta1, o->beta2, o->adam_eps, o->weight_decay, o->clip_norm, 0};
}

/* A run before its first step. */
static Run run_new(Session *s, int command)
{
    Run run = {.s = s, .command = command, .saved = -1, .passing = -1, .evaluated = -1,
               .eval_rows = 1, .adam = optimizer(&s->o)};
    if (s->o.model)
        run.from = model_dir(s->o.model);
    return run;
}

/* Does a directory hold work that a new run would destroy: a checkpoint, or a step's line? */
static bool holds_run(const char *out)
{
    struct stat info;
    return newest_name(out, INT_MAX) >= 0 ||
           (is_file(path_join(out, "run.json").s) &&
            !stat(path_join(out, "metrics.jsonl").s, &info) && info.st_size > 0);
}

/* Dies where a new run would put itself in the place of the model that it begins with. */
static void demand_apart(const Options *o)
{
    Path dir = model_dir(o->model);
    char *model = realpath(dir.s, NULL), *out = realpath(o->out, NULL);
    size_t n = out ? strlen(out) : 0;
    if (model && out && !strncmp(model, out, n) && (model[n] == '/' || !model[n]))
        die("--out %s: holds the model to begin with, %s; choose another --out", o->out, dir.s);
    free(model);
    free(out);
}

/* The run of --out: a new one, or, with --resume, at its newest complete checkpoint. */
static Run run_find(Session *s, int command)
{
    const Options *o = &s->o;
    Run run = run_new(s, command);
    if (!o->out || !*o->out)
        usage("--out is missing%s", o->model || o->preset ? "" : ", and --model");
    if (!o->resume && o->model)
        demand_apart(o);
    if (!o->resume && !o->force && holds_run(o->out))
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

/* Says what is saved, and how to go on. */
static void run_stopped(const Run *run)
{
    const Options *o = &run->s->o;
    if (run->saved < 0)
        warn("stopped; nothing is saved");
    else
        warn("stopped after step %d of %d, which is saved; to go on: g2rl %s --resume --out %s",
             run->saved, o->steps, COMMANDS[run->command].name, o->out);
}

/* Saves what there is, if it is not saved; of a run without a whole step, removes all files, so
 * that nothing is in the way of the next command. */
static void run_keep(Run *run)
{
    static const char *const names[] = {"run.json", "metrics.jsonl", "rollouts.jsonl",
                                        "eval.jsonl"};
    const char *out = run->s->o.out;
    if (run->step > 0 || run->saved >= 0 || run->s->o.steps == 0) {
        if (run->saved != run->step && !run->updating)
            run_save(run);
        return;
    }
    for (int i = 0; i < 4; i++)
        unlink(path_join(out, names[i]).s);
    rmdir(out); /* where it holds nothing else */
}

static Run *to_rescue; /* the run that an error would end */

/* To be called before an error ends the program. Between two updates of a step it saves nothing. */
static void run_rescue(void)
{
    run_keep(to_rescue);
    if (to_rescue->saved >= 0)
        run_stopped(to_rescue);
}

/* Makes the directory of a run, or truncates it to the checkpoint to resume from, which has been
 * read. */
static void run_begin(Run *run)
{
    Session *s = run->s;
    const char *out = s->o.out;
    Buf b = {0};
    bool ledger = run->command == TRAIN;
    run->different += s->o.resume ? run_differences(run) : 0;
    if (run->different && !s->o.force)
        die("%s: the run was another (see above); expected the same, or --force", out);
    make_dirs(out);
    run->lock = open(out, O_RDONLY | O_CLOEXEC);
    if (flock(run->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        die("%s: another process is writing this run", out);
    if (run->saved >= 0) {
        run_cut(run, "metrics.jsonl", true);
        run_cut(run, "rollouts.jsonl", ledger);
        run_cut_evals(run);
    }
    remove_leftovers(out);
    for (int step; (step = newest_name(out, INT_MAX)) > run->saved;)
        if (!checkpoint_remove(out, step))
            die("%s: its checkpoints cannot be replaced; choose another --out", out);
    run->metrics = run_file(run, "metrics.jsonl", true);
    run->ledger = run_file(run, "rollouts.jsonl", ledger);
    run->evals = run_file(run, "eval.jsonl", s->o.eval_every);
    buf_printf(&b, "{\n  \"version\": \"%s\",\n  \"simd\": \"%s\",", VERSION, SIMD_NAME);
    buf_printf(&b, "\n  \"command\": \"%s\",", COMMANDS[run->command].name);
    Options resolved = options_resolved(s, run->command);
    options_json(OPTIONS, N_OPTIONS, run->command, &resolved, &b);
    buf_str(&b, "\n}\n");
    interrupts_catch();
    to_rescue = run;
    at_error = run_rescue;
    run->since = now_seconds();
    write_file(path_join(out, "run.json").s, b.s, b.n);
    buf_free(&b);
    if (run->saved >= 0 && run->step < s->o.steps)
        fprintf(stderr, "going on from %s\n", run->from.s);
    else if (run->saved >= 0)
        fprintf(stderr, "%s: all %d steps are done; to go on, give a larger --steps\n", out,
                s->o.steps);
}

static bool run_goes_on(const Run *run) { return run->step < run->s->o.steps && !interrupted(); }

/* Is the evaluation of this step to be made? Training evaluates the model that it begins with. */
static bool run_evaluates(const Run *run)
{
    int every = run->s->o.eval_every, first = run->command == TRAIN ? 0 : 1;
    return every && run->step % every == 0 && run->step >= first &&
           run->evaluated != run->step && !interrupted();
}

/* Saves a checkpoint after a step, if it is time for one: by --save-every or, without it, before an
 * evaluation and every ten minutes; such a one is replaced by the next. */
static void run_step_done(Run *run)
{
    const Options *o = &run->s->o;
    bool due = o->save_every && run->step % o->save_every == 0;
    bool pass = !o->save_every &&
                (run_evaluates(run) || now_seconds() - run->since > SAVE_SECONDS);
    if (due || pass || run->step == o->steps)
        run_save(run);
    if (pass && run->step < o->steps)
        run->passing = run->step;
}

/* Saves the run, done or interrupted. */
static void run_finish(Run *run)
{
    FILE *files[3] = {run->metrics, run->ledger, run->evals};
    run_keep(run);
    at_error = NULL;
    for (int i = 0; i < 3; i++)
        if (files[i])
            fclose(files[i]);
    close(run->lock);
    if (interrupted()) {
        run->s->status = 130;
        run_stopped(run);
    }
}

#endif
