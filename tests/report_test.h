/* report.h: tests of values, page and bad files of report. */
#ifndef TESTS_REPORT_H
#define TESTS_REPORT_H

#include "rollouts_test.h" /* defines: check_interval */
#include "train_test.h"

/* A run directory made by hand: two problems, two samples of each. right: of both problems at steps
 * 0, 10 and 20; maj is right / 2. */
static Path report_run(const char *group, const char *label, const char *seed, const int right[6])
{
    Buf dir = {0}, text = {0};
    buf_printf(&dir, "%s/%s/%s", tmp_dir(), group, label);
    Path p = path_join(dir.s, "");
    p.s[strlen(p.s) - 1] = 0;
    make_dirs(p.s);
    buf_printf(&text, "{\"command\": \"train\", \"method\": \"%s\", \"seed\": %s, \"data\": null, "
               "\"task\": \"add\", \"lr\": 1e-4}\n", strncmp(label, "grpo", 4) ? "g2rl" : "grpo",
               seed);
    write_file(path_join(p.s, "run.json").s, text.s, text.n);
    text.n = 0;
    for (int step = 1; step <= 20; step++)
        buf_printf(&text, "{\"step\": %d, \"reward\": %d, \"entropy\": null, \"kl_exact\": 0.5}\n",
                   step, step % 2);
    write_file(path_join(p.s, "metrics.jsonl").s, text.s, text.n);
    text.n = 0;
    for (int i = 0; i < 3; i++) {
        const int *r = right + 2 * i;
        buf_printf(&text, "{\"step\": %d, \"pass@1\": %g, \"pass@2\": %g, \"maj@2\": %g, "
                   "\"problems\": 2, \"samples\": 2, \"entropy\": 0.25, \"right\": [%d, %d], "
                   "\"maj\": [%g, %g]}\n", 10 * i, (r[0] + r[1]) / 4.0,
                   ((r[0] > 0) + (r[1] > 0)) / 2.0, (r[0] + r[1]) / 4.0, r[0], r[1], r[0] / 2.0,
                   r[1] / 2.0);
    }
    write_file(path_join(p.s, "eval.jsonl").s, text.s, text.n);
    buf_free(&dir);
    buf_free(&text);
    return p;
}

/* Is it a page whose tags close in the order in which they opened, with quoted attributes and
 * nothing raw in its text? Says where not. */
static const char *page_fault(const char *s)
{
    char stack[64][32];
    int depth = 0;
    for (; *s; s++) {
        size_t name = strcspn(s + 1, " />"), end = 0;
        if (*s == '>' || (*s == '&' && !strchr("alqg#", s[1])))
            return s;
        if (*s != '<')
            continue;
        for (bool quoted = false; s[end] && (quoted || s[end] != '>'); end++)
            quoted ^= s[end] == '"';
        if (!s[end] || name > 31 || depth > 62)
            return s;
        if (s[1] == '/') {
            size_t length = strcspn(s + 2, ">");
            if (!depth || strlen(stack[depth - 1]) != length ||
                strncmp(s + 2, stack[--depth], length))
                return s;
        } else if (s[1] != '!' && s[end - 1] != '/' && strncmp(s, "<meta ", 6)) {
            snprintf(stack[depth++], 32, "%.*s", (int)name, s + 1);
            if (!strcmp(stack[depth - 1], "style"))
                end = (size_t)(strstr(s, "</style>") - s) - 1;
        }
        s += end;
    }
    return depth ? "its end: a tag is open" : NULL;
}

/* A word of its own, in text or in an attribute. */
static bool has_word(const char *s, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = s; (at = strstr(at, word)); at += n)
        if ((at == s || !isalpha((unsigned char)at[-1])) && !isalpha((unsigned char)at[n]))
            return true;
    return false;
}

