/* model.c: the transformer, by hand.
 *
 *   What it is: a decoder-only language model of the Qwen3 family (RMSNorm, rotary positions,
 *   grouped-query attention with normalised queries and keys, SwiGLU), its exact gradients, the
 *   cache of keys and values that sampling uses, its optimizer, and its directory on disk in the
 *   Hugging Face layout. The same text runs Qwen2 (biases on q, k, v; no norm on q and k) and
 *   Llama (neither).
 *   What it is not: it knows nothing of rewards, groups or advantages. fp32 throughout.
 *
 *   How data flows. A Batch packs sequences end to end, without padding, into rows:
 *       tokens -> embedding rows -> layer 0 .. L-1 -> final norm of the rows that predict
 *       something (targets) -> head: log-prob, entropy and feature phi of each target.
 *   The backward pass walks the same list from its end. A sequence may name another one as its
 *   prefix: it then attends to that one's keys first, so a prompt that many responses share is
 *   computed once.
 *
 *   Order of reading: configuration, the tensor table, batches; then each layer's forward followed
 *   by its backward; then the whole model, the optimizer, and the files.
 *
 *   Every row's result depends on its own sequence alone, not on the rows beside it, the threads,
 *   or whether keys come from this batch or from a cache: see gemm.h, and `attend` below. */
#ifndef MODEL_C
#define MODEL_C

#include "lib/gemm.h"        /* defines: gemm, gemm_packed, gemm_small; simd.h's rows */
#include "lib/safetensors.h" /* defines: SafeTensors, st_*; json.h's parser */

/* ================================================================ configuration */

typedef enum { QWEN3, QWEN2, LLAMA } ModelType;
static const char *const MODEL_TYPES[] = {"qwen3", "qwen2", "llama"};
static const char *const ARCHITECTURES[] = {"Qwen3ForCausalLM", "Qwen2ForCausalLM",
                                            "LlamaForCausalLM"};

enum { MAX_EOS = 8 };

/* The fields of config.json, under their own names. */
typedef struct {
    ModelType model_type;
    int vocab_size, hidden_size, intermediate_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim, max_position_embeddings;
    double rms_norm_eps, rope_theta;
    bool tie_word_embeddings;
    int bos_token_id;                  /* -1: none */
    int eos_token_id[MAX_EOS], n_eos;  /* any of them ends a response */
} Config;

/* The whole numbers among them; the named ones have defaults. */
enum { NUM_KEY_VALUE_HEADS = 5, HEAD_DIM, MAX_POSITIONS, N_CONFIG_INTS };
static const struct {
    const char *name;
    size_t offset;
    int low, high; /* bounds that keep every product below inside its type */
} CONFIG_INTS[N_CONFIG_INTS] = {
    {"vocab_size", offsetof(Config, vocab_size), 1, 1 << 24},
    {"hidden_size", offsetof(Config, hidden_size), 1, 1 << 16},
    {"intermediate_size", offsetof(Config, intermediate_size), 1, 1 << 18},
    {"num_hidden_layers", offsetof(Config, num_hidden_layers), 1, 1024},
    {"num_attention_heads", offsetof(Config, num_attention_heads), 1, 1024},
    [NUM_KEY_VALUE_HEADS] =
        {"num_key_value_heads", offsetof(Config, num_key_value_heads), 1, 1024},
    [HEAD_DIM] = {"head_dim", offsetof(Config, head_dim), 2, 1024},
    [MAX_POSITIONS] =
        {"max_position_embeddings", offsetof(Config, max_position_embeddings), 1, 1 << 24},
};

static int *config_int(Config *c, int i) { return (int *)((char *)c + CONFIG_INTS[i].offset); }

/* What a config.json means where it is silent: the defaults of transformers' own class for each
 * model_type (5.23; 0 and -1: none). A null is another matter: see config_defaults. */
static const struct {
    int num_key_value_heads, head_dim, max_position_embeddings, bos_token_id, eos_token_id;
} CLASS_DEFAULTS[] = {
    [QWEN3] = {32, 128, 32768, -1, -1},
    [QWEN2] = {32, 0, 32768, -1, -1},
    [LLAMA] = {0, 0, 2048, 1, 2},
};

/* Fields that would change the numbers: the value each must have, or else the file is refused.
 * "or" is a second spelling of the same. */
static const struct {
    const char *name, *value, *or;
} CONFIG_DEMANDS[] = {
    {"hidden_act", "silu", "swish"},
    {"mlp_bias", "false", "null"},
    {"partial_rotary_factor", "1.0", "1"},
    {"quantization_config", "null", "null"},
    {"compression_config", "null", "null"},
    {"attn_logit_softcapping", "null", "null"},
    {"final_logit_softcapping", "null", "null"},
    {"per_layer_config", "null", "null"},
};
enum { N_CONFIG_DEMANDS = sizeof CONFIG_DEMANDS / sizeof *CONFIG_DEMANDS };

/* A config.json while it is read. Some fields mean something only beside others, which may come
 * later in the file. */
typedef struct {
    Json json;
    const char *path;
    bool seen[N_CONFIG_INTS], bos, eos;
    bool attention_bias;  /* is true; qwen2 has its biases whatever this says */
    double nested_theta;  /* of rope_parameters; it wins over rope_theta beside it; 0: none */
    bool window, layers;  /* use_sliding_window is true; layer_types is there */
    bool no_window;       /* sliding_window is null */
    int64_t first_window; /* max_window_layers: the first layer with a window */
} ConfigReader;

/* Takes a null, if one comes next. */
static bool config_null(Json *j)
{
    return json_peek(j) == 'n' && json_null(j);
}

/* Dies where `key` must have one value for the numbers to be right, and has another. */
static void config_demand(Json *j, const char *path, const char *key, const char *expected,
                          const char *or)
{
    Buf text = {0};
    if (json_peek(j) == '"')
        json_string(j, &text);
    else {
        const char *from = j->p;
        json_skip(j);
        buf_add(&text, from, (size_t)(j->p - from));
    }
    if (!j->error && strcmp(text.s, expected) && strcmp(text.s, or))
        die("%s: %s is %s; only %s is supported", path, key, st_label(text.s).s, expected);
    buf_free(&text);
}

/* "rope_scaling" and "rope_parameters": nothing but the default rotation is supported. */
static void config_rope(ConfigReader *r, const char *key)
{
    Json *j = &r->json;
    Buf name = {0}, type = {0};
    bool more = false;
    if (config_null(j))
        return;
    json_object(j);
    while (json_key(j, &name)) {
        if (!strcmp(name.s, "rope_type") || !strcmp(name.s, "type")) {
            if (json_string(j, &type) && strcmp(type.s, "default"))
                die("%s: %s is of type '%s'; only 'default' is supported", r->path, key,
                    st_label(type.s).s);
        } else if (!strcmp(name.s, "rope_theta")) {
            if (!json_number(j, &r->nested_theta) || !(r->nested_theta > 0))
                die("%s: %s: rope_theta: expected a number above 0", r->path, key);
        } else if (!strcmp(name.s, "partial_rotary_factor")) {
            config_demand(j, r->path, "partial_rotary_factor", "1.0", "1");
        } else {
            more = true;
            json_skip(j);
        }
    }
    if (!j->error && more && !type.n)
        die("%s: %s has no rope_type; only 'default' is supported", r->path, key);
    buf_free(&name);
    buf_free(&type);
}

/* eos_token_id and bos_token_id: a number, null, or a list of numbers. Returns how many. */
static int config_ids(Json *j, const char *path, const char *key, int *ids)
{
    int n = 0;
    bool list = json_peek(j) == '[';
    int64_t id = 0;
    if (config_null(j))
        return 0;
    if (list)
        json_array(j);
    while (!list || json_item(j)) {
        if (json_int(j, &id) && (id < 0 || id >= 1 << 24 || n == MAX_EOS))
            die("%s: %s: expected at most %d ids from 0 up", path, key, MAX_EOS);
        if (j->error)
            break;
        ids[n++] = (int)id;
        if (!list)
            break;
    }
    return n;
}

static void config_model_type(ConfigReader *r, Config *c)
{
    Buf type = {0};
    int t = 0;
    if (!json_string(&r->json, &type))
        return;
    while (t < 3 && strcmp(type.s, MODEL_TYPES[t]))
        t++;
    if (t == 3)
        die("%s: model_type '%s' is not supported; expected qwen3, qwen2 or llama", r->path,
            st_label(type.s).s);
    c->model_type = (ModelType)t;
    buf_free(&type);
}

/* A whole number within its bounds; null counts as given, and leaves 0. */
static void config_whole(ConfigReader *r, Config *c, int i)
{
    int64_t value;
    r->seen[i] = true;
    *config_int(c, i) = 0;
    if (config_null(&r->json))
        return;
    if (!json_int(&r->json, &value) || value < CONFIG_INTS[i].low || value > CONFIG_INTS[i].high)
        die("%s: %s: expected a whole number from %d to %d", r->path, CONFIG_INTS[i].name,
            CONFIG_INTS[i].low, CONFIG_INTS[i].high);
    *config_int(c, i) = (int)value;
}

static void config_bool(ConfigReader *r, const char *key, bool *to)
{
    if (!json_bool(&r->json, to))
        die("%s: %s: expected true or false", r->path, key);
}

/* The fields that say how far back a layer looks. Returns false if `key` is none of them. */
static bool config_window(ConfigReader *r, const char *key)
{
    Json *j = &r->json;
    if (!strcmp(key, "use_sliding_window")) {
        config_bool(r, key, &r->window);
    } else if (!strcmp(key, "sliding_window")) {
        r->no_window = json_peek(j) == 'n';
        json_skip(j);
    } else if (!strcmp(key, "max_window_layers")) {
        json_int(j, &r->first_window);
    } else if (!strcmp(key, "layer_types")) {
        r->layers = !config_null(j);
        for (bool more = r->layers && json_array(j); more && json_item(j);)
            config_demand(j, r->path, key, "full_attention", "full_attention");
    } else
        return false;
    return true;
}

/* One key of config.json. What changes the numbers and is not supported is refused by name. */
static void config_key(ConfigReader *r, Config *c, const char *key)
{
    Json *j = &r->json;
    int bos[MAX_EOS];
    for (int i = 0; i < N_CONFIG_INTS; i++)
        if (!strcmp(key, CONFIG_INTS[i].name)) {
            config_whole(r, c, i);
            return;
        }
    for (int i = 0; i < N_CONFIG_DEMANDS; i++)
        if (!strcmp(key, CONFIG_DEMANDS[i].name)) {
            config_demand(j, r->path, key, CONFIG_DEMANDS[i].value, CONFIG_DEMANDS[i].or);
            return;
        }
    if (!strcmp(key, "model_type")) {
        config_model_type(r, c);
    } else if (!strcmp(key, "rms_norm_eps") || !strcmp(key, "rope_theta")) {
        double *to = key[1] == 'm' ? &c->rms_norm_eps : &c->rope_theta;
        if (!json_number(j, to) || !(*to > 0))
            die("%s: %s: expected a number above 0", r->path, key);
    } else if (!strcmp(key, "tie_word_embeddings")) {
        config_bool(r, key, &c->tie_word_embeddings);
    } else if (!strcmp(key, "attention_bias")) {
        config_bool(r, key, &r->attention_bias);
    } else if (!strcmp(key, "rope_scaling") || !strcmp(key, "rope_parameters")) {
        config_rope(r, key);
    } else if (!strcmp(key, "eos_token_id")) {
        c->n_eos = config_ids(j, r->path, key, c->eos_token_id);
        r->eos = true;
    } else if (!strcmp(key, "bos_token_id")) {
        c->bos_token_id = config_ids(j, r->path, key, bos) > 0 ? bos[0] : -1;
        r->bos = true;
    } else if (!config_window(r, key))
        json_skip(j);
}

/* Fills in what the file left out, in transformers' way: a missing field is the class's default,
 * and null, or a default of 0, follows from the other fields. */
static void config_defaults(const ConfigReader *r, Config *c)
{
    const int missing[N_CONFIG_INTS] = {
        [NUM_KEY_VALUE_HEADS] = CLASS_DEFAULTS[c->model_type].num_key_value_heads,
        [HEAD_DIM] = CLASS_DEFAULTS[c->model_type].head_dim,
        [MAX_POSITIONS] = CLASS_DEFAULTS[c->model_type].max_position_embeddings,
    };
    for (int i = 0; i < N_CONFIG_INTS; i++) {
        if (!r->seen[i])
            *config_int(c, i) = missing[i];
        if (!*config_int(c, i) && i != NUM_KEY_VALUE_HEADS && i != HEAD_DIM)
            die("%s: %s is missing", r->path, CONFIG_INTS[i].name);
    }
    if (!c->num_key_value_heads)
        c->num_key_value_heads = c->num_attention_heads;
    if (!c->head_dim && c->hidden_size % c->num_attention_heads)
        die("%s: head_dim is missing, and hidden_size %d is no multiple of num_attention_heads %d",
            r->path, c->hidden_size, c->num_attention_heads);
    if (!c->head_dim)
        c->head_dim = c->hidden_size / c->num_attention_heads;
    if (r->nested_theta > 0)
        c->rope_theta = r->nested_theta;
    if (!r->bos)
        c->bos_token_id = CLASS_DEFAULTS[c->model_type].bos_token_id;
    if (!r->eos && CLASS_DEFAULTS[c->model_type].eos_token_id >= 0)
        c->eos_token_id[c->n_eos++] = CLASS_DEFAULTS[c->model_type].eos_token_id;
}

/* What fields say together. */
static void config_check(const ConfigReader *r, const Config *c)
{
    if (c->num_attention_heads % c->num_key_value_heads)
        die("%s: num_key_value_heads is %d%s; expected a divisor of num_attention_heads %d",
            r->path, c->num_key_value_heads,
            r->seen[NUM_KEY_VALUE_HEADS] ? "" : " where it is missing", c->num_attention_heads);
    if (c->head_dim % 2)
        die("%s: head_dim is %d; rotary positions need an even number", r->path, c->head_dim);
    if (r->attention_bias && c->model_type != QWEN2)
        die("%s: attention_bias is true; only false is supported", r->path);
    if (r->window && !r->no_window && !r->layers && r->first_window < c->num_hidden_layers)
        die("%s: use_sliding_window is true, from layer max_window_layers %lld on; only full "
            "attention is supported", r->path, (long long)r->first_window);
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_token_id[i] >= c->vocab_size)
            die("%s: eos_token_id %d is not below vocab_size %d", r->path, c->eos_token_id[i],
                c->vocab_size);
}

/* The next key of a JSON object in a file, or the end of it all. */
static bool config_next(Json *j, Buf *key, const char *path)
{
    if (json_key(j, key))
        return true;
    if (!json_end(j))
        die("%s: line %d: %s", path, json_line(j), j->error);
    buf_free(key);
    return false;
}

static Config config_parse(const char *path, const char *text, size_t n)
{
    Config c = {.model_type = QWEN3, .rms_norm_eps = 1e-6, .rope_theta = 10000.0};
    ConfigReader r = {.json = json_open(text, n), .path = path, .first_window = 28};
    Buf key = {0};
    json_object(&r.json);
    while (config_next(&r.json, &key, path))
        config_key(&r, &c, key.s);
    config_defaults(&r, &c);
    config_check(&r, &c);
    return c;
}

