/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What the engine's programs share: their constants, the flow tables of both families behind one
 * face, and the life of a flow. Only engine.bpf.c includes this. */

#define WEFT_ENGINE

#include <weft/packet.bpf.h>
#include <weft/stage.bpf.h>

#include <bpf/bpf_core_read.h>
#include <linux/bpf.h>

/* Set by the core before loading. */
const volatile __u32 weft_generation;
const volatile __u32 weft_hz = 250;
const volatile __u32 weft_mark;
const volatile __u8 weft_can_cast;                  /* the kernel has bpf_cast_to_kern_ctx (6.2) */
const volatile __u8 weft_count_lookups;             /* tests: those of the short path, too */
const volatile __u8 weft_track;                     /* a module needs replies to be known */
const volatile __u16 weft_host_low, weft_host_high; /* ports given out that the node also uses */
const volatile __u16 weft_given_low, weft_given_high; /* all ports given out */
const volatile __u32 weft_first[WEFT_HOOKS], weft_first_known[WEFT_HOOKS];
const volatile __u32 weft_first_early[WEFT_HOOKS]; /* of phase EARLY; read by early.h alone */
const volatile __u8 weft_has_stages[WEFT_HOOKS];   /* of the other phases */
const volatile __u8 weft_takes_dsr;          /* a module answers for services of other nodes */
const volatile __u8 weft_serves[WEFT_HOOKS]; /* a module looks after services there */
const volatile __u32 weft_half_open;         /* each CPU's stretch of the half-open rings */
const volatile __u8 weft_tunnels; /* enum weft_tunnel_mode; 0 makes all about tunnels dead code */
const volatile struct weft_tunnel_header weft_header;
const volatile __u32 weft_overlay_index; /* of this generation's tunnel in `overlays` */
const volatile __u8 weft_can_decap; /* adjust_room changes the protocol when it shrinks (6.3) */

/* Seconds. The reference's constants, but for CLOSED_PORT: a port of the node that is given out
 * again sooner meets the backend's TIME_WAIT (RFC 9293 §3.4.1; Linux: 60 s). */
enum {
        LIFE_TCP = 8000,
        LIFE_OPENING = 60,
        LIFE_OTHER = 60,
        LIFE_CLOSED = 10,
        LIFE_CLOSED_PORT = 60,
        LIFE_HALF_SEEN = 120, /* after the client's FIN, where the server's passes elsewhere; as
                                 nf_conntrack's tcp_timeout_fin_wait */
        NEXTHOP_FRESH =
                5, /* how long a link-layer address is believed before the kernel is asked */
};

/* Is there a tunnel between nodes? */
static __always_inline int has_overlay(void)
{
        __u8 mode = weft_tunnels;

        return mode && mode != WEFT_TUNNEL_WRAP;
}

#define READ_ONCE(x) (*(volatile __typeof__(x) *) &(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *) &(x) = (v))

#define BROKEN(ctx, pkt) weft_verdict_drop(ctx, pkt, WEFT_DROP(CHAIN_BROKEN), 0)
#define DROP(ctx, pkt, reason) weft_verdict_drop(ctx, pkt, WEFT_DROP(reason), 0)

static __always_inline __u64 epoch_now(void)
{
        __u32 zero = 0;
        struct weft_world *w = bpf_map_lookup_elem(&world, &zero);

        return (__u64) weft_generation << 32 | (w ? READ_ONCE(w->epoch) : 0);
}

static __always_inline void count_forward(__u32 hook, __u32 delivery, __u32 len)
{
        __u32 key = hook * WEFT_DELIVERIES + delivery;
        struct weft_count *c = bpf_map_lookup_elem(&forwards, &key);

        if (c) {
                c->packets++;
                c->bytes += len;
        }
}

static __always_inline struct weft_nexthop *nexthop_at(__u32 index)
{
        return bpf_map_lookup_elem(&nexthops, &index);
}

static __always_inline struct weft_remote *remote_at(__u32 index)
{
        return bpf_map_lookup_elem(&remotes, &index);
}

/* What algorithm least-connections goes by. Only the two plain ends of a flow are counted as they
 * happen; the daemon's collection puts the rest right (expiry, eviction, races). */
static __always_inline void count_opened(__u32 backend)
{
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &backend);

        if (backend && b)
                __sync_fetch_and_add(&b->opened, 1);
}

static __always_inline void count_closed(__u32 backend)
{
        struct weft_backend *b = bpf_map_lookup_elem(&backends, &backend);

        if (backend && b)
                __sync_fetch_and_add(&b->closed, 1);
}

/* The short path's: no code unless a test wants it. */
static __always_inline void count_lookup(void)
{
        if (weft_count_lookups)
                weft_event(WEFT_EVENT_LOOKUP);
}

/* ---- flow tables -------------------------------------------------------------------------- */

/* Runs body(family, ctx, pkt) with the family as a literal.
 * verifier: an entry of flows4 is shorter than one of flows6, and a family that is read again, or
 * spilled on an old kernel, could be the other one. */