static char *read_page(const char *path)
{
    size_t n;
    char *page = read_file(path, &n);
    const char *fault = page_fault(page);
    CHECK(!fault, "not well-formed at %.80s", fault);
    CHECK(strlen(page) == n, "a NUL byte in the page");
    static const char *const words[] = {"nan", "NaN", "inf", "http", "https", "url"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK(!has_word(page, words[i]), "the page says %s", words[i]);
    return page;
}

/* The text from a word on; "" if it is not there. */
static const char *text_from(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at ? at : "";
}

/* The number behind a member of a JSON text that follows `after`; NaN if there is none. */
static double member_after(const char *text, const char *after, const char *name)
{
    const char *at = text_from(text_from(text, after), name);
    return *at ? strtod(at + strlen(name), NULL) : (double)NAN;
}

static void test_report_values(void)
{
    static const int right[4][6] = {
        {1, 0, 2, 1, 1, 1}, {0, 0, 1, 1, 2, 0}, {1, 0, 2, 2, 2, 2}, {0, 0, 0, 1, 2, 1}};
    Path a = report_run("v1", "grpo", "1", right[0]), b = report_run("v2", "grpo", "2", right[1]);
    Path c = report_run("v1", "g2rl", "1", right[2]), d = report_run("v2", "g2rl", "2", right[3]);
    double t = tan(0.95 * acos(0)); /* Student's t, one degree of freedom */
    CHECK(cli("report %s %s %s %s --json", a.s, b.s, c.s, d.s) == 0, "%s", cli_err);
    const char *arm = "\"g2rl\":", *path = "\"path\": {\"from\"", *out = text_from(cli_out, arm);
    CHECK(member_after(cli_out, "\"base\"", "\"seeds\": ") == 2, "%s", cli_out);
    CHECK(fabs(member_after(cli_out, "\"base\"", "\"pass@1\": ") - 0.125) < 1e-9, "base");
    CHECK(fabs(member_after(out, arm, "\"pass@1\": ") - 0.875) < 1e-9, "mean over seeds");
    CHECK(fabs(member_after(out, arm, "\"pass@1/interval\": [") - (0.875 - t * 0.125)) < 1e-5, "t");
    CHECK(fabs(member_after(out, arm, "\"pass@2\": ") - 1) < 1e-9, "pass@2");
    /* from step 10 on: seed 1 (1 + 1) / 2, seed 2 (.25 + .75) / 2 */
    CHECK(member_after(out, arm, "\"from\": ") == 10, "where the second half begins");
    CHECK(fabs(member_after(out, path, "\"pass@1\": ") - 0.75) < 1e-9, "second half");
    out = text_from(out, "\"difference\"");
    /* last: 1 - .5 and .75 - .5; second half: 1 - .625 and .5 - .5 */
    CHECK(fabs(member_after(out, "", "\"value\": ") - 0.375) < 1e-9, "difference");
    CHECK(fabs(member_after(out, "", "\"interval\": [") - (0.375 - t * 0.125)) < 1e-6, "%s", out);
    CHECK(fabs(member_after(out, "\"path\"", "\"value\": ") - 0.1875) < 1e-9, "its path");
    CHECK(fabs(member_after(out, "\"path\"", "\"interval\": [") - (0.1875 - t * 0.1875)) < 1e-6,
          "interval of the path");

    /* One seed: bootstrap over problems; both of the difference's are 1/2. */
    double x[2] = {0.5, 0.5};
    Estimate e = bootstrap(x, NULL, 2, 1);
    CHECK(cli("report %s %s --json", a.s, c.s) == 0, "%s", cli_err);
    CHECK(fabs(member_after(cli_out, "\"grpo\"", "\"pass@1/interval\": [") - e.low) < 1e-6, "own");
    out = text_from(cli_out, "\"difference\"");
    CHECK(member_after(out, "", "\"value\": ") == 0.5 &&
          member_after(out, "", "\"interval\": [") == 0.5, "%s", out);
    x[0] = 0.75; /* grpo from step 10 on: (2 + 1) / 4 and (1 + 1) / 4 */
    e = bootstrap(x, NULL, 2, 1);
    CHECK(fabs(member_after(text_from(cli_out, "\"grpo\""), "\"from\"", "\"pass@1/interval\": [") -
               e.low) < 1e-6, "problems over the second half: %s", cli_out);

    /* Seeds that have no partner are no pairs; the text says the same. */
    CHECK(cli("report %s %s", a.s, d.s) == 0 && !strstr(cli_out, "difference"), "%s", cli_out);
    CHECK(cli("report %s %s %s --out %s/x.html", a.s, c.s, d.s, tmp_dir()) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "\ng2rl         2   87.5 [") != NULL, "%s", cli_out);
    CHECK(strstr(cli_out, "\ng2rl      1  +50.0 [+50.0, +50.0]") != NULL, "%s", cli_out);
    char *page = read_page(tmp_path("x.html").s);
    CHECK(strstr(page, "<b>+50.0</b>") != NULL, "an interval without 0 is bold");
    CHECK(strstr(page, "base</th><td class=\"n\">12.5<i>") != NULL, "the base model at step 0");
    free(page);
}

/* A pair of paths without their problems. */
static FrontierPair made_pair(const double *xa, const double *ya, int na, const double *xb,
                              const double *yb, int nb)
{
    return (FrontierPair){.a = {xa, ya, na}, .b = {xb, yb, nb}, .seed = 1};
}

/* The difference of two paths, on paths made up. */
static void test_frontier(void)
{
    static const double x[] = {0.2, 0.4, 0.55, 0.7}, y[] = {0.9, 0.85, 0.75, 0.6};
    static const double slow_x[] = {0.2, 0.2, 0.4, 0.4, 0.55};
    static const double slow_y[] = {0.9, 0.9, 0.85, 0.85, 0.75};
    static const double half_x[] = {0.2, 0.3, 0.4, 0.475}, half_y[] = {0.9, 0.875, 0.85, 0.8};
    FrontierPair slow = made_pair(x, y, 4, slow_x, slow_y, 5);
    FrontierPair half = made_pair(half_x, half_y, 4, x, y, 4);
    CHECK(frontier_difference(&slow) == 0, "half speed: %g", frontier_difference(&slow));
    CHECK(fabs(frontier_difference(&half)) < 1e-12, "half as far: %g", frontier_difference(&half));

    /* 0.05 higher at every pass@1, by a path with other points */
    static const double up_y[] = {0.95, 0.925, 0.9, 0.85};
    FrontierPair up = made_pair(half_x, up_y, 4, x, y, 4);
    CHECK(fabs(frontier_difference(&up) - 0.05) < 1e-12, "offset %g", frontier_difference(&up));

    /* a line against a path that is flat at first: 20 values, both ends among them */
    static const double line_x[] = {0, 1}, line_y[] = {0, 1}, mid_x[] = {0, 0.5, 1};
    static const double mid_y[] = {0, 0, 1};
    FrontierPair bent = made_pair(line_x, line_y, 2, mid_x, mid_y, 3);
    double sum = 0;
    for (int j = 0; j < 20; j++)
        sum += j / 19.0 - fmax(0, 2 * j / 19.0 - 1);
    CHECK(fabs(frontier_difference(&bent) - sum / 20) < 1e-12, "20 values: %g, not %g",
          frontier_difference(&bent), sum / 20);

    /* turns back: what it passes a second time does not count, and 0.6 is reached from 0.3 */
    static const double back_x[] = {0.2, 0.5, 0.3, 0.6}, back_y[] = {0.8, 0.7, 0.9, 0.5};
    FrontierPath back = {back_x, back_y, 4};
    CHECK(fabs(frontier_at(&back, 0.4) - (0.8 - 0.1 * 2 / 3)) < 1e-12 &&
          fabs(frontier_at(&back, 0.5) - 0.7) < 1e-12, "first crossing: %g",
          frontier_at(&back, 0.4));
    CHECK(fabs(frontier_at(&back, 0.55) - (0.9 - 0.4 * 25 / 30)) < 1e-12, "from where it was: %g",
          frontier_at(&back, 0.55));
    static const double fell_x[] = {0.2, 0.5, 0.1}, fell_y[] = {0.8, 0.7, 0.1};
    FrontierPair fell = made_pair(fell_x, fell_y, 3, fell_x, fell_y, 2);
    FrontierPair fallen = made_pair(fell_x, fell_y, 2, fell_x, fell_y, 3);
    CHECK(frontier_difference(&fell) == 0 && frontier_difference(&fallen) == 0,
          "an end below its best: %g", frontier_difference(&fell));
}

