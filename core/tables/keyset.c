/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "tables/keyset.h"

struct member {
        size_t size;
        const void *key;
};

static int compare(const void *a, const void *b)
{
        const struct member *x = a, *y = b;

        return memcmp(x->key, y->key, x->size);
}

int keyset_add(struct keyset *s, const void *key)
{
        struct member *m;

        if (keyset_has(s, key))
                return 0;

        m = malloc(sizeof(*m) + s->size);
        if (!m)
                return -ENOMEM;

        *m = (struct member) { s->size, memcpy(m + 1, key, s->size) };
        if (!tsearch(m, &s->root, compare)) {
                free(m);
                return -ENOMEM;
        }

        return 0;
}

static struct member *find(const struct keyset *s, const void *key)
{
        struct member **m = tfind(&(struct member) { s->size, key }, &s->root, compare);

        return m ? *m : NULL;
}

void keyset_del(struct keyset *s, const void *key)
{
        struct member *m = find(s, key);

        if (!m)
                return;

        (void) tdelete(m, &s->root, compare);
        free(m);
}

bool keyset_has(const struct keyset *s, const void *key)
{
        return find(s, key);
}

void keyset_done(struct keyset *s)
{
        tdestroy(s->root, free);
        s->root = NULL;
}
