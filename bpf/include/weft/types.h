/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The words that both halves of weft share: addresses, keys, flows and the values of the core's
 * tables, as they lie in memory. Plain C over <linux/types.h>, so that eBPF programs and the daemon
 * include the same file.
 *
 * Addresses are 16 bytes everywhere but in the flow tables of IPv4, where size is speed: an IPv4
 * address is kept as IPv4-mapped IPv6 (::ffff:a.b.c.d, RFC 4291 §2.5.5.2). So a module is
 * dual-stack without asking for the family. Ports and addresses are in network order, everything
 * else in the machine's. Times are in jiffies of the running kernel unless a name says otherwise.
 */

#include <linux/types.h>

/* The eBPF half's ABI: what a stage may rely on, this file and stage.bpf.h. The minor grows with
 * what is added, the major where something moved that relocation cannot follow: sizes and meanings.
 */
#define WEFT_STAGE_ABI_MAJOR 1
#define WEFT_STAGE_ABI_MINOR 1

/* A stage reads these structs where the running engine has their fields, not where the author's
 * header had them: each access is relocated against the engine's BTF when the stage is loaded. So
 * they may grow. The engine itself, which defines WEFT_ENGINE, is what they are relocated against.
 */
#if defined(__bpf__) && !defined(WEFT_ENGINE)
#define WEFT_RELOCATED __attribute__((preserve_access_index))
#pragma clang attribute push(WEFT_RELOCATED, apply_to = record)
#endif

struct weft_addr {
        __be32 w[4];
};

/* Where a packet was seen. One tuple can be seen at several places of one node, and means something
 * else at each. */
enum weft_side {
        WEFT_SIDE_UPLINK,  /* came in from outside */
        WEFT_SIDE_INSIDE,  /* came from a local endpoint (the flow remembers its interface) or from
                              the node's own stack (the flow remembers WEFT_HOST) */
        WEFT_SIDE_OVERLAY, /* came out of a tunnel */
};

#define WEFT_HOST 0xffffffffu /* weft_flow.ifindex: the node's own stack */

enum weft_hook {
        WEFT_FROM_ENDPOINT,
        WEFT_TO_ENDPOINT,
        WEFT_FROM_UPLINK,
        WEFT_TO_UPLINK,
        WEFT_FROM_OVERLAY,
        WEFT_XDP_UPLINK,
        WEFT_HOOKS,
};
#define WEFT_HOOK_NAMES                                                                            \
        {                                                                                          \
                "from-endpoint", "to-endpoint", "from-uplink", "to-uplink", "from-overlay",        \
                        "xdp-uplink"                                                               \
        }

/* The named steps inside a hook, in their order. A flow that is decided again runs without SERVICE
 * and MASQUERADE: what they said is the durable part of its plan. */
enum weft_phase {
        WEFT_EARLY, /* every packet, before anything of weft's; from stage ABI 1.1 on */
        WEFT_FILTER,
        WEFT_SERVICE,
        WEFT_ROUTE,
        WEFT_MASQUERADE,
        WEFT_ENCAP,
        WEFT_DELIVER,
        WEFT_PHASES,
};
#define WEFT_PHASE_NAMES                                                                           \
        {                                                                                          \
                "early", "filter", "service", "route", "masquerade", "encap", "deliver"            \
        }

/* How a packet goes on once its plan is applied. */
enum weft_delivery {
        WEFT_STACK,    /* through the host's stack; source rewritten where it leaves */
        WEFT_ENDPOINT, /* to the peer device of a local endpoint */
        WEFT_WIRE,     /* out of an interface, link-layer addresses from the next-hop table */
        WEFT_TUNNEL,   /* encapsulated */
        WEFT_LOCAL,    /* to a socket of the node */
        WEFT_DELIVERIES,
};
#define WEFT_DELIVERY_NAMES                                                                        \
        {                                                                                          \
                "stack", "endpoint", "wire", "tunnel", "local"                                     \
        }

/* ---- flows -------------------------------------------------------------------------------- */

struct weft_key4 {
        __be32 saddr, daddr;
        __be16 sport, dport; /* ICMP echo: the identifier is the requester's port, the other 0 */
        __u8 proto, side;
        __u16 zero;
};

