/* figure3.h: the paper's Figure 3 from what `g2rl geometry --json` wrote, a line a model: read, and
 * drawn. How are the cosines of gradient features distributed, and those of texts? How often are
 * they below zero? Do they say what the gradients of all parameters say? */
#ifndef FIGURE3_H
#define FIGURE3_H

#include "runs.h" /* defines: number_list, number_or_null, field_end; stats.h: Estimate */
#include "svg.h"  /* defines: Plot, plot_steps */

/* Members that are numbers, that are {mean, interval}, and that are counts. */
enum { F3_GROUPS, F3_SAMPLES, F3_PAIRS, F3_DISTINCT, F3_IDENTICAL, F3_TEMPERATURE, F3_NUMBERS };
static const char *const F3_NUMBER[] = {"groups",    "samples",  "pairs", "distinct_pairs",
                                        "identical", "temperature"};
enum {
    F3_COS, F3_COS_DISTINCT, F3_SEMANTIC, F3_SEMANTIC_DISTINCT, F3_NEGATIVE, F3_NEGATIVE_DISTINCT,
    F3_ZERO_SUM, F3_ZERO_MEAN, F3_ESTIMATES
};
static const char *const F3_ESTIMATE[] = {
    "cos",       "cos_distinct",       "semantic",      "semantic_distinct",
    "neg_ratio", "neg_ratio_distinct", "zero_mean/sum", "zero_mean/mean"};
enum { F3_HISTOGRAMS = 5 };
/* A histogram, and the estimate whose mean is marked in it. */
static const struct {
    const char *key, *title, *below;
    int mean;
    double low;
} F3_HISTOGRAM[F3_HISTOGRAMS] = {
    {"histogram/cos", "gradient features, % of pairs", "cosine", F3_COS, -1},
    {"histogram/semantic", "texts, % of pairs", "cosine", F3_SEMANTIC, -1},
    {"histogram/neg_ratio", "negative pairs, % of groups", "share of pairs below zero",
     F3_NEGATIVE, 0},
    {"histogram/cos_distinct", "gradient features, % of distinct pairs", "cosine",
     F3_COS_DISTINCT, -1},
    {"histogram/semantic_distinct", "texts, % of distinct pairs", "cosine",
     F3_SEMANTIC_DISTINCT, -1},
};
enum { F3_TRUTHS = 5 };
static const char *const F3_TRUTH[F3_TRUTHS] = {"pearson/phi", "spearman/phi", "pearson/semantic",
                                                "spearman/semantic", "cos"};

/* Correlations with the cosines of one part's true gradients. */
typedef struct {
    Buf name;
    Estimate e[F3_TRUTHS];
} TruePart;

typedef struct {
    Buf name, encoder;
    int style;
    double number[F3_NUMBERS];
    Estimate e[F3_ESTIMATES];
    double *bin[F3_HISTOGRAMS]; /* [bins] shares, in percent */
    int bins[F3_HISTOGRAMS];
    TruePart *part;
    int n_parts;
    double *pair; /* [n_pairs][3] cosines of features, of true gradients, of texts */
    int n_pairs;
} Figure3Row;

typedef struct {
    Figure3Row *row;
    int n;
} Figure3;

static const char *const FIGURE3_CAPTION =
    "Cosines between two responses to one problem, as the paper\xE2\x80\x99s Figure 3 counts them: "
    "left between gradient features, then between texts, then the share of each group\xE2\x80\x99s "
    "pairs whose features point apart. The mark on the axis is the mean. Equal responses have "
    "cosine 1 whatever is measured, so distinct pairs are shown as well. Zero-mean: the mean "
    "product of two responses\xE2\x80\x99 features over the mean square of one; for sums of "
    "\xCF\x86 theory says 0.";

/* ---------------------------------------------------------------- reading */

static inline int name_index(const char *const *names, int n, const char *key)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], key))
            return i;
    return -1;
}

/* {"mean": x, "interval": [a, b]}, with null where nothing could be measured. */
static inline void read_estimate(Json *j, Estimate *e)
{
    Buf key = {0};
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "mean"))
            number_or_null(j, &e->value);
        else if (!strcmp(key.s, "interval")) {
            json_array(j);
            for (int i = 0; json_item(j); i++)
                if (i < 2)
                    number_or_null(j, i ? &e->high : &e->low);
                else
                    json_fail(j, "expected two numbers");
        } else
            json_skip(j);
    buf_free(&key);
}

