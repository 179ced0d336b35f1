/* tokenizer.c: text to token ids and back, by the rules of a tokenizer.json.
 *
 *   tokenizer_encode, _prompt    text to ids; the same after the beginning-of-text token
 *   tokenizer_decode, Decoder    ids to text; token by token
 *
 * lib/model/tokenizer_json.h fills the tables from the file: tokenizer_load.
 *
 * A language model works on numbers. Byte-level BPE (byte pair encoding: Sennrich et al. 2016; on
 * bytes: GPT-2, 2019) turns any text into few of them, without loss. Its tokens are byte strings:
 * the 256 single bytes, and longer ones that were frequent in a training text. To encode a text:
 *
 *   1. find added tokens, such as <|im_end|>; each is one id;
 *   2. normalise the text between them (NFC: one spelling for an accented letter);
 *   3. pre-tokenize: split it into words, numbers, punctuation and white space;
 *   4. split each piece into bytes, then merge: a ranked list says which two neighbours become one
 *      token; the best rank goes first, until no merge applies.
 *
 * To decode, concatenate the bytes of the tokens.
 *
 * Supported is what Qwen 2 and 3, Llama 3, GPT-2 and SmolLM2 use, and the vocabulary of the
 * built-in tasks: one token a character, as a WordLevel model after a Split into characters. The
 * ids are those of the Hugging Face tokenizers library 0.23, but for NFC: its Unicode is 9, ours
 * 16. */
#ifndef TOKENIZER_C
#define TOKENIZER_C

#include "lib/base/json.h" /* defines: Json, Buf, die */
#include "lib/base/map.h"  /* defines: Map, map_get, map_set */
#include "lib/text/nfc.h"  /* defines: nfc, is_letter, is_number, is_space */


/* A token: length bytes from `at` in Tokenizer.bytes; length 0 where no token has this id. */
typedef struct {
    size_t at;
    int length;
    bool special; /* left out of decoded text on request */
} Token;

/* A token that is matched in the text, before the pre-tokenizer. */
typedef struct {
    int id;
    bool lstrip, rstrip; /* takes the white space before it, after it */
} Added;

/* Steps of the pre-tokenizer, each applied to the pieces of the one before. */
typedef enum {
    PREFIX_SPACE,    /* a space before the piece, unless it begins with one */
    SPLIT_GPT2, SPLIT_QWEN, SPLIT_LLAMA3, SPLIT_CHARACTER, /* by a regular expression, see below */
    SPLIT_DIGIT,     /* into single number characters and runs of others */
    SPLIT_DIGITS     /* into runs of number characters and runs of others */
} Cut;

/* Limits: steps of the pre-tokenizer, ids, bytes of a text, nodes of the trie. */
enum { MAX_STEPS = 8, MAX_ID = (1 << 22) - 1, MAX_TEXT = 1 << 28, MAX_NODES = 1 << 20 };

typedef struct {
    int n_vocab; /* one more than the largest id */
    Token *token;       /* [n_vocab] by id */
    size_t room;        /* for so many of them */
    Buf bytes;          /* of all tokens */
    Map vocab;          /* hash of the bytes -> id, of the model's own tokens */
    Map rank;           /* (left id, right id) -> rank of their merge, the smallest first */
    int *merged;        /* [rank] the id of the merged token */
    bool characters;    /* WordLevel: a piece is a token; not BPE */
    bool whole_first;   /* ignore_merges: a piece that is a token is not merged from its bytes */
    bool normalize;     /* to NFC */
    int byte_id[256];   /* -1: the byte has no token and is left out of texts */
    Cut step[MAX_STEPS];
    int n_steps;
    Map trie;           /* of added tokens: (node, byte) -> node */
    int *leaf, n_nodes; /* [node] the added token that ends there, or -1 */
    Added *added;
    int n_added;
    int bos; /* the token that begins every prompt, or -1 */
} Tokenizer;

/* Ids of a text. */
typedef struct {
    int *id, n, room;
} Ids;

static void ids_add(Ids *a, int id)
{
    if (a->n == a->room)
        a->id = xrealloc(a->id, (a->room = a->room * 2 + 64) * sizeof(int));
    a->id[a->n++] = id;
}

static void ids_free(Ids *a)
{
    free(a->id);
    *a = (Ids){0};
}

static void tokenizer_free(Tokenizer *t)
{
    free(t->token);
    buf_free(&t->bytes);
    map_free(&t->vocab);
    map_free(&t->rank);
    free(t->merged);
    map_free(&t->trie);
    free(t->leaf);
    free(t->added);
    *t = (Tokenizer){0};
}

