/* task.h: the built-in tasks, generators and verifiers, in one table; task_help describes them.
 *
 *   task_parse, task_spec, task_help        "countdown:numbers=3,max=9" in, out and explained
 *   task_problem(seed, split, index)        a problem and its gold answer
 *   task_problem_from(&draw, ...)           the same from a later draw on, for another one
 *   task_key(prompt)                        equal for two ways of writing one problem
 *   task_of_prompt(kind, prompt)            the task whose problems are written so
 *   task_solution(prompt, seed, index)      one right response, at random among many
 *   task_verify(prompt, response)           right or not, and why
 *   task_answer_class(prompt, response)     equal for two ways of writing one computation
 *
 * A verifier is a parser of a small grammar and evaluates nothing that a policy wrote. The usual
 * shortcut, to allow only certain characters and call eval(), pays for `7**2`, `7//2` and `1.5*2`,
 * and a policy under reinforcement learning finds what pays. Generator and verifier share no
 * arithmetic. Prompts and responses are untrusted bytes: reading them takes no recursion and ends
 * at the first byte that does not belong.
 *
 * Every draw is a philox counter (util.h), so that a problem depends on its arguments alone. Its
 * split is a hash of the problem, not of the seed: no run trains on another run's test. */
#ifndef TASK_H
#define TASK_H

#include "add.h"       /* defines: add_problem, add_verify, ... */
#include "countdown.h" /* defines: countdown_problem, countdown_verify, ... */
#include "maze.h"      /* defines: maze_problem, maze_verify, ... */
#include "reach.h"     /* defines: reach_problem, reach_verify, ... */

/* A task lists its options as X(kind, option, lowest, highest, default, meaning) for a number and
 * W(kind, option, words, meaning) for one of some words, the first by default. */
#define OPTION_NAME(kind, option, low, high, standard, about) " " #option "="
#define WORDS_NAME(kind, option, words, about) " " #option "="
#define OPTION_HELP(kind, option, low, high, standard, about) \
    "    " #option "=" #standard "  (" #low " to " #high ")  " about "\n"
