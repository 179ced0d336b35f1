/* check.h: what every test stands on: checks that count, files of its own, commands run as a user
 * runs them (cli runs one in a process of its own), distances, values out of files. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#define G2RL_TEST /* hides main */
#include "../g2rl.c"

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

/* A file of tests/, or else of ../shared/data. */
static bool vectors(Path *p, const char *below)
{
    *p = path_join("tests", below);
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

/* The numbers of threads that must make no difference: fewer and more than there may be cores. */
static const int THREADS[] = {1, 2, 3, 7};
enum { N_THREADS = sizeof THREADS / sizeof *THREADS };

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
    execvp(w->argv[0], w->argv);
    _exit(127);
}

/* The words of `g2rl <words>`, for this program; first the emulator that runs it, if $G2RL_RUNNER
 * names one (the kernel itself may not know how to run a program of another machine). */
static void cut_words(Words128 *w, const char *fmt, va_list ap)
{
    char *runner = getenv("G2RL_RUNNER");
    w->argc = 0;
    if (runner)
        w->argv[w->argc++] = runner;
    w->argv[w->argc++] = (char *)self;
    w->argv[w->argc++] = (char *)"--cli";
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

static void st_read_f32(const StTensor *t, float *out) { st_read_part(t, 0, st_values(t), out); }

static void st_read_i32(const StTensor *t, int32_t *out)
{
    if (t->dtype != ST_I32)
        die("%s: tensor %s has dtype %s; expected I32", t->path, st_label(t->name).s,
            st_dtypes[t->dtype].name);
    memcpy(out, t->data, t->bytes);
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

#endif
