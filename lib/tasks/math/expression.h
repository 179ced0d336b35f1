/* expression.h: parses the tokens of an answer into a tree.
 *
 *   expr_parse(&lexed, &expr)   false where the answer is outside of the grammar
 *
 * The grammar, each level binding tighter than the one before:
 *
 *   list      relation ("," relation)*           also ";", "and", "or"
 *   relation  union (("=" | "<" | "\in" | ...) union)*
 *   union     ratio ("\cup" ratio)*
 *   ratio     sum (":" sum)*
 *   sum       sign* product (sign+ product)*      + - \pm \mp, after "about", "USD"
 *   product   factor (["*" | "/"] factor)*  [unit]
 *   unit      word ["^" group] ("/" word ["^" group])*, \frac{word}{word}, "(" word ")"
 *   factor    base ("^" group | "!" | "%" | degree)*
 *   base      number, name, text, group, bracket, |x|, fraction, root, function, matrix
 *
 * Recursion is bounded by LATEX_DEPTH factors, the tree by EXPR_NODES nodes. */
#ifndef EXPRESSION_H
#define EXPRESSION_H

#include "latex.h" /* defines: Lexed, Lexeme, latex_lex */

enum { EXPR_NODES = 1024 };

typedef enum {
    N_BAD,
    N_NUMBER,    /* s: digits, one point at most */
    N_REPEATING, /* children: 0.1 and 6 for 0.1\overline{6} */
    N_BASE,      /* s: digits; child: the base they are written in */
    N_NAME,      /* s: a variable or constant, with its subscript */
    N_TEXT,      /* s: words */
    N_SUM, N_PRODUCT, N_NEGATE, N_INVERSE, N_DEGREE, N_PERCENT, N_UNION,
    N_EITHER,   /* plus or minus the child; open '-' where the upper sign is minus */
    N_POWER,    /* base, exponent */
    N_FUNCTION, /* s: its name; log has a second child where its base is given */
    N_UNIT,     /* the child, then s; open: the digit of its exponent */
    N_LIST,     /* a, b, c without brackets */
    N_BRACKET,  /* open, close: a tuple or interval; '<' a set */
    N_RATIO,    /* a : b */
    N_RELATION, /* a < b = c; the op of each child is what stands before it */
    N_MATRIX    /* columns; cells in rows */
} NodeKind;

typedef struct {
    NodeKind kind;
    char open, close; /* of a bracket; open is '|' for a determinant */
    char op;
    short child, last, next; /* nodes; 0 is none */
    short columns;
    int n;
    const char *s; /* n bytes, in the text that was lexed or in Lexed.text */
} Node;

typedef struct {
    Node node[EXPR_NODES]; /* node[0] is none */
    int n, root;
} Expr;

typedef struct {
    Lexed *lx;
    Expr *e;
    int i, depth;
    bool bad, bars; /* bars: inside |...|, where | closes */
} Parser;

/* A node without children; 0, and the parser is bad, where there is no room. */
static int node_new(Parser *p, NodeKind kind)
{
    if (p->e->n == EXPR_NODES) {
        p->bad = true;
        return 0;
    }
    p->e->node[p->e->n] = (Node){.kind = kind};
    return p->e->n++;
}

/* Appends a child. */
static void node_add(Parser *p, int parent, int child)
{
    Node *node = p->e->node;
    if (p->bad || !parent || !child)
        return;
    if (node[parent].last)
        node[node[parent].last].next = child;
    else
        node[parent].child = child;
    node[parent].last = child;
}

/* A node with its first child. */
static int node_of(Parser *p, NodeKind kind, int child)
{
    int node = node_new(p, kind);
    node_add(p, node, child);
    return node;
}

static int node_pair(Parser *p, NodeKind kind, int first, int second)
{
    int node = node_of(p, kind, first);
    node_add(p, node, second);
    return node;
}

static int node_text(Parser *p, NodeKind kind, const char *s, int n)
{
    int node = node_new(p, kind);
    p->e->node[node].s = s;
    p->e->node[node].n = n;
    return node;
}

