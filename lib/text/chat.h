/* chat.h: Qwen3's chat template, the Jinja template of its tokenizer_config.json, for messages of a
 * role and a content: no list of tools, no tool calls, no separate reasoning.
 *
 *   Message m[] = {{"system", "Be brief."}, {"user", "1+1?"}};
 *   chat_render(m, 2, true, -1, &out);
 *
 * gives, without the breaks between these lines,
 *
 *   <|im_start|>system\nBe brief.<|im_end|>\n
 *   <|im_start|>user\n1+1?<|im_end|>\n
 *   <|im_start|>assistant\n */
#ifndef CHAT_H
#define CHAT_H

#include "../base/util.h" /* defines: Buf, buf_add */

typedef struct {
    const char *role, *content; /* role: system, user, assistant or tool */
} Message;

/* A part of a string. */
typedef struct {
    const char *s;
    size_t n;
} Slice;

static Slice slice_strip(Slice x, bool left, bool right)
{
    while (left && x.n && x.s[0] == '\n')
        x = (Slice){x.s + 1, x.n - 1};
    while (right && x.n && x.s[x.n - 1] == '\n')
        x.n--;
    return x;
}

/* The text after the last `mark` in x; all of x if there is none. */
static Slice slice_after(Slice x, const char *mark)
{
    size_t n = strlen(mark);
    for (size_t i = x.n; i-- > 0;)
        if (i + n <= x.n && !memcmp(x.s + i, mark, n))
            return (Slice){x.s + i + n, x.n - i - n};
    return x;
}

static bool is_role(const Message *m, const char *role) { return !strcmp(m->role, role); }

/* Is it a question: a user message that is not the answer of a tool? */
static bool is_query(const Message *m)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    size_t n = strlen(m->content), tail = sizeof close - 1;
    bool answer = !strncmp(m->content, open, sizeof open - 1) && n >= tail &&
                  !strcmp(m->content + n - tail, close);
    return is_role(m, "user") && !answer;
}

/* An assistant's message, with its <think>...</think> part only where `think`: after the last
 * question. `last`: the last message. */
static void chat_assistant(const Message *m, bool think, bool last, Buf *out)
{
    const char *end = strstr(m->content, "</think>");
    Slice content = {m->content, strlen(m->content)}, reasoning = {"", 0};
    if (end) {
        reasoning = slice_strip((Slice){m->content, (size_t)(end - m->content)}, false, true);
        reasoning = slice_strip(slice_after(reasoning, "<think>"), true, true);
        content = slice_strip(slice_after(content, "</think>"), true, false);
    }
    if (think && (last || reasoning.n)) {
        buf_str(out, "<think>\n");
        buf_add(out, reasoning.s, reasoning.n);
        buf_str(out, "\n</think>\n\n");
        content = slice_strip(content, true, false);
    }
    buf_add(out, content.s, content.n);
}

/* Appends the prompt. Consecutive tool messages are one turn of the user. enable_thinking: 0 begins
 * the answer with an empty thought; 1 and -1 (not set) leave it to the model. */
static void chat_render(const Message *m, int n, bool add_generation_prompt,
                        int enable_thinking, Buf *out)
{
    int query = n - 1;
    for (int i = 0; i < n; i++)
        query = is_query(&m[i]) ? i : query;
    for (int i = 0; i < n; i++) {
        bool tool = is_role(&m[i], "tool");
        bool first = !tool || i == 0 || !is_role(&m[i - 1], "tool");
        bool last = !tool || i == n - 1 || !is_role(&m[i + 1], "tool");
        if (first)
            buf_printf(out, "<|im_start|>%s", tool ? "user" : m[i].role);
        buf_str(out, tool ? "\n<tool_response>\n" : "\n");
        if (is_role(&m[i], "assistant"))
            chat_assistant(&m[i], i > query, i == n - 1, out);
        else
            buf_str(out, m[i].content);
        buf_str(out, tool ? "\n</tool_response>" : "");
        buf_str(out, last ? "<|im_end|>\n" : "");
    }
    if (add_generation_prompt)
        buf_str(out, "<|im_start|>assistant\n");
    if (add_generation_prompt && enable_thinking == 0)
        buf_str(out, "<think>\n\n</think>\n\n");
}

#endif
