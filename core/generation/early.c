/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Stages of phase EARLY: they stand first in their hook's chain, begin in a program of the engine
 * that is there for them alone, and go on to the hook's entry, which stands in a slot then. */

#include <errno.h>

#include <bpf/libbpf.h>

#include "generation/chain.h"
#include "generation/internal.h"
#include "names.h"
#include "util.h"

/* What a hook begins with, and where its early stages go on to. */
static const struct {
        const char *first, *entry;
} programs[WEFT_HOOKS] = {
        [WEFT_FROM_ENDPOINT] = { "weft_early_from_endpoint", "weft_from_endpoint" },
        [WEFT_TO_ENDPOINT] = { "weft_early_to_endpoint", "weft_to_endpoint" },
        [WEFT_FROM_UPLINK] = { "weft_early_from_uplink", "weft_from_uplink" },
        [WEFT_TO_UPLINK] = { "weft_early_to_uplink", "weft_to_uplink" },
        [WEFT_FROM_OVERLAY] = { "weft_early_from_overlay", "weft_overlay" },
};

static const char overlay_program[] = "weft_early_overlay", pass_program[] = "weft_xdp_pass";

bool generation_sees_all(const struct generation *g, uint32_t hook)
{
        return chain_early(g->chains[hook].stages, g->chains[hook].n) > 0;
}

bool generation_replays_in_xdp(const struct generation *g)
{
        /* what XDP sends passes neither of them */
        return !generation_sees_all(g, WEFT_FROM_UPLINK) && !generation_sees_all(g, WEFT_TO_UPLINK);
}

const char *early_program(const struct generation *g, uint32_t hook)
{
        if (hook == WEFT_XDP_UPLINK)
                return generation_replays_in_xdp(g) ? NULL : pass_program;

        return generation_sees_all(g, hook) ? programs[hook].first : NULL;
}

const char *early_entry(const struct generation *g, uint32_t hook)
{
        return generation_sees_all(g, hook) ? programs[hook].entry : NULL;
}

static void set_autoload(const struct generation *g, const char *name, bool wanted)
{
        struct bpf_program *p = bpf_object__find_program_by_name(g->engine, name);

        if (p)
                (void) bpf_program__set_autoload(p, wanted);
}

void early_choose_programs(const struct generation *g, uint32_t tunnel_mode)
{
        bool overlay = generation_sees_all(g, WEFT_FROM_OVERLAY),
             device = tunnel_mode == WEFT_TUNNEL_DEVICE;

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                if (programs[hook].first)
                        set_autoload(g, programs[hook].first, generation_sees_all(g, hook));
        set_autoload(g, programs[WEFT_FROM_OVERLAY].first, overlay && device);
        set_autoload(g, overlay_program, overlay && !device);
        set_autoload(g, pass_program, !generation_replays_in_xdp(g));
        if (overlay) {
                set_autoload(g, "weft_from_overlay", false);
                set_autoload(g, programs[WEFT_FROM_OVERLAY].entry, true);
        }
}

static int put_program(const struct generation *g, uint32_t slot, const char *name,
                       struct weft_error *reterr)
{
        const struct bpf_program *p = bpf_object__find_program_by_name(g->engine, name);

        return p ? generation_put(g, slot, bpf_program__fd(p), reterr)
                 : weft_fail(reterr, -ENOENT, "there is no program %s", name);
}

int early_fill_slots(const struct generation *g, uint32_t tunnel_mode, struct weft_error *reterr)
{
        int r = 0;

        for (uint32_t hook = 0; r >= 0 && hook < WEFT_HOOKS; hook++)
                if (generation_sees_all(g, hook))
                        r = put_program(g, WEFT_ENTRY_SLOT(hook), programs[hook].entry, reterr);
        if (r >= 0 && generation_sees_all(g, WEFT_FROM_OVERLAY) &&
            tunnel_mode != WEFT_TUNNEL_DEVICE)
                r = put_program(g, WEFT_SLOT_OVERLAY, overlay_program, reterr);

        return r;
}
