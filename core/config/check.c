/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <search.h>
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

/* An address that somebody has: whole (port 0), or one port of it. All zero is every address of the
 * node. The tree of claims is sorted by address first, so that one address's stand together. */
struct claim {
        struct weft_addr addr;
        uint16_t port;
        uint8_t proto;
        const char *kind, *name, *key; /* the object's */
        struct origin origin;
};

/* Something to do with each address of an object. */
struct each_claim {
        struct config *config;
        const struct written *written;   /* what stands where, or NULL */
        struct diagnostics *diagnostics; /* of those that are taken */
        void (*f)(struct each_claim *e, const struct claim *c);
};

/* A prefix of pods, ditto. */
struct span {
        struct weft_prefix prefix;
        struct owner owner;
        struct origin origin;
};

struct spans {
        struct span *items;
        size_t n;
};

/* Where item n of a key is written, else where the object begins. */
static struct origin place(const struct written *w, struct owner owner, const char *key, size_t n)
{
        const struct origin *o = w ? written_place(w, owner.kind, owner.name, key, n) : NULL;

        return o ? *o : *owner.origin;
}

static struct owner peer_owner(const struct config_peer *p)
{
        return (struct owner) { "peer", p->name, &p->origin };
}

static void spans_done(struct spans *s)
{
        free(s->items);
}

/* ---- addresses ---------------------------------------------------------------------------- */

static int compare_addresses(const void *a, const void *b)
{
        return memcmp(&((const struct claim *) a)->addr, &((const struct claim *) b)->addr,
                      sizeof(struct weft_addr));
}

static int compare_claims(const void *a, const void *b)
{
        const struct claim *x = a, *y = b;
        int r = compare_addresses(a, b);

        if (r == 0)
                r = (int) x->port - y->port;

        return r != 0 ? r : (int) x->proto - y->proto;
}

/* Who has what C is, or NULL. All of an address is had by whoever has a port of it, too. */
static const struct claim *find_claim(const struct config *config, const struct claim *c)
{
        const struct claim whole = { .addr = c->addr };
        struct claim **found;

        if (c->port == 0)
                found = tfind(c, &config->claims, compare_addresses);
        else if (!(found = tfind(&whole, &config->claims, compare_claims)))
                found = tfind(c, &config->claims, compare_claims);

        return found ? *found : NULL;
}

bool config_address_is_taken(const struct config *c, const struct weft_addr *a)
{
        return find_claim(c, &(struct claim) { .addr = *a });
}

static void refuse_claim(struct diagnostics *diagnostics, const struct claim *late,
                         const struct claim *early)
{
        const struct owner owner = { late->kind, late->name, &late->origin };
        const struct owner other = { early->kind, early->name, &early->origin };
        const bool node = address_is_zero(&late->addr);
        char value[ADDRESS_TEXT], port[24] = "";

        if (node)
                (void) snprintf(value, sizeof(value), "%u", late->port);
        else
                (void) address_format(&late->addr, value, sizeof(value));
        if (late->port != 0 && !node)
                (void) snprintf(port, sizeof(port), "port %u of it ", late->port);

        diagnostics_add(diagnostics, &late->origin,
                        OWNER_FORMAT " %s = %s: %sis taken by " OWNER_FORMAT
                                     " in %s:%u already: give each its own",
                        OWNER_ARGS(owner), late->key, value, port, OWNER_ARGS(other),
                        early->origin.file, early->origin.line);
}

static void take(struct each_claim *e, const struct claim *c)
{
        const struct claim *early = find_claim(e->config, c);
        _cleanup_free_ struct claim *mine = NULL;

        if (early) {
                refuse_claim(e->diagnostics, c, early);
                return;
        }

        mine = malloc(sizeof(*mine));
        if (!mine)
                return;

        *mine = *c;
        if (tsearch(mine, &e->config->claims, compare_claims))
                TAKE(mine);
}

