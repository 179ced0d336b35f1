/* tokenizer.c: text to token ids and back, from a tokenizer.json.
 *
 *   tokenizer_load(path)            reads the file; dies with one line that names what is wrong
 *   tokenizer_encode, _decode       text <-> ids
 *   tokenizer_characters, _write    the vocabulary of the built-in tasks, here and as such a file
 *
 * What is supported is the vocabulary of the built-in tasks: one token a character. In the format
 * of the Hugging Face tokenizers library that is a WordLevel model behind a Split into single
 * characters, so other programs read the same file. A character that is not in the vocabulary is
 * an error, never a silent "unknown". */
#ifndef TOKENIZER_C
#define TOKENIZER_C

#include "lib/json.h" /* defines: Json, Buf, die */

#define SPLIT_CHARACTERS "[\\s\\S]" /* the Split pattern, as a regex: any one character */

typedef struct {
    int n_vocab;    /* one more than the largest id */
    char **piece;   /* [n_vocab] the token's text; NULL where no token has this id */
    bool *special;  /* [n_vocab] left out of decoded text on request */
    bool *added;    /* [n_vocab] recognised as a whole inside text */
    int longest;    /* bytes of the longest piece */
} Tokenizer;

static void tokenizer_free(Tokenizer *t)
{
    for (int i = 0; i < t->n_vocab; i++)
        free(t->piece[i]);
    free(t->piece);
    free(t->special);
    free(t->added);
    *t = (Tokenizer){0};
}

/* Gives an id its text. Ids are small, each used once. */
static void add_piece(Tokenizer *t, const char *path, const char *field, int64_t id,
                      const char *text)
{
    if (id < 0 || id >= 1 << 24)
        die("%s: %s: id %lld of '%.60s'; expected 0 to %d", path, field, (long long)id, text,
            (1 << 24) - 1);
    if (!*text)
        die("%s: %s: the token with id %lld is empty", path, field, (long long)id);
    if (id >= t->n_vocab) {
        size_t n = (size_t)id + 1, old = (size_t)t->n_vocab;
        t->piece = xrealloc(t->piece, n * sizeof *t->piece);
        t->special = xrealloc(t->special, n * sizeof *t->special);
        t->added = xrealloc(t->added, n * sizeof *t->added);
        memset(t->piece + old, 0, (n - old) * sizeof *t->piece);
        memset(t->special + old, 0, (n - old) * sizeof *t->special);
        memset(t->added + old, 0, (n - old) * sizeof *t->added);
        t->n_vocab = (int)n;
    }
    if (t->piece[id] && strcmp(t->piece[id], text))
        die("%s: %s: id %lld belongs to '%.60s' and to '%.60s'", path, field, (long long)id,
            t->piece[id], text);
    if (!t->piece[id])
        t->piece[id] = xstrdup(text);
    t->longest = imax(t->longest, (int)strlen(text));
}

/* "added_tokens": [{"id": 0, "content": "...", "special": true, ...}, ...] */
static void read_added_tokens(Json *j, Tokenizer *t, const char *path)
{
    Buf key = {0}, text = {0};
    for (json_array(j); json_item(j);) {
        int64_t id = -1;
        bool special = false;
        text.n = 0;
        for (json_object(j); json_key(j, &key);)
            if (!strcmp(key.s, "id"))
                json_int(j, &id);
            else if (!strcmp(key.s, "content"))
                json_string(j, &text);
            else if (!strcmp(key.s, "special"))
                json_bool(j, &special);
            else
                json_skip(j);
        if (j->error)
            break;
        if (id < 0 || !text.n)
            die("%s: added_tokens: an entry without id or content", path);
        add_piece(t, path, "added_tokens", id, text.s);
        t->added[id] = true;
        t->special[id] = special;
    }
    buf_free(&key);
    buf_free(&text);
}

/* "model": {"type": "WordLevel", "vocab": {"0": 1, ...}, ...} */
static void read_model(Json *j, Tokenizer *t, const char *path, bool *seen)
{
    Buf key = {0}, text = {0};
    int64_t id;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "type")) {
            if (json_string(j, &text) && strcmp(text.s, "WordLevel"))
                die("%s: model.type is '%.60s'; expected WordLevel", path, text.s);
            *seen = !j->error;
        } else if (!strcmp(key.s, "vocab")) {
            int before = t->n_vocab;
            for (json_object(j); json_key(j, &text);)
                if (json_int(j, &id))
                    add_piece(t, path, "vocab", id, text.s);
            if (!j->error && t->n_vocab == before && !before)
                die("%s: vocab is empty", path);
        } else
            json_skip(j);
    buf_free(&key);
    buf_free(&text);
}

