/* explain.h: what the method does to one group, for people: a table with a response a row, the
 * matrices that made it, and a sentence for each response that says why its advantage is what it
 * is. At most 100 columns for up to 8 responses; everything said is read off the Group. */
#ifndef EXPLAIN_H
#define EXPLAIN_H

/* ---------------------------------------------------------------- a sentence for each response */

/* Are all rewards +1 or -1? Then people say right and wrong. */
static bool is_binary(const Group *g)
{
    for (int i = 0; i < g->m; i++)
        if (fabs(g->reward[i]) != 1)
            return false;
    return true;
}

static bool same_reward(const Group *g, int i, int j)
{
    return fabs(g->reward[i] - g->reward[j]) < FLOOR;
}

/* Is nothing shaped by novelty, since all novelty is equal? */
static bool novelty_is_flat(const Group *g)
{
    for (int i = 0; i < g->m; i++)
        if (g->nubar[i] != 0)
            return false;
    return true;
}

static bool shapes_by_novelty(const MethodOptions *o)
{
    return o->method == G2RL && o->lambda > 0;
}

/* Has the group no advantage at all? */
static bool is_silent(const Group *g)
{
    for (int i = 0; i < g->m; i++)
        if (g->advantage[i] != 0)
            return false;
    return true;
}

/* "right", "wrong (the verifier's reason)", "reward 0.5 (the command's reason)". */
static void say_reward(const Group *g, int i, Buf *b)
{
    bool binary = is_binary(g);
    const char *why = g->reason[i] ? g->reason[i] : "";
    if (binary)
        buf_str(b, is_right(g->reward[i]) ? "right" : "wrong");
    else
        buf_printf(b, "reward %.3g", g->reward[i]);
    if (*why && !is_one_of(why, "right", "wrong", "given"))
        buf_printf(b, " (%s)", why);
}

/* Where a novelty x_i lies among those of equal reward: ", the most novel of the right ones". NAN:
 * not counted. */
static void say_rank(const Group *g, const double *x, int i, Buf *b)
{
    int alike = 0, above = 0, below = 0; /* above, below: as novel, or more, or less */
    const char *class = !is_binary(g) ? "those with this reward"
                        : is_right(g->reward[i]) ? "the right ones" : "the wrong ones";
    for (int j = 0; j < g->m; j++)
        if (j != i && same_reward(g, i, j) && !isnan(x[j])) {
            alike++;
            above += x[j] > x[i] - FLOOR;
            below += x[j] < x[i] + FLOOR;
        }
    if (!alike && is_binary(g))
        buf_printf(b, ", the only %s one", is_right(g->reward[i]) ? "right" : "wrong");
    else if (alike && (!above || !below))
        buf_printf(b, ", the %s novel of %s", above ? "least" : "most", class);
}

/* The responses of the very same tokens: ", the same answer as 0, 3 and 5". */
static void say_twins(const Group *g, int i, Buf *b)
{
    enum { NAMED = 4 };
    int twins = 0, said = 0;
    for (int j = 0; j < g->m; j++)
        twins += j != i && same_response(g, i, j);
    for (int j = 0; j < g->m && said < imin(twins, NAMED); j++) {
        if (j == i || !same_response(g, i, j))
            continue;
        bool last = ++said == twins;
        buf_printf(b, "%s %d", said == 1 ? ", the same answer as" : last ? " and" : ",", j);
    }
    if (twins > NAMED)
        buf_printf(b, " and %d more", twins - NAMED);
}

/* How much response j takes from nu_i (Eq 11), by the cosines of features. */
static double taken(const Group *g, int i, int j)
{
    double S = g->S[i * g->m + j];
    return g->w[i * g->m + j] * S * S;
}

/* The response that takes most from nu_i; and the next one if it takes at least half as much, from
 * the same side: ", most like 2 and 4 (S +0.83, +0.71)". */
