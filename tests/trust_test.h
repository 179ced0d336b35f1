/* trust.h: tests of stopping, going on, failing, replaying. */
#ifndef TESTS_TRUST_H
#define TESTS_TRUST_H

#include "train_test.h"

/* The values of a trainer.safetensors, behind its header, which holds times. */
static bool same_tensors(const char *a, const char *b)
{
    size_t n[2] = {0};
    uint64_t header[2] = {0};
    bool there = is_file(a) && is_file(b);
    char *text[2] = {there ? read_file(a, &n[0]) : NULL, there ? read_file(b, &n[1]) : NULL};
    for (int i = 0; i < 2 && there; i++)
        memcpy(&header[i], text[i], 8);
    bool same = there && n[0] - header[0] == n[1] - header[1] && n[0] > header[0] + 8 &&
                !memcmp(text[0] + 8 + header[0], text[1] + 8 + header[1], n[0] - 8 - header[0]);
    free(text[0]);
    free(text[1]);
    return same;
}

/* Are two runs equal in every file, times aside? `steps`: their last checkpoint. */
static void check_same_run(const char *a, const char *b, int steps)
{
    static const char *const lines[] = {"metrics.jsonl", "rollouts.jsonl", "eval.jsonl"};
    char name[32];
    Path x = tmp_path(a), y = tmp_path(b);
    for (int i = 0; i < 3; i++) {
        Path one = path_join(x.s, lines[i]), other = path_join(y.s, lines[i]);
        CHECK(is_file(one.s) == is_file(other.s) && (!is_file(one.s) || same_lines(one.s, other.s)),
              "%s of %s and of %s differ", lines[i], a, b);
    }
    snprintf(name, sizeof name, "checkpoint-%d", steps);
    Path one = path_join(x.s, name), other = path_join(y.s, name);
    static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json"};
    for (int i = 0; i < 3; i++)
        CHECK(same_files(path_join(one.s, files[i]).s, path_join(other.s, files[i]).s),
              "%s of %s and of %s differ", files[i], one.s, other.s);
    CHECK(same_tensors(path_join(one.s, "trainer.safetensors").s,
                       path_join(other.s, "trainer.safetensors").s),
          "m, v or weights of %s", one.s);
}

/* As if the run had been killed after a checkpoint: a later one goes, and its files go on. */
static void break_off(const char *run, int checkpoint)
{
    static const char *const files[] = {"metrics.jsonl", "eval.jsonl", "rollouts.jsonl"};
    Path dir = tmp_path(run);
    remove_dir(checkpoint_path(dir.s, "", checkpoint).s);
    make_dirs(checkpoint_path(dir.s, "tmp-", checkpoint + 3).s);
    write_file(path_join(dir.s, "run.json.tmp-1").s, "{", 1);
    for (int i = 0; i < 3; i++) {
        Path path = path_join(dir.s, files[i]);
        FILE *f = is_file(path.s) ? fopen(path.s, "ab") : NULL;
        if (f)
            fputs("{\"step\": 99, \"loss\": 1}\n{\"step\": 2, \"lo", f);
        if (f)
            fclose(f);
    }
}

enum { SMALL_STEPS = 4 };
#define SMALL_TRAIN "--task add:digits=1 --prompts 4 --rollouts 4 --max-tokens 20 --threads 1"
#define SMALL_SFT "--preset nano --task add:digits=1 --batch 2 --threads 1 --schedule constant"

/* N steps are k steps, --resume, and N - k steps: weights, AdamW's state and every line. */
static void test_resume(void)
{
    static const char *const how[][2] = {
        {"train",
         "--dtype bf16 --warmup 3 --schedule cosine --eval-every 2 --problems 3 --samples 2 "
         "--mini-batch 2 --epochs 2 --kl-coef 0.1"},
        {"train", "--method evol --dtype f16 --weight-decay 0.1"},
        {"sft", "--preset nano --dtype bf16 --batch 3 --warmup 2 --eval-every 1 --max-length 4"},
        {"sft", "--preset nano --task add:digits=1 --batch 4 --shuffle 0"},
    };
    const char *base = base_model(), *dir = tmp_dir();
    Path text = put_file("resume.txt", "1+2=3,4+5=9,6*7=42,8-1=7");
    for (int i = 0; i < 4; i++) {
        Buf options = {0};
        buf_str(&options, how[i][1]);
        if (i < 2)
            buf_printf(&options, " --model %s " SMALL_TRAIN, base);
        if (i == 2)
            buf_printf(&options, " --data %s --valid %s", text.s, text.s);
        for (int k = 0; k < 2; k++)
            CHECK(cli("%s %s --steps %d --save-every 2 --threads 1 --force --out %s/go%d",
                      how[i][0], options.s, SMALL_STEPS, dir, k) == 0,
                  "%s", cli_err);
        buf_free(&options);
        break_off("go1", SMALL_STEPS);
        CHECK(cli("%s --resume --micro-batch 2 %s --out %s/go1", how[i][0],
                  i == 1   ? "--recompute"
                  : i == 3 ? "--threads 2"
                           : "",
                  dir) == 0 &&
                  strstr(cli_err, "/checkpoint-2"),
              "%s", cli_err);
        check_same_run("go0", "go1", SMALL_STEPS);
        CHECK(!is_dir(tmp_path("go1/tmp-checkpoint-7").s) &&
                  !is_file(tmp_path("go1/run.json.tmp-1").s), "what was half-made is there");
    }
    CHECK(cli("sft --resume --out %s/go1", dir) == 0, "nothing is left to do: %s", cli_err);
    check_same_run("go0", "go1", SMALL_STEPS);
    CHECK(cli("sft " SMALL_SFT " --steps 4 --force --out %s/go0", dir) == 0, "%s", cli_err);
    for (int steps = 0; steps < 5; steps += 2)
        CHECK(cli("sft " SMALL_SFT " --steps %d %s --out %s/go1", steps,
                  steps ? "--resume" : "--force", dir) == 0,
              "%s", cli_err);
    check_same_run("go0", "go1", 4);
}