static void give_back(struct each_claim *e, const struct claim *c)
{
        struct claim **found = tfind(c, &e->config->claims, compare_claims), *mine;

        if (!found || strcmp((*found)->kind, c->kind) != 0 || strcmp((*found)->name, c->name) != 0)
                return;

        mine = *found;
        (void) tdelete(mine, &e->config->claims, compare_claims);
        free(mine);
}

/* Each address of a list; c: what all of them have in common. */
static void each_address(struct each_claim *e, struct claim c, const struct origin *object,
                         const char *key, const struct weft_addresses *list)
{
        const struct owner owner = { c.kind, c.name, object };

        c.key = key;
        for (size_t i = 0; i < list->n; i++) {
                c.addr = list->items[i];
                c.origin = place(e->written, owner, key, i);
                e->f(e, &c);
        }
}

static void each_node_claim(struct each_claim *e, const struct config_node *n)
{
        const struct owner owner = { "node", "", &n->origin };
        struct claim c = { .kind = owner.kind, .name = owner.name };

        each_address(e, c, &n->origin, "address", &n->address);

        /* The node's own address may be its endpoints' gateway. */
        c.key = "pod-cidr";
        for (size_t i = 0; i < n->pod_cidr.n; i++) {
                c.origin = place(e->written, owner, c.key, i);
                if (pod_gateway(&n->pod_cidr.items[i], &c.addr) == 0 && !find_claim(e->config, &c))
                        e->f(e, &c);
        }
}

static void each_peer_claim(struct each_claim *e, const void *object)
{
        const struct config_peer *p = object;

        each_address(e, (struct claim) { .kind = "peer", .name = p->name }, &p->origin, "address",
                     &p->address);
}

static void each_endpoint_claim(struct each_claim *e, const void *object)
{
        const struct config_endpoint *p = object;

        each_address(e, (struct claim) { .kind = "endpoint", .name = p->name }, &p->origin,
                     "address", &p->address);
}

/* One port of all of the node's addresses; 0: none. */
static void each_node_port(struct each_claim *e, const struct config_service *s, const char *key,
                           uint16_t port, uint8_t proto)
{
        const struct owner owner = { "service", s->name, &s->origin };

        if (port != 0)
                e->f(e, &(struct claim) {
                                .kind = owner.kind,
                                .name = owner.name,
                                .key = key,
                                .origin = place(e->written, owner, key, 0),
                                .port = port,
                                .proto = proto,
                        });
}

static void each_service_claim(struct each_claim *e, const void *object)
{
        const struct config_service *s = object;
        const struct claim c = {
                .kind = "service",
                .name = s->name,
                .port = s->port,
                .proto = s->proto,
        };

        if (s->port == 0)
                return; /* complained about already */

        each_address(e, c, &s->origin, "cluster-ip", &s->cluster_ip);
        each_address(e, c, &s->origin, "external-ip", &s->external_ip);
        each_address(e, c, &s->origin, "load-balancer-ip", &s->load_balancer_ip);
        each_node_port(e, s, "node-port", s->node_port, s->proto);
        each_node_port(e, s, "health-check-node-port", s->health_check_node_port, IPPROTO_TCP);
}

/* ---- pod CIDRs ---------------------------------------------------------------------------- */

static void add_spans(struct spans *s, const struct weft_prefixes *list, struct owner owner,
                      const struct written *written)
{
        for (size_t i = 0; i < list->n; i++) {
                if (list_grow(&s->items, s->n, sizeof(*s->items)) < 0)
                        return;
                s->items[s->n++] = (struct span) { list->items[i], owner,
                                                   place(written, owner, "pod-cidr", i) };
        }
}

static int compare_spans(const void *a, const void *b)
{
        const struct span *x = a, *y = b;
        int r = memcmp(&x->prefix.addr, &y->prefix.addr, sizeof(x->prefix.addr));

        return r != 0 ? r : (int) x->prefix.len - (int) y->prefix.len;
}

