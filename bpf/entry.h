/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Entry: the first program of a hook. What has plain headers and a flow in force is replayed here;
 * what is none of ours leaves after one lookup; the rest goes on to weft_parse or weft_miss. */

#include "replay.h"

#define PACKET_HOST 0 /* <linux/if_packet.h> */

#define IS_EXIT(hook) ((hook) == WEFT_TO_UPLINK || (hook) == WEFT_TO_ENDPOINT)
#define SIDE_OF(hook)                                                                              \
        ((hook) == WEFT_FROM_UPLINK    ? WEFT_SIDE_UPLINK                                          \
         : (hook) == WEFT_FROM_OVERLAY ? WEFT_SIDE_OVERLAY                                         \
                                       : WEFT_SIDE_INSIDE)

/* Starts the scratch packet of a hook; the tuple is filled in by the caller. */
static __always_inline struct weft_pkt *begin(struct __sk_buff *ctx, __u32 hook)
{
        struct weft_pkt *pkt = weft_packet();

        if (!pkt)
                return NULL;
        pkt->hook = hook;
        pkt->host = IS_EXIT(hook);
        pkt->key.side = SIDE_OF(hook);
        pkt->ifindex = ctx->ifindex;
        pkt->len = ctx->len - ETH_HLEN;
        pkt->tcp_flags = 0;
        pkt->icmp_type = 0;
        pkt->fragment = 0;
        pkt->absent = 0;
        pkt->silent = 0;
        pkt->relayed = 0;
        pkt->loose = 0;
        if (hook != WEFT_FROM_OVERLAY)
                pkt->remote = pkt->n_options = pkt->wrapped = 0;
        pkt->told.given = 0;
        return pkt;
}

static __always_inline int to_parse(struct __sk_buff *ctx, __u32 hook)
{
        struct weft_pkt *pkt = begin(ctx, hook);

        if (!pkt)
                return WEFT_TCX_NEXT;
        weft_tail_call(ctx, WEFT_SLOT_PARSE);
        return BROKEN(ctx, pkt);
}

static __always_inline int to_miss(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                   const struct short_packet *p)
{
        pkt->epoch = p->epoch;
        pkt->now = p->now;
        pkt->tcp_flags = p->flags & ~WEFT_WATCH_ALL;
        pkt->l4_off = ETH_HLEN + p->headers;
        weft_tail_call(ctx, WEFT_SLOT_MISS);
        return BROKEN(ctx, pkt);
}

/* A packet of the node itself, leaving: does weft look after the ports it may have taken? */
static __always_inline int is_shared_port(__be16 sport)
{
        __u16 port = bpf_ntohs(sport);

        return weft_host_high && port >= weft_host_low && port <= weft_host_high;
}

/* What a hook does with a packet of no flow: 1, it may concern weft. */
static __always_inline int may_be_ours(__u32 hook, __u32 dst_bit, __u32 service_bit, __u32 src_bit,
                                       __u32 net_bit, __be16 sport)
{
        switch (hook) {
        case WEFT_FROM_OVERLAY:
                if (weft_tunnels == WEFT_TUNNEL_WRAP)
                        return 1;
                /* fallthrough */
        case WEFT_FROM_UPLINK:
                return weft_filtered(dst_bit) || weft_filtered(service_bit) ||
                       weft_filtered(src_bit);
        case WEFT_TO_UPLINK:
                return is_shared_port(sport) || (has_overlay() && weft_filtered(net_bit));
        case WEFT_TO_ENDPOINT:
                return weft_has_stages[WEFT_TO_ENDPOINT];
        default:
                return 1;
        }
}

/* The exit hook of a flow: the source half of its plan, and, for the node's own connections, all
 * that entry does for others. SLOW: the long path. */
static __always_inline int exit_flow(const struct weft_flow *f, __u32 hook,
                                     const struct short_packet *p)
{
        if (f->ifindex != WEFT_HOST)
                return 0;
        if (past(f->deadline, p->now) || f->watch & p->flags)
                return SLOW;
        return ((hook == WEFT_TO_ENDPOINT && weft_has_stages[hook]) ||
                (hook == WEFT_TO_UPLINK && has_overlay())) &&
                               READ_ONCE(f->epoch) != p->epoch
                       ? SLOW
                       : 0;
}

