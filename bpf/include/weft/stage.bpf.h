/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What the eBPF half of a module includes: the packet as the engine parsed it, the plan, the
 * verdicts and WEFT_STAGE(), which places a function on the packet path. A stage looks and plans;
 * it never touches the packet. It runs for the first packet of a flow, and again when a generation
 * or the world has changed since; a stage of phase EARLY runs for every packet of its hook. */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

#include <weft/tables.bpf.h>

/* ---- the packet --------------------------------------------------------------------------- */

#ifdef WEFT_RELOCATED
#pragma clang attribute push(WEFT_RELOCATED, apply_to = record)
#endif

struct weft_tuple {
        struct weft_addr src, dst;
        __be16 sport, dport; /* ICMP echo: the identifier is the requester's port, the other 0 */
        __u8 proto;
        __u8 family; /* 4 or 6 */
        __u8 side;   /* enum weft_side */
        __u8 spare;
};

enum weft_plan_flag {
        WEFT_PLAN_NEW_PORT = 1, /* sport is to be found in low..high; reserved when stored */
        WEFT_PLAN_NATIVE = 2,   /* the fabric routes it: not to be masqueraded */
        WEFT_PLAN_TRACK = 4,    /* remember it even if nothing changes */
        WEFT_PLAN_WHOLE = 8,    /* applied whole at its first hook, never through the stack */
        WEFT_PLAN_PLAIN = 16,   /* the other direction comes without a tunnel, and so goes this */
        WEFT_PLAN_DIRECT = 32,  /* answers go straight to the client, as pkt->told says */
};

/* What the stages decided. Starts as the packet is. Set fields through the functions below. */
struct weft_plan {
        struct weft_addr src, dst;
        __be16 sport, dport;
        __u8 set;        /* enum weft_set */
        __u8 delivery;   /* enum weft_delivery */
        __u8 flags;      /* enum weft_plan_flag */
        __u8 dsr;        /* enum weft_dsr: how the backend's node is told of the service */
        __u16 low, high; /* host order: source ports to choose from */
        __u16 skip_low, skip_high; /* but none of these */
        __u32 backend;             /* index; 0: none */
        __u16 backend_number;
        __u16 module;    /* who set the translation */
        __u32 endpoint;  /* interface of the local endpoint at dst; 0: none */
        __u32 nexthop;   /* its slot */
        __u16 claims[4]; /* module that set: source, destination, delivery, tunnel */
        union weft_tunnel tunnel;
};

/* What the routing table says of plan.dst; see weft_route_of(). */
struct weft_way {
        __u32 ifindex; /* 0: not asked yet */
        __s32 result;  /* BPF_FIB_LKUP_RET_* */
        struct weft_addr gateway;
        __u8 dmac[6], smac[6];
        __u16 mtu;
        __u8 family; /* of the gateway: 4 or 6 */
        __u8 asked;
};

/* What the engine keeps between its programs; stages have no business here. */
struct weft_act {
        struct weft_addr src, dst;
        __be16 sport, dport;
        __u16 addr_delta, l4_delta;
        union weft_route route;
        __u8 set;
        __u8 neighbour;    /* 1: through the kernel's neighbour layer */
        __u16 fixed_delta; /* of l4_delta: all but the source port */
        __u8 to_endpoint;  /* 1: its end is a local endpoint */
        __u8 n_options;    /* bytes of `options`, divisible by 4: this packet takes them along */
        __u8 tell;         /* enum weft_dsr: this packet tells the backend's node */
        __u8 spare;
        union weft_tunnel tunnel;
        __u8 options[WEFT_TUNNEL_OPTIONS]; /* Geneve options, ready for the wire */
};

/* What a packet of DSR told this node, the backend's. */
struct weft_told {
        struct weft_addr addr;    /* the service's */
        __be16 port, client_port; /* the service's; the client's own */
        __u8 given;               /* 1: it did */
        __u8 spare[3];
};