/* Which seeds count, and the t interval over them. */
static void test_frontier_seeds(void)
{
    static const double ends[] = {0.7, 0.429, 0.4299999999, 0.431, 0.4, 0.3};
    static const bool counts[] = {true, false, true, true, false, false};
    static const double x[] = {0.4, 0.8}, y[] = {0.9, 0.7};
    double end_x[6][2];
    for (int i = 0; i < 6; i++) { /* of one path or the other */
        end_x[i][0] = 0.4;
        end_x[i][1] = ends[i];
        FrontierPair a = made_pair(end_x[i], y, 2, x, y, 2);
        FrontierPair b = made_pair(x, y, 2, end_x[i], y, 2);
        Frontier f = frontier(&a, 1), g = frontier(&b, 1);
        CHECK(f.seeds == counts[i] && f.missing == !counts[i] && g.seeds == counts[i],
              "from 0.4 to %.10g: %d seeds, %d missing", ends[i], f.seeds, f.missing);
        CHECK(isfinite(f.over_seeds.value) == counts[i] && isnan(f.over_seeds.low) &&
              isnan(f.over_problems.low) && isnan(f.p), "one seed has no t interval");
    }
    /* three seeds 0.01, 0.02 and 0.06 higher, and one that is missing: mean 0.03, s^2 = 0.0007 */
    static const double higher[3][2] = {{0.91, 0.71}, {0.92, 0.72}, {0.96, 0.76}};
    FrontierPair four[4];
    for (int i = 0; i < 4; i++)
        four[i] = i == 1 ? made_pair(end_x[1], y, 2, x, y, 2)
                         : made_pair(x, higher[i ? i - 1 : 0], 2, x, y, 2);
    Frontier f = frontier(four, 4);
    double half = 4.3026527297 * sqrt(0.0007 / 3);
    CHECK(f.seeds == 3 && f.missing == 1 && fabs(f.over_seeds.value - 0.03) < 1e-12, "%d seeds, %g",
          f.seeds, f.over_seeds.value);
    CHECK(fabs(f.over_seeds.low - 0.03 + half) < 1e-9 &&
          fabs(f.over_seeds.high - 0.03 - half) < 1e-9, "t: [%g, %g], not 0.03 +- %g",
          f.over_seeds.low, f.over_seeds.high, half);
    CHECK(fabs(f.p - 0.188497328799) < 1e-11, "p = %.12f", f.p);
}

/* The interval over problems against all samples of four problems in three classes. Both paths
 * have two points with the same x, so that D is the mean of the differences at both. */
static void test_frontier_problems(void)
{
    /* x of a at the base and at its end, y of a there; then those of b */
    static const double rows[4][8] = {
        {0.0, 0.8, 1.0, 0.9, 0.0, 0.8, 1.0, 0.2}, {0.5, 0.3, 1.0, 0.3, 0.5, 0.3, 0.4, 0.6},
        {0.1, 0.6, 0.8, 0.7, 0.1, 0.6, 0.8, 0.5}, {0.5, 0.3, 0.9, 0.1, 0.5, 0.3, 0.3, 0.7}};
    static const int class[] = {0, 1, 2, 1};
    double mean[8] = {0}, d[27], each[4][8], alike[4][8];
    int n = 0;
    for (int code = 0; code < 27; code++) {
        int drawn[3] = {code % 3, code / 3 % 3, code / 9}, count = 0;
        double x0 = 0, x1 = 0, sum = 0;
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 4; k++)
                if (class[k] == drawn[i]) {
                    x0 += rows[k][0];
                    x1 += rows[k][1];
                    sum += (rows[k][2] - rows[k][6] + rows[k][3] - rows[k][7]) / 2;
                    count++;
                }
        if (x1 > x0)
            d[n++] = sum / count;
    }
    CHECK(n > 10 && n < 27, "%d samples have a range", n);
    qsort(d, (size_t)n, sizeof *d, by_value);
    memcpy(each, rows, sizeof each);
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 8; i++) {
            mean[i] += rows[k][i] / 4;
            alike[k][i] = rows[0][i];
        }
    for (uint64_t seed = 0; seed < 10; seed++) {
        FrontierPair p = made_pair(mean, mean + 2, 2, mean + 4, mean + 6, 2);
        p.each = each[0];
        p.class = class;
        p.problems = 4;
        p.seed = seed;
        Frontier f = frontier(&p, 1);
        check_interval(f.over_problems, d, n, "frontier");
    }
    /* problems that are all alike make every sample the same: 0.35 in one seed, 0 in the other */
    FrontierPair p[2] = {made_pair(alike[0], alike[0] + 2, 2, alike[0] + 4, alike[0] + 6, 2),
                         made_pair(alike[0], alike[0] + 2, 2, alike[0], alike[0] + 2, 2)};
    double same[4][8];
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < 8; i++)
            same[k][i] = rows[0][i % 4];
    for (int i = 0; i < 2; i++) {
        p[i].each = i ? same[0] : alike[0];
        p[i].problems = 4;
    }
    Estimate e = frontier(p, 2).over_problems;
    CHECK(fabs(e.value - 0.175) < 1e-12 && fabs(e.low - 0.175) < 1e-12 &&
          fabs(e.high - 0.175) < 1e-12, "alike: %g [%g, %g]", e.value, e.low, e.high);
    p[1].each = NULL;
    e = frontier(p, 2).over_problems;
    CHECK(fabs(e.value - 0.175) < 1e-12 && isnan(e.low), "a seed that does not know its problems");
}

