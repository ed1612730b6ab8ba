/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Replay: what is done to a packet when it is known what to do. All writes go straight into the
 * packet with differences that were computed when the flow was stored; helpers that invalidate
 * packet pointers are called last. */

#include "engine.h"

/* How the kernel holds a packet's transport checksum, <linux/skbuff.h>. */
enum { CHECK_NONE, CHECK_UNNECESSARY, CHECK_COMPLETE, CHECK_PARTIAL };

struct sk_buff___weft {
        __u8 ip_summed : 2;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym __weak;

/* What the checksum code must know of a packet. */
struct check_place {
        __u32 off;   /* of the checksum, from the start of the frame */
        __u16 *at;   /* the same in the packet; bounds are checked */
        __u8 udp;    /* 0 means "none" there, and is written as 0xffff */
        __u8 family; /* 4 or 6 */
        __u8 pseudo; /* the checksum covers the addresses */
};

static __always_inline __u8 check_state(struct __sk_buff *ctx)
{
        struct sk_buff___weft *skb;

        if (!weft_can_cast)
                return CHECK_COMPLETE;
        skb = bpf_cast_to_kern_ctx(ctx);
        return BPF_CORE_READ_BITFIELD(skb, ip_summed);
}

/* By helpers: right for every way of holding a checksum. IPv6 with CHECKSUM_COMPLETE needs care:
 * the addresses are not balanced by a header checksum, so the kernel's sum of the packet does not
 * move (from 6.16 the helper has BPF_F_IPV6 for that). Where the state can be seen, leaving out
 * BPF_F_PSEUDO_HDR says the same; where it cannot, the addresses were stored with
 * BPF_F_RECOMPUTE_CSUM, which moves the sum the other way. */
static __always_inline void check_by_helper(struct __sk_buff *ctx, const struct check_place *c,
                                            __u16 addr_delta, __u16 l4_delta)
{
        __u64 mangled = c->udp ? BPF_F_MARK_MANGLED_0 : 0;

        if (!c->pseudo || (weft_can_cast && c->family == 6)) {
                bpf_l4_csum_replace(ctx, c->off, 0, l4_delta, mangled);
                return;
        }
        bpf_l4_csum_replace(ctx, c->off, 0, addr_delta, BPF_F_PSEUDO_HDR | mangled);
        bpf_l4_csum_replace(ctx, c->off, 0, weft_fold((__u16) ~addr_delta + (__u32) l4_delta),
                            mangled);
}

/* Brings a transport checksum in line with new addresses and ports. Packet pointers are invalid
 * afterwards. */
static __always_inline void fix_check(struct __sk_buff *ctx, const struct check_place *c,
                                      __u16 addr_delta, __u16 l4_delta)
{
        __u8 state = check_state(ctx);
        __u16 check = *c->at;

        if (state == CHECK_COMPLETE) {
                if (check || !c->udp)
                        check_by_helper(ctx, c, addr_delta, l4_delta);
        } else if (state == CHECK_PARTIAL && c->pseudo) {
                *c->at = weft_fold(check + (__u32) addr_delta);
        } else if (check || !c->udp) {
                check = ~weft_fold((__u16) ~check + (__u32) l4_delta);
                *c->at = check || !c->udp ? check : 0xffff;
        }
}

static __always_inline void rewrite_ip4(struct iphdr *ip, __be32 saddr, __be32 daddr,
                                        __u16 addr_delta, int hop)
{
        __u32 sum = (__u16) ~ip->check + (__u32) addr_delta;

        if (hop) {
                sum += (__u16) ~bpf_htons(0x0100);
                ip->ttl--;
        }
        ip->check = ~weft_fold(sum);
        ip->saddr = saddr;
        ip->daddr = daddr;
}

static __always_inline void rewrite_ip6(struct ipv6hdr *ip, const struct weft_addr *src,
                                        const struct weft_addr *dst, int hop)
{
        if (hop)
                ip->hop_limit--;
        __builtin_memcpy(&ip->saddr, src, 16);
        __builtin_memcpy(&ip->daddr, dst, 16);
}

/* See check_by_helper(): only where the state of the checksum cannot be seen. */
static __always_inline void store_addresses6(struct __sk_buff *ctx, const struct weft_addr *src,
                                             const struct weft_addr *dst)
{
        struct weft_addr both[2] = { *src, *dst };

        bpf_skb_store_bytes(ctx, ETH_HLEN + 8, both, sizeof(both), BPF_F_RECOMPUTE_CSUM);
}

/* Does an IP packet of len bytes go through? GSO: each of its segments, headers included. */
static __always_inline int fits(struct __sk_buff *ctx, __u32 mtu, __u32 len, __u32 headers)
{
        __u32 segment;

        if (!mtu || len <= mtu)
                return 1;
        segment = ctx->gso_size;
        return segment && segment + headers <= mtu;
}

/* ---- next hops ---------------------------------------------------------------------------- */

/* A copy of what replay needs of a next hop. */
struct hop {
        __u64 mac0; /* destination and the first two bytes of the source address */
        __u32 mac1;
        __u32 ifindex;
        __u32 flags;
};

static __always_inline int is_redirect(__u8 delivery)
{
        return delivery == WEFT_WIRE || delivery == WEFT_ENDPOINT;
}

static __always_inline int is_tunnel(__u8 delivery)
{
        return weft_tunnels && delivery == WEFT_TUNNEL;
}

/* Does the packet go on from here, one hop further? */
static __always_inline int is_hop(__u8 delivery)
{
        return is_redirect(delivery) || is_tunnel(delivery);
}

/* 0: the slot does not mean what it meant, or its addresses are no longer believed. */
static __always_inline int read_hop(union weft_route route, __u64 now, struct hop *ret)
{
        struct weft_nexthop *nh = nexthop_at(route.nexthop);

        if (!nh)
                return 0;
        ret->mac0 = READ_ONCE(*(__u64 *) nh->dmac);
        ret->mac1 = READ_ONCE(*(__u32 *) (nh->dmac + 8));
        ret->ifindex = nh->ifindex;
        ret->flags = nh->flags;
        return (__u16) READ_ONCE(nh->number) == route.nexthop_number &&
               !past(READ_ONCE(nh->fresh), now);
}

/* Does the index still mean the same node? */
static __always_inline int remote_is_same(const struct weft_remote *r, union weft_tunnel tunnel)
{
        return (__u16) READ_ONCE(r->number) == tunnel.number;
}

/* The next hop of what is wrapped. */
static __always_inline union weft_route wrapped_route(union weft_tunnel tunnel)
{
        return (union weft_route) { .nexthop = tunnel.remote, .nexthop_number = tunnel.number };
}

/* Is what is known of the way to a remote still believed? A device of the kernel finds its own. */
static __always_inline int remote_is_current(union weft_tunnel tunnel, __u64 epoch, __u64 now)
{
        struct weft_remote *r;
        union weft_route route;
        struct hop hop;

        if (weft_tunnels == WEFT_TUNNEL_WRAP)
                return read_hop(wrapped_route(tunnel), now, &hop);
        r = remote_at(tunnel.remote);
        if (!r || !remote_is_same(r, tunnel))
                return 0;
        if (weft_tunnels == WEFT_TUNNEL_DEVICE)
                return 1;
        route.word = READ_ONCE(r->route.word);
        return READ_ONCE(r->epoch) == epoch && read_hop(route, now, &hop);
}

static __always_inline void write_macs(void *data, const struct hop *hop)
{
        *(__u64 *) data = hop->mac0;
        *(__u32 *) (data + 8) = hop->mac1;
}

static __always_inline int redirect(struct __sk_buff *ctx, const struct hop *hop)
{
        if (hop->flags & WEFT_NEXTHOP_PEER)
                return bpf_redirect_peer(hop->ifindex, 0);
        if (hop->flags & WEFT_NEXTHOP_MARK)
                ctx->mark |= weft_mark;
        return bpf_redirect(hop->ifindex, 0);
}

/* To the stack. The exit hook of an endpoint is told by the mark that its stages have run already.
 */
static __always_inline int to_stack(struct __sk_buff *ctx, int to_endpoint)
{
        if (weft_has_stages[WEFT_TO_ENDPOINT] && to_endpoint)
                ctx->mark |= weft_mark;
        return WEFT_TCX_NEXT;
}

/* ---- the short path ----------------------------------------------------------------------- */

#define SLOW (-100) /* no verdict: the long path decides */

/* What entry found out about a packet with plain headers. */
struct short_packet {
        void *data, *end;
        __u64 epoch, now;
        __u32 len;     /* of the IP packet */
        __u32 headers; /* of it: IP and transport */
        __u8 flags;    /* TCP flags and WEFT_WATCH_ALL */
        __u8 udp;
        __u8 hop_limit;
};

/* Is the decision in force, and nothing about the flow to be learnt from this packet? */
static __always_inline int is_current(const struct weft_flow *f, const struct short_packet *p)
{
        __u32 index = f->backend;
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);

