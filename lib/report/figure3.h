/* figure3.h: the paper's Figure 3 from the output of `g2rl geometry --json`, a line a model: the
 * distribution of the cosines of gradient features and of those of texts, how often they are
 * negative, and how well they agree with the gradients of all parameters. */
#ifndef FIGURE3_H
#define FIGURE3_H

#include "runs.h" /* defines: Member, members_read, lines_read, point_estimate; svg.h: Plot */

/* Columns of tables: a number, or {"mean": x, "interval": [a, b]}. From F3_TRUTH on, of "all" in
 * "true": correlations with the cosines of the gradients of all parameters, and their mean. */
static const struct {
    const char *key, *title;
    bool is_number;
    double scale;
    int decimals;
} F3_COLUMN[] = {
    {"pairs", "pairs", true, 1, 0},
    {"identical", "equal, %", true, 100, 1},
    {"cos", "cosine", false, 1, 3},
    {"cos_distinct", "distinct", false, 1, 3},
    {"neg_ratio", "negative, %", false, 100, 1},
    {"semantic", "texts", false, 1, 3},
    {"semantic_distinct", "distinct", false, 1, 3},
    {"zero_mean/sum", "zero-mean, \xCE\xA3\xCF\x86", false, 1, 3},
    {"zero_mean/mean", "\xCE\xA3\xCF\x86 / L", false, 1, 3},
    {"pearson/phi", "\xCF\x86, Pearson", false, 1, 3},
    {"spearman/phi", "\xCF\x86, Spearman", false, 1, 3},
    {"pearson/semantic", "texts, Pearson", false, 1, 3},
    {"spearman/semantic", "texts, Spearman", false, 1, 3},
    {"cos", "their mean cosine", false, 1, 3},
};
enum { F3_COLUMNS = sizeof F3_COLUMN / sizeof *F3_COLUMN, F3_TRUTH = F3_COLUMNS - 5 };

/* The histograms, and the column whose mean is marked in each. */
static const struct {
    const char *key, *title, *below;
    int mean;
    double low;
} F3_HISTOGRAM[] = {
    {"histogram/cos", "gradient features, % of pairs", "cosine", 2, -1},
    {"histogram/semantic", "texts, % of pairs", "cosine", 5, -1},
    {"histogram/neg_ratio", "negative pairs, % of groups", "share of pairs below zero", 4, 0},
    {"histogram/cos_distinct", "gradient features, % of distinct pairs", "cosine", 3, -1},
    {"histogram/semantic_distinct", "texts, % of distinct pairs", "cosine", 6, -1},
};
enum { F3_HISTOGRAMS = sizeof F3_HISTOGRAM / sizeof *F3_HISTOGRAM };

/* A part of the parameters: Pearson's correlation of cosines of features with its gradients'. */
typedef struct {
    Buf name;
    double pearson;
} TruePart;

typedef struct {
    Buf name;
    int style;
    Estimate e[F3_COLUMNS];
    List bin[F3_HISTOGRAMS]; /* shares, in percent */
    TruePart *part;
    double (*pair)[2]; /* cosines of features and of true gradients */
    int n_parts, n_pairs;
} Figure3Row;

typedef struct {
    Figure3Row *row;
    int n;
} Figure3;

/* ---------------------------------------------------------------- reading */

static inline void read_interval(Json *j, void *to)
{
    Estimate *e = to;
    int n = 0;
    for (json_array(j); json_item(j); n++)
        read_number(j, n ? &e->high : &e->low);
    if (n != 2)
        json_fail(j, "expected two numbers");
}

static inline void read_estimate(Json *j, void *to)
{
    Estimate *e = to;
    members_read(j, (Member[]){{"mean", read_number, &e->value}, {"interval", read_interval, e}},
                 2);
}

/* An object of parts, each an object of estimates. */
static inline void read_truth(Json *j, void *to)
{
    Figure3Row *row = to;
    Buf name = {0};
    for (json_object(j); json_key(j, &name);) {
        Estimate e[F3_COLUMNS - F3_TRUTH];
        Member m[F3_COLUMNS - F3_TRUTH];
        for (int i = F3_TRUTH; i < F3_COLUMNS; i++) {
            e[i - F3_TRUTH] = point_estimate(NO_NUMBER);
            m[i - F3_TRUTH] = (Member){F3_COLUMN[i].key, read_estimate, &e[i - F3_TRUTH]};
        }
        members_read(j, m, F3_COLUMNS - F3_TRUTH);
        if (!strcmp(name.s, "all"))
            memcpy(row->e + F3_TRUTH, e, sizeof e);
        row->part = room_for_one(row->part, row->n_parts, sizeof *row->part);
        row->part[row->n_parts] = (TruePart){.pearson = e[0].value};
        buf_add(&row->part[row->n_parts++].name, name.s, name.n);
    }
    buf_free(&name);
}