/* generation_config.json says at which ids a response ends, where it says so: it replaces what
 * config.json says. (Where it is there and silent, transformers never ends a response; here
 * config.json stays in force.) An id that the vocabulary does not have can end nothing. */
static void config_generation(Config *c, const char *path)
{
    size_t n;
    int ids[MAX_EOS], found = 0, good = 0;
    Buf key = {0};
    if (!is_file(path))
        return;
    char *text = read_file(path, &n);
    Json j = json_open(text, n);
    json_object(&j);
    while (config_next(&j, &key, path))
        if (!strcmp(key.s, "eos_token_id"))
            found = config_ids(&j, path, key.s, ids);
        else
            json_skip(&j);
    for (int i = 0; i < found; i++)
        if (ids[i] < c->vocab_size)
            c->eos_token_id[good++] = ids[i];
        else
            warn("%s: eos_token_id %d is not below vocab_size %d; ignored", path, ids[i],
                 c->vocab_size);
    if (good)
        c->n_eos = good;
    free(text);
}

/* The names that config.json has for what a file of weights calls ST_F32, ST_BF16 and ST_F16. */
static const char *const TORCH_DTYPES[] = {
    [ST_F32] = "float32", [ST_F16] = "float16", [ST_BF16] = "bfloat16"};

static void config_write(const Config *c, int dtype, const char *path)
{
    Buf b = {0};
    buf_printf(&b, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
               ARCHITECTURES[c->model_type], MODEL_TYPES[c->model_type]);
    for (int i = 0; i < N_CONFIG_INTS; i++)
        buf_printf(&b, "  \"%s\": %d,\n", CONFIG_INTS[i].name, *config_int((Config *)c, i));
    buf_printf(&b, "  \"rms_norm_eps\": %.9g,\n  \"rope_theta\": %.17g,\n", c->rms_norm_eps,
               c->rope_theta);
    buf_printf(&b, "  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n");
    buf_printf(&b, "  \"tie_word_embeddings\": %s,\n", c->tie_word_embeddings ? "true" : "false");
    if (c->bos_token_id >= 0)
        buf_printf(&b, "  \"bos_token_id\": %d,\n", c->bos_token_id);
    else if (CLASS_DEFAULTS[c->model_type].bos_token_id >= 0)
        buf_str(&b, "  \"bos_token_id\": null,\n");
    buf_str(&b, "  \"eos_token_id\": ");
    for (int i = 0; i < c->n_eos; i++)
        buf_printf(&b, "%s%d", i ? ", " : c->n_eos > 1 ? "[" : "", c->eos_token_id[i]);
    buf_str(&b, c->n_eos > 1 ? "],\n" : c->n_eos ? ",\n" : "null,\n");
    buf_printf(&b, "  \"torch_dtype\": \"%s\"\n}\n", TORCH_DTYPES[dtype]);
    write_file(path, b.s, b.n);
    buf_free(&b);
}

/* A config.json (one that was read already) with its dtype, or torch_dtype, as given, and the rest
 * as it is. A file without the field gets it first. The caller frees the text. */
static char *config_with_dtype(const char *text, int dtype)
{
    Json j = json_open(text, strlen(text));
    Buf out = {0}, key = {0};
    const char *copied = text;
    json_object(&j);
    const char *inside = j.p;
    while (json_key(&j, &key)) {
        json_peek(&j);
        const char *value = j.p;
        json_skip(&j);
        if (strcmp(key.s, "dtype") && strcmp(key.s, "torch_dtype"))
            continue;
        buf_add(&out, copied, (size_t)(value - copied));
        buf_printf(&out, "\"%s\"", TORCH_DTYPES[dtype]);
        copied = j.p;
    }
    if (copied == text) {
        buf_add(&out, text, (size_t)(inside - text));
        buf_printf(&out, "\n  \"torch_dtype\": \"%s\",", TORCH_DTYPES[dtype]);
        copied = inside;
    }
    buf_str(&out, copied);
    buf_free(&key);
    return out.s;
}

/* The shapes that --preset names. A task's tokenizer replaces vocab_size. */
static const struct {
    const char *name;
    Config c;
} PRESETS[] = {
    {"nano", {QWEN3, 64, 64, 192, 4, 4, 2, 16, 512, 1e-6, 10000, false, -1, {0}, 0}},
    {"tiny", {QWEN3, 64, 128, 384, 4, 4, 2, 32, 1024, 1e-6, 10000, false, -1, {0}, 0}},
    {"small", {QWEN3, 4096, 384, 1024, 6, 6, 2, 64, 2048, 1e-6, 10000, false, -1, {0}, 0}},
    {"medium", {QWEN3, 49152, 576, 1536, 30, 9, 3, 64, 2048, 1e-6, 10000, true, -1, {0}, 0}},
    {"qwen3-0.6b",
     {QWEN3, 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e-6, 1000000, true, -1, {0}, 0}},
};

static const Config *preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof PRESETS / sizeof *PRESETS; i++)
        if (!strcmp(name, PRESETS[i].name))
            return &PRESETS[i].c;
    return NULL;
}

/* ================================================================ the tensor table */

/* One table drives names, shapes, files, the optimizer, gradient checks and test labels. The
 * order within a layer makes what is multiplied together lie together: q, k, v are one matrix of
 * (heads + 2 kv heads) head_dim rows, gate and up one of 2 intermediate_size rows. */
enum {
    INPUT_NORM, Q_PROJ, K_PROJ, V_PROJ, Q_BIAS, K_BIAS, V_BIAS, Q_NORM, K_NORM, O_PROJ, POST_NORM,
    GATE_PROJ, UP_PROJ, DOWN_PROJ,
    LAYER_TENSORS
};
static const char *const LAYER_NAMES[LAYER_TENSORS] = {
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
    "self_attn.v_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.bias",
    "self_attn.v_proj.bias", "self_attn.q_norm.weight", "self_attn.k_norm.weight",
    "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight", "mlp.down_proj.weight",
};

typedef struct {
    char name[80];
    int rows, cols;   /* cols 0: a vector; rows 0: this model has no such tensor */
    size_t offset, size; /* in floats, in each of the flat arrays */
    int dtype;        /* in files: ST_F32, ST_BF16 or ST_F16 */
} Tensor;

/* Parameters, gradients and Adam's two moments are flat arrays of one layout. `packed` holds the
 * matrices once more in the panels that gemm reads for y = x W^T, and `packed_back` for dx = dy W;
 * model_pack refreshes them after an update. Without them each product packs for itself. */
typedef struct {
    Config config;
    int n_vocab; /* the head looks at tokens 0 .. n_vocab - 1: those that have a text, or all */
    char *config_text; /* the config.json it was read from, or NULL */
    Tensor *tensors;
    int n_tensors;
    size_t n_params, n_grads; /* n_grads: see model_table */
    float *params, *grads, *m, *v;
    double *partial; /* [flat_blocks] the gradient norm's partial sums */
    struct Piece *piece; /* the gradients, cut for threads: see weights_backward */
    int n_pieces;
    bool frugal; /* memory matters more than time: see model_trainable */
    float *packed, *packed_back;
    float *rope; /* [n_positions][head_dim]: half of it cosines, half sines */
    int n_positions;
} Model;

enum { EMBED = 0 };
static int layer_tensor(int layer, int kind) { return 1 + layer * LAYER_TENSORS + kind; }
static int final_norm(const Config *c) { return layer_tensor(c->num_hidden_layers, 0); }
static int lm_head(const Config *c) { return final_norm(c) + 1; }

static void add_tensor(Model *m, const char *name, int rows, int cols)
{
    Tensor *t = &m->tensors[m->n_tensors++];
    *t = (Tensor){.rows = rows, .cols = cols, .offset = m->n_params,
                  .size = (size_t)rows * (size_t)(cols ? cols : 1)};
    snprintf(t->name, sizeof t->name, "%s", name);
    m->n_params += t->size;
}

static void add_layer(Model *m, int layer)
{
    const Config *c = &m->config;
    int d = c->hidden_size, ff = c->intermediate_size, hd = c->head_dim;
    int q = c->num_attention_heads * hd, kv = c->num_key_value_heads * hd;
    bool bias = c->model_type == QWEN2, norm = c->model_type == QWEN3;
    int shape[LAYER_TENSORS][2] = {
        {d, 0}, {q, d}, {kv, d}, {kv, d}, {bias * q, 0}, {bias * kv, 0}, {bias * kv, 0},
        {norm * hd, 0}, {norm * hd, 0}, {d, q}, {d, 0}, {ff, d}, {ff, d}, {d, ff},
    };
    for (int k = 0; k < LAYER_TENSORS; k++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, LAYER_NAMES[k]);
        add_tensor(m, name, shape[k][0], shape[k][1]);
    }
}

/* The table alone, of a model of this shape. A tied head has no parameters of its own, but it has a
 * gradient of its own, kept after the others and added to the embedding's before the update: so
 * each of the two stays one chain over the rows of the whole batch, however the batch was cut. */
static Model model_table(const Config *config)
{
    Model m = {.config = *config, .n_vocab = config->vocab_size};
    const Config *c = &m.config;
    m.tensors = xcalloc((size_t)c->num_hidden_layers * LAYER_TENSORS + 3, sizeof(Tensor));
    add_tensor(&m, "model.embed_tokens.weight", c->vocab_size, c->hidden_size);
    for (int l = 0; l < c->num_hidden_layers; l++)
        add_layer(&m, l);
    add_tensor(&m, "model.norm.weight", c->hidden_size, 0);
    add_tensor(&m, "lm_head.weight", c->tie_word_embeddings ? 0 : c->vocab_size, c->hidden_size);
    m.n_grads = m.n_params + (c->tie_word_embeddings ? m.tensors[EMBED].size : 0);
    return m;
}

/* An empty model of this shape: the table, and parameters all zero. */
static Model model_new(const Config *config)
{
    Model m = model_table(config);
    m.params = floats_new(m.n_params);
    return m;
}

/* Everything that walks the flat arrays does so in blocks of this many floats: the unit that
 * threads take, and the unit of the gradient norm's partial sums. */
enum { FLAT = 4096 };
static int flat_blocks(const Model *m) { return (int)((m->n_params + FLAT - 1) / FLAT); }

static void model_free(Model *m)
{
    free(m->config_text);
    free(m->tensors);
    free(m->params);
    free(m->grads);
    free(m->m);
    free(m->v);
    free(m->partial);
    free(m->piece);
    free(m->packed);
    free(m->packed_back);
    free(m->rope);
    *m = (Model){0};
}

/* The place of a tensor in one of the flat arrays. */
static float *at(const Model *m, float *flat, int tensor)
{
    return flat + m->tensors[tensor].offset;
}

static const float *head_weight(const Model *m)
{
    return at(m, m->params, m->config.tie_word_embeddings ? EMBED : lm_head(&m->config));
}

/* A standard normal pair's first member (Box and Muller). */
static float normal(Random r)
{
    double u = ((double)r.r[0] + 1) * 0x1p-32, angle = (double)r.r[1] * 0x1p-32;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * angle));
}

/* Random weights: norms 1, biases 0, matrices normal with standard deviation 0.02, or 0.5 / sqrt of
 * their width where that is more (small models); those that write into the residual stream are
 * scaled down by sqrt(2 layers), so that its variance does not grow with depth (GPT-2). */
static void model_init(Model *m, uint64_t seed)
{
    double depth = sqrt(2.0 * m->config.num_hidden_layers);
    for (int t = 0; t < m->n_tensors; t++) {
        const Tensor *x = &m->tensors[t];
        float *w = at(m, m->params, t);
        bool residual = strstr(x->name, "o_proj") || strstr(x->name, "down_proj");
        double deviation = fmax(0.02, 0.5 / sqrt(x->cols ? x->cols : 1)) / (residual ? depth : 1);
        for (size_t i = 0; i < x->size; i++)
            if (x->cols)
                w[i] = (float)deviation *
                       normal(philox(seed, STREAM_INIT, (uint32_t)t, (uint32_t)i,
                                     (uint32_t)(i >> 32), 0));
            else
                w[i] = strstr(x->name, "bias") ? 0.0f : 1.0f;
    }
}

/* ---------------------------------------------------------------- matrices, packed or not */

/* The four products of a layer, as gemm sees them: [n, k]. */
enum { QKV, O, GATE_UP, DOWN, MATRICES };
typedef struct {
    int tensor, n, k;
    size_t packed, packed_back; /* offsets in the model's arrays of these names */
} Matrix;

/* Matrix `kind` of a layer. Layers lie one after the other, so the place of layer
 * num_hidden_layers is where the head begins. */
static Matrix matrix(const Model *m, int layer, int kind)
{
    static const int first[MATRICES] = {Q_PROJ, O_PROJ, GATE_PROJ, DOWN_PROJ};
    const Config *c = &m->config;
    int d = c->hidden_size, ff = c->intermediate_size, q = c->num_attention_heads * c->head_dim;
    int n[MATRICES] = {q + 2 * c->num_key_value_heads * c->head_dim, d, 2 * ff, d};
    int k[MATRICES] = {d, q, d, ff};
    Matrix x = {.tensor = layer_tensor(layer, first[kind]), .n = n[kind], .k = k[kind]};
    for (int i = 0; i < MATRICES; i++) {
        x.packed += packed_floats(k[i], n[i]) * (size_t)(layer + (i < kind));
        x.packed_back += packed_floats(n[i], k[i]) * (size_t)(layer + (i < kind));
    }
    return x;
}

/* The head as a matrix, of which head_weight gives the weights (`tensor` says nothing here). It is
 * worked on in tiles of TILE tokens; packed_back holds these one by one, the tile of token v0
 * packed_floats(v0, k) behind the first. */
enum { TILE = 256 };
static Matrix head_matrix(const Model *m)
{
    Matrix x = matrix(m, m->config.num_hidden_layers, 0);
    x.k = m->config.hidden_size;
    x.n = m->config.vocab_size;
    return x;
}

/* Floats of Model.packed, or of Model.packed_back. */
static size_t model_packed_floats(const Model *m, bool back)
{
    Matrix x = head_matrix(m);
    return back ? x.packed_back + packed_floats(x.n, x.k) : x.packed + packed_floats(x.k, x.n);
}

/* Brings the packed copies up to date with the parameters. Without `packed_back`, as in a model
 * that is only read, or one that saves memory, the backward pass packs for each product. */
static void model_pack(Model *m, int threads)
{
    const Config *c = &m->config;
    Matrix head = head_matrix(m);
    int matrices = c->num_hidden_layers * MATRICES, tiles = (head.n + TILE - 1) / TILE;
    if (!m->packed)
        m->packed = floats_new(model_packed_floats(m, false));
    if (m->grads && !m->frugal && !m->packed_back)
        m->packed_back = floats_new(model_packed_floats(m, true));
    PARALLEL_FOR_DYNAMIC (threads)
    for (int i = -1; i < matrices; i++) { /* the largest first */
        Matrix x = i < 0 ? head : matrix(m, i / MATRICES, i % MATRICES);
        const float *w = i < 0 ? head_weight(m) : at(m, m->params, x.tensor);
        gemm_pack(x.k, x.n, w, 1, x.k, m->packed + x.packed);
        if (m->packed_back && i >= 0)
            gemm_pack(x.n, x.k, w, x.k, 1, m->packed_back + x.packed_back);
    }
    PARALLEL_FOR (threads)
    for (int t = 0; t < (m->packed_back ? tiles : 0); t++) {
        int v0 = t * TILE;
        gemm_pack(imin(TILE, head.n - v0), head.k, head_weight(m) + (ptrdiff_t)v0 * head.k, head.k,
                  1, m->packed_back + head.packed_back + packed_floats(v0, head.k));
    }
}

