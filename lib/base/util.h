/* util.h: the ground that every other file stands on.
 *
 *   die, warn                  one line on stderr; die ends the process with status 1
 *   xmalloc, floats_new, ...   memory that is there, or a clear end; room_for_one
 *   Arena                      a training step's memory: reserved once, marked and reset
 *   Buf                        text that grows
 *   philox, uniform            counter-based random numbers: a draw depends on its counter alone
 *   read_file, AtomicFile      whole files in; whole files, or none, out; demand_output
 *   now_seconds, lap, hash64
 *
 * Nothing here knows of models or reinforcement learning. */
#ifndef UTIL_H
#define UTIL_H

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
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/* One loop over independent outputs, spread over `threads` threads: the only way in which threads
 * are used. No two of them write one place, because
 *   - iteration i writes only what bears its number: row, block, tile, piece, unit of attention,
 *     group, part i of arrays that were there before the loop (which, each loop says where its
 *     lines do not show it), or variables of its own;
 *   - scratch memory comes from the arena of the worker with this thread's index, or of worker i.
 *     A loop within an iteration has one thread, whose index would be 0 again: `threads` of an
 *     arena is 1 while workers run side by side, and 1 means its own memory, not worker 0's;
 *   - all else is only read, and was finished before the loop. The next line after a loop comes
 *     when every iteration has ended.
 * A sum over iterations is made after the loop, in order, by one thread: none is ever split, so the
 * number of threads changes no bit. `make race` watches the loops. */
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

/* One line, whatever it quotes: a control character of somebody's file becomes a ?. */
static inline void warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
static inline void warn(const char *fmt, ...)
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

#define die(...) (warn(__VA_ARGS__), exit(1))

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

/* An array with room for one more than its n things of `size` bytes: at each power of two it takes
 * twice the room, so that n additions copy little. */
static inline void *room_for_one(void *p, int n, size_t size)
{
    return n & (n - 1) ? p : xrealloc(p, (n ? 2 * (size_t)n : 1) * size);
}

static inline char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

/* Memory for large arrays, aligned to a line of the cache; where it is large, on huge pages if the
 * system has them, so that walking it does not wait for page tables. NULL if there is none. */
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

/* The number behind `key` at the start of a line of a small file; `otherwise` if there is none. */
static inline double file_number(const char *path, const char *key, double otherwise)
{
    char line[256];
    FILE *f = fopen(path, "r");
    size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n))
            continue;
        char *end;
        double x = strtod(line + n, &end);
        otherwise = end > line + n ? x : otherwise;
        break;
    }
    if (f)
        fclose(f);
    return otherwise;
}

/* Bytes that this program may still take: what the machine has free, or what its container or its
 * own limit leaves (Linux; elsewhere all that the machine has). */
static inline double memory_available(void)
{
    double free = HUGE_VAL;
#ifdef _SC_PHYS_PAGES
    free = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
#endif
    double limit = file_number("/sys/fs/cgroup/memory.max", "", HUGE_VAL);
    double used = file_number("/sys/fs/cgroup/memory.current", "", 0);
    free = 1024 * file_number("/proc/meminfo", "MemAvailable:", free / 1024);
#ifdef RLIMIT_AS
    struct rlimit own;
    if (!getrlimit(RLIMIT_AS, &own) && own.rlim_cur != RLIM_INFINITY)
        free = fmin(free, (double)own.rlim_cur);
#endif
    return fmax(0, fmin(free, limit - used));
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

/* An arena is one block, reserved before the work and handed out in order; a mark taken before a
 * piece of work and reset after it gives the memory back at once. Pages that were never touched
 * cost nothing, so it is reserved for the worst case. Running out is a bug, not a state.
 * It belongs to one worker, and `threads` says how many may help with that worker's largest loops:
 * 1 where workers run side by side. */
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

/* Gives the memory itself back until it is used again. What it holds is lost. */
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

static inline void buf_printf(Buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void buf_printf(Buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0)
        die("internal error: cannot format '%s'", fmt);
    if ((size_t)n < sizeof small) {
        buf_add(b, small, (size_t)n);
        return;
    }
    char *big = xmalloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(big, (size_t)n + 1, fmt, ap);
    va_end(ap);
    buf_add(b, big, (size_t)n);
    free(big);
}

static inline void buf_free(Buf *b)
{
    free(b->s);
    *b = (Buf){0};
}

/* ---------------------------------------------------------------- random numbers */

/* Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a keyed
 * bijection of a 128-bit counter. There is no state to carry: the draw for token t of sample i of
 * prompt p at step s is philox(seed, stream, s, p, i, t), whoever asks for it and in whatever
 * order. `stream` keeps different uses of one seed apart. */
typedef struct {
    uint32_t r[4];
} Random;

enum { STREAM_INIT = 1, STREAM_DATA, STREAM_SAMPLE, STREAM_SHUFFLE, STREAM_BOOTSTRAP };

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

/* 53 random bits as a double in [0, 1). (uniform and below take different words of a draw: both may
 * be asked of one.) */
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

/* FNV-1a over 64-bit words (the last one zero-padded), then mixed: names a state of the weights. */
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

/* Seconds since some moment, by a clock that no one sets. */
static inline double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds since *since, which becomes now. */
static inline double lap(double *since)
{
    double now = now_seconds(), passed = now - *since;
    *since = now;
    return passed;
}

/* ---------------------------------------------------------------- files */

/* Where stdin, stdout or stderr is closed, the next file that is opened would take its place, and
 * receive what is printed. They get an end that can be neither read nor written as they are. */
static inline void fill_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            exit(1);
}