/* Rows of cosines: of features, of true gradients, of texts. */
static inline void read_pairs(Json *j, void *to)
{
    Figure3Row *row = to;
    List one = {0};
    for (json_array(j); json_item(j);) {
        read_list(j, &one);
        if (one.n != 3) {
            json_fail(j, "expected rows of three numbers");
            break;
        }
        row->pair = room_for_one(row->pair, row->n_pairs, sizeof *row->pair);
        memcpy(row->pair[row->n_pairs++], one.x, sizeof *row->pair);
    }
    free(one.x);
}

/* Counts, as percent of their sum. */
static inline void read_histogram(Json *j, void *to)
{
    List *bin = to;
    double sum = 0;
    read_list(j, bin);
    for (int i = 0; i < bin->n; i++) {
        if (bin->x[i] < 0)
            json_fail(j, "expected counts of at least 0");
        sum += bin->x[i];
    }
    for (int i = 0; i < bin->n && sum > 0; i++)
        bin->x[i] *= 100 / sum;
}

/* A line of the file; `to` is the Figure3. */
static inline void figure3_line(Json *j, const char *path, int line, void *to)
{
    enum { N = 3 + F3_TRUTH + F3_HISTOGRAMS };
    Figure3 *f = to;
    Figure3Row row = {0};
    Member m[N] = {{"name", read_text, &row.name}, {"true", read_truth, &row},
                   {"true_pairs", read_pairs, &row}}, *next = m + 3;
    for (int i = 0; i < F3_COLUMNS; i++)
        row.e[i] = point_estimate(NO_NUMBER);
    for (int i = 0; i < F3_TRUTH; i++)
        *next++ = F3_COLUMN[i].is_number ? (Member){F3_COLUMN[i].key, read_number, &row.e[i].value}
                                         : (Member){F3_COLUMN[i].key, read_estimate, &row.e[i]};
    for (int h = 0; h < F3_HISTOGRAMS; h++)
        *next++ = (Member){F3_HISTOGRAM[h].key, read_histogram, &row.bin[h]};
    line_check(j, path, line, members_read(j, m, N));
    if (!row.name.n)
        die("%s: line %d: expected a name", path, line);
    row.style = strcmp(row.name.s, "base") ? f->n % N_STYLES : BASE_STYLE;
    f->row = room_for_one(f->row, f->n, sizeof row);
    f->row[f->n++] = row;
}

static inline Figure3 figure3_read(const char *path)
{
    Figure3 f = {0};
    lines_read(path, figure3_line, &f);
    if (!f.n)
        die("%s: holds no models", path);
    return f;
}

static inline void figure3_free(Figure3 *f)
{
    for (int i = 0; i < f->n; i++) {
        Figure3Row *r = &f->row[i];
        for (int k = 0; k < r->n_parts; k++)
            buf_free(&r->part[k].name);
        for (int h = 0; h < F3_HISTOGRAMS; h++)
            free(r->bin[h].x);
        buf_free(&r->name);
        free(r->part);
        free(r->pair);
    }
    free(f->row);
}

/* ---------------------------------------------------------------- drawing */

static inline void histogram_panel(const Figure3 *f, int h, Buf *b)
{
    Span y = {0, 0};
    for (int i = 0; i < f->n; i++)
        for (int k = 0; k < f->row[i].bin[h].n; k++)
            span_add(&y, f->row[i].bin[h].x[k]);
    if (!(y.high > 0))
        return;
    Plot p = plot_open(b, 340, 230, (Span){F3_HISTOGRAM[h].low, 1}, y, F3_HISTOGRAM[h].title,
                       F3_HISTOGRAM[h].below, false);
    if (F3_HISTOGRAM[h].low < 0)
        svg_line(b, plot_x(&p, 0), p.top, plot_x(&p, 0), p.bottom, "zero");
    for (int i = 0; i < f->n; i++)
        if (f->row[i].bin[h].n)
            plot_steps(&p, f->row[i].bin[h].x, f->row[i].bin[h].n, f->row[i].style);
    for (int i = 0; i < f->n; i++)
        plot_mark(&p, f->row[i].e[F3_HISTOGRAM[h].mean].value, p.y.low, 4.2, f->row[i].style,
                  false);
    buf_str(b, "</svg>\n");
}

