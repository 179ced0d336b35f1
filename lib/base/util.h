/* util.h: what every other file uses. Nothing here knows of models or reinforcement learning.
 *
 *   die, warn                  one line on stderr; die ends the process with status 1, after
 *                              at_error has had its turn
 *   xmalloc, floats_new, ...   memory, or the end of the program; APPEND to an array
 *   Arena                      a training step's memory: reserved once, marked and reset
 *   Buf                        text that grows
 *   philox, uniform, below     counter-based random numbers: a draw depends on its counter alone
 *   read_file, AtomicFile      whole files in; whole files, or none, out; demand_output
 *   read_text_file             a whole file of text, without what Windows' editors add
 *   now_seconds, lap, hash64 */
#ifndef UTIL_H
#define UTIL_H

#if defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ < 8 && !defined(__wasm__) /* the page's */
#error "g2rl needs a 64-bit build: models and files have more bytes than 32 bits can count"
#endif

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* clock_gettime, fsync and mkdir under -std=c11 */
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "available.h" /* defines: memory_available, processors_available */

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/* A loop over independent outputs, spread over `threads` threads: the only use of threads. No two
 * threads write to one place:
 *   - iteration i writes only row, block, tile or group i of arrays that existed before the loop
 *     (each loop says which, where its lines do not show it), or variables of its own;
 *   - scratch memory comes from the arena of the worker with this thread's index, or of worker i.
 *     A nested loop has one thread, whose index would be 0 again: `threads` of an arena is 1 while
 *     workers run in parallel, and 1 means the arena's own memory, not worker 0's;
 *   - everything else is only read, and was finished before the loop. A loop ends with a barrier.
 * Reductions run after the loop, in order, on one thread, so that the number of threads changes no
 * bit. `make race` checks the loops. */
enum { MOST_THREADS = 1024 };
#ifdef _OPENMP
#include <omp.h>
#define PRAGMA(x) _Pragma(#x)
#define PARALLEL_FOR(threads) PRAGMA(omp parallel for schedule(static) num_threads(threads))
#define PARALLEL_FOR_DYNAMIC(threads) \
    PRAGMA(omp parallel for schedule(dynamic, 1) num_threads(threads))
static inline int thread_index(void) { return omp_get_thread_num(); }
#else
#define PARALLEL_FOR(threads) (void)(threads);
#define PARALLEL_FOR_DYNAMIC(threads) (void)(threads);
static inline int thread_index(void) { return 0; }
#endif

/* ---------------------------------------------------------------- messages */

/* Prints one line, whatever it quotes: a control character becomes a ?. */
PRINTF_LIKE(1, 2) static inline void warn(const char *fmt, ...)
{
    char text[3 * 4096]; /* room for two paths */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7F)
            *c = '?';
    fflush(stdout);
    fprintf(stderr, "g2rl: %s\n", text);
}

/* What is done before an error ends the program, such as saving a run; NULL: nothing. */
static void (*at_error)(void);

static inline _Noreturn void end_by_error(void)
{
    void (*last)(void) = at_error;
    at_error = NULL; /* an error in there is the last one */
    if (last)
        last();
    exit(1);
}

#define die(...) (warn(__VA_ARGS__), end_by_error())

/* Formats an error; returns false. */
PRINTF_LIKE(3, 4) static inline bool fail(char *error, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error, size, fmt, ap);
    va_end(ap);
    return false;
}

/* Number i of "a|b|c", up to the | or the end: n bytes. */
static inline const char *choice_name(const char *choices, int i, int *n)
{
    for (; i > 0; i--)
        choices = strchr(choices, '|') + 1;
    *n = strcspn(choices, "|");
    return choices;
}

/* The index of the n bytes at s among "a|b|c"; -1 if they are none of them. */
static inline int choice_index(const char *choices, const char *s, size_t n)
{
    for (int i = 0; *choices; i++) {
        size_t length = strcspn(choices, "|");
        if (length == n && !memcmp(choices, s, n))
            return i;
        choices += length + (choices[length] == '|');
    }
    return -1;
}

