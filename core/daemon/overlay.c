/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tunnel of the running build: its device, or what takes the place of one; the host's routes to
 * the peers' pods; the MTU that endpoints are left. The engine reads the rest from the tables. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

/* Outer IP header, UDP, the tunnel's header, the inner Ethernet header. */
enum { OVERHEAD4 = 20 + 8 + 8 + 14, OVERHEAD6 = 40 + 8 + 8 + 14, ENDPOINT_MTU_MIN = 1280 };

/* ---- peers -------------------------------------------------------------------------------- */

static bool provides(const struct weft_module *m, const char *role)
{
        for (const char *const *p = m->provides; p && *p; p++)
                if (strcmp(*p, role) == 0)
                        return true;

        return false;
}

/* Of the modules that do the routing, is there one with a tunnel, one without? */
static bool has_routing(const struct build *b, bool tunnel)
{
        for (size_t i = 0; i < b->n_instances; i++) {
                const struct instance *in = b->instances[i];

                if (provides(&in->module->desc, "routing") &&
                    (in->tunnel.mode != WEFT_TUNNEL_NONE) == tunnel)
                        return true;
        }

        return false;
}

static bool is_near(struct daemon *d, const struct config_peer *p)
{
        for (size_t i = 0; i < p->address.n; i++)
                if (!net_is_on_link(d->net, &p->address.items[i]))
                        return false;

        return true;
}

bool build_peer_is_tunnelled(const struct build *b, const struct config_peer *p)
{
        if (!has_routing(b, true) || p->routing == ROUTING_NATIVE)
                return false;

        return p->routing == ROUTING_TUNNEL || !has_routing(b, false) || !is_near(b->daemon, p);
}

/* ---- sizes -------------------------------------------------------------------------------- */

static bool node_has_ipv4(struct daemon *d)
{
        struct weft_addr addrs[NODE_ADDRESSES_MAX];
        size_t n = node_addresses(d, addrs, NODE_ADDRESSES_MAX);

        for (size_t i = 0; i < n; i++)
                if (address_is_ipv4(&addrs[i]))
                        return true;

        return false;
}

/* The largest overhead that any peer's packets get. */
static uint32_t overhead(struct daemon *d, const struct build *b)
{
        const struct config *c = b->config;

        if (c->underlay == UNDERLAY_IPV6 || !node_has_ipv4(d))
                return OVERHEAD6;
        for (size_t i = 0; i < c->n_peers; i++) {
                struct weft_addr a = peer_underlay_address(c, &c->peers[i]);

                if (!address_is_ipv4(&a))
                        return OVERHEAD6;
        }

        return OVERHEAD4;
}

static uint32_t overlay_mtu(struct daemon *d, const struct build *b)
{
        const struct weft_tunnel_spec *t = generation_tunnel(b->generation);
        uint32_t uplink = uplink_mtu(d), over = overhead(d, b);

        if (t->mtu)
                return t->mtu;

        return uplink > over + ENDPOINT_MTU_MIN ? uplink - over : ENDPOINT_MTU_MIN;
}

uint32_t endpoint_mtu(struct daemon *d)
{
        return generation_tunnel(d->build->generation) ? overlay_mtu(d, d->build) : uplink_mtu(d);
}

/* ---- the device --------------------------------------------------------------------------- */

/* The inner link-layer address of this node: other implementations know it by its first address. */
static void own_mac(struct daemon *d, uint8_t ret[static 6])
{
        struct weft_addr addrs[NODE_ADDRESSES_MAX], first = { 0 };

        if (node_addresses(d, addrs, NODE_ADDRESSES_MAX) > 0)
                first = addrs[0];
        tunnel_mac(&first, ret);
}

static int attach_exit(struct daemon *d, const struct build *b, const struct net_link *l,
                       struct weft_error *reterr)
{
        int fd = generation_overlay_fd(b->generation);

        return fd < 0 ? 0
                      : attach_hook(d->attachments, l->ifindex, l->name, WEFT_TO_UPLINK, fd,
                                    reterr);
}

static int attach_both(struct daemon *d, const struct build *b, const struct net_link *l,
                       struct weft_error *reterr)
{
        static const uint32_t hook = WEFT_FROM_OVERLAY;
        int r = attach_exit(d, b, l, reterr);

        return r < 0 ? r : daemon_hooks_attach(d, b, l->ifindex, l->name, &hook, 1, reterr);
}

int daemon_overlay_switch(struct daemon *d, const struct build *b, uint32_t hook,
                          struct weft_error *reterr)
{
        const struct weft_tunnel_spec *t = generation_tunnel(b->generation);
        const struct net_link *l = &d->overlay.link;
        char name[16];

        if (!t || t->mode != WEFT_TUNNEL_DEVICE || !l->ifindex)
                return 0;
        overlay_ifname(t, name);
        if (strcmp(l->name, name) != 0)
                return 0; /* a new device has its programs already */

        return hook == WEFT_TO_UPLINK
                       ? attach_exit(d, b, l, reterr)
                       : daemon_hooks_attach(d, b, l->ifindex, l->name, &hook, 1, reterr);
}