static void refuse_span(struct diagnostics *diagnostics, const struct span *late,
                        const struct span *early)
{
        bool same = strcmp(late->owner.kind, early->owner.kind) == 0 &&
                    strcmp(late->owner.name, early->owner.name) == 0;
        char a[PREFIX_TEXT], b[PREFIX_TEXT];

        diagnostics_add(diagnostics, &late->origin,
                        OWNER_FORMAT " pod-cidr = %s overlaps %s of " OWNER_FORMAT " in %s:%u: %s",
                        OWNER_ARGS(late->owner), prefix_format(&late->prefix, a, sizeof(a)),
                        prefix_format(&early->prefix, b, sizeof(b)), OWNER_ARGS(early->owner),
                        early->origin.file, early->origin.line,
                        same ? "take one of them away" : "give each node its own");
}

/* Prefixes nest or are apart: sorted, one that holds others comes right before them. */
static void check_spans(struct spans *s, struct diagnostics *diagnostics)
{
        const struct span *outer = NULL, *i;

        if (s->n > 0)
                qsort(s->items, s->n, sizeof(*s->items), compare_spans);

        for (size_t n = 0; n < s->n; n++) {
                i = &s->items[n];
                if (outer && prefix_contains(&outer->prefix, &i->prefix.addr))
                        refuse_span(diagnostics, i, outer);
                else
                        outer = i;
        }
}

/* A list against itself: each of its items against those before it. */
static void compare_lists(const struct weft_prefixes *late, struct owner late_owner,
                          const struct weft_prefixes *early, struct owner early_owner,
                          struct diagnostics *diagnostics)
{
        for (size_t i = 0; i < late->n; i++)
                for (size_t k = 0; k < (late == early ? i : early->n); k++)
                        if (prefixes_overlap(&late->items[i], &early->items[k]))
                                refuse_span(diagnostics,
                                            &(struct span) { late->items[i], late_owner,
                                                             *late_owner.origin },
                                            &(struct span) { early->items[k], early_owner,
                                                             *early_owner.origin });
}

/* Of one peer against everybody else. */
static void check_pod_cidrs_of(const struct config *c, const struct config_peer *p,
                               struct diagnostics *diagnostics)
{
        const struct owner node = { "node", "", &c->node.origin };

        compare_lists(&p->pod_cidr, peer_owner(p), &p->pod_cidr, peer_owner(p), diagnostics);
        compare_lists(&p->pod_cidr, peer_owner(p), &c->node.pod_cidr, node, diagnostics);
        for (size_t i = 0; i < c->n_peers; i++)
                if (strcmp(c->peers[i].name, p->name) != 0)
                        compare_lists(&p->pod_cidr, peer_owner(p), &c->peers[i].pod_cidr,
                                      peer_owner(&c->peers[i]), diagnostics);
}

static void check_pod_cidrs(const struct config *c, const struct written *written,
                            struct diagnostics *diagnostics)
{
        _cleanup_(spans_done) struct spans spans = {};

        add_spans(&spans, &c->node.pod_cidr, (struct owner) { "node", "", &c->node.origin },
                  written);
        for (size_t i = 0; i < c->n_peers; i++)
                add_spans(&spans, &c->peers[i].pod_cidr, peer_owner(&c->peers[i]), written);

        check_spans(&spans, diagnostics);
}

static void check_gateways(const struct config_node *node, const struct written *written,
                           struct diagnostics *diagnostics)
{
        const struct owner owner = { "node", "", &node->origin };
        char text[PREFIX_TEXT];
        struct weft_addr gateway;

        for (size_t i = 0; i < node->pod_cidr.n; i++) {
                struct origin origin = place(written, owner, "pod-cidr", i);

                if (pod_gateway(&node->pod_cidr.items[i], &gateway) < 0)
                        diagnostics_add(
                                diagnostics, &origin,
                                "[node] pod-cidr = %s: has no room for the node's gateway address "
                                "(network + 1) and an endpoint: give it at least four addresses",
                                prefix_format(&node->pod_cidr.items[i], text, sizeof(text)));
        }
}

