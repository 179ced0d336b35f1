/* maze.h: the task `maze`: a way through a grid, from the top left cell to the bottom right one.
 *
 *   prompt `312222110:` (3 x 3)   response `0011` or `1100`
 *
 * Row by row, a cell's digit says where it is open: 1 to the east, 2 to the south, 3 both, 0
 * neither; what a cell is to the west and the north stands in its neighbours' digits. A response is
 * moves: 0 east, 1 south, 2 west, 3 north. Every way that enters no cell twice is right. */
#ifndef TASK_MAZE_H
#define TASK_MAZE_H

#include "text.h" /* defines: Task, dice, Canonical, verdict */

#define MAZE_OPTIONS(X, W) \
    X(TASK_MAZE, size, 2, 7, 5, "cells in a row and rows") \
    X(TASK_MAZE, loops, 0, 9, 3, \
      "walls opened beyond a tree's, at most (size-1)^2; right ways: 1 to 2^loops") \
    W(TASK_MAZE, teacher, TEACHERS, "which right way sft shows: any, or one of the shortest")

enum { MAZE_SIZE = 7, MAZE_CELLS = MAZE_SIZE * MAZE_SIZE, MAZE_LOOPS = 9, MAZE_FAR = 255 };

typedef struct {
    int size, cells;          /* the goal is the last cell */
    uint8_t open[MAZE_CELLS]; /* 1: east, 2: south */
} Maze;

/* ---------------------------------------------------------------- the text */

/* prompt = digit of 0..3, for each of size^2 cells, ":". No cell is open to the outside. */
static inline bool maze_read_prompt(const Task *t, const char *s, Maze *m)
{
    *m = (Maze){.size = t->size, .cells = t->size * t->size};
    for (int cell = 0; cell < m->cells; cell++, s++) {
        if (*s < '0' || *s > '3')
            return false;
        m->open[cell] = (uint8_t)(*s - '0');
        if ((cell % m->size == m->size - 1 && m->open[cell] & 1) ||
            (cell / m->size == m->size - 1 && m->open[cell] & 2))
            return false;
    }
    return scan_char(&s, ':') && *s == 0;
}

/* The cell beyond a side (0 east, 1 south, 2 west, 3 north); -1 where a wall is there. West of a
 * row there is one: the cell before, the last of the row above, is not open to the east. */
static inline int maze_beyond(const Maze *m, int cell, int side)
{
    int to = cell + (side == 0 ? 1 : side == 1 ? m->size : side == 2 ? -1 : -m->size);
    int owner = side < 2 ? cell : to, bit = side % 2 ? 2 : 1; /* whose digit speaks of it */
    return owner >= 0 && m->open[owner] & bit ? to : -1;
}

static inline Verdict maze_verify(const Task *t, const char *prompt, const char *response)
{
    Maze m;
    bool entered[MAZE_CELLS] = {true};
    int cell = 0;
    if (!maze_read_prompt(t, prompt, &m))
        return verdict(NO_PROBLEM);
    if (*response == 0)
        return verdict("the response is empty");
    if (response[strspn(response, "0123")])
        return verdict("a move is not written as 0, 1, 2 or 3");
    for (const char *s = response; *s; s++) {
        cell = maze_beyond(&m, cell, *s - '0');
        if (cell < 0)
            return verdict("a move goes through a wall");
        if (entered[cell])
            return verdict("a cell is entered twice");
        entered[cell] = true;
    }
    return verdict(cell == m.cells - 1 ? NULL : "the way does not end at the goal");
}

/* Moves are their own class, right or not; what is no moves stands behind a `?`. */
static inline void maze_class(const Task *t, const char *prompt, const char *response, Buf *out)
{
    Maze m;
    bool moves = *response && !response[strspn(response, "0123")];
    if (!moves || !maze_read_prompt(t, prompt, &m))
        buf_str(out, "?");
    buf_str(out, response);
}

static inline bool maze_canonical(const Task *t, const char *prompt, Canonical *out)
{
    Maze m;
    if (!maze_read_prompt(t, prompt, &m))
        return false;
    *out = (Canonical){.n = m.cells};
    for (int i = 0; i < m.cells; i++)
        out->value[i] = m.open[i];
    return true;
}

/* ---------------------------------------------------------------- right ways */

/* The search for right ways, one after the other in a fixed order. */
typedef struct {
    Maze maze;
    uint8_t away[MAZE_CELLS]; /* moves to the goal, at least */
    bool entered[MAZE_CELLS];
    char move[MAZE_CELLS];
    int moves, wanted, visits; /* how many right ways to pass over; cells entered so far */
} MazeSearch;

/* Own mazes have no more: at most 2^loops simple ways lead from the start to each cell, since two
 * ways differ by a sum of loops. In a maze from elsewhere there may be 10^8. */
enum { MAZE_VISITS = MAZE_CELLS << MAZE_LOOPS };

/* How far each cell is from the goal: breadth first, from the goal. */
static inline MazeSearch maze_search(const Maze *m)
{
    MazeSearch s = {.maze = *m};
    int queue[MAZE_CELLS] = {m->cells - 1}, n = 1;
    memset(s.away, MAZE_FAR, sizeof s.away);
    s.away[queue[0]] = 0;
    for (int head = 0; head < n; head++)
        for (int side = 0; side < 4; side++) {
            int to = maze_beyond(m, queue[head], side);
            if (to < 0 || s.away[to] != MAZE_FAR)
                continue;
            s.away[to] = (uint8_t)(s.away[queue[head]] + 1);
            queue[n++] = to;
        }
    return s;
}

