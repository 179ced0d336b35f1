/* group.h: a prompt and its m responses, the central data structure.
 *
 * Sampling fills a group, rewards and features annotate it, forward and backward run over it, the
 * ledger prints it. Here: what it holds; its prompt, from a problem; its responses as text; its
 * rewards, from a verifier or a command. And the options that the method's equations leave open. */
#ifndef GROUP_H
#define GROUP_H

#include "../../model.c"              /* defines: Model, Saved, Coef */
#include "../model/tokenizer_json.h" /* defines: Tokenizer, tokenizer_encode, shown */
#include "../base/options.h"         /* defines: Texts */
#include "../tasks/problems.h"       /* defines: Problems, Judge, judge, ... */

typedef enum { GRPO, ENTROPY, EVOL, G2RL } Method;
static const char *const METHODS[] = {"grpo", "entropy", "evol", "g2rl"};
typedef enum { SHAPING_LITERAL, SHAPING_TEXT } Shaping;
typedef enum { DEAD_FULL, DEAD_ZERO, DEAD_RIGHT, DEAD_WRONG } DeadGroups;
typedef enum { ADV_STD, ADV_NONE } AdvNorm;
typedef enum { LOSS_TOKEN, LOSS_SEQUENCE } Loss;
typedef enum { NOVELTY_GRADIENT, NOVELTY_RANDOM, NOVELTY_COUNT } Novelty;
typedef enum { KL_K3, KL_K2, KL_EXACT } KlTerm;
typedef enum { EMBED_REF, EMBED_NGRAM } Embedding;

/* Everything that the method's equations leave open: the options of train that name them. */
typedef struct {
    int method;                 /* a Method */
    int shaping;                /* a Shaping: Eq 12 as printed, or the text's reading of it */
    int dead_groups;            /* a DeadGroups: which groups of equal rewards have an advantage */
    int adv_norm;               /* an AdvNorm; none: advantages are not divided by the std */
    int loss;                   /* a Loss: mean over tokens, or over each response's, then these */
    int novelty;                /* a Novelty: nu from gradient features, or one of two controls */
    int encoder;                /* an Embedding; EVOL-RL: what embeds a response */
    int kl;                     /* a KlTerm */
    bool mask_truncated;        /* responses that were cut off are left out of the loss */
    double lambda;              /* strength of the shaping */
    double clip_low, clip_high; /* PPO: the ratio stays in [1 - low, 1 + high] */
    double kl_coef;             /* beta of Eq 4 */
    double entropy_coef;        /* of the mean token entropy in the objective */
} MethodOptions;

#define FLOOR 1e-6       /* differences below this are rounding, not signal */
#define SHAPED_LIMIT 3.0 /* c of section 2.5: r~ is clipped to [-c, c] */

/* What ends a response besides the model's end tokens: texts, and special tokens, which the text of
 * a response leaves out. */
typedef struct {
    Texts text;
    int id[MOST_TEXTS + 1], n_ids;
} Stops;

/* Sums over the tokens that went through the loss. */
typedef struct {
    double loss, k1, k3; /* k1 = -q and k3: the KL estimators */
    double entropy;
    int tokens, clipped_low, clipped_high, clamped; /* clamped: by LOG_RATIO_LIMIT */
} LossSums;

static void loss_sums_add(LossSums *total, const LossSums *s)
{
    total->loss += s->loss;
    total->k1 += s->k1;
    total->k3 += s->k3;
    total->entropy += s->entropy;
    total->tokens += s->tokens;
    total->clipped_low += s->clipped_low;
    total->clipped_high += s->clipped_high;
    total->clamped += s->clamped;
}

/* A prompt and its m responses. Response i is token[start[i]] .. token[start[i + 1] - 1], the end
 * token included; whatever is per token is indexed like `token`, [n_tokens]. */
