/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What every module that serves services has in common: which backend a new flow goes to, and what
 * becomes of a packet that no backend gets. How it gets there is the module's. */

#include <weft/stage.bpf.h>

/* A backend of the service for the packet's flow, its index in *ret_index. NULL: none takes new
 * flows. */
static __always_inline const struct weft_backend *
weft_choose(const struct weft_pkt *pkt, const struct weft_service *s, __u32 *ret_index)
{
        const struct weft_service_slot *slot;
        __u32 at;

        (void) pkt;
        if (!s->count)
                return NULL;
        at = s->slots + bpf_get_prandom_u32() % s->count;
        slot = bpf_map_lookup_elem(&service_slots, &at);
        if (!slot || !slot->backend)
                return NULL;
        *ret_index = slot->backend;
        return bpf_map_lookup_elem(&backends, ret_index);
}

/* What is said of a packet to a service's own address, but to none of its ports. */
static __always_inline int weft_address_only(const struct weft_pkt *pkt)
{
        __u8 echo = pkt->key.family == 4 ? 8 : 128;

        if ((pkt->key.proto == IPPROTO_ICMP || pkt->key.proto == IPPROTO_ICMPV6) &&
            pkt->icmp_type == echo)
                return WEFT_PING;
        return WEFT_DROP(SERVICE_UNKNOWN_PORT);
}

/* What is said to whoever no backend takes. */
static __always_inline int weft_no_backend(const struct weft_service *s)
{
        return s->flags & WEFT_SERVICE_DROP_EMPTY ? WEFT_DROP(NO_BACKEND) : WEFT_REJECT(NO_BACKEND);
}
