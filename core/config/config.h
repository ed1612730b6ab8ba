/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The configuration as a value: what the INI files say, checked, defaults filled in. Reading it
 * touches nothing but files; needs no daemon and no root. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <weft/module.h>

/* Where a value was written. */
struct origin {
        const char *file; /* owned by the config; "default" where nobody wrote it */
        unsigned line;    /* from 1; 0: all of the file */
        bool runtime;     /* the file is weftd's own: the object was set by the control socket, */
        uid_t uid;        /* by this user */
};

/* "FILE:LINE", or FILE alone where all of it is meant. Returns buf. */
#define ORIGIN_TEXT 1024
char *origin_format(const struct origin *o, char *buf, size_t size);

enum config_mode { MODE_PROBE, MODE_STRICT, MODE_PARTIAL };
enum config_xdp { XDP_AUTO, XDP_OFF, XDP_BEST_EFFORT, XDP_NATIVE };
enum config_underlay { UNDERLAY_AUTO, UNDERLAY_IPV4, UNDERLAY_IPV6 };
enum config_tcx_order { TCX_LAST, TCX_FIRST };
enum config_attach { ATTACH_AUTO, ATTACH_TCX, ATTACH_CLSACT };

struct strings {
        char **items;
        size_t n;
};

/* Appends a copy. 0 or -ENOMEM. */
int strings_add(struct strings *s, const char *item);
void strings_done(struct strings *s);

struct config_node {
        char *name;                    /* default: host name */
        struct weft_addresses address; /* empty: taken from the uplink */
        struct weft_prefixes pod_cidr;
        struct strings uplink; /* empty: interfaces of the default routes */
        struct origin origin;
};

enum peer_routing { ROUTING_AUTO, ROUTING_NATIVE, ROUTING_TUNNEL };

struct config_peer {
        char *name;
        struct weft_addresses address;
        struct weft_prefixes pod_cidr;
        uint32_t identity; /* default 6, remote node */
        uint32_t routing;  /* enum peer_routing */
        struct origin origin;
};

enum endpoint_kind { ENDPOINT_VETH, ENDPOINT_NETKIT };

struct config_endpoint {
        char *name;
        char *netns;      /* path, or NULL */
        uint32_t pid;     /* or 0 */
        uint64_t started; /* the process, in clock ticks since boot; 0: whichever has the number */
        char *interface;  /* or NULL; exactly one of the three is given */
        struct weft_addresses address;
        char *device;  /* name inside; default eth0 */
        uint32_t kind; /* enum endpoint_kind */
        uint32_t identity;
        struct origin origin;
};

enum backend_state { BACKEND_ACTIVE, BACKEND_DRAINING, BACKEND_MAINTENANCE };

struct config_backend {
        struct weft_addr addr;
        uint16_t port;   /* host order */
        uint32_t weight; /* default 1; 0: no new flows */
        uint32_t state;  /* enum backend_state: as it is now, */
        uint32_t given;  /* and as it is written, where it was not set at run time */
        char *node;      /* or NULL */
        bool local;      /* on this node, */
        bool waiting;    /* for its endpoint: neither is read, who knows the node finds them out */
};

enum no_backend { NO_BACKEND_REJECT, NO_BACKEND_DROP };
enum traffic { TRAFFIC_CLUSTER, TRAFFIC_LOCAL };

/* Primes, so that Maglev's walks meet every place; the reference's list. */
#define CONFIG_MAGLEV_SIZES(X)                                                                     \
        X(251) X(509) X(1021) X(2039) X(4093) X(8191) X(16381) X(32749) X(65521) X(131071)

