/* rescue_test.h: tests that no work is lost: runs that end by an error or a signal, runs that are
 * refused, gone on with elsewhere or with other options. */
#ifndef TESTS_RESCUE_H
#define TESTS_RESCUE_H

#include "trust_test.h"

/* An option file of a run whose reward command gives n rewards, and then does `last`. */
static Path gives(int n, const char *last, const char *out)
{
    char text[1024];
    Path script = tmp_path("gives.sh");
    snprintf(text, sizeof text,
             "n=%d\nwhile [ $n -gt 0 ]; do read -r x || exit 0; "
             "echo $((n %% 3)); n=$((n - 1)); done\nread -r x; %s\n",
             n, last);
    write_file(script.s, text, strlen(text));
    snprintf(text, sizeof text, "--reward-cmd sh %.200s\n--out %.200s\n", script.s, out);
    return put_file("gives", text);
}

/* A run that an error ends has its last whole step on the disk, and goes on from there. */
static void test_saved_on_error(void)
{
    const char *base = base_model();
    Path run = tmp_path("rescued"), steady = tmp_path("steady.sh");
    for (int evaluates = 0; evaluates < 2; evaluates++) { /* 16 rewards a step, 4 an evaluation */
        Path options = gives(evaluates ? 4 + 48 : 32 + 5, "exit 7", run.s);
        CHECK(cli("train --model %s " SMALL_TRAIN " --steps 3 --force %s @%s", base,
                  evaluates ? "--eval-every 3 --problems 1 --samples 4" : "", options.s) == 1 &&
                  strstr(cli_err, "ended, with status 7") &&
                  strstr(cli_err, evaluates ? "stopped after step 3 of 3, which is saved"
                                            : "stopped after step 2 of 3, which is saved"),
              "%s", cli_err);
        CHECK(newest_name(run.s, INT_MAX) == (evaluates ? 3 : 2), "not saved: %s", cli_err);
    }
    put_file("steady.sh", "while read -r x; do echo 1; done\n");
    char text[256];
    snprintf(text, sizeof text, "--reward-cmd sh %.200s\n", steady.s);
    Path options = put_file("steady", text);
    CHECK(cli("train --resume --force --out %s @%s", run.s, options.s) == 0 &&
              strstr(cli_err, "all 3 steps are done") && !strstr(cli_err, "GFLOP"),
          "%s", cli_err);
    size_t n;
    char *evals = read_file(path_join(run.s, "eval.jsonl").s, &n);
    CHECK(field(evals, "step") == 0 && strchr(evals, '\n') &&
              field(strchr(evals, '\n'), "step") == 3,
          "the evaluation that failed was made: %s", evals);
    free(evals);

    /* An evaluation of which one of two lines is missing is made again. */
    Path two = tmp_path("two-lines"), rows = path_join(two.s, "eval.jsonl");
    Path copy = tmp_path("two-lines-copy");
    CHECK(cli("sft " SMALL_SFT " --steps 2 --eval-every 2 --problems 1 --samples 2 --max-tokens 4 "
              "--valid %s --out %s",
              put_file("two.txt", "1+2=3").s, two.s) == 0,
          "%s", cli_err);
    copy_file(rows.s, copy.s);
    char *text2 = read_file(rows.s, &n);
    CHECK(!truncate(rows.s, strchr(text2, '\n') + 1 - text2), "truncate");
    free(text2);
    CHECK(cli("sft --resume --out %s", two.s) == 0 && same_files(rows.s, copy.s), "%s", cli_err);
}

/* Without --save-every there is a checkpoint before each evaluation, which the next one replaces.
 */
