/* tests/fuzz.c: libFuzzer entries for every parser and every verifier.
 *
 *   make fuzz                          all targets, 10 minutes each, from the seeds in tests/fuzz
 *   make fuzz TARGET=json FOR=60       one of them, for a minute
 *   TARGET=json ./fuzz_g2rl FILE       one input again; to be run where this file is
 *
 * An input is a file, or several with a form feed (\f) between them; the table at the end says
 * which. A target may do anything with it but crash, hang, leak, or break a promise that its
 * function checks. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Of the sanitizer: <sanitizer/allocator_interface.h>, which not every compiler brings. */
int __sanitizer_get_ownership(const volatile void *p);
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
                                              void (*)(const volatile void *));

/* ================================================================ a way back from exit */

/* A bad input ends the program: die() and usage() call exit(). Here exit() jumps back, and what the
 * program held is given back for it: open files, mappings, and each block of memory that the
 * sanitizer's hook has seen and that is still in use. So leaks of inputs that are good count. */
enum { MOST_OPEN = 64, MOST_BLOCKS = 1 << 22 };
static struct {
    jmp_buf back;
    bool accepted; /* the program may not refuse what comes now */
    int n_blocks;
    FILE *file[MOST_OPEN];
    void *map[MOST_OPEN];
    size_t mapped[MOST_OPEN];
    const volatile void *block[MOST_BLOCKS];
} guard;

/* Of the thread that runs inputs alone: libFuzzer's own threads take memory, too. */
static _Thread_local bool running;

static void on_malloc(const volatile void *p, size_t bytes)
{
    (void)bytes;
    if (running && guard.n_blocks < MOST_BLOCKS)
        guard.block[guard.n_blocks++] = p;
}

static void on_free(const volatile void *p) { (void)p; }

static _Noreturn void fuzz_exit(int status)
{
    (void)status;
    if (guard.accepted)
        abort();
    longjmp(guard.back, 1);
}

static FILE *fuzz_fopen(const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    for (int i = 0; f && i < MOST_OPEN; i++)
        if (!guard.file[i])
            return guard.file[i] = f;
    return f;
}

static int fuzz_fclose(FILE *f)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (guard.file[i] == f)
            guard.file[i] = NULL;
    return fclose(f);
}

static void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    void *p = mmap(at, bytes, protection, flags, fd, offset);
    for (int i = 0; p != MAP_FAILED && i < MOST_OPEN; i++)
        if (!guard.map[i]) {
            guard.map[i] = p;
            guard.mapped[i] = bytes;
            break;
        }
    return p;
}

static int fuzz_munmap(void *p, size_t bytes)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (guard.map[i] == p)
            guard.map[i] = NULL;
    return munmap(p, bytes);
}

static void give_back(void)
{
    for (int i = 0; i < MOST_OPEN; i++) {
        if (guard.file[i])
            fuzz_fclose(guard.file[i]);
        if (guard.map[i])
            fuzz_munmap(guard.map[i], guard.mapped[i]);
    }
    for (int i = 0; i < guard.n_blocks; i++)
        if (__sanitizer_get_ownership(guard.block[i]))
            free((void *)guard.block[i]);
}

#define exit fuzz_exit
#define fopen fuzz_fopen
#define fclose fuzz_fclose
#define mmap fuzz_mmap
#define munmap fuzz_munmap
#define G2RL_TEST /* hides main */
#include "../g2rl.c"
#undef exit
#include "report_test.h" /* defines: page_fault */

/* ================================================================ what the targets stand on */

/* A promise that was broken is a crash. */
static void demand(bool good)
{
    if (!good)
        abort();
}

static Session fixed; /* a tokenizer and a tiny model, made once */
static Session few;   /* a model with a smaller vocabulary yet, so that its files are short */
static char work[64]; /* a directory for files, in memory where there is such a place */

static Path work_path(const char *name) { return path_join(work, name); }

