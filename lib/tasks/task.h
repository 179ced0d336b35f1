/* task.h: the built-in tasks: generators and verifiers. (Who else gives rewards: judge.h.)
 *
 *   countdown   prompt `357>26:`   response `3*7=21,21+5=26`
 *               use every number exactly once, step by step, and end on the target
 *   add         prompt `47+85:`    response `7+5=12,4+8+1=13,132`
 *               the columns from the right, a carry written as +1, then the sum
 *   maze        prompt `1210:`     response `01`
 *               a way from the top left cell to the bottom right one that enters no cell twice
 *   reach       prompt `37,4>26:`  response `4*3=12,12+7=19,19+7=26`
 *               from the start to the target by steps with the digits, no value twice
 *
 *   task_parse, task_spec, task_help        "countdown:numbers=3,max=9" in, out and explained
 *   task_problem(seed, split, index)        a problem and its gold answer
 *   task_key(prompt)                        equal for two ways of writing one problem
 *   task_of_prompt(kind, prompt)            the task whose problems are written so
 *   task_solution(prompt, seed, index)      one right response, at random among many
 *   task_verify(prompt, response)           right or not, and why
 *   task_answer_class(prompt, response)     equal for two ways of writing one computation
 *
 * Here are their options, and one table of what each task can do; a task has a file of its own,
 * task/NAME.h, and task/text.h is what these have in common.
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

#include "add.h"       /* defines: add_problem, add_verify, ... */
#include "countdown.h" /* defines: countdown_problem, countdown_verify, ... */
#include "maze.h"      /* defines: maze_problem, maze_verify, ... */
#include "reach.h"     /* defines: reach_problem, reach_verify, ... */

/* ---------------------------------------------------------------- task specifications */

/* A task's X(kind, option, lowest, highest, default, meaning) for a number and W(kind, option,
 * words, meaning) for one of some words, the first by default: the one list that the parser, the
 * canonical specification and the help text are made of. */
#define OPTION_NAME(kind, option, low, high, standard, about) " " #option "="
#define WORDS_NAME(kind, option, words, about) " " #option "="
#define OPTION_HELP(kind, option, low, high, standard, about) \
    "    " #option "=" #standard "  (" #low " to " #high ")  " about "\n"
