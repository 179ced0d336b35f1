/* answer.h: is an answer to a mathematical problem right?
 *
 *   math_verify(response, gold)      right or not, and why: extracts the answer, then compares
 *   math_compare(answer, n, gold)    the same for a bare answer
 *   math_extract(response, &out)     the answer in a response; NULL, or why there is none
 *   math_gold(answer, &out)          the bare gold answer of a data set's answer or solution
 *   math_normal(text, &out)          the normal form, for people
 *
 * Nothing that a policy wrote is executed. A false positive is worse than a false negative, as
 * reinforcement learning finds what pays. So the answer is read at one place of a response, a list
 * must match as a whole, and what cannot be parsed is wrong unless it is the same text. */
#ifndef MATH_H
#define MATH_H

#include "../task.h"       /* defines: Verdict, verdict */
#include "value.h" /* defines: Item, same_value; expression.h: Expr, expr_parse */

/* ---------------------------------------------------------------- names, intervals, relations */

static bool same_item(Item x, Item y);

/* A name of the answer, left of "=": x, (x, y), f(2), AB, |AB|, S : T, words. No number, no sum:
 * 2x = 10 is an equation. */
static bool is_name(const Expr *e, int at)
{
    const Node *node = &e->node[at], *first = &e->node[node->child];
    switch (node->kind) {
    case N_NAME:
        return !text_is(node->s, node->n, "pi") && !text_is(node->s, node->n, "infty");
    case N_TEXT: return true;
    case N_INVERSE: return is_name(e, node->child);
    case N_FUNCTION: return text_is(node->s, node->n, "abs") && is_name(e, node->child);
    case N_PRODUCT: /* f(2), g(x, y): after one letter the bracket is an argument */
        if (first->kind == N_NAME && node->last == first->next &&
            e->node[node->last].kind != N_INVERSE && e->node[node->last].kind != N_POWER)
            return true; /* fall through */
    case N_BRACKET:
    case N_RATIO:
        for (int c = node->child; c; c = e->node[c].next)
            if (!is_name(e, c))
                return false;
        return true;
    default: return false;
    }
}

/* a < x <= b, x > a or (a, b]: the low and the high end; 0 for an infinite one. */
typedef struct {
    int end[2];
    bool in[2];
} Interval;

static bool is_infinite(Item x) { return item_value(x, 0).infinite; }

static bool interval_of_relation(Item x, Interval *iv)
{
    const Node *all = x.e->node;
    int a = item_node(x)->child, b = all[a].next, c = all[b].next;
    char op = all[b].op;
    bool less = op == '<' || op == 'l', more = op == '>' || op == 'g', in = op == 'l' || op == 'g';
    *iv = (Interval){0};
    if (!less && !more)
        return false;
    if (!c) {
        bool left = is_name(x.e, a);
        if (left == is_name(x.e, b))
            return false;
        iv->end[left == less] = left ? b : a;
        iv->in[0] = iv->in[1] = in;
    } else {
        char op2 = all[c].op;
        bool same = less ? op2 == '<' || op2 == 'l' : op2 == '>' || op2 == 'g';
        bool in2 = op2 == 'l' || op2 == 'g';
        if (all[c].next || !same || !is_name(x.e, b))
            return false;
        *iv = less ? (Interval){{a, c}, {in, in2}} : (Interval){{c, a}, {in2, in}};
    }
    return true;
}

/* A bracket of two ends, or a relation, as an interval; false where it is none. */
static bool interval_of(Item x, Interval *iv)
{
    const Node *node = item_node(x);
    if (node->kind == N_RELATION)
        return interval_of_relation(x, iv);
    int low = node->child, high = node->last;
    if (node->kind != N_BRACKET || !low || node->open == '<' || x.e->node[low].next != high)
        return false;
    *iv = (Interval){{low, high}, {node->open == '[', node->close == ']'}};
    for (int k = 0; k < 2; k++)
        iv->end[k] = is_infinite(item_at(x, iv->end[k])) ? 0 : iv->end[k];
    return true;
}

static bool same_interval(Item x, Item y)
{
    Interval a, b;
    bool same = interval_of(x, &a) && interval_of(y, &b);
    for (int k = 0; k < 2 && same; k++)
        same = !a.end[k] == !b.end[k] &&
               (!a.end[k] || (a.in[k] == b.in[k] &&
                              same_value(item_at(x, a.end[k]), item_at(y, b.end[k]))));
    return same;
}