typedef struct {
    uint64_t seed;        /* with step and index, the counters of its random numbers */
    int step;
    uint32_t index;       /* which problem this is */
    const char *text;     /* the problem, without the template */
    const char *answer;   /* the gold answer */
    const Stops *stops;   /* what ended responses; NULL: the model's end tokens alone */
    int *prompt, prompt_length;
    int m, max_tokens, n_tokens;
    int *token, *start;   /* [n_tokens], [m + 1] */
    bool *truncated;      /* [m] ended by max_tokens, not by an end token or a stop */
    bool *answered;       /* [m] an answer can be read from it */
    const char **reason;  /* [m] the verifier's, or the reward command's */

    Saved saved;          /* activations that sampling saved: see group_saved */
    bool reads_saved;     /* they are the policy's, and its next forward pass may read them */
    bool seen;            /* a forward pass has been over it: advantages are there */
    float *logprob_old;   /* log p under the policy that sampled */
    float *logprob_ref;   /* under the reference */
    float *hidden_ref;    /* [n_tokens, hidden_size] what the reference's head reads; or NULL */
    float *kl;            /* KL(policy || reference), exact */
    float *logprob;       /* under the policy being trained */
    float *entropy;       /* of the policy's distribution, exact */
    float *entropy_old;   /* of the policy's that sampled: when it was first seen */
    double kl_old;        /* the sum of kl then */
    double logp_gap;      /* largest |logprob - logprob_old| then */
    const float *phi;     /* [n_tokens, hidden_size]  Eq 6-7, in the pass that is in memory */
    Coef coef;            /* [n_tokens] dL / d of logprob, entropy, kl, of that pass */
    LossSums loss;

    float *Phi;           /* [m, hidden_size]  Eq 8 */
    double *reward;       /* [m] */
    double *S, *w;        /* [m, m]            Eq 9, Eq 10 */
    double *nu, *nubar;   /* [m]               Eq 11 and its min-max */
    double *shaped;       /* [m] r~            Eq 12-13 */
    double *advantage;    /* [m]               Eq 2 */

    bool embedded;        /* the two that follow are known */
    double *semantic;     /* [m, m] cosines of the responses' embeddings */
    double *u;            /* [m]    their semantic novelty; NAN where there is no answer */
} Group;

static Group group_new(Arena *a, int m, int max_prompt, int max_tokens, int hidden_size)
{
    size_t n = (size_t)m, t = n * (size_t)max_tokens;
    Group g = {.m = m, .max_tokens = max_tokens};
    g.prompt = arena_alloc(a, max_prompt, sizeof(int));
    g.token = arena_alloc(a, t, sizeof(int));
    g.start = arena_alloc(a, n + 1, sizeof(int));
    g.truncated = arena_alloc(a, n, sizeof(bool));
    g.answered = arena_alloc(a, n, sizeof(bool));
    g.reason = arena_alloc(a, n, sizeof(char *));
    g.logprob_old = arena_floats(a, t);
    g.logprob_ref = arena_floats(a, t);
    g.kl = arena_floats(a, t);
    g.logprob = arena_floats(a, t);
    g.entropy = arena_floats(a, t);
    g.entropy_old = arena_floats(a, t);
    g.Phi = arena_floats(a, n * (size_t)hidden_size);
    g.S = arena_alloc(a, n * n, sizeof(double));
    g.w = arena_alloc(a, n * n, sizeof(double));
    g.semantic = arena_alloc(a, n * n, sizeof(double));
    double **vectors[] = {&g.reward, &g.nu, &g.nubar, &g.shaped, &g.advantage, &g.u};
    for (int i = 0; i < 6; i++)
        *vectors[i] = arena_alloc(a, n, sizeof(double));
    g.start[0] = 0;
    return g;
}

/* The saved activations of response i from its row on, or, with i -1, of the prompt. Each response
 * has room for all its tokens but the last, which no pass reads. */
static Saved group_saved(const Group *g, int i, int row)
{
    size_t before = i < 0 ? 0 : (size_t)g->prompt_length + (size_t)i * (size_t)(g->max_tokens - 1);
    Saved s = g->saved;
    if (s.row)
        s.row += (before + (size_t)row) * s.floats;
    return s;
}

static int response_length(const Group *g, int i) { return g->start[i + 1] - g->start[i]; }

