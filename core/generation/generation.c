/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Building a generation: read where the stages want to stand, compute the chains, load the engine,
 * then one program for each stage and hook with the slots it goes on to as constants. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "config/option.h"
#include "generation/chain.h"
#include "generation/internal.h"
#include "generation/maps.h"
#include "generation/object.h"
#include "generation/stages.h"
#include "names.h"
#include "plan/plan.h"
#include "util.h"

/* What a build needs besides the generation. */
struct build {
        struct generation *g;
        struct tables *tables;
        const struct generation_settings *settings;
        char *log;
        char btf[32]; /* a file with the engine, whose BTF the stages are relocated against */
};

/* Programs that only the one or the other who encapsulates has a use for; others are not loaded. */
#define IN(mode) (1u << WEFT_TUNNEL_##mode)

static const struct {
        const char *name;
        uint32_t modes; /* of enum weft_tunnel_mode, those that run it: 1 << mode */
} tunnel_programs[] = {
        { "weft_encap", IN(ENGINE) | IN(DEVICE) },
        { "weft_underlay", IN(ENGINE) | IN(DEVICE) },
        { "weft_relay", IN(ENGINE) | IN(DEVICE) },
        { "weft_decap", IN(ENGINE) },
        { "weft_overlay", IN(ENGINE) | IN(WRAP) },
        { "weft_from_overlay", IN(DEVICE) },
        { "weft_to_overlay", IN(DEVICE) },
        { "weft_wrap", IN(WRAP) },
        { "weft_unwrap", IN(WRAP) },
};

static const char *const slot_programs[] = {
#define WEFT_SLOT(name, program) #program,
#include <weft/slots.def>
#undef WEFT_SLOT
};

static struct part *find_part(const struct generation *g, const char *module)
{
        for (size_t i = 0; i < g->n_parts; i++)
                if (strcmp(part_name(&g->parts[i]), module) == 0)
                        return &g->parts[i];

        return NULL;
}

static int open_part(const struct part *p, char *log, const char *btf, struct bpf_object **ret,
                     struct weft_error *reterr)
{
        const struct weft_module *m = &p->instance->module->desc;
        size_t size = (size_t) ((const char *) m->object_end - (const char *) m->object);

        return object_open(m->object, size, m->name, log, btf, ret, reterr);
}

static void object_closep(struct bpf_object **o)
{
        bpf_object__close(*o);
}

/* ---- where the stages stand --------------------------------------------------------------- */

#define EARLY_ABI                                                                                  \
        (1u << 16 | 1u) /* stage ABI whose header knows what becomes of their verdicts             \
                         */

static int place(struct generation *g, const struct part *p, const struct stage_tags *s,
                 uint32_t hook, struct weft_error *reterr)
{
        struct chain *c = &g->chains[hook];

        if (s->phase == WEFT_EARLY && s->abi < EARLY_ABI)
                return weft_fail(reterr, -EPROTO,
                                 "an early stage needs stage ABI 1.1 and it was built for %u.%u; "
                                 "build the module with the headers of this weft",
                                 s->abi >> 16, s->abi & 0xffff);
        if (hook == WEFT_XDP_UPLINK)
                return weft_fail(reterr, -EOPNOTSUPP,
                                 "xdp-uplink only replays: no stage can stand there");
        if (c->n == WEFT_STAGES_PER_HOOK)
                return weft_fail(reterr, -E2BIG, "%s has %d stages already, the most there can be",
                                 hook_names[hook], WEFT_STAGES_PER_HOOK);

        c->stages[c->n++] = (struct stage) {
                .module = part_name(p),
                .name = s->name,
                .hook = hook,
                .phase = s->phase,
                .after = (const char *const *) s->after,
                .before = (const char *const *) s->before,
        };
        return 0;
}

/* enum weft_tunnel_mode. */
static uint32_t tunnel_mode(const struct generation *g)
{
        const struct weft_tunnel_spec *tunnel = generation_tunnel(g);

        if (tunnel)
                return tunnel->mode;

        for (size_t i = 0; i < g->n_parts; i++)
                if (g->parts[i].instance->wraps)
                        return WEFT_TUNNEL_WRAP;

        return WEFT_TUNNEL_NONE;
}

