/* available.h: the memory and the processors that this process may take.
 *
 *   memory_available      the least of what the machine has free, what the job's control groups
 *                         leave, and the process's own limit (elsewhere than on Linux all of the
 *                         machine's memory)
 *   processors_available  how many processors' time the job's control groups give it
 *
 * A control group (cgroup) is how a scheduler, a container or systemd limits a job. Groups form a
 * tree, and the limit of each group from the process's own up to the root holds. There are two
 * versions, and a machine may have both: /proc/self/cgroup names the process's group in each, and
 * /proc/self/mountinfo tells where their files are (man 7 cgroups, man 5 proc). */
#ifndef AVAILABLE_H
#define AVAILABLE_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* sysconf's names */
#endif
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { GROUP_PATH = 4096, GROUP_LINE = 3 * GROUP_PATH };

/* The number behind `key` at the start of a line of a small file; `otherwise` if there is none. */
static inline double file_number(const char *path, const char *key, double otherwise)
{
    char line[256];
    FILE *f = fopen(path, "r");
    size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n)) {
            char *end;
            double x = strtod(line + n, &end);
            otherwise = end > line + n ? x : otherwise;
            break;
        }
    if (f)
        fclose(f);
    return otherwise;
}

/* The same for file `name` of a control group. */
static inline double group_number(const char *dir, const char *name, const char *key,
                                  double otherwise)
{
    char path[GROUP_LINE];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    return n < (int)sizeof path ? file_number(path, key, otherwise) : otherwise;
}

/* Bytes that the control group of this directory leaves. Pages of files that nobody read lately
 * (inactive_file) count as free: the system drops them first. */
static inline double group_memory(const char *dir, int version)
{
    double limit = group_number(dir, "memory.limit_in_bytes", "", HUGE_VAL);
    double used = group_number(dir, "memory.usage_in_bytes", "", 0);
    const char *dropped = "total_inactive_file ";
    if (version == 2) {
        limit = fmin(group_number(dir, "memory.max", "", HUGE_VAL),
                     group_number(dir, "memory.high", "", HUGE_VAL)); /* "max": none */
        used = group_number(dir, "memory.current", "", 0);
        dropped = "inactive_file ";
    }
    return fmax(0, limit - fmax(0, used - group_number(dir, "memory.stat", dropped, 0)));
}

/* Processors whose whole time the control group of this directory may take: `docker run --cpus 1.5`
 * makes it a quota of 150 ms in each period of 100. cpu.max holds both, "150000 100000". */
static inline double group_processors(const char *dir, int version)
{
    char quota_and[32];
    double quota = group_number(dir, "cpu.cfs_quota_us", "", -1); /* -1: none */
    double period = group_number(dir, "cpu.cfs_period_us", "", 0);
    if (version == 2) {
        quota = group_number(dir, "cpu.max", "", -1); /* "max": none */
        snprintf(quota_and, sizeof quota_and, "%.0f ", quota);
        period = group_number(dir, "cpu.max", quota_and, 0);
    }
    return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

/* What control groups limit: version 1 has a tree for each controller. */
typedef struct {
    const char *controller;
    double (*available)(const char *dir, int version); /* in the group of this directory */
} GroupLimit;
static const GroupLimit MEMORY_LIMIT = {"memory", group_memory};
static const GroupLimit PROCESSOR_LIMIT = {"cpu", group_processors};

/* Whether a comma-separated list holds this name. */
static inline bool in_list(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, n) && (!at[n] || at[n] == ','))
            return true;
    return false;
}

/* The path of the process's group of that version, from /proc/self/cgroup: lines of
 * "number:controllers:path", where version 2 has "0::path". */
static inline bool group_path(const char *root, int version, const char *controller,
                              char path[GROUP_PATH])
{
    char line[GROUP_LINE];
    bool found = false;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *f = fopen(line, "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *list = strchr(line, ':'), *at = list ? strchr(++list, ':') : NULL;
        if (!at)
            continue;
        *at++ = 0;
        at[strcspn(at, "\n")] = 0;
        found = (version == 2 ? !*list : in_list(list, controller)) &&
                snprintf(path, GROUP_PATH, "%s", at) < GROUP_PATH;
    }
    if (f)
        fclose(f);
    return found;
}

