/* commands.h: the smaller commands, and main. (`train` is in g2rl.c; `sft`, `eval`, `explain`,
 * `geometry`, `replay` and `bench` have files of their own.)
 *
 *   sample    text for a prompt                   data    problems of a task
 *   score     log-probs of given tokens           verify  is a prediction right?
 *   tokenize  text to ids and back                report  runs compared: table and page
 *
 * They only call what the other files define; no equation lives here. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "../g2rl.c"  /* defines: Group, look, sample_groups, evaluate, cmd_train, ... */
#include "bench.h"    /* defines: cmd_bench */
#include "chat.h"     /* defines: Message, chat_render */
#include "eval.h"     /* defines: cmd_eval */
#include "explain.h"  /* defines: cmd_explain */
#include "geometry.h" /* defines: cmd_geometry */
#include "help.h"     /* defines: help, help_command, help_metrics */
#include "math.h"     /* defines: math_verify, math_extract, math_normal */
#include "replay.h"   /* defines: cmd_replay */
#include "report.h"   /* defines: report */
#include "sft.h"      /* defines: cmd_sft */

/* ================================================================ sample, score */

/* Prints a response as it grows, held back by what may still become --stop. */
typedef struct {
    const Session *s;
    Decoder decoder;
    Buf text;
    size_t shown;
    bool stopped;
} Printer;

static void printer_token(void *context, int id)
{
    Printer *p = context;
    const char *stop = p->s->o.stop, *found;
    decoder_add(&p->decoder, &p->s->tokenizer, id, true, &p->text);
    size_t end = p->text.n, hold = stop ? strlen(stop) - 1 : 0;
    if (stop && (found = strstr(p->text.s, stop))) {
        end = (size_t)(found - p->text.s);
        p->stopped = true;
    } else
        end -= hold < end ? hold : end;
    if (end > p->shown) {
        fwrite(p->text.s + p->shown, 1, end - p->shown, stdout);
        demand_output(true);
        p->shown = end;
    }
}

static void cmd_sample(Session *s)
{
    const Options *o = &s->o;
    if (!o->prompt)
        usage("sample: --prompt is missing");
    session_sampler(s, o->model);
    Buf text = {0};
    template_render(&s->template, o->prompt, &text);
    int room = prompt_limit(s, &s->model.config);
    Ids prompt = encode(&s->tokenizer, true, text.s, text.n, room, "--prompt");
    buf_free(&text);
    Extent x = {1, o->samples, imax(prompt.n, 64), o->max_tokens, 1, KEEP_NOTHING, false,
                TRACE_NOTHING};
    s->engine = extent_engine(&s->model, s->engine.threads, x);
    Group *g = groups_new(&s->engine, &s->model, x);
    group_prompt(g, prompt);
    rope_reserve(&s->model, g->prompt_length + o->max_tokens);
    Printer p = {.s = s};
    Sampling sampling = session_sampling(s, 0);
    if (o->samples == 1) { /* streamed */
        sampling.on_token = printer_token;
        sampling.context = &p;
    }
    sample_groups(&s->engine, &s->model, g, 1, &sampling);
    for (int i = 0; i < g->m; i++) {
        for (int k = g->start[i]; o->samples > 1 && k < g->start[i + 1]; k++)
            printer_token(&p, g->token[k]);
        decoder_end(&p.decoder, &p.text);
        if (!p.stopped && p.text.n > p.shown)
            fwrite(p.text.s + p.shown, 1, p.text.n - p.shown, stdout);
        putchar('\n');
        p.text.n = p.shown = 0;
        p.stopped = false;
    }
    buf_free(&p.text);
}

