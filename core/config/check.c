/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/check.h"
#include "config/values.h"
#include "util.h"

/* Who wants something: a section (its name is empty for [node]), and where it is written. */
struct owner {
        const char *kind, *name;
        const struct origin *origin;
};

#define OWNER_FORMAT "[%s%s%s]"
#define OWNER_ARGS(o) (o).kind, *(o).name != '\0' ? " " : "", (o).name

/* An address that somebody wants: whole (port 0), or one port of it. All zero is every address of
 * the node. */
struct claim {
        struct weft_addr addr;
        uint16_t port;
        uint8_t proto;
        struct owner owner;
        size_t order; /* of appearance, services last: the later one is at fault */
};

struct claims {
        struct claim *items;
        size_t n;
        struct diagnostics *diagnostics;
};

/* A prefix of pods, ditto. */
struct span {
        struct weft_prefix prefix;
        struct owner owner;
};

struct spans {
        struct span *items;
        size_t n;
};

static struct owner peer_owner(const struct config_peer *p)
{
        return (struct owner) { "peer", p->name, &p->origin };
}

static void claims_done(struct claims *c)
{
        free(c->items);
}

static void spans_done(struct spans *s)
{
        free(s->items);
}

static void claim(struct claims *c, const struct weft_addr *addr, uint16_t port, uint8_t proto,
                  struct owner owner)
{
        if (list_grow(&c->items, c->n, sizeof(*c->items)) < 0)
                return;

        c->items[c->n] = (struct claim) { *addr, port, proto, owner, c->n };
        c->n++;
}

static void claim_all(struct claims *c, const struct weft_addresses *list, uint16_t port,
                      uint8_t proto, struct owner owner)
{
        for (size_t i = 0; i < list->n; i++)
                claim(c, &list->items[i], port, proto, owner);
}

static void claim_service(struct claims *c, const struct config_service *s)
{
        const struct weft_addr node = {};
        struct owner owner = { "service", s->name, &s->origin };

        claim_all(c, &s->cluster_ip, s->port, s->proto, owner);
        claim_all(c, &s->external_ip, s->port, s->proto, owner);
        claim_all(c, &s->load_balancer_ip, s->port, s->proto, owner);
        if (s->node_port != 0)
                claim(c, &node, s->node_port, s->proto, owner);
}

static int compare_claims(const void *a, const void *b)
{
        const struct claim *x = a, *y = b;
        int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

        if (r == 0)
                r = (int) x->port - y->port;
        if (r == 0)
                r = (int) x->proto - y->proto;

        return r != 0 ? r : x->order < y->order ? -1 : 1;
}

static void refuse_claim(struct claims *c, const struct claim *first, const struct claim *second)
{
        const struct claim *late = first->order < second->order ? second : first;
        const struct claim *early = late == first ? second : first;
        char addr[ADDRESS_TEXT], port[16] = "";

        if (late->port != 0)
                (void) snprintf(port, sizeof(port), " port %u", late->port);

        diagnostics_add(c->diagnostics, late->owner.origin,
                        OWNER_FORMAT " %s%s is taken by " OWNER_FORMAT " in %s:%u already: give "
                                     "each its own",
                        OWNER_ARGS(late->owner),
                        address_is_zero(&late->addr)
                                ? "node"
                                : address_format(&late->addr, addr, sizeof(addr)),
                        port, OWNER_ARGS(early->owner), early->owner.origin->file,
                        early->owner.origin->line);
}

/* Sorted, so that of one address the claims to all of it come first, and equal ports together. */
static void check_claims(struct claims *c)
{
        const struct claim *whole = NULL, *last = NULL, *i = NULL;

        if (c->n > 0)
                qsort(c->items, c->n, sizeof(*c->items), compare_claims);

        for (size_t n = 0; n < c->n; n++, last = i) {
                i = &c->items[n];
                if (!last || !address_equal(&i->addr, &last->addr))
                        whole = i->port == 0 ? i : NULL;
                else if (whole)
                        refuse_claim(c, whole, i);
                else if (i->port == last->port && i->proto == last->proto)
                        refuse_claim(c, last, i);
        }
}

