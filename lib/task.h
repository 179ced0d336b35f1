/* task.h: the built-in tasks: generators and verifiers. (Who else gives rewards: judge.h.)
 *
 *   countdown   prompt `357>26:`   response `3*7=21,21+5=26`
 *               use every number exactly once, step by step, and end on the target
 *   add         prompt `47+85:`    response `7+5=12,4+8+1=13,132`
 *               the columns from the right, a carry written as +1, then the sum
 *
 *   task_parse, task_spec, task_help        "countdown:numbers=3,max=9" in, out and explained
 *   task_problem(seed, split, index)        a problem and its gold answer
 *   task_key(prompt)                        equal for two ways of writing one problem
 *   task_solution(prompt, seed, index)      one right response, at random among many
 *   task_verify(prompt, response)           right or not, and why
 *   task_answer_class(prompt, response)     equal for two ways of writing one computation
 *
 * A verifier here is a parser of a small grammar; it evaluates nothing that a policy wrote. The
 * usual shortcut, to allow only certain characters and call eval(), pays for `7**2`, `7//2` and
 * `1.5*2`, and a policy under reinforcement learning finds what pays. Generator and verifier share
 * no arithmetic: the one makes numbers, the other checks identities.
 *
 * Prompts and responses are untrusted bytes: reading them takes no recursion and no allocation,
 * and ends at the first byte that does not belong.
 *
 * Every draw is a philox counter (util.h), so a problem depends on its arguments alone. Whether a
 * problem is for training, validation or test is decided by a hash of the problem itself, not by a
 * seed: no run, whatever its seed, trains on another run's test. */
#ifndef TASK_H
#define TASK_H

#include "util.h" /* defines: Buf, philox, hash64, die */

/* Every character of every prompt and response; the vocabulary of the built-in tasks is the end
 * token (id 0) and these (ids 1 to 18). */
#define TASK_ALPHABET "0123456789+-*/=,>:"

/* No prompt or response that is written here is longer, its NUL counted. The longest prompt has
 * six numbers of two digits and a target of three: 23. The longest response has five steps on
 * numbers of nine digits: 150 (for a prompt from elsewhere; those of our own problems end before
 * 64, those of `add` with nine digits at 92). */
enum { TASK_PROMPT_MAX = 32, TASK_RESPONSE_MAX = 160 };

typedef enum { TASK_COUNTDOWN, TASK_ADD } TaskKind;

typedef struct {
    TaskKind kind;
    int numbers, max; /* countdown */
    int digits;       /* add */
} Task;

/* Where a problem belongs. What was searched for on `valid` is reported on `test`. */
typedef enum { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST } Split;
#define SPLITS "train|valid|test" /* by Split */

typedef struct {
    bool right;
    const char *reason; /* a static string; "right" where it is */
} Verdict;

/* ---------------------------------------------------------------- reading bytes */

/* The largest number that is read or written: nine digits, so that a sum or a product of two
 * stays far inside int64_t and no check can overflow. */
enum { TASK_VALUE_DIGITS = 9, TASK_VALUE_MAX = 999999999 };

static inline bool scan_char(const char **s, char c)
{
    if (**s != c)
        return false;
    ++*s;
    return true;
}

/* number = "0" | nonzero digit*, at most nine digits: no sign, no space, no leading zero. */
static inline bool scan_number(const char **s, int64_t *value)
{
    const char *start = *s;
    *value = 0;
    for (; **s >= '0' && **s <= '9'; ++*s) {
        if (*s - start == TASK_VALUE_DIGITS)
            return false;
        *value = *value * 10 + (**s - '0');
    }
    return *s > start && (*start != '0' || *s == start + 1);
}

/* ---------------------------------------------------------------- task specifications */

/* X(kind, option, lowest, highest, default, meaning): the one list that the parser, the canonical
 * specification and the help text are made of. */
#define COUNTDOWN_OPTIONS(X) \
    X(TASK_COUNTDOWN, numbers, 2, 6, 4, "how many numbers a problem gives") \
    X(TASK_COUNTDOWN, max, 3, 99, 9, "each number is 1 to max; above 9, commas stand between them")
#define ADD_OPTIONS(X) X(TASK_ADD, digits, 1, 9, 2, "how many digits both numbers have")

