/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services' node ports. The core knows no module by name: which ports are node ports, and that
 * there are any, is what loaded modules said by weft_api.node_ports(). */

#include <errno.h>
#include <netinet/in.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

enum { PORTS = 65536 };

static bool serves_node_ports(const struct build *b)
{
        for (size_t i = 0; i < b->n_instances; i++)
                if (b->instances[i]->node_ports.high != 0)
                        return true;

        return false;
}

/* ---- the node's own addresses ------------------------------------------------------------- */

static bool is_link_local(const struct weft_addr *a)
{
        return (a->w[0] & htonl(0xffc00000)) == htonl(0xfe800000);
}

static void add_own(void *data, uint32_t ifindex, const struct weft_addr *a)
{
        (void) ifindex;
        if (!is_link_local(a))
                (void) addresses_add(data, a);
}

bool daemon_own_addresses_refresh(struct daemon *d)
{
        struct weft_addresses now = { 0 }, before = d->own_addresses;
        bool changed;

        net_addresses(d->net, add_own, &now);
        changed = now.n != before.n ||
                  (now.n > 0 && memcmp(now.items, before.items, now.n * sizeof(*now.items)) != 0);
        free(before.items);
        d->own_addresses = now;
        d->own_addresses_changed = d->own_addresses_changed || changed;

        return changed;
}

static bool is_served_port(const struct build *b, uint16_t port)
{
        for (size_t i = 0; i < b->n_instances; i++) {
                const struct weft_ports *p = &b->instances[i]->node_ports;

                if (p->high != 0 && port >= p->low && port <= p->high)
                        return true;
        }

        return false;
}

bool service_takes_own_port(const struct build *b, const struct config_service *s,
                            struct weft_error *reterr)
{
        const struct weft_addresses *lists[] = { &s->cluster_ip, &s->external_ip,
                                                 &s->load_balancer_ip },
                                    *own = &b->daemon->own_addresses;
        char text[ADDRESS_TEXT];

        for (size_t l = 0; l < ELEMENTS(lists) && !is_served_port(b, s->port); l++)
                for (size_t i = 0; i < lists[l]->n; i++)
                        for (size_t k = 0; k < own->n; k++)
                                if (address_equal(&lists[l]->items[i], &own->items[k])) {
                                        (void) weft_fail(
                                                reterr, -EADDRINUSE,
                                                "%s is an address of this node, of which services "
                                                "get no port but node ports (port-range of the "
                                                "module): port %u stays the node's; use node-port, "
                                                "or another address",
                                                address_format(&own->items[k], text, sizeof(text)),
                                                s->port);
                                        return true;
                                }

        return false;
}

void check_own_addresses(const struct build *b, const struct config_service *s,
                         struct diagnostics *diagnostics)
{
        struct weft_error why;

        if (service_takes_own_port(b, s, &why))
                diagnostics_add(diagnostics, &s->origin, "[service %s] %s", s->name, why.text);
}

/* ---- kept from the node's own programs ---------------------------------------------------- */

/* The node ports in use, as few ranges as they make: each is one change of the host. */
static int find_ranges(const struct build *b, struct weft_ports **ret, size_t *ret_n)
{
        _cleanup_free_ bool *used = calloc(PORTS + 1, sizeof(*used));
        const struct config *c = b->config;

        if (!used)
                return -ENOMEM;

        for (size_t i = 0; serves_node_ports(b) && i < c->n_services; i++)
                used[c->services[i].node_port] = c->services[i].node_port != 0;

        for (unsigned low = 1, high; low < PORTS; low = high + 1) {
                for (high = low; used[low] && used[high + 1]; high++)
                        ;
                if (!used[low])
                        continue;
                if (list_grow(ret, *ret_n, sizeof(**ret)) < 0)
                        return -ENOMEM;
                (*ret)[(*ret_n)++] = (struct weft_ports) { low, high };
        }

        return 0;
}

/* New ranges are kept before old ones are given back, so that a port that stays is never free. */
static void keep_ports(struct daemon *d)
{
        struct weft_ports *ranges = NULL;
        struct weft_error why = { 0 };
        size_t n = 0;

        if (find_ranges(d->build, &ranges, &n) < 0)
                log_message(
                        LOG_WARNING, NODE_PORT_NOT_KEPT,
                        "out of memory: not every node port is kept from the node's own programs");

        for (size_t i = 0; i < n; i++)
                if (host_reserve_ports(d->host, ranges[i].low, ranges[i].high, &why) < 0)
                        log_message(
                                LOG_WARNING, NODE_PORT_NOT_KEPT,
                                "node ports %u-%u are not kept from the node's own programs: %s",
                                ranges[i].low, ranges[i].high, why.text);
        for (size_t i = 0; i < d->n_node_ports; i++)
                host_unreserve_ports(d->host, d->node_ports[i].low, d->node_ports[i].high);

        free(d->node_ports);
        d->node_ports = ranges;
        d->n_node_ports = n;
}

