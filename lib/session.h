/* session.h: what every command stands on: the table of options, the model and tokenizer that they
 * name, progress, and the run directory. */
#ifndef SESSION_H
#define SESSION_H

#include "../model.c"       /* defines: Model, Engine, model_load, model_save */
#include "options.h"        /* defines: Option, options_parse */
#include "problems.h"       /* defines: Problems, Task */
#include "tokenizer_json.h" /* defines: tokenizer_load, tokenizer_write, shown */

#define VERSION "0.1"

enum { SFT, TRAIN, EVAL, SAMPLE_TEXT, SCORE, TOKENIZE, EXPLAIN, DATA, BENCH, N_COMMANDS };
static const char *const COMMANDS[N_COMMANDS] = {
    "sft", "train", "eval", "sample", "score", "tokenize", "explain", "data", "bench"};
static const char *const SUMMARIES[N_COMMANDS] = {
    "teach a model from examples: supervised next-token training",
    "reinforcement learning: GRPO, or G2RL's gradient-guided exploration",
    "pass@1, maj@k and pass@k with intervals, on held-out problems",
    "text for a prompt",
    "log-probs of given texts or token ids (JSONL in, JSONL out)",
    "text to token ids, or back (JSONL in, JSONL out)",
    "one group, the whole computation as a table: r, S, w, nu, nubar, r~, A",
    "write problems of a task as JSONL, or check a file of them",
    "how fast each part runs, beside this machine's peak",
};

typedef struct {
    const char *model, *task, *data, *out, *preset, *prompt, *stop;
    const char *tokenizer, *chat;
    int split, steps, warmup, schedule, batch, micro_batch, shuffle, prompts, rollouts, epochs;
    int mini_batch, max_tokens, samples, problems, top_k, threads, save_every, eval_every;
    int method, shaping, dead_groups, adv_norm, loss, novelty;
    double lr, beta1, beta2, adam_eps, weight_decay, clip_norm, temperature, top_p;
    double lambda, clip_low, clip_high, kl_coef;
    uint64_t seed;
    const char *only;
    bool json, force, quick, decode, skip_special;
} Options;