static void test_save_by_default(void)
{
    const char *base = base_model();
    Path run = tmp_path("passing");
    Path options = gives(8 + 64, "exit 7", run.s); /* the evaluation of step 4 */
    CHECK(cli("train --model %s " SMALL_TRAIN " --steps 6 --eval-every 2 --problems 1 --samples 4 "
              "@%s",
              base, options.s) == 1,
          "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 4 && newest_name(run.s, 3) == -1, "checkpoints %d and %d",
          newest_name(run.s, INT_MAX), newest_name(run.s, 3));
    CHECK(cli("sft " SMALL_SFT " --steps 4 --eval-every 1 --problems 1 --samples 2 --max-tokens 4 "
              "--force --out %s",
              run.s) == 0,
          "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 4 && newest_name(run.s, 3) == -1, "they stay");
    Path asked = tmp_path("evaluates"), err = tmp_path("killed.err");
    char last[200];
    snprintf(last, sizeof last, "echo 1 >%.100s; sleep 30", asked.s);
    options = gives(4 + 32, last, run.s);
    pid_t child = cli_start(err.s,
                            "train --model %s " SMALL_TRAIN " --steps 6 --eval-every 2 "
                            "--problems 1 --samples 4 --force @%s",
                            base, options.s);
    CHECK(wait_for_file(asked.s, 1), "no evaluation");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK(newest_name(run.s, INT_MAX) == 2, "the evaluation came before its checkpoint");
}

/* A signal after the tenth token. */
static void tenth_token(void *count, int id)
{
    (void)id;
    interrupt_seen = ++*(int *)count == 10 || interrupt_seen;
}

/* Sampling stops at once, whatever is still to come. */
static void check_sampling_stops(const char *base)
{
    enum { M = 4, LONGEST = 100 };
    Model m = model_load(model_dir(base).s);
    Extent x = {1, M, 4, LONGEST, 1, KEEP_NOTHING, false, SAVE_NOTHING};
    Engine e = extent_engine(&m, 1, x);
    int drawn = 0;
    Sampling s = {.temperature = 100,
                  .top_p = 1,
                  .max_tokens = LONGEST,
                  .on_token = tenth_token,
                  .context = &drawn};
    Ids ids = {0};
    ids_add(&ids, 1);
    rope_reserve(&m, LONGEST + 4);
    model_pack(&m, 1);
    Group *g = groups_new(&e, &m, x);
    group_prompt(g, ids);
    sample_groups(&e, &m, g, 1, &s);
    interrupt_seen = 0;
    CHECK(drawn >= 10 && drawn < 10 + M, "%d tokens", drawn);
    engine_free(&e);
    model_free(&m);
}

/* Signals are heard while responses are sampled, in an evaluation as in a step: the run ends soon,
 * with its last whole step saved; goes on, and ends as one that was never stopped. */
static void test_heard_soon(void)
{
    static const int signals[] = {SIGTERM, SIGHUP, SIGINT};
    const char *base = base_model();
    Path err = tmp_path("heard.err"), run = tmp_path("heard"),
         evals = path_join(run.s, "eval.jsonl");
    int status;
    check_sampling_stops(base);
    for (int i = 0; i < 3; i++) { /* in evaluations, which would take minutes; in a first batch */
        Path said = i < 2 ? err : tmp_path("first_batch.err");
        pid_t child = cli_start(
            said.s,
            "train --model %s " SMALL_TRAIN " --steps 50 --force "
            "--out %s --max-tokens %s",
            base, run.s,
            i < 2 ? "480 --no-check --task countdown --eval-every 1 --problems 500 --samples 64"
                  : "480 --no-check --prompts 1000");
        const struct timespec pause = {.tv_nsec = i < 2 ? 300000000 : 0};
        wait_for_file(i < 2 ? path_join(run.s, "run.json").s : said.s, 1);
        nanosleep(&pause, NULL);
        double since = now_seconds();
        kill(child, signals[i]);
        waitpid(child, &status, 0);
        CHECK(now_seconds() - since < 5, "signal %d: ended after %g s", signals[i],
              now_seconds() - since);
        if (i < 2)
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130 && !is_file(evals.s) &&
                      !is_dir(run.s),
                  "signal %d: %x", signals[i], (unsigned)status);
        else
            CHECK(WIFSIGNALED(status) && !is_dir(run.s), "the first batch: %x", (unsigned)status);
    }
    const char *how = SMALL_TRAIN " --task add:digits=2 --no-check --steps 3 --eval-every 3 "
                                  "--problems 60 --samples 8 --save-every 50";
    CHECK(cli("train --model %s %s --out %s", base, how, tmp_path("unheard").s) == 0, "%s",
          cli_err);
    pid_t child = cli_start(err.s, "train --model %s %s --out %s", base, how, run.s);
    CHECK(wait_for_file(path_join(run.s, "checkpoint-3/config.json").s, 1), "the last checkpoint");
    kill(child, SIGKILL); /* in the evaluation after it */
    waitpid(child, &status, 0);
    int rows;
    CHECK(WIFSIGNALED(status) && cut_lines(evals.s, 3, &rows) == 0 && rows == 1,
          "the last evaluation came before its checkpoint: %x", (unsigned)status);
    CHECK(cli("train --resume --out %s", run.s) == 0, "%s", cli_err);
    check_same_run("unheard", "heard", 3);
}

