/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/check.h"
#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "probe/probe.h"
#include "util.h"

enum { GATEWAYS_MAX = 16, MANY = 16 };

struct endpoint *endpoint_by_index(struct daemon *d, uint32_t ifindex)
{
        for (size_t i = 0; ifindex && i < d->n_endpoints; i++)
                if (d->endpoints[i].wire.ifindex == ifindex)
                        return &d->endpoints[i];

        return NULL;
}

struct endpoint *endpoint_by_name(const struct daemon *d, const char *name)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                if (strcmp(d->endpoints[i].name, name) == 0)
                        return &d->endpoints[i];

        return NULL;
}

bool endpoint_has_address(const struct daemon *d, const struct weft_addr *a)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                if (addresses_have(&d->endpoints[i].addrs, a))
                        return true;

        return false;
}

void endpoints_pending_addresses(const struct daemon *d, struct weft_addresses *ret)
{
        for (size_t i = 0; i < d->n_endpoints; i++) {
                const struct endpoint *e = &d->endpoints[i];

                if (e->ready || e->hooked || e->reason[0] == '\0')
                        continue;
                for (size_t k = 0; k < e->addrs.n; k++)
                        (void) addresses_add(ret, &e->addrs.items[k]);
        }
}

/* ---- addresses ---------------------------------------------------------------------------- */

/* Not to be lent. */
static bool is_configured(void *data, const struct weft_addr *a)
{
        return config_address_is_taken(data, a);
}

