/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The keys of the core's own sections, as people read them: the manual's and the sample's words,
 * from the table that the configuration is read by. */

#include <stdio.h>

#include "config/sections.h"

/* What a value of the key is: "one of probe, strict, partial". Returns buf. */
char *key_type_text(const struct key *k, char *buf, size_t size);

/* As it would be written; NULL: none. */
const char *key_default_text(const struct key *k);

/* A weft.conf with every key of every section, all of it commented out. */
void keys_sample(FILE *f);
