/* tokenizer_json.h: a Tokenizer from a tokenizer.json, the format of the Hugging Face tokenizers
 * library. Whatever would change the ids and is not supported is refused by name.
 *
 *   tokenizer_load(path)              a tokenizer.json, or a directory that holds one
 *   tokenizer_characters(alphabet)    the vocabulary of the built-in tasks
 *   tokenizer_write(path, alphabet)   the same as a tokenizer.json */
#ifndef TOKENIZER_JSON_H
#define TOKENIZER_JSON_H

#include "../../tokenizer.c" /* defines: Tokenizer, vocab_find, bytes_of, REGEX_QWEN */

/* ================================================================ filling the tables */

/* Bytes for a message: one line, truncated. */
typedef struct {
    char s[256];
} Shown;

static Shown shown(const char *bytes, size_t n)
{
    Buf b = {0};
    Shown x;
    json_put_string(&b, bytes, n < 40 ? n : 40); /* an escape is at most 6 bytes */
    snprintf(x.s, sizeof x.s, "%s%s", b.s, n < 40 ? "" : "...");
    buf_free(&b);
    return x;
}

static Shown shown_token(const Tokenizer *t, int id)
{
    return shown(token_bytes(t, id), (size_t)t->token[id].length);
}

/* Sets the bytes of an id. */
static void set_token(Tokenizer *t, const char *path, const char *field, int64_t id, const char *s,
                      size_t n)
{
    if (id < 0 || id > MAX_ID)
        die("%s: %s: id %lld of %s; expected 0 to %d", path, field, (long long)id, shown(s, n).s,
            MAX_ID);
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
        die("%s: %s: id %lld belongs to %s and to %s", path, field, (long long)id,
            shown_token(t, (int)id).s, shown(s, n).s);
    *token = (Token){t->bytes.n, n, token->special};
    buf_add(&t->bytes, s, n);
    t->n_vocab = imax(t->n_vocab, (int)id + 1);
}

/* A token of the model, found by the hash of its bytes. */
static void add_model_token(Tokenizer *t, const char *path, int64_t id, const char *s, size_t n)
{
    uint64_t key;
    int other = vocab_find(t, s, n, &key);
    if (other >= 0)
        die("%s: vocab: %s is there twice, with ids %d and %lld", path, shown(s, n).s, other,
            (long long)id);
    if (id >= 0 && id < t->n_vocab && t->token[id].length)
        die("%s: vocab: id %lld belongs to %s and to %s", path, (long long)id,
            shown_token(t, (int)id).s, shown(s, n).s);
    set_token(t, path, "vocab", id, s, n);
    map_set(&t->vocab, key, (int)id);
}

/* A token that is matched in texts, in the trie of this root. */
static void add_added_token(Tokenizer *t, const char *path, int root, Added added, const char *s,
                            size_t n)
{
    int node = root, next;
    while (t->n_nodes < N_ROOTS)
        APPEND(t->leaf, t->n_nodes, -1);
    for (size_t i = 0; i < n; i++, node = next) {
        uint64_t key = (uint64_t)node << 8 | (unsigned char)s[i];
        next = map_get(&t->trie, key);
        if (next < 0 && t->n_nodes == MAX_NODES)
            die("%s: added_tokens: more than %d bytes in all", path, MAX_NODES);
        if (next < 0) {
            next = t->n_nodes;
            map_set(&t->trie, key, next);
            APPEND(t->leaf, t->n_nodes, -1);
        }
    }
    if (t->leaf[node] >= 0)
        die("%s: added_tokens: %s is there twice", path, shown(s, n).s);
    t->leaf[node] = t->n_added;
    APPEND(t->added, t->n_added, added);
}

/* ================================================================ reading tokenizer.json */

/* The file is parsed once to check it; then each part is looked up by name. A copy of a cursor
 * marks a place in the text. */

/* The value of a member of the object at j; an empty cursor where there is none. */
static Json member(Json j, const char *name)
{
    Buf key = {0};
    Json found = {0};
    for (json_object(&j); !found.start && json_key(&j, &key);)
        if (!strcmp(key.s, name))
            found = j;
        else
            json_skip(&j);
    buf_free(&key);
    return found;
}

/* Is there a value other than null? */
static bool given(Json j) { return json_peek(&j) && json_peek(&j) != 'n'; }

