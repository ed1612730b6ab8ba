/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Commit: a finished plan becomes two entries. The reply's entry goes first, with BPF_NOEXIST: that
 * insert is the reservation of the source port. Then the entry of this direction, also NOEXIST: the
 * loser of a race between two CPUs gives its port back and replays the winner's. weft_replay
 * executes what is in pkt->act. */

#include "way.h"

#define PORT_TRIES 32 /* the sender's own port, then random ones, then in line */
#define PORT_RANDOM 16
#define PORT_CLOSED 24 /* from this try on, those of closed connections too */
#define TRIES_AT_ONCE                                                                              \
        2 /* in one run of weft_reserve: 16 runs, of the 33 tail calls that a packet has */
#define ROOM_TRIES 4 /* half-open flows looked at when the table is full */
#define EEXIST 17

/* ---- what stands in the way --------------------------------------------------------------- */

/* What became of one attempt to store a flow. */
enum reserved {
        RESERVED,
        RESERVED_SELF, /* another CPU is storing this very flow */
        RESERVED_FULL, /* no room in the table */
        RESERVED_BUSY, /* the tuple is taken */
        RESERVED_AGAIN /* whoever had it is gone: the same port once more */
};

/* Where the reply will be seen. */
static __always_inline __u8 reply_side(const struct weft_pkt *pkt)
{
        if (pkt->plan.endpoint || pkt->act.route.delivery == WEFT_LOCAL)
                return WEFT_SIDE_INSIDE;
        return has_overlay() && pkt->act.tunnel.word ? WEFT_SIDE_OVERLAY : WEFT_SIDE_UPLINK;
}

/* The tuple under which the reply's entry will stand, as pkt->act has it. */
static __always_inline void reply_tuple(__u8 family, const struct weft_pkt *pkt,
                                        struct weft_tuple *ret)
{
        *ret = (struct weft_tuple) { .src = pkt->act.dst,
                                     .dst = pkt->act.src,
                                     .sport = pkt->act.dport,
                                     .dport = pkt->act.sport,
                                     .proto = pkt->key.proto,
                                     .family = family,
                                     .side = reply_side(pkt) };
}

static __always_inline int same_tuple(const struct weft_tuple *a, const struct weft_tuple *b)
{
        return weft_same_addr(&a->src, &b->src) && weft_same_addr(&a->dst, &b->dst) &&
               a->sport == b->sport && a->dport == b->dport;
}

/* Is the answer to the flow's second FIN still to come this way? */
static __always_inline int owes_last(const struct weft_flow *f)
{
        return f->flags & WEFT_FLOW_LAST && f->at_fin == (__u8) f->packets;
}

/* Has nothing come this way for a second? */
static __always_inline int is_quiet(const struct weft_pkt *pkt, const struct weft_flow *f)
{
        return past(f->deadline - f->lifetime + weft_hz, pkt->now);
}

/* May an opening packet have the tuple of a connection that is closed? Not while its last answer is
 * to come: that would be taken for the newcomer's. Where ports are given out only as a last resort,
 * and not while its last packets may be under way: the far side may have it in TIME_WAIT, which a
 * SYN mostly ends (RFC 6191). */
static __always_inline int gives_way(const struct weft_pkt *pkt, const struct weft_flow *f,
                                     const struct weft_flow *partner)
{
        if (f->state != WEFT_CLOSING ||
            (pkt->tcp_flags & (WEFT_TCP_SYN | WEFT_TCP_ACK)) != WEFT_TCP_SYN)
                return 0;
        if (pkt->plan.flags & WEFT_PLAN_NEW_PORT)
                return pkt->tries >= PORT_CLOSED && is_quiet(pkt, f);
        return (!owes_last(f) && !(partner && owes_last(partner))) || is_quiet(pkt, f);
}

/* Is the squatter's connection over, or being closed while this packet opens one? */
static __always_inline int is_over(const struct weft_pkt *pkt, const struct weft_flow *f,
                                   const struct weft_flow *partner)
{
        if (gives_way(pkt, f, partner))
                return 1;
        return past(f->deadline, pkt->now) && (!partner || past(partner->deadline, pkt->now));
}

/* What the client spoke to. */
static __always_inline const struct weft_addr *service_address(const struct weft_pkt *pkt)
{
        return pkt->plan.flags & WEFT_PLAN_DIRECT ? &pkt->told.addr : &pkt->key.dst;
}