struct weft_key6 {
        struct weft_addr saddr, daddr;
        __be16 sport, dport;
        __u8 proto, side;
        __u16 zero;
};

enum weft_flow_state {
        WEFT_NEW,         /* no answer yet: half open, may be replaced by newcomers */
        WEFT_ESTABLISHED, /* seen in both directions */
        WEFT_CLOSING,     /* both FINs or a RST seen */
};
#define WEFT_FLOW_STATE_NAMES                                                                      \
        {                                                                                          \
                "new", "established", "closing"                                                    \
        }

enum weft_flow_flag {
        WEFT_FLOW_REPLY = 1, /* this entry is the answer's direction */
        WEFT_FLOW_FIN = 2,   /* FIN seen in this direction */
        WEFT_FLOW_PORT =
                4, /* the pair holds a port that was searched for: keep it through TIME_WAIT */
        WEFT_FLOW_WHOLE = 8,   /* both directions pass the node without its stack */
        WEFT_FLOW_DIRECT = 16, /* DSR at the backend's node: answers go straight to the client */
        WEFT_FLOW_TELL = 32,   /* DSR at the first node: the backend's node knows nothing yet */
        WEFT_FLOW_MOVED = 64,  /* DIRECT: the first node gave the client another port */
        WEFT_FLOW_LAST = 128,  /* the other direction's FIN was the second; this one answers it */
};

/* How the backend's node is told which address of a service its answers are to come from. */
enum weft_dsr {
        WEFT_DSR_NONE,
        WEFT_DSR_OPTION, /* by an IPv4 option or an IPv6 destination option; of what goes through a
                            tunnel, by an option of Geneve */
        WEFT_DSR_IPIP,   /* every packet as it came, in another one to the backend's address */
};

/* What of the packet a plan changes. */
enum weft_set {
        WEFT_SET_SRC = 1, /* source address and port */
        WEFT_SET_DST = 2, /* destination address and port */
};

/* How a flow is delivered, in one word, so that deciding again is a single store. */
union weft_route {
        __u64 word;
        struct {
                __u16 nexthop;        /* index; 0: none */
                __u16 nexthop_number; /* its number when decided, low bits */
                __u16 mtu;            /* of the way: bytes of the IP packet; 0: not checked */
                __u8 delivery;        /* enum weft_delivery */
                __u8 exit;            /* 1: source is rewritten at the exit hook, not at entry */
        };
};

/* How the packets of a flow are carried to another node, in one word too; all zero: as they are. Of
 * WEFT_TUNNEL_WRAP: index of the backend, next hop, number of that. */
union weft_tunnel {
        __u64 word;
        struct {
                __u32 key;    /* identity of the sender << 8, as it stands in the header */
                __u16 remote; /* index in the table of remotes; 0: no tunnel */
                __u16 number; /* its number when decided, low bits */
        };
};

/* One direction of a connection. What stands before "living" is written before the entry can be
 * found and never after (but `tunnel`, `route` and `epoch`, which the chain renews in this order).
 */
struct weft_flow {
        __u64 epoch; /* generation << 32 | world under which the route was decided; 0: decide */
        union weft_route route;
        __u16 addr_delta, l4_delta; /* one's-complement difference of the addresses; with ports */
        __be16 sport, dport;        /* after translation */
        __u32 ifindex;              /* inside: where alone this key may come from; else 0 */
        __u32 backend;              /* index in the backend table; 0: none */
        __u16 backend_number;       /* its number when chosen */
        __u16 module;               /* who decided: id in the generation's module list */
        __u8 set, partner_side;     /* enum weft_set; side under which the other direction stands */
        __u8 hook, dsr;             /* hook that decided (enum weft_hook); enum weft_dsr */
        union weft_tunnel tunnel;
        __u64 created;
        /* living: written by replay, by whichever CPU sees the packet */
        __u64 deadline;
        __u32 lifetime;
        __u8 watch;  /* TCP flags (and WEFT_WATCH_ALL) that leave the short path */
        __u8 state;  /* enum weft_flow_state */
        __u8 flags;  /* enum weft_flow_flag */
        __u8 at_fin; /* LAST: `packets` when that FIN came, low bits; the same still: no answer */
        __u64 packets, bytes;
};