#define OPTION_NAME(kind, option, low, high, standard, about) " " #option "="
#define OPTION_HELP(kind, option, low, high, standard, about) \
    "    " #option "=" #standard "  (" #low " to " #high ")  " about "\n"
#define OPTION_ROW(kind, option, low, high, standard, about) \
    {kind, #option, low, high, standard, offsetof(Task, option)},

static const struct {
    const char *name, *options;
} TASK_NAMES[] = { /* by TaskKind */
    {"countdown", COUNTDOWN_OPTIONS(OPTION_NAME)},
    {"add", ADD_OPTIONS(OPTION_NAME)},
};

static const struct {
    TaskKind kind;
    const char *name;
    int low, high, standard;
    size_t offset; /* of its int in Task */
} TASK_OPTIONS[] = {COUNTDOWN_OPTIONS(OPTION_ROW) ADD_OPTIONS(OPTION_ROW)};

enum {
    TASK_N_NAMES = sizeof TASK_NAMES / sizeof *TASK_NAMES,
    TASK_N_OPTIONS = sizeof TASK_OPTIONS / sizeof *TASK_OPTIONS
};

static inline const char *task_help(void)
{
    return "countdown[:option=value,...]\n"
           "    Reach the target with every number exactly once, by + - * and / in steps. No step\n"
           "    goes below zero or leaves a remainder. Any right derivation earns the reward.\n"
           COUNTDOWN_OPTIONS(OPTION_HELP)
           "    prompt `357>26:` (with max=99: `3,57,12>26:`), response `3*7=21,21+5=26`\n"
           "add[:option=value]\n"
           "    Add two numbers by columns from the right, carries written out, then the sum.\n"
           ADD_OPTIONS(OPTION_HELP)
           "    prompt `47+85:`, response `7+5=12,4+8+1=13,132`\n";
}

static inline int *task_option(Task *t, int option)
{
    return (int *)(void *)((char *)t + TASK_OPTIONS[option].offset);
}

/* The task's option that the first n bytes of s name; TASK_N_OPTIONS where there is none. */
static inline int task_find_option(TaskKind kind, const char *s, size_t n)
{
    int o = 0;
    while (o < TASK_N_OPTIONS && (TASK_OPTIONS[o].kind != kind || strlen(TASK_OPTIONS[o].name) != n
                                  || memcmp(TASK_OPTIONS[o].name, s, n)))
        o++;
    return o;
}

/* Reads one `option=value` of a specification; `seen` has a bit for every option read so far. */
static inline bool task_parse_option(const char **s, Task *t, unsigned *seen, char *error,
                                     size_t error_size)
{
    const char *task = TASK_NAMES[t->kind].name, *text = *s;
    size_t n = strcspn(text, "=,");
    int o = task_find_option(t->kind, text, n);
    if (o == TASK_N_OPTIONS || text[n] != '=') {
        snprintf(error, error_size, "task %s cannot read '%.40s'; its options are%s", task, text,
                 TASK_NAMES[t->kind].options);
        return false;
    }
    int low = TASK_OPTIONS[o].low, high = TASK_OPTIONS[o].high;
    int64_t value;
    *s += n + 1;
    bool whole = scan_number(s, &value) && (**s == ',' || **s == 0);
    if (!whole || value < low || value > high) {
        snprintf(error, error_size, "task %s: '%.40s': expected a whole number from %d to %d", task,
                 text, low, high);
        return false;
    }
    if (*seen >> o & 1) {
        snprintf(error, error_size, "task %s: '%.40s': given twice", task, text);
        return false;
    }
    *seen |= 1u << o;
    *task_option(t, o) = (int)value;
    return true;
}

/* Reads "add" or "countdown:numbers=3,max=9"; false and one line in `error` where it is not so. */
static inline bool task_parse(const char *spec, Task *out, char *error, size_t error_size)
{
    size_t length = strcspn(spec, ":");
    int kind = 0;
    while (kind < TASK_N_NAMES && (strlen(TASK_NAMES[kind].name) != length
                                   || memcmp(TASK_NAMES[kind].name, spec, length)))
        kind++;
    if (kind == TASK_N_NAMES) {
        snprintf(error, error_size, "unknown task '%.*s'; expected countdown or add",
                 length < 40 ? (int)length : 40, spec);
        return false;
    }
    *out = (Task){.kind = (TaskKind)kind};
    for (int o = 0; o < TASK_N_OPTIONS; o++)
        *task_option(out, o) = TASK_OPTIONS[o].standard;
    const char *s = spec + length;
    unsigned seen = 0;
    while (*s) { /* at the colon, then at each comma */
        s++;
        if (!task_parse_option(&s, out, &seen, error, error_size))
            return false;
    }
    return true;
}

/* The specification with every option written out: task_parse gives the same task back. */
static inline void task_spec(const Task *t, Buf *out)
{
    char separator = ':';
    Task copy = *t;
    buf_str(out, TASK_NAMES[t->kind].name);
    for (int o = 0; o < TASK_N_OPTIONS; o++)
        if (TASK_OPTIONS[o].kind == t->kind) {
            buf_printf(out, "%c%s=%d", separator, TASK_OPTIONS[o].name, *task_option(&copy, o));
            separator = ',';
        }
}

/* ---------------------------------------------------------------- dice */

/* A sequence of draws that is named by (seed, use, index, salt), four to a philox block. */
typedef struct {
    uint64_t seed;
    uint32_t use, index, salt, block;
    int left; /* words of `random` not yet used */
    Random random;
} Dice;

enum { DICE_TRAIN, DICE_TEST, DICE_SOLUTION, DICE_VALID };

/* A whole number in [0, n): the high word of a product, even to within n in 2^32. */
static inline int dice(Dice *d, int n)
{
    if (d->left == 0) {
        d->random = philox(d->seed, STREAM_DATA, d->use, d->index, d->salt, d->block++);
        d->left = 4;
    }
    return (int)((uint64_t)d->random.r[--d->left] * (uint32_t)n >> 32);
}

/* One problem in HELD_OUT_ONE_IN is held out, by a hash of its canonical form: what is written in
 * another order is the same problem and falls on the same side. A second hash halves these into
 * validation and test. (Of countdown's 2,144 problems of three digits, 254 are held out; four digits
 * make about 23,000 problems, five over 100,000.) */
enum { HELD_OUT_ONE_IN = 8, TASK_REDRAWS = 100000, CANONICAL_MAX = 64 };

/* A problem as numbers, the same for every way of writing it. */
typedef struct {
    int64_t value[CANONICAL_MAX];
    int n;
} Canonical;

static inline uint64_t canonical_hash(const Canonical *c)
{
    return hash64(c->value, (size_t)c->n * sizeof *c->value);
}

static inline Split canonical_split(const Canonical *c)
{
    uint64_t hash = canonical_hash(c);
    if (hash % HELD_OUT_ONE_IN)
        return SPLIT_TRAIN;
    return hash64(&hash, sizeof hash) >> 20 & 1 ? SPLIT_TEST : SPLIT_VALID;
}

static inline void sort_values(int64_t *v, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && v[j] < v[j - 1]; j--) {
            int64_t swap = v[j];
            v[j] = v[j - 1];
            v[j - 1] = swap;
        }
}

