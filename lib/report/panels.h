/* panels.h: the panels of a report's page that are about runs as a whole: results in words, tables,
 * differences, frontier, curves, options. */
#ifndef PANELS_H
#define PANELS_H

#include "summary.h" /* defines: Report, Table; runs.h: Arm, run_option */
#include "svg.h"     /* defines: Plot, table_cell, html_text */

static inline int arm_style(int arm) { return arm < 0 ? BASE_STYLE : arm % N_STYLES; }

/* ---------------------------------------------------------------- tables */

/* Is a number in the column? */
static inline bool column_known(const Table *t, int column)
{
    bool known = false;
    for (int i = 0; i < t->n; i++) {
        Estimate e = t->row[i].cell[column];
        known |= isfinite(e.value) || has_interval(e);
    }
    return known;
}

static inline void page_table(const Report *r, const Table *t, const char *title, Buf *b)
{
    bool shown[MOST_COLUMNS];
    char name[80];
    table_open(b, title, t != &r->responses);
    for (int i = 0; i < t->columns; i++) {
        snprintf(name, sizeof name, "%s%s", t->column[i].title,
                 in_percent(&t->column[i]) ? ", %" : "");
        shown[i] = column_known(t, i) && !t->column[i].text_only;
        if (shown[i])
            table_column(b, name);
    }
    buf_str(b, TABLE_BODY);
    for (int k = 0; k < t->n; k++) {
        const Row *row = &t->row[k];
        table_row(b, row_arm(r, row->arm)->label, arm_style(row->arm));
        for (int i = 0; i < t->columns; i++)
            if (shown[i])
                table_cell(b, row->cell[i], t->column[i].scale, t->column[i].decimals,
                           t->column[i].sign);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, TABLE_END);
}

static inline void panel_results(const Report *r, Buf *b)
{
    const Runs *all = &r->runs;
    char distinct[32] = "", title[64];
    page_heading(b, "Results");
    if (!all->samples) {
        page_absent(b, "No run has an eval.jsonl. Train with --eval-every N, and the tables, the "
                       "frontier and the held-out curves will be here.");
        return;
    }
    if (all->distinct_problems)
        snprintf(distinct, sizeof distinct, " (%d distinct)", all->distinct_problems);
    snprintf(title, sizeof title, "Last evaluation, step %d, %%", last_step(r));
    buf_str(b, "<figure class=\"short\">\n");
    page_table(r, &r->values, title, b);
    page_table(r, &r->responses, "The responses themselves", b);
    buf_printf(b, CAPTION "Right answers to %d held-out problems%s, %d samples of each, with 95 %% "
               "intervals: Student\xE2\x80\x99s t over seeds; with one seed, bootstrap over "
               "distinct problems. pass@1: the share that is right; maj@%d: is the most frequent "
               "of %d answers right; pass@k: is any of k; distinct right: the expected number of "
               "different right answers among so many samples. The second table has, of the same "
               "responses, the mean cosine of their gradient features and the share of pairs below "
               "zero, entropy (nats a token), length (tokens); copies: the share of right answers "
               "that repeat another one to their problem; and the shares of problems with two "
               "different right answers, with all answers right, and with all wrong." CAPTION_END,
               all->problems, distinct, all->samples, all->maj_k, all->maj_k);
}

/* ---------------------------------------------------------------- in words */

/* A clear difference on the frontier: that over seeds; of one seed, over problems. */
static inline int frontier_sign(const Row *row)
{
    return clear_sign(has_interval(row->cell[2]) ? row->cell[2] : row->cell[4]);
}

/* A row with a difference, the k-th of a list: "evol (+0.20)". */
static inline void words_row(const Report *r, const Table *t, const Row *row, int column, int k,
                             Buf *b)
{
    const Column *c = &t->column[column];
    buf_str(b, k ? ", " : "");
    html_string(b, row_arm(r, row->arm)->label);
    buf_str(b, " (");
    number(b, c->scale * row->cell[column].value, c->decimals, true);
    buf_str(b, c->scale > 1 ? " points)" : ")");
}