#define BY_FAMILY(body, ctx, pkt) ((pkt)->key.family == 4 ? body(4, ctx, pkt) : body(6, ctx, pkt))

static __always_inline void key4_of(const struct weft_tuple *t, struct weft_key4 *ret)
{
        *ret = (struct weft_key4) { .saddr = t->src.w[3],
                                    .daddr = t->dst.w[3],
                                    .sport = t->sport,
                                    .dport = t->dport,
                                    .proto = t->proto,
                                    .side = t->side };
}

static __always_inline void key6_of(const struct weft_tuple *t, struct weft_key6 *ret)
{
        *ret = (struct weft_key6) { .saddr = t->src,
                                    .daddr = t->dst,
                                    .sport = t->sport,
                                    .dport = t->dport,
                                    .proto = t->proto,
                                    .side = t->side };
}

/* Is the element still the one that the key found? Elements are reused at once. */
static __always_inline int key4_is(const struct weft_key4 *a, const struct weft_key4 *b)
{
        const volatile __u64 *x = (const volatile __u64 *) a;
        const __u64 *y = (const __u64 *) b;

        return x[0] == y[0] && x[1] == y[1];
}

static __always_inline int key6_is(const struct weft_key6 *a, const struct weft_key6 *b)
{
        const volatile __u64 *x = (const volatile __u64 *) a;
        const __u64 *y = (const __u64 *) b;

        return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

/* The entry of a tuple, whatever its state; NULL: none. */
static __always_inline struct weft_flow *flow_of(__u8 family, const struct weft_tuple *t)
{
        weft_event(WEFT_EVENT_LOOKUP);
        if (family == 4) {
                struct weft_key4 key;
                struct weft_flow4 *f;

                key4_of(t, &key);
                f = bpf_map_lookup_elem(&flows4, &key);
                return f && key4_is(&f->key, &key) ? &f->f : NULL;
        } else {
                struct weft_key6 key;
                struct weft_flow6 *f;

                key6_of(t, &key);
                f = bpf_map_lookup_elem(&flows6, &key);
                return f && key6_is(&f->key, &key) ? &f->f : NULL;
        }
}

/* The translated tuple of an entry, as the packet will be. */
static __always_inline void flow_new_tuple(__u8 family, const struct weft_flow *f,
                                           const struct weft_tuple *t, struct weft_tuple *ret)
{
        *ret = *t;
        ret->sport = f->sport;
        ret->dport = f->dport;
        if (family == 4) {
                const struct weft_flow4 *f4 = (const void *) f;

                ret->src.w[3] = f4->saddr;
                ret->dst.w[3] = f4->daddr;
        } else {
                const struct weft_flow6 *f6 = (const void *) f;

                ret->src = f6->saddr;
                ret->dst = f6->daddr;
        }
}

/* The key of the other direction: the translated tuple, turned round. */
static __always_inline void turn_round(const struct weft_tuple *t, __u8 side,
                                       struct weft_tuple *ret)
{
        *ret = (struct weft_tuple) { .src = t->dst,
                                     .dst = t->src,
                                     .sport = t->dport,
                                     .dport = t->sport,
                                     .proto = t->proto,
                                     .family = t->family,
                                     .side = side };
}

/* The key of an entry's partner. new: flow_new_tuple() of it. */
static __always_inline void partner_tuple(const struct weft_flow *f, const struct weft_tuple *t,
                                          const struct weft_tuple *new, struct weft_tuple *ret)
{
        if (weft_answers_directly(f)) {
                turn_round(t, f->partner_side, ret);
                if (!(f->flags & WEFT_FLOW_MOVED))
                        ret->sport = new->dport;
        } else {
                turn_round(new, f->partner_side, ret);
        }
}

static __always_inline void flow_delete(__u8 family, const struct weft_tuple *t)
{
        if (family == 4) {
                struct weft_key4 key;

                key4_of(t, &key);
                bpf_map_delete_elem(&flows4, &key);
        } else {
                struct weft_key6 key;

                key6_of(t, &key);
                bpf_map_delete_elem(&flows6, &key);
        }
}

#define ICMP4_ECHO 8
#define ICMP4_ECHO_REPLY 0
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129

/* An echo's identifier is the requester's port: the source of a request, the destination of a
 * reply. */
static __always_inline int is_echo(__u8 icmp_type)
{
        return icmp_type == ICMP4_ECHO || icmp_type == ICMP6_ECHO;
}

static __always_inline int is_reply(const struct weft_flow *f)
{
        return !!(f->flags & WEFT_FLOW_REPLY);
}

static __always_inline void set_life(struct weft_flow *f, __u64 now, __u32 seconds)
{
        f->lifetime = seconds * weft_hz;
        WRITE_ONCE(f->deadline, now + f->lifetime);
}

static __always_inline int past(__u64 deadline, __u64 now)
{
        return (__s64) (deadline - now) < 0;
}

static __always_inline void account(struct weft_flow *f, __u64 now, __u32 len)
{
        WRITE_ONCE(f->deadline, now + f->lifetime);
        f->packets++;
        f->bytes += len;
}
