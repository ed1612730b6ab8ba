/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The host's network as the daemon sees it: links, addresses, routes, neighbours, by rtnetlink
 * (libnl-route-3), in the network namespace the daemon was started in. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include <weft/module.h>

#include "error.h"

struct net;

struct net_link {
        uint32_t ifindex;
        char name[16];
        uint8_t mac[6];
        uint32_t mtu;
        bool up, ethernet;
        char kind[16]; /* "veth", "bridge", "" for hardware */
};

enum net_event_kind {
        NET_LINK_NEW, /* appeared, or came up, or changed its mtu or address */
        NET_LINK_GONE,
        NET_ADDRESS,   /* of the host: added or removed; ifindex 0: any may have changed */
        NET_ROUTE,     /* a route or rule changed */
        NET_SETTING,   /* somebody switched forwarding; ifindex 0: perhaps */
        NET_NEIGHBOUR, /* a neighbour's link-layer address became known or changed */
};

struct net_event {
        enum net_event_kind kind;
        struct net_link link;   /* link events */
        uint32_t ifindex;       /* all */
        struct weft_addr addr;  /* neighbour, address: mapped for IPv4 */
        uint8_t mac[6];         /* neighbour */
        struct weft_prefix dst; /* route: what it covers (len 0: default) */
        bool gone;              /* route: it was there, or may have been */
};

typedef void (*net_event_fn)(void *data, const struct net_event *event);

/* Opens the sockets, fills the caches and calls f from the loop for every change after that.
 * Changes that this process made itself (weft's route protocol, endpoint devices) are reported too.
 */
int net_open(sd_event *loop, net_event_fn f, void *data, struct net **ret,
             struct weft_error *reterr);
struct net *net_close(struct net *n);

/* Current state. -ENODEV where there is no such link. */
int net_link_by_name(struct net *n, const char *name, struct net_link *ret);
int net_link_by_index(struct net *n, uint32_t ifindex, struct net_link *ret);
/* Interfaces that carry a default route (main table), both families, at most max; the count. */
size_t net_default_links(struct net *n, uint32_t *ret_ifindex, size_t max);
/* The oldest usable global address of the link in a family (AF_INET, AF_INET6): mapped. -ENOENT. */
int net_link_address(struct net *n, uint32_t ifindex, int family, struct weft_addr *ret);
/* Is it reached without a gateway, by one interface? */
bool net_is_on_link(struct net *n, const struct weft_addr *a);
/* Families (bits: 1 IPv4, 2 IPv6) in which a policy rule chooses by a packet's mark. Rules for the
 * host's own packets do not count. */
unsigned net_mark_rules(struct net *n);
/* Of the TCP connections that the host's conntrack knows, those that bear an address for which f
 * says so are not measured by the window that it saw last any more: both ways, until they end. */
int net_conntrack_no_windows(bool (*f)(void *data, const struct weft_addr *a), void *data,
                             struct weft_error *reterr);
/* The interface that it is reached by; 0: by none, or by several. */
uint32_t net_way_to(struct net *n, const struct weft_addr *a);
/* Every address of the host itself: calls f for each (loopback and link-local too). */
void net_addresses(struct net *n,
                   void (*f)(void *data, uint32_t ifindex, const struct weft_addr *a), void *data);

/* ---- the node's own sockets --------------------------------------------------------------- */

/* A socket that takes packets from anybody: a TCP listener, a UDP socket that is not connected. */
struct net_listener {
        struct weft_addr addr; /* :: or (mapped) 0.0.0.0: any */
        uint16_t port;         /* host order */
        uint8_t proto;
        uint32_t uid; /* whose it is */
        uint32_t inode;
        char owner[48]; /* net_listeners() leaves it empty: looking for it takes long */
};

/* Calls f for each in this network namespace. -ENOENT: the kernel cannot tell (no inet_diag). */
int net_listeners(void (*f)(void *data, const struct net_listener *l), void *data,
                  struct weft_error *reterr);

/* Fills the owner: "nginx (pid 17)", or "a program of uid 33" where this process may not know.
 * Looks through all of /proc. */
void net_listener_owner(struct net_listener *l);

/* Does the kernel have nftables, with tables of both families? */
bool net_has_nftables(void);

/* ---- who else translates addresses -------------------------------------------------------- */

enum nat_kind {
        NAT_SOURCE,      /* masquerade, snat */
        NAT_DESTINATION, /* dnat, redirect */
};

/* Looks for a rule of somebody else's in the host's netfilter (nftables, and the tables of old
 * iptables) that translates packets from (NAT_SOURCE), or to (NAT_DESTINATION), one of the pods'
 * prefixes; what a rule's text leaves open counts as yes. n 0: any rule. Returns 1 and where it is
 * in ret, 0: there is none; or negative errno: that cannot be told. */
