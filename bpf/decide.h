/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The long path: what a packet means to its flow (TCP state, expiry, a decision gone stale), and
 * for a packet of no flow, the start of the chain. weft_miss is all of it. */

#include "parse.h"

/* ---- the life of a flow ------------------------------------------------------------------- */

/* Datagrams of DSR tell, or are told, one by one. */
static __always_inline __u8 watch_of(const struct weft_flow *f, __u8 proto)
{
        if (proto == IPPROTO_TCP)
                return WEFT_TCP_FIN | WEFT_TCP_SYN | WEFT_TCP_RST;
        return f->dsr == WEFT_DSR_OPTION || f->flags & WEFT_FLOW_DIRECT ? WEFT_WATCH_ALL : 0;
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

/* Who has the last word? After two FINs whoever sent the first; of a reset nobody. */
static __always_inline void note_last(const struct weft_pkt *pkt, struct weft_flow *f,
                                      struct weft_flow *partner)
{
        if (pkt->tcp_flags & WEFT_TCP_RST) {
                f->flags &= ~WEFT_FLOW_LAST;
                partner->flags &= ~WEFT_FLOW_LAST;
        } else if (f->state != WEFT_CLOSING) {
                partner->flags |= WEFT_FLOW_LAST;
                partner->at_fin = partner->packets;
        }
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
                note_last(pkt, f, partner);
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
        return f->dsr == WEFT_DSR_OPTION && pkt->fragment != 2 &&
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

/* Where a flow goes whose packets bear the service's address all the way. */
static __always_inline void plan_backend_of_flow(struct weft_pkt *pkt, const struct weft_flow *f)
{
        __u32 index = f->backend;
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);

        if (f->dsr == WEFT_DSR_IPIP && b)
                pkt->plan.dst = b->addr;
}

/* The durable part of a flow becomes the plan that the chain is given. */
static __always_inline void plan_from_flow(struct weft_pkt *pkt, const struct weft_flow *f,
                                           const struct weft_tuple *new)
{
        const struct weft_endpoint *e =
                weft_endpoint_of(pkt->wrapped && !f->set ? &pkt->wrapped_to : &new->dst);

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
        if (weft_tunnels == WEFT_TUNNEL_WRAP)
                plan_backend_of_flow(pkt, f);
}

/* Does the flow go a way that this generation's programs know? */
static __always_inline int way_is_known(const struct weft_flow *f)
{
        return f->dsr != WEFT_DSR_IPIP || weft_tunnels == WEFT_TUNNEL_WRAP;
}

static __always_inline int backend_is_same(const struct weft_flow *f)
{
        __u32 index = f->backend;
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &index);

        return b && b->number == f->backend_number;
}

/* Is the node still there that the flow's packets are carried to? */
static __always_inline int peer_is_same(const struct weft_flow *f)
{
        union weft_tunnel tunnel = { .word = READ_ONCE(f->tunnel.word) };
        struct weft_remote *r;

        if (!tunnel.remote)
                return 1;
        r = remote_at(tunnel.remote);
        return r && remote_is_same(r, tunnel);
}

/* Is the address one of a peer's that is reached through a tunnel? It may have come to be another
 * node's. */
