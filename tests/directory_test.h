/* directory.h: tests of model directories, whole and broken. */
#ifndef TESTS_DIRECTORY_H
#define TESTS_DIRECTORY_H

#include "model_test.h"

static bool same_config(const Config *a, const Config *b)
{
    bool same = a->model_type == b->model_type && a->tie_word_embeddings == b->tie_word_embeddings;
    for (int i = 0; i < N_CONFIG_INTS; i++)
        same &= *config_int((Config *)a, i) == *config_int((Config *)b, i);
    for (int i = 0; i < MAX_EOS; i++)
        same &= i >= a->n_eos || a->eos_token_id[i] == b->eos_token_id[i];
    const Rope *x = &a->rope, *y = &b->rope;
    same &= x->type == y->type && x->factor == y->factor && x->low == y->low &&
            x->high == y->high && x->original == y->original;
    return same && a->rms_norm_eps == b->rms_norm_eps && a->rope_theta == b->rope_theta &&
           a->bos_token_id == b->bos_token_id && a->n_eos == b->n_eos;
}

static Path test_dir(const char *name)
{
    Path p = path_join(tmp_dir(), name);
    make_dirs(p.s);
    return p;
}

static void test_model_directory(void)
{
    Path dir = test_dir("model");
    for (int type = QWEN3; type <= MISTRAL; type++)
        for (int tied = 0; tied < 2; tied++) {
            Model m = tiny_model((ModelType)type, tied, 50);
            m.config.n_eos = imin(type, 2); /* none, one, two */
            m.config.eos_token_id[0] = 49;
            m.config.eos_token_id[1] = 3;
            m.config.bos_token_id = tied ? 7 : -1;
            m.config.rope_theta = 1234567.125;
            if (type >= LLAMA)
                m.config.rope = tied ? (Rope){ROPE_LINEAR, 2.5, 0, 0, 0}
                                     : (Rope){ROPE_LLAMA3, 32, 1.5, 4, 8192};
            m.params[0] = -0.0f;
            m.params[1] = 0x1p-149f;
            model_save(&m, dir.s);
            Model back = model_load(dir.s);
            CHECK(same_config(&m.config, &back.config), "%s: config.json", MODEL_TYPES[type]);
            CHECK(m.n_params == back.n_params && same_bits(m.params, back.params, m.n_params),
                  "%s: the weights come back with other bits", MODEL_TYPES[type]);
            CHECK(weights_hash(&m) == weights_hash(&back), "weights_hash differs");
            back.params[m.n_params - 1] += 1;
            CHECK(weights_hash(&m) != weights_hash(&back), "weights_hash misses the last weight");
            model_free(&m);
            model_free(&back);
        }

    /* A run's directory stands for its newest checkpoint: by number, not by name or time. */
    Path run = test_dir("run");
    CHECK(!strcmp(model_dir(run.s).s, run.s), "a directory without checkpoints is itself");
    Path newest = test_dir("run/checkpoint-100");
    test_dir("run/checkpoint-20");
    test_dir("run/checkpoint-3");
    test_dir("run/checkpoint-999.tmp-1");
    test_dir("run/checkpoint-");
    CHECK(!strcmp(model_dir(run.s).s, newest.s), "model_dir gives %s; expected %s",
          model_dir(run.s).s, newest.s);
    CHECK(!strcmp(model_dir(dir.s).s, dir.s), "a model's directory is itself");
}

static void config_for_dying(void *path)
{
    size_t n;
    char *text = read_file(path, &n);
    config_parse(path, text, n);
    free(text);
}

/* A good config.json with one field replaced (or, where value is NULL, left out): the line that
 * ends the program must name the file and the field. Where `named` is NULL it must be read. */
