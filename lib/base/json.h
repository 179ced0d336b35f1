/* json.h: a pull parser for JSON, and functions that append JSON to a Buf.
 *
 * The reader is a cursor over text that the caller owns. It builds no tree: the caller reads the
 * value that it expects next, and any other is an error. The first error sticks: from then on every
 * function returns false and moves nothing, so one test at the end is enough.
 *
 *   Json j = json_open(text, n);
 *   json_object(&j);
 *   while (json_key(&j, &key))
 *       if (!strcmp(key.s, "lr"))
 *           json_number(&j, &lr);
 *       else
 *           json_skip(&j);
 *   if (!json_end(&j))
 *       die("%s: line %d: %s", path, json_line(&j), j.error);
 *
 *   json_peek                      the kind of the next value
 *   json_object, json_key          into an object; its next key, or false at its end
 *   json_array, json_item          into an array; is there another item?
 *   json_string ... json_null      one value; the variable is unchanged if there is an error
 *   json_string_or_number          a string, or a number as it is written
 *   json_skip, json_missing        any value; null, if it comes next: a missing value
 *   json_end, json_line            nothing is left; the line of the error
 *   jsonl_read, _next, _end        a file of one object a line
 *   jsonl_texts                    such a line whose members are texts
 *   json_put_string, json_put_number
 *   put, put_text, put_vector, put_matrix     a member of an object
 *   utf8_decode, utf8_encode
 *
 * It accepts RFC 8259 and nothing else (no comments, no trailing commas, no NaN), with three
 * limits: 64 levels of nesting, numbers of at most 1,000 characters, and no NUL in a string unless
 * the caller allows it (strings here are C strings). It never recurses or reads beyond text[n - 1];
 * of the readers only those of JSONL exit. */
#ifndef JSON_H
#define JSON_H

#include "util.h" /* defines: Buf, buf_add, buf_printf */

#include <float.h>

enum { JSON_MAX_DEPTH = 64, JSON_MAX_NUMBER = 1000 };

typedef struct {
    const char *start, *p, *end;
    int depth;            /* open brackets */
    bool nul;             /* \u0000 is allowed: the caller uses the lengths of strings */
    const char *error;    /* NULL, or the first error, a static string */
    const char *error_at; /* its place in the text */
    uint64_t objects;     /* bit d: the bracket at depth d + 1 is a '{' */
    uint64_t begun;       /* bit d: it has an item, so that a comma comes before the next */
} Json;

/* ---------------------------------------------------------------- UTF-8 */

/* Decodes one code point from n > 0 bytes. Returns its length; if the bytes are not UTF-8, minus
 * the length of the part that one U+FFFD replaces: the longest prefix of a character, at least one
 * byte (Unicode's table 3-8, as Rust and Python do it). */
static inline int utf8_decode(const char *text, size_t n, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    *code = s[0];
    if (s[0] < 0x80)
        return 1;
    *code = 0xFFFD;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return -1;
    int length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t c = s[0] & (0x7Fu >> length);
    /* Overlong forms, surrogates and code points above U+10FFFF show in the second byte. */
    int low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    int high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n || s[i] < low || s[i] > high)
            return -i;
        c = c << 6 | (s[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *code = c;
    return length;
}

static inline void utf8_encode(Buf *out, uint32_t code)
{
    unsigned char s[4] = {(unsigned char)code};
    int length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6)
        s[i] = (unsigned char)(0x80 | (code & 0x3F));
    if (length > 1)
        s[0] = (unsigned char)(0xF00u >> length | code); /* 110.., 1110.., 11110.. */
    buf_add(out, s, length);
}

/* ---------------------------------------------------------------- the cursor */

static inline Json json_open(const char *text, size_t n)
{
    text = text ? text : "";
    return (Json){.start = text, .p = text, .end = text + n};
}

/* Records the first error. Callers use it too, for good JSON that they cannot take. */
static inline bool json_fail(Json *j, const char *what)
{
    if (!j->error) {
        j->error = what;
        j->error_at = j->p;
    }
    return false;
}

static inline bool json_at(const Json *j, char c) { return j->p < j->end && *j->p == c; }

static inline bool json_is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

/* The kind of the next value, after white space: '{', '[', '"', 'n' for null, '0' for a number, 't'
 * for true and false; 0 where there is no value, or after an error. */
