/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TCP by DSR, everything else by SNAT: a policy over the two modules that do it. */

#include <netinet/in.h>
#include <stdio.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("hybrid.bpf.o");

struct hybrid_config {
        uint32_t tcp, udp;
};

static const char *const ways[] = { "snat", "dsr", NULL };

static const struct weft_option options[] = {
        WEFT_OPT_ENUM(struct hybrid_config, tcp, "tcp", "dsr", ways,
                      "How TCP reaches a backend on another node, where the service's own "
                      "forwarding is auto."),
        WEFT_OPT_ENUM(struct hybrid_config, udp, "udp", "snat", ways,
                      "The same for UDP, of which every packet would have to tell the backend's "
                      "node of the service."),
        {}
};

static const struct weft_need needs[] = { WEFT_NEEDS(MODULE, "nodeport-snat", "forwards with SNAT"),
                                          WEFT_NEEDS(MODULE, "nodeport-dsr", "forwards with DSR"),
                                          {} };

static void hybrid_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                          size_t size)
{
        const struct hybrid_config *config = api->config(self);

        (void) snprintf(buf, size, "TCP by %s, UDP by %s", ways[config->tcp], ways[config->udp]);
}

/* ---- self-tests --------------------------------------------------------------------------- */

static const struct weft_test_service services[] = {
        { .port = 80,
          .node_port = 30080,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "10.244.2.10:8080", NULL } },
        { .port = 80,
          .node_port = 30080,
          .proto = IPPROTO_UDP,
          .backends = (const char *const[]) { "10.244.2.10:8080", NULL } },
        {}
};

static bool tcp_is_direct(struct weft_instance *self, const struct weft_api *api)
{
        return ((const struct hybrid_config *) api->config(self))->tcp == 1;
}

static bool tcp_tells(struct weft_instance *self, const struct weft_api *api)
{
        return tcp_is_direct(self, api) && !api->wraps(self);
}

static bool tcp_is_wrapped(struct weft_instance *self, const struct weft_api *api)
{
        return tcp_is_direct(self, api) && api->wraps(self);
}

static bool udp_is_not(struct weft_instance *self, const struct weft_api *api)
{
        return ((const struct hybrid_config *) api->config(self))->udp == 0;
}

static const struct weft_test tests[] = { { .name = "TCP goes by DSR",
                                            .hook = WEFT_FROM_UPLINK,
                                            .packet = WEFT_TEST_BYTES(syn),
                                            .services = services,
                                            .verdict = WEFT_TEST_REDIRECT,
                                            .expected = WEFT_TEST_BYTES(syn_telling),
                                            .applies = tcp_tells },
                                          { .name = "TCP goes by DSR in packets of its own",
                                            .hook = WEFT_FROM_UPLINK,
                                            .packet = WEFT_TEST_BYTES(syn),
                                            .services = services,
                                            .verdict = WEFT_TEST_REDIRECT,
                                            .expected = WEFT_TEST_BYTES(syn_wrapped),
                                            .applies = tcp_is_wrapped },
                                          { .name = "UDP goes by SNAT",
                                            .hook = WEFT_FROM_UPLINK,
                                            .packet = WEFT_TEST_BYTES(datagram),
                                            .services = services,
                                            .verdict = WEFT_TEST_REDIRECT,
                                            .expected = WEFT_TEST_BYTES(datagram_to_backend),
                                            .any = WEFT_TEST_UDP4_PORT,
                                            .applies = udp_is_not },
                                          {} };

WEFT_MODULE(.name = "hybrid", .summary = "Services by DSR for TCP and by SNAT for the rest",
            .divides = "nodeport", .needs = needs, .options = options,
            .config_size = sizeof(struct hybrid_config), .object = weft_object,
            .object_end = weft_object_end, .tests = tests, .status = hybrid_status, );
