/* panels.h: the panels of a report's page that are about runs as a whole: its table, the
 * differences, the frontier, the curves; and the parts that every panel has. */
#ifndef PANELS_H
#define PANELS_H

#include "summary.h" /* defines: Report, row_estimate, headline; runs.h: Arm, difference */
#include "svg.h"     /* defines: Plot, html_text, style_sheet */

static inline int arm_style(int arm) { return arm % N_STYLES; }

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

/* An interval of quantity q, if there is one. */
static inline void table_interval(Buf *b, Estimate e, int q, bool sign)
{
    void (*show)(Buf *, double, int) = sign ? signed_number : number;
    if (!isfinite(e.low))
        return;
    buf_str(b, "<i>[");
    show(b, quantity_scale(q) * e.low, quantity_decimals(q, sign));
    buf_str(b, ", ");
    show(b, quantity_scale(q) * e.high, quantity_decimals(q, sign));
    buf_str(b, "]</i>");
}

/* A cell with quantity q; a difference whose interval leaves 0 out is bold. */
static inline void table_cell(Buf *b, Estimate e, int q, bool sign)
{
    void (*show)(Buf *, double, int) = sign ? signed_number : number;
    bool bold = sign && isfinite(e.low) && (e.low > 0 || e.high < 0);
    buf_str(b, bold ? "<td class=\"n\"><b>" : "<td class=\"n\">");
    show(b, quantity_scale(q) * e.value, quantity_decimals(q, sign));
    buf_str(b, bold ? "</b>" : "");
    table_interval(b, e, q, sign);
    buf_str(b, "</td>");
}

