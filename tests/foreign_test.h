/* foreign.h: tests of what others made: models and tokenizers of the Hugging Face hub, files that
 * editors on Windows saved, and what is said of those that are something else. */
#ifndef TESTS_FOREIGN_H
#define TESTS_FOREIGN_H

#include "directory_test.h"
#include "noise.h"
#include "tokenizer_test.h"
#include "train_test.h"
#include "trust_test.h"

/* ---------------------------------------------------------------- what ends a response */

/* A directory with a model that puts nearly all probability on one token, whatever came before, and
 * the tokenizer of tests/tok: `size` is the weight of its head. */
static Path one_token_model(const char *name, int token, float size)
{
    Config c = {.model_type = LLAMA, .vocab_size = 512, .hidden_size = 16, .intermediate_size = 16,
                .num_hidden_layers = 1, .num_attention_heads = 1, .num_key_value_heads = 1,
                .head_dim = 16, .max_position_embeddings = 256, .rms_norm_eps = 1e-6,
                .rope_theta = 1e4, .bos_token_id = -1};
    Model m = model_new(&c); /* all zero: the layers add nothing */
    for (int i = 0; i < 16; i++) {
        for (int id = 0; id < 512; id++)
            at(&m, m.params, EMBED)[id * 16 + i] = 1;
        at(&m, m.params, final_norm(&c))[i] = 1;
        at(&m, m.params, lm_head(&c))[token * 16 + i] = size;
    }
    Path dir = test_dir(name);
    model_save(&m, dir.s);
    copy_file("tests/tok/qwen3mini512/tokenizer.json", path_join(dir.s, "tokenizer.json").s);
    model_free(&m);
    return dir;
}

/* Tokens of a response of the model that says <|im_end|> alone; 8 where nothing stops it. */
static double length_with(const char *dir, const char *options)
{
    Path data = put_file("ends.jsonl", "{\"prompt\": \"in\", \"answer\": \"1\"}\n");
    CHECK(cli("eval --model %s --data %s --samples 2 --max-tokens 8 --json %s", dir, data.s,
              options) == 0, "%s", cli_err);
    double length = field(cli_out, "completions/mean_length");
    CHECK(field(cli_out, "completions/clipped_ratio") == (length == 8), "%s: %s", options, cli_out);
    return length;
}