/* Nothing comes out of a tunnel where none is loaded. */
static bool has_hook(const struct generation *g, uint32_t hook)
{
        return hook != WEFT_FROM_OVERLAY || tunnel_mode(g) != WEFT_TUNNEL_NONE;
}

static int place_stages(struct generation *g, const struct part *p, struct weft_error *reterr)
{
        for (size_t i = 0; i < p->list.n; i++)
                for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++) {
                        const struct stage_tags *s = &p->list.items[i];
                        int r = 0;

                        if (s->hooks & 1u << hook && has_hook(g, hook))
                                r = place(g, p, s, hook, reterr);
                        if (r < 0)
                                return weft_fail_in(reterr, r, "module %s, stage %s", part_name(p),
                                                    s->name);
                }

        return 0;
}

static int read_part(struct generation *g, struct part *p, struct weft_error *reterr)
{
        _cleanup_(object_closep) struct bpf_object *o = NULL;
        int r;

        if (!p->instance->module->desc.object)
                return 0;

        r = open_part(p, NULL, NULL, &o, reterr);
        if (r < 0)
                return r;

        r = stages_read(o, &p->list, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "module %s", part_name(p));

        return place_stages(g, p, reterr);
}

static int compute_chains(struct generation *g, struct weft_error *reterr)
{
        for (size_t i = 0; i < g->n_parts; i++) {
                int r = read_part(g, &g->parts[i], reterr);

                if (r < 0)
                        return r;
        }

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++) {
                struct chain *c = &g->chains[hook];
                int r = stages_order(c->stages, c->n, reterr);

                if (r < 0)
                        return weft_fail_in(reterr, r, "%s", hook_names[hook]);
        }

        return 0;
}

/* ---- constants ---------------------------------------------------------------------------- */

struct named_value {
        const char *name;
        const void *value;
        size_t size;
};

static int set_constants(struct bpf_object *o, const struct named_value *v, size_t n,
                         struct weft_error *reterr)
{
        for (size_t i = 0; i < n; i++) {
                int r = object_constant(o, v[i].name, v[i].value, v[i].size);

                if (r < 0)
                        return weft_fail(reterr, r,
                                         "the eBPF object has no constant %s of %zu bytes",
                                         v[i].name, v[i].size);
        }

        return 0;
}

static void widen(struct weft_ports *all, struct weft_ports p)
{
        if (p.high == 0 || p.low > p.high)
                return;

        if (all->high == 0 || p.low < all->low)
                all->low = p.low;
        if (p.high > all->high)
                all->high = p.high;
}

/* All ports that modules give out, and those of them that the node's own connections may take too.
 */
static void ports_given_out(const struct build *b, struct weft_ports *ret_given,
                            struct weft_ports *ret_contested)
{
        *ret_given = *ret_contested = (struct weft_ports) { 0 };

        for (size_t i = 0; i < b->g->n_parts; i++) {
                struct weft_ports p = b->g->parts[i].instance->given_out;

                widen(ret_given, p);
                if (p.low < b->settings->host_ports_low)
                        p.low = b->settings->host_ports_low;
                if (p.high > b->settings->host_ports_high)
                        p.high = b->settings->host_ports_high;
                widen(ret_contested, p);
        }
}

static uint8_t takes_dsr(const struct generation *g)
{
        for (size_t i = 0; i < g->n_parts; i++)
                if (g->parts[i].instance->module->desc.takes_dsr)
                        return 1;

        return 0;
}

static uint8_t must_track(const struct generation *g)
{
        for (size_t i = 0; i < g->n_parts; i++)
                if (g->parts[i].instance->module->desc.tracks_replies)
                        return 1;

        return 0;
}

/* Each CPU's stretch of the half-open rings. */
static uint32_t half_open_stretch(const struct build *b)
{
        struct bpf_map_info info = { 0 };
        uint32_t size = sizeof(info);
        int cpus = libbpf_num_possible_cpus();

        if (bpf_obj_get_info_by_fd(tables_fd(b->tables, "half_open4"), &info, &size) < 0 ||
            cpus < 1)
                return 0;

        return info.max_entries / (uint32_t) cpus;
}

bool generation_serves(const struct generation *g, uint32_t hook)
{
        const struct chain *c = &g->chains[hook];

        for (size_t i = 0; i < c->n; i++)
                if (c->stages[i].phase == WEFT_SERVICE)
                        return true;

        return false;
}