/* Does the squatter's answer leave as this flow's would? Then it is the same connection, which came
 * by another first node before, and may again: the entry of its other direction stays. */
static __always_inline int answers_alike(const struct weft_pkt *pkt, const struct weft_tuple *new)
{
        int direct = pkt->plan.flags & WEFT_PLAN_DIRECT;

        return weft_same_addr(&new->src, service_address(pkt)) &&
               weft_same_addr(&new->dst, &pkt->key.src) &&
               new->sport == (direct ? pkt->told.port : pkt->key.dport) &&
               new->dport == ((direct ? pkt->told.client_port : 0) ?: pkt->key.sport);
}

/* Who has the tuple that this flow's reply wants? Connections that are over are no obstacle, nor is
 * this flow's own reply left behind without its other half. */
static __always_inline enum reserved look_at_squatter(__u8 family, struct weft_pkt *pkt,
                                                      const struct weft_tuple *reply)
{
        struct weft_flow *f = flow_of(family, reply), *partner;
        struct weft_tuple new, other;

        if (!f)
                return RESERVED_AGAIN;
        flow_new_tuple(family, f, reply, &new);
        partner_tuple(f, reply, &new, &other);
        if (same_tuple(&other, &pkt->key) && f->partner_side == pkt->key.side) {
                if (!past(f->created + weft_hz, pkt->now))
                        return RESERVED_SELF;
                flow_delete(family, reply);
                return RESERVED_AGAIN;
        }
        if (weft_takes_dsr && answers_alike(pkt, &new)) {
                flow_delete(family, reply);
                return RESERVED_AGAIN;
        }
        partner = flow_of(family, &other);
        if (!is_over(pkt, f, partner))
                return RESERVED_BUSY;
        flow_delete(family, reply);
        flow_delete(family, &other);
        return RESERVED_AGAIN;
}

/* Is the port one of the node's addresses, and not the node's own connection that asks? */
static __always_inline int may_be_a_socket(const struct weft_pkt *pkt)
{
        return !(pkt->plan.flags & WEFT_PLAN_WHOLE) &&
               !(pkt->host && pkt->act.sport == pkt->plan.sport);
}

/* Is the reply's tuple taken by a socket of the node? */
static __always_inline int socket_has(struct __sk_buff *ctx, const struct weft_tuple *reply)
{
        struct bpf_sock_tuple t = {};
        struct bpf_sock *sk;
        __u32 size;

        if (reply->proto != IPPROTO_TCP && reply->proto != IPPROTO_UDP)
                return 0;
        if (reply->family == 4) {
                t.ipv4.saddr = reply->src.w[3];
                t.ipv4.daddr = reply->dst.w[3];
                t.ipv4.sport = reply->sport;
                t.ipv4.dport = reply->dport;
                size = sizeof(t.ipv4);
        } else {
                __builtin_memcpy(t.ipv6.saddr, &reply->src, 16);
                __builtin_memcpy(t.ipv6.daddr, &reply->dst, 16);
                t.ipv6.sport = reply->sport;
                t.ipv6.dport = reply->dport;
                size = sizeof(t.ipv6);
        }
        if (reply->proto == IPPROTO_TCP)
                sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
        else
                sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
        if (!sk)
                return 0;
        bpf_sk_release(sk);
        return 1;
}

/* ---- room in the table -------------------------------------------------------------------- */

static __always_inline int is_half_open(const struct weft_flow *f, __u64 created)
{
        return f->state == WEFT_NEW && f->created == created;
}

static __always_inline void evict4(const struct weft_half_open4 *old)
{
        struct weft_flow4 *f = bpf_map_lookup_elem(&flows4, &old->key), *partner;
        struct weft_key4 other;

        if (!f || !is_half_open(&f->f, old->created))
                return;
        weft_partner4(f, &other);
        partner = bpf_map_lookup_elem(&flows4, &other);
        if (partner && partner->f.state != WEFT_NEW)
                return;
        bpf_map_delete_elem(&flows4, &old->key);
        bpf_map_delete_elem(&flows4, &other);
        weft_event(WEFT_EVENT_EVICTED);
}