static void say_nearest(const Group *g, int i, Buf *b)
{
    const double *S = g->S + (ptrdiff_t)i * g->m;
    int best = i, second = i; /* w_ii = 0: nothing is taken */
    for (int j = 0; j < g->m; j++)
        if (taken(g, i, j) > taken(g, i, best)) {
            second = best;
            best = j;
        } else if (taken(g, i, j) > taken(g, i, second))
            second = j;
    if (taken(g, i, best) < 0.01) {
        buf_str(b, ", like no other");
        return;
    }
    if (same_response(g, i, best))
        return;
    bool both = taken(g, i, second) >= taken(g, i, best) / 2 && (S[second] > 0) == (S[best] > 0);
    int first = both ? imin(best, second) : best, last = imax(best, second);
    buf_printf(b, ", most %s %d", S[best] > 0 ? "like" : "opposed to", first);
    if (both)
        buf_printf(b, " and %d (S %+.2f, %+.2f)", last, S[first], S[last]);
    else
        buf_printf(b, " (S %+.2f)", S[first]);
}

/* What makes a response novel, or not, in the eyes of G2RL. */
static void say_novelty(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    if (o->novelty == NOVELTY_RANDOM)
        buf_printf(b, ", dealt nu %.2f", g->nu[i]);
    else if (o->novelty == NOVELTY_COUNT) {
        say_twins(g, i, b);
        say_rank(g, g->nu, i, b);
        buf_printf(b, ", nu %.2f", g->nu[i]);
    } else if (g->S[i * g->m + i] == 0)
        buf_str(b, ", the policy certain of its every token (certainty is not novelty: nu 0)");
    else {
        say_twins(g, i, b);
        say_rank(g, g->nu, i, b);
        buf_printf(b, ", nu %.2f", g->nu[i]);
        say_nearest(g, i, b);
    }
}

/* From r to r~ under G2RL. */
static void say_shaping(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    double r = g->reward[i], shaped = g->shaped[i] + 0; /* no -0 */
    if (fabs(r) > SHAPED_LIMIT)
        buf_printf(b, ": clipped to %+.0f", shaped);
    else if (fabs(shaped - r) < 0.005) {
        bool least_novel = r < 0 && g->nubar[i] < FLOOR && !novelty_is_flat(g);
        buf_printf(b, ": stays at %+.2f%s", shaped, !least_novel ? "" :
                   o->shaping == SHAPING_TEXT ? ", the least loss" : ", the full loss");
    } else if (fabs(shaped) == SHAPED_LIMIT)
        buf_printf(b, ": %s as far as the clip at %+.0f", shaped > r ? "raised" : "lowered",
                   shaped);
    else if (r > 0)
        buf_printf(b, ": boosted to %+.2f", shaped);
    else
        buf_printf(b, ": %s to %+.2f", o->shaping == SHAPING_TEXT ? "loses more, down" :
                   "loses less, up", shaped);
}

/* EVOL-RL: novelty from embeddings, and the reward that it makes, inside each class. */
static void say_meaning(const Group *g, int i, Buf *b)
{
    const double *cosine = g->semantic + (ptrdiff_t)i * g->m;
    int near = -1;
    if (!g->answered[i] || isnan(g->u[i])) {
        buf_printf(b, "%s: r~ is %+.2f", g->answered[i] ? ", the group's only answer" :
                   ", without an answer", g->shaped[i]);
        return;
    }
    for (int j = 0; j < g->m; j++)
        if (j != i && g->answered[j] && (near < 0 || cosine[j] > cosine[near]))
            near = j;
    say_twins(g, i, b);
    say_rank(g, g->u, i, b);
    buf_printf(b, ", u %.2f", g->u[i]);
    if (!same_response(g, i, near))
        buf_printf(b, ", most like %d (cosine %+.2f)", near, cosine[near]);
    buf_printf(b, ": r~ is %+.2f, between %s", g->shaped[i],
               is_right(g->reward[i]) ? "+0.5 and +1" : "-1 and -0.5");
}

/* What the group's mean and standard deviation make of r~ (Eq 2). */
static void say_advantage(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    double A = g->advantage[i];
    const char *unit = o->adv_norm == ADV_STD ? " standard deviations" : "";
    if (is_silent(g))
        buf_str(b, "; no advantage.");
    else if (fabs(A) < 0.005)
        buf_str(b, "; at the group's mean.");
    else {
        buf_printf(b, "; %s the group's mean by %.2f%s", A > 0 ? "above" : "below", fabs(A), unit);
        if (is_binary(g) && (A > 0) != is_right(g->reward[i]))
            buf_str(b, A > 0 ? ", so more likely though wrong" : ", so less likely though right");
        buf_str(b, ".");
    }
}