static inline char json_peek(Json *j)
{
    if (j->error)
        return 0;
    while (json_at(j, ' ') || json_at(j, '\n') || json_at(j, '\r') || json_at(j, '\t'))
        j->p++;
    if (json_at(j, '-') || json_is_digit(j->p, j->end))
        return '0';
    if (json_at(j, 't') || json_at(j, 'f'))
        return 't';
    return j->p < j->end && *j->p && strchr("{[\"n", *j->p) ? *j->p : 0;
}

static inline int json_line(const Json *j)
{
    int line = 1;
    const char *stop = j->error ? j->error_at : j->p;
    for (const char *p = j->start; p < stop; p++)
        line += *p == '\n';
    return line;
}

static inline bool json_end(Json *j)
{
    json_peek(j);
    if (j->p < j->end || j->depth)
        json_fail(j, "expected the end of the text");
    return !j->error;
}

/* ---------------------------------------------------------------- objects and arrays */

static inline bool json_enter(Json *j, char open)
{
    bool object = open == '{';
    if (json_peek(j) != open)
        return json_fail(j, object ? "expected an object: {...}" : "expected an array: [...]");
    if (j->depth == JSON_MAX_DEPTH)
        return json_fail(j, "more than 64 levels of nesting");
    uint64_t bit = (uint64_t)1 << j->depth++;
    j->objects = object ? j->objects | bit : j->objects & ~bit;
    j->begun &= ~bit;
    j->p++;
    return true;
}

static inline bool json_object(Json *j) { return json_enter(j, '{'); }

static inline bool json_array(Json *j) { return json_enter(j, '['); }

static inline bool json_in_object(const Json *j)
{
    return j->depth && j->objects >> (j->depth - 1) & 1;
}

/* Moves over the comma to the next item; or over the closing bracket, and returns false. */
static inline bool json_next(Json *j, char close)
{
    json_peek(j);
    if (j->error)
        return false;
    if (json_at(j, close)) {
        j->p++;
        j->depth--;
        return false;
    }
    uint64_t bit = (uint64_t)1 << (j->depth - 1);
    if (j->begun & bit) {
        if (!json_at(j, ','))
            return json_fail(j, close == '}' ? "expected , or }" : "expected , or ]");
        j->p++;
        json_peek(j);
        if (json_at(j, close))
            return json_fail(j, "a comma before the closing bracket");
    }
    j->begun |= bit;
    return true;
}

static inline bool json_item(Json *j)
{
    if (!j->depth || json_in_object(j))
        return json_fail(j, "not in an array");
    return json_next(j, ']');
}

static inline bool json_string(Json *j, Buf *out);

static inline bool json_key(Json *j, Buf *key)
{
    if (!json_in_object(j))
        return json_fail(j, "not in an object");
    if (!json_next(j, '}'))
        return false;
    if (json_peek(j) != '"')
        return json_fail(j, "expected a key in double quotes");
    if (!json_string(j, key))
        return false;
    json_peek(j);
    if (!json_at(j, ':'))
        return json_fail(j, "expected : after the key");
    j->p++;
    return true;
}

/* ---------------------------------------------------------------- strings */

/* The four hexadecimal digits after \u; the cursor is at the u. */
static inline bool json_hex4(Json *j, uint32_t *unit)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    if (!json_at(j, 'u'))
        return json_fail(j, "an unknown \\ escape");
    *unit = 0;
    for (int i = 1; i <= 4; i++) {
        char c = j->end - j->p > i ? j->p[i] : 0;
        const char *digit = c ? strchr(digits, c) : NULL;
        if (!digit)
            return json_fail(j, "expected four hexadecimal digits after \\u");
        *unit = *unit << 4 | (digit - digits < 16 ? digit - digits : digit - digits - 6);
    }
    j->p += 5;
    return true;
}

