/* tasks.h: tests of the built-in problems and their verifiers. */
#ifndef TESTS_TASKS_H
#define TESTS_TASKS_H

#include "check.h"

static Task task_of(const char *spec)
{
    Task t = {0};
    char error[200] = "";
    CHECK(task_parse(spec, &t, error, sizeof error), "task_parse('%s'): %s", spec, error);
    return t;
}

static void test_task_spec(void)
{
    static const struct {
        const char *spec, *canonical; /* NULL: refused */
    } table[] = {
        {"countdown", "countdown:numbers=4,max=9"},
        {"countdown:max=99", "countdown:numbers=4,max=99"},
        {"countdown:max=12,numbers=2", "countdown:numbers=2,max=12"},
        {"add", "add:digits=2"},
        {"add:digits=9", "add:digits=9"},
        {"maze", "maze:size=5,loops=3,spellings=1,teacher=uniform"},
        {"maze:size=7,loops=9", "maze:size=7,loops=9,spellings=1,teacher=uniform"},
        {"maze:size=2,teacher=shortest,loops=1",
         "maze:size=2,loops=1,spellings=1,teacher=shortest"},
        {"reach", "reach:digits=7,steps=4,shortest=1,max=99,teacher=uniform"},
        {"reach:teacher=shortest", "reach:digits=7,steps=4,shortest=1,max=99,teacher=shortest"},
        {"reach:steps=6,shortest=6,max=999,digits=1,teacher=uniform",
         "reach:digits=1,steps=6,shortest=6,max=999,teacher=uniform"},
        {"", NULL},
        {"count", NULL},
        {"countdowns", NULL},
        {"countdown:", NULL},
        {"countdown,max=9", NULL},
        {"countdown:max", NULL},
        {"countdown:max=", NULL},
        {"countdown:max=9,", NULL},
        {"countdown:max=09", NULL},
        {"countdown:max=+9", NULL},
        {"countdown:max=9 ", NULL},
        {"countdown:max=2", NULL},
        {"countdown:max=100", NULL},
        {"countdown:max=99999999999999999999", NULL},
        {"countdown:numbers=7", NULL},
        {"countdown:max=9,max=10", NULL},
        {"countdown:digits=2", NULL},
        {"countdown:ma=9", NULL},
        {"add:digits=0", NULL},
        {"add:digits=2:digits=3", NULL},
        {"add:teacher=uniform", NULL},
        {"maze:size=1", NULL},
        {"maze:size=8", NULL},
        {"maze:size=2", NULL},
        {"maze:size=2,loops=2", NULL},
        {"maze:size=3,loops=5", NULL},
        {"maze:loops=10", NULL},
        {"maze:teacher=", NULL},
        {"maze:teacher=0", NULL},
        {"maze:teacher=uniform|shortest", NULL},
        {"maze:teacher=shortestt", NULL},
        {"maze:teacher=short", NULL},
        {"maze:teacher=uniform,teacher=uniform", NULL},
        {"maze:steps=4", NULL},
        {"reach:digits=9", NULL},
        {"reach:digits=0", NULL},
        {"reach:steps=7", NULL},
        {"reach:shortest=0", NULL},
        {"reach:shortest=5", NULL},
        {"reach:steps=2,shortest=3", NULL},
        {"reach:max=9", NULL},
        {"reach:max=1000", NULL},
        {"reach:teacher=shortest ", NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t;
        char error[200] = "";
        Buf spec = {0};
        bool ok = task_parse(table[i].spec, &t, error, sizeof error);
        CHECK(ok == (table[i].canonical != NULL), "'%s': %s", table[i].spec, error);
        CHECK(ok == (error[0] == 0), "'%s': error '%s'", table[i].spec, error);
        if (ok && table[i].canonical) {
            task_spec(&t, &spec);
            CHECK(!strcmp(spec.s, table[i].canonical), "'%s' is '%s'", table[i].spec, spec.s);
        }
        buf_free(&spec);
    }
    char error[200];
    Task t;
    task_parse("x", &t, error, sizeof error);
    CHECK(!strcmp(error, "unknown task 'x'; expected countdown, add, maze or reach"), "%s", error);
    task_parse("maze:size=3,loops=5", &t, error, sizeof error);
    CHECK(strstr(error, "loops=5") && strstr(error, "at most 4, (size-1)^2"), "%s", error);
    task_parse("reach:steps=2,shortest=3", &t, error, sizeof error);
    CHECK(strstr(error, "shortest=3") && strstr(error, "at most steps=2"), "%s", error);
    task_parse("reach:teacher=any,max=12", &t, error, sizeof error);
    CHECK(strstr(error, "teacher=any") && strstr(error, "one of uniform|shortest"), "%s", error);
    task_parse("countdown:numbers=7", &t, error, sizeof error);
    CHECK(strstr(error, "numbers=7") && strstr(error, "from 2 to 6"), "%s", error);
    for (volatile size_t size = 1; size < 20; size++) { /* volatile: gcc would warn of the cut */
        memset(error, '!', sizeof error);
        task_parse("countdown:number=3", &t, error, size);
        CHECK(strlen(error) == size - 1 && error[size] == '!', "size %zu: '%s'", size, error);
    }
}

/* A right derivation of three numbers, by other means than the verifier's: every ordered pair,
 * every operation, in doubles; whatever is whole and not negative is kept. */
static int all_derivations(const double number[3], double target, char found[][32], int most)
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int both = 0; i != j && both < 32; both++) {
                char op1 = "+-*/"[both / 8], op2 = "+-*/"[both / 2 % 4];
                double v[2] = {0, number[3 - i - j]}, last, x = number[i], y = number[j];
                v[0] = op1 == '+' ? x + y : op1 == '-' ? x - y : op1 == '*' ? x * y : x / y;
                double a = v[both % 2], b = v[1 - both % 2];
                last = op2 == '+' ? a + b : op2 == '-' ? a - b : op2 == '*' ? a * b : a / b;
                if (!(v[0] >= 0 && v[0] == floor(v[0]) && last == target) || n == most)
                    continue;
                snprintf(found[n], sizeof found[n], "%.0f%c%.0f=%.0f,%.0f%c%.0f=%.0f", x, op1, y,
                         v[0], a, op2, b, last);
                int k = 0;
                while (strcmp(found[k], found[n]))
                    k++;
                n += k == n;
            }
    return n;
}

