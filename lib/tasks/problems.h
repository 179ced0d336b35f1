/* problems.h: the problems of a built-in task or a JSONL file, with their template (template.h) and
 * their judge (judge.h). */
#ifndef PROBLEMS_H
#define PROBLEMS_H

#include "../base/json.h"     /* defines: Json; util.h: Buf, philox */
#include "judge.h"    /* defines: Judge; task.h: Task, task_problem, task_key */
#include "../base/map.h"      /* defines: Map */
#include "../text/messages.h" /* defines: Messages, Template */

typedef struct {
    char *prompt, *answer;
    Messages messages; /* the conversation whose last message `prompt` is; n = 0: there is none */
    int line;          /* of the file */
} Problem;

/* A built-in task draws problems on demand; a list holds n: those of a file or, for an evaluation,
 * problems drawn beforehand that all differ. */
typedef struct {
    Task task;
    Split split;
    uint64_t seed;
    Judge judge;
    Template template; /* its text is the session's */
    int longest;       /* tokens of the longest prompt, template included */
    Problem *problem;
    int n;             /* 0: drawn on demand */
    int wanted;        /* problems to be drawn beforehand */
    bool shuffled;     /* anew for each epoch */
    int *order, epoch; /* the order of epoch number epoch - 1 */
    const char *path;
} Problems;


/* Adds a problem, with copies of its texts. */
static void problems_add(Problems *p, const char *prompt, const char *answer, int line)
{
    APPEND(p->problem, p->n,
           (Problem){.prompt = xstrdup(prompt), .answer = xstrdup(answer), .line = line});
}

/* Makes the messages of a record its prompt: the last one asks, and what is before it is kept. Of a
 * solved conversation, which ends with the assistant's message, that is the answer where the record
 * has no other. One message of the user alone is as its text. */
static void problem_converse(Messages *x, Buf *prompt, Buf *answer, const char *where)
{
    Message *last = &x->message[x->n - 1];
    if (x->n > 1 && is_role(last, "assistant")) {
        if (answer)
            buf_str(answer, last->content);
        x->n--;
        free((char *)last->role);
        free((char *)last->content);
        last--;
    }
    if (!is_role(last, "user") && !is_role(last, "tool"))
        die("%s: messages: the last is of role %s; expected the user's", where, last->role);
    buf_str(prompt, last->content);
    if (x->n == 1 && is_role(last, "user"))
        messages_free(x);
}

/* Reads a JSONL file of problems: `prompt`, `question` or `problem`, or a conversation as
 * `messages` or as `prompt`; and the gold answer (text or number), or a solution that ends with it.
 * SVAMP's `Body` precedes its `Question`. need_answer: a line without one is an error. (An empty
 * one is not: published sets have some, see problems_check_gold.) */
static Problems problems_read(const char *path, bool need_answer)
{
    Problems p = {.path = path};
    size_t n, offset = 0;
    int line = 0;
    char *text = jsonl_read(path, &n);
    Buf prompt = {0}, body = {0}, truth = {0}, answer = {0}, solution = {0}, joined = {0};
    Messages messages = {0};
    TextField field[] = {{.names = "ground_truth", .text = &truth, .number = true},
                         {.names = "answer|Answer", .text = &answer, .number = true},
                         {.names = "solution|output", .text = &solution, .number = true},
                         {.names = "prompt|question|problem|Question", .text = &prompt,
                          .list = messages_read, .to = &messages},
                         {.names = "messages", .list = messages_read, .to = &messages},
                         {.names = "Body", .text = &body}};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        prompt.n = body.n = truth.n = answer.n = solution.n = joined.n = 0;
        jsonl_texts(&j, field, 6, path, line);
        bool answered = field[0].seen || field[1].seen || field[2].seen;
        if (messages.n) {
            prompt.n = 0;
            problem_converse(&messages, &prompt, answered ? NULL : &solution,
                             path_printf("%s: line %d", path, line).s);
            answered |= solution.n > 0;
        }
        const Buf *gold = truth.n ? &truth : answer.n ? &answer : &solution;
        if (!prompt.n)
            die("%s: line %d: no question; expected a prompt, question, problem or messages", path,
                line);
        if (need_answer && !answered)
            die("%s: line %d: no answer; expected an answer, ground_truth, solution or output",
                path, line);
        if (body.n)
            buf_printf(&joined, "%s ", body.s);
        buf_str(&joined, prompt.s);
        problems_add(&p, joined.s, gold->n ? gold->s : "", line);
        p.problem[p.n - 1].messages = messages;
        messages = (Messages){0};
    }
    if (!p.n)
        die("%s: holds no problems", path);
    free(text);
    buf_free(&prompt, &body, &truth, &answer, &solution, &joined);
    return p;
}

/* The text of a problem's prompt, by the template. */
static void problem_render(const Template *t, const Problem *p, Buf *out)
{
    if (p->messages.n)
        messages_render(&p->messages, t, true, out, NULL);
    else
        template_render(t, p->prompt, out);
}

static void problem_free(Problem *p)
{
    messages_free(&p->messages);
    free(p->prompt);
    free(p->answer);
}

static void problems_free(Problems *p)
{
    for (int i = 0; i < p->n; i++)
        problem_free(&p->problem[i]);
    free(p->problem);
    free(p->order);
    *p = (Problems){0};
}

