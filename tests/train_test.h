/* train.h: tests of train, as a user runs it: equal runs, saved files, the ledger. */
#ifndef TESTS_TRAIN_H
#define TESTS_TRAIN_H

#include "check.h"

/* The lines of a file, with the numbers of fields that hold times taken out. */
static char *lines_without_times(const char *path)
{
    size_t n;
    char *text = read_file(path, &n);
    for (char *p = text; (p = strstr(p, "\"time/")) || (p = NULL);) {
        char *value = strchr(p, ':') + 1, *end = value + strcspn(value, ",}");
        memset(value, '#', 1);
        memmove(value + 1, end, strlen(end) + 1);
        p = value;
    }
    for (char *p = text; (p = strstr(p, "\"tokens_per_s\""));) {
        char *value = strchr(p, ':') + 1, *end = value + strcspn(value, ",}");
        memmove(value, end, strlen(end) + 1);
        p = value;
    }
    return text;
}

static bool same_lines(const char *a, const char *b)
{
    char *x = lines_without_times(a), *y = lines_without_times(b);
    bool same = !strcmp(x, y) && *x;
    free(x);
    free(y);
    return same;
}

/* A base model for the tests of commands: few steps on the easy task. Made once. */
static const char *base_model(void)
{
    static char path[96];
    if (!path[0]) {
        snprintf(path, sizeof path, "%s/base", tmp_dir());
        int status = cli("sft --preset nano --task add:digits=1 --steps 60 --batch 32 --lr 3e-3 "
                         "--warmup 5 --out %s", path);
        CHECK(status == 0, "sft: %s", cli_err);
    }
    return path;
}

/* Does metrics file `name` hold logp_gap 0 on every line? */
static bool always_on_policy(const char *path, int lines)
{
    size_t n;
    char *text = read_file(path, &n);
    int found = 0;
    for (char *p = text; (p = strstr(p, "\"logp_gap\": 0,")); p++)
        found++;
    free(text);
    return found == lines;
}

/* One seed, one result, whatever the threads, the micro-batches, the memory. */
static void test_train_repeats(void)
{
    static const char *const how[] = {"--threads 1", "--threads 2 --micro-batch 3",
                                      "--threads 3 --micro-batch 1", "--threads 4 --recompute",
                                      "--threads 7 --micro-batch 2"};
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 4 --rollouts 6 --max-tokens 20";
    for (int i = 0; i < 5; i++) {
        bool recompute = strstr(how[i], "--recompute") != NULL;
        CHECK(cli("train --model %s %s --force --out %s/%c %s", base, common, dir, i ? 'b' : 'a',
                  how[i]) == 0 && !strstr(cli_err, "kept from sampling") == recompute,
              "%s", cli_err);
        CHECK(cli("sft --preset nano --steps 2 --batch 7 --force --out %s/sft-%c %s", dir,
                  i ? 'b' : 'a', how[i]) == 0 && !strstr(cli_err, "kept"),
              "%s", cli_err);
        CHECK(!i || same_lines(tmp_path("a/metrics.jsonl").s, tmp_path("b/metrics.jsonl").s),
              "%s changes the metrics", how[i]);
        CHECK(!i || same_lines(tmp_path("a/rollouts.jsonl").s, tmp_path("b/rollouts.jsonl").s),
              "%s changes the ledger", how[i]);
        CHECK(!i || same_lines(tmp_path("sft-a/metrics.jsonl").s,
                               tmp_path("sft-b/metrics.jsonl").s), "%s changes sft", how[i]);
    }
    CHECK(cli("train --model %s %s --out %s/c --seed 2", base, common, dir) == 0, "%s", cli_err);
    Path a = tmp_path("a/metrics.jsonl");
    CHECK(!same_lines(a.s, tmp_path("c/metrics.jsonl").s), "another seed must differ");
    CHECK(always_on_policy(a.s, 2), "logp_gap is not 0");
    CHECK(cli("train --model %s --out %s/a", base, dir) == 1 && strstr(cli_err, "--force"),
          "a run must not be overwritten: %s", cli_err);
    Model m = model_load(tmp_path("a").s), n = model_load(tmp_path("b/checkpoint-2").s);
    CHECK(weights_hash(&m) == weights_hash(&n), "the saved models differ");
    model_free(&m);
    model_free(&n);
}

