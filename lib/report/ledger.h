/* ledger.h: what a page shows of a rollouts.jsonl, which may be larger than memory: one group of
 * the first step, one of the last, and a sample of points. Only the head, the tail and a few places
 * between them are read. */
#ifndef LEDGER_H
#define LEDGER_H

#include "runs.h" /* defines: read_int, number_list, number_or_null; json.h: Json */

/* A line of the ledger. Numbers that it lacks are NaN. */
typedef struct {
    int step, rollout, n_S;
    int64_t problem; /* prompt_index */
    double reward, nu, nubar, rtilde, advantage, u;
    double *S; /* [n_S] cosines with the group's responses */
    Buf prompt, response, reason;
} LedgerRow;

/* Rows of one step and problem, by rollout. */
typedef struct {
    LedgerRow *row;
    int n;
} LedgerGroup;

typedef struct {
    double nu, u;
    bool right;
} LedgerPoint;

typedef struct {
    LedgerGroup first, last;
    LedgerPoint *point;
    int n_points;
} Ledger;

static inline void row_free(LedgerRow *r)
{
    free(r->S);
    buf_free(&r->prompt);
    buf_free(&r->response);
    buf_free(&r->reason);
}

static inline void rows_free(LedgerGroup *g)
{
    for (int i = 0; i < g->n; i++)
        row_free(&g->row[i]);
    free(g->row);
    *g = (LedgerGroup){0};
}

static inline void ledger_free(Ledger *l)
{
    rows_free(&l->first);
    rows_free(&l->last);
    free(l->point);
}

/* One member of a line. Returns its name, or NULL if it is none that is shown. */
static inline const char *row_member(LedgerRow *r, Json *j, const char *key)
{
    const struct {
        const char *name;
        double *x;
    } numbers[] = {{"reward", &r->reward}, {"nu", &r->nu}, {"nubar", &r->nubar},
                   {"rtilde", &r->rtilde}, {"advantage", &r->advantage}, {"u", &r->u}};
    const struct {
        const char *name;
        Buf *text;
    } texts[] = {{"prompt", &r->prompt}, {"response", &r->response}, {"reason", &r->reason}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(key, numbers[i].name))
            return number_or_null(j, numbers[i].x), numbers[i].name;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(key, texts[i].name))
            return json_string(j, texts[i].text), texts[i].name;
    if (!strcmp(key, "step"))
        return read_int(j, &r->step), "step";
    if (!strcmp(key, "rollout"))
        return read_int(j, &r->rollout), "rollout";
    if (!strcmp(key, "prompt_index"))
        return json_int(j, &r->problem), "prompt_index";
    if (!strcmp(key, "S"))
        return r->n_S = number_list(j, &r->S), "S";
    json_skip(j);
    return NULL;
}

/* The number of the line at an offset of a file. */
static inline int file_line(FILE *f, long offset)
{
    int line = 1;
    rewind(f);
    while (offset-- > 0)
        line += getc(f) == '\n';
    return line;
}

static inline LedgerRow row_read(Json *j, const char *path, FILE *f, long offset)
{
    double none = (double)NAN;
    LedgerRow r = {.step = -1, .rollout = -1, .problem = -1, .reward = none, .nu = none,
                   .nubar = none, .rtilde = none, .advantage = none, .u = none};
    Buf key = {0};
    const char *field = NULL;
    j->nul = true; /* responses are any bytes, and known by their length */
    for (json_object(j); json_key(j, &key);)
        field = row_member(&r, j, key.s);
    if (!json_end(j))
        field_end(j, path, file_line(f, offset), field);
    if (r.step < 0 || r.rollout < 0 || r.problem < 0 || !isfinite(r.reward))
        die("%s: line %d: expected step, prompt_index, rollout and reward", path,
            file_line(f, offset));
    buf_free(&key);
    return r;
}

/* The whole lines among the `bytes` bytes from an offset on. */
static inline LedgerGroup window_rows(const char *path, FILE *f, long offset, size_t bytes)
{
    LedgerGroup g = {0};
    char *text = xmalloc(bytes + 1);
    size_t from = 0, n;
    int room = 0, line = 0;
    if (fseek(f, offset, SEEK_SET))
        die("%s: cannot be read: %s", path, strerror(errno));
    n = fread(text, 1, bytes, f);
    bool to_end = n < bytes || getc(f) == EOF;
    text[n] = 0;
    if (offset) { /* a line that began before */
        const char *newline = memchr(text, '\n', n);
        from = newline ? (size_t)(newline - text) + 1 : n;
    }
    while (!to_end && n > from && text[n - 1] != '\n')
        n--;
    for (Json j; jsonl_next(text, n, &from, &line, &j);) {
        if (g.n == room)
            g.row = xrealloc(g.row, (size_t)(room = room * 2 + 64) * sizeof *g.row);
        g.row[g.n] = row_read(&j, path, f, offset + (j.start - text));
        g.n++;
    }
    free(text);
    return g;
}

