/* lessons_test.h: a test for each lesson that is written in plain.c: the functions by themselves,
 * against definitions, differences and numbers by hand, so that a message says which number is
 * wrong. plain_test.h then compares whole steps with the program. */
#ifndef TESTS_LESSONS_H
#define TESTS_LESSONS_H

#include "plain_test.h"

static double noise_d(uint32_t seed, int i) { return (double)noise(seed, (size_t)i); }

/* Is every x[i] what it should be? Names the first that is not. */
static bool check_numbers(const char *what, const double *x, const double *expected, int n)
{
    for (int i = 0; i < n; i++)
        if (!CHECK(fabs(x[i] - expected[i]) < 1e-7 * (1 + fabs(expected[i])),
                   "%s: number %d of %d is %g, not %g", what, i, n, x[i], expected[i]))
            return false;
    return true;
}

/* d f / d x[i] by central differences. */
static void differences_of(double (*f)(void), double *x, int n, double *out)
{
    for (int i = 0; i < n; i++) {
        double h = 1e-5, old = x[i];
        x[i] = old + h;
        double up = f();
        x[i] = old - h;
        out[i] = (up - f()) / (2 * h);
        x[i] = old;
    }
}

/* ---------------------------------------------------------------- softmax */

static void test_plain_softmax(void)
{
    static const double scales[] = {1, 0.4, 1.25}, shifts[] = {0, 1000, -1000};
    for (int n = 1; n < 8; n++)
        for (int c = 0; c < 9; c++) {
            double p[8], expected[8], sum = 0, scale = scales[c / 3];
            char what[96];
            for (int i = 0; i < n; i++) {
                double z = 4 * noise_d(1, i);
                p[i] = z + shifts[c % 3];
                sum += expected[i] = exp(scale * z);
            }
            for (int i = 0; i < n; i++)
                expected[i] /= sum;
            snprintf(what, sizeof what, "softmax of numbers near %g, scale %g", shifts[c % 3],
                     scale);
            plain_softmax(p, n, scale);
            check_numbers(what, p, expected, n);
        }
}

/* ---------------------------------------------------------------- RMSNorm */

enum { NORM_ROWS = 3, NORM_COLS = 5, NORM_ALL = NORM_ROWS * NORM_COLS };

static struct {
    double x[NORM_ALL], w[NORM_COLS], y[NORM_ALL], dy[NORM_ALL];
} norms;

/* By the definition; <dy, y>, whose gradients are those that a backward pass makes of dy. */
static double norm_product(void)
{
    double sum = 0;
    for (int i = 0; i < NORM_ALL; i++) {
        double square = 0;
        for (int j = 0; j < NORM_COLS; j++)
            square += pow(norms.x[i / NORM_COLS * NORM_COLS + j], 2) / NORM_COLS;
        norms.y[i] = norms.x[i] / sqrt(square + PLAIN_NORM_EPS) * norms.w[i % NORM_COLS];
        sum += norms.dy[i] * norms.y[i];
    }
    return sum;
}

static void test_plain_rmsnorm(void)
{
    double y[NORM_ALL], dx[NORM_ALL], dw[NORM_COLS], true_dx[NORM_ALL], true_dw[NORM_COLS];
    for (int i = 0; i < NORM_ALL; i++) {
        norms.x[i] = i < NORM_COLS ? 0.003 * noise_d(1, i) : noise_d(1, i); /* a row near eps */
        norms.dy[i] = noise_d(2, i);
        norms.w[i % NORM_COLS] = 1 + noise_d(3, i % NORM_COLS);
        dx[i] = dw[i % NORM_COLS] = 10;
        y[i] = (double)NAN;
    }
    differences_of(norm_product, norms.w, NORM_COLS, true_dw);
    differences_of(norm_product, norms.x + NORM_COLS, NORM_ALL - NORM_COLS, true_dx + NORM_COLS);
    norm_product();
    plain_rmsnorm_forward(y, norms.x, norms.w, NORM_ROWS, NORM_COLS);
    check_numbers("y of three rows of five", y, norms.y, NORM_ALL);
    plain_rmsnorm_backward(dx, dw, norms.dy, norms.x, norms.w, NORM_ROWS, NORM_COLS);
    for (int i = 0; i < NORM_ALL; i++)
        true_dx[i] += 10;
    for (int i = 0; i < NORM_COLS; i++)
        true_dw[i] += 10;
    check_numbers("10 + dw (what was there, 10, and yours)", dw, true_dw, NORM_COLS);
    check_numbers("10 + dx of the last two rows", dx + NORM_COLS, true_dx + NORM_COLS,
                  NORM_ALL - NORM_COLS);
}

