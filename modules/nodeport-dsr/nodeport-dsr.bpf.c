// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Services reached from outside, with direct server return: the backend sees the client, and its
 * node answers the client itself, from the service's address, of which this node tells it. Out of a
 * tunnel comes only what was told elsewhere. */

#include <weft/service.bpf.h>

const volatile __u8 how = WEFT_DSR_OPTION; /* enum weft_dsr */

/* The node that wrapped the packet has chosen the endpoint. Of a service that is not known here,
 * the endpoint has the address itself. */
static __always_inline int as_wrapped(struct weft_pkt *pkt, const struct weft_service *service)
{
        const struct weft_backend *backend;
        __u32 index = 0;

        if (!service) {
                weft_plan_as_wrapped(pkt);
                return WEFT_DONE;
        }
        backend = weft_backend_at(service, &pkt->wrapped_to, &index);
        if (!backend)
                return WEFT_REJECT(NO_BACKEND);
        weft_plan_backend(pkt, index, backend);
        return WEFT_DONE;
}

WEFT_STAGE(nodeport_dsr, FROM_UPLINK | FROM_OVERLAY, SERVICE)
{
        const struct weft_service *service = weft_service_of(pkt);
        const struct weft_backend *backend;
        __u32 index = 0;
        int no;

        if (pkt->told.given) {
                weft_plan_direct(pkt);
                return WEFT_DONE;
        }
        if (pkt->wrapped)
                return as_wrapped(pkt, service);
        if (!service)
                return pkt->service_addr ? weft_address_only(pkt) : WEFT_NEXT;
        if (service->forwarding == WEFT_FORWARDING_SNAT)
                return WEFT_NEXT;
        backend = weft_choose(pkt, service, &index, &no);
        if (!backend)
                return no;
        weft_plan_backend(pkt, index, backend);
        if (!pkt->plan.endpoint)
                weft_plan_dsr(pkt, how);
        return WEFT_DONE;
}

char _license[] SEC("license") = "Dual BSD/GPL";