/* What is lent must be on the disk before anybody uses it; of many, once for all. */
static int save_leases(struct daemon *d, struct weft_error *reterr)
{
        _cleanup_free_ char *path = NULL;
        int r;

        if (!d->leases_changed)
                return 0;

        r = make_directories(d->paths.state, 0755, reterr);
        if (r < 0)
                return r;
        if (asprintf(&path, "%s/addresses", d->paths.state) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = leases_save(&d->leases, path, reterr);
        d->leases_changed = r < 0;
        return r;
}

/* A section may have been given, since, an address that was lent to somebody before. */
static bool lease_is_void(const struct daemon *d, const struct endpoint *e)
{
        const struct config *c = d->build->config;

        for (size_t i = 0; i < c->node.pod_cidr.n; i++) {
                const struct weft_addr *kept =
                        leases_find(&d->leases, e->name, &c->node.pod_cidr.items[i]);

                if (kept && is_configured((void *) c, kept))
                        return true;
        }

        return false;
}

/* One address of each family that the node has a pod CIDR of. */
static int lend_addresses(struct daemon *d, const struct endpoint *e, struct weft_addresses *ret,
                          struct weft_error *reterr)
{
        const struct weft_prefixes *cidrs = &d->build->config->node.pod_cidr;
        bool have[2] = { false, false };

        if (lease_is_void(d, e))
                d->leases_changed = leases_drop(&d->leases, e->name) || d->leases_changed;

        for (size_t i = 0; i < cidrs->n; i++) {
                const struct weft_prefix *cidr = &cidrs->items[i];
                const struct weft_addr *kept = leases_find(&d->leases, e->name, cidr);
                bool *family = &have[address_is_ipv4(&cidr->addr)];
                struct weft_addr a = kept ? *kept : (struct weft_addr) { 0 };

                if (*family)
                        continue;
                if (!kept &&
                    leases_take(&d->leases, e->name, cidr, is_configured, d->build->config, &a) < 0)
                        continue;
                d->leases_changed = d->leases_changed || !kept;
                *family = true;
                if (addresses_add(ret, &a) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        if (ret->n == 0)
                return weft_fail(
                        reterr, -ENOSPC,
                        "its section has no address =, and the node's pod-cidr has no free one");

        return 0;
}

static void addresses_done(struct weft_addresses *a)
{
        free(a->items);
}

static int find_addresses(struct daemon *d, struct endpoint *e, struct weft_error *reterr)
{
        _cleanup_(addresses_done) struct weft_addresses old = { 0 }, found = { 0 };
        const struct weft_addresses *configured = &e->section->address;
        int r;

        for (size_t i = 0; i < configured->n; i++)
                if (addresses_add(&found, &configured->items[i]) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");
        r = configured->n == 0 ? lend_addresses(d, e, &found, reterr) : 0;
        if (r < 0)
                return r;

        old = e->addrs;
        e->addrs = found;
        found = (struct weft_addresses) { 0 };

        return 0;
}

/* ---- up ----------------------------------------------------------------------------------- */

/* An endpoint that stands outside the pod CIDRs leaves through the first gateway of its family. */
static size_t gateways(const struct daemon *d, struct weft_addr *ret, size_t max)
{
        const struct weft_prefixes *cidrs = &d->build->config->node.pod_cidr;
        size_t n = 0;

        for (size_t i = 0; i < cidrs->n && n < max; i++)
                if (pod_gateway(&cidrs->items[i], &ret[n]) == 0)
                        n++;

        return n;
}

/* What the endpoint goes without though it is ready: a default route, in a family of its addresses
 * that the node has no pod CIDR of. "" where there is nothing to say. */
static const char *lacks_gateway(const struct daemon *d, const struct endpoint *e)
{
        bool has[2] = { false, false };
        struct weft_addr gateway[GATEWAYS_MAX];
        size_t n = e->section->interface ? 0 : gateways(d, gateway, GATEWAYS_MAX);

        for (size_t i = 0; i < n; i++)
                has[address_is_ipv4(&gateway[i])] = true;
        for (size_t i = 0; i < e->addrs.n && !e->section->interface; i++)
                if (!has[address_is_ipv4(&e->addrs.items[i])])
                        return address_is_ipv4(&e->addrs.items[i])
                                       ? "no default route for IPv4: add an IPv4 prefix to "
                                         "pod-cidr in [node], whose first address is the gateway"
                                       : "no default route for IPv6: add an IPv6 prefix to "
                                         "pod-cidr in [node], whose first address is the gateway";

        return "";
}

static bool lacks_netkit(const struct endpoint *e)
{
        return !e->section->interface && e->section->kind == ENDPOINT_NETKIT &&
               !probe_has(WEFT_NEED_LINK_KIND, "netkit");
}

static int wire_endpoint(struct daemon *d, struct endpoint *e, struct weft_error *reterr)
{
        struct weft_addr gateway[GATEWAYS_MAX];
        const struct wire_request w = {
                .name = e->name,
                .netns = e->section->netns,
                .pid = e->section->pid,
                .started = e->section->started,
                .device = e->section->device,
                .netkit = e->section->kind == ENDPOINT_NETKIT && !lacks_netkit(e),
                .addrs = e->addrs.items,
                .n_addrs = e->addrs.n,
                .gateways = gateway,
                .n_gateways = gateways(d, gateway, GATEWAYS_MAX),
                .mtu = endpoint_mtu(d),
        };
        int r = wire_up(d->net, d->host, &w, &e->wire, reterr);

        e->wired = e->wired || r == 0;
        e->has_peer = true;
        return r;
}

static void forget_device(struct daemon *d, struct endpoint *e)
{
        if (e->wire.ifname[0])
                attach_remove(d->attachments, e->wire.ifname);
        if (e->wired)
                wire_down(d->net, d->host, e->name, e->addrs.items, e->addrs.n);
        if (e->forwarding)
                host_unforwarding(d->host, e->wire.ifname);

        e->wired = e->forwarding = e->hooked = false;
        e->wire = (struct wire) { 0 };
}

/* A device that exists already. What weft needs of it is forwarding, as everywhere: without it no
 * FIB lookup for what comes from there finds a way. */
static int find_interface(struct daemon *d, struct endpoint *e, struct weft_error *reterr)
{
        struct net_link link;
        int r;

        if (net_link_by_name(d->net, e->section->interface, &link) < 0)
                return weft_fail(reterr, -ENOENT, "no interface %s", e->section->interface);
        if (uplink_by_index(d, link.ifindex) || !link.ethernet)
                return weft_fail(reterr, -EINVAL, "interface %s %s, and no endpoint's",
                                 e->section->interface,
                                 link.ethernet ? "is an uplink of this node" : "is not Ethernet");
        if (e->wire.ifindex && e->wire.ifindex != link.ifindex)
                forget_device(d, e);

        e->wire.ifindex = link.ifindex;
        memcpy(e->wire.ifname, link.name, sizeof(e->wire.ifname));
        memcpy(e->wire.mac, link.mac, sizeof(e->wire.mac));
        e->has_peer = strcmp(link.kind, "veth") == 0 || strcmp(link.kind, "netkit") == 0;
        if (e->forwarding)
                return 0;

        r = host_forwarding(d->host, link.name, reterr);
        e->forwarding = r == 0;
        return r;
}

static int enter_table(struct daemon *d, const struct endpoint *e, struct weft_error *reterr)
{
        struct table_endpoint row = {
                .addrs = e->addrs.items,
                .n_addrs = e->addrs.n,
                .ifindex = e->wire.ifindex,
                .identity = e->section->identity,
                .has_peer = e->has_peer,
                .by_device = generation_sees_all(d->build->generation, WEFT_TO_ENDPOINT),
        };

        memcpy(row.mac, e->wire.peer_mac, sizeof(row.mac));
        memcpy(row.gateway_mac, e->wire.mac, sizeof(row.gateway_mac));

        return tables_set_endpoint(d->tables, e->name, &row, reterr);
}

static int bring_up(struct daemon *d, struct endpoint *e, struct weft_error *reterr)
{
        int r = find_addresses(d, e, reterr);

        if (r == 0)
                r = save_leases(d, reterr);
        if (r == 0)
                r = e->section->interface ? find_interface(d, e, reterr)
                                          : wire_endpoint(d, e, reterr);
        if (r == 0)
                r = enter_table(d, e, reterr);
        if (r == 0 && d->hooks_on) {
                r = daemon_hooks_attach(d, d->build, e->wire.ifindex, e->wire.ifname,
                                        endpoint_hooks, ELEMENTS(endpoint_hooks), reterr);
                e->hooked = e->hooked || r == 0;
        }

        return r;
}

/* Pending is no failure: the reason is shown by status, logged when it is another one, and the
 * endpoint is tried again. */
static void try_endpoint(struct daemon *d, struct endpoint *e)
{
        const struct log_fields fields = { .message = MESSAGE_ENDPOINT_PENDING,
                                           .endpoint = e->name,
                                           .origin = &e->section->origin };
        struct weft_error why = { 0 };
        bool was_ready = e->ready;
        int r = bring_up(d, e, &why);
        const char *lacks = r == 0 ? lacks_gateway(d, e) : "";

        e->ready = r == 0;
        if (r == 0 && !was_ready)
                log_about(LOG_INFO, ENDPOINT_READY, endpoint, e->name,
                          "endpoint %s is ready on %s%s", e->name, e->wire.ifname,
                          lacks_netkit(e) ? ", a veth: the kernel has no netkit" : "");
        else if (r < 0 && strncmp(e->reason, why.text, sizeof(e->reason) - 1) != 0)
                log_line(r == -ENOENT ? LOG_INFO : LOG_WARNING, &fields,
                         "endpoint %s is pending: %s", e->name, why.text);
        if (*lacks && strcmp(e->reason, lacks) != 0)
                log_about(LOG_WARNING, ENDPOINT_READY, endpoint, e->name, "endpoint %s has %s",
                          e->name, lacks);

        (void) snprintf(e->reason, sizeof(e->reason), "%.*s", (int) sizeof(e->reason) - 1,
                        r == 0 ? lacks : why.text);
}

void daemon_endpoints_count_new(struct daemon *d)
{
        size_t n = 0;

        for (size_t i = 0; i < d->n_endpoints; i++)
                n += !d->endpoints[i].hooked;
        attach_many(d->attachments, n > MANY);
}

bool daemon_endpoints_retry(struct daemon *d)
{
        bool pending = false;

        daemon_removals_make_way(d);
        daemon_endpoints_count_new(d);

        for (size_t i = 0; i < d->n_endpoints; i++)
                if (!d->endpoints[i].ready)
                        (void) find_addresses(d, &d->endpoints[i], NULL);

        for (size_t i = 0; i < d->n_endpoints; i++) {
                if (!d->endpoints[i].ready)
                        try_endpoint(d, &d->endpoints[i]);
                pending = pending || !d->endpoints[i].ready;
        }

        daemon_services_follow_endpoints(d);
        return !pending;
}

void daemon_endpoints_repair(struct daemon *d)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                if (d->endpoints[i].ready)
                        try_endpoint(d, &d->endpoints[i]);
        daemon_services_follow_endpoints(d);
        daemon_events_wait_for_endpoints(d);
}

/* What somebody took down stays down until somebody, or a reload, takes it up again. */
void daemon_endpoints_look(struct daemon *d)
{
        struct net_link now;

        for (size_t i = 0; i < d->n_endpoints; i++) {
                struct endpoint *e = &d->endpoints[i];
                bool was_down = e->down;

                if (!e->look || !e->ready || net_link_by_index(d->net, e->wire.ifindex, &now) < 0)
                        continue;
                e->look = false;
                e->down = !now.up;
                if (was_down && now.up)
                        try_endpoint(d, e);
        }
        daemon_events_wait_for_endpoints(d);
}

/* Of a device that weft did not make, the workload's link-layer address is known once it has
 * spoken. */
bool daemon_endpoints_neighbour(struct daemon *d, uint32_t ifindex, const struct weft_addr *addr,
                                const uint8_t mac[6])
{
        struct endpoint *e = endpoint_by_index(d, ifindex);
        bool its = false;

        for (size_t i = 0; e && i < e->addrs.n; i++)
                its = its || memcmp(&e->addrs.items[i], addr, sizeof(*addr)) == 0;
        if (!its || !e->section->interface ||
            memcmp(e->wire.peer_mac, mac, sizeof(e->wire.peer_mac)) == 0)
                return false;

        memcpy(e->wire.peer_mac, mac, sizeof(e->wire.peer_mac));
        try_endpoint(d, e);
        return true;
}

/* ---- down --------------------------------------------------------------------------------- */

static void take_down(struct daemon *d, struct endpoint *e)
{
        tables_del_endpoint(d->tables, e->name);
        forget_device(d, e);
        e->ready = false;
        free(e->addrs.items);
        e->addrs = (struct weft_addresses) { 0 };
}

void daemon_endpoints_link_gone(struct daemon *d, uint32_t ifindex)
{
        struct endpoint *e = ifindex ? endpoint_by_index(d, ifindex) : NULL;

        if (!e)
                return;

        (void) snprintf(e->reason, sizeof(e->reason), "its interface %s is gone: waiting for it",
                        e->wire.ifname);
        log_about(LOG_NOTICE, ENDPOINT_PENDING, endpoint, e->name, "endpoint %s: %s", e->name,
                  e->reason);
        take_down(d, e);
        daemon_events_wait_for_endpoints(d);
}

/* The pair may still lead to the namespace that was there before: somebody in it keeps it alive. */
void daemon_endpoints_appeared(struct daemon *d, const char *directory, const char *name)
{
        size_t n = strlen(directory);

        for (size_t i = 0; i < d->n_endpoints; i++) {
                const char *netns = d->endpoints[i].section->netns;

                if (netns && strncmp(netns, directory, n) == 0 && netns[n] == '/' &&
                    strcmp(netns + n + 1, name) == 0)
                        d->endpoints[i].ready = false;
        }
        daemon_events_wait_for_endpoints(d);
}

static void endpoint_done(struct endpoint *e)
{
        free(e->name);
        free(e->addrs.items);
}

void daemon_endpoints_free(struct daemon *d)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                endpoint_done(&d->endpoints[i]);
        free(d->endpoints);
        d->endpoints = NULL;
        d->n_endpoints = 0;
}

/* ---- configuration ------------------------------------------------------------------------ */

static bool same_text(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

/* Whether both mean the same device: addresses and identity are changed in place. */
static bool same_device(const struct config_endpoint *a, const struct config_endpoint *b)
{
        return same_text(a->netns, b->netns) && a->pid == b->pid && a->started == b->started &&
               same_text(a->interface, b->interface) && same_text(a->device, b->device) &&
               a->kind == b->kind;
}

/* Whether the section gives the endpoint an address that is another one's until that one follows
 * its own section. */
static bool takes_from_another(const struct daemon *d, const struct endpoint *e,
                               const struct config_endpoint *section)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                for (size_t k = 0; &d->endpoints[i] != e && k < section->address.n; k++)
                        if (addresses_have(&d->endpoints[i].addrs, &section->address.items[k]))
                                return true;

        return false;
}

/* Out of the tables now; its device goes when the loop has time, or has to make way. */
static void leave(struct daemon *d, struct endpoint *e)
{
        struct endpoint gone = *e;

        gone.name = strdup(e->name);
        if (!e->wire.ifname[0] || !gone.name || daemon_removals_add(d, &gone) < 0) {
                free(gone.name);
                take_down(d, e);
                return;
        }

        tables_del_endpoint(d->tables, e->name);
        e->wired = e->forwarding = e->hooked = e->ready = false;
        e->wire = (struct wire) { 0 };
        e->addrs = (struct weft_addresses) { 0 };
}

static void drop_gone(struct daemon *d)
{
        size_t kept = 0;

        for (size_t i = 0; i < d->n_endpoints; i++) {
                struct endpoint *e = &d->endpoints[i];

                if (config_endpoint(d->build->config, e->name)) {
                        d->endpoints[kept++] = *e;
                        continue;
                }
                leave(d, e);
                d->leases_changed = leases_drop(&d->leases, e->name) || d->leases_changed;
                log_about(LOG_INFO, ENDPOINT_REMOVED, endpoint, e->name, "endpoint %s is removed",
                          e->name);
                endpoint_done(e);
        }

        d->n_endpoints = kept;
        (void) save_leases(d, NULL);
}

static int add_endpoint(struct daemon *d, const struct config_endpoint *section)
{
        struct endpoint e = { .name = strdup(section->name), .section = section };

        if (!e.name || list_grow(&d->endpoints, d->n_endpoints, sizeof(e)) < 0) {
                free(e.name);
                return -ENOMEM;
        }

        d->endpoints[d->n_endpoints++] = e;
        return 0;
}

/* A section that was there before and means another device now starts anew. */
static void follow_section(struct daemon *d, struct endpoint *e, const struct config_endpoint *now)
{
        bool anew = !same_device(e->section, now) || takes_from_another(d, e, now);

        e->section = now;
        if (anew)
                leave(d, e);
}

void daemon_endpoints_repoint(struct daemon *d)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                d->endpoints[i].section = config_endpoint(d->build->config, d->endpoints[i].name);
}

int daemon_endpoints_changed(struct daemon *d, const struct config_endpoint *const *added, size_t n,
                             struct weft_error *reterr)
{
        int r = 0;

        drop_gone(d);
        for (size_t i = 0; i < n; i++)
                if (add_endpoint(d, added[i]) < 0)
                        r = weft_fail(reterr, -ENOMEM, "out of memory");
        if (n > 0)
                daemon_events_watch_namespaces(d);
        if (n > 0 && !daemon_endpoints_retry(d))
                daemon_events_wait_for_endpoints(d);
        if (n == 0)
                daemon_services_follow_endpoints(d);

        return r;
}

int daemon_endpoints_apply(struct daemon *d, struct weft_error *reterr)
{
        const struct config *c = d->build->config;
        int r = 0;

        drop_gone(d);
        for (size_t i = 0; i < c->n_endpoints; i++) {
                struct endpoint *e = endpoint_by_name(d, c->endpoints[i].name);

                if (e)
                        follow_section(d, e, &c->endpoints[i]);
                else if (add_endpoint(d, &c->endpoints[i]) < 0)
                        r = weft_fail(reterr, -ENOMEM, "out of memory");
        }

        /* What is right already is left alone; what somebody took away is made again. */
        daemon_endpoints_repair(d);
        if (!daemon_endpoints_retry(d))
                daemon_events_wait_for_endpoints(d);

        return r;
}

/* ---- what a predecessor left -------------------------------------------------------------- */

static bool is_wire_of_ours(const struct daemon *d, const char *ifname)
{
        char ours[16];

        for (size_t i = 0; i < d->n_endpoints; i++) {
                wire_ifname(d->endpoints[i].name, ours);
                if (strcmp(ours, ifname) == 0)
                        return true;
        }

        return false;
}

void daemon_endpoints_settle(struct daemon *d)
{
        size_t n_names, n_gone = 0;
        _cleanup_free_ char(*names)[16] = wires_list(d->net, &n_names);

        for (size_t i = 0; i < n_names; i++)
                if (!is_wire_of_ours(d, names[i]))
                        memmove(names[n_gone++], names[i], sizeof(names[i]));
        wires_remove(d->net, names, n_gone);
        for (size_t i = 0; i < n_gone; i++)
                attach_forget(d->attachments, names[i]);
}