static inline bool among(const char *s, const char *choices)
{
    return choice_index(choices, s, strlen(s)) >= 0;
}

static inline int imin(int a, int b) { return a < b ? a : b; }
static inline int imax(int a, int b) { return a > b ? a : b; }
static inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

/* ---------------------------------------------------------------- memory */

static inline void *xrealloc(void *p, size_t bytes)
{
    void *q = realloc(p, bytes ? bytes : 1);
    if (!q)
        die("out of memory: %zu bytes wanted", bytes);
    return q;
}

static inline void *xmalloc(size_t bytes) { return xrealloc(NULL, bytes); }

static inline void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        die("out of memory: %zu x %zu bytes wanted", n, size);
    return p;
}

/* An array with room for one more than its n elements of `size` bytes. Its capacity doubles. */
static inline void *room_for_one(void *p, int n, size_t size)
{
    return n & (n - 1) ? p : xrealloc(p, (n ? 2 * (size_t)n : 1) * size);
}

/* Appends an element to an array of n. */
#define APPEND(array, n, ...) \
    ((array) = room_for_one(array, n, sizeof *(array)), (array)[(n)++] = (__VA_ARGS__))

static inline char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

/* Memory for large arrays, aligned to a cache line; from 8 MiB on huge pages, if the system has
 * them, for fewer TLB misses. NULL if there is none. */
