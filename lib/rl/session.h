/* session.h: what every command stands on: the table of options, the model and tokenizer that they
 * name, and progress. */
#ifndef SESSION_H
#define SESSION_H

#include "rollouts.h"        /* defines: Sampling; group.h: MethodOptions; model.c: Model, ... */
#include "../base/options.h"        /* defines: Option, options_parse */
#include "../tasks/problems.h"       /* defines: Problems, Judge, Template, Task */
#include "../model/tokenizer_json.h" /* defines: tokenizer_load, tokenizer_write, shown */

#define VERSION "0.1"

enum {
    SFT, TRAIN, EVAL, GEOMETRY, REPORT, SAMPLE_TEXT, SCORE, TOKENIZE, EXPLAIN, REPLAY, DATA,
    VERIFY_ANSWER, BENCH, N_COMMANDS
};

/* The values of the options, which OPTIONS describes. A choice is its index; text that was not
 * given is NULL. */
typedef struct {
    const char *model, *task, *data, *eval_data, *out, *preset, *tokenizer, *prompt, *stop;
    const char *pred, *gold, *valid, *temperatures, *responses;
    const char *template, *system, *reward_cmd;
    int verifier, max_prompt, chat, max_length;
    double reward_timeout;
    int step, group, rollout, keep;
    int split, steps, warmup, schedule, batch, micro_batch, shuffle, prompts, rollouts, epochs;
    int mini_batch, max_tokens, samples, problems, top_k, threads, save_every, eval_every, dtype;
    double lr, beta1, beta2, adam_eps, weight_decay, clip_norm, temperature, top_p;
    double feature_temperature;
    uint64_t seed;
    const char *only, *geometry, *svg;
    bool json, force, quick, recompute, decode, skip_special, true_gradients, resume;
    MethodOptions rl;
} Options;

