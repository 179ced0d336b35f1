/* latex.h: the lexer of mathematical answers: LaTeX as in the MATH data set, and the plain text
 * around it ("x = 5", "3/4", "12 cm", "5 percent", a few Unicode signs). Nothing is expanded.
 *
 *   latex_lex(text, n, words, &lexed)
 *                                    tokens in one spelling: \dfrac12, \tfrac{1}{2} -> \frac{1}{2};
 *                                    `words`: 18 sq ft is a number and words, not 18 s q f t
 *   latex_print(&lexed, &buf)        the tokens as text, the normal form of an answer
 *   latex_same(&a, &b)               are two texts the same to a reader
 *
 * All sizes are fixed: at most LATEX_TEXT bytes, LATEX_TOKENS tokens, nesting of LATEX_DEPTH.
 * Nothing is allocated, any bytes are safe, the time is linear. */
#ifndef LATEX_H
#define LATEX_H

#include "../../base/json.h" /* defines: utf8_decode; util.h: Buf, buf_add */

/* LATEX_AHEAD: the lookahead of a parser, in tokens. */
enum { LATEX_TEXT = 4096, LATEX_TOKENS = 1024, LATEX_DEPTH = 40, LATEX_AHEAD = 8 };

/* ---------------------------------------------------------------- tokens */

typedef enum {
    T_END,
    T_NUMBER,   /* digits, one point at most: "1000", ".5" */
    T_LETTER,   /* one letter, a variable */
    T_WORD,     /* text: a unit, a name, a choice; lower case if longer than a letter */
    T_COMMAND,  /* "frac", "pi": the canonical name, without the backslash */
    T_RELATION, /* "=", "<", ">", "\le", "\ge", "\ne", "\in", "\approx" */
    T_BEGIN,    /* an environment: "matrix", "|matrix" */
    T_FINISH,
    T_ROW,    /* \\ */
    T_OPEN,   /* { of a LaTeX group; always around arguments, exponents and subscripts */
    T_CLOSE,  /* } */
    T_SIGN    /* any other character: + - * / ^ _ ! % ( ) [ ] | , : &; @ degree; < > set braces */
} LexemeKind;

typedef struct {
    LexemeKind kind;
    const char *s; /* a static string, or in Lexed.text, or a byte of the source */
    int n;
} Lexeme;

typedef struct {
    Lexeme token[LATEX_TOKENS + LATEX_AHEAD]; /* T_END from token[n] on */
    int n;
    char text[2 * LATEX_TEXT]; /* spellings that the source does not have in one piece */
    int used;
    bool bad; /* too long, too deep or not balanced */
    /* while lexing: */
    bool words, has_words; /* letters are words where they can be; some are */
    int brackets, environments, nesting, depth;
    int wanted[LATEX_DEPTH + 1];     /* by depth: arguments that commands still expect */
    bool one_digit[LATEX_DEPTH + 1]; /* of one digit without braces: \frac12, but 2^10 */
} Lexed;

static bool ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool ascii_digit(char c) { return c >= '0' && c <= '9'; }
static bool ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c; }

static bool text_is(const char *s, int n, const char *word)
{
    return (int)strlen(word) == n && !memcmp(s, word, n);
}

/* The index of a text among words that are separated, and ended, by spaces; -1: none of them. */
static int text_index(const char *s, int n, const char *words)
{
    for (int i = 0; *words; words += strcspn(words, " ") + 1, i++)
        if ((int)strcspn(words, " ") == n && !memcmp(s, words, n))
            return i;
    return -1;
}

static bool text_among(const char *s, int n, const char *words)
{
    return text_index(s, n, words) >= 0;
}

static const char *skip_spaces(const char *s, const char *end)
{
    while (s < end && ascii_space(*s))
        s++;
    return s;
}

static Lexeme *lex_last(Lexed *lx) { return lx->n ? &lx->token[lx->n - 1] : NULL; }

static void lex_put(Lexed *lx, LexemeKind kind, const char *s, int n)
{
    lx->bad |= lx->n == LATEX_TOKENS;
    if (!lx->bad)
        lx->token[lx->n++] = (Lexeme){kind, s, n};
}

static void lex_sign(Lexed *lx, const char *s) { lex_put(lx, T_SIGN, s, 1); }

