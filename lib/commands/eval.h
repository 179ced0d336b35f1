/* eval.h: the command `eval`: models compared on held-out problems, each at one temperature or
 * several, as a table with intervals, as JSON, and with --responses every answer that was sampled.
 * What is measured is in g2rl.c (Evaluation). */
#ifndef EVAL_H
#define EVAL_H

enum { MAX_K = 13 }; /* pass@k for k = 1, 2, 4, .. 4096 */

/* One model on held-out problems at one temperature, a row for each problem. */
typedef struct {
    const char *name;
    double temperature;
    int problems, samples;
    int few;         /* votes and distinct answers are counted among so many samples: 16, or all */
    int distinct;    /* problems that differ */
    int *class;      /* [problems] the first that is the same one */
    double *right, *pass[MAX_K], *maj; /* [problems] right: samples that are */
    double *distinct_right;            /* [problems] expected among `few` samples */
    double right_classes, two_right;   /* sums: distinct right answers among all samples; problems
                                          that have two or more */
    GroupSums sums;
    uint64_t seed;
    Buf *responses; /* a line for each is added; or NULL */
} Evaluation;

/* The class of response i: the first response, perhaps itself, that answers the same. */
static int first_alike(const Group *g, const Judge *j, char **answer, const int *class, int i)
{
    for (int k = 0; k < i; k++)
        if (class[k] == k && g->truncated[k] == g->truncated[i] &&
            judge_same(j, answer[k], answer[i]))
            return k;
    return i;
}

/* Which responses of a group answer the same.   class: [m] */
static void group_classes(const Group *g, const Judge *j, const Tokenizer *t, int *class)
{
    char **answer = xcalloc((size_t)g->m, sizeof *answer);
    Buf text = {0}, name = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        judge_class(j, g->text, text.s, &name);
        answer[i] = xstrdup(name.s);
        class[i] = first_alike(g, j, answer, class, i);
    }
    for (int i = 0; i < g->m; i++)
        free(answer[i]);
    free(answer);
    buf_free(&text);
    buf_free(&name);
}

/* How many pass@k there are of so many samples: k = 1, 2, 4, .. */
static int passes(int samples)
{
    int n = 0;
    while (n < MAX_K && 1 << n <= samples)
        n++;
    return n;
}

/* Of the first --problems of a list. */
static Evaluation evaluation_new(const char *name, const Problems *p, const Options *o)
{
    size_t n = (size_t)imin(p->n, o->problems);
    Evaluation ev = {.name = name, .temperature = o->temperature, .problems = (int)n,
                     .samples = o->samples, .few = imin(16, o->samples), .seed = o->seed};
    for (int k = 0; k < passes(o->samples); k++)
        ev.pass[k] = xcalloc(n, sizeof(double));
    ev.right = xcalloc(n, sizeof(double));
    ev.maj = xcalloc(n, sizeof(double));
    ev.distinct_right = xcalloc(n, sizeof(double));
    ev.class = xcalloc(n, sizeof(int));
    ev.distinct = problems_classes(p, (int)n, ev.class);
    return ev;
}

static void evaluation_free(Evaluation *ev)
{
    for (int k = 0; k < MAX_K; k++)
        free(ev->pass[k]);
    free(ev->right);
    free(ev->maj);
    free(ev->distinct_right);
    free(ev->class);
}

/* Metric k of an evaluation, a value for each problem: pass@1, pass@2, pass@4, ..; after these
 * maj@k and distinct_right@k; then NULL. */
static const double *evaluation_metric(const Evaluation *ev, int k, char name[32])
{
    int last = passes(ev->samples);
    snprintf(name, 32, k < last ? "pass@%d" : k == last ? "maj@%d" : "distinct_right@%d",
             k < last ? 1 << k : ev->few);
    return k < last ? ev->pass[k] : k == last ? ev->maj : k == last + 1 ? ev->distinct_right : NULL;
}

/* The mean of a metric, its interval over problems that differ; and what it is above another's. */
static Estimate evaluation_mean(const Evaluation *ev, const double *x)
{
    return bootstrap(x, ev->class, ev->problems, ev->seed);
}

static Estimate evaluation_difference(const Evaluation *ev, const double *x, const double *y)
{
    return paired(x, y, ev->class, ev->problems, ev->seed);
}