static void test_stop_tokens(void)
{
    Tokenizer t = tokenizer_load("tests/tok/qwen3mini512");
    const char *end = "<|im_end|>", *base = base_model();
    Path dir = one_token_model("ends", added_named(&t, end, strlen(end)), 4);
    Path chat = put_file("chat.txt", "<|im_start|>user\n{prompt}\n<|im_end|>\n<|im_start|>model\n");
    Path shots = put_file("shots.txt", "Q: in<|im_end|>Q: {prompt}\nA:");
    char options[4200];
    tokenizer_free(&t);
    CHECK(length_with(dir.s, "") == 8, "nothing ends it");
    CHECK(length_with(dir.s, "--stop <|im_end|>") == 1, "a special token");
    CHECK(length_with(dir.s, "--stop no --stop <|im_end|> --stop in") == 1, "one of three");
    CHECK(length_with(dir.s, "--stop <|im_start|>") == 8, "another special token");
    CHECK(length_with(dir.s, "--template qwen3") == 1, "the end of a turn");
    CHECK(length_with(dir.s, "--template chatml") == 1, "of ChatML");
    CHECK(length_with(dir.s, "--template llama3") == 8, "which the tokenizer has not");
    snprintf(options, sizeof options, "--template %s", chat.s);
    CHECK(length_with(dir.s, options) == 1, "the end of a file's turn");
    snprintf(options, sizeof options, "--template %s", shots.s);
    CHECK(length_with(dir.s, options) == 8, "a file without turns");
    CHECK(cli("sample --model %s --prompt in --stop <|im_end|>in", dir.s) == 1 &&
              says_only("--stop: \"<|im_end|>in\": holds a special token"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 1 --stop Q:", base) == 1 &&
              says_only("--stop: \"Q:\": no token"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 1 --stop 1 --stop 2 --stop 3 --stop 4 --stop 5 --stop 6 "
              "--stop 7 --stop 8 --stop 9", base) == 2 &&
              says_only("--stop: '9'; expected at most 8"), "%s", cli_err);

    /* Of several texts the first one in the response counts: of "5=" and "+5=" the second. */
    cli("sample --model %s --prompt 4+5: --temperature 0", base);
    size_t equals = strcspn(cli_out, "="), n;
    CHECK(equals > 2 && cli_out[equals], "%s", cli_out);
    cli_out[equals + 1] = 0;
    snprintf(options, sizeof options, "%s --stop %s", cli_out + equals - 1, cli_out + equals - 2);
    cli("sample --model %s --prompt 4+5: --temperature 0 --stop %s", base, options);
    CHECK(strlen(cli_out) == equals - 2 + 1, "%s: '%s'", options, cli_out);

    /* A run goes on with its own; run.json once held one text alone. */
    Path run = tmp_path("stops"), file = path_join(run.s, "run.json");
    const char *train = "train --task add:digits=1 --prompts 2 --rollouts 2 --force --stop 2, "
                        "--stop + --steps 1";
    CHECK(cli("%s --model %s --out %s", train, base, run.s) == 0, "%s", cli_err);
    CHECK(cli("train --resume --out %s --stop 2, --steps 2", run.s) == 1 &&
              strstr(cli_err, "--stop: was [\"2,\", \"+\"], is [\"2,\"]"), "%s", cli_err);
    CHECK(cli("train --resume --out %s --stop 2, --stop + --steps 2", run.s) == 0, "%s", cli_err);
    char *text = read_file(file.s, &n), *stops = strstr(text, "[\"2,\", \"+\"]");
    CHECK(stops != NULL, "%s", text);
    memcpy(stops, "\"2,\"       ", 11);
    write_file(file.s, text, n);
    CHECK(cli("train --resume --out %s --stop 2, --steps 3", run.s) == 0, "%s", cli_err);
    free(text);
}

/* ---------------------------------------------------------------- chat templates */

/* The stderr of sample for a model with this chat_template in its tokenizer_config.json. */
static const char *said_of(const char *dir, const char *chat_template, const char *options)
{
    Buf config = {0};
    buf_printf(&config, "{\"chat_template\": %s}", chat_template);
    Path path = path_join(dir, "tokenizer_config.json");
    write_file(path.s, config.s, config.n);
    buf_free(&config);
    CHECK(cli("sample --model %s --prompt in --max-tokens 1 %s", dir, options) == 0, "%s", cli_err);
    return cli_err;
}

/* Chat templates as models have them, cut to what tells them apart. */
#define JINJA_SMOL \
    "\"{{ '<|im_start|>system\\nYou are Smol.<|im_end|>\\n' }}{{'<|im_start|>' + m}}\""
#define JINJA_QWEN \
    "\"{{- '<|im_start|>system\\\\n' }}{{- tools }}{{- '<|im_start|>system\\\\n' + content + " \
    "'<|im_end|>\\\\n' }}{{- '<|im_start|>system\\\\nBox it: \\\\\\\\boxed{}.<|im_end|>\\\\n'}}\""
#define JINJA_LLAMA \
    "\"'<|start_header_id|>' + role + '<|end_header_id|>' + content + '<|eot_id|>'\""

static void test_chat_template(void)
{
    static const struct {
        const char *json, *options, *says; /* NULL: nothing */
    } cases[] = {
        {JINJA_SMOL, "", "but these prompts are plain; for its form: --template chatml --system "
         "'You are Smol.'; for plain"},
        {JINJA_SMOL, "--template plain", NULL},
        {JINJA_SMOL, "--template chatml", "for its form: --system 'You are Smol.'"},
        {JINJA_SMOL, "--template qwen3", "for its form: --system 'You are Smol.'"},
        {JINJA_SMOL, "--template chatml --system x", NULL},
        {JINJA_SMOL, "--template llama3", "has no special token <|eot_id|>; --template llama3 is"},
        {JINJA_QWEN, "", "--template chatml --system 'Box it: \\boxed{}.'; for"},
        {"[{\"name\": \"default\", \"template\": " JINJA_SMOL "}, {\"name\": \"rag\", "
         "\"template\": " JINJA_LLAMA "}]", "", "--template chatml --system"},
        {"\"'<|im_start|>' + role + '<|im_end|>'\"", "", "form: --template chatml; for plain"},
        {"\"'<|im_start|>' + role + '<|im_end|>'\"", "--template chatml", NULL},
        {"\"'<|im_start|>' + role + '<|im_end|>' + '<think>'\"", "", "--template qwen3; for"},
        {JINJA_LLAMA, "", "for its form: --template llama3; for plain"},
        {"\"'[INST]' + content + '[/INST]'\"", "", "for its form: --template FILE; for plain"},
        {"\"'[INST]' + content + '[/INST]'\"", "--template chatml", NULL},
        {"null", "", NULL}, {"[]", "", NULL}, {"7", "", NULL}, {"{}", "", NULL},
    };
    Path dir = one_token_model("template", 7, 1);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *said = said_of(dir.s, cases[i].json, cases[i].options);
        CHECK(cases[i].says ? says_only(cases[i].says) : !*said, "%s %s: %s", cases[i].json,
              cases[i].options, said);
    }

    /* Once a model, and only where there are prompts. */
    Path two = put_file("two.jsonl", "{\"prompt\": \"in\", \"response\": \"in\"}\n"
                                     "{\"prompt\": \"in\", \"response\": \"re\"}\n");
    Path text = put_file("text.jsonl", "{\"text\": \"in in\"}\n");
    said_of(dir.s, JINJA_LLAMA, "");
    for (int i = 0; i < 2; i++) {
        CHECK(cli("sft --model %s --data %s --steps 0 --force --out %s/said", dir.s,
                  i ? text.s : two.s, tmp_dir()) == 0, "%s", cli_err);
        const char *first = strstr(cli_err, "for its form: --template llama3");
        CHECK(i ? !first : first && !strstr(first + 1, "for its form"), "%s", cli_err);
    }
    CHECK(cli_in("{\"text\": \"in\"}\n", "score --model %s", dir.s) == 0 && !*cli_err, "%s",
          cli_err);
    CHECK(cli("eval a=%s b=%s --data %s --samples 2 --max-tokens 1", dir.s, dir.s,
              put_file("one.jsonl", "{\"prompt\": \"in\", \"answer\": \"1\"}\n").s) == 0, "%s",
          cli_err);
    const char *first = strstr(cli_err, "for its form"), *second = first ? first + 1 : "";
    CHECK(strstr(second, "for its form"), "one line a model: %s", cli_err);

    /* A file of its own comes before the one in tokenizer_config.json. */
    put_file("template/chat_template.jinja", "<|im_start|>{{ role }}<|im_end|>");
    CHECK(strstr(said_of(dir.s, JINJA_LLAMA, ""), "--template chatml;"), "%s", cli_err);
}

/* The end token of a given response is the one that ends the template's turns. */
static void test_turn_end(void)
{
    enum { TEXT_END = 486, TURN_END = 488 };
    Session s = {.tokenizer = tokenizer_load("tests/tok/qwen3mini512")};
    Config *c = &s.model.config;
    for (int chat = 0; chat < 2; chat++) {
        s.template = template_open(chat ? "chatml" : "plain", NULL);
        for (c->n_eos = 0; c->n_eos <= 2; c->n_eos++) {
            c->eos_token_id[0] = TEXT_END;
            c->eos_token_id[1] = TURN_END;
            int end = !c->n_eos ? -1 : chat && c->n_eos == 2 ? TURN_END : TEXT_END;
            Record r = record_of_text(&s, "in", "in", "test");
            CHECK(session_end_token(&s) == end && r.ids[r.n - 1] == (end < 0 ? 258 : end),
                  "template %d, %d ends: %d, then %d", chat, c->n_eos, session_end_token(&s),
                  r.ids[r.n - 1]);
            record_free(&r);
        }
        template_free(&s.template);
    }
    tokenizer_free(&s.tokenizer);
}