#define C(x) (1u << (x))
#define LEARN (C(SFT) | C(TRAIN))
#define RL (C(TRAIN) | C(EXPLAIN))
#define JUDGED (C(SFT) | C(TRAIN) | C(EVAL) | C(GEOMETRY) | C(EXPLAIN))
#define DRAW (C(TRAIN) | C(EVAL) | C(GEOMETRY) | C(SAMPLE_TEXT) | C(EXPLAIN))
/* Neither model nor task. */
#define BARE (C(REPORT) | C(TOKENIZE) | C(REPLAY) | C(VERIFY_ANSWER) | C(BENCH))
#define ALL ((1u << N_COMMANDS) - 1)
#define O(field) offsetof(Options, field)
#define HEADING(text) {"", OPT_FLAG, 0, NULL, 0, 0, 0, "", text}
static const Option OPTIONS[] = {
    HEADING("The model"),
    {"model", OPT_TEXT, O(model), NULL, 0, 0, ALL & ~(BARE | C(DATA)), "DIR",
     "model directory, or a run: its newest checkpoint"},
    {"preset", OPT_TEXT, O(preset), NULL, 0, 0, C(SFT), "NAME",
     "begin with random weights of this shape: nano, tiny, small, medium, qwen3-0.6b"},
    {"preset", OPT_TEXT, O(preset), NULL, 0, 0, C(BENCH), "NAME",
     "this shape alone: tiny, small or medium"},
    {"tokenizer", OPT_TEXT, O(tokenizer), NULL, 0, 0, C(SFT), "FILE|DIR",
     "tokenizer.json for --preset, in place of the tasks' characters; or a directory or run "
     "that holds one"},
    {"tokenizer", OPT_TEXT, O(tokenizer), NULL, 0, 0, C(TOKENIZE), "FILE|DIR",
     "a tokenizer.json, a directory that holds one, or a run (required)"},

    HEADING("Problems and rewards"),
    {"task", OPT_TEXT, O(task), "countdown", 0, 0, ALL & ~(BARE | C(SCORE)),
     "NAME[:key=value,..]", "built-in task (g2rl data --help has them)"},
    {"task", OPT_TEXT, O(task), NULL, 0, 0, C(VERIFY_ANSWER), "NAME[:key=value,..]",
     "whose rules judge the responses of --data (g2rl data --help has the tasks)"},
    {"data", OPT_TEXT, O(data), NULL, 0, 0, LEARN | C(EVAL) | C(GEOMETRY) | C(EXPLAIN) | C(DATA),
     "FILE", "JSONL in place of the task's own problems (see below)"},
    {"data", OPT_TEXT, O(data), NULL, 0, 0, C(VERIFY_ANSWER), "FILE",
     "JSONL of response (or pred) and gold; with --task, of prompt and response; a line of JSON "
     "for each"},
    {"prompt", OPT_TEXT, O(prompt), NULL, 0, 0, C(SAMPLE_TEXT) | C(EXPLAIN), "TEXT",
     "the prompt, e.g. '3574>26:'"},
    {"pred", OPT_TEXT, O(pred), NULL, 0, 0, C(VERIFY_ANSWER), "TEXT",
     "a response, or an answer alone, e.g. '\\frac12'"},
    {"gold", OPT_TEXT, O(gold), NULL, 0, 0, C(VERIFY_ANSWER), "TEXT",
     "the right answer, or a solution that boxes it"},
    {"split", OPT_CHOICE, O(split), "test", 0, 0, C(EVAL) | C(GEOMETRY) | C(EXPLAIN), SPLITS,
     "which of the task's problems"},
    {"split", OPT_CHOICE, O(split), "train", 0, 0, C(DATA), SPLITS, "which of the task's problems"},
    {"problems", OPT_INT, O(problems), "200", 1, 1e7, C(EVAL) | C(DATA), "N",
     "how many problems"},
    {"problems", OPT_INT, O(problems), "100", 1, 1e7, C(GEOMETRY), "N", "how many problems"},
    {"template", OPT_TEXT, O(template), "plain", 0, 0, DRAW | C(SFT), "plain|qwen3|FILE",
     "how a problem becomes a prompt; FILE: a text with {prompt} in it, and {system}"},
    {"system", OPT_TEXT, O(system), NULL, 0, 0, DRAW | C(SFT), "TEXT",
     "the template's system text"},
    {"max-prompt", OPT_INT, O(max_prompt), "0", 0, 1e6, JUDGED, "N",
     "leave out prompts over N tokens; 0: those that --max-tokens leaves no room for"},
    {"verifier", OPT_CHOICE, O(verifier), "auto", 0, 0, JUDGED, VERIFIERS,
     "who says what is right (see below)"},
    {"reward-cmd", OPT_TEXT, O(reward_cmd), NULL, 0, 0, JUDGED, "CMD",
     "a program that gives the rewards, in place of a verifier (see below)"},
    {"reward-timeout", OPT_NUMBER, O(reward_timeout), "60", 0.01, 1e6, JUDGED, "SECONDS",
     "longest wait for an answer of --reward-cmd"},

    HEADING("Sampling"),
    {"prompts", OPT_INT, O(prompts), "16", 1, 65536, C(TRAIN), "N", "prompts a step"},
    {"rollouts", OPT_INT, O(rollouts), "16", 2, 4096, RL, "N", "responses to each: the group's m"},
    {"samples", OPT_INT, O(samples), "32", 1, 4096, C(EVAL), "N", "responses to each problem"},
    {"samples", OPT_INT, O(samples), "8", 2, 4096, C(GEOMETRY), "N", "responses to each problem"},
    {"samples", OPT_INT, O(samples), "1", 1, 4096, C(SAMPLE_TEXT), "N", "responses"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, RL, "T",
     "of sampling, log-probs and features alike"},
    {"temperature", OPT_TEXT, O(temperatures), "1", 0, 0, C(EVAL), "T[,T..]",
     "of sampling, a row of the table for each; 0: always the most likely token"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0, 100, C(SAMPLE_TEXT), "T",
     "of sampling; 0: always the most likely token"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, C(SCORE), "T", "of the log-probs"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0.01, 100, C(GEOMETRY), "T",
     "of sampling, and of the log-probs whose gradients are the true ones"},
    {"feature-temperature", OPT_NUMBER, O(feature_temperature), "0", 0, 100, C(GEOMETRY), "T",
     "of the features; 0: that of sampling"},
    {"top-p", OPT_NUMBER, O(top_p), "1", 1e-6, 1, C(EVAL) | C(SAMPLE_TEXT), "P",
     "draw from the smallest set of tokens that holds this probability"},
    {"top-k", OPT_INT, O(top_k), "0", 0, 1e9, C(EVAL) | C(SAMPLE_TEXT), "K",
     "draw from the K most likely tokens; 0: all"},
    {"max-tokens", OPT_INT, O(max_tokens), "48", 1, 1e6, DRAW, "N",
     "longest response, its end token included"},
    {"stop", OPT_TEXT, O(stop), NULL, 0, 0, JUDGED | C(SAMPLE_TEXT), "TEXT",
     "a response ends where it has this text, and is read up to there"},

    HEADING("The method"),
    {"method", OPT_CHOICE, O(rl.method), "g2rl", 0, 0, RL, "grpo|entropy|evol|g2rl",
     "how rewards become advantages (see below)"},
    {"lambda", OPT_NUMBER, O(rl.lambda), "0.5", 0, 1e6, RL, "X",
     "strength of the shaping; 0 is GRPO to the bit (rewards within +-3, where r~ is clipped)"},
    {"shaping", OPT_CHOICE, O(rl.shaping), "literal", 0, 0, RL, "literal|text",
     "literal: Eq 12 as printed, r (1 + lambda r nubar); text: r (1 + lambda nubar)"},
    {"novelty", OPT_CHOICE, O(rl.novelty), "gradient", 0, 0, RL, "gradient|random|count",
     "two controls: random deals nu out at random inside the group; count has S_ij = 1 where two "
     "responses are equal, else 0"},
    {"dead-groups", OPT_CHOICE, O(rl.dead_groups), "full", 0, 0, RL, "full|zero|right|wrong",
     "groups whose rewards are all equal: all have an advantage, from novelty alone; none; those "
     "that are all right; those that are all wrong"},
    {"adv-norm", OPT_CHOICE, O(rl.adv_norm), "std", 0, 0, RL, "std|none",
     "divide advantages by the group's standard deviation, or not"},
    {"encoder", OPT_CHOICE, O(rl.encoder), "ref", 0, 0, RL, "ref|ngram",
     "what evol's similarity is made of: the starting model's hidden states, or token trigrams"},
    {"encoder", OPT_CHOICE, O(rl.encoder), "ref", 0, 0, C(GEOMETRY), "ref|ngram",
     "of texts: mean last hidden state of the first model named, or counts of token trigrams"},
    {"true-gradients", OPT_FLAG, O(true_gradients), NULL, 0, 0, C(GEOMETRY), "",
     "also the gradient of each response's log-prob by the parameters, and what predicts it"},
    {"loss", OPT_CHOICE, O(rl.loss), "token", 0, 0, C(TRAIN), "token|sequence",
     "mean over tokens, or over each response's tokens and then responses"},
    {"clip-low", OPT_NUMBER, O(rl.clip_low), "0.2", 0, 1, C(TRAIN), "X",
     "the ratio's lower clip is 1 - X"},
    {"clip-high", OPT_NUMBER, O(rl.clip_high), "0.2", 0, 1e6, C(TRAIN), "X",
     "the ratio's upper clip is 1 + X"},
    {"kl", OPT_CHOICE, O(rl.kl), "k3", 0, 0, C(TRAIN), "k3|k2|exact",
     "KL penalty: e^q - q - 1 or q^2/2, q = ln p_ref - ln p; or exact, over the vocabulary"},
    {"kl-coef", OPT_NUMBER, O(rl.kl_coef), "0.001", 0, 1e6, C(TRAIN), "X",
     "weight of the KL penalty to the starting model; 0: none, and that model is not kept"},
    {"entropy-coef", OPT_NUMBER, O(rl.entropy_coef), NULL, 0, 1e6, C(TRAIN), "X",
     "weight of the mean token entropy in the objective [0.003 for entropy, else 0]"},
    {"mask-truncated", OPT_FLAG, O(rl.mask_truncated), NULL, 0, 0, C(TRAIN), "",
     "leave responses that were cut off at --max-tokens out of the loss and its means"},

    HEADING("Learning"),
    {"steps", OPT_INT, O(steps), "1000", 0, 1e9, C(SFT), "N", "updates"},
    {"steps", OPT_INT, O(steps), "150", 0, 1e9, C(TRAIN), "N", "batches of rollouts"},
    {"batch", OPT_INT, O(batch), "128", 1, 65536, C(SFT), "N", "records an update"},
    {"shuffle", OPT_CHOICE, O(shuffle), "1", 0, 0, C(SFT), "0|1",
     "0 takes the records of --data in file order"},
    {"max-length", OPT_INT, O(max_length), "512", 2, 1e6, C(SFT), "N",
     "tokens of a record of plain text; a longer text is cut into several"},
    {"mini-batch", OPT_INT, O(mini_batch), "0", 0, 65536, C(TRAIN), "N",
     "prompts an update; 0: all of the step's, one exactly on-policy update"},
    {"epochs", OPT_INT, O(epochs), "1", 1, 1000, C(TRAIN), "N",
     "passes over each batch of rollouts"},
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

    HEADING("Evaluation on the way"),
    {"eval-every", OPT_INT, O(eval_every), "0", 0, 1e9, LEARN, "N",
     "evaluate every N steps into eval.jsonl; 0: never"},
    {"eval-data", OPT_TEXT, O(eval_data), NULL, 0, 0, LEARN, "FILE",
     "problems for it; without it, held-out ones of --task"},
    {"split", OPT_CHOICE, O(split), "test", 0, 0, LEARN, SPLITS,
     "which of the task's problems; settings are to be chosen on valid"},
    {"problems", OPT_INT, O(problems), "50", 1, 1e7, LEARN, "N", "how many of them"},
    {"samples", OPT_INT, O(samples), "16", 1, 4096, LEARN, "N", "responses to each"},
    {"temperature", OPT_NUMBER, O(temperature), "1", 0, 100, C(SFT), "T",
     "of sampling; 0: always the most likely token"},
    {"max-tokens", OPT_INT, O(max_tokens), "48", 1, 1e6, C(SFT), "N",
     "longest response, its end token included"},
    {"valid", OPT_TEXT, O(valid), NULL, 0, 0, C(SFT), "FILE",
     "records like those of --data, whose loss is reported"},

    HEADING("The run"),
    {"out", OPT_TEXT, O(out), NULL, 0, 0, LEARN, "DIR", "run directory to write (required)"},
    {"responses", OPT_TEXT, O(responses), NULL, 0, 0, C(EVAL), "FILE",
     "write what was sampled: a line of JSON for each response"},
    {"out", OPT_TEXT, O(out), NULL, 0, 0, C(REPORT), "FILE",
     "the page; without it, report.html beside the first run"},
    {"geometry", OPT_TEXT, O(geometry), NULL, 0, 0, C(REPORT), "FILE",
     "what `g2rl geometry --json` wrote, for the panels of cosines"},
    {"svg", OPT_TEXT, O(svg), NULL, 0, 0, C(REPORT), "FILE",
     "the frontier too, as a drawing of its own"},
    {"save-every", OPT_INT, O(save_every), "0", 0, 1e9, LEARN, "N",
     "checkpoint every N steps; 0: at the end"},
    {"keep", OPT_INT, O(keep), "0", 0, 1e9, LEARN, "N", "newest checkpoints that stay; 0: all"},
    {"dtype", OPT_CHOICE, O(dtype), "original", 0, 0, LEARN, "original|f32|bf16|f16",
     "of saved weights; original: as --model has them, tensor by tensor"},
    {"resume", OPT_FLAG, O(resume), NULL, 0, 0, LEARN, "",
     "go on with the run of --out from its newest complete checkpoint (see below)"},
    {"force", OPT_FLAG, O(force), NULL, 0, 0, LEARN, "",
     "replace a run that is already there; train even where the first batch teaches nothing; "
     "with --resume, go on with other options"},
    {"step", OPT_INT, O(step), NULL, 1, 1e9, C(REPLAY), "S", "of the run, from 1 (required)"},
    {"group", OPT_INT, O(group), "0", 0, 65535, C(REPLAY), "G", "of the step, from 0"},
    {"rollout", OPT_INT, O(rollout), "0", 0, 4095, C(REPLAY), "R", "of the group, from 0"},

    HEADING("Program"),
    {"template", OPT_CHOICE, O(chat), "qwen3", 0, 0, C(TOKENIZE), "qwen3",
     "how lines of messages become a prompt"},
    {"decode", OPT_FLAG, O(decode), NULL, 0, 0, C(TOKENIZE), "", "input_ids in, text out"},
    {"skip-special", OPT_FLAG, O(skip_special), NULL, 0, 0, C(TOKENIZE), "",
     "leave special tokens out of decoded text"},
    {"only", OPT_TEXT, O(only), NULL, 0, 0, C(BENCH), "NAME",
     "rows of one kind: peak, gemm, head, kernel, train_step, sample, rl_step"},
    {"quick", OPT_FLAG, O(quick), NULL, 0, 0, C(BENCH), "",
     "every row once, most with less work"},
    {"json", OPT_FLAG, O(json), NULL, 0, 0,
     C(EVAL) | C(GEOMETRY) | C(REPORT) | C(EXPLAIN) | C(REPLAY) | C(VERIFY_ANSWER) | C(BENCH), "",
     "results as JSON"},
    {"seed", OPT_SEED, O(seed), "1", 0, 0, ALL & ~(BARE | C(SCORE)), "N",
     "of all random numbers"},
    {"threads", OPT_INT, O(threads), "0", 0, MOST_THREADS,
     ALL & ~(C(TOKENIZE) | C(VERIFY_ANSWER) | C(DATA) | C(REPORT)), "N",
     "0: one for each core; the results do not depend on it"},
    {"micro-batch", OPT_INT, O(micro_batch), "0", 0, 65536, C(SFT), "N",
     "sequences in one pass of a thread; 0: a good number; the results do not depend on it"},
    {"micro-batch", OPT_INT, O(micro_batch), "0", 0, 65536, C(TRAIN), "N",
     "groups in one pass of a thread; 0: a good number; the results do not depend on it"},
    {"recompute", OPT_FLAG, O(recompute), NULL, 0, 0, LEARN, "",
     "save memory: one pass at a time, each layer's activations made again; the same numbers"},
};
#undef HEADING
#undef O
#undef ALL
#undef BARE
#undef DRAW
#undef JUDGED
#undef RL
#undef LEARN
#undef C
enum { N_OPTIONS = sizeof OPTIONS / sizeof *OPTIONS };

