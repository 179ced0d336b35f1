/* model.h: tests of the whole model: gradients, oracle vectors, phi, equal bits, decoding, the
 * optimizer. */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include "kernels_test.h"

/* ---------------------------------------------------------------- gradients of the whole model */

static double model_loss(Layers *l)
{
    size_t mark = l->e.worker->used;
    Pass f = forward(&l->e.worker[0], &l->m, &l->b, KEEP_NOTHING);
    forward_head(&l->e.worker[0], &l->m, &f, l->temperature, false, NULL);
    double loss = weighted_sum(f.head.logprob, l->weight, (size_t)l->b.n_targets);
    l->e.worker->used = mark;
    return loss;
}

/* Every tensor of a model, over two prompts with responses that share them. */
static void check_model_gradient(ModelType type, bool tied)
{
    enum { V = TILE + 20 };
    static const Tree trees[] = {{5, 3, {4, 7, 1}}, {34, 2, {3, 9}}};
    Layers l = {.m = tiny_model(type, tied, V), .temperature = 0.8f, .weight = noise_new(56, 64)};
    l.e = nan_engine(1, pass_bytes(&l.m, 64, 64, 64, KEEP_ALL) + (1 << 20));
    l.b = batch_new(&l.e.arena, 64, 8, 64);
    for (int i = 0; i < 2; i++)
        add_tree(&l.b, &trees[i], V, (uint32_t)i);
    Pass f = forward(&l.e.worker[0], &l.m, &l.b, KEEP_ALL);
    forward_head(&l.e.worker[0], &l.m, &f, l.temperature, true, NULL);
    f.coef.logprob = l.weight;
    backward(&l.e, &l.m, &f, 1);
    grads_finish(&l.m);
    l.e.worker->used = 0;
    for (int t = 0; t < l.m.n_tensors; t++) {
        char what[128];
        snprintf(what, sizeof what, "%s, %s head: %s", MODEL_TYPES[type], tied ? "tied" : "own",
                 l.m.tensors[t].name);
        if (l.m.tensors[t].size)
            check_gradient(model_loss, &l, at(&l.m, l.m.params, t), at(&l.m, l.m.grads, t),
                           l.m.tensors[t].size, 4, what);
    }
    layers_free(&l);
}

static void test_model_gradient(void)
{
    for (int type = QWEN3; type <= MISTRAL; type++)
        for (int tied = 0; tied < 2; tied++)
            check_model_gradient((ModelType)type, tied);
}

/* ---------------------------------------------------------------- what a pass leaves behind */

/* Everything that a training pass computes, over one or more batches whose gradients add up. */
typedef struct {
    size_t n, d, n_grads; /* targets, hidden_size, floats of gradient (a tied head's own too) */
    float *logprob, *entropy, *phi, *hidden, *grads;
} Outcome;

static void outcome_free(Outcome *o)
{
    free(o->logprob);
    free(o->entropy);
    free(o->phi);
    free(o->hidden);
    free(o->grads);
}

/* Batches as the parts of one, and where their outcome goes. */
typedef struct {
    const Model *m;
    const Batch *batch;
    float *coef;
    float temperature;
    Outcome *o;
} Parts;

static Pass forward_part(Arena *a, const Parts *x, int i, Keep keep)
{
    size_t done = 0, count = (size_t)x->batch[i].n_targets, d = x->o->d;
    for (int k = 0; k < i; k++)
        done += (size_t)x->batch[k].n_targets;
    Pass p = forward(a, x->m, &x->batch[i], keep);
    forward_head(a, x->m, &p, x->temperature, true, NULL);
    memcpy(x->o->logprob + done, p.head.logprob, count * sizeof(float));
    memcpy(x->o->entropy + done, p.head.entropy, count * sizeof(float));
    memcpy(x->o->phi + done * d, p.head.phi, count * d * sizeof(float));
    memcpy(x->o->hidden + done * d, p.hidden, count * d * sizeof(float));
    p.coef.logprob = x->coef + done;
    return p;
}

/* Adds the gradient over n parts to the model's, as many passes at once as the engine has memory
 * for. */
static void parts_gradient(Engine *e, Model *m, const Parts *x, int n)
{
    enum { MOST = 8 };
    Keep keep = m->recompute ? KEEP_INPUTS : KEEP_ALL;
    Pass p[MOST];
    for (int first = 0, k; first < n; first += k) {
        k = imin(passes_at_once(e, n), n - first);
        workers_reset(e);
        if (k == 1) {
            e->worker[0].threads = imin(e->threads, HELPERS);
            p[0] = forward_part(&e->worker[0], x, first, keep);
            e->worker[0].threads = 1;
        } else {
            PARALLEL_FOR_DYNAMIC (e->threads)
            for (int i = 0; i < k; i++)
                p[i] = forward_part(&e->worker[i], x, first + i, keep);
        }
        backward(e, m, p, k);
        CHECK(e->worker[0].threads == 1 && e->arena.used == 0,
              "backward does not leave the engine as it found it");
    }
}

/* The gradient over n batches, coef[i] = dL / d log p of target i, in memory of exactly the size
 * that pass_bytes asks for. The gradients stay in the model too, not yet finished. */
static Outcome outcome_of(Model *m, const Batch *b, int n, float *coef, float temperature,
                          int threads)
{
    Outcome o = {.d = (size_t)m->config.hidden_size, .n_grads = trained(m)->n_grads};
    Parts parts = {m, b, coef, temperature, &o};
    size_t most = 0, piece = 0;
    for (int i = 0; i < n; i++) {
        size_t bytes = pass_bytes(m, b[i].n_rows, b[i].n_targets, batch_keys(&b[i]),
                                  m->recompute ? KEEP_INPUTS : KEEP_ALL);
        most = bytes > most ? bytes : most;
        bytes = pieces_bytes(m, b[i].n_rows, b[i].n_targets);
        piece = bytes > piece ? bytes : piece;
        o.n += (size_t)b[i].n_targets;
    }
    o.logprob = nan_new(o.n);
    o.entropy = nan_new(o.n);
    o.phi = nan_new(o.n * o.d);
    o.hidden = nan_new(o.n * o.d);
    Engine e = m->recompute ? engine_one_pass(threads, 1 << 12, most, piece)
                            : engine_new(threads, 1 << 12, most);
    for (int i = 0; i < threads; i++)
        memset(e.worker[i].base, 0xFF, e.worker[i].capacity);
    grads_zero(m);
    parts_gradient(&e, m, &parts, n);
    o.grads = copy_new(trained(m)->grads, o.n_grads);
    engine_free(&e);
    return o;
}

static void check_same_outcome(const Outcome *a, const Outcome *b, const char *what)
{
    CHECK(same_bits(a->logprob, b->logprob, a->n), "log-probs change with %s", what);
    CHECK(same_bits(a->entropy, b->entropy, a->n), "entropies change with %s", what);
    CHECK(same_bits(a->phi, b->phi, a->n * a->d), "phi changes with %s", what);
    CHECK(same_bits(a->grads, b->grads, a->n_grads), "gradients change with %s", what);
}

/* ---------------------------------------------------------------- oracle vectors */

/* Vectors made in float64 by an independent program; tolerances as its README gives them for a
 * float32 program. */
enum { SEQS = 3, TOKENS = 29, GRAD = 1, WGRAD = 2, ADAM = 4, ADAMW = 8 };

/* The values of a tensor of an oracle file. NaN, which no check passes, if it is not there. */
static float *oracle_values(const SafeTensors *st, const char *name, size_t n)
{
    const StTensor *t = st_find(st, name);
    float *x = nan_new(n);
    CHECK(t && t->dtype == ST_F32 && t->bytes == n * sizeof(float), "%s: no %s of %zu floats",
          st->path, name, n);
    if (t && t->dtype == ST_F32 && t->bytes == n * sizeof(float))
        st_read_f32(t, x);
    return x;
}

