/* eval.h: the command `eval`: models compared on held-out problems, each at one temperature or
 * several, as a table with intervals, as JSON, and with --responses every answer that was sampled.
 * What is measured is in g2rl.c (Evaluation). */
#ifndef EVAL_H
#define EVAL_H

enum { MOST_TEMPERATURES = 16, EVAL_COLUMNS = 5 };

/* The metrics of the table: pass@1, maj@k, pass@16 or as much of it as there is, pass@k of all
 * samples where that is more, and distinct right answers. Returns how many. */
static int eval_columns(const Evaluation *ev, int column[EVAL_COLUMNS])
{
    int last = passes(ev->samples), sixteen = passes(imin(ev->samples, 16)) - 1, n = 0;
    column[n++] = 0;
    column[n++] = last;
    column[n++] = sixteen;
    if (last - 1 > sixteen)
        column[n++] = last - 1;
    column[n++] = last + 1;
    return n;
}

/* Shares are printed in percent; distinct right answers are a count. */
static double eval_scale(const Evaluation *ev, int column)
{
    return column > passes(ev->samples) ? 1 : 100;
}

/* Columns for the names of the rows. */
static int eval_width(const Evaluation *all, int n)
{
    int width = 10;
    for (int i = 0; i < n; i++)
        width = imax(width, (int)strlen(all[i].name));
    return width;
}

static void print_head(const Evaluation *ev, const char *first, int width, FILE *f)
{
    int column[EVAL_COLUMNS], n = eval_columns(ev, column);
    char name[32];
    fprintf(f, "%-*s", width, first);
    for (int k = 0; k < n; k++) {
        evaluation_metric(ev, column[k], name);
        fprintf(f, k < n - 1 ? "  %-20s" : "  %s", name);
    }
    fputc('\n', f);
}

/* The table of models, a row each; then what their responses are like. */
static void print_evaluations(const Evaluation *all, int n, FILE *f)
{
    int column[EVAL_COLUMNS], columns = eval_columns(all, column), width = eval_width(all, n);
    char name[32];
    print_head(all, "percent", width, f);
    for (const Evaluation *ev = all; ev < all + n; ev++) {
        fprintf(f, "%-*s", width, ev->name);
        for (int k = 0; k < columns; k++) {
            Estimate e = evaluation_mean(ev, evaluation_metric(ev, column[k], name));
            double scale = eval_scale(ev, column[k]);
            fprintf(f, "  %5.*f [%5.*f, %5.*f]", scale > 1 ? 1 : 2, scale * e.value,
                    scale > 1 ? 1 : 2, scale * e.low, scale > 1 ? 1 : 2, scale * e.high);
        }
        fputc('\n', f);
    }
    fprintf(f, "\n%-*s  cosine  negative  entropy  length  copies  two right  all right  all "
            "wrong\n", width, "responses");
    for (const Evaluation *ev = all; ev < all + n; ev++) {
        const GroupSums *s = &ev->sums;
        fprintf(f, "%-*s  %6.3f  %6.1f %%  %7.3f  %6.1f  %4.1f %%  %7.1f %%  %7.1f %%  %7.1f %%\n",
                width, ev->name, ratio(s->cosine, s->pairs), 100 * ratio(s->negative, s->pairs),
                ratio(s->entropy, s->tokens), ratio(s->tokens, s->responses),
                100 * ratio(s->right - ev->right_classes, s->right),
                100 * ratio(ev->two_right, ev->problems), 100 * ratio(s->all_right, s->groups),
                100 * ratio(s->all_wrong, s->groups));
    }
    fprintf(f, "\n%d problems, %d of them different, %d samples of each; 95 %% intervals from "
            "resampling problems.\n", all->problems, all->distinct, all->samples);
}

/* The row that row i is compared with: the first model at the same temperature; of one model alone,
 * its first temperature. */
static int compared_with(int i, int models, int temperatures)
{
    return models > 1 ? i % temperatures : 0;
}

/* What each later row has more than the one that it is compared with, problem by problem. */
static void print_differences(const Evaluation *all, int models, int temperatures, FILE *f)
{
    int column[EVAL_COLUMNS], columns = eval_columns(all, column), n = models * temperatures;
    int width = eval_width(all, n);
    char name[32], head[80];
    snprintf(head, sizeof head, "minus %.64s", all->name);
    fputc('\n', f);
    print_head(all, models > 1 && temperatures > 1 ? "difference" : head, imax(width, 10), f);
    for (int i = 0; i < n; i++) {
        const Evaluation *ev = &all[i], *from = &all[compared_with(i, models, temperatures)];
        if (ev == from)
            continue;
        fprintf(f, "%-*s", width, ev->name);
        for (int k = 0; k < columns; k++) {
            Estimate e = evaluation_difference(ev, evaluation_metric(ev, column[k], name),
                                               evaluation_metric(from, column[k], name));
            double scale = eval_scale(ev, column[k]);
            fprintf(f, "  %+5.*f [%+5.*f, %+5.*f]", scale > 1 ? 1 : 2, scale * e.value,
                    scale > 1 ? 1 : 2, scale * e.low, scale > 1 ? 1 : 2, scale * e.high);
        }
        fputc('\n', f);
    }
}

