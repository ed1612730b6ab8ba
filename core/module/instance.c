/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One module in one generation: its settings, and the calls of its callbacks. */

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "config/option.h"
#include "generation/maps.h"
#include "generation/object.h"
#include "generation/stages.h"
#include "module/api.h"
#include "module/crashes.h"
#include "module/module.h"
#include "util.h"

static struct weft_instance *self(struct instance *i)
{
        return (struct weft_instance *) i;
}

/* Whoever finds the marker afterwards knows whose code this process ended in. */
static void enter(const struct instance *i, const char *callback)
{
        crashes_enter(i->module->desc.name, i->module->sum, callback);
}

/* A callback that failed: its reason, with the module and what it was doing. */
static int fail_callback(const struct instance *i, const char *what, int r,
                         const struct weft_error *why, struct weft_error *reterr)
{
        return weft_fail(reterr, r, "module %s, %s: %.400s", i->module->desc.name, what,
                         why->text[0] ? why->text : strerror(-r));
}

static int call(struct instance *i, const char *what,
                int (*f)(struct weft_instance *, const struct weft_api *, struct weft_error *),
                struct weft_error *reterr)
{
        struct weft_error why = { 0 };
        int r;

        if (!f)
                return 0;

        enter(i, what);
        r = f(self(i), &core_api, &why);
        crashes_leave();
        return r < 0 ? fail_callback(i, what, r, &why, reterr) : 0;
}

static void instance_freep(struct instance **i)
{
        (void) instance_free(*i);
}

/* The options of section as a config struct of the module; *ret is to be freed in any case. */
static int fill_config(const struct weft_module *m, const struct config_module *section,
                       struct diagnostics *d, void **ret, struct weft_error *reterr)
{
        char name[64];
        int r;

        *ret = calloc(1, m->config_size + 1);
        if (!*ret)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) snprintf(name, sizeof(name), "module %s", m->name);
        r = options_fill(m->options, *ret, name, section ? section->assignments : NULL,
                         section ? section->n_assignments : 0, d);

        return r < 0 ? weft_fail(reterr, r, "[%s] has settings that are not valid", name) : 0;
}

int instance_new(struct module *m, uint16_t id, const struct config_module *section,
                 const struct core_services *services, struct diagnostics *diagnostics,
                 struct instance **ret, struct weft_error *reterr)
{
        _cleanup_(instance_freep) struct instance *i = NULL;
        int r;

        i = calloc(1, sizeof(*i));
        if (!i)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        i->module = m;
        i->id = id;
        i->services = services;
        i->refs = 1;
        r = fill_config(&m->desc, section, diagnostics, &i->config, reterr);
        if (r < 0)
                return r;

        r = call(i, "configure", m->desc.configure, reterr);
        if (r < 0 && section && reterr) {
                diagnostics_add(diagnostics, &section->origin, "[module %s]: %s", m->desc.name,
                                reterr->text);
                return weft_fail(reterr, r, "[module %s] has settings that are not valid",
                                 m->desc.name);
        }
        if (r < 0)
                return r;

        *ret = TAKE(i);
        return 0;
}

static void free_constants(struct instance *i)
{
        for (size_t n = 0; n < i->n_constants; n++) {
                free(i->constants[n].name);
                free(i->constants[n].value);
        }
        free(i->constants);
}

static void free_config(const struct instance *i, void *config)
{
        if (config)
                options_free(i->module->desc.options, config);
        free(config);
}

struct instance *instance_free(struct instance *i)
{
        if (!i || --i->refs > 0)
                return NULL;

        instance_detach(i);
        if (i->module->desc.unload) {
                enter(i, "unload");
                i->module->desc.unload(self(i), &core_api);
                crashes_leave();
        }

        free_constants(i);
        free_config(i, i->config);
        free_config(i, i->next_config);
        free(i->routes);
        free(i->table);
        free(i->native.items);
        free(i);
        return NULL;
}

/* Whoever reads them takes 64 bits for each name. */
static int check_counters(const struct bpf_object *o, const struct weft_named *counters,
                          struct weft_error *reterr)
{
        const struct bpf_map *map = bpf_object__find_map_by_name(o, "counters");
        uint32_t n = 0;

