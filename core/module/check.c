/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/nearest.h"
#include "config/values.h"
#include "module/check.h"
#include "plan/plan.h"
#include "util.h"

enum { FACTS_MAX = 256 };

struct check {
        const struct config *config;
        const char *const *dirs;
        struct diagnostics *diagnostics;
        struct module_set modules;
        struct instance *instances[MODULES_MAX];
        size_t n_instances;
};

const struct config_module *config_module_find(const struct config *c, const char *name)
{
        for (size_t i = 0; i < c->n_modules; i++)
                if (strcmp(c->modules[i].name, name) == 0)
                        return &c->modules[i];

        return NULL;
}

/* ---- files -------------------------------------------------------------------------------- */

/* ", did you mean [module NAME]?" where there is a file of such a name. */
static void add_unknown(struct check *c, const struct config_module *section, const char *why)
{
        struct nearest near = { .word = section->name };
        struct strings names = {};

        if (module_names(c->dirs, &names) == 0)
                for (size_t i = 0; i < names.n; i++)
                        nearest_try(&near, names.items[i]);

        diagnostics_add(c->diagnostics, &section->origin, "[module %s]: %s%s%s%s", section->name,
                        why, near.best ? "; did you mean [module " : "", near.best ?: "",
                        near.best ? "]?" : "");
        strings_done(&names);
}

static void open_modules(struct check *c)
{
        for (size_t i = 0; i < c->config->n_modules; i++) {
                const struct config_module *section = &c->config->modules[i];
                struct weft_error why = {};
                int r = section->enabled
                                ? module_set_open(&c->modules, c->dirs, section->name, NULL, &why)
                                : 0;

                if (r == -ENOENT)
                        add_unknown(c, section, why.text);
                else if (r < 0)
                        diagnostics_add(c->diagnostics, &section->origin, "[module %s]: %s",
                                        section->name, why.text);
        }
}

/* ---- which of them go together ------------------------------------------------------------ */

/* A kernel that has everything anybody asks for: what it lacks is another matter. */
static size_t all_facts(const struct module_set *s, struct fact *ret)
{
        size_t n = 0;

        for (size_t i = 0; i < s->n; i++)
                for (const struct weft_need *need = s->items[i]->desc.needs; need && need->kind;
                     need++)
                        if (n < FACTS_MAX)
                                ret[n++] = (struct fact) { need->kind, need->name, true };

        return n;
}

/* The plan of the first n sections. */
static int plan(const struct check *c, size_t n, struct plan_row *rows, size_t *ret_n,
                struct weft_error *reterr)
{
        const struct weft_module *named[MODULES_MAX], *available[MODULES_MAX];
        struct fact facts[FACTS_MAX];
        struct plan_input input = {
                .named = named,
                .available = available,
                .n_available = c->modules.n,
                .facts = facts,
                .n_facts = all_facts(&c->modules, facts),
                .mode = c->config->mode,
                .by_peer = config_routes_by_peer(c->config),
        };

        for (size_t i = 0; i < c->modules.n; i++)
                available[i] = &c->modules.items[i]->desc;
        for (size_t i = 0; i < n && input.n_named < MODULES_MAX; i++) {
                const struct config_module *section = &c->config->modules[i];
                const struct module *m = module_set_find(&c->modules, section->name);

                if (section->enabled && m)
                        named[input.n_named++] = &m->desc;
        }

        return plan_modules(&input, rows, ret_n, reterr);
}

/* Of two that exclude each other the later one is at fault: the first with which what stands before
 * it does not go together. Anything else begins with the name of its module. */
static const struct config_module *guilty(const struct check *c, int error, const char *why)
{
        struct plan_row rows[MODULES_MAX];
        struct weft_error ignored;
        size_t n_rows;

        for (size_t i = 0; i < c->config->n_modules; i++) {
                const struct config_module *section = &c->config->modules[i];
                size_t n = strlen(section->name);

                if (error == -EEXIST
                            ? plan(c, i + 1, rows, &n_rows, &ignored) == error
                            : strncmp(why, "module ", 7) == 0 &&
                                      strncmp(why + 7, section->name, n) == 0 && why[7 + n] == ' ')
                        return section;
        }

        return &c->config->modules[0];
}

/* Puts the modules into the order of the plan: one that others need comes before them. */
static void check_plan(struct check *c)
{
        struct plan_row rows[MODULES_MAX];
        const struct config_module *section;
        struct weft_error why = {};
        size_t n_rows;
        int r = plan(c, c->config->n_modules, rows, &n_rows, &why);

        for (size_t i = 0; r >= 0 && i < n_rows; i++)
                for (size_t k = i; k < c->modules.n; k++)
                        if (&c->modules.items[k]->desc == rows[i].module)
                                SWAP(c->modules.items[i], c->modules.items[k]);
        if (r >= 0)
                return;

        section = guilty(c, r, why.text);
        diagnostics_add(c->diagnostics, &section->origin, "[module %s]: %s", section->name,
                        why.text);
}

/* ---- what they say of their settings ------------------------------------------------------ */

static void no_log(void *data, const char *module, int level, const char *text)
{
        (void) data;
        (void) module;
        (void) level;
        (void) text;
}

