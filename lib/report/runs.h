/* runs.h: the files of run directories as one struct, and statistics over seeds.
 *
 *   runs_read        run.json, metrics.jsonl and eval.jsonl of every directory
 *   estimate         a quantity of one arm (a method), with its 95 % interval
 *   difference       of two arms, seed by seed or problem by problem
 *
 * Runs whose directories have the same last name are seeds of one arm. All evaluations must be of
 * equally many problems and samples. A bad file ends the program with its name, line and field. */
#ifndef RUNS_H
#define RUNS_H

#include "../base/json.h"  /* defines: Json, jsonl_next */
#include "../base/stats.h" /* defines: Estimate, bootstrap, paired, mean_interval, pass_at_k */
#include "svg.h"           /* defines: NO_NUMBER */

/* ---------------------------------------------------------------- data */

typedef struct {
    const char *key, *title; /* in the files, and on the page */
    double scale;
    int decimals; /* in a table */
} Metric;

/* Of metrics.jsonl: the step, and what is drawn over it as curves. */
static const Metric CURVES[] = {
    {"step", "step", 1, 0},
    {"reward", "reward in training", 1, 0},
    {"frac_dead", "groups whose rewards are all equal, %", 100, 0},
    {"frac_all_right", "groups whose responses are all right, %", 100, 0},
    {"frac_all_wrong", "groups whose responses are all wrong, %", 100, 0},
    {"completions/mean_length", "response length, tokens", 1, 0},
    {"entropy", "entropy of the policy, nats", 1, 0},
    {"kl_exact", "KL to the base model, nats a token", 1, 0},
    {"phi/cos_mean", "mean cosine of gradient features", 1, 0},
    {"phi/neg_ratio", "pairs with a negative cosine, %", 100, 0},
    {"adv/novelty_share", "novelty\xE2\x80\x99s share of \xCE\xA3 A\xC2\xB2, %", 100, 0},
    {"grad_norm", "norm of the gradient, before clipping", 1, 0},
};

/* Of eval.jsonl, about the responses themselves; shares in percent. */
static const Metric MEASURES[] = {
    {"phi/cos_mean", "cosine", 1, 3},     {"phi/neg_ratio", "negative", 100, 1},
    {"entropy", "entropy", 1, 3},         {"completions/mean_length", "length", 1, 1},
    {"frac_copies", "copies", 100, 1},    {"frac_two_right", "two right", 100, 1},
    {"frac_all_right", "all right", 100, 1}, {"frac_all_wrong", "all wrong", 100, 1},
};
enum { N_CURVES = sizeof CURVES / sizeof(Metric), N_MEASURES = sizeof MEASURES / sizeof(Metric) };

/* Quantities of an evaluation: q < MAX_PASS is pass@2^q, then maj@k, then distinct_right@k: how
 * many different right answers to expect among k samples of a problem, a count where the others
 * are shares. */
enum { MAX_PASS = 13, MAJ = MAX_PASS, DISTINCT_RIGHT, N_QUANTITIES };
static const char *const QUANTITIES[] = {"pass@k", "maj@k", "distinct_right@k"};

enum { MOST_PROBLEMS = 10000000 }; /* of an evaluation: memory is taken for each */

typedef struct {
    double *x;
    int n;
} List;

/* Lists of an evaluation, a number a problem: right samples, maj@k, distinct_right@k, and the first
 * problem that is the same one. */
enum { LIST_RIGHT, LIST_MAJ, LIST_DISTINCT, LIST_CLASS, N_LISTS };
static const char *const LISTS[N_LISTS] = {"right", "maj", "distinct_right", "problem_class"};

/* A row of eval.jsonl. A missing number is NaN, or 0 where it is an integer; a missing list is
 * NULL. */
typedef struct {
    int step, problems, samples, maj_k, distinct_k, distinct_problems;
    double value[N_QUANTITIES], response[N_MEASURES];
    List list[N_LISTS];
} EvalRow;