/* The relation read from the right; 0 for \in, which has none. */
static char flipped(char op)
{
    const char *at = op ? strchr("<><lgl", op) : NULL;
    return at ? at[1] : op == 'i' ? 0 : op;
}

/* a = b and c = d are equivalent if a - b is a constant times c - d, a positive one for a < b and
 * c < d: 2x = 4 and x = 2, but not x^2 = 4. */
static bool same_two_sides(Item x, Item y)
{
    int a = item_node(x)->child, c = item_node(y)->child;
    int b = x.e->node[a].next, d = y.e->node[c].next;
    char op = x.e->node[b].op, op2 = y.e->node[d].op;
    Value first[2] = {{0}}; /* at the first point, where all four are defined */
    bool varies = false;
    for (int k = 0; k < VALUE_POINTS; k++) {
        Value v[2] = {item_difference(x, a, b, k), item_difference(y, c, d, k)};
        if (!v[0].defined || !v[1].defined || value_is_zero(v[0]) || value_is_zero(v[1])) {
            if (k < POSITIVE_POINTS)
                return false;
            continue;
        }
        if (k == 0)
            memcpy(first, v, sizeof first);
        varies |= cabs(v[0].z - first[0].z) > 1e-6 * cabs(first[0].z);
        Value p = value_multiply(v[0], first[1]), q = value_multiply(v[1], first[0]);
        if (p.exact && q.exact ? !values_equal(p, q) : !values_close(p, q, 1e-11))
            return false;
    }
    double ratio = creal(first[0].z / first[1].z);
    bool ordered = strchr("<>lg", op) != NULL;
    return varies && op != 'i' && (ordered && ratio < 0 ? flipped(op) : op) == op2;
}

/* Chains: the same relations between the same things, from the left or from the right. */
static bool same_relation(Item x, Item y)
{
    const Node *all = x.e->node, *other = y.e->node;
    int a = item_node(x)->child, b = item_node(y)->child, n = 0, children[64];
    for (int c = b; c && n < 64; c = other[c].next)
        children[n++] = c;
    bool forward = true, backward = true;
    int i = 0;
    for (int c = a; c; c = all[c].next, i++) {
        if (i == n)
            return false;
        char op = all[c].op;
        forward = forward && (i == 0 || op == other[children[i]].op) &&
                  same_item(item_at(x, c), item_at(y, children[i]));
        backward = backward && (i == 0 || op == flipped(other[children[n - i]].op)) &&
                   same_item(item_at(x, c), item_at(y, children[n - 1 - i]));
    }
    return i == n && (forward || backward || (n == 2 && same_two_sides(x, y)));
}

/* ---------------------------------------------------------------- compound values */

/* Part i with part i; or, as sets, each with some other, both ways. */
static bool same_parts(Item x, Item y, bool ordered)
{
    int a = item_node(x)->child, b = item_node(y)->child;
    if (ordered) {
        for (; a && b; a = x.e->node[a].next, b = y.e->node[b].next)
            if (!same_item(item_at(x, a), item_at(y, b)))
                return false;
        return !a && !b;
    }
    for (int turn = 0; turn < 2; turn++)
        for (int c = turn ? b : a; c; c = (turn ? y : x).e->node[c].next) {
            int d = turn ? a : b;
            while (d && !same_item(item_at(x, turn ? d : c), item_at(y, turn ? c : d)))
                d = (turn ? x : y).e->node[d].next;
            if (!d)
                return false;
        }
    return true;
}

/* A matrix, or a number times a matrix, which becomes the factor of every cell. */
static bool as_matrix(Item *x)
{
    const Node *all = x->e->node, *node = item_node(*x);
    if (node->kind == N_PRODUCT && all[node->last].kind == N_MATRIX &&
        all[node->child].next == node->last) {
        x->factor = node->child;
        x->node = node->last;
    }
    return item_node(*x)->kind == N_MATRIX;
}

static bool same_text(Item x, Item y)
{
    const Node *a = item_node(x), *b = item_node(y);
    return a->n == b->n && a->n > 0 && !memcmp(a->s, b->s, a->n);
}

