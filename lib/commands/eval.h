/* eval.h: the command `eval`: models compared on held-out problems, at one temperature or several,
 * as a table with intervals or JSON; and the evaluations of --eval-every. */
#ifndef EVAL_H
#define EVAL_H

enum { MAX_K = 13, MAJORITY = 16 }; /* pass@k for k = 1, 2, 4, .. 4096; maj@16 or less */

/* One model on held-out problems at one temperature. */
typedef struct {
    const char *name;
    double temperature;
    int problems, samples;
    int few;         /* votes and distinct answers are among so many samples: 16, or all */
    int distinct;    /* number of different problems */
    int *class;      /* [problems] the first equal problem */
    double *right, *pass[MAX_K], *maj; /* [problems] right: number of right samples */
    double *distinct_right;            /* [problems] expected among `few` samples */
    double right_classes, two_right;   /* distinct right answers among all samples; problems with
                                          two or more */
    GroupSums sums;
    uint64_t seed;
    Buf *responses; /* gets a line for each response; or NULL */
} Evaluation;

/* The answer class of each response: the first response with the same answer.   class: [m] */
static void group_classes(const Group *g, const Judge *j, const Tokenizer *t, int *class)
{
    Buf text = {0}, *answer = xcalloc(g->m, sizeof *answer);
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        judge_class(j, g->text, text.s, &answer[i]);
        class[i] = i;
        for (int k = 0; k < i && class[i] == i; k++)
            if (class[k] == k && g->truncated[k] == g->truncated[i] &&
                judge_same(j, answer[k].s, answer[i].s))
                class[i] = k;
    }
    for (int i = 0; i < g->m; i++)
        buf_free(&answer[i]);
    free(answer);
    buf_free(&text);
}

/* The number of pass@k for so many samples: k = 1, 2, 4, .. */
static int passes(int samples)
{
    int n = 0;
    while (n < MAX_K && 1 << n <= samples)
        n++;
    return n;
}

static Evaluation evaluation_new(const char *name, const Problems *p, const Options *o)
{
    int n = imin(p->n, o->problems);
    Evaluation ev = {.name = name, .temperature = o->temperature, .problems = n,
                     .samples = o->samples, .few = imin(MAJORITY, o->samples), .seed = o->seed};
    ev.right = xcalloc((3 + passes(o->samples)) * (size_t)n, sizeof(double));
    ev.maj = ev.right + n;
    ev.distinct_right = ev.maj + n;
    for (int k = 0; k < passes(o->samples); k++)
        ev.pass[k] = ev.distinct_right + (k + 1) * (size_t)n;
    ev.class = xcalloc(n, sizeof(int));
    ev.distinct = problems_classes(p, n, ev.class);
    return ev;
}

static void evaluation_free(Evaluation *ev)
{
    free(ev->right); /* and all that follow it */
    free(ev->class);
}

/* Metric k, a value a problem: pass@1, pass@2, pass@4, .., maj@k, distinct_right@k; then NULL. */
static const double *evaluation_metric(const Evaluation *ev, int k, char name[32])
{
    int last = passes(ev->samples);
    snprintf(name, 32, k < last ? "pass@%d" : k == last ? "maj@%d" : "distinct_right@%d",
             k < last ? 1 << k : ev->few);
    return k < last ? ev->pass[k] : k == last ? ev->maj : k == last + 1 ? ev->distinct_right : NULL;
}

/* The mean of metric k, or of its difference from another evaluation of the same problems, with an
 * interval over different problems. */
static Estimate evaluation_mean(const Evaluation *ev, const Evaluation *from, int k)
{
    char name[32];
    const double *x = evaluation_metric(ev, k, name);
    return from ? paired(x, evaluation_metric(from, k, name), ev->class, ev->problems, ev->seed)
                : bootstrap(x, ev->class, ev->problems, ev->seed);
}

/* The means of all metrics, or of their differences, as members of a JSON object. */
static void put_means(Buf *b, const Evaluation *ev, const Evaluation *from)
{
    char name[32];
    for (int k = 0; evaluation_metric(ev, k, name); k++) {
        Estimate x = evaluation_mean(ev, from, k);
        put(b, name, x.value);
        buf_printf(b, ", \"%s/interval\": [%.6g, %.6g]", name, x.low, x.high);
    }
}

static void evaluation_json(const Evaluation *ev, Buf *b)
{
    const GroupSums *s = &ev->sums;
    char name[32];
    put_means(b, ev, NULL);
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
    buf_str(b, ", \"problem_class\": ");
    json_put_ints(b, ev->class, ev->problems);
}

/* From a group's answer classes to a problem's maj@k, the mean over disjoint blocks of k samples,
 * and distinct right answers. An answer of n_c of the m samples is among k of them, drawn without
 * replacement, with probability pass_at_k(m, n_c, k). */