/* ---- programs that listen there all the same ---------------------------------------------- */

struct look {
        const struct daemon *d;
        struct weft_addr addrs[NODE_ADDRESSES_MAX];
        size_t n_addrs;
        struct net_listener *found;
        size_t n_found;
};

static bool is_any(const struct weft_addr *a)
{
        const struct weft_addr any4 = { .w = { 0, 0, htonl(0xffff), 0 } };

        return address_is_zero(a) || address_equal(&any4, a);
}

static bool reaches_node(const struct look *l, const struct weft_addr *a)
{
        for (size_t i = 0; i < l->n_addrs; i++)
                if (address_equal(&l->addrs[i], a))
                        return true;

        return is_any(a);
}

static bool is_node_port(const struct daemon *d, uint16_t port)
{
        for (size_t i = 0; i < d->n_node_ports; i++)
                if (port >= d->node_ports[i].low && port <= d->node_ports[i].high)
                        return true;

        return false;
}

static const struct config_service *service_of(const struct daemon *d, uint16_t port, uint8_t proto)
{
        const struct config *c = d->build->config;

        for (size_t i = 0; i < c->n_services; i++)
                if (c->services[i].node_port == port && c->services[i].proto == proto)
                        return &c->services[i];

        return NULL;
}

static void on_listener(void *data, const struct net_listener *s)
{
        struct look *l = data;

        if (!is_node_port(l->d, s->port) || !reaches_node(l, &s->addr))
                return;

        if (service_of(l->d, s->port, s->proto) &&
            list_grow(&l->found, l->n_found, sizeof(*s)) == 0)
                l->found[l->n_found++] = *s;
}

/* The same socket as it was found at the last look, or NULL. */
static const struct net_listener *known(const struct daemon *d, const struct net_listener *s)
{
        for (size_t i = 0; i < d->n_intruders; i++) {
                const struct net_listener *k = &d->intruders[i];

                if (k->inode == s->inode && k->port == s->port && k->proto == s->proto &&
                    address_equal(&k->addr, &s->addr))
                        return k;
        }

        return NULL;
}

static void report(const struct net_listener *i, const struct config_service *s)
{
        const struct log_fields fields = {
                .message = MESSAGE_NODE_PORT_TAKEN,
                .service = s->name,
                .origin = &s->node_port_origin,
        };
        char text[ADDRESS_TEXT];

        log_line(
                LOG_WARNING, &fields,
                "service %s: %s listens on port %u of %s: what comes to the node port from outside "
                "goes to the service, not to the program",
                s->name, i->owner, i->port, address_format(&i->addr, text, sizeof(text)));
}

void daemon_ports_look(struct daemon *d)
{
        struct look l = { .d = d };
        struct weft_error why = { 0 };
        int r = 0;

        if (d->n_node_ports > 0) {
                l.n_addrs = node_addresses(d, l.addrs, NODE_ADDRESSES_MAX);
                r = net_listeners(on_listener, &l, &why);
        }
        if (r < 0 && !d->listeners_unknown)
                log_notice("programs of the node that listen on a node port cannot be found: %s",
                           why.text);
        d->listeners_unknown = r < 0;

        for (size_t i = 0; i < l.n_found; i++) {
                struct net_listener *found = &l.found[i];
                const struct net_listener *before = known(d, found);

                if (before) {
                        *found = *before;
                        continue;
                }
                net_listener_owner(found);
                report(found, service_of(d, found->port, found->proto));
        }

        free(d->intruders);
        d->intruders = l.found;
        d->n_intruders = l.n_found;
}

const struct net_listener *daemon_ports_intruder(const struct daemon *d,
                                                 const struct config_service *s)
{
        for (size_t i = 0; i < d->n_intruders; i++)
                if (d->intruders[i].port == s->node_port && d->intruders[i].proto == s->proto)
                        return &d->intruders[i];

        return NULL;
}

void daemon_ports_apply(struct daemon *d)
{
        keep_ports(d);
        daemon_ports_look(d);
}

void daemon_ports_free(struct daemon *d)
{
        free(d->own_addresses.items);
        free(d->node_ports);
        free(d->intruders);
        d->node_ports = NULL;
        d->intruders = NULL;
        d->n_node_ports = d->n_intruders = 0;
}
