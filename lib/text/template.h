/* template.h: templates that turn a problem into the prompt of a model.
 *
 *   plain    the problem as it is
 *   qwen3, chatml, llama3
 *            a chat template (chat.h): the system text, if any, the problem as the user's turn, and
 *            the beginning of the assistant's
 *   FILE     the file's text with {prompt} replaced by the problem and {system} by the system text;
 *            other braces are literal, and its last newline is dropped. For few-shot examples.
 *
 *   Template t = template_open("qwen3", "Answer in one word.");
 *   template_render(&t, "What is red and round?", &out);
 *   template_free(&t); */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "chat.h" /* defines: Message, chat_render; util.h: Buf, read_file, die */

#define TEMPLATES "plain|" CHAT_FORMATS /* in this order: */
enum { TEMPLATE_PLAIN, TEMPLATE_CHAT, TEMPLATE_FILE = TEMPLATE_CHAT + N_CHATS };

/* What --template is where it is not given, known by its address. */
static const char TEMPLATE_NOT_GIVEN[] = "plain";

typedef struct {
    int kind;           /* TEMPLATE_CHAT + a ChatFormat, or one of the other two */
    const char *system; /* NULL: none */
    char *text;         /* of a file */
} Template;

static void template_free(Template *t)
{
    free(t->text);
    *t = (Template){0};
}

/* The text of a template file; dies where it lacks a place for the prompt or the system text. */
static char *template_read(const char *path, const char *system)
{
    size_t n;
    if (!is_file(path))
        die("%s: is not a file; --template takes " TEMPLATES " or a file", path);
    char *text = read_text_file(path, &n);
    if (strlen(text) != n)
        die("%s: a NUL byte in a template; expected text", path);
    if (!strstr(text, "{prompt}"))
        die("%s: no {prompt} in the template; expected it where the problem goes", path);
    if (system && !strstr(text, "{system}"))
        die("%s: no {system} in the template; expected it where --system goes", path);
    if (n && text[n - 1] == '\n')
        text[n - 1] = 0;
    return text;
}

/* `name`: one of TEMPLATES or a path. `system` may be NULL; plain has no place for it. */
static Template template_open(const char *name, const char *system)
{
    Template t = {.kind = choice_index(TEMPLATES, name, strlen(name)), .system = system};
    if (t.kind < 0) {
        t.kind = TEMPLATE_FILE;
        t.text = template_read(name, system);
    }
    return t;
}

static bool template_is_chat(const Template *t)
{
    return t->kind >= TEMPLATE_CHAT && t->kind < TEMPLATE_FILE;
}

/* The template's text behind the problem, which begins with the token that ends a turn, if there is
 * one; "" for a template without any. */
static const char *template_turn_end(const Template *t)
{
    const char *after = "";
    if (template_is_chat(t))
        return CHAT_END[t->kind - TEMPLATE_CHAT];
    for (const char *s = t->kind == TEMPLATE_FILE ? t->text : ""; (s = strstr(s, "{prompt}"));)
        after = s += 8;
    return after + strspn(after, " \n");
}

/* Appends the prompt. Braces inside the problem or the system text stand for themselves. */
static void template_render(const Template *t, const char *problem, Buf *out)
{
    const char *system = t->system ? t->system : "";
    if (template_is_chat(t)) {
        Message m[2] = {{"system", system}, {"user", problem}};
        int first = t->system ? 0 : 1;
        chat_render(t->kind - TEMPLATE_CHAT, m + first, 2 - first, true, -1, out, NULL);
        return;
    }
    for (const char *s = t->kind == TEMPLATE_FILE ? t->text : "{prompt}"; *s;) {
        size_t n = strcspn(s, "{");
        buf_add(out, s, n);
        s += n;
        bool is_prompt = !strncmp(s, "{prompt}", 8), is_system = !strncmp(s, "{system}", 8);
        if (is_prompt || is_system)
            buf_str(out, is_prompt ? problem : system);
        else
            buf_add(out, s, *s != 0);
        s += is_prompt || is_system ? 8 : *s != 0;
    }
}

#endif
