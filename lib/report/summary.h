/* summary.h: the table in the paper's form, as text for people and as one JSON object.
 *
 *   Report            everything that a report is made of
 *   row_estimate      a cell of the table
 *   TextTable         cells in columns as wide as they need
 *   report_text, report_json */
#ifndef SUMMARY_H
#define SUMMARY_H

#include "figure3.h"  /* defines: Figure3 */
#include "frontier.h" /* defines: Frontier, arm_frontier, frontier_measure */
#include "ledger.h"   /* defines: Ledger; runs.h: Runs, Arm, estimate, difference */

typedef struct {
    Runs runs;
    Arm base;           /* step 0 of one run a seed */
    const Arm *against; /* the arm that others are compared with; NULL: none is called grpo */
    int measure;        /* of the frontier: a quantity */
    Frontier *frontier; /* [n_arms] of each arm against that one */
    Ledger *ledger;     /* [n_arms] of each arm's first seed */
    Figure3 geometry;
    int figures; /* numbered so far */
} Report;

/* The frontier of every arm; once, because its samples take a while. */
static inline void frontiers(Report *r)
{
    Runs *all = &r->runs;
    r->frontier = xcalloc((size_t)all->n_arms, sizeof *r->frontier);
    r->measure = all->shape ? frontier_measure(all, &r->base) : 0;
    for (int a = 0; a < all->n_arms && r->against; a++)
        if (&all->arm[a] != r->against)
            r->frontier[a] = arm_frontier(&all->arm[a], r->against, r->measure);
}

static inline bool has_frontier(const Report *r, int arm)
{
    return r->frontier[arm].seeds + r->frontier[arm].missing > 0;
}

static inline bool any_frontier(const Report *r)
{
    bool any = false;
    for (int a = 0; a < r->runs.n_arms; a++)
        any |= has_frontier(r, a);
    return any;
}

/* An estimate of row `arm` of the table: -1 is the base model. */
static inline Estimate row_estimate(const Report *r, int arm, When when, int q, int *seeds)
{
    const Arm *a = arm < 0 ? &r->base : &r->runs.arm[arm];
    return estimate(a->run, a->n, arm < 0 ? AT_START : when, q, seeds);
}

/* Has the arm numbers of its own to compare? */
static inline bool is_compared(const Report *r, int arm)
{
    int pairs = 0;
    if (!r->against || r->against == &r->runs.arm[arm])
        return false;
    difference(&r->runs.arm[arm], r->against, AT_END, 0, &pairs);
    return pairs > 0;
}

static inline bool any_compared(const Report *r)
{
    bool any = false;
    for (int a = 0; a < r->runs.n_arms; a++)
        any |= is_compared(r, a);
    return any;
}

static inline int seeds_of(const Report *r, int arm)
{
    int seeds;
    row_estimate(r, arm, AT_END, 0, &seeds);
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

/* ================================================================ the table as text */

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
    int *width = xcalloc((size_t)t->columns, sizeof *width);
    for (int i = 0; i < t->n; i++)
        width[i % t->columns] = imax(width[i % t->columns], (int)strlen(t->cell[i]));
    for (int i = 0; i < t->n; i++) {
        bool last = i % t->columns == t->columns - 1;
        printf("%-*s%s", last ? 0 : width[i % t->columns], t->cell[i], last ? "\n" : "  ");
    }
    free(width);
    free(t->cell);
}

/* [low, high] of quantity q, in percent or as a count; "-": there is none. */
static inline void text_interval(char out[CELL], Estimate e, int q, bool sign)
{
    double scale = quantity_scale(q);
    if (isfinite(e.low))
        snprintf(out, CELL, sign ? "[%+.*f, %+.*f]" : "[%4.*f, %4.*f]", quantity_decimals(q, sign),
                 scale * e.low, quantity_decimals(q, sign), scale * e.high);
    else
        strcpy(out, "-");
}

/* The value and, if there is one, its interval. */
static inline void text_estimate(TextTable *t, Estimate e, int q, bool sign)
{
    char interval[CELL];
    double value = quantity_scale(q) * e.value;
    int decimals = quantity_decimals(q, sign);
    text_interval(interval, e, q, sign);
    if (!isfinite(e.value))
        text_cell(t, "    -");
    else if (isfinite(e.low))
        text_cell(t, sign ? "%+5.*f %s" : "%5.*f %s", decimals, value, interval);
    else
        text_cell(t, sign ? "%+5.*f" : "%5.*f", decimals, value);
}

