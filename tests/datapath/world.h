/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A small world to run the real programs in: a network namespace with an uplink and two endpoints,
 * the engine and the real modules loaded by the core's own code, and a function that runs a packet
 * through one hook. The namespace and the programs are made once, by the runner; each test is a
 * process that finds them pinned and starts with empty tables, which it fills as the daemon would.
 *
 *     client ── router ──┬── up0  [node]  ep0 ── pod
 *                        └── node2 (remote pod)  ep1 ── pod2 */

#include <stdbool.h>
#include <stdint.h>

#include <weft/types.h>

#include "packet.h"
#include "tables/tables.h"

/* ---- who is who --------------------------------------------------------------------------- */

enum who {
        NODE,       /* the uplink's address */
        ROUTER,     /* default gateway */
        NODE2,      /* the peer, on the uplink's network */
        CLIENT,     /* outside, behind the router */
        WORLD,      /* something outside that endpoints talk to */
        PRIVATE,    /* outside, but in the non-masquerade list */
        EXTERNAL,   /* external address of the services */
        SECOND,     /* another one */
        CLUSTER,    /* cluster-ip of the services */
        POD,        /* local endpoint on ep0 */
        POD2,       /* local endpoint on ep1 */
        REMOTE_POD, /* endpoint of node2 */
        NOBODY,     /* address in the local pod CIDR without an endpoint */
        WHO,
};

struct weft_addr at(int family, enum who who);

/* Link-layer address: of the node's own side for NODE, of the pod's device for POD. CLIENT, WORLD,
 * PRIVATE: the router's; REMOTE_POD: node2's. */
struct mac mac_of(enum who who);

/* The host's side of an endpoint's device (POD, POD2). */
struct mac gateway_mac(enum who pod);

enum device { UPLINK, EP0, EP1, DEVICES };

/* ---- the world ---------------------------------------------------------------------------- */

/* What is loaded. */
enum variant {
        FULL,    /* native-routing, nodeport-snat, clusterip, bpf-masq, host-routing */
        LEGACY,  /* the same without host-routing: through the host's stack */
        SMALL,   /* FULL with a small flow table and few ports for SNAT, which the node uses itself
                   too */
        GUARDED, /* LEGACY with a stage of somebody else at both exit hooks, which shuts SHUT_PORT
                  */
        DIRECT,  /* FULL with nodeport-dsr instead of nodeport-snat */
        DIRECT_LEGACY,  /* LEGACY with it */
        DIVIDED,        /* FULL with both and hybrid */
        WRAPPED,        /* DIRECT with dispatch = ipip */
        WRAPPED_LEGACY, /* DIRECT_LEGACY with it */
        VXLAN,          /* FULL with vxlan, by the engine, instead of native-routing */
        GENEVE,         /* geneve, by the engine, and host-routing */
        WATCHED,        /* FULL behind two early stages in every hook, see watcher/ */
        WATCHED_VXLAN,  /* VXLAN behind them */
        /* of the bench alone */
        VXLAN_DEVICE, /* VXLAN by a device of the kernel, which is not there */
        MODULES_2,    /* native-routing and nodeport-snat, */
        MODULES_4,    /* bpf-masq and host-routing, too, */
        MODULES_8,    /* and as many of somebody else's that have nothing to say */
        MODULES_16,
        VARIANTS,
};

#define TESTED_VARIANTS ((1u << VXLAN_DEVICE) - 1)

#define SNAT_LOW                                                                                   \
        61000u /* the ports that services and masquerading give out, SMALL_PORTS of them in SMALL  \
                */
#define SHUT_PORT 4242u
#define SNAT_HIGH 65535u
#define SMALL_PORTS 4u
#define SMALL_TABLE 256u
#define NODE_PORT 30080u        /* TCP and UDP, to REMOTE_POD */
#define LOCAL_PORT 30081u       /* TCP and UDP, to POD */
#define EMPTY_PORT 30082u       /* TCP and UDP, no backend: reject */
#define SILENT_PORT 30083u      /* TCP and UDP, no backend: drop */
#define SERVICE_PORT 80u        /* of the first service on EXTERNAL and SECOND */
#define LOCAL_SERVICE_PORT 81u  /* of the second on EXTERNAL */
#define SOCKET_SERVICE_PORT 84u /* its backend is a socket of the node */
#define BACKEND_PORT 8080u

