// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Services reached from outside, forwarded with SNAT: a local backend sees the client, a remote one
 * sees the node, so that its answer comes back this way. */

#include <weft/service.bpf.h>

const volatile __u16 snat_low, snat_high; /* source ports to give out */
const volatile __u16 node_low, node_high; /* node ports, never given out */

/* The node's address on the way to the backend; where that leaves by no uplink, the address of the
 * uplink that the client came by. NULL: the node has none of this family. */
static __always_inline const struct weft_addr *source(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        const struct weft_addr *node;

        (void) weft_route_of(ctx, pkt);
        node = weft_node_address(pkt, pkt->way.ifindex);
        return node ?: weft_node_address(pkt, pkt->ifindex);
}

WEFT_STAGE(nodeport_snat, FROM_UPLINK | FROM_OVERLAY, SERVICE)
{
        const struct weft_service *service = weft_service_of(pkt);
        const struct weft_backend *backend;
        const struct weft_addr *node;
        __u32 index = 0;
        int no;

        if (!service)
                return pkt->service_addr ? weft_address_only(pkt) : WEFT_NEXT;
        if (service->forwarding == WEFT_FORWARDING_DSR)
                return WEFT_NEXT;
        backend = weft_choose(pkt, service, &index, &no);
        if (!backend)
                return no;
        weft_plan_backend(pkt, index, backend);
        if (pkt->plan.endpoint)
                return WEFT_DONE;
        node = source(ctx, pkt);
        if (!node)
                return WEFT_DROP(NO_ADDRESS);
        weft_plan_source(pkt, node, snat_low, snat_high, node_low, node_high);
        return WEFT_DONE;
}

char _license[] SEC("license") = "Dual BSD/GPL";
