/* reach.h: the task `reach`: from a start to a target by steps with given digits.
 *
 *   prompt `37,4>26:`   response `4*3=12,12+7=19,19+7=26`
 *
 * The digits 3 and 7, the start 4, the target 26. A step adds, takes away or multiplies by one of
 * the digits, each as often as one likes, and begins with the value before. No value comes twice,
 * so no response is made longer by loops. */
#ifndef TASK_REACH_H
#define TASK_REACH_H

#include "text.h" /* defines: Task, Step, scan_step, dice, Canonical, verdict */

#define REACH_OPTIONS(X, W) \
    X(TASK_REACH, digits, 1, 8, 7, "how many of the digits 2 to 9 a problem gives") \
    X(TASK_REACH, steps, 1, 6, 4, "a right response has at most so many steps") \
    X(TASK_REACH, shortest, 1, 6, 1, "the shortest one has at least so many, at most steps") \
    X(TASK_REACH, max, 10, 999, 99, "the target is 10 to max, and no value is above max") \
    W(TASK_REACH, teacher, TEACHERS, "which right response sft shows: any, or one of the shortest")

enum { REACH_DIGITS = 8, REACH_STEPS = 6, REACH_MAX = 999, REACH_FAR = 255 };

typedef struct {
    int digits, steps, max; /* the task's */
    int digit[REACH_DIGITS], start, target;
} Reach;

/* ---------------------------------------------------------------- the text */

static inline void reach_write_prompt(const Reach *p, Buf *out)
{
    for (int i = 0; i < p->digits; i++)
        buf_printf(out, "%d", p->digit[i]);
    buf_printf(out, ",%d>%d:", p->start, p->target);
}

/* prompt = digit* "," digit ">" number ":". The digits are 2..9 and rise, the start is 1..9, the
 * target 10..max. */
static inline bool reach_read_prompt(const Task *t, const char *s, Reach *p)
{
    int64_t start, target;
    *p = (Reach){.digits = t->digits, .steps = t->steps, .max = t->max};
    for (int i = 0; i < p->digits; i++, s++) {
        if (*s < '2' || *s > '9' || (i && *s - '0' <= p->digit[i - 1]))
            return false;
        p->digit[i] = *s - '0';
    }
    if (!scan_char(&s, ',') || !scan_number(&s, &start) || start < 1 || start > 9
        || !scan_char(&s, '>') || !scan_number(&s, &target) || target < 10 || target > p->max)
        return false;
    p->start = (int)start;
    p->target = (int)target;
    return scan_char(&s, ':') && *s == 0;
}

/* Reads response = step ("," step)*, at most `steps` of them, each on the value before and with a
 * digit that is given; whether the steps are true is not its business. Returns NULL, or what is
 * wrong. */
static inline const char *reach_read(const Reach *p, const char *s, Step *step, int *n)
{
    int64_t value = p->start;
    if (*s == 0)
        return "the response is empty";
    for (*n = 0; *n == 0 || *s == ','; ++*n) {
        if (*n == p->steps)
            return "too many steps";
        if ((*n && !scan_char(&s, ',')) || !scan_step(&s, &step[*n]) || step[*n].op == '/')
            return "a step is not written as number, one of + - *, digit, =, number";
        if (step[*n].a != value)
            return *n ? "a step does not begin with the value before"
                      : "the first step does not begin with the start";
        int i = 0;
        while (i < p->digits && p->digit[i] != step[*n].b)
            i++;
        if (i == p->digits)
            return "a step uses a digit that is not given";
        value = step[*n].c;
    }
    return *s ? "text after the last step" : NULL;
}

static inline Verdict reach_verify(const Task *t, const char *prompt, const char *response)
{
    Reach p;
    Step step[REACH_STEPS] = {{0}};
    int n;
    if (!reach_read_prompt(t, prompt, &p))
        return verdict(NO_PROBLEM);
    const char *fault = reach_read(&p, response, step, &n);
    for (int k = 0; !fault && k < n; k++) {
        if (!step_is_true(step[k]))
            fault = "a step's arithmetic is false";
        else if (step[k].c > p.max)
            fault = "a value is above max";
        for (int i = 0; !fault && i <= k; i++) /* the start is the first a */
            if (step[k].c == step[i].a)
                fault = "a value comes twice";
    }
    if (!fault && step[n - 1].c != p.target)
        fault = "the last value is not the target";
    return verdict(fault);
}

/* Steps are their own class, true or not; what is no steps of this problem stands behind a `?`. */
static inline void reach_class(const Task *t, const char *prompt, const char *response, Buf *out)
{
    Reach p;
    Step step[REACH_STEPS];
    int n;
    if (!reach_read_prompt(t, prompt, &p) || reach_read(&p, response, step, &n))
        buf_str(out, "?");
    buf_str(out, response);
}

/* The digits, then start and target. */
static inline Canonical reach_sorted(const Reach *p)
{
    Canonical c = {.n = p->digits + 2};
    for (int i = 0; i < p->digits; i++)
        c.value[i] = p->digit[i];
    c.value[p->digits] = p->start;
    c.value[p->digits + 1] = p->target;
    return c;
}

static inline bool reach_canonical(const Task *t, const char *prompt, Canonical *out)
{
    Reach p;
    if (!reach_read_prompt(t, prompt, &p))
        return false;
    *out = reach_sorted(&p);
    return true;
}

