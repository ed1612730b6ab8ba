// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Refuses new connections to services from a source that opens too many of them. */

#include <weft/stage.bpf.h>

const volatile __u32 limit;  /* the options of the same names */
const volatile __u64 window; /* milliseconds */

struct source {
        __u64 since; /* when its window began, ns */
        __u32 count; /* connections let through since */
        __u32 refused;
};

struct except_key {
        __u32 prefixlen; /* over 128 bits */
        struct weft_addr addr;
};

/* Who opened how many. Goes on when modules are loaded anew: nobody gets a fresh start by a reload. */
WEFT_MAP(BPF_MAP_TYPE_LRU_HASH, sources, struct weft_addr, struct source, 65536, 0) WEFT_MAP_STATE(1);

/* Sources that are never refused; filled by the module. */
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, except, struct except_key, __u8, 1024, BPF_F_NO_PREALLOC);

/* Two CPUs may let through one more than asked for: cheaper than a lock, and good enough. */
static __always_inline int admit(const struct weft_addr *who)
{
        struct source fresh = { .since = bpf_ktime_get_ns(), .count = 1 };
        struct source *s = bpf_map_lookup_elem(&sources, who);

        if (!s || fresh.since - s->since >= window * 1000000) {
                bpf_map_update_elem(&sources, who, &fresh, BPF_ANY);
                return 1;
        }
        if (s->count >= limit) {
                s->refused++;
                return 0;
        }
        s->count++;
        return 1;
}

WEFT_STAGE(limiter, FROM_UPLINK, FILTER)
{
        struct except_key key = { .prefixlen = 128, .addr = pkt->key.src };

        if (pkt->known || !weft_service_of(pkt) || bpf_map_lookup_elem(&except, &key))
                return WEFT_NEXT;
        return admit(&key.addr) ? WEFT_NEXT : WEFT_DROP(POLICY);
}

char _license[] SEC("license") = "Dual BSD/GPL";