static bool string_is(Json j, const char *text)
{
    Buf s = {0};
    bool same = json_peek(&j) == '"' && json_string(&j, &s) && !strcmp(s.s, text);
    buf_free(&s);
    return same;
}

static bool type_is(Json j, const char *type) { return string_is(member(j, "type"), type); }

/* Dies, quoting the text at j in one line. */
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

/* The truth of a member, or its default. */
static bool flag(Json j, const char *path, const char *name, bool otherwise)
{
    Json value = member(j, name);
    bool x = otherwise;
    if (given(value) && !json_bool(&value, &x))
        refuse(path, name, member(j, name), "true or false");
    return x;
}

/* A whole file of JSON; the caller frees *text, which the cursor points into. */
static Json json_file(const char *path, char **text)
{
    size_t n;
    *text = read_text_file(path, &n);
    Json start = json_open(*text, n), j = start;
    json_skip(&j);
    if (!json_end(&j))
        die("%s: line %d: %s", path, json_line(&j), j.error);
    if (json_peek(&start) != '{')
        die("%s: expected an object: {...}", path);
    return start;
}

/* "vocab": {"a": 0, ...}. A name with characters that encode no byte is a token that BPE cannot
 * produce; its id decodes to the name. */
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
    buf_free(&name, &bytes);
}

/* A merge, "a b" or ["a", "b"], into its two parts. */
static bool read_pair(Json *j, Buf part[2])
{
    if (json_peek(j) != '"') {
        int n = 0;
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
    part[0].n = space - part[0].s;
    *space = 0;
    return true;
}

/* "merges": [...], by rank. A pair that is there twice has the later rank. */
static void read_merges(Tokenizer *t, const char *path, Json j)
{
    Buf part[2] = {{0}}, bytes = {0}, both = {0};
    uint64_t key;
    int rank = 0, id[2];
    json_array(&j);
    while (json_item(&j) && read_pair(&j, part)) {
        both.n = 0;
        for (int i = 0; i < 2; i++) {
            bool good = bytes_of(part[i].s, part[i].n, &bytes);
            id[i] = good && bytes.n ? vocab_find(t, bytes.s, bytes.n, &key) : -1;
            buf_add(&both, bytes.s, bytes.n);
        }
        int merged = vocab_find(t, both.s, both.n, &key);
        if (id[0] < 0 || id[1] < 0 || merged < 0)
            die("%s: merges: line %d: %s and %s, or what they make, is not in vocab", path,
                json_line(&j), shown(part[0].s, part[0].n).s, shown(part[1].s, part[1].n).s);
        map_set(&t->rank, pair_key(id[0], id[1]), rank);
        APPEND(t->merged, rank, merged);
    }
    if (j.error)
        die("%s: line %d: merges: %s", path, json_line(&j), j.error);
    buf_free(&part[0], &part[1], &bytes, &both);
}

/* The tokens that are single bytes. SmolLM2 lacks some rare ones. */
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
    double number = 1;
    bool truth = true;
    t->characters = type_is(model, "WordLevel");
    if (!t->characters && !type_is(model, "BPE"))
        refuse(path, "model.type", member(model, "type"), "BPE or WordLevel");
    for (size_t i = 0; i < LENGTH(off); i++) {
        Json j = member(model, off[i]), value = j, same = j;
        if (given(j) && !string_is(j, "") && !(json_number(&value, &number) && number == 0) &&
            !(json_bool(&same, &truth) && !truth))
            refuse(path, off[i], j, "null, false or nothing");
    }
    read_vocab(t, path, member(model, "vocab"));
    if (t->characters)
        return;
    t->whole_first = flag(model, path, "ignore_merges", false);
    find_bytes(t, path, member(model, "unk_token"));
    read_merges(t, path, member(model, "merges"));
}