/* The sentence of response i, appended. */
static void explain_response(const Group *g, int i, const MethodOptions *o, Buf *b)
{
    buf_printf(b, "%d: ", i);
    say_reward(g, i, b);
    if (o->method == EVOL)
        say_meaning(g, i, b);
    else if (shapes_by_novelty(o)) {
        say_novelty(g, i, o, b);
        say_shaping(g, i, o, b);
    } else
        buf_printf(b, ": stays at %+.2f", g->shaped[i]);
    say_advantage(g, i, o, b);
}

static const char *const DEAD_NAMES[] = {"full", "zero", "right", "wrong"}; /* by DeadGroups */

/* What holds for the group as a whole, appended; nothing where all is as usual. */
static void explain_whole(const Group *g, const MethodOptions *o, Buf *b)
{
    bool flat = novelty_is_flat(g) || !shapes_by_novelty(o);
    if (o->method == GRPO || o->method == ENTROPY)
        buf_printf(b, "%s shapes nothing: r~ = r, whatever nu is. ", METHODS[o->method]);
    else if (o->method == G2RL && !(o->lambda > 0))
        buf_str(b, "lambda 0 shapes nothing: r~ = r, as under GRPO. ");
    else if (o->method == G2RL && o->novelty == NOVELTY_RANDOM)
        buf_str(b, "nu was dealt out at random inside the group: a control. ");
    else if (o->method == G2RL && o->novelty == NOVELTY_COUNT)
        buf_str(b, "S_ij is 1 for equal responses and 0 for others: nu counts copies, a control. ");
    if (shapes_by_novelty(o) && wrong_is_zero(g, 1))
        buf_str(b, "A reward of 0 stays 0, however novel the response (Eq 12 multiplies): only "
                   "rewards of +1 and -1 turn the whole method on. ");
    if (is_dead(g)) {
        buf_str(b, "All rewards are equal");
        if (!shapes_dead(g, o->dead_groups))
            buf_printf(b, ": with --dead-groups %s this group teaches nothing.",
                       DEAD_NAMES[o->dead_groups]);
        else if (is_silent(g))
            buf_printf(b, "%s: this group teaches nothing.",
                       flat && shapes_by_novelty(o) ? ", and so is all novelty" : "");
        else
            buf_str(b, ": under GRPO this group would teach nothing; here only novelty speaks.");
    } else if (flat && shapes_by_novelty(o))
        buf_str(b, "All nu are equal: nothing is shaped, as under GRPO.");
    while (b->n && b->s[b->n - 1] == ' ')
        b->s[--b->n] = 0;
}

/* ---------------------------------------------------------------- table and matrices */

enum { WIDTH = 100 };

/* One line of at most `most` characters: what breaks lines becomes a blank, and what does not fit
 * is cut off behind "..". Returns its length in characters. */
static int one_line(Buf *text, int most)
{
    int characters = 0;
    size_t cut = 0;
    for (size_t k = 0; k < text->n; k++) {
        if ((unsigned char)text->s[k] < ' ')
            text->s[k] = ' ';
        if ((text->s[k] & 0xC0) != 0x80 && characters++ == most - 2)
            cut = k;
    }
    if (characters <= most)
        return characters;
    text->n = cut;
    buf_str(text, "..");
    return most;
}

/* The responses, a row each, with the numbers that made their advantages. */
static void print_responses(const Group *g, const Tokenizer *t, const MethodOptions *o)
{
    enum { LONGEST = 56 };
    bool evol = o->method == EVOL;
    int width = 8;
    Buf text = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        width = imax(width, one_line(&text, LONGEST));
    }
    printf("%3s  %-*s %5s  %6s %6s %6s %7s\n", "i", width, "response", "r", evol ? "u" : "nu",
           evol ? "n" : "nubar", "r~", "A");
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        int blank = width - one_line(&text, LONGEST);
        printf("%3d  %s%*s %+5.3g  %6.3f %6.3f %+6.2f %+7.3f\n", i, text.n ? text.s : "", blank, "",
               g->reward[i], evol ? g->u[i] : g->nu[i], g->nubar[i], g->shaped[i] + 0,
               g->advantage[i]);
    }
    buf_free(&text);
}

