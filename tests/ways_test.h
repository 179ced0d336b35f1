/* ways.h: tests of the tasks whose right answers are many (maze, reach), and of what all tasks
 * share: the splits, keys, `verify --task`. */
#ifndef TESTS_WAYS_H
#define TESTS_WAYS_H

#include "tasks_test.h"

/* ================================================================ verifiers */

typedef struct {
    const char *spec, *prompt, *response, *reason; /* part of the reason */
} VerdictRow;

static void check_verdicts(const VerdictRow *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        Task t = task_of(row[i].spec);
        Verdict v = task_verify(&t, row[i].prompt, row[i].response);
        CHECK(strstr(v.reason, row[i].reason), "%s'%s': '%s', expected '%s'", row[i].prompt,
              row[i].response, v.reason, row[i].reason);
        CHECK(v.right == !strcmp(row[i].reason, "right"), "%s'%s': right = %d", row[i].prompt,
              row[i].response, v.right);
        Buf class = {0};
        bool moves = strstr("right, arithmetic, above, twice, target, wall, goal", row[i].reason);
        task_answer_class(&t, row[i].prompt, row[i].response, &class);
        CHECK(!strcmp(class.s + !moves, row[i].response) && (moves || *class.s == '?'),
              "%s'%s': its class is '%s'", row[i].prompt, row[i].response, class.s);
        buf_free(&class);
    }
}

/* Of the pairs of steps over seven values, and of single steps, exactly the right ones. */
static void check_reach_exhaustively(void)
{
    enum { VALUES = 7, STEPS = VALUES * 4 * VALUES * VALUES };
    static const int value[VALUES] = {0, 2, 3, 5, 6, 8, 10};
    Task t = task_of("reach:digits=2,steps=2,max=10");
    int right = 0;
    char text[64];
    for (int x = 0; x < STEPS; x++)
        for (int y = -1; y < STEPS; y++) {
            int code[2] = {x, y}, at = 5, seen[3] = {5, -1, -1}, n = 0;
            bool good = true;
            for (int k = 0; k < 2 - (y < 0); k++) {
                int a = value[code[k] % 7], b = value[code[k] / 28 % 7], c = value[code[k] / 196];
                char op = "+-*/"[code[k] / 7 % 4];
                n += snprintf(text + n, sizeof text - (size_t)n, "%s%d%c%d=%d", k ? "," : "", a, op,
                              b, c);
                good &= a == at && (b == 2 || b == 3) && c != seen[0] && c != seen[1] && op != '/';
                good &= c == (op == '+' ? a + b : op == '-' ? a - b : a * b);
                at = seen[k + 1] = c;
            }
            good &= at == 10;
            right += good;
            if (task_verify(&t, "23,5>10:", text).right != good)
                CHECK(false, "23,5>10:%s: it is %s", text, good ? "right" : "wrong");
        }
    CHECK(right == 2, "%d right", right); /* 5*2=10 and 5+3=8,8+2=10 */
}