/* Nobody reads stderr any more: as SIGTERM. */
static void test_closed_stderr(void)
{
    Path run = tmp_path("unread"), text = put_file("unread.txt", "1+2=3"),
         pipe = tmp_path("unread-err");
    int status;
    char first;
    CHECK(!mkfifo(pipe.s, 0600), "mkfifo");
    pid_t child = cli_start(pipe.s,
                            "sft " SMALL_SFT " --data %s --valid %s --eval-every 1 "
                            "--steps 100000 --out %s",
                            text.s, text.s, run.s);
    int reader = open(pipe.s, O_RDONLY);
    CHECK(read(reader, &first, 1) == 1 && wait_for_file(path_join(run.s, "metrics.jsonl").s, 1),
          "no step");
    close(reader);
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130, "%x", (unsigned)status);
    CHECK(newest_name(run.s, INT_MAX) > 0, "nothing is saved");
}

static bool absent(const char *path) { return access(path, F_OK) != 0; }

/* A run that is refused at its first step leaves nothing in the way of the next command, and what
 * --force would have replaced is still there; --force does not hide what the first batch says. */
static void test_nothing_left(void)
{
    const char *base = base_model();
    Path run = tmp_path("refusal"), metrics = path_join(run.s, "metrics.jsonl");
    for (int i = 0; i < 3; i++)
        CHECK(cli("train --model %s " SMALL_TRAIN " --steps 2 --out %s %s", base, run.s,
                  i == 0   ? "--max-tokens 1"
                  : i == 1 ? "--max-tokens 1 --force"
                           : "--reward-cmd false") == 1 &&
                  absent(run.s),
              "%s", cli_err);
    CHECK(cli("sft " SMALL_SFT " --steps 1 --out %s", run.s) == 0, "%s", cli_err);
    CHECK(cli("train --model %s " SMALL_TRAIN " --max-tokens 1 --force --out %s", base, run.s) ==
                  1 &&
              newest_name(run.s, INT_MAX) == 1 && is_file(metrics.s),
          "the run is gone: %s", cli_err);
    unlink(path_join(run.s, "run.json").s);
    CHECK(cli("sft " SMALL_SFT " --steps 1 --out %s", run.s) == 1 &&
              strstr(cli_err, "holds a run already"),
          "somebody's checkpoints: %s", cli_err);
    Path begun = tmp_path("begun");
    make_dirs(begun.s);
    put_file("begun/run.json", "{\"command\": \"sft\"}"); /* killed in its first step */
    put_file("begun/metrics.jsonl", "");
    CHECK(cli("sft " SMALL_SFT " --steps 1 --out %s", begun.s) == 0, "%s", cli_err);
    CHECK(cli("sft " SMALL_SFT " --steps 3 --lr 10 --weight-decay 10 --warmup 0 --clip-norm 0 "
              "--eval-every 3 --problems 1 --reward-cmd false --out %s",
              tmp_path("first").s) == 1 &&
              newest_name(tmp_path("first").s, INT_MAX) == 3,
          "three steps are not nothing: %s", cli_err);
}