static SafeTensors oracle_open(const char *root, const char *model, const char *part)
{
    char name[128];
    snprintf(name, sizeof name, "oracle/%s.%s.safetensors", model, part);
    return st_open_file(path_join(root, name).s);
}

static void check_close(const SafeTensors *st, const char *name, const float *x, size_t n,
                        double limit)
{
    float *y = oracle_values(st, name, n);
    double error = largest_error(x, y, n);
    CHECK(error < limit, "%s: %s is off by %.1e", st->path, name, error);
    free(y);
}

/* By the norm of the whole. */
static void check_near(const SafeTensors *st, const char *name, const float *x, size_t n)
{
    float *y = oracle_values(st, name, n);
    double error = relative_error(x, y, n);
    CHECK(error < 1e-5, "%s: %s is off by %.1e of its norm", st->path, name, error);
    free(y);
}

/* The oracle's three sequences, each token but the first a target. */
static Batch oracle_batch(Arena *a, const SafeTensors *st)
{
    int32_t tokens[SEQS * TOKENS];
    int64_t shape[2] = {SEQS, TOKENS};
    Batch b = batch_new(a, SEQS * TOKENS, SEQS, SEQS * TOKENS);
    st_read_i32(st_need(st, "tokens", 2, shape), tokens);
    for (int s = 0; s < SEQS; s++) {
        int row = b.n_rows;
        batch_seq(&b, tokens + s * TOKENS, TOKENS - 1, 0, -1);
        for (int i = 1; i < TOKENS; i++)
            batch_target(&b, row + i - 1, tokens[s * TOKENS + i]);
    }
    return b;
}

/* hidden_final has the last row too, which predicts nothing. */
static void check_hidden(const SafeTensors *st, const Outcome *o)
{
    size_t d = o->d, row = (TOKENS - 1) * d;
    float *y = oracle_values(st, "hidden_final", SEQS * TOKENS * d);
    for (int s = 1; s < SEQS; s++)
        memmove(y + (size_t)s * row, y + (size_t)s * TOKENS * d, row * sizeof *y);
    CHECK(relative_error(o->hidden, y, o->n * d) < 1e-5, "%s: hidden_final is off by %.1e",
          st->path, relative_error(o->hidden, y, o->n * d));
    free(y);
}

static void check_oracle_grads(const char *root, const char *model, const char *part, Model *m)
{
    SafeTensors st = oracle_open(root, model, part);
    grads_finish(m);
    for (int t = 0; t < m->n_tensors; t++) {
        char name[128];
        snprintf(name, sizeof name, "grad.%s", m->tensors[t].name);
        if (m->tensors[t].size)
            check_near(&st, name, at(m, m->grads, t), m->tensors[t].size);
    }
    st_close(&st);
}

/* Three updates on `loss`, and the weights after them. (The reference's rotary angles are doubles,
 * so that gradients differ by 1e-6 or so. Adam's first steps are about lr * sign(g): where g is as
 * small as that, a weight may differ by a step, 1e-3; few may.) */
static void check_oracle_updates(const char *root, const char *model, const char *part, Model *m,
                                 const Batch *b, AdamW adam)
{
    float coef[SEQS * TOKENS] = {0};
    SafeTensors st = oracle_open(root, model, part);
    size_t far = 0;
    double sum = 0, most = 0;
    for (int i = 0; i < b->n_targets; i++)
        coef[i] = -1.0f / (float)b->n_targets;
    for (int step = 0; step < 3; step++) {
        Outcome o = outcome_of(m, b, 1, coef, 1.0f, 2);
        adamw_step(&(Engine){.threads = 2}, m, &adam, 1e-3);
        outcome_free(&o);
    }
    for (int t = 0; t < m->n_tensors; t++) {
        if (!m->tensors[t].size)
            continue;
        float *y = oracle_values(&st, m->tensors[t].name, m->tensors[t].size);
        for (size_t i = 0; i < m->tensors[t].size; i++) {
            double error = fabs((double)at(m, m->params, t)[i] - (double)y[i]);
            far += !(error < 2e-6);
            sum += error;
            most = fmax(most, error);
        }
        free(y);
    }
    CHECK(sum / (double)m->n_params < 1e-6, "%s: weights off by %.1e on average", st.path,
          sum / (double)m->n_params);
    CHECK((double)far < 1e-3 * (double)m->n_params, "%s: %zu weights are off", st.path, far);
    CHECK(most < 1e-3, "%s: a weight is off by %.1e", st.path, most);
    st_close(&st);
}

/* A model as the trainer holds it: ready for gradients, and for 192 positions. */
static Model model_for_training(const char *dir, bool packed)
{
    Model m = model_load(dir);
    model_trainable(&m, false);
    rope_reserve(&m, 192);
    if (packed)
        model_pack(&m, 1);
    return m;
}

static void check_oracle(const char *root, const char *model, int parts)
{
    char below[128];
    float coef[SEQS * TOKENS] = {0};
    snprintf(below, sizeof below, "models/%s", model);
    Path dir = path_join(root, below);
    SafeTensors st = oracle_open(root, model, "fwd");
    Arena a = arena_new(1 << 16);
    Batch b = oracle_batch(&a, &st);
    size_t n = (size_t)b.n_targets;
    Model m = model_for_training(dir.s, false), packed = model_for_training(dir.s, true);
    float *weights = oracle_values(&st, "wloss_weights", n), loss, wloss;
    for (size_t i = 0; i < n; i++)
        coef[i] = -1.0f / (float)n;

    Outcome o = outcome_of(&m, &b, 1, coef, 1.0f, 1), o2 = outcome_of(&m, &b, 1, coef, 1.0f, 2);
    Outcome p = outcome_of(&packed, &b, 1, coef, 1.0f, 2);
    check_same_outcome(&o, &o2, "threads");
    check_same_outcome(&o, &p, "packing");
    loss = (float)weighted_sum(o.logprob, coef, n);
    wloss = -(float)weighted_sum(o.logprob, weights, n);
    check_close(&st, "logprobs", o.logprob, n, 5e-5);
    check_close(&st, "entropy", o.entropy, n, 5e-5);
    check_close(&st, "loss", &loss, 1, 1e-5);
    check_close(&st, "wloss", &wloss, 1, 1e-5);
    check_near(&st, "phi", o.phi, n * o.d);
    check_hidden(&st, &o);
    if (parts & GRAD)
        check_oracle_grads(root, model, "grad", &m);

    for (size_t i = 0; i < n; i++)
        coef[i] = -weights[i];
    Outcome w = outcome_of(&m, &b, 1, coef, 1.0f, 1), cool = outcome_of(&m, &b, 1, coef, 0.8f, 1);
    check_close(&st, "logprobs_T0.8", cool.logprob, n, 5e-5);
    memcpy(m.grads, w.grads, m.n_grads * sizeof(float));
    if (parts & WGRAD)
        check_oracle_grads(root, model, "wgrad", &m);
    if (parts & ADAM)
        check_oracle_updates(root, model, "adam3", &m, &b, (AdamW){0.9, 0.999, 1e-8, 0, 0, 0});
    if (parts & ADAMW)
        check_oracle_updates(root, model, "adamw_clip3", &packed, &b,
                             (AdamW){0.9, 0.95, 1e-8, 0.1, 0.25, 0});
    for (Outcome *x[] = {&o, &o2, &p, &w, &cool}, **k = x; k < x + 5; k++)
        outcome_free(*k);
    free(weights);
    model_free(&m);
    model_free(&packed);
    arena_free(&a);
    st_close(&st);
}