typedef struct {
    Buf name, value; /* as run.json has it, strings without their quotes */
} RunOption;

typedef struct {
    char *dir, *label;
    uint64_t seed;
    RunOption *option;
    double (*step)[N_CURVES]; /* [n_steps] */
    EvalRow *eval;            /* [n_evals] */
    int n_options, n_steps, n_evals;
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
    Arm *arm;
    int n, n_arms;
    int problems, samples, maj_k;      /* of all evaluations; samples 0: there are none */
    int distinct_k, distinct_problems; /* of those that say so; 0: none does */
} Runs;

static inline Estimate point_estimate(double x) { return (Estimate){x, NO_NUMBER, NO_NUMBER}; }

/* ---------------------------------------------------------------- JSON, by table */

/* A member of an object, its reader and the value that the reader fills. */
typedef struct {
    const char *name;
    void (*read)(Json *j, void *to);
    void *to;
} Member;

/* Reads one of n members, or skips an unknown one. Returns its name in the table, or NULL. */
static inline const char *member_read(Json *j, const char *key, const Member *m, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(key, m[i].name)) {
            m[i].read(j, m[i].to);
            return m[i].name;
        }
    json_skip(j);
    return NULL;
}

/* An object of those members. Returns the one last met, for line_check. */
static inline const char *members_read(Json *j, const Member *m, int n)
{
    Buf key = {0};
    const char *field = NULL;
    for (json_object(j); json_key(j, &key);)
        field = member_read(j, key.s, m, n);
    buf_free(&key);
    return field;
}

/* Ends the program if the line was not good; `field` is the member last met, or NULL. */
static inline void line_check(Json *j, const char *path, int line, const char *field)
{
    if (!json_end(j))
        die("%s: line %d: %s%s%s", path, line, field ? field : "", field ? ": " : "", j->error);
}

/* A double; null is NaN. */
static inline void read_number(Json *j, void *to)
{
    double *x = to;
    if (json_peek(j) == 'n' && json_null(j))
        *x = NO_NUMBER;
    else
        json_number(j, x);
}

/* An int. */
static inline void read_whole(Json *j, void *to)
{
    int *x = to;
    int64_t value = *x;
    if (json_int(j, &value) && (value < 0 || value > INT_MAX))
        json_fail(j, "expected a number from 0 to 2147483647");
    else
        *x = (int)value;
}

static inline void read_text(Json *j, void *to) { json_string(j, to); }

/* A List, in place of what it held; null is an empty one. */
static inline void read_list(Json *j, void *to)
{
    List *l = to;
    l->n = 0;
    if (json_peek(j) == 'n' && json_null(j))
        return;
    for (json_array(j); json_item(j); l->n++) {
        l->x = room_for_one(l->x, l->n, sizeof *l->x);
        l->x[l->n] = 0;
        json_number(j, &l->x[l->n]);
    }
}

/* The bytes of a file's lines without a last one that is still being written, or never was. */
static inline size_t whole_lines(const char *text, size_t n)
{
    size_t last = n;
    while (last && text[last - 1] != '\n')
        last--;
    Json j = json_open(text + last, n - last);
    return last < n && !(json_skip(&j) && json_end(&j)) ? last : n;
}

static inline void lines_read(const char *path, void (*read)(Json *, const char *, int, void *),
                              void *to)
{
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    n = whole_lines(text, n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);)
        read(&j, path, line, to);
    free(text);
}

/* ---------------------------------------------------------------- files */

static inline void check_step(const char *path, int line, double before, double step)
{
    if (!(step >= 0))
        die("%s: line %d: step: expected a number of at least 0", path, line);
    if (!(step > before))
        die("%s: line %d: step: %.0f after %.0f; expected steps that go up", path, line, step,
            before);
}

