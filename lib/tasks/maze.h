/* maze.h: the task `maze`: a way through a grid, from the top left cell to the bottom right one.
 *
 *   prompt `312222110:` (3 x 3)   response `0011` or `1100`
 *
 * A digit for each cell, row by row: 1 open to the east, 2 to the south, 3 both, 0 neither; its
 * west and north sides are in the neighbours' digits. A response is moves: 0 east, 1 south, 2 west,
 * 3 north. Every way that enters no cell twice is right.
 *
 * With spellings=2 each move has two digits, 4 to 7 mean what 0 to 3 do: answers that are equal in
 * substance and differ in their tokens. */
#ifndef TASK_MAZE_H
#define TASK_MAZE_H

#include "text.h" /* defines: Task, dice, Canonical, verdict */

#define MAZE_OPTIONS(X, W) \
    X(TASK_MAZE, size, 2, 7, 5, "cells in a row and rows") \
    X(TASK_MAZE, loops, 0, 9, 3, \
      "walls opened beyond a tree's, at most (size-1)^2; right ways: 1 to 2^loops") \
    X(TASK_MAZE, spellings, 1, 2, 1, "digits that mean a move: with 2 also the digit plus 4") \
    W(TASK_MAZE, teacher, TEACHERS, "which right way sft shows: any, or one of the shortest")

enum { MAZE_SIZE = 7, MAZE_CELLS = MAZE_SIZE * MAZE_SIZE, MAZE_LOOPS = 9, MAZE_FAR = 255 };

typedef struct {
    int size, cells;          /* the goal is the last cell */
    int spellings;
    uint8_t open[MAZE_CELLS]; /* 1: east, 2: south */
} Maze;

static Maze maze_closed(const Task *t)
{
    return (Maze){.size = t->size, .cells = t->size * t->size, .spellings = t->spellings};
}

/* prompt = digit of 0..3, for each of size^2 cells, ":". No cell is open to the outside. */
static bool maze_read_prompt(const Task *t, const char *s, void *posed)
{
    Maze *m = posed;
    *m = maze_closed(t);
    for (int cell = 0; cell < m->cells; cell++, s++) {
        if (*s < '0' || *s > '3')
            return false;
        m->open[cell] = *s - '0';
        if ((cell % m->size == m->size - 1 && m->open[cell] & 1) ||
            (cell / m->size == m->size - 1 && m->open[cell] & 2))
            return false;
    }
    return scan_char(&s, ':') && *s == 0;
}

static void maze_write(const void *posed, Buf *prompt)
{
    const Maze *m = posed;
    for (int i = 0; i < m->cells; i++)
        buf_printf(prompt, "%d", m->open[i]);
    buf_str(prompt, ":");
}

/* The cell beyond a side (0 east, 1 south, 2 west, 3 north); -1 where there is a wall, as west of a
 * row: the cell before, the last of the row above, is not open to the east. */
static int maze_beyond(const Maze *m, int cell, int side)
{
    int to = cell + (side == 0 ? 1 : side == 1 ? m->size : side == 2 ? -1 : -m->size);
    int owner = side < 2 ? cell : to, bit = side % 2 ? 2 : 1; /* whose digit has this side */
    return owner >= 0 && m->open[owner] & bit ? to : -1;
}

static bool maze_is_moves(const Maze *m, const char *s)
{
    return *s && !s[strspn(s, m->spellings == 2 ? "01234567" : "0123")];
}

/* The side of a move: 0 to 3. */
static int maze_side(char move) { return (move - '0') % 4; }

static Verdict maze_verify(const void *posed, const char *response)
{
    const Maze *m = posed;
    bool entered[MAZE_CELLS] = {true};
    int cell = 0;
    if (!maze_is_moves(m, response))
        return verdict(m->spellings == 2 ? "a move is not written as 0, 1, .. or 7"
                                         : "a move is not written as 0, 1, 2 or 3");
    for (const char *s = response; *s; s++) {
        cell = maze_beyond(m, cell, maze_side(*s));
        if (cell < 0)
            return verdict("a move goes through a wall");
        if (entered[cell])
            return verdict("a cell is entered twice");
        entered[cell] = true;
    }
    return verdict(cell == m->cells - 1 ? NULL : "the way does not end at the goal");
}

/* The moves are the class, right or not, in whatever digits. */
static bool maze_class(const void *posed, const char *response, Buf *out)
{
    bool moves = maze_is_moves(posed, response);
    for (const char *s = response; moves && *s; s++)
        buf_printf(out, "%d", maze_side(*s));
    return moves;
}

static Canonical maze_canonical(const void *posed)
{
    const Maze *m = posed;
    Canonical c = {.n = m->cells};
    for (int i = 0; i < m->cells; i++)
        c.value[i] = m->open[i];
    return c;
}