/* ---------------------------------------------------------------- countdown: the text */

enum { COUNTDOWN_NUMBERS = 6, COUNTDOWN_STEPS = COUNTDOWN_NUMBERS - 1 };

typedef struct {
    int count; /* of numbers; a derivation has count - 1 steps */
    int64_t number[COUNTDOWN_NUMBERS], target;
} Countdown;

typedef struct {
    int64_t a, b, c;
    char op;
} Step; /* a op b = c */

/* Single digits run together, larger numbers stand between commas: decided by the task's max and
 * not by the numbers at hand, so that `12>3:` has one meaning. */
static inline bool countdown_commas(const Task *t) { return t->max > 9; }

static inline void countdown_write_prompt(const Task *t, const Countdown *p, Buf *out)
{
    for (int i = 0; i < p->count; i++)
        buf_printf(out, "%s%d", i && countdown_commas(t) ? "," : "", (int)p->number[i]);
    buf_printf(out, ">%d:", (int)p->target);
}

static inline void countdown_write_steps(const Step *step, int n, Buf *out)
{
    for (int k = 0; k < n; k++)
        buf_printf(out, "%s%d%c%d=%d", k ? "," : "", (int)step[k].a, step[k].op, (int)step[k].b,
                   (int)step[k].c);
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

/* step = number op number "=" number */
static inline bool scan_step(const char **s, Step *step)
{
    if (!scan_number(s, &step->a))
        return false;
    step->op = **s;
    if (step->op != '+' && step->op != '-' && step->op != '*' && step->op != '/')
        return false;
    ++*s;
    return scan_number(s, &step->b) && scan_char(s, '=') && scan_number(s, &step->c);
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

/* Whether a op b is c, for a, b, c in 0..999999999: identities in whole numbers, at most 10^18.
 * As c has no sign, `-` cannot go below zero; as c is whole, `/` cannot leave a remainder. */
static inline bool step_is_true(Step s)
{
    switch (s.op) {
    case '+': return s.a + s.b == s.c;
    case '-': return s.a == s.b + s.c;
    case '*': return s.a * s.b == s.c;
    case '/': return s.b != 0 && s.a == s.b * s.c;
    default: return false;
    }
}

static inline Verdict verdict(const char *fault)
{
    return (Verdict){.right = !fault, .reason = fault ? fault : "right"};
}

static inline Verdict countdown_verify(const Task *t, const char *prompt, const char *response)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS] = {{0}};
    if (!countdown_read_prompt(t, prompt, &p))
        return verdict("the prompt is not a problem of this task");
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
    countdown_write_steps(step, p.count - 1, out);
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
static inline Canonical countdown_canonical(const Countdown *p)
{
    Canonical c = {.n = p->count + 1};
    memcpy(c.value, p->number, sizeof p->number);
    sort_values(c.value, p->count);
    c.value[p->count] = p->target;
    return c;
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
        countdown_write_steps(step, p.count - 1, response);
}

static inline bool countdown_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    Countdown p;
    Step step[COUNTDOWN_STEPS];
    if (!countdown_draw(t, d, &p, step))
        return false;
    Canonical c = countdown_canonical(&p);
    if (canonical_split(&c) != split)
        return false;
    countdown_write_prompt(t, &p, prompt);
    countdown_write_steps(step, p.count - 1, answer);
    return true;
}