/* "normalizer": null, NFC, or a Sequence of that. */
static void read_normalizer(Tokenizer *t, const char *path, Json j)
{
    Json list = member(j, "normalizers");
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

/* The step of a Split with one of the known expressions; -1 if it is no such Split. */
static int split_of(const Tokenizer *t, const char *path, Json j)
{
    static const char *const regexes[] = {REGEX_GPT2, REGEX_QWEN, REGEX_LLAMA3, REGEX_CHARACTER};
    Json regex = member(member(j, "pattern"), "Regex");
    if (!type_is(j, "Split") || !string_is(member(j, "behavior"), "Isolated") ||
        flag(j, path, "invert", false))
        return -1;
    for (int i = t->characters ? 3 : 0; i < (t->characters ? 4 : 3); i++)
        if (string_is(regex, regexes[i]))
            return SPLIT_GPT2 + i;
    return -1;
}

/* "pre_tokenizer": ByteLevel, Split, Digits, or a Sequence of them that ends with ByteLevel; for
 * a WordLevel model a Split into characters. *ended: the last step was there. */
static void read_pre_tokenizer(Tokenizer *t, const char *path, Json j, bool *ended)
{
    Json list = member(j, "pretokenizers");
    if (type_is(j, "Sequence") && json_peek(&list) == '[') {
        for (json_array(&list); json_item(&list); json_skip(&list))
            read_pre_tokenizer(t, path, list, ended);
    } else if (*ended) {
        refuse(path, "pre_tokenizer", j, "nothing after the last step");
    } else if (split_of(t, path, j) >= 0) {
        add_step(t, path, split_of(t, path, j));
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
               : "ByteLevel, Digits, or an isolating Split with the Regex of Qwen, Llama 3 or "
                 "GPT-2");
}

/* An added token as a file declares it. */
typedef struct {
    int64_t id;
    bool special, lstrip, rstrip, normalized;
} Declared;

/* Adds a token, which may be in the model's vocabulary, too. */
static void declare_token(Tokenizer *t, const char *path, const Buf *content, Declared d)
{
    Buf bytes = {0}, normal = {0};
    uint64_t key;
    const Buf *name = t->characters ? content
                      : bytes_of(content->s, content->n, &bytes) ? &bytes : NULL;
    int other = name ? vocab_find(t, name->s, name->n, &key) : -1;
    if (other >= 0 && other != d.id)
        die("%s: added_tokens: %s has id %lld, but %d in vocab", path,
            shown(content->s, content->n).s, (long long)d.id, other);
    if (other >= 0)
        t->token[other].length = 0; /* the content replaces its bytes */
    set_token(t, path, "added_tokens", d.id, content->s, content->n);
    t->token[d.id].special = d.special;
    if (d.normalized && t->normalize)
        nfc(content->s, content->n, &normal);
    name = normal.n ? &normal : content;
    add_added_token(t, path, d.normalized ? NORMALIZED : AS_IS,
                    (Added){(int)d.id, d.lstrip, d.rstrip}, name->s, name->n);
    buf_free(&bytes, &normal);
}

/* Adds the token of {"content": "...", "special": true, ...}. */
static void read_added_token(Tokenizer *t, const char *path, Json j, int64_t id)
{
    Buf content = {0};
    Json text = member(j, "content");
    if (!json_string(&text, &content) || !content.n)
        refuse(path, "added_tokens: an entry", j, "id and content");
    if (flag(j, path, "single_word", false))
        refuse(path, "added_tokens: single_word of an entry", j, "false");
    Declared d = {id, flag(j, path, "special", false), flag(j, path, "lstrip", false),
                  flag(j, path, "rstrip", false), flag(j, path, "normalized", true)};
    declare_token(t, path, &content, d);
    buf_free(&content);
}

/* "added_tokens": [{"id": 0, "content": "...", "special": true, ...}, ...] */
static void read_added_tokens(Tokenizer *t, const char *path, Json j)
{
    if (!given(j))
        return;
    for (json_array(&j); json_item(&j); json_skip(&j)) {
        Json number = member(j, "id");
        int64_t id;
        if (!json_int(&number, &id))
            refuse(path, "added_tokens: an entry", j, "id and content");
        read_added_token(t, path, j, id);
    }
    if (j.error)
        die("%s: line %d: added_tokens: %s", path, json_line(&j), j.error);
}

/* The id of the added token named by the string at j, or -1. */
static int added_id(const Tokenizer *t, Json j)
{
    Buf name = {0};
    int id = json_string(&j, &name) ? added_named(t, name.s, name.n) : -1;
    buf_free(&name);
    return id;
}

/* "post_processor": ByteLevel, which changes no ids; TemplateProcessing with at most one token
 * before the text; or a Sequence of these. */
static void read_post_processor(Tokenizer *t, const char *path, Json j)
{
    Json list = member(j, "processors"), single = member(j, "single");
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
        Json special = member(single, "SpecialToken");
        bool second = t->bos >= 0;
        if (given(special) && !text && !second)
            t->bos = added_id(t, member(special, "id"));
        if (text || (given(special) && (second || t->bos < 0)))
            refuse(path, "post_processor.single", member(j, "single"),
                   "at most one token, of added_tokens, and then the text");
        text = given(member(single, "Sequence"));
    }
}

