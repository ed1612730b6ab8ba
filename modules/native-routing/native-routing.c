/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pod traffic between nodes goes as it is, routed by the kernel and the fabric. The stage of this
 * module says which destinations that holds for; this half fills its list and, where asked to,
 * installs the routes to the peers that the fabric does not know. */

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <syslog.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("native-routing.bpf.o");

struct native_config {
        struct weft_prefixes cidr;
        bool direct_node_routes, skip_unreachable;
};

static const struct weft_option options[] = {
        WEFT_OPT_PREFIXES(
                struct native_config, cidr, "cidr", "",
                "Destinations that the network outside routes to the right node by itself."),
        WEFT_OPT_BOOL(struct native_config, direct_node_routes, "direct-node-routes", "no",
                      "Whether to route each peer's pod CIDRs to the peer's address."),
        WEFT_OPT_BOOL(struct native_config, skip_unreachable, "skip-unreachable", "no",
                      "Whether to leave out peers that are not on the same link-layer network."),
        {}
};

/* Passing several values through weft_api.peers(). */
struct adding {
        struct weft_instance *self;
        const struct weft_api *api;
        struct weft_error *reterr;
        int r;
};

static bool is_ipv4(const struct weft_prefix *p)
{
        const __be32 *w = p->addr.w;

        return p->len >= 96 && w[0] == 0 && w[1] == 0 && w[2] == htonl(0xffff);
}

static bool is_given(const struct weft_addr *a)
{
        static const struct weft_addr none;

        return memcmp(a, &none, sizeof(none)) != 0;
}

/* A failed route to a peer: what stands in the way decides whether the module can go on. */
static int judge_route(struct adding *add, const struct weft_peer_info *peer, int r)
{
        const struct native_config *config = add->api->config(add->self);

        if (r == -EEXIST) {
                add->api->log(add->self, LOG_NOTICE,
                              "peer %s: a route of somebody else leads to its pods, left as it is",
                              peer->name);
                return 0;
        }
        if (r != -ENETUNREACH)
                return r;

        if (config->skip_unreachable) {
                add->api->log(add->self, LOG_INFO,
                              "peer %s is not on the same link-layer network, no route installed",
                              peer->name);
                return 0;
        }

        return add->api->fail(
                add->reterr, r,
                "peer %s is not on the same link-layer network: set skip-unreachable = "
                "yes and let the network route to it, or direct-node-routes = no",
                peer->name);
}

static int route_peer(struct adding *add, const struct weft_peer_info *peer)
{
        const struct weft_addr *gateway;
        int r;

        for (size_t i = 0; !peer->tunnelled && i < peer->n_pod_cidrs; i++) {
                gateway = is_ipv4(&peer->pod_cidrs[i]) ? &peer->node4 : &peer->node6;
                if (!is_given(gateway))
                        return add->api->fail(
                                add->reterr, -EADDRNOTAVAIL,
                                "peer %s has a pod CIDR of a family in which it has no "
                                "address: add one to its section",
                                peer->name);

                r = add->api->route(add->self, &peer->pod_cidrs[i], gateway, add->reterr);
                if (r < 0)
                        r = judge_route(add, peer, r);
                if (r < 0)
                        return r;
        }

        return 0;
}

static void route_next_peer(void *data, const struct weft_peer_info *peer)
{
        struct adding *add = data;

        if (add->r == 0)
                add->r = route_peer(add, peer);
}

static int fill_cidrs(struct weft_instance *self, const struct weft_api *api,
                      struct weft_error *reterr)
{
        const struct native_config *config = api->config(self);
        const __u8 present = 1;
        int r, fd = api->map(self, "native_cidrs");

        if (fd < 0)
                return api->fail(reterr, fd, "its eBPF object has no map native_cidrs");

        for (size_t i = 0; i < config->cidr.n; i++) {
                const struct weft_prefix *p = &config->cidr.items[i];
                const struct weft_peer_key key = { .prefixlen = p->len, .addr = p->addr };

                r = bpf_map_update_elem(fd, &key, &present, BPF_ANY);
                if (r < 0)
                        return api->fail(reterr, r, "cannot store the native CIDRs: %s",
                                         strerror(-r));
        }

        return 0;
}

static int native_load(struct weft_instance *self, const struct weft_api *api,
                       struct weft_error *reterr)
{
        const struct native_config *config = api->config(self);

        (void) reterr;
        api->set_native_prefixes(self, &config->cidr);
        return 0;
}