static inline void *large_alloc(size_t bytes)
{
    enum { HUGE_PAGE = 1 << 21 };
    void *p = NULL;
    bool huge = bytes >= 4 * HUGE_PAGE;
    bytes = huge ? (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : bytes + 64;
    if (posix_memalign(&p, huge ? HUGE_PAGE : 64, bytes))
        return NULL;
#ifdef MADV_HUGEPAGE
    if (huge)
        madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

/* n floats, all zero. */
static inline float *floats_new(size_t n)
{
    float *p = large_alloc(n * sizeof(float));
    double bytes = (double)n * sizeof(float), GiB = 1 << 30;
    if (!p || (bytes > 0.25 * GiB && bytes > memory_available()))
        die("out of memory: %.1f GiB wanted, %.1f GiB free", bytes / GiB, memory_available() / GiB);
    return memset(p, 0, n * sizeof(float));
}

/* One block of memory, reserved for the worst case (untouched pages cost nothing) and handed out in
 * order; resetting `used` to an earlier mark frees all that came after. Running out is a bug.
 * An arena belongs to one worker; `threads` may help with that worker's largest loops: 1 where
 * workers run in parallel. */
typedef struct {
    char *base;
    size_t used, capacity;
    size_t most;   /* of a counting arena: the most that was used at a time */
    bool counting; /* see arena_counting */
    int threads;
} Arena;

static inline Arena arena_new(size_t bytes)
{
    bytes = (bytes + 63) / 64 * 64;
    Arena a = {.base = large_alloc(bytes), .capacity = bytes, .threads = 1};
    if (!a.base)
        die("out of memory: %.1f GiB wanted for the working memory; use fewer prompts, rollouts "
            "or tokens, or a smaller --micro-batch", (double)bytes / (1 << 30));
    return a;
}

/* An arena that only counts: it measures how much memory a piece of work lays out, by the code that
 * does. What it hands out is always the same small block, where a list of pointers may be written
 * and nothing be read. */
static inline Arena arena_counting(int threads)
{
    enum { SMALL = 1 << 20 };
    return (Arena){.base = xcalloc(SMALL, 1), .capacity = SIZE_MAX, .counting = true,
                   .threads = threads};
}

static inline void *arena_alloc(Arena *a, size_t count, size_t size)
{
    size_t bytes = (count * size + 63) / 64 * 64;
    if (a->counting) {
        a->used += bytes;
        a->most = a->used > a->most ? a->used : a->most;
        return a->base;
    }
    if (bytes > a->capacity - a->used)
        die("internal error: arena of %zu bytes is full (%zu more wanted)", a->capacity, bytes);
    void *p = a->base + a->used;
    a->used += bytes;
    return p;
}

static inline float *arena_floats(Arena *a, size_t count)
{
    return arena_alloc(a, count, sizeof(float));
}

/* Rows of `width` floats each. */
static inline float *arena_rows(Arena *a, ptrdiff_t rows, ptrdiff_t width)
{
    return arena_floats(a, (size_t)rows * (size_t)width);
}

/* Row r of rows that are n floats apart. */
#define row(x, r, n) ((x) + (ptrdiff_t)(r) * (n))

/* Returns the pages to the system; the contents are lost. */
static inline void arena_release(Arena *a)
{
    a->used = 0;
#ifdef __linux__
    madvise(a->base, a->capacity, MADV_DONTNEED);
#endif
}

static inline void arena_free(Arena *a)
{
    free(a->base);
    *a = (Arena){0};
}

/* What a counting arena has counted; frees it. */
static inline size_t arena_counted(Arena *a)
{
    size_t most = a->most;
    arena_free(a);
    return most;
}

/* ---------------------------------------------------------------- growing text */

typedef struct {
    char *s; /* always ends in NUL once anything was added */
    size_t n, capacity;
} Buf;

static inline void buf_add(Buf *b, const void *bytes, size_t n)
{
    if (b->n + n + 1 > b->capacity) {
        b->capacity = (b->n + n + 1) * 2;
        b->s = xrealloc(b->s, b->capacity);
    }
    if (n)
        memcpy(b->s + b->n, bytes, n);
    b->n += n;
    b->s[b->n] = 0;
}

static inline void buf_str(Buf *b, const char *s) { buf_add(b, s, strlen(s)); }

PRINTF_LIKE(2, 3) static inline void buf_printf(Buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0)
        die("internal error: cannot format '%s'", fmt);
    if ((size_t)n < sizeof small) {
        buf_add(b, small, n);
        return;
    }
    char *big = xmalloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(big, (size_t)n + 1, fmt, ap);
    va_end(ap);
    buf_add(b, big, n);
    free(big);
}

static inline void bufs_free(Buf *const *b)
{
    for (; *b; b++) {
        free((*b)->s);
        **b = (Buf){0};
    }
}

/* buf_free(&a, &b, ...) */
#define buf_free(...) bufs_free((Buf *const[]){__VA_ARGS__, NULL})

/* ---------------------------------------------------------------- random numbers */

/* Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a keyed
 * bijection of a 128-bit counter, without state. The draw for token t of sample i of prompt p at
 * step s is philox(seed, stream, s, p, i, t), in any order of calls. `stream` separates different
 * uses of one seed. */
typedef struct {
    uint32_t r[4];
} Random;

enum { STREAM_INIT = 1, STREAM_DATA, STREAM_SAMPLE, STREAM_SHUFFLE, STREAM_BOOTSTRAP,
       STREAM_ADAPTER };

static inline Random philox(uint64_t seed, uint32_t stream, uint32_t a, uint32_t b, uint32_t c,
                            uint32_t d)
{
    uint32_t x0 = a, x1 = b, x2 = c, x3 = d;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32) ^ stream;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * x0, p1 = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
        x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
        x1 = (uint32_t)p1;
        x3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (Random){{x0, x1, x2, x3}};
}

/* 53 random bits as a double in [0, 1). uniform and below use different words of a draw. */
static inline double uniform(Random r)
{
    uint64_t bits = (uint64_t)r.r[0] << 32 | r.r[1];
    return (double)(bits >> 11) * 0x1p-53;
}

/* A whole number in [0, n): a remainder of 64 random bits, whose bias is below 2^-32. */
static inline uint32_t below(Random r, uint32_t n)
{
    return (uint32_t)(((uint64_t)r.r[2] << 32 | r.r[3]) % n);
}

/* FNV-1a over 64-bit words (the last one zero-padded), then mixed. */
static inline uint64_t hash64(const void *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, (const char *)bytes + i, n - i < 8 ? n - i : 8);
        h = (h ^ word) * 0x100000001b3u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

