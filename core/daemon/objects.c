/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

/* ---- peers -------------------------------------------------------------------------------- */

struct weft_addr peer_underlay_address(const struct config *c, const struct config_peer *p)
{
        bool six_first = c->underlay == UNDERLAY_IPV6;
        struct weft_addr any = { 0 };

        for (size_t i = 0; i < p->address.n; i++) {
                if (address_is_ipv4(&p->address.items[i]) != six_first)
                        return p->address.items[i];
                if (address_is_zero(&any))
                        any = p->address.items[i];
        }

        return any;
}

/* Calls f for each prefix that leads to the peer: its pod CIDRs and its own addresses. */
static void each_peer_prefix(const struct config_peer *p,
                             void (*f)(void *, const struct weft_prefix *), void *data)
{
        for (size_t i = 0; i < p->pod_cidr.n; i++)
                f(data, &p->pod_cidr.items[i]);
        for (size_t i = 0; i < p->address.n; i++)
                f(data, &(struct weft_prefix) { p->address.items[i], 128 });
}

struct peer_row {
        struct daemon *d;
        const struct config_peer *peer;
        struct weft_peer row;
};

static bool is_its_own(const struct config_peer *p, const struct weft_prefix *prefix)
{
        for (size_t i = 0; prefix->len == 128 && i < p->address.n; i++)
                if (address_equal(&p->address.items[i], &prefix->addr))
                        return true;

        return false;
}

static void set_peer_prefix(void *data, const struct weft_prefix *prefix)
{
        struct peer_row *p = data;
        const struct log_fields fields = { .message = MESSAGE_PEER_PENDING, .peer = p->peer->name };
        struct weft_peer row = p->row;
        char text[PREFIX_TEXT];
        int r;

        if (is_its_own(p->peer, prefix))
                row.flags |= WEFT_PEER_NODE;
        r = tables_set_peer(p->d->tables, prefix, &row);

        if (r < 0)
                log_line(LOG_WARNING, &fields, "peer %s: cannot enter %s: %s", p->peer->name,
                         prefix_format(prefix, text, sizeof(text)), strerror(-r));
}

struct prefix_search {
        const struct weft_prefix *wanted;
        bool found;
};

static void compare_prefix(void *data, const struct weft_prefix *prefix)
{
        struct prefix_search *s = data;

        s->found = s->found || (prefix->len == s->wanted->len &&
                                address_equal(&prefix->addr, &s->wanted->addr));
}

static void drop_peer_prefix(void *data, const struct weft_prefix *prefix)
{
        struct daemon *d = data;
        struct prefix_search s = { .wanted = prefix };

        for (size_t i = 0; i < d->build->config->n_peers; i++)
                each_peer_prefix(&d->build->config->peers[i], compare_prefix, &s);
        if (!s.found)
                tables_del_peer(d->tables, prefix);
}

/* Tunnels lead to it: its address is in the table before any prefix points there. */
static void enter_node(struct peer_row *p)
{
        const struct log_fields fields = { .message = MESSAGE_PEER_PENDING, .peer = p->peer->name };
        int r = tables_set_node(p->d->tables, &p->row.node, &p->row.remote);

        if (r == 0)
                p->row.flags |= WEFT_PEER_TUNNEL;
        else
                log_line(LOG_WARNING, &fields, "peer %s: no tunnel to it: %s", p->peer->name,
                         strerror(-r));
}

static void enter_peer(struct daemon *d, const struct config_peer *peer)
{
        const struct log_fields fields = { .message = MESSAGE_PEER_PENDING, .peer = peer->name };
        struct peer_row p = {
                .d = d,
                .peer = peer,
                .row = { .node = peer_underlay_address(d->build->config, peer),
                         .identity = peer->identity },
        };

        if (build_peer_is_tunnelled(d->build, peer))
                enter_node(&p);
        else if (peer->routing == ROUTING_TUNNEL)
                log_line(LOG_WARNING, &fields,
                         "peer %s: routing = tunnel, and no module that runs makes a tunnel",
                         peer->name);
        each_peer_prefix(peer, set_peer_prefix, &p);
}

/* Is it the end of a tunnel still? Where no tunnel is loaded it stays: one that comes back goes on
 * with its flows. */
