/* problems.h: where prompts come from, a built-in task or a JSONL file. */
#ifndef PROBLEMS_H
#define PROBLEMS_H

#include "json.h" /* defines: Json; util.h: Buf, philox */
#include "task.h" /* defines: Task, task_problem */

/* Where prompts come from: a built-in task draws as many as are wanted; a file holds so many. */
typedef struct {
    Task task;
    bool held_out;
    uint64_t seed;
    char **prompt, **answer; /* of a file */
    int n;                   /* 0: drawn */
    int *order, epoch;       /* the file's problems in the order of one pass through it */
    const char *path;
} Problems;

/* The next line of a JSONL text that is not blank, as a parser; false at the end. Lines end at
 * 0x0A only. */
static inline bool jsonl_next(const char *text, size_t n, size_t *offset, int *line, Json *j)
{
    while (*offset < n) {
        const char *from = text + *offset, *newline = memchr(from, '\n', n - *offset);
        size_t length = newline ? (size_t)(newline - from) : n - *offset;
        *offset += length + 1;
        ++*line;
        size_t blank = 0;
        while (blank < length && strchr(" \t\r", from[blank]) && from[blank])
            blank++;
        if (blank == length)
            continue;
        *j = json_open(from, length);
        return true;
    }
    return false;
}

static inline void jsonl_end(Json *j, const char *path, int line)
{
    if (!json_end(j))
        die("%s: line %d: %s", path, line, j->error ? j->error : "text after the object");
}

static inline bool is_one_of(const char *key, const char *a, const char *b, const char *c)
{
    return !strcmp(key, a) || !strcmp(key, b) || !strcmp(key, c);
}

/* Reads a JSONL file of problems: `prompt`, `question` or `problem`, and `answer` or `solution`. */
static inline Problems problems_read(const char *path, const Task *task)
{
    Problems p = {.task = *task, .path = path, .epoch = -1};
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    Buf key = {0}, prompt = {0}, answer = {0}, solution = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        prompt.n = answer.n = solution.n = 0;
        for (json_object(&j); json_key(&j, &key);)
            if (is_one_of(key.s, "prompt", "question", "problem"))
                json_string(&j, &prompt);
            else if (!strcmp(key.s, "answer"))
                json_string(&j, &answer);
            else if (!strcmp(key.s, "solution"))
                json_string(&j, &solution);
            else
                json_skip(&j);
        jsonl_end(&j, path, line);
        if (!prompt.n)
            die("%s: line %d: no question; expected a prompt, question or problem", path, line);
        if (!answer.n && !solution.n)
            die("%s: line %d: no answer; expected an answer or a solution", path, line);
        size_t bytes = (size_t)(p.n + 1) * sizeof(char *);
        p.prompt = xrealloc(p.prompt, bytes);
        p.answer = xrealloc(p.answer, bytes);
        p.prompt[p.n] = xstrdup(prompt.s);
        p.answer[p.n++] = xstrdup(answer.n ? answer.s : solution.s);
    }
    if (!p.n)
        die("%s: holds no problems", path);
    p.order = xcalloc((size_t)p.n, sizeof(int));
    free(text);
    buf_free(&key);
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&solution);
    return p;
}

static inline void problems_free(Problems *p)
{
    for (int i = 0; i < p->n; i++) {
        free(p->prompt[i]);
        free(p->answer[i]);
    }
    free(p->prompt);
    free(p->answer);
    free(p->order);
    *p = (Problems){0};
}

/* The order of n things in pass number `epoch`, shuffled anew for each (Fisher and Yates). */
static inline void shuffle(int *order, int n, uint64_t seed, int epoch)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        Random r = philox(seed, STREAM_SHUFFLE, (uint32_t)epoch, (uint32_t)i, 0, 1);
        int j = (int)below(r, (uint32_t)i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

/* Problem number `index`. Training walks a file in shuffled passes, held-out problems in order. */
static inline void problem_get(Problems *p, uint32_t index, Buf *prompt, Buf *answer)
{
    prompt->n = answer->n = 0;
    if (!p->n) {
        task_problem(&p->task, p->seed, p->held_out, index, prompt, answer);
        return;
    }
    int at = (int)(index % (uint32_t)p->n);
    if (!p->held_out) {
        int epoch = (int)(index / (uint32_t)p->n);
        if (epoch != p->epoch)
            shuffle(p->order, p->n, p->seed, epoch);
        p->epoch = epoch;
        at = p->order[at];
    }
    buf_str(prompt, p->prompt[at]);
    buf_str(answer, p->answer[at]);
}

#endif