static __always_inline void evict6(const struct weft_half_open6 *old)
{
        struct weft_flow6 *f = bpf_map_lookup_elem(&flows6, &old->key), *partner;
        struct weft_key6 other;

        if (!f || !is_half_open(&f->f, old->created))
                return;
        weft_partner6(f, &other);
        partner = bpf_map_lookup_elem(&flows6, &other);
        if (partner && partner->f.state != WEFT_NEW)
                return;
        bpf_map_delete_elem(&flows6, &old->key);
        bpf_map_delete_elem(&flows6, &other);
        weft_event(WEFT_EVENT_EVICTED);
}

/* This CPU's next place in a ring: whoever stands there is its oldest newcomer. */
static __always_inline __u32 ring_index(__u8 family)
{
        __u32 zero = 0, at = 0;
        struct weft_half_open_next *ring = bpf_map_lookup_elem(&ring_next, &zero);

        if (ring) {
                __u32 *next = family == 4 ? &ring->next4 : &ring->next6;

                at = *next < weft_half_open ? *next : 0;
                *next = at + 1;
        }
        return bpf_get_smp_processor_id() * weft_half_open + at;
}

/* May who entered a ring then still be half open? Later it has expired, or is none of the ring's.
 */
static __always_inline int is_recent(const struct weft_pkt *pkt, __u64 created)
{
        return created && !past(created + LIFE_OPENING * weft_hz, pkt->now);
}

static __always_inline struct weft_half_open4 *turn_ring4(struct weft_pkt *pkt)
{
        __u32 index = ring_index(4);
        struct weft_half_open4 *place = bpf_map_lookup_elem(&half_open4, &index);

        if (place && is_recent(pkt, place->created))
                evict4(place);
        return place;
}

static __always_inline struct weft_half_open6 *turn_ring6(struct weft_pkt *pkt)
{
        __u32 index = ring_index(6);
        struct weft_half_open6 *place = bpf_map_lookup_elem(&half_open6, &index);

        if (place && is_recent(pkt, place->created))
                evict6(place);
        return place;
}

/* Half-open flows fill half of the table at most: each newcomer takes the place of the oldest one.
 */
static __always_inline void enter_ring(__u8 family, struct weft_pkt *pkt)
{
        if (family == 4) {
                struct weft_half_open4 *place = turn_ring4(pkt);

                if (place) {
                        place->key = pkt->fwd_key.key4;
                        place->created = pkt->now;
                }
        } else {
                struct weft_half_open6 *place = turn_ring6(pkt);

                if (place) {
                        place->key = pkt->fwd_key.key6;
                        place->created = pkt->now;
                }
        }
}

/* The table is full: the oldest half-open flow of this CPU goes. */
static __always_inline void make_room(__u8 family, struct weft_pkt *pkt)
{
        if (family == 4) {
                struct weft_half_open4 *place = turn_ring4(pkt);

                if (place)
                        place->created = 0;
        } else {
                struct weft_half_open6 *place = turn_ring6(pkt);

                if (place)
                        place->created = 0;
        }
}

/* ---- the entries -------------------------------------------------------------------------- */

/* Checksum differences of pkt->act; an ICMP checksum of IPv4 does not cover the addresses. */
static __always_inline void set_deltas(struct weft_pkt *pkt)
{
        __u16 addr = weft_fold(weft_fold(weft_diff_addr(&pkt->key.src, &pkt->act.src)) +
                               (__u32) weft_fold(weft_diff_addr(&pkt->key.dst, &pkt->act.dst)));

        pkt->act.addr_delta = addr;
        pkt->act.fixed_delta = weft_fold(weft_diff16(pkt->key.dport, pkt->act.dport) +
                                         (pkt->key.proto == IPPROTO_ICMP ? 0 : addr));
        pkt->act.l4_delta =
                weft_fold(pkt->act.fixed_delta + weft_diff16(pkt->key.sport, pkt->act.sport));
}

static __always_inline __u8 mirror(__u8 set)
{
        return (set & WEFT_SET_SRC) << 1 | (set & WEFT_SET_DST) >> 1;
}

static __always_inline void fill_common(const struct weft_pkt *pkt, struct weft_flow *f)
{
        __builtin_memset(f, 0, sizeof(*f));
        f->backend = pkt->plan.backend;
        f->backend_number = pkt->plan.backend_number;
        f->module = pkt->plan.module;
        f->hook = pkt->hook;
        f->created = pkt->now;
        f->state = WEFT_NEW;
        f->flags = (pkt->plan.flags & WEFT_PLAN_NEW_PORT ? WEFT_FLOW_PORT : 0) |
                   (pkt->plan.flags & WEFT_PLAN_WHOLE ? WEFT_FLOW_WHOLE : 0) |
                   (pkt->plan.flags & WEFT_PLAN_DIRECT ? WEFT_FLOW_DIRECT : 0);
        set_life(f, pkt->now, pkt->key.proto == IPPROTO_TCP ? LIFE_OPENING : LIFE_OTHER);
}

