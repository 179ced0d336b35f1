/* summary.h: the results as tables: text for people and one JSON object for programs.
 *
 *   Table                      estimates in rows and columns, for the text and for the page
 *   report_text, report_json */
#ifndef SUMMARY_H
#define SUMMARY_H

#include "figure3.h"  /* defines: Figure3 */
#include "frontier.h" /* defines: Frontier, arm_frontier, frontier_measure; runs.h: Runs, Arm */

enum { MOST_COLUMNS = 8 };

typedef struct {
    char title[64];
    double scale;
    int decimals;
    bool sign, text_only; /* of differences, with their sign; not on the page */
    enum { WITH_INTERVAL, ALONE, INTERVAL, P_VALUE } form;
} Column;

typedef struct {
    int arm; /* -1: the base model */
    Estimate cell[MOST_COLUMNS];
} Row;

typedef struct {
    Column column[MOST_COLUMNS];
    Row *row;
    int columns, n;
} Table;

typedef struct {
    Runs runs;
    Arm base;           /* step 0 of one run a seed */
    const Arm *against; /* the arm that others are compared with; NULL: there is none */
    int measure;        /* of the frontier: a quantity */
    /* Quantities at the last evaluation; measures of the responses there; differences of the
     * quantities from those of `against`, there and as the mean over the second half of training;
     * the frontier's, as seeds, missing, difference, its two intervals, and p. */
    Table values, responses, last, mean, frontier;
    Figure3 geometry;
} Report;

/* ================================================================ tables */

static inline const Arm *row_arm(const Report *r, int arm)
{
    return arm < 0 ? &r->base : &r->runs.arm[arm];
}

static inline void row_add(Table *t, Row row)
{
    t->row = room_for_one(t->row, t->n, sizeof row);
    t->row[t->n++] = row;
}

/* The row of an arm, or NULL. */
static inline const Row *row_find(const Table *t, int arm)
{
    for (int i = 0; i < t->n; i++)
        if (t->row[i].arm == arm)
            return &t->row[i];
    return NULL;
}

/* Values, or differences, of arms that have some. The base model is what it was at the start. */
static inline Table quantities_table(const Report *r, When when, bool differences)
{
    When then = r->against == &r->base ? AT_START : when;
    Table t = {.column = {{"seeds", 1, 0, false, true, ALONE}}, .columns = 1 + COLUMNS};
    for (int a = differences ? 0 : -1; a < r->runs.n_arms; a++) {
        const Arm *arm = row_arm(r, a);
        int seeds = 0, n = 0;
        Row row = {.arm = a};
        if (differences && (!r->against || arm == r->against))
            continue;
        for (int i = 0; i < COLUMNS && r->runs.samples; i++) {
            int q = headline(&r->runs, i);
            row.cell[1 + i] = differences ? difference(arm, when, r->against, then, q, &n)
                                          : estimate(arm, a < 0 ? AT_START : when, q, &n);
            seeds = i ? seeds : n;
        }
        row.cell[0] = point_estimate(seeds);
        if (seeds)
            row_add(&t, row);
    }
    for (int i = 0; i < COLUMNS && t.n; i++) {
        Quantity q = quantity(&r->runs, headline(&r->runs, i));
        Column c = {"", q.scale, differences ? q.decimals : 1, differences, false, WITH_INTERVAL};
        strcpy(c.title, q.title);
        t.column[1 + i] = c;
    }
    return t;
}

static inline Table responses_table(const Report *r)
{
    Table t = {.columns = N_MEASURES};
    for (int i = 0; i < N_MEASURES; i++) {
        t.column[i] = (Column){"", MEASURES[i].scale, MEASURES[i].decimals, false, false, ALONE};
        strcpy(t.column[i].title, MEASURES[i].title);
    }
    for (int k = 0; k < r->values.n; k++) {
        Row row = {.arm = r->values.row[k].arm};
        for (int i = 0; i < N_MEASURES; i++)
            row.cell[i] = point_estimate(response_mean(row_arm(r, row.arm),
                                                       row.arm < 0 ? AT_START : AT_END, i));
        row_add(&t, row);
    }
    return t;
}