/* A file of a model directory that saved models carry on. */
typedef struct {
    char *name, *text;
    size_t n;
} Carried;

/* The options that a run was started with. */
typedef struct {
    Options o;
    char version[32];
} RunOptions;

/* What a command runs on. */
typedef struct {
    Options o;
    RunOptions was; /* with --resume: the run's own */
    int status;     /* of the program, where the command has come to its end */
    Words words;
    Task task;
    Template template;
    Reward reward; /* --reward-cmd, while it runs */
    Tokenizer tokenizer;
    Path tokenizer_path; /* "": the built-in vocabulary */
    Carried *carried;
    int n_carried;
    Model model;
    Engine engine;
} Session;

/* A command. The table of them is at the end of g2rl.c. */
typedef struct {
    const char *name, *summary, *usage;
    void (*run)(Session *);
} Command;
static const Command COMMANDS[N_COMMANDS];

static int default_threads(int asked)
{
#ifdef _OPENMP
    return asked ? asked : imin(omp_get_max_threads(), MOST_THREADS);
#else
    (void)asked;
    return 1;
#endif
}

/* Opens what the options name: task, template, reward command. */
static void session_begin(Session *s)
{
    const Options *o = &s->o;
    char error[256];
    if (o->task && !task_parse(o->task, &s->task, error, sizeof error))
        usage("--task: %s", error);
    if (o->stop && !*o->stop)
        usage("--stop: expected some text");
    if (o->reward_cmd && o->verifier)
        usage("--reward-cmd: gives the rewards in place of a verifier; expected no --verifier");
    if (o->template)
        s->template = template_open(o->template, o->system);
    if (o->system && s->template.kind == TEMPLATE_PLAIN)
        usage("--system: expected --template qwen3, or a file with {system} in it");
    if (o->reward_cmd) /* before there are weights: it begins as a copy of this process */
        s->reward = reward_start(o->reward_cmd, o->reward_timeout);
    s->engine.threads = default_threads(o->threads);
}

