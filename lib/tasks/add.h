/* add.h: the task `add`: two numbers added column by column.
 *
 *   prompt `47+85:`   response `7+5=12,4+8+1=13,132` */
#ifndef TASK_ADD_H
#define TASK_ADD_H

#include "text.h" /* defines: Task, scan_number, dice, Canonical, verdict */

#define ADD_OPTIONS(X) X(TASK_ADD, digits, 1, 9, 2, "how many digits both numbers have")

/* prompt = number "+" number ":", both of exactly t->digits digits. */
static inline bool add_read_prompt(const Task *t, const char *s, int64_t *a, int64_t *b)
{
    const char *start = s;
    if (!scan_number(&s, a) || s - start != t->digits || !scan_char(&s, '+'))
        return false;
    start = s;
    return *a > 0 && scan_number(&s, b) && s - start == t->digits && *b > 0 && scan_char(&s, ':')
           && *s == 0;
}

/* The one derivation of a + b (which have equally many digits) into text[TASK_RESPONSE_MAX]: at
 * most nine columns of nine characters and a sum of ten. */
static inline void add_derivation(int64_t a, int64_t b, char *text)
{
    int64_t total = a + b;
    size_t n = 0;
    for (int carry = 0; a > 0; a /= 10, b /= 10) {
        int x = (int)(a % 10), y = (int)(b % 10), sum = x + y + carry;
        n += (size_t)snprintf(text + n, TASK_RESPONSE_MAX - n, "%d+%d%s=%d,", x, y,
                              carry ? "+1" : "", sum);
        carry = sum / 10;
    }
    snprintf(text + n, TASK_RESPONSE_MAX - n, "%lld", (long long)total);
}

/* There is one right text; the first byte that differs from it says what went wrong. */
static inline Verdict add_verify(const Task *t, const char *prompt, const char *response)
{
    int64_t a, b;
    char right[TASK_RESPONSE_MAX];
    if (!add_read_prompt(t, prompt, &a, &b))
        return verdict(NO_PROBLEM);
    if (*response == 0)
        return verdict("the response is empty");
    add_derivation(a, b, right);
    size_t same = 0, sum_at = (size_t)(strrchr(right, ',') + 1 - right);
    while (right[same] && right[same] == response[same])
        same++;
    if (right[same] == 0)
        return verdict(response[same] ? "text after the sum" : NULL);
    if (response[same] == 0)
        return verdict("the response ends before the sum");
    if (same >= sum_at)
        return verdict("the sum is false");
    size_t column = same;
    while (column > 0 && right[column - 1] != ',' && right[column - 1] != '=')
        column--;
    if (column > 0 && right[column - 1] == '=')
        return verdict("a column's arithmetic is false");
    return verdict("a column has other digits or another carry than the numbers");
}

static inline Canonical add_sorted(int64_t a, int64_t b)
{
    return (Canonical){.value = {a < b ? a : b, a < b ? b : a}, .n = 2};
}

static inline bool add_canonical(const Task *t, const char *prompt, Canonical *out)
{
    int64_t a, b;
    if (!add_read_prompt(t, prompt, &a, &b))
        return false;
    *out = add_sorted(a, b);
    return true;
}

static inline bool add_problem(const Task *t, Dice *d, Split split, Buf *prompt, Buf *answer)
{
    int64_t number[2] = {0};
    for (int k = 0; k < 2 * t->digits; k++) /* the first digit of each is not zero */
        number[k % 2] = number[k % 2] * 10 + (k < 2 ? 1 + dice(d, 9) : dice(d, 10));
    Canonical c = add_sorted(number[0], number[1]);
    if (canonical_split(&c) != split)
        return false;
    char text[TASK_RESPONSE_MAX];
    add_derivation(number[0], number[1], text);
    buf_printf(prompt, "%d+%d:", (int)number[0], (int)number[1]);
    buf_str(answer, text);
    return true;
}

static inline void add_solution(const Task *t, const char *prompt, Dice *d, Buf *response)
{
    (void)d;
    int64_t a, b;
    char text[TASK_RESPONSE_MAX];
    if (!add_read_prompt(t, prompt, &a, &b))
        return;
    add_derivation(a, b, text);
    buf_str(response, text);
}

/* There is one right text, and it is its own class. */
static inline void add_class(const Task *t, const char *prompt, const char *response, Buf *out)
{
    (void)t;
    (void)prompt;
    buf_str(out, response);
}

#endif
