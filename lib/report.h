/* report.h: runs in, a table and one self-contained HTML page out.
 *
 *   report_text    the table in the paper's form, for a terminal
 *   report_json    the same as one JSON object
 *   report_page    every panel: table, frontier, curves, geometry, groups, novelty, options
 *   report_svg     the frontier alone, as an SVG file
 *
 * It reads files of run directories and nothing else, and nothing else reads it. Figures are
 * inline SVG (svg.h): no script, no network, no font of its own. */
#ifndef REPORT_H
#define REPORT_H

#include "figure3.h" /* defines: Figure3, figure3_read, figure3_panel */
#include "ledger.h"  /* defines: Ledger, ledger_read; runs.h: Runs, Arm, estimate, difference */
#include "svg.h"     /* defines: Plot, html_text, style_sheet */

typedef struct {
    Runs runs;
    Arm base;           /* step 0 of one run a seed */
    const Arm *against; /* the arm that others are compared with; NULL: none is called grpo */
    Ledger *ledger;     /* [n_arms] of each arm's first seed */
    Figure3 geometry;
    int figures; /* numbered so far */
} Report;

enum { COLUMNS = 3 }; /* of the paper's table */

static inline int arm_style(int arm) { return arm % N_STYLES; }

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

static inline int seeds_of(const Report *r, int arm)
{
    int seeds;
    row_estimate(r, arm, AT_END, 0, &seeds);
    return seeds;
}

/* Where the second half of the path begins: its first evaluation of the first run, or -1. */
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

static inline void text_head(const Report *r, const char *first)
{
    char name[32];
    printf("%-14s seeds", first);
    for (int i = 0; i < COLUMNS; i++) {
        quantity_name(&r->runs, headline(&r->runs, i), name);
        printf("   %-20s", name);
    }
}

