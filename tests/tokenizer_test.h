/* tokenizer.h: tests of text to ids and back. */
#ifndef TESTS_TOKENIZER_H
#define TESTS_TOKENIZER_H

#include "files_test.h"
#include "train_test.h"

/* The built-in vocabulary: written, read back, and every text of a task survives both ways. */
static void test_tokenizer(void)
{
    Path path = tmp_path("tokenizer.json");
    tokenizer_write(path.s, TASK_ALPHABET);
    Tokenizer t = tokenizer_load(path.s), u = tokenizer_characters(TASK_ALPHABET);
    const char *text = "3574>26:" END_TOKEN "3*7=21,21+5=26";
    Ids ids = {0}, same = {0};
    size_t bad = 0;
    Buf b = {0};
    CHECK(t.n_vocab == 19 && u.n_vocab == 19 && t.bos < 0 && u.bos < 0, "vocabulary of %d",
          t.n_vocab);
    CHECK(tokenizer_encode(&t, text, strlen(text), &ids, &bad), "no token at %zu", bad);
    CHECK(ids.n == (int)(strlen(text) - strlen(END_TOKEN) + 1) && ids.id[8] == 0, "%d ids", ids.n);
    CHECK(tokenizer_encode(&u, text, strlen(text), &same, &bad) && same.n == ids.n &&
              !memcmp(ids.id, same.id, (size_t)ids.n * sizeof(int)), "file and built-in differ");
    tokenizer_decode(&t, ids.id, ids.n, false, &b);
    CHECK(!strcmp(b.s, text), "decoded: %s", b.s);
    b.n = 0;
    tokenizer_decode(&t, ids.id, ids.n, true, &b);
    CHECK(!strcmp(b.s, "3574>26:3*7=21,21+5=26"), "special tokens left out: %s", b.s);
    b.n = 0;
    ids.id[0] = 99;
    tokenizer_decode(&t, ids.id, 1, false, &b);
    CHECK(!strcmp(b.s, "\xEF\xBF\xBD"), "an id without a token");
    CHECK(!tokenizer_encode(&t, "12x", 3, &ids, &bad) && bad == 2, "x has no token");
    CHECK(!tokenizer_encode(&t, "1\xC3\xA9", 3, &ids, &bad) && bad == 1, "nor has e acute");
    CHECK(!tokenizer_encode(&t, "1\0", 2, &ids, &bad) && bad == 1, "nor has NUL");
    buf_free(&b);
    ids_free(&ids);
    ids_free(&same);
    tokenizer_free(&t);
    tokenizer_free(&u);
}

/* The regular expressions of GPT-2, Qwen and Llama 3, cut by hand at each |. */
static void test_pieces(void)
{
    static const struct {
        Cut cut;
        const char *pieces;
    } cases[] = {
        {SPLIT_GPT2, "it|'s| we|'ll| I|'ve| you|'re| I|'d| I|'m| don|'t| '|S"},
        {SPLIT_GPT2, "a| 1234|b| ...|\n| x|  | y|\t|z| |\xC2\xA0|q"},
        {SPLIT_GPT2, "''|s| \xC2\xBD\xD9\xA5| \xE4\xB8\xAD\xC3\xA9| \xE2\x82\xAC|\xE3\x80\x80|a"},
        {SPLIT_GPT2, "end|  "},
        {SPLIT_GPT2, "\n\n|\n|x|'"},
        {SPLIT_QWEN, "IT|'S| it|'s|'\xC5\xBF|x|'LL|'ll|'Ve|'rE|'D|'T|'M| '|9|'re|'"},
        {SPLIT_QWEN, "a|1|2|3| |4|.b| c|\tc|\xC2\xA0""d|!!\n\n|x|!\r\n|x| ...\n|y"},
        {SPLIT_QWEN, "  \n \n|  | x|   | |1| | !\n|\xCC\x81""a|\n| |\xE3\x80\x80""b"},
        {SPLIT_QWEN, " \xCC\x81| |\xD9\xA5|\xE2\x80\xA8|\xE2\x80\xA8x| \xE2\x80\xA8| |9"},
        {SPLIT_QWEN, "\xFF\xFE\xC3|a|\xE4\xB8| \xF0\x9F|b"},
        {SPLIT_LLAMA3, "IT|'S|123|45| |678|901|2|.b| c|1|x|\n|12|\n|3"},
        {SPLIT_LLAMA3, "\xD9\xA5\xC2\xBD" "1|2| |\xE2\x85\xA7\xE2\x85\xA7\xE2\x85\xA7|\xE2\x85\xA7|"
                       "a"},
        {SPLIT_LLAMA3, "12|\xFF"},
        {SPLIT_DIGIT, "ab|1|2|\xD9\xA5| c|\xC2\xBD"},
        {SPLIT_DIGITS, "ab|12\xD9\xA5| c|\xC2\xBD"},
        {SPLIT_CHARACTER, "a|1|\xE4\xB8\xAD|\xFF|b|\xE4|\xB8|c"},
    };
    Buf text = {0}, cut = {0};
    for (size_t k = 0; k < LENGTH(cases); k++) {
        text.n = cut.n = 0;
        for (const char *p = cases[k].pieces; *p; p++)
            if (*p != '|')
                buf_add(&text, p, 1);
        for (size_t i = 0, length; i < text.n; i += length) {
            char *rest = exact(text.s + i, text.n - i);
            length = split_piece(cases[k].cut, rest, text.n - i);
            free(rest);
            buf_str(&cut, i ? "|" : "");
            buf_add(&cut, text.s + i, length);
        }
        CHECK(!strcmp(cut.s, cases[k].pieces), "'%s' became '%s'", cases[k].pieces, cut.s);
    }
    buf_free(&text, &cut);
}