static void test_reach_verifier(void)
{
    static const VerdictRow rows[] = {
        {"reach:digits=2", "37,4>26:", "4*3=12,12+7=19,19+7=26", "right"},
        {"reach:digits=2", "37,4>12:", "4*3=12", "right"},
        {"reach:digits=2", "37,4>10:", "4-3=1,1*7=7,7+3=10", "right"},
        {"reach:digits=2", "37,7>10:", "7-7=0,0+7=7,7+3=10", "twice"},
        {"reach:digits=2", "37,9>10:", "9-3=6,6-3=3,3-3=0,0+7=7,7+3=10", "too many steps"},
        {"reach:digits=2,steps=5", "37,9>10:", "9-3=6,6-3=3,3-3=0,0+7=7,7+3=10", "right"},
        {"reach:digits=2", "37,9>99:", "9*7=63,63+3=66,66+3=69,69+3=72", "target"},
        {"reach:digits=2", "37,9>72:", "9*7=63,63+3=66,66+3=69,69+3=72", "right"},
        {"reach:digits=2", "37,4>26:", "4*3=12,12+7=19,19-3=16,16+7=23,23+3=26", "too many"},
        {"reach:digits=2,steps=2", "37,4>26:", "4*3=12,12+7=19,19+7=26", "too many"},
        {"reach:digits=8,steps=6,max=999", "23456789,9>999:",
         "9*9=81,81*9=729,729+9=738,738-9=729", "twice"},
        /* values */
        {"reach:digits=2", "37,4>26:", "4+3=7,7-3=4,4*3=12,12+7=19", "twice"},
        {"reach:digits=2", "37,4>26:", "4*3=12,12+3=15,15-3=12,12+7=19", "twice"},
        {"reach:digits=2", "37,4>12:", "4*3=12,12+3=15,15-3=12", "twice"},
        {"reach:digits=2", "37,4>12:", "4-3=1,1+3=4,4*3=12", "twice"},
        {"reach:digits=2", "37,3>21:", "3-3=0,0*7=0", "twice"},
        {"reach:digits=2", "37,9>26:", "9*7=63,63*7=441", "above"},
        {"reach:digits=2", "37,9>96:", "9*7=63,63+3=66,66*3=198,198-3=195", "above"},
        {"reach:digits=1,max=10", "3,8>10:", "8+3=11", "above"},
        {"reach:digits=1,max=11", "3,8>11:", "8+3=11", "right"},
        {"reach:digits=2", "37,4>26:", "4-7=3", "arithmetic"},
        {"reach:digits=2", "37,4>26:", "4*3=12,12+7=20", "arithmetic"},
        {"reach:digits=2", "37,4>26:", "4*3=12,12+7=26", "arithmetic"},
        {"reach:digits=2", "37,4>26:", "4*3=13,13+7=20", "arithmetic"},
        {"reach:digits=2", "37,4>26:", "4*3=12", "target"},
        {"reach:digits=2", "37,4>12:", "4*3=12,12+7=19", "target"},
        /* what is not there */
        {"reach:digits=2", "37,4>26:", "3*4=12,12+7=19,19+7=26", "begin with the start"},
        {"reach:digits=2", "37,4>26:", "4*3=12,7+12=19,19+7=26", "the value before"},
        {"reach:digits=2", "37,4>26:", "4*3=12,4+7=11", "the value before"},
        {"reach:digits=2", "37,4>26:", "12+7=19,19+7=26", "begin with the start"},
        {"reach:digits=2", "37,4>26:", "4*5=20,20+3=23,23+3=26", "not given"},
        {"reach:digits=2", "37,4>41:", "4+37=41", "not given"},
        {"reach:digits=2", "37,4>12:", "4+4=8", "not given"},
        {"reach:digits=2", "37,4>12:", "4+0=4", "not given"},
        {"reach:digits=2", "37,4>12:", "4*1=4", "not given"},
        /* what is not so written */
        {"reach:digits=2", "37,4>26:", "", "empty"},
        {"reach:digits=2", "37,6>12:", "6/3=2", "not written"},
        {"reach:digits=2", "37,4>12:", "4-7=-3", "not written"},
        {"reach:digits=2", "37,4>12:", "+4*3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*+3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3=+12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3=012", "not written"},
        {"reach:digits=2", "37,4>12:", "04*3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*03=12", "not written"},
        {"reach:digits=2", "37,4>12:", " 4*3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4 *3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4**3=12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3", "not written"},
        {"reach:digits=2", "37,4>12:", "12", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3=12 ", "text after"},
        {"reach:digits=2", "37,4>12:", "4*3=12\n", "text after"},
        {"reach:digits=2", "37,4>12:", "4*3=12.0", "text after"},
        {"reach:digits=2", "37,4>12:", "4*3=12:", "text after"},
        {"reach:digits=2", "37,4>12:", "4*3=12,", "not written"},
        {"reach:digits=2", "37,4>19:", "4*3=12, 12+7=19", "not written"},
        {"reach:digits=2", "37,4>19:", "4*3=12;12+7=19", "text after"},
        {"reach:digits=2", "37,4>19:", "4*3=12,,12+7=19", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3=18446744073709551628", "not written"},
        {"reach:digits=2", "37,4>12:", "4*3=4294967308", "not written"},
        {"reach:digits=2", "37,4>12:", "18446744073709551620*3=12", "not written"},
        /* prompts that are no problems */
        {"reach:digits=2", "", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,4>12", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,4>12::", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,4>012:", "4*3=12", "the prompt"},
        {"reach:digits=2", " 37,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "73,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "33,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "13,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "03,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "3,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "379,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "3,7,4>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,0>12:", "0+7=7", "the prompt"},
        {"reach:digits=2", "37,12>19:", "12+7=19", "the prompt"},
        {"reach:digits=2", "37,04>12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,2>9:", "2+7=9", "the prompt"},
        {"reach:digits=2", "37,4>100:", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,4>18446744073709551628:", "4*3=12", "the prompt"},
        {"reach:digits=2", "37,4>-12:", "4*3=12", "the prompt"},
        {"reach:digits=2", "374>12:", "4*3=12", "the prompt"},
        {"reach", "37,4>12:", "4*3=12", "the prompt"},
    };
    check_verdicts(rows, sizeof rows / sizeof *rows);
    check_reach_exhaustively();
}

/* Whether a response leads through a maze of 3 x 3, by coordinates. */
static bool walks_through(const char *prompt, const char *response)
{
    int x = 0, y = 0, seen = 1;
    for (; *response; response++) {
        int east = *response == '0', south = *response == '1', west = *response == '2';
        int to_x = x + east - west, to_y = y + south - (*response == '3');
        if (to_x < 0 || to_y < 0 || to_x > 2 || to_y > 2)
            return false;
        int left = to_x < x ? to_x : x, top = to_y < y ? to_y : y;
        bool open = (prompt[3 * top + left] - '0') & (x != to_x ? 1 : 2);
        if (!open || seen >> (3 * to_y + to_x) & 1)
            return false;
        x = to_x;
        y = to_y;
        seen |= 1 << (3 * y + x);
    }
    return x == 2 && y == 2;
}

/* Every response of at most nine moves in a maze of 3 x 3. */
static void check_maze_exhaustively(const char *prompt)
{
    Task t = task_of("maze:size=3");
    int right = 0;
    for (int length = 1; length <= 9; length++)
        for (int code = 0; code < 1 << 2 * length; code++) {
            char text[10] = "";
            for (int k = 0; k < length; k++)
                text[k] = (char)('0' + (code >> 2 * k & 3));
            bool good = walks_through(prompt, text);
            right += good;
            if (task_verify(&t, prompt, text).right != good)
                CHECK(false, "%s%s: it is %s", prompt, text, good ? "right" : "wrong");
        }
    CHECK(right > 0, "%s: %d right", prompt, right);
}

static void test_maze_verifier(void)
{
    static const VerdictRow rows[] = {
        {"maze:size=2,loops=0", "1210:", "01", "right"},
        {"maze:size=2,loops=0", "3210:", "01", "right"},
        {"maze:size=2,loops=0", "3210:", "10", "right"},
        {"maze:size=3", "312222110:", "0011", "right"},
        {"maze:size=3", "312222110:", "1100", "right"},
        {"maze:size=3", "132222110:", "010", "wall"},
        {"maze:size=3", "132222110:", "01", "goal"},
        {"maze:size=3", "132222110:", "0110", "right"},
        {"maze:size=3", "312222110:", "01", "wall"},
        {"maze:size=3", "312222110:", "2", "wall"},
        {"maze:size=3", "312222110:", "3", "wall"},
        {"maze:size=3", "312222110:", "000", "wall"},
        {"maze:size=3", "312222110:", "111", "wall"},
        {"maze:size=3", "312222110:", "00110", "wall"},
        {"maze:size=3", "312222110:", "00111", "wall"},
        {"maze:size=3", "312222110:", "1102", "twice"},
        {"maze:size=3", "312222110:", "1103", "goal"},
        {"maze:size=3", "312222110:", "020011", "twice"},
        {"maze:size=3", "312222110:", "02", "twice"},
        {"maze:size=3", "312222110:", "00112", "goal"},
        {"maze:size=3", "312222110:", "001120", "twice"},
        {"maze:size=3", "312222110:", "0011223300", "twice"},
        {"maze:size=3", "312222110:", "00112233", "twice"},
        {"maze:size=3", "312222110:", "0", "goal"},
        {"maze:size=3", "312222110:", "", "empty"},
        {"maze:size=3", "312222110:", "0011 ", "not written"},
        {"maze:size=3", "312222110:", " 0011", "not written"},
        {"maze:size=3", "312222110:", "0011\n", "not written"},
        {"maze:size=3", "312222110:", "0,0,1,1", "not written"},
        {"maze:size=3", "312222110:", "0011:", "not written"},
        {"maze:size=3", "312222110:", "0011,", "not written"},
        {"maze:size=3", "312222110:", "00114", "not written"},
        {"maze:size=3", "312222110:", "+0011", "not written"},
        {"maze:size=3", "312222110:", "00-11", "not written"},
        {"maze:size=3", "312222110:", "0011\xff", "not written"},
        {"maze:size=3", "312222110", "0011", "the prompt"},
        {"maze:size=3", "312222110::", "0011", "the prompt"},
        {"maze:size=3", "312222110:0", "0011", "the prompt"},
        {"maze:size=3", "31222211:", "0011", "the prompt"},
        {"maze:size=3", "3122221100:", "0011", "the prompt"},
        {"maze:size=3", "313222110:", "0011", "the prompt"},
        {"maze:size=3", "311222110:", "0011", "the prompt"},
        {"maze:size=3", "312222130:", "0011", "the prompt"},
        {"maze:size=3", "312222112:", "0011", "the prompt"},
        {"maze:size=3", "312222111:", "0011", "the prompt"},
        {"maze:size=3", "312422110:", "0011", "the prompt"},
        {"maze:size=3", "312 22110:", "0011", "the prompt"},
        {"maze:size=3", "", "0011", "the prompt"},
        {"maze:size=4", "312222110:", "0011", "the prompt"},
        {"maze:size=2,loops=0", "312222110:", "0011", "the prompt"},
    };
    check_verdicts(rows, sizeof rows / sizeof *rows);
    check_maze_exhaustively("312222110:");
    check_maze_exhaustively("332332110:");
    check_maze_exhaustively("122322110:");
}

/* ================================================================ how many are right */

/* The right responses of each length: every string of operations and digits is tried, and the
 * verifier has to agree. */
static void reach_by_hand(const Task *t, const char *prompt, int right[REACH_STEPS + 1])
{
    int moves = 3 * t->digits, strings = 1;
    int start = prompt[t->digits + 1] - '0', target = atoi(strchr(prompt, '>') + 1);
    for (int length = 1; length <= t->steps; length++) {
        right[length] = 0;
        strings *= moves;
        for (int code = 0; code < strings; code++) {
            int value[REACH_STEPS + 1] = {start}, rest = code, n = 0;
            char text[TASK_RESPONSE_MAX];
            bool good = true;
            for (int k = 0; k < length; k++, rest /= moves) {
                int a = value[k], d = prompt[rest % moves / 3] - '0', o = rest % 3;
                int c = value[k + 1] = o == 0 ? a + d : o == 1 ? a - d : a * d;
                n += snprintf(text + n, sizeof text - (size_t)n, "%s%d%c%d=%d", k ? "," : "", a,
                              "+-*"[o], d, c);
                good &= c >= 0 && c <= t->max;
                for (int i = 0; i <= k; i++)
                    good &= value[i] != c;
            }
            good &= value[length] == target;
            right[length] += good;
            if (task_verify(t, prompt, text).right != good)
                CHECK(false, "%s%s: it is %s", prompt, text, good ? "right" : "wrong");
        }
    }
}

/* The right responses of each length through a maze of at most 16 cells: ways by the set of cells
 * that they enter and the cell where they are (Held and Karp). */
static void maze_by_hand(const Task *t, const char *prompt, int right[MAZE_CELLS])
{
    int size = t->size, cells = size * size;
    int(*ways)[16] = xcalloc((size_t)1 << cells, sizeof *ways);
    memset(right, 0, MAZE_CELLS * sizeof *right);
    ways[1][0] = 1;
    for (int set = 1; set < 1 << cells; set++)
        for (int a = 0; a < cells; a++) {
            if (!ways[set][a])
                continue;
            int length = -1;
            for (int i = 0; i < cells; i++)
                length += set >> i & 1;
            right[length] += a == cells - 1 ? ways[set][a] : 0;
            for (int b = 0; b < cells && a != cells - 1; b++) {
                int low = a < b ? a : b, apart = abs(a - b);
                bool east = apart == 1 && low / size == (low + 1) / size;
                int side = east ? 1 : apart == size ? 2 : 0;
                if (set >> b & 1 || !((prompt[low] - '0') & side))
                    continue;
                ways[set | 1 << b][b] += ways[set][a];
            }
        }
    free(ways);
}

/* The program's count of right responses of at most `longest` steps or moves. */
static int count_ways(const Task *t, const char *prompt, int longest)
{
    if (t->kind == TASK_MAZE) {
        Maze m;
        CHECK(maze_read_prompt(t, prompt, &m), "%s", prompt);
        MazeSearch s = maze_search(&m);
        return maze_count(&s, longest);
    }
    Reach p;
    ReachSearch s;
    CHECK(reach_read_prompt(t, prompt, &p), "%s", prompt);
    reach_search(&p, &s);
    return reach_count(&s, longest);
}

/* The program's counts for one problem, for every longest length. */
static void check_count(const Task *t, const char *prompt)
{
    int right[MAZE_CELLS] = {0}, all = 0;
    bool maze = t->kind == TASK_MAZE;
    maze ? maze_by_hand(t, prompt, right) : reach_by_hand(t, prompt, right);
    for (int k = 1; k <= (maze ? t->size * t->size - 1 : t->steps); k++) {
        all += right[k];
        int counted = count_ways(t, prompt, k);
        CHECK(counted == all, "%s has %d right responses of at most %d, not %d", prompt, all, k,
              counted);
    }
    CHECK(all > 0, "%s has no right response", prompt);
}

static void check_counts(const char *spec, uint32_t problems)
{
    Task t = task_of(spec);
    Buf prompt = {0}, answer = {0};
    for (uint32_t i = 0; i < problems; i++) {
        prompt.n = answer.n = 0;
        task_problem(&t, 5, SPLIT_TRAIN, i, &prompt, &answer);
        check_count(&t, prompt.s);
    }
    buf_free(&prompt, &answer);
}

static int compare_int(const void *x, const void *y) { return *(const int *)x - *(const int *)y; }

/* The 10th, 50th and 90th percentile of the number of right responses, as METHOD.md has them; they
 * were taken from other problems of the same kind. */
static void check_percentiles(const char *spec, const int expected[3])
{
    enum { PROBLEMS = 1000 };
    Task t = task_of(spec);
    int count[PROBLEMS];
    Buf prompt = {0}, answer = {0};
    for (uint32_t i = 0; i < PROBLEMS; i++) {
        prompt.n = answer.n = 0;
        task_problem(&t, 7, SPLIT_TRAIN, i, &prompt, &answer);
        count[i] = count_ways(&t, prompt.s, t.kind == TASK_MAZE ? t.size * t.size - 1 : t.steps);
    }
    qsort(count, PROBLEMS, sizeof *count, compare_int);
    for (int k = 0; k < 3; k++) {
        int found = count[PROBLEMS * (1 + 4 * k) / 10];
        CHECK(abs(found - expected[k]) <= 1 + expected[k] * 3 / 20, "%s: %d right responses are "
              "percentile %d, not %d", spec, found, 10 + 40 * k, expected[k]);
    }
    buf_free(&prompt, &answer);
}

static void test_right_answers(void)
{
    check_counts("reach:digits=1,steps=6", 3);
    check_counts("reach:digits=2", 10);
    check_counts("reach:digits=3,max=20", 5);
    check_counts("reach:digits=8,steps=3,max=999", 2);
    check_counts("maze:size=2,loops=1", 4);
    check_counts("maze:size=3", 6);
    check_counts("maze:size=4,loops=0", 2);
    check_counts("maze:size=4,loops=9", 3);
    check_percentiles("reach", (int[]){260, 625, 1319});
    check_percentiles("reach:digits=2", (int[]){1, 4, 13});
    check_percentiles("maze:loops=0", (int[]){1, 1, 1});
    check_percentiles("maze", (int[]){3, 6, 8});
    check_percentiles("maze:loops=6", (int[]){18, 33, 44});
    Task t = task_of("reach:digits=2,steps=3");
    check_count(&t, "38,4>12:"); /* 4*3 and 4+8 */
    t = task_of("maze:size=4"); /* without walls: OEIS A007764 */
    CHECK(count_ways(&t, "3332333233321110:", 15) == 184, "4 x 4: %d",
          count_ways(&t, "3332333233321110:", 15));
    t = task_of("maze:size=3");
    CHECK(count_ways(&t, "332332110:", 8) == 12, "3 x 3");
    CHECK(count_ways(&t, "112222110:", 8) == 1 && count_ways(&t, "110222110:", 8) == 0, "no way");
}

/* ================================================================ what sft shows */

/* Solutions of one problem: each right one of the lengths that the teacher shows is as frequent as
 * the others, by chi-square (5 standard deviations), and there is no other. */
static void check_uniform(const char *spec, const char *prompt, int expected)
{
    enum { MOST = 300, EACH = 200 };
    static char seen[MOST][TASK_RESPONSE_MAX];
    static int count[MOST];
    Task t = task_of(spec);
    Buf text = {0};
    int n = 0;
    double chi_square = 0;
    memset(count, 0, sizeof count);
    for (uint32_t i = 0; i < (uint32_t)(EACH * expected); i++) {
        text.n = 0;
        task_solution(&t, prompt, 3, i, &text);
        int k = 0;
        while (k < n && strcmp(seen[k], text.s))
            k++;
        if (k == n) {
            Verdict v = task_verify(&t, prompt, text.s);
            CHECK(v.right && n < MOST, "%s%s: %s", prompt, text.s, v.reason);
            snprintf(seen[n++], TASK_RESPONSE_MAX, "%s", text.s);
        }
        count[k]++;
    }
    CHECK(n == expected, "%s: %s: %d right responses shown, not %d", spec, prompt, n, expected);
    for (int k = 0; k < n; k++)
        chi_square += (count[k] - EACH) * (count[k] - EACH) / (double)EACH;
    CHECK(chi_square < n - 1 + 5 * sqrt(2.0 * n), "%s: %s: chi-square %.1f of %d", spec, prompt,
          chi_square, n);
    buf_free(&text);
}

/* The first drawn problem that has at least so many right responses, shown by both teachers. */
static void check_teachers(const char *spec, int least)
{
    Task t = task_of(spec);
    for (uint32_t i = 0;; i++) {
        Buf prompt = {0}, answer = {0};
        int right[MAZE_CELLS] = {0}, all = 0, shortest = 0;
        task_problem(&t, 9, SPLIT_TRAIN, i, &prompt, &answer);
        if (t.kind == TASK_MAZE)
            maze_by_hand(&t, prompt.s, right);
        else
            reach_by_hand(&t, prompt.s, right);
        for (int k = 0; k < MAZE_CELLS; k++) {
            shortest = all ? shortest : right[k];
            all += right[k];
        }
        bool enough = all >= least && all < 300;
        if (enough) {
            char other[100];
            snprintf(other, sizeof other, "%s,teacher=shortest", spec);
            check_uniform(spec, prompt.s, all);
            check_uniform(other, prompt.s, shortest);
        }
        buf_free(&prompt, &answer);
        if (enough)
            return;
    }
}

static void test_corpus(void)
{
    check_teachers("reach:digits=2", 12);
    check_teachers("reach:digits=3,steps=4", 40);
    check_teachers("reach:digits=7,steps=2", 3);
    check_teachers("maze:size=4,loops=3", 5);
    check_teachers("maze:size=4,loops=9", 50);
    check_uniform("maze:size=3,teacher=shortest", "332332110:", 6);
    check_uniform("maze:size=3", "332332110:", 12);

    /* From elsewhere: too many ways to count, and none at all. */
    Buf text = {0};
    Task t = task_of("maze:size=7");
    const char *open = "3333332333333233333323333332333333233333321111110:";
    double start = now_seconds();
    for (uint32_t i = 0; i < 20; i++) {
        text.n = 0;
        task_solution(&t, open, 1, i, &text);
        CHECK(text.n == 12 && task_verify(&t, open, text.s).right, "%s%s", open, text.s);
    }
    CHECK(now_seconds() - start < 10, "a maze without walls: %.1f s", now_seconds() - start);
    text.n = 0;
    t = task_of("maze:size=3");
    task_solution(&t, "110222110:", 1, 1, &text);
    task_solution(&t, "312222110", 1, 1, &text);
    t = task_of("maze:size=3,teacher=shortest");
    task_solution(&t, "110222110:", 1, 1, &text);
    t = task_of("reach:digits=1,steps=2");
    task_solution(&t, "2,1>99:", 1, 1, &text);
    task_solution(&t, "2,1>99", 1, 1, &text);
    t = task_of("reach:digits=1,steps=2,teacher=shortest");
    task_solution(&t, "2,1>99:", 1, 1, &text);
    CHECK(text.n == 0, "a solution where there is none: '%s'", text.s);
    buf_free(&text);
}

/* Two digits a move: right where the moves are, one class for all spellings of a way, and a corpus
 * of all of them alike. */
static void test_maze_spellings(void)
{
    static const struct {
        const char *response, *reason, *class;
    } rows[] = {
        {"0011", "right", "0011"}, {"4455", "right", "0011"}, {"4015", "right", "0011"},
        {"5140", "right", "1100"}, {"046", "twice", "002"},   {"7", "wall", "3"},
        {"0018", "not written", "?0018"}, {"445", "goal", "001"},
    };
    Task t = task_of("maze:size=3,spellings=2"), plain = task_of("maze:size=3");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Verdict v = task_verify(&t, "312222110:", rows[i].response);
        Buf class = {0};
        task_answer_class(&t, "312222110:", rows[i].response, &class);
        CHECK(strstr(v.reason, rows[i].reason) && v.right == !strcmp(rows[i].reason, "right") &&
              !strcmp(class.s, rows[i].class),
              "%s: %s, class %s", rows[i].response, v.reason, class.s);
        buf_free(&class);
    }
    CHECK(!task_verify(&plain, "312222110:", "4455").right, "spellings=1 takes a second spelling");
    check_uniform("maze:size=2,loops=1,spellings=2", "3210:", 8);
    check_uniform("maze:size=2,loops=1", "3210:", 2);
}

/* ================================================================ problems, splits, keys */

/* What a drawn problem has to be, beside solvable. */
static void check_drawn(const Task *t, const char *prompt)
{
    int ways = 0, shortest = 0;
    if (t->kind == TASK_REACH) {
        const char *start = strchr(prompt, ',') + 1;
        while (shortest < t->steps && !count_ways(t, prompt, shortest))
            shortest++;
        CHECK(start - prompt == t->digits + 1 && *start >= '1' && *start <= '9', "%s", prompt);
        CHECK(shortest >= t->shortest && atoi(start + 2) >= 10 && atoi(start + 2) <= t->max, "%s",
              prompt);
        return;
    }
    for (int i = 0; i < t->size * t->size; i++)
        ways += (prompt[i] - '0') / 2 + (prompt[i] - '0') % 2;
    CHECK(ways == t->size * t->size - 1 + t->loops, "%s: %d ways from cell to cell", prompt, ways);
    CHECK(count_ways(t, prompt, t->size * t->size - 1) >= 1, "%s", prompt);
}

static void check_many_problems(const char *spec, uint32_t problems)
{
    Task t = task_of(spec);
    Buf text[6] = {{0}}; /* prompt, answer, solution, and all three again */
    for (uint32_t i = 0; i < problems; i++) {
        for (int again = 0; again < 6; again += 3) {
            text[again].n = text[again + 1].n = text[again + 2].n = 0;
            task_problem(&t, 11, (Split)(i % 3), i, &text[again], &text[again + 1]);
            task_solution(&t, text[again].s, 11, i, &text[again + 2]);
        }
        for (int k = 0; k < 3; k++) {
            CHECK(!strcmp(text[k].s, text[k + 3].s), "%s: '%s' then '%s'", spec, text[k].s,
                  text[k + 3].s);
            CHECK(text[k].s[strspn(text[k].s, TASK_ALPHABET)] == 0, "%s: '%s'", spec, text[k].s);
            CHECK(!k || task_verify(&t, text[0].s, text[k].s).right, "%s%s", text[0].s, text[k].s);
        }
        CHECK(text[0].n < TASK_PROMPT_MAX && imax((int)text[1].n, (int)text[2].n) <
                  TASK_RESPONSE_MAX, "%s: too long", spec);
        check_drawn(&t, text[0].s);
    }
    for (int k = 0; k < 6; k++)
        buf_free(&text[k]);
}

static void test_many_problems(void)
{
    static const char *const specs[] = {
        "reach", "reach:digits=2", "reach:digits=3,steps=5,shortest=4", "reach:digits=2,max=999",
        "reach:digits=1,steps=6,teacher=shortest", "reach:digits=8,steps=1", "maze", "maze:loops=0",
        "maze:size=7,loops=9", "maze:size=4,loops=5,teacher=shortest", "maze:size=6,loops=1"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        check_many_problems(specs[i], 300);

    /* The sequence is part of what a run can be repeated from: it must not change unnoticed. */
    static const char *const pinned[][2] = {
        /* problem and gold answer, and a solution */
        {"add", "75+39:5+9=14,7+3+1=11,114 5+9=14,7+3+1=11,114"},
        {"maze", "1132231302213102331210110:00111100 00122111030100"},
        {"reach", "3456789,9>75:9*6=54,54+8=62,62+7=69,69+6=75 9*8=72,72-3=69,69+9=78,78-3=75"},
        {"reach:digits=2,teacher=shortest",
         "35,9>75:9+3=12,12+3=15,15*5=75 9+5=14,14*5=70,70+5=75"}};
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++) {
        Task t = task_of(pinned[i][0]);
        Buf text = {0}, prompt = {0};
        task_problem(&t, 1, SPLIT_TRAIN, 0, &prompt, &text);
        buf_printf(&prompt, "%s ", text.s);
        text.n = 0;
        char *colon = xstrdup(prompt.s);
        strchr(colon, ':')[1] = 0;
        task_solution(&t, colon, 1, 0, &prompt);
        CHECK(!strcmp(prompt.s, pinned[i][1]), "%s: problem 0 of seed 1 is now '%s'", pinned[i][0],
              prompt.s);
        free(colon);
        buf_free(&text, &prompt);
    }
}

/* The same text for the same problem, whatever the order of its numbers, by other means than the
 * program's. */
static void canonical_text(const Task *t, const char *prompt, char out[TASK_PROMPT_MAX])
{
    snprintf(out, TASK_PROMPT_MAX, "%s", prompt);
    if (t->kind == TASK_COUNTDOWN && t->max < 10)
        canonical_prompt(prompt, out);
    if (t->kind == TASK_ADD) {
        int a = atoi(prompt), b = atoi(strchr(prompt, '+') + 1);
        snprintf(out, TASK_PROMPT_MAX, "%d+%d:", imin(a, b), imax(a, b));
    }
}

/* Problems of all three splits: none of one is in another. Returns how many of each differ. */
static void check_apart(const char *spec, int distinct[3])
{
    enum { EACH = 10000 };
    Task t = task_of(spec);
    char(*text)[TASK_PROMPT_MAX] = xcalloc(3 * EACH, sizeof *text);
    Buf prompt = {0}, answer = {0};
    for (uint32_t i = 0; i < 3 * EACH; i++) {
        prompt.n = answer.n = 0;
        task_problem(&t, 1 + i / EACH, (Split)(i / EACH), i, &prompt, &answer);
        canonical_text(&t, prompt.s, text[i]);
    }
    for (int k = 0; k < 3; k++)
        qsort(text[k * EACH], EACH, sizeof *text, compare_prompts);
    for (int k = 0; k < 3; k++) {
        int shared = 0, other = (k + 1) % 3;
        distinct[k] = 0;
        for (int i = k * EACH; i < (k + 1) * EACH; i++) {
            distinct[k] += i == k * EACH || strcmp(text[i], text[i - 1]) != 0;
            shared += bsearch(text[i], text[other * EACH], EACH, sizeof *text, compare_prompts) !=
                      NULL;
        }
        CHECK(shared == 0, "%s: %d problems are in splits %d and %d", spec, shared, k, other);
    }
    free(text);
    buf_free(&prompt, &answer);
}

/* One draw belongs to one split: 7 of 8 to training, 1 of 16 each to validation and test. */
static void check_shares(const char *spec)
{
    enum { DRAWS = 8000 };
    Task t = task_of(spec);
    int count[3] = {0}, drawn = 0;
    Buf prompt = {0}, answer = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        int splits = 0;
        for (int k = 0; k < 3; k++) {
            Dice d = {.seed = 1, .index = i};
            bool here = task_draw(&t, &d, (Split)k, &prompt, &answer);
            count[k] += here;
            splits += here;
        }
        CHECK(splits <= 1, "%s: draw %d is in %d splits", spec, (int)i, splits);
        drawn += splits;
    }
    CHECK(drawn > DRAWS / 4, "%s: %d draws are problems", spec, drawn);
    for (int k = 1; k < 3; k++)
        CHECK(fabs(count[k] - drawn / 16.0) < 5 * sqrt(drawn / 16.0), "%s: %d of %d in split %d",
              spec, count[k], drawn, k);
    buf_free(&prompt, &answer);
}

static void test_splits(void)
{
    static const struct {
        const char *spec;
        bool few; /* so few problems that all of the held-out ones come */
    } table[] = {
        {"countdown:numbers=2", true}, {"countdown:numbers=3", true}, {"countdown", false},
        {"countdown:numbers=5", false}, {"countdown:numbers=2,max=99", false}, {"add", true},
        {"add:digits=5", false}, {"maze", false}, {"maze:size=3,loops=0", true},
        {"reach", true}, {"reach:digits=2,steps=5", true}, {"reach:digits=3,max=999", false}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int n[3];
        check_apart(table[i].spec, n);
        double share = n[1] / (double)(n[1] + n[2]), wide = 2.5 / sqrt(n[1] + n[2]);
        CHECK(!table[i].few || fabs(share - 0.5) < wide, "%s: %d valid, %d test", table[i].spec,
              n[1], n[2]);
    }
    for (int kind = 0; kind < N_TASKS; kind++)
        check_shares(TASKS[kind].name);
    check_shares("reach:digits=2");
}

/* task_key: equal for one problem however it is written, and for nothing else. */
static void test_task_key(void)
{
    static const struct {
        const char *spec, *prompt[2];
        bool same;
    } table[] = {
        {"countdown", {"3574>26:", "7534>26:"}, true},
        {"countdown", {"3574>26:", "4357>26:"}, true},
        {"countdown", {"3574>26:", "3574>27:"}, false},
        {"countdown", {"3574>26:", "3575>26:"}, false},
        {"countdown:numbers=3,max=99", {"12,5,7>24:", "7,12,5>24:"}, true},
        {"countdown:numbers=3,max=99", {"12,5,7>24:", "12,7,7>24:"}, false},
        {"add", {"47+85:", "85+47:"}, true},
        {"add", {"47+85:", "45+87:"}, false},
        {"reach:digits=2", {"37,4>26:", "37,4>26:"}, true},
        {"reach:digits=2", {"37,4>26:", "37,5>26:"}, false},
        {"reach:digits=2", {"37,4>26:", "37,4>27:"}, false},
        {"reach:digits=2", {"37,4>26:", "38,4>26:"}, false},
        {"reach:digits=2", {"34,7>26:", "37,4>26:"}, false},
        {"maze:size=3", {"312222110:", "312222110:"}, true},
        {"maze:size=3", {"312222110:", "322222110:"}, false},
        {"maze:size=3", {"312222110:", "312222100:"}, false},
        {"maze:size=2,loops=0", {"1210:", "2210:"}, false},
    };
    static const char *const none[][2] = {
        {"countdown", "357>26:"}, {"add", "7+85:"}, {"reach:digits=2", "73,4>26:"},
        {"reach", "37,4>26:"}, {"maze", "312222110:"}, {"maze:size=3", "313222110:"},
        {"countdown", ""}, {"add", ""}, {"maze", ""}, {"reach", ""}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t = task_of(table[i].spec);
        uint64_t x = task_key(&t, table[i].prompt[0]), y = task_key(&t, table[i].prompt[1]);
        CHECK(x && y && (x == y) == table[i].same, "%s and %s: %016llx, %016llx",
              table[i].prompt[0], table[i].prompt[1], (unsigned long long)x, (unsigned long long)y);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        Task t = task_of(none[i][0]);
        CHECK(!task_key(&t, none[i][1]), "%s: '%s' has a key", none[i][0], none[i][1]);
    }
}

/* ================================================================ verify --task */

static void test_verify_task(void)
{
    Path file = put_file("responses.jsonl",
        "{\"prompt\": \"37,4>26:\", \"response\": \"4*3=12,12+7=19,19+7=26\"}\n\n"
        "{\"response\": \"4*3=12\", \"x\": [1], \"prompt\": \"37,4>26:\"}\n"
        "{\"prompt\": \"37,4>26:\", \"response\": \"twenty-six\"}\n");
    CHECK(cli("verify --task reach:digits=2 --data %s", file.s) == 0, "%s", cli_err);
    CHECK(!strcmp(cli_out,
                  "{\"right\": true, \"reason\": \"right\", "
                  "\"class\": \"4*3=12,12+7=19,19+7=26\"}\n"
                  "{\"right\": false, \"reason\": \"the last value is not the target\", "
                  "\"class\": \"4*3=12\"}\n"
                  "{\"right\": false, \"reason\": \"a step is not written as number, one of + - *, "
                  "digit, =, number\", \"class\": \"?twenty-six\"}\n"), "%s", cli_out);
    CHECK(strstr(cli_err, "responses.jsonl: 1 of 3 right"), "%s", cli_err);
    CHECK(cli("verify --task reach --data %s", file.s) == 0 && strstr(cli_err, "0 of 3") &&
              strstr(cli_out, "the prompt is not a problem"), "%s%s", cli_out, cli_err);
    static const char *const each[][3] = {
        {"countdown:numbers=3", "{\"prompt\": \"357>26:\", \"response\": \"3*7=21,5+21=26\"}",
         "\"class\": \"3*7=21,5+21=26\"}"},
        {"add", "{\"prompt\": \"47+85:\", \"response\": \"7+5=12,4+8+1=13,132\"}",
         "\"class\": \"7+5=12,4+8+1=13,132\"}"},
        {"maze:size=3", "{\"prompt\": \"312222110:\", \"response\": \"1100\"}",
         "\"class\": \"1100\"}"},
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        put_file("one.jsonl", each[i][1]);
        CHECK(cli("verify --task %s --data %s/one.jsonl", each[i][0], tmp_dir()) == 0 &&
                  strstr(cli_out, "{\"right\": true") && strstr(cli_out, each[i][2]) &&
                  strstr(cli_err, "1 of 1 right"), "%s%s", cli_out, cli_err);
    }
    static const char *const bad[][2] = {
        {"{\"prompt\": \"1210:\"}", "line 2: expected one prompt and one response"},
        {"{\"response\": \"01\"}", "line 2: expected one prompt and one response"},
        {"{\"prompt\": \"1210:\", \"response\": \"01\", \"response\": \"01\"}",
         "line 2: expected one"},
        {"{\"prompt\": 1210, \"response\": \"01\"}", "line 2: prompt: expected a string"},
        {"{\"prompt\": \"1210:\", \"response\": [\"01\"]}", "line 2: response: expected a string"},
        {"{\"prompt\": \"1210:\", \"response\": \"0\\u00001\"}", "line 2: response: "},
        {"{\"prompt\": \"1210:\", \"response\": \"01\"", "line 2: "},
        {"[]", "line 2: expected an object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"prompt\": \"1210:\", \"response\": \"01\"}\n%s\n",
                 bad[i][0]);
        put_file("bad2.jsonl", text);
        CHECK(cli("verify --task maze:size=2,loops=0 --data %s/bad2.jsonl", tmp_dir()) == 1 &&
                  strstr(cli_err, "bad2.jsonl: ") && strstr(cli_err, bad[i][1]), "%s: %s",
              bad[i][0], cli_err);
    }
    CHECK(cli("verify --task maze") == 2 && cli("verify --task maze --pred 01 --gold 01") == 2 &&
              cli("verify --task maze --data %s --gold 1", file.s) == 2 &&
              cli("verify --data %s --pred 1", file.s) == 2 && cli("verify") == 2, "usage");
    CHECK(cli("verify --task maze:size=9 --data %s", file.s) == 2 && strstr(cli_err, "size=9"),
          "%s", cli_err);
    CHECK(cli("verify --data %s", file.s) == 1 && strstr(cli_err, "line 1: expected one response"),
          "without --task: %s", cli_err);
}

#endif
