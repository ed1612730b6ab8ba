/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The core's own sections as data: every key with its type, default and limits. */

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "error.h"

struct key {
        struct weft_option o; /* type 0: nothing is stored */

        /* Where the type alone does not say enough: looks at a value that is not empty. */
        int (*check)(const char *value, struct weft_error *reterr);

        /* Where no type fits: reads the value, which may be empty, into the field. */
        int (*set)(const struct key *k, void *field, const char *value, struct weft_error *reterr);

        /* For the manual and samples, where the option does not say it: what a value is, its
         * default, and whether the key may be repeated to make a list. */
        const char *is, *def;
        bool list;

        /* A text for which empty is a value of its own, and not the default. */
        bool keeps_empty;

        /* Where the object keeps the place that the value was written at; 0: nowhere. */
        size_t origin_at;
};

/* A kind of section. Its objects are in an array of the config, or, without names, the config holds
 * the only one itself. */
struct section {
        const char *name;
        const char *help;       /* a sentence or two of the manual */
        const struct key *keys; /* ended by key NULL; NULL: kept as text, see config_module */
        bool named;
        size_t at;        /* the object or the pointer to the array, in struct config */
        size_t count_at;  /* number of objects, in struct config */
        size_t size;      /* of one object, which begins with its name */
        size_t origin_at; /* in an object */
        /* Whether everything needed is given. */
        int (*complete)(const void *object, struct weft_error *reterr);
};

extern const struct section sections[]; /* ended by name NULL */

/* Gives every field of a zeroed object its default. 0 or -ENOMEM. */
int keys_default(const struct key *keys, void *object, struct weft_error *reterr);
/* The row of a key; NULL where there is none, with the nearest one in *reterr. */
const struct key *keys_find(const struct key *keys, const char *name, struct weft_error *reterr);
/* Reads one assignment. An unknown key is -ENOENT; *reterr says what would be right. */
int keys_set(const struct key *keys, void *object, const char *key, const char *value,
             struct weft_error *reterr);
/* Remembers where the value of a key was written, for those of which the object keeps it. */
void keys_set_origin(const struct key *keys, void *object, const char *key,
                     const struct origin *origin);
/* An empty assignment is a value of its own, and not the default: names and paths are never
 * empty, other texts may be. */
bool key_keeps_empty(const struct key *k);
/* Repeating the key makes a list longer. */
bool keys_is_list(const struct key *keys, const char *key);
/* Frees what the object's fields own. */
void keys_clear(const struct key *keys, void *object);

/* Object number i of a kind of section. */
void *section_object(const struct section *s, struct config *c, size_t i);
size_t section_count(const struct section *s, const struct config *c);
/* The one of that name; NULL. */
const struct section *section_by_name(const char *name);

/* Makes a zeroed object of a named kind be NAME with every default. 0 or -ENOMEM, then with nothing
 * to free. */
int object_init(const struct section *s, void *object, const char *name,
                const struct origin *origin);
/* Frees what the object owns. */
void object_done(const struct section *s, void *object);
/* What object_init() set: "" where the kind has no names. */
const char *object_name(const struct section *s, const void *object);
struct origin object_origin(const struct section *s, const void *object);
/* Whether an object may be called so. */
bool is_object_name(const struct section *s, const char *name);