static void check_bad_config(const char *field, const char *value, const char *named)
{
    static const struct {
        const char *name, *value;
    } good[] = {
        {"model_type", "\"llama\""}, {"vocab_size", "50"}, {"hidden_size", "24"},
        {"intermediate_size", "20"}, {"num_hidden_layers", "1"}, {"num_attention_heads", "4"},
        {"num_key_value_heads", "2"}, {"head_dim", "6"}, {"rms_norm_eps", "1e-6"},
        {"max_window_layers", "0"},
    };
    Path path = path_join(test_dir("bad").s, "config.json");
    Buf b = {0};
    char err[1024] = "";
    buf_str(&b, "{");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (strcmp(good[i].name, field))
            buf_printf(&b, "\"%s\": %s, ", good[i].name, good[i].value);
    if (value)
        buf_printf(&b, "\"%s\": %s, ", field, value);
    buf_str(&b, "\"pad_token_id\": null}");
    write_file(path.s, b.s, b.n);
    int status = dies(config_for_dying, path.s, err, sizeof err);
    if (named)
        CHECK(status == 1 && strstr(err, path.s) && strstr(err, named),
              "%s: %s: status %d, '%s'; expected 1 and '%s'", field, value ? value : "missing",
              status, err, named);
    else
        CHECK(status == 0 && !*err, "%s: %s: status %d, '%s'; expected to be read", field, value,
              status, err);
    buf_free(&b);
}

static void test_config_errors(void)
{
    static const char *const cases[][3] = { /* field, value, what the message must name */
        {"vocab_size", NULL, "vocab_size"},
        {"vocab_size", "0", "vocab_size"},
        {"hidden_size", "24.5", "hidden_size"},
        {"hidden_size", "1e30", "hidden_size"},
        {"intermediate_size", "-4", "intermediate_size"},
        {"num_hidden_layers", "\"2\"", "num_hidden_layers"},
        {"num_key_value_heads", "3", "num_key_value_heads"},
        {"head_dim", "5", "head_dim"},
        {"model_type", "\"gpt2\"", "model_type 'gpt2'"},
        {"rms_norm_eps", "0", "rms_norm_eps"},
        {"rope_theta", "-1", "rope_theta"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 0}", "rope_theta"},
        {"rope_parameters", "{\"rope_theta\": \"big\"}", "rope_theta"},
        {"rope_scaling", "{\"type\": \"linear\"}", "expected factor"},
        {"rope_scaling", "{\"type\": \"linear\", \"factor\": 0}", "rope_scaling: factor"},
        {"rope_scaling", "{\"factor\": 2.0}", "rope_scaling has no rope_type"},
        {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}",
         "a larger high_freq_factor"},
        {"rope_scaling", "{\"factor\": 2.0, \"rope_type\": \"yarn\"}", "'yarn'"},
        {"hidden_act", "\"gelu\"", "hidden_act"},
        {"rope_scaling", "{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor"},
        {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}", "rope_type"},
        {"partial_rotary_factor", "0.25", "partial_rotary_factor is 0.25"},
        {"attention_bias", "true", "attention_bias"},
        {"attention_bias", "\"no\"", "attention_bias"},
        {"final_logit_softcapping", "30.0", "final_logit_softcapping"},
        {"attn_logit_softcapping", "50.0", "attn_logit_softcapping"},
        {"compression_config", "{}", "compression_config"},
        {"per_layer_config", "[]", "per_layer_config"},
        {"max_position_embeddings", "null", "max_position_embeddings"},
        {"mlp_bias", "1", "mlp_bias"},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"layer_types", "[\"full_attention\", \"sliding_attention\"]", "layer_types"},
        {"quantization_config", "{\"bits\": 4}", "quantization_config"},
        {"tie_word_embeddings", "\"yes\"", "tie_word_embeddings"},
        {"eos_token_id", "50", "eos_token_id"},
        {"eos_token_id", "[1, 2, -3]", "eos_token_id"},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", "eos_token_id"},
        {"bos_token_id", "tru", "line 1"},
        {"anything", "{", "line 1"},
        /* these are fine */
        {"head_dim", NULL, NULL},
        {"head_dim", "null", NULL},
        {"num_key_value_heads", NULL, NULL},
        {"rope_scaling", "null", NULL},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 1e6}", NULL},
        {"use_sliding_window", "false", NULL},
        {"eos_token_id", "[1, 49]", NULL},
        {"hidden_act", "\"silu\"", NULL},
        {"hidden_act", "\"swish\"", NULL},
        {"partial_rotary_factor", "1.0", NULL},
        {"attention_bias", "false", NULL},
        {"mlp_bias", "false", NULL},
        {"attention_dropout", "0.5", NULL},
        {"pretraining_tp", "2", NULL},
        {"sliding_window", "4096", NULL},
        {"layer_types", "null", NULL},
        {"layer_types", "[\"full_attention\"]", NULL},
        {"quantization_config", "null", NULL},
        {"rope_scaling", "{\"rope_type\": \"default\"}", NULL},
        {"rope_parameters", "{}", NULL},
        {"torch_dtype", "\"float64\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_bad_config(cases[i][0], cases[i][1], cases[i][2]);
}