/* Dies where what was printed has not arrived, as far as is known; `all`: up to here. */
static inline void demand_output(bool all)
{
    if ((all && fflush(stdout)) || ferror(stdout))
        die("stdout: cannot be written: %s", strerror(errno));
}

/* A path put together from a folder and a name; dies where it would not fit. */
typedef struct {
    char s[4096];
} Path;

static inline Path path_join(const char *dir, const char *name)
{
    Path p;
    int n = snprintf(p.s, sizeof p.s, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof p.s)
        die("%.60s...: the path is longer than %zu bytes", dir, sizeof p.s);
    return p;
}

static inline bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static inline bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Makes a directory and the ones above it. */
static inline void make_dirs(const char *path)
{
    Path p;
    if (strlen(path) >= sizeof p.s)
        die("%.60s...: the path is longer than %zu bytes", path, sizeof p.s);
    strcpy(p.s, path);
    for (char *c = p.s + 1;; c++) {
        if (*c != '/' && *c != 0)
            continue;
        char end = *c;
        *c = 0;
        if (mkdir(p.s, 0777) && errno != EEXIST)
            die("%s: cannot make the directory: %s", p.s, strerror(errno));
        *c = end;
        if (!end)
            break;
    }
    if (!is_dir(path))
        die("%s: exists and is not a directory", path);
}

/* Removes a directory of plain files, if it is there. */
static inline void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            unlink(path_join(path, entry->d_name).s);
    closedir(dir);
    if (rmdir(path))
        die("%s: cannot be replaced: %s", path, strerror(errno));
}

/* What is read whole may have 1 GiB: some files have no end, and some only seem to have so much. */
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

/* A pipe has a second to be given a writer; without one it is empty. */
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

/* A file that appears whole or not at all: written under a temporary name beside its final one,
 * brought to the disk (fsync), renamed, and the directory brought to the disk. */
typedef struct {
    FILE *f;
    Path path, temporary;
} AtomicFile;

static inline AtomicFile atomic_open(const char *path)
{
    AtomicFile a;
    struct stat info;
    if (!stat(path, &info) && !S_ISREG(info.st_mode)) /* the name of a device stays its own */
        die("%s: is there, and is not a regular file", path);
    int n = snprintf(a.path.s, sizeof a.path.s, "%s", path);
    int t = snprintf(a.temporary.s, sizeof a.temporary.s, "%s.tmp-%ld", path, (long)getpid());
    if (n < 0 || t < 0 || (size_t)t >= sizeof a.temporary.s)
        die("%.60s...: the path is longer than %zu bytes", path, sizeof a.path.s);
    a.f = fopen(a.temporary.s, "wb");
    if (!a.f)
        die("%s: cannot be written: %s", path, strerror(errno));
    return a;
}

/* fsync of a directory makes the names in it last. */
static inline void sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        fsync(fd); /* some file systems cannot; the rename itself is done by now */
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

/* Prints text in lines of at most `width` columns, broken at blanks. It begins in column `at`; all
 * but the first line stand `indent` in. */
static inline void put_wrapped(FILE *f, const char *text, int at, int indent, int width)
{
    for (int column = at; *text; text += strspn(text, " ")) {
        int word = (int)strcspn(text, " "), columns = 0;
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
