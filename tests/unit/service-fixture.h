/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the tests of services and of their balancing share. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "tables-fixture.h"

static struct weft_addr node;

static inline struct config_backend backend(const char *addr, uint32_t weight,
                                            enum backend_state state)
{
        return (struct config_backend) {
                .addr = fixture_addr(addr),
                .port = 8080,
                .weight = weight,
                .state = state,
        };
}

static inline struct config_service service(const char *name, struct config_backend *backends,
                                            size_t n)
{
        return (struct config_service) {
                .name = (char *) name,
                .port = 80,
                .proto = IPPROTO_TCP,
                .node_port = 30080,
                .backends = backends,
                .n_backends = n,
        };
}

static inline void set(struct tables *t, const struct config_service *s)
{
        struct weft_error error = {};

        node = fixture_addr("192.0.2.1");
        cr_assert_eq(tables_set_service(t, s, &node, 1, &error), 0, "%s", error.text);
}

static inline struct weft_service get(struct tables *t, const char *addr, uint16_t port)
{
        struct weft_service v = {};

        cr_assert(fixture_service(t, addr, port, IPPROTO_TCP, &v), "%s:%u", addr, port);
        return v;
}

static inline struct weft_service get_address(struct tables *t, const char *addr)
{
        struct weft_service v = {};

        cr_assert(fixture_service(t, addr, 0, 0, &v), "%s", addr);
        return v;
}

static inline struct weft_backend element(struct tables *t, uint32_t index)
{
        struct weft_backend b;

        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "backends"), &index, &b), 0);
        return b;
}

/* How many slots of the service lead to the address. */
static inline uint32_t share(struct tables *t, const struct weft_service *v, const char *addr)
{
        struct weft_addr a = fixture_addr(addr);
        uint32_t n = 0;

        for (uint32_t i = 0; i < v->count; i++) {
                struct weft_backend b = fixture_slot(t, v, i, NULL);

                n += memcmp(&b.addr, &a, sizeof(a)) == 0;
        }
        return n;
}