#define WEFT_WATCH_ALL 0x80 /* set in every packet's flags: a watch with it sees every packet */

struct weft_flow4 {
        struct weft_flow f;
        struct weft_key4 key; /* its own: hash elements are reused at once */
        __be32 saddr, daddr;  /* after translation */
};

struct weft_flow6 {
        struct weft_flow f;
        struct weft_key6 key;
        struct weft_addr saddr, daddr;
        __u32 pad;
};

/* Does the answer's translation not give the partner's key? That is turned round from its own key
 * then, for the packets of the other direction come as they are delivered; but with the port that
 * the client has, unless the first node exchanged that already. */
static inline int weft_answers_directly(const struct weft_flow *f)
{
        return (f->flags & (WEFT_FLOW_DIRECT | WEFT_FLOW_REPLY)) ==
               (WEFT_FLOW_DIRECT | WEFT_FLOW_REPLY);
}

/* The partner's key is the translated tuple, turned round, at partner_side. */
static inline void weft_partner4(const struct weft_flow4 *flow, struct weft_key4 *ret)
{
        *ret = (struct weft_key4) {
                .saddr = flow->daddr,
                .daddr = flow->saddr,
                .sport = flow->f.dport,
                .dport = flow->f.sport,
                .proto = flow->key.proto,
                .side = flow->f.partner_side,
        };
        if (!weft_answers_directly(&flow->f))
                return;
        ret->saddr = flow->key.daddr;
        ret->daddr = flow->key.saddr;
        ret->sport = flow->f.flags & WEFT_FLOW_MOVED ? flow->key.dport : flow->f.dport;
        ret->dport = flow->key.sport;
}

static inline void weft_partner6(const struct weft_flow6 *flow, struct weft_key6 *ret)
{
        *ret = (struct weft_key6) {
                .saddr = flow->daddr,
                .daddr = flow->saddr,
                .sport = flow->f.dport,
                .dport = flow->f.sport,
                .proto = flow->key.proto,
                .side = flow->f.partner_side,
        };
        if (!weft_answers_directly(&flow->f))
                return;
        ret->saddr = flow->key.daddr;
        ret->daddr = flow->key.saddr;
        ret->sport = flow->f.flags & WEFT_FLOW_MOVED ? flow->key.dport : flow->f.dport;
        ret->dport = flow->key.sport;
}

/* ---- the state of the world --------------------------------------------------------------- */

/* endpoints: address -> local workload. */
struct weft_endpoint {
        __u32 ifindex; /* host side */
        __u32 nexthop; /* its slot in the next-hop table */
        __u32 identity;
        __u32 spare;
};

/* services: (address, port, protocol) -> backends; (address, 0, 0) says that the address is a
 * service's own (not the node's): an unknown port on it is dropped and ping is answered. (0, port,
 * protocol), with the zero of either family, is the node port of every node, for endpoints. */
struct weft_service_key {
        struct weft_addr addr;
        __be16 port;
        __u8 proto;
        __u8 zero;
};

enum weft_service_flag {
        WEFT_SERVICE_ADDRESS = 1,        /* the (address, 0, 0) entry */
        WEFT_SERVICE_DROP_EMPTY = 2,     /* no-backend = drop; without it: reject */
        WEFT_SERVICE_EXTERNAL_LOCAL = 4, /* from outside: backends of this node alone */
        WEFT_SERVICE_INTERNAL_LOCAL = 8, /* from endpoints: backends of this node alone */
        WEFT_SERVICE_SOURCE_RANGE = 16,  /* from outside: only who is in source_ranges */
        WEFT_SERVICE_CLUSTER_IP = 32,    /* what this entry's address is: for endpoints alone, */
        WEFT_SERVICE_NODE_PORT = 64,     /* the node's own; without either: one from outside */
};

enum weft_algorithm { WEFT_RANDOM, WEFT_MAGLEV, WEFT_LEAST_CONNECTIONS };
enum weft_forwarding { WEFT_FORWARDING_AUTO, WEFT_FORWARDING_SNAT, WEFT_FORWARDING_DSR };

/* All addresses of one family of a service have the same value, but for the two flags that say what
 * an address is. Its slots stand in one stretch: first those of all its backends that take new
 * flows, behind them the same for those on this node. */