#define WORDS_HELP(kind, option, words, about) "    " #option "=" words "  " about "\n"
#define OPTION_ROW(kind, option, low, high, standard, about) \
    {kind, #option, low, high, standard, offsetof(Task, option), NULL},
#define WORDS_ROW(kind, option, words, about) \
    {kind, #option, 0, 0, 0, offsetof(Task, option), words},

/* What a task can do, by TaskKind. */
static const struct {
    const char *name, *options;
    bool (*fits)(const Task *, char *error, size_t); /* NULL: its options go with each other */
    bool (*problem)(const Task *, Dice *, Split, Buf *prompt, Buf *answer);
    bool (*canonical)(const Task *, const char *prompt, Canonical *);
    void (*solution)(const Task *, const char *prompt, Dice *, Buf *response);
    Verdict (*verify)(const Task *, const char *prompt, const char *response);
    void (*answer_class)(const Task *, const char *prompt, const char *response, Buf *);
} TASKS[] = {
    {"countdown", COUNTDOWN_OPTIONS(OPTION_NAME), NULL, countdown_problem, countdown_canonical,
     countdown_solution, countdown_verify, countdown_class},
    {"add", ADD_OPTIONS(OPTION_NAME), NULL, add_problem, add_canonical, add_solution, add_verify,
     add_class},
    {"maze", MAZE_OPTIONS(OPTION_NAME, WORDS_NAME), maze_fits, maze_problem, maze_canonical,
     maze_solution, maze_verify, maze_class},
    {"reach", REACH_OPTIONS(OPTION_NAME, WORDS_NAME), reach_fits, reach_problem, reach_canonical,
     reach_solution, reach_verify, reach_class},
};

/* The first option of a task says how long its prompts are. */
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

static inline int *task_option(Task *t, int option)
{
    return (int *)(void *)((char *)t + TASK_OPTIONS[option].offset);
}

static inline Task task_standard(TaskKind kind)
{
    Task t = {.kind = kind};
    for (int o = 0; o < TASK_N_OPTIONS; o++)
        if (TASK_OPTIONS[o].kind == kind)
            *task_option(&t, o) = TASK_OPTIONS[o].standard;
    return t;
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

/* Reads one of "a|b|c" up to a comma or the end, as its index. */
static inline bool scan_word(const char **s, const char *words, int64_t *index)
{
    size_t n = strcspn(*s, ",");
    for (*index = 0;; ++*index) {
        size_t length = strcspn(words, "|");
        if (length == n && !memcmp(words, *s, n)) {
            *s += n;
            return true;
        }
        if (!words[length])
            return false;
        words += length + 1;
    }
}

/* Reads one value of an option, to the end of the option. */
static inline bool task_parse_value(const char **s, int o, const char *text, int *value,
                                    char *error, size_t error_size)
{
    const char *task = TASKS[TASK_OPTIONS[o].kind].name, *words = TASK_OPTIONS[o].words;
    int low = TASK_OPTIONS[o].low, high = TASK_OPTIONS[o].high;
    int64_t v = 0;
    if (words && !scan_word(s, words, &v)) {
        snprintf(error, error_size, "task %s: '%.40s': expected one of %s", task, text, words);
        return false;
    }
    bool whole = words || (scan_number(s, &v) && (**s == ',' || **s == 0));
    if (!whole || (!words && (v < low || v > high))) {
        snprintf(error, error_size, "task %s: '%.40s': expected a whole number from %d to %d", task,
                 text, low, high);
        return false;
    }
    *value = (int)v;
    return true;
}

/* Reads one `option=value` of a specification; `seen` has a bit for every option read so far. */
static inline bool task_parse_option(const char **s, Task *t, unsigned *seen, char *error,
                                     size_t error_size)
{
    const char *task = TASKS[t->kind].name, *text = *s;
    size_t n = strcspn(text, "=,");
    int o = task_find_option(t->kind, text, n);
    if (o == TASK_N_OPTIONS || text[n] != '=') {
        snprintf(error, error_size, "task %s cannot read '%.40s'; its options are%s", task, text,
                 TASKS[t->kind].options);
        return false;
    }
    *s += n + 1;
    if (!task_parse_value(s, o, text, task_option(t, o), error, error_size))
        return false;
    if (*seen >> o & 1) {
        snprintf(error, error_size, "task %s: '%.40s': given twice", task, text);
        return false;
    }
    *seen |= 1u << o;
    return true;
}

/* Reads "add" or "countdown:numbers=3,max=9"; false and one line in `error` where it is not so. */
static inline bool task_parse(const char *spec, Task *out, char *error, size_t error_size)
{
    size_t length = strcspn(spec, ":");
    int kind = 0;
    while (kind < N_TASKS && (strlen(TASKS[kind].name) != length
                              || memcmp(TASKS[kind].name, spec, length)))
        kind++;
    if (kind == N_TASKS) {
        snprintf(error, error_size, "unknown task '%.*s'; expected countdown, add, maze or reach",
                 length < 40 ? (int)length : 40, spec);
        return false;
    }
    *out = task_standard((TaskKind)kind);
    const char *s = spec + length;
    unsigned seen = 0;
    while (*s) { /* at the colon, then at each comma */
        s++;
        if (!task_parse_option(&s, out, &seen, error, error_size))
            return false;
    }
    return !TASKS[kind].fits || TASKS[kind].fits(out, error, error_size);
}

/* The specification with every option written out: task_parse gives the same task back. */
static inline void task_spec(const Task *t, Buf *out)
{
    char separator = ':';
    Task copy = *t;
    buf_str(out, TASKS[t->kind].name);
    for (int o = 0; o < TASK_N_OPTIONS; o++) {
        if (TASK_OPTIONS[o].kind != t->kind)
            continue;
        int value = *task_option(&copy, o);
        const char *word = TASK_OPTIONS[o].words;
        for (int k = 0; word && k < value; k++)
            word = strchr(word, '|') + 1;
        buf_printf(out, "%c%s=", separator, TASK_OPTIONS[o].name);
        if (word)
            buf_add(out, word, strcspn(word, "|"));
        else
            buf_printf(out, "%d", value);
        separator = ',';
    }
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
        if (TASKS[t->kind].problem(t, &d, split, prompt, answer))
            return;
    }
    Buf spec = {0};
    task_spec(t, &spec);
    die("task %s: no %s problem in %d draws; choose a task that has more", spec.s, names[split],
        (int)TASK_REDRAWS);
}

/* The same for two prompts that pose one problem; 0 for what is no prompt of this task. */
static inline uint64_t task_key(const Task *t, const char *prompt)
{
    Canonical c;
    return TASKS[t->kind].canonical(t, prompt, &c) ? canonical_hash(&c) : 0;
}

/* The task of this kind that reads the prompt: by its standard options, but for the first, which is
 * as the prompt has it. */
static inline bool task_of_prompt(TaskKind kind, const char *prompt, Task *out)
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

/* Adds one right response to the buffer, the same for the same arguments; nothing where the
 * prompt is not a problem of this task or has no solution. */
static inline void task_solution(const Task *t, const char *prompt, uint64_t seed, uint32_t index,
                                 Buf *response)
{
    Dice d = {.seed = seed, .use = DICE_SOLUTION, .index = index,
              .salt = (uint32_t)hash64(prompt, strlen(prompt))};
    TASKS[t->kind].solution(t, prompt, &d, response);
}

/* The reward: whether a response, without its end token, is right, and if not, why. */
static inline Verdict task_verify(const Task *t, const char *prompt, const char *response)
{
    return TASKS[t->kind].verify(t, prompt, response);
}

/* Adds the class of a response, for majority votes and for counting distinct answers: two
 * responses are the same answer where their classes are equal. */
static inline void task_answer_class(const Task *t, const char *prompt, const char *response,
                                     Buf *out)
{
    TASKS[t->kind].answer_class(t, prompt, response, out);
}

#endif
