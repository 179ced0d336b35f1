/* reward.h: rewards from the user's own program (--reward-cmd).
 *
 * The command is started once, by /bin/sh -c. For each response it reads one line,
 *
 *   {"prompt": "...", "response": "...", "answer": "..."}
 *
 * and writes one line, {"reward": 0.5, "reason": "..."} (the reason is optional) or a bare number
 * (true is 1, false and null are 0), in the order of the requests. All requests of a training step
 * are sent at once, so it must answer each line without waiting for the end of its input, and
 * flush. Its stderr is ours.
 *
 *   reward_start(command, timeout)           starts it
 *   reward_request(prompt, ..., &lines)      appends one request
 *   reward_get(&r, &lines, n, ...)           sends n requests and reads n answers
 *   reward_stop(&r)                          ends it; its exit status
 *
 * Writing and reading are interleaved by poll, so that neither side can block the other. Where the
 * command dies, times out or writes anything else, it is ended and the program dies with one line.
 *
 * A watcher process waits on the lifeline, a pipe that closes when this program ends in any way.
 * Then the command has a second to end by itself; after that it is killed, with everything that it
 * started. A byte on the lifeline means: at once. So no command outlives this program. */
#ifndef REWARD_H
#define REWARD_H

#include "../base/interrupt.h" /* defines: interrupted */
#include "../base/json.h" /* defines: Json, json_put_string; util.h: Buf, die, now_seconds */

#include <sys/wait.h>

enum { REWARD_LINE_MAX = 1 << 20, REWARD_REASON_MAX = 200 }; /* bytes */

/* The standard deviation of a group squares rewards. */
#define REWARD_LARGEST 1e100

typedef struct {
    double timeout;    /* seconds that one answer may take */
    pid_t watcher;     /* 0: not running */
    int in, out, life; /* our ends of its stdin, its stdout and the lifeline */
    bool warned;       /* of null as a reward */
    Buf unread;        /* its output after the last whole line */
    Buf reasons;       /* of the latest requests, a NUL after each */
} Reward;

/* A pipe with both ends above stderr and closed on exec. */
static void reward_pipe(int end[2])
{
    int raw[2];
    if (pipe(raw))
        die("--reward-cmd: no pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        end[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
        close(raw[i]);
        if (end[i] < 0)
            die("--reward-cmd: no pipe: %s", strerror(errno));
    }
}

/* The watcher: exits with the command's status, or 128 + a signal's number. Until the command is
 * waited for, its process group keeps its number, so that the signal hits no other. */
static void reward_watch(int life, pid_t command)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    char byte;
    int status = 0;
    siginfo_t ended = {0};
    ssize_t word;
    while ((word = read(life, &byte, 1)) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < 100 && !ended.si_pid && word != 1; i++) {
        waitid(P_PID, (id_t)command, &ended, WEXITED | WNOHANG | WNOWAIT);
        if (!ended.si_pid)
            nanosleep(&pause, NULL);
    }
    kill(-command, SIGKILL);
    while (waitpid(command, &status, 0) < 0 && errno == EINTR)
        ;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* The watcher starts the command. Both have process groups of their own, which Ctrl-C spares. */
static void reward_run(const char *command, int in, int out, int life)
{
    setpgid(0, 0);
    pid_t child = fork();
    if (child < 0)
        _exit(126);
    if (child == 0) {
        setpgid(0, 0);
        if (dup2(in, 0) == 0 && dup2(out, 1) == 1)
            execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(126);
    }
    setpgid(child, child); /* in both processes: either may run first */
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    close(in);
    close(out);
    reward_watch(life, child);
}

static Reward reward_start(const char *command, double timeout)
{
    int in[2], out[2], life[2];
    reward_pipe(in);
    reward_pipe(out);
    reward_pipe(life);
    Reward r = {.timeout = timeout, .watcher = fork(), .in = in[1], .out = out[0], .life = life[1]};
    if (r.watcher < 0)
        die("--reward-cmd: cannot be started: %s", strerror(errno));
    if (r.watcher == 0) {
        close(r.in);
        close(r.out);
        close(r.life);
        reward_run(command, in[0], out[1], life[0]);
    }
    close(in[0]);
    close(out[1]);
    close(life[0]);
    fcntl(r.in, F_SETFL, O_NONBLOCK);
    fcntl(r.out, F_SETFL, O_NONBLOCK);
    buf_add(&r.unread, "", 0);
    return r;
}

