/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The long path: what a packet means to its flow (TCP state, expiry, a decision gone stale), and
 * for a packet of no flow, the start of the chain. weft_miss begins it, weft_finish ends the chain.
 */

#include "parse.h"

/* ---- the life of a flow ------------------------------------------------------------------- */

/* Datagrams of DSR tell, or are told, one by one. */
static __always_inline __u8 watch_of(const struct weft_flow *f, __u8 proto)
{
        return proto == IPPROTO_TCP                    ? WEFT_TCP_FIN | WEFT_TCP_SYN | WEFT_TCP_RST
               : f->dsr || f->flags & WEFT_FLOW_DIRECT ? WEFT_WATCH_ALL
                                                       : 0;
}

static __always_inline void establish(struct weft_flow *f, __u8 proto, __u64 now)
{
        f->state = WEFT_ESTABLISHED;
        f->watch = watch_of(f, proto);
        set_life(f, now, proto == IPPROTO_TCP ? LIFE_TCP : LIFE_OTHER);
}

static __always_inline void close_flow(struct weft_flow *f, __u64 now)
{
        f->state = WEFT_CLOSING;
        set_life(f, now, f->flags & WEFT_FLOW_PORT ? LIFE_CLOSED_PORT : LIFE_CLOSED);
}

/* Has this packet shown that the flow is wanted by both? A TCP opener must have been answered and
 * answer back, so that a SYN with a borrowed source stays half open; of an endpoint, whose source
 * is checked, its own word is enough where no port hangs on it. */
static __always_inline int is_agreed(const struct weft_pkt *pkt, const struct weft_flow *f,
                                     const struct weft_flow *partner)
{
        /* no answer comes by here: who was told of and speaks again means it */
        if (f->dsr)
                return !(f->flags & WEFT_FLOW_TELL) && !(pkt->tcp_flags & WEFT_TCP_SYN);
        if (pkt->key.proto != IPPROTO_TCP)
                return is_reply(f);
        if (is_reply(f) || pkt->tcp_flags & WEFT_TCP_SYN)
                return 0;
        return partner->packets || (pkt->hook == WEFT_FROM_ENDPOINT && !f->set);
}

static __always_inline void learn(const struct weft_pkt *pkt, struct weft_flow *f,
                                  struct weft_flow *partner)
{
        if (f->state == WEFT_NEW && is_agreed(pkt, f, partner)) {
                establish(f, pkt->key.proto, pkt->now);
                establish(partner, pkt->key.proto, pkt->now);
        }
        if (pkt->tcp_flags & WEFT_TCP_FIN)
                f->flags |= WEFT_FLOW_FIN;
        if (pkt->tcp_flags & WEFT_TCP_RST || (f->flags & partner->flags & WEFT_FLOW_FIN)) {
                if (f->state != WEFT_CLOSING)
                        count_closed(f->backend);
                close_flow(f, pkt->now);
                close_flow(partner, pkt->now);
        } else if (f->dsr && pkt->tcp_flags & WEFT_TCP_FIN) {
                if (f->state != WEFT_CLOSING)
                        count_closed(f->backend);
                f->state = partner->state = WEFT_CLOSING;
                set_life(f, pkt->now, LIFE_HALF_SEEN);
                set_life(partner, pkt->now, LIFE_HALF_SEEN);
        }
}

/* ---- an entry was found ------------------------------------------------------------------- */

enum fate {
        FATE_ABSENT,  /* as if there were none: start anew */
        FATE_CURRENT, /* replay what pkt->act now says */
        FATE_KNOWN,   /* decide the way again */
        FATE_EXIT,    /* second half at an exit hook */
        FATE_SPOOFED,
        FATE_RESET,  /* its backend is gone */
        FATE_LOST,   /* its peer is gone */
        FATE_FOREIGN /* not of this flow after all: the stack's */
};

/* Is the backend's node to be told by this packet? With TCP by the SYN, and by the first packet
 * that it can have got. */
static __always_inline int must_tell(const struct weft_pkt *pkt, const struct weft_flow *f)
{
        return pkt->fragment != 2 &&
               (pkt->key.proto != IPPROTO_TCP || f->flags & WEFT_FLOW_TELL ||
                (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) == WEFT_TCP_SYN);
}