static void print_row(const double *x, int m, int i, int width, const char *form)
{
    printf("%3d ", i);
    for (int j = 0; j < m; j++) {
        char cell[32];
        snprintf(cell, sizeof cell, form, x[i * m + j]);
        printf("%*s", width, cell);
    }
}

static void print_columns(int m, int width)
{
    printf("    ");
    for (int j = 0; j < m; j++)
        printf("%*d", width, j);
}

/* S, and w beside it where there is room. */
static void print_matrices(const Group *g, const MethodOptions *o)
{
    enum { BESIDE = 8, S_WIDTH = 6, W_WIDTH = 5 };
    bool evol = o->method == EVOL, beside = !evol && g->m <= BESIDE;
    int gap = imax(2, 46 - (4 + g->m * S_WIDTH)); /* under its title */
    const char *of = evol ? "cosines of embeddings (--encoder)" :
                     o->novelty == NOVELTY_COUNT ? "S: 1 where responses are equal" :
                     "S: cosines of features (Eq 9)";
    const char *title = "w: whose likeness counts (Eq 10)";
    printf("\n%-*s%s\n", beside ? 4 + g->m * S_WIDTH + gap : 0, of, beside ? title : "");
    print_columns(g->m, S_WIDTH);
    if (beside) {
        printf("%*s", gap, "");
        print_columns(g->m, W_WIDTH);
    }
    for (int i = 0; i < g->m; i++) {
        putchar('\n');
        print_row(evol ? g->semantic : g->S, g->m, i, S_WIDTH, "%+.2f");
        if (beside) {
            printf("%*s", gap, "");
            print_row(g->w, g->m, i, W_WIDTH, "%.2f");
        }
    }
    if (!beside && !evol) {
        printf("\n\n%s\n", title);
        print_columns(g->m, S_WIDTH);
        for (int i = 0; i < g->m; i++) {
            putchar('\n');
            print_row(g->w, g->m, i, S_WIDTH, "%.3f");
        }
    }
    putchar('\n');
}

/* The whole computation of one group: table, matrices, a sentence for each response, and a key. */
static void explain_table(const Group *g, const Tokenizer *t, const MethodOptions *o)
{
    Buf text = {0};
    printf("prompt %s\n\n", g->text);
    print_responses(g, t, o);
    print_matrices(g, o);
    putchar('\n');
    explain_whole(g, o, &text);
    if (text.n)
        put_wrapped(stdout, text.s, 0, 0, WIDTH);
    for (int i = 0; i < g->m; i++) {
        text.n = 0;
        explain_response(g, i, o, &text);
        put_wrapped(stdout, text.s, 0, 5, WIDTH);
    }
    putchar('\n');
    put_wrapped(stdout, o->method == EVOL ? "u = 1 - (mean cosine to its class + largest to any) / "
                "2. n: u taken to 0 .. 1 inside the class, right or wrong. r~: right 0.5 + 0.5 n, "
                "wrong -1 + 0.5 n, no answer -1." : "nu = 1 - sum_j w_ij S_ij^2: what a response's "
                "direction adds to the others', opposite ones included (Eq 11). nubar: nu taken to "
                "0 .. 1 inside the group. r~: the shaped reward (Eq 12-13).", 0, 0, WIDTH);
    text.n = 0;
    buf_printf(&text, "A: r~ less the group's mean%s (Eq 2); above 0 an update makes the response "
               "more likely, below 0 less.",
               o->adv_norm == ADV_STD ? ", in standard deviations" : "");
    put_wrapped(stdout, text.s, 0, 0, WIDTH);
    buf_free(&text);
}

/* ---------------------------------------------------------------- for programs */

static void explain_json(const Group *g, int d)
{
    Buf b = {0};
    double *Phi = xmalloc((size_t)(g->m * d) * sizeof *Phi);
    for (int i = 0; i < g->m * d; i++)
        Phi[i] = (double)g->Phi[i];
    put_matrix(&b, "Phi", Phi, g->m, d);
    put_matrix(&b, "S", g->S, g->m, g->m);
    put_matrix(&b, "w", g->w, g->m, g->m);
    put_vector(&b, "r", g->reward, g->m);
    put_vector(&b, "nu", g->nu, g->m);
    put_vector(&b, "nubar", g->nubar, g->m);
    if (g->embedded)
        put_matrix(&b, "semantic", g->semantic, g->m, g->m);
    put_vector(&b, "u", g->u, g->m);
    put_vector(&b, "rtilde", g->shaped, g->m);
    put_vector(&b, "A", g->advantage, g->m);
    printf("{%s}\n", b.s + 2);
    free(Phi);
    buf_free(&b);
}

