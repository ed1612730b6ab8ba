/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* XDP replays, and only what leaves on the wire with nothing to be learnt from the packet; all else
 * is decided in tc. Checksums are written directly: packets here come from a NIC. */

#include "replay.h"

static __always_inline void xdp_fix_check(__u16 *at, __u8 udp, __u16 l4_delta)
{
        __u16 check = *at;

        if (udp && !check)
                return;
        check = ~weft_fold((__u16) ~check + (__u32) l4_delta);
        *at = check || !udp ? check : 0xffff;
}

static __always_inline int xdp_send(void *data, const struct hop *hop)
{
        write_macs(data, hop);
        return bpf_redirect(hop->ifindex, 0);
}

/* Is this a flow that XDP may replay, by a hop that it may use? */
static __always_inline int xdp_is_replayable(const struct weft_flow *f, union weft_route route,
                                             const struct short_packet *p, struct hop *ret)
{
        return route.delivery == WEFT_WIRE && is_current(f, p) && read_hop(route, p->now, ret) &&
               p->hop_limit > 1 && (!route.mtu || p->len <= route.mtu);
}

static __always_inline int xdp4(struct short_packet *p)
{
        struct iphdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP4_MIN;
        union weft_route route;
        struct weft_flow4 *flow, copy;
        struct weft_key4 key;
        struct hop hop;
        __u16 *check;

        if (l4 + WEFT_UDP_LEN > p->end || *(__u8 *) ip != 0x45 ||
            ip->frag_off & (WEFT_FRAG_MORE | WEFT_FRAG_OFFSET) || !read_l4(p, ip->protocol, l4))
                return XDP_PASS;
        p->hop_limit = ip->ttl;
        key = (struct weft_key4) { .saddr = ip->saddr,
                                   .daddr = ip->daddr,
                                   .sport = ((__be16 *) l4)[0],
                                   .dport = ((__be16 *) l4)[1],
                                   .proto = p->udp ? IPPROTO_UDP : IPPROTO_TCP,
                                   .side = WEFT_SIDE_UPLINK };
        count_lookup();
        flow = bpf_map_lookup_elem(&flows4, &key);
        if (!flow)
                return XDP_PASS;
        route.word = READ_ONCE(flow->f.route.word);
        copy.saddr = flow->saddr;
        copy.daddr = flow->daddr;
        copy.f.sport = flow->f.sport;
        copy.f.dport = flow->f.dport;
        copy.f.addr_delta = flow->f.addr_delta;
        copy.f.l4_delta = flow->f.l4_delta;
        barrier();
        check = l4 + (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK);
        if (!xdp_is_replayable(&flow->f, route, p, &hop) || !key4_is(&flow->key, &key) ||
            (void *) (check + 1) > p->end)
                return XDP_PASS;
        account(&flow->f, p->now, p->len);
        count_forward(WEFT_XDP_UPLINK, WEFT_WIRE, p->len);
        rewrite_ip4(ip, copy.saddr, copy.daddr, copy.f.addr_delta, 1);
        ((__be16 *) l4)[0] = copy.f.sport;
        ((__be16 *) l4)[1] = copy.f.dport;
        xdp_fix_check(check, p->udp, copy.f.l4_delta);
        return xdp_send(p->data, &hop);
}

static __always_inline int xdp6(struct short_packet *p)
{
        struct ipv6hdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP6_LEN;
        struct weft_addr src, dst;
        union weft_route route;
        struct weft_flow6 *flow;
        struct weft_key6 key;
        __u16 *check, delta;
        struct hop hop;
        __u32 ports;

        if (l4 + WEFT_UDP_LEN > p->end || *(__u8 *) ip >> 4 != 6 || !read_l4(p, ip->nexthdr, l4))
                return XDP_PASS;
        p->hop_limit = ip->hop_limit;
        key = (struct weft_key6) { .sport = ((__be16 *) l4)[0],
                                   .dport = ((__be16 *) l4)[1],
                                   .proto = p->udp ? IPPROTO_UDP : IPPROTO_TCP,
                                   .side = WEFT_SIDE_UPLINK };
        __builtin_memcpy(&key.saddr, &ip->saddr, 32);
        count_lookup();
        flow = bpf_map_lookup_elem(&flows6, &key);
        if (!flow)
                return XDP_PASS;
        route.word = READ_ONCE(flow->f.route.word);
        src = flow->saddr;
        dst = flow->daddr;
        ports = *(__u32 *) &flow->f.sport;
        delta = flow->f.l4_delta;
        barrier();
        check = l4 + (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK);
        if (!xdp_is_replayable(&flow->f, route, p, &hop) || !key6_is(&flow->key, &key) ||
            (void *) (check + 1) > p->end)
                return XDP_PASS;
        account(&flow->f, p->now, p->len);
        count_forward(WEFT_XDP_UPLINK, WEFT_WIRE, p->len);
        rewrite_ip6(ip, &src, &dst, 1);
        *(__u32 *) l4 = ports;
        xdp_fix_check(check, p->udp, delta);
        return xdp_send(p->data, &hop);
}

SEC("xdp") int weft_xdp(struct xdp_md *ctx)
{
        struct short_packet p = { .data = (void *) (long) ctx->data,
                                  .end = (void *) (long) ctx->data_end };
        __be16 protocol;

        if (p.data + ETH_HLEN > p.end)
                return XDP_PASS;
        p.len = p.end - p.data - ETH_HLEN;
        p.epoch = epoch_now();
        p.now = bpf_jiffies64();
        protocol = ((struct ethhdr *) p.data)->h_proto;
        if (protocol == bpf_htons(ETH_P_IP))
                return xdp4(&p);
        return protocol == bpf_htons(ETH_P_IPV6) ? xdp6(&p) : XDP_PASS;
}

/* In its place where nothing may be replayed, for a module must see every packet in tc: a driver
 * that loses its program may lose packets. */
SEC("xdp") int weft_xdp_pass(struct xdp_md *ctx __attribute__((unused)))
{
        return XDP_PASS;
}
