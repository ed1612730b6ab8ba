/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* "Did you mean …?": the candidate that takes the fewest edits to become the word that was read. */

struct nearest {
        const char *word;  /* what was read */
        const char *best;  /* NULL while nothing is near enough */
        unsigned distance; /* of best */
};

/* Looks at one more candidate. Near enough is at most one edit for every three characters. */
void nearest_try(struct nearest *n, const char *candidate);