        while (counters && counters[n].name)
                n++;
        if (n == 0)
                return 0;
        if (!map)
                return weft_fail(reterr, -EPROTO,
                                 "it names counters, and its object has no map \"counters\"");
        if (bpf_map__type(map) != BPF_MAP_TYPE_PERCPU_ARRAY ||
            bpf_map__value_size(map) != sizeof(uint64_t) || bpf_map__max_entries(map) < n)
                return weft_fail(reterr, -EPROTO,
                                 "map counters must be a per-CPU array of 64-bit words, and have "
                                 "one for each of the %u names",
                                 n);

        return 0;
}

/* What can be said of the object without a kernel, so that weftctl check says it as well. */
static int check_object(const struct weft_module *m, const struct bpf_object *o,
                        struct weft_error *reterr)
{
        _cleanup_(stages_done) struct stage_list stages = { 0 };
        const struct bpf_map *map;
        struct map_tag tag;
        int r = stages_read(o, &stages, reterr);

        if (r == 0)
                r = check_counters(o, m->counters, reterr);
        bpf_object__for_each_map (map, o)
                if (r == 0)
                        r = map_tag_read(o, bpf_map__name(map), &tag, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "module %s", m->name) : 0;
}

/* The object is open while load runs, so that weft_api.constant() can say what is wrong at once. */
int instance_load(struct instance *i, struct weft_error *reterr)
{
        const struct weft_module *m = &i->module->desc;
        int r;

        if (m->object) {
                r = object_open(m->object,
                                (size_t) ((const char *) m->object_end - (const char *) m->object),
                                m->name, NULL, NULL, &i->opened, reterr);
                if (r < 0)
                        return r;
        }

        r = m->object ? check_object(m, i->opened, reterr) : 0;
        if (r == 0)
                r = call(i, "load", m->load, reterr);

        bpf_object__close(i->opened);
        i->opened = NULL;
        return r;
}

int instance_attach(struct instance *i, struct weft_error *reterr)
{
        /* Before the call: an attach that fails half-way is undone by detach. */
        i->attached = true;

        return call(i, "attach", i->module->desc.attach, reterr);
}

int instance_event(struct instance *i, const struct weft_module_event *e, struct weft_error *reterr)
{
        struct weft_error why = { 0 };
        int r;

        if (!i->module->desc.event)
                return 0;

        enter(i, "event");
        r = i->module->desc.event(self(i), &core_api, e, &why);
        crashes_leave();
        i->degraded |= r < 0;
        return r < 0 ? fail_callback(i, "event", r, &why, reterr) : 0;
}

void instance_detach(struct instance *i)
{
        if (!i->attached)
                return;

        if (i->module->desc.detach) {
                enter(i, "detach");
                i->module->desc.detach(self(i), &core_api);
                crashes_leave();
        }

        while (i->n_routes > 0)
                i->services->unroute(i->services->data, &i->routes[--i->n_routes]);
        instance_drop_table(i);
        i->attached = false;
}

/* ---- status ------------------------------------------------------------------------------- */

/* The text in the making: phrases, joined by "; ". */
struct status {
        FILE *f;
        bool any;
};

__attribute__((format(printf, 2, 3))) static void say(struct status *s, const char *format, ...)
{
        va_list ap;

        if (s->any)
                (void) fputs("; ", s->f);
        va_start(ap, format);
        (void) vfprintf(s->f, format, ap);
        va_end(ap);
        s->any = true;
}

static void say_count(struct status *s, size_t n, const char *what, const char *plural)
{
        if (n > 0)
                say(s, "%zu %s%s", n, what, n == 1 ? "" : plural);
}

static void say_held(struct status *s, const struct instance *i)
{
        if (i->tunnel.mode != WEFT_TUNNEL_NONE)
                say(s, "UDP port %u, by %s", ntohs(i->tunnel.header.port),
                    i->tunnel.mode == WEFT_TUNNEL_DEVICE ? "a device of the kernel"
                                                         : "weft's programs");
        if (i->node_ports.high > 0)
                say(s, "node ports %u-%u", i->node_ports.low, i->node_ports.high);
        if (i->given_out.high > 0)
                say(s, "source ports %u-%u", i->given_out.low, i->given_out.high);
        say_count(s, i->native.n, "native prefix", "es");
        say_count(s, i->n_routes, "route", "s");
        if (i->table)
                say(s, "table inet weft-%s of nftables", i->module->desc.name);
}

static void say_own(struct status *s, struct instance *i)
{
        char own[256] = "";

        if (!i->module->desc.status)
                return;

        enter(i, "status");
        i->module->desc.status(self(i), &core_api, own, sizeof(own));
        crashes_leave();
        own[sizeof(own) - 1] = '\0';
        if (own[0] != '\0')
                say(s, "%s", own);
}