static bool nfc_is(const char *text, size_t n, const char *expected, size_t m)
{
    Buf b = {0};
    char *copy = exact(text, n);
    nfc(copy, n, &b);
    bool same = b.n == m && !memcmp(b.s, expected, m) && (nfc_needed(copy, n) || (n == m &&
                !memcmp(text, expected, n)));
    free(copy);
    buf_free(&b);
    return same;
}

/* The ranges of a file of ../shared/data/tok/unicode against a function of ours. */
static void check_ranges(const char *name, bool (*in)(uint32_t))
{
    Path path;
    size_t n;
    char *text, *line;
    if (!shared_dir(&path, name)) {
        skip("../shared/data/tok/unicode is not there");
        return;
    }
    uint32_t next = 0;
    text = read_file(path.s, &n);
    line = strtok(text, "\n");
    while (line || next < 0x110000) {
        unsigned first = 0x110000, last = 0x110000;
        if (line && sscanf(line, "%x..%x", &first, &last) == 1)
            last = first;
        for (; next < 0x110000 && next <= last; next++)
            CHECK(in(next) == (next >= first), "%s: U+%04X", name, next);
        line = line ? strtok(NULL, "\n") : NULL;
    }
    free(text);
}

static void check_nfc_files(void)
{
    Path single, random;
    size_t n, offset = 0;
    Buf from = {0}, to = {0}, key = {0};
    if (!shared_dir(&single, "tok/unicode/nfc_single.tsv") ||
        !shared_dir(&random, "tok/unicode/nfc_random.open.jsonl")) {
        skip("../shared/data/tok/unicode is not there");
        return;
    }
    char *text = read_file(single.s, &n);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        from.n = to.n = 0;
        char *p = line;
        utf8_encode(&from, (uint32_t)strtoul(p, &p, 16));
        while (*p)
            utf8_encode(&to, (uint32_t)strtoul(p, &p, 16));
        CHECK(nfc_is(from.s, from.n, to.s, to.n), "NFC of U+%s", line);
    }
    free(text);
    text = read_file(random.s, &n);
    int line = 0;
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        for (json_object(&j); json_key(&j, &key);)
            json_string(&j, strcmp(key.s, "nfc") ? &from : &to);
        CHECK(nfc_is(from.s, from.n, to.s, to.n), "%s: line %d", random.s, line);
    }
    free(text);
    buf_free(&from, &to, &key);
}

/* Normal form C by hand, and a text made of marks in the wrong order, which must not take long. */
static void test_nfc(void)
{
    static const char *const cases[][2] = {
        {"abc", "abc"},
        {"e\xCC\x81", "\xC3\xA9"},
        {"e\xCC\xA3\xCC\x81", "\xE1\xBA\xB9\xCC\x81"},         /* dot below, acute */
        {"e\xCC\x81\xCC\xA3", "\xE1\xBA\xB9\xCC\x81"},         /* the same, ordered */
        {"\xC3\xA9\xCC\xA3", "\xE1\xBA\xB9\xCC\x81"},
        {"e\xCC\xA3\xCC\xA3\xCC\x81", "\xE1\xBA\xB9\xCC\xA3\xCC\x81"}, /* the second is blocked */
        {"e\xCC\x80\xCC\x81", "\xC3\xA8\xCC\x81"},             /* one class: blocked */
        {"e\xCC\x85\xCC\x81", "e\xCC\x85\xCC\x81"},             /* by an overline */
        {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"}, /* Hangul */
        {"\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C"},
        {"\xED\x95\x98\xE1\x86\xA7", "\xED\x95\x98\xE1\x86\xA7"}, /* U+11A7 is no trailing part */
        {"\xE2\x84\xAB", "\xC3\x85"},                           /* Angstrom sign */
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},         /* excluded from composition */
        {"\xC7\x96", "\xC7\x96"},                               /* two marks, and back */
        {"\xF0\x9D\x85\xA0", "\xF0\x9D\x85\x98\xF0\x9D\x85\xA5\xF0\x9D\x85\xAE"},
        {"\xCC\x81", "\xCC\x81"},
        {"e\xFF\xCC\x81", "e\xFF\xCC\x81"}, /* not UTF-8: unchanged, and nothing joins it */
        {"\xCC", "\xCC"},
        {"e\xCC\x81\xED\xA0\x80", "\xC3\xA9\xED\xA0\x80"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++)
        CHECK(nfc_is(cases[i][0], strlen(cases[i][0]), cases[i][1], strlen(cases[i][1])),
              "case %zu: %s", i, cases[i][0]);
    Buf marks = {0}, out = {0};
    buf_str(&marks, "e");
    for (int i = 0; i < 100000; i++)
        buf_str(&marks, i % 2 ? "\xCC\xA3" : "\xCC\x81");
    double start = now_seconds();
    nfc(marks.s, marks.n, &out);
    CHECK(out.n == marks.n && !memcmp(out.s, "\xE1\xBA\xB9\xCC\xA3", 5) &&
              !strcmp(out.s + out.n - 4, "\xCC\x81\xCC\x81"), "100000 marks: %zu bytes", out.n);
    CHECK(now_seconds() - start < 1, "%.2f s for 100000 marks", now_seconds() - start);
    buf_free(&marks, &out);
    check_nfc_files();
    check_ranges("tok/unicode/L.ranges", is_letter);
    check_ranges("tok/unicode/N.ranges", is_number);
    check_ranges("tok/unicode/S.ranges", is_space);
}

/* A line of vectors: what is there of it. */
typedef struct {
    Buf text, decoded, without; /* without: special tokens */
    bool has_decoded, has_without;
    Ids ids;
} Vector;

static void vector_read(Json *j, Vector *v)
{
    Buf key = {0};
    int64_t id;
    v->text.n = v->decoded.n = v->without.n = 0;
    v->has_decoded = v->has_without = false;
    v->ids.n = 0;
    j->nul = true;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "text"))
            json_string(j, &v->text);
        else if (!strcmp(key.s, "decoded"))
            v->has_decoded = json_string(j, &v->decoded);
        else if (!strcmp(key.s, "decoded_skip_special") || !strcmp(key.s, "text_skip_special"))
            v->has_without = json_string(j, &v->without);
        else if (!strcmp(key.s, "ids"))
            for (json_array(j); json_item(j) && json_int(j, &id);)
                ids_add(&v->ids, (int)id);
        else
            json_skip(j);
    CHECK(json_end(j), "bad JSON: %s", j->error);
    buf_free(&key);
}

