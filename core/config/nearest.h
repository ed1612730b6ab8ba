/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* "Did you mean …?": the candidate that takes the fewest edits to become the word that was read. */

struct nearest {
        const char *word;  /* what was read */
        const char *best;  /* NULL while nothing is near enough */
        unsigned distance; /* of best */
        char known[320];   /* all candidates, as nearest_hint() lists them */
};

/* Looks at one more candidate. Near enough is at most one edit for every three characters; capitals
 * are no edit. */
void nearest_try(struct nearest *n, const char *candidate);

/* What would be right, to be put behind "unknown key": the nearest candidate, or all of them where
 * none is near. Returns buf. */
const char *nearest_hint(const struct nearest *n, char *buf, size_t size);

#define NEAREST_HINT 360 /* enough for any */