static int native_attach(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr)
{
        const struct native_config *config = api->config(self);
        struct adding add = { self, api, reterr, 0 };

        add.r = fill_cidrs(self, api, reterr);
        if (add.r == 0 && config->direct_node_routes)
                api->peers(self, route_next_peer, &add);

        return add.r;
}

static int native_event(struct weft_instance *self, const struct weft_api *api,
                        const struct weft_module_event *event, struct weft_error *reterr)
{
        const struct native_config *config = api->config(self);
        struct adding add = { self, api, reterr, 0 };

        if (!config->direct_node_routes)
                return 0;
        if (event->kind == WEFT_PEER_ADDED)
                return route_peer(&add, event->peer);

        if (event->kind == WEFT_PEER_REMOVED)
                for (size_t i = 0; i < event->peer->n_pod_cidrs; i++)
                        api->unroute(self, &event->peer->pod_cidrs[i]);

        return 0;
}

/* ---- self-tests --------------------------------------------------------------------------- */

static bool holds(const struct weft_prefix *p, const struct weft_addr *a)
{
        for (__u32 bit = 0; bit < p->len; bit++)
                if (ntohl(p->addr.w[bit / 32] ^ a->w[bit / 32]) >> (31 - bit % 32) & 1)
                        return false;

        return true;
}

static bool is_native(struct weft_instance *self, const struct weft_api *api,
                      const struct weft_addr *a)
{
        const struct native_config *config = api->config(self);

        for (size_t i = 0; i < config->cidr.n; i++)
                if (holds(&config->cidr.items[i], a))
                        return true;

        return false;
}

/* Does the network route to the frames' destination, 10.244.2.10? */
static bool is_native4(struct weft_instance *self, const struct weft_api *api)
{
        const struct weft_addr to = { { 0, 0, htonl(0xffff), htonl(0x0af4020a) } };

        return is_native(self, api, &to);
}

/* fd00:244:2::10 */
static bool is_native6(struct weft_instance *self, const struct weft_api *api)
{
        const struct weft_addr to = { { htonl(0xfd000244), htonl(0x00020000), 0, htonl(0x10) } };

        return is_native(self, api, &to);
}

/* Address, port and checksums, behind Ethernet and IPv4: another module may masquerade. */
#define ANY_SOURCE                                                                                 \
        {                                                                                          \
                { 24, 6 }, { 34, 2 },                                                              \
                {                                                                                  \
                        50, 2                                                                      \
                }                                                                                  \
        }

static const struct weft_test tests[] = {
        { .name = "an endpoint's packet goes the way of the routing table",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn4),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn4_wire),
          .any = ANY_SOURCE,
          .with = "host-routing" },
        { .name = "without host-routing the host's stack gets it as it is",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn4),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn4),
          .without = "host-routing" },
        { .name = "what is native keeps the endpoint's address",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn4),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn4_wire),
          .with = "host-routing",
          .applies = is_native4 },
        { .name = "what is native keeps the endpoint's address, over IPv6",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn6),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn6_wire),
          .with = "host-routing",
          .applies = is_native6 },
        { .name = "what is native goes to the host's stack",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn4),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn4),
          .without = "host-routing",
          .applies = is_native4 },
        { .name = "and leaves it with the endpoint's address",
          .hook = WEFT_TO_UPLINK,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(syn4_wire),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn4_wire),
          .without = "host-routing",
          .applies = is_native4 },
        { .name = "what is native goes to the host's stack, over IPv6",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn6),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn6),
          .without = "host-routing",
          .applies = is_native6 },
        { .name = "and leaves it with the endpoint's address, over IPv6",
          .hook = WEFT_TO_UPLINK,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(syn6_wire),
          .verdict = WEFT_TEST_NEXT,
          .expected = WEFT_TEST_BYTES(syn6_wire),
          .without = "host-routing",
          .applies = is_native6 },
        {}
};

WEFT_MODULE(.name = "native-routing", .summary = "Pod traffic routed by the kernel and the network",
            .provides = (const char *const[]) { "routing", NULL }, .exclusive = "routing",
            .remedy = "say of the peers how each is reached (routing = native, routing = tunnel)",
            .options = options, .config_size = sizeof(struct native_config), .role = "routing",
            .rank = 20, .condition = WEFT_PEERS_SHARE_L2,
            .chosen_options = (const char *const[]) { "direct-node-routes", "yes", NULL },
            .object = weft_object, .object_end = weft_object_end, .load = native_load,
            .attach = native_attach, .event = native_event, .tests = tests, );
