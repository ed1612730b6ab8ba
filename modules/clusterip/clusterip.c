/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services as endpoints see them. All of it is the stage's; what can be set is the address under
 * which an endpoint that reaches itself appears to itself. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include <weft/module.h>

#include "frames.h"

WEFT_OBJECT("clusterip.bpf.o");

struct clusterip_config {
        struct weft_addresses loopback_address;
};

/* IPv4: that of the reference, link-local and so used by nobody (RFC 3927). IPv6 has no such
 * address that an endpoint would send to its gateway; this one is of a prefix made of "weft"
 * (RFC 4193). */
#define LOOPBACK "169.254.42.1, fd77:6566:74::1"

static const struct weft_option options[] = {
        WEFT_OPT_ADDRESSES(struct clusterip_config, loopback_address, "loopback-address", LOOPBACK,
                           "The address, one of each family, that an endpoint sees as its client "
                           "when a service leads it to itself."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(HELPER, "fib_lookup", "finds the way to a backend on another node"),
        WEFT_WANTS(HELPER, "redirect_neigh",
                   "sends to a neighbour whose link-layer address is not known yet"),
        WEFT_WANTS(ROLE, "routing", "says how backends on other nodes are reached"),
        {}
};

static bool is_ipv4(const struct weft_addr *a)
{
        return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == htonl(0xffff);
}

/* The only configured address of one family; NULL: there is none, or several. */
static const struct weft_addr *address_of(const struct clusterip_config *config, bool ipv4)
{
        const struct weft_addresses *list = &config->loopback_address;
        const struct weft_addr *found = NULL;

        for (size_t i = 0; i < list->n; i++) {
                if (is_ipv4(&list->items[i]) != ipv4)
                        continue;
                if (found)
                        return NULL;
                found = &list->items[i];
        }

        return found;
}

static int clusterip_configure(struct weft_instance *self, const struct weft_api *api,
                               struct weft_error *reterr)
{
        const struct clusterip_config *config = api->config(self);

        if (!address_of(config, true) || !address_of(config, false))
                return api->fail(reterr, -EINVAL,
                                 "loopback-address needs one address of each family, such as %s",
                                 LOOPBACK);

        return 0;
}

static int clusterip_load(struct weft_instance *self, const struct weft_api *api,
                          struct weft_error *reterr)
{
        const struct clusterip_config *config = api->config(self);
        int r;

        r = api->constant(self, "loopback4", address_of(config, true), sizeof(struct weft_addr));
        if (r >= 0)
                r = api->constant(self, "loopback6", address_of(config, false),
                                  sizeof(struct weft_addr));

        return r < 0 ? api->fail(reterr, r, "its eBPF object has no address loopback4 or loopback6")
                     : 0;
}

static void clusterip_status(struct weft_instance *self, const struct weft_api *api, char *buf,
                             size_t size)
{
        const struct clusterip_config *config = api->config(self);
        char text[2][INET6_ADDRSTRLEN];

        (void) inet_ntop(AF_INET, &address_of(config, true)->w[3], text[0], sizeof(text[0]));
        (void) inet_ntop(AF_INET6, address_of(config, false), text[1], sizeof(text[1]));
        (void) snprintf(buf, size, "endpoints see themselves as %s and %s", text[0], text[1]);
}

/* ---- self-tests --------------------------------------------------------------------------- */

static const struct weft_test_service remote[] = {
        { .external_ip = "198.51.100.7",
          .port = 80,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "10.244.2.10:8080", NULL } },
        {}
};

static const struct weft_test_service remote6[] = {
        { .external_ip = "2001:db8:ffff::7",
          .port = 80,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "[fd00:244:2::10]:8080", NULL } },
        {}
};

static const struct weft_test_service itself[] = {
        { .external_ip = "198.51.100.7",
          .port = 80,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "10.244.1.10:8080", NULL } },
        {}
};

static bool has_default_address(struct weft_instance *self, const struct weft_api *api)
{
        const struct clusterip_config *config = api->config(self);

        return address_of(config, true)->w[3] == htonl(0xa9fe2a01);
}

/* Whether the backend's network is one that endpoints' addresses are known in depends on the
 * configuration: source address and port, and the checksums over them, are a masquerading module's
 * to say. */
static const struct weft_test tests[] = {
        { .name = "an endpoint's connection to a service goes to the backend",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn),
          .services = remote,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_to_backend),
          .any = WEFT_TEST_TCP4_SOURCE },
        { .name = "the backend's answer comes from the service's address",
          .hook = WEFT_FROM_UPLINK,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(answer),
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(answer_to_endpoint),
          .without = "bpf-masq" },
        { .name = "an endpoint's connection over IPv6 goes to the backend",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn6),
          .services = remote6,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn6_to_backend),
          .any = WEFT_TEST_TCP6_SOURCE },
        { .name = "an endpoint that reaches itself sees the loopback address",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn),
          .services = itself,
          .verdict = WEFT_TEST_REDIRECT,
          .expected = WEFT_TEST_BYTES(syn_to_itself),
          .applies = has_default_address },
        { .name = "an unknown port of a service's address is dropped",
          .hook = WEFT_FROM_ENDPOINT,
          .packet = WEFT_TEST_BYTES(syn_elsewhere),
          .services = remote,
          .verdict = WEFT_TEST_DROP },
        {}
};

WEFT_MODULE(.name = "clusterip", .summary = "Services as endpoints see them", .needs = needs,
            .options = options, .config_size = sizeof(struct clusterip_config), .tracks_replies = 1,
            .object = weft_object, .object_end = weft_object_end, .configure = clusterip_configure,
            .load = clusterip_load, .tests = tests, .status = clusterip_status, );