/* With other options than the run's, --resume lists them and stops, having changed nothing. */
static void test_resume_refused(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Path run = tmp_path("refused"), copy = tmp_path("refused-copy"), model = tmp_path("refused-m");
    Path data = put_file("refused.jsonl", "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    Path metrics = path_join(run.s, "metrics.jsonl");
    CHECK(cli("sft --model %s --task add:digits=1 --threads 1 --steps 1 --out %s", base, model.s) ==
              0,
          "%s", cli_err);
    CHECK(cli("train --model %s --data %s --task add:digits=1 --threads 1 --prompts 2 --rollouts 4 "
              "--steps 2 "
              "--kl-coef 0.1 --lr 0.1 --beta2 0.95 --force --out %s",
              model.s, data.s, run.s) == 0,
          "%s", cli_err);
    copy_file(metrics.s, copy.s);
    CHECK(
        cli("train --resume --lr 0.3 --beta2 0.95 --method grpo --steps 3 --out %s", run.s) == 1 &&
            strstr(cli_err, "--lr: was 0.1, is 0.3\n") &&
            strstr(cli_err, "--method: was \"g2rl\", is \"grpo\"\n") &&
            strstr(cli_err, "--force") && !strstr(cli_err, "beta2") && !strstr(cli_err, "--steps:"),
        "%s", cli_err);
    CHECK(same_files(metrics.s, copy.s), "a refused --resume has changed the run");
    CHECK(cli("train --resume --steps 1 --out %s", run.s) == 1 && strstr(cli_err, "--steps 2"),
          "%s", cli_err);
    CHECK(cli("sft --resume --out %s", run.s) == 1 && strstr(cli_err, "a run of train"), "%s",
          cli_err);
    CHECK(cli("train --resume --out %s/none", dir) == 1 && strstr(cli_err, "none/run.json"), "%s",
          cli_err);
    put_file("refused.jsonl", "{\"prompt\": \"1+3:\", \"answer\": \"1+3=4,4\"}\n");
    CHECK(cli("train --resume --steps 3 --out %s", run.s) == 1 && strstr(cli_err, "--data: "), "%s",
          cli_err);
    CHECK(cli("train --resume --steps 3 --lr 0.3 --force --out %s", run.s) == 0 &&
              strstr(cli_err, "--data: ") && strstr(cli_err, "--lr: "),
          "--force goes on: %s", cli_err);
    CHECK(cli("train --resume --steps 4 --lr 0.3 --out %s", run.s) == 0,
          "these are its options "
          "from then on: %s",
          cli_err);
    CHECK(cli("sft --model %s --task add:digits=1 --threads 1 --steps 2 --force --out %s", base,
              model.s) == 0,
          "%s", cli_err);
    CHECK(cli("train --resume --steps 5 --out %s", run.s) == 1 && strstr(cli_err, "began with") &&
              strstr(cli_err, "checkpoint-1: is not there"),
          "the reference was replaced: %s", cli_err);
    CHECK(cli("train --resume --steps 5 --model %s --out %s", model.s, run.s) == 1 &&
              strstr(cli_err, "is not the model that the run began with"),
          "the reference's weights: %s", cli_err);
    copy_file(path_join(run.s, "run.json").s, copy.s);
    put_file("refused/run.json", "{\"command\": \"train\", \"lr\": \"much\"}");
    CHECK(cli("train --resume --out %s", run.s) == 1 &&
              strstr(cli_err, "refused/run.json: line 1") && strstr(cli_err, "'much'"),
          "%s", cli_err);
    put_file("refused/run.json", "{\"command\": \"train\"}");
    CHECK(cli("train --resume --out %s", run.s) == 1 &&
              strstr(cli_err, "refused/run.json: has no model"),
          "%s", cli_err);
    put_file("refused/run.json", "{\"command\": \"tra");
    CHECK(cli("train --resume --out %s", run.s) == 1 && strstr(cli_err, "refused/run.json: line 1"),
          "%s", cli_err);
    copy_file(copy.s, path_join(run.s, "run.json").s);
    write_file(metrics.s, "", 0);
    CHECK(cli("train --resume --steps 5 --model %s --kl-coef 0 --out %s", base, run.s) == 1 &&
              strstr(cli_err, "--kl-coef: was 0.1, is 0"),
          "%s", cli_err);
    remove_dir(checkpoint_path(run.s, "", 4).s);
    remove_dir(checkpoint_path(run.s, "", 3).s);
    remove_dir(checkpoint_path(run.s, "", 2).s);
    CHECK(cli("train --resume --out %s", run.s) == 1 && strstr(cli_err, "no complete checkpoint"),
          "%s", cli_err);
}

/* A file of the run that ends before its checkpoint; a torn line, a later one, another text. */
static void test_cut_lines(void)
{
    static const struct {
        const char *text;
        int step, last, rows;
        size_t size;
    } cases[] = {
        {"", 3, 0, 0, 0},
        {"{\"step\": 0}\n{\"step\": 2}\n", 0, 0, 1, 12},
        {"{\"step\": 1}\n{\"step\": 1}\n{\"step\": 2}\n", 1, 1, 2, 24},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n", 2, 2, 1, 24},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}\n", 3, 3, 1, 36},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3}", 9, 2, 1, 24},
        {"{\"step\": 1}\n{\"st", 9, 1, 1, 12},
        {"{\"step\": 1}\nother\n{\"step\": 2}\n", 9, 1, 1, 12},
        {"{\"step\": 10}\n{\"step\": 9}\n", 9, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        Path path = put_file("cut.jsonl", cases[i].text);
        int rows, last = cut_lines(path.s, cases[i].step, &rows);
        free(read_file(path.s, &n));
        CHECK(last == cases[i].last && n == cases[i].size && rows == cases[i].rows,
              "case %zu: step %d, %zu bytes, %d rows", i, last, n, rows);
    }
    int rows;
    CHECK(cut_lines(tmp_path("nothing.jsonl").s, 3, &rows) == 0 && rows == 0,
          "a file that is not there");
    Path run = tmp_path("cut-run");
    CHECK(cli("sft " SMALL_SFT " --steps 2 --out %s", run.s) == 0, "%s", cli_err);
    put_file("cut-run/metrics.jsonl", "{\"step\": 1}\n");
    CHECK(cli("sft --resume --steps 3 --out %s", run.s) == 1 &&
              strstr(cli_err, "ends with step 1, and the checkpoint is of step 2"),
          "%s", cli_err);
    CHECK(cli("sft --resume --steps 3 --force --out %s", run.s) == 0, "%s", cli_err);
}