struct world {
        enum variant variant;
        struct tables *tables;
        int programs[WEFT_HOOKS]; /* -1: the hook has none */
        int to_overlay;           /* exit program of a tunnel's device; -1: none */
        uint32_t ifindex[DEVICES];
        uint32_t hz;
};

/* In the runner, as root, before any test: makes the namespaces and loads the variants of the set
 * (bits 1 << variant). False with the reason on stderr. The environment says where things are:
 * WEFT_ENGINE (engine.bpf.o), WEFT_MODULES, WEFT_TEST_MODULES, WEFT_TEST_WATCHER (directories of
 * NAME.so); WEFT_TABLES (an object with the core's tables): these are made from it, and small. */
bool world_prepare(uint32_t variants);
/* Then: runs the tests in a child, and loads each variant when one of them opens it first. The exit
 * status of the child. */
int world_serve(int (*run)(void *data), void *data);
/* Lets go of the programs; after a world_prepare() that failed, too. */
void world_finish(void);

/* In a test: the variant with empty flow tables and the tables filled with both families. Fails the
 * test where that does not work. */
struct world *world_open(enum variant variant);
struct world *world_close(struct world *w);
void world_closep(struct world **w);
#define _cleanup_world_ _cleanup_(world_closep)

/* Tables, as the daemon would fill them. world_set_service(): backend NULL: none. */
/* The tunnel of VXLAN or GENEVE: REMOTE_POD is reached through it, NODE2 is its other end, at its
 * address of the family. */
void world_set_tunnel(struct world *w, int underlay);
void world_set_link(struct world *w, bool with4, bool with6, uint32_t mtu);
void world_set_endpoint(struct world *w, enum who pod);
struct service {
        const char *name; /* the family is appended: one service each */
        uint16_t port, node_port;
        uint8_t proto;
        enum who external[2];
        size_t n_external;
        bool cluster; /* CLUSTER is an address of it, too */
        enum who backends[2];
        size_t n_backends;
        bool drop_empty;
        enum weft_forwarding forwarding;
};
void world_set_service(struct world *w, int family, const struct service *s);
void world_set_services(struct world *w); /* those of the constants above, both families */

/* ---- running ------------------------------------------------------------------------------ */

enum verdict { NEXT = -1, PASS = 0, SHOT = 2, REDIRECT = 7 };
enum { XDP_GOES_ON = 2, XDP_REDIRECTED = 4 };

struct outcome {
        int verdict;
        int error; /* of the run itself: 0, or negative errno */
        uint32_t mark;
        struct packet out;
};

/* What goes with the packet. */
struct skb {
        enum device device;
        uint32_t mark, gso_size, gso_segs;
};

struct outcome world_run(struct world *w, enum weft_hook hook, const struct skb *skb,
                         const struct packet *in);

/* ---- looking ------------------------------------------------------------------------------ */

uint64_t world_event(struct world *w, enum weft_event event);
/* Packets dropped for the reason at the hook, by whichever module. */
uint64_t world_drops(struct world *w, enum weft_drop reason, enum weft_hook hook);
uint64_t world_all_drops(struct world *w);

/* One entry of the flow tables, copied. */
struct flow {
        struct weft_addr src, dst, new_src, new_dst;
        uint16_t sport, dport, new_sport, new_dport; /* host order */
        uint8_t proto, side;
        struct weft_flow f;
        uint64_t now; /* jiffies */
};

/* All entries that have not expired, at most max; the count of all. */
size_t world_flows(struct world *w, struct flow *flows, size_t max);

/* The entry that a packet of this shape, seen at this side, would find. */
bool world_flow(struct world *w, const struct shape *s, enum weft_side side, struct flow *ret);

/* Sets the deadline of the entry that this packet would find; seconds from now, negative: past. */
void world_set_deadline(struct world *w, const struct shape *s, enum weft_side side, int seconds);

/* Seconds that the flow has left, rounded up. */
long flow_seconds(struct world *w, const struct flow *f);

/* Entries without a partner that points back, expired ones not counted. */
size_t world_orphans(struct world *w);

/* Makes the addresses of the flow's next hop ones that are no longer believed. */
void world_age_nexthop(struct world *w, const struct flow *f);

/* Removes every flow. */
void world_forget(struct world *w);
