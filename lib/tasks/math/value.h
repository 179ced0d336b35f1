/* value.h: evaluates expressions and compares their values.
 *
 *   item_value(item, point)   the value at one of a few fixed points
 *   same_value(x, y)          equal at all of them
 *
 * A value is held twice:
 *
 *   exactly   in the integers modulo P = 2^61 - 1 with i adjoined (a field, as P = 3 mod 4), where
 *             pi, e and variables are fixed random residues. For fractions p/q and r/s with
 *             |ps - qr| < P this is exact; beyond that, and for polynomials (Schwartz-Zippel),
 *             unequal ones pass about 1 time in 2^61, and only if the doubles agree too.
 *   as complex doubles, where a root, logarithm, sine or fractional power leaves that field: equal
 *             within 1e-12 at three positive points and, where both are real, at two with mixed
 *             signs, which refuse most of what holds for positive numbers only: sqrt(x^2) = x. */
#ifndef VALUE_H
#define VALUE_H

#include "expression.h" /* defines: Expr, Node */

#include <complex.h>
#undef I

/* ---------------------------------------------------------------- residues */

#define RESIDUE_PRIME (((uint64_t)1 << 61) - 1)

typedef struct {
    uint64_t re, im; /* both below P */
} Residue;

static uint64_t mod_add(uint64_t a, uint64_t b) { return (a + b) % RESIDUE_PRIME; }
static uint64_t mod_negate(uint64_t a) { return a ? RESIDUE_PRIME - a : 0; }
static uint64_t mod_multiply(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 Wide;
    Wide product = (Wide)a * b;
    return mod_add((uint64_t)(product & RESIDUE_PRIME), (uint64_t)(product >> 61));
}

static Residue residue_of(int64_t n)
{
    uint64_t size = (n < 0 ? 0 - (uint64_t)n : (uint64_t)n) % RESIDUE_PRIME;
    return (Residue){n < 0 ? mod_negate(size) : size, 0};
}
static bool residue_equal(Residue a, Residue b) { return a.re == b.re && a.im == b.im; }
static Residue residue_add(Residue a, Residue b)
{
    return (Residue){mod_add(a.re, b.re), mod_add(a.im, b.im)};
}
static Residue residue_negate(Residue a) { return (Residue){mod_negate(a.re), mod_negate(a.im)}; }
static Residue residue_multiply(Residue a, Residue b)
{
    uint64_t re = mod_add(mod_multiply(a.re, b.re), mod_negate(mod_multiply(a.im, b.im)));
    return (Residue){re, mod_add(mod_multiply(a.re, b.im), mod_multiply(a.im, b.re))};
}

static Residue residue_power(Residue base, uint64_t n)
{
    Residue power = {1, 0};
    for (; n; n >>= 1, base = residue_multiply(base, base))
        if (n & 1)
            power = residue_multiply(power, base);
    return power;
}

/* 1 / (a + bi) = (a - bi) / (a^2 + b^2), and 1/n = n^(P-2). */
static Residue residue_inverse(Residue a)
{
    uint64_t norm = mod_add(mod_multiply(a.re, a.re), mod_multiply(a.im, a.im));
    Residue inverse = residue_power((Residue){norm, 0}, RESIDUE_PRIME - 2);
    return residue_multiply((Residue){a.re, mod_negate(a.im)}, inverse);
}

/* ---------------------------------------------------------------- values */

typedef struct {
    double complex z;
    double size;  /* the error of z is about 2^-53 of this: large terms may have cancelled */
    Residue r;    /* where exact */
    bool exact, defined;
    bool infinite; /* \infty, its sign in z */
} Value;

enum { POSITIVE_POINTS = 3, VALUE_POINTS = 5 };

/* The context of an evaluation. */
typedef struct {
    const Expr *e;
    int point;
    bool lower;       /* \pm is minus */
    bool degrees;     /* inside a sine: 30^\circ is pi/6; elsewhere degrees are a unit */
    bool plain_bases; /* 52_8 is 52, as the other side has no base */
    bool plain_percents; /* 50% is 50 */
} Env;

/* C11's CMPLX, which not every compiler has: a complex is laid out as two doubles. */
static double complex complex_of(double re, double im)
{
    double parts[2] = {re, im};
    double complex z;
    memcpy(&z, parts, sizeof z);
    return z;
}