static void session_free(Session *s)
{
    words_free(&s->words);
    template_free(&s->template);
    reward_stop(&s->reward);
    tokenizer_free(&s->tokenizer);
    model_free(&s->model);
    engine_free(&s->engine);
    for (int i = 0; i < s->n_carried; i++) {
        free(s->carried[i].name);
        free(s->carried[i].text);
    }
    free(s->carried);
}

/* Does a file of this name go from a model's directory to what is made of it? The tokenizer's
 * files, chat templates, generation_config.json, notes and licences do: what is written anew,
 * weights and whatever else lies there do not. */
static bool is_carried(const char *name)
{
    static const char *const ends[] = {".json", ".jinja", ".txt", ".model", ".md"};
    const char *end = strrchr(name, '.');
    if (!strcmp(name, "config.json") || strstr(name, ".index.json") || *name == '.')
        return false;
    for (size_t i = 0; end && i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(end, ends[i]))
            return true;
    return !end;
}

static void carry_file(Session *s, const char *path, const char *name)
{
    Carried file = {.name = xstrdup(name)};
    file.text = read_file(path, &file.n);
    s->carried = room_for_one(s->carried, s->n_carried, sizeof file);
    s->carried[s->n_carried++] = file;
}

/* Reads the small files of a directory, all but `without`, for saving: the directory itself may be
 * gone by then. */