static Config config_of(const char *text) { return config_parse("test", text, strlen(text)); }

/* What a config.json leaves out or says in an older or newer way, as transformers takes it. */
static void test_config_defaults(void)
{
#define SIZES "\"vocab_size\": 50, \"hidden_size\": 192, \"intermediate_size\": 20, " \
              "\"num_hidden_layers\": 3, \"num_attention_heads\": "
    Config q3 = config_of("{\"model_type\": \"qwen3\", " SIZES "64}");
    CHECK(q3.num_key_value_heads == 32 && q3.head_dim == 128 && !q3.tie_word_embeddings &&
              q3.max_position_embeddings == 32768 && q3.n_eos == 0 && q3.bos_token_id == -1 &&
              q3.rope_theta == 10000 && q3.rms_norm_eps == 1e-6, "qwen3's defaults");
    Config q2 = config_of("{" SIZES "96, \"model_type\": \"qwen2\", \"attention_bias\": true}");
    CHECK(q2.num_key_value_heads == 32 && q2.head_dim == 2, "qwen2's defaults");
    Config ll = config_of("{\"model_type\": \"llama\", " SIZES "6}");
    CHECK(ll.num_key_value_heads == 6 && ll.head_dim == 32 && ll.max_position_embeddings == 2048 &&
              ll.bos_token_id == 1 && ll.n_eos == 1 && ll.eos_token_id[0] == 2, "llama's defaults");
    ll = config_of("{\"model_type\": \"llama\", \"eos_token_id\": null, \"bos_token_id\": null, "
                   "\"head_dim\": null, \"num_key_value_heads\": null, " SIZES "6}");
    CHECK(ll.n_eos == 0 && ll.bos_token_id == -1 && ll.head_dim == 32 &&
              ll.num_key_value_heads == 6, "null is not the default");

    static const char *const mistral[][2] = {
        {"", "sliding_window: expected null"}, {", \"sliding_window\": 8", "expected null"},
        {", \"sliding_window\": null", NULL}};
    for (int i = 0; i < 3; i++) {
        char err[256] = "", with[512];
        snprintf(with, sizeof with, "{\"model_type\": \"mistral\"%s, " SIZES "8}", mistral[i][0]);
        Path file = put_file("mistral.json", with);
        bool dead = dies(config_for_dying, file.s, err, sizeof err) == 1;
        CHECK(dead == (mistral[i][1] != NULL) && (!dead || strstr(err, mistral[i][1])), "%s: %s",
              with, err);
    }

    static const char *const thetas[] = { /* 12345 wins in each */
        "\"rope_theta\": 12345",
        "\"rope_theta\": 12345, \"rope_scaling\": null",
        "\"rope_theta\": 12345, \"rope_scaling\": {\"type\": \"default\"}",
        "\"rope_parameters\": {\"rope_theta\": 12345, \"rope_type\": \"default\"}",
        "\"rope_theta\": 1, \"rope_parameters\": {\"rope_theta\": 12345}",
        "\"rope_parameters\": {\"rope_theta\": 12345}, \"rope_theta\": 1",
    };
    static const char *const windows[] = { /* none of these limits a layer */
        "\"use_sliding_window\": false, \"sliding_window\": 8, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": null, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 3",
        "\"use_sliding_window\": true, \"sliding_window\": 8",
        ("\"use_sliding_window\": true, \"max_window_layers\": 0, "
         "\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\"]"),
    };
    char text[512];
    for (size_t i = 0; i < sizeof thetas / sizeof *thetas; i++) {
        snprintf(text, sizeof text, "{\"model_type\": \"qwen3\", %s, " SIZES "32}", thetas[i]);
        CHECK(config_of(text).rope_theta == 12345, "%s: %g", thetas[i], config_of(text).rope_theta);
    }
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        snprintf(text, sizeof text, "{\"model_type\": \"qwen3\", %s, " SIZES "32}", windows[i]);
        CHECK(config_of(text).num_hidden_layers == 3, "%s", windows[i]);
    }