static inline void text_values(const Report *r)
{
    text_head(r, "percent");
    printf("%8s%10s%9s%8s\n", "cosine", "negative", "entropy", "length");
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
    bool any = false;
    if (!r->runs.shape) {
        puts("no run has an eval.jsonl: train with --eval-every N");
        return;
    }
    text_values(r);
    for (int a = 0; a < r->runs.n_arms; a++)
        any |= is_compared(r, a);
    if (any) {
        printf("\ndifference from %s in percentage points, same seed, same problems\n",
               r->against->label);
        text_head(r, "last");
        putchar('\n');
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

/* ================================================================ parts of the page */

static inline void page_heading(Buf *b, const char *s) { buf_printf(b, "<h2>%s</h2>\n", s); }

/* Ends a figure. */
static inline void page_caption(Report *r, Buf *b, const char *fmt, ...) PRINTF_LIKE(3, 4);
static inline void page_caption(Report *r, Buf *b, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_printf(b, "<figcaption><b>Figure %d.</b> %s</figcaption>\n</figure>\n", ++r->figures, text);
}

static inline void page_absent(Buf *b, const char *what)
{
    buf_printf(b, "<p class=\"absent\">%s</p>\n", what);
}

/* A line with its mark, as the curves have it. */
static inline void page_swatch(Buf *b, int style, bool line)
{
    buf_printf(b, "<svg viewBox=\"0 0 %d 14\" aria-hidden=\"true\">", line ? 34 : 14);
    if (line)
        buf_printf(b, "<path class=\"line s%d\" d=\"M1 7L33 7\"/>", style);
    svg_mark(b, line ? 17 : 7, 7, 3.6, style, false);
    buf_str(b, "</svg>");
}

static inline void page_key(const Report *r, Buf *b)
{
    buf_str(b, "<ul class=\"key\">");
    for (int a = 0; a < r->runs.n_arms; a++) {
        buf_str(b, "<li>");
        page_swatch(b, arm_style(a), true);
        html_string(b, r->runs.arm[a].label);
        buf_str(b, "</li>");
    }
    buf_str(b, "</ul>\n");
}

/* ---------------------------------------------------------------- table */

static inline void signed_number(Buf *b, double x, int decimals)
{
    buf_str(b, x >= 0.5 * pow(10, -decimals) ? "+" : "");
    number(b, x, decimals);
}

/* A cell; a difference whose interval leaves 0 out is bold. */
static inline void table_cell(Buf *b, Estimate e, bool sign)
{
    void (*show)(Buf *, double, int) = sign ? signed_number : number;
    bool bold = sign && isfinite(e.low) && (e.low > 0 || e.high < 0);
    buf_str(b, bold ? "<td class=\"n\"><b>" : "<td class=\"n\">");
    show(b, 100 * e.value, 1);
    buf_str(b, bold ? "</b>" : "");
    if (isfinite(e.low)) {
        buf_str(b, "<i>[");
        show(b, 100 * e.low, 1);
        buf_str(b, ", ");
        show(b, 100 * e.high, 1);
        buf_str(b, "]</i>");
    }
    buf_str(b, "</td>");
}

static inline void table_head(const Report *r, Buf *b, const char *title)
{
    char name[32];
    buf_printf(b, "<h3>%s</h3>\n<table class=\"full\"><thead><tr><th></th>", title);
    for (int i = 0; i < COLUMNS; i++) {
        quantity_name(&r->runs, headline(&r->runs, i), name);
        buf_printf(b, "<th class=\"n\">%s</th>", name);
    }
    buf_str(b, "</tr></thead><tbody>\n");
}

static inline void table_name(Buf *b, const char *label, int style)
{
    buf_str(b, "<tr><th scope=\"row\">");
    page_swatch(b, style, false);
    html_string(b, label);
    buf_str(b, "</th>");
}

static inline void table_values(const Report *r, Buf *b)
{
    char title[64];
    int seeds;
    snprintf(title, sizeof title, "Last evaluation, step %d, %%", last_step(r));
    table_head(r, b, title);
    for (int a = -1; a < r->runs.n_arms; a++) {
        if (!seeds_of(r, a))
            continue;
        table_name(b, a < 0 ? "base" : r->runs.arm[a].label, a < 0 ? BASE_STYLE : arm_style(a));
        for (int i = 0; i < COLUMNS; i++)
            table_cell(b, row_estimate(r, a, AT_END, headline(&r->runs, i), &seeds), false);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table>\n");
}

static inline void table_asides(const Report *r, Buf *b)
{
    buf_str(b, "<h3>The responses themselves</h3>\n<table class=\"full\"><thead><tr><th></th>"
               "<th class=\"n\">cosine</th><th class=\"n\">negative, %</th>"
               "<th class=\"n\">entropy</th><th class=\"n\">length</th></tr></thead><tbody>\n");
    for (int a = -1; a < r->runs.n_arms; a++) {
        const Arm *arm = a < 0 ? &r->base : &r->runs.arm[a];
        if (!seeds_of(r, a))
            continue;
        table_name(b, arm->label, a < 0 ? BASE_STYLE : arm_style(a));
        for (int i = 0; i < N_ASIDES; i++) {
            buf_str(b, "<td class=\"n\">");
            number(b, ASIDES[i].scale * aside(arm, a < 0 ? AT_START : AT_END, i),
                   i == 1 || i == 3 ? 1 : 3);
            buf_str(b, "</td>");
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table>\n");
}

static inline void table_differences(const Report *r, Buf *b, When when, const char *title)
{
    int pairs;
    table_head(r, b, title);
    for (int a = 0; a < r->runs.n_arms; a++) {
        if (!is_compared(r, a))
            continue;
        table_name(b, r->runs.arm[a].label, arm_style(a));
        for (int i = 0; i < COLUMNS; i++)
            table_cell(b, difference(&r->runs.arm[a], r->against, when, headline(&r->runs, i),
                                     &pairs), true);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table>\n");
}

/* ---------------------------------------------------------------- differences, drawn */

/* One arm's difference as a mark with its interval as a line, at height y. */
static inline void forest_mark(const Plot *p, Estimate e, double y, int style, bool hollow)
{
    char class[32];
    if (!isfinite(e.value))
        return;
    snprintf(class, sizeof class, "%s s%d", hollow ? "thin" : "line", style);
    if (isfinite(e.low))
        svg_line(p->b, plot_x(p, 100 * e.low), y, plot_x(p, 100 * e.high), y, class);
    svg_mark(p->b, plot_x(p, 100 * e.value), y, hollow ? 3 : 4, style, hollow);
}

/* The differences of one quantity: arms below each other, with 0 as a line. */
static inline void forest_panel(const Report *r, Buf *b, int q)
{
    enum { ROW = 34 };
    Span x = {0, 0};
    char name[64], label[32];
    int pairs, rows = 0;
    for (int a = 0; a < r->runs.n_arms; a++)
        for (int w = AT_END; w <= SECOND_HALF && is_compared(r, a); w++) {
            Estimate e = difference(&r->runs.arm[a], r->against, (When)w, q, &pairs);
            span_add(&x, 100 * (isfinite(e.low) ? e.low : e.value));
            span_add(&x, 100 * (isfinite(e.high) ? e.high : e.value));
            rows += w == AT_END;
        }
    quantity_name(&r->runs, q, label);
    snprintf(name, sizeof name, "%s, difference", label);
    Plot p = {.b = b, .left = 104, .right = 326, .top = 26, .bottom = 30 + rows * ROW};
    plot_fit(x, MOST_TICKS, &p.x0, &p.x1, &p.step_x, &p.decimals_x);
    svg_open(b, 340, p.bottom + 38, "plot", name);
    svg_text(b, 2, 14, "name", "start", name);
    for (double at = p.x0; at < p.x1 + p.step_x / 2; at += p.step_x)
        plot_tick(&p, at, false);
    svg_line(b, p.left, p.bottom, p.right, p.bottom, "axis");
    svg_line(b, plot_x(&p, 0), p.top, plot_x(&p, 0), p.bottom, "zero");
    svg_text(b, p.right, p.bottom + 34, "t", "end", "percentage points");
    for (int a = 0, row = 0; a < r->runs.n_arms; a++) {
        double y = 30 + ROW * (row + 0.36);
        if (!is_compared(r, a))
            continue;
        svg_text(b, p.left - 12, y + 8, "end", "end", r->runs.arm[a].label);
        forest_mark(&p, difference(&r->runs.arm[a], r->against, AT_END, q, &pairs), y,
                    arm_style(a), false);
        forest_mark(&p, difference(&r->runs.arm[a], r->against, SECOND_HALF, q, &pairs), y + 11,
                    arm_style(a), true);
        row++;
    }
    plot_close(&p);
}

static inline void panel_differences(Report *r, Buf *b)
{
    char title[96];
    bool any = false;
    for (int a = 0; a < r->runs.n_arms; a++)
        any |= is_compared(r, a);
    if (!any) {
        page_absent(b, "Differences: they are taken from the runs of the directory called grpo "
                       "that share a seed with others; there are none.");
        return;
    }
    buf_str(b, "<figure><div class=\"pair\"><div>\n");
    snprintf(title, sizeof title, "At the last evaluation, points");
    table_differences(r, b, AT_END, title);
    buf_str(b, "</div><div>\n");
    snprintf(title, sizeof title, "Mean from step %d on, points", half_begins(r));
    table_differences(r, b, SECOND_HALF, title);
    buf_str(b, "</div></div>\n<div class=\"grid forest\">\n");
    for (int i = 0; i < COLUMNS; i++)
        forest_panel(r, b, headline(&r->runs, i));
    buf_str(b, "</div>\n");
    page_caption(r, b, "What each method adds to <b>%s</b> on the same seeds and problems, in "
                 "percentage points, with 95 %% intervals. Filled: the last evaluation; hollow: "
                 "the mean of the evaluations from step %d on, which one lucky step cannot make. "
                 "Bold, and clear of the dashed line: the interval leaves 0 out.",
                 r->against->label, half_begins(r));
}

static inline void panel_table(Report *r, Buf *b)
{
    page_heading(b, "Results");
    if (!r->runs.shape) {
        page_absent(b, "No run has an eval.jsonl. Train with --eval-every N, and the tables, the "
                       "frontier and the held-out curves will be here.");
        return;
    }
    buf_str(b, "<figure class=\"short\"><div class=\"pair\"><div>\n");
    table_values(r, b);
    buf_str(b, "</div><div>\n");
    table_asides(r, b);
    buf_str(b, "</div></div>\n");
    page_caption(r, b, "Right answers to %d held-out problems, %d samples of each, with 95 %% "
                 "intervals: Student\xE2\x80\x99s t over seeds; with one seed, bootstrap over "
                 "problems. pass@1: the share that is right; maj@%d: is the most frequent of %d "
                 "answers right; pass@k: is any of k. Beside it the same responses: mean cosine of "
                 "their gradient features and share of pairs below zero, entropy (nats a token), "
                 "length (tokens).", r->runs.shape->problems, r->runs.shape->samples,
                 r->runs.shape->maj_k, r->runs.shape->maj_k);
    panel_differences(r, b);
}

/* ---------------------------------------------------------------- frontier */

/* A curve over steps, mean over an arm's seeds, with the lowest and the highest seed. */
typedef struct {
    double *x, *mean, *low, *high;
    int n;
} Curve;

static inline Curve curve_new(int n)
{
    size_t bytes = (size_t)n * sizeof(double);
    return (Curve){xmalloc(bytes), xmalloc(bytes), xmalloc(bytes), xmalloc(bytes), n};
}

static inline void curve_free(Curve *c)
{
    free(c->x);
    free(c->mean);
    free(c->low);
    free(c->high);
}

/* Folds one seed's value into point i; `seen`: how many finite ones there were. */
static inline void curve_add(Curve *c, int i, double value, int seen)
{
    if (!isfinite(value))
        return;
    c->low[i] = seen ? fmin(c->low[i], value) : value;
    c->high[i] = seen ? fmax(c->high[i], value) : value;
    c->mean[i] = seen ? c->mean[i] + (value - c->mean[i]) / (seen + 1) : value;
}

/* A quantity at every evaluation that all of an arm's evaluated seeds have, in percent. */
static inline Curve eval_curve(const Arm *a, int q)
{
    int n = INT_MAX;
    for (int k = 0; k < a->n; k++)
        n = a->run[k]->n_evals ? imin(n, a->run[k]->n_evals) : n;
    Curve c = curve_new(n == INT_MAX ? 0 : n);
    for (int i = 0; i < c.n; i++) {
        int seen = 0;
        c.mean[i] = c.low[i] = c.high[i] = (double)NAN;
        for (int k = 0; k < a->n; k++) {
            if (!a->run[k]->n_evals)
                continue;
            double value = 100 * a->run[k]->eval[i].value[q];
            c.x[i] = a->run[k]->eval[i].step;
            curve_add(&c, i, value, seen);
            seen += isfinite(value);
        }
    }
    return c;
}

/* Where an arm's path ends, and the words there. */
typedef struct {
    double x, y, text_y;
    int arm, step;
} PathEnd;

/* Moves words apart: those that come closer than `gap` go down. */
static inline void spread_ends(PathEnd *e, int n, double gap)
{
    for (int i = 1; i < n; i++)
        for (int k = i; k > 0 && e[k].y < e[k - 1].y; k--) {
            PathEnd swap = e[k];
            e[k] = e[k - 1];
            e[k - 1] = swap;
        }
    for (int i = 0; i < n; i++)
        e[i].text_y = i ? fmax(e[i].y, e[i - 1].text_y + gap) : e[i].y;
    for (int i = n - 1; i > 0; i--) /* half of the way back up, so that groups stay centred */
        if (e[i].text_y > e[i].y && e[i - 1].text_y >= e[i].text_y - gap)
            e[i - 1].text_y = fmin(e[i - 1].text_y, e[i].text_y - gap);
}

static inline void frontier_words(const Report *r, const Plot *p, PathEnd *e, int n)
{
    char text[64];
    spread_ends(e, n, 15);
    for (int i = 0; i < n; i++) {
        double x = p->right + 14;
        snprintf(text, sizeof text, "%.22s", r->runs.arm[e[i].arm].label);
        svg_line(p->b, e[i].x + 7, e[i].y, x - 4, e[i].text_y, "leader");
        svg_mark(p->b, x + 4, e[i].text_y, 4, arm_style(e[i].arm), false);
        svg_text(p->b, x + 13, e[i].text_y + 4, "end", "start", text);
    }
}

/* The path of one arm; its end goes into *end. */
static inline void frontier_path(const Plot *p, const Curve *x, const Curve *y, int style,
                                 PathEnd *end)
{
    int n = x->n;
    plot_line(p, x->mean, y->mean, n, style);
    for (int i = 0; i < n; i++)
        if (x->x[i] > 0)
            plot_mark(p, x->mean[i], y->mean[i], i == n - 1 ? 5 : 2.6, style, false);
    end->x = plot_x(p, x->mean[n - 1]);
    end->y = plot_y(p, y->mean[n - 1]);
    end->step = (int)x->x[n - 1];
}

/* The span of a quantity's means over all arms. */
static inline Span frontier_span(const Report *r, int q)
{
    Span s = NO_SPAN;
    for (int a = 0; a < r->runs.n_arms; a++) {
        Curve c = eval_curve(&r->runs.arm[a], q);
        for (int i = 0; i < c.n; i++)
            span_add(&s, c.mean[i]);
        curve_free(&c);
    }
    return s;
}

/* pass@16 against pass@1, one path an arm; the names stand beside the ends. */
static inline void frontier_draw(const Report *r, Buf *b)
{
    char x_name[32], y_name[32], title[64], below[64], step[32];
    int top = headline(&r->runs, 2), n = 0;
    double low, high, tick, x0 = NAN, y0 = NAN;
    int decimals;
    PathEnd *end = xcalloc((size_t)r->runs.n_arms, sizeof *end);
    quantity_name(&r->runs, 0, x_name);
    quantity_name(&r->runs, top, y_name);
    snprintf(title, sizeof title, "%s, %%", y_name);
    snprintf(below, sizeof below, "%s, %%", x_name);
    plot_fit(frontier_span(r, 0), MOST_TICKS, &low, &high, &tick, &decimals);
    Plot p = plot_open(b, 700, 430, (Span){low, high}, frontier_span(r, top), title, below, true);
    for (int a = 0; a < r->runs.n_arms; a++) {
        Curve x = eval_curve(&r->runs.arm[a], 0), y = eval_curve(&r->runs.arm[a], top);
        if (x.n && isfinite(x.mean[x.n - 1]) && isfinite(y.mean[x.n - 1])) {
            end[n].arm = a;
            frontier_path(&p, &x, &y, arm_style(a), &end[n++]);
            x0 = x.x[0] > 0 ? x0 : x.mean[0];
            y0 = x.x[0] > 0 ? y0 : y.mean[0];
        }
        curve_free(&x);
        curve_free(&y);
    }
    plot_mark(&p, x0, y0, 5.5, BASE_STYLE, true);
    if (isfinite(x0))
        svg_text(b, plot_x(&p, x0), plot_y(&p, y0) - 12, "end", "middle", "base, step 0");
    frontier_words(r, &p, end, n);
    snprintf(step, sizeof step, "step %d", last_step(r));
    if (n)
        svg_text(b, p.right + 14, end[0].text_y - 14, "t", "start", step);
    plot_close(&p);
    free(end);
}

static inline void panel_frontier(Report *r, Buf *b)
{
    if (!r->runs.shape)
        return;
    page_heading(b, "The frontier");
    buf_str(b, "<figure class=\"short beside\"><div>\n");
    frontier_draw(r, b);
    buf_str(b, "</div>\n");
    page_caption(r, b, "Each method\xE2\x80\x99s path from the base model: how often one answer is "
                 "right, to the right, and how often any of %d is, upward; a mark at every "
                 "evaluation, mean over seeds, the large one the last. A path that goes right and "
                 "down buys accuracy with variety.", 1 << headline(&r->runs, 2));
}

/* The frontier as a file of its own, on white. */
static inline void report_svg(const Report *r, const char *path)
{
    Buf b = {0}, drawing = {0};
    if (!r->runs.shape)
        die("--svg: no run has an eval.jsonl to draw; train with --eval-every N");
    frontier_draw(r, &drawing);
    const char *first = strstr(drawing.s, "</title>") + strlen("</title>");
    buf_str(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"430\" ");
    buf_add(&b, drawing.s + 5, (size_t)(first - drawing.s - 5));
    buf_str(&b, "<style>");
    style_scheme(&b, false);
    style_marks(&b);
    buf_str(&b, LOOK_SVG);
    buf_str(&b, "</style><rect width=\"700\" height=\"430\" fill=\"#fff\"/>");
    buf_str(&b, first);
    write_file(path, b.s, b.n);
    buf_free(&b);
    buf_free(&drawing);
}

/* ---------------------------------------------------------------- learning curves */

/* Steps of the running mean: a twentieth of the longest run, odd. */
static inline int smoothing(const Report *r)
{
    int n = 0;
    for (int i = 0; i < r->runs.n; i++)
        n = imax(n, r->runs.run[i].n_steps);
    return n / 20 | 1;
}

/* The mean of what is known among the w values around x[i]. */
static inline double running_mean(const double *x, int n, int i, int w)
{
    double sum = 0;
    int count = 0;
    for (int k = imax(0, i - w / 2); k < imin(n, i + w / 2 + 1); k++)
        if (isfinite(x[k])) {
            sum += x[k];
            count++;
        }
    return count ? sum / count : (double)NAN;
}

/* A measure of training over the steps that all seeds of an arm have, thinned to what can be
 * seen. */
static inline Curve step_curve(const Arm *a, int measure, int w)
{
    enum { POINTS = 160 };
    int steps = INT_MAX;
    for (int k = 0; k < a->n; k++)
        steps = imin(steps, a->run[k]->n_steps);
    int stride = (steps + POINTS - 1) / POINTS;
    Curve c = curve_new(steps ? (steps - 1) / stride + 1 : 0);
    for (int i = 0; i < c.n; i++) {
        int seen = 0, at = i == c.n - 1 ? steps - 1 : i * stride;
        c.mean[i] = c.low[i] = c.high[i] = (double)NAN;
        for (int k = 0; k < a->n; k++) {
            double value = CURVES[measure].scale *
                           running_mean(a->run[k]->curve[measure], steps, at, w);
            c.x[i] = a->run[k]->step[at];
            curve_add(&c, i, value, seen);
            seen += isfinite(value);
        }
    }
    return c;
}

/* One panel: `measure` of training, or, where that is negative, quantity q of evaluations. */
static inline void curve_panel(const Report *r, Buf *b, int measure, int q)
{
    char title[96];
    int arms = r->runs.n_arms, w = smoothing(r);
    Span x = NO_SPAN, y = NO_SPAN;
    Curve *c = xcalloc((size_t)arms, sizeof *c);
    for (int a = 0; a < arms; a++) {
        c[a] = measure < 0 ? eval_curve(&r->runs.arm[a], q)
                           : step_curve(&r->runs.arm[a], measure, w);
        for (int i = 0; i < c[a].n; i++) {
            span_add(&x, c[a].x[i]);
            span_add(&y, c[a].low[i]);
            span_add(&y, c[a].high[i]);
        }
    }
    if (measure < 0) {
        quantity_name(&r->runs, q, title);
        strcat(title, " on held-out problems, %");
    }
    if (y.low <= y.high) {
        Plot p = plot_open(b, 340, 230, x, y, measure < 0 ? title : CURVES[measure].title, "step",
                           false);
        for (int a = 0; a < arms; a++)
            if (r->runs.arm[a].n > 1)
                plot_band(&p, c[a].x, c[a].low, c[a].high, c[a].n, arm_style(a));
        for (int a = 0; a < arms; a++) {
            int every = measure < 0 ? 1 : imax(1, c[a].n / 5);
            plot_line(&p, c[a].x, c[a].mean, c[a].n, arm_style(a));
            for (int i = measure < 0 ? 0 : every * (a + 1) / (arms + 1); i < c[a].n; i += every)
                plot_mark(&p, c[a].x[i], c[a].mean[i], 2.8, arm_style(a), false);
        }
        plot_close(&p);
    }
    for (int a = 0; a < arms; a++)
        curve_free(&c[a]);
    free(c);
}

static inline void panel_curves(Report *r, Buf *b)
{
    page_heading(b, "Along the way");
    buf_str(b, "<figure>\n");
    page_key(r, b);
    buf_str(b, "<div class=\"grid\">\n");
    for (int i = 0; i < COLUMNS && r->runs.shape; i++)
        curve_panel(r, b, -1, headline(&r->runs, i));
    for (int i = 0; i < N_CURVES; i++)
        curve_panel(r, b, i, 0);
    buf_str(b, "</div>\n");
    page_caption(r, b, "Lines: mean over seeds; shaded: from the lowest seed to the highest. "
                 "Held-out panels have a mark at each evaluation; the others are of the training "
                 "batch, a running mean over %d steps. The cosine is that of the gradient features "
                 "of answers to one problem, \xCE\xA3 A\xC2\xB2 the sum of squared advantages.",
                 smoothing(r));
}

/* ---------------------------------------------------------------- groups */

enum { MOST_SHOWN = 32, MOST_ALIGNED = 20 }; /* responses of a group; beside the matrix's rows */

static inline int by_response(const void *a, const void *b)
{
    const LedgerRow *x = *(const LedgerRow *const *)a, *y = *(const LedgerRow *const *)b;
    int order = (y->reward > 0) - (x->reward > 0);
    if (!order && x->response.s && y->response.s)
        order = strcmp(x->response.s, y->response.s);
    return order ? order : x->rollout - y->rollout;
}

/* The right responses first, equal ones side by side; at most MOST_SHOWN. *n_right: how many of
 * them are right. The caller frees it. */
static inline const LedgerRow **group_order(const LedgerGroup *g, int *n, int *n_right)
{
    const LedgerRow **order = xmalloc((size_t)g->n * sizeof *order);
    *n_right = 0;
    for (int i = 0; i < g->n; i++)
        order[i] = &g->row[i];
    qsort(order, (size_t)g->n, sizeof *order, by_response);
    *n = imin(g->n, MOST_SHOWN);
    for (int i = 0; i < *n; i++)
        *n_right += order[i]->reward > 0;
    return order;
}

enum { HEAT_LEFT = 24, HEAT_SIDE = 300 };

/* The cells of one step of the colour scale, as one path. */
static inline void heat_cells(Buf *b, const LedgerRow *const *row, int n, int step)
{
    size_t empty = b->n;
    double size = (double)HEAT_SIDE / n;
    bool any = false;
    buf_printf(b, "<path class=\"h%d\" d=\"", step);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            double s = fmin(fmax(row[i]->S[row[k]->rollout], -1), 1);
            if (lrint((s + 1) / 2 * (HEAT_STEPS - 1)) != step)
                continue;
            any = true;
            svg_point(b, 'M', HEAT_LEFT + k * size, i * size);
            buf_printf(b, "h%.4gv%.4gh%.4gz", size, size, -size);
        }
    if (any)
        buf_str(b, "\"/>");
    else
        b->n = empty;
}

static inline void heat_map(Buf *b, const LedgerRow *const *row, int n, int n_right,
                            const char *title)
{
    double size = (double)HEAT_SIDE / n, at = n_right * size;
    char text[16];
    svg_open(b, HEAT_LEFT + HEAT_SIDE, HEAT_SIDE, "heat", title);
    for (int step = 0; step < HEAT_STEPS; step++)
        heat_cells(b, row, n, step);
    for (int i = 0; i < n && n <= MOST_ALIGNED; i++) {
        snprintf(text, sizeof text, "%d", row[i]->rollout);
        svg_text(b, HEAT_LEFT - 5, 4 + (i + 0.5) * size, "t", "end", text);
    }
    if (n_right > 0 && n_right < n) {
        svg_line(b, HEAT_LEFT, at, HEAT_LEFT + HEAT_SIDE, at, "border");
        svg_line(b, HEAT_LEFT + at, 0, HEAT_LEFT + at, HEAT_SIDE, "border");
    }
    buf_str(b, "</svg>\n");
}

static inline void heat_legend(Buf *b)
{
    double width = 9;
    svg_open(b, 240, 30, "legend", "colours of the cosine from -1 to 1");
    for (int i = 0; i < HEAT_STEPS; i++)
        buf_printf(b, "<path class=\"h%d\" d=\"M%g 2h%gv10h%gz\"/>", i, 20 + i * width, width,
                   -width);
    svg_text(b, 20 + width / 2, 26, "t", "middle", "\xE2\x88\x92" "1");
    svg_text(b, 20 + HEAT_STEPS * width / 2, 26, "t", "middle", "0");
    svg_text(b, 20 + (HEAT_STEPS - 0.5) * width, 26, "t", "middle", "+1");
    buf_str(b, "</svg>\n");
}

/* Where they are few, the lines stand beside the rows of the matrix. */
static inline void group_list(Buf *b, const LedgerRow *const *row, int n)
{
    if (n <= MOST_ALIGNED)
        buf_printf(b, "<table class=\"beside-rows\" style=\"--row:%.4gpx\"><tbody>\n",
                   (double)HEAT_SIDE / n);
    else
        buf_str(b, "<table><tbody>\n");
    for (int i = 0; i < n; i++) {
        buf_printf(b, "<tr class=\"%s\"><td class=\"n i\">%d</td><td class=\"n mark\">",
                   row[i]->reward > 0 ? "right" : "wrong", row[i]->rollout);
        signed_number(b, row[i]->reward, row[i]->reward == rint(row[i]->reward) ? 0 : 2);
        buf_str(b, "</td><td class=\"text\">");
        html_text(b, row[i]->response.s, row[i]->response.n, 72);
        buf_str(b, "</td></tr>\n");
    }
    buf_str(b, "</tbody></table>\n");
}

static inline void group_panel(Buf *b, const LedgerGroup *g, const char *label)
{
    int n, n_right;
    const LedgerRow **row = group_order(g, &n, &n_right);
    char title[64];
    snprintf(title, sizeof title, "cosines of %d responses at step %d", n, g->row->step);
    buf_str(b, "<div class=\"group\"><h3>");
    html_string(b, label);
    buf_printf(b, ", step %d: <span class=\"text\">", g->row->step);
    html_text(b, g->row->prompt.s, g->row->prompt.n, 160);
    buf_str(b, "</span></h3>\n");
    heat_map(b, row, n, n_right, title);
    group_list(b, row, n);
    buf_str(b, "</div>\n");
    free(row);
}

/* Do two groups hold the same responses? Runs from one base model begin alike. */
static inline bool groups_equal(const LedgerGroup *a, const LedgerGroup *b)
{
    bool equal = a->n == b->n;
    for (int i = 0; i < a->n && equal; i++)
        equal = a->row[i].response.n == b->row[i].response.n && a->row[i].response.s &&
                b->row[i].response.s && !strcmp(a->row[i].response.s, b->row[i].response.s);
    return equal;
}

/* Arms to look into: the first, then those of method g2rl, then others; three at most. */
static inline int shown_arms(const Report *r, int arm[COLUMNS])
{
    int n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int a = 0; a < r->runs.n_arms && n < COLUMNS; a++) {
            bool early = !a || !strcmp(run_option(r->runs.arm[a].run[0], "method"), "g2rl");
            if (r->ledger[a].last.n && early == !pass)
                arm[n++] = a;
        }
    return n;
}

static inline void panel_groups(Report *r, Buf *b)
{
    int arm[COLUMNS], n = shown_arms(r, arm);
    page_heading(b, "Groups of answers, as the method sees them");
    if (!n) {
        page_absent(b, "Matrices of cosines: no run has a rollouts.jsonl with whole groups in it.");
        return;
    }
    buf_str(b, "<figure>\n<div class=\"scale\">");
    heat_legend(b);
    buf_str(b, "</div>\n<div class=\"groups\">\n");
    for (int i = 0; i < n; i++) {
        const Ledger *l = &r->ledger[arm[i]];
        bool again = false;
        for (int k = 0; k < i; k++)
            again |= groups_equal(&l->first, &r->ledger[arm[k]].first);
        if (l->first.n && !again && l->first.row->step != l->last.row->step)
            group_panel(b, &l->first, i || n == 1 ? r->runs.arm[arm[i]].label : "first batch");
        group_panel(b, &l->last, r->runs.arm[arm[i]].label);
    }
    buf_str(b, "</div>\n");
    page_caption(r, b, "Cosines S between the gradient features of the responses to one prompt: "
                 "right ones first, lines between right and wrong, equal ones side by side, each "
                 "with its reward. A red block is a crowd: responses that would move the model the "
                 "same way. Blue: opposite ways. The prompt is the same for every method where it "
                 "can be; a batch that several runs share is shown once.");
}

/* ---------------------------------------------------------------- novelty of gradient and text */

static inline double correlation(const LedgerPoint *p, int n)
{
    double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        x += p[i].u / n;
        y += p[i].nu / n;
    }
    for (int i = 0; i < n; i++) {
        xx += (p[i].u - x) * (p[i].u - x);
        yy += (p[i].nu - y) * (p[i].nu - y);
        xy += (p[i].u - x) * (p[i].nu - y);
    }
    return xy / sqrt(xx * yy);
}

/* Right responses are circles, wrong ones crosses; at most 500 points. */
static inline void cloud_panel(Buf *b, const char *label, const LedgerPoint *point, int n)
{
    enum { POINTS = 500 };
    int stride = (n + POINTS - 1) / POINTS;
    char title[128];
    snprintf(title, sizeof title, "%.30s: exploration score \xCE\xBD", label);
    Plot p = plot_open(b, 340, 300, (Span){0, 1}, (Span){0, 1}, title,
                       "semantic novelty u", false);
    snprintf(title, sizeof title, "r = %.2f", correlation(point, n));
    svg_text(b, p.right, 14, "t", "end", title);
    for (int right = 0; right < 2; right++) {
        buf_printf(b, "<path class=\"cloud %s\" d=\"", right ? "good" : "bad");
        for (int i = 0; i < n; i += stride) {
            double x = plot_x(&p, fmin(point[i].u, 1)), y = plot_y(&p, fmin(point[i].nu, 1));
            if (point[i].right != right)
                continue;
            svg_point(b, 'M', x - 2.2, right ? y : y - 2.2);
            buf_str(b, right ? "a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0"
                             : "l4.4 4.4m0 -4.4l-4.4 4.4");
        }
        buf_str(b, "\"/>");
    }
    plot_close(&p);
}

static inline void panel_novelty(Report *r, Buf *b)
{
    enum { FEWEST = 8 };
    int shown = 0;
    page_heading(b, "Novelty in the gradient and in the text");
    for (int a = 0; a < r->runs.n_arms; a++) {
        if (r->ledger[a].n_points < FEWEST || shown == 2 * COLUMNS)
            continue;
        if (!shown++)
            buf_str(b, "<figure>\n<ul class=\"key\"><li><svg viewBox=\"0 0 34 14\" "
                       "aria-hidden=\"true\"><path class=\"cloud good\" d=\"M14 7a3 3 0 1 0 6 0a3 3 "
                       "0 1 0 -6 0\"/></svg>right</li><li><svg viewBox=\"0 0 34 14\" "
                       "aria-hidden=\"true\"><path class=\"cloud bad\" d=\"M14 4l6 6m0 -6l-6 6\"/>"
                       "</svg>wrong</li></ul>\n<div class=\"grid\">\n");
        cloud_panel(b, r->runs.arm[a].label, r->ledger[a].point, r->ledger[a].n_points);
    }
    if (!shown) {
        page_absent(b, "No rollouts.jsonl says how novel its responses are as texts (member u).");
        return;
    }
    buf_str(b, "</div>\n");
    page_caption(r, b, "Each mark is a response of training: its exploration score \xCE\xBD, from "
                 "gradients, against its semantic novelty u, from text embeddings. A sample from "
                 "all steps of the first seed; r is Pearson\xE2\x80\x99s correlation. If the two "
                 "were one thing, the marks would lie on a rising line.");
}

/* ---------------------------------------------------------------- one group, its arithmetic */

static inline void sum_cell(Buf *b, const char *name, double x, int decimals, bool sign)
{
    buf_printf(b, "<td class=\"n\" data-k=\"%s\">", name);
    (sign ? signed_number : number)(b, x, decimals);
    buf_str(b, "</td>");
}

static inline void panel_sums(Report *r, Buf *b)
{
    int arm[COLUMNS], n = shown_arms(r, arm), a = 0, n_right, shown;
    if (!n)
        return;
    for (int i = n - 1; i >= 0; i--) /* the first of method g2rl */
        if (!strcmp(run_option(r->runs.arm[arm[i]].run[0], "method"), "g2rl"))
            a = i;
    const LedgerGroup *g = &r->ledger[arm[a]].last;
    const LedgerRow **order = group_order(g, &shown, &n_right);
    page_heading(b, "One group, its arithmetic");
    buf_str(b, "<figure><p>");
    html_string(b, r->runs.arm[arm[a]].label);
    buf_printf(b, ", step %d, prompt <span class=\"text\">", g->row->step);
    html_text(b, g->row->prompt.s, g->row->prompt.n, 600);
    buf_str(b, "</span></p>\n<div class=\"wide\"><table class=\"full cards\"><thead><tr>"
               "<th class=\"n\">i</th><th>response</th><th class=\"n\">r</th>"
               "<th class=\"n\">\xCE\xBD</th><th class=\"n\">\xCE\xBD\xCC\x84</th>"
               "<th class=\"n\">r\xCC\x83</th><th class=\"n\">A</th><th>reason</th></tr></thead>"
               "<tbody>\n");
    for (int i = 0; i < shown; i++) {
        const LedgerRow *row = order[i];
        buf_printf(b, "<tr class=\"%s\"><td class=\"n\">%d</td><td class=\"text\">",
                   row->reward > 0 ? "right" : "wrong", row->rollout);
        html_text(b, row->response.s, row->response.n, 400);
        buf_str(b, "</td>");
        sum_cell(b, "r", row->reward, row->reward == rint(row->reward) ? 0 : 2, true);
        sum_cell(b, "\xCE\xBD", row->nu, 3, false);
        sum_cell(b, "\xCE\xBD\xCC\x84", row->nubar, 3, false);
        sum_cell(b, "r\xCC\x83", row->rtilde, 2, true);
        sum_cell(b, "A", row->advantage, 3, true);
        buf_str(b, "<td>");
        html_text(b, row->reason.s, row->reason.n, 120);
        buf_str(b, "</td></tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
    page_caption(r, b, "How one group\xE2\x80\x99s advantages are made: reward r, exploration score "
                 "\xCE\xBD = 1 \xE2\x88\x92 \xCE\xA3 w S\xC2\xB2, its min-max \xCE\xBD\xCC\x84 "
                 "inside the group, shaped reward r\xCC\x83, advantage A = (r\xCC\x83 \xE2\x88\x92 "
                 "mean) / std.");
    free(order);
}

/* ---------------------------------------------------------------- options */

/* Is an option equal in all runs? Where a run lies is not an option of the method. */
static inline bool option_shared(const Runs *all, const char *name)
{
    for (int i = 1; i < all->n; i++)
        if (strcmp(run_option(&all->run[i], name), run_option(&all->run[0], name)))
            return false;
    return true;
}

/* The values that an arm's runs have, each once. */
static inline void option_values(Buf *b, const Arm *a, const char *name)
{
    for (int i = 0; i < a->n; i++) {
        bool had = false;
        for (int k = 0; k < i; k++)
            had |= !strcmp(run_option(a->run[k], name), run_option(a->run[i], name));
        if (had)
            continue;
        buf_str(b, i ? ", " : "");
        html_text(b, run_option(a->run[i], name), strlen(run_option(a->run[i], name)), 120);
    }
}

/* Every name that any run has, once, in order; calls `each` for those that are (not) shared. */
static inline void each_option(const Runs *all, bool shared, void (*each)(Buf *, const Runs *,
                               const char *), Buf *b)
{
    for (int i = 0; i < all->n; i++)
        for (int k = 0; k < all->run[i].n_options; k++) {
            const char *name = all->run[i].option[k].name.s;
            bool had = false;
            for (int e = 0; e < i && !had; e++)
                for (int o = 0; o < all->run[e].n_options && !had; o++)
                    had = !strcmp(all->run[e].option[o].name.s, name);
            if (!had && option_shared(all, name) == shared)
                each(b, all, name);
        }
}

static inline void shared_option(Buf *b, const Runs *all, const char *name)
{
    buf_str(b, "<li><span>");
    html_string(b, name);
    buf_str(b, "</span><span>");
    html_text(b, run_option(&all->run[0], name), strlen(run_option(&all->run[0], name)), 120);
    buf_str(b, "</span></li>");
}

static inline void option_row(Buf *b, const Runs *all, const char *name)
{
    buf_str(b, "<tr><th scope=\"row\">");
    html_string(b, name);
    buf_str(b, "</th>");
    for (int a = 0; a < all->n_arms; a++) {
        buf_str(b, "<td>");
        option_values(b, &all->arm[a], name);
        buf_str(b, "</td>");
    }
    buf_str(b, "</tr>\n");
}

static inline void panel_options(Report *r, Buf *b)
{
    const Runs *all = &r->runs;
    Buf rows = {0};
    page_heading(b, "Every option");
    buf_str(b, "<figure>\n");
    each_option(all, false, option_row, &rows);
    if (rows.n) {
        buf_str(b, "<div class=\"wide\"><table class=\"options\"><thead><tr><th></th>");
        for (int a = 0; a < all->n_arms; a++) {
            buf_str(b, "<th>");
            html_string(b, all->arm[a].label);
            buf_str(b, "</th>");
        }
        buf_str(b, "</tr></thead><tbody>\n");
        buf_add(b, rows.s, rows.n);
        buf_str(b, "</tbody></table></div>\n");
    }
    buf_str(b, "<h3>The same in all runs</h3>\n<ul class=\"same\">");
    each_option(all, true, shared_option, b);
    buf_str(b, "</ul>\n");
    page_caption(r, b, "The options in run.json: where they differ, a column for each method with "
                 "its values in the order of its runs; then those that all runs share.");
    buf_free(&rows);
}

/* ================================================================ the page */

static inline void page_header(const Report *r, Buf *b)
{
    const Run *one = &r->runs.run[0];
    const char *data = run_option(one, "data"), *task = run_option(one, "task");
    int seeds = 0;
    for (int a = 0; a < r->runs.n_arms; a++)
        seeds = imax(seeds, r->runs.arm[a].n);
    buf_str(b, "<header><h1>");
    for (int a = 0; a < r->runs.n_arms; a++) {
        buf_str(b, !a ? "" : a == r->runs.n_arms - 1 ? " and " : ", ");
        html_string(b, r->runs.arm[a].label);
    }
    buf_str(b, "</h1>\n<p>");
    html_string(b, *data && strcmp(data, "null") ? data : task);
    buf_printf(b, ": %d run%s, at most %d seed%s a method; ", r->runs.n, r->runs.n > 1 ? "s" : "",
               seeds, seeds > 1 ? "s" : "");
    html_string(b, run_option(one, "steps"));
    buf_str(b, " steps of ");
    html_string(b, run_option(one, "prompts"));
    buf_str(b, " prompts \xC3\x97 ");
    html_string(b, run_option(one, "rollouts"));
    buf_str(b, " responses.</p></header>\n");
}

static inline void report_page(Report *r, const char *path)
{
    Buf b = {0};
    buf_str(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<title>g2rl report</title>\n<style>");
    style_sheet(&b);
    buf_str(&b, "</style>\n</head>\n<body>\n<main>\n");
    page_header(r, &b);
    panel_table(r, &b);
    panel_frontier(r, &b);
    panel_curves(r, &b);
    page_heading(&b, "How alike answers are");
    if (r->geometry.n) {
        figure3_panel(&r->geometry, &b);
        page_caption(r, &b, FIGURE3_CAPTION);
    } else
        page_absent(&b, "Distributions of cosines: give --geometry a file that `g2rl geometry "
                        "--json` wrote.");
    panel_groups(r, &b);
    panel_novelty(r, &b);
    panel_sums(r, &b);
    panel_options(r, &b);
    buf_str(&b, "</main>\n</body>\n</html>\n");
    write_file(path, b.s, b.n);
    fprintf(stderr, "%s: %zu kB\n", path, (b.n + 999) / 1000);
    buf_free(&b);
}

/* report.html in the directory that holds the first run's. */
static inline Path report_path(const char *dir)
{
    char *copy = xstrdup(dir);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = 0;
    char *slash = strrchr(copy, '/');
    if (slash)
        slash[slash == copy] = 0;
    Path p = path_join(slash ? copy : ".", "report.html");
    free(copy);
    return p;
}

/* What the command line asks of `report`. */
typedef struct {
    const char *const *dirs;
    int n;
    const char *geometry, *out, *svg;
    bool json;
} ReportOptions;

static inline void report(const ReportOptions *o)
{
    Report r = {.runs = runs_read(o->dirs, o->n)};
    r.base = base_arm(&r.runs);
    r.ledger = xcalloc((size_t)r.runs.n_arms, sizeof *r.ledger);
    for (int a = 0; a < r.runs.n_arms; a++) {
        if (!strcmp(r.runs.arm[a].label, "grpo"))
            r.against = &r.runs.arm[a];
        ledger_read(r.runs.arm[a].run[0], a ? &r.ledger[0] : NULL, &r.ledger[a]);
    }
    if (o->geometry) {
        r.geometry = figure3_read(o->geometry);
        for (int i = 0; i < r.geometry.n; i++)
            for (int a = 0; a < r.runs.n_arms; a++)
                if (!strcmp(r.geometry.row[i].name.s, r.runs.arm[a].label))
                    r.geometry.row[i].style = arm_style(a);
    }
    report_page(&r, o->out ? o->out : report_path(o->dirs[0]).s);
    if (o->svg)
        report_svg(&r, o->svg);
    (o->json ? report_json : report_text)(&r);
    for (int a = 0; a < r.runs.n_arms; a++)
        ledger_free(&r.ledger[a]);
    free(r.ledger);
    free(r.base.run);
    figure3_free(&r.geometry);
    runs_free(&r.runs);
}

#endif
