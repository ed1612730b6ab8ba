/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Flows as they are told to a client, and which of them it wants. */

#include <jansson.h>
#include <netinet/in.h>

#include "daemon/daemon.h"

/* As the interface file has them: what comes from inside is an endpoint's, or the node's own. */
enum { SIDE_HOST_OUT = WEFT_SIDE_OVERLAY + 1, SIDES };
extern const char *const flow_side_names[];
extern const char *const flow_state_names[];
/* Room for a number where there is no name. Returns the name, or buf. */
const char *flow_protocol_name(uint8_t proto, char buf[static 8]);

/* A flow as it was at one moment: a client takes its time, the tables do not wait. */
struct flow_record {
        struct weft_addr saddr, daddr, new_saddr, new_daddr;
        __be16 sport, dport, new_sport, new_dport;
        uint16_t module;
        uint8_t proto, side, state, delivery;
        bool reply, expired;
        uint64_t packets, bytes;
        int64_t age, expires; /* seconds */
};

/* An address and port that a service is reached by. */
struct front {
        struct weft_addr addr;
        __be16 port;
        uint8_t proto;
};

/* What a flow must be; what is not asked for is -1 or empty. */
struct flow_filter {
        int proto, side, state, delivery;
        int32_t module;
        int64_t max_age;                              /* seconds */
        int port;                                     /* host order, of either end */
        struct weft_prefix source, destination, addr; /* as the packet comes in; anywhere */
        bool by_source, by_destination, by_addr, by_service;
        struct front *fronts;
        size_t n_fronts;
};

/* Reads the interface's FlowFilter (NULL: everything). 0, or -EINVAL with the field that is wrong.
 * Ends with flow_filter_done() either way. */
int flow_filter_read(struct flow_filter *f, struct daemon *d, const json_t *j,
                     const char **ret_field);
void flow_filter_done(struct flow_filter *f);
bool flow_filter_match(const struct flow_filter *f, const struct flow_record *r);
