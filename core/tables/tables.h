/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The core's tables: the pinned eBPF maps that hold the state of the world, and the only code that
 * writes them from user space. Every change is atomic for a packet: build new, flip one entry, free
 * the old. Layouts: bpf/include/weft/types.h. */

#include <stdbool.h>
#include <stdint.h>

#include <bpf/libbpf.h>
#include <weft/types.h>

#include "config/config.h"
#include "error.h"

struct tables;

/* Jiffies of the running kernel as the monotonic clock tells them; hz: per second. */
uint64_t tables_jiffies(uint32_t hz);

struct tables_settings {
        const char *bpffs;        /* directory on a bpffs; maps are pinned in BPFFS/maps */
        uint64_t flow_table_size; /* entries of each family; 0: by RAM */
        uint32_t hz;              /* jiffies per second */
        bool dry;                 /* maps of their own, never pinned; bpffs is not looked at */
        bool small; /* room for a handful of objects, and of flows where no size is said */
};

/* Opens or makes every shared map that the engine's object defines (all but "chain" and "scratch"):
 * a pinned one of the same layout is used as it is with what it holds, one of another layout is
 * -EUCLEAN with both layouts in the reason. Only the size of a flow table may differ from what is
 * asked for: it stays what it was until the pins are removed (weftctl cleanup), because the flows
 * in it are worth more. -EMEDIUMTYPE: BPFFS is not on a bpffs. object, size: bytes of engine.bpf.o.
 */
int tables_open(const struct tables_settings *settings, const void *object, size_t size,
                struct tables **ret, struct weft_error *reterr);
/* Dry tables: forgets every flow and every drop. */
void tables_forget(const struct tables *t);
/* Maps stay pinned. */
struct tables *tables_close(struct tables *t);

/* File descriptor of a shared map by name; -ENOENT. Owned by the tables. */
int tables_fd(const struct tables *t, const char *name);
/* Makes every map of an opened (not loaded) object that has the name of a shared one be that one.
 */
int tables_share(const struct tables *t, struct bpf_object *o, struct weft_error *reterr);

/* ---- endpoints, links, peers -------------------------------------------------------------- */

struct table_endpoint {
        const struct weft_addr *addrs;
        size_t n_addrs;
        uint32_t ifindex, identity;
        uint8_t mac[6], gateway_mac[6]; /* of the endpoint's device; of the host side */
        bool has_peer;                  /* veth or netkit: redirect to the peer works */
        bool by_device;                 /* and is not wanted: to-endpoint is to see every packet */
};

/* Adds or changes the endpoint NAME: its next-hop slot first, then each address, its filter bit
 * before its entry. Changing the device or MAC moves the slot's number, so that its flows decide
 * again. -EEXIST: an address is another endpoint's; -ENOSPC: no slot is left. */
int tables_set_endpoint(struct tables *t, const char *name, const struct table_endpoint *e,
                        struct weft_error *reterr);
void tables_del_endpoint(struct tables *t, const char *name);

int tables_set_link(struct tables *t, uint32_t ifindex, const struct weft_link *link);
void tables_del_link(struct tables *t, uint32_t ifindex); /* and its next hops */

/* -E2BIG: pods behind a tunnel, and the prefix is too short for the address filter. */
int tables_set_peer(struct tables *t, const struct weft_prefix *prefix,
                    const struct weft_peer *peer);
void tables_del_peer(struct tables *t, const struct weft_prefix *prefix);

/* Makes a node one that tunnels lead to and come from; *ret is its index, for weft_peer.remote.
 * -ENOSPC: there are too many. */
int tables_set_node(struct tables *t, const struct weft_addr *node, uint32_t *ret);
/* Its flows end with PEER_GONE, and what it sends is dropped. */
void tables_del_node(struct tables *t, const struct weft_addr *node);
/* The link-layer address that a node is given inside a tunnel, until it has shown another. */
void tunnel_mac(const struct weft_addr *node, uint8_t ret[static 6]);
/* What moves of the tunnel of generation NUMBER. */
void tables_set_overlay(struct tables *t, uint32_t number, const struct weft_overlay *o);

/* A neighbour's address: one 8-byte store in each next hop that goes there. No epoch moves. */
void tables_neighbour(struct tables *t, uint32_t ifindex, const struct weft_addr *addr,
                      const uint8_t mac[6]);

