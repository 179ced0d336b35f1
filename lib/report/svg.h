/* svg.h: pages and charts as text, appended to a Buf.
 *
 *   html_text, html_string     text from files, escaped; what a page may not hold is made visible
 *   number                     a number as people read it; a dash where there is none
 *   style_sheet                colours of both schemes, print, narrow screens
 *   svg_open ... svg_mark      shapes in picture coordinates
 *   Plot, plot_open ...        a chart with axes; lines, bands, steps, marks in data coordinates
 *   page_heading, table_open ...   headings, keys and tables of a page
 *
 * A drawing names no colour. It has classes, s0 to s7 for what is compared and s8 for the base
 * model, and the style sheet says what they look like in light, in dark and on paper. The eight
 * colours are those of Okabe and Ito, which stay apart in every common form of colour blindness;
 * each comes with a mark of its own shape. */
#ifndef SVG_H
#define SVG_H

#include "../base/json.h"  /* defines: utf8_decode, utf8_encode; util.h: Buf */
#include "../base/stats.h" /* defines: Estimate */

#define NO_NUMBER ((double)NAN)
enum { N_STYLES = 12, BASE_STYLE = N_STYLES, MOST_TICKS = 5 };

/* ---------------------------------------------------------------- text */

/* What stands for a code point in a page: itself; U+2400 + c for a control character; U+FFFD for
 * what would turn the direction of writing, and for what is no character. */
static inline uint32_t html_code(uint32_t c)
{
    bool turns = (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E ||
                 c == 0x200F;
    if (c < 0x20)
        return 0x2400 + c;
    return turns || (c >= 0x7F && c < 0xA0) || (c & 0xFFFE) == 0xFFFE ||
           (c >= 0xFDD0 && c <= 0xFDEF) ? 0xFFFD : c;
}

/* At most `limit` characters of n bytes, then an ellipsis. */
static inline void html_text(Buf *b, const char *s, size_t n, int limit)
{
    uint32_t code;
    for (size_t i = 0; i < n; limit--) {
        if (limit == 0) {
            utf8_encode(b, 0x2026);
            return;
        }
        i += (size_t)abs(utf8_decode(s + i, n - i, &code));
        switch (code) {
        case '&': buf_str(b, "&amp;"); break;
        case '<': buf_str(b, "&lt;"); break;
        case '>': buf_str(b, "&gt;"); break;
        case '"': buf_str(b, "&quot;"); break;
        case '\'': buf_str(b, "&#39;"); break;
        default: utf8_encode(b, html_code(code));
        }
    }
}

static inline void html_string(Buf *b, const char *s) { html_text(b, s, strlen(s), -1); }

/* A true minus sign, as wide as a digit; no -0. `sign`: positive numbers have a plus. */
static inline void number(Buf *b, double x, int decimals, bool sign)
{
    char text[64];
    if (!isfinite(x)) {
        buf_str(b, "\xE2\x80\x93");
        return;
    }
    snprintf(text, sizeof text, fabs(x) < 1e15 ? "%.*f" : "%.*e", decimals, x);
    bool negative = text[0] == '-' && strspn(text, "-0.") < strlen(text);
    buf_str(b, negative ? "\xE2\x88\x92" : "");
    buf_str(b, sign && x >= 0.5 * pow(10, -decimals) ? "+" : "");
    buf_str(b, text + (text[0] == '-'));
}

/* ---------------------------------------------------------------- style */

static const char *const COLOURS[2] = {
    "--page:#fffefb;--ink:#1c1c1a;--soft:#66645e;--rule:#dcd9d0;--base:#8a877f;"
    "--s0:#1c1c1a;--s1:#0072b2;--s2:#d98c00;--s3:#009e73;--s4:#d55e00;--s5:#c0659a;--s6:#3fa3dc;"
    "--s7:#a89600;--s8:#7b3fb0;--s9:#8a4b2a;--s10:#2f7070;--s11:#b03060",
    "--page:#17181a;--ink:#e9e7e1;--soft:#a5a39b;--rule:#3a3b3e;--base:#98968e;"
    "--s0:#e9e7e1;--s1:#4fa8e8;--s2:#f0ad2e;--s3:#2cc79b;--s4:#ff8748;--s5:#e39cc4;--s6:#95d2f7;"
    "--s7:#e8dc5c;--s8:#b98af0;--s9:#c98a63;--s10:#6fbdbd;--s11:#f07090",
};

static const char *const STYLE_PAGE =
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}"
    "body{margin:0;counter-reset:figure;background:var(--page);color:var(--ink);"
    "font:17px/1.5 'Iowan Old Style','Palatino Linotype',Palatino,'Book Antiqua','URW Palladio L',"
    "P052,Georgia,serif;font-variant-numeric:lining-nums}"
    "main{max-width:1120px;margin:0 auto;padding:2.2rem 1.25rem 4rem}"
    "h1{font-weight:normal;font-size:2rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}"
    "header p{color:var(--soft);margin:0;max-width:46rem}"
    "p.words{margin:1rem 0 0;max-width:46rem}"
    "h2{font-weight:normal;font-size:1.35rem;margin:3rem 0 0;padding-top:.7rem;"
    "border-top:1px solid var(--rule)}"
    "h3{font-size:1rem;font-weight:600;margin:1.1rem 0 .2rem}"
    "figure{margin:1.2rem 0 0}"
    "figcaption{color:var(--soft);font-size:.92rem;max-width:46rem;margin:.9rem 0 0;"
    "counter-increment:figure}"
    "figcaption:before{content:'Figure ' counter(figure) '. '}"
    "figcaption b,figcaption:before{color:var(--ink);font-weight:600}"
    "p.absent{color:var(--soft);margin:1rem 0 0;max-width:46rem}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));"
    "gap:1.3rem 1.6rem}"
    ".grid>*{min-width:0}"
    "ul.key{list-style:none;margin:.8rem 0 .6rem;padding:0;display:flex;flex-wrap:wrap;"
    "gap:.15rem 1.3rem;font:15px/1.5 system-ui,sans-serif}"
    "ul.key svg{display:inline-block;width:34px;height:14px;vertical-align:-2px;margin-right:.4rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums lining-nums;width:100%;"
    "border-top:1.5px solid var(--ink);border-bottom:1.5px solid var(--ink)}"
    "th,td{padding:.28rem .9rem .28rem 0;text-align:left;vertical-align:baseline}"
    "th:last-child,td:last-child{padding-right:0}"
    "thead th{font-weight:normal;font-style:italic;border-bottom:1px solid var(--ink)}"
    "tbody th{font-weight:normal}"
    "tbody th,td.n,th.n,table.stack thead th{white-space:nowrap}td.n,th.n{text-align:right}"
    "td i{font-style:normal;color:var(--soft);font-size:.84em;margin-left:.45em}"
    ".wide{overflow-x:auto;margin-top:1.1rem}h3+.wide{margin-top:0}table.stack td i{display:block}"
    "svg{display:block;width:100%;height:auto;overflow:visible}"
    "th svg{display:inline-block;width:14px;margin-right:.45rem;vertical-align:-1px}"
    ".below{margin-top:1.3rem}.drawing{max-width:720px}";