static uint64_t pair_key(int left, int right) { return (uint64_t)left << 32 | (uint32_t)right; }

static const char *token_bytes(const Tokenizer *t, int id) { return t->bytes.s + t->token[id].at; }

static bool token_is(const Tokenizer *t, int id, const char *s, size_t n)
{
    return (size_t)t->token[id].length == n && !memcmp(token_bytes(t, id), s, n);
}

/* The id of the model's token with these bytes, or -1 with its free key: of two strings with one
 * hash, the second has the next key. */
static int vocab_find(const Tokenizer *t, const char *s, size_t n, uint64_t *key)
{
    *key = hash64(s, n) ^ n * 0x9E3779B97F4A7C15u;
    for (int id; (id = map_get(&t->vocab, *key)) >= 0; ++*key)
        if (token_is(t, id, s, n))
            return id;
    return -1;
}

/* The id of the added token with these bytes, or -1. */
static int added_named(const Tokenizer *t, const char *s, size_t n)
{
    int id = -1;
    for (int i = 0; i < t->n_added; i++)
        id = token_is(t, t->added[i].id, s, n) ? t->added[i].id : id;
    return id;
}

/* ================================================================ bytes and characters */

/* A token need not be UTF-8, as JSON is. So the file has a character for each byte: those that
 * print in Latin-1 are themselves, the other 68, in order, U+0100 to U+0143. A space is U+0120. */

static bool byte_prints(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

/* The byte that a character stands for, or -1. */
static int byte_of(uint32_t code)
{
    uint32_t k = code - 0x100;
    if (code < 0x100)
        return byte_prints(code) ? (int)code : -1;
    return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7F) : k == 0x43 ? 0xAD : -1;
}

/* Replaces `out` by the bytes that the characters encode; false if one of them encodes none. */
static bool bytes_of(const char *s, size_t n, Buf *out)
{
    uint32_t code;
    out->n = 0;
    for (size_t i = 0; i < n;) {
        int length = utf8_decode(s + i, n - i, &code), byte = byte_of(code);
        if (length < 0 || byte < 0)
            return false;
        buf_add(out, (char[]){(char)byte}, 1);
        i += length;
    }
    return true;
}

/* ================================================================ the pre-tokenizer */

/* The regular expressions of GPT-2, Qwen and Llama 3, implemented below; files have them as text.
 * The first alternative that matches wins. Qwen's and Llama's differ in the digits of a piece. */
#define REGEX_GPT2 /* within ByteLevel, use_regex */                                     \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define REGEX_DIGITS(numbers)                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "|"              \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define REGEX_QWEN REGEX_DIGITS("\\p{N}")
#define REGEX_LLAMA3 REGEX_DIGITS("\\p{N}{1,3}")
#define REGEX_CHARACTER "[\\s\\S]" /* any one character */

/* Kinds of characters, as sets. \s is SPACE | NEWLINE. */
enum { LETTER = 1, NUMBER = 2, SPACE = 4, NEWLINE = 8, OTHER = 16 };

/* The kind of the first character of n > 0 bytes, and its length. A byte that is not UTF-8 is a
 * character of kind OTHER. */
static int kind_at(const char *s, size_t n, size_t *length)
{
    uint32_t c;
    int bytes = utf8_decode(s, n, &c);
    *length = bytes < 0 ? 1 : (size_t)bytes;
    if (bytes == 1) {
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
            return LETTER;
        if (c == '\r' || c == '\n')
            return NEWLINE;
        return c >= '0' && c <= '9' ? NUMBER : c == ' ' || (c >= 9 && c <= 13) ? SPACE : OTHER;
    }
    if (bytes < 0)
        return OTHER;
    return is_letter(c) ? LETTER : is_number(c) ? NUMBER : is_space(c) ? SPACE : OTHER;
}

/* The end of the run of characters of these kinds from `i` on. */
static size_t run_end(const char *s, size_t n, size_t i, int kinds)
{
    size_t length;
    while (i < n && kind_at(s + i, n - i, &length) & kinds)
        i += length;
    return i;
}

/* 's|'t|'re|'ve|'m|'ll|'d: the length of the match, or 0. With any_case, s matches U+017F, too. */
static size_t contraction(const char *s, size_t n, bool any_case)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (n < 2 || s[0] != '\'')
        return 0;
    for (size_t k = 0; k < LENGTH(endings); k++) {
        size_t length = strlen(endings[k]), i = 0;
        while (i < length && i + 1 < n &&
               (s[1 + i] == endings[k][i] || (any_case && (s[1 + i] ^ 0x20) == endings[k][i])))
            i++;
        if (i == length)
            return 1 + length;
    }
    return any_case && n >= 3 && !memcmp(s + 1, "\xC5\xBF", 2) ? 3 : 0;
}