static __always_inline void act_from_flow(struct weft_pkt *pkt, const struct weft_flow *f,
                                          const struct weft_tuple *new)
{
        pkt->act.src = new->src;
        pkt->act.dst = new->dst;
        pkt->act.sport = new->sport;
        pkt->act.dport = new->dport;
        pkt->act.addr_delta = f->addr_delta;
        pkt->act.l4_delta = f->l4_delta;
        pkt->act.set = f->set;
        pkt->act.neighbour = 0;
        pkt->act.n_options = 0;
        pkt->act.tunnel.word = weft_tunnels ? READ_ONCE(f->tunnel.word) : 0;
        pkt->act.to_endpoint = f->partner_side == WEFT_SIDE_INSIDE && f->ifindex != WEFT_HOST;
        pkt->act.tell = must_tell(pkt, f) ? f->dsr : WEFT_DSR_NONE;
        pkt->act.route.word = READ_ONCE(f->route.word);
}

/* The durable part of a flow becomes the plan that the chain is given. */
static __always_inline void plan_from_flow(struct weft_pkt *pkt, const struct weft_flow *f,
                                           const struct weft_tuple *new)
{
        const struct weft_endpoint *e = weft_endpoint_of(&new->dst);

        __builtin_memset(&pkt->plan, 0, sizeof(pkt->plan));
        pkt->plan.src = new->src;
        pkt->plan.dst = new->dst;
        pkt->plan.sport = new->sport;
        pkt->plan.dport = new->dport;
        pkt->plan.set = f->set;
        pkt->plan.flags = (f->flags & WEFT_FLOW_WHOLE ? WEFT_PLAN_WHOLE : 0) |
                          (f->partner_side == WEFT_SIDE_UPLINK ? WEFT_PLAN_PLAIN : 0);
        pkt->plan.backend = f->backend;
        pkt->plan.backend_number = f->backend_number;
        pkt->plan.module = f->module;
        pkt->plan.dsr = f->dsr;
        pkt->plan.endpoint = e ? e->ifindex : 0;
        pkt->plan.nexthop = e ? e->nexthop : 0;
}

static __always_inline int backend_is_same(const struct weft_flow *f)
{
        __u32 index = f->backend;
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);

        return b && b->number == f->backend_number;
}

/* Does the node still exist that the flow's packets are carried to? */
static __always_inline int peer_is_same(const struct weft_flow *f)
{
        union weft_tunnel tunnel = { .word = READ_ONCE(f->tunnel.word) };
        struct weft_remote *r;

        if (!tunnel.remote)
                return 1;
        r = remote_at(tunnel.remote);
        return r && remote_is_same(r, tunnel);
}

static __always_inline int way_is_current(const struct weft_pkt *pkt, const struct weft_flow *f)
{
        struct hop hop;

        if (READ_ONCE(f->epoch) != pkt->epoch)
                return 0;
        if (is_tunnel(pkt->act.route.delivery))
                return remote_is_current(pkt->act.tunnel, pkt->epoch, pkt->now);
        return !is_redirect(pkt->act.route.delivery) || read_hop(pkt->act.route, pkt->now, &hop);
}

static __always_inline void forget(__u8 family, const struct weft_pkt *pkt,
                                   const struct weft_tuple *other, const struct weft_flow *partner)
{
        flow_delete(family, &pkt->key);
        if (partner)
                flow_delete(family, other);
}

/* Is there a pair that this packet belongs to? An entry past its deadline lives as long as its
 * partner does; a SYN on a closing flow is the next connection of the same ports. */
static __always_inline int is_alive(const struct weft_pkt *pkt, const struct weft_flow *f,
                                    const struct weft_flow *partner)
{
        if (!partner || (past(f->deadline, pkt->now) && past(partner->deadline, pkt->now)))
                return 0;
        if (f->state == WEFT_CLOSING &&
            (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) == WEFT_TCP_SYN) {
                weft_event(WEFT_EVENT_REOPENED);
                return 0;
        }
        return 1;
}

/* Does the packet say something else about its service than the flow it would be of? What is
 * established with TCP goes on: to tell the two apart is up to their ends. */
static __always_inline int tells_otherwise(__u8 family, const struct weft_pkt *pkt,
                                           const struct weft_flow *f,
                                           const struct weft_tuple *other,
                                           const struct weft_flow *partner)
{
        int told = !!pkt->told.given;
        struct weft_tuple known;

        if (!weft_takes_dsr || !partner || is_reply(f) || pkt->fragment == 2 ||
            (!told && !(f->flags & WEFT_FLOW_DIRECT)))
                return 0;
        if (pkt->key.proto == IPPROTO_TCP &&
            (f->state == WEFT_ESTABLISHED ||
             (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) != WEFT_TCP_SYN))
                return 0;
        flow_new_tuple(family, partner, other, &known);
        return told != !!(f->flags & WEFT_FLOW_DIRECT) || known.sport != pkt->told.port ||
               !weft_same_addr(&known.src, &pkt->told.addr) ||
               known.dport != (pkt->told.client_port ?: pkt->key.sport);
}

