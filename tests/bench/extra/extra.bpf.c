// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* A module more: it looks at the packet and has nothing to say. */

#include <weft/stage.bpf.h>

WEFT_STAGE(extra, FROM_UPLINK, SERVICE)
{
        return pkt->plan.dport == 0 ? WEFT_DROP(POLICY) : WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