/* The same for every method and term of the loss; and each of them is a training of its own. */
static void test_methods_repeat(void)
{
    static const char *const methods[] = {
        "--method grpo",
        "--method grpo --loss sequence",
        "--method grpo --kl k2 --kl-coef 0.5",
        "--method grpo --kl exact --kl-coef 0.5",
        "--method grpo --kl exact --kl-coef 0.5 --mini-batch 2 --epochs 2",
        "--method grpo --mask-truncated --max-tokens 9",
        "--method entropy",
        "--method entropy --entropy-coef 0.5 --kl exact",
        "--method evol",
        "--method evol --encoder ngram --kl-coef 0",
        "--method g2rl --dead-groups zero",
        "--method g2rl --novelty random",
        "--method g2rl --novelty count",
        "--method g2rl --shaping text --adv-norm none",
    };
    enum { N = sizeof methods / sizeof *methods };
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 4 --rollouts 6 --max-tokens 20";
    uint64_t hash[N];
    for (int i = 0; i < N; i++) {
        CHECK(cli("train --model %s %s %s --out %s/m1 --threads 1 --force", base, common,
                  methods[i], dir) == 0, "%s: %s", methods[i], cli_err);
        CHECK(cli("train --model %s %s %s --out %s/m2 --threads %d %s --force", base, common,
                  methods[i], dir, THREADS[1 + i % 3], i % 2 ? "--recompute" : "--micro-batch 1")
                  == 0, "%s: %s", methods[i], cli_err);
        CHECK(same_lines(tmp_path("m1/metrics.jsonl").s, tmp_path("m2/metrics.jsonl").s),
              "%s: threads, micro-batches or recomputation changed the metrics", methods[i]);
        CHECK(same_lines(tmp_path("m1/rollouts.jsonl").s, tmp_path("m2/rollouts.jsonl").s), "%s: "
              "the ledger", methods[i]);
        Model m = model_load(tmp_path("m1").s);
        hash[i] = weights_hash(&m);
        model_free(&m);
        for (int k = 0; k < i; k++)
            CHECK(hash[k] != hash[i], "'%s' trains as '%s' does", methods[k], methods[i]);
    }
}

/* Equal bits for 1, 2, 3 and 7 threads in every command that uses them: what it prints, and the
 * files of its run; among them, weights_hash of every step. */
static void test_threads(void)
{
#define TRAIN(method) "train --steps 1 --prompts 3 --rollouts 5 " method
    static const char *const commands[] = {
        "sft --steps 2 --batch 9",
        TRAIN("--method grpo"),
        TRAIN("--method entropy"),
        TRAIN("--method evol"),
        TRAIN("--method g2rl"),
        "eval --json --problems 3 --samples 5",
        "geometry --json --true-gradients --problems 3 --samples 3",
        "sample --prompt 1+2: --samples 5", /* all threads draw for one batch */
    };
    static const char *const files[] = {"rollouts.jsonl", "metrics.jsonl"};
    const char *base = base_model();
    char out[128];
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++) {
        bool is_run = c < 5;
        char *one = NULL;
        for (int k = 0; k < N_THREADS; k++) {
            Path first = tmp_path("threads0"), run = first;
            run.s[strlen(run.s) - 1] = (char)('0' + k);
            snprintf(out, sizeof out, "--out %.100s --force", run.s);
            CHECK(cli("%s --model %s --task add:digits=1 --max-tokens 12 --threads %d %s",
                      commands[c], base, THREADS[k], is_run ? out : "") == 0, "%s: %s",
                  commands[c], cli_err);
            one = one ? one : xstrdup(cli_out);
            CHECK(is_run || (*one && !strcmp(one, cli_out)), "%s: %d threads print %s",
                  commands[c], THREADS[k], cli_out);
            for (int f = c ? 0 : 1; f < 2 && is_run; f++)
                CHECK(same_lines(path_join(first.s, files[f]).s, path_join(run.s, files[f]).s),
                      "%s: %d threads change %s", commands[c], THREADS[k], files[f]);
        }
        free(one);
    }