/* No negative zeros: csqrt(-1 - 0i) is -i. */
static Value value_new(double complex z, double size, Residue r, bool exact)
{
    z = complex_of(creal(z) + 0.0, cimag(z) + 0.0);
    return (Value){z, fmax(size, cabs(z)), r, exact, true, false};
}
static Value value_int(int64_t n) { return value_new((double)n, 0, residue_of(n), true); }
static Value value_real(double complex z, double size)
{
    return value_new(z, size, (Residue){0, 0}, false);
}
static Value value_none(void) { return (Value){.defined = false}; }
static bool is_finite(Value a) { return a.defined && !a.infinite; }

static Value value_negate(Value a)
{
    a.z = complex_of(-creal(a.z) + 0.0, -cimag(a.z) + 0.0);
    a.r = residue_negate(a.r);
    return a;
}

static Value value_add(Value a, Value b)
{
    if (!is_finite(a) || !is_finite(b))
        return value_none();
    return value_new(a.z + b.z, a.size + b.size, residue_add(a.r, b.r), a.exact && b.exact);
}

static Value value_multiply(Value a, Value b)
{
    if (!is_finite(a) || !is_finite(b))
        return value_none();
    return value_new(a.z * b.z, cabs(a.z) * b.size + cabs(b.z) * a.size,
                     residue_multiply(a.r, b.r), a.exact && b.exact);
}

static bool value_is_zero(Value a)
{
    return a.exact ? residue_equal(a.r, (Residue){0, 0}) : cabs(a.z) <= 1e-14 * a.size;
}

static Value value_inverse(Value a)
{
    if (!is_finite(a) || value_is_zero(a))
        return value_none();
    Residue r = a.exact ? residue_inverse(a.r) : a.r;
    return value_new(1 / a.z, a.size / (cabs(a.z) * cabs(a.z)), r, a.exact);
}

/* Is it a whole number *n of at most 2^53? */
static bool value_whole(Value a, int64_t *n)
{
    double x = creal(a.z);
    if (!a.defined || !a.exact || !(fabs(x) <= 0x1p53))
        return false;
    *n = (int64_t)rint(x);
    return residue_equal(a.r, residue_of(*n));
}

/* A fixed random residue, and a double from 0.4 to 3, for a name; negative at one of the last two
 * points. Constants use point 0. */
static Value value_of_hash(uint64_t hash, int point)
{
    uint64_t words[2] = {hash, (uint64_t)point}, bits = hash64(words, sizeof words);
    bits = hash64(&bits, sizeof bits);
    double x = 0.4 + 2.6 * (double)(bits >> 11) * 0x1p-53;
    if (point >= POSITIVE_POINTS && (hash + (uint64_t)point) % 2)
        x = -x;
    return value_new(x, 0, (Residue){bits % RESIDUE_PRIME, 0}, true);
}

static uint64_t name_hash(const Node *node)
{
    uint64_t hash = (uint64_t)node->n;
    for (int i = 0; i < node->n; i++) {
        hash = hash * 257 + (unsigned char)node->s[i];
        hash = hash64(&hash, sizeof hash);
    }
    return hash;
}

static Value value_of_name(const Env *env, const Node *node)
{
    double constant = text_is(node->s, node->n, "pi")  ? 3.14159265358979323846
                      : text_is(node->s, node->n, "e") ? 2.71828182845904523536
                                                       : 0;
    if (text_is(node->s, node->n, "infty"))
        return (Value){.z = HUGE_VAL, .defined = true, .infinite = true};
    if (text_is(node->s, node->n, "i"))
        return value_new(complex_of(0, 1), 1, (Residue){0, 1}, true);
    Value v = value_of_hash(name_hash(node), constant > 0 ? 0 : env->point);
    if (constant > 0)
        v.z = v.size = constant;
    return v;
}

/* Digits with at most one point: a fraction over a power of ten. */
static Value value_of_digits(const char *s, int n)
{
    double x = 0;
    Residue r = {0, 0}, ten = {10, 0};
    int decimals = 0;
    bool point = false;
    for (int i = 0; i < n; i++) {
        if (s[i] == '.') {
            point = true;
            continue;
        }
        x = x * 10 + (s[i] - '0');
        r = residue_add(residue_multiply(r, ten), residue_of(s[i] - '0'));
        decimals += point;
    }
    r = residue_multiply(r, residue_inverse(residue_power(ten, (uint64_t)decimals)));
    return value_new(x / pow(10, decimals), 0, r, true);
}