static bool has_node(struct daemon *d, const struct weft_addr *node)
{
        const struct config *c = d->build->config;
        bool tunnels = generation_tunnel(d->build->generation);

        for (size_t i = 0; i < c->n_peers; i++) {
                struct weft_addr a = peer_underlay_address(c, &c->peers[i]);

                if (address_equal(&a, node) &&
                    (!tunnels || build_peer_is_tunnelled(d->build, &c->peers[i])))
                        return true;
        }

        return false;
}

/* c: the configuration that the peer was in. */
static void drop_node(struct daemon *d, const struct config *c, const struct config_peer *p)
{
        struct weft_addr node = peer_underlay_address(c, p);

        if (!has_node(d, &node))
                tables_del_node(d->tables, &node);
}

static void peers_apply(struct daemon *d, const struct config *old)
{
        const struct config *c = d->build->config;

        for (size_t i = 0; i < c->n_peers; i++)
                enter_peer(d, &c->peers[i]);

        for (size_t i = 0; old && i < old->n_peers; i++)
                each_peer_prefix(&old->peers[i], drop_peer_prefix, d);
        for (size_t i = 0; old && i < old->n_peers; i++)
                drop_node(d, old, &old->peers[i]);
}

struct peer_difference {
        struct daemon *d;
        const struct config_peer *now; /* NULL: gone */
};

static void drop_if_lost(void *data, const struct weft_prefix *prefix)
{
        const struct peer_difference *p = data;
        struct prefix_search s = { .wanted = prefix };

        if (p->now)
                each_peer_prefix(p->now, compare_prefix, &s);
        if (!s.found)
                tables_del_peer(p->d->tables, prefix);
}

void daemon_peer_changed(struct daemon *d, const struct config_peer *before,
                         const struct config_peer *now)
{
        struct peer_difference p = { d, now };

        if (now)
                enter_peer(d, now);
        if (before)
                each_peer_prefix(before, drop_if_lost, &p);
        if (before)
                drop_node(d, d->build->config, before);
        daemon_overlay_peer_changed(d, before, now);

        if (before)
                build_peer_event(d->build, WEFT_PEER_REMOVED, before);
        if (now)
                build_peer_event(d->build, WEFT_PEER_ADDED, now);
}

/* ---- services ----------------------------------------------------------------------------- */

const char *service_reason(const struct daemon *d, const char *name)
{
        for (size_t i = 0; i < d->n_pending_services; i++)
                if (strcmp(d->pending_services[i].name, name) == 0)
                        return d->pending_services[i].reason;

        return NULL;
}

void daemon_pending_services_free(struct daemon *d)
{
        for (size_t i = 0; i < d->n_pending_services; i++)
                free(d->pending_services[i].name);
        free(d->pending_services);
        d->pending_services = NULL;
        d->n_pending_services = 0;
}

static void forget_pending(struct daemon *d, const char *name)
{
        for (size_t i = 0; i < d->n_pending_services; i++)
                if (strcmp(d->pending_services[i].name, name) == 0) {
                        free(d->pending_services[i].name);
                        d->pending_services[i] = d->pending_services[--d->n_pending_services];
                        return;
                }
}

static void remember_pending(struct daemon *d, const struct config_service *s, const char *reason)
{
        const struct log_fields fields = { .message = MESSAGE_SERVICE_PENDING,
                                           .service = s->name,
                                           .origin = &s->origin };
        struct pending_service p = { .name = strdup(s->name) };

        log_line(LOG_WARNING, &fields, "service %s is pending: %s", s->name, reason);
        if (!p.name || list_grow(&d->pending_services, d->n_pending_services, sizeof(p)) < 0) {
                free(p.name);
                return;
        }

        (void) snprintf(p.reason, sizeof(p.reason), "%.*s", (int) sizeof(p.reason) - 1, reason);
        d->pending_services[d->n_pending_services++] = p;
}

static bool is_endpoints(const struct config *c, const struct weft_addr *a)
{
        for (size_t i = 0; i < c->n_endpoints; i++)
                if (addresses_have(&c->endpoints[i].address, a))
                        return true;

        return false;
}