static bool has_kind(const Expr *e, NodeKind kind)
{
    for (int i = 1; i < e->n; i++)
        if (e->node[i].kind == kind)
            return true;
    return false;
}

static Item without_unit(Item x)
{
    NodeKind kind = item_node(x)->kind, of = x.e->node[item_node(x)->child].kind;
    if ((kind == N_UNIT && of != N_TEXT) || (kind == N_DEGREE && of == N_MATRIX))
        x.node = item_node(x)->child; /* words have no unit */
    return x;
}

static bool is_percentage(Item x)
{
    const Node *node = item_node(x);
    node = node->kind == N_NEGATE ? &x.e->node[node->child] : node;
    return node->kind == N_PERCENT;
}

/* "How many percent?" may be answered with the sign or without it: one side has it, the other is a
 * bare number. A gold answer up to 1 may be a share, which 0.5% is not. x is of the gold answer. */
static bool same_percent(Item x, Item y)
{
    const Expr *bare = is_percentage(x) ? y.e : x.e;
    x.plain_percents = y.plain_percents = true;
    return is_percentage(x) != is_percentage(y) && !has_kind(bare, N_PERCENT) &&
           !has_kind(bare, N_UNIT) && !has_kind(bare, N_DEGREE) && !has_kind(bare, N_BASE) &&
           (is_percentage(x) || cabs(item_value(x, 0).z) > 1) && same_value(x, y);
}

/* x is of the gold answer. Sets within sets are compared both ways at each level, which doubles the
 * time: deeper than MOST_LEVELS nothing is equal. */
static bool same_item(Item x, Item y)
{
    enum { MOST_LEVELS = 5 };
    if (x.level > MOST_LEVELS)
        return false;
    x = without_unit(x);
    y = without_unit(y);
    const Node *a = item_node(x), *b = item_node(y);
    if (a->kind == N_TEXT || b->kind == N_TEXT)
        return same_text(x, y);
    if (as_matrix(&x) || as_matrix(&y)) {
        bool both = as_matrix(&x) && as_matrix(&y);
        a = item_node(x);
        b = item_node(y);
        return both && a->columns == b->columns && a->open == b->open && same_parts(x, y, true);
    }
    if (a->kind == N_RELATION && b->kind == N_RELATION)
        return same_relation(x, y);
    if (a->kind == N_RELATION || b->kind == N_RELATION)
        return same_interval(x, y);
    switch (a->kind) {
    case N_BRACKET:
        return b->kind == N_BRACKET && a->open == b->open && a->close == b->close &&
               same_parts(x, y, a->open != '<');
    case N_RATIO: return b->kind == N_RATIO && same_parts(x, y, true);
    case N_LIST:
    case N_UNION: return b->kind == a->kind && same_parts(x, y, false);
    default: return same_value(x, y) || same_percent(x, y);
    }
}

/* ---------------------------------------------------------------- whole answers */

enum { ANSWER_ITEMS = 128 };

/* An answer as items with names. */
typedef struct {
    Item item[ANSWER_ITEMS];
    int name[ANSWER_ITEMS];  /* a node, or 0 */
    int whole[ANSWER_ITEMS]; /* the node with the name */
    int n;
    bool names_differ; /* x = 1, y = 2: by place, where the other answer gives no names */
    bool too_many;
} Answer;

/* The node of the value in x = 5, x = 10/2 = 5, \frac23 \approx 0.67, 0.56 = 56\%; *name: that of
 * x, or 0. All but what follows \approx must be equal. Any other equation is its own value. */
static int find_value(const Expr *e, int at, int *name)
{
    const Node *all = e->node;
    int first = all[at].child, next = all[first].next;
    *name = 0;
    if (all[at].kind != N_RELATION)
        return at;
    bool named = is_name(e, first);
    if (named && (all[next].op == '=' || all[next].op == 'i' || all[next].op == 'a')) {
        *name = first;
        first = next;
        next = all[first].next;
    }
    for (int c = next; c && all[c].op != 'a'; c = all[c].next)
        if (all[c].op != '=' || !same_value(item_of(e, first), item_of(e, c))) {
            *name = 0;
            return at;
        }
    return first;
}