/* ---------------------------------------------------------------- attention */

enum {
    ATTEND = 7, ATTEND_Q = PLAIN_HEADS * PLAIN_HD, ATTEND_KV = PLAIN_KV_HEADS * PLAIN_HD,
    ATTEND_P = PLAIN_HEADS * PLAIN_N * PLAIN_N
};

/* <dy, y>, y = softmax(q k / sqrt(HD)) v by the definition, of what is in attention 0. */
static double attention_y[ATTEND * ATTEND_Q], attention_p[ATTEND_P];
static double attention_product(void)
{
    PlainAttention a = plain_attention(0), da = plain_attention(1);
    double product = 0;
    for (int i = 0; i < ATTEND * PLAIN_HEADS; i++) {
        int t = i / PLAIN_HEADS, h = i % PLAIN_HEADS, group = h / (PLAIN_HEADS / PLAIN_KV_HEADS);
        double *p = attention_p + (h * PLAIN_N + t) * PLAIN_N, sum = 0;
        for (int u = 0; u <= t; u++) {
            double z = 0;
            for (int e = 0; e < PLAIN_HD; e++)
                z += a.q[i * PLAIN_HD + e] * a.k[(u * PLAIN_KV_HEADS + group) * PLAIN_HD + e];
            sum += p[u] = exp(z / sqrt(PLAIN_HD));
        }
        for (int e = 0; e < PLAIN_HD; e++) {
            double y = 0;
            for (int u = 0; u <= t; u++)
                y += p[u] / sum * a.v[(u * PLAIN_KV_HEADS + group) * PLAIN_HD + e];
            attention_y[i * PLAIN_HD + e] = y;
            product += da.y[i * PLAIN_HD + e] * y;
        }
        for (int u = 0; u <= t; u++)
            p[u] /= sum;
    }
    return product;
}

static void test_plain_attention(void)
{
    PlainAttention a = plain_attention(0), da = plain_attention(1);
    double expected[ATTEND * ATTEND_Q];
    struct {
        const char *name;
        double *x, *dx;
        int n;
    } part[] = {
        {"dv, at [position, head, number]", a.v, da.v, ATTEND * ATTEND_KV},
        {"dq", a.q, da.q, ATTEND * ATTEND_Q}, {"dk", a.k, da.k, ATTEND * ATTEND_KV},
    };
    for (int i = 0; i < ATTEND * ATTEND_Q; i++) {
        a.q[i] = 2 * noise_d(1, i);
        da.y[i] = noise_d(2, i);
        a.y[i] = (double)NAN;
        da.q[i] = 0;
    }
    for (int i = 0; i < ATTEND * ATTEND_KV; i++) {
        a.k[i] = 2 * noise_d(3, i);
        a.v[i] = noise_d(4, i);
        da.k[i] = da.v[i] = 0;
    }
    attention_product();
    plain_attention_forward(ATTEND);
    check_numbers("y", a.y, attention_y, ATTEND * ATTEND_Q);
    memcpy(a.p, attention_p, sizeof attention_p);
    plain_attention_backward(ATTEND);
    for (int i = 0; i < 3; i++) {
        differences_of(attention_product, part[i].x, part[i].n, expected);
        check_numbers(part[i].name, part[i].dx, expected, part[i].n);
    }
}

/* ---------------------------------------------------------------- sampling */

/* Responses end where they should; each token is the one that its random number falls on; and its
 * log-prob is the trainer's. */
