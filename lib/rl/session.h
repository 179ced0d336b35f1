/* session.h: the state of a command: options and their table, model, tokenizer, problems. */
#ifndef SESSION_H
#define SESSION_H

#include "rollouts.h"        /* defines: Sampling; group.h: MethodOptions; model.c: Model, ... */
#include "../base/options.h"        /* defines: Option, options_parse */
#include "../tasks/problems.h"       /* defines: Problems, Judge, Template, Task */
#include "../model/chat_template.h"  /* defines: chat_template_read; tokenizer_json.h */

#define VERSION "0.1"

enum {
    SFT, TRAIN, EVAL, GEOMETRY, REPORT, SAMPLE_TEXT, SCORE, TOKENIZE, EXPLAIN, REPLAY, DATA,
    VERIFY_ANSWER, MERGE, BENCH, N_COMMANDS
};

/* The options' values, by OPTIONS. A choice is its index; NULL: a text that was not given. */
typedef struct {
    const char *model, *task, *data, *eval_data, *out, *preset, *tokenizer, *prompt, *pred;
    const char *gold, *valid, *temperatures, *responses, *template, *system, *reward_cmd, *geometry;
    const char *svg, *against, *adapter;
    Texts stop;
    int verifier, max_prompt, chat, max_length, step, group, rollout, keep, split, steps, warmup;
    int schedule, batch, micro_batch, shuffle, prompts, rollouts, epochs, mini_batch, max_tokens;
    int samples, problems, top_k, threads, save_every, eval_every, dtype, only, shape, ledger;
    int lora, lora_targets;
    double lr, beta1, beta2, adam_eps, weight_decay, clip_norm, temperature, top_p, reward_timeout;
    double feature_temperature, lora_alpha;
    uint64_t seed;
    bool json, csv, force, no_check, quick, recompute, decode, skip_special, true_gradients, resume;
    MethodOptions rl;
} Options;

#define BENCH_ROWS "all|peak|gemm|head|train_step|sample|rl_step" /* --only */

/* Sets of commands. BARE: neither model nor task. */
#define C(x) (1u << (x))
enum {
    LEARN = C(SFT) | C(TRAIN),
    RL = C(TRAIN) | C(EXPLAIN),
    JUDGED = C(SFT) | C(TRAIN) | C(EVAL) | C(GEOMETRY) | C(EXPLAIN),
    DRAW = C(TRAIN) | C(EVAL) | C(GEOMETRY) | C(SAMPLE_TEXT) | C(EXPLAIN),
    BARE = C(REPORT) | C(TOKENIZE) | C(REPLAY) | C(VERIFY_ANSWER) | C(BENCH),
    EVERY = (1 << N_COMMANDS) - 1
};
#define O(field) offsetof(Options, field)
#define TEXT(name, field, standard, commands, shown, help) \
    {name, OPT_TEXT, O(field), standard, 0, 0, commands, shown, help}
#define CHOICE(name, field, standard, commands, choices, help) \
    {name, OPT_CHOICE, O(field), standard, 0, 0, commands, choices, help}
#define FLAG(name, field, commands, help) {name, OPT_FLAG, O(field), NULL, 0, 0, commands, "", help}
#define INT(name, field, standard, low, high, commands, help) \
    {name, OPT_INT, O(field), standard, low, high, commands, "N", help}
#define NUMBER(name, field, standard, low, high, commands, help) \
    {name, OPT_NUMBER, O(field), standard, low, high, commands, "X", help}
