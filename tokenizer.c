/* tokenizer.c: text to token ids and back, by the rules of a tokenizer.json.
 *
 *   tokenizer_load(path)             a tokenizer.json, or a directory that holds one
 *   tokenizer_encode, _prompt        text to ids; the same after the beginning-of-text token
 *   tokenizer_decode, Decoder        ids to text; token by token
 *   tokenizer_characters, _write     the vocabulary of the built-in tasks, here and as a file
 *
 * A language model sees numbers, not letters. Byte-level BPE (byte pair encoding: Sennrich et al.
 * 2016; on bytes: GPT-2, 2019) turns any text into few numbers and loses nothing. Its tokens are
 * byte strings: the 256 single bytes, and longer ones that were frequent in some training text.
 * To encode a text:
 *
 *   1. added tokens, such as <|im_end|>, are found in it; each is one id;
 *   2. what lies between them is normalised (NFC: an accented letter has one spelling)
 *   3. and cut into words, numbers, punctuation and white space: the pre-tokenizer;
 *   4. each of these pieces starts as single bytes. A ranked list of merges says which two
 *      neighbours become one token; the best rank goes first, until no merge applies.
 *
 * To decode, the bytes of the tokens are put one after the other.
 *
 * Supported is what Qwen 2 and 3, GPT-2 and SmolLM2 use, and the vocabulary of the built-in tasks:
 * one token a character, in the file's terms a WordLevel model behind a Split into characters.
 * Whatever else a file asks for is refused by name. The ids are those of the Hugging Face
 * tokenizers library 0.23, except that its NFC follows Unicode 9 and ours Unicode 16. */
#ifndef TOKENIZER_C
#define TOKENIZER_C

#include "lib/json.h" /* defines: Json, Buf, die */
#include "lib/map.h"  /* defines: Map, map_get, map_set */
#include "lib/nfc.h"  /* defines: nfc, is_letter, is_number, is_space */

/* ================================================================ what a tokenizer is */

/* A token: length bytes from `at` in Tokenizer.bytes; length 0 where no token has this id. */
typedef struct {
    size_t at;
    int length;
    bool special; /* left out of decoded text on request */
} Token;

/* A token that is found in the text itself, before the pre-tokenizer sees it. */
typedef struct {
    int id;
    bool lstrip, rstrip; /* takes the white space before it, after it */
} Added;

/* What the pre-tokenizer does, step by step, each step to the pieces of the one before. */
typedef enum {
    PREFIX_SPACE,    /* a space before the piece, unless it begins with one */
    SPLIT_GPT2, SPLIT_QWEN, SPLIT_CHARACTER, /* by a regular expression, see below */
    SPLIT_DIGIT,     /* each number character is a piece, each run of others too */
    SPLIT_DIGITS     /* each run of them is */
} Cut;

enum { MAX_STEPS = 8, MAX_ID = (1 << 22) - 1, MAX_TEXT = 1 << 28 };