static bool encodes_to(const Tokenizer *t, const char *text, size_t n, const Ids *expected)
{
    Ids ids = {0};
    size_t bad;
    char *copy = exact(text, n);
    bool same = tokenizer_encode(t, copy, n, &ids, &bad) && ids.n == expected->n &&
                (!ids.n || !memcmp(ids.id, expected->id, (size_t)ids.n * sizeof(int)));
    ids_free(&ids);
    free(copy);
    return same;
}

static bool decodes_to(const Tokenizer *t, const Ids *ids, bool skip_special, const Buf *expected)
{
    Buf b = {0};
    tokenizer_decode(t, ids->id, ids->n, skip_special, &b);
    bool same = b.n == expected->n && (!b.n || !memcmp(b.s, expected->s, b.n));
    buf_free(&b);
    return same;
}

/* What is shown token by token must be UTF-8 at each step. */
static bool streams_utf8(const Tokenizer *t, const Ids *ids)
{
    Decoder d = {0};
    Buf b = {0};
    bool good = true;
    uint32_t code;
    for (int i = 0; i < ids->n; i++) {
        decoder_add(&d, t, ids->id[i], false, &b);
        for (size_t k = 0; k < b.n;) {
            int length = utf8_decode(b.s + k, b.n - k, &code);
            good &= length > 0;
            k += (size_t)abs(length);
        }
        good &= d.waiting.n < 4;
        b.n = 0;
    }
    decoder_end(&d, &b);
    buf_free(&b);
    return good;
}

/* Every line of a file of vectors. */
static void check_vectors(const Tokenizer *t, const char *path, bool encode_too)
{
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n);
    Vector v = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        vector_read(&j, &v);
        if (encode_too)
            CHECK(encodes_to(t, v.text.s, v.text.n, &v.ids), "%s: line %d: encode", path, line);
        CHECK(decodes_to(t, &v.ids, false, v.has_decoded ? &v.decoded : &v.text),
              "%s: line %d: decode", path, line);
        if (v.has_without)
            CHECK(decodes_to(t, &v.ids, true, &v.without), "%s: line %d: special", path, line);
        CHECK(streams_utf8(t, &v.ids), "%s: line %d: streamed", path, line);
    }
    free(text);
    buf_free(&v.text, &v.decoded, &v.without);
    ids_free(&v.ids);
}

/* {"unit", "count", "n_ids", "head", "tail"}: a unit repeated; each within a second. */
static void check_long_runs(const Tokenizer *t, const char *path)
{
    size_t n, offset = 0, bad;
    int line = 0;
    char *file = read_file(path, &n);
    for (Json j; jsonl_next(file, n, &offset, &line, &j);) {
        Buf key = {0}, unit = {0}, text = {0};
        Ids ends[2] = {{0}}, ids = {0};
        int64_t count = 0, expected = 0, id;
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "unit"))
                json_string(&j, &unit);
            else if (!strcmp(key.s, "count") || !strcmp(key.s, "n_ids"))
                json_int(&j, key.s[0] == 'c' ? &count : &expected);
            else if (!strcmp(key.s, "head") || !strcmp(key.s, "tail"))
                for (json_array(&j); json_item(&j) && json_int(&j, &id);)
                    ids_add(&ends[key.s[0] == 't'], (int)id);
            else
                json_skip(&j);
        for (int i = 0; i < count; i++)
            buf_add(&text, unit.s, unit.n);
        double start = now_seconds();
        tokenizer_encode(t, text.s, text.n, &ids, &bad);
        CHECK(now_seconds() - start < 1, "%s: line %d: %.2f s", path, line, now_seconds() - start);
        CHECK(ids.n == expected && ids.n >= ends[1].n &&
                  !memcmp(ids.id, ends[0].id, (size_t)ends[0].n * sizeof(int)) &&
                  !memcmp(ids.id + ids.n - ends[1].n, ends[1].id, (size_t)ends[1].n * sizeof(int)),
              "%s: line %d: %d ids", path, line, ids.n);
        buf_free(&key, &unit, &text);
        ids_free(&ids);
        ids_free(&ends[0]);
        ids_free(&ends[1]);
    }
    free(file);
}

/* llama.cpp's test texts, and a line of ids for each. */
static void check_llamacpp(const Tokenizer *t, const char *name)
{
    static const char between[] = "\n__ggml_vocab_test__\n";
    char file[64];
    Path in, out;
    size_t n;
    snprintf(file, sizeof file, "tok/llamacpp/ggml-vocab-%s.gguf.inp", name);
    shared_dir(&in, file);
    snprintf(file, sizeof file, "tok/llamacpp/ggml-vocab-%s.gguf.out", name);
    shared_dir(&out, file);
    char *texts = read_file(in.s, &n), *lines = read_file(out.s, &n), *line = lines;
    for (char *text = texts, *end; text; text = end ? end + strlen(between) : NULL) {
        Ids ids = {0};
        char *newline = strchr(line, '\n');
        end = strstr(text, between);
        if (newline)
            *newline = 0;
        for (char *p = line, *rest; strtol(p, &rest, 10), rest != p; p = rest)
            ids_add(&ids, (int)strtol(p, NULL, 10));
        CHECK(encodes_to(t, text, end ? (size_t)(end - text) : strlen(text), &ids), "%s: '%.40s'",
              in.s, text);
        line = newline ? newline + 1 : line + strlen(line);
        ids_free(&ids);
    }
    free(texts);
    free(lines);
}

