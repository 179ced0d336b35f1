/* runs.h: what the run directories of `train` hold, as one struct, and statistics over seeds.
 *
 *   runs_read        run.json, metrics.jsonl and eval.jsonl of every directory
 *   estimate         a quantity of one arm (a method), with its 95 % interval
 *   difference       of two arms, seed by seed or problem by problem
 *
 * Runs whose directories have the same last name are seeds of one arm. All must have been evaluated
 * alike: as many problems and samples. A file that is not what it should be ends the program with
 * its name, line and field. */
#ifndef RUNS_H
#define RUNS_H

#include "../base/json.h"  /* defines: Json, jsonl_next */
#include "../base/stats.h" /* defines: Estimate, bootstrap, paired, mean_interval, pass_at_k */

/* ---------------------------------------------------------------- what is read */

/* Measures of every step, in metrics.jsonl, and their names on the page. */
typedef struct {
    const char *key, *title;
    double scale;
} Metric;

static const Metric CURVES[] = {
    {"reward", "reward in training", 1},
    {"frac_dead", "groups whose rewards are all equal, %", 100},
    {"frac_all_right", "groups whose responses are all right, %", 100},
    {"frac_all_wrong", "groups whose responses are all wrong, %", 100},
    {"completions/mean_length", "response length, tokens", 1},
    {"entropy", "entropy of the policy, nats", 1},
    {"kl_exact", "KL to the base model, nats a token", 1},
    {"phi/cos_mean", "mean cosine of gradient features", 1},
    {"phi/neg_ratio", "pairs with a negative cosine, %", 100},
    {"adv/novelty_share", "novelty\xE2\x80\x99s share of \xCE\xA3 A\xC2\xB2, %", 100},
    {"grad_norm", "norm of the gradient, before clipping", 1},
};
enum { N_CURVES = sizeof CURVES / sizeof *CURVES };

/* What eval.jsonl says beside its quantities, of the responses themselves; shares in percent. */
static const Metric ASIDES[] = {
    {"phi/cos_mean", "cosine", 1},
    {"phi/neg_ratio", "negative", 100},
    {"entropy", "entropy", 1},
    {"completions/mean_length", "length", 1},
    {"frac_copies", "copies", 100},
    {"frac_two_right", "two right", 100},
    {"frac_all_right", "all right", 100},
    {"frac_all_wrong", "all wrong", 100},
};
enum { N_ASIDES = sizeof ASIDES / sizeof *ASIDES, MEAN_LENGTH = 3 };

/* Quantities of an evaluation: q < MAX_PASS is pass@2^q, then maj@k, then distinct_right@k: how
 * many different right answers to expect among k samples of a problem, a count where the others
 * are shares. */
enum { MAX_PASS = 13, MAJ = MAX_PASS, DISTINCT_RIGHT, N_QUANTITIES };

enum { MOST_PROBLEMS = 10000000 }; /* of an evaluation: memory is taken for each */

/* A row of eval.jsonl. What it lacks is NaN, or NULL. */
typedef struct {
    int step, problems, samples, maj_k, distinct_k, distinct_problems; /* 0: not said */
    double value[N_QUANTITIES], low[N_QUANTITIES], high[N_QUANTITIES], aside[N_ASIDES];
    /* [problems] right samples, maj@k, distinct_right@k; the first problem that is the same one */
    double *right, *maj, *distinct, *class;
} EvalRow;

typedef struct {
    Buf name, value; /* as run.json has it, strings without their quotes */
} RunOption;

typedef struct {
    char *dir, *label;
    uint64_t seed;
    RunOption *option;
    int n_options;
    double *step, *curve[N_CURVES]; /* [n_steps] */
    int n_steps;
    EvalRow *eval;
    int n_evals;
    int *class; /* [problems] of its evaluations, as `bootstrap` has it; NULL: all are distinct */
} RunFiles;

/* The runs of one label, in the order in which they were named. */
typedef struct {
    const char *label;
    RunFiles **run;
    int n;
} Arm;

