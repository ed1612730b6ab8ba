/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets to peers travel in Geneve (RFC 8926). The module says what its header is like; the core
 * has it written by a device of the kernel or by the engine. */

#include <linux/if_link.h>

#include <weft/module.h>

WEFT_OBJECT("geneve.bpf.o");

#define KIND "geneve"
#define TITLE "Geneve"
#define PORT 6081 /* IANA's */
#define HEADER_BYTES 0x00, 0x00, 0x65, 0x58

/* Version 0, an Ethernet frame inside; the low bits of the first byte tell the length of options.
 * What is reserved is ignored when received, and control packets (O) are none of ours (RFC 8926
 * §3.4). */
static const struct weft_tunnel_spec spec = {
        .kind = KIND,
        .port_attribute = IFLA_GENEVE_PORT,
        .external_attribute = IFLA_GENEVE_COLLECT_METADATA,
        .external_is_flag = 1,
        .sums_attribute = IFLA_GENEVE_UDP_ZERO_CSUM6_RX,
        .header = { .header = { 0, 0, 0x65, 0x58 },
                    .mask = { 0xc0, 0x80, 0xff, 0xff },
                    .options = 0x3f,
                    .critical = 0x40 },
};

#include "../tunnel.h"

WEFT_MODULE(.name = KIND, .summary = TITLE " overlay between nodes",
            .provides = (const char *const[]) { "routing", "tunnel", NULL }, .exclusive = "routing",
            .needs = needs, .options = options, .config_size = sizeof(struct tunnel_config),
            .role = "routing", .rank = 5, .condition = WEFT_PEERS_APART, .object = weft_object,
            .object_end = weft_object_end, .load = tunnel_load, .tests = tests, );
