/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* DSR by IPIP. The first node puts the client's packet, as it is, into another one to the backend's
 * address (weft_wrap; RFC 2003, RFC 2473). The backend's node takes it out (weft_unwrap) and looks
 * it up as what came out of a tunnel; so the service's address and port stand in the packet itself.
 * A backend that is no endpoint of weft's takes it out itself. */

#include "tunnel.h"

/* ---- the first node ----------------------------------------------------------------------- */

static __always_inline int wrap4(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                 const struct weft_addr *from, const struct weft_addr *to)
{
        struct iphdr ip;

        fill_ip4(&ip, IPPROTO_IPIP, ctx->len - ETH_HLEN, congestion(ctx, pkt), from, to);
        return open_room(ctx, pkt, sizeof(ip), 4, 0) ?: STORE(ctx, ETH_HLEN, &ip, sizeof(ip));
}

/* Network and receiver tell flows apart by the flow label (RFC 6438). */
static __always_inline int wrap6(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                 const struct weft_addr *from, const struct weft_addr *to)
{
        __u32 label = bpf_get_hash_recalc(ctx);
        struct ipv6hdr ip;

        fill_ip6(&ip, IPPROTO_IPV6, ctx->len - ETH_HLEN, congestion(ctx, pkt), from, to);
        ip.flow_lbl[0] |= label >> 16 & 0xf;
        ip.flow_lbl[1] = label >> 8;
        ip.flow_lbl[2] = label;
        return open_room(ctx, pkt, sizeof(ip), 6, 0) ?: STORE(ctx, ETH_HLEN, &ip, sizeof(ip));
}

/* The node's address where the packet leaves. */
static __always_inline const struct weft_addr *source_of_wrap(const struct weft_pkt *pkt)
{
        struct weft_nexthop *nh = nexthop_at(pkt->act.tunnel.remote);

        if (pkt->act.neighbour)
                return weft_node_address(pkt, pkt->way.ifindex);
        return nh ? weft_node_address(pkt, nh->ifindex) : NULL;
}

SEC("tc") int weft_wrap(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        __u32 index = pkt ? pkt->act.tunnel.key : 0;
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);
        const struct weft_addr *from;

        if (!pkt || !b)
                return WEFT_TCX_DROP;
        from = source_of_wrap(pkt);
        if (!from)
                return DROP(ctx, pkt, NO_ADDRESS);
        if (pkt->key.family == 4 ? wrap4(ctx, pkt, from, &b->addr)
                                 : wrap6(ctx, pkt, from, &b->addr))
                return DROP(ctx, pkt, INVALID);
        return send(ctx, pkt, wrapped_route(pkt->act.tunnel));
}

/* ---- the backend's node ------------------------------------------------------------------- */

SEC("tc") int weft_unwrap(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        struct outer o = {};

        if (!pkt || pkt->l4_off > 512)
                return WEFT_TCX_NEXT;
        o.family = pkt->key.family;
        o.room = pkt->l4_off - ETH_HLEN;
        o.congested = congestion(ctx, pkt) == 3;
        pkt->wrapped = 1;
        pkt->wrapped_to = pkt->key.dst;
        if (strip(ctx, &o, o.family) || !keep_congestion(ctx, &o))
                return DROP(ctx, pkt, TUNNEL_INVALID);
        weft_tail_call(ctx, WEFT_SLOT_OVERLAY);
        return BROKEN(ctx, pkt);
}
