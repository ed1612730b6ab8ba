/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A module with an early stage in every hook. Built twice, with another VERSION. */

#include <weft/module.h>

WEFT_OBJECT(OBJECT);

struct tally_config {
        uint16_t drop_port;
};

static const struct weft_option options[] = { WEFT_OPT_U16(struct tally_config, drop_port,
                                                           "drop-port", "0", 0, 65535,
                                                           "Packets to this port are dropped."),
                                              {} };

static const struct weft_named reasons[] = { { "TALLIED", "packet to the port that is shut" }, {} };

static const struct weft_named counters[] = {
        { "from_endpoint", "packets of that hook" }, { "to_endpoint", "packets of that hook" },
        { "from_uplink", "packets of that hook" },   { "to_uplink", "packets of that hook" },
        { "from_overlay", "packets of that hook" },  {}
};

WEFT_MODULE(.name = "tally", .summary = "Counts every packet", .version = VERSION,
            .object = weft_object, .object_end = weft_object_end, .options = options,
            .config_size = sizeof(struct tally_config), .reasons = reasons, .counters = counters);
