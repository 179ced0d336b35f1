/* verify.h: the command `verify`: is a response right? */
#ifndef VERIFY_H
#define VERIFY_H

static void put_verdict(Buf *out, Verdict v)
{
    buf_printf(out, "{\"right\": %s", v.right ? "true" : "false");
    put_text(out, "reason", v.reason, strlen(v.reason));
}

/* Verifies a prediction: a response or, where it states no answer and `response` is false, the bare
 * answer itself. Prints the verdict as JSON, or as lines for people. */
static bool verify_math(const char *pred, const char *gold, bool response, bool json)
{
    Buf answer = {0}, normal = {0}, bare = {0}, gold_normal = {0}, out = {0};
    const char *fault = math_extract(pred, &answer);
    if (fault && !response) {
        fault = NULL;
        answer.n = 0;
        buf_str(&answer, pred);
    }
    math_gold(gold, &bare);
    Verdict v = fault ? verdict(fault) : math_compare(answer.s, answer.n, bare.s);
    math_normal(answer.s, &normal);
    math_normal(bare.s, &gold_normal);
    if (json) {
        put_verdict(&out, v);
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
    buf_free(&answer, &normal, &bare, &gold_normal, &out);
    return v.right;
}

/* Verifies a response by the rules of a built-in task: a verdict and the answer class. */
static bool verify_task(const Task *task, const char *prompt, const char *response)
{
    Buf class = {0}, out = {0};
    Verdict v = task_verify(task, prompt, response);
    task_answer_class(task, prompt, response, &class);
    put_verdict(&out, v);
    put_text(&out, "class", class.s, class.n);
    buf_str(&out, "}");
    puts(out.s);
    buf_free(&class, &out);
    return v.right;
}

/* A verdict for each line of a file: for a task's prompt and response; without a task, for a
 * mathematical response, or pred, and gold. */
static void verify_file(const Task *task, const char *path)
{
    size_t n, offset = 0;
    int line = 0, rows = 0, right = 0, fields = task ? 2 : 3;
    char *text = jsonl_read(path, &n);
    Buf other = {0}, response = {0}, pred = {0};
    TextField field[3] = {{.names = task ? "prompt" : "gold", .text = &other},
                          {.names = "response", .text = &response},
                          {.names = "pred", .text = &pred}};
    for (Json j; jsonl_next(text, n, &offset, &line, &j); rows++) {
        jsonl_texts(&j, field, fields, path, line);
        int responses = field[1].seen + field[2].seen;
        if (field[0].seen != 1 || responses != 1)
            die("%s: line %d: expected %s", path, line, task ? "one prompt and one response"
                : "one response or pred, and one gold");
        right += task ? verify_task(task, other.s, response.s)
                 : verify_math(field[1].seen ? response.s : pred.s, other.s, field[1].seen, true);
        demand_output(false);
    }
    fprintf(stderr, "%s: %d of %d right\n", path, right, rows);
    free(text);
    buf_free(&other, &response, &pred);
}

static void cmd_verify(Session *s)
{
    const Options *o = &s->o;
    if (o->data && !o->pred && !o->gold)
        verify_file(o->task ? &s->task : NULL, o->data);
    else if (o->pred && o->gold && !o->data && !o->task)
        verify_math(o->pred, o->gold, false, o->json);
    else
        usage("verify wants --pred TEXT and --gold TEXT, or --data FILE, with --task or without");
}

#endif