static void carry_files(Session *s, const char *path, const char *without)
{
    enum { SMALL = 1 << 26 };
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat info;
        Path file = path_join(path, entry->d_name);
        if (is_carried(entry->d_name) && strcmp(entry->d_name, without) &&
            !stat(file.s, &info) && S_ISREG(info.st_mode) && info.st_size <= SMALL)
            carry_file(s, file.s, entry->d_name);
    }
    if (dir)
        closedir(dir);
}

/* The tokenizer that lies beside the model, read when it is asked for first. */
static void session_tokenizer(Session *s)
{
    if (s->tokenizer.n_vocab)
        return;
    s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    if (s->tokenizer.n_vocab > s->model.config.vocab_size)
        die("%s: has ids up to %d, but vocab_size of config.json is %d", s->tokenizer_path.s,
            s->tokenizer.n_vocab - 1, s->model.config.vocab_size);
}

/* The model at `path`; NULL: --model is missing. */
static void session_load(Session *s, const char *path)
{
    if (!path)
        usage("--model is missing");
    Path dir = model_dir(path);
    s->model = model_load(dir.s);
    s->tokenizer_path = path_join(dir.s, "tokenizer.json");
}

/* The same, to draw from: with its tokenizer, whose ids alone may be drawn, and packed weights. */
static void session_sampler(Session *s, const char *path)
{
    session_load(s, path);
    session_tokenizer(s);
    s->model.n_vocab = s->tokenizer.n_vocab;
    model_pack(&s->model, s->engine.threads);
}