/* Gives the packed copies back. */
static void model_unpack(Model *m)
{
    free(m->packed);
    free(m->packed_back);
    m->packed = m->packed_back = NULL;
}

/* Weights of the layers' matrices, and of the head's: each is one multiply-add a row. */
static double layer_weights(const Config *c)
{
    Model m = {.config = *c};
    double n = 0;
    for (int i = 0; i < MATRICES; i++)
        n += (double)matrix(&m, 0, i).n * matrix(&m, 0, i).k;
    return n * c->num_hidden_layers;
}

static double head_weights(const Config *c) { return (double)c->vocab_size * c->hidden_size; }

/* Floating-point operations of attention for one row and each key that it sees. */
static double attention_flops(const Config *c)
{
    return 4.0 * c->num_attention_heads * c->head_dim * c->num_hidden_layers;
}

/* ================================================================ batches */

/* Attention reads keys and values in blocks of KEYS positions, for one layer and kv head: k
 * transposed [head_dim][KEYS], so that a query meets KEYS keys at a time, and v [KEYS][head_dim,
 * padded to LANES]. */
enum { KEYS = 32 };
typedef struct {
    const float *k, *v;
    int n; /* keys in it */
} KvBlock;

/* Keys and values of one sequence, kept while it is being sampled: a block here holds KEYS
 * positions for all layers and kv heads, one KvBlock's memory after the other. */
typedef struct {
    float **block;
    int n_blocks;
} KvSeq;

/* Blocks are handed out one by one and handed back to a stack; those never used cost nothing. */
typedef struct {
    float **free_block;
    int n_free;
} KvPool;

/* A sequence: `rows` rows from `row` on, at absolute positions start, start + 1, ... It sees the
 * keys of its prefix (positions 0 .. prefix_length - 1), then its own. While sampling, keys and
 * values live in `kv` (the prefix's in prefix_kv); otherwise they are the rows of this batch. */
typedef struct {
    int row, rows, start;
    int prefix; /* index of the sequence in this batch that comes before this one, or -1 */
    KvSeq *kv, *prefix_kv;
    int prefix_length;
} Seq;

/* Sequences packed end to end, and what is asked of them: row target_row[i] shall predict token
 * target[i]. Sequences that share a prefix follow it directly. */
typedef struct {
    int n_rows, n_seqs, n_targets, n_roots;
    int max_rows, max_seqs, max_targets;
    int *token, *position;
    Seq *seq;
    int *root; /* indices of the sequences without a prefix; root[n_roots] = n_seqs */
    int *target_row, *target;
    KvPool *pool; /* not NULL while sampling */
} Batch;

static Batch batch_new(Arena *a, int max_rows, int max_seqs, int max_targets)
{
    Batch b = {.max_rows = max_rows, .max_seqs = max_seqs, .max_targets = max_targets};
    b.token = arena_alloc(a, (size_t)max_rows, sizeof(int));
    b.position = arena_alloc(a, (size_t)max_rows, sizeof(int));
    b.seq = arena_alloc(a, (size_t)max_seqs, sizeof(Seq));
    b.root = arena_alloc(a, (size_t)max_seqs + 1, sizeof(int));
    b.target_row = arena_alloc(a, (size_t)max_targets, sizeof(int));
    b.target = arena_alloc(a, (size_t)max_targets, sizeof(int));
    return b;
}

/* Appends a sequence at positions start ..; returns its index. */
static int batch_seq(Batch *b, const int *tokens, int n, int start, int prefix)
{
    if (b->n_seqs == b->max_seqs || n > b->max_rows - b->n_rows)
        die("internal error: a batch of %d rows is full", b->max_rows);
    Seq *s = &b->seq[b->n_seqs];
    *s = (Seq){.row = b->n_rows, .rows = n, .start = start, .prefix = prefix};
    for (int i = 0; i < n; i++) {
        b->token[b->n_rows + i] = tokens[i];
        b->position[b->n_rows + i] = start + i;
    }
    b->n_rows += n;
    if (prefix < 0)
        b->root[b->n_roots++] = b->n_seqs;
    b->root[b->n_roots] = b->n_seqs + 1;
    return b->n_seqs++;
}

static void batch_target(Batch *b, int row, int token)
{
    if (b->n_targets == b->max_targets)
        die("internal error: a batch of %d targets is full", b->max_targets);
    b->target_row[b->n_targets] = row;
    b->target[b->n_targets++] = token;
}

/* What the work runs on. Threads take whole passes, whole rollouts or whole tensors, each with an
 * arena of its own. Where there are fewer passes than threads, or memory for one only, all threads
 * help with each (Arena.threads): they split its rows, its heads, and its products' columns. */
typedef struct {
    int threads;
    Arena arena;   /* what a step holds together: its groups */
    Arena *worker; /* [threads] a pass, or a batch of rollouts */
    bool frugal;   /* one pass at a time */
} Engine;

enum { HELPERS = 16 }; /* threads that help with one pass, at most */

static Engine engine_new(int threads, size_t bytes, size_t worker_bytes)
{
    Engine e = {threads, arena_new(bytes), xcalloc((size_t)threads, sizeof(Arena)), false};
    for (int i = 0; i < threads; i++)
        e.worker[i] = arena_new(worker_bytes);
    return e;
}

/* An engine that runs one pass at a time: only the first thread's arena has room for one. */
static Engine engine_frugal(int threads, size_t bytes, size_t worker_bytes, size_t piece_bytes)
{
    Engine e = engine_new(threads, bytes, piece_bytes);
    arena_free(&e.worker[0]);
    e.worker[0] = arena_new(worker_bytes);
    e.frugal = true;
    return e;
}

static void engine_free(Engine *e)
{
    for (int i = 0; e->worker && i < e->threads; i++)
        arena_free(&e->worker[i]);
    free(e->worker);
    e->worker = NULL;
    arena_free(&e->arena);
}

/* Whether all threads help with each of n passes, one after the other. */
static bool one_by_one(const Engine *e, int n) { return e->frugal || n < e->threads; }

/* Runs work(a, i, context) for i = 0 .. n - 1. What it takes from the arena is given back. `work`
 * writes only what is number i behind its context. */
static void engine_each(Engine *e, int n, void (*work)(Arena *, int, void *), void *context)
{
    if (one_by_one(e, n)) {
        Arena *a = &e->worker[0];
        size_t mark = a->used;
        a->threads = imin(e->threads, HELPERS);
        for (int i = 0; i < n; i++, a->used = mark)
            work(a, i, context);
        a->threads = 1;
        return;
    }
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < n; i++) {
        Arena *a = &e->worker[thread_index()];
        size_t mark = a->used;
        work(a, i, context);
        a->used = mark;
    }
}

/* ================================================================ embedding */

/* x[r] = E[token[r]]    x: [rows, hidden_size] */
static void embed_forward(float *x, const float *embed, const Batch *b, int d)
{
    for (int r = 0; r < b->n_rows; r++)
        memcpy(x + (size_t)r * (size_t)d, embed + (size_t)b->token[r] * (size_t)d,
               (size_t)d * sizeof(float));
}

/* dE[token[r]] += dx[r], row after row, for the tokens first .. first + n - 1. */
static void embed_backward(float *dembed, const float *dx, const Batch *b, int d, int first, int n)
{
    for (int r = 0; r < b->n_rows; r++)
        if (b->token[r] >= first && b->token[r] < first + n)
            row_axpy(dembed + (ptrdiff_t)b->token[r] * d, 1.0f, dx + (ptrdiff_t)r * d, d);
}

/* ================================================================ RMSNorm */

/* y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps)    x, y: [n], w: [n] */
static float norm_row(float *y, const float *x, const float *w, int n, float eps)
{
    float rstd = 1.0f / sqrtf(row_dot(x, x, n) / (float)n + eps);
    FOR_ROW (i, part, n) {
        vf v = vmul(vmul(vrow_load(x + i, part), vset(rstd)), vrow_load(w + i, part));
        vrow_store(y + i, v, part);
    }
    return rstd;
}

/* With g = dy w:  dx = base + rstd (g - x rstd^2 mean(g x)).   Forward: y = x rstd w, and rstd
 * depends on every x of the row: d rstd / dx_j = -rstd^3 x_j / n. `base` is what dx has already
 * (the residual stream's own gradient), or NULL; dx may be dy or base. */
static void norm_row_backward(float *dx, const float *base, const float *dy, const float *x,
                              const float *w, float rstd, int n)
{
    Lanes s = lanes_zero();
    FOR_ROW (i, part, n) {
        vf g = vmul(vrow_load(dy + i, part), vrow_load(w + i, part));
        LANE_OF(s, i) = vfma(g, vrow_load(x + i, part), LANE_OF(s, i));
    }
    vf c = vset(-rstd * rstd * lanes_sum(s) / (float)n), r = vset(rstd);
    FOR_ROW (i, part, n) {
        vf g = vmul(vrow_load(dy + i, part), vrow_load(w + i, part));
        vf v = vfma(vrow_load(x + i, part), c, g);
        v = base ? vfma(v, r, vrow_load(base + i, part)) : vmul(v, r);
        vrow_store(dx + i, v, part);
    }
}

/* dw_j += sum_r dy[r][j] x[r][j] rstd[r], rows in order.   Forward: y[r][j] = x[r][j] rstd[r] w_j.
 * dy, x: [rows, d] */
static void norm_weights_backward(float *dw, const float *dy, const float *x, const float *rstd,
                                  int rows, int d)
{
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, d) {
            vf x_hat = vmul(vrow_load(x + (ptrdiff_t)r * d + i, part), vset(rstd[r]));
            vf g = vrow_load(dy + (ptrdiff_t)r * d + i, part);
            vrow_store(dw + i, vfma(g, x_hat, vrow_load(dw + i, part)), part);
        }
}

/* y[r] = RMSNorm(x[r]) w    x, y: [rows, d]; rstd: [rows], kept for the backward pass */
static void rmsnorm_forward(float *y, float *rstd, const float *x, const float *w, int rows, int d,
                            float eps, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        rstd[r] = norm_row(y + (ptrdiff_t)r * d, x + (ptrdiff_t)r * d, w, d, eps);
}

/* dx[r] = base[r] + the gradient through the norm; base may be NULL. */
static void rmsnorm_backward(float *dx, const float *base, const float *dy, const float *x,
                             const float *w, const float *rstd, int rows, int d, int threads)
{
    PARALLEL_FOR (threads)
    for (ptrdiff_t r = 0; r < rows; r++)
        norm_row_backward(dx + r * d, base ? base + r * d : NULL, dy + r * d, x + r * d, w, rstd[r],
                          d);
}

/* ================================================================ linear layers */

/* y = base + x W^T    x: [rows, k], W: [n, k], y and base: [rows, n]; base NULL: zero */
static void linear_forward(Arena *a, const Model *m, Matrix w, int rows, const float *x,
                           const float *base, float *y)
{
    if (m->packed)
        gemm_packed(a, rows, w.n, w.k, x, w.k, 1, m->packed + w.packed, base, y, w.n);
    else
        gemm(a, rows, w.n, w.k, x, w.k, 1, at(m, m->params, w.tensor), 1, w.k, base, y, w.n);
}

/* y[r] = bias    y: [rows, n] */
static void bias_forward(float *y, const float *bias, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        memcpy(y + (ptrdiff_t)r * n, bias, (size_t)n * sizeof(float));
}

/* Forward: y_i = sum_j W_ij x_j, so dx_j = sum_i dy_i W_ij: dx = dy W.   (dW_ij = dy_i x_j, summed
 * over rows: see matrix_backward.) */
static void linear_backward(Arena *a, const Model *m, Matrix w, int rows, const float *dy,
                            float *dx)
{
    if (m->packed_back)
        gemm_packed(a, rows, w.k, w.n, dy, w.n, 1, m->packed_back + w.packed_back, NULL, dx, w.k);
    else
        gemm_backward(a, rows, w.n, w.k, dy, at(m, m->params, w.tensor), dx);
}

/* dbias_j += sum_r dy[r][j] */
static void bias_backward(float *dbias, const float *dy, int rows, int n)
{
    for (int r = 0; r < rows; r++)
        row_axpy(dbias, 1.0f, dy + (ptrdiff_t)r * n, n);
}

/* ================================================================ heads: q/k norm and rotation */

/* Rotary positions (Su et al. 2021, in the half-split form of Llama and Qwen): the pair
 * (x_i, x_{i + hd/2}) turns by the angle position * theta^(-2i / hd). A query at p and a key at j
 * that both are turned have the product <R_p q, R_j k> = <q, R_(j - p) k>: scores depend on the
 * distance alone. The table is made in double and rounded, so that it is the same on every machine.
 * Not to be called while threads run. */
static void rope_reserve(Model *m, int positions)
{
    const Config *c = &m->config;
    int half = c->head_dim / 2;
    if (positions <= m->n_positions)
        return;
    if (positions > c->max_position_embeddings)
        die("a sequence of %d tokens is longer than max_position_embeddings %d", positions,
            c->max_position_embeddings);
    m->rope = xrealloc(m->rope, (size_t)positions * (size_t)c->head_dim * sizeof(float));
    for (int p = m->n_positions; p < positions; p++)
        for (int i = 0; i < half; i++) {
            double angle = p * pow(c->rope_theta, -2.0 * i / c->head_dim);
            m->rope[(ptrdiff_t)p * c->head_dim + i] = (float)cos(angle);
            m->rope[(ptrdiff_t)p * c->head_dim + half + i] = (float)sin(angle);
        }
    m->n_positions = positions;
}

/* (a, b) -> (a cos - b sin, b cos + a sin) over the halves of one head; `turn` is 1 forward and
 * -1 backward: the transpose of a rotation is the rotation back. */
static void rotate(float *y, const float *x, const float *rope, int hd, float turn)
{
    int half = hd / 2;
    FOR_ROW (i, part, half) {
        vf a = vrow_load(x + i, part), b = vrow_load(x + half + i, part);
        vf cosine = vrow_load(rope + i, part);
        vf sine = vmul(vset(turn), vrow_load(rope + half + i, part));
        vf u = vfma(vsub(vset(0.0f), b), sine, vmul(a, cosine));
        vrow_store(y + half + i, vfma(a, sine, vmul(b, cosine)), part);
        vrow_store(y + i, u, part);
    }
}

/* qk[r] = rotate(norm(q)), rotate(norm(k)) for every head of row r; v stays where it is.
 * qkv: [rows, (H + 2 KV) hd], qk: [rows, (H + KV) hd]; rstd: [rows, H + KV] */
static void heads_forward(const Model *m, int layer, const Batch *b, const float *qkv, float *qk,
                          float *rstd, int threads)
{
    const Config *c = &m->config;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    const float *wq = at(m, m->params, layer_tensor(layer, Q_NORM));
    const float *wk = at(m, m->params, layer_tensor(layer, K_NORM));
    PARALLEL_FOR (threads)
    for (int r = 0; r < b->n_rows; r++)
        for (int h = 0; h < H + KV; h++) {
            const float *x = qkv + (ptrdiff_t)r * (H + 2 * KV) * hd + h * hd;
            float *y = qk + (ptrdiff_t)r * (H + KV) * hd + h * hd;
            if (c->model_type == QWEN3) {
                rstd[r * (H + KV) + h] = norm_row(y, x, h < H ? wq : wk, hd,
                                                  (float)c->rms_norm_eps);
                x = y;
            }
            rotate(y, x, m->rope + (ptrdiff_t)b->position[r] * hd, hd, 1.0f);
        }
}