/* Are two responses equal token by token? */
static bool same_response(const Group *g, int i, int j)
{
    int n = response_length(g, i);
    return n == response_length(g, j) &&
           !memcmp(g->token + g->start[i], g->token + g->start[j], n * sizeof(int));
}

static bool is_right(double reward) { return reward > 0; }

static int count_right(const Group *g)
{
    int right = 0;
    for (int i = 0; i < g->m; i++)
        right += is_right(g->reward[i]);
    return right;
}

/* All right or all wrong; of real-valued rewards: all equal. Such a group has nothing but novelty
 * to tell its responses apart. */
static bool is_dead(const Group *g)
{
    double low = g->reward[0], high = g->reward[0];
    for (int i = 1; i < g->m; i++) {
        low = fmin(low, g->reward[i]);
        high = fmax(high, g->reward[i]);
    }
    return high - low < FLOOR;
}

/* Is the lowest reward of n groups 0, as where wrong is 0 and right is 1? Then Eq 12 leaves wrong
 * responses at r~ = 0, however novel they are. (GRPO only sees differences, and does not mind.) */
static bool wrong_is_zero(const Group *g, int n)
{
    double lowest = HUGE_VAL;
    for (int i = 0; i < n * g->m; i++)
        lowest = fmin(lowest, g[i / g->m].reward[i % g->m]);
    return lowest == 0;
}

/* ================================================================ prompts and rewards */

/* Ids of a text, of a `prompt` with the token that begins it; the caller frees them. Dies where a
 * character has no token, and where there are none or more than `most`. */
static Ids encode(const Tokenizer *t, bool prompt, const char *text, size_t n, int most,
                  const char *what)
{
    size_t bad = 0;
    Ids ids = {0};
    if (!(prompt ? tokenizer_prompt : tokenizer_encode)(t, text, n, &ids, &bad))
        die("%s: %s: no token for the character at byte %zu", what, shown(text, n).s, bad);
    if (ids.n == 0)
        die("%s: is empty", what);
    if (ids.n > most)
        die("%s: %s is %d tokens long; expected at most %d", what, shown(text, n).s, ids.n, most);
    return ids;
}

/* Sets the prompt of a group, and frees the ids. */
static void group_prompt(Group *g, Ids ids)
{
    memcpy(g->prompt, ids.id, ids.n * sizeof(int));
    g->prompt_length = ids.n;
    ids_free(&ids);
}

static const char *arena_text(Arena *a, const Buf *text)
{
    return memcpy(arena_alloc(a, text->n + 1, 1), text->s, text->n + 1);
}

/* Sets problem `index` as a group's prompt. A list's texts stay where they are; those of a problem
 * drawn here, which are short, go into the arena. Of drawn ones, those over max_prompt tokens are
 * drawn again. */
static void group_pose(Group *g, Arena *a, Problems *p, uint32_t index, const Tokenizer *t,
                      int max_prompt)
{
    Buf prompt = {0}, answer = {0}, rendered = {0};
    Ids ids = {0};
    uint32_t draw = 0;
    g->index = index;
    if (p->n) {
        const Problem *q = problem_of_list(p, index);
        g->text = q->prompt;
        g->answer = q->answer;
        problem_render(&p->template, q, &rendered);
        ids = encode(t, true, rendered.s, rendered.n, max_prompt, p->path);
    } else {
        do {
            ids_free(&ids);
            prompt.n = answer.n = rendered.n = 0;
            task_problem_from(&draw, &p->task, p->seed, p->split, index, &prompt, &answer);
            template_render(&p->template, prompt.s, &rendered);
            ids = encode(t, true, rendered.s, rendered.n, INT_MAX, "prompt");
        } while (ids.n > max_prompt);
        g->text = arena_text(a, &prompt);
        g->answer = arena_text(a, &answer);
    }
    group_prompt(g, ids);
    buf_free(&prompt);
    buf_free(&answer);
    buf_free(&rendered);
}

/* Adds a text of --stop; one that is a special token matches that token's id. Dies where no
 * response could have it. */