static inline void read_truth(Json *j, Figure3Row *row)
{
    Buf part = {0}, key = {0};
    for (json_object(j); json_key(j, &part);) {
        row->part = xrealloc(row->part, (size_t)(row->n_parts + 1) * sizeof *row->part);
        TruePart *p = &row->part[row->n_parts++];
        *p = (TruePart){0};
        buf_add(&p->name, part.s, part.n);
        for (int i = 0; i < F3_TRUTHS; i++)
            p->e[i] = bare((double)NAN);
        for (json_object(j); json_key(j, &key);) {
            int i = name_index(F3_TRUTH, F3_TRUTHS, key.s);
            if (i >= 0)
                read_estimate(j, &p->e[i]);
            else
                json_skip(j);
        }
    }
    buf_free(&part);
    buf_free(&key);
}

static inline void read_true_pairs(Json *j, Figure3Row *row)
{
    double *one = NULL;
    for (json_array(j); json_item(j);) {
        if (number_list(j, &one) != 3) {
            json_fail(j, "expected rows of three numbers");
            break;
        }
        row->pair = xrealloc(row->pair, (size_t)(row->n_pairs + 1) * 3 * sizeof *one);
        memcpy(row->pair + 3 * row->n_pairs++, one, 3 * sizeof *one);
    }
    free(one);
}

/* Counts, as percent of their sum. */
static inline void read_histogram(Json *j, Figure3Row *row, int h)
{
    double sum = 0;
    row->bins[h] = number_list(j, &row->bin[h]);
    for (int i = 0; i < row->bins[h]; i++) {
        if (row->bin[h][i] < 0)
            json_fail(j, "expected counts of at least 0");
        sum += row->bin[h][i];
    }
    for (int i = 0; i < row->bins[h] && sum > 0; i++)
        row->bin[h][i] *= 100 / sum;
}

static inline int histogram_index(const char *key)
{
    for (int h = 0; h < F3_HISTOGRAMS; h++)
        if (!strcmp(F3_HISTOGRAM[h].key, key))
            return h;
    return -1;
}

/* One member of a line. Returns its name, or NULL if it is none that is shown. */
static inline const char *figure3_member(Json *j, const char *key, Figure3Row *row)
{
    int number_at = name_index(F3_NUMBER, F3_NUMBERS, key);
    int estimate_at = name_index(F3_ESTIMATE, F3_ESTIMATES, key), h = histogram_index(key);
    if (number_at >= 0)
        return number_or_null(j, &row->number[number_at]), F3_NUMBER[number_at];
    if (estimate_at >= 0)
        return read_estimate(j, &row->e[estimate_at]), F3_ESTIMATE[estimate_at];
    if (h >= 0)
        return read_histogram(j, row, h), F3_HISTOGRAM[h].key;
    if (!strcmp(key, "name"))
        return json_string(j, &row->name), "name";
    if (!strcmp(key, "encoder"))
        return json_string(j, &row->encoder), "encoder";
    if (!strcmp(key, "true"))
        return read_truth(j, row), "true";
    if (!strcmp(key, "true_pairs"))
        return read_true_pairs(j, row), "true_pairs";
    json_skip(j);
    return NULL;
}

static inline Figure3 figure3_read(const char *path)
{
    Figure3 f = {0};
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    Buf key = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Figure3Row row = {0};
        const char *field = NULL;
        for (int i = 0; i < F3_NUMBERS; i++)
            row.number[i] = (double)NAN;
        for (int i = 0; i < F3_ESTIMATES; i++)
            row.e[i] = bare((double)NAN);
        for (json_object(&j); json_key(&j, &key);)
            field = figure3_member(&j, key.s, &row);
        field_end(&j, path, line, field);
        if (!row.name.n)
            die("%s: line %d: expected a name", path, line);
        row.style = strcmp(row.name.s, "base") ? f.n % N_STYLES : BASE_STYLE;
        f.row = xrealloc(f.row, (size_t)(f.n + 1) * sizeof row);
        f.row[f.n++] = row;
    }
    if (!f.n)
        die("%s: holds no models", path);
    buf_free(&key);
    free(text);
    return f;
}