#undef TRAIN
}

/* A step of several updates reports their mean loss and mean norm. With learning rate 0 all of them
 * are alike. */
static void test_mean_of_updates(void)
{
    double loss[2], norm[2];
    size_t n;
    for (int i = 0; i < 2; i++) {
        Path run = tmp_path(i ? "updates-3" : "updates-1");
        CHECK(cli("train --model %s --task add:digits=1 --steps 1 --prompts 4 --rollouts 6 --lr 0 "
                  "--max-tokens 20 --threads 1 --force --epochs %d --out %s", base_model(),
                  i ? 3 : 1, run.s) == 0, "%s", cli_err);
        char *text = read_file(path_join(run.s, "metrics.jsonl").s, &n);
        loss[i] = field(text, "loss");
        norm[i] = field(text, "grad_norm");
        free(text);
    }
    CHECK(fabs(loss[0]) > 1e-4 && fabs(loss[1] - loss[0]) < 1e-6 * fabs(loss[0]),
          "loss %g, mean of three times the same %g", loss[0], loss[1]);
    CHECK(norm[0] > 0 && fabs(norm[1] - norm[0]) < 1e-6 * norm[0], "norm %g, mean %g", norm[0],
          norm[1]);
}

/* --tokenizer: a preset keeps its own vocab_size, and a directory with everything is written
 * before the first step too. */
static void test_preset_tokenizer(void)
{
    Path file = tmp_path("characters.json"), saved = tmp_path("named/checkpoint-0");
    tokenizer_write(file.s, TASK_ALPHABET);
    CHECK(cli("sft --preset nano --tokenizer %s --steps 0 --dtype f16 --out %s", file.s,
              tmp_path("named").s) == 0, "%s", cli_err);
    CHECK(strstr(cli_err, "/checkpoint-0: ") && strstr(cli_err, " weights are rounded"), "%s",
          cli_err);
    Model m = model_load(saved.s);
    CHECK(m.config.vocab_size == 64 && m.config.n_eos == 1 && m.config.eos_token_id[0] == 0,
          "vocab_size %d", m.config.vocab_size);
    CHECK(m.tensors[EMBED].dtype == ST_F16 && strstr(m.config_text, "\"float16\""), "dtype");
    model_free(&m);
    CHECK(cli("sft --preset tiny --tokenizer %s --steps 1 --batch 2 --out %s", saved.s,
              tmp_path("named-2").s) == 0, "%s", cli_err);
    CHECK(is_file(tmp_path("named-2/checkpoint-1/tokenizer.json").s), "no tokenizer.json");
    CHECK(cli("sft --preset nano --tokenizer %s/absent --out %s", tmp_dir(),
              tmp_path("named-3").s) == 1 && strstr(cli_err, "absent"), "%s", cli_err);
    CHECK(cli("sft --model %s --tokenizer %s --out %s", saved.s, file.s, tmp_path("x").s) == 2 &&
              strstr(cli_err, "--tokenizer"), "%s", cli_err);
}

static bool same_files(const char *a, const char *b)
{
    size_t n, n2;
    if (!is_file(a) || !is_file(b))
        return false;
    char *x = read_file(a, &n), *y = read_file(b, &n2);
    bool same = n == n2 && !memcmp(x, y, n);
    free(x);
    free(y);
    return same;
}