static struct weft_addr node_address(struct daemon *d, int family)
{
        for (size_t i = 0; i < d->n_uplinks; i++) {
                const struct weft_addr *a =
                        family == AF_INET ? &d->uplinks[i].addr4 : &d->uplinks[i].addr6;

                if (d->uplinks[i].link.ifindex && !address_is_zero(a))
                        return *a;
        }

        return (struct weft_addr) { 0 };
}

/* Of one that is no more. */
static void forget_device(struct daemon *d, const struct net_link *l)
{
        tables_del_link(d->tables, l->ifindex);
        attach_remove(d->attachments, l->name);
        host_unforwarding(d->host, l->name);
}

static bool is_same(const struct net_link *a, const struct net_link *b)
{
        return a->ifindex == b->ifindex;
}

/* What carries packets from its first one on: it forwards, and has B's programs. */
static int bring_device(struct daemon *d, const struct build *b, const struct net_link *l,
                        struct weft_error *reterr)
{
        struct overlay *o = &d->overlay;
        int r = is_same(&o->next, l) ? 0 : host_forwarding(d->host, l->name, reterr);

        if (r < 0)
                return r;

        o->next = *l;
        return d->hooks_on ? attach_both(d, b, l, reterr) : 0;
}

/* Its own link-layer address and forwarding are the only things that the device needs of the node.
 */
static int prepare_device(struct daemon *d, const struct build *b, struct weft_overlay *o,
                          struct weft_error *reterr)
{
        const struct weft_tunnel_spec *t = generation_tunnel(b->generation);
        struct overlay_request q = { .spec = t, .mtu = o->mtu };
        const struct weft_link row = { .addr4 = node_address(d, AF_INET),
                                       .addr6 = node_address(d, AF_INET6),
                                       .mtu = o->mtu };
        struct net_link link, *running = &d->overlay.link;
        char name[16];
        int r;

        overlay_ifname(t, name);
        /* What carries packets stays as it is until B runs. */
        if (b != d->build && net_link_by_name(d->net, name, &link) == 0 &&
            is_same(running, &link)) {
                o->ifindex = link.ifindex;
                return 0;
        }

        memcpy(q.mac, o->mac, sizeof(q.mac));
        r = overlay_make(d->net, &q, &link, reterr);
        if (r < 0)
                return r;

        o->ifindex = link.ifindex;
        /* made anew under the same name */
        if (!is_same(running, &link) && strcmp(running->name, link.name) == 0) {
                forget_device(d, running);
                *running = (struct net_link) { 0 };
        }
        if (!is_same(running, &link))
                r = bring_device(d, b, &link, reterr);
        if (r >= 0)
                r = tables_set_link(d->tables, link.ifindex, &row);

        return r < 0 ? r : overlay_up(d->net, &link, reterr);
}

int daemon_overlay_prepare(struct daemon *d, const struct build *b, struct weft_error *reterr)
{
        const struct weft_tunnel_spec *t = generation_tunnel(b->generation);
        struct weft_overlay o = { 0 };
        int r;

        if (!t)
                return 0;

        o.mtu = overlay_mtu(d, b);
        own_mac(d, o.mac);
        r = t->mode == WEFT_TUNNEL_DEVICE ? prepare_device(d, b, &o, reterr)
                                          : overlay_check(d->net, t, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "tunnel %s", t->kind);

        tables_set_overlay(d->tables, generation_number(b->generation), &o);
        return 0;
}

/* ---- the node's own part: links, gateways, forwarding -------------------------------------- */

/* The device that was prepared is the running build's now. */
static void take_device(struct overlay *o)
{
        if (o->next.ifindex)
                o->link = o->next;
        o->next = (struct net_link) { 0 };
}

static void drop_gateways(struct daemon *d)
{
        for (size_t i = 0; i < d->overlay.n_gateways; i++)
                overlay_gateway_drop(d->net, d->overlay.gateways[i]);
        d->overlay.n_gateways = 0;
}

static int set_gateways(struct daemon *d, struct weft_error *reterr)
{
        struct overlay *o = &d->overlay;
        int r = 0;

        o->n_gateways = 0;
        for (size_t i = 0; i < d->n_uplinks && r == 0; i++) {
                uint32_t ifindex = d->uplinks[i].link.ifindex;

                if (!ifindex || o->n_gateways == ELEMENTS(o->gateways))
                        continue;
                r = overlay_gateway_set(d->net, ifindex, reterr);
                o->gateways[o->n_gateways++] = ifindex;
        }

        return r;
}

/* ---- routes of the host ------------------------------------------------------------------- */

/* The uplink by which a peer is reached, where the engine encapsulates. */
static uint32_t uplink_to(struct daemon *d, const struct config_peer *p)
{
        const struct weft_addr a = peer_underlay_address(d->build->config, p);
        uint32_t ifindex = net_way_to(d->net, &a);

        if (uplink_by_index(d, ifindex))
                return ifindex;
        for (size_t i = 0; i < d->n_uplinks; i++)
                if (d->uplinks[i].link.ifindex)
                        return d->uplinks[i].link.ifindex;

        return 0;
}