/* Encoding and decoding against the Hugging Face library: a small vocabulary here, and the files of
 * Qwen3, GPT-2, SmolLM2 and stories260k where they are. */
static void test_bpe_vectors(void)
{
    static const char *const names[][2] = {
        {"qwen3", "qwen2"}, {"gpt2", "gpt-2"}, {"smollm2", NULL}, {"qwen3mini512", NULL}};
    Tokenizer t = tokenizer_load("tests/tok/qwen3mini512");
    check_vectors(&t, "tests/tok/qwen3mini512/encode.jsonl", true);
    check_vectors(&t, "tests/tok/qwen3mini512/decode.jsonl", false);
    tokenizer_free(&t);
    Path dir, file;
    if (!shared_dir(&dir, "tok")) {
        skip("../shared/data/tok is not there");
        return;
    }
    for (size_t i = 0; i < LENGTH(names); i++) {
        Path model = path_join(dir.s, names[i][0]);
        t = tokenizer_load(model.s);
        check_vectors(&t, path_join(model.s, "encode.open.jsonl").s, true);
        file = path_join(model.s, "decode.open.jsonl");
        if (is_file(file.s))
            check_vectors(&t, file.s, false);
        file = path_join(model.s, "longruns.jsonl");
        if (is_file(file.s))
            check_long_runs(&t, file.s);
        if (names[i][1])
            check_llamacpp(&t, names[i][1]);
        tokenizer_free(&t);
    }
    if (shared_dir(&dir, "models/stories260k") &&
        shared_dir(&file, "oracle/stories260k.tok.bytelevel.jsonl")) {
        t = tokenizer_load(dir.s);
        CHECK(t.bos == 1, "beginning-of-text token %d", t.bos);
        check_vectors(&t, file.s, true);
        tokenizer_free(&t);
    }
}

/* The fixture's tokenizer.json with some texts replaced, each of which occurs once. */
typedef struct {
    const char *from, *to;
} Edit;

static Path edited_tokenizer(const Edit *edit, int n)
{
    size_t length;
    char *text = read_file("tests/tok/qwen3mini512/tokenizer.json", &length);
    Path path = tmp_path("edited.json");
    for (int i = 0; i < n && edit[i].from; i++) {
        Buf b = {0};
        char *at = strstr(text, edit[i].from);
        CHECK(at && !strstr(at + 1, edit[i].from), "'%s' does not occur once", edit[i].from);
        if (!at)
            break;
        buf_add(&b, text, (size_t)(at - text));
        buf_str(&b, edit[i].to);
        buf_str(&b, at + strlen(edit[i].from));
        free(text);
        text = b.s;
    }
    write_file(path.s, text, strlen(text));
    free(text);
    return path;
}

/* A member of the file, of which the old value becomes something that nobody asks for. */
#define MEMBER(name, bracket, value) \
    {"\"" name "\": " bracket, "\"" name "\": " value ", \"was " name "\": " bracket}
#define ADDED(content, lstrip, rstrip, normalized)                          \
    "\"" content "\",\n      \"single_word\": false,\n      \"lstrip\": " #lstrip \
    ",\n      \"rstrip\": " #rstrip ",\n      \"normalized\": " #normalized
#define THINK ADDED("<think>", false, false, false)
#define I_N "[\n        \"i\",\n        \"n\"\n      ]"
#define R_E "[\n        \"r\",\n        \"e\"\n      ]"
#define BYTE_LEVEL(prefix, regex) \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": " #prefix ", \"use_regex\": " #regex "}"
#define DIGITS(each) \
    "{\"type\": \"Sequence\", \"pretokenizers\": " \
    "[{\"type\": \"Digits\", \"individual_digits\": " #each "}, "

