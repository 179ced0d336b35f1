/* countdown.h: the task `countdown`: a target from given numbers, each used exactly once.
 *
 *   prompt `357>26:`   response `3*7=21,21+5=26` */
#ifndef TASK_COUNTDOWN_H
#define TASK_COUNTDOWN_H

#include "text.h" /* defines: Task, Step, scan_step, dice, Canonical, verdict */

#define COUNTDOWN_OPTIONS(X) \
    X(TASK_COUNTDOWN, numbers, 2, 6, 4, "how many numbers a problem gives") \
    X(TASK_COUNTDOWN, max, 3, 99, 9, "each number is 1 to max; above 9, commas stand between them")

/* ---------------------------------------------------------------- countdown: the text */

enum { COUNTDOWN_NUMBERS = 6, COUNTDOWN_STEPS = COUNTDOWN_NUMBERS - 1 };

typedef struct {
    int count; /* of numbers; a derivation has count - 1 steps */
    int64_t number[COUNTDOWN_NUMBERS], target;
} Countdown;

/* Single digits run together, larger numbers stand between commas: decided by the task's max and
 * not by the numbers at hand, so that `12>3:` has one meaning. */
static inline bool countdown_commas(const Task *t) { return t->max > 9; }

static inline void countdown_write_prompt(const Task *t, const Countdown *p, Buf *out)
{
    for (int i = 0; i < p->count; i++)
        buf_printf(out, "%s%d", i && countdown_commas(t) ? "," : "", (int)p->number[i]);
    buf_printf(out, ">%d:", (int)p->target);
}

/* prompt = numbers ">" number ":", exactly t->numbers numbers, each in 1..max. */
static inline bool countdown_read_prompt(const Task *t, const char *s, Countdown *p)
{
    *p = (Countdown){.count = t->numbers};
    for (int i = 0; i < p->count; i++) {
        int64_t *v = &p->number[i];
        if (countdown_commas(t)) {
            if ((i && !scan_char(&s, ',')) || !scan_number(&s, v))
                return false;
        } else
            *v = *s >= '0' && *s <= '9' ? *s++ - '0' : 0;
        if (*v < 1 || *v > t->max)
            return false;
    }
    return scan_char(&s, '>') && scan_number(&s, &p->target) && scan_char(&s, ':') && *s == 0;
}

/* ---------------------------------------------------------------- countdown: the verifier */

/* Everything that was ever there to be used: the numbers, then the results in order. */
typedef struct {
    int64_t value[COUNTDOWN_NUMBERS + COUNTDOWN_STEPS];
    bool used[COUNTDOWN_NUMBERS + COUNTDOWN_STEPS];
    int n;
} Pool;

/* Takes one unused v out of the pool; NULL, or what is wrong. */
static inline const char *pool_take(Pool *pool, int64_t v)
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

/* Reads response = step ("," step)*, count - 1 steps, each on two values that are there and not
 * yet used; whether the steps are true is not its business. A step takes two values and leaves
 * one, so the count leaves exactly one value: the last c. Returns NULL, or what is wrong. */
static inline const char *countdown_read(const Countdown *p, const char *s, Step *step)
{
    Pool pool = {.n = p->count};
    memcpy(pool.value, p->number, sizeof p->number);
    if (*s == 0)
        return "the response is empty";
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

static inline Verdict countdown_verify(const Task *t, const char *prompt, const char *response)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS] = {{0}};
    if (!countdown_read_prompt(t, prompt, &p))
        return verdict(NO_PROBLEM);
    const char *fault = countdown_read(&p, response, step);
    for (int k = 0; k < p.count - 1 && !fault; k++)
        if (step[k].op == '/' && step[k].b == 0)
            fault = "a step divides by zero";
        else if (!step_is_true(step[k]))
            fault = "a step's arithmetic is false";
    if (!fault && step[p.count - 2].c != p.target)
        fault = "the last value is not the target";
    return verdict(fault);
}

static inline bool step_before(Step x, Step y)
{
    if (x.op != y.op)
        return x.op < y.op;
    if (x.a != y.a)
        return x.a < y.a;
    return x.b != y.b ? x.b < y.b : x.c < y.c;
}

/* A computation is the set of its steps. The class writes them sorted, with the operands of + and
 * * sorted too: what remains is free of the order of writing. A class is right or wrong as a
 * whole: the same steps leave the same last value. So that a vote never peeks at the verifier,
 * false steps and missed targets are classed the same way; only what is no derivation at all (it
 * does not parse, or uses what is not there) stands for itself, behind a `?`. */
