// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Services as endpoints see them, by whichever of their addresses: the backend gets the endpoint's
 * own address. The endpoint itself, chosen as backend, would see its own address and answer itself:
 * it gets the loopback address. */

#include <weft/service.bpf.h>

#define PORT_LOW 1024u /* ports that a connection may be moved to at the loopback address */
#define PORT_HIGH 65535u

const volatile struct weft_addr loopback4, loopback6;

WEFT_STAGE(clusterip, FROM_ENDPOINT, SERVICE)
{
        const struct weft_service *service = weft_service_of(pkt);
        struct weft_addr loopback = pkt->key.family == 4 ? loopback4 : loopback6;
        const struct weft_backend *backend;
        __u32 index = 0;
        int no;

        if (!service)
                return pkt->service_addr ? weft_address_only(pkt) : WEFT_NEXT;
        backend = weft_choose(pkt, service, &index, &no);
        if (!backend)
                return no;
        weft_plan_backend(pkt, index, backend);
        if (weft_same_addr(&pkt->plan.dst, &pkt->key.src))
                weft_plan_source(pkt, &loopback, PORT_LOW, PORT_HIGH, 1, 0);
        weft_plan_whole(pkt);
        return WEFT_DONE;
}

char _license[] SEC("license") = "Dual BSD/GPL";
