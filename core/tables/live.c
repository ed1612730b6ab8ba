/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How many flows live at each backend, which algorithm least-connections goes by. The datapath
 * counts what it sees open and close; flows also end without a packet, and two counters that are
 * never compared with the truth drift. So each pass of collection counts the flows that are there.
 * Where the counters say otherwise, by more than what opened and closed meanwhile could explain,
 * they are put right: what is off is off for one pass. */

#include <errno.h>

#include "tables/internal.h"

struct live {
        uint32_t found, opened, closed; /* flows that are there; the counters when the pass began */
        uint16_t number;
};

void live_begin(struct tables *t)
{
        free(t->live);
        t->n_live = t->backend_top;
        t->live = calloc(t->n_live, sizeof(*t->live));
        if (!t->live)
                return;

        for (uint32_t i = 1; i < t->n_live; i++) {
                const struct weft_backend *b = table_at(t, TABLE_BACKENDS, i);

                t->live[i] = (struct live) {
                        .opened = __atomic_load_n(&b->opened, __ATOMIC_RELAXED),
                        .closed = __atomic_load_n(&b->closed, __ATOMIC_RELAXED),
                        .number = b->number,
                };
        }
}

void live_see(struct tables *t, const struct weft_flow *f, uint64_t now)
{
        if (!t->live || f->backend >= t->n_live || f->flags & WEFT_FLOW_REPLY ||
            f->state == WEFT_CLOSING || flow_expired(f, now) ||
            f->backend_number != t->live[f->backend].number)
                return;

        t->live[f->backend].found++;
}

static void put_right(struct weft_backend *b, const struct live *l)
{
        uint32_t opened = __atomic_load_n(&b->opened, __ATOMIC_RELAXED);
        uint32_t closed = __atomic_load_n(&b->closed, __ATOMIC_RELAXED);
        int64_t live = (int32_t) (opened - closed), found = l->found;
        int64_t meanwhile = (int64_t) (opened - l->opened) + (closed - l->closed);

        if (b->number != l->number)
                return;
        if (live < found - meanwhile)
                __atomic_fetch_add(&b->opened, found - meanwhile - live, __ATOMIC_RELAXED);
        else if (live > found + meanwhile)
                __atomic_fetch_add(&b->closed, live - found - meanwhile, __ATOMIC_RELAXED);
}

void live_end(struct tables *t)
{
        for (uint32_t i = 1; t->live && i < t->n_live; i++)
                put_right(table_at(t, TABLE_BACKENDS, i), &t->live[i]);

        live_forget(t);
}

void live_forget(struct tables *t)
{
        free(t->live);
        t->live = NULL;
}