/* One escape, after its backslash. Above U+FFFF it is a pair of \u, the surrogates. */
static inline bool json_escape(Json *j, Buf *out)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = j->p < j->end && *j->p ? strchr(letters, *j->p) : NULL;
    uint32_t code = letter ? (uint32_t)meanings[letter - letters] : 0, low = 0;
    if (letter) {
        j->p++;
    } else if (!json_hex4(j, &code)) {
        return false;
    } else if (code == 0 && !j->nul) {
        return json_fail(j, "\\u0000 cannot be in a string here");
    } else if (code >= 0xD800 && code <= 0xDFFF) {
        bool pair = code < 0xDC00 && json_at(j, '\\');
        j->p += pair;
        if (!pair || !json_hex4(j, &low) || low < 0xDC00 || low > 0xDFFF)
            return json_fail(j, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (out)
        utf8_encode(out, code);
    return true;
}

/* Replaces the contents of `out`; NULL: only checks. */
static inline bool json_string(Json *j, Buf *out)
{
    if (json_peek(j) != '"')
        return json_fail(j, "expected a string in double quotes");
    if (out) {
        out->n = 0;
        buf_add(out, "", 0);
    }
    const char *run = ++j->p; /* from here to p nothing is escaped */
    while (j->p < j->end) {
        char c = *j->p;
        if (c == '"' || c == '\\') {
            if (out)
                buf_add(out, run, j->p - run);
            j->p++;
            if (c == '"')
                return true;
            if (!json_escape(j, out))
                return false;
            run = j->p;
            continue;
        }
        uint32_t code;
        int length = utf8_decode(j->p, j->end - j->p, &code);
        if (length < 0)
            return json_fail(j, "bytes that are not UTF-8");
        if (code < 0x20)
            return json_fail(j, "a control character in a string; expected an escape");
        j->p += length;
    }
    return json_fail(j, "a string without its closing quote");
}

/* ---------------------------------------------------------------- numbers and names */

/* Moves over digits; false where there are none. */
static inline bool json_digits(const char **p, const char *end)
{
    const char *start = *p;
    while (json_is_digit(*p, end))
        ++*p;
    return *p > start;
}

/* The end of the number at the cursor: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
 * NULL, and an error, if there is none. */
static inline const char *json_number_end(Json *j)
{
    if (json_peek(j) != '0') {
        json_fail(j, "expected a number");
        return NULL;
    }
    const char *end = j->end, *first = j->p + json_at(j, '-'), *p = first;
    bool good = json_digits(&p, end) && (*first != '0' || p == first + 1);
    if (good && p < end && *p == '.') {
        p++;
        good = json_digits(&p, end);
    }
    if (good && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        good = json_digits(&p, end);
    }
    if (!good)
        json_fail(j, "a number that JSON does not know");
    return good ? p : NULL;
}

static inline bool json_int(Json *j, int64_t *out)
{
    const char *end = json_number_end(j), *p = j->p;
    if (!end)
        return false;
    bool negative = *p == '-';
    int64_t x = 0; /* minus the magnitude: INT64_MIN has no positive twin */
    for (p += negative; json_is_digit(p, end); p++) {
        int digit = *p - '0';
        if (x < (INT64_MIN + digit) / 10)
            return json_fail(j, "an integer beyond 64 bits");
        x = x * 10 - digit;
    }
    if (p < end)
        return json_fail(j, "expected an integer, without fraction or exponent");
    if (!negative && x == INT64_MIN)
        return json_fail(j, "an integer beyond 64 bits");
    *out = negative ? x : -x;
    j->p = end;
    return true;
}

static inline bool json_number(Json *j, double *out)
{
    const char *end = json_number_end(j);
    if (!end)
        return false;
    char text[JSON_MAX_NUMBER + 1]; /* strtod needs a NUL, which the text may not have */
    ptrdiff_t n = end - j->p;
    if (n > JSON_MAX_NUMBER)
        return json_fail(j, "a number of more than 1000 characters");
    memcpy(text, j->p, n);
    text[n] = 0;
    double x = strtod(text, NULL);
    if (!isfinite(x))
        return json_fail(j, "a number beyond the range of a double");
    *out = x;
    j->p = end;
    return true;
}

/* A string, or a number as it is written: 145.0 is "145.0". Replaces the contents of `out`. */
static inline bool json_string_or_number(Json *j, Buf *out)
{
    char kind = json_peek(j);
    if (kind != '0')
        return kind == '"' ? json_string(j, out) : json_fail(j, "expected a string or a number");
    const char *end = json_number_end(j);
    if (!end)
        return false;
    out->n = 0;
    buf_add(out, j->p, end - j->p);
    j->p = end;
    return true;
}

static inline bool json_word(Json *j, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n))
        return false;
    j->p += n;
    return true;
}

