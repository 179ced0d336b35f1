/* add.h: the task `add`: two numbers added column by column.
 *
 *   prompt `47+85:`   response `7+5=12,4+8+1=13,132` */
#ifndef TASK_ADD_H
#define TASK_ADD_H

#include "text.h" /* defines: Task, scan_number, dice, Canonical, verdict */

#define ADD_OPTIONS(X) X(TASK_ADD, digits, 1, 9, 2, "how many digits both numbers have")

typedef struct {
    int64_t a, b; /* of equally many digits */
} Add;

/* prompt = number "+" number ":", both of exactly t->digits digits. */
static bool add_read(const Task *t, const char *s, void *posed)
{
    Add *p = posed;
    const char *start = s;
    if (!scan_number(&s, &p->a) || s - start != t->digits || !scan_char(&s, '+'))
        return false;
    start = s;
    return p->a > 0 && scan_number(&s, &p->b) && s - start == t->digits && p->b > 0 &&
           scan_char(&s, ':') && *s == 0;
}

static void add_write(const void *posed, Buf *prompt)
{
    const Add *p = posed;
    buf_printf(prompt, "%d+%d:", (int)p->a, (int)p->b);
}

/* The only right response: at most nine columns of nine characters and a sum of ten. */
static bool add_solve(const Task *t, const void *posed, Dice *d, Buf *response)
{
    (void)t, (void)d;
    const Add *p = posed;
    int carry = 0;
    for (int64_t a = p->a, b = p->b; a > 0; a /= 10, b /= 10) {
        int x = a % 10, y = b % 10, sum = x + y + carry;
        buf_printf(response, "%d+%d%s=%d,", x, y, carry ? "+1" : "", sum);
        carry = sum / 10;
    }
    buf_printf(response, "%d", (int)(p->a + p->b));
    return true;
}

/* Names the fault by the first byte that differs from the right response. */
static Verdict add_verify(const void *posed, const char *response)
{
    Buf text = {0};
    add_solve(NULL, posed, NULL, &text);
    const char *right = text.s, *fault = NULL;
    size_t same = 0, sum_at = strrchr(right, ',') + 1 - right;
    while (right[same] && right[same] == response[same])
        same++;
    size_t column = same;
    while (column > 0 && right[column - 1] != ',' && right[column - 1] != '=')
        column--;
    if (right[same] == 0)
        fault = response[same] ? "text after the sum" : NULL;
    else if (response[same] == 0)
        fault = "the response ends before the sum";
    else if (same >= sum_at)
        fault = "the sum is false";
    else if (column > 0 && right[column - 1] == '=')
        fault = "a column's arithmetic is false";
    else
        fault = "a column has other digits or another carry than the numbers";
    buf_free(&text);
    return verdict(fault);
}

static Canonical add_canonical(const void *posed)
{
    const Add *p = posed;
    int64_t a = p->a, b = p->b;
    return (Canonical){.value = {a < b ? a : b, a < b ? b : a}, .n = 2};
}

static bool add_draw(const Task *t, Dice *d, void *posed)
{
    int64_t number[2] = {0};
    for (int k = 0; k < 2 * t->digits; k++) /* the first digit of each is not zero */
        number[k % 2] = number[k % 2] * 10 + (k < 2 ? 1 + dice(d, 9) : dice(d, 10));
    *(Add *)posed = (Add){number[0], number[1]};
    return true;
}

#endif
