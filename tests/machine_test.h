/* machine_test.h: what the machine allows: a job's memory and processors, their vectors, threads
 * that wait. */
#ifndef MACHINE_TEST_H
#define MACHINE_TEST_H

#include "noise.h"

/* ---------------------------------------------------------------- memory, processors of a job */

/* A made-up file below `root`, with its directories. */
static void put_below(const char *root, const char *name, const char *text)
{
    Path p = path_join(root, name), dir = p;
    *strrchr(dir.s, '/') = 0;
    make_dirs(dir.s);
    write_file(p.s, text, strlen(text));
}

#define V1 "31 23 0:27 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n" \
           "33 23 0:28 %s /sys/fs/cgroup/memory rw shared:2 - cgroup cgroup rw,memory\n"
#define V2 "30 23 0:26 %s /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw\n"

/* A made-up file system with trees of control groups: mountinfo, the group that it shows at its
 * top, /proc/self/cgroup, and pairs of a file below /sys/fs/cgroup and its text. */
static Path job_root(const char *mounts, const char *top, const char *own,
                     const char *const file[8])
{
    static int made;
    char name[256], text[1024];
    snprintf(name, sizeof name, "job-%d", made++);
    Path root = path_join(tmp_dir(), name);
    snprintf(text, sizeof text, mounts, top);
    put_below(root.s, "proc/self/cgroup", own);
    put_below(root.s, "proc/self/mountinfo", text);
    for (int k = 0; k < 8 && file[k]; k += 2) {
        snprintf(name, sizeof name, "sys/fs/cgroup/%s", file[k]);
        put_below(root.s, name, file[k + 1]);
    }
    return root;
}

