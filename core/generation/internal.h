/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a generation is made of, for those who build it and those who look at it. */

#include "generation/generation.h"
#include "generation/maps.h"
#include "generation/stages.h"
#include "module/module.h"
#include "plan/plan.h"

/* One module's share: what its stages say, and its object, which knows the module's maps. It is
 * loaded anew for each stage and hook; of the later ones only the program is kept. */
struct part {
        struct instance *instance;
        struct stage_list list;
        struct bpf_object *object;
        struct lasting_maps lasting;
};

struct chain {
        struct stage stages[WEFT_STAGES_PER_HOOK]; /* in order; strings point into the parts */
        int fds[WEFT_STAGES_PER_HOOK];             /* of the programs; owned */
        size_t n;
};

struct generation {
        uint32_t number;
        bool dry; /* its objects are no instance's; built beside the one that has them */
        struct bpf_object *engine;
        struct part *parts;
        size_t n_parts;
        struct chain chains[WEFT_HOOKS];
};

static inline const char *part_name(const struct part *p)
{
        return p->instance->module->desc.name;
}