/* ---------------------------------------------------------------- models */

/* Replaces the first `from` of a file. */
static void edit_file(const char *path, const char *from, const char *to)
{
    size_t n, at = 0, length = strlen(from);
    Buf b = {0};
    char *text = read_file(path, &n);
    while (at + length < n && memcmp(text + at, from, length))
        at++;
    CHECK(at + length < n, "%s: no '%s'", path, from);
    buf_add(&b, text, at);
    buf_str(&b, to);
    buf_add(&b, text + at + length, n - at - length);
    write_file(path, b.s, b.n);
    buf_free(&b);
    free(text);
}

static void test_unplaced_tensors(void)
{
    static const char ids[] = "{\"input_ids\": [1, 2, 3]}\n";
    static const float zero[4];
    Path dir = test_dir("unplaced"), config = path_join(dir.s, "config.json");
    Model m = tiny_model(QWEN2, false, 19);
    model_save(&m, dir.s);
    CHECK(cli_in(ids, "score --model %s", dir.s) == 0 && !*cli_err, "%s",
          cli_err);
    edit_file(config.s, "\"qwen2\"", "\"llama\"");
    CHECK(cli_in(ids, "score --model %s", dir.s) == 0 &&
              says_only("a model of type llama has no place for 6 tensors: "
                        "model.layers.*.self_attn.k_proj.bias (2), "
                        "model.layers.*.self_attn.q_proj.bias (2), "
                        "model.layers.*.self_attn.v_proj.bias (2)") &&
              strstr(cli_err, dir.s), "%s", cli_err);
    /* A reference does not say it again. */
    tokenizer_write(path_join(dir.s, "tokenizer.json").s, TASK_ALPHABET);
    CHECK(cli("train --model %s --task add:digits=1 --prompts 2 --rollouts 2 --steps 1 --no-check "
              "--out %s/unplaced-run", dir.s, tmp_dir()) == 0, "%s", cli_err);
    const char *said = strstr(cli_err, "has no place");
    CHECK(said && !strstr(said + 1, "has no place"), "%s", cli_err);
    model_free(&m);

    /* Rotary frequencies follow from the config. */
    m = tiny_model(LLAMA, true, 19);
    StOut out[64];
    int n = 0;
    for (int i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensors[i];
        if (t->size)
            out[n++] = (StOut){t->name, t->cols ? 2 : 1, {t->rows, t->cols}, at(&m, m.params, i),
                               ST_F32};
    }
    out[n++] = (StOut){"model.layers.0.self_attn.rotary_emb.inv_freq", 1, {3}, zero, ST_F32};
    model_save(&m, dir.s);
    st_write(path_join(dir.s, "model.safetensors").s, "", out, n);
    CHECK(cli_in(ids, "score --model %s", dir.s) == 0 && !*cli_err, "%s",
          cli_err);
    out[n++] = (StOut){"model.layers.0.mlp.experts.7.weight", 1, {4}, zero, ST_F32};
    st_write(path_join(dir.s, "model.safetensors").s, "", out, n);
    CHECK(cli_in(ids, "score --model %s", dir.s) == 0 &&
              says_only("1 tensor: model.layers.*.mlp.experts.*.weight; left out"), "%s", cli_err);
    model_free(&m);
}

static void test_overflowing_logits(void)
{
    static const char *const commands[] = {
        "score", "sample --prompt in", "sample --prompt in --temperature 0 --samples 2",
        "eval --samples 2 --data", "explain --data", "explain --rollouts 2 --data",
    };
    Path group = put_file("overflow.jsonl", "{\"prompt_ids\": [1, 2], \"response_ids\": [[3], "
                          "[4]], \"rewards\": [1, -1]}\n");
    Path problem = put_file("problem.jsonl", "{\"prompt\": \"in\", \"answer\": \"1\"}\n");
    for (int sign = -1; sign < 2; sign += 2) { /* a logit of minus infinity spoils the entropy */
        Path dir = one_token_model("overflow", 7, (float)sign * 3e38f);
        for (int i = 0; i < 6; i++) {
            const char *file = i < 3 ? "" : i == 4 ? group.s : problem.s;
            int status = cli_in("{\"input_ids\": [1, 7]}\n", "%s %s --model %s", commands[i], file,
                                dir.s);
            const char *said = strstr(cli_err, dir.s);
            CHECK(sign < 0 && (i == 1 || i == 2) ? status == 0 :
                  status == 1 && said && strstr(said, "the logits are not finite") && !*cli_out,
                  "%s, sign %d: %d '%s'%s", commands[i], sign, status, cli_out, cli_err);
        }
    }
}

static void test_model_type_first(void)
{
    static const char *const cases[][2] = {
        {"{\"hidden_act\": \"gelu\", \"layer_types\": [\"sliding_attention\"], \"model_type\": "
         "\"gemma3\"}", "model_type 'gemma3' is not supported; expected qwen3, qwen2, llama or "
         "mistral"},
        {"{\"hidden_act\": \"gelu\", \"hidden_size\": 64}", "model_type is missing"},
        {"{\"model_type\": null, \"hidden_size\": 64}", "model_type is missing"},
        {"{\"hidden_act\": \"gelu\", \"model_type\": \"llama\"}", "hidden_act is gelu"},
    };
    Path path = path_join(test_dir("type").s, "config.json");
    char err[1024];
    for (size_t i = 0; i < LENGTH(cases); i++) {
        write_file(path.s, cases[i][0], strlen(cases[i][0]));
        CHECK(dies(config_for_dying, path.s, err, sizeof err) == 1 && strstr(err, path.s) &&
                  strstr(err, cases[i][1]), "%s: '%s'", cases[i][0], err);
    }
}