#define HEADING(text) {"", OPT_FLAG, 0, NULL, 0, 0, 0, "", text}
static const Option OPTIONS[] = {
    HEADING("The model"),
    TEXT("model", model, NULL, EVERY & ~(BARE | C(DATA)), "DIR",
         "a model, or a run: its newest checkpoint"),
    TEXT("adapter", adapter, NULL, EVERY & ~(BARE | C(DATA)), "DIR",
         "a LoRA adapter of the model, in PEFT's files; sft and train go on with it"),
    TEXT("preset", preset, NULL, C(SFT), "NAME",
         "random weights of a shape: nano, tiny, small, medium, qwen3-0.6b"),
    CHOICE("preset", shape, "all", C(BENCH), "all|tiny|small|medium", "only this shape"),
    TEXT("tokenizer", tokenizer, NULL, C(SFT), "FILE|DIR",
         "tokenizer.json for --preset in place of the tasks' characters, or where it is"),
    TEXT("tokenizer", tokenizer, NULL, C(TOKENIZE), "FILE|DIR", "file, model or run (required)"),
    HEADING("Problems and rewards"),
    TEXT("task", task, "countdown", EVERY & ~(BARE | C(SCORE) | C(MERGE)), "NAME[:key=value,..]",
         "built-in task (see g2rl data --help)"),
    TEXT("task", task, NULL, C(VERIFY_ANSWER), "NAME[:key=value,..]",
         "whose rules judge the responses of --data (see g2rl data --help)"),
    TEXT("data", data, NULL, JUDGED | C(DATA), "FILE", "JSONL in place of --task (see below)"),
    TEXT("data", data, NULL, C(VERIFY_ANSWER), "FILE",
         "JSONL of response (or pred) and gold; with --task, of prompt and response"),
    TEXT("data", data, NULL, C(SAMPLE_TEXT), "FILE",
         "JSONL of prompts; writes a line of prompt and response for each response"),
    TEXT("prompt", prompt, NULL, C(SAMPLE_TEXT) | C(EXPLAIN), "TEXT", "e.g. '3574>26:'"),
    TEXT("pred", pred, NULL, C(VERIFY_ANSWER), "TEXT", "a response or an answer, e.g. '\\frac12'"),
    TEXT("gold", gold, NULL, C(VERIFY_ANSWER), "TEXT", "the answer, or a solution that boxes it"),
    CHOICE("split", split, "test", JUDGED & ~LEARN, SPLITS, "which of the task's problems"),
    CHOICE("split", split, "train", C(DATA), SPLITS, "which of the task's problems"),
    INT("problems", problems, "200", 1, 1e7, C(EVAL) | C(DATA), "number of problems"),
    INT("problems", problems, "100", 1, 1e7, C(GEOMETRY), "number of problems"),
    TEXT("template", template, TEMPLATE_NOT_GIVEN, DRAW | C(SFT), TEMPLATES "|FILE",
         "from problem to prompt (see below); its end-of-turn token ends a response"),
    TEXT("system", system, NULL, DRAW | C(SFT), "TEXT", "the template's system text"),
    INT("max-prompt", max_prompt, "0", 0, 1e6, JUDGED,
        "longest prompt in tokens, of --data longer ones are left out; 0: the longest that fits"),
    CHOICE("verifier", verifier, "auto", JUDGED, VERIFIERS, "who judges the responses (see below)"),
    TEXT("reward-cmd", reward_cmd, NULL, JUDGED, "CMD", "program that gives rewards (see below)"),
    NUMBER("reward-timeout", reward_timeout, "60", 0.01, 1e6, JUDGED, "seconds to wait for it"),
    HEADING("Sampling"),
    INT("prompts", prompts, "16", 1, 65536, C(TRAIN), "prompts a step"),
    INT("rollouts", rollouts, "16", 2, 4096, RL, "responses to each: m, the size of a group"),
    INT("samples", samples, "32", 1, 4096, C(EVAL), "responses to each problem"),
    INT("samples", samples, "8", 2, 4096, C(GEOMETRY), "responses to each problem"),
    INT("samples", samples, "1", 1, 4096, C(SAMPLE_TEXT), "responses"),
    NUMBER("temperature", temperature, "1", 0.01, 100, RL, "of sampling, log-probs and features"),
    TEXT("temperature", temperatures, "1", C(EVAL), "T[,T..]", "a row for each; 0: greedy"),
    NUMBER("temperature", temperature, "1", 0, 100, C(SAMPLE_TEXT), "of sampling; 0: greedy"),
    NUMBER("temperature", temperature, "1", 0.01, 100, C(SCORE), "of the log-probs"),
    NUMBER("temperature", temperature, "1", 0.01, 100, C(GEOMETRY),
           "of sampling, features and true gradients"),
    NUMBER("feature-temperature", feature_temperature, "0", 0, 100, C(GEOMETRY),
           "of features and true gradients; 0: the sampling temperature"),
    NUMBER("top-p", top_p, "1", 1e-6, 1, C(EVAL) | C(SAMPLE_TEXT),
           "nucleus sampling: the smallest set of tokens of this probability"),
    INT("top-k", top_k, "0", 0, 1e9, C(EVAL) | C(SAMPLE_TEXT),
        "sample from the N most likely tokens; 0: all"),
    INT("max-tokens", max_tokens, "48", 1, 1e6, DRAW, "longest response, with its end token"),
    {"stop", OPT_TEXTS, O(stop), NULL, 0, 0, JUDGED | C(SAMPLE_TEXT), "TEXT",
     "a response ends before this text, or with this special token; may be given again"},
    HEADING("The method"),
    CHOICE("method", rl.method, "g2rl", RL, "grpo|entropy|evol|g2rl", "see below"),
    NUMBER("lambda", rl.lambda, "0.5", 0, 1e6, RL,
           "strength of the shaping; 0 is GRPO, to the bit, for rewards within +-3"),
    CHOICE("shaping", rl.shaping, "literal", RL, "literal|text",
           "literal: Eq 12 as printed, r (1 + lambda r nubar); text: r (1 + lambda nubar)"),
    CHOICE("novelty", rl.novelty, "gradient", RL, "gradient|random|count",
           "controls. random: nu permuted within the group; count: S_ij = 1 for equal responses"),
    CHOICE("dead-groups", rl.dead_groups, "full", RL, "full|zero|right|wrong",
           "groups of equal rewards that have advantages: all, none, all right, all wrong"),
    CHOICE("adv-norm", rl.adv_norm, "std", RL, "std|none", "divide by the group's std, or not"),
    CHOICE("encoder", rl.encoder, "ref", RL, "ref|ngram",
           "embeddings of evol: the reference's hidden states, or token trigrams"),
    CHOICE("encoder", rl.encoder, "ref", C(GEOMETRY), "ref|ngram",
           "embeddings of texts: the first model's mean hidden state, or token trigrams"),
    FLAG("true-gradients", true_gradients, C(GEOMETRY),
         "compare with gradients of each response's log-prob by all parameters"),
    CHOICE("loss", rl.loss, "token", C(TRAIN), "token|sequence",
           "mean over tokens, or over each response's tokens, then responses"),
    NUMBER("clip-low", rl.clip_low, "0.2", 0, 1, C(TRAIN), "the ratio is clipped at 1 - X"),
    NUMBER("clip-high", rl.clip_high, "0.2", 0, 1e6, C(TRAIN), "the ratio is clipped at 1 + X"),
    CHOICE("kl", rl.kl, "k3", C(TRAIN), "k3|k2|exact",
           "penalty e^q - q - 1 or q^2/2, q = ln p_ref - ln p; or exact, over the vocabulary"),
    NUMBER("kl-coef", rl.kl_coef, "0.001", 0, 1e6, C(TRAIN),
           "weight of the KL penalty to the reference; 0: no reference is kept"),
    NUMBER("entropy-coef", rl.entropy_coef, NULL, 0, 1e6, C(TRAIN),
           "weight of the entropy bonus [0.003 for entropy, else 0]"),
    FLAG("mask-truncated", rl.mask_truncated, C(TRAIN),
         "responses cut off at --max-tokens have no loss"),
    HEADING("Learning"),
    INT("steps", steps, "1000", 0, 1e9, C(SFT), "updates"),
    INT("steps", steps, "150", 0, 1e9, C(TRAIN), "batches of rollouts"),
    INT("batch", batch, "128", 1, 65536, C(SFT), "records an update"),
    CHOICE("shuffle", shuffle, "1", C(SFT), "0|1", "0 takes the records of --data in file order"),
    INT("max-length", max_length, "512", 2, 1e6, C(SFT),
        "tokens of a record of plain text; longer texts are cut"),
    INT("lora", lora, "0", 0, 65536, LEARN,
        "train a low-rank adapter of rank N in place of the weights; 0: no (see below)"),
    NUMBER("lora-alpha", lora_alpha, "32", 1e-6, 1e6, LEARN, "W = W0 + (alpha / rank) B A"),
    CHOICE("lora-targets", lora_targets, "all", LEARN, "all|attention|mlp",
           "the weights that have an adapter: q, k, v, o; gate, up, down; or all seven"),
    INT("mini-batch", mini_batch, "0", 0, 65536, C(TRAIN),
        "prompts an update; 0: all, one exactly on-policy update"),
    INT("epochs", epochs, "1", 1, 1000, C(TRAIN), "passes over each batch of rollouts"),
    NUMBER("lr", lr, "2e-3", 0, 10, C(SFT), "learning rate"),
    NUMBER("lr", lr, "1e-4", 0, 10, C(TRAIN), "learning rate"),
    CHOICE("schedule", schedule, "cosine", C(SFT), "constant|linear|cosine", "of --lr"),
    CHOICE("schedule", schedule, "constant", C(TRAIN), "constant|linear|cosine", "of --lr"),
    INT("warmup", warmup, "50", 0, 1e9, C(SFT), "steps of rising learning rate"),
    INT("warmup", warmup, "0", 0, 1e9, C(TRAIN), "steps of rising learning rate"),
    NUMBER("beta1", beta1, "0.9", 0, 0.999999, LEARN, "AdamW's first moment"),
    NUMBER("beta2", beta2, "0.99", 0, 0.999999, LEARN, "AdamW's second moment"),
    NUMBER("adam-eps", adam_eps, "1e-8", 1e-20, 1, LEARN, "AdamW's epsilon"),
    NUMBER("weight-decay", weight_decay, "0", 0, 10, LEARN, "decoupled, all tensors"),
    NUMBER("clip-norm", clip_norm, "1", 0, 1e9, LEARN, "gradient's largest norm; 0: no clipping"),
    HEADING("Evaluation on the way"),
    INT("eval-every", eval_every, "0", 0, 1e9, LEARN, "steps between evaluations; 0: none"),
    TEXT("eval-data", eval_data, NULL, LEARN, "FILE", "problems to evaluate, else those of --task"),
    CHOICE("split", split, "test", LEARN, SPLITS, "which problems; choose settings on valid"),
    INT("problems", problems, "50", 1, 1e7, LEARN, "number of problems"),
    INT("samples", samples, "16", 1, 4096, LEARN, "responses to each problem"),
    NUMBER("temperature", temperature, "1", 0, 100, C(SFT), "of sampling; 0: greedy"),
    INT("max-tokens", max_tokens, "48", 1, 1e6, C(SFT), "longest response, with its end token"),
    TEXT("valid", valid, NULL, C(SFT), "FILE", "records whose loss is evaluated"),
    HEADING("The run"),
    TEXT("out", out, NULL, LEARN, "DIR", "run directory to write (required)"),
    TEXT("out", out, NULL, C(MERGE), "DIR", "model directory to write (required)"),
    CHOICE("ledger", ledger, "full", C(TRAIN), "full|short",
           "rollouts.jsonl with S, w and semantic, m x m numbers a group; or without them"),
    TEXT("responses", responses, NULL, C(EVAL), "FILE", "write the responses, a line of JSON each"),
    TEXT("out", out, NULL, C(REPORT), "FILE", "the page; else report.html next to the first run"),
    TEXT("geometry", geometry, NULL, C(REPORT), "FILE", "output of `g2rl geometry --json`"),
    TEXT("svg", svg, NULL, C(REPORT), "FILE", "write the frontier as a drawing too"),
    TEXT("against", against, NULL, C(REPORT), "RUN",
         "the runs that others are compared with, by their directory's name; or base: "
         "before training; else grpo"),
    FLAG("csv", csv, C(REPORT), "the numbers of one run, a row a step, and no page"),
    INT("save-every", save_every, "0", 0, 1e9, LEARN,
        "steps between checkpoints; 0: every ten minutes and before evaluations, the newest kept"),
    INT("keep", keep, "0", 0, 1e9, LEARN, "newest checkpoints to keep; 0: all"),
    CHOICE("dtype", dtype, "original", LEARN | C(MERGE), "original|f32|bf16|f16",
           "of saved weights; original: as in --model, tensor by tensor"),
    FLAG("resume", resume, LEARN, "continue the run of --out from its newest complete checkpoint"),
    FLAG("force", force, LEARN, "replace a run; with --resume, go on with other options"),
    FLAG("no-check", no_check, C(TRAIN), "train also where the first steps teach nothing"),
    INT("step", step, NULL, 1, 1e9, C(REPLAY), "of the run, from 1 (required)"),
    INT("group", group, "0", 0, 65535, C(REPLAY), "of the step, from 0"),
    INT("rollout", rollout, "0", 0, 4095, C(REPLAY), "of the group, from 0"),
    HEADING("Program"),
    CHOICE("template", chat, "qwen3", C(TOKENIZE), CHAT_FORMATS, "from messages to a prompt"),
    FLAG("decode", decode, C(TOKENIZE), "input_ids in, text out"),
    FLAG("skip-special", skip_special, C(TOKENIZE), "leave special tokens out of decoded text"),
    CHOICE("only", only, "all", C(BENCH), BENCH_ROWS, "rows of one kind"),
    FLAG("quick", quick, C(BENCH), "measure once, with less work"),
    FLAG("json", json,
         EVERY & ~(LEARN | C(SAMPLE_TEXT) | C(SCORE) | C(TOKENIZE) | C(DATA) | C(MERGE)),
         "results as JSON"),
    {"seed", OPT_SEED, O(seed), "1", 0, 0, EVERY & ~(BARE | C(SCORE) | C(MERGE)), "N",
     "of random numbers"},
    INT("threads", threads, "0", 0, MOST_THREADS,
        (EVERY & ~(BARE | C(DATA) | C(MERGE))) | C(REPLAY) | C(BENCH),
        "0: all cores that the job may use; the same results"),
    INT("micro-batch", micro_batch, "0", 0, 65536, LEARN,
        "sequences (sft) or groups (train) of one pass; 0: automatic; the results are the same"),
    FLAG("recompute", recompute, LEARN,
         "activation checkpointing: less memory, more time, the same numbers"),
};
#undef HEADING
#undef NUMBER
#undef INT
#undef FLAG
#undef CHOICE
#undef TEXT
#undef O
#undef C
enum { N_OPTIONS = sizeof OPTIONS / sizeof *OPTIONS };