/* For a model that will be saved: the files of the directory that it came from ("": none), and the
 * dtype of its weights. */
static void session_prepare_saving(Session *s, const char *from)
{
    static const int dtypes[] = {ST_DTYPES, ST_F32, ST_BF16, ST_F16}; /* in --dtype's order */
    if (*from)
        carry_files(s, from, "");
    if (s->o.dtype)
        model_set_dtype(&s->model, dtypes[s->o.dtype]);
}

/* The problems of a file, or, where path is NULL, of --task. */
static Problems session_prompts(Session *s, const char *path, Split split, bool need_answer)
{
    Problems p = path ? problems_read(path, need_answer) : (Problems){0};
    p.task = s->task;
    p.split = split;
    p.seed = s->o.seed;
    p.template = s->template;
    p.judge = judge_new((Verifier)s->o.verifier, &s->task, p.n ? p.problem[0].prompt : NULL);
    p.judge.command = s->reward.watcher ? &s->reward : NULL;
    return p;
}

/* The same, for responses that will be judged. */
static Problems session_problems(Session *s, const char *path, Split split)
{
    return session_prompts(s, path, split, !s->o.reward_cmd);
}

/* The list of problems of an evaluation: those of a file, where answers that no verifier takes stay
 * in and count as wrong; or --problems of the task's that all differ. */