#define C(x) (1u << (x))
#define LEARN (C(SFT) | C(TRAIN))
#define RL (C(TRAIN) | C(EXPLAIN))
#define DRAW (C(SFT) | C(TRAIN) | C(EVAL) | C(SAMPLE_TEXT) | C(EXPLAIN))
#define ALL ((1u << N_COMMANDS) - 1)
#define O(field) offsetof(Options, field)
static const Option OPTIONS[] = {
    {"model", OPT_TEXT, O(model), NULL, 0, 0, ALL & ~(C(TOKENIZE) | C(DATA) | C(BENCH)), "DIR",
     "model directory, or a run: its newest checkpoint"},
    {"preset", OPT_TEXT, O(preset), NULL, 0, 0, C(SFT), "NAME",
     "start from random weights: nano, tiny, small, medium, qwen3-0.6b"},
    {"preset", OPT_TEXT, O(preset), NULL, 0, 0, C(BENCH), "NAME",
     "this shape alone: tiny, small or medium"},
    {"task", OPT_TEXT, O(task), "countdown", 0, 0, ALL & ~(C(SCORE) | C(TOKENIZE) | C(BENCH)),
     "NAME[:key=value,..]",
     "built-in task (see: g2rl data --help)"},
    {"data", OPT_TEXT, O(data), NULL, 0, 0, LEARN | C(EVAL) | C(EXPLAIN) | C(DATA), "FILE",
     "JSONL file to use in place of the task's generator"},
    {"split", OPT_CHOICE, O(split), "test", 0, 0, C(EVAL) | C(EXPLAIN), "train|test",
     "which side of the task's problems"},
    {"split", OPT_CHOICE, O(split), "train", 0, 0, C(DATA), "train|test",
     "which side of the task's problems"},
    {"problems", OPT_INT, O(problems), "200", 1, 1e7, C(EVAL) | C(DATA), "N",
     "how many problems"},
    {"problems", OPT_INT, O(problems), "50", 1, 1e7, LEARN, "N",
     "held-out problems for --eval-every"},
    {"out", OPT_TEXT, O(out), NULL, 0, 0, LEARN, "DIR", "run directory to write (required)"},
    {"steps", OPT_INT, O(steps), "1000", 0, 1e9, C(SFT), "N", "updates"},
    {"steps", OPT_INT, O(steps), "150", 0, 1e9, C(TRAIN), "N", "rollout batches"},

    {"prompts", OPT_INT, O(prompts), "16", 1, 65536, C(TRAIN), "N", "prompts a step"},
    {"rollouts", OPT_INT, O(rollouts), "16", 2, 4096, RL, "N", "responses to each: the group's m"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, RL, "T",
     "of sampling, log-probs and features alike"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0, 100, C(EVAL) | C(SAMPLE_TEXT) | C(SFT), "T",
     "of sampling; 0: always the most likely token"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, C(SCORE), "T", "of the log-probs"},
    {"top-p", OPT_NUMBER, O(top_p), "1", 1e-6, 1, C(EVAL) | C(SAMPLE_TEXT), "P",
     "draw from the smallest set of tokens that holds this probability"},
    {"top-k", OPT_INT, O(top_k), "0", 0, 1e9, C(EVAL) | C(SAMPLE_TEXT), "K",
     "draw from the K most likely tokens; 0: all"},
    {"max-tokens", OPT_INT, O(max_tokens), "48", 1, 1e6, DRAW, "N",
     "longest response, its end token included"},
    {"samples", OPT_INT, O(samples), "32", 1, 4096, C(EVAL), "N", "responses to each problem"},
    {"samples", OPT_INT, O(samples), "16", 1, 4096, LEARN, "N",
     "responses to each held-out problem for --eval-every"},
    {"samples", OPT_INT, O(samples), "1", 1, 4096, C(SAMPLE_TEXT), "N", "responses"},
    {"prompt", OPT_TEXT, O(prompt), NULL, 0, 0, C(SAMPLE_TEXT) | C(EXPLAIN), "TEXT",
     "the prompt, e.g. '3574>26:'"},
    {"stop", OPT_TEXT, O(stop), NULL, 0, 0, C(SAMPLE_TEXT), "TEXT",
     "end a response before this text"},

    {"tokenizer", OPT_TEXT, O(tokenizer), NULL, 0, 0, C(TOKENIZE), "FILE|DIR",
     "a tokenizer.json, or a directory that holds one (required)"},
    {"decode", OPT_FLAG, O(decode), NULL, 0, 0, C(TOKENIZE), "", "input_ids in, text out"},
    {"skip-special", OPT_FLAG, O(skip_special), NULL, 0, 0, C(TOKENIZE), "",
     "leave special tokens out of decoded text"},
    {"template", OPT_TEXT, O(chat), NULL, 0, 0, C(TOKENIZE), "qwen3",
     "how lines of messages become a prompt"},

    {"method", OPT_CHOICE, O(method), "g2rl", 0, 0, RL, "grpo|g2rl", "how rewards are shaped"},
    {"lambda", OPT_NUMBER, O(lambda), "1", 0, 1e6, RL, "X",
     "strength of the shaping; 0 is GRPO to the bit"},
    {"shaping", OPT_CHOICE, O(shaping), "text", 0, 0, RL, "text|literal",
     "r (1 + lambda nubar), or Eq 12 as printed"},
    {"novelty", OPT_CHOICE, O(novelty), "gradient", 0, 0, RL, "gradient|random",
     "random: the control, nu dealt out at random inside the group"},
    {"dead-groups", OPT_CHOICE, O(dead_groups), "full", 0, 0, RL, "full|zero",
     "zero: groups all right or all wrong get no advantage"},
    {"adv-norm", OPT_CHOICE, O(adv_norm), "std", 0, 0, RL, "std|none",
     "divide advantages by the group's standard deviation, or not"},
    {"loss", OPT_CHOICE, O(loss), "token", 0, 0, C(TRAIN), "token|sequence",
     "mean over tokens, or over each response's tokens and then responses"},
    {"clip-low", OPT_NUMBER, O(clip_low), "0.2", 0, 1, C(TRAIN), "X",
     "the ratio's lower clip is 1 - X"},
    {"clip-high", OPT_NUMBER, O(clip_high), "0.2", 0, 1e6, C(TRAIN), "X",
     "the ratio's upper clip is 1 + X"},
    {"kl-coef", OPT_NUMBER, O(kl_coef), "0.001", 0, 1e6, C(TRAIN), "X",
     "weight of the k3 KL penalty to the starting model; 0: none is kept"},
    {"mini-batch", OPT_INT, O(mini_batch), "0", 0, 65536, C(TRAIN), "N",
     "prompts an update; 0: all of the step's, one exactly on-policy update"},
    {"epochs", OPT_INT, O(epochs), "1", 1, 1000, C(TRAIN), "N",
     "passes over each batch of rollouts"},

    {"batch", OPT_INT, O(batch), "128", 1, 65536, C(SFT), "N", "records an update"},
    {"shuffle", OPT_CHOICE, O(shuffle), "1", 0, 0, C(SFT), "0|1",
     "0 takes the records of --data in file order"},
    {"micro-batch", OPT_INT, O(micro_batch), "0", 0, 65536, LEARN, "N",
     "sequences (sft) or groups (train) in one pass of a thread; 0: a good number"},
    {"lr", OPT_NUMBER, O(lr), "2e-3", 0, 10, C(SFT), "X", "learning rate"},
    {"lr", OPT_NUMBER, O(lr), "1e-4", 0, 10, C(TRAIN), "X", "learning rate"},
    {"schedule", OPT_CHOICE, O(schedule), "cosine", 0, 0, C(SFT), "constant|linear|cosine",
     "of the learning rate"},
    {"schedule", OPT_CHOICE, O(schedule), "constant", 0, 0, C(TRAIN), "constant|linear|cosine",
     "of the learning rate"},
    {"warmup", OPT_INT, O(warmup), "50", 0, 1e9, C(SFT), "N", "steps of rising learning rate"},
    {"warmup", OPT_INT, O(warmup), "0", 0, 1e9, C(TRAIN), "N", "steps of rising learning rate"},
    {"beta1", OPT_NUMBER, O(beta1), "0.9", 0, 0.999999, LEARN, "X", "AdamW's first moment"},
    {"beta2", OPT_NUMBER, O(beta2), "0.99", 0, 0.999999, LEARN, "X", "AdamW's second moment"},
    {"adam-eps", OPT_NUMBER, O(adam_eps), "1e-8", 0, 1, LEARN, "X", "AdamW's epsilon"},
    {"weight-decay", OPT_NUMBER, O(weight_decay), "0", 0, 10, LEARN, "X", "decoupled, all tensors"},
    {"clip-norm", OPT_NUMBER, O(clip_norm), "1", 0, 1e9, LEARN, "X",
     "gradients are scaled to at most this norm; 0: never"},

    {"eval-every", OPT_INT, O(eval_every), "0", 0, 1e9, LEARN, "N",
     "evaluate every N steps into eval.jsonl; 0: never"},
    {"save-every", OPT_INT, O(save_every), "0", 0, 1e9, LEARN, "N",
     "checkpoint every N steps; 0: at the end"},
    {"seed", OPT_SEED, O(seed), "1", 0, 0, ALL & ~(C(SCORE) | C(TOKENIZE) | C(BENCH)), "N",
     "of all random numbers"},
    {"threads", OPT_INT, O(threads), "0", 0, 1024, ALL & ~(C(TOKENIZE) | C(DATA)), "N",
     "0: one for each core; the results do not depend on it"},
    {"only", OPT_TEXT, O(only), NULL, 0, 0, C(BENCH), "NAME",
     "rows of one kind: peak, gemm, head, kernel, train_step, sample, rl_step"},
    {"quick", OPT_FLAG, O(quick), NULL, 0, 0, C(BENCH), "",
     "every row once, most with less work"},
    {"json", OPT_FLAG, O(json), NULL, 0, 0, C(EVAL) | C(EXPLAIN) | C(BENCH), "",
     "results as JSON"},
    {"force", OPT_FLAG, O(force), NULL, 0, 0, LEARN, "", "replace a run that is already there"},
};
#undef O
#undef ALL
#undef DRAW
#undef RL
#undef LEARN
#undef C
enum { N_OPTIONS = sizeof OPTIONS / sizeof *OPTIONS };