/* ================================================================ the files next to it */

/* Tokens may be declared in other files of the directory alone: with their ids, in the member
 * added_tokens_decoder of tokenizer_config.json or in added_tokens.json; by name, as bos_token and
 * the like, in tokenizer_config.json or special_tokens_map.json. transformers takes them all. */
enum { TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, N_SIBLINGS };
static const char *const SIBLINGS[N_SIBLINGS] = {"tokenizer_config.json", "special_tokens_map.json",
                                                 "added_tokens.json"};

/* A file in the directory of tokenizer.json. */
static Path sibling(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return path_printf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);
}

/* Names of special tokens. */
typedef struct {
    Buf *name;
    int n;
} Names;

static bool is_named(const Names *names, const Buf *name)
{
    for (int i = 0; i < names->n; i++)
        if (!strcmp(names->name[i].s, name->s))
            return true;
    return false;
}

/* A name: "<s>" or {"content": "<s>", ...}; any other value names none. */
static void add_special_name(Json j, Names *names)
{
    Buf name = {0};
    Json text = json_peek(&j) == '{' ? member(j, "content") : j;
    if (json_peek(&text) == '"' && json_string(&text, &name) && name.n && !is_named(names, &name))
        APPEND(names->name, names->n, name);
    else
        buf_free(&name);
}

/* The names in {"bos_token": NAME, "additional_special_tokens": [NAME, ...], ...}. */
static void read_names(Json j, Names *names)
{
    Buf key = {0};
    for (json_object(&j); json_key(&j, &key); json_skip(&j)) {
        Json list = j;
        if (key.n > 6 && !strcmp(key.s + key.n - 6, "_token"))
            add_special_name(j, names);
        else if (among(key.s, "additional_special_tokens|extra_special_tokens") &&
                 json_peek(&list) == '[')
            for (json_array(&list); json_item(&list); json_skip(&list))
                add_special_name(list, names);
    }
    buf_free(&key);
}

/* Is a token known already, with this id? Dies where it has another. */
static bool is_known(const Tokenizer *t, const char *path, const Buf *name, int64_t id)
{
    int known = added_named(t, name->s, name->n);
    if (known >= 0 && known != id)
        die("%s: %s has id %lld, but %d in tokenizer.json", path, shown(name->s, name->n).s,
            (long long)id, known);
    return known >= 0;
}

/* "added_tokens_decoder": {"0": {"content": "<s>", ...}, ...} */
static void read_decoder(Tokenizer *t, const char *path, Json j)
{
    Buf key = {0}, name = {0};
    for (json_object(&j); json_key(&j, &key); json_skip(&j)) {
        char *end;
        long id = strtol(key.s, &end, 10);
        Json text = member(j, "content");
        if (*end || end == key.s || !json_string(&text, &name))
            refuse(path, "added_tokens_decoder: an entry", j, "an id and its content");
        if (!is_known(t, path, &name, id))
            read_added_token(t, path, j, id);
    }
    if (j.error)
        die("%s: added_tokens_decoder: %s", path, j.error);
    buf_free(&key, &name);
}

/* added_tokens.json: {"<s>": 0, ...} */
static void read_encoder(Tokenizer *t, const char *path, Json j, const Names *special)
{
    Buf name = {0};
    int64_t id;
    for (json_object(&j); json_key(&j, &name) && json_int(&j, &id);)
        if (!is_known(t, path, &name, id)) {
            bool named = is_named(special, &name);
            declare_token(t, path, &name, (Declared){id, named, false, false, !named});
        }
    if (j.error)
        die("%s: line %d: %s", path, json_line(&j), j.error);
    buf_free(&name);
}