#undef SIZES
}

static void load_for_dying(void *dir)
{
    Model m = model_load(dir);
    model_free(&m);
}

/* generation_config.json decides where a response ends, if it says so. */
static void test_generation_config(void)
{
    static const struct {
        const char *text;
        int n, first;
    } cases[] = {
        {NULL, 2, 7}, {"{}", 2, 7}, {"{\"eos_token_id\": null}", 2, 7},
        {"{\"eos_token_id\": 9, \"temperature\": 0.6}", 1, 9},
        {"{\"eos_token_id\": [4, 7]}", 2, 4}, {"{\"eos_token_id\": 50}", 2, 7},
        {"{\"eos_token_id\": [4, 50, 6]}", 2, 4},
    };
    Path dir = test_dir("generation"), path = path_join(dir.s, "generation_config.json");
    Model m = tiny_model(QWEN3, true, 50);
    m.config.eos_token_id[m.config.n_eos++] = 7;
    m.config.eos_token_id[m.config.n_eos++] = 8;
    model_save(&m, dir.s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].text)
            write_file(path.s, cases[i].text, strlen(cases[i].text));
        Model back = model_load(dir.s);
        CHECK(back.config.n_eos == cases[i].n && back.config.eos_token_id[0] == cases[i].first,
              "%s: %d ids, first %d", cases[i].text ? cases[i].text : "no file",
              back.config.n_eos, back.config.eos_token_id[0]);
        model_free(&back);
    }
    static const char *const bad[] = {"{", "{\"eos_token_id\": \"x\"}", "[]",
                                      "{\"eos_token_id\": [1, -1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char err[1024];
        write_file(path.s, bad[i], strlen(bad[i]));
        CHECK(dies(load_for_dying, dir.s, err, sizeof err) == 1 &&
                  strstr(err, "generation_config.json"), "%s: %s", bad[i], err);
    }
    model_free(&m);
}

/* A config.json with another dtype: everything else stays, byte for byte. */
static void test_config_dtype(void)
{
    static const char *const cases[][2] = {
        {"{\"a\": {\"dtype\": 1}, \"torch_dtype\": \"float32\",\n \"b\": [2]}\n",
         "{\"a\": {\"dtype\": 1}, \"torch_dtype\": \"bfloat16\",\n \"b\": [2]}\n"},
        {"{\"dtype\" :null}", "{\"dtype\" :\"bfloat16\"}"},
        {"{ \"dtype\":\"a\", \"torch_dtype\":\"b\"}",
         "{ \"dtype\":\"bfloat16\", \"torch_dtype\":\"bfloat16\"}"},
        {"{\n  \"x\": 1\n}", "{\n  \"torch_dtype\": \"bfloat16\",\n  \"x\": 1\n}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = config_with_dtype(cases[i][0], ST_BF16);
        CHECK(!strcmp(text, cases[i][1]), "%s became %s", cases[i][0], text);
        free(text);
    }
}

/* The tensors of a model as two shards and an index, in their dtypes. */
static void save_in_shards(const Model *m, const char *dir)
{
    static const char *const shards[] = {"model-00001-of-00002.safetensors",
                                         "model-00002-of-00002.safetensors"};
    StOut *out = xcalloc((size_t)m->n_tensors, sizeof *out);
    Buf index = {0};
    int n = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        if (!t->size)
            continue;
        out[n++] = (StOut){t->name, t->cols ? 2 : 1, {t->rows, t->cols}, at(m, m->params, i),
                           t->dtype};
        buf_printf(&index, "%s\"%s\": \"%s\"", n > 1 ? ", " : "{\"weight_map\": {", t->name,
                   shards[n > 5]);
    }
    buf_str(&index, "}}");
    st_write(path_join(dir, shards[0]).s, "", out, 5);
    st_write(path_join(dir, shards[1]).s, "", out + 5, n - 5);
    config_write(&m->config, m->tensors[EMBED].dtype, path_join(dir, "config.json").s);
    write_file(path_join(dir, "model.safetensors.index.json").s, index.s, index.n);
    free(out);
    buf_free(&index);
}

