/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "config/nearest.h"

#define WORD_MAX 48

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
        unsigned m = a < b ? a : b;

        return m < c ? m : c;
}

/* Levenshtein's distance, one row of the table at a time. b is at most WORD_MAX long. */
static unsigned edit_distance(const char *a, const char *b)
{
        unsigned row[WORD_MAX + 1], diagonal, above;
        size_t n = strlen(b);

        for (unsigned j = 0; j <= n; j++)
                row[j] = j;

        for (unsigned i = 1; a[i - 1] != '\0'; i++) {
                diagonal = row[0];
                row[0] = i;
                for (unsigned j = 1; j <= n; j++) {
                        above = row[j];
                        row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
                        diagonal = above;
                }
        }

        return row[n];
}

void nearest_try(struct nearest *n, const char *candidate)
{
        size_t length = strlen(n->word);
        unsigned distance;

        if (length > WORD_MAX || strlen(candidate) > WORD_MAX)
                return;

        distance = edit_distance(n->word, candidate);
        if (distance > (length + 2) / 3 || (n->best && distance >= n->distance))
                return;

        n->best = candidate;
        n->distance = distance;
}