typedef struct {
    RunFiles *run;
    int n;
    Arm *arm;
    int n_arms;
    const EvalRow *shape; /* any row: problems, samples, maj_k of all; NULL: nothing evaluated */
    int distinct_k, distinct_problems; /* of those rows that say so; 0: none does */
} Runs;

/* ---------------------------------------------------------------- files */

/* Ends the program if the line was not good; `field` is the member last met, or NULL. */
static inline void field_end(Json *j, const char *path, int line, const char *field)
{
    if (!json_end(j))
        die("%s: line %d: %s%s%s", path, line, field ? field : "", field ? ": " : "", j->error);
}

/* A number, or null, which is NaN. */
static inline void number_or_null(Json *j, double *x)
{
    if (json_peek(j) == 'n') {
        *x = (double)NAN;
        json_null(j);
    } else
        json_number(j, x);
}

static inline void read_int(Json *j, int *x)
{
    int64_t value = *x;
    if (json_int(j, &value) && (value < 0 || value > INT_MAX))
        json_fail(j, "expected a number from 0 to 2147483647");
    else
        *x = (int)value;
}

/* A list of numbers, in place of *x; returns how many. */
static inline int number_list(Json *j, double **x)
{
    int n = 0, room = 0;
    if (json_peek(j) == 'n') {
        json_null(j);
        return 0;
    }
    for (json_array(j); json_item(j); n++) {
        if (n == room)
            *x = xrealloc(*x, (size_t)(room = room * 2 + 16) * sizeof **x);
        (*x)[n] = 0;
        if (!json_number(j, &(*x)[n]))
            break;
    }
    return n;
}

static inline int metric_find(const Metric *m, int n, const char *key)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(m[i].key, key))
            return i;
    return -1;
}

/* Steps go up from line to line. */
static inline void check_step(const char *path, int line, double before, double step)
{
    if (!(step >= 0))
        die("%s: line %d: step: expected a number of at least 0", path, line);
    if (!(step > before))
        die("%s: line %d: step: %.0f after %.0f; expected steps that go up", path, line, step,
            before);
}

/* One line of metrics.jsonl, as the run's next step. */
static inline void metrics_line(RunFiles *r, Json *j, const char *path, int line, int *room)
{
    Buf key = {0};
    const char *field = NULL;
    int at = r->n_steps;
    if (at == *room) {
        *room = *room * 2 + 64;
        r->step = xrealloc(r->step, (size_t)*room * sizeof(double));
        for (int i = 0; i < N_CURVES; i++)
            r->curve[i] = xrealloc(r->curve[i], (size_t)*room * sizeof(double));
    }
    r->step[at] = -1;
    for (int i = 0; i < N_CURVES; i++)
        r->curve[i][at] = (double)NAN;
    for (json_object(j); json_key(j, &key);) {
        int i = metric_find(CURVES, N_CURVES, key.s);
        field = i >= 0 ? CURVES[i].key : !strcmp(key.s, "step") ? "step" : NULL;
        if (i >= 0)
            number_or_null(j, &r->curve[i][at]);
        else if (field)
            json_number(j, &r->step[at]);
        else
            json_skip(j);
    }
    field_end(j, path, line, field);
    check_step(path, line, at ? r->step[at - 1] : -1, r->step[at]);
    r->n_steps++;
    buf_free(&key);
}

/* "pass@8" is quantity 3, "maj@16" is MAJ with *k = 16, "distinct_right@16" is DISTINCT_RIGHT; -1:
 * none of them. */
static inline int quantity_find(const char *key, int *k, bool *interval)
{
    int end = 0, found = -1;
    if (sscanf(key, "maj@%d%n", k, &end) == 1)
        found = MAJ;
    else if (sscanf(key, "distinct_right@%d%n", k, &end) == 1)
        found = DISTINCT_RIGHT;
    else if (sscanf(key, "pass@%d%n", k, &end) != 1)
        return -1;
    *interval = !strcmp(key + end, "/interval");
    if ((key[end] && !*interval) || *k < 1)
        return -1;
    for (int q = 0; q < MAX_PASS && found < 0; q++)
        if (*k == 1 << q)
            found = q;
    return found;
}