static void evaluate_classes(Evaluation *ev, int row, const Group *g, const int *class)
{
    int k = ev->few, *count = xcalloc(g->m, sizeof *count), kinds = 0;
    bool *right = xcalloc(g->m, sizeof *right);
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

/* A few sampled problems of an evaluation: rows `first`, first + 1, ... */
typedef struct {
    Session *s;
    const Judge *judge;
    Group *groups;
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
    double T = x->s->o.temperature;
    Learner l = {.policy = &x->s->model, .method = &plain, .temperature = T > 0 ? T : 1};
    forward_groups(a, &l, g, 1, KEEP_NOTHING);
    group_advantages(a, g, &plain, l.policy->config.hidden_size);
    for (int k = 0; k < passes(ev->samples); k++)
        ev->pass[k][x->first + i] = pass_at_k(ev->samples, count_right(g), 1 << k);
    ev->right[x->first + i] = count_right(g);
    group_classes(g, x->judge, &x->s->tokenizer, x->class + i * g->m);
}

/* A line of --responses for each response of a problem; class: [m] */
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

/* The groups of an evaluation that are sampled at a time: about 512 responses. */
static Extent eval_extent(const Problems *p, int samples, int max_tokens)
{
    int at_once = imax(1, 512 / samples);
    return (Extent){at_once, samples, p->longest, max_tokens, 1, KEEP_NOTHING, false, SAVE_OUTPUT};
}

/* Samples problems `first`, first + 1, ..., as many as x has groups. */
static Group *sample_problems(Session *s, Problems *p, Extent x, int first)
{
    Engine *e = &s->engine;
    Sampling sampling = session_sampling(s, 0);
    Group *g = groups_new(e, &s->model, x);
    for (int k = 0; k < x.groups; k++)
        group_pose(&g[k], &e->arena, p, first + k, &s->tokenizer, x.max_prompt);
    sample_groups(e, &s->model, g, x.groups, &sampling);
    return g;
}

/* Samples, judges and measures every problem. The same seed draws the same random numbers for every
 * model: comparisons are paired. False: a signal ends the run; the evaluation is not whole. */
static bool evaluate(Session *s, Problems *p, Evaluation *ev, Progress *report)
{
    Engine *e = &s->engine;
    Extent x = eval_extent(p, ev->samples, s->o.max_tokens);
    rope_reserve(&s->model, x.max_prompt + x.max_tokens);
    int at_once = x.groups, *class = xcalloc(at_once * ev->samples, sizeof *class);
    for (int i = 0; i < ev->problems && !interrupted(); i += x.groups) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, ev->problems - i);
        Group *g = sample_problems(s, p, x, i);
        if (!interrupted())
            verify_groups(g, x.groups, &p->judge, &s->tokenizer);
        if (interrupted())
            break;
        Answers answers = {s, &p->judge, g, ev, i, class};
        engine_each(e, x.groups, evaluate_group, &answers);
        for (int k = 0; k < x.groups; k++) {
            const int *of_group = class + k * ev->samples;
            demand_logits(&s->model, g[k].entropy, g[k].n_tokens);
            group_sums(&ev->sums, &g[k]);
            evaluate_classes(ev, i + k, &g[k], of_group);
            write_responses(ev, i + k, &g[k], of_group, &s->tokenizer);
        }
        e->arena.used = mark;
        if (report)
            progress(report, i + x.groups, "problems");
    }
    free(class);
    return !interrupted();
}

/* Held-out problems, every --eval-every steps of sft or train: a row of eval.jsonl. The next step's
 * groups may be there: their times and reasons stay. False: a signal ends the run; there is no
 * row. */
static bool eval_on_the_side(Session *s, Problems *held_out, FILE *file, int step)
{
    Buf b = {0};
    Evaluation ev = evaluation_new("held-out", held_out, &s->o);
    int n_vocab = s->model.n_vocab;
    double seconds[PHASES];
    Buf reasons = s->reward.reasons;
    s->reward.reasons = (Buf){0};
    size_t mark = s->engine.arena.used;
    memcpy(seconds, s->engine.seconds, sizeof seconds);
    s->model.n_vocab = s->tokenizer.n_vocab; /* sft trains on all ids, also without a text */
    bool whole = evaluate(s, held_out, &ev, NULL);
    s->model.n_vocab = n_vocab;
    memcpy(s->engine.seconds, seconds, sizeof seconds);
    s->engine.arena.used = mark;
    buf_free(&s->reward.reasons);
    s->reward.reasons = reasons;
    if (whole) {
        buf_printf(&b, "{\"step\": %d", step);
        evaluation_json(&ev, &b);
        run_line(file, &b, s->o.out, "eval.jsonl");
    }
    evaluation_free(&ev);
    buf_free(&b);
    return whole;
}

/* ================================================================ the command */

enum { MOST_TEMPERATURES = 16, EVAL_COLUMNS = 5 };

/* The metrics of the table: pass@1, maj@k, pass@16 or the last before it, pass@k of all samples
 * where that is more, and distinct right answers. Returns their number. */
static int eval_columns(const Evaluation *ev, int column[EVAL_COLUMNS])
{
    int last = passes(ev->samples), sixteen = passes(imin(ev->samples, 16)) - 1;
    bool more = last - 1 > sixteen;
    int all[] = {0, last, sixteen, more ? last - 1 : last + 1, last + 1};
    memcpy(column, all, sizeof all);
    return EVAL_COLUMNS - !more;
}