/* Depth first from a cell through all ways of at most `left` more moves, right way number
 * `wanted` found: true, with its moves. A way that cannot be at the goal in time is not followed.
 * Depth: at most the cells. */
static inline bool maze_find(MazeSearch *s, int cell, int left)
{
    if (cell == s->maze.cells - 1)
        return s->wanted-- == 0;
    if (++s->visits > MAZE_VISITS)
        return false;
    s->entered[cell] = true;
    for (int side = 0; side < 4; side++) {
        int to = maze_beyond(&s->maze, cell, side);
        if (to < 0 || s->entered[to] || s->away[to] >= left)
            continue;
        s->move[s->moves++] = (char)('0' + side);
        if (maze_find(s, to, left - 1))
            return true;
        s->moves--;
    }
    s->entered[cell] = false;
    return false;
}

/* How many right ways there are of at most `longest` moves; -1 where a search finds no end. */
static inline int maze_count(MazeSearch *s, int longest)
{
    s->wanted = INT_MAX;
    s->visits = 0;
    if (s->away[0] <= longest)
        maze_find(s, 0, longest);
    return s->visits > MAZE_VISITS ? -1 : INT_MAX - s->wanted;
}

/* One right way, all with the same chance; by teacher=shortest, one of the shortest. Nothing where
 * there is none. In a maze from elsewhere that has too many ways, one of the shortest in any case:
 * those are few (924 where there are no walls at all). */
static inline void maze_solve(const Task *t, const Maze *m, Dice *d, Buf *response)
{
    MazeSearch s = maze_search(m);
    int longest = t->teacher == TEACHER_SHORTEST ? s.away[0] : m->cells - 1;
    int ways = maze_count(&s, longest);
    if (ways < 0)
        ways = maze_count(&s, longest = s.away[0]);
    if (ways <= 0)
        return;
    s.wanted = dice(d, ways);
    s.visits = 0;
    maze_find(&s, 0, longest);
    buf_add(response, s.move, (size_t)s.moves);
}

static inline void maze_solution(const Task *t, const char *prompt, Dice *d, Buf *response)
{
    Maze m;
    if (maze_read_prompt(t, prompt, &m))
        maze_solve(t, &m, d, response);
}

/* ---------------------------------------------------------------- the generator */

/* Walls that may be opened: of cell wall / 2, to the east (wall even) or to the south (odd). */
typedef struct {
    int wall[2 * MAZE_CELLS], n;
} Walls;

static inline int walls_draw(Walls *w, Dice *d)
{
    int k = dice(d, w->n), wall = w->wall[k];
    w->wall[k] = w->wall[--w->n];
    return wall;
}

/* A cell joins the tree: its walls to cells outside of it are added. */
static inline void maze_join(const Maze *m, int cell, bool *inside, Walls *w)
{
    int row = cell / m->size, column = cell % m->size;
    inside[cell] = true;
    if (column < m->size - 1 && !inside[cell + 1])
        w->wall[w->n++] = 2 * cell;
    if (row < m->size - 1 && !inside[cell + m->size])
        w->wall[w->n++] = 2 * cell + 1;
    if (column > 0 && !inside[cell - 1])
        w->wall[w->n++] = 2 * (cell - 1);
    if (row > 0 && !inside[cell - m->size])
        w->wall[w->n++] = 2 * (cell - m->size) + 1;
}

/* Prim's algorithm with walls of random weight: from a random cell, a random wall between the tree
 * and a cell outside is opened until there is none. Then `loops` of the walls that are left. */
static inline Maze maze_draw(const Task *t, Dice *d)
{
    Maze m = {.size = t->size, .cells = t->size * t->size};
    bool inside[MAZE_CELLS] = {false};
    Walls tree = {.n = 0}, left = {.n = 0};
    maze_join(&m, dice(d, m.cells), inside, &tree);
    while (tree.n) {
        int wall = walls_draw(&tree, d), a = wall / 2, b = a + (wall % 2 ? m.size : 1);
        if (inside[a] && inside[b]) {
            left.wall[left.n++] = wall;
            continue;
        }
        m.open[a] |= (uint8_t)(1 << wall % 2);
        maze_join(&m, inside[a] ? b : a, inside, &tree);
    }
    for (int k = 0; k < t->loops; k++) {
        int wall = walls_draw(&left, d);
        m.open[wall / 2] |= (uint8_t)(1 << wall % 2);
    }
    return m;
}

static inline bool maze_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    Maze m = maze_draw(t, d);
    char text[MAZE_CELLS + 2];
    Canonical c;
    for (int i = 0; i < m.cells; i++)
        text[i] = (char)('0' + m.open[i]);
    snprintf(text + m.cells, 2, ":");
    if (!maze_canonical(t, text, &c) || canonical_split(&c) != split)
        return false;
    buf_str(prompt, text);
    maze_solve(t, &m, d, answer);
    return true;
}

/* Beside a tree, (size-1)^2 of the 2 size (size-1) walls are left. */
static inline bool maze_fits(const Task *t, char *error, size_t error_size)
{
    int walls = (t->size - 1) * (t->size - 1);
    if (t->loops > walls)
        snprintf(error, error_size, "task maze: 'loops=%d': expected at most %d, (size-1)^2, with "
                 "size=%d", t->loops, walls, t->size);
    return t->loops <= walls;
}

#endif