/* The rows of the frontier that have that sign. How many they are. */
static inline int words_frontier(const Report *r, int sign, Buf *b)
{
    int n = 0;
    for (int i = 0; i < r->frontier.n; i++) {
        const Row *row = &r->frontier.row[i];
        if (isfinite(row->cell[2].value) && frontier_sign(row) == sign)
            words_row(r, &r->frontier, row, 2, n++, b);
    }
    return n;
}

/* The rows with a clear difference at the last evaluation, but none in pass@1 there, and none on
 * the frontier, which does not see what is lost at an accuracy that was reached before. How many
 * they are. */
static inline int words_last(const Report *r, Buf *b)
{
    int n = 0, column = r->measure == DISTINCT_RIGHT ? 4 : 3;
    for (int i = 0; i < r->last.n; i++) {
        const Row *row = &r->last.row[i];
        bool known = !has_interval(row->cell[1]) || clear_sign(row->cell[1]);
        for (int k = 0; k < r->frontier.n; k++)
            known |= r->frontier.row[k].arm == row->arm && frontier_sign(&r->frontier.row[k]);
        if (!known && clear_sign(row->cell[column]))
            words_row(r, &r->last, row, column, n++, b);
    }
    return n;
}

/* In sentences: what was trained, what differs clearly at equal accuracy, and what does not. */
static inline void panel_words(const Report *r, Buf *b)
{
    Buf more = {0}, less = {0}, same = {0}, late = {0};
    if (!r->runs.samples || !r->values.n)
        return;
    Estimate base = r->values.row[0].cell[1];
    int n_more = words_frontier(r, 1, &more), n_less = words_frontier(r, -1, &less);
    int n_same = words_frontier(r, 0, &same);
    bool count = r->measure == DISTINCT_RIGHT;
    char measure[64];
    snprintf(measure, sizeof measure, count ? "distinct right answers among %d" : "pass@%d",
             quantity(&r->runs, r->measure).k);
    buf_str(b, "<p class=\"words\">");
    buf_printf(b, "From a base model with a pass@1 of %.1f %%, %s trained for %d steps and asked "
               "%d held-out problems, %d times each.", 100 * base.value,
               r->runs.n_arms > 1 ? "each method was" : "the model was", last_step(r),
               r->runs.problems, r->runs.samples);
    if (r->frontier.n && r->against) {
        buf_printf(b, " At the same pass@1 as %s, ", r->against->label);
        if (n_more)
            buf_printf(b, "%s %s: %s%s", count ? "clearly more" : "a clearly higher", measure,
                       more.s, n_less ? "; " : ".");
        if (n_less)
            buf_printf(b, "%s %s: %s.", count ? "clearly fewer" : "a clearly lower", measure,
                       less.s);
        if (!n_more && !n_less)
            buf_printf(b, "no other clearly differs in %s.", measure);
        if (n_same)
            buf_printf(b, " Not clearly different: %s.", same.s);
        if (words_last(r, &late))
            buf_printf(b, " The last evaluation alone has a clear difference in %s, and none in "
                       "pass@1: %s.", measure, late.s);
        buf_str(b, " (Clearly: the 95 % interval excludes 0; by chance alone one comparison in "
                   "twenty does.)");
    }
    buf_str(b, "</p>\n");
    buf_free(&more, &less, &same, &late);
}

/* ---------------------------------------------------------------- differences */

/* A difference as a mark with its interval as a line, at height y. */
static inline void forest_mark(const Plot *p, Estimate e, double scale, double y, int style,
                               bool small)
{
    char class[32];
    if (!isfinite(e.value))
        return;
    snprintf(class, sizeof class, "%s s%d", small ? "thin" : "line", style);
    if (has_interval(e))
        svg_line(p->b, plot_x(p, scale * e.low), y, plot_x(p, scale * e.high), y, class);
    svg_mark(p->b, plot_x(p, scale * e.value), y, small ? 3 : 4, style, small);
}