static bool contains_either(const Expr *e, int at)
{
    if (e->node[at].kind == N_EITHER)
        return true;
    for (int c = e->node[at].child; c; c = e->node[c].next)
        if (contains_either(e, c))
            return true;
    return false;
}

static void answer_add(Answer *a, const Expr *e, int node, int name, int whole)
{
    for (int lower = 0; lower <= contains_either(e, node); lower++) {
        if (a->n == ANSWER_ITEMS) {
            a->too_many = true;
            return;
        }
        a->item[a->n] = item_of(e, node);
        a->item[a->n].lower = lower;
        a->name[a->n] = name;
        a->whole[a->n++] = whole;
    }
}

static bool same_name(const Expr *e, int a, const Expr *f, int b)
{
    return same_item(item_of(e, a), item_of(f, b));
}

/* The items of a list, of a set, with `unions` of a union; else a single one. */
static Answer answer_read(const Expr *e, bool unions)
{
    Answer a = {.n = 0};
    const Node *all = e->node;
    int top = all[e->root].kind == N_LIST ? all[e->root].child : e->root, single = top == e->root;
    for (; top; top = single ? 0 : all[top].next) {
        int name, value = find_value(e, top, &name);
        bool set = single && all[value].kind == N_BRACKET && all[value].open == '<';
        bool united = single && all[value].kind == N_UNION && unions;
        if (set || united)
            for (int c = all[value].child; c; c = all[c].next)
                answer_add(&a, e, c, name, c);
        if (!united && (!set || !all[value].child))
            answer_add(&a, e, value, name, top);
    }
    for (int i = 1; i < a.n; i++)
        a.names_differ |= a.name[i] && !(a.name[0] && same_name(e, a.name[0], e, a.name[i]));
    return a;
}

static bool same_answer_item(const Answer *g, int i, const Answer *p, int j)
{
    const Expr *e = g->item[i].e, *f = p->item[j].e;
    if (g->name[i] && p->name[j] && !same_name(e, g->name[i], f, p->name[j]))
        return same_relation(item_at(g->item[i], g->whole[i]), item_at(p->item[j], p->whole[j]));
    if (same_item(g->item[i], p->item[j]))
        return true;
    /* y = 2x + 3 and 2x - y + 3 = 0 */
    bool equations = e->node[g->whole[i]].kind == N_RELATION &&
                     f->node[p->whole[j]].kind == N_RELATION && !g->name[i] != !p->name[j];
    return equations &&
           same_relation(item_at(g->item[i], g->whole[i]), item_at(p->item[j], p->whole[j]));
}

/* A one-to-one match of the items; or several ways of writing a single one: \frac32 or 1.5. */
static bool same_answers(const Answer *g, const Answer *p)
{
    bool words = g->n > 1 && item_node(g->item[0])->kind == N_TEXT; /* a ranking of names */
    bool ordered = words || g->names_differ != p->names_differ, used[ANSWER_ITEMS] = {false};
    if (g->n != p->n && g->n != 1)
        return false;
    for (int i = 0; i < p->n && g->n == 1; i++)
        if (!same_answer_item(g, 0, p, i))
            return false;
    for (int i = 0; i < g->n && g->n > 1; i++) {
        int j = ordered ? i : 0, last = ordered ? i : p->n - 1;
        while (j <= last && (used[j] || !same_answer_item(g, i, p, j)))
            j++;
        if (j > last)
            return false;
        used[j] = true;
    }
    return true;
}

/* Are the letters of one unit a subsequence of the other, from the start of a word on? ft in feet,
 * mph in miles per hour, inches in square inches, but not m in cm. */
static bool unit_within(const Node *a, const Node *b)
{
    int i = 0, n = a->n - (a->n > 2 && a->s[a->n - 1] == 's');
    bool begun = false;
    for (int j = 0; j < b->n; j++) {
        while (i < n && !ascii_letter(a->s[i]))
            i++;
        bool start = j == 0 || !ascii_letter(b->s[j - 1]);
        if (i < n && a->s[i] == b->s[j] && (begun || start)) {
            begun = true;
            i++;
        }
    }
    return i >= n;
}

/* The first unit of an answer, or NULL. */
static const Node *unit_of(const Expr *e)
{
    for (int i = 1; i < e->n; i++)
        if (e->node[i].kind == N_UNIT)
            return &e->node[i];
    return NULL;
}