/* In: dqkv holds the gradients of the rotated q and k (and of v, which is done). Out: those of the
 * projections; dheads [rows, (H + KV) hd] keeps those of the norms' outputs, for their weights.
 * Forward: qk = rotate(norm(x)). */
static void heads_backward(const Model *m, int layer, const Batch *b, const float *qkv,
                           const float *rstd, float *dqkv, float *dheads, int threads)
{
    const Config *c = &m->config;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    const float *wq = at(m, m->params, layer_tensor(layer, Q_NORM));
    const float *wk = at(m, m->params, layer_tensor(layer, K_NORM));
    PARALLEL_FOR (threads)
    for (ptrdiff_t r = 0; r < b->n_rows; r++)
        for (int h = 0; h < H + KV; h++) {
            ptrdiff_t head = r * (H + KV) + h, place = r * (H + 2 * KV) * hd + h * hd;
            float *g = dqkv + place, *kept = dheads + head * hd;
            rotate(kept, g, m->rope + (ptrdiff_t)b->position[r] * hd, hd, -1.0f);
            if (c->model_type == QWEN3)
                norm_row_backward(g, NULL, kept, qkv + place, h < H ? wq : wk, rstd[head], hd);
            else
                memcpy(g, kept, (size_t)hd * sizeof(float));
        }
}

/* ================================================================ attention */

/* For one query head and one row at position p:
 *     s_j = <q, k_j> / sqrt(hd),  a_j = e^(s_j - max) / sum,  out = sum_j a_j v_j,   j = 0 .. p.
 * The whole row of scores is made (no online softmax): exact maximum, the sum over 16 lanes by
 * absolute key position, the values as one chain over the keys. So the same bits come out
 * whether the keys lie in this batch or in a cache, in one piece or behind a shared prefix, and
 * whether one row is asked for or many. The kv head h / (H / KV) serves query head h. */

enum { QUERIES = 32 }; /* rows of scores held at a time */

typedef struct {
    int H, KV, group, hd, hd_pad; /* query heads, kv heads, H / KV, head_dim, padded to LANES */
    ptrdiff_t ld_qk, ld_qkv, ld_out; /* floats from one row to the next of qk, of qkv, of att */
    float scale;                     /* 1 / sqrt(hd) */
} Heads;

static Heads heads_of(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (Heads){H, KV, H / KV, hd, round_up(hd, LANES), (H + KV) * hd, (H + 2 * KV) * hd,
                   H * hd, (float)(1.0 / sqrt((double)hd))};
}

/* One block of keys and values; a line more, so that blocks do not collide in the cache. */
static size_t kv_block_floats(const Heads *s)
{
    return (size_t)KEYS * (size_t)(s->hd + s->hd_pad) + LINE;
}

/* Puts one key and value into a block: k column `slot`, v row `slot`. */
static void kv_put(const Heads *s, float *block, int slot, const float *k, const float *v)
{
    for (int i = 0; i < s->hd; i++)
        block[i * KEYS + slot] = k[i];
    memcpy(block + KEYS * s->hd + slot * s->hd_pad, v, (size_t)s->hd * sizeof(float));
}

/* scores[i][j] = e^(s_ij - max_i) for the first visible + i * step keys of row i, 0 beyond them
 * up to `keys`; inverse[i] = 1 / sum. q row i: q + i * stride; scores: [rows, ld]. */
static void attend_softmax(const Heads *s, const float *q, ptrdiff_t stride, int rows, int visible,
                           int step, const KvBlock *blocks, int keys, float *scores, int ld,
                           float *inverse)
{
    for (int start = 0; start < keys; start += blocks->n, blocks++)
        gemm_small(rows, blocks->n, s->hd, q, stride, 1, blocks->k, KEYS, NULL, scores + start, ld);
    for (int i = 0; i < rows; i++) {
        float *row = scores + (ptrdiff_t)i * ld;
        int n = visible + i * step;
        inverse[i] = 1.0f / row_exp(row, row, n, row_max(row, n), s->scale);
        memset(row + n, 0, (size_t)(keys - n) * sizeof(float));
    }
}

/* Floats of scratch that attend needs for sequences of up to `keys` keys. */
static size_t attend_floats(const Heads *s, int keys)
{
    return (size_t)QUERIES * (size_t)(keys + 2 * KEYS + s->hd_pad + LANES);
}

/* Attention of `rows` query rows over blocks of keys: row i sees the first visible + i * step. */
static void attend(const Heads *s, const float *q, ptrdiff_t stride, int rows, int visible,
                   int step, const KvBlock *blocks, float *out, ptrdiff_t out_stride,
                   float *scratch)
{
    int ld = round_up(visible + (rows - 1) * step, KEYS) + KEYS;
    float *scores = scratch, *sum = scores + (ptrdiff_t)QUERIES * ld;
    float inverse[QUERIES];
    for (int i0 = 0; i0 < rows; i0 += QUERIES) {
        int n = imin(QUERIES, rows - i0), first = visible + i0 * step;
        int keys = first + (n - 1) * step;
        attend_softmax(s, q + i0 * stride, stride, n, first, step, blocks, keys, scores, ld,
                       inverse);
        const KvBlock *b = blocks;
        for (int start = 0; start < keys; start += b->n, b++)
            gemm_small(n, s->hd, imin(b->n, keys - start), scores + start, ld, 1, b->v, s->hd_pad,
                       start > 0 ? sum : NULL, sum, s->hd_pad);
        for (int i = 0; i < n; i++)
            row_scale(out + (i0 + i) * out_stride, sum + (ptrdiff_t)i * s->hd_pad, inverse[i],
                      s->hd);
    }
}

/* All query heads of one kv head, for one sequence: head after head, or, for a single row, the
 * heads as the rows. */
static void attend_seq(const Heads *s, const Seq *seq, int kv_head, const float *qk,
                       const KvBlock *blocks, float *att, float *scratch)
{
    int h = kv_head * s->group, visible = seq->start + 1;
    const float *q = qk + seq->row * s->ld_qk + h * s->hd;
    float *out = att + seq->row * s->ld_out + h * s->hd;
    if (seq->rows == 1) {
        attend(s, q, s->hd, s->group, visible, 0, blocks, out, s->hd, scratch);
        return;
    }
    for (int i = 0; i < s->group; i++)
        attend(s, q + i * s->hd, s->ld_qk, seq->rows, visible, 1, blocks, out + i * s->hd,
               s->ld_out, scratch);
}

/* The longest stretch of keys that a tree of sequences needs: prefix and longest follower. */
static int batch_keys(const Batch *b)
{
    int longest = 0;
    for (int i = 0; i < b->n_seqs; i++)
        longest = imax(longest, b->seq[i].start + b->seq[i].rows);
    return longest;
}

/* Packs one sequence's keys and values, from the rows of the batch, into blocks at `memory`;
 * returns how many blocks. */
static int pack_keys(const Heads *s, const Seq *seq, int kv_head, const float *qk,
                     const float *qkv, KvBlock *blocks, float *memory)
{
    const float *k = qk + seq->row * s->ld_qk + (s->H + kv_head) * s->hd;
    const float *v = qkv + seq->row * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd;
    int n = 0;
    memset(memory, 0, kv_block_floats(s) * (size_t)((seq->rows + KEYS - 1) / KEYS) * sizeof(float));
    for (int i = 0; i < seq->rows; i++) {
        float *block = memory + kv_block_floats(s) * (size_t)(i / KEYS);
        kv_put(s, block, i % KEYS, k + i * s->ld_qk, v + i * s->ld_qkv);
        if (i % KEYS == 0)
            blocks[n++] = (KvBlock){block, block + KEYS * s->hd, imin(KEYS, seq->rows - i)};
    }
    return n;
}

/* A unit of attention is a prompt with everything that follows it, for one kv head: its keys are
 * packed once. blocks and memory: room for the longest stretch of keys. */
static void attend_unit(const Heads *s, const Batch *b, int unit, const float *qk, const float *qkv,
                        KvBlock *blocks, float *memory, float *att, float *scratch)
{
    int root = unit / s->KV, kv_head = unit % s->KV, shared = 0;
    for (int i = b->root[root]; i < b->root[root + 1]; i++) {
        const Seq *seq = &b->seq[i];
        int n = pack_keys(s, seq, kv_head, qk, qkv, blocks + shared,
                          memory + kv_block_floats(s) * (size_t)shared);
        attend_seq(s, seq, kv_head, qk, blocks, att, scratch);
        if (i == b->root[root])
            shared = n;
    }
}

/* att: [rows, H hd]. A unit writes, in the rows of its own tree of sequences, the columns of its kv
 * head's query heads. */
static void attention_forward(Arena *a, const Config *c, const Batch *b, const float *qk,
                              const float *qkv, float *att)
{
    Heads s = heads_of(c);
    int keys = batch_keys(b), most = keys / KEYS + 2;
    size_t mark = a->used, threads = (size_t)a->threads;
    size_t each = attend_floats(&s, keys), room = kv_block_floats(&s) * (size_t)most;
    float *memory = arena_floats(a, room * threads), *scratch = arena_floats(a, each * threads);
    KvBlock *blocks = arena_alloc(a, (size_t)most * threads, sizeof(KvBlock));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++) {
        size_t t = a->threads > 1 ? (size_t)thread_index() : 0;
        attend_unit(&s, b, unit, qk, qkv, blocks + t * (size_t)most, memory + t * room, att,
                    scratch + t * each);
    }
    a->used = mark;
}

/* One layer's piece of a cached block, for one kv head. */
static float *kv_piece(const Heads *s, const KvSeq *kv, int block, int layer, int kv_head)
{
    return kv->block[block] + kv_block_floats(s) * (size_t)(layer * s->KV + kv_head);
}

/* The blocks that hold the first `keys` keys of a cache; returns how many. */
static int cached_blocks(const Heads *s, const KvSeq *kv, int layer, int kv_head, int keys,
                         KvBlock *out)
{
    int n = 0;
    for (; n * KEYS < keys; n++) {
        const float *piece = kv_piece(s, kv, n, layer, kv_head);
        out[n] = (KvBlock){piece, piece + KEYS * s->hd, imin(KEYS, keys - n * KEYS)};
    }
    return n;
}

/* The keys that a sequence has of its own, as blocks. */
static int own_blocks(const Heads *s, const Seq *seq, int layer, int kv_head, KvBlock *out)
{
    int own = seq->start + seq->rows - seq->prefix_length;
    return cached_blocks(s, seq->kv, layer, kv_head, own, out);
}

/* n sequences of one row each that share a prefix, for one kv head: the prefix's keys and values
 * are read once for all of them. Row g * n + i of the scores is head g of sequence i, so that both
 * "all sequences of a head" and "all heads of a sequence" are rows with one stride. Each row's
 * numbers are those that `attend` makes. */
static void attend_sharers(const Heads *s, int layer, int kv_head, const Seq *seq, int n,
                           const float *qk, KvBlock *blocks, float *att, float *scratch)
{
    int prefix = seq->prefix_length, ld = prefix, h = kv_head * s->group;
    for (int i = 0; i < n; i++)
        ld = imax(ld, round_up(seq[i].start + 1, KEYS) + KEYS);
    const float *q = qk + seq->row * s->ld_qk + h * s->hd;
    float *scores = scratch, *sum = scores + (ptrdiff_t)QUERIES * ld, inverse[QUERIES];
    int shared = cached_blocks(s, seq->prefix_kv, layer, kv_head, prefix, blocks);
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++)
            gemm_small(n, blocks[k].n, s->hd, q + g * s->hd, s->ld_qk, 1, blocks[k].k, KEYS, NULL,
                       scores + g * n * ld + k * KEYS, ld);
    for (int i = 0; i < n; i++) {
        int own = own_blocks(s, &seq[i], layer, kv_head, blocks + shared), keys = seq[i].start + 1;
        for (int k = 0; k < own; k++)
            gemm_small(s->group, blocks[shared + k].n, s->hd, q + i * s->ld_qk, s->hd, 1,
                       blocks[shared + k].k, KEYS, NULL, scores + i * ld + prefix + k * KEYS,
                       n * ld);
        for (int r = i; r < s->group * n; r += n) {
            float *row = scores + (ptrdiff_t)r * ld;
            inverse[r] = 1.0f / row_exp(row, row, keys, row_max(row, keys), s->scale);
        }
    }
    for (int g = 0; g < s->group; g++)
        for (int k = 0; k < shared; k++)
            gemm_small(n, s->hd, blocks[k].n, scores + g * n * ld + k * KEYS, ld, 1, blocks[k].v,
                       s->hd_pad, k ? sum + g * n * s->hd_pad : NULL, sum + g * n * s->hd_pad,
                       s->hd_pad);
    for (int i = 0; i < n; i++) {
        int own = own_blocks(s, &seq[i], layer, kv_head, blocks + shared);
        float *to = sum + i * s->hd_pad;
        for (int k = 0; k < own; k++)
            gemm_small(s->group, s->hd, blocks[shared + k].n, scores + i * ld + prefix + k * KEYS,
                       n * ld, 1, blocks[shared + k].v, s->hd_pad, prefix + k ? to : NULL, to,
                       n * s->hd_pad);
        for (int g = 0; g < s->group; g++)
            row_scale(att + (seq->row + i) * s->ld_out + (h + g) * s->hd,
                      to + g * n * s->hd_pad, inverse[g * n + i], s->hd);
    }
}

/* n sequences for one kv head, over keys that live in caches; their new keys go into their own
 * caches first. blocks: room for as many as the keys of one need. */
static void attend_cached(const Heads *s, int layer, int kv_head, const Seq *seq, int n,
                          const float *qk, const float *qkv, KvBlock *blocks, float *att,
                          float *scratch)
{
    for (int i = 0; i < n; i++)
        for (int r = 0; r < seq[i].rows; r++) {
            int slot = seq[i].start - seq[i].prefix_length + r;
            kv_put(s, kv_piece(s, seq[i].kv, slot / KEYS, layer, kv_head), slot % KEYS,
                   qk + (seq[i].row + r) * s->ld_qk + (s->H + kv_head) * s->hd,
                   qkv + (seq[i].row + r) * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd);
        }
    if (seq->rows == 1 && s->group <= QUERIES) {
        attend_sharers(s, layer, kv_head, seq, n, qk, blocks, att, scratch);
        return;
    }
    int shared = cached_blocks(s, seq->prefix_kv, layer, kv_head, seq->prefix_length, blocks);
    own_blocks(s, seq, layer, kv_head, blocks + shared);
    attend_seq(s, seq, kv_head, qk, blocks, att, scratch);
}

/* Cuts a batch into runs of sequences that attend_cached takes together; run u is the sequences
 * first[u] .. first[u + 1] - 1. Returns how many. */
static int cut_sharers(const Heads *s, const Batch *b, int *first)
{
    int n = 0, most = imax(1, QUERIES / s->group);
    for (int i = 0; i < b->n_seqs; i++) {
        const Seq *x = &b->seq[i];
        if (i == 0 || x->rows > 1 || x[-1].rows > 1 || i - first[n - 1] == most ||
            x->prefix_kv != x[-1].prefix_kv)
            first[n++] = i;
    }
    first[n] = b->n_seqs;
    return n;
}

