/* SPDX-License-Identifier: LGPL-2.1-or-later OR GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Destination ports that the watcher looks at, and what it makes of them. */
enum {
        WATCH_FIRST = 7000,
        WATCH_NEXT = WATCH_FIRST,
        WATCH_DROP,
        WATCH_DROP_OWN,
        WATCH_REJECT,
        WATCH_PASS,
        WATCH_DONE,
        WATCH_TRACK,
        WATCH_PING,
        WATCH_NONSENSE,
        WATCH_PLAN,
        WATCH_WRITE, /* the port becomes the next one */
        WATCH_WRITTEN,
        WATCH_LAST = WATCH_WRITTEN,
};

/* Where in the mark its first stage puts what it saw, beside weft's own bit. */
enum {
        SEEN_FRAGMENT = 0,
        SEEN_HOOK = 2, /* + 1 */
        SEEN_PROTO = 12,
        SEEN_FAMILY = 20,
};
#define SEEN_TWICE 0x80000000u /* the second stage has seen it */
