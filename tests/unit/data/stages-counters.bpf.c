/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* A module's counters: two of VALUE. */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, counters, __u32, VALUE, 2, 0) WEFT_MAP_STATS;

WEFT_STAGE(count, FROM_UPLINK, FILTER)
{
        return WEFT_NEXT;
}