static inline void eval_quantity(EvalRow *row, Json *j, int q, bool interval)
{
    double *pair = NULL;
    if (!interval) {
        number_or_null(j, &row->value[q]);
        return;
    }
    if (number_list(j, &pair) == 2) {
        row->low[q] = pair[0];
        row->high[q] = pair[1];
    } else
        json_fail(j, "expected two numbers");
    free(pair);
}

/* The lists of a row, a number for each problem. */
enum { N_LISTS = 4 };
static const char *const LISTS[N_LISTS] = {"right", "maj", "distinct_right", "problem_class"};

static inline double **eval_list(EvalRow *row, int i)
{
    return (double **[]){&row->right, &row->maj, &row->distinct, &row->class}[i];
}

/* A member of a row of eval.jsonl. Returns its name, or NULL if it is none that is known. */
static inline const char *eval_member(EvalRow *row, Json *j, const char *key, int n[N_LISTS])
{
    int k = 0, i = metric_find(ASIDES, N_ASIDES, key);
    bool interval = false;
    int q = quantity_find(key, &k, &interval);
    if (i >= 0)
        return number_or_null(j, &row->aside[i]), ASIDES[i].key;
    if (q >= 0) {
        row->maj_k = q == MAJ ? k : row->maj_k;
        row->distinct_k = q == DISTINCT_RIGHT ? k : row->distinct_k;
        eval_quantity(row, j, q, interval);
        return q == DISTINCT_RIGHT ? "distinct_right@k" : q == MAJ ? "maj@k" : "pass@k";
    }
    struct { const char *name; int *to; } whole[] = {
        {"step", &row->step}, {"problems", &row->problems}, {"samples", &row->samples},
        {"distinct_problems", &row->distinct_problems}};
    for (size_t m = 0; m < sizeof whole / sizeof *whole; m++)
        if (!strcmp(key, whole[m].name))
            return read_int(j, whole[m].to), whole[m].name;
    for (int m = 0; m < N_LISTS; m++)
        if (!strcmp(key, LISTS[m]))
            return n[m] = number_list(j, eval_list(row, m)), LISTS[m];
    json_skip(j);
    return NULL;
}

/* The lists of a row are one number a problem, of right samples at most all; a problem's class is
 * the first problem of the class. */
static inline void check_lists(EvalRow *row, const int n[N_LISTS], const char *path, int line)
{
    for (int m = 0; m < N_LISTS; m++)
        if (*eval_list(row, m) && n[m] != row->problems)
            die("%s: line %d: %s: %d numbers; expected %d, one a problem", path, line, LISTS[m],
                n[m], row->problems);
    for (int i = 0; row->right && i < row->problems; i++)
        if (row->right[i] < 0 || row->right[i] > row->samples)
            die("%s: line %d: right: %g of %d samples", path, line, row->right[i], row->samples);
    for (int i = 0; row->class && i < row->problems; i++) {
        double c = row->class[i];
        if (!(c >= 0 && c <= i && c == floor(c)) || row->class[(int)c] != c)
            die("%s: line %d: problem_class: %g for problem %d; expected the first of its class",
                path, line, c, i);
    }
}

static inline EvalRow eval_line(Json *j, const char *path, int line)
{
    EvalRow row = {.step = -1};
    int n[N_LISTS] = {0};
    Buf key = {0};
    const char *field = NULL;
    for (int q = 0; q < N_QUANTITIES; q++)
        row.value[q] = row.low[q] = row.high[q] = (double)NAN;
    for (int i = 0; i < N_ASIDES; i++)
        row.aside[i] = (double)NAN;
    for (json_object(j); json_key(j, &key);)
        field = eval_member(&row, j, key.s, n);
    field_end(j, path, line, field);
    check_lists(&row, n, path, line);
    buf_free(&key);
    return row;
}