/* Undoes mountinfo's escapes, \040 for a space. */
static inline void unescape_octal(char *s)
{
    char *to = s;
    for (; *s; s++) {
        bool escaped = *s == '\\' && strspn(s + 1, "01234567") >= 3;
        *to++ = (char)(escaped ? (s[1] - '0') * 64 + (s[2] - '0') * 8 + s[3] - '0' : *s);
        s += escaped ? 3 : 0;
    }
    *to = 0;
}

/* A line of /proc/self/mountinfo, "id parent device root point options.. - type source options":
 * where a tree of control groups of that version is mounted, and which group is at its top. */
static inline bool group_mount(const char *line, int version, const char *controller,
                               char top[GROUP_PATH], char point[GROUP_PATH])
{
    const char *after = strstr(line, " - ");
    char type[32], options[512] = "";
    if (!after || sscanf(after, " - %31s %*s %511s", type, options) < 1 ||
        sscanf(line, "%*s %*s %*s %4095s %4095s", top, point) != 2)
        return false;
    unescape_octal(top);
    unescape_octal(point);
    return version == 2 ? !strcmp(type, "cgroup2")
                        : !strcmp(type, "cgroup") && in_list(options, controller);
}

/* The least that the control groups of that version leave this process; HUGE_VAL: no limit. Where
 * no mount shows its own group (a container may hide it), what is mounted counts. `root` is "", or
 * a made-up file system's. */
static inline double groups_available(const char *root, int version, GroupLimit limit)
{
    char path[GROUP_PATH], top[GROUP_PATH], point[GROUP_PATH], line[GROUP_LINE], dir[GROUP_LINE];
    double own = HUGE_VAL, other = HUGE_VAL;
    bool shown = false;
    if (!group_path(root, version, limit.controller, path))
        return HUGE_VAL;
    snprintf(line, sizeof line, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(line, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (!group_mount(line, version, limit.controller, top, point))
            continue;
        size_t n = strcmp(top, "/") ? strlen(top) : 0;
        bool below = !strncmp(path, top, n) && (!path[n] || path[n] == '/') && !strstr(path, "/..");
        if (snprintf(dir, sizeof dir, "%s%s", root, point) >= (int)sizeof dir - GROUP_PATH)
            continue;
        size_t mount = strlen(dir);
        strcat(dir, below ? path + n : "");
        shown = shown || below;
        for (char *end = dir + strlen(dir); end; end = strrchr(dir + mount, '/')) {
            *end = 0;
            double *least = below ? &own : &other;
            *least = fmin(*least, limit.available(dir, version));
        }
    }
    if (f)
        fclose(f);
    return shown ? own : other;
}

/* Bytes that this process may still allocate. */
static inline double memory_available(void)
{
    double free = HUGE_VAL;
#ifdef __wasm__ /* pages of 64 KiB, of which 32-bit addresses have 2^16 */
    free = 65536.0 * (65536.0 - (double)__builtin_wasm_memory_size(0));
#elif defined(_SC_PHYS_PAGES)
    free = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
#endif
    free = 1024 * file_number("/proc/meminfo", "MemAvailable:", free / 1024);
#ifdef RLIMIT_AS
    struct rlimit own;
    if (!getrlimit(RLIMIT_AS, &own) && own.rlim_cur != RLIM_INFINITY)
        free = fmin(free, (double)own.rlim_cur);
#endif
    return fmin(free, fmin(groups_available("", 1, MEMORY_LIMIT),
                           groups_available("", 2, MEMORY_LIMIT)));
}

/* Processors whose time this process may take; a part of one counts as one. HUGE_VAL: no limit. */
static inline double processors_available(void)
{
    return ceil(fmin(groups_available("", 1, PROCESSOR_LIMIT),
                     groups_available("", 2, PROCESSOR_LIMIT)));
}

#endif
