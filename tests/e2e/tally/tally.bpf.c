/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Counts every packet of every hook, and drops those to one port. */

#include <weft/stage.bpf.h>

const volatile __u16 drop_port;

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, counters, __u32, __u64, WEFT_HOOKS, 0) WEFT_MAP_STATS;

WEFT_STAGE(tally, FROM_ENDPOINT | TO_ENDPOINT | FROM_UPLINK | TO_UPLINK | FROM_OVERLAY, EARLY)
{
        __u32 hook = weft_hook_id;
        __u64 *n = bpf_map_lookup_elem(&counters, &hook);

        if (n)
                ++*n;
        return drop_port && pkt->key.dport == bpf_htons(drop_port) ? WEFT_DROP_OWN(0) : WEFT_NEXT;
}