static void check_addresses(const struct config *c, struct diagnostics *diagnostics)
{
        _cleanup_(claims_done) struct claims claims = { .diagnostics = diagnostics };

        claim_all(&claims, &c->node.address, 0, 0, (struct owner) { "node", "", &c->node.origin });
        for (size_t i = 0; i < c->n_peers; i++)
                claim_all(&claims, &c->peers[i].address, 0, 0, peer_owner(&c->peers[i]));
        for (size_t i = 0; i < c->n_endpoints; i++)
                claim_all(&claims, &c->endpoints[i].address, 0, 0,
                          (struct owner) { "endpoint", c->endpoints[i].name,
                                           &c->endpoints[i].origin });
        for (size_t i = 0; i < c->n_services; i++)
                claim_service(&claims, &c->services[i]);

        check_claims(&claims);
}

/* ---- pod CIDRs ---------------------------------------------------------------------------- */

static void add_spans(struct spans *s, const struct weft_prefixes *list, struct owner owner)
{
        for (size_t i = 0; i < list->n; i++) {
                if (list_grow(&s->items, s->n, sizeof(*s->items)) < 0)
                        return;
                s->items[s->n++] = (struct span) { list->items[i], owner };
        }
}

static int compare_spans(const void *a, const void *b)
{
        const struct span *x = a, *y = b;
        int r = memcmp(&x->prefix.addr, &y->prefix.addr, sizeof(x->prefix.addr));

        return r != 0 ? r : (int) x->prefix.len - (int) y->prefix.len;
}

/* Prefixes nest or are apart: sorted, one that holds others comes right before them. */
static void check_spans(struct spans *s, struct diagnostics *diagnostics)
{
        char a[PREFIX_TEXT], b[PREFIX_TEXT];
        const struct span *outer = NULL, *i;

        if (s->n > 0)
                qsort(s->items, s->n, sizeof(*s->items), compare_spans);

        for (size_t n = 0; n < s->n; n++) {
                i = &s->items[n];
                if (!outer || !prefix_contains(&outer->prefix, &i->prefix.addr)) {
                        outer = i;
                        continue;
                }
                diagnostics_add(diagnostics, i->owner.origin,
                                OWNER_FORMAT " pod-cidr = %s overlaps %s of " OWNER_FORMAT
                                             " in %s:%u: give each node its own",
                                OWNER_ARGS(i->owner), prefix_format(&i->prefix, a, sizeof(a)),
                                prefix_format(&outer->prefix, b, sizeof(b)),
                                OWNER_ARGS(outer->owner), outer->owner.origin->file,
                                outer->owner.origin->line);
        }
}

static void check_pod_cidrs(const struct config *c, struct diagnostics *diagnostics)
{
        _cleanup_(spans_done) struct spans spans = {};

        add_spans(&spans, &c->node.pod_cidr, (struct owner) { "node", "", &c->node.origin });
        for (size_t i = 0; i < c->n_peers; i++)
                add_spans(&spans, &c->peers[i].pod_cidr, peer_owner(&c->peers[i]));

        check_spans(&spans, diagnostics);
}