        return READ_ONCE(f->epoch) == p->epoch && !(f->watch & p->flags) &&
               !past(f->deadline, p->now) && b && b->number == f->backend_number;
}

/* May this packet take the short way that the flow remembers? */
static __always_inline int is_passable(struct __sk_buff *ctx, const struct short_packet *p,
                                       union weft_route route, union weft_tunnel tunnel,
                                       struct hop *ret)
{
        if (is_tunnel(route.delivery))
                return remote_is_current(tunnel, p->epoch, p->now) && p->hop_limit > 1 &&
                       fits(ctx, route.mtu, p->len, p->headers);
        if (!is_redirect(route.delivery))
                return 1;
        return read_hop(route, p->now, ret) && p->hop_limit > 1 &&
               fits(ctx, route.mtu, p->len, p->headers);
}

/* Goes on with weft_encap, or weft_underlay: the way to the remote is to be found first. Without
 * an overlay, with weft_wrap. */
static __always_inline int to_encap(struct __sk_buff *ctx, struct weft_pkt *pkt, int current)
{
        if (weft_tunnels == WEFT_TUNNEL_WRAP)
                weft_tail_call(ctx, WEFT_SLOT_WRAP);
        else if (current)
                weft_tail_call(ctx, WEFT_SLOT_ENCAP);
        else
                weft_tail_call(ctx, WEFT_SLOT_UNDERLAY);
        return BROKEN(ctx, pkt);
}

