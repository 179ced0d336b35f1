/* countdown.h: the task `countdown`: a target from given numbers, each used exactly once.
 *
 *   prompt `357>26:`   response `3*7=21,21+5=26` */
#ifndef TASK_COUNTDOWN_H
#define TASK_COUNTDOWN_H

#include "text.h" /* defines: Task, Step, scan_step, dice, Canonical, verdict */

#define COUNTDOWN_OPTIONS(X) \
    X(TASK_COUNTDOWN, numbers, 2, 6, 4, "how many numbers a problem gives") \
    X(TASK_COUNTDOWN, max, 3, 99, 9, "each number is 1 to max; above 9, commas stand between them")

enum { COUNTDOWN_NUMBERS = 6, COUNTDOWN_STEPS = COUNTDOWN_NUMBERS - 1 };

typedef struct {
    int count; /* of numbers; a derivation has count - 1 steps */
    bool commas; /* between the numbers: by the task's max, so that `12>3:` has one meaning */
    int64_t number[COUNTDOWN_NUMBERS], target;
    Step drawn[COUNTDOWN_STEPS]; /* a solution, where the problem was drawn; else op is 0 */
} Countdown;

static void countdown_write(const void *posed, Buf *prompt)
{
    const Countdown *p = posed;
    for (int i = 0; i < p->count; i++)
        buf_printf(prompt, "%s%d", i && p->commas ? "," : "", (int)p->number[i]);
    buf_printf(prompt, ">%d:", (int)p->target);
}

/* prompt = numbers ">" number ":", exactly t->numbers numbers, each in 1..max. */
static bool countdown_read_prompt(const Task *t, const char *s, void *posed)
{
    Countdown *p = posed;
    *p = (Countdown){.count = t->numbers, .commas = t->max > 9};
    for (int i = 0; i < p->count; i++) {
        int64_t *v = &p->number[i];
        if (p->commas) {
            if ((i && !scan_char(&s, ',')) || !scan_number(&s, v))
                return false;
        } else
            *v = *s >= '0' && *s <= '9' ? *s++ - '0' : 0;
        if (*v < 1 || *v > t->max)
            return false;
    }
    return scan_char(&s, '>') && scan_number(&s, &p->target) && scan_char(&s, ':') && *s == 0;
}

/* The values that steps may use: the numbers, then the results in order. */
typedef struct {
    int64_t value[COUNTDOWN_NUMBERS + COUNTDOWN_STEPS];
    bool used[COUNTDOWN_NUMBERS + COUNTDOWN_STEPS];
    int n;
} Pool;

/* Uses a value v; NULL, or what is wrong. */
static const char *pool_take(Pool *pool, int64_t v)
{
    const char *fault = "a step uses a number that is neither given nor a result";
    for (int i = 0; i < pool->n; i++) {
        if (pool->value[i] != v)
            continue;
        if (!pool->used[i]) {
            pool->used[i] = true;
            return NULL;
        }
        fault = "a number is used twice";
    }
    return fault;
}

/* Reads response = step ("," step)*, count - 1 steps, each on two unused values; the arithmetic is
 * not checked. A step takes two values and adds one, so that one is left: the last c. Returns NULL,
 * or what is wrong. */
static const char *countdown_read(const Countdown *p, const char *s, Step *step)
{
    Pool pool = {.n = p->count};
    memcpy(pool.value, p->number, sizeof p->number);
    for (int k = 0; k < p->count - 1; k++) {
        if (k && *s == 0)
            return "too few steps: a number is not used";
        if ((k && !scan_char(&s, ',')) || !scan_step(&s, &step[k]))
            return "a step is not written as number, one of + - * /, number, =, number";
        const char *fault = pool_take(&pool, step[k].a);
        if (!fault)
            fault = pool_take(&pool, step[k].b);
        if (fault)
            return fault;
        pool.value[pool.n++] = step[k].c;
    }
    return *s ? "text after the last step" : NULL;
}

static Verdict countdown_verify(const void *posed, const char *response)
{
    const Countdown *p = posed;
    Step step[COUNTDOWN_STEPS] = {{0}};
    const char *fault = countdown_read(p, response, step);
    for (int k = 0; k < p->count - 1 && !fault; k++)
        if (step[k].op == '/' && step[k].b == 0)
            fault = "a step divides by zero";
        else if (!step_is_true(step[k]))
            fault = "a step's arithmetic is false";
    if (!fault && step[p->count - 2].c != p->target)
        fault = "the last value is not the target";
    return verdict(fault);
}

static Step step_swapped(Step s) { return (Step){.a = s.b, .b = s.a, .c = s.c, .op = s.op}; }

static int by_step(const void *first, const void *second)
{
    const Step *x = first, *y = second;
    int64_t d = x->op != y->op ? x->op - y->op : x->a != y->a ? x->a - y->a
                : x->b != y->b ? x->b - y->b : x->c - y->c;
    return (d > 0) - (d < 0);
}

/* A computation is the set of its steps: the class has them sorted, and the operands of + and *
 * too, so that it is free of the order of writing. All responses of a class are right or all are
 * wrong, as the same steps leave the same last value. False steps and missed targets are classed
 * the same way, so that a vote does not depend on the verifier. */