/* A forest plot: the differences of one column of the tables, arms below each other. */
static inline void forest_panel(const Report *r, int column, Buf *b)
{
    enum { ROW = 34 };
    const Table *tables[] = {&r->last, &r->mean};
    double scale = r->last.column[column].scale;
    Span x = {0, 0};
    char name[96];
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < tables[t]->n; i++) {
            Estimate e = tables[t]->row[i].cell[column];
            span_add(&x, scale * (has_interval(e) ? e.low : e.value));
            span_add(&x, scale * (has_interval(e) ? e.high : e.value));
        }
    snprintf(name, sizeof name, "%s, difference", r->last.column[column].title);
    Plot p = {.b = b, .left = 104, .right = 326, .top = 26, .bottom = 30 + r->last.n * ROW,
              .x = axis_fit(x)};
    plot_axes(&p, 340, p.bottom + 38, "plot", name, scale > 1 ? "percentage points" : "answers");
    svg_line(b, plot_x(&p, 0), p.top, plot_x(&p, 0), p.bottom, "zero");
    for (int i = 0; i < r->last.n; i++) {
        int arm = r->last.row[i].arm;
        double y = 30 + ROW * (i + 0.36);
        const Row *mean = row_find(&r->mean, arm);
        svg_text(b, p.left - 12, y + 8, "end", "end", row_arm(r, arm)->label);
        forest_mark(&p, r->last.row[i].cell[column], scale, y, arm_style(arm), false);
        if (mean)
            forest_mark(&p, mean->cell[column], scale, y + 11, arm_style(arm), true);
    }
    buf_str(b, "</svg>\n");
}

static inline void panel_differences(const Report *r, Buf *b)
{
    char title[64];
    if (!r->runs.samples)
        return;
    if (!r->last.n) {
        page_absent(b, "Differences: they are taken from the runs called grpo, or --against, "
                       "that share a seed with others; there are none.");
        return;
    }
    snprintf(title, sizeof title, "Mean from step %d on, points", half_begins(r));
    buf_str(b, "<figure>\n");
    page_table(r, &r->last, "At the last evaluation, points", b);
    page_table(r, &r->mean, title, b);
    buf_str(b, "<div class=\"grid below\">\n");
    for (int i = 1; i <= COLUMNS; i++)
        if (column_known(&r->last, i))
            forest_panel(r, i, b);
    buf_printf(b, "</div>\n" CAPTION "Each method minus <b>%s</b> on the same seeds and problems, "
               "in percentage points (distinct right answers: as a count), with 95 %% intervals. "
               "Large marks, thick lines: the last evaluation; small and thin: the mean of the "
               "evaluations from step %d on, which one lucky step cannot make. Bold, and clear "
               "of the dashed line: the interval excludes 0." CAPTION_END,
               r->against->label, half_begins(r));
}

/* ---------------------------------------------------------------- curves */

/* Over an arm's seeds: the mean, the lowest and the highest; each [n], in one block at x. */
typedef struct {
    double *x, *mean, *low, *high;
    int n;
} Curve;

/* The mean of the finite ones among the w values around x[i]; they are `stride` apart. */
static inline double running_mean(const double *x, ptrdiff_t stride, int n, int i, int w)
{
    double sum = 0;
    int count = 0;
    for (int k = imax(0, i - w / 2); k < imin(n, i + w / 2 + 1); k++)
        if (isfinite(x[k * stride])) {
            sum += x[k * stride];
            count++;
        }
    return count ? sum / count : NO_NUMBER;
}

/* Steps of the running mean: a fifteenth of the longest run, odd, and at least 3. */
static inline int smoothing(const Report *r)
{
    int n = 0;
    for (int i = 0; i < r->runs.n; i++)
        n = imax(n, r->runs.run[i].n_steps);
    return imax(3, n / 15 | 1);
}

/* CURVES[measure] over the steps that all seeds have, thinned to what can be seen, as a running
 * mean over w; or, where `measure` is negative, quantity q over the evaluations that all evaluated
 * seeds have. */