/* A run of two problems that are the same one, two samples of each, at its last evaluation `end`:
 * pass@1, pass@2 and distinct_right@2; at the base pass@1 = 0.5, distinct_right@2 = 1.5. Right
 * samples: 1 and 1, then 1 and 2. */
static Path frontier_run(const char *group, const char *label, const char *seed, const char *lr,
                         double base_pass, const double end[3])
{
    Path p = report_run(group, label, seed, (int[6]){0});
    Buf text = {0};
    double apart = strcmp(label, "grpo") ? 0.5 : -0.5; /* the two problems' distinct answers */
    buf_printf(&text, "{\"command\": \"train\", \"seed\": %s, \"lr\": %s}\n", seed, lr);
    write_file(path_join(p.s, "run.json").s, text.s, text.n);
    text.n = 0;
    for (int i = 0; i < 2; i++)
        buf_printf(&text, "{\"step\": %d, \"pass@1\": %g, \"pass@2\": %g, \"maj@2\": 0.5, "
                   "\"distinct_right@2\": %g, \"distinct_right@2/interval\": [1, 2], "
                   "\"frac_copies\": 0.125, \"frac_two_right\": null, \"distinct_problems\": 1, "
                   "\"problem_class\": [0, 0], \"problems\": 2, \"samples\": 2, "
                   "\"right\": [1, %d], \"distinct_right\": [%g, %g]}\n", 10 * i,
                   i ? end[0] : 0.5, i ? end[1] : base_pass, i ? end[2] : 1.5, 1 + i,
                   i ? end[2] - apart : 2, i ? end[2] + apart : 1);
    write_file(path_join(p.s, "eval.jsonl").s, text.s, text.n);
    buf_free(&text);
    return p;
}