/* A packet of the short path that is ready for its tunnel. */
static __always_inline int into_tunnel(struct __sk_buff *ctx, __u32 hook, __u8 family,
                                       union weft_tunnel tunnel, const struct short_packet *p,
                                       int current)
{
        struct weft_pkt *pkt = weft_packet();

        if (!pkt)
                return WEFT_TCX_DROP;
        pkt->hook = hook;
        pkt->key.family = family;
        pkt->ifindex = ctx->ifindex;
        pkt->len = p->len;
        pkt->epoch = p->epoch;
        pkt->now = p->now;
        pkt->act.tunnel = tunnel;
        pkt->act.neighbour = 0;
        pkt->act.n_options = 0;
        return to_encap(ctx, pkt, current);
}

/* Does a flow that goes through the stack end at a local endpoint? */
static __always_inline int ends_inside(union weft_route route, __u8 partner_side)
{
        return partner_side == WEFT_SIDE_INSIDE && route.delivery == WEFT_STACK;
}

static __always_inline int short4(struct __sk_buff *ctx, __u32 hook, struct weft_flow4 *flow,
                                  const struct weft_key4 *key, const struct short_packet *p)
{
        union weft_route route = { .word = READ_ONCE(flow->f.route.word) };
        __be32 saddr = flow->saddr, daddr = flow->daddr;
        __u32 ports = *(__u32 *) &flow->f.sport, set = flow->f.set;
        __u16 addr_delta = flow->f.addr_delta, l4_delta = flow->f.l4_delta;
        union weft_tunnel tunnel = { .word = weft_tunnels ? READ_ONCE(flow->f.tunnel.word) : 0 };
        __u8 partner_side = flow->f.partner_side;
        struct iphdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP4_MIN;
        struct hop hop = {};
        int hops = is_redirect(route.delivery), tunnelled = is_tunnel(route.delivery);

        if (!is_passable(ctx, p, route, tunnel, &hop))
                return SLOW;
        barrier();
        if (!is_current(&flow->f, p) || !key4_is(&flow->key, key))
                return SLOW;
        account(&flow->f, p->now, p->len);
        count_forward(hook, route.delivery, p->len);
        if (route.exit)
                return to_stack(ctx, ends_inside(route, partner_side));
        if (hops)
                write_macs(p->data, &hop);
        if (hops || tunnelled || set)
                rewrite_ip4(ip, saddr, daddr, addr_delta, hops || tunnelled);
        if (set) {
                struct check_place c = { .udp = p->udp,
                                         .family = 4,
                                         .pseudo = 1,
                                         .off = ETH_HLEN + WEFT_IP4_MIN +
                                                (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK) };

                *(__u32 *) l4 = ports;
                c.at = p->data + c.off;
                /* verifier: it has forgotten which protocol the bounds were checked for */
                if ((void *) (c.at + 1) > p->end)
                        return SLOW;
                fix_check(ctx, &c, addr_delta, l4_delta);
        }
        if (tunnelled)
                return into_tunnel(ctx, hook, 4, tunnel, p, 1);
        return hops ? redirect(ctx, &hop) : to_stack(ctx, ends_inside(route, partner_side));
}