/* Units that may be the same; open is the exponent of cm^2. */
static bool units_agree(const Node *a, const Node *b)
{
    if (!a || !b)
        return true;
    return (!a->open || !b->open || a->open == b->open) && (unit_within(a, b) || unit_within(b, a));
}

/* ---------------------------------------------------------------- comparison */

typedef struct {
    Lexed lexed;
    Expr expr;
} Reading;

static const char *math_trim(const char *s, size_t *n)
{
    while (*n && ascii_space(*s))
        s++, --*n;
    while (*n && ascii_space(s[*n - 1]))
        --*n;
    return s;
}

/* The text without white space, bold type, backticks and the signs of display math around it. */
static const char *unmarked(const char *s, size_t *n)
{
    static const char *const marks[][2] = {{"**", "**"}, {"*", "*"}, {"`", "`"}, {"\\[", "\\]"},
                                           {"$$", "$$"}};
    s = math_trim(s, n);
    for (int i = 0; i < 5; i++) {
        size_t length = strlen(marks[i][0]);
        if (*n > 2 * length && !memcmp(s, marks[i][0], length) &&
            !memcmp(s + *n - length, marks[i][1], length)) {
            *n -= 2 * length;
            s = math_trim(s + length, n);
            i = -1;
        }
    }
    return s;
}

static void add_trimmed(Buf *out, const char *s, const char *end)
{
    size_t n = end - s;
    s = math_trim(s, &n);
    buf_add(out, s, n);
}

/* An answer of numbers: no value depends on a variable. */
static bool is_constant(const Expr *e)
{
    Answer a = answer_read(e, false);
    for (int i = 0; i < a.n; i++)
        for (int k = 0; k < VALUE_POINTS; k++) {
            Item x = a.item[i];
            Value first = item_value(x, 0), v = item_value(x, k);
            if (!first.defined || !v.defined || !same_at(x, x, first, v))
                return false;
        }
    return true;
}

/* The comparison of two trees. One side may be a union where the other lists relations:
 * (-\infty, 1) \cup (2, \infty) is "x < 1 or x > 2". */
static Verdict compare_trees(const Expr *gold, const Expr *answer)
{
    Answer right = answer_read(gold, false), given = answer_read(answer, false);
    if (right.n == 1 && given.n > 1 && item_node(given.item[0])->kind == N_RELATION)
        right = answer_read(gold, true);
    if (given.n == 1 && right.n > 1 && item_node(right.item[0])->kind == N_RELATION)
        given = answer_read(answer, true);
    if (right.too_many || given.too_many)
        return verdict("more than 128 answers");
    for (int i = 0; i < right.n && has_kind(gold, N_BASE); i++)
        right.item[i].plain_bases = !has_kind(answer, N_BASE);
    if (!units_agree(unit_of(gold), unit_of(answer)))
        return verdict("another unit than the gold answer's");
    if (same_answers(&right, &given))
        return verdict(NULL);
    return verdict(right.n != given.n ? "another number of answers than the gold answer"
                                      : "not equal to the gold answer");
}

/* Is the answer, n bytes, the gold answer? Letters are variables first; where the gold answer has
 * none, they may be words: 18 sq ft.
 * A full stop within the answer, \boxed{60.} or "#### 60.", is refused, as by verl,
 * DAPO and GSM8K (and Math-Verify for whole numbers), so that rewards are comparable. */
static Verdict math_compare(const char *answer, size_t n, const char *gold)
{
    Reading g, p;
    size_t gold_n = strlen(gold);
    answer = math_trim(answer, &n);
    gold = math_trim(gold, &gold_n);
    if (!n)
        return verdict("the answer is empty");
    if (n == gold_n && !memcmp(answer, gold, n))
        return verdict(NULL);
    if (n > LATEX_TEXT)
        return verdict("the answer is too long");
    if (n > 1 && answer[n - 1] == '.' && !ascii_letter(answer[n - 2]))
        return verdict("the answer ends in a full stop");
    bool gold_good = latex_lex(gold, gold_n, false, &g.lexed);
    if (!latex_lex(answer, n, false, &p.lexed))
        return verdict("the answer is not balanced, or too complicated");
    if (gold_good && latex_same(&g.lexed, &p.lexed))
        return verdict(NULL);
    if (!gold_good || !expr_parse(&g.lexed, &g.expr))
        return verdict("not the text of the gold answer, which is no expression");
    Verdict v = verdict("the answer is no expression that is known here");
    if (expr_parse(&p.lexed, &p.expr))
        v = compare_trees(&g.expr, &p.expr);
    if (!v.right && latex_lex(answer, n, true, &p.lexed) && p.lexed.has_words &&
        expr_parse(&p.lexed, &p.expr) && is_constant(&g.expr))
        v = compare_trees(&g.expr, &p.expr);
    return v;
}