static void cut_file(const char *path, int bytes)
{
    struct stat info;
    if (stat(path, &info) || truncate(path, info.st_size - bytes))
        die("%s: %s", path, strerror(errno));
}

/* Another trainer.safetensors: the notes of the old one, and one tensor of a wrong shape. */
static void misshape(const char *path)
{
    static const float x[6] = {0};
    SafeTensors st = st_open_file(path);
    StOut *out = xcalloc((size_t)st.n, sizeof *out);
    Buf notes = {0};
    float **copy = xcalloc((size_t)st.n, sizeof *copy);
    for (int i = 0; i < st.n_notes; i++)
        if (strcmp(st.notes[i].key, "format"))
            buf_printf(&notes, ",\"%s\":\"%s\"", st.notes[i].key, st.notes[i].text);
    for (int i = 0; i < st.n; i++) {
        const StTensor *t = &st.tensors[i];
        copy[i] = xmalloc(t->bytes);
        st_read_f32(t, copy[i]);
        out[i] = (StOut){t->name, t->rank, {t->shape[0], t->shape[1]}, copy[i], ST_F32};
        if (!strcmp(t->name, "v.model.norm.weight"))
            out[i] = (StOut){t->name, 1, {6}, x, ST_F32};
    }
    Path other = tmp_path("misshapen");
    st_write(other.s, notes.s, out, st.n);
    for (int i = 0; i < st.n; i++)
        free(copy[i]);
    free(copy);
    free(out);
    buf_free(&notes);
    st_close(&st);
    copy_file(other.s, path);
}

/* A checkpoint that is not whole is passed over, one that does not fit is refused by name. */
static void test_incomplete(void)
{
    static const char *const broken[][3] = {
        {"trainer.safetensors", "", "trainer.safetensors: cannot be opened"},
        {"config.json", "", "config.json: is not there"},
        {"trainer.safetensors", "5", "trainer.safetensors: header"},
        {"model.safetensors", "1", "model.safetensors: header"},
        {"model.safetensors", "", "model.safetensors: cannot be opened"},
        {"checkpoint-2/trainer.safetensors", "2", "is of step 2"},
    };
    Path whole = tmp_path("complete");
    CHECK(cli("sft " SMALL_SFT " --steps 4 --save-every 2 --out %s", whole.s) == 0, "%s", cli_err);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        Path run = tmp_path("broken"), dir = path_join(run.s, "checkpoint-4");
        Path from = path_join(run.s, broken[i][0]);
        Path file = path_join(dir.s, i == 5 ? "trainer.safetensors" : broken[i][0]);
        char command[3 * sizeof(Path) + 32];
        snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", run.s, whole.s, run.s);
        CHECK(system(command) == 0, "%s", command);
        if (i == 5)
            copy_file(from.s, file.s);
        else if (*broken[i][1])
            cut_file(file.s, atoi(broken[i][1]));
        else
            unlink(file.s);
        CHECK(cli("sft --resume --out %s", run.s) == 0 && strstr(cli_err, broken[i][2]) &&
                  strstr(cli_err, "checkpoint-4: passed over") &&
                  strstr(cli_err, "going on from") && strstr(cli_err, "checkpoint-2"),
              "%s: %s", broken[i][2], cli_err);
        check_same_run("complete", "broken", 4);
    }
    Path file = tmp_path("broken/checkpoint-4/model.safetensors");
    size_t n;
    char *text = read_file(file.s, &n);
    text[n - 1] ^= 1;
    write_file(file.s, text, n);
    CHECK(cli("sft --resume --steps 5 --out %s", tmp_path("broken").s) == 1 &&
              strstr(cli_err, "weights_hash") && strstr(cli_err, "checkpoint-4"),
          "%s", cli_err);
    text[n - 1] ^= 1;
    write_file(file.s, text, n);
    free(text);
    misshape(tmp_path("broken/checkpoint-4/trainer.safetensors").s);
    CHECK(cli("sft --resume --steps 5 --out %s", tmp_path("broken").s) == 1 &&
              strstr(cli_err, "v.model.norm.weight has shape [6]; expected [64]"),
          "%s", cli_err);
}