/* Adds a character to the spelling that began at lx->text[from]. */
static void lex_char(Lexed *lx, char c)
{
    lx->bad |= lx->used == (int)sizeof lx->text;
    if (!lx->bad)
        lx->text[lx->used++] = c;
}

static void lex_open(Lexed *lx)
{
    lx->bad |= lx->depth == LATEX_DEPTH;
    if (lx->bad)
        return;
    lex_put(lx, T_OPEN, "{", 1);
    lx->wanted[++lx->depth] = 0;
    lx->one_digit[lx->depth] = false;
}

static void lex_close(Lexed *lx)
{
    lx->bad |= lx->depth == 0;
    lex_put(lx, T_CLOSE, "}", 1);
    lx->depth -= lx->depth > 0;
}

/* If the next token is an argument without braces, opens them. */
static bool lex_argument(Lexed *lx)
{
    if (!lx->wanted[lx->depth])
        return false;
    lx->wanted[lx->depth]--;
    lex_open(lx);
    return true;
}

/* ---------------------------------------------------------------- numbers */

/* From here on, a function that returns a const char * appends the tokens at s and returns their
 * end. `end` is the end of the text. */

/* The length of a thousands separator at s, before exactly three digits; else 0. A plain comma or
 * space is one only outside of brackets: (1,200) has two coordinates. */
static int lex_thousands(const char *s, const char *end, bool outside)
{
    static const char *const separators[] = {"{,}", ",\\!", "\\!,", "\\,", "{,}\\!", ",", " "};
    for (int i = 0; i < 7; i++) {
        int n = strlen(separators[i]);
        if (end - s < n + 3 || memcmp(s, separators[i], n) || (i >= 5 && !outside))
            continue;
        while (i < 5 && s + n < end && s[n] == ' ')
            n++;
        int digits = 0;
        while (s + n + digits < end && digits < 4 && ascii_digit(s[n + digits]))
            digits++;
        if (digits == 3)
            return n;
    }
    return 0;
}

/* At a digit, or at a point before one. */
static const char *lex_number(Lexed *lx, const char *s, const char *end)
{
    int from = lx->used, lead = 0, n;
    bool one_digit = lx->one_digit[lx->depth], argument = lex_argument(lx);
    if (argument && one_digit) { /* the point of \frac.5 is no number */
        lex_put(lx, *s == '.' ? T_SIGN : T_NUMBER, s, 1);
        lex_close(lx);
        return s + 1;
    }
    for (; s < end && ascii_digit(*s); s++, lead++)
        lex_char(lx, *s);
    bool groups = lead && lead <= 3 && lx->text[from] != '0';
    while (groups && (n = lex_thousands(s, end, !argument && !lx->brackets)))
        for (s += n, n = 0; n < 3; n++)
            lex_char(lx, *s++);
    if (s < end && *s == '.' && !(argument && (end - s < 2 || !ascii_digit(s[1])))) {
        lex_char(lx, *s++);
        for (; s < end && ascii_digit(*s); s++)
            lex_char(lx, *s);
        if (lx->used && lx->text[lx->used - 1] == '.' && (s == end || *s != '\\'))
            lx->used--; /* "60.", but 0.\overline{3} */
    }
    lex_put(lx, T_NUMBER, lx->text + from, lx->used - from);
    if (argument)
        lex_close(lx);
    return s;
}

/* ---------------------------------------------------------------- words */

#define WORDS_AND "and or "
#define WORDS_PERCENT "percent pct percentage "
#define WORDS_FUNCTION "sqrt sin cos tan cot sec csc log ln exp arcsin arccos arctan "
#define WORDS_UNIT "cm mm km kg mg ml ft lb lbs oz hr hrs min mph kph usd pm am "
#define WORDS_SHORT "in mi yd sq cu gal kw mb gb sec day per th st nd rd US so "
#define WORDS_SYMBOL "pi theta alpha beta "