static void math_normal(const char *text, Buf *out)
{
    Lexed lx;
    size_t n = strlen(text);
    out->n = 0;
    if (latex_lex(text, n, false, &lx))
        latex_print(&lx, out);
    else
        buf_add(out, text, n);
}

/* ---------------------------------------------------------------- extraction */

/* Does the text begin with `word`, in upper or lower case? */
static bool begins_with(const char *s, const char *end, const char *word)
{
    while (*word && s < end && ascii_lower(*s) == *word)
        s++, word++;
    return !*word;
}

/* The last `word` in [s, end), in upper or lower case, or NULL. */
static const char *find_last(const char *s, const char *end, const char *word)
{
    const char *found = NULL;
    for (; s < end; s++)
        found = begins_with(s, end, word) ? s : found;
    return found;
}

/* A \boxed{...} or \fbox{...}, or \boxed 5 up to the end of its formula or line. */
typedef struct {
    const char *start, *s, *end; /* the command; its content */
} Box;

/* The box at s; false where its brace is not closed before `end`. */
static bool box_at(const char *s, const char *end, Box *box)
{
    box->start = s;
    s += s[1] == 'b' ? 6 : 5;
    while (s < end && (*s == ' ' || *s == '\t'))
        s++;
    if (s < end && *s == '{') {
        box->s = s + 1;
        box->end = lex_group_end(s, end);
        return box->end < end;
    }
    box->s = s;
    while (s < end && *s != '$' && *s != '\n')
        s++;
    box->end = s;
    return true;
}

static const char *box_after(const Box *box) { return box->end + (*box->end == '}'); }

/* Does the box at s hold an answer? Not a mention: "in \boxed{}", "a \boxed number". */
static bool box_holds(const char *s, const char *end)
{
    s = skip_spaces(s + (s[1] == 'b' ? 6 : 5), end);
    if (s < end && *s == '{') {
        while (s < end && *s != '}' && *s != '\\' && !ascii_letter(*s) && !ascii_digit(*s) &&
               (unsigned char)*s < 0x80)
            s++;
        return s == end || *s != '}';
    }
    while (s < end && strchr("([+-.", *s))
        s++;
    if (s == end || (*s == '\\' && s + 1 < end && !ascii_letter(s[1])))
        return false;
    const char *next = skip_spaces(s + 1, end);
    return ascii_digit(*s) || *s == '\\' ||
           (ascii_letter(*s) && (next == end || !ascii_letter(*next)));
}

/* Do two boxes give one answer in parts: "\boxed{1} and \boxed{2}"? Yes, if there are at most three
 * words between them, in one line and one sentence, and no arithmetic. */
static bool boxes_joined(const char *s, const char *end)
{
    int words = 0;
    if (end - s > 64)
        return false;
    for (; s < end; s++) {
        if (strchr("\n.?!+*/<>", *s))
            return false;
        if (*s == '\\' || !ascii_letter(*s)) {
            for (s += *s == '\\'; s + 1 < end && ascii_letter(s[0]) && ascii_letter(s[1]);)
                s++;
            continue;
        }
        words++;
        while (s + 1 < end && ascii_letter(s[1]))
            s++;
    }
    return words <= 3;
}

enum { MOST_BOXES = 16 };

/* The last box and those joined to it; *found: is there one? Linear time, however boxes nest: an
 * earlier box must close before the next one begins. */