/* A file of the model's directory that is copied to where the model is saved. */
typedef struct {
    char *name, *text;
    size_t n;
} Carried;

/* The options that a run was started with. */
typedef struct {
    Options o;
    char version[32];
} RunOptions;

typedef struct {
    Options o;
    RunOptions was; /* with --resume: the run's own */
    int status;     /* the program's exit status */
    Words words;
    Task task;
    Template template;
    Reward reward; /* the process of --reward-cmd */
    Tokenizer tokenizer;
    Stops stops;   /* of --stop and the template, in this tokenizer's ids */
    Path tokenizer_path; /* "": the built-in vocabulary */
    bool told;     /* session_prompter has told what there is to tell of the template */
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

/* --threads, or all cores that the job may use; a warning where there are fewer than were asked
 * for. */
static int default_threads(int threads)
{
#ifdef _OPENMP
    int most = imin(omp_get_thread_limit(), MOST_THREADS);
    if (threads > most)
        warn("--threads %d: OMP_THREAD_LIMIT allows %d", threads, most);
    int cores = (int)fmin(omp_get_max_threads(), processors_available());
    return imin(threads ? threads : cores, most);
#else
    if (threads > 1)
        warn("--threads %d: this program was built without OpenMP and runs on one thread; the "
             "Makefile looks for it", threads);
    return 1;
#endif
}

/* Opens what the options name: task, template, reward command. */
static void session_begin(Session *s)
{
    const Options *o = &s->o;
    char error[256];
    s->task = task_standard(TASK_COUNTDOWN); /* where run.json has none */
    if (o->task && !task_parse(o->task, &s->task, error, sizeof error))
        usage("--task: %s", error);
    for (int i = 0; i < o->stop.n; i++)
        if (!*o->stop.text[i])
            usage("--stop: expected some text");
    if (o->reward_cmd && o->verifier)
        usage("--reward-cmd: gives the rewards in place of a verifier; expected no --verifier");
    if (o->template)
        s->template = template_open(o->template, o->system);
    if (o->system && s->template.kind == TEMPLATE_PLAIN)
        usage("--system: expected --template " CHAT_FORMATS ", or a file with {system} in it");
    if (o->reward_cmd) /* fork before the weights are loaded */
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

/* Is a file of this name copied from a model's directory to what is made of it? The tokenizer's
 * files, chat templates, generation_config.json, notes and licences are; not config.json and
 * weights, which are written anew, nor anything else. */
static bool is_carried(const char *name)
{
    const char *end = strrchr(name, '.');
    if (!strcmp(name, "config.json") || strstr(name, ".index.json") || *name == '.')
        return false;
    return !end || among(end, ".json|.jinja|.txt|.model|.md");
}

static void carry_file(Session *s, const char *path, const char *name)
{
    Carried file = {.name = xstrdup(name)};
    file.text = read_file(path, &file.n);
    APPEND(s->carried, s->n_carried, file);
}

/* Reads the small files of a directory, all but `without`, now: at the time of saving the directory
 * may be gone. */
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

/* Loads the model's tokenizer, the first time it is called. */
static void session_tokenizer(Session *s)
{
    if (s->tokenizer.n_vocab)
        return;
    s->tokenizer = tokenizer_load(s->tokenizer_path.s);
    if (s->tokenizer.n_vocab > s->model.config.vocab_size)
        die("%s: has ids up to %d, but vocab_size of config.json is %d", s->tokenizer_path.s,
            s->tokenizer.n_vocab - 1, s->model.config.vocab_size);
}

static void warn_unplaced(const Model *m, const char *dir)
{
    if (m->unplaced)
        warn("%s: a model of type %s has no place for %s; left out", dir,
             MODEL_TYPES[m->config.model_type], m->unplaced);
}

/* The adapter of --adapter: a directory of PEFT's, or a run: its newest checkpoint. */
static Path session_adapter(const Session *s, const char *model)
{
    Path dir = model_dir(s->o.adapter);
    if (is_adapter(model))
        die("--adapter: %s is an adapter itself; expected --model to name its base", model);
    return dir;
}

/* The model at `path`, with --adapter; NULL: --model is missing. */
static void session_load(Session *s, const char *path)
{
    if (!path)
        usage("--model is missing");
    Path dir = model_dir(path);
    s->model = model_load(dir.s);
    s->told = false;
    warn_unplaced(&s->model, dir.s);
    if (s->o.adapter)
        lora_apply(&s->model, session_adapter(s, dir.s).s);
    s->tokenizer_path = path_join(base_dir(dir.s).s, "tokenizer.json");
}

/* An adapter of --lora's rank, for --lora-targets. */
static Lora *session_new_adapter(const Session *s)
{
    static const bool targets[3][LINEARS] = {
        {1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 0, 0, 0}, {0, 0, 0, 0, 1, 1, 1}};
    int n = s->model.config.num_hidden_layers * LINEARS, *rank = xcalloc(n, sizeof *rank);
    for (int i = 0; i < n; i++)
        rank[i] = targets[s->o.lora_targets][i % LINEARS] ? s->o.lora : 0;
    Lora *l = lora_new(&s->model, rank, s->o.lora_alpha);
    lora_init(l, s->o.seed);
    free(rank);
    return l;
}

/* The model to train, at `path`. With --lora or --adapter it is --model, beside an adapter that is
 * trained in its place: as it is at step 0. */
static void session_learner(Session *s, const char *path)
{
    const Options *o = &s->o;
    if (!o->lora && !o->adapter) {
        session_load(s, path);
        return;
    }
    if (o->lora && o->adapter)
        usage("--lora: begins an adapter, and --adapter goes on with one; expected one of them");
    if (o->dtype)
        usage("--dtype: an adapter is saved as F32; expected no --dtype");
    if (!o->model)
        usage("--model is missing");
    Path base = model_dir(o->model);
    if (is_adapter(base.s))
        die("--model: %s is an adapter; expected its base, beside --adapter to go on with it",
            base.s);
    s->model = model_read(base.s);
    warn_unplaced(&s->model, base.s);
    s->tokenizer_path = path_join(base.s, "tokenizer.json");
    Lora *l = o->adapter ? lora_read(&s->model, session_adapter(s, base.s).s)
                         : session_new_adapter(s);
    lora_attach(&s->model, l, base.s);
    lora_merge(&s->model, l->start, s->engine.threads);
}

/* What --template makes is not the prompts of the model's own chat template, `jinja`. */
static void warn_template(const Session *s, const char *jinja)
{
    const Template *t = &s->template;
    int format = chat_template_format(jinja), n;
    const char *name = choice_name(CHAT_FORMATS, imax(format, 0), &n);
    const char *end = template_turn_end(t), *path = s->tokenizer_path.s;
    Buf system = {0};
    bool lacks_system = format == CHAT_CHATML && !t->system && chat_template_system(jinja, &system);
    if (s->o.template == TEMPLATE_NOT_GIVEN && format >= 0)
        warn("%s: the model has a chat template, but these prompts are plain; for its form: "
             "--template %.*s%s%s%s; for plain prompts without this line: --template plain", path,
             n, name, lacks_system ? " --system '" : "", lacks_system ? system.s : "",
             lacks_system ? "'" : "");
    else if (s->o.template == TEMPLATE_NOT_GIVEN && jinja)
        warn("%s: the model has a chat template, but these prompts are plain; for its form: "
             "--template FILE; for plain prompts without this line: --template plain", path);
    else if (template_is_chat(t) && turn_end_id(t, &s->tokenizer) < 0)
        warn("%s: has no special token %s; --template %s is for other models", path, end,
             s->o.template);
    else if (template_is_chat(t) && lacks_system)
        warn("%s: the model's chat template begins with a system text, but these prompts do not; "
             "for its form: --system '%s'", path, system.s);
    buf_free(&system);
}

/* The tokenizer, for prompts. */
static void session_prompter(Session *s)
{
    session_tokenizer(s);
    if (s->told || !s->o.template || !s->tokenizer_path.s[0])
        return;
    char *jinja = chat_template_read(s->tokenizer_path.s);
    warn_template(s, jinja);
    free(jinja);
    s->told = true;
}

/* The token that ends a given response: of the model's end tokens the one that ends a turn of the
 * template, else the first; -1: the model has none. Llama 3 has one of a text and one of a turn. */
static int session_end_token(const Session *s)
{
    const Config *c = &s->model.config;
    int turn = turn_end_id(&s->template, &s->tokenizer);
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_token_id[i] == turn)
            return turn;
    return c->n_eos ? c->eos_token_id[0] : -1;
}

/* The same for sampling: with what ends a response. */
static void session_stops(Session *s)
{
    session_prompter(s);
    s->stops = stops_new(&s->o.stop, &s->template, &s->tokenizer);
}

/* The same for sampling: with its tokenizer, whose ids alone may be drawn, and packed weights. */
static void session_sampler(Session *s, const char *path)
{
    session_load(s, path);
    session_stops(s);
    s->model.n_vocab = s->tokenizer.n_vocab;
    model_pack(&s->model, s->engine.threads);
}

/* Prepares saving: the files of the model's directory ("": none), and the dtype of its weights. */
static void session_prepare_saving(Session *s, const char *from)
{
    static const int dtypes[] = {ST_DTYPES, ST_F32, ST_BF16, ST_F16}; /* in --dtype's order */
    if (*from && !s->model.lora)
        carry_files(s, from, "");
    if (s->o.dtype)
        model_set_dtype(&s->model, dtypes[s->o.dtype]);
}

/* The problems of a file, with answers where these are needed; or, path NULL, of --task. */
static Problems session_prompts(Session *s, const char *path, int split, bool need_answer)
{
    Problems p = path ? problems_read(path, need_answer) : (Problems){0};
    p.task = s->task;
    p.split = split;
    p.seed = s->o.seed;
    p.template = s->template;
    for (int i = 0; i < p.n; i++)
        if (p.problem[i].messages.n)
            messages_fit(&p.problem[i].messages, &s->template,
                         path_printf("%s: line %d", path, p.problem[i].line).s);
    p.judge = judge_new(s->o.verifier, &s->task, p.n ? p.problem[0].prompt : NULL);
    if (s->o.verifier == VERIFY_AUTO && p.n && need_answer && !problems_any_right(&p))
        p.judge.verifier = VERIFY_MATH; /* prompts that only look like a task's: 37,4>26: */
    p.judge.command = s->reward.watcher ? &s->reward : NULL;
    return p;
}

/* The same, for responses that will be judged. */
static Problems session_problems(Session *s, const char *path, int split)
{
    return session_prompts(s, path, split, !s->o.reward_cmd);
}

/* The problems of an evaluation: those of a file (an answer that its verifier refuses counts as
 * wrong), or --problems different ones of the task, which problems_fit or session_fit draws. */
static Problems session_evaluated(Session *s, const char *path)
{
    Problems p = session_problems(s, path, s->o.split);
    if (path)
        problems_check_gold(&p, false);
    else
        p.wanted = s->o.problems;
    return p;
}

/* The longest prompt, in tokens, that leaves positions for a response. */
static int prompt_limit(const Session *s, const Config *c)
{
    int room = c->max_position_embeddings - s->o.max_tokens;
    if (room < 1)
        die("--max-tokens %d: leaves no room for a prompt; expected less than the model's "
            "max_position_embeddings %d", s->o.max_tokens, c->max_position_embeddings);
    return s->o.max_prompt ? imin(s->o.max_prompt, room) : room;
}

/* The number of tokens of a problem's prompt; dies where a character has no token. */
static int prompt_tokens(const Problems *p, const Problem *q, const Tokenizer *t, Buf *text)
{
    size_t bad = 0;
    text->n = 0;
    problem_render(&p->template, q, text);
    Ids ids = {0};
    if (!tokenizer_prompt(t, text->s, text->n, &ids, &bad)) {
        char line[32] = "";
        if (q->line)
            snprintf(line, sizeof line, "line %d: ", q->line);
        die("%s: %s'%.40s': no token for the character at byte %zu", p->path, line, text->s, bad);
    }
    int n = ids.n;
    ids_free(&ids);
    return n;
}

/* Tokenizers that read the prompts of problems, each with a limit in tokens. */
typedef struct {
    Problems *problems;
    const Tokenizer *tokenizer;
    const int *limit;
    int n, longest; /* longest: tokens, of the prompts that fitted */
    Buf text;
} Readers;

/* Is a problem's prompt short enough for all of them? */
static bool problem_fits(Readers *r, const Problem *q)
{
    int most = 0;
    for (int i = 0; i < r->n; i++) {
        int tokens = prompt_tokens(r->problems, q, &r->tokenizer[i], &r->text);
        if (!tokens || tokens > r->limit[i])
            return false;
        most = imax(most, tokens);
    }
    r->longest = imax(r->longest, most);
    return true;
}

static bool drawn_fits(void *readers, const char *prompt)
{
    return problem_fits(readers, &(Problem){.prompt = (char *)prompt});
}

/* Leaves out the problems of a file whose prompts are over the limits, with a warning; draws those
 * of an evaluation, within the limits; and sets p->longest. Of problems drawn on demand this is a
 * bound: a token is at least one byte. */
static void problems_read_by(Problems *p, Readers *r)
{
    int n = p->n, limit = r->limit[0];
    for (int i = 1; i < r->n; i++)
        limit = imin(limit, r->limit[i]);
    r->problems = p;
    if (p->wanted) {
        p->path = "--task";
        problems_draw(p, p->wanted, drawn_fits, r);
    } else {
        bool *keep = xcalloc(n, sizeof *keep);
        for (int i = 0; i < n; i++)
            keep[i] = problem_fits(r, &p->problem[i]);
        problems_keep(p, keep);
    }
    if (n && !p->n)
        die("%s: the prompts of all %d problems are over %d tokens; see --max-prompt and "
            "--max-tokens", p->path, n, limit);
    if (p->wanted && !p->n)
        die("--task: all prompts are over %d tokens; see --max-prompt and --max-tokens", limit);
    if (p->n < n)
        warn("%s: dropped %d of %d problems (%.1f %%): prompts over %d tokens", p->path, n - p->n,
             n, 100.0 * (n - p->n) / n, limit);
    if (!p->n) {
        char any[TASK_PROMPT_MAX + 1] = "";
        memset(any, '0', TASK_PROMPT_MAX);
        r->text.n = 0;
        template_render(&p->template, any, &r->text);
        r->longest = imin(limit, r->text.n + 1);
    }
    p->longest = r->longest;
    buf_free(&r->text);
}

/* The same for one tokenizer. */
static void problems_fit(Problems *p, const Tokenizer *t, int limit)
{
    problems_read_by(p, &(Readers){.tokenizer = t, .limit = &limit, .n = 1});
}

/* The number of models to compare: --model, or words NAME=DIR. */
static int session_models(const Session *s, const char *command)
{
    if (s->words.n_words && s->o.adapter)
        usage("--adapter: goes with --model; DIR of NAME=DIR may be an adapter's directory");
    if (!s->words.n_words == !s->o.model)
        usage("%s: expected --model DIR, or models to compare as NAME=DIR", command);
    return imax(1, s->words.n_words);
}

/* The name and the directory of model i. */
static const char *session_named(const Session *s, int i, char name[64])
{
    const char *word = s->o.model ? s->o.model : s->words.word[i], *equals = strchr(word, '=');
    snprintf(name, 64, "model");
    if (s->o.model)
        return word;
    if (!equals || equals == word)
        usage("'%.60s'; expected NAME=DIR", word);
    snprintf(name, 64, "%.*s", imin(60, equals - word), word);
    for (int k = 0; k < i; k++)
        if (!strncmp(s->words.word[k], word, equals + 1 - word))
            usage("two models are named '%s'", name);
    return equals + 1;
}

/* Takes no problem that is too long for one of n models, so that all get the same. */
static void session_fit(const Session *s, Problems *p, int n)
{
    char name[64];
    Tokenizer *t = xcalloc(n, sizeof *t);
    int *limit = xcalloc(n, sizeof *limit);
    for (int i = 0; i < n; i++) {
        Path dir = model_dir(session_named(s, i, name));
        char *text;
        Path base = base_dir(dir.s);
        Config c = config_read(base.s, &text);
        t[i] = tokenizer_load(path_join(base.s, "tokenizer.json").s);
        limit[i] = prompt_limit(s, &c);
        free(text);
    }
    problems_read_by(p, &(Readers){.tokenizer = t, .limit = limit, .n = n});
    for (int i = 0; i < n; i++)
        tokenizer_free(&t[i]);
    free(t);
    free(limit);
}

enum { NOT_TRAINED = -100 }; /* a label of sft without a loss */

/* Reads a JSON array of ids below vocab_size, or of labels, which may be NOT_TRAINED. Returns their
 * number; the caller frees *ids. */
static int read_ids(Json *j, const Config *c, bool labels, int **ids, const char *path, int line)
{
    int n = 0;
    for (json_array(j); json_item(j);) {
        int64_t id;
        if (!json_int(j, &id))
            break;
        if ((id < 0 || id >= c->vocab_size) && !(labels && id == NOT_TRAINED))
            die("%s: line %d: %s holds %lld; expected ids from 0 to %d%s", path, line,
                labels ? "labels" : "the list of ids", (long long)id, c->vocab_size - 1,
                labels ? ", or -100" : "");
        APPEND(*ids, n, id);
    }
    return n;
}

/* Progress on stderr: one changing line on a terminal, elsewhere (also on one that can only print)
 * a line every ten seconds. */
typedef struct {
    const char *phase;
    int first, total; /* done at the start, and at the end */
    double start, last;
} Progress;

static Progress progress_new(const char *phase, int total)
{
    return (Progress){.phase = phase, .total = total, .start = now_seconds()};
}

/* The width of a terminal whose line can be written again; 0 where stderr is none. */
static int terminal_columns(void)
{
    const char *kind = getenv("TERM");
    struct winsize size = {0};
    if (!isatty(STDERR_FILENO) || !kind || !*kind || !strcmp(kind, "dumb"))
        return 0;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
}

/* A line that filled the terminal would wrap, and could not be written again: it is cut. */
static void progress(Progress *p, int done, const char *note)
{
    int columns = terminal_columns(), new = done - p->first;
    bool end = done >= p->total;
    double now = now_seconds(), spent = now - p->start;
    if (!end && now - p->last < (columns ? 0.2 : 10.0) && p->last > 0)
        return;
    p->last = now;
    Buf line = {0};
    buf_printf(&line, "%-12s %*d/%d  %s  %s %.0f s", p->phase,
               columns ? 1 : (int)(log10(p->total + 0.5) + 1), done, p->total, note,
               end ? "took" : "left", end ? spent : new ? spent / new * (p->total - done) : 0);
    int bytes = 0, shown = 0;
    while (line.s[bytes] && !((line.s[bytes] & 0xC0) != 0x80 && ++shown == columns))
        bytes++; /* to the end of a character of UTF-8 */
    if (columns)
        fprintf(stderr, "\r%.*s\033[K%s", bytes, line.s, end ? "\n" : "");
    else
        fprintf(stderr, "%s\n", line.s);
    fflush(stderr);
    buf_free(&line);
}

static double learning_rate(const Options *o, int step)
{
    return schedule_lr(o->schedule, o->lr, step, o->warmup, o->steps);
}

static void put_hash(Buf *b, const Model *m)
{
    buf_printf(b, ", \"weights_hash\": \"%016llx\"", (unsigned long long)weights_hash(m));
    if (m->lora)
        buf_printf(b, ", \"adapter_hash\": \"%016llx\"",
                   (unsigned long long)weights_hash(&m->lora->ab));
}

/* A command without --top-p and --top-k samples from the whole distribution. */
static Sampling session_sampling(const Session *s, int step)
{
    const Options *o = &s->o;
    return (Sampling){.temperature = o->temperature, .top_p = o->top_p > 0 ? o->top_p : 1,
                      .top_k = o->top_k, .max_tokens = o->max_tokens, .seed = o->seed,
                      .step = step, .stops = &s->stops, .tokenizer = &s->tokenizer};
}

/* Whether the reference is kept, for a KL penalty or EVOL-RL's embeddings. */
static bool keeps_reference(const Options *o)
{
    return o->rl.kl_coef > 0 || (o->rl.method == EVOL && o->rl.encoder == EMBED_REF);
}

#endif