static __always_inline void fill_forward(const struct weft_pkt *pkt, struct weft_flow *f)
{
        fill_common(pkt, f);
        f->epoch = pkt->epoch;
        f->route = pkt->act.route;
        f->tunnel = pkt->act.tunnel;
        f->addr_delta = pkt->act.addr_delta;
        f->l4_delta = pkt->act.l4_delta;
        f->sport = pkt->act.sport;
        f->dport = pkt->act.dport;
        f->set = pkt->act.set;
        f->partner_side = reply_side(pkt);
        if (pkt->key.side == WEFT_SIDE_INSIDE)
                f->ifindex = pkt->host ? WEFT_HOST : pkt->ifindex;
        f->dsr = pkt->plan.dsr;
        if (f->dsr == WEFT_DSR_OPTION)
                f->flags |= WEFT_FLOW_TELL;
        f->watch = pkt->key.proto == IPPROTO_TCP || f->dsr ? WEFT_WATCH_ALL
                                                           : watch_of(f, pkt->key.proto);
        f->packets = 1;
        f->bytes = pkt->len;
}

/* The answer of a flow that DSR told of, straight to the client: from the service's address, to the
 * port that the client has. Not the mirror image of what comes in, which is delivered as it is. */
static __always_inline void answer_directly(const struct weft_pkt *pkt, struct weft_flow *f)
{
        __u16 addr = weft_fold(weft_diff_addr(&pkt->act.dst, &pkt->told.addr));

        f->sport = pkt->told.port;
        f->dport = pkt->told.client_port ?: pkt->key.sport;
        if (pkt->told.client_port)
                f->flags |= WEFT_FLOW_MOVED;
        f->set = f->dport == pkt->act.sport ? WEFT_SET_SRC : WEFT_SET_SRC | WEFT_SET_DST;
        f->addr_delta = addr;
        f->l4_delta = weft_fold(addr + weft_diff16(pkt->act.dport, f->sport) +
                                weft_fold(weft_diff16(pkt->act.sport, f->dport)));
}

/* Epoch 0: the reply's first packet decides its own way. A socket of the node answers at the exit
 * hook, where nothing is decided. */
static __always_inline void fill_reply(const struct weft_pkt *pkt, struct weft_flow *f)
{
        fill_common(pkt, f);
        f->addr_delta = ~pkt->act.addr_delta;
        f->l4_delta = ~pkt->act.l4_delta;
        f->sport = pkt->key.dport;
        f->dport = pkt->key.sport;
        f->set = mirror(pkt->act.set);
        f->partner_side = pkt->key.side;
        f->flags |= WEFT_FLOW_REPLY;
        if (f->flags & WEFT_FLOW_DIRECT)
                answer_directly(pkt, f);
        f->watch = WEFT_WATCH_ALL;
        if (has_overlay() && pkt->key.side == WEFT_SIDE_OVERLAY && !(f->flags & WEFT_FLOW_DIRECT)) {
                f->tunnel.remote = pkt->remote;
                f->tunnel.number = pkt->remote_number;
        }
        if (reply_side(pkt) == WEFT_SIDE_INSIDE) {
                f->ifindex = pkt->plan.endpoint ?: WEFT_HOST;
                f->route.exit = !pkt->plan.endpoint && f->set & WEFT_SET_SRC;
        }
}

/* Makes the reply's entry ready but for the port. */
static __always_inline void prepare_reply(__u8 family, struct weft_pkt *pkt)
{
        struct weft_tuple reply;

        reply_tuple(family, pkt, &reply);
        if (family == 4) {
                struct weft_flow4 *f = &pkt->rev.flow4;

                fill_reply(pkt, &f->f);
                key4_of(&reply, &pkt->rev_key.key4);
                f->saddr = service_address(pkt)->w[3];
                f->daddr = pkt->key.src.w[3];
        } else {
                struct weft_flow6 *f = &pkt->rev.flow6;

                fill_reply(pkt, &f->f);
                key6_of(&reply, &pkt->rev_key.key6);
                f->saddr = *service_address(pkt);
                f->daddr = pkt->key.src;
                f->pad = 0;
        }
}

