/* report.h: runs in, a table and one self-contained HTML page out.
 *
 *   report_page    every panel: tables, frontier, curves, geometry, options
 *   report         the command: that page, and the table of summary.h on stdout; --csv: csv.h
 *
 * It reads files of run directories and nothing else, and nothing else reads it. Figures are
 * inline SVG (svg.h): no script, no network, no font of its own. */
#ifndef REPORT_H
#define REPORT_H

#include "../rl/session.h" /* defines: Session */
#include "csv.h"           /* defines: report_csv */
#include "panels.h"        /* defines: panel_results ...; figure3.h: figure3_read, panel_figure3 */

static inline void page_header(const Report *r, Buf *b)
{
    const RunFiles *one = &r->runs.run[0];
    const char *data = run_option(one, "data"), *task = run_option(one, "task");
    int seeds = 0, fewest = r->runs.n;
    for (int a = 0; a < r->runs.n_arms; a++) {
        seeds = imax(seeds, r->runs.arm[a].n);
        fewest = imin(fewest, r->runs.arm[a].n);
    }
    buf_str(b, "<header><h1>");
    for (int a = 0; a < r->runs.n_arms; a++) {
        const char *join = a == r->runs.n_arms - 1 ? " and " : ", ";
        buf_str(b, a ? join : "");
        html_string(b, r->runs.arm[a].label);
    }
    buf_str(b, "</h1>\n<p>");
    html_string(b, *data && strcmp(data, "null") ? data : task);
    buf_printf(b, ": %d run%s, %s%d seed%s a method; ", r->runs.n, r->runs.n > 1 ? "s" : "",
               fewest < seeds ? "at most " : "", seeds, seeds > 1 ? "s" : "");
    html_string(b, run_option(one, "steps"));
    buf_str(b, " steps of ");
    html_string(b, run_option(one, "prompts"));
    buf_str(b, " prompts \xC3\x97 ");
    html_string(b, run_option(one, "rollouts"));
    buf_str(b, " responses.</p></header>\n");
}

static inline void report_page(const Report *r, const char *path)
{
    Buf b = {0};
    buf_str(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                "<title>g2rl report</title>\n<style>");
    style_sheet(&b);
    buf_str(&b, "</style>\n</head>\n<body>\n<main>\n");
    page_header(r, &b);
    panel_words(r, &b);
    panel_results(r, &b);
    panel_differences(r, &b);
    panel_frontier(r, &b);
    panel_curves(r, &b);
    panel_figure3(&r->geometry, &b);
    panel_options(r, &b);
    buf_str(&b, "</main>\n</body>\n</html>\n");
    write_file(path, b.s, b.n);
    fprintf(stderr, "%s: %zu kB\n", path, (b.n + 999) / 1000);
    buf_free(&b);
}

/* report.html in the directory that holds the first run's. */
static inline Path report_path(const char *dir)
{
    char *copy = path_trimmed(dir), *slash = strrchr(copy, '/');
    if (slash)
        slash[slash == copy] = 0;
    Path p = path_join(slash ? copy : strcmp(copy, ".") ? "." : "..", "report.html");
    free(copy);
    return p;
}

/* The command line of `report`. */
typedef struct {
    const char *const *dirs;
    int n;
    const char *geometry, *out, *svg, *against;
    bool json;
} ReportOptions;

static inline void report(const ReportOptions *o)
{
    Report r = {.runs = runs_read(o->dirs, o->n)};
    if (o->geometry)
        r.geometry = figure3_read(o->geometry);
    for (int i = 0; i < r.geometry.n; i++)
        for (int a = 0; a < r.runs.n_arms; a++)
            if (!strcmp(r.geometry.row[i].name.s, r.runs.arm[a].label))
                r.geometry.row[i].style = arm_style(a);
    tables_make(&r, o->against ? o->against : "grpo");
    if (o->against && !r.against)
        die("report: --against: no run is called '%s'", o->against);
    report_page(&r, o->out ? o->out : report_path(o->dirs[0]).s);
    if (o->svg)
        report_svg(&r, o->svg);
    (o->json ? report_json : report_text)(&r);
    Table *const tables[] = {&r.values, &r.responses, &r.last, &r.mean, &r.frontier};
    for (int i = 0; i < 5; i++)
        free(tables[i]->row);
    free(r.base.run);
    figure3_free(&r.geometry);
    runs_free(&r.runs);
}

static void cmd_report(Session *s)
{
    const Options *o = &s->o;
    if (!s->words.n_words)
        usage("report: expected run directories, e.g. g2rl report runs/grpo runs/g2rl");
    if (o->csv) {
        if (s->words.n_words > 1 || o->json || o->geometry || o->out || o->svg ||
            o->against)
            usage("report: --csv takes one run and no other option, and writes to stdout");
        report_csv(s->words.word[0]);
        return;
    }
    ReportOptions x = {s->words.word, s->words.n_words, o->geometry, o->out, o->svg,
                       o->against, o->json};
    report(&x);
}

#endif