/* Ends the command, if it runs. Returns its exit status, or 128 + n where signal n ended it. */
static int reward_stop(Reward *r)
{
    int status = 0;
    if (!r->watcher)
        return 0;
    close(r->in);
    close(r->out);
    close(r->life);
    while (waitpid(r->watcher, &status, 0) < 0 && errno == EINTR)
        ;
    buf_free(&r->unread, &r->reasons);
    *r = (Reward){0};
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

PRINTF_LIKE(2, 3) static void reward_fail(Reward *r, const char *fmt, ...)
{
    char text[512];
    ssize_t told = write(r->life, "", 1); /* fails only if the watcher is gone */
    (void)told;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    reward_stop(r);
    die("--reward-cmd: %s", text);
}

static void reward_request(const char *prompt, const char *response, size_t response_bytes,
                           const char *answer, Buf *lines)
{
    buf_str(lines, "{\"prompt\": ");
    json_put_string(lines, prompt, strlen(prompt));
    put_text(lines, "response", response, response_bytes);
    put_text(lines, "answer", answer, strlen(answer));
    buf_str(lines, "}\n");
}

/* A number as programs print it: `.5`, `1.` and `+1` too, which JSON does not have. */
static bool reward_number(const char *line, size_t n, double *reward)
{
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", imin(n, 63), line);
    size_t digits = strspn(text, "+-.0123456789eE");
    *reward = strtod(text, &end);
    return end > text && end == text + digits && digits + strspn(end, " \t\r") == n;
}

/* A member's value or a line's: a number, true 1 and false 0; null, of a function that has no
 * opinion, is 0, and *none says so. */
static bool reward_value(Json *j, double *reward, bool *none)
{
    bool yes = false;
    switch (json_peek(j)) {
    case 't':
        json_bool(j, &yes);
        *reward = yes;
        break;
    case 'n':
        *reward = 0;
        *none = json_null(j);
        break;
    default: json_number(j, reward);
    }
    return !j->error;
}

/* One answer: a value, or an object with a reward and perhaps a reason. False if it is neither. */
static bool reward_parse(const char *line, size_t n, double *reward, bool *none, Buf *reason)
{
    Json j = json_open(line, n);
    Buf key = {0};
    bool seen = false;
    reason->n = 0;
    if (reward_number(line, n, reward))
        return fabs(*reward) <= REWARD_LARGEST;
    if (json_peek(&j) != '{')
        seen = reward_value(&j, reward, none);
    else
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "reward"))
                seen = reward_value(&j, reward, none);
            else if (!strcmp(key.s, "reason") && json_peek(&j) == '"')
                json_string(&j, reason);
            else
                json_skip(&j);
    buf_free(&key);
    return json_end(&j) && seen && fabs(*reward) <= REWARD_LARGEST;
}

/* The beginning of a line, in quotes. */
static Path reward_quoted(const char *line, size_t bytes)
{
    Buf quoted = {0};
    json_put_string(&quoted, line, bytes < 80 ? bytes : 80);
    Path text = path_printf("%.500s%s", quoted.s, bytes < 80 ? "" : "...");
    buf_free(&quoted);
    return text;
}

/* Parses answer number `got` of n; keeps at most REWARD_REASON_MAX bytes of its reason. */
static void reward_take(Reward *r, const char *line, size_t bytes, int got, int n, double *reward)
{
    Buf reason = {0};
    bool none = false;
    if (!reward_parse(line, bytes, reward, &none, &reason))
        reward_fail(r, "answer %d of %d is %s; expected {\"reward\": number} or a number, "
                    "from -1e100 to 1e100", got + 1, n, reward_quoted(line, bytes).s);
    if (none && !r->warned)
        warn("--reward-cmd: a reward of null is taken as 0");
    r->warned |= none;
    buf_add(&r->reasons, reason.s, reason.n < REWARD_REASON_MAX ? reason.n : REWARD_REASON_MAX);
    buf_add(&r->reasons, "", 1);
    buf_free(&reason);
}