#define WORDS_HELP(kind, option, words, about) "    " #option "=" words "  " about "\n"
#define OPTION_ROW(kind, option, low, high, standard, about) \
    {kind, #option, low, high, standard, offsetof(Task, option), NULL},
#define WORDS_ROW(kind, option, words, about) \
    {kind, #option, 0, 0, 0, offsetof(Task, option), words},

/* A problem of any task, as its prompt poses it. */
typedef union {
    Countdown countdown;
    Add add;
    Maze maze;
    Reach reach;
} Posed;

/* The operations of a task, by TaskKind. `posed` is its member of Posed. */
static const struct {
    const char *name, *options;
    bool (*fits)(const Task *, char *error, size_t); /* NULL: any options go together */
    bool (*read)(const Task *, const char *prompt, void *posed); /* false: no prompt of this task */
    void (*write)(const void *posed, Buf *prompt);
    Canonical (*canonical)(const void *posed);
    bool (*draw)(const Task *, Dice *, void *posed); /* false: draw again; so for solve */
    bool (*solve)(const Task *, const void *posed, Dice *, Buf *response);
    Verdict (*verify)(const void *posed, const char *response);
    bool (*class)(const void *posed, const char *response, Buf *); /* NULL: the response itself */
} TASKS[] = {
    {"countdown", COUNTDOWN_OPTIONS(OPTION_NAME), NULL, countdown_read_prompt, countdown_write,
     countdown_canonical, countdown_draw, countdown_solve, countdown_verify, countdown_class},
    {"add", ADD_OPTIONS(OPTION_NAME), NULL, add_read, add_write, add_canonical, add_draw, add_solve,
     add_verify, NULL},
    {"maze", MAZE_OPTIONS(OPTION_NAME, WORDS_NAME), maze_fits, maze_read_prompt, maze_write,
     maze_canonical, maze_draw, maze_solve, maze_verify, maze_class},
    {"reach", REACH_OPTIONS(OPTION_NAME, WORDS_NAME), reach_fits, reach_read_prompt, reach_write,
     reach_canonical, reach_draw, reach_solve, reach_verify, reach_class},
};

/* The first option of a task determines the length of its prompts. */
static const struct {
    TaskKind kind;
    const char *name;
    int low, high, standard;
    size_t offset;     /* of its int in Task */
    const char *words; /* "a|b": the int is the index of one of them; NULL: it is a number */
} TASK_OPTIONS[] = {COUNTDOWN_OPTIONS(OPTION_ROW) ADD_OPTIONS(OPTION_ROW)
                    MAZE_OPTIONS(OPTION_ROW, WORDS_ROW) REACH_OPTIONS(OPTION_ROW, WORDS_ROW)};

enum {
    N_TASKS = sizeof TASKS / sizeof *TASKS,
    TASK_N_OPTIONS = sizeof TASK_OPTIONS / sizeof *TASK_OPTIONS
};

static const char *task_help(void)
{
    return "countdown[:option=value,...]\n"
           "    Reach the target with every number exactly once, by + - * and / in steps. No step\n"
           "    goes below zero or leaves a remainder. Any right derivation earns the reward.\n"
           COUNTDOWN_OPTIONS(OPTION_HELP)
           "    prompt `357>26:` (with max=99: `3,57,12>26:`), response `3*7=21,21+5=26`\n"
           "add[:option=value]\n"
           "    Add two numbers by columns from the right, carries written out, then the sum.\n"
           ADD_OPTIONS(OPTION_HELP)
           "    prompt `47+85:`, response `7+5=12,4+8+1=13,132`\n"
           "maze[:option=value,...]\n"
           "    Find a way from the top left cell to the bottom right one that enters no cell\n"
           "    twice. The prompt has a digit for each cell, row by row: 1 open to the east, 2 to\n"
           "    the south, 3 both, 0 neither. Moves: 0 east, 1 south, 2 west, 3 north.\n"
           MAZE_OPTIONS(OPTION_HELP, WORDS_HELP)
           "    prompt `312222110:` (size=3), response `0011` or `1100`\n"
           "reach[:option=value,...]\n"
           "    From the start reach the target, each step + - or * one of the digits, which may\n"
           "    be used again. No value twice, none above max or below zero.\n"
           REACH_OPTIONS(OPTION_HELP, WORDS_HELP)
           "    prompt `37,4>26:` (digits=2), response `4*3=12,12+7=19,19+7=26`\n";
}

static int *task_option(Task *t, int option)
{
    return (int *)(void *)((char *)t + TASK_OPTIONS[option].offset);
}

static Task task_standard(TaskKind kind)
{
    Task t = {.kind = kind};
    for (int o = 0; o < TASK_N_OPTIONS; o++)
        if (TASK_OPTIONS[o].kind == kind)
            *task_option(&t, o) = TASK_OPTIONS[o].standard;
    return t;
}

/* Reads one `option=value`; `seen` has a bit for every option read so far. */
static bool task_parse_option(const char **s, Task *t, unsigned *seen, char *error, size_t size)
{
    const char *task = TASKS[t->kind].name, *text = *s;
    size_t n = strcspn(text, "=,");
    int64_t v = 0;
    int o = 0;
    while (o < TASK_N_OPTIONS &&
           (TASK_OPTIONS[o].kind != t->kind || choice_index(TASK_OPTIONS[o].name, text, n)))
        o++;
    if (o == TASK_N_OPTIONS || text[n] != '=')
        return fail(error, size, "task %s cannot read '%.40s'; its options are%s", task, text,
                    TASKS[t->kind].options);
    const char *words = TASK_OPTIONS[o].words;
    int low = TASK_OPTIONS[o].low, high = TASK_OPTIONS[o].high;
    *s += n + 1;
    if (words) {
        v = choice_index(words, *s, strcspn(*s, ","));
        *s += strcspn(*s, ",");
        if (v < 0)
            return fail(error, size, "task %s: '%.40s': expected one of %s", task, text, words);
    } else if (!scan_number(s, &v) || (**s != ',' && **s) || v < low || v > high)
        return fail(error, size, "task %s: '%.40s': expected a whole number from %d to %d", task,
                    text, low, high);
    if (*seen >> o & 1)
        return fail(error, size, "task %s: '%.40s': given twice", task, text);
    *seen |= 1u << o;
    *task_option(t, o) = v;
    return true;
}

/* Reads "add" or "countdown:numbers=3,max=9"; false, with the reason, where it is malformed. */
static bool task_parse(const char *spec, Task *out, char *error, size_t size)
{
    int length = strcspn(spec, ":"), kind = 0;
    while (kind < N_TASKS && choice_index(TASKS[kind].name, spec, length))
        kind++;
    if (kind == N_TASKS)
        return fail(error, size, "unknown task '%.*s'; expected countdown, add, maze or reach",
                    imin(length, 40), spec);
    *out = task_standard((TaskKind)kind);
    const char *s = spec + length;
    unsigned seen = 0;
    while (*s) { /* at the colon, then at each comma */
        s++;
        if (!task_parse_option(&s, out, &seen, error, size))
            return false;
    }
    return !TASKS[kind].fits || TASKS[kind].fits(out, error, size);
}

/* The specification with every option written out: task_parse gives the same task back. */
static void task_spec(const Task *t, Buf *out)
{
    char separator = ':';
    Task copy = *t;
    buf_str(out, TASKS[t->kind].name);
    for (int o = 0; o < TASK_N_OPTIONS; o++) {
        if (TASK_OPTIONS[o].kind != t->kind)
            continue;
        int value = *task_option(&copy, o), n;
        const char *words = TASK_OPTIONS[o].words;
        buf_printf(out, "%c%s=", separator, TASK_OPTIONS[o].name);
        if (words) {
            words = choice_name(words, value, &n);
            buf_add(out, words, n);
        } else
            buf_printf(out, "%d", value);
        separator = ',';
    }
}

/* One draw: appends prompt and gold answer; false where it is no problem of this split. */
static bool task_draw(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    Posed p;
    if (!TASKS[t->kind].draw(t, d, &p))
        return false;
    Canonical c = TASKS[t->kind].canonical(&p);
    if (canonical_split(&c) != split)
        return false;
    size_t before = prompt->n;
    TASKS[t->kind].write(&p, prompt);
    bool solved = TASKS[t->kind].solve(t, &p, d, answer);
    prompt->n = solved ? prompt->n : before;
    return solved;
}

/* Appends prompt and gold answer of problem `index` of the seed's sequence for this split: the
 * first among its draws from number *draw on. Afterwards *draw is the number of the next one. */
static void task_problem_from(uint32_t *draw, const Task *t, uint64_t seed, Split split,
                              uint32_t index, Buf *prompt, Buf *answer)
{
    static const uint32_t use[] = {
        [SPLIT_TRAIN] = DICE_TRAIN, [SPLIT_VALID] = DICE_VALID, [SPLIT_TEST] = DICE_TEST};
    static const char *const names[] = {"training", "validation", "test"};
    bool again = *draw > 0;
    while (*draw < TASK_REDRAWS) {
        Dice d = {.seed = seed, .use = use[split], .index = index, .salt = (*draw)++};
        if (task_draw(t, &d, split, prompt, answer))
            return;
    }
    Buf spec = {0};
    task_spec(t, &spec);
    die("task %s: no %s problem in %d draws%s", spec.s, names[split], (int)TASK_REDRAWS,
        again ? " that is short enough; see --max-prompt and --max-tokens"
              : "; choose a task that has more");
}

static void task_problem(const Task *t, uint64_t seed, Split split, uint32_t index,
                         Buf *prompt, Buf *answer)
{
    uint32_t draw = 0;
    task_problem_from(&draw, t, seed, split, index, prompt, answer);
}

/* Equal for two prompts that pose one problem; 0 for what is no prompt of this task. */
static uint64_t task_key(const Task *t, const char *prompt)
{
    Posed p;
    uint64_t key = 0;
    if (TASKS[t->kind].read(t, prompt, &p)) {
        Canonical c = TASKS[t->kind].canonical(&p);
        key = canonical_hash(&c);
    }
    return key;
}

/* The task of this kind that reads the prompt: the first option is the prompt's, the others are
 * standard. */
static bool task_of_prompt(TaskKind kind, const char *prompt, Task *out)
{
    int o = 0;
    while (TASK_OPTIONS[o].kind != kind)
        o++;
    *out = task_standard(kind);
    for (int v = TASK_OPTIONS[o].low; v <= TASK_OPTIONS[o].high; v++) {
        *task_option(out, o) = v;
        if (task_key(out, prompt))
            return true;
    }
    return false;
}

/* Appends one right response, the same for the same arguments; nothing where the prompt is not a
 * problem of this task or has no solution. */
static void task_solution(const Task *t, const char *prompt, uint64_t seed, uint32_t index,
                          Buf *response)
{
    Posed p;
    Dice d = {.seed = seed, .use = DICE_SOLUTION, .index = index,
              .salt = (uint32_t)hash64(prompt, strlen(prompt))};
    if (TASKS[t->kind].read(t, prompt, &p))
        TASKS[t->kind].solve(t, &p, &d, response);
}

/* The reward: is a response, without its end token, right, and if not, why. */
static Verdict task_verify(const Task *t, const char *prompt, const char *response)
{
    Posed p;
    if (!TASKS[t->kind].read(t, prompt, &p))
        return verdict("the prompt is not a problem of this task");
    return *response ? TASKS[t->kind].verify(&p, response) : verdict("the response is empty");
}

/* Appends the class of a response, for majority votes and for counting distinct answers: two
 * responses are the same answer where their classes are equal. A malformed response is alone in its
 * class, marked by `?`. */
static void task_answer_class(const Task *t, const char *prompt, const char *response, Buf *out)
{
    Posed p;
    bool (*class)(const void *, const char *, Buf *) = TASKS[t->kind].class;
    if (!class)
        buf_str(out, response);
    else if (!TASKS[t->kind].read(t, prompt, &p) || !class(&p, response, out))
        buf_printf(out, "?%s", response);
}

#endif