static void check_gateways(const struct config_node *node, struct diagnostics *diagnostics)
{
        char text[PREFIX_TEXT];
        struct weft_addr gateway;

        for (size_t i = 0; i < node->pod_cidr.n; i++)
                if (pod_gateway(&node->pod_cidr.items[i], &gateway) < 0)
                        diagnostics_add(
                                diagnostics, &node->origin,
                                "[node] pod-cidr = %s: has no room for the node's gateway address "
                                "(network + 1) and an endpoint: give it at least four addresses",
                                prefix_format(&node->pod_cidr.items[i], text, sizeof(text)));
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void check_node(const struct config *c, struct diagnostics *diagnostics)
{
        const struct config_peer *p = c->peers;

        for (size_t i = 0; i < c->n_peers; i++)
                if (strcmp(p[i].name, c->node.name) == 0)
                        diagnostics_add(
                                diagnostics, &p[i].origin,
                                "[peer %s] has the name of this node: take the section away, "
                                "or set name in [node]",
                                p[i].name);
}

/* The word for what both attach to, or NULL. */
static const char *same_device(const struct config_endpoint *a, const struct config_endpoint *b)
{
        if (a->interface && b->interface && strcmp(a->interface, b->interface) == 0)
                return "interface";
        if (strcmp(a->device, b->device) != 0)
                return NULL;
        if (a->netns && b->netns && strcmp(a->netns, b->netns) == 0)
                return "netns and device";
        if (a->pid != 0 && a->pid == b->pid)
                return "pid and device";

        return NULL;
}

static void check_devices(const struct config *c, struct diagnostics *diagnostics)
{
        const struct config_endpoint *e = c->endpoints;
        const char *what;

        for (size_t i = 0; i < c->n_endpoints; i++)
                for (size_t j = 0; j < i; j++) {
                        what = same_device(&e[j], &e[i]);
                        if (what)
                                diagnostics_add(diagnostics, &e[i].origin,
                                                "[endpoint %s] has the same %s as [endpoint %s] in "
                                                "%s:%u: an endpoint needs a device of its own",
                                                e[i].name, what, e[j].name, e[j].origin.file,
                                                e[j].origin.line);
                }
}

static int compare_backends(const void *a, const void *b)
{
        const struct config_backend *const *x = a, *const *y = b;
        int r = memcmp(&(*x)->addr, &(*y)->addr, sizeof((*x)->addr));

        return r != 0 ? r : (int) (*x)->port - (*y)->port;
}

static void check_backends(const struct config_service *s, struct diagnostics *diagnostics)
{
        _cleanup_free_ const struct config_backend **sorted =
                calloc(s->n_backends + 1, sizeof(*sorted));
        char addr[ADDRESS_TEXT];

        if (!sorted)
                return;

        for (size_t i = 0; i < s->n_backends; i++)
                sorted[i] = &s->backends[i];
        qsort(sorted, s->n_backends, sizeof(*sorted), compare_backends);

        for (size_t i = 1; i < s->n_backends; i++)
                if (compare_backends(&sorted[i - 1], &sorted[i]) == 0)
                        diagnostics_add(
                                diagnostics, &s->origin,
                                "[service %s] backend %s port %u is given twice: to change it, "
                                "reset the list first with an empty backend =",
                                s->name, address_format(&sorted[i]->addr, addr, sizeof(addr)),
                                sorted[i]->port);
}

static bool one_per_family(const struct weft_addresses *list)
{
        size_t ipv4 = 0;

        for (size_t i = 0; i < list->n; i++)
                ipv4 += address_is_ipv4(&list->items[i]);

        return ipv4 <= 1 && list->n - ipv4 <= 1;
}

static void check_families(const struct config *c, struct diagnostics *diagnostics)
{
        static const char why[] = "has several addresses of one family: give one IPv4 and one IPv6 "
                                  "address at most";
        const struct config_peer *p = c->peers;

        if (!one_per_family(&c->node.address))
                diagnostics_add(diagnostics, &c->node.origin, "[node] %s", why);
        for (size_t i = 0; i < c->n_peers; i++)
                if (!one_per_family(&p[i].address))
                        diagnostics_add(diagnostics, &p[i].origin, "[peer %s] %s", p[i].name, why);
}

void config_check(const struct config *c, struct diagnostics *diagnostics)
{
        check_node(c, diagnostics);
        check_families(c, diagnostics);
        check_addresses(c, diagnostics);
        check_pod_cidrs(c, diagnostics);
        check_gateways(&c->node, diagnostics);
        check_devices(c, diagnostics);
        for (size_t i = 0; i < c->n_services; i++)
                check_backends(&c->services[i], diagnostics);
}
