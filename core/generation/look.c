/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Looking at a generation: its programs, who is behind a number, the rows of its chains. */

#include <errno.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "generation/internal.h"

/* The engine's own programs. */
static const char *const hook_programs[WEFT_HOOKS] = {
        [WEFT_FROM_ENDPOINT] = "weft_from_endpoint", [WEFT_TO_ENDPOINT] = "weft_to_endpoint",
        [WEFT_FROM_UPLINK] = "weft_from_uplink",     [WEFT_TO_UPLINK] = "weft_to_uplink",
        [WEFT_FROM_OVERLAY] = "weft_from_overlay",   [WEFT_XDP_UPLINK] = "weft_xdp",
};

uint32_t generation_number(const struct generation *g)
{
        return g->number;
}

int generation_chain_fd(const struct generation *g)
{
        return bpf_object__find_map_fd_by_name(g->engine, "chain");
}

int generation_hook_fd(const struct generation *g, uint32_t hook)
{
        const char *name = hook < WEFT_HOOKS ? hook_programs[hook] : NULL;
        const struct bpf_program *p =
                name ? bpf_object__find_program_by_name(g->engine, name) : NULL;

        return p && bpf_program__autoload(p) ? bpf_program__fd(p) : -ENOENT;
}

int generation_overlay_fd(const struct generation *g)
{
        const struct bpf_program *p =
                bpf_object__find_program_by_name(g->engine, "weft_to_overlay");

        return p && bpf_program__autoload(p) ? bpf_program__fd(p) : -ENOENT;
}

const char *generation_module_name(const struct generation *g, uint16_t id)
{
        if (id == 0)
                return "engine";

        for (size_t i = 0; i < g->n_parts; i++)
                if (g->parts[i].instance->id == id)
                        return part_name(&g->parts[i]);

        return NULL;
}

const struct bpf_object *generation_object(const struct generation *g, size_t i)
{
        return g->parts[i].object;
}

static void fill_row(struct chain_row *row, int prog_fd)
{
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof(info);

        if (bpf_obj_get_info_by_fd(prog_fd, &info, &size) < 0)
                return;

        row->prog_id = info.id;
        row->run_count = info.run_cnt;
}

static size_t hook_rows(const struct generation *g, uint32_t hook, struct chain_row *rows,
                        size_t max)
{
        const struct chain *c = &g->chains[hook];
        int entry = generation_hook_fd(g, hook);
        size_t n = 0;

        if (entry >= 0 && n < max) {
                rows[n] = (struct chain_row) { .hook = hook,
                                               .phase = WEFT_PHASES,
                                               .module = "engine",
                                               .stage = hook_programs[hook] };
                fill_row(&rows[n++], entry);
        }

        for (size_t i = 0; i < c->n && n < max; i++) {
                rows[n] = (struct chain_row) { .hook = hook,
                                               .phase = c->stages[i].phase,
                                               .module = c->stages[i].module,
                                               .stage = c->stages[i].name };
                fill_row(&rows[n++], c->fds[i]);
        }

        return n;
}

size_t generation_chain(const struct generation *g, struct chain_row *rows, size_t max)
{
        size_t n = 0;

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                n += hook_rows(g, hook, rows + n, max - n);

        return n;
}
