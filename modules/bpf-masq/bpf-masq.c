/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Connections that an endpoint opens to the world outside the cluster get the node's address. This
 * half keeps the list of destinations for which that does not hold. */

#include <arpa/inet.h>
#include <asm/byteorder.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("bpf-masq.bpf.o");

#define UNPRIVILEGED_PORT 1024

struct masq_config {
        struct weft_prefixes non_masquerade_cidr;
        bool masquerade_link_local, ipv6, route_source;
        struct weft_addresses address;
        struct weft_ports snat_ports;
};

static const struct weft_option options[] = {
        WEFT_OPT_PREFIXES(
                struct masq_config, non_masquerade_cidr, "non-masquerade-cidr", "",
                "Destinations that see the endpoint's own address, besides the cluster's; "
                "rfc1918 names the private and reserved IPv4 networks."),
        WEFT_OPT_BOOL(struct masq_config, masquerade_link_local, "masquerade-link-local", "no",
                      "Whether link-local destinations get the node's address too."),
        WEFT_OPT_BOOL(struct masq_config, ipv6, "ipv6", "no",
                      "Whether IPv6 is masqueraded as well."),
        WEFT_OPT_ADDRESSES(
                struct masq_config, address, "address", "",
                "The address to appear under, one of each family, instead of that of the "
                "interface the packet leaves by."),
        WEFT_OPT_PORTS(
                struct masq_config, snat_ports, "snat-ports", "auto",
                "Source ports to give out; auto is what the node's own ephemeral range leaves "
                "above it."),
        WEFT_OPT_BOOL(struct masq_config, route_source, "route-source", "no",
                      "Whether to appear under the address that the route prefers, or the kernel "
                      "would choose for it, where the interface has several."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(HELPER, "fib_lookup", "finds the interface and so the address to appear under"),
        WEFT_WANTS(FEATURE, "fib-lookup-src",
                   "tells the source of a route, for route-source = yes (Linux 6.7)"),
        {}
};

/* ::ffff:169.254.0.0/112 and fe80::/10 (RFC 3927, RFC 4291). */
static const struct weft_prefix link_local[] = {
        { .addr.w = { 0, 0, __constant_htonl(0xffff), __constant_htonl(0xa9fe0000) }, .len = 112 },
        { .addr.w = { __constant_htonl(0xfe800000), 0, 0, 0 }, .len = 10 },
};

static bool is_ipv4(const struct weft_addr *a)
{
        return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == htonl(0xffff);
}

/* The configured address of one family, all zero where there is none. */
static struct weft_addr address_of(const struct masq_config *config, bool ipv4)
{
        for (size_t i = 0; i < config->address.n; i++)
                if (is_ipv4(&config->address.items[i]) == ipv4)
                        return config->address.items[i];

        return (struct weft_addr) {};
}

static int masq_configure(struct weft_instance *self, const struct weft_api *api,
                          struct weft_error *reterr)
{
        const struct masq_config *config = api->config(self);
        const struct weft_ports *ports = &config->snat_ports;
        size_t ipv4 = 0, ipv6;

        for (size_t i = 0; i < config->address.n; i++)
                ipv4 += is_ipv4(&config->address.items[i]);
        ipv6 = config->address.n - ipv4;

        if (ipv4 > 1 || ipv6 > 1)
                return api->fail(reterr, -EINVAL,
                                 "address has several of one family: give one IPv4 and one IPv6 "
                                 "address at most");
        if (ipv6 > 0 && !config->ipv6)
                return api->fail(reterr, -EINVAL,
                                 "address has an IPv6 address, but IPv6 is not "
                                 "masqueraded: set ipv6 = yes or take it away");
        if (ports->low != 0 && ports->low < UNPRIVILEGED_PORT)
                return api->fail(
                        reterr, -EINVAL,
                        "snat-ports = %u-%u begins among the ports of servers: begin at %u "
                        "or above",
                        ports->low, ports->high, UNPRIVILEGED_PORT);

        return 0;
}

static int masq_load(struct weft_instance *self, const struct weft_api *api,
                     struct weft_error *reterr)
{
        const struct masq_config *config = api->config(self);
        struct weft_addr address4 = address_of(config, true), address6 = address_of(config, false);
        struct weft_ports ports = config->snat_ports;
        const uint8_t ipv6 = config->ipv6;
        int r;

        if (ports.low == 0)
                api->free_ports(self, &ports.low, &ports.high);

        const struct {
                const char *name;
                const void *value;
                size_t size;
        } constants[] = {
                { "masquerade_ipv6", &ipv6, sizeof(ipv6) },
                { "snat_low", &ports.low, sizeof(ports.low) },
                { "snat_high", &ports.high, sizeof(ports.high) },
                { "address4", &address4, sizeof(address4) },
                { "address6", &address6, sizeof(address6) },
        };

        for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
                r = api->constant(self, constants[i].name, constants[i].value, constants[i].size);
                if (r < 0)
                        return api->fail(reterr, r,
                                         "its eBPF object has no constant %s of %zu bytes",
                                         constants[i].name, constants[i].size);
        }

        api->give_out_ports(self, ports.low, ports.high);
        return 0;
}