/* The next part of an input, up to a form feed; the last is all that is left. */
static Slice next_part(Slice *rest, bool last)
{
    const char *feed = last || !rest->n ? NULL : memchr(rest->s, '\f', rest->n);
    Slice x = {rest->s, feed ? (size_t)(feed - rest->s) : rest->n};
    rest->s += x.n + (feed != NULL);
    rest->n -= x.n + (feed != NULL);
    return x;
}

/* The same as a C string, up to a NUL if it holds one. */
static char *next_text(Slice *rest, bool last)
{
    Slice x = next_part(rest, last);
    Buf b = {0};
    buf_add(&b, x.s, x.n);
    return b.s;
}

/* A file that holds these bytes; none where there are none. */
static void put_slice(const char *name, Slice x)
{
    unlink(work_path(name).s);
    if (!x.n)
        return;
    FILE *f = fopen(work_path(name).s, "wb");
    demand(f && fwrite(x.s, 1, x.n, f) == x.n);
    fclose(f);
}

/* The parts of an input as files, the last of them with all that is left. */
static void place_parts(Slice x, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        put_slice(names[i], next_part(&x, i == n - 1));
}

static bool same_bytes(const Buf *a, const Buf *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->s, b->s, a->n));
}

/* ================================================================ JSON, weights, configs */

/* Writes a value anew from what is read of it. */
static void json_copy(Json *j, Buf *out)
{
    Buf s = {0};
    double x = 0;
    bool truth = false;
    char kind = json_peek(j), comma = kind;
    if (kind == '{' || kind == '[') {
        for (kind == '{' ? json_object(j) : json_array(j);
             kind == '{' ? json_key(j, &s) : json_item(j); comma = ',') {
            buf_add(out, &comma, 1);
            if (kind == '{') {
                json_put_string(out, s.s, s.n);
                buf_str(out, ":");
            }
            json_copy(j, out);
        }
        buf_str(out, comma == ',' ? "" : kind == '{' ? "{" : "[");
        buf_str(out, kind == '{' ? "}" : "]");
    } else if (kind == '"' && json_string(j, &s)) {
        json_put_string(out, s.s, s.n);
    } else if (kind == 't' && json_bool(j, &truth)) {
        buf_str(out, truth ? "true" : "false");
    } else if (kind == 'n' && json_null(j)) {
        buf_str(out, "null");
    } else if (json_number(j, &x)) {
        json_put_number(out, x);
    }
    buf_free(&s);
}

/* What was accepted, written anew from the values that were read, must be accepted and give the
 * same text again: so nothing is taken for something else. */
static void fuzz_json(Slice x)
{
    Json j = json_open(x.s, x.n), skip = j;
    Buf first = {0}, second = {0};
    json_copy(&j, &first);
    bool good = json_end(&j), skipped = json_skip(&skip) && json_end(&skip);
    demand(good || (j.error_at >= j.start && j.error_at <= j.end && json_line(&j) >= 1));
    if (good) {
        j = json_open(first.s, first.n);
        json_copy(&j, &second);
        demand(skipped && json_end(&j) && same_bytes(&first, &second));
    }
    buf_free(&first);
    buf_free(&second);
}

/* What was accepted must be what the top of lib/model/safetensors.h promises. */
static void fuzz_safetensors(Slice x)
{
    SafeTensors st = {0};
    Buf error = {0};
    const unsigned char *bytes = (const unsigned char *)x.s, *end = bytes + x.n;
    bool good = st_parse(&st, "fuzz", bytes, x.n, &error);
    demand(good == !error.n);
    for (int i = 0; good && i < st.n; i++) {
        const StTensor *t = &st.tensors[i];
        demand(t->data >= bytes + 8 && t->data <= end && t->bytes <= (size_t)(end - t->data));
        demand(st_bytes_needed(t) == (int64_t)t->bytes && st_find(&st, t->name) == t);
        for (int k = 0; k < i; k++)
            demand(t->data >= st.tensors[k].data + st.tensors[k].bytes ||
                   st.tensors[k].data >= t->data + t->bytes);
        float *out = xmalloc(2 * t->bytes);
        if (t->dtype <= ST_BF16)
            st_read_f32(t, out);
        free(out);
    }
    buf_free(&error);
    st_close(&st);
}