/* What report says of it: the measure, which runs are compared, and where it stands. */
static void test_frontier_report(void)
{
    static const double grpo[] = {0.7, 0.8, 1.2}, g2rl[] = {0.9, 0.8, 1.5}, near[] = {0.52, 0.9, 1};
    Path a = frontier_run("f1", "grpo", "1", "1e-4", 0.94, grpo);
    Path b = frontier_run("f2", "grpo", "2", "0.0001", 0.94, grpo);
    Path c = frontier_run("f1", "g2rl", "1", "0.1e-3", 0.94, g2rl), page = tmp_path("f.html");
    Path d = frontier_run("f2", "g2rl", "2", "1e-4", 0.94, near);
    Path e = frontier_run("f1", "other", "1", "2e-4", 0.94, g2rl), svg = tmp_path("f.svg");
    CHECK(cli("report %s %s %s %s %s --json", a.s, b.s, c.s, d.s, e.s) == 0, "%s", cli_err);
    /* pass@2 falls from .94 by .14 / .2 and by .14 / .4 a unit of pass@1: on average .1 of it */
    const char *arm = text_from(cli_out, "\"g2rl\":"), *at = "\"frontier\"";
    char f[256];
    snprintf(f, sizeof f, "%.*s", (int)strcspn(text_from(arm, at), "}"), text_from(arm, at));
    CHECK(strstr(f, "\"measure\": \"pass@2\""), "%s", f);
    CHECK(fabs(member_after(f, "", "\"value\": ") - 0.035) < 1e-9, "%s", f);
    CHECK(member_after(f, "", "\"seeds\": ") == 1 && member_after(f, "", "\"missing\": ") == 1 &&
          !strstr(f, " \"interval\""), "one seed: %s", f);
    CHECK(strstr(f, "\"problems/interval\": ["), "%s", f);
    arm = text_from(cli_out, "\"other\":");
    CHECK(strstr(arm, "\"difference\"") && !strstr(arm, at), "another learning rate: %s", arm);
    CHECK(member_after(arm, "", "\"distinct_right@2\": ") == 1.5 &&
          member_after(arm, "", "\"frac_copies\": ") == 0.125, "%s", arm);

    /* a mean of 0.95 at the base: distinct right answers, which fall by 1.5 and by 0 a unit */
    b = frontier_run("f2", "grpo", "2", "0.0001", 0.96, grpo);
    d = frontier_run("f2", "g2rl", "2", "1e-4", 0.96, g2rl);
    CHECK(cli("report %s %s %s %s --json --out %s --svg %s", a.s, b.s, c.s, d.s, page.s, svg.s)
              == 0, "%s", cli_err);
    arm = text_from(cli_out, "\"g2rl\":");
    CHECK(strstr(text_from(arm, at), "\"measure\": \"distinct_right@2\"") &&
          fabs(member_after(arm, at, "\"value\": ") - 0.15) < 1e-9 &&
          fabs(member_after(arm, at, " \"interval\": [") - 0.15) < 1e-9, "%s", text_from(arm, at));
    CHECK(fabs(member_after(arm, at, "\"problems/interval\": [") - 0.15) < 1e-9,
          "the problems are all one: %s", text_from(arm, at));
    CHECK(cli("report %s %s %s %s --out %s", a.s, b.s, c.s, d.s, page.s) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "2 held-out problems (1 distinct), 2 samples of each, at step 10\n"),
          "%s", cli_out);
    CHECK(strstr(cli_out, "\ng2rl         2   90.0 [90.0, 90.0]") &&
          strstr(cli_out, "   1.5 [ 1.5,  1.5]\n"), "%s", cli_out);
    CHECK(strstr(cli_out, "12.5 %          -          -          -\n"), "%s", cli_out);
    CHECK(strstr(cli_out, "\ng2rl         2        0       +0.15  [+0.15, +0.15]  "
                          "[+0.15, +0.15]  0\n"), "%s", cli_out);
    char *html = read_page(page.s);
    CHECK(strstr(html, "From a base model with a pass@1 of 50.0 %, each method was trained for 10 "
                       "steps and asked 2 held-out problems, 2 times each. At the same pass@1 as "
                       "grpo, clearly more distinct right answers among 2: g2rl (+0.15). (Cl"),
          "words");
    CHECK(strstr(html, "Minus grpo\xE2\x80\x99s at the same pass@1, answers") &&
          strstr(html, ">distinct right of 2</text>") && strstr(html, ">copies, %</th>") &&
          !strstr(html, ">all right, %</th>"), "the page");
    free(html);

    /* the other way round: others minus g2rl; and a row that is not there */
    CHECK(cli("report %s %s %s %s --json --against g2rl", a.s, b.s, c.s, d.s) == 0, "%s",
          cli_err);
    arm = text_from(cli_out, "\"grpo\":");
    CHECK(fabs(member_after(arm, at, "\"value\": ") + 0.15) < 1e-9 &&
          member_after(arm, at, "\"p\": ") == 0, "%s", arm);
    CHECK(cli("report %s %s --against g2rl --out %s", a.s, c.s, page.s) == 0, "%s", cli_err);
    html = read_page(page.s);
    CHECK(strstr(html, "as g2rl, clearly fewer distinct right answers among 2: grpo (\xE2\x88\x92"
                       "0.15). "), "fewer");
    free(html);
    CHECK(cli("report %s %s --against other", a.s, c.s) == 1 &&
          !strcmp(cli_err, "g2rl: report: --against: no run is called 'other'\n"), "%s", cli_err);

    /* one seed above, one below: nothing is clear */
    static const double below[] = {0.9, 0.8, 0.7};
    d = frontier_run("f2", "g2rl", "2", "1e-4", 0.96, below);
    CHECK(cli("report %s %s %s %s --out %s", a.s, b.s, c.s, d.s, page.s) == 0, "%s", cli_err);
    html = read_page(page.s);
    CHECK(strstr(html, "no other clearly differs in distinct right answers among 2. Not clearly "
                       "different: g2rl (+0.05). (Clearly"), "unclear");
    free(html);

    /* what the last evaluation alone shows: paths with no range in common that end 0.5 apart, their
     * pass@1 up in one seed and down in the other; not so where pass@1 is up in both, or where the
     * frontier shows it, too */
    static const double fewer[][3] = {{0.52, 0.9, 1.2}, {0.62, 0.9, 1.2}, {0.7, 0.9, 1.2},
                                      {0.9, 0.9, 1.2}};
    static const double more[][3] = {{0.52, 0.9, 1.7}, {0.62, 0.9, 1.7}, {0.7, 0.9, 1.7},
                                     {0.9, 0.9, 1.7}};
    static const int ends[3][4] = {{0, 1, 1, 0}, {0, 1, 0, 1}, {2, 3, 3, 2}};
    for (int i = 0; i < 3; i++) {
        frontier_run("f1", "grpo", "1", "1e-4", 0.96, fewer[ends[i][0]]);
        frontier_run("f1", "g2rl", "1", "1e-4", 0.96, more[ends[i][1]]);
        frontier_run("f2", "grpo", "2", "1e-4", 0.96, fewer[ends[i][2]]);
        frontier_run("f2", "g2rl", "2", "1e-4", 0.96, more[ends[i][3]]);
        CHECK(cli("report %s %s %s %s --out %s", a.s, b.s, c.s, d.s, page.s) == 0, "%s", cli_err);
        html = read_page(page.s);
        const char *alone = strstr(html, "The last evaluation alone has a clear difference in "
                                         "distinct right answers among 2, and none in pass@1: g2rl "
                                         "(+0.50). (Clearly");
        CHECK((i == 0) == (alone != NULL), "late, case %d", i);
        free(html);
    }
    frontier_run("f1", "grpo", "1", "1e-4", 0.96, grpo);
    frontier_run("f1", "g2rl", "1", "1e-4", 0.96, g2rl);

    /* both problems are one class: every sample is the evaluation itself */
    CHECK(cli("report %s %s --json", a.s, c.s) == 0, "%s", cli_err);
    arm = text_from(cli_out, "\"g2rl\":");
    CHECK(member_after(arm, "", "\"distinct_right@2/interval\": [") == 1.5 &&
          fabs(member_after(text_from(arm, "\"difference\""), "\"distinct_right@2\"",
                            "\"interval\": [") - 0.3) < 1e-9, "by class: %s", arm);
}

/* Minus the base model, which has a pass@1 of 0.5 and no path; and a p that is small, not 0.0000,
 * of two seeds that hardly differ. */