static void put_estimate(Buf *b, const char *name, Estimate x)
{
    put(b, name, x.value);
    buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", name, x.low, x.high);
}

/* How an evaluation differs from another on the same problems, metric by metric. */
static void difference_json(const Evaluation *ev, const Evaluation *from, Buf *b)
{
    const double *x, *y;
    char name[32];
    buf_str(b, ", \"difference\": {\"from\": ");
    json_put_string(b, from->name, strlen(from->name));
    for (int k = 0; (x = evaluation_metric(ev, k, name)); k++) {
        y = evaluation_metric(from, k, name);
        put_estimate(b, name, evaluation_difference(ev, x, y));
    }
    buf_str(b, "}");
}

/* The whole evaluation as the members of a JSON object. */
static void evaluation_json(const Evaluation *ev, Buf *b)
{
    const GroupSums *s = &ev->sums;
    const double *x;
    char name[32];
    for (int k = 0; (x = evaluation_metric(ev, k, name)); k++)
        put_estimate(b, name, evaluation_mean(ev, x));
    snprintf(name, sizeof name, "mean@%d", ev->samples);
    put(b, name, ratio(s->right, s->responses));
    put(b, "problems", ev->problems);
    put(b, "distinct_problems", ev->distinct);
    put(b, "samples", ev->samples);
    put(b, "temperature", ev->temperature);
    put(b, "frac_two_right", ratio(ev->two_right, ev->problems));
    put(b, "frac_copies", ratio(s->right - ev->right_classes, s->right));
    put(b, "frac_all_right", ratio(s->all_right, s->groups));
    put(b, "frac_all_wrong", ratio(s->all_wrong, s->groups));
    put(b, "phi/cos_mean", ratio(s->cosine, s->pairs));
    put(b, "phi/neg_ratio", ratio(s->negative, s->pairs));
    put(b, "phi/nu_mean", ratio(s->nu, s->responses));
    put(b, "entropy", ratio(s->entropy, s->tokens));
    put(b, "completions/mean_length", ratio(s->tokens, s->responses));
    put(b, "completions/clipped_ratio", ratio(s->truncated, s->responses));
    put_vector(b, "right", ev->right, ev->problems);
    put_vector(b, "maj", ev->maj, ev->problems);
    put_vector(b, "distinct_right", ev->distinct_right, ev->problems);
    if (ev->distinct == ev->problems)
        return;
    buf_str(b, ", \"problem_class\": [");
    for (int i = 0; i < ev->problems; i++)
        buf_printf(b, i ? ", %d" : "%d", ev->class[i]);
    buf_str(b, "]");
}

/* What a group's answer classes say of a problem: maj@k, the mean over its disjoint blocks of k
 * samples, and distinct right answers. An answer that n_c of m samples give is among k of them,
 * drawn without putting back, with the chance pass_at_k(m, n_c, k). */
static void evaluate_classes(Evaluation *ev, int row, const Group *g, const int *class)
{
    int k = ev->few, *count = xcalloc((size_t)g->m, sizeof *count), kinds = 0;
    bool *right = xcalloc((size_t)g->m, sizeof *right);
    for (int i = 0; i < g->m; i++) {
        right[i] = is_right(g->reward[i]);
        count[class[i]] += right[i];
    }
    for (int i = 0; i + k <= g->m; i += k)
        ev->maj[row] += majority(class + i, right + i, k) / (g->m / k);
    for (int i = 0; i < g->m; i++) {
        ev->distinct_right[row] += count[i] ? pass_at_k(g->m, count[i], k) : 0;
        kinds += count[i] > 0;
    }
    ev->right_classes += kinds;
    ev->two_right += kinds >= 2;
    free(count);
    free(right);
}

/* A few problems of an evaluation, sampled: rows `first`, first + 1, ... */
typedef struct {
    Model *m;
    const Tokenizer *t;
    const Judge *judge;
    Group *groups;
    const Sampling *s;
    Evaluation *ev;
    int first, *class; /* class: [groups, samples] */
} Answers;