/* A row of means or, with `from`, differences: shares in percent, distinct answers as counts. */
static void print_means(const Evaluation *ev, const Evaluation *from, int width, FILE *f)
{
    int column[EVAL_COLUMNS], n = eval_columns(ev, column);
    fprintf(f, "%-*s", width, ev->name);
    for (int k = 0; k < n; k++) {
        Estimate e = evaluation_mean(ev, from, column[k]);
        bool share = column[k] <= passes(ev->samples);
        double scale = share ? 100 : 1;
        int digits = share ? 1 : 2;
        fprintf(f, from ? "  %+5.*f [%+5.*f, %+5.*f]" : "  %5.*f [%5.*f, %5.*f]", digits,
                scale * e.value, digits, scale * e.low, digits, scale * e.high);
    }
    fputc('\n', f);
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

/* The row that row i is compared with: the first model's at the same temperature; of one model
 * alone, its first temperature. */
static int compared_with(int i, int models, int temperatures)
{
    return models > 1 ? i % temperatures : 0;
}

/* A row for each model: means with intervals, properties of the responses, differences. */
static void print_evaluations(const Evaluation *all, int models, int temperatures, FILE *f)
{
    int width = 10, n = models * temperatures;
    char head[80];
    for (int i = 0; i < n; i++)
        width = imax(width, strlen(all[i].name));
    print_head(all, "percent", width, f);
    for (int i = 0; i < n; i++)
        print_means(&all[i], NULL, width, f);
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
    if (n == 1)
        return;
    snprintf(head, sizeof head, "minus %.64s", all->name);
    fputc('\n', f);
    print_head(all, models > 1 && temperatures > 1 ? "difference" : head, width, f);
    for (int i = 0; i < n; i++) {
        const Evaluation *from = &all[compared_with(i, models, temperatures)];
        if (from != &all[i])
            print_means(&all[i], from, width, f);
    }
}

/* --temperature: numbers from 0 to 100 with commas between them. Returns how many. */
static int read_temperatures(const char *text, double t[MOST_TEMPERATURES])
{
    int n = 0;
    for (const char *at = text;; at++) {
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

static void evaluate_model(Session *s, const char *name, Problems *p, const double *temperature,
                           int n, Evaluation *row, Buf *responses)
{
    Extent x = eval_extent(p, s->o.samples, s->o.max_tokens);
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    for (int i = 0; i < n; i++) {
        char label[96];
        snprintf(label, sizeof label, n > 1 ? "%s T %g" : "%s", name, temperature[i]);
        s->o.temperature = temperature[i];
        row[i] = evaluation_new(xstrdup(label), p, &s->o);
        row[i].responses = responses;
        Progress report = progress_new(label, row[i].problems);
        evaluate(s, p, &row[i], &report);
    }
    engine_free(&s->engine);
    model_free(&s->model);
    tokenizer_free(&s->tokenizer);
}

/* One object, or an object of objects by name. */
static void print_json(const Evaluation *all, int models, int temperatures, bool bare)
{
    Buf b = {0};
    buf_str(&b, bare ? "" : "{");
    for (int i = 0; i < models * temperatures; i++) {
        const char *name = all[i].name;
        const Evaluation *from = &all[compared_with(i, models, temperatures)];
        if (!bare) {
            buf_str(&b, i ? ",\n  " : "\n  ");
            json_put_string(&b, name, strlen(name));
            buf_str(&b, ": ");
        }
        buf_str(&b, "{\"name\": ");
        json_put_string(&b, name, strlen(name));
        evaluation_json(&all[i], &b);
        if (from != &all[i]) {
            buf_str(&b, ", \"difference\": {\"from\": ");
            json_put_string(&b, from->name, strlen(from->name));
            put_means(&b, &all[i], from);
            buf_str(&b, "}");
        }
        buf_str(&b, "}");
    }
    printf("%s%s\n", b.s, bare ? "" : "\n}");
    buf_free(&b);
}

/* Evaluates models, --model or words NAME=DIR, on the same problems. */
static void cmd_eval(Session *s)
{
    const Options *o = &s->o;
    int models = session_models(s, "eval");
    double temperature[MOST_TEMPERATURES];
    Buf written = {0}, *responses = o->responses ? &written : NULL;
    int each = read_temperatures(o->temperatures, temperature), rows = models * each;
    Problems p = session_evaluated(s, o->data);
    session_fit(s, &p, models);
    Evaluation *all = xcalloc(rows, sizeof *all);
    for (int i = 0; i < models; i++) {
        char name[64];
        session_sampler(s, session_named(s, i, name));
        evaluate_model(s, name, &p, temperature, each, all + i * each, responses);
    }
    print_evaluations(all, models, each, o->json ? stderr : stdout);
    if (o->json)
        print_json(all, models, each, o->model && each == 1);
    if (responses) /* last: if it cannot be written, the table is there */
        write_file(o->responses, written.s, written.n);
    buf_free(&written);
    for (int i = 0; i < rows; i++) {
        free((char *)all[i].name);
        evaluation_free(&all[i]);
    }
    free(all);
    problems_free(&p);
}

#endif
