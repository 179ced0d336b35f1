/* messages.h: conversations in JSON, as datasets and chat templates have them:
 *
 *   [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
 *
 *   messages_read            at such an array
 *   messages_fit             by which template they can be rendered, with its system text
 *   messages_render          as text, and where the assistant's turns lie in it
 *   messages_free */
#ifndef MESSAGES_H
#define MESSAGES_H

#include "template.h" /* defines: Template; chat.h: Message, TextSpan, chat_render */

typedef struct {
    Message *message; /* with texts of their own */
    int n;
} Messages;

static void messages_free(Messages *x)
{
    for (int i = 0; i < x->n; i++) {
        free((char *)x->message[i].role);
        free((char *)x->message[i].content);
    }
    free(x->message);
    *x = (Messages){0};
}

static void messages_add(Messages *x, const char *role, const char *content)
{
    APPEND(x->message, x->n, (Message){xstrdup(role), xstrdup(content)});
}

/* Reads an array into `messages`, an empty Messages; dies, with `where`, at one that is not a role
 * and a content. */
static bool messages_read(Json *j, const char *where, void *messages)
{
    Messages *x = messages;
    bool nul = j->nul;
    Buf key = {0}, role = {0}, content = {0};
    j->nul = false; /* a Message is made of C strings */
    if (x->n)
        die("%s: messages: given twice", where);
    for (json_array(j); json_item(j);) {
        bool has_role = false, has_content = false;
        role.n = content.n = 0;
        for (json_object(j); json_key(j, &key);)
            if (json_missing(j))
                continue;
            else if (!strcmp(key.s, "role") && !has_role)
                has_role = json_string(j, &role);
            else if (!strcmp(key.s, "content") && !has_content)
                has_content = json_string(j, &content);
            else
                die("%s: messages: '%.60s'; expected role and content", where, key.s);
        if (j->error)
            break;
        if (!has_content || !has_role ||
            choice_index("system|user|assistant|tool", role.s, role.n) < 0)
            die("%s: messages: expected content, and role system, user, assistant or tool", where);
        messages_add(x, role.s, content.s);
    }
    j->nul = nul;
    buf_free(&key, &role, &content);
    if (!x->n && !j->error)
        json_fail(j, "expected messages, with role and content");
    return !j->error;
}

/* The template has to be a chat template that knows their roles. Its system text comes first where
 * they do not begin with one. */
static void messages_fit(Messages *x, const Template *t, const char *where)
{
    if (!template_is_chat(t))
        die("%s: messages; they need --template " CHAT_FORMATS, where);
    for (int i = 0; i < x->n; i++)
        if (t->kind - TEMPLATE_CHAT != CHAT_QWEN3 && is_role(&x->message[i], "tool"))
            die("%s: messages: role tool; it goes with --template qwen3 alone", where);
    if (!t->system || is_role(&x->message[0], "system"))
        return;
    messages_add(x, "system", t->system);
    Message first = x->message[x->n - 1];
    memmove(x->message + 1, x->message, (size_t)(x->n - 1) * sizeof first);
    x->message[0] = first;
}

/* Appends the text, with `generate` as far as the assistant's turn begins. turn [n]: see
 * chat_render. */
static void messages_render(const Messages *x, const Template *t, bool generate, Buf *out,
                            TextSpan *turn)
{
    chat_render(t->kind - TEMPLATE_CHAT, x->message, x->n, generate, -1, out, turn);
}

#endif