/* A checkpoint that holds what the run has not put there is named when its time comes, and does not
 * end the run. */
static void test_keep_others(void)
{
    Path run = tmp_path("keep-others");
    CHECK(cli("sft " SMALL_SFT " --steps 2 --save-every 1 --out %s", run.s) == 0, "%s", cli_err);
    make_dirs(path_join(run.s, "checkpoint-1/.ipynb_checkpoints").s);
    for (int i = 0; i < 2; i++) {
        CHECK(cli("sft --resume --steps %d --save-every 1 --keep 1 --out %s", 3 + i, run.s) == 0 &&
                  strstr(cli_err, "old-checkpoint-1: cannot be removed"),
              "%s", cli_err);
        CHECK(newest_name(run.s, INT_MAX) == 3 + i && newest_name(run.s, 2 + i) == -1,
              "other checkpoints");
    }
    CHECK(cli("sft " SMALL_SFT " --steps 1 --force --out %s", run.s) == 0, "%s", cli_err);
    make_dirs(path_join(run.s, "checkpoint-1/folder").s);
    CHECK(cli("sft " SMALL_SFT " --steps 2 --force --out %s", run.s) == 0 &&
              strstr(cli_err, "old-checkpoint-1.1: cannot be removed"),
          "%s", cli_err);
    CHECK(is_dir(path_join(run.s, "old-checkpoint-1/.ipynb_checkpoints").s), "it was deleted");
}

/* Another --steps changes every learning rate of a schedule that ends with them: it is listed. */
static void test_resume_schedule(void)
{
    Path run = tmp_path("scheduled");
    static const char *const schedules[] = {"constant", "linear", "cosine"};
    for (int i = 0; i < 3; i++) {
        CHECK(
            cli("sft --preset nano --task add:digits=1 --batch 2 --threads 1 --steps 2 --warmup 1 "
                "--schedule %s --force --out %s",
                schedules[i], run.s) == 0,
            "%s", cli_err);
        CHECK(cli("sft --resume --steps 4 --out %s", run.s) == (i > 0), "%s", cli_err);
        CHECK((strstr(cli_err, "--steps: was 2, is 4; --schedule") != NULL) == (i > 0), "%s",
              cli_err);
        CHECK(i == 0 || cli("sft --resume --steps 4 --force --out %s", run.s) == 0, "%s", cli_err);
    }
}

static void in_root(void *words)
{
    if (chdir("/"))
        _exit(126);
    cli_child(words);
}

/* The same in the root directory. */
static int cli_elsewhere(const char *fmt, ...) PRINTF_LIKE(1, 2);
static int cli_elsewhere(const char *fmt, ...)
{
    Words128 w;
    va_list ap;
    char *own = realpath(self, NULL);
    va_start(ap, fmt);
    cut_words(&w, fmt, ap);
    va_end(ap);
    for (int i = 0; i < w.argc && own; i++)
        if (w.argv[i] == self)
            w.argv[i] = own;
    int status = in_child(in_root, &w, "", cli_out, sizeof cli_out, cli_err, sizeof cli_err);
    free(own);
    return status;
}

/* The path of a file from this directory: ../../.. and so on. */
static Path from_here(const char *path)
{
    char here[2048];
    Buf up = {0};
    if (!getcwd(here, sizeof here))
        die("getcwd: %s", strerror(errno));
    for (char *c = here; *c && here[1]; c++)
        buf_str(&up, *c == '/' ? "../" : "");
    buf_str(&up, up.n ? path + 1 : path);
    Path p = path_printf("%s", up.s);
    buf_free(&up);
    return p;
}

/* A run goes on, and is replayed, from any directory; a file is what it holds, not how its path is
 * written; a base that was trained on is still the base. */
