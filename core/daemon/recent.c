/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "config/values.h"
#include "daemon/recent.h"

static struct recent_snapshot *newest(struct recent *r)
{
        return &r->ring[(r->next + RECENT_SNAPSHOTS - 1) % RECENT_SNAPSHOTS];
}

void recent_begin(struct recent *r, uint64_t now)
{
        struct recent_snapshot *s = &r->ring[r->next];

        free(s->items);
        *s = (struct recent_snapshot) { .when = now };
        r->next = (r->next + 1) % RECENT_SNAPSHOTS;
        r->n += r->n < RECENT_SNAPSHOTS;
}

void recent_add(struct recent *r, const struct count_view *v)
{
        struct recent_snapshot *s = newest(r);

        if (list_grow(&s->items, s->n, sizeof(*s->items)) < 0)
                return;

        s->items[s->n++] = (struct recent_count) { v->what, v->hook, v->module, v->packets };
}

/* The newest that is a minute old, else the oldest; NULL: there is none. */
static const struct recent_snapshot *minute_ago(const struct recent *r, uint64_t now)
{
        const struct recent_snapshot *found = NULL;

        for (size_t i = 1; i <= r->n; i++) {
                found = &r->ring[(r->next + RECENT_SNAPSHOTS - i) % RECENT_SNAPSHOTS];
                if (now - found->when >= RECENT_SECONDS * 1000000ULL)
                        break;
        }

        return found;
}

uint64_t recent_packets(const struct recent *r, const struct count_view *v, uint64_t now)
{
        const struct recent_snapshot *s = minute_ago(r, now);

        for (size_t i = 0; s && i < s->n; i++) {
                const struct recent_count *c = &s->items[i];

                if (strcmp(c->what, v->what) == 0 && c->hook == v->hook && c->module == v->module)
                        return v->packets - c->packets;
        }

        return s ? v->packets : 0;
}

void recent_done(struct recent *r)
{
        for (size_t i = 0; i < RECENT_SNAPSHOTS; i++)
                free(r->ring[i].items);
        *r = (struct recent) {};
}
