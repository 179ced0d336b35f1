/* summary.h: the table in the paper's form, as text for people and as one JSON object.
 *
 *   Report            everything that a report is made of
 *   row_estimate      a cell of the table
 *   report_text, report_json */
#ifndef SUMMARY_H
#define SUMMARY_H

#include "figure3.h" /* defines: Figure3 */
#include "ledger.h"  /* defines: Ledger; runs.h: Runs, Arm, estimate, difference */

typedef struct {
    Runs runs;
    Arm base;           /* step 0 of one run a seed */
    const Arm *against; /* the arm that others are compared with; NULL: none is called grpo */
    Ledger *ledger;     /* [n_arms] of each arm's first seed */
    Figure3 geometry;
    int figures; /* numbered so far */
} Report;

enum { COLUMNS = 3 }; /* of the paper's table */

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

static inline void text_estimate(Estimate e, bool sign)
{
    if (!isfinite(e.value))
        printf("  %-21s", "-");
    else if (!isfinite(e.low))
        printf(sign ? "  %+5.1f%16s" : "  %5.1f%16s", 100 * e.value, "");
    else
        printf(sign ? "  %+5.1f [%+5.1f, %+5.1f]" : "  %5.1f [%5.1f, %5.1f]  ", 100 * e.value,
               100 * e.low, 100 * e.high);
}

static inline void text_head(const Report *r, const char *first, const char *end)
{
    char name[32];
    printf("%-14s seeds", first);
    for (int i = 0; i < COLUMNS; i++) {
        quantity_name(&r->runs, headline(&r->runs, i), name);
        printf(end || i < COLUMNS - 1 ? "   %-20s" : "   %s", name);
    }
    puts(end ? end : "");
}

static inline void text_values(const Report *r)
{
    text_head(r, "percent", "  cosine  negative  entropy  length");
    for (int a = -1; a < r->runs.n_arms; a++) {
        const Arm *arm = a < 0 ? &r->base : &r->runs.arm[a];
        int seeds = seeds_of(r, a);
        When when = a < 0 ? AT_START : AT_END;
        if (!seeds)
            continue;
        printf("%-14.14s %5d", arm->label, seeds);
        for (int i = 0; i < COLUMNS; i++)
            text_estimate(row_estimate(r, a, when, headline(&r->runs, i), &seeds), false);
        printf("%8.3f%8.1f %%%9.3f%8.1f\n", aside(arm, when, 0), 100 * aside(arm, when, 1),
               aside(arm, when, 2), aside(arm, when, 3));
    }
}

static inline void text_differences(const Report *r, When when)
{
    for (int a = 0; a < r->runs.n_arms; a++) {
        int pairs = 0;
        if (!is_compared(r, a))
            continue;
        difference(&r->runs.arm[a], r->against, when, 0, &pairs);
        printf("%-14.14s %5d", r->runs.arm[a].label, pairs);
        for (int i = 0; i < COLUMNS; i++)
            text_estimate(difference(&r->runs.arm[a], r->against, when, headline(&r->runs, i),
                                     &pairs), true);
        putchar('\n');
    }
}

static inline void report_text(const Report *r)
{
    if (!r->runs.shape) {
        puts("no run has an eval.jsonl: train with --eval-every N");
        return;
    }
    text_values(r);
    if (any_compared(r)) {
        printf("\ndifference from %s in percentage points, same seed, same problems\n",
               r->against->label);
        text_head(r, "last", NULL);
        text_differences(r, AT_END);
        printf("mean of the evaluations from step %d on\n", half_begins(r));
        text_differences(r, SECOND_HALF);
    }
    puts("\n95 % intervals: Student's t over seeds; of one seed, bootstrap over problems");
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
    for (int i = 0; i <= passes; i++) {
        int q = i < passes ? i : MAJ;
        quantity_name(&r->runs, q, name);
        json_estimate(b, name, row_estimate(r, arm, when, q, &seeds));
    }
}

static inline void json_differences(const Report *r, int arm, When when, Buf *b)
{
    char name[32];
    int pairs;
    for (int i = 0; i < COLUMNS; i++) {
        Estimate e = difference(&r->runs.arm[arm], r->against, when, headline(&r->runs, i), &pairs);
        quantity_name(&r->runs, headline(&r->runs, i), name);
        buf_printf(b, "%s\"%s\": {\"value\": ", i ? ", " : "", name);
        json_put_number(b, e.value);
        if (isfinite(e.low))
            put_vector(b, "interval", (double[]){e.low, e.high}, 2);
        buf_str(b, "}");
    }
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