/* An endpoint of this node where the others send to a peer. */
static void check_apart(const struct config_endpoint *e, const struct config_peer *p,
                        const struct written *written, struct diagnostics *diagnostics)
{
        const struct owner owner = { "endpoint", e->name, &e->origin };
        char address[ADDRESS_TEXT], prefix[PREFIX_TEXT];

        for (size_t i = 0; i < e->address.n; i++)
                for (size_t k = 0; k < p->pod_cidr.n; k++) {
                        struct origin origin;

                        if (!prefix_contains(&p->pod_cidr.items[k], &e->address.items[i]))
                                continue;
                        origin = place(written, owner, "address", i);
                        diagnostics_add(
                                diagnostics, &origin,
                                "[endpoint %s] address = %s: is in pod-cidr %s of [peer %s] in "
                                "%s:%u, so other nodes look for it there: give it one of this "
                                "node's pod-cidr",
                                e->name,
                                address_format(&e->address.items[i], address, sizeof(address)),
                                prefix_format(&p->pod_cidr.items[k], prefix, sizeof(prefix)),
                                p->name, p->origin.file, p->origin.line);
                }
}

/* ---- the rest ----------------------------------------------------------------------------- */

static void check_families(struct owner owner, const struct weft_addresses *list,
                           const struct written *written, struct diagnostics *diagnostics)
{
        size_t seen[2] = { 0, 0 };
        char text[ADDRESS_TEXT];

        for (size_t i = 0; i < list->n; i++) {
                struct origin origin = place(written, owner, "address", i);

                if (seen[address_is_ipv4(&list->items[i])]++ == 1)
                        diagnostics_add(diagnostics, &origin,
                                        OWNER_FORMAT " address = %s: has several addresses of one "
                                                     "family: give one IPv4 and one IPv6 address "
                                                     "at most",
                                        OWNER_ARGS(owner),
                                        address_format(&list->items[i], text, sizeof(text)));
        }
}

static void check_peer(const struct config *c, const struct config_peer *p,
                       const struct written *written, struct diagnostics *diagnostics)
{
        if (strcmp(p->name, c->node.name) == 0)
                diagnostics_add(diagnostics, &p->origin,
                                "[peer %s] has the name of this node: take the section away, "
                                "or set name in [node]",
                                p->name);
        check_families(peer_owner(p), &p->address, written, diagnostics);
}

/* The key that makes both attach to the same, or NULL. */
static const char *same_device(const struct config_endpoint *a, const struct config_endpoint *b)
{
        if (a->interface && b->interface && strcmp(a->interface, b->interface) == 0)
                return "interface";
        if (strcmp(a->device, b->device) != 0)
                return NULL;
        if (a->netns && b->netns && strcmp(a->netns, b->netns) == 0)
                return "netns";
        if (a->pid != 0 && a->pid == b->pid)
                return "pid";

        return NULL;
}

/* Of one endpoint against those before the one with number end. */
static void check_device(const struct config *c, const struct config_endpoint *e, size_t end,
                         const struct written *written, struct diagnostics *diagnostics)
{
        const struct owner owner = { "endpoint", e->name, &e->origin };

        for (size_t i = 0; i < end; i++) {
                const struct config_endpoint *other = &c->endpoints[i];
                const char *key = same_device(other, e);
                struct origin origin;

                if (!key || strcmp(other->name, e->name) == 0)
                        continue;
                origin = place(written, owner, key, 0);
                diagnostics_add(diagnostics, &origin,
                                "[endpoint %s] has the same %s%s as [endpoint %s] in %s:%u: an "
                                "endpoint needs a device of its own",
                                e->name, key, strcmp(key, "interface") == 0 ? "" : " and device",
                                other->name, other->origin.file, other->origin.line);
        }
}

static int compare_backends(const void *a, const void *b)
{
        const struct config_backend *const *x = a, *const *y = b;
        int r = memcmp(&(*x)->addr, &(*y)->addr, sizeof((*x)->addr));

        return r != 0 ? r : (int) (*x)->port - (*y)->port;
}

static void check_backends(const struct config_service *s, const struct written *written,
                           struct diagnostics *diagnostics)
{
        _cleanup_free_ const struct config_backend **sorted =
                calloc(s->n_backends + 1, sizeof(*sorted));
        const struct owner owner = { "service", s->name, &s->origin };
        char addr[ADDRESS_TEXT];