static void test_model_card(void)
{
    Path base = test_dir("card"), old = path_join(base.s, "README.md");
    Path run = tmp_path("card-run"), data = put_file("card.jsonl",
        "{\"prompt\": \"4+5:\", \"response\": \"9\"}\n");
    size_t n;
    Buf expected = {0};
    Model m = tiny_model(LLAMA, true, 19);
    model_save(&m, base.s);
    tokenizer_write(path_join(base.s, "tokenizer.json").s, TASK_ALPHABET);
    write_file(old.s, "I am the base.\n", 15);
    buf_printf(&expected, "- base: \"%s\", weights_hash %016llx\n", base.s,
               (unsigned long long)weights_hash(&m));
    for (int sft = 0; sft < 2; sft++) {
        CHECK(cli("%s --model %s --steps 2 --out %s --force --threads 1 --task add:digits=1 %s%s",
                  sft ? "sft" : "train --no-check --method grpo --prompts 2 --rollouts 2",
                  base.s, run.s,
                  sft ? "--batch 1 --data " : "", sft ? data.s : "") == 0, "%s", cli_err);
        char *card = read_file(path_join(run.s, "checkpoint-2/README.md").s, &n);
        char *lines = read_file(path_join(run.s, "metrics.jsonl").s, &n);
        char hash[64], *last = strstr(strchr(lines, '\n'), "\"weights_hash\": \"");
        snprintf(hash, sizeof hash, "- weights_hash: %.16s\n", last + 17);
        CHECK(!strstr(card, "I am the base") && strstr(card, expected.s) && strstr(card, hash) &&
                  strstr(card, "- steps: 2 of 2\n") &&
                  strstr(card, sft ? "- method: sft" : "- method: grpo\n") &&
                  strstr(card, sft ? data.s : "- task: \"add:digits=1\"\n"), "%s", card);
        free(card);
        free(lines);
    }
    model_free(&m);
    buf_free(&expected);
}

/* ---------------------------------------------------------------- tokenizers */

/* A directory whose tokenizer.json is that of tests/tok with an edit, if any. */
static Path tokenizer_dir(const char *name, const Edit *edit)
{
    Path dir = test_dir(name);
    copy_file(edited_tokenizer(edit, edit->from != NULL).s, path_join(dir.s, "tokenizer.json").s);
    return dir;
}

/* The ids of a text, as `tokenize` prints them; "" for an error. */
static const char *ids_of(const char *dir, const char *text)
{
    Buf line = {0};
    buf_str(&line, "{\"text\": ");
    json_put_string(&line, text, strlen(text));
    buf_str(&line, "}\n");
    bool good = cli_in(line.s, "tokenize --tokenizer %s", dir) == 0;
    char *ids = strstr(cli_out, "[");
    buf_free(&line);
    if (!good || !ids)
        return "";
    ids[strcspn(ids, "}")] = 0;
    return ids;
}

static void test_declared_tokens(void)
{
    static const Edit edit = MEMBER("added_tokens", "[", "[]");
    static const struct {
        const char *config, *map, *added, *ids; /* of "in<|im_end|>"; NULL: as plain text */
        const char *said;                       /* on stderr */
    } cases[] = {
        {"{}", NULL, NULL, NULL, NULL},
        {"{\"added_tokens_decoder\": {\"488\": {\"content\": \"<|im_end|>\", \"special\": true}}}",
         NULL, NULL, "[258, 488]", NULL},
        {"{\"eos_token\": \"<|im_end|>\"}", NULL, "{\"<|im_end|>\": 488}", "[258, 488]", NULL},
        {NULL, "{\"eos_token\": {\"content\": \"<|im_end|>\"}}", "{\"<|im_end|>\": 488}",
         "[258, 488]", NULL},
        {"{\"additional_special_tokens\": [\"in<\"], \"pad_token\": null}", NULL, NULL, NULL,
         "the special token \"in<\" has no id"},
        {"{\"added_tokens_decoder\": {\"x\": {\"content\": \"<|im_end|>\"}}}", NULL, NULL, "",
         "tokenizer_config.json: added_tokens_decoder: an entry"},
        {"{\"added_tokens_decoder\": [488]}", NULL, NULL, "",
         "tokenizer_config.json: added_tokens_decoder: expected an object"},
        {"{\"added_tokens_decoder\": {\"258\": {\"content\": \"<|im_end|>\"}}}", NULL, NULL, "",
         "id 258 belongs to \"in\""},
        {"{\"added_tokens_decoder\": {\"488\": {\"content\": \"<|im_end|>\"}}}", NULL,
         "{\"<|im_end|>\": 489}", "", "added_tokens.json: \"<|im_end|>\" has id 489, but 488"},
        {NULL, NULL, "{\"<|im_end|>\": \"488\"}", "", "added_tokens.json: line 1"},
    };
    Path dir = tokenizer_dir("declared", &edit);
    char plain[256];
    snprintf(plain, sizeof plain, "%s", ids_of(dir.s, "in<|im_end|>"));
    CHECK(!strstr(plain, "488"), "%s", plain);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *texts[] = {cases[i].config, cases[i].map, cases[i].added};
        for (int k = 0; k < N_SIBLINGS; k++) {
            Path file = path_join(dir.s, SIBLINGS[k]);
            unlink(file.s);
            if (texts[k])
                write_file(file.s, texts[k], strlen(texts[k]));
        }
        const char *ids = ids_of(dir.s, "in<|im_end|>");
        CHECK(!strcmp(ids, cases[i].ids ? cases[i].ids : plain), "case %zu: %s", i, ids);
        CHECK(cases[i].said ? says_only(cases[i].said) : !*cli_err, "case %zu: %s", i, cli_err);
        bool known = cases[i].ids && *cases[i].ids;
        CHECK(!known || (cli_in("{\"input_ids\": [258, 488]}\n", "tokenize --tokenizer %s --decode "
                                "--skip-special", dir.s) == 0 &&
                         !strcmp(cli_out, "{\"text\": \"in\"}\n")), "case %zu: %s", i, cli_out);
    }
    /* A name alone: the vocabulary has the id, and the token is matched whole, before the words. */
    unlink(path_join(dir.s, SIBLINGS[ADDED_TOKENS]).s);
    put_file("declared/tokenizer_config.json", "{\"mask_token\": \"in\"}");
    CHECK(!strcmp(ids_of(dir.s, " in"), "[220, 258]") && !*cli_err, "%s%s", cli_out, cli_err);
    /* So has the token of a name that encodes no bytes, and can be written in no other way. */
    edit_file(path_join(dir.s, "tokenizer.json").s, "\"vocab\": {",
              "\"vocab\": {\"<\357\275\234x\357\275\234>\": 500,");
    put_file("declared/tokenizer_config.json", "{\"eos_token\": \"<\357\275\234x\357\275\234>\"}");
    CHECK(!strcmp(ids_of(dir.s, "in<\357\275\234x\357\275\234>"), "[258, 500]") && !*cli_err,
          "%s%s", cli_out, cli_err);
    /* What tokenizer.json declares is as it says. */
    static const Edit none = {NULL, NULL};
    dir = tokenizer_dir("declared-2", &none);
    put_file("declared-2/tokenizer_config.json",
             "{\"added_tokens_decoder\": {\"488\": {\"content\": \"<|im_end|>\", "
             "\"lstrip\": true}}}");
    CHECK(!strcmp(ids_of(dir.s, "in <|im_end|>"), "[258, 220, 488]") && !*cli_err, "%s%s", cli_out,
          cli_err);
    /* A preset takes the files along. */
    CHECK(cli("sft --preset nano --tokenizer %s/tokenizer.json --steps 0 --force --out %s/taken",
              dir.s, tmp_dir()) == 0 &&
              same_files(path_join(dir.s, SIBLINGS[TOKENIZER_CONFIG]).s,
                         tmp_path("taken/checkpoint-0/tokenizer_config.json").s), "%s", cli_err);
}