/* A function of one argument. */
static int node_call(Parser *p, const char *name, int n, int argument)
{
    int node = node_text(p, N_FUNCTION, name, n);
    node_add(p, node, argument);
    return node;
}

/* a / b */
static int node_quotient(Parser *p, int a, int b)
{
    return node_pair(p, N_PRODUCT, a, node_of(p, N_INVERSE, b));
}

/* a over b */
static int node_binomial(Parser *p, int a, int b)
{
    int node = node_call(p, "binom", 5, a);
    node_add(p, node, b);
    return node;
}

static const Lexeme *parse_at(const Parser *p) { return &p->lx->token[p->i]; }
static bool at_sign(const Parser *p, const char *sign) { return lexeme_is(parse_at(p), sign); }
static bool at_command(const Parser *p, const char *names)
{
    const Lexeme *t = parse_at(p);
    return t->kind == T_COMMAND && text_among(t->s, t->n, names);
}

static bool take_sign(Parser *p, const char *sign)
{
    bool taken = at_sign(p, sign);
    p->i += taken;
    return taken;
}

static int parse_fail(Parser *p)
{
    p->bad = true;
    return 0;
}

/* From here on, each function parses its part of the grammar and returns its node; after a failure
 * (parse_fail) the result is not used. `argument`: of a function or root without brackets, \sin 2x,
 * which ends earlier. */
static int parse_list(Parser *p);
static int parse_factor(Parser *p, bool argument);
static int parse_product(Parser *p, bool argument);

/* A list, or two around \choose or \over. */
static int parse_infix(Parser *p)
{
    int top = parse_list(p);
    bool binomial = at_command(p, "choose ");
    if (!binomial && !at_command(p, "over "))
        return top;
    p->i++;
    int bottom = parse_list(p);
    return binomial ? node_binomial(p, top, bottom) : node_quotient(p, top, bottom);
}

/* { list }, or a command without braces: 2^\frac12 */
static int parse_group(Parser *p)
{
    if (at_command(p, "frac binom sqrt "))
        return parse_factor(p, true);
    if (parse_at(p)->kind != T_OPEN)
        return parse_fail(p);
    p->i++;
    int inside = parse_infix(p);
    if (parse_at(p)->kind != T_CLOSE)
        return parse_fail(p);
    p->i++;
    return inside;
}

/* A name out of tokens, without the braces: x_{12} -> x_12. */
static int parse_name(Parser *p, int from, int to)
{
    Lexed *lx = p->lx;
    int start = lx->used;
    for (int i = from; i < to; i++) {
        const Lexeme *t = &lx->token[i];
        for (int k = 0; k < t->n && t->kind != T_OPEN && t->kind != T_CLOSE; k++)
            lex_char(lx, t->s[k]);
    }
    p->bad |= lx->bad;
    return node_text(p, N_NAME, lx->text + start, lx->used - start);
}

/* Skips the { ... } at the cursor. */
static void skip_group(Parser *p)
{
    int depth = 0;
    do {
        LexemeKind kind = parse_at(p)->kind;
        depth += (kind == T_OPEN) - (kind == T_CLOSE);
        p->bad |= kind == T_END;
        p->i += kind != T_END;
    } while (depth > 0 && !p->bad);
}

/* A letter or Greek letter with its subscript, or a mark with its argument. */
static int parse_symbol(Parser *p)
{
    int from = p->i++;
    if (at_sign(p, "_")) {
        p->i++;
        skip_group(p);
    } else if (p->lx->token[from].kind == T_COMMAND && parse_at(p)->kind == T_OPEN)
        skip_group(p);
    return parse_name(p, from, p->i);
}

/* ( list ), [ list ], \{ list \} with any closing bracket. A single item in round brackets is
 * itself, as is a sum or a matrix in square ones; \{\} is \emptyset. */
