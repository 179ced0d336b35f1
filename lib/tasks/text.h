/* text.h: what the tasks have in common: their text, steps, random draws, the split.
 *
 *   scan_char, scan_number, scan_step      read, and stop at the first byte that does not belong
 *   step_is_true, write_steps              a op b = c
 *   dice(&d, n)                            a random number in [0, n)
 *   canonical_hash, canonical_split        a problem in canonical form; its split
 *   verdict(fault)                         NULL: right */
#ifndef TASK_TEXT_H
#define TASK_TEXT_H

#include "../base/util.h" /* defines: Buf, philox, hash64 */

/* Every character of every prompt and response; the vocabulary of the built-in tasks is the end
 * token (id 0) and these (ids 1 to 18). */
#define TASK_ALPHABET "0123456789+-*/=,>:"

/* Bounds on what the tasks write, NUL included. The longest prompt is a maze of 49 cells: 51. The
 * longest response is countdown's, five steps on numbers of nine digits: 150 (of its own problems
 * below 64; add 92, reach 60, maze 49). */
enum { TASK_PROMPT_MAX = 52, TASK_RESPONSE_MAX = 160 };

typedef enum { TASK_COUNTDOWN, TASK_ADD, TASK_MAZE, TASK_REACH } TaskKind;

/* Which right response sft shows: any, or a shortest one. */
typedef enum { TEACHER_UNIFORM, TEACHER_SHORTEST } Teaching;
#define TEACHERS "uniform|shortest" /* by Teaching */

typedef struct {
    TaskKind kind;
    int numbers;         /* countdown */
    int max;             /* countdown, reach */
    int digits;          /* add, reach */
    int size, loops;     /* maze */
    int spellings;       /* maze */
    int steps, shortest; /* reach */
    int teacher;         /* maze, reach: a Teaching */
} Task;

/* Settings are searched on `valid` and reported on `test`. */
typedef enum { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST } Split;
#define SPLITS "train|valid|test" /* by Split */

typedef struct {
    bool right;
    const char *reason; /* a static string; "right" where it is */
} Verdict;

/* Numbers have at most nine digits, so that a sum or product of two fits int64_t. */
enum { TASK_VALUE_DIGITS = 9, TASK_VALUE_MAX = 999999999 };

static bool scan_char(const char **s, char c)
{
    if (**s != c)
        return false;
    ++*s;
    return true;
}

/* number = "0" | nonzero digit*, at most nine digits: no sign, no space, no leading zero. */
static bool scan_number(const char **s, int64_t *value)
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

static Verdict verdict(const char *fault)
{
    return (Verdict){.right = !fault, .reason = fault ? fault : "right"};
}


typedef struct {
    int64_t a, b, c;
    char op;
} Step; /* a op b = c */

/* step = number op number "=" number */
static bool scan_step(const char **s, Step *step)
{
    if (!scan_number(s, &step->a) || !**s || !strchr("+-*/", **s))
        return false;
    step->op = *(*s)++;
    return scan_number(s, &step->b) && scan_char(s, '=') && scan_number(s, &step->c);
}

/* a op b = c, for a, b, c in 0..999999999, by identities in whole numbers of at most 10^18: `-`
 * cannot go below zero, `/` cannot leave a remainder. */
static bool step_is_true(Step s)
{
    switch (s.op) {
    case '+': return s.a + s.b == s.c;
    case '-': return s.a == s.b + s.c;
    case '*': return s.a * s.b == s.c;
    case '/': return s.b != 0 && s.a == s.b * s.c;
    default: return false;
    }
}

static void write_steps(const Step *step, int n, Buf *out)
{
    for (int k = 0; k < n; k++)
        buf_printf(out, "%s%d%c%d=%d", k ? "," : "", (int)step[k].a, step[k].op, (int)step[k].b,
                   (int)step[k].c);
}

/* A sequence of draws, determined by (seed, use, index, salt); four to a philox block. */
typedef struct {
    uint64_t seed;
    uint32_t use, index, salt, block;
    int left; /* words of `random` not yet used */
    Random random;
} Dice;

enum { DICE_TRAIN, DICE_TEST, DICE_SOLUTION, DICE_VALID };

/* A whole number in [0, n): the high word of a product, uniform to within n in 2^32. */
static int dice(Dice *d, int n)
{
    if (d->left == 0) {
        d->random = philox(d->seed, STREAM_DATA, d->use, d->index, d->salt, d->block++);
        d->left = 4;
    }
    return (int)((uint64_t)d->random.r[--d->left] * (uint32_t)n >> 32);
}

/* A hash of its canonical form holds out one problem in HELD_OUT_ONE_IN, so that all ways of
 * writing a problem are in one split. A second hash halves these into validation and test. (Of
 * countdown's 2,144 problems of three digits, 254 are held out; four digits make about 23,000
 * problems, five over 100,000. reach with 7 of 8 digits has 6,480.) */
enum { HELD_OUT_ONE_IN = 8, TASK_REDRAWS = 100000, CANONICAL_MAX = 64 };

/* A problem as numbers, the same for every way of writing it. */
typedef struct {
    int64_t value[CANONICAL_MAX];
    int n;
} Canonical;

static uint64_t canonical_hash(const Canonical *c)
{
    return hash64(c->value, (size_t)c->n * sizeof *c->value);
}

static Split canonical_split(const Canonical *c)
{
    uint64_t hash = canonical_hash(c);
    if (hash % HELD_OUT_ONE_IN)
        return SPLIT_TRAIN;
    return hash64(&hash, sizeof hash) >> 20 & 1 ? SPLIT_TEST : SPLIT_VALID;
}

static void sort_values(int64_t *v, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && v[j] < v[j - 1]; j--) {
            int64_t swap = v[j];
            v[j] = v[j - 1];
            v[j - 1] = swap;
        }
}

#endif