/* ================================================================ the command */

/* Features, advantages and output of a group whose responses and rewards are there. */
static void explain_group(Session *s, Group *g)
{
    Learner l = learner_new(s, 1);
    int d = s->model.config.hidden_size;
    reference_hidden(&s->engine, &s->model, g, 1); /* --encoder ref: the model is its own */
    forward_groups(&s->engine.worker[0], &l, g, 1, KEEP_NOTHING);
    group_advantages(&s->engine.worker[0], g, l.method, d);
    free(l.pass);
    for (int k = 0; k < g->m * g->m; k++) /* S as Eq 11 had it */
        g->S[k] = similarity(g, k / g->m, k % g->m, l.method->novelty);
    if (s->o.json)
        explain_json(g, d);
    else
        explain_table(g, &s->tokenizer, l.method);
}

enum { MOST_GIVEN = 4096 }; /* responses, as for --rollouts */

/* A line of --data: a prompt, its responses and their rewards. */
typedef struct {
    int *prompt, prompt_length, m, rewards;
    int **response, *length;
    double *reward;
} Given;

static void given_free(Given *x)
{
    for (int i = 0; i < x->m; i++)
        free(x->response[i]);
    free(x->response);
    free(x->length);
    free(x->reward);
    free(x->prompt);
}

/* Appends a response to what is given. */
static void given_response(Given *x, int *ids, int n)
{
    x->response = room_for_one(x->response, x->m, sizeof *x->response);
    x->length = room_for_one(x->length, x->m, sizeof *x->length);
    x->response[x->m] = ids;
    x->length[x->m++] = n;
}

/* Text to ids: a prompt by --template; a response with the end token, which is part of y. */
static int *given_text(Session *s, Json *j, bool response, int *n)
{
    Buf given = {0}, text = {0};
    if (!json_string(j, &given))
        return NULL;
    session_tokenizer(s);
    if (response)
        buf_str(&text, given.s);
    else
        template_render(&s->template, given.s, &text);
    Ids ids = {0};
    if (text.n)
        ids = encode(&s->tokenizer, !response, text.s, text.n, INT_MAX, "--data");
    if (response && s->model.config.n_eos)
        ids_add(&ids, s->model.config.eos_token_id[0]);
    buf_free(&given);
    buf_free(&text);
    *n = ids.n;
    return ids.id;
}

/* {"prompt", "responses", "rewards"}, or prompt_ids and response_ids in place of the texts. */
static Given given_read(Session *s, Json *j, const char *path, int line)
{
    const Config *c = &s->model.config;
    Given x = {0};
    Buf key = {0};
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "prompt")) {
            free(x.prompt);
            x.prompt = given_text(s, j, false, &x.prompt_length);
        } else if (!strcmp(key.s, "prompt_ids"))
            x.prompt_length = read_ids(j, c, false, &x.prompt, path, line);
        else if (!strcmp(key.s, "responses") || !strcmp(key.s, "response_ids")) {
            for (json_array(j); json_item(j);) {
                int *ids = NULL, n = 0;
                if (key.s[8] == 's')
                    ids = given_text(s, j, true, &n);
                else
                    n = read_ids(j, c, false, &ids, path, line);
                given_response(&x, ids, n);
            }
        } else if (!strcmp(key.s, "rewards")) {
            for (json_array(j); json_item(j); x.rewards++) {
                x.reward = room_for_one(x.reward, x.rewards, sizeof(double));
                if (!json_number(j, &x.reward[x.rewards]))
                    break;
            }
        } else
            json_skip(j);
    jsonl_end(j, path, line);
    if (x.prompt_length < 1 || x.m < 2 || x.m > MOST_GIVEN || x.rewards != x.m)
        die("%s: line %d: a prompt of %d tokens, %d responses, %d rewards; expected a prompt, two "
            "to %d responses, and as many rewards", path, line, x.prompt_length, x.m, x.rewards,
            MOST_GIVEN);
    for (int i = 0; i < x.m; i++)
        if (x.length[i] < 1)
            die("%s: line %d: response %d is empty", path, line, i);
    buf_free(&key);
    return x;
}