/* A unit writes, in the rows of its run of sequences, the columns of its kv head's query heads; and
 * in the caches of these sequences, each of which has its own, the part of this layer and kv head.
 * What several runs share, the prefix, is read. */
static void attention_cached(Arena *a, const Config *c, int layer, const Batch *b,
                             const float *qk, const float *qkv, float *att)
{
    Heads s = heads_of(c);
    int keys = batch_keys(b), most = keys / KEYS + 3;
    size_t mark = a->used, each = attend_floats(&s, keys), threads = (size_t)a->threads;
    float *scratch = arena_floats(a, each * threads);
    KvBlock *blocks = arena_alloc(a, (size_t)most * threads, sizeof(KvBlock));
    int *first = arena_alloc(a, (size_t)b->n_seqs + 1, sizeof(int));
    int runs = cut_sharers(&s, b, first);
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < runs * s.KV; unit++) {
        int t = a->threads > 1 ? thread_index() : 0, i = first[unit / s.KV];
        attend_cached(&s, layer, unit % s.KV, &b->seq[i], first[unit / s.KV + 1] - i, qk, qkv,
                      blocks + t * most, att, scratch + each * (size_t)t);
    }
    a->used = mark;
}

/* Memory of the backward pass. `keys`, `values`: the keys and the values as KvBlocks (in `values` k
 * and v change places, since dA = dO V^T reads v as q K^T reads k); `k`: keys by rows; `dk`, `dv`:
 * gradients; all by absolute position. `p`, `dp`, `dq`: A, dA (then dS) and dQ of a few rows. */
typedef struct {
    KvBlock *keys, *values;
    float *key_memory, *value_memory, *k, *dk, *dv;
    float *p, *dp, *dq; /* [QUERIES, ld], [QUERIES, ld], [QUERIES, hd_pad] */
    int ld;
} AttentionGrad;

static AttentionGrad attention_grad(Arena *a, const Heads *s, int keys)
{
    size_t blocks = (size_t)(keys / KEYS + 2), positions = blocks * KEYS;
    AttentionGrad g = {.ld = round_up(keys, KEYS) + KEYS};
    g.keys = arena_alloc(a, blocks, sizeof(KvBlock));
    g.values = arena_alloc(a, blocks, sizeof(KvBlock));
    g.key_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.value_memory = arena_floats(a, blocks * kv_block_floats(s));
    g.k = arena_floats(a, positions * (size_t)s->hd_pad);
    g.dk = arena_floats(a, positions * (size_t)s->hd_pad);
    g.dv = arena_floats(a, positions * (size_t)s->hd_pad);
    g.p = arena_floats(a, (size_t)(QUERIES * g.ld));
    g.dp = arena_floats(a, (size_t)(QUERIES * g.ld));
    g.dq = arena_floats(a, (size_t)(QUERIES * s->hd_pad));
    return g;
}

/* The gradient of one query head over one sequence. Forward: A = softmax(Q K^T scale), O = A V.
 *     dV += A^T dO,   dA = dO V^T,   dS = A (dA - <dO, O>) scale,   dQ = dS K,   dK += dS^T Q
 * (<dO, O> = sum_j A_j dA_j: the softmax's Jacobian is diag(A) - A A^T). */
static void attend_backward(const Heads *s, const Seq *seq, int head, const float *qk,
                            const float *att, const float *datt, float *dqkv, AttentionGrad *g)
{
    float inverse[QUERIES];
    for (int i0 = 0; i0 < seq->rows; i0 += QUERIES) {
        int n = imin(QUERIES, seq->rows - i0), first = seq->start + 1 + i0, keys = first + n - 1;
        const float *q = qk + (seq->row + i0) * s->ld_qk + head * s->hd;
        const float *o = att + (seq->row + i0) * s->ld_out + head * s->hd;
        const float *d_o = datt + (seq->row + i0) * s->ld_out + head * s->hd;
        attend_softmax(s, q, s->ld_qk, n, first, 1, g->keys, keys, g->p, g->ld, inverse);
        const KvBlock *v = g->values;
        for (int start = 0; start < keys; start += v->n, v++)
            gemm_small(n, v->n, s->hd, d_o, s->ld_out, 1, v->k, KEYS, NULL, g->dp + start, g->ld);
        for (int i = 0; i < n; i++) {
            float *p = g->p + (ptrdiff_t)i * g->ld, *dp = g->dp + (ptrdiff_t)i * g->ld;
            vf dot = vset(row_dot(d_o + i * s->ld_out, o + i * s->ld_out, s->hd));
            row_scale(p, p, inverse[i], keys);
            FOR_ROW (j, part, keys) {
                vf ds = vmul(vrow_load(p + j, part), vsub(vrow_load(dp + j, part), dot));
                vrow_store(dp + j, vmul(ds, vset(s->scale)), part);
            }
        }
        gemm_small(keys, s->hd, n, g->p, 1, g->ld, d_o, s->ld_out, g->dv, g->dv, s->hd_pad);
        gemm_small(keys, s->hd, n, g->dp, 1, g->ld, q, s->ld_qk, g->dk, g->dk, s->hd_pad);
        gemm_small(n, s->hd, keys, g->dp, g->ld, 1, g->k, s->hd_pad, NULL, g->dq, s->hd_pad);
        for (int i = 0; i < n; i++)
            memcpy(dqkv + (seq->row + i0 + i) * s->ld_qkv + head * s->hd,
                   g->dq + (ptrdiff_t)i * s->hd_pad, (size_t)s->hd * sizeof(float));
    }
}

/* Brings one sequence's keys and values into the forms that attend_backward reads, and sets their
 * gradients to zero. `shared` blocks before them belong to the prefix. */
static int load_keys(const Heads *s, const Seq *seq, int kv_head, int shared, const float *qk,
                     const float *qkv, AttentionGrad *g)
{
    const float *k = qk + seq->row * s->ld_qk + (s->H + kv_head) * s->hd;
    const float *v = qkv + seq->row * s->ld_qkv + (s->H + s->KV + kv_head) * s->hd;
    size_t skip = kv_block_floats(s) * (size_t)shared, pad = (size_t)s->hd_pad;
    size_t at = (size_t)seq->start * pad, bytes = (size_t)seq->rows * pad * sizeof(float);
    int n = pack_keys(s, seq, kv_head, qk, qkv, g->keys + shared, g->key_memory + skip);
    for (int i = 0; i < n; i++) {
        float *block = g->value_memory + skip + kv_block_floats(s) * (size_t)i;
        memset(block, 0, kv_block_floats(s) * sizeof(float));
        g->values[shared + i] = (KvBlock){block, NULL, g->keys[shared + i].n};
    }
    memset(g->k + at, 0, bytes);
    memset(g->dk + at, 0, bytes);
    memset(g->dv + at, 0, bytes);
    for (int i = 0; i < seq->rows; i++) {
        kv_put(s, g->value_memory + skip + kv_block_floats(s) * (size_t)(i / KEYS), i % KEYS,
               v + i * s->ld_qkv, k + i * s->ld_qk);
        memcpy(g->k + at + (ptrdiff_t)i * s->hd_pad, k + i * s->ld_qk,
               (size_t)s->hd * sizeof(float));
    }
    return n;
}

/* dqkv's k and v parts of one sequence's rows, from the accumulated gradients. */
static void store_key_grads(const Heads *s, const Seq *seq, int kv_head, const AttentionGrad *g,
                            float *dqkv)
{
    size_t bytes = (size_t)s->hd * sizeof(float);
    for (int i = 0; i < seq->rows; i++) {
        float *to = dqkv + (seq->row + i) * s->ld_qkv + (s->H + kv_head) * s->hd;
        memcpy(to, g->dk + (ptrdiff_t)(seq->start + i) * s->hd_pad, bytes);
        memcpy(to + s->KV * s->hd, g->dv + (ptrdiff_t)(seq->start + i) * s->hd_pad, bytes);
    }
}

/* The gradient of one unit. A prompt's keys collect the gradients of all that followed it, in
 * order. */
static void unit_backward(const Heads *s, const Batch *b, int unit, const float *qk,
                          const float *qkv, const float *att, const float *datt, float *dqkv,
                          AttentionGrad *g)
{
    int first = b->root[unit / s->KV], end = b->root[unit / s->KV + 1], kv_head = unit % s->KV;
    int shared = load_keys(s, &b->seq[first], kv_head, 0, qk, qkv, g);
    for (int i = first; i < end; i++) {
        if (i > first)
            load_keys(s, &b->seq[i], kv_head, shared, qk, qkv, g);
        for (int h = kv_head * s->group; h < (kv_head + 1) * s->group; h++)
            attend_backward(s, &b->seq[i], h, qk, att, datt, dqkv, g);
        if (i > first)
            store_key_grads(s, &b->seq[i], kv_head, g, dqkv);
    }
    store_key_grads(s, &b->seq[first], kv_head, g, dqkv);
}

/* dqkv: [rows, (H + 2 KV) hd], gradients of the rotated q, k and of v. A unit writes, in the rows
 * of its own tree of sequences, the columns of its kv head and of that head's query heads. */
static void attention_backward(Arena *a, const Config *c, const Batch *b, const float *qk,
                               const float *qkv, const float *att, const float *datt, float *dqkv)
{
    Heads s = heads_of(c);
    size_t mark = a->used;
    AttentionGrad *g = arena_alloc(a, (size_t)a->threads, sizeof *g);
    for (int t = 0; t < a->threads; t++)
        g[t] = attention_grad(a, &s, batch_keys(b));
    PARALLEL_FOR (a->threads)
    for (int unit = 0; unit < b->n_roots * s.KV; unit++)
        unit_backward(&s, b, unit, qk, qkv, att, datt, dqkv,
                      &g[a->threads > 1 ? thread_index() : 0]);
    a->used = mark;
}

/* ================================================================ SwiGLU */

/* out = silu(g) u, silu(g) = g / (1 + e^-g)    gu: [rows, 2 ff] (g, then u), out: [rows, ff] */
static void swiglu_forward(float *out, const float *gu, int rows, int ff, int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, ff) {
            const float *g = gu + (ptrdiff_t)r * 2 * ff + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf silu = vdiv(x, vadd(one, vexp(vsub(vset(0.0f), x))));
            vrow_store(out + (ptrdiff_t)r * ff + i, vmul(silu, u), part);
        }
}

/* Forward: out = g s u, s = 1 / (1 + e^-g). Since s' = s (1 - s), (g s)' = s (1 + g (1 - s)):
 *     dg = dout u s (1 + g (1 - s)),    du = dout g s
 * dgu may not be gu. */
static void swiglu_backward(float *dgu, const float *dout, const float *gu, int rows, int ff,
                            int threads)
{
    PARALLEL_FOR (threads)
    for (int r = 0; r < rows; r++)
        FOR_ROW (i, part, ff) {
            const float *g = gu + (ptrdiff_t)r * 2 * ff + i;
            float *dg = dgu + (ptrdiff_t)r * 2 * ff + i;
            vf x = vrow_load(g, part), u = vrow_load(g + ff, part), one = vset(1.0f);
            vf d = vrow_load(dout + (ptrdiff_t)r * ff + i, part);
            vf s = vdiv(one, vadd(one, vexp(vsub(vset(0.0f), x))));
            vf slope = vmul(s, vfma(x, vsub(one, s), one));
            vrow_store(dg, vmul(vmul(d, u), slope), part);
            vrow_store(dg + ff, vmul(d, vmul(x, s)), part);
        }
}

/* ================================================================ the head */

/* The head turns a hidden row h into logits z = W h and these into log p_y = z_y / T - log sum_v
 * e^(z_v / T). Its gradient is where the method's feature comes from:
 *     d log p_y / d z_v = (1[v = y] - p_v) / T
 *     d log p_y / d h   = sum_v W[v] (1[v = y] - p_v) / T = (W[y] - E_{v ~ p} W[v]) / T = phi / T
 * So phi (Eq 6-7, 14) is what the backward pass of any loss by log p begins with, before anybody
 * calls it a feature. And E_{y ~ p} phi = 0, as W[y] has that very mean: by itself no direction is
 * favoured.
 *
 * The head is attention over the vocabulary: query h, keys W, and for phi values W as well. It is
 * streamed over tiles of TILE tokens with an online softmax, so that its memory does not grow with
 * the vocabulary (but see MOST_LOGITS). This is the one place where a sum over the vocabulary is
 * made: sampler, trainer and `score` all go through softmax_tile, with the same tiles, and so see
 * the same bits. */
enum { HEAD_ROWS = 128 };

/* A softmax on its way through the vocabulary. It does not change where all z change by the same:
 * with the largest taken off no e^ is above 1. */
typedef struct {
    float max, sum; /* of z / T, and of e^(z / T - max) */
    float spread;   /* sum of e^y y, y = z / T - max: the entropy is log sum - spread / sum */
} Softmax;

#define SOFTMAX_EMPTY ((Softmax){-INFINITY, 0.0f, 0.0f})

static float exp_one(float x)
{
    float t[VL];
    vstore(t, vexp(vset(x)));
    return t[0];
}

/* Takes n more logits z into the softmax at temperature T; e_i = e^(z_i / T - max). Returns the
 * factor by which sums made under the old maximum shrink. e may be z. */
static float softmax_tile(Softmax *s, const float *z, float *e, int n, float inverse_temperature)
{
    float max = row_max(z, n) * inverse_temperature, shrink = 0.0f;
    Lanes sum = lanes_zero(), spread = lanes_zero();
    max = s->max > max ? s->max : max;
    FOR_ROW (i, part, n) {
        vf x = vmul(vrow_load(z + i, part), vset(inverse_temperature));
        vf y = vsub(x, vset(max)), v = vexp(y);
        vrow_store(e + i, v, part);
        v = vrow_load(e + i, part); /* 0 beyond the row's end */
        LANE_OF(sum, i) = vadd(LANE_OF(sum, i), v);
        LANE_OF(spread, i) = vfma(v, y, LANE_OF(spread, i));
    }
    if (s->sum > 0) {
        shrink = s->max == max ? 1.0f : exp_one(s->max - max);
        s->spread = fmaf(s->sum, s->max - max, s->spread) * shrink;
    }
    s->sum = fmaf(s->sum, shrink, lanes_sum(sum));
    s->spread += lanes_sum(spread);
    s->max = max;
    return shrink;
}

static float softmax_logprob(const Softmax *s, float z, float inverse_temperature)
{
    return z * inverse_temperature - s->max - (float)log((double)s->sum);
}

static float softmax_entropy(const Softmax *s)
{
    return (float)log((double)s->sum) - s->spread / s->sum;
}

/* What the head made of each target i (a row and the token that followed it). */
typedef struct {
    float *logprob, *entropy;
    Softmax *softmax;
    float *phi;    /* [targets, hidden_size]: W[y] - E_p W[v], Eq 14; NULL unless asked for */
    float *logits; /* [tiles][targets][TILE], kept for the backward pass; NULL: made again there */
    float inverse_temperature;
    /* Beside another model, q: its hidden rows of the same targets, [targets, hidden_size]. */
    const Model *other;
    const float *other_hidden;
    Softmax *other_softmax;
    float *other_logprob, *kl; /* log q of each target; KL(p || q), exact */
} Head;

/* What a loss says of each target: its derivative by log p, by the entropy H of the whole
 * distribution, and by KL(p || q). NULL: the loss does not look at it. */
typedef struct {
    const float *logprob, *entropy, *kl;
} HeadCoef;