/* Enumerates right ways in a fixed order. */
typedef struct {
    Maze maze;
    uint8_t away[MAZE_CELLS]; /* distance to the goal */
    bool entered[MAZE_CELLS];
    char move[MAZE_CELLS];
    int moves, wanted, visits; /* wanted: right ways to pass over; visits: cells entered so far */
} MazeSearch;

/* The bound of generated mazes: at most 2^loops simple ways lead from the start to each cell, since
 * two ways differ by a sum of loops. A maze from a file may have 10^8. */
enum { MAZE_VISITS = MAZE_CELLS << MAZE_LOOPS };

/* Distances by breadth-first search from the goal. */
static MazeSearch maze_search(const Maze *m)
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
            s.away[to] = s.away[queue[head]] + 1;
            queue[n++] = to;
        }
    return s;
}

/* Depth-first search from a cell over all ways of at most `left` more moves; true where right way
 * number `wanted` is found. Ways that cannot reach the goal in time are cut. Depth: at most the
 * cells. */
static bool maze_find(MazeSearch *s, int cell, int left)
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
        s->move[s->moves++] = '0' + side;
        if (maze_find(s, to, left - 1))
            return true;
        s->moves--;
    }
    s->entered[cell] = false;
    return false;
}

/* The number of right ways of at most `longest` moves; -1 where there are too many to count. */
static int maze_count(MazeSearch *s, int longest)
{
    s->wanted = INT_MAX;
    s->visits = 0;
    if (s->away[0] <= longest)
        maze_find(s, 0, longest);
    return s->visits > MAZE_VISITS ? -1 : INT_MAX - s->wanted;
}

/* One right way, drawn uniformly; with teacher=shortest, of the shortest. A maze from a file with
 * too many ways gets one of the shortest in any case: those are few (924 without any walls). Of two
 * spellings each move has one at random. */
static bool maze_solve(const Task *t, const void *posed, Dice *d, Buf *response)
{
    const Maze *m = posed;
    MazeSearch s = maze_search(m);
    int longest = t->teacher == TEACHER_SHORTEST ? s.away[0] : m->cells - 1;
    int ways = maze_count(&s, longest);
    if (ways < 0)
        ways = maze_count(&s, longest = s.away[0]);
    if (ways <= 0)
        return false;
    s.wanted = dice(d, ways);
    s.visits = 0;
    maze_find(&s, 0, longest);
    for (int i = 0; i < s.moves && m->spellings == 2; i++)
        s.move[i] += (char)(4 * dice(d, 2));
    buf_add(response, s.move, s.moves);
    return true;
}

/* Walls that may be opened: of cell wall / 2, to the east (wall even) or to the south (odd). */
typedef struct {
    int wall[2 * MAZE_CELLS], n;
} Walls;

static int walls_draw(Walls *w, Dice *d)
{
    int k = dice(d, w->n), wall = w->wall[k];
    w->wall[k] = w->wall[--w->n];
    return wall;
}

/* Adds a cell to the tree, and its walls to cells outside to w. */
static void maze_join(const Maze *m, int cell, bool *inside, Walls *w)
{
    int size = m->size, row = cell / size, column = cell % size;
    const bool there[4] = {column < size - 1, row < size - 1, column > 0, row > 0};
    const int next[4] = {cell + 1, cell + size, cell - 1, cell - size};
    const int wall[4] = {2 * cell, 2 * cell + 1, 2 * (cell - 1), 2 * (cell - size) + 1};
    inside[cell] = true;
    for (int k = 0; k < 4; k++)
        if (there[k] && !inside[next[k]])
            w->wall[w->n++] = wall[k];
}

/* Prim's algorithm with random weights: from a random cell, opens random walls between the tree and
 * cells outside until there are none. Then opens `loops` of the walls that are left. */
static bool maze_draw(const Task *t, Dice *d, void *posed)
{
    Maze *m = posed;
    bool inside[MAZE_CELLS] = {false};
    Walls tree = {.n = 0}, left = {.n = 0};
    *m = maze_closed(t);
    maze_join(m, dice(d, m->cells), inside, &tree);
    while (tree.n) {
        int wall = walls_draw(&tree, d), a = wall / 2, b = a + (wall % 2 ? m->size : 1);
        if (inside[a] && inside[b]) {
            left.wall[left.n++] = wall;
            continue;
        }
        m->open[a] |= 1 << wall % 2;
        maze_join(m, inside[a] ? b : a, inside, &tree);
    }
    for (int k = 0; k < t->loops; k++) {
        int wall = walls_draw(&left, d);
        m->open[wall / 2] |= 1 << wall % 2;
    }
    return true;
}

/* A tree leaves (size-1)^2 of the 2 size (size-1) walls. */
static bool maze_fits(const Task *t, char *error, size_t size)
{
    int walls = (t->size - 1) * (t->size - 1);
    return t->loops <= walls ||
           fail(error, size, "task maze: 'loops=%d': expected at most %d, (size-1)^2, with size=%d",
                t->loops, walls, t->size);
}

#endif
