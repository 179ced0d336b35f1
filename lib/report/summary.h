/* summary.h: the results as tables: text for people and one JSON object for programs.
 *
 *   Report                     everything that a report is made of
 *   table_cell_of              a cell of a table, for the text and for the page
 *   report_text, report_json */
#ifndef SUMMARY_H
#define SUMMARY_H

#include "figure3.h"  /* defines: Figure3 */
#include "frontier.h" /* defines: Frontier, arm_frontier, frontier_measure; runs.h: Runs, Arm */

typedef struct {
    Runs runs;
    Arm base;           /* step 0 of one run a seed */
    const Arm *against; /* the arm that others are compared with; NULL: none is called grpo */
    int measure;        /* of the frontier: a quantity */
    bool *compared;     /* [n_arms] does it share seeds with `against`? */
    Frontier *frontier; /* [n_arms] of each arm against that one */
    int n_compared, n_frontiers;
    Figure3 geometry;
} Report;

static inline bool has_frontier(const Report *r, int arm)
{
    return r->frontier[arm].seeds + r->frontier[arm].missing > 0;
}

/* Compares every arm with grpo; once, because the frontier's resamples take a while. */
static inline void compare(Report *r)
{
    Runs *all = &r->runs;
    int pairs;
    r->base = base_arm(all);
    r->compared = xcalloc(all->n_arms, sizeof *r->compared);
    r->frontier = xcalloc(all->n_arms, sizeof *r->frontier);
    r->measure = all->samples ? frontier_measure(all, &r->base) : 0;
    for (int a = 0; a < all->n_arms; a++)
        if (!strcmp(all->arm[a].label, "grpo"))
            r->against = &all->arm[a];
    for (int a = 0; a < all->n_arms && r->against; a++) {
        if (&all->arm[a] == r->against)
            continue;
        difference(&all->arm[a], r->against, AT_END, 0, &pairs);
        r->compared[a] = pairs > 0;
        r->frontier[a] = arm_frontier(&all->arm[a], r->against, r->measure);
        r->n_compared += r->compared[a];
        r->n_frontiers += has_frontier(r, a);
    }
}

/* Row `arm` of a table: -1 is the base model. */
static inline const Arm *row_arm(const Report *r, int arm)
{
    return arm < 0 ? &r->base : &r->runs.arm[arm];
}

static inline int seeds_of(const Report *r, int arm)
{
    int seeds;
    estimate(row_arm(r, arm), arm < 0 ? AT_START : AT_END, 0, &seeds);
    return seeds;
}

/* The step of the first evaluation in the second half of training, in the first run that has one;
 * -1: none has. */
static inline int half_begins(const Report *r)
{
    for (int k = 0; k < r->runs.n; k++)
        for (int i = 0; i < r->runs.run[k].n_evals; i++)
            if (eval_counts(&r->runs.run[k], i, SECOND_HALF))
                return r->runs.run[k].eval[i].step;
    return -1;
}

static inline int last_step(const Report *r)
{
    int last = 0;
    for (int k = 0; k < r->runs.n; k++)
        if (r->runs.run[k].n_evals)
            last = imax(last, r->runs.run[k].eval[r->runs.run[k].n_evals - 1].step);
    return last;
}

/* ================================================================ tables */

/* Quantities at the last evaluation; measures of the responses there; differences of the quantities
 * from grpo's, there and as the mean over the second half of training; the frontier's. */
typedef enum { TABLE_VALUES, TABLE_RESPONSES, TABLE_LAST, TABLE_MEAN, TABLE_FRONTIER } Table;
static const int TABLE_COLUMNS[] = {1 + COLUMNS, N_MEASURES, 1 + COLUMNS, 1 + COLUMNS, 5};
enum { MOST_COLUMNS = 8 };

typedef struct {
    char s[64];
} Title;

typedef struct {
    Estimate e;
    double scale;
    int decimals;
    bool sign;  /* it is a difference */
    enum { WITH_INTERVAL, ALONE, INTERVAL } form;
} Cell;

static inline Title table_title(const Report *r, Table t, int column)
{
    static const char *const frontier[] = {"seeds", "missing", "difference", "t over seeds",
                                           "over problems"};
    Title title;
    snprintf(title.s, sizeof title.s, "%s", t == TABLE_RESPONSES ? MEASURES[column].title
             : t == TABLE_FRONTIER || !column ? frontier[column]
             : quantity(&r->runs, headline(&r->runs, column - 1)).title);
    return title;
}

/* Has it a row for the arm? */
static inline bool table_has(const Report *r, Table t, int arm)
{
    if (t < TABLE_LAST)
        return seeds_of(r, arm) > 0;
    return arm >= 0 && (t == TABLE_FRONTIER ? has_frontier(r, arm) : r->compared[arm]);
}