/* Of all 1,882,384 pairs of steps over seven values, exactly the right derivations are accepted. */
static void check_verifier_exhaustively(const char *prompt, const double number[3], double target)
{
    enum { VALUES = 7, STEPS = VALUES * 4 * VALUES * VALUES };
    static const int value[VALUES] = {0, 1, 2, 3, 4, 6, 12};
    static char step[STEPS][12];
    char found[64][32], text[32];
    size_t length[STEPS];
    Task t = task_of("countdown:numbers=3");
    int right = all_derivations(number, target, found, 64), written = 0, accepted = 0;
    for (int s = 0; s < STEPS; s++)
        length[s] = (size_t)snprintf(step[s], sizeof step[s], "%d%c%d=%d", value[s % 7],
                                     "+-*/"[s / 7 % 4], value[s / 28 % 7], value[s / 196]);
    for (int k = 0; k < right; k++) {
        int known = 0; /* of the six numbers in it, those among the seven values */
        for (const char *c = found[k]; *c;) {
            int v = (int)strtol(c, (char **)(uintptr_t)&c, 10);
            for (int i = 0; i < VALUES; i++)
                known += value[i] == v;
            c += *c != 0;
        }
        written += known == 6;
        CHECK(task_verify(&t, prompt, found[k]).right, "%s%s is refused", prompt, found[k]);
    }
    for (int x = 0; x < STEPS; x++) {
        memcpy(text, step[x], length[x]);
        text[length[x]] = ',';
        for (int y = 0; y < STEPS; y++) {
            memcpy(text + length[x] + 1, step[y], length[y] + 1);
            if (!task_verify(&t, prompt, text).right)
                continue;
            int k = 0;
            while (k < right && strcmp(found[k], text))
                k++;
            CHECK(k < right, "%s%s is accepted", prompt, text);
            accepted++;
        }
    }
    CHECK(written > 3 && accepted == written, "%s: %d accepted, %d right", prompt, accepted,
          written);
}