/* One line in, one line out: log p of each id given those before it; the first has none. */
static void score_line(Session *s, Json *j, int line, Buf *out)
{
    Buf key = {0}, text = {0};
    int *ids = NULL, n = 0;
    bool have_text = false;
    j->nul = true;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "input_ids"))
            n = read_ids(j, &s->model.config, false, &ids, "stdin", line);
        else if (!strcmp(key.s, "text"))
            have_text = json_string(j, &text);
        else
            json_skip(j);
    jsonl_end(j, "stdin", line);
    if (!ids && have_text) {
        session_tokenizer(s);
        Ids all = encode(&s->tokenizer, true, text.s, text.n, INT_MAX, "stdin");
        ids = all.id;
        n = all.n;
    }
    if (n < 1)
        die("stdin: line %d: expected text or input_ids, at least one token", line);
    if (n > s->model.config.max_position_embeddings)
        die("stdin: line %d: %d tokens; expected at most %d (max_position_embeddings)", line, n,
            s->model.config.max_position_embeddings);
    size_t rows = (size_t)n;
    rope_reserve(&s->model, n);
    Arena a = arena_new(pass_bytes(&s->model, rows, rows, n, KEEP_NOTHING));
    a.threads = imin(s->engine.threads, HELPERS);
    Batch b = batch_new(&a, n, 1, n);
    batch_seq(&b, ids, n, 0, -1);
    for (int t = 0; t + 1 < n; t++)
        batch_target(&b, t, ids[t + 1]);
    Pass p = forward(&a, &s->model, &b, KEEP_NOTHING);
    forward_head(&a, &s->model, &p, (float)s->o.temperature, false);
    buf_str(out, "{\"input_ids\": [");
    for (int t = 0; t < n; t++)
        buf_printf(out, t ? ", %d" : "%d", ids[t]);
    buf_str(out, "], \"logprobs\": [null");
    for (int t = 0; t + 1 < n; t++) {
        buf_str(out, ", ");
        json_put_number(out, (double)p.head.logprob[t]);
    }
    buf_str(out, "]}\n");
    arena_free(&a);
    free(ids);
    buf_free(&key);
    buf_free(&text);
}

static void cmd_score(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    Buf out = {0};
    session_load(s, s->o.model);
    model_pack(&s->model, s->engine.threads);
    char *text = read_stream(stdin, "stdin", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        score_line(s, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        demand_output(false);
        out.n = 0;
    }
    buf_free(&out);
    free(text);
}

/* ================================================================ tokenize */

/* A line of `tokenize`: what it may hold. */
typedef struct {
    Buf text;
    bool has_text, has_ids, generate;
    Ids ids;
    Message *message;
    int n_messages, thinking; /* -1: not set */
} TokenizeLine;

static char *json_text(Json *j)
{
    Buf s = {0};
    json_string(j, &s);
    return s.s;
}

/* [{"role": "user", "content": "..."}, ...] */
static void read_messages(Json *j, TokenizeLine *x, int line)
{
    Buf key = {0};
    for (json_array(j); json_item(j);) {
        Message m = {NULL, NULL};
        for (json_object(j); json_key(j, &key);)
            if (!strcmp(key.s, "role") && !m.role)
                m.role = json_text(j);
            else if (!strcmp(key.s, "content") && !m.content)
                m.content = json_text(j);
            else
                die("stdin: line %d: messages: '%.60s'; expected role and content", line, key.s);
        x->message = room_for_one(x->message, x->n_messages, sizeof m);
        x->message[x->n_messages++] = m;
        if (j->error)
            break;
        if (!m.content || !m.role ||
            !(is_one_of(m.role, "system", "user", "assistant") || is_role(&m, "tool")))
            die("stdin: line %d: messages: expected content, and role system, user, assistant or "
                "tool", line);
    }
    buf_free(&key);
}

static void line_free(TokenizeLine *x)
{
    for (int i = 0; i < x->n_messages; i++) {
        free((char *)x->message[i].role);
        free((char *)x->message[i].content);
    }
    free(x->message);
    ids_free(&x->ids);
    buf_free(&x->text);
}

static TokenizeLine line_read(Json *j, int line)
{
    static const Config any = {.vocab_size = INT_MAX};
    TokenizeLine x = {.thinking = -1};
    Buf key = {0};
    bool think = false;
    j->nul = true;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "text"))
            x.has_text = json_string(j, &x.text);
        else if ((!strcmp(key.s, "input_ids") || !strcmp(key.s, "ids")) && !x.has_ids) {
            x.ids.n = read_ids(j, &any, false, &x.ids.id, "stdin", line);
            x.has_ids = true;
        } else if (!strcmp(key.s, "messages")) {
            j->nul = false; /* a Message is made of C strings */
            read_messages(j, &x, line);
            j->nul = true;
        } else if (!strcmp(key.s, "add_generation_prompt"))
            json_bool(j, &x.generate);
        else if (!strcmp(key.s, "enable_thinking") && json_peek(j) != 'n')
            x.thinking = json_bool(j, &think) ? think : -1;
        else if (!strcmp(key.s, "tools") && json_peek(j) != 'n')
            die("stdin: line %d: tools are not supported; expected messages alone", line);
        else
            json_skip(j);
    jsonl_end(j, "stdin", line);
    buf_free(&key);
    return x;
}

