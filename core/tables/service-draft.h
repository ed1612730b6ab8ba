/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A service as it is to be: everything that can fail for want of room is made here, beside what is
 * in use, and nothing of it is seen before the service's entries are written. */

#include "config/values.h"
#include "tables/service-entries.h"
#include "tables/service-sets.h"

/* One address and port of a service, and what kind of address that is. */
struct service_key {
        struct weft_service_key key;
        uint32_t flags; /* of enum weft_service_flag */
};

/* What its addresses of one family share. */
struct face {
        struct weft_service value;
        struct range *range;
        struct lookup *lookup;
};

struct draft {
        const struct config_service *config;
        uint32_t id;
        struct service_key *keys; /* in order, each once */
        size_t n_keys;
        struct backend **backends; /* one reference each, in the configuration's order */
        size_t n_backends;
        struct face faces[2];
        struct service_set members, placed, sources;
};

/* The addresses. config is set; node_addrs: where a node port is. -ENOMEM. */
int draft_keys(struct draft *d, const struct weft_addr *node_addrs, size_t n_node_addrs);
/* All else. id is set. */
int draft_make(struct tables *t, struct draft *d, struct weft_error *reterr);
/* Gives back what the draft holds. */
void draft_done(struct tables *t, struct draft *d);

/* FNV-1a: the same on every node, and different for services that have the same backends. */
static inline uint32_t hash_name(const char *name)
{
        uint32_t h = 2166136261;

        for (; *name != '\0'; name++)
                h = (h ^ (uint8_t) *name) * 16777619;

        return h;
}

static inline struct face *draft_face(struct draft *d, const struct weft_service_key *k)
{
        return &d->faces[!address_is_ipv4(&k->addr)];
}
