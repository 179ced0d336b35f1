/* sample.h: the command `sample`: text for a prompt, streamed, or for each prompt of a file. */
#ifndef SAMPLE_H
#define SAMPLE_H

/* Prints a response as it grows; a suffix that may be the beginning of a --stop waits. */
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
    const Stops *stops = &p->s->stops;
    decoder_add(&p->decoder, &p->s->tokenizer, id, true, &p->text);
    size_t end = p->text.n, hold = 0;
    const char *found = find_stop(stops, p->text.s);
    for (int i = 0; i < stops->text.n; i++)
        hold = imax(hold, strlen(stops->text.text[i]) - 1);
    if (found) {
        end = found - p->text.s;
        p->stopped = true;
    } else
        end -= hold < end ? hold : end;
    if (end > p->shown) {
        fwrite(p->text.s + p->shown, 1, end - p->shown, stdout);
        demand_output(true);
        p->shown = end;
    }
}

/* A line of JSON for each response to the prompts of --data. */
static void sample_file(Session *s)
{
    Engine *e = &s->engine;
    Problems p = session_prompts(s, s->o.data, SPLIT_TEST, false);
    problems_fit(&p, &s->tokenizer, prompt_limit(s, &s->model.config));
    Extent x = eval_extent(&p, s->o.samples, s->o.max_tokens);
    int at_once = x.groups = imin(x.groups, p.n);
    *e = extent_engine(&s->model, e->threads, x);
    rope_reserve(&s->model, x.max_prompt + x.max_tokens);
    Buf line = {0}, text = {0};
    for (int i = 0; i < p.n; i += at_once) {
        size_t mark = e->arena.used;
        x.groups = imin(at_once, p.n - i);
        Group *g = sample_problems(s, &p, x, i);
        for (int k = 0; k < x.groups * x.m; k++) {
            const Group *of = &g[k / x.m];
            line.n = text.n = 0;
            response_text(of, k % x.m, &s->tokenizer, &text);
            put_text(&line, "prompt", of->text, strlen(of->text));
            put_text(&line, "response", text.s, text.n);
            printf("{%s}\n", line.s + 2);
        }
        demand_output(true);
        e->arena.used = mark;
    }
    buf_free(&line, &text);
    problems_free(&p);
}

static void cmd_sample(Session *s)
{
    const Options *o = &s->o;
    if (!o->prompt == !o->data)
        usage("sample: expected one of --prompt TEXT and --data FILE");
    session_sampler(s, o->model);
    if (o->data) {
        sample_file(s);
        return;
    }
    Buf text = {0};
    template_render(&s->template, o->prompt, &text);
    int room = prompt_limit(s, &s->model.config);
    Ids prompt = encode(&s->tokenizer, true, text.s, text.n, room, "--prompt");
    buf_free(&text);
    Extent x = {1, o->samples, imax(prompt.n, 64), o->max_tokens, 1, KEEP_NOTHING, false,
                SAVE_NOTHING};
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

#endif