/* How many rows from `first` on make a whole group: rollouts 0 to m - 1, each with m cosines. 0:
 * it is not whole. */
static inline int whole_group(const LedgerGroup *g, int first, const char *path)
{
    const LedgerRow *r = g->row + first;
    int n = 0, m = r->n_S;
    while (first + n < g->n && r[n].step == r->step && r[n].problem == r->problem &&
           r[n].rollout == n)
        n++;
    for (int i = 0; i < n && n >= m; i++)
        if (m < 2 || r[i].n_S != n)
            die("%s: step %d, prompt_index %lld, rollout %d: S: %d numbers; expected %d", path,
                r->step, (long long)r->problem, i, r[i].n_S, n);
    return n == m ? n : 0;
}

static inline bool mixed(const LedgerRow *r, int m)
{
    for (int i = 1; i < m; i++)
        if ((r[i].reward > 0) != (r->reward > 0))
            return true;
    return false;
}

/* Moves a group out of rows: one of the step of the first row (or, `tail`, of the last), on problem
 * `wanted` if it is there, else the first (last) that holds right and wrong, else any. */
static inline LedgerGroup take_group(LedgerGroup *all, bool tail, int64_t wanted, const char *path)
{
    int best = -1, best_m = 0, best_rank = 0;
    for (int i = 0, m; i < all->n; i += imax(1, m)) {
        const LedgerRow *r = &all->row[i];
        m = r->rollout || !r->n_S ? 0 : whole_group(all, i, path);
        int rank = !m ? 0 : r->problem == wanted ? 3 : mixed(r, m) ? 2 : 1;
        if (r->step == all->row[tail ? all->n - 1 : 0].step &&
            (tail ? rank && rank >= best_rank : rank > best_rank)) {
            best = i;
            best_m = m;
            best_rank = rank;
        }
    }
    LedgerGroup g = {xcalloc((size_t)best_m, sizeof(LedgerRow)), best_m};
    for (int i = 0; i < best_m; i++) {
        g.row[i] = all->row[best + i];
        all->row[best + i] = (LedgerRow){0};
    }
    return g;
}

/* A group of the head or the tail of the file, in a window that grows until it holds one. */
static inline LedgerGroup end_group(const char *path, FILE *f, long size, bool tail, int64_t wanted)
{
    LedgerGroup g = {0};
    for (long bytes = 1 << 20; !g.n; bytes *= 4) {
        bytes = bytes < size ? bytes : size;
        rows_free(&g);
        LedgerGroup all = window_rows(path, f, tail ? size - bytes : 0, (size_t)bytes);
        g = take_group(&all, tail, wanted, path);
        rows_free(&all);
        if (bytes == size)
            break;
    }
    return g;
}

/* nu and u of the rows in windows spread evenly over the file. */
static inline void ledger_points(Ledger *l, const char *path, FILE *f, long size)
{
    enum { WINDOWS = 8, BYTES = 1 << 17 };
    int windows = size <= WINDOWS * BYTES ? 1 : WINDOWS;
    for (int w = 0; w < windows; w++) {
        long at = windows == 1 ? 0 : (size - BYTES) / (windows - 1) * w;
        LedgerGroup all = window_rows(path, f, at, (size_t)(windows == 1 ? size : BYTES));
        l->point = xrealloc(l->point, (size_t)(l->n_points + all.n) * sizeof *l->point);
        for (int i = 0; i < all.n; i++)
            if (isfinite(all.row[i].nu) && isfinite(all.row[i].u))
                l->point[l->n_points++] =
                    (LedgerPoint){all.row[i].nu, all.row[i].u, all.row[i].reward > 0};
        rows_free(&all);
    }
}

/* Looks into a run's ledger; false if there is none. `like`: a ledger whose problems are shown here
 * too if they can be, or NULL. */
static inline bool ledger_read(const RunFiles *r, const Ledger *like, Ledger *l)
{
    Path path = path_join(r->dir, "rollouts.jsonl");
    struct stat info;
    *l = (Ledger){0};
    if (!is_file(path.s))
        return false;
    FILE *f = fopen(path.s, "rb");
    if (!f || fstat(fileno(f), &info))
        die("%s: cannot be opened: %s", path.s, strerror(errno));
    long size = (long)info.st_size;
    l->first = end_group(path.s, f, size, false, like && like->first.n ?
                         like->first.row->problem : -1);
    l->last = end_group(path.s, f, size, true, like && like->last.n ?
                        like->last.row->problem : -1);
    ledger_points(l, path.s, f, size);
    fclose(f);
    return true;
}

#endif