/* The only way of cutting text that is known here is into single characters. */
static void read_pre_tokenizer(Json *j, const char *path)
{
    Buf key = {0}, type = {0}, pattern = {0};
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "type"))
            json_string(j, &type);
        else if (!strcmp(key.s, "pattern"))
            for (json_object(j); json_key(j, &key);)
                json_string(j, &pattern);
        else
            json_skip(j);
    if (!j->error && (!type.n || strcmp(type.s, "Split") || !pattern.n ||
                      strcmp(pattern.s, SPLIT_CHARACTERS)))
        die("%s: pre_tokenizer is %.60s with pattern '%.100s'; expected Split with '%s'", path,
            type.n ? type.s : "(none)", pattern.n ? pattern.s : "", SPLIT_CHARACTERS);
    buf_free(&key);
    buf_free(&type);
    buf_free(&pattern);
}

static Tokenizer tokenizer_load(const char *path)
{
    Tokenizer t = {0};
    bool model = false, split = false;
    size_t n;
    char *text = read_file(path, &n);
    Json j = json_open(text, n);
    Buf key = {0};
    for (json_object(&j); json_key(&j, &key);)
        if (!strcmp(key.s, "added_tokens"))
            read_added_tokens(&j, &t, path);
        else if (!strcmp(key.s, "model"))
            read_model(&j, &t, path, &model);
        else if (!strcmp(key.s, "pre_tokenizer") && json_peek(&j) == '{') {
            read_pre_tokenizer(&j, path);
            split = true;
        } else
            json_skip(&j);
    if (!json_end(&j))
        die("%s: line %d: %s", path, json_line(&j), j.error ? j.error : "text after the object");
    if (!model || !t.n_vocab)
        die("%s: no model with a vocab", path);
    if (!split)
        die("%s: pre_tokenizer is missing; expected Split with '%s'", path, SPLIT_CHARACTERS);
    buf_free(&key);
    free(text);
    return t;
}

/* The id whose piece stands at `text`: an added token first, then one character; -1 if none. */
static int piece_at(const Tokenizer *t, const char *text, size_t n, size_t *used)
{
    uint32_t code;
    int bytes = utf8_decode(text, n, &code);
    for (int pass = 0; pass < 2; pass++)
        for (int id = 0; id < t->n_vocab; id++) {
            size_t length = t->piece[id] ? strlen(t->piece[id]) : 0;
            if (length && length <= n && !memcmp(text, t->piece[id], length) &&
                (pass == 0 ? t->added[id] : (int)length == bytes)) {
                *used = length;
                return id;
            }
        }
    return -1;
}

/* Ids of a text, into `ids` (room for one per byte). Returns how many, or -1 where a character has
 * no token: then *bad is its offset. */
static int tokenizer_encode(const Tokenizer *t, const char *text, size_t n, int *ids, size_t *bad)
{
    int count = 0;
    for (size_t i = 0, used; i < n; i += used) {
        int id = piece_at(t, text + i, n - i, &used);
        if (id < 0) {
            *bad = i;
            return -1;
        }
        ids[count++] = id;
    }
    return count;
}

/* Appends the text of ids; those without a token (an untrained row of the vocabulary) as U+FFFD. */
static void tokenizer_decode(const Tokenizer *t, const int *ids, int n, bool skip_special, Buf *out)
{
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->n_vocab || !t->piece[ids[i]])
            buf_str(out, "\xEF\xBF\xBD");
        else if (!(skip_special && t->special[ids[i]]))
            buf_str(out, t->piece[ids[i]]);
    buf_add(out, "", 0);
}

#define END_TOKEN "<|endoftext|>" /* id 0 of the built-in vocabulary */

/* The vocabulary of the built-in tasks: the end token (id 0) and one token for each character. */
static Tokenizer tokenizer_characters(const char *alphabet)
{
    Tokenizer t = {0};
    add_piece(&t, "built-in", "vocab", 0, END_TOKEN);
    t.special[0] = t.added[0] = true;
    for (int i = 0; alphabet[i]; i++)
        add_piece(&t, "built-in", "vocab", i + 1, (char[]){alphabet[i], 0});
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
    json_put_string(&b, SPLIT_CHARACTERS, strlen(SPLIT_CHARACTERS));
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