typedef struct {
    int n_vocab; /* one more than the largest id */
    Token *token;
    size_t room;
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
        a->id = xrealloc(a->id, (size_t)(a->room = a->room * 2 + 64) * sizeof(int));
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

/* The id of the model's token with these bytes, or -1. Then *key is free for it in the map: where
 * two strings have one hash, the second takes the next key. */
static int vocab_find(const Tokenizer *t, const char *s, size_t n, uint64_t *key)
{
    *key = hash64(s, n) ^ n * 0x9E3779B97F4A7C15u;
    for (int id; (id = map_get(&t->vocab, *key)) >= 0; ++*key)
        if (token_is(t, id, s, n))
            return id;
    return -1;
}

/* ================================================================ bytes and characters */

/* JSON holds characters, a token bytes, and these need not be UTF-8. So the file writes each byte
 * as a character of its own: those that print in Latin-1 as themselves, the other 68, in order, as
 * U+0100 to U+0143. A space is U+0120. */

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

/* Replaces `out` by the bytes that the characters stand for; false if one of them is none. */
static bool bytes_of(const char *s, size_t n, Buf *out)
{
    uint32_t code;
    out->n = 0;
    for (size_t i = 0; i < n;) {
        int length = utf8_decode(s + i, n - i, &code), byte = byte_of(code);
        if (length < 0 || byte < 0)
            return false;
        buf_add(out, (char[]){(char)byte}, 1);
        i += (size_t)length;
    }
    return true;
}

/* ================================================================ the pre-tokenizer */

/* The regular expressions of GPT-2 and of Qwen, which follow here as functions; files name them by
 * their text. In both, alternatives are tried in order and the first that matches wins. */
#define REGEX_GPT2 /* within ByteLevel, use_regex */                                     \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define REGEX_QWEN                                                                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"                 \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define REGEX_CHARACTER "[\\s\\S]" /* any one character */

/* What these expressions tell apart, as sets. \s is SPACE | NEWLINE. */
enum { LETTER = 1, NUMBER = 2, SPACE = 4, NEWLINE = 8, OTHER = 16 };

/* The kind of the character at s, n > 0 bytes before the end, and its length. A byte that is not
 * UTF-8 is a character of its own, of kind OTHER. */
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

/* Where the run of characters of these kinds that begins at `i` ends. */
static size_t run_end(const char *s, size_t n, size_t i, int kinds)
{
    size_t length;
    while (i < n && kind_at(s + i, n - i, &length) & kinds)
        i += length;
    return i;
}

/* 's|'t|'re|'ve|'m|'ll|'d: the length of the match, or 0. Without case there are three letters s:
 * U+017F, the long s, is the third. */
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

/* White space at the start of s: \s*[\r\n]+ where newlines count (to the last newline of the run,
 * by backtracking), else \s+(?!\S)|\s+ (a run before a word leaves the word its last character). */
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

/* The same for REGEX_QWEN. */
static size_t qwen_piece(const char *s, size_t n)
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
        return first;
    size_t start = s[0] == ' ', end = run_end(s, n, start, OTHER);
    if (end > start)
        return run_end(s, n, end, NEWLINE);
    return space_piece(s, n, true);
}

/* The length of the first piece that a splitting step makes of n > 0 bytes. */
static size_t split_piece(Cut step, const char *s, size_t n)
{
    size_t length;
    int kind = kind_at(s, n, &length);
    switch (step) {
    case SPLIT_GPT2: return gpt2_piece(s, n);
    case SPLIT_QWEN: return qwen_piece(s, n);
    case SPLIT_DIGIT: return kind == NUMBER ? length : run_end(s, n, 0, ~NUMBER);
    case SPLIT_DIGITS: return run_end(s, n, 0, kind == NUMBER ? NUMBER : ~NUMBER);
    default: return length;
    }
}

/* ================================================================ merging */