/* Loaded, saved, loaded: no value changes that its dtype can hold, and no dtype does. */
static void check_round_trip(const Model *m, const char *from, const char *what)
{
    Path dir = test_dir("round-trip");
    Model a = model_load(from);
    CHECK(model_save(&a, dir.s) == 0, "%s: weights are rounded", what);
    Model b = model_load(dir.s);
    CHECK(same_config(&m->config, &b.config), "%s: the config changes", what);
    CHECK(!strcmp(a.config_text, b.config_text), "%s: the text of config.json changes", what);
    for (int i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensors[i];
        const float *x = at(m, m->params, i), *y = at(&a, a.params, i);
        int wrong = 0;
        for (size_t k = 0; k < t->size; k++)
            wrong += st_round(x[k], t->dtype) != y[k];
        CHECK(wrong == 0, "%s: %s: %d values are read wrong", what, t->name, wrong);
        CHECK(!t->size || (b.tensors[i].dtype == t->dtype &&
                           same_bits(y, at(&b, b.params, i), t->size)),
              "%s: %s: dtype or values change on the way", what, t->name);
    }
    SafeTensors st = st_open_dir(dir.s);
    CHECK(!m->config.tie_word_embeddings == !!st_find(&st, "lm_head.weight"), "%s: the head", what);
    st_close(&st);
    model_free(&a);
    model_free(&b);
}

static void test_round_trips(void)
{
    static const int dtypes[] = {ST_F32, ST_BF16, ST_F16};
    for (int type = QWEN3; type <= MISTRAL; type++)
        for (int k = 0; k < 16; k++) {
            bool tied = k & 1, sharded = k & 2;
            char what[64];
            snprintf(what, sizeof what, "%s-%d", MODEL_TYPES[type], k);
            Path dir = test_dir(what);
            Model m = tiny_model((ModelType)type, tied, 50);
            for (int i = 0; i < m.n_tensors; i++) /* the last four: mixed */
                m.tensors[i].dtype = dtypes[k < 12 ? k / 4 : (i + 1) % 3];
            if (sharded)
                save_in_shards(&m, dir.s);
            else
                model_save(&m, dir.s);
            check_round_trip(&m, dir.s, what);
            model_free(&m);
        }
    Path large = test_dir("large"), root;
    Model m = tiny_model(QWEN3, true, 53000); /* more than is read at once */
    model_set_dtype(&m, ST_BF16);
    model_save(&m, large.s);
    check_round_trip(&m, large.s, "large");
    model_free(&m);
    if (!shared_dir(&root, "models")) {
        skip("models that others wrote are in ../shared/data");
        return;
    }
    static const char *const names[] = {"q3_tied_bf16", "q3_tied_f16_sharded", "q2_tied_f32",
                                        "q3_untied_bf16_sharded", "llama_untied_f32_theta500k"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Path dir = path_join(root.s, names[i]);
        m = model_load(dir.s);
        check_round_trip(&m, dir.s, names[i]);
        model_free(&m);
    }
}

typedef struct {
    const Model *m;
    const char *dir;
} SavedModel;

static void save_for_dying(void *saving)
{
    const SavedModel *s = saving;
    model_save(s->m, s->dir);
}

