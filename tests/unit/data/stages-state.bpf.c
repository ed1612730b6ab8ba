/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* A stage that counts into one map of each class. Built several times: STATE_VERSION and
 * STATE_TYPE. */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_MAP(BPF_MAP_TYPE_ARRAY, state, __u32, STATE_TYPE, 1, 0) WEFT_MAP_STATE(STATE_VERSION);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, stats, __u32, __u32, 1, 0) WEFT_MAP_STATS;
WEFT_MAP(BPF_MAP_TYPE_ARRAY, config, __u32, __u32, 1, 0) WEFT_MAP_CONFIG;
WEFT_MAP(BPF_MAP_TYPE_ARRAY, unmarked, __u32, __u32, 1, 0);

#define COUNT(map)                                                                                 \
        do {                                                                                       \
                __u32 *n = bpf_map_lookup_elem(&map, &zero);                                       \
                                                                                                   \
                if (n)                                                                             \
                        __sync_fetch_and_add(n, 1);                                                \
        } while (0)

WEFT_STAGE(count, FROM_UPLINK | TO_UPLINK, FILTER)
{
        __u32 zero = 0;

        COUNT(state);
        COUNT(stats);
        COUNT(config);
        COUNT(unmarked);
        return WEFT_NEXT;
}