static __always_inline int insert_reply(__u8 family, struct weft_pkt *pkt)
{
        if (family == 4) {
                pkt->rev_key.key4.dport = pkt->act.sport;
                pkt->rev.flow4.key = pkt->rev_key.key4;
                return bpf_map_update_elem(&flows4, &pkt->rev_key.key4, &pkt->rev.flow4,
                                           BPF_NOEXIST);
        }
        pkt->rev_key.key6.dport = pkt->act.sport;
        pkt->rev.flow6.key = pkt->rev_key.key6;
        return bpf_map_update_elem(&flows6, &pkt->rev_key.key6, &pkt->rev.flow6, BPF_NOEXIST);
}

static __always_inline int insert_forward(__u8 family, struct weft_pkt *pkt)
{
        if (family == 4) {
                struct weft_flow4 *f = &pkt->fwd.flow4;

                fill_forward(pkt, &f->f);
                key4_of(&pkt->key, &pkt->fwd_key.key4);
                f->key = pkt->fwd_key.key4;
                f->saddr = pkt->act.src.w[3];
                f->daddr = pkt->act.dst.w[3];
                return bpf_map_update_elem(&flows4, &pkt->fwd_key.key4, f, BPF_NOEXIST);
        } else {
                struct weft_flow6 *f = &pkt->fwd.flow6;

                fill_forward(pkt, &f->f);
                key6_of(&pkt->key, &pkt->fwd_key.key6);
                f->key = pkt->fwd_key.key6;
                f->saddr = pkt->act.src;
                f->daddr = pkt->act.dst;
                f->pad = 0;
                return bpf_map_update_elem(&flows6, &pkt->fwd_key.key6, f, BPF_NOEXIST);
        }
}

/* ---- ports -------------------------------------------------------------------------------- */

/* The plan becomes the act, with the sender's own port. What is wrapped stays as it is. */
static __always_inline void act_from_plan(struct weft_pkt *pkt)
{
        int wrapped = pkt->plan.dsr == WEFT_DSR_IPIP;

        pkt->act.src = pkt->plan.src;
        pkt->act.dst = wrapped ? pkt->key.dst : pkt->plan.dst;
        pkt->act.sport = pkt->plan.sport;
        pkt->act.dport = wrapped ? pkt->key.dport : pkt->plan.dport;
        pkt->act.set = wrapped ? 0 : pkt->plan.set;
        pkt->act.to_endpoint = pkt->plan.endpoint != 0;
        pkt->act.tell = wrapped ? WEFT_DSR_NONE : pkt->plan.dsr;
}

static __always_inline int port_allowed(const struct weft_plan *plan, __u32 port)
{
        return port >= plan->low && port <= plan->high &&
               !(port >= plan->skip_low && port <= plan->skip_high);
}

static __always_inline __u32 random_port(const struct weft_plan *plan)
{
        return plan->low + bpf_get_prandom_u32() % (plan->high - plan->low + 1u);
}

/* The next port to try after the given one. */
static __always_inline __u32 next_port(const struct weft_plan *plan, __u32 port, int tried)
{
        port = tried < PORT_RANDOM ? random_port(plan) : port + 1;
        if (port >= plan->skip_low && port <= plan->skip_high)
                port = plan->skip_high + 1u;
        return port > plan->high || port < plan->low ? plan->low : port;
}

/* Makes act and the reply's entry agree on a source port. A source that stays what it was is no
 * change. */
static __always_inline void use_port(struct weft_pkt *pkt, __be16 port)
{
        int same = port == pkt->key.sport && weft_same_addr(&pkt->act.src, &pkt->key.src);
        struct weft_flow *reply = &pkt->rev.flow4.f;

        pkt->act.sport = port;
        pkt->act.set = same ? pkt->plan.set & ~WEFT_SET_SRC : pkt->plan.set;
        pkt->act.l4_delta = weft_fold(pkt->act.fixed_delta + weft_diff16(pkt->key.sport, port));
        reply->l4_delta = ~pkt->act.l4_delta;
        reply->set = mirror(pkt->act.set);
        if (pkt->plan.flags & WEFT_PLAN_DIRECT)
                answer_directly(pkt, reply);
}