/* Of the drawings alone: a file of one drawing takes this and no more. */
static const char *const STYLE_SVG =
    "text{fill:var(--soft);font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;"
    "font-variant-numeric:tabular-nums}"
    ".name{fill:var(--ink);font-weight:600}.end{fill:var(--ink)}"
    ".grid-line,.leader{stroke:var(--rule);stroke-width:1;fill:none}"
    ".axis{stroke:var(--soft);stroke-width:1;fill:none}"
    ".zero{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3;fill:none}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    ".thin{fill:none;stroke-width:1.1}.band{stroke:none}.dot{stroke-width:1.5}"
    ".open{fill:var(--page)}"
    ".scatter{stroke-width:1.2;opacity:.75;fill:none}";

static const char *const STYLE_NARROW =
    "@media(max-width:560px){body{font-size:16px}main{padding:1.3rem 1rem 3rem}"
    "h1{font-size:1.6rem}.big text{font-size:16px}.big .end{font-size:14px}"
    "table{font-size:13px}thead th.n,table.stack th{white-space:normal}"
    "td i{display:block;margin:0}th,td{padding-right:.4rem}}";

static const char *const STYLE_PRINT =
    "@media print{body{font-size:10.5pt;background:none}main{max-width:none;padding:0}"
    "figcaption{break-before:avoid}h2,h3,ul.key{break-after:avoid}h2{margin-top:1.6rem}"
    "figure.short,.plot,tr,table{break-inside:avoid}"
    ".grid{grid-template-columns:repeat(3,1fr);gap:.8rem}.wide{overflow:visible}"
    "td i{display:block;margin:0}th,td{padding:.15rem .6rem .15rem 0}}";

static inline void style_scheme(Buf *b, bool dark)
{
    buf_printf(b, ":root{color-scheme:%s;%s}", dark ? "dark" : "light", COLOURS[dark]);
}