/* One text on its way to ids. */
typedef struct {
    const Tokenizer *t;
    Ids *out;
    const char *missing; /* the first character that has no token (WordLevel), or NULL */
    struct Symbol {
        int id, before, after; /* id -1: merged into the one before it */
    } *symbol;                 /* the tokens of the piece: a list within an array */
    uint64_t *heap;            /* possible merges, rank << 32 | symbol: the smallest on top */
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

/* Merges neighbours, the smallest rank first and of equal ranks the leftmost. Each merge takes one
 * entry from the heap and adds at most two, so 2 n is room enough and the cost is n log n. */
static void merge_all(Encoder *e, int n)
{
    e->in_heap = 0;
    for (int i = 0; i + 1 < n; i++)
        offer_merge(e, i);
    while (e->in_heap) {
        uint64_t top = heap_pop(e);
        int i = (int)(uint32_t)top, rank = (int)(top >> 32);
        struct Symbol *s = &e->symbol[i];
        if (rank_at(e, i) != rank)
            continue; /* one of the two has been merged since */
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

/* BPE of one piece, n > 0 bytes. A byte without a token is left out, as in the library. */
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
        if (id >= 0) {
            e->symbol[count] = (struct Symbol){id, count - 1, count + 1};
            count++;
        }
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

/* Text without added tokens, from step `k` of the pre-tokenizer on. Depth: the number of steps. */
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

/* Tokens with "normalized": false are looked for in the text as it is, those with true after it has
 * been normalised. Each kind has a trie of its own: these are the roots. */
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

/* Text in which no token of this root is left. */
static void encode_rest(Encoder *e, int root, const char *s, size_t n)
{
    Buf normal = {0};
    if (root == NORMALIZED) {
        encode_steps(e, 0, s, n);
    } else if (e->t->normalize && nfc_needed(s, n)) {
        nfc(s, n, &normal);
        encode_between(e, NORMALIZED, normal.s, normal.n);
        buf_free(&normal);
    } else
        encode_between(e, NORMALIZED, s, n);
}

/* Where the white space before s + i begins, not before s + low. */
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

/* Takes the added tokens of this root out of the text, the leftmost first, the longest where
 * several begin at one place, and encodes what lies between them. */
static void encode_between(Encoder *e, int root, const char *s, size_t n)
{
    const Tokenizer *t = e->t;
    size_t done = 0, length = 0;
    for (size_t i = 0; i < n; i += length) {
        int k = added_at(t, root, s + i, n - i, &length);
        if (k < 0) {
            length = 1;
            continue;
        }
        size_t start = t->added[k].lstrip && i > done ? space_before(s, done, i) : i;
        if (start > done)
            encode_rest(e, root, s + done, start - done);
        ids_add(e->out, t->added[k].id);
        done = i + length;
        if (t->added[k].rstrip)
            done = run_end(s, n, done, SPACE | NEWLINE);
    }
    if (n > done)
        encode_rest(e, root, s + done, n - done);
}

/* Appends the ids of a text, which may hold any bytes. False where a character of a WordLevel
 * vocabulary has no token: then *bad is the offset of the first. */
static bool tokenizer_encode(const Tokenizer *t, const char *text, size_t n, Ids *out, size_t *bad)
{
    Encoder e = {.t = t, .out = out};
    if (n > MAX_TEXT)
        die("a text of %zu bytes; expected at most %d", n, MAX_TEXT);
    encode_between(&e, AS_IS, text, n);
    free(e.symbol);
    free(e.heap);
    if (e.missing)
        *bad = (size_t)(e.missing - text);
    return !e.missing;
}

/* The ids of a text that a model is to go on from: after the beginning-of-text token, if any. */
static bool tokenizer_prompt(const Tokenizer *t, const char *text, size_t n, Ids *out, size_t *bad)
{
    if (t->bos >= 0)
        ids_add(out, t->bos);
    return tokenizer_encode(t, text, n, out, bad);
}

/* ================================================================ decode */

/* Text that comes token by token. A character may be spread over several tokens: its first bytes
 * wait here until the rest is there. */
typedef struct {
    Buf waiting;
} Decoder;

/* Moves what is complete to `out`, or at the end everything. Bytes that are not UTF-8 become
 * U+FFFD, one for each longest beginning of a character (as in Rust's from_utf8_lossy). */
static void decoder_flush(Decoder *d, bool end, Buf *out)
{
    const char *s = d->waiting.s;
    size_t n = d->waiting.n, i = 0;
    uint32_t code;
    while (i < n) {
        int length = utf8_decode(s + i, n - i, &code);
        unsigned char first = (unsigned char)s[i];
        if (!end && length < 0 && (size_t)-length == n - i && first >= 0xC2 && first <= 0xF4)
            break; /* so far it is the beginning of a character */
        utf8_encode(out, code);
        i += (size_t)abs(length);
    }
    if (i < n)
        memmove(d->waiting.s, s + i, n - i);
    d->waiting.n = n - i;
    buf_add(out, "", 0);
}

/* Appends the text of an id; U+FFFD for an id without a token (an untrained row of the weights). */
static void decoder_add(Decoder *d, const Tokenizer *t, int id, bool skip_special, Buf *out)
{
    if (id < 0 || id >= t->n_vocab || !t->token[id].length)
        buf_str(&d->waiting, "\xEF\xBF\xBD");
    else if (!(skip_special && t->token[id].special))
        buf_add(&d->waiting, token_bytes(t, id), (size_t)t->token[id].length);
    decoder_flush(d, false, out);
}

/* The text has ended: what still waits will not become a character. */
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

/* ================================================================ building the tables */

/* Gives an id its bytes. */
static void set_token(Tokenizer *t, const char *path, const char *field, int64_t id, const char *s,
                      size_t n)
{
    if (id < 0 || id > MAX_ID)
        die("%s: %s: id %lld of '%.60s'; expected 0 to %d", path, field, (long long)id, s, MAX_ID);
    if (!n || n > MAX_TEXT)
        die("%s: %s: the token with id %lld has %zu bytes; expected 1 to %d", path, field,
            (long long)id, n, MAX_TEXT);
    if ((size_t)id >= t->room) {
        size_t room = (size_t)id * 2 + 64;
        t->token = xrealloc(t->token, room * sizeof *t->token);
        memset(t->token + t->room, 0, (room - t->room) * sizeof *t->token);
        t->room = room;
    }
    Token *token = &t->token[id];
    if (token->length && !token_is(t, (int)id, s, n))
        die("%s: %s: id %lld belongs to '%.*s' and to '%.60s'", path, field, (long long)id,
            imin(60, token->length), token_bytes(t, (int)id), s);
    *token = (Token){t->bytes.n, (int)n, token->special};
    buf_add(&t->bytes, s, n);
    t->n_vocab = imax(t->n_vocab, (int)id + 1);
}

/* A token of the model: its bytes are found by their hash. */
static void add_model_token(Tokenizer *t, const char *path, int64_t id, const char *s, size_t n)
{
    uint64_t key;
    int other = vocab_find(t, s, n, &key);
    if (other >= 0)
        die("%s: vocab: '%.60s' is there twice, with ids %d and %lld", path, s, other,
            (long long)id);
    if (id >= 0 && id < t->n_vocab && t->token[id].length)
        die("%s: vocab: id %lld belongs to '%.*s' and to '%.60s'", path, (long long)id,
            imin(60, t->token[id].length), token_bytes(t, (int)id), s);
    set_token(t, path, "vocab", id, s, n);
    map_set(&t->vocab, key, (int)id);
}

static int add_node(Tokenizer *t)
{
    if (!(t->n_nodes & (t->n_nodes - 1))) /* room for a power of two */
        t->leaf = xrealloc(t->leaf, (size_t)imax(1, 2 * t->n_nodes) * sizeof(int));
    t->leaf[t->n_nodes] = -1;
    return t->n_nodes++;
}

/* A token to be found in texts under this root. */
static void add_added_token(Tokenizer *t, const char *path, int root, Added added, const char *s,
                            size_t n)
{
    int node = root, next;
    while (t->n_nodes < N_ROOTS)
        add_node(t);
    for (size_t i = 0; i < n; i++, node = next) {
        uint64_t key = (uint64_t)node << 8 | (unsigned char)s[i];
        next = map_get(&t->trie, key);
        if (next < 0)
            map_set(&t->trie, key, next = add_node(t));
    }
    if (t->leaf[node] >= 0)
        die("%s: added_tokens: '%.60s' is there twice", path, s);
    t->leaf[node] = t->n_added;
    t->added = xrealloc(t->added, (size_t)(t->n_added + 1) * sizeof *t->added);
    t->added[t->n_added++] = added;
}

/* ================================================================ reading tokenizer.json */

/* The file is read to its end once, so that every later step stands on good JSON. Then each part is
 * looked up by name. A cursor is a small value: a copy of it marks a place in the text. */

/* The value of a name in the object at j; a cursor at nothing where there is none. */
static Json field(Json j, const char *name)
{
    Buf key = {0};
    Json found = {0};
    if (json_peek(&j) != '{')
        return found;
    for (json_object(&j); !found.start && json_key(&j, &key);)
        if (!strcmp(key.s, name))
            found = j;
        else
            json_skip(&j);
    buf_free(&key);
    return found;
}

static bool given(Json j) { return json_peek(&j) && json_peek(&j) != 'n'; }

static bool string_is(Json j, const char *text)
{
    Buf s = {0};
    bool same = json_peek(&j) == '"' && json_string(&j, &s) && !strcmp(s.s, text);
    buf_free(&s);
    return same;
}

static bool type_is(Json j, const char *type) { return string_is(field(j, "type"), type); }

/* Dies, showing the text at j in one line. */
static void refuse(const char *path, const char *name, Json j, const char *expected)
{
    Buf shown = {0};
    bool there = json_peek(&j);
    const char *p = j.p;
    json_skip(&j);
    for (; there && p < j.p && shown.n < 400; p++)
        if (!strchr(" \t\r\n", *p))
            buf_add(&shown, p, 1);
        else if (shown.s[shown.n - 1] != ' ')
            buf_add(&shown, " ", 1);
    die("%s: %s is %s%s; expected %s", path, name, there ? shown.s : "missing",
        there && p < j.p ? "..." : "", expected);
}

static bool flag(Json j, const char *path, const char *name, bool otherwise)
{
    Json value = field(j, name);
    bool x = otherwise;
    if (given(value) && !json_bool(&value, &x))
        refuse(path, name, field(j, name), "true or false");
    return x;
}

/* A whole file of JSON; the caller frees *text, which the cursor points into. */
static Json json_file(const char *path, char **text)
{
    size_t n;
    *text = read_file(path, &n);
    Json start = json_open(*text, n), j = start;
    json_skip(&j);
    if (!json_end(&j))
        die("%s: line %d: %s", path, json_line(&j), j.error);
    if (json_peek(&start) != '{')
        die("%s: expected an object: {...}", path);
    return start;
}

/* "vocab": {"a": 0, ...}. A name with characters that stand for no byte is a token that BPE cannot
 * reach; its id decodes to the name. */
static void read_vocab(Tokenizer *t, const char *path, Json j)
{
    Buf name = {0}, bytes = {0};
    int64_t id;
    for (json_object(&j); json_key(&j, &name) && json_int(&j, &id);)
        if (t->characters)
            add_model_token(t, path, id, name.s, name.n);
        else if (bytes_of(name.s, name.n, &bytes))
            add_model_token(t, path, id, bytes.s, bytes.n);
        else
            set_token(t, path, "vocab", id, name.s, name.n);
    if (j.error)
        die("%s: line %d: vocab: %s", path, json_line(&j), j.error);
    if (!t->n_vocab)
        die("%s: vocab is empty", path);
    buf_free(&name);
    buf_free(&bytes);
}

/* A merge, "a b" or ["a", "b"], into its two parts. */
static bool read_pair(Json *j, Buf part[2])
{
    int n = 0;
    if (json_peek(j) != '"') {
        for (json_array(j); json_item(j);)
            if (n == 2 || !json_string(j, &part[n++]))
                return json_fail(j, "expected two strings");
        return n == 2 ? !j->error : json_fail(j, "expected two strings");
    }
    json_string(j, &part[0]);
    char *space = strchr(part[0].s, ' ');
    if (!space || strchr(space + 1, ' '))
        return json_fail(j, "expected two tokens and a space between them");
    part[1].n = 0;
    buf_str(&part[1], space + 1);
    part[0].s[part[0].n = (size_t)(space - part[0].s)] = 0;
    return true;
}

/* "merges": [...], the best first. A pair that is there twice has the later rank. */
static void read_merges(Tokenizer *t, const char *path, Json j)
{
    Buf part[2] = {{0}}, bytes = {0}, both = {0};
    uint64_t key;
    int rank = 0, id[2];
    for (json_array(&j); json_item(&j) && read_pair(&j, part); rank++) {
        both.n = 0;
        for (int i = 0; i < 2; i++) {
            bool good = bytes_of(part[i].s, part[i].n, &bytes);
            id[i] = good && bytes.n ? vocab_find(t, bytes.s, bytes.n, &key) : -1;
            buf_add(&both, bytes.s, bytes.n);
        }
        int merged = vocab_find(t, both.s, both.n, &key);
        if (id[0] < 0 || id[1] < 0 || merged < 0)
            die("%s: merges: line %d: '%.60s' and '%.60s' or what they make is not in vocab", path,
                json_line(&j), part[0].s, part[1].s);
        if (!(rank & (rank - 1)))
            t->merged = xrealloc(t->merged, (size_t)imax(1, 2 * rank) * sizeof(int));
        t->merged[rank] = merged;
        map_set(&t->rank, pair_key(id[0], id[1]), rank);
    }
    if (j.error)
        die("%s: line %d: merges: %s", path, json_line(&j), j.error);
    buf_free(&part[0]);
    buf_free(&part[1]);
    buf_free(&bytes);
    buf_free(&both);
}

/* The tokens that are single bytes. SmolLM2 lacks some that text hardly ever holds. */
static void find_bytes(Tokenizer *t, const char *path, Json unknown)
{
    int missing = 0;
    uint64_t key;
    for (int b = 0; b < 256; b++) {
        t->byte_id[b] = vocab_find(t, (char[]){(char)b}, 1, &key);
        if (t->byte_id[b] < 0 && ((b >= ' ' && b <= '~') || b == '\n' || b == '\t'))
            die("%s: vocab has no token for the byte 0x%02X", path, (unsigned)b);
        missing += t->byte_id[b] < 0;
    }
    if (missing && given(unknown))
        refuse(path, "unk_token", unknown, "null, for vocab lacks some bytes");
    if (missing)
        warn("%s: vocab has no token for %d of the 256 bytes; they are left out of texts", path,
             missing);
}

static void read_model(Tokenizer *t, const char *path, Json model)
{
    static const char *const off[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix",
                                      "fuse_unk", "byte_fallback"};
    double number;
    bool truth;
    t->characters = type_is(model, "WordLevel");
    if (!t->characters && !type_is(model, "BPE"))
        refuse(path, "model.type", field(model, "type"), "BPE or WordLevel");
    for (size_t i = 0; i < LENGTH(off); i++) {
        Json j = field(model, off[i]), value = j;
        if (given(j) && !string_is(j, "") && !(json_number(&value, &number) && number == 0) &&
            !(value = j, json_bool(&value, &truth) && !truth))
            refuse(path, off[i], j, "null, false or nothing");
    }
    read_vocab(t, path, field(model, "vocab"));
    if (t->characters)
        return;
    t->whole_first = flag(model, path, "ignore_merges", false);
    find_bytes(t, path, field(model, "unk_token"));
    read_merges(t, path, field(model, "merges"));
}

/* "normalizer": null, NFC, or a Sequence of that. */
static void read_normalizer(Tokenizer *t, const char *path, Json j)
{
    Json list = field(j, "normalizers");
    if (!given(j))
        return;
    if (type_is(j, "Sequence") && json_peek(&list) == '[') {
        for (json_array(&list); json_item(&list); json_skip(&list))
            read_normalizer(t, path, list);
    } else if (!type_is(j, "NFC") || t->characters)
        refuse(path, "normalizer", j, t->characters ? "null" : "null or NFC");
    else
        t->normalize = true;
}

static void add_step(Tokenizer *t, const char *path, Cut step)
{
    if (t->n_steps == MAX_STEPS)
        die("%s: pre_tokenizer has more than %d steps", path, MAX_STEPS);
    t->step[t->n_steps++] = step;
}

/* "pre_tokenizer": ByteLevel, Split, Digits, or a Sequence of them that ends with ByteLevel; for
 * a WordLevel model a Split into characters. *ended: after ByteLevel pieces are bytes. */
static void read_pre_tokenizer(Tokenizer *t, const char *path, Json j, bool *ended)
{
    Json list = field(j, "pretokenizers"), regex = field(field(j, "pattern"), "Regex");
    if (type_is(j, "Sequence") && json_peek(&list) == '[') {
        for (json_array(&list); json_item(&list); json_skip(&list))
            read_pre_tokenizer(t, path, list, ended);
    } else if (*ended) {
        refuse(path, "pre_tokenizer", j, "nothing after the last step");
    } else if (type_is(j, "Split") && string_is(field(j, "behavior"), "Isolated") &&
               !flag(j, path, "invert", false) &&
               (t->characters ? string_is(regex, REGEX_CHARACTER)
                              : string_is(regex, REGEX_QWEN) || string_is(regex, REGEX_GPT2))) {
        add_step(t, path, t->characters ? SPLIT_CHARACTER
                          : string_is(regex, REGEX_QWEN) ? SPLIT_QWEN : SPLIT_GPT2);
        *ended = t->characters;
    } else if (type_is(j, "Digits") && !t->characters) {
        bool each = flag(j, path, "individual_digits", false);
        add_step(t, path, each ? SPLIT_DIGIT : SPLIT_DIGITS);
    } else if (type_is(j, "ByteLevel") && !t->characters) {
        if (flag(j, path, "add_prefix_space", true))
            add_step(t, path, PREFIX_SPACE);
        if (flag(j, path, "use_regex", true))
            add_step(t, path, SPLIT_GPT2);
        *ended = true;
    } else
        refuse(path, "pre_tokenizer", j, t->characters ? "a Split with Regex " REGEX_CHARACTER
               : "ByteLevel, Digits, or an isolating Split with the Regex of Qwen or GPT-2");
}

/* "added_tokens": [{"id": 0, "content": "...", "special": true, ...}, ...]. They may be in the
 * model's vocabulary too. */
static void read_added_tokens(Tokenizer *t, const char *path, Json j)
{
    Buf content = {0}, bytes = {0}, normal = {0};
    if (!given(j))
        return;
    for (json_array(&j); json_item(&j); json_skip(&j)) {
        Json text = field(j, "content"), number = field(j, "id");
        int64_t id;
        uint64_t key;
        if (!json_string(&text, &content) || !content.n || !json_int(&number, &id))
            refuse(path, "added_tokens: an entry", j, "id and content");
        if (flag(j, path, "single_word", false))
            refuse(path, "added_tokens: single_word of an entry", j, "false");
        bool as_bytes = !t->characters && bytes_of(content.s, content.n, &bytes);
        const Buf *name = as_bytes ? &bytes : &content;
        int other = vocab_find(t, name->s, name->n, &key);
        if (other >= 0 && other != id)
            die("%s: added_tokens: '%.60s' has id %lld, but %d in vocab", path, content.s,
                (long long)id, other);
        if (other >= 0)
            t->token[id].length = 0; /* its text is the content, whatever bytes that stood for */
        set_token(t, path, "added_tokens", id, content.s, content.n);
        t->token[id].special = flag(j, path, "special", false);
        Added added = {(int)id, flag(j, path, "lstrip", false), flag(j, path, "rstrip", false)};
        bool after = flag(j, path, "normalized", true);
        normal.n = 0;
        if (after && t->normalize)
            nfc(content.s, content.n, &normal);
        name = normal.n ? &normal : &content;
        add_added_token(t, path, after ? NORMALIZED : AS_IS, added, name->s, name->n);
    }
    if (j.error)
        die("%s: line %d: added_tokens: %s", path, json_line(&j), j.error);
    buf_free(&content);
    buf_free(&bytes);
    buf_free(&normal);
}

/* The id of the added token that the string at j names, or -1. */
static int added_id(const Tokenizer *t, Json j)
{
    Buf name = {0};
    int id = -1;
    size_t length = 0;
    json_string(&j, &name);
    for (int root = 0; root < N_ROOTS; root++) {
        int k = added_at(t, root, name.s, name.n, &length);
        id = k >= 0 && length == name.n ? t->added[k].id : id;
    }
    buf_free(&name);
    return id;
}

/* "post_processor": ByteLevel, which changes no ids; TemplateProcessing, of which a token before
 * the text is supported; or a Sequence of these. */
static void read_post_processor(Tokenizer *t, const char *path, Json j)
{
    Json list = field(j, "processors"), single = field(j, "single");
    bool text = false;
    if (type_is(j, "Sequence") && json_peek(&list) == '[') {
        for (json_array(&list); json_item(&list); json_skip(&list))
            read_post_processor(t, path, list);
        return;
    }
    if (type_is(j, "ByteLevel"))
        return;
    if (!type_is(j, "TemplateProcessing") || json_peek(&single) != '[')
        refuse(path, "post_processor", j, "null, ByteLevel or TemplateProcessing");
    for (json_array(&single); json_item(&single); json_skip(&single)) {
        Json special = field(single, "SpecialToken");
        if (given(special) && !text && t->bos < 0)
            t->bos = added_id(t, field(special, "id"));
        if (text || (given(special) && t->bos < 0))
            refuse(path, "post_processor.single", field(j, "single"),
                   "at most one token, of added_tokens, and then the text");
        text = given(field(single, "Sequence"));
    }
}

/* Where tokenizer.json has no post_processor, the tokenizer_config.json beside it may say which
 * token begins a text: "add_bos_token": true, "bos_token": "<s>" or {"content": "<s>"}. */
static void read_bos(Tokenizer *t, const char *path)
{
    const char *slash = strrchr(path, '/');
    Path dir, config;
    char *text;
    snprintf(dir.s, sizeof dir.s, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    config = path_join(dir.s, "tokenizer_config.json");
    if (!is_file(config.s))
        return;
    Json j = json_file(config.s, &text), bos = field(j, "bos_token");
    if (flag(j, config.s, "add_bos_token", false)) {
        t->bos = added_id(t, json_peek(&bos) == '{' ? field(bos, "content") : bos);
        if (t->bos < 0)
            refuse(config.s, "bos_token", bos, "one of the added_tokens of tokenizer.json");
    }
    free(text);
}

static Tokenizer tokenizer_load(const char *where)
{
    Tokenizer t = {.bos = -1};
    Path file = is_dir(where) ? path_join(where, "tokenizer.json") : (Path){{0}};
    const char *path = file.s[0] ? file.s : where;
    bool ended = false;
    char *text;
    Json j = json_file(path, &text), post = field(j, "post_processor"), set;
    read_model(&t, path, field(j, "model"));
    read_normalizer(&t, path, field(j, "normalizer"));
    read_pre_tokenizer(&t, path, field(j, "pre_tokenizer"), &ended);
    if (!ended)
        refuse(path, "pre_tokenizer", field(j, "pre_tokenizer"), "ByteLevel as its last step");
    read_added_tokens(&t, path, field(j, "added_tokens"));
    if (!type_is(field(j, "decoder"), t.characters ? "Fuse" : "ByteLevel"))
        refuse(path, "decoder", field(j, "decoder"), t.characters ? "Fuse" : "ByteLevel");
    if (given(post))
        read_post_processor(&t, path, post);
    else
        read_bos(&t, path);
    for (int i = 0; i < 2; i++)
        if (given(set = field(j, i ? "padding" : "truncation")))
            warn("%s: %s is set; it is left out of account", path, i ? "padding" : "truncation");
    free(text);
    return t;
}

/* ================================================================ the built-in vocabulary */

#define END_TOKEN "<|endoftext|>" /* id 0 */

/* The end token and one token for each character of the alphabet. */
static Tokenizer tokenizer_characters(const char *alphabet)
{
    Tokenizer t = {.bos = -1, .characters = true};
    add_step(&t, "built-in", SPLIT_CHARACTER);
    set_token(&t, "built-in", "vocab", 0, END_TOKEN, strlen(END_TOKEN));
    t.token[0].special = true;
    add_added_token(&t, "built-in", AS_IS, (Added){0}, END_TOKEN, strlen(END_TOKEN));
    for (int i = 0; alphabet[i]; i++)
        add_model_token(&t, "built-in", i + 1, alphabet + i, 1);
    return t;
}

/* The same as a tokenizer.json. */
static void tokenizer_write(const char *path, const char *alphabet)
{
    Buf b = {0};
    buf_str(&b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                "  \"added_tokens\": [\n    {\"id\": 0, \"content\": \"" END_TOKEN "\", "
                "\"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                "\"normalized\": false, \"special\": true}\n  ],\n"
                "  \"normalizer\": null,\n"
                "  \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    json_put_string(&b, REGEX_CHARACTER, strlen(REGEX_CHARACTER));
    buf_str(&b, "}, \"behavior\": \"Isolated\", \"invert\": false},\n"
                "  \"post_processor\": null,\n  \"decoder\": {\"type\": \"Fuse\"},\n"
                "  \"model\": {\"type\": \"WordLevel\", \"unk_token\": \"<unk>\", \"vocab\": {"
                "\"" END_TOKEN "\": 0");
    for (int i = 0; alphabet[i]; i++) {
        buf_str(&b, ", ");
        json_put_string(&b, alphabet + i, 1);
        buf_printf(&b, ": %d", i + 1);
    }
    buf_str(&b, "}}\n}\n");
    write_file(path, b.s, b.n);
    buf_free(&b);
}

#endif
