/* lora_test.h: tests of adapters: against PEFT's own numbers, their files, and every command. */
#ifndef TESTS_LORA_H
#define TESTS_LORA_H

#include "train_test.h"
#include "model_test.h"

/* ---------------------------------------------------------------- against PEFT */

/* A model with an adapter, as the trainer holds it. */
static Model adapter_for_training(const char *model, const char *adapter, bool packed)
{
    Model m = model_read(model);
    lora_attach(&m, lora_read(&m, adapter), model);
    lora_merge(&m, m.lora->start, 2);
    model_trainable(&m, false);
    rope_reserve(&m, 64);
    if (packed)
        model_pack(&m, 1);
    return m;
}

/* Three updates of A and B, and what the model says then. */
static void check_adapter_updates(const SafeTensors *st, Model *m, const Batch *b, float *coef)
{
    Model *ab = &m->lora->ab;
    AdamW adam = {0.9, 0.999, 1e-8, 0, 0, 0};
    for (int step = 0; step < 3; step++) {
        Outcome o = outcome_of(m, b, 1, coef, 1.0f, 2);
        adamw_step(&(Engine){.threads = 2}, m, &adam, 1e-3);
        outcome_free(&o);
    }
    for (int t = 0; t < ab->n_tensors; t++) {
        char name[128];
        snprintf(name, sizeof name, "adam3.%s", ab->tensors[t].name);
        if (ab->tensors[t].size)
            check_close(st, name, at(ab, ab->params, t), ab->tensors[t].size, 2e-4);
    }
    Outcome o = outcome_of(m, b, 1, coef, 1.0f, 1);
    check_close(st, "logprobs_adam3", o.logprob, o.n, 2e-4);
    outcome_free(&o);
}

static void check_adapter(const char *root, const char *model, const char *adapter)
{
    float coef[SEQS * TOKENS] = {0};
    Path dir = path_printf("%s/models/%s", root, model);
    Path files = path_printf("%s/adapters/%s", root, adapter);
    SafeTensors st = oracle_open(root, adapter, "lora");
    Arena a = arena_new(1 << 16);
    Batch b = oracle_batch(&a, &st);
    Model base = model_for_training(dir.s, false);
    Model m = adapter_for_training(dir.s, files.s, false);
    Model packed = adapter_for_training(dir.s, files.s, true), *ab = &m.lora->ab;
    for (int i = 0; i < b.n_targets; i++)
        coef[i] = -1.0f / (float)b.n_targets;
    Outcome w = outcome_of(&base, &b, 1, coef, 1.0f, 1);
    Outcome o = outcome_of(&m, &b, 1, coef, 1.0f, 1), o3 = outcome_of(&m, &b, 1, coef, 1.0f, 3);
    Outcome p = outcome_of(&packed, &b, 1, coef, 1.0f, 2);
    packed.recompute = true;
    Outcome q = outcome_of(&packed, &b, 1, coef, 1.0f, 3);
    check_same_outcome(&o, &o3, "threads");
    check_same_outcome(&o, &p, "packing");
    check_same_outcome(&o, &q, "recomputation");
    check_close(&st, "logprobs_base", w.logprob, w.n, 5e-5);
    check_close(&st, "logprobs", o.logprob, o.n, 5e-5);
    for (int t = 0; t < ab->n_tensors; t++) {
        char name[128];
        snprintf(name, sizeof name, "grad.%s", ab->tensors[t].name);
        if (ab->tensors[t].size)
            check_near(&st, name, at(ab, ab->grads, t), ab->tensors[t].size);
    }
    check_adapter_updates(&st, &m, &b, coef);
    for (Outcome *x[] = {&w, &o, &o3, &p, &q}, **k = x; k < x + 5; k++)
        outcome_free(*k);
    for (Model *x[] = {&base, &m, &packed}, **k = x; k < x + 3; k++)
        model_free(*k);
    arena_free(&a);
    st_close(&st);
}

