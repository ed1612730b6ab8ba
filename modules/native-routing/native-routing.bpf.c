// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Native routing: destinations that the fabric routes by itself go there as they are. */

#include <weft/stage.bpf.h>

struct native_key {
        __u32 prefixlen; /* over 128 bits */
        struct weft_addr addr;
};

/* The `cidr` option, filled by the module. */
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, native_cidrs, struct native_key, __u8, 1024, BPF_F_NO_PREALLOC);

WEFT_STAGE(native_routing, FROM_ENDPOINT, ROUTE)
{
        struct native_key key = { .prefixlen = 128, .addr = pkt->plan.dst };

        if (bpf_map_lookup_elem(&native_cidrs, &key))
                pkt->plan.flags |= WEFT_PLAN_NATIVE;
        return WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
