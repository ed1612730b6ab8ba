/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What stands in the files, value by value and each with its place, after everything that later
 * files made of it. Kept while the files are read and checked, and longer where somebody asks. */

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "config/sections.h"

/* One item of a list, one value, or (text "") the place where a key was emptied. */
struct written_value {
        char *key, *text;
        struct origin origin;
};

struct written_section {
        const struct section *kind;
        char *name;           /* "" where the kind has none */
        struct origin origin; /* of its first header */
        struct written_value *values;
        size_t n;
};

struct written {
        struct written_section **items; /* in the order of their first headers */
        size_t n;
        void *tree; /* the same, to be found */
};

/* The section of that name, made where it is the first of it; NULL without memory. */
struct written_section *written_section(struct written *w, const struct section *kind,
                                        const char *name, const struct origin *origin);

/* One assignment. A list grows by the items of text and is emptied by ""; of anything else only the
 * last assignment is kept. 0 or -ENOMEM. */
int written_put(struct written_section *s, const char *key, bool is_list, const char *text,
                const struct origin *origin);
/* The same for a key of which it is not known yet what it is: all assignments are kept. */
int written_append(struct written_section *s, const char *key, const char *text,
                   const struct origin *origin);

/* Frees what a section by itself owns, but for its name. */
void written_section_done(struct written_section *s);
/* Where item n (or the value, 0) of a key stands; of fewer items the last one. NULL: nowhere. */
const struct origin *written_place(const struct written *w, const char *kind, const char *name,
                                   const char *key, size_t n);
bool written_has(const struct written_section *s, const char *key);
void written_done(struct written *w);
