/* wasi.h: what WASI, the system below WebAssembly, lacks of POSIX; included before every source
 * (see Makefile). There are no signals here, no processes and no locks: a signal never comes, and
 * what starts a process (--reward-cmd) fails with ENOSYS, which is reported. */
#ifndef WASI_H
#define WASI_H

/* What its C library emulates, by libraries of their own. */
#define _WASI_EMULATED_GETPID
#define _WASI_EMULATED_MMAN
#define _WASI_EMULATED_PROCESS_CLOCKS
#define _WASI_EMULATED_SIGNAL

#define _DEFAULT_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

static inline int unsupported(void)
{
    errno = ENOSYS;
    return -1;
}
#define UNSUPPORTED(type, name, ...) \
    static inline type name(__VA_ARGS__) { return (type)unsupported(); }
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wunused-parameter"

/* Signals. */
typedef struct {
    int si_code;
    pid_t si_pid;
} siginfo_t;
struct sigaction {
    void (*sa_handler)(int);
    void (*sa_sigaction)(int, siginfo_t *, void *);
    int sa_flags;
};
enum { SA_SIGINFO = 1, SA_RESTART, BUS_ADRERR };
UNSUPPORTED(int, sigaction, int number, const struct sigaction *now, struct sigaction *before)

/* Processes. */
enum { WEXITED = 1, WNOHANG, WNOWAIT, P_PID, F_DUPFD_CLOEXEC };
#define WIFEXITED(status) ((status) < 128)
#define WEXITSTATUS(status) (status)
#define WTERMSIG(status) ((status) - 128)
UNSUPPORTED(pid_t, fork, void)
UNSUPPORTED(pid_t, waitpid, pid_t pid, int *status, int flags)
UNSUPPORTED(int, waitid, int kind, pid_t pid, siginfo_t *info, int flags)
UNSUPPORTED(int, kill, pid_t pid, int number)
UNSUPPORTED(int, setpgid, pid_t pid, pid_t group)
UNSUPPORTED(int, execl, const char *path, ...)
UNSUPPORTED(int, pipe, int end[2])
UNSUPPORTED(int, dup2, int from, int to)

/* Files and memory: the locks of runs, the width of a terminal, advice, the machine's limits. */
#define flock(fd, operation) unsupported()
#define madvise(from, bytes, advice) unsupported()
struct winsize {
    unsigned short ws_col;
};
enum { TIOCGWINSZ = 1 };
static inline char *realpath(const char *path, char *resolved)
{
    (void)resolved;
    return strdup(path);
}

#pragma clang diagnostic pop
#endif
