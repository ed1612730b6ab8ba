// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Refuses new connections to services from a source that opens too many of them. */

#include <weft/stage.bpf.h>

#include "limiter.h"

const volatile __u32 limit;  /* the options of the same names */
const volatile __u64 window; /* milliseconds */
const volatile __u8 reject;
const volatile __u8 observe;

const volatile struct weft_addr mask4, mask6; /* of ipv4-prefix and ipv6-prefix */

struct source {
        __u64 since; /* when its window began, ns */
        __u32 count; /* connections let through since */
        __u32 refused;
};

struct except_key {
        __u32 prefixlen; /* over 128 bits */
        struct weft_addr addr;
};

/* Who opened how many. Goes on when modules are loaded anew: nobody gets a fresh start by a reload.
 */
WEFT_MAP(BPF_MAP_TYPE_LRU_HASH, sources, struct weft_addr, struct source, SOURCES_MAX, 0)
WEFT_MAP_STATE(1);

/* Sources that are never refused; filled by the module. */
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, except, struct except_key, __u8, EXCEPT_MAX, BPF_F_NO_PREALLOC);

WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, counters, __u32, __u64, COUNTERS, 0) WEFT_MAP_STATS;

static __always_inline void count(__u32 which)
{
        __u64 *n = bpf_map_lookup_elem(&counters, &which);

        if (n)
                (*n)++;
}

/* The source as it is counted: all addresses of one prefix are one. */
static __always_inline struct weft_addr source_of(const struct weft_pkt *pkt)
{
        const volatile struct weft_addr *mask = pkt->key.family == 4 ? &mask4 : &mask6;

        return (struct weft_addr) {
                { pkt->key.src.w[0] & mask->w[0], pkt->key.src.w[1] & mask->w[1],
                  pkt->key.src.w[2] & mask->w[2], pkt->key.src.w[3] & mask->w[3] }
        };
}

/* No lock: as many may be let through above the limit as CPUs look at its count at the same time.
 * The time is read after the lookup: a window that another CPU has just begun lies not in its
 * future. */
static __always_inline int admit(const struct weft_addr *who)
{
        struct source *s = bpf_map_lookup_elem(&sources, who);
        struct source fresh = { .since = bpf_ktime_get_ns(), .count = 1 };

        if (!s || fresh.since - s->since >= window * 1000000) {
                bpf_map_update_elem(&sources, who, &fresh, BPF_ANY);
                return 1;
        }
        if (s->count >= limit) {
                __sync_fetch_and_add(&s->refused, 1);
                return 0;
        }
        __sync_fetch_and_add(&s->count, 1);
        return 1;
}

WEFT_STAGE(limiter, FROM_UPLINK, FILTER)
{
        struct except_key key = { .prefixlen = 128, .addr = pkt->key.src };
        struct weft_addr who = source_of(pkt);

        if (pkt->known || !weft_service_of(pkt))
                return WEFT_NEXT;
        if (bpf_map_lookup_elem(&except, &key)) {
                count(EXCEPTED);
                return WEFT_NEXT;
        }
        if (admit(&who)) {
                count(ADMITTED);
                return WEFT_NEXT;
        }

        count(observe ? OVER_LIMIT : REFUSED);
        if (observe)
                return WEFT_NEXT;
        return reject ? WEFT_REJECT_OWN(TOO_MANY_CONNECTIONS) : WEFT_DROP_OWN(TOO_MANY_CONNECTIONS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