/* Beside two shards that are good: first.safetensors has a and b, second.safetensors c. */
static void fuzz_index(Slice x)
{
    put_slice("index/model.safetensors.index.json", x);
    SafeTensors st = st_open_dir(work_path("index").s);
    float values[4];
    for (int i = 0; i < st.n; i++)
        st_read_f32(&st.tensors[i], values);
    st_close(&st);
}

/* The weights of the smaller model. What was loaded and saved is loaded again to the same bits. */
static void fuzz_model(Slice x)
{
    put_slice("model/model.safetensors", x);
    Model m = model_load(work_path("model").s);
    guard.accepted = true;
    model_save(&m, work_path("saved").s);
    Model again = model_load(work_path("saved").s);
    demand(weights_hash(&m) == weights_hash(&again));
    model_free(&m);
    model_free(&again);
}

/* adapter_config.json \f adapter_model.safetensors, for the smaller model. */
static void fuzz_adapter(Slice x)
{
    static const char *const names[] = {"adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors"};
    place_parts(x, names, 2);
    lora_apply(&few.model, work_path("adapter").s);
}

/* The state of a run of the smaller model, at step 1. */
static void fuzz_trainer(Slice x)
{
    Run r = {.s = &few, .command = TRAIN, .saved = 1, .step = 1, .from = work_path("model")};
    Buf why = {0};
    put_slice("model/trainer.safetensors", x);
    is_whole(r.from.s, "trainer.safetensors", 1, &why);
    buf_free(&why);
    model_init(&few.model, 1);
    run_load(&r);
}

/* config.json \f generation_config.json. What was accepted must mean the same when it is written
 * anew, and with another dtype. */
static void fuzz_config(Slice x)
{
    static const char *const names[] = {"model/config.json", "model/generation_config.json"};
    char *text, *again;
    place_parts(x, names, 2);
    Config c = config_read(work_path("model").s, &text);
    guard.accepted = true;
    config_write(&c, ST_F32, work_path("saved/config.json").s);
    put_slice("saved/generation_config.json", (Slice){"{}", 2});
    Config d = config_read(work_path("saved").s, &again);
    config_write(&d, ST_F32, work_path("saved/again.json").s);
    Buf one = {0}, two = {0};
    one.s = read_file(work_path("saved/config.json").s, &one.n);
    two.s = read_file(work_path("saved/again.json").s, &two.n);
    demand(same_bytes(&one, &two));
    free(again);
    again = config_with_dtype(text, ST_BF16);
    config_parse("with another dtype", again, strlen(again));
    free(text);
    free(again);
    buf_free(&one);
    buf_free(&two);
}

/* ================================================================ tokenizers and texts */

/* Ids must be tokens, and come back as a text whichever way they are read. */
static void encode_and_back(const Tokenizer *t, Slice x, Buf *text)
{
    Ids ids = {0};
    size_t bad = 0;
    Buf steps = {0};
    Decoder d = {0};
    if (!tokenizer_prompt(t, x.s, x.n, &ids, &bad))
        demand(t->characters && bad < x.n);
    for (int i = 0; i < ids.n; i++) {
        demand(ids.id[i] >= 0 && ids.id[i] < t->n_vocab && t->token[ids.id[i]].length > 0);
        decoder_add(&d, t, ids.id[i], false, &steps);
    }
    decoder_end(&d, &steps);
    tokenizer_decode(t, ids.id, ids.n, false, text);
    demand(same_bytes(text, &steps));
    ids_free(&ids);
    buf_free(&steps);
}

/* tokenizer.json \f tokenizer_config.json \f text */
static void fuzz_tokenizer(Slice x)
{
    static const char *const names[] = {"tokenizer/tokenizer.json",
                                        "tokenizer/tokenizer_config.json"};
    Buf text = {0};
    for (int i = 0; i < 2; i++)
        put_slice(names[i], next_part(&x, false));
    Tokenizer t = tokenizer_load(work_path("tokenizer").s);
    guard.accepted = true;
    encode_and_back(&t, x, &text);
    buf_free(&text);
    tokenizer_free(&t);
}

