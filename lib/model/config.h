/* config.h: config.json of a model directory: the fields that the model depends on, their defaults,
 * and what is refused by name because it would change the numbers. The shapes of --preset. */
#ifndef CONFIG_H
#define CONFIG_H

#include "safetensors.h" /* defines: ST_F32, ..; st_label; json.h: Json */

typedef enum { QWEN3, QWEN2, LLAMA, MISTRAL } ModelType;
static const char *const MODEL_TYPES[] = {"qwen3", "qwen2", "llama", "mistral"};
static const char *const ARCHITECTURES[] = {"Qwen3ForCausalLM", "Qwen2ForCausalLM",
                                            "LlamaForCausalLM", "MistralForCausalLM"};
#define MODELS_EXPECTED "expected qwen3, qwen2, llama or mistral"

/* Rotary frequencies as they are, all divided by `factor`, or, as Llama 3.1 has them: those whose
 * wavelength is longer than original / low divided by it, those shorter than original / high as
 * they are, and those between in between. */
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 } RopeType;
#define ROPE_TYPES "default|linear|llama3"
typedef struct {
    RopeType type;
    double factor, low, high, original;
} Rope;

enum { MAX_EOS = 8 };

/* The fields of config.json, under their own names. */
typedef struct {
    ModelType model_type;
    int vocab_size, hidden_size, intermediate_size, num_hidden_layers;
    int num_attention_heads, num_key_value_heads, head_dim, max_position_embeddings;
    double rms_norm_eps, rope_theta;
    Rope rope;
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

/* Values of missing fields: the defaults of transformers' class for each model_type (5.23; 0 and
 * -1: none). For null see config_defaults. */
static const struct {
    int whole[N_CONFIG_INTS], bos_token_id, eos_token_id;
} CLASS_DEFAULTS[] = {
    [QWEN3] = {{[NUM_KEY_VALUE_HEADS] = 32, [HEAD_DIM] = 128, [MAX_POSITIONS] = 32768}, -1, -1},
    [QWEN2] = {{[NUM_KEY_VALUE_HEADS] = 32, [HEAD_DIM] = 0, [MAX_POSITIONS] = 32768}, -1, -1},
    [LLAMA] = {{[NUM_KEY_VALUE_HEADS] = 0, [HEAD_DIM] = 0, [MAX_POSITIONS] = 2048}, 1, 2},
    [MISTRAL] = {{[NUM_KEY_VALUE_HEADS] = 8, [HEAD_DIM] = 0, [MAX_POSITIONS] = 131072}, 1, 2},
};

/* Fields that would change the numbers, and the value each must have. "or": the same, spelt
 * differently. */
static const struct {
    const char *name, *value, *or;
} CONFIG_DEMANDS[] = {
    {"hidden_act", "silu", "swish"},            {"mlp_bias", "false", "null"},
    {"partial_rotary_factor", "1.0", "1"},      {"per_layer_config", "null", "null"},
    {"quantization_config", "null", "null"},    {"compression_config", "null", "null"},
    {"attn_logit_softcapping", "null", "null"}, {"final_logit_softcapping", "null", "null"},
};
enum { N_CONFIG_DEMANDS = sizeof CONFIG_DEMANDS / sizeof *CONFIG_DEMANDS };

/* A config.json while it is read. The meaning of some fields depends on later ones. */
typedef struct {
    Json json;
    const char *path;
    Config c;
    bool seen[N_CONFIG_INTS], bos, eos;
    bool attention_bias;  /* is true; qwen2 has its biases in any case */
    double nested_theta;  /* of rope_parameters; overrides rope_theta; 0: none */
    bool window, layers;  /* use_sliding_window is true; layer_types is there */
    bool no_window;       /* sliding_window is null */
    int64_t first_window; /* max_window_layers: the first layer with a window */
} ConfigReader;

/* Dies where the value of `key` is not the expected one. */
static void config_demand(Json *j, const char *path, const char *key, const char *expected,
                          const char *or)
{
    Buf text = {0};
    if (json_peek(j) == '"')
        json_string(j, &text);
    else {
        const char *from = j->p;
        json_skip(j);
        buf_add(&text, from, j->p - from);
    }
    if (!j->error && strcmp(text.s, expected) && strcmp(text.s, or))
        die("%s: %s is %s; only %s is supported", path, key, st_label(text.s).s, expected);
    buf_free(&text);
}

/* A number above 0 of the object `of`. */
static double config_positive(ConfigReader *r, const char *of, const char *key)
{
    double x = 0;
    if (!json_number(&r->json, &x) || !(x > 0 && x < 1e9))
        die("%s: %s: %s: expected a number above 0", r->path, of, key);
    return x;
}

/* "rope_scaling" and "rope_parameters": how rotary frequencies are scaled. */
static void config_rope(ConfigReader *r, const char *key)
{
    Json *j = &r->json;
    Rope rope = {0};
    Buf name = {0}, type = {0};
    bool more = false;
    if (json_missing(j))
        return;
    json_object(j);
    while (!j->error && json_key(j, &name)) {
        if (among(name.s, "rope_type|type"))
            json_string(j, &type);
        else if (!strcmp(name.s, "rope_theta"))
            r->nested_theta = config_positive(r, key, name.s);
        else if (!strcmp(name.s, "factor"))
            rope.factor = config_positive(r, key, name.s);
        else if (!strcmp(name.s, "low_freq_factor"))
            rope.low = config_positive(r, key, name.s);
        else if (!strcmp(name.s, "high_freq_factor"))
            rope.high = config_positive(r, key, name.s);
        else if (!strcmp(name.s, "original_max_position_embeddings"))
            rope.original = config_positive(r, key, name.s);
        else if (!strcmp(name.s, "partial_rotary_factor"))
            config_demand(j, r->path, name.s, "1.0", "1");
        else {
            more = true;
            json_skip(j);
        }
    }
    int t = type.n ? choice_index(ROPE_TYPES, type.s, type.n) : ROPE_DEFAULT;
    rope.type = (RopeType)t;
    if (!j->error && !type.n && (more || rope.factor > 0))
        die("%s: %s has no rope_type; expected default, linear or llama3", r->path, key);
    if (!j->error && t < 0)
        die("%s: %s is of type '%s'; expected default, linear or llama3", r->path, key,
            st_label(type.s).s);
    bool whole = t == ROPE_DEFAULT || (rope.factor > 0 && (t == ROPE_LINEAR || (rope.original > 0 &&
                 rope.low > 0 && rope.high > rope.low)));
    if (!j->error && !whole)
        die("%s: %s of type '%s': expected factor%s", r->path, key, type.s, t == ROPE_LINEAR ? "" :
            ", original_max_position_embeddings, low_freq_factor and a larger high_freq_factor");
    if (t != ROPE_DEFAULT)
        r->c.rope = rope;
    buf_free(&name, &type);
}

/* eos_token_id and bos_token_id: a number, null, or a list of numbers. Returns how many. */
static int config_ids(Json *j, const char *path, const char *key, int *ids)
{
    int n = 0;
    bool list = json_peek(j) == '[';
    int64_t id = 0;
    if (json_missing(j))
        return 0;
    if (list)
        json_array(j);
    while (list ? json_item(j) : !n) {
        if (json_int(j, &id) && (id < 0 || id >= 1 << 24 || n == MAX_EOS))
            die("%s: %s: expected at most %d ids from 0 up", path, key, MAX_EOS);
        if (j->error)
            break;
        ids[n++] = id;
    }
    return n;
}

/* The model_type, read before all other keys: what these mean, and which of them are refused, is a
 * matter of the type. `j` is at the start of the text. */
static ModelType config_model_type(Json j, const char *path)
{
    Buf key = {0}, type = {0};
    int t = -1;
    for (json_object(&j); json_key(&j, &key);)
        if (strcmp(key.s, "model_type"))
            json_skip(&j);
        else if (!json_missing(&j) && json_string(&j, &type))
            t = choice_index("qwen3|qwen2|llama|mistral", type.s, type.n);
    if (!json_end(&j))
        die("%s: line %d: %s", path, json_line(&j), j.error);
    if (!type.n)
        die("%s: model_type is missing; " MODELS_EXPECTED, path);
    if (t < 0)
        die("%s: model_type '%s' is not supported; " MODELS_EXPECTED, path, st_label(type.s).s);
    buf_free(&key, &type);
    return (ModelType)t;
}

/* A whole number within its bounds; null counts as given, and leaves 0. */
static void config_whole(ConfigReader *r, int i)
{
    int64_t value = 0;
    r->seen[i] = true;
    if (!json_missing(&r->json) && (!json_int(&r->json, &value) || value < CONFIG_INTS[i].low ||
                                   value > CONFIG_INTS[i].high))
        die("%s: %s: expected a whole number from %d to %d", r->path, CONFIG_INTS[i].name,
            CONFIG_INTS[i].low, CONFIG_INTS[i].high);
    *config_int(&r->c, i) = value;
}

/* The truth of one of these keys. False if `key` is none of them. */
static bool config_bool(ConfigReader *r, const char *key)
{
    bool *to = !strcmp(key, "tie_word_embeddings")  ? &r->c.tie_word_embeddings
               : !strcmp(key, "attention_bias")     ? &r->attention_bias
               : !strcmp(key, "use_sliding_window") ? &r->window
                                                    : NULL;
    if (to && !json_missing(&r->json) && !json_bool(&r->json, to))
        die("%s: %s: expected true or false", r->path, key);
    return to != NULL;
}

/* The keys of sliding-window attention. False if `key` is none of them. */
static bool config_window(ConfigReader *r, const char *key)
{
    Json *j = &r->json;
    if (!strcmp(key, "sliding_window")) {
        r->no_window = json_peek(j) == 'n';
        json_skip(j);
    } else if (!strcmp(key, "max_window_layers")) {
        if (!json_missing(j))
            json_int(j, &r->first_window);
    } else if (!strcmp(key, "layer_types")) {
        r->layers = !json_missing(j);
        for (bool more = r->layers && json_array(j); more && json_item(j);)
            config_demand(j, r->path, key, "full_attention", "full_attention");
    } else
        return false;
    return true;
}

/* One key of config.json. */
static void config_key(ConfigReader *r, const char *key)
{
    Json *j = &r->json;
    int bos[MAX_EOS], whole = 0, demand = 0;
    while (whole < N_CONFIG_INTS && strcmp(key, CONFIG_INTS[whole].name))
        whole++;
    while (demand < N_CONFIG_DEMANDS && strcmp(key, CONFIG_DEMANDS[demand].name))
        demand++;
    if (whole < N_CONFIG_INTS) {
        config_whole(r, whole);
    } else if (demand < N_CONFIG_DEMANDS) {
        config_demand(j, r->path, key, CONFIG_DEMANDS[demand].value, CONFIG_DEMANDS[demand].or);
    } else if (among(key, "rms_norm_eps|rope_theta")) {
        double *to = key[1] == 'm' ? &r->c.rms_norm_eps : &r->c.rope_theta;
        if (!json_missing(j) && (!json_number(j, to) || !(*to > 0)))
            die("%s: %s: expected a number above 0", r->path, key);
    } else if (among(key, "rope_scaling|rope_parameters")) {
        config_rope(r, key);
    } else if (!strcmp(key, "eos_token_id")) {
        r->c.n_eos = config_ids(j, r->path, key, r->c.eos_token_id);
        r->eos = true;
    } else if (!strcmp(key, "bos_token_id")) {
        r->c.bos_token_id = config_ids(j, r->path, key, bos) > 0 ? bos[0] : -1;
        r->bos = true;
    } else if (!config_bool(r, key) && !config_window(r, key))
        json_skip(j);
}

/* Fills in defaults as transformers does: a missing field has the class's default; null, or a
 * default of 0, follows from the other fields. */
static void config_defaults(ConfigReader *r)
{
    Config *c = &r->c;
    for (int i = 0; i < N_CONFIG_INTS; i++) {
        if (!r->seen[i])
            *config_int(c, i) = CLASS_DEFAULTS[c->model_type].whole[i];
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

/* Refuses fields that contradict each other. */
static void config_check(const ConfigReader *r)
{
    const Config *c = &r->c;
    if (c->num_attention_heads % c->num_key_value_heads)
        die("%s: num_key_value_heads is %d%s; expected a divisor of num_attention_heads %d",
            r->path, c->num_key_value_heads,
            r->seen[NUM_KEY_VALUE_HEADS] ? "" : " where it is missing", c->num_attention_heads);
    if (c->model_type == MISTRAL && !r->no_window) /* the class has one of 4096 */
        die("%s: sliding_window: expected null, since only full attention is supported", r->path);
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
    ConfigReader r = {.json = json_open(text, n), .path = path, .first_window = 28,
                      .c = {.rms_norm_eps = 1e-6, .rope_theta = 10000.0}};
    Buf key = {0};
    r.c.model_type = config_model_type(r.json, path);
    json_object(&r.json);
    while (config_next(&r.json, &key, path))
        config_key(&r, key.s);
    config_defaults(&r);
    config_check(&r);
    return r.c;
}

/* The eos_token_id of generation_config.json replaces that of config.json. (Where the file has
 * none, transformers never ends a response; here config.json stays in force.) */
static void config_generation(Config *c, const char *path)
{
    size_t n;
    int ids[MAX_EOS], found = 0, good = 0;
    Buf key = {0};
    if (!is_file(path))
        return;
    char *text = read_text_file(path, &n);
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

/* The names of ST_F32, ST_F16 and ST_BF16 in config.json. */
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
    if (c->rope.type == ROPE_LINEAR)
        buf_printf(&b, "  \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": %.17g},\n",
                   c->rope.factor);
    if (c->rope.type == ROPE_LLAMA3)
        buf_printf(&b, "  \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": %.17g, "
                   "\"low_freq_factor\": %.17g, \"high_freq_factor\": %.17g, "
                   "\"original_max_position_embeddings\": %.17g},\n", c->rope.factor, c->rope.low,
                   c->rope.high, c->rope.original);
    if (c->model_type == MISTRAL)
        buf_str(&b, "  \"sliding_window\": null,\n");
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

/* The text of a valid config.json with its dtype, or torch_dtype, replaced, or added in front. The
 * caller frees it. */
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
        if (!among(key.s, "dtype|torch_dtype"))
            continue;
        buf_add(&out, copied, value - copied);
        buf_printf(&out, "\"%s\"", TORCH_DTYPES[dtype]);
        copied = j.p;
    }
    if (copied == text) {
        buf_add(&out, text, inside - text);
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
    {"nano", {QWEN3, 64, 64, 192, 4, 4, 2, 16, 512, 1e-6, 10000, {0}, false, -1, {0}, 0}},
    {"tiny", {QWEN3, 64, 128, 384, 4, 4, 2, 32, 1024, 1e-6, 10000, {0}, false, -1, {0}, 0}},
    {"small", {QWEN3, 4096, 384, 1024, 6, 6, 2, 64, 2048, 1e-6, 10000, {0}, false, -1, {0}, 0}},
    {"medium", {QWEN3, 49152, 576, 1536, 30, 9, 3, 64, 2048, 1e-6, 10000, {0}, true, -1, {0}, 0}},
    {"qwen3-0.6b",
     {QWEN3, 151936, 1024, 3072, 28, 16, 8, 128, 40960, 1e-6, 1000000, {0}, true, -1, {0}, 0}},
};

static const Config *preset_find(const char *name)
{
    for (size_t i = 0; i < sizeof PRESETS / sizeof *PRESETS; i++)
        if (!strcmp(name, PRESETS[i].name))
            return &PRESETS[i].c;
    return NULL;
}

#endif
