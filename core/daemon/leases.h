/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Addresses that weft chose for endpoints whose section gives none: taken from the pod CIDR and
 * kept in a small file (a line "NAME ADDRESS" each), so that an endpoint has the same address after
 * a restart. Everything but leases_load() and leases_save() is a pure function. */

#include <stdbool.h>
#include <stddef.h>

#include <weft/module.h>

#include "error.h"

struct lease {
        char *name;
        struct weft_addr addr;
};

struct leases {
        struct lease *items;
        size_t n;
};

/* An absent file is an empty list; a line that cannot be read is -EINVAL with its number. */
int leases_load(const char *path, struct leases *ret, struct weft_error *reterr);
int leases_save(const struct leases *l, const char *path, struct weft_error *reterr);
void leases_done(struct leases *l);

/* The address NAME holds inside the prefix, or NULL. */
const struct weft_addr *leases_find(const struct leases *l, const char *name,
                                    const struct weft_prefix *cidr);
/* The name that the address is lent to, or NULL. */
const char *leases_holder(const struct leases *l, const struct weft_addr *a);
/* Lends NAME the lowest free address of the prefix: not the network's, the gateway's, the last one,
 * lent already, or one for which in_use() says true. -ENOSPC. */
int leases_take(struct leases *l, const char *name, const struct weft_prefix *cidr,
                bool (*in_use)(void *data, const struct weft_addr *a), void *data,
                struct weft_addr *ret);
/* Ends every lease of the name; true where there was one. */
bool leases_drop(struct leases *l, const char *name);