static inline Table frontier_table(const Report *r)
{
    Quantity q = quantity(&r->runs, r->measure);
    Table t = {.columns = 6, .column = {
        {"seeds", 1, 0, false, false, ALONE}, {"missing", 1, 0, false, false, ALONE},
        {"difference", q.scale, q.decimals, true, false, ALONE},
        {"t over seeds", q.scale, q.decimals, true, true, INTERVAL},
        {"over problems", q.scale, q.decimals, true, false, INTERVAL},
        {"p", 1, 2, false, true, P_VALUE}}};
    for (int a = 0; a < r->runs.n_arms && r->against && r->against != &r->base; a++) {
        Frontier f = {.seeds = 0};
        if (&r->runs.arm[a] != r->against)
            f = arm_frontier(&r->runs.arm[a], r->against, r->measure);
        if (f.seeds + f.missing > 0)
            row_add(&t, (Row){a, {point_estimate(f.seeds), point_estimate(f.missing), f.over_seeds,
                                  {NO_NUMBER, f.over_seeds.low, f.over_seeds.high},
                                  {NO_NUMBER, f.over_problems.low, f.over_problems.high},
                                  point_estimate(f.p)}});
    }
    return t;
}

/* Fills in all that follows from r->runs; others are compared with the arm of this label, or, if it
 * is "base", with what they were before training: it has no path, and so no frontier. */