static __always_inline int is_behind_tunnel(const struct weft_addr *a)
{
        const struct weft_peer *peer = weft_peer_of(a);

        return peer && peer->flags & WEFT_PEER_TUNNEL;
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
        int same;

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
        if (!is_alive(pkt, f, partner) || !way_is_known(f) ||
            tells_otherwise(family, pkt, f, &other, partner) ||
            (pkt->hook == WEFT_FROM_ENDPOINT && f->ifindex != pkt->ifindex)) {
                forget(family, pkt, &other, partner);
                return FATE_ABSENT;
        }
        if (!backend_is_same(f)) {
                forget(family, pkt, &other, partner);
                return pkt->tcp_flags && !(pkt->tcp_flags & WEFT_TCP_SYN) ? FATE_RESET
                                                                          : FATE_ABSENT;
        }
        same = !has_overlay() || peer_is_same(f);
        if (!same && !is_behind_tunnel(&new.dst)) {
                forget(family, pkt, &other, partner);
                return (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) == WEFT_TCP_SYN
                               ? FATE_ABSENT
                               : FATE_LOST;
        }
        if (pkt->fragment != 2)
                learn(pkt, f, partner);
        account(f, pkt->now, pkt->len);
        if (same && ((pkt->host && !(has_overlay() && pkt->hook == WEFT_TO_UPLINK)) ||
                     way_is_current(pkt, f)))
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

/* The address under which the node ports of all nodes stand. */
static __always_inline struct weft_addr any_node(const struct weft_pkt *pkt)
{
        return pkt->key.family == 4 ? weft_map_ip4(0) : (struct weft_addr) {};
}

/* Fills pkt->service and service_addr. What was wrapped may be for a node port of the node that did
 * it. Where no module serves endpoints, a cluster-ip is none of weft's. */
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
                key.addr = any_node(pkt);
        s = bpf_map_lookup_elem(&services, &key);
        if (!s && pkt->wrapped) {
                key.addr = any_node(pkt);
                s = bpf_map_lookup_elem(&services, &key);
        }
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

        if (has_overlay() && goes_to_remote_pod(pkt))
                return start_remote(ctx, pkt);
        if (has_overlay() && pkt->key.proto == IPPROTO_UDP && pkt->key.dport == weft_header.port)
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

/* Addresses that are no destination on a wire: "this network" (RFC 1122 §3.2.1.3), none at all, and
 * IPv4's where weft keeps it among those of IPv6 (RFC 4291 §2.5.5.2). The routing lookup does not
 * ask. */
static __always_inline int is_nowhere(const struct weft_tuple *t)
{
        return t->family == 4
                       ? !(t->dst.w[3] & bpf_htonl(0xff000000))
                       : is_unspecified(&t->dst) || weft_is_ip4(&t->dst) || weft_is_ip4(&t->src);
}

static __always_inline int start(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        const struct weft_endpoint *e;

        if (!pkt->host && concerns_link_only(ctx, pkt))
                return not_ours(ctx, pkt);
        if (!source_is_right(pkt))
                return DROP(ctx, pkt, SPOOFED);
        if (pkt->hook == WEFT_TO_UPLINK)
                return start_own(ctx, pkt);
        if (is_nowhere(&pkt->key))
                return pkt->hook == WEFT_FROM_ENDPOINT ? DROP(ctx, pkt, INVALID)
                                                       : not_ours(ctx, pkt);
        if (is_unguarded(pkt))
                return WEFT_TCX_NEXT;
        e = weft_endpoint_of(pkt->wrapped ? &pkt->wrapped_to : &pkt->key.dst);
        find_service(pkt);
        if (is_inside_only(pkt))
                return DROP(ctx, pkt, SERVICE_INSIDE);
        if (pkt->hook != WEFT_FROM_ENDPOINT && !pkt->host && !e && !pkt->service.id &&
            !pkt->service_addr)
                return WEFT_TCX_NEXT;
        if (pkt->fragment == 1)
                remember_fragment(pkt);
        /* an answer to nothing that is known opens nothing */
        if (is_echo_reply(pkt))
                return not_ours(ctx, pkt);
        plan_from_packet(pkt, e);
        weft_event(WEFT_EVENT_MISS);
        to_first(ctx, pkt->hook);
        return BROKEN(ctx, pkt);
}

/* The word of DSR that came with a tunnel's header, for an endpoint of this node. That it is there
 * as a whole was seen to when the options were looked at. */
static __always_inline void hear_tunnel(__u8 family, struct weft_pkt *pkt)
{
        __u32 at = pkt->word_at;

        if (!weft_endpoint_of(&pkt->key.dst))
                return;
        if (family == 4) {
                const struct weft_dsr_geneve4 *o = (const void *) (pkt->options + at);

                if (at > WEFT_TUNNEL_OPTIONS - sizeof(*o) || (o->words & 31) != 2)
                        return;
                pkt->told = (struct weft_told) { .addr = weft_map_ip4(o->addr),
                                                 .port = o->port,
                                                 .client_port = o->client_port,
                                                 .given = sizeof(*o) };
        } else {
                const struct weft_dsr_geneve6 *o = (const void *) (pkt->options + at);

                if (at > WEFT_TUNNEL_OPTIONS - sizeof(*o) || (o->words & 31) != 5)
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
                return without_flow(ctx, pkt);
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
