/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which modules brought the daemon down. While a callback runs, RUN/callback holds one line that
 * names the module, the sum of its file and the callback; outside of callbacks it is empty. What a
 * predecessor left there is added to RUN/crashes, which says how often each file did it; a file
 * with other content begins anew. */

#include <stdint.h>

#include "error.h"

enum { CRASHES_MAX = 2, CRASH_TEXT = 128 };

/* Opens the marker and counts what a predecessor left. *ret: "MODULE SUM CALLBACK" of that, or "".
 * Once for a process, which holds the lock of RUN. */
int crashes_open(const char *run, char ret[CRASH_TEXT], struct weft_error *reterr);
void crashes_close(void);

/* Around each callback; without an open marker, nothing. They do not nest. */
void crashes_enter(const char *module, uint64_t sum, const char *callback);
void crashes_leave(void);

/* How often this file brought a daemon down. callback: what ran the last time. */
unsigned crashes_of(const char *run, const char *module, uint64_t sum, char callback[CRASH_TEXT]);