struct weft_pkt {
        struct weft_tuple key;
        struct weft_plan plan;
        struct weft_service
                service; /* that key.dst, dport, proto belongs to; count 0 or id 0: none */
        __u32 ifindex;   /* where it was seen */
        __u32 len;       /* of the IP packet */
        __u16 l4_off;    /* from the start of the frame */
        __u8 hook;       /* enum weft_hook: where it was decided */
        __u8 tcp_flags;  /* TCP: as on the wire; 0 else */
        __u8 icmp_type;
        __u8 fragment;     /* 0: whole; 1: first; 2: a later one, without ports of its own */
        __u8 known;        /* 1: the flow exists, its translation is given and kept */
        __u8 service_addr; /* 1: key.dst is a service's own address */
        __u8 n_options;    /* from a tunnel: bytes of `options` that came with it */
        __u8 options[WEFT_TUNNEL_OPTIONS];
        __u16 remote, remote_number; /* from a tunnel: who sent it, as in union weft_tunnel */
        __u32 identity; /* from a tunnel: what it said of the sender; see weft_identity_of() */
        __u8 wrapped;   /* 1: it came in another packet, by WEFT_DSR_IPIP of another node */
        struct weft_addr wrapped_to; /* that one's destination, a local endpoint */
        /* the engine's */
        __u8 absent;    /* looked up and not found */
        __u8 exit_done; /* the exit hook's stages have run */
        __u8 host;      /* seen at an exit hook: the node's own, or the second half of a plan */
        __u8 retried;   /* room was made for it in a full table */
        __u8 silent;    /* an ICMP error: never answered (RFC 1122 §3.2.2) */
        __u8 relayed;   /* what a tunnel carried, as an error of the network between quotes it */
        __u8 word_at;   /* where DSR's word is among the options; WEFT_TUNNEL_OPTIONS: nowhere */
        __u8 loose;     /* of no flow, and makes none */
        __u16 drop_module, drop_reason;
        __be32 fragment_id;
        __u64 answer_tokens, answer_last; /* rate limit of what weft sends itself */
        __u64 epoch, now;
        struct weft_way way;
        struct weft_act act;
        union {
                struct weft_flow4 flow4;
                struct weft_flow6 flow6;
        } fwd, rev;
        union {
                struct weft_key4 key4;
                struct weft_key6 key6;
        } fwd_key, rev_key;
        __u16 port, tries; /* search for a source port: the one to try, how many were */
        struct weft_told told;
        __u8 buffer[576] __attribute__((aligned(8)));
};

#ifdef WEFT_RELOCATED
#pragma clang attribute pop
#endif

/* ---- verdicts ----------------------------------------------------------------------------- */

/* An early stage has no flow: TRACK and PING are no verdicts of its, and the packet is dropped with
 * NO_VERDICT, under the module's name. */
enum weft_verdict {
        WEFT_NEXT,  /* the next stage */
        WEFT_DONE,  /* this phase is settled: the next phase */
        WEFT_TRACK, /* remember the flow even if nothing changes; the next stage */
        WEFT_PASS,  /* not ours: to the stack, no flow. EARLY: past all of weft, on as it is */
        WEFT_PING,  /* answer the echo request */
        WEFT_DROP_BASE = 0x100,
        WEFT_REJECT_BASE = 0x200,
};

/* Drop, with a reason of drop-reasons.def. */
#define WEFT_DROP(reason) (WEFT_DROP_BASE | WEFT_DROP_##reason)
/* Drop, and tell the sender: TCP reset or ICMP port unreachable, rate limited. */
#define WEFT_REJECT(reason) (WEFT_REJECT_BASE | WEFT_DROP_##reason)
/* The same with the n-th of the module's own reasons, which its descriptor names. */
#define WEFT_DROP_OWN(n) (WEFT_DROP_BASE | (WEFT_OWN_REASON + (n)))
#define WEFT_REJECT_OWN(n) (WEFT_REJECT_BASE | (WEFT_OWN_REASON + (n)))

/* ---- set by the core before the program is loaded ----------------------------------------- */

const volatile __u32 weft_next = WEFT_SLOT_UNSET, weft_next_known = WEFT_SLOT_UNSET;
const volatile __u32 weft_done = WEFT_SLOT_UNSET, weft_done_known = WEFT_SLOT_UNSET;
const volatile __u16 weft_module_id;
const volatile __u8 weft_hook_id;
const volatile __u32 weft_exit_mark; /* of an early stage at an exit hook: weft's bit of the mark */

struct {
        __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
        __uint(max_entries, WEFT_SLOTS);
        __type(key, __u32);
        __type(value, __u32);
} chain SEC(".maps");

WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, scratch, __u32, struct weft_pkt, 1, 0);

#define WEFT_TCX_NEXT (-1)
#define WEFT_TCX_DROP 2