static const char *extract_boxes(const char *s, const char *end, Buf *out, bool *found)
{
    const char *start[MOST_BOXES];
    int n = 0;
    for (; s < end; s++)
        if (*s == '\\' && (!strncmp(s, "\\boxed", 6) || !strncmp(s, "\\fbox", 5)) &&
            box_holds(s, end)) {
            if (n == MOST_BOXES)
                memmove(start, start + 1, (size_t)--n * sizeof *start);
            start[n++] = s;
        }
    *found = n > 0;
    Box box[MOST_BOXES];
    if (!n)
        return "no answer found";
    if (!box_at(start[n - 1], end, &box[n - 1]))
        return "the last box is not closed";
    int first = n - 1;
    while (first > 0 && box_at(start[first - 1], start[first], &box[first - 1]) &&
           boxes_joined(box_after(&box[first - 1]), start[first]))
        first--;
    for (int i = first; i < n; i++) {
        bool repeated = false;
        ptrdiff_t length = box[i].end - box[i].s;
        for (int k = first; k < i; k++)
            repeated |= box[k].end - box[k].s == length && !memcmp(box[k].s, box[i].s, length);
        if (repeated)
            continue;
        buf_str(out, out->n ? ", " : "");
        buf_add(out, box[i].s, length);
    }
    return NULL;
}

/* The number that begins a line, as in "#### $1,200 dollars"; the whole line if another number
 * follows. False where it begins with none. */
static bool leading_number(const char *s, const char *end, Buf *out)
{
    size_t n = end - s;
    s = math_trim(s, &n);
    end = s + n;
    const char *from = s;
    while (s < end && strchr("$\\*`= ", *s))
        s++;
    const char *number = s;
    s += s < end && (*s == '-' || *s == '+');
    s += s < end && *s == '$';
    if (s == end || !(ascii_digit(*s) || (*s == '.' && s + 1 < end && ascii_digit(s[1]))))
        return false;
    while (s < end && !ascii_space(*s) && !strchr("*`<", *s))
        s++;
    size_t length = s - number;
    for (const char *rest = s; rest < end; rest++)
        if (ascii_digit(*rest)) {
            if ((size_t)(end - rest) < length || memcmp(rest, number, length)) {
                number = from;
                length = n;
                break;
            }
            rest += length - 1;
        }
    buf_add(out, number, length);
    return true;
}

static const char *line_end(const char *s, const char *end)
{
    const char *newline = memchr(s, '\n', end - s);
    return newline ? newline : end;
}

/* Display math at s, alone in its lines: its end, or NULL. */
static const char *display_end(const char *s, const char *end)
{
    bool dollars = begins_with(s, end, "$$");
    const char *sign = dollars ? "$$" : "\\]", *close = s + 2;
    if (!dollars && !begins_with(s, end, "\\["))
        return NULL;
    while (close < end && !begins_with(close, end, sign))
        close++;
    if (close == end)
        return NULL;
    const char *rest = close + 2;
    while (rest < end && (*rest == ' ' || *rest == '.' || *rest == '*'))
        rest++;
    return rest == end || *rest == '\n' ? close : NULL;
}

/* After "the answer is": display math, a formula between dollars, or the rest of the sentence. */
static void stated_answer(const char *s, const char *end, Buf *out)
{
    while (s < end && (ascii_space(*s) || strchr(":*`#", *s)))
        s++;
    const char *display = display_end(s, end);
    if (display) {
        add_trimmed(out, s + 2, display);
        return;
    }
    end = line_end(s, end);
    const char *close = s < end && *s == '$' ? memchr(s + 1, '$', end - s - 1) : NULL;
    if (close && close > s + 1 && (close + 1 == end || !ascii_digit(close[1]))) {
        const char *rest = close + 1; /* "$1$ or $2$" is all of it */
        while (rest < end && *rest != '.')
            rest++;
        if (!memchr(close + 1, '$', rest - close - 1))
            end = close + 1;
    }
    for (const char *p = s; p + 1 < end; p++)
        if (*p == '.' && ascii_space(p[1]))
            end = p;
    size_t n = end - s;
    s = math_trim(s, &n);
    while (n && strchr("*`.", s[n - 1]))
        n--;
    buf_add(out, s, n);
}

/* The text after the last "answer is" or "answer:" (or, as a heading, "answer" at the end of a
 * line), in bold or not, or "A:" at the start of a line; NULL where there is none. */