/* A run's evaluations are of the same problems: the classes of its next row are those it has. */
static inline void class_add(RunFiles *r, const EvalRow *row, const char *path, int line)
{
    if (!row->class)
        return;
    bool had = r->class;
    r->class = had ? r->class : xcalloc((size_t)row->problems, sizeof *r->class);
    for (int i = 0; i < row->problems; i++) {
        if (had && r->class[i] != (int)row->class[i])
            die("%s: line %d: problem_class: %g for problem %d; expected %d as in the lines before "
                "it", path, line, row->class[i], i, r->class[i]);
        r->class[i] = (int)row->class[i];
    }
}

/* All rows that say how many samples distinct_right@k is of say the same. */
static inline void distinct_add(Runs *all, const EvalRow *row, const char *path, int line)
{
    if (row->distinct_k && all->distinct_k && row->distinct_k != all->distinct_k)
        die("%s: line %d: distinct_right@%d; expected @%d as in the rows before it", path, line,
            row->distinct_k, all->distinct_k);
    all->distinct_k = imax(all->distinct_k, row->distinct_k);
    all->distinct_problems = imax(all->distinct_problems, row->distinct_problems);
}

/* The rows of eval.jsonl, if the run has one. */
static inline void evals_read(RunFiles *r, Runs *all)
{
    Path path = path_join(r->dir, "eval.jsonl");
    size_t n, offset = 0;
    int line = 0;
    if (!is_file(path.s))
        return;
    char *text = read_file(path.s, &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        EvalRow row = eval_line(&j, path.s, line);
        check_step(path.s, line, r->n_evals ? r->eval[r->n_evals - 1].step : -1, row.step);
        if (row.samples < 1 || row.problems < 1 || row.problems > MOST_PROBLEMS)
            die("%s: line %d: expected problems and samples, of the former at most %d", path.s,
                line, MOST_PROBLEMS);
        r->eval = room_for_one(r->eval, r->n_evals, sizeof row);
        r->eval[r->n_evals++] = row;
        const EvalRow *one = all->shape ? all->shape : r->eval;
        if (row.problems != one->problems || row.samples != one->samples ||
            row.maj_k != one->maj_k)
            die("%s: line %d: %d problems, %d samples, maj@%d; expected %d, %d and maj@%d as in "
                "the runs before it", path.s, line, row.problems, row.samples, row.maj_k,
                one->problems, one->samples, one->maj_k);
        class_add(r, &row, path.s, line);
        distinct_add(all, &row, path.s, line);
    }
    free(text);
    all->shape = all->shape ? all->shape : r->eval;
}

static inline void metrics_read(RunFiles *r)
{
    Path path = path_join(r->dir, "metrics.jsonl");
    size_t n, offset = 0;
    int line = 0, room = 0;
    char *text = read_file(path.s, &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);)
        metrics_line(r, &j, path.s, line, &room);
    free(text);
}

/* ---------------------------------------------------------------- directories */

static inline const char *run_option(const RunFiles *r, const char *name)
{
    for (int i = 0; i < r->n_options; i++)
        if (!strcmp(r->option[i].name.s, name))
            return r->option[i].value.s;
    return "";
}

/* run.json: every member as text. */
static inline void options_read(RunFiles *r)
{
    Path path = path_join(r->dir, "run.json");
    size_t n;
    if (!is_file(path.s))
        die("%s: is no run directory: it has no run.json", r->dir);
    char *text = read_file(path.s, &n);
    Json j = json_open(text, n);
    Buf key = {0};
    for (json_object(&j); json_key(&j, &key); r->n_options++) {
        RunOption o = {0};
        bool string = json_peek(&j) == '"';
        const char *from = j.p;
        if (string)
            json_string(&j, &o.value);
        else
            json_skip(&j);
        if (!string)
            buf_add(&o.value, from, (size_t)(j.p - from));
        buf_add(&o.name, key.s, key.n);
        r->option = room_for_one(r->option, r->n_options, sizeof o);
        r->option[r->n_options] = o;
    }
    if (!json_end(&j))
        die("%s: line %d: %s", path.s, json_line(&j), j.error);
    if (strcmp(run_option(r, "command"), "train"))
        die("%s: command: '%.40s'; expected a run of train", path.s, run_option(r, "command"));
    const char *seed = run_option(r, "seed");
    r->seed = strtoull(seed, NULL, 10);
    if (!*seed || strspn(seed, "0123456789") != strlen(seed))
        die("%s: seed: '%.40s'; expected a whole number", path.s, seed);
    buf_free(&key);
    free(text);
}