/* Goes on with another program of the generation; comes back only where the slot is empty.
 * Assembly, because a compiler that joins two calls makes the slot a variable, and a jump through a
 * variable costs ten times the direct one; %= keeps them apart. */
static __always_inline void weft_tail_call(void *ctx, __u32 slot)
{
        asm volatile("r1 = %[ctx]\n\t"
                     "r2 = %[map] ll\n\t"
                     "r3 = %[slot]\n\t"
                     "call 12 # %="
                     :
                     : [ctx] "r"(ctx), [map] "i"(&chain), [slot] "r"(slot)
                     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
}

static __always_inline struct weft_pkt *weft_packet(void)
{
        __u32 zero = 0;

        return bpf_map_lookup_elem(&scratch, &zero);
}

/* Goes on with a drop in the engine, which counts it. This call is not kept apart: a compiler joins
 * all of a program's to one. To direct such a jump when its program is loaded, and back when it is
 * let go, the kernel stops every CPU six times. */
static __always_inline int weft_verdict_drop(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                             int verdict, __u16 module)
{
        pkt->drop_reason = verdict;
        pkt->drop_module = module;
        bpf_tail_call(ctx, &chain, WEFT_SLOT_DROP);
        return WEFT_TCX_DROP;
}

static __always_inline int weft_dispatch(struct __sk_buff *ctx, struct weft_pkt *pkt, int verdict)
{
        switch (verdict) {
        case WEFT_TRACK:
                pkt->plan.flags |= WEFT_PLAN_TRACK;
                /* fallthrough */
        case WEFT_NEXT:
                if (pkt->known)
                        weft_tail_call(ctx, weft_next_known);
                else
                        weft_tail_call(ctx, weft_next);
                break;
        case WEFT_DONE:
                if (pkt->known)
                        weft_tail_call(ctx, weft_done_known);
                else
                        weft_tail_call(ctx, weft_done);
                break;
        case WEFT_PASS:
                return WEFT_TCX_NEXT;
        default:
                return weft_verdict_drop(ctx, pkt, verdict, weft_module_id);
        }
        return weft_verdict_drop(ctx, pkt, WEFT_DROP(CHAIN_BROKEN), weft_module_id);
}

/* Of a stage of phase EARLY; weft_next and weft_done lead to the hook's entry after the last one.
 */
static __always_inline int weft_dispatch_early(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                               int verdict)
{
        switch (verdict) {
        case WEFT_NEXT:
                weft_tail_call(ctx, weft_next);
                break;
        case WEFT_DONE:
                weft_tail_call(ctx, weft_done);
                break;
        case WEFT_PASS:
                if (weft_exit_mark)
                        ctx->mark &= ~weft_exit_mark;
                return WEFT_TCX_NEXT;
        default:
                if (!(verdict & (WEFT_DROP_BASE | WEFT_REJECT_BASE)))
                        verdict = WEFT_DROP(NO_VERDICT);
                return weft_verdict_drop(ctx, pkt, verdict, weft_module_id);
        }
        return weft_verdict_drop(ctx, pkt, WEFT_DROP(CHAIN_BROKEN), weft_module_id);
}

#define __weft_dispatch(phase) ((phase) == WEFT_EARLY ? weft_dispatch_early : weft_dispatch)

#define __weft_text(s) #s
#define __weft_abi(major, minor) "weft.abi:" __weft_text(major) "." __weft_text(minor)
#define __weft_tag(s) __attribute__((btf_decl_tag(s)))
#define AFTER(module) __weft_tag("weft.after:" module)
#define BEFORE(module) __weft_tag("weft.before:" module)

/* WEFT_STAGE(name, FROM_ENDPOINT | FROM_UPLINK, SERVICE, AFTER("policy") …): the function that
 * follows is run in these hooks and this phase. Its parameters are `ctx`, the raw context, and
 * `pkt`; it returns a verdict. Order inside a phase is by module name: naming an absent one has no
 * effect.
 *
 * Phase EARLY: before everything else, for each packet that the hook sees: those of established
 * flows, those that are none of weft's and those that are not even IP (pkt->key.family is 0, and
 * nothing of the key is set), with spoofed sources, tunnels not taken off, translations not made,
 * at an exit hook those that weft itself sends. Key, lengths, flags and fragment are filled in, a
 * later fragment has no ports; there is neither service nor flow, and what is planned has no
 * effect. The hook is then not replayed in XDP, and what goes to an endpoint takes the way through
 * its device.
 */
#define WEFT_STAGE(name, hooks, phase, ...)                                                        \
        static __always_inline int name##_stage(struct __sk_buff *ctx, struct weft_pkt *pkt);      \
        __weft_tag(__weft_abi(WEFT_STAGE_ABI_MAJOR, WEFT_STAGE_ABI_MINOR))                         \
                __weft_tag("weft.hooks:" #hooks) __weft_tag("weft.phase:" #phase)                  \
                        __VA_ARGS__ SEC("tc") int                                                  \
                        name(struct __sk_buff *ctx)                                                \
        {                                                                                          \
                struct weft_pkt *pkt = weft_packet();                                              \
                                                                                                   \
                return pkt ? __weft_dispatch(WEFT_##phase)(ctx, pkt, name##_stage(ctx, pkt))       \
                           : WEFT_TCX_NEXT;                                                        \
        }                                                                                          \
        static __always_inline int name##_stage(struct __sk_buff *ctx __attribute__((unused)),     \
                                                struct weft_pkt *pkt __attribute__((unused)))

/* ---- a module's own maps -----------------------------------------------------------------------
 *
 * Written after the map: WEFT_MAP(…) WEFT_MAP_STATE(1); says what becomes of it when the generation
 * changes. A map that says nothing is CONFIG.
 *   CONFIG  made anew for each generation, and filled by the module's attach; goes on only with an
 *           instance that is kept
 *   STATE   goes on in the next generation, also in another build of the module and after a restart
 * of the daemon. Another layout or version is refused, unless the module's migrate fills the new
 * map from the old one STATS   the same for counters, without a version */
#define WEFT_MAP_CONFIG __weft_tag("weft.map:CONFIG")
#define WEFT_MAP_STATE(version) __weft_tag("weft.map:STATE." __weft_text(version))
#define WEFT_MAP_STATS __weft_tag("weft.map:STATS")

/* ---- planning ----------------------------------------------------------------------------- */

enum weft_claim { WEFT_CLAIM_SRC, WEFT_CLAIM_DST, WEFT_CLAIM_DELIVERY, WEFT_CLAIM_TUNNEL };

/* 1: the field is this module's to set. 0: another module has set it; counted, and left as it is.
 */
static __always_inline int weft_claim(struct weft_pkt *pkt, enum weft_claim what)
{
        if (pkt->plan.claims[what] && pkt->plan.claims[what] != weft_module_id) {
                weft_event(WEFT_EVENT_CLAIM_CONFLICT);
                return 0;
        }
        pkt->plan.claims[what] = weft_module_id;
        return 1;
}

/* The flow goes to addr:port (network order) instead. Finds out whether that is a local endpoint:
 * pkt->plan.endpoint afterwards. */
static __always_inline void weft_plan_destination(struct weft_pkt *pkt,
                                                  const struct weft_addr *addr, __be16 port)
{
        const struct weft_endpoint *e;

        if (!weft_claim(pkt, WEFT_CLAIM_DST))
                return;
        e = weft_endpoint_of(addr);
        pkt->plan.dst = *addr;
        pkt->plan.dport = port;
        pkt->plan.set |= WEFT_SET_DST;
        pkt->plan.module = weft_module_id;
        pkt->plan.endpoint = e ? e->ifindex : 0;
        pkt->plan.nexthop = e ? e->nexthop : 0;
        pkt->way.asked = 0;
}

/* … and is backend INDEX of its service; a change of that backend will be noticed. */
static __always_inline void weft_plan_backend(struct weft_pkt *pkt, __u32 index,
                                              const struct weft_backend *b)
{
        pkt->plan.backend = index;
        pkt->plan.backend_number = b->number;
        weft_plan_destination(pkt, &b->addr, b->port);
}

/* The flow comes from addr and a port of low..high (host order, inclusive) without skip_low..high:
 * the sender's own port where it is free, another one else. */
static __always_inline void weft_plan_source(struct weft_pkt *pkt, const struct weft_addr *addr,
                                             __u16 low, __u16 high, __u16 skip_low, __u16 skip_high)
{
        if (!weft_claim(pkt, WEFT_CLAIM_SRC))
                return;
        pkt->plan.src = *addr;
        pkt->plan.low = low;
        pkt->plan.high = high;
        pkt->plan.skip_low = skip_low;
        pkt->plan.skip_high = skip_high;
        pkt->plan.set |= WEFT_SET_SRC;
        pkt->plan.flags |= WEFT_PLAN_NEW_PORT;
        pkt->plan.module = weft_module_id;
}

/* The plan is applied whole at its first hook, both ways: the host's stack sees nothing of the
 * flow.
 */
static __always_inline void weft_plan_whole(struct weft_pkt *pkt)
{
        pkt->plan.flags |= WEFT_PLAN_WHOLE;
}

/* Divides services between the modules that forward them: what the service leaves open is settled
 * for this flow. Before theirs. */
static __always_inline void weft_plan_forwarding(struct weft_pkt *pkt, enum weft_forwarding how)
{
        if (pkt->service.forwarding == WEFT_FORWARDING_AUTO)
                pkt->service.forwarding = how;
}

/* The backend, on another node, is told which address of the service this was, and answers the
 * client itself. */
static __always_inline void weft_plan_dsr(struct weft_pkt *pkt, enum weft_dsr how)
{
        pkt->plan.dsr = how;
}

/* The packet told this node what weft_plan_dsr() asked for at another: answers go straight to the
 * client, from the service's address. */
static __always_inline void weft_plan_direct(struct weft_pkt *pkt)
{
        pkt->plan.flags |= WEFT_PLAN_DIRECT | WEFT_PLAN_TRACK;
        pkt->plan.module = weft_module_id;
}

/* The packet goes on as it was wrapped, into the endpoint that it was wrapped for, which has its
 * destination for an address of its own; so do the answers. */
static __always_inline void weft_plan_as_wrapped(struct weft_pkt *pkt)
{
        pkt->plan.flags |= WEFT_PLAN_WHOLE | WEFT_PLAN_TRACK;
        pkt->plan.module = weft_module_id;
}

/* How the flow is delivered. */
static __always_inline void weft_plan_delivery(struct weft_pkt *pkt, enum weft_delivery delivery)
{
        if (weft_claim(pkt, WEFT_CLAIM_DELIVERY))
                pkt->plan.delivery = delivery;
}

/* ---- questions ---------------------------------------------------------------------------- */

/* The service that the packet is for; NULL: none. Its backends: service_slots[slots .. + count]. */
static __always_inline const struct weft_service *weft_service_of(const struct weft_pkt *pkt)
{
        return pkt->service.id ? &pkt->service : NULL;
}

#define WEFT_AF_INET 2
#define WEFT_AF_INET6 10

/* The packet's type of service, or its class and flow label, as rules and routes look at them. */
static __always_inline __be32 weft_service_class(const struct __sk_buff *ctx, __u8 family)
{
        void *data = (void *) (long) ctx->data;
        const __be32 *head = data + ETH_HLEN;

        if ((void *) (head + 1) > (void *) (long) ctx->data_end)
                return 0;
        return family == 4 ? bpf_ntohl(*head) >> 16 & 0xff : *head & bpf_htonl(0x0fffffff);
}

/* What the routing table is asked with: plan.src -> plan.dst, as it came in. */
static __always_inline void weft_fill_lookup(const struct __sk_buff *ctx,
                                             const struct weft_pkt *pkt, struct bpf_fib_lookup *fib)
{
        fib->ifindex = pkt->ifindex;
        fib->l4_protocol = pkt->key.proto;
        fib->sport = pkt->plan.sport;
        fib->dport = pkt->plan.dport;
        if (pkt->key.family == 4) {
                fib->family = WEFT_AF_INET;
                fib->tos = weft_service_class(ctx, 4);
                fib->ipv4_src = pkt->plan.src.w[3];
                fib->ipv4_dst = pkt->plan.dst.w[3];
        } else {
                fib->family = WEFT_AF_INET6;
                fib->flowinfo = weft_service_class(ctx, 6);
                __builtin_memcpy(fib->ipv6_src, &pkt->plan.src, 16);
                __builtin_memcpy(fib->ipv6_dst, &pkt->plan.dst, 16);
        }
}

/* Asks the routing table; pkt->way afterwards. */
static __always_inline int weft_ask_route(struct __sk_buff *ctx, struct weft_way *way,
                                          struct bpf_fib_lookup *fib)
{
        fib->tot_len = 1; /* asks for the MTU of the route, from 5.12 on */
        way->asked = 1;
        way->result = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
        way->ifindex = fib->ifindex;
        way->mtu = fib->tot_len > 1 ? fib->tot_len : 0; /* mtu_result */
        way->family = fib->family == WEFT_AF_INET ? 4 : 6;
        way->gateway = (struct weft_addr) {};
        if (way->family == 4) {
                way->gateway.w[2] = bpf_htonl(0xffff);
                way->gateway.w[3] = fib->ipv4_dst;
        } else {
                __builtin_memcpy(&way->gateway, fib->ipv6_dst, 16);
        }
        __builtin_memcpy(way->dmac, fib->dmac, 6);
        __builtin_memcpy(way->smac, fib->smac, 6);
        return way->result;
}

/* Asks the routing table for plan.src -> plan.dst, once for each packet; pkt->way afterwards.
 * Returns BPF_FIB_LKUP_RET_*; RET_NOT_FWDED is also the answer for the node's own addresses. */
static __always_inline int weft_route_of(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct bpf_fib_lookup fib = {};

        if (pkt->way.asked)
                return pkt->way.result;
        weft_fill_lookup(ctx, pkt, &fib);
        return weft_ask_route(ctx, &pkt->way, &fib);
}

/* The node's address of the packet's family on an interface; NULL: none. */
static __always_inline const struct weft_addr *weft_node_address(const struct weft_pkt *pkt,
                                                                 __u32 ifindex)
{
        const struct weft_link *link = bpf_map_lookup_elem(&links, &ifindex);
        const struct weft_addr *a;

        if (!link)
                return NULL;
        a = pkt->key.family == 4 ? &link->addr4 : &link->addr6;
        return a->w[0] | a->w[1] | a->w[2] | a->w[3] ? a : NULL;
}

/* ---- tunnels ------------------------------------------------------------------------------ */

/* Who sent the packet: an endpoint's identity, that of a peer's section for what comes from there
 * without a tunnel or without one of its own, else the host's or the world's. */
static __always_inline __u32 weft_identity_of(const struct weft_pkt *pkt)
{
        const struct weft_endpoint *e;
        const struct weft_peer *peer;
        const struct weft_addr *own;

        e = pkt->hook == WEFT_FROM_ENDPOINT || pkt->host ? weft_endpoint_of(&pkt->key.src) : NULL;
        if (e)
                return e->identity;
        if (pkt->hook == WEFT_FROM_ENDPOINT)
                return WEFT_IDENTITY_UNKNOWN;
        if (pkt->hook == WEFT_FROM_OVERLAY && pkt->identity != WEFT_IDENTITY_REMOTE_NODE)
                return pkt->identity;
        peer = weft_peer_of(&pkt->key.src);
        if (peer)
                return peer->identity;
        if (pkt->hook == WEFT_FROM_OVERLAY)
                return pkt->identity;
        own = pkt->host ? weft_node_address(pkt, pkt->ifindex) : NULL;
        return own && weft_same_addr(own, &pkt->key.src) ? WEFT_IDENTITY_HOST : WEFT_IDENTITY_WORLD;
}

/* The flow goes to the peer through the tunnel of this generation, once something is to leave the
 * node; a flow whose answers come without a tunnel does not. */
static __always_inline void weft_plan_tunnel(struct weft_pkt *pkt, const struct weft_peer *peer)
{
        __u32 identity = weft_identity_of(pkt), index = peer->remote;
        struct weft_remote *r = bpf_map_lookup_elem(&remotes, &index);

        if (!r || !index || !weft_claim(pkt, WEFT_CLAIM_TUNNEL))
                return;
        if (identity == WEFT_IDENTITY_HOST)
                identity = WEFT_IDENTITY_REMOTE_NODE;
        pkt->plan.tunnel.key = identity << 8;
        pkt->plan.tunnel.remote = index;
        pkt->plan.tunnel.number = r->number;
}

/* All that the stage of a tunnel has to do, in phase ENCAP of FROM_ENDPOINT | FROM_UPLINK |
 * FROM_OVERLAY | TO_UPLINK: what goes to a peer that is reached through the tunnel goes into it.
 * Returns the stage's verdict. */
static __always_inline int weft_plan_tunnel_to_peer(struct weft_pkt *pkt)
{
        const struct weft_peer *peer = pkt->plan.endpoint ? NULL : weft_peer_of(&pkt->plan.dst);

        if (!peer || !(peer->flags & WEFT_PEER_TUNNEL))
                return WEFT_NEXT;
        weft_plan_tunnel(pkt, peer);
        return WEFT_DONE;
}