/* What a command runs on. */
typedef struct {
    Options o;
    Words words;
    Task task;
    Tokenizer tokenizer;
    Path tokenizer_path; /* "": the built-in vocabulary */
    Model model;
    Engine engine;
} Session;

static int default_threads(int asked)
{
#ifdef _OPENMP
    return asked ? asked : omp_get_max_threads();
#else
    (void)asked;
    return 1;
#endif
}

static void session_free(Session *s)
{
    words_free(&s->words);
    tokenizer_free(&s->tokenizer);
    model_free(&s->model);
    engine_free(&s->engine);
}

/* The model of --model, packed for sampling, and its tokenizer. */
static void session_load(Session *s, const char *path, bool tokenizer)
{
    if (!path)
        usage("--model is missing");
    Path dir = model_dir(path);
    s->model = model_load(dir.s);
    s->tokenizer_path = path_join(dir.s, "tokenizer.json");
    if (tokenizer)
        s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    if (s->tokenizer.n_vocab > s->model.config.vocab_size)
        die("%s: has ids up to %d, but vocab_size of config.json is %d", s->tokenizer_path.s,
            s->tokenizer.n_vocab - 1, s->model.config.vocab_size);
    model_pack(&s->model, s->engine.threads);
}

/* The problems of --data, or of --task. */
static Problems session_problems(const Session *s, bool held_out)
{
    Problems p = {.task = s->task};
    if (s->o.data)
        p = problems_read(s->o.data, &s->task);
    p.held_out = held_out;
    p.seed = s->o.seed;
    return p;
}

