/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* ICMP errors about packets of a flow. An error quotes a packet as it was sent; turned round, that
 * packet's tuple is the key of the direction in which the error travels, so that entry's
 * translation is the error's: the quoted source and destination change places with it, and the
 * error's own addresses change where they are the flow's. */

#include "commit.h"

#define QUOTED_EXTENSIONS_MAX 3 /* a fragment header, and what may stand around it */

/* The error, as far as it is read. */
struct quote {
        struct weft_tuple inner; /* the quoted packet, as sent */
        __u32 ip_off, l4_off;    /* of the quoted packet, from the start of the frame */
        __u16 ip_check;          /* IPv4 */
        __u16 l4_check;
        __u32 check_off;      /* of the quoted transport checksum; 0: not quoted, or not used */
        __u32 difference;     /* to the error's own checksum, so far */
        __u8 icmp, icmp_type; /* 1: the quoted packet is an echo, of this type */
};

static __always_inline int quote_l4(struct __sk_buff *ctx, struct quote *q, __u32 check)
{
        q->check_off = q->l4_off + check;
        if (!LOAD(ctx, q->check_off, q->l4_check))
                q->check_off = 0;
        return 1;
}

/* Ports, or the identifier of an echo, of the quoted packet. */
static __always_inline int quote_ports(struct __sk_buff *ctx, struct quote *q)
{
        struct weft_icmp icmp;
        __be16 ports[2];

        switch (q->inner.proto) {
        case IPPROTO_TCP:
        case IPPROTO_UDP:
                if (!LOAD(ctx, q->l4_off, ports))
                        return 0;
                q->inner.sport = ports[0];
                q->inner.dport = ports[1];
                if (q->inner.proto == IPPROTO_TCP)
                        return quote_l4(ctx, q, WEFT_TCP_CHECK);
                quote_l4(ctx, q, WEFT_UDP_CHECK);
                if (!q->l4_check)
                        q->check_off = 0;
                return 1;
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
                if (!LOAD(ctx, q->l4_off, icmp))
                        return 0;
                q->icmp = 1;
                q->icmp_type = icmp.type;
                if (is_echo(icmp.type))
                        q->inner.sport = icmp.id;
                else if (icmp.type == ICMP4_ECHO_REPLY || icmp.type == ICMP6_ECHO_REPLY)
                        q->inner.dport = icmp.id;
                else
                        return 0;
                return quote_l4(ctx, q, WEFT_ICMP_CHECK);
        default:
                return 0;
        }
}

static __always_inline int quote_ip4(struct __sk_buff *ctx, struct quote *q)
{
        struct iphdr ip;

        if (!LOAD(ctx, q->ip_off, ip) || ip.version != 4 || ip.ihl < 5 ||
            ip.frag_off & WEFT_FRAG_OFFSET)
                return 0;
        q->l4_off = q->ip_off + ip.ihl * 4;
        q->ip_check = ip.check;
        q->inner.src = weft_map_ip4(ip.saddr);
        q->inner.dst = weft_map_ip4(ip.daddr);
        q->inner.proto = ip.protocol;
        return quote_ports(ctx, q);
}

/* Steps over the extension headers of the quoted packet; 0: there is no transport header. */
static __always_inline int quote_extensions(struct __sk_buff *ctx, struct quote *q)
{
        struct extension ext;

        for (int i = 0; i < QUOTED_EXTENSIONS_MAX; i++) {
                if (!is_extension(q->inner.proto))
                        return 1;
                if (!LOAD(ctx, q->l4_off, ext))
                        return 0;
                if (q->inner.proto == IPPROTO_FRAGMENT && ext.frag_off & bpf_htons(0xfff8))
                        return 0;
                q->l4_off += q->inner.proto == IPPROTO_FRAGMENT ? 8 : 8 + ext.len * 8;
                q->inner.proto = ext.next;
        }
        return !is_extension(q->inner.proto);
}

static __always_inline int quote_ip6(struct __sk_buff *ctx, struct quote *q)
{
        struct ipv6hdr ip;

        if (!LOAD(ctx, q->ip_off, ip) || ip.version != 6)
                return 0;
        q->l4_off = q->ip_off + WEFT_IP6_LEN;
        __builtin_memcpy(&q->inner.src, &ip.saddr, 16);
        __builtin_memcpy(&q->inner.dst, &ip.daddr, 16);
        q->inner.proto = ip.nexthdr;
        return quote_extensions(ctx, q) && quote_ports(ctx, q);
}