static void test_plain_sampling(void)
{
    enum { STEP = 5 };
    Model m = plain_pair();
    int ended = 0, cut = 0;
    plain_prompts(STEP);
    for (int i = 0; i < PLAIN_GROUPS * PLAIN_M; i++) {
        int k = i / PLAIN_M, n = 0;
        PlainResponse r = plain_response(k, i % PLAIN_M);
        if (i % PLAIN_M == 0)
            plain_sample(k, STEP);
        if (!CHECK(*r.length > PLAIN_PROMPT && *r.length <= PLAIN_N, "response %d has %d tokens",
                   i, *r.length - PLAIN_PROMPT))
            continue;
        for (int t = PLAIN_PROMPT; t < *r.length; t++, n++) {
            double u = uniform(philox(PLAIN_SEED, STREAM_SAMPLE, STEP,
                                      (uint32_t)(STEP * PLAIN_GROUPS + k),
                                      (uint32_t)(i % PLAIN_M), (uint32_t)n));
            double from = 0, to;
            int y = 0;
            plain_predict(k, i % PLAIN_M, t);
            for (to = r.p[t * PLAIN_VOCAB]; to <= u && y < PLAIN_VOCAB - 1;) {
                from = to;
                to += r.p[t * PLAIN_VOCAB + ++y];
            }
            CHECK(r.token[t] == y, "response %d, token %d is %d; %g is in %d's interval, %g to %g",
                  i, n, r.token[t], u, y, from, to);
            CHECK(y != PLAIN_END || t == *r.length - 1, "response %d goes on after its END", i);
        }
        ended += r.token[*r.length - 1] == PLAIN_END;
        cut += *r.length == PLAIN_N;
        CHECK(r.token[*r.length - 1] == PLAIN_END || *r.length == PLAIN_N,
              "response %d stops after %d tokens, without END", i, n);
    }
    CHECK(ended > 2 && cut > 2, "%d responses ended, %d were cut off", ended, cut);
    plain_forward();
    for (int i = 0; i < PLAIN_GROUPS * PLAIN_M; i++) {
        PlainResponse r = plain_response(i / PLAIN_M, i % PLAIN_M);
        for (int t = PLAIN_PROMPT; t < *r.length; t++)
            CHECK(fabs(r.logprob[t] - r.logprob_old[t]) < 1e-12,
                  "response %d, token %d: log p_old is %g, and in training log p is %g", i,
                  t - PLAIN_PROMPT, r.logprob_old[t], r.logprob[t]);
    }
    model_free(&m);
}

/* ---------------------------------------------------------------- the feature of a token */

enum { FEATURE_AT = PLAIN_PROMPT + 3 }; /* the last of four tokens */

static double feature_logprob(void)
{
    PlainResponse r = plain_response(0, 0);
    plain_predict(0, 0, FEATURE_AT);
    return log(r.p[FEATURE_AT * PLAIN_VOCAB + r.token[FEATURE_AT]]);
}

/* phi = T dlog p / dh for every token that could come last; its mean over the policy is 0. */
static void test_plain_feature(void)
{
    Model m = plain_pair();
    PlainResponse r = plain_response(0, 0);
    double mean[PLAIN_D] = {0}, zero[PLAIN_D] = {0}, expected[PLAIN_D];
    plain_prompts(0);
    tree_tokens(r.token + PLAIN_PROMPT, 3, PLAIN_VOCAB, 0, 1);
    *r.length = FEATURE_AT + 1;
    for (int y = 0; y < PLAIN_VOCAB; y++) {
        const double *phi = r.phi + FEATURE_AT * PLAIN_D;
        char what[64];
        snprintf(what, sizeof what, "phi of token %d", y);
        r.token[FEATURE_AT] = y;
        plain_forward();
        double p = exp(r.logprob[FEATURE_AT]);
        for (int e = 0; e < PLAIN_D; e++)
            mean[e] += p * phi[e];
        differences_of(feature_logprob, r.h + (FEATURE_AT - 1) * PLAIN_D, PLAIN_D, expected);
        for (int e = 0; e < PLAIN_D; e++)
            expected[e] *= PLAIN_TEMPERATURE;
        check_numbers(what, phi, expected, PLAIN_D);
    }
    check_numbers("the mean of phi over the policy", mean, zero, PLAIN_D);
    model_free(&m);
}

/* ---------------------------------------------------------------- the feature of a response */

