/* lora.h: low-rank adapters (LoRA, Hu et al. 2021), in the files of Hugging Face's PEFT.
 *
 *     W = W0 + s B A      W, W0: [out, in], A: [r, in], B: [out, r], s = alpha / r
 *
 * W0 is frozen; A and B are trained, a few numbers in place of many. B begins at zero, so that
 * training begins at W0. The weights in memory are W, built anew after each update: sampler, passes
 * and features know nothing of adapters. W0 is read again from its file each time, by blocks.
 *
 *   adapter_config.json          alpha, and what the adapter is made of; the base model's directory
 *   adapter_model.safetensors    A and B of each adapted weight */
#ifndef LORA_H
#define LORA_H

#include "files.h" /* defines: model_read, model_dir; tensors.h: Model, Tensor */

/* The weights of a layer that may have an adapter; the names by which PEFT knows them. */
enum { LINEARS = 7 };
static const int LINEAR_TENSORS[LINEARS] = {
    Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ};
static const char *const LINEAR_NAMES[LINEARS] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

/* An adapter. `ab` is the table of A and B, two tensors for each linear weight of each layer (rows
 * 0: it has no adapter), and their flat arrays: parameters, gradients, moments. */
struct Lora {
    Model ab;
    double alpha;
    int most_rank;
    bool rslora;  /* s = alpha / sqrt(r) */
    float *start; /* A and B at step 0, which make the reference */
    SafeTensors base;
    const StTensor **source; /* [tensors of the model] W0 of each adapted weight */
    Path base_dir;
    uint64_t base_hash; /* weights_hash of the base */
};

/* What is trained of a model: its adapter, or all of it. */
static Model *trained(const Model *m) { return m->lora ? &m->lora->ab : (Model *)m; }

/* The tensors of an adapted weight: its number in the model's table, and those of A and B. */
typedef struct {
    int weight, A, B;
} Adapted;

static Adapted adapted(int layer, int linear)
{
    int first = 2 * (layer * LINEARS + linear);
    return (Adapted){layer_tensor(layer, LINEAR_TENSORS[linear]), first, first + 1};
}

/* The rank of a weight's adapter; 0: it has none. */
static int lora_rank(const Lora *l, int layer, int linear)
{
    return l->ab.tensors[adapted(layer, linear).A].rows;
}

/* s of a weight whose adapter has rank r. */
static float lora_scale(const Lora *l, int r)
{
    return (float)(l->alpha / (l->rslora ? sqrt(r) : r));
}

/* The name of A or B of a weight, as PEFT writes it. */
static Path lora_name(const Tensor *weight, char which)
{
    int stem = (int)strlen(weight->name) - (int)strlen(".weight");
    return path_printf("base_model.model.%.*s.lora_%c.weight", stem, weight->name, which);
}

/* An empty adapter of a model: A and B zero. rank: [layers][LINEARS] */
static Lora *lora_new(const Model *m, const int *rank, double alpha)
{
    int n = m->config.num_hidden_layers * LINEARS;
    Lora *l = xcalloc(1, sizeof *l);
    l->alpha = alpha;
    l->ab.config = m->config;
    l->ab.config.tie_word_embeddings = false; /* no tensor of an adapter is used twice */
    l->ab.tensors = xcalloc((size_t)n * 2, sizeof(Tensor));
    for (int i = 0; i < n; i++) {
        const Tensor *w = &m->tensors[adapted(i / LINEARS, i % LINEARS).weight];
        l->most_rank = imax(l->most_rank, rank[i]);
        add_tensor(&l->ab, lora_name(w, 'A').s, rank[i], w->cols);
        add_tensor(&l->ab, lora_name(w, 'B').s, rank[i] ? w->rows : 0, rank[i]);
    }
    l->ab.n_grads = l->ab.n_params;
    l->ab.params = floats_new(l->ab.n_params);
    return l;
}

static void lora_free(Lora *l)
{
    if (!l)
        return;
    model_free(&l->ab);
    st_close(&l->base);
    free(l->source);
    free(l->start);
    free(l);
}

/* A uniform in +-1 / sqrt(in), as PEFT begins it; B is zero. */
static void lora_init(Lora *l, uint64_t seed)
{
    for (int t = 0; t < l->ab.n_tensors; t += 2) {
        const Tensor *A = &l->ab.tensors[t];
        float *w = at(&l->ab, l->ab.params, t);
        double most = 1 / sqrt(A->cols);
        for (size_t i = 0; i < A->size; i++)
            w[i] = (float)(most * (2 * uniform(philox(seed, STREAM_ADAPTER, (uint32_t)t,
                                                      (uint32_t)i, 0, 0)) - 1));
    }
}

