/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tables of Maglev hashing in their map, a number each. Like ranges of slots they are written
 * before an entry points at them, and rest after the last one has let go, for a program may still
 * read them: some at a time are freed behind one grace period. */

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "generation/generation.h"
#include "tables/internal.h"

enum { RESTING = 16 };

static uint32_t pieces(uint32_t size)
{
        return (size + WEFT_MAGLEV_PIECE - 1) / WEFT_MAGLEV_PIECE;
}

static void delete_pieces(struct tables *t, uint32_t number, uint32_t n)
{
        for (uint32_t i = 0; i < n; i++)
                (void) bpf_map_delete_elem(table_fd(t, TABLE_MAGLEV),
                                           &(struct weft_maglev_key) { number, i });
}

static int write_pieces(struct tables *t, uint32_t number, const uint32_t *contents, uint32_t size)
{
        for (uint32_t i = 0; i < pieces(size); i++) {
                uint32_t from = i * WEFT_MAGLEV_PIECE, n = size - from;
                struct weft_maglev_key key = { number, i };
                struct weft_maglev_piece piece = {};
                int r;

                memcpy(piece.backend, contents + from,
                       (n < WEFT_MAGLEV_PIECE ? n : WEFT_MAGLEV_PIECE) * sizeof(*contents));
                r = bpf_map_update_elem(table_fd(t, TABLE_MAGLEV), &key, &piece, BPF_ANY);
                if (r < 0) {
                        delete_pieces(t, number, i);
                        return r;
                }
        }

        return 0;
}

static void free_retired(struct tables *t)
{
        struct lookup *next;

        if (t->retired_lookups)
                grace_period();

        for (struct lookup *l = t->retired_lookups; l; l = next) {
                next = l->next;
                delete_pieces(t, l->number, pieces(l->size));
                free(l);
        }

        t->retired_lookups = NULL;
        t->n_retired_lookups = 0;
}

static struct lookup *add(struct tables *t, uint32_t number, uint32_t size)
{
        struct lookup *l = malloc(sizeof(*l));

        if (!l)
                return NULL;

        *l = (struct lookup) { .number = number, .size = size, .refs = 1, .next = t->lookups };
        t->lookups = l;
        return l;
}

static void forget(struct tables *t, struct lookup *l)
{
        struct lookup **at = &t->lookups;

        while (*at != l)
                at = &(*at)->next;
        *at = l->next;
}

int lookup_new(struct tables *t, const uint32_t *contents, uint32_t size, struct lookup **ret)
{
        uint32_t number = ++t->last_lookup;
        struct lookup *l;
        int r;

        r = write_pieces(t, number, contents, size);
        if (r < 0 && t->retired_lookups) {
                free_retired(t);
                r = write_pieces(t, number, contents, size);
        }
        if (r < 0)
                return r;

        l = add(t, number, size);
        if (!l) {
                delete_pieces(t, number, pieces(size));
                return -ENOMEM;
        }

        *ret = l;
        return 0;
}

int lookups_adopt(struct tables *t)
{
        _cleanup_free_ struct weft_maglev_key *keys = NULL;
        size_t n;
        int r;

        r = table_keys(t, TABLE_MAGLEV, &keys, &n);
        for (size_t i = 0; r == 0 && i < n; i++)
                if (keys[i].table > t->last_lookup)
                        t->last_lookup = keys[i].table;

        return r;
}

int lookup_adopt(struct tables *t, uint32_t number, uint32_t size, struct lookup **ret)
{
        for (struct lookup *l = t->lookups; l; l = l->next)
                if (l->number == number) {
                        *ret = lookup_ref(l);
                        return 0;
                }

        *ret = add(t, number, size);
        return *ret ? 0 : -ENOMEM;
}

struct lookup *lookup_ref(struct lookup *l)
{
        l->refs++;
        return l;
}

void lookup_unref(struct tables *t, struct lookup *l)
{
        if (!l || --l->refs > 0)
                return;

        forget(t, l);
        l->next = t->retired_lookups;
        t->retired_lookups = l;
        if (++t->n_retired_lookups >= RESTING)
                free_retired(t);
}

static bool is_known(const struct tables *t, uint32_t number)
{
        for (const struct lookup *l = t->lookups; l; l = l->next)
                if (l->number == number)
                        return true;

        return false;
}

void lookups_settle(struct tables *t)
{
        _cleanup_free_ struct weft_maglev_key *keys = NULL;
        size_t n = 0;

        free_retired(t);
        if (table_keys(t, TABLE_MAGLEV, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!is_known(t, keys[i].table))
                        (void) bpf_map_delete_elem(table_fd(t, TABLE_MAGLEV), &keys[i]);
}

void lookups_done(struct tables *t)
{
        struct lookup *next;

        free_retired(t);
        for (struct lookup *l = t->lookups; l; l = next) {
                next = l->next;
                free(l);
        }
}