static inline Cell count_cell(int n) { return (Cell){point_estimate(n), 1, 0, false, ALONE}; }

static inline Cell frontier_cell(const Report *r, int arm, int column)
{
    const Frontier *f = &r->frontier[arm];
    Quantity q = quantity(&r->runs, r->measure);
    if (column < 2)
        return count_cell(column ? f->missing : f->seeds);
    Cell c = {column < 4 ? f->over_seeds : f->over_problems, q.scale, q.decimals, true, ALONE};
    if (column > 2) {
        c.form = INTERVAL;
        c.e.value = NO_NUMBER;
    }
    return c;
}

static inline Cell table_cell_of(const Report *r, Table t, int arm, int column)
{
    const Arm *a = row_arm(r, arm);
    When when = arm < 0 ? AT_START : t == TABLE_MEAN ? SECOND_HALF : AT_END;
    if (t == TABLE_FRONTIER)
        return frontier_cell(r, arm, column);
    if (t == TABLE_RESPONSES)
        return (Cell){point_estimate(response_mean(a, when, column)), MEASURES[column].scale,
                      MEASURES[column].decimals, false, ALONE};
    int q = headline(&r->runs, imax(0, column - 1)), seeds;
    bool sign = t != TABLE_VALUES;
    Quantity x = quantity(&r->runs, q);
    Estimate e = sign ? difference(a, r->against, when, q, &seeds) : estimate(a, when, q, &seeds);
    return column ? (Cell){e, x.scale, sign ? x.decimals : 1, sign, WITH_INTERVAL}
                  : count_cell(seeds);
}

/* ================================================================ as text */

/* Cells row by row; a column is as wide as its widest cell. */
enum { CELL = 64 };
typedef struct {
    char (*cell)[CELL];
    int columns, n;
} TextTable;