struct config_service {
        char *name;
        uint16_t port; /* host order */
        uint8_t proto; /* IPPROTO_TCP, _UDP, _SCTP */
        struct weft_addresses cluster_ip, external_ip, load_balancer_ip;
        uint16_t node_port; /* 0: none */
        struct config_backend *backends;
        size_t n_backends;
        uint32_t algorithm;                /* enum weft_algorithm */
        uint32_t maglev_size;              /* index into CONFIG_MAGLEV_SIZES */
        uint64_t affinity;                 /* milliseconds; 0: none */
        uint32_t forwarding;               /* enum weft_forwarding */
        uint32_t external, internal;       /* enum traffic */
        struct weft_prefixes source_range; /* empty: everybody */
        uint32_t no_backend;               /* enum no_backend */
        uint16_t health_check_node_port;   /* 0: none */
        struct origin origin, node_port_origin, health_check_origin;
};

/* One line of a [module …] section; typed once the module's option table is at hand. */
struct config_assignment {
        char *key, *value; /* value "" resets a list */
        struct origin origin;
};

struct config_module {
        char *name;
        bool enabled;
        struct config_assignment *assignments;
        size_t n_assignments;
        struct origin origin;
};

struct config {
        /* [weft] */
        uint32_t mode, xdp, underlay, tcx_order, attach; /* enums above */
        uint64_t flow_table_size;                        /* entries of each family; 0: auto */
        uint32_t mark_mask;
        char *metrics_listen;

        struct config_node node;
        struct config_peer *peers;
        size_t n_peers;
        struct config_endpoint *endpoints;
        size_t n_endpoints;
        struct config_service *services;
        size_t n_services;
        struct config_module *modules;
        size_t n_modules;

        struct strings files; /* every file read; origins point into it */

        void *index;  /* objects by name, see index.h */
        void *claims; /* addresses by who has them, see check.h */
        void *stored; /* names of files of objects set at run time; origins point into it */
};

/* One thing wrong with the configuration. All of them are collected before anybody complains. */
struct diagnostic {
        struct origin origin; /* the file's name is the diagnostic's own here */
        char *text;           /* section, key, value, what would be right */
};

struct diagnostics {
        struct diagnostic *items;
        size_t n;
};

/* Reads ROOT/etc/weft/weft.conf, the drop-ins, and the objects that were set at run time (store.h).
 * Of two sections of one name, one in a file and one set at run time, neither wins: that is an
 * error. ROOT "" is the system's own. 0, or -EINVAL with
 * every error of every file in *diagnostics (caller frees with diagnostics_done()), or another
 * errno for a file that could not be read at all. *ret is freed with config_free(). */
int config_load(const char *root, struct config **ret, struct diagnostics *diagnostics);
struct config *config_free(struct config *c);
/* A copy of the name of a stored object's file, that lives as long as the configuration. */
const char *config_keep_path(struct config *c, const char *path);

struct written;

/* The same, but what is wrong is told only by diagnostics: *ret then holds what was right, for
 * those who look for more errors and change nothing. written: what stands where, see written.h;
 * NULL: not wanted. It ends before *ret does. */
int config_read(const char *root, struct config **ret, struct written *written,
                struct diagnostics *diagnostics);

/* Is it said of a peer how it is reached? */
bool config_routes_by_peer(const struct config *c);
/* A peer as modules see it, valid as long as the peer is; whether it is tunnelled is left open. */
void config_peer_info(const struct config_peer *p, struct weft_peer_info *ret);
/* Each peer as modules see it. */
void config_each_peer(const struct config *c, void (*f)(void *, const struct weft_peer_info *),
                      void *data);
/* The prefixes that never leave the cluster: pod CIDRs, and the peers' node addresses. */
void config_each_cluster_prefix(const struct config *c,
                                void (*f)(void *, const struct weft_prefix *), void *data);

void diagnostics_add(struct diagnostics *d, const struct origin *origin, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
void diagnostics_done(struct diagnostics *d);

/* Fills a zeroed config struct of options->offset layout from a [module] section: defaults first,
 * then the assignments. 0, or -EINVAL with every error in *diagnostics. options_free() frees what
 * the struct owns. section: for the messages. */
int options_fill(const struct weft_option *options, void *config, const char *section,
                 const struct config_assignment *assignments, size_t n,
                 struct diagnostics *diagnostics);
void options_free(const struct weft_option *options, void *config);