/* Stores 16 bits inside the error and notes what that does to its checksum. */
static __always_inline void put16(struct __sk_buff *ctx, struct quote *q, __u32 off, __u16 old,
                                  __u16 new)
{
        q->difference = weft_fold(q->difference + weft_diff16(old, new));
        bpf_skb_store_bytes(ctx, off, &new, sizeof(new), 0);
}

/* The quoted addresses. Those of IPv4 are balanced by the quoted header's checksum. */
static __always_inline void put_addresses(struct __sk_buff *ctx, struct quote *q,
                                          const struct weft_tuple *new, __u16 delta)
{
        if (q->inner.family == 4) {
                __be32 addr[2] = { new->dst.w[3], new->src.w[3] };

                bpf_skb_store_bytes(ctx, q->ip_off + 12, addr, sizeof(addr), 0);
                q->difference = weft_fold(q->difference + delta);
                put16(ctx, q, q->ip_off + 10, q->ip_check, weft_check_add(q->ip_check, delta));
        } else {
                struct weft_addr addr[2] = { new->dst, new->src };

                bpf_skb_store_bytes(ctx, q->ip_off + 8, addr, sizeof(addr), 0);
                q->difference = weft_fold(q->difference + delta);
        }
}

static __always_inline void put_ports(struct __sk_buff *ctx, struct quote *q,
                                      const struct weft_tuple *new)
{
        if (!q->icmp) {
                put16(ctx, q, q->l4_off, q->inner.sport, new->dport);
                put16(ctx, q, q->l4_off + 2, q->inner.dport, new->sport);
        } else if (is_echo(q->icmp_type)) {
                put16(ctx, q, q->l4_off + WEFT_ICMP_ID, q->inner.sport, new->dport);
        } else {
                put16(ctx, q, q->l4_off + WEFT_ICMP_ID, q->inner.dport, new->sport);
        }
}

/* The quoted packet becomes what its sender knows. */
static __always_inline void translate_quote(struct __sk_buff *ctx, struct quote *q,
                                            const struct weft_tuple *new)
{
        __u16 addr = weft_fold(weft_fold(weft_diff_addr(&q->inner.src, &new->dst)) +
                               (__u32) weft_fold(weft_diff_addr(&q->inner.dst, &new->src)));
        __u32 l4 =
                weft_diff16(q->inner.sport, new->dport) + weft_diff16(q->inner.dport, new->sport);

        put_addresses(ctx, q, new, addr);
        put_ports(ctx, q, new);
        if (!q->check_off)
                return;
        if (q->inner.proto != IPPROTO_ICMP)
                l4 += addr;
        put16(ctx, q, q->check_off, q->l4_check, weft_check_add(q->l4_check, l4));
}

/* The error's own addresses, where they are the flow's. */
static __always_inline void translate_outer(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                            struct quote *q, const struct weft_tuple *new)
{
        struct weft_addr src =
                weft_same_addr(&pkt->key.src, &q->inner.dst) ? new->src : pkt->key.src;
        struct weft_addr dst =
                weft_same_addr(&pkt->key.dst, &q->inner.src) ? new->dst : pkt->key.dst;
        __u16 delta = weft_fold(weft_fold(weft_diff_addr(&pkt->key.src, &src)) +
                                (__u32) weft_fold(weft_diff_addr(&pkt->key.dst, &dst)));

        if (pkt->key.family == 4) {
                __be32 addr[2] = { src.w[3], dst.w[3] };

                bpf_l3_csum_replace(ctx, ETH_HLEN + 10, 0, delta, 0);
                bpf_skb_store_bytes(ctx, ETH_HLEN + 12, addr, sizeof(addr), 0);
        } else {
                struct weft_addr addr[2] = { src, dst };

                bpf_skb_store_bytes(ctx, ETH_HLEN + 8, addr, sizeof(addr), 0);
                q->difference = weft_fold(q->difference + delta);
        }
        bpf_l4_csum_replace(ctx, pkt->l4_off + WEFT_ICMP_CHECK, 0, q->difference, 0);
}

/* Like every packet that weft forwards, an error comes one hop nearer to its end. */
static __always_inline void hop_down(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u32 off = ETH_HLEN + (pkt->key.family == 4 ? 8 : 7);
        __u8 old, new;

        if (!LOAD(ctx, off, old))
                return;
        new = old - 1;
        if (pkt->key.family == 4)
                bpf_l3_csum_replace(ctx, ETH_HLEN + 10, bpf_htons(old << 8), bpf_htons(new << 8),
                                    2);
        bpf_skb_store_bytes(ctx, off, &new, 1, 0);
}

/* How the flow's packets of this direction go; of one that has had none yet, as those of the other.
 */
