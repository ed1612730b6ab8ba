/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Freeing the memory of flows that are over. Nothing depends on it but memory: an entry past its
 * deadline is absent for the datapath already.
 *
 * An element of a hash map is reused the moment it is freed, so a program that still holds a
 * pointer to it would write into a stranger's flow. Hence: mark, grace period, delete. The
 * deadlines are the mark: no program that begins after both have passed takes the pair for present,
 * so one grace period later nobody holds it but those that began before and moved a deadline, which
 * is seen by reading again. (A flag written from here would be wrong: an update from user space
 * puts a new element in the old one's place, frees the old one at once and undoes whatever a packet
 * wrote meanwhile.)
 *
 * What remains is the instant between that second reading and the delete, in which a packet may put
 * a new connection under the same key: its entry is lost, its next packet is decided as a first
 * one.
 *
 * An entry without a partner is a reply that commit() has just stored, or what stayed behind when
 * its other direction was replaced by a newer connection. The second kind goes, once it is too old
 * to be the first. It may be alive, in a packet that began before the grace period and ends after
 * it; no program runs that long. */

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "generation/generation.h"
#include "tables/internal.h"

enum { PIECE = 512, YOUNG_SECONDS = 2, MARGIN_SECONDS = 2, TURNS_SHIFT = 4 };

/* An entry found to be over; it must be the same one when it is looked at again. */
struct candidate {
        unsigned char key[sizeof(struct weft_key6)];
        uint64_t created;
};

struct candidates {
        struct candidate *items;
        size_t n, room;
};

static void candidates_done(struct candidates *c)
{
        free(c->items);
}

/* The kernel's jiffies and ours run alike but started apart, by the part of the boot in which there
 * were no ticks yet: 0.2 s were seen. */
static bool over(const struct tables *t, const struct weft_flow *f, uint64_t now)
{
        return flow_expired(f, now - MARGIN_SECONDS * t->hz);
}

static bool young(const struct tables *t, const struct weft_flow *f, uint64_t now)
{
        return (int64_t) (now - f->created) <= (int64_t) (YOUNG_SECONDS * t->hz);
}

/* The other direction, if it is there and says that this one is its own. */
static bool find_partner(const struct tables *t, const struct family *family, const void *key,
                         const void *flow, void *ret_key, void *ret_flow)
{
        unsigned char back[sizeof(struct weft_key6)];

        family->partner(flow, ret_key);
        if (bpf_map_lookup_elem(table_fd(t, family->table), ret_key, ret_flow) < 0)
                return false;

        family->partner(ret_flow, back);
        return memcmp(back, key, family->key_size) == 0;
}

/* The other direction of a connection that lives is missing only after a race that was lost, and to
 * look is what a pass costs. So each pass looks for those of some, by turns. */
static bool is_its_turn(const struct tables *t, const struct family *family, const void *key,
                        const struct weft_flow *f)
{
        uint32_t sum = 0, word;

        if (f->state != WEFT_ESTABLISHED)
                return true;

        for (size_t i = 0; i < family->key_size; i += sizeof(word)) {
                memcpy(&word, (const char *) key + i, sizeof(word));
                sum = (sum ^ word) * 2654435761u;
        }

        return sum >> (32 - TURNS_SHIFT) == t->collections % (1 << TURNS_SHIFT);
}

/* May the entry go? *ret_partner: the key of its other direction, which goes with it; all zero:
 * there is none. */
static bool may_go(const struct tables *t, const struct family *family, const void *key,
                   const void *flow, uint64_t now, unsigned char *ret_partner)
{
        struct weft_flow6 partner;

        if (!over(t, flow, now) && !is_its_turn(t, family, key, flow))
                return false;
        if (!find_partner(t, family, key, flow, ret_partner, &partner)) {
                memset(ret_partner, 0, family->key_size);
                return over(t, flow, now) || !young(t, flow, now);
        }

        return over(t, flow, now) && over(t, &partner.f, now);
}

