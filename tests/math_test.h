/* math.h: tests of answers to mathematical problems. */
#ifndef TESTS_MATH_H
#define TESTS_MATH_H

#include "check.h"

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
    buf_free(&r.response, &r.pred, &r.gold, &r.answer, &r.solution);
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
    int n = answer_rows("tests/math/answers.jsonl", check_answer, NULL);
    CHECK(n > 150, "%d pairs", n);
}

/* Whole responses, most of them tries to be paid for nothing. */
static void test_math_responses(void)
{
    int n = answer_rows("tests/math/responses.jsonl", check_answer, NULL);
    CHECK(n > 80, "%d responses", n);
}

/* "50%" for 50, but not 0.5% for 0.5. */
static void test_math_percent(void)
{
    CHECK(answer_rows("tests/math/percent.jsonl", check_answer, NULL) > 10, "few");
}

/* On the next line, in bold, backticks, display math, below a heading. */
static void test_math_places(void)
{
    CHECK(answer_rows("tests/math/places.jsonl", check_answer, NULL) > 20, "few");
}

/* "Put it in \boxed{}" is no box. */
static void test_math_mentions(void)
{
    CHECK(answer_rows("tests/math/mentions.jsonl", check_answer, NULL) > 20, "few");
}

/* 18 sq ft, USD 18, \text{18 eggs}, but not 18xy, 18 million, 18 is wrong; other spellings. */
static void test_math_units(void)
{
    CHECK(answer_rows("tests/math/units.jsonl", check_answer, NULL) > 100, "few");
}

/* What people reported of this and other verifiers. */
static void test_math_reported(void)
{
    CHECK(answer_rows("tests/math/reported.jsonl", check_answer, NULL) > 250, "few");
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

/* Math-Verify knows no \fbox, and refuses 50% for 50. */
static void against_math_verify(const AnswerRow *r, void *context)
{
    Agreement *a = context;
    const char *text = r->response.n ? r->response.s : r->pred.s;
    bool right = (r->response.n ? math_verify(text, r->gold.s)
                                : math_compare(text, r->pred.n, r->gold.s)).right;
    size_t n = strlen(text);
    bool ours = right && (strstr(text, "\\fbox") || strstr(text, "\\%}") ||
                          (n > 1 && !strcmp(text + n - 2, "\\%")));
    a->n++;
    a->agree += ours || right == (r->math_verify == 1);
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
    a->readable += latex_lex(gold.s, gold.n, false, &reading.lexed) &&
                   expr_parse(&reading.lexed, &reading.expr);
    buf_printf(&response, "so $\\boxed{%s}$.", gold.s);
    a->boxed += math_verify(response.s, r->answer.s).right;
    a->solved += !r->solution.n || math_verify(r->solution.s, r->answer.s).right;
    buf_free(&gold, &response);
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
    CHECK(a.n > 2000 && a.agree >= 0.98 * a.n, "math_boxed: %d of %d", a.agree, a.n);
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

#endif