static Problems session_evaluated(Session *s, const char *path)
{
    Problems p = session_problems(s, path, (Split)s->o.split);
    if (path)
        problems_check_gold(&p, false);
    else
        problems_draw(&p, s->o.problems);
    return p;
}

/* How many tokens a prompt may have: as many as the model has positions for beside a response. */
static int prompt_limit(const Session *s, const Config *c)
{
    int room = c->max_position_embeddings - s->o.max_tokens;
    if (room < 1)
        die("--max-tokens %d: leaves no room for a prompt; expected less than the model's "
            "max_position_embeddings %d", s->o.max_tokens, c->max_position_embeddings);
    return s->o.max_prompt ? imin(s->o.max_prompt, room) : room;
}

/* Tokens of a problem's prompt as the model reads it; dies where a character has no token. */
static int prompt_tokens(const Problems *p, const Problem *q, const Tokenizer *t, Buf *text)
{
    size_t bad = 0;
    text->n = 0;
    template_render(&p->template, q->prompt, text);
    Ids ids = {0};
    bool good = tokenizer_prompt(t, text->s, text->n, &ids, &bad);
    if (!good && q->line)
        die("%s: line %d: '%.40s': no token for the character at byte %zu", p->path, q->line,
            text->s, bad);
    if (!good)
        die("%s: '%.40s': no token for the character at byte %zu", p->path, text->s, bad);
    int n = ids.n;
    ids_free(&ids);
    return n;
}

/* Leaves out the problems of a file whose prompts are longer than `limit` tokens, says how many,
 * and sets p->longest. For drawn problems that is a bound: a token is at least one byte. */
static void problems_fit(Problems *p, const Tokenizer *t, int limit)
{
    Buf text = {0};
    int n = p->n, longest = 0;
    bool *keep = xcalloc((size_t)n, sizeof *keep);
    for (int i = 0; i < n; i++) {
        int tokens = prompt_tokens(p, &p->problem[i], t, &text);
        keep[i] = tokens > 0 && tokens <= limit;
        longest = keep[i] ? imax(longest, tokens) : longest;
    }
    problems_keep(p, keep);
    if (n && !p->n)
        die("%s: the prompts of all %d problems are over %d tokens; see --max-prompt and "
            "--max-tokens", p->path, n, limit);
    if (p->n < n)
        warn("%s: dropped %d of %d problems (%.1f %%): prompts over %d tokens", p->path, n - p->n,
             n, 100.0 * (n - p->n) / n, limit);
    if (!n) {
        char any[TASK_PROMPT_MAX + 1];
        memset(any, '0', sizeof any - 1);
        any[sizeof any - 1] = 0;
        template_render(&p->template, any, &text);
        longest = imin(limit, (int)text.n + 1);
    }
    p->longest = longest;
    buf_free(&text);
}

/* The name and the directory of model i: --model, or a word NAME=DIR. */
static const char *session_named(const Session *s, int i, char name[64])
{
    const char *word = s->o.model ? s->o.model : s->words.word[i], *equals = strchr(word, '=');
    snprintf(name, 64, "model");
    if (s->o.model)
        return word;
    if (!equals || equals == word)
        usage("'%.60s'; expected NAME=DIR", word);
    snprintf(name, 64, "%.*s", (int)imin(60, (int)(equals - word)), word);
    for (int k = 0; k < i; k++)
        if (!strncmp(s->words.word[k], word, (size_t)(equals + 1 - word)))
            usage("two models are named '%s'", name);
    return equals + 1;
}

