/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Reading one INI file: inih takes the lines apart, but sees only lines that weft's own reader let
 * through. So every line that inih would cut, join or skip in silence is refused by file and line,
 * and headers of sections without keys are seen. */

#include <stdio.h>

#include "config/config.h"

/* Longest line that inih's buffer holds, and longest section name it keeps, in bytes. */
#define INI_LINE_MAX 198
#define INI_SECTION_MAX 48

/* A section header (key and value NULL) or an assignment in it. Valid during the call. */
struct ini_item {
        struct origin origin;
        const char *section, *key, *value;
};

typedef void (*ini_item_fn)(void *data, const struct ini_item *item);

/* Calls f for every header and assignment in order. Refused lines become diagnostics; what stands
 * below a refused header is left out, since nobody knows what it belongs to. file: the name for
 * messages, not copied. 0, -EIO where reading failed; diagnostics are no failure of this function.
 */
int ini_read(FILE *stream, const char *file, ini_item_fn f, void *data,
             struct diagnostics *diagnostics);
