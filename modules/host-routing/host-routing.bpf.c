// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Host routing: past the host's stack, straight to the endpoint or to the wire. The engine does the
 * routing lookup, and hands to the stack what that cannot decide. */

#include <weft/stage.bpf.h>

WEFT_STAGE(host_routing, FROM_ENDPOINT | FROM_UPLINK | FROM_OVERLAY, DELIVER)
{
        if (pkt->plan.endpoint)
                weft_plan_delivery(pkt, WEFT_ENDPOINT);
        else if (weft_hook_id == WEFT_FROM_ENDPOINT)
                weft_plan_delivery(pkt, WEFT_WIRE);
        return WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
