/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Maglev hashing (Eisenbud et al., NSDI 2016, §3.4): a table in which every backend has its share,
 * whoever computes it, and of which little changes when one of them comes or goes. */

#include <stddef.h>
#include <stdint.h>

#include <weft/types.h>

struct maglev_backend {
        struct weft_addr addr;
        __be16 port;
        uint8_t proto;
        uint32_t weight; /* over 0 */
};

/* Fills ret[0 .. size) with positions in backends[0 .. n), n > 0, each about as often as its weight
 * asks. size: a prime. The backends that stand there do not depend on their order in the list.
 * -ENOMEM. */
int maglev_fill(const struct maglev_backend *backends, size_t n, uint32_t *ret, uint32_t size);
