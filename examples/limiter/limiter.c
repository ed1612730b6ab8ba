/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Limits how many connections to services one source may open in a while. */

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include <weft/module.h>

#include "frames.h"
#include "limiter.h"

WEFT_OBJECT("limiter.bpf.o");

struct limiter_config {
        uint32_t limit;
        uint64_t window; /* milliseconds */
        uint32_t prefix4, prefix6;
        struct weft_prefixes except;
        bool reject, observe;
};

static const struct weft_option options[] = {
        WEFT_OPT_U32(struct limiter_config, limit, "limit", "100", 1, 1000000,
                     "Connections that one source may open in each window."),
        WEFT_OPT_TIME(struct limiter_config, window, "window", "1s", 100, 3600000,
                      "How long connections are counted before the count begins anew."),
        WEFT_OPT_U32(struct limiter_config, prefix4, "ipv4-prefix", "32", 8, 32,
                     "Bits of an IPv4 address that tell one source from another."),
        WEFT_OPT_U32(struct limiter_config, prefix6, "ipv6-prefix", "64", 16, 128,
                     "The same of an IPv6 address; one subscriber mostly has a whole /64."),
        WEFT_OPT_PREFIXES(struct limiter_config, except, "except", "", "Sources without a limit."),
        WEFT_OPT_BOOL(struct limiter_config, reject, "reject", "no",
                      "Whether refused clients are told so, and do not wait for their timeout."),
        WEFT_OPT_BOOL(struct limiter_config, observe, "observe", "no",
                      "Whether to let everybody through and only count who is over the limit."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(ROLE, "nodeport", "handles the services whose connections are counted"),
        WEFT_NEEDS(HELPER, "ktime_get_ns", "measures the window"),
        {}
};

static const struct weft_named reasons[] = {
        [TOO_MANY_CONNECTIONS] = { "TOO_MANY_CONNECTIONS",
                                   "source is over its limit of new connections" },
        {}
};

static const struct weft_named counters[] = {
        [ADMITTED] = { "admitted", "connections within the limit" },
        [REFUSED] = { "refused", "packets of connections over the limit, dropped" },
        [OVER_LIMIT] = { "over_limit",
                         "packets over the limit that were let through, for observe = yes" },
        [EXCEPTED] = { "excepted", "connections of sources without a limit" },
        {}
};

/* ---- life cycle --------------------------------------------------------------------------- */

static int limiter_configure(struct weft_instance *self, const struct weft_api *api,
                             struct weft_error *reterr)
{
        const struct limiter_config *config = api->config(self);

        return config->except.n > EXCEPT_MAX
                       ? api->fail(reterr, -E2BIG,
                                   "except has %zu prefixes, and there is room for %d",
                                   config->except.n, EXCEPT_MAX)
                       : 0;
}

/* The first n bits of 128. */
static struct weft_addr mask_of(uint32_t n)
{
        struct weft_addr mask = { 0 };

        for (uint32_t i = 0; i < 4; i++, n -= n < 32 ? n : 32)
                mask.w[i] = htonl(n >= 32 ? UINT32_MAX : n > 0 ? UINT32_MAX << (32 - n) : 0);

        return mask;
}

static int limiter_load(struct weft_instance *self, const struct weft_api *api,
                        struct weft_error *reterr)
{
        const struct limiter_config *config = api->config(self);
        const struct weft_addr mask4 = mask_of(96 + config->prefix4),
                               mask6 = mask_of(config->prefix6);
        int r = api->constant(self, "mask4", &mask4, sizeof(mask4));

        if (r == 0)
                r = api->constant(self, "mask6", &mask6, sizeof(mask6));

        return r < 0 ? api->fail(reterr, r, "cannot set the prefixes: %s", strerror(-r)) : 0;
}

static int limiter_attach(struct weft_instance *self, const struct weft_api *api,
                          struct weft_error *reterr)
{
        const struct limiter_config *config = api->config(self);
        const uint8_t present = 1;

        for (size_t i = 0; i < config->except.n; i++) {
                const struct weft_prefix *p = &config->except.items[i];
                const struct weft_peer_key key = { .prefixlen = p->len, .addr = p->addr };
                int r = bpf_map_update_elem(api->map(self, "except"), &key, &present, BPF_ANY);

                if (r < 0)
                        return api->fail(reterr, r, "cannot store the sources without a limit: %s",
                                         strerror(-r));
        }

        return 0;
}

/* ---- self-test ---------------------------------------------------------------------------- */

static const struct weft_test_service service[] = {
        { .port = 80,
          .node_port = 30080,
          .proto = IPPROTO_TCP,
          .backends = (const char *const[]) { "10.244.2.10:8080", NULL } },
        {}
};

/* Whether the second connection is one too many, and is dropped. Between the two packets a machine
 * with much to do may take its time, but no second. */
static bool second_is_dropped(struct weft_instance *self, const struct weft_api *api)
{
        const struct limiter_config *config = api->config(self);

        return config->limit == 1 && config->window >= 1000 && config->except.n == 0 &&
               !config->reject && !config->observe;
}

static const struct weft_test tests[] = {
        { .name = "a connection within the limit goes to the backend",
          .hook = WEFT_FROM_UPLINK,
          .packet = WEFT_TEST_BYTES(syn),
          .services = service,
          .verdict = WEFT_TEST_REDIRECT,
          .with = "nodeport-snat" },
        { .name = "with a limit of one, the same source's second connection is dropped",
          .hook = WEFT_FROM_UPLINK,
          .goes_on = 1,
          .packet = WEFT_TEST_BYTES(second_syn),
          .verdict = WEFT_TEST_DROP,
          .with = "nodeport-snat",
          .applies = second_is_dropped },
        {}
};

WEFT_MODULE(.name = "limiter", .version = "1",
            .summary = "Limits new connections from one source to services", .needs = needs,
            .options = options, .config_size = sizeof(struct limiter_config), .object = weft_object,
            .object_end = weft_object_end, .configure = limiter_configure, .load = limiter_load,
            .attach = limiter_attach, .reasons = reasons, .counters = counters, .tests = tests, );