/* One line of stories260k.greedy.jsonl. */
typedef struct {
    int n_prompt, n; /* ids of the prompt; ids in all */
    int id[128];
    double logprob[128];
} Story;

static int read_numbers(Json *j, double *out, int room)
{
    int n = 0;
    for (json_array(j); json_item(j); n += n < room - 1)
        json_number(j, &out[n]);
    return n;
}

static Story story_read(const char *line, size_t length)
{
    Story s = {0};
    Buf key = {0};
    double prompt[128], greedy[128];
    int n_greedy = 0;
    Json j = json_open(line, length);
    json_object(&j);
    while (json_key(&j, &key))
        if (!strcmp(key.s, "prompt_ids"))
            s.n_prompt = read_numbers(&j, prompt, 128);
        else if (!strcmp(key.s, "greedy_ids"))
            n_greedy = imin(read_numbers(&j, greedy, 128), 127 - s.n_prompt);
        else if (!strcmp(key.s, "logprobs"))
            read_numbers(&j, s.logprob, 128);
        else
            json_skip(&j);
    CHECK(json_end(&j) && s.n_prompt > 0 && n_greedy == 64, "greedy.jsonl cannot be read");
    for (int i = 0; i < s.n_prompt + n_greedy; i++)
        s.id[s.n++] = (int)(i < s.n_prompt ? prompt[i] : greedy[i - s.n_prompt]);
    buf_free(&key);
    return s;
}

/* The sampler at temperature 0 finds the same tokens. */
static void check_story_decoded(Model *m, const Story *s, int index)
{
    Extent x = {1, 1, s->n_prompt, s->n - s->n_prompt, 1, KEEP_NOTHING, false, SAVE_NOTHING};
    Engine e = extent_engine(m, 1, x);
    Group *g = groups_new(&e, m, x);
    Sampling greedy = {.temperature = 0, .top_p = 1, .max_tokens = x.max_tokens};
    g->prompt_length = s->n_prompt;
    memcpy(g->prompt, s->id, (size_t)s->n_prompt * sizeof(int));
    sample_groups(&e, m, g, 1, &greedy);
    CHECK(g->n_tokens == x.max_tokens &&
              !memcmp(g->token, s->id + s->n_prompt, (size_t)g->n_tokens * sizeof(int)),
          "story %d: sampled at temperature 0, %d tokens differ from the reference's", index,
          g->n_tokens);
    engine_free(&e);
}

/* A trained model: its logits, its log-probs, and that each greedy token is our largest logit. */
static void check_story(Model *m, const Story *s, const SafeTensors *st, int index)
{
    const Config *c = &m->config;
    int V = c->vocab_size, d = c->hidden_size;
    size_t rows = (size_t)s->n - 1, n_logits = rows * (size_t)V;
    Arena a = arena_new(1 << 16);
    Batch b = batch_new(&a, s->n, 1, s->n);
    float *coef = xcalloc(rows, sizeof *coef), *logits = nan_new(n_logits);
    double worst = 0;
    char name[32];
    batch_seq(&b, s->id, s->n - 1, 0, -1);
    for (int i = 1; i < s->n; i++)
        batch_target(&b, i - 1, s->id[i]);
    Outcome o = outcome_of(m, &b, 1, coef, 1.0f, 1);
    gemm_naive(logits, V, mat(o.hidden, s->n - 1, d), transposed(mat(head_weight(m), V, d)), NULL);
    snprintf(name, sizeof name, "logits.%d", index);
    check_close(st, name, logits, n_logits, 5e-5);
    for (int i = 0; i < s->n - 1; i++) {
        const float *z = logits + (ptrdiff_t)i * V;
        int best = 0;
        for (int v = 1; v < V; v++)
            best = z[v] > z[best] ? v : best;
        CHECK(i + 1 < s->n_prompt || best == s->id[i + 1], "story %d, token %d: %d; expected %d",
              index, i + 1, best, s->id[i + 1]);
        worst = fmax(worst, fabs((double)o.logprob[i] - s->logprob[i]));
    }
    CHECK(worst < 5e-5, "story %d: log-probs are off by %.1e", index, worst);
    check_story_decoded(m, s, index);
    free(coef);
    free(logits);
    outcome_free(&o);
    arena_free(&a);
}

static void check_stories(const char *root)
{
    size_t n;
    int index = 0;
    char *text = read_file(path_join(root, "oracle/stories260k.greedy.jsonl").s, &n);
    SafeTensors st = oracle_open(root, "stories260k", "logits");
    Model m = model_for_training(path_join(root, "models/stories260k").s, true);
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        Story s = story_read(line, (size_t)(end - line));
        check_story(&m, &s, &st, index++);
    }
    CHECK(index == 5, "%d stories; expected 5", index);
    model_free(&m);
    st_close(&st);
    free(text);
}

/* Rotary frequencies scaled as Llama 3.1 does: two sequences of 400 positions. */
static void check_long_positions(const char *root)
{
    enum { LONG = 400, ROWS = 2 * LONG };
    SafeTensors st = oracle_open(root, "llama3_rope", "fwd");
    Model m = model_load(path_join(root, "models/llama3_rope").s);
    static int32_t tokens[ROWS];
    static float coef[ROWS];
    int64_t shape[2] = {2, LONG};
    Arena a = arena_new(1 << 16);
    Batch b = batch_new(&a, ROWS, 2, ROWS);
    model_trainable(&m, false);
    rope_reserve(&m, LONG);
    st_read_i32(st_need(&st, "tokens", 2, shape), tokens);
    for (int s = 0; s < 2; s++) {
        int row = b.n_rows;
        batch_seq(&b, tokens + s * LONG, LONG - 1, 0, -1);
        for (int i = 1; i < LONG; i++)
            batch_target(&b, row + i - 1, tokens[s * LONG + i]);
    }
    for (int i = 0; i < b.n_targets; i++)
        coef[i] = -1.0f / (float)b.n_targets;
    Outcome o = outcome_of(&m, &b, 1, coef, 1.0f, 2);
    check_close(&st, "logprobs", o.logprob, o.n, 6e-5);
    for (int t = 0; t < m.n_tensors; t++) {
        char name[128];
        snprintf(name, sizeof name, "grad.%s", m.tensors[t].name);
        if (st_find(&st, name))
            check_near(&st, name, at(&m, m.grads, t), m.tensors[t].size);
    }
    outcome_free(&o);
    model_free(&m);
    arena_free(&a);
    st_close(&st);
}

static void test_oracle(void)
{
    static const struct {
        const char *model;
        int parts;
    } more[] = {
        {"q3_tied_f32", GRAD | WGRAD | ADAM | ADAMW},
        {"q3_untied_f32", GRAD | WGRAD | ADAM | ADAMW},
        {"q2_tied_f32", GRAD | ADAM},
        {"llama_untied_f32_theta500k", GRAD | ADAM},
        {"q3_tied_bf16", 0},
        {"q3_tied_f16_sharded", 0},
        {"q3_untied_bf16_sharded", 0},
    };
    Path root;
    check_oracle("tests", "q3_mqa_hd6_f32", GRAD | ADAM);
    if (!shared_dir(&root, "models") || !shared_dir(&root, "oracle") || !shared_dir(&root, ".")) {
        skip("the oracle's other eight models need ../shared/data");
        return;
    }
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        check_oracle(root.s, more[i].model, more[i].parts);
    check_long_positions(root.s);
    check_stories(root.s);
}

/* ---------------------------------------------------------------- phi */