/* --temperature: numbers from 0 to 100 with commas between them. Returns how many. */
static int read_temperatures(const char *text, double t[MOST_TEMPERATURES])
{
    int n = 0;
    const char *at = text;
    for (;; at++) {
        char *end;
        double x = strtod(at, &end);
        bool decimal = end > at && strspn(at, "0123456789.e+-") == (size_t)(end - at);
        if (!decimal || !(x >= 0 && x <= 100) || (*end && *end != ',') || n == MOST_TEMPERATURES)
            usage("--temperature: '%.60s'; expected a number from 0 to 100, or up to %d of them "
                  "with commas between", text, MOST_TEMPERATURES);
        t[n++] = x;
        at = end;
        if (!*at)
            return n;
    }
}

/* One model at each temperature, a row each. */
static void evaluate_model(Session *s, const char *name, const char *dir, Problems *p,
                           const double *temperature, int n, Evaluation *row, Buf *responses)
{
    session_sampler(s, dir);
    Extent x = eval_extent(p, s->o.samples, s->o.max_tokens);
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    for (int i = 0; i < n; i++) {
        char label[96];
        snprintf(label, sizeof label, n > 1 ? "%s T %g" : "%s", name, temperature[i]);
        s->o.temperature = temperature[i];
        row[i] = evaluation_new(xstrdup(label), p, &s->o);
        row[i].responses = responses;
        Sampling sampling = session_sampling(s, 0);
        Progress report = progress_new(label, row[i].problems);
        evaluate(&s->engine, &s->model, &s->tokenizer, p, &sampling, x.groups, &row[i], &report);
    }
    engine_free(&s->engine);
    model_free(&s->model);
    tokenizer_free(&s->tokenizer);
}

/* One object; or, of several rows, an object of objects by their names. */
static void print_json(const Evaluation *all, int models, int temperatures, bool bare)
{
    Buf b = {0};
    buf_str(&b, bare ? "" : "{");
    for (int i = 0; i < models * temperatures; i++) {
        const char *name = all[i].name;
        int from = compared_with(i, models, temperatures);
        if (!bare) {
            buf_str(&b, i ? ",\n  " : "\n  ");
            json_put_string(&b, name, strlen(name));
            buf_str(&b, ": ");
        }
        buf_str(&b, "{\"name\": ");
        json_put_string(&b, name, strlen(name));
        evaluation_json(&all[i], &b);
        if (from != i)
            difference_json(&all[i], &all[from], &b);
        buf_str(&b, "}");
    }
    printf("%s%s\n", b.s, bare ? "" : "\n}");
    buf_free(&b);
}

/* The models to evaluate, --model, or words NAME=DIR, on the same problems. */
static void cmd_eval(Session *s)
{
    const Options *o = &s->o;
    int models = imax(1, s->words.n_words);
    double temperature[MOST_TEMPERATURES];
    Buf said = {0}, *responses = o->responses ? &said : NULL;
    if (!s->words.n_words == !o->model)
        usage("eval: expected --model DIR, or models to compare as NAME=DIR");
    int each = read_temperatures(o->temperatures, temperature), rows = models * each;
    Problems p = session_evaluated(s, o->data);
    session_fit(s, &p, models);
    Evaluation *all = xcalloc((size_t)rows, sizeof *all);
    for (int i = 0; i < models; i++) {
        char name[64];
        const char *dir = session_named(s, i, name);
        evaluate_model(s, name, dir, &p, temperature, each, all + i * each, responses);
    }
    print_evaluations(all, rows, o->json ? stderr : stdout);
    if (rows > 1)
        print_differences(all, models, each, o->json ? stderr : stdout);
    if (o->json)
        print_json(all, models, each, o->model && each == 1);
    if (responses) /* last: where it cannot be written, the table is there */
        write_file(o->responses, said.s, said.n);
    buf_free(&said);
    for (int i = 0; i < rows; i++) {
        free((char *)all[i].name);
        evaluation_free(&all[i]);
    }
    free(all);
    problems_free(&p);
}

#endif
