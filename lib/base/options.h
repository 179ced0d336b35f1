/* options.h: a command line from one table.
 *
 *   g2rl COMMAND [WORD]... [--name value | --flag]... [@file]
 *
 * A row of the table is an option: name, kind, default, the commands that have it, help. Parsing,
 * --help, run.json and the error for a wrong name all use it. A name may have several rows, for
 * commands with different defaults; a row without a name is a heading of --help. Long names only.
 * An option of several texts may be given several times.
 * @file reads options from a file, one a line. Wrong usage ends with status 2. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "json.h" /* defines: json_put_string; util.h: Buf, die */

typedef enum {
    OPT_FLAG, OPT_INT, OPT_SEED, OPT_NUMBER, OPT_TEXT, OPT_TEXTS, OPT_CHOICE
} OptionKind;

/* The values of an option that may be given several times. */
enum { MOST_TEXTS = 8 };
typedef struct {
    const char *text[MOST_TEXTS];
    int n;
    bool stored; /* read from run.json: the first one on the command line replaces them */
} Texts;

typedef struct {
    const char *name;
    OptionKind kind;
    size_t offset;        /* of the field in the options struct: bool, int, uint64_t, double,
                             const char *, Texts or int (the choice's index) */
    const char *standard; /* the default, as it would be typed; NULL: none */
    double low, high;     /* bounds of a number */
    unsigned commands;    /* bit c: command c has it */
    const char *choices;  /* "a|b|c", or the name of the value in --help */
    const char *help;
} Option;

/* Ends the program for a wrong command line. */
#define usage(...) (warn(__VA_ARGS__), exit(2))

static bool option_known(const Option *o, int command) { return o->commands >> command & 1; }

