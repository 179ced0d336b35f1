/* files.h: tests of JSON and safetensors, good and bad. */
#ifndef TESTS_FILES_H
#define TESTS_FILES_H

#include "check.h"

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
    buf_free(&key, &s);
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
    buf_free(&all, &b, &back);
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

static void write_where_a_folder_comes(void *path)
{
    AtomicFile a = atomic_open(path);
    make_dirs(path);
    errno = ENOTTY; /* of some earlier call */
    atomic_close(&a);
}

/* A file that cannot take its name: the reason is that of the rename, and nothing stays behind. */
static void test_write_file(void)
{
    char err[512];
    Path dir = tmp_path("write_file"), folder = path_join(dir.s, "folder");
    make_dirs(dir.s);
    CHECK(dies(write_where_a_folder_comes, folder.s, err, sizeof err) == 1 &&
              strstr(err, "directory"), "%s", err);
    CHECK(!rmdir(folder.s) && !rmdir(dir.s), "a temporary file stays: %s", strerror(errno));
}

#endif