/* What a saved model takes along from the directory it came from, and what it does not. */
static void test_saved_files(void)
{
    static const char *const along[] = {
        "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "tokenizer.model", "LICENSE", "LICENSE.md",
        "tokenizer.json", "config.json",
    };
    static const char *const not[] = {"optimizer.bin", ".hidden.json", "x.index.json", "log.jsonl",
                                      "model-00001-of-00002.safetensors"};
    Path from = tmp_path("files/checkpoint-0"), to = tmp_path("files-2/checkpoint-1");
    CHECK(cli("sft --preset nano --steps 0 --out %s", tmp_path("files").s) == 0, "%s", cli_err);
    for (size_t i = 0; i < 9; i++)
        write_file(path_join(from.s, along[i]).s, "{\"eos_token_id\": 5}\n\0\xFF",
                   i > 2 ? 22 : 20); /* the first three are read, too */
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
        write_file(path_join(from.s, not[i]).s, "x", 1);
    make_dirs(path_join(from.s, "folder.json").s);
    Path config = path_join(from.s, "config.json");
    size_t n;
    char *text = read_file(config.s, &n);
    Buf b = {0};
    buf_printf(&b, "{\"unknown\": {\"field\": [1e400]}, %s", text + 1);
    write_file(config.s, b.s, b.n);
    CHECK(cli("sft --model %s --steps 1 --batch 2 --out %s", from.s, tmp_path("files-2").s) == 0,
          "%s", cli_err);
    CHECK(!strstr(cli_err, "rounded"), "%s", cli_err);
    for (size_t i = 0; i < sizeof along / sizeof *along; i++)
        CHECK(same_files(path_join(from.s, along[i]).s, path_join(to.s, along[i]).s),
              "%s is another or absent", along[i]);
    for (size_t i = 0; i < sizeof not / sizeof *not; i++)
        CHECK(access(path_join(to.s, not[i]).s, F_OK), "%s came along", not[i]);
    CHECK(access(path_join(to.s, "folder.json").s, F_OK), "a folder came along");
    Model m = model_load(to.s);
    CHECK(m.config.eos_token_id[0] == 5, "the end token of generation_config.json");
    model_free(&m);

    Path other = tmp_path("files-3/checkpoint-1");
    CHECK(cli("train --model %s --steps 1 --prompts 2 --rollouts 2 --kl-coef 1 --dtype bf16 "
              "--no-check --out %s", tmp_path("files-2").s, tmp_path("files-3").s) == 0, "%s",
          cli_err);
    CHECK(same_files(path_join(from.s, "merges.txt").s, path_join(other.s, "merges.txt").s) &&
              !same_files(config.s, path_join(other.s, "config.json").s), "another dtype");
    m = model_load(other.s);
    CHECK(m.tensors[EMBED].dtype == ST_BF16 && strstr(m.config_text, "\"bfloat16\"") &&
              strstr(m.config_text, "[1e400]"), "%s", m.config_text);
    model_free(&m);
    buf_free(&b);
    free(text);
}

/* lambda 0 is GRPO, to the bit; lambda 1 is not. Several updates on one batch of
 * rollouts work, and start on-policy. */
static void test_lambda_zero(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 4 --rollouts 6 --max-tokens 20";
    Model m[4];
    cli("train --model %s %s --out %s/grpo --method grpo", base, common, dir);
    cli("train --model %s %s --out %s/zero --method g2rl --lambda 0", base, common, dir);
    cli("train --model %s %s --out %s/one --method g2rl", base, common, dir);
    CHECK(cli("train --model %s %s --out %s/many --mini-batch 1 --epochs 2", base, common,
              dir) == 0, "%s", cli_err);
    const char *names[] = {"grpo", "zero", "one", "many"};
    uint64_t hash[4];
    for (int i = 0; i < 4; i++) {
        m[i] = model_load(tmp_path(names[i]).s);
        hash[i] = weights_hash(&m[i]);
        model_free(&m[i]);
    }
    CHECK(hash[0] == hash[1], "lambda 0 is not GRPO");
    CHECK(hash[0] != hash[2] && hash[2] != hash[3], "lambda, --mini-batch: no effect");
    CHECK(always_on_policy(tmp_path("many/metrics.jsonl").s, 2),
          "the first forward pass is on-policy");
    CHECK(cli("train --model %s %s --out %s/uneven --mini-batch 3 --epochs 2 --temperature 0.8",
              base, common, dir) == 0 &&
              always_on_policy(tmp_path("uneven/metrics.jsonl").s, 2), "%s", cli_err);
    SafeTensors st = {0};
    Buf error = {0};
    CHECK(st_try(&st, tmp_path("uneven/checkpoint-2/trainer.safetensors").s, &error) &&
              !strcmp(trainer_note(&st, "updates"), "8"),
          "2 steps of 2 epochs, 3 groups and then the fourth: not 8 updates");
    st_close(&st);
    buf_free(&error);
    CHECK(cli("train --model %s %s --rollouts 2 --force --out %s/few", base, common, dir) == 0 &&
          strstr(cli_err, "--rollouts 2: "), "%s", cli_err);
    CHECK(cli("train --model %s %s --rollouts 3 --force --out %s/few", base, common, dir) == 0 &&
          !strstr(cli_err, "--rollouts"), "%s", cli_err);
}