/* The identifier 0 makes a request's tuple and its reply's the same; the direction tells them
 * apart. */
static __always_inline int is_of_flow(const struct weft_pkt *pkt, const struct weft_flow *f)
{
        if ((pkt->key.proto != IPPROTO_ICMP && pkt->key.proto != IPPROTO_ICMPV6) ||
            pkt->fragment == 2)
                return 1;
        return is_echo(pkt->icmp_type) != is_reply(f);
}

static __always_inline enum fate examine(__u8 family, struct weft_pkt *pkt, struct weft_flow *f)
{
        struct weft_tuple new, other;
        struct weft_flow *partner;

        if (!is_of_flow(pkt, f))
                return FATE_FOREIGN;
        flow_new_tuple(family, f, &pkt->key, &new);
        act_from_flow(pkt, f, &new);
        if (pkt->host && f->ifindex != WEFT_HOST)
                return FATE_EXIT;
        if (pkt->hook == WEFT_FROM_ENDPOINT && f->ifindex != pkt->ifindex && !source_is_right(pkt))
                return FATE_SPOOFED;
        partner_tuple(f, &pkt->key, &new, &other);
        partner = flow_of(family, &other);
        if (!is_alive(pkt, f, partner) || tells_otherwise(family, pkt, f, &other, partner) ||
            (pkt->hook == WEFT_FROM_ENDPOINT && f->ifindex != pkt->ifindex)) {
                forget(family, pkt, &other, partner);
                return FATE_ABSENT;
        }
        if (!backend_is_same(f)) {
                forget(family, pkt, &other, partner);
                return pkt->tcp_flags && !(pkt->tcp_flags & WEFT_TCP_SYN) ? FATE_RESET
                                                                          : FATE_ABSENT;
        }
        if (weft_tunnels && !peer_is_same(f)) {
                forget(family, pkt, &other, partner);
                return (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) == WEFT_TCP_SYN
                               ? FATE_ABSENT
                               : FATE_LOST;
        }
        if (pkt->fragment != 2)
                learn(pkt, f, partner);
        account(f, pkt->now, pkt->len);
        if ((pkt->host && !(weft_tunnels && pkt->hook == WEFT_TO_UPLINK)) || way_is_current(pkt, f))
                return FATE_CURRENT;
        plan_from_flow(pkt, f, &new);
        return FATE_KNOWN;
}

/* ---- no entry: start ---------------------------------------------------------------------- */

static __always_inline void to_first(struct __sk_buff *ctx, __u32 hook)
{
        switch (hook) {
        case WEFT_FROM_ENDPOINT:
                weft_tail_call(ctx, weft_first[WEFT_FROM_ENDPOINT]);
                break;
        case WEFT_TO_ENDPOINT:
                weft_tail_call(ctx, weft_first[WEFT_TO_ENDPOINT]);
                break;
        case WEFT_FROM_UPLINK:
                weft_tail_call(ctx, weft_first[WEFT_FROM_UPLINK]);
                break;
        case WEFT_TO_UPLINK:
                weft_tail_call(ctx, weft_first[WEFT_TO_UPLINK]);
                break;
        case WEFT_FROM_OVERLAY:
                weft_tail_call(ctx, weft_first[WEFT_FROM_OVERLAY]);
                break;
        }
}

static __always_inline void to_first_known(struct __sk_buff *ctx, __u32 hook)
{
        switch (hook) {
        case WEFT_FROM_ENDPOINT:
                weft_tail_call(ctx, weft_first_known[WEFT_FROM_ENDPOINT]);
                break;
        case WEFT_TO_ENDPOINT:
                weft_tail_call(ctx, weft_first_known[WEFT_TO_ENDPOINT]);
                break;
        case WEFT_FROM_UPLINK:
                weft_tail_call(ctx, weft_first_known[WEFT_FROM_UPLINK]);
                break;
        case WEFT_TO_UPLINK:
                weft_tail_call(ctx, weft_first_known[WEFT_TO_UPLINK]);
                break;
        case WEFT_FROM_OVERLAY:
                weft_tail_call(ctx, weft_first_known[WEFT_FROM_OVERLAY]);
                break;
        }
}