/* White space at the start of s: with `newlines` \s*[\r\n]+ (to the last newline of the run), else
 * \s+(?!\S)|\s+ (a run before a word leaves the word its last character). */
static size_t space_piece(const char *s, size_t n, bool newlines)
{
    size_t end = 0, last = 0, line = 0, length;
    for (; end < n; end += length) {
        int kind = kind_at(s + end, n - end, &length);
        if (!(kind & (SPACE | NEWLINE)))
            break;
        last = end;
        line = kind == NEWLINE ? end + length : line;
    }
    if (newlines && line)
        return line;
    return end < n && last > 0 ? last : end;
}

/* The length of the first match of REGEX_GPT2 in n > 0 bytes; there is always one at 0. */
static size_t gpt2_piece(const char *s, size_t n)
{
    size_t start = s[0] == ' ', length, found = contraction(s, n, false);
    int kind = start < n ? kind_at(s + start, n - start, &length) : SPACE;
    if (found)
        return found;
    if (kind & (LETTER | NUMBER | OTHER))
        return run_end(s, n, start, kind);
    return space_piece(s, n, false);
}

/* The end of a run of at most `most` number characters. */
static size_t number_end(const char *s, size_t n, int most)
{
    size_t end = 0, length;
    for (int i = 0; i < most && end < n && kind_at(s + end, n - end, &length) == NUMBER; i++)
        end += length;
    return end;
}

/* The length of the first match of REGEX_QWEN, digits 1, and REGEX_LLAMA3, digits 3. */
static size_t qwen_piece(const char *s, size_t n, int digits)
{
    size_t first, found = contraction(s, n, true);
    int kind = kind_at(s, n, &first);
    if (found)
        return found;
    if (kind & (LETTER | OTHER | SPACE)) { /* [^\r\n\p{L}\p{N}]?\p{L}+ */
        size_t start = kind == LETTER ? 0 : first, end = run_end(s, n, start, LETTER);
        if (end > start)
            return end;
    }
    if (kind == NUMBER)
        return number_end(s, n, digits);
    size_t start = s[0] == ' ', end = run_end(s, n, start, OTHER);
    if (end > start)
        return run_end(s, n, end, NEWLINE);
    return space_piece(s, n, true);
}

/* The length of the first piece of n > 0 bytes. */
static size_t split_piece(Cut step, const char *s, size_t n)
{
    size_t length;
    int kind = kind_at(s, n, &length);
    switch (step) {
    case SPLIT_GPT2: return gpt2_piece(s, n);
    case SPLIT_QWEN: return qwen_piece(s, n, 1);
    case SPLIT_LLAMA3: return qwen_piece(s, n, 3);
    case SPLIT_DIGIT: return kind == NUMBER ? length : run_end(s, n, 0, ~NUMBER);
    case SPLIT_DIGITS: return run_end(s, n, 0, kind == NUMBER ? NUMBER : ~NUMBER);
    default: return length;
    }
}

/* ================================================================ merging */

/* The encoding of one text. */
typedef struct {
    const Tokenizer *t;
    Ids *out;
    const char *missing; /* the first character without a token, or NULL (WordLevel) */
    struct Symbol {
        int id, before, after; /* id -1: merged into the one before it */
    } *symbol;                 /* the tokens of the piece: a linked list */
    uint64_t *heap;            /* possible merges, rank << 32 | symbol: a min-heap */
    size_t room, in_heap;
} Encoder;