/* Any text, cut by every rule. The tokenizer has every byte and no token that takes white space
 * along, so without normal form C the text must come back. */
static void fuzz_text(Slice x)
{
    Tokenizer t = fixed.tokenizer;
    Buf normal = {0}, twice = {0}, lossy = {0};
    Decoder d = {0};
    nfc(x.s, x.n, &normal);
    nfc(normal.s, normal.n, &twice);
    demand(same_bytes(&normal, &twice));
    buf_add(&d.waiting, x.s, x.n);
    decoder_end(&d, &lossy);
    t.normalize = false;
    t.n_steps = 1;
    for (Cut step = SPLIT_GPT2; step <= SPLIT_DIGITS; step++) {
        Buf text = {0};
        t.step[0] = step;
        encode_and_back(&t, x, &text);
        demand(same_bytes(&text, &lossy));
        buf_free(&text);
    }
    buf_free(&normal);
    buf_free(&twice);
    buf_free(&lossy);
}

static void tokenize_lines(Slice x, bool decode)
{
    size_t offset = 0;
    int line = 0;
    Buf out = {0};
    fixed.o.decode = decode;
    for (Json j; jsonl_next(x.s, x.n, &offset, &line, &j); out.n = 0) {
        tokenize_line(&fixed, &j, line, &out);
        j = json_open(out.s, out.n);
        j.nul = true;
        demand(json_skip(&j) && json_end(&j));
    }
    buf_free(&out);
}

static void fuzz_tokenize(Slice x) { tokenize_lines(x, false); }
static void fuzz_decode(Slice x) { tokenize_lines(x, true); }

/* template \f system text \f problem */
static void fuzz_template(Slice x)
{
    Buf out = {0};
    put_slice("template", next_part(&x, false));
    char *system = next_text(&x, false), *problem = next_text(&x, true);
    Path file = work_path("template");
    const char *names[] = {"qwen3", "chatml", "llama3", file.s};
    for (int i = 0; i < 4; i++) {
        Template t = template_open(names[i], *system ? system : NULL);
        out.n = 0;
        template_render(&t, problem, &out);
        demand(i == 2 || (strstr(out.s, problem) && strstr(out.s, system))); /* llama3 trims */
        template_free(&t);
    }
    free(system);
    free(problem);
    buf_free(&out);
}

/* ================================================================ problems and records */

static void fuzz_problems(Slice x)
{
    put_slice("problems.jsonl", x);
    Problems p = problems_read(work_path("problems.jsonl").s, true);
    p.judge = judge_new(VERIFY_AUTO, &fixed.task, p.problem[0].prompt);
    problems_check_gold(&p, false);
    problems_fit(&p, &fixed.tokenizer, 64);
    for (uint32_t i = 0; i < 3; i++)
        demand(problem_of_list(&p, i * (uint32_t)p.n)->prompt[0]);
    problems_free(&p);
}

/* JSONL, or plain text where it does not begin with a bracket. */
static void fuzz_records(Slice x)
{
    const char *name = x.n && *x.s == '{' ? "records.jsonl" : "records.txt";
    put_slice(name, x);
    Records all = records_read(&fixed, work_path(name).s);
    for (int i = 0; i < all.n; i++)
        for (int k = 0; k < all.record[i].n; k++) {
            int id = all.record[i].ids[k], label = all.record[i].labels[k];
            demand(id >= 0 && id < fixed.model.config.vocab_size);
            demand(label == NOT_TRAINED || (label >= 0 && label < fixed.model.config.vocab_size));
        }
    records_free(&all);
}

/* Groups go through the whole method, on the tiny model. */
static void fuzz_explain(Slice x)
{
    put_slice("groups.jsonl", x);
    Session s = {.o = fixed.o, .tokenizer = fixed.tokenizer, .model = fixed.model};
    Path path = work_path("groups.jsonl");
    s.o.data = path.s;
    s.engine.threads = 1;
    if (holds_groups(path.s))
        explain_file(&s);
}

/* ================================================================ options and runs */