/* A line of metrics.jsonl; `to` is the RunFiles. */
static inline void metrics_line(Json *j, const char *path, int line, void *to)
{
    RunFiles *r = to;
    r->step = room_for_one(r->step, r->n_steps, sizeof *r->step);
    double *row = r->step[r->n_steps], before = r->n_steps ? r->step[r->n_steps - 1][0] : -1;
    Member m[N_CURVES];
    for (int i = 0; i < N_CURVES; i++) {
        row[i] = NO_NUMBER;
        m[i] = (Member){CURVES[i].key, read_number, &row[i]};
    }
    line_check(j, path, line, members_read(j, m, N_CURVES));
    check_step(path, line, before, row[0]);
    r->n_steps++;
}

/* Reads a member like "pass@8" or "maj@16". Returns its kind, or NULL: no such key. */
static inline const char *quantity_read(EvalRow *row, Json *j, const char *key)
{
    int kind = 0, q = 0;
    char *end;
    while (kind < 3 && strncmp(key, QUANTITIES[kind], strlen(QUANTITIES[kind]) - 1))
        kind++;
    if (kind == 3)
        return NULL;
    long k = strtol(strchr(key, '@') + 1, &end, 10);
    while (q < MAX_PASS && 1 << q != k)
        q++;
    if (k < 1 || k > INT_MAX || *end || (!kind && q == MAX_PASS))
        return NULL;
    if (kind) {
        q = MAJ + kind - 1;
        *(q == MAJ ? &row->maj_k : &row->distinct_k) = (int)k;
    }
    read_number(j, &row->value[q]);
    return QUANTITIES[kind];
}

/* Each list has one number a problem, at most all samples are right, and a problem's class is the
 * first problem of the class. */
static inline void check_lists(EvalRow *row, const char *path, int line)
{
    const double *right = row->list[LIST_RIGHT].x, *class = row->list[LIST_CLASS].x;
    for (int m = 0; m < N_LISTS; m++)
        if (row->list[m].x && row->list[m].n != row->problems)
            die("%s: line %d: %s: %d numbers; expected %d, one a problem", path, line, LISTS[m],
                row->list[m].n, row->problems);
    for (int i = 0; right && i < row->problems; i++)
        if (right[i] < 0 || right[i] > row->samples)
            die("%s: line %d: right: %g of %d samples", path, line, right[i], row->samples);
    for (int i = 0; class && i < row->problems; i++) {
        double c = class[i];
        if (!(c >= 0 && c <= i && c == floor(c)) || class[(int)c] != c)
            die("%s: line %d: problem_class: %g for problem %d; expected the first of its class",
                path, line, c, i);
    }
}

static inline EvalRow eval_row(Json *j, const char *path, int line)
{
    EvalRow row = {.step = -1};
    enum { WHOLE = 4, N = WHOLE + N_LISTS + N_MEASURES };
    Member m[N] = {{"step", read_whole, &row.step}, {"problems", read_whole, &row.problems},
                   {"samples", read_whole, &row.samples},
                   {"distinct_problems", read_whole, &row.distinct_problems}};
    Buf key = {0};
    const char *field = NULL;
    for (int i = 0; i < N_LISTS; i++)
        m[WHOLE + i] = (Member){LISTS[i], read_list, &row.list[i]};
    for (int i = 0; i < N_MEASURES; i++) {
        row.response[i] = NO_NUMBER;
        m[WHOLE + N_LISTS + i] = (Member){MEASURES[i].key, read_number, &row.response[i]};
    }
    for (int q = 0; q < N_QUANTITIES; q++)
        row.value[q] = NO_NUMBER;
    for (json_object(j); json_key(j, &key);) {
        field = quantity_read(&row, j, key.s);
        if (!field)
            field = member_read(j, key.s, m, N);
    }
    line_check(j, path, line, field);
    check_lists(&row, path, line);
    buf_free(&key);
    return row;
}

