/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services reached from outside, by node port or by an address of their own. A backend elsewhere
 * gets the packet with this node's address and a source port out of snat-ports. */

#include <errno.h>
#include <netinet/in.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("nodeport-snat.bpf.o");

/* Ports below need a privilege to be bound (ip_unprivileged_port_start's default). */
#define UNPRIVILEGED_PORT 1024

struct nodeport_config {
        struct weft_ports port_range, snat_ports;
};

static const struct weft_option options[] = {
        WEFT_OPT_PORTS(struct nodeport_config, port_range, "port-range", "30000-32767",
                       "Ports of the node's own addresses that services may take as node port."),
        WEFT_OPT_PORTS(
                struct nodeport_config, snat_ports, "snat-ports", "auto",
                "Source ports towards remote backends; auto is what the node's own ephemeral "
                "range leaves above it."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(HELPER, "fib_lookup", "finds the way to a backend on another node"),
        WEFT_WANTS(HELPER, "redirect_neigh",
                   "sends to a neighbour whose link-layer address is not known yet"),
        WEFT_WANTS(ROLE, "routing", "says how backends on other nodes are reached"),
        {}
};

/* The range to give out: the configured one, or what the node leaves. */
static struct weft_ports snat_ports(struct weft_instance *self, const struct weft_api *api)
{
        const struct nodeport_config *config = api->config(self);
        struct weft_ports ports = config->snat_ports;

        if (ports.low == 0)
                api->free_ports(self, &ports.low, &ports.high);

        return ports;
}

static int nodeport_configure(struct weft_instance *self, const struct weft_api *api,
                              struct weft_error *reterr)
{
        const struct nodeport_config *config = api->config(self);
        const struct weft_ports *node = &config->port_range, snat = snat_ports(self, api);

        if (node->low == 0)
                return api->fail(reterr, -EINVAL,
                                 "port-range cannot be auto: write a range such as 30000-32767");
        if (snat.low < UNPRIVILEGED_PORT)
                return api->fail(
                        reterr, -EINVAL,
                        "snat-ports = %u-%u begins among the ports of servers: begin at %u "
                        "or above",
                        snat.low, snat.high, UNPRIVILEGED_PORT);
        if (snat.low >= node->low && snat.high <= node->high)
                return api->fail(
                        reterr, -EINVAL,
                        "snat-ports = %u-%u lies within port-range = %u-%u, whose ports are "
                        "never given out: choose a range that goes beyond it",
                        snat.low, snat.high, node->low, node->high);

        return 0;
}

static int nodeport_load(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr)
{
        const struct nodeport_config *config = api->config(self);
        struct weft_ports snat = snat_ports(self, api);
        int r;

        const struct {
                const char *name;
                uint16_t value;
        } constants[] = {
                { "snat_low", snat.low },
                { "snat_high", snat.high },
                { "node_low", config->port_range.low },
                { "node_high", config->port_range.high },
        };

        for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
                r = api->constant(self, constants[i].name, &constants[i].value,
                                  sizeof(constants[i].value));
                if (r < 0)
                        return api->fail(reterr, r, "its eBPF object has no u16 constant %s",
                                         constants[i].name);
        }

        api->give_out_ports(self, snat.low, snat.high);
        api->node_ports(self, config->port_range.low, config->port_range.high);
        return 0;
}

/* ---- self-tests --------------------------------------------------------------------------- */

#define CLIENT_PORT 61234 /* of the frames */

/* Is a client's own port kept? Only those that may be given out are. */
static bool keeps_port(struct weft_instance *self, const struct weft_api *api)
{
        const struct nodeport_config *config = api->config(self);
        struct weft_ports snat = snat_ports(self, api);

        return CLIENT_PORT >= snat.low && CLIENT_PORT <= snat.high &&
               (CLIENT_PORT < config->port_range.low || CLIENT_PORT > config->port_range.high);
}

static const struct weft_test tests[] = {
        { .name = "a connection to a remote backend gets the node's address",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn),
          .services = remote,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_to_backend),
          .any = WEFT_TEST_TCP4_PORT },
        { .name = "a client's port that may be given out is kept",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn),
          .services = remote,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_to_backend),
          .applies = keeps_port },
        { .name = "the backend's answer comes from the node port",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(answer),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(answer_to_client),
          .applies = keeps_port },
        { .name = "a connection over IPv6 gets the node's address",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn6),
          .services = remote6,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn6_to_backend),
          .any = WEFT_TEST_TCP6_PORT },
        { .name = "an unknown port of a service's address is dropped",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(syn_elsewhere),
          .services = external,
          .verdict = WEFT_TEST_DROP },
        {}
};

WEFT_MODULE(.name = "nodeport-snat",
            .summary = "Services reached from outside, forwarded with SNAT",
            .provides = (const char *const[]) { "nodeport", "snat", NULL }, .exclusive = "nodeport",
            .remedy = "add [module hybrid], which divides services between SNAT and DSR",
            .needs = needs, .options = options, .config_size = sizeof(struct nodeport_config),
            .role = "nodeport", .rank = 10, .object = weft_object, .object_end = weft_object_end,
            .configure = nodeport_configure, .load = nodeport_load, .tests = tests, );