const struct weft_tunnel_spec *generation_tunnel(const struct generation *g)
{
        for (size_t i = 0; i < g->n_parts; i++)
                if (g->parts[i].instance->tunnel.mode != WEFT_TUNNEL_NONE)
                        return &g->parts[i].instance->tunnel;

        return NULL;
}

static void leave_out_tunnel_programs(const struct generation *g)
{
        uint32_t mode = tunnel_mode(g);

        for (size_t i = 0; i < ELEMENTS(tunnel_programs); i++) {
                struct bpf_program *p =
                        bpf_object__find_program_by_name(g->engine, tunnel_programs[i].name);

                if (p && !(tunnel_programs[i].modes & 1u << mode))
                        (void) bpf_program__set_autoload(p, false);
        }
}

static int set_engine_constants(const struct build *b, struct weft_error *reterr)
{
        const struct generation_settings *s = b->settings;
        uint32_t first[WEFT_HOOKS], first_known[WEFT_HOOKS], first_early[WEFT_HOOKS];
        uint8_t has_stages[WEFT_HOOKS], serves[WEFT_HOOKS],
                can_cast = s->can_cast, track = must_track(b->g), dsr = takes_dsr(b->g),
                count_lookups = s->count_lookups;
        const struct weft_tunnel_spec none = { 0 }, *tunnel = generation_tunnel(b->g) ?: &none;
        uint8_t tunnels = (uint8_t) tunnel_mode(b->g), can_decap = s->can_decap;
        uint32_t overlay = s->number % WEFT_OVERLAYS;
        struct weft_ports given, contested;
        uint32_t half_open = half_open_stretch(b);
        const struct named_value values[] = {
                { "weft_generation", &s->number, sizeof(s->number) },
                { "weft_hz", &s->hz, sizeof(s->hz) },
                { "weft_mark", &s->mark_mask, sizeof(s->mark_mask) },
                { "weft_can_cast", &can_cast, sizeof(can_cast) },
                { "weft_count_lookups", &count_lookups, sizeof(count_lookups) },
                { "weft_track", &track, sizeof(track) },
                { "weft_takes_dsr", &dsr, sizeof(dsr) },
                { "weft_host_low", &contested.low, sizeof(contested.low) },
                { "weft_host_high", &contested.high, sizeof(contested.high) },
                { "weft_given_low", &given.low, sizeof(given.low) },
                { "weft_given_high", &given.high, sizeof(given.high) },
                { "weft_first", first, sizeof(first) },
                { "weft_first_known", first_known, sizeof(first_known) },
                { "weft_first_early", first_early, sizeof(first_early) },
                { "weft_has_stages", has_stages, sizeof(has_stages) },
                { "weft_serves", serves, sizeof(serves) },
                { "weft_half_open", &half_open, sizeof(half_open) },
                { "weft_tunnels", &tunnels, sizeof(tunnels) },
                { "weft_header", &tunnel->header, sizeof(tunnel->header) },
                { "weft_overlay_index", &overlay, sizeof(overlay) },
                { "weft_can_decap", &can_decap, sizeof(can_decap) },
        };

        ports_given_out(b, &given, &contested);
        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++) {
                const struct chain *c = &b->g->chains[hook];

                first[hook] = chain_first(c->stages, c->n, false);
                first_known[hook] = chain_first(c->stages, c->n, true);
                first_early[hook] = WEFT_STAGE_SLOT(hook, 0);
                has_stages[hook] = c->n > chain_early(c->stages, c->n);
                serves[hook] = generation_serves(b->g, hook);
        }

        return set_constants(b->g->engine, values, ELEMENTS(values), reterr);
}

/* An option without a constant of its name and size is for user space alone. */
static void set_options(struct bpf_object *o, const struct instance *i)
{
        const struct weft_option *option = i->module->desc.options;
        const void *config = i->next_config ?: i->config;

        for (; option && option->key; option++) {
                size_t size = option_size(option->type);
                char name[64];

                (void) snprintf(name, sizeof(name), "%s", option->key);
                for (char *p = name; *p; p++)
                        if (*p == '-')
                                *p = '_';

                if (size > 0)
                        (void) object_constant(o, name, (const char *) config + option->offset,
                                               size);
        }
}