/* command \f option file. A run's options, written as run.json, must be read as the same. */
static void fuzz_options(Slice x)
{
    char *name = next_text(&x, false), argument[80];
    int c = command_find(name);
    Options o = {0};
    Words words = {0};
    put_slice("run/options", x);
    snprintf(argument, sizeof argument, "@%s", work_path("run/options").s);
    options_default(OPTIONS, N_OPTIONS, c, &o);
    options_parse(OPTIONS, N_OPTIONS, c, name, &o, 1, (char *[]){argument}, &words);
    guard.accepted = c == SFT || c == TRAIN;
    Buf one = {0}, two = {0};
    buf_str(&one, "{");
    options_json(OPTIONS, N_OPTIONS, c, &o, &one);
    buf_str(&one, "}");
    put_slice("run/run.json", (Slice){one.s, one.n});
    RunOptions again = run_options(work_path("run").s, c, &words);
    again.o.force = o.force; /* these two are not a run's own */
    again.o.resume = o.resume;
    buf_str(&two, "{");
    options_json(OPTIONS, N_OPTIONS, c, &again.o, &two);
    buf_str(&two, "}");
    demand(same_bytes(&one, &two));
    words_free(&words);
    buf_free(&one);
    buf_free(&two);
    free(name);
}

/* run.json \f metrics.jsonl \f rollouts.jsonl, for --resume and `replay`. */
static void fuzz_run(Slice x)
{
    static const char *const names[] = {"run/run.json", "run/metrics.jsonl", "run/rollouts.jsonl"};
    Session s = {.o = fixed.o};
    place_parts(x, names, 3);
    s.was = run_options(work_path("run").s, TRAIN, &s.words);
    run_differences(&(Run){.s = &s, .command = TRAIN});
    words_free(&s.words);
    for (int step = 3, rows; step >= 0; step -= 3)
        demand(cut_lines(work_path("run/metrics.jsonl").s, step, &rows) <= step && rows >= 0);
    RolloutRow row = rollout_row(work_path("run").s, 1, 1);
    buf_free(&row.prompt);
    buf_free(&row.response);
}

/* run.json \f metrics.jsonl \f eval.jsonl \f rollouts.jsonl \f what `geometry --json` wrote: two
 * runs that hold the same, under two names. */
static void fuzz_report(Slice x)
{
    static const char *const files[] = {"run.json", "metrics.jsonl", "eval.jsonl"};
    Path grpo = work_path("grpo"), g2rl = work_path("g2rl"), out = work_path("page.html");
    Path geometry = work_path("geometry.jsonl"), svg = work_path("frontier.svg");
    for (int i = 0; i < 3; i++) {
        Slice part = next_part(&x, false);
        put_slice(path_join("grpo", files[i]).s, part);
        put_slice(path_join("g2rl", files[i]).s, part);
    }
    put_slice("geometry.jsonl", x);
    ReportOptions o = {.dirs = (const char *const[]){grpo.s, g2rl.s}, .n = 2,
                       .geometry = x.n ? geometry.s : NULL, .out = out.s, .svg = svg.s};
    report(&o);
    size_t n;
    char *page = read_file(out.s, &n);
    demand(strlen(page) == n && !page_fault(page));
    free(page);
    o.json = true;
    report(&o);
}

/* ================================================================ verifiers and rewards */

/* prediction \f gold answer. What equals its own text must be right, and what is right must be so
 * wherever it stands. */
static void fuzz_math(Slice x)
{
    char *pred = next_text(&x, false), *gold = next_text(&x, true);
    Buf out = {0}, found = {0};
    bool empty = !pred[strspn(pred, " \t\n\v\f\r")];
    Judge j = judge_new(VERIFY_MATH, &fixed.task, NULL);
    demand(math_compare(pred, strlen(pred), pred).right != empty);
    demand(judge_same(&j, pred, pred));
    bool right = math_compare(pred, strlen(pred), gold).right;
    math_normal(gold, &out);
    if (judge(&j, "", gold, pred).right)
        demand(judge_finds(&j, "", pred));
    if (right && !strpbrk(pred, "\\{}$\n\r")) {
        out.n = 0;
        buf_printf(&out, "so \\boxed{%s}", pred);
        if (!math_extract(out.s, &found))
            demand(math_compare(found.s, found.n, gold).right);
    }
    free(pred);
    free(gold);
    buf_free(&out);
    buf_free(&found);
}