/* Phi of responses of 1 to 5 tokens; cosines of 3-4-5 triangles and of a Phi that vanishes. */
static void test_plain_sequence_feature(void)
{
    static const double direction[PLAIN_M][2] = {{3, 4}, {0.4, 0.3}, {-30, -40}, {0, 0}, {-4, 3}};
    static const double S[PLAIN_M * PLAIN_M] = {
        1, 0.96, -1, 0, 0,   0.96, 1, -0.96, 0, -0.28,   -1, -0.96, 1, 0, 0,
        0, 0, 0, 0, 0,   0, -0.28, 0, 0, 1,
    };
    plain_begin(0, 0);
    for (int k = 0; k < PLAIN_M; k++) {
        PlainResponse r = plain_response(0, k);
        double mean[PLAIN_D] = {0};
        char what[64];
        *r.prompt = PLAIN_PROMPT;
        *r.length = PLAIN_PROMPT + 1 + k;
        for (int i = 0; i < PLAIN_N * PLAIN_D; i++)
            r.phi[i] = noise_d(1 + (uint32_t)k, i);
        for (int t = PLAIN_PROMPT; t < *r.length; t++)
            for (int e = 0; e < PLAIN_D; e++)
                mean[e] += r.phi[t * PLAIN_D + e] / (1 + k);
        for (int e = 0; e < PLAIN_D; e++)
            r.Phi[e] = 7;
        snprintf(what, sizeof what, "Eq 8: Phi, the mean of %d vectors", 1 + k);
        plain_sequence_feature(0, k);
        check_numbers(what, r.Phi, mean, PLAIN_D);
    }
    for (int k = 0; k < PLAIN_M; k++)
        for (int e = 0; e < PLAIN_D; e++)
            plain_response(0, k).Phi[e] = e < 2 ? direction[k][e] : 0;
    for (int i = 0; i < PLAIN_M * PLAIN_M; i++)
        plain_group(0).S[i] = (double)NAN;
    plain_cosines(0);
    check_numbers("Eq 9: S", plain_group(0).S, S, PLAIN_M * PLAIN_M);
}

/* ---------------------------------------------------------------- novelty */

/* nu and nubar of five responses: 0 and 1 have the cosine s, the others are at right angles. */
static void check_novelty(const char *what, double s, const double *reward, const double *nu,
                          const double *nubar)
{
    PlainGroup g = plain_group(0);
    char text[96];
    plain_begin(0, 0);
    for (int i = 0; i < PLAIN_M * PLAIN_M; i++)
        g.S[i] = i % (PLAIN_M + 1) == 0; /* the diagonal */
    g.S[1] = g.S[PLAIN_M] = s;
    if (isnan(s)) /* response 0 has no direction */
        g.S[0] = g.S[1] = g.S[PLAIN_M] = 0;
    for (int i = 0; i < PLAIN_M; i++) {
        g.reward[i] = reward[i];
        g.nu[i] = g.nubar[i] = (double)NAN;
    }
    plain_novelty(0);
    snprintf(text, sizeof text, "Eq 10-11: nu, %s", what);
    check_numbers(text, g.nu, nu, PLAIN_M);
    snprintf(text, sizeof text, "nubar, %s", what);
    check_numbers(text, g.nubar, nubar, PLAIN_M);
}

static void test_plain_novelty(void)
{
    const double e = exp(1), right[] = {1, 1, 1, 1, 1}, one_wrong[] = {1, -1, 1, 1, 1};
    const double zero[] = {0, 0, 0, 0, 0}, news[] = {1, 1, 1, 1, 1}, last[] = {0, 0, 1, 1, 1};
    const double half[] = {0.9375, 0.9375, 1, 1, 1}, copies[] = {0.75, 0.75, 1, 1, 1};
    const double wrong_copy[] = {1 - 1 / e / (3 * e + 1 / e), 0.75, 1, 1, 1};
    const double between[] = {(wrong_copy[0] - 0.75) / 0.25, 0, 1, 1, 1}, none[] = {0, 1, 1, 1, 1};
    const double near[] = {1 - 1e-8 / 4, 1 - 1e-8 / 4, 1, 1, 1};
    check_novelty("two copies among five right responses", 1, right, copies, last);
    check_novelty("two opposite directions", -1, right, copies, last);
    check_novelty("two with cosine 0.5", 0.5, right, half, last);
    check_novelty("a wrong copy of a right response", 1, one_wrong, wrong_copy, between);
    check_novelty("all at right angles", 0, right, news, zero);
    check_novelty("a difference of rounding", 1e-4, right, near, zero);
    check_novelty("one without a direction", (double)NAN, right, none, none);
}

/* ---------------------------------------------------------------- shaping */

