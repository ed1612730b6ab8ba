/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The end of the chain: how the flow is delivered, where nobody said, and the way there: route,
 * next hop, tunnel. weft_finish is all of it. */

#include "decide.h"

/* ---- delivery and next hop ----------------------------------------------------------------- */

/* Can the plan not be applied in two halves, with the stack between them? */
static __always_inline int is_whole(const struct weft_plan *plan)
{
        return plan->set == (WEFT_SET_SRC | WEFT_SET_DST) || plan->flags & WEFT_PLAN_WHOLE;
}

/* Who said nothing gets the stack, unless the plan goes only as a whole, or the flow is of no local
 * endpoint. */
static __always_inline __u8 choose_delivery(const struct weft_pkt *pkt)
{
        const struct weft_plan *plan = &pkt->plan;

        if (pkt->host)
                return WEFT_STACK;
        if (plan->delivery == WEFT_ENDPOINT && !plan->nexthop)
                return WEFT_STACK;
        if (plan->delivery != WEFT_STACK)
                return plan->delivery;
        if (plan->endpoint)
                return is_whole(plan) && plan->nexthop ? WEFT_ENDPOINT : WEFT_STACK;
        return pkt->hook != WEFT_FROM_ENDPOINT || is_whole(plan) ? WEFT_WIRE : WEFT_STACK;
}

static __always_inline __u32 nexthop_hash(const struct weft_way *way)
{
        __u32 h = way->ifindex * 0x9e3779b1u ^ way->gateway.w[3] * 0x85ebca6bu ^
                  way->gateway.w[2] * 0xc2b2ae35u ^ way->gateway.w[1] * 0x27d4eb2fu ^
                  way->gateway.w[0];

        return (h ^ h >> 15) * 0x2c1b3c6du;
}

/* Whoever reads 1 after adding 1 is alone; two who come at once may both go without. */
static __always_inline int try_lock(struct weft_nexthop *nh)
{
        __sync_fetch_and_add(&nh->claims, 1);
        if (READ_ONCE(nh->claims) == 1)
                return 1;
        __sync_fetch_and_add(&nh->claims, -1);
        return 0;
}

static __always_inline void write_addresses(struct weft_nexthop *nh, const struct weft_pkt *pkt)
{
        struct {
                __u8 dmac[6], smac[6];
        } __attribute__((aligned(8))) macs;

        if (pkt->way.result != BPF_FIB_LKUP_RET_SUCCESS)
                return;
        __builtin_memcpy(macs.dmac, pkt->way.dmac, 6);
        __builtin_memcpy(macs.smac, pkt->way.smac, 6);
        WRITE_ONCE(*(__u64 *) nh->dmac, *(__u64 *) macs.dmac);
        WRITE_ONCE(*(__u32 *) (nh->dmac + 8), *(__u32 *) (macs.dmac + 8));
        WRITE_ONCE(nh->fresh, pkt->now + NEXTHOP_FRESH * weft_hz);
}

/* A slot that is believed for some seconds goes through the kernel's neighbour layer once after
 * that, which confirms the neighbour and keeps it resolved, with or without a daemon. */
static __always_inline void use_slot(struct weft_nexthop *nh, struct weft_pkt *pkt)
{
        if (!past(READ_ONCE(nh->fresh), pkt->now))
                return;
        pkt->act.neighbour = 1;
        if (try_lock(nh)) {
                write_addresses(nh, pkt);
                __sync_fetch_and_add(&nh->claims, -1);
        }
}

static __always_inline int take_slot(struct weft_nexthop *nh, struct weft_pkt *pkt, __u32 flags)
{
        int mine;

        if (!try_lock(nh))
                return 0;
        mine = !READ_ONCE(nh->ifindex);
        if (mine) {
                nh->gateway = pkt->way.gateway;
                nh->flags = flags;
                nh->fresh = pkt->now - 1;
                write_addresses(nh, pkt);
                WRITE_ONCE(nh->ifindex, pkt->way.ifindex);
                pkt->act.neighbour = pkt->way.result != BPF_FIB_LKUP_RET_SUCCESS;
        }
        __sync_fetch_and_add(&nh->claims, -1);
        return mine;
}