static void stops_add(Stops *s, const Tokenizer *t, const char *text)
{
    Ids ids = {0};
    size_t n = strlen(text), bad = 0;
    bool special = false;
    if (!tokenizer_encode(t, text, n, &ids, &bad))
        die("--stop: %s: no token for the character at byte %zu; no response can have this text",
            shown(text, n).s, bad);
    for (int i = 0; i < ids.n; i++)
        special |= t->token[ids.id[i]].special;
    if (special && ids.n > 1)
        die("--stop: %s: holds a special token, which the text of a response leaves out; expected "
            "that token alone, or text without it", shown(text, n).s);
    s->text.text[s->text.n++] = text;
    if (special)
        s->id[s->n_ids++] = ids.id[0];
    ids_free(&ids);
}

/* The special token that ends a turn of the template; -1: there is none. */
static int turn_end_id(const Template *template, const Tokenizer *t)
{
    const char *end = template_turn_end(template);
    size_t n;
    for (int root = 0; root < N_ROOTS; root++) {
        int k = added_at(t, root, end, strlen(end), &n);
        if (k >= 0 && t->token[t->added[k].id].special)
            return t->added[k].id;
    }
    return -1;
}

/* The texts of --stop, and the token that ends a turn of the template. */
static Stops stops_new(const Texts *texts, const Template *template, const Tokenizer *t)
{
    Stops s = {.n_ids = 0};
    int end = turn_end_id(template, t);
    for (int i = 0; i < texts->n; i++)
        stops_add(&s, t, texts->text[i]);
    if (end >= 0)
        s.id[s.n_ids++] = end;
    return s;
}

/* The first of the stop texts in a text; NULL: none is there. */
static char *find_stop(const Stops *s, char *text)
{
    char *first = NULL;
    for (int i = 0; s && i < s->text.n; i++) {
        char *at = strstr(text, s->text.text[i]);
        first = at && (!first || at < first) ? at : first;
    }
    return first;
}

/* A response as text, without the end token, and up to a stop text. */
static void response_text(const Group *g, int i, const Tokenizer *t, Buf *out)
{
    out->n = 0;
    tokenizer_decode(t, g->token + g->start[i], response_length(g, i), true, out);
    char *stop = find_stop(g->stops, out->s);
    if (stop) {
        *stop = 0;
        out->n = (size_t)(stop - out->s);
    }
}

/* Rewards by a verifier: +1 for a right and finished response, -1 for any other. */
static void verify_group(Group *g, const Judge *j, const Tokenizer *t)
{
    Buf text = {0};
    for (int i = 0; i < g->m; i++) {
        response_text(g, i, t, &text);
        Verdict v = judge(j, g->text, g->answer, text.s);
        g->answered[i] = judge_finds(j, g->text, text.s);
        if (g->truncated[i])
            v = (Verdict){false, "cut off at --max-tokens"};
        g->reward[i] = v.right ? 1 : -1;
        g->reason[i] = v.reason;
    }
    buf_free(&text);
}

/* Rewards by --reward-cmd, for all responses at once: what it says of each, finished or cut off.
 * The reasons last until its next rewards. */
static void command_rewards(Group *groups, int n, Reward *command, const Tokenizer *t)
{
    Buf text = {0}, lines = {0};
    int total = 0;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < groups[k].m; i++, total++) {
            response_text(&groups[k], i, t, &text);
            reward_request(groups[k].text, text.s, text.n, groups[k].answer, &lines);
        }
    double *reward = xcalloc(total, sizeof *reward), *r = reward;
    const char **reason = xcalloc(total, sizeof *reason), **why = reason;
    reward_get(command, &lines, total, reward, reason);
    for (int k = 0; k < n; k++)
        for (int i = 0; i < groups[k].m; i++) {
            groups[k].reward[i] = *r++;
            groups[k].reason[i] = *why++;
            groups[k].answered[i] = true;
        }
    free(reward);
    free(reason);
    buf_free(&text);
    buf_free(&lines);
}

static void verify_groups(Group *groups, int n, const Judge *j, const Tokenizer *t)
{
    if (j->command)
        command_rewards(groups, n, j->command, t);
    for (int i = 0; i < n && !j->command; i++)
        verify_group(&groups[i], j, t);
}

#endif