static inline void table_head(const Report *r, Buf *b, const char *title)
{
    char name[64];
    buf_printf(b, "<h3>%s</h3>\n<div class=\"wide\"><table class=\"full%s\"><thead><tr>"
               "<th></th>", title,
               columns(&r->runs) > 3 ? " stack" : "");
    for (int i = 0; i < columns(&r->runs); i++) {
        quantity_title(&r->runs, headline(&r->runs, i), name);
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
        for (int i = 0; i < columns(&r->runs); i++) {
            int q = headline(&r->runs, i);
            table_cell(b, row_estimate(r, a, AT_END, q, &seeds), q, false);
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* Does any arm know this measure? */
static inline bool aside_known(const Report *r, int i)
{
    bool known = false;
    for (int a = 0; a < r->runs.n_arms; a++)
        known |= isfinite(aside(&r->runs.arm[a], AT_END, i));
    return known;
}

/* The responses themselves; without columns that files of older versions lack. */
static inline void table_asides(const Report *r, Buf *b)
{
    buf_str(b, "<h3>The responses themselves</h3>\n<div class=\"wide\"><table class=\"full\">"
               "<thead><tr><th></th>");
    for (int i = 0; i < N_ASIDES; i++)
        if (i <= MEAN_LENGTH || aside_known(r, i))
            buf_printf(b, "<th class=\"n\">%s%s</th>", ASIDES[i].title,
                       ASIDES[i].scale > 1 ? ", %" : "");
    buf_str(b, "</tr></thead><tbody>\n");
    for (int a = -1; a < r->runs.n_arms; a++) {
        const Arm *arm = a < 0 ? &r->base : &r->runs.arm[a];
        if (!seeds_of(r, a))
            continue;
        table_name(b, arm->label, a < 0 ? BASE_STYLE : arm_style(a));
        for (int i = 0; i < N_ASIDES; i++) {
            if (i > MEAN_LENGTH && !aside_known(r, i))
                continue;
            buf_str(b, "<td class=\"n\">");
            number(b, ASIDES[i].scale * aside(arm, a < 0 ? AT_START : AT_END, i),
                   aside_decimals(i));
            buf_str(b, "</td>");
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

static inline void table_differences(const Report *r, Buf *b, When when, const char *title)
{
    int pairs;
    table_head(r, b, title);
    for (int a = 0; a < r->runs.n_arms; a++) {
        if (!is_compared(r, a))
            continue;
        table_name(b, r->runs.arm[a].label, arm_style(a));
        for (int i = 0; i < columns(&r->runs); i++) {
            int q = headline(&r->runs, i);
            table_cell(b, difference(&r->runs.arm[a], r->against, when, q, &pairs), q, true);
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* ---------------------------------------------------------------- differences, drawn */

/* One arm's difference as a mark with its interval as a line, at height y. */
static inline void forest_mark(const Plot *p, Estimate e, int q, double y, int style, bool hollow)
{
    double scale = quantity_scale(q);
    char class[32];
    if (!isfinite(e.value))
        return;
    snprintf(class, sizeof class, "%s s%d", hollow ? "thin" : "line", style);
    if (isfinite(e.low))
        svg_line(p->b, plot_x(p, scale * e.low), y, plot_x(p, scale * e.high), y, class);
    svg_mark(p->b, plot_x(p, scale * e.value), y, hollow ? 3 : 4, style, hollow);
}

/* The differences of one quantity: arms below each other, with 0 as a line. */
static inline void forest_panel(const Report *r, Buf *b, int q)
{
    enum { ROW = 34 };
    Span x = {0, 0};
    char name[96], label[64];
    int pairs, rows = 0;
    for (int a = 0; a < r->runs.n_arms; a++)
        for (int w = AT_END; w <= SECOND_HALF && is_compared(r, a); w++) {
            Estimate e = difference(&r->runs.arm[a], r->against, (When)w, q, &pairs);
            span_add(&x, quantity_scale(q) * (isfinite(e.low) ? e.low : e.value));
            span_add(&x, quantity_scale(q) * (isfinite(e.high) ? e.high : e.value));
            rows += w == AT_END;
        }
    quantity_title(&r->runs, q, label);
    snprintf(name, sizeof name, "%s, difference", label);
    Plot p = {.b = b, .left = 104, .right = 326, .top = 26, .bottom = 30 + rows * ROW};
    p.x = axis_fit(x);
    svg_open(b, 340, p.bottom + 38, "plot", name);
    svg_text(b, 2, 14, "name", "start", name);
    for (int i = 0; p.x.low + i * p.x.step < p.x.high + p.x.step / 2; i++)
        plot_tick(&p, p.x.low + i * p.x.step, false);
    svg_line(b, p.left, p.bottom, p.right, p.bottom, "axis");
    svg_line(b, plot_x(&p, 0), p.top, plot_x(&p, 0), p.bottom, "zero");
    svg_text(b, p.right, p.bottom + 34, "t", "end",
             q == DISTINCT_RIGHT ? "answers" : "percentage points");
    for (int a = 0, row = 0; a < r->runs.n_arms; a++) {
        double y = 30 + ROW * (row + 0.36);
        if (!is_compared(r, a))
            continue;
        svg_text(b, p.left - 12, y + 8, "end", "end", r->runs.arm[a].label);
        forest_mark(&p, difference(&r->runs.arm[a], r->against, AT_END, q, &pairs), q, y,
                    arm_style(a), false);
        forest_mark(&p, difference(&r->runs.arm[a], r->against, SECOND_HALF, q, &pairs), q,
                    y + 11, arm_style(a), true);
        row++;
    }
    plot_close(&p);
}

static inline void panel_differences(Report *r, Buf *b)
{
    char title[96];
    if (!any_compared(r)) {
        page_absent(b, "Differences: they are taken from the runs of the directory called grpo "
                       "that share a seed with others; there are none.");
        return;
    }
    buf_str(b, "<figure>\n");
    table_differences(r, b, AT_END, "At the last evaluation, points");
    snprintf(title, sizeof title, "Mean from step %d on, points", half_begins(r));
    table_differences(r, b, SECOND_HALF, title);
    buf_str(b, "<div class=\"grid forest\">\n");
    for (int i = 0; i < columns(&r->runs); i++)
        forest_panel(r, b, headline(&r->runs, i));
    buf_str(b, "</div>\n");
    page_caption(r, b, "What each method adds to <b>%s</b> on the same seeds and problems, in "
                 "percentage points (distinct right answers: as a count), with 95 %% intervals. "
                 "Large marks, thick lines: the last evaluation; small and thin: the mean of the "
                 "evaluations from step %d on, which one lucky step cannot make. Bold, and clear "
                 "of the dashed line: the interval leaves 0 out.",
                 r->against->label, half_begins(r));
}

static inline void panel_table(Report *r, Buf *b)
{
    const EvalRow *shape = r->runs.shape;
    char distinct[32] = "";
    page_heading(b, "Results");
    if (!shape) {
        page_absent(b, "No run has an eval.jsonl. Train with --eval-every N, and the tables, the "
                       "frontier and the held-out curves will be here.");
        return;
    }
    if (r->runs.distinct_problems)
        snprintf(distinct, sizeof distinct, " (%d distinct)", r->runs.distinct_problems);
    buf_str(b, "<figure class=\"short\">\n");
    table_values(r, b);
    table_asides(r, b);
    page_caption(r, b, "Right answers to %d held-out problems%s, %d samples of each, with 95 %% "
                 "intervals: Student\xE2\x80\x99s t over seeds; with one seed, bootstrap over "
                 "distinct problems. pass@1: the share that is right; maj@%d: is the most frequent "
                 "of %d answers right; pass@k: is any of k; distinct right: how many different "
                 "right answers to expect among so many samples, a count. Below it the same "
                 "responses: mean cosine of their gradient features and share of pairs below zero, "
                 "entropy (nats a token), length (tokens); copies: the share of right answers that "
                 "repeat another one to their problem; and the shares of problems with two "
                 "different right answers, with nothing but right ones, and with none.",
                 shape->problems, distinct, shape->samples, shape->maj_k, shape->maj_k);
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

/* A quantity at every evaluation that all of an arm's evaluated seeds have, in percent or as a
 * count. */
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
            double value = quantity_scale(q) * a->run[k]->eval[i].value[q];
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

/* Sorts ends from the top, and moves their words apart: one that comes closer than `gap` to the one
 * above goes down. */
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

static inline void frontier_words(const Report *r, const Plot *p, PathEnd *e, int n)
{
    char text[64];
    spread_ends(e, n, 19);
    for (int i = 0; i < n; i++) {
        double x = p->right + 14;
        snprintf(text, sizeof text, "%.14s", r->runs.arm[e[i].arm].label);
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

enum { FRONTIER_WIDTH = 560, FRONTIER_HEIGHT = 400 };

/* The frontier's measure against pass@1, one path an arm; the names stand beside the ends. */
static inline void frontier_draw(const Report *r, Buf *b)
{
    char x_name[32], y_name[64], title[80], below[64], step[32];
    int top = r->measure, n = 0;
    double x0 = (double)NAN, y0 = (double)NAN;
    PathEnd *end = xcalloc((size_t)r->runs.n_arms, sizeof *end);
    quantity_name(&r->runs, 0, x_name);
    quantity_title(&r->runs, top, y_name);
    snprintf(title, sizeof title, top == DISTINCT_RIGHT ? "%s" : "%s, %%", y_name);
    snprintf(below, sizeof below, "%s, %%", x_name);
    Axis x_axis = axis_fit(frontier_span(r, 0));
    Plot p = plot_open(b, FRONTIER_WIDTH, FRONTIER_HEIGHT, (Span){x_axis.low, x_axis.high},
                       frontier_span(r, top), title, below, true);
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
        svg_text(b, plot_x(&p, x0), plot_y(&p, y0) + 22, "end", "middle", "base, step 0");
    frontier_words(r, &p, end, n);
    snprintf(step, sizeof step, "step %d", last_step(r));
    if (n)
        svg_text(b, p.right + 14, end[0].text_y - 14, "t", "start", step);
    plot_close(&p);
    free(end);
}

static inline void table_frontier(const Report *r, Buf *b)
{
    static const char *const head[] = {"", "seeds", "missing", "difference", "over problems"};
    buf_printf(b, "<h3>Minus %s\xE2\x80\x99s at the same pass@1, %s</h3>\n"
               "<div class=\"wide\"><table class=\"full stack\"><thead><tr>", r->against->label,
               r->measure == DISTINCT_RIGHT ? "answers" : "points");
    for (int i = 0; i < 5; i++)
        buf_printf(b, i ? "<th class=\"n\">%s</th>" : "<th>%s</th>", head[i]);
    buf_str(b, "</tr></thead><tbody>\n");
    for (int a = 0; a < r->runs.n_arms; a++) {
        const Frontier *f = &r->frontier[a];
        if (!has_frontier(r, a))
            continue;
        table_name(b, r->runs.arm[a].label, arm_style(a));
        buf_printf(b, "<td class=\"n\">%d</td><td class=\"n\">%d</td>", f->seeds, f->missing);
        table_cell(b, f->over_seeds, r->measure, true);
        buf_str(b, "<td class=\"n\">");
        table_interval(b, f->over_problems, r->measure, true);
        buf_str(b, "</td></tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* What the table below the drawing says, as the end of its caption. */
static inline const char *frontier_caption(const Report *r, char text[1024])
{
    *text = 0;
    if (any_frontier(r))
        snprintf(text, 1024, " The table has the height of a method\xE2\x80\x99s path over that of "
                 "<b>%s</b>: the mean difference at %d equally spaced values of pass@1, from the "
                 "base\xE2\x80\x99s to the lower of the two paths\xE2\x80\x99 highest, each path "
                 "taken where it first reaches the value; same seed, same learning rate. Missing: "
                 "seeds whose paths share less than %g points of pass@1. Two 95 %% intervals: "
                 "with the difference Student\xE2\x80\x99s t over seeds, beside it bootstrap over "
                 "distinct problems inside each seed.", r->against->label, FRONTIER_POINTS,
                 100 * FRONTIER_RANGE);
    return text;
}

static inline void panel_frontier(Report *r, Buf *b)
{
    char what[96], text[1024];
    int k = quantity_k(&r->runs, r->measure);
    if (!r->runs.shape)
        return;
    snprintf(what, sizeof what, r->measure == DISTINCT_RIGHT
             ? "how many different right answers are among %d" : "how often any of %d is", k);
    page_heading(b, "The frontier");
    buf_str(b, "<figure class=\"short\"><div class=\"drawing\">\n");
    frontier_draw(r, b);
    buf_str(b, "</div>\n");
    if (any_frontier(r))
        table_frontier(r, b);
    page_caption(r, b, "Each method\xE2\x80\x99s path from the base model: how often one answer is "
                 "right, to the right, and %s, upward; a mark at every evaluation, mean over "
                 "seeds, the large one the last. A path that goes right and down buys accuracy "
                 "with variety.%s", what, frontier_caption(r, text));
}

/* The frontier as a file of its own, on white with a margin. */
static inline void report_svg(const Report *r, const char *path)
{
    enum { MARGIN = 14, W = FRONTIER_WIDTH + 2 * MARGIN, H = FRONTIER_HEIGHT + 2 * MARGIN };
    Buf b = {0}, drawing = {0};
    if (!r->runs.shape)
        die("--svg: no run has an eval.jsonl to draw; train with --eval-every N");
    frontier_draw(r, &drawing);
    buf_printf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "viewBox=\"%d %d %d %d\" class=\"plot", W * 5 / 4, H * 5 / 4, -MARGIN, -MARGIN, W,
               H);
    /* Of the drawing's own tag all is taken from `role` on, with the title that follows it. */
    const char *name = strstr(drawing.s, "\" role="), *first = strstr(name, "<text");
    buf_add(&b, name, (size_t)(first - name));
    buf_str(&b, "<style>");
    style_scheme(&b, false);
    style_marks(&b);
    buf_str(&b, LOOK_SVG);
    buf_printf(&b, ":root{--page:#fff}</style>"
               "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#fff\"/>", -MARGIN,
               -MARGIN, W, H);
    buf_str(&b, first);
    write_file(path, b.s, b.n);
    buf_free(&b);
    buf_free(&drawing);
}

/* ---------------------------------------------------------------- learning curves */

/* Steps of the running mean: a fifteenth of the longest run, odd, and at least 3. */
static inline int smoothing(const Report *r)
{
    int n = 0;
    for (int i = 0; i < r->runs.n; i++)
        n = imax(n, r->runs.run[i].n_steps);
    return imax(3, n / 15 | 1);
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
        quantity_title(&r->runs, q, title);
        strcat(title, q == DISTINCT_RIGHT ? " on held-out problems" : " on held-out problems, %");
    }
    if (y.low <= y.high) {
        Plot p = plot_open(b, 340, 230, x, y, measure < 0 ? title : CURVES[measure].title, "step",
                           false);
        for (int a = 0; a < arms; a++)
            if (r->runs.arm[a].n > 1)
                plot_band(&p, c[a].x, c[a].low, c[a].high, c[a].n, arm_style(a),
                          arms);
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
    for (int i = 0; r->runs.shape && i < columns(&r->runs); i++)
        curve_panel(r, b, -1, headline(&r->runs, i));
    for (int i = 0; i < N_CURVES; i++)
        curve_panel(r, b, i, 0);
    buf_str(b, "</div>\n");
    page_caption(r, b, "Lines: mean over seeds; shaded: from the lowest of several seeds to the "
                 "highest. Held-out panels have a mark at each evaluation; the others are of the "
                 "training batch, a running mean over %d steps. The cosine is that of the "
                 "gradient features of answers to one problem, \xCE\xA3 A\xC2\xB2 the sum of "
                 "squared advantages.",
                 smoothing(r));
}

#endif