/* The id of the model's token that the file calls so, or -1: see read_vocab. */
static int vocab_named(const Tokenizer *t, const Buf *name)
{
    Buf bytes = {0};
    uint64_t key;
    bool encodes = !t->characters && bytes_of(name->s, name->n, &bytes);
    const Buf *found = encodes ? &bytes : name;
    int id = vocab_find(t, found->s, found->n, &key);
    buf_free(&bytes);
    if (encodes || t->characters)
        return id;
    for (int other = 0; other < t->n_vocab; other++)
        if (other != id && token_is(t, other, name->s, name->n))
            return other;
    return -1;
}

/* A special token that is known by its name alone: its id is that of the vocabulary. */
static void read_named(Tokenizer *t, const char *path, const Buf *name)
{
    if (added_named(t, name->s, name->n) >= 0)
        return;
    int id = vocab_named(t, name);
    if (id >= 0)
        declare_token(t, path, name, (Declared){id, true, false, false, false});
    else
        warn("%s: the special token %s has no id; it is read as plain text", path,
             shown(name->s, name->n).s);
}

/* Where tokenizer.json has no post_processor, tokenizer_config.json may name the token that begins
 * a text: "add_bos_token": true, "bos_token": "<s>" or {"content": "<s>"}. */
static void read_bos(Tokenizer *t, const char *path, Json j)
{
    Json bos = member(j, "bos_token");
    if (!flag(j, path, "add_bos_token", false))
        return;
    t->bos = added_id(t, json_peek(&bos) == '{' ? member(bos, "content") : bos);
    if (t->bos < 0)
        refuse(path, "bos_token", bos, "one of the added_tokens of tokenizer.json");
}

/* The tokens that other files than the tokenizer.json `path` declare. `bos`: see read_bos. */
static void read_siblings(Tokenizer *t, const char *path, bool bos)
{
    Path file[N_SIBLINGS];
    Json j[N_SIBLINGS] = {{0}};
    char *text[N_SIBLINGS] = {0};
    Names special = {0};
    for (int i = 0; i < N_SIBLINGS; i++) {
        file[i] = sibling(path, SIBLINGS[i]);
        if (is_file(file[i].s))
            j[i] = json_file(file[i].s, &text[i]);
        if (text[i] && i != ADDED_TOKENS)
            read_names(j[i], &special);
    }
    Json decoder = member(j[TOKENIZER_CONFIG], "added_tokens_decoder");
    if (given(decoder))
        read_decoder(t, file[TOKENIZER_CONFIG].s, decoder);
    if (text[ADDED_TOKENS])
        read_encoder(t, file[ADDED_TOKENS].s, j[ADDED_TOKENS], &special);
    for (int i = 0; i < special.n; i++)
        read_named(t, file[TOKENIZER_CONFIG].s, &special.name[i]);
    if (bos)
        read_bos(t, file[TOKENIZER_CONFIG].s, j[TOKENIZER_CONFIG]);
    for (int i = 0; i < N_SIBLINGS; i++)
        free(text[i]);
    for (int i = 0; i < special.n; i++)
        buf_free(&special.name[i]);
    free(special.name);
}

/* `where`: a tokenizer.json, or a directory that holds one. Dies naming what is wrong. */
static Tokenizer tokenizer_load(const char *where)
{
    Tokenizer t = {.bos = -1};
    Path file = is_dir(where) ? path_join(where, "tokenizer.json") : path_printf("%s", where);
    const char *path = file.s;
    bool ended = false;
    char *text;
    Json j = json_file(path, &text), post = member(j, "post_processor");
    read_model(&t, path, member(j, "model"));
    read_normalizer(&t, path, member(j, "normalizer"));
    read_pre_tokenizer(&t, path, member(j, "pre_tokenizer"), &ended);
    if (!ended)
        refuse(path, "pre_tokenizer", member(j, "pre_tokenizer"), "ByteLevel as its last step");
    read_added_tokens(&t, path, member(j, "added_tokens"));
    read_siblings(&t, path, !given(post));
    if (!type_is(member(j, "decoder"), t.characters ? "Fuse" : "ByteLevel"))
        refuse(path, "decoder", member(j, "decoder"), t.characters ? "Fuse" : "ByteLevel");
    if (given(post))
        read_post_processor(&t, path, post);
    for (int i = 0; i < 2; i++)
        if (given(member(j, i ? "padding" : "truncation")))
            warn("%s: %s is set; it is ignored", path, i ? "padding" : "truncation");
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