/* ---- the list of destinations left alone -------------------------------------------------- */

/* One pass over the list. The stage asks only whether a prefix is there, so the value can say in
 * which pass it was last wanted; what is older is taken out. */
struct filling {
        int fd, r;
        __u8 pass;
};

static void add_prefix(void *data, const struct weft_prefix *prefix)
{
        struct filling *f = data;
        const struct weft_peer_key key = { .prefixlen = prefix->len, .addr = prefix->addr };

        if (f->r == 0)
                f->r = bpf_map_update_elem(f->fd, &key, &f->pass, BPF_ANY);
}

/* Calls f for everything that belongs into the list. */
static void each_wanted(struct weft_instance *self, const struct weft_api *api,
                        void (*f)(void *data, const struct weft_prefix *prefix), void *data)
{
        const struct masq_config *config = api->config(self);

        for (size_t i = 0; i < config->non_masquerade_cidr.n; i++)
                f(data, &config->non_masquerade_cidr.items[i]);
        if (!config->masquerade_link_local)
                for (size_t i = 0; i < sizeof(link_local) / sizeof(link_local[0]); i++)
                        f(data, &link_local[i]);

        api->cluster_prefixes(self, f, data);
}

static void remove_unwanted(const struct filling *f)
{
        struct weft_peer_key key, next;
        __u8 pass;
        int r;

        r = bpf_map_get_next_key(f->fd, NULL, &next);
        while (r == 0) {
                key = next;
                r = bpf_map_get_next_key(f->fd, &key, &next);
                if (bpf_map_lookup_elem(f->fd, &key, &pass) == 0 && pass != f->pass)
                        (void) bpf_map_delete_elem(f->fd, &key);
        }
}

/* The pass is kept in data() as a number: there is nothing to free. */
static int refill(struct weft_instance *self, const struct weft_api *api, struct weft_error *reterr)
{
        uintptr_t pass = (uintptr_t) api->data(self) % UINT8_MAX + 1;
        struct filling f = { .fd = api->map(self, "no_masquerade"), .pass = (__u8) pass };

        if (f.fd < 0)
                return api->fail(reterr, f.fd, "its eBPF object has no map no_masquerade");

        each_wanted(self, api, add_prefix, &f);
        if (f.r < 0)
                return api->fail(reterr, f.r, "cannot store the destinations left alone: %s",
                                 strerror(-f.r));

        api->set_data(self, (void *) pass);
        remove_unwanted(&f);
        return 0;
}

/* ---- peers that come and go --------------------------------------------------------------- */

/* One of many: what the others want is not written again. */
struct peer_change {
        struct weft_instance *self;
        const struct weft_api *api;
        struct filling filling;
};

struct prefix_search {
        const struct weft_prefix *wanted;
        int found;
};

static void compare_prefix(void *data, const struct weft_prefix *prefix)
{
        struct prefix_search *s = data;

        s->found |= prefix->len == s->wanted->len &&
                    memcmp(&prefix->addr, &s->wanted->addr, sizeof(prefix->addr)) == 0;
}