static void test_resume_elsewhere(void)
{
    Path base = tmp_path("moved-base"), run = tmp_path("moved"), copy = tmp_path("moved-2.jsonl");
    const char *data = "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n";
    Path file = put_file("moved.jsonl", data), here = from_here(file.s), base_here;
    put_file("moved-2.jsonl", data);
    CHECK(cli("sft --model %s --task add:digits=1 --threads 1 --steps 1 --batch 4 --schedule "
              "constant --out %s",
              base_model(), base.s) == 0,
          "%s", cli_err);
    base_here = from_here(base.s);
    CHECK(cli("train --model %s --data %s " SMALL_TRAIN " --kl-coef 0.1 --steps 1 --out %s",
              base_here.s, here.s, run.s) == 0,
          "%s", cli_err);
    CHECK(cli("sft --resume --steps 2 --out %s", base.s) == 0, "the base learns more: %s", cli_err);
    CHECK(cli_elsewhere("replay %s --step 1", run.s) == 0, "%s", cli_err);
    CHECK(cli_elsewhere("train --resume --steps 2 --out %s", run.s) == 0, "%s", cli_err);
    CHECK(cli("train --resume --steps 3 --data %s --out %s", here.s, run.s) == 0, "%s", cli_err);
    CHECK(cli("train --resume --steps 4 --data %s --model %s/checkpoint-1 --out %s", copy.s,
              base_here.s, run.s) == 0,
          "%s", cli_err);
    CHECK(cli("train --resume --steps 5 --model %s --out %s", base.s, run.s) == 1 &&
              strstr(cli_err, "checkpoint-2: is not the model that the run began with"),
          "%s", cli_err);
    put_file("moved-2.jsonl", "{\"prompt\": \"1+3:\", \"answer\": \"1+3=4,4\"}\n");
    CHECK(cli("train --resume --steps 5 --out %s", run.s) == 1 && strstr(cli_err, "--data: "), "%s",
          cli_err);
    write_file(path_join(run.s, "run.json").s, "{}", 2);
}

/* replay names a base that is another one now, not the ledger. */
static void test_replay_base(void)
{
    Path base = tmp_path("other-base"), run = tmp_path("of-other-base");
    const char *how = "--task add:digits=1 --threads 1 --batch 4 --force";
    CHECK(cli("sft --model %s %s --steps 1 --out %s", base_model(), how, base.s) == 0 &&
              cli("train --model %s " SMALL_TRAIN " --steps 1 --out %s", base.s, run.s) == 0 &&
              cli("sft --model %s %s --steps 1 --lr 0.1 --out %s", base_model(), how, base.s) == 0,
          "%s", cli_err);
    CHECK(cli("replay %s --step 1", run.s) == 1 &&
              strstr(cli_err, "other-base/checkpoint-1: is not the model that the run began with"),
          "%s", cli_err);
}

/* --max-prompt: of a task another problem is drawn, in training and evaluation; bits of those that
 * fit do not change. */
static void test_max_prompt_task(void)
{
    const char *base = base_model();
    Path run = tmp_path("short-prompts");
    size_t n;
    const char *task = "--task countdown:numbers=3,max=99";
    CHECK(cli("train --model %s %s --prompts 4 --rollouts 2 --max-tokens 8 --max-prompt 12 "
              "--steps 6 --no-check --threads 1 --out %s",
              base, task, run.s) == 0,
          "%s", cli_err);
    char *text = read_file(path_join(run.s, "rollouts.jsonl").s, &n);
    int rows = 0, longest = 0;
    for (char *at = text; (at = strstr(at, "\"prompt\": \"")); rows++) {
        at += 11;
        longest = imax(longest, (int)strcspn(at, "\""));
    }
    CHECK(rows == 48 && longest <= 12, "%d rows, prompts of up to %d tokens", rows, longest);
    free(text);
    CHECK(cli("replay %s --step 6 --group 3 --rollout 1 --threads 1", run.s) == 0, "%s", cli_err);
    for (int i = 0; i < 2; i++)
        CHECK(
            cli("%s --json --model %s %s --max-prompt 11 --problems 20 --samples 2 --max-tokens 8",
                i ? "geometry" : "eval", base, task) == 0 &&
                field(cli_out, i ? "groups" : "problems") == 20,
            "%s%s", cli_out, cli_err);
    CHECK(cli("train --model %s %s --max-prompt 3 --out %s", base, task,
              tmp_path("none-short").s) == 1 &&
              strstr(cli_err, "see --max-prompt"),
          "%s", cli_err);
}