static void test_one_bos(void)
{
    static const struct {
        const char *text, *ids;
    } cases[] = {
        {"in in", "[510, 258, 304]"}, {"<think>in in", "[510, 258, 304]"},
        {"<think>", "[510"}, {"<think><think>in", "[510, 510, 258]"},
        {"in<think>", "[510, 258, 510]"}, {" <think>in", "[510, 220, 510, 258]"},
    };
    static const Edit none = MEMBER("post_processor", "{", "null");
    Path dir = one_token_model("one-bos", 7, 1);
    Tokenizer t;
    copy_file(edited_tokenizer(&none, 1).s, path_join(dir.s, "tokenizer.json").s);
    put_file("one-bos/tokenizer_config.json",
             "{\"add_bos_token\": true, \"bos_token\": \"<think>\"}");
    for (size_t i = 0; i < LENGTH(cases); i++) {
        Buf line = {0};
        buf_printf(&line, "{\"text\": \"%s\"}\n", cases[i].text);
        CHECK(cli_in(line.s, "score --model %s", dir.s) == 0 && strstr(cli_out, cases[i].ids),
              "%s: %s%s", cases[i].text, cli_out, cli_err);
        buf_free(&line);
    }
    t = tokenizer_load(dir.s);
    size_t bad;
    Ids ids = {0};
    ids_add(&ids, 510); /* what stands before the prompt stays */
    tokenizer_prompt(&t, "<think>in", 9, &ids, &bad);
    CHECK(ids.n == 3 && ids.id[1] == 510 && ids.id[2] == 258, "%d ids", ids.n);
    ids.n = 0;
    tokenizer_prompt(&t, "", 0, &ids, &bad);
    CHECK(ids.n == 1 && ids.id[0] == 510, "an empty prompt");
    ids_free(&ids);
    tokenizer_free(&t);
}

/* ---------------------------------------------------------------- files of text */

static void check_template_file(const char *text, const char *what)
{
    Path path = put_file("windows.txt", text);
    Template t = template_open(path.s, NULL);
    Buf out = {0};
    template_render(&t, "1", &out);
    CHECK(!strcmp(out.s, "Q: 1\nA:"), "%s: '%s'", what, out.s);
    template_free(&t);
    buf_free(&out);
}

