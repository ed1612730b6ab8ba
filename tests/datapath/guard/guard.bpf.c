// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Somebody else's policy at the exit hooks: one port is shut, on the way in and on the way out. */

#include <weft/stage.bpf.h>

#define SHUT bpf_htons(4242)

WEFT_STAGE(guard, TO_ENDPOINT | TO_UPLINK, FILTER)
{
        return pkt->plan.dport == SHUT ? WEFT_DROP(POLICY) : WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