/* Does a module look after services where the packet came in? */
static __always_inline int serves_here(const struct weft_pkt *pkt)
{
        switch (pkt->hook) {
        case WEFT_FROM_ENDPOINT:
                return weft_serves[WEFT_FROM_ENDPOINT];
        case WEFT_FROM_UPLINK:
                return weft_serves[WEFT_FROM_UPLINK];
        case WEFT_FROM_OVERLAY:
                return weft_serves[WEFT_FROM_OVERLAY];
        default:
                return 0;
        }
}

/* An endpoint that speaks to a node port of another node is served here. */
static __always_inline int is_peers_node_port(const struct weft_pkt *pkt)
{
        struct weft_peer_key key = { .prefixlen = 128, .addr = pkt->key.dst };
        struct weft_peer *p;

        if (pkt->hook != WEFT_FROM_ENDPOINT)
                return 0;
        p = bpf_map_lookup_elem(&peers, &key);
        return p && p->flags & WEFT_PEER_NODE;
}

/* Fills pkt->service and service_addr. Where no module serves endpoints, a cluster-ip is none of
 * weft's. */
static __always_inline void find_service(struct weft_pkt *pkt)
{
        struct weft_service_key key = { .addr = pkt->key.dst,
                                        .port = pkt->key.dport,
                                        .proto = pkt->key.proto };
        struct weft_service *s;

        __builtin_memset(&pkt->service, 0, sizeof(pkt->service));
        pkt->service_addr = 0;
        if (!serves_here(pkt))
                return;
        if (is_peers_node_port(pkt))
                key.addr = pkt->key.family == 4 ? weft_map_ip4(0) : (struct weft_addr) {};
        s = bpf_map_lookup_elem(&services, &key);
        if (!s) {
                key.port = 0;
                key.proto = 0;
                s = bpf_map_lookup_elem(&services, &key);
        }
        if (!s || (s->flags & WEFT_SERVICE_CLUSTER_IP && !weft_serves[WEFT_FROM_ENDPOINT]))
                return;
        pkt->service = *s;
        pkt->service_addr = !!(s->flags & WEFT_SERVICE_ADDRESS);
}

/* A cluster-ip that somebody outside speaks to. */
static __always_inline int is_inside_only(const struct weft_pkt *pkt)
{
        return pkt->hook != WEFT_FROM_ENDPOINT && pkt->service.flags & WEFT_SERVICE_CLUSTER_IP;
}

static __always_inline void plan_from_packet(struct weft_pkt *pkt, const struct weft_endpoint *e)
{
        __builtin_memset(&pkt->plan, 0, sizeof(pkt->plan));
        pkt->plan.src = pkt->key.src;
        pkt->plan.dst = pkt->key.dst;
        pkt->plan.sport = pkt->key.sport;
        pkt->plan.dport = pkt->key.dport;
        pkt->plan.endpoint = e ? e->ifindex : 0;
        pkt->plan.nexthop = e ? e->nexthop : 0;
}

/* What the stack sends to the pods of a peer behind the tunnel: the node's own packets, and those
 * that it forwards for others. */
static __always_inline int goes_to_remote_pod(const struct weft_pkt *pkt)
{
        const struct weft_peer *peer = weft_peer_of(&pkt->key.dst);

        return peer && peer->flags & WEFT_PEER_TUNNEL && !(peer->flags & WEFT_PEER_NODE);
}

static __always_inline int start_remote(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        if (pkt->fragment == 1)
                remember_fragment(pkt);
        plan_from_packet(pkt, NULL);
        to_first(ctx, WEFT_TO_UPLINK);
        return BROKEN(ctx, pkt);
}

/* The node's own connection from a port that modules give out as well: stored, so that neither
 * takes the other's tuple; if it comes second, it gets another port. The packets of the node's own
 * tunnel are left alone. */
static __always_inline int start_own(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        const struct weft_addr *own = weft_node_address(pkt, pkt->ifindex);

        if (weft_tunnels && goes_to_remote_pod(pkt))
                return start_remote(ctx, pkt);
        if (weft_tunnels && pkt->key.proto == IPPROTO_UDP && pkt->key.dport == weft_header.port)
                return WEFT_TCX_NEXT;
        if (!is_shared_port(pkt->key.sport) || !own || !weft_same_addr(own, &pkt->key.src) ||
            pkt->fragment == 2)
                return WEFT_TCX_NEXT;
        plan_from_packet(pkt, NULL);
        pkt->plan.set = WEFT_SET_SRC;
        pkt->plan.flags = WEFT_PLAN_NEW_PORT | WEFT_PLAN_TRACK;
        pkt->plan.low = weft_given_low;
        pkt->plan.high = weft_given_high;
        pkt->act.route = (union weft_route) { .exit = 1 };
        pkt->act.tunnel.word = 0;
        weft_tail_call(ctx, WEFT_SLOT_COMMIT);
        return BROKEN(ctx, pkt);
}