static inline void figure3_free(Figure3 *f)
{
    for (int i = 0; i < f->n; i++) {
        Figure3Row *r = &f->row[i];
        for (int k = 0; k < r->n_parts; k++)
            buf_free(&r->part[k].name);
        for (int h = 0; h < F3_HISTOGRAMS; h++)
            free(r->bin[h]);
        buf_free(&r->name);
        buf_free(&r->encoder);
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
        for (int k = 0; k < f->row[i].bins[h]; k++)
            span_add(&y, f->row[i].bin[h][k]);
    if (!(y.high > 0))
        return;
    Plot p = plot_open(b, 340, 230, (Span){F3_HISTOGRAM[h].low, 1}, y, F3_HISTOGRAM[h].title,
                       F3_HISTOGRAM[h].below, false);
    if (F3_HISTOGRAM[h].low < 0)
        svg_line(b, plot_x(&p, 0), p.top, plot_x(&p, 0), p.bottom, "zero");
    for (int i = 0; i < f->n; i++)
        if (f->row[i].bins[h])
            plot_steps(&p, f->row[i].bin[h], f->row[i].bins[h], f->row[i].style);
    for (int i = 0; i < f->n; i++)
        plot_mark(&p, f->row[i].e[F3_HISTOGRAM[h].mean].value, p.y.low, 4.2, f->row[i].style,
                  false);
    plot_close(&p);
}

static inline void estimate_cell(Buf *b, Estimate e, double scale, int decimals)
{
    buf_str(b, "<td class=\"n\">");
    number(b, scale * e.value, decimals);
    if (isfinite(e.low) && isfinite(e.high)) {
        buf_str(b, "<i>[");
        number(b, scale * e.low, decimals);
        buf_str(b, ", ");
        number(b, scale * e.high, decimals);
        buf_str(b, "]</i>");
    }
    buf_str(b, "</td>");
}

/* Begins a row with the model's name. */
static inline void figure3_name(const Figure3Row *r, Buf *b)
{
    buf_str(b, "<tr><th scope=\"row\"><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">");
    svg_mark(b, 7, 7, 3.6, r->style, false);
    buf_str(b, "</svg>");
    html_text(b, r->name.s, r->name.n, 40);
    buf_str(b, "</th>");
}

/* A row a model: what is equal, what is measured, what chance says. */
static inline void figure3_table(const Figure3 *f, Buf *b)
{
    static const int shown[] = {F3_COS, F3_COS_DISTINCT, F3_NEGATIVE, F3_SEMANTIC,
                                F3_SEMANTIC_DISTINCT, F3_ZERO_SUM, F3_ZERO_MEAN};
    buf_str(b, "<div class=\"wide\"><table class=\"full stack\"><thead><tr><th></th>"
               "<th class=\"n\">pairs</th><th class=\"n\">equal, %</th><th class=\"n\">cosine</th>"
               "<th class=\"n\">distinct</th><th class=\"n\">negative, %</th>"
               "<th class=\"n\">texts</th><th class=\"n\">distinct</th>"
               "<th class=\"n\">zero-mean, \xCE\xA3\xCF\x86</th>"
               "<th class=\"n\">\xCE\xA3\xCF\x86 / L</th></tr></thead><tbody>\n");
    for (int i = 0; i < f->n; i++) {
        const Figure3Row *r = &f->row[i];
        figure3_name(r, b);
        estimate_cell(b, bare(r->number[F3_PAIRS]), 1, 0);
        estimate_cell(b, bare(r->number[F3_IDENTICAL]), 100, 1);
        for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
            estimate_cell(b, r->e[shown[k]], shown[k] == F3_NEGATIVE ? 100 : 1,
                          shown[k] == F3_NEGATIVE ? 1 : 3);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* The part of a row that has a name, or NULL. */
static inline const TruePart *part_find(const Figure3Row *r, const char *name)
{
    for (int k = 0; k < r->n_parts; k++)
        if (!strcmp(r->part[k].name.s, name))
            return &r->part[k];
    return NULL;
}

/* All parameters: the four correlations and the mean cosine of the gradients themselves. */
static inline void truth_table(const Figure3 *f, Buf *b)
{
    buf_str(b, "<h3>Correlation with the cosines of true gradients, of all parameters</h3>\n"
               "<div class=\"wide\"><table class=\"full\"><thead><tr><th></th>"
               "<th class=\"n\">\xCF\x86, Pearson</th><th class=\"n\">\xCF\x86, Spearman</th>"
               "<th class=\"n\">texts, Pearson</th><th class=\"n\">texts, Spearman</th>"
               "<th class=\"n\">their mean cosine</th></tr></thead><tbody>\n");
    for (int i = 0; i < f->n; i++) {
        const TruePart *p = part_find(&f->row[i], "all");
        if (!p)
            continue;
        figure3_name(&f->row[i], b);
        for (int e = 0; e < F3_TRUTHS; e++)
            estimate_cell(b, p->e[e], 1, 3);
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* The parts of the parameters that the first model has, a column each. */
static inline void parts_table(const Figure3 *f, Buf *b)
{
    const Figure3Row *first = NULL;
    for (int i = f->n - 1; i >= 0; i--)
        first = f->row[i].n_parts > 1 ? &f->row[i] : first;
    if (!first)
        return;
    buf_str(b, "<h3>Pearson\xE2\x80\x99s correlation of \xCF\x86 with the gradient of each "
               "part</h3>\n<div class=\"wide\"><table class=\"full\"><thead><tr><th></th>");
    for (int k = 0; k < first->n_parts; k++) {
        buf_str(b, "<th class=\"n\">");
        html_text(b, first->part[k].name.s, first->part[k].name.n, 30);
        buf_str(b, "</th>");
    }
    buf_str(b, "</tr></thead><tbody>\n");
    for (int i = 0; i < f->n; i++) {
        if (!f->row[i].n_parts)
            continue;
        figure3_name(&f->row[i], b);
        for (int k = 0; k < first->n_parts; k++) {
            const TruePart *p = part_find(&f->row[i], first->part[k].name.s);
            estimate_cell(b, bare(p ? p->e[0].value : (double)NAN), 1, 3);
        }
        buf_str(b, "</tr>\n");
    }
    buf_str(b, "</tbody></table></div>\n");
}

/* Each pair's cosine of features against that of true gradients; at most 600 of them. */
static inline void truth_cloud(const Figure3Row *r, Buf *b)
{
    enum { POINTS = 600 };
    int stride = r->n_pairs / POINTS + 1;
    char title[96];
    snprintf(title, sizeof title, "%.40s: cosine of true gradients", r->name.s);
    Plot p = plot_open(b, 340, 300, (Span){-1, 1}, (Span){-1, 1}, title,
                       "cosine of gradient features", false);
    svg_line(b, plot_x(&p, -1), plot_y(&p, -1), plot_x(&p, 1), plot_y(&p, 1), "zero");
    buf_printf(b, "<path class=\"cloud s%d hollow\" d=\"", r->style);
    for (int i = 0; i < r->n_pairs; i += stride) {
        svg_point(b, 'M', plot_x(&p, r->pair[3 * i]) - 2, plot_y(&p, r->pair[3 * i + 1]));
        buf_str(b, "a2 2 0 1 0 4 0a2 2 0 1 0 -4 0");
    }
    buf_str(b, "\"/>");
    plot_close(&p);
}

static inline void figure3_truth(const Figure3 *f, Buf *b)
{
    bool parts = false, pairs = false;
    for (int i = 0; i < f->n; i++) {
        parts |= f->row[i].n_parts > 0;
        pairs |= f->row[i].n_pairs > 0;
    }
    if (parts) {
        truth_table(f, b);
        parts_table(f, b);
    }
    if (!pairs)
        return;
    buf_str(b, "<div class=\"grid\">\n");
    for (int i = 0; i < f->n; i++)
        if (f->row[i].n_pairs)
            truth_cloud(&f->row[i], b);
    buf_str(b, "</div>\n");
}

/* The figure without its caption and its end. */
static inline void figure3_panel(const Figure3 *f, Buf *b)
{
    buf_str(b, "<figure>\n<ul class=\"key\">");
    for (int i = 0; i < f->n; i++) {
        buf_printf(b, "<li><svg viewBox=\"0 0 34 14\" aria-hidden=\"true\">"
                      "<path class=\"line s%d\" d=\"M1 7L33 7\"/>", f->row[i].style);
        svg_mark(b, 17, 7, 3.6, f->row[i].style, false);
        buf_str(b, "</svg>");
        html_text(b, f->row[i].name.s, f->row[i].name.n, 40);
        buf_str(b, "</li>");
    }
    buf_str(b, "</ul>\n<div class=\"grid\">\n");
    for (int h = 0; h < F3_HISTOGRAMS; h++)
        histogram_panel(f, h, b);
    buf_str(b, "</div>\n");
    figure3_table(f, b);
    figure3_truth(f, b);
}

#endif