/* log softmax(W h / T)[y], in double; `entropy` too if it is not NULL. */
static double exact_logprob(const double *h, const float *W, int V, int d, int y, double T,
                            double *entropy)
{
    double max = -HUGE_VAL, sum = 0, spread = 0, *z = xmalloc((size_t)V * sizeof *z), logprob;
    for (int v = 0; v < V; v++) {
        z[v] = 0;
        for (int i = 0; i < d; i++)
            z[v] += (double)W[v * d + i] * h[i] / T;
        max = fmax(max, z[v]);
    }
    for (int v = 0; v < V; v++) {
        sum += exp(z[v] - max);
        spread += exp(z[v] - max) * (z[v] - max);
    }
    if (entropy)
        *entropy = log(sum) - spread / sum;
    logprob = z[y] - max - log(sum);
    free(z);
    return logprob;
}

/* Eq 14: phi = W[y] - E_{v ~ p} W[v] = T d log p(y) / dh, against central differences in double
 * from h and W alone: the head's phi is the true gradient at every temperature. Targets lie on
 * both sides of the borders between vocabulary tiles. */
static void check_phi(Model *m, float temperature, bool packed)
{
    enum { N = 8 };
    static const int target[N] = {0, TILE - 1, TILE, 2 * TILE - 1, 2 * TILE, 599, 300, 7};
    const Config *c = &m->config;
    int d = c->hidden_size, V = c->vocab_size;
    double T = (double)temperature, h[32], worst = 0, error = 0, norm = 0;
    const double step = 1e-5; /* rounding 1e-16 / 1e-5, curvature 1e-10: both far below fp32 */
    Engine e = nan_engine(2, 4 << 20);
    float *hidden = noise_new(60, (size_t)(N * d));
    Batch b = batch_new(&e.arena, 1, 1, N);
    for (int i = 0; i < N; i++)
        batch_target(&b, 0, target[i]);
    Pass f = {.batch = b, .hidden = hidden};
    for (int i = 0; i < N * d; i++)
        hidden[i] *= 2;
    forward_head(&e.worker[0], m, &f, temperature, true, NULL);
    for (int k = 0; k < N; k++) {
        double entropy, logprob;
        for (int i = 0; i < d; i++)
            h[i] = (double)hidden[k * d + i];
        logprob = exact_logprob(h, head_weight(m), V, d, target[k], T, &entropy);
        worst = fmax(worst, fabs(logprob - (double)f.head.logprob[k]));
        worst = fmax(worst, fabs(entropy - (double)f.head.entropy[k]));
        for (int i = 0; i < d; i++) {
            double here = h[i], up, down, phi;
            h[i] = here + step;
            up = exact_logprob(h, head_weight(m), V, d, target[k], T, NULL);
            h[i] = here - step;
            down = exact_logprob(h, head_weight(m), V, d, target[k], T, NULL);
            h[i] = here;
            phi = T * (up - down) / (2 * step);
            error += pow(phi - (double)f.head.phi[k * d + i], 2);
            norm += phi * phi;
        }
    }
    CHECK(worst < 1e-5, "T %g, packed %d: log-prob or entropy is off by %.1e", T, packed, worst);
    CHECK(sqrt(error / norm) < 1e-6, "T %g, packed %d: phi is off by %.1e of its norm", T, packed,
          sqrt(error / norm));
    free(hidden);
    engine_free(&e);
}

static void test_phi(void)
{
    Model m = tiny_model(LLAMA, false, 600);
    for (int packed = 0; packed < 2; packed++) {
        check_phi(&m, 1.0f, packed);
        check_phi(&m, 0.7f, packed);
        model_pack(&m, 1);
    }
    model_free(&m);
}

/* ---------------------------------------------------------------- equal bits */

/* 323 rows and 258 targets: more than a block of the head, and every product has work for
 * three threads, most of them for seven. */
static const Tree FOREST[] = {{33, 3, {40, 1, 7}}, {1, 1, {50}}, {64, 0, {0}},
                              {31, 4, {12, 66, 2, 9}}, {32, 3, {33, 34, 8}}};
enum { TREES = sizeof FOREST / sizeof *FOREST, FOREST_ROWS = 512, FOREST_V = 2 * TILE + 20 };

static Batch forest(Arena *a, int first, int n)
{
    Batch b = batch_new(a, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = first; i < first + n; i++)
        add_tree(&b, &FOREST[i], FOREST_V, (uint32_t)i);
    return b;
}

static bool is_alive(const float *x, size_t n)
{
    double norm = sqrt(weighted_sum(x, x, n));
    return isfinite(norm) && norm > 0;
}

/* Threads, packing and micro-batches of whole trees change not one bit, gradients included; a
 * tied head's own gradient, kept apart until grads_finish, is among them. */
static void check_invariance(ModelType type, bool tied)
{
    Model m = tiny_model(type, tied, FOREST_V);
    Arena a = arena_new(1 << 20);
    Batch whole = forest(&a, 0, TREES), each[TREES];
    float *coef = noise_new(61, FOREST_ROWS);
    Outcome o = outcome_of(&m, &whole, 1, coef, 0.7f, 1), other;
    CHECK(is_alive(o.logprob, o.n) && is_alive(o.entropy, o.n) && is_alive(o.phi, o.n * o.d) &&
              is_alive(o.grads, o.n_grads), "nothing to compare");
    for (int packed = 0; packed < 2; packed++) {
        for (int k = 0; k < N_THREADS; k++) {
            other = outcome_of(&m, &whole, 1, coef, 0.7f, THREADS[k]);
            check_same_outcome(&o, &other, packed ? "packing" : "threads");
            outcome_free(&other);
        }
        model_pack(&m, 2);
    }
    for (int size = 1; size <= 3; size++) {
        int pieces = 0;
        for (int i = 0; i < TREES; i += size)
            each[pieces++] = forest(&a, i, imin(size, TREES - i));
        for (int recompute = 0; recompute < 2; recompute++) {
            m.recompute = recompute;
            other = outcome_of(&m, each, pieces, coef, 0.7f, size);
            check_same_outcome(&o, &other, recompute ? "recomputation" : "micro-batches");
            outcome_free(&other);
        }
        m.recompute = false;
        if (size == 2)
            model_unpack(&m);
    }
    outcome_free(&o);
    free(coef);
    arena_free(&a);
    model_free(&m);
}

/* Tokens beyond n_vocab do not exist: the same numbers as from a model that ends there, and no
 * gradient for their rows. */
static void check_masked_vocabulary(bool packed)
{
    enum { V = TILE + 40, FEWER = TILE + 7 };
    Model m = tiny_model(LLAMA, false, V), small = tiny_model(LLAMA, false, FEWER);
    size_t d = (size_t)m.config.hidden_size;
    Arena a = arena_new(1 << 20);
    Batch b = batch_new(&a, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = 0; i < TREES; i++)
        add_tree(&b, &FOREST[i], FEWER, (uint32_t)i);
    float *coef = noise_new(61, FOREST_ROWS);
    int last = lm_head(&m.config);
    memcpy(m.params, small.params, (size_t)FEWER * d * sizeof(float));
    memcpy(at(&m, m.params, 1), at(&small, small.params, 1),
           (m.tensors[last].offset - m.tensors[1].offset) * sizeof(float));
    memcpy(at(&m, m.params, last), at(&small, small.params, last),
           (size_t)FEWER * d * sizeof(float));
    m.n_vocab = FEWER;
    if (packed) {
        model_pack(&m, 1);
        model_pack(&small, 1);
    }
    Outcome o = outcome_of(&m, &b, 1, coef, 0.9f, 2), p = outcome_of(&small, &b, 1, coef, 0.9f, 1);
    const float *dw = o.grads + m.tensors[last].offset;
    float *zero = xcalloc((V - FEWER) * d, sizeof(float));
    CHECK(same_bits(o.logprob, p.logprob, o.n) && same_bits(o.entropy, p.entropy, o.n) &&
              same_bits(o.phi, p.phi, o.n * o.d), "packed %d: masked tokens have a share", packed);
    CHECK(is_alive(o.phi, o.n * o.d), "packed %d: the features are 0 or NaN", packed);
    CHECK(same_bits(dw, p.grads + small.tensors[last].offset, FEWER * d) &&
              same_bits(dw + FEWER * d, zero, (V - FEWER) * d),
          "packed %d: the head's gradient with masked tokens", packed);
    outcome_free(&o);
    outcome_free(&p);
    free(zero);
    free(coef);
    arena_free(&a);
    model_free(&small);
    model_free(&m);
}