/* Floats of logits that a pass would keep for its backward pass, and the most that one does keep
 * (64 MiB). Beyond that they are computed twice, with the same bits. */
enum { MOST_LOGITS = 1 << 24 };
static size_t logits_floats(const Config *c, size_t targets)
{
    return targets * (size_t)((c->vocab_size + TILE - 1) / TILE * TILE);
}

/* Where the logit of token v for a target is kept. */
static float *kept_logits(const Head *head, int v, int targets, int target)
{
    return head->logits + ((ptrdiff_t)(v / TILE) * targets + target) * TILE + v % TILE;
}

/* Logits of n tokens from v0 on, for some rows: z[rows, ld] = h W[v0 .. v0 + n)^T. v0 is a multiple
 * of NR; columns beyond n, up to the next multiple of NR, may be written too. */
static void head_logits(Arena *a, const Model *m, const float *h, int rows, int v0, int n,
                        float *z, int ld)
{
    Matrix w = head_matrix(m);
    if (m->packed)
        gemm_panels(a, rows, w.n, w.k, v0 / NR, (v0 + n + NR - 1) / NR, h, w.k, 1,
                    m->packed + w.packed, NULL, z, ld);
    else
        gemm(a, rows, n, w.k, h, w.k, 1, head_weight(m) + (ptrdiff_t)v0 * w.k, 1, w.k, NULL, z, ld);
}

/* phi[rows, d] = base + e[rows, n] W[v0 .. v0 + n): one tile as values. Tokens from n_vocab on have
 * no share. */
static void head_values(Arena *a, const Model *m, float *e, int rows, int v0, const float *base,
                        float *phi)
{
    Matrix w = head_matrix(m);
    int n = imin(TILE, w.n - v0), there = imin(n, m->n_vocab - v0);
    for (int r = 0; r < rows && there < n; r++)
        memset(e + r * TILE + there, 0, (size_t)(n - there) * sizeof(float));
    if (m->packed_back)
        gemm_packed(a, rows, w.k, n, e, TILE, 1,
                    m->packed_back + w.packed_back + packed_floats(v0, w.k), base, phi, w.k);
    else
        gemm(a, rows, w.k, n, e, TILE, 1, head_weight(m) + (ptrdiff_t)v0 * w.k, w.k, 1, base, phi,
             w.k);
}

/* Eq 6-7, 14: phi = W[y] - E_{v ~ p} W[v], where phi is sum_v e_v W[v] on entry, `sum` is
 * sum_v e_v, and w is W[y].    phi, w: [d] */
static void token_feature(float *phi, const float *w, float sum, int d)
{
    vf scale = vset(-1.0f / sum);
    FOR_ROW (i, part, d)
        vrow_store(phi + i, vfma(vrow_load(phi + i, part), scale, vrow_load(w + i, part)), part);
}

/* A block of targets under the other model, on its way through the vocabulary. */
typedef struct {
    float *z;         /* [HEAD_ROWS, TILE] its logits, then what e^z makes of them */
    float *gap;       /* [HEAD_ROWS, TILE] our logits minus its */
    Softmax *softmax; /* of each row */
    float target_z[HEAD_ROWS], gap_sum[HEAD_ROWS]; /* sum of e^(z / T - max) gap, over ours */
} Beside;

/* One tile for row r: `z` are our logits, before they become e. */
static void beside_tile(Beside *b, int r, const float *z, int n, int target, float inv)
{
    float *q = b->z + r * TILE, *gap = b->gap + r * TILE;
    FOR_ROW (i, part, n)
        vrow_store(gap + i, vsub(vrow_load(z + i, part), vrow_load(q + i, part)), part);
    if (target >= 0 && target < n)
        b->target_z[r] = q[target];
    softmax_tile(&b->softmax[r], q, q, n, inv);
}

/* KL(p || q) = E_p[(z - z') / T] - log sum e^(z / T) + log sum e^(z' / T) */
static float beside_kl(const Beside *b, int r, const Softmax *s, float inv)
{
    const Softmax *q = &b->softmax[r];
    double ours = (double)s->max + log((double)s->sum), its = (double)q->max + log((double)q->sum);
    return (float)((double)b->gap_sum[r] / (double)s->sum * (double)inv - (ours - its));
}

/* The targets first .. first + rows - 1, of `targets`, through the whole vocabulary. The loop over
 * rows writes the r-th row, or number, of `e`, `phi`, `s`, `target_z` and all of `b`. */
static void head_block(Arena *a, const Model *m, const float *h, const int *target, int targets,
                       Head *out, int first, int rows)
{
    int d = m->config.hidden_size, V = m->n_vocab;
    size_t mark = a->used;
    float inv = out->inverse_temperature, *phi = out->phi ? out->phi + (ptrdiff_t)first * d : NULL;
    float *e = arena_floats(a, HEAD_ROWS * TILE), target_z[HEAD_ROWS] = {0};
    Softmax *s = out->softmax + first;
    Beside *b = out->other ? arena_alloc(a, 1, sizeof *b) : NULL;
    target += first;
    for (int r = 0; r < rows; r++)
        s[r] = SOFTMAX_EMPTY;
    if (b) {
        b->z = arena_floats(a, HEAD_ROWS * TILE);
        b->gap = arena_floats(a, HEAD_ROWS * TILE);
        b->softmax = out->other_softmax + first;
        for (int r = 0; r < rows; r++) {
            b->softmax[r] = SOFTMAX_EMPTY;
            b->gap_sum[r] = 0;
        }
    }
    for (int v0 = 0; v0 < V; v0 += TILE) {
        int n = imin(TILE, V - v0);
        float *z = out->logits ? kept_logits(out, v0, targets, first) : e;
        head_logits(a, m, h + (ptrdiff_t)first * d, rows, v0, n, z, TILE);
        if (b)
            head_logits(a, out->other, out->other_hidden + (ptrdiff_t)first * d, rows, v0, n, b->z,
                        TILE);
        PARALLEL_FOR (a->threads)
        for (int r = 0; r < rows; r++) {
            float *zr = z + r * TILE;
            if (target[r] >= v0 && target[r] < v0 + n)
                target_z[r] = zr[target[r] - v0];
            if (b)
                beside_tile(b, r, zr, n, target[r] - v0, inv);
            float shrink = softmax_tile(&s[r], zr, e + r * TILE, n, inv);
            if (b)
                b->gap_sum[r] = fmaf(b->gap_sum[r], shrink,
                                     row_dot(e + r * TILE, b->gap + r * TILE, n));
            if (phi && v0 > 0 && shrink != 1.0f)
                row_scale(phi + (ptrdiff_t)r * d, phi + (ptrdiff_t)r * d, shrink, d);
        }
        if (phi)
            head_values(a, m, e, rows, v0, v0 > 0 ? phi : NULL, phi);
    }
    for (int r = 0; r < rows; r++) {
        out->logprob[first + r] = softmax_logprob(&s[r], target_z[r], inv);
        out->entropy[first + r] = softmax_entropy(&s[r]);
        if (b) {
            out->other_logprob[first + r] = softmax_logprob(&b->softmax[r], b->target_z[r], inv);
            out->kl[first + r] = beside_kl(b, r, &s[r], inv);
        }
        if (phi)
            token_feature(phi + (ptrdiff_t)r * d, head_weight(m) + (ptrdiff_t)target[r] * d,
                          s[r].sum, d);
    }
    a->used = mark;
}

/* Log-prob and entropy of each target under softmax(W h / T), and phi where `out->phi` is given.
 * h: [targets, hidden_size]. The memory of `out` is the caller's. */
static void head_forward(Arena *a, const Model *m, const float *h, const int *target, int targets,
                         Head *out)
{
    for (int first = 0; first < targets; first += HEAD_ROWS)
        head_block(a, m, h, target, targets, out, first, imin(HEAD_ROWS, targets - first));
}

/* With c = dL / d log p, a = dL / dH and b = dL / dK of a target. Forward: z = W h,
 *     log p = z_y / T - log sum_v e^(z_v / T)     H = -sum_v p_v ln p_v     K = KL(p || q)
 * so that
 *     dz_v = (c 1[v = y] + p_v (s_v - c)) / T,    s_v = -a (ln p_v + H) + b (ln p_v - ln q_v - K)
 *     dh = W^T dz = (c phi + sum_v p_v s_v W[v]) / T,       dW = dz^T h
 * phi is there already: the features are free. Only where a or b is asked for does dh take a pass
 * over the vocabulary of its own, with the other model's logits made once more.
 *
 * p_v (s_v - c) / T for n tokens of row i, from the logits z of this model and q of the other. */
static void head_terms(const Head *head, const HeadCoef *coef, int i, float c, const float *z,
                       const float *q, int n, float *dz)
{
    const Softmax *s = &head->softmax[i], *o = coef->kl ? &head->other_softmax[i] : s;
    double inv = (double)head->inverse_temperature, log_sum = log((double)s->sum);
    double a = coef->entropy ? (double)coef->entropy[i] : 0;
    double b = coef->kl ? (double)coef->kl[i] : 0, K = coef->kl ? (double)head->kl[i] : 0;
    double between = (double)s->max + log_sum - (double)o->max - log((double)o->sum);
    vf rest = vset((float)(-(double)c - a * ((double)head->entropy[i] - log_sum) -
                           b * (between + K)));
    vf slope = vset((float)-a), gap = vset((float)(b * inv)), scale = vset((float)inv / s->sum);
    FOR_ROW (v, part, n) { /* ln p_v = y - log_sum */
        vf x = vrow_load(z + v, part), y = vsub(vmul(x, vset((float)inv)), vset(s->max));
        vf t = vfma(slope, y, rest);
        if (coef->kl)
            t = vfma(gap, vsub(x, vrow_load(q + v, part)), t);
        vrow_store(dz + v, vmul(vmul(vexp(y), scale), t), part);
    }
}

/* Adds to dh, which holds c phi / T, what the entropy and the KL divergence ask for. */
static void head_terms_backward(Arena *a, const Model *m, const float *h, int targets,
                                const Head *head, const HeadCoef *coef, float *dh)
{
    int d = m->config.hidden_size, V = m->n_vocab;
    size_t mark = a->used;
    float *dz = arena_floats(a, HEAD_ROWS * TILE), *made = arena_floats(a, HEAD_ROWS * TILE);
    float *q = arena_floats(a, HEAD_ROWS * TILE);
    for (int first = 0; first < targets; first += HEAD_ROWS)
        for (int v0 = 0; v0 < V; v0 += TILE) {
            int rows = imin(HEAD_ROWS, targets - first), n = imin(TILE, V - v0);
            ptrdiff_t at_row = (ptrdiff_t)first * d;
            const float *z = made;
            if (head->logits)
                z = kept_logits(head, v0, targets, first);
            else
                head_logits(a, m, h + at_row, rows, v0, n, made, TILE);
            if (coef->kl)
                head_logits(a, head->other, head->other_hidden + at_row, rows, v0, n, q, TILE);
            PARALLEL_FOR (a->threads)
            for (int r = 0; r < rows; r++)
                head_terms(head, coef, first + r, 0, z + r * TILE, q + r * TILE, n, dz + r * TILE);
            head_values(a, m, dz, rows, v0, dh + at_row, dh + at_row);
        }
    a->used = mark;
}

/* dh of each target, [targets, hidden_size]. */
static void head_backward(Arena *a, const Model *m, const float *h, int targets, const Head *head,
                          const HeadCoef *coef, float *dh)
{
    int d = m->config.hidden_size;
    for (ptrdiff_t i = 0; i < targets; i++)
        row_scale(dh + i * d, head->phi + i * d, coef->logprob[i] * head->inverse_temperature, d);
    if (coef->entropy || coef->kl)
        head_terms_backward(a, m, h, targets, head, coef, dh);
}

/* dW += dz^T h, with dz as above: its rows first .. first + n - 1, from the logits that were kept
 * or are made once more. `first` is where a tile begins. */
static void head_weights_backward(Arena *a, const Model *m, const float *h, const int *target,
                                  int targets, const Head *head, const HeadCoef *coef, int first,
                                  int n, float *dw)
{
    enum { COLUMNS = 128 }; /* rows of dW made at a time: a divisor of TILE */
    int d = m->config.hidden_size;
    bool terms = coef->entropy || coef->kl;
    float inv = head->inverse_temperature;
    size_t mark = a->used, block = (size_t)imin(KC, targets) * COLUMNS;
    n = imin(n, m->n_vocab - first);
    float *packed_h = arena_floats(a, packed_floats(targets, d));
    float *dz = arena_floats(a, block), *q = arena_floats(a, block);
    gemm_pack(targets, d, h, d, 1, packed_h);
    for (int v0 = first; v0 < first + n; v0 += COLUMNS)
        for (int r0 = 0; r0 < targets; r0 += KC) {
            int rows = imin(KC, targets - r0), columns = imin(COLUMNS, first + n - v0);
            ptrdiff_t ld = head->logits ? TILE : COLUMNS, at_row = (ptrdiff_t)r0 * d;
            const float *z = dz;
            if (head->logits)
                z = kept_logits(head, v0, targets, r0);
            else
                head_logits(a, m, h + at_row, rows, v0, columns, dz, COLUMNS);
            if (coef->kl)
                head_logits(a, head->other, head->other_hidden + at_row, rows, v0, columns, q,
                            COLUMNS);
            for (int r = 0; r < rows; r++) {
                const Softmax *s = &head->softmax[r0 + r];
                float c = coef->logprob[r0 + r], *out = dz + r * COLUMNS;
                int y = target[r0 + r] - v0;
                if (terms)
                    head_terms(head, coef, r0 + r, c, z + r * ld, q + r * COLUMNS, columns, out);
                else
                    row_exp_scaled(out, z + r * ld, columns, inv, s->max, -c * inv / s->sum);
                if (y >= 0 && y < columns)
                    out[y] += c * inv;
            }
            gemm_packed(a, columns, d, rows, dz, 1, COLUMNS,
                        packed_h + (size_t)r0 * (size_t)round_up(d, NR), dw + (ptrdiff_t)v0 * d,
                        dw + (ptrdiff_t)v0 * d, d);
        }
    a->used = mark;
}

/* ================================================================ the whole model */

/* What the forward pass leaves behind in one layer, a row each, for the backward pass. */
typedef struct {
    float *x;                    /* [d] the residual stream on entry */
    float *rstd1, *normed1;      /* [1], [d] */
    float *qkv, *qk, *rstd_head; /* [(H + 2 KV) hd], [(H + KV) hd], [H + KV] */
    float *att;                  /* [H hd] */
    float *x2;                   /* [d] the residual stream after attention */
    float *rstd2, *normed2;      /* [1], [d] */
    float *gate_up, *act;        /* [2 ff], [ff] */
} Layer;

/* What the backward pass leaves behind, for the gradients of the weights: dL / d of the above. */
typedef struct {
    float *out;            /* [d] of the residual stream on exit */
    float *gate_up;        /* [2 ff] */
    float *normed2, *x2;   /* [d] each */
    float *heads, *qkv;    /* [(H + KV) hd] of normed q and k, before rotation; [(H + 2 KV) hd] */
    float *normed1;        /* [d] */
} LayerGrad;

/* What a pass keeps for a backward pass: nothing; all of each layer; or each layer's input alone,
 * of which the backward pass makes the rest again, with the same bits. */
typedef enum { KEEP_NOTHING, KEEP_ALL, KEEP_INPUTS } Keep;

