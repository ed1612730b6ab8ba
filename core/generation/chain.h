/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* From ordered stages to slots of the prog array. Pure. */

#include <stddef.h>
#include <stdint.h>

#include "plan/plan.h"

/* Where a stage goes on; the constants of the same names with "weft_" before. "known": for flows
 * that are decided again and skip SERVICE and MASQUERADE. WEFT_SLOT_FINISH: nothing is left. Of an
 * early stage WEFT_ENTRY_SLOT() is. */
struct chain_slots {
        uint32_t own, next, next_known, done, done_known;
};

/* How many of an ordered chain are early stages: they come first. */
size_t chain_early(const struct stage *stages, size_t n);

/* Slot of the first stage of an ordered chain of one hook that is no early one, or
 * WEFT_SLOT_FINISH. */
uint32_t chain_first(const struct stage *stages, size_t n, bool known);

/* Slots of stage i of an ordered chain of one hook. */
struct chain_slots chain_slots(const struct stage *stages, size_t n, size_t i);