/* What only the headers that know early stages have. */
static int set_early_constants(struct bpf_object *o, const struct stage *s, uint32_t mark,
                               struct weft_error *reterr)
{
        bool exit = s->hook == WEFT_TO_UPLINK || s->hook == WEFT_TO_ENDPOINT;
        const struct named_value value = { "weft_exit_mark", &mark, sizeof(mark) };

        return s->phase == WEFT_EARLY && exit ? set_constants(o, &value, 1, reterr) : 0;
}

static int set_stage_constants(const struct build *b, struct bpf_object *o,
                               const struct instance *i, const struct chain *c, size_t place,
                               struct weft_error *reterr)
{
        struct chain_slots slots = chain_slots(c->stages, c->n, place);
        uint8_t hook = (uint8_t) c->stages[place].hook;
        const struct named_value values[] = {
                { "weft_next", &slots.next, sizeof(slots.next) },
                { "weft_next_known", &slots.next_known, sizeof(slots.next_known) },
                { "weft_done", &slots.done, sizeof(slots.done) },
                { "weft_done_known", &slots.done_known, sizeof(slots.done_known) },
                { "weft_module_id", &i->id, sizeof(i->id) },
                { "weft_hook_id", &hook, sizeof(hook) },
        };
        int r;

        set_options(o, i);
        r = set_constants(o, values, ELEMENTS(values), reterr);
        if (r >= 0)
                r = set_early_constants(o, &c->stages[place], b->settings->mark_mask, reterr);

        for (size_t n = 0; r >= 0 && n < i->n_constants; n++) {
                const struct constant *own = &i->constants[n];

                r = set_constants(o, &(struct named_value) { own->name, own->value, own->size }, 1,
                                  reterr);
        }

        return r;
}

/* ---- loading ------------------------------------------------------------------------------ */

int generation_put(const struct generation *g, uint32_t slot, int prog_fd,
                   struct weft_error *reterr)
{
        int r = bpf_map_update_elem(generation_chain_fd(g), &slot, &prog_fd, BPF_ANY);

        return r < 0 ? weft_fail(reterr, r, "slot %u of the chain: %s", slot, strerror(-r)) : 0;
}