/* One attempt to store the reply's entry, under pkt->port if the plan wants a new one. */
static __always_inline enum reserved reserve(__u8 family, struct __sk_buff *ctx,
                                             struct weft_pkt *pkt, int new_port)
{
        struct weft_tuple reply;
        int r;

        if (new_port)
                use_port(pkt, bpf_htons(pkt->port));
        reply_tuple(family, pkt, &reply);
        if (new_port && may_be_a_socket(pkt) && socket_has(ctx, &reply)) {
                weft_event(WEFT_EVENT_PORT_SOCKET);
                return RESERVED_BUSY;
        }
        r = insert_reply(family, pkt);
        if (!r)
                return RESERVED;
        return r == -EEXIST ? look_at_squatter(family, pkt, &reply) : RESERVED_FULL;
}

/* Some attempts; RESERVED_AGAIN: none has decided it yet. */
static __always_inline enum reserved reserve_some(__u8 family, struct __sk_buff *ctx,
                                                  struct weft_pkt *pkt)
{
        int new_port = pkt->plan.flags & WEFT_PLAN_NEW_PORT;

        for (int i = 0; i < TRIES_AT_ONCE; i++) {
                enum reserved r = reserve(family, ctx, pkt, new_port);

                if (r == RESERVED_BUSY && new_port) {
                        weft_event(WEFT_EVENT_PORT_BUSY);
                        pkt->port = next_port(&pkt->plan, pkt->port, pkt->tries);
                } else if (r != RESERVED_AGAIN) {
                        return r;
                }
                pkt->tries++;
        }
        return pkt->tries < PORT_TRIES ? RESERVED_AGAIN : RESERVED_BUSY;
}

/* Protocols that can carry other ports. */
static __always_inline int is_translatable(const struct weft_pkt *pkt)
{
        switch (pkt->key.proto) {
        case IPPROTO_TCP:
        case IPPROTO_UDP:
                return 1;
        case IPPROTO_ICMP:
                return pkt->key.family == 4;
        case IPPROTO_ICMPV6:
                return pkt->key.family == 6;
        default:
                return 0;
        }
}

/* The tuple belongs to another flow of the same sender and receiver, who met it under another
 * address of a service, or directly, and one of them is an endpoint, or of another node that is
 * told. This one gets another source port, so that the answers are told apart; the sender's address
 * stays. Both halves at once: in the
 * host's stack the two would look alike. */
static __always_inline int can_move(const struct weft_pkt *pkt)
{
        return (pkt->plan.endpoint || pkt->plan.dsr == WEFT_DSR_OPTION ||
                pkt->hook == WEFT_FROM_ENDPOINT) &&
               !(pkt->plan.flags & WEFT_PLAN_DIRECT && pkt->told.client_port) && !pkt->host &&
               pkt->act.route.delivery != WEFT_LOCAL && !(pkt->plan.flags & WEFT_PLAN_NEW_PORT) &&
               (pkt->key.proto == IPPROTO_TCP || pkt->key.proto == IPPROTO_UDP);
}

static __always_inline void move(struct weft_pkt *pkt)
{
        pkt->plan.low = 1024;
        pkt->plan.high = 65535;
        pkt->plan.skip_low = 1;
        pkt->plan.skip_high = 0;
        pkt->plan.set |= WEFT_SET_SRC;
        pkt->plan.flags |= WEFT_PLAN_NEW_PORT | WEFT_PLAN_WHOLE;
        pkt->exit_done = 0;
}

/* Who speaks to itself from one port to the same has one tuple for both directions. */
static __always_inline int is_own_reply(__u8 family, const struct weft_pkt *pkt)
{
        struct weft_tuple reply;

        reply_tuple(family, pkt, &reply);
        return reply.side == pkt->key.side && same_tuple(&reply, &pkt->key);
}

/* Nothing could be stored. What needs no entry goes on without one. */
static __always_inline int without_entry(struct __sk_buff *ctx, struct weft_pkt *pkt, int reason)
{
        if (!pkt->host && pkt->plan.set)
                return weft_verdict_drop(ctx, pkt, reason, 0);
        weft_event(WEFT_EVENT_UNTRACKED);
        if (pkt->host && !pkt->act.tunnel.word)
                return WEFT_TCX_NEXT;
        weft_tail_call(ctx, WEFT_SLOT_REPLAY);
        return BROKEN(ctx, pkt);
}