enum { MAX_PROMPT = 4096 }; /* tokens */

/* The longest prompt to make room for, in tokens: a token is at least one byte, and one more may
 * begin the text. */
static int longest_prompt(const Problems *p)
{
    int longest = TASK_PROMPT_MAX;
    for (int i = 0; i < p->n; i++)
        longest = imax(longest, (int)imin(MAX_PROMPT, (int)strlen(p->prompt[i]) + 1));
    return longest;
}

/* Progress on stderr: one line that changes on a terminal, else a line now and then. */
typedef struct {
    const char *phase;
    int total;
    double start, last;
} Progress;

static Progress progress_new(const char *phase, int total)
{
    return (Progress){phase, total, now_seconds(), 0};
}

static void progress(Progress *p, int done, const char *note)
{
    bool terminal = isatty(STDERR_FILENO), end = done >= p->total;
    double now = now_seconds(), spent = now - p->start;
    if (!end && now - p->last < (terminal ? 0.2 : 10.0) && p->last > 0)
        return;
    p->last = now;
    fprintf(stderr, "%s%-12s %*d/%d  %s  %s %.0f s%s%s", terminal ? "\r" : "", p->phase,
            terminal ? 1 : (int)(log10(p->total + 0.5) + 1), done, p->total, note,
            end ? "took" : "left", end ? spent : done ? spent / done * (p->total - done) : 0,
            terminal ? "\033[K" : "", end || !terminal ? "\n" : "");
    fflush(stderr);
}