static int add(struct candidates *c, const struct family *family, const void *key,
               const struct weft_flow *flow)
{
        if (c->n == c->room) {
                size_t room = c->room ? 2 * c->room : 64;
                struct candidate *items = realloc(c->items, room * sizeof(*items));

                if (!items)
                        return -ENOMEM;
                c->items = items;
                c->room = room;
        }

        memcpy(c->items[c->n].key, key, family->key_size);
        c->items[c->n++].created = flow->created;
        return 0;
}

static void look_at_piece(struct tables *t, const struct family *family, const struct walk *w,
                          struct candidates *c)
{
        uint64_t now = tables_jiffies(t->hz);
        unsigned char partner[sizeof(struct weft_key6)];

        for (uint32_t i = 0; i < w->n; i++) {
                const unsigned char *key = w->keys + (size_t) i * w->key_size;
                const void *flow = w->values + (size_t) i * w->value_size;

                live_see(t, flow, now);
                flow_counts_add(&t->counting, flow, t->collection_family, flow_expired(flow, now));
                if (may_go(t, family, key, flow, now, partner) && add(c, family, key, flow) < 0)
                        return;
        }
}

static size_t delete (const struct tables *t, const struct family *family, const void *key)
{
        return bpf_map_delete_elem(table_fd(t, family->table), key) == 0;
}

static size_t free_one(const struct tables *t, const struct family *family,
                       const struct candidate *c)
{
        static const unsigned char none[sizeof(struct weft_key6)];
        unsigned char partner[sizeof(struct weft_key6)];
        struct weft_flow6 flow;
        size_t n;

        if (bpf_map_lookup_elem(table_fd(t, family->table), c->key, &flow) < 0 ||
            flow.f.created != c->created ||
            !may_go(t, family, c->key, &flow, tables_jiffies(t->hz), partner))
                return 0;

        n = delete (t, family, c->key);
        if (memcmp(partner, none, family->key_size) != 0)
                n += delete (t, family, partner);

        return n;
}

static size_t free_candidates(const struct tables *t, const struct family *family,
                              const struct candidates *c)
{
        size_t freed = 0;

        if (c->n == 0)
                return 0;

        grace_period();
        for (size_t i = 0; i < c->n; i++)
                freed += free_one(t, family, &c->items[i]);

        return freed;
}

/* Up to budget entries of one table. The budget that is left. */
static size_t look_at_table(struct tables *t, const struct family *family, size_t budget,
                            struct candidates *c)
{
        struct walk *w = &t->collection;

        while (budget > 0 && !w->done) {
                if (walk_next(w, budget < PIECE ? budget : PIECE) < 0) {
                        w->done = true; /* the next pass tries again */
                        live_forget(t);
                        break;
                }

                look_at_piece(t, family, w, c);
                budget -= w->n && w->n <= budget ? w->n : budget;
        }

        return budget;
}

size_t tables_collect(struct tables *t, size_t budget, bool *ret_done)
{
        size_t freed = 0;

        *ret_done = false;
        while (budget > 0 && !*ret_done) {
                const struct family *family = &flow_families[t->collection_family];
                _cleanup_(candidates_done) struct candidates c = {};

                if (!t->collection.fd && t->collection_family == 0)
                        live_begin(t);
                if (!t->collection.fd)
                        walk_begin(t, family->table, &t->collection);

                budget = look_at_table(t, family, budget, &c);
                freed += free_candidates(t, family, &c);
                if (!t->collection.done)
                        break;

                walk_done(&t->collection);
                t->collection = (struct walk) {};
                t->collection_family = !t->collection_family;
                *ret_done = t->collection_family == 0;
                if (*ret_done) {
                        live_end(t);
                        t->collections++;
                        t->counted = t->counting;
                        t->counting = (struct flow_counts) {};
                }
        }

        return freed;
}

const struct flow_counts *tables_flow_counts(const struct tables *t)
{
        return &t->counted;
}