/* enum weft_world_flag; another value moves the epoch. */
void tables_set_world_flags(struct tables *t, uint32_t flags);
/* Moves the world epoch: every flow decides its way again at its next packet. */
void tables_move_epoch(struct tables *t);

/* ---- services ----------------------------------------------------------------------------- */

/* All services are about to be set, or deleted, anew: until each was, others may take from it the
 * addresses and ports that it had. */
void tables_services_begin(struct tables *t);
/* Makes the service be as S says, on its external and load-balancer addresses and, for a node port,
 * on each of node_addrs. Backends that are the same keep their index; a removed backend's number
 * moves. Slots are written before the entry that points at them; the entry is one update. On
 * failure nothing has changed. -EEXIST: an address and port is another service's; -ENOSPC, -E2BIG:
 * a table is full. */
int tables_set_service(struct tables *t, const struct config_service *s,
                       const struct weft_addr *node_addrs, size_t n_node_addrs,
                       struct weft_error *reterr);
void tables_del_service(struct tables *t, const char *name);
/* Flows that this node sends to a backend of the service; what ended without a packet is counted
 * until the next pass of collection. */
uint32_t tables_backend_flows(struct tables *t, const struct config_service *service,
                              const struct config_backend *backend);

/* After a start has set all it knows: removes what the predecessor left and nobody set again. */
void tables_settle(struct tables *t);

/* ---- flows -------------------------------------------------------------------------------- */

struct flow_view {
        struct weft_addr saddr, daddr, new_saddr, new_daddr;
        const struct weft_flow *flow; /* the rest; valid during the call */
        uint8_t proto, side;
        __be16 sport, dport;
        bool expired;
        uint64_t now; /* jiffies */
};

/* Calls f for each entry of both tables, expired ones too; stops where f returns non-zero and
 * returns that. */
int tables_each_flow(struct tables *t, int (*f)(void *data, const struct flow_view *v), void *data);
/* Takes out the flows that bear this address as the node's: it is gone, so no answer can come.
 * Their next packets begin anew. The number of flows. */
size_t tables_forget_address(struct tables *t, const struct weft_addr *a);

/* The same in pieces, for who must not stay long: what comes and goes meanwhile is seen or not.
 * NULL: no memory. */
struct flow_walk;
struct flow_walk *flow_walk_new(struct tables *t);
/* A few hundred entries; *ret_done where they were the last. 0, a negative errno, or what f
 * returned when that was not 0. */
int flow_walk_next(struct flow_walk *w, int (*f)(void *data, const struct flow_view *v), void *data,
                   bool *ret_done);
struct flow_walk *flow_walk_free(struct flow_walk *w);

/* Entries by enum weft_flow_state, and those that only wait to be collected: as the last whole pass
 * of the collection saw them. */
struct flow_counts {
        uint64_t states[3], expired;
        uint64_t entries[2]; /* all of IPv4, of IPv6 */
};
void flow_counts_add(struct flow_counts *c, const struct weft_flow *f, bool ipv6, bool expired);
/* Entries that a family's table has room for. */
uint32_t tables_flow_capacity(const struct tables *t, bool ipv6);
const struct flow_counts *tables_flow_counts(const struct tables *t);

/* One bounded piece of collection: looks at up to `budget` entries, frees pairs of which both are
 * past their deadline and what was left without its partner, after one grace period if there is any
 * (collect.c says why that is enough). Returns the number freed; *ret_done is true when the pass
 * over both tables is complete. */
size_t tables_collect(struct tables *t, size_t budget, bool *ret_done);

/* ---- counters ----------------------------------------------------------------------------- */

struct count_view {
        const char *what; /* reason, delivery or event, as text */
        const char *help;
        uint16_t own; /* n + 1: the n-th reason of the module's own; 0: what and help say it */
        uint16_t module;
        uint32_t hook;
        uint64_t packets, bytes;
};
void tables_each_drop(struct tables *t, void (*f)(void *data, const struct count_view *v),
                      void *data);
void tables_each_forward(struct tables *t, void (*f)(void *data, const struct count_view *v),
                         void *data);
void tables_each_event(struct tables *t, void (*f)(void *data, const struct count_view *v),
                       void *data);
/* Sums over the CPUs one element of a per-CPU map whose value is n words. */
int count_cpus(int fd, const void *key, uint64_t *ret, size_t n);
size_t tables_memory(const struct tables *t); /* bytes, as the kernel accounts them */