static __always_inline __u8 delivery_of(__u8 family, const struct weft_pkt *pkt,
                                        const struct weft_flow *f, const struct weft_tuple *wanted,
                                        const struct weft_tuple *new)
{
        const struct weft_flow *partner;
        struct weft_tuple other;

        if (weft_tunnels == WEFT_TUNNEL_WRAP && f->dsr == WEFT_DSR_IPIP)
                return WEFT_WIRE;
        if (f->epoch)
                return f->route.delivery;
        partner_tuple(f, wanted, new, &other);
        partner = flow_of(family, &other);
        if (!partner || !is_hop(partner->route.delivery))
                return WEFT_STACK;
        return pkt->plan.endpoint ? WEFT_ENDPOINT : WEFT_WIRE;
}

/* An error is carried as the flow's packets are, or will be: by who said it. */
static __always_inline void plan_quoted_tunnel(struct weft_pkt *pkt, const struct weft_flow *f)
{
        __u32 identity = weft_identity_of(pkt);

        pkt->plan.tunnel.word = READ_ONCE(f->tunnel.word);
        if (identity == WEFT_IDENTITY_HOST)
                identity = WEFT_IDENTITY_REMOTE_NODE;
        if (pkt->plan.tunnel.remote)
                pkt->plan.tunnel.key = identity << 8;
}

/* An error about no flow: of the network between, about what this node put into a tunnel? */
static __always_inline int about_no_flow(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                         const struct quote *q)
{
        if (has_overlay() && pkt->hook == WEFT_FROM_UPLINK && q->inner.proto == IPPROTO_UDP &&
            q->inner.dport == weft_header.port)
                weft_tail_call(ctx, WEFT_SLOT_RELAY);
        return without_flow(ctx, pkt);
}

/* Finds the flow that an error is about, and its way. weft_quote goes on from there: the verifier
 * has less to keep in mind of two short programs than of a long one. */
static __always_inline int find_quoted(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_tuple wanted, new;
        struct weft_flow *f;
        struct quote *q;
        int no;

        if (pkt->l4_off > 512)
                return without_flow(ctx, pkt);
        q = (struct quote *) pkt->buffer;
        __builtin_memset(q, 0, sizeof(*q));
        q->ip_off = pkt->l4_off + WEFT_ICMP_LEN;
        q->inner.family = family;
        if (!(family == 4 ? quote_ip4(ctx, q) : quote_ip6(ctx, q)))
                return without_flow(ctx, pkt);
        turn_round(&q->inner, pkt->key.side, &wanted);
        wanted.family = family;
        f = flow_of(family, &wanted);
        if (!f || past(f->deadline, pkt->now) || !way_is_known(f) ||
            (q->icmp && is_echo(q->icmp_type) != is_reply(f)))
                return about_no_flow(ctx, pkt, q);
        flow_new_tuple(family, f, &wanted, &new);
        act_from_flow(pkt, f, &new);
        plan_from_flow(pkt, f, &new);
        pkt->plan.delivery = delivery_of(family, pkt, f, &wanted, &new);
        if (has_overlay())
                plan_quoted_tunnel(pkt, f);
        pkt->way.asked = 0;
        pkt->known = 1;
        pkt->silent = 1;
        no = resolve(ctx, pkt);
        if (no)
                return weft_verdict_drop(ctx, pkt, no, 0);
        if (pkt->act.route.exit && !pkt->host)
                return to_stack(ctx, pkt->act.to_endpoint);
        pkt->act.n_options = 0;
        weft_tail_call(ctx, WEFT_SLOT_QUOTE);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_icmp(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(find_quoted, ctx, pkt) : WEFT_TCX_NEXT;
}

SEC("tc") int weft_quote(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        struct weft_tuple new = {};
        struct quote q;
        int hops, no;

        if (!pkt || pkt->l4_off > 512)
                return WEFT_TCX_NEXT;
        hops = is_hop(pkt->act.route.delivery);
        if (hops && (no = hop_refusal(ctx, pkt)))
                return weft_verdict_drop(ctx, pkt, no, 0);
        q = *(struct quote *) pkt->buffer;
        new.src = pkt->act.src;
        new.dst = pkt->act.dst;
        new.sport = pkt->act.sport;
        new.dport = pkt->act.dport;
        translate_quote(ctx, &q, &new);
        translate_outer(ctx, pkt, &q, &new);
        count_forward(pkt->hook, pkt->act.route.delivery, pkt->len);
        if (hops)
                hop_down(ctx, pkt);
        if (enters_tunnel(pkt, pkt->act.route))
                return to_encap(ctx, pkt, is_tunnel(pkt->act.route.delivery));
        if (!hops)
                return to_stack(ctx, pkt->act.to_endpoint);
        return send(ctx, pkt, pkt->act.route);
}