/* What of a flow is carried by a tunnel from its exit on; word 0: nothing. */
static __always_inline union weft_tunnel exit_tunnel(const struct weft_flow *f, __u32 hook)
{
        return (union weft_tunnel) { .word = has_overlay() && hook == WEFT_TO_UPLINK
                                                     ? READ_ONCE(f->tunnel.word)
                                                     : 0 };
}

static __always_inline int exit_into_tunnel(struct __sk_buff *ctx, __u32 hook, __u8 family,
                                            union weft_tunnel tunnel, const struct short_packet *p)
{
        return into_tunnel(ctx, hook, family, tunnel, p,
                           remote_is_current(tunnel, p->epoch, p->now));
}

/* The source half is due where the route says so, and for a packet that goes through the stack
 * though its flow does not: one that has to be cut up. */
static __always_inline int exit4(struct __sk_buff *ctx, __u32 hook, struct weft_flow4 *flow,
                                 const struct weft_key4 *key, const struct short_packet *p)
{
        union weft_route route = { .word = READ_ONCE(flow->f.route.word) };
        __be32 saddr = flow->saddr, daddr = flow->daddr;
        __u32 ports = *(__u32 *) &flow->f.sport, off;
        __u16 addr_delta = flow->f.addr_delta, l4_delta = flow->f.l4_delta;
        struct check_place c = { .udp = p->udp, .family = 4, .pseudo = 1 };
        union weft_tunnel tunnel = exit_tunnel(&flow->f, hook);
        int due = route.exit || flow->f.set == WEFT_SET_SRC;

        barrier();
        if (!key4_is(&flow->key, key) || exit_flow(&flow->f, hook, p))
                return SLOW;
        if (flow->f.ifindex == WEFT_HOST)
                account(&flow->f, p->now, p->len);
        if (!due && !tunnel.word)
                return WEFT_TCX_NEXT;
        if (!due)
                return exit_into_tunnel(ctx, hook, 4, tunnel, p);
        off = ETH_HLEN + WEFT_IP4_MIN;
        rewrite_ip4(p->data + ETH_HLEN, saddr, daddr, addr_delta, 0);
        *(__u32 *) (p->data + off) = ports;
        c.off = off + (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK);
        c.at = p->data + c.off;
        /* verifier: as in short4() */
        if ((void *) (c.at + 1) > p->end)
                return SLOW;
        fix_check(ctx, &c, addr_delta, l4_delta);
        if (tunnel.word)
                return exit_into_tunnel(ctx, hook, 4, tunnel, p);
        return WEFT_TCX_NEXT;
}

static __always_inline int exit6(struct __sk_buff *ctx, __u32 hook, struct weft_flow6 *flow,
                                 const struct weft_key6 *key, const struct short_packet *p)
{
        union weft_route route = { .word = READ_ONCE(flow->f.route.word) };
        struct weft_addr src = flow->saddr, dst = flow->daddr;
        __u32 ports = *(__u32 *) &flow->f.sport, off;
        __u16 addr_delta = flow->f.addr_delta, l4_delta = flow->f.l4_delta;
        struct check_place c = { .udp = p->udp, .family = 6, .pseudo = 1 };
        union weft_tunnel tunnel = exit_tunnel(&flow->f, hook);
        int due = route.exit || flow->f.set == WEFT_SET_SRC;

        barrier();
        if (!key6_is(&flow->key, key) || exit_flow(&flow->f, hook, p))
                return SLOW;
        if (flow->f.ifindex == WEFT_HOST)
                account(&flow->f, p->now, p->len);
        if (!due && !tunnel.word)
                return WEFT_TCX_NEXT;
        if (!due)
                return exit_into_tunnel(ctx, hook, 6, tunnel, p);
        off = ETH_HLEN + WEFT_IP6_LEN;
        if (weft_can_cast)
                rewrite_ip6(p->data + ETH_HLEN, &src, &dst, 0);
        *(__u32 *) (p->data + off) = ports;
        c.off = off + (p->udp ? WEFT_UDP_CHECK : WEFT_TCP_CHECK);
        c.at = p->data + c.off;
        /* verifier: as in short4() */
        if ((void *) (c.at + 1) > p->end)
                return SLOW;
        fix_check(ctx, &c, addr_delta, l4_delta);
        if (!weft_can_cast)
                store_addresses6(ctx, &src, &dst);
        if (tunnel.word)
                return exit_into_tunnel(ctx, hook, 6, tunnel, p);
        return WEFT_TCX_NEXT;
}