static void test_report_against_base(void)
{
    static const double grpo[] = {0.7, 0.8, 1.2}, g2rl[] = {0.9, 0.8, 1.5};
    static const double near[] = {0.9, 0.8, 1.50001};
    Path a = frontier_run("b1", "grpo", "1", "1e-4", 0.96, grpo), page = tmp_path("base.html");
    Path b = frontier_run("b2", "grpo", "2", "1e-4", 0.96, grpo);
    Path c = frontier_run("b1", "g2rl", "1", "1e-4", 0.96, g2rl);
    Path d = frontier_run("b2", "g2rl", "2", "1e-4", 0.96, near);
    CHECK(cli("report %s %s %s %s --json --against base", a.s, b.s, c.s, d.s) == 0, "%s", cli_err);
    const char *arm = text_from(cli_out, "\"g2rl\":");
    CHECK(fabs(member_after(arm, "\"difference\": {\"pass@1\": ", "\"value\": ") - 0.4) < 1e-9
              && fabs(member_after(arm, "\"path\": {\"pass@1\": ", "\"value\": ") - 0.4) < 1e-9 &&
          !strstr(cli_out, "\"frontier\""), "%s", cli_out);
    CHECK(cli("report %s %s --against base --out %s", a.s, c.s, page.s) == 0 &&
          strstr(cli_out, "\ndifference from base, same seed and problems"), "%s", cli_err);
    CHECK(cli("report %s %s %s %s --out %s", a.s, b.s, c.s, d.s, page.s) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "  [+0.15, +0.15]  5.3e-06\n"), "%s", cli_out);
}

static const char *const GEOMETRY_LINE =
    "{\"name\": \"base\", \"pairs\": 4, \"identical\": 0.25, \"cos\": {\"mean\": 0.5, "
    "\"interval\": [0.25, null]}, \"zero_mean/sum\": {\"mean\": null, \"interval\": [null, null]}, "
    "\"histogram/cos\": [1, 3], \"histogram/neg_ratio\": [0, 0], \"true\": {\"all\": "
    "{\"pearson/phi\": {\"mean\": 0.9, \"interval\": [0.8, 1]}}}, \"true_pairs\": [[0, 1, 0.5]]}\n";