/* Finds or takes the slot of pkt->way in the next-hop table. Without one the packets of the flow go
 * through the neighbour layer, each. */
static __always_inline void find_nexthop(struct weft_pkt *pkt, __u32 flags, union weft_route *route)
{
        __u32 first = WEFT_NEXTHOP_OWN +
                      ((__u64) nexthop_hash(&pkt->way) *
                               (WEFT_NEXTHOPS - WEFT_NEXTHOP_OWN - WEFT_NEXTHOP_PROBES) >>
                       32);

        for (__u32 i = 0; i < WEFT_NEXTHOP_PROBES; i++) {
                struct weft_nexthop *nh = nexthop_at(first + i);

                if (!nh)
                        break;
                if (nh->ifindex == pkt->way.ifindex &&
                    weft_same_addr(&nh->gateway, &pkt->way.gateway))
                        use_slot(nh, pkt);
                else if (nh->ifindex || !take_slot(nh, pkt, flags))
                        continue;
                route->nexthop = first + i;
                route->nexthop_number = nh->number;
                return;
        }
        pkt->act.neighbour = 1;
        weft_event(WEFT_EVENT_NEXTHOP_FULL);
}

/* What the routing table's refusals mean; 0: none of them. */
static __always_inline int refusal(int result)
{
        switch (result) {
        case BPF_FIB_LKUP_RET_SUCCESS:
        case BPF_FIB_LKUP_RET_NO_NEIGH:
        case BPF_FIB_LKUP_RET_NOT_FWDED: /* the node's own address, or no route */
                return 0;
        case BPF_FIB_LKUP_RET_BLACKHOLE:
        case BPF_FIB_LKUP_RET_UNREACHABLE:
        case BPF_FIB_LKUP_RET_PROHIBIT:
                return WEFT_DROP(UNREACHABLE);
        case BPF_FIB_LKUP_RET_FWD_DISABLED:
                return WEFT_DROP(FORWARDING_OFF);
        default:
                return WEFT_DROP(NO_ROUTE);
        }
}

/* Does the node have rules that choose by a mark? */
static __always_inline int marks_decide(const struct weft_pkt *pkt)
{
        __u32 zero = 0;
        struct weft_world *w = bpf_map_lookup_elem(&world, &zero);

        return w && w->flags & (pkt->key.family == 4 ? WEFT_WORLD_MARKS4 : WEFT_WORLD_MARKS6);
}

/* Finds the way out of the node. Returns 0, or the drop. Where the stack can take over (one half of
 * the plan is enough), it does: it can do what the lookup cannot. */
static __always_inline int resolve_wire(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                        union weft_route *route)
{
        int result = weft_route_of(ctx, pkt), no = refusal(result);
        int stack = pkt->hook == WEFT_FROM_ENDPOINT && !is_whole(&pkt->plan);
        __u32 ifindex = pkt->way.ifindex;
        struct weft_link *link;

        if (stack && result != BPF_FIB_LKUP_RET_NOT_FWDED && (no || marks_decide(pkt))) {
                weft_event(WEFT_EVENT_STACK_ROUTED);
                route->delivery = WEFT_STACK;
                return 0;
        }
        if (result == BPF_FIB_LKUP_RET_NOT_FWDED) {
                route->delivery = stack ? WEFT_STACK : WEFT_LOCAL;
                return 0;
        }
        if (no)
                return no;
        link = bpf_map_lookup_elem(&links, &ifindex);
        route->mtu = pkt->way.mtu ?: link ? link->mtu : 0;
        find_nexthop(pkt, link ? link->flags : 0, route);
        return 0;
}