/* Log-sum-exp of z / T, in double. */
static double log_sum_exp(const double *z, int n, double temperature)
{
    double max = -HUGE_VAL, sum = 0;
    for (int v = 0; v < n; v++)
        max = fmax(max, z[v] / temperature);
    for (int v = 0; v < n; v++)
        sum += exp(z[v] / temperature - max);
    return max + log(sum);
}

/* Logits of one hidden row, in double. */
static void logits_naive(const Model *m, const float *h, int n, double *z)
{
    int d = m->config.hidden_size;
    for (int v = 0; v < n; v++) {
        z[v] = 0;
        for (int k = 0; k < d; k++)
            z[v] += (double)h[k] * (double)head_weight(m)[v * d + k];
    }
}

/* KL(p || q) of two models, exact over the vocabulary, against double; q's log-probs are those that
 * it has alone, and it changes nothing of p's. Equal models: exactly 0. */
static void test_kl_exact(void)
{
    enum { V = 2 * TILE + 44, FEWER = 2 * TILE + 9 };
    double z[2][V], T = 0.7;
    Model m = tiny_model(QWEN3, true, V), q = tiny_model(QWEN3, true, V);
    m.n_vocab = q.n_vocab = FEWER;
    for (size_t i = 0; i < q.n_params; i++)
        q.params[i] += 0.2f * noise(77, i);
    size_t d = (size_t)m.config.hidden_size;
    Engine e = nan_engine(3, pass_bytes(&m, FOREST_ROWS, FOREST_ROWS, 128, KEEP_NOTHING));
    Batch b = batch_new(&e.arena, FOREST_ROWS, 5 * TREES, FOREST_ROWS);
    for (int i = 0; i < TREES; i++)
        add_tree(&b, &FOREST[i], FEWER, (uint32_t)i);
    Pass p = forward(&e.worker[0], &m, &b, KEEP_NOTHING);
    Pass alone = forward(&e.worker[1], &q, &b, KEEP_NOTHING);
    Pass same = forward(&e.worker[2], &m, &b, KEEP_NOTHING);
    Reference ref = {&q, alone.hidden}, itself = {&m, same.hidden};
    forward_head(&e.worker[1], &q, &alone, (float)T, false, NULL);
    forward_head(&e.worker[2], &m, &same, (float)T, false, &itself);
    forward_head(&e.worker[0], &m, &p, (float)T, true, &ref);
    size_t n = (size_t)b.n_targets;
    CHECK(same_bits(p.head.ref_logprob, alone.head.logprob, n), "q as reference: other log-probs");
    CHECK(same_bits(p.head.logprob, same.head.logprob, n), "p with a reference: other log-probs");
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        logits_naive(&m, p.hidden + i * d, FEWER, z[0]);
        logits_naive(&q, alone.hidden + i * d, FEWER, z[1]);
        double lse[2] = {log_sum_exp(z[0], FEWER, T), log_sum_exp(z[1], FEWER, T)}, kl = 0;
        for (int v = 0; v < FEWER; v++)
            kl += exp(z[0][v] / T - lse[0]) * ((z[0][v] - z[1][v]) / T - lse[0] + lse[1]);
        CHECK(fabs((double)p.head.kl[i] - kl) < 1e-5 * kl + 1e-6, "target %zu: KL %g, not %g", i,
              (double)p.head.kl[i], kl);
        CHECK(fabsf(same.head.kl[i]) <= 0, "the same model: KL %g", (double)same.head.kl[i]);
        largest = fmax(largest, kl);
    }
    CHECK(largest > 0.05, "nothing to compare: %g", largest);
    engine_free(&e);
    model_free(&m);
    model_free(&q);
}

/* What each KL term does in a loss, by enumeration: drawn from p, k2's expected gradient is that of
 * KL(p || q), which the exact term has, and k3's that of KL(q || p), whose dK/dz = (p - q) / T. One
 * hidden row; every token of the vocabulary is a target once. */
static void test_kl_bias(void)
{
    enum { V = 40, D = 20 };
    const float T = 0.7f;
    Model m = tiny_model(LLAMA, false, V), q = tiny_model(LLAMA, false, V);
    int d = m.config.hidden_size;
    Engine e = nan_engine(1, 8 << 20);
    Arena *a = &e.worker[0];
    float *h = noise_new(58, (size_t)d), *g = noise_new(59, (size_t)d);
    float *rows = nan_new((size_t)(V * d)), *ref_rows = nan_new((size_t)(V * d));
    float coef[3][V], one[V] = {1}, *dh = nan_new((size_t)(V * d));
    Batch b = batch_new(&e.arena, 1, 1, V);
    row_scale(h, h, 3, d);
    for (int v = 0; v < V; v++) {
        batch_target(&b, 0, v);
        memcpy(rows + v * d, h, (size_t)d * sizeof(float));
        memcpy(ref_rows + v * d, g, (size_t)d * sizeof(float));
    }
    Pass p = {.batch = b, .hidden = rows};
    Reference ref = {&q, ref_rows};
    forward_head(a, &m, &p, T, true, &ref);
    for (int v = 0; v < V; v++) {
        double P = exp((double)p.head.logprob[v]), gap, slope;
        MethodOptions o = {.kl_coef = 1, .clip_low = 1, .clip_high = 1};
        LossSums sums = {0};
        gap = (double)p.head.ref_logprob[v];
        for (int k = KL_K3; k <= KL_K2; k++) {
            o.kl = k;
            token_loss((double)p.head.logprob[v], (double)p.head.logprob[v], gap, 0, &o, &slope,
                       &sums);
            coef[k][v] = (float)(P * slope);
        }
        coef[KL_EXACT][v] = 0;
    }
    double sum[3][D] = {{0}}, error[2] = {0}, norm[2] = {0};
    for (int k = 0; k < 3; k++) {
        Coef c = {.logprob = coef[k], .kl = k == KL_EXACT ? one : NULL};
        p.head.targets = k == KL_EXACT ? 1 : V;
        head_backward(a, &m, &p.head, &c, dh);
        for (int i = 0; i < (k == KL_EXACT ? 1 : V) * d; i++)
            sum[k][i % d] += (double)dh[i];
    }
    for (int i = 0; i < d; i++) {
        double reverse = 0; /* of KL(q || p) by h */
        for (int v = 0; v < V; v++)
            reverse += (exp((double)p.head.logprob[v]) - exp((double)p.head.ref_logprob[v])) /
                       (double)T * (double)head_weight(&m)[v * d + i];
        error[0] += pow(sum[KL_K2][i] - sum[KL_EXACT][i], 2);
        error[1] += pow(sum[KL_K3][i] - reverse, 2);
        norm[0] += pow(sum[KL_EXACT][i], 2);
        norm[1] += pow(sum[KL_K3][i] - sum[KL_EXACT][i], 2);
    }
    CHECK(d == D && norm[1] > 0.01 * norm[0], "k3 and exact do not differ here");
    CHECK(error[0] < 1e-8 * norm[0], "k2's mean gradient is %.1e off the exact one",
          sqrt(error[0] / norm[0]));
    CHECK(error[1] < 1e-8 * norm[0], "k3's mean gradient is %.1e off that of KL(q || p)",
          sqrt(error[1] / norm[0]));
    free(h);
    free(g);
    free(rows);
    free(ref_rows);
    free(dh);
    engine_free(&e);
    model_free(&m);
    model_free(&q);
}

