// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Services reached from outside, forwarded with SNAT: a local backend sees the client, a remote one
 * sees the node, so that its answer comes back this way. */

#include <weft/stage.bpf.h>

const volatile __u16 snat_low, snat_high; /* source ports to give out */
const volatile __u16 node_low, node_high; /* node ports, never given out */

/* A backend of the service, by chance. NULL: none takes new flows. */
static __always_inline const struct weft_backend *choose(const struct weft_service *s,
                                                         __u32 *ret_index)
{
        __u32 slot, *index;

        if (!s->count)
                return NULL;
        slot = s->slots + bpf_get_prandom_u32() % s->count;
        index = bpf_map_lookup_elem(&service_slots, &slot);
        if (!index || !*index)
                return NULL;
        *ret_index = *index;
        return bpf_map_lookup_elem(&backends, index);
}

/* The packet is for a service's own address, but for none of its ports. */
static __always_inline int address_only(const struct weft_pkt *pkt)
{
        __u8 echo = pkt->key.family == 4 ? 8 : 128;

        if ((pkt->key.proto == IPPROTO_ICMP || pkt->key.proto == IPPROTO_ICMPV6) &&
            pkt->icmp_type == echo)
                return WEFT_PING;
        return WEFT_DROP(SERVICE_UNKNOWN_PORT);
}

/* The node's address on the way to the backend; where that leaves by no uplink, the address of the
 * uplink that the client came by. NULL: the node has none of this family. */
static __always_inline const struct weft_addr *source(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        const struct weft_addr *node;

        (void) weft_route_of(ctx, pkt);
        node = weft_node_address(pkt, pkt->way.ifindex);
        return node ?: weft_node_address(pkt, pkt->ifindex);
}

WEFT_STAGE(nodeport_snat, FROM_UPLINK, SERVICE)
{
        const struct weft_service *service = weft_service_of(pkt);
        const struct weft_backend *backend;
        const struct weft_addr *node;
        __u32 index = 0;

        if (!service)
                return pkt->service_addr ? address_only(pkt) : WEFT_NEXT;
        backend = choose(service, &index);
        if (!backend)
                return service->flags & WEFT_SERVICE_DROP_EMPTY ? WEFT_DROP(NO_BACKEND)
                                                                : WEFT_REJECT(NO_BACKEND);
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