static struct overlay_route way_of(struct daemon *d, const struct config_peer *p,
                                   const struct weft_prefix *dst)
{
        bool device = d->overlay.link.ifindex != 0;

        return (struct overlay_route) {
                .ifindex = device ? d->overlay.link.ifindex : uplink_to(d, p),
                .gateway = !device,
                .mtu = endpoint_mtu(d),
                .src = node_address(d, address_is_ipv4(&dst->addr) ? AF_INET : AF_INET6),
        };
}

static void route_peer(struct daemon *d, const struct config_peer *p, struct weft_prefixes *held)
{
        for (size_t i = 0; i < p->pod_cidr.n; i++) {
                const struct weft_prefix *dst = &p->pod_cidr.items[i];
                const struct overlay_route to = way_of(d, p, dst);
                struct weft_error why = { 0 };

                if (to.ifindex == 0 || prefixes_add(held, dst) < 0)
                        continue;
                if (host_overlay_route(d->host, dst, &to, &why) < 0) {
                        held->n--;
                        log_warning("peer %s: the node itself does not reach its pods: %s", p->name,
                                    why.text);
                }
        }
}

/* Asks for all routes and gives those of before back, in this order, so that what stays is never
 * away. */
static void routes_apply(struct daemon *d, bool wanted)
{
        struct weft_prefixes before = d->overlay.routes, now = { 0 };
        const struct config *c = d->build->config;

        for (size_t i = 0; wanted && i < c->n_peers; i++)
                if (build_peer_is_tunnelled(d->build, &c->peers[i]))
                        route_peer(d, &c->peers[i], &now);
        for (size_t i = 0; i < before.n; i++)
                host_unroute(d->host, &before.items[i]);

        free(before.items);
        d->overlay.routes = now;
        d->overlay.routed = wanted;
}

static void unroute(struct daemon *d, const struct weft_prefix *dst)
{
        struct weft_prefixes *held = &d->overlay.routes;

        for (size_t i = 0; i < held->n; i++)
                if (held->items[i].len == dst->len &&
                    address_equal(&held->items[i].addr, &dst->addr)) {
                        host_unroute(d->host, dst);
                        held->items[i] = held->items[--held->n];
                        return;
                }
}

void daemon_overlay_peer_changed(struct daemon *d, const struct config_peer *before,
                                 const struct config_peer *now)
{
        struct weft_prefixes added = { 0 };

        if (now && d->overlay.routed && build_peer_is_tunnelled(d->build, now))
                route_peer(d, now, &added);
        for (size_t i = 0; before && i < before->pod_cidr.n; i++)
                unroute(d, &before->pod_cidr.items[i]);
        for (size_t i = 0; i < added.n; i++)
                if (prefixes_add(&d->overlay.routes, &added.items[i]) < 0)
                        host_unroute(d->host, &added.items[i]);

        free(added.items);
}

/* ---- the whole ---------------------------------------------------------------------------- */

int daemon_overlay_apply(struct daemon *d, struct weft_error *reterr)
{
        const struct weft_tunnel_spec *t = generation_tunnel(d->build->generation);
        bool device = t && t->mode == WEFT_TUNNEL_DEVICE;
        int r = daemon_overlay_prepare(d, d->build, reterr);
        const struct net_link before = d->overlay.link;

        if (r >= 0 && device)
                take_device(&d->overlay);
        else if (!device)
                d->overlay.link = (struct net_link) { 0 };
        if (r >= 0 && t && !device)
                r = set_gateways(d, reterr);

        routes_apply(d, r >= 0 && t);
        if (!t || device)
                drop_gateways(d);
        daemon_overlay_settle(d);
        if (before.ifindex && !daemon_overlay_is(d, before.ifindex))
                forget_device(d, &before);

        return r;
}

bool daemon_overlay_is(const struct daemon *d, uint32_t ifindex)
{
        return ifindex && d->overlay.link.ifindex == ifindex;
}

static void collect_device(void *data, const char *ifname)
{
        (void) strings_add(data, ifname);
}

/* Names first: nothing may be deleted while the kernel is still listing. A device goes before its
 * programs: without them it would show the stack what is not the stack's. */
void daemon_overlay_settle(struct daemon *d)
{
        struct strings names = { 0 };

        overlay_each(d->net, collect_device, &names);
        for (size_t i = 0; i < names.n; i++) {
                if (strcmp(names.items[i], d->overlay.link.name) == 0)
                        continue;
                overlay_remove(d->net, names.items[i]);
                attach_remove(d->attachments, names.items[i]);
        }
        strings_done(&names);
        if (d->overlay.next.ifindex)
                forget_device(d, &d->overlay.next);
        d->overlay.next = (struct net_link) { 0 };
}

void daemon_overlay_free(struct daemon *d)
{
        free(d->overlay.routes.items);
}