/* A pass over a batch. `hidden` is what the head reads: the final norm of each target's row. */
typedef struct {
    Batch batch;
    Keep keep;
    Layer *layer;    /* all layers if kept, else the memory of one, which they share */
    float *x;        /* [rows, d] after the last layer */
    float *target_x; /* [targets, d] x of each target's row */
    float *rstd, *hidden;
    Head head;
    LayerGrad *grad; /* of the backward pass */
    HeadCoef coef;
    float *dhidden, *dembed; /* [targets, d], [rows, d] */
} Pass;

/* Floats that one row takes in one Layer, and in one LayerGrad. */
static size_t layer_floats(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (size_t)(4 * c->hidden_size + 2 + (3 * H + 3 * KV) * hd + H + KV +
                    3 * c->intermediate_size);
}

static size_t layer_grad_floats(const Config *c)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    return (size_t)(4 * c->hidden_size + (2 * H + 3 * KV) * hd + 2 * c->intermediate_size);
}

static Layer layer_new(Arena *a, const Config *c, int rows)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    size_t n = (size_t)rows, d = (size_t)c->hidden_size, ff = (size_t)c->intermediate_size;
    Layer l;
    l.x = arena_floats(a, n * d);
    l.rstd1 = arena_floats(a, n);
    l.normed1 = arena_floats(a, n * d);
    l.qkv = arena_floats(a, n * (size_t)((H + 2 * KV) * hd));
    l.qk = arena_floats(a, n * (size_t)((H + KV) * hd));
    l.rstd_head = arena_floats(a, n * (size_t)(H + KV));
    l.att = arena_floats(a, n * (size_t)(H * hd));
    l.x2 = arena_floats(a, n * d);
    l.rstd2 = arena_floats(a, n);
    l.normed2 = arena_floats(a, n * d);
    l.gate_up = arena_floats(a, n * 2 * ff);
    l.act = arena_floats(a, n * ff);
    return l;
}

static LayerGrad layer_grad_new(Arena *a, const Config *c, int rows)
{
    int H = c->num_attention_heads, KV = c->num_key_value_heads, hd = c->head_dim;
    size_t n = (size_t)rows, d = (size_t)c->hidden_size;
    LayerGrad g;
    g.out = arena_floats(a, n * d);
    g.gate_up = arena_floats(a, n * 2 * (size_t)c->intermediate_size);
    g.normed2 = arena_floats(a, n * d);
    g.x2 = arena_floats(a, n * d);
    g.heads = arena_floats(a, n * (size_t)((H + KV) * hd));
    g.qkv = arena_floats(a, n * (size_t)((H + 2 * KV) * hd));
    g.normed1 = arena_floats(a, n * d);
    return g;
}

/* x_out = x2 + mlp(norm(x2)),  x2 = x + attention(norm(x)).   x_out may be l->x; with NULL only
 * what stands in `l` is made. */
static void layer_forward(Arena *a, const Model *m, int layer, const Batch *b, Layer *l,
                          float *x_out)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size;
    float eps = (float)c->rms_norm_eps;
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));
    bool biased = c->model_type == QWEN2;
    Matrix qkv = matrix(m, layer, QKV);
    rmsnorm_forward(l->normed1, l->rstd1, l->x, norm1, n, d, eps, a->threads);
    if (biased)
        bias_forward(l->qkv, at(m, m->params, layer_tensor(layer, Q_BIAS)), n, qkv.n);
    linear_forward(a, m, qkv, n, l->normed1, biased ? l->qkv : NULL, l->qkv);
    heads_forward(m, layer, b, l->qkv, l->qk, l->rstd_head, a->threads);
    if (b->pool)
        attention_cached(a, c, layer, b, l->qk, l->qkv, l->att);
    else
        attention_forward(a, c, b, l->qk, l->qkv, l->att);
    linear_forward(a, m, matrix(m, layer, O), n, l->att, l->x, l->x2);
    rmsnorm_forward(l->normed2, l->rstd2, l->x2, norm2, n, d, eps, a->threads);
    linear_forward(a, m, matrix(m, layer, GATE_UP), n, l->normed2, NULL, l->gate_up);
    swiglu_forward(l->act, l->gate_up, n, c->intermediate_size, a->threads);
    if (x_out)
        linear_forward(a, m, matrix(m, layer, DOWN), n, l->act, l->x2, x_out);
}

/* From g->out = dL / d x_out to dx = dL / d x; what the weights' gradients need stays in g.
 * Forward, twice: y = x + f(norm(x)). So the gradient of y goes past f unchanged, and what comes
 * back through f and the norm is added to it: by rmsnorm_backward. */
static void layer_backward(Arena *a, const Model *m, int layer, const Batch *b, const Layer *l,
                           LayerGrad *g, float *dx)
{
    const Config *c = &m->config;
    int n = b->n_rows, d = c->hidden_size, ff = c->intermediate_size;
    size_t mark = a->used, rows = (size_t)n;
    float *dact = arena_floats(a, rows * (size_t)ff);
    size_t width = (size_t)(c->num_attention_heads * c->head_dim);
    float *datt = arena_floats(a, rows * width + LANES); /* gemm_small reads past a short head */
    const float *norm1 = at(m, m->params, layer_tensor(layer, INPUT_NORM));
    const float *norm2 = at(m, m->params, layer_tensor(layer, POST_NORM));

    linear_backward(a, m, matrix(m, layer, DOWN), n, g->out, dact);
    swiglu_backward(g->gate_up, dact, l->gate_up, n, ff, a->threads);
    linear_backward(a, m, matrix(m, layer, GATE_UP), n, g->gate_up, g->normed2);
    rmsnorm_backward(g->x2, g->out, g->normed2, l->x2, norm2, l->rstd2, n, d, a->threads);

    linear_backward(a, m, matrix(m, layer, O), n, g->x2, datt);
    attention_backward(a, c, b, l->qk, l->qkv, l->att, datt, g->qkv);
    heads_backward(m, layer, b, l->qkv, l->rstd_head, g->qkv, g->heads, a->threads);
    linear_backward(a, m, matrix(m, layer, QKV), n, g->qkv, g->normed1);
    rmsnorm_backward(dx, g->x2, g->normed1, l->x, norm1, l->rstd1, n, d, a->threads);
    a->used = mark;
}

/* Runs the layers and norms the rows that have targets. What is kept stays in the arena. */
static Pass forward(Arena *a, const Model *m, const Batch *b, Keep keep)
{
    const Config *c = &m->config;
    int L = c->num_hidden_layers, d = c->hidden_size, n = b->n_rows;
    size_t width = (size_t)d * sizeof(float), targets = (size_t)b->n_targets;
    Pass p = {.batch = *b, .keep = keep, .layer = arena_alloc(a, (size_t)L, sizeof(Layer))};
    for (int l = 0; l < L; l++) {
        p.layer[l] = keep == KEEP_ALL || l == 0 ? layer_new(a, c, n) : p.layer[0];
        if (keep == KEEP_INPUTS && l > 0)
            p.layer[l].x = arena_floats(a, (size_t)n * (size_t)d);
    }
    p.x = keep ? arena_floats(a, (size_t)n * (size_t)d) : p.layer[0].x;
    p.target_x = arena_floats(a, targets * (size_t)d);
    p.rstd = arena_floats(a, targets);
    p.hidden = arena_floats(a, targets * (size_t)d);
    embed_forward(p.layer[0].x, at(m, m->params, EMBED), b, d);
    for (int l = 0; l < L; l++)
        layer_forward(a, m, l, b, &p.layer[l], l + 1 < L ? p.layer[l + 1].x : p.x);
    for (int i = 0; i < b->n_targets; i++)
        memcpy(p.target_x + (ptrdiff_t)i * d, p.x + (ptrdiff_t)b->target_row[i] * d, width);
    rmsnorm_forward(p.hidden, p.rstd, p.target_x, at(m, m->params, final_norm(c)), b->n_targets, d,
                    (float)c->rms_norm_eps, a->threads);
    return p;
}

/* Log-prob, entropy and, if `features`, phi of every target at this temperature; and, where `other`
 * is given with its hidden rows, its log-probs and the KL divergence from it. */
static void forward_head_beside(Arena *a, const Model *m, Pass *p, float temperature,
                                bool features, const Model *other, const float *other_hidden)
{
    size_t n = (size_t)p->batch.n_targets, d = (size_t)m->config.hidden_size;
    size_t logits = logits_floats(&m->config, n);
    p->head = (Head){.logprob = arena_floats(a, n), .entropy = arena_floats(a, n),
                     .softmax = arena_alloc(a, n, sizeof(Softmax)),
                     .phi = features ? arena_floats(a, n * d) : NULL,
                     .logits = p->keep && logits <= MOST_LOGITS ? arena_floats(a, logits) : NULL,
                     .inverse_temperature = 1.0f / temperature,
                     .other = other, .other_hidden = other_hidden};
    if (other) {
        p->head.other_softmax = arena_alloc(a, n, sizeof(Softmax));
        p->head.other_logprob = arena_floats(a, n);
        p->head.kl = arena_floats(a, n);
    }
    head_forward(a, m, p->hidden, p->batch.target, p->batch.n_targets, &p->head);
}

static void forward_head(Arena *a, const Model *m, Pass *p, float temperature, bool features)
{
    forward_head_beside(a, m, p, temperature, features, NULL, NULL);
}

/* Room for the gradients of the rows, and from the loss by each target (p->coef) to the gradient of
 * the last layer's output. Layers that are to be made again share the memory of one, but for `out`,
 * of which there are two, by turns: a layer reads its own and writes that of the one below. */
static void backward_start(Arena *a, const Model *m, Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    int d = c->hidden_size, L = c->num_hidden_layers;
    size_t targets = (size_t)b->n_targets, rows = (size_t)b->n_rows;
    p->dhidden = arena_floats(a, targets * (size_t)d);
    p->dembed = arena_floats(a, rows * (size_t)d);
    p->grad = arena_alloc(a, (size_t)L, sizeof(LayerGrad));
    for (int l = 0; l < L; l++) {
        p->grad[l] = p->keep == KEEP_ALL || l == 0 ? layer_grad_new(a, c, b->n_rows) : p->grad[0];
        if (p->keep == KEEP_INPUTS && l > 0)
            p->grad[l].out = l == 1 ? arena_floats(a, rows * (size_t)d) : p->grad[l - 2].out;
    }
    size_t mark = a->used;
    float *dtarget = arena_floats(a, targets * (size_t)d), *dx = p->grad[L - 1].out;
    head_backward(a, m, p->hidden, b->n_targets, &p->head, &p->coef, p->dhidden);
    rmsnorm_backward(dtarget, NULL, p->dhidden, p->target_x, at(m, m->params, final_norm(c)),
                     p->rstd, b->n_targets, d, a->threads);
    memset(dx, 0, rows * (size_t)d * sizeof(float));
    for (int i = 0; i < b->n_targets; i++) /* several targets may share a row: in order */
        row_axpy(dx + (ptrdiff_t)b->target_row[i] * d, 1.0f, dtarget + (ptrdiff_t)i * d, d);
    a->used = mark;
}

/* One layer of the backward pass. */
static void backward_layer(Arena *a, const Model *m, Pass *p, int layer)
{
    layer_backward(a, m, layer, &p->batch, &p->layer[layer], &p->grad[layer],
                   layer ? p->grad[layer - 1].out : p->dembed);
}

/* The gradient of the loss by every row of every layer, of which all was kept. The gradients of the
 * weights follow in weights_backward. */
static void backward(Arena *a, const Model *m, Pass *p)
{
    backward_start(a, m, p);
    for (int l = m->config.num_hidden_layers - 1; l >= 0; l--)
        backward_layer(a, m, p, l);
}

/* ---------------------------------------------------------------- room for training */

/* A piece of the weights' gradients, the unit that threads take: rows first .. first + n - 1 of a
 * matrix, or what a layer has beside its matrices. */
enum { VECTORS = MATRICES, HEAD, EMBEDDING, FINAL_NORM };
typedef struct Piece {
    int kind, layer, first, n;
} Piece;

/* Appends the pieces of a matrix of `rows` rows; with `out` NULL, counts them. */
static int add_pieces(Piece *out, int n, int kind, int layer, int rows)
{
    enum { ROWS = 1024 };
    for (int first = 0; first < rows; first += ROWS, n++)
        if (out)
            out[n] = (Piece){kind, layer, first, imin(ROWS, rows - first)};
    return n;
}

/* All pieces, the largest first; returns how many. */
static int cut_pieces(const Model *m, Piece *out)
{
    const Config *c = &m->config;
    int n = add_pieces(out, 0, HEAD, 0, c->vocab_size);
    for (int layer = 0; layer < c->num_hidden_layers; layer++)
        for (int kind = 0; kind < MATRICES; kind++)
            n = add_pieces(out, n, kind, layer, matrix(m, layer, kind).n);
    for (int layer = 0; layer < c->num_hidden_layers; layer++)
        n = add_pieces(out, n, VECTORS, layer, 1);
    n = add_pieces(out, n, EMBEDDING, 0, c->vocab_size);
    return add_pieces(out, n, FINAL_NORM, 0, 1);
}

/* Gradients, Adam's moments, and the pieces of work. `frugal`: the weights are packed while
 * sampling only, and the backward pass makes each layer's activations a second time. */
static void model_trainable(Model *m, bool frugal)
{
    m->frugal = frugal;
    m->partial = xcalloc((size_t)flat_blocks(m), sizeof(double));
    m->grads = floats_new(m->n_grads);
    m->m = floats_new(m->n_params);
    m->v = floats_new(m->n_params);
    m->n_pieces = cut_pieces(m, NULL);
    m->piece = xcalloc((size_t)m->n_pieces, sizeof(Piece));
    cut_pieces(m, m->piece);
    if (m->packed)
        model_pack(m, 1);
}

/* ---------------------------------------------------------------- gradients of the weights */

/* q_norm's (h0 = 0) or k_norm's weights: one chain over rows and, in each row, heads. */
static void head_norm_backward(const Config *c, float *dw, const Layer *l, const LayerGrad *g,
                               int rows, int h0, int heads)
{
    int all = c->num_attention_heads + c->num_key_value_heads, hd = c->head_dim;
    ptrdiff_t ld = (all + c->num_key_value_heads) * hd;
    for (ptrdiff_t r = 0; r < rows; r++)
        norm_weights_backward(dw, g->heads + (r * all + h0) * hd, l->qkv + r * ld + h0 * hd,
                              l->rstd_head + r * all + h0, heads, hd);
}

/* dW of one of a layer's matrices, rows first .. first + n - 1. */
static void matrix_backward(Arena *a, Model *m, int layer, int kind, int first, int n,
                            const Pass *p)
{
    const Layer *l = &p->layer[layer];
    const LayerGrad *g = &p->grad[layer];
    const float *x[MATRICES] = {l->normed1, l->att, l->normed2, l->act};
    const float *dy[MATRICES] = {g->qkv, g->x2, g->gate_up, g->out};
    Matrix w = matrix(m, layer, kind);
    float *dw = at(m, m->grads, w.tensor) + (ptrdiff_t)first * w.k;
    gemm_weights(a, p->batch.n_rows, n, w.k, dy[kind] + first, w.n, x[kind], dw);
}