/* ---------------------------------------------------------------- right responses */

/* The search for right responses, one after the other in a fixed order. */
typedef struct {
    Reach p;
    uint8_t away[REACH_MAX + 1]; /* steps from a value to the target, at least */
    uint8_t last[REACH_MAX + 1]; /* how many single steps lead from a value to the target */
    bool seen[REACH_MAX + 1];
    Step step[REACH_STEPS];
    int wanted; /* how many right responses to pass over */
} ReachSearch;

/* The values whose step with digit d ends on c, by + - *; -1 where there is none. */
static inline void reach_before(const Reach *p, int c, int d, int before[3])
{
    before[0] = c - d; /* below zero: none */
    before[1] = c + d <= p->max ? c + d : -1;
    before[2] = c % d == 0 ? c / d : -1;
}

/* How far each value is from the target, up to `steps`: breadth first, from the target. */
static inline void reach_search(const Reach *p, ReachSearch *s)
{
    int queue[REACH_MAX + 1] = {p->target}, n = 1, before[3];
    s->p = *p;
    memset(s->away, REACH_FAR, sizeof s->away);
    memset(s->last, 0, sizeof s->last);
    memset(s->seen, 0, sizeof s->seen);
    s->away[p->target] = 0;
    for (int head = 0; head < n && s->away[queue[head]] < p->steps; head++)
        for (int i = 0; i < p->digits; i++) {
            reach_before(p, queue[head], p->digit[i], before);
            for (int k = 0; k < 3; k++) {
                if (before[k] < 0)
                    continue;
                s->last[before[k]] += head == 0;
                if (s->away[before[k]] != REACH_FAR)
                    continue;
                s->away[before[k]] = (uint8_t)(s->away[queue[head]] + 1);
                queue[n++] = before[k];
            }
        }
}

/* Depth first from value a through all responses of at most `left` more steps: true where right
 * response number `wanted` is found, with its steps. A value from which the target is too far is
 * not followed, and last steps that are to be passed over are only counted. Depth: at most the
 * steps. */
static inline bool reach_find(ReachSearch *s, int a, int left, Step *step)
{
    const Reach *p = &s->p;
    if (left == 1 && s->wanted >= s->last[a]) {
        s->wanted -= s->last[a];
        return false;
    }
    s->seen[a] = true;
    for (int i = 0; i < p->digits; i++)
        for (const char *op = "+-*"; *op; op++) {
            int d = p->digit[i], c = *op == '+' ? a + d : *op == '-' ? a - d : a * d;
            if (c < 0 || c > p->max || s->seen[c] || s->away[c] >= left)
                continue;
            *step = (Step){.a = a, .b = d, .c = c, .op = *op};
            if (c == p->target ? s->wanted-- == 0 : reach_find(s, c, left - 1, step + 1))
                return true;
        }
    s->seen[a] = false;
    return false;
}

/* How many right responses there are of at most `longest` steps (at most 24^6). */
static inline int reach_count(ReachSearch *s, int longest)
{
    s->wanted = INT_MAX;
    if (s->away[s->p.start] <= longest)
        reach_find(s, s->p.start, longest, s->step);
    return INT_MAX - s->wanted;
}

/* One right response of at most `longest` steps, all with the same chance; nothing where there is
 * none. */
static inline void reach_solve(const Task *t, ReachSearch *s, Dice *d, Buf *response)
{
    int shortest = s->away[s->p.start], n = 0;
    int longest = t->teacher == TEACHER_SHORTEST ? shortest : s->p.steps;
    int count = shortest <= s->p.steps ? reach_count(s, longest) : 0;
    if (!count)
        return;
    s->wanted = dice(d, count);
    reach_find(s, s->p.start, longest, s->step);
    while (s->step[n++].c != s->p.target)
        ;
    write_steps(s->step, n, response);
}

static inline void reach_solution(const Task *t, const char *prompt, Dice *d, Buf *response)
{
    Reach p;
    ReachSearch s;
    if (!reach_read_prompt(t, prompt, &p))
        return;
    reach_search(&p, &s);
    reach_solve(t, &s, d, response);
}

/* ---------------------------------------------------------------- the generator */

/* Digits, start and target, each with the same chance; false where it belongs to another split, has
 * no right response, or one that is too short. */
static inline bool reach_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    Reach p = {.digits = t->digits, .steps = t->steps, .max = t->max};
    ReachSearch s;
    for (int digit = 2, n = 0; digit <= 9; digit++) /* n of the digits below are in */
        if (dice(d, 10 - digit) < p.digits - n)
            p.digit[n++] = digit;
    p.start = 1 + dice(d, 9);
    p.target = 10 + dice(d, p.max - 9);
    Canonical c = reach_sorted(&p);
    if (canonical_split(&c) != split)
        return false;
    reach_search(&p, &s);
    if (s.away[p.start] > p.steps || s.away[p.start] < t->shortest)
        return false;
    reach_write_prompt(&p, prompt);
    reach_solve(t, &s, d, answer);
    return true;
}

static inline bool reach_fits(const Task *t, char *error, size_t error_size)
{
    if (t->shortest > t->steps)
        snprintf(error, error_size, "task reach: 'shortest=%d': expected at most steps=%d",
                 t->shortest, t->steps);
    return t->shortest <= t->steps;
}

#endif