/* One piece of text, without commas: a connective, a percent sign, a number word, or a word. */
static void lex_piece(Lexed *lx, const char *s, int n)
{
    static const char numbers[] =
        "zero one two three four five six seven eight nine ten eleven twelve ";
    static const char digits[] = "0123456789101112";
    while (n && (ascii_space(*s) || *s == '~'))
        s++, n--;
    while (n && (ascii_space(s[n - 1]) || s[n - 1] == '~'))
        n--;
    if (n > 1 && s[n - 1] == '.' && !memchr(s, '.', n - 1))
        n--;
    if (n == 3 && s[0] == '(' && s[2] == ')') /* a choice: (C) */
        s++, n = 1;
    int from = lx->used;
    for (int i = 0; i < n; i++)
        if (!ascii_space(s[i]) || !ascii_space(s[i + 1]))
            lex_char(lx, ascii_space(s[i]) ? ' ' : n == 1 ? s[i] : ascii_lower(s[i]));
    const char *word = lx->text + from;
    n = lx->used - from;
    int number = text_index(word, n, numbers);
    if (number >= 10)
        lex_put(lx, T_NUMBER, digits + (2 * number - 10), 2);
    else if (number >= 0)
        lex_put(lx, T_NUMBER, digits + number, 1);
    else if (text_among(word, n, WORDS_AND))
        lex_sign(lx, ",");
    else if (text_among(word, n, WORDS_PERCENT))
        lex_sign(lx, "%");
    else if (n)
        lex_put(lx, T_WORD, word, n);
}

/* Words: pieces between commas, "and" and "or". */
static void lex_words(Lexed *lx, const char *s, const char *end)
{
    const char *piece = s;
    while (s < end) {
        const char *word = s;
        while (s < end && !ascii_space(*s) && *s != ',' && *s != ';')
            s++;
        if (text_among(word, s - word, WORDS_AND)) {
            lex_piece(lx, piece, word - piece);
            lex_sign(lx, ",");
            piece = s;
        }
        if (s < end && !ascii_space(*s)) {
            lex_piece(lx, piece, s - piece);
            lex_sign(lx, ",");
            piece = s + 1;
        }
        s += s < end;
    }
    lex_piece(lx, piece, end - piece);
}

/* Where letters are words: are those from s up to the next other character? "sq ft", "a day" and
 * "red apples" are, "xy" and "x day" are not: one word is a unit or has four letters, and only the
 * shortest units are single letters, after a space, a slash or a brace: 18 m/s. */
static const char *lex_phrase(const Lexed *lx, const char *s, const char *end)
{
    enum { LONGEST_PHRASE = 64 };
    const char *p = s, *last = s;
    bool known = false;
    while (p < end && ascii_letter(*p) && p - s < LONGEST_PHRASE) {
        const char *word = p;
        while (p < end && ascii_letter(*p))
            p++;
        int n = p - word;
        bool first = word == s, letter = text_among(word, n, "m g s h l L ");
        if (text_among(word, n, WORDS_FUNCTION WORDS_SYMBOL) && !text_is(word, n, "sec"))
            return NULL;
        if (n == 1 && !(letter && (!first || (lx->n && strchr(" /{", s[-1])))) && *word != 'a')
            return NULL;
        known |= n >= 4 || letter || text_among(word, n, WORDS_UNIT WORDS_SHORT);
        last = p;
        p += p < end && *p == '.';
        p = skip_spaces(p, end);
    }
    return known ? last : NULL;
}

/* Letters outside of \text: a word, a function, or a product of variables. */
static const char *lex_letters(Lexed *lx, const char *s, const char *end)
{
    const char *from = s;
    int upper = 0;
    if (lex_argument(lx)) {
        lex_put(lx, T_LETTER, s, 1);
        lex_close(lx);
        return s + 1;
    }
    const char *phrase = lx->words ? lex_phrase(lx, s, end) : NULL;
    if (phrase) {
        lx->has_words = true;
        lex_words(lx, from, phrase);
        return phrase;
    }
    for (; s < end && ascii_letter(*s); s++)
        upper += *s <= 'Z';
    int n = s - from;
    Lexeme *last = lex_last(lx);
    bool after = last && (last->kind == T_NUMBER || last->kind == T_CLOSE ||
                          text_is(last->s, last->n, "pi"));
    if (text_among(from, n, WORDS_FUNCTION WORDS_SYMBOL)) {
        lex_put(lx, T_COMMAND, from, n);
    } else if (text_is(from, n, "infinity") || text_is(from, n, "inf")) {
        lex_put(lx, T_COMMAND, "infty", 5);
    } else if (n >= 4 || (n == 3 && upper) || text_among(from, n, WORDS_AND WORDS_PERCENT) ||
               (after && text_among(from, n, WORDS_UNIT))) {
        lex_piece(lx, from, n);
    } else {
        for (int i = 0; i < n; i++)
            lex_put(lx, T_LETTER, from + i, 1);
    }
    return s;
}