static void test_report_page(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const char *const hostile = "</td><script>x</script>&amp;\\\"'\\u202e\\u0001\\n";
    Path a = report_run("p", "grpo", "1", right), out = tmp_path("page.html");
    Path b = report_run("p", "b<i>&\"'\xff", "1", right), svg = tmp_path("frontier.svg");
    Path geometry = put_file("geometry.jsonl", GEOMETRY_LINE);
    Buf run = {0};
    buf_printf(&run, "{\"command\": \"train\", \"seed\": 1, \"task\": \"%s\"}", hostile);
    write_file(path_join(a.s, "run.json").s, run.s, run.n);
    buf_free(&run);
    CHECK(cli("report %s %s --geometry %s --out %s --svg %s", a.s, b.s, geometry.s, out.s, svg.s)
              == 0, "%s", cli_err);
    char *page = read_page(out.s);
    CHECK(strstr(page, "b&lt;i&gt;&amp;&quot;&#39;\xEF\xBF\xBD") != NULL, "the label");
    CHECK(strstr(page, "&lt;/td&gt;&lt;script&gt;x&lt;/script&gt;&amp;amp;&quot;&#39;"
                       "\xEF\xBF\xBD\xE2\x90\x81\xE2\x90\x8A</td>") != NULL, "the option");
    static const char *const parts[] = {
        "Results", "The frontier", "Along the way", "reward in training", "Options that differ",
        "gradient features, % of pairs", "Correlation with the cosines",
        "base: cosine of true gradients"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        CHECK(strstr(page, parts[i]) != NULL, "no %s", parts[i]);
    CHECK(!strstr(page, "entropy of the policy"), "a panel of nothing but null");
    free(page);
    size_t n;
    char *drawing = read_file(svg.s, &n);
    CHECK(!page_fault(drawing) && strstr(drawing, "<svg xmlns=") == drawing, "%.200s", drawing);
    free(drawing);
}

/* Panels that have nothing to show say so, or are not there. */
static void test_report_absent(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    Path a = report_run("absent", "alone", "1", right);
    Path page_path = path_join(path_join(tmp_dir(), "absent").s, "report.html");
    unlink(path_join(a.s, "eval.jsonl").s);
    CHECK(cli("report %s/", a.s) == 0 && strstr(cli_out, "no run has an eval"), "%s", cli_err);
    char *page = read_page(page_path.s);
    CHECK(strstr(page, "No run has an eval.jsonl") && strstr(page, "--geometry a file") &&
          !strstr(page, "The frontier"), "absent");
    free(page);
    CHECK(cli("report %s --json", a.s) == 0 && !strcmp(cli_out, "{\n}\n"), "%s", cli_out);
    CHECK(cli("report %s --svg %s/no.svg", a.s, tmp_dir()) == 1 &&
          !is_file(path_join(tmp_dir(), "no.svg").s), "%s", cli_err);
    write_file(path_join(a.s, "metrics.jsonl").s, "", 0);
    CHECK(cli("report %s", a.s) == 0, "no step at all: %s", cli_err);
    free(read_page(page_path.s));
}

/* A run that is being written, or was killed in mid-line: what is there of a last line without its
 * end is left out, wherever it breaks off. */
static void test_report_unfinished(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const char *const files[] = {"metrics.jsonl", "eval.jsonl"};
    for (int f = 0; f < 2; f++) {
        Path dir = report_run("live", "grpo", "1", right), file = path_join(dir.s, files[f]);
        size_t n, last;
        CHECK(cli("report %s", dir.s) == 0, "%s", cli_err);
        char *whole = xstrdup(cli_out), *text = read_file(file.s, &n);
        Buf half = {0};
        for (last = n - 1; last && text[last - 1] != '\n'; last--)
            ;
        for (size_t part = 1; part < n - last - 1; part += 7) {
            half.n = 0;
            buf_add(&half, text, n);
            buf_add(&half, text + last, part);
            write_file(file.s, half.s, half.n);
            CHECK(cli("report %s", dir.s) == 0 && !strcmp(cli_out, whole), "%s: %zu bytes: %s",
                  files[f], part, cli_err);
        }
        write_file(file.s, text, n - 1); /* whole, but for the newline */
        CHECK(cli("report %s", dir.s) == 0 && !strcmp(cli_out, whole), "%s", cli_err);
        buf_free(&half);
        free(text);
        free(whole);
    }
}

static void test_report_refused(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const struct {
        const char *file, *text, *error;
    } rows[] = {
        {"run.json", "{\"command\": \"train\"}", "run.json: seed: ''; expected"},
        {"run.json", "{\"command\": \"train\",\n\"seed\":", "run.json: line 2: expected"},
        {"metrics.jsonl", "{\"step\": 1}\n{\"step\": 1}\n", "line 2: step: 1 after 1"},
        {"metrics.jsonl", "{\"reward\": 1}\n", "line 1: step: expected"},
        {"metrics.jsonl", "{\"step\": 1, \"entropy\": \"x\"}\n", "line 1: entropy: expected a num"},
        {"metrics.jsonl", "{\"step\": 1}\n\n{\"step\": 2, \"re\n", "metrics.jsonl: line 3: "},
        {"eval.jsonl", "{\"step\": 0, \"pass@1\": 1}\n", "line 1: expected problems and samples"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 2, \"samples\": 2, \"right\": [1]}\n",
         "line 1: right: 1 numbers; expected 2"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 99, \"samples\": 2, \"right\": [1], "
         "\"right\": null}\n", "line 1: right: 0 numbers; expected 99"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 99, \"samples\": 2, \"maj\": [1], "
         "\"maj\": null}\n", "line 1: maj: 0 numbers; expected 99"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 1, \"samples\": 2, \"right\": [3]}\n",
         "line 1: right: 3 of 2 samples"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 1, \"samples\": 2, "
         "\"distinct_right\": [1, 2]}\n", "line 1: distinct_right: 2 numbers; expected 1"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 2, \"samples\": 2, \"maj@2\": 1, "
         "\"problem_class\": [0, 2]}\n", "problem_class: 2 for problem 1; expected the first"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 3, \"samples\": 2, "
         "\"problem_class\": [0, 0, 1]}\n", "problem_class: 1 for problem 2; expected the first"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 2, \"samples\": 2, \"maj@2\": 1, "
         "\"problem_class\": [0, 0]}\n{\"step\": 1, \"problems\": 2, \"samples\": 2, "
         "\"maj@2\": 1, \"problem_class\": [0, 1]}\n", "line 2: problem_class: 1 for problem 1; "
         "expected 0"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 2, \"samples\": 2, \"maj@2\": 1, "
         "\"distinct_right@2\": 1}\n{\"step\": 1, \"problems\": 2, \"samples\": 2, "
         "\"maj@2\": 1, \"distinct_right@1\": 1}\n", "line 2: distinct_right@1; expected @2"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 3, \"samples\": 2, \"maj@2\": 1}\n",
         "line 1: 3 problems, 2 samples, maj@2; expected 2, 2"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 3000000000}\n", "line 1: problems: expected"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 10000001, \"samples\": 2}\n", "at most 1"},
    };
    Path a = report_run("bad", "grpo", "1", right);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Path b = report_run("bad", "mine", "1", right), file = path_join(b.s, rows[i].file);
        write_file(file.s, rows[i].text, strlen(rows[i].text));
        CHECK(cli("report %s %s", a.s, b.s) == 1, "%s: %s", rows[i].file, rows[i].text);
        CHECK(strstr(cli_err, rows[i].error) && strchr(cli_err, '\n') == strrchr(cli_err, '\n'),
              "%s; expected %s", cli_err, rows[i].error);
        unlink(file.s);
    }
    CHECK(cli("report") == 2 && cli("report %s/none", tmp_dir()) == 1, "%s", cli_err);
    CHECK(cli("report %s", tmp_dir()) == 1 && strstr(cli_err, "it has no run.json"), "%s", cli_err);
    Path again = report_run("bad/again", "grpo", "1", right);
    CHECK(cli("report %s %s", a.s, again.s) == 1 && strstr(cli_err, "both are grpo with seed 1"),
          "%s", cli_err);
    Path geometry = put_file("geometry.jsonl", "{\"name\": \"x\", \"cos\": 1}\n");
    CHECK(cli("report %s --geometry %s", a.s, geometry.s) == 1 &&
          strstr(cli_err, "line 1: cos: expected an object"), "%s", cli_err);
}