char *instance_status(struct instance *i)
{
        struct status s = { 0 };
        char *text = NULL;
        size_t size;

        s.f = open_memstream(&text, &size);
        if (!s.f)
                return NULL;

        say_held(&s, i);
        say_own(&s, i);
        if (fclose(s.f) == 0)
                return text;

        free(text);
        return NULL;
}

/* ---- reload ------------------------------------------------------------------------------- */

static bool same_list(const void *a, size_t n, const void *b, size_t m, size_t size)
{
        return n == m && (n == 0 || memcmp(a, b, n * size) == 0);
}

static bool same_option(const struct weft_option *o, const void *a, const void *b)
{
        const struct weft_prefixes *p = a, *q = b;
        const struct weft_addresses *v = a, *w = b;
        const char *const *s = a, *const *t = b;

        switch (o->type) {
        case WEFT_TYPE_STRING:
                return *s == *t || (*s && *t && strcmp(*s, *t) == 0);
        case WEFT_TYPE_PREFIXES:
                return same_list(p->items, p->n, q->items, q->n, sizeof(*p->items));
        case WEFT_TYPE_ADDRESSES:
                return same_list(v->items, v->n, w->items, w->n, sizeof(*v->items));
        default:
                return memcmp(a, b, option_size(o->type)) == 0;
        }
}

static bool same_options(const struct weft_option *o, const void *a, const void *b)
{
        for (; o && o->key; o++)
                if (!same_option(o, (const char *) a + o->offset, (const char *) b + o->offset))
                        return false;

        return true;
}

static int ask(struct instance *i, const void *config, struct weft_error *reterr)
{
        const struct weft_module *m = &i->module->desc;
        struct weft_error why = { 0 };
        int r;

        if (same_options(m->options, i->config, config))
                return INSTANCE_KEPT;
        if (!m->reconfigure)
                return INSTANCE_REPLACED;

        enter(i, "reconfigure");
        r = m->reconfigure(self(i), &core_api, config, &why);
        crashes_leave();
        if (r < 0)
                return fail_callback(i, "reconfigure", r, &why, reterr);

        return r == WEFT_DONE_LIVE ? INSTANCE_RECONFIGURED : INSTANCE_REPLACED;
}

int instance_ask(struct instance *i, const struct config_module *section,
                 struct diagnostics *diagnostics, struct weft_error *reterr)
{
        void *config = NULL;
        int r = fill_config(&i->module->desc, section, diagnostics, &config, reterr);

        if (r >= 0)
                r = ask(i, config, reterr);
        if (r == INSTANCE_RECONFIGURED)
                i->next_config = TAKE(config);

        free_config(i, config);
        return r;
}

void instance_ask_undo(struct instance *i)
{
        free_config(i, i->next_config);
        i->next_config = NULL;
        i->kept = false;
}

int instance_prepare(struct instance *i, struct weft_error *reterr)
{
        struct weft_error why = { 0 };
        int r;

        if (!i->module->desc.prepare)
                return 0;

        enter(i, "prepare");
        r = i->module->desc.prepare(self(i), &core_api, (struct weft_instance *) i->old, &why);
        crashes_leave();
        return r < 0 ? fail_callback(i, "prepare", r, &why, reterr) : 0;
}

void instance_takeover(struct instance *i)
{
        bool reconfigured = i->next_config;
        void *config = i->config;

        if (reconfigured) {
                i->config = TAKE(i->next_config);
                i->old = i;
        }
        if (i->module->desc.takeover && (reconfigured || !i->kept)) {
                enter(i, "takeover");
                i->module->desc.takeover(self(i), &core_api, (struct weft_instance *) i->old);
                crashes_leave();
        }
        if (reconfigured)
                free_config(i, config);

        i->old = NULL;
        i->kept = false;
}

int instance_migrate(struct instance *i, const char *map, unsigned from_version, int old_fd,
                     int new_fd, struct weft_error *reterr)
{
        struct weft_error why = { 0 };
        int r;

        enter(i, "migrate");
        r = i->module->desc.migrate(self(i), &core_api, map, from_version, old_fd, new_fd, &why);
        crashes_leave();
        return r < 0 ? fail_callback(i, "migrate", r, &why, reterr) : 0;
}
