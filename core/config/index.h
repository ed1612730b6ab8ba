/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Finds an object of a configuration by kind and name among ten thousands. */

#include "config/config.h"
#include "config/sections.h"

struct handle {
        const struct section *section;
        const char *name; /* the object's; "" where the section has none */
        size_t index;     /* in the array of its kind */
        bool refused;     /* while loading: one of its lines was; what is missing may stand there */
};

struct handle *index_find(const struct config *c, const struct section *s, const char *name);
/* name must live as long as the handle. NULL without memory. */
struct handle *index_add(struct config *c, const struct section *s, const char *name, size_t index);
void index_del(struct config *c, struct handle *h);
void index_done(struct config *c);

/* The object, or NULL. */
void *config_object(struct config *c, const struct section *s, const char *name);
const struct config_peer *config_peer(const struct config *c, const char *name);
const struct config_endpoint *config_endpoint(const struct config *c, const char *name);
const struct config_service *config_service(const struct config *c, const char *name);