static int parse_bracket(Parser *p)
{
    char open = *parse_at(p)->s;
    bool bars = p->bars;
    p->i++;
    p->bars = false;
    int inside = at_sign(p, ">") ? 0 : parse_list(p);
    char close = *parse_at(p)->s;
    p->bars = bars;
    if (!(open == '<' ? at_sign(p, ">") : at_sign(p, ")") || at_sign(p, "]")))
        return parse_fail(p);
    p->i++;
    if (!inside && open == '<')
        return node_text(p, N_NAME, "emptyset", 8);
    NodeKind kind = p->e->node[inside].kind;
    bool plain = (open == '(' && close == ')') ||
                 (open == '[' && close == ']' && (kind == N_SUM || kind == N_MATRIX));
    if (plain && kind != N_LIST)
        return inside ? inside : parse_fail(p);
    int bracket = inside && kind == N_LIST ? inside : node_of(p, N_BRACKET, inside);
    p->e->node[bracket].kind = N_BRACKET;
    p->e->node[bracket].open = open;
    p->e->node[bracket].close = close;
    return bracket;
}

/* |list|, floor or ceiling: the function `name` of a list up to the closing sign or command. */
static int parse_between(Parser *p, const char *name, const char *sign, const char *command)
{
    bool bars = p->bars;
    p->i++;
    p->bars = *name == 'a';
    int node = node_call(p, name, strlen(name), parse_list(p));
    p->bars = bars;
    if (*sign ? !at_sign(p, sign) : !at_command(p, command))
        return parse_fail(p);
    p->i++;
    return node;
}

/* Cells between & and \\, as many in each row. A single one without bars is itself. */
static int parse_matrix(Parser *p)
{
    int matrix = node_new(p, N_MATRIX), columns = 0, in_row = 0;
    p->e->node[matrix].open = *parse_at(p)->s;
    p->i++;
    while (!p->bad) {
        node_add(p, matrix, parse_list(p));
        in_row++;
        if (take_sign(p, "&"))
            continue;
        columns = columns ? columns : in_row;
        p->bad |= columns != in_row;
        in_row = 0;
        while (parse_at(p)->kind == T_ROW)
            p->i++;
        if (parse_at(p)->kind == T_FINISH)
            break;
        p->bad |= parse_at(p)[-1].kind != T_ROW;
    }
    p->i += !p->bad;
    p->e->node[matrix].columns = columns;
    const Node *node = &p->e->node[matrix];
    return node->open != '|' && node->child == node->last ? node->child : matrix;
}

#define NAMES_FUNCTION \
    "sin cos tan cot sec csc log ln exp arcsin arccos arctan sinh cosh tanh "
#define NAMES_SYMBOL \
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu " \
    "xi pi rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi " \
    "Omega ell triangle angle square infty emptyset "
#define NAMES_MARK "overline vec hat widehat mathbb mathcal "

/* \sin x, \sin^2(x), \log_2 8: the subscript is a base, the exponent that of the value. */
static int parse_function(Parser *p)
{
    const Lexeme *name = parse_at(p);
    int exponent = 0, base = 0;
    p->i++;
    if (take_sign(p, "_"))
        base = parse_group(p);
    if (take_sign(p, "^")) {
        exponent = parse_group(p);
        if (p->e->node[exponent].kind == N_NEGATE) /* sin^{-1} is no power */
            return parse_fail(p);
    }
    bool closed = parse_at(p)->kind == T_OPEN || at_sign(p, "(") || at_sign(p, "[");
    int argument = parse_at(p)->kind == T_OPEN ? parse_group(p)
                   : closed                    ? parse_bracket(p)
                                               : parse_product(p, true);
    int function = node_call(p, name->s, name->n, argument);
    if (base && !text_is(name->s, name->n, "log"))
        return parse_fail(p);
    node_add(p, function, base);
    return exponent ? node_pair(p, N_POWER, function, exponent) : function;
}

static int parse_fraction(Parser *p)
{
    bool binomial = at_command(p, "binom ");
    p->i++;
    int top = parse_group(p), bottom = parse_group(p);
    return binomial ? node_binomial(p, top, bottom) : node_quotient(p, top, bottom);
}

