/* map.h: a hash table from 64-bit keys to numbers from 0.
 *
 *   Map m = {0};
 *   map_set(&m, key, 7);
 *   map_get(&m, key)        7, or -1 where the key is absent
 *   map_free(&m);
 *
 * Keys are never removed. */
#ifndef MAP_H
#define MAP_H

#include "util.h" /* defines: xmalloc */

typedef struct {
    uint64_t *key;
    int *value;       /* -1: the place is free */
    size_t n, places; /* places: a power of two, at least 2 n */
} Map;

static inline void map_free(Map *m)
{
    free(m->key);
    free(m->value);
    *m = (Map){0};
}

/* The place of the key, or the free one for it. The hash is splitmix64's. */
static inline size_t map_place(const Map *m, uint64_t key)
{
    uint64_t h = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
    h = (h ^ h >> 27) * 0x94D049BB133111EBu;
    size_t i = (size_t)(h ^ h >> 31) & (m->places - 1);
    while (m->value[i] >= 0 && m->key[i] != key)
        i = (i + 1) & (m->places - 1);
    return i;
}

/* -1 where the key is absent. */
static inline int map_get(const Map *m, uint64_t key)
{
    return m->places ? m->value[map_place(m, key)] : -1;
}

/* Sets or replaces the value of a key. */
static inline void map_set(Map *m, uint64_t key, int value)
{
    if (2 * (m->n + 1) > m->places) {
        Map big = {.places = m->places ? 2 * m->places : 64};
        big.key = xmalloc(big.places * sizeof *big.key);
        big.value = xmalloc(big.places * sizeof *big.value);
        memset(big.value, -1, big.places * sizeof *big.value);
        for (size_t i = 0; i < m->places; i++)
            if (m->value[i] >= 0)
                map_set(&big, m->key[i], m->value[i]);
        map_free(m);
        *m = big;
    }
    size_t i = map_place(m, key);
    m->n += m->value[i] < 0;
    m->key[i] = key;
    m->value[i] = value;
}

#endif