/* The options of a tokenizer.json; the ids are those of the Hugging Face library. */
static void test_bpe_options(void)
{
    static const struct {
        const char *what;
        Edit edit[3];
        const char *text, *ids;
    } cases[] = {
        {"white space before an added token is part of it", {{THINK, ADDED("<think>", true, false,
         false)}}, "a \t\302\240<think> in<think>x", "64 510 304 510 87"},
        {"and after it", {{THINK, ADDED("<think>", false, true, false)}},
         "a <think> \n\343\200\200 in <think>x", "64 220 510 258 220 510 87"},
        {"both", {{THINK, ADDED("<think>", true, true, false)}}, " <think>  <think> in",
         "510 510 258"},
        {"the text as it is holds it once", {{THINK, ADDED("e\314\201!", false, false, false)}},
         "\303\251!e\314\201!", "127 102 0 510"},
        {"after NFC twice", {{THINK, ADDED("e\314\201!", false, false, true)}},
         "\303\251!e\314\201!", "510 510"},
        {"the longest wins", {{"\"</think>\"", "\"<think>in\""}}, "<think>in<think>i<thin",
         "511 510 72 27 339 258"},
        {"without NFC", {MEMBER("normalizer", "{", "null")}, "e\314\201\303\251",
         "68 136 223 127 102"},
        {"a Sequence of NFC", {MEMBER("normalizer", "{", "{\"type\": \"Sequence\", "
         "\"normalizers\": [{\"type\": \"NFC\"}]}")}, "e\314\201\303\251", "127 102 127 102"},
        {"a space before each text", {MEMBER("pre_tokenizer", "{", BYTE_LEVEL(true, true))},
         "in<think>in in", "304 510 304 304"},
        {"not before a space", {MEMBER("pre_tokenizer", "{", BYTE_LEVEL(true, false))},
         " in  \nin", "304 256 198 258"},
        {"digits", {MEMBER("pre_tokenizer", "{", DIGITS(true) BYTE_LEVEL(false, false) "]}")},
         "a12 3\331\245\302\275 in", "64 16 17 220 18 149 98 126 121 304"},
        {"numbers", {MEMBER("pre_tokenizer", "{", DIGITS(false) BYTE_LEVEL(true, false) "]}")},
         "a12 3\331\245\302\275 in", "264 220 16 17 220 220 18 149 98 126 121 304"},
        {"SmolLM2", {MEMBER("pre_tokenizer", "{", DIGITS(true) BYTE_LEVEL(false, true) "]}")},
         "it's 12  in\n\n in  ", "275 6 82 220 16 17 220 304 271 304 256"},
        {"GPT-2", {MEMBER("pre_tokenizer", "{", BYTE_LEVEL(false, true))},
         "IT'S it's 100 in\n\n in  ", "40 51 6 50 432 6 82 220 16 15 15 304 271 304 256"},
        {"a merge as a string", {{I_N, "\"i n\""}}, "in inn", "258 304 77"},
        {"without its merge", {{I_N, "[\"\\u0120\", \"\\u0120\"]"}}, "in inn",
         "72 77 220 72 77 77"},
        {"a whole token needs no merge", {{I_N, "[\"\\u0120\", \"\\u0120\"]"},
         {"\"ignore_merges\": false", "\"ignore_merges\": true"}}, "in inn", "258 220 72 77 77"},
        {"Llama 3", {{"\\\\p{N}|", "\\\\p{N}{1,3}|"},
         {"\"a\": 64", "\"a\": 64, \"123\": 512, \"45\": 513"},
         {"\"ignore_merges\": false", "\"ignore_merges\": true"}},
         "12345 123 x123,45678\n\n45", "512 513 220 512 220 87 512 11 19 20 21 22 23 271 513"},
        {"of equal pairs the later counts", {{R_E, R_E ", [\"e\", \"r\"]"}}, "ere her",
         "68 265 305 261"},
        {"a merge that another has overtaken", {{NULL, NULL}}, "ore andest", "460 323 477"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        Tokenizer t = tokenizer_load(edited_tokenizer(cases[i].edit, 3).s);
        Ids ids = {0};
        Buf shown = {0};
        size_t bad;
        char *text = exact(cases[i].text, strlen(cases[i].text));
        tokenizer_encode(&t, text, strlen(cases[i].text), &ids, &bad);
        for (int k = 0; k < ids.n; k++)
            buf_printf(&shown, k ? " %d" : "%d", ids.id[k]);
        CHECK(!strcmp(shown.s, cases[i].ids), "%s: %s; expected %s", cases[i].what, shown.s,
              cases[i].ids);
        free(text);
        buf_free(&shown);
        ids_free(&ids);
        tokenizer_free(&t);
    }
}

/* Files that ask for what is not supported, or hold nonsense: one line that says what and where. */
static void test_tokenizer_refused(void)
{
    static const struct {
        Edit edit;
        const char *says;
    } cases[] = {
        {MEMBER("normalizer", "{", "{\"type\": \"NFKC\"}"), "normalizer is {\"type\": \"NFKC\"}"},
        {MEMBER("normalizer", "{", "{\"type\": \"Sequence\", \"normalizers\": "
         "[{\"type\":\"Strip\"}]}"),
         "normalizer is {\"type\":\"Strip\"}"},
        {MEMBER("normalizer", "{", "{\"type\": \"Sequence\", \"normalizers\": 5}"), "normalizer"},
        {MEMBER("pre_tokenizer", "{", "null"), "pre_tokenizer is null"},
        {{"\\\\p{N}|", "\\\\p{N}{1,2}|"}, "\\\\p{N}{1,2}|"},
        {{"\"invert\": false", "\"invert\": true"}, "\"invert\": true"},
        {{"\"Isolated\"", "\"Removed\""}, "\"Removed\""},
        {MEMBER("pre_tokenizer", "{", "{\"type\": \"Digits\", \"individual_digits\": true}"),
         "expected ByteLevel as its last step"},
        {MEMBER("pre_tokenizer", "{", "{\"type\": \"Sequence\", \"pretokenizers\": ["
         BYTE_LEVEL(true, true) "," BYTE_LEVEL(true, true) "]}"), "nothing after the last step"},
        {MEMBER("pre_tokenizer", "{", BYTE_LEVEL(1, true)), "add_prefix_space is 1"},
        {MEMBER("post_processor", "{", "{\"type\": \"BertProcessing\"}"), "BertProcessing"},
        {MEMBER("post_processor", "{", "{\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<think>\"}}, {\"Sequence\": {\"id\": \"A\"}}, "
         "{\"SpecialToken\": {\"id\": \"<think>\"}}]}"),
         "post_processor.single is [{\"SpecialToken\""},
        {MEMBER("post_processor", "{", "{\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<think>\"}}, {\"SpecialToken\": {\"id\": \"<think>\"}}, "
         "{\"Sequence\": {\"id\": \"A\"}}]}"), "expected at most one token"},
        {MEMBER("post_processor", "{", "{\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"Sequence\": {\"id\": \"A\"}}, {\"Sequence\": {\"id\": \"A\"}}]}"),
         "expected at most one token"},
        {MEMBER("post_processor", "{", "{\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<none>\"}}]}"), "<none>"},
        {MEMBER("decoder", "{", "null"), "decoder is null"},
        {MEMBER("model", "{", "null"), "model.type is missing"},
        {MEMBER("model", "{", "{\"type\": \"Unigram\"}"), "model.type is \"Unigram\""},
        {MEMBER("model", "{", "{\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}}"), "expected null"},
        {{"\"dropout\": null", "\"dropout\": 0.1"}, "dropout is 0.1"},
        {{"\"fuse_unk\": false", "\"fuse_unk\": true"}, "fuse_unk is true"},
        {{"\"byte_fallback\": false", "\"byte_fallback\": true"}, "byte_fallback is true"},
        {{"\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": \"</w>\""}, "\"</w>\""},
        {{"\"ignore_merges\": false", "\"ignore_merges\": 0"}, "ignore_merges is 0"},
        {{"\"content\": \"<think>\",\n      \"single_word\": false",
          "\"content\": \"<think>\",\n      \"single_word\": true"}, "single_word"},
        {{"\"<think>\"", "\"</think>\""}, "added_tokens: \"</think>\" is there twice"},
        {{"\"id\": 510", "\"id\": 64"}, "added_tokens: id 64 belongs to \"a\" and to \"<think>\""},
        {{"\"id\": 510", "\"id\": -1"}, "added_tokens: id -1"},
        {{"\"content\": \"<think>\"", "\"content\": \"\""}, "content"},
        {{"\"<think>\"", "\"a\""}, "added_tokens: \"a\" has id 510, but 64 in vocab"},
        {{"\"a\": 64", "\"a\": 65"}, "vocab: id 65 belongs to"},
        {{"\"a\": 64", "\"a\": 64, \"a\": 64"}, "vocab: \"a\" is there twice"},
        {{"\"a\": 64", "\"\": 64"}, "vocab"},
        {{"\"a\": 64", "\"a\": 4194304"}, "expected 0 to 4194303"},
        {{"\"a\": 64", "\"\\u4e2d\": 64"}, "vocab has no token for the byte 0x61"},
        {{I_N, "[\"i\"]"}, "merges: expected two strings"},
        {{I_N, "[\"i\", \"n\", \"g\"]"}, "merges: expected two strings"},
        {{I_N, "\"i n g\""}, "merges: expected two tokens and a space"},
        {{I_N, "[\"i\", \"\"]"}, "is not in vocab"},
        {{I_N, "[\"i\", \"\\u0120\\u0120\\u0120\"]"}, "is not in vocab"},
        {MEMBER("merges", "[", "{}"), "merges: expected an array"},
        {{"\"version\"", "version"}, "line 2: expected a key"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        Path path = edited_tokenizer(&cases[i].edit, 1);
        int status = cli("tokenize --tokenizer %s", path.s);
        CHECK(status == 1 && strstr(cli_err, cases[i].says) && strstr(cli_err, "edited.json: ") &&
                  strchr(cli_err, '\n') == cli_err + strlen(cli_err) - 1,
              "expected '%s': status %d, %s", cases[i].says, status, cli_err);
    }
    char *much = xmalloc(MAX_NODES + 3);
    memset(much, 'x', MAX_NODES + 2);
    much[0] = much[MAX_NODES + 1] = '"';
    much[MAX_NODES + 2] = 0;
    Edit edit = {"\"<think>\"", much};
    CHECK(cli("tokenize --tokenizer %s", edited_tokenizer(&edit, 1).s) == 1 &&
              strstr(cli_err, "added_tokens: more than 1048576 bytes in all"),
          "%.200s", cli_err);
    free(much);
}

/* Any bytes: the tokens of what is not UTF-8 hold the same bytes, in order. */
static void test_bpe_bytes(void)
{
    static const Edit plain[2] = {MEMBER("normalizer", "{", "null"),
                                  MEMBER("pre_tokenizer", "{", BYTE_LEVEL(false, true))};
    for (int k = 0; k < 2; k++) {
        Tokenizer t = tokenizer_load(edited_tokenizer(plain, 1 + k).s);
        for (uint32_t round = 0; round < 400; round++) {
            char text[64];
            size_t n = below(philox(3, 1, round, 0, 0, 0), sizeof text), bad;
            for (uint32_t i = 0; i < n; i++) {
                static const char likely[] = "\xE4\xB8\xAD\xF0\x9F\x98\x80\xED\xA0\0 \n'sa1!";
                Random r = philox(3, 2, round, i, 0, 0);
                text[i] = round % 2 ? (char)r.r[0] : likely[below(r, sizeof likely - 1)];
            }
            char *copy = exact(text, n);
            Ids ids = {0};
            Buf b = {0};
            buf_add(&b, "", 0);
            tokenizer_encode(&t, copy, n, &ids, &bad);
            for (int i = 0; i < ids.n; i++)
                buf_add(&b, token_bytes(&t, ids.id[i]), (size_t)t.token[ids.id[i]].length);
            CHECK(b.n == n && !memcmp(b.s, text, n), "round %u: %zu, then %zu", round, n, b.n);
            CHECK(streams_utf8(&t, &ids), "round %u", round);
            free(copy);
            ids_free(&ids);
            buf_free(&b);
        }
        tokenizer_free(&t);
    }
}

/* Which token begins a prompt: the post_processor says it, or tokenizer_config.json. */
static void test_bos(void)
{
    static const Edit template = MEMBER("post_processor", "{", "{\"type\": \"Sequence\", "
        "\"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", "
        "\"single\": [{\"SpecialToken\": {\"id\": \"<think>\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}]}]}");
    static const Edit none = MEMBER("post_processor", "{", "null");
    static const char *const configs[][2] = {
        {"{\"add_bos_token\": true, \"bos_token\": \"<think>\"}", "510"},
        {"{\"bos_token\": {\"content\": \"<think>\"}, \"add_bos_token\": true}", "510"},
        {"{\"add_bos_token\": false, \"bos_token\": \"<think>\"}", "-1"},
        {"{\"bos_token\": null}", "-1"},
    };
    Ids ids = {0};
    size_t bad;
    Tokenizer t = tokenizer_load(edited_tokenizer(&template, 1).s);
    CHECK(t.bos == 510, "template: %d", t.bos);
    tokenizer_prompt(&t, "in", 2, &ids, &bad);
    CHECK(ids.n == 2 && ids.id[0] == 510 && ids.id[1] == 258, "%d ids", ids.n);
    ids.n = 0;
    tokenizer_encode(&t, "in", 2, &ids, &bad);
    CHECK(ids.n == 1, "%d ids", ids.n);
    ids_free(&ids);
    tokenizer_free(&t);
    Path path = edited_tokenizer(&none, 1), config = tmp_path("tokenizer_config.json");
    for (size_t i = 0; i < LENGTH(configs); i++) {
        write_file(config.s, configs[i][0], strlen(configs[i][0]));
        t = tokenizer_load(path.s);
        CHECK(t.bos == atoi(configs[i][1]), "%s: %d", configs[i][0], t.bos);
        tokenizer_free(&t);
    }
    const char *wrong = "{\"add_bos_token\": true, \"bos_token\": \"<s>\"}";
    write_file(config.s, wrong, strlen(wrong));
    CHECK(cli("tokenize --tokenizer %s", path.s) == 1 && strstr(cli_err, "bos_token is \"<s>\""),
          "%s", cli_err);
    unlink(config.s);
}

/* Qwen3's template: every line of a file of {"messages", ..., "prompt"} through the command. */
static void check_chat(const char *path)
{
    size_t n, offset = 0;
    int line = 0;
    char *text = read_file(path, &n), *out = cli_out;
    int status = cli_in(text, "tokenize --tokenizer tests/tok/qwen3mini512 --template qwen3");
    CHECK(status == 0, "%s: %s", path, cli_err);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Buf key = {0}, expected = {0}, prompt = {0};
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "prompt"))
                json_string(&j, &expected);
            else
                json_skip(&j);
        char *end = strchr(out, '\n');
        Json mine = json_open(out, end ? (size_t)(end - out) : 0);
        for (json_object(&mine); json_key(&mine, &key);)
            if (!strcmp(key.s, "prompt"))
                json_string(&mine, &prompt);
            else
                json_skip(&mine);
        CHECK(json_end(&mine) && prompt.s && !strcmp(prompt.s, expected.s), "%s: line %d: %s", path,
              line, prompt.s ? prompt.s : "nothing");
        out = end ? end + 1 : out;
        buf_free(&key, &expected, &prompt);
    }
    free(text);
}