static inline bool json_bool(Json *j, bool *out)
{
    bool is_true = json_peek(j) == 't' && json_word(j, "true");
    if (!is_true && (json_peek(j) != 't' || !json_word(j, "false")))
        return json_fail(j, "expected true or false");
    *out = is_true;
    return true;
}

static inline bool json_null(Json *j)
{
    return (json_peek(j) == 'n' && json_word(j, "null")) || json_fail(j, "expected null");
}

/* Takes a null, if one comes next: a member without a value is as one that is not there. */
static inline bool json_missing(Json *j) { return json_peek(j) == 'n' && json_null(j); }

/* ---------------------------------------------------------------- any value */

/* A scalar, or the opening bracket of a longer value. */
static inline bool json_begin(Json *j)
{
    bool truth;
    const char *end;
    switch (json_peek(j)) {
    case '{': return json_object(j);
    case '[': return json_array(j);
    case '"': return json_string(j, NULL);
    case 't': return json_bool(j, &truth);
    case 'n': return json_null(j);
    default:
        end = json_number_end(j);
        j->p = end ? end : j->p;
        return end != NULL;
    }
}

/* Skips any value, without recursion: the cursor knows which brackets are open. */
static inline bool json_skip(Json *j)
{
    int outside = j->depth;
    for (json_begin(j); !j->error && j->depth > outside;)
        if (json_in_object(j) ? json_key(j, NULL) : json_item(j))
            json_begin(j);
    return !j->error;
}

/* ---------------------------------------------------------------- JSONL */

/* Dies where a text is JSON, but not JSONL: an array, or an object that goes over several lines. */
static inline void jsonl_demand(const char *text, const char *name, size_t n)
{
    Json j = json_open(text, n);
    char first = json_peek(&j);
    const char *next = j.p + 1;
    if (first == '[')
        die("%s: is a JSON array; expected JSONL, an object a line (jq -c '.[]' makes that)", name);
    while (first == '{' && next < j.end && (*next == ' ' || *next == '\t'))
        next++;
    if (first == '{' && next < j.end && *next == '\n')
        die("%s: is a JSON object over several lines; expected JSONL, an object a line (jq -c . "
            "makes that)", name);
}

/* The text of a file of JSONL; the caller frees it. */
static inline char *jsonl_read(const char *path, size_t *n)
{
    char *text = read_text_file(path, n);
    jsonl_demand(text, path, *n);
    return text;
}

/* A cursor at the next line that is not blank; false at the end. Lines end at 0x0A only. */
static inline bool jsonl_next(const char *text, size_t n, size_t *offset, int *line, Json *j)
{
    while (*offset < n) {
        const char *from = text + *offset, *newline = memchr(from, '\n', n - *offset);
        size_t length = newline ? (size_t)(newline - from) : n - *offset;
        *offset += length + 1;
        ++*line;
        size_t blank = 0;
        while (blank < length && strchr(" \t\r", from[blank]) && from[blank])
            blank++;
        if (blank == length)
            continue;
        *j = json_open(from, length);
        return true;
    }
    return false;
}

/* Dies where the line is bad, or goes on after its object. */
static inline void jsonl_end(Json *j, const char *path, int line)
{
    if (!json_end(j))
        die("%s: line %d: %s", path, line, j->error);
}

/* Text members of an object. */
typedef struct {
    const char *names; /* "prompt|question|problem": any of them */
    Buf *text;         /* of the last one; the others are lost. NULL: a list alone */
    int seen;          /* how many there were */
    bool number;       /* may be a number too: text is how it is written */
    bool (*list)(Json *, const char *where, void *to); /* reads an array in a text's place */
    void *to;
} TextField;

/* Reads a member's value into its field; false, and nothing is read, where it is none of them. */
static inline bool text_fields(Json *j, const Buf *key, TextField *field, int n, const char *where)
{
    TextField *f = field;
    while (f < field + n && choice_index(f->names, key->s, key->n) < 0)
        f++;
    if (f == field + n)
        return false;
    if (f->list && (json_peek(j) == '[' || !f->text))
        f->seen += f->list(j, where, f->to);
    else
        f->seen += (f->number ? json_string_or_number : json_string)(j, f->text);
    return true;
}

