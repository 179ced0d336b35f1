/* nfc.h: categories of characters, and Unicode's normal form C.
 *
 *   is_letter, is_number, is_space   \p{L}, \p{N}, \s of a code point
 *   nfc                              text with its accents composed: e + U+0301 becomes U+00E9
 *
 * The algorithm is that of Unicode Standard Annex #15: decompose each character, sort each run of
 * marks by combining class, compose. Its time is linear in any text. */
#ifndef NFC_H
#define NFC_H

#include "../base/json.h"    /* defines: utf8_decode, utf8_encode, Buf */
#include "unicode.h" /* defines: UNICODE_LETTER, ... */

#define LENGTH(table) (sizeof(table) / sizeof *(table))

/* The last entry of `table` (n numbers, `width` to an entry, sorted by the first) that begins at or
 * below `code`, or NULL. */
static const uint32_t *table_find(const uint32_t *table, size_t n, size_t width, uint32_t code)
{
    size_t low = 0, high = n / width; /* the entry is in [low - 1, high) */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (table[middle * width] <= code)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? table + (low - 1) * width : NULL;
}

static inline bool in_ranges(const uint32_t *table, size_t n, uint32_t code)
{
    const uint32_t *range = table_find(table, n, 2, code);
    return range && code <= range[1];
}

static bool is_letter(uint32_t c) { return in_ranges(UNICODE_LETTER, LENGTH(UNICODE_LETTER), c); }

static bool is_number(uint32_t c) { return in_ranges(UNICODE_NUMBER, LENGTH(UNICODE_NUMBER), c); }

static bool is_space(uint32_t c) { return in_ranges(UNICODE_SPACE, LENGTH(UNICODE_SPACE), c); }

enum {
    HANGUL_L = 0x1100, HANGUL_V = 0x1161, HANGUL_T = 0x11A7, /* leading, vowel, trailing */
    HANGUL_LS = 19, HANGUL_VS = 21, HANGUL_TS = 28,
    HANGUL = 0xAC00, HANGULS = HANGUL_LS * HANGUL_VS * HANGUL_TS,
    NOT_UTF8 = 0x110000 /* + a byte that is not part of a character: it goes through unchanged */
};

/* Canonical combining class: 0 for a base character, else the position of a mark. */
static uint32_t combining_class(uint32_t code)
{
    const uint32_t *entry = table_find(UNICODE_CLASS, LENGTH(UNICODE_CLASS), 3, code);
    return entry && code <= entry[1] ? entry[2] : 0;
}

/* The full canonical decomposition of a character, at most 4 codes; returns how many. */
static int decompose(uint32_t code, uint32_t out[4])
{
    uint32_t s = code - HANGUL;
    if (s < HANGULS) {
        out[0] = HANGUL_L + s / (HANGUL_VS * HANGUL_TS);
        out[1] = HANGUL_V + s / HANGUL_TS % HANGUL_VS;
        out[2] = HANGUL_T + s % HANGUL_TS;
        return s % HANGUL_TS ? 3 : 2;
    }
    uint32_t marks[4]; /* the last first: only the first part of a step decomposes further */
    int n = 0, length = 0;
    for (;;) {
        const uint32_t *entry =
            table_find(UNICODE_DECOMPOSITION, LENGTH(UNICODE_DECOMPOSITION), 3, code);
        if (!entry || entry[0] != code)
            break;
        if (entry[2])
            marks[n++] = entry[2];
        code = entry[1];
    }
    out[length++] = code;
    while (n)
        out[length++] = marks[--n];
    return length;
}

/* The composition of a and b, or 0. UNICODE_COMPOSITION sorts the decompositions that compose again
 * by their parts (a, b). */
static uint32_t compose(uint32_t a, uint32_t b)
{
    uint32_t l = a - HANGUL_L, v = b - HANGUL_V, s = a - HANGUL, t = b - HANGUL_T;
    if (l < HANGUL_LS && v < HANGUL_VS)
        return HANGUL + (l * HANGUL_VS + v) * HANGUL_TS;
    if (s < HANGULS && s % HANGUL_TS == 0 && t > 0 && t < HANGUL_TS)
        return a + t;
    size_t low = 0, high = LENGTH(UNICODE_COMPOSITION);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *entry = UNICODE_DECOMPOSITION + 3 * UNICODE_COMPOSITION[middle];
        if (entry[1] == a && entry[2] == b)
            return entry[0];
        if (entry[1] < a || (entry[1] == a && entry[2] < b))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* A character of the decomposed text: its code, and above bit 24 its combining class. */
static uint32_t code_of(uint32_t c) { return c & 0xFFFFFF; }
static uint32_t class_of(uint32_t c) { return c >> 24; }

/* A stable sort of n marks by class: counting sort. */
static void order_marks(uint32_t *mark, size_t n, uint32_t *spare)
{
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[class_of(mark[i]) + 1]++;
    for (int k = 1; k < 257; k++)
        at[k] += at[k - 1];
    for (size_t i = 0; i < n; i++)
        spare[at[class_of(mark[i])]++] = mark[i];
    memcpy(mark, spare, n * sizeof *mark);
}

/* Sorts every run of marks (class above 0). */
static void canonical_order(uint32_t *c, size_t n, uint32_t *spare)
{
    for (size_t i = 0, end; i < n; i = end) {
        bool sorted = true;
        for (end = i + 1; end < n && class_of(c[i]) && class_of(c[end]); end++)
            sorted &= class_of(c[end - 1]) <= class_of(c[end]);
        if (!sorted)
            order_marks(c + i, end - i, spare);
    }
}

/* Composes in place; returns the new length. A character composes with the last one of class 0
 * before it (the starter), unless one between them has its class or a higher one, or class 0. */
static size_t canonical_compose(uint32_t *c, size_t n)
{
    size_t length = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        bool joins = starter != SIZE_MAX &&
                     (length == starter + 1 ||
                      (class_of(c[length - 1]) && class_of(c[length - 1]) < class_of(c[i])));
        uint32_t both = joins ? compose(code_of(c[starter]), code_of(c[i])) : 0;
        if (both) {
            c[starter] = both;
            continue;
        }
        if (!class_of(c[i]))
            starter = length;
        c[length++] = c[i];
    }
    return length;
}

/* False if the text cannot change: all code points are below U+0300, whose first byte is 0xCC. */
static inline bool nfc_needed(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xCC)
            return true;
    return false;
}

/* Appends the text in normal form C. */
static void nfc(const char *text, size_t n, Buf *out)
{
    uint32_t *c = xmalloc(4 * n * sizeof *c), *spare = c + 2 * n, code, part[4];
    size_t count = 0; /* at most two codes a byte: unicode.py makes sure */
    for (size_t i = 0; i < n;) {
        int length = utf8_decode(text + i, n - i, &code);
        if (length < 0)
            code = NOT_UTF8 + (unsigned char)text[i];
        int parts = decompose(code, part);
        for (int k = 0; k < parts; k++)
            c[count++] = part[k] | combining_class(part[k]) << 24;
        i += length < 0 ? 1 : (size_t)length;
    }
    canonical_order(c, count, spare);
    count = canonical_compose(c, count);
    for (size_t i = 0; i < count; i++)
        if (code_of(c[i]) >= NOT_UTF8)
            buf_add(out, (char[]){(char)(code_of(c[i]) - NOT_UTF8)}, 1);
        else
            utf8_encode(out, code_of(c[i]));
    free(c);
}

#endif