static void test_chat(void)
{
    static const Message m[] = {{"user", "q"}, {"tool", "1"}, {"tool", "2"},
                                {"assistant", "<think>\na</think>b<think>c</think>\n\nd\n"},
                                {"user", "<tool_response>3</tool_response>"}, {"assistant", "e"}};
    Path path;
    Buf b = {0};
    chat_render(CHAT_QWEN3, m, 6, true, 0, &b, NULL);
    CHECK(!strcmp(b.s, "<|im_start|>user\nq<|im_end|>\n"
                       "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
                       "<tool_response>\n2\n</tool_response><|im_end|>\n"
                       "<|im_start|>assistant\n<think>\na\n</think>\n\nd\n<|im_end|>\n"
                       "<|im_start|>user\n<tool_response>3</tool_response><|im_end|>\n"
                       "<|im_start|>assistant\n<think>\n\n</think>\n\ne<|im_end|>\n"
                       "<|im_start|>assistant\n<think>\n\n</think>\n\n"), "%s", b.s);
    buf_free(&b);
    static const Message blank[] = {{"system", "\n S \xC2\xA0"}, {"user", " U\x1F"},
                                    {"assistant", " \t"}};
    b = (Buf){0};
    chat_render(CHAT_CHATML, blank, 3, true, 0, &b, NULL);
    CHECK(!strcmp(b.s, "<|im_start|>system\n\n S \xC2\xA0<|im_end|>\n"
                       "<|im_start|>user\n U\x1F<|im_end|>\n"
                       "<|im_start|>assistant\n \t<|im_end|>\n<|im_start|>assistant\n"), "%s", b.s);
    b.n = 0;
    chat_render(CHAT_LLAMA3, blank, 3, false, -1, &b, NULL);
    CHECK(!strcmp(b.s, "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
                       "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
                       "<|start_header_id|>assistant<|end_header_id|>\n\n<|eot_id|>"), "%s", b.s);
    buf_free(&b);
    check_chat("tests/tok/qwen3mini512/chat.jsonl");
    if (shared_dir(&path, "tok/qwen3/chat_template.jsonl"))
        check_chat(path.s);
    else
        skip("../shared/data/tok is not there");
}