/* ---------------------------------------------------------------- commands */

/* Commands and their canonical tokens; "": no token. */
static const struct {
    const char *names, *means;
    LexemeKind kind;
} LATEX_COMMANDS[] = {
    {"left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr middle displaystyle textstyle "
     "quad qquad limits nolimits boxed fbox thinspace enspace hfill mathstrut rm bf it ! , ; : > "
     "( ) [ ] $ tiny small normalsize large Large LARGE huge Huge underline boldsymbol bm pmb ",
     "", T_SIGN},
    {"frac dfrac tfrac cfrac ", "frac", T_COMMAND},
    {"binom dbinom tbinom ", "binom", T_COMMAND}, {"dots cdots dotsc ", "ldots", T_COMMAND},
    {"cup bigcup ", "cup", T_COMMAND}, {"infty infin ", "infty", T_COMMAND},
    {"emptyset varnothing ", "emptyset", T_COMMAND}, {"lg ", "log", T_COMMAND},
    {"Bbb ", "mathbb", T_COMMAND}, {"bar ", "overline", T_COMMAND},
    {"overrightarrow ", "vec", T_COMMAND},
    {"le leq leqslant ", "\\le", T_RELATION}, {"ge geq geqslant ", "\\ge", T_RELATION},
    {"lt ", "<", T_RELATION}, {"gt ", ">", T_RELATION}, {"ne neq ", "\\ne", T_RELATION},
    {"in ", "\\in", T_RELATION}, {"approx simeq ", "\\approx", T_RELATION},
    {"cdot times ast ", "*", T_SIGN}, {"div slash ", "/", T_SIGN}, {"lbrace { ", "<", T_SIGN},
    {"rbrace } ", ">", T_SIGN}, {"lbrack ", "[", T_SIGN}, {"rbrack ", "]", T_SIGN},
    {"lvert rvert vert ", "|", T_SIGN}, {"langle ", "(", T_SIGN}, {"rangle ", ")", T_SIGN},
    {"colon ", ":", T_SIGN}, {"% ", "%", T_SIGN}, {"& ", ",", T_SIGN},
    {"degree circ ", "@", T_SIGN}, {"cr newline ", "\\", T_ROW},
};

#define LATEX_ALPHABET "mathrm mathbf mathit mathsf bold operatorname "
#define LATEX_TEXTUAL \
    "text mbox textbf textit textrm textnormal texttt textsf hbox emph " LATEX_ALPHABET

static void lex_range(Lexed *lx, const char *s, const char *end);

/* The closing brace of the group that begins at s; `end` if there is none. */
static const char *lex_group_end(const char *s, const char *end)
{
    int depth = 0;
    for (; s < end; s++) {
        if (*s == '\\' && s + 1 < end)
            s++;
        else if (*s == '{')
            depth++;
        else if (*s == '}' && --depth == 0)
            return s;
    }
    return end;
}

/* 18, \$1,800 or 18 eggs */
static bool number_and_words(const char *s, const char *end)
{
    s += s < end && *s == '\\';
    s += s < end && *s == '$';
    const char *number = s;
    while (s + 1 < end && (ascii_digit(*s) || (strchr(".,", *s) && ascii_digit(s[1]))))
        s++;
    s += s < end && ascii_digit(*s);
    bool begun = s > number;
    while (s < end && (ascii_letter(*s) || *s == ' ' || *s == '.'))
        s++;
    return begun && s == end;
}

/* \text{...}: words, or one number or fraction; where letters are words, a number and words. */
static void lex_text(Lexed *lx, const char *s, const char *end)
{
    const char *p = s;
    if (lx->words && number_and_words(s, end)) {
        lx->has_words = true;
        p = end;
    }
    while (p < end) {
        if (*p == '\\' && end - p > 5 && (!memcmp(p, "\\frac", 5) || !memcmp(p, "\\dfra", 5)))
            p += p[1] == 'd' ? 6 : 5;
        else if (ascii_digit(*p) || (*p && strchr("+-./{} ", *p)))
            p++;
        else
            break;
    }
    (p == end ? lex_range : lex_words)(lx, s, end);
}