static int no_route(void *data, const struct weft_prefix *prefix, const struct weft_addr *gateway,
                    struct weft_error *reterr)
{
        (void) data;
        (void) prefix;
        (void) gateway;
        (void) reterr;
        return 0;
}

static void no_unroute(void *data, const struct weft_prefix *prefix)
{
        (void) data;
        (void) prefix;
}

static void check_peers(void *data, void (*f)(void *, const struct weft_peer_info *), void *f_data)
{
        const struct check *c = data;

        config_each_peer(c->config, f, f_data);
}

static void check_prefixes(void *data, void (*f)(void *, const struct weft_prefix *), void *f_data)
{
        const struct check *c = data;

        config_each_cluster_prefix(c->config, f, f_data);
}

static const struct weft_prefixes *check_native_prefixes(void *data, const char *module)
{
        const struct check *c = data;

        for (size_t i = 0; i < c->n_instances; i++)
                if (strcmp(c->instances[i]->module->desc.name, module) == 0)
                        return &c->instances[i]->native;

        return NULL;
}

static bool check_runs(void *data, const char *module)
{
        const struct check *c = data;

        return module_set_find(&c->modules, module) != NULL;
}

static bool is_forbidden(int r)
{
        return r == -EPERM || r == -EACCES;
}

static void check_instance(struct check *c, struct module *m, const struct core_services *services)
{
        const struct config_module *section = config_module_find(c->config, m->desc.name);
        static const struct origin nowhere = { .file = "default" };
        size_t before = c->diagnostics->n;
        struct weft_error why = {};
        struct instance *i = NULL;
        int r = instance_new(m, (uint16_t) (c->n_instances + 1), section, services, c->diagnostics,
                             &i, &why);

        if (r >= 0) {
                c->instances[c->n_instances++] = i;
                r = instance_load(i, &why);
        }
        if (r < 0 && !is_forbidden(r) && c->diagnostics->n == before)
                diagnostics_add(c->diagnostics, section ? &section->origin : &nowhere,
                                "[module %s]: %s", m->desc.name, why.text);
}

void modules_check(const struct config *config, const char *const *dirs,
                   struct diagnostics *diagnostics)
{
        struct check c = { .config = config, .dirs = dirs, .diagnostics = diagnostics };
        const struct core_services services = {
                .data = &c,
                .route = no_route,
                .unroute = no_unroute,
                .peers = check_peers,
                .cluster_prefixes = check_prefixes,
                .native_prefixes = check_native_prefixes,
                .runs = check_runs,
                .log = no_log,
        };

        open_modules(&c);
        check_plan(&c);
        for (size_t i = 0; i < c.modules.n; i++)
                check_instance(&c, c.modules.items[i], &services);
        check_services(config, c.instances, c.n_instances, diagnostics);

        while (c.n_instances > 0)
                (void) instance_free(c.instances[--c.n_instances]);
        module_set_close(&c.modules);
}

/* ---- services ----------------------------------------------------------------------------- */

static void check_node_port(const struct instance *i, const struct config_service *s,
                            struct diagnostics *diagnostics)
{
        const char *module = i->module->desc.name;

        if (i->node_ports.high == 0 ||
            (s->node_port >= i->node_ports.low && s->node_port <= i->node_ports.high))
                return;

        diagnostics_add(
                diagnostics, &s->node_port_origin,
                "[service %s] node-port = %u: module %s serves node ports %u-%u: choose one of "
                "these, or widen the range in [module %s]",
                s->name, s->node_port, module, i->node_ports.low, i->node_ports.high, module);
}

static bool provides(const struct instance *i, const char *role)
{
        const char *const *p = i->module->desc.provides;

        while (p && *p && strcmp(*p, role) != 0)
                p++;

        return p && *p;
}

/* What a service asks for by name must be there; where no module forwards services at all, nothing
 * is promised. */
static void check_forwarding(const struct config_service *s, struct instance *const *instances,
                             size_t n, struct diagnostics *diagnostics)
{
        static const char *const roles[] = {
                [WEFT_FORWARDING_SNAT] = "snat",
                [WEFT_FORWARDING_DSR] = "dsr",
        };
        const char *wanted = roles[s->forwarding];
        const struct instance *other = NULL;

        for (size_t i = 0; wanted && i < n; i++) {
                if (provides(instances[i], wanted))
                        return;
                if (provides(instances[i], "snat") || provides(instances[i], "dsr"))
                        other = instances[i];
        }

        if (other)
                diagnostics_add(diagnostics, &s->origin,
                                "[service %s] forwarding = %s: the only module that forwards "
                                "services is [module %s], which does not: write auto, or %s",
                                s->name, wanted, other->module->desc.name,
                                other->module->desc.remedy ?: "take another module");
}

void check_service(const struct config_service *s, struct instance *const *instances, size_t n,
                   struct diagnostics *diagnostics)
{
        for (size_t i = 0; s->node_port && i < n; i++)
                check_node_port(instances[i], s, diagnostics);
        check_forwarding(s, instances, n, diagnostics);
}

void check_services(const struct config *c, struct instance *const *instances, size_t n,
                    struct diagnostics *diagnostics)
{
        for (size_t k = 0; k < c->n_services; k++)
                check_service(&c->services[k], instances, n, diagnostics);
}
