/* chat.h: chat templates: what the Jinja templates of tokenizer_config.json make of messages of a
 * role and a content: no list of tools, no tool calls, no separate reasoning.
 *
 *   Message m[] = {{"system", "Be brief."}, {"user", "1+1?"}};
 *   chat_render(CHAT_CHATML, m, 2, true, -1, &out, NULL);
 *
 * gives, without the breaks between these lines,
 *
 *   <|im_start|>system\nBe brief.<|im_end|>\n
 *   <|im_start|>user\n1+1?<|im_end|>\n
 *   <|im_start|>assistant\n
 *
 * That is ChatML, the form of SmolLM2 and Qwen2.5; their own templates begin with a system message
 * also where none is given. Qwen3 adds thoughts and tools. Llama 3 has
 *
 *   <|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>
 *   <|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>
 *   <|start_header_id|>assistant<|end_header_id|>\n\n
 *
 * where 3.1 and later add dates to the system message. */
#ifndef CHAT_H
#define CHAT_H

#include "nfc.h" /* defines: is_space; json.h: Buf, utf8_decode */

#define CHAT_FORMATS "qwen3|chatml|llama3" /* in this order: */
typedef enum { CHAT_QWEN3, CHAT_CHATML, CHAT_LLAMA3, N_CHATS } ChatFormat;

/* The token that ends a turn. */
static const char *const CHAT_END[N_CHATS] = {"<|im_end|>", "<|im_end|>", "<|eot_id|>"};

typedef struct {
    const char *role, *content; /* role: system, user, assistant or tool */
} Message;

/* A part of a string. */
typedef struct {
    const char *s;
    size_t n;
} Slice;

/* Bytes begin .. end - 1 of a rendered text. */
typedef struct {
    size_t begin, end;
} TextSpan;

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

/* Qwen3's. Consecutive tool messages are one turn of the user. */
static void chat_qwen3(const Message *m, int n, bool add_generation_prompt, int enable_thinking,
                       Buf *out, TextSpan *turn)
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
        turn[i].begin = out->n;
        if (is_role(&m[i], "assistant"))
            chat_assistant(&m[i], i > query, i == n - 1, out);
        else
            buf_str(out, m[i].content);
        buf_str(out, tool ? "\n</tool_response>" : "");
        buf_str(out, last ? "<|im_end|>" : "");
        turn[i].end = out->n;
        buf_str(out, last ? "\n" : "");
    }
    if (add_generation_prompt)
        buf_str(out, "<|im_start|>assistant\n");
    if (add_generation_prompt && enable_thinking == 0)
        buf_str(out, "<think>\n\n</think>\n\n");
}

/* Text without white space around it, as Python's strip. */
static Slice chat_trim(const char *text)
{
    size_t n = strlen(text), first = n, end = 0;
    uint32_t c;
    for (size_t i = 0, length; i < n; i += length) {
        length = (size_t)abs(utf8_decode(text + i, n - i, &c));
        if (is_space(c) || (c >= 0x1C && c <= 0x1F))
            continue;
        first = first < i ? first : i;
        end = i + length;
    }
    return (Slice){text + first, end > first ? end - first : 0};
}

/* ChatML's and Llama 3's: a turn for each message. */
static void chat_turns(bool llama, const Message *m, int n, bool add_generation_prompt, Buf *out,
                       TextSpan *turn)
{
    buf_str(out, llama ? "<|begin_of_text|>" : "");
    for (int i = 0; i < n + add_generation_prompt; i++) {
        buf_printf(out, llama ? "<|start_header_id|>%s<|end_header_id|>\n\n" : "<|im_start|>%s\n",
                   i < n ? m[i].role : "assistant");
        if (i == n)
            break;
        Slice x = llama ? chat_trim(m[i].content) : (Slice){m[i].content, strlen(m[i].content)};
        turn[i].begin = out->n;
        buf_add(out, x.s, x.n);
        buf_str(out, CHAT_END[llama ? CHAT_LLAMA3 : CHAT_CHATML]);
        turn[i].end = out->n;
        buf_str(out, llama ? "" : "\n");
    }
}

/* Appends the prompt. enable_thinking, of Qwen3: 0 begins the answer with an empty thought; 1 and
 * -1 (not set) leave it to the model. turn [n], or NULL: the bytes of each message's content and of
 * the token that ends its turn, which for the assistant's is what a model generates. */
static void chat_render(ChatFormat format, const Message *m, int n, bool add_generation_prompt,
                        int enable_thinking, Buf *out, TextSpan *turn)
{
    TextSpan *spans = turn ? turn : xcalloc(n, sizeof *spans);
    if (format == CHAT_QWEN3)
        chat_qwen3(m, n, add_generation_prompt, enable_thinking, out, spans);
    else
        chat_turns(format == CHAT_LLAMA3, m, n, add_generation_prompt, out, spans);
    if (!turn)
        free(spans);
}

#endif