/* Leaves out the problems that are too long for one of n models, so that all get the same. */
static void session_fit(const Session *s, Problems *p, int n)
{
    char name[64];
    int longest = 0;
    for (int i = 0; i < n; i++) {
        Path dir = model_dir(session_named(s, i, name));
        char *text;
        Config c = config_read(dir.s, &text);
        Tokenizer t = tokenizer_load(path_join(dir.s, "tokenizer.json").s);
        problems_fit(p, &t, prompt_limit(s, &c));
        longest = imax(longest, p->longest);
        tokenizer_free(&t);
        free(text);
    }
    p->longest = longest;
}

enum { NOT_TRAINED = -100 }; /* a label of sft: nothing is learned there */

/* A JSON array of ids below vocab_size; of labels, NOT_TRAINED too. Returns how many; the caller
 * frees *ids. */
static int read_ids(Json *j, const Config *c, bool labels, int **ids, const char *path, int line)
{
    int n = 0, room = 0;
    for (json_array(j); json_item(j); n++) {
        int64_t id;
        if (!json_int(j, &id))
            break;
        if ((id < 0 || id >= c->vocab_size) && !(labels && id == NOT_TRAINED))
            die("%s: line %d: %s holds %lld; expected ids from 0 to %d%s", path, line,
                labels ? "labels" : "the list of ids", (long long)id, c->vocab_size - 1,
                labels ? ", or -100" : "");
        if (n == room)
            *ids = xrealloc(*ids, (size_t)(room = room * 2 + 64) * sizeof(int));
        (*ids)[n] = (int)id;
    }
    return n;
}

/* Progress on stderr: one line that changes on a terminal, else a line now and then. */
typedef struct {
    const char *phase;
    int first, total; /* done before it began, and in the end */
    double start, last;
} Progress;

static Progress progress_new(const char *phase, int total)
{
    return (Progress){.phase = phase, .total = total, .start = now_seconds()};
}

static void progress(Progress *p, int done, const char *note)
{
    bool terminal = isatty(STDERR_FILENO), end = done >= p->total;
    double now = now_seconds(), spent = now - p->start;
    int new = done - p->first;
    if (!end && now - p->last < (terminal ? 0.2 : 10.0) && p->last > 0)
        return;
    p->last = now;
    fprintf(stderr, "%s%-12s %*d/%d  %s  %s %.0f s%s%s", terminal ? "\r" : "", p->phase,
            terminal ? 1 : (int)(log10(p->total + 0.5) + 1), done, p->total, note,
            end ? "took" : "left",
            end ? spent : new ? spent / new * (p->total - done) : 0,
            terminal ? "\033[K" : "", end || !terminal ? "\n" : "");
    fflush(stderr);
}

static double learning_rate(const Options *o, int step)
{
    return schedule_lr((Schedule)o->schedule, o->lr, step, o->warmup, o->steps);
}

static void put_hash(Buf *b, const Model *m)
{
    buf_printf(b, ", \"weights_hash\": \"%016llx\"", (unsigned long long)weights_hash(m));
}

/* A command without --top-p and --top-k draws from the whole distribution. */
static Sampling session_sampling(const Session *s, int step)
{
    const Options *o = &s->o;
    return (Sampling){.temperature = o->temperature, .top_p = o->top_p > 0 ? o->top_p : 1,
                      .top_k = o->top_k,
                      .max_tokens = o->max_tokens, .seed = o->seed, .step = step,
                      .stop = o->stop, .tokenizer = &s->tokenizer};
}

/* Is the reference needed, the model that training began with: for a KL penalty, or for EVOL-RL's
 * embeddings? */
static bool keeps_reference(const Options *o)
{
    return o->rl.kl_coef > 0 || (o->rl.method == EVOL && o->rl.encoder == EMBED_REF);
}

#endif