/* Seconds of a monotonic clock. */
static inline double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds since *since, which is set to now. */
static inline double lap(double *since)
{
    double now = now_seconds(), passed = now - *since;
    *since = now;
    return passed;
}

/* ---------------------------------------------------------------- files */

/* Opens /dev/null in place of a closed stdin, stdout or stderr, in the wrong direction, so that
 * using it fails as before. Otherwise the next file opened would take its number. */
static inline void fill_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            exit(1);
}

/* Dies where stdout could not be written; `all`: flushes it first. */
static inline void demand_output(bool all)
{
    if ((all && fflush(stdout)) || ferror(stdout))
        die("stdout: cannot be written: %s", strerror(errno));
}

typedef struct {
    char s[4096];
} Path;

/* A formatted path; dies where it does not fit. */
PRINTF_LIKE(1, 2) static inline Path path_printf(const char *fmt, ...)
{
    Path p;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(p.s, sizeof p.s, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= (int)sizeof p.s)
        die("%.60s...: the path is longer than %zu bytes", p.s, sizeof p.s);
    return p;
}

static inline Path path_join(const char *dir, const char *name)
{
    return path_printf("%s/%s", dir, name);
}

/* S_IFREG, S_IFDIR, ...; 0 where there is nothing. */
static inline mode_t file_type(const char *path)
{
    struct stat info;
    return stat(path, &info) ? 0 : info.st_mode & S_IFMT;
}

static inline bool is_file(const char *path) { return file_type(path) == S_IFREG; }

static inline bool is_dir(const char *path) { return file_type(path) == S_IFDIR; }

/* Makes a directory and its parents. */
static inline void make_dirs(const char *path)
{
    Path p = path_printf("%s", path);
    for (char *c = p.s; c;) {
        c = strchr(c + (*c != 0), '/');
        if (c)
            *c = 0;
        if (mkdir(p.s, 0777) && errno != EEXIST)
            die("%s: cannot make the directory: %s", p.s, strerror(errno));
        if (c)
            *c = '/';
    }
    if (!is_dir(path))
        die("%s: exists and is not a directory", path);
}

/* Removes a directory of plain files, if it is there. False, with errno, where it stays: it may
 * hold something else, such as a directory. */
static inline bool remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return true;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            unlink(path_join(path, entry->d_name).s);
    closedir(dir);
    return rmdir(path) == 0;
}

/* A file read whole may have 1 GiB: some have no end. */
enum { READ_MOST = 1 << 30 };

/* The whole of a stream, NUL-terminated (the NUL is not counted). The caller frees it. */
static inline char *read_stream(FILE *f, const char *name, size_t *length)
{
    struct stat info;
    Buf b = {0};
    char chunk[65536];
    size_t n = 0;
    bool too_long = !fstat(fileno(f), &info) && info.st_size > READ_MOST;
    buf_add(&b, "", 0);
    while (!too_long && (n = fread(chunk, 1, sizeof chunk, f)) > 0) {
        buf_add(&b, chunk, n);
        too_long = b.n > READ_MOST;
    }
    if (too_long)
        die("%s: is longer than %d bytes", name, READ_MOST);
    if (ferror(f))
        die("%s: cannot be read: %s", name, strerror(errno));
    *length = b.n;
    return b.s;
}

/* The same for a path. A pipe without a writer is taken as empty after a second. */
static inline char *read_file(const char *path, size_t *length)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    FILE *f = fd < 0 ? NULL : fdopen(fd, "rb");
    if (!f)
        die("%s: cannot be opened: %s", path, strerror(errno));
    poll(&ready, 1, 1000);
    fcntl(fd, F_SETFL, 0);
    char *s = read_stream(f, path, length);
    fclose(f);
    return s;
}

/* What the bytes of a file are, by their beginning, where they are not what its name promises; NULL
 * where nothing shows. */
