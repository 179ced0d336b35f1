/* files.h: a model's directory on disk, in the Hugging Face layout. */
#ifndef FILES_H
#define FILES_H

#include "safetensors.h" /* defines: SafeTensors, st_*; json.h's parser */
#include "tensors.h" /* defines: Model, Tensor */

static bool all_finite(const float *x, size_t n)
{
    uint32_t bits, bad = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, &x[i], 4);
        bad |= (bits & 0x7F800000) == 0x7F800000;
    }
    return !bad;
}

/* The first tensor that holds a value that is not finite in `flat`, one of the flat arrays; NULL if
 * none does. */
static const char *first_not_finite(const Model *m, const float *flat)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (!all_finite(flat + m->tensors[i].offset, m->tensors[i].size))
            return m->tensors[i].name;
    return NULL;
}

/* The step of a checkpoint by its directory's name; -1 if it is none. */
static int checkpoint_step(const char *name)
{
    char *end;
    if (strncmp(name, "checkpoint-", 11))
        return -1;
    long step = strtol(name + 11, &end, 10);
    return name[11] && !*end && step >= 0 && step <= INT_MAX ? (int)step : -1;
}

/* A model directory, or a run's: then its newest checkpoint. */
static Path model_dir(const char *path)
{
    Path p = path_join(path, "config.json"), best = path_join(path, ".");
    int newest = -1;
    if (is_file(p.s) || !is_dir(path)) {
        snprintf(p.s, sizeof p.s, "%s", path);
        return p;
    }
    DIR *dir = opendir(path);
    if (!dir)
        die("%s: cannot be opened: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        int step = checkpoint_step(entry->d_name);
        if (step > newest) {
            newest = step;
            best = path_join(path, entry->d_name);
        }
    }
    closedir(dir);
    if (newest < 0)
        snprintf(best.s, sizeof best.s, "%s", path);
    return best;
}

/* Reads one tensor by blocks, whose pages of the file are let go at once: so the peak is one model
 * in floats, whatever the file holds. With `compare` the values must be those that `w` holds. */
static void load_tensor(const StTensor *s, float *w, bool compare)
{
    enum { AT_ONCE = 1 << 20 };
    float *block = compare ? xmalloc(AT_ONCE * sizeof *block) : NULL;
    for (size_t i = 0, n, count = st_values(s); i < count; i += n) {
        n = count - i < AT_ONCE ? count - i : AT_ONCE;
        float *to = compare ? block : w + i;
        st_read_part(s, i, n, to);
        st_release(s, i, n);
        if (!all_finite(to, n))
            die("%s: tensor %s holds a value that is not finite", s->path, s->name);
        if (compare && memcmp(block, w + i, n * sizeof *block))
            die("%s: tensor %s is not the embedding, and tie_word_embeddings is true; expected "
                "equal values, or false", s->path, s->name);
    }
    free(block);
}

/* Reads config.json, whose text goes to *text for the caller to free, and
 * generation_config.json. */
static Config config_read(const char *path, char **text)
{
    Path dir = model_dir(path), file = path_join(dir.s, "config.json");
    size_t length;
    *text = read_text_file(file.s, &length);
    Config c = config_parse(file.s, *text, length);
    config_generation(&c, path_join(dir.s, "generation_config.json").s);
    return c;
}

/* Has the model a tensor of this name, or can it do without: rotary frequencies, which follow from
 * the config, or the head of a tied model, which is the embedding? */
static bool is_placed(const Model *m, const char *name)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].size && !strcmp(m->tensors[i].name, name))
            return true;
    return strstr(name, "rotary_emb.") ||
           (m->config.tie_word_embeddings && !strcmp(name, "lm_head.weight"));
}

/* A tensor's name with * in the place of numbers: equal for all layers. */
static StText name_pattern(const char *name)
{
    StText label = st_label(name), t = {{0}};
    char *to = t.s;
    for (const char *s = label.s; *s;) {
        size_t digits = s > label.s && s[-1] == '.' ? strspn(s, "0123456789") : 0;
        bool number = digits && s[digits] == '.';
        *to++ = number ? '*' : *s;
        s += number ? digits : 1;
    }
    return t;
}

/* "16 tensors: model.layers.*.self_attn.q_norm.weight (8), ..." for those of the files that have no
 * place in the model; NULL: all have one. The caller frees it. */
