/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Looking at a generation: its programs, who is behind a number, the rows of its chains. */

#include <errno.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "generation/chain.h"
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

static int engine_program_fd(const struct generation *g, const char *name)
{
        const struct bpf_program *p = bpf_object__find_program_by_name(g->engine, name);

        return p && bpf_program__autoload(p) ? bpf_program__fd(p) : -ENOENT;
}

int generation_hook_fd(const struct generation *g, uint32_t hook)
{
        if (hook >= WEFT_HOOKS)
                return -ENOENT;

        return engine_program_fd(g, early_program(g, hook) ?: hook_programs[hook]);
}

int generation_overlay_fd(const struct generation *g)
{
        return engine_program_fd(g, "weft_to_overlay");
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

/* Rows of one call of generation_chain(). */
struct rows {
        struct chain_row *items;
        size_t n, max;
};

static void add_row(struct rows *rows, const struct chain_row *row, int prog_fd)
{
        if (prog_fd < 0 || rows->n == rows->max)
                return;

        rows->items[rows->n] = *row;
        fill_row(&rows->items[rows->n++], prog_fd);
}

static void add_engine(const struct generation *g, struct rows *rows, uint32_t hook, uint32_t phase,
                       const char *program)
{
        add_row(rows,
                &(struct chain_row) { .hook = hook,
                                      .phase = phase,
                                      .module = "engine",
                                      .stage = program,
                                      .engine = true },
                engine_program_fd(g, program));
}

static void add_stages(struct rows *rows, const struct chain *c, size_t from, size_t to)
{
        for (size_t i = from; i < to; i++)
                add_row(rows,
                        &(struct chain_row) { .hook = c->stages[i].hook,
                                              .phase = c->stages[i].phase,
                                              .module = c->stages[i].module,
                                              .stage = c->stages[i].name },
                        c->fds[i]);
}

/* As a packet meets them. */
static void add_hook(const struct generation *g, uint32_t hook, struct rows *rows)
{
        const struct chain *c = &g->chains[hook];
        size_t early = chain_early(c->stages, c->n);

        if (early > 0) {
                add_engine(g, rows, hook, WEFT_EARLY, early_program(g, hook));
                add_stages(rows, c, 0, early);
        }
        add_engine(g, rows, hook, WEFT_PHASES, early_entry(g, hook) ?: hook_programs[hook]);
        add_stages(rows, c, early, c->n);
}

size_t generation_chain(const struct generation *g, struct chain_row *rows, size_t max)
{
        struct rows all = { .items = rows, .max = max };

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                if (hook != WEFT_XDP_UPLINK || generation_replays_in_xdp(g))
                        add_hook(g, hook, &all);

        return all.n;
}
