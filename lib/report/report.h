/* report.h: runs in, a table and one self-contained HTML page out.
 *
 *   report_page    every panel: table, frontier, curves, geometry, groups, novelty, options
 *   report         the command: that page, and the table of summary.h on stdout
 *
 * It reads files of run directories and nothing else, and nothing else reads it. Figures are
 * inline SVG (svg.h): no script, no network, no font of its own. */
#ifndef REPORT_H
#define REPORT_H

#include "../rl/session.h" /* defines: Session */
#include "figure3.h" /* defines: figure3_read, figure3_panel */
#include "groups.h"  /* defines: panel_groups, panel_novelty, panel_sums */
#include "panels.h"  /* defines: panel_table, panel_frontier, panel_curves, report_svg */

/* ---------------------------------------------------------------- options */

/* Is an option equal in all runs? */
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
    const RunFiles *one = &r->runs.run[0];
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
    Path p = path_join(slash ? copy : strcmp(copy, ".") ? "." : "..", "report.html");
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
    frontiers(&r);
    report_page(&r, o->out ? o->out : report_path(o->dirs[0]).s);
    if (o->svg)
        report_svg(&r, o->svg);
    (o->json ? report_json : report_text)(&r);
    for (int a = 0; a < r.runs.n_arms; a++)
        ledger_free(&r.ledger[a]);
    free(r.ledger);
    free(r.frontier);
    free(r.base.run);
    figure3_free(&r.geometry);
    runs_free(&r.runs);
}

static void cmd_report(Session *s)
{
    const Options *o = &s->o;
    if (!s->words.n_words)
        usage("report: expected run directories, e.g. g2rl report runs/grpo runs/g2rl");
    ReportOptions x = {s->words.word, s->words.n_words, o->geometry, o->out, o->svg, o->json};
    report(&x);
}

#endif