/* Another dtype rounds, says how much, and refuses what it cannot hold. */
static void test_saved_dtype(void)
{
    Path dir = test_dir("dtype");
    Model m = tiny_model(QWEN3, true, 50);
    char err[1024];
    model_save(&m, dir.s);
    for (int dtype = ST_F32; dtype <= ST_BF16; dtype++) {
        Model a = model_load(dir.s);
        size_t rounded = 0, wrong = 0;
        model_set_dtype(&a, dtype);
        size_t said = model_save(&a, test_dir("dtype-2").s);
        Model b = model_load(test_dir("dtype-2").s);
        for (size_t i = 0; i < a.n_params; i++) {
            rounded += a.params[i] != b.params[i];
            wrong += b.params[i] != st_round(a.params[i], dtype);
        }
        CHECK(said == rounded && wrong == 0, "%s: %zu weights rounded, %zu said, %zu wrong",
              TORCH_DTYPES[dtype], rounded, said, wrong);
        CHECK((rounded == 0) == (dtype == ST_F32), "%s: %zu rounded", TORCH_DTYPES[dtype], rounded);
        CHECK(strstr(b.config_text, TORCH_DTYPES[dtype]), "%s", b.config_text);
        model_free(&a);
        model_free(&b);
    }
    model_set_dtype(&m, ST_F16);
    at(&m, m.params, final_norm(&m.config))[3] = -65519;
    CHECK(dies(save_for_dying, &(SavedModel){&m, dir.s}, err, sizeof err) == 0, "%s", err);
    at(&m, m.params, final_norm(&m.config))[3] = -65520;
    CHECK(dies(save_for_dying, &(SavedModel){&m, dir.s}, err, sizeof err) == 1 &&
              strstr(err, "model.norm.weight holds -65520, which F16 cannot"), "%s", err);
    model_set_dtype(&m, ST_BF16);
    at(&m, m.params, final_norm(&m.config))[3] = 3.4e38f;
    CHECK(dies(save_for_dying, &(SavedModel){&m, dir.s}, err, sizeof err) == 1 &&
              strstr(err, "model.norm.weight holds 3.4e+38, which BF16 cannot"), "%s", err);
    model_free(&m);
}

/* A tied model may store its head again; one that is another matrix is refused. */
static void test_stored_twice(void)
{
    Path dir = test_dir("twice"), path = path_join(dir.s, "model.safetensors");
    Model m = tiny_model(QWEN3, true, 50), u;
    Config untied = m.config;
    char err[1024];
    untied.tie_word_embeddings = false;
    u = model_new(&untied);
    memcpy(u.params, m.params, m.n_params * sizeof(float));
    memcpy(at(&u, u.params, lm_head(&untied)), m.params, m.tensors[EMBED].size * sizeof(float));
    for (int equal = 1; equal >= 0; equal--) {
        u.params[u.n_params - 1] += equal ? 0.0f : 1.0f;
        model_save(&u, dir.s);
        config_write(&m.config, ST_F32, path_join(dir.s, "config.json").s);
        int status = dies(load_for_dying, dir.s, err, sizeof err);
        CHECK(status == !equal, "status %d, %s", status, err);
    }
    CHECK(strstr(err, path.s) && strstr(err, "lm_head.weight is not the embedding"), "%s", err);
    model_free(&m);
    model_free(&u);
}

/* Weights that do not fit their config.json: the message names the directory and a tensor. */
static void test_misfits(void)
{
    static const char *const named[] = {"vocab_size", "self_attn.q_proj", "lm_head.weight",
                                        "layers.2.input_layernorm"};
    Path dir = test_dir("misfit");
    Model m = tiny_model(QWEN3, true, 50);
    for (int k = 0; k < 4; k++) {
        char err[1024];
        Config c = m.config;
        c.vocab_size += k == 0;
        c.head_dim += 2 * (k == 1);
        c.tie_word_embeddings = k != 2;
        c.num_hidden_layers += k == 3;
        model_save(&m, dir.s);
        config_write(&c, ST_F32, path_join(dir.s, "config.json").s);
        int status = dies(load_for_dying, dir.s, err, sizeof err);
        CHECK(status == 1 && strstr(err, dir.s) && strstr(err, named[k]),
              "misfit %d: status %d, '%s'; expected 1 and '%s'", k, status, err, named[k]);
    }
    for (int k = 0; k < 3; k++) {
        char err[1024];
        m.params[k ? m.n_params - 1 : 0] = k == 2 ? NAN : -HUGE_VALF;
        model_save(&m, dir.s);
        CHECK(dies(load_for_dying, dir.s, err, sizeof err) == 1 && strstr(err, dir.s) &&
                  strstr(err, k ? "model.norm.weight" : "model.embed_tokens.weight") &&
                  strstr(err, "not finite"), "%s", err);
        m.params[0] = 0;
    }
    model_free(&m);
}

#endif
