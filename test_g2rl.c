/* test_g2rl.c: every test, in one table.
 *
 *   ./test_g2rl               runs them all
 *   ./test_g2rl WORD...       those whose name contains one of the words, or is it (=WORD)
 *   ./test_g2rl --list        names and descriptions
 *
 * The program is included with its main hidden, so tests reach every function and drive commands
 * as a user would (cli, below, runs one in a process of its own). Vectors that nobody here wrote
 * lie in data/; more of them, in ../shared/data, are used where that folder exists, and each test
 * that misses them says so. Tolerances are relative to the norm of what is compared. The exit
 * status is 1 if anything failed. That each test can fail is tested too: see data/mutants.txt. */
#define G2RL_TEST
#include "g2rl.c"

#include <ctype.h>
#include <sys/wait.h>

static int n_checks, n_failures, n_skips;

/* Counts a check; prints the first few failures of each test. */
static bool checked(bool good, const char *file, int line, const char *fmt, ...) PRINTF_LIKE(4, 5);
static bool checked(bool good, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    n_checks++;
    if (good || ++n_failures > 8)
        return good;
    printf("    %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    return good;
}
#define CHECK(good, ...) checked(good, __FILE__, __LINE__, __VA_ARGS__)

static void skip(const char *why)
{
    printf("    skipped: %s\n", why);
    n_skips++;
}

/* A directory for this run's files, removed at the end. */
static const char *tmp_dir(void)
{
    static char path[64];
    if (!path[0]) {
        strcpy(path, "/tmp/test_g2rl_XXXXXX");
        if (!mkdtemp(path))
            die("%s: %s", path, strerror(errno));
    }
    return path;
}

static void copy_file(const char *from, const char *to)
{
    size_t n;
    char *text = read_file(from, &n);
    write_file(to, text, n);
    free(text);
}

static Path tmp_path(const char *name) { return path_join(tmp_dir(), name); }

/* Writes a file of this run, and gives its path. */
static Path put_file(const char *name, const char *text)
{
    Path p = tmp_path(name);
    write_file(p.s, text, strlen(text));
    return p;
}

/* ../shared/data/<below>, if it is there. */
static bool shared_dir(Path *p, const char *below)
{
    *p = path_join("../shared/data", below);
    return is_dir(p->s) || is_file(p->s);
}

/* A file of data/, or else of ../shared/data. */
static bool vectors(Path *p, const char *below)
{
    *p = path_join("data", below);
    return is_dir(p->s) || is_file(p->s) || shared_dir(p, below);
}

/* Reads a pipe's end into text. */
static void drain(FILE *f, char *out, size_t capacity)
{
    rewind(f);
    size_t n = fread(out, 1, capacity - 1, f);
    out[n] = 0;
    fclose(f);
}

/* Runs f in a process of its own; returns its exit status (or -1 for a signal) and what it wrote to
 * stderr and stdout. */
static int in_child(void (*f)(void *), void *argument, const char *input, char *out,
                    size_t out_capacity, char *err, size_t err_capacity)
{
    FILE *files[3] = {tmpfile(), tmpfile(), tmpfile()};
    int status;
    fflush(stdout);
    fputs(input, files[0]);
    rewind(files[0]);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++)
            dup2(fileno(files[i]), i);
        f(argument);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    fclose(files[0]);
    drain(files[1], out, out_capacity);
    drain(files[2], err, err_capacity);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Without what LeakSanitizer says of threads that a fork does not have. */
static int dies(void (*f)(void *), void *argument, char *err, size_t capacity)
{
    char out[256];
    int status = in_child(f, argument, "", out, sizeof out, err, capacity);
    char *remark = strstr(err, "\n==");
    if (remark && strstr(remark, "was not suspended"))
        remark[1] = 0;
    return status;
}

/* A command line, as one string of words. */
typedef struct {
    char text[4096];
    int argc;
    char *argv[128];
} Words128;

static const char *self; /* this program's path */

/* This program again, as g2rl: a fork alone would be without OpenMP's threads. */
static void cli_child(void *argument)
{
    Words128 *w = argument;
    execv(self, w->argv);
    _exit(127);
}

/* The words of `g2rl <words>`, for this program. */
static void cut_words(Words128 *w, const char *fmt, va_list ap)
{
    w->argc = 2;
    w->argv[0] = (char *)self;
    w->argv[1] = (char *)"--cli";
    vsnprintf(w->text, sizeof w->text, fmt, ap);
    for (char *word = strtok(w->text, " "); word; word = strtok(NULL, " "))
        w->argv[w->argc++] = word;
    w->argv[w->argc] = NULL;
}

enum { CLI_TEXT = 1 << 20 };
static char cli_out[CLI_TEXT], cli_err[CLI_TEXT];

/* Runs `g2rl <words>` on `input`; what it printed is in cli_out and cli_err. */
static int cli_in(const char *input, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int cli_in(const char *input, const char *fmt, ...)
{
    Words128 w;
    va_list ap;
    va_start(ap, fmt);
    cut_words(&w, fmt, ap);
    va_end(ap);
    return in_child(cli_child, &w, input, cli_out, sizeof cli_out, cli_err, sizeof cli_err);
}
#define cli(...) cli_in("", __VA_ARGS__)

/* |a - b| / |b| in the Euclidean norm; NaN, which passes no CHECK(error < limit), if b is all 0. */
static double relative_error(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference) / sqrt(norm);
}

/* NaN if any difference is (fmax would lose it). */
static double largest_error(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n && !isnan(largest); i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        largest = error <= largest ? largest : error;
    }
    return largest;
}

/* The values of one tensor of a file; the caller frees them. */
static float *tensor_values(const SafeTensors *st, const char *name, size_t *count)
{
    const StTensor *t = st_find(st, name);
    if (!t)
        die("%s: no tensor %s", st->path, name);
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    float *x = xmalloc(n * sizeof(float));
    st_read_f32(t, x);
    if (count)
        *count = n;
    return x;
}

/* Finds "name": number in a line of JSON. */
static double field(const char *text, const char *name)
{
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = strstr(text, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : (double)NAN;
}

/* ================================================================ files and tasks */

/* ---------------------------------------------------------------- json.h */

/* A copy of exactly n bytes, so that AddressSanitizer sees the first byte read beyond them. */
static char *exact(const char *text, size_t n)
{
    char *copy = xmalloc(n);
    return n ? memcpy(copy, text, n) : copy;
}

static bool json_accepts(const char *text, size_t n)
{
    char *copy = exact(text, n);
    Json j = json_open(copy, n);
    bool good = json_skip(&j) && json_end(&j);
    CHECK(good == !j.error, "error says '%s' for %.60s", j.error ? j.error : "nothing", text);
    free(copy);
    return good;
}

static void test_json_grammar(void)
{
    static const char *const good[] = {
        "0", " -0 ", "12", "1.5", "-0.5e+10", "1E-2", "1e400", "true", "false", "null", "\"\"",
        "[]", "{}", "[1]", " [ 1 , [ ] , { } ] ", "{\"a\":1,\"a\":[2]}", "\r\n\t[\n1]",
    };
    static const char *const bad[] = {
        "", " ", "01", "-", "+1", ".5", "1.", "1.e2", "1e", "1e+", "0x10", "1 2", "NaN", "Infinity",
        "-Infinity", "nul", "nulll", "True", "truefalse", "[", "]", "[1", "[1,", "[1,]", "[,1]",
        "[,]", "[1 2]", "[1,,2]", "{", "}", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{,}",
        "{\"a\":1,}", "{\"a\" 1}", "{\"a\"=1}", "{a:1}", "{1:1}", "{'a':1}",
        "{\"a\":1 \"b\":2}", "{\"a\":}", "[1}", "{\"a\":1]", "[]]", "// c\n1", "/**/1",
        "\xEF\xBB\xBF[]", "\"a", "\"\\\"", "'a'",
        "[\f1]", "[1\v]", "\xC2\xA0[]",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(json_accepts(good[i], strlen(good[i])), "refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!json_accepts(bad[i], strlen(bad[i])), "accepted: %s", bad[i]);
    CHECK(!json_accepts("[]\0", 3), "accepted a NUL after the value");
    CHECK(!json_accepts(NULL, 0), "accepted no text at all");

    /* Every beginning of a good text is bad, and is not read beyond. */
    const char *text = "{\"k\": [1.5e3, -2, \"\\ud83d\\ude00 \xF0\x9F\x98\x80\", true, null, {}]}";
    for (size_t n = 0; n < strlen(text); n++)
        CHECK(!json_accepts(text, n), "accepted the first %zu bytes of %s", n, text);
    CHECK(json_accepts(text, strlen(text)), "refused %s", text);
}

static void test_json_depth(void)
{
    enum { LONG = 200000 };
    char *text = xmalloc(LONG);
    for (int depth = 63; depth <= 66; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        CHECK(json_accepts(text, 2 * (size_t)depth) == (depth <= 64), "depth %d", depth);
    }
    memset(text, '[', LONG);
    CHECK(!json_accepts(text, LONG), "accepted 200000 open brackets");
    for (int i = 0; i + 5 <= LONG; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    CHECK(!json_accepts(text, LONG), "accepted 40000 open braces");
    free(text);
}

static void test_json_strings(void)
{
    static const struct {
        const char *json, *text; /* NULL: refused */
    } cases[] = {
        {"\"\"", ""},
        {"\"a b\"", "a b"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\\uFFFF\"", "A\xC3\xA9\xE2\x82\xAC\xEF\xBF\xBF"},
        {"\"\\ud83d\\ude00\\uDBFF\\uDFFF\"", "\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF"},
        {"\"\xC2\x80\xE2\x82\xAC\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\x7F\"",
         "\xC2\x80\xE2\x82\xAC\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\x7F"},
        /* escapes: unknown, unfinished, half of a pair, NUL */
        {"\"\\x41\"", NULL}, {"\"\\a\"", NULL}, {"\"\\U0041\"", NULL}, {"\"\\u004\"", NULL},
        {"\"\\u004g\"", NULL}, {"\"\\u 041\"", NULL}, {"\"\\u+041\"", NULL}, {"\"\\ud800\"", NULL},
        {"\"\\udc00\"", NULL}, {"\"\\ud800\\ud800\"", NULL}, {"\"\\ud800x\"", NULL},
        {"\"\\ud800\\ue000\"", NULL}, {"\"\\udc00\\udc00\"", NULL},
        {"\"\\ud800\\n\"", NULL}, {"\"\\ude00\\ud83d\"", NULL}, {"\"\\u0000\"", NULL},
        {"\"\\\"", NULL}, {"\"\\u", NULL},
        /* raw control characters */
        {"\"\n\"", NULL}, {"\"\t\"", NULL}, {"\"\x1F\"", NULL},
        /* not UTF-8: stray, cut, overlong, surrogate, beyond U+10FFFF */
        {"\"\x80\"", NULL}, {"\"\xBF\"", NULL}, {"\"\xC3\"", NULL}, {"\"\xE2\x82\"", NULL},
        {"\"\xF0\x9F\x98\"", NULL}, {"\"\xC0\x80\"", NULL}, {"\"\xC1\xBF\"", NULL},
        {"\"\xE0\x9F\xBF\"", NULL}, {"\"\xF0\x8F\xBF\xBF\"", NULL}, {"\"\xED\xA0\x80\"", NULL},
        {"\"\xED\xBF\xBF\"", NULL}, {"\"\xF4\x90\x80\x80\"", NULL}, {"\"\xF5\x80\x80\x80\"", NULL},
        {"\"\xFF\"", NULL},
    };
    Buf out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *want = cases[i].text;
        Json j = json_open(cases[i].json, strlen(cases[i].json));
        bool good = json_string(&j, &out) && json_end(&j);
        CHECK(good == (want != NULL), "%s: %s", cases[i].json, good ? "accepted" : j.error);
        CHECK(!want || (out.n == strlen(want) && !strcmp(out.s, want)), "%s became '%s'",
              cases[i].json, out.s);
    }
    CHECK(!json_accepts("\"a\0b\"", 5), "accepted a raw NUL in a string");
    buf_free(&out);
}

static void test_json_numbers(void)
{
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } ints[] = {
        {"0", true, 0}, {"-0", true, 0}, {"7", true, 7}, {"-15", true, -15},
        {"9223372036854775807", true, INT64_MAX}, {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0}, {"-9223372036854775809", false, 0},
        {"18446744073709551617", false, 0}, {"99999999999999999999999", false, 0},
        {"1.0", false, 0}, {"1e3", false, 0}, {"01", false, 0}, {"\"1\"", false, 0},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        Json j = json_open(ints[i].text, strlen(ints[i].text));
        int64_t x = 4711;
        bool good = json_int(&j, &x) && json_end(&j);
        CHECK(good == ints[i].good, "integer %s: %s", ints[i].text, good ? "accepted" : j.error);
        CHECK(x == (good ? ints[i].value : 4711), "integer %s became %lld", ints[i].text,
              (long long)x);
    }
    static const struct {
        const char *text;
        bool good;
        double value;
    } numbers[] = {
        {"0", true, 0}, {"-2.5e3", true, -2500}, {"1E+2", true, 100}, {"1e-400", true, 0},
        {"0.1", true, 0.1}, {"1.7976931348623157e308", true, 1.7976931348623157e308},
        {"1e309", false, 0}, {"-1e999", false, 0}, {"NaN", false, 0}, {".1", false, 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        Json j = json_open(numbers[i].text, strlen(numbers[i].text));
        double x = 4711;
        bool good = json_number(&j, &x) && json_end(&j);
        CHECK(good == numbers[i].good, "number %s: %s", numbers[i].text,
              good ? "accepted" : j.error);
        CHECK(x == (good ? numbers[i].value : 4711), "number %s became %g", numbers[i].text, x);
    }
    char digits[1002];
    memset(digits, '1', sizeof digits);
    digits[1] = '.';
    for (size_t n = 1000; n <= 1001; n++) {
        Json j = json_open(digits, n);
        double x = 0;
        CHECK(json_number(&j, &x) == (n == 1000), "a number of %zu characters", n);
    }
}

static void test_json_pulling(void)
{
    const char *text = "{\n\"n\": 3, \"skip\": {\"deep\": [1, {\"x\": []}]},\n"
                       "\"list\": [true, null, \"s\", 1.5],\n\"bad\": tru, \"after\": 1}";
    Json j = json_open(text, strlen(text));
    Buf key = {0}, s = {0};
    int64_t n = 0;
    double x = 0;
    bool truth = false;
    CHECK(json_peek(&j) == '{' && json_object(&j), "no object");
    CHECK(json_key(&j, &key) && !strcmp(key.s, "n") && json_int(&j, &n) && n == 3, "n is %lld",
          (long long)n);
    CHECK(json_key(&j, &key) && !strcmp(key.s, "skip") && json_skip(&j), "skip: %s", j.error);
    CHECK(json_key(&j, &key) && !strcmp(key.s, "list") && json_array(&j), "list: %s", j.error);
    CHECK(json_item(&j) && json_peek(&j) == 't' && json_bool(&j, &truth) && truth, "item 0");
    CHECK(json_item(&j) && json_peek(&j) == 'n' && json_null(&j), "item 1");
    CHECK(json_item(&j) && json_peek(&j) == '"' && json_string(&j, &s) && s.s[0] == 's', "item 2");
    CHECK(json_item(&j) && json_peek(&j) == '0' && json_number(&j, &x) && x == 1.5, "item 3");
    CHECK(!json_item(&j) && !j.error, "an item too many");
    CHECK(json_key(&j, &key) && !strcmp(key.s, "bad") && json_line(&j) == 4, "line %d",
          json_line(&j));
    CHECK(!json_bool(&j, &truth) && j.error, "'tru' accepted");

    /* The first error stays, and nothing moves any more. */
    const char *error = j.error, *p = j.p;
    CHECK(!json_key(&j, &key) && !json_item(&j) && !json_object(&j) && !json_array(&j) &&
              !json_string(&j, &s) && !json_int(&j, &n) && !json_number(&j, &x) &&
              !json_bool(&j, &truth) && !json_null(&j) && !json_skip(&j) && !json_end(&j) &&
              json_peek(&j) == 0, "something succeeded after an error");
    CHECK(j.error == error && j.p == p && json_line(&j) == 4 && n == 3 && x == 1.5 && truth,
          "an error did not stick: %s, line %d", j.error, json_line(&j));

    /* A caller that asks for the wrong thing gets an error, not a crash. */
    Json outside = json_open("1", 1), array = json_open("[1]", 3), object = json_open("{}", 2);
    CHECK(!json_key(&outside, &key) && outside.error, "a key outside of an object");
    CHECK(json_array(&array) && !json_key(&array, &key) && array.error, "a key in an array");
    CHECK(json_object(&object) && !json_item(&object) && object.error, "an item in an object");
    Json comma = json_open("[1,]", 4);
    CHECK(json_array(&comma) && json_item(&comma) && json_int(&comma, &n) && !json_item(&comma) &&
              comma.error, "an item after a trailing comma");
    Json open = json_open("[", 1);
    CHECK(json_array(&open) && !json_end(&open), "an end inside of an array");
    Json unread = json_open("[1,2]", 5);
    CHECK(json_array(&unread) && json_item(&unread) && !json_item(&unread) && unread.error,
          "an item that was not read was passed over");
    buf_free(&key);
    buf_free(&s);
}

static void check_number_returns(double x)
{
    Buf b = {0};
    double back = 0;
    json_put_number(&b, x);
    Json j = json_open(b.s, b.n);
    CHECK(json_number(&j, &back) && json_end(&j), "wrote %s: %s", b.s,
          j.error ? j.error : "");
    bool is_float = fabs(x) <= (double)FLT_MAX && x == (double)(float)x;
    CHECK(is_float ? (float)back == (float)x : back == x, "%.17g was written as %s", x, b.s);
    CHECK(signbit(back) == signbit(x), "%.17g lost its sign: %s", x, b.s);
    buf_free(&b);
}

static void test_json_writer(void)
{
    static const struct {
        double x;
        const char *text;
    } numbers[] = {
        {0, "0"}, {-0.0, "-0"}, {1, "1"}, {-3, "-3"}, {0.1, "0.1"}, {0.001, "0.001"},
        {1e9, "1000000000"}, {1234567936, "1234567936"}, {(double)0.1f, "0.100000001"},
        {1.0 / 3, "0.33333333333333331"}, {1e300, "1e+300"}, {(double)NAN, "null"},
        {-(double)INFINITY, "null"},
    };
    Buf b = {0}, back = {0};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        b.n = 0;
        json_put_number(&b, numbers[i].x);
        CHECK(!strcmp(b.s, numbers[i].text), "%.17g was written as %s", numbers[i].x, b.s);
    }
    for (uint32_t i = 0; i < 20000; i++) {
        Random r = philox(1, STREAM_DATA, i, 0, 0, 0);
        double x;
        float f;
        memcpy(&x, r.r, sizeof x);
        memcpy(&f, r.r + 2, sizeof f);
        check_number_returns(isfinite(x) ? x : 0);
        check_number_returns(isfinite(f) ? (double)f : 0);
    }

    /* Every code point but NUL and the surrogates comes back. */
    Buf all = {0};
    for (uint32_t c = 1; c < 0x110000; c += c == 0xD7FF ? 0x801 : 1)
        utf8_encode(&all, c);
    b.n = 0;
    json_put_string(&b, all.s, all.n);
    Json j = json_open(b.s, b.n);
    CHECK(json_string(&j, &back) && json_end(&j), "code points: %s",
          j.error ? j.error : "");
    CHECK(back.n == all.n && !memcmp(back.s, all.s, all.n), "code points changed on the way");

    /* What is not UTF-8 becomes U+FFFD, one for each longest beginning of a character. */
    static const struct {
        const char *bytes, *text;
    } broken[] = {
        {"a\xFFz", "\"a?z\""}, {"\xE2\x82", "\"?\""}, {"\xE2\x82z", "\"?z\""},
        {"\xF0\x9F\x98\xF0", "\"??\""}, {"\xC0\xAF", "\"??\""}, {"\xED\xA0\x80", "\"???\""},
        {"\xF4\x90\x80\x80", "\"????\""}, {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF", "\"????\""},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        b.n = back.n = 0;
        json_put_string(&b, broken[i].bytes, strlen(broken[i].bytes));
        for (const char *c = broken[i].text; *c; c++)
            *c == '?' ? buf_str(&back, "\xEF\xBF\xBD") : buf_add(&back, c, 1);
        CHECK(!strcmp(b.s, back.s), "case %zu: %s; expected %s", i, b.s, back.s);
    }
    b.n = 0;
    json_put_string(&b, "\"\\\n\t\x01\0</", 8);
    CHECK(!strcmp(b.s, "\"\\\"\\\\\\n\\u0009\\u0001\\u0000</\""), "escapes: %s", b.s);
    buf_free(&all);
    buf_free(&b);
    buf_free(&back);
}

/* ---------------------------------------------------------------- safetensors.h */

static void put_safetensors(const char *path, const char *header, const void *data, size_t bytes)
{
    Buf b = {0};
    uint64_t length = strlen(header);
    buf_add(&b, &length, 8);
    buf_str(&b, header);
    buf_add(&b, data, bytes);
    write_file(path, b.s, b.n);
    buf_free(&b);
}

static void test_safetensors_round_trip(void)
{
    enum { N = 3 * 5 * 7 };
    Path path = path_join(tmp_dir(), "round.safetensors");
    float x[N], back[N], one = -0.0f;
    for (uint32_t i = 0; i < N; i++) /* any bits: subnormals, infinities, NaN with a payload */
        memcpy(&x[i], philox(7, STREAM_DATA, i, 0, 0, 0).r, sizeof x[i]);
    StOut out[] = {
        {"z.last \"name\" \xC3\xA9 %s%n", 3, {3, 5, 7}, x, ST_F32},
        {"scalar", 0, {0}, &one, ST_F32},
        {"none", 2, {0, 4}, NULL, ST_F32},
        {"a", 1, {5}, x + 1, ST_F32},
    };
    st_write(path.s, "", out, 4);
    SafeTensors st = st_open_file(path.s);
    CHECK(st.n == 4, "%d tensors; expected 4", st.n);
    for (int i = 0; i < 4; i++) {
        const StTensor *t = st_need(&st, out[i].name, out[i].rank, out[i].shape);
        size_t bytes = sizeof(float) * st_count(&out[i]);
        CHECK(t->dtype == ST_F32 && t->bytes == bytes, "%s: %zu bytes", t->name, t->bytes);
        CHECK((size_t)(t->data - st.files[0].bytes) % 4 == 0, "%s is not aligned", t->name);
        st_read_f32(t, back);
        CHECK(!bytes || !memcmp(back, out[i].data, bytes), "%s changed on the way", t->name);
    }
    CHECK(!st_find(&st, "b") && !st_find(&st, "") && !st_find(&st, "__metadata__"),
          "found a tensor that is not there");
    st_close(&st);

    /* The same bytes at every writing; the header's length is a multiple of 8. */
    for (int tensors = 1; tensors <= 4; tensors++) {
        size_t n, n2;
        uint64_t header;
        st_write(path.s, "", out, tensors);
        char *first = read_file(path.s, &n);
        st_write(path.s, "", out, tensors);
        char *second = read_file(path.s, &n2);
        memcpy(&header, first, 8);
        CHECK(n == n2 && !memcmp(first, second, n), "two writings differ");
        CHECK(header % 8 == 0, "a header of %d bytes; expected a multiple of 8", (int)header);
        CHECK(strstr(first + 8, "{\"__metadata__\":{\"format\":\"pt\"},"), "%s", first + 8);
        free(first);
        free(second);
    }
}

/* value = (-1)^sign * 2^(exponent - bias) * 1.fraction, by ldexp in double. */
static double half_value(unsigned bits, int fraction_bits, int bias)
{
    int top = (1 << (15 - fraction_bits)) - 1;
    int exponent = (int)(bits >> fraction_bits) & top;
    int fraction = (int)bits & ((1 << fraction_bits) - 1);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == top)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

static void test_safetensors_halves(void)
{
    enum { N = 65536 };
    static const char header[] = /* of an odd length: the data is unaligned */
        "{\"h\":{\"dtype\":\"F16\",\"shape\":[65536],\"data_offsets\":[0,131072]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[256,256],\"data_offsets\":[131072,262144]}}";
    Path path = path_join(tmp_dir(), "halves.safetensors");
    uint16_t *bits = xmalloc(2 * N * sizeof *bits);
    float *values = xmalloc(N * sizeof *values);
    for (int i = 0; i < 2 * N; i++)
        bits[i] = (uint16_t)i;
    put_safetensors(path.s, header, bits, 2 * N * sizeof *bits);
    SafeTensors st = st_open_file(path.s);
    CHECK((uintptr_t)st.tensors[0].data % 2 == 1, "the data is aligned; expected it not to be");
    for (int kind = 0; kind < 2; kind++) {
        int wrong = 0;
        st_read_f32(st_find(&st, kind ? "b" : "h"), values);
        for (unsigned i = 0; i < N; i++) {
            double want = kind ? half_value(i, 7, 127) : half_value(i, 10, 15);
            double have = (double)values[i];
            bool same = have == want && !signbit(have) == !signbit(want);
            wrong += isnan(want) ? !isnan(have) : !same;
        }
        CHECK(wrong == 0, "%s: %d of 65536 values are wrong", kind ? "BF16" : "F16", wrong);
    }
    st_close(&st);
    free(bits);
    free(values);
}

/* Every value of a 16-bit format comes back to its own bits; between two neighbours lies a middle
 * that goes to the even one of them, and whatever is nearer to one goes there. */
static void test_safetensors_rounding(void)
{
    for (int kind = 0; kind < 2; kind++) {
        uint16_t (*convert)(float) = kind ? st_float_to_bf16 : st_float_to_f16;
        const char *name = kind ? "BF16" : "F16";
        unsigned infinity = kind ? 0x7F80 : 0x7C00;
        int wrong[4] = {0};
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000)
            for (unsigned i = 0; i < infinity; i++) {
                double x = half_value(sign | i, kind ? 7 : 10, kind ? 127 : 15);
                double y = i + 1 < infinity ? half_value(sign | (i + 1), kind ? 7 : 10,
                                                         kind ? 127 : 15)
                                            : (sign ? -1 : 1) * ldexp(1, kind ? 128 : 16);
                float middle = (float)((x + y) / 2);
                unsigned even = i % 2 ? i + 1 : i;
                wrong[0] += convert((float)x) != (sign | i);
                wrong[1] += convert(middle) != (sign | even);
                wrong[2] += convert(nextafterf(middle, (float)x)) != (sign | i);
                wrong[3] += convert(nextafterf(middle, (float)y)) != (sign | (i + 1));
            }
        CHECK(wrong[0] == 0, "%s: %d values change", name, wrong[0]);
        CHECK(wrong[1] == 0, "%s: %d middles do not go to the even neighbour", name, wrong[1]);
        CHECK(wrong[2] + wrong[3] == 0, "%s: %d + %d values do not go to the nearer one", name,
              wrong[2], wrong[3]);
        for (uint32_t bits = 0x7F800001; bits != 0; bits = bits << 1 & 0x7FFFFF ?
             0x7F800000 | (bits << 1 & 0x7FFFFF) : 0) { /* NaN, each single bit */
            float nan;
            memcpy(&nan, &bits, 4);
            CHECK(isnan(st_round(nan, kind ? ST_BF16 : ST_F16)), "%s: NaN %x is lost", name, bits);
        }
        CHECK(convert(HUGE_VALF) == infinity && convert(-HUGE_VALF) == (0x8000 | infinity),
              "%s: infinity", name);
    }
    CHECK(st_round(0.1f, ST_F32) == 0.1f, "F32 rounds");
    CHECK(isinf(st_round(65536, ST_F16)) && isinf(st_round(-1e9f, ST_F16)) &&
              isinf(st_round(FLT_MAX, ST_F16)), "F16 beyond its range");
}

/* Mixed dtypes in one file: each tensor comes back as its dtype holds it, all of them aligned. */
static void test_safetensors_mixed(void)
{
    enum { N = 5001 }; /* odd, and more than one buffer of halves */
    static const int dtypes[] = {ST_BF16, ST_F32, ST_F16, ST_F32};
    static const char *const names[] = {"d", "c", "b", "a"};
    Path path = path_join(tmp_dir(), "mixed.safetensors");
    float *x = xmalloc(N * sizeof *x), *back = xmalloc(N * sizeof *back);
    StOut out[4];
    for (int i = 0; i < N; i++)
        x[i] = 2 * normal(philox(7, STREAM_DATA, (uint32_t)i, 0, 0, 0));
    for (int i = 0; i < 4; i++)
        out[i] = (StOut){names[i], 1, {N}, x, dtypes[i]};
    st_write(path.s, "", out, 4);
    SafeTensors st = st_open_file(path.s);
    for (int i = 0; i < 4; i++) {
        const StTensor *t = st_need(&st, names[i], 1, (int64_t[]){N});
        int wrong = 0;
        CHECK(t->dtype == dtypes[i], "%s has dtype %s", names[i], st_dtypes[t->dtype].name);
        CHECK((uintptr_t)t->data % (uintptr_t)st_dtypes[t->dtype].size == 0, "%s is not aligned",
              names[i]);
        st_read_f32(t, back);
        st_release(t, 0, N); /* changes nothing that is read after it */
        st_read_part(t, 1000, N - 1000, back + 1000);
        for (int k = 0; k < N; k++)
            wrong += back[k] != st_round(x[k], dtypes[i]);
        CHECK(wrong == 0, "%s: %d values are wrong", names[i], wrong);
    }
    st_close(&st);
    free(x);
    free(back);
}

static void open_file(void *path)
{
    SafeTensors st = st_open_file(path);
    st_close(&st);
}

static void open_dir(void *path)
{
    SafeTensors st = st_open_dir(path);
    st_close(&st);
}

/* It ends with status 1 and one line that holds the path and the words. */
static void check_refused(void (*open_it)(void *), Path path, const char *words, const char *what)
{
    char message[2048];
    int status = dies(open_it, path.s, message, sizeof message);
    const char *newline = strchr(message, '\n');
    CHECK(status == 1, "%s: status %d; expected 1", what, status);
    CHECK(strstr(message, path.s) && strstr(message, words), "%s: '%s'; expected %s and '%s'", what,
          message, path.s, words);
    CHECK(newline && !newline[1], "%s: more than one line: %s", what, message);
}

static void test_safetensors_refused(void)
{
#define ENTRY(dtype, shape, offsets) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define T(dtype, shape, offsets) "{\"t\":" ENTRY(dtype, shape, offsets) "}"
    static const struct {
        const char *words, *header; /* over 16 bytes of data */
    } cases[] = {
        {"header", ""}, {"header", "[]"}, {"header", " {}"}, {"header", "{} x"}, {"header", "{"},
        {"header", "{\"__metadata__\":{\"a\":1}}"}, {"header", "{\"__metadata__\":[]}"},
        {"t: data_offsets [0, 17]", T("F32", "[4]", "[0,17]")},
        {"t: data_offsets [0, 20]", T("F32", "[5]", "[0,20]")},
        {"t: data_offsets [16, 20]", T("F32", "[]", "[16,20]")},
        {"t: data_offsets [8, 0]", T("F32", "[4]", "[8,0]")},
        {"t: data_offsets", T("F32", "[4]", "[0]")},
        {"t: data_offsets", T("F32", "[4]", "[0,8,16]")},
        {"t: data_offsets", T("F32", "[4]", "[-16,0]")},
        {"t: data_offsets", T("F32", "[4]", "[0,1e1]")},
        {"t: data_offsets", T("F32", "[4]", "[0,\"16\"]")},
        {"t: data_offsets", T("F32", "[4]", "null")},
        {"t: data_offsets", T("F32", "[4]", "[0,99999999999999999999]")},
        {"t: data_offsets span", T("F32", "[4]", "[0,12]")},
        {"t: data_offsets span", T("BF16", "[4]", "[0,16]")},
        {"t: data_offsets span", T("F32", "[0,4]", "[0,16]")},
        {"t: shape", T("F32", "[-4]", "[0,16]")},
        {"t: shape", T("F32", "[4.0]", "[0,16]")},
        {"t: shape", T("F32", "4", "[0,16]")},
        {"t: shape", T("F32", "[1,1,1,1,1,1,1,1,4]", "[0,16]")},
        {"too large", T("F32", "[4294967296,4294967296]", "[0,16]")},
        {"too large", T("F32", "[4611686018427387905]", "[0,4]")},
        {"t: dtype", T("F33", "[4]", "[0,16]")},
        {"t: dtype", T("f32", "[4]", "[0,16]")},
        {"t: dtype", "{\"t\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,16]}}"},
        {"t: dtype: missing", "{\"t\":{\"shape\":[4],\"data_offsets\":[0,16]}}"},
        {"t: shape: missing", "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}"},
        {"t: data_offsets: missing", "{\"t\":{\"dtype\":\"F32\",\"shape\":[4]}}"},
        {"t: shape: given twice", "{\"t\":{\"shape\":[4],\"shape\":[4]}}"},
        {"t: expected an object", "{\"t\":null}"},
        {"tensor u share", "{\"t\":" ENTRY("F32", "[2]", "[0,8]")
                           ",\"u\":" ENTRY("F32", "[2]", "[7,15]") "}"},
        {"tensor t is there twice", "{\"t\":" ENTRY("F32", "[2]", "[0,8]")
                                    ",\"t\":" ENTRY("F32", "[2]", "[8,16]") "}"},
        {"a?b", "{\"a\\nb\":7}"}, {"%s%n", "{\"%s%n\":7}"},
    };
    Path path = path_join(tmp_dir(), "bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_safetensors(path.s, cases[i].header, "0123456789abcdef", 16);
        check_refused(open_file, path, cases[i].words, cases[i].header);
    }
    static const uint64_t lengths[] = {3, 100000000, 100000001, INT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        Buf b = {0};
        buf_add(&b, &lengths[i], 8);
        buf_str(&b, "{}");
        write_file(path.s, b.s, b.n);
        if (truncate(path.s, i == 2 ? 100000100 : 10)) /* the third would fit */
            CHECK(false, "%s: cannot be extended", path.s);
        check_refused(open_file, path, "bytes; expected 1 to", "header length");
        buf_free(&b);
    }
    Buf name = {0};
    buf_str(&name, "{\"");
    while (name.n < 100000)
        buf_str(&name, "\xC3\xA9");
    buf_str(&name, "\":7}");
    put_safetensors(path.s, name.s, "", 0);
    check_refused(open_file, path, "\xC3\xA9: expected an object", "a name of 100000 bytes");
    buf_free(&name);
    for (size_t n = 0; n < 8; n++) {
        write_file(path.s, "\2\0\0\0\0\0\0", n);
        check_refused(open_file, path, "expected a header length", "a short file");
    }
    check_refused(open_file, path_join(tmp_dir(), "absent"), "cannot be opened", "no file");
    check_refused(open_file, path_join(tmp_dir(), "."), "not a regular file", "a directory");
#undef T
#undef ENTRY
}

static void need_absent(void *st) { st_need(st, "w", 2, (int64_t[]){2, 3}); }
static void need_vector(void *st) { st_need(st, "v", 1, (int64_t[]){2}); }
static void need_transposed(void *st) { st_need(st, "v", 2, (int64_t[]){3, 2}); }
static void read_integers(void *st) { st_read_f32(st_find(st, "i"), (float[6]){0}); }
static void read_floats(void *st) { st_read_i32(st_find(st, "v"), (int32_t[6]){0}); }

static void test_safetensors_need(void)
{
    static const char header[] =
        "{\"v\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32],\"note\":[{}]},"
        "\"none\":{\"dtype\":\"F64\",\"shape\":[7,0],\"data_offsets\":[16,16]},"
        "\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}  ";
    static const struct {
        void (*f)(void *);
        const char *words;
    } cases[] = {
        {need_absent, "need.safetensors: tensor w is missing"},
        {need_vector, "need.safetensors: tensor v has shape [2, 3]; expected [2]"},
        {need_transposed, "need.safetensors: tensor v has shape [2, 3]; expected [3, 2]"},
        {read_integers, "need.safetensors: tensor i has dtype I32; expected F32"},
        {read_floats, "need.safetensors: tensor v has dtype F32; expected I32"},
    };
    Path path = path_join(tmp_dir(), "need.safetensors");
    int32_t data[8] = {-5, INT32_MAX}, back[2];
    put_safetensors(path.s, header, data, sizeof data);
    SafeTensors st = st_open_file(path.s);
    st_read_i32(st_find(&st, "i"), back);
    CHECK(back[0] == -5 && back[1] == INT32_MAX, "I32: %d %d", back[0], back[1]);
    char message[2048];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = dies(cases[i].f, &st, message, sizeof message);
        CHECK(status == 1 && strstr(message, cases[i].words), "status %d, '%s'; expected '%s'",
              status, message, cases[i].words);
    }
    st_close(&st);
}

static void test_safetensors_shards(void)
{
    static const struct {
        const char *words, *index;
    } cases[] = {
        {"expected", ""},
        {"expected an object", "[]"},
        {"line 2: weight_map: a", "{\"weight_map\":{\"a\":\"one.st\",\n\"a\":"},
        {"weight_map: missing", "{\"metadata\":{}}"},
        {"weight_map: missing", "{\"weight_map\":{}}"},
        {"weight_map: expected an object", "{\"weight_map\":[]}"},
        {"weight_map: a: expected a string", "{\"weight_map\":{\"a\":1}}"},
        {"shard '../one.st'", "{\"weight_map\":{\"a\":\"../one.st\"}}"},
        {"shard '/etc/passwd'", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}"},
        {"shard '.'", "{\"weight_map\":{\"a\":\".\"}}"},
        {"shard ''", "{\"weight_map\":{\"a\":\"\"}}"},
        {"no file 'absent.st'", "{\"weight_map\":{\"a\":\"absent.st\"}}"},
        {"weight_map: c is not in 'one.st'",
         "{\"weight_map\":{\"a\":\"one.st\",\"c\":\"one.st\"}}"},
        {"tensor b is in",
         "{\"weight_map\":{\"b\":\"two.st\",\"a\":\"one.st\",\"c\":\"again.st\"}}"},
        {"weight_map: given twice", "{\"weight_map\":{\"a\":\"one.st\"},\"weight_map\":{}}"},
    };
    static const char good[] = "{\"metadata\":{\"total_size\":20},\"weight_map\":{\"c\":\"two.st\","
                               "\"a\":\"one.st\",\"b\":\"two.st\"}}\n";
    Path dir = path_join(tmp_dir(), "shards");
    make_dirs(dir.s);
    Path index = path_join(dir.s, "model.safetensors.index.json");
    float x[5] = {1, 2, 3, 4, 5}, back[2];
    StOut a = {"a", 1, {2}, x, ST_F32};
    StOut bc[] = {{"c", 1, {2}, x + 2, ST_F32}, {"b", 0, {0}, x + 4, ST_F32}};
    st_write(path_join(dir.s, "one.st").s, "", &a, 1);
    st_write(path_join(dir.s, "two.st").s, "", bc, 2);
    st_write(path_join(dir.s, "again.st").s, "", bc, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char message[2048];
        write_file(index.s, cases[i].index, strlen(cases[i].index));
        int status = dies(open_dir, dir.s, message, sizeof message);
        CHECK(status == 1 && strstr(message, index.s) && strstr(message, cases[i].words),
              "index %s: status %d, '%s'; expected '%s'", cases[i].index, status, message,
              cases[i].words);
    }
    write_file(index.s, good, strlen(good));
    SafeTensors st = st_open_dir(dir.s);
    CHECK(st.n == 3 && st.n_files == 2, "%d tensors, %d files", st.n, st.n_files);
    st_read_f32(st_need(&st, "c", 1, (int64_t[]){2}), back);
    CHECK(back[0] == 3 && back[1] == 4, "c is %g, %g", (double)back[0], (double)back[1]);
    char message[2048];
    int status = dies(need_absent, &st, message, sizeof message);
    CHECK(status == 1 && strstr(message, index.s), "a missing tensor is blamed on: %s", message);
    st_close(&st);
    check_refused(open_dir, path_join(tmp_dir(), "absent"), "model.safetensors", "no directory");
}

/* ---------------------------------------------------------------- tasks */

static Task task_of(const char *spec)
{
    Task t = {0};
    char error[200] = "";
    CHECK(task_parse(spec, &t, error, sizeof error), "task_parse('%s'): %s", spec, error);
    return t;
}

static void test_task_spec(void)
{
    static const struct {
        const char *spec, *canonical; /* NULL: refused */
    } table[] = {
        {"countdown", "countdown:numbers=4,max=9"},
        {"countdown:max=99", "countdown:numbers=4,max=99"},
        {"countdown:max=12,numbers=2", "countdown:numbers=2,max=12"},
        {"add", "add:digits=2"},
        {"add:digits=9", "add:digits=9"},
        {"", NULL},
        {"count", NULL},
        {"countdowns", NULL},
        {"countdown:", NULL},
        {"countdown,max=9", NULL},
        {"countdown:max", NULL},
        {"countdown:max=", NULL},
        {"countdown:max=9,", NULL},
        {"countdown:max=09", NULL},
        {"countdown:max=+9", NULL},
        {"countdown:max=9 ", NULL},
        {"countdown:max=2", NULL},
        {"countdown:max=100", NULL},
        {"countdown:max=99999999999999999999", NULL},
        {"countdown:numbers=7", NULL},
        {"countdown:max=9,max=10", NULL},
        {"countdown:digits=2", NULL},
        {"countdown:ma=9", NULL},
        {"add:digits=0", NULL},
        {"add:digits=2:digits=3", NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t;
        char error[200] = "";
        Buf spec = {0};
        bool ok = task_parse(table[i].spec, &t, error, sizeof error);
        CHECK(ok == (table[i].canonical != NULL), "'%s': %s", table[i].spec, error);
        CHECK(ok == (error[0] == 0), "'%s': error '%s'", table[i].spec, error);
        if (ok && table[i].canonical) {
            task_spec(&t, &spec);
            CHECK(!strcmp(spec.s, table[i].canonical), "'%s' is '%s'", table[i].spec, spec.s);
        }
        buf_free(&spec);
    }
    char error[200];
    Task t;
    task_parse("x", &t, error, sizeof error);
    CHECK(!strcmp(error, "unknown task 'x'; expected countdown or add"), "%s", error);
    task_parse("countdown:numbers=7", &t, error, sizeof error);
    CHECK(strstr(error, "numbers=7") && strstr(error, "from 2 to 6"), "%s", error);
    for (volatile size_t size = 1; size < 20; size++) { /* volatile: gcc would warn of the cut */
        memset(error, '!', sizeof error);
        task_parse("countdown:number=3", &t, error, size);
        CHECK(strlen(error) == size - 1 && error[size] == '!', "size %zu: '%s'", size, error);
    }
}

/* A right derivation of three numbers, by other means than the verifier's: every ordered pair,
 * every operation, in doubles; whatever is whole and not negative is kept. */
static int all_derivations(const double number[3], double target, char found[][32], int most)
{
    int n = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int both = 0; i != j && both < 32; both++) {
                char op1 = "+-*/"[both / 8], op2 = "+-*/"[both / 2 % 4];
                double v[2] = {0, number[3 - i - j]}, last, x = number[i], y = number[j];
                v[0] = op1 == '+' ? x + y : op1 == '-' ? x - y : op1 == '*' ? x * y : x / y;
                double a = v[both % 2], b = v[1 - both % 2];
                last = op2 == '+' ? a + b : op2 == '-' ? a - b : op2 == '*' ? a * b : a / b;
                if (!(v[0] >= 0 && v[0] == floor(v[0]) && last == target) || n == most)
                    continue;
                snprintf(found[n], sizeof found[n], "%.0f%c%.0f=%.0f,%.0f%c%.0f=%.0f", x, op1, y,
                         v[0], a, op2, b, last);
                int k = 0;
                while (strcmp(found[k], found[n]))
                    k++;
                n += k == n;
            }
    return n;
}

/* Of all 1,882,384 pairs of steps over seven values, exactly the right derivations are accepted. */
static void check_verifier_exhaustively(const char *prompt, const double number[3], double target)
{
    enum { VALUES = 7, STEPS = VALUES * 4 * VALUES * VALUES };
    static const int value[VALUES] = {0, 1, 2, 3, 4, 6, 12};
    static char step[STEPS][12];
    char found[64][32], text[32];
    size_t length[STEPS];
    Task t = task_of("countdown:numbers=3");
    int right = all_derivations(number, target, found, 64), written = 0, accepted = 0;
    for (int s = 0; s < STEPS; s++)
        length[s] = (size_t)snprintf(step[s], sizeof step[s], "%d%c%d=%d", value[s % 7],
                                     "+-*/"[s / 7 % 4], value[s / 28 % 7], value[s / 196]);
    for (int k = 0; k < right; k++) {
        int known = 0; /* of the six numbers in it, those among the seven values */
        for (const char *c = found[k]; *c;) {
            int v = (int)strtol(c, (char **)(uintptr_t)&c, 10);
            for (int i = 0; i < VALUES; i++)
                known += value[i] == v;
            c += *c != 0;
        }
        written += known == 6;
        CHECK(task_verify(&t, prompt, found[k]).right, "%s%s is refused", prompt, found[k]);
    }
    for (int x = 0; x < STEPS; x++) {
        memcpy(text, step[x], length[x]);
        text[length[x]] = ',';
        for (int y = 0; y < STEPS; y++) {
            memcpy(text + length[x] + 1, step[y], length[y] + 1);
            if (!task_verify(&t, prompt, text).right)
                continue;
            int k = 0;
            while (k < right && strcmp(found[k], text))
                k++;
            CHECK(k < right, "%s%s is accepted", prompt, text);
            accepted++;
        }
    }
    CHECK(written > 3 && accepted == written, "%s: %d accepted, %d right", prompt, accepted,
          written);
}

static void test_countdown_verifier(void)
{
    static const struct {
        const char *spec, *prompt, *response, *reason; /* part of the reason */
    } table[] = {
        /* right */
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26", "right"},
        {"countdown:numbers=3", "357>26:", "7*3=21,5+21=26", "right"},
        {"countdown:numbers=3", "357>36:", "5+7=12,3*12=36", "right"},
        {"countdown:numbers=2", "72>5:", "7-2=5", "right"},
        {"countdown:numbers=2", "82>4:", "8/2=4", "right"},
        {"countdown:numbers=2", "55>0:", "5-5=0", "right"},
        {"countdown:numbers=3", "553>0:", "5-5=0,0/3=0", "right"},
        {"countdown:numbers=4", "1234>15:", "1+2=3,3*4=12,12+3=15", "right"},
        {"countdown:numbers=4", "1211>1:", "2-1=1,1*1=1,1/1=1", "right"},
        {"countdown:numbers=2,max=99", "57,12>69:", "57+12=69", "right"},
        {"countdown:numbers=2,max=10", "1,9>9:", "1*9=9", "right"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>99:",
         "99*99=9801,99*99=9801,99*99=9801,9801/9801=1,9801*1=9801", "not the target"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>9801:",
         "99*99=9801,99*99=9801,99*99=9801,9801/9801=1,9801*1=9801", "right"},
        /* what an evaluator with a list of allowed characters would pay for */
        {"countdown:numbers=2", "72>49:", "7**2=49", "not written"},
        {"countdown:numbers=2", "72>49:", "7**2", "not written"},
        {"countdown:numbers=2", "72>3:", "7//2=3", "not written"},
        {"countdown:numbers=2", "72>3:", "7/2=3", "arithmetic is false"},
        {"countdown:numbers=3", "152>3:", "1.5*2=3", "not written"},
        {"countdown:numbers=2", "72>5:", "-2+7=5", "not written"},
        {"countdown:numbers=2", "72>5:", "+7-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "(7-2)=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2==5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2", "not written"},
        {"countdown:numbers=2", "72>5:", "5", "not written"},
        {"countdown:numbers=2", "72>5:", "5=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7+-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=05", "not written"},
        {"countdown:numbers=2", "72>5:", "07-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=+5", "not written"},
        {"countdown:numbers=2", "72>5:", " 7-2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7 -2=5", "not written"},
        {"countdown:numbers=2", "72>5:", "7-2=5 ", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5.0", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5e0", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=0x5", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5\n", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5,", "text after"},
        {"countdown:numbers=2", "72>5:", "7-2=5,5*1=5", "text after"},
        {"countdown:numbers=2", "72>5:", "72-2=5", "neither given"},
        {"countdown:numbers=2", "72>5:", "7\xc3\x97" "2=14", "not written"},
        /* what the numbers allow */
        {"countdown:numbers=2", "72>5:", "", "empty"},
        {"countdown:numbers=2", "72>5:", "2-7=5", "arithmetic is false"},
        {"countdown:numbers=2", "72>9:", "7-2=9", "arithmetic is false"},
        {"countdown:numbers=2", "72>9:", "7-2=5", "not the target"},
        {"countdown:numbers=2", "72>9:", "8+1=9", "neither given"},
        {"countdown:numbers=2", "72>14:", "7+7=14", "used twice"},
        {"countdown:numbers=3", "357>26:", "3*7=21", "too few steps"},
        {"countdown:numbers=3", "357>21:", "3*7=21", "too few steps"},
        {"countdown:numbers=3", "357>26:", "3*7=21,", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21;21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21, 21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26,", "text after"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=26:", "text after"},
        {"countdown:numbers=3", "357>26:", ",3*7=21,21+5=26", "not written"},
        {"countdown:numbers=3", "357>26:", "21+5=26,3*7=21", "neither given"},
        {"countdown:numbers=3", "357>24:", "3*7=21,21+3=24", "used twice"},
        {"countdown:numbers=3", "357>42:", "3*7=21,21+21=42", "used twice"},
        {"countdown:numbers=3", "357>26:", "3*7=22,22+5=27", "arithmetic is false"},
        {"countdown:numbers=3", "357>26:", "3*7=21,21+5=27", "arithmetic is false"},
        {"countdown:numbers=3", "357>26:", "3*7=20,20+5=26", "arithmetic is false"},
        {"countdown:numbers=3", "553>0:", "5-5=0,3/0=0", "divides by zero"},
        {"countdown:numbers=3", "550>0:", "5-5=0,0/0=0", "the prompt"},
        {"countdown:numbers=3", "555>5:", "5-5=0,5/0=5", "divides by zero"},
        {"countdown:numbers=4", "9999>1:", "9-9=0,9-9=0,0/0=1", "divides by zero"},
        {"countdown:numbers=2", "99>81:", "9*9=0000000081", "not written"},
        {"countdown:numbers=2", "99>81:", "9*9=18446744073709551697", "not written"},
        {"countdown:numbers=2", "99>81:", "9*9=4294967377", "not written"},
        {"countdown:numbers=6,max=99", "99,99,99,99,99,99>1:",
         "99*99=9801,9801*99=970299,970299*99=96059601,96059601*99=9509900499", "not written"},
        {"countdown:numbers=2,max=99", "57,12>69:", "5+7=12", "neither given"},
        {"countdown:numbers=2,max=99", "57,12>69:", "57+12=69,", "text after"},
        /* prompts that are no problems */
        {"countdown:numbers=3", "", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>26", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>26::", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>026:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "357>-26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "3,5,7>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "3577>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", "35>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3", " 357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3,max=5", "357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=3,max=10", "357>26:", "3*7=21,21+5=26", "the prompt"},
        {"countdown:numbers=2,max=10", "11,9>20:", "11+9=20", "the prompt"},
        {"countdown:numbers=2,max=10", "1,,9>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2,max=10", "1,9,>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2,max=10", "01,9>10:", "1+9=10", "the prompt"},
        {"countdown:numbers=2", "72>9999999999999999999999:", "7+2=9", "the prompt"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t = task_of(table[i].spec);
        Verdict v = task_verify(&t, table[i].prompt, table[i].response);
        CHECK(strstr(v.reason, table[i].reason), "%s'%s': '%s', expected '%s'", table[i].prompt,
              table[i].response, v.reason, table[i].reason);
        CHECK(v.right == !strcmp(table[i].reason, "right"), "%s'%s': right = %d",
              table[i].prompt, table[i].response, v.right);
    }
    check_verifier_exhaustively("326>12:", (double[]){3, 2, 6}, 12);
    check_verifier_exhaustively("334>3:", (double[]){3, 3, 4}, 3);
}

/* Compares whole prompts whose numbers were sorted as text: "753>26:" becomes "357>26:". */
static int compare_prompts(const void *x, const void *y) { return strcmp(x, y); }

/* Sorts the digits of a prompt of single-digit numbers, by counting. */
static void canonical_prompt(const char *prompt, char out[TASK_PROMPT_MAX])
{
    int n = 0, numbers = (int)strcspn(prompt, ">");
    for (char digit = '0'; digit <= '9'; digit++)
        for (int i = 0; i < numbers; i++)
            if (prompt[i] == digit)
                out[n++] = digit;
    strcpy(out + n, prompt + numbers);
}

/* Generated problems and solutions are right, within their bounds and alphabet, and drawn again
 * from the same arguments they are the same. */
static void check_countdown_problems(const char *spec, uint32_t problems)
{
    Task t = task_of(spec);
    Buf text[6] = {{0}}; /* prompt, answer, solution, and all three again */
    int same_prompt = 0;
    int64_t lowest = INT64_MAX, highest = 0;
    char last[TASK_PROMPT_MAX] = "";
    for (uint32_t i = 0; i < problems; i++) {
        for (int again = 0; again < 6; again += 3) {
            text[again].n = text[again + 1].n = text[again + 2].n = 0;
            task_problem(&t, 11, i % 2, i, &text[again], &text[again + 1]);
            task_solution(&t, text[again].s, 11, i, &text[again + 2]);
        }
        const char *prompt = text[0].s;
        for (int k = 0; k < 3; k++) {
            CHECK(!strcmp(text[k].s, text[k + 3].s), "%s: '%s' then '%s'", spec, text[k].s,
                  text[k + 3].s);
            CHECK(text[k].s[strspn(text[k].s, TASK_ALPHABET)] == 0, "%s: '%s'", spec, text[k].s);
        }
        for (int k = 1; k < 3; k++) {
            Verdict v = task_verify(&t, prompt, text[k].s);
            CHECK(v.right, "%s%s: %s", prompt, text[k].s, v.reason);
        }
        CHECK(text[0].n < TASK_PROMPT_MAX && text[2].n < TASK_RESPONSE_MAX, "%s: too long", spec);
        Countdown p = {0};
        CHECK(countdown_read_prompt(&t, prompt, &p), "%s: %s", spec, prompt);
        CHECK(p.target >= 1 && p.target <= (t.max > 9 ? 999 : 99), "%s: %s", spec, prompt);
        for (int k = 0; k < p.count; k++) {
            lowest = p.number[k] < lowest ? p.number[k] : lowest;
            highest = p.number[k] > highest ? p.number[k] : highest;
        }
        same_prompt += !strcmp(prompt, last);
        snprintf(last, sizeof last, "%s", prompt);
    }
    CHECK(lowest == 1 && highest == t.max, "%s: numbers %d to %d", spec, (int)lowest, (int)highest);
    CHECK(same_prompt < (int)problems / 20, "%s: %d prompts repeat the one before", spec,
          same_prompt);
    for (int k = 0; k < 6; k++)
        buf_free(&text[k]);
}

static void check_countdown_split(const char *spec)
{
    enum { EACH = 20000 };
    Task t = task_of(spec);
    char(*train)[TASK_PROMPT_MAX] = xcalloc(EACH, sizeof *train), held_out[TASK_PROMPT_MAX];
    Buf prompt = {0}, answer = {0};
    int shared = 0;
    for (uint32_t i = 0; i < 2 * EACH; i++) {
        prompt.n = 0;
        task_problem(&t, i < EACH ? 1 : 2, i >= EACH, i, &prompt, &answer);
        canonical_prompt(prompt.s, i < EACH ? train[i] : held_out);
        if (i == EACH)
            qsort(train, EACH, sizeof *train, compare_prompts);
        if (i >= EACH)
            shared += bsearch(held_out, train, EACH, sizeof *train, compare_prompts) != NULL;
    }
    CHECK(shared == 0, "%s: %d held-out problems are in the training set", spec, shared);
    free(train);
    buf_free(&prompt);
    buf_free(&answer);
}

static bool same_class(const Task *t, const char *prompt, const char *x, const char *y)
{
    Buf a = {0}, b = {0};
    task_answer_class(t, prompt, x, &a);
    task_answer_class(t, prompt, y, &b);
    bool same = !strcmp(a.s, b.s);
    buf_free(&a);
    buf_free(&b);
    return same;
}

static void check_countdown_classes(void)
{
    static const struct {
        const char *prompt, *x, *y;
        bool same;
    } table[] = {
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", true},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "5*7=35,4*3=12,12+35=47", true},
        {"1234>15:", "1+2=3,3*4=12,12+3=15", "3*4=12,2+1=3,3+12=15", true},
        {"2376>8:", "3+2=5,6+7=13,13-5=8", "7-2=5,6+5=11,11-3=8", false},
        {"1947>37:", "4*7=28,28*1=28,28+9=37", "4*7=28,28/1=28,28+9=37", false},
        {"1947>37:", "4*7=28,28*1=28,28+9=37", "4*7=28,28+9=37,37*1=37", false},
        /* a wrong total, classed like a right one; false arithmetic, apart from true */
        {"4357>46:", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", true},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "4*3=12,5*7=34,12+34=47", false},
        {"4357>47:", "4*3=12,5*7=34,12+34=46", "7*5=34,4*3=12,34+12=46", true},
        {"1323>10:", "1+3=5,2+3=5,5+5=10", "2+3=5,1+3=5,5+5=10", true},
        {"4357>13:", "7-3=4,4+4=8,8+5=13", "3-7=4,4+4=8,8+5=13", false},
        /* no derivations: the steps of a right one in an order that cannot be, or text after it */
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "12+35=47,4*3=12,5*7=35", false},
        {"4357>47:", "4*3=12,5*7=35,12+35=47", "4*3=12,5*7=35,12+35=47,", false},
        {"1245>17:", "1+2=3,3*4=12,12+5=17", "3*4=12,1+2=3,5+12=17", false},
        {"4357>47:", "4*3=12,5*7=35", "5*7=35,4*3=12", false},
        {"4357>47:", "", "", true},
        {"4357>47", "4*3=12,5*7=35,12+35=47", "7*5=35,3*4=12,35+12=47", false},
    };
    Task t = task_of("countdown");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        CHECK(same_class(&t, table[i].prompt, table[i].x, table[i].y) == table[i].same,
              "%s '%s' and '%s' are%s of one class", table[i].prompt, table[i].x, table[i].y,
              table[i].same ? " not" : "");

    /* Fifty solutions of a problem with many: varied as texts and as computations. */
    Buf solution[50] = {{0}};
    int texts = 0, classes = 0, straight = 0, commuted = 0;
    for (uint32_t i = 0; i < 50; i++) {
        task_solution(&t, "2376>8:", 5, i, &solution[i]);
        int new_text = 1, new_class = 1;
        for (uint32_t k = 0; k < i; k++) {
            new_text &= strcmp(solution[i].s, solution[k].s) != 0;
            new_class &= !same_class(&t, "2376>8:", solution[i].s, solution[k].s);
        }
        texts += new_text;
        classes += new_class;
        straight += strstr(solution[i].s, "2+3=5") != NULL;
        commuted += strstr(solution[i].s, "3+2=5") != NULL;
    }
    CHECK(straight && commuted, "2+3 %d times, 3+2 %d times", straight, commuted);
    CHECK(texts >= 25 && classes >= 8 && classes < texts, "%d texts, %d classes in 50 solutions",
          texts, classes);
    for (int i = 0; i < 50; i++)
        buf_free(&solution[i]);
}

static void test_countdown_problems(void)
{
    static const char *spec[] = {"countdown:numbers=2", "countdown:numbers=3", "countdown",
                                 "countdown:numbers=5", "countdown:numbers=2,max=99",
                                 "countdown:numbers=3,max=99", "countdown:numbers=4,max=99",
                                 "countdown:numbers=5,max=99"};
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++)
        check_countdown_problems(spec[i], 2000);
    check_countdown_problems("countdown:numbers=6", 200);
    check_countdown_problems("countdown:numbers=6,max=99", 200);
    for (size_t i = 0; i < 4; i++)
        check_countdown_split(spec[i]);
    check_countdown_classes();

    /* The sequence is part of what a run can be repeated from: it must not change unnoticed. */
    Buf a = {0}, b = {0};
    Task t = task_of("countdown");
    task_problem(&t, 1, false, 0, &a, &a);
    task_solution(&t, "2376>8:", 1, 0, &b);
    CHECK(!strcmp(a.s, "9261>3:6/2=3,1*3=3,9/3=3"), "problem 0 of seed 1 is now '%s'", a.s);
    CHECK(!strcmp(b.s, "7-2=5,6+5=11,11-3=8"), "solution 0 of seed 1 is now '%s'", b.s);

    /* A solution beyond the generator's bounds is found; where there is none, nothing is added. */
    b.n = 0;
    task_solution(&t, "9998>721:", 1, 1, &b);
    CHECK(task_verify(&t, "9998>721:", b.s).right, "9998>721: '%s'", b.s);
    b.n = 0;
    t = task_of("countdown:numbers=3");
    task_solution(&t, "553>0:", 1, 1, &b);
    CHECK(task_verify(&t, "553>0:", b.s).right, "553>0: '%s'", b.s);
    b.n = 0;
    task_solution(&t, "111>99:", 1, 1, &b);
    task_solution(&t, "111>3", 1, 1, &b);
    CHECK(b.n == 0, "a solution where there is none: '%s'", b.s);
    buf_free(&a);
    buf_free(&b);
}

/* a + b and b + a are one problem, and on one side of the split. */
static void check_add_split(void)
{
    static uint8_t sides[100][100]; /* bit 0: seen in training, bit 1: held out */
    Task t = task_of("add");
    int both = 0, held_out = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        Buf prompt = {0}, answer = {0};
        task_problem(&t, 3, i % 2, i, &prompt, &answer);
        int a = atoi(prompt.s), b = atoi(prompt.s + 3);
        sides[imin(a, b)][imax(a, b)] |= (uint8_t)(1 << i % 2);
        buf_free(&prompt);
        buf_free(&answer);
    }
    for (int i = 0; i < 100 * 100; i++) {
        both += sides[i / 100][i % 100] == 3;
        held_out += sides[i / 100][i % 100] == 2;
    }
    CHECK(both == 0 && held_out > 400, "%d of %d held-out sums are in the training set", both,
          held_out);
}

static void test_add_task(void)
{
    static const struct {
        const char *prompt, *response, *reason;
    } table[] = {
        {"47+85:", "7+5=12,4+8+1=13,132", "right"},
        {"12+34:", "2+4=6,1+3=4,46", "right"},
        {"50+50:", "0+0=0,5+5=10,100", "right"},
        {"99+99:", "9+9=18,9+9+1=19,198", "right"},
        {"47+85:", "5+7=12,8+4+1=13,132", "other digits"},
        {"47+85:", "7+5=12,4+8=12,132", "another carry"},
        {"12+34:", "2+4=6,1+3+1=5,46", "another carry"},
        {"12+34:", "2+4=6,1+3+0=4,46", "another carry"},
        {"47+85:", "7+5=13,4+8+1=13,132", "arithmetic is false"},
        {"47+85:", "7+5=2,4+8+1=13,132", "arithmetic is false"},
        {"47+85:", "7+5=12,4+8+1=13,133", "the sum is false"},
        {"47+85:", "7+5=12,4+8+1=13,0132", "the sum is false"},
        {"47+85:", "7+5=12,4+8+1=13,13", "ends before"},
        {"47+85:", "7+5=12", "ends before"},
        {"47+85:", "7+5=12,4+8+1=13,132,", "text after"},
        {"47+85:", "7+5=12,4+8+1=13,1320", "text after"},
        {"47+85:", "7+5=12,4+8+1=13,132 ", "text after"},
        {"47+85:", " 7+5=12,4+8+1=13,132", "other digits"},
        {"47+85:", "132", "other digits"},
        {"47+85:", "", "empty"},
        {"47+85", "7+5=12,4+8+1=13,132", "the prompt"},
        {"47+85:x", "7+5=12,4+8+1=13,132", "the prompt"},
        {"47-85:", "7+5=12,4+8+1=13,132", "the prompt"},
        {"7+85:", "7+5=12,8+1=9,92", "the prompt"},
        {"07+85:", "7+5=12,0+8+1=9,92", "the prompt"},
        {"047+85:", "7+5=12,4+8+1=13,132", "the prompt"},
        {"", "", "the prompt"},
    };
    Task t = task_of("add");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Verdict v = task_verify(&t, table[i].prompt, table[i].response);
        CHECK(strstr(v.reason, table[i].reason), "%s'%s': '%s', expected '%s'", table[i].prompt,
              table[i].response, v.reason, table[i].reason);
        CHECK(v.right == !strcmp(table[i].reason, "right"), "%s'%s'", table[i].prompt,
              table[i].response);
    }
    check_add_split();
    for (int digits = 1; digits <= 9; digits++) {
        char spec[32];
        snprintf(spec, sizeof spec, "add:digits=%d", digits);
        t = task_of(spec);
        for (uint32_t i = 0; i < 500; i++) {
            Buf prompt = {0}, answer = {0}, solution = {0}, class = {0};
            task_problem(&t, 3, i % 2, i, &prompt, &answer);
            task_solution(&t, prompt.s, 3, i, &solution);
            task_answer_class(&t, prompt.s, answer.s, &class);
            long long a = atoll(prompt.s), b = atoll(strchr(prompt.s, '+') + 1);
            CHECK(!strcmp(answer.s, solution.s), "'%s' and '%s'", answer.s, solution.s);
            CHECK(!strcmp(class.s, answer.s), "'%s' and '%s'", class.s, answer.s);
            CHECK(task_verify(&t, prompt.s, answer.s).right, "%s%s", prompt.s, answer.s);
            CHECK(atoll(strrchr(answer.s, ',') + 1) == a + b, "%s%s", prompt.s, answer.s);
            CHECK(prompt.n < TASK_PROMPT_MAX && answer.n < TASK_RESPONSE_MAX, "%s%s: too long",
                  prompt.s, answer.s);
            buf_free(&prompt);
            buf_free(&answer);
            buf_free(&solution);
            buf_free(&class);
        }
    }
}

/* ================================================================ the numbers below the method */

/* How these tests work. Where the program promises bits, the oracle is a naive loop that follows
 * the promised order, and memcmp judges. Where it promises a value, the oracle is double precision
 * (a formula, finite differences, or vectors that an independent program made), and an error counts
 * relative to the norm of the whole tensor. Inputs come from `noise`, outputs and working memory
 * start as NaN, and rows lie in heap blocks of their exact size, so that AddressSanitizer sees one
 * step beyond. */

/* ---------------------------------------------------------------- tools */

/* A number in [-1, 1) that depends on (seed, i) alone. */
static float noise(uint32_t seed, size_t i)
{
    return (float)(2 * uniform(philox(7, 0, seed, (uint32_t)i, 0, 0)) - 1);
}

static float *noise_new(uint32_t seed, size_t n)
{
    float *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = noise(seed, i);
    return x;
}

static float *nan_new(size_t n)
{
    float *x = xmalloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static float *copy_new(const float *x, size_t n)
{
    return memcpy(xmalloc(n * sizeof *x), x, n * sizeof *x);
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return !memcmp(a, b, n * sizeof *a);
}

static double weighted_sum(const float *x, const float *weight, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)weight[i];
    return sum;
}

/* Working memory full of NaN: what is read before it was written does not stay hidden. */
static Engine nan_engine(int threads, size_t bytes)
{
    Engine e = engine_new(threads, bytes, bytes);
    memset(e.arena.base, 0xFF, e.arena.capacity);
    for (int i = 0; i < threads; i++)
        memset(e.worker[i].base, 0xFF, e.worker[i].capacity);
    return e;
}

/* A model whose every tensor is random: norms are not 1 and biases not 0. */
static Model noisy_model(const Config *c)
{
    Model m = model_new(c);
    model_trainable(&m, false);
    for (int t = 0; t < m.n_tensors; t++) {
        const Tensor *x = &m.tensors[t];
        float scale = t == EMBED ? 1.0f : 0.5f, shift = strstr(x->name, "norm") ? 1.0f : 0.0f;
        for (size_t i = 0; i < x->size; i++)
            at(&m, m.params, t)[i] = scale * noise((uint32_t)t, i) + shift;
    }
    rope_reserve(&m, 192);
    return m;
}

/* A small one. No size is a multiple of a vector, a tile or a block. */
static Model tiny_model(ModelType type, bool tied, int vocab)
{
    Config c = {.model_type = type, .vocab_size = vocab, .hidden_size = 20,
                .intermediate_size = 27, .num_hidden_layers = 2, .num_attention_heads = 6,
                .num_key_value_heads = 2, .head_dim = 6, .max_position_embeddings = 256,
                .rms_norm_eps = 1e-5, .rope_theta = 100, .tie_word_embeddings = tied,
                .bos_token_id = -1};
    return noisy_model(&c);
}

/* A prompt and the responses that follow it. */
typedef struct {
    int prompt, n, length[4];
} Tree;

static void tree_tokens(int *tokens, int n, int vocab, uint32_t seed, int response)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int)below(philox(11, 0, seed, (uint32_t)response, (uint32_t)i, 0),
                               (uint32_t)vocab);
}

/* Appends a tree, packed as for training: the prompt once, and of each response all but its last
 * token; the first tokens are all predicted by the prompt's last row. `seed` makes its tokens,
 * wherever it stands. */
static void add_tree(Batch *b, const Tree *t, int vocab, uint32_t seed)
{
    int tokens[128];
    tree_tokens(tokens, t->prompt, vocab, seed, 0);
    int root = batch_seq(b, tokens, t->prompt, 0, -1), last = b->n_rows - 1;
    for (int k = 0; k < t->n; k++) {
        int row = b->n_rows;
        tree_tokens(tokens, t->length[k], vocab, seed, k + 1);
        if (t->length[k] > 1)
            batch_seq(b, tokens, t->length[k] - 1, t->prompt, root);
        for (int i = 0; i < t->length[k]; i++)
            batch_target(b, i ? row + i - 1 : last, tokens[i]);
    }
}

/* ---------------------------------------------------------------- random numbers */

static bool random_is(Random x, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return x.r[0] == a && x.r[1] == b && x.r[2] == c && x.r[3] == d;
}

/* The known answers of the authors' own Random123 (kat_vectors, philox4x32 10). */
static void test_philox(void)
{
    const uint32_t ff = 0xFFFFFFFFu;
    CHECK(random_is(philox(0, 0, 0, 0, 0, 0), 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
          "philox of zeros");
    CHECK(random_is(philox(UINT64_MAX, 0, ff, ff, ff, ff), 0x408F276D, 0x41C83B0E, 0xA20BC7C6,
                    0x6D5451FD), "philox of ones");
    CHECK(random_is(philox(0x299F31D0A4093822u, 0, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1), "philox of the digits of pi");
    CHECK(random_is(philox(0xA4093822u, 0x299F31D0, 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1), "stream is key word 1");
    Random streamed = philox(0x123456789ABCDEFu, 3, 1, 2, 3, 4);
    Random keyed = philox(0x123456789ABCDEFu ^ (uint64_t)3 << 32, 0, 1, 2, 3, 4);
    CHECK(!memcmp(&streamed, &keyed, sizeof keyed), "stream is not xored into key word 1");

    CHECK(uniform((Random){{0, 0, ff, ff}}) == 0, "uniform of zeros");
    CHECK(uniform((Random){{ff, ff, 0, 0}}) == 1 - 0x1p-53, "uniform of ones");
    CHECK(uniform((Random){{0x80000000u, 0, 0, 0}}) == 0.5, "uniform: word 0 is the upper one");
    CHECK(uniform((Random){{0, 0x800, 0, 0}}) == 0x1p-53, "uniform has 53 bits");
    CHECK(below((Random){{9, 9, 1, 0}}, 10) == 6, "below: 2^32 mod 10");
    CHECK(below((Random){{9, 9, 0, 17}}, 7) == 3, "below: 17 mod 7");

    enum { DRAWS = 20000, FACES = 6 };
    int count[FACES] = {0};
    double sum = 0, square = 0, chi2 = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        Random r = philox(1, STREAM_SAMPLE, 0, 0, 0, i);
        double u = uniform(r);
        sum += u;
        square += u * u;
        count[below(r, FACES)]++;
    }
    for (int i = 0; i < FACES; i++)
        chi2 += pow(count[i] - DRAWS / 6.0, 2) / (DRAWS / 6.0);
    CHECK(fabs(sum / DRAWS - 1.0 / 2) < 4 * sqrt(1.0 / 12 / DRAWS), "mean %g", sum / DRAWS);
    CHECK(fabs(square / DRAWS - 1.0 / 3) < 4 * sqrt(4.0 / 45 / DRAWS), "E u^2 %g", square / DRAWS);
    CHECK(chi2 < 20.5, "die: chi-squared %g of 5 degrees; p = 0.001 is 20.5", chi2);
}

/* ---------------------------------------------------------------- exp and rows */

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* |vexp(x) - e^x| in units of the last place of e^x. */
static double exp_ulps(float x)
{
    double exact = exp((double)x);
    return fabs((double)exp_one(x) - exact) / ldexp(1, ilogb(exact) - 23);
}

/* In how many rows with one NaN, of many lengths and places, a softmax loses it. */
static int softmax_losses(float nan)
{
    int lost = 0;
    for (int n = 1; n <= 40; n += 3)
        for (int i = 0; i < n; i++) {
            float *row = noise_new(1, (size_t)n);
            Softmax s = SOFTMAX_EMPTY;
            row[i] = nan;
            softmax_tile(&s, row, row, n, 1.0f);
            lost += !isnan(softmax_logprob(&s, 0, 1));
            row[i] = nan;
            lost += !isnan(row_exp(row, row, n, row_max(row, n), 1.0f));
            free(row);
        }
    return lost;
}

static void test_exp(void)
{
    enum { POINTS = 400000 };
    double worst = 0, where = 0;
    for (int i = 0; i <= POINTS + 2000; i++) {
        float x = (float)(-87.0 + 175.0 * i / POINTS); /* evenly over [-87, 88] ... */
        if (i > POINTS) /* ... and beside each (n + 1/2) ln 2, where the reduction changes n */
            x = (float)(((i - POINTS) % 250 - 125 + 0.5) * 0.6931471805599453 *
                        (1 + 1e-7 * ((i - POINTS) / 250 - 4)));
        double ulps = exp_ulps(x);
        if (!(ulps <= worst)) {
            worst = ulps;
            where = (double)x;
        }
    }
    CHECK(worst < 1.01, "exp is %.3f ulp off at %.9g", worst, where);
    CHECK(exp_one(0.0f) == 1.0f && exp_one(-0.0f) == 1.0f, "exp(0) is not 1");
    CHECK(exp_one(-1e4f) == exp_one(-87.3f) && exp_one(-INFINITY) == exp_one(-87.3f),
          "not clamped below");
    CHECK(exp_one(1e4f) == exp_one(88.3f) && exp_one(INFINITY) == exp_one(88.3f),
          "not clamped above");
    CHECK(isfinite(exp_one(88.3f)) && exp_one(-87.3f) >= 0x1p-126f, "the ends leave the normals");

    /* NaN, whatever its sign and payload (a file of weights may hold any), stays NaN. */
    static const uint32_t nans[] = {0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFC001FF};
    for (size_t k = 0; k < sizeof nans / sizeof *nans; k++) {
        float nan = float_of_bits(nans[k]);
        CHECK(isnan(exp_one(nan)), "exp of NaN %08x is %g", nans[k], (double)exp_one(nan));
        CHECK(softmax_losses(nan) == 0, "NaN %08x is lost in %d softmaxes", nans[k],
              softmax_losses(nan));
    }
}

/* The rule of simd.h: 16 virtual lanes, added as a tree. */
static float lanes_tree(const float *lane)
{
    float t[16];
    memcpy(t, lane, sizeof t);
    for (int half = 8; half; half /= 2)
        for (int u = 0; u < half; u++)
            t[u] += t[u + half];
    return t[0];
}

/* What writes a row, with `room` floats of guard behind it (0: the sanitizer watches). */
static void check_row_writers(int n, int room)
{
    size_t all = (size_t)(n + room);
    float *x = noise_new(20, (size_t)n), *y = noise_new(21, all), *expected = copy_new(y, all);
    float lane[16] = {0};
    for (int i = 0; i < n; i++) {
        expected[i] = exp_one((x[i] - 0.25f) * 3.0f);
        lane[i % 16] += expected[i];
    }
    float sum = row_exp(y, x, n, 0.25f, 3.0f), tree = lanes_tree(lane);
    CHECK(same_bits(y, expected, all), "row_exp of %d", n);
    CHECK(same_bits(&sum, &tree, 1), "row_exp of %d: its sum", n);

    row_exp_scaled(y, y, n, 2.0f, 0.5f, -0.75f);
    for (int i = 0; i < n; i++)
        expected[i] = exp_one(expected[i] * 2.0f - 0.5f) * -0.75f;
    CHECK(same_bits(y, expected, all), "row_exp_scaled of %d", n);

    row_axpy(y, 1.7f, x, n);
    for (int i = 0; i < n; i++)
        expected[i] = fmaf(1.7f, x[i], expected[i]);
    CHECK(same_bits(y, expected, all), "row_axpy of %d", n);

    row_scale(y, x, -0.3f, n);
    for (int i = 0; i < n; i++)
        expected[i] = x[i] * -0.3f;
    CHECK(same_bits(y, expected, all), "row_scale of %d", n);
    free(x);
    free(y);
    free(expected);
}

static void test_rows(void)
{
    for (int n = 1; n <= 70; n++) {
        float *a = noise_new(22, (size_t)n), *b = noise_new(23, (size_t)n), lane[16] = {0};
        float most = -INFINITY;
        for (int i = 0; i < n; i++)
            lane[i % 16] = fmaf(a[i], b[i], lane[i % 16]);
        float dot = row_dot(a, b, n), tree = lanes_tree(lane);
        CHECK(same_bits(&dot, &tree, 1), "row_dot of %d", n);
        for (int i = 0; i < n; i++) { /* all negative, and the largest moves through the row */
            a[i] -= 200;
            most = a[i] > most ? a[i] : most;
        }
        CHECK(row_max(a, n) == most, "row_max of %d", n);
        for (int i = 0; i < n; i++) {
            float before = a[i];
            a[i] = -5;
            CHECK(row_max(a, n) == -5, "row_max of %d: missed at %d", n, i);
            a[i] = before;
        }
        check_row_writers(n, 0);
        check_row_writers(n, 2 * LANES);
        free(a);
        free(b);
    }
}

/* ---------------------------------------------------------------- matrix products */

/* What gemm.h promises: each output is one chain over k, in order. */
static void gemm_naive(int M, int N, int K, const float *a, ptrdiff_t rs, ptrdiff_t cs,
                       const float *b, ptrdiff_t rsb, ptrdiff_t csb, float *c, ptrdiff_t ldc,
                       bool accumulate)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float s = accumulate ? c[i * ldc + j] : 0.0f;
            for (int k = 0; k < K; k++)
                s = fmaf(a[i * rs + k * cs], b[k * rsb + j * csb], s);
            c[i * ldc + j] = s;
        }
}

/* One shape: operands of exact size, and an output whose rows lie `ldc` apart. Between its rows
 * are guards: all of it, guards too, must come out as expected. */
typedef struct {
    int M, N, K, ldc;
    float *a, *b, *before, *c, *expected; /* [M,K], [N,K], 3 x [M,ldc] */
} Product;

static size_t product_floats(const Product *p) { return (size_t)p->M * (size_t)p->ldc; }

static Product product_new(int M, int N, int K, int ldc)
{
    Product p = {M, N, K, ldc, NULL, NULL, NULL, NULL, NULL};
    p.a = noise_new(30, (size_t)M * (size_t)K);
    p.b = noise_new(31, (size_t)N * (size_t)K);
    p.before = noise_new(32, product_floats(&p));
    p.c = copy_new(p.before, product_floats(&p));
    p.expected = copy_new(p.before, product_floats(&p));
    return p;
}

static void product_free(Product *p)
{
    free(p->a);
    free(p->b);
    free(p->before);
    free(p->c);
    free(p->expected);
}

/* Puts NaN where the product will be: it may not be read. */
static void product_blank(Product *p)
{
    for (int i = 0; i < p->M; i++)
        for (int j = 0; j < p->N; j++)
            p->c[(ptrdiff_t)i * p->ldc + j] = NAN;
}

/* Compares, and takes the output back to what it was. */
static void check_product(Product *p, const char *what, bool accumulate)
{
    CHECK(same_bits(p->c, p->expected, product_floats(p)), "%s: M %d, N %d, K %d, accumulate %d",
          what, p->M, p->N, p->K, accumulate);
    memcpy(p->c, p->before, product_floats(p) * sizeof(float));
}

/* Forward: A by rows, B = W^T packed, whole or by panels; by one thread and, where `threads` is 3,
 * by three. What is accumulated on is C itself, or lies elsewhere. */
static void check_gemm_forward(int M, int N, int K, bool accumulate, int threads)
{
    Product p = product_new(M, N, K, N + 3);
    Arena arena = arena_new((packed_floats(K, N) + 4 * BLOCK) * sizeof(float));
    float *packed = nan_new(packed_floats(K, N));
    const float *base = accumulate ? p.before : NULL;
    int panels = (N + NR - 1) / NR, cut = panels / 2; /* the panels in two pieces */
    gemm_naive(M, N, K, p.a, K, 1, p.b, 1, K, p.expected, p.ldc, accumulate);
    gemm_pack(K, N, p.b, 1, K, packed);
    for (arena.threads = 1; arena.threads <= threads; arena.threads += 2) {
        product_blank(&p);
        gemm(&arena, M, N, K, p.a, K, 1, p.b, 1, K, base, p.c, p.ldc);
        check_product(&p, "gemm", accumulate);
        gemm_packed(&arena, M, N, K, p.a, K, 1, packed, accumulate ? p.c : NULL, p.c, p.ldc);
        check_product(&p, "gemm_packed", accumulate);
        product_blank(&p);
        gemm_panels(&arena, M, N, K, 0, cut, p.a, K, 1, packed, base, p.c, p.ldc);
        gemm_panels(&arena, M, N, K, cut, panels, p.a, K, 1, packed,
                    base ? base + cut * NR : NULL, p.c + cut * NR, p.ldc);
        check_product(&p, "gemm_panels", accumulate);
    }
    free(packed);
    arena_free(&arena);
    product_free(&p);
}

/* dX = dY W and dW += dY^T X, in the layouts of a layer: W is [n, k]. */
static void check_gemm_gradients(int m, int k, int n)
{
    size_t most = packed_floats(n, k) + packed_floats(m, k) + 4 * BLOCK;
    Arena arena = arena_new(most * sizeof(float));
    Product x = product_new(m, k, n, k); /* a: dY [m, n]; b: W, here read as [n, k] */
    gemm_naive(m, k, n, x.a, n, 1, x.b, k, 1, x.expected, k, false);
    product_blank(&x);
    gemm_backward(&arena, m, n, k, x.a, x.b, x.c);
    check_product(&x, "gemm_backward", false);
    Product w = product_new(n, k, m, k); /* a: dY, here read as [m, n]; b: X, as [m, k] */
    gemm_naive(n, k, m, w.a, 1, n, w.b, k, 1, w.expected, k, true);
    gemm_weights(&arena, m, n, k, w.a, n, w.b, w.c);
    check_product(&w, "gemm_weights", true);
    int cut = n / 3; /* some of dW's rows, then the others: columns of dY apart */
    gemm_weights(&arena, m, cut, k, w.a, n, w.b, w.c);
    gemm_weights(&arena, m, n - cut, k, w.a + cut, n, w.b, w.c + (ptrdiff_t)cut * k);
    check_product(&w, "gemm_weights in two slices", true);
    product_free(&x);
    product_free(&w);
    arena_free(&arena);
}

/* B in place; up to the next multiple of VL columns are the callee's to write, no more. */
static void check_gemm_small(int M, int N, int K, bool transposed, bool accumulate)
{
    int columns = round_up(N, VL), rs = transposed ? 1 : K, cs = transposed ? M : 1;
    Product p = product_new(M, N, K, columns + 1);
    float *b = noise_new(33, (size_t)K * (size_t)columns);
    gemm_naive(M, N, K, p.a, rs, cs, b, columns, 1, p.expected, p.ldc, accumulate);
    if (!accumulate)
        product_blank(&p);
    gemm_small(M, N, K, p.a, rs, cs, b, columns, accumulate ? p.c : NULL, p.c, p.ldc);
    for (int i = 0; i < M; i++)
        for (int j = N; j < columns; j++)
            p.c[i * p.ldc + j] = p.expected[i * p.ldc + j];
    check_product(&p, transposed ? "gemm_small, A transposed" : "gemm_small", accumulate);
    free(b);
    product_free(&p);
}

static void test_gemm(void)
{
    static const int sizes[][3] = {
        {1, 1, 1}, {1, 33, 5}, {7, 1, 3}, {2, 2, 40}, {13, 31, 17}, {14, 32, 16}, {15, 33, 1},
        {29, 5, KC + 1}, {3, 70, 2 * KC + 2}, {16, 16, KC}, {113, 65, 70}, {230, 47, 130},
        {43, 163, 37}, {57, 129, 19}, {5, 300, 90}, {1, 520, 200},
        {300, 20, KC - 4}, /* three blocks of rows */
        {9, 40, 512}, {MR + 1, 3, 2 * KC}, /* A's rows, or dY's columns, collide in the cache ... */
        {290, 5, 2 * KC}, {KC + 3, 4, 512}, /* ... and come in blocks */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            int M = sizes[i][0], N = sizes[i][1], K = sizes[i][2];
            check_gemm_forward(M, N, K, accumulate, 3);
            check_gemm_gradients(M, N, K);
            check_gemm_small(M, N, K, false, accumulate);
            check_gemm_small(M, N, K, true, accumulate);
        }
    for (int M = 1; M <= 2 * MR + 1; M++) /* every height of a tile, beside every part of a panel */
        for (int N = 1; N <= NR + 1; N += imax(1, VL / 4))
            check_gemm_forward(M, N, 3, M % 2, 1);
}

/* ---------------------------------------------------------------- gradients of each layer */

/* What the check of a gradient works on. L = sum_i weight_i out_i, so that dL / d out_i is
 * weight_i: the outputs are fp32, L is a double. */
typedef struct {
    Engine e;
    Model m;
    Batch b;
    int rows, n_out, terms;
    float temperature;
    const Model *other;
    float *in, *scale, *kept, *out, *weight;
} Layers;

typedef double LossFn(Layers *);

/* dL / dx by the five-point central difference,
 *     f' = (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12 h + O(h^4).
 * How h was chosen: rounding puts about eps / h on it (eps = 6e-8, values are of order 1) and the
 * remainder h^4 f^(5) / 30; h = 2^-6 puts both near 1e-5, where the usual two points would have
 * either 1e-4 from h^2 / 6 or, with a smaller h, more rounding. */
static double numerical_gradient(LossFn *loss, Layers *l, float *x)
{
    const float h = 0x1p-6f, before = *x;
    double f[4];
    for (int k = 0; k < 4; k++) {
        static const float steps[] = {-2, -1, 1, 2};
        *x = before + steps[k] * h;
        f[k] = loss(l);
    }
    *x = before;
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * (double)h);
}

/* |numerical - g| / |g| over a sample of a tensor's n entries: of each of `slices` parts the entry
 * with the largest gradient, and one more. A gradient that is all zero gives NaN: a failure. */
static double gradient_error(LossFn *loss, Layers *l, float *x, const float *g, size_t n,
                             size_t slices)
{
    double error = 0, norm = 0;
    slices = slices < n ? slices : n;
    for (size_t s = 0; s < slices; s++) {
        size_t first = n * s / slices, end = n * (s + 1) / slices;
        size_t pick[2] = {first + 7 * s % (end - first), first};
        for (size_t i = first; i < end; i++)
            if (fabsf(g[i]) > fabsf(g[pick[1]]))
                pick[1] = i;
        for (int k = 0; k < 2; k++) {
            double numerical = numerical_gradient(loss, l, &x[pick[k]]);
            error += pow(numerical - (double)g[pick[k]], 2);
            norm += pow((double)g[pick[k]], 2);
        }
    }
    return sqrt(error) / sqrt(norm);
}

/* fp32 leaves 1e-6 to 3e-4 (measured, all models and instruction sets); a wrong formula, 1e-2. */
static void check_gradient(LossFn *loss, Layers *l, float *x, const float *g, size_t n,
                           size_t slices, const char *what)
{
    double error = gradient_error(loss, l, x, g, n, slices);
    CHECK(error < 1e-3, "%s: the gradient is off by %.1e of its norm", what, error);
}

static void layers_free(Layers *l)
{
    free(l->in);
    free(l->scale);
    free(l->kept);
    free(l->out);
    free(l->weight);
    model_free(&l->m);
    engine_free(&l->e);
}

static double norm_loss(Layers *l)
{
    rmsnorm_forward(l->out, l->kept, l->in, l->scale, l->rows, l->n_out / l->rows, 1e-3f, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_norm_gradient(void)
{
    enum { ROWS = 5, D = 37, N = ROWS * D };
    Layers l = {.rows = ROWS, .n_out = N, .in = noise_new(40, N), .scale = noise_new(41, D),
                .kept = nan_new(ROWS), .out = nan_new(N), .weight = noise_new(42, N)};
    float *dx = nan_new(N), *added = noise_new(43, N), *start = copy_new(added, N);
    float *dw = xcalloc(D, sizeof *dw);
    norm_loss(&l);
    rmsnorm_backward(dx, NULL, l.weight, l.in, l.scale, l.kept, ROWS, D, 1);
    norm_weights_backward(dw, l.weight, l.in, l.kept, ROWS, D);
    check_gradient(norm_loss, &l, l.in, dx, N, N, "RMSNorm: input");
    check_gradient(norm_loss, &l, l.scale, dw, D, D, "RMSNorm: weight");

    float *dw2 = copy_new(dw, D); /* a second pass adds: to dw always, to dx where asked */
    rmsnorm_backward(added, added, l.weight, l.in, l.scale, l.kept, ROWS, D, 1);
    norm_weights_backward(dw2, l.weight, l.in, l.kept, ROWS, D);
    for (int i = 0; i < N; i++)
        start[i] += dx[i];
    for (int i = 0; i < D; i++)
        dw[i] *= 2;
    CHECK(relative_error(added, start, N) < 1e-6, "RMSNorm does not add to dx");
    CHECK(relative_error(dw2, dw, D) < 1e-6, "RMSNorm does not add to dw");
    free(dx);
    free(added);
    free(start);
    free(dw);
    free(dw2);
    layers_free(&l);
}

static double heads_loss(Layers *l)
{
    heads_forward(&l->m, 1, &l->b, l->in, l->out, l->kept, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

/* The gradient of the rotated q and k goes in, beside v's, which must pass untouched. */
static void check_heads_gradient(ModelType type)
{
    static const Tree tree = {5, 2, {4, 9}};
    Layers l = {.e = nan_engine(2, 1 << 20), .m = tiny_model(type, true, 50)};
    const Config *c = &l.m.config;
    int qk = (c->num_attention_heads + c->num_key_value_heads) * c->head_dim;
    int v = c->num_key_value_heads * c->head_dim, width = qk + v;
    l.b = batch_new(&l.e.arena, 32, 4, 32);
    add_tree(&l.b, &tree, 50, 1);
    l.rows = l.b.n_rows;
    l.n_out = l.rows * qk;
    l.in = noise_new(44, (size_t)(l.rows * width));
    l.kept = nan_new((size_t)(l.n_out / c->head_dim));
    l.out = nan_new((size_t)l.n_out);
    l.weight = noise_new(45, (size_t)l.n_out);
    heads_loss(&l);
    float *g = noise_new(46, (size_t)(l.rows * width)), *before = copy_new(g, (size_t)width);
    for (int r = 0; r < l.rows; r++)
        memcpy(g + r * width, l.weight + r * qk, (size_t)qk * sizeof *g);
    float *normed = nan_new((size_t)l.n_out);
    heads_backward(&l.m, 1, &l.b, l.in, l.kept, g, normed, 1);
    if (type == QWEN3) {
        Layer kept = {.qkv = l.in, .rstd_head = l.kept};
        LayerGrad grad = {.heads = normed};
        for (int k = Q_NORM; k <= K_NORM; k++)
            head_norm_backward(c, at(&l.m, l.m.grads, layer_tensor(1, k)), &kept, &grad, l.rows,
                               k == K_NORM ? c->num_attention_heads : 0,
                               k == K_NORM ? c->num_key_value_heads : c->num_attention_heads);
    }
    free(normed);
    CHECK(same_bits(g + qk, before + qk, (size_t)v), "heads_backward changes v's gradient");
    for (int r = 0; r < l.rows; r++) /* L does not see v */
        memset(g + r * width + qk, 0, (size_t)v * sizeof *g);
    check_gradient(heads_loss, &l, l.in, g, (size_t)(l.rows * width), 200, MODEL_TYPES[type]);
    for (int k = Q_NORM; k <= K_NORM && type == QWEN3; k++) {
        int t = layer_tensor(1, k);
        check_gradient(heads_loss, &l, at(&l.m, l.m.params, t), at(&l.m, l.m.grads, t), 6, 6,
                       l.m.tensors[t].name);
    }
    free(g);
    free(before);
    layers_free(&l);
}

static void test_heads_gradient(void)
{
    check_heads_gradient(QWEN3);
    check_heads_gradient(LLAMA);
}

/* in: rotated q and k; scale: q, k, v as projected, of which attention reads v. */
static double attention_loss(Layers *l)
{
    attention_forward(&l->e.worker[0], &l->m.config, &l->b, l->in, l->scale, l->out);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

/* Two kv groups of three heads; prompts and responses shorter, equal and longer than the blocks of
 * KEYS keys and QUERIES rows. Some followers see keys of two and more blocks of their prompt. */
static void test_attention_gradient(void)
{
    static const Tree trees[] = {{37, 3, {4, 46, 2}}, {70, 0, {0}}, {32, 2, {33, 66}}, {1, 1, {2}}};
    Layers l = {.e = nan_engine(2, 4 << 20), .m = tiny_model(LLAMA, true, 50)};
    const Config *c = &l.m.config;
    int q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    l.b = batch_new(&l.e.arena, 400, 12, 400);
    for (int i = 0; i < 4; i++)
        add_tree(&l.b, &trees[i], 50, (uint32_t)i);
    l.rows = l.b.n_rows;
    l.n_out = l.rows * q;
    size_t rows = (size_t)l.rows, wide = (size_t)(q + 2 * kv), n_qk = rows * (size_t)(q + kv);
    l.in = noise_new(47, n_qk);
    for (size_t i = 0; i < n_qk; i++)
        l.in[i] *= 2; /* scores far from equal */
    l.scale = noise_new(48, rows * wide);
    l.out = nan_new((size_t)l.n_out + LANES);
    l.weight = noise_new(49, (size_t)l.n_out + LANES);
    attention_loss(&l);
    float *g = nan_new(rows * wide), *g_qk = nan_new(n_qk);
    attention_backward(&l.e.worker[0], c, &l.b, l.in, l.scale, l.out, l.weight, g);
    for (size_t r = 0; r < rows; r++) {
        memcpy(g_qk + r * (size_t)(q + kv), g + r * wide, (size_t)(q + kv) * sizeof *g);
        memset(g + r * wide, 0, (size_t)(q + kv) * sizeof *g); /* of `scale`, only v is read */
    }
    check_gradient(attention_loss, &l, l.in, g_qk, n_qk, 120, "attention: q and k");
    check_gradient(attention_loss, &l, l.scale, g, rows * wide, 80, "attention: v");
    free(g);
    free(g_qk);
    layers_free(&l);
}

static double swiglu_loss(Layers *l)
{
    swiglu_forward(l->out, l->in, l->rows, l->n_out / l->rows, 1);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_swiglu_gradient(void)
{
    enum { ROWS = 4, FF = 37, N = ROWS * FF };
    Layers l = {.rows = ROWS, .n_out = N, .in = noise_new(50, 2 * N), .out = nan_new(N),
                .weight = noise_new(51, N)};
    float *g = nan_new(2 * N);
    for (int i = 0; i < 2 * N; i++)
        l.in[i] *= 4;
    swiglu_backward(g, l.weight, l.in, ROWS, FF, 1);
    check_gradient(swiglu_loss, &l, l.in, g, 2 * N, 2 * N, "SwiGLU");
    for (int i = 0; i < ROWS; i++) { /* the formula itself, once */
        double x = (double)l.in[i * 2 * FF], u = (double)l.in[i * 2 * FF + FF];
        double y = x / (1 + exp(-x)) * u;
        CHECK(fabs((double)l.out[i * FF] - y) < 1e-6 * (1 + fabs(y)), "SwiGLU(%g, %g)", x, u);
    }
    float *three = nan_new(N);
    swiglu_forward(l.out, l.in, ROWS, FF, 1);
    swiglu_forward(three, l.in, ROWS, FF, 3);
    CHECK(same_bits(three, l.out, N), "three threads change SwiGLU");
    free(three);
    free(g);
    layers_free(&l);
}

/* y = x W^T + bias: the q, k, v product of a Qwen2 layer, its three matrices and biases as one. */
static double linear_loss(Layers *l)
{
    const float *bias = at(&l->m, l->m.params, layer_tensor(1, Q_BIAS));
    Matrix w = matrix(&l->m, 1, QKV);
    bias_forward(l->out, bias, l->rows, w.n);
    linear_forward(&l->e.worker[0], &l->m, w, l->rows, l->in, l->out, l->out);
    return weighted_sum(l->out, l->weight, (size_t)l->n_out);
}

static void test_linear_gradient(void)
{
    enum { ROWS = 9 };
    Layers l = {.e = nan_engine(2, 1 << 20), .m = tiny_model(QWEN2, true, 50), .rows = ROWS};
    Matrix w = matrix(&l.m, 1, QKV);
    size_t n_in = (size_t)(ROWS * w.k), n_w = (size_t)w.n * (size_t)w.k;
    l.n_out = ROWS * w.n;
    l.in = noise_new(52, n_in);
    l.out = nan_new((size_t)l.n_out);
    l.weight = noise_new(53, (size_t)l.n_out);
    float *dx = nan_new(n_in), *dw = at(&l.m, l.m.grads, w.tensor);
    float *dbias = at(&l.m, l.m.grads, layer_tensor(1, Q_BIAS));
    linear_backward(&l.e.worker[0], &l.m, w, ROWS, l.weight, dx);
    gemm_weights(&l.e.worker[0], ROWS, w.n, w.k, l.weight, w.n, l.in, dw);
    bias_backward(dbias, l.weight, ROWS, w.n);
    check_gradient(linear_loss, &l, l.in, dx, n_in, 60, "linear: input");
    check_gradient(linear_loss, &l, at(&l.m, l.m.params, w.tensor), dw, n_w, 60,
                   "linear: weight");
    check_gradient(linear_loss, &l, at(&l.m, l.m.params, layer_tensor(1, Q_BIAS)), dbias,
                   (size_t)w.n, 60, "linear: bias");
    free(dx);
    layers_free(&l);
}

/* What a loss says of each target: noise for log p and, where asked for, for entropy and KL. */
static HeadCoef head_coef(const Layers *l)
{
    const float *more = l->weight + l->b.n_targets;
    return (HeadCoef){l->weight, l->terms & 1 ? more : NULL, l->terms & 2 ? more + 5 : NULL};
}

static double head_sum(const Head *head, const HeadCoef *coef, size_t n)
{
    return weighted_sum(head->logprob, coef->logprob, n) +
           (coef->entropy ? weighted_sum(head->entropy, coef->entropy, n) : 0) +
           (coef->kl ? weighted_sum(head->kl, coef->kl, n) : 0);
}

/* in: hidden rows; scale: the other model's. The targets, chosen in check_head_gradient, are those
 * of the batch. */
static double head_loss(Layers *l)
{
    size_t mark = l->e.worker->used;
    Pass f = {.batch = l->b, .hidden = l->in};
    HeadCoef coef = head_coef(l);
    forward_heads(&l->e.worker[0], &l->m, &f, l->temperature, false, l->other, l->scale);
    double loss = head_sum(&f.head, &coef, (size_t)l->b.n_targets);
    l->e.worker->used = mark;
    return loss;
}

/* 600 tokens are two tiles and a part; 130 targets are one block of rows and a part. `terms`: 1 the
 * entropy, 2 the KL divergence from another model; `keep`: the logits, or they are made again. */
static void check_head_gradient(float temperature, int terms, Keep keep)
{
    enum { V = 600, TARGETS = HEAD_ROWS + 2 };
    Layers l = {.e = nan_engine(2, 8 << 20), .m = tiny_model(LLAMA, false, V), .terms = terms,
                .temperature = temperature, .weight = noise_new(54, 2 * TARGETS + 5)};
    Model other = tiny_model(LLAMA, false, V);
    size_t d = (size_t)l.m.config.hidden_size;
    int head = lm_head(&l.m.config);
    row_scale(other.params, other.params, 0.7f, (int)other.n_params);
    l.in = noise_new(55, TARGETS * d);
    l.scale = noise_new(57, TARGETS * d);
    l.other = terms & 2 ? &other : NULL;
    l.b = batch_new(&l.e.arena, 1, 1, TARGETS);
    for (int i = 0; i < TARGETS; i++)
        batch_target(&l.b, 0, i * 37 % V);
    float *dh = nan_new(TARGETS * d), *dw = at(&l.m, l.m.grads, head);
    Pass f = {.batch = l.b, .hidden = l.in, .keep = keep};
    HeadCoef coef = head_coef(&l);
    forward_heads(&l.e.worker[0], &l.m, &f, temperature, true, l.other, l.scale);
    head_backward(&l.e.worker[0], &l.m, l.in, TARGETS, &f.head, &coef, dh);
    for (int v = 0; v < V; v += TILE) /* in slices */
        head_weights_backward(&l.e.worker[0], &l.m, l.in, l.b.target, TARGETS, &f.head, &coef, v,
                              imin(TILE, V - v), dw);
    check_gradient(head_loss, &l, l.in, dh, TARGETS * d, 60, "head: h");
    check_gradient(head_loss, &l, at(&l.m, l.m.params, head), dw, V * d, 60, "head: W");
    free(dh);
    model_free(&other);
    layers_free(&l);
}

static void test_head_gradient(void)
{
    check_head_gradient(1.0f, 0, KEEP_NOTHING);
    check_head_gradient(0.7f, 0, KEEP_NOTHING);
}

static void test_head_terms(void)
{
    for (int terms = 1; terms <= 3; terms++)
        for (int keep = KEEP_NOTHING; keep <= KEEP_ALL; keep++)
            check_head_gradient(terms == 1 ? 1.0f : 0.7f, terms, (Keep)keep);
}

/* ---------------------------------------------------------------- gradients of the whole model */

static double model_loss(Layers *l)
{
    size_t mark = l->e.worker->used;
    Pass f = forward(&l->e.worker[0], &l->m, &l->b, false);
    forward_head(&l->e.worker[0], &l->m, &f, l->temperature, false);
    double loss = weighted_sum(f.head.logprob, l->weight, (size_t)l->b.n_targets);
    l->e.worker->used = mark;
    return loss;
}

/* Every tensor of a model, over two prompts with responses that share them. */
static void check_model_gradient(ModelType type, bool tied)
{
    enum { V = TILE + 20 };
    static const Tree trees[] = {{5, 3, {4, 7, 1}}, {34, 2, {3, 9}}};
    Layers l = {.m = tiny_model(type, tied, V), .temperature = 0.8f, .weight = noise_new(56, 64)};
    l.e = nan_engine(1, pass_bytes(&l.m, 64, 64, 64, true) + (1 << 20));
    l.b = batch_new(&l.e.arena, 64, 8, 64);
    for (int i = 0; i < 2; i++)
        add_tree(&l.b, &trees[i], V, (uint32_t)i);
    Pass f = forward(&l.e.worker[0], &l.m, &l.b, true);
    forward_head(&l.e.worker[0], &l.m, &f, l.temperature, true);
    f.coef.logprob = l.weight;
    backward(&l.e.worker[0], &l.m, &f);
    weights_backward(&l.e, &l.m, &f, 1, EVERYTHING);
    grads_finish(&l.m);
    l.e.worker->used = 0;
    for (int t = 0; t < l.m.n_tensors; t++) {
        char what[128];
        snprintf(what, sizeof what, "%s, %s head: %s", MODEL_TYPES[type], tied ? "tied" : "own",
                 l.m.tensors[t].name);
        if (l.m.tensors[t].size)
            check_gradient(model_loss, &l, at(&l.m, l.m.params, t), at(&l.m, l.m.grads, t),
                           l.m.tensors[t].size, 4, what);
    }
    layers_free(&l);
}

static void test_model_gradient(void)
{
    for (int type = QWEN3; type <= LLAMA; type++)
        for (int tied = 0; tied < 2; tied++)
            check_model_gradient((ModelType)type, tied);
}

/* ---------------------------------------------------------------- what a pass leaves behind */

/* Everything that a training pass computes, over one or more batches whose gradients add up. */
typedef struct {
    size_t n, d, n_grads; /* targets, hidden_size, floats of gradient (a tied head's own too) */
    float *logprob, *entropy, *phi, *hidden, *grads;
} Outcome;

static void outcome_free(Outcome *o)
{
    free(o->logprob);
    free(o->entropy);
    free(o->phi);
    free(o->hidden);
    free(o->grads);
}

/* Batches as the parts of one, and where their outcome goes. */
typedef struct {
    const Model *m;
    const Batch *batch;
    const float *coef;
    float temperature;
    Outcome *o;
} Parts;

static Pass look_at_batch(Arena *a, int i, Keep keep, void *context)
{
    const Parts *x = context;
    size_t done = 0, count = (size_t)x->batch[i].n_targets, d = x->o->d;
    for (int k = 0; k < i; k++)
        done += (size_t)x->batch[k].n_targets;
    Pass p = forward(a, x->m, &x->batch[i], keep);
    forward_head(a, x->m, &p, x->temperature, true);
    memcpy(x->o->logprob + done, p.head.logprob, count * sizeof(float));
    memcpy(x->o->entropy + done, p.head.entropy, count * sizeof(float));
    memcpy(x->o->phi + done * d, p.head.phi, count * d * sizeof(float));
    memcpy(x->o->hidden + done * d, p.hidden, count * d * sizeof(float));
    p.coef.logprob = x->coef + done;
    return p;
}

/* The gradient over n batches, coef[i] = dL / d log p of target i, in memory of exactly the size
 * that pass_bytes asks for. The gradients stay in the model too, not yet finished. */
static Outcome outcome_of(Model *m, const Batch *b, int n, const float *coef, float temperature,
                          int threads)
{
    Outcome o = {.d = (size_t)m->config.hidden_size, .n_grads = m->n_grads};
    Parts parts = {m, b, coef, temperature, &o};
    size_t most = 0, targets = 0;
    double seconds[2] = {0};
    for (int i = 0; i < n; i++) {
        size_t count = (size_t)b[i].n_targets;
        o.n += count;
        targets = count > targets ? count : targets;
        size_t bytes = pass_bytes(m, (size_t)b[i].n_rows, count, batch_keys(&b[i]),
                                  m->frugal ? KEEP_INPUTS : KEEP_ALL);
        most = bytes > most ? bytes : most;
    }
    o.logprob = nan_new(o.n);
    o.entropy = nan_new(o.n);
    o.phi = nan_new(o.n * o.d);
    o.hidden = nan_new(o.n * o.d);
    Engine e = m->frugal ? engine_frugal(threads, 1 << 12, most, pieces_bytes(&m->config, targets))
                         : engine_new(threads, 1 << 12, most);
    for (int i = 0; i < threads; i++)
        memset(e.worker[i].base, 0xFF, e.worker[i].capacity);
    grads_zero(m);
    gradient(&e, m, n, look_at_batch, &parts, seconds);
    CHECK(e.worker[0].used == 0 && e.worker[0].threads == 1 && e.arena.used == 0,
          "the engine was not left as found");
    o.grads = copy_new(m->grads, m->n_grads);
    engine_free(&e);
    return o;
}

static void check_same_outcome(const Outcome *a, const Outcome *b, const char *what)
{
    CHECK(same_bits(a->logprob, b->logprob, a->n), "log-probs change with %s", what);
    CHECK(same_bits(a->entropy, b->entropy, a->n), "entropies change with %s", what);
    CHECK(same_bits(a->phi, b->phi, a->n * a->d), "phi changes with %s", what);
    CHECK(same_bits(a->grads, b->grads, a->n_grads), "gradients change with %s", what);
}

/* ---------------------------------------------------------------- oracle vectors */

/* Vectors made in float64 by an independent program; tolerances as its README gives them for a
 * float32 program. */
enum { SEQS = 3, TOKENS = 29, GRAD = 1, WGRAD = 2, ADAM = 4, ADAMW = 8 };

/* The values of a tensor of an oracle file. NaN, which no check passes, if it is not there. */
static float *oracle_values(const SafeTensors *st, const char *name, size_t n)
{
    const StTensor *t = st_find(st, name);
    float *x = nan_new(n);
    CHECK(t && t->dtype == ST_F32 && t->bytes == n * sizeof(float), "%s: no %s of %zu floats",
          st->path, name, n);
    if (t && t->dtype == ST_F32 && t->bytes == n * sizeof(float))
        st_read_f32(t, x);
    return x;
}

static SafeTensors oracle_open(const char *root, const char *model, const char *part)
{
    char name[128];
    snprintf(name, sizeof name, "oracle/%s.%s.safetensors", model, part);
    return st_open_file(path_join(root, name).s);
}

static void check_close(const SafeTensors *st, const char *name, const float *x, size_t n,
                        double limit)
{
    float *y = oracle_values(st, name, n);
    double error = largest_error(x, y, n);
    CHECK(error < limit, "%s: %s is off by %.1e", st->path, name, error);
    free(y);
}

/* By the norm of the whole. */
static void check_near(const SafeTensors *st, const char *name, const float *x, size_t n)
{
    float *y = oracle_values(st, name, n);
    double error = relative_error(x, y, n);
    CHECK(error < 1e-5, "%s: %s is off by %.1e of its norm", st->path, name, error);
    free(y);
}

/* The oracle's three sequences, each token but the first a target. */
static Batch oracle_batch(Arena *a, const SafeTensors *st)
{
    int32_t tokens[SEQS * TOKENS];
    int64_t shape[2] = {SEQS, TOKENS};
    Batch b = batch_new(a, SEQS * TOKENS, SEQS, SEQS * TOKENS);
    st_read_i32(st_need(st, "tokens", 2, shape), tokens);
    for (int s = 0; s < SEQS; s++) {
        int row = b.n_rows;
        batch_seq(&b, tokens + s * TOKENS, TOKENS - 1, 0, -1);
        for (int i = 1; i < TOKENS; i++)
            batch_target(&b, row + i - 1, tokens[s * TOKENS + i]);
    }
    return b;
}

/* hidden_final has the last row too, which predicts nothing. */
static void check_hidden(const SafeTensors *st, const Outcome *o)
{
    size_t d = o->d, row = (TOKENS - 1) * d;
    float *y = oracle_values(st, "hidden_final", SEQS * TOKENS * d);
    for (int s = 1; s < SEQS; s++)
        memmove(y + (size_t)s * row, y + (size_t)s * TOKENS * d, row * sizeof *y);
    CHECK(relative_error(o->hidden, y, o->n * d) < 1e-5, "%s: hidden_final is off by %.1e",
          st->path, relative_error(o->hidden, y, o->n * d));
    free(y);
}

static void check_oracle_grads(const char *root, const char *model, const char *part, Model *m)
{
    SafeTensors st = oracle_open(root, model, part);
    grads_finish(m);
    for (int t = 0; t < m->n_tensors; t++) {
        char name[128];
        snprintf(name, sizeof name, "grad.%s", m->tensors[t].name);
        if (m->tensors[t].size)
            check_near(&st, name, at(m, m->grads, t), m->tensors[t].size);
    }
    st_close(&st);
}

/* Three updates on `loss`, and the weights after them. */
static void check_oracle_updates(const char *root, const char *model, const char *part, Model *m,
                                 const Batch *b, AdamW adam)
{
    float coef[SEQS * TOKENS] = {0};
    SafeTensors st = oracle_open(root, model, part);
    size_t far = 0;
    double sum = 0, most = 0;
    for (int i = 0; i < b->n_targets; i++)
        coef[i] = -1.0f / (float)b->n_targets;
    for (int step = 0; step < 3; step++) {
        Outcome o = outcome_of(m, b, 1, coef, 1.0f, 2);
        adamw_step(m, &adam, 1e-3, 2);
        outcome_free(&o);
    }
    for (int t = 0; t < m->n_tensors; t++) {
        if (!m->tensors[t].size)
            continue;
        float *y = oracle_values(&st, m->tensors[t].name, m->tensors[t].size);
        for (size_t i = 0; i < m->tensors[t].size; i++) {
            double error = fabs((double)at(m, m->params, t)[i] - (double)y[i]);
            far += !(error < 2e-6);
            sum += error;
            most = fmax(most, error);
        }
        free(y);
    }
    CHECK(sum / (double)m->n_params < 1e-6, "%s: weights off by %.1e on average", st.path,
          sum / (double)m->n_params);
    CHECK((double)far < 1e-3 * (double)m->n_params, "%s: %zu weights are off", st.path, far);
    CHECK(most < 2e-4, "%s: a weight is off by %.1e", st.path, most);
    st_close(&st);
}

/* A model as the trainer holds it: ready for gradients, and for 192 positions. */
static Model model_for_training(const char *dir, bool packed)
{
    Model m = model_load(dir);
    model_trainable(&m, false);
    rope_reserve(&m, 192);
    if (packed)
        model_pack(&m, 1);
    return m;
}

static void check_oracle(const char *root, const char *model, int parts)
{
    char below[128];
    float coef[SEQS * TOKENS] = {0};
    snprintf(below, sizeof below, "models/%s", model);
    Path dir = path_join(root, below);
    SafeTensors st = oracle_open(root, model, "fwd");
    Arena a = arena_new(1 << 16);
    Batch b = oracle_batch(&a, &st);
    size_t n = (size_t)b.n_targets;
    Model m = model_for_training(dir.s, false), packed = model_for_training(dir.s, true);
    float *weights = oracle_values(&st, "wloss_weights", n), loss, wloss;
    for (size_t i = 0; i < n; i++)
        coef[i] = -1.0f / (float)n;

    Outcome o = outcome_of(&m, &b, 1, coef, 1.0f, 1), o2 = outcome_of(&m, &b, 1, coef, 1.0f, 2);
    Outcome p = outcome_of(&packed, &b, 1, coef, 1.0f, 2);
    check_same_outcome(&o, &o2, "threads");
    check_same_outcome(&o, &p, "packing");
    loss = (float)weighted_sum(o.logprob, coef, n);
    wloss = -(float)weighted_sum(o.logprob, weights, n);
    check_close(&st, "logprobs", o.logprob, n, 5e-5);
    check_close(&st, "entropy", o.entropy, n, 5e-5);
    check_close(&st, "loss", &loss, 1, 1e-5);
    check_close(&st, "wloss", &wloss, 1, 1e-5);
    check_near(&st, "phi", o.phi, n * o.d);
    check_hidden(&st, &o);
    if (parts & GRAD)
        check_oracle_grads(root, model, "grad", &m);

    for (size_t i = 0; i < n; i++)
        coef[i] = -weights[i];
    Outcome w = outcome_of(&m, &b, 1, coef, 1.0f, 1), cool = outcome_of(&m, &b, 1, coef, 0.8f, 1);
    check_close(&st, "logprobs_T0.8", cool.logprob, n, 5e-5);
    memcpy(m.grads, w.grads, m.n_grads * sizeof(float));
    if (parts & WGRAD)
        check_oracle_grads(root, model, "wgrad", &m);
    if (parts & ADAM)
        check_oracle_updates(root, model, "adam3", &m, &b, (AdamW){0.9, 0.999, 1e-8, 0, 0, 0});
    if (parts & ADAMW)
        check_oracle_updates(root, model, "adamw_clip3", &packed, &b,
                             (AdamW){0.9, 0.95, 1e-8, 0.1, 0.25, 0});
    for (Outcome *x[] = {&o, &o2, &p, &w, &cool}, **k = x; k < x + 5; k++)
        outcome_free(*k);
    free(weights);
    model_free(&m);
    model_free(&packed);
    arena_free(&a);
    st_close(&st);
}

/* One line of stories260k.greedy.jsonl. */
typedef struct {
    int n_prompt, n; /* ids of the prompt; ids in all */
    int id[128];
    double logprob[128];
} Story;

static int read_numbers(Json *j, double *out, int room)
{
    int n = 0;
    for (json_array(j); json_item(j); n += n < room - 1)
        json_number(j, &out[n]);
    return n;
}

static Story story_read(const char *line, size_t length)
{
    Story s = {0};
    Buf key = {0};
    double prompt[128], greedy[128];
    int n_greedy = 0;
    Json j = json_open(line, length);
    json_object(&j);
    while (json_key(&j, &key))
        if (!strcmp(key.s, "prompt_ids"))
            s.n_prompt = read_numbers(&j, prompt, 128);
        else if (!strcmp(key.s, "greedy_ids"))
            n_greedy = imin(read_numbers(&j, greedy, 128), 127 - s.n_prompt);
        else if (!strcmp(key.s, "logprobs"))
            read_numbers(&j, s.logprob, 128);
        else
            json_skip(&j);
    CHECK(json_end(&j) && s.n_prompt > 0 && n_greedy == 64, "greedy.jsonl cannot be read");
    for (int i = 0; i < s.n_prompt + n_greedy; i++)
        s.id[s.n++] = (int)(i < s.n_prompt ? prompt[i] : greedy[i - s.n_prompt]);
    buf_free(&key);
    return s;
}

/* The sampler at temperature 0 finds the same tokens. */
static void check_story_decoded(const Model *m, const Story *s, int index)
{
    Extent x = {1, 1, s->n_prompt, s->n - s->n_prompt, 1, KEEP_NOTHING, false};
    Engine e = extent_engine(m, 1, x);
    Group *g = groups_new(&e, m, x);
    Sampling greedy = {.temperature = 0, .top_p = 1, .max_tokens = x.max_tokens};
    g->prompt_length = s->n_prompt;
    memcpy(g->prompt, s->id, (size_t)s->n_prompt * sizeof(int));
    sample_groups(&e, m, g, 1, &greedy);
    CHECK(g->n_tokens == x.max_tokens &&
              !memcmp(g->token, s->id + s->n_prompt, (size_t)g->n_tokens * sizeof(int)),
          "story %d: sampled at temperature 0, %d tokens differ from the reference's", index,
          g->n_tokens);
    engine_free(&e);
}

/* A trained model: its logits, its log-probs, and that each greedy token is our largest logit. */
static void check_story(Model *m, const Story *s, const SafeTensors *st, int index)
{
    const Config *c = &m->config;
    size_t V = (size_t)c->vocab_size, d = (size_t)c->hidden_size, rows = (size_t)s->n - 1;
    Arena a = arena_new(1 << 16);
    Batch b = batch_new(&a, s->n, 1, s->n);
    float *coef = xcalloc(rows, sizeof *coef), *logits = nan_new(rows * V);
    double worst = 0;
    char name[32];
    batch_seq(&b, s->id, s->n - 1, 0, -1);
    for (int i = 1; i < s->n; i++)
        batch_target(&b, i - 1, s->id[i]);
    Outcome o = outcome_of(m, &b, 1, coef, 1.0f, 1);
    gemm_naive((int)rows, (int)V, (int)d, o.hidden, (ptrdiff_t)d, 1, head_weight(m), 1,
               (ptrdiff_t)d, logits, (ptrdiff_t)V, false);
    snprintf(name, sizeof name, "logits.%d", index);
    check_close(st, name, logits, rows * V, 5e-5);
    for (size_t i = 0; i < rows; i++) {
        size_t best = 0;
        for (size_t v = 1; v < V; v++)
            best = logits[i * V + v] > logits[i * V + best] ? v : best;
        CHECK((int)i + 1 < s->n_prompt || (int)best == s->id[i + 1],
              "story %d, token %zu: %zu; expected %d", index, i + 1, best, s->id[i + 1]);
        worst = fmax(worst, fabs((double)o.logprob[i] - s->logprob[i]));
    }
    CHECK(worst < 5e-5, "story %d: log-probs are off by %.1e", index, worst);
    check_story_decoded(m, s, index);
    free(coef);
    free(logits);
    outcome_free(&o);
    arena_free(&a);
}

static void check_stories(const char *root)
{
    size_t n;
    int index = 0;
    char *text = read_file(path_join(root, "oracle/stories260k.greedy.jsonl").s, &n);
    SafeTensors st = oracle_open(root, "stories260k", "logits");
    Model m = model_for_training(path_join(root, "models/stories260k").s, true);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        Story s = story_read(line, (size_t)(end - line));
        check_story(&m, &s, &st, index++);
    }
    CHECK(index == 5, "%d stories; expected 5", index);
    model_free(&m);
    st_close(&st);
    free(text);
}

static void test_oracle(void)
{
    static const struct {
        const char *model;
        int parts;
    } more[] = {
        {"q3_tied_f32", GRAD | WGRAD | ADAM | ADAMW},
        {"q3_untied_f32", GRAD | WGRAD | ADAM | ADAMW},
        {"q2_tied_f32", GRAD | ADAM},
        {"llama_untied_f32_theta500k", GRAD | ADAM},
        {"q3_tied_bf16", 0},
        {"q3_tied_f16_sharded", 0},
        {"q3_untied_bf16_sharded", 0},
    };
    Path root;
    check_oracle("data", "q3_mqa_hd6_f32", GRAD | ADAM);
    if (!shared_dir(&root, "models") || !shared_dir(&root, "oracle") || !shared_dir(&root, ".")) {
        skip("the oracle's other eight models need ../shared/data");
        return;
    }
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        check_oracle(root.s, more[i].model, more[i].parts);
    check_stories(root.s);
}

/* ---------------------------------------------------------------- phi */

/* log softmax(W h / T)[y], in double; `entropy` too if it is not NULL. */
static double exact_logprob(const double *h, const float *W, int V, int d, int y, double T,
                            double *entropy)
{
    double max = -HUGE_VAL, sum = 0, spread = 0, *z = xmalloc((size_t)V * sizeof *z), logprob;
    for (int v = 0; v < V; v++) {
        z[v] = 0;
        for (int i = 0; i < d; i++)
            z[v] += (double)W[v * d + i] * h[i] / T;
        max = fmax(max, z[v]);
    }
    for (int v = 0; v < V; v++) {
        sum += exp(z[v] - max);
        spread += exp(z[v] - max) * (z[v] - max);
    }
    if (entropy)
        *entropy = log(sum) - spread / sum;
    logprob = z[y] - max - log(sum);
    free(z);
    return logprob;
}

/* Eq 14: phi = W[y] - E_{v ~ p} W[v] = T d log p(y) / dh, against central differences in double
 * from h and W alone: the head's phi is the true gradient at every temperature. Targets lie on
 * both sides of the borders between vocabulary tiles. */
static void check_phi(Model *m, float temperature, bool packed)
{
    enum { N = 8 };
    static const int target[N] = {0, TILE - 1, TILE, 2 * TILE - 1, 2 * TILE, 599, 300, 7};
    const Config *c = &m->config;
    int d = c->hidden_size, V = c->vocab_size;
    double T = (double)temperature, h[32], worst = 0, error = 0, norm = 0;
    const double step = 1e-5; /* rounding 1e-16 / 1e-5, curvature 1e-10: both far below fp32 */
    Engine e = nan_engine(2, 4 << 20);
    float *hidden = noise_new(60, (size_t)(N * d));
    Batch b = batch_new(&e.arena, 1, 1, N);
    for (int i = 0; i < N; i++)
        batch_target(&b, 0, target[i]);
    Pass f = {.batch = b, .hidden = hidden};
    for (int i = 0; i < N * d; i++)
        hidden[i] *= 2;
    forward_head(&e.worker[0], m, &f, temperature, true);
    for (int k = 0; k < N; k++) {
        double entropy, logprob;
        for (int i = 0; i < d; i++)
            h[i] = (double)hidden[k * d + i];
        logprob = exact_logprob(h, head_weight(m), V, d, target[k], T, &entropy);
        worst = fmax(worst, fabs(logprob - (double)f.head.logprob[k]));
        worst = fmax(worst, fabs(entropy - (double)f.head.entropy[k]));
        for (int i = 0; i < d; i++) {
            double here = h[i], up, down, phi;
            h[i] = here + step;
            up = exact_logprob(h, head_weight(m), V, d, target[k], T, NULL);
            h[i] = here - step;
            down = exact_logprob(h, head_weight(m), V, d, target[k], T, NULL);
            h[i] = here;
            phi = T * (up - down) / (2 * step);
            error += pow(phi - (double)f.head.phi[k * d + i], 2);
            norm += phi * phi;
        }
    }
    CHECK(worst < 1e-5, "T %g, packed %d: log-prob or entropy is off by %.1e", T, packed, worst);
    CHECK(sqrt(error / norm) < 1e-6, "T %g, packed %d: phi is off by %.1e of its norm", T, packed,
          sqrt(error / norm));
    free(hidden);
    engine_free(&e);
}

static void test_phi(void)
{
    Model m = tiny_model(LLAMA, false, 600);
    for (int packed = 0; packed < 2; packed++) {
        check_phi(&m, 1.0f, packed);
        check_phi(&m, 0.7f, packed);
        model_pack(&m, 1);
    }
    model_free(&m);
}

/* ---------------------------------------------------------------- equal bits */

/* 323 rows and 258 targets: more than a block of the head, and every product has work for
 * three threads. */
static const Tree FOREST[] = {{33, 3, {40, 1, 7}}, {1, 1, {50}}, {64, 0, {0}},
                              {31, 4, {12, 66, 2, 9}}, {32, 3, {33, 34, 8}}};
enum { TREES = sizeof FOREST / sizeof *FOREST, FOREST_ROWS = 512, FOREST_V = 2 * TILE + 20 };

static Batch forest(Arena *a, int first, int n)
{
    Batch b = batch_new(a, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = first; i < first + n; i++)
        add_tree(&b, &FOREST[i], FOREST_V, (uint32_t)i);
    return b;
}

static bool is_alive(const float *x, size_t n)
{
    double norm = sqrt(weighted_sum(x, x, n));
    return isfinite(norm) && norm > 0;
}

/* Threads, packing and micro-batches of whole trees change not one bit, gradients included; a
 * tied head's own gradient, kept apart until grads_finish, is among them. */
static void check_invariance(ModelType type, bool tied)
{
    Model m = tiny_model(type, tied, FOREST_V);
    Arena a = arena_new(1 << 20);
    Batch whole = forest(&a, 0, TREES), each[TREES];
    float *coef = noise_new(61, FOREST_ROWS);
    Outcome o = outcome_of(&m, &whole, 1, coef, 0.7f, 1), other;
    CHECK(is_alive(o.logprob, o.n) && is_alive(o.entropy, o.n) && is_alive(o.phi, o.n * o.d) &&
              is_alive(o.grads, o.n_grads), "nothing to compare");
    for (int packed = 0; packed < 2; packed++) {
        for (int threads = 1; threads <= 3; threads++) {
            other = outcome_of(&m, &whole, 1, coef, 0.7f, threads);
            check_same_outcome(&o, &other, packed ? "packing" : "threads");
            outcome_free(&other);
        }
        model_pack(&m, 2);
    }
    for (int size = 1; size <= 3; size++) {
        int pieces = 0;
        for (int i = 0; i < TREES; i += size)
            each[pieces++] = forest(&a, i, imin(size, TREES - i));
        for (int frugal = 0; frugal < 2; frugal++) {
            m.frugal = frugal;
            other = outcome_of(&m, each, pieces, coef, 0.7f, size);
            check_same_outcome(&o, &other, frugal ? "recomputation" : "micro-batches");
            outcome_free(&other);
        }
        m.frugal = false;
        if (size == 2)
            model_unpack(&m);
    }
    outcome_free(&o);
    free(coef);
    arena_free(&a);
    model_free(&m);
}

/* Tokens beyond n_vocab do not exist: the same numbers as from a model that ends there, and no
 * gradient for their rows. */
static void check_masked_vocabulary(bool packed)
{
    enum { V = TILE + 40, FEWER = TILE + 7 };
    Model m = tiny_model(LLAMA, false, V), small = tiny_model(LLAMA, false, FEWER);
    size_t d = (size_t)m.config.hidden_size;
    Arena a = arena_new(1 << 20);
    Batch b = batch_new(&a, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = 0; i < TREES; i++)
        add_tree(&b, &FOREST[i], FEWER, (uint32_t)i);
    float *coef = noise_new(61, FOREST_ROWS);
    int last = lm_head(&m.config);
    memcpy(m.params, small.params, (size_t)FEWER * d * sizeof(float));
    memcpy(at(&m, m.params, 1), at(&small, small.params, 1),
           (m.tensors[last].offset - m.tensors[1].offset) * sizeof(float));
    memcpy(at(&m, m.params, last), at(&small, small.params, last),
           (size_t)FEWER * d * sizeof(float));
    m.n_vocab = FEWER;
    if (packed) {
        model_pack(&m, 1);
        model_pack(&small, 1);
    }
    Outcome o = outcome_of(&m, &b, 1, coef, 0.9f, 2), p = outcome_of(&small, &b, 1, coef, 0.9f, 1);
    const float *dw = o.grads + m.tensors[last].offset;
    float *zero = xcalloc((V - FEWER) * d, sizeof(float));
    CHECK(same_bits(o.logprob, p.logprob, o.n) && same_bits(o.entropy, p.entropy, o.n) &&
              same_bits(o.phi, p.phi, o.n * o.d), "packed %d: masked tokens have a share", packed);
    CHECK(same_bits(dw, p.grads + small.tensors[last].offset, FEWER * d) &&
              same_bits(dw + FEWER * d, zero, (V - FEWER) * d),
          "packed %d: the head's gradient with masked tokens", packed);
    outcome_free(&o);
    outcome_free(&p);
    free(zero);
    free(coef);
    arena_free(&a);
    model_free(&small);
    model_free(&m);
}

/* Log-sum-exp of z / T, in double. */
static double log_sum_exp(const double *z, int n, double temperature)
{
    double max = -HUGE_VAL, sum = 0;
    for (int v = 0; v < n; v++)
        max = fmax(max, z[v] / temperature);
    for (int v = 0; v < n; v++)
        sum += exp(z[v] / temperature - max);
    return max + log(sum);
}

/* Logits of one hidden row, in double. */
static void logits_naive(const Model *m, const float *h, int n, double *z)
{
    int d = m->config.hidden_size;
    for (int v = 0; v < n; v++) {
        z[v] = 0;
        for (int k = 0; k < d; k++)
            z[v] += (double)h[k] * (double)head_weight(m)[v * d + k];
    }
}

/* KL(p || q) of two models, exact over the vocabulary, against double; q's log-probs are those that
 * it has alone, and it changes nothing of p's. Equal models: exactly 0. */
static void test_kl_exact(void)
{
    enum { V = 2 * TILE + 44, FEWER = 2 * TILE + 9 };
    double z[2][V], T = 0.7;
    Model m = tiny_model(QWEN3, true, V), q = tiny_model(QWEN3, true, V);
    m.n_vocab = q.n_vocab = FEWER;
    for (size_t i = 0; i < q.n_params; i++)
        q.params[i] += 0.2f * noise(77, i);
    size_t d = (size_t)m.config.hidden_size;
    Engine e = nan_engine(3, pass_bytes(&m, FOREST_ROWS, FOREST_ROWS, 128, KEEP_NOTHING));
    Batch b = batch_new(&e.arena, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = 0; i < TREES; i++)
        add_tree(&b, &FOREST[i], FEWER, (uint32_t)i);
    Pass p = forward(&e.worker[0], &m, &b, KEEP_NOTHING);
    Pass other = forward(&e.worker[1], &q, &b, KEEP_NOTHING);
    Pass same = forward(&e.worker[2], &m, &b, KEEP_NOTHING);
    forward_head(&e.worker[1], &q, &other, (float)T, false);
    forward_heads(&e.worker[2], &m, &same, (float)T, false, &m, same.hidden);
    forward_heads(&e.worker[0], &m, &p, (float)T, true, &q, other.hidden);
    size_t n = (size_t)b.n_targets;
    CHECK(same_bits(p.head.other_logprob, other.head.logprob, n), "q has other log-probs beside p");
    CHECK(same_bits(p.head.logprob, same.head.logprob, n), "p has other log-probs beside q");
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        logits_naive(&m, p.hidden + i * d, FEWER, z[0]);
        logits_naive(&q, other.hidden + i * d, FEWER, z[1]);
        double lse[2] = {log_sum_exp(z[0], FEWER, T), log_sum_exp(z[1], FEWER, T)}, kl = 0;
        for (int v = 0; v < FEWER; v++)
            kl += exp(z[0][v] / T - lse[0]) * ((z[0][v] - z[1][v]) / T - lse[0] + lse[1]);
        CHECK(fabs((double)p.head.kl[i] - kl) < 1e-5 * kl + 1e-6, "target %zu: KL %g, not %g", i,
              (double)p.head.kl[i], kl);
        CHECK(fabsf(same.head.kl[i]) <= 0, "the same model: KL %g", (double)same.head.kl[i]);
        largest = fmax(largest, kl);
    }
    CHECK(largest > 0.05, "nothing to compare: %g", largest);
    engine_free(&e);
    model_free(&m);
    model_free(&q);
}

/* What each KL term does in a loss (METHOD 3.6), by enumeration: drawn from p, k2's expected
 * gradient is that of KL(p || q), which the exact term has, and k3's that of KL(q || p), whose
 * dK/dz = (p - q) / T. One hidden row; every token of the vocabulary is a target once. */
static void test_kl_bias(void)
{
    enum { V = 40, D = 20 };
    const float T = 0.7f;
    Model m = tiny_model(LLAMA, false, V), q = tiny_model(LLAMA, false, V);
    int d = m.config.hidden_size;
    Engine e = nan_engine(1, 8 << 20);
    Arena *a = &e.worker[0];
    float *h = noise_new(58, (size_t)d), *g = noise_new(59, (size_t)d);
    float *rows = nan_new((size_t)(V * d)), *other = nan_new((size_t)(V * d));
    float coef[3][V], one[V] = {1}, *dh = nan_new((size_t)(V * d));
    Batch b = batch_new(&e.arena, 1, 1, V);
    row_scale(h, h, 3, d);
    for (int v = 0; v < V; v++) {
        batch_target(&b, 0, v);
        memcpy(rows + v * d, h, (size_t)d * sizeof(float));
        memcpy(other + v * d, g, (size_t)d * sizeof(float));
    }
    Pass p = {.batch = b, .hidden = rows};
    forward_heads(a, &m, &p, T, true, &q, other);
    for (int v = 0; v < V; v++) {
        double P = exp((double)p.head.logprob[v]), gap, slope;
        MethodOptions o = {.kl_coef = 1, .clip_low = 1, .clip_high = 1};
        LossSums sums = {0};
        gap = (double)p.head.other_logprob[v];
        for (int k = KL_K3; k <= KL_K2; k++) {
            o.kl = (KlTerm)k;
            token_loss((double)p.head.logprob[v], (double)p.head.logprob[v], gap, 0, &o, &slope,
                       &sums);
            coef[k][v] = (float)(P * slope);
        }
        coef[KL_EXACT][v] = 0;
    }
    double sum[3][D] = {{0}}, error[2] = {0}, norm[2] = {0};
    for (int k = 0; k < 3; k++) {
        HeadCoef c = {.logprob = coef[k], .kl = k == KL_EXACT ? one : NULL};
        head_backward(a, &m, rows, k == KL_EXACT ? 1 : V, &p.head, &c, dh);
        for (int i = 0; i < (k == KL_EXACT ? 1 : V) * d; i++)
            sum[k][i % d] += (double)dh[i];
    }
    for (int i = 0; i < d; i++) {
        double reverse = 0; /* of KL(q || p) by h */
        for (int v = 0; v < V; v++)
            reverse += (exp((double)p.head.logprob[v]) - exp((double)p.head.other_logprob[v])) /
                       (double)T * (double)head_weight(&m)[v * d + i];
        error[0] += pow(sum[KL_K2][i] - sum[KL_EXACT][i], 2);
        error[1] += pow(sum[KL_K3][i] - reverse, 2);
        norm[0] += pow(sum[KL_EXACT][i], 2);
        norm[1] += pow(sum[KL_K3][i] - sum[KL_EXACT][i], 2);
    }
    CHECK(d == D && norm[1] > 0.01 * norm[0], "k3 and exact do not differ here");
    CHECK(error[0] < 1e-8 * norm[0], "k2's mean gradient is %.1e off the exact one",
          sqrt(error[0] / norm[0]));
    CHECK(error[1] < 1e-8 * norm[0], "k3's mean gradient is %.1e off that of KL(q || p)",
          sqrt(error[1] / norm[0]));
    free(h);
    free(g);
    free(rows);
    free(other);
    free(dh);
    engine_free(&e);
    model_free(&m);
    model_free(&q);
}

/* A response that shares its prompt, and the same one with its prompt written out. */
static void check_written_out(Model *m)
{
    Arena a = arena_new(1 << 20);
    Batch whole = forest(&a, 0, TREES);
    float *coef = noise_new(62, FOREST_ROWS);
    Outcome o = outcome_of(m, &whole, 1, coef, 1.0f, 1);
    size_t done = 0, mark = a.used;
    for (int i = 0; i < TREES; i++)
        for (int k = 0; k < FOREST[i].n; k++) {
            int tokens[128], prompt = FOREST[i].prompt, length = FOREST[i].length[k];
            Batch b = batch_new(&a, 128, 1, 128);
            tree_tokens(tokens, prompt, FOREST_V, (uint32_t)i, 0);
            tree_tokens(tokens + prompt, length, FOREST_V, (uint32_t)i, k + 1);
            batch_seq(&b, tokens, prompt + length - 1, 0, -1);
            for (int t = 0; t < length; t++)
                batch_target(&b, prompt + t - 1, tokens[prompt + t]);
            Outcome alone = outcome_of(m, &b, 1, coef, 1.0f, 2);
            CHECK(same_bits(alone.logprob, o.logprob + done, alone.n) &&
                      same_bits(alone.entropy, o.entropy + done, alone.n) &&
                      same_bits(alone.phi, o.phi + done * o.d, alone.n * o.d),
                  "prompt of %d, response of %d: other bits when written out", prompt, length);
            done += alone.n;
            outcome_free(&alone);
            a.used = mark;
        }
    CHECK(done == o.n, "%zu targets; expected %zu", done, o.n);
    outcome_free(&o);
    free(coef);
    arena_free(&a);
}

/* Adds the head's gradient of targets first .. first + n - 1 alone; tells whether the logits were
 * kept. */
static bool add_head_gradient(Model *m, const float *hidden, const float *coef, int first, int n,
                              bool keep)
{
    size_t d = (size_t)m->config.hidden_size, skip_rows = (size_t)first * d;
    int V = m->config.vocab_size;
    Engine e = engine_new(1, 1 << 20, pass_bytes(m, 1, (size_t)n, 1, true));
    Batch b = batch_new(&e.arena, 1, 1, n);
    memset(e.worker->base, 0xFF, e.worker->capacity);
    float *mine = copy_new(hidden + skip_rows, (size_t)n * d);
    for (int i = first; i < first + n; i++)
        batch_target(&b, 0, (int)((int64_t)i * 7919 % V));
    Pass f = {.batch = b, .hidden = mine, .keep = keep};
    f.coef.logprob = coef + first;
    forward_head(&e.worker[0], m, &f, 0.9f, true);
    head_weights_backward(&e.worker[0], m, mine, b.target, n, &f.head, &f.coef, 0, V,
                          at(m, m->grads, lm_head(&m->config)));
    free(mine);
    engine_free(&e);
    return f.head.logits != NULL;
}

/* Many targets: the head's gradient takes its rows in blocks that continue each other, and so does
 * a second batch, whose logits are made twice. */
static void check_many_targets(Model *m, int n, int cut, bool kept)
{
    float *hidden = noise_new(63, (size_t)n * (size_t)m->config.hidden_size);
    float *coef = noise_new(64, (size_t)n);
    grads_zero(m);
    bool whole_kept = add_head_gradient(m, hidden, coef, 0, n, true);
    CHECK(whole_kept == kept, "the logits of %d targets: kept is %d", n, whole_kept);
    float *whole = copy_new(m->grads, m->n_grads);
    grads_zero(m);
    CHECK(add_head_gradient(m, hidden, coef, 0, cut, true), "%d targets: nothing kept", cut);
    CHECK(!add_head_gradient(m, hidden, coef, cut, n - cut, false), "logits kept for nothing");
    CHECK(is_alive(whole, m->n_grads) && same_bits(whole, m->grads, m->n_grads),
          "%d targets: dW changes when they come in two batches", n);
    free(whole);
    free(hidden);
    free(coef);
}

/* The most logits that a pass keeps, and more than that. The memory for the longest batch is enough
 * for every shorter one. */
static void check_most_logits(void)
{
    enum { V = 1 << 15, MOST = MOST_LOGITS / V };
    Model m = tiny_model(LLAMA, false, V);
    check_many_targets(&m, MOST + 1, MOST, false);
    size_t before = 0;
    for (size_t targets = MOST - 2; targets < MOST + 3; targets++) {
        size_t bytes = pass_bytes(&m, 1, targets, 1, true);
        CHECK(bytes > before, "%zu targets: less memory than for a shorter pass", targets);
        before = bytes;
    }
    model_free(&m);
}

/* The logits that the passes kept, and the same ones made again, give the same gradients: several
 * passes, more than a block of the head's rows, a part of a tile. The head's weights come in two
 * pieces, which is the same as in one. */
static void check_kept_logits(bool tied, bool packed)
{
    enum { V = 1024 + TILE + 44, PASSES = 3 };
    static const int first[PASSES] = {0, 1, 3}, end[PASSES] = {1, 4, 5};
    Model m = tiny_model(QWEN3, tied, V);
    Engine e = nan_engine(PASSES, pass_bytes(&m, 256, 256, 128, true));
    float *coef = noise_new(65, FOREST_ROWS), *dw = at(&m, m.grads, lm_head(&m.config));
    size_t d = (size_t)m.config.hidden_size;
    Pass p[PASSES];
    if (packed)
        model_pack(&m, 2);
    for (int i = 0; i < PASSES; i++) {
        Batch b = batch_new(&e.arena, 256, 16, 256);
        for (int k = first[i]; k < end[i]; k++)
            add_tree(&b, &FOREST[k], V, (uint32_t)k);
        p[i] = forward(&e.worker[i], &m, &b, true);
        forward_head(&e.worker[i], &m, &p[i], 0.7f, true);
        p[i].coef.logprob = coef + 9 * i;
        backward(&e.worker[i], &m, &p[i]);
        CHECK(p[i].head.logits, "pass %d did not keep its logits", i);
    }
    weights_backward(&e, &m, p, PASSES, EVERYTHING);
    float *kept = copy_new(m.grads, m.n_grads);
    for (int i = 0; i < PASSES; i++)
        p[i].head.logits = NULL;
    grads_zero(&m);
    weights_backward(&e, &m, p, PASSES, EVERYTHING);
    CHECK(is_alive(kept, m.n_grads) && same_bits(kept, m.grads, m.n_grads),
          "tied %d, packed %d: logits made again give another gradient", tied, packed);
    grads_zero(&m);
    for (int i = 0; i < PASSES; i++)
        head_weights_backward(&e.worker[i], &m, p[i].hidden, p[i].batch.target,
                              p[i].batch.n_targets, &p[i].head, &p[i].coef, 0, V, dw);
    CHECK(same_bits(dw, at(&m, kept, lm_head(&m.config)), V * d),
          "tied %d, packed %d: the head's gradient changes with its pieces", tied, packed);
    free(kept);
    free(coef);
    engine_free(&e);
    model_free(&m);
}

/* A model packed before it becomes trainable, and one packed after, hold the same. */
static void check_packing_order(void)
{
    Model m = tiny_model(QWEN3, true, FOREST_V), early = model_new(&m.config);
    memcpy(early.params, m.params, m.n_params * sizeof(float));
    model_pack(&m, 3);
    model_pack(&early, 1);
    CHECK(!early.packed_back, "a frozen model is packed for a backward pass");
    model_trainable(&early, false);
    CHECK(early.packed_back && m.packed_back &&
              same_bits(early.packed, m.packed, model_packed_floats(&m, false)) &&
              same_bits(early.packed_back, m.packed_back, model_packed_floats(&m, true)),
          "packed before or after model_trainable: other weights");
    model_free(&early);
    model_free(&m);
}

static void test_invariance(void)
{
    check_invariance(QWEN3, true);
    check_invariance(QWEN2, false);
    check_invariance(LLAMA, true);
    Model m = tiny_model(QWEN3, true, FOREST_V);
    check_written_out(&m);
    check_many_targets(&m, KC + 76, 500, true);
    model_free(&m);
    check_most_logits();
    check_masked_vocabulary(false);
    check_masked_vocabulary(true);
    for (int i = 0; i < 4; i++)
        check_kept_logits(i % 2, i / 2);
    check_packing_order();
}

/* ---------------------------------------------------------------- cached decoding */

/* A prompt and two responses, every row a target: the hidden rows of the training pass. */
enum { NEW = 70, RESPONSES = 2 };

static float *training_hidden(Model *m, int prompt, const int *tokens)
{
    size_t d = (size_t)m->config.hidden_size, rows = (size_t)(prompt + RESPONSES * NEW);
    Engine e = nan_engine(1, pass_bytes(m, rows, rows, prompt + NEW, false));
    Batch b = batch_new(&e.arena, (int)rows, 1 + RESPONSES, (int)rows);
    batch_seq(&b, tokens, prompt, 0, -1);
    for (int k = 0; k < RESPONSES; k++)
        batch_seq(&b, tokens + prompt + k * NEW, NEW, prompt, 0);
    for (int i = 0; i < b.n_rows; i++)
        batch_target(&b, i, 0);
    float *hidden = copy_new(forward(&e.worker[0], m, &b, false).hidden, rows * d);
    engine_free(&e);
    return hidden;
}

/* The prompt in one piece, then each response token by token, over the cache, on some threads. */
static void check_decoding(Model *m, int prompt, int threads)
{
    int tokens[64 + RESPONSES * NEW], blocks = (prompt + 31) / 32 + RESPONSES * 3; /* 70 / 32 */
    size_t d = (size_t)m->config.hidden_size;
    tree_tokens(tokens, prompt + RESPONSES * NEW, m->config.vocab_size, 5, 0);
    float *expected = training_hidden(m, prompt, tokens);
    Engine e = nan_engine(1, pass_bytes(m, 64, 64, prompt + NEW, false) +
                                 kv_pool_bytes(&m->config, blocks) + (1 << 16));
    e.worker->threads = threads;
    KvPool pool = kv_pool_new(&e.arena, &m->config, blocks); /* not a block more than needed */
    KvSeq prompt_kv = kv_seq_new(&e.arena, prompt), kv[RESPONSES];
    Batch b = batch_new(&e.arena, prompt, 1, prompt);
    b.pool = &pool;
    b.seq[batch_seq(&b, tokens, prompt, 0, -1)].kv = &prompt_kv;
    kv_reserve(&pool, &prompt_kv, prompt);
    for (int i = 0; i < prompt; i++)
        batch_target(&b, i, 0);
    CHECK(same_bits(forward(&e.worker[0], m, &b, false).hidden, expected, (size_t)prompt * d),
          "prompt of %d: other bits in the cache", prompt);
    for (int k = 0; k < RESPONSES; k++)
        kv[k] = kv_seq_new(&e.arena, NEW);

    size_t mark = e.arena.used;
    for (int t = 0; t < NEW; t++, e.arena.used = mark, e.worker->used = 0) {
        b = batch_new(&e.arena, RESPONSES, RESPONSES, RESPONSES);
        b.pool = &pool;
        for (int k = 0; k < RESPONSES; k++) {
            Seq *s = &b.seq[batch_seq(&b, &tokens[prompt + k * NEW + t], 1, prompt + t, -1)];
            kv_reserve(&pool, &kv[k], t + 1);
            s->kv = &kv[k];
            s->prefix_kv = &prompt_kv;
            s->prefix_length = prompt;
            batch_target(&b, k, 0);
        }
        const float *hidden = forward(&e.worker[0], m, &b, false).hidden;
        for (size_t k = 0; k < RESPONSES; k++)
            CHECK(same_bits(hidden + k * d, expected + ((size_t)(prompt + t) + k * NEW) * d, d),
                  "prompt of %d, response %zu, token %d: other bits", prompt, k, t);
    }
    CHECK(pool.n_free == 0, "prompt of %d: %d cache blocks too many", prompt, pool.n_free);
    for (int k = 0; k < RESPONSES; k++)
        kv_release(&pool, &kv[k]);
    kv_release(&pool, &prompt_kv);
    CHECK(pool.n_free == blocks, "%d of %d cache blocks came back", pool.n_free, blocks);
    free(expected);
    engine_free(&e);
}

/* Across the borders of cache blocks (KEYS = 32), where prompt and response each begin a block. */
static void test_decoding(void)
{
    static const int prompts[] = {1, KEYS - 1, KEYS, KEYS + 1};
    for (int type = QWEN3; type <= QWEN2; type++) {
        Model m = tiny_model((ModelType)type, true, 50);
        for (int packed = 0; packed < 2; packed++) {
            for (int i = 0; i < 4; i++)
                check_decoding(&m, prompts[i], 1);
            model_pack(&m, 1);
        }
        check_decoding(&m, KEYS + 1, 3);
        model_free(&m);
    }
}

/* ---------------------------------------------------------------- the optimizer */

/* One AdamW update as its paper writes it, all in double. `g` is the gradient before clipping. */
typedef struct {
    double *w, *m, *v;
    size_t n;
} Reference;

static double reference_step(Reference *r, const AdamW *o, const float *g, double lr, int t)
{
    double norm = 0, clip = 1;
    for (size_t i = 0; i < r->n; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    if (o->clip_norm > 0 && norm > o->clip_norm)
        clip = o->clip_norm / norm;
    for (size_t i = 0; i < r->n; i++) {
        double x = (double)g[i] * clip;
        r->m[i] = o->beta1 * r->m[i] + (1 - o->beta1) * x;
        r->v[i] = o->beta2 * r->v[i] + (1 - o->beta2) * x * x;
        double m_hat = r->m[i] / (1 - pow(o->beta1, t)), v_hat = r->v[i] / (1 - pow(o->beta2, t));
        r->w[i] -= lr * o->weight_decay * r->w[i];
        r->w[i] -= lr * m_hat / (sqrt(v_hat) + o->eps);
    }
    return norm;
}

/* A gradient with entries of very different sizes, some zero. A tied head's own part comes last
 * and belongs to the embedding; `whole` is the sum of both. */
static void random_gradient(Model *m, int step, float *whole)
{
    for (size_t i = 0; i < m->n_grads; i++) {
        float x = noise((uint32_t)(70 + step), i);
        m->grads[i] = i % 11 ? x * x * x : 0.0f;
    }
    memcpy(whole, m->grads, m->n_params * sizeof *whole);
    for (size_t i = 0; i < m->n_grads - m->n_params; i++)
        whole[i] += m->grads[m->n_params + i];
}

/* Five updates; eps is large enough to matter. What counts is the change of the weights. */
static void check_adamw(double clip_norm, bool tied, int threads, uint64_t *hash)
{
    Model m = tiny_model(QWEN3, tied, 333);
    AdamW o = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1,
               .clip_norm = clip_norm};
    size_t n = m.n_params;
    Reference r = {xmalloc(n * sizeof(double)), xcalloc(n, sizeof(double)),
                   xcalloc(n, sizeof(double)), n};
    float *whole = nan_new(n), *start = copy_new(m.params, n);
    double error = 0, change = 0;
    for (size_t i = 0; i < n; i++)
        r.w[i] = (double)m.params[i];
    model_pack(&m, 1);
    for (int step = 0; step < 5; step++) {
        double lr = 0.01 / (step + 1);
        random_gradient(&m, step, whole);
        double norm = adamw_step(&m, &o, lr, threads);
        double expected = reference_step(&r, &o, whole, lr, step + 1);
        CHECK(fabs(norm / expected - 1) < 1e-12, "norm %.17g; expected %.17g", norm, expected);
    }
    for (size_t i = 0; i < n; i++) {
        error += pow((double)m.params[i] - r.w[i], 2);
        change += pow((double)start[i] - r.w[i], 2);
    }
    CHECK(sqrt(error / change) < 1e-5, "clip %g: five updates are off by %.1e of the change",
          clip_norm, sqrt(error / change));
    CHECK(o.step == 5, "%d updates counted", (int)o.step);
    float *packed = m.packed, *back = m.packed_back;
    m.packed = m.packed_back = NULL;
    model_pack(&m, 1);
    CHECK(same_bits(packed, m.packed, model_packed_floats(&m, false)) &&
              same_bits(back, m.packed_back, model_packed_floats(&m, true)),
          "the packed weights are not up to date");
    *hash = weights_hash(&m);
    free(packed);
    free(back);
    free(start);
    free(whole);
    free(r.w);
    free(r.m);
    free(r.v);
    model_free(&m);
}

static void test_adamw(void)
{
    uint64_t hash[3], other;
    for (int threads = 1; threads <= 3; threads++)
        check_adamw(0, true, threads, &hash[threads - 1]);
    CHECK(hash[0] == hash[1] && hash[0] == hash[2], "threads change the weights");
    check_adamw(0.5, true, 2, &other);
    CHECK(hash[0] != other, "clipping changes nothing");
    check_adamw(0.5, false, 1, &other);
    check_adamw(1e6, false, 1, &other); /* a bound that is never reached */
}

static void test_schedule(void)
{
    static const struct {
        Schedule kind;
        int step, warmup, steps;
        double expected;
    } cases[] = {
        {CONSTANT, 0, 0, 100, 1}, {CONSTANT, 99, 0, 100, 1},     {CONSTANT, 0, 10, 100, 0.1},
        {CONSTANT, 9, 10, 100, 1}, {CONSTANT, 10, 10, 100, 1},   {LINEAR, 0, 0, 100, 1},
        {LINEAR, 25, 0, 100, 0.75}, {LINEAR, 99, 0, 100, 0.01},  {LINEAR, 4, 10, 110, 0.5},
        {LINEAR, 10, 10, 110, 1}, {LINEAR, 60, 10, 110, 0.5},    {COSINE, 0, 0, 100, 1},
        {COSINE, 50, 0, 100, 0.5}, {COSINE, 25, 0, 100, 0.8535533905932737},
        {COSINE, 10, 10, 110, 1}, {COSINE, 60, 10, 110, 0.5},    {COSINE, 1, 4, 8, 0.5},
        {LINEAR, 5, 10, 10, 0.6}, {COSINE, 9, 10, 5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double lr = schedule_lr(cases[i].kind, 3e-4, cases[i].step, cases[i].warmup,
                                cases[i].steps);
        CHECK(fabs(lr / 3e-4 - cases[i].expected) < 1e-12,
              "schedule %d, step %d, warmup %d of %d: %g of the peak; expected %g",
              (int)cases[i].kind, cases[i].step, cases[i].warmup, cases[i].steps, lr / 3e-4,
              cases[i].expected);
    }
}

/* ---------------------------------------------------------------- the directory on disk */

static bool same_config(const Config *a, const Config *b)
{
    bool same = a->model_type == b->model_type && a->tie_word_embeddings == b->tie_word_embeddings;
    for (int i = 0; i < N_CONFIG_INTS; i++)
        same &= *config_int((Config *)a, i) == *config_int((Config *)b, i);
    for (int i = 0; i < MAX_EOS; i++)
        same &= i >= a->n_eos || a->eos_token_id[i] == b->eos_token_id[i];
    return same && a->rms_norm_eps == b->rms_norm_eps && a->rope_theta == b->rope_theta &&
           a->bos_token_id == b->bos_token_id && a->n_eos == b->n_eos;
}

static Path test_dir(const char *name)
{
    Path p = path_join(tmp_dir(), name);
    make_dirs(p.s);
    return p;
}

static void test_model_directory(void)
{
    Path dir = test_dir("model");
    for (int type = QWEN3; type <= LLAMA; type++)
        for (int tied = 0; tied < 2; tied++) {
            Model m = tiny_model((ModelType)type, tied, 50);
            m.config.n_eos = type; /* none, one, two */
            m.config.eos_token_id[0] = 49;
            m.config.eos_token_id[1] = 3;
            m.config.bos_token_id = tied ? 7 : -1;
            m.config.rope_theta = 1234567.125;
            m.params[0] = -0.0f;
            m.params[1] = 0x1p-149f;
            model_save(&m, dir.s);
            Model back = model_load(dir.s);
            CHECK(same_config(&m.config, &back.config), "%s: config.json", MODEL_TYPES[type]);
            CHECK(m.n_params == back.n_params && same_bits(m.params, back.params, m.n_params),
                  "%s: the weights come back with other bits", MODEL_TYPES[type]);
            CHECK(weights_hash(&m) == weights_hash(&back), "weights_hash differs");
            back.params[m.n_params - 1] += 1;
            CHECK(weights_hash(&m) != weights_hash(&back), "weights_hash misses the last weight");
            model_free(&m);
            model_free(&back);
        }

    /* A run's directory stands for its newest checkpoint: by number, not by name or time. */
    Path run = test_dir("run");
    CHECK(!strcmp(model_dir(run.s).s, run.s), "a directory without checkpoints is itself");
    Path newest = test_dir("run/checkpoint-100");
    test_dir("run/checkpoint-20");
    test_dir("run/checkpoint-3");
    test_dir("run/checkpoint-999.tmp-1");
    test_dir("run/checkpoint-");
    CHECK(!strcmp(model_dir(run.s).s, newest.s), "model_dir gives %s; expected %s",
          model_dir(run.s).s, newest.s);
    CHECK(!strcmp(model_dir(dir.s).s, dir.s), "a model's directory is itself");
}

static void config_for_dying(void *path)
{
    size_t n;
    char *text = read_file(path, &n);
    config_parse(path, text, n);
    free(text);
}

/* A good config.json with one field replaced (or, where value is NULL, left out): the line that
 * ends the program must name the file and the field. Where `named` is NULL it must be read. */
static void check_bad_config(const char *field, const char *value, const char *named)
{
    static const struct {
        const char *name, *value;
    } good[] = {
        {"model_type", "\"llama\""}, {"vocab_size", "50"}, {"hidden_size", "24"},
        {"intermediate_size", "20"}, {"num_hidden_layers", "1"}, {"num_attention_heads", "4"},
        {"num_key_value_heads", "2"}, {"head_dim", "6"}, {"rms_norm_eps", "1e-6"},
        {"max_window_layers", "0"},
    };
    Path path = path_join(test_dir("bad").s, "config.json");
    Buf b = {0};
    char err[1024] = "";
    buf_str(&b, "{");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (strcmp(good[i].name, field))
            buf_printf(&b, "\"%s\": %s, ", good[i].name, good[i].value);
    if (value)
        buf_printf(&b, "\"%s\": %s, ", field, value);
    buf_str(&b, "\"pad_token_id\": null}");
    write_file(path.s, b.s, b.n);
    int status = dies(config_for_dying, path.s, err, sizeof err);
    if (named)
        CHECK(status == 1 && strstr(err, path.s) && strstr(err, named),
              "%s: %s: status %d, '%s'; expected 1 and '%s'", field, value ? value : "missing",
              status, err, named);
    else
        CHECK(status == 0 && !*err, "%s: %s: status %d, '%s'; expected to be read", field, value,
              status, err);
    buf_free(&b);
}

static void test_config_errors(void)
{
    static const char *const cases[][3] = { /* field, value, what the message must name */
        {"vocab_size", NULL, "vocab_size"},
        {"vocab_size", "0", "vocab_size"},
        {"hidden_size", "24.5", "hidden_size"},
        {"hidden_size", "1e30", "hidden_size"},
        {"intermediate_size", "-4", "intermediate_size"},
        {"num_hidden_layers", "\"2\"", "num_hidden_layers"},
        {"num_key_value_heads", "3", "num_key_value_heads"},
        {"head_dim", "5", "head_dim"},
        {"model_type", "\"gpt2\"", "model_type 'gpt2'"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rope_theta", "-1", "rope_theta"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 0}", "rope_theta"},
        {"rope_parameters", "{\"rope_theta\": \"big\"}", "rope_theta"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", "rope_scaling"},
        {"rope_scaling", "{\"factor\": 2.0, \"rope_type\": \"yarn\"}", "'yarn'"},
        {"hidden_act", "\"gelu\"", "hidden_act"},
        {"rope_scaling", "{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor"},
        {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}", "rope_type"},
        {"partial_rotary_factor", "0.25", "partial_rotary_factor is 0.25"},
        {"attention_bias", "true", "attention_bias"},
        {"attention_bias", "\"no\"", "attention_bias"},
        {"final_logit_softcapping", "30.0", "final_logit_softcapping"},
        {"attn_logit_softcapping", "50.0", "attn_logit_softcapping"},
        {"compression_config", "{}", "compression_config"},
        {"per_layer_config", "[]", "per_layer_config"},
        {"max_position_embeddings", "null", "max_position_embeddings"},
        {"mlp_bias", "1", "mlp_bias"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"layer_types", "[\"full_attention\", \"sliding_attention\"]", "layer_types"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"tie_word_embeddings", "\"yes\"", "tie_word_embeddings"},
        {"eos_token_id", "50", "eos_token_id"},
        {"eos_token_id", "[1, 2, -3]", "eos_token_id"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "eos_token_id"},
        {"bos_token_id", "tru", "line 1"},
        {"anything", "{", "line 1"},
        /* these are fine */
        {"head_dim", NULL, NULL},
        {"head_dim", "null", NULL},
        {"num_key_value_heads", NULL, NULL},
        {"rope_scaling", "null", NULL},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 1e6}", NULL},
        {"use_sliding_window", "false", NULL},
        {"eos_token_id", "[1, 49]", NULL},
        {"hidden_act", "\"silu\"", NULL},
        {"hidden_act", "\"swish\"", NULL},
        {"partial_rotary_factor", "1.0", NULL},
        {"attention_bias", "false", NULL},
        {"mlp_bias", "false", NULL},
        {"attention_dropout", "0.5", NULL},
        {"pretraining_tp", "2", NULL},
        {"sliding_window", "4096", NULL},
        {"layer_types", "null", NULL},
        {"layer_types", "[\"full_attention\"]", NULL},
        {"quantization_config", "null", NULL},
        {"rope_scaling", "{\"rope_type\": \"default\"}", NULL},
        {"rope_parameters", "{}", NULL},
        {"torch_dtype", "\"float64\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_bad_config(cases[i][0], cases[i][1], cases[i][2]);
}

static Config config_of(const char *text) { return config_parse("test", text, strlen(text)); }

/* What a config.json leaves out or says in an older or newer way, as transformers takes it. */
static void test_config_defaults(void)
{
#define SIZES "\"vocab_size\": 50, \"hidden_size\": 192, \"intermediate_size\": 20, " \
              "\"num_hidden_layers\": 3, \"num_attention_heads\": "
    Config q3 = config_of("{\"model_type\": \"qwen3\", " SIZES "64}");
    CHECK(q3.num_key_value_heads == 32 && q3.head_dim == 128 && !q3.tie_word_embeddings &&
              q3.max_position_embeddings == 32768 && q3.n_eos == 0 && q3.bos_token_id == -1 &&
              q3.rope_theta == 10000 && q3.rms_norm_eps == 1e-6, "qwen3's defaults");
    Config q2 = config_of("{" SIZES "96, \"model_type\": \"qwen2\", \"attention_bias\": true}");
    CHECK(q2.num_key_value_heads == 32 && q2.head_dim == 2, "qwen2's defaults");
    Config ll = config_of("{\"model_type\": \"llama\", " SIZES "6}");
    CHECK(ll.num_key_value_heads == 6 && ll.head_dim == 32 && ll.max_position_embeddings == 2048 &&
              ll.bos_token_id == 1 && ll.n_eos == 1 && ll.eos_token_id[0] == 2, "llama's defaults");
    ll = config_of("{\"model_type\": \"llama\", \"eos_token_id\": null, \"bos_token_id\": null, "
                   "\"head_dim\": null, \"num_key_value_heads\": null, " SIZES "6}");
    CHECK(ll.n_eos == 0 && ll.bos_token_id == -1 && ll.head_dim == 32 &&
              ll.num_key_value_heads == 6, "null is not the default");

    static const char *const thetas[] = { /* 12345 wins in each */
        "\"rope_theta\": 12345",
        "\"rope_theta\": 12345, \"rope_scaling\": null",
        "\"rope_theta\": 12345, \"rope_scaling\": {\"type\": \"default\"}",
        "\"rope_parameters\": {\"rope_theta\": 12345, \"rope_type\": \"default\"}",
        "\"rope_theta\": 1, \"rope_parameters\": {\"rope_theta\": 12345}",
        "\"rope_parameters\": {\"rope_theta\": 12345}, \"rope_theta\": 1",
    };
    static const char *const windows[] = { /* none of these limits a layer */
        "\"use_sliding_window\": false, \"sliding_window\": 8, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": null, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 3",
        "\"use_sliding_window\": true, \"sliding_window\": 8",
        ("\"use_sliding_window\": true, \"max_window_layers\": 0, "
         "\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\"]"),
    };
    char text[512];
    for (size_t i = 0; i < sizeof thetas / sizeof *thetas; i++) {
        snprintf(text, sizeof text, "{%s, " SIZES "32}", thetas[i]);
        CHECK(config_of(text).rope_theta == 12345, "%s: %g", thetas[i], config_of(text).rope_theta);
    }
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        snprintf(text, sizeof text, "{%s, " SIZES "32}", windows[i]);
        CHECK(config_of(text).num_hidden_layers == 3, "%s", windows[i]);
    }
#undef SIZES
}

static void load_for_dying(void *dir)
{
    Model m = model_load(dir);
    model_free(&m);
}

/* generation_config.json decides where a response ends, if it says so. */
static void test_generation_config(void)
{
    static const struct {
        const char *text;
        int n, first;
    } cases[] = {
        {NULL, 2, 7}, {"{}", 2, 7}, {"{\"eos_token_id\": null}", 2, 7},
        {"{\"eos_token_id\": 9, \"temperature\": 0.6}", 1, 9},
        {"{\"eos_token_id\": [4, 7]}", 2, 4}, {"{\"eos_token_id\": 50}", 2, 7},
        {"{\"eos_token_id\": [4, 50, 6]}", 2, 4},
    };
    Path dir = test_dir("generation"), path = path_join(dir.s, "generation_config.json");
    Model m = tiny_model(QWEN3, true, 50);
    m.config.eos_token_id[m.config.n_eos++] = 7;
    m.config.eos_token_id[m.config.n_eos++] = 8;
    model_save(&m, dir.s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].text)
            write_file(path.s, cases[i].text, strlen(cases[i].text));
        Model back = model_load(dir.s);
        CHECK(back.config.n_eos == cases[i].n && back.config.eos_token_id[0] == cases[i].first,
              "%s: %d ids, first %d", cases[i].text ? cases[i].text : "no file",
              back.config.n_eos, back.config.eos_token_id[0]);
        model_free(&back);
    }
    static const char *const bad[] = {"{", "{\"eos_token_id\": \"x\"}", "[]",
                                      "{\"eos_token_id\": [1, -1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char err[1024];
        write_file(path.s, bad[i], strlen(bad[i]));
        CHECK(dies(load_for_dying, dir.s, err, sizeof err) == 1 &&
                  strstr(err, "generation_config.json"), "%s: %s", bad[i], err);
    }
    model_free(&m);
}

/* A config.json with another dtype: everything else stays, byte for byte. */
static void test_config_dtype(void)
{
    static const char *const cases[][2] = {
        {"{\"a\": {\"dtype\": 1}, \"torch_dtype\": \"float32\",\n \"b\": [2]}\n",
         "{\"a\": {\"dtype\": 1}, \"torch_dtype\": \"bfloat16\",\n \"b\": [2]}\n"},
        {"{\"dtype\" :null}", "{\"dtype\" :\"bfloat16\"}"},
        {"{ \"dtype\":\"a\", \"torch_dtype\":\"b\"}",
         "{ \"dtype\":\"bfloat16\", \"torch_dtype\":\"bfloat16\"}"},
        {"{\n  \"x\": 1\n}", "{\n  \"torch_dtype\": \"bfloat16\",\n  \"x\": 1\n}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = config_with_dtype(cases[i][0], ST_BF16);
        CHECK(!strcmp(text, cases[i][1]), "%s became %s", cases[i][0], text);
        free(text);
    }
}

/* The tensors of a model as two shards and an index, in their dtypes. */
static void save_in_shards(const Model *m, const char *dir)
{
    static const char *const shards[] = {"model-00001-of-00002.safetensors",
                                         "model-00002-of-00002.safetensors"};
    StOut *out = xcalloc((size_t)m->n_tensors, sizeof *out);
    Buf index = {0};
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        if (!t->size)
            continue;
        out[n++] = (StOut){t->name, t->cols ? 2 : 1, {t->rows, t->cols}, at(m, m->params, i),
                           t->dtype};
        buf_printf(&index, "%s\"%s\": \"%s\"", n > 1 ? ", " : "{\"weight_map\": {", t->name,
                   shards[n > 5]);
    }
    buf_str(&index, "}}");
    st_write(path_join(dir, shards[0]).s, "", out, 5);
    st_write(path_join(dir, shards[1]).s, "", out + 5, n - 5);
    config_write(&m->config, m->tensors[EMBED].dtype, path_join(dir, "config.json").s);
    write_file(path_join(dir, "model.safetensors.index.json").s, index.s, index.n);
    free(out);
    buf_free(&index);
}

/* Loaded, saved, loaded: no value changes that its dtype can hold, and no dtype does. */
static void check_round_trip(const Model *m, const char *from, const char *what)
{
    Path dir = test_dir("round-trip");
    Model a = model_load(from);
    CHECK(model_save(&a, dir.s) == 0, "%s: weights are rounded", what);
    Model b = model_load(dir.s);
    CHECK(same_config(&m->config, &b.config), "%s: the config changes", what);
    CHECK(!strcmp(a.config_text, b.config_text), "%s: the text of config.json changes", what);
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        const float *x = at(m, m->params, i), *y = at(&a, a.params, i);
        int wrong = 0;
        for (size_t k = 0; k < t->size; k++)
            wrong += st_round(x[k], t->dtype) != y[k];
        CHECK(wrong == 0, "%s: %s: %d values are read wrong", what, t->name, wrong);
        CHECK(!t->size || (b.tensors[i].dtype == t->dtype &&
                           same_bits(y, at(&b, b.params, i), t->size)),
              "%s: %s: dtype or values change on the way", what, t->name);
    }
    SafeTensors st = st_open_dir(dir.s);
    CHECK(!m->config.tie_word_embeddings == !!st_find(&st, "lm_head.weight"), "%s: the head", what);
    st_close(&st);
    model_free(&a);
    model_free(&b);
}

static void test_round_trips(void)
{
    static const int dtypes[] = {ST_F32, ST_BF16, ST_F16};
    for (int type = QWEN3; type <= LLAMA; type++)
        for (int k = 0; k < 16; k++) {
            bool tied = k & 1, sharded = k & 2;
            char what[64];
            snprintf(what, sizeof what, "%s-%d", MODEL_TYPES[type], k);
            Path dir = test_dir(what);
            Model m = tiny_model((ModelType)type, tied, 50);
            for (int i = 0; i < m.n_tensors; i++) /* the last four: mixed */
                m.tensors[i].dtype = dtypes[k < 12 ? k / 4 : (i + 1) % 3];
            if (sharded)
                save_in_shards(&m, dir.s);
            else
                model_save(&m, dir.s);
            check_round_trip(&m, dir.s, what);
            model_free(&m);
        }
    Path large = test_dir("large"), root;
    Model m = tiny_model(QWEN3, true, 53000); /* more than is read at once */
    model_set_dtype(&m, ST_BF16);
    model_save(&m, large.s);
    check_round_trip(&m, large.s, "large");
    model_free(&m);
    if (!shared_dir(&root, "models")) {
        skip("models that others wrote are in ../shared/data");
        return;
    }
    static const char *const names[] = {"q3_tied_bf16", "q3_tied_f16_sharded", "q2_tied_f32",
                                        "q3_untied_bf16_sharded", "llama_untied_f32_theta500k"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Path dir = path_join(root.s, names[i]);
        m = model_load(dir.s);
        check_round_trip(&m, dir.s, names[i]);
        model_free(&m);
    }
}

typedef struct {
    const Model *m;
    const char *dir;
} Saving;

static void save_for_dying(void *saving)
{
    const Saving *s = saving;
    model_save(s->m, s->dir);
}

/* Another dtype rounds, says how much, and refuses what it cannot hold. */
static void test_saved_dtype(void)
{
    Path dir = test_dir("dtype");
    Model m = tiny_model(QWEN3, true, 50);
    char err[1024];
    model_save(&m, dir.s);
    for (int dtype = ST_F32; dtype <= ST_BF16; dtype++) {
        Model a = model_load(dir.s);
        size_t rounded = 0, wrong = 0;
        model_set_dtype(&a, dtype);
        size_t said = model_save(&a, test_dir("dtype-2").s);
        Model b = model_load(test_dir("dtype-2").s);
        for (size_t i = 0; i < a.n_params; i++) {
            rounded += a.params[i] != b.params[i];
            wrong += b.params[i] != st_round(a.params[i], dtype);
        }
        CHECK(said == rounded && wrong == 0, "%s: %zu weights rounded, %zu said, %zu wrong",
              TORCH_DTYPES[dtype], rounded, said, wrong);
        CHECK((rounded == 0) == (dtype == ST_F32), "%s: %zu rounded", TORCH_DTYPES[dtype], rounded);
        CHECK(strstr(b.config_text, TORCH_DTYPES[dtype]), "%s", b.config_text);
        model_free(&a);
        model_free(&b);
    }
    model_set_dtype(&m, ST_F16);
    at(&m, m.params, final_norm(&m.config))[3] = -65519;
    CHECK(dies(save_for_dying, &(Saving){&m, dir.s}, err, sizeof err) == 0, "%s", err);
    at(&m, m.params, final_norm(&m.config))[3] = -65520;
    CHECK(dies(save_for_dying, &(Saving){&m, dir.s}, err, sizeof err) == 1 &&
              strstr(err, "model.norm.weight holds -65520, which F16 cannot"), "%s", err);
    model_set_dtype(&m, ST_BF16);
    at(&m, m.params, final_norm(&m.config))[3] = 3.4e38f;
    CHECK(dies(save_for_dying, &(Saving){&m, dir.s}, err, sizeof err) == 1 &&
              strstr(err, "model.norm.weight holds 3.4e+38, which BF16 cannot"), "%s", err);
    model_free(&m);
}

/* A tied model may store its head again; one that is another matrix is refused. */
static void test_stored_twice(void)
{
    Path dir = test_dir("twice"), path = path_join(dir.s, "model.safetensors");
    Model m = tiny_model(QWEN3, true, 50), u;
    Config untied = m.config;
    char err[1024];
    untied.tie_word_embeddings = false;
    u = model_new(&untied);
    memcpy(u.params, m.params, m.n_params * sizeof(float));
    memcpy(at(&u, u.params, lm_head(&untied)), m.params, m.tensors[EMBED].size * sizeof(float));
    for (int equal = 1; equal >= 0; equal--) {
        u.params[u.n_params - 1] += equal ? 0.0f : 1.0f;
        model_save(&u, dir.s);
        config_write(&m.config, ST_F32, path_join(dir.s, "config.json").s);
        int status = dies(load_for_dying, dir.s, err, sizeof err);
        CHECK(status == !equal, "status %d, %s", status, err);
    }
    CHECK(strstr(err, path.s) && strstr(err, "lm_head.weight is not the embedding"), "%s", err);
    model_free(&m);
    model_free(&u);
}

/* Weights that do not fit their config.json: the message names the directory and a tensor. */
static void test_misfits(void)
{
    static const char *const named[] = {"vocab_size", "self_attn.q_proj", "lm_head.weight",
                                        "layers.2.input_layernorm"};
    Path dir = test_dir("misfit");
    Model m = tiny_model(QWEN3, true, 50);
    for (int k = 0; k < 4; k++) {
        char err[1024];
        Config c = m.config;
        c.vocab_size += k == 0;
        c.head_dim += 2 * (k == 1);
        c.tie_word_embeddings = k != 2;
        c.num_hidden_layers += k == 3;
        model_save(&m, dir.s);
        config_write(&c, ST_F32, path_join(dir.s, "config.json").s);
        int status = dies(load_for_dying, dir.s, err, sizeof err);
        CHECK(status == 1 && strstr(err, dir.s) && strstr(err, named[k]),
              "misfit %d: status %d, '%s'; expected 1 and '%s'", k, status, err, named[k]);
    }
    for (int k = 0; k < 3; k++) {
        char err[1024];
        m.params[k ? m.n_params - 1 : 0] = k == 2 ? NAN : -HUGE_VALF;
        model_save(&m, dir.s);
        CHECK(dies(load_for_dying, dir.s, err, sizeof err) == 1 && strstr(err, dir.s) &&
                  strstr(err, k ? "model.norm.weight" : "model.embed_tokens.weight") &&
                  strstr(err, "not finite"), "%s", err);
        m.params[0] = 0;
    }
    model_free(&m);
}

/* ================================================================ the method */

/* Groups of ../oracle/MODEL.g2rl: 4 of 6 responses. Group 1 is all wrong, group 2 six times the
 * same response, group 3 holds a duplicate pair and a response of one token. */
enum { ORACLE_GROUPS = 4, ORACLE_M = 6 };

static void oracle_groups(const SafeTensors *st, Engine *e, int d, Group *g)
{
    const StTensor *t = st_find(st, "tokens");
    int width = (int)t->shape[1], first = 0;
    int32_t *tokens = xmalloc((size_t)(24 * width) * sizeof *tokens), lengths[24];
    float *mask = tensor_values(st, "mask", NULL), *reward = tensor_values(st, "rewards", NULL);
    st_read_i32(t, tokens);
    st_read_i32(st_find(st, "lengths"), lengths);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        g[k] = group_new(&e->arena, ORACLE_M, width, width, d);
        g[k].index = (uint32_t)k;
        for (int i = 0; i < ORACLE_M; i++) {
            int row = k * ORACLE_M + i;
            for (first = 0; mask[row * (width - 1) + first] == 0;)
                first++;
            g[k].prompt_length = first + 1;
            for (int j = 0; j <= first; j++)
                g[k].prompt[j] = tokens[row * width + j];
            int n = lengths[row] - first - 1;
            for (int j = 0; j < n; j++)
                g[k].token[g[k].start[i] + j] = tokens[row * width + first + 1 + j];
            g[k].start[i + 1] = g[k].start[i] + n;
            g[k].reward[i] = (double)reward[row];
        }
        g[k].n_tokens = g[k].start[ORACLE_M];
    }
    free(tokens);
    free(mask);
    free(reward);
}

/* Copies a per-token field of the oracle, [24, width - 1] by position, into a group's order. */
static void oracle_tokens(const SafeTensors *st, const char *name, const Group *g, int k,
                          float *out)
{
    size_t count;
    float *x = tensor_values(st, name, &count);
    int width = (int)(count / 24);
    for (int i = 0; i < g->m; i++)
        for (int t = 0; t < response_length(g, i); t++)
            out[g->start[i] + t] = x[(k * ORACLE_M + i) * width + g->prompt_length - 1 + t];
    free(x);
}

/* Compares a field of all groups, n numbers each, with the oracle's tensor. */
static void check_field(const SafeTensors *st, const char *name, const char *suffix, const Group *g,
                        size_t offset, int n, double tolerance)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    float *x = tensor_values(st, full, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        const double *y = *(double *const *)((const char *)&g[k] + offset);
        for (int i = 0; i < n; i++)
            CHECK(fabs(y[i] - (double)x[k * n + i]) < tolerance,
                  "%s, group %d, entry %d: %g, not %g", full, k, i, y[i], (double)x[k * n + i]);
    }
    free(x);
}

/* Phi, S, w, nu, nubar, shaped rewards in both readings and advantages at one temperature. */
static void oracle_method(Engine *e, Model *m, Group *g, const SafeTensors *st, double temperature,
                          const char *suffix)
{
    int d = m->config.hidden_size, mm = ORACLE_M * ORACLE_M;
    char name[32];
    View view = {m, NULL, temperature, {.method = G2RL, .lambda = 0.5}, 1, 0};
    view.method.shaping = SHAPING_LITERAL;
    size_t mark = e->arena.used;
    look(&e->worker[0], &view, g, ORACLE_GROUPS, KEEP_NOTHING, true);
    snprintf(name, sizeof name, "Phi%s", suffix);
    float *Phi = tensor_values(st, name, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        double error = relative_error(g[k].Phi, Phi + k * ORACLE_M * d, (size_t)(ORACLE_M * d));
        CHECK(error < 1e-5, "Eq 6-8, 14: %s of group %d is off by %g", name, k, error);
    }
    free(Phi);
    check_field(st, "S", suffix, g, offsetof(Group, S), mm, 1e-5);         /* Eq 9 */
    check_field(st, "w", suffix, g, offsetof(Group, w), mm, 1e-6);         /* Eq 10 */
    check_field(st, "nu", suffix, g, offsetof(Group, nu), ORACLE_M, 1e-5); /* Eq 11 */
    check_field(st, "nubar", suffix, g, offsetof(Group, nubar), ORACLE_M, 2e-5);
    check_field(st, "rtilde", suffix, g, offsetof(Group, shaped), ORACLE_M, 2e-5); /* Eq 12-13 */
    check_field(st, "A", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-4);   /* Eq 2 */
    view.method.shaping = SHAPING_TEXT;
    look(&e->worker[0], &view, g, ORACLE_GROUPS, KEEP_NOTHING, true);
    check_field(st, "rtilde_text", suffix, g, offsetof(Group, shaped), ORACLE_M, 4e-5);
    check_field(st, "A_text", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-4);
    for (int i = 0; i < ORACLE_M; i++)
        CHECK(g[2].nubar[i] == 0 && g[2].advantage[i] == 0,
              "six identical responses: nubar %g, A %g", g[2].nubar[i], g[2].advantage[i]);
    view.method.method = GRPO;
    look(&e->worker[0], &view, g, ORACLE_GROUPS, KEEP_NOTHING, true);
    check_field(st, "A_grpo", suffix, g, offsetof(Group, advantage), ORACLE_M, 1e-5);
    e->arena.used = mark;
}

static void test_method_oracle(void)
{
    static const char *const models[] = {"q3_tied_f32", "q3_untied_f32"};
    for (int i = 0; i < 2; i++) {
        char name[96];
        Path dir, file;
        snprintf(name, sizeof name, "models/%s", models[i]);
        bool there = vectors(&dir, name);
        snprintf(name, sizeof name, "oracle/%s.g2rl.safetensors", models[i]);
        if (!there || !vectors(&file, name)) {
            skip("q3_untied_f32 needs ../shared/data");
            continue;
        }
        Engine e = engine_new(2, 1 << 26, 1 << 26);
        Model m = model_load(dir.s);
        SafeTensors st = st_open_file(file.s);
        Group g[ORACLE_GROUPS];
        oracle_groups(&st, &e, m.config.hidden_size, g);
        rope_reserve(&m, 64);
        oracle_method(&e, &m, g, &st, 1.0, "");
        oracle_method(&e, &m, g, &st, 0.8, "_T0.8");
        st_close(&st);
        model_free(&m);
        engine_free(&e);
    }
}

/* One loss of the oracle and its gradient. `advantage`, `loss`, `prefix`: names of tensors. */
static void oracle_loss(Engine *e, Model *m, const SafeTensors *tokens, const SafeTensors *st,
                        const SafeTensors *grads, Loss kind, double temperature,
                        const char *advantage, const char *loss_name, const char *prefix)
{
    size_t mark = e->arena.used;
    Group g[ORACLE_GROUPS];
    MethodOptions o = {.loss = kind, .clip_low = 0.2, .clip_high = 0.2, .kl_coef = 0.001};
    Update u = {.view = {m, NULL, temperature, o, 0, 0}, .micro_batch = 3};
    LossSums sums = {0};
    oracle_groups(tokens, e, m->config.hidden_size, g);
    float *A = tensor_values(st, advantage, NULL), *want = tensor_values(st, loss_name, NULL);
    for (int k = 0; k < ORACLE_GROUPS; k++) {
        oracle_tokens(st, "old_logprobs", &g[k], k, g[k].logprob_old);
        oracle_tokens(st, "ref_logprobs", &g[k], k, g[k].logprob_ref);
        for (int i = 0; i < ORACLE_M; i++)
            g[k].advantage[i] = (double)A[k * ORACLE_M + i];
    }
    grads_zero(m);
    accumulate_gradient(e, m, g, ORACLE_GROUPS, &u, false, &sums);
    double loss = sums.loss;
    grads_finish(m);
    CHECK(fabs(loss - (double)*want) < 1e-5, "Eq 3-4: %s is %.8g, not %.8g", loss_name, loss,
          (double)*want);
    for (int i = 0; i < m->n_tensors && grads; i++) {
        char name[128];
        const Tensor *t = &m->tensors[i];
        if (!t->size)
            continue;
        snprintf(name, sizeof name, "%s.%s", prefix, t->name);
        float *x = tensor_values(grads, name, NULL);
        double error = relative_error(at(m, m->grads, i), x, t->size);
        CHECK(error < 2e-5, "%s: %s is off by %g", loss_name, name, error);
        free(x);
    }
    if (st_find(st, "clipfrac")) {
        float *clipped = tensor_values(st, "clipfrac", NULL);
        double share = (double)(sums.clipped_low + sums.clipped_high) / sums.tokens;
        CHECK(fabs(share - (double)*clipped) < 1e-6, "clip fraction %g, not %g", share,
              (double)*clipped);
        free(clipped);
    }
    free(A);
    free(want);
    e->arena.used = mark;
}

static void test_loss_oracle(void)
{
    static const char *const models[] = {"q3_tied_f32", "q3_untied_f32"};
    for (int i = 0; i < 2; i++) {
        char name[96];
        Path dir, file[3];
        bool there[3];
        static const char *const kinds[] = {"g2rl", "g2rl_grad", "g2rl_T0.8"};
        snprintf(name, sizeof name, "models/%s", models[i]);
        if (!vectors(&dir, name)) {
            skip("q3_untied_f32 needs ../shared/data");
            continue;
        }
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "oracle/%s.%s.safetensors", models[i], kinds[k]);
            there[k] = vectors(&file[k], name);
        }
        Engine e = engine_new(2, 1 << 26, 1 << 26);
        Model m = model_load(dir.s);
        model_trainable(&m, false);
        rope_reserve(&m, 64);
        SafeTensors st = st_open_file(file[0].s), grads = {0};
        if (there[1])
            grads = st_open_file(file[1].s);
        else
            skip("gradients of the oracle's losses need ../shared/data");
        oracle_loss(&e, &m, &st, &st, there[1] ? &grads : NULL, LOSS_SEQUENCE, 1.0, "A",
                    "loss_seqmean", "grad");
        oracle_loss(&e, &m, &st, &st, NULL, LOSS_TOKEN, 1.0, "A", "loss_tokenmean", "");
        if (there[1])
            st_close(&grads);
        if (there[2]) {
            SafeTensors cold = st_open_file(file[2].s);
            oracle_loss(&e, &m, &st, &cold, &cold, LOSS_TOKEN, 0.8, "A", "loss_token",
                        "grad_token");
            oracle_loss(&e, &m, &st, &cold, &cold, LOSS_SEQUENCE, 0.8, "A", "loss_sequence",
                        "grad_sequence");
            st_close(&cold);
        } else
            skip("losses at temperature 0.8 need ../shared/data");
        st_close(&st);
        model_free(&m);
        engine_free(&e);
    }
}

/* The derivative of Eq 4's term, in every region of the clip, against central differences. */
static void test_token_loss(void)
{
    MethodOptions o = {.clip_low = 0.2, .clip_high = 0.3, .kl_coef = 0.5};
    LossSums sums = {0};
    const double old = -1.5, ref = -2.25, h = 1e-6;
    for (int kl = KL_K3; kl <= KL_EXACT; kl++)
        for (double A = -1.5; A < 2; A += 0.75)
            for (double log_ratio = -0.62; log_ratio < 0.63; log_ratio += 0.04) {
                double x = old + log_ratio, slope, unused;
                o.kl = (KlTerm)kl;
                double up = token_loss(x + h, old, ref, A, &o, &unused, &sums);
                double down = token_loss(x - h, old, ref, A, &o, &unused, &sums);
                token_loss(x, old, ref, A, &o, &slope, &sums);
                CHECK(fabs((up - down) / (2 * h) - slope) < 1e-6, "KL %d, A %g, log ratio %g: %g, "
                      "not %g", kl, A, log_ratio, slope, (up - down) / (2 * h));
            }
    o.kl = KL_K2;
    double k2 = token_loss(-1, -1, -3, 0, &o, &(double){0}, &sums);
    o.kl = KL_K3;
    double k3 = token_loss(-1, -1, -3, 0, &o, &(double){0}, &sums);
    CHECK(fabs(k2 - 0.5 * 2) < 1e-12 && fabs(k3 - 0.5 * (exp(-2) + 1)) < 1e-12,
          "k2 %g and k3 %g of q = -2, times 0.5", k2, k3);
    sums = (LossSums){0};
    double slope;
    CHECK(token_loss(30, -1, 30, 1, &o, &slope, &sums) == -1.3 && slope == 0 && sums.clamped == 1,
          "a log ratio of 31 must be clamped and counted");
    sums = (LossSums){0};
    token_loss(old + 0.5, old, ref, 1, &o, &slope, &sums);
    token_loss(old - 0.5, old, ref, -1, &o, &slope, &sums);
    token_loss(old - 0.5, old, ref, 1, &o, &slope, &sums);
    CHECK(sums.clipped_high == 1 && sums.clipped_low == 1 && sums.tokens == 3, "clip counts");
    CHECK(fabs(sums.k1 - 3 * (old - ref) - 0.5 + 0.5 + 0.5) < 1e-12, "k1 = log p - log p_ref");
}

/* A group whose every number is noise; response 1 was cut off. */
static Group noise_group(Engine *e)
{
    enum { M = 3 };
    static const int lengths[M] = {2, 3, 1};
    Group g = group_new(&e->arena, M, 4, 4, 8);
    float **rows[] = {&g.logprob, &g.logprob_old, &g.logprob_ref, &g.entropy, &g.kl};
    for (int i = 0; i < M; i++) {
        g.start[i + 1] = g.start[i] + lengths[i];
        g.truncated[i] = i == 1;
        g.advantage[i] = i - 0.7;
    }
    g.n_tokens = g.start[M];
    for (int k = 0; k < 5; k++) {
        float *x = noise_new((uint32_t)(70 + k), (size_t)g.n_tokens);
        memcpy(*rows[k], x, (size_t)g.n_tokens * sizeof(float));
        free(x);
    }
    return g;
}

/* d loss / d x[t] of a group's loss, by central differences; the loss is piecewise smooth. */
static double loss_slope(Group *g, const MethodOptions *o, Coef scratch, float *x)
{
    LossSums sums = {0};
    const float h = 0x1p-10f, before = *x;
    double f[2];
    for (int k = 0; k < 2; k++) {
        *x = before + (k ? h : -h);
        f[k] = group_loss(g, o, 9, 4, scratch, &sums);
    }
    *x = before;
    return (f[1] - f[0]) / (2 * (double)h);
}

/* Every choice of loss: what it says of each token's log p, entropy and exact KL is the derivative
 * of the number that it reports. The batch has 9 tokens and 4 responses. */
static void test_group_loss(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    Group g = noise_group(&e);
    for (int k = 0; k < 24; k++) {
        MethodOptions o = {.loss = (Loss)(k % 2), .kl = (KlTerm)(k / 2 % 3), .clip_low = 0.2,
                           .clip_high = 0.3, .kl_coef = 0.5, .mask_truncated = k / 6 % 2,
                           .entropy_coef = k / 12 ? 0.3 : 0};
        size_t mark = e.arena.used, n = (size_t)g.n_tokens;
        Coef c = coef_new(&e.arena, n, &o), scratch = coef_new(&e.arena, n, &o);
        LossSums sums = {0};
        CHECK(!c.kl == (o.kl != KL_EXACT) && !c.entropy == !o.entropy_coef, "NULL where idle: %d",
              k);
        group_loss(&g, &o, 9, 4, c, &sums);
        CHECK(sums.tokens == (o.mask_truncated ? 3 : 6), "%d tokens", sums.tokens);
        for (size_t t = 0; t < n; t++) {
            double p = loss_slope(&g, &o, scratch, &g.logprob[t]) - (double)c.logprob[t];
            double h = loss_slope(&g, &o, scratch, &g.entropy[t]) -
                       (c.entropy ? (double)c.entropy[t] : 0);
            double kl = loss_slope(&g, &o, scratch, &g.kl[t]) - (c.kl ? (double)c.kl[t] : 0);
            CHECK(fabs(p) < 1e-4 && fabs(h) < 1e-5 && fabs(kl) < 1e-5, "loss %d, token %zu: off by "
                  "%g (log p), %g (entropy), %g (KL)", k, t, p, h, kl);
            CHECK(!(o.mask_truncated && (int)t >= g.start[1] && (int)t < g.start[2]) ||
                      c.logprob[t] == 0, "a response that was cut off is in the loss");
        }
        e.arena.used = mark;
    }
    engine_free(&e);
}

/* A group of m responses with features of our own choosing. */
static Group made_group(Engine *e, int m, int d, const float *Phi, const double *reward)
{
    Group g = group_new(&e->arena, m, 4, 1, d);
    memcpy(g.Phi, Phi, (size_t)(m * d) * sizeof(float));
    memcpy(g.reward, reward, (size_t)m * sizeof(double));
    for (int i = 0; i < m; i++)
        g.start[i + 1] = i + 1;
    similarity(&g, d);
    reward_weights(&g);
    exploration_score(&g);
    normalize_novelty(&g);
    return g;
}

/* Six responses: right, right, wrong, wrong, no answer, wrong. Their embeddings are unit vectors in
 * the plane at 0, 60, 0, 90, 0 and 180 degrees. */
static void test_evol(void)
{
    enum { M = 6, D = 2 };
    static const double degrees[M] = {0, 60, 0, 90, 0, 180}, pi = 3.14159265358979323846;
    static const double reward[M] = {1, 1, -1, -1, -1, -1};
    Engine e = engine_new(1, 1 << 20, 1 << 20);
    Arena *a = &e.worker[0];
    float Phi[M * D] = {0};
    Group g = made_group(&e, M, D, Phi, reward);
    MethodOptions o = {.method = EVOL, .encoder = EMBED_REF};
    float hidden[M * D], phi[M * D] = {0};
    for (int i = 0; i < M; i++) {
        hidden[i * D] = (float)(3 * cos(degrees[i] * pi / 180));
        hidden[i * D + 1] = (float)(3 * sin(degrees[i] * pi / 180));
        g.answered[i] = i != 4;
        g.token[i] = i;
    }
    annotate(a, &g, phi, D, &o, 1, 1);
    CHECK(!g.embedded && isnan(g.u[0]), "embedded without a reference");
    g.hidden_ref = hidden;
    annotate(a, &g, phi, D, &o, 1, 1);
    /* 0: its class has 1 (0.5); the nearest is 2 (1). 3: 2 (0), 5 (0); nearest 1 (0.866). */
    double u[M] = {1 - (0.5 + 1) / 2, 1 - (0.5 + sqrt(0.75)) / 2, 1 - (0 + 1) / 2.0,
                   1 - (0 + sqrt(0.75)) / 2, 0, 1};
    for (int i = 0; i < M; i++)
        CHECK(i == 4 ? isnan(g.u[i]) : fabs(g.u[i] - u[i]) < 1e-6, "u[%d] = %g, not %g", i, g.u[i],
              u[i]);
    double n3 = (u[3] - u[2]) / (u[5] - u[2]), r[M] = {0.5, 1, -1, -1 + 0.5 * n3, -1, -0.5};
    for (int i = 0; i < M; i++)
        CHECK(fabs(g.shaped[i] - r[i]) < 1e-6, "r~[%d] = %g, not %g", i, g.shaped[i], r[i]);
    g.reward[1] = -1; /* 0 is the only right one; then 2 the only wrong one with an answer */
    annotate(a, &g, phi, D, &o, 1, 1);
    CHECK(g.shaped[0] == 1 && fabs(g.u[0] - (1 - (1.5 / 4 + 1) / 2)) < 1e-6, "a lone right one: "
          "%g, u %g", g.shaped[0], g.u[0]);
    g.reward[1] = g.reward[3] = g.reward[5] = 1;
    annotate(a, &g, phi, D, &o, 1, 1);
    CHECK(g.shaped[2] == -0.5, "a lone wrong one: %g", g.shaped[2]);
    for (int i = 0; i < M; i++)
        memcpy(hidden + i * D, (float[]){1, 2}, sizeof(float[2]));
    annotate(a, &g, phi, D, &o, 1, 1);
    CHECK(g.shaped[0] == 0.75 && g.shaped[4] == -1, "all alike: %g, %g", g.shaped[0], g.shaped[4]);
    for (int i = 1; i < M; i++)
        g.answered[i] = false;
    annotate(a, &g, phi, D, &o, 1, 1);
    CHECK(g.shaped[0] == -1 && g.advantage[0] == 0, "one answer in the group: %g", g.shaped[0]);
    engine_free(&e);
}

/* Embeddings of three responses: 5 6 7 8, 9 6 7 8 and 4. */
static void test_encoders(void)
{
    enum { M = 3, D = 2 };
    static const int tokens[] = {5, 6, 7, 8, 9, 6, 7, 8, 4};
    float hidden[9 * D], E[M * NGRAM_BUCKETS];
    Engine e = engine_new(1, 1 << 20, 1 << 20);
    Group g = group_new(&e.arena, M, 4, 4, D);
    double S[M * M];
    g.start[1] = 4, g.start[2] = 8, g.start[3] = 9;
    memcpy(g.token, tokens, sizeof tokens);
    for (int i = 0; i < 9 * D; i++)
        hidden[i] = (float)(i * i);
    g.hidden_ref = hidden;
    embed_by_reference(&g, D, E);
    /* rows 1, 2, 3: the states at tokens 0, 1, 2; of the last, row 8: there is no other */
    CHECK(fabsf(E[0] - (4 + 16 + 36) / 3.0f) < 1e-4f && E[2 * D] == 256 && E[2 * D + 1] == 289,
          "mean state %g, %g", (double)E[0], (double)E[2 * D]);
    embed_by_ngrams(&g, E);
    cosines(E, M, NGRAM_BUCKETS, S);
    CHECK(fabs(S[1] - 0.25) < 1e-9 && fabs(S[2]) < 1e-9 && fabs(S[0] - 1) < 1e-12,
          "1 of 4 trigrams in common: cosine %g; none: %g", S[1], S[2]);
    engine_free(&e);
}

static void test_method_by_hand(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    /* Three responses in the plane: 0 and 1 along x (opposite ways), 2 along y; 3 vanishes. */
    const float Phi[] = {2, 0, -1, 0, 0, 3, 0, 0};
    const double reward[] = {1, -1, 1, -1};
    Group g = made_group(&e, 4, 2, Phi, reward);
    double s = exp(1) + 2 * exp(-1), t = 2 * exp(1) + exp(-1);
    CHECK(g.S[1] == -1 && g.S[2] == 0 && g.S[0] == 1 && g.S[15] == 0, "Eq 9: cosines");
    CHECK(fabs(g.w[1] - exp(-1) / s) < 1e-12 && g.w[0] == 0, "Eq 10: w_01 is %g", g.w[1]);
    CHECK(fabs(g.nu[0] - (1 - exp(-1) / s)) < 1e-12, "Eq 11: nu_0 is %g", g.nu[0]);
    CHECK(fabs(g.nu[1] - (1 - exp(1) / t)) < 1e-12, "Eq 11: nu_1 is %g", g.nu[1]);
    CHECK(g.nu[2] == 1, "Eq 11: an orthogonal response has nu 1, not %g", g.nu[2]);
    CHECK(g.nu[3] == 0, "certainty is not novelty: nu is 0, not %g", g.nu[3]);
    CHECK(g.nubar[2] == 1 && g.nubar[3] == 0, "nubar runs from 0 to 1");

    const double huge[] = {1e6, -1e6, 1e6, 0}; /* a user's rewards: no overflow in Eq 10 */
    g = made_group(&e, 4, 2, Phi, huge);
    CHECK(isfinite(g.nu[0]) && fabs(g.w[1] - 0) < 1e-300 && fabs(g.w[2] - 1) < 1e-12,
          "Eq 10 at rewards of a million: w_02 is %g", g.w[2]);
    const double one_huge[] = {1e6, 0, 0, -1}; /* the largest of the OTHERS is taken out */
    g = made_group(&e, 4, 2, Phi, one_huge);
    CHECK(fabs(g.w[1] - 1 / (2 + exp(-1))) < 1e-12, "Eq 10 beside a huge reward: %g", g.w[1]);

    float same[8]; /* equal directions up to rounding */
    for (int i = 0; i < 8; i += 2) {
        same[i] = 0.1f * (1 + 1e-7f * (float)i);
        same[i + 1] = 0.3f;
    }
    g = made_group(&e, 4, 2, same, reward);
    CHECK(g.nubar[0] == 0 && g.nubar[3] == 0, "rounding noise became novelty: %g", g.nubar[3]);
    engine_free(&e);
}

/* Eq 12-13 in both readings, the clip, Eq 2, dead groups, and novelty's share of A^2. */
static void test_shaping(void)
{
    MethodOptions text = {.method = G2RL, .lambda = 1}, literal = text, grpo = text;
    grpo.method = GRPO;
    literal.shaping = SHAPING_LITERAL;
    CHECK(shape_reward(1, 0.5, &text) == 1.5 && shape_reward(-1, 0.5, &text) == -1.5,
          "Eq 12, text: wrong and novel is punished more");
    CHECK(shape_reward(1, 0.5, &literal) == 1.5 && shape_reward(-1, 0.5, &literal) == -0.5,
          "Eq 12, literal: wrong and novel is punished less");
    CHECK(shape_reward(-1, 0.5, &grpo) == -1, "GRPO leaves rewards alone");
    text.lambda = 9;
    CHECK(shape_reward(1, 1, &text) == 3 && shape_reward(-1, 1, &text) == -3, "Eq 13: the clip");
    text.lambda = 1;

    Engine e = engine_new(1, 1 << 20, 64);
    const float Phi[] = {1, 0, 1, 1, 0, 1, -1, 2};
    const double wrong[] = {-1, -1, -1, -1}, mixed[] = {1, 1, -1, -1};
    Group g = made_group(&e, 4, 2, Phi, wrong), h = made_group(&e, 4, 2, Phi, wrong);
    for (int i = 0; i < 4; i++) {
        g.shaped[i] = shape_reward(g.reward[i], g.nubar[i], &text);
        h.shaped[i] = shape_reward(h.reward[i], h.nubar[i], &literal);
    }
    advantages(&g, &text);
    advantages(&h, &literal);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(g.advantage[i] + h.advantage[i]) < 1e-12 && fabs(g.advantage[i]) > 0.01,
              "all wrong: the two readings must be opposite");
    CHECK(is_dead(&g) && fabs(novelty_part(&g) - 4) < 1e-4,
          "in a dead group all of A^2 = 4 is novelty's, not %g", novelty_part(&g));
    text.dead_groups = DEAD_ZERO;
    advantages(&g, &text);
    CHECK(g.advantage[0] == 0 && g.advantage[3] == 0, "--dead-groups zero");

    g = made_group(&e, 4, 2, Phi, mixed);
    for (int i = 0; i < 4; i++)
        g.shaped[i] = g.reward[i];
    advantages(&g, &grpo);
    CHECK(fabs(g.advantage[0] - 1 / (1 + 1e-6)) < 1e-12 && !is_dead(&g), "Eq 2: A = 1 / (1 + eps)");
    CHECK(novelty_part(&g) < 1e-12, "GRPO has no novelty in it");
    for (int i = 0; i < 4; i++)
        g.shaped[i] = 0.5 + 1e-9 * i;
    advantages(&g, &grpo);
    CHECK(g.advantage[3] == 0, "Eq 2: a standard deviation of rounding noise gives no advantage");
    g.shaped[0] = 5;
    grpo.adv_norm = ADV_NONE;
    advantages(&g, &grpo);
    CHECK(fabs(g.advantage[0] - 3.375) < 1e-6, "--adv-norm none only takes the mean out");

    double sum = 0, before = 0;
    for (int i = 0; i < 4; i++)
        before += g.nu[i] = i * i;
    permute_novelty(&g, 7, 3);
    bool moved = g.nu[0] != 0 || g.nu[1] != 1 || g.nu[2] != 4;
    for (int i = 0; i < 4; i++)
        sum += g.nu[i];
    CHECK(sum == before && moved, "--novelty random deals out the same values");
    engine_free(&e);
}

/* A small random model of 19 symbols, as the tasks use it; `scale` sharpens its predictions. */
static Model small_model(float scale)
{
    Config c = *preset_find("nano");
    c.num_hidden_layers = 2;
    c.vocab_size = (int)strlen(TASK_ALPHABET) + 1;
    c.n_eos = 1;
    Model m = model_new(&c);
    model_init(&m, 5);
    row_scale(at(&m, m.params, lm_head(&c)), at(&m, m.params, lm_head(&c)), scale,
              c.vocab_size * c.hidden_size);
    model_pack(&m, 1);
    rope_reserve(&m, 128);
    return m;
}

/* E_y[sum_t phi_t] = 0 under the policy itself: features of the score function have mean zero. All
 * responses of a model of three tokens, cut off after three, are enumerated. */
static void test_zero_mean(void)
{
    enum { LONGEST = 3, ALL = 15, D = 64 };
    Config c = *preset_find("nano");
    c.num_hidden_layers = 1;
    c.vocab_size = 3;
    c.n_eos = 1;
    for (int t = 0; t < 2; t++) {
        double temperature = t ? 0.6 : 1, total = 0, norm = 0, mean[D] = {0};
        Engine e = engine_new(1, 1 << 24, 1 << 24);
        Model m = model_new(&c);
        View view = {&m, NULL, temperature, {.method = GRPO}, 1, 0};
        model_init(&m, 3);
        rope_reserve(&m, 16);
        Group g = group_new(&e.arena, ALL, 4, LONGEST, D);
        g.prompt[0] = 1;
        g.prompt[1] = 2;
        g.prompt_length = 2;
        int n = 0;
        for (int code = 0; code < 27; code++) { /* y = the digits of code in base 3 */
            int y[LONGEST] = {code / 9, code / 3 % 3, code % 3}, length = LONGEST;
            for (int k = LONGEST - 1; k >= 0; k--)
                length = y[k] == 0 ? k + 1 : length;
            bool first = (length > 2 || y[2] == 0) && (length > 1 || y[1] == 0);
            if (!first)
                continue; /* the same response as an earlier code: what follows the end is void */
            memcpy(g.token + g.start[n], y, (size_t)length * sizeof(int));
            g.start[n + 1] = g.start[n] + length;
            g.reward[n++] = -1;
        }
        g.n_tokens = g.start[n];
        CHECK(n == ALL, "%d responses", n);
        Pass f = look(&e.worker[0], &view, &g, 1, KEEP_NOTHING, true);
        for (int i = 0; i < ALL; i++) {
            double p = 0, square = 0;
            for (int k = g.start[i]; k < g.start[i + 1]; k++)
                p += (double)g.logprob[k];
            total += p = exp(p);
            for (int j = 0; j < D; j++) {
                double sum = 0;
                for (int k = g.start[i]; k < g.start[i + 1]; k++)
                    sum += (double)f.head.phi[k * D + j];
                mean[j] += p * sum;
                square += p * sum * sum;
            }
            norm += square;
        }
        double length = 0;
        for (int j = 0; j < D; j++)
            length += mean[j] * mean[j];
        CHECK(fabs(total - 1) < 1e-6, "the responses' probabilities add up to %g", total);
        CHECK(sqrt(length / norm) < 1e-6, "T %g: the mean of sum phi has relative length %g",
              temperature, sqrt(length / norm));
        model_free(&m);
        engine_free(&e);
    }
}

/* ================================================================ rollouts */

/* Groups of a task, sampled. */
static Group *sampled(Engine *e, Model *m, const Task *task, int n, int first, int size,
                      const Sampling *s)
{
    Tokenizer t = tokenizer_characters(TASK_ALPHABET);
    Problems p = {.task = *task, .judge.task = *task, .seed = 11};
    Extent x = {n, size, TASK_PROMPT_MAX, s->max_tokens, 1, KEEP_NOTHING, false};
    Group *g = groups_new(e, m, x);
    for (int i = 0; i < n; i++)
        group_ask(&g[i], &e->arena, &p, (uint32_t)(first + i), &t, TASK_PROMPT_MAX);
    sample_groups(e, m, g, n, s);
    for (int i = 0; i < n; i++)
        verify_group(&g[i], &p.judge, &t);
    tokenizer_free(&t);
    return g;
}

static bool same_responses(const Group *a, const Group *b)
{
    return a->n_tokens == b->n_tokens &&
           !memcmp(a->start, b->start, (size_t)(a->m + 1) * sizeof(int)) &&
           !memcmp(a->token, b->token, (size_t)a->n_tokens * sizeof(int)) &&
           !memcmp(a->logprob_old, b->logprob_old, (size_t)a->n_tokens * sizeof(float));
}

/* Promise 1: what the sampler saw is what the trainer sees, bit for bit; and a sample depends on
 * its counters alone, not on its company or on threads. */
static void test_on_policy(void)
{
    Task task;
    char error[200];
    task_parse("countdown:numbers=3", &task, error, sizeof error);
    Model m = small_model(6.0f);
    View view = {&m, NULL, 0.8, {.method = G2RL, .lambda = 1}, 1, 0};
    Sampling s = {.temperature = 0.8, .top_p = 1, .max_tokens = 40, .seed = 3};
    Engine e = engine_new(3, 1 << 24, 1 << 26);
    e.threads = 1;
    Group *alone = sampled(&e, &m, &task, 1, 2, 5, &s);
    Group *g = sampled(&e, &m, &task, 4, 0, 5, &s);
    CHECK(same_responses(alone, &g[2]), "a group sampled alone differs from the same in a batch");
    e.threads = 3;
    Group *threads = sampled(&e, &m, &task, 4, 0, 5, &s);
    free(m.packed);
    m.packed = NULL;
    Group *unpacked = sampled(&e, &m, &task, 4, 0, 5, &s);
    int longest = 0, shortest = 99;
    for (int k = 0; k < 4; k++) {
        CHECK(same_responses(&g[k], &threads[k]), "three threads changed group %d", k);
        CHECK(same_responses(&g[k], &unpacked[k]), "unpacked weights changed group %d", k);
        for (int i = 0; i < 5; i++) {
            longest = imax(longest, response_length(&g[k], i));
            shortest = imin(shortest, response_length(&g[k], i));
        }
    }
    CHECK(longest > 34 && shortest < 20, "lengths %d to %d exercise nothing", shortest, longest);
    for (int at_once = 1; at_once <= 4; at_once += 3)
        for (int i = 0; i < 4; i += at_once) {
            look(&e.worker[0], &view, g + i, at_once, KEEP_NOTHING, true);
            for (int k = i; k < i + at_once; k++)
                CHECK(!memcmp(g[k].logprob, g[k].logprob_old,
                              (size_t)g[k].n_tokens * sizeof(float)),
                      "sampler and trainer disagree on group %d (%d at once)", k, at_once);
        }
    s.step = 1;
    Group *next = sampled(&e, &m, &task, 1, 2, 5, &s);
    CHECK(!same_responses(alone, next), "another step must draw other samples");
    model_free(&m);
    engine_free(&e);
}

/* The most threads that were seen to share worker 0's products while tokens were drawn. */
typedef struct {
    const Engine *e;
    int most;
} Helpers;

static void see_helpers(void *context, int token)
{
    Helpers *h = context;
    h->most = imax(h->most, h->e->worker[0].threads);
    (void)token;
}

/* How many of three threads take part in a loop: one without OpenMP. */
static size_t helpers_of_three(void)
{
    bool seen[3] = {false};
    PARALLEL_FOR (3)
    for (int i = 0; i < 3; i++)
        seen[thread_index()] = true;
    return (size_t)seen[0] + seen[1] + seen[2];
}

/* Floats of a nan_engine's worker 0 that were written. */
static size_t touched(const Engine *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->worker[0].capacity; i += sizeof(float))
        n += memcmp(e->worker[0].base + i, "\xFF\xFF\xFF\xFF", sizeof(float)) != 0;
    return n;
}

/* Threads that draw together write to scratch memory of their own, each as much as one alone, and
 * draw the same. */
static void check_shared_draws(void)
{
    enum { V = 500, N = 14 };
    Model m = tiny_model(LLAMA, true, V);
    Sampling s = {.temperature = 1, .top_p = 1, .seed = 12};
    Group g = {.index = 3};
    Rollout rollout[N], *r[N];
    float *hidden = noise_new(66, N * (size_t)m.config.hidden_size), logprob[2][N];
    int token[2][N];
    size_t written[2];
    model_pack(&m, 1);
    for (int k = 0; k < 2; k++) {
        Engine e = nan_engine(1, 1 << 18);
        e.worker->threads = k ? 3 : 1;
        for (int i = 0; i < N; i++) {
            rollout[i] = (Rollout){.group = &g, .index = i, .token = &token[k][i],
                                   .logprob = &logprob[k][i]};
            r[i] = &rollout[i];
        }
        draw_tokens(e.worker, &m, hidden, r, N, &s);
        written[k] = touched(&e);
        engine_free(&e);
    }
    CHECK(is_alive(logprob[0], N) && !memcmp(token[0], token[1], sizeof token[0]) &&
              same_bits(logprob[0], logprob[1], N), "three threads draw other tokens");
    CHECK(written[1] == written[0] + (helpers_of_three() - 1) * V,
          "%zu floats of scratch; by one thread %zu", written[1], written[0]);
    free(hidden);
    model_free(&m);
}

/* The same of attention over a cache: three sequences of one length. */
static void check_shared_attention(void)
{
    enum { SEQUENCES = 3, ROWS = 40 };
    Model m = tiny_model(LLAMA, true, 50);
    Heads h = heads_of(&m.config);
    size_t rows = SEQUENCES * ROWS, n = rows * (size_t)h.ld_out, written[2];
    float *qkv = noise_new(67, rows * (size_t)h.ld_qkv), *att[2];
    int tokens[ROWS] = {0};
    for (int k = 0; k < 2; k++) {
        Engine e = nan_engine(1, 1 << 18);
        KvPool pool = kv_pool_new(&e.arena, &m.config, SEQUENCES * kv_blocks(ROWS));
        KvSeq kv[SEQUENCES];
        Batch b = batch_new(&e.arena, (int)rows, SEQUENCES, 1);
        for (int i = 0; i < SEQUENCES; i++) {
            kv[i] = kv_seq_new(&e.arena, ROWS);
            kv_reserve(&pool, &kv[i], ROWS);
            b.seq[batch_seq(&b, tokens, ROWS, 0, -1)].kv = &kv[i];
        }
        att[k] = nan_new(n + LANES);
        e.worker->threads = k ? 3 : 1;
        attention_cached(e.worker, &m.config, 1, &b, qkv, qkv, att[k]);
        written[k] = touched(&e);
        engine_free(&e);
    }
    CHECK(is_alive(att[0], n) && same_bits(att[0], att[1], n), "three threads change attention");
    size_t cuts = SEQUENCES + 1; /* where the runs begin: once for all threads */
    CHECK(written[1] - cuts == (written[0] - cuts) * helpers_of_three(),
          "%zu floats of scratch; by one thread %zu", written[1], written[0]);
    free(att[0]);
    free(att[1]);
    free(qkv);
    model_free(&m);
}

/* Few rollouts of a model with large weights: all threads share the products of one batch, which
 * changes no bit, in memory of the size that worker_bytes asks for. */
static void test_shared_batch(void)
{
    enum { V = 2001, PROMPT = 100, GROUPS = 2, M = 4, LONGEST = 5 };
    Config c = *preset_find("small");
    c.num_hidden_layers = 2;
    c.vocab_size = V;
    Model m = model_new(&c);
    Extent x = {GROUPS, M, PROMPT, LONGEST, 1, KEEP_NOTHING, false};
    Engine e = engine_new(3, 1 << 22, worker_bytes(&m, x));
    Helpers seen = {.e = &e};
    Sampling s = {.temperature = 1, .top_p = 1, .max_tokens = LONGEST, .seed = 4,
                  .on_token = see_helpers, .context = &seen};
    Group *g[4], *alone = groups_new(&e, &m, x);
    model_init(&m, 6);
    model_pack(&m, 2);
    rope_reserve(&m, PROMPT + LONGEST);
    memset(e.worker[0].base, 0xFF, e.worker[0].capacity);
    for (int threads = 0; threads <= 3; threads++) { /* 0: each group alone */
        Group *mine = g[threads] = threads ? groups_new(&e, &m, x) : alone;
        for (int k = 0; k < GROUPS; k++) {
            mine[k].index = (uint32_t)k;
            mine[k].prompt_length = PROMPT - 7 * k;
            tree_tokens(mine[k].prompt, PROMPT, V, (uint32_t)k, 0);
        }
        e.threads = imax(1, threads);
        seen.most = 0;
        for (int k = 0; k < GROUPS; k += threads ? GROUPS : 1)
            sample_groups(&e, &m, mine + k, threads ? GROUPS : 1, &s);
        CHECK(seen.most == e.threads, "%d threads shared the batch of %d", seen.most, e.threads);
        for (int k = 0; k < GROUPS; k++) {
            CHECK(mine[k].n_tokens == M * LONGEST && is_alive(mine[k].logprob_old, M * LONGEST),
                  "group %d: %d tokens", k, mine[k].n_tokens);
            CHECK(same_responses(&alone[k], &mine[k]), "%d threads changed group %d", threads, k);
        }
    }
    CHECK(!same_responses(&alone[0], &alone[1]), "two prompts, one response");
    s.max_tokens = 2; /* so few that the last one is drawn by all */
    sample_groups(&e, &m, g[3], GROUPS, &s);
    CHECK(e.worker[0].threads == 1 && e.worker[0].used == 0, "worker 0 was not left as found");
    model_free(&m);
    engine_free(&e);
    check_shared_draws();
    check_shared_attention();
}

/* Draws follow the policy: 40,000 first tokens against the exact distribution (chi squared), with
 * and without cuts; temperature 0 takes the largest logit. */
static void test_draws(void)
{
    enum { V = 19, N = 40000 };
    float z[V], scratch[2 * V], logprob;
    Sampling s = {.temperature = 0.7, .top_p = 1};
    double p[V], sum = 0, chi = 0;
    int count[V] = {0};
    for (int v = 0; v < V; v++)
        z[v] = 2 * normal(philox(9, 1, (uint32_t)v, 0, 0, 0));
    for (int v = 0; v < V; v++)
        sum += p[v] = exp((double)z[v] / 0.7);
    for (int i = 0; i < N; i++) {
        double u = uniform(philox(4, 1, (uint32_t)i, 0, 0, 0));
        int y = draw_token(z, V, &s, u, &logprob, scratch);
        CHECK(fabs((double)logprob - log(p[y] / sum)) < 1e-5, "log-prob of %d", y);
        count[y]++;
    }
    for (int v = 0; v < V; v++)
        chi += pow(count[v] - N * p[v] / sum, 2) / (N * p[v] / sum);
    CHECK(chi < 45, "chi squared of 18 degrees of freedom is %g", chi); /* 1 in 2,500 */
    int order[3] = {0};
    for (int k = 0; k < 3; k++) /* the three most likely tokens */
        for (int v = 0; v < V; v++) {
            bool used = (k > 0 && v == order[0]) || (k > 1 && v == order[1]);
            bool last = (k > 0 && order[k] == order[0]) || (k > 1 && order[k] == order[1]);
            if (!used && (last || p[v] > p[order[k]]))
                order[k] = v;
        }
    for (int cut = 0; cut < 2; cut++) {
        s.top_k = cut ? 0 : 2;
        s.top_p = cut ? (p[order[0]] + 0.5 * p[order[1]]) / sum : 1;
        int seen[2] = {0};
        for (int i = 0; i < 2000; i++) {
            double u = uniform(philox(4, 2, (uint32_t)i, 0, 0, 0));
            int y = draw_token(z, V, &s, u, &logprob, scratch);
            CHECK(y == order[0] || y == order[1], "token %d is outside the cut", y);
            seen[y == order[1]]++;
        }
        CHECK(fabs(seen[1] / 2000.0 - p[order[1]] / (p[order[0]] + p[order[1]])) < 0.05,
              "the cut distribution is not renormalised: %d, %d", seen[0], seen[1]);
    }
    s = (Sampling){.temperature = 0, .top_p = 1};
    CHECK(draw_token(z, V, &s, 0.999, &logprob, scratch) == order[0], "greedy");
}

/* Promise 6: another prompt's group beside it changes not one bit of a group's numbers; permuting
 * its responses only permutes them, within rounding. */
static void test_groups_stand_alone(void)
{
    Task task;
    char error[200];
    task_parse("countdown:numbers=3", &task, error, sizeof error);
    Model m = small_model(6.0f);
    View view = {&m, NULL, 1, {.method = G2RL, .lambda = 1}, 1, 0};
    Sampling s = {.temperature = 1, .top_p = 1, .max_tokens = 30, .seed = 8};
    Engine e = engine_new(2, 1 << 24, 1 << 26);
    Group *g = sampled(&e, &m, &task, 2, 0, 4, &s), *alone = sampled(&e, &m, &task, 1, 0, 4, &s);
    g[0].reward[1] = alone->reward[1] = 1;
    look(&e.worker[0], &view, g, 2, KEEP_NOTHING, true);
    look(&e.worker[0], &view, alone, 1, KEEP_NOTHING, true);
    CHECK(!memcmp(g->advantage, alone->advantage, 4 * sizeof(double)) &&
              !memcmp(g->Phi, alone->Phi, 4 * 64 * sizeof(float)) &&
              !memcmp(g->entropy, alone->entropy, (size_t)alone->n_tokens * sizeof(float)),
          "a neighbour changed a group's numbers");
    Group *turned = sampled(&e, &m, &task, 1, 0, 4, &s);
    for (int i = 0; i < 4; i++) { /* the responses in reverse */
        int n = response_length(alone, 3 - i);
        memcpy(turned->token + turned->start[i], alone->token + alone->start[3 - i],
               (size_t)n * sizeof(int));
        turned->start[i + 1] = turned->start[i] + n;
        turned->reward[i] = alone->reward[3 - i];
    }
    look(&e.worker[0], &view, turned, 1, KEEP_NOTHING, true);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(turned->advantage[i] - alone->advantage[3 - i]) < 1e-5 &&
                  fabs(alone->advantage[i]) > 0.1,
              "permuting responses: A %g, not %g", turned->advantage[i], alone->advantage[3 - i]);
    model_free(&m);
    engine_free(&e);
}

/* ================================================================ evaluation */

/* pass@k against counting all subsets of k samples. */
static void test_pass_at_k(void)
{
    for (int n = 1; n <= 8; n++)
        for (int c = 0; c <= n; c++)
            for (int k = 1; k <= n; k++) {
                int subsets = 0, hits = 0;
                for (unsigned set = 0; set < 1u << n; set++) {
                    int size = 0;
                    for (int i = 0; i < n; i++)
                        size += set >> i & 1;
                    subsets += size == k;
                    hits += size == k && (set & ((1u << c) - 1)); /* samples 0 .. c-1 are right */
                }
                double exact = (double)hits / subsets;
                CHECK(fabs(pass_at_k(n, c, k) - exact) < 1e-12, "n %d, c %d, k %d: %g, not %g", n,
                      c, k, pass_at_k(n, c, k), exact);
            }
}

static void test_majority(void)
{
    const int a[] = {0, 1, 1, 3, 4}, tie[] = {0, 1, 1, 0, 4}, three[] = {0, 1, 2, 3};
    const bool right[] = {true, false, false, true, false}, none[5] = {false};
    const bool some[] = {true, false, true, false};
    CHECK(majority(a, right, 5) == 0, "the most frequent class is wrong");
    CHECK(majority(tie, right, 5) == 0.5, "a tie counts in expectation");
    CHECK(majority(three, some, 4) == 0.5, "all different: the mean");
    CHECK(majority(a, none, 5) == 0 && majority(a, right, 1) == 1, "edges");
    /* Every way to spread 5 samples over 4 classes, every set of right classes: the mean over all
     * draws among the classes with most votes. */
    for (unsigned code = 0; code < 1u << 10; code++)
        for (unsigned set = 0; set < 1u << 4; set++) {
            int class[5], votes[4] = {0}, most = 0, draws = 0, good = 0;
            bool is[5];
            for (int i = 0; i < 5; i++) {
                class[i] = code >> 2 * i & 3;
                is[i] = set >> class[i] & 1;
                most = imax(most, ++votes[class[i]]);
            }
            for (int c = 0; c < 4; c++) {
                draws += votes[c] == most;
                good += votes[c] == most && set >> c & 1;
            }
            double exact = (double)good / draws, got = majority(class, is, 5);
            CHECK(fabs(got - exact) < 1e-12, "classes %x, right %x: %g, not %g", code, set, got,
                  exact);
        }
}

/* The means of all n^n resamples of n numbers, in order; n at most 4. Returns how many. */
static int all_resamples(const double *x, int n, double *means)
{
    int all = n == 4 ? 256 : 27;
    for (int code = 0; code < all; code++) {
        means[code] = 0;
        for (int i = 0, rest = code; i < n; i++, rest /= n)
            means[code] += x[rest % n] / n;
    }
    qsort(means, (size_t)all, sizeof *means, by_value);
    return all;
}

/* The bounds of 1,000 draws lie where the exact distribution has 2.5 % below, or above: between its
 * 1 % and its 4.5 %, which 1,000 draws leave once in a thousand times. Returns how often these two
 * are one value, so that the bound must be it. */
static int check_interval(Estimate e, const double *means, int all, const char *what)
{
    int near = all / 100, far = all * 45 / 1000, bound = 0;
    for (int side = 0; side < 2; side++) {
        double outer = means[side ? all - 1 - near : near];
        double inner = means[side ? all - 1 - far : far], got = side ? e.high : e.low;
        CHECK(got >= fmin(outer, inner) - 1e-12 && got <= fmax(outer, inner) + 1e-12,
              "%s: %s bound %g, not in [%g, %g]", what, side ? "upper" : "lower", got,
              fmin(outer, inner), fmax(outer, inner));
        bound += fabs(outer - inner) < 1e-12;
    }
    return bound;
}

static void test_bootstrap(void)
{
    double x[400], constant[10];
    for (int i = 0; i < 400; i++)
        x[i] = i % 4 == 0;
    for (int i = 0; i < 10; i++)
        constant[i] = 0.25;
    Estimate a = bootstrap(x, 400, 1), b = bootstrap(constant, 10, 1);
    double half = 1.96 * sqrt(0.25 * 0.75 / 400);
    CHECK(fabs(a.value - 0.25) < 1e-12, "mean %g", a.value);
    CHECK(fabs(a.low - 0.25 + half) < 0.01 && fabs(a.high - 0.25 - half) < 0.01,
          "interval [%g, %g]; the normal one is .25 +- %g", a.low, a.high, half);
    CHECK(fabs(b.low - 0.25) < 1e-12 && fabs(b.high - 0.25) < 1e-12, "constant data");
    static const double small[][4] = {{0, 0, 1}, {0.1, 0.9, 0.4}, {0, 0, 0, 1}, {0, 1, 0, 1},
                                      {0.05, 0.3, 0.35, 1}, {1, 1, 1, 0}};
    double means[256];
    int bound = 0;
    for (int k = 0; k < 6; k++)
        for (uint64_t seed = 0; seed < 10; seed++) {
            int n = k < 2 ? 3 : 4, all = all_resamples(small[k], n, means);
            bound += check_interval(bootstrap(small[k], n, seed), means, all, "bootstrap");
        }
    CHECK(bound > 30, "%d bounds are exact", bound);
}

/* Differences by pairs: against all resamples of the pairs, and exactly 0 for x against itself. */
static void test_paired(void)
{
    static const double x[] = {0.9, 0.2, 0.6, 0.7}, y[] = {0.5, 0.1, 0.7, 0.1};
    double difference[4], means[256], shifted[4];
    for (int i = 0; i < 4; i++) {
        difference[i] = x[i] - y[i];
        shifted[i] = x[i] + 0.5;
    }
    int all = all_resamples(difference, 4, means);
    for (uint64_t seed = 0; seed < 10; seed++) {
        Estimate e = paired(x, y, 4, seed), same = paired(x, x, 4, seed);
        Estimate up = paired(shifted, x, 4, seed), down = paired(x, shifted, 4, seed);
        check_interval(e, means, all, "paired");
        CHECK(fabs(e.value - 0.25) < 1e-12, "mean difference %g", e.value);
        CHECK(same.value == 0 && same.low == 0 && same.high == 0, "x against x: %g [%g, %g]",
              same.value, same.low, same.high);
        CHECK(fabs(up.low - 0.5) < 1e-12 && fabs(up.high - 0.5) < 1e-12 &&
                  fabs(down.low + 0.5) < 1e-12, "x is always 0.5 less: [%g, %g]", up.low, up.high);
    }
}

/* Student's t against its table; an interval by hand; and how often it holds the mean of normal
 * numbers. */
static void test_mean_interval(void)
{
    static const int df[] = {1, 2, 3, 4, 5, 6, 9, 10, 30, 100, 1000};
    static const double t[] = {12.7062047362, 4.3026527297, 3.1824463053, 2.7764451052,
                               2.5705818356, 2.4469118511, 2.2621571628, 2.2281388520,
                               2.0422724563, 1.9839715185, 1.9623390808};
    const double x[] = {1, 2, 3, 4}, half = 3.1824463053 * sqrt(5.0 / 3) / 2;
    for (int i = 0; i < 11; i++)
        CHECK(fabs(student_quantile(df[i]) - t[i]) < 1e-9, "t for %d: %.10f, not %.10f", df[i],
              student_quantile(df[i]), t[i]);
    Estimate e = mean_interval(x, 4), one = mean_interval(x + 2, 1);
    CHECK(fabs(e.value - 2.5) < 1e-12 && fabs(e.low - 2.5 + half) < 1e-9 &&
              fabs(e.high - 2.5 - half) < 1e-9, "%g [%g, %g]", e.value, e.low, e.high);
    CHECK(one.value == 3 && one.low == 3 && one.high == 3, "one run: %g [%g, %g]", one.value,
          one.low, one.high);
    int holds = 0, runs = 4000;
    for (int k = 0; k < runs; k++) {
        double seeds[3];
        for (int i = 0; i < 3; i++) { /* Box and Muller */
            Random r = philox(1, STREAM_INIT, (uint32_t)k, (uint32_t)i, 0, 0);
            double u = uniform(r), v = r.r[2] * 0x1p-32;
            seeds[i] = 5 + sqrt(-2 * log(1 - u)) * cos(4 * acos(0) * v);
        }
        e = mean_interval(seeds, 3);
        holds += e.low <= 5 && e.high >= 5;
    }
    CHECK(abs(holds - runs * 95 / 100) < 50, "the interval held the mean %d times of %d", holds,
          runs);
}

/* ================================================================ geometry */

/* Correlations against numbers worked out by hand; ties; weights as repetitions. */
static void test_correlation(void)
{
    double x[] = {10, 20, 20, 30, 40}, y[] = {1, 3, 2, 3, 5}, ones[] = {1, 1, 1, 1, 1, 1, 1};
    double weight[] = {2, 0, 1, 3, 1}, u[] = {10, 10, 20, 30, 30, 30, 40};
    double v[] = {1, 1, 2, 3, 3, 3, 5}, rank[5], a[] = {1, 2, 3, 4}, b[] = {1, 3, 2, 5};
    double flat[] = {0.1, 0.1, 0.1, 0.1, 0.1};
    const double places[] = {1, 2.5, 2.5, 4, 5};
    Grouped g = {.n = 5, .groups = 5, .x = x, .y = y, .x_order = order_of(x, 5),
                 .y_order = order_of(y, 5)};
    Grouped repeated = {.n = 7, .groups = 7, .x = u, .y = v, .x_order = order_of(u, 7),
                        .y_order = order_of(v, 7)};
    mid_ranks(x, g.x_order, ones, 5, rank);
    CHECK(!memcmp(rank, places, sizeof rank), "ranks %g %g %g", rank[0], rank[1], rank[2]);
    CHECK(fabs(spearman(&g, ones) - 8.75 / 9.5) < 1e-12, "ties: %g", spearman(&g, ones));
    CHECK(fabs(correlation(a, b, ones, 4) - 5.5 / sqrt(5 * 8.75)) < 1e-12, "Pearson");
    CHECK(fabs(pearson(&g, weight) - pearson(&repeated, ones)) < 1e-12, "Pearson, repeated");
    CHECK(fabs(spearman(&g, weight) - spearman(&repeated, ones)) < 1e-12, "Spearman, repeated");
    CHECK(fabs(mean_ratio(&g, weight) - 170.0 / 18) < 1e-12, "ratio %g", mean_ratio(&g, weight));
    CHECK(isnan(correlation(flat, y, ones, 5)), "nothing varies with what does not");
    CHECK(isnan(correlation(y, flat, ones, 5)), "nor the other way round");
    free(g.x_order);
    free(g.y_order);
    free(repeated.x_order);
    free(repeated.y_order);
}

/* Groups are drawn, not entries: with one entry a group it is `bootstrap`; entries that repeat
 * their group's make it no narrower. */
static void test_group_bootstrap(void)
{
    enum { GROUPS = 40, EACH = 9, N = GROUPS * EACH };
    double x[N], means[GROUPS];
    int group[N], own[GROUPS];
    for (int i = 0; i < GROUPS; i++)
        own[i] = i;
    for (int k = 0; k < N; k++) {
        group[k] = k / EACH;
        x[k] = means[k / EACH] = (double)noise(5, (size_t)(k / EACH));
    }
    Grouped entries = {.n = N, .groups = GROUPS, .group = group, .x = x};
    Grouped groups = {.n = GROUPS, .groups = GROUPS, .group = own, .x = means};
    Estimate plain = bootstrap(means, GROUPS, 3), one = group_bootstrap(&groups, mean_ratio, 3, 1);
    Estimate many = group_bootstrap(&entries, mean_ratio, 3, 3);
    CHECK(fabs(one.value - plain.value) < 1e-12 && fabs(one.low - plain.low) < 1e-12 &&
              fabs(one.high - plain.high) < 1e-12, "%g [%g, %g]; bootstrap has %g [%g, %g]",
          one.value, one.low, one.high, plain.value, plain.low, plain.high);
    CHECK(fabs(many.low - one.low) < 1e-12 && fabs(many.high - one.high) < 1e-12,
          "[%g, %g] of entries, [%g, %g] of groups", many.low, many.high, one.low, one.high);
    groups.n = 0;
    Estimate none = group_bootstrap(&groups, mean_ratio, 3, 1);
    CHECK(isnan(none.value) && isnan(none.low) && isnan(none.high), "of nothing: %g", none.value);
}

/* ---------------------------------------------------------------- a transformer in double */

/* y[i] = x[i] w[i] / sqrt(mean x^2 + eps) */
static void norm_naive(double *y, const double *x, const double *w, int n, double eps)
{
    double square = 0;
    for (int i = 0; i < n; i++)
        square += x[i] * x[i] / n;
    for (int i = 0; i < n; i++)
        y[i] = x[i] * w[i] / sqrt(square + eps);
}

/* y[i] += sum_k w[i][k] x[k] */
static void linear_naive(double *y, const double *x, const double *w, int n, int k)
{
    for (int i = 0; i < n * k; i++)
        y[i / k] += w[i] * x[i % k];
}

enum { NAIVE = 32, NAIVE_LENGTH = 16, NAIVE_LAYERS = 2 }; /* widths and lengths stay below */

/* Keys and values of every layer and position. */
typedef struct {
    double k[NAIVE_LAYERS][NAIVE_LENGTH][NAIVE], v[NAIVE_LAYERS][NAIVE_LENGTH][NAIVE];
} NaiveCache;

/* q or k of one position: each head's norm, then its rotation. */
static void heads_naive(const Model *m, double *x, const double *w, int heads, int position)
{
    int hd = m->config.head_dim, half = hd / 2;
    const float *rope = m->rope + (ptrdiff_t)position * hd;
    for (int h = 0; h < heads; h++, x += hd) {
        double y[NAIVE];
        norm_naive(y, x, w, hd, m->config.rms_norm_eps);
        for (int i = 0; i < half; i++) {
            double cosine = (double)rope[i], sine = (double)rope[half + i];
            x[i] = y[i] * cosine - y[half + i] * sine;
            x[half + i] = y[half + i] * cosine + y[i] * sine;
        }
    }
}

/* x += attention(norm x) and then mlp(norm x), at one position. w: Model.grads' layout. */
static void layer_naive(const Model *m, const double *w, int layer, int position, double *x,
                        NaiveCache *cache)
{
    const Config *c = &m->config;
    const Tensor *t = &m->tensors[layer_tensor(layer, 0)];
    int d = c->hidden_size, hd = c->head_dim, H = c->num_attention_heads, ff = c->intermediate_size;
    int KV = c->num_key_value_heads;
    double h[NAIVE], q[NAIVE] = {0}, out[NAIVE] = {0}, gate[NAIVE] = {0}, up[NAIVE] = {0};
    double *k = cache->k[layer][position], *v = cache->v[layer][position];
    memset(k, 0, sizeof cache->k[layer][position]);
    memset(v, 0, sizeof cache->v[layer][position]);
    norm_naive(h, x, w + t[INPUT_NORM].offset, d, c->rms_norm_eps);
    linear_naive(q, h, w + t[Q_PROJ].offset, H * hd, d);
    linear_naive(k, h, w + t[K_PROJ].offset, KV * hd, d);
    linear_naive(v, h, w + t[V_PROJ].offset, KV * hd, d);
    heads_naive(m, q, w + t[Q_NORM].offset, H, position);
    heads_naive(m, k, w + t[K_NORM].offset, KV, position);
    for (int i = 0; i < H; i++) {
        double sum = 0, a[NAIVE_LENGTH];
        int head = i / (H / KV) * hd;
        for (int j = 0; j <= position; j++) {
            double dot = 0;
            for (int e = 0; e < hd; e++)
                dot += q[i * hd + e] * cache->k[layer][j][head + e];
            sum += a[j] = exp(dot / sqrt(hd));
        }
        for (int j = 0; j <= position; j++)
            for (int e = 0; e < hd; e++)
                out[i * hd + e] += a[j] / sum * cache->v[layer][j][head + e];
    }
    linear_naive(x, out, w + t[O_PROJ].offset, d, H * hd);
    norm_naive(h, x, w + t[POST_NORM].offset, d, c->rms_norm_eps);
    linear_naive(gate, h, w + t[GATE_PROJ].offset, ff, d);
    linear_naive(up, h, w + t[UP_PROJ].offset, ff, d);
    for (int i = 0; i < ff; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    linear_naive(x, gate, w + t[DOWN_PROJ].offset, d, ff);
}

/* sum_t log p(y_t) of response i at this temperature, in double. w has the layout of Model.grads:
 * with a tied head, whose weights stand there a second time. */
static double response_logprob(const Model *m, const double *w, const Group *g, int i,
                               double temperature)
{
    const Config *c = &m->config;
    static NaiveCache cache;
    int d = c->hidden_size, V = c->vocab_size, prompt = g->prompt_length;
    double total = 0;
    for (int p = 0; p < prompt + response_length(g, i) - 1; p++) {
        const int *y = g->token + g->start[i] - prompt;
        double x[NAIVE], h[NAIVE], z[NAIVE] = {0}, sum = 0;
        memcpy(x, w + (p < prompt ? g->prompt[p] : y[p]) * d, (size_t)d * sizeof(double));
        for (int l = 0; l < c->num_hidden_layers; l++)
            layer_naive(m, w, l, p, x, &cache);
        norm_naive(h, x, w + m->tensors[final_norm(c)].offset, d, c->rms_norm_eps);
        linear_naive(z, h, w + m->tensors[lm_head(c)].offset, V, d);
        for (int v = 0; v < V; v++)
            sum += exp(z[v] / temperature);
        if (p >= prompt - 1)
            total += z[y[p + 1]] / temperature - log(sum);
    }
    return total;
}

/* ---------------------------------------------------------------- true gradients */

enum { TRUE_M = 5, TRUE_V = 7 };

/* A group of five responses, of which two are the same and one is a single token. */
static Group true_group(Engine *e, int d)
{
    static const int tokens[] = {3, 1, 4, 0,  2, 0,  3, 1, 4, 0,  0,  5, 5, 6, 2, 1};
    static const int length[TRUE_M] = {4, 2, 4, 1, 5}, prompt[] = {6, 2, 5};
    Group g = group_new(&e->arena, TRUE_M, 4, 5, d);
    memcpy(g.prompt, prompt, sizeof prompt);
    g.prompt_length = 3;
    memcpy(g.token, tokens, sizeof tokens);
    for (int i = 0; i < TRUE_M; i++)
        g.start[i + 1] = g.start[i] + length[i];
    g.n_tokens = g.start[TRUE_M];
    return g;
}

/* Central differences of response i's log-prob.   out: [n_grads] */
static void differences(const Model *m, double *w, const Group *g, int i, double T, float *out)
{
    const double step = 1e-5;
    for (size_t k = 0; k < m->n_grads; k++) {
        double old = w[k], high;
        w[k] = old + step;
        high = response_logprob(m, w, g, i, T);
        w[k] = old - step;
        out[k] = (float)((high - response_logprob(m, w, g, i, T)) / (2 * step));
        w[k] = old;
    }
}

/* cos(a, b) by definition, over floats `from` to `to`; with `tied`, a tied head's part is added to
 * the embedding's first. */
static double cosine_naive(const Model *m, const float *a, const float *b, size_t from, size_t to,
                           bool tied)
{
    double ab = 0, aa = 0, bb = 0;
    size_t head = m->tensors[lm_head(&m->config)].offset, embed = m->tensors[EMBED].size;
    for (size_t k = from; k < to; k++) {
        bool both = tied && k < embed;
        double x = (double)a[k] + (both ? (double)a[head + k] : 0);
        double y = (double)b[k] + (both ? (double)b[head + k] : 0);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    return ab / sqrt(aa * bb);
}

/* Every cosine that is given, against those of gradients taken by differences: `truth`. */
static void check_true_cosines(const Model *m, const float *truth, const double *cosine)
{
    const Tensor *t = m->tensors;
    bool tied = m->config.tie_word_embeddings;
    size_t head = t[lm_head(&m->config)].offset, embed = t[EMBED].size, n = m->n_grads;
    const size_t part[5][2] = {{0, tied ? head : n}, {head, n}, {0, embed},
                               {embed, t[layer_tensor(1, 0)].offset},
                               {t[layer_tensor(1, 0)].offset, t[final_norm(&m->config)].offset}};
    CHECK(gradient_parts(&m->config) == 5, "parts");
    for (int p = 0; p < 5; p++)
        for (int i = 0; i < TRUE_M; i++)
            for (int j = 0; j < TRUE_M; j++) {
                const double *c = cosine + p * TRUE_M * TRUE_M;
                double expected = cosine_naive(m, truth + (size_t)i * n, truth + (size_t)j * n,
                                               part[p][0], part[p][1], tied && p == ALL_PART);
                bool same = i == j || i + j == 2; /* responses 0 and 2 are equal */
                CHECK(fabs(c[i * TRUE_M + j] - expected) < 2e-5, "%s, part %d: %d, %d: %g, %g",
                      tied ? "tied" : "own head", p, i, j, c[i * TRUE_M + j], expected);
                CHECK(c[i * TRUE_M + j] == c[j * TRUE_M + i], "part %d is not symmetric", p);
                CHECK(!same || c[i * TRUE_M + j] == 1, "part %d: %d and %d are the same: %.17g", p,
                      i, j, c[i * TRUE_M + j]);
            }
}

/* Without a matrix of V x d:  <G_i, G_j>_head = sum_{s, t} <r_s, r_t> <h_s, h_t> / T^2,
 * r = e(y) - p. */
static void check_head_products(Engine *e, const Model *m, const Group *g, double T,
                                const float *grads)
{
    enum { N = 16 };
    int d = m->config.hidden_size, V = m->config.vocab_size;
    size_t mark = e->worker[0].used;
    double r[N][TRUE_V], dot[TRUE_M][TRUE_M] = {{0}};
    int owner[N];
    Batch b = pack_groups(&e->worker[0], g, 1);
    Pass p = forward(&e->worker[0], m, &b, KEEP_NOTHING);
    for (int t = 0; t < N; t++) {
        double z[TRUE_V], sum = 0;
        for (owner[t] = 0; g->start[owner[t] + 1] <= t;)
            owner[t]++;
        logits_naive(m, p.hidden + t * d, V, z);
        for (int v = 0; v < V; v++)
            sum += exp(z[v] / T);
        for (int v = 0; v < V; v++)
            r[t][v] = (v == g->token[t]) - exp(z[v] / T) / sum;
    }
    for (int s = 0; s < N; s++)
        for (int t = 0; t < N; t++) {
            double rr = 0, hh = 0;
            for (int v = 0; v < V; v++)
                rr += r[s][v] * r[t][v];
            for (int k = 0; k < d; k++)
                hh += (double)p.hidden[s * d + k] * (double)p.hidden[t * d + k];
            dot[owner[s]][owner[t]] += rr * hh / (T * T);
        }
    for (int i = 0; i < TRUE_M; i++)
        for (int j = 0; j < TRUE_M; j++) {
            double found[8];
            part_dots(m, grads + (size_t)i * m->n_grads, grads + (size_t)j * m->n_grads, found);
            CHECK(fabs(found[HEAD_PART] - dot[i][j]) < 1e-4 * (fabs(dot[i][j]) + 0.1),
                  "head: <G_%d, G_%d> = %g, by tokens %g", i, j, found[HEAD_PART], dot[i][j]);
        }
    e->worker[0].used = mark;
}

/* The gradient of all responses in one batch is the sum of theirs. */
static void check_gradient_sum(Engine *e, Model *m, const Group *g, double T, const float *grads)
{
    float coef[16], *sum = floats_new(m->n_grads), *own = floats_new(m->n_grads);
    size_t mark = e->worker[0].used;
    for (int t = 0; t < g->n_tokens; t++)
        coef[t] = 1;
    m->grads = own;
    Batch b = pack_groups(&e->worker[0], g, 1);
    Pass p = forward(&e->worker[0], m, &b, KEEP_ALL);
    forward_head(&e->worker[0], m, &p, (float)T, true);
    p.coef.logprob = coef;
    backward(&e->worker[0], m, &p);
    weights_backward(e, m, &p, 1, EVERYTHING);
    for (int i = 0; i < g->m; i++)
        for (size_t k = 0; k < m->n_grads; k++)
            sum[k] += grads[(size_t)i * m->n_grads + k];
    CHECK(relative_error(sum, own, m->n_grads) < 1e-5, "the group's gradient is not the sum: %g",
          relative_error(sum, own, m->n_grads));
    e->worker[0].used = mark;
    m->grads = NULL;
    free(sum);
    free(own);
}

/* A model small enough to be differenced; a tied head's weights twice in w. */
static void check_true_gradients(bool tied)
{
    enum { SQUARE = TRUE_M * TRUE_M, WORKERS = 7 }; /* more than responses: all help with each */
    const double T = 0.8;
    Config c = {.model_type = QWEN3, .vocab_size = TRUE_V, .hidden_size = 6,
                .intermediate_size = 7, .num_hidden_layers = NAIVE_LAYERS, .num_attention_heads = 2,
                .num_key_value_heads = 1, .head_dim = 4, .max_position_embeddings = 256,
                .rms_norm_eps = 1e-5, .rope_theta = 100, .tie_word_embeddings = tied,
                .bos_token_id = -1};
    Model m = noisy_model(&c);
    Engine e = engine_new(WORKERS, 1 << 20, 1 << 23);
    size_t n = m.n_grads, head = m.tensors[lm_head(&c)].offset;
    Group g = true_group(&e, c.hidden_size);
    float *grads = floats_new(n * TRUE_M), *alone = floats_new(n * TRUE_M);
    float *truth = floats_new(n * TRUE_M);
    double *w = xcalloc(n, sizeof *w), cosine[5 * SQUARE], single[5 * SQUARE];
    for (size_t k = 0; k < n; k++)
        w[k] = (double)m.params[tied && k >= head ? k - head : k];
    free(m.grads);
    e.threads = 1;
    true_gradients(&e, &m, &g, T, alone);
    gradient_cosines(&e, &m, alone, TRUE_M, single);
    e.threads = WORKERS;
    true_gradients(&e, &m, &g, T, grads);
    CHECK(same_bits(alone, grads, n * TRUE_M), "seven threads changed the gradients");
    e.threads = 3;
    true_gradients(&e, &m, &g, T, grads);
    gradient_cosines(&e, &m, grads, TRUE_M, cosine);
    CHECK(same_bits(alone, grads, n * TRUE_M) && !memcmp(single, cosine, sizeof cosine),
          "threads changed gradients or cosines");
    for (int i = 0; i < TRUE_M; i++) {
        float *own = grads + (size_t)i * n, *exact_one = truth + (size_t)i * n;
        differences(&m, w, &g, i, T, exact_one);
        CHECK(relative_error(own, exact_one, n) < 1e-5, "%s: response %d differs by %g",
              tied ? "tied" : "own head", i, relative_error(own, exact_one, n));
    }
    check_true_cosines(&m, truth, cosine);
    check_head_products(&e, &m, &g, T, grads);
    check_gradient_sum(&e, &m, &g, T, grads);
    free(w);
    free(grads);
    free(alone);
    free(truth);
    model_free(&m);
    e.threads = WORKERS;
    engine_free(&e);
}

static void test_true_gradients(void)
{
    check_true_gradients(false);
    check_true_gradients(true);
}

/* ---------------------------------------------------------------- what is measured */

/* Features of sampled groups at another temperature; with `cut`, without the end tokens. */
static Geometry measured(Engine *e, const Model *m, Group *g, int n, double temperature, bool cut)
{
    static Options o = {.seed = 1};
    Ruler ruler = {.encoder = EMBED_NGRAM};
    Sampled x = {m, g, &ruler, temperature, NULL, 0};
    o.samples = g->m;
    Geometry out = geometry_new("x", "y", n, &o);
    out.threads = 1;
    x.out = &out;
    for (int k = 0; cut && k < n; k++)
        for (int i = 0, from = 0, to = 0; i < g[k].m; i++) {
            int end = g[k].start[i + 1], length = end - from;
            length -= length > 1 && is_eos(&m->config, g[k].token[end - 1]);
            memmove(g[k].token + to, g[k].token + from, (size_t)length * sizeof(int));
            from = end;
            to = g[k].start[i + 1] = to + length;
            g[k].n_tokens = to;
        }
    engine_each(e, n, measure_group, &x);
    return out;
}

/* Does the check's interval of these groups hold 0, as it should? */
static void check_zero_mean(Engine *e, const Model *m, Group *g, int n, double temperature,
                            bool cut, bool expected)
{
    Geometry x = measured(e, m, g, n, temperature, cut);
    Estimate sum = zero_mean_check(&x, SUM_FORM);
    CHECK((sum.low <= 0 && sum.high >= 0) == expected, "features at %g%s: %g [%g, %g]", temperature,
          cut ? ", no end tokens" : "", sum.value, sum.low, sum.high);
    CHECK(sum.value > -1.0 / (g->m - 1) && sum.value < 1, "no ratio: %g", sum.value);
    geometry_free(&x);
}

/* On-policy it does; not where features have another temperature, or where the end tokens are
 * missing. A model of six symbols, so that many responses end, and soon. */
static void test_zero_mean_check(void)
{
    enum { GROUPS = 60, M = 8, PROMPT = 6 };
    Config c = *preset_find("nano");
    c.num_hidden_layers = 1;
    c.vocab_size = 6;
    c.n_eos = 1;
    Model m = model_new(&c);
    Engine e = engine_new(3, 1 << 25, 1 << 25);
    Sampling s = {.top_p = 1, .max_tokens = 16, .seed = 3};
    Extent x = {GROUPS, M, PROMPT, s.max_tokens, 1, KEEP_NOTHING, false};
    Group *g = groups_new(&e, &m, x);
    model_init(&m, 3);
    rope_reserve(&m, 32);
    for (int k = 0; k < GROUPS; k++) {
        g[k].index = (uint32_t)k;
        g[k].prompt_length = PROMPT;
        tree_tokens(g[k].prompt, PROMPT, c.vocab_size, (uint32_t)k, 0);
    }
    for (int t = 0; t < 2; t++) {
        s.temperature = t ? 1 : 0.7;
        sample_groups(&e, &m, g, GROUPS, &s);
        check_zero_mean(&e, &m, g, GROUPS, s.temperature, false, true);
    }
    check_zero_mean(&e, &m, g, GROUPS, 0.5, false, false);
    check_zero_mean(&e, &m, g, GROUPS, 1, true, false);
    model_free(&m);
    engine_free(&e);
}

/* Every count from features made by hand: the pairs' order, what is distinct, edges of bins. */
static void test_geometry_counts(void)
{
    enum { D = 2 };
    Options o = {.samples = 3, .seed = 1, .temperature = 1};
    Geometry x = geometry_new("x", "y", 2, &o);
    double cosine[] = {1, -0.5, -0.5, 0, 0.25, -1}, square[] = {1, 2, 3, 2, 1, 4, 3, 4, 1}, pair[3];
    float Phi[] = {1, 0, 1, 2, 3, -1};
    double cross, mean;
    int start[] = {0, 1, 3, 7}, token[] = {5, 5, 6, 5, 6, 5, 6};
    Group g = {.m = 3, .Phi = Phi, .start = start, .token = token};
    Buf b = {0};
    x.threads = 1;
    memcpy(x.cosine, cosine, sizeof cosine);
    x.same[0] = true;
    CHECK(all_pairs(&x) == 6 && count_distinct(&x) == 5, "pairs");
    upper_triangle(square, 3, pair);
    CHECK(pair[0] == 2 && pair[1] == 3 && pair[2] == 4, "pairs i < j, row by row");
    CHECK(fabs(pair_mean(&x, x.cosine, 0).value + 0.125) < 1e-12, "mean");
    CHECK(fabs(pair_mean(&x, x.cosine, DISTINCT).value + 0.35) < 1e-12, "of distinct pairs");
    CHECK(fabs(pair_mean(&x, x.cosine, NEGATIVE).value - 0.5) < 1e-12, "negative: 0 is not");
    CHECK(fabs(pair_mean(&x, x.cosine, NEGATIVE | DISTINCT).value - 0.6) < 1e-12, "of distinct");
    CHECK(pair_mean(&x, x.cosine, 0).low == -0.25, "low %g", pair_mean(&x, x.cosine, 0).low);
    put_histogram(&b, "all", x.cosine, NULL, 6, -1, 4);
    put_histogram(&b, "distinct", x.cosine, x.same, 6, -1, 4);
    put_negative_groups(&b, &x);
    CHECK(!strcmp(b.s, ", \"all\": [1, 2, 2, 1], \"distinct\": [1, 2, 2, 0], "
                       "\"histogram/neg_ratio\": "
                       "[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]"), "%s", b.s);
    zero_mean(&g, D, MEAN_FORM, &cross, &mean); /* <Phi_i, Phi_j>: 1, 3, 1; squares 1, 5, 10 */
    CHECK(fabs(cross - 5.0 / 3) < 1e-12 && fabs(mean - 16.0 / 3) < 1e-12, "%g, %g", cross, mean);
    zero_mean(&g, D, SUM_FORM, &cross, &mean); /* lengths 1, 2, 4 */
    CHECK(fabs(cross - 22.0 / 3) < 1e-12 && fabs(mean - 181.0 / 3) < 1e-12, "%g, %g", cross, mean);
    CHECK(!same_response(&g, 0, 1) && !same_response(&g, 1, 2), "a beginning is not the same");
    buf_free(&b);
    geometry_free(&x);
}

/* What is said of the true gradients: of distinct pairs alone, and at most 500 of them, one by
 * one. */
static void test_geometry_truth(void)
{
    enum { GROUPS = 40, EACH = 28, ALL = GROUPS * EACH };
    Options o = {.samples = 8, .seed = 1, .temperature = 1};
    Geometry x = geometry_new("x", "y", GROUPS, &o);
    double ones[ALL], phi[ALL], truth[ALL];
    int rows = 0, n = 0, widest = 0;
    Buf b = {0};
    x.threads = x.parts = 1;
    x.truth = xcalloc(ALL, sizeof(double));
    for (int k = 0; k < ALL; k++) {
        x.same[k] = k % 10 == 9;
        x.cosine[k] = x.same[k] ? 1 : (double)noise(1, (size_t)k);
        x.semantic[k] = k;
        x.truth[k] = x.same[k] ? 1 : x.cosine[k] + (double)noise(2, (size_t)k);
        if (x.same[k])
            continue;
        ones[n] = 1;
        phi[n] = x.cosine[k];
        truth[n++] = x.truth[k];
    }
    put_truth(&b, &x);
    double r = field(strstr(b.s, "pearson/phi"), "mean");
    CHECK(fabs(r - correlation(phi, truth, ones, n)) < 1e-12, "Pearson of distinct pairs: %g", r);
    double s = field(strstr(b.s, "spearman/phi"), "mean");
    CHECK(fabs(s - r) < 0.1 && s != r, "Spearman %g, Pearson %g", s, r);
    CHECK(fabs(field(strstr(b.s, "pearson/semantic"), "mean")) < 0.1, "of what is unrelated");
    b.n = 0;
    put_true_pairs(&b, &x);
    int last = -1;
    for (char *p = b.s; (p = strchr(p, ']')) && p[1] == ','; p++, rows++) {
        char *number = p;
        while (number[-1] != ' ')
            number--;
        int k = atoi(number);
        widest = imax(widest, k - last);
        last = k;
    }
    CHECK(rows + 1 == 500 && widest <= 4 && last > ALL - 9, "%d rows, %d apart, up to %d", rows + 1,
          widest, last);
    buf_free(&b);
    geometry_free(&x);
}

/* ================================================================ commands, as a user runs them */

/* The lines of a file, with the numbers of fields that hold times taken out. */
static char *lines_without_times(const char *path)
{
    size_t n;
    char *text = read_file(path, &n);
    for (char *p = text; (p = strstr(p, "\"time/")) || (p = NULL);) {
        char *value = strchr(p, ':') + 1, *end = value + strcspn(value, ",}");
        memset(value, '#', 1);
        memmove(value + 1, end, strlen(end) + 1);
        p = value;
    }
    for (char *p = text; (p = strstr(p, "\"tokens_per_s\""));) {
        char *value = strchr(p, ':') + 1, *end = value + strcspn(value, ",}");
        memmove(value, end, strlen(end) + 1);
        p = value;
    }
    return text;
}

static bool same_lines(const char *a, const char *b)
{
    char *x = lines_without_times(a), *y = lines_without_times(b);
    bool same = !strcmp(x, y) && *x;
    free(x);
    free(y);
    return same;
}

/* A base model for the tests of commands: few steps on the easy task. Made once. */
static const char *base_model(void)
{
    static char path[96];
    if (!path[0]) {
        snprintf(path, sizeof path, "%s/base", tmp_dir());
        int status = cli("sft --preset nano --task add:digits=1 --steps 60 --batch 32 --lr 3e-3 "
                         "--warmup 5 --out %s", path);
        CHECK(status == 0, "sft: %s", cli_err);
    }
    return path;
}

/* Does metrics file `name` hold logp_gap 0 on every line? */
static bool always_on_policy(const char *path, int lines)
{
    size_t n;
    char *text = read_file(path, &n);
    int found = 0;
    for (char *p = text; (p = strstr(p, "\"logp_gap\": 0,")); p++)
        found++;
    free(text);
    return found == lines;
}

/* Promise 2: one seed, one result, whatever the threads and micro-batches. */
static void test_train_repeats(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 3 --prompts 4 --rollouts 6 --max-tokens 20";
    CHECK(cli("train --model %s %s --out %s/a --threads 1", base, common, dir) == 0, "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/b --threads 3 --micro-batch 1", base, common, dir) == 0,
          "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/c --seed 2", base, common, dir) == 0, "%s", cli_err);
    Path a = tmp_path("a/metrics.jsonl"), b = tmp_path("b/metrics.jsonl");
    CHECK(same_lines(a.s, b.s), "threads or micro-batches changed the metrics");
    CHECK(same_lines(tmp_path("a/rollouts.jsonl").s, tmp_path("b/rollouts.jsonl").s), "the ledger");
    CHECK(!same_lines(a.s, tmp_path("c/metrics.jsonl").s), "another seed must differ");
    CHECK(always_on_policy(a.s, 3), "logp_gap is not 0");
    CHECK(cli("train --model %s --out %s/a", base, dir) == 1 && strstr(cli_err, "--force"),
          "a run must not be overwritten: %s", cli_err);
    Model m = model_load(tmp_path("a").s), n = model_load(tmp_path("b/checkpoint-3").s);
    CHECK(weights_hash(&m) == weights_hash(&n), "the saved models differ");
    model_free(&m);
    model_free(&n);
}

/* The same for every method and term of the loss; and each of them is a training of its own. */
static void test_methods_repeat(void)
{
    static const char *const methods[] = {
        "--method grpo",
        "--method grpo --loss sequence",
        "--method grpo --kl k2 --kl-coef 0.5",
        "--method grpo --kl exact --kl-coef 0.5",
        "--method grpo --kl exact --kl-coef 0.5 --mini-batch 2 --epochs 2",
        "--method grpo --mask-truncated --max-tokens 9",
        "--method entropy",
        "--method entropy --entropy-coef 0.5 --kl exact",
        "--method evol",
        "--method evol --encoder ngram --kl-coef 0",
        "--method g2rl --dead-groups zero",
        "--method g2rl --novelty random",
        "--method g2rl --shaping literal --adv-norm none",
    };
    enum { N = sizeof methods / sizeof *methods };
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 4 --rollouts 6 --max-tokens 20";
    uint64_t hash[N];
    for (int i = 0; i < N; i++) {
        CHECK(cli("train --model %s %s %s --out %s/m1 --threads 1 --force", base, common,
                  methods[i], dir) == 0, "%s: %s", methods[i], cli_err);
        CHECK(cli("train --model %s %s %s --out %s/m2 --threads 3 %s --force", base, common,
                  methods[i], dir, i % 2 ? "--recompute" : "--micro-batch 1") == 0, "%s: %s",
              methods[i], cli_err);
        CHECK(same_lines(tmp_path("m1/metrics.jsonl").s, tmp_path("m2/metrics.jsonl").s),
              "%s: threads, micro-batches or recomputation changed the metrics", methods[i]);
        CHECK(same_lines(tmp_path("m1/rollouts.jsonl").s, tmp_path("m2/rollouts.jsonl").s), "%s: "
              "the ledger", methods[i]);
        Model m = model_load(tmp_path("m1").s);
        hash[i] = weights_hash(&m);
        model_free(&m);
        for (int k = 0; k < i; k++)
            CHECK(hash[k] != hash[i], "'%s' trains as '%s' does", methods[k], methods[i]);
    }
}

/* --tokenizer: a preset keeps its own vocab_size, and a directory with everything is written
 * before the first step too. */
static void test_preset_tokenizer(void)
{
    Path file = tmp_path("characters.json"), saved = tmp_path("named/checkpoint-0");
    tokenizer_write(file.s, TASK_ALPHABET);
    CHECK(cli("sft --preset nano --tokenizer %s --steps 0 --dtype f16 --out %s", file.s,
              tmp_path("named").s) == 0, "%s", cli_err);
    CHECK(strstr(cli_err, "/checkpoint-0: ") && strstr(cli_err, " weights are rounded"), "%s",
          cli_err);
    Model m = model_load(saved.s);
    CHECK(m.config.vocab_size == 64 && m.config.n_eos == 1 && m.config.eos_token_id[0] == 0,
          "vocab_size %d", m.config.vocab_size);
    CHECK(m.tensors[EMBED].dtype == ST_F16 && strstr(m.config_text, "\"float16\""), "dtype");
    model_free(&m);
    CHECK(cli("sft --preset tiny --tokenizer %s --steps 1 --batch 2 --out %s", saved.s,
              tmp_path("named-2").s) == 0, "%s", cli_err);
    CHECK(is_file(tmp_path("named-2/checkpoint-1/tokenizer.json").s), "no tokenizer.json");
    CHECK(cli("sft --preset nano --tokenizer %s/absent --out %s", tmp_dir(),
              tmp_path("named-3").s) == 1 && strstr(cli_err, "absent"), "%s", cli_err);
    CHECK(cli("sft --model %s --tokenizer %s --out %s", saved.s, file.s, tmp_path("x").s) == 2 &&
              strstr(cli_err, "--tokenizer"), "%s", cli_err);
}

static bool same_files(const char *a, const char *b)
{
    size_t n, n2;
    if (!is_file(a) || !is_file(b))
        return false;
    char *x = read_file(a, &n), *y = read_file(b, &n2);
    bool same = n == n2 && !memcmp(x, y, n);
    free(x);
    free(y);
    return same;
}

/* What a saved model takes along from the directory it came from, and what it does not. */
static void test_saved_files(void)
{
    static const char *const along[] = {
        "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "added_tokens.json", "tokenizer.model", "LICENSE",
        "tokenizer.json", "config.json",
    };
    static const char *const not[] = {"optimizer.bin", ".hidden.json", "x.index.json", "log.jsonl",
                                      "model-00001-of-00002.safetensors"};
    Path from = tmp_path("files/checkpoint-0"), to = tmp_path("files-2/checkpoint-1");
    CHECK(cli("sft --preset nano --steps 0 --out %s", tmp_path("files").s) == 0, "%s", cli_err);
    for (size_t i = 0; i < 9; i++)
        write_file(path_join(from.s, along[i]).s, "{\"eos_token_id\": 5}\n\0\xFF",
                   i > 1 ? 22 : 20); /* the first two are read, too */
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
        write_file(path_join(from.s, not[i]).s, "x", 1);
    make_dirs(path_join(from.s, "folder.json").s);
    Path config = path_join(from.s, "config.json");
    size_t n;
    char *text = read_file(config.s, &n);
    Buf b = {0};
    buf_printf(&b, "{\"unknown\": {\"field\": [1e400]}, %s", text + 1);
    write_file(config.s, b.s, b.n);
    CHECK(cli("sft --model %s --steps 1 --batch 2 --out %s", from.s, tmp_path("files-2").s) == 0,
          "%s", cli_err);
    CHECK(!strstr(cli_err, "rounded"), "%s", cli_err);
    for (size_t i = 0; i < sizeof along / sizeof *along; i++)
        CHECK(same_files(path_join(from.s, along[i]).s, path_join(to.s, along[i]).s),
              "%s is another or absent", along[i]);
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
        CHECK(access(path_join(to.s, not[i]).s, F_OK), "%s came along", not[i]);
    CHECK(access(path_join(to.s, "folder.json").s, F_OK), "a folder came along");
    Model m = model_load(to.s);
    CHECK(m.config.eos_token_id[0] == 5, "the end token of generation_config.json");
    model_free(&m);

    /* The source may be the very run that is replaced. */
    CHECK(cli("train --model %s --steps 1 --prompts 2 --rollouts 2 --kl-coef 1 --dtype bf16 "
              "--force --out %s", tmp_path("files-2").s, tmp_path("files-2").s) == 0, "%s",
          cli_err);
    CHECK(same_files(path_join(from.s, "merges.txt").s, path_join(to.s, "merges.txt").s) &&
              !same_files(config.s, path_join(to.s, "config.json").s), "files of a replaced run");
    m = model_load(to.s);
    CHECK(m.tensors[EMBED].dtype == ST_BF16 && strstr(m.config_text, "\"bfloat16\"") &&
              strstr(m.config_text, "[1e400]"), "%s", m.config_text);
    model_free(&m);
    buf_free(&b);
    free(text);
}

/* Promise 6: lambda 0 is GRPO, to the bit; lambda 1 is not. Several updates on one batch of
 * rollouts work, and start on-policy. */
static void test_lambda_zero(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 4 --rollouts 6 --max-tokens 20";
    Model m[4];
    cli("train --model %s %s --out %s/grpo --method grpo", base, common, dir);
    cli("train --model %s %s --out %s/zero --method g2rl --lambda 0", base, common, dir);
    cli("train --model %s %s --out %s/one --method g2rl", base, common, dir);
    CHECK(cli("train --model %s %s --out %s/many --mini-batch 1 --epochs 2", base, common,
              dir) == 0, "%s", cli_err);
    const char *names[] = {"grpo", "zero", "one", "many"};
    uint64_t hash[4];
    for (int i = 0; i < 4; i++) {
        m[i] = model_load(tmp_path(names[i]).s);
        hash[i] = weights_hash(&m[i]);
        model_free(&m[i]);
    }
    CHECK(hash[0] == hash[1], "lambda 0 is not GRPO");
    CHECK(hash[0] != hash[2] && hash[2] != hash[3], "lambda, --mini-batch: no effect");
    CHECK(always_on_policy(tmp_path("many/metrics.jsonl").s, 2), "the first look is on-policy");
}

/* The numbers of an array `"name": [..]`, at most `most`; returns how many. */
static int numbers(const char *text, const char *name, double *x, int most)
{
    char quoted[64];
    int n = 0;
    snprintf(quoted, sizeof quoted, "\"%s\": [", name);
    char *at = strstr(text, quoted);
    for (at = at ? at + strlen(quoted) : NULL; at && n < most && *at != ']'; n++) {
        x[n] = strtod(at, &at);
        at += strspn(at, ", ");
    }
    return n;
}

/* The ledger's numbers make its advantages: A from r and nubar, for every group of a step. */
static void check_ledger(const char *method, bool evol)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --prompts 6 --rollouts 4 "
              "--max-tokens 20 --out %s/ledger --force %s", base, dir, method) == 0, "%s", cli_err);
    char *text = read_file(tmp_path("ledger/rollouts.jsonl").s, &n), *line = text;
    int rows = 0, live = 0;
    for (int g = 0; g < 6; g++) {
        double shaped[4], A[4], mean = 0, variance = 0;
        for (int i = 0; i < 4; i++, rows++) {
            double r = field(line, "reward"), nubar = field(line, "nubar"), S[5];
            bool answered = !strstr(line, "\"u\": null") ||
                            strstr(line, "\"u\": null") > strchr(line, '\n');
            double e = answered ? (r > 0 ? 0.5 : -1) + 0.5 * nubar : -1;
            shaped[i] = field(line, "rtilde");
            A[i] = field(line, "advantage");
            CHECK(fabs(shaped[i] - (evol ? e : r * (1 + 0.5 * nubar))) < 1e-9, "%s: r~ of row %d",
                  method, rows);
            CHECK(numbers(line, "semantic", S, 5) == 4 && fabs(S[i] - 1) < 1e-6, "its own text");
            CHECK(field(line, "rollout") == i, "row %d", rows);
            mean += shaped[i] / 4;
            line = strchr(line, '\n') + 1;
        }
        for (int i = 0; i < 4; i++)
            variance += (shaped[i] - mean) * (shaped[i] - mean) / 4;
        for (int i = 0; i < 4; i++)
            CHECK(fabs(A[i] - (shaped[i] - mean) / (sqrt(variance) + 1e-6)) < 1e-6, "A of row %d",
                  rows);
        live += variance > 0.01;
    }
    CHECK(!*line && live > 0, "24 rows, some of them alive");
    free(text);
}

static void test_ledger(void)
{
    check_ledger("--lambda 0.5", false);
    check_ledger("--method evol", true);
}

/* ---------------------------------------------------------------- stopping and going on */

/* The values of a trainer.safetensors, behind its header, which holds times. */
static bool same_tensors(const char *a, const char *b)
{
    size_t n[2] = {0};
    uint64_t header[2] = {0};
    bool there = is_file(a) && is_file(b);
    char *text[2] = {there ? read_file(a, &n[0]) : NULL, there ? read_file(b, &n[1]) : NULL};
    for (int i = 0; i < 2 && there; i++)
        memcpy(&header[i], text[i], 8);
    bool same = there && n[0] - header[0] == n[1] - header[1] && n[0] > header[0] + 8 &&
                !memcmp(text[0] + 8 + header[0], text[1] + 8 + header[1], n[0] - 8 - header[0]);
    free(text[0]);
    free(text[1]);
    return same;
}

/* Are two runs equal in every file, times aside? `steps`: their last checkpoint. */
static void check_same_run(const char *a, const char *b, int steps)
{
    static const char *const lines[] = {"metrics.jsonl", "rollouts.jsonl", "eval.jsonl"};
    char name[32];
    Path x = tmp_path(a), y = tmp_path(b);
    for (int i = 0; i < 3; i++) {
        Path one = path_join(x.s, lines[i]), other = path_join(y.s, lines[i]);
        CHECK(is_file(one.s) == is_file(other.s) && (!is_file(one.s) || same_lines(one.s, other.s)),
              "%s of %s and of %s differ", lines[i], a, b);
    }
    snprintf(name, sizeof name, "checkpoint-%d", steps);
    Path one = path_join(x.s, name), other = path_join(y.s, name);
    static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json"};
    for (int i = 0; i < 3; i++)
        CHECK(same_files(path_join(one.s, files[i]).s, path_join(other.s, files[i]).s),
              "%s of %s and of %s differ", files[i], one.s, other.s);
    CHECK(same_tensors(path_join(one.s, "trainer.safetensors").s,
                       path_join(other.s, "trainer.safetensors").s),
          "m, v or weights of %s", one.s);
}

/* As if the run had been killed after a checkpoint: a later one goes, and its files go on. */
static void break_off(const char *run, int checkpoint)
{
    static const char *const files[] = {"metrics.jsonl", "eval.jsonl", "rollouts.jsonl"};
    Path dir = tmp_path(run);
    remove_dir(checkpoint_path(dir.s, "", checkpoint).s);
    make_dirs(checkpoint_path(dir.s, "tmp-", checkpoint + 3).s);
    write_file(path_join(dir.s, "run.json.tmp-1").s, "{", 1);
    for (int i = 0; i < 3; i++) {
        Path path = path_join(dir.s, files[i]);
        FILE *f = is_file(path.s) ? fopen(path.s, "ab") : NULL;
        if (f)
            fputs("{\"step\": 99, \"loss\": 1}\n{\"step\": 2, \"lo", f);
        if (f)
            fclose(f);
    }
}

enum { SMALL_STEPS = 4 };
#define SMALL_TRAIN "--task add:digits=1 --prompts 4 --rollouts 4 --max-tokens 20 --threads 1"
#define SMALL_SFT "--preset nano --task add:digits=1 --batch 2 --threads 1 --schedule constant"

/* N steps are k steps, --resume, and N - k steps: weights, AdamW's state and every line. */
static void test_resume(void)
{
    static const char *const how[][2] = {
        {"train",
         "--dtype bf16 --warmup 3 --schedule cosine --eval-every 2 --problems 3 --samples 2 "
         "--mini-batch 2 --epochs 2 --kl-coef 0.1"},
        {"train", "--method evol --dtype f16 --weight-decay 0.1"},
        {"sft", "--preset nano --dtype bf16 --batch 3 --warmup 2 --eval-every 1 --max-length 4"},
        {"sft", "--preset nano --task add:digits=1 --batch 4 --shuffle 0"},
    };
    const char *base = base_model(), *dir = tmp_dir();
    Path text = put_file("resume.txt", "1+2=3,4+5=9,6*7=42,8-1=7");
    for (int i = 0; i < 4; i++) {
        Buf options = {0};
        buf_str(&options, how[i][1]);
        if (i < 2)
            buf_printf(&options, " --model %s " SMALL_TRAIN, base);
        if (i == 2)
            buf_printf(&options, " --data %s --valid %s", text.s, text.s);
        for (int k = 0; k < 2; k++)
            CHECK(cli("%s %s --steps %d --save-every 2 --threads 1 --force --out %s/go%d",
                      how[i][0], options.s, SMALL_STEPS, dir, k) == 0,
                  "%s", cli_err);
        buf_free(&options);
        break_off("go1", SMALL_STEPS);
        CHECK(cli("%s --resume --micro-batch 2 %s --out %s/go1", how[i][0],
                  i == 1   ? "--recompute"
                  : i == 3 ? "--threads 2"
                           : "",
                  dir) == 0 &&
                  strstr(cli_err, "/checkpoint-2"),
              "%s", cli_err);
        check_same_run("go0", "go1", SMALL_STEPS);
        CHECK(!is_dir(tmp_path("go1/tmp-checkpoint-7").s) &&
                  !is_file(tmp_path("go1/run.json.tmp-1").s), "what was half-made is there");
    }
    CHECK(cli("sft --resume --out %s/go1", dir) == 0, "nothing is left to do: %s", cli_err);
    check_same_run("go0", "go1", SMALL_STEPS);
    CHECK(cli("sft " SMALL_SFT " --steps 4 --force --out %s/go0", dir) == 0, "%s", cli_err);
    for (int steps = 0; steps < 5; steps += 2)
        CHECK(cli("sft " SMALL_SFT " --steps %d %s --out %s/go1", steps,
                  steps ? "--resume" : "--force", dir) == 0,
              "%s", cli_err);
    check_same_run("go0", "go1", 4);
}

/* With other options than the run's, --resume lists them and stops, having changed nothing. */
static void test_resume_refused(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Path run = tmp_path("refused"), copy = tmp_path("refused-copy"), model = tmp_path("refused-m");
    Path data = put_file("refused.jsonl", "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    Path metrics = path_join(run.s, "metrics.jsonl");
    CHECK(cli("sft --model %s --task add:digits=1 --threads 1 --steps 1 --out %s", base, model.s) ==
              0,
          "%s", cli_err);
    CHECK(cli("train --model %s --data %s --task add:digits=1 --threads 1 --prompts 2 --rollouts 4 "
              "--steps 2 "
              "--kl-coef 0.1 --lr 0.1 --beta2 0.95 --force --out %s",
              model.s, data.s, run.s) == 0,
          "%s", cli_err);
    copy_file(metrics.s, copy.s);
    CHECK(
        cli("train --resume --lr 0.3 --beta2 0.95 --method grpo --steps 3 --out %s", run.s) == 1 &&
            strstr(cli_err, "--lr: was 0.1, is 0.3\n") &&
            strstr(cli_err, "--method: was \"g2rl\", is \"grpo\"\n") &&
            strstr(cli_err, "--force") && !strstr(cli_err, "beta2") && !strstr(cli_err, "--steps:"),
        "%s", cli_err);
    CHECK(same_files(metrics.s, copy.s), "a refused --resume has changed the run");
    CHECK(cli("train --resume --steps 1 --out %s", run.s) == 1 && strstr(cli_err, "--steps 2"),
          "%s", cli_err);
    CHECK(cli("sft --resume --out %s", run.s) == 1 && strstr(cli_err, "a run of train"), "%s",
          cli_err);
    CHECK(cli("train --resume --out %s/none", dir) == 1 && strstr(cli_err, "none/run.json"), "%s",
          cli_err);
    put_file("refused.jsonl", "{\"prompt\": \"1+3:\", \"answer\": \"1+3=4,4\"}\n");
    CHECK(cli("train --resume --steps 3 --out %s", run.s) == 1 && strstr(cli_err, "--data: "), "%s",
          cli_err);
    CHECK(cli("train --resume --steps 3 --lr 0.3 --force --out %s", run.s) == 0 &&
              strstr(cli_err, "--data: ") && strstr(cli_err, "--lr: "),
          "--force goes on: %s", cli_err);
    CHECK(cli("train --resume --steps 4 --lr 0.3 --out %s", run.s) == 0,
          "these are its options "
          "from then on: %s",
          cli_err);
    CHECK(cli("sft --model %s --task add:digits=1 --threads 1 --steps 2 --force --out %s", base,
              model.s) == 0,
          "%s", cli_err);
    CHECK(cli("train --resume --steps 5 --out %s", run.s) == 1 && strstr(cli_err, "began with"),
          "the reference's weights: %s", cli_err);
    copy_file(path_join(run.s, "run.json").s, copy.s);
    put_file("refused/run.json", "{\"command\": \"train\", \"lr\": \"much\"}");
    CHECK(cli("train --resume --out %s", run.s) == 1 &&
              strstr(cli_err, "refused/run.json: line 1") && strstr(cli_err, "'much'"),
          "%s", cli_err);
    put_file("refused/run.json", "{\"command\": \"tra");
    CHECK(cli("train --resume --out %s", run.s) == 1 && strstr(cli_err, "refused/run.json: line 1"),
          "%s", cli_err);
    copy_file(copy.s, path_join(run.s, "run.json").s);
    write_file(metrics.s, "", 0);
    CHECK(cli("train --resume --steps 5 --model %s --kl-coef 0 --out %s", base, run.s) == 1 &&
              strstr(cli_err, "--kl-coef: was 0.1, is 0"),
          "%s", cli_err);
    remove_dir(checkpoint_path(run.s, "", 4).s);
    remove_dir(checkpoint_path(run.s, "", 3).s);
    remove_dir(checkpoint_path(run.s, "", 2).s);
    CHECK(cli("train --resume --out %s", run.s) == 1 && strstr(cli_err, "no complete checkpoint"),
          "%s", cli_err);
}

/* A file of the run that ends before its checkpoint; a torn line, a later one, another text. */
static void test_cut_lines(void)
{
    static const struct {
        const char *text;
        int step, last;
        size_t size;
    } cases[] = {
        {"", 3, 0, 0},
        {"{\"step\": 1}\n{\"step\": 1}\n{\"step\": 2}\n", 1, 1, 24},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n", 2, 2, 24},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n", 3, 3, 36},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}", 9, 2, 24},
        {"{\"step\": 1}\n{\"st", 9, 1, 12},
        {"{\"step\": 1}\nother\n{\"step\": 2}\n", 9, 1, 12},
        {"{\"step\": 10}\n{\"step\": 9}\n", 9, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        Path path = put_file("cut.jsonl", cases[i].text);
        int last = cut_lines(path.s, cases[i].step);
        free(read_file(path.s, &n));
        CHECK(last == cases[i].last && n == cases[i].size, "case %zu: step %d, %zu bytes", i, last,
              n);
    }
    CHECK(cut_lines(tmp_path("nothing.jsonl").s, 3) == 0, "a file that is not there");
    Path run = tmp_path("cut-run");
    CHECK(cli("sft " SMALL_SFT " --steps 2 --out %s", run.s) == 0, "%s", cli_err);
    put_file("cut-run/metrics.jsonl", "{\"step\": 1}\n");
    CHECK(cli("sft --resume --steps 3 --out %s", run.s) == 1 &&
              strstr(cli_err, "ends with step 1, and the checkpoint is of step 2"),
          "%s", cli_err);
    CHECK(cli("sft --resume --steps 3 --force --out %s", run.s) == 0, "%s", cli_err);
}

static void cut_file(const char *path, int bytes)
{
    struct stat info;
    if (stat(path, &info) || truncate(path, info.st_size - bytes))
        die("%s: %s", path, strerror(errno));
}

/* Another trainer.safetensors: the notes of the old one, and one tensor of a wrong shape. */
static void misshape(const char *path)
{
    static const float x[6] = {0};
    SafeTensors st = st_open_file(path);
    StOut *out = xcalloc((size_t)st.n, sizeof *out);
    Buf notes = {0};
    float **copy = xcalloc((size_t)st.n, sizeof *copy);
    for (int i = 0; i < st.n_notes; i++)
        if (strcmp(st.notes[i].key, "format"))
            buf_printf(&notes, ",\"%s\":\"%s\"", st.notes[i].key, st.notes[i].text);
    for (int i = 0; i < st.n; i++) {
        const StTensor *t = &st.tensors[i];
        copy[i] = xmalloc(t->bytes);
        st_read_f32(t, copy[i]);
        out[i] = (StOut){t->name, t->rank, {t->shape[0], t->shape[1]}, copy[i], ST_F32};
        if (!strcmp(t->name, "v.model.norm.weight"))
            out[i] = (StOut){t->name, 1, {6}, x, ST_F32};
    }
    Path other = tmp_path("misshapen");
    st_write(other.s, notes.s, out, st.n);
    for (int i = 0; i < st.n; i++)
        free(copy[i]);
    free(copy);
    free(out);
    buf_free(&notes);
    st_close(&st);
    copy_file(other.s, path);
}

/* A checkpoint that is not whole is passed over, one that does not fit is refused by name. */
static void test_incomplete(void)
{
    static const char *const broken[][3] = {
        {"trainer.safetensors", "", "trainer.safetensors: cannot be opened"},
        {"config.json", "", "config.json: is not there"},
        {"trainer.safetensors", "5", "trainer.safetensors: header"},
        {"model.safetensors", "1", "model.safetensors: header"},
        {"model.safetensors", "", "model.safetensors: cannot be opened"},
        {"checkpoint-2/trainer.safetensors", "2", "is of step 2"},
    };
    Path whole = tmp_path("complete");
    CHECK(cli("sft " SMALL_SFT " --steps 4 --save-every 2 --out %s", whole.s) == 0, "%s", cli_err);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        Path run = tmp_path("broken"), dir = path_join(run.s, "checkpoint-4");
        Path from = path_join(run.s, broken[i][0]);
        Path file = path_join(dir.s, i == 5 ? "trainer.safetensors" : broken[i][0]);
        char command[3 * sizeof(Path) + 32];
        snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", run.s, whole.s, run.s);
        CHECK(system(command) == 0, "%s", command);
        if (i == 5)
            copy_file(from.s, file.s);
        else if (*broken[i][1])
            cut_file(file.s, atoi(broken[i][1]));
        else
            unlink(file.s);
        CHECK(cli("sft --resume --out %s", run.s) == 0 && strstr(cli_err, broken[i][2]) &&
                  strstr(cli_err, "checkpoint-4: passed over") &&
                  strstr(cli_err, "going on from") && strstr(cli_err, "checkpoint-2"),
              "%s: %s", broken[i][2], cli_err);
        check_same_run("complete", "broken", 4);
    }
    Path file = tmp_path("broken/checkpoint-4/model.safetensors");
    size_t n;
    char *text = read_file(file.s, &n);
    text[n - 1] ^= 1;
    write_file(file.s, text, n);
    CHECK(cli("sft --resume --steps 5 --out %s", tmp_path("broken").s) == 1 &&
              strstr(cli_err, "weights_hash") && strstr(cli_err, "checkpoint-4"),
          "%s", cli_err);
    text[n - 1] ^= 1;
    write_file(file.s, text, n);
    free(text);
    misshape(tmp_path("broken/checkpoint-4/trainer.safetensors").s);
    CHECK(cli("sft --resume --steps 5 --out %s", tmp_path("broken").s) == 1 &&
              strstr(cli_err, "v.model.norm.weight has shape [6]; expected [64]"),
          "%s", cli_err);
}

/* --keep N leaves the newest N checkpoints; 0 all; a run anew leaves none of the old ones. */
static void test_keep(void)
{
    Path run = tmp_path("keep");
    for (int keep = 0; keep < 4; keep++) {
        CHECK(cli("sft " SMALL_SFT " --steps 4 --save-every 1 --keep %d --force --out %s", keep,
                  run.s) == 0,
              "%s", cli_err);
        for (int step = 1; step <= 5; step++)
            CHECK(is_dir(checkpoint_path(run.s, "", step).s) ==
                      (step <= 4 && (!keep || step > 4 - keep)),
                  "--keep %d: checkpoint %d", keep, step);
    }
    CHECK(cli("sft --resume --steps 5 --keep 1 --out %s", run.s) == 0, "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 5 && newest_name(run.s, 4) == -1, "--keep 1");
    CHECK(cli("sft " SMALL_SFT " --steps 3 --force --out %s", run.s) == 0, "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 3 && newest_name(run.s, 2) == -1, "--force");
}

/* A command line that runs on its own; its stderr goes to a file. */
static pid_t cli_start(const char *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
static pid_t cli_start(const char *err, const char *fmt, ...)
{
    Words128 w;
    va_list ap;
    va_start(ap, fmt);
    cut_words(&w, fmt, ap);
    va_end(ap);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGINT, SIG_DFL); /* a shell's job in the background ignores it */
        if (freopen(err, "w", stderr) && freopen("/dev/null", "w", stdout))
            cli_child(&w);
        _exit(127);
    }
    return child;
}

/* Waits, at most 20 seconds, until a file is there and holds at least `bytes`. */
static bool wait_for_file(const char *path, off_t bytes)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct stat info;
    for (int i = 0; i < 10000; i++) {
        if (!stat(path, &info) && info.st_size >= bytes)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* A first SIGINT or SIGTERM: the step is finished and saved, status 130. A second ends at once. */
static void test_interrupt(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Path err = tmp_path("interrupt.err"), run = tmp_path("interrupt");
    Path metrics = path_join(run.s, "metrics.jsonl");
    size_t n;
    int status;
    for (int i = 0; i < 2; i++) {
        remove_dir(checkpoint_path(run.s, "", 1).s);
        unlink(metrics.s);
        pid_t child = i ? cli_start(err.s,
                                    "train --model %s " SMALL_TRAIN " --steps 100000 --force "
                                    "--out %s",
                                    base, run.s)
                        : cli_start(err.s, "sft " SMALL_SFT " --steps 100000 --out %s", run.s);
        CHECK(wait_for_file(metrics.s, 1), "no step");
        kill(child, i ? SIGTERM : SIGINT);
        waitpid(child, &status, 0);
        char *text = read_file(err.s, &n), *lines = read_file(metrics.s, &n);
        char *last = strstr(text, "g2rl: stopped after step ");
        int step = last ? atoi(last + 25) : -1;
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130, "status %x: %s", (unsigned)status,
              text);
        CHECK(last && strchr(last, '\n') == last + strlen(last) - 1 && strstr(last, "--resume"),
              "one line: %s", text);
        CHECK(step > 0 && newest_name(run.s, INT_MAX) == step &&
                  field(strrchr(lines, '{'), "step") == step,
              "step %d is not the last", step);
        free(text);
        free(lines);
        CHECK(cli("%s --resume --steps %d --out %s", i ? "train" : "sft", step + 1, run.s) == 0,
              "%s", cli_err);
    }
    pid_t child = cli_start(err.s,
                            "train --model %s " SMALL_TRAIN " --reward-cmd cat>%s/asked "
                            "--reward-timeout 3 --out %s/twice",
                            base, dir, dir);
    const struct timespec pause = {.tv_nsec = 50000000};
    CHECK(wait_for_file(tmp_path("asked").s, 1), "no rollouts");
    kill(child, SIGTERM);
    nanosleep(&pause, NULL);
    CHECK(waitpid(child, &status, WNOHANG) == 0, "the first signal has ended it: %x",
          (unsigned)status);
    double since = now_seconds();
    kill(child, SIGINT);
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT && now_seconds() - since < 5,
          "the second: %x after %g s", (unsigned)status, now_seconds() - since);
}

static void demand_for_dying(void *model)
{
    const Model *m = model;
    demand_finite(m, 7, 0.5, grads_norm(m, 1));
}

static void save_run_for_dying(void *run) { run_save(run); }

/* What is not finite ends the run with the tensor's name, and reaches no checkpoint. */
static void test_not_finite(void)
{
    char err[512];
    Session s = {0};
    Path out = tmp_path("finite");
    s.o.out = out.s;
    make_dirs(out.s);
    s.model = model_new(preset_find("nano"));
    model_init(&s.model, 1);
    model_trainable(&s.model, false);
    Model *m = &s.model;
    Run run = {.s = &s, .step = 3, .saved = -1, .adam = {.step = 3}};
    CHECK(dies(demand_for_dying, m, err, sizeof err) == 0, "%s", err);
    int t = layer_tensor(2, GATE_PROJ);
    float *const flat[4] = {m->grads, m->params, m->m, m->v};
    for (int i = 0; i < 4; i++) {
        float *x = at(m, flat[i], t) + m->tensors[t].size - 1, before = *x;
        *x = i % 2 ? (float)INFINITY : (float)NAN;
        int status = dies(i < 2 ? demand_for_dying : save_run_for_dying,
                          i < 2 ? (void *)m : (void *)&run, err, sizeof err);
        CHECK(status == 1 && strstr(err, "model.layers.2.mlp.gate_proj.weight") &&
                  strstr(err, i < 2 ? "step 7" : "step 3"),
              "array %d: %s", i, err);
        *x = before;
    }
    CHECK(newest_name(out.s, INT_MAX) == -1, "it was saved");
    session_free(&s);
    CHECK(cli("sft " SMALL_SFT " --steps 60 --warmup 0 --lr 10 --weight-decay 10 "
              " --save-every 1 --keep 2 --force --out %s",
              out.s) == 1 &&
              strstr(cli_err, "g2rl: step ") && strstr(cli_err, "model.") &&
              strstr(cli_err, "finite"),
          "%s", cli_err);
    char first[512], *stopped = strstr(cli_err, "g2rl: step ");
    int step = stopped ? atoi(stopped + 11) : 0;
    snprintf(first, sizeof first, "%s", stopped ? stopped : "nothing");
    CHECK(step > 3 && newest_name(out.s, INT_MAX) == step - 1, "step %d", step);
    CHECK(cli("sft --resume --out %s", out.s) == 1 && strstr(cli_err, first), "again: %s", cli_err);
    Model good = model_load(out.s);
    CHECK(!first_not_finite(&good, good.params), "the last checkpoint");
    model_free(&good);
}

/* A run in a directory where nobody else but root may write. */
static void begin_for_dying(void *run)
{
    if (!geteuid() && (setgid(65534) || setuid(65534)))
        die("cannot become another user");
    run_begin(run);
}

/* A command line whose files may have half a MiB, less than a model. */
static void limited_child(void *words)
{
    struct rlimit limit = {1 << 19, 1 << 19};
    setrlimit(RLIMIT_FSIZE, &limit);
    cli_child(words);
}

static int cli_limited(const char *fmt, ...) PRINTF_LIKE(1, 2);
static int cli_limited(const char *fmt, ...)
{
    Words128 w;
    va_list ap;
    va_start(ap, fmt);
    cut_words(&w, fmt, ap);
    va_end(ap);
    return in_child(limited_child, &w, "", cli_out, sizeof cli_out, cli_err, sizeof cli_err);
}

/* Each way in which a run cannot write ends it with one line, and with no checkpoint that is not
 * whole. */
static void test_run_failures(void)
{
    char err[1024];
    int status;
    Path full = tmp_path("full"), metrics = path_join(full.s, "metrics.jsonl");
    make_dirs(full.s);
    CHECK(symlink("/dev/full", metrics.s) == 0, "symlink");
    CHECK(cli("sft " SMALL_SFT " --steps 2 --out %s", full.s) == 1 &&
              strstr(cli_err, "full/metrics.jsonl: cannot be written: No space"),
          "%s", cli_err);
    unlink(metrics.s);

    CHECK(cli_limited("sft " SMALL_SFT " --steps 2 --force --out %s", full.s) == 1 &&
              strstr(cli_err, "model.safetensors: cannot be written: File too large"),
          "%s", cli_err);
    CHECK(newest_name(full.s, INT_MAX) == -1, "half a checkpoint");
    CHECK(cli("sft --resume --out %s", full.s) == 1 && strstr(cli_err, "no complete checkpoint"),
          "%s", cli_err);

    Path gone = tmp_path("gone");
    pid_t child =
        cli_start(tmp_path("gone.err").s, "sft " SMALL_SFT " --steps 2000 --out %s", gone.s);
    size_t n;
    CHECK(wait_for_file(path_join(gone.s, "metrics.jsonl").s, 1), "no step");
    CHECK(cli("sft --preset nano --force --out %s", gone.s) == 1 &&
              strstr(cli_err, "another process is writing"),
          "%s", cli_err);
    unlink(path_join(gone.s, "run.json").s);
    remove_dir(gone.s);
    waitpid(child, &status, 0);
    char *text = read_file(tmp_path("gone.err").s, &n);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
              strstr(text, "gone/metrics.jsonl: was removed"),
          "%s", text);
    CHECK(!is_dir(gone.s), "the directory has come back");
    free(text);

    Path locked = tmp_path("locked");
    make_dirs(locked.s);
    chmod(tmp_dir(), 0755);
    chmod(locked.s, 0555);
    Session s = {.o = {.out = locked.s}};
    Run run = {.s = &s, .command = SFT, .saved = -1};
    CHECK(dies(begin_for_dying, &run, err, sizeof err) == 1 &&
              strstr(err, "metrics.jsonl: cannot be written: Permission denied"),
          "%s", err);
    s.o.out = "/dev/null/run";
    CHECK(dies(begin_for_dying, &run, err, sizeof err) == 1 &&
              strstr(err, "/dev/null/run: cannot make the directory: Not a directory"),
          "%s", err);
    chmod(tmp_dir(), 0700);
}

/* The lengths of phi, entropies and log-probs of a prompt's continuation, from a plain forward pass
 * over one sequence. ids: prompt and response. Returns the largest difference from the three. */
static double differs_from_plain(const Model *m, const int *ids, int prompt, int n,
                                 double *given[3])
{
    size_t bytes = pass_bytes(m, (size_t)(n - 1), (size_t)(n - prompt), n, KEEP_NOTHING);
    Arena a = arena_new(2 * bytes + (1 << 20));
    Batch b = batch_new(&a, n - 1, 1, n - prompt);
    double worst = 0;
    batch_seq(&b, ids, n - 1, 0, -1);
    for (int t = prompt; t < n; t++)
        batch_target(&b, t - 1, ids[t]);
    Pass p = forward(&a, m, &b, KEEP_NOTHING);
    forward_head(&a, m, &p, 1.0f, true);
    int d = m->config.hidden_size;
    for (int t = 0; t < n - prompt; t++) {
        double length = 0;
        for (int k = 0; k < d; k++)
            length += pow((double)p.head.phi[t * d + k], 2);
        worst = fmax(worst, fabs(sqrt(length) - given[2][t]));
        worst = fmax(worst, fabs((double)p.head.entropy[t] - given[1][t]));
        worst = fmax(worst, fabs((double)p.head.logprob[t] - given[0][t]));
    }
    arena_free(&a);
    return worst;
}

/* What `replay --json` printed, against the ledger's row and, at step 1, a plain forward pass. */
static void check_replay(const char *row, const char *base)
{
    double x[4][64], sum = 0, mean = 0;
    static const char *const names[] = {"logprob", "entropy", "phi", "ids"};
    int n = 0;
    for (int k = 0; k < 4; k++) {
        int count = numbers(cli_out, names[k], x[k], 64);
        CHECK(count > 0 && (k == 0 || count == n), "%s: %d values", names[k], count);
        n = count;
    }
    for (int t = 0; t < n; t++) {
        sum += x[0][t];
        mean += x[1][t] / n;
    }
    CHECK(n == field(row, "length") && fabs(sum - field(row, "logprob")) < 1e-6 &&
              fabs(mean - field(row, "entropy")) < 1e-6,
          "%s, not %.300s", cli_out, row);
    if (!base)
        return;
    Path dir = model_dir(base), file = path_join(dir.s, "tokenizer.json");
    Model m = model_load(dir.s);
    Tokenizer t = tokenizer_load(file.s);
    Ids ids = {0};
    size_t bad;
    const char *prompt = strstr(cli_out, "\"prompt\": \"") + 11;
    tokenizer_encode(&t, prompt, strcspn(prompt, "\""), &ids, &bad);
    int first = ids.n;
    for (int i = 0; i < n; i++)
        ids_add(&ids, (int)x[3][i]);
    rope_reserve(&m, ids.n);
    double *given[3] = {x[0], x[1], x[2]};
    double error = differs_from_plain(&m, ids.id, first, ids.n, given);
    CHECK(error < 1e-6, "|phi|, entropy or log-prob is off by %g", error);
    ids_free(&ids);
    tokenizer_free(&t);
    model_free(&m);
}

/* Replaces the first `old` behind the n-th line's beginning in a file. */
static void alter(const char *path, int line, const char *old, const char *new)
{
    size_t n;
    char *text = read_file(path, &n), *at = text;
    Buf b = {0};
    for (int i = 0; i < line; i++)
        at = strchr(at, '\n') + 1;
    at = strstr(at, old);
    buf_add(&b, text, (size_t)(at - text));
    buf_str(&b, new);
    buf_str(&b, at + strlen(old));
    write_file(path, b.s, b.n);
    buf_free(&b);
    free(text);
}

/* replay makes any rollout of a run again, alone, wherever its weights come from; what is not as
 * the run's files say is named. */
static void test_replay(void)
{
    const char *base = base_model();
    Path run = tmp_path("replayed"), ledger = path_join(run.s, "rollouts.jsonl");
    Path metrics = path_join(run.s, "metrics.jsonl"), copy = tmp_path("ledger-copy");
    CHECK(cli("train --model %s " SMALL_TRAIN " --steps 4 --save-every 2 --lr 1e-3 --out %s", base,
              run.s) == 0,
          "%s", cli_err);
    size_t n;
    char *text = read_file(ledger.s, &n), *row = text;
    copy_file(ledger.s, copy.s);
    for (int i = 0; i < 64; i++, row = strchr(row, '\n') + 1) {
        int step = i / 16 + 1, g = i / 4 % 4, r = i % 4;
        if (i % 13 != 3) /* rollouts 3, 16, 29, 42, 55 */
            continue;
        CHECK(cli("replay %s --step %d --group %d --rollout %d --json --threads %d", run.s, step, g,
                  r, 1 + (i == 3)) == 0,
              "step %d, group %d, rollout %d: %s", step, g, r, cli_err);
        CHECK((strstr(cli_err, "replay ") != NULL) == (step % 2 == 0), "a step done again: %s",
              cli_err);
        if (*cli_out)
            check_replay(row, step == 1 ? base : NULL);
    }
    free(text);
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 0 && strstr(cli_out, "|phi|"),
          "%s", cli_err);
    alter(ledger.s, 36, "\"logprob\": -", "\"logprob\": -1");
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 1 &&
              strstr(cli_err, "rollouts.jsonl: the response's log-prob is -1"),
          "%s", cli_err);
    copy_file(copy.s, ledger.s);
    alter(ledger.s, 36, "\"response\": \"", "\"response\": \"x");
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 1 &&
              strstr(cli_err, "the response is 'x"),
          "%s", cli_err);
    copy_file(copy.s, ledger.s);
    alter(metrics.s, 2, "\"weights_hash\": \"", "\"weights_hash\": \"f");
    CHECK(cli("replay %s --step 4 --threads 1", run.s) == 1 &&
              strstr(cli_err, "metrics.jsonl: step 3"),
          "%s", cli_err);
    CHECK(cli("replay %s --step 5", run.s) == 1 && strstr(cli_err, "step 5 has 0 rows"), "%s",
          cli_err);
    CHECK(cli("replay %s --step 1 --group 4", run.s) == 2 && strstr(cli_err, "4 groups of 4"), "%s",
          cli_err);
    CHECK(cli("replay --step 1") == 2 && strstr(cli_err, "one run directory"), "%s", cli_err);
    CHECK(cli("replay %s", run.s) == 2 && strstr(cli_err, "--step is missing"), "%s", cli_err);
    CHECK(cli("replay %s --step 1", base) == 1 && strstr(cli_err, "a run of sft"), "%s", cli_err);
}

/* sft learns, and its loss is the mean of -log p over what is trained on: `score` agrees. */
static void test_sft(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    char *text = read_file(tmp_path("base/metrics.jsonl").s, &n);
    double first = field(text, "loss"), last = field(strrchr(text, '{'), "loss");
    free(text);
    CHECK(first > 2.5 && last < 1.0, "loss from %g to %g", first, last);
    Path data = tmp_path("two.jsonl");
    const char *records = "{\"input_ids\": [1, 2, 3, 4, 5]}\n"
                          "{\"input_ids\": [6, 7, 8, 9], \"labels\": [-100, -100, 8, -100]}\n";
    write_file(data.s, records, strlen(records));
    CHECK(cli("sft --model %s --data %s --steps 1 --batch 2 --lr 0 --out %s/two", base, data.s,
              dir) == 0, "%s", cli_err);
    text = read_file(tmp_path("two/metrics.jsonl").s, &n);
    double loss = field(text, "loss");
    free(text);
    CHECK(cli_in(records, "score --model %s", base) == 0, "%s", cli_err);
    double sum = 0, p[8];
    const char *at = cli_out;
    for (int line = 0, k = 0; line < 2; line++) {
        at = strstr(at, "[null") + 5;
        for (; *at == ','; k++)
            p[k] = strtod(at + 1, (char **)&at);
    }
    sum = -(p[0] + p[1] + p[2] + p[3] + p[5]);
    CHECK(fabs(loss - sum / 5) < 1e-6, "loss %g, but score says %g", loss, sum / 5);
    /* --shuffle 0 takes the records in file order: one a step. */
    cli("sft --model %s --data %s --steps 2 --batch 1 --lr 0 --shuffle 0 --out %s/order", base,
        data.s, dir);
    text = read_file(tmp_path("order/metrics.jsonl").s, &n);
    CHECK(fabs(field(text, "loss") + (p[0] + p[1] + p[2] + p[3]) / 4) < 1e-6 &&
              fabs(field(strchr(text, '\n'), "loss") + p[5]) < 1e-6, "--shuffle 0");
    free(text);
    /* Of a text, the response and its end token are trained on, the prompt is not. */
    const char *pair = "{\"prompt\": \"4+5:\", \"response\": \"9\"}\n";
    write_file(data.s, pair, strlen(pair));
    cli("sft --model %s --data %s --steps 1 --batch 1 --lr 0 --out %s/pair", base, data.s, dir);
    text = read_file(tmp_path("pair/metrics.jsonl").s, &n);
    cli_in("{\"text\": \"4+5:9" END_TOKEN "\"}\n", "score --model %s", base);
    at = strstr(cli_out, "[null") + 5;
    for (int k = 0; k < 5; k++)
        p[k] = strtod(at + 1, (char **)&at);
    CHECK(fabs(field(text, "loss") + (p[3] + p[4]) / 2) < 1e-6, "loss of a text: %g, not %g",
          field(text, "loss"), -(p[3] + p[4]) / 2);
    free(text);
    const char *bad = "{\"input_ids\": [1, 2], \"labels\": [1]}\n";
    write_file(data.s, bad, strlen(bad));
    CHECK(cli("sft --model %s --data %s --out %s/no_run", base, data.s, dir) == 1 &&
              strstr(cli_err, "line 1") && strstr(cli_err, "labels"), "%s", cli_err);
    CHECK(!is_dir(tmp_path("no_run").s), "a failed command left its directory behind");
}

/* explain --data --json on the oracle's first group: the whole path, from ids to A. */
static void test_explain(void)
{
    Path dir, file;
    Engine e = engine_new(1, 1 << 24, 1 << 24);
    Group g[ORACLE_GROUPS];
    Buf b = {0};
    vectors(&dir, "models/q3_tied_f32");
    vectors(&file, "oracle/q3_tied_f32.g2rl.safetensors");
    SafeTensors st = st_open_file(file.s);
    oracle_groups(&st, &e, 64, g);
    buf_str(&b, "{\"prompt_ids\": [");
    for (int i = 0; i < g[0].prompt_length; i++)
        buf_printf(&b, "%s%d", i ? "," : "", g[0].prompt[i]);
    buf_str(&b, "], \"response_ids\": [");
    for (int i = 0; i < ORACLE_M; i++) {
        buf_str(&b, i ? ",[" : "[");
        for (int t = g[0].start[i]; t < g[0].start[i + 1]; t++)
            buf_printf(&b, "%s%d", t > g[0].start[i] ? "," : "", g[0].token[t]);
        buf_str(&b, "]");
    }
    buf_str(&b, "]");
    put_vector(&b, "rewards", g[0].reward, ORACLE_M);
    buf_str(&b, "}\n");
    write_file(tmp_path("group.jsonl").s, b.s, b.n);
    CHECK(cli("explain --model %s --data %s --json --lambda 0.5 --shaping literal", dir.s,
              tmp_path("group.jsonl").s) == 0, "%s", cli_err);
    float *A = tensor_values(&st, "A", NULL);
    const char *at = strstr(cli_out, "\"A\": [");
    at = at ? at + 5 : ",";
    for (int i = 0; i < ORACLE_M; i++) {
        double x = strtod(at + 1, (char **)&at);
        CHECK(fabs(x - (double)A[i]) < 1e-4, "A_%d is %g, not %g", i, x, (double)A[i]);
    }
    free(A);
    const char *few = "{\"prompt_ids\": [1], \"response_ids\": [[1], [2]], \"rewards\": [1]}\n";
    write_file(tmp_path("group.jsonl").s, few, strlen(few));
    CHECK(cli("explain --model %s --data %s --json", dir.s, tmp_path("group.jsonl").s) == 1 &&
              strstr(cli_err, "rewards"), "%s", cli_err);
    buf_free(&b);
    st_close(&st);
    engine_free(&e);
    for (int m = 4; m <= 16; m *= 2) {
        CHECK(cli("explain --model %s --task add:digits=1 --rollouts %d --method %s", base_model(),
                  m, m == 8 ? "evol" : "g2rl") == 0 && strstr(cli_out, m == 8 ? " u " : " nubar "),
              "%s", cli_err);
        for (const char *line = cli_out; *line; line += *line == '\n') {
            size_t columns = strcspn(line, "\n");
            CHECK(columns <= 100, "over 100 columns: %s", line);
            line += columns;
        }
        char last[16];
        snprintf(last, sizeof last, "\n%d: ", m - 1);
        CHECK(strstr(cli_out, "\n0: ") && strstr(cli_out, last), "a sentence each: %s", cli_out);
    }
    Buf text = {0};
    buf_str(&text, "a\nb\xc3\xa9\xc3\xa9");
    CHECK(one_line(&text, 5) == 5 && !strcmp(text.s, "a b\xc3\xa9\xc3\xa9"), "'%s'", text.s);
    CHECK(one_line(&text, 4) == 4 && !strcmp(text.s, "a .."), "'%s'", text.s);
    buf_free(&text);
    b.n = 0;
    buf_str(&b, "{\"prompt_ids\": [1], \"rewards\": [1");
    for (int i = 1; i < 40; i++)
        buf_printf(&b, ", %d", i % 3 - 1);
    buf_str(&b, "], \"response_ids\": [");
    for (int i = 0; i < 40 * 400; i++)
        buf_printf(&b, "%s%d", i % 400 ? ", " : i ? "], [" : "[", 1 + i * 7919 % 18);
    buf_str(&b, "]]}\n");
    write_file(tmp_path("long-group.jsonl").s, b.s, b.n);
    CHECK(cli("explain --model %s --method evol --json --data %s/long-group.jsonl", base_model(),
              tmp_dir()) == 0, "long responses: %s", cli_err);
    buf_free(&b);
}

/* Two models on one set of problems: the differences that are printed and written are those of
 * their own rows' problems. */
static void eval_of_two(const char *base)
{
    double right[2][16], maj[2][16], interval[2];
    CHECK(cli("train --model %s --task add:digits=1 --steps 2 --lr 3e-3 --out %s/other", base,
              tmp_dir()) == 0, "%s", cli_err);
    CHECK(cli("eval --json --task add:digits=1 --split train --problems 16 --samples 2 --seed 3 "
              "x=%s y=%s/other", base, tmp_dir()) == 0, "%s", cli_err);
    const char *row[2] = {strstr(cli_out, "\"x\": {"), strstr(cli_out, "\"y\": {")};
    const char *difference = strstr(cli_out, "\"difference\"");
    for (int i = 0; i < 2; i++) {
        CHECK(row[i] && numbers(row[i], "right", right[i], 16) == 16 &&
                  numbers(row[i], "maj", maj[i], 16) == 16, "%s", cli_out);
        for (int k = 0; k < 16; k++)
            right[i][k] /= 2;
    }
    for (int i = 0; i < 2 && difference; i++) {
        const char *name = i ? "maj@2" : "pass@1";
        const char *other = i ? "maj@2/interval" : "pass@1/interval";
        Estimate e = i ? paired(maj[1], maj[0], 16, 3) : paired(right[1], right[0], 16, 3);
        CHECK(fabs(field(difference, name) - e.value) < 1e-9 && fabs(e.value) > 0.01 &&
                  numbers(difference, other, interval, 2) == 2 &&
                  fabs(interval[0] - e.low) < 1e-5 && fabs(interval[1] - e.high) < 1e-5,
              "%s: %g [%g, %g]: %s", name, e.value, e.low, e.high, difference);
        char printed[64];
        snprintf(printed, sizeof printed, "  %+5.1f [%+5.1f, %+5.1f]", 100 * e.value, 100 * e.low,
                 100 * e.high);
        CHECK(strstr(cli_err, "minus x") && strstr(strstr(cli_err, "minus x"), printed),
              "the table has no '%s': %s", printed, cli_err);
    }
    CHECK(difference != NULL, "%s", cli_out);
}

/* A group of m answers of one token each, as the method sees them: features in the plane at `angle`
 * degrees, of length 0 where the angle is negative. */
static Group told_group(Engine *e, int m, const int *angle, const int *token, const double *reward,
                        const MethodOptions *o)
{
    float Phi[16] = {0};
    for (int i = 0; i < m; i++)
        for (int k = 0; k < 2; k++) {
            double a = angle[i] * acos(0) / 90;
            Phi[2 * i + k] = angle[i] < 0 ? 0 : (float)(k ? sin(a) : cos(a));
        }
    Group g = made_group(e, m, 2, Phi, reward);
    for (int i = 0; i < m; i++) {
        g.token[i] = token[i];
        g.answered[i] = true;
        g.reason[i] = is_right(reward[i]) ? "right" : "off by one";
    }
    if (o->novelty == NOVELTY_RANDOM) {
        permute_novelty(&g, 1, 0);
        normalize_novelty(&g);
    }
    for (int i = 0; i < m; i++)
        g.shaped[i] = shape_reward(reward[i], g.nubar[i], o);
    advantages(&g, o);
    return g;
}

static void check_told(const Group *g, int i, const MethodOptions *o, const char *sentence)
{
    Buf b = {0};
    if (i < 0)
        explain_whole(g, o, &b);
    else
        explain_response(g, i, o, &b);
    CHECK(!strcmp(b.n ? b.s : "", sentence), "told:\n      %s\n    not:\n      %s",
          b.n ? b.s : "", sentence);
    buf_free(&b);
}

/* What is said of one group, under one method. `told`: of the group, then of each response; NULL:
 * nothing new. */
typedef struct {
    MethodOptions o;
    int m, angle[6], token[6];
    double reward[6];
    const char *told[7];
} Told;

static const Told TOLD[] = {
    {{.method = G2RL, .lambda = 1},
     6, {0, 60, 0, 90, 100, -1}, {1, 2, 1, 3, 4, 5}, {1, 1, 1, -1, -1, -1},
     {"",
      "0: right, the same answer as 2, nu 0.48: boosted to +1.63; above the group's "
      "mean by 0.92 standard deviations.",
      "1: right, the most novel of the right ones, nu 0.72, most like 0 and 2 (S "
      "+0.50, +0.50): boosted to +1.94; above the group's mean by 1.10 standard "
      "deviations.",
      NULL,
      "3: wrong (off by one), nu 0.73, most like 1 (S +0.87): loses more, down to "
      "-1.96; below the group's mean by 1.16 standard deviations.",
      "4: wrong (off by one), the most novel of the wrong ones, nu 0.76, most like 1 "
      "(S +0.77): loses more, down to -2.00; below the group's mean by 1.18 standard "
      "deviations.",
      "5: wrong (off by one), the policy certain of its every token (certainty is not"
      " novelty: nu 0): stays at -1.00, the least loss; below the group's mean by "
      "0.60 standard deviations."}},
    {{.method = G2RL, .lambda = 1, .shaping = SHAPING_LITERAL},
     4, {0, 50, 90, 120}, {1, 2, 3, 4}, {1, 1, -1, -1},
     {NULL,
      "0: right, the most novel of the right ones, nu 0.65, most like 1 (S +0.64): "
      "boosted to +1.27; above the group's mean by 1.13 standard deviations.",
      "1: right, the least novel of the right ones, nu 0.60, most like 0 (S +0.64): "
      "stays at +1.00; above the group's mean by 0.77 standard deviations.",
      "2: wrong (off by one), the least novel of the wrong ones, nu 0.68, most like 1"
      " (S +0.77): loses less, up to -0.57; below the group's mean by 1.34 standard "
      "deviations.",
      "3: wrong (off by one), the most novel of the wrong ones, nu 0.78, most opposed"
      " to 0 (S -0.50): loses less, up to +0.00; below the group's mean by 0.57 "
      "standard deviations."}},
    {{.method = G2RL, .lambda = 5},
     4, {0, 50, 90, 120}, {1, 2, 3, 4}, {1, 1, -1, -1},
     {NULL,
      "0: right, the most novel of the right ones, nu 0.65, most like 1 (S +0.64): "
      "boosted to +2.34; above the group's mean by 1.26 standard deviations.",
      NULL,
      "2: wrong (off by one), the least novel of the wrong ones, nu 0.68, most like 1"
      " (S +0.77): lowered as far as the clip at -3; below the group's mean by 0.98 "
      "standard deviations."}},
    {{.method = G2RL, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: under GRPO this group would teach nothing; here only "
      "novelty speaks.",
      "0: wrong (off by one), nu 0.42, most opposed to 3 (S -1.00): stays at -1.00, "
      "the least loss; above the group's mean by 0.58 standard deviations, so more "
      "likely though wrong.",
      "1: wrong (off by one), nu 0.42, most like 0 (S +0.87): stays at -1.00, the "
      "least loss; above the group's mean by 0.58 standard deviations, so more likely"
      " though wrong.",
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 "
      "(S +0.50): loses more, down to -2.00; below the group's mean by 1.73 standard "
      "deviations."}},
    {{.method = G2RL, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {1, 1, 1, 1},
     {NULL,
      "0: right, nu 0.42, most opposed to 3 (S -1.00): stays at +1.00; below the "
      "group's mean by 0.58 standard deviations, so less likely though right."}},
    {{.method = G2RL, .lambda = 1, .dead_groups = DEAD_ZERO},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"All rewards are equal: with --dead-groups zero this group teaches nothing.",
      NULL,
      NULL,
      "2: wrong (off by one), the most novel of the wrong ones, nu 0.92, most like 1 "
      "(S +0.50): loses more, down to -2.00; no advantage."}},
    {{.method = GRPO, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, -1, -1},
     {"grpo shapes nothing: r~ = r, whatever nu is. All rewards are equal: this group"
      " teaches nothing.",
      "0: wrong (off by one): stays at -1.00; no advantage."}},
    {{.method = ENTROPY, .lambda = 1},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"entropy shapes nothing: r~ = r, whatever nu is.",
      NULL,
      NULL,
      "2: right: stays at +1.00; above the group's mean by 1.73 standard deviations."}},
    {{.method = G2RL},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"lambda 0 shapes nothing: r~ = r, as under GRPO.",
      NULL,
      NULL,
      "2: right: stays at +1.00; above the group's mean by 1.73 standard deviations."}},
    {{.method = G2RL, .lambda = 1, .novelty = NOVELTY_RANDOM},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {-1, -1, 1, -1},
     {"nu was dealt out at random inside the group: the control.",
      "0: wrong (off by one), dealt nu 0.81: loses more, down to -1.62; below the "
      "group's mean by 0.62 standard deviations.",
      "1: wrong (off by one), dealt nu 0.64: stays at -1.00, the least loss; below "
      "the group's mean by 0.18 standard deviations.",
      "2: right, dealt nu 0.81: boosted to +1.62; above the group's mean by 1.68 "
      "standard deviations."}},
    {{.method = G2RL, .lambda = 1},
     6, {20, 20, 20, 20, 20, 20}, {7, 7, 7, 7, 7, 7}, {-1, -1, 1, -1, -1, -1},
     {"All nu are equal: nothing is shaped, as under GRPO.",
      NULL,
      NULL,
      "2: right, the same answer as 0, 1, 3, 4 and 1 more, the only right one, nu "
      "0.00: stays at +1.00; above the group's mean by 2.24 standard deviations.",
      NULL,
      NULL,
      "5: wrong (off by one), the same answer as 0, 1, 2, 3 and 1 more, nu 0.00: "
      "stays at -1.00; below the group's mean by 0.45 standard deviations."}},
    {{.method = G2RL, .lambda = 1},
     3, {20, 20, 20}, {7, 7, 7}, {-1, -1, -1},
     {"All rewards are equal, and so is all novelty: this group teaches nothing.",
      NULL,
      "1: wrong (off by one), the same answer as 0 and 2, nu 0.00: stays at -1.00; no"
      " advantage."}},
    {{.method = G2RL, .lambda = 1, .adv_norm = ADV_NONE},
     4, {0, 30, 90, 180}, {1, 2, 3, 4}, {0.5, 0.5, 7, 0},
     {NULL,
      "0: reward 0.5, the most novel of those with this reward, nu 1.00, like no "
      "other: boosted to +1.00; below the group's mean by 0.12.",
      "1: reward 0.5, the least novel of those with this reward, nu 0.75, most like 2"
      " (S +0.50): stays at +0.50; below the group's mean by 0.62.",
      "2: reward 7, nu 0.90, most like 1 (S +0.50): clipped to +3; above the group's "
      "mean by 1.88.",
      "3: reward 0 (off by one), nu 1.00, like no other: stays at +0.00; below the "
      "group's mean by 1.12."}},
};

/* EVOL-RL's: two right answers that are alike, a right one of its own, a lone wrong one, no answer;
 * then a group with one answer alone. */
static void check_told_evol(Engine *e)
{
    static const double angle[] = {0, 0, 60, 90, 0};
    static const double reward[] = {1, 1, 1, -1, -1};
    static const int turn[] = {0, 0, 0, 0, 0}, token[] = {1, 1, 2, 3, 4};
    const MethodOptions o = {.method = EVOL, .lambda = 1};
    static const char *const told[] = {
        "",
        "0: right, the same answer as 1, u 0.12: r~ is +0.50, between +0.5 and +1; above the "
        "group's mean by 0.54 standard deviations.",
        "1: right, the same answer as 0, u 0.12: r~ is +0.50, between +0.5 and +1; above the "
        "group's mean by 0.54 standard deviations.",
        "2: right, the most novel of the right ones, u 0.32, most like 3 (cosine +0.87): r~ is "
        "+1.00, between +0.5 and +1; above the group's mean by 1.22 standard deviations.",
        "3: wrong (off by one), the only wrong one, u 0.42, most like 2 (cosine +0.87): r~ is "
        "-0.50, between -1 and -0.5; below the group's mean by 0.82 standard deviations.",
        "4: wrong (off by one), without an answer: r~ is -1.00; below the group's mean by 1.50 "
        "standard deviations."};
    Group g = told_group(e, 5, turn, token, reward, &o);
    g.answered[4] = false;
    for (int i = 0; i < 25; i++)
        g.semantic[i] = cos((angle[i / 5] - angle[i % 5]) * acos(0) / 90);
    g.embedded = true;
    for (int alone = 0; alone < 2; alone++) {
        for (int i = 0; i < 5; i++)
            g.u[i] = semantic_novelty(&g, i);
        shape_by_meaning(&g);
        advantages(&g, &o);
        for (int i = -1; i < 5 && !alone; i++)
            check_told(&g, i, &o, told[i + 1]);
        for (int i = 1; i < 4; i++)
            g.answered[i] = false;
    }
    check_told(&g, 0, &o, "0: right, the group's only answer: r~ is -1.00; no advantage.");
}

static void test_explained(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    for (size_t k = 0; k < sizeof TOLD / sizeof *TOLD; k++) {
        const Told *t = &TOLD[k];
        Group g = told_group(&e, t->m, t->angle, t->token, t->reward, &t->o);
        for (int i = 0; i <= t->m; i++)
            if (t->told[i])
                check_told(&g, i - 1, &t->o, t->told[i]);
    }
    check_told_evol(&e);
    engine_free(&e);
}

/* eval: its numbers belong together, and a model compared with itself is equal to itself. */
static void test_eval(void)
{
    const char *base = base_model();
    CHECK(cli("eval --json --task add:digits=1 --split train --problems 8 --samples 4 "
              "--max-tokens 20 x=%s y=%s", base, base) == 0, "%s", cli_err);
    const char *x = strstr(cli_out, "\"x\": {"), *y = strstr(cli_out, "\"y\": {");
    static const char *const names[] = {"pass@1", "pass@2", "pass@4", "maj@4", "entropy",
                                        "phi/cos_mean", "completions/mean_length"};
    for (int i = 0; i < 7 && x && y; i++)
        CHECK(field(x, names[i]) == field(y, names[i]) && isfinite(field(x, names[i])),
              "%s: %g, %g", names[i], field(x, names[i]), field(y, names[i]));
    CHECK(x && field(x, "pass@1") < field(x, "pass@2") && field(x, "pass@2") < field(x, "pass@4"),
          "pass@k must grow with k: %s", cli_out);
    CHECK(fabs(field(x, "pass@1") - field(x, "mean@4")) < 1e-9, "mean@k is pass@1");
    double right[9], maj[9], sum[2] = {0};
    CHECK(numbers(x, "right", right, 9) == 8 && numbers(x, "maj", maj, 9) == 8, "%s", x);
    for (int i = 0; i < 8; i++) {
        sum[0] += right[i] / 4 / 8;
        sum[1] += maj[i] / 8;
    }
    CHECK(fabs(sum[0] - field(x, "pass@1")) < 1e-9 && fabs(sum[1] - field(x, "maj@4")) < 1e-9,
          "right makes %g, maj %g: %s", sum[0], sum[1], x);
    const char *difference = y ? strstr(y, "\"difference\": {\"from\": \"x\"") : NULL;
    CHECK(difference && strstr(cli_out, "\"difference\"") > y, "in the later model: %s", cli_out);
    static const char *const columns[] = {"pass@1", "pass@2", "pass@4", "maj@4"};
    for (int i = 0; i < 4 && difference; i++) {
        char text[96];
        snprintf(text, sizeof text, "\"%s\": 0, \"%s/interval\": [0, 0]", columns[i], columns[i]);
        CHECK(strstr(difference, text), "a model less itself: %s", difference);
    }
    eval_of_two(base);
    CHECK(cli("eval x=%s x=%s", base, base) == 2 && strstr(cli_err, "two models"), "%s", cli_err);
}

/* A name as `help metrics` writes it: pass@4 is pass@k, mean@4 is mean@n, time/x is time/PHASE. */
static void add_name(Buf *names, const char *name, size_t n)
{
    char plain[64], *at;
    snprintf(plain, sizeof plain, "|%.*s|", (int)n, name);
    if ((at = strchr(plain, '@')) && strcmp(plain, "|pass@1|") && at[1] != 'k' && at[1] != 'n') {
        char *rest = at + 1 + strspn(at + 1, "0123456789");
        at[1] = strncmp(plain, "|mean", 5) ? 'k' : 'n';
        memmove(at + 2, rest, strlen(rest) + 1);
    }
    if (!strncmp(plain, "|time/", 6))
        strcpy(plain, "|time/PHASE|");
    if (!strstr(names->n ? names->s : "", plain))
        buf_str(names, plain);
}

/* Do the keys of a row and the names that `help metrics` defines under a heading agree? */
static void check_defined(const char *heading, const Buf *keys)
{
    Buf names = {0};
    cli("help metrics");
    char *at = strstr(cli_out, heading), *end = at ? strstr(at, "\n\n") : NULL;
    CHECK(at != NULL, "no '%s' in: %s", heading, cli_out);
    if (end)
        end[1] = 0;
    for (at = at ? strchr(at, '\n') + 1 : NULL; at && *at; at = strchr(at, '\n') + 1) {
        size_t n, line = strcspn(at, "\n");
        for (char *name = at + 2; *name != ' ' && name < at + line; name += n + 2) {
            n = strcspn(name, ", \n");
            add_name(&names, name, n);
            if (name[n] != ',')
                break;
        }
    }
    for (int way = 0; way < 2; way++) {
        const char *some = way ? names.s : keys->s, *all = way ? keys->s : names.s, *name;
        for (name = some; *name; name += strcspn(name + 1, "|") + 2) {
            char one[64];
            snprintf(one, sizeof one, "%.*s", (int)strcspn(name + 1, "|") + 2, name);
            bool first = !strcmp(one, "|pass@1|") && strstr(all, "|pass@k|");
            CHECK(first || strstr(all, one), "%s: %s is %s", heading, one,
                  way ? "defined, and not written" : "written, and not defined");
        }
    }
    buf_free(&names);
}

static void add_keys(Buf *names, const char *row)
{
    Buf key = {0};
    Json j = json_open(row, strcspn(row, "\n"));
    for (json_object(&j); json_key(&j, &key); json_skip(&j))
        add_name(names, key.s, key.n);
    buf_free(&key);
}

static void add_file_keys(Buf *names, const char *path)
{
    size_t n;
    char *text = read_file(tmp_path(path).s, &n);
    add_keys(names, text);
    free(text);
}

/* help metrics defines every number that a run writes, and no other. */
static void test_metrics(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Buf names[4] = {{0}};
    put_file("valid.jsonl", "{\"prompt\": \"4+5:\", \"response\": \"9\"}\n");
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --prompts 2 --rollouts 2 --force "
              "--eval-every 1 --samples 2 --problems 2 --out %s/keys", base, dir) == 0, "%s",
          cli_err);
    CHECK(cli("sft --model %s --data %s/valid.jsonl --valid %s/valid.jsonl --steps 1 --batch 1 "
              "--eval-every 1 --out %s/more_keys", base, dir, dir, dir) == 0, "%s", cli_err);
    add_file_keys(&names[0], "keys/metrics.jsonl");
    add_file_keys(&names[1], "keys/eval.jsonl");
    add_file_keys(&names[2], "more_keys/metrics.jsonl");
    add_file_keys(&names[3], "more_keys/eval.jsonl");
    CHECK(cli("eval --json --task add:digits=1 --problems 2 --samples 2 x=%s y=%s", base, base) ==
              0, "%s", cli_err);
    const char *y = strstr(cli_out, "\"y\": {");
    if (CHECK(y != NULL, "%s", cli_out))
        add_keys(&names[1], y + 5);
    static const char *const headings[] = {"metrics.jsonl of train", "eval.jsonl of train and sft",
                                           "metrics.jsonl of sft", "eval.jsonl of sft --valid"};
    for (int i = 0; i < 4; i++) {
        check_defined(headings[i], &names[i]);
        buf_free(&names[i]);
    }
}

/* The command: its members, equal lines for equal models and for any threads, agreement with
 * eval; what each option changes; what it refuses. */
static void test_geometry(void)
{
    static const char *const common =
        "--task add:digits=1 --problems 6 --samples 4 --max-tokens 20 --seed 4";
    static const char *const members[] = {
        "name", "model", "temperature", "feature_temperature", "encoder", "groups", "samples",
        "pairs", "distinct_pairs", "identical", "cos", "cos_distinct", "neg_ratio",
        "neg_ratio_distinct", "semantic", "semantic_distinct", "zero_mean/sum", "zero_mean/mean",
        "histogram/cos", "histogram/cos_distinct", "histogram/semantic",
        "histogram/semantic_distinct", "histogram/neg_ratio", "true", "all", "pearson/phi",
        "spearman/phi", "pearson/semantic", "spearman/semantic", "head", "embedding", "layer 0",
        "layer 3", "true_pairs"};
    const char *base = base_model();
    char *lines, name[64];
    CHECK(cli("geometry %s --json --true-gradients --threads 1 x=%s y=%s", common, base, base) == 0,
          "%s", cli_err);
    lines = xstrdup(cli_out);
    char *y = strstr(lines, "\n{\"name\": \"y\"");
    CHECK(y && !strncmp(lines, "{\"name\": \"x\"", 12) && !strcmp(strchr(y + 1, '\n'), "\n") &&
              !strncmp(lines + 12, y + 13, strlen(y + 13) - 1), "two equal lines: %s", lines);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        snprintf(name, sizeof name, "\"%s\": ", members[i]);
        CHECK(strstr(lines, name), "no %s", members[i]);
    }
    CHECK(field(lines, "groups") == 6 && field(lines, "pairs") == 36 &&
              fabs(field(lines, "identical") - 1 + field(lines, "distinct_pairs") / 36) < 1e-12 &&
              field(lines, "distinct_pairs") < 36, "counts: %s", lines);
    cli("geometry %s --json --true-gradients --threads 3 x=%s y=%s", common, base, base);
    CHECK(!strcmp(lines, cli_out), "threads changed the numbers");
    cli("eval %s --json --model %s", common, base);
    double cosine = field(strstr(lines, "\"cos\""), "mean");
    CHECK(fabs(field(cli_out, "phi/cos_mean") - cosine) < 1e-9, "eval has %g, geometry %g",
          field(cli_out, "phi/cos_mean"), cosine);
    cli("geometry %s --json --model %s --encoder ngram --feature-temperature 0.5", common, base);
    CHECK(!strncmp(cli_out, "{\"name\": \"model\"", 16) && !strstr(cli_out, "\"true\"") &&
              strstr(cli_out, "\"encoder\": \"ngram\"") &&
              field(strstr(cli_out, "\"cos\""), "mean") != cosine &&
              field(cli_out, "feature_temperature") == 0.5, "%s", cli_out);
    CHECK(cli("geometry %s --true-gradients x=%s", common, base) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "zero-mean check") && strstr(cli_out, "\n  layer 3 ") &&
              strstr(cli_out, "Encoder: ref, x."), "%s", cli_out);
    free(lines);
}

static void gradients_for_dying(void *model) { free(gradients_new(model, 8)); }

/* Problems need no answers; a reference with other tokens is refused; usage. */
static void test_geometry_inputs(void)
{
    const char *base = base_model();
    Path data = put_file("asked.jsonl", "{\"prompt\": \"1+2:\"}\n{\"prompt\": \"3+4:\"}\n");
    Path file = tmp_path("others.json"), other = tmp_path("others");
    CHECK(cli("geometry --json --data %s --samples 3 --max-tokens 9 --model %s", data.s, base) == 0
              && field(cli_out, "groups") == 2, "%s", cli_err);
    tokenizer_write(file.s, "0123456789abcdef+-*/=>:,");
    cli("sft --preset nano --tokenizer %s --steps 0 --out %s", file.s, other.s);
    CHECK(cli("geometry --data %s --samples 3 --max-tokens 9 x=%s y=%s", data.s, base, other.s) == 1
              && strstr(cli_err, "other tokens"), "%s", cli_err);
    CHECK(cli("geometry --data %s --samples 3 --max-tokens 9 --encoder ngram x=%s y=%s", data.s,
              base, other.s) == 0, "%s", cli_err);
    cli("sft --preset nano --steps 0 --out %s", tmp_path("another").s);
    CHECK(cli("geometry --json --data %s --samples 3 --max-tokens 9 --model %s", data.s,
              tmp_path("another").s) == 0, "%s", cli_err);
    double cosine = field(strstr(cli_out, "\"cos\""), "mean");
    double semantic = field(strstr(cli_out, "\"semantic\""), "mean");
    cli("geometry --json --data %s --samples 3 --max-tokens 9 x=%s y=%s", data.s, base,
        tmp_path("another").s);
    const char *y = strstr(cli_out, "\n{\"name\": \"y\"");
    CHECK(y && field(strstr(y, "\"cos\""), "mean") == cosine &&
              field(strstr(y, "\"semantic\""), "mean") != semantic,
          "the first model is the ruler of texts, and of nothing else: %s", cli_out);
    CHECK(cli("geometry") == 2 && strstr(cli_err, "NAME=DIR"), "%s", cli_err);
    CHECK(cli("geometry %s", base) == 2 && strstr(cli_err, "NAME=DIR"), "%s", cli_err);
    CHECK(cli("geometry --samples 1 --model %s", base) == 2, "a pair needs two");
    CHECK(cli("geometry --samples 4096 --problems 300 --task add:digits=1 --model %s", base) == 2 &&
              strstr(cli_err, "pairs; expected"), "%s", cli_err);
    Model m = {.n_grads = (size_t)1 << 50};
    char err[256];
    CHECK(dies(gradients_for_dying, &m, err, sizeof err) == 1 && strstr(err, "fewer --samples"),
          "%s", err);
}

static void test_sample(void)
{
    const char *base = base_model();
    char once[256];
    CHECK(cli("sample --model %s --prompt 4+5: --temperature 0", base) == 0, "%s", cli_err);
    snprintf(once, sizeof once, "%.255s", cli_out);
    CHECK(strlen(once) > 3 && strchr(once, '\n') == once + strlen(once) - 1, "'%s'", once);
    cli("sample --model %s --prompt 4+5: --temperature 0 --samples 2", base);
    CHECK(!strncmp(cli_out, once, strlen(once)) && !strcmp(cli_out + strlen(once), once),
          "streamed and collected text differ: %s", cli_out);
    cli("sample --model %s --prompt 4+5: --temperature 0 --stop =", base);
    CHECK(strlen(cli_out) == strcspn(once, "=") + 1 && !strncmp(cli_out, once, strcspn(once, "=")),
          "--stop: '%s'", cli_out);
    CHECK(cli("sample --model %s --prompt hello", base) == 1 && strstr(cli_err, "no token"), "%s",
          cli_err);
}

/* Plain text, in a file of its own or in records, is the ids of the text, cut to length, all of
 * them trained on; --valid reports the loss of a step that changes nothing. */
static void test_sft_text(void)
{
    static const char *const files[] = {"cut.txt", "cut.jsonl", "ids.jsonl"};
    const char *base = base_model(), *dir = tmp_dir();
    uint64_t hash[3] = {0};
    put_file("cut.txt", "1+2=3,4");
    put_file("cut.jsonl", "{\"text\": \"1+2=3,4\"}\n");
    put_file("ids.jsonl", "{\"input_ids\": [2, 11, 3]}\n{\"input_ids\": [15, 4, 16]}\n"
                          "{\"input_ids\": [5, 0]}\n");
    for (int i = 0; i < 3; i++) {
        CHECK(cli("sft --model %s --data %s/%s --max-length 3 --steps 2 --batch 3 --shuffle 0 "
                  "--out %s/t%d", base, dir, files[i], dir, i) == 0, "%s", cli_err);
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        Model m = model_load(tmp_path(name).s);
        hash[i] = weights_hash(&m);
        model_free(&m);
    }
    CHECK(hash[0] == hash[1] && hash[0] == hash[2], "text and ids train to other weights");
    for (int recompute = 0; recompute < 2; recompute++) {
        size_t n;
        CHECK(cli("sft --model %s --data %s/ids.jsonl --valid %s/cut.txt --max-length 3 --batch 2 "
                  "--eval-every 1 --steps 1 --lr 0 --force --out %s/valid %s", base, dir, dir, dir,
                  recompute ? "--recompute" : "") == 0, "%s", cli_err);
        char *text = read_file(tmp_path("valid/eval.jsonl").s, &n);
        double loss = field(text, "loss");
        CHECK(field(text, "tokens") == 5 && fabs(loss) > 0.01, "%s", text);
        free(text);
        CHECK(cli_in("{\"input_ids\": [2, 11, 3]}\n{\"input_ids\": [15, 4, 16]}\n"
                     "{\"input_ids\": [5, 0]}\n", "score --model %s", base) == 0, "%s", cli_err);
        double sum = 0;
        for (char *p = strstr(cli_out, "[null"); p; p = strstr(p, "[null"))
            for (p += 5; *p == ',';)
                sum -= strtod(p + 1, &p);
        CHECK(fabs(loss - sum / 5) < 1e-6, "validation loss %g; score says %g", loss, sum / 5);
    }
    put_file("short.txt", "");
    CHECK(cli("sft --model %s --data %s/short.txt --out %s/no_text", base, dir, dir) == 1 &&
              strstr(cli_err, "short.txt"), "%s", cli_err);
    CHECK(cli("sft --model %s --data %s/cut.txt --valid %s/cut.txt --out %s/no_text", base, dir,
              dir, dir) == 2 && strstr(cli_err, "--eval-every"), "%s", cli_err);
}

/* Before training the first batch is looked at; a run that cannot learn ends. */
static void test_preflight(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --out %s/ready", base, dir) == 0 &&
              strstr(cli_err, "before training: 256 responses to 16 prompts"), "%s", cli_err);
    CHECK(cli("train --model %s --max-tokens 1 --prompts 2 --rollouts 2 --steps 1 --out %s/cut",
              base, dir) == 1 && strstr(cli_err, "--max-tokens 1: every response was cut off"),
          "%s", cli_err);
    CHECK(cli("train --model %s --task countdown:numbers=6 --prompts 2 --rollouts 4 --steps 1 "
              "--out %s/hopeless", base, dir) == 1 && strstr(cli_err, " 0 % are right") &&
              strstr(cli_err, "In 0 of 2 groups") && strstr(cli_err, "no response earned a reward"),
          "%s", cli_err);
    CHECK(cli("train --model %s --max-tokens 1 --prompts 2 --rollouts 2 --steps 1 --force "
              "--out %s/cut", base, dir) == 0, "%s", cli_err);
    CHECK(cli("train --model %s --steps 1 --prompts 64 --rollouts 4096 --max-tokens 400 --out "
              "%s/large", base, dir) == 1 && strstr(cli_err, "try --recompute"), "%s", cli_err);
}

static void test_data(void)
{
    CHECK(cli("data --task countdown:numbers=3 --split test --problems 20") == 0, "%s", cli_err);
    write_file(tmp_path("p.jsonl").s, cli_out, strlen(cli_out));
    CHECK(cli("data --data %s", tmp_path("p.jsonl").s) == 0 && strstr(cli_out, "20 problems"), "%s",
          cli_out);
    CHECK(cli("eval --model %s --data %s --task countdown:numbers=3 --problems 3 --samples 2",
              base_model(), tmp_path("p.jsonl").s) == 0, "%s", cli_err);
    CHECK(cli("train --model %s --data %s --task countdown:numbers=3 --steps 2 --prompts 2 "
              "--rollouts 2 --force --out %s/file", base_model(), tmp_path("p.jsonl").s,
              tmp_dir()) == 0,
          "%s", cli_err);
    static const char *const bad[][2] = {
        {"", "no problems"},
        {"{\"prompt\": \"1\"}\n", "line 1"},
        {"\n{\"answer\": \"1\"}\n", "line 2"},
        {"{\"prompt\": \"1\", \"answer\": \"1\"}\n[1]\n", "line 2"},
        {"{\"prompt\": \"1\", \"answer\": \"1\"} {}\n", "line 1"},
        {"{\"prompt\": \"\", \"answer\": \"1\"}\n", "question"},
    };
    for (int i = 0; i < 6; i++) {
        write_file(tmp_path("bad.jsonl").s, bad[i][0], strlen(bad[i][0]));
        CHECK(cli("data --data %s", tmp_path("bad.jsonl").s) == 1 && strstr(cli_err, bad[i][1]) &&
                  strstr(cli_err, "bad.jsonl"), "case %d: %s", i, cli_err);
    }
}

/* ================================================================ problems, prompts, rewards */

static const char *rendered(const Template *t, const char *problem)
{
    static Buf out;
    out.n = 0;
    template_render(t, problem, &out);
    return out.s;
}

/* What each template makes of a problem, and that the commands apply it. */
static void test_template(void)
{
    Template plain = template_open("plain", NULL), qwen3 = template_open("qwen3", NULL);
    Template both = template_open("qwen3", "S {prompt}");
    CHECK(!strcmp(rendered(&plain, "a {system} b"), "a {system} b"), "plain");
    CHECK(!strcmp(rendered(&qwen3, "U"), "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
          "qwen3: %s", rendered(&qwen3, "U"));
    CHECK(!strcmp(rendered(&both, "U"), "<|im_start|>system\nS {prompt}<|im_end|>\n<|im_start|>user"
                                        "\nU<|im_end|>\n<|im_start|>assistant\n"),
          "qwen3 with a system text: %s", rendered(&both, "U"));
    Path file = put_file("t.txt", "{x} \\boxed{} {system}: {prompt}{\nA: {prompt} {prom\n\n");
    Template t = template_open(file.s, "S{prompt}"), u = template_open(file.s, NULL);
    const char *braces = "{x} \\boxed{} S{prompt}: {system}{\nA: {system} {prom\n";
    CHECK(!strcmp(rendered(&t, "{system}"), braces), "a file: %s", rendered(&t, "{system}"));
    CHECK(!strncmp(rendered(&u, "q"), "{x} \\boxed{} : q{", 17), "no system text");
    template_free(&t);
    template_free(&u);
    t = template_open("data/gsm8k_fewshot.txt", NULL);
    const char *end = "\n\nQuestion: How many?\nAnswer:", *few = rendered(&t, "How many?");
    CHECK(strlen(few) > 500 && !strcmp(few + strlen(few) - strlen(end), end), "few-shot: %s", few);
    template_free(&t);

    const char *base = base_model();
    char once[256];
    put_file("four.txt", "4+{prompt}\n");
    put_file("none.txt", "Question: {Prompt}\n");
    cli("sample --model %s --prompt 4+5: --temperature 0", base);
    snprintf(once, sizeof once, "%.255s", cli_out);
    CHECK(cli("sample --model %s --prompt 5: --temperature 0 --template %s/four.txt", base,
              tmp_dir()) == 0 && !strcmp(cli_out, once), "sample: %s%s", cli_out, cli_err);
    cli("explain --model %s --prompt 4+5: --rollouts 2 --json", base);
    snprintf(once, sizeof once, "%.200s", cli_out);
    CHECK(cli("explain --model %s --prompt 5: --rollouts 2 --json --template %s/four.txt "
              "--task add:digits=1", base, tmp_dir()) == 0 && !strncmp(cli_out, once, strlen(once)),
          "explain: %s%s", cli_out, cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template %s/none.txt", base, tmp_dir()) == 1 &&
              strstr(cli_err, "none.txt: no {prompt}"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template %s/four.txt --system x", base,
              tmp_dir()) == 1 && strstr(cli_err, "four.txt: no {system}"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template chatml", base) == 1 &&
              strstr(cli_err, "chatml") && strstr(cli_err, "qwen3"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --system x", base) == 2 &&
              strstr(cli_err, "--template"), "%s", cli_err);
}

/* --template in sft and train: the model reads the prompt as rendered, the ledger and the verifier
 * see the problem. */
static void test_template_training(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    put_file("four.txt", "4+{prompt}\n");
    put_file("whole.jsonl", "{\"prompt\": \"4+5:\", \"response\": \"4+5=9,9\"}\n");
    put_file("part.jsonl", "{\"prompt\": \"5:\", \"response\": \"4+5=9,9\"}\n");
    cli("sft --model %s --data %s/whole.jsonl --steps 1 --batch 1 --out %s/whole", base, dir, dir);
    CHECK(cli("sft --model %s --data %s/part.jsonl --steps 1 --batch 1 --out %s/part "
              "--template %s/four.txt", base, dir, dir, dir) == 0, "%s", cli_err);
    Model m = model_load(tmp_path("whole").s), n = model_load(tmp_path("part").s);
    CHECK(weights_hash(&m) == weights_hash(&n), "sft: the template makes another prompt");
    model_free(&m);
    model_free(&n);
    size_t length;
    put_file("five.jsonl", "{\"prompt\": \"5:\", \"answer\": \"9\"}\n");
    CHECK(cli("train --model %s --data %s/five.jsonl --verifier exact --template %s/four.txt "
              "--steps 1 --prompts 1 --rollouts 8 --force --out %s/five", base, dir, dir, dir) == 0,
          "%s", cli_err);
    char *text = read_file(tmp_path("five/rollouts.jsonl").s, &length);
    CHECK(strstr(text, "\"prompt\": \"5:\"") && strstr(text, "\"response\": \"4+5="), "%.300s",
          text);
    free(text);
    text = read_file(tmp_path("five/run.json").s, &length);
    CHECK(strstr(text, "four.txt") && strstr(text, "\"verifier\": \"exact\""), "%s", text);
    free(text);
}

static void check_problem(const char *line, const char *prompt, const char *answer)
{
    Problems p = problems_read(put_file("one.jsonl", line).s, true);
    CHECK(p.n == 1 && !strcmp(p.problem[0].prompt, prompt) && !strcmp(p.problem[0].answer, answer),
          "%s: '%s', '%s'", line, p.problem[0].prompt, p.problem[0].answer);
    problems_free(&p);
}

/* Whole published files, and what their answers are when a verifier has read them. */
static void check_problem_sets(void)
{
    static const struct {
        const char *path;
        int problems, last_line;
        const char *first_answer;
    } sets[] = {
        {"sets/gsm8k/train.jsonl", 7473, 7473, "72"}, {"sets/gsm8k/test.jsonl", 1319, 1319, "18"},
        {"sets/svamp/test.jsonl", 1000, 1000, "145.0"}, {"sets/math500/test.jsonl", 500, 500, NULL},
        {"sets/math/cs336_train.jsonl", 7500, 7500, "16"}};
    for (int i = 0; i < 5; i++) {
        Path path;
        if (!shared_dir(&path, sets[i].path)) {
            skip("no ../shared/data/sets");
            return;
        }
        Problems p = problems_read(path.s, true);
        CHECK(p.n == sets[i].problems && p.problem[p.n - 1].line == sets[i].last_line, "%s: %d",
              path.s, p.n);
        Task task = task_of("countdown");
        p.judge = judge_new(VERIFY_AUTO, &task, p.problem[0].prompt);
        CHECK(p.judge.verifier == VERIFY_MATH, "auto: verifier %d", (int)p.judge.verifier);
        problems_check_gold(&p, true);
        CHECK(p.n >= sets[i].problems * 0.99, "%s: %d answers verify", path.s, p.n);
        if (sets[i].first_answer)
            CHECK(!strcmp(p.problem[0].answer, sets[i].first_answer), "%s: the first answer is %s",
                  path.s, p.problem[0].answer);
        problems_free(&p);
    }
}

/* Every form of record that published files have; the field, line and file of what is wrong. */
static void test_problem_records(void)
{
    check_problem("{\"question\": \"How?\", \"answer\": \"So\\n#### 18\"}", "How?", "So\n#### 18");
    check_problem("{\"problem\": \"P\", \"solution\": \"\\\\boxed{7}\", \"level\": [1, {}]}", "P",
                  "\\boxed{7}");
    check_problem("{\"answer\": \"7\", \"problem\": \"P\", \"solution\": \"so 8\"}", "P", "7");
    check_problem("{\"Answer\":145.0,\"Question\":\"How big?\",\"Equation\":\"( 290.0 \\/ 2.0 )\","
                  "\"Body\":\"There are 87.\",\"Type\":\"D\"}", "There are 87. How big?", "145.0");
    check_problem("{\"prompt\": \"p\", \"answer\": -1.50e3}", "p", "-1.50e3");
    check_problem("{\"prompt\": \"a\xE2\x80\xA8\xC2\x85z\", \"answer\": \"1\"}\r\n",
                  "a\xE2\x80\xA8\xC2\x85z", "1");
    check_problem("{\"prompt\": \"p\", \"answer\": \"\"}", "p", "");
    static const char *const bad[][2] = {
        {"{\"prompt\": \"p\", \"answer\": [1]}", "line 17: answer: expected a string or a number"},
        {"{\"prompt\": 5, \"answer\": 1}", "line 17: prompt: expected a string"},
        {"{\"question\": \"q\\x\", \"answer\": 1}", "line 17: question: "},
        {"{\"prompt\": \"p\", \"answer\": tru}", "line 17: answer: "},
        {"{\"prompt\": \"p\", \"solution\": 4}", "line 17: solution: "},
        {"{\"prompt\": \"p\", \"answer\": 01}", "line 17: "},
        {"{\"prompt\": \"p\", \"answer\": 1", "line 17: "},
        {"{\"prompt\": \"p\"}", "line 17: no answer"},
        {"{\"answer\": \"p\"}", "line 17: no question"},
        {"[]", "line 17: expected an object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Buf b = {0};
        for (int line = 1; line < 17; line++)
            buf_str(&b, line == 3 ? " \n" : "{\"prompt\": \"p\", \"answer\": 1}\n");
        buf_str(&b, bad[i][0]);
        put_file("bad17.jsonl", b.s);
        buf_free(&b);
        CHECK(cli("data --data %s/bad17.jsonl", tmp_dir()) == 1 && strstr(cli_err, "bad17.jsonl") &&
                  strstr(cli_err, bad[i][1]) && strchr(cli_err, '\n')[1] == 0,
              "%s: %s", bad[i][0], cli_err);
    }
    Problems p = problems_read(put_file("one.jsonl", "{\"prompt\": \"p\"}\n").s, false);
    CHECK(p.n == 1 && !*p.problem[0].answer, "answers are not always needed");
    problems_free(&p);
    check_problem_sets();
}

/* Which verifier judges, what it says, and which answers vote together. */
static void test_judge(void)
{
    Task countdown = task_of("countdown:numbers=3"), add = task_of("add:digits=3");
    CHECK(judge_new(VERIFY_AUTO, &add, NULL).verifier == VERIFY_ADD, "auto, drawn");
    CHECK(judge_new(VERIFY_AUTO, &countdown, "357>26:").verifier == VERIFY_COUNTDOWN, "auto, file");
    CHECK(judge_new(VERIFY_AUTO, &countdown, "What is 1:").verifier == VERIFY_MATH, "auto, words");
    CHECK(judge_new(VERIFY_AUTO, &countdown, "1+2=").verifier == VERIFY_MATH, "auto, no colon");
    Judge j = judge_new(VERIFY_ADD, &countdown, "12+34:");
    CHECK(j.task.kind == TASK_ADD && j.task.digits == 2, "another task's verifier: its defaults");
    CHECK(judge_new(VERIFY_ADD, &add, NULL).task.digits == 3, "the task's own options stay");
    CHECK(judge(&j, "12+34:", "", "2+4=6,1+3=4,46").right && !judge(&j, "12+34:", "46", "46").right,
          "add");
    j = judge_new(VERIFY_COUNTDOWN, &countdown, NULL);
    CHECK(judge(&j, "357>26:", "", "3*7=21,21+5=26").right, "countdown needs no gold answer");
    j = judge_new(VERIFY_EXACT, &countdown, NULL);
    CHECK(judge(&j, "p", "a b\n", " \ta b").right && !judge(&j, "p", "a b", "a  b").right &&
              !judge(&j, "p", "a b", "A b").right, "exact");
    j = judge_new(VERIFY_MATH, &countdown, NULL);
    CHECK(judge(&j, "p", "18", "So it is \\boxed{18}.").right && !judge(&j, "p", "18", "17").right,
          "math");
    Buf a = {0}, b = {0};
    judge_class(&j, "p", "it is \\boxed{18}", &a);
    judge_class(&j, "p", "#### 18.0", &b);
    CHECK(judge_same(&j, a.s, b.s), "'%s' and '%s' vote together", a.s, b.s);
    judge_class(&j, "p", "\\boxed{19}", &b);
    CHECK(!judge_same(&j, a.s, b.s), "'%s' and '%s' do not", a.s, b.s);
    judge_class(&j, "p", "I do not know", &a);
    judge_class(&j, "p", "who knows", &b);
    CHECK(!judge_same(&j, a.s, b.s) && judge_same(&j, a.s, a.s), "no answer stands for itself");
    CHECK(judge_gold(&j, "p", "It is so.\n#### 1,234", &a).right &&
              judge(&j, "p", a.s, "1234").right, "gold of GSM8K: %s", a.s);
    CHECK(judge_gold(&j, "p", "so \\boxed{7}", &a).right && !strcmp(a.s, "7"), "of MATH: %s", a.s);
    j.verifier = VERIFY_EXACT;
    CHECK(!judge_gold(&j, "p", "", &a).right, "an empty answer is none");
    buf_free(&a);
    buf_free(&b);
}

/* maj@k over answer classes: two ways of writing the right answer outvote one wrong one. */
static void test_math_votes(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    Tokenizer t = tokenizer_characters("0123456789.\\boxed{} ");
    Task task = task_of("countdown");
    Judge j = judge_new(VERIFY_MATH, &task, "words");
    const char *response[4] = {"\\boxed{4}", "\\boxed{5}", "\\boxed{4.0}", "\\boxed{4}"};
    Group g = group_new(&e.arena, 4, 4, 40, 1);
    g.text = "p";
    g.answer = "4.0";
    for (int i = 0; i < 4; i++) {
        size_t bad;
        Ids ids = {0};
        tokenizer_encode(&t, response[i], strlen(response[i]), &ids, &bad);
        memcpy(g.token + g.start[i], ids.id, (size_t)ids.n * sizeof(int));
        g.start[i + 1] = g.start[i] + ids.n;
        ids_free(&ids);
        g.truncated[i] = i == 0;
    }
    verify_groups(&g, 1, &j, &t);
    CHECK(g.reward[0] < 0 && g.reward[1] < 0 && g.reward[2] > 0 && g.reward[3] > 0, "rewards");
    CHECK(group_majority(&g, &j, &t, 4) == 1, "4.0 and 4: two votes; what was cut off: its own");
    CHECK(group_majority(&g, &j, &t, 2) == 0.5, "a block of wrong ones, a block of right ones");
    tokenizer_free(&t);
    engine_free(&e);
}

/* Answers that their own verifier refuses: counted, named, left out of training. */
static void test_gold_answers(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    put_file("gold.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n\n"
                           "{\"prompt\": \"4+5:\", \"answer\": \"4+5=8,8\"}\n"
                           "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n"
                           "{\"prompt\": \"45:\", \"answer\": \"9\"}\n");
    CHECK(cli("train --model %s --task add:digits=1 --data %s/gold.jsonl --steps 2 --prompts 2 "
              "--rollouts 2 --out %s/gold", base, dir, dir) == 0 &&
              strstr(cli_err, "2 of 4 answers") && strstr(cli_err, "line 3, 5"), "%s", cli_err);
    size_t n;
    char *text = read_file(tmp_path("gold/rollouts.jsonl").s, &n);
    CHECK(strstr(text, "\"1+2:\"") && strstr(text, "\"4+5:\"") && !strstr(text, "\"45:\"") &&
              !strstr(text, "4+5=8,8"), "what is left out is trained on");
    free(text);
    text = read_file(tmp_path("gold/run.json").s, &n);
    CHECK(strstr(text, "\"verifier\": \"add\""), "run.json names the verifier that auto chose");
    free(text);
    CHECK(cli("eval --model %s --task add:digits=1 --data %s/gold.jsonl --samples 2 --json", base,
              dir) == 0 && strstr(cli_err, "2 of 4 answers") && field(cli_out, "problems") == 4,
          "eval keeps them: %s%s", cli_err, cli_out);
    CHECK(cli("train --model %s --data %s/gold.jsonl --out %s/none", base, dir, dir) == 1 &&
              strstr(cli_err, "gold.jsonl: no answer is right") && strstr(cli_err, "--verifier") &&
              !is_dir(tmp_path("none").s), "another task's problems: %s", cli_err);
    CHECK(cli("eval --model %s --data %s/gold.jsonl --verifier exact --samples 2 --json", base,
              dir) == 0 && !strstr(cli_err, "answers"), "exact takes them all: %s", cli_err);
}

/* Prompts that are too long are left out before training, and it says how many. */
static void test_long_prompts(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 2 --rollouts 2 --max-tokens 20";
    put_file("short.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n"
                            "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    put_file("long.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n"
                           "{\"prompt\": \"44+55:\", \"answer\": \"\"}\n"
                           "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    cli("train --model %s %s --data %s/short.jsonl --out %s/short", base, common, dir, dir);
    CHECK(cli("train --model %s %s --data %s/long.jsonl --reward-cmd %s --max-prompt 4 "
              "--out %s/long", base, common, dir, "no_such_command", dir) == 1 &&
              strstr(cli_err, "dropped 1 of 3 problems (33.3 %): prompts over 4 tokens") &&
              strstr(cli_err, "long.jsonl"), "%s", cli_err);
    Problems p = problems_read(tmp_path("long.jsonl").s, true);
    Tokenizer t = tokenizer_characters(TASK_ALPHABET);
    problems_fit(&p, &t, 5);
    CHECK(p.n == 2 && p.longest == 4 && p.problem[1].line == 3, "%d kept, longest %d", p.n,
          p.longest);
    problems_free(&p);
    p = problems_read(tmp_path("long.jsonl").s, true);
    problems_fit(&p, &t, 6);
    CHECK(p.n == 3 && p.longest == 6, "a prompt of just the limit stays");
    p.template = (Template){TEMPLATE_FILE, NULL, (char *)"11{prompt}{prompt}"};
    problems_fit(&p, &t, 10);
    CHECK(p.n == 2 && p.longest == 10, "the template counts: longest %d", p.longest);
    problems_free(&p);
    tokenizer_free(&t);
    CHECK(cli("eval --model %s --task add:digits=1 --data %s/short.jsonl --max-prompt 3", base,
              dir) == 1 && strstr(cli_err, "all 2 problems are over 3 tokens"), "%s", cli_err);
    CHECK(cli("eval --model %s --task add:digits=1 --max-tokens 2048", base) == 1 &&
              strstr(cli_err, "max_position_embeddings 512"), "%s", cli_err);
    CHECK(cli("eval --model %s --task add:digits=1 --max-prompt 3", base) == 1 &&
              strstr(cli_err, "at most 3"), "drawn: %s", cli_err);
    put_file("odd.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"9\"}\n{\"prompt\": \"4 5:\", "
                          "\"answer\": \"9\"}\n");
    CHECK(cli("eval --model %s --verifier exact --data %s/odd.jsonl", base, dir) == 1 &&
              strstr(cli_err, "odd.jsonl: line 2: '4 5:': no token"), "%s", cli_err);
}

/* --stop: the response ends at the text, which is not part of what is judged, but of what is
 * trained on; sampler and trainer still agree. */
static void test_stop(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    CHECK(cli("train --model %s --task add:digits=1 --steps 2 --prompts 4 --rollouts 4 --stop 2, "
              "--out %s/stop", base, dir) == 0 &&
              always_on_policy(tmp_path("stop/metrics.jsonl").s, 2), "%s", cli_err);
    char *text = read_file(tmp_path("stop/rollouts.jsonl").s, &n);
    int stopped = 0;
    for (char *line = text, *next; *line; line = next) {
        next = strchr(line, '\n') + 1;
        char *response = strstr(line, "\"response\": \"") + 13;
        int length = (int)strcspn(response, "\"");
        response[length] = 0;
        char *rest = response + length + 1, *flag = strstr(rest, "\"truncated\": ");
        bool whole = flag[13] == 'f';
        CHECK(!strstr(response, "2,"), "response %s", response);
        CHECK(!whole || field(rest, "length") == length + 1 || field(rest, "length") == length + 2,
              "'%s' is %g tokens", response, field(rest, "length"));
        stopped += whole && field(rest, "length") == length + 2;
    }
    free(text);
    CHECK(stopped > 0, "nothing stopped");
    CHECK(cli("eval --model %s --task add:digits=1 --problems 4 --samples 4 --stop + --json",
              base) == 0 && field(cli_out, "completions/mean_length") <= 3, "%s", cli_out);
    CHECK(cli("sample --model %s --prompt 1 --stop=", base) == 2, "an empty --stop");
}

/* ---------------------------------------------------------------- rewards from a command */

/* What a test asks of a command, in a process of its own. */
typedef struct {
    const char *command;
    double timeout;
    int rounds;
} Asking;

static void ask_for_dying(void *argument)
{
    const Asking *x = argument;
    Reward r = reward_start(x->command, x->timeout);
    double reward[4];
    const char *reason[4];
    Buf lines = {0};
    for (int i = 0; i < 4; i++)
        reward_request("p", "r", 1, "a", &lines);
    for (int i = 0; i < x->rounds; i++) {
        struct pollfd unasked = {.fd = r.out, .events = POLLIN};
        if (i > 0)
            poll(&unasked, 1, 5000);
        reward_ask(&r, &lines, 4, reward, reason);
    }
    buf_free(&lines);
    reward_stop(&r);
}

/* Runs f in a process of its own, as `dies` does, and then waits until every process that it left
 * behind has ended, at most 5 seconds: all of them hold the end of a pipe. False if one has not. */
static bool dies_out(void (*f)(void *), void *argument, char *err, size_t capacity, int *status)
{
    int leash[2];
    char byte;
    if (pipe(leash))
        die("no pipe: %s", strerror(errno));
    *status = dies(f, argument, err, capacity);
    close(leash[1]);
    struct pollfd p = {.fd = leash[0], .events = POLLIN};
    bool gone = poll(&p, 1, 5000) == 1 && read(leash[0], &byte, 1) == 0;
    close(leash[0]);
    return gone;
}

/* Every way in which a command can fail: one line, status 1, and nothing left running. */
static void test_reward_failures(void)
{
    static const struct {
        const char *command, *words;
        int rounds;
    } cases[] = {
        {"exit 3", "status 3, after 0 of 4 answers", 1},
        {"no_such_command_here", "status 127, after 0 of 4", 1},
        {"read x; echo 1; read x; echo 1; exit 0", "status 0, after 2 of 4", 1},
        {"read x; kill -9 $$", "status 137", 1},
        {"sleep 30", "no answer in 0.2 seconds", 1},
        {"while read x; do :; done; while :; do sleep 30; done", "no answer in 0.2 seconds", 1},
        {"read x; echo 1; sleep 30", "1 of 4 are here", 1},
        {"read x; for i in 1 2 3 4 5 6 7 8 9; do printf 1; sleep 0.3; done", "0 of 4 are here", 1},
        {"exec 0<&-; sleep 30", "no answer in 0.2", 1},
        {"exec 1>&-; sleep 30", "after 0 of 4", 1},
        {"read x; echo hello; sleep 30", "answer 1 of 4 is \"hello\"; expected", 1},
        {"read x; echo 1; echo; sleep 30", "answer 2 of 4 is \"\"", 1},
        {"read x; echo nan; sleep 30", "answer 1 of 4", 1},
        {"read x; echo 1e999; sleep 30", "answer 1 of 4", 1},
        {"read x; echo 1e101; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '1 2'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"reward\": \"1\"}'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"score\": 1}'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"reward\": true}'; sleep 30", "answer 1 of 4", 1},
        {"read x; printf '\\001\\377\\n'; sleep 30", "answer 1 of 4 is \"\\u0001", 1},
        {"read x; tr '\\0' 1 </dev/zero", "longer than 1048576 bytes", 1},
        {"read x; printf '1\n1\n1\n1\n1\n'; sleep 30", "more than one line", 1},
        {"while read x; do echo 1; echo 1; done", "wrote ", 2},
        {"for i in 1 2 3 4; do read x; echo 1; done; sleep 0.02; echo 5; sleep 30", "unasked", 2},
        {"for i in 1 2 3 4; do read x; echo 1; done", "status 0, after 0 of 4", 2},
    };
    char err[1024];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool silent = strstr(cases[i].words, "no answer"), slow = strstr(cases[i].words, "here");
        Asking x = {cases[i].command, silent ? 0.2 : slow ? 1 : 20, cases[i].rounds};
        int status;
        CHECK(dies_out(ask_for_dying, &x, err, sizeof err, &status), "%s: still runs", x.command);
        const char *line = strstr(err, "g2rl: --reward-cmd: ");
        CHECK(status == 1 && line && strstr(line, cases[i].words) &&
                  strchr(line, '\n') == line + strlen(line) - 1, "%s: status %d, %s",
              cases[i].command, status, err);
    }
}

/* However we end, the command ends: after a normal end, after a die elsewhere, and when killed; and
 * with it what it started. */
static void end_badly(void *argument)
{
    Reward r = reward_start("trap '' TERM INT; sleep 30 & echo 1; while :; do sleep 1; done", 5);
    while (!reward_read(&r) || !r.unread.n)
        usleep(1000);
    if (*(int *)argument == 0)
        reward_stop(&r);
    else if (*(int *)argument == 1)
        exit(1);
    else
        kill(getpid(), SIGKILL);
}

static void test_reward_end(void)
{
    char err[256];
    for (int how = 0; how < 3; how++) {
        int status;
        CHECK(dies_out(end_badly, &how, err, sizeof err, &status), "end %d: something still runs",
              how);
        CHECK(status == (how == 2 ? -1 : how), "end %d: status %d", how, status);
    }
    Reward r = reward_start("while read x; do :; done; exit 5", 1);
    CHECK(reward_stop(&r) == 5, "a command that ends with its input gives its status");
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "no zombie");
    CHECK(reward_stop(&r) == 0, "stopping twice");
}

/* Answers in the order of the requests; pipes that fill on both sides; what is asked, exactly. */
static void test_reward_exchange(void)
{
    enum { N = 300, BIG = 4000 };
    Reward r = reward_start("n=0; while read -r x; do n=$((n + 1)); printf "
                            "'{\"reason\": \"%01500d\", \"x\": [1], \"reward\": -%d.25}\\n' $n $n; "
                            "done", 20);
    Buf lines = {0}, big = {0};
    double reward[N];
    const char *reason[N];
    for (int i = 0; i < BIG; i++)
        buf_str(&big, "x");
    for (int i = 0; i < N; i++)
        reward_request(big.s, "r", 1, "", &lines);
    reward_ask(&r, &lines, N, reward, reason);
    for (int i = 0; i < N; i++)
        CHECK(reward[i] == -(i + 1.25) && strlen(reason[i]) == REWARD_REASON_MAX,
              "answer %d: %g", i, reward[i]);
    lines.n = 0;
    reward_request("p", "r", 1, "", &lines);
    reward_ask(&r, &lines, 1, reward, reason);
    CHECK(reward[0] == -(N + 1.25), "the next step goes on: %g", reward[0]);
    reward_stop(&r);
    char command[256];
    snprintf(command, sizeof command, "read -r x; printf '%%s' \"$x\" >%.99s; echo 1e-3",
             tmp_path("request").s);
    r = reward_start(command, 5);
    lines.n = 0;
    reward_request("a\n\"b\"", "\xE2\x80\xA8\\\x01", 5, "#### 1", &lines);
    reward_ask(&r, &lines, 1, reward, reason);
    size_t n;
    char *text = read_file(tmp_path("request").s, &n);
    CHECK(!strcmp(text, "{\"prompt\": \"a\\n\\\"b\\\"\", "
                        "\"response\": \"\xE2\x80\xA8\\\\\\u0001\", \"answer\": \"#### 1\"}"),
          "asked: %s", text);
    CHECK(reward[0] == 1e-3 && !*reason[0], "a number, no reason: %g, %s", reward[0], reason[0]);
    reward_stop(&r);
    free(text);
    buf_free(&lines);
    buf_free(&big);
}

/* The example that is shipped. */
static void test_reward_story(void)
{
    static const struct {
        const char *response, *reason;
        double reward;
    } cases[] = {{"The \"dog\" saw a cat.\nA dog!", "animals: dog cat", 2},
                 {"She went home\", \"answer\": \"dog", "animals: dog", 1},
                 {"She went home.", "animals: none", -1},
                 {"", "animals: none", -1},
                 {"dog cat bird frog", "animals: dog cat bird frog", 3}};
    Reward r = reward_start("data/reward_story.sh", 20);
    Buf lines = {0};
    double reward[5];
    const char *reason[5];
    for (int i = 0; i < 5; i++)
        reward_request("A bear, \"response\": \"mouse", cases[i].response,
                       strlen(cases[i].response), "fish", &lines);
    reward_ask(&r, &lines, 5, reward, reason);
    for (int i = 0; i < 5; i++)
        CHECK(reward[i] == cases[i].reward && !strcmp(reason[i], cases[i].reason), "'%s': %g, %s",
              cases[i].response, reward[i], reason[i]);
    reward_stop(&r);
    buf_free(&lines);
}

/* Rewards that are any real number: dead groups, novelty's share, and Eq 12, 2. */
static void test_real_rewards(void)
{
    MethodOptions o = {.method = G2RL, .lambda = 1, .dead_groups = DEAD_ZERO};
    Engine e = engine_new(1, 1 << 20, 64);
    const float Phi[] = {1, 0, 1, 1, 0, 1, -1, 2};
    const double some[] = {0.5, 2, 0.25, 0.5}, equal[] = {0.5, 0.5, 0.5, 0.5};
    Group g = made_group(&e, 4, 2, Phi, some);
    double mean = 0, variance = 0, r[4];
    for (int i = 0; i < 4; i++) {
        g.shaped[i] = shape_reward(g.reward[i], g.nubar[i], &o);
        r[i] = fmin(3, some[i] * (1 + g.nubar[i]));
        mean += r[i] / 4;
    }
    for (int i = 0; i < 4; i++)
        variance += (r[i] - mean) * (r[i] - mean) / 4;
    advantages(&g, &o);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(g.advantage[i] - (r[i] - mean) / (sqrt(variance) + 1e-6)) < 1e-9,
              "A_%d is %g, not %g", i, g.advantage[i], (r[i] - mean) / (sqrt(variance) + 1e-6));
    CHECK(count_right(&g) == 4 && !is_dead(&g), "all above 0, but not equal: alive");
    double a = g.advantage[0], b = g.advantage[3];
    CHECK(fabs(novelty_part(&g) - (a - b) * (a - b) / 2) < 1e-9 && fabs(a - b) > 0.01,
          "novelty's part is what is left between the two equal rewards: %g", novelty_part(&g));
    g = made_group(&e, 4, 2, Phi, equal);
    CHECK(is_dead(&g), "equal rewards are dead, whatever they are");
    engine_free(&e);
}

/* --reward-cmd in train, eval and explain: the ledger keeps rewards and reasons; one seed gives one
 * result, whatever the threads. */
static void test_reward_cmd(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Path script = put_file("length.sh", "while IFS= read -r x; do x=${x#*'\"response\": \"'}\n"
                                        "x=${x%%'\", \"answer\"'*}\n"
                                        "printf '{\"reward\": 1.%d, \"reason\": \"is %s\"}\\n' "
                                        "${#x} \"$x\"\ndone\n");
    put_file("prompts.jsonl",
             "{\"prompt\": \"4+5:\"}\n{\"prompt\": \"45\"}\n{\"prompt\": \"1+2:\"}\n");
    char options[256];
    snprintf(options, sizeof options, "--reward-cmd sh %.100s\n--data %.100s/prompts.jsonl\n",
             script.s, dir);
    put_file("cmd", options);
    const char *common = "--steps 2 --prompts 2 --rollouts 4 --max-tokens 9";
    CHECK(cli("train --model %s %s --out %s/cmd1 --threads 1 @%s/cmd", base, common, dir, dir) == 0,
          "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/cmd3 --threads 3 @%s/cmd", base, common, dir, dir) == 0,
          "%s", cli_err);
    CHECK(same_lines(tmp_path("cmd1/metrics.jsonl").s, tmp_path("cmd3/metrics.jsonl").s) &&
              same_lines(tmp_path("cmd1/rollouts.jsonl").s, tmp_path("cmd3/rollouts.jsonl").s),
          "threads change the rewards");
    size_t n;
    int rows = 0;
    char *text = read_file(tmp_path("cmd1/rollouts.jsonl").s, &n);
    for (char *line = text, *next; *line; line = next, rows++) {
        char response[64], reason[80], number[16];
        next = strchr(line, '\n') + 1;
        snprintf(response, sizeof response, "%.60s", strstr(line, "\"response\": \"") + 13);
        response[strcspn(response, "\"")] = 0;
        snprintf(reason, sizeof reason, "\"reason\": \"is %s\"", response);
        snprintf(number, sizeof number, "1.%zu", strlen(response));
        CHECK(field(line, "reward") == strtod(number, NULL) && strstr(line, reason), "%.200s",
              line);
    }
    free(text);
    CHECK(rows == 16, "%d rows", rows);
    CHECK(cli("eval --model %s --samples 4 --max-tokens 9 --json @%s/cmd", base, dir) == 0 &&
              field(cli_out, "pass@1") == 1 && field(cli_out, "problems") == 3, "%s%s", cli_err,
          cli_out);
    snprintf(options, sizeof options, "--reward-cmd sh %.100s\n", script.s);
    put_file("cmd", options);
    CHECK(cli("explain --model %s --prompt 45 --rollouts 4 @%s/cmd", base, dir) == 0 &&
              strstr(cli_out, " (is "), "%s%s", cli_err, cli_out);
    CHECK(cli("explain --model %s --prompt 45 --rollouts 4", base) == 2 &&
              strstr(cli_err, "gold answer"), "%s", cli_err);
    CHECK(cli("train --model %s --verifier exact --out %s/x @%s/cmd", base, dir, dir) == 2 &&
              strstr(cli_err, "--verifier"), "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/x --reward-cmd true", base, common, dir) == 1 &&
              strstr(cli_err, "after 0 of 8 answers"), "%s", cli_err);
    put_file("ten.sh", "while read -r x; do echo 10; done\n");
    snprintf(options, sizeof options, "--reward-cmd sh %.100s/ten.sh\n", dir);
    put_file("cmd", options);
    CHECK(cli("train --model %s %s --out %s/ten @%s/cmd", base, common, dir, dir) == 0 &&
              strstr(cli_err, "a reward of 10") && strstr(cli_err, "[-3, 3]"), "%s", cli_err);
}

/* A file of problems for explain and for --eval-every. */
static void test_problem_files(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    put_file("math.jsonl", "{\"question\": \"4+5\", \"answer\": \"is\\n#### 9\"}\n"
                           "{\"question\": \"1+2\", \"answer\": 3}\n");
    CHECK(cli("explain --model %s --data %s/math.jsonl --rollouts 4", base, dir) == 0 &&
              strstr(cli_out, "prompt 4+5\n"), "%s%s", cli_err, cli_out);
    CHECK(cli("train --model %s --data %s/math.jsonl --steps 1 --prompts 2 --rollouts 2 "
              "--eval-every 1 --samples 2 --out %s/side", base, dir, dir) == 2 &&
              strstr(cli_err, "--eval-data"), "%s", cli_err);
    CHECK(cli("train --model %s --data %s/math.jsonl --steps 1 --prompts 2 --rollouts 2 "
              "--eval-every 1 --samples 2 --eval-data %s/math.jsonl --force --out %s/side", base,
              dir, dir, dir) == 0, "%s", cli_err);
    char *text = read_file(tmp_path("side/eval.jsonl").s, &n);
    CHECK(field(text, "problems") == 2, "%s", text);
    free(text);
    text = read_file(tmp_path("side/run.json").s, &n);
    CHECK(strstr(text, "\"verifier\": \"math\""), "%s", text);
    free(text);
    text = read_file(tmp_path("side/rollouts.jsonl").s, &n);
    CHECK(strstr(text, "\"answer\": \"9\"") && strstr(text, "\"answer\": \"3\""), "bare answers");
    free(text);
}

/* bench: a row's figures belong together. (How fast it is, no test can say.) */
static void test_bench(void)
{
    CHECK(cli("bench --json --quick --threads 1 --only peak") == 0, "%s", cli_err);
    double peak = field(cli_out, "peak_gflops");
    CHECK(peak > 0.1 && field(cli_out, "fraction") == 1, "%s", cli_out);
    CHECK(cli("bench --only peaks") == 2 && strstr(cli_err, "--only"), "%s", cli_err);
    CHECK(cli("bench --preset nano") == 2 && strstr(cli_err, "--preset"), "%s", cli_err);
    CHECK(train_flops(preset_find("tiny"), 64) == 6 * (786432 + 64 * 128.0) + 6 * 128.0 * 64 * 4,
          "operations a token of tiny: %g", train_flops(preset_find("tiny"), 64));
    CHECK(fabs(sample_flops(preset_find("small"), 48) / 22.46e6 - 1) < 0.001,
          "operations a sampled token of small: %g", sample_flops(preset_find("small"), 48));
}

/* What goes wrong on a command line gets one line and status 2. */
static void test_command_line(void)
{
    static const char *const wrong[][2] = {
        {"trian", "train"},
        {"train --lamda 1", "--lambda"},
        {"train --lambda", "needs a value"},
        {"train --lambda x", "expected a number"},
        {"train --steps 1.5", "whole number"},
        {"train --steps -1", "from 0"},
        {"train --method ppo", "grpo|entropy|evol|g2rl"},
        {"train --model x --out x --method grpo --lambda 2", "no --lambda"},
        {"train --model x --out x --method evol --novelty random", "no --lambda"},
        {"train --model x --out x --method entropy --shaping literal", "no --lambda"},
        {"train --model x --out x --method evol --reward-cmd cat", "expected a verifier"},
        {"train --model x --out x --method entropy --entropy-coef 0", "--entropy-coef above 0"},
        {"train --model x --out x --kl exact --kl-coef 0", "--kl-coef above 0"},
        {"train --model x --out x --kl k2 --kl-coef 0", "--kl-coef above 0"},
        {"explain --model x --method grpo --lambda 2", "no --lambda"},
        {"train --task count", "countdown"},
        {"train --seed -1", "whole number"},
        {"train -h", "options are long"},
        {"train --force=1", "no value"},
        {"train word", "word"},
        {"train --prompt 1", "no option --prompt"},
        {"train", "--model"},
        {"sft --out x", "--preset"},
        {"sft --preset huge --out x", "nano"},
        {"eval", "--model"},
        {"sample", "--prompt"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int status = cli("%s", wrong[i][0]);
        CHECK(status == 2 && strstr(cli_err, wrong[i][1]) && !strncmp(cli_err, "g2rl: ", 6) &&
                  strchr(cli_err, '\n') == cli_err + strlen(cli_err) - 1,
              "'%s': status %d, %s", wrong[i][0], status, cli_err);
    }
    CHECK(cli("train --model /nonexistent --out %s/x", tmp_dir()) == 1 &&
              strstr(cli_err, "config.json"), "%s", cli_err);
    for (int c = 0; c < N_COMMANDS; c++) {
        CHECK(cli("%s --help", COMMANDS[c]) == 0 && !*cli_err, "help of %s: %s", COMMANDS[c],
              cli_err);
        for (int i = 0; i < N_OPTIONS; i++) {
            char name[64];
            snprintf(name, sizeof name, "--%s ", OPTIONS[i].name);
            if (option_known(&OPTIONS[i], c))
                CHECK(strstr(cli_out, name), "%s --help does not name --%s", COMMANDS[c],
                      OPTIONS[i].name);
        }
    }
    CHECK(cli("help") == 0 && strstr(cli_out, "explain"), "help");
    CHECK(cli("help metrics") == 0 && strstr(cli_out, "logp_gap"), "help metrics");
}

/* One option, one row for each command; defaults lie inside their own bounds; @file. */
static void test_options(void)
{
    for (int i = 0; i < N_OPTIONS; i++)
        for (int j = 0; j < i; j++)
            CHECK(strcmp(OPTIONS[i].name, OPTIONS[j].name) ||
                      !(OPTIONS[i].commands & OPTIONS[j].commands),
                  "--%s has two rows for one command", OPTIONS[i].name);
    for (int c = 0; c < N_COMMANDS; c++) {
        Options o = {0};
        options_default(OPTIONS, N_OPTIONS, c, &o);
    }
    const char *file = "# a comment\n--steps 7\n\n--method grpo\n--force\n  --lr   0.5\n";
    write_file(tmp_path("options").s, file, strlen(file));
    char at[128];
    snprintf(at, sizeof at, "@%.120s", tmp_path("options").s);
    char *argv[] = {at, (char *)"--steps=9", (char *)"--out", (char *)"x"};
    Options o = {0};
    Words w = {0};
    options_default(OPTIONS, N_OPTIONS, TRAIN, &o);
    options_parse(OPTIONS, N_OPTIONS, TRAIN, "train", &o, 4, argv, &w);
    CHECK(o.steps == 9 && o.method == GRPO && o.force && o.lr == 0.5 && !strcmp(o.out, "x"),
          "@file, and what comes later wins");
    words_free(&w);
    CHECK(edit_distance("lamda", "lambda") == 1 && edit_distance("abc", "abc") == 0 &&
              edit_distance("", "abc") == 3 && edit_distance("kitten", "sitting") == 3,
          "edit distance");
    static const double exact[] = {0.1, 1e-4, 1.0 / 3, (double)0.1f, 1e-8, 123456789.125};
    for (int i = 0; i < 6; i++) {
        Buf b = {0};
        option_put_number(&b, exact[i]);
        CHECK(strtod(b.s, NULL) == exact[i], "%s is not %.17g", b.s, exact[i]);
        buf_free(&b);
    }
}

/* ---------------------------------------------------------------- tokenizer.c */

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

/* GPT-2's and Qwen's regular expressions, cut by hand at each |. */
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
    buf_free(&text);
    buf_free(&cut);
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
    buf_free(&from);
    buf_free(&to);
    buf_free(&key);
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
    buf_free(&marks);
    buf_free(&out);
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
    buf_free(&v.text);
    buf_free(&v.decoded);
    buf_free(&v.without);
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
        buf_free(&key);
        buf_free(&unit);
        buf_free(&text);
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
    Tokenizer t = tokenizer_load("data/tok/qwen3mini512");
    check_vectors(&t, "data/tok/qwen3mini512/encode.jsonl", true);
    check_vectors(&t, "data/tok/qwen3mini512/decode.jsonl", false);
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
    char *text = read_file("data/tok/qwen3mini512/tokenizer.json", &length);
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
        Edit edit[2];
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
        {"of equal pairs the later counts", {{R_E, R_E ", [\"e\", \"r\"]"}}, "ere her",
         "68 265 305 261"},
        {"a merge that another has overtaken", {{NULL, NULL}}, "ore andest", "460 323 477"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        Tokenizer t = tokenizer_load(edited_tokenizer(cases[i].edit, 2).s);
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
        {{"\\\\p{N}|", "\\\\p{N}{1,3}|"}, "\\\\p{N}{1,3}|"},
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
    int status = cli_in(text, "tokenize --tokenizer data/tok/qwen3mini512 --template qwen3");
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
        buf_free(&key);
        buf_free(&expected);
        buf_free(&prompt);
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
    chat_render(m, 6, true, 0, &b);
    CHECK(!strcmp(b.s, "<|im_start|>user\nq<|im_end|>\n"
                       "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
                       "<tool_response>\n2\n</tool_response><|im_end|>\n"
                       "<|im_start|>assistant\n<think>\na\n</think>\n\nd\n<|im_end|>\n"
                       "<|im_start|>user\n<tool_response>3</tool_response><|im_end|>\n"
                       "<|im_start|>assistant\n<think>\n\n</think>\n\ne<|im_end|>\n"
                       "<|im_start|>assistant\n<think>\n\n</think>\n\n"), "%s", b.s);
    buf_free(&b);
    check_chat("data/tok/qwen3mini512/chat.jsonl");
    if (shared_dir(&path, "tok/qwen3/chat_template.jsonl"))
        check_chat(path.s);
    else
        skip("../shared/data/tok is not there");
}

/* The command: lines in, lines out, either way; what it cannot take. */
static void test_tokenize(void)
{
    const char *dir = "data/tok/qwen3mini512";
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
    static const char *const bad[][3] = {
        {"{\"ids\": [1]}", "", "expected text"},
        {"{\"text\": \"a\"}", "--decode", "expected input_ids"},
        {"{\"text\": \"a\"} 1", "", "line 1"},
        {"{\"ids\": [-1]}", "--decode", "-1"},
        {"{\"messages\": []}", "--template qwen3", "expected text, or messages"},
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
        copy_file(path_join("data/models/q3_tied_f32", files[i]).s, path_join(dir.s, files[i]).s);
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
        buf_free(&at);
        buf_free(&key);
        buf_free(&prompt);
        buf_free(&story);
    }
    free(text);
}

/* ================================================================ answers to problems */

/* A row of a file of verdicts; what a file does not have stays empty or -1. */
typedef struct {
    Buf response, pred, gold, answer, solution;
    int right, math_verify, math_reward, dapo, expected;
} AnswerRow;

static void answer_row_read(Json *j, AnswerRow *r, const char *path, int line)
{
    const struct {
        const char *name;
        Buf *text;
    } texts[] = {{"response", &r->response}, {"pred", &r->pred}, {"gold", &r->gold},
                 {"answer", &r->answer}, {"solution", &r->solution}};
    const struct {
        const char *name;
        int *value;
    } numbers[] = {{"right", &r->right}, {"math_verify", &r->math_verify},
                   {"math_reward", &r->math_reward}, {"dapo", &r->dapo},
                   {"expected", &r->expected}};
    Buf key = {0};
    r->right = r->math_verify = r->math_reward = r->dapo = r->expected = -1;
    for (int i = 0; i < 5; i++) {
        texts[i].text->n = 0;
        buf_add(texts[i].text, "", 0);
    }
    for (json_object(j); json_key(j, &key);) {
        bool known = false, truth = false;
        double number = 0;
        for (int i = 0; i < 5 && !known; i++) {
            if (json_peek(j) == '"' && !strcmp(key.s, texts[i].name))
                known = json_string(j, texts[i].text);
            else if (json_peek(j) == 't' && !strcmp(key.s, numbers[i].name)) {
                known = json_bool(j, &truth);
                *numbers[i].value = truth;
            } else if (json_peek(j) == '0' && !strcmp(key.s, numbers[i].name)) {
                known = json_number(j, &number);
                *numbers[i].value = (int)number;
            }
        }
        if (!known)
            json_skip(j);
    }
    jsonl_end(j, path, line);
    buf_free(&key);
}

/* Calls f for every row of a JSONL file; returns how many. */
static int answer_rows(const char *path, void (*f)(const AnswerRow *, void *), void *context)
{
    size_t n, offset = 0;
    int line = 0, rows = 0;
    char *text = read_file(path, &n);
    AnswerRow r;
    memset(&r, 0, sizeof r);
    for (Json j; jsonl_next(text, n, &offset, &line, &j); rows++) {
        answer_row_read(&j, &r, path, line);
        f(&r, context);
    }
    buf_free(&r.response);
    buf_free(&r.pred);
    buf_free(&r.gold);
    buf_free(&r.answer);
    buf_free(&r.solution);
    free(text);
    return rows;
}

static void check_answer(const AnswerRow *r, void *context)
{
    (void)context;
    bool alone = r->pred.n || !r->response.n;
    Verdict v = alone ? math_compare(r->pred.s, r->pred.n, r->gold.s)
                      : math_verify(r->response.s, r->gold.s);
    CHECK(v.right == (r->right == 1), "%s against %s: %s", alone ? r->pred.s : r->response.s,
          r->gold.s, v.reason);
}

/* Pairs of answers that we wrote, each with its verdict. */
static void test_math_answers(void)
{
    int n = answer_rows("data/math/answers.jsonl", check_answer, NULL);
    CHECK(n > 150, "%d pairs", n);
}

/* Whole responses, most of them tries to be paid for nothing. */
static void test_math_responses(void)
{
    int n = answer_rows("data/math/responses.jsonl", check_answer, NULL);
    CHECK(n > 80, "%d responses", n);
}

static void test_math_extract(void)
{
    static const char *const rows[][2] = {
        /* response, its answer; NULL: none */
        {"<think>\\boxed{1}</think> so \\boxed{ 2 }", " 2 "},
        {"<think>\\boxed{1}", NULL},
        {"\\boxed{\\frac{1}{2}}}", "\\frac{1}{2}"},
        {"\\boxed{\\{1,2\\}}", "\\{1,2\\}"},
        {"$\\boxed 5$ apples", "5"},
        {"\\fbox{7}", "7"},
        {"\\boxed{1} and \\boxed{2}", "1, 2"},
        {"\\boxed{1} and \\boxed{1}", "1"},
        {"\\boxed{1}. \\boxed{2}", "2"},
        {"\\boxed{1} one two three four \\boxed{2}", "2"},
        {"\\boxed{1", NULL},
        {"#### $1,200 dollars", "1,200"},
        {"#### 1\n#### 2 2", "2"},
        {"#### 1 2", "1 2"},
        {"<answer> 3 </answer>", "3"},
        {"The answer is $x^2$. I hope it is correct.", "$x^2$"},
        {"**Answer:** 12", "12"},
        {"So 5.\nA: 6", "6"},
        {"It is\n### 42\n", "42"},
        {"It is 42", NULL},
        {"", NULL},
    };
    static const char *const golds[][2] = {
        {"2+2=<<2+2=4>>4\n#### 4", "4"},
        {"Hence \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"},
        {" x = 5 ", "x = 5"},
    };
    Buf b = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *fault = math_extract(rows[i][0], &b), *want = rows[i][1];
        CHECK(!fault == !!want && (!want || !strcmp(b.s, want)), "%s: %s, %s", rows[i][0], b.s,
              fault ? fault : "found");
    }
    for (size_t i = 0; i < sizeof golds / sizeof *golds; i++) {
        math_gold(golds[i][0], &b);
        CHECK(!strcmp(b.s, golds[i][1]), "gold of %s: %s", golds[i][0], b.s);
    }
    buf_free(&b);
}

static void test_math_normal(void)
{
    static const char *const rows[][2] = {
        {"\\dfrac12", "\\frac{1}{2}"},       {"x = 5^\\circ", "5"},
        {"12,\\! 345\\text{ cm}^2", "12345"}, {"\\left( 3, \\frac \\pi 2 \\right]",
                                               "(3,\\frac{\\pi}{2}]"},
        {"\\$10.", "10"},                    {"\\sqrt 3x", "\\sqrt{3}x"},
        {"2^{10}", "2^{10}"},                {"1 \\text{ or } 2", "1,2"},
        {"\\{1\\}", "\\{1\\}"},              {"50 percent", "50%"},
        {"{", "{"},                          {"", ""},
    };
    Buf b = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        math_normal(rows[i][0], &b);
        CHECK(!strcmp(b.s, rows[i][1]), "%s: %s", rows[i][0], b.s);
    }
    buf_free(&b);
}

/* The field of residues, and numbers beyond every double. */
static void test_math_values(void)
{
    Residue a = {123456789012345678u, 987654321098765432u}, one = {1, 0};
    CHECK(residue_equal(residue_multiply(a, residue_inverse(a)), one), "a / a");
    CHECK(residue_equal(residue_power(a, 5), residue_multiply(residue_power(a, 3),
                                                              residue_power(a, 2))), "a^5");
    CHECK(residue_equal(residue_add(residue_of(-7), residue_of(7)), residue_of(0)), "-7 + 7");
    CHECK(mod_multiply(RESIDUE_PRIME - 1, RESIDUE_PRIME - 1) == 1, "(-1)^2");
    CHECK(residue_equal(residue_power((Residue){0, 1}, 2), residue_of(-1)), "i^2");
    CHECK(math_compare("3^{700}+1", 9, "9^{350}+1").right, "equal beyond doubles");
    CHECK(!math_compare("3^{700}+1", 9, "9^{350}+2").right, "unequal beyond doubles");
    CHECK(!math_compare("10^{17}", 7, "10^{17}+1").right, "unequal beyond 53 bits");
    CHECK(!math_compare("1000000007\\sqrt{2}", 18, "1000000008\\sqrt{2}").right, "roots");
}

/* What should not hurt: no crash, no hang, no payment. */
static void test_math_hostile(void)
{
    static const char *const units[] = {"{", "}", "(", "\\{", "\\boxed{", "\\boxed ", "\\frac",
        "\\sqrt", "\\text{", "-", "!", "^", "_", "|", "\\pm ", "1,", "#### ", "answer is ", "A:\n",
        "<answer>", "</think>", "\\begin{pmatrix}", "\\left", "\\", "\xFF", "9^{", "\\sin ", "&"};
    enum { LONG = 1 << 20 };
    Buf b = {0};
    double start = now_seconds();
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        for (int times = 3; times <= LONG; times = times < 2000 ? times * 20 : LONG + 1) {
            b.n = 0;
            for (int k = 0; k < times && b.n < LONG; k++)
                buf_str(&b, units[i]);
            CHECK(!math_verify(b.s, "42").right, "%d times %s", times, units[i]);
            CHECK(!math_compare(b.s, b.n, "42").right, "%d times %s alone", times, units[i]);
        }
    const char *nested = "\\boxed{\\left(\\frac{\\sqrt[3]{x_{12}^2}}{\\binom52},\\begin{pmatrix}1&"
                         "-2\\\\\\text{a}&4\\%\\end{pmatrix}\\right]\\cup\\{1\\pm|y|!\\}}";
    for (size_t n = 0; n <= strlen(nested); n++) {
        b.n = 0;
        buf_add(&b, nested, n);
        CHECK(!math_verify(b.s, "42").right, "the first %zu bytes of %s", n, nested);
        math_compare(b.s + imin((int)n, 7), n - (size_t)imin((int)n, 7), nested + 7);
    }
    for (uint32_t k = 0; k < 20000; k++) {
        static const char alphabet[] = "0123456789\\{}()[]^_+-*/=<>,.|!%&$ xefracsqtpimb";
        b.n = 0;
        for (uint32_t i = 0; i < k % 40; i++) {
            Random r = philox(7, STREAM_DATA, k, i, 0, 0);
            char c = alphabet[r.r[1] % (sizeof alphabet - 1)];
            c = r.r[0] % 50 ? c : (char)(1 + r.r[1] % 255);
            buf_add(&b, &c, 1);
        }
        buf_add(&b, "", 0);
        Verdict v = math_compare(b.s, b.n, b.s);
        CHECK(v.right || !b.s[strspn(b.s, " \t\n\v\f\r")], "%s is not itself: %s", b.s, v.reason);
    }
    CHECK(now_seconds() - start < 60, "%.1f s", now_seconds() - start);
    buf_free(&b);
}

/* How often each verdict came; `paid`: where all three other verifiers say wrong. */
typedef struct {
    int n, agree, paid, boxed, solved, readable;
} Agreement;

static void against_math_verify(const AnswerRow *r, void *context)
{
    Agreement *a = context;
    bool right = (r->response.n ? math_verify(r->response.s, r->gold.s)
                                : math_compare(r->pred.s, r->pred.n, r->gold.s)).right;
    a->n++;
    a->agree += right == (r->math_verify == 1);
    a->paid += right && r->math_verify != 1 && r->math_reward != 1 && r->dapo != 1;
}

static void against_labels(const AnswerRow *r, void *context)
{
    Agreement *a = context;
    a->n++;
    a->agree += math_verify(r->response.s, r->gold.s).right == (r->expected == 1);
}

/* A data set's own answers: as they are, in a box, and in the solution where there is one; and how
 * many are expressions, not mere texts, to us. */
static void against_itself(const AnswerRow *r, void *context)
{
    Agreement *a = context;
    Buf gold = {0}, response = {0};
    math_gold(r->answer.s, &gold);
    Reading reading;
    a->n += gold.n > 0; /* two of MATH's training set are empty */
    a->agree += math_compare(gold.s, gold.n, gold.s).right;
    a->readable += latex_lex(gold.s, gold.n, &reading.lexed) &&
                   expr_parse(&reading.lexed, &reading.expr);
    buf_printf(&response, "so $\\boxed{%s}$.", gold.s);
    a->boxed += math_verify(response.s, r->answer.s).right;
    a->solved += !r->solution.n || math_verify(r->solution.s, r->answer.s).right;
    buf_free(&gold);
    buf_free(&response);
}

static void test_math_shared(void)
{
    static const char *const sets[] = {"sets/gsm8k/train.jsonl", "sets/gsm8k/test.jsonl",
                                       "sets/math/cs336_train.jsonl", "sets/math500/test.jsonl"};
    Path p;
    if (!shared_dir(&p, "verify") || !shared_dir(&p, "sets")) {
        CHECK(math_verify("\\boxed{1}", "1").right, "1 is 1");
        skip("agreement with other verifiers needs ../shared/data");
        return;
    }
    Agreement a = {0};
    shared_dir(&p, "verify/math_boxed.open.jsonl");
    answer_rows(p.s, against_math_verify, &a);
    CHECK(a.n > 2000 && a.agree >= 0.965 * a.n, "math_boxed: %d of %d", a.agree, a.n);
    CHECK(a.paid <= 30, "math_boxed: %d that all others refuse", a.paid);
    a = (Agreement){0};
    shared_dir(&p, "verify/answer_pairs.open.jsonl");
    answer_rows(p.s, against_math_verify, &a);
    CHECK(a.n > 1400 && a.agree >= 0.985 * a.n, "answer_pairs: %d of %d", a.agree, a.n);
    a = (Agreement){0};
    shared_dir(&p, "verify/gsm8k_labelled.open.jsonl");
    answer_rows(p.s, against_labels, &a);
    CHECK(a.n > 1000 && a.agree == a.n, "gsm8k_labelled: %d of %d", a.agree, a.n);
    for (int i = 0; i < 4; i++) {
        a = (Agreement){0};
        shared_dir(&p, sets[i]);
        int rows = answer_rows(p.s, against_itself, &a);
        CHECK(a.n >= 500 && a.agree == a.n && a.boxed == a.n && a.solved == rows,
              "%s: %d, %d and %d of %d", sets[i], a.agree, a.boxed, a.solved, a.n);
        CHECK(a.readable >= 0.999 * a.n, "%s: %d of %d can be read", sets[i], a.readable, a.n);
    }
}

static void test_math_command(void)
{
    Path file = tmp_path("verify.jsonl");
    const char *rows = "{\"response\": \"so \\\\boxed{\\\\frac12}\", \"gold\": \"0.5\"}\n"
                       "{\"pred\": \"x=3\", \"gold\": \"#### 4\", \"more\": [1]}\n";
    write_file(file.s, rows, strlen(rows));
    CHECK(cli("verify --pred=x=\\frac12 --gold 0.5") == 0, "%s", cli_err);
    CHECK(!strncmp(cli_out, "right: right\n", 13), "%s", cli_out);
    CHECK(cli("verify --pred 3 --gold 4 --json") == 0, "%s", cli_err);
    CHECK(!strcmp(cli_out, "{\"right\": false, \"reason\": \"not equal to the gold answer\", "
                           "\"answer\": \"3\", \"normal\": \"3\", \"gold\": \"4\", "
                           "\"gold_normal\": \"4\"}\n"), "%s", cli_out);
    CHECK(cli("verify --data %s", file.s) == 0 && strstr(cli_err, ": 1 of 2 right"), "%s", cli_err);
    CHECK(!strncmp(cli_out, "{\"right\": true,", 15) && strstr(cli_out, "\n{\"right\": false,"),
          "%s", cli_out);
    CHECK(cli("verify --pred 3") == 2 && cli("verify --gold 3 --pred 3 --data x") == 2, "usage");
    write_file(file.s, "{\"gold\": \"1\"}\n", 14);
    CHECK(cli("verify --data %s", file.s) == 1 && strstr(cli_err, "line 1: expected one"), "%s",
          cli_err);
}

/* ================================================================ report */

/* A run directory made by hand: two problems, two samples of each. right: of both problems at steps
 * 0, 10 and 20; maj is right / 2. */
static Path report_run(const char *group, const char *label, const char *seed, const int right[6])
{
    Buf dir = {0}, text = {0};
    buf_printf(&dir, "%s/%s/%s", tmp_dir(), group, label);
    Path p = path_join(dir.s, "");
    p.s[strlen(p.s) - 1] = 0;
    make_dirs(p.s);
    buf_printf(&text, "{\"command\": \"train\", \"method\": \"%s\", \"seed\": %s, \"data\": null, "
               "\"task\": \"add\", \"lr\": 1e-4}\n", strncmp(label, "grpo", 4) ? "g2rl" : "grpo",
               seed);
    write_file(path_join(p.s, "run.json").s, text.s, text.n);
    text.n = 0;
    for (int step = 1; step <= 20; step++)
        buf_printf(&text, "{\"step\": %d, \"reward\": %d, \"entropy\": null, \"kl_exact\": 0.5}\n",
                   step, step % 2);
    write_file(path_join(p.s, "metrics.jsonl").s, text.s, text.n);
    text.n = 0;
    for (int i = 0; i < 3; i++) {
        const int *r = right + 2 * i;
        buf_printf(&text, "{\"step\": %d, \"pass@1\": %g, \"pass@2\": %g, \"maj@2\": %g, "
                   "\"problems\": 2, \"samples\": 2, \"entropy\": 0.25, \"right\": [%d, %d], "
                   "\"maj\": [%g, %g]}\n", 10 * i, (r[0] + r[1]) / 4.0,
                   ((r[0] > 0) + (r[1] > 0)) / 2.0, (r[0] + r[1]) / 4.0, r[0], r[1], r[0] / 2.0,
                   r[1] / 2.0);
    }
    write_file(path_join(p.s, "eval.jsonl").s, text.s, text.n);
    buf_free(&dir);
    buf_free(&text);
    return p;
}

/* Adds a ledger: one group of two responses at steps 1 and 20, with a text in every place. */
static void report_ledger(const char *run, const char *hostile)
{
    Buf text = {0};
    for (int i = 0; i < 4; i++)
        buf_printf(&text, "{\"step\": %d, \"prompt_index\": 7, \"rollout\": %d, "
                   "\"prompt\": \"%s\", \"response\": \"%s%d\", \"reward\": %d, "
                   "\"reason\": \"%s\", \"S\": [%s], "
                   "\"nu\": 0.75, \"nubar\": %d, \"rtilde\": -1, \"advantage\": 0.5, "
                   "\"u\": 0.%d}\n",
                   i / 2 * 19 + 1, i % 2, hostile, hostile, i, i % 2 ? 1 : -1, hostile,
                   i % 2 ? "-0.5, 1" : "1, -0.5", i % 2, i);
    write_file(path_join(run, "rollouts.jsonl").s, text.s, text.n);
    buf_free(&text);
}

/* Is it a page whose tags close in the order in which they opened, with quoted attributes and
 * nothing raw in its text? Says where not. */
static const char *page_fault(const char *s)
{
    char stack[64][32];
    int depth = 0;
    for (; *s; s++) {
        size_t name = strcspn(s + 1, " />"), end = 0;
        if (*s == '>' || (*s == '&' && !strchr("alqg#", s[1])))
            return s;
        if (*s != '<')
            continue;
        for (bool quoted = false; s[end] && (quoted || s[end] != '>'); end++)
            quoted ^= s[end] == '"';
        if (!s[end] || name > 31 || depth > 62)
            return s;
        if (s[1] == '/') {
            size_t length = strcspn(s + 2, ">");
            if (!depth || strlen(stack[depth - 1]) != length ||
                strncmp(s + 2, stack[--depth], length))
                return s;
        } else if (s[1] != '!' && s[end - 1] != '/' && strncmp(s, "<meta ", 6)) {
            snprintf(stack[depth++], 32, "%.*s", (int)name, s + 1);
            if (!strcmp(stack[depth - 1], "style"))
                end = (size_t)(strstr(s, "</style>") - s) - 1;
        }
        s += end;
    }
    return depth ? "its end: a tag is open" : NULL;
}

/* A word of its own, in text or in an attribute. */
static bool has_word(const char *s, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = s; (at = strstr(at, word)); at += n)
        if ((at == s || !isalpha((unsigned char)at[-1])) && !isalpha((unsigned char)at[n]))
            return true;
    return false;
}

static char *read_page(const char *path)
{
    size_t n;
    char *page = read_file(path, &n);
    const char *fault = page_fault(page);
    CHECK(!fault, "not well-formed at %.80s", fault);
    CHECK(strlen(page) == n, "a NUL byte in the page");
    static const char *const words[] = {"nan", "NaN", "inf", "http", "https", "url"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        CHECK(!has_word(page, words[i]), "the page says %s", words[i]);
    return page;
}

/* The text from a word on; "" if it is not there. */
static const char *text_from(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at ? at : "";
}

/* The number behind a member of a JSON text that follows `after`; NaN if there is none. */
static double member_after(const char *text, const char *after, const char *name)
{
    const char *at = text_from(text_from(text, after), name);
    return *at ? strtod(at + strlen(name), NULL) : (double)NAN;
}

static void test_report_values(void)
{
    static const int right[4][6] = {
        {1, 0, 2, 1, 1, 1}, {0, 0, 1, 1, 2, 0}, {1, 0, 2, 2, 2, 2}, {0, 0, 0, 1, 2, 1}};
    Path a = report_run("v1", "grpo", "1", right[0]), b = report_run("v2", "grpo", "2", right[1]);
    Path c = report_run("v1", "g2rl", "1", right[2]), d = report_run("v2", "g2rl", "2", right[3]);
    double t = tan(0.95 * acos(0)); /* Student's t, one degree of freedom */
    CHECK(cli("report %s %s %s %s --json", a.s, b.s, c.s, d.s) == 0, "%s", cli_err);
    const char *arm = "\"g2rl\":", *path = "\"path\": {\"from\"", *out = text_from(cli_out, arm);
    CHECK(member_after(cli_out, "\"base\"", "\"seeds\": ") == 2, "%s", cli_out);
    CHECK(fabs(member_after(cli_out, "\"base\"", "\"pass@1\": ") - 0.125) < 1e-9, "base");
    CHECK(fabs(member_after(out, arm, "\"pass@1\": ") - 0.875) < 1e-9, "mean over seeds");
    CHECK(fabs(member_after(out, arm, "\"pass@1/interval\": [") - (0.875 - t * 0.125)) < 1e-5, "t");
    CHECK(fabs(member_after(out, arm, "\"pass@2\": ") - 1) < 1e-9, "pass@2");
    /* from step 10 on: seed 1 (1 + 1) / 2, seed 2 (.25 + .75) / 2 */
    CHECK(member_after(out, arm, "\"from\": ") == 10, "where the second half begins");
    CHECK(fabs(member_after(out, path, "\"pass@1\": ") - 0.75) < 1e-9, "second half");
    out = text_from(out, "\"difference\"");
    /* last: 1 - .5 and .75 - .5; second half: 1 - .625 and .5 - .5 */
    CHECK(fabs(member_after(out, "", "\"value\": ") - 0.375) < 1e-9, "difference");
    CHECK(fabs(member_after(out, "", "\"interval\": [") - (0.375 - t * 0.125)) < 1e-6, "%s", out);
    CHECK(fabs(member_after(out, "\"path\"", "\"value\": ") - 0.1875) < 1e-9, "its path");
    CHECK(fabs(member_after(out, "\"path\"", "\"interval\": [") - (0.1875 - t * 0.1875)) < 1e-6,
          "interval of the path");

    /* One seed: bootstrap over problems; both of the difference's are 1/2. */
    double x[2] = {0.5, 0.5};
    Estimate e = bootstrap(x, 2, 1);
    CHECK(cli("report %s %s --json", a.s, c.s) == 0, "%s", cli_err);
    CHECK(fabs(member_after(cli_out, "\"grpo\"", "\"pass@1/interval\": [") - e.low) < 1e-6, "own");
    out = text_from(cli_out, "\"difference\"");
    CHECK(member_after(out, "", "\"value\": ") == 0.5 &&
          member_after(out, "", "\"interval\": [") == 0.5, "%s", out);
    x[0] = 0.75; /* grpo from step 10 on: (2 + 1) / 4 and (1 + 1) / 4 */
    e = bootstrap(x, 2, 1);
    CHECK(fabs(member_after(text_from(cli_out, "\"grpo\""), "\"from\"", "\"pass@1/interval\": [") -
               e.low) < 1e-6, "problems over the second half: %s", cli_out);

    /* Seeds that have no partner are no pairs; the text says the same. */
    CHECK(cli("report %s %s", a.s, d.s) == 0 && !strstr(cli_out, "difference"), "%s", cli_out);
    CHECK(cli("report %s %s %s --out %s/x.html", a.s, c.s, d.s, tmp_dir()) == 0, "%s", cli_err);
    CHECK(strstr(cli_out, "\ng2rl               2   87.5 [") != NULL, "%s", cli_out);
    CHECK(strstr(cli_out, "\ng2rl               1  +50.0 [+50.0, +50.0]") != NULL, "%s", cli_out);
    char *page = read_page(tmp_path("x.html").s);
    CHECK(strstr(page, "<b>+50.0</b>") != NULL, "an interval without 0 is bold");
    CHECK(strstr(page, "base</th><td class=\"n\">12.5<i>") != NULL, "the base model at step 0");
    free(page);
}

static const char *const GEOMETRY_LINE =
    "{\"name\": \"base\", \"pairs\": 4, \"identical\": 0.25, \"cos\": {\"mean\": 0.5, "
    "\"interval\": [0.25, null]}, \"zero_mean/sum\": {\"mean\": null, \"interval\": [null, null]}, "
    "\"histogram/cos\": [1, 3], \"histogram/neg_ratio\": [0, 0], \"true\": {\"all\": "
    "{\"pearson/phi\": {\"mean\": 0.9, \"interval\": [0.8, 1]}}}, \"true_pairs\": [[0, 1, 0.5]]}\n";

static void test_report_page(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const char *const hostile = "</td><script>x</script>&amp;\\\"'\\u0000\\u202e\\u0001\\n";
    Path a = report_run("p", "grpo", "1", right), out = tmp_path("page.html");
    Path b = report_run("p", "b<i>&\"'\xff", "1", right), svg = tmp_path("frontier.svg");
    Path geometry = put_file("geometry.jsonl", GEOMETRY_LINE);
    report_ledger(a.s, hostile);
    report_ledger(b.s, "plain");
    CHECK(cli("report %s %s --geometry %s --out %s --svg %s", a.s, b.s, geometry.s, out.s, svg.s)
              == 0, "%s", cli_err);
    char *page = read_page(out.s);
    CHECK(strstr(page, "b&lt;i&gt;&amp;&quot;&#39;\xEF\xBF\xBD") != NULL, "the label");
    CHECK(strstr(page, "&lt;/td&gt;&lt;script&gt;x&lt;/script&gt;&amp;amp;&quot;&#39;\xE2\x90\x80"
                       "\xEF\xBF\xBD\xE2\x90\x81\xE2\x90\x8A" "0</td>") != NULL, "the response");
    static const char *const parts[] = {
        "Results", "The frontier", "Along the way", "reward in training", "The same in all runs",
        "Groups of answers", "One group, its arithmetic", "gradient features, % of pairs",
        "Correlation with the cosines", "class=\"heat\"", "Figure 7."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        CHECK(strstr(page, parts[i]) != NULL, "no %s", parts[i]);
    CHECK(!strstr(page, "entropy of the policy"), "a panel of nothing but null");
    /* S = 1 on the diagonal and -0.5 beside it: steps 20 and 5 of the scale, in both groups */
    CHECK(strstr(page, "<path class=\"h20\" d=\"M24 0h150v150h-150zM174 150h150v150h-150z\"/>") &&
          strstr(page, "<path class=\"h5\" d=\"M174 0h150v150h-150zM24 150h150v150h-150z\"/>"),
          "the matrix");
    CHECK(strstr(page, "data-k=\"A\">+0.500</td>") && strstr(page, ">\xE2\x88\x92" "1.00</td>"),
          "the arithmetic");
    free(page);
    size_t n;
    char *drawing = read_file(svg.s, &n);
    CHECK(!page_fault(drawing) && strstr(drawing, "<svg xmlns=") == drawing, "%.200s", drawing);
    free(drawing);
}

/* Panels that have nothing to show say so, or are not there. */
static void test_report_absent(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    Path a = report_run("absent", "alone", "1", right);
    Path page_path = path_join(path_join(tmp_dir(), "absent").s, "report.html");
    unlink(path_join(a.s, "eval.jsonl").s);
    CHECK(cli("report %s/", a.s) == 0 && strstr(cli_out, "no run has an eval"), "%s", cli_err);
    char *page = read_page(page_path.s);
    CHECK(strstr(page, "No run has an eval.jsonl") && strstr(page, "--geometry a file") &&
          strstr(page, "no run has a rollouts.jsonl") && !strstr(page, "The frontier"), "absent");
    free(page);
    CHECK(cli("report %s --json", a.s) == 0 && !strcmp(cli_out, "{\n}\n"), "%s", cli_out);
    CHECK(cli("report %s --svg %s/no.svg", a.s, tmp_dir()) == 1 &&
          !is_file(path_join(tmp_dir(), "no.svg").s), "%s", cli_err);
    write_file(path_join(a.s, "metrics.jsonl").s, "", 0);
    CHECK(cli("report %s", a.s) == 0, "no step at all: %s", cli_err);
    free(read_page(page_path.s));
}

static void test_report_refused(void)
{
    static const int right[6] = {1, 0, 2, 1, 1, 1};
    static const struct {
        const char *file, *text, *error;
    } rows[] = {
        {"run.json", "{\"command\": \"sft\", \"seed\": 1}", "run.json: command: 'sft'; expected"},
        {"run.json", "{\"command\": \"train\"}", "run.json: seed: ''; expected"},
        {"run.json", "{\"command\": \"train\",\n\"seed\":", "run.json: line 2: expected"},
        {"metrics.jsonl", "{\"step\": 1}\n{\"step\": 1}\n", "line 2: step: 1 after 1"},
        {"metrics.jsonl", "{\"reward\": 1}\n", "line 1: step: expected"},
        {"metrics.jsonl", "{\"step\": 1, \"entropy\": \"x\"}\n", "line 1: entropy: expected a num"},
        {"metrics.jsonl", "{\"step\": 1}\n\n{\"step\": 2, \"re", "metrics.jsonl: line 3: "},
        {"eval.jsonl", "{\"step\": 0, \"pass@1\": 1}\n", "line 1: expected problems and samples"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 2, \"samples\": 2, \"right\": [1]}\n",
         "line 1: right: 1 numbers; expected 2"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 1, \"samples\": 2, \"right\": [3]}\n",
         "line 1: right: 3 of 2 samples"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 3, \"samples\": 2, \"maj@2\": 1}\n",
         "line 1: 3 problems, 2 samples, maj@2; expected 2, 2"},
        {"eval.jsonl", "{\"step\": 0, \"problems\": 3000000000}\n", "line 1: problems: expected"},
        {"rollouts.jsonl", "{\"step\": 1, \"rollout\": 0, \"prompt_index\": 1}\n",
         "line 1: expected step, prompt_index, rollout and reward"},
        {"rollouts.jsonl", "{\"step\": 1, \"rollout\": 0, \"prompt_index\": 1, \"reward\": 1}\n"
         "{\"step\": 1, \"response\": \"\xff\"}\n", "line 2: response: bytes that are not UTF-8"},
        {"rollouts.jsonl", "{\"step\": 1, \"rollout\": 0, \"prompt_index\": 1, \"reward\": 1, "
         "\"S\": [1, 0]}\n{\"step\": 1, \"rollout\": 1, \"prompt_index\": 1, \"reward\": 1, "
         "\"S\": [1]}\n", "step 1, prompt_index 1, rollout 1: S: 1 numbers; expected 2"},
    };
    Path a = report_run("bad", "grpo", "1", right);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Path b = report_run("bad", "mine", "1", right), file = path_join(b.s, rows[i].file);
        write_file(file.s, rows[i].text, strlen(rows[i].text));
        CHECK(cli("report %s %s", a.s, b.s) == 1, "%s: %s", rows[i].file, rows[i].text);
        CHECK(strstr(cli_err, rows[i].error) && strchr(cli_err, '\n') == strrchr(cli_err, '\n'),
              "%s; expected %s", cli_err, rows[i].error);
        unlink(file.s);
    }
    CHECK(cli("report") == 2 && cli("report %s/none", tmp_dir()) == 1, "%s", cli_err);
    CHECK(cli("report %s", tmp_dir()) == 1 && strstr(cli_err, "it has no run.json"), "%s", cli_err);
    Path again = report_run("bad/again", "grpo", "1", right);
    CHECK(cli("report %s %s", a.s, again.s) == 1 && strstr(cli_err, "both are grpo with seed 1"),
          "%s", cli_err);
    Path geometry = put_file("geometry.jsonl", "{\"name\": \"x\", \"cos\": 1}\n");
    CHECK(cli("report %s --geometry %s", a.s, geometry.s) == 1 &&
          strstr(cli_err, "line 1: cos: expected an object"), "%s", cli_err);
}

/* A ledger larger than the windows that are read: the groups are of its first and its last step,
 * on one problem for every run where that can be. */
static void test_report_ledger(void)
{
    enum { STEPS = 60, PROBLEMS = 20, M = 3 };
    Path run = report_run("l", "grpo", "1", (int[6]){1, 0, 2, 1, 1, 1});
    Buf text = {0};
    RunFiles r = {.dir = run.s};
    Ledger first, second;
    for (int i = 0; i < STEPS * PROBLEMS * M; i++) {
        int step = i / (PROBLEMS * M) + 1, problem = i / M % PROBLEMS, rollout = i % M;
        buf_printf(&text, "{\"step\": %d, \"prompt_index\": %d, \"rollout\": %d, \"reward\": %d, "
                   "\"S\": [1, 0, 0], \"nu\": %d, \"u\": 0.5, \"prompt\": \"%0400d\"}\n", step,
                   problem, rollout, problem == 5 && rollout == 1 ? 1 : -1, step, 0);
    }
    write_file(path_join(run.s, "rollouts.jsonl").s, text.s, text.n);
    CHECK(text.n > 9 * (1 << 17), "%zu bytes", text.n);
    CHECK(ledger_read(&r, NULL, &first) && first.first.n == M && first.last.n == M, "groups");
    CHECK(first.first.row->step == 1 && first.last.row[M - 1].step == STEPS, "their steps");
    CHECK(first.first.row->problem == 5 && first.last.row->problem == 5, "right and wrong in them");
    double low = STEPS, high = 0;
    for (int i = 0; i < first.n_points; i++) {
        low = fmin(low, first.point[i].nu);
        high = fmax(high, first.point[i].nu);
    }
    CHECK(first.n_points > 1000 && first.n_points < STEPS * PROBLEMS * M && low == 1 &&
          high == STEPS, "%d points from %g to %g", first.n_points, low, high);
    first.last.row->problem = 3;
    CHECK(ledger_read(&r, &first, &second) && second.last.row->problem == 3, "its like");
    ledger_free(&first);
    ledger_free(&second);
    CHECK(cli("report %s", run.s) == 0, "%s", cli_err); /* u is constant: no correlation */
    char *page = read_page(path_join(path_join(tmp_dir(), "l").s, "report.html").s);
    CHECK(strstr(page, ">r = \xE2\x80\x93</text>") != NULL, "a correlation of what is constant");
    free(page);
    /* a file that was cut off */
    text.n -= 40;
    write_file(path_join(run.s, "rollouts.jsonl").s, text.s, text.n);
    CHECK(cli("report %s", run.s) == 1 && strstr(cli_err, "rollouts.jsonl: line 3600: "), "%s",
          cli_err);
    buf_free(&text);
}

static void test_svg_parts(void)
{
    Buf b = {0};
    static const struct {
        double low, high, step, first, last;
        int decimals;
    } rows[] = {{0.17, 0.83, 0.2, 0, 1, 1}, {-3, 47, 10, -10, 50, 0},
                {0.0301, 0.0309, 2e-4, 0.03, 0.031, 4}, {5, 5, 0.2, 4.4, 5.6, 1},
                {0, 0, 5e-4, -1e-3, 1e-3, 4}, {1, 0, 0.2, 0, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Axis x = axis_fit((Span){rows[i].low, rows[i].high});
        CHECK(fabs(x.low - rows[i].first) < 1e-9 && fabs(x.high - rows[i].last) < 1e-9 &&
              fabs(x.step - rows[i].step) < 1e-9 && x.decimals == rows[i].decimals,
              "row %zu: %g to %g by %g, %d", i, x.low, x.high, x.step, x.decimals);
    }
    html_text(&b, "a\xF0\x9F\x98\x80\xff<b>", 9, 4);
    CHECK(!strcmp(b.s, "a\xF0\x9F\x98\x80\xEF\xBF\xBD&lt;\xE2\x80\xA6"), "%s", b.s);
    b.n = 0;
    number(&b, -0.04, 1);
    number(&b, -0.06, 1);
    number(&b, (double)NAN, 1);
    CHECK(!strcmp(b.s, "0.0\xE2\x88\x92" "0.1\xE2\x80\x93"), "%s", b.s);
    PathEnd end[4] = {{.y = 50}, {.y = 10}, {.y = 12}, {.y = 13}};
    spread_ends(end, 4, 10);
    for (int i = 1; i < 4; i++)
        CHECK(end[i].y >= end[i - 1].y && end[i].text_y - end[i - 1].text_y >= 10 - 1e-9,
              "end %d at %g after %g", i, end[i].text_y, end[i - 1].text_y);
    double x[5] = {1, (double)NAN, 3, 5, 100};
    CHECK(running_mean(x, 5, 1, 3) == 2 && running_mean(x, 5, 0, 3) == 1 &&
          running_mean(x, 5, 2, 3) == 4 && isnan(running_mean(x, 5, 1, 1)), "running mean");
    buf_free(&b);
}

/* ================================================================ the table */

typedef struct {
    const char *name, *description;
    void (*run)(void);
} Test;

static const Test TESTS[] = {
#define TEST(name, description) {#name, description, test_##name}
    TEST(json_grammar, "what is JSON and what is not"),
    TEST(json_depth, "nesting is bounded"),
    TEST(json_strings, "escapes, surrogates, UTF-8"),
    TEST(json_numbers, "integers, doubles, overflow"),
    TEST(json_pulling, "keys, items, sticky errors"),
    TEST(json_writer, "what is written reads back equal"),
    TEST(safetensors_round_trip, "written and read back, bit for bit"),
    TEST(safetensors_halves, "every F16 and BF16 value"),
    TEST(safetensors_rounding, "to F16 and BF16: the nearest value, ties to even"),
    TEST(safetensors_mixed, "several dtypes in one file"),
    TEST(safetensors_refused, "bad files, each with its reason"),
    TEST(safetensors_need, "missing and misshapen tensors"),
    TEST(safetensors_shards, "sharded directories, bad indices"),
    TEST(task_spec, "task options"),
    TEST(countdown_verifier, "the verifier against its adversaries"),
    TEST(countdown_problems, "solvable, deterministic, held out"),
    TEST(add_task, "addition with carries"),
    TEST(math_answers, "pairs of answers and their verdicts"),
    TEST(math_responses, "responses, most of them after a reward for nothing"),
    TEST(math_extract, "where the answer is, in a response and in a data set"),
    TEST(math_normal, "normal forms"),
    TEST(math_values, "the field of residues; numbers beyond doubles"),
    TEST(math_hostile, "deep, long, broken and random answers"),
    TEST(math_shared, "agreement with labels and other verifiers"),
    TEST(math_command, "g2rl verify"),
    TEST(philox, "Random123 known answers"),
    TEST(exp, "exp within 1.01 ulp; NaN stays NaN"),
    TEST(rows, "sums across rows: equal bits, exact ends"),
    TEST(gemm, "every product against a scalar fmaf chain, equal bits"),
    TEST(norm_gradient, "RMSNorm against differences"),
    TEST(heads_gradient, "q/k norm and rotation against differences"),
    TEST(attention_gradient, "attention with shared prefixes against differences"),
    TEST(swiglu_gradient, "SwiGLU against differences"),
    TEST(linear_gradient, "linear layers and bias against differences"),
    TEST(head_gradient, "the head, two temperatures, against differences"),
    TEST(head_terms, "the gradients of entropy and KL divergence against differences"),
    TEST(model_gradient, "every tensor of whole models against differences"),
    TEST(oracle, "log-probs, phi, gradients, Adam steps of an independent reference"),
    TEST(phi, "Eq 6-7, 14: phi = T d log p / d h, in double"),
    TEST(kl_exact, "the streamed KL divergence against double"),
    TEST(kl_bias, "expected gradients of k2 and k3, by enumeration"),
    TEST(invariance, "equal bits for any threads, packing, micro-batch, neighbours"),
    TEST(decoding, "cached decoding equals the training forward, bit for bit"),
    TEST(adamw, "AdamW against double"),
    TEST(schedule, "learning rates"),
    TEST(model_directory, "saved and loaded; the newest checkpoint"),
    TEST(config_errors, "bad configs, each with its field"),
    TEST(config_defaults, "what a config leaves out; older and newer spellings"),
    TEST(generation_config, "generation_config.json decides on end tokens"),
    TEST(config_dtype, "a config with another dtype, the rest as it was"),
    TEST(round_trips, "tied, sharded, F32, BF16, F16, mixed: loaded, saved, loaded"),
    TEST(saved_dtype, "weights saved in another dtype; what it cannot hold"),
    TEST(stored_twice, "a tied head that is stored again"),
    TEST(misfits, "weights that do not fit their config"),
    TEST(method_oracle, "Eq 2, 6-14 on the oracle's groups, both readings, two temperatures"),
    TEST(loss_oracle, "Eq 3-4 and its gradient on the oracle's groups"),
    TEST(token_loss, "the clip's and the KL's derivative in every region"),
    TEST(group_loss, "every choice of loss, KL term, mask and bonus against differences"),
    TEST(evol, "EVOL-RL's similarity, classes and rewards, by hand; both encoders"),
    TEST(encoders, "embeddings of responses"),
    TEST(method_by_hand, "Eq 9-11 on features made by hand; huge rewards; rounding noise"),
    TEST(shaping, "Eq 12-13, Eq 2, dead groups, novelty's share, the random control"),
    TEST(zero_mean, "E[sum phi] = 0 by enumeration"),
    TEST(on_policy, "sampler and trainer agree to the bit, alone, together, threaded"),
    TEST(shared_batch, "few rollouts, large weights: threads share one batch, equal bits"),
    TEST(draws, "draws follow the policy; top-k, top-p, greedy"),
    TEST(groups_stand_alone, "neighbours change no bit; permuting responses permutes results"),
    TEST(pass_at_k, "pass@k against counting subsets"),
    TEST(majority, "maj@k with ties in expectation, every small case"),
    TEST(bootstrap, "bootstrap intervals against all resamples"),
    TEST(paired, "differences by pairs; a model against itself"),
    TEST(mean_interval, "Student's t; intervals over runs"),
    TEST(correlation, "Pearson, Spearman with ties, weights as repetitions"),
    TEST(group_bootstrap, "intervals from groups, not from their pairs"),
    TEST(true_gradients, "of each response, against differences in double; their cosines"),
    TEST(zero_mean_check, "holds on-policy; not at another temperature, nor without end tokens"),
    TEST(geometry_counts, "pairs, histograms, Eq 8's sums by hand"),
    TEST(geometry_truth, "distinct pairs alone, at most 500 of them written out"),
    TEST(tokenizer, "the character vocabulary"),
    TEST(pieces, "the regular expressions of GPT-2 and Qwen, cut by hand"),
    TEST(nfc, "normal form C; letters, numbers and white space of Unicode"),
    TEST(bpe_vectors, "text to ids and back against the tokenizers library"),
    TEST(bpe_options, "what a tokenizer.json may ask for"),
    TEST(bpe_bytes, "any bytes, both ways"),
    TEST(tokenizer_refused, "what is not supported, each with its name"),
    TEST(bos, "the token that begins a prompt"),
    TEST(chat, "Qwen3's chat template"),
    TEST(tokenize, "the command tokenize"),
    TEST(bpe_model, "a model with a BPE tokenizer: checkpoints, score, sample"),
    TEST(options, "the option table, option files"),
    TEST(command_line, "wrong command lines, help"),
    TEST(sft, "sft's loss against score; labels; file order"),
    TEST(train_repeats, "equal runs for equal seeds, any threads and micro-batch"),
    TEST(methods_repeat, "every method and loss: equal runs for any threads, frugal or not"),
    TEST(preset_tokenizer, "a preset with a tokenizer of one's own"),
    TEST(saved_files, "saved models take tokenizer, templates and config along"),
    TEST(lambda_zero, "lambda 0 is GRPO to the bit; several updates a step"),
    TEST(ledger, "the ledger's numbers make its advantages"),
    TEST(resume, "N steps are k steps, --resume and N - k steps, in every file"),
    TEST(resume_refused, "what --resume does not go on with"),
    TEST(cut_lines, "a run's files, cut back to a step"),
    TEST(incomplete, "checkpoints that are not whole, or do not fit"),
    TEST(keep, "--keep, and whose checkpoints go"),
    TEST(interrupt, "SIGINT, SIGTERM, and a second one"),
    TEST(not_finite, "a gradient, weight or moment that is not finite: named, never saved"),
    TEST(run_failures, "a full disk, a directory that vanishes, is read-only or in use"),
    TEST(replay, "a rollout of a run again, alone"),
    TEST(explain, "explain --data --json against the oracle"),
    TEST(explained, "explain's sentences, on groups made by hand"),
    TEST(eval, "eval's numbers belong together"),
    TEST(geometry, "the command: members, threads, agreement with eval"),
    TEST(geometry_inputs, "prompts alone, another tokenizer, too little memory"),
    TEST(metrics, "help metrics defines what the files hold"),
    TEST(sample, "streamed text, --stop, --temperature 0"),
    TEST(sft_text, "plain text as records; the loss of --valid"),
    TEST(preflight, "the first batch: what it says, and where it ends the run"),
    TEST(data, "problem files, good and bad"),
    TEST(template, "what each template makes of a prompt"),
    TEST(template_training, "templates in sft and train"),
    TEST(problem_records, "GSM8K, MATH, SVAMP, whole; bad records by line and field"),
    TEST(judge, "which verifier judges, answer classes, gold answers"),
    TEST(math_votes, "maj@k over equal answers"),
    TEST(gold_answers, "answers that their own verifier refuses"),
    TEST(long_prompts, "prompts over the limit are left out, and counted"),
    TEST(stop, "responses that end at a text"),
    TEST(reward_failures, "each way in which a reward command fails"),
    TEST(reward_end, "no end of ours leaves the command running"),
    TEST(reward_exchange, "order, full pipes, exact requests"),
    TEST(reward_story, "the example of a reward command"),
    TEST(real_rewards, "Eq 2, 12 and dead groups for rewards of any size"),
    TEST(reward_cmd, "rewards from a command in train, eval and explain"),
    TEST(problem_files, "explain and --eval-every on a file"),
    TEST(report_values, "means, intervals and paired differences by hand"),
    TEST(report_page, "a well-formed page that escapes what files say"),
    TEST(report_absent, "panels without data"),
    TEST(report_refused, "bad files of runs, each with line and field"),
    TEST(report_ledger, "groups and points out of a large ledger"),
    TEST(svg_parts, "ticks, escaped text, running means"),
    TEST(bench, "the benchmark's rows and counts"),
};
enum { N_TESTS = sizeof TESTS / sizeof *TESTS };

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '=' ? !strcmp(name, argv[i] + 1) : strstr(name, argv[i]) != NULL)
            return true;
    return argc == 1;
}

static void remove_tmp(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", tmp_dir());
    if (system(command))
        warn("%s: cannot be removed", tmp_dir());
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "--cli")) /* see cli_child */
        return run_command(argc - 1, argv + 1);
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < N_TESTS; i++)
            printf("%-20s %s\n", TESTS[i].name, TESTS[i].description);
        return 0;
    }
    tmp_dir();
    for (int i = 0; i < N_TESTS; i++) {
        double start = now_seconds();
        if (!wanted(TESTS[i].name, argc, argv))
            continue;
        n_checks = n_failures = 0;
        TESTS[i].run();
        bool good = n_failures == 0 && n_checks > 0;
        passed += good;
        failed += !good;
        printf("%s  %-22s %7d checks  %5.2f s   %s\n", good ? "ok  " : "FAIL", TESTS[i].name,
               n_checks, now_seconds() - start, TESTS[i].description);
        fflush(stdout);
    }
    remove_tmp();
    printf("%d passed, %d failed, %d skipped\n", passed, failed, n_skips);
    return failed || !passed;
}