/* The transport header of a packet with plain headers: its length and flags. 0: not plain. */
static __always_inline int read_l4(struct short_packet *p, __u8 proto, void *l4)
{
        p->flags = WEFT_WATCH_ALL;
        if (proto == IPPROTO_TCP) {
                if (l4 + WEFT_TCP_MIN > p->end)
                        return 0;
                p->flags |= ((__u8 *) l4)[13] & 0x7f;
                p->udp = 0;
                return 1;
        }
        if (proto == IPPROTO_UDP) {
                p->udp = 1;
                return l4 + WEFT_UDP_LEN <= p->end;
        }
        return 0;
}

/* UDP to the port of the tunnel, which the engine takes off itself. */
static __always_inline int may_be_tunnelled(__u32 hook, const struct short_packet *p,
                                            const void *l4)
{
        return weft_tunnels == WEFT_TUNNEL_ENGINE && hook == WEFT_FROM_UPLINK && p->udp &&
               ((__be16 *) l4)[1] == weft_header.port;
}

static __always_inline int to_decap(struct __sk_buff *ctx, __u32 hook)
{
        struct weft_pkt *pkt = begin(ctx, hook);

        if (!pkt)
                return WEFT_TCX_NEXT;
        weft_tail_call(ctx, WEFT_SLOT_DECAP);
        return BROKEN(ctx, pkt);
}

static __always_inline int entry4(struct __sk_buff *ctx, __u32 hook, struct short_packet *p)
{
        struct iphdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP4_MIN;
        struct weft_flow4 *flow;
        struct weft_key4 key;
        struct weft_pkt *pkt;
        int r;

        if (l4 + WEFT_UDP_LEN > p->end || *(__u8 *) ip != 0x45 ||
            ip->frag_off & (WEFT_FRAG_MORE | WEFT_FRAG_OFFSET) || !read_l4(p, ip->protocol, l4))
                return to_parse(ctx, hook);
        p->headers = WEFT_IP4_MIN + (p->udp ? WEFT_UDP_LEN : (((__u8 *) l4)[12] >> 2 & 0x3c));
        p->hop_limit = ip->ttl;
        if (may_be_tunnelled(hook, p, l4))
                return to_decap(ctx, hook);
        key = (struct weft_key4) { .saddr = ip->saddr,
                                   .daddr = ip->daddr,
                                   .sport = ((__be16 *) l4)[0],
                                   .dport = ((__be16 *) l4)[1],
                                   .proto = p->udp ? IPPROTO_UDP : IPPROTO_TCP,
                                   .side = SIDE_OF(hook) };
        count_lookup();
        flow = bpf_map_lookup_elem(&flows4, &key);
        if (flow) {
                if (hook == WEFT_FROM_ENDPOINT && flow->f.ifindex != ctx->ifindex)
                        r = SLOW;
                else
                        r = IS_EXIT(hook) ? exit4(ctx, hook, flow, &key, p)
                                          : short4(ctx, hook, flow, &key, p);
                if (r != SLOW)
                        return r;
        } else if (!may_be_ours(hook, weft_filter_bit4(key.daddr, 0, 0),
                                weft_filter_bit4(key.daddr, key.dport, key.proto),
                                weft_filter_bit4(key.saddr, 0, 0), weft_filter_net4(key.daddr),
                                key.sport)) {
                return WEFT_TCX_NEXT;
        }
        pkt = begin(ctx, hook);
        if (!pkt)
                return WEFT_TCX_NEXT;
        pkt->key.src = weft_map_ip4(key.saddr);
        pkt->key.dst = weft_map_ip4(key.daddr);
        pkt->key.sport = key.sport;
        pkt->key.dport = key.dport;
        pkt->key.proto = key.proto;
        pkt->key.family = 4;
        pkt->absent = !flow;
        p->headers = WEFT_IP4_MIN;
        return to_miss(ctx, pkt, p);
}

