/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/index.h"
#include "util.h"

static int compare_handles(const void *a, const void *b)
{
        const struct handle *x = a, *y = b;

        return x->section != y->section ? (x->section < y->section ? -1 : 1)
                                        : strcmp(x->name, y->name);
}

struct handle *index_find(const struct config *c, const struct section *s, const char *name)
{
        const struct handle wanted = { .section = s, .name = name };
        struct handle **found = tfind(&wanted, &c->index, compare_handles);

        return found ? *found : NULL;
}

struct handle *index_add(struct config *c, const struct section *s, const char *name, size_t index)
{
        _cleanup_free_ struct handle *h = malloc(sizeof(*h));

        if (!h)
                return NULL;

        *h = (struct handle) { .section = s, .name = name, .index = index };
        return tsearch(h, &c->index, compare_handles) ? TAKE(h) : NULL;
}

void index_del(struct config *c, struct handle *h)
{
        (void) tdelete(h, &c->index, compare_handles);
        free(h);
}

void index_done(struct config *c)
{
        tdestroy(c->index, free);
        c->index = NULL;
}

void *config_object(struct config *c, const struct section *s, const char *name)
{
        const struct handle *h = index_find(c, s, name);

        return h ? section_object(s, c, h->index) : NULL;
}

static const void *find(const struct config *c, const char *kind, const char *name)
{
        return config_object((struct config *) c, section_by_name(kind), name);
}

const struct config_peer *config_peer(const struct config *c, const char *name)
{
        return find(c, "peer", name);
}

const struct config_endpoint *config_endpoint(const struct config *c, const char *name)
{
        return find(c, "endpoint", name);
}

const struct config_service *config_service(const struct config *c, const char *name)
{
        return find(c, "service", name);
}