/* {"text"} to {"input_ids"}, with --decode back; {"messages"} to {"prompt", "input_ids"}. */
static void tokenize_line(const Session *s, Json *j, int line, Buf *out)
{
    TokenizeLine x = line_read(j, line);
    size_t bad = 0;
    if (s->o.decode) {
        if (!x.has_ids)
            die("stdin: line %d: expected input_ids", line);
        tokenizer_decode(&s->tokenizer, x.ids.id, x.ids.n, s->o.skip_special, &x.text);
        buf_str(out, "{\"text\": ");
        json_put_string(out, x.text.s, x.text.n);
    } else {
        bool chat = x.n_messages > 0;
        if (x.has_text == chat)
            die("stdin: line %d: expected text, or messages", line);
        if (chat)
            chat_render(x.message, x.n_messages, x.generate, x.thinking, &x.text);
        x.ids.n = 0;
        if (!tokenizer_encode(&s->tokenizer, x.text.s, x.text.n, &x.ids, &bad))
            die("stdin: line %d: no token for the character at byte %zu", line, bad);
        buf_str(out, chat ? "{\"prompt\": " : "{\"input_ids\": [");
        if (chat) {
            json_put_string(out, x.text.s, x.text.n);
            buf_str(out, ", \"input_ids\": [");
        }
        for (int i = 0; i < x.ids.n; i++)
            buf_printf(out, i ? ", %d" : "%d", x.ids.id[i]);
        buf_str(out, "]");
    }
    buf_str(out, "}\n");
    line_free(&x);
}

static void cmd_tokenize(Session *s)
{
    size_t n, offset = 0;
    int line = 0;
    Buf out = {0};
    if (!s->o.tokenizer)
        usage("tokenize: --tokenizer is missing");
    s->tokenizer = tokenizer_load(model_dir(s->o.tokenizer).s);
    char *text = read_stream(stdin, "stdin", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        tokenize_line(s, &j, line, &out);
        fwrite(out.s, 1, out.n, stdout);
        demand_output(false);
        out.n = 0;
    }
    buf_free(&out);
    free(text);
}

/* ================================================================ data */

static void cmd_data(Session *s)
{
    Problems p = session_problems(s, s->o.data, (Split)s->o.split);
    Buf prompt = {0}, answer = {0}, line = {0};
    if (s->o.data)
        printf("%s: %d problems\n", s->o.data, p.n);
    for (int i = 0; !s->o.data && i < s->o.problems; i++) {
        prompt.n = answer.n = 0;
        task_problem(&p.task, p.seed, p.split, (uint32_t)i, &prompt, &answer);
        buf_str(&line, "{\"prompt\": ");
        json_put_string(&line, prompt.s, prompt.n);
        put_text(&line, "answer", answer.s, answer.n);
        printf("%s}\n", line.s);
        demand_output(false);
        line.n = 0;
    }
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&line);
    problems_free(&p);
}

/* ================================================================ verify */

/* A prediction is a response, or, where it states no answer in a way that is known, an answer. */
static Verdict verify_one(const char *pred, const char *gold, bool response, Buf *answer)
{
    Buf bare = {0};
    const char *fault = math_extract(pred, answer);
    if (fault && !response) {
        fault = NULL;
        answer->n = 0;
        buf_str(answer, pred);
    }
    math_gold(gold, &bare);
    Verdict v = fault ? verdict(fault) : math_compare(answer->s, answer->n, bare.s);
    buf_free(&bare);
    return v;
}