/* The number of this name in each line of the ledger. */
static int ledger_numbers(const char *run, const char *name, double *x, int most)
{
    size_t length;
    char *text = read_file(path_join(tmp_path(run).s, "rollouts.jsonl").s, &length);
    int n = 0;
    for (char *line = text; n < most && *line; line = strchr(line, '\n') + 1)
        x[n++] = field(line, name);
    free(text);
    return n;
}

/* With several updates a step, the ledger's entropy and the step's KL are those of the policy that
 * sampled, before any of them. */
static void test_sampling_policy(void)
{
    const char *base = base_model();
    double entropy[2][16], kl[2];
    static const char *const how[] = {"", "--epochs 3 --mini-batch 2"};
    for (int i = 0; i < 2; i++) {
        Path run = tmp_path(i ? "several" : "once");
        CHECK(cli("train --model %s " SMALL_TRAIN " --steps 1 --lr 0.01 --kl exact --kl-coef 0.1 "
                  "%s --out %s",
                  base, how[i], run.s) == 0,
              "%s", cli_err);
        CHECK(ledger_numbers(i ? "several" : "once", "entropy", entropy[i], 16) == 16, "rows");
        size_t n;
        char *text = read_file(path_join(run.s, "metrics.jsonl").s, &n);
        kl[i] = field(text, "kl_exact");
        free(text);
    }
    for (int i = 0; i < 16; i++)
        CHECK(entropy[0][i] == entropy[1][i] && entropy[0][i] > 0, "row %d: entropy %g, and %g", i,
              entropy[0][i], entropy[1][i]);
    CHECK(kl[0] == kl[1], "KL %g, and %g", kl[0], kl[1]);
}

/* A run of which no step has an advantage says so in words, and stops after a few. */
static void test_no_signal(void)
{
    const char *base = base_model();
    Path run = tmp_path("constant"), options;
    char text[256];
    put_file("constant.sh", "while read -r x; do echo 0.5; done\n");
    snprintf(text, sizeof text, "--reward-cmd sh %.100s\n--out %.100s\n", tmp_path("constant.sh").s,
             run.s);
    options = put_file("constant-options", text);
    for (int i = 0; i < 3; i++) {
        int status = cli("train --model %s " SMALL_TRAIN " --steps 8 --force --method %s @%s %s",
                         base, i == 1 ? "g2rl" : "grpo", options.s, i == 2 ? "--no-check" : "");
        CHECK(status == (i == 0), "%d: %s", status, cli_err);
        CHECK((strstr(cli_err, "step 1: no group has an advantage") != NULL) == (i != 1) &&
                  (strstr(cli_err, "no weight has moved in 5 steps") != NULL) == (i == 0),
              "%s", cli_err);
    }
    Session s = {0};
    GroupSums live = {.groups = 4, .responses = 16, .dead = 3, .advantage2 = 1};
    GroupSums wrong = {.groups = 4, .responses = 16, .dead = 4};
    Signal x = {0};
    for (int i = 0; i < 200; i++)
        demand_signal(&s, i, &wrong, &x); /* 3,200 responses: the next may be right */
    demand_signal(&s, 200, &live, &x);
    for (int i = 0; i < 100; i++)
        demand_signal(&s, i, &wrong, &x);
    CHECK(x.learned && x.idle == 300, "it has learned: %d", x.idle);
    CHECK(cli("train --model %s --task countdown:numbers=6 --prompts 64 --rollouts 32 --max-tokens "
              "8 --steps 4 --out %s/unrewarded", base, tmp_dir()) == 1 &&
              strstr(cli_err, "none of the first 4096 responses earned a reward") &&
              is_dir(tmp_path("unrewarded/checkpoint-2").s), "%s", cli_err);
}

