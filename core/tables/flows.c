/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Walking the flow tables: in batches, key by key on a kernel without them (before 5.6). */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>

#include "tables/internal.h"
#include "util.h"

enum { PIECE = 512, ENOTSUPP_KERNEL = 524 };

uint64_t tables_jiffies(uint32_t hz)
{
        uint64_t start = (uint32_t) (-300 * (int32_t) hz); /* INITIAL_JIFFIES, <linux/jiffies.h> */
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return start + (uint64_t) now.tv_sec * hz + (uint64_t) now.tv_nsec * hz / 1000000000;
}

/* ---- the families ------------------------------------------------------------------------- */

static struct weft_addr map_ip4(__be32 a)
{
        return (struct weft_addr) { { 0, 0, htonl(0xffff), a } };
}

static void partner4(const void *flow, void *ret_key)
{
        weft_partner4(flow, ret_key);
}

static void partner6(const void *flow, void *ret_key)
{
        weft_partner6(flow, ret_key);
}

static void view4(const void *flow, struct flow_view *ret)
{
        const struct weft_flow4 *f = flow;

        ret->saddr = map_ip4(f->key.saddr);
        ret->daddr = map_ip4(f->key.daddr);
        ret->new_saddr = map_ip4(f->saddr);
        ret->new_daddr = map_ip4(f->daddr);
        ret->sport = f->key.sport;
        ret->dport = f->key.dport;
        ret->proto = f->key.proto;
        ret->side = f->key.side;
}

static void view6(const void *flow, struct flow_view *ret)
{
        const struct weft_flow6 *f = flow;

        ret->saddr = f->key.saddr;
        ret->daddr = f->key.daddr;
        ret->new_saddr = f->saddr;
        ret->new_daddr = f->daddr;
        ret->sport = f->key.sport;
        ret->dport = f->key.dport;
        ret->proto = f->key.proto;
        ret->side = f->key.side;
}

const struct family flow_families[2] = {
        { TABLE_FLOWS4, sizeof(struct weft_key4), sizeof(struct weft_flow4), partner4, view4 },
        { TABLE_FLOWS6, sizeof(struct weft_key6), sizeof(struct weft_flow6), partner6, view6 },
};

/* ---- walking ------------------------------------------------------------------------------ */

void walk_begin(const struct tables *t, enum table id, struct walk *w)
{
        const struct layout *l = &t->by[id]->layout;

        *w = (struct walk) {
                .fd = table_fd(t, id),
                .key_size = l->key_size,
                .value_size = l->value_size,
                .max_entries = l->max_entries,
                .one_by_one = t->one_by_one,
        };
}

void walk_done(struct walk *w)
{
        free(w->keys);
        free(w->values);
        w->keys = w->values = NULL;
        w->room = w->n = 0;
}

static int make_room(struct walk *w, uint32_t max)
{
        unsigned char *keys, *values;

        if (w->room >= max)
                return 0;

        keys = realloc(w->keys, (size_t) max * w->key_size);
        if (!keys)
                return -ENOMEM;
        w->keys = keys;

        values = realloc(w->values, (size_t) max * w->value_size);
        if (!values)
                return -ENOMEM;
        w->values = values;
        w->room = max;

        return 0;
}

/* -ENOSPC: one bucket of the hash holds more than max. */
static int next_batch(struct walk *w, uint32_t max)
{
        uint32_t n = max;
        int r;

        r = bpf_map_lookup_batch(w->fd, w->started ? w->cursor : NULL, w->cursor, w->keys,
                                 w->values, &n, NULL);
        if (r == -ENOENT)
                w->done = true;
        else if (r < 0)
                return r;

        w->n = n;
        w->started = true;
        return 0;
}

/* When the cursor's key has gone, the kernel begins anew: the walk ends after as many steps as the
 * table has places. */
static int next_keys(struct walk *w, uint32_t max)
{
        for (w->n = 0; w->n < max && !w->done;) {
                unsigned char *key = w->keys + (size_t) w->n * w->key_size;

                if (bpf_map_get_next_key(w->fd, w->started ? w->cursor : NULL, key) < 0 ||
                    w->seen++ >= w->max_entries) {
                        w->done = true;
                        break;
                }

                w->started = true;
                memcpy(w->cursor, key, w->key_size);
                if (bpf_map_lookup_elem(w->fd, key, w->values + (size_t) w->n * w->value_size) == 0)
                        w->n++;
        }

        return 0;
}

static bool no_batches(const struct walk *w, int r)
{
        return !w->started && (r == -EINVAL || r == -ENOTSUPP_KERNEL || r == -EOPNOTSUPP);
}