static void test_report_csv(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const char metrics[] = "{\"step\": 1, \"loss\": 0.1, \"hash\": \"7\", \"none\": null}\n"
                                  "{\"a,\\\"b\": -2e9, \"step\": 4}\n";
    static const char evals[] = "{\"step\": 0, \"pass@1\": 0.5, \"right\": [1, 2]}\n"
                                "{\"step\": 4, \"pass@1\": 1, \"loss\": 3}\n";
    static const char expected[] = "step,loss,\"a,\"\"b\",eval/pass@1,eval/loss\n"
                                   "0,,,0.5,\n1,0.1,,,\n4,,-2000000000,1,3\n";
    Path run = report_run("csv", "grpo", "1", right);
    write_file(path_join(run.s, "metrics.jsonl").s, metrics, sizeof metrics - 1);
    write_file(path_join(run.s, "eval.jsonl").s, evals, sizeof evals - 1);
    CHECK(cli("report %s --csv", run.s) == 0 && !strcmp(cli_out, expected), "%s%s", cli_out,
          cli_err);
    CHECK(!is_file(path_join(tmp_path("csv").s, "report.html").s), "a page");
    CHECK(cli("report %s %s --csv", run.s, run.s) == 2 && cli("report %s --csv --json", run.s) == 2,
          "%s", cli_err);
    unlink(path_join(run.s, "eval.jsonl").s);
    CHECK(cli("report %s --csv", run.s) == 0 && !strstr(cli_out, "eval/"), "%s", cli_out);
    write_file(path_join(run.s, "metrics.jsonl").s, metrics, 60);
    CHECK(cli("report %s --csv", run.s) == 0 && strstr(cli_out, "1,0.1\n"), "%s", cli_out);
    write_file(path_join(run.s, "metrics.jsonl").s, "{\"loss\": 1}\n", 12);
    CHECK(cli("report %s --csv", run.s) == 1 && strstr(cli_err, "line 1: step: expected"), "%s",
          cli_err);
    Buf many = {0};
    for (int i = 0; i < 1002; i++)
        buf_printf(&many, "%s\"%d\": %d", i ? ", " : "{", i, i);
    buf_str(&many, "}\n");
    write_file(path_join(run.s, "metrics.jsonl").s, many.s, many.n);
    CHECK(cli("report %s --csv", run.s) == 1 && strstr(cli_err, "numbers of more than 1000 names"),
          "%s", cli_err);
    buf_free(&many);
}

/* A second report of everything in a folder: its own page, logs and a run of sft are skipped. */
static void test_report_skips(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const char sft[] = "{\"command\": \"sft\", \"seed\": 1}";
    Path run = report_run("skips", "grpo", "1", right);
    Path base = report_run("skips", "base", "1", right);
    Path page = tmp_path("skips/report.html"), log = tmp_path("skips/a.log");
    Path none = tmp_path("skips/none");
    write_file(path_join(base.s, "run.json").s, sft, strlen(sft));
    write_file(log.s, "text", 4);
    make_dirs(none.s);
    CHECK(cli("report %s --out %s", run.s, page.s) == 0, "%s", cli_err);
    char *alone = xstrdup(cli_out);
    const char *const skipped[] = {log.s, base.s, none.s, page.s};
    for (int i = 0; i < 4; i++) {
        CHECK(cli("report %s %s %s %s %s", log.s, base.s, run.s, none.s, page.s) == 0 &&
              !strcmp(cli_out, alone), "%s%s", cli_err, cli_out);
        Path line = path_printf("g2rl: %s: skipped: is no run of train: ", skipped[i]);
        CHECK(strstr(cli_err, line.s), "%s; expected %s", cli_err, line.s);
        CHECK(cli("report %s", skipped[i]) == 1 && strstr(cli_err, "is no run of train") &&
              !strstr(cli_err, "skipped"), "%s", cli_err);
    }
    CHECK(cli("report %s %s %s %s", log.s, base.s, none.s, page.s) == 1 &&
          strstr(cli_err, "none of these"), "%s", cli_err);
    CHECK(cli("report %s %s/gone", run.s, tmp_dir()) == 1 && strstr(cli_err, "gone: is no run"),
          "a name without a file: %s", cli_err);
    free(alone);
}

static void test_svg_parts(void)
{
    Buf b = {0};
    static const struct {
        double low, high, step, first, last;
        int decimals;
    } rows[] = {{0.17, 0.83, 0.2, 0, 1, 1}, {-3, 47, 10, -10, 50, 0},
                {0.0301, 0.0309, 2e-4, 0.03, 0.031, 4}, {5, 5, 0.2, 4.4, 5.6, 1},
                {0, 0, 5e-4, -1e-3, 1e-3, 4}, {1, 0, 0.2, 0, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Axis x = axis_fit((Span){rows[i].low, rows[i].high});
        CHECK(fabs(x.low - rows[i].first) < 1e-9 && fabs(x.high - rows[i].last) < 1e-9 &&
              fabs(x.step - rows[i].step) < 1e-9 && x.decimals == rows[i].decimals,
              "row %zu: %g to %g by %g, %d", i, x.low, x.high, x.step, x.decimals);
    }
    html_text(&b, "a\xF0\x9F\x98\x80\xff<b>", 9, 4);
    CHECK(!strcmp(b.s, "a\xF0\x9F\x98\x80\xEF\xBF\xBD&lt;\xE2\x80\xA6"), "%s", b.s);
    b.n = 0;
    number(&b, -0.04, 1, true);
    number(&b, -0.06, 1, false);
    number(&b, (double)NAN, 1, true);
    number(&b, 0.06, 1, true);
    CHECK(!strcmp(b.s, "0.0\xE2\x88\x92" "0.1\xE2\x80\x93+0.1"), "%s", b.s);
    PathEnd end[4] = {{.y = 50}, {.y = 10}, {.y = 12}, {.y = 13}};
    spread_ends(end, 4, 10);
    for (int i = 1; i < 4; i++)
        CHECK(end[i].y >= end[i - 1].y && end[i].text_y - end[i - 1].text_y >= 10 - 1e-9,
              "end %d at %g after %g", i, end[i].text_y, end[i - 1].text_y);
    double x[5] = {1, (double)NAN, 3, 5, 100};
    CHECK(running_mean(x, 1, 5, 1, 3) == 2 && running_mean(x, 1, 5, 0, 3) == 1 &&
          running_mean(x, 1, 5, 2, 3) == 4 && isnan(running_mean(x, 1, 5, 1, 1)) &&
          running_mean(x, 2, 3, 1, 3) == 104.0 / 3, "running mean");
    buf_free(&b);
}

#endif