/* A layer's norms and biases. */
static void vectors_backward(Model *m, int layer, const Pass *p)
{
    const Config *c = &m->config;
    const Layer *l = &p->layer[layer];
    const LayerGrad *g = &p->grad[layer];
    int rows = p->batch.n_rows, d = c->hidden_size;
    int H = c->num_attention_heads, KV = c->num_key_value_heads, ld = (H + 2 * KV) * c->head_dim;
    float *dw[LAYER_TENSORS];
    for (int k = 0; k < LAYER_TENSORS; k++)
        dw[k] = at(m, m->grads, layer_tensor(layer, k));
    norm_weights_backward(dw[INPUT_NORM], g->normed1, l->x, l->rstd1, rows, d);
    norm_weights_backward(dw[POST_NORM], g->normed2, l->x2, l->rstd2, rows, d);
    if (c->model_type == QWEN3) {
        head_norm_backward(c, dw[Q_NORM], l, g, rows, 0, H);
        head_norm_backward(c, dw[K_NORM], l, g, rows, H, KV);
    }
    if (c->model_type == QWEN2) /* q, k and v together, as they lie */
        bias_backward(dw[Q_BIAS], g->qkv, rows, ld);
}

/* Adds one piece's gradient over one pass. Each element is one chain over the rows of the batch, in
 * order; nothing here splits a sum. */
static void piece_backward(Arena *a, Model *m, const Piece *x, const Pass *p)
{
    const Config *c = &m->config;
    const Batch *b = &p->batch;
    int d = c->hidden_size, head = lm_head(c);
    if (x->kind < MATRICES)
        matrix_backward(a, m, x->layer, x->kind, x->first, x->n, p);
    else if (x->kind == VECTORS)
        vectors_backward(m, x->layer, p);
    else if (x->kind == HEAD)
        head_weights_backward(a, m, p->hidden, b->target, b->n_targets, &p->head, &p->coef,
                              x->first, x->n, at(m, m->grads, head));
    else if (x->kind == EMBEDDING)
        embed_backward(at(m, m->grads, EMBED), p->dembed, b, d, x->first, x->n);
    else
        norm_weights_backward(at(m, m->grads, final_norm(c)), p->dhidden, p->target_x, p->rstd,
                              b->n_targets, d);
}

/* Whether a piece belongs to a layer; layer ENDS: to none of them; EVERYTHING: to any. */
enum { ENDS = -1, EVERYTHING = -2 };
static bool piece_in(const Piece *x, int layer)
{
    return layer == EVERYTHING || layer == (x->kind <= VECTORS ? x->layer : ENDS);
}

/* Adds to m->grads the gradients of weights over n passes, in order. No two pieces have a weight in
 * common. The scratch memory is what the passes left free in the workers' arenas. */
static void weights_backward(Engine *e, Model *m, const Pass *p, int n, int layer)
{
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < m->n_pieces; i++)
        for (int k = 0; k < n && piece_in(&m->piece[i], layer); k++)
            piece_backward(&e->worker[thread_index()], m, &m->piece[i], &p[k]);
}

/* The backward pass where each layer's input alone was kept: layer after layer is made again (the
 * last one is still there), run backward, and its weights' gradients added at once. */
static void backward_again(Engine *e, Model *m, Pass *p)
{
    Arena *a = &e->worker[0];
    int L = m->config.num_hidden_layers, helpers = a->threads;
    backward_start(a, m, p);
    for (int l = L - 1; l >= ENDS; l--) {
        if (l >= 0 && l < L - 1)
            layer_forward(a, m, l, &p->batch, &p->layer[l], NULL);
        if (l >= 0)
            backward_layer(a, m, p, l);
        a->threads = 1; /* now threads take pieces */
        weights_backward(e, m, p, 1, l);
        a->threads = helpers;
    }
}

/* Part i of a batch, run forward: what `gradient` asks its caller for. The pass's `coef` says how
 * the loss looks at each target. */
typedef Pass Look(Arena *a, int i, Keep keep, void *context);

/* One part with the help of all threads. Returns the time at which its forward pass ended. */
static double gradient_together(Engine *e, Model *m, int part, Look *look, void *context)
{
    Arena *a = &e->worker[0];
    a->used = 0;
    a->threads = imin(e->threads, HELPERS);
    Pass p = look(a, part, e->frugal ? KEEP_INPUTS : KEEP_ALL, context);
    double forward_end = now_seconds();
    if (e->frugal) {
        backward_again(e, m, &p);
        a->threads = 1;
    } else {
        backward(a, m, &p);
        a->threads = 1;
        weights_backward(e, m, &p, 1, EVERYTHING);
    }
    return forward_end;
}

/* As many parts as there are threads, one each; then, together, the gradients of the weights. Part
 * i writes worker i's arena, p[i] and, through `look`, what is its own behind `context`. */
static double gradient_side_by_side(Engine *e, Model *m, int first, int n, Look *look,
                                    void *context, Pass *p)
{
    double forward_end = 0;
    PARALLEL_FOR_DYNAMIC (e->threads)
    for (int i = 0; i < n; i++) {
        e->worker[i].used = 0;
        p[i] = look(&e->worker[i], first + i, KEEP_ALL, context);
        if (i == 0)
            forward_end = now_seconds();
        backward(&e->worker[i], m, &p[i]);
    }
    weights_backward(e, m, p, n, EVERYTHING);
    return forward_end;
}

/* Adds to m->grads the gradient over n parts of a batch, and to seconds[0] and [1] the time that
 * going forward and backward took. Every sum over rows continues where the last one stopped, so
 * neither the cut into parts nor the threads change a bit. */
static void gradient(Engine *e, Model *m, int n, Look *look, void *context, double *seconds)
{
    bool together = one_by_one(e, n);
    int at_once = together ? 1 : e->threads;
    size_t mark = e->arena.used;
    Pass *p = arena_alloc(&e->arena, (size_t)at_once, sizeof *p);
    for (int first = 0; first < n; first += at_once) {
        double start = now_seconds(), forward_end =
            together ? gradient_together(e, m, first, look, context)
                     : gradient_side_by_side(e, m, first, imin(at_once, n - first), look, context,
                                             p);
        seconds[0] += forward_end - start;
        seconds[1] += now_seconds() - forward_end;
    }
    for (int i = 0; i < e->threads; i++)
        e->worker[i].used = 0;
    e->arena.used = mark;
}

/* Bytes of arena that one thread needs for its part of weights_backward, at most. */
static size_t pieces_bytes(const Config *c, size_t targets)
{
    size_t widest = (size_t)imax(imax(c->intermediate_size, c->hidden_size),
                                 c->num_attention_heads * c->head_dim);
    size_t floats = KC * (widest + NR) + BLOCK + 4 * LINE * (KC + widest) +
                    targets * ((size_t)c->hidden_size + NR) + KC * TILE;
    return floats * sizeof(float) + (1 << 16);
}

/* Bytes of arena that a pass over a batch of this size needs, at most; where something is kept,
 * through its backward pass and one thread's part of weights_backward. */
static size_t pass_bytes(const Model *m, size_t rows, size_t targets, int longest, Keep keep)
{
    const Config *c = &m->config;
    Heads s = heads_of(c);
    size_t d = (size_t)c->hidden_size, ff = (size_t)c->intermediate_size, keys = (size_t)longest;
    size_t widest = (size_t)imax(imax(2 * c->intermediate_size, (int)s.ld_qkv), c->hidden_size);
    size_t layers = keep == KEEP_ALL ? (size_t)c->num_hidden_layers : 1;
    size_t floats = rows * (layer_floats(c) * layers + d) + targets * (5 * d + 24);
    if (keep == KEEP_INPUTS)
        floats += rows * d * (size_t)(c->num_hidden_layers + 1);
    if (keep)
        floats += rows * (layer_grad_floats(c) * layers + 2 * d + ff + (size_t)s.ld_out) +
                  targets * 2 * d + pieces_bytes(c, targets) / sizeof(float);
    size_t logits = logits_floats(c, targets);
    if (keep) /* a batch with fewer targets may keep its logits where the largest does not */
        floats += logits < MOST_LOGITS ? logits : MOST_LOGITS;
    floats += HELPERS * ((keys + 3 * KEYS) * (size_t)(3 * s.hd + 6 * s.hd_pad) +
                         QUERIES * (2 * keys + 8 * KEYS + 2 * (size_t)s.hd_pad));
    floats += (KC + NR) * (widest + NR);                                        /* packing */
    floats += BLOCK + KC + 3 * LINE * (rows + widest + KC);                     /* spread_out */
    floats += (size_t)(3 * HEAD_ROWS + KC) * TILE + (d + NR) * TILE + (d + KC) * (TILE + NR) +
              sizeof(Beside);                                                   /* head */
    size_t pieces = (size_t)c->num_hidden_layers * 24 + 64 + HELPERS * (keys / KEYS + 2);
    return floats * sizeof(float) + pieces * 128 + (rows + targets) * 64 + (1 << 16);
}

/* ================================================================ the cache */

static size_t kv_pool_bytes(const Config *c, int blocks)
{
    Heads s = heads_of(c);
    size_t layers = (size_t)c->num_hidden_layers * (size_t)c->num_key_value_heads;
    return (size_t)blocks * (kv_block_floats(&s) * layers * sizeof(float) + sizeof(float *)) + 256;
}

static KvPool kv_pool_new(Arena *a, const Config *c, int blocks)
{
    Heads s = heads_of(c);
    size_t layers = (size_t)c->num_hidden_layers * (size_t)c->num_key_value_heads;
    size_t each = kv_block_floats(&s) * layers;
    KvPool p = {.free_block = arena_alloc(a, (size_t)blocks, sizeof(float *))};
    float *memory = arena_floats(a, each * (size_t)blocks);
    for (p.n_free = 0; p.n_free < blocks; p.n_free++) /* the first block on top */
        p.free_block[p.n_free] = memory + each * (size_t)(blocks - 1 - p.n_free);
    return p;
}

static int kv_blocks(int length) { return (length + KEYS - 1) / KEYS; }

static KvSeq kv_seq_new(Arena *a, int longest)
{
    return (KvSeq){arena_alloc(a, (size_t)kv_blocks(longest), sizeof(float *)), 0};
}

/* Makes room in `kv` for `length` keys. */
static void kv_reserve(KvPool *p, KvSeq *kv, int length)
{
    while (kv->n_blocks < kv_blocks(length))
        kv->block[kv->n_blocks++] = p->free_block[--p->n_free];
}

/* Hands a finished sequence's blocks back. */
static void kv_release(KvPool *p, KvSeq *kv)
{
    while (kv->n_blocks > 0)
        p->free_block[p->n_free++] = kv->block[--kv->n_blocks];
}

/* ================================================================ the optimizer */

static void grads_zero(Model *m) { memset(m->grads, 0, m->n_grads * sizeof(float)); }

/* A tied head's own gradient joins the embedding's (see model_table). */
static void grads_finish(Model *m)
{
    if (m->config.tie_word_embeddings)
        for (size_t i = 0; i < m->tensors[EMBED].size; i++)
            m->grads[i] += m->grads[m->n_params + i];
}

/* |g|, in double: partial sums over blocks of FLAT, added in order. */
static double grads_norm(const Model *m, int threads)
{
    double sum = 0;
    PARALLEL_FOR (threads)
    for (int k = 0; k < flat_blocks(m); k++) {
        size_t i0 = (size_t)k * FLAT, i1 = i0 + FLAT < m->n_params ? i0 + FLAT : m->n_params;
        double s[4] = {0};
        for (size_t i = i0; i < i1; i++)
            s[i % 4] += (double)m->grads[i] * (double)m->grads[i];
        m->partial[k] = (s[0] + s[1]) + (s[2] + s[3]);
    }
    for (int k = 0; k < flat_blocks(m); k++)
        sum += m->partial[k];
    return sqrt(sum);
}

typedef struct {
    double beta1, beta2, eps, weight_decay, clip_norm; /* clip_norm 0: no clipping */
    int64_t step; /* updates made so far */
} AdamW;

/* AdamW (Loshchilov and Hutter 2019) with the decay on every tensor, and the gradient scaled to at
 * most clip_norm first:
 *     m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
 *     w = w - lr decay w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 * m and v begin at 0, so after t updates they are means of g and g^2 by weights that add up to
 * 1 - b^t: hence the divisions. A weight moves by about lr, however large its gradient is; the
 * decay is no part of g, so that it is not divided by sqrt(v). Returns the norm before clipping. */
static double adamw_step(Model *m, AdamW *o, double lr, int threads)
{
    grads_finish(m);
    double norm = grads_norm(m, threads);
    double clip = o->clip_norm > 0 && norm > o->clip_norm ? o->clip_norm / (norm + 1e-6) : 1.0;
    double t = (double)++o->step;
    double correct1 = 1 - pow(o->beta1, t), correct2 = 1 - pow(o->beta2, t);
    vf b1 = vset((float)o->beta1), b2 = vset((float)o->beta2), scale = vset((float)clip);
    vf c1 = vset((float)(1 - o->beta1)), c2 = vset((float)(1 - o->beta2));
    vf rate = vset((float)(-lr / correct1)), root = vset((float)(1 / sqrt(correct2)));
    vf eps = vset((float)o->eps), keep = vset((float)(1 - lr * o->weight_decay));
    PARALLEL_FOR (threads)
    for (int k = 0; k < flat_blocks(m); k++) {
        size_t i0 = (size_t)k * FLAT;
        int n = (int)(m->n_params - i0 < FLAT ? m->n_params - i0 : FLAT);
        float *w = m->params + i0, *g = m->grads + i0, *m1 = m->m + i0, *m2 = m->v + i0;
        FOR_ROW (i, part, n) {
            vf gi = vmul(vrow_load(g + i, part), scale);
            vf a = vfma(b1, vrow_load(m1 + i, part), vmul(c1, gi));
            vf v = vfma(b2, vrow_load(m2 + i, part), vmul(c2, vmul(gi, gi)));
            vf step = vdiv(a, vfma(vsqrt(v), root, eps));
            vrow_store(m1 + i, a, part);
            vrow_store(m2 + i, v, part);
            vrow_store(w + i, vfma(rate, step, vmul(keep, vrow_load(w + i, part))), part);
        }
    }
    if (m->packed)
        model_pack(m, threads);
    return norm;
}

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

typedef enum { CONSTANT, LINEAR, COSINE } Schedule;

/* The learning rate of step 0 .. steps-1: up over `warmup` steps, then as the schedule says. */
static double schedule_lr(Schedule kind, double lr, int step, int warmup, int steps)
{
    if (step < warmup)
        return lr * (step + 1) / warmup;
    double progress = steps > warmup ? (double)(step - warmup) / (steps - warmup) : 0;
    if (kind == LINEAR)
        return lr * (1 - progress);
    return kind == COSINE ? lr * 0.5 * (1 + cos(3.141592653589793 * progress)) : lr;
}

static uint64_t weights_hash(const Model *m)
{
    return hash64(m->params, m->n_params * sizeof(float));
}

/* ================================================================ the directory on disk */

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
    *text = read_file(file.s, &length);
    Config c = config_parse(file.s, *text, length);
    config_generation(&c, path_join(dir.s, "generation_config.json").s);
    return c;
}

/* Reads a model's configuration and its weights. Every tensor must be there with its exact shape,
 * in F32, BF16 or F16; tensors that nobody asks for are let be. A tied model may store its head
 * again: then it must be the embedding. */
static Model model_load(const char *path)
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
    const StTensor **source = xcalloc((size_t)m.n_tensors, sizeof *source);
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
    StOut *out = xcalloc((size_t)m->n_tensors, sizeof *out);
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
