/* packing.h: groups as batches of the model, end to end, without padding. */
#ifndef PACKING_H
#define PACKING_H

#include "group.h" /* defines: Group; model.c: Batch, forward */

/* Rows that a group takes: the prompt once, and of each response all but its last token, which
 * predicts nothing. */
static int group_rows(const Group *g) { return g->prompt_length + g->n_tokens - g->m; }

/* Packs groups for a forward pass: every response token is a target, in the order of the groups'
 * own token arrays. The first token of each response is predicted by the prompt's last row. With
 * the activations that sampling saved, where the groups read these (all of them, or none). */
static Batch pack_groups(Arena *a, const Group *groups, int n)
{
    int rows = 0, seqs = 0, targets = 0;
    for (int i = 0; i < n; i++) {
        rows += group_rows(&groups[i]);
        seqs += 1 + groups[i].m;
        targets += groups[i].n_tokens;
    }
    Batch b = batch_new(a, rows, seqs, targets);
    for (int i = 0; i < n; i++) {
        const Group *g = &groups[i];
        int prompt = batch_seq(&b, g->prompt, g->prompt_length, 0, -1), last = b.n_rows - 1;
        if (g->reads_saved)
            b.seq[prompt].saved = group_saved(g, -1, 0);
        for (int k = 0; k < g->m; k++) {
            const int *y = g->token + g->start[k];
            int length = response_length(g, k), row = b.n_rows;
            int s = length > 1 ? batch_seq(&b, y, length - 1, g->prompt_length, prompt) : -1;
            if (g->reads_saved && s >= 0)
                b.seq[s].saved = group_saved(g, k, 0);
            for (int t = 0; t < length; t++)
                batch_target(&b, t == 0 ? last : row + t - 1, y[t]);
        }
    }
    return b;
}

/* The reference's hidden rows of the targets of packed groups. */
static const float *pack_hidden_ref(Arena *a, const Group *groups, int n, size_t d)
{
    size_t targets = 0, offset = 0;
    for (int i = 0; i < n; i++)
        targets += (size_t)groups[i].n_tokens;
    float *all = arena_floats(a, targets * d);
    for (int i = 0; i < n; offset += (size_t)groups[i++].n_tokens)
        memcpy(all + offset * d, groups[i].hidden_ref,
               (size_t)groups[i].n_tokens * d * sizeof(float));
    return all;
}

/* Groups under a model that is not being trained. */
typedef struct {
    const Model *m;
    Group *groups;
} Frozen;

static void reference_group(Arena *a, int i, void *context)
{
    const Frozen *f = context;
    Group one = f->groups[i];
    one.reads_saved = false; /* those are the policy's */
    Batch b = pack_groups(a, &one, 1);
    Pass p = forward(a, f->m, &b, KEEP_NOTHING);
    memcpy(one.hidden_ref, p.hidden,
           (size_t)one.n_tokens * f->m->config.hidden_size * sizeof(float));
}

/* Runs all groups through the reference, up to its head: that runs in one pass over the vocabulary
 * with the policy's own, so that log-probs and the exact KL divergence come together. A policy that
 * trains an adapter is its own reference: it is for a while what it was at step 0. (Its head is no
 * part of the adapter.) */
static void reference_hidden(Engine *e, Model *ref, Group *groups, int n)
{
    Frozen f = {ref, groups};
    size_t d = (size_t)ref->config.hidden_size;
    for (int i = 0; i < n; i++)
        groups[i].hidden_ref = arena_floats(&e->arena, (size_t)groups[i].n_tokens * d);
    if (ref->lora)
        lora_merge(ref, ref->lora->start, e->threads);
    engine_each(e, n, reference_group, &f);
    if (ref->lora)
        lora_merge(ref, ref->lora->ab.params, e->threads);
    phase_ends(e, REFERENCE);
}

#endif