/* ================================================================ W = W0 + s B A */

/* w += s B A for one weight, where w holds W0: each element is one chain, W0 and then s B_ij A_jk
 * for j = 0 .. r - 1. A zero of B adds nothing, so that where B is zero W has the bits of W0. */
static void add_adapter(const Lora *l, Adapted x, const float *ab, float *w)
{
    const Tensor *A = &l->ab.tensors[x.A], *B = &l->ab.tensors[x.B];
    float s = lora_scale(l, A->rows);
    for (int i = 0; i < B->rows; i++)
        for (int j = 0; j < A->rows; j++) {
            float c = s * ab[B->offset + (size_t)i * (size_t)B->cols + (size_t)j];
            if (c != 0)
                row_axpy(w + (ptrdiff_t)i * A->cols, c, row(ab + A->offset, j, A->cols), A->cols);
        }
}

/* Rebuilds the model's weights from W0 and the A and B of `ab`, a flat array. */
static void lora_merge(Model *m, const float *ab, int threads)
{
    const Lora *l = m->lora;
    int n = m->config.num_hidden_layers * LINEARS;
    PARALLEL_FOR_DYNAMIC (threads)
    for (int i = 0; i < n; i++) {
        Adapted x = adapted(i / LINEARS, i % LINEARS);
        if (!l->source[x.weight])
            continue;
        load_tensor(l->source[x.weight], at(m, m->params, x.weight), false);
        add_adapter(l, x, ab, at(m, m->params, x.weight));
    }
    model_updated(m, threads);
}

/* To be called when what is trained has changed: W follows its A and B, the packed copies W. */
static void trained_updated(Model *m, int threads)
{
    if (m->lora)
        lora_merge(m, m->lora->ab.params, threads);
    else
        model_updated(m, threads);
}

/* ================================================================ files */

/* What is read of adapter_config.json. */
typedef struct {
    double alpha;
    bool rslora;
    Buf base; /* base_model_name_or_path */
} LoraConfig;

/* Members that change what the file's tensors mean, by their name. Each must be null, false, empty,
 * or "none". */
static const char REFUSED[] =
    "use_dora|bias|lora_bias|modules_to_save|fan_in_fan_out|layer_replication|alpha_pattern|"
    "trainable_token_indices|target_parameters|use_qalora|use_bdlora|kasa_config|"
    "monteclora_config|alora_invocation_tokens";

/* Initialisations that change the base model's weights. */
static bool changes_base(const char *init)
{
    return !strncmp(init, "pissa", 5) || among(init, "olora|corda|loftq|lora_ga");
}

/* One member of adapter_config.json. */
static void lora_config_key(Json *j, const char *key, const char *path, LoraConfig *c)
{
    static const char nothing[] = "null|false|{}|[]|\"none\"";
    Buf text = {0};
    char kind = json_peek(j);
    const char *value = j->p;
    if (!strcmp(key, "lora_alpha"))
        json_number(j, &c->alpha);
    else if (!strcmp(key, "use_rslora") && kind != 'n')
        json_bool(j, &c->rslora);
    else if (!strcmp(key, "base_model_name_or_path") && kind == '"')
        json_string(j, &c->base);
    else if (among(key, "peft_type|init_lora_weights") && kind == '"')
        json_string(j, &text);
    else
        json_skip(j);
    if (text.n && *key == 'p' && strcmp(text.s, "LORA"))
        die("%s: peft_type is '%.40s'; expected LORA", path, text.s);
    if (text.n && *key == 'i' && changes_base(text.s))
        die("%s: init_lora_weights '%.40s' changes the base model's weights; expected an adapter "
            "of weights as they were published", path, text.s);
    text.n = 0;
    for (const char *p = value; p < j->p; p++) /* without spaces: [ ] is empty, too */
        if (!strchr(" \t\r\n", *p))
            buf_add(&text, p, 1);
    if (!j->error && among(key, REFUSED) && !among(text.s, nothing))
        die("%s: %s is %.40s, which is not supported; expected an adapter without", path, key,
            text.s);
    buf_free(&text);
}