static void test_countdown_verifier(void)
{
    static const struct {
        const char *spec, *prompt, *response, *reason; /* part of the reason */
    } table[] = {
        /* right */
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26", "right"},
        {"countdown:numbers=3", "357>26:", "7*3=21,5+21=26", "right"},
        {"countdown:numbers=3", "357>36:", "5+7=12,3*12=36", "right"},
        {"countdown:numbers=2", "72>5:", "7-2=5", "right"},
        {"countdown:numbers=2", "82>4:", "8/2=4", "right"},
        {"countdown:numbers=2", "55>0:", "5-5=0", "right"},
        {"countdown:numbers=3", "553>0:", "5-5=0,0/3=0", "right"},
        {"countdown:numbers=4", "1234>15:", "1+2=3,3*4=12,12+3=15", "right"},
        {"countdown:numbers=4", "1211>1:", "2-1=1,1*1=1,1/1=1", "right"},
        {"countdown:numbers=2,max=99", "57,12>69:", "57+12=69", "right"},
        {"countdown:numbers=2,max=10", "1,9>9:", "1*9=9", "right"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>99:",
         "99*99=9801,99*99=9801,99*99=9801,9801/9801=1,9801*1=9801", "not the target"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>9801:",
         "99*99=9801,99*99=9801,99*99=9801,9801/9801=1,9801*1=9801", "right"},
        /* what an evaluator with a list of allowed characters would pay for */
        {"countdown:numbers=2", "72>49:", "7**2=49", "not written"},
        {"countdown:numbers=2", "72>49:", "7**2", "not written"},
        {"countdown:numbers=2", "72>3:", "7//2=3", "not written"},
        {"countdown:numbers=2", "72>3:", "7/2=3", "arithmetic is false"},
        {"countdown:numbers=3", "152>3:", "1.5*2=3", "not written"},
        {"countdown:numbers=2", "72>5:", "-2+7=5", "not written"},
        {"countdown:numbers=2", "72>5:", "+7-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "(7-2)=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2==5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2", "not written"},
        {"countdown:numbers=2", "72>5:", "5", "not written"},
        {"countdown:numbers=2", "72>5:", "5=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7+-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=05", "not written"},
        {"countdown:numbers=2", "72>5:", "07-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=+5", "not written"},
        {"countdown:numbers=2", "72>5:", " 7-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7 -2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=5 ", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5.0", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5e0", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=0x5", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5\n", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5,", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5,5*1=5", "text after"},
        {"countdown:numbers=2", "72>5:", "72-2=5", "neither given"},
        {"countdown:numbers=2", "72>5:", "7\xc3\x97" "2=14", "not written"},
        /* what the numbers allow */
        {"countdown:numbers=2", "72>5:", "", "empty"},
        {"countdown:numbers=2", "72>5:", "2-7=5", "arithmetic is false"},
        {"countdown:numbers=2", "72>9:", "7-2=9", "arithmetic is false"},
        {"countdown:numbers=2", "72>9:", "7-2=5", "not the target"},
        {"countdown:numbers=2", "72>9:", "8+1=9", "neither given"},
        {"countdown:numbers=2", "72>14:", "7+7=14", "used twice"},
        {"countdown:numbers=3", "357>26:", "3*7=21", "too few steps"},
        {"countdown:numbers=3", "357>21:", "3*7=21", "too few steps"},
        {"countdown:numbers=3", "357>26:", "3*7=21,", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21;21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21, 21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26,", "text after"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26:", "text after"},
        {"countdown:numbers=3", "357>26:", ",3*7=21,21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "21+5=26,3*7=21", "neither given"},
        {"countdown:numbers=3", "357>24:", "3*7=21,21+3=24", "used twice"},
        {"countdown:numbers=3", "357>42:", "3*7=21,21+21=42", "used twice"},
        {"countdown:numbers=3", "357>26:", "3*7=22,22+5=27", "arithmetic is false"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=27", "arithmetic is false"},
        {"countdown:numbers=3", "357>26:", "3*7=20,20+5=26", "arithmetic is false"},
        {"countdown:numbers=3", "553>0:", "5-5=0,3/0=0", "divides by zero"},
        {"countdown:numbers=3", "550>0:", "5-5=0,0/0=0", "the prompt"},
        {"countdown:numbers=3", "555>5:", "5-5=0,5/0=5", "divides by zero"},
        {"countdown:numbers=4", "9999>1:", "9-9=0,9-9=0,0/0=1", "divides by zero"},
        {"countdown:numbers=2", "99>81:", "9*9=0000000081", "not written"},
        {"countdown:numbers=2", "99>81:", "9*9=18446744073709551697", "not written"},
        {"countdown:numbers=2", "99>81:", "9*9=4294967377", "not written"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>1:",
         "99*99=9801,9801*99=970299,970299*99=96059601,96059601*99=9509900499", "not written"},
        {"countdown:numbers=2,max=99", "57,12>69:", "5+7=12", "neither given"},
        {"countdown:numbers=2,max=99", "57,12>69:", "57+12=69,", "text after"},
        /* prompts that are no problems */
        {"countdown:numbers=3", "", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>26", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>26::", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>026:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>-26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "3,5,7>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "3577>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "35>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", " 357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3,max=5", "357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3,max=10", "357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=2,max=10", "11,9>20:", "11+9=20", "the prompt"},
        {"countdown:numbers=2,max=10", "1,,9>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2,max=10", "1,9,>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2,max=10", "01,9>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2", "72>9999999999999999999999:", "7+2=9", "the prompt"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t = task_of(table[i].spec);
        Verdict v = task_verify(&t, table[i].prompt, table[i].response);
        CHECK(strstr(v.reason, table[i].reason), "%s'%s': '%s', expected '%s'", table[i].prompt,
              table[i].response, v.reason, table[i].reason);
        CHECK(v.right == !strcmp(table[i].reason, "right"), "%s'%s': right = %d",
              table[i].prompt, table[i].response, v.right);
    }
    check_verifier_exhaustively("326>12:", (double[]){3, 2, 6}, 12);
    check_verifier_exhaustively("334>3:", (double[]){3, 3, 4}, 3);
}

/* Compares whole prompts whose numbers were sorted as text: "753>26:" becomes "357>26:". */
static int compare_prompts(const void *x, const void *y) { return strcmp(x, y); }

/* Sorts the digits of a prompt of single-digit numbers, by counting. */
static void canonical_prompt(const char *prompt, char out[TASK_PROMPT_MAX])
{
    int n = 0, numbers = (int)strcspn(prompt, ">");
    for (char digit = '0'; digit <= '9'; digit++)
        for (int i = 0; i < numbers; i++)
            if (prompt[i] == digit)
                out[n++] = digit;
    strcpy(out + n, prompt + numbers);
}

/* Generated problems and solutions are right, within their bounds and alphabet, and drawn again
 * from the same arguments they are the same. */
static void check_countdown_problems(const char *spec, uint32_t problems)
{
    Task t = task_of(spec);
    Buf text[6] = {{0}}; /* prompt, answer, solution, and all three again */
    int same_prompt = 0;
    int64_t lowest = INT64_MAX, highest = 0;
    char last[TASK_PROMPT_MAX] = "";
    for (uint32_t i = 0; i < problems; i++) {
        for (int again = 0; again < 6; again += 3) {
            text[again].n = text[again + 1].n = text[again + 2].n = 0;
            task_problem(&t, 11, (Split)(i % 3), i, &text[again], &text[again + 1]);
            task_solution(&t, text[again].s, 11, i, &text[again + 2]);
        }
        const char *prompt = text[0].s;
        for (int k = 0; k < 3; k++) {
            CHECK(!strcmp(text[k].s, text[k + 3].s), "%s: '%s' then '%s'", spec, text[k].s,
                  text[k + 3].s);
            CHECK(text[k].s[strspn(text[k].s, TASK_ALPHABET)] == 0, "%s: '%s'", spec, text[k].s);
        }
        for (int k = 1; k < 3; k++) {
            Verdict v = task_verify(&t, prompt, text[k].s);
            CHECK(v.right, "%s%s: %s", prompt, text[k].s, v.reason);
        }
        CHECK(text[0].n < TASK_PROMPT_MAX && text[2].n < TASK_RESPONSE_MAX, "%s: too long", spec);
        Countdown p = {0};
        CHECK(countdown_read_prompt(&t, prompt, &p), "%s: %s", spec, prompt);
        CHECK(p.target >= 1 && p.target <= (t.max > 9 ? 999 : 99), "%s: %s", spec, prompt);
        for (int k = 0; k < p.count; k++) {
            lowest = p.number[k] < lowest ? p.number[k] : lowest;
            highest = p.number[k] > highest ? p.number[k] : highest;
        }
        same_prompt += !strcmp(prompt, last);
        snprintf(last, sizeof last, "%s", prompt);
    }
    CHECK(lowest == 1 && highest == t.max, "%s: numbers %d to %d", spec, (int)lowest, (int)highest);
    CHECK(same_prompt < (int)problems / 20, "%s: %d prompts repeat the one before", spec,
          same_prompt);
    for (int k = 0; k < 6; k++)
        buf_free(&text[k]);
}

static bool same_class(const Task *t, const char *prompt, const char *x, const char *y)
{
    Buf a = {0}, b = {0};
    task_answer_class(t, prompt, x, &a);
    task_answer_class(t, prompt, y, &b);
    bool same = !strcmp(a.s, b.s);
    buf_free(&a, &b);
    return same;
}

static void check_countdown_classes(void)
{
    static const struct {
        const char *prompt, *x, *y;
        bool same;
    } table[] = {
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", true},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "5*7=35,4*3=12,12+35=47", true},
        {"1234>15:", "1+2=3,3*4=12,12+3=15", "3*4=12,2+1=3,3+12=15", true},
        {"2376>8:", "3+2=5,6+7=13,13-5=8", "7-2=5,6+5=11,11-3=8", false},
        {"1947>37:", "4*7=28,28*1=28,28+9=37", "4*7=28,28/1=28,28+9=37", false},
        {"1947>37:", "4*7=28,28*1=28,28+9=37", "4*7=28,28+9=37,37*1=37", false},
        /* a wrong total, classed like a right one; false arithmetic, apart from true */
        {"4357>46:", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", true},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "4*3=12,5*7=34,12+34=47", false},
        {"4357>47:", "4*3=12,5*7=34,12+34=46", "7*5=34,4*3=12,34+12=46", true},
        {"1323>10:", "1+3=5,2+3=5,5+5=10", "2+3=5,1+3=5,5+5=10", true},
        {"4357>13:", "7-3=4,4+4=8,8+5=13", "3-7=4,4+4=8,8+5=13", false},
        /* no derivations: the steps of a right one in an order that cannot be, or text after it */
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "12+35=47,4*3=12,5*7=35", false},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "4*3=12,5*7=35,12+35=47,", false},
        {"1245>17:", "1+2=3,3*4=12,12+5=17", "3*4=12,1+2=3,5+12=17", false},
        {"4357>47:", "4*3=12,5*7=35", "5*7=35,4*3=12", false},
        {"4357>47:", "", "", true},
        {"4357>47", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", false},
    };
    Task t = task_of("countdown");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        CHECK(same_class(&t, table[i].prompt, table[i].x, table[i].y) == table[i].same,
              "%s '%s' and '%s' are%s of one class", table[i].prompt, table[i].x, table[i].y,
              table[i].same ? " not" : "");

    /* Fifty solutions of a problem with many: varied as texts and as computations. */
    Buf solution[50] = {{0}};
    int texts = 0, classes = 0, straight = 0, commuted = 0;
    for (uint32_t i = 0; i < 50; i++) {
        task_solution(&t, "2376>8:", 5, i, &solution[i]);
        int new_text = 1, new_class = 1;
        for (uint32_t k = 0; k < i; k++) {
            new_text &= strcmp(solution[i].s, solution[k].s) != 0;
            new_class &= !same_class(&t, "2376>8:", solution[i].s, solution[k].s);
        }
        texts += new_text;
        classes += new_class;
        straight += strstr(solution[i].s, "2+3=5") != NULL;
        commuted += strstr(solution[i].s, "3+2=5") != NULL;
    }
    CHECK(straight && commuted, "2+3 %d times, 3+2 %d times", straight, commuted);
    CHECK(texts >= 25 && classes >= 8 && classes < texts, "%d texts, %d classes in 50 solutions",
          texts, classes);
    for (int i = 0; i < 50; i++)
        buf_free(&solution[i]);
}

static void test_countdown_problems(void)
{
    static const char *spec[] = {"countdown:numbers=2", "countdown:numbers=3", "countdown",
                                 "countdown:numbers=5", "countdown:numbers=2,max=99",
                                 "countdown:numbers=3,max=99", "countdown:numbers=4,max=99",
                                 "countdown:numbers=5,max=99"};
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++)
        check_countdown_problems(spec[i], 2000);
    check_countdown_problems("countdown:numbers=6", 200);
    check_countdown_problems("countdown:numbers=6,max=99", 200);
    check_countdown_classes();

    /* The sequence is part of what a run can be repeated from: it must not change unnoticed. */
    Buf a = {0}, b = {0};
    Task t = task_of("countdown");
    task_problem(&t, 1, SPLIT_TRAIN, 0, &a, &a);
    task_solution(&t, "2376>8:", 1, 0, &b);
    CHECK(!strcmp(a.s, "9261>3:6/2=3,1*3=3,9/3=3"), "problem 0 of seed 1 is now '%s'", a.s);
    CHECK(!strcmp(b.s, "7-2=5,6+5=11,11-3=8"), "solution 0 of seed 1 is now '%s'", b.s);

    /* A solution beyond the generator's bounds is found; where there is none, nothing is added. */
    b.n = 0;
    task_solution(&t, "9998>721:", 1, 1, &b);
    CHECK(task_verify(&t, "9998>721:", b.s).right, "9998>721: '%s'", b.s);
    b.n = 0;
    t = task_of("countdown:numbers=3");
    task_solution(&t, "553>0:", 1, 1, &b);
    CHECK(task_verify(&t, "553>0:", b.s).right, "553>0: '%s'", b.s);
    b.n = 0;
    task_solution(&t, "111>99:", 1, 1, &b);
    task_solution(&t, "111>3", 1, 1, &b);
    CHECK(b.n == 0, "a solution where there is none: '%s'", b.s);
    buf_free(&a, &b);
}

static void test_add_task(void)
{
    static const struct {
        const char *prompt, *response, *reason;
    } table[] = {
        {"47+85:", "7+5=12,4+8+1=13,132", "right"},
        {"12+34:", "2+4=6,1+3=4,46", "right"},
        {"50+50:", "0+0=0,5+5=10,100", "right"},
        {"99+99:", "9+9=18,9+9+1=19,198", "right"},
        {"47+85:", "5+7=12,8+4+1=13,132", "other digits"},
        {"47+85:", "7+5=12,4+8=12,132", "another carry"},
        {"12+34:", "2+4=6,1+3+1=5,46", "another carry"},
        {"12+34:", "2+4=6,1+3+0=4,46", "another carry"},
        {"47+85:", "7+5=13,4+8+1=13,132", "arithmetic is false"},
        {"47+85:", "7+5=2,4+8+1=13,132", "arithmetic is false"},
        {"47+85:", "7+5=12,4+8+1=13,133", "the sum is false"},
        {"47+85:", "7+5=12,4+8+1=13,0132", "the sum is false"},
        {"47+85:", "7+5=12,4+8+1=13,13", "ends before"},
        {"47+85:", "7+5=12", "ends before"},
        {"47+85:", "7+5=12,4+8+1=13,132,", "text after"},
        {"47+85:", "7+5=12,4+8+1=13,1320", "text after"},
        {"47+85:", "7+5=12,4+8+1=13,132 ", "text after"},
        {"47+85:", " 7+5=12,4+8+1=13,132", "other digits"},
        {"47+85:", "132", "other digits"},
        {"47+85:", "", "empty"},
        {"47+85", "7+5=12,4+8+1=13,132", "the prompt"},
        {"47+85:x", "7+5=12,4+8+1=13,132", "the prompt"},
        {"47-85:", "7+5=12,4+8+1=13,132", "the prompt"},
        {"7+85:", "7+5=12,8+1=9,92", "the prompt"},
        {"07+85:", "7+5=12,0+8+1=9,92", "the prompt"},
        {"047+85:", "7+5=12,4+8+1=13,132", "the prompt"},
        {"", "", "the prompt"},
    };
    Task t = task_of("add");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Verdict v = task_verify(&t, table[i].prompt, table[i].response);
        CHECK(strstr(v.reason, table[i].reason), "%s'%s': '%s', expected '%s'", table[i].prompt,
              table[i].response, v.reason, table[i].reason);
        CHECK(v.right == !strcmp(table[i].reason, "right"), "%s'%s'", table[i].prompt,
              table[i].response);
    }
    for (int digits = 1; digits <= 9; digits++) {
        char spec[32];
        snprintf(spec, sizeof spec, "add:digits=%d", digits);
        t = task_of(spec);
        for (uint32_t i = 0; i < 500; i++) {
            Buf prompt = {0}, answer = {0}, solution = {0}, class = {0};
            task_problem(&t, 3, i % 2 ? SPLIT_TEST : SPLIT_TRAIN, i, &prompt, &answer);
            task_solution(&t, prompt.s, 3, i, &solution);
            task_answer_class(&t, prompt.s, answer.s, &class);
            long long a = atoll(prompt.s), b = atoll(strchr(prompt.s, '+') + 1);
            CHECK(!strcmp(answer.s, solution.s), "'%s' and '%s'", answer.s, solution.s);
            CHECK(!strcmp(class.s, answer.s), "'%s' and '%s'", class.s, answer.s);
            CHECK(task_verify(&t, prompt.s, answer.s).right, "%s%s", prompt.s, answer.s);
            CHECK(atoll(strrchr(answer.s, ',') + 1) == a + b, "%s%s", prompt.s, answer.s);
            CHECK(prompt.n < TASK_PROMPT_MAX && answer.n < TASK_RESPONSE_MAX, "%s%s: too long",
                  prompt.s, answer.s);
            buf_free(&prompt, &answer, &solution, &class);
        }
    }
}

#endif