static void test_windows_files(void)
{
    static const struct {
        const char *text, *said;
        size_t n;
    } others[] = {
        {"[{\"prompt\": \"1\", \"answer\": 1}]", "is a JSON array; expected JSONL", 0},
        {"\n [\n", "is a JSON array; expected JSONL", 0},
        {"{ \n  \"prompt\": \"1\",\r\n  \"answer\": 1\n}\n",
         "is a JSON object over several lines", 0},
        {"\xFF\xFE{\0\"\0", "is UTF-16 text; expected plain text in UTF-8", 6},
        {"\xFE\xFF\0{\0\"", "is UTF-16 text", 6}, {"{\0\"\0", "is UTF-16 text", 4},
        {"\0{\0\"", "is UTF-16 text", 4}, {"\x1F\x8B\x08\0\0", "is gzip data", 5},
        {"PAR1\x15\x04", "is a Parquet file", 0}, {"PK\3\4..", "is a zip archive", 0},
        {"(\xB5/\xFD..", "is zstd data", 0}, {"\xFD" "7zXZ..", "is xz data", 0},
        {"ARROW1..", "is an Arrow file", 0},
    };
    const char *line = "{\"prompt\": \"4+5:\", \"response\": \"9\"}";
    char text[256];
    check_template_file("Q: {prompt}\nA:\n", "as it should be");
    check_template_file("Q: {prompt}\r\nA:\r\n", "CRLF");
    check_template_file("\xEF\xBB\xBFQ: {prompt}\nA:\n", "a byte order mark");
    CHECK(cli("data @%s", put_file("windows.opt", "\xEF\xBB\xBF--task add:digits=1\r\n"
              "--problems 2\r\n").s) == 0 &&
              says_only("windows.opt: begins with a byte order mark"), "%s", cli_err);
    snprintf(text, sizeof text, "\xEF\xBB\xBF%s\r\n%s\r\n", line, line);
    CHECK(cli("sft --preset nano --steps 0 --force --data %s --out %s/windows",
              put_file("windows.jsonl", text).s, tmp_dir()) == 0 &&
              strstr(cli_err, "windows.jsonl: begins with a byte order mark"), "%s", cli_err);
    CHECK(cli_in("\xEF\xBB\xBF{\"text\": \"in\"}\r\n",
                 "tokenize --tokenizer tests/tok/qwen3mini512") == 0 &&
              says_only("stdin: begins with a byte order mark"), "%s", cli_err);
    for (size_t i = 0; i < LENGTH(others); i++) {
        Path path = tmp_path("other.jsonl");
        write_file(path.s, others[i].text, others[i].n ? others[i].n : strlen(others[i].text));
        CHECK(cli("data --data %s", path.s) == 1 && says_only(others[i].said) &&
                  strstr(cli_err, path.s), "case %zu: %s", i, cli_err);
    }
    /* Bytes that the mark or a carriage return may be mistaken for stay. */
    static const char kept[] = "a\rb\r\r\nc\r";
    size_t n = strlen(kept);
    char *copy = xstrdup(kept);
    make_text(copy, "test", &n);
    CHECK(n == 7 && !strcmp(copy, "a\rb\r\nc\r"), "%zu bytes", n);
    free(copy);
}

static void test_null_is_missing(void)
{
    static const char *const config[][2] = {
        {"tie_word_embeddings", "null"}, {"attention_bias", "null"}, {"rope_theta", "null"},
        {"rms_norm_eps", "null"}, {"use_sliding_window", "null"}, {"max_window_layers", "null"},
    };
    static const char *const good[] = {
        "{\"question\": \"1+1?\", \"answer\": null, \"solution\": \"\\\\boxed{2}\"}",
        "{\"question\": \"1+1?\", \"problem\": null, \"answer\": 2, \"solution\": null}",
    };
    static const char *const bad[] = {"{\"question\": \"1+1?\", \"answer\": null}",
                                      "{\"question\": null, \"answer\": 2}"};
    for (size_t i = 0; i < LENGTH(config); i++)
        check_bad_config(config[i][0], config[i][1], NULL);
    for (int i = 0; i < 2; i++) {
        Problems p = problems_read(put_file("null.jsonl", good[i]).s, true);
        CHECK(!strcmp(p.problem[0].prompt, "1+1?") &&
                  !strcmp(p.problem[0].answer, i ? "2" : "\\boxed{2}"), "'%s', '%s'",
              p.problem[0].prompt, p.problem[0].answer);
        problems_free(&p);
        CHECK(cli("data --data %s", put_file("null.jsonl", bad[i]).s) == 1 &&
                  says_only(i ? "line 1: no question" : "line 1: no answer"), "%s", cli_err);
    }
    Path dir = one_token_model("null", 7, 1), file = path_join(dir.s, "model.safetensors");
    CHECK(cli_in("{\"input_ids\": [1, 2], \"text\": null}\n", "score --model %s", dir.s) == 0, "%s",
          cli_err);
    Path records = put_file("null.jsonl", "{\"text\": null, \"prompt\": \"in\", \"answer\": 12, "
                            "\"labels\": null}\n");
    CHECK(cli("sft --model %s --data %s --steps 1 --batch 1 --force --out %s/null-run", dir.s,
              records.s, tmp_dir()) == 0, "%s", cli_err);
    edit_file(file.s, "{\"format\":\"pt\"}", "null           ");
    CHECK(cli_in("{\"text\": \"in in\", \"input_ids\": null}\n", "score --model %s", dir.s) == 0,
          "%s", cli_err);
}

static void test_lfs_pointer(void)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:aa\nsize 988097824\n";
    static const char *const files[] = {"model.safetensors", "config.json", "tokenizer.json"};
    for (int i = 0; i < 3; i++) {
        Path dir = one_token_model("pointer", 7, 1), path = path_join(dir.s, files[i]);
        write_file(path.s, pointer, strlen(pointer));
        CHECK(cli("sample --model %s --prompt in", dir.s) == 1 &&
                  says_only("is a Git LFS pointer") && strstr(cli_err, path.s), "%s", cli_err);
    }
    Path dir = one_token_model("pointer", 7, 1), path = path_join(dir.s, "model.safetensors");
    write_file(path.s, "PK\3\4\0\0\0\0xxxxxxxx", 16);
    CHECK(cli("sample --model %s --prompt in", dir.s) == 1 &&
              says_only("model.safetensors: is a zip archive"), "%s", cli_err);
}

/* A line of conversations.jsonl: what transformers makes of messages, and which of their tokens
 * are the assistant's; or of a prompt that is messages. */
typedef struct {
    Buf template;
    Messages messages;
    bool asks; /* it is a prompt */
    Ids ids, trained;
} Conversation;

static Conversation conversation_read(Json *j)
{
    static const Config any = {.vocab_size = 512};
    Conversation x = {.asks = false};
    Buf key = {0};
    for (json_object(j); json_key(j, &key);)
        if (!strcmp(key.s, "template"))
            json_string(j, &x.template);
        else if (!strcmp(key.s, "input_ids"))
            x.ids.n = read_ids(j, &any, false, &x.ids.id, "conversations", 1);
        else if (!strcmp(key.s, "trained"))
            x.trained.n = read_ids(j, &any, false, &x.trained.id, "conversations", 1);
        else {
            x.asks = !strcmp(key.s, "prompt");
            messages_read(j, "conversations", &x.messages);
        }
    CHECK(json_end(j) && x.ids.n && x.messages.n, "%s", j->error);
    buf_free(&key);
    return x;
}