/* The command: lines in, lines out, either way; what it cannot take. */
static void test_tokenize(void)
{
    const char *dir = "tests/tok/qwen3mini512";
    CHECK(cli_in("{\"text\": \"in\\u0000 in\"}\n\n{\"text\": \"\"}\n", "tokenize --tokenizer %s",
                 dir) == 0, "%s", cli_err);
    CHECK(!strcmp(cli_out, "{\"input_ids\": [258, 188, 304]}\n{\"input_ids\": []}\n"), "%s",
          cli_out);
    CHECK(cli_in("{\"ids\": [258, 188, 510, 486, 127]}\n{\"input_ids\": []}\n",
                 "tokenize --tokenizer %s/tokenizer.json --decode", dir) == 0, "%s", cli_err);
    CHECK(!strcmp(cli_out, "{\"text\": \"in\\u0000<think><|endoftext|>\xEF\xBF\xBD\"}\n"
                           "{\"text\": \"\"}\n"), "%s", cli_out);
    cli_in("{\"ids\": [510, 486, 258]}\n", "tokenize --tokenizer %s --decode --skip-special", dir);
    CHECK(!strcmp(cli_out, "{\"text\": \"<think>in\"}\n"), "%s", cli_out);
    const char *turns = "{\"messages\": [{\"role\": \"user\", \"content\": \" in\"}], "
                        "\"add_generation_prompt\": true}\n";
    cli_in(turns, "tokenize --tokenizer %s --template chatml", dir);
    CHECK(strstr(cli_out, "{\"prompt\": \"<|im_start|>user\\n in<|im_end|>\\n<|im_start|>assistant"
                          "\\n\", \"input_ids\": [487, "), "%s", cli_out);
    cli_in(turns, "tokenize --tokenizer %s --template llama3", dir);
    CHECK(strstr(cli_out, "{\"prompt\": \"<|begin_of_text|><|start_header_id|>user<|end_header_id|>"
                          "\\n\\nin<|eot_id|><|start_header_id|>assistant"), "%s", cli_out);
    static const char *const bad[][3] = {
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"1\"}]}", "--template chatml",
         "messages: role tool"},
        {"{\"ids\": [1]}", "", "expected text"},
        {"{\"text\": \"a\"}", "--decode", "expected input_ids"},
        {"{\"text\": \"a\"} 1", "", "line 1"},
        {"{\"ids\": [-1]}", "--decode", "-1"},
        {"{\"messages\": []}", "--template qwen3", "expected messages, with role"},
        {"{\"messages\": [{\"role\": \"user\"}]}", "--template qwen3", "content"},
        {"{\"messages\": [{\"role\": \"me\", \"content\": \"\"}]}", "--template qwen3", "role"},
        {"{\"messages\": [{\"tool_calls\": []}]}", "--template qwen3", "tool_calls"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"\"}], \"tools\": []}",
         "--template qwen3", "tools"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"\\u0000\"}]}", "--template qwen3",
         "u0000"},
    };
    for (size_t i = 0; i < LENGTH(bad); i++)
        CHECK(cli_in(bad[i][0], "tokenize --tokenizer %s %s", dir, bad[i][1]) == 1 &&
                  strstr(cli_err, "line 1") && strstr(cli_err, bad[i][2]), "%s: %s", bad[i][0],
              cli_err);
    CHECK(cli("tokenize") == 2 && strstr(cli_err, "--tokenizer is missing"), "%s", cli_err);
    CHECK(cli("tokenize --tokenizer %s --template x", dir) == 2 && strstr(cli_err, "qwen3"), "%s",
          cli_err);
    CHECK(cli("tokenize --tokenizer /nonexistent") == 1 && strstr(cli_err, "/nonexistent"), "%s",
          cli_err);
}

