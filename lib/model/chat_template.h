/* chat_template.h: which --template makes the prompts of a model's own chat template. That is a
 * program in Jinja, which is not run here: the tokens that it writes tell its form.
 *
 *   char *jinja = chat_template_read("models/SmolLM2-135M-Instruct/tokenizer.json");
 *   chat_template_format(jinja)             CHAT_CHATML; -1: another form, or jinja is NULL
 *   chat_template_system(jinja, &system)    "You are a helpful AI assistant named SmolLM, ..." */
#ifndef CHAT_TEMPLATE_H
#define CHAT_TEMPLATE_H

#include "../text/chat.h"   /* defines: ChatFormat */
#include "tokenizer_json.h" /* defines: json_file, member, sibling */

/* The text of the chat template beside a tokenizer.json: chat_template.jinja or, of
 * tokenizer_config.json, "chat_template": "..." or [{"name": "default", "template": "..."}, ...].
 * NULL: there is none. The caller frees it. */
static char *chat_template_read(const char *path)
{
    Path jinja = sibling(path, "chat_template.jinja");
    Path config = sibling(path, SIBLINGS[TOKENIZER_CONFIG]);
    Buf text = {0};
    char *file;
    size_t n;
    if (is_file(jinja.s))
        return read_file(jinja.s, &n);
    if (!is_file(config.s))
        return NULL;
    Json j = member(json_file(config.s, &file), "chat_template"), list = j, found = j;
    if (json_peek(&j) == '[')
        for (json_array(&list); json_item(&list); json_skip(&list))
            if (string_is(member(list, "name"), "default"))
                found = member(list, "template");
    if (json_peek(&found) != '"' || !json_string(&found, &text))
        buf_free(&text);
    free(file);
    return text.s;
}

/* The form of a chat template. Qwen3's, other than Qwen2.5's, handles thoughts. */
static int chat_template_format(const char *jinja)
{
    if (!jinja)
        return -1;
    if (strstr(jinja, "<|start_header_id|>") && strstr(jinja, "<|eot_id|>"))
        return CHAT_LLAMA3;
    if (!strstr(jinja, "<|im_start|>") || !strstr(jinja, "<|im_end|>"))
        return -1;
    return strstr(jinja, "<think>") ? CHAT_QWEN3 : CHAT_CHATML;
}

/* The system text that a template of ChatML writes where none is given: what stands, in one string
 * of Jinja, between the marks of a system message. False: there is none, or not in this way. */
static bool chat_template_system(const char *jinja, Buf *out)
{
    static const char begin[] = "<|im_start|>system", end[] = "<|im_end|>";
    for (const char *s = jinja; s && (s = strstr(s, begin));) {
        s += sizeof begin - 1;
        s += *s == '\n' ? 1 : !strncmp(s, "\\n", 2) ? 2 : 0;
        out->n = 0;
        while (*s && !strchr("'\"\n", *s) && strncmp(s, end, sizeof end - 1)) {
            s += !strncmp(s, "\\\\", 2); /* an escape: one backslash */
            buf_add(out, s++, 1);
        }
        if (out->n && !strncmp(s, end, sizeof end - 1))
            return true;
    }
    return false;
}

#endif