/* The head of a table of the four quantities. */
static inline void text_head(const Report *r, TextTable *t, const char *first)
{
    char title[64];
    text_cell(t, "%s", first);
    text_cell(t, "seeds");
    for (int i = 0; i < COLUMNS; i++) {
        quantity_title(&r->runs, headline(&r->runs, i), title);
        text_cell(t, "%s", title);
    }
}

static inline void text_label(TextTable *t, const char *label, int seeds)
{
    text_cell(t, "%.14s", label);
    text_cell(t, "%5d", seeds);
}

static inline void text_values(const Report *r)
{
    TextTable t = {.columns = 2 + COLUMNS};
    text_head(r, &t, "percent");
    for (int a = -1; a < r->runs.n_arms; a++) {
        int seeds = seeds_of(r, a);
        if (!seeds)
            continue;
        text_label(&t, a < 0 ? r->base.label : r->runs.arm[a].label, seeds);
        for (int i = 0; i < COLUMNS; i++) {
            int q = headline(&r->runs, i);
            text_estimate(&t, row_estimate(r, a, AT_END, q, &seeds), q, false);
        }
    }
    text_end(&t);
}

/* The responses themselves: a column for each of ASIDES, flush with the right end of its title. */
static inline void text_asides(const Report *r)
{
    TextTable t = {.columns = 1 + N_ASIDES};
    text_cell(&t, "responses");
    for (int i = 0; i < N_ASIDES; i++)
        text_cell(&t, "%s", ASIDES[i].title);
    for (int a = -1; a < r->runs.n_arms; a++) {
        const Arm *arm = a < 0 ? &r->base : &r->runs.arm[a];
        if (!seeds_of(r, a))
            continue;
        text_cell(&t, "%.14s", arm->label);
        for (int i = 0; i < N_ASIDES; i++) {
            double x = ASIDES[i].scale * aside(arm, a < 0 ? AT_START : AT_END, i);
            char number[CELL] = "-";
            if (isfinite(x))
                snprintf(number, sizeof number, ASIDES[i].scale > 1 ? "%.*f %%" : "%.*f",
                         aside_decimals(i), x);
            text_cell(&t, "%*s", (int)strlen(ASIDES[i].title), number);
        }
    }
    text_end(&t);
}

static inline void text_differences(const Report *r, TextTable *t, When when)
{
    text_head(r, t, when == AT_END ? "last" : "mean");
    for (int a = 0; a < r->runs.n_arms; a++) {
        int pairs = 0;
        if (!is_compared(r, a))
            continue;
        difference(&r->runs.arm[a], r->against, when, 0, &pairs);
        text_label(t, r->runs.arm[a].label, pairs);
        for (int i = 0; i < COLUMNS; i++) {
            int q = headline(&r->runs, i);
            text_estimate(t, difference(&r->runs.arm[a], r->against, when, q, &pairs), q, true);
        }
    }
}

static inline void text_frontier(const Report *r)
{
    TextTable t = {.columns = 6};
    char title[64], interval[CELL];
    quantity_title(&r->runs, r->measure, title);
    printf("\nfrontier: %s minus %s's at the same pass@1, seed and learning rate\n", title,
           r->against->label);
    static const char *const head[] = {"", "seeds", "missing", "difference", "t over seeds",
                                       "over problems"};
    for (int i = 0; i < 6; i++)
        text_cell(&t, "%s", i ? head[i] : r->measure == DISTINCT_RIGHT ? "answers" : "points");
    for (int a = 0; a < r->runs.n_arms; a++) {
        const Frontier *f = &r->frontier[a];
        if (!has_frontier(r, a))
            continue;
        text_label(&t, r->runs.arm[a].label, f->seeds);
        text_cell(&t, "%7d", f->missing);
        if (f->seeds)
            text_cell(&t, "%+10.*f", quantity_decimals(r->measure, true),
                      quantity_scale(r->measure) * f->over_seeds.value);
        else
            text_cell(&t, "%10s", "-");
        text_interval(interval, f->over_seeds, r->measure, true);
        text_cell(&t, "%s", interval);
        text_interval(interval, f->over_problems, r->measure, true);
        text_cell(&t, "%s", interval);
    }
    text_end(&t);
    printf("missing: seeds whose paths share less than %g points of pass@1\n",
           100 * FRONTIER_RANGE);
}

