/* score.h: the command `score`: log-probs of given texts or token ids, a line of JSON for each. */
#ifndef SCORE_H
#define SCORE_H

/* The log-prob of each id given those before it; the first has none. */
static void score_line(void *session, Json *j, int line, Buf *out)
{
    Session *s = session;
    Buf key = {0}, text = {0};
    int *ids = NULL, n = 0;
    bool have_text = false;
    j->nul = true;
    for (json_object(j); json_key(j, &key);)
        if (json_missing(j))
            continue;
        else if (!strcmp(key.s, "input_ids"))
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
    rope_reserve(&s->model, n);
    Arena a = arena_new(pass_bytes(&s->model, n, n, n, KEEP_NOTHING));
    a.threads = imin(s->engine.threads, HELPERS);
    Batch b = batch_new(&a, n, 1, n);
    batch_seq(&b, ids, n, 0, -1);
    for (int t = 0; t + 1 < n; t++)
        batch_target(&b, t, ids[t + 1]);
    Pass p = forward(&a, &s->model, &b, KEEP_NOTHING);
    forward_head(&a, &s->model, &p, (float)s->o.temperature, false, NULL);
    demand_logits(&s->model, p.head.logprob, n - 1);
    buf_str(out, "{\"input_ids\": ");
    json_put_ints(out, ids, n);
    buf_str(out, ", \"logprobs\": [null");
    for (int t = 0; t + 1 < n; t++) {
        buf_str(out, ", ");
        json_put_number(out, (double)p.head.logprob[t]);
    }
    buf_str(out, "]}\n");
    arena_free(&a);
    free(ids);
    buf_free(&key, &text);
}

static void cmd_score(Session *s)
{
    session_load(s, s->o.model);
    model_pack(&s->model, s->engine.threads);
    jsonl_filter(score_line, s);
}

#endif
