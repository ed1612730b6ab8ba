/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets to peers travel in VXLAN (RFC 7348). The module says what its header is like; the core
 * has it written by a device of the kernel or by the engine. */

#include <linux/if_link.h>

#include <weft/module.h>

WEFT_OBJECT("vxlan.bpf.o");

#define KIND "vxlan"
#define TITLE "VXLAN"
#define PORT 8472 /* Linux's own choice, older than IANA's 4789 */
#define HEADER_BYTES 0x08, 0x00, 0x00, 0x00

/* The flag says that there is a key; all else is reserved (RFC 7348 §5) and ignored when received.
 */
static const struct weft_tunnel_spec spec = {
        .kind = KIND,
        .port_attribute = IFLA_VXLAN_PORT,
        .external_attribute = IFLA_VXLAN_COLLECT_METADATA,
        .sums_attribute = IFLA_VXLAN_UDP_ZERO_CSUM6_RX,
        .header = { .header = { 0x08 }, .mask = { 0x08 } },
};

#include "../tunnel.h"

WEFT_MODULE(.name = KIND, .summary = TITLE " overlay between nodes",
            .provides = (const char *const[]) { "routing", "tunnel", NULL }, .exclusive = "routing",
            .needs = needs, .options = options, .config_size = sizeof(struct tunnel_config),
            .role = "routing", .rank = 10, .condition = WEFT_PEERS_APART, .object = weft_object,
            .object_end = weft_object_end, .load = tunnel_load, .tests = tests, );
