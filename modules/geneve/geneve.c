/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets to peers travel in Geneve (RFC 8926). The module says what its header is like; the core
 * has it written by a device of the kernel or by the engine. */

#include <arpa/inet.h>
#include <linux/if_link.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("geneve.bpf.o");

#define PORT "6081" /* IANA's */

struct geneve_config {
        uint16_t port;
        uint32_t mode;
        uint32_t mtu;
};

static const char *const modes[] = { "auto", "bpf", "device", NULL }; /* enum weft_tunnel_mode */

static const struct weft_option options[] = {
        WEFT_OPT_U16(struct geneve_config, port, "port", PORT, 1, 65535,
                     "UDP port of the tunnel, the same on every node."),
        WEFT_OPT_ENUM(
                struct geneve_config, mode, "mode", "auto", modes,
                "Who encapsulates: a device of the kernel, or weft's own programs (bpf); auto: "
                "the device where the kernel has Geneve."),
        WEFT_OPT_U32(struct geneve_config, mtu, "mtu", "0", 0, 65535,
                     "Largest packet that the tunnel carries; 0: what the uplinks' MTU leaves."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(HELPER, "skb_adjust_room", "makes room for the tunnel's headers"),
        WEFT_NEEDS(HELPER, "skb_set_tunnel_key", "tells the kernel's device where to"),
        WEFT_WANTS(LINK_KIND, "geneve", "the kernel's device; without it the programs encapsulate"),
        {}
};

/* Version 0, an Ethernet frame inside; the low bits of the first byte tell the length of options.
 * What is reserved is ignored when received, and control packets (O) are none of ours (RFC 8926
 * §3.4). */
static const struct weft_tunnel_header header = {
        .header = { 0, 0, 0x65, 0x58 },
        .mask = { 0xc0, 0x80, 0xff, 0xff },
        .options = 0x3f,
};

static int geneve_load(struct weft_instance *self, const struct weft_api *api,
                       struct weft_error *reterr)
{
        const struct geneve_config *config = api->config(self);
        struct weft_tunnel_spec spec = {
                .kind = "geneve",
                .port_attribute = IFLA_GENEVE_PORT,
                .external_attribute = IFLA_GENEVE_COLLECT_METADATA,
                .external_is_flag = 1,
                .sums_attribute = IFLA_GENEVE_UDP_ZERO_CSUM6_RX,
                .header = header,
                .mode = config->mode,
                .mtu = config->mtu,
        };

        (void) reterr;
        spec.header.port = htons(config->port);
        api->tunnel(self, &spec);
        return 0;
}

/* The frames are those of the engine and of the port that is usual. */
static bool is_plain(struct weft_instance *self, const struct weft_api *api)
{
        const struct geneve_config *config = api->config(self);

        return config->mode == WEFT_TUNNEL_ENGINE && config->port == 6081;
}

/* The outer source port, and what another module may masquerade of the packet inside. */
#define ANY_SOURCE                                                                                 \
        {                                                                                          \
                { 34, 2 }, { 74, 6 }, { 84, 2 },                                                   \
                {                                                                                  \
                        100, 2                                                                     \
                }                                                                                  \
        }

static const struct weft_test tests[] = {
        { .name = "an endpoint's packet to a peer's pod is carried to the peer",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn_out),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_carried),
          .any = ANY_SOURCE,
          .with = "host-routing",
          .applies = is_plain },
        { .name = "what a peer carries here is delivered",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(carried_in),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(carried_delivered),
          .with = "host-routing",
          .applies = is_plain },
        { .name = "nobody is another node's host",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(carried_as_host),
          .verdict = WEFT_TEST_DROP,
          .applies = is_plain },
        { .name = "nobody but a peer speaks through the tunnel",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(carried_by_stranger),
          .verdict = WEFT_TEST_DROP,
          .applies = is_plain },
        {}
};

WEFT_MODULE(.name = "geneve", .summary = "Geneve overlay between nodes",
            .provides = (const char *const[]) { "routing", "tunnel", NULL }, .exclusive = "routing",
            .needs = needs, .options = options, .config_size = sizeof(struct geneve_config),
            .role = "routing", .rank = 5, .condition = WEFT_PEERS_APART, .object = weft_object,
            .object_end = weft_object_end, .load = geneve_load, .tests = tests, );