/* --keep N leaves the newest N checkpoints; 0 all; a run anew leaves none of the old ones. */
static void test_keep(void)
{
    Path run = tmp_path("keep");
    for (int keep = 0; keep < 4; keep++) {
        CHECK(cli("sft " SMALL_SFT " --steps 4 --save-every 1 --keep %d --force --out %s", keep,
                  run.s) == 0,
              "%s", cli_err);
        for (int step = 1; step <= 5; step++)
            CHECK(is_dir(checkpoint_path(run.s, "", step).s) ==
                      (step <= 4 && (!keep || step > 4 - keep)),
                  "--keep %d: checkpoint %d", keep, step);
    }
    CHECK(cli("sft --resume --steps 5 --keep 1 --out %s", run.s) == 0, "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 5 && newest_name(run.s, 4) == -1, "--keep 1");
    CHECK(cli("sft " SMALL_SFT " --steps 3 --force --out %s", run.s) == 0, "%s", cli_err);
    CHECK(newest_name(run.s, INT_MAX) == 3 && newest_name(run.s, 2) == -1, "--force");
}

/* A command line that runs on its own; its stderr goes to a file. */
static pid_t cli_start(const char *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
static pid_t cli_start(const char *err, const char *fmt, ...)
{
    Words128 w;
    va_list ap;
    va_start(ap, fmt);
    cut_words(&w, fmt, ap);
    va_end(ap);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGINT, SIG_DFL); /* a shell's job in the background ignores it, nohup's the other */
        signal(SIGHUP, SIG_DFL);
        if (freopen(err, "w", stderr) && freopen("/dev/null", "w", stdout))
            cli_child(&w);
        _exit(127);
    }
    return child;
}

/* Waits, at most 20 seconds, until a file is there and holds at least `bytes`. */
static bool wait_for_file(const char *path, off_t bytes)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct stat info;
    for (int i = 0; i < 10000; i++) {
        if (!stat(path, &info) && info.st_size >= bytes)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* A first SIGINT or SIGTERM: the last whole step is saved, status 130. A second ends at once. */
static void test_interrupt(void)
{
    const char *base = base_model();
    Path err = tmp_path("interrupt.err"), run = tmp_path("interrupt");
    Path metrics = path_join(run.s, "metrics.jsonl");
    size_t n;
    int status;
    for (int i = 0; i < 2; i++) {
        remove_dir(checkpoint_path(run.s, "", 1).s);
        unlink(metrics.s);
        pid_t child = i ? cli_start(err.s,
                                    "train --model %s " SMALL_TRAIN " --steps 100000 --force "
                                    "--out %s",
                                    base, run.s)
                        : cli_start(err.s, "sft " SMALL_SFT " --steps 100000 --out %s", run.s);
        CHECK(wait_for_file(metrics.s, 1), "no step");
        kill(child, i ? SIGTERM : SIGINT);
        waitpid(child, &status, 0);
        char *text = read_file(err.s, &n), *lines = read_file(metrics.s, &n);
        char *last = strstr(text, "g2rl: stopped after step ");
        int step = last ? atoi(last + 25) : -1;
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 130, "status %x: %s", (unsigned)status,
              text);
        CHECK(last && strchr(last, '\n') == last + strlen(last) - 1 && strstr(last, "--resume"),
              "one line: %s", text);
        CHECK(step > 0 && newest_name(run.s, INT_MAX) == step &&
                  field(strrchr(lines, '{'), "step") == step,
              "step %d is not the last", step);
        free(text);
        free(lines);
        CHECK(cli("%s --resume --steps %d --out %s", i ? "train" : "sft", step + 1, run.s) == 0,
              "%s", cli_err);
    }
    /* A reward command that hangs in step 2, and goes on when its input ends: we wait a second. */
    Path asked = tmp_path("asked"), script = put_file("hangs.sh", ""), twice = tmp_path("twice");
    Buf text = {0};
    buf_printf(&text, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do read x; "
               "echo $((i %% 3)); done\nread x; echo 1 >%s; sleep 30\n", asked.s);
    write_file(script.s, text.s, text.n);
    text.n = 0;
    buf_printf(&text, "--reward-cmd sh %s\n--out %s\n", script.s, twice.s);
    Path options = put_file("hangs", text.s);
    buf_free(&text);
    pid_t child = cli_start(err.s, "train --model %s " SMALL_TRAIN " --steps 9 @%s", base,
                            options.s);
    CHECK(wait_for_file(asked.s, 1), "no second step");
    double since = now_seconds();
    kill(child, SIGTERM);
    CHECK(wait_for_file(path_join(twice.s, "checkpoint-1/config.json").s, 1) &&
              now_seconds() - since < 5, "not saved after %g s", now_seconds() - since);
    kill(child, SIGINT);
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT && now_seconds() - since < 6,
          "the second: %x after %g s", (unsigned)status, now_seconds() - since);
}

static void demand_for_dying(void *model)
{
    const Model *m = model;
    demand_finite(m, 7, 0.5, grads_norm(m, 1));
}

static void save_run_for_dying(void *run) { run_save(run); }

/* What is not finite ends the run with the tensor's name, and reaches no checkpoint. */
static void test_not_finite(void)
{
    char err[512];
    Session s = {0};
    Path out = tmp_path("finite");
    s.o.out = out.s;
    make_dirs(out.s);
    s.model = model_new(preset_find("nano"));
    model_init(&s.model, 1);
    model_trainable(&s.model, false);
    Model *m = &s.model;
    Run run = {.s = &s, .step = 3, .saved = -1, .adam = {.step = 3}};
    CHECK(dies(demand_for_dying, m, err, sizeof err) == 0, "%s", err);
    int t = layer_tensor(2, GATE_PROJ);
    float *const flat[4] = {m->grads, m->params, m->m, m->v};
    for (int i = 0; i < 4; i++) {
        float *x = at(m, flat[i], t) + m->tensors[t].size - 1, before = *x;
        *x = i % 2 ? (float)INFINITY : (float)NAN;
        int status = dies(i < 2 ? demand_for_dying : save_run_for_dying,
                          i < 2 ? (void *)m : (void *)&run, err, sizeof err);
        CHECK(status == 1 && strstr(err, "model.layers.2.mlp.gate_proj.weight") &&
                  strstr(err, i < 2 ? "step 7" : "step 3"),
              "array %d: %s", i, err);
        *x = before;
    }
    CHECK(newest_name(out.s, INT_MAX) == -1, "it was saved");
    session_free(&s);
    CHECK(cli("sft " SMALL_SFT " --steps 60 --warmup 0 --lr 10 --weight-decay 10 "
              " --save-every 1 --keep 2 --force --out %s",
              out.s) == 1 &&
              strstr(cli_err, "g2rl: step ") && strstr(cli_err, "model.") &&
              strstr(cli_err, "finite"),
          "%s", cli_err);
    char first[512], *stopped = strstr(cli_err, "g2rl: step ");
    int step = stopped ? atoi(stopped + 11) : 0;
    snprintf(first, sizeof first, "%s", stopped ? stopped : "nothing");
    CHECK(step > 3 && newest_name(out.s, INT_MAX) == step - 1, "step %d", step);
    CHECK(cli("sft --resume --out %s", out.s) == 1 && strstr(cli_err, first), "again: %s", cli_err);
    CHECK(cli("sft " SMALL_SFT " --steps 60 --warmup 0 --lr 10 --weight-decay 10 --force --out %s",
              out.s) == 1 && newest_name(out.s, INT_MAX) == step - 1 &&
              newest_name(out.s, step - 2) == -1,
          "without --save-every the last whole step is saved: %s", cli_err);
    Model good = model_load(out.s);
    CHECK(!first_not_finite(&good, good.params), "the last checkpoint");
    model_free(&good);
}