static int fill_engine_slots(const struct generation *g, struct weft_error *reterr)
{
        for (uint32_t slot = 0; slot < ELEMENTS(slot_programs); slot++) {
                const struct bpf_program *p;
                int r;

                p = bpf_object__find_program_by_name(g->engine, slot_programs[slot]);
                if (!p)
                        return weft_fail(reterr, -ENOENT, "there is no program %s",
                                         slot_programs[slot]);
                if (!bpf_program__autoload(p))
                        continue;

                r = generation_put(g, slot, bpf_program__fd(p), reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int load_engine(const struct build *b, struct weft_error *reterr)
{
        int r;

        r = object_open(b->settings->engine, b->settings->engine_size, "engine", b->log, NULL,
                        &b->g->engine, reterr);
        if (r < 0)
                return r;

        leave_out_tunnel_programs(b->g);
        early_choose_programs(b->g, tunnel_mode(b->g));
        r = set_engine_constants(b, reterr);
        if (r >= 0)
                r = tables_share(b->tables, b->g->engine, reterr);
        if (r >= 0)
                r = object_load(b->g->engine, b->log, reterr);
        if (r >= 0 && generation_chain_fd(b->g) < 0)
                r = weft_fail(reterr, -ENOENT, "there is no map chain");
        if (r >= 0)
                r = fill_engine_slots(b->g, reterr);
        if (r >= 0)
                r = early_fill_slots(b->g, tunnel_mode(b->g), reterr);

        return r < 0 ? weft_fail_in(reterr, r, "the engine") : 0;
}

/* The module's object, outside a self-test: the map is the one that outlives
 * generations, or that of the instance that goes on, or will be made anew. */
static int share_with_before(const struct build *b, struct part *p, const struct bpf_object *o,
                             struct bpf_map *map, int *ret_fd, struct weft_error *reterr)
{
        const struct generation_settings *s = b->settings;
        const struct instance *i = p->instance;
        int r = 0;

        if (s->bpffs)
                r = lasting_map_share(&p->lasting, s->bpffs, i, s->number, o, map, reterr);
        if (r >= 0 && bpf_map__fd(map) < 0 && i->kept && i->object)
                *ret_fd = bpf_object__find_map_fd_by_name(i->object, bpf_map__name(map));

        return r;
}

/* Maps of the engine's names are the engine's, the rest is the module's: one set for all its
 * stages. */
static int share_own_map(const struct build *b, struct part *p, const struct bpf_object *o,
                         struct bpf_map *map, struct weft_error *reterr)
{
        const char *name = bpf_map__name(map);
        int r = 0, fd = bpf_object__find_map_fd_by_name(b->g->engine, name);

        if (fd < 0 && p->object)
                fd = bpf_object__find_map_fd_by_name(p->object, name);
        else if (fd < 0 && b->settings->dry)
                r = map_make_dry(o, map, reterr);
        else if (fd < 0)
                r = share_with_before(b, p, o, map, &fd, reterr);
        if (r < 0)
                return r;

        r = fd < 0 ? 0 : bpf_map__reuse_fd(map, fd);
        return r < 0 ? weft_fail(reterr, r, "map %s: %s", name, strerror(-r)) : 0;
}

static int share_maps(const struct build *b, struct part *p, struct bpf_object *o,
                      struct weft_error *reterr)
{
        struct bpf_map *map;
        int r;

        r = tables_share(b->tables, o, reterr);
        if (r < 0)
                return r;

        bpf_object__for_each_map (map, o) {
                if (bpf_map__fd(map) >= 0 || object_map_is_constants(map))
                        continue;

                r = share_own_map(b, p, o, map, reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

/* A descriptor of its own for a program, which outlives its object. */
static int keep_program(const struct bpf_object *o, const char *name, int *ret_fd,
                        struct weft_error *reterr)
{
        int fd = bpf_program__fd(bpf_object__find_program_by_name(o, name));

        *ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return *ret_fd < 0 ? weft_fail(reterr, -errno, "program %s: %s", name, strerror(errno)) : 0;
}

/* Loads the object with no program but `name` (NULL: none), which stands at place of c. */
static int load_object(const struct build *b, struct part *p, const char *name, struct chain *c,
                       size_t place, struct weft_error *reterr)
{
        _cleanup_(object_closep) struct bpf_object *o = NULL;
        struct bpf_program *program;
        int r;

        r = open_part(p, b->log, b->btf, &o, reterr);
        if (r < 0)
                return r;

        bpf_object__for_each_program (program, o)
                (void) bpf_program__set_autoload(
                        program, name && strcmp(bpf_program__name(program), name) == 0);

        if (name)
                r = set_stage_constants(b, o, p->instance, c, place, reterr);
        if (r >= 0)
                r = share_maps(b, p, o, reterr);
        if (r >= 0)
                r = object_load(o, b->log, reterr);
        if (r >= 0 && name)
                r = keep_program(o, name, &c->fds[place], reterr);
        if (r >= 0 && !p->object)
                p->object = TAKE(o);

        return r;
}

static int load_stage(const struct build *b, struct chain *c, size_t place,
                      struct weft_error *reterr)
{
        const struct stage *s = &c->stages[place];
        int r;

        r = load_object(b, find_part(b->g, s->module), s->name, c, place, reterr);
        if (r >= 0)
                r = generation_put(b->g, chain_slots(c->stages, c->n, place).own, c->fds[place],
                                   reterr);

        return r < 0 ? weft_fail_in(reterr, r, "module %s, stage %s at %s", s->module, s->name,
                                    hook_names[s->hook])
                     : 0;
}

static int load_stages(const struct build *b, struct weft_error *reterr)
{
        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++) {
                struct chain *c = &b->g->chains[hook];

                for (size_t i = 0; i < c->n; i++) {
                        int r = load_stage(b, c, i, reterr);

                        if (r < 0)
                                return r;
                }
        }

        return 0;
}

/* Gives the new instances their object; one that goes on has its own until the takeover. A module
 * with maps and no stage has an object too. */
static int finish_parts(const struct build *b, struct weft_error *reterr)
{
        for (size_t i = 0; i < b->g->n_parts; i++) {
                struct part *p = &b->g->parts[i];
                int r = 0;

                if (!p->object && p->instance->module->desc.object)
                        r = load_object(b, p, NULL, NULL, 0, reterr);
                if (r < 0)
                        return weft_fail_in(reterr, r, "module %s", part_name(p));
        }

        for (size_t i = 0; i < b->g->n_parts; i++)
                if (!b->g->parts[i].instance->kept && !b->g->dry)
                        b->g->parts[i].instance->object = b->g->parts[i].object;

        return 0;
}

static struct generation *generation_new(const struct generation_settings *s,
                                         struct instance *const *modules, size_t n)
{
        struct generation *g = calloc(1, sizeof(*g));

        if (!g)
                return NULL;

        g->number = s->number;
        g->dry = s->dry;
        g->parts = calloc(n + 1, sizeof(*g->parts));
        if (!g->parts)
                return generation_free(g);

        for (; g->n_parts < n; g->n_parts++)
                g->parts[g->n_parts].instance = modules[g->n_parts];

        return g;
}

static void generation_freep(struct generation **g)
{
        (void) generation_free(*g);
}

/* libbpf reads the BTF to relocate against from a file, and ELF will do. */
static int engine_file(const struct generation_settings *s, struct weft_error *reterr)
{
        _cleanup_close_ int fd = memfd_create("weft-engine", MFD_CLOEXEC);

        if (fd < 0 || write(fd, s->engine, s->engine_size) != (ssize_t) s->engine_size)
                return weft_fail(reterr, -errno, "memory for the engine: %s", strerror(errno));

        return TAKE_FD(fd);
}

int generation_build(struct tables *t, const struct generation_settings *s,
                     struct instance *const *modules, size_t n_modules, struct generation **ret,
                     struct weft_error *reterr)
{
        _cleanup_(generation_freep) struct generation *g = generation_new(s, modules, n_modules);
        _cleanup_free_ char *log = calloc(1, OBJECT_LOG_SIZE);
        _cleanup_close_ int engine = engine_file(s, reterr);
        struct build b = { .g = g, .tables = t, .settings = s, .log = log };
        int r;

        if (engine < 0)
                return engine;
        if (!g || !log)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) snprintf(b.btf, sizeof(b.btf), "/proc/self/fd/%d", engine);
        r = compute_chains(g, reterr);
        if (r >= 0)
                r = load_engine(&b, reterr);
        if (r >= 0)
                r = load_stages(&b, reterr);
        if (r >= 0)
                r = finish_parts(&b, reterr);
        if (r < 0)
                return r;

        *ret = TAKE(g);
        return 0;
}

static void part_done(struct part *p, bool dry)
{
        if (!dry && p->instance->object == p->object)
                p->instance->object = NULL;

        bpf_object__close(p->object);
        stages_done(&p->list);
        lasting_maps_done(&p->lasting);
}

struct generation *generation_free(struct generation *g)
{
        if (!g)
                return NULL;

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                for (size_t i = 0; i < g->chains[hook].n; i++)
                        if (g->chains[hook].fds[i] > 0)
                                (void) close(g->chains[hook].fds[i]);

        for (size_t i = 0; i < g->n_parts; i++)
                part_done(&g->parts[i], g->dry);
        free(g->parts);
        bpf_object__close(g->engine);
        free(g);
        return NULL;
}

/* ---- from one to the next ----------------------------------------------------------------- */

int generation_prepare(struct generation *g, struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < g->n_parts; i++)
                if (g->parts[i].object)
                        r = lasting_maps_migrate(&g->parts[i].lasting, g->parts[i].instance,
                                                 g->parts[i].object, reterr);
        for (size_t i = 0; r >= 0 && i < g->n_parts; i++)
                if (!g->parts[i].instance->kept)
                        r = instance_prepare(g->parts[i].instance, reterr);

        return r;
}

void generation_takeover(struct generation *g)
{
        for (size_t i = 0; i < g->n_parts; i++) {
                g->parts[i].instance->object = g->parts[i].object;
                instance_takeover(g->parts[i].instance);
        }
}

int generation_pin_maps(const struct generation *g, const char *bpffs, struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < g->n_parts; i++)
                if (g->parts[i].object)
                        r = lasting_maps_pin(&g->parts[i].lasting, bpffs, g->parts[i].object,
                                             reterr);

        return r;
}

bool generation_has_pin(const struct generation *g, const char *module, const char *pin)
{
        const struct part *p = find_part(g, module);

        return p && lasting_maps_have(&p->lasting, pin);
}