static Value value_of(const Env *env, int node);

/* 0.1\overline{6} = 0.1 + 6 / (10 * 9) */
static Value value_repeating(const Node *start, const Node *again)
{
    const char *point = memchr(start->s, '.', start->n);
    int decimals = point ? start->n - 1 - (int)(point - start->s) : 0;
    if (decimals > 100 || again->n > 15)
        return value_none();
    Residue ten = {10, 0};
    Value shift = value_new(pow(10, decimals), 0, residue_power(ten, (uint64_t)decimals), true);
    Value nines = value_int((int64_t)pow(10, again->n) - 1);
    Value part = value_multiply(value_of_digits(again->s, again->n),
                                value_inverse(value_multiply(shift, nines)));
    return value_add(value_of_digits(start->s, start->n), part);
}

/* 52_8 is 52 times a random value of its base, so that it equals only itself. */
static Value value_in_base(const Env *env, const Node *node)
{
    Value base = value_of(env, node->child), digits = value_of_digits(node->s, node->n);
    int64_t b;
    if (!value_whole(base, &b) || b < 2)
        return value_none();
    if (b == 10 || env->plain_bases)
        return digits;
    return value_multiply(digits, value_of_hash((uint64_t)b, 0));
}

static double complex power_whole(double complex base, int64_t n)
{
    double complex power = 1;
    for (uint64_t k = n < 0 ? 0 - (uint64_t)n : (uint64_t)n; k; k >>= 1, base *= base)
        if (k & 1)
            power *= base;
    return n < 0 ? 1 / power : power;
}