/* \mathbf{...}: mathematics, but several letters are a word. */
static void lex_alphabet(Lexed *lx, const char *s, const char *end)
{
    const char *p = s;
    while (p < end && (ascii_letter(*p) || ascii_space(*p)))
        p++;
    (p == end && end - s > 1 ? lex_words : lex_range)(lx, s, end);
}

/* \begin{pmatrix}, \end{pmatrix}; s is after the word. */
static const char *lex_environment(Lexed *lx, bool begin, const char *s, const char *end)
{
    const char *close = s < end && *s == '{' ? lex_group_end(s, end) : end;
    if (close == end) {
        lx->bad = true;
        return end;
    }
    int n = (int)(close - s) - 1;
    bool bars = n > 1 && (s[1] == 'v' || s[1] == 'V');
    bool array = text_is(s + 1, n, "array");
    lx->environments += begin ? 1 : -1;
    lex_put(lx, begin ? T_BEGIN : T_FINISH, bars ? "|matrix" : "matrix", bars ? 7 : 6);
    if (!array && !(n >= 6 && !memcmp(close - 6, "matrix", 6)))
        lx->bad = true;
    s = close + 1;
    if (array && begin && s < end && *s == '{') /* {cc} */
        s = lex_group_end(s, end) + 1;
    return s < end ? s : end;
}

#define LATEX_ONE_ARGUMENT "sqrt mathbb mathcal overline vec hat widehat "

/* 1 for an opening bracket, -1 for a closing one. */
static int lex_bracket(char c)
{
    return (c == '(' || c == '[' || c == '<') - (c == ')' || c == ']' || c == '>');
}

/* A command's token. One that is itself an argument, \frac\pi2, gets its braces, unless it takes
 * arguments of its own, 2^\frac12. */
static void lex_named(Lexed *lx, LexemeKind kind, const char *name, int n, const char *s,
                      const char *end)
{
    int takes = text_among(name, n, "frac binom ") ? 2 : text_among(name, n, LATEX_ONE_ARGUMENT);
    lx->wanted[lx->depth] -= takes && lx->wanted[lx->depth] > 0;
    bool argument = !takes && lex_argument(lx);
    lex_put(lx, kind, name, n);
    if (argument) {
        lex_close(lx);
    } else if (kind == T_COMMAND) {
        lx->one_digit[lx->depth] = true;
        lx->wanted[lx->depth] += takes == 1 ? !(s < end && *s == '[') : takes;
    }
}

/* At a backslash. */
static const char *lex_command(Lexed *lx, const char *s, const char *end)
{
    const char *name = ++s;
    if (s < end && !ascii_letter(*s))
        s++;
    else
        while (s < end && ascii_letter(*s))
            s++;
    int n = s - name;
    if (n == 1 && *name == '\\') {
        if (lx->environments)
            lex_put(lx, T_ROW, name, 1);
        bool doubled = !lx->environments && s < end && ascii_letter(*s); /* "\\frac" is \frac */
        return doubled ? s - 1 : s;
    }
    if (n == 0 || (n == 1 && ascii_space(*name)))
        return s;
    s = skip_spaces(s, end);
    if (text_is(name, n, "begin") || text_is(name, n, "end"))
        return lex_environment(lx, *name == 'b', s, end);
    if (text_among(name, n, "phantom hspace vspace hphantom vphantom label tag color textcolor "))
        return s < end && *s == '{' ? lex_group_end(s, end) + 1 : s;
    if (text_among(name, n, LATEX_TEXTUAL) && s < end && *s == '{') {
        const char *close = lex_group_end(s, end);
        bool argument = lex_argument(lx);
        (text_among(name, n, LATEX_ALPHABET) ? lex_alphabet : lex_text)(lx, s + 1, close);
        if (argument)
            lex_close(lx);
        return close < end ? close + 1 : end;
    }
    if (text_among(name, n, LATEX_TEXTUAL))
        return s;
    if (text_among(name, n, "left right ") && s < end && *s == '.')
        return s + 1;
    for (size_t i = 0; i < sizeof LATEX_COMMANDS / sizeof *LATEX_COMMANDS; i++)
        if (text_among(name, n, LATEX_COMMANDS[i].names)) {
            const char *means = LATEX_COMMANDS[i].means;
            if (*means && LATEX_COMMANDS[i].kind == T_SIGN)
                lx->brackets += lex_bracket(*means);
            if (*means)
                lex_named(lx, LATEX_COMMANDS[i].kind, means, (int)strlen(means), s, end);
            return s;
        }
    lex_named(lx, T_COMMAND, name, n, s, end);
    return s;
}