/* ---------------------------------------------------------------- add */

/* prompt = number "+" number ":", both of exactly t->digits digits. */
static inline bool add_read_prompt(const Task *t, const char *s, int64_t *a, int64_t *b)
{
    const char *start = s;
    if (!scan_number(&s, a) || s - start != t->digits || !scan_char(&s, '+'))
        return false;
    start = s;
    return *a > 0 && scan_number(&s, b) && s - start == t->digits && *b > 0 && scan_char(&s, ':')
           && *s == 0;
}

/* The one derivation of a + b (which have equally many digits) into text[TASK_RESPONSE_MAX]: at
 * most nine columns of nine characters and a sum of ten. */
static inline void add_derivation(int64_t a, int64_t b, char *text)
{
    int64_t total = a + b;
    size_t n = 0;
    for (int carry = 0; a > 0; a /= 10, b /= 10) {
        int x = (int)(a % 10), y = (int)(b % 10), sum = x + y + carry;
        n += (size_t)snprintf(text + n, TASK_RESPONSE_MAX - n, "%d+%d%s=%d,", x, y,
                              carry ? "+1" : "", sum);
        carry = sum / 10;
    }
    snprintf(text + n, TASK_RESPONSE_MAX - n, "%lld", (long long)total);
}

/* There is one right text; the first byte that differs from it says what went wrong. */
static inline Verdict add_verify(const Task *t, const char *prompt, const char *response)
{
    int64_t a, b;
    char right[TASK_RESPONSE_MAX];
    if (!add_read_prompt(t, prompt, &a, &b))
        return verdict("the prompt is not a problem of this task");
    if (*response == 0)
        return verdict("the response is empty");
    add_derivation(a, b, right);
    size_t same = 0, sum_at = (size_t)(strrchr(right, ',') + 1 - right);
    while (right[same] && right[same] == response[same])
        same++;
    if (right[same] == 0)
        return verdict(response[same] ? "text after the sum" : NULL);
    if (response[same] == 0)
        return verdict("the response ends before the sum");
    if (same >= sum_at)
        return verdict("the sum is false");
    size_t column = same;
    while (column > 0 && right[column - 1] != ',' && right[column - 1] != '=')
        column--;
    if (column > 0 && right[column - 1] == '=')
        return verdict("a column's arithmetic is false");
    return verdict("a column has other digits or another carry than the numbers");
}