/* A run in a directory where nobody else but root may write. */
static void begin_for_dying(void *run)
{
    if (!geteuid() && (setgid(65534) || setuid(65534)))
        die("cannot become another user");
    run_begin(run);
}

/* A command line in a bad place. */
typedef struct {
    int resource; /* of which it has `most`; 0: all there is */
    rlim_t most;
    const char *output; /* where stdout goes; NULL: to the test */
    bool unread;        /* to a pipe that nobody reads, rather */
    int closed;         /* bit fd: that file is closed */
    Words128 words;
} Corner;

static void corner_child(void *argument)
{
    Corner *c = argument;
    struct rlimit limit = {c->most, c->most};
    int ends[2];
    if (c->most)
        setrlimit(c->resource, &limit);
    if (c->output && !freopen(c->output, "w", stdout))
        _exit(126);
    if (c->unread && (pipe(ends) || dup2(ends[1], 1) != 1 || close(ends[0]) || close(ends[1])))
        _exit(126);
    for (int fd = 0; fd < 3; fd++)
        if (c->closed >> fd & 1)
            close(fd);
    cli_child(&c->words);
}

/* Runs `g2rl <words>` there. */
static int cli_corner(Corner c, const char *input, const char *fmt, ...) PRINTF_LIKE(3, 4);
static int cli_corner(Corner c, const char *input, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    cut_words(&c.words, fmt, ap);
    va_end(ap);
    return in_child(corner_child, &c, input, cli_out, sizeof cli_out, cli_err, sizeof cli_err);
}

/* One line on stderr, and this in it. */
static bool says_only(const char *text)
{
    const char *end = strchr(cli_err, '\n');
    return !strncmp(cli_err, "g2rl: ", 6) && end && !end[1] && strstr(cli_err, text);
}

/* What cannot be printed is not passed over in silence: a full disk, a closed file, a pipe that
 * nobody reads. And nothing that is printed finds its way into a file of a run. */
static void test_output_failures(void)
{
    const char *base = base_model();
    Path model = model_dir(base), run = tmp_path("no-stderr");
    Path tokenize = path_join("tokenize --tokenizer ", model.s);
    const char *const commands[] = {
        "help", "data --help", "data --problems 3", "data --problems 10000000",
        "verify --pred 1 --gold 1", tokenize.s};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        CHECK(cli_corner((Corner){.output = "/dev/full"}, "{\"text\": \"1\"}\n", "%s",
                         commands[i]) == 1 && says_only("stdout: cannot be written: No space"),
              "%s: %s", commands[i], cli_err);
        CHECK(cli_corner((Corner){.closed = 1 << 1}, "{\"text\": \"1\"}\n", "%s",
                         commands[i]) == 1 && says_only("stdout: cannot be written: Bad file"),
              "%s: %s", commands[i], cli_err);
    }
    static const char *const on_models[] = {
        "sample --prompt 1+2: --max-tokens 3", "score",
        "eval --task add:digits=1 --problems 2 --samples 2 --max-tokens 4 --json",
        "explain --task add:digits=1 --rollouts 2 --max-tokens 4 --json"};
    for (size_t i = 0; i < sizeof on_models / sizeof *on_models; i++)
        CHECK(cli_corner((Corner){.output = "/dev/full"}, "{\"text\": \"1+2\"}\n",
                         "%s --threads 1 --model %s", on_models[i], base) == 1 &&
                  strstr(cli_err, "g2rl: stdout: cannot be written: No space"),
              "%s: %s", on_models[i], cli_err);
    double since = now_seconds();
    CHECK(cli_corner((Corner){.unread = true}, "", "data --problems 10000000") == -1 && !*cli_err,
          "SIGPIPE ends it without a word: %s", cli_err);
    signal(SIGPIPE, SIG_IGN); /* as some programs leave it to those that they start */
    CHECK(cli_corner((Corner){.unread = true}, "", "data --problems 10000000") == 1 &&
              says_only("stdout: cannot be written: Broken pipe"),
          "%s", cli_err);
    signal(SIGPIPE, SIG_DFL);
    CHECK(now_seconds() - since < 10, "it went on for %g s", now_seconds() - since);
    CHECK(cli_corner((Corner){.closed = 5}, "", "sft " SMALL_SFT " --steps 2 --out %s", run.s) == 0,
          "without stdin and stderr");
    size_t n;
    char *text = read_file(path_join(run.s, "metrics.jsonl").s, &n), *at = text;
    for (int i = 0; i < 2; i++, at = strchr(at, '\n') + 1)
        CHECK(field(at, "step") == i + 1 && *at == '{', "%s", text);
    CHECK(!*at, "%s", at);
    free(text);
}