/* One verdict; as JSON, or as lines for people. */
static bool verify_print(const char *pred, const char *gold, bool response, bool json)
{
    Buf answer = {0}, normal = {0}, bare = {0}, gold_normal = {0}, out = {0};
    Verdict v = verify_one(pred, gold, response, &answer);
    math_gold(gold, &bare);
    math_normal(answer.s, &normal);
    math_normal(bare.s, &gold_normal);
    if (json) {
        buf_printf(&out, "{\"right\": %s", v.right ? "true" : "false");
        put_text(&out, "reason", v.reason, strlen(v.reason));
        put_text(&out, "answer", answer.s, answer.n);
        put_text(&out, "normal", normal.s, normal.n);
        put_text(&out, "gold", bare.s, bare.n);
        put_text(&out, "gold_normal", gold_normal.s, gold_normal.n);
        buf_str(&out, "}");
    } else
        buf_printf(&out, "%s: %s\nanswer  %s\nnormal  %s\ngold    %s\nnormal  %s",
                   v.right ? "right" : "wrong", v.reason, answer.s, normal.s, bare.s,
                   gold_normal.s);
    puts(out.s);
    buf_free(&answer);
    buf_free(&normal);
    buf_free(&bare);
    buf_free(&gold_normal);
    buf_free(&out);
    return v.right;
}

static void verify_file(const char *path)
{
    size_t n, offset = 0;
    int line = 0, rows = 0, right = 0;
    char *text = read_file(path, &n);
    Buf key = {0}, response = {0}, pred = {0}, gold = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        int responses = 0, preds = 0, golds = 0;
        for (json_object(&j); json_key(&j, &key);)
            if (!strcmp(key.s, "response"))
                responses += json_string(&j, &response);
            else if (!strcmp(key.s, "pred"))
                preds += json_string(&j, &pred);
            else if (!strcmp(key.s, "gold"))
                golds += json_string(&j, &gold);
            else
                json_skip(&j);
        jsonl_end(&j, path, line);
        if (responses + preds != 1 || golds != 1)
            die("%s: line %d: expected one response or pred, and one gold", path, line);
        right += verify_print(responses ? response.s : pred.s, gold.s, responses, true);
        demand_output(false);
        rows++;
    }
    fprintf(stderr, "%s: %d of %d right\n", path, right, rows);
    free(text);
    buf_free(&key);
    buf_free(&response);
    buf_free(&pred);
    buf_free(&gold);
}

/* Reads {"prompt": .., "response": ..}, each once; dies naming the file, the line and the field. */
static void verify_fields(Json *j, const char *path, int line, Buf *prompt, Buf *response)
{
    Buf key = {0};
    int prompts = 0, responses = 0;
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "prompt"))
            prompts += json_string(j, prompt);
        else if (!strcmp(key.s, "response"))
            responses += json_string(j, response);
        else
            json_skip(j);
    if (j->error && key.n)
        die("%s: line %d: %.60s: %s", path, line, key.s, j->error);
    jsonl_end(j, path, line);
    if (prompts != 1 || responses != 1)
        die("%s: line %d: expected one prompt and one response", path, line);
    buf_free(&key);
}

/* Responses judged by the rules of a built-in task: a verdict and a class for each line. */
static void verify_task_file(const Task *task, const char *path)
{
    size_t n, offset = 0;
    int line = 0, rows = 0, right = 0;
    char *text = read_file(path, &n);
    Buf prompt = {0}, response = {0}, class = {0}, out = {0};
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        verify_fields(&j, path, line, &prompt, &response);
        Verdict v = task_verify(task, prompt.s, response.s);
        class.n = out.n = 0;
        task_answer_class(task, prompt.s, response.s, &class);
        buf_printf(&out, "{\"right\": %s", v.right ? "true" : "false");
        put_text(&out, "reason", v.reason, strlen(v.reason));
        put_text(&out, "class", class.s, class.n);
        buf_str(&out, "}");
        puts(out.s);
        demand_output(false);
        right += v.right;
        rows++;
    }
    fprintf(stderr, "%s: %d of %d right\n", path, right, rows);
    free(text);
    buf_free(&prompt);
    buf_free(&response);
    buf_free(&class);
    buf_free(&out);
}

