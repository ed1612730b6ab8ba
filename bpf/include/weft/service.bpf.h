/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What every module that serves services has in common: which backend a new flow goes to, and what
 * becomes of a packet that no backend gets. How it gets there is the module's. */

#include <weft/stage.bpf.h>

/* ---- algorithms: which of the slots first .. first + n - 1, n > 0 --------------------------- */

static __always_inline __u32 weft_slot_backend(__u32 at)
{
        const struct weft_service_slot *slot = bpf_map_lookup_elem(&service_slots, &at);

        return slot ? slot->backend : 0;
}

/* What of a packet every node hashes alike: not the address it came to, which may be the node's
 * own. With affinity a client's connections are one, whatever their ports. */
static __always_inline __u32 weft_flow_hash(const struct weft_pkt *pkt,
                                            const struct weft_service *s)
{
        __u64 h = s->seed;

        h = (h << 32 | bpf_ntohl(pkt->key.src.w[0])) * 0x9e3779b97f4a7c15;
        h = ((h ^ h >> 32) + bpf_ntohl(pkt->key.src.w[1])) * 0xbf58476d1ce4e5b9;
        h = ((h ^ h >> 32) + bpf_ntohl(pkt->key.src.w[2])) * 0x94d049bb133111eb;
        h = ((h ^ h >> 32) + bpf_ntohl(pkt->key.src.w[3])) * 0x9e3779b97f4a7c15;
        h = (h ^ h >> 32) + (s->affinity ? 0 : bpf_ntohs(pkt->key.sport)) * 256 + pkt->key.proto;
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
        h = (h ^ h >> 27) * 0x94d049bb133111eb;
        return h >> 32;
}

/* The table is of the whole cluster's backends; among this node's own the hash does. */
static __always_inline __u32 weft_choose_maglev(const struct weft_pkt *pkt,
                                                const struct weft_service *s, __u32 first, __u32 n)
{
        __u32 hash = weft_flow_hash(pkt, s), size = s->maglev_size, at;
        struct weft_maglev_key key = { .table = s->maglev };
        const struct weft_maglev_piece *piece;
        const __u32 *list;

        if (first != s->slots || !size)
                return weft_slot_backend(first + hash % n);
        at = hash % size;
        key.piece = at / WEFT_MAGLEV_PIECE;
        piece = bpf_map_lookup_elem(&maglev, &key);
        at %= WEFT_MAGLEV_PIECE;
        /* verifier: does not know what a remainder is less than, and the compiler does */
        asm volatile("" : "+r"(at));
        if (!piece || at >= WEFT_MAGLEV_PIECE)
                return 0;
        list = piece->backend;
        return list[at];
}

#define WEFT_LEAST_OF 32

/* Flows that live, in 1/65536 of the weight. Counts of a moment ago can say less than none. */
static __always_inline __u64 weft_load(const struct weft_service_slot *slot)
{
        __u32 index = slot->backend, weight = slot->weight ?: 1;
        const struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);
        __s32 live = b ? b->opened - b->closed : 0;

        return (((__u64) (live < 0 ? 0 : live) + 1) << 16) / weight;
}

/* Who has the fewest flows for its weight, of all or of so many in a row from a place chosen by
 * chance, which also decides between equals. */
static __always_inline __u32 weft_choose_least(__u32 first, __u32 n)
{
        __u32 start = bpf_get_prandom_u32() % n, best = 0;
        __u64 least = ~0ULL;

#pragma clang loop unroll(disable)
        for (__u32 i = 0; i < WEFT_LEAST_OF; i++) {
                __u32 at = first + (start + i) % n;
                const struct weft_service_slot *slot;
                __u64 load;

                if (i >= n)
                        break;
                slot = bpf_map_lookup_elem(&service_slots, &at);
                if (!slot)
                        break;
                load = weft_load(slot);
                if (load < least) {
                        least = load;
                        best = slot->backend;
                }
        }
        return best;
}

static __always_inline __u32 weft_choose_by(const struct weft_pkt *pkt,
                                            const struct weft_service *s, __u32 first, __u32 n)
{
        switch (s->algorithm) {
        case WEFT_MAGLEV:
                return weft_choose_maglev(pkt, s, first, n);
        case WEFT_LEAST_CONNECTIONS:
                return weft_choose_least(first, n);
        default:
                return weft_slot_backend(first + bpf_get_prandom_u32() % n);
        }
}

/* ---- affinity ----------------------------------------------------------------------------- */