/* A response that shares its prompt, and the same one with its prompt written out. */
static void check_written_out(Model *m)
{
    Arena a = arena_new(1 << 20);
    Batch whole = forest(&a, 0, TREES);
    float *coef = noise_new(62, FOREST_ROWS);
    Outcome o = outcome_of(m, &whole, 1, coef, 1.0f, 1);
    size_t done = 0, mark = a.used;
    for (int i = 0; i < TREES; i++)
        for (int k = 0; k < FOREST[i].n; k++) {
            int tokens[128], prompt = FOREST[i].prompt, length = FOREST[i].length[k];
            Batch b = batch_new(&a, 128, 1, 128);
            tree_tokens(tokens, prompt, FOREST_V, (uint32_t)i, 0);
            tree_tokens(tokens + prompt, length, FOREST_V, (uint32_t)i, k + 1);
            batch_seq(&b, tokens, prompt + length - 1, 0, -1);
            for (int t = 0; t < length; t++)
                batch_target(&b, prompt + t - 1, tokens[prompt + t]);
            Outcome alone = outcome_of(m, &b, 1, coef, 1.0f, 2);
            CHECK(same_bits(alone.logprob, o.logprob + done, alone.n) &&
                      same_bits(alone.entropy, o.entropy + done, alone.n) &&
                      same_bits(alone.phi, o.phi + done * o.d, alone.n * o.d),
                  "prompt of %d, response of %d: other bits when written out", prompt, length);
            done += alone.n;
            outcome_free(&alone);
            a.used = mark;
        }
    CHECK(done == o.n, "%zu targets; expected %zu", done, o.n);
    outcome_free(&o);
    free(coef);
    arena_free(&a);
}

/* Adds the head's gradient of targets first .. first + n - 1 alone; tells whether the logits were
 * kept. */
static bool add_head_gradient(Model *m, const float *hidden, float *coef, int first, int n,
                              Keep keep)
{
    size_t d = (size_t)m->config.hidden_size, skip_rows = (size_t)first * d;
    int V = m->config.vocab_size;
    Engine e = engine_new(1, 1 << 20, pass_bytes(m, 1, n, 1, KEEP_ALL));
    Batch b = batch_new(&e.arena, 1, 1, n);
    memset(e.worker->base, 0xFF, e.worker->capacity);
    float *mine = copy_new(hidden + skip_rows, (size_t)n * d);
    for (int i = first; i < first + n; i++)
        batch_target(&b, 0, (int)((int64_t)i * 7919 % V));
    Pass f = {.batch = b, .hidden = mine, .keep = keep};
    f.coef.logprob = coef + first;
    forward_head(&e.worker[0], m, &f, 0.9f, true, NULL);
    head_weights_backward(&e.worker[0], m, &f.head, &f.coef, 0, V,
                          at(m, m->grads, lm_head(&m->config)));
    free(mine);
    engine_free(&e);
    return f.head.logits != NULL;
}

/* Many targets: the head's gradient takes its rows in blocks that continue each other, and so does
 * a second batch, whose logits are made twice. */
static void check_many_targets(Model *m, int n, int cut, bool kept)
{
    float *hidden = noise_new(63, (size_t)n * (size_t)m->config.hidden_size);
    float *coef = noise_new(64, (size_t)n);
    grads_zero(m);
    bool whole_kept = add_head_gradient(m, hidden, coef, 0, n, KEEP_ALL);
    CHECK(whole_kept == kept, "the logits of %d targets: kept is %d", n, whole_kept);
    float *whole = copy_new(m->grads, m->n_grads);
    grads_zero(m);
    CHECK(add_head_gradient(m, hidden, coef, 0, cut, KEEP_ALL), "%d targets: nothing kept", cut);
    CHECK(!add_head_gradient(m, hidden, coef, cut, n - cut, KEEP_NOTHING),
          "logits kept for nothing");
    CHECK(is_alive(whole, m->n_grads) && same_bits(whole, m->grads, m->n_grads),
          "%d targets: dW changes when they come in two batches", n);
    free(whole);
    free(hidden);
    free(coef);
}

/* The most logits that a pass keeps, and more than that. The memory for the longest batch is enough
 * for every shorter one. */
static void check_most_logits(void)
{
    enum { V = 1 << 15, MOST = MOST_LOGITS / V };
    Model m = tiny_model(LLAMA, false, V);
    check_many_targets(&m, MOST + 1, MOST, false);
    size_t before = 0;
    for (int targets = MOST - 2; targets < MOST + 3; targets++) {
        size_t bytes = pass_bytes(&m, 1, targets, 1, KEEP_ALL);
        CHECK(bytes > before, "%d targets: less memory than for a shorter pass", targets);
        before = bytes;
    }
    model_free(&m);
}

/* The logits that the passes kept, and the same ones made again, give the same gradients: several
 * passes, more than a block of the head's rows, a part of a tile. The head's weights come in two
 * pieces, which is the same as in one. */
static void check_kept_logits(bool tied, bool packed)
{
    enum { V = 1024 + TILE + 44, PASSES = 3 };
    static const int first[PASSES] = {0, 1, 3}, end[PASSES] = {1, 4, 5};
    Model m = tiny_model(QWEN3, tied, V);
    Engine e = nan_engine(PASSES, pass_bytes(&m, 256, 256, 128, KEEP_ALL));
    float *coef = noise_new(65, FOREST_ROWS), *dw = at(&m, m.grads, lm_head(&m.config));
    size_t d = (size_t)m.config.hidden_size, mark[PASSES];
    Pass p[PASSES];
    if (packed)
        model_pack(&m, 2);
    for (int i = 0; i < PASSES; i++) {
        Batch b = batch_new(&e.arena, 256, 16, 256);
        for (int k = first[i]; k < end[i]; k++)
            add_tree(&b, &FOREST[k], V, (uint32_t)k);
        p[i] = forward(&e.worker[i], &m, &b, KEEP_ALL);
        forward_head(&e.worker[i], &m, &p[i], 0.7f, true, NULL);
        p[i].coef.logprob = coef + 9 * i;
        mark[i] = e.worker[i].used;
        CHECK(p[i].head.logits, "pass %d did not keep its logits", i);
    }
    backward(&e, &m, p, PASSES);
    float *kept = copy_new(m.grads, m.n_grads);
    for (int i = 0; i < PASSES; i++) {
        p[i].head.logits = NULL;
        e.worker[i].used = mark[i];
    }
    grads_zero(&m);
    backward(&e, &m, p, PASSES);
    CHECK(is_alive(kept, m.n_grads) && same_bits(kept, m.grads, m.n_grads),
          "tied %d, packed %d: logits made again give another gradient", tied, packed);
    grads_zero(&m);
    for (int i = 0; i < PASSES; i++)
        head_weights_backward(&e.worker[i], &m, &p[i].head, &p[i].coef, 0, V, dw);
    CHECK(same_bits(dw, at(&m, kept, lm_head(&m.config)), V * d),
          "tied %d, packed %d: the head's gradient changes with its pieces", tied, packed);
    free(kept);
    free(coef);
    engine_free(&e);
    model_free(&m);
}