static inline void text_cell(TextTable *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void text_cell(TextTable *t, const char *fmt, ...)
{
    va_list ap;
    t->cell = room_for_one(t->cell, t->n, sizeof *t->cell);
    va_start(ap, fmt);
    vsnprintf(t->cell[t->n++], CELL, fmt, ap);
    va_end(ap);
}

/* Prints the table, without spaces at the ends of its lines, and frees it. */
static inline void text_end(TextTable *t)
{
    int *width = xcalloc(t->columns, sizeof *width);
    for (int i = 0; i < t->n; i++)
        width[i % t->columns] = imax(width[i % t->columns], (int)strlen(t->cell[i]));
    for (int i = 0; i < t->n; i++) {
        bool last = i % t->columns == t->columns - 1;
        printf("%-*s%s", last ? 0 : width[i % t->columns], t->cell[i], last ? "\n" : "  ");
    }
    free(width);
    free(t->cell);
}

/* [low, high], or "-". */
static inline const char *text_interval(char out[CELL], Cell c)
{
    snprintf(out, CELL, !has_interval(c.e) ? "-" : c.sign ? "[%+.*f, %+.*f]" : "[%4.*f, %4.*f]",
             c.decimals, c.scale * c.e.low, c.decimals, c.scale * c.e.high);
    return out;
}

/* A number alone is flush right with the column's title, and in percent if it is a share. */
static inline void text_value(TextTable *t, Cell c, const char *title)
{
    char value[CELL], interval[CELL];
    bool alone = c.form == ALONE, both = c.form == WITH_INTERVAL && has_interval(c.e);
    snprintf(value, CELL, !isfinite(c.e.value) ? "-" : c.sign ? "%+.*f%s" : "%.*f%s", c.decimals,
             c.scale * c.e.value, alone && !c.sign && c.scale > 1 ? " %" : "");
    text_interval(interval, c);
    if (c.form == INTERVAL)
        text_cell(t, "%s", interval);
    else
        text_cell(t, "%*s%s%s", alone ? (int)strlen(title) : 5, value, both ? " " : "",
                  both ? interval : "");
}

static inline void text_table(const Report *r, Table kind, const char *first, TextTable *t)
{
    t->columns = 1 + TABLE_COLUMNS[kind];
    text_cell(t, "%s", first);
    for (int i = 0; i < TABLE_COLUMNS[kind]; i++)
        text_cell(t, "%s", table_title(r, kind, i).s);
    for (int a = -1; a < r->runs.n_arms; a++) {
        if (!table_has(r, kind, a))
            continue;
        text_cell(t, "%.14s", row_arm(r, a)->label);
        for (int i = 0; i < TABLE_COLUMNS[kind]; i++)
            text_value(t, table_cell_of(r, kind, a, i), table_title(r, kind, i).s);
    }
}

static inline void report_text(const Report *r)
{
    TextTable t[4] = {0};
    if (!r->runs.samples) {
        puts("no run has an eval.jsonl: train with --eval-every N");
        return;
    }
    printf("%d held-out problems", r->runs.problems);
    if (r->runs.distinct_problems)
        printf(" (%d distinct)", r->runs.distinct_problems);
    printf(", %d samples of each, at step %d\n\n", r->runs.samples, last_step(r));
    text_table(r, TABLE_VALUES, "percent", &t[0]);
    text_end(&t[0]);
    putchar('\n');
    text_table(r, TABLE_RESPONSES, "responses", &t[1]);
    text_end(&t[1]);
    if (r->n_compared) {
        printf("\ndifference from %s, same seed and problems, in points: last evaluation; mean "
               "from step %d on\n", r->against->label, half_begins(r));
        text_table(r, TABLE_LAST, "last", &t[2]);
        text_table(r, TABLE_MEAN, "mean", &t[2]);
        text_end(&t[2]);
    }
    if (r->n_frontiers) {
        printf("\nfrontier: %s minus %s's at the same pass@1, seed and learning rate\n",
               quantity(&r->runs, r->measure).title, r->against->label);
        text_table(r, TABLE_FRONTIER, r->measure == DISTINCT_RIGHT ? "answers" : "points", &t[3]);
        text_end(&t[3]);
        printf("missing: seeds whose paths share less than %g points of pass@1\n",
               100 * FRONTIER_RANGE);
    }
    printf("\n%s: different right answers expected among so many samples, a count\n",
           quantity(&r->runs, DISTINCT_RIGHT).title);
    puts("95 % intervals: Student's t over seeds; of one seed, bootstrap over distinct problems");
}

/* ================================================================ as JSON */

static inline void json_interval(Buf *b, const char *name, Estimate e)
{
    if (has_interval(e))
        put_vector(b, name, (double[]){e.low, e.high}, 2);
}

static inline void json_values(const Report *r, int arm, When when, Buf *b)
{
    int passes = pass_count(&r->runs);
    for (int i = 0; i < passes + 2; i++) {
        int q = i < passes ? i : MAJ + i - passes;
        Estimate e = estimate(row_arm(r, arm), when, q, NULL);
        Quantity x = quantity(&r->runs, q);
        if (isfinite(e.value))
            put(b, x.name, e.value);
        if (has_interval(e))
            buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", x.name, e.low, e.high);
    }
}

static inline void json_differences(const Report *r, int arm, When when, Buf *b)
{
    for (int i = 0; i < COLUMNS; i++) {
        int q = headline(&r->runs, i);
        Estimate e = difference(&r->runs.arm[arm], r->against, when, q, NULL);
        buf_printf(b, "%s\"%s\": {\"value\": ", i ? ", " : "", quantity(&r->runs, q).name);
        json_put_number(b, e.value);
        json_interval(b, "interval", e);
        buf_str(b, "}");
    }
}

static inline void json_frontier(const Report *r, const Frontier *f, Buf *b)
{
    buf_printf(b, ", \"frontier\": {\"measure\": \"%s\"", quantity(&r->runs, r->measure).name);
    put(b, "value", f->over_seeds.value);
    json_interval(b, "interval", f->over_seeds);
    json_interval(b, "problems/interval", f->over_problems);
    put(b, "seeds", f->seeds);
    put(b, "missing", f->missing);
    buf_str(b, "}");
}

static inline void json_arm(const Report *r, int arm, Buf *b)
{
    When when = arm < 0 ? AT_START : AT_END;
    buf_printf(b, "{\"seeds\": %d", seeds_of(r, arm));
    json_values(r, arm, when, b);
    for (int i = 0; i < N_MEASURES; i++)
        put(b, MEASURES[i].key, response_mean(row_arm(r, arm), when, i));
    if (arm >= 0) {
        buf_printf(b, ", \"path\": {\"from\": %d", half_begins(r));
        json_values(r, arm, SECOND_HALF, b);
        buf_str(b, "}");
    }
    if (arm >= 0 && r->compared[arm]) {
        buf_str(b, ", \"difference\": {");
        json_differences(r, arm, AT_END, b);
        buf_str(b, ", \"path\": {");
        json_differences(r, arm, SECOND_HALF, b);
        buf_str(b, "}}");
    }
    if (arm >= 0 && has_frontier(r, arm))
        json_frontier(r, &r->frontier[arm], b);
    buf_str(b, "}");
}

static inline void report_json(const Report *r)
{
    Buf b = {0};
    buf_str(&b, "{");
    for (int a = -1; a < r->runs.n_arms; a++) {
        const char *label = row_arm(r, a)->label;
        if (!seeds_of(r, a))
            continue;
        buf_str(&b, b.n > 1 ? ",\n " : "\n ");
        json_put_string(&b, label, strlen(label));
        buf_str(&b, ": ");
        json_arm(r, a, &b);
    }
    printf("%s\n}\n", b.s);
    buf_free(&b);
}

#endif