static void explain_given(Session *s, const Given *x)
{
    int longest = 1, threads = s->engine.threads;
    for (int i = 0; i < x->m; i++)
        longest = imax(longest, x->length[i]);
    Extent extent = {1, x->m, x->prompt_length, longest, 1, KEEP_NOTHING, true, SAVE_NOTHING};
    s->engine = extent_engine(&s->model, threads, extent);
    rope_reserve(&s->model, x->prompt_length + longest);
    Group *g = groups_new(&s->engine, &s->model, extent);
    g->prompt_length = x->prompt_length;
    memcpy(g->prompt, x->prompt, (size_t)x->prompt_length * sizeof(int));
    for (int i = 0; i < x->m; i++) {
        memcpy(g->token + g->start[i], x->response[i], (size_t)x->length[i] * sizeof(int));
        g->start[i + 1] = g->start[i] + x->length[i];
        g->truncated[i] = false;
        g->reward[i] = x->reward[i];
        g->answered[i] = true;
        g->reason[i] = "given";
    }
    g->n_tokens = g->start[x->m];
    Buf text = {0};
    if (!s->o.json)
        session_tokenizer(s);
    tokenizer_decode(&s->tokenizer, g->prompt, g->prompt_length, false, &text);
    g->text = text.s;
    explain_group(s, g);
    buf_free(&text);
    engine_free(&s->engine);
}

/* Does a file give groups, responses and all? Else its lines are problems. The first line tells. */
static bool holds_groups(const char *path)
{
    size_t n, offset = 0;
    int line = 0;
    bool groups = false;
    char *text = read_file(path, &n);
    Buf key = {0};
    Json j = json_open("", 0);
    jsonl_next(text, n, &offset, &line, &j);
    for (json_object(&j); json_key(&j, &key); json_skip(&j))
        groups |= is_one_of(key.s, "responses", "response_ids", "prompt_ids") ||
                  !strcmp(key.s, "rewards");
    buf_free(&key);
    free(text);
    return groups;
}

static void explain_file(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    if (s->reward.watcher)
        usage("explain: --data gives the rewards; expected no --reward-cmd");
    char *text = read_file(s->o.data, &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Given x = given_read(s, &j, s->o.data, line);
        explain_given(s, &x);
        given_free(&x);
    }
    free(text);
}

/* The problem of --prompt, which has no gold answer; or those of --data or --task. */
static Problems explain_problems(Session *s)
{
    const Options *o = &s->o;
    Problems p = session_problems(s, o->data, (Split)o->split);
    if (o->prompt) {
        p.path = "--prompt";
        problems_add(&p, o->prompt, "", 0);
        Reward *command = p.judge.command;
        p.judge = judge_new((Verifier)o->verifier, &s->task, o->prompt);
        p.judge.command = command;
        if (!command && p.judge.verifier >= VERIFY_MATH)
            usage("--prompt: has no gold answer to compare with; expected a problem of --task, "
                  "--data FILE, or --reward-cmd");
    } else if (o->data)
        problems_check_gold(&p, false);
    return p;
}

static void cmd_explain(Session *s)
{
    const Options *o = &s->o;
    bool given = o->data && holds_groups(o->data);
    check_method(o, false);
    if (o->data && o->prompt)
        usage("explain: expected one of --data and --prompt");
    if (given) {
        session_load(s, o->model);
        explain_file(s);
        return;
    }
    session_sampler(s, o->model);
    Problems p = explain_problems(s);
    problems_fit(&p, &s->tokenizer, prompt_limit(s, &s->model.config));
    Extent x = {1, o->rollouts, p.longest, o->max_tokens, 1, KEEP_NOTHING, true, SAVE_NOTHING};
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    Group *g = groups_new(&s->engine, &s->model, x);
    group_ask(g, &s->engine.arena, &p, 0, &s->tokenizer, x.max_prompt);
    Sampling sampling = session_sampling(s, 0);
    rope_reserve(&s->model, g->prompt_length + o->max_tokens);
    sample_groups(&s->engine, &s->model, g, 1, &sampling);
    verify_groups(g, 1, &p.judge, &s->tokenizer);
    explain_group(s, g);
    problems_free(&p);
}

#endif