static LoraConfig lora_config(const char *dir)
{
    Path path = path_join(dir, "adapter_config.json");
    LoraConfig c = {.alpha = 8}; /* PEFT's own default */
    size_t n;
    Buf key = {0};
    if (!is_file(path.s))
        die("%s: is not there; expected the directory of an adapter, as PEFT writes it", path.s);
    char *text = read_text_file(path.s, &n);
    Json j = json_open(text, n);
    for (json_object(&j); json_key(&j, &key);)
        lora_config_key(&j, key.s, path.s, &c);
    if (!json_end(&j))
        die("%s: line %d: %s", path.s, json_line(&j), j.error);
    if (!(c.alpha > 0 && c.alpha < 1e9))
        die("%s: lora_alpha is %g; expected a number above 0", path.s, c.alpha);
    free(text);
    buf_free(&key);
    return c;
}

/* The rank of a weight's adapter in a file; 0 where it has none. */
static int rank_in_file(const SafeTensors *st, const Tensor *w)
{
    Path name[2] = {lora_name(w, 'A'), lora_name(w, 'B')};
    const StTensor *A = st_find(st, name[0].s), *B = st_find(st, name[1].s);
    if (!A != !B)
        die("%s: has tensor %s alone; expected %s too", st->path, name[!A].s, name[!B].s);
    if (A && (A->rank != 2 || A->shape[0] < 1 || A->shape[0] > 65536))
        die("%s: tensor %s has shape %s; expected [r, %d]", st->path, name[0].s,
            st_shape_text(A->rank, A->shape).s, w->cols);
    return A ? (int)A->shape[0] : 0;
}

/* Dies at a tensor of the file that the adapter has no place for: it would be left out. */
static void demand_all_known(const SafeTensors *st, const Lora *l)
{
    for (int i = 0; i < st->n; i++) {
        bool known = false;
        for (int t = 0; t < l->ab.n_tensors && !known; t++)
            known = l->ab.tensors[t].size && !strcmp(l->ab.tensors[t].name, st->tensors[i].name);
        if (!known)
            die("%s: tensor %s belongs to no linear weight of the model; expected names such as %s",
                st->path, st_label(st->tensors[i].name).s, l->ab.tensors[0].name);
    }
}

/* Reads A and B of a file into an adapter of these shapes. */
static void lora_read_weights(Lora *l, const SafeTensors *st)
{
    for (int t = 0; t < l->ab.n_tensors; t++) {
        const Tensor *x = &l->ab.tensors[t];
        int64_t shape[2] = {x->rows, x->cols};
        if (x->size)
            load_tensor(st_need(st, x->name, 2, shape), at(&l->ab, l->ab.params, t), false);
    }
}

/* The adapter in `dir`, for a model that holds its base. */
static Lora *lora_read(const Model *m, const char *dir)
{
    LoraConfig c = lora_config(dir);
    SafeTensors st = st_open_file(path_join(dir, "adapter_model.safetensors").s);
    int n = m->config.num_hidden_layers * LINEARS, *rank = xcalloc((size_t)n, sizeof *rank);
    for (int i = 0; i < n; i++)
        rank[i] = rank_in_file(&st, &m->tensors[adapted(i / LINEARS, i % LINEARS).weight]);
    Lora *l = lora_new(m, rank, c.alpha);
    l->rslora = c.rslora;
    demand_all_known(&st, l);
    if (!l->ab.n_params)
        die("%s: holds no adapter", st.path);
    lora_read_weights(l, &st);
    const char *base = st_note(&st, "base_weights_hash");
    if (base && strtoull(base, NULL, 16) != weights_hash(m))
        die("%s: is not an adapter of this model, whose weights_hash is %016llx; expected %s",
            st.path, (unsigned long long)weights_hash(m), base);
    st_close(&st);
    buf_free(&c.base);
    free(rank);
    return l;
}

/* Adds the adapter in `dir` to the weights of its base, for good. */
static void lora_apply(Model *m, const char *dir)
{
    Lora *l = lora_read(m, dir);
    for (int i = 0; i < m->config.num_hidden_layers * LINEARS; i++) {
        Adapted x = adapted(i / LINEARS, i % LINEARS);
        add_adapter(l, x, l->ab.params, at(m, m->params, x.weight));
    }
    lora_free(l);
}