/* The last name of a directory's path; where that is . or .., of the directory itself. */
static inline char *dir_label(const char *dir)
{
    char *real = NULL, *path = xstrdup(dir);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    const char *slash = strrchr(path, '/'), *name = slash && slash[1] ? slash + 1 : path;
    if (!is_dir(dir) || (!strncmp(name, "..", strlen(name)) && !(real = realpath(dir, NULL))))
        die("%s: is no run directory", dir);
    if (real) {
        slash = strrchr(real, '/');
        name = slash[1] ? slash + 1 : real;
    }
    char *label = xstrdup(name);
    free(real);
    free(path);
    return label;
}

/* Adds the run to its arm. */
static inline void arm_add(Runs *all, RunFiles *r)
{
    int a = 0;
    while (a < all->n_arms && strcmp(all->arm[a].label, r->label))
        a++;
    if (a == all->n_arms) {
        all->arm = room_for_one(all->arm, a, sizeof(Arm));
        all->arm[all->n_arms++] = (Arm){.label = r->label};
    }
    Arm *arm = &all->arm[a];
    for (int i = 0; i < arm->n; i++)
        if (arm->run[i]->seed == r->seed)
            die("%s and %s: both are %s with seed %llu; expected seeds of their own",
                arm->run[i]->dir, r->dir, r->label, (unsigned long long)r->seed);
    arm->run = room_for_one(arm->run, arm->n, sizeof *arm->run);
    arm->run[arm->n++] = r;
}

static inline Runs runs_read(const char *const *dirs, int n)
{
    Runs all = {.run = xcalloc((size_t)n, sizeof(RunFiles)), .n = n};
    for (int i = 0; i < n; i++) {
        RunFiles *r = &all.run[i];
        r->dir = xstrdup(dirs[i]);
        r->label = dir_label(dirs[i]);
        options_read(r);
        metrics_read(r);
        evals_read(r, &all);
        arm_add(&all, r);
    }
    return all;
}

static inline void run_free(RunFiles *r)
{
    for (int i = 0; i < r->n_options; i++) {
        buf_free(&r->option[i].name);
        buf_free(&r->option[i].value);
    }
    for (int i = 0; i < r->n_evals; i++)
        for (int m = 0; m < N_LISTS; m++)
            free(*eval_list(&r->eval[i], m));
    for (int i = 0; i < N_CURVES; i++)
        free(r->curve[i]);
    free(r->option);
    free(r->eval);
    free(r->class);
    free(r->step);
    free(r->dir);
    free(r->label);
}

static inline void runs_free(Runs *all)
{
    for (int i = 0; i < all->n; i++)
        run_free(&all->run[i]);
    for (int i = 0; i < all->n_arms; i++)
        free(all->arm[i].run);
    free(all->arm);
    free(all->run);
}

/* ---------------------------------------------------------------- statistics */

/* Which evaluations of a run: the one of step 0, the last, or the mean of those from the middle
 * step on. */
typedef enum { AT_START, AT_END, SECOND_HALF } When;

static inline bool eval_counts(const RunFiles *r, int i, When when)
{
    int last = r->eval[r->n_evals - 1].step;
    if (when == AT_START)
        return i == 0 && r->eval[i].step == 0;
    return when == AT_END ? i == r->n_evals - 1 : 2 * (int64_t)r->eval[i].step >= last;
}