static inline Canonical add_canonical(int64_t a, int64_t b)
{
    return (Canonical){.value = {a < b ? a : b, a < b ? b : a}, .n = 2};
}

static inline bool add_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    int64_t number[2] = {0};
    for (int k = 0; k < 2 * t->digits; k++) /* the first digit of each is not zero */
        number[k % 2] = number[k % 2] * 10 + (k < 2 ? 1 + dice(d, 9) : dice(d, 10));
    Canonical c = add_canonical(number[0], number[1]);
    if (canonical_split(&c) != split)
        return false;
    char text[TASK_RESPONSE_MAX];
    add_derivation(number[0], number[1], text);
    buf_printf(prompt, "%d+%d:", (int)number[0], (int)number[1]);
    buf_str(answer, text);
    return true;
}

static inline void add_solution(const Task *t, const char *prompt, Buf *response)
{
    int64_t a, b;
    char text[TASK_RESPONSE_MAX];
    if (!add_read_prompt(t, prompt, &a, &b))
        return;
    add_derivation(a, b, text);
    buf_str(response, text);
}

/* ---------------------------------------------------------------- the interface */

/* Problem `index` of the seed's sequence for this split: drawn, and drawn again until it falls
 * there. Prompt and gold answer are added to the two buffers. */
static inline void task_problem(const Task *t, uint64_t seed, Split split, uint32_t index,
                                Buf *prompt, Buf *answer)
{
    static const uint32_t use[] = {
        [SPLIT_TRAIN] = DICE_TRAIN, [SPLIT_VALID] = DICE_VALID, [SPLIT_TEST] = DICE_TEST};
    static const char *const names[] = {"training", "validation", "test"};
    for (uint32_t draw = 0; draw < TASK_REDRAWS; draw++) {
        Dice d = {.seed = seed, .use = use[split], .index = index, .salt = draw};
        if (t->kind == TASK_COUNTDOWN ? countdown_problem(t, &d, split, prompt, answer)
                                      : add_problem(t, &d, split, prompt, answer))
            return;
    }
    Buf spec = {0};
    task_spec(t, &spec);
    die("task %s: no %s problem in %d draws; choose more or larger numbers", spec.s, names[split],
        (int)TASK_REDRAWS);
}

/* The same for two prompts that pose one problem; 0 for what is no prompt of this task. */
static inline uint64_t task_key(const Task *t, const char *prompt)
{
    Canonical c = {.n = 0};
    Countdown p;
    int64_t a, b;
    if (t->kind == TASK_COUNTDOWN && countdown_read_prompt(t, prompt, &p))
        c = countdown_canonical(&p);
    else if (t->kind == TASK_ADD && add_read_prompt(t, prompt, &a, &b))
        c = add_canonical(a, b);
    return c.n ? canonical_hash(&c) : 0;
}

/* Adds one right response to the buffer, the same for the same arguments; nothing where the
 * prompt is not a problem of this task or has no solution. */
static inline void task_solution(const Task *t, const char *prompt, uint64_t seed, uint32_t index,
                                 Buf *response)
{
    Dice d = {.seed = seed, .use = DICE_SOLUTION, .index = index,
              .salt = (uint32_t)hash64(prompt, strlen(prompt))};
    if (t->kind == TASK_COUNTDOWN)
        countdown_solution(t, prompt, &d, response);
    else
        add_solution(t, prompt, response);
}

/* The reward: whether a response, without its end token, is right, and if not, why. */
static inline Verdict task_verify(const Task *t, const char *prompt, const char *response)
{
    return t->kind == TASK_COUNTDOWN ? countdown_verify(t, prompt, response)
                                     : add_verify(t, prompt, response);
}

/* Adds the class of a response, for majority votes and for counting distinct answers: two
 * responses are the same answer where their classes are equal. */
static inline void task_answer_class(const Task *t, const char *prompt, const char *response,
                                     Buf *out)
{
    if (t->kind == TASK_COUNTDOWN)
        countdown_class(t, prompt, response, out);
    else
        buf_str(out, response); /* there is one right text */
}

#endif
