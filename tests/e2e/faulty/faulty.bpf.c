/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Counts what it sees in a map of class STATE. Built several times: STATE_VERSION, STATE_TYPE, and
 * BEYOND for a stage that writes beyond its map, which no verifier takes. */

#include <weft/stage.bpf.h>

#ifndef BEYOND
#define BEYOND 0
#endif

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_MAP(BPF_MAP_TYPE_ARRAY, seen, __u32, STATE_TYPE, 1, 0) WEFT_MAP_STATE(STATE_VERSION);

WEFT_STAGE(faulty, FROM_UPLINK, FILTER)
{
        __u32 zero = 0;
        STATE_TYPE *n = bpf_map_lookup_elem(&seen, &zero);

        if (n)
                __sync_fetch_and_add(n + BEYOND, 1);
        return WEFT_NEXT;
}