/* \sqrt{x}, \sqrt[3]{x}, and sqrt(x). */
static int parse_root(Parser *p)
{
    int degree = 0;
    p->i++;
    if (take_sign(p, "[")) {
        degree = parse_list(p);
        if (!take_sign(p, "]"))
            return parse_fail(p);
    }
    int inside = parse_at(p)->kind == T_OPEN ? parse_group(p)
                 : at_sign(p, "(")           ? parse_bracket(p)
                                             : parse_factor(p, true);
    return degree ? node_pair(p, N_POWER, inside, node_of(p, N_INVERSE, degree))
                  : node_call(p, "sqrt", 4, inside);
}

static int node_number(Parser *p, const Lexeme *t) { return node_text(p, N_NUMBER, t->s, t->n); }

static bool whole_number(const Lexeme *t)
{
    return t->kind == T_NUMBER && !memchr(t->s, '.', t->n);
}

/* A number: 1\frac{4}{5} and 1 4/5 are mixed, 0.\overline{3} repeats, 52_8 has a base. */
static int parse_number(Parser *p)
{
    const Lexeme *t = parse_at(p);
    int number = node_number(p, t);
    bool mixed = whole_number(t);
    p->i++;
    if (mixed && at_command(p, "frac ") && whole_number(t + 3) && t[4].kind == T_CLOSE &&
        whole_number(t + 6) && t[7].kind == T_CLOSE)
        return node_pair(p, N_SUM, number, parse_fraction(p));
    if (mixed && whole_number(t + 1) && lexeme_is(t + 2, "/") && whole_number(t + 3)) {
        p->i += 3;
        int top = node_number(p, t + 1);
        return node_pair(p, N_SUM, number, node_quotient(p, top, node_number(p, t + 3)));
    }
    if (!whole_number(t) && at_command(p, "overline ") && whole_number(t + 3) &&
        t[4].kind == T_CLOSE) {
        p->i += 4;
        return node_pair(p, N_REPEATING, number, node_number(p, t + 3));
    }
    if (mixed && take_sign(p, "_")) {
        int base = node_text(p, N_BASE, t->s, t->n);
        node_add(p, base, parse_group(p));
        return base;
    }
    return number;
}

static int parse_base(Parser *p)
{
    const Lexeme *t = parse_at(p);
    switch (t->kind) {
    case T_NUMBER: return parse_number(p);
    case T_LETTER: return parse_symbol(p);
    case T_OPEN: return parse_group(p);
    case T_BEGIN: return parse_matrix(p);
    case T_WORD:
        if (t->n == 1)
            return parse_symbol(p);
        p->i++;
        return node_text(p, N_TEXT, t->s, t->n);
    case T_SIGN:
        if (at_sign(p, "(") || at_sign(p, "[") || at_sign(p, "<"))
            return parse_bracket(p);
        return at_sign(p, "|") && !p->bars ? parse_between(p, "abs", "|", "") : parse_fail(p);
    case T_COMMAND:
        if (at_command(p, "frac binom "))
            return parse_fraction(p);
        if (at_command(p, "sqrt "))
            return parse_root(p);
        if (at_command(p, "lfloor "))
            return parse_between(p, "floor", "", "rfloor ");
        if (at_command(p, "lceil "))
            return parse_between(p, "ceil", "", "rceil ");
        if (at_command(p, NAMES_FUNCTION))
            return parse_function(p);
        return at_command(p, NAMES_SYMBOL NAMES_MARK) ? parse_symbol(p) : parse_fail(p);
    default: return parse_fail(p);
    }
}

static bool ordinal(const Lexeme *t)
{
    return t->kind == T_WORD && text_among(t->s, t->n, "th st nd rd ") && t[1].kind == T_CLOSE;
}