/* All evaluations of a run are of the same problems, so their classes are equal. */
static inline void class_add(RunFiles *r, const EvalRow *row, const char *path, int line)
{
    const double *class = row->list[LIST_CLASS].x;
    bool had = r->class;
    if (!class)
        return;
    r->class = had ? r->class : xcalloc(row->problems, sizeof *r->class);
    for (int i = 0; i < row->problems; i++) {
        if (had && r->class[i] != (int)class[i])
            die("%s: line %d: problem_class: %g for problem %d; expected %d as in the lines before "
                "it", path, line, class[i], i, r->class[i]);
        r->class[i] = (int)class[i];
    }
}

/* All evaluations of all runs have the same sizes. */
static inline void sizes_add(Runs *all, const EvalRow *row, const char *path, int line)
{
    if (!all->samples) {
        all->problems = row->problems;
        all->samples = row->samples;
        all->maj_k = row->maj_k;
    }
    if (row->problems != all->problems || row->samples != all->samples || row->maj_k != all->maj_k)
        die("%s: line %d: %d problems, %d samples, maj@%d; expected %d, %d and maj@%d as in "
            "the runs before it", path, line, row->problems, row->samples, row->maj_k,
            all->problems, all->samples, all->maj_k);
    if (row->distinct_k && all->distinct_k && row->distinct_k != all->distinct_k)
        die("%s: line %d: distinct_right@%d; expected @%d as in the rows before it", path, line,
            row->distinct_k, all->distinct_k);
    all->distinct_k = imax(all->distinct_k, row->distinct_k);
    all->distinct_problems = imax(all->distinct_problems, row->distinct_problems);
}

/* A line of eval.jsonl, as the next row of the last run so far; `to` is the Runs. */
static inline void eval_line(Json *j, const char *path, int line, void *to)
{
    Runs *all = to;
    RunFiles *r = &all->run[all->n];
    EvalRow row = eval_row(j, path, line);
    check_step(path, line, r->n_evals ? r->eval[r->n_evals - 1].step : -1, row.step);
    if (row.samples < 1 || row.problems < 1 || row.problems > MOST_PROBLEMS)
        die("%s: line %d: expected problems and samples, of the former at most %d", path, line,
            MOST_PROBLEMS);
    sizes_add(all, &row, path, line);
    class_add(r, &row, path, line);
    r->eval = room_for_one(r->eval, r->n_evals, sizeof row);
    r->eval[r->n_evals++] = row;
}

/* ---------------------------------------------------------------- directories */

/* An option's value as text; "" if run.json does not have it. */
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
    char *text = read_file(path.s, &n);
    Json j = json_open(text, n);
    Buf key = {0};
    for (json_object(&j); json_key(&j, &key); r->n_options++) {
        RunOption o = {0};
        bool string = json_peek(&j) == '"';
        const char *from = j.p;
        if (string)
            json_string(&j, &o.value);
        else if (json_skip(&j))
            buf_add(&o.value, from, (size_t)(j.p - from));
        buf_add(&o.name, key.s, key.n);
        r->option = room_for_one(r->option, r->n_options, sizeof o);
        r->option[r->n_options] = o;
    }
    if (!json_end(&j))
        die("%s: line %d: %s", path.s, json_line(&j), j.error);
    const char *seed = run_option(r, "seed");
    r->seed = strtoull(seed, NULL, 10);
    if (!*seed || strspn(seed, "0123456789") != strlen(seed))
        die("%s: seed: '%.40s'; expected a whole number", path.s, seed);
    buf_free(&key);
    free(text);
}

/* A copy of a path without slashes at its end. */
static inline char *path_trimmed(const char *path)
{
    char *copy = xstrdup(path);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = 0;
    return copy;
}