static Value value_power(Value a, Value b)
{
    int64_t n = 0;
    bool whole = value_whole(b, &n);
    if (!is_finite(a) || !is_finite(b))
        return value_none();
    if (value_is_zero(a) && !(creal(b.z) > 0))
        return whole && n == 0 ? value_int(1) : value_none();
    double relative = a.size / fmax(cabs(a.z), 1e-300);
    if (whole) {
        Residue r = residue_power(a.r, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
        double complex z = llabs(n) <= 4096 ? power_whole(a.z, n) : cpow(a.z, (double)n);
        r = n < 0 && a.exact ? residue_inverse(r) : r;
        return value_new(z, cabs(z) * relative * fmax(1, fabs((double)n)), r, a.exact);
    }
    /* An odd root of a negative number is the real one. */
    double root = 1 / creal(b.z);
    bool odd = fabs(cimag(b.z)) <= 0 && fabs(root - rint(root)) < 1e-9 &&
               fabs(fmod(rint(root), 2)) > 0.5;
    bool negative = odd && fabs(cimag(a.z)) <= 0 && creal(a.z) < 0;
    double complex z = negative ? -pow(-creal(a.z), creal(b.z)) : cpow(a.z, b.z);
    double size = cabs(z) * (relative * cabs(b.z) + b.size * fabs(log(fmax(cabs(a.z), 1e-300))));
    return value_real(z, size);
}

/* ---------------------------------------------------------------- functions */

static double complex fn_cot(double complex z) { return 1 / ctan(z); }
static double complex fn_sec(double complex z) { return 1 / ccos(z); }
static double complex fn_csc(double complex z) { return 1 / csin(z); }

static const struct {
    const char *name;
    double complex (*of)(double complex);
} MATH_FUNCTIONS[] = {
    {"sqrt", csqrt},   {"ln", clog},      {"exp", cexp},     {"sin", csin},   {"cos", ccos},
    {"tan", ctan},     {"cot", fn_cot},   {"sec", fn_sec},   {"csc", fn_csc}, {"arcsin", casin},
    {"arccos", cacos}, {"arctan", catan}, {"sinh", csinh},   {"cosh", ccosh}, {"tanh", ctanh},
};

/* n!, and n over k. From 171! on only the residue tells two apart. */
static Value value_choose(Value a, Value b, bool factorial)
{
    enum { MOST = 3000, MOST_CHOSEN = 170 }; /* factors */
    int64_t n, k;
    Value product = value_int(1);
    if (!value_whole(a, &n) || (!factorial && !value_whole(b, &k)) || n < 0)
        return value_none();
    if (!factorial && (k < 0 || k > n))
        return value_int(0);
    k = factorial ? n : k < n - k ? k : n - k;
    if (k > (factorial ? MOST : MOST_CHOSEN))
        return value_none();
    for (int64_t i = factorial ? 2 : 1; i <= k; i++) {
        product = value_multiply(product, value_int(factorial ? i : n - k + i));
        product = factorial ? product : value_multiply(product, value_inverse(value_int(i)));
    }
    return product;
}

/* |x|, floor and ceiling. */
static Value value_rounded(Value a, char name)
{
    double x = creal(a.z);
    if (!(cabs(a.z) < HUGE_VAL))
        return value_none();
    if (fabs(cimag(a.z)) > 1e-12 * a.size || (name != 'a' && !(fabs(x) < 0x1p52)))
        return name == 'a' ? value_real(cabs(a.z), a.size) : value_none();
    if (name == 'a')
        return x < 0 ? value_negate(a) : a;
    int64_t n;
    if (value_whole(a, &n))
        return a;
    return value_int((int64_t)(name == 'f' ? floor(x) : ceil(x)));
}

static Value value_function(const Env *env, const Node *node)
{
    Env inside = *env;
    const char *s = node->s;
    int n = node->n, second = env->e->node[node->child].next;
    inside.degrees = text_among(s, n, "sin cos tan cot sec csc ");
    Value a = value_of(&inside, node->child);
    if (text_is(s, n, "!"))
        return value_choose(a, a, true);
    if (text_is(s, n, "binom"))
        return value_choose(a, value_of(env, second), false);
    if (!is_finite(a))
        return value_none();
    if (text_among(s, n, "abs floor ceil "))
        return value_rounded(a, *s);
    if (text_among(s, n, "ln log ") && value_is_zero(a))
        return value_none();
    if (text_is(s, n, "log")) {
        Value base = second ? value_of(env, second) : value_int(10);
        if (!is_finite(base) || value_is_zero(base) || cabs(base.z - 1) < 1e-12)
            return value_none();
        double complex z = clog(a.z) / clog(base.z);
        return value_real(z, fmax(cabs(z), a.size / cabs(a.z)));
    }
    for (size_t i = 0; i < sizeof MATH_FUNCTIONS / sizeof *MATH_FUNCTIONS; i++)
        if (text_is(s, n, MATH_FUNCTIONS[i].name)) {
            double complex z = MATH_FUNCTIONS[i].of(a.z);
            double relative = a.size / fmax(cabs(a.z), 1e-300);
            bool root = text_is(s, n, "sqrt"), zero = root && value_is_zero(a);
            return zero ? value_int(0) : value_real(z, root ? cabs(z) * relative
                                                            : fmax(1, cabs(z)) * fmax(1, a.size));
        }
    return value_none();
}

/* The value of a tree; undefined for text, tuples, relations, 1/0. */
static Value value_of(const Env *env, int at)
{
    const Node *all = env->e->node, *node = &all[at];
    Value v = value_int(node->kind == N_PRODUCT);
    switch (node->kind) {
    case N_NUMBER: return value_of_digits(node->s, node->n);
    case N_REPEATING: return value_repeating(&all[node->child], &all[node->last]);
    case N_BASE: return value_in_base(env, node);
    case N_NAME: return value_of_name(env, node);
    case N_SUM:
        for (int c = node->child; c; c = all[c].next)
            v = value_add(v, value_of(env, c));
        return v;
    case N_PRODUCT:
        for (int c = node->child; c; c = all[c].next)
            v = value_multiply(v, value_of(env, c));
        return v;
    case N_NEGATE: return value_negate(value_of(env, node->child));
    case N_EITHER:
        v = value_of(env, node->child);
        return (node->open == '-') != env->lower ? value_negate(v) : v;
    case N_INVERSE: return value_inverse(value_of(env, node->child));
    case N_POWER: return value_power(value_of(env, node->child), value_of(env, node->last));
    case N_FUNCTION: return value_function(env, node);
    case N_UNIT: return value_of(env, node->child);
    case N_DEGREE:
        v = value_of(env, node->child);
        return env->degrees && v.defined ? value_real(v.z * (3.14159265358979323846 / 180), v.size)
                                         : v;
    case N_PERCENT:
        v = value_of(env, node->child);
        return env->plain_percents ? v : value_multiply(v, value_inverse(value_int(100)));
    default: return value_none();
    }
}

/* ---------------------------------------------------------------- equal values */

/* A subtree to compare, with one sign for its \pm, times a factor. */
typedef struct {
    const Expr *e;
    int node, factor; /* factor: a subtree that multiplies it; 0: none */
    int level;        /* depth in brackets and relations */
    bool lower, plain_bases, plain_percents;
} Item;

static const Node *item_node(Item x) { return &x.e->node[x.node]; }
static Item item_of(const Expr *e, int node) { return (Item){.e = e, .node = node}; }
static Item item_at(Item x, int node)
{
    x.node = node;
    x.level++;
    return x;
}

static Value item_value(Item x, int point)
{
    Env env = {x.e, point, x.lower, false, x.plain_bases, x.plain_percents};
    Value v = value_of(&env, x.node);
    return x.factor ? value_multiply(v, value_of(&env, x.factor)) : v;
}

/* The difference of the values of two nodes. */
static Value item_difference(Item x, int a, int b, int point)
{
    x.node = a;
    Value value = item_value(x, point);
    x.node = b;
    return value_add(value, value_negate(item_value(x, point)));
}

/* The digits of a decimal after its point; -1 for what is not a decimal. */
static int decimals(Item x)
{
    const Node *node = item_node(x);
    if (node->kind == N_NEGATE)
        node = &x.e->node[node->child];
    const char *point = node->kind == N_NUMBER ? memchr(node->s, '.', node->n) : NULL;
    return point && !x.factor ? node->n - 1 - (int)(point - node->s) : -1;
}

/* Is a decimal of nine digits or so the rounding of a value: 3.6666666667 of 11/3? */
static bool shortened(Item x, Value exact, Value decimal)
{
    int after = decimals(x);
    double size = cabs(exact.z), room = 0.99 * pow(10, -after) + 1e-14 * size;
    if (after <= 0 || !(size < HUGE_VAL)) /* 2^{4181} is infinite here */
        return false;
    return room <= 1e-8 * size && cabs(exact.z - decimal.z) <= room;
}

/* Equal within `relative` and the rounding error of cancellation. False beyond 1e300, and where
 * nearly all cancelled, unless the other side is exactly 0. */
static bool values_close(Value a, Value b, double relative)
{
    double largest = fmax(cabs(a.z), cabs(b.z)), size = fmax(a.size, b.size);
    double room = relative * largest + 1e-14 * size;
    bool zero = (a.exact && value_is_zero(a)) || (b.exact && value_is_zero(b));
    if (!(largest < 1e300) || !(size < 1e300) || room > (zero ? 1e-10 : 1000 * relative * largest))
        return false;
    return cabs(a.z - b.z) <= room;
}

/* Equal residues, and doubles that agree (P + 1 has the residue of 1). */
static bool values_equal(Value a, Value b)
{
    double largest = fmax(cabs(a.z), cabs(b.z)), size = fmax(a.size, b.size);
    bool unknown = !(largest < 1e300) || !(size < 1e300);
    return residue_equal(a.r, b.r) &&
           (unknown || cabs(a.z - b.z) <= 1e-6 * largest + 1e-10 * size);
}

/* Are a of x and b of y equal at one point? */
static bool same_at(Item x, Item y, Value a, Value b)
{
    if (a.infinite || b.infinite)
        return a.infinite && b.infinite && (creal(a.z) > 0) == (creal(b.z) > 0);
    if (shortened(y, a, b) || shortened(x, b, a))
        return true;
    return a.exact && b.exact ? values_equal(a, b) : values_close(a, b, 1e-12);
}

/* Equal at every point; those with mixed signs count where both values are real or exact. */
static bool same_value(Item x, Item y)
{
    for (int k = 0; k < VALUE_POINTS; k++) {
        Value a = item_value(x, k), b = item_value(y, k);
        bool real = fabs(cimag(a.z)) <= 1e-12 * a.size && fabs(cimag(b.z)) <= 1e-12 * b.size;
        if (k >= POSITIVE_POINTS && !(a.defined && b.defined && (real || (a.exact && b.exact))))
            continue;
        if (!a.defined || !b.defined || !same_at(x, y, a, b))
            return false;
    }
    return true;
}

#endif
