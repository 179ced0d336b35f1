/* tokenize.h: the command `tokenize`: text, or messages, to token ids, and back. */
#ifndef TOKENIZE_H
#define TOKENIZE_H

/* The members of an input line. */
typedef struct {
    Buf text;
    bool has_text, has_ids, generate;
    Ids ids;
    Messages messages;
    int thinking; /* -1: not set */
} TokenizeLine;

static void line_free(TokenizeLine *x)
{
    messages_free(&x->messages);
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
        if (json_missing(j))
            continue;
        else if (!strcmp(key.s, "text"))
            x.has_text = json_string(j, &x.text);
        else if ((!strcmp(key.s, "input_ids") || !strcmp(key.s, "ids")) && !x.has_ids) {
            x.ids.n = read_ids(j, &any, false, &x.ids.id, "stdin", line);
            x.has_ids = true;
        } else if (!strcmp(key.s, "messages"))
            messages_read(j, path_printf("stdin: line %d", line).s, &x.messages);
        else if (!strcmp(key.s, "add_generation_prompt"))
            json_bool(j, &x.generate);
        else if (!strcmp(key.s, "enable_thinking"))
            x.thinking = json_bool(j, &think) ? think : -1;
        else if (!strcmp(key.s, "tools"))
            die("stdin: line %d: tools are not supported; expected messages alone", line);
        else
            json_skip(j);
    jsonl_end(j, "stdin", line);
    buf_free(&key);
    return x;
}

/* {"text"} to {"input_ids"}, with --decode back; {"messages"} to {"prompt", "input_ids"}. */
static void tokenize_line(void *session, Json *j, int line, Buf *out)
{
    const Session *s = session;
    TokenizeLine x = line_read(j, line);
    bool chat = x.messages.n > 0;
    Template template = {.kind = TEMPLATE_CHAT + s->o.chat};
    messages_fit(&x.messages, &template, path_printf("stdin: line %d", line).s);
    size_t bad = 0;
    if (s->o.decode) {
        if (!x.has_ids)
            die("stdin: line %d: expected input_ids", line);
        tokenizer_decode(&s->tokenizer, x.ids.id, x.ids.n, s->o.skip_special, &x.text);
        buf_str(out, "{\"text\": ");
        json_put_string(out, x.text.s, x.text.n);
    } else {
        if (x.has_text == chat)
            die("stdin: line %d: expected text, or messages", line);
        if (chat)
            chat_render(s->o.chat, x.messages.message, x.messages.n, x.generate, x.thinking,
                        &x.text, NULL);
        x.ids.n = 0;
        if (!tokenizer_encode(&s->tokenizer, x.text.s, x.text.n, &x.ids, &bad))
            die("stdin: line %d: no token for the character at byte %zu", line, bad);
        buf_str(out, chat ? "{\"prompt\": " : "{");
        if (chat) {
            json_put_string(out, x.text.s, x.text.n);
            buf_str(out, ", ");
        }
        buf_str(out, "\"input_ids\": ");
        json_put_ints(out, x.ids.id, x.ids.n);
    }
    buf_str(out, "}\n");
    line_free(&x);
}

static void cmd_tokenize(Session *s)
{
    if (!s->o.tokenizer)
        usage("tokenize: --tokenizer is missing");
    s->tokenizer = tokenizer_load(base_dir(s->o.tokenizer).s);
    jsonl_filter(tokenize_line, s);
}

#endif
