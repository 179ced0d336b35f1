/* evol.h: EVOL-RL (arXiv 2509.15194), a baseline: novelty from embeddings of the responses. */
#ifndef EVOL_H
#define EVOL_H

#include "group.h" /* defines: Group, is_right */

enum { NGRAM_BUCKETS = 512 };

/* The width of an embedding. */
static int embedding_width(int encoder, int d)
{
    return encoder == EMBED_NGRAM ? NGRAM_BUCKETS : d;
}

/* --encoder ref: the mean of the reference model's last hidden states over a response's tokens. Row
 * t of hidden_ref predicts token t, so the state at it is row t + 1; that of the last token is not
 * computed. A response of one token has the prompt's last state. E: [m, d] */
static void embed_by_reference(const Group *g, int d, float *E)
{
    for (int i = 0; i < g->m; i++) {
        int first = g->start[i] + (response_length(g, i) > 1), n = g->start[i + 1] - first;
        float *mean = row(E, i, d);
        memset(mean, 0, d * sizeof(float));
        for (int t = 0; t < n; t++)
            row_axpy(mean, 1.0f / (float)n, g->hidden_ref + (ptrdiff_t)(first + t) * d, d);
    }
}

/* --encoder ngram: how often each trigram of tokens occurs, by hash. E: [m, NGRAM_BUCKETS] */
static void embed_by_ngrams(const Group *g, float *E)
{
    memset(E, 0, (size_t)g->m * NGRAM_BUCKETS * sizeof(float));
    for (int i = 0; i < g->m; i++) {
        int gram[3] = {-1, -1, -1};
        for (int t = g->start[i]; t < g->start[i + 1]; t++) {
            gram[0] = gram[1];
            gram[1] = gram[2];
            gram[2] = g->token[t];
            E[i * NGRAM_BUCKETS + (int)(hash64(gram, sizeof gram) % NGRAM_BUCKETS)]++;
        }
    }
}

/* Embeddings of the responses.   E: [m, embedding_width] */
static void embed_responses(const Group *g, int encoder, int d, float *E)
{
    if (encoder == EMBED_NGRAM)
        embed_by_ngrams(g, E);
    else
        embed_by_reference(g, d, E);
}

/* EVOL-RL's novelty of an answer: u = 1 - (mean + max) / 2 of its cosines, clipped to [0, 1], with
 * the other answers: the mean over those of its class, right or wrong (over all where it is alone
 * there), the maximum over all. NAN for a response without an answer, and for a lone answer. */
static double semantic_novelty(const Group *g, int i)
{
    double same = 0, all = 0, most = 0;
    int n_same = 0, n_all = 0;
    for (int j = 0; j < g->m; j++) {
        double s = fmax(0, fmin(1, g->semantic[i * g->m + j]));
        if (j == i || !g->answered[j])
            continue;
        all += s;
        n_all++;
        most = fmax(most, s);
        if (is_right(g->reward[i]) == is_right(g->reward[j])) {
            same += s;
            n_same++;
        }
    }
    return g->answered[i] && n_all ? 1 - 0.5 * ((n_same ? same / n_same : all / n_all) + most)
                                   : (double)NAN;
}

/* EVOL-RL's reward: with n in [0, 1] the min-max of u inside the class, 0.5 + 0.5 n for a right
 * answer, -1 + 0.5 n for a wrong one: novel is better in both. An answer alone in its class has
 * n = 1; where all u of a class are equal, n = 0.5. No answer, or at most one in the group: -1. */
static void shape_by_meaning(Group *g)
{
    for (int i = 0; i < g->m; i++) {
        double low = g->u[i], high = g->u[i];
        bool right = is_right(g->reward[i]), alone = true;
        for (int j = 0; j < g->m; j++)
            if (j != i && g->answered[j] && is_right(g->reward[j]) == right) {
                low = fmin(low, g->u[j]);
                high = fmax(high, g->u[j]);
                alone = false;
            }
        double among = high - low >= FLOOR ? (g->u[i] - low) / (high - low) : alone ? 1 : 0.5;
        g->nubar[i] = isnan(g->u[i]) ? 0 : among;
        g->shaped[i] = isnan(g->u[i]) ? -1 : (right ? 0.5 : -1) + 0.5 * among;
    }
}

#endif
