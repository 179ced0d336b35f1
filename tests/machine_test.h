/* machine_test.h: what the machine allows: a job's memory, its processor, threads that wait. */
#ifndef MACHINE_TEST_H
#define MACHINE_TEST_H

#include "check.h"

/* ---------------------------------------------------------------- memory of a job */

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

/* Trees of control groups as schedulers, containers and systemd make them. */
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
        char root[128], name[256], mounts[1024];
        snprintf(root, sizeof root, "%s/job-%zu", tmp_dir(), i);
        snprintf(mounts, sizeof mounts, rows[i].mounts, rows[i].top);
        put_below(root, "proc/self/cgroup", rows[i].own);
        put_below(root, "proc/self/mountinfo", mounts);
        for (int k = 0; k < 8 && rows[i].file[k]; k += 2) {
            snprintf(name, sizeof name, "sys/fs/cgroup/%s", rows[i].file[k]);
            put_below(root, name, rows[i].file[k + 1]);
        }
        double v1 = groups_available(root, 1), v2 = groups_available(root, 2);
        CHECK(rows[i].v1 < 0 ? v1 > 9e15 : v1 == rows[i].v1, "%s: version 1: %g; expected %g",
              rows[i].what, v1, rows[i].v1);
        CHECK(rows[i].v2 < 0 ? isinf(v2) : v2 == rows[i].v2, "%s: version 2: %g; expected %g",
              rows[i].what, v2, rows[i].v2);
    }
    CHECK(isinf(groups_available(tmp_dir(), 1)) && isinf(groups_available(tmp_dir(), 2)),
          "no /proc");
    CHECK(memory_available() > 0 && memory_available() < 1e17, "here: %g", memory_available());
}
#undef V1
#undef V2

#endif
