/* judge.h: the source of rewards: a verifier, or the command of --reward-cmd.
 *
 *   countdown, add, maze, reach   the built-in tasks' own (task.h): any right response
 *   math                          the final answer equals the gold answer as mathematics
 *   exact                         the response is the gold answer, but for white space at the ends
 *
 *   judge_new(asked, task, first_prompt)        the judge of these problems
 *   judge(&j, prompt, gold, response)           right or not, and why
 *   judge_finds(&j, prompt, response)           does the response contain an answer
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
    Task task;         /* of a built-in task's verifier: the form of the problems */
    Reward *command;   /* not NULL: gives the rewards instead of the verifier */
} Judge;

/* The task of this kind that poses the problems of a file, by its first prompt: --task if it reads
 * that, else one with standard options that does. Without a file, and, returning false, where no
 * task of this kind reads it: --task if it is of this kind, else the standard one. */
static bool judge_task(TaskKind kind, const Task *task, const char *first_prompt, Task *out)
{
    bool own = task->kind == kind;
    Task other;
    *out = own ? *task : task_standard(kind);
    if (!first_prompt || (own && task_key(task, first_prompt)))
        return true;
    if (!task_of_prompt(kind, first_prompt, &other))
        return false;
    *out = other;
    return true;
}

/* The judge of problems that the task draws (first_prompt NULL) or a file holds. Auto is the task's
 * verifier where the task draws or reads the first prompt; else that of the first built-in task
 * that reads it; else math. */
static Judge judge_new(Verifier asked, const Task *task, const char *first_prompt)
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

/* Replaces the contents of `out` by the text without white space at its ends. */
static void trimmed(const char *s, Buf *out)
{
    s += strspn(s, " \t\r\n");
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1]))
        n--;
    out->n = 0;
    buf_add(out, s, n);
}

static Verdict exact_verify(const char *response, const char *gold)
{
    Buf x = {0}, y = {0};
    trimmed(response, &x);
    trimmed(gold, &y);
    Verdict v = verdict(strcmp(x.s, y.s) ? "not the gold answer" : NULL);
    buf_free(&x, &y);
    return v;
}

/* Is the response right? The prompt has no template. */
static Verdict judge(const Judge *j, const char *prompt, const char *gold, const char *response)
{
    switch (j->verifier) {
    case VERIFY_MATH: return math_verify(response, gold);
    case VERIFY_EXACT: return exact_verify(response, gold);
    default: return task_verify(&j->task, prompt, response);
    }
}

/* Is the whole response the answer? */
static bool judge_whole(const Judge *j) { return j->command || j->verifier == VERIFY_EXACT; }

/* Replaces the contents of `out` by the answer class of a response, for votes: its answer, for math
 * after a `=`; a response without an answer is a class of its own, marked by `?`. */
static void judge_class(const Judge *j, const char *prompt, const char *response, Buf *out)
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
static bool judge_finds(const Judge *j, const char *prompt, const char *response)
{
    Buf class = {0};
    judge_class(j, prompt, response, &class);
    bool found = class.n > 0 && (judge_whole(j) || *class.s != '?');
    buf_free(&class);
    return found;
}

/* Do two classes vote together? For math: where the verifier takes one for the other. */
static bool judge_same(const Judge *j, const char *class1, const char *class2)
{
    bool math = !judge_whole(j) && j->verifier == VERIFY_MATH && *class1 == '=' && *class2 == '=';
    return !strcmp(class1, class2) ||
           (math && math_compare(class2 + 1, strlen(class2 + 1), class1 + 1).right);
}

/* Puts the bare gold answer of a data file's `answer` into `gold` (for math: "18" of "... #### 18")
 * and verifies it against itself: an answer that fails could never be given. */
static Verdict judge_gold(const Judge *j, const char *prompt, const char *answer, Buf *gold)
{
    Buf response = {0};
    bool math = j->verifier == VERIFY_MATH;
    gold->n = 0;
    if (math && !j->command)
        math_gold(answer, gold);
    else
        buf_str(gold, answer);
    if (j->command || !gold->n)
        return verdict(j->command ? NULL : "the answer is empty");
    buf_printf(&response, math ? "\\boxed{%s}" : "%s", gold->s);
    Verdict v = judge(j, prompt, gold->s, response.s);
    buf_free(&response);
    return v;
}

#endif
