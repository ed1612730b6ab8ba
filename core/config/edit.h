/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Objects of a configuration that is in use, set and removed one by one. What the files of an
 * operator say cannot be changed. Nothing but memory is touched: store.h keeps, the daemon acts. */

#include "config/config.h"
#include "config/sections.h"
#include "error.h"

struct edit_change {
        const struct section *section;
        void *before; /* the object as it was; NULL: there was none */
        bool removed; /* nothing took its place */
        char *name;
        char *text; /* of the section, as it is now; NULL: removed */
};

/* A batch of changes, done as far as they stand here. */
struct edit {
        struct config *config;
        const char *root;
        uid_t uid; /* who wants them */
        struct edit_change *changes;
        size_t n;
};

struct setting {
        const char *key, *value;
};

/* Makes [KIND NAME] be there with these settings. Where it was set before, keys that are not
 * mentioned stay as they are; the mentioned ones lose what they were (so a list is replaced, and an
 * empty value gives the default). -EINVAL with every fault in *diagnostics, as if an operator had
 * written it. -EROFS: an operator's file has it, *reterr says where. -EIO: what was stored cannot
 * be read. After a failure the batch is to be undone. */
int edit_set(struct edit *e, const struct section *s, const char *name,
             const struct setting *settings, size_t n, struct diagnostics *diagnostics,
             struct weft_error *reterr);
/* -ENOENT, -EROFS. */
int edit_remove(struct edit *e, const struct section *s, const char *name,
                struct weft_error *reterr);
/* Writes all of it to the store (store.h). */
int edit_store(const struct edit *e, struct weft_error *reterr);
/* The configuration is as it was before the batch. */
void edit_undo(struct edit *e);
/* Frees what the objects were before. */
void edit_done(struct edit *e);
/* The object as it is now; NULL: removed. */
void *edit_after(const struct edit *e, const struct edit_change *change);
