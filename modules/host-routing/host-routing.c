/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets pass the node without its upper stack: straight into an endpoint's namespace, and to the
 * wire by the routing table's answer. All of it is the stage's; there is nothing to set. */

#include <stdio.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("host-routing.bpf.o");

static const struct weft_need needs[] = {
        WEFT_NEEDS(FEATURE, "redirect-peer",
                   "hands packets into an endpoint's namespace (Linux 5.10)"),
        WEFT_NEEDS(HELPER, "fib_lookup", "asks the routing table for the way to the wire"),
        WEFT_NEEDS(HELPER, "redirect_neigh",
                   "sends to a neighbour whose link-layer address is not known yet (Linux 5.10)"),
        WEFT_NEEDS(HOST, "masquerade-free",
                   "past the stack, masquerading of pods in netfilter would be passed by: load "
                   "bpf-masq and take that rule away, or take [module host-routing] away"),
        {}
};

/* Address, port and checksums, behind Ethernet and IPv4: another module may masquerade. */
#define ANY_SOURCE                                                                                 \
        {                                                                                          \
                { 24, 6 }, { 34, 2 },                                                              \
                {                                                                                  \
                        50, 2                                                                      \
                }                                                                                  \
        }

static void host_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                        size_t size)
{
        (void) self;
        (void) api;
        (void) snprintf(buf, size, "straight into endpoints' namespaces and to the wire");
}

static const struct weft_test tests[] = {
        { .name = "a packet for an endpoint goes straight into it",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(syn_in),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_delivered) },
        { .name = "an endpoint's packet goes straight to the wire",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn_out),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_wire),
          .any = ANY_SOURCE },
        {}
};

WEFT_MODULE(.name = "host-routing", .summary = "Bypasses the upper network stack of the node",
            .needs = needs, .tests = tests, .role = "delivery", .rank = 10, .object = weft_object,
            .object_end = weft_object_end, .status = host_status, );