/* The numbers of an array `"name": [..]`, at most `most`; returns how many. */
static int numbers(const char *text, const char *name, double *x, int most)
{
    char quoted[64];
    int n = 0;
    snprintf(quoted, sizeof quoted, "\"%s\": [", name);
    char *at = strstr(text, quoted);
    for (at = at ? at + strlen(quoted) : NULL; at && n < most && *at != ']'; n++) {
        x[n] = strtod(at, &at);
        at += strspn(at, ", ");
    }
    return n;
}

/* The ledger's numbers make its advantages: A from r and nubar, for every group of a step. */
enum LedgerKind { LEDGER_LITERAL, LEDGER_TEXT, LEDGER_EVOL };

static void check_ledger(const char *method, double lambda, enum LedgerKind kind)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    CHECK(cli("train --model %s --task add:digits=1 --steps 1 --prompts 6 --rollouts 4 "
              "--max-tokens 20 --out %s/ledger --force %s", base, dir, method) == 0, "%s", cli_err);
    char *text = read_file(tmp_path("ledger/rollouts.jsonl").s, &n), *line = text;
    int rows = 0, live = 0;
    for (int g = 0; g < 6; g++) {
        double shaped[4], A[4], mean = 0, variance = 0;
        for (int i = 0; i < 4; i++, rows++) {
            double r = field(line, "reward"), nubar = field(line, "nubar"), S[5];
            bool answered = !strstr(line, "\"u\": null") ||
                            strstr(line, "\"u\": null") > strchr(line, '\n');
            double e = answered ? (r > 0 ? 0.5 : -1) + 0.5 * nubar : -1;
            double want = kind == LEDGER_EVOL ? e
                          : r * (1 + lambda * (kind == LEDGER_TEXT ? 1 : r) * nubar);
            shaped[i] = field(line, "rtilde");
            A[i] = field(line, "advantage");
            CHECK(fabs(shaped[i] - want) < 1e-9, "'%s': r~ of row %d", method, rows);
            CHECK(numbers(line, "semantic", S, 5) == 4 && fabs(S[i] - 1) < 1e-6, "its own text");
            CHECK(field(line, "rollout") == i, "row %d", rows);
            mean += shaped[i] / 4;
            line = strchr(line, '\n') + 1;
        }
        for (int i = 0; i < 4; i++)
            variance += (shaped[i] - mean) * (shaped[i] - mean) / 4;
        for (int i = 0; i < 4; i++)
            CHECK(fabs(A[i] - (shaped[i] - mean) / (sqrt(variance) + 1e-6)) < 1e-6, "A of row %d",
                  rows);
        live += variance > 0.01;
    }
    CHECK(!*line && live > 0, "24 rows, some of them alive");
    free(text);
}

static void test_ledger(void)
{
    check_ledger("", 0.5, LEDGER_LITERAL);
    check_ledger("--shaping text --lambda 1", 1, LEDGER_TEXT);
    check_ledger("--method evol", 0, LEDGER_EVOL);
}

#endif