static bool countdown_class(const void *posed, const char *response, Buf *out)
{
    const Countdown *p = posed;
    Step step[COUNTDOWN_STEPS];
    if (countdown_read(p, response, step))
        return false;
    for (int k = 0; k < p->count - 1; k++) {
        Step s = step[k];
        if ((s.op == '+' || s.op == '*') && s.a > s.b)
            step[k] = step_swapped(s);
    }
    qsort(step, p->count - 1, sizeof *step, by_step);
    write_steps(step, p->count - 1, out);
    return true;
}

/* Bounds on the results of written steps. Generated problems keep to two digits (three where max
 * has two), so that the arithmetic is a small table, which a model of 200,000 parameters can learn;
 * and to at least 1, as 0*x absorbs numbers without using them. The verifier has no such bounds. */
typedef struct {
    int64_t low, high;
} Bounds;

static Bounds countdown_bounds(const Task *t) { return (Bounds){1, t->max > 9 ? 999 : 99}; }

/* The step on x and y by op, the larger first for - and /; false where it would leave a remainder
 * or the bounds. */
static bool step_make(int64_t x, char op, int64_t y, Bounds bounds, Step *out)
{
    bool swap = (op == '-' || op == '/') && x < y;
    int64_t a = swap ? y : x, b = swap ? x : y;
    if (op == '/' && (b == 0 || a % b != 0))
        return false;
    int64_t c = op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b;
    *out = (Step){.a = a, .b = b, .c = c, .op = op};
    return bounds.low <= c && c <= bounds.high;
}

/* Draws numbers, then count - 1 steps: an ordered pair of the values left and one of the operations
 * possible on it, each uniformly. The last result is the target, so that every problem has a
 * solution. False where no operation is possible. */
static bool countdown_draw(const Task *t, Dice *d, void *posed)
{
    Countdown *p = posed;
    Step *step = p->drawn;
    int64_t value[COUNTDOWN_NUMBERS] = {0};
    *p = (Countdown){.count = t->numbers, .commas = t->max > 9};
    for (int i = 0; i < p->count; i++)
        value[i] = p->number[i] = 1 + dice(d, t->max);
    for (int n = p->count; n > 1; n--) {
        int i = dice(d, n), j = dice(d, n - 1), possible = 0;
        j += j >= i;
        Step choice[4];
        for (int o = 0; o < 4; o++)
            possible += step_make(value[i], "+-*/"[o], value[j], countdown_bounds(t),
                                  &choice[possible]);
        if (!possible)
            return false;
        *step = choice[dice(d, possible)];
        value[i] = step++->c;
        value[j] = value[n - 1]; /* if i == n - 1, this moves the result down to j */
    }
    p->target = value[0];
    return true;
}

/* The numbers in rising order, then the target. */
static Canonical countdown_canonical(const void *posed)
{
    const Countdown *p = posed;
    Canonical c = {.n = p->count + 1};
    memcpy(c.value, p->number, sizeof p->number);
    sort_values(c.value, p->count);
    c.value[p->count] = p->target;
    return c;
}

/* Depth-first search over every pair of the n values left and every operation on it, in a random
 * order at each node (Fisher-Yates, as far as needed), so that the first derivation found is a
 * random one. The last step must end on the target. Depth at most 6; six numbers have at most
 * 60*40*24*12 = 691,200 nodes above their last steps. */
static bool countdown_search(Dice *d, const int64_t *value, int n, int64_t target,
                             Bounds bounds, Step *step)
{
    struct {
        Step step;
        int i, j; /* value[i] becomes the result, value[j] goes */
    } move[COUNTDOWN_NUMBERS * (COUNTDOWN_NUMBERS - 1) / 2 * 4];
    int moves = 0;
    if (n == 1)
        return true;
    if (n == 2)
        bounds = (Bounds){target, target};
    for (int i = 1; i < n; i++)
        for (int j = 0; j < i; j++)
            for (const char *op = "+-*/"; *op; op++)
                if (step_make(value[i], *op, value[j], bounds, &move[moves].step)) {
                    move[moves].i = i;
                    move[moves++].j = j;
                }
    for (; moves > 0; moves--) {
        int m = dice(d, moves);
        int64_t rest[COUNTDOWN_NUMBERS];
        memcpy(rest, value, (size_t)n * sizeof *rest);
        *step = move[m].step;
        rest[move[m].i] = step->c;
        rest[move[m].j] = rest[n - 1];
        if ((step->op == '+' || step->op == '*') && dice(d, 2))
            *step = step_swapped(*step);
        if (countdown_search(d, rest, n - 1, target, bounds, step + 1))
            return true;
        move[m] = move[moves - 1];
    }
    return false;
}

/* The drawn solution, or a random one; none where there is none. A prompt from a file may need a
 * zero or a large value on the way: that is tried where the usual bounds fail. */
static bool countdown_solve(const Task *t, const void *posed, Dice *d, Buf *response)
{
    const Countdown *p = posed;
    Step found[COUNTDOWN_STEPS];
    const Bounds bounds[2] = {countdown_bounds(t), {0, TASK_VALUE_MAX}};
    const Step *step = p->drawn->op ? p->drawn : NULL;
    for (int i = 0; i < 2 && !step; i++)
        if (countdown_search(d, p->number, p->count, p->target, bounds[i], found))
            step = found;
    if (step)
        write_steps(step, p->count - 1, response);
    return step != NULL;
}

#endif