/* Where a task reads a prompt, so does its judge; and its solutions are right, the shortest one not
 * longer than any. */
static void fuzz_solutions(Task t, const char *prompt)
{
    Buf any = {0}, shortest = {0};
    Judge j = judge_new(VERIFY_AUTO, &t, prompt);
    demand(!task_key(&t, prompt) || j.verifier == VERIFY_COUNTDOWN + t.kind);
    demand(j.verifier == VERIFY_MATH || task_key(&j.task, prompt));
    task_solution(&t, prompt, 1, 0, &any);
    t.teacher = TEACHER_SHORTEST;
    task_solution(&t, prompt, 1, 0, &shortest);
    demand(!any.n == !shortest.n);
    demand(!any.n || (any.n < TASK_RESPONSE_MAX && task_verify(&t, prompt, any.s).right &&
                      task_verify(&t, prompt, shortest.s).right));
    demand(t.kind != TASK_MAZE || shortest.n <= any.n);
    buf_free(&any);
    buf_free(&shortest);
}

/* task \f prompt \f response. Right is what is an answer; the task's own solution is right. */
static void fuzz_task(Slice x)
{
    char *spec = next_text(&x, false), *prompt = next_text(&x, false);
    char *response = next_text(&x, true), error[256];
    Task t;
    Buf out = {0}, class = {0};
    if (task_parse(spec, &t, error, sizeof error)) {
        bool right = task_verify(&t, prompt, response).right;
        task_answer_class(&t, prompt, response, &class);
        demand(!right || (task_key(&t, prompt) && class.n && *class.s != '?'));
        fuzz_solutions(t, prompt);
        task_spec(&t, &out);
        demand(task_parse(out.s, &t, error, sizeof error));
    }
    free(spec);
    free(prompt);
    free(response);
    buf_free(&out);
    buf_free(&class);
}

/* JSONL of responses and gold answers; or task \f JSONL of prompts and responses. */
static void fuzz_verify(Slice x)
{
    Task t;
    char error[256], *spec = x.n && memchr(x.s, '\f', x.n) ? next_text(&x, false) : NULL;
    put_slice("verify.jsonl", x);
    if (!spec)
        verify_file(NULL, work_path("verify.jsonl").s);
    else if (task_parse(spec, &t, error, sizeof error))
        verify_file(&t, work_path("verify.jsonl").s);
    free(spec);
}

/* What a reward command wrote, for three requests. */
static void fuzz_reward(Slice x)
{
    Reward r = {.life = -1};
    double reward[3] = {0};
    buf_add(&r.unread, x.s, x.n);
    int got = reward_lines(&r, 0, 3, reward);
    for (int i = 0; i < got; i++)
        demand(fabs(reward[i]) <= REWARD_LARGEST);
    buf_free(&r.unread);
    buf_free(&r.reasons);
}

/* ================================================================ the table */

static const struct {
    const char *name, *description;
    void (*run)(Slice x);
} TARGETS[] = {
    {"json", "JSON", fuzz_json},
    {"safetensors", "a file of weights", fuzz_safetensors},
    {"index", "model.safetensors.index.json", fuzz_index},
    {"model", "a model's weights, by its config", fuzz_model},
    {"adapter", "an adapter: its config, its weights", fuzz_adapter},
    {"trainer", "trainer.safetensors of a checkpoint", fuzz_trainer},
    {"config", "config.json, generation_config.json", fuzz_config},
    {"tokenizer", "tokenizer.json, tokenizer_config.json, a text", fuzz_tokenizer},
    {"text", "a text to tokens and back, normal form C", fuzz_text},
    {"tokenize", "lines of text and messages, Qwen3's chat template", fuzz_tokenize},
    {"decode", "lines of ids", fuzz_decode},
    {"template", "a template, its system text, a problem", fuzz_template},
    {"problems", "JSONL of problems", fuzz_problems},
    {"records", "records of sft: JSONL or plain text", fuzz_records},
    {"explain", "explain --data: groups", fuzz_explain},
    {"options", "a command, an option file", fuzz_options},
    {"run", "run.json, metrics.jsonl, rollouts.jsonl for --resume and replay", fuzz_run},
    {"report", "run.json, metrics, eval and geometry for report", fuzz_report},
    {"math", "a response, a gold answer", fuzz_math},
    {"task", "a task, a prompt, a response", fuzz_task},
    {"verify", "verify --data: JSONL of responses and gold answers, or of a task", fuzz_verify},
    {"reward", "answers of a reward command", fuzz_reward},
};
enum { N_TARGETS = sizeof TARGETS / sizeof *TARGETS };
static int target = N_TARGETS;