/* Qwen3's tokens renamed as Llama 3 has them. */
static Tokenizer renamed_tokenizer(bool llama)
{
    static const char *const names[][2] = {
        {"<|vision_start|>", "<|begin_of_text|>"}, {"<|vision_end|>", "<|start_header_id|>"},
        {"<|vision_pad|>", "<|end_header_id|>"}, {"<|image_pad|>", "<|eot_id|>"}};
    size_t n;
    char *text = read_file("tests/tok/qwen3mini512/tokenizer.json", &n), *rest = text, *found;
    Buf b = {0};
    for (size_t i = 0; llama && i < LENGTH(names); i++, rest = found + strlen(names[i - 1][0])) {
        found = strstr(rest, names[i][0]);
        CHECK(found != NULL, "%s", names[i][0]);
        buf_add(&b, rest, (size_t)(found - rest));
        buf_str(&b, names[i][1]);
    }
    buf_str(&b, rest);
    Tokenizer t = tokenizer_load(put_file("renamed.json", b.s).s);
    buf_free(&b);
    free(text);
    return t;
}

/* Records of sft and prompts of train, id by id, and the labels. */
static void test_conversations(void)
{
    size_t n, offset = 0;
    int line = 0, records = 0, prompts = 0;
    char *text = read_file("tests/tok/qwen3mini512/conversations.jsonl", &n);
    for (Json j; jsonl_next(text, n, &offset, &line, &j);) {
        Conversation x = conversation_read(&j);
        Session s = {.tokenizer = renamed_tokenizer(!strcmp(x.template.s, "llama3")),
                     .template = template_open(x.template.s, NULL)};
        Record r = {0};
        if (x.asks) {
            Buf rendered = {0};
            Problem p = {.prompt = (char *)x.messages.message[x.messages.n - 1].content,
                         .messages = x.messages};
            problem_render(&s.template, &p, &rendered);
            Ids ids = encode(&s.tokenizer, true, rendered.s, rendered.n, INT_MAX, "a prompt");
            r = record_of_ids(ids, ids.n);
            buf_free(&rendered);
            prompts++;
        } else {
            r = record_of_messages(&s, &x.messages, 0, "a record");
            records++;
        }
        /* what is after the last token that is trained on has no loss, and may be left out */
        int last = x.ids.n;
        while (!x.asks && !x.trained.id[last - 1])
            last--;
        bool same = r.n == last;
        for (int i = 0; i < last && same; i++)
            same = r.ids[i] == x.ids.id[i] &&
                   r.labels[i] == (!x.asks && x.trained.id[i] ? x.ids.id[i] : NOT_TRAINED);
        CHECK(same, "line %d, %s: %d tokens, not %d, or others", line, x.template.s, r.n, last);
        record_free(&r);
        messages_free(&x.messages);
        ids_free(&x.ids);
        ids_free(&x.trained);
        buf_free(&x.template);
        tokenizer_free(&s.tokenizer);
    }
    CHECK(records == 12 && prompts == 9, "%d records, %d prompts", records, prompts);
    free(text);
}

/* A number of the first line of a run's metrics.jsonl. */
static double metric(const char *run, const char *name)
{
    size_t n;
    char *metrics = read_file(path_join(path_join(tmp_dir(), run).s, "metrics.jsonl").s, &n);
    double x = field(metrics, name);
    free(metrics);
    return x;
}

/* Of a turn that is given as text, or as messages: one record. And what cannot be trained on. */
static void test_message_records(void)
{
    Path dir = one_token_model("talk", 7, 1);
    put_file("talk/generation_config.json", "{\"eos_token_id\": 488}"); /* <|im_end|> */
    const char *question = "[{\"role\": \"user\", \"content\": \"in\"}]";
    const char *reply = "[{\"role\": \"assistant\", \"content\": \"an ant\"}]";
    static const char *const forms[] = {
        "{\"prompt\": \"in\", \"response\": \"an ant\"}", "{\"prompt\": Q, \"completion\": R}",
        "{\"prompt\": Q, \"output\": \"an ant\"}", "{\"prompt\": \"in\", \"response\": R}",
        "{\"messages\": [Q, R]}", "{\"messages\": [Q, R], \"prompt\": \"not this\"}",
        "{\"prompt\": \"in\", \"ground_truth\": \"no\", \"output\": \"an ant\"}"};
    double loss = 0;
    for (size_t i = 0; i < LENGTH(forms); i++) {
        Buf b = {0};
        for (const char *f = forms[i]; *f; f++)
            if (*f == '[' || (*f == ']' && f > forms[i]))
                buf_add(&b, f, 1);
            else if ((*f == 'Q' || *f == 'R') && (f[-1] == ' ' || f[-1] == '[')) {
                bool inside = f[-1] == '[' || f[1] == ']';
                const char *list = *f == 'Q' ? question : reply;
                buf_add(&b, list + inside, strlen(list) - 2 * inside);
            } else
                buf_add(&b, f, 1);
        CHECK(cli("sft --model %s --template chatml --data %s --steps 1 --batch 1 --force --out "
                  "%s/talk-run", dir.s, put_file("talk.jsonl", b.s).s, tmp_dir()) == 0, "%s: %s",
              b.s, cli_err);
        double x = metric("talk-run", "loss"), tokens = metric("talk-run", "tokens");
        CHECK(i ? x == loss : x > 0, "%s: loss %.17g, not %.17g", b.s, x, loss);
        CHECK(tokens == 4, "%s: %g tokens", b.s, tokens);
        loss = x;
        buf_free(&b);
    }
    /* an assistant's message that is part of the prompt is not learned */
    Buf later = {0};
    size_t inside = strlen(question) - 2;
    buf_printf(&later, "{\"prompt\": [%.*s, %.*s, %.*s], \"completion\": %s}", (int)inside,
               question + 1, (int)strlen(reply) - 2, reply + 1, (int)inside, question + 1, reply);
    CHECK(cli("sft --model %s --template chatml --data %s --steps 1 --batch 1 --force --out "
              "%s/talk-run", dir.s, put_file("talk.jsonl", later.s).s, tmp_dir()) == 0 &&
              metric("talk-run", "tokens") == 4, "%s: %s", later.s, cli_err);
    buf_free(&later);
    static const char *const bad[][3] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"in\"}]}", "--template chatml",
         "line 1: messages: none of the assistant's to train on"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"in\"}]}", "--template plain",
         "line 1: messages; they need --template qwen3|chatml|llama3"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"in\"}, {\"role\": \"assistant\", "
         "\"content\": \"in\"}]}", "--template chatml", "line 1: messages: role tool"},
        {"{\"messages\": [], \"text\": \"in\"}", "--template chatml",
         "line 1: messages: expected messages"},
        {"{\"prompt\": \"in\"}", "--template chatml",
         "line 1: expected prompt and response, messages, text"}};
    for (size_t i = 0; i < LENGTH(bad); i++)
        CHECK(cli("sft --model %s %s --data %s --steps 1 --out %s/no-talk", dir.s, bad[i][1],
                  put_file("talk.jsonl", bad[i][0]).s, tmp_dir()) == 1 && says_only(bad[i][2]),
              "%s: %s", bad[i][0], cli_err);
}

