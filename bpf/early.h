/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The early chain. A hook in which a stage of phase EARLY stands begins with one of these programs,
 * and the last early stage goes on to the hook's entry, which begins anew and knows nothing of it.
 * Where there is no such stage, none of them is loaded. */

#include "wrap.h"

/* Must nobody be told of this packet's end (RFC 1122 §3.2.2)? */
static __always_inline int is_unanswerable(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                           enum parsed parsed)
{
        return (parsed != PARSED && parsed != PARSED_WRAPPED) || ctx->pkt_type != PACKET_HOST ||
               is_multicast(&pkt->key) || is_link_local(&pkt->key) || is_unspecified(&pkt->key.src);
}

/* The headers as weft_parse reads them, without looking for DSR's word. */
static __always_inline enum parsed read_headers(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __be16 protocol = ctx->protocol;
        enum parsed parsed;

        if (ctx->vlan_present ||
            (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6)))
                return PARSED_BAD;
        pkt->told.given = 1;
        pkt->key.family = protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
        parsed = pkt->key.family == 4 ? parse_ip4(ctx, pkt) : parse_ip6(ctx, pkt);
        if (parsed != PARSED_BAD && pkt->fragment != 2)
                parsed = parse_l4(ctx, pkt, pkt->l4_off);
        return parsed;
}

static __always_inline void show_packet(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u8 side = pkt->key.side;
        enum parsed parsed;

        pkt->key = (struct weft_tuple) { .side = side };
        pkt->l4_off = 0;
        parsed = read_headers(ctx, pkt);
        if (parsed == PARSED_BAD)
                pkt->key = (struct weft_tuple) { .side = side };
        pkt->silent = is_unanswerable(ctx, pkt, parsed);
        pkt->known = 0;
        pkt->service.id = 0;
        pkt->service_addr = 0;
        pkt->way.asked = 0;
        pkt->act.route.word = 0;
        pkt->act.tunnel.word = 0;
        plan_from_packet(pkt, NULL);
}

static __always_inline int early(struct __sk_buff *ctx, __u32 hook)
{
        struct weft_pkt *pkt = begin(ctx, hook);

        if (!pkt)
                return WEFT_TCX_NEXT;
        pkt->epoch = epoch_now();
        pkt->now = bpf_jiffies64();
        show_packet(ctx, pkt);
        weft_tail_call(ctx, weft_first_early[hook]);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_early_from_endpoint(struct __sk_buff *ctx)
{
        return early(ctx, WEFT_FROM_ENDPOINT);
}

SEC("tc") int weft_early_to_endpoint(struct __sk_buff *ctx)
{
        return early(ctx, WEFT_TO_ENDPOINT);
}

SEC("tc") int weft_early_from_uplink(struct __sk_buff *ctx)
{
        return early(ctx, WEFT_FROM_UPLINK);
}

SEC("tc") int weft_early_to_uplink(struct __sk_buff *ctx)
{
        return early(ctx, WEFT_TO_UPLINK);
}

/* In the place of weft_overlay. */
SEC("tc") int weft_early_overlay(struct __sk_buff *ctx)
{
        return early(ctx, WEFT_FROM_OVERLAY);
}

/* At the kernel's device: what no peer sent is nobody's, and no packet of the hook. */
SEC("tc") int weft_early_from_overlay(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = begin(ctx, WEFT_FROM_OVERLAY);
        int no;

        if (!pkt)
                return WEFT_TCX_NEXT;
        no = receive(ctx, pkt);
        return no ? weft_verdict_drop(ctx, pkt, no, 0) : early(ctx, WEFT_FROM_OVERLAY);
}