static void test_lora_oracle(void)
{
    Path root;
    check_adapter("tests", "q3_tied_f32", "q3_tied_f32_r4");
    if (shared_dir(&root, "adapters") && shared_dir(&root, "."))
        check_adapter(root.s, "q2_tied_f32", "q2_tied_f32_r1_attn");
    else
        skip("the oracle's other adapter needs ../shared/data");
}

/* ---------------------------------------------------------------- files */

static const char LORA_BASE[] = "tests/models/q3_tied_f32";
static const char SCORED[] = "{\"input_ids\": [1, 2]}\n";

/* Writes an adapter made by hand: A and B of layer 0's q_proj (rank rq) and down_proj (rank rd), in
 * `dtype`; `more`: members of its configuration. */
static Path put_adapter(const char *name, int rq, int rd, int dtype, const char *more)
{
    Model m = model_read(LORA_BASE);
    int n = m.config.num_hidden_layers * LINEARS, *rank = xcalloc((size_t)n, sizeof *rank);
    Path dir = tmp_path(name);
    rank[0] = rq;
    rank[6] = rd;
    Lora *l = lora_new(&m, rank, 3);
    StOut out[4];
    int k = 0;
    for (int t = 0; t < l->ab.n_tensors; t++) {
        const Tensor *x = &l->ab.tensors[t];
        for (size_t i = 0; i < x->size; i++)
            at(&l->ab, l->ab.params, t)[i] = (float)((int)(i * 7 % 16) - 8) / 16;
        if (x->size)
            out[k++] = (StOut){x->name, 2, {x->rows, x->cols}, at(&l->ab, l->ab.params, t), dtype};
    }
    make_dirs(dir.s);
    st_write(path_join(dir.s, "adapter_model.safetensors").s, "", out, k);
    Path config = path_printf("{\"peft_type\": \"LORA\", \"r\": %d, \"lora_alpha\": 3, "
                              "\"base_model_name_or_path\": \"%s\"%s}", rq, LORA_BASE, more);
    write_file(path_join(dir.s, "adapter_config.json").s, config.s, strlen(config.s));
    lora_free(l);
    model_free(&m);
    free(rank);
    return dir;
}

/* W - W0 of one weight must be s B A, in double. */
static void check_delta(const Model *base, const Model *m, int weight, int r, double s)
{
    const Tensor *w = &m->tensors[weight];
    double worst = 0, largest = 0;
    for (int i = 0; i < w->rows; i++)
        for (int j = 0; j < w->cols; j++) {
            double sum = 0, is = (double)row(at(m, m->params, weight), i, w->cols)[j];
            for (int k = 0; k < r; k++)
                sum += ((i * r + k) * 7 % 16 - 8) / 16.0 * ((k * w->cols + j) * 7 % 16 - 8) / 16.0;
            double was = (double)row(at(base, base->params, weight), i, w->cols)[j];
            worst = fmax(worst, fabs(is - was - s * sum));
            largest = fmax(largest, fabs(s * sum));
        }
    CHECK(worst < 1e-6 * largest && largest > 0, "%s: off by %.1e of %.1e", w->name, worst,
          largest);
}

/* Where B is zero W has the bits of W0, a negative zero's too. */
static void check_negative_zero(void)
{
    Model m = model_read(LORA_BASE), again;
    Path dir = tmp_path("minus-zero");
    make_dirs(dir.s);
    for (int i = 0; i < 16; i++)
        at(&m, m.params, adapted(0, 1).weight)[i] = -0.0f;
    model_save(&m, dir.s);
    int n = m.config.num_hidden_layers * LINEARS, *rank = xcalloc((size_t)n, sizeof *rank);
    for (int i = 0; i < n; i++)
        rank[i] = 2;
    again = model_read(dir.s);
    lora_attach(&again, lora_new(&again, rank, 1), dir.s);
    lora_init(again.lora, 1);
    lora_merge(&again, again.lora->ab.params, 1);
    CHECK(weights_hash(&again) == weights_hash(&m), "B is zero, and W is not W0");
    model_free(&m);
    model_free(&again);
    free(rank);
}