/* What is no file, given as one. */
static void test_input_failures(void)
{
    static const struct {
        const char *name, *target, *expected;
    } cases[] = {
        {"turning", "turning", "cannot be opened: Too many levels"},
        {"nothing", "/dev/null", "holds no "},
        {"folder", "/", "cannot be read: Is a directory"},
        {"vanished", "/dev/null/x", "cannot be opened: Not a directory"},
        {"pipe", NULL, "holds no "},
    };
    const char *base = base_model(), *dir = tmp_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Path path = tmp_path(cases[i].name);
        CHECK(cases[i].target ? !symlink(cases[i].target, path.s) : !mkfifo(path.s, 0600), "%s",
              path.s);
        CHECK(cli("data --data %s", path.s) == 1 && says_only(cases[i].expected) &&
                  strstr(cli_err, path.s),
              "%s: %s", cases[i].name, cli_err);
        if (i < 4)
            CHECK(cli("sft --model %s --data %s --out %s/no-run", base, path.s, dir) == 1 &&
                      says_only(cases[i].expected) && strstr(cli_err, path.s),
                  "%s: %s", cases[i].name, cli_err);
    }
    Path sparse = put_file("sparse.jsonl", "{");
    CHECK(!truncate(sparse.s, (off_t)1 << 40) && cli("data --data %s", sparse.s) == 1 &&
              says_only("is longer than 1073741824 bytes"),
          "%s", cli_err);
    Buf ids = {0};
    buf_str(&ids, "{\"input_ids\": [1");
    for (int i = 1; i < 5000; i++)
        buf_str(&ids, ", 1");
    buf_str(&ids, "]}\n");
    CHECK(cli_in(ids.s, "score --model %s", base) == 1 && says_only("stdin: line 1: 5000 tokens"),
          "%s", cli_err);
    Path many = put_file("many.txt", "{prompt}11111111111111111111111111111");
    CHECK(cli("sample --model %s --template %s --prompt 1 --max-tokens 500", base, many.s) == 1 &&
              says_only("--prompt: ") && strstr(cli_err, "tokens long; expected at most"),
          "%s", cli_err);
    CHECK(cli("sft --model %s --data %s --out %s/no-run", base, put_file("long.jsonl", ids.s).s,
              dir) == 1 && says_only("long.jsonl: all 1 records are over 512 tokens"),
          "%s", cli_err);
    buf_free(&ids);
    CHECK(!is_dir(tmp_path("no-run").s), "a run without its data");
}

static void read_cut(void *path)
{
    SafeTensors st = st_open_file(path);
    if (truncate(path, 4096))
        die("cannot be cut");
    size_t n = 0;
    for (int i = 0; i < st.n; i++)
        n += st.tensors[i].bytes;
    float *x = xmalloc(n);
    for (int i = 0; i < st.n; i++)
        st_read_f32(&st.tensors[i], x);
    printf("%llx\n", (unsigned long long)hash64(x, n)); /* so that no compiler leaves it out */
    free(x);
}

/* A file of weights that another process cuts while it is mapped. */
static void test_cut_weights(void)
{
    char err[512];
    Path copy = tmp_path("cut.safetensors"), model = model_dir(base_model());
    copy_file(path_join(model.s, "model.safetensors").s, copy.s);
    CHECK(dies(read_cut, copy.s, err, sizeof err) == 1 &&
              !strcmp(err, "g2rl: a file of weights became shorter while it was read\n"),
          "%s", err);
}

/* With less and less memory, down to nearly none, each command ends with a line or does its work,
 * and neither crashes nor leaves half a checkpoint. */
static void test_no_memory(void)
{
    const Corner plenty = {.resource = RLIMIT_AS, .most = (rlim_t)1 << 40};
    if (cli_corner(plenty, "", "help")) { /* AddressSanitizer reserves more than that */
        CHECK(true, "no limit");
        return;
    }
    const char *base = base_model();
    Path model = model_dir(base), run = tmp_path("no-memory");
    static const char *const commands[] = {
        "score --threads 1 --model", "tokenize --tokenizer",
        "train " SMALL_TRAIN " --steps 1 --force --model",
        "sample --threads 1 --prompt 1+2: --model",
        "eval --threads 1 --problems 2 --samples 2 --task add:digits=1 --model"};
    int refused = 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        for (rlim_t most = 1 << 28; most >= 6 << 20; most /= 2) {
            int status = cli_corner((Corner){.resource = RLIMIT_AS, .most = most},
                                    "{\"text\": \"1+2\"}\n", "%s %s%s%s", commands[i], model.s,
                                    i == 2 ? " --out " : "", i == 2 ? run.s : "");
            bool said = strstr(cli_err, "g2rl: out of memory") ||
                        strstr(cli_err, "g2rl: the run needs") ||
                        strstr(cli_err, strerror(ENOMEM));
            if (status == 127) /* the program itself did not fit */
                break;
            CHECK(status == 0 || (status == 1 && said), "%s, %lld MiB: status %d: %s", commands[i],
                  (long long)most >> 20, status, cli_err);
            refused += status == 1;
            CHECK(i != 2 || status == 0 || newest_name(run.s, INT_MAX) <= 1, "a checkpoint");
        }
#ifdef __linux__
    enum { LEAST = 4 };
#else
    enum { LEAST = 0 }; /* such a limit may mean nothing */
#endif
    CHECK(refused >= LEAST, "only %d were refused", refused);
}

static void write_for_dying(void *path) { write_file(path, "text", 4); }

/* Reads a file as a user who is not root. */
static void read_for_dying(void *path)
{
    size_t n;
    if (!geteuid() && (setgid(65534) || setuid(65534)))
        die("cannot become another user");
    read_file(path, &n);
}

/* A full disk meets each file that a run appends to, and the page of a report. The step's weights
 * are saved, if there was a step, though not all its lines. */