/* Reads a line of JSONL into n fields and skips other members; dies naming file, line and field.
 * A field that is null is not seen. */
static inline void jsonl_texts(Json *j, TextField *field, int n, const char *path, int line)
{
    Buf key = {0};
    Path where = path_printf("%s: line %d", path, line);
    for (int i = 0; i < n; i++)
        field[i].seen = 0;
    for (json_object(j); json_key(j, &key);)
        if (!json_missing(j) && !text_fields(j, &key, field, n, where.s))
            json_skip(j);
    if (j->error && key.n)
        die("%s: line %d: %.60s: %s", path, line, key.s, j->error);
    jsonl_end(j, path, line);
    buf_free(&key);
}

/* JSONL from stdin to stdout: `each` appends the result of a line. */
static inline void jsonl_filter(void (*each)(void *context, Json *, int line, Buf *out),
                                void *context)
{
    size_t n, offset = 0;
    int line = 0;
    Buf out = {0};
    char *text = read_stream(stdin, "stdin", &n);
    make_text(text, "stdin", &n);
    jsonl_demand(text, "stdin", n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j); out.n = 0) {
        each(context, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        demand_output(false);
    }
    buf_free(&out);
    free(text);
}

/* ---------------------------------------------------------------- writing */

/* The string in quotes. Bytes that are not UTF-8 become U+FFFD. */
static inline void json_put_string(Buf *b, const char *s, size_t n)
{
    uint32_t code;
    buf_add(b, "\"", 1);
    for (size_t i = 0; i < n;) {
        int length = utf8_decode(s + i, n - i, &code);
        if (code == '"' || code == '\\')
            buf_printf(b, "\\%c", (char)code);
        else if (code == '\n')
            buf_str(b, "\\n");
        else if (code < 0x20)
            buf_printf(b, "\\u%04x", (unsigned)code);
        else
            utf8_encode(b, code);
        i += abs(length);
    }
    buf_add(b, "\"", 1);
}

/* A number in so many digits, or in 17 if these read back as another number. */
static inline void put_exactly(Buf *b, double x, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, x);
    bool same = strtod(text, NULL) == x;
    buf_printf(b, "%.*g", same ? digits : 17, x);
}

/* Reads back exactly: a whole number in all its digits, for json_int; a number that is a float as
 * that float; any other as the same double. NaN and infinity become null. */
static inline void json_put_number(Buf *b, double x)
{
    if (!isfinite(x))
        buf_str(b, "null");
    else if (fabs(x) < 1e15 && x == rint(x))
        buf_printf(b, "%.0f", x);
    else if (fabs(x) <= (double)FLT_MAX && x == (double)(float)x)
        buf_printf(b, "%.9g", x);
    else
        put_exactly(b, x, 9);
}

/* Members of an object, each after ", ": the caller leaves out the first two bytes, or writes the
 * first member itself. */
static inline void put(Buf *b, const char *name, double value)
{
    buf_printf(b, ", \"%s\": ", name);
    json_put_number(b, value);
}

static inline void put_text(Buf *b, const char *name, const char *text, size_t n)
{
    buf_printf(b, ", \"%s\": ", name);
    json_put_string(b, text, n);
}

static inline void json_put_ints(Buf *b, const int *x, int n)
{
    buf_str(b, "[");
    for (int i = 0; i < n; i++)
        buf_printf(b, i ? ", %d" : "%d", x[i]);
    buf_str(b, "]");
}

static inline void json_put_vector(Buf *b, const double *x, int n)
{
    buf_str(b, "[");
    for (int i = 0; i < n; i++) {
        buf_str(b, i ? ", " : "");
        json_put_number(b, x[i]);
    }
    buf_str(b, "]");
}

static inline void put_vector(Buf *b, const char *name, const double *x, int n)
{
    buf_printf(b, ", \"%s\": ", name);
    json_put_vector(b, x, n);
}

static inline void put_matrix(Buf *b, const char *name, const double *x, int rows, int columns)
{
    buf_printf(b, ", \"%s\": [", name);
    for (int i = 0; i < rows; i++) {
        buf_str(b, i ? ", " : "");
        json_put_vector(b, x + i * columns, columns);
    }
    buf_str(b, "]");
}

#endif