        if (!sorted)
                return;

        for (size_t i = 0; i < s->n_backends; i++)
                sorted[i] = &s->backends[i];
        qsort(sorted, s->n_backends, sizeof(*sorted), compare_backends);

        for (size_t i = 1; i < s->n_backends; i++) {
                const struct config_backend *last =
                        sorted[i] > sorted[i - 1] ? sorted[i] : sorted[i - 1];
                struct origin origin =
                        place(written, owner, "backend", (size_t) (last - s->backends));

                if (compare_backends(&sorted[i - 1], &sorted[i]) == 0)
                        diagnostics_add(
                                diagnostics, &origin,
                                "[service %s] backend %s port %u is given twice: to change it, "
                                "reset the list first with an empty backend =",
                                s->name, address_format(&last->addr, addr, sizeof(addr)),
                                last->port);
        }
}

/* ---- all, and one ------------------------------------------------------------------------- */

static void each_claim_of(const struct section *s, const void *object, struct each_claim *e)
{
        static const struct {
                const char *kind;
                void (*each)(struct each_claim *e, const void *object);
        } kinds[] = {
                { "peer", each_peer_claim },
                { "endpoint", each_endpoint_claim },
                { "service", each_service_claim },
        };

        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                if (strcmp(kinds[i].kind, s->name) == 0)
                        kinds[i].each(e, object);
}

void config_check(struct config *c, const struct written *written, struct diagnostics *diagnostics)
{
        struct each_claim e = {
                .config = c,
                .written = written,
                .diagnostics = diagnostics,
                .f = take,
        };

        each_node_claim(&e, &c->node);
        for (const struct section *s = sections; s->name; s++)
                for (size_t i = 0; s->named && i < section_count(s, c); i++)
                        each_claim_of(s, section_object(s, c, i), &e);

        check_families((struct owner) { "node", "", &c->node.origin }, &c->node.address, written,
                       diagnostics);
        for (size_t i = 0; i < c->n_peers; i++)
                check_peer(c, &c->peers[i], written, diagnostics);
        check_pod_cidrs(c, written, diagnostics);
        check_gateways(&c->node, written, diagnostics);
        for (size_t i = 0; i < c->n_endpoints; i++) {
                check_device(c, &c->endpoints[i], i, written, diagnostics);
                for (size_t k = 0; k < c->n_peers; k++)
                        check_apart(&c->endpoints[i], &c->peers[k], written, diagnostics);
        }
        for (size_t i = 0; i < c->n_services; i++)
                check_backends(&c->services[i], written, diagnostics);
}

void config_claim(struct config *c, const struct section *s, const void *object,
                  struct diagnostics *diagnostics)
{
        struct each_claim e = { .config = c, .diagnostics = diagnostics, .f = take };

        each_claim_of(s, object, &e);
}

void config_unclaim(struct config *c, const struct section *s, const void *object)
{
        struct each_claim e = { .config = c, .f = give_back };

        each_claim_of(s, object, &e);
}

void config_unclaim_all(struct config *c)
{
        tdestroy(c->claims, free);
        c->claims = NULL;
}

void config_check_object(struct config *c, const struct section *s, const void *object,
                         struct diagnostics *diagnostics)
{
        if (strcmp(s->name, "peer") == 0) {
                check_peer(c, object, NULL, diagnostics);
                check_pod_cidrs_of(c, object, diagnostics);
                for (size_t i = 0; i < c->n_endpoints; i++)
                        check_apart(&c->endpoints[i], object, NULL, diagnostics);
        } else if (strcmp(s->name, "endpoint") == 0) {
                check_device(c, object, c->n_endpoints, NULL, diagnostics);
                for (size_t i = 0; i < c->n_peers; i++)
                        check_apart(object, &c->peers[i], NULL, diagnostics);
        } else
                check_backends(object, NULL, diagnostics);

        config_claim(c, s, object, diagnostics);
}