static void check_full_disk(const char *base)
{
    static const char *const files[] = {"rollouts.jsonl", "eval.jsonl", "metrics.jsonl"};
    Path run = tmp_path("full-train"), page = tmp_path("full.html");
    for (int i = 0; i < 4; i++) {
        Path file = path_join(run.s, i < 3 ? files[i] : "none");
        make_dirs(run.s);
        unlink(file.s);
        CHECK(i == 3 || !symlink("/dev/full", file.s), "symlink");
        CHECK(cli("train --model %s " SMALL_TRAIN " --steps 1 --eval-every 1 --problems 2 "
                  "--samples 2 --force --out %s", base, run.s) == (i < 3), "%s", cli_err);
        CHECK(i == 3 || (strstr(cli_err, file.s) &&
                         strstr(cli_err, ": cannot be written: No space") &&
                         newest_name(run.s, INT_MAX) == (i == 1 ? -1 : 1)),
              "%s: %d, %s", file.s, newest_name(run.s, INT_MAX), cli_err);
        unlink(file.s);
    }
    CHECK(cli_corner((Corner){.resource = RLIMIT_FSIZE, .most = 4096}, "", "report %s --out %s",
                     run.s, page.s) == 1 &&
              strstr(cli_err, "full.html: cannot be written: File too large") && !is_file(page.s),
          "%s", cli_err);
}

/* Each way in which a run cannot write ends it with one line, and with no checkpoint that is not
 * whole. */
static void test_run_failures(void)
{
    char err[1024];
    int status;
    Path full = tmp_path("full"), metrics = path_join(full.s, "metrics.jsonl");
    make_dirs(full.s);
    if (access("/dev/full", W_OK))
        skip("there is no /dev/full here");
    else {
        CHECK(symlink("/dev/full", metrics.s) == 0, "symlink");
        CHECK(cli("sft " SMALL_SFT " --steps 2 --out %s", full.s) == 1 &&
                  strstr(cli_err, "full/metrics.jsonl: cannot be written: No space"),
              "%s", cli_err);
        unlink(metrics.s);
    }

    const Corner small = {.resource = RLIMIT_FSIZE, .most = 1 << 19}; /* less than a model */
    CHECK(cli_corner(small, "", "sft " SMALL_SFT " --steps 2 --force --out %s", full.s) == 1 &&
              strstr(cli_err, "model.safetensors: cannot be written: File too large"),
          "%s", cli_err);
    CHECK(newest_name(full.s, INT_MAX) == -1, "half a checkpoint");
    CHECK(cli("sft --resume --out %s", full.s) == 1 && strstr(cli_err, "no complete checkpoint"),
          "%s", cli_err);

    Path gone = tmp_path("gone");
    pid_t child =
        cli_start(tmp_path("gone.err").s, "sft " SMALL_SFT " --steps 2000 --out %s", gone.s);
    size_t n;
    CHECK(wait_for_file(path_join(gone.s, "metrics.jsonl").s, 1), "no step");
    CHECK(cli("sft --preset nano --force --out %s", gone.s) == 1 &&
              strstr(cli_err, "another process is writing"),
          "%s", cli_err);
    unlink(path_join(gone.s, "run.json").s);
    remove_dir(gone.s);
    waitpid(child, &status, 0);
    char *text = read_file(tmp_path("gone.err").s, &n);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1 &&
              strstr(text, "gone/metrics.jsonl: was removed"),
          "%s", text);
    CHECK(!is_dir(gone.s), "the directory has come back");
    free(text);

    Path locked = tmp_path("locked");
    make_dirs(locked.s);
    chmod(tmp_dir(), 0755);
    chmod(locked.s, 0555);
    Session s = {.o = {.out = locked.s}};
    Run run = {.s = &s, .command = SFT, .saved = -1};
    CHECK(dies(begin_for_dying, &run, err, sizeof err) == 1 &&
              strstr(err, "metrics.jsonl: cannot be written: Permission denied"),
          "%s", err);
    s.o.out = "/dev/null/run";
    CHECK(dies(begin_for_dying, &run, err, sizeof err) == 1 &&
              strstr(err, "/dev/null/run: cannot make the directory: Not a directory"),
          "%s", err);
    chmod(tmp_dir(), 0700);
    Path device = tmp_path("device");
    CHECK(!symlink("/dev/null", device.s) &&
              dies(write_for_dying, device.s, err, sizeof err) == 1 &&
              strstr(err, "device: is there, and is not a regular file"),
          "a device's name would be a file's: %s", err);
    check_full_disk(base_model());
    Path secret = put_file("secret", "text");
    chmod(tmp_dir(), 0755);
    chmod(secret.s, 0);
    CHECK(dies(read_for_dying, secret.s, err, sizeof err) == 1 &&
              strstr(err, "secret: cannot be opened: Permission denied"),
          "%s", err);
    chmod(tmp_dir(), 0700);
}

/* The lengths of phi, entropies and log-probs of a prompt's continuation, from a plain forward pass
 * over one sequence. ids: prompt and response. Returns the largest difference from the three. */
static double differs_from_plain(const Model *m, const int *ids, int prompt, int n,
                                 double *given[3])
{
    size_t bytes = pass_bytes(m, n - 1, n - prompt, n, KEEP_NOTHING);
    Arena a = arena_new(2 * bytes + (1 << 20));
    Batch b = batch_new(&a, n - 1, 1, n - prompt);
    double worst = 0;
    batch_seq(&b, ids, n - 1, 0, -1);
    for (int t = prompt; t < n; t++)
        batch_target(&b, t - 1, ids[t]);
    Pass p = forward(&a, m, &b, KEEP_NOTHING);
    forward_head(&a, m, &p, 1.0f, true, NULL);
    int d = m->config.hidden_size;
    for (int t = 0; t < n - prompt; t++) {
        double length = 0;
        for (int k = 0; k < d; k++)
            length += pow((double)p.head.phi[t * d + k], 2);
        worst = fmax(worst, fabs(sqrt(length) - given[2][t]));
        worst = fmax(worst, fabs((double)p.head.entropy[t] - given[1][t]));
        worst = fmax(worst, fabs((double)p.head.logprob[t] - given[0][t]));
    }
    arena_free(&a);
    return worst;
}