int nat_of_others(enum nat_kind kind, const struct weft_prefix *pods, size_t n, char *ret,
                  size_t size);

/* ---- who else is here --------------------------------------------------------------------- */

/* Calls f for each sign, in this thread's network namespace, of somebody else who does what weft
 * does or has what it would take: services' rules of kube-proxy, devices, programs and chains of
 * other pod networks, tunnel devices on weft's default ports, XDP programs. */
void net_others(void (*f)(void *data, const char *what, const char *remedy), void *data);

/* ---- host changes: what weft alters, counted and recorded --------------------------------- */

/* Every change below is recorded in RUN_DIR/host before it is made, so that a successor of a killed
 * daemon takes it over: the same change asked for again is the same change; what nobody asks for
 * any more when host_settle() is called is undone. Asking twice counts twice. */
struct host;

int host_open(struct net *n, const char *run_dir, struct host **ret, struct weft_error *reterr);
/* Frees memory; changes stay in force, the datapath goes on. */
struct host *host_close(struct host *h);

/* Sets a sysctl (path below /proc/sys with '/', "net/ipv4/conf/eth0/forwarding"), remembering what
 * was there for the day nobody wants it. */
int host_sysctl(struct host *h, const char *path, const char *value, struct weft_error *reterr);
void host_unsysctl(struct host *h, const char *path);

/* Forwarding on one interface, both families (accept_ra 1 -> 2 first). */
int host_forwarding(struct host *h, const char *ifname, struct weft_error *reterr);
void host_unforwarding(struct host *h, const char *ifname);

/* Adds ports low..high to ip_local_reserved_ports, keeping what others have put there. */
int host_reserve_ports(struct host *h, uint16_t low, uint16_t high, struct weft_error *reterr);
void host_unreserve_ports(struct host *h, uint16_t low, uint16_t high);

/* Routes with weft's protocol number, main table. gateway NULL: scope link on ifindex. ifindex 0:
 * wherever the gateway is. -EEXIST: foreign route in the way; -ENETUNREACH: the gateway is not on
 * the same link-layer network. mtu 0: none. */
#define WEFT_ROUTE_PROTOCOL 119
int host_route(struct host *h, const struct weft_prefix *dst, const struct weft_addr *gateway,
               uint32_t ifindex, uint32_t mtu, struct weft_error *reterr);
/* A route to remote endpoints that a tunnel carries what is sent to. */
struct overlay_route {
        uint32_t ifindex; /* the tunnel's device; or the uplink, where the engine encapsulates */
        bool gateway;     /* the latter: see overlay_gateway_set() */
        uint32_t mtu;
        struct weft_addr src; /* of the node's own packets; zero: as the kernel chooses */
};
int host_overlay_route(struct host *h, const struct weft_prefix *dst,
                       const struct overlay_route *to, struct weft_error *reterr);
void host_unroute(struct host *h, const struct weft_prefix *dst);
bool host_holds_route(const struct host *h, const struct weft_prefix *dst);

/* What others changed is made again as far as that can be now, and told by f (may be NULL).
 * Routes: the kernel itself takes them away with their link or its last address. */
void host_routes_again(struct host *h, void (*f)(void *data, const char *what), void *data);
/* Sysctls, reserved ports, tables. */
void host_settings_again(struct host *h, void (*f)(void *data, const char *what), void *data);

/* The table NAME ("weft-" and a word) of nftables, family inet, with BODY, in nft's own words, in
 * it: nobody else's, and replaced whole in one transaction. Of several bodies held the newest is in
 * force. -EOPNOTSUPP: the kernel has no nftables. */
int host_table(struct host *h, const char *name, const char *body, struct weft_error *reterr);
void host_untable(struct host *h, const char *name, const char *body);

/* A start has asked for all it wants: undo what the predecessor did and nobody asked for. */
void host_settle(struct host *h);
/* Undo everything: what is recorded, routes with weft's protocol number, devices that wire_up()
 * made; says what it took through f (may be NULL). Nothing more may be asked of h. */
void host_cleanup(struct host *h, void (*f)(void *data, const char *what), void *data);

/* ---- tunnels (overlay.c) ------------------------------------------------------------------ */

struct overlay_request {
        const struct weft_tunnel_spec *spec;
        uint8_t mac[6];
        uint32_t mtu;
};

