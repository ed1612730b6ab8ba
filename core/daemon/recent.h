/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What was dropped in the last minute: snapshots of the counters, one every few seconds. */

#include <stddef.h>
#include <stdint.h>

#include "tables/tables.h"

enum { RECENT_SECONDS = 60, RECENT_STEP_SECONDS = 5, RECENT_SNAPSHOTS = 14 };

struct recent_count {
        const char *what;
        uint32_t hook;
        uint16_t module;
        uint64_t packets;
};

struct recent_snapshot {
        uint64_t when; /* CLOCK_MONOTONIC microseconds */
        struct recent_count *items;
        size_t n;
};

struct recent {
        struct recent_snapshot ring[RECENT_SNAPSHOTS];
        size_t next, n;
};

/* Begins the snapshot of now, in place of the oldest one; recent_add() fills it. */
void recent_begin(struct recent *r, uint64_t now);
void recent_add(struct recent *r, const struct count_view *v);

/* How many of the counter's packets are of the last minute, or, as long as there is no snapshot so
 * old, since the oldest. */
uint64_t recent_packets(const struct recent *r, const struct count_view *v, uint64_t now);
void recent_done(struct recent *r);