/* One problem's row of an evaluation: features and votes. */
static void evaluate_group(Arena *a, int i, void *context)
{
    const Answers *x = context;
    Evaluation *ev = x->ev;
    Group *g = &x->groups[i];
    const MethodOptions plain = {.method = GRPO};
    Learner l = {.policy = x->m, .method = &plain,
                 .temperature = x->s->temperature > 0 ? x->s->temperature : 1};
    forward_groups(a, &l, g, 1, KEEP_NOTHING);
    group_advantages(a, g, &plain, x->m->config.hidden_size);
    for (int k = 0; k < passes(ev->samples); k++)
        ev->pass[k][x->first + i] = pass_at_k(ev->samples, count_right(g), 1 << k);
    ev->right[x->first + i] = count_right(g);
    group_classes(g, x->judge, x->t, x->class + (ptrdiff_t)i * g->m);
}

/* A line of eval --responses for each response of a problem; class: [m] */
static void write_responses(const Evaluation *ev, int row, const Group *g, const int *class,
                            const Tokenizer *t)
{
    Buf b = {0};
    for (int i = 0; i < g->m && ev->responses; i++) {
        b.n = 0;
        put_text(&b, "name", ev->name, strlen(ev->name));
        put(&b, "temperature", ev->temperature);
        put(&b, "problem", row);
        put(&b, "sample", i);
        put(&b, "answer_class", class[i]);
        put_response(&b, g, i, t);
        buf_printf(ev->responses, "{%s}\n", b.s + 2);
    }
    buf_free(&b);
}

/* The groups of an evaluation that are sampled together: about 512 responses. */
static Extent eval_extent(const Problems *p, int samples, int max_tokens)
{
    int at_once = imax(1, 512 / samples);
    return (Extent){at_once, samples, p->longest, max_tokens, 1, KEEP_NOTHING, false, SAVE_OUTPUT};
}

/* Samples and judges every problem, `at_once` together, and takes their features as well. The same
 * seed draws the same random numbers for every model: comparisons are paired. */
static void evaluate(Engine *e, Model *m, const Tokenizer *t, Problems *p, const Sampling *s,
                     int at_once, Evaluation *ev, Progress *report)
{
    Extent x = eval_extent(p, ev->samples, s->max_tokens);
    rope_reserve(m, x.max_prompt + x.max_tokens);
    int *class = xcalloc((size_t)at_once * (size_t)ev->samples, sizeof *class);
    for (int i = 0; i < ev->problems; i += x.groups) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, ev->problems - i);
        Group *g = groups_new(e, m, x);
        for (int k = 0; k < x.groups; k++)
            group_ask(&g[k], &e->arena, p, (uint32_t)(i + k), t, x.max_prompt);
        sample_groups(e, m, g, x.groups, s);
        verify_groups(g, x.groups, &p->judge, t);
        Answers answers = {m, t, &p->judge, g, s, ev, i, class};
        engine_each(e, x.groups, evaluate_group, &answers);
        for (int k = 0; k < x.groups; k++) {
            const int *of_group = class + (ptrdiff_t)k * ev->samples;
            group_sums(&ev->sums, &g[k]);
            evaluate_classes(ev, i + k, &g[k], of_group);
            write_responses(ev, i + k, &g[k], of_group, t);
        }
        e->arena.used = mark;
        if (report)
            progress(report, i + x.groups, "problems");
    }
    free(class);
}

/* Held-out problems, every --eval-every steps of sft or train: a row of eval.jsonl. */
static void eval_on_the_side(Session *s, Problems *held_out, FILE *file, int step)
{
    Buf b = {0};
    Evaluation ev = evaluation_new("held-out", held_out, &s->o);
    Sampling sampling = session_sampling(s, 0);
    Extent x = eval_extent(held_out, s->o.samples, s->o.max_tokens);
    int n_vocab = s->model.n_vocab;
    s->model.n_vocab = s->tokenizer.n_vocab; /* sft trains on all ids, some without a text */
    evaluate(&s->engine, &s->model, &s->tokenizer, held_out, &sampling, x.groups, &ev, NULL);
    s->model.n_vocab = n_vocab;
    buf_printf(&b, "{\"step\": %d", step);
    evaluation_json(&ev, &b);
    run_line(file, &b, s->o.out, "eval.jsonl");
    evaluation_free(&ev);
    buf_free(&b);
}

/* ================================================================ the command */

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
