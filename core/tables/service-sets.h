/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a service has in maps whose keys carry its id: members (whom affinity may lead back to),
 * backends by where they are placed, and source ranges. No two services share an entry. */

#include "tables/internal.h"

struct service_set {
        unsigned char *keys;
        uint32_t *values;
        size_t n;
};

/* key: as large as the map's. -ENOMEM. */
int service_set_add(const struct tables *t, enum table id, struct service_set *s, const void *key,
                    uint32_t value);
/* Puts all of the set into the map, before the service's entries change; on failure, what got there
 * is still to be left. -ENOSPC, -E2BIG, -ENOMEM. */
int service_set_enter(struct tables *t, enum table id, const struct service_set *s);
/* Takes out what is in the old set and not in the new one, after they have changed. */
void service_set_leave(struct tables *t, enum table id, const struct service_set *old,
                       const struct service_set *new);
void service_set_done(struct service_set *s);
