/* problems.h: where prompts come from, a built-in task or a JSONL file, how they are written for
 * the model (template.h), and who judges the responses (judge.h). */
#ifndef PROBLEMS_H
#define PROBLEMS_H

#include "../base/json.h"     /* defines: Json; util.h: Buf, philox */
#include "judge.h"    /* defines: Judge; task.h: Task, task_problem, task_key */
#include "../base/map.h"      /* defines: Map */
#include "../text/template.h" /* defines: Template */

typedef struct {
    char *prompt, *answer;
    int line; /* of the file */
} Problem;

/* A built-in task draws as many problems as are wanted; a list holds n: those of a file, or, for an
 * evaluation, problems that were drawn beforehand and all differ. */
typedef struct {
    Task task;
    Split split;
    uint64_t seed;
    Judge judge;
    Template template; /* its text is the session's */
    int longest;       /* tokens of the longest prompt, template included */
    Problem *problem;
    int n;             /* 0: each is drawn when it is asked for */
    bool shuffled;     /* walked in passes, each in an order of its own */
    int *order, epoch; /* the list in the order of pass number epoch - 1 */
    const char *path;
} Problems;

static inline bool is_one_of(const char *key, const char *a, const char *b, const char *c)
{
    return !strcmp(key, a) || !strcmp(key, b) || !strcmp(key, c);
}

/* ---------------------------------------------------------------- a file of problems */

/* The fields of one line that a problem may be made of; what a line lacks has n = 0. */
typedef struct {
    Buf key, prompt, body, answer, solution, joined;
    bool answered; /* there was an answer or a solution, if only an empty one */
} ProblemFields;

static inline void problem_fields_free(ProblemFields *f)
{
    Buf *all[] = {&f->key, &f->prompt, &f->body, &f->answer, &f->solution, &f->joined};
    for (int i = 0; i < 6; i++)
        buf_free(all[i]);
}

/* Reads one line; dies naming the file, the line and the field. */
static inline void problem_fields_read(ProblemFields *f, Json *j, const char *path, int line)
{
    Buf *key = &f->key;
    f->answered = false;
    key->n = f->prompt.n = f->body.n = f->answer.n = f->solution.n = f->joined.n = 0;
    for (json_object(j); json_key(j, key);)
        if (is_one_of(key->s, "prompt", "question", "problem") || !strcmp(key->s, "Question"))
            json_string(j, &f->prompt);
        else if (!strcmp(key->s, "Body"))
            json_string(j, &f->body);
        else if (!strcmp(key->s, "answer") || !strcmp(key->s, "Answer"))
            f->answered |= json_string_or_number(j, &f->answer);
        else if (!strcmp(key->s, "solution"))
            f->answered |= json_string(j, &f->solution);
        else
            json_skip(j);
    if (j->error && key->n)
        die("%s: line %d: %.60s: %s", path, line, key->s, j->error);
    jsonl_end(j, path, line);
    if (!f->prompt.n)
        die("%s: line %d: no question; expected a prompt, question or problem", path, line);
}

/* Adds a problem, with copies of its texts. */
static inline void problems_add(Problems *p, const char *prompt, const char *answer, int line)
{
    p->problem = room_for_one(p->problem, p->n, sizeof *p->problem);
    p->problem[p->n++] = (Problem){xstrdup(prompt), xstrdup(answer), line};
}

/* Reads a JSONL file of problems: `prompt`, `question` or `problem`, and `answer` (text or number;
 * the gold answer where there are both) or `solution`. SVAMP's `Body` stands before its `Question`.
 * Other fields are passed over. need_answer: a line without one is an error. (An empty one is not:
 * published sets have some. problems_check_gold finds them.) */