static __always_inline int short6(struct __sk_buff *ctx, __u32 hook, struct weft_flow6 *flow,
                                  const struct weft_key6 *key, const struct short_packet *p)
{
        union weft_route route = { .word = READ_ONCE(flow->f.route.word) };
        struct weft_addr src = flow->saddr, dst = flow->daddr;
        __u32 ports = *(__u32 *) &flow->f.sport, set = flow->f.set;
        __u16 addr_delta = flow->f.addr_delta, l4_delta = flow->f.l4_delta;
        union weft_tunnel tunnel = { .word = weft_tunnels ? READ_ONCE(flow->f.tunnel.word) : 0 };
        __u8 partner_side = flow->f.partner_side;
        struct ipv6hdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP6_LEN;
        struct hop hop = {};
        int hops = is_redirect(route.delivery), tunnelled = is_tunnel(route.delivery);

        if (!is_passable(ctx, p, route, tunnel, &hop))
                return SLOW;
        barrier();
        if (!is_current(&flow->f, p) || !key6_is(&flow->key, key))
                return SLOW;
        account(&flow->f, p->now, p->len);
        count_forward(hook, route.delivery, p->len);
        if (route.exit)
                return to_stack(ctx, ends_inside(route, partner_side));
        if (hops)
                write_macs(p->data, &hop);
        if (hops || tunnelled)
                ip->hop_limit--;
        if (set) {
                struct check_place c = { .udp = p->udp,
                                         .family = 6,
                                         .pseudo = 1,
                                         .off = ETH_HLEN + WEFT_IP6_LEN +
                                                (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK) };

                if (weft_can_cast)
                        rewrite_ip6(ip, &src, &dst, 0);
                *(__u32 *) l4 = ports;
                c.at = p->data + c.off;
                /* verifier: as in short4() */
                if ((void *) (c.at + 1) > p->end)
                        return SLOW;
                fix_check(ctx, &c, addr_delta, l4_delta);
                if (!weft_can_cast)
                        store_addresses6(ctx, &src, &dst);
        }
        if (tunnelled)
                return into_tunnel(ctx, hook, 6, tunnel, p, 1);
        return hops ? redirect(ctx, &hop) : to_stack(ctx, ends_inside(route, partner_side));
}

/* ---- the long path: any header ------------------------------------------------------------ */

/* The transport header's part of weft_replay(): ports and where the checksum is. Returns 0 where
 * there is nothing to fix. */
static __always_inline int rewrite_l4(struct weft_pkt *pkt, void *l4, void *end, __u32 l4_off,
                                      struct check_place *c)
{
        __u8 proto = pkt->key.proto;

        if (pkt->fragment == 2 || l4 + WEFT_UDP_LEN > end)
                return 0;
        if (proto == IPPROTO_TCP || proto == IPPROTO_UDP) {
                *(__be16 *) l4 = pkt->act.sport;
                *(__be16 *) (l4 + 2) = pkt->act.dport;
                c->udp = proto == IPPROTO_UDP;
                c->off = c->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK;
                c->pseudo = 1;
        } else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
                *(__be16 *) (l4 + WEFT_ICMP_ID) =
                        is_echo(pkt->icmp_type) ? pkt->act.sport : pkt->act.dport;
                c->off = WEFT_ICMP_CHECK;
                c->pseudo = c->family == 6;
        } else {
                return 0;
        }
        c->at = l4 + c->off;
        c->off += l4_off;
        return (void *) (c->at + 1) <= end;
}

/* Writes pkt->act into the packet, wherever its transport header lies. 0, or -1: it is cut short.
 */