/* ================================================================ begin and end */

static void remove_work(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    demand(!system(command));
}

static void make_work(void)
{
    static const char *const dirs[] = {"index", "model", "saved", "tokenizer", "run", "grpo",
                                       "g2rl", "adapter"};
    const char *above = getenv("TMPDIR");
    snprintf(work, sizeof work, "%.40s/fuzz_g2rl_XXXXXX",
             above ? above : is_dir("/dev/shm") ? "/dev/shm" : "/tmp");
    demand(mkdtemp(work) != NULL);
    atexit(remove_work);
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        make_dirs(work_path(dirs[i]).s);
}

/* The tokenizer, the tiny model, and the files that lie beside those of an input. */
static void make_fixed(void)
{
    static const float x[4] = {1, 2, 3, 4};
    static const Config tiny = {.model_type = QWEN3, .vocab_size = 512, .hidden_size = 2,
        .intermediate_size = 2, .num_hidden_layers = 1, .num_attention_heads = 1,
        .num_key_value_heads = 1, .head_dim = 2, .max_position_embeddings = 64,
        .rms_norm_eps = 1e-6, .rope_theta = 10000, .tie_word_embeddings = true,
        .bos_token_id = -1, .n_eos = 1};
    const StOut shards[3] = {
        {"a", 1, {2}, x, ST_F32}, {"b", 1, {2}, x, ST_F16}, {"c", 1, {4}, x, ST_F32}};
    char error[128];
    st_write(work_path("index/first.safetensors").s, "", shards, 2);
    st_write(work_path("index/second.safetensors").s, "", shards + 2, 1);
    fixed.tokenizer = tokenizer_load("tests/tok/qwen3mini512");
    fixed.model = model_new(&tiny);
    model_init(&fixed.model, 1);
    model_trainable(&fixed.model, false);
    rope_reserve(&fixed.model, tiny.max_position_embeddings);
    options_default(OPTIONS, N_OPTIONS, SFT, &fixed.o);
    options_default(OPTIONS, N_OPTIONS, TRAIN, &fixed.o);
    demand(task_parse("countdown", &fixed.task, error, sizeof error));
    Config smaller = tiny;
    smaller.vocab_size = 4;
    few.model = model_new(&smaller);
    model_init(&few.model, 1);
    model_trainable(&few.model, false);
    config_write(&smaller, ST_F32, work_path("model/config.json").s);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("TARGET");
    (void)argc;
    (void)argv;
    for (target = 0; target < N_TARGETS; target++)
        if (name && !strcmp(name, TARGETS[target].name))
            break;
    if (target == N_TARGETS) {
        puts("TARGET=NAME ./fuzz_g2rl [option of libFuzzer | corpus | input]...");
        for (int i = 0; i < N_TARGETS; i++)
            printf("%-12s %s\n", TARGETS[i].name, TARGETS[i].description);
        exit(1);
    }
    make_work();
    if (setjmp(guard.back))
        exit(1); /* die() has said why */
    make_fixed();
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    guard.n_blocks = 0;
    running = true;
    guard.accepted = false;
    if (!setjmp(guard.back))
        TARGETS[target].run((Slice){(const char *)bytes, n});
    else
        give_back();
    running = false;
    return 0;
}