/* ---------------------------------------------------------------- all tokens */

/* Signs beyond ASCII, as LaTeX. */
static const struct {
    const char *utf8, *latex;
} LATEX_UNICODE[] = {
    {"\xE2\x88\x92", "-"},        {"\xE2\x80\x93", "-"},       {"\xE2\x80\x94", "-"},
    {"\xC3\x97", "\\times "},     {"\xC2\xB7", "\\cdot "},     {"\xE2\x8B\x85", "\\cdot "},
    {"\xC3\xB7", "\\div "},       {"\xE2\x80\xA6", "\\ldots "},
    {"\xE2\x88\x9A", "\\sqrt "},  {"\xE2\x88\x9E", "\\infty "}, {"\xC2\xB0", "\\circ "},
    {"\xE2\x89\xA4", "\\le "},    {"\xE2\x89\xA5", "\\ge "},   {"\xE2\x89\xA0", "\\ne "},
    {"\xE2\x89\x88", "\\approx "}, {"\xC2\xB1", "\\pm "},      {"\xE2\x88\xAA", "\\cup "},
    {"\xE2\x88\x88", "\\in "},    {"\xE2\x88\x85", "\\emptyset "}, {"\xE2\x84\x9D", "\\mathbb{R}"},
    {"\xC2\xBC", "\\frac14 "},    {"\xC2\xBD", "\\frac12 "},   {"\xC2\xBE", "\\frac34 "},
    {"\xE2\x85\x93", "\\frac13 "}, {"\xE2\x85\x94", "\\frac23 "}, {"\xE2\x85\x9B", "\\frac18 "},
    {"\xE2\x85\x9C", "\\frac38 "}, {"\xE2\x85\x9D", "\\frac58 "}, {"\xE2\x85\x9E", "\\frac78 "},
    {"\xC2\xA0", " "},            {"\xE2\x80\xAF", " "},       {"\xE2\x80\x89", " "},
    {"\xE2\x82\xAC", ""},         {"\xC2\xA3", ""},            {"\xC2\xA5", ""},
};

/* The digit, sign or n that a code point writes as a superscript or subscript; else 0. */
static char script_of(uint32_t code, bool below)
{
    if (below)
        return code >= 0x2080 && code <= 0x2089 ? (char)('0' + (code - 0x2080)) : 0;
    if (code == 0xB2 || code == 0xB3)
        return (char)('0' + (code - 0xB0));
    if (code == 0xB9)
        return '1';
    return code >= 0x2070 && code < 0x2080 ? "0\0\0\0" "456789\0-\0\0\0n"[code - 0x2070] : 0;
}

/* A run of superscripts, or of subscripts, is one group; returns s where there is none. */
static const char *lex_scripts(Lexed *lx, const char *s, const char *end, bool below)
{
    int from = lx->used;
    while (s < end) {
        uint32_t code;
        int length = utf8_decode(s, end - s, &code);
        if (!script_of(code, below))
            break;
        lex_char(lx, script_of(code, below));
        s += length;
    }
    if (lx->used > from) {
        lex_sign(lx, below ? "_" : "^");
        lex_open(lx);
        lex_range(lx, lx->text + from, lx->text + lx->used);
        lex_close(lx);
    }
    return s;
}

/* A Greek letter, as its command; returns s where there is none. */
static const char *lex_greek(Lexed *lx, const char *s, const char *end)
{
    static const char names[] =
        "Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota Kappa Lambda Mu Nu Xi Omicron Pi Rho "
        "Sigma Sigma Tau Upsilon Phi Chi Psi Omega ? ? ? ? ? ? ? "
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho "
        "sigma sigma tau upsilon phi chi psi omega ";
    uint32_t code, first = 0x391;
    int length = utf8_decode(s, end - s, &code);
    const char *name = names;
    if (code < first || code > 0x3C9 || (code > 0x3A9 && code < 0x3B1))
        return s;
    for (; code > first; code--)
        name += strcspn(name, " ") + 1;
    lex_named(lx, T_COMMAND, name, (int)strcspn(name, " "), s + length, end);
    return s + length;
}