static __always_inline int entry6(struct __sk_buff *ctx, __u32 hook, struct short_packet *p)
{
        struct ipv6hdr *ip = p->data + ETH_HLEN;
        void *l4 = p->data + ETH_HLEN + WEFT_IP6_LEN;
        struct weft_flow6 *flow;
        struct weft_key6 key;
        struct weft_pkt *pkt;
        int r;

        if (l4 + WEFT_UDP_LEN > p->end || *(__u8 *) ip >> 4 != 6 || !read_l4(p, ip->nexthdr, l4))
                return to_parse(ctx, hook);
        p->headers = WEFT_IP6_LEN + (p->udp ? WEFT_UDP_LEN : (((__u8 *) l4)[12] >> 2 & 0x3c));
        p->hop_limit = ip->hop_limit;
        if (may_be_tunnelled(hook, p, l4))
                return to_decap(ctx, hook);
        key = (struct weft_key6) { .sport = ((__be16 *) l4)[0],
                                   .dport = ((__be16 *) l4)[1],
                                   .proto = p->udp ? IPPROTO_UDP : IPPROTO_TCP,
                                   .side = SIDE_OF(hook) };
        __builtin_memcpy(&key.saddr, &ip->saddr, 32);
        count_lookup();
        flow = bpf_map_lookup_elem(&flows6, &key);
        if (flow) {
                if (hook == WEFT_FROM_ENDPOINT && flow->f.ifindex != ctx->ifindex)
                        r = SLOW;
                else
                        r = IS_EXIT(hook) ? exit6(ctx, hook, flow, &key, p)
                                          : short6(ctx, hook, flow, &key, p);
                if (r != SLOW)
                        return r;
        } else if (!may_be_ours(hook, weft_filter_bit6(key.daddr.w, 0, 0),
                                weft_filter_bit6(key.daddr.w, key.dport, key.proto),
                                weft_filter_bit6(key.saddr.w, 0, 0), weft_filter_net6(key.daddr.w),
                                key.sport)) {
                return WEFT_TCX_NEXT;
        }
        pkt = begin(ctx, hook);
        if (!pkt)
                return WEFT_TCX_NEXT;
        pkt->key.src = key.saddr;
        pkt->key.dst = key.daddr;
        pkt->key.sport = key.sport;
        pkt->key.dport = key.dport;
        pkt->key.proto = key.proto;
        pkt->key.family = 6;
        pkt->absent = !flow;
        p->headers = WEFT_IP6_LEN;
        return to_miss(ctx, pkt, p);
}

static __always_inline int entry(struct __sk_buff *ctx, __u32 hook)
{
        struct short_packet p = { .data = (void *) (long) ctx->data,
                                  .end = (void *) (long) ctx->data_end,
                                  .len = ctx->len - ETH_HLEN };
        __be32 protocol = ctx->protocol;

        if (IS_EXIT(hook) && ctx->mark & weft_mark) {
                ctx->mark &= ~weft_mark;
                return WEFT_TCX_NEXT;
        }
        if (hook == WEFT_TO_ENDPOINT && !weft_has_stages[hook] && !weft_serves[WEFT_FROM_ENDPOINT])
                return WEFT_TCX_NEXT;
        if (ctx->vlan_present ||
            (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6)))
                return WEFT_TCX_NEXT;
        /* not addressed to this interface: nothing of ours, but a source is checked all the same */
        if (!IS_EXIT(hook) && ctx->pkt_type != PACKET_HOST)
                return hook == WEFT_FROM_UPLINK ? WEFT_TCX_NEXT : to_parse(ctx, hook);
        p.epoch = epoch_now();
        p.now = bpf_jiffies64();
        return protocol == bpf_htons(ETH_P_IP) ? entry4(ctx, hook, &p) : entry6(ctx, hook, &p);
}

SEC("tc") int weft_from_uplink(struct __sk_buff *ctx)
{
        return entry(ctx, WEFT_FROM_UPLINK);
}

SEC("tc") int weft_from_endpoint(struct __sk_buff *ctx)
{
        return entry(ctx, WEFT_FROM_ENDPOINT);
}

SEC("tc") int weft_to_uplink(struct __sk_buff *ctx)
{
        return entry(ctx, WEFT_TO_UPLINK);
}

SEC("tc") int weft_to_endpoint(struct __sk_buff *ctx)
{
        return entry(ctx, WEFT_TO_ENDPOINT);
}