int walk_next(struct walk *w, uint32_t max)
{
        int r;

        for (;;) {
                r = make_room(w, max);
                if (r < 0)
                        return r;
                if (w->one_by_one)
                        return next_keys(w, max);

                r = next_batch(w, max);
                if (r == -ENOSPC)
                        max *= 2;
                else if (no_batches(w, r))
                        w->one_by_one = true;
                else
                        return r;
        }
}

/* ---- views -------------------------------------------------------------------------------- */

static int each_of_piece(const struct walk *w, const struct family *family, uint64_t now,
                         int (*f)(void *data, const struct flow_view *v), void *data)
{
        for (uint32_t i = 0; i < w->n; i++) {
                const struct weft_flow *flow =
                        (const void *) (w->values + (size_t) i * w->value_size);
                struct flow_view view = {
                        .flow = flow,
                        .now = now,
                        .expired = flow_expired(flow, now),
                };
                int r;

                family->view(flow, &view);
                r = f(data, &view);
                if (r != 0)
                        return r;
        }

        return 0;
}

struct flow_walk {
        struct tables *tables;
        size_t family;
        struct walk walk;
};

struct flow_walk *flow_walk_new(struct tables *t)
{
        struct flow_walk *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;

        w->tables = t;
        walk_begin(t, flow_families[0].table, &w->walk);
        return w;
}

struct flow_walk *flow_walk_free(struct flow_walk *w)
{
        if (w)
                walk_done(&w->walk);
        free(w);

        return NULL;
}

static bool is_last(const struct flow_walk *w)
{
        return w->family + 1 == ELEMENTS(flow_families);
}

int flow_walk_next(struct flow_walk *w, int (*f)(void *data, const struct flow_view *v), void *data,
                   bool *ret_done)
{
        struct tables *t = w->tables;
        int r;

        if (w->walk.done && !is_last(w)) {
                walk_done(&w->walk);
                walk_begin(t, flow_families[++w->family].table, &w->walk);
        }

        r = walk_next(&w->walk, PIECE);
        if (r == 0)
                r = each_of_piece(&w->walk, &flow_families[w->family], tables_jiffies(t->hz), f,
                                  data);

        *ret_done = w->walk.done && is_last(w);
        return r;
}

static void flow_walk_freep(struct flow_walk **w)
{
        (void) flow_walk_free(*w);
}

int tables_each_flow(struct tables *t, int (*f)(void *data, const struct flow_view *v), void *data)
{
        _cleanup_(flow_walk_freep) struct flow_walk *w = flow_walk_new(t);
        int r = w ? 0 : -ENOMEM;
        bool done = false;

        while (r == 0 && !done)
                r = flow_walk_next(w, f, data, &done);

        return r;
}

void flow_counts_add(struct flow_counts *c, const struct weft_flow *f, bool ipv6, bool expired)
{
        c->entries[ipv6]++;
        if (expired)
                c->expired++;
        else if (f->state < ELEMENTS(c->states))
                c->states[f->state]++;
}

uint32_t tables_flow_capacity(const struct tables *t, bool ipv6)
{
        return table_size(t, flow_families[ipv6].table);
}

/* ---- an address that is gone -------------------------------------------------------------- */

static bool bears(const struct flow_view *v, const struct weft_addr *a)
{
        bool translated = v->flow->set & WEFT_SET_SRC;

        return (translated && memcmp(&v->new_saddr, a, sizeof(*a)) == 0) ||
               (v->side == WEFT_SIDE_UPLINK && v->flow->set & WEFT_SET_DST &&
                memcmp(&v->daddr, a, sizeof(*a)) == 0);
}

static size_t forget_piece(const struct tables *t, const struct family *family,
                           const struct walk *w, const struct weft_addr *a)
{
        unsigned char partner[sizeof(struct weft_key6)];
        size_t n = 0;

        for (uint32_t i = 0; i < w->n; i++) {
                const unsigned char *key = w->keys + (size_t) i * w->key_size;
                const void *flow = w->values + (size_t) i * w->value_size;
                struct flow_view view = { .flow = flow };

                family->view(flow, &view);
                if (!bears(&view, a))
                        continue;
                family->partner(flow, partner);
                n += bpf_map_delete_elem(table_fd(t, family->table), key) == 0;
                (void) bpf_map_delete_elem(table_fd(t, family->table), partner);
        }

        return n;
}

size_t tables_forget_address(struct tables *t, const struct weft_addr *a)
{
        bool four = a->w[0] == 0 && a->w[1] == 0 && a->w[2] == htonl(0xffff);
        const struct family *family = &flow_families[four ? 0 : 1];
        _cleanup_(walk_done) struct walk w;
        size_t n = 0;

        walk_begin(t, family->table, &w);
        while (!w.done && walk_next(&w, PIECE) == 0)
                n += forget_piece(t, family, &w, a);

        return n;
}