static inline Curve curve_new(const Arm *a, int measure, int q, int w)
{
    double share = q == DISTINCT_RIGHT ? 1 : 100; /* shares in percent */
    double scale = measure < 0 ? share : CURVES[measure].scale;
    enum { POINTS = 160 };
    bool evals = measure < 0;
    int rows = INT_MAX;
    for (int k = 0; k < a->n; k++)
        if (!evals || a->run[k]->n_evals)
            rows = imin(rows, evals ? a->run[k]->n_evals : a->run[k]->n_steps);
    rows = rows == INT_MAX ? 0 : rows;
    int stride = evals ? 1 : imax(1, (rows + POINTS - 1) / POINTS);
    Curve c = {.n = (rows + stride - 1) / stride};
    c.x = xcalloc(4 * c.n, sizeof *c.x);
    c.mean = c.x + c.n;
    c.low = c.mean + c.n;
    c.high = c.low + c.n;
    for (int i = 0; i < c.n; i++) {
        int seen = 0, at = i == c.n - 1 ? rows - 1 : i * stride;
        c.mean[i] = c.low[i] = c.high[i] = NO_NUMBER;
        for (int k = 0; k < a->n; k++) {
            const RunFiles *r = a->run[k];
            if (evals && !r->n_evals)
                continue;
            double y = scale * (evals ? r->eval[at].value[q]
                                : running_mean(&r->step[0][measure], N_CURVES, rows, at, w));
            c.x[i] = evals ? r->eval[at].step : r->step[at][0];
            c.low[i] = fmin(c.low[i], y); /* fmin and fmax pass over a NaN */
            c.high[i] = fmax(c.high[i], y);
            if (isfinite(y)) {
                c.mean[i] = seen ? c.mean[i] + (y - c.mean[i]) / (seen + 1) : y;
                seen++;
            }
        }
    }
    return c;
}

static inline void curve_panel(const Report *r, int measure, int q, Buf *b)
{
    char title[96];
    bool evals = measure < 0;
    int arms = r->runs.n_arms;
    Span x = NO_SPAN, y = NO_SPAN;
    Curve *c = xcalloc(arms, sizeof *c);
    for (int a = 0; a < arms; a++) {
        c[a] = curve_new(&r->runs.arm[a], measure, q, smoothing(r));
        for (int i = 0; i < c[a].n; i++) {
            span_add(&x, c[a].x[i]);
            span_add(&y, c[a].low[i]);
            span_add(&y, c[a].high[i]);
        }
    }
    snprintf(title, sizeof title, evals ? "%s on held-out problems%s" : "%s",
             evals ? quantity(&r->runs, q).title : CURVES[measure].title,
             q == DISTINCT_RIGHT ? "" : ", %");
    if (y.low <= y.high) {
        Plot p = plot_open(b, 340, 230, x, y, title, "step", false);
        for (int a = 0; a < arms; a++)
            if (r->runs.arm[a].n > 1)
                plot_band(&p, c[a].x, c[a].low, c[a].high, c[a].n, arm_style(a), arms);
        for (int a = 0; a < arms; a++) {
            int every = evals ? 1 : imax(1, c[a].n / 5);
            plot_line(&p, c[a].x, c[a].mean, c[a].n, arm_style(a));
            for (int i = evals ? 0 : every * (a + 1) / (arms + 1); i < c[a].n; i += every)
                plot_mark(&p, c[a].x[i], c[a].mean[i], 2.8, arm_style(a), false);
        }
        buf_str(b, "</svg>\n");
    }
    for (int a = 0; a < arms; a++)
        free(c[a].x);
    free(c);
}

static inline void panel_curves(const Report *r, Buf *b)
{
    page_heading(b, "Along the way");
    buf_str(b, "<figure>\n<ul class=\"key\">");
    for (int a = 0; a < r->runs.n_arms; a++)
        page_key(b, r->runs.arm[a].label, arm_style(a));
    buf_str(b, "</ul>\n<div class=\"grid\">\n");
    for (int i = 0; r->runs.samples && i < COLUMNS; i++)
        curve_panel(r, -1, headline(&r->runs, i), b);
    for (int i = 1; i < N_CURVES; i++)
        curve_panel(r, i, 0, b);
    buf_printf(b, "</div>\n" CAPTION "Lines: mean over seeds; shaded: from the lowest of several "
               "seeds to the highest. Held-out panels have a mark at each evaluation; the others "
               "are of the training batch, a running mean over %d steps. The cosine is that of the "
               "gradient features of answers to one problem, \xCE\xA3 A\xC2\xB2 the sum of "
               "squared advantages." CAPTION_END, smoothing(r));
}

/* ---------------------------------------------------------------- frontier */

enum { FRONTIER_WIDTH = 560, FRONTIER_HEIGHT = 400 };