/* Two ranks in one file, both scales, three dtypes: the same A and B in each, as they are. */
static void test_lora_files(void)
{
    static const int dtypes[] = {ST_F32, ST_BF16, ST_F16};
    Model base = model_read(LORA_BASE);
    int q = adapted(0, 0).weight, down = adapted(0, 6).weight;
    for (int i = 0; i < 6; i++) {
        bool root = i >= 3;
        Path dir = put_adapter("by-hand", 2, 3, dtypes[i % 3],
                               root ? ", \"use_rslora\": true, \"rank_pattern\": {\"down_proj\": 3}"
                                    : ", \"bias\": \"none\", \"alpha_pattern\": { }");
        Model m = model_load(dir.s);
        check_delta(&base, &m, q, 2, root ? 3 / sqrt(2) : 1.5);
        check_delta(&base, &m, down, 3, root ? 3 / sqrt(3) : 1);
        memcpy(at(&m, m.params, q), at(&base, base.params, q), base.tensors[q].size * 4);
        memcpy(at(&m, m.params, down), at(&base, base.params, down), base.tensors[down].size * 4);
        CHECK(weights_hash(&m) == weights_hash(&base), "another weight moved");
        model_free(&m);
    }
    check_negative_zero();
    static const char config[] = "\xEF\xBB\xBF{\r\n"
                                 "\"peft_type\": \"LORA\",\r\n\"lora_alpha\": 3}\r\n";
    Path marked = put_adapter("windows", 1, 1, ST_F32, ""); /* a byte order mark, lines of CRLF */
    write_file(path_join(marked.s, "adapter_config.json").s, config, sizeof config - 1);
    CHECK(cli_in(SCORED, "score --model %s --adapter %s", LORA_BASE, marked.s) == 0 &&
              !strstr(cli_err, "line 1"), "%s", cli_err);
    Path from = put_adapter("rslora", 2, 2, ST_F16, ", \"use_rslora\": true");
    Path to = tmp_path("rslora-written");
    Model m = adapter_for_training(LORA_BASE, from.s, false);
    make_dirs(to.s);
    lora_save(m.lora, to.s);
    Model back = model_load(to.s), read = model_load(from.s);
    CHECK(weights_hash(&back) == weights_hash(&m), "written and read: another model");
    check_delta(&base, &back, q, 2, 3 / sqrt(2));
    check_delta(&base, &read, q, 2, 3 / sqrt(2));
    CHECK(cli_in(SCORED, "score --model %s", to.s) == 0, "%s", cli_err);
    for (Model *x[] = {&base, &m, &back, &read}, **k = x; k < x + 4; k++)
        model_free(*k);
}

static void check_no_adapter(const char *dir, const char *words)
{
    int status = cli_in(SCORED, "score --model %s --adapter %s", LORA_BASE, dir);
    CHECK(status == 1 && strstr(cli_err, words), "expected '%s': %s", words, cli_err);
}

