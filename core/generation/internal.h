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

/* Puts a program into the prog array. */
int generation_put(const struct generation *g, uint32_t slot, int prog_fd,
                   struct weft_error *reterr);

/* ---- early.c: stages that see every packet ------------------------------------------------ */

/* The engine's program that a hook begins with because of them; NULL: the hook's own. */
const char *early_program(const struct generation *g, uint32_t hook);
/* The entry that they go on to; NULL: there are none. */
const char *early_entry(const struct generation *g, uint32_t hook);
/* Before the engine is loaded: which programs of its early chain are. tunnel_mode: of enum
 * weft_tunnel_mode. */
void early_choose_programs(const struct generation *g, uint32_t tunnel_mode);
/* After: entries that they go on to. */
int early_fill_slots(const struct generation *g, uint32_t tunnel_mode, struct weft_error *reterr);