/* Another one, or the configuration, may want the same. */
static void drop_prefix(void *data, const struct weft_prefix *prefix)
{
        const struct peer_change *c = data;
        const struct weft_peer_key key = { .prefixlen = prefix->len, .addr = prefix->addr };
        struct prefix_search s = { .wanted = prefix };

        each_wanted(c->self, c->api, compare_prefix, &s);
        if (!s.found)
                (void) bpf_map_delete_elem(c->filling.fd, &key);
}

static void each_prefix_of(const struct weft_peer_info *peer,
                           void (*f)(void *data, const struct weft_prefix *prefix), void *data)
{
        static const struct weft_addr none;
        const struct weft_addr *nodes[] = { &peer->node4, &peer->node6 };

        for (size_t i = 0; i < peer->n_pod_cidrs; i++)
                f(data, &peer->pod_cidrs[i]);
        for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
                if (memcmp(nodes[i], &none, sizeof(none)) != 0)
                        f(data, &(struct weft_prefix) { .addr = *nodes[i], .len = 128 });
}

static int masq_event(struct weft_instance *self, const struct weft_api *api,
                      const struct weft_module_event *event, struct weft_error *reterr)
{
        struct peer_change c = {
                .self = self,
                .api = api,
                .filling = { .fd = api->map(self, "no_masquerade"),
                             .pass = (__u8) (uintptr_t) api->data(self) },
        };

        if (event->kind == WEFT_PEER_REMOVED)
                each_prefix_of(event->peer, drop_prefix, &c);
        else if (event->kind == WEFT_PEER_ADDED)
                each_prefix_of(event->peer, add_prefix, &c.filling);

        return c.filling.r < 0 ? api->fail(reterr, c.filling.r,
                                           "cannot store the destinations left alone: %s",
                                           strerror(-c.filling.r))
                               : 0;
}

/* ---- status ------------------------------------------------------------------------------- */

static void count_prefix(void *data, const struct weft_prefix *prefix)
{
        (void) prefix;
        (*(size_t *) data)++;
}

static void masq_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                        size_t size)
{
        const struct masq_config *config = api->config(self);
        size_t n = 0;

        each_wanted(self, api, count_prefix, &n);
        (void) snprintf(buf, size, "%s%s; %zu prefixes left alone",
                        config->ipv6 ? "IPv4 and IPv6" : "IPv4",
                        config->address.n > 0 ? ", under an address of its own" : "", n);
}

/* ---- self-tests --------------------------------------------------------------------------- */

/* Is the frames' destination masqueraded, and with the uplink's address? */
static bool masquerades(struct weft_instance *self, const struct weft_api *api)
{
        const struct weft_addr fixed = address_of(api->config(self), true);
        const struct weft_peer_key key = {
                .prefixlen = 128,
                .addr.w = { 0, 0, htonl(0xffff), htonl(0x09090909) },
        };
        __u8 pass;

        return !is_ipv4(&fixed) &&
               bpf_map_lookup_elem(api->map(self, "no_masquerade"), &key, &pass) < 0;
}

static const struct weft_test tests[] = {
        { .name = "a connection to the outside leaves with the node's address",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_out),
          .any = WEFT_TEST_TCP4_PORT,
          .with = "host-routing",
          .applies = masquerades },
        { .name = "without host-routing the host's stack sees the endpoint's address",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn),
          .without = "host-routing",
          .applies = masquerades },
        { .name = "and the uplink the node's",
          .hook = WEFT_TO_UPLINK,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(syn_forwarded),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn_out),
          .any = WEFT_TEST_TCP4_PORT,
          .without = "host-routing",
          .applies = masquerades },
        {}
};

WEFT_MODULE(.name = "bpf-masq",
            .summary = "Masquerades endpoints' connections that leave the cluster", .needs = needs,
            .options = options, .config_size = sizeof(struct masq_config), .tracks_replies = 1,
            .role = "masquerade", .rank = 10, .object = weft_object, .object_end = weft_object_end,
            .configure = masq_configure, .load = masq_load, .attach = refill, .event = masq_event,
            .tests = tests, .status = masq_status, );
