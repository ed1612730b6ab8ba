/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Backends: one element for each (service, address, port, protocol), counted. Flows carry the index
 * and its number, so an index means the same backend as long as its service wants it, over restarts
 * too. */

#include <errno.h>
#include <search.h>
#include <stddef.h>
#include <string.h>

#include "generation/generation.h"
#include "tables/internal.h"

/* What of struct weft_backend changes by one store. */
_Static_assert(offsetof(struct weft_backend, port) == 16 &&
                       offsetof(struct weft_backend, opened) == 24,
               "port, protocol, state and number are one word");

enum { IN_USE, REMOVED };

static int by_key(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct backend_key));
}

static struct weft_backend *element(const struct tables *t, uint32_t index)
{
        return table_at(t, TABLE_BACKENDS, index);
}

static void store_word(struct weft_backend *to, const struct weft_backend *from)
{
        store64(&to->port, &from->port);
}

static void mark_removed(struct weft_backend *b)
{
        struct weft_backend new = *b;

        new.state = REMOVED;
        new.number++;
        store_word(b, &new);
}

/* ---- indices ------------------------------------------------------------------------------ */

static void push_index(struct tables *t, uint32_t index)
{
        t->backend_ring[(t->ring_start + t->ring_n++) % table_size(t, TABLE_BACKENDS)] = index;
}

/* A never used index while there is one, then the one that was removed first: old flows should not
 * meet a number that has gone round. */
static int pop_index(struct tables *t, uint32_t *ret)
{
        uint32_t max = table_size(t, TABLE_BACKENDS);

        if (t->backend_top < max) {
                *ret = t->backend_top++;
                return 0;
        }

        if (t->ring_n == 0)
                return -ENOSPC;

        if (t->ring_safe == 0) {
                grace_period();
                t->ring_safe = t->ring_n;
        }

        *ret = t->backend_ring[t->ring_start];
        t->ring_start = (t->ring_start + 1) % max;
        t->ring_n--;
        t->ring_safe--;
        return 0;
}

/* ---- the tree ----------------------------------------------------------------------------- */

static int insert(struct tables *t, const struct backend_key *key, uint32_t index,
                  struct backend **ret)
{
        struct backend *b = malloc(sizeof(*b));

        if (!b)
                return -ENOMEM;

        *b = (struct backend) { .key = *key, .index = index };
        if (!tsearch(b, &t->backends, by_key)) {
                free(b);
                return -ENOMEM;
        }

        *ret = b;
        return 0;
}

static void write_element(struct tables *t, const struct backend *b)
{
        struct weft_backend *e = element(t, b->index);
        struct weft_backend new = {
                .addr = b->key.addr,
                .port = b->key.port,
                .proto = b->key.proto,
                .state = IN_USE,
                .number = e->number + 1,
        };

        e->opened = e->closed = 0;
        e->service = b->key.service;
        store64(&e->addr.w[0], &new.addr.w[0]);
        store64(&e->addr.w[2], &new.addr.w[2]);
        store_word(e, &new);
}

struct backend *backend_find(struct tables *t, const struct backend_key *key)
{
        struct backend **b = tfind(key, &t->backends, by_key);

        return b ? *b : NULL;
}

int backend_take(struct tables *t, const struct backend_key *key, struct backend **ret)
{
        struct backend *known = backend_find(t, key);
        uint32_t index;
        int r;

        if (known) {
                known->refs++;
                *ret = known;
                return 0;
        }

        r = pop_index(t, &index);
        if (r < 0)
                return r;

        r = insert(t, key, index, ret);
        if (r < 0) {
                push_index(t, index);
                return r;
        }

        write_element(t, *ret);
        (*ret)->refs = 1;
        return 0;
}

static void remove_backend(struct tables *t, struct backend *b)
{
        mark_removed(element(t, b->index));
        push_index(t, b->index);
        (void) tdelete(b, &t->backends, by_key);
        free(b);
}

void backend_drop(struct tables *t, struct backend *b)
{
        if (--b->refs == 0)
                remove_backend(t, b);
}

/* ---- taking over -------------------------------------------------------------------------- */

static bool never_used(const struct weft_backend *e)
{
        return e->port == 0 && e->number == 0;
}

static int adopt_element(struct tables *t, uint32_t index)
{
        struct weft_backend *e = element(t, index);
        struct backend_key key = {
                .addr = e->addr, .port = e->port, .proto = e->proto, .service = e->service
        };
        struct backend *b;

        if (e->state == IN_USE && e->port && !backend_find(t, &key))
                return insert(t, &key, index, &b);

        if (e->state == IN_USE && e->port)
                mark_removed(e); /* a predecessor's doublet */
        push_index(t, index);
        return 0;
}

int backends_adopt(struct tables *t)
{
        uint32_t top = table_size(t, TABLE_BACKENDS);
        int r = 0;

        while (top > 1 && never_used(element(t, top - 1)))
                top--;

        t->backend_top = top;
        for (uint32_t i = 1; r == 0 && i < top; i++)
                r = adopt_element(t, i);

        return r;
}

struct unwanted {
        struct backend **items;
        size_t n;
};

static void collect_unwanted(const void *node, VISIT visit, void *data)
{
        struct backend *b = *(struct backend *const *) node;
        struct unwanted *u = data;

        if ((visit == postorder || visit == leaf) && b->refs == 0)
                u->items[u->n++] = b;
}

void backends_settle(struct tables *t)
{
        _cleanup_free_ struct backend **items = calloc(t->backend_top, sizeof(*items));
        struct unwanted u = { items, 0 };

        if (!items)
                return;

        twalk_r(t->backends, collect_unwanted, &u);
        for (size_t i = 0; i < u.n; i++)
                remove_backend(t, u.items[i]);
}

void backends_done(struct tables *t)
{
        tdestroy(t->backends, free);
        free(t->backend_ring);
}