/* Is the backend on this node? Its section says so, or else its address. */
static bool is_local(const struct daemon *d, const struct config_backend *b,
                     const struct weft_addresses *node)
{
        const struct config *c = d->build->config;

        if (b->node)
                return strcmp(b->node, c->node.name) == 0;

        for (size_t i = 0; i < c->node.pod_cidr.n; i++)
                if (prefix_contains(&c->node.pod_cidr.items[i], &b->addr))
                        return true;

        return addresses_have(node, &b->addr) || is_endpoints(c, &b->addr) ||
               endpoint_has_address(d, &b->addr);
}

/* What a service is seen against. */
struct surroundings {
        struct weft_addr node_items[NODE_ADDRESSES_MAX];
        struct weft_addresses node;    /* the node's addresses */
        struct weft_addresses waiting; /* those of endpoints that are pending */
};

static void surroundings_done(struct surroundings *s)
{
        free(s->waiting.items);
}

static void look_around(struct daemon *d, struct surroundings *ret)
{
        ret->node.items = ret->node_items;
        ret->node.n = node_addresses(d, ret->node_items, NODE_ADDRESSES_MAX);
        ret->waiting = (struct weft_addresses) { 0 };
        endpoints_pending_addresses(d, &ret->waiting);
}

static void set_service(struct daemon *d, struct config_service *s, const struct surroundings *here)
{
        struct weft_error why = { 0 };

        for (size_t i = 0; i < s->n_backends; i++) {
                struct config_backend *b = &s->backends[i];

                b->local = is_local(d, b, &here->node);
                b->waiting = addresses_have(&here->waiting, &b->addr);
        }

        if (service_takes_own_port(d->build, s, &why))
                tables_del_service(d->tables, s->name);
        else
                (void) tables_set_service(d->tables, s, here->node.items, here->node.n, &why);
        if (why.text[0] != '\0')
                remember_pending(d, s, why.text);
}

void daemon_services_apply(struct daemon *d)
{
        const struct config *c = d->build->config;
        _cleanup_(surroundings_done) struct surroundings here;

        look_around(d, &here);
        daemon_pending_services_free(d);
        tables_services_begin(d->tables);
        for (size_t i = 0; i < c->n_services; i++)
                set_service(d, &c->services[i], &here);
}

static bool waits_otherwise(const struct config_service *s, const struct weft_addresses *waiting)
{
        for (size_t i = 0; i < s->n_backends; i++)
                if (s->backends[i].waiting != addresses_have(waiting, &s->backends[i].addr))
                        return true;

        return false;
}

void daemon_services_follow_endpoints(struct daemon *d)
{
        const struct config *c = d->build->config;
        _cleanup_(surroundings_done) struct surroundings here;

        look_around(d, &here);
        for (size_t i = 0; i < c->n_services; i++)
                if (waits_otherwise(&c->services[i], &here.waiting)) {
                        forget_pending(d, c->services[i].name);
                        set_service(d, &c->services[i], &here);
                }
}

/* Read and kept, but no module that runs serves it: that must not go unsaid. */
static void say_what_is_not_served(const struct build *b, const struct config_service *s)
{
        const struct log_fields fields = { .message = MESSAGE_SERVICE_PARTLY,
                                           .service = s->name,
                                           .origin = &s->origin };

        if (s->cluster_ip.n > 0 && !generation_serves(b->generation, WEFT_FROM_ENDPOINT))
                log_line(LOG_NOTICE, &fields,
                         "service %s: none of the modules that run serves its cluster-ip", s->name);
}

void daemon_service_changed(struct daemon *d, const struct config_service *before,
                            struct config_service *now)
{
        _cleanup_(surroundings_done) struct surroundings here;

        look_around(d, &here);
        forget_pending(d, now ? now->name : before->name);
        if (now)
                set_service(d, now, &here);
        else
                tables_del_service(d->tables, before->name);
        if (now && !before)
                say_what_is_not_served(d->build, now);
}

void daemon_objects_apply(struct daemon *d, const struct config *old)
{
        const struct config *c = d->build->config;

        peers_apply(d, old);
        for (size_t i = 0; i < c->n_services; i++)
                say_what_is_not_served(d->build, &c->services[i]);
        daemon_services_apply(d);

        for (size_t i = 0; old && i < old->n_services; i++)
                if (!config_service(c, old->services[i].name))
                        tables_del_service(d->tables, old->services[i].name);
}