static inline Problems problems_read(const char *path, bool need_answer)
{
    Problems p = {.path = path};
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    ProblemFields f = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        problem_fields_read(&f, &j, path, line);
        const Buf *answer = f.answer.n ? &f.answer : &f.solution;
        if (!f.answered && need_answer)
            die("%s: line %d: no answer; expected an answer or a solution", path, line);
        if (f.body.n)
            buf_printf(&f.joined, "%s ", f.body.s);
        buf_str(&f.joined, f.prompt.s);
        problems_add(&p, f.joined.s, answer->n ? answer->s : "", line);
    }
    if (!p.n)
        die("%s: holds no problems", path);
    free(text);
    problem_fields_free(&f);
    return p;
}

static inline void problem_free(Problem *p)
{
    free(p->prompt);
    free(p->answer);
}

static inline void problems_free(Problems *p)
{
    for (int i = 0; i < p->n; i++)
        problem_free(&p->problem[i]);
    free(p->problem);
    free(p->order);
    *p = (Problems){0};
}

/* Keeps the problems for which `keep` holds, in their order; `keep` is freed. */
static inline void problems_keep(Problems *p, bool *keep)
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

/* Puts the bare gold answer in the place of each answer of a file, and tries it as a response: one
 * that is not right by its own verifier can only teach that nothing is. They are counted, the first
 * few are named, and, with `drop`, the problems left out. */
static inline void problems_check_gold(Problems *p, bool drop)
{
    enum { NAMED = 5 };
    Buf gold = {0}, lines = {0};
    const char *why = NULL;
    int bad = 0;
    bool *keep = xcalloc((size_t)p->n, sizeof *keep);
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
    buf_free(&gold);
    buf_free(&lines);
}

/* ---------------------------------------------------------------- problems that differ */

/* Makes a list of n problems of the task that all differ (task_key), or of as many as there are:
 * one that has not turned up in so many draws is taken not to be there. */
static inline void problems_draw(Problems *p, int n)
{
    static const char *const splits[] = {"training", "validation", "test"};
    Map seen = {0};
    Buf prompt = {0}, answer = {0}, spec = {0};
    int in_vain = 0;
    for (uint32_t index = 0; p->n < n && in_vain < 100 * (p->n + 100); index++) {
        prompt.n = answer.n = 0;
        task_problem(&p->task, p->seed, p->split, index, &prompt, &answer);
        uint64_t key = task_key(&p->task, prompt.s);
        in_vain++;
        if (map_get(&seen, key) >= 0)
            continue;
        map_set(&seen, key, p->n);
        problems_add(p, prompt.s, answer.s, 0);
        in_vain = 0;
    }
    task_spec(&p->task, &spec);
    if (p->n < n)
        warn("task %s: has %d %s problems that differ; asked for %d", spec.s, p->n,
             splits[p->split], n);
    p->path = "--task";
    map_free(&seen);
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&spec);
}

/* class[i]: the first of n problems of a list whose prompt is that of problem i. Returns how many
 * differ. */
static inline int problems_classes(const Problems *p, int n, int *class)
{
    Map first = {0};
    int distinct = 0;
    for (int i = 0; i < n; i++) {
        uint64_t key = hash64(p->problem[i].prompt, strlen(p->problem[i].prompt));
        class[i] = map_get(&first, key);
        if (class[i] >= 0)
            continue;
        map_set(&first, key, class[i] = i);
        distinct++;
    }
    map_free(&first);
    return distinct;
}

/* ---------------------------------------------------------------- in which order */

/* The order of n things in pass number `epoch`, shuffled anew for each (Fisher and Yates). */
static inline void shuffle(int *order, int n, uint64_t seed, int epoch)
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

/* Problem number `index` of a list. Training walks it in shuffled passes, evaluations in order. */
static inline const Problem *problem_of_list(Problems *p, uint32_t index)
{
    int at = (int)(index % (uint32_t)p->n);
    if (!p->shuffled)
        return &p->problem[at];
    int epoch = (int)(index / (uint32_t)p->n);
    if (!p->order)
        p->order = xcalloc((size_t)p->n, sizeof(int));
    if (epoch != p->epoch - 1)
        shuffle(p->order, p->n, p->seed, epoch);
    p->epoch = epoch + 1;
    return &p->problem[p->order[at]];
}

#endif