struct weft_service {
        __u32 id;          /* of the service section: one for all its addresses */
        __u32 slots;       /* first index in the slot table */
        __u32 count;       /* slots of all backends */
        __u32 local;       /* slots of this node's, from slots + count on */
        __u32 flags;       /* enum weft_service_flag */
        __u32 maglev;      /* its lookup table; 0: none */
        __u32 maglev_size; /* entries of that, a prime */
        __u32 seed;        /* of the hash that Maglev looks up: the same on every node */
        __u64 affinity;    /* jiffies that a client keeps its backend; 0: none */
        __u8 algorithm;    /* enum weft_algorithm */
        __u8 forwarding;   /* enum weft_forwarding */
        __u16 spare;
        __u32 spare2[5];
};

/* service_slots: array. Random: backends repeated by weight; else each once. */
struct weft_service_slot {
        __u32 backend; /* index */
        __u32 weight;
};

/* backends: array by index; index 0 is never used. A backend of two services has two indices. */
struct weft_backend {
        struct weft_addr addr;
        __be16 port;
        __u8 proto;
        __u8 state;   /* 0: in use; 1: removed */
        __u16 number; /* moves when the index comes to mean another backend, or none */
        __u16 spare;
        /* flows stored, flows seen to close; atomic. The difference is what lives, as far as the
         * packets say it: the daemon's collection puts right what ended without a word. */
        __u32 opened, closed;
        __u32 service; /* id */
        __u32 spare2;
};

/* maglev: the lookup tables of Maglev hashing (Eisenbud et al., NSDI 2016), cut into pieces so that
 * an element of the map, with what the kernel adds, fills 2 KiB. */
#define WEFT_MAGLEV_PIECE 496

struct weft_maglev_key {
        __u32 table, piece;
};

struct weft_maglev_piece {
        __u32 backend[WEFT_MAGLEV_PIECE]; /* index */
};

/* affinity: LRU of (client, service) -> the backend it had. */
struct weft_affinity_key {
        struct weft_addr client;
        __u32 service;
};

struct weft_affinity {
        __u32 backend; /* index */
        __u16 number, spare;
        __u64 used; /* jiffies */
};

/* members: (service, backend) -> may a client that had it come back? Of services with affinity. */
struct weft_member_key {
        __u32 service, backend;
};

enum weft_member {
        WEFT_MEMBER = 1,      /* takes new flows */
        WEFT_MEMBER_LOCAL = 2 /* … of those for this node alone */
};

/* placed: (service, address) -> the backend of this node that has it, for packets that another node
 * sent to that address; it may take none but those. Of several ports at one address, the first's.
 */
struct weft_placed_key {
        __u32 service;
        struct weft_addr addr;
};

/* source_ranges: LPM of (32 bits of service id, address) -> nothing. */
struct weft_source_key {
        __u32 prefixlen; /* over 160 bits */
        __u32 service;
        struct weft_addr addr;
};

/* Next hops: array by index. 1 .. WEFT_NEXTHOP_OWN-1 are handed out by the daemon (one for each
 * local endpoint), the rest by the datapath, which finds a slot by hashing interface and gateway.
 */
#define WEFT_NEXTHOPS 65536
#define WEFT_NEXTHOP_OWN 16384
#define WEFT_NEXTHOP_PROBES 8

enum weft_nexthop_flag {
        WEFT_NEXTHOP_MARK = 1, /* its exit program is told by the mark to stand aside */
        WEFT_NEXTHOP_PEER = 2, /* redirect to the peer device (veth, netkit) */
};

struct weft_nexthop {
        __u32 ifindex; /* 0: free */
        __u32 claims;  /* try-lock of the datapath: whoever reads 1 after adding 1 may write */
        __u8 dmac[6], smac[6]; /* 8-byte aligned: dmac moves by one 8-byte store */
        __u32 number;          /* moves when the slot comes to mean something else */
        __u64 fresh; /* jiffies until which the addresses are believed; for ever: INT64_MAX */
        struct weft_addr gateway;
        __u32 flags;
        __u32 spare;
};

