/* verify.h: the command `verify`: is a prediction right? */
#ifndef VERIFY_H
#define VERIFY_H

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

#endif