/* A base with its postfixes: powers, factorials, percent and degree signs. */
static int parse_factor(Parser *p, bool argument)
{
    enum { POSTFIXES = 8 };
    if (++p->depth > LATEX_DEPTH)
        return parse_fail(p);
    int node = parse_base(p);
    for (int k = 0; !p->bad; k++) {
        if (at_sign(p, "^") && ordinal(parse_at(p) + 2)) /* 18^{th} */
            p->i += 4;
        else if (take_sign(p, "^"))
            node = node_pair(p, N_POWER, node, parse_group(p));
        else if (take_sign(p, "!"))
            node = node_call(p, "!", 1, node);
        else if (take_sign(p, "@"))
            node = node_of(p, N_DEGREE, node);
        else if (!argument && take_sign(p, "%"))
            node = node_of(p, N_PERCENT, node);
        else
            break;
        p->bad |= k == POSTFIXES;
    }
    p->depth--;
    return node;
}

/* May a factor follow another without a sign? A number may not: 6 6, x2, (1,2)0. */
static bool starts_factor(const Parser *p, bool argument)
{
    const Lexeme *t = parse_at(p);
    bool function = at_command(p, NAMES_FUNCTION);
    return t->kind == T_LETTER || t->kind == T_OPEN || t->kind == T_BEGIN ||
           (function && !argument) ||
           at_command(p, "frac binom sqrt lfloor lceil " NAMES_SYMBOL NAMES_MARK) ||
           at_sign(p, "(") || at_sign(p, "[") || (at_sign(p, "|") && !p->bars);
}

/* Of words that make a sentence or another number: "5 is wrong", "5 million". */
#define WORDS_NO_UNIT \
    "is are was be not no than plus minus squared cubed factorial hundred thousand million " \
    "billion trillion zero one two three four five six seven eight nine ten eleven twelve "
#define WORDS_BEFORE \
    "about approximately around roughly exactly only just therefore thus hence so usd us eur gbp "

/* At most five words of 32 letters in all, none of a sentence. */
static bool is_unit(const Lexeme *t)
{
    int words = 0;
    for (int i = 0, n; i < t->n; i += n + 1) {
        for (n = 0; i + n < t->n && t->s[i + n] != ' '; n++)
            ;
        if (++words > 5 || text_among(t->s + i, n, WORDS_NO_UNIT))
            return false;
    }
    return t->kind == T_WORD && t->n <= 32;
}

/* The number of tokens before the word of a unit, if one begins here, else -1: 18\text{ cm},
 * 18/\text{day}, 18\frac{dollars}{day}, 18 (dollars) */
static int unit_ahead(const Parser *p)
{
    const Lexeme *t = parse_at(p);
    bool fraction = at_command(p, "frac ") && t[2].n > 1 && t[3].kind == T_CLOSE &&
                    t[5].kind == T_WORD && t[6].kind == T_CLOSE;
    bool bracket = at_sign(p, "(") && t[1].n > 1 && lexeme_is(t + 2, ")");
    bool slash = at_sign(p, "/") && (t[1].n > 1 || t[-1].kind == T_WORD); /* not x/y */
    int before = fraction ? 2 : bracket || slash;
    return t[before].kind == T_WORD ? before : -1;
}

/* 5\text{ cm}^2, 60\text{ miles}/\text{hour}; the first word counts, with its exponent. */
static int parse_unit(Parser *p, int value)
{
    int unit = 0;
    for (int before; !p->bad && (before = unit_ahead(p)) >= 0;) {
        const Lexeme *t = parse_at(p) + before;
        p->bad |= !is_unit(t);
        if (!unit) {
            unit = node_text(p, N_UNIT, t->s, t->n);
            node_add(p, unit, value);
        }
        p->i += before == 2 ? 7 : before + 1 + at_sign(p, "(");
        if (take_sign(p, "^")) {
            Node *node = &p->e->node[unit];
            node->open = node->open ? node->open : *parse_at(p)[1].s;
            skip_group(p);
        }
    }
    return unit;
}

/* Adjacent factors, or with * and / between; an argument, \sin 2x, has neither signs nor another
 * function. */