static const char *find_statement(const char *s, const char *end, bool heading)
{
    const char *found = NULL;
    for (const char *p = s; p < end; p++) {
        if (!begins_with(p, end, "answer"))
            continue;
        const char *q = p + strlen("answer");
        while (q < end && strchr("*` \t", *q))
            q++;
        if (begins_with(q, end, "is") && (q + 2 == end || !ascii_letter(q[2])))
            found = q + 2;
        else if (q < end && (*q == ':' || (heading && *q == '\n')))
            found = q + 1;
    }
    for (const char *line = s; line < end; line = line_end(line, end) + 1)
        if (end - line > 2 && line[0] == 'A' && line[1] == ':' && (!found || line + 2 > found))
            found = line + 2;
    return found;
}

/* A last line, or display, that is only a number: "42", "### 42", "**145^\circ**". */
static bool bare_number(const char *s, const char *end, Buf *out)
{
    Reading r;
    size_t n = end - s;
    s = math_trim(s, &n);
    end = s + n;
    const char *line = s, *sign = n > 2 ? end - 2 : s, *display = NULL;
    for (const char *p = s; (p = memchr(p, '\n', end - p));)
        line = ++p;
    if (n > 2 && (!memcmp(sign, "$$", 2) || !memcmp(sign, "\\]", 2)))
        display = find_last(s, sign, *sign == '$' ? "$$" : "\\[");
    s = display && (display == s || display[-1] == '\n') ? display : line;
    n = end - s;
    while (n && *s == '#')
        s++, n--;
    s = unmarked(s, &n);
    if (n > 100 || !latex_lex(s, n, false, &r.lexed) || !expr_parse(&r.lexed, &r.expr))
        return false;
    Value v = item_value(item_of(&r.expr, r.expr.root), 0);
    if (!v.defined || !v.exact || has_kind(&r.expr, N_NAME))
        return false;
    buf_add(out, s, n);
    return true;
}

/* The answer of a response, after the last </think> (a <think> that is not closed has none):
 *
 *   1. the last \boxed or \fbox, with those joined to it: "\boxed{1} and \boxed{2}"
 *   2. the number after the last ####
 *   3. the last <answer>...</answer>
 *   4. the text after the last "answer is" or "answer:", or "A:" at the start of a line
 *   5. a last line, or display, that is only a number
 *   6. the text below the last heading that ends in "answer"
 *
 * Returns NULL and the text in `out`, or what is wrong. */
static const char *math_extract(const char *response, Buf *out)
{
    const char *s = response, *end = s + strlen(s), *p, *q;
    bool found;
    out->n = 0;
    buf_add(out, "", 0);
    if ((p = find_last(s, end, "</think>")))
        s = p + strlen("</think>");
    if (find_last(s, end, "<think>"))
        return "the thinking was not closed";
    const char *fault = extract_boxes(s, end, out, &found);
    if (found)
        return fault;
    if ((p = find_last(s, end, "####")) && leading_number(p + 4, line_end(p, end), out))
        return NULL;
    if ((q = find_last(s, end, "</answer>")) && (p = find_last(s, q, "<answer>"))) {
        size_t n = q - (p + strlen("<answer>"));
        p = unmarked(p + strlen("<answer>"), &n);
        buf_add(out, p, n);
    } else if ((p = find_statement(s, end, false)))
        stated_answer(p, end, out);
    else if (bare_number(s, end, out))
        return NULL;
    else if ((p = find_statement(s, end, true)))
        stated_answer(p, end, out);
    else
        return "no answer found";
    return NULL;
}

/* GSM8K's "... #### 18" -> 18, MATH's solution -> its box, anything else as it is. */
static void math_gold(const char *answer, Buf *out)
{
    const char *end = answer + strlen(answer), *p = find_last(answer, end, "####");
    bool found = false;
    out->n = 0;
    buf_add(out, "", 0);
    if (!p && !extract_boxes(answer, end, out, &found) && found)
        return;
    out->n = 0;
    add_trimmed(out, p ? p + 4 : answer, end);
}

static Verdict math_verify(const char *response, const char *gold)
{
    Buf answer = {0}, bare = {0};
    const char *fault = math_extract(response, &answer);
    math_gold(gold, &bare);
    Verdict v = fault ? verdict(fault) : math_compare(answer.s, answer.n, bare.s);
    buf_free(&answer, &bare);
    return v;
}

#endif