/* The pieces that threads take are each row or column of each matrix, once, in order. */
static void check_pieces(void)
{
    static const int threads[] = {1, 2, 3, 7, 16, MOST_THREADS};
    Model m = tiny_model(QWEN2, true, 5 * TILE + 9);
    for (int i = 0; i < 6; i++)
        for (int layer = ENDS; layer < 1; layer++) {
            Piece piece[MOST_PIECES];
            int n = cut_pieces(&m, layer, threads[i], piece), done[FINAL_NORM + 1] = {0};
            CHECK(n <= MOST_PIECES && (n > 1 || threads[i] == 1), "%d threads: %d pieces",
                  threads[i], n);
            for (int k = 0; k < n; done[piece[k].kind] += piece[k].n, k++)
                CHECK(piece[k].n > 0 && piece[k].first == done[piece[k].kind],
                      "%d threads: piece %d is of %d, from %d on", threads[i], k, piece[k].n,
                      piece[k].first);
            for (int kind = 0; kind <= FINAL_NORM; kind++) {
                bool end = kind > VECTORS;
                Place w = place(&m.config, 0, kind < MATRICES ? kind : 0);
                int all = kind < MATRICES ? imax(w.n, w.k)
                          : kind == HEAD || kind == EMBEDDING ? m.config.vocab_size : 1;
                all = end == (layer == ENDS) ? all : 0;
                CHECK(done[kind] == all, "%d threads: %d of %d are cut", threads[i], done[kind],
                      all);
            }
        }
    model_free(&m);
}

/* A model packed before it becomes trainable, and one packed after, hold the same. */
static void check_packing_order(void)
{
    Model m = tiny_model(QWEN3, true, FOREST_V), early = model_new(&m.config);
    memcpy(early.params, m.params, m.n_params * sizeof(float));
    model_pack(&m, 3);
    model_pack(&early, 1);
    CHECK(!early.packed, "a frozen model is packed for a backward pass");
    model_trainable(&early, false);
    CHECK(early.packed && m.packed &&
              same_bits(early.packed_t, m.packed_t, packed_t_size(&m.config)) &&
              same_bits(early.packed, m.packed, packed_size(&m.config)),
          "packed before or after model_trainable: other weights");
    model_free(&early);
    model_free(&m);
}

static void test_masked_vocabulary(void)
{
    check_masked_vocabulary(false);
    check_masked_vocabulary(true);
}

/* What a counting arena says grows by all that a pass holds: activations and gradients by the row,
 * the head, its packed rows and the reference's rows by the target. */
static void check_counted_memory(const Model *m)
{
    enum { MANY = 1 << 16, LONGEST = 8 };
    const Config *c = &m->config;
    Activation t[ACTIVATIONS];
    size_t d = (size_t)c->hidden_size, L = (size_t)c->num_hidden_layers, f = sizeof(float);
    size_t row = 2 * d + (size_t)(c->intermediate_size + c->num_attention_heads * c->head_dim);
    activations(c, t);
    for (int i = 0; i < ACTIVATIONS; i++)
        row += (size_t)t[i].width * ((t[i].layer >= 0) * L + (t[i].grad >= 0));
    row += 3 * LINE; /* of a product's scratch */
    CHECK(pass_bytes(m, MANY, 1, LONGEST, KEEP_ALL) >= MANY * row * f, "rows are forgotten");
    CHECK(pass_bytes(m, 1, MANY, LONGEST, KEEP_ALL) >= (MANY * 6 * d + MOST_LOGITS) * f,
          "targets are forgotten");
    Extent x = {1, 4, LONGEST, 1 << 13, 1, KEEP_ALL, false, SAVE_NOTHING}, y = x;
    y.reference = true;
    CHECK(groups_pass_bytes(m, y) - groups_pass_bytes(m, x) == 4 * (1 << 13) * d * f,
          "the reference's rows are forgotten");
}

static void test_invariance(void)
{
    check_invariance(QWEN3, true);
    check_invariance(QWEN2, false);
    check_invariance(LLAMA, true);
    Model m = tiny_model(QWEN3, true, FOREST_V);
    check_counted_memory(&m);
    check_written_out(&m);
    check_many_targets(&m, KC + 76, 500, true);
    model_free(&m);
    check_most_logits();
    for (int i = 0; i < 4; i++)
        check_kept_logits(i % 2, i / 2);
    check_pieces();
    check_packing_order();
}

/* ---------------------------------------------------------------- cached decoding */

/* A prompt and two responses, every row a target: the hidden rows of the training pass. */
enum { NEW = 70, RESPONSES = 2 };

static float *training_hidden(Model *m, int prompt, const int *tokens)
{
    int d = m->config.hidden_size, rows = prompt + RESPONSES * NEW;
    Engine e = nan_engine(1, pass_bytes(m, rows, rows, prompt + NEW, KEEP_NOTHING));
    Batch b = batch_new(&e.arena, rows, 1 + RESPONSES, rows);
    batch_seq(&b, tokens, prompt, 0, -1);
    for (int k = 0; k < RESPONSES; k++)
        batch_seq(&b, tokens + prompt + k * NEW, NEW, prompt, 0);
    for (int i = 0; i < b.n_rows; i++)
        batch_target(&b, i, 0);
    float *hidden = copy_new(forward(&e.worker[0], m, &b, KEEP_NOTHING).hidden,
                             (size_t)(rows * d));
    engine_free(&e);
    return hidden;
}

/* The prompt in one piece, then each response token by token, over the cache, on some threads. */
static void check_decoding(Model *m, int prompt, int threads)
{
    int tokens[64 + RESPONSES * NEW], blocks = (prompt + 31) / 32 + RESPONSES * 3; /* 70 / 32 */
    size_t d = (size_t)m->config.hidden_size;
    tree_tokens(tokens, prompt + RESPONSES * NEW, m->config.vocab_size, 5, 0);
    float *expected = training_hidden(m, prompt, tokens);
    Heads heads = heads_of(&m->config);
    int layers = m->config.num_hidden_layers;
    Engine e = nan_engine(1, pass_bytes(m, 64, 64, prompt + NEW, KEEP_NOTHING) +
                                 kv_pool_bytes(&heads, layers, blocks) + (1 << 16));
    e.worker->threads = threads;
    KvPool pool = kv_pool_new(&e.arena, &heads, layers, blocks); /* no block more than needed */
    KvSeq prompt_kv = kv_seq_new(&e.arena, prompt), kv[RESPONSES];
    Batch b = batch_new(&e.arena, prompt, 1, prompt);
    b.pool = &pool;
    b.seq[batch_seq(&b, tokens, prompt, 0, -1)].kv = &prompt_kv;
    kv_reserve(&pool, &prompt_kv, prompt);
    for (int i = 0; i < prompt; i++)
        batch_target(&b, i, 0);
    const float *first = forward(&e.worker[0], m, &b, KEEP_NOTHING).hidden;
    CHECK(same_bits(first, expected, (size_t)prompt * d), "prompt of %d: other bits in the cache",
          prompt);
    for (int k = 0; k < RESPONSES; k++)
        kv[k] = kv_seq_new(&e.arena, NEW);

    size_t mark = e.arena.used;
    for (int t = 0; t < NEW; t++, e.arena.used = mark, e.worker->used = 0) {
        b = batch_new(&e.arena, RESPONSES, RESPONSES, RESPONSES);
        b.pool = &pool;
        for (int k = 0; k < RESPONSES; k++) {
            Seq *s = &b.seq[batch_seq(&b, &tokens[prompt + k * NEW + t], 1, prompt + t, -1)];
            kv_reserve(&pool, &kv[k], t + 1);
            s->kv = &kv[k];
            s->prefix_kv = &prompt_kv;
            s->prefix_length = prompt;
            batch_target(&b, k, 0);
        }
        const float *hidden = forward(&e.worker[0], m, &b, KEEP_NOTHING).hidden;
        for (size_t k = 0; k < RESPONSES; k++)
            CHECK(same_bits(hidden + k * d, expected + ((size_t)(prompt + t) + k * NEW) * d, d),
                  "prompt of %d, response %zu, token %d: other bits", prompt, k, t);
    }
    CHECK(pool.n_free == 0, "prompt of %d: %d cache blocks too many", prompt, pool.n_free);
    for (int k = 0; k < RESPONSES; k++)
        kv_release(&pool, &kv[k]);
    kv_release(&pool, &prompt_kv);
    CHECK(pool.n_free == blocks, "%d of %d cache blocks came back", pool.n_free, blocks);
    free(expected);
    engine_free(&e);
}