/* The columns from one on to before another. */
static inline void figure3_table(const Figure3 *f, const char *title, int from, int to, Buf *b)
{
    table_open(b, title, from < F3_TRUTH);
    for (int i = from; i < to; i++)
        table_column(b, F3_COLUMN[i].title);
    buf_str(b, TABLE_BODY);
    for (const Figure3Row *r = f->row; r < f->row + f->n; r++) {
        if (from == F3_TRUTH && !r->n_parts)
            continue;
        table_row(b, r->name.s, r->style);
        for (int i = from; i < to; i++)
            table_cell(b, r->e[i], F3_COLUMN[i].scale, F3_COLUMN[i].decimals, false);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, TABLE_END);
}

/* A column for each part that the model `first` has. */
static inline void parts_table(const Figure3 *f, const Figure3Row *first, Buf *b)
{
    table_open(b, "Pearson\xE2\x80\x99s correlation of \xCF\x86 with the gradient of each part",
               false);
    for (int k = 0; k < first->n_parts; k++)
        table_column(b, first->part[k].name.s);
    buf_str(b, TABLE_BODY);
    for (const Figure3Row *r = f->row; r < f->row + f->n; r++) {
        if (!r->n_parts)
            continue;
        table_row(b, r->name.s, r->style);
        for (int k = 0; k < first->n_parts; k++) {
            double x = NO_NUMBER;
            for (int i = r->n_parts - 1; i >= 0; i--)
                if (!strcmp(r->part[i].name.s, first->part[k].name.s))
                    x = r->part[i].pearson;
            table_cell(b, point_estimate(x), 1, 3, false);
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, TABLE_END);
}

/* Cosines of at most 600 pairs: of true gradients against features. */
static inline void scatter_panel(const Figure3Row *r, Buf *b)
{
    enum { POINTS = 600 };
    char title[96];
    snprintf(title, sizeof title, "%.40s: cosine of true gradients", r->name.s);
    Plot p = plot_open(b, 340, 300, (Span){-1, 1}, (Span){-1, 1}, title,
                       "cosine of gradient features", false);
    svg_line(b, plot_x(&p, -1), plot_y(&p, -1), plot_x(&p, 1), plot_y(&p, 1), "zero");
    buf_printf(b, "<path class=\"s%d scatter\" d=\"", r->style);
    for (int i = 0; i < r->n_pairs; i += r->n_pairs / POINTS + 1)
        svg_circle(b, plot_x(&p, r->pair[i][0]), plot_y(&p, r->pair[i][1]), 2);
    buf_str(b, "\"/>");
    buf_str(b, "</svg>\n");
}

static inline void panel_figure3(const Figure3 *f, Buf *b)
{
    const Figure3Row *first = NULL; /* that has true gradients of several parts */
    bool truth = false;
    page_heading(b, "Similarity of responses");
    if (!f->n) {
        page_absent(b, "Distributions of cosines: give --geometry a file that `g2rl geometry "
                       "--json` wrote.");
        return;
    }
    buf_str(b, "<figure>\n<ul class=\"key\">");
    for (int i = 0; i < f->n; i++) {
        page_key(b, f->row[i].name.s, f->row[i].style);
        truth |= f->row[i].n_parts > 0;
        first = !first && f->row[i].n_parts > 1 ? &f->row[i] : first;
    }
    buf_str(b, "</ul>\n<div class=\"grid\">\n");
    for (int h = 0; h < F3_HISTOGRAMS; h++)
        histogram_panel(f, h, b);
    buf_str(b, "</div>\n");
    figure3_table(f, NULL, 0, F3_TRUTH, b);
    if (truth)
        figure3_table(f, "Correlation with the cosines of true gradients, of all parameters",
                      F3_TRUTH, F3_COLUMNS, b);
    if (first)
        parts_table(f, first, b);
    buf_str(b, "<div class=\"grid below\">\n");
    for (int i = 0; i < f->n; i++)
        if (f->row[i].n_pairs)
            scatter_panel(&f->row[i], b);
    buf_str(b, "</div>\n" CAPTION "Cosines between two responses to one problem, counted as in the "
               "paper\xE2\x80\x99s Figure 3: between gradient features, between texts, and the "
               "share of each group\xE2\x80\x99s pairs whose features have a negative cosine. The "
               "mark on the axis is the mean. Equal responses have cosine 1 in any measure, so "
               "distinct pairs are shown as well. Zero-mean: the mean product of two "
               "responses\xE2\x80\x99 features over the mean square of one; for sums of \xCF\x86 "
               "theory says 0." CAPTION_END);
}

#endif
