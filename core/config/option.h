/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One typed field of a struct, described by a row of an option table: modules' options and the keys
 * of the core's own sections are read by the same code. */

#include <weft/module.h>

#include "config/config.h"
#include "error.h"

/* Sets the field from text. An empty text empties a list or string and gives everything else its
 * default. Lists are appended to. On failure the field is as it was (lists: as far as it came) and
 * *reterr says what would be right. -EINVAL, -ERANGE or -ENOMEM. */
int option_set(const struct weft_option *o, void *config, const char *text,
               struct weft_error *reterr);

/* Sets the default; no default is an empty field. */
int option_set_default(const struct weft_option *o, void *config, struct weft_error *reterr);

/* Bytes of a field that holds the value itself; 0: it points elsewhere (lists, texts). */
size_t option_size(enum weft_option_type type);

/* Bytes of any field; 0: there is no such type. */
size_t option_field_size(enum weft_option_type type);

/* Repeating the key makes a list longer. */
bool option_is_list(const struct weft_option *o);
/* An empty assignment is a value of its own, and not the default. */
bool option_keeps_empty(const struct weft_option *o);

/* Frees what the field owns and empties it. */
void option_clear(const struct weft_option *o, void *config);

/* Index of text in the row's choices, or -EINVAL naming them all and the nearest. */
int option_choice(const struct weft_option *o, const char *text, uint32_t *ret,
                  struct weft_error *reterr);

/* Calls f for every item of a comma-separated list, blanks around it taken off; stops at and
 * returns the first failure. An empty item is -EINVAL. */
int each_item(const char *list, int (*f)(void *data, const char *item, struct weft_error *reterr),
              void *data, struct weft_error *reterr);