static const char *lex_unicode(Lexed *lx, const char *s, const char *end)
{
    const char *next = lex_greek(lx, s, end);
    for (int below = 0; below < 2 && next == s; below++)
        next = lex_scripts(lx, s, end, below);
    if (next != s)
        return next;
    for (size_t i = 0; i < sizeof LATEX_UNICODE / sizeof *LATEX_UNICODE; i++) {
        const char *utf8 = LATEX_UNICODE[i].utf8, *latex = LATEX_UNICODE[i].latex;
        size_t n = strlen(utf8);
        if ((size_t)(end - s) >= n && !memcmp(s, utf8, n)) {
            lex_range(lx, latex, latex + strlen(latex));
            lx->one_digit[lx->depth] = false; /* after a root sign */
            return s + n;
        }
    }
    lex_put(lx, T_WORD, s, 1); /* any other byte equals only itself */
    return s + 1;
}

/* ^ and _ take an argument: a group, a command, a letter, digits with their sign. */
static const char *lex_script(Lexed *lx, const char *s, const char *end)
{
    Lexeme *last = lex_last(lx);
    bool log = last && last->kind == T_COMMAND && text_is(last->s, last->n, "log");
    const char *p = skip_spaces(s + 1, end), *q = p;
    if (p < end && *p == '{')
        q = skip_spaces(p + 1, end);
    if (*s == '^' && end - q >= 5 && !memcmp(q, "\\circ", 5)) {
        q = skip_spaces(q + 5, end);
        if (*p != '{' || (q < end && *q == '}')) {
            lex_sign(lx, "@");
            return *p == '{' ? q + 1 : q;
        }
    }
    lex_sign(lx, *s == '^' ? "^" : "_");
    lx->wanted[lx->depth]++;
    lx->one_digit[lx->depth] = *s == '_' && log;
    if (end - p >= 2 && *p == '-' && (ascii_digit(p[1]) || ascii_letter(p[1]))) {
        lex_argument(lx);
        lex_sign(lx, "-");
        bool digit = ascii_digit(p[1]);
        p = digit ? lex_number(lx, p + 1, end) : p + 2;
        if (!digit)
            lex_put(lx, T_LETTER, p - 1, 1);
        lex_close(lx);
    }
    return p;
}

/* < = > ! <= >= != == */
static const char *lex_relation(Lexed *lx, const char *s, const char *end)
{
    bool equals = s + 1 < end && s[1] == '=';
    if (*s == '!' && !equals)
        lex_sign(lx, "!");
    else if (*s == '=' || !equals)
        lex_put(lx, T_RELATION, s, 1);
    else
        lex_put(lx, T_RELATION, *s == '<' ? "\\le" : *s == '>' ? "\\ge" : "\\ne", 3);
    return s + 1 + equals;
}

static const char *lex_one(Lexed *lx, const char *s, const char *end)
{
    char c = *s;
    if (ascii_space(c) || c == '$' || c == '~')
        return s + 1;
    if (ascii_digit(c) || (c == '.' && s + 1 < end && ascii_digit(s[1])))
        return lex_number(lx, s, end);
    if (ascii_letter(c))
        return lex_letters(lx, s, end);
    if (c == '\\')
        return lex_command(lx, s, end);
    if ((unsigned char)c >= 0x80)
        return lex_unicode(lx, s, end);
    if (c == '^' || c == '_')
        return lex_script(lx, s, end);
    if (strchr("<>=!", c) && c)
        return lex_relation(lx, s, end);
    if (c == '{') {
        lx->wanted[lx->depth] -= lx->wanted[lx->depth] > 0;
        lex_open(lx);
    } else if (c == '}') {
        lex_close(lx);
    } else if (c == '*' && s + 1 < end && s[1] == '*') { /* Python's power */
        static const char caret[] = "^";
        lex_script(lx, caret, caret + 1);
        return s + 2;
    } else if (c == '.' && end - s >= 3 && !memcmp(s, "...", 3)) {
        lex_put(lx, T_COMMAND, "ldots", 5);
        return s + 3;
    } else if (c == ';') {
        lex_sign(lx, ",");
    } else {
        lx->brackets += lex_bracket(c);
        lex_sign(lx, s);
    }
    return s + 1;
}

static void lex_range(Lexed *lx, const char *s, const char *end)
{
    lx->bad |= ++lx->nesting > LATEX_DEPTH; /* \text{\text{... */
    while (s < end && !lx->bad)
        s = lex_one(lx, s, end);
    lx->nesting--;
}