/* ---- the way of a tunnel ------------------------------------------------------------------ */

/* What a tunnel puts before a packet on its way to a remote: the outer IP header, UDP, the tunnel's
 * header and the inner Ethernet header. */
static __always_inline __u32 tunnel_overhead(const struct weft_remote *r)
{
        return (weft_is_ip4(&r->node) ? WEFT_IP4_MIN : WEFT_IP6_LEN) + WEFT_UDP_LEN +
               WEFT_TUNNEL_HEADER + ETH_HLEN;
}

static __always_inline struct weft_overlay *overlay_now(void)
{
        __u32 index = weft_overlay_index;

        return bpf_map_lookup_elem(&overlays, &index);
}

/* Finds the way to a remote, for every flow that goes there; pkt->way is that of the outer packet
 * afterwards. Returns 0, or the drop. */
static __always_inline int find_remote(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                       struct weft_remote *r)
{
        struct bpf_fib_lookup fib = { .ifindex = pkt->ifindex,
                                      .l4_protocol = IPPROTO_UDP,
                                      .dport = weft_header.port };
        union weft_route route = { .delivery = WEFT_WIRE };
        int four = weft_is_ip4(&r->node);
        const struct weft_addr *local;
        struct weft_link *link;
        __u32 ifindex;
        int result;

        fib.family = four ? WEFT_AF_INET : WEFT_AF_INET6;
        if (four)
                fib.ipv4_dst = r->node.w[3];
        else
                __builtin_memcpy(fib.ipv6_dst, &r->node, 16);
        result = weft_ask_route(ctx, &pkt->way, &fib);
        if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
                return refusal(result) ?: WEFT_DROP(NO_ROUTE);
        ifindex = pkt->way.ifindex;
        link = bpf_map_lookup_elem(&links, &ifindex);
        if (!link)
                return WEFT_DROP(NO_ROUTE);
        local = four ? &link->addr4 : &link->addr6;
        if (!(local->w[0] | local->w[1] | local->w[2] | local->w[3]))
                return WEFT_DROP(NO_ADDRESS);
        route.mtu = pkt->way.mtu ?: link->mtu;
        find_nexthop(pkt, link->flags, &route);
        r->local = *local;
        WRITE_ONCE(r->route.word, route.word);
        barrier();
        WRITE_ONCE(r->epoch, pkt->epoch);
        return 0;
}

/* What of a packet of at most `mtu` bytes a tunnel carries. */
static __always_inline __u16 carried(__u32 mtu, __u32 overhead, const struct weft_overlay *o)
{
        mtu = mtu > overhead ? mtu - overhead : 1;
        return o && o->mtu && o->mtu < mtu ? o->mtu : mtu;
}

static __always_inline int resolve_tunnel(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                          union weft_route *route)
{
        struct weft_remote *r = remote_at(pkt->plan.tunnel.remote);
        const struct weft_overlay *o = overlay_now();
        int no;

        if (!r || !remote_is_same(r, pkt->plan.tunnel))
                return WEFT_DROP(PEER_GONE);
        if (weft_tunnels == WEFT_TUNNEL_DEVICE) {
                route->mtu = o ? o->mtu : 0;
                return 0;
        }
        if (!remote_is_current(pkt->plan.tunnel, pkt->epoch, pkt->now)) {
                no = find_remote(ctx, pkt, r);
                if (no)
                        return no;
        }
        route->mtu = carried(r->route.mtu, tunnel_overhead(r), o);
        return 0;
}

/* DSR by IPIP: the way that was found is the wrapped packet's. */
static __always_inline void wrap(struct weft_pkt *pkt, union weft_route *route)
{
        if (pkt->plan.dsr != WEFT_DSR_IPIP || route->delivery != WEFT_WIRE)
                return;
        route->delivery = WEFT_TUNNEL;
        if (route->mtu)
                route->mtu -= pkt->key.family == 4 ? WEFT_IP4_MIN : WEFT_IP6_LEN;
        pkt->act.tunnel.key = pkt->plan.backend;
        pkt->act.tunnel.remote = route->nexthop;
        pkt->act.tunnel.number = route->nexthop_number;
}