static void test_lora_refused(void)
{
    static const struct {
        const char *member, *words;
    } bad[] = {
        {", \"peft_type\": \"IA3\"", "peft_type is 'IA3'; expected LORA"},
        {", \"use_dora\": true", "use_dora is true"},
        {", \"bias\": \"all\"", "bias is \"all\""},
        {", \"lora_bias\": true", "lora_bias is true"},
        {", \"modules_to_save\": [\"lm_head\"]", "modules_to_save is [\"lm_head\"]"},
        {", \"fan_in_fan_out\": true", "fan_in_fan_out is true"},
        {", \"layer_replication\": [[0, 1]]", "layer_replication is [[0,1]]"},
        {", \"trainable_token_indices\": [1]", "trainable_token_indices is [1]"},
        {", \"target_parameters\": [\"a\"]", "target_parameters is [\"a\"]"},
        {", \"use_qalora\": true", "use_qalora is true"},
        {", \"use_bdlora\": {\"a\": 1}", "use_bdlora is"},
        {", \"kasa_config\": {\"a\": 1}", "kasa_config is"},
        {", \"monteclora_config\": {\"a\": 1}", "monteclora_config is"},
        {", \"alora_invocation_tokens\": [1]", "alora_invocation_tokens is [1]"},
        {", \"alpha_pattern\": {\"q_proj\": 4}", "alpha_pattern is {\"q_proj\":4}"},
        {", \"init_lora_weights\": \"pissa_niter_4\"", "init_lora_weights 'pissa_niter_4'"},
        {", \"init_lora_weights\": \"olora\"", "init_lora_weights 'olora'"},
        {", \"init_lora_weights\": \"corda\"", "init_lora_weights 'corda'"},
        {", \"init_lora_weights\": \"loftq\"", "init_lora_weights 'loftq'"},
        {", \"init_lora_weights\": \"lora_ga\"", "init_lora_weights 'lora_ga'"},
        {", \"lora_alpha\": 0", "lora_alpha is 0"},
        {", \"lora_alpha\": \"x\"", "line 1: "},
    };
    static const char *const good[] = {"\"gaussian\"", "\"eva\"", "\"orthogonal\"", "true", "null"};
    const float one[64] = {1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_no_adapter(put_adapter("bad-adapter", 1, 1, ST_F32, bad[i].member).s, bad[i].words);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Path member = path_printf(", \"init_lora_weights\": %s", good[i]);
        Path dir = put_adapter("good-adapter", 1, 1, ST_F32, member.s);
        CHECK(cli_in(SCORED, "score --model %s --adapter %s", LORA_BASE, dir.s) == 0, "%s",
              cli_err);
    }
    Path dir = put_adapter("bad-adapter", 1, 1, ST_F32, "");
    Path two = put_adapter("two-ranks", 2, 3, ST_F32, "");
    Path file = path_join(dir.s, "adapter_model.safetensors");
#define Q "model.layers.0.self_attn.q_proj"
    StOut prefix = {Q ".lora_A.weight", 2, {1, 32}, one, ST_F32};
    st_write(file.s, "", &prefix, 1);
    check_no_adapter(dir.s, "tensor " Q ".lora_A.weight belongs to no linear weight");
    StOut half = {"base_model.model." Q ".lora_A.weight", 2, {1, 32}, one, ST_F32};
    st_write(file.s, "", &half, 1);
    check_no_adapter(dir.s, Q ".lora_A.weight alone; expected base_model.model." Q ".lora_B");
    StOut wide[2] = {{half.name, 2, {1, 3}, one, ST_F32},
                     {"base_model.model." Q ".lora_B.weight", 2, {64, 1}, one, ST_F32}};
    st_write(file.s, "", wide, 2);
    check_no_adapter(dir.s, "expected [1, ");
    StOut flat[2] = {{half.name, 1, {32}, one, ST_F32}, wide[1]};
    st_write(file.s, "", flat, 2);
    check_no_adapter(dir.s, "has shape [32]; expected [r, ");
#undef Q
    st_write(file.s, "", NULL, 0);
    check_no_adapter(dir.s, "holds no adapter");
    check_no_adapter(tmp_dir(), "adapter_config.json: is not there");
    CHECK(cli_in(SCORED, "score --model %s --adapter %s", two.s, two.s) == 1 &&
              strstr(cli_err, "is an adapter itself"), "%s", cli_err);
    CHECK(cli("train --model %s --adapter %s --out %s/x", LORA_BASE, two.s, tmp_dir()) == 1 &&
              strstr(cli_err, "ranks 2 and 3"), "%s", cli_err);
    CHECK(cli("train --model %s --lora 2 --out %s/x", two.s, tmp_dir()) == 1 &&
              strstr(cli_err, "--adapter to go on with it"), "%s", cli_err);
    CHECK(cli("train --model %s --lora 2 --adapter %s --out %s/x", LORA_BASE, two.s,
              tmp_dir()) == 2 && strstr(cli_err, "expected one of them"), "%s", cli_err);
    CHECK(cli("train --model %s --lora 2 --dtype bf16 --out %s/x", LORA_BASE, tmp_dir()) == 2 &&
              strstr(cli_err, "--dtype"), "%s", cli_err);
    CHECK(cli("train --lora 2 --out %s/x", tmp_dir()) == 2 && strstr(cli_err, "--model is missing"),
          "%s", cli_err);
    CHECK(cli("sft --preset nano --lora 2 --out %s/x", tmp_dir()) == 2 &&
              strstr(cli_err, "--lora"), "%s", cli_err);
    Path large = put_adapter("large", 1, 1, ST_F32, ", \"lora_alpha\": 1e8");
    CHECK(cli("merge --model %s --adapter %s --dtype f16 --out %s/x", LORA_BASE, large.s,
              tmp_dir()) == 1 && strstr(cli_err, "F16 cannot"), "%s", cli_err);
    DIR *dir_of_x = opendir(tmp_dir());
    for (struct dirent *entry; (entry = readdir(dir_of_x));)
        CHECK(strcmp(entry->d_name, "x") && strncmp(entry->d_name, "x.", 2), "%s was left behind",
              entry->d_name);
    closedir(dir_of_x);
}