/* ---------------------------------------------------------------- a run's directory */

/* Makes the run directory, refusing one that holds a run already, and writes run.json. */
static void run_start(const Session *s, int command)
{
    const char *out = s->o.out;
    Buf b = {0};
    if (!out)
        usage("--out is missing");
    if (is_file(path_join(out, "run.json").s) && !s->o.force)
        die("%s: holds a run already; choose another --out, or --force to replace it", out);
    make_dirs(out);
    DIR *dir = opendir(out);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (!strncmp(entry->d_name, "checkpoint-", 11))
            remove_dir(path_join(out, entry->d_name).s);
    if (dir)
        closedir(dir);
    buf_printf(&b, "{\n  \"version\": \"%s\",\n  \"simd\": \"%s\",", VERSION, SIMD_NAME);
    buf_printf(&b, "\n  \"command\": \"%s\",", COMMANDS[command]);
    options_json(OPTIONS, N_OPTIONS, command, &s->o, &b);
    buf_str(&b, "\n}\n");
    write_file(path_join(out, "run.json").s, b.s, b.n);
    buf_free(&b);
}

static FILE *run_file(const char *out, const char *name)
{
    Path p = path_join(out, name);
    FILE *f = fopen(p.s, "wb");
    if (!f)
        die("%s: cannot be written: %s", p.s, strerror(errno));
    return f;
}

static void run_line(FILE *f, Buf *b, const char *out, const char *name)
{
    buf_str(b, "}\n");
    if (fwrite(b->s, 1, b->n, f) != b->n || fflush(f))
        die("%s/%s: cannot be written: %s", out, name, strerror(errno));
    b->n = 0;
}

static void copy_file(const char *from, const char *to)
{
    size_t n;
    char *text = read_file(from, &n);
    write_file(to, text, n);
    free(text);
}

/* The files of the tokenizer that the run began with: tokenizer.json and, where there is one, the
 * tokenizer_config.json that may name the token before every text. */
static void save_tokenizer(const Session *s, const char *dir)
{
    const char *from = s->tokenizer_path.s, *slash = strrchr(from, '/');
    Path to = path_join(dir, "tokenizer.json"), config;
    if (!*from) {
        tokenizer_write(to.s, TASK_ALPHABET);
        return;
    }
    copy_file(from, to.s);
    snprintf(config.s, sizeof config.s, "%.*s", (int)(slash - from), from);
    config = path_join(config.s, "tokenizer_config.json");
    if (is_file(config.s))
        copy_file(config.s, path_join(dir, "tokenizer_config.json").s);
}

/* checkpoint-<step>: a whole model directory, made under another name and then renamed. */
static void save_checkpoint(const Session *s, int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%d", step);
    Path final = path_join(s->o.out, name), temporary;
    snprintf(name, sizeof name, "tmp-checkpoint-%d", step);
    temporary = path_join(s->o.out, name);
    remove_dir(temporary.s);
    make_dirs(temporary.s);
    model_save(&s->model, temporary.s);
    save_tokenizer(s, temporary.s);
    sync_dir(temporary.s);
    remove_dir(final.s);
    if (rename(temporary.s, final.s))
        die("%s: cannot be written: %s", final.s, strerror(errno));
    sync_dir(s->o.out);
}

static double learning_rate(const Options *o, int step)
{
    return schedule_lr((Schedule)o->schedule, o->lr, step, o->warmup, o->steps);
}

static AdamW optimizer(const Options *o)
{
    return (AdamW){o->beta1, o->beta2, o->adam_eps, o->weight_decay, o->clip_norm, 0};
}

static void put_hash(Buf *b, const Model *m)
{
    buf_printf(b, ", \"weights_hash\": \"%016llx\"", (unsigned long long)weights_hash(m));
}

#endif