/* The last name of a directory's path; where that is . or .., of the directory itself. */
static inline char *dir_label(const char *dir)
{
    char *path = path_trimmed(dir), *slash = strrchr(path, '/');
    char *name = slash && slash[1] ? slash + 1 : path, *real = NULL;
    if (!strncmp(name, "..", strlen(name)) && (real = realpath(dir, NULL))) {
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

static inline void run_free(RunFiles *r)
{
    for (int i = 0; i < r->n_options; i++) {
        buf_free(&r->option[i].name);
        buf_free(&r->option[i].value);
    }
    for (int i = 0; i < r->n_evals * N_LISTS; i++)
        free(r->eval[i / N_LISTS].list[i % N_LISTS].x);
    void *const blocks[] = {r->option, r->eval, r->class, r->step, r->dir, r->label};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

/* Opens a run of train. What is there and is none, a page or a run of sft beside the runs, is
 * skipped with a warning; where it stands alone, or nothing is there, the program ends. */
static inline bool run_open(RunFiles *r, const char *dir, bool alone)
{
    const char *why = NULL;
    *r = (RunFiles){.dir = xstrdup(dir)};
    if (!file_type(dir))
        die("%s: is no run directory: there is nothing of this name", dir);
    if (!is_dir(dir))
        why = "is a file";
    else if (!is_file(path_join(dir, "run.json").s))
        why = "it has no run.json";
    else
        options_read(r);
    if (!why && strcmp(run_option(r, "command"), "train"))
        why = "run.json: command: expected train";
    if (why && alone)
        die("%s: is no run of train: %s", dir, why);
    if (why)
        warn("%s: skipped: is no run of train: %s", dir, why);
    else
        r->label = dir_label(dir);
    return !why;
}

static inline Runs runs_read(const char *const *dirs, int n)
{
    Runs all = {.run = xcalloc(n, sizeof(RunFiles))};
    for (int i = 0; i < n; i++) {
        RunFiles *r = &all.run[all.n];
        if (!run_open(r, dirs[i], n == 1)) {
            run_free(r);
            continue;
        }
        lines_read(path_join(r->dir, "metrics.jsonl").s, metrics_line, r);
        Path evals = path_join(r->dir, "eval.jsonl");
        if (is_file(evals.s))
            lines_read(evals.s, eval_line, &all);
        arm_add(&all, r);
        all.n++;
    }
    if (!all.n)
        die("report: none of these is a run of train");
    return all;
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
    return n ? sum / n : NO_NUMBER;
}

/* The list that an evaluation's quantity is the mean of; NULL: unknown. */
static inline const double *problem_list(const EvalRow *e, int q)
{
    if (q < MAX_PASS)
        return 1 << q <= e->samples ? e->list[LIST_RIGHT].x : NULL;
    return e->list[q == MAJ ? LIST_MAJ : LIST_DISTINCT].x;
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

/* An evaluated run's quantity; the interval is over problems, by bootstrap. */
static inline Estimate run_estimate(const RunFiles *r, When when, int q)
{
    int n = r->eval[0].problems;
    Estimate e = point_estimate(run_value(r, when, q));
    double *x = xcalloc(n, sizeof *x);
    if (isfinite(e.value) && run_problems(r, when, q, x))
        e = bootstrap(x, r->class, n, r->seed);
    free(x);
    return e;
}

/* A quantity of an arm's evaluated runs: one run's own interval, or a t interval over seeds; *seeds
 * (or NULL) is how many there are. */
static inline Estimate estimate(const Arm *a, When when, int q, int *seeds)
{
    double *x = xcalloc(a->n, sizeof *x);
    const RunFiles *one = NULL;
    int n = 0;
    for (int i = 0; i < a->n; i++)
        if (isfinite(run_value(a->run[i], when, 0))) {
            one = a->run[i];
            x[n++] = run_value(one, when, q);
        }
    Estimate e = n > 1 ? mean_interval(x, n) : point_estimate(NO_NUMBER);
    if (n == 1)
        e = run_estimate(one, when, q);
    free(x);
    if (seeds)
        *seeds = n;
    return e;
}

/* Two runs of one seed, or one at two times, problem by problem. */
static inline Estimate run_difference(const RunFiles *r, When when, const RunFiles *against,
                                      When then, int q)
{
    int n = r->eval[0].problems;
    double *x = xcalloc(2 * n, sizeof *x);
    Estimate e = point_estimate(run_value(r, when, q) - run_value(against, then, q));
    if (run_problems(r, when, q, x) && run_problems(against, then, q, x + n))
        e = paired(x, x + n, r->class ? r->class : against->class, n, r->seed);
    free(x);
    return e;
}

/* The quantity of an arm minus that of another, over the seeds that both have; *pairs (or NULL) is
 * how many. One pair: the interval is over problems; several: a t interval over the seeds'
 * differences. */
static inline Estimate difference(const Arm *a, When when, const Arm *against, When then, int q,
                                  int *pairs)
{
    double *x = xcalloc(a->n, sizeof *x);
    Estimate one = point_estimate(NO_NUMBER);
    int n = 0;
    for (int i = 0; i < a->n; i++)
        for (int k = 0; k < against->n; k++) {
            double d = run_value(a->run[i], when, q) - run_value(against->run[k], then, q);
            if (a->run[i]->seed != against->run[k]->seed || !isfinite(d))
                continue;
            if (!n)
                one = run_difference(a->run[i], when, against->run[k], then, q);
            x[n++] = d;
        }
    Estimate e = n > 1 ? mean_interval(x, n) : one;
    free(x);
    if (pairs)
        *pairs = n;
    return e;
}

/* Step 0 as an arm of its own, the base model: one run for each seed. */
static inline Arm base_arm(const Runs *all)
{
    Arm base = {.label = "base", .run = xcalloc(all->n, sizeof *base.run)};
    for (int i = 0; i < all->n; i++) {
        bool had = !isfinite(run_value(&all->run[i], AT_START, 0));
        for (int k = 0; k < base.n; k++)
            had |= base.run[k]->seed == all->run[i].seed;
        if (!had)
            base.run[base.n++] = &all->run[i];
    }
    return base;
}

/* The mean over runs of MEASURES[i] at the last evaluation, or the first. */
static inline double response_mean(const Arm *a, When when, int i)
{
    double sum = 0;
    int n = 0;
    for (int k = 0; k < a->n; k++) {
        const RunFiles *r = a->run[k];
        double x = r->n_evals ? r->eval[when == AT_START ? 0 : r->n_evals - 1].response[i]
                              : NO_NUMBER;
        sum += isfinite(x) ? x : 0;
        n += isfinite(x);
    }
    return n ? sum / n : NO_NUMBER;
}

/* ---------------------------------------------------------------- quantities */

/* The powers of two up to the samples: how many pass@k there are. */
static inline int pass_count(const Runs *all)
{
    int n = 0;
    while (n < MAX_PASS && 1 << n <= all->samples)
        n++;
    return n;
}

/* The quantities of the table: pass@1, maj@k, pass@16 or the most there is, distinct_right@k. */
enum { COLUMNS = 4 };

static inline int headline(const Runs *all, int column)
{
    return (int[COLUMNS]){0, MAJ, imin(pass_count(all) - 1, 4), DISTINCT_RIGHT}[column];
}

typedef struct {
    char name[40], title[40]; /* in eval.jsonl, and on the page */
    int k, decimals;          /* of pass@k ...; of a difference, a value has one */
    double scale;             /* shares are shown in percent, counts as they are */
} Quantity;

static inline Quantity quantity(const Runs *all, int q)
{
    bool count = q == DISTINCT_RIGHT;
    int k = q < MAJ ? 1 << q : all->maj_k;
    const char *kind = QUANTITIES[imax(0, q - MAJ + 1)];
    if (count)
        k = all->distinct_k ? all->distinct_k : imin(all->samples, 16);
    Quantity x = {.k = k, .decimals = count ? 2 : 1, .scale = count ? 1 : 100};
    snprintf(x.name, sizeof x.name, "%.*s%d", (int)strlen(kind) - 1, kind, k);
    snprintf(x.title, sizeof x.title, count ? "distinct right of %.0s%d" : "%s", x.name, k);
    return x;
}

#endif