/* Writes an adapter into an existing directory. */
static void lora_save(const Lora *l, const char *dir)
{
    const Model *ab = &l->ab;
    StOut *out = xcalloc((size_t)ab->n_tensors, sizeof *out);
    bool targets[LINEARS] = {false};
    int n = 0, r = 0;
    Buf b = {0}, notes = {0};
    for (int t = 0; t < ab->n_tensors; t++) {
        const Tensor *x = &ab->tensors[t];
        if (!x->size)
            continue;
        targets[t / 2 % LINEARS] = true;
        r = t % 2 ? x->cols : x->rows;
        out[n++] = (StOut){x->name, 2, {x->rows, x->cols}, at(ab, ab->params, t), ST_F32};
    }
    buf_str(&b, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n"
                "  \"base_model_name_or_path\": ");
    json_put_string(&b, l->base_dir.s, strlen(l->base_dir.s));
    buf_printf(&b, ",\n  \"revision\": null,\n  \"r\": %d,\n  \"lora_alpha\": %.17g,\n"
               "  \"lora_dropout\": 0.0,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n"
               "  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n"
               "  \"use_rslora\": false,\n  \"use_dora\": false,\n  \"modules_to_save\": null,\n"
               "  \"target_parameters\": null,\n  \"layers_to_transform\": null,\n"
               "  \"layers_pattern\": null,\n  \"rank_pattern\": {},\n  \"alpha_pattern\": {},\n"
               "  \"target_modules\": [", r, l->alpha);
    for (int i = 0, first = 1; i < LINEARS; i++)
        if (targets[i]) {
            buf_printf(&b, "%s\"%s\"", first ? "" : ", ", LINEAR_NAMES[i]);
            first = 0;
        }
    buf_str(&b, "]\n}\n");
    write_file(path_join(dir, "adapter_config.json").s, b.s, b.n);
    buf_printf(&notes, ",\"base_weights_hash\":\"%016llx\"", (unsigned long long)l->base_hash);
    st_write(path_join(dir, "adapter_model.safetensors").s, notes.s, out, n);
    buf_free(&b, &notes);
    free(out);
}

/* ================================================================ models with adapters */

/* Is this the directory of an adapter, and of no model? */
static bool is_adapter(const char *dir)
{
    return is_file(path_join(dir, "adapter_config.json").s) &&
           !is_file(path_join(dir, "config.json").s);
}

/* Where the configuration, the tokenizer and the weights lie of a model directory, a run's, or an
 * adapter's: then its base model's. */
static Path base_dir(const char *path)
{
    Path dir = model_dir(path);
    if (!is_adapter(dir.s))
        return dir;
    LoraConfig c = lora_config(dir.s);
    Path base = {""};
    if (c.base.n)
        base = model_dir(c.base.s);
    if (!c.base.n || !is_file(path_join(base.s, "config.json").s))
        die("%s/adapter_config.json: base_model_name_or_path is '%.200s', which is no model's "
            "directory here; expected --model BASE --adapter %s", dir.s, c.base.n ? c.base.s : "",
            dir.s);
    buf_free(&c.base);
    return base;
}

/* A model by its directory, a run's (its newest checkpoint), or an adapter's: then its base with
 * the adapter added. */
static Model model_load(const char *path)
{
    Path dir = model_dir(path);
    Model m = model_read(base_dir(dir.s).s);
    if (is_adapter(dir.s))
        lora_apply(&m, dir.s);
    return m;
}

/* Begins to train an adapter beside a model that was read from `dir` and holds its base. */
static void lora_attach(Model *m, Lora *l, const char *dir)
{
    int n = m->config.num_hidden_layers * LINEARS, r = 0;
    char *real = realpath(dir, NULL);
    l->base_dir = path_printf("%s", real ? real : dir);
    l->base_hash = weights_hash(m);
    l->base = st_open_dir(dir);
    l->source = xcalloc((size_t)m->n_tensors, sizeof *l->source);
    for (int i = 0; i < n; i++) {
        Adapted x = adapted(i / LINEARS, i % LINEARS);
        int rank = l->ab.tensors[x.A].rows;
        if (!rank)
            continue;
        l->source[x.weight] = st_find(&l->base, m->tensors[x.weight].name);
        if (r && rank != r)
            die("--adapter: has ranks %d and %d; expected one rank, to go on with it", r, rank);
        r = rank;
    }
    if (l->rslora) /* the same s, as every program reads it */
        l->alpha *= sqrt(r);
    l->rslora = false;
    l->start = floats_new(l->ab.n_params);
    memcpy(l->start, l->ab.params, l->ab.n_params * sizeof(float));
    m->lora = l;
    free(real);
}

#endif