/* Is the element still the flow's, or was it freed and taken by another? */
static __always_inline int is_still(__u8 family, const struct weft_flow *f,
                                    const struct weft_pkt *pkt)
{
        if (family == 4) {
                struct weft_key4 key;

                key4_of(&pkt->key, &key);
                return key4_is(&((const struct weft_flow4 *) f)->key, &key);
        } else {
                struct weft_key6 key;

                key6_of(&pkt->key, &key);
                return key6_is(&((const struct weft_flow6 *) f)->key, &key);
        }
}

/* A flow that exists: its way is written anew, in one store, and the epoch after it. Should the
 * element have become another flow's meanwhile, that flow has to decide again. */
static __always_inline int renew(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_flow *f = flow_of(family, &pkt->key);

        if (f) {
                if (weft_tunnels)
                        WRITE_ONCE(f->tunnel.word, pkt->act.tunnel.word);
                WRITE_ONCE(f->route.word, pkt->act.route.word);
                barrier();
                WRITE_ONCE(f->epoch, is_still(family, f, pkt) ? pkt->epoch : 0);
        }
        weft_tail_call(ctx, WEFT_SLOT_REPLAY);
        return BROKEN(ctx, pkt);
}

static __always_inline int reserve_reply(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        switch (reserve_some(family, ctx, pkt)) {
        case RESERVED:
                if (pkt->plan.flags & WEFT_PLAN_NEW_PORT)
                        weft_event(WEFT_EVENT_PORT_GIVEN);
                weft_tail_call(ctx, WEFT_SLOT_STORE);
                break;
        case RESERVED_SELF:
                weft_event(WEFT_EVENT_LOST_RACE);
                weft_tail_call(ctx, WEFT_SLOT_REPLAY);
                break;
        case RESERVED_FULL:
                if (pkt->retried++ == ROOM_TRIES)
                        return without_entry(ctx, pkt, WEFT_DROP(FLOW_TABLE_FULL));
                make_room(family, pkt);
                weft_tail_call(ctx, WEFT_SLOT_RESERVE);
                break;
        case RESERVED_AGAIN:
                weft_tail_call(ctx, WEFT_SLOT_RESERVE);
                break;
        case RESERVED_BUSY:
                if (!can_move(pkt))
                        return without_entry(ctx, pkt, WEFT_DROP(PORTS_EXHAUSTED));
                move(pkt);
                weft_tail_call(ctx, WEFT_SLOT_FINISH);
                break;
        }
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_reserve(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(reserve_reply, ctx, pkt) : WEFT_TCX_NEXT;
}

static __always_inline int store_forward(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_tuple reply;
        int r;

        r = insert_forward(family, pkt);
        if (!r) {
                enter_ring(family, pkt);
                count_opened(pkt->plan.backend);
                weft_event(WEFT_EVENT_COMMIT);
                weft_tail_call(ctx, WEFT_SLOT_REPLAY);
                return BROKEN(ctx, pkt);
        }
        reply_tuple(family, pkt, &reply);
        flow_delete(family, &reply);
        if (r != -EEXIST)
                return without_entry(ctx, pkt, WEFT_DROP(FLOW_TABLE_FULL));
        weft_event(WEFT_EVENT_LOST_RACE);
        pkt->absent = 0;
        weft_tail_call(ctx, WEFT_SLOT_MISS);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_store(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(store_forward, ctx, pkt) : WEFT_TCX_NEXT;
}

static __always_inline int commit(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        if (pkt->known)
                return renew(family, ctx, pkt);
        act_from_plan(pkt);
        set_deltas(pkt);
        if (pkt->fragment == 2 || pkt->loose || is_own_reply(family, pkt) ||
            (pkt->plan.set && !is_translatable(pkt)))
                return without_entry(ctx, pkt, WEFT_DROP(UNSUPPORTED_PROTOCOL));
        prepare_reply(family, pkt);
        pkt->tries = 0;
        pkt->port = bpf_ntohs(pkt->plan.sport);
        if (pkt->plan.flags & WEFT_PLAN_NEW_PORT && !port_allowed(&pkt->plan, pkt->port))
                pkt->port = next_port(&pkt->plan, pkt->port, 0);
        weft_tail_call(ctx, WEFT_SLOT_RESERVE);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_commit(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(commit, ctx, pkt) : WEFT_TCX_NEXT;
}