/* The mean over those evaluations; NaN if there is none. */
static inline double run_value(const RunFiles *r, When when, int q)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < r->n_evals; i++)
        if (eval_counts(r, i, when)) {
            sum += r->eval[i].value[q];
            n++;
        }
    return n ? sum / n : (double)NAN;
}

/* What an evaluation's quantity is made of, one number a problem; NULL: it does not know. */
static inline const double *problem_list(const EvalRow *e, int q)
{
    if (q < MAX_PASS)
        return 1 << q <= e->samples ? e->right : NULL;
    return q == MAJ ? e->maj : e->distinct;
}

/* Problem k's quantity; pass@k counts right answers: c of n samples. */
static inline double problem_value(const EvalRow *e, int q, int k)
{
    double x = problem_list(e, q)[k];
    return q < MAX_PASS ? pass_at_k(e->samples, (int)x, 1 << q) : x;
}

/* The mean over those evaluations for each problem: x [problems]. False if the run does not know
 * its problems one by one. */
static inline bool run_problems(const RunFiles *r, When when, int q, double *x)
{
    int n = 0;
    for (int i = 0; i < r->n_evals; i++) {
        const EvalRow *e = &r->eval[i];
        if (!eval_counts(r, i, when))
            continue;
        if (!problem_list(e, q))
            return false;
        for (int k = 0; k < e->problems; k++)
            x[k] = (n ? x[k] : 0) + problem_value(e, q, k);
        n++;
    }
    for (int k = 0; n && k < r->eval[0].problems; k++)
        x[k] /= n;
    return n > 0;
}

/* A value without an interval. */
static inline Estimate bare(double x) { return (Estimate){x, (double)NAN, (double)NAN}; }

/* One run's quantity: the interval is over problems, by bootstrap, or as the file has it. */
static inline Estimate run_estimate(const RunFiles *r, When when, int q)
{
    Estimate e = bare(run_value(r, when, q));
    if (!isfinite(e.value))
        return e;
    double *x = xcalloc((size_t)r->eval[0].problems, sizeof *x);
    if (run_problems(r, when, q, x))
        e = bootstrap(x, r->class, r->eval[0].problems, r->seed);
    else if (when != SECOND_HALF) {
        const EvalRow *row = &r->eval[when == AT_START ? 0 : r->n_evals - 1];
        e = (Estimate){row->value[q], row->low[q], row->high[q]};
    }
    free(x);
    return e;
}

/* Those of n runs that have a number there, into out[n]; returns how many. */
static inline int evaluated(RunFiles *const *run, int n, When when, const RunFiles **out)
{
    int found = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(run_value(run[i], when, 0)))
            out[found++] = run[i];
    return found;
}

/* A quantity of n runs that differ in their seed: one run's own interval, or a t interval over
 * seeds; *seeds says how many there were. */
static inline Estimate estimate(RunFiles *const *run, int n, When when, int q, int *seeds)
{
    const RunFiles **has = xcalloc((size_t)n, sizeof *has);
    double *x = xcalloc((size_t)n, sizeof *x);
    Estimate e = bare((double)NAN);
    *seeds = evaluated(run, n, when, has);
    for (int i = 0; i < *seeds; i++)
        x[i] = run_value(has[i], when, q);
    if (*seeds)
        e = *seeds == 1 ? run_estimate(has[0], when, q) : mean_interval(x, *seeds);
    free(x);
    free(has);
    return e;
}

/* Two runs of one seed, problem by problem. */
static inline Estimate run_difference(const RunFiles *r, const RunFiles *against, When when, int q)
{
    int n = r->eval[0].problems;
    double *x = xcalloc((size_t)n * 2, sizeof *x);
    Estimate e = bare(run_value(r, when, q) - run_value(against, when, q));
    if (run_problems(r, when, q, x) && run_problems(against, when, q, x + n))
        e = paired(x, x + n, r->class ? r->class : against->class, n, r->seed);
    free(x);
    return e;
}

/* The quantity of an arm minus that of another, over the seeds that both have: `pairs` of them.
 * One pair: the interval is over problems; several: a t interval over the seeds' differences. */
