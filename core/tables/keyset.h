/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A set of keys of one size, over tsearch(3). Zeroed it is empty (set size first). */

#include <stdbool.h>
#include <stddef.h>

struct keyset {
        void *root;
        size_t size; /* bytes of a key */
};

int keyset_add(struct keyset *s, const void *key); /* 0 or -ENOMEM; there already: 0 */
void keyset_del(struct keyset *s, const void *key);
bool keyset_has(const struct keyset *s, const void *key);
void keyset_done(struct keyset *s);