/* Parses the whole lines that were read as answers got .. n - 1; returns the new count. */
static int reward_lines(Reward *r, int got, int n, double *reward)
{
    const char *at = r->unread.s, *end = at + r->unread.n, *newline;
    while (got < n && (newline = memchr(at, '\n', end - at))) {
        reward_take(r, at, (size_t)(newline - at), got, n, &reward[got]);
        got++;
        at = newline + 1;
    }
    r->unread.n = end - at;
    memmove(r->unread.s, at, r->unread.n);
    if (got == n && r->unread.n)
        reward_fail(r, "wrote more than one line for each request");
    if (r->unread.n > REWARD_LINE_MAX)
        reward_fail(r, "answer %d of %d is longer than %d bytes", got + 1, n, REWARD_LINE_MAX);
    return got;
}

/* Reads what is available; false at the end of the command's output. */
static bool reward_read(Reward *r)
{
    char chunk[65536];
    ssize_t n = read(r->out, chunk, sizeof chunk);
    if (n > 0)
        buf_add(&r->unread, chunk, n);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void reward_ended(Reward *r, int got, int n)
{
    int status = reward_stop(r);
    die("--reward-cmd: ended, with status %d, after %d of %d answers", status, got, n);
}

/* Sends n requests and reads their answers, as the pipes allow. Returns how many are here: fewer
 * where interrupted(). */
static int reward_exchange(Reward *r, const Buf *lines, int n, double *reward)
{
    enum { LISTEN = 100 }; /* milliseconds: a signal may reach another thread than this one */
    size_t sent = 0;
    int got = 0;
    double since = now_seconds(); /* the latest answer */
    while (got < n && !interrupted()) {
        struct pollfd p[2] = {{.fd = r->out, .events = POLLIN},
                              {.fd = sent < lines->n ? r->in : -1, .events = POLLOUT}};
        double left = since + r->timeout - now_seconds();
        int ready = left > 0 ? poll(p, 2, imin(LISTEN, ceil(left * 1000))) : 0;
        if ((ready < 0 && errno == EINTR) || (ready == 0 && left > 0))
            continue;
        if (ready <= 0)
            reward_fail(r, "no answer in %g seconds (--reward-timeout), %d of %d are here; does it "
                        "answer line by line, and flush?", r->timeout, got, n);
        if (p[1].revents) {
            ssize_t bytes = write(r->in, lines->s + sent, lines->n - sent);
            if (bytes < 0 && errno != EAGAIN && errno != EINTR)
                sent = lines->n; /* it reads no more; its output will end, too */
            sent += bytes > 0 ? (size_t)bytes : 0;
        }
        if (p[0].revents) {
            int before = got;
            if (!reward_read(r))
                reward_ended(r, got, n);
            got = reward_lines(r, got, n, reward);
            since = got > before ? now_seconds() : since;
        }
    }
    return got;
}

/* The rewards of n requests (`lines`), in order; 0 for those that a signal leaves open. The
 * reasons, "" for none, are valid until the next call. */
static void reward_get(Reward *r, const Buf *lines, int n, double *reward, const char **reason)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    r->reasons.n = 0;
    sigaction(SIGPIPE, &ignore, &before);
    if (!reward_read(r))
        reward_ended(r, 0, n);
    if (r->unread.n)
        reward_fail(r, "wrote a line unasked: %s; expected rewards alone on its stdout",
                    reward_quoted(r->unread.s, strcspn(r->unread.s, "\r\n")).s);
    int got = reward_exchange(r, lines, n, reward);
    sigaction(SIGPIPE, &before, NULL);
    const char *at = r->reasons.s;
    for (int i = 0; i < got; at += strlen(at) + 1)
        reason[i++] = at;
    for (int i = got; i < n; i++) {
        reward[i] = 0;
        reason[i] = "";
    }
}

#endif