/* Keeps the problems for which `keep` holds; frees `keep`. */
static void problems_keep(Problems *p, bool *keep)
{
    int kept = 0;
    for (int i = 0; i < p->n; i++)
        if (keep[i])
            p->problem[kept++] = p->problem[i];
        else
            problem_free(&p->problem[i]);
    p->n = kept;
    free(keep);
}

/* Is one of the file's answers right by the judge's verifier? */
static bool problems_any_right(const Problems *p)
{
    Buf gold = {0};
    bool right = false;
    for (int i = 0; i < p->n && !right; i++)
        right = judge_gold(&p->judge, p->problem[i].prompt, p->problem[i].answer, &gold).right;
    buf_free(&gold);
    return right;
}

/* Replaces each answer of a file by the bare gold answer, and tries it as a response. Those that
 * fail their own verifier are counted, the first few named, and with `drop` left out. */
static void problems_check_gold(Problems *p, bool drop)
{
    enum { NAMED = 5 };
    Buf gold = {0}, lines = {0};
    const char *why = NULL;
    int bad = 0;
    bool *keep = xcalloc(p->n, sizeof *keep);
    for (int i = 0; i < p->n; i++) {
        Problem *q = &p->problem[i];
        Verdict v = judge_gold(&p->judge, q->prompt, q->answer, &gold);
        free(q->answer);
        q->answer = xstrdup(gold.s);
        keep[i] = v.right || !drop;
        if (v.right)
            continue;
        why = why ? why : v.reason;
        if (bad++ < NAMED)
            buf_printf(&lines, "%s%d", bad > 1 ? ", " : "", q->line);
    }
    if (bad == p->n && p->n)
        die("%s: no answer is right by the verifier itself (line %s: %s); see --verifier", p->path,
            lines.s, why);
    if (bad)
        warn("%s: %d of %d answers are not right by the verifier itself, %s: line %s%s (%s)",
             p->path, bad, p->n, drop ? "their problems are left out" : "no response can be",
             lines.s, bad > NAMED ? ", ..." : "", why);
    problems_keep(p, keep);
    buf_free(&gold, &lines);
}

/* Draws n problems of the task that all differ (task_key) and whose prompts fit (NULL: all do), or
 * as many as there are: after enough draws without a new one, none is left. */
static void problems_draw(Problems *p, int n, bool (*fits)(void *context, const char *prompt),
                          void *context)
{
    static const char *const splits[] = {"training", "validation", "test"};
    Map seen = {0};
    Buf prompt = {0}, answer = {0}, spec = {0};
    int in_vain = 0;
    bool longer = false;
    for (uint32_t index = 0; p->n < n && in_vain < 100 * (p->n + 100); index++) {
        prompt.n = answer.n = 0;
        task_problem(&p->task, p->seed, p->split, index, &prompt, &answer);
        uint64_t key = task_key(&p->task, prompt.s);
        in_vain++;
        if (map_get(&seen, key) >= 0)
            continue;
        if (fits && !fits(context, prompt.s)) {
            longer = true;
            continue;
        }
        map_set(&seen, key, p->n);
        problems_add(p, prompt.s, answer.s, 0);
        in_vain = 0;
    }
    task_spec(&p->task, &spec);
    if (p->n < n)
        warn("task %s: has %d %s problems that differ%s; asked for %d", spec.s, p->n,
             splits[p->split], longer ? " and are short enough" : "", n);
    p->path = "--task";
    map_free(&seen);
    buf_free(&prompt, &answer, &spec);
}

/* Equal for problems whose prompts, and messages before them, are equal. */
static uint64_t problem_key(const Problem *p)
{
    Buf all = {0};
    buf_str(&all, p->prompt);
    for (int i = 0; i < p->messages.n; i++)
        buf_printf(&all, "%c%s%c%s", 0, p->messages.message[i].role, 0,
                   p->messages.message[i].content);
    uint64_t key = hash64(all.s, all.n);
    buf_free(&all);
    return key;
}

/* class[i]: the first of n problems with the prompt of problem i. Returns how many differ. */
static int problems_classes(const Problems *p, int n, int *class)
{
    Map first = {0};
    int distinct = 0;
    for (int i = 0; i < n; i++) {
        uint64_t key = problem_key(&p->problem[i]);
        class[i] = map_get(&first, key);
        if (class[i] >= 0)
            continue;
        map_set(&first, key, class[i] = i);
        distinct++;
    }
    map_free(&first);
    return distinct;
}

/* A random order of n items for each epoch (Fisher-Yates). */
static void shuffle(int *order, int n, uint64_t seed, int epoch)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        Random r = philox(seed, STREAM_SHUFFLE, (uint32_t)epoch, (uint32_t)i, 0, 1);
        int j = (int)below(r, (uint32_t)i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

/* Problem number `index` of a list: training shuffles each epoch, evaluations go in order. */
static const Problem *problem_of_list(Problems *p, uint32_t index)
{
    int at = index % (uint32_t)p->n;
    if (!p->shuffled)
        return &p->problem[at];
    int epoch = index / (uint32_t)p->n;
    if (!p->order)
        p->order = xcalloc(p->n, sizeof(int));
    if (epoch != p->epoch - 1)
        shuffle(p->order, p->n, p->seed, epoch);
    p->epoch = epoch + 1;
    return &p->problem[p->order[at]];
}

#endif