/* ---------------------------------------------------------------- runs */

/* The value of a text member in the last line of a file. */
static Path last_value(const char *path, const char *key)
{
    size_t n;
    char *text = read_file(path, &n), *last = text, *p;
    Path name = path_printf("\"%s\": ", key), value = {""};
    for (p = text; (p = strstr(p, name.s)); p++)
        last = p + strlen(name.s);
    value = path_printf("%.*s", (int)strcspn(last, ",}"), last);
    free(text);
    return value;
}

static void check_run(const char *options, const char *out)
{
    CHECK(cli("train --model %s --task add:digits=1 --prompts 4 --rollouts 12 --max-tokens 20 "
              "--force %s --out %s", base_model(), options, tmp_path(out).s) == 0, "%s: %s",
          options, cli_err);
}

static void check_equal_runs(const char *a, const char *b)
{
    static const char *const files[] = {"metrics.jsonl", "rollouts.jsonl"};
    for (int i = 0; i < 2; i++)
        CHECK(same_lines(path_printf("%s/%s/%s", tmp_dir(), a, files[i]).s,
                         path_printf("%s/%s/%s", tmp_dir(), b, files[i]).s), "%s and %s: other %s",
              a, b, files[i]);
}

/* Only what has an adapter has moved. */
static void check_frozen(const char *out)
{
    Model base = model_load(base_model()), m = model_load(tmp_path(out).s);
    for (int t = 0; t < m.n_tensors; t++) {
        size_t bytes = m.tensors[t].size * sizeof(float);
        bool same = !memcmp(at(&m, m.params, t), at(&base, base.params, t), bytes);
        bool linear = strstr(m.tensors[t].name, "_proj.weight") != NULL;
        CHECK(!bytes || same != linear, "%s: %s", m.tensors[t].name, same ? "is W0" : "moved");
    }
    model_free(&base);
    model_free(&m);
}