/* Of lines and marks: sK, the last for the base model. */
static inline void style_marks(Buf *b)
{
    for (int i = 0; i < N_STYLES; i++)
        buf_printf(b, ".s%d{stroke:var(--s%d);fill:var(--s%d)}", i, i, i);
    buf_printf(b, ".s%d{stroke:var(--base);fill:var(--base)}", BASE_STYLE);
}

static inline void style_sheet(Buf *b)
{
    style_scheme(b, false);
    buf_str(b, "@media(prefers-color-scheme:dark){");
    style_scheme(b, true);
    buf_str(b, "}@media print{");
    style_scheme(b, false);
    buf_str(b, "}");
    style_marks(b);
    buf_str(b, STYLE_PAGE);
    buf_str(b, STYLE_SVG);
    buf_str(b, STYLE_NARROW);
    buf_str(b, STYLE_PRINT);
}

/* ---------------------------------------------------------------- a picture */

/* A coordinate to a tenth, finite, and without -0. */
static inline double tenth(double x)
{
    return rint(10 * fmin(fmax(x, -1e6), 1e6)) / 10 + 0.0;
}

static inline void svg_point(Buf *b, char command, double x, double y)
{
    buf_printf(b, "%c%.8g %.8g", command, tenth(x), tenth(y));
}

/* `name` is the picture's title, for screen readers and as a tooltip. */
static inline void svg_open(Buf *b, double width, double height, const char *class,
                            const char *name)
{
    buf_printf(b, "<svg class=\"%s\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\" "
               "role=\"img\" aria-label=\"", class, width, height, width, height);
    html_string(b, name);
    buf_str(b, "\"><title>");
    html_string(b, name);
    buf_str(b, "</title>");
}

static inline void svg_text(Buf *b, double x, double y, const char *class, const char *anchor,
                            const char *s)
{
    buf_printf(b, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.8g\" y=\"%.8g\">", class, anchor,
               tenth(x), tenth(y));
    html_string(b, s);
    buf_str(b, "</text>");
}

static inline void svg_line(Buf *b, double x0, double y0, double x1, double y1, const char *class)
{
    buf_printf(b, "<path class=\"%s\" d=\"", class);
    svg_point(b, 'M', x0, y0);
    svg_point(b, 'L', x1, y1);
    buf_str(b, "\"/>");
}

/* A part of a path. */
static inline void svg_circle(Buf *b, double x, double y, double r)
{
    svg_point(b, 'M', x - r, y);
    buf_printf(b, "a%g %g 0 1 0 %g 0a%g %g 0 1 0 %g 0", r, r, 2 * r, r, r, -2 * r);
}

/* The mark of a style, of radius r: circle, square, triangle, diamond, the first three hollow, a
 * cross; the base model's is a ring. `hollow` empties the others. */
static inline void svg_mark(Buf *b, double x, double y, double r, int style, bool hollow)
{
    enum { CIRCLE, CROSS = 4 };
    static const struct {
        int n;
        double at[4][2];
    } shapes[] = {[1] = {4, {{-.9, -.9}, {.9, -.9}, {.9, .9}, {-.9, .9}}},
                  [2] = {3, {{0, -1.15}, {1.1, .85}, {-1.1, .85}}},
                  [3] = {4, {{0, -1.25}, {1.25, 0}, {0, 1.25}, {-1.25, 0}}},
                  [CROSS] = {4, {{-1, -1}, {1, 1}, {1, -1}, {-1, 1}}}};
    int shape = style == 7 ? CROSS : style % 4;
    hollow |= style >= 4 && style < 7;
    buf_printf(b, "<path class=\"dot s%d%s\" d=\"", style, hollow ? " open" : "");
    if (shape == CIRCLE)
        svg_circle(b, x, y, r);
    for (int k = 0; k < shapes[shape].n; k++)
        svg_point(b, k == 0 || (shape == CROSS && k == 2) ? 'M' : 'L',
                  x + r * shapes[shape].at[k][0], y + r * shapes[shape].at[k][1]);
    buf_str(b, shape == CROSS ? "\"/>" : "z\"/>");
}

/* ---------------------------------------------------------------- a chart */

/* The data at an axis' ends, and the distance of its ticks; step 0: it has none. */
typedef struct {
    double low, high, step;
    int decimals;
} Axis;

typedef struct {
    Buf *b;
    double left, right, top, bottom; /* the edges of the data's rectangle, in the picture */
    Axis x, y;
} Plot;

static inline double plot_x(const Plot *p, double x)
{
    return p->left + (x - p->x.low) / (p->x.high - p->x.low) * (p->right - p->left);
}

static inline double plot_y(const Plot *p, double y)
{
    return p->bottom - (y - p->y.low) / (p->y.high - p->y.low) * (p->bottom - p->top);
}