static bool lexeme_is(const Lexeme *t, const char *sign)
{
    return t->kind == T_SIGN && t->n == 1 && *t->s == *sign;
}

/* May precede an answer: a comma, a colon, = or \approx; not \le, \ge, \ne, \in, of three bytes. */
static bool is_lead_in(const Lexeme *t)
{
    return lexeme_is(t, ",") || lexeme_is(t, ":") ||
           (t->kind == T_RELATION && strchr("=\\", *t->s) && t->n != 3);
}

/* The tokens of n bytes; false where they are too many, too deep or not balanced. */
static bool latex_lex(const char *text, size_t n, bool words, Lexed *lx)
{
    lx->words = words;
    lx->has_words = false;
    lx->n = lx->used = lx->brackets = lx->environments = lx->nesting = 0;
    lx->depth = lx->wanted[0] = 0;
    lx->one_digit[0] = false;
    lx->bad = n > LATEX_TEXT;
    if (!lx->bad)
        lex_range(lx, text, text + n);
    lx->bad |= lx->depth != 0;
    while (lx->n && (lexeme_is(lex_last(lx), ".") || lexeme_is(lex_last(lx), ",")))
        lx->n--;
    int first = 0;
    while (first < lx->n && is_lead_in(&lx->token[first]))
        first++;
    memmove(lx->token, lx->token + first, (lx->n - first) * sizeof(Lexeme));
    lx->n -= first;
    for (int i = 0; i < LATEX_AHEAD; i++)
        lx->token[lx->n + i] = (Lexeme){T_END, "", 0};
    return !lx->bad;
}

/* Equal tokens, where \text{E} equals E. */
static bool latex_same(const Lexed *a, const Lexed *b)
{
    bool same = a->n == b->n && a->n > 0;
    for (int i = 0; i < a->n && same; i++) {
        const Lexeme *x = &a->token[i], *y = &b->token[i];
        bool letters = x->n == 1 && (x->kind == T_LETTER || x->kind == T_WORD) &&
                       (y->kind == T_LETTER || y->kind == T_WORD);
        same = (x->kind == y->kind || letters) && x->n == y->n &&
               !memcmp(x->s, y->s, x->n);
    }
    return same;
}

/* Prints a token, and a space where the next one would run into it. */
static void token_print(const Lexeme *t, const Lexeme *next, Buf *out)
{
    bool letter = next->kind == T_LETTER || next->kind == T_NUMBER;
    if (t->kind == T_COMMAND)
        buf_printf(out, "\\%.*s%s", t->n, t->s, letter ? " " : "");
    else if (t->kind == T_WORD && t->n > 1)
        buf_printf(out, "\\text{%.*s}", t->n, t->s);
    else if (t->kind == T_BEGIN || t->kind == T_FINISH)
        buf_printf(out, "\\%s{%cmatrix}", t->kind == T_BEGIN ? "begin" : "end",
                   *t->s == '|' ? 'v' : 'p');
    else if (t->kind == T_ROW)
        buf_str(out, "\\\\");
    else if (lexeme_is(t, "@"))
        buf_str(out, "^\\circ");
    else if (lexeme_is(t, "<") || lexeme_is(t, ">"))
        buf_str(out, *t->s == '<' ? "\\{" : "\\}");
    else
        buf_printf(out, "%.*s%s", t->n, t->s, (t->kind == T_RELATION && t->n > 1 && letter) ||
                   (t->kind == T_NUMBER && next->kind == T_NUMBER) ? " " : "");
}

/* The normal form: the value without "x =", units and degrees. */
static void latex_print(const Lexed *lx, Buf *out)
{
    int i = 0;
    buf_add(out, "", 0);
    if (lx->n > 2 && lx->token[0].kind == T_LETTER && lx->token[1].kind == T_RELATION &&
        *lx->token[1].s == '=')
        i = 2;
    for (int first = i; i < lx->n; i++) {
        const Lexeme *t = &lx->token[i];
        bool unit = i > first && t->kind == T_WORD && !lexeme_is(t - 1, ",");
        if (unit || lexeme_is(t, "@")) {
            if (unit && lexeme_is(t + 1, "^")) /* cm^{2} */
                while (i < lx->n && lx->token[i].kind != T_CLOSE)
                    i++;
            continue;
        }
        token_print(t, t + 1, out);
    }
}

#endif