static inline void countdown_class(const Task *t, const char *prompt, const char *response,
                                   Buf *out)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS];
    if (!countdown_read_prompt(t, prompt, &p) || countdown_read(&p, response, step)) {
        buf_str(out, "?");
        buf_str(out, response);
        return;
    }
    for (int k = 0; k < p.count - 1; k++) {
        Step s = step[k];
        if ((s.op == '+' || s.op == '*') && s.a > s.b)
            s = (Step){.a = s.b, .b = s.a, .c = s.c, .op = s.op};
        int j = k;
        for (; j > 0 && step_before(s, step[j - 1]); j--)
            step[j] = step[j - 1];
        step[j] = s;
    }
    write_steps(step, p.count - 1, out);
}

/* ---------------------------------------------------------------- countdown: the generator */

/* Values that a written step may end on. Generated problems keep to two digits (three where max
 * has two): the text stays short and the arithmetic a small table, which is what lets a model of
 * 200,000 parameters learn it. Zero is left out, as 0*x absorbs numbers without using them. The
 * verifier knows none of this. */
typedef struct {
    int64_t low, high;
} Bounds;

static inline Bounds countdown_bounds(const Task *t)
{
    return (Bounds){1, countdown_commas(t) ? 999 : 99};
}

/* The step that joins x and y by op, the larger first where the order matters; false where it
 * would leave a remainder or the bounds. */
static inline bool step_make(int64_t x, char op, int64_t y, Bounds bounds, Step *out)
{
    bool swap = (op == '-' || op == '/') && x < y;
    int64_t a = swap ? y : x, b = swap ? x : y;
    if (op == '/' && (b == 0 || a % b != 0))
        return false;
    int64_t c = op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b;
    *out = (Step){.a = a, .b = b, .c = c, .op = op};
    return bounds.low <= c && c <= bounds.high;
}

/* Draws numbers and then steps, count - 1 of them: an ordered pair of the values left, and one of
 * the operations that are possible on it, each with the same chance. Where the steps end is the
 * target, so every problem has a solution. False where no operation is possible (then all is drawn
 * again). */
static inline bool countdown_draw(const Task *t, Dice *d, Countdown *p, Step *step)
{
    int64_t value[COUNTDOWN_NUMBERS] = {0};
    *p = (Countdown){.count = t->numbers};
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
        value[j] = value[n - 1]; /* right for i == n - 1 as well: the result moves down to j */
    }
    p->target = value[0];
    return true;
}

/* The numbers in rising order, then the target. */
static inline Canonical countdown_sorted(const Countdown *p)
{
    Canonical c = {.n = p->count + 1};
    memcpy(c.value, p->number, sizeof p->number);
    sort_values(c.value, p->count);
    c.value[p->count] = p->target;
    return c;
}

static inline bool countdown_canonical(const Task *t, const char *prompt, Canonical *out)
{
    Countdown p;
    if (!countdown_read_prompt(t, prompt, &p))
        return false;
    *out = countdown_sorted(&p);
    return true;
}

/* Depth first through every pair of the n values left and every operation on it, in an order that
 * is drawn anew at each node (Fisher and Yates, as far as needed), so that the first derivation
 * found is a random one. The last step is made only where it ends on the target. Depth at most 6;
 * six numbers have at most 60*40*24*12 = 691,200 nodes above their last steps. */
static inline bool countdown_search(Dice *d, const int64_t *value, int n, int64_t target,
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
            *step = (Step){.a = step->b, .b = step->a, .c = step->c, .op = step->op};
        if (countdown_search(d, rest, n - 1, target, bounds, step + 1))
            return true;
        move[m] = move[moves - 1];
    }
    return false;
}

/* Nothing is written for a prompt that is no problem or has no solution. A prompt from elsewhere
 * may need a zero or a large value on the way: that is tried where the usual bounds fail. */
static inline void countdown_solution(const Task *t, const char *prompt, Dice *d, Buf *response)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS];
    if (!countdown_read_prompt(t, prompt, &p))
        return;
    Bounds usual = countdown_bounds(t), any = {0, TASK_VALUE_MAX};
    if (countdown_search(d, p.number, p.count, p.target, usual, step)
        || countdown_search(d, p.number, p.count, p.target, any, step))
        write_steps(step, p.count - 1, response);
}

static inline bool countdown_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS];
    if (!countdown_draw(t, d, &p, step))
        return false;
    Canonical c = countdown_sorted(&p);
    if (canonical_split(&c) != split)
        return false;
    countdown_write_prompt(t, &p, prompt);
    write_steps(step, p.count - 1, answer);
    return true;
}

#endif