/* The range of the finite numbers added so far. */
typedef struct {
    double low, high;
} Span;

static const Span NO_SPAN = {HUGE_VAL, -HUGE_VAL};

static inline void span_add(Span *s, double x)
{
    if (isfinite(x)) {
        s->low = fmin(s->low, x);
        s->high = fmax(s->high, x);
    }
}

/* 1, 2 or 5 times a power of ten: the smallest that makes at most MOST_TICKS steps. */
static inline double tick_step(double width)
{
    static const double nice[] = {1, 2, 5};
    double power = pow(10, floor(log10(width / MOST_TICKS)));
    for (int i = 0; i < 3; i++)
        if (width / (nice[i] * power) <= MOST_TICKS)
            return nice[i] * power;
    return 10 * power;
}

/* From tick to tick around all data; where there is none, or only one value, some room. */
static inline Axis axis_fit(Span s)
{
    Axis a;
    if (s.low > s.high)
        s = (Span){0, 1};
    double least = fmax(fabs(s.low), fabs(s.high)) * 1e-6 + 1e-9;
    if (s.high - s.low < least) {
        double room = fmax(fabs(s.high) / 10, 1e-3);
        s = (Span){s.low - room, s.high + room};
    }
    a.step = tick_step(s.high - s.low);
    a.low = floor(s.low / a.step + 1e-9) * a.step;
    a.high = ceil(s.high / a.step - 1e-9) * a.step;
    a.decimals = imax(0, (int)ceil(-log10(a.step) - 1e-9));
    return a;
}

static inline void plot_tick(const Plot *p, double at, bool vertical)
{
    Buf text = {0};
    number(&text, at, vertical ? p->y.decimals : p->x.decimals, false);
    if (vertical) {
        double y = plot_y(p, at);
        svg_line(p->b, p->left, y, p->right, y, "grid-line");
        svg_text(p->b, p->left - 6, y + 4, "t", "end", text.s);
    } else {
        double x = plot_x(p, at);
        svg_line(p->b, x, p->bottom, x, p->bottom + 4, "axis");
        svg_text(p->b, x, p->bottom + 18, "t", "middle", text.s);
    }
    buf_free(&text);
}

/* Opens the picture and draws the axes: `name` above it, `below` under the x axis. */
static inline void plot_axes(const Plot *p, double width, double height, const char *class,
                             const char *name, const char *below)
{
    const Axis *x = &p->x, *y = &p->y;
    svg_open(p->b, width, height, class, name);
    svg_text(p->b, 2, 14, "name", "start", name);
    for (int i = 0; y->step > 0 && y->low + i * y->step < y->high + y->step / 2; i++)
        plot_tick(p, y->low + i * y->step, true);
    double first = ceil(x->low / x->step - 1e-9) * x->step;
    for (int i = 0; first + i * x->step < x->high + x->step * 1e-6; i++)
        plot_tick(p, first + i * x->step, false);
    svg_line(p->b, p->left, p->bottom, p->right, p->bottom, "axis");
    svg_text(p->b, p->right, height - 4, "t", "end", below);
}

/* A chart of data in the spans x (kept as it is) and y (rounded to ticks). */
static inline Plot plot_open(Buf *b, double width, double height, Span x, Span y, const char *name,
                             const char *below, bool big)
{
    Plot p = {.b = b, .left = big ? 52 : 46, .right = width - (big ? 140 : 14), .top = 30,
              .bottom = height - (big ? 44 : 38), .x = axis_fit(x), .y = axis_fit(y)};
    if (x.low < x.high) {
        p.x.low = x.low;
        p.x.high = x.high;
    }
    plot_axes(&p, width, height, big ? "plot big" : "plot", name, below);
    return p;
}

/* Straight from point to point; a missing value leaves a gap. */
static inline void plot_line(const Plot *p, const double *x, const double *y, int n, int style)
{
    bool pen = false;
    buf_printf(p->b, "<path class=\"line s%d\" d=\"", style);
    for (int i = 0; i < n; i++) {
        bool there = isfinite(x[i]) && isfinite(y[i]);
        if (there)
            svg_point(p->b, pen ? 'L' : 'M', plot_x(p, x[i]), plot_y(p, y[i]));
        pen = there;
    }
    buf_str(p->b, "\"/>");
}

