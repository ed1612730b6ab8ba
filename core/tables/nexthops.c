/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Next-hop slots: those below WEFT_NEXTHOP_OWN are one for each local endpoint and written here
 * only; of the datapath's own ones, user space moves link-layer addresses and numbers. */

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tables/internal.h"

/* Jiffies are compared by their signed difference: the farthest future of that. */
#define FOR_EVER ((uint64_t) INT64_MAX)

_Static_assert(offsetof(struct weft_nexthop, dmac) % 8 == 0, "dmac moves by one 8-byte store");

static struct weft_nexthop *slot_at(const struct tables *t, uint32_t slot)
{
        return table_at(t, TABLE_NEXTHOPS, slot);
}

static void store32(uint32_t *p, uint32_t v)
{
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static void move_number(struct weft_nexthop *n)
{
        (void) __atomic_add_fetch(&n->number, 1, __ATOMIC_ACQ_REL);
}

/* The 8 bytes at dmac take the first two of smac with them. */
static void store_dmac(struct weft_nexthop *n, const uint8_t mac[6], const uint8_t smac[6])
{
        uint8_t bytes[8];

        memcpy(bytes, mac, 6);
        memcpy(bytes + 6, smac, 2);
        store64(n->dmac, bytes);
}

static void clear(struct weft_nexthop *n)
{
        move_number(n);
        store32(&n->ifindex, 0);
}

int nexthops_adopt(struct tables *t)
{
        _cleanup_free_ struct weft_addr *keys = NULL;
        struct weft_endpoint e;
        size_t n;
        int r;

        for (uint32_t i = 1; i < WEFT_NEXTHOP_OWN; i++)
                if (slot_at(t, i)->ifindex)
                        t->hop_states[i] = SLOT_INHERITED;

        /* A predecessor killed half-way may have left an entry whose slot is not filled. */
        r = table_keys(t, TABLE_ENDPOINTS, &keys, &n);
        for (size_t i = 0; r == 0 && i < n; i++)
                if (bpf_map_lookup_elem(table_fd(t, TABLE_ENDPOINTS), &keys[i], &e) == 0 &&
                    e.nexthop < WEFT_NEXTHOP_OWN)
                        t->hop_states[e.nexthop] = SLOT_INHERITED;

        t->hop_states[0] = SLOT_OWNED; /* means "none" */
        return r;
}

int nexthop_take(struct tables *t, uint32_t wanted, uint32_t *ret)
{
        if (wanted && wanted < WEFT_NEXTHOP_OWN && t->hop_states[wanted] == SLOT_INHERITED) {
                t->hop_states[wanted] = SLOT_OWNED;
                *ret = wanted;
                return 0;
        }

        /* From where the last search ended: a slot rests as long as possible between owners. */
        for (uint32_t i = 1; i < WEFT_NEXTHOP_OWN; i++) {
                uint32_t slot = 1 + (t->hop_cursor + i - 1) % (WEFT_NEXTHOP_OWN - 1);

                if (t->hop_states[slot] != SLOT_FREE)
                        continue;

                t->hop_states[slot] = SLOT_OWNED;
                t->hop_cursor = slot;
                *ret = slot;
                return 0;
        }

        return -ENOSPC;
}

static bool by_peer(const struct table_endpoint *e)
{
        return e->has_peer && !e->by_device;
}

bool nexthop_can_meet(const struct table_endpoint *e)
{
        static const uint8_t nobody[6];

        return by_peer(e) || memcmp(e->mac, nobody, sizeof(nobody)) != 0;
}

static bool slot_is(const struct weft_nexthop *n, const struct table_endpoint *e)
{
        return n->ifindex == e->ifindex && memcmp(n->dmac, e->mac, 6) == 0 &&
               memcmp(n->smac, e->gateway_mac, 6) == 0 && n->fresh == FOR_EVER;
}

void nexthop_write(struct tables *t, uint32_t slot, const struct table_endpoint *e)
{
        uint32_t flags = by_peer(e) ? WEFT_NEXTHOP_PEER : WEFT_NEXTHOP_MARK;
        struct weft_nexthop *n = slot_at(t, slot);

        if (slot_is(n, e) && nexthop_can_meet(e)) {
                store32(&n->flags, flags); /* either way leads to the same place */
                return;
        }

        /* Nothing may be read as complete until the interface is there again. */
        clear(n);
        store_dmac(n, e->mac, e->gateway_mac);
        memcpy(n->smac + 2, e->gateway_mac + 2, 4);
        n->gateway = (struct weft_addr) {};
        n->flags = flags;
        __atomic_store_n(&n->fresh, FOR_EVER, __ATOMIC_RELEASE);
        store32(&n->ifindex, e->ifindex);
}

void nexthop_release(struct tables *t, uint32_t slot)
{
        clear(slot_at(t, slot));
        t->hop_states[slot] = SLOT_FREE;
}

void nexthops_settle(struct tables *t)
{
        for (uint32_t i = 1; i < WEFT_NEXTHOP_OWN; i++)
                if (t->hop_states[i] == SLOT_INHERITED)
                        nexthop_release(t, i);
}

void nexthops_forget_link(struct tables *t, uint32_t ifindex)
{
        for (uint32_t i = WEFT_NEXTHOP_OWN; i < WEFT_NEXTHOPS; i++)
                if (slot_at(t, i)->ifindex == ifindex)
                        clear(slot_at(t, i));
}

void tables_neighbour(struct tables *t, uint32_t ifindex, const struct weft_addr *addr,
                      const uint8_t mac[6])
{
        for (uint32_t i = WEFT_NEXTHOP_OWN; i < WEFT_NEXTHOPS; i++) {
                struct weft_nexthop *n = slot_at(t, i);

                if (n->ifindex == ifindex && memcmp(&n->gateway, addr, sizeof(*addr)) == 0)
                        store_dmac(n, mac, n->smac);
        }
}