static inline Estimate difference(const Arm *a, const Arm *against, When when, int q, int *pairs)
{
    double *x = xcalloc((size_t)a->n, sizeof *x);
    Estimate one = bare((double)NAN);
    *pairs = 0;
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < against->n; k++) {
            double d = run_value(a->run[i], when, q) - run_value(against->run[k], when, q);
            if (a->run[i]->seed != against->run[k]->seed || !isfinite(d))
                continue;
            if (!*pairs)
                one = run_difference(a->run[i], against->run[k], when, q);
            x[(*pairs)++] = d;
        }
    Estimate e = *pairs > 1 ? mean_interval(x, *pairs) : one;
    free(x);
    return e;
}

/* What step 0 says of an arm of its own, the base model: one run for each seed. */
static inline Arm base_arm(const Runs *all)
{
    Arm base = {.label = "base", .run = xcalloc((size_t)all->n, sizeof *base.run)};
    for (int i = 0; i < all->n; i++) {
        bool had = !isfinite(run_value(&all->run[i], AT_START, 0));
        for (int k = 0; k < base.n; k++)
            had |= base.run[k]->seed == all->run[i].seed;
        if (!had)
            base.run[base.n++] = &all->run[i];
    }
    return base;
}

/* The mean over runs of a measure beside pass@k at the last evaluation, or the first. */
static inline double aside(const Arm *a, When when, int i)
{
    double sum = 0;
    int n = 0;
    for (int k = 0; k < a->n; k++) {
        const RunFiles *r = a->run[k];
        double x = (double)NAN;
        if (r->n_evals)
            x = r->eval[when == AT_START ? 0 : r->n_evals - 1].aside[i];
        if (isfinite(x)) {
            sum += x;
            n++;
        }
    }
    return n ? sum / n : (double)NAN;
}

/* The powers of two up to the samples: how many pass@k there are. */
static inline int pass_count(const Runs *all)
{
    int n = 0;
    while (all->shape && n < MAX_PASS && 1 << n <= all->shape->samples)
        n++;
    return n;
}

/* The quantities of the table: pass@1, maj@k, pass@16 or the most there is, distinct_right@k. */
enum { COLUMNS = 4 };

static inline int headline(const Runs *all, int column)
{
    int most = imin(pass_count(all) - 1, 4);
    return (int[COLUMNS]){0, MAJ, most, DISTINCT_RIGHT}[column];
}

/* How many of those columns have numbers: the last one not in files of older versions. */
static inline int columns(const Runs *all) { return all->distinct_k ? COLUMNS : COLUMNS - 1; }

/* k of pass@k, maj@k, distinct_right@k. */
static inline int quantity_k(const Runs *all, int q)
{
    if (q < MAX_PASS)
        return 1 << q;
    if (q == MAJ)
        return all->shape->maj_k;
    return all->distinct_k ? all->distinct_k : imin(all->shape->samples, 16);
}

/* As eval.jsonl has it. */
static inline void quantity_name(const Runs *all, int q, char name[32])
{
    static const char *const kind[] = {"pass", "maj", "distinct_right"};
    snprintf(name, 32, "%s@%d", kind[q < MAX_PASS ? 0 : q == MAJ ? 1 : 2], quantity_k(all, q));
}

/* As people read it. */
static inline void quantity_title(const Runs *all, int q, char title[64])
{
    if (q == DISTINCT_RIGHT)
        snprintf(title, 64, "distinct right of %d", quantity_k(all, q));
    else
        quantity_name(all, q, title);
}

/* Shares are shown in percent, counts as they are. */
static inline double quantity_scale(int q) { return q == DISTINCT_RIGHT ? 1 : 100; }

static inline int quantity_decimals(int q, bool is_difference)
{
    return q == DISTINCT_RIGHT && is_difference ? 2 : 1;
}

static inline int aside_decimals(int i) { return ASIDES[i].scale > 1 || i == MEAN_LENGTH ? 1 : 3; }

#endif