static void test_lora_train(void)
{
    static const char *const how[] = {"--threads 1", "--threads 3 --micro-batch 1",
                                      "--threads 2 --recompute", "--threads 7 --micro-batch 2"};
    Path base_metrics = path_join(base_model(), "metrics.jsonl"), run = tmp_path("lora-0");
    Path metrics = tmp_path("lora-0/metrics.jsonl");
    setenv("OMP_WAIT_POLICY", "passive", 1);
    for (int i = 0; i < 4; i++) {
        Path options = path_printf("--lora 3 --lr 3e-3 --steps 4 %s", how[i]);
        check_run(options.s, i ? "lora-1" : "lora-0");
        if (i)
            check_equal_runs("lora-0", "lora-1");
    }
    unsetenv("OMP_WAIT_POLICY");
    check_frozen("lora-0");
    CHECK(always_on_policy(metrics.s, 4), "logp_gap is not 0");
    CHECK(atof(last_value(metrics.s, "kl_exact").s) > 1e-6, "the reference follows the policy");
    CHECK(strlen(last_value(metrics.s, "adapter_hash").s) == 18, "no adapter_hash");

    check_run("--lora 3 --steps 0", "lora-none"); /* B = 0 */
    Model m = model_load(tmp_path("lora-none").s);
    Path hash = path_printf("\"%016llx\"", (unsigned long long)weights_hash(&m));
    CHECK(!strcmp(hash.s, last_value(base_metrics.s, "weights_hash").s), "%s is not the base",
          hash.s);
    model_free(&m);

    check_run("--lora 3 --lr 3e-3 --steps 2", "lora-half"); /* stopped, and gone on with */
    CHECK(cli("train --resume --steps 4 --out %s", tmp_path("lora-half").s) == 0, "%s", cli_err);
    check_equal_runs("lora-0", "lora-half");
    Path go_on = path_printf("--adapter %s --steps 2 --kl exact --kl-coef 0.1", run.s);
    check_run(go_on.s, "lora-on"); /* the reference: base and adapter */
    CHECK(fabs(atof(last_value(tmp_path("lora-on/metrics.jsonl").s, "kl_exact").s)) < 1e-2 &&
              atof(last_value(tmp_path("lora-on/metrics.jsonl").s, "kl_exact").s) > 0,
          "the reference is not the adapter that training began with");
    CHECK(cli("train --resume --steps 3 --out %s", tmp_path("lora-on").s) == 0, "%s", cli_err);

    CHECK(cli("replay %s --step 3 --group 1 --rollout 2", run.s) == 0, "%s", cli_err);
    CHECK(cli("eval --json --model %s --task add:digits=1 --problems 5 --samples 4 --max-tokens 20",
              run.s) == 0, "%s", cli_err);
    char *by_run = xstrdup(cli_out);
    CHECK(cli("eval --json --model %s --adapter %s --task add:digits=1 --problems 5 --samples 4 "
              "--max-tokens 20", base_model(), run.s) == 0 && !strcmp(by_run, cli_out), "%s%s",
          cli_err, cli_out);
    free(by_run);
    CHECK(cli("report %s %s --out %s/l.html", run.s, tmp_path("lora-half").s, tmp_dir()) == 0,
          "%s", cli_err);
    Path merged = tmp_path("lora-merged");
    CHECK(cli("merge --model %s --adapter %s --out %s", base_model(), run.s, merged.s) == 0 &&
              is_file(tmp_path("lora-merged/tokenizer.json").s), "%s", cli_err);
    m = model_load(merged.s);
    hash = path_printf("\"%016llx\"", (unsigned long long)weights_hash(&m));
    CHECK(!strcmp(hash.s, last_value(metrics.s, "weights_hash").s), "merge: another model");
    model_free(&m);
    CHECK(cli("merge --model %s --adapter %s --out %s", base_model(), run.s, merged.s) == 1 &&
              strstr(cli_err, "is there already"), "%s", cli_err);

    CHECK(cli("sft --model %s --task add:digits=2 --lora 2 --lora-targets mlp --steps 3 --batch 8 "
              "--out %s", base_model(), tmp_path("lora-sft").s) == 0, "%s", cli_err);
    CHECK(cli("sft --model %s --task add:digits=2 --lora 2 --lora-targets mlp --steps 3 --batch 8 "
              "--threads 3 --micro-batch 3 --recompute --out %s", base_model(),
              tmp_path("lora-sft2").s) == 0, "%s", cli_err);
    CHECK(same_lines(tmp_path("lora-sft/metrics.jsonl").s, tmp_path("lora-sft2/metrics.jsonl").s),
          "sft: threads change its adapter");
    CHECK(cli("train --model %s --adapter %s --task add:digits=1 --steps 1 --force --out %s",
              merged.s, run.s, tmp_path("x").s) == 1 &&
              strstr(cli_err, "is not an adapter of this model"), "%s", cli_err);
}

#endif
