// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Which of the two ways a service's packets go, where the service itself leaves it open. */

#include <weft/stage.bpf.h>

const volatile __u32 tcp, udp; /* 1: DSR */

WEFT_STAGE(hybrid, FROM_UPLINK | FROM_OVERLAY, SERVICE, BEFORE("nodeport-dsr") BEFORE("nodeport-snat"))
{
        int dsr = (pkt->key.proto == IPPROTO_TCP && tcp) || (pkt->key.proto == IPPROTO_UDP && udp);

        weft_plan_forwarding(pkt, dsr ? WEFT_FORWARDING_DSR : WEFT_FORWARDING_SNAT);
        return WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