/* links: ifindex -> what the node knows of an uplink. */
struct weft_link {
        struct weft_addr addr4; /* the node's address there, mapped; all zero: none */
        struct weft_addr addr6;
        __u32 flags; /* enum weft_nexthop_flag */
        __u32 mtu;
};

/* peers: LPM of (prefix length over 128 bits, address) -> other node. Pod CIDRs of a peer, and its
 * own addresses. */
enum weft_peer_flag {
        WEFT_PEER_NODE = 1,   /* the prefix is the node's own address, not one of its pods' */
        WEFT_PEER_TUNNEL = 2, /* reached through the tunnel */
};

struct weft_peer_key {
        __u32 prefixlen;
        struct weft_addr addr;
};

struct weft_peer {
        struct weft_addr node;
        __u32 identity;
        __u32 number;
        __u32 flags;  /* enum weft_peer_flag */
        __u32 remote; /* index in the table of remotes; 0: none */
};

/* remotes: array by index, the other ends of tunnels; 0 is never used. nodes: their address ->
 * index. The way to a remote is found once for all flows that go there, and renewed as a flow's is:
 * `local` and `route` first, `epoch` after. */
#define WEFT_REMOTES 16384

struct weft_remote {
        struct weft_addr node;
        struct weft_addr local; /* source of what is sent there */
        union weft_route route; /* next hop; mtu: of the outer packet's way */
        __u64 epoch;            /* under which the way was found; 0: look */
        __u8 mac[6];            /* inner destination */
        __u16 spare;
        __u32 number; /* moves when the index comes to mean another node, or none */
        __u32 spare2;
};

/* overlays: array by the number of a generation's tunnel, what of it moves while it runs. */
#define WEFT_OVERLAYS 8

struct weft_overlay {
        __u32 ifindex; /* of the tunnel's device; 0: there is none (now) */
        __u32 mtu;     /* of the packets carried */
        __u8 mac[6];   /* inner source */
        __u16 spare;
};

/* Who encapsulates. */
enum weft_tunnel_mode {
        WEFT_TUNNEL_NONE,
        WEFT_TUNNEL_ENGINE, /* the engine, from the header below */
        WEFT_TUNNEL_DEVICE, /* a flow-based device of the kernel */
        WEFT_TUNNEL_WRAP,   /* none between nodes: what WEFT_DSR_IPIP says is wrapped */
};

/* What a tunnel's packets carry between UDP and the inner Ethernet header: eight bytes, of which 4
 * to 6 are the key, and perhaps options (VXLAN: RFC 7348 §5; Geneve: RFC 8926 §3.4). */
#define WEFT_TUNNEL_HEADER 8
#define WEFT_TUNNEL_OPTIONS 64 /* most bytes of them that are looked at */

struct weft_tunnel_header {
        __u8 header[WEFT_TUNNEL_HEADER]; /* as sent, key 0, no options */
        __u8 mask[WEFT_TUNNEL_HEADER];   /* its bits that must be so in what is received */
        __u8 options;                    /* bits of byte 0: length of the options, in words */
        __u8 critical;                   /* bits of byte 1: one of the options must be understood */
        __be16 port;                     /* UDP destination port */
};

/* Identities with a meaning of their own; 24 bits. */
enum weft_identity {
        WEFT_IDENTITY_UNKNOWN = 0,
        WEFT_IDENTITY_HOST = 1, /* never on the wire: goes out as REMOTE_NODE */
        WEFT_IDENTITY_WORLD = 2,
        WEFT_IDENTITY_REMOTE_NODE = 6,
};

/* fragments: LRU of datagram -> ports of its first fragment. */
struct weft_fragment_key {
        struct weft_addr saddr, daddr;
        __be32 id;
        __u8 proto, side;
        __u16 zero;
};

struct weft_fragment {
        __be16 sport, dport;
};

/* The address filter: WEFT_FILTER_BITS bits in an array of u64. A clear bit says "certainly none of
 * ours" for the cost of an array lookup; a set bit asks the hash tables. Every address of an
 * endpoint and every (address, 0, 0) and (address, port, protocol) key of a service has its bit; so
 * has every network of 16 bits (IPv6: 48) in which a peer's pods are reached through a tunnel. */
#define WEFT_FILTER_SHIFT 20
#define WEFT_FILTER_WORDS (1 << (WEFT_FILTER_SHIFT - 6))