/* The area between two curves; the more of them there are, the fainter each. */
static inline void plot_band(const Plot *p, const double *x, const double *low, const double *high,
                             int n, int style, int bands)
{
    buf_printf(p->b, "<path class=\"band s%d\" opacity=\"%.2f\" d=\"", style,
               fmax(0.05, fmin(0.14, 0.45 / bands)));
    for (int from = 0, to; from < n; from = to + 1) {
        for (to = from; to < n && isfinite(low[to]) && isfinite(high[to]); to++)
            svg_point(p->b, to > from ? 'L' : 'M', plot_x(p, x[to]), plot_y(p, low[to]));
        for (int i = to - 1; i >= from; i--)
            svg_point(p->b, 'L', plot_x(p, x[i]), plot_y(p, high[i]));
        buf_str(p->b, to > from ? "z" : "");
    }
    buf_str(p->b, "\"/>");
}

/* A histogram of n bins of equal width over the x axis, as its outline. */
static inline void plot_steps(const Plot *p, const double *share, int n, int style)
{
    double width = (p->x.high - p->x.low) / n;
    buf_printf(p->b, "<path class=\"line s%d\" d=\"", style);
    svg_point(p->b, 'M', p->left, p->bottom);
    for (int i = 0; i < n; i++) {
        svg_point(p->b, 'L', plot_x(p, p->x.low + i * width), plot_y(p, share[i]));
        svg_point(p->b, 'L', plot_x(p, p->x.low + (i + 1) * width), plot_y(p, share[i]));
    }
    svg_point(p->b, 'L', p->right, p->bottom);
    buf_str(p->b, "\"/>");
}

static inline void plot_mark(const Plot *p, double x, double y, double r, int style, bool hollow)
{
    if (isfinite(x) && isfinite(y))
        svg_mark(p->b, plot_x(p, x), plot_y(p, y), r, style, hollow);
}

/* ---------------------------------------------------------------- parts of a page */

#define CAPTION "<figcaption>"
#define CAPTION_END "</figcaption>\n</figure>\n"
#define TABLE_BODY "</tr></thead><tbody>\n"
#define TABLE_END "</tbody></table></div>\n"

static inline void page_heading(Buf *b, const char *s) { buf_printf(b, "<h2>%s</h2>\n", s); }

static inline void page_absent(Buf *b, const char *what)
{
    buf_printf(b, "<p class=\"absent\">%s</p>\n", what);
}

/* An item of a key: a line with its mark. */
static inline void page_key(Buf *b, const char *label, int style)
{
    buf_printf(b, "<li><svg viewBox=\"0 0 34 14\" aria-hidden=\"true\">"
               "<path class=\"line s%d\" d=\"M1 7L33 7\"/>", style);
    svg_mark(b, 17, 7, 3.6, style, false);
    buf_str(b, "</svg>");
    html_string(b, label);
    buf_str(b, "</li>");
}

/* `stack`: intervals stand below their values. Columns follow, then TABLE_BODY. */
static inline void table_open(Buf *b, const char *title, bool stack)
{
    if (title)
        buf_printf(b, "<h3>%s</h3>\n", title);
    buf_printf(b, "<div class=\"wide\"><table%s><thead><tr><th></th>",
               stack ? " class=\"stack\"" : "");
}

static inline void table_column(Buf *b, const char *name)
{
    buf_str(b, "<th class=\"n\">");
    html_string(b, name);
    buf_str(b, "</th>");
}

static inline void table_row(Buf *b, const char *label, int style)
{
    buf_str(b, "<tr><th scope=\"row\"><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">");
    svg_mark(b, 7, 7, 3.6, style, false);
    buf_str(b, "</svg>");
    html_string(b, label);
    buf_str(b, "</th>");
}

static inline bool has_interval(Estimate e) { return isfinite(e.low) && isfinite(e.high); }

/* Is a difference clearly above (1) or below (-1) 0: does its 95 % interval exclude 0? */
static inline int clear_sign(Estimate e)
{
    return has_interval(e) ? (e.low > 0) - (e.high < 0) : 0;
}

/* The value, if there is one, and its interval, if there is one. `sign`: it is a difference, bold
 * where the interval excludes 0. */
static inline void table_cell(Buf *b, Estimate e, double scale, int decimals, bool sign)
{
    bool bold = sign && clear_sign(e);
    buf_str(b, bold ? "<td class=\"n\"><b>" : "<td class=\"n\">");
    if (isfinite(e.value) || !has_interval(e))
        number(b, scale * e.value, decimals, sign);
    buf_str(b, bold ? "</b>" : "");
    if (has_interval(e)) {
        buf_str(b, "<i>[");
        number(b, scale * e.low, decimals, sign);
        buf_str(b, ", ");
        number(b, scale * e.high, decimals, sign);
        buf_str(b, "]</i>");
    }
    buf_str(b, "</td>");
}

#endif
