/* reach.h: the task `reach`: from a start to a target by steps with given digits.
 *
 *   prompt `37,4>26:`   response `4*3=12,12+7=19,19+7=26`
 *
 * The digits 3 and 7, the start 4, the target 26. A step adds, subtracts or multiplies by one of
 * the digits, which may be used again, and begins with the value before. No value comes twice, so
 * that loops cannot make a response longer. */
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
    int shortest;           /* the task's, where the problem was drawn; else 0 */
    int digit[REACH_DIGITS], start, target;
} Reach;

static void reach_write(const void *posed, Buf *out)
{
    const Reach *p = posed;
    for (int i = 0; i < p->digits; i++)
        buf_printf(out, "%d", p->digit[i]);
    buf_printf(out, ",%d>%d:", p->start, p->target);
}

/* prompt = digit* "," digit ">" number ":". The digits are 2..9 and rise, the start is 1..9, the
 * target 10..max. */
static bool reach_read_prompt(const Task *t, const char *s, void *posed)
{
    Reach *p = posed;
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
    p->start = start;
    p->target = target;
    return scan_char(&s, ':') && *s == 0;
}

/* Reads response = step ("," step)*, at most `steps` of them, each on the value before and with a
 * given digit; the arithmetic is not checked. Returns NULL, or what is wrong. */
static const char *reach_read(const Reach *p, const char *s, Step *step, int *n)
{
    int64_t value = p->start;
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

static Verdict reach_verify(const void *posed, const char *response)
{
    const Reach *p = posed;
    Step step[REACH_STEPS] = {{0}};
    int n;
    const char *fault = reach_read(p, response, step, &n);
    for (int k = 0; !fault && k < n; k++) {
        if (!step_is_true(step[k]))
            fault = "a step's arithmetic is false";
        else if (step[k].c > p->max)
            fault = "a value is above max";
        for (int i = 0; !fault && i <= k; i++) /* the start is the first a */
            if (step[k].c == step[i].a)
                fault = "a value comes twice";
    }
    if (!fault && step[n - 1].c != p->target)
        fault = "the last value is not the target";
    return verdict(fault);
}

/* Steps are their own class, true or not. */
static bool reach_class(const void *posed, const char *response, Buf *out)
{
    Step step[REACH_STEPS];
    int n;
    bool steps = !reach_read(posed, response, step, &n);
    buf_str(out, steps ? response : "");
    return steps;
}

/* The digits, then start and target. */
static Canonical reach_canonical(const void *posed)
{
    const Reach *p = posed;
    Canonical c = {.n = p->digits + 2};
    for (int i = 0; i < p->digits; i++)
        c.value[i] = p->digit[i];
    c.value[p->digits] = p->start;
    c.value[p->digits + 1] = p->target;
    return c;
}


/* Enumerates right responses in a fixed order. */
typedef struct {
    Reach p;
    uint8_t away[REACH_MAX + 1]; /* distance in steps from a value to the target */
    uint8_t last[REACH_MAX + 1]; /* how many single steps lead from a value to the target */
    bool seen[REACH_MAX + 1];
    Step step[REACH_STEPS];
    int wanted; /* right responses to pass over */
} ReachSearch;

/* The values from which + - * with digit d leads to c; -1 where there is none. */
static void reach_before(const Reach *p, int c, int d, int before[3])
{
    before[0] = c - d; /* below zero: none */
    before[1] = c + d <= p->max ? c + d : -1;
    before[2] = c % d == 0 ? c / d : -1;
}

/* Distances up to `steps`, by breadth-first search from the target. */
static void reach_search(const Reach *p, ReachSearch *s)
{
    int queue[REACH_MAX + 1] = {p->target}, n = 1, before[3];
    *s = (ReachSearch){.p = *p};
    memset(s->away, REACH_FAR, sizeof s->away);
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
                s->away[before[k]] = s->away[queue[head]] + 1;
                queue[n++] = before[k];
            }
        }
}

/* Depth-first search from value a over all responses of at most `left` more steps; true where right
 * response number `wanted` is found. Values too far from the target are cut; last steps that are
 * passed over are only counted. Depth: at most the steps. */
static bool reach_find(ReachSearch *s, int a, int left, Step *step)
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

/* The number of right responses of at most `longest` steps (at most 24^6). */
static int reach_count(ReachSearch *s, int longest)
{
    s->wanted = INT_MAX;
    if (s->away[s->p.start] <= longest)
        reach_find(s, s->p.start, longest, s->step);
    return INT_MAX - s->wanted;
}

/* One right response, drawn uniformly; with teacher=shortest, of the shortest. False where there is
 * none, or the shortest is too short. */
static bool reach_solve(const Task *t, const void *posed, Dice *d, Buf *response)
{
    const Reach *p = posed;
    ReachSearch s;
    reach_search(p, &s);
    int shortest = s.away[p->start], n = 0;
    int longest = t->teacher == TEACHER_SHORTEST ? shortest : p->steps;
    int count = shortest <= p->steps && shortest >= p->shortest ? reach_count(&s, longest) : 0;
    if (!count)
        return false;
    s.wanted = dice(d, count);
    reach_find(&s, p->start, longest, s.step);
    while (s.step[n++].c != p->target)
        ;
    write_steps(s.step, n, response);
    return true;
}

/* Digits, start and target, each drawn uniformly. */
static bool reach_draw(const Task *t, Dice *d, void *posed)
{
    Reach *p = posed;
    *p = (Reach){.digits = t->digits, .steps = t->steps, .max = t->max, .shortest = t->shortest};
    for (int digit = 2, n = 0; digit <= 9; digit++) /* n of the digits below are in */
        if (dice(d, 10 - digit) < p->digits - n)
            p->digit[n++] = digit;
    p->start = 1 + dice(d, 9);
    p->target = 10 + dice(d, p->max - 9);
    return true;
}

static bool reach_fits(const Task *t, char *error, size_t size)
{
    return t->shortest <= t->steps ||
           fail(error, size, "task reach: 'shortest=%d': expected at most steps=%d", t->shortest,
                t->steps);
}

#endif