static int parse_product(Parser *p, bool argument)
{
    int first = parse_factor(p, argument), product = first;
    while (!p->bad) {
        bool times = !argument && at_sign(p, "*"), over = !argument && at_sign(p, "/");
        if (unit_ahead(p) >= 0 && !argument)
            return parse_unit(p, product);
        if (!times && !over && !starts_factor(p, argument))
            break;
        p->i += times || over;
        bool minus = (times || over) && take_sign(p, "-");
        int factor = parse_factor(p, argument);
        factor = minus ? node_of(p, N_NEGATE, factor) : factor;
        if (product == first)
            product = node_of(p, N_PRODUCT, first);
        node_add(p, product, over ? node_of(p, N_INVERSE, factor) : factor);
    }
    return product;
}

static bool at_plus_minus(const Parser *p)
{
    return at_sign(p, "+") || at_sign(p, "-") || at_command(p, "pm mp ");
}

/* USD 18, \text{about }18, therefore -18 */
static bool word_before(const Lexeme *t)
{
    return t->kind == T_WORD && text_among(t->s, t->n, WORDS_BEFORE) &&
           (t[1].kind == T_NUMBER || t[1].kind == T_COMMAND || t[1].kind == T_WORD ||
            lexeme_is(t + 1, "-"));
}

/* A product with its signs. */
static int parse_signed(Parser *p)
{
    bool minus = false;
    char either = 0;
    while (word_before(parse_at(p)))
        p->i++;
    for (; at_plus_minus(p); p->i++) {
        minus ^= at_sign(p, "-");
        if (at_command(p, "pm mp ")) {
            p->bad |= either;
            either = at_command(p, "pm ") ? '+' : '-';
        }
    }
    int node = parse_product(p, false);
    node = minus ? node_of(p, N_NEGATE, node) : node;
    node = either ? node_of(p, N_EITHER, node) : node;
    p->e->node[node].open = either ? either : p->e->node[node].open;
    return node;
}

static int parse_sum(Parser *p)
{
    int first = parse_signed(p), sum = first;
    while (!p->bad && at_plus_minus(p)) {
        if (sum == first)
            sum = node_of(p, N_SUM, first);
        node_add(p, sum, parse_signed(p));
    }
    return sum;
}

/* Items between separators, one or, in a list, several commas; a single item is itself. */
static int parse_joined(Parser *p, NodeKind kind, int (*item)(Parser *), const char *sign)
{
    int first = item(p), joined = first;
    while (!p->bad && (*sign ? at_sign(p, sign) : at_command(p, "cup "))) {
        p->i++;
        while (kind == N_LIST && take_sign(p, sign))
            ;
        if (joined == first)
            joined = node_of(p, kind, first);
        node_add(p, joined, item(p));
    }
    return joined;
}

static int parse_ratio(Parser *p) { return parse_joined(p, N_RATIO, parse_sum, ":"); }
static int parse_union(Parser *p) { return parse_joined(p, N_UNION, parse_ratio, ""); }

/* '=', '<', '>', or the first letter of \le, \ge, \ne, \in, \approx. */
static int parse_relation(Parser *p)
{
    int first = parse_union(p), chain = first;
    while (!p->bad && parse_at(p)->kind == T_RELATION) {
        const Lexeme *t = parse_at(p);
        if (chain == first)
            chain = node_of(p, N_RELATION, first);
        p->i++;
        int next = parse_union(p);
        p->e->node[next].op = t->n > 1 ? t->s[1] : *t->s;
        node_add(p, chain, next);
    }
    return chain;
}

static int parse_list(Parser *p) { return parse_joined(p, N_LIST, parse_relation, ","); }

static bool expr_parse(Lexed *lx, Expr *e)
{
    Parser p = {.lx = lx, .e = e, .bad = lx->bad || !lx->n};
    e->n = 1;
    e->node[0] = (Node){.kind = N_BAD};
    e->root = p.bad ? 0 : parse_infix(&p);
    return !p.bad && e->root && parse_at(&p)->kind == T_END;
}

#endif
