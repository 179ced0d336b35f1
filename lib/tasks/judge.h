/* judge.h: who says what a response is worth: a verifier, or the command of --reward-cmd.
 *
 *   countdown, add, maze, reach   the built-in tasks' own (task.h): any right response
 *   math                          the final answer, compared with the gold answer as mathematics
 *   exact                         the response is the gold answer, white space at both ends aside
 *
 *   judge_new(asked, task, first_prompt)        which one judges these problems
 *   judge(&j, prompt, gold, response)           right or not, and why: the one place of dispatch
 *   judge_finds(&j, prompt, response)           is there an answer in it at all
 *   judge_class, judge_same                     answer classes, for majority votes
 *   judge_gold(&j, prompt, answer, &gold)       the bare gold answer of a data file's answer */
#ifndef JUDGE_H
#define JUDGE_H

#include "math/answer.h"   /* defines: math_verify, math_extract, math_compare, math_gold */
#include "reward.h" /* defines: Reward */
#include "task.h"   /* defines: Task, Verdict, task_verify, task_of_prompt */

#define VERIFIERS "auto|countdown|add|maze|reach|math|exact" /* by Verifier */
typedef enum {
    VERIFY_AUTO,
    VERIFY_COUNTDOWN, VERIFY_ADD, VERIFY_MAZE, VERIFY_REACH, /* by TaskKind */
    VERIFY_MATH, VERIFY_EXACT
} Verifier;

typedef struct {
    Verifier verifier; /* VERIFY_AUTO: the task's own */
    Task task;         /* of a built-in task's verifier: how the problems are written */
    Reward *command;   /* not NULL: it gives the rewards, and the verifier has no say */
} Judge;

/* Which task of a kind a file's problems are of, by the first of them: --task where it reads that,
 * else the one that does, with standard options. Without a file, and false where no task of this
 * kind reads it: --task, or, where that is of another kind, the standard one. */
static inline bool judge_task(TaskKind kind, const Task *task, const char *first_prompt, Task *out)
{
    bool own = task->kind == kind;
    *out = own ? *task : task_standard(kind);
    if (!first_prompt || (own && task_key(task, first_prompt)))
        return true;
    Task other;
    bool reads = task_of_prompt(kind, first_prompt, &other);
    if (reads)
        *out = other;
    return reads;
}

/* The judge of problems that the task draws (first_prompt NULL) or that stand in a file. Auto is
 * the task's own verifier where the task draws or reads the first prompt; else that of the first
 * built-in task that reads it; else math. */
static inline Judge judge_new(Verifier asked, const Task *task, const char *first_prompt)
{
    Judge j = {.verifier = asked, .task = *task};
    if (asked > VERIFY_AUTO && asked < VERIFY_MATH)
        judge_task((TaskKind)(asked - VERIFY_COUNTDOWN), task, first_prompt, &j.task);
    if (asked != VERIFY_AUTO)
        return j;
    j.verifier = VERIFY_MATH;
    for (int k = -1; k < N_TASKS && j.verifier == VERIFY_MATH; k++) {
        TaskKind kind = k < 0 ? task->kind : (TaskKind)k; /* that of --task first */
        if (judge_task(kind, task, first_prompt, &j.task))
            j.verifier = (Verifier)(VERIFY_COUNTDOWN + (int)kind);
    }
    return j;
}

/* The text without the white space at both ends. Replaces what is in `out`. */
static inline void trimmed(const char *s, Buf *out)
{
    s += strspn(s, " \t\r\n");
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1]))
        n--;
    out->n = 0;
    buf_add(out, s, n);
}

static inline Verdict exact_verify(const char *response, const char *gold)
{
    Buf x = {0}, y = {0};
    trimmed(response, &x);
    trimmed(gold, &y);
    bool right = !strcmp(x.s, y.s);
    buf_free(&x);
    buf_free(&y);
    return (Verdict){right, right ? "right" : "not the gold answer"};
}

/* Is the response right? The prompt is the problem as it stands in the data, without template. */
static inline Verdict judge(const Judge *j, const char *prompt, const char *gold,
                            const char *response)
{
    switch (j->verifier) {
    case VERIFY_MATH: return math_verify(response, gold);
    case VERIFY_EXACT: return exact_verify(response, gold);
    default: return task_verify(&j->task, prompt, response);
    }
}

/* Is the whole response the answer? */
static inline bool judge_whole(const Judge *j) { return j->command || j->verifier == VERIFY_EXACT; }

/* The answer class of a response, for votes, in place of what `out` holds: what it answers, free of
 * how it gets there (for math, behind a `=`). What gives no answer stands for itself, behind a
 * `?`. */
static inline void judge_class(const Judge *j, const char *prompt, const char *response, Buf *out)
{
    out->n = 0;
    if (judge_whole(j)) {
        trimmed(response, out);
    } else if (j->verifier != VERIFY_MATH) {
        task_answer_class(&j->task, prompt, response, out);
    } else {
        Buf answer = {0};
        bool none = math_extract(response, &answer) || !answer.n;
        buf_printf(out, none ? "?%s" : "=%s", none ? response : answer.s);
        buf_free(&answer);
    }
}

/* Is there an answer in the response, right or wrong? */
static inline bool judge_finds(const Judge *j, const char *prompt, const char *response)
{
    Buf class = {0};
    judge_class(j, prompt, response, &class);
    bool found = class.n > 0 && (judge_whole(j) || *class.s != '?');
    buf_free(&class);
    return found;
}

/* Do two classes vote together? For math: where the verifier takes one for the other. */
static inline bool judge_same(const Judge *j, const char *class1, const char *class2)
{
    bool math = !judge_whole(j) && j->verifier == VERIFY_MATH && *class1 == '=' && *class2 == '=';
    return !strcmp(class1, class2) ||
           (math && math_compare(class2 + 1, strlen(class2 + 1), class1 + 1).right);
}

/* The bare gold answer of a data file's `answer` into `gold` (for math: "18" of "... #### 18"), and
 * whether it verifies against itself: what does not could never be answered right. */
static inline Verdict judge_gold(const Judge *j, const char *prompt, const char *answer, Buf *gold)
{
    Buf response = {0};
    gold->n = 0;
    if (j->verifier == VERIFY_MATH && !j->command)
        math_gold(answer, gold);
    else
        buf_str(gold, answer);
    buf_add(gold, "", 0);
    if (j->command)
        return (Verdict){true, "right"};
    if (!gold->n)
        return (Verdict){false, "the answer is empty"};
    if (j->verifier == VERIFY_MATH)
        buf_printf(&response, "\\boxed{%s}", gold->s);
    else
        buf_str(&response, gold->s);
    Verdict v = judge(j, prompt, gold->s, response.s);
    buf_free(&response);
    return v;
}

#endif
