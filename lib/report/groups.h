/* groups.h: the panels of a report's page that look into groups of responses: the matrices of
 * cosines, novelty of gradient and of text, and one group's arithmetic. */
#ifndef GROUPS_H
#define GROUPS_H

#include "../base/correlation.h" /* defines: correlation */
#include "ledger.h"         /* defines: Ledger, LedgerGroup, LedgerRow */
#include "panels.h"         /* defines: page_heading, page_caption, signed_number; svg.h: Plot */

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
            buf_printf(b, "M%.6g %.6gh%.6gv%.6gh%.6gz", HEAT_LEFT + k * size, i * size, size, size,
                       -size);
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
                b->row[i].response.s &&
                !memcmp(a->row[i].response.s, b->row[i].response.s, a->row[i].response.n);
    return equal;
}

enum { SHOWN_ARMS = 3 };

/* Arms to look into: the first, then those of method g2rl, then others; three at most. */
static inline int shown_arms(const Report *r, int arm[SHOWN_ARMS])
{
    int n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int a = 0; a < r->runs.n_arms && n < SHOWN_ARMS; a++) {
            bool early = !a || !strcmp(run_option(r->runs.arm[a].run[0], "method"), "g2rl");
            if (r->ledger[a].last.n && early == !pass)
                arm[n++] = a;
        }
    return n;
}

static inline void panel_groups(Report *r, Buf *b)
{
    int arm[SHOWN_ARMS], n = shown_arms(r, arm);
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

/* Pearson's correlation of nu and u. */
static inline double novelty_correlation(const LedgerPoint *p, int n)
{
    double *x = xmalloc((size_t)n * 3 * sizeof *x), *y = x + n, *weight = y + n;
    for (int i = 0; i < n; i++) {
        x[i] = p[i].u;
        y[i] = p[i].nu;
        weight[i] = 1;
    }
    double r = correlation(x, y, weight, n);
    free(x);
    return r;
}

/* Right responses are circles, wrong ones crosses; at most 500 points. */
static inline void cloud_panel(Buf *b, const char *label, const LedgerPoint *point, int n)
{
    enum { POINTS = 500 };
    int stride = (n + POINTS - 1) / POINTS;
    char title[128];
    Buf r = {0};
    snprintf(title, sizeof title, "%.30s: exploration score \xCE\xBD", label);
    Plot p = plot_open(b, 340, 300, (Span){0, 1}, (Span){0, 1}, title,
                       "semantic novelty u", false);
    buf_str(&r, "r = ");
    number(&r, novelty_correlation(point, n), 2);
    svg_text(b, p.right, 14, "t", "end", r.s);
    buf_free(&r);
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
        if (r->ledger[a].n_points < FEWEST)
            continue;
        if (!shown++)
            buf_str(b, "<figure>\n<ul class=\"key\"><li><svg viewBox=\"0 0 34 14\" "
                       "aria-hidden=\"true\"><path class=\"cloud good\" "
                       "d=\"M14 7a3 3 0 1 0 6 0a3 3 0 1 0 -6 0\"/></svg>right</li>"
                       "<li><svg viewBox=\"0 0 34 14\" aria-hidden=\"true\">"
                       "<path class=\"cloud bad\" d=\"M14 4l6 6m0 -6l-6 6\"/></svg>wrong"
                       "</li></ul>\n<div class=\"grid\">\n");
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
    int arm[SHOWN_ARMS], n = shown_arms(r, arm), a = 0, n_right, shown;
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
    page_caption(r, b, "How one group\xE2\x80\x99s advantages are made: reward r, exploration "
                 "score \xCE\xBD = 1 \xE2\x88\x92 \xCE\xA3 w S\xC2\xB2, its min-max "
                 "\xCE\xBD\xCC\x84 inside the group, shaped reward r\xCC\x83, advantage "
                 "A = (r\xCC\x83 \xE2\x88\x92 mean) / std.");
    free(order);
}

#endif
