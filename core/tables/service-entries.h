/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The entries of the services table: the only place that writes them, keeping what the filter and
 * the slot ranges need to know of them. */

#include "tables/internal.h"

struct service;

struct service_entry {
        struct weft_service_key key;
        struct weft_service value;
        struct range *range;   /* where value.slots points; NULL: nowhere */
        struct lookup *lookup; /* what value.maglev says; NULL: none */
        struct service *owner; /* NULL: of the address alone, or left by a predecessor */
        uint32_t users;        /* of the address alone: services that have it */
        bool fresh;            /* made by an attempt that may still fail */
};

/* The entry that says that an address is a service's own. */
static inline bool is_address(const struct weft_service_key *k)
{
        return k->port == 0 && k->proto == 0;
}

struct service_entry *service_entry_find(struct tables *t, const struct weft_service_key *key);
/* One update of the map, none where it says the same; what the entry pointed at before is given
 * back after it. An entry that was not there is made (filter first) and fresh. */
int service_entry_write(struct tables *t, const struct weft_service_key *key,
                        const struct weft_service *value, struct range *range,
                        struct lookup *lookup);
void service_entry_remove(struct tables *t, struct service_entry *e);
void service_entries_done(struct tables *t);