static inline void report_text(const Report *r)
{
    const EvalRow *shape = r->runs.shape;
    TextTable t = {.columns = 2 + COLUMNS};
    char title[64];
    if (!shape) {
        puts("no run has an eval.jsonl: train with --eval-every N");
        return;
    }
    printf("%d held-out problems", shape->problems);
    if (r->runs.distinct_problems)
        printf(" (%d distinct)", r->runs.distinct_problems);
    printf(", %d samples of each, at step %d\n\n", shape->samples, last_step(r));
    text_values(r);
    putchar('\n');
    text_asides(r);
    if (any_compared(r)) {
        printf("\ndifference from %s, same seed and problems, in points: last evaluation; mean "
               "from step %d on\n", r->against->label, half_begins(r));
        text_differences(r, &t, AT_END);
        text_differences(r, &t, SECOND_HALF);
        text_end(&t);
    }
    if (any_frontier(r))
        text_frontier(r);
    quantity_title(&r->runs, DISTINCT_RIGHT, title);
    printf("\n%s: different right answers expected among so many samples, a count\n", title);
    puts("95 % intervals: Student's t over seeds; of one seed, bootstrap over distinct problems");
}

/* ================================================================ the table as JSON */

static inline void json_estimate(Buf *b, const char *name, Estimate e)
{
    if (!isfinite(e.value))
        return;
    put(b, name, e.value);
    if (isfinite(e.low))
        buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", name, e.low, e.high);
}

static inline void json_values(const Report *r, int arm, When when, Buf *b)
{
    char name[32];
    int seeds, passes = pass_count(&r->runs);
    for (int i = 0; i < passes + 2; i++) {
        int q = i < passes ? i : MAJ + i - passes;
        quantity_name(&r->runs, q, name);
        json_estimate(b, name, row_estimate(r, arm, when, q, &seeds));
    }
}

static inline void json_differences(const Report *r, int arm, When when, Buf *b)
{
    char name[32];
    int pairs;
    for (int i = 0; i < columns(&r->runs); i++) {
        Estimate e = difference(&r->runs.arm[arm], r->against, when, headline(&r->runs, i), &pairs);
        quantity_name(&r->runs, headline(&r->runs, i), name);
        buf_printf(b, "%s\"%s\": {\"value\": ", i ? ", " : "", name);
        json_put_number(b, e.value);
        if (isfinite(e.low))
            put_vector(b, "interval", (double[]){e.low, e.high}, 2);
        buf_str(b, "}");
    }
}

static inline void json_frontier(const Report *r, const Frontier *f, Buf *b)
{
    char name[32];
    quantity_name(&r->runs, r->measure, name);
    buf_printf(b, ", \"frontier\": {\"measure\": \"%s\"", name);
    put(b, "value", f->over_seeds.value);
    if (isfinite(f->over_seeds.low))
        put_vector(b, "interval", (double[]){f->over_seeds.low, f->over_seeds.high}, 2);
    if (isfinite(f->over_problems.low))
        put_vector(b, "problems/interval",
                   (double[]){f->over_problems.low, f->over_problems.high}, 2);
    put(b, "seeds", f->seeds);
    put(b, "missing", f->missing);
    buf_str(b, "}");
}

static inline void json_arm(const Report *r, int arm, Buf *b)
{
    const Arm *a = arm < 0 ? &r->base : &r->runs.arm[arm];
    When when = arm < 0 ? AT_START : AT_END;
    buf_printf(b, "{\"seeds\": %d", seeds_of(r, arm));
    json_values(r, arm, when, b);
    for (int i = 0; i < N_ASIDES; i++)
        put(b, ASIDES[i].key, aside(a, when, i));
    if (arm >= 0) {
        buf_printf(b, ", \"path\": {\"from\": %d", half_begins(r));
        json_values(r, arm, SECOND_HALF, b);
        buf_str(b, "}");
    }
    if (arm >= 0 && is_compared(r, arm)) {
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
        const Arm *arm = a < 0 ? &r->base : &r->runs.arm[a];
        if (!r->runs.shape || !seeds_of(r, a))
            continue;
        buf_str(&b, b.n > 1 ? ",\n " : "\n ");
        json_put_string(&b, arm->label, strlen(arm->label));
        buf_str(&b, ": ");
        json_arm(r, a, &b);
    }
    printf("%s\n}\n", b.s);
    buf_free(&b);
}

#endif