static void cmd_verify(Session *s)
{
    const Options *o = &s->o;
    if (o->data && !o->pred && !o->gold && o->task)
        verify_task_file(&s->task, o->data);
    else if (o->data && !o->pred && !o->gold)
        verify_file(o->data);
    else if (o->pred && o->gold && !o->data && !o->task)
        verify_print(o->pred, o->gold, false, o->json);
    else
        usage("verify wants --pred TEXT and --gold TEXT, or --data FILE, with --task or without");
}

/* ================================================================ report */

static void cmd_report(Session *s)
{
    const Options *o = &s->o;
    if (!s->words.n_words)
        usage("report: expected run directories, e.g. g2rl report runs/grpo runs/g2rl");
    ReportOptions x = {s->words.word, s->words.n_words, o->geometry, o->out, o->svg, o->json};
    report(&x);
}

/* ================================================================ main */

/* The command of this name; a wrong name ends the program and names the nearest one. */
static int command_find(const char *name)
{
    int best = 1000, nearest = 0;
    for (int c = 0; c < N_COMMANDS; c++) {
        int distance = edit_distance(name, COMMANDS[c]);
        if (!strcmp(name, COMMANDS[c]))
            return c;
        if (distance < best) {
            best = distance;
            nearest = c;
        }
    }
    usage("unknown command '%.60s'; did you mean %s? (see: g2rl help)", name, COMMANDS[nearest]);
    return -1;
}

/* Declared once more for the compiler: where one of these files is compiled alone, it includes this
 * one (through g2rl.c) before it defines its command. */
static void cmd_sft(Session *s);      /* sft.h */
static void cmd_eval(Session *s);     /* eval.h */
static void cmd_explain(Session *s);  /* explain.h */
static void cmd_bench(Session *s);    /* bench.h */
static void cmd_geometry(Session *s); /* geometry.h */
static void cmd_replay(Session *s);   /* replay.h */

static void (*const RUN[N_COMMANDS])(Session *) = {
    [SFT] = cmd_sft, [TRAIN] = cmd_train, [EVAL] = cmd_eval, [GEOMETRY] = cmd_geometry,
    [REPORT] = cmd_report, [SAMPLE_TEXT] = cmd_sample, [SCORE] = cmd_score,
    [TOKENIZE] = cmd_tokenize, [EXPLAIN] = cmd_explain, [REPLAY] = cmd_replay, [DATA] = cmd_data,
    [VERIFY_ANSWER] = cmd_verify, [BENCH] = cmd_bench};

/* The program, from its words; tests call it too. */
static int run_command(int argc, char **argv)
{
    Session s = {0};
    bool metrics = argc > 2 && !strcmp(argv[2], "metrics");
    fill_standard_files();
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "--help")) {
        (metrics ? help_metrics : help)(argc < 2 ? stderr : stdout);
        demand_output(true);
        return argc < 2 ? 2 : 0;
    }
    int c = command_find(argv[1]);
    options_default(OPTIONS, N_OPTIONS, c, &s.o);
    s.o.entropy_coef = -1;
    options_parse(OPTIONS, N_OPTIONS, c, argv[1], &s.o, argc - 2, argv + 2, &s.words);
    if (s.o.resume && !s.words.help)
        resume_options(&s, c, argc - 2, argv + 2);
    if (s.o.entropy_coef < 0)
        s.o.entropy_coef = s.o.method == ENTROPY ? 0.003 : 0;
    if (s.words.help) {
        help_command(c, stdout);
        words_free(&s.words);
        demand_output(true);
        return 0;
    }
    if (s.words.n_words && c != EVAL && c != GEOMETRY && c != REPORT && c != REPLAY)
        usage("%s: '%.60s' is not an option; options are --name value", argv[1], s.words.word[0]);
    signal(SIGXFSZ, SIG_IGN); /* a file that grows too large is an error of write like others */
    session_begin(&s);
    RUN[c](&s);
    session_free(&s);
    demand_output(true);
    return s.status;
}

#ifndef G2RL_TEST
int main(int argc, char **argv) { return run_command(argc, argv); }
#endif

#endif