/* As schedulers, containers and systemd make them. */
static void test_job_memory(void)
{
    static const struct {
        const char *what, *mounts, *top; /* mountinfo, and the group that it shows at its top */
        const char *own;                 /* /proc/self/cgroup */
        const char *file[8];             /* pairs: a file below /sys/fs/cgroup, its text */
        double v1, v2;                   /* bytes left; -1: no limit */
    } rows[] = {
        {"v2, a container", V2, "/", "0::/\n",
         {"memory.max", "1000\n", "memory.current", "300\n"}, -1, 700},
        {"v2, nested: the group's own", V2, "/", "0::/user.slice/run-1.scope\n",
         {"user.slice/run-1.scope/memory.max", "1000\n",
          "user.slice/run-1.scope/memory.current", "100\n", "user.slice/memory.max", "max\n"},
         -1, 900},
        {"v2, nested: the parent's, with what its other children use", V2, "/",
         "0::/job_7/step_0/task_0\n",
         {"job_7/memory.max", "1000\n", "job_7/memory.current", "800\n",
          "job_7/step_0/task_0/memory.max", "500\n", "job_7/step_0/task_0/memory.current", "0\n"},
         -1, 200},
        {"v2: memory.high below memory.max", V2, "/", "0::/a\n",
         {"a/memory.max", "1000\n", "a/memory.high", "600\n", "a/memory.current", "100\n"},
         -1, 500},
        {"v2: files that can be dropped are free", V2, "/", "0::/a\n",
         {"a/memory.max", "1000\n", "a/memory.current", "900\n",
          "a/memory.stat", "anon 1\nfile 800\ninactive_file 700\nactive_file 5\n"}, -1, 800},
        {"v2: over its limit", V2, "/", "0::/a\n",
         {"a/memory.high", "10\n", "a/memory.current", "900\n"}, -1, 0},
        {"v2, no limit", V2, "/", "0::/a\n", {"a/memory.max", "max\n", "a/memory.high", "max\n"},
         -1, -1},
        {"v2, the host's path in a container that shows its group at the top", V2,
         "/docker/abc", "0::/docker/abc\n", {"memory.max", "1000\n"}, -1, 1000},
        {"v2, below the top that is shown", V2, "/docker/abc", "0::/docker/abc/job\n",
         {"job/memory.max", "400\n", "memory.max", "1000\n"}, -1, 400},
        {"v2, a name that only begins like the top", V2, "/docker/abc", "0::/docker/abcd\n",
         {"memory.max", "1000\n", "d/memory.max", "1\n"}, -1, 1000},
        {"v2, a path outside of its namespace", V2, "/", "0::/../other\n",
         {"memory.max", "1000\n"}, -1, 1000},
        {"v1", V1, "/", "4:cpu,cpuacct:/x\n3:memory:/job\n0::/y\n",
         {"memory/job/memory.limit_in_bytes", "1000\n",
          "memory/job/memory.usage_in_bytes", "300\n", "memory/job/memory.stat",
          "inactive_file 1\ntotal_inactive_file 100\n",
          "memory/memory.limit_in_bytes", "9223372036854771712\n"}, 800, -1},
        {"v1, nested", V1, "/", "3:hugetlb,memory:/slurm/uid_1/job_2/step_0\n",
         {"memory/slurm/uid_1/job_2/memory.limit_in_bytes", "1000\n",
          "memory/slurm/uid_1/job_2/step_0/memory.limit_in_bytes", "2000\n"}, 1000, -1},
        {"v1, docker's path", V1, "/docker/abc", "3:memory:/docker/abc\n",
         {"memory/memory.limit_in_bytes", "1000\n"}, 1000, -1},
        {"v1 beside v2", V1 "40 23 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/",
         "3:memory:/job\n0::/job\n", {"memory/job/memory.limit_in_bytes", "1000\n",
          "unified/job/memory.max", "700\n"}, 1000, 700},
        {"a mount point with a space",
         "30 23 0:26 %s /sys/fs/cgroup/a\\040b rw - cgroup2 none rw\n", "/", "0::/job\n",
         {"a b/job/memory.max", "700\n"}, -1, 700},
        {"the mount that shows the group, not another one",
         "29 23 0:26 /other /sys/fs/cgroup/o rw - cgroup2 none rw\n"
         "30 23 0:26 %s /sys/fs/cgroup/c rw - cgroup2 none rw\n", "/", "0::/job\n",
         {"o/memory.max", "5\n", "c/job/memory.max", "700\n"}, -1, 700},
        {"neither mounted", "22 27 0:21 %s /proc rw - proc proc rw\n", "/", "0::/job\n",
         {"job/memory.max", "1\n"}, -1, -1},
        {"in no group", V2, "/", "", {"memory.max", "1000\n"}, -1, -1},
        {"lines that are none", "\n - \n30 %s - cgroup2\n", "/", "\n0\n0:\n0::\n", {NULL}, -1, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Path root = job_root(rows[i].mounts, rows[i].top, rows[i].own, rows[i].file);
        double v1 = groups_available(root.s, 1, MEMORY_LIMIT);
        double v2 = groups_available(root.s, 2, MEMORY_LIMIT);
        CHECK(rows[i].v1 < 0 ? v1 > 9e15 : v1 == rows[i].v1, "%s: version 1: %g; expected %g",
              rows[i].what, v1, rows[i].v1);
        CHECK(rows[i].v2 < 0 ? isinf(v2) : v2 == rows[i].v2, "%s: version 2: %g; expected %g",
              rows[i].what, v2, rows[i].v2);
    }
    CHECK(isinf(groups_available(tmp_dir(), 1, MEMORY_LIMIT)) &&
          isinf(groups_available(tmp_dir(), 2, MEMORY_LIMIT)), "no /proc");
    CHECK(memory_available() > 0 && memory_available() < 1e17, "here: %g", memory_available());
}

/* `docker run --cpus 2` and the like: a machine of 64 cores, time for two. */
static void test_job_processors(void)
{
    static const struct {
        const char *what, *mounts, *own;
        const char *file[8];
        double cpus; /* 0: no limit */
    } rows[] = {
        {"v2", V2, "0::/\n", {"cpu.max", "200000 100000\n"}, 2},
        {"v2, a part of one", V2, "0::/\n", {"cpu.max", "150000 100000\n"}, 1.5},
        {"v2, another period", V2, "0::/\n", {"cpu.max", "200000 50000\n"}, 4},
        {"v2, none", V2, "0::/\n", {"cpu.max", "max 100000\n"}, 0},
        {"v2, the parent's", V2, "0::/pod/one\n",
         {"pod/cpu.max", "300000 100000\n", "pod/one/cpu.max", "max 100000\n"}, 3},
        {"v2, not a quota", V2, "0::/\n", {"cpu.max", "0 0\n"}, 0},
        {"v1", V1, "4:cpu,cpuacct:/x\n3:memory:/job\n",
         {"cpu/x/cpu.cfs_quota_us", "50000\n", "cpu/x/cpu.cfs_period_us", "100000\n"}, 0.5},
        {"v1, none", V1, "4:cpu,cpuacct:/x\n",
         {"cpu/x/cpu.cfs_quota_us", "-1\n", "cpu/x/cpu.cfs_period_us", "100000\n"}, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Path root = job_root(rows[i].mounts, "/", rows[i].own, rows[i].file);
        double cpus = fmin(groups_available(root.s, 1, PROCESSOR_LIMIT),
                           groups_available(root.s, 2, PROCESSOR_LIMIT));
        CHECK(rows[i].cpus ? cpus == rows[i].cpus : isinf(cpus), "%s: %g processors; expected %g",
              rows[i].what, cpus, rows[i].cpus);
    }
    CHECK(processors_available() >= 1, "here: %g", processors_available());
}
#undef V1
#undef V2

/* ---------------------------------------------------------------- memory of the program's own */

enum { MEMORY_WORKS = 7, MEMORY_TAKEN = 1 << 10 };

static void take_memory(Arena *a, int i, void *context)
{
    size_t *used = context;
    used[i] = a->used;
    memset(arena_alloc(a, 1, MEMORY_TAKEN), i, MEMORY_TAKEN);
}

/* Pieces of work give back what they take, whether they go side by side or one by one; a reset
 * gives back what all workers hold. */
static void test_worker_memory(void)
{
    for (int one_pass = 0; one_pass < 2; one_pass++) {
        size_t used[MEMORY_WORKS] = {0};
        Engine e = engine_new(2, 64, 2 * MEMORY_WORKS * MEMORY_TAKEN);
        e.one_pass = one_pass;
        for (int i = 0; i < 2; i++)
            arena_alloc(&e.worker[i], 1, 64);
        engine_each(&e, MEMORY_WORKS, take_memory, used);
        for (int i = 0; i < MEMORY_WORKS; i++)
            CHECK(used[i] == 64, "work %d begins at byte %zu", i, used[i]);
        for (int i = 0; i < 2; i++)
            CHECK(e.worker[i].used == 64, "worker %d still holds %zu bytes", i, e.worker[i].used);
        workers_reset(&e);
        for (int i = 0; i < 2; i++)
            CHECK(e.worker[i].used == 0, "worker %d after a reset: %zu", i, e.worker[i].used);
        engine_free(&e);
    }
}

/* Products of the shapes that need the most scratch, each in an arena of what gemm_scratch says. */
static void tight_products(void *unused)
{
    enum { ROWS = 3 * BLOCK / KC, DEPTH = 2 * KC };
    static const int columns[] = {1, 8 * NR, 8 * NR + 1};
    (void)unused;
    float *a = noise_new(1, (size_t)ROWS * DEPTH), *b = noise_new(2, (size_t)DEPTH * 9 * NR);
    float *c = nan_new((size_t)ROWS * 9 * NR);
    for (int i = 0; i < 6; i++) {
        int N = columns[i / 2];
        Arena count = arena_counting(1);
        gemm_scratch(&count, ROWS, N);
        Arena tight = arena_new(arena_counted(&count));
        gemm(&tight, c, N, i % 2 ? transposed(mat(a, DEPTH, ROWS)) : mat(a, ROWS, DEPTH),
             mat(b, DEPTH, N), NULL);
        arena_free(&tight);
    }
    free(a);
    free(b);
    free(c);
}

/* The forecasts of memory have room for what grows: the cache with every token, the backward pass
 * of attention with the longest sequence, a product's blocks. */
static void test_needed_memory(void)
{
    enum { MORE = 1 << 10, LONG = 1 << 14 };
    char err[512];
    Model m = {.config = *preset_find("nano")};
    m.config.num_hidden_layers = 24;
    Heads s = heads_of(&m.config);
    Extent x = {8, 8, 16, 64, 1, KEEP_NOTHING, false, SAVE_NOTHING}, y = x;
    y.max_tokens += MORE;
    size_t token = (size_t)m.config.num_hidden_layers * (size_t)(2 * s.KV * s.hd) * sizeof(float);
    size_t cache = (size_t)imin(8, groups_together(8)) * 8 * MORE * token;
    CHECK(sampling_bytes(&m, y) - sampling_bytes(&m, x) >= cache, "the cache: %zu bytes for %zu",
          sampling_bytes(&m, y) - sampling_bytes(&m, x), cache);
    Arena count = arena_counting(1);
    for (int i = 0; i < HELPERS; i++)
        attention_grad_new(&count, &s, LONG);
    size_t grads = arena_counted(&count);
    CHECK(pass_bytes(&m, 1, 1, LONG, KEEP_ALL) >= grads, "attention: %zu bytes for %zu",
          pass_bytes(&m, 1, 1, LONG, KEEP_ALL), grads);
    CHECK(dies(tight_products, NULL, err, sizeof err) == 0, "%s", err);
}

/* ---------------------------------------------------------------- the build and the machine */

/* An emulator has no room for the memory that AddressSanitizer reserves. */
#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__x86_64__) && defined(__AVX__) && !defined(__SANITIZE_ADDRESS__) && \
    !HAS_FEATURE(address_sanitizer) && !HAS_FEATURE(thread_sanitizer)
#define ON_NEHALEM
static void run_on_nehalem(void *unused)
{
    (void)unused;
    execlp("qemu-x86_64", "qemu-x86_64", "-cpu", "Nehalem", self, "--list", (char *)NULL);
    _exit(127);
}
#endif

/* A program for another processor: one line, and no SIGILL. */
static void test_other_cpu(void)
{
    const char *lacks = cpu_lacks();
    CHECK(!lacks, "here: %s", lacks ? lacks : "");
#ifdef ON_NEHALEM
    int status = in_child(run_on_nehalem, NULL, "", cli_out, CLI_TEXT, cli_err, CLI_TEXT);
    if (status == 127) {
        skip("qemu-x86_64 is not here");
        return;
    }
    CHECK(status == 1 && !*cli_out && strstr(cli_err, "g2rl: was built for a processor with AVX,"),
          "status %d: %s%s", status, cli_err, cli_out);
#endif
}

/* A build with pointers of 32 bits is refused. */
static void test_narrow_build(void)
{
    FILE *f = popen("cc -U__SIZEOF_POINTER__ -D__SIZEOF_POINTER__=4 -w -E g2rl.c 2>&1 >/dev/null",
                    "r");
    size_t n = fread(cli_out, 1, CLI_TEXT - 1, f);
    cli_out[n] = 0;
    int status = pclose(f);
    if (WEXITSTATUS(status) == 127) {
        CHECK(true, "no compiler");
        skip("cc is not here");
        return;
    }
    CHECK(status && strstr(cli_out, "g2rl needs a 64-bit build"), "%s", cli_out);
}

/* --threads that are not there. */
static void test_threads_missing(void)
{
#define SCORE "score --model %s --threads %d"
    Path run = tmp_path("few-threads");
    const char *base = run.s;
    static const char ids[] = "{\"input_ids\": [1, 2, 3]}\n";
    CHECK(cli("sft --preset nano --steps 0 --threads 1 --out %s", base) == 0, "%s", cli_err);
#ifdef _OPENMP
    setenv("OMP_THREAD_LIMIT", "2", 1);
    CHECK(cli_in(ids, SCORE, base, 3) == 0 && strstr(cli_err, "--threads 3: OMP_THREAD_LIMIT"),
          "%s", cli_err);
    unsetenv("OMP_THREAD_LIMIT");
    CHECK(cli_in(ids, SCORE, base, 3) == 0 && !*cli_err, "%s", cli_err);
#else
    CHECK(cli_in(ids, SCORE, base, 3) == 0 && strstr(cli_err, "--threads 3: this program was built"
          " without OpenMP"), "%s", cli_err);
    CHECK(cli_in(ids, SCORE, base, 1) == 0 && !*cli_err, "%s", cli_err);
#endif
    CHECK(cli_in(ids, SCORE, base, 0) == 0 && !*cli_err, "%s", cli_err);
#undef SCORE
}

/* ---------------------------------------------------------------- threads that wait */

static const char *const WAITING[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"};

/* This program as `--waits [FILE]`: removes the file, then prints how threads will wait. */
static int print_waiting(int argc, char **argv)
{
    if (argc > 2)
        unlink(argv[2]);
    wait_asleep(argv);
    for (int i = 0; i < 3; i++)
        printf("%s ", getenv(WAITING[i]) ? getenv(WAITING[i]) : "-");
    return 0;
}

/* A variable to set, or NULL; and a copy of this program that shall remove itself, or NULL. */
typedef struct {
    const char *name, *value, *copy;
} Waits;

static void waits_child(void *argument)
{
    const Waits *w = argument;
    for (int i = 0; i < 3; i++)
        unsetenv(WAITING[i]);
    if (w->name)
        setenv(w->name, w->value, 1);
    execl(w->copy ? w->copy : self, self, "--waits", w->copy, (char *)NULL);
    _exit(127);
}

/* The program asks for threads that sleep soon, once, and unless the user did; where it cannot be
 * started again it goes on. */
static void test_wait_asleep(void)
{
    Path copy = tmp_path("waits");
#if !defined(_OPENMP)
    const char *ours = "- - - ", *gone = ours;
#elif defined(__clang__)
    const char *ours = "passive - - ", *gone = ours;
#else
    const char *ours = "- 1000 - ", *gone = "- - - ";
#endif
    const struct {
        Waits how;
        const char *want;
    } rows[] = {{{NULL, NULL, NULL}, ours},
                {{"OMP_WAIT_POLICY", "active", NULL}, "active - - "},
                {{"GOMP_SPINCOUNT", "7", NULL}, "- 7 - "},
                {{"KMP_BLOCKTIME", "7", NULL}, "- - 7 "},
                {{NULL, NULL, copy.s}, gone}};
    if (getenv("G2RL_RUNNER") || !is_file("/proc/self/exe")) {
        CHECK(true, "an emulator, or no /proc");
        return;
    }
    copy_file(self, copy.s);
    CHECK(!chmod(copy.s, 0755), "chmod");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Waits how = rows[i].how;
        int status = in_child(waits_child, &how, "", cli_out, CLI_TEXT, cli_err, CLI_TEXT);
        CHECK(status == 0 && !*cli_err && !strcmp(cli_out, rows[i].want),
              "row %zu: status %d, %s%s; expected %s", i, status, cli_err, cli_out, rows[i].want);
    }
}

#endif
