/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "generation/chain.h"

static bool is_durable(uint32_t phase)
{
        return phase == WEFT_SERVICE || phase == WEFT_MASQUERADE;
}

/* Slot of the first stage from index `from` on that is of `phase` or a later one. */
static uint32_t slot_from(const struct stage *stages, size_t n, size_t from, uint32_t phase,
                          bool known)
{
        for (size_t i = from; i < n; i++)
                if (stages[i].phase >= phase && !(known && is_durable(stages[i].phase)))
                        return WEFT_STAGE_SLOT(stages[i].hook, (uint32_t) i);

        return WEFT_SLOT_FINISH;
}

uint32_t chain_first(const struct stage *stages, size_t n, bool known)
{
        return slot_from(stages, n, 0, WEFT_FILTER, known);
}

size_t chain_early(const struct stage *stages, size_t n)
{
        size_t early = 0;

        while (early < n && stages[early].phase == WEFT_EARLY)
                early++;

        return early;
}

/* The others of its phase, and then the hook's entry; there is no flow yet that could be known. */
static struct chain_slots early_slots(const struct stage *stages, size_t n, size_t i)
{
        uint32_t hook = stages[i].hook, entry = WEFT_ENTRY_SLOT(hook),
                 next = i + 1 < chain_early(stages, n) ? WEFT_STAGE_SLOT(hook, (uint32_t) i + 1)
                                                       : entry;

        return (struct chain_slots) {
                .own = WEFT_STAGE_SLOT(hook, (uint32_t) i),
                .next = next,
                .next_known = next,
                .done = entry,
                .done_known = entry,
        };
}

struct chain_slots chain_slots(const struct stage *stages, size_t n, size_t i)
{
        uint32_t later = stages[i].phase + 1;

        if (stages[i].phase == WEFT_EARLY)
                return early_slots(stages, n, i);

        return (struct chain_slots) {
                .own = WEFT_STAGE_SLOT(stages[i].hook, (uint32_t) i),
                .next = slot_from(stages, n, i + 1, 0, false),
                .next_known = slot_from(stages, n, i + 1, 0, true),
                .done = slot_from(stages, n, i + 1, later, false),
                .done_known = slot_from(stages, n, i + 1, later, true),
        };
}