static inline void tables_make(Report *r, const char *against)
{
    r->base = base_arm(&r->runs);
    r->measure = r->runs.samples ? frontier_measure(&r->runs, &r->base) : 0;
    for (int a = 0; a < r->runs.n_arms; a++)
        if (!strcmp(r->runs.arm[a].label, against))
            r->against = &r->runs.arm[a];
    if (!r->against && !strcmp(against, r->base.label) && r->base.n)
        r->against = &r->base;
    r->values = quantities_table(r, AT_END, false);
    r->responses = responses_table(r);
    r->last = quantities_table(r, AT_END, true);
    r->mean = quantities_table(r, SECOND_HALF, true);
    r->frontier = frontier_table(r);
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

/* ================================================================ as text */

/* Texts row by row; a column is as wide as its widest cell. */
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
static inline const char *text_interval(char out[CELL], const Column *c, Estimate e)
{
    snprintf(out, CELL, c->sign ? "[%+.*f, %+.*f]" : "[%4.*f, %4.*f]", c->decimals,
             c->scale * e.low, c->decimals, c->scale * e.high);
    return has_interval(e) ? out : "-";
}

static inline bool in_percent(const Column *c)
{
    return c->form == ALONE && !c->sign && c->scale > 1;
}

/* A number alone is flush right with the column's title. */
static inline void text_value(TextTable *t, const Column *c, Estimate e)
{
    char value[CELL] = "-", interval[CELL];
    bool both = c->form == WITH_INTERVAL && has_interval(e);
    if (isfinite(e.value))
        snprintf(value, CELL, c->sign ? "%+.*f%s" : "%.*f%s", c->decimals, c->scale * e.value,
                 in_percent(c) ? " %" : "");
    if (c->form == INTERVAL)
        text_cell(t, "%s", text_interval(interval, c, e));
    else if (c->form == P_VALUE) /* of which 0.0000 would say little */
        text_cell(t, isfinite(e.value) ? "%.*g" : "-", c->decimals, e.value);
    else
        text_cell(t, "%*s%s%s", c->form == ALONE ? (int)strlen(c->title) : 5, value,
                  both ? " " : "", both ? text_interval(interval, c, e) : "");
}

static inline void text_table(const Report *r, const Table *t, const char *first, TextTable *text)
{
    text->columns = 1 + t->columns;
    text_cell(text, "%s", first);
    for (int i = 0; i < t->columns; i++)
        text_cell(text, "%s", t->column[i].title);
    for (int k = 0; k < t->n; k++) {
        text_cell(text, "%.20s", row_arm(r, t->row[k].arm)->label);
        for (int i = 0; i < t->columns; i++)
            text_value(text, &t->column[i], t->row[k].cell[i]);
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
    text_table(r, &r->values, "percent", &t[0]);
    text_end(&t[0]);
    putchar('\n');
    text_table(r, &r->responses, "responses", &t[1]);
    text_end(&t[1]);
    if (r->last.n) {
        printf("\ndifference from %s, same seed and problems, in points: last evaluation; mean "
               "from step %d on\n", r->against->label, half_begins(r));
        text_table(r, &r->last, "last", &t[2]);
        text_table(r, &r->mean, "mean", &t[2]);
        text_end(&t[2]);
    }
    if (r->frontier.n) {
        printf("\nfrontier: %s minus %s's at the same pass@1, seed and learning rate\n",
               quantity(&r->runs, r->measure).title, r->against->label);
        text_table(r, &r->frontier, r->measure == DISTINCT_RIGHT ? "answers" : "points", &t[3]);
        text_end(&t[3]);
        printf("missing: seeds whose paths share less than %g points of pass@1; "
               "p: of a t test over seeds\n", 100 * FRONTIER_RANGE);
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

static inline void json_differences(const Report *r, const Row *row, Buf *b)
{
    for (int i = 0; i < COLUMNS && row; i++) {
        Estimate e = row->cell[1 + i];
        buf_printf(b, "%s\"%s\": {\"value\": ", i ? ", " : "",
                   quantity(&r->runs, headline(&r->runs, i)).name);
        json_put_number(b, e.value);
        json_interval(b, "interval", e);
        buf_str(b, "}");
    }
}

static inline void json_frontier(const Report *r, const Row *row, Buf *b)
{
    buf_printf(b, ", \"frontier\": {\"measure\": \"%s\"", quantity(&r->runs, r->measure).name);
    put(b, "value", row->cell[2].value);
    json_interval(b, "interval", row->cell[3]);
    json_interval(b, "problems/interval", row->cell[4]);
    if (isfinite(row->cell[5].value))
        put(b, "p", row->cell[5].value);
    put(b, "seeds", row->cell[0].value);
    put(b, "missing", row->cell[1].value);
    buf_str(b, "}");
}

static inline void json_arm(const Report *r, const Row *values, Buf *b)
{
    int arm = values->arm;
    buf_printf(b, "{\"seeds\": %.0f", values->cell[0].value);
    json_values(r, arm, arm < 0 ? AT_START : AT_END, b);
    for (int i = 0; i < N_MEASURES; i++)
        put(b, MEASURES[i].key, row_find(&r->responses, arm)->cell[i].value);
    if (arm >= 0) {
        buf_printf(b, ", \"path\": {\"from\": %d", half_begins(r));
        json_values(r, arm, SECOND_HALF, b);
        buf_str(b, "}");
    }
    if (row_find(&r->last, arm)) {
        buf_str(b, ", \"difference\": {");
        json_differences(r, row_find(&r->last, arm), b);
        buf_str(b, ", \"path\": {");
        json_differences(r, row_find(&r->mean, arm), b);
        buf_str(b, "}}");
    }
    if (row_find(&r->frontier, arm))
        json_frontier(r, row_find(&r->frontier, arm), b);
    buf_str(b, "}");
}

static inline void report_json(const Report *r)
{
    Buf b = {0};
    buf_str(&b, "{");
    for (int i = 0; i < r->values.n; i++) {
        const char *label = row_arm(r, r->values.row[i].arm)->label;
        buf_str(&b, i ? ",\n " : "\n ");
        json_put_string(&b, label, strlen(label));
        buf_str(&b, ": ");
        json_arm(r, &r->values.row[i], &b);
    }
    printf("%s\n}\n", b.s);
    buf_free(&b);
}

#endif