/* What `replay --json` printed, against the ledger's row and, at step 1, a plain forward pass. */
static void check_replay(const char *row, const char *base)
{
    double x[4][64], sum = 0, mean = 0;
    static const char *const names[] = {"logprob", "entropy", "phi", "ids"};
    int n = 0;
    for (int k = 0; k < 4; k++) {
        int count = numbers(cli_out, names[k], x[k], 64);
        CHECK(count > 0 && (k == 0 || count == n), "%s: %d values", names[k], count);
        n = count;
    }
    for (int t = 0; t < n; t++) {
        sum += x[0][t];
        mean += x[1][t] / n;
    }
    CHECK(n == field(row, "length") && fabs(sum - field(row, "logprob")) < 1e-6 &&
              fabs(mean - field(row, "entropy")) < 1e-6,
          "%s, not %.300s", cli_out, row);
    if (!base)
        return;
    Path dir = model_dir(base), file = path_join(dir.s, "tokenizer.json");
    Model m = model_load(dir.s);
    Tokenizer t = tokenizer_load(file.s);
    Ids ids = {0};
    size_t bad;
    const char *prompt = strstr(cli_out, "\"prompt\": \"") + 11;
    tokenizer_encode(&t, prompt, strcspn(prompt, "\""), &ids, &bad);
    int first = ids.n;
    for (int i = 0; i < n; i++)
        ids_add(&ids, (int)x[3][i]);
    rope_reserve(&m, ids.n);
    double *given[3] = {x[0], x[1], x[2]};
    double error = differs_from_plain(&m, ids.id, first, ids.n, given);
    CHECK(error < 1e-6, "|phi|, entropy or log-prob is off by %g", error);
    ids_free(&ids);
    tokenizer_free(&t);
    model_free(&m);
}

/* Replaces the first `old` behind the n-th line's beginning in a file. */
static void alter(const char *path, int line, const char *old, const char *new)
{
    size_t n;
    char *text = read_file(path, &n), *at = text;
    Buf b = {0};
    for (int i = 0; i < line; i++)
        at = strchr(at, '\n') + 1;
    at = strstr(at, old);
    buf_add(&b, text, (size_t)(at - text));
    buf_str(&b, new);
    buf_str(&b, at + strlen(old));
    write_file(path, b.s, b.n);
    buf_free(&b);
    free(text);
}

/* replay makes any rollout of a run again, alone, wherever its weights come from; what is not as
 * the run's files say is named. */
static void test_replay(void)
{
    const char *base = base_model();
    Path run = tmp_path("replayed"), ledger = path_join(run.s, "rollouts.jsonl");
    Path metrics = path_join(run.s, "metrics.jsonl"), copy = tmp_path("ledger-copy");
    CHECK(cli("train --model %s " SMALL_TRAIN " --steps 4 --save-every 2 --lr 1e-3 --out %s", base,
              run.s) == 0,
          "%s", cli_err);
    size_t n;
    char *text = read_file(ledger.s, &n), *row = text;
    copy_file(ledger.s, copy.s);
    for (int i = 0; i < 64; i++, row = strchr(row, '\n') + 1) {
        int step = i / 16 + 1, g = i / 4 % 4, r = i % 4;
        if (i % 13 != 3) /* rollouts 3, 16, 29, 42, 55 */
            continue;
        CHECK(cli("replay %s --step %d --group %d --rollout %d --json --threads %d", run.s, step, g,
                  r, 1 + (i == 3)) == 0,
              "step %d, group %d, rollout %d: %s", step, g, r, cli_err);
        CHECK((strstr(cli_err, "replay ") != NULL) == (step % 2 == 0), "a step done again: %s",
              cli_err);
        if (*cli_out)
            check_replay(row, step == 1 ? base : NULL);
    }
    free(text);
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 0 && strstr(cli_out, "|phi|"),
          "%s", cli_err);
    alter(ledger.s, 36, "\"logprob\": -", "\"logprob\": -1");
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 1 &&
              strstr(cli_err, "rollouts.jsonl: the response's log-prob is -1"),
          "%s", cli_err);
    copy_file(copy.s, ledger.s);
    alter(ledger.s, 36, "\"response\": \"", "\"response\": \"x");
    CHECK(cli("replay %s --step 3 --group 1 --threads 1", run.s) == 1 &&
              strstr(cli_err, "the response is 'x"),
          "%s", cli_err);
    copy_file(copy.s, ledger.s);
    alter(metrics.s, 2, "\"weights_hash\": \"", "\"weights_hash\": \"f");
    CHECK(cli("replay %s --step 4 --threads 1", run.s) == 1 &&
              strstr(cli_err, "metrics.jsonl: step 3"),
          "%s", cli_err);
    CHECK(cli("replay %s --step 5", run.s) == 1 && strstr(cli_err, "step 5 has 0 rows"), "%s",
          cli_err);
    CHECK(cli("replay %s --step 1 --group 4", run.s) == 2 && strstr(cli_err, "4 groups of 4"), "%s",
          cli_err);
    CHECK(cli("replay --step 1") == 2 && strstr(cli_err, "one run directory"), "%s", cli_err);
    CHECK(cli("replay %s", run.s) == 2 && strstr(cli_err, "--step is missing"), "%s", cli_err);
    CHECK(cli("replay %s --step 1", base) == 1 && strstr(cli_err, "a run of sft"), "%s", cli_err);
}

#endif
