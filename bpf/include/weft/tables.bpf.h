/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The core's tables as stages and the engine see them. Every object that includes this file defines
 * them; the core makes all of them the same maps when it loads the object. A stage reads, the
 * engine writes. Layouts: types.h. Sizes of the flow tables are set before loading. */

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <weft/types.h>

#define WEFT_MAP(map_type, name, key_type, value_type, entries, flags)                             \
        struct {                                                                                   \
                __uint(type, map_type);                                                            \
                __uint(max_entries, entries);                                                      \
                __uint(map_flags, flags);                                                          \
                __type(key, key_type);                                                             \
                __type(value, value_type);                                                         \
        } name SEC(".maps")

/* Rings of the flows that were new, one stretch for each CPU: who comes round finds the oldest. */
struct weft_half_open4 {
        struct weft_key4 key;
        __u64 created; /* jiffies; tells this flow from a later one of the same key */
};

struct weft_half_open6 {
        struct weft_key6 key;
        __u64 created;
};

/* Where a CPU writes next in its stretch of each. */
struct weft_half_open_next {
        __u32 next4, next6;
};

WEFT_MAP(BPF_MAP_TYPE_HASH, flows4, struct weft_key4, struct weft_flow4, 65536, 0);
WEFT_MAP(BPF_MAP_TYPE_HASH, flows6, struct weft_key6, struct weft_flow6, 65536, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, half_open4, __u32, struct weft_half_open4, 16384, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, half_open6, __u32, struct weft_half_open6, 16384, 0);
WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, ring_next, __u32, struct weft_half_open_next, 1, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, nexthops, __u32, struct weft_nexthop, WEFT_NEXTHOPS, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_HASH, endpoints, struct weft_addr, struct weft_endpoint, 16384, 0);
WEFT_MAP(BPF_MAP_TYPE_HASH, services, struct weft_service_key, struct weft_service, 65536, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, service_slots, __u32, struct weft_service_slot, 262144,
         BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, backends, __u32, struct weft_backend, 131072, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_HASH, maglev, struct weft_maglev_key, struct weft_maglev_piece, 65536,
         BPF_F_NO_PREALLOC);
WEFT_MAP(BPF_MAP_TYPE_LRU_HASH, affinity, struct weft_affinity_key, struct weft_affinity, 65536, 0);
WEFT_MAP(BPF_MAP_TYPE_HASH, members, struct weft_member_key, __u32, 131072, BPF_F_NO_PREALLOC);
WEFT_MAP(BPF_MAP_TYPE_HASH, placed, struct weft_placed_key, __u32, 131072, BPF_F_NO_PREALLOC);
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, source_ranges, struct weft_source_key, __u32, 65536,
         BPF_F_NO_PREALLOC);
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, peers, struct weft_peer_key, struct weft_peer, 16384,
         BPF_F_NO_PREALLOC);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, remotes, __u32, struct weft_remote, WEFT_REMOTES, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_HASH, nodes, struct weft_addr, __u32, WEFT_REMOTES, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, overlays, __u32, struct weft_overlay, WEFT_OVERLAYS, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_HASH, links, __u32, struct weft_link, 256, 0);
WEFT_MAP(BPF_MAP_TYPE_LRU_HASH, fragments, struct weft_fragment_key, struct weft_fragment, 16384,
         0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, filter, __u32, __u64, WEFT_FILTER_WORDS, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, world, __u32, struct weft_world, 1, BPF_F_MMAPABLE);
WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, forwards, __u32, struct weft_count, WEFT_HOOKS *WEFT_DELIVERIES,
         0);
WEFT_MAP(BPF_MAP_TYPE_PERCPU_HASH, drops, struct weft_drop_key, struct weft_count, 4096, 0);
WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, events, __u32, __u64, 64, 0);

static __always_inline void weft_event(enum weft_event what)
{
        __u32 key = what;
        __u64 *n = bpf_map_lookup_elem(&events, &key);

        if (n)
                (*n)++;
}

/* Is an address one of IPv4's, mapped? */
static __always_inline int weft_is_ip4(const struct weft_addr *a)
{
        return !a->w[0] && !a->w[1] && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline int weft_same_addr(const struct weft_addr *a, const struct weft_addr *b)
{
        return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

/* 0: certainly none of ours. port and proto 0: the address alone. */
static __always_inline int weft_filtered(__u32 bit)
{
        __u32 word = bit >> 6;
        __u64 *w = bpf_map_lookup_elem(&filter, &word);

        return w && *w >> (bit & 63) & 1;
}

static __always_inline __u32 weft_filter_bit(const struct weft_addr *a, __be16 port, __u8 proto)
{
        return weft_is_ip4(a) ? weft_filter_bit4(a->w[3], port, proto)
                              : weft_filter_bit6(a->w, port, proto);
}

/* The local endpoint that has the address; NULL: none. */
static __always_inline const struct weft_endpoint *weft_endpoint_of(const struct weft_addr *a)
{
        return weft_filtered(weft_filter_bit(a, 0, 0)) ? bpf_map_lookup_elem(&endpoints, a) : NULL;
}

/* The peer that an address belongs to, as one of its pods or its own; NULL: none. */
static __always_inline const struct weft_peer *weft_peer_of(const struct weft_addr *a)
{
        struct weft_peer_key key = { .prefixlen = 128, .addr = *a };

        return bpf_map_lookup_elem(&peers, &key);
}