static __always_inline int rewrite(struct __sk_buff *ctx, struct weft_pkt *pkt, int hops)
{
        struct check_place c = { .family = pkt->key.family };
        __u32 l4_off = pkt->l4_off;
        void *data, *end, *l4;
        int fix = 0;

        if (l4_off > 512 ||
            bpf_skb_pull_data(ctx,
                              l4_off + WEFT_TCP_MIN > ctx->len ? ctx->len : l4_off + WEFT_TCP_MIN))
                return -1;
        data = (void *) (long) ctx->data;
        end = (void *) (long) ctx->data_end;
        l4 = data + l4_off;
        if (pkt->act.set)
                fix = rewrite_l4(pkt, l4, end, l4_off, &c);
        if (c.family == 4) {
                if (data + ETH_HLEN + WEFT_IP4_MIN > end)
                        return -1;
                rewrite_ip4(data + ETH_HLEN, pkt->act.src.w[3], pkt->act.dst.w[3],
                            pkt->act.addr_delta, hops);
        } else {
                if (data + ETH_HLEN + WEFT_IP6_LEN > end)
                        return -1;
                if (!pkt->act.set || weft_can_cast)
                        rewrite_ip6(data + ETH_HLEN, &pkt->act.src, &pkt->act.dst, hops);
                else if (hops)
                        ((struct ipv6hdr *) (data + ETH_HLEN))->hop_limit--;
        }
        if (fix)
                fix_check(ctx, &c, pkt->act.addr_delta, pkt->act.l4_delta);
        if (c.family == 6 && pkt->act.set && !weft_can_cast)
                store_addresses6(ctx, &pkt->act.src, &pkt->act.dst);
        return 0;
}

/* Length of the headers that each segment of a GSO packet carries. */
static __always_inline __u32 header_length(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u8 off = 0;

        if (pkt->key.proto == IPPROTO_TCP &&
            bpf_skb_load_bytes(ctx, pkt->l4_off + 12, &off, 1) == 0)
                return pkt->l4_off - ETH_HLEN + (off >> 2 & 0x3c);
        return pkt->l4_off - ETH_HLEN + WEFT_UDP_LEN;
}

/* What a router checks before it forwards. 0: goes through. */
static __always_inline int hop_refusal(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u8 hop_limit;

        if (bpf_skb_load_bytes(ctx, ETH_HLEN + (pkt->key.family == 4 ? 8 : 7), &hop_limit, 1))
                return WEFT_DROP(INVALID);
        if (hop_limit <= 1)
                return WEFT_DROP(TTL_EXPIRED);
        return fits(ctx, pkt->act.route.mtu, pkt->len, header_length(ctx, pkt))
                       ? 0
                       : WEFT_DROP(TOO_BIG);
}

/* Through the kernel's neighbour layer: it resolves, and confirms, what the next hop is. */
static __always_inline int redirect_neighbour(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                              __u32 flags)
{
        struct bpf_redir_neigh n = {};

        if (pkt->way.family == 4) {
                n.nh_family = WEFT_AF_INET;
                n.ipv4_nh = pkt->way.gateway.w[3];
        } else {
                n.nh_family = WEFT_AF_INET6;
                __builtin_memcpy(n.ipv6_nh, &pkt->way.gateway, 16);
        }
        weft_event(WEFT_EVENT_NEIGHBOUR);
        if (flags & WEFT_NEXTHOP_MARK)
                ctx->mark |= weft_mark;
        return bpf_redirect_neigh(pkt->way.ifindex, &n, sizeof(n), 0);
}

/* Is this where the packet is put into its tunnel: at its first hook, or where it leaves? */
static __always_inline int enters_tunnel(const struct weft_pkt *pkt, union weft_route route)
{
        return is_tunnel(route.delivery) ||
               (has_overlay() && pkt->hook == WEFT_TO_UPLINK && pkt->act.tunnel.remote);
}

/* The way out of the node for a packet whose headers are rewritten. */
static __always_inline int send(struct __sk_buff *ctx, struct weft_pkt *pkt, union weft_route route)
{
        struct hop hop = {};
        void *data;

        if (pkt->act.neighbour) {
                __u32 ifindex = pkt->way.ifindex;
                struct weft_link *link = bpf_map_lookup_elem(&links, &ifindex);

                return redirect_neighbour(ctx, pkt, link ? link->flags : 0);
        }
        if (!read_hop(route, pkt->now, &hop))
                return DROP(ctx, pkt, NO_ROUTE);
        data = (void *) (long) ctx->data;
        if (data + ETH_HLEN > (void *) (long) ctx->data_end)
                return DROP(ctx, pkt, INVALID);
        write_macs(data, &hop);
        return redirect(ctx, &hop);
}