/* A tokenizer with more ids than the model has rows: refused wherever a text becomes ids. */
static void test_foreign_tokenizer(void)
{
    static const char *const commands[] = {"score", "sample --prompt in", "explain --data"};
    const char *group =
        "{\"prompt\": \"in\", \"responses\": [\"in\", \"out\"], \"rewards\": [1, 0]}\n";
    Path run = tmp_path("foreign"), data = put_file("foreign.jsonl", group);
    CHECK(cli("sft --preset nano --steps 0 --out %s", run.s) == 0, "%s", cli_err);
    copy_file("tests/tok/qwen3mini512/tokenizer.json",
              path_join(run.s, "checkpoint-0/tokenizer.json").s);
    for (int i = 0; i < 3; i++)
        CHECK(cli_in("{\"text\": \"in in\"}\n", "%s %s --model %s", commands[i],
                     i == 2 ? data.s : "", run.s) == 1 && strstr(cli_err, "vocab_size"),
              "%s: %s%s", commands[i], cli_out, cli_err);
}

/* A model with a BPE tokenizer: its files go with its checkpoints; stories260k tells its story. */
static void test_bpe_model(void)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    static const char *const config = "{\"add_bos_token\": true, \"bos_token\": \"<think>\"}";
    static const Edit none = MEMBER("post_processor", "{", "null");
    Path dir = tmp_path("bpe"), path, edited = edited_tokenizer(&none, 1);
    size_t n, m;
    make_dirs(dir.s);
    for (size_t i = 0; i < LENGTH(files); i++)
        copy_file(path_join("tests/models/q3_tied_f32", files[i]).s, path_join(dir.s, files[i]).s);
    copy_file(edited.s, path_join(dir.s, "tokenizer.json").s);
    write_file(path_join(dir.s, "tokenizer_config.json").s, config, strlen(config));
    CHECK(cli("sft --model %s --steps 0 --out %s/bpe-run", dir.s, tmp_dir()) == 0, "%s", cli_err);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "tokenizer.json" : "tokenizer_config.json";
        char *a = read_file(path_join(dir.s, name).s, &n);
        char *b = read_file(path_join(tmp_path("bpe-run/checkpoint-0").s, name).s, &m);
        CHECK(n == m && !memcmp(a, b, n), "%s is not the one the run began with", name);
        free(a);
        free(b);
    }
    CHECK(cli_in("{\"text\": \"in in\"}", "score --model %s", dir.s) == 0 &&
              strstr(cli_out, "\"input_ids\": [510, 258, 304]"), "%s%s", cli_out, cli_err);
    if (!shared_dir(&path, "models/stories260k") ||
        !shared_dir(&dir, "oracle/stories260k.greedy.jsonl")) {
        skip("../shared/data/models/stories260k is not there");
        return;
    }
    char *text = read_file(dir.s, &n);
    size_t offset = 0;
    int line = 0;
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Buf key = {0}, prompt = {0}, story = {0};
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "prompt") || !strcmp(key.s, "text"))
                json_string(&j, key.s[0] == 'p' ? &prompt : &story);
            else
                json_skip(&j);
        Buf at = {0};
        buf_printf(&at, "--prompt %s\n", prompt.s);
        write_file(tmp_path("at").s, at.s, at.n);
        CHECK(cli("sample --model %s --temperature 0 --max-tokens 64 @%s", path.s,
                  tmp_path("at").s) == 0, "%s", cli_err);
        /* The story's text leaves out the space that every text begins with. */
        const char *told = cli_out + (prompt.n == 0);
        CHECK(!strncmp(story.s, prompt.s, prompt.n) &&
                  !strncmp(told, story.s + prompt.n, story.n - prompt.n) &&
                  !strcmp(told + story.n - prompt.n, "\n"), "'%s' goes on '%s'", prompt.s, cli_out);
        buf_free(&at, &key, &prompt, &story);
    }
    free(text);
}

#endif
