/* text.h: what all tasks are made of: the bytes they are written in, steps, dice, the split.
 *
 *   scan_char, scan_number, scan_step      read, and stop at the first byte that does not belong
 *   step_is_true, write_steps              a op b = c
 *   dice(&d, n)                            a number in [0, n), drawn
 *   canonical_hash, canonical_split        a problem, free of how it is written; where it belongs
 *   verdict(fault)                         NULL: right */
#ifndef TASK_TEXT_H
#define TASK_TEXT_H

#include "../base/util.h" /* defines: Buf, philox, hash64 */

/* Every character of every prompt and response; the vocabulary of the built-in tasks is the end
 * token (id 0) and these (ids 1 to 18). */
#define TASK_ALPHABET "0123456789+-*/=,>:"

/* No prompt or response that is written here is longer, its NUL counted. The longest prompt is a
 * maze of 49 cells: 51 (of countdown, six numbers of two digits and a target of three: 23). The
 * longest response is countdown's, five steps on numbers of nine digits: 150 (for a prompt from
 * elsewhere; those of our own problems end before 64, those of `add` with nine digits at 92, those
 * of `reach` at 60, a maze's 48 moves at 49). */
enum { TASK_PROMPT_MAX = 52, TASK_RESPONSE_MAX = 160 };

typedef enum { TASK_COUNTDOWN, TASK_ADD, TASK_MAZE, TASK_REACH } TaskKind;

/* Which of several right responses the supervised corpus draws: any, or a shortest one. */
typedef enum { TEACHER_UNIFORM, TEACHER_SHORTEST } Teaching;
#define TEACHERS "uniform|shortest" /* by Teaching */

typedef struct {
    TaskKind kind;
    int numbers;         /* countdown */
    int max;             /* countdown, reach */
    int digits;          /* add, reach */
    int size, loops;     /* maze */
    int steps, shortest; /* reach */
    int teacher;         /* maze, reach: a Teaching */
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

static inline Verdict verdict(const char *fault)
{
    return (Verdict){.right = !fault, .reason = fault ? fault : "right"};
}

/* The reason of every task for a prompt that it cannot read. */
#define NO_PROBLEM "the prompt is not a problem of this task"

/* ---------------------------------------------------------------- steps */

typedef struct {
    int64_t a, b, c;
    char op;
} Step; /* a op b = c */

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

static inline void write_steps(const Step *step, int n, Buf *out)
{
    for (int k = 0; k < n; k++)
        buf_printf(out, "%s%d%c%d=%d", k ? "," : "", (int)step[k].a, step[k].op, (int)step[k].b,
                   (int)step[k].c);
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
 * validation and test. (Of countdown's 2,144 problems of three digits, 254 are held out; four
 * digits make about 23,000 problems, five over 100,000. reach with 7 of 8 digits has 6,480.) */
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

#endif