static __always_inline int is_echo_reply(const struct weft_pkt *pkt)
{
        return (pkt->key.proto == IPPROTO_ICMP || pkt->key.proto == IPPROTO_ICMPV6) &&
               !is_echo(pkt->icmp_type);
}

static __always_inline int start(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        const struct weft_endpoint *e;

        if (!pkt->host && concerns_link_only(ctx, pkt))
                return WEFT_TCX_NEXT;
        if (!source_is_right(pkt))
                return DROP(ctx, pkt, SPOOFED);
        if (pkt->hook == WEFT_TO_UPLINK)
                return start_own(ctx, pkt);
        if (is_unguarded(pkt))
                return WEFT_TCX_NEXT;
        e = weft_endpoint_of(&pkt->key.dst);
        find_service(pkt);
        if (is_inside_only(pkt))
                return DROP(ctx, pkt, SERVICE_INSIDE);
        if (pkt->hook != WEFT_FROM_ENDPOINT && !pkt->host && !e && !pkt->service.id &&
            !pkt->service_addr)
                return WEFT_TCX_NEXT;
        /* an answer to nothing that is known opens nothing */
        if (is_echo_reply(pkt))
                return WEFT_TCX_NEXT;
        if (pkt->fragment == 1)
                remember_fragment(pkt);
        plan_from_packet(pkt, e);
        weft_event(WEFT_EVENT_MISS);
        to_first(ctx, pkt->hook);
        return BROKEN(ctx, pkt);
}

/* The word of DSR that came with a tunnel's header, for an endpoint of this node. Options that weft
 * does not know are left out of account. */
static __always_inline void hear_tunnel(__u8 family, struct weft_pkt *pkt)
{
        if (!weft_endpoint_of(&pkt->key.dst))
                return;
        if (family == 4) {
                const struct weft_dsr_geneve4 *o = (const void *) pkt->options;

                if (pkt->n_options < sizeof(*o) || o->class != bpf_htons(WEFT_DSR_CLASS) ||
                    o->type != WEFT_DSR_TYPE || o->words != 2)
                        return;
                pkt->told = (struct weft_told) { .addr = weft_map_ip4(o->addr),
                                                 .port = o->port,
                                                 .client_port = o->client_port,
                                                 .given = sizeof(*o) };
        } else {
                const struct weft_dsr_geneve6 *o = (const void *) pkt->options;

                if (pkt->n_options < sizeof(*o) || o->class != bpf_htons(WEFT_DSR_CLASS) ||
                    o->type != WEFT_DSR_TYPE || o->words != 5)
                        return;
                pkt->told = (struct weft_told) { .addr = o->addr,
                                                 .port = o->port,
                                                 .client_port = o->client_port,
                                                 .given = sizeof(*o) };
        }
}

static __always_inline int miss(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        enum fate fate = FATE_ABSENT;
        struct weft_flow *f;

        pkt->known = 0;
        pkt->exit_done = 0;
        pkt->retried = 0;
        pkt->way.asked = 0;
        pkt->act.neighbour = 0;
        pkt->act.n_options = 0;
        if (weft_takes_dsr && pkt->hook == WEFT_FROM_OVERLAY && pkt->n_options)
                hear_tunnel(family, pkt);
        f = pkt->absent ? NULL : flow_of(family, &pkt->key);
        if (f)
                fate = examine(family, pkt, f);
        if (fate != FATE_ABSENT && pkt->fragment == 1)
                remember_fragment(pkt);
        switch (fate) {
        case FATE_ABSENT:
                return start(ctx, pkt);
        case FATE_SPOOFED:
                return DROP(ctx, pkt, SPOOFED);
        case FATE_FOREIGN:
                return WEFT_TCX_NEXT;
        case FATE_RESET:
                return weft_verdict_drop(ctx, pkt, WEFT_REJECT(BACKEND_GONE), 0);
        case FATE_LOST:
                return weft_verdict_drop(ctx, pkt, WEFT_REJECT(PEER_GONE), 0);
        case FATE_KNOWN:
                pkt->known = 1;
                weft_event(WEFT_EVENT_AGAIN);
                to_first_known(ctx, pkt->hook);
                break;
        default:
                weft_tail_call(ctx, WEFT_SLOT_REPLAY);
        }
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_miss(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(miss, ctx, pkt) : WEFT_TCX_NEXT;
}

/* ---- the end of the chain ----------------------------------------------------------------- */

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