/* Levenshtein distance of short names. */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    int row[LONGEST + 1], n = (int)strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST)
        return LONGEST;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = imin(replace, imin(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

/* The option of this name, NULL if the command has none. */
static const Option *option_named(const Option *table, int n, int command, const char *name)
{
    for (int i = 0; i < n; i++)
        if (option_known(&table[i], command) && !strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

/* The row of an option for a command; dies for a wrong name, suggesting the nearest one. */
static const Option *option_find(const Option *table, int n, int command, const char *command_name,
                                 const char *name)
{
    const char *nearest = NULL;
    const Option *found = option_named(table, n, command, name);
    for (int i = 0, best = INT_MAX; i < n && !found; i++) {
        int distance = edit_distance(name, table[i].name);
        if (option_known(&table[i], command) && distance < best) {
            best = distance;
            nearest = table[i].name;
        }
        if (!strcmp(table[i].name, name))
            usage("%s has no option --%s (see: g2rl %s --help)", command_name, name, command_name);
    }
    if (!found)
        usage("unknown option --%.60s; did you mean --%s? (see: g2rl %s --help)", name, nearest,
              command_name);
    return found;
}

/* Why a value is refused. */
typedef struct {
    char s[512];
} OptionError;

/* Parses a value into the options struct; false, with the reason, where it is malformed. */
static bool option_try(const Option *o, void *options, const char *value, OptionError *error)
{
    char *to = (char *)options + o->offset, *end = NULL, expected[256] = "";
    Texts *texts = (Texts *)(void *)to; /* of OPT_TEXTS */
    bool whole = o->kind != OPT_NUMBER;
    double number = strtod(value, &end);
    errno = 0;
    switch (o->kind) {
    case OPT_FLAG: *(bool *)to = true; break;
    case OPT_TEXT: *(const char **)to = value; break;
    case OPT_TEXTS:
        if (texts->stored)
            *texts = (Texts){0};
        if (texts->n < MOST_TEXTS)
            texts->text[texts->n++] = value;
        else
            snprintf(expected, sizeof expected, "at most %d of them", MOST_TEXTS);
        break;
    case OPT_INT:
    case OPT_NUMBER:
        if (end == value || *end || strspn(value, "0123456789+-.eE") != strlen(value) ||
            (whole && number != floor(number)) || !(number >= o->low && number <= o->high))
            snprintf(expected, sizeof expected, "a %snumber from %.10g to %.10g",
                     whole ? "whole " : "", o->low, o->high);
        else if (whole)
            *(int *)to = number;
        else
            *(double *)to = number;
        break;
    case OPT_SEED:
        *(uint64_t *)to = strtoull(value, &end, 10);
        if (errno || !*value || strspn(value, "0123456789") != strlen(value))
            snprintf(expected, sizeof expected, "a whole number from 0 to 2^64 - 1");
        break;
    case OPT_CHOICE:
        *(int *)to = choice_index(o->choices, value, strlen(value));
        if (*(int *)to < 0)
            snprintf(expected, sizeof expected, "one of %s", o->choices);
        break;
    }
    return !*expected || fail(error->s, sizeof error->s, "--%s: '%.60s'; expected %s", o->name,
                              value, expected);
}

/* The same for the command line: dies where the value is malformed. */
static void option_set(const Option *o, void *options, const char *value)
{
    OptionError error;
    if (!option_try(o, options, value, &error))
        usage("%s", error.s);
}

static void options_default(const Option *table, int n, int command, void *options)
{
    for (int i = 0; i < n; i++)
        if (table[i].standard && option_known(&table[i], command))
            option_set(&table[i], options, table[i].standard);
}

/* The words of a command line that are not options, and the texts that option values point into. */
typedef struct {
    const char **word;
    char **file;
    int n_words, n_files;
    bool help;
} Words;

static void words_free(Words *w)
{
    for (int i = 0; i < w->n_files; i++)
        free(w->file[i]);
    free(w->file);
    free(w->word);
}

static bool is_help(const char *arg) { return !strcmp(arg, "--help") || !strcmp(arg, "-h"); }

static void options_parse(const Option *table, int n, int command, const char *command_name,
                          void *options, int argc, char **argv, Words *words);

/* The lines of an option file: "--name value", "--flag", blank, or "# comment". */
static void options_file(const Option *table, int n, int command, const char *command_name,
                         void *options, const char *path, Words *words)
{
    size_t length;
    char *text = read_text_file(path, &length);
    APPEND(words->file, words->n_files, text);
    if (strlen(text) != length)
        die("%s: a NUL byte in an option file", path);
    for (char *line = strtok(text, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        line += strspn(line, " \t");
        if (!*line || *line == '#')
            continue;
        if (*line != '-')
            usage("%s: '%.60s'; expected --name value on each line", path, line);
        char *gap = line + strcspn(line, " \t="), *value = gap + strspn(gap, " \t");
        if (value > gap) { /* --name=value: one word, which can be nothing else */
            *gap = '=';
            memmove(gap + 1, value, strlen(value) + 1);
        }
        options_parse(table, n, command, command_name, options, 1, &line, words);
    }
}

static void options_parse(const Option *table, int n, int command, const char *command_name,
                          void *options, int argc, char **argv, Words *words)
{
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (is_help(arg)) {
            words->help = true;
        } else if (arg[0] == '@') {
            options_file(table, n, command, command_name, options, arg + 1, words);
        } else if (arg[0] != '-' || !arg[1]) {
            APPEND(words->word, words->n_words, arg);
        } else {
            char name[64];
            const char *equals = strchr(arg, '=');
            if (arg[1] != '-')
                usage("unknown option %.60s; options are long: --name value", arg);
            snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - arg - 2) : 63, arg + 2);
            const Option *o = option_find(table, n, command, command_name, name);
            if (o->kind == OPT_FLAG && equals)
                usage("--%s takes no value", o->name);
            if (o->kind != OPT_FLAG && !equals && i + 1 >= argc)
                usage("--%s needs a value", o->name);
            option_set(o, options, o->kind == OPT_FLAG ? "" : equals ? equals + 1 : argv[++i]);
        }
    }
}


/* The option's current value, as JSON. */
static void option_get(const Option *o, const void *options, Buf *out)
{
    const char *from = (const char *)options + o->offset;
    const Texts *texts = (const Texts *)(const void *)from; /* of OPT_TEXTS */
    const char *choice;
    int n;
    switch (o->kind) {
    case OPT_FLAG: buf_str(out, *(const bool *)from ? "true" : "false"); break;
    case OPT_INT: buf_printf(out, "%d", *(const int *)from); break;
    case OPT_SEED: buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)from); break;
    case OPT_NUMBER: put_exactly(out, *(const double *)from, 15); break;
    case OPT_TEXT:
        if (*(const char *const *)from)
            json_put_string(out, *(const char *const *)from, strlen(*(const char *const *)from));
        else
            buf_str(out, "null");
        break;
    case OPT_TEXTS:
        buf_str(out, "[");
        for (int i = 0; i < texts->n; i++) {
            buf_str(out, i ? ", " : "");
            json_put_string(out, texts->text[i], strlen(texts->text[i]));
        }
        buf_str(out, "]");
        break;
    case OPT_CHOICE:
        choice = choice_name(o->choices, *(const int *)from, &n);
        json_put_string(out, choice, n);
        break;
    }
}