static char *unplaced_tensors(const Model *m, const SafeTensors *st)
{
    enum { NAMED = 8 };
    struct {
        StText name;
        int tensors;
    } *kind = NULL;
    int kinds = 0, total = 0;
    Buf b = {0};
    for (int i = 0; i < st->n; i++) {
        StText name = name_pattern(st->tensors[i].name);
        int k = 0;
        if (is_placed(m, st->tensors[i].name))
            continue;
        while (k < kinds && strcmp(kind[k].name.s, name.s))
            k++;
        if (k == kinds) {
            kind = room_for_one(kind, kinds++, sizeof *kind);
            kind[k].name = name;
            kind[k].tensors = 0;
        }
        kind[k].tensors++;
        total++;
    }
    if (total)
        buf_printf(&b, "%d tensor%s:", total, total > 1 ? "s" : "");
    for (int k = 0; k < imin(kinds, NAMED); k++)
        buf_printf(&b, kind[k].tensors > 1 ? "%s %s (%d)" : "%s %s", k ? "," : "", kind[k].name.s,
                   kind[k].tensors);
    if (kinds > NAMED)
        buf_printf(&b, ", and %d more names", kinds - NAMED);
    free(kind);
    return b.s;
}

/* Reads a model's configuration and its weights. Every tensor must be there with its exact shape,
 * in F32, BF16 or F16; others are left out, and named in `unplaced`. A tied model may store its
 * head again: then it must be the embedding. */
static Model model_read(const char *path)
{
    Path dir = model_dir(path), file = path_join(dir.s, "config.json");
    char *text;
    Config c = config_read(dir.s, &text);
    SafeTensors st = st_open_dir(dir.s);
    const StTensor *embed = st_find(&st, "model.embed_tokens.weight");
    if (embed && (embed->rank != 2 || embed->shape[0] != c.vocab_size ||
                  embed->shape[1] != c.hidden_size))
        die("%s: vocab_size %d, hidden_size %d do not fit tensor model.embed_tokens.weight "
            "of %s", file.s, c.vocab_size, c.hidden_size, embed->path);
    Model m = model_table(&c);
    m.config_text = text;
    m.path = xstrdup(dir.s);
    m.unplaced = unplaced_tensors(&m, &st);
    const StTensor **source = xcalloc(m.n_tensors, sizeof *source);
    for (int i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensors[i];
        int64_t shape[2] = {t->rows, t->cols};
        if (t->size)
            source[i] = st_need(&st, t->name, t->cols ? 2 : 1, shape);
    }
    m.params = floats_new(m.n_params); /* no more than the files hold */
    for (int i = 0; i < m.n_tensors; i++)
        if (source[i]) {
            load_tensor(source[i], at(&m, m.params, i), false);
            m.tensors[i].dtype = source[i]->dtype;
        }
    free(source);
    int64_t shape[2] = {c.vocab_size, c.hidden_size};
    if (c.tie_word_embeddings && st_find(&st, "lm_head.weight"))
        load_tensor(st_need(&st, "lm_head.weight", 2, shape), m.params, true);
    st_close(&st);
    return m;
}

/* Every tensor is written as `dtype` from now on. */
static void model_set_dtype(Model *m, int dtype)
{
    for (int i = 0; i < m->n_tensors; i++)
        m->tensors[i].dtype = dtype;
    if (m->config_text) {
        char *text = config_with_dtype(m->config_text, dtype);
        free(m->config_text);
        m->config_text = text;
    }
}

/* How many weights a file cannot hold as they are. Dies at one that it cannot hold at all. */
static size_t count_rounded(const Model *m, const char *dir)
{
    size_t rounded = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        const float *w = at(m, m->params, i);
        for (size_t k = 0; t->dtype != ST_F32 && k < t->size; k++) {
            float stored = st_round(w[k], t->dtype);
            if (isinf(stored) && !isinf(w[k]))
                die("%s: tensor %s holds %g, which %s cannot; expected --dtype f32", dir, t->name,
                    (double)w[k], st_dtypes[t->dtype].name);
            rounded += stored != w[k];
        }
    }
    return rounded;
}

/* Writes config.json and model.safetensors into an existing directory: each tensor in its dtype,
 * and the config.json that the model came with, or one of our own. A model that was read and not
 * changed is written with the same values. Returns how many weights had to be rounded. */
static size_t model_save(const Model *m, const char *dir)
{
    Path config = path_join(dir, "config.json");
    StOut *out = xcalloc(m->n_tensors, sizeof *out);
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        if (t->size)
            out[n++] = (StOut){t->name, t->cols ? 2 : 1, {t->rows, t->cols}, at(m, m->params, i),
                               t->dtype};
    }
    size_t rounded = count_rounded(m, dir);
    if (m->config_text)
        write_file(config.s, m->config_text, strlen(m->config_text));
    else
        config_write(&m->config, m->tensors[EMBED].dtype, config.s);
    st_write(path_join(dir, "model.safetensors").s, "", out, n);
    free(out);
    return rounded;
}

#endif