/* The end of an arm's path, and the height of its label. */
typedef struct {
    double x, y, text_y;
    int arm;
} PathEnd;

/* Sorts ends from the top and moves their labels apart: one closer than `gap` to the one above
 * goes down. */
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
}

static inline void frontier_labels(const Report *r, const Plot *p, PathEnd *e, int n)
{
    char text[64];
    double x = p->right + 14;
    spread_ends(e, n, 19);
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%.17s", r->runs.arm[e[i].arm].label);
        svg_line(p->b, e[i].x + 7, e[i].y, x - 4, e[i].text_y, "leader");
        svg_mark(p->b, x + 4, e[i].text_y, 4, arm_style(e[i].arm), false);
        svg_text(p->b, x + 13, e[i].text_y + 4, "end", "start", text);
    }
    snprintf(text, sizeof text, "step %d", last_step(r));
    if (n)
        svg_text(p->b, x, e[0].text_y - 14, "t", "start", text);
}

/* The frontier's measure against pass@1, one path an arm. */
static inline void frontier_draw(const Report *r, Buf *b)
{
    char title[80];
    int arms = r->runs.n_arms, n_ends = 0;
    double x0 = NO_NUMBER, y0 = NO_NUMBER;
    Span x_span = NO_SPAN, y_span = NO_SPAN;
    PathEnd *end = xcalloc(arms, sizeof *end);
    Curve *x = xcalloc(2 * arms, sizeof *x), *y = x + arms;
    for (int a = 0; a < arms; a++) {
        x[a] = curve_new(&r->runs.arm[a], -1, 0, 0);
        y[a] = curve_new(&r->runs.arm[a], -1, r->measure, 0);
        for (int i = 0; i < x[a].n; i++) {
            span_add(&x_span, x[a].mean[i]);
            span_add(&y_span, y[a].mean[i]);
        }
    }
    snprintf(title, sizeof title, "%s%s", quantity(&r->runs, r->measure).title,
             r->measure == DISTINCT_RIGHT ? "" : ", %");
    Axis x_axis = axis_fit(x_span);
    Plot p = plot_open(b, FRONTIER_WIDTH, FRONTIER_HEIGHT, (Span){x_axis.low, x_axis.high}, y_span,
                       title, "pass@1, %", true);
    for (int a = 0; a < arms; a++) {
        int last = x[a].n - 1;
        if (last < 0 || !isfinite(x[a].mean[last]) || !isfinite(y[a].mean[last]))
            continue;
        plot_line(&p, x[a].mean, y[a].mean, x[a].n, arm_style(a));
        for (int i = 0; i <= last; i++)
            if (x[a].x[i] > 0)
                plot_mark(&p, x[a].mean[i], y[a].mean[i], i == last ? 5 : 2.6, arm_style(a), false);
        end[n_ends++] = (PathEnd){plot_x(&p, x[a].mean[last]), plot_y(&p, y[a].mean[last]), 0, a};
        x0 = x[a].x[0] > 0 ? x0 : x[a].mean[0];
        y0 = x[a].x[0] > 0 ? y0 : y[a].mean[0];
    }
    plot_mark(&p, x0, y0, 5.5, BASE_STYLE, true);
    if (isfinite(x0)) { /* its label: to the left, where no path goes; at the axis below */
        double px = plot_x(&p, x0), py = plot_y(&p, y0);
        bool room = px - p.left > 50;
        svg_text(b, room ? px - 11 : px, room ? py + 4 : py + 22, "end", room ? "end" : "middle",
                 "base");
    }
    frontier_labels(r, &p, end, n_ends);
    buf_str(b, "</svg>\n");
    for (int a = 0; a < 2 * arms; a++)
        free(x[a].x);
    free(x);
    free(end);
}

