/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <stdio.h>
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
                        row[j] = min3(above + 1, row[j - 1] + 1,
                                      diagonal + (tolower(a[i - 1]) != tolower(b[j - 1])));
                        diagonal = above;
                }
        }

        return row[n];
}

void nearest_try(struct nearest *n, const char *candidate)
{
        size_t length = strlen(n->word), known = strlen(n->known);
        unsigned distance;

        (void) snprintf(n->known + known, sizeof(n->known) - known, "%s%s", known > 0 ? ", " : "",
                        candidate);
        if (length > WORD_MAX || strlen(candidate) > WORD_MAX)
                return;

        distance = edit_distance(n->word, candidate);
        if (distance > (length + 2) / 3 || (n->best && distance >= n->distance))
                return;

        n->best = candidate;
        n->distance = distance;
}

const char *nearest_hint(const struct nearest *n, char *buf, size_t size)
{
        const char *before = n->best ? ", did you mean \"" : n->known[0] != '\0' ? "; known: " : "";

        (void) snprintf(buf, size, "%s%s%s", before, n->best ?: n->known, n->best ? "\"?" : "");
        return buf;
}