/* Its name for one of this kind and port. */
void overlay_ifname(const struct weft_tunnel_spec *spec, char ret[static 16]);
/* -EEXIST: a device of somebody else's takes packets to the port, it is named in the reason. */
int overlay_check(struct net *n, const struct weft_tunnel_spec *spec, struct weft_error *reterr);
/* Makes the flow-based device, or makes the one that is there right, without neighbours of its own;
 * a new one is down, so that its programs are there before its first packet. -EEXIST: somebody
 * else's has the name. */
int overlay_make(struct net *n, const struct overlay_request *q, struct net_link *ret,
                 struct weft_error *reterr);
int overlay_up(struct net *n, const struct net_link *l, struct weft_error *reterr);
void overlay_remove(struct net *n, const char *ifname);
/* Calls f for each such device. */
void overlay_each(struct net *n, void (*f)(void *data, const char *ifname), void *data);

/* Where the engine encapsulates, the stack is to send to the uplink what the engine then takes, and
 * must not look for its neighbours there: so the routes lead to one gateway that there is not, with
 * a permanent neighbour. family: AF_INET, AF_INET6. */
struct weft_addr overlay_gateway(int family);
int overlay_gateway_set(struct net *n, uint32_t ifindex, struct weft_error *reterr);
void overlay_gateway_drop(struct net *n, uint32_t ifindex);

/* Removes devices and gateways; says which. */
void overlays_cleanup(struct net *n, void (*f)(void *data, const char *what), void *data);

/* ---- endpoints: wiring a namespace -------------------------------------------------------- */

struct wire_request {
        const char *name;              /* of the endpoint */
        const char *netns;             /* path; or NULL */
        uint32_t pid;                  /* or 0 */
        uint64_t started;              /* see namespace_open() */
        const char *device;            /* inside, "eth0" */
        bool netkit;                   /* a pair of these, else of veth */
        const struct weft_addr *addrs; /* its addresses, both families mixed */
        size_t n_addrs;
        const struct weft_addr *gateways; /* the node's gateway addresses in the pod CIDRs */
        size_t n_gateways;
        uint32_t mtu; /* of the endpoint's default route */
};

struct wire {
        uint32_t ifindex; /* host side */
        char ifname[16];  /* weft + hash of the name: stable over restarts */
        uint8_t mac[6];   /* host side: the gateway's permanent neighbour entry inside */
        uint8_t peer_mac[6];
        uint64_t namespace; /* namespace_number() of where the other end is */
};

/* Makes or takes over the wiring of one endpoint: device pair, address as /32 or /128, link-scope
 * route to the gateway, default route over it with the mtu, permanent neighbour entry, host-side
 * route (through host_route()), forwarding of the host-side device. Idempotent: what is right
 * already is left alone. -ENOENT: the namespace is not there (yet): pending, nothing was made.
 * -EEXIST with a reason: the device name inside is somebody else's. */
int wire_up(struct net *n, struct host *h, const struct wire_request *w, struct wire *ret,
            struct weft_error *reterr);
/* Takes away what wire_up() made; cannot fail, accepts half-made ones. */
void wire_down(struct net *n, struct host *h, const char *name, const struct weft_addr *addrs,
               size_t n_addrs);
/* The host side's name for an endpoint of that name: what wires_list() has for it. */
void wire_ifname(const char *name, char ret[static 16]);
/* Deletes such devices, their routes go with them; any other is left alone. The kernel waits for a
 * grace period when it deletes a device, some 20 ms, and for many at once it waits once. */
void wires_remove(struct net *n, char (*ifnames)[16], size_t n_ifnames);
/* Names of all devices that wire_up() of any daemon of this ROOT made here; caller frees. */
char (*wires_list(struct net *n, size_t *ret_n))[16];

/* ---- the world of dry runs (dry.c) -------------------------------------------------------- */

#define DRY_ADDRESS4 "192.0.2.11"
#define DRY_ADDRESS6 "2001:db8::11"
#define DRY_ENDPOINT4 "10.244.1.10"
#define DRY_ENDPOINT6 "fd00:244:1::10"
#define DRY_PEER4 "192.0.2.12"
#define DRY_PEER_PODS4 "10.244.3.0/24"

/* A network namespace without a wire, for test packets: addresses, routes and neighbours as
 * module.h describes them. */
struct dry_network {
        int ns, home;
        uint32_t uplink, endpoint;
        bool has6; /* the kernel has IPv6 */
};

extern const uint8_t dry_endpoint_mac[6], dry_gateway_mac[6];

int dry_network_open(struct dry_network *ret, struct weft_error *reterr);
void dry_network_close(struct dry_network *n);
/* Takes the calling thread into it, and back. */
int dry_network_enter(const struct dry_network *n, struct weft_error *reterr);
void dry_network_leave(const struct dry_network *n);