static void heap_push(Encoder *e, uint64_t x)
{
    size_t i = e->in_heap++;
    for (; i && e->heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = x;
}

static uint64_t heap_pop(Encoder *e)
{
    uint64_t top = e->heap[0], x = e->heap[--e->in_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->in_heap; i = child) {
        child += child + 1 < e->in_heap && e->heap[child + 1] < e->heap[child];
        if (e->heap[child] >= x)
            break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = x;
    return top;
}

/* The rank of the merge of a symbol with the one after it, or -1. */
static int rank_at(const Encoder *e, int i)
{
    const struct Symbol *s = &e->symbol[i];
    return s->id < 0 || s->after < 0
               ? -1 : map_get(&e->t->rank, pair_key(s->id, e->symbol[s->after].id));
}

static void offer_merge(Encoder *e, int i)
{
    int rank = i < 0 ? -1 : rank_at(e, i);
    if (rank >= 0)
        heap_push(e, (uint64_t)rank << 32 | (uint32_t)i);
}

/* Merges neighbours, the smallest rank first, of equal ranks the leftmost. Each merge pops an entry
 * of the heap and pushes at most two, so that 2 n entries suffice, in n log n time. */
static void merge_all(Encoder *e, int n)
{
    e->in_heap = 0;
    for (int i = 0; i + 1 < n; i++)
        offer_merge(e, i);
    while (e->in_heap) {
        uint64_t top = heap_pop(e);
        int i = (int)(uint32_t)top, rank = top >> 32;
        struct Symbol *s = &e->symbol[i];
        if (rank_at(e, i) != rank)
            continue; /* outdated: one of the two has been merged */
        struct Symbol *right = &e->symbol[s->after];
        s->id = e->t->merged[rank];
        s->after = right->after;
        right->id = -1;
        if (s->after >= 0)
            e->symbol[s->after].before = i;
        offer_merge(e, s->before);
        offer_merge(e, i);
    }
}

/* BPE of one piece of n > 0 bytes. A byte without a token is dropped, as in the library. */
static void encode_piece(Encoder *e, const char *s, size_t n)
{
    const Tokenizer *t = e->t;
    uint64_t key;
    int count = 0, whole = t->whole_first ? vocab_find(t, s, n, &key) : -1;
    if (whole >= 0) {
        ids_add(e->out, whole);
        return;
    }
    if (n > e->room) {
        e->room = 2 * n;
        e->symbol = xrealloc(e->symbol, e->room * sizeof *e->symbol);
        e->heap = xrealloc(e->heap, 2 * e->room * sizeof *e->heap);
    }
    for (size_t i = 0; i < n; i++) {
        int id = t->byte_id[(unsigned char)s[i]];
        e->symbol[count] = (struct Symbol){id, count - 1, count + 1};
        count += id >= 0;
    }
    if (!count)
        return;
    e->symbol[count - 1].after = -1;
    merge_all(e, count);
    for (int i = 0; i >= 0; i = e->symbol[i].after)
        ids_add(e->out, e->symbol[i].id);
}

/* WordLevel: the piece is a token. */
static void encode_character(Encoder *e, const char *s, size_t n)
{
    uint64_t key;
    int id = vocab_find(e->t, s, n, &key);
    if (id >= 0)
        ids_add(e->out, id);
    else if (!e->missing)
        e->missing = s;
}

/* ================================================================ encode */

/* Text without added tokens, from step `k` of the pre-tokenizer on. */
static void encode_steps(Encoder *e, int k, const char *s, size_t n)
{
    const Tokenizer *t = e->t;
    if (k == t->n_steps) {
        (t->characters ? encode_character : encode_piece)(e, s, n);
    } else if (t->step[k] == PREFIX_SPACE) {
        Buf spaced = {0};
        if (s[0] != ' ')
            buf_str(&spaced, " ");
        buf_add(&spaced, s, n);
        encode_steps(e, k + 1, spaced.s, spaced.n);
        buf_free(&spaced);
    } else {
        for (size_t i = 0, length; i < n; i += length) {
            length = split_piece(t->step[k], s + i, n - i);
            encode_steps(e, k + 1, s + i, length);
        }
    }
}

/* The roots of two tries: added tokens with "normalized": false are matched in the text as it is,
 * those with true in the normalised text. */
enum { AS_IS, NORMALIZED, N_ROOTS };

/* The longest added token at the start of s: its index and length; -1 if there is none. */
static int added_at(const Tokenizer *t, int root, const char *s, size_t n, size_t *length)
{
    int found = -1, node = root;
    for (size_t i = 0; i < n; i++) {
        node = map_get(&t->trie, (uint64_t)node << 8 | (unsigned char)s[i]);
        if (node < 0)
            break;
        if (t->leaf[node] >= 0) {
            found = t->leaf[node];
            *length = i + 1;
        }
    }
    return found;
}

static void encode_between(Encoder *e, int root, const char *s, size_t n);

/* Text without tokens of this root. */
static void encode_rest(Encoder *e, int root, const char *s, size_t n)
{
    if (root == NORMALIZED) {
        encode_steps(e, 0, s, n);
    } else if (e->t->normalize && nfc_needed(s, n)) {
        Buf normal = {0};
        nfc(s, n, &normal);
        encode_between(e, NORMALIZED, normal.s, normal.n);
        buf_free(&normal);
    } else
        encode_between(e, NORMALIZED, s, n);
}

/* The start of the white space before s + i, at least s + low. */
static size_t space_before(const char *s, size_t low, size_t i)
{
    size_t length, start = i;
    while (start > low) {
        size_t back = start - 1;
        while (back > low && ((unsigned char)s[back] & 0xC0) == 0x80)
            back--;
        if (!(kind_at(s + back, start - back, &length) & (SPACE | NEWLINE)) ||
            length != start - back)
            break;
        start = back;
    }
    return start;
}

/* Matches the added tokens of this root, leftmost and longest first, and encodes the text between
 * them. */
static void encode_between(Encoder *e, int root, const char *s, size_t n)
{
    const Tokenizer *t = e->t;
    size_t done = 0, length;
    for (size_t i = 0; i < n;) {
        int k = added_at(t, root, s + i, n - i, &length);
        if (k < 0) {
            i++;
            continue;
        }
        bool before = t->added[k].lstrip, after = t->added[k].rstrip;
        size_t start = !before ? i : i > done ? space_before(s, done, i) : done;
        i += length;
        size_t end = after ? run_end(s, n, i, SPACE | NEWLINE) : i;
        if (start > done)
            encode_rest(e, root, s + done, start - done);
        if (end > start) /* or white space that the token before has taken */
            ids_add(e->out, t->added[k].id);
        done = end;
    }
    if (n > done)
        encode_rest(e, root, s + done, n - done);
}

/* Appends the ids of any bytes. False where a character has no token in a WordLevel vocabulary:
 * *bad is the offset of the first. */
static bool tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Ids *out, size_t *bad)
{
    Encoder e = {.t = t, .out = out};
    if (n > MAX_TEXT)
        die("a text of %zu bytes; expected at most %d", n, MAX_TEXT);
    encode_between(&e, AS_IS, text, n);
    free(e.symbol);
    free(e.heap);
    if (e.missing)
        *bad = e.missing - text;
    return !e.missing;
}

/* The ids of a prompt: after the beginning-of-text token, if any, which a text may bring itself. */
static bool tokenizer_prompt(const Tokenizer *t, const char *text, size_t n, Ids *out, size_t *bad)
{
    int first = out->n;
    if (t->bos >= 0)
        ids_add(out, t->bos);
    bool good = tokenizer_encode(t, text, n, out, bad);
    if (t->bos >= 0 && out->n > first + 1 && out->id[first + 1] == t->bos)
        memmove(out->id + first, out->id + first + 1, (--out->n - first) * sizeof(int));
    return good;
}

/* ================================================================ decode */

/* Decodes token by token. The first bytes of an incomplete character wait for the next token. */
typedef struct {
    Buf waiting;
} Decoder;

/* Moves complete characters to `out`, at the end everything. Bytes that are not UTF-8 become
 * U+FFFD, one for each longest prefix of a character (as in Rust's from_utf8_lossy). */
static void decoder_flush(Decoder *d, bool end, Buf *out)
{
    const char *s = d->waiting.s;
    size_t n = d->waiting.n, i = 0;
    uint32_t code;
    while (i < n) {
        int length = utf8_decode(s + i, n - i, &code);
        unsigned char first = (unsigned char)s[i];
        if (!end && length < 0 && (size_t)-length == n - i && first >= 0xC2 && first <= 0xF4)
            break; /* incomplete */
        utf8_encode(out, code);
        i += (size_t)abs(length);
    }
    if (i < n)
        memmove(d->waiting.s, s + i, n - i);
    d->waiting.n = n - i;
    buf_add(out, "", 0);
}

/* Appends the text of an id; U+FFFD for an id without a token. */
static void decoder_add(Decoder *d, const Tokenizer *t, int id, bool skip_special, Buf *out)
{
    if (id < 0 || id >= t->n_vocab || !t->token[id].length)
        buf_str(&d->waiting, "\xEF\xBF\xBD");
    else if (!(skip_special && t->token[id].special))
        buf_add(&d->waiting, token_bytes(t, id), t->token[id].length);
    decoder_flush(d, false, out);
}

/* Flushes the incomplete character. */
static void decoder_end(Decoder *d, Buf *out)
{
    decoder_flush(d, true, out);
    buf_free(&d->waiting);
}

/* Appends the text of ids. */
static void tokenizer_decode(const Tokenizer *t, const int *ids, int n, bool skip_special, Buf *out)
{
    Decoder d = {0};
    for (int i = 0; i < n; i++)
        decoder_add(&d, t, ids[i], skip_special, out);
    decoder_end(&d, out);
}

#endif
