/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services reached from outside, with direct server return. The client's packets go on to the
 * backend's node with the client's address; the answers do not come by here. */

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("nodeport-dsr.bpf.o");

enum dispatch { DISPATCH_OPTION, DISPATCH_GENEVE, DISPATCH_IPIP };

struct dsr_config {
        struct weft_ports port_range;
        uint32_t dispatch;
};

static const char *const dispatches[] = { "option", "geneve", "ipip", NULL };

static const struct weft_option options[] = {
        WEFT_OPT_PORTS(struct dsr_config, port_range, "port-range", "30000-32767",
                       "Ports of the node's own addresses that services may take as node port."),
        WEFT_OPT_ENUM(struct dsr_config, dispatch, "dispatch", "option", dispatches,
                      "How the backend's node is told of the service. option: by an IPv4 option or "
                      "an IPv6 destination option, which the network between the nodes has to let "
                      "through. geneve: by an option of the tunnel, with [module geneve]. ipip: "
                      "each packet of the client goes inside another one, to the backend's "
                      "address; a backend without weft that has the service's address and port "
                      "can take it out itself."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(HELPER, "fib_lookup", "finds the way to a backend on another node"),
        WEFT_WANTS(HELPER, "redirect_neigh",
                   "sends to a neighbour whose link-layer address is not known yet"),
        WEFT_WANTS(ROLE, "routing", "says how backends on other nodes are reached"),
        {}
};

static int dsr_configure(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr)
{
        const struct dsr_config *config = api->config(self);

        if (config->port_range.low == 0)
                return api->fail(reterr, -EINVAL,
                                 "port-range cannot be auto: write a range such as 30000-32767");
        if (api->runs(self, "vxlan"))
                return api->fail(
                        reterr, -EINVAL,
                        "cannot run with [module vxlan]: VXLAN has no room to tell the backend's "
                        "node of the service; take [module geneve] with dispatch = geneve or "
                        "[module native-routing] instead of [module vxlan], or "
                        "[module nodeport-snat] instead of [module nodeport-dsr]");
        if (config->dispatch == DISPATCH_OPTION && api->runs(self, "geneve"))
                return api->fail(
                        reterr, -EINVAL,
                        "dispatch = option cannot run with [module geneve]: IP options need "
                        "packets that the network outside routes as they are; write dispatch = "
                        "geneve, or take [module native-routing] instead of [module geneve]");
        if (config->dispatch == DISPATCH_IPIP && api->runs(self, "geneve"))
                return api->fail(
                        reterr, -EINVAL,
                        "dispatch = ipip cannot run with [module geneve]: its packets to pods need "
                        "a network outside that routes them; write dispatch = geneve, or take "
                        "[module native-routing] instead of [module geneve]");
        if (config->dispatch == DISPATCH_GENEVE && !api->runs(self, "geneve"))
                return api->fail(
                        reterr, -EINVAL,
                        "dispatch = geneve needs [module geneve], which does not run: add it, or "
                        "write dispatch = option where the network routes pods' packets as they "
                        "are");

        return 0;
}

static int dsr_load(struct weft_instance *self, const struct weft_api *api,
                    struct weft_error *reterr)
{
        const struct dsr_config *config = api->config(self);
        uint8_t how = WEFT_DSR_IPIP;

        api->node_ports(self, config->port_range.low, config->port_range.high);
        if (config->dispatch != DISPATCH_IPIP)
                return 0;

        api->wrap(self);
        if (api->constant(self, "how", &how, sizeof(how)) < 0)
                return api->fail(reterr, -EINVAL, "its programs are another version's");

        return 0;
}

static void dsr_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                       size_t size)
{
        const struct dsr_config *config = api->config(self);

        (void) snprintf(buf, size, "dispatch = %s", dispatches[config->dispatch]);
}

/* ---- self-tests --------------------------------------------------------------------------- */

static const struct weft_test_service local[] = {
        { .port = 80,
          .node_port = 30080,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "10.244.1.10:8080", NULL } },
        {}
};

static bool wraps(struct weft_instance *self, const struct weft_api *api)
{
        return ((const struct dsr_config *) api->config(self))->dispatch == DISPATCH_IPIP;
}

static bool tells(struct weft_instance *self, const struct weft_api *api)
{
        return !wraps(self, api);
}

/* Of the outer header, behind Ethernet: a hash. */
#define FLOW_LABEL                                                                                 \
        {                                                                                          \
                {                                                                                  \
                        15, 3                                                                      \
                }                                                                                  \
        }

static const struct weft_test tests[] = {
        { .name = "the backend's node is told by the first packet",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn),
          .services = remote,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_telling),
          .applies = tells },
        { .name = "later packets tell nothing",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(ack),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(ack_to_backend),
          .applies = tells },
        { .name = "the backend's node is told over IPv6",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn6),
          .services = remote6,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn6_telling),
          .applies = tells },
        { .name = "every packet goes on in another one",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn),
          .services = remote,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_wrapped),
          .applies = wraps },
        { .name = "later packets do, too",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(ack),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(ack_wrapped),
          .applies = wraps },
        { .name = "every packet goes on in another one over IPv6",
          .hook = WEFT_FROM_UPLINK,
          .without = "hybrid",
          .packet = WEFT_TEST_BYTES(syn6),
          .services = remote6,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn6_wrapped),
          .any = FLOW_LABEL,
          .applies = wraps },
        { .name = "what a peer wrapped for an endpoint is taken out",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(wrapped_in),
          .services = local,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_delivered),
          .with = "host-routing",
          .applies = wraps },
        { .name = "and answered from the service's address",
          .hook = WEFT_FROM_ENDPOINT,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(answer),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(answer_to_client),
          .with = "host-routing",
          .applies = wraps },
        { .name = "what this node is told is taken out of the packet",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(syn_told),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_delivered),
          .with = "host-routing" },
        { .name = "the backend's answer goes to the client from the service's address",
          .hook = WEFT_FROM_ENDPOINT,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(answer),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(answer_to_client),
          .with = "host-routing" },
        { .name = "an unknown port of a service's address is dropped",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(syn_elsewhere),
          .services = external,
          .verdict = WEFT_TEST_DROP },
        {}
};

WEFT_MODULE(.name = "nodeport-dsr",
            .summary = "Services reached from outside, with direct server return",
            .provides = (const char *const[]) { "nodeport", "dsr", NULL }, .exclusive = "nodeport",
            .remedy = "add [module hybrid], which divides services between SNAT and DSR",
            .takes_dsr = 1, .needs = needs, .options = options,
            .config_size = sizeof(struct dsr_config), .object = weft_object,
            .object_end = weft_object_end, .configure = dsr_configure, .load = dsr_load,
            .tests = tests, .status = dsr_status, );