/* Responses 0 and 1 are copies, the others at right angles (`alike`: all are copies). */
static void check_shaping(const char *what, bool alike, const double *reward, const double *shaped,
                          const double *advantage)
{
    PlainGroup g = plain_group(0);
    char text[96];
    plain_begin(0, 0);
    for (int i = 0; i < PLAIN_M; i++) {
        for (int e = 0; e < PLAIN_D; e++)
            plain_response(0, i).Phi[e] = e == (alike ? 0 : imax(0, i - 1));
        g.reward[i] = reward[i];
        g.nu[i] = g.nubar[i] = g.shaped[i] = g.advantage[i] = (double)NAN;
    }
    plain_advantages(0);
    snprintf(text, sizeof text, "Eq 12-13: r~, %s", what);
    check_numbers(text, g.shaped, shaped, PLAIN_M);
    snprintf(text, sizeof text, "Eq 2: A, %s", what);
    for (int i = 0; i < PLAIN_M; i++)
        CHECK(fabs(g.advantage[i] - advantage[i]) < 2e-4, "%s: response %d has %g, not %g", text, i,
              g.advantage[i], advantage[i]);
}

static void test_plain_shaping(void)
{
    const double right[] = {1, 1, 1, 1, 1}, wrong[] = {-1, -1, -1, -1, -1}, zero[5] = {0};
    const double up[] = {1, 1, 1.5, 1.5, 1.5}, less[] = {-1, -1, -0.5, -0.5, -0.5};
    const double part[] = {-1.22474, -1.22474, 0.81650, 0.81650, 0.81650};
    const double some[] = {1, 1, 1, -1, -1}, mixed[] = {1, 1, 1.5, -0.5, -0.5};
    const double of_mixed[] = {0.5976143, 0.5976143, 1.1952286, -1.1952286, -1.1952286};
    const double huge[] = {5, 5, 5, -5, -5}, cut[] = {3, 3, 3, 3, 3};
    check_shaping("all right", false, right, up, part);
    check_shaping("all wrong: novel ones lose less", false, wrong, less, part);
    check_shaping("three right", false, some, mixed, of_mixed);
    check_shaping("all alike and right", true, right, right, zero);
    check_shaping("rewards of 5 and -5", false, huge, cut, zero);
    const double low[] = {-5, -5, -5, -5, -5}, floor_of[] = {-3, -3, -3, -3, -3};
    const double near[] = {1, 1, 1, 1, 1.0000002};
    check_shaping("rewards of -5, all alike", true, low, floor_of, zero);
    check_shaping("rewards that differ by rounding", true, near, near, zero);
}

/* ---------------------------------------------------------------- the clip */

/* Eq 3 for one token, by its definition. */
static double clip_surrogate(double logprob, double logprob_old, double A)
{
    double rho = exp(logprob - logprob_old);
    if (A > 0)
        return -A * fmin(rho, 1 + PLAIN_CLIP);
    return -A * fmax(rho, 1 - PLAIN_CLIP);
}

/* Every response has an advantage, every token a ratio: below, within and above the clip. */
static void test_plain_clip(void)
{
    static const double A[PLAIN_M] = {-1.5, -0.3, 0, 0.4, 1.5};
    enum { EACH = 13, ALL_TOKENS = 100 };
    double expected = 0;
    plain_begin(0, 0);
    for (int k = 0; k < PLAIN_M; k++) {
        PlainResponse r = plain_response(0, k);
        plain_group(0).advantage[k] = A[k];
        *r.prompt = PLAIN_PROMPT;
        *r.length = PLAIN_PROMPT + EACH;
        for (int t = PLAIN_PROMPT; t < *r.length; t++) {
            r.logprob_old[t] = -1 + 0.1 * noise_d(9, t);
            r.logprob[t] = r.logprob_old[t] + 0.1 * (t - PLAIN_PROMPT - EACH / 2);
            r.coef[t] = (double)NAN;
            expected += clip_surrogate(r.logprob[t], r.logprob_old[t], A[k]) / ALL_TOKENS;
        }
    }
    double loss = plain_clipped_loss(0, ALL_TOKENS);
    CHECK(fabs(loss - expected) < 1e-9, "Eq 3: this group's part of the loss is %g, not %g", loss,
          expected);
    for (int k = 0; k < PLAIN_M; k++) {
        PlainResponse r = plain_response(0, k);
        for (int t = PLAIN_PROMPT; t < *r.length; t++) {
            double old = r.logprob_old[t], up = clip_surrogate(r.logprob[t] + 1e-5, old, A[k]);
            double down = clip_surrogate(r.logprob[t] - 1e-5, old, A[k]);
            double slope = (up - down) / 2e-5 / ALL_TOKENS;
            CHECK(fabs(r.coef[t] - slope) < 1e-9, "A %g, rho %.3f: coef is %g, not %g", A[k],
                  exp(r.logprob[t] - old), r.coef[t], slope);
        }
    }
}

#endif
