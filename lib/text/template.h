/* template.h: templates that turn a problem into the prompt of a model.
 *
 *   plain    the problem as it is
 *   qwen3    Qwen3's chat format: the system text, if any, the problem as the user's turn, and the
 *            beginning of the assistant's
 *   FILE     the file's text with {prompt} replaced by the problem and {system} by the system text;
 *            other braces are literal, and its last newline is dropped. For few-shot examples.
 *
 *   Template t = template_open("qwen3", "Answer in one word.");
 *   template_render(&t, "What is red and round?", &out);
 *   template_free(&t); */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "chat.h" /* defines: Message, chat_render; util.h: Buf, read_file, die */

typedef enum { TEMPLATE_PLAIN, TEMPLATE_QWEN3, TEMPLATE_FILE } TemplateKind;

typedef struct {
    TemplateKind kind;
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
        die("%s: is not a file; --template takes plain, qwen3 or a file", path);
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

/* `name`: plain, qwen3 or a path. `system` may be NULL; plain has no place for it. */
static Template template_open(const char *name, const char *system)
{
    Template t = {.kind = TEMPLATE_FILE, .system = system};
    if (!strcmp(name, "plain"))
        t.kind = TEMPLATE_PLAIN;
    else if (!strcmp(name, "qwen3"))
        t.kind = TEMPLATE_QWEN3;
    else
        t.text = template_read(name, system);
    return t;
}

/* The template's text behind the problem, which begins with the token that ends a turn, if there is
 * one; "" for a template without any. */
static const char *template_turn_end(const Template *t)
{
    const char *after = "";
    if (t->kind == TEMPLATE_QWEN3)
        return "<|im_end|>";
    for (const char *s = t->kind == TEMPLATE_FILE ? t->text : ""; (s = strstr(s, "{prompt}"));)
        after = s += 8;
    return after + strspn(after, " \n");
}

/* Appends the prompt. Braces inside the problem or the system text stand for themselves. */
static void template_render(const Template *t, const char *problem, Buf *out)
{
    const char *system = t->system ? t->system : "";
    if (t->kind == TEMPLATE_QWEN3) {
        Message m[2] = {{"system", system}, {"user", problem}};
        int first = t->system ? 0 : 1;
        chat_render(m + first, 2 - first, true, -1, out);
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