/* A flow whose answers come in without a tunnel goes without one, too. */
static __always_inline int takes_tunnel(const struct weft_plan *plan)
{
        return weft_tunnels && plan->tunnel.remote && !plan->endpoint &&
               !(plan->flags & WEFT_PLAN_PLAIN);
}

static __always_inline int resolve(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        union weft_route route = { .delivery = choose_delivery(pkt) };
        struct weft_nexthop *nh;
        int no = 0;

        pkt->act.tunnel.word = 0;
        if (route.delivery == WEFT_ENDPOINT) {
                nh = nexthop_at(pkt->plan.nexthop);
                if (!nh)
                        return WEFT_DROP(ENDPOINT_GONE);
                route.nexthop = pkt->plan.nexthop;
                route.nexthop_number = nh->number;
        } else if (takes_tunnel(&pkt->plan)) {
                if (route.delivery == WEFT_WIRE)
                        route.delivery = WEFT_TUNNEL;
                if (is_tunnel(route.delivery))
                        no = resolve_tunnel(ctx, pkt, &route);
                pkt->act.tunnel = pkt->plan.tunnel;
        } else if (route.delivery == WEFT_WIRE) {
                no = resolve_wire(ctx, pkt, &route);
                if (weft_tunnels == WEFT_TUNNEL_WRAP)
                        wrap(pkt, &route);
        }
        /* to a socket of the node there is no source half: it would arrive from the node's address
         */
        if (route.delivery == WEFT_LOCAL && pkt->plan.set & WEFT_SET_DST && !pkt->known) {
                pkt->plan.set &= ~WEFT_SET_SRC;
                pkt->plan.dsr = WEFT_DSR_NONE;
                pkt->plan.flags &= ~WEFT_PLAN_NEW_PORT;
                pkt->plan.src = pkt->key.src;
                pkt->plan.sport = pkt->key.sport;
        }
        route.exit = pkt->host || (route.delivery == WEFT_STACK && pkt->plan.set & WEFT_SET_SRC);
        pkt->act.route = route;
        return no;
}

/* The exit hook whose stages belong in this pass; WEFT_HOOKS: none. */
static __always_inline __u32 exit_hook(const struct weft_pkt *pkt)
{
        if (pkt->exit_done || pkt->host)
                return WEFT_HOOKS;
        if (pkt->plan.endpoint)
                return weft_has_stages[WEFT_TO_ENDPOINT] ? WEFT_TO_ENDPOINT : WEFT_HOOKS;
        return weft_has_stages[WEFT_TO_UPLINK] && pkt->act.route.delivery != WEFT_LOCAL
                       ? WEFT_TO_UPLINK
                       : WEFT_HOOKS;
}

SEC("tc") int weft_finish(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        __u32 exit;
        int no;

        if (!pkt)
                return WEFT_TCX_NEXT;
        if (!pkt->exit_done) {
                no = resolve(ctx, pkt);
                if (no)
                        return weft_verdict_drop(ctx, pkt, no, 0);
        }
        exit = exit_hook(pkt);
        if (exit != WEFT_HOOKS) {
                pkt->exit_done = 1;
                if (pkt->known)
                        to_first_known(ctx, exit);
                else
                        to_first(ctx, exit);
                return BROKEN(ctx, pkt);
        }
        if (!pkt->known && !pkt->plan.set && !weft_track && !(pkt->plan.flags & WEFT_PLAN_TRACK) &&
            pkt->act.route.delivery == WEFT_STACK && !pkt->act.tunnel.word)
                return to_stack(ctx, pkt->plan.endpoint != 0);
        weft_tail_call(ctx, WEFT_SLOT_COMMIT);
        return BROKEN(ctx, pkt);
}
