/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Limits how many connections to services one source may open in a while. */

#include <bpf/bpf.h>
#include <string.h>

#include <weft/module.h>

WEFT_OBJECT("limiter.bpf.o");

struct limiter_config {
        uint32_t limit;
        uint64_t window; /* milliseconds */
        struct weft_prefixes except;
};

static const struct weft_option options[] = {
        WEFT_OPT_U32(struct limiter_config, limit, "limit", "100", 1, 1000000,
                     "Connections that one source may open in each window."),
        WEFT_OPT_TIME(struct limiter_config, window, "window", "1s", 100, 3600000,
                      "How long connections are counted before the count begins anew."),
        WEFT_OPT_PREFIXES(struct limiter_config, except, "except", "", "Sources without a limit."),
        {}
};

static const struct weft_need needs[] = {
        WEFT_NEEDS(ROLE, "nodeport", "handles the services whose connections are counted"),
        WEFT_NEEDS(HELPER, "ktime_get_ns", "measures the window"),
        {}
};

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

WEFT_MODULE(
        .name = "limiter", .version = "1",
        .summary = "Limits new connections from one source to services",
        .needs = needs, .options = options, .config_size = sizeof(struct limiter_config),
        .object = weft_object, .object_end = weft_object_end, .attach = limiter_attach,
);