/* What programs print as a reward. */
static void test_reward_values(void)
{
    static const struct {
        const char *line;
        double reward;
    } cases[] = {{".5", 0.5},
                 {"1.", 1},
                 {"+1", 1},
                 {"-1e-3", -1e-3},
                 {"true", 1},
                 {"false", 0},
                 {"null", 0},
                 {" 2 \r", 2},
                 {"{\"reward\": true}", 1},
                 {"{\"reward\": null}", 0},
                 {"{\"reward\": -0.25}", -0.25}};
    static const char *const bad[] = {
        "",       ".",   "+",   "1,5",   "0x1", "nan", "inf",
        "1e999",  "yes", "[1]", "\"1\"", "1 2", "{}",  "{\"reward\": .5}",
        "trueish"};
    Buf reason = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double reward = -7;
        bool none = false;
        CHECK(reward_parse(cases[i].line, strlen(cases[i].line), &reward, &none, &reason) &&
                  reward == cases[i].reward && none == (strstr(cases[i].line, "null") != NULL),
              "%s: %g", cases[i].line, reward);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double reward = 0;
        bool none;
        CHECK(!reward_parse(bad[i], strlen(bad[i]), &reward, &none, &reason), "%s: %g", bad[i],
              reward);
    }
    buf_free(&reason);
    CHECK(cli("sft --preset nano --adam-eps 0 --out %s", tmp_path("x").s) == 2 &&
              strstr(cli_err, "--adam-eps: '0'; expected a number from 1e-20"),
          "%s", cli_err);
}

/* --out may not hold the model to begin with: the new run would delete it. */
static void test_out_is_model(void)
{
    Path run = tmp_path("own-model"), newest = path_join(run.s, "checkpoint-1");
    CHECK(cli("sft " SMALL_SFT " --steps 1 --out %s", run.s) == 0, "%s", cli_err);
    for (int i = 0; i < 3; i++)
        CHECK(cli("sft --model %s --steps 2 --force --out %s", i == 1 ? newest.s : run.s,
                  i == 2 ? newest.s : run.s) == 1 &&
                  strstr(cli_err, "holds the model to begin with") && is_dir(newest.s),
              "%s", cli_err);
    CHECK(cli("sft --model %s --steps 1 --out %s-2", run.s, run.s) == 0, "%s", cli_err);
}

/* --ledger short leaves out what grows with the square of the group, and nothing else. */
static void test_short_ledger(void)
{
    const char *base = base_model();
    struct stat info[2];
    size_t n;
    for (int i = 0; i < 2; i++) {
        Path run = tmp_path(i ? "ledger-short" : "ledger-full"),
             rows = path_join(run.s, "rollouts.jsonl");
        CHECK(cli("train --model %s " SMALL_TRAIN " --rollouts 32 --steps 1 --out %s --ledger %s",
                  base, run.s, i ? "short" : "full") == 0 &&
                  !stat(rows.s, &info[i]),
              "%s", cli_err);
        char *text = read_file(rows.s, &n);
        CHECK((strstr(text, "\"S\": ") != NULL) == !i && (strstr(text, "\"w\": ") != NULL) == !i &&
                  (strstr(text, "\"semantic\": ") != NULL) == !i && strstr(text, "\"nubar\": ") &&
                  strstr(text, "\"advantage\": "),
              "%.400s", text);
        free(text);
    }
    CHECK(info[1].st_size * 3 < info[0].st_size, "%lld and %lld bytes", (long long)info[0].st_size,
          (long long)info[1].st_size);
    CHECK(same_lines(tmp_path("ledger-short/metrics.jsonl").s,
                     tmp_path("ledger-full/metrics.jsonl").s),
          "the metrics");
    CHECK(cli("replay %s --step 1 --group 2 --rollout 5", tmp_path("ledger-short").s) == 0, "%s",
          cli_err);
    CHECK(cli("train --model %s " SMALL_TRAIN " --steps 1 --out %s", base,
              tmp_path("small-ledger").s) == 0 &&
              !strstr(cli_err, "GB"),
          "%s", cli_err);
}

#endif