/* --system before messages without one, in sft and train; a group's prompt is the whole of them. */
static void test_message_system(void)
{
    Messages x = {0};
    Template t = template_open("chatml", "S");
    Buf b = {0};
    messages_add(&x, "user", "u");
    messages_fit(&x, &t, "here");
    messages_fit(&x, &t, "here");
    messages_render(&x, &t, true, &b, NULL);
    CHECK(!strcmp(b.s, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
                       "<|im_start|>assistant\n"), "%s", b.s);
    Problem one = {.prompt = "u", .messages = x}, two = one, three = {.prompt = "u"};
    Messages y = {0};
    messages_add(&y, "user", "v");
    two.messages = y;
    CHECK(problem_key(&one) == problem_key(&one) && problem_key(&one) != problem_key(&two) &&
          problem_key(&one) != problem_key(&three), "problems that differ before the question");
    buf_free(&b);
    messages_free(&x);
    messages_free(&y);
    template_free(&t);

    Path dir = one_token_model("asks", 7, 1);
    Path data = put_file("asked.jsonl",
                         "{\"messages\": [{\"role\": \"user\", \"content\": \"in\"}, "
                         "{\"role\": \"assistant\", \"content\": \"in\"}, "
                         "{\"role\": \"user\", \"content\": \"the end\"}], "
                         "\"ground_truth\": 12}\n");
    CHECK(cli("train --model %s --template chatml --data %s --steps 1 --prompts 1 --rollouts 3 "
              "--max-tokens 4 --no-check --out %s/message-run", dir.s, data.s, tmp_dir()) == 0,
          "%s", cli_err);
    size_t n;
    char *ledger = read_file(tmp_path("message-run/rollouts.jsonl").s, &n);
    CHECK(strstr(ledger, "\"prompt\": \"the end\"") && strstr(ledger, "\"answer\": \"12\""),
          "%.300s", ledger);
    free(ledger);
}

static void test_long_records(void)
{
    Buf lines = {0};
    const char *base = base_model(), *dir = tmp_dir();
    buf_str(&lines, "{\"prompt\": \"1+1:\", \"response\": \"2\"}\n{\"prompt\": \"");
    for (int i = 0; i < 300; i++)
        buf_str(&lines, "1");
    buf_str(&lines, "\", \"response\": \"");
    for (int i = 0; i < 211; i++) /* with the end token 512, which fits */
        buf_str(&lines, "2");
    size_t fits = lines.n;
    buf_str(&lines, "\"}\n");
    CHECK(cli("sft --model %s --data %s --steps 1 --batch 2 --force --out %s/records", base,
              put_file("records.jsonl", lines.s).s, dir) == 0 && !strstr(cli_err, "dropped"), "%s",
          cli_err);
    lines.n = fits;
    buf_str(&lines, "2\"}\n{\"input_ids\": [1");
    for (int i = 1; i < 513; i++)
        buf_str(&lines, ", 1");
    buf_str(&lines, "]}\n");
    CHECK(cli("sft --model %s --data %s --steps 1 --batch 2 --force --out %s/records", base,
              put_file("records.jsonl", lines.s).s, dir) == 0, "%s", cli_err);
    const char *dropped = "records.jsonl: dropped 2 of 3 records (66.7 %): over 512 tokens "
                          "(max_position_embeddings), the first in line 2\n";
    const char *said = strstr(cli_err, dropped), *again = said ? strstr(said + 1, dropped) : NULL;
    CHECK(again && !again[strlen(dropped)], "at first and at last: %s", cli_err);
    CHECK(cli("sft --model %s --data %s --steps 1 --out %s/no-record", base,
              put_file("records.jsonl", strchr(lines.s, '\n') + 1).s, dir) == 1 &&
              says_only("records.jsonl: all 2 records are over 512 tokens"), "%s", cli_err);
    CHECK(cli("sft --model %s --data %s --out %s/no-record", base,
              put_file("records.jsonl", "{\"prompt\": \"1\", \"answer\": true}\n").s, dir) == 1 &&
              says_only("line 1: answer: expected a string or a number"), "%s", cli_err);
    buf_free(&lines);
}

#endif