/* Every option of a command with its value, as the members of a JSON object. */
static void options_json(const Option *table, int n, int command, const void *options, Buf *out)
{
    const char *comma = "";
    for (int i = 0; i < n; i++)
        if (option_known(&table[i], command)) {
            buf_printf(out, "%s\n  \"%s\": ", comma, table[i].name);
            option_get(&table[i], options, out);
            comma = ",";
        }
}

/* The same for an option of several texts: an array; or, as it once was written, one of them. */
static bool option_read_texts(const Option *o, void *options, Json *j, Words *words,
                              OptionError *error)
{
    Texts *to = (Texts *)(void *)((char *)options + o->offset);
    bool list = json_peek(j) == '[', good = true;
    *to = (Texts){0};
    for (bool more = list ? json_array(j) : !json_missing(j); good && more; more = list) {
        Buf text = {0};
        if (list && !json_item(j))
            break;
        good = json_string(j, &text);
        APPEND(words->file, words->n_files, text.s);
        good = good && option_try(o, options, text.s, error);
    }
    to->stored = true;
    return good && !j->error;
}

/* Reads an option's value as options_json writes it; `words` owns its text. False, with the reason,
 * where it is malformed. */
static bool option_read(const Option *o, void *options, Json *j, Words *words, OptionError *error)
{
    char *to = (char *)options + o->offset;
    Buf text = {0};
    if (o->kind == OPT_FLAG)
        return json_bool(j, (bool *)to);
    if (o->kind == OPT_TEXTS)
        return option_read_texts(o, options, j, words, error);
    if (o->kind == OPT_TEXT && json_peek(j) == 'n') {
        *(const char **)to = NULL;
        return json_null(j);
    }
    if (!json_string_or_number(j, &text)) {
        buf_free(&text);
        return false;
    }
    APPEND(words->file, words->n_files, text.s);
    return option_try(o, options, text.s, error);
}

/* Prints the options of a command under their headings. */
static void options_help(const Option *table, int n, int command, FILE *f)
{
    enum { LEFT = 26 };
    const char *heading = NULL;
    for (int i = 0; i < n; i++) {
        const Option *o = &table[i];
        char left[80], right[200];
        if (!*o->name)
            heading = o->help;
        if (!option_known(o, command))
            continue;
        if (heading)
            fprintf(f, "\n%s\n", heading);
        heading = NULL;
        bool standard = o->standard && *o->standard && o->kind != OPT_FLAG;
        snprintf(left, sizeof left, "--%s %s", o->name, o->kind == OPT_FLAG ? "" : o->choices);
        /* a long left side gets a line of its own */
        snprintf(right, sizeof right, standard ? "%s [%s]" : "%s", o->help, o->standard);
        fprintf(f, strlen(left) > LEFT ? "  %s\n%*s" : "  %-28s%.*s", left,
                strlen(left) > LEFT ? LEFT + 4 : 0, "");
        put_wrapped(f, right, LEFT + 4, LEFT + 4, 80);
    }
}

#endif