static inline const char *foreign_format(const char *s, size_t n)
{
    static const struct {
        const char *begin, *what;
    } formats[] = {
        {"version https://git-lfs", "a Git LFS pointer, not the file (git lfs pull fetches that)"},
        {"\x1F\x8B", "gzip data"}, {"PK\3\4", "a zip archive"}, {"(\xB5/\xFD", "zstd data"},
        {"\xFD" "7zXZ", "xz data"}, {"PAR1", "a Parquet file"}, {"ARROW1", "an Arrow file"},
        {"\xFF\xFE", "UTF-16 text"}, {"\xFE\xFF", "UTF-16 text"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        size_t length = strlen(formats[i].begin);
        if (n >= length && !memcmp(s, formats[i].begin, length))
            return formats[i].what;
    }
    return NULL;
}

/* Makes bytes plain text, in place: without what editors on Windows add, a byte order mark and the
 * carriage returns at the ends of lines. Dies where they are no text. */
static inline void make_text(char *s, const char *name, size_t *length)
{
    bool wide = *length >= 2 && !s[0] != !s[1];
    bool marked = *length >= 3 && !memcmp(s, "\xEF\xBB\xBF", 3);
    const char *what = wide ? "UTF-16 text" : foreign_format(s, *length);
    size_t n = 0;
    if (what)
        die("%s: is %s; expected plain text in UTF-8", name, what);
    if (marked)
        warn("%s: begins with a byte order mark, which is skipped", name);
    for (size_t i = marked ? 3 : 0; i < *length; i++)
        if (s[i] != '\r' || s[i + 1] != '\n') /* a NUL ends the text */
            s[n++] = s[i];
    s[n] = 0;
    *length = n;
}

/* The whole of a text file, as read_file. */
static inline char *read_text_file(const char *path, size_t *length)
{
    char *s = read_file(path, length);
    make_text(s, path, length);
    return s;
}

/* A file that appears whole or not at all: written under a temporary name, synced (fsync), renamed,
 * and its directory synced. */
typedef struct {
    FILE *f;
    Path path, temporary;
} AtomicFile;

static inline AtomicFile atomic_open(const char *path)
{
    mode_t type = file_type(path);
    if (type && type != S_IFREG)
        die("%s: is there, and is not a regular file", path);
    AtomicFile a = {.path = path_printf("%s", path),
                    .temporary = path_printf("%s.tmp-%ld", path, (long)getpid())};
    a.f = fopen(a.temporary.s, "wb");
    if (!a.f)
        die("%s: cannot be written: %s", path, strerror(errno));
    return a;
}

/* fsync of a directory, which makes the names in it last; some file systems cannot. */
static inline void sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static inline void atomic_close(AtomicFile *a)
{
    bool bad = fflush(a->f) != 0 || ferror(a->f) || fsync(fileno(a->f)) != 0;
    int why = bad ? errno : 0;
    bad |= fclose(a->f) != 0;
    if (bad || rename(a->temporary.s, a->path.s)) {
        why = why ? why : errno;
        unlink(a->temporary.s);
        die("%s: cannot be written: %s", a->path.s, strerror(why));
    }
    char *slash = strrchr(a->temporary.s, '/');
    if (slash)
        *slash = 0;
    sync_dir(slash ? a->temporary.s : ".");
}

static inline void write_file(const char *path, const char *text, size_t n)
{
    AtomicFile a = atomic_open(path);
    fwrite(text, 1, n, a.f);
    atomic_close(&a);
}

/* Prints text in lines of at most `width` columns, broken at spaces. It begins in column `at`; all
 * lines but the first are indented by `indent`. */
static inline void put_wrapped(FILE *f, const char *text, int at, int indent, int width)
{
    for (int column = at; *text; text += strspn(text, " ")) {
        int word = strcspn(text, " "), columns = 0;
        for (int k = 0; k < word; k++)
            columns += (text[k] & 0xC0) != 0x80; /* characters, of UTF-8 */
        if (column > at && column + 1 + columns > width) {
            fprintf(f, "\n%*s", indent, "");
            column = at = indent;
        }
        column += columns + (column > at);
        fprintf(f, "%s%.*s", column > at + columns ? " " : "", word, text);
        text += word;
    }
    fputc('\n', f);
}

#endif