/* Across the borders of cache blocks (KEYS = 32), where prompt and response each begin a block. */
static void test_decoding(void)
{
    static const int prompts[] = {1, KEYS - 1, KEYS, KEYS + 1};
    for (int type = QWEN3; type <= QWEN2; type++) {
        Model m = tiny_model((ModelType)type, true, 50);
        for (int packed = 0; packed < 2; packed++) {
            for (int i = 0; i < 4; i++)
                check_decoding(&m, prompts[i], 1);
            model_pack(&m, 1);
        }
        check_decoding(&m, KEYS + 1, 3);
        model_free(&m);
    }
}

/* ---------------------------------------------------------------- the optimizer */

/* One AdamW update as its paper writes it, all in double. `g` is the gradient before clipping. */
typedef struct {
    double *w, *m, *v;
    size_t n;
} DoubleAdamW;

static double double_adamw(DoubleAdamW *r, const AdamW *o, const float *g, double lr, int t)
{
    double norm = 0, clip = 1;
    for (size_t i = 0; i < r->n; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    if (o->clip_norm > 0 && norm > o->clip_norm)
        clip = o->clip_norm / norm;
    for (size_t i = 0; i < r->n; i++) {
        double x = (double)g[i] * clip;
        r->m[i] = o->beta1 * r->m[i] + (1 - o->beta1) * x;
        r->v[i] = o->beta2 * r->v[i] + (1 - o->beta2) * x * x;
        double m_hat = r->m[i] / (1 - pow(o->beta1, t)), v_hat = r->v[i] / (1 - pow(o->beta2, t));
        r->w[i] -= lr * o->weight_decay * r->w[i];
        r->w[i] -= lr * m_hat / (sqrt(v_hat) + o->eps);
    }
    return norm;
}

/* A gradient with entries of very different sizes, some zero. A tied head's own part comes last
 * and belongs to the embedding; `whole` is the sum of both. */
static void random_gradient(Model *m, int step, float *whole)
{
    for (size_t i = 0; i < m->n_grads; i++) {
        float x = noise((uint32_t)(70 + step), i);
        m->grads[i] = i % 11 ? x * x * x : 0.0f;
    }
    memcpy(whole, m->grads, m->n_params * sizeof *whole);
    for (size_t i = 0; i < m->n_grads - m->n_params; i++)
        whole[i] += m->grads[m->n_params + i];
}

/* Five updates; eps is large enough to matter. What counts is the change of the weights. */
static void check_adamw(double clip_norm, bool tied, int threads, uint64_t *hash)
{
    Model m = tiny_model(QWEN3, tied, 333);
    AdamW o = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1,
               .clip_norm = clip_norm};
    size_t n = m.n_params;
    DoubleAdamW r = {xmalloc(n * sizeof(double)), xcalloc(n, sizeof(double)),
                     xcalloc(n, sizeof(double)), n};
    float *whole = nan_new(n), *start = copy_new(m.params, n);
    double error = 0, change = 0;
    for (size_t i = 0; i < n; i++)
        r.w[i] = (double)m.params[i];
    model_pack(&m, 1);
    for (int step = 0; step < 5; step++) {
        double lr = 0.01 / (step + 1);
        random_gradient(&m, step, whole);
        double norm = adamw_step(&(Engine){.threads = threads}, &m, &o, lr);
        double expected = double_adamw(&r, &o, whole, lr, step + 1);
        CHECK(fabs(norm / expected - 1) < 1e-12, "norm %.17g; expected %.17g", norm, expected);
    }
    for (size_t i = 0; i < n; i++) {
        error += pow((double)m.params[i] - r.w[i], 2);
        change += pow((double)start[i] - r.w[i], 2);
    }
    CHECK(sqrt(error / change) < 1e-5, "clip %g: five updates are off by %.1e of the change",
          clip_norm, sqrt(error / change));
    CHECK(o.step == 5, "%d updates counted", (int)o.step);
    float *packed = m.packed, *packed_t = m.packed_t;
    m.packed = m.packed_t = NULL;
    model_pack(&m, 1);
    CHECK(same_bits(packed_t, m.packed_t, packed_t_size(&m.config)) &&
              same_bits(packed, m.packed, packed_size(&m.config)),
          "the packed weights are not up to date");
    *hash = weights_hash(&m);
    free(packed);
    free(packed_t);
    free(start);
    free(whole);
    free(r.w);
    free(r.m);
    free(r.v);
    model_free(&m);
}

static void test_adamw(void)
{
    uint64_t hash[N_THREADS], other;
    for (int k = 0; k < N_THREADS; k++) {
        check_adamw(0, true, THREADS[k], &hash[k]);
        CHECK(hash[0] == hash[k], "%d threads change the weights", THREADS[k]);
    }
    check_adamw(0.5, true, 2, &other);
    CHECK(hash[0] != other, "clipping changes nothing");
    check_adamw(0.5, false, 1, &other);
    check_adamw(1e6, false, 1, &other); /* a bound that is never reached */
}

static void test_schedule(void)
{
    static const struct {
        Schedule kind;
        int step, warmup, steps;
        double expected;
    } cases[] = {
        {CONSTANT, 0, 0, 100, 1}, {CONSTANT, 99, 0, 100, 1},     {CONSTANT, 0, 10, 100, 0.1},
        {CONSTANT, 9, 10, 100, 1}, {CONSTANT, 10, 10, 100, 1},   {LINEAR, 0, 0, 100, 1},
        {LINEAR, 25, 0, 100, 0.75}, {LINEAR, 99, 0, 100, 0.01},  {LINEAR, 4, 10, 110, 0.5},
        {LINEAR, 10, 10, 110, 1}, {LINEAR, 60, 10, 110, 0.5},    {COSINE, 0, 0, 100, 1},
        {COSINE, 50, 0, 100, 0.5}, {COSINE, 25, 0, 100, 0.8535533905932737},
        {COSINE, 10, 10, 110, 1}, {COSINE, 60, 10, 110, 0.5},    {COSINE, 1, 4, 8, 0.5},
        {LINEAR, 5, 10, 10, 0.6}, {COSINE, 9, 10, 5, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double lr = schedule_lr(cases[i].kind, 3e-4, cases[i].step, cases[i].warmup,
                                cases[i].steps);
        CHECK(fabs(lr / 3e-4 - cases[i].expected) < 1e-12,
              "schedule %d, step %d, warmup %d of %d: %g of the peak; expected %g",
              (int)cases[i].kind, cases[i].step, cases[i].warmup, cases[i].steps, lr / 3e-4,
              cases[i].expected);
    }
}

#endif