static inline __u32 weft_filter_mix(__u32 h)
{
        return (h * 2654435761u) >> (32 - WEFT_FILTER_SHIFT);
}

/* IPv4 address, in network order, and port and protocol (0, 0 for the address alone) -> bit. */
static inline __u32 weft_filter_bit4(__be32 addr, __be16 port, __u8 proto)
{
        return weft_filter_mix(addr ^ (((__u32) port << 8 | proto) * 0x9e3779u));
}

/* The same for IPv6. */
static inline __u32 weft_filter_bit6(const __be32 *w, __be16 port, __u8 proto)
{
        __u32 fold = w[0] ^ (w[1] * 0x85ebca6bu) ^ (w[2] * 0xc2b2ae35u) ^ (w[3] * 0x27d4eb2fu);

        return weft_filter_mix(fold ^ (((__u32) port << 8 | proto) * 0x9e3779u));
}

/* The network that an address is in, -> bit. */
#define WEFT_FILTER_NET 0xff /* no protocol */

static inline __u32 weft_filter_net4(__be32 addr)
{
        const __u8 *b = (const __u8 *) &addr;

        return weft_filter_bit4(b[0] << 8 | b[1], 0, WEFT_FILTER_NET);
}

static inline __u32 weft_filter_net6(const __be32 *w)
{
        const __u8 *b = (const __u8 *) &w[1];

        return weft_filter_bit4(w[0] ^ (b[0] << 8 | b[1]) * 0x85ebca6bu, 6, WEFT_FILTER_NET);
}

/* world: one element. */
struct weft_world {
        __u32 epoch; /* moves for routes and rules that cover an address in use */
        __u32 flags; /* enum weft_world_flag */
};

/* Policy rules (`ip rule`) of the node that choose by a packet's mark: only its stack, where marks
 * are set, can say which way such a packet goes. */
enum weft_world_flag {
        WEFT_WORLD_MARKS4 = 1,
        WEFT_WORLD_MARKS6 = 2,
};

/* ---- counters ----------------------------------------------------------------------------- */

/* forwards: per-CPU array, index hook * WEFT_DELIVERIES + delivery. drops: per-CPU hash. */
struct weft_count {
        __u64 packets, bytes;
};

struct weft_drop_key {
        __u16 reason; /* enum weft_drop, or WEFT_OWN_REASON + n of the module */
        __u16 module; /* id in the generation; 0: the engine */
        __u32 hook;
};

/* A module's own reasons are numbered from here on, see WEFT_DROP_OWN. */
#define WEFT_OWN_REASON 0x80
#define WEFT_OWN_REASONS 16

enum weft_drop {
#define WEFT_DROP_REASON(name, text) WEFT_DROP_##name,
#include "drop-reasons.def"
#undef WEFT_DROP_REASON
        WEFT_DROPS
};

/* events: per-CPU array of __u64, one for each thing worth counting that is no drop. */
enum weft_event {
#define WEFT_EVENT(name, text) WEFT_EVENT_##name,
#include "events.def"
#undef WEFT_EVENT
        WEFT_EVENTS
};

#ifdef WEFT_RELOCATED
#pragma clang attribute pop
#endif

/* ---- the prog array of a generation ------------------------------------------------------- */

enum weft_slot {
#define WEFT_SLOT(name, program) WEFT_SLOT_##name,
#include "slots.def"
#undef WEFT_SLOT
        WEFT_SLOT_ENGINE_END,
        WEFT_SLOT_STAGES = 24,
};

#define WEFT_STAGES_PER_HOOK 28
#define WEFT_STAGE_SLOT(hook, n) (WEFT_SLOT_STAGES + (hook) *WEFT_STAGES_PER_HOOK + (n))
/* Where the early stages of a hook go on to. */
#define WEFT_ENTRY_SLOT(hook) (WEFT_STAGE_SLOT(WEFT_HOOKS, 0) + (hook))
#define WEFT_SLOTS WEFT_ENTRY_SLOT(WEFT_HOOKS)
#define WEFT_SLOT_UNSET                                                                            \
        0xffffffffu /* what a constant is before the core sets it: no tail call succeeds */