/* The backend that the client had, if it was not long ago and it still takes new flows; 0: none. */
static __always_inline __u32 weft_choose_again(const struct weft_pkt *pkt,
                                               const struct weft_service *s,
                                               const struct weft_affinity *had, int local)
{
        struct weft_member_key key = { .service = s->id, .backend = had->backend };
        const struct weft_backend *b = bpf_map_lookup_elem(&backends, &key.backend);
        const __u32 *member;

        if (!b || b->number != had->number || (__s64) (had->used + s->affinity - pkt->now) < 0)
                return 0;
        member = bpf_map_lookup_elem(&members, &key);
        return member && *member & (local ? WEFT_MEMBER_LOCAL : WEFT_MEMBER) ? key.backend : 0;
}

static __always_inline __u32 weft_choose_with_affinity(const struct weft_pkt *pkt,
                                                       const struct weft_service *s, __u32 first,
                                                       __u32 n, int local)
{
        struct weft_affinity_key key = { .client = pkt->key.src, .service = s->id };
        struct weft_affinity *had = bpf_map_lookup_elem(&affinity, &key);
        __u32 index = had ? weft_choose_again(pkt, s, had, local) : 0;
        const struct weft_backend *b;
        struct weft_affinity has = {};

        if (index) {
                had->used = pkt->now;
                return index;
        }
        index = weft_choose_by(pkt, s, first, n);
        b = bpf_map_lookup_elem(&backends, &index);
        if (!b)
                return 0;
        has.backend = index;
        has.number = b->number;
        has.used = pkt->now;
        bpf_map_update_elem(&affinity, &key, &has, BPF_ANY);
        return index;
}

/* ---- choosing ----------------------------------------------------------------------------- */

static __always_inline int weft_is_from_outside(const struct weft_pkt *pkt)
{
        return pkt->hook != WEFT_FROM_ENDPOINT;
}

/* Does the service let in who sent the packet? Endpoints are let in everywhere. */
static __always_inline int weft_lets_in(const struct weft_pkt *pkt, const struct weft_service *s)
{
        struct weft_source_key key = { .prefixlen = 160, .service = s->id, .addr = pkt->key.src };

        return !(s->flags & WEFT_SERVICE_SOURCE_RANGE) || !weft_is_from_outside(pkt) ||
               bpf_map_lookup_elem(&source_ranges, &key);
}

/* A backend of the service for the packet's flow, its index in *ret_index. NULL: none, and what to
 * say to the sender is in *ret_no. */
static __always_inline const struct weft_backend *
weft_choose(const struct weft_pkt *pkt, const struct weft_service *s, __u32 *ret_index, int *ret_no)
{
        __u32 flag = weft_is_from_outside(pkt) ? WEFT_SERVICE_EXTERNAL_LOCAL
                                               : WEFT_SERVICE_INTERNAL_LOCAL;
        int local = !!(s->flags & flag);
        __u32 first = local ? s->slots + s->count : s->slots, n = local ? s->local : s->count;

        *ret_no = WEFT_DROP(SOURCE_REFUSED);
        if (!weft_lets_in(pkt, s))
                return NULL;
        *ret_no = local && s->count                    ? WEFT_DROP(NO_LOCAL_BACKEND)
                  : s->flags & WEFT_SERVICE_DROP_EMPTY ? WEFT_DROP(NO_BACKEND)
                                                       : WEFT_REJECT(NO_BACKEND);
        if (!n)
                return NULL;
        *ret_index = s->affinity ? weft_choose_with_affinity(pkt, s, first, n, local)
                                 : weft_choose_by(pkt, s, first, n);
        return *ret_index ? bpf_map_lookup_elem(&backends, ret_index) : NULL;
}

/* The service's backend at an address of this node, which another node chose; NULL: none. */
static __always_inline const struct weft_backend *
weft_backend_at(const struct weft_service *s, const struct weft_addr *addr, __u32 *ret_index)
{
        struct weft_placed_key key = { .service = s->id, .addr = *addr };
        const __u32 *index = bpf_map_lookup_elem(&placed, &key);

        if (!index)
                return NULL;
        *ret_index = *index;
        return bpf_map_lookup_elem(&backends, ret_index);
}

/* What is said of a packet to a service's own address, but to none of its ports. */
static __always_inline int weft_address_only(const struct weft_pkt *pkt)
{
        __u8 echo = pkt->key.family == 4 ? 8 : 128;

        if ((pkt->key.proto == IPPROTO_ICMP || pkt->key.proto == IPPROTO_ICMPV6) &&
            pkt->icmp_type == echo)
                return WEFT_PING;
        return WEFT_DROP(SERVICE_UNKNOWN_PORT);
}