static inline void panel_frontier(const Report *r, Buf *b)
{
    bool count = r->measure == DISTINCT_RIGHT;
    char title[96];
    if (!r->runs.samples)
        return;
    page_heading(b, "The frontier");
    buf_str(b, "<figure class=\"short\"><div class=\"drawing\">\n");
    frontier_draw(r, b);
    buf_str(b, "</div>\n");
    if (r->frontier.n) {
        snprintf(title, sizeof title, "Minus %s\xE2\x80\x99s at the same pass@1, %s",
                 r->against->label, count ? "answers" : "points");
        page_table(r, &r->frontier, title, b);
    }
    buf_printf(b, CAPTION "Each method\xE2\x80\x99s path from the base model: how often one answer "
               "is right, to the right, and %s %d%s, upward; a mark at every evaluation, mean over "
               "seeds, the large one the last. A path that goes right and down buys accuracy "
               "with variety.", count ? "how many different right answers are among"
               : "how often any of", quantity(&r->runs, r->measure).k, count ? "" : " is");
    if (r->frontier.n)
        buf_printf(b, " The table has the height of a method\xE2\x80\x99s path over that of "
                   "<b>%s</b>: the mean difference at %d equally spaced values of pass@1, from the "
                   "base\xE2\x80\x99s to the lower of the two paths\xE2\x80\x99 highest, each path "
                   "taken where it first reaches the value; same seed, same learning rate. "
                   "Missing: seeds whose paths share less than %g points of pass@1. Two 95 %% "
                   "intervals: with the difference Student\xE2\x80\x99s t over seeds, beside it "
                   "bootstrap over distinct problems inside each seed.", r->against->label,
                   FRONTIER_POINTS, 100 * FRONTIER_RANGE);
    buf_str(b, CAPTION_END);
}

/* The frontier as a file of its own, on white with a margin. */
static inline void report_svg(const Report *r, const char *path)
{
    enum { MARGIN = 14, W = FRONTIER_WIDTH + 2 * MARGIN, H = FRONTIER_HEIGHT + 2 * MARGIN };
    Buf b = {0};
    if (!r->runs.samples)
        die("--svg: no run has an eval.jsonl to draw; train with --eval-every N");
    buf_printf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "viewBox=\"0 0 %d %d\"><style>", W * 5 / 4, H * 5 / 4, W, H);
    style_scheme(&b, false);
    style_marks(&b);
    buf_str(&b, STYLE_SVG);
    buf_printf(&b, ":root{--page:#fff}</style><rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>"
               "<g transform=\"translate(%d %d)\">", W, H, MARGIN, MARGIN);
    frontier_draw(r, &b);
    buf_str(&b, "</g></svg>\n");
    write_file(path, b.s, b.n);
    buf_free(&b);
}

/* ---------------------------------------------------------------- options */

/* A cell with the values that an arm's runs have, each once. */
static inline void option_cell(Buf *b, const Arm *a, const char *name)
{
    buf_str(b, "<td class=\"n\">");
    for (int i = 0; i < a->n; i++) {
        const char *value = run_option(a->run[i], name);
        bool had = false;
        for (int k = 0; k < i; k++)
            had |= !strcmp(run_option(a->run[k], name), value);
        if (had)
            continue;
        buf_str(b, i ? ", " : "");
        html_text(b, value, strlen(value), 120);
    }
    buf_str(b, "</td>");
}

/* A row for every option of the first run but --out that is not the same in all. */
static inline void option_rows(Buf *b, const Runs *all)
{
    for (int k = 0; k < all->run->n_options; k++) {
        const char *name = all->run->option[k].name.s;
        bool same = true;
        for (int i = 1; i < all->n; i++)
            same &= !strcmp(run_option(&all->run[i], name), run_option(all->run, name));
        if (same || !strcmp(name, "out"))
            continue;
        buf_str(b, "<tr><th scope=\"row\">");
        html_string(b, name);
        buf_str(b, "</th>");
        for (int a = 0; a < all->n_arms; a++)
            option_cell(b, &all->arm[a], name);
        buf_str(b, "</tr>\n");
    }
}

static inline void panel_options(const Report *r, Buf *b)
{
    const Runs *all = &r->runs;
    if (all->n < 2)
        return;
    page_heading(b, "Options that differ");
    buf_str(b, "<figure>\n");
    table_open(b, NULL, false);
    for (int a = 0; a < all->n_arms; a++)
        table_column(b, all->arm[a].label);
    buf_str(b, TABLE_BODY);
    option_rows(b, all);
    buf_str(b, TABLE_END CAPTION "A column for each method, with its values in the order of its "
               "runs. All other options but --out are the same in all runs." CAPTION_END);
}

#endif
