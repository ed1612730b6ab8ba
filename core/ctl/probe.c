/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include "config/config.h"
#include "ctl/describe.h"
#include "ctl/probe.h"
#include "ctl/table.h"
#include "net/net.h"
#include "probe/probe.h"
#include "util.h"

enum { FOUND_MAX = 64, NEEDS_MAX = 32 };

struct found {
        char *name;
        struct module *module; /* NULL: refused for the reason in why */
        struct weft_error why;
};

struct survey {
        struct found items[FOUND_MAX];
        size_t n;
        const struct weft_module *available[FOUND_MAX];
        size_t n_available;
};

static void survey_done(struct survey *s)
{
        for (size_t i = 0; i < s->n; i++) {
                free(s->items[i].name);
                (void) module_close(s->items[i].module);
        }
}

/* ---- the modules that are there ----------------------------------------------------------- */

static void look(struct survey *s, const char *const *dirs)
{
        struct strings names = { 0 };

        (void) module_names(dirs, &names);
        for (size_t i = 0; i < names.n && s->n < FOUND_MAX; i++) {
                struct found *f = &s->items[s->n];

                f->name = strdup(names.items[i]);
                if (!f->name)
                        break;
                if (module_open(dirs, f->name, &f->module, &f->why) == 0)
                        s->available[s->n_available++] = &f->module->desc;
                s->n++;
        }
        strings_done(&names);
}

/* ---- verdicts ----------------------------------------------------------------------------- */

static bool fills(const struct weft_module *m, const char *role)
{
        for (const char *const *p = m->provides; p && *p; p++)
                if (strcmp(*p, role) == 0)
                        return true;

        return m->exclusive && strcmp(m->exclusive, role) == 0;
}

const char *probe_verdict(const struct weft_module *m, const struct weft_module *const *available,
                          size_t n_available, const struct fact *facts, size_t n_facts,
                          struct plan_row *ret_row)
{
        const struct weft_module *named[NEEDS_MAX + 1] = { m };
        struct plan_row rows[FOUND_MAX];
        struct plan_input input = {
                .named = named,
                .n_named = 1,
                .available = available,
                .n_available = n_available,
                .facts = facts,
                .n_facts = n_facts,
                .survey = true,
        };
        struct weft_error why;
        size_t n = 0;

        /* One module that fills the role is enough, and not the kernel's business. */
        for (const struct weft_need *need = m->needs; need && need->kind; need++) {
                const struct weft_module *filler = NULL;

                for (size_t i = 0; need->kind == WEFT_NEED_ROLE && i < n_available && !filler; i++)
                        if (available[i] != m && fills(available[i], need->name))
                                filler = available[i];
                if (filler && input.n_named <= NEEDS_MAX)
                        named[input.n_named++] = filler;
        }

        *ret_row = (struct plan_row) { .module = m };
        if (plan_modules(&input, rows, &n, &why) < 0)
                (void) snprintf(ret_row->reason, sizeof(ret_row->reason), "%.255s", why.text);
        for (size_t i = 0; i < n; i++)
                if (rows[i].module == m)
                        *ret_row = rows[i];

        return !ret_row->on ? "refused" : ret_row->reason[0] ? "fallback" : "use";
}

static json_t *module_json(const struct survey *s, const struct found *f, const struct fact *facts,
                           size_t n_facts)
{
        struct plan_row row;
        const char *verdict;

        if (!f->module)
                return json_pack("{s:s, s:n, s:s, s:s}", "name", f->name, "file", "verdict",
                                 "refused", "reason", f->why.text);

        verdict =
                probe_verdict(&f->module->desc, s->available, s->n_available, facts, n_facts, &row);
        return json_pack("{s:s, s:s, s:s, s:s}", "name", f->name, "file", f->module->path,
                         "verdict", verdict, "reason", row.reason);
}

/* Is there a module that asks for it? */
static bool is_asked(const struct survey *s, const struct fact *f)
{
        for (size_t i = 0; i < s->n_available; i++)
                for (const struct weft_need *n = s->available[i]->needs; n && n->kind; n++)
                        if (n->kind == f->kind && strcmp(n->name, f->name) == 0)
                                return true;

        return false;
}

static json_t *facts_json(const struct survey *s, const struct fact *facts, size_t n)
{
        json_t *list = json_array();

        for (size_t i = 0; i < n; i++)
                (void) json_array_append_new(list,
                                             json_pack("{s:s, s:s, s:b, s:b}", "kind",
                                                       need_kind_word(facts[i].kind), "name",
                                                       facts[i].name, "present", facts[i].present,
                                                       "asked", is_asked(s, &facts[i])));

        return list;
}

static bool any_helper(const struct fact *facts, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (facts[i].kind == WEFT_NEED_HELPER && facts[i].present)
                        return true;

        return false;
}

/* ---- who else is here --------------------------------------------------------------------- */

static void add_conflict(void *data, const char *what, const char *remedy)
{
        (void) json_array_append_new(data, json_pack("{s:s, s:s}", "what", what, "remedy", remedy));
}

struct port_look {
        const struct config *config;
        json_t *list;
};

static void on_listener(void *data, const struct net_listener *l)
{
        const struct port_look *look = data;
        struct net_listener whose = *l;
        char what[256];

        for (size_t i = 0; i < look->config->n_services; i++) {
                const struct config_service *s = &look->config->services[i];

                if (s->node_port != l->port || s->proto != l->proto)
                        continue;
                net_listener_owner(&whose);
                (void) snprintf(what, sizeof(what), "%s listens on %u, the node port of service %s",
                                whose.owner, l->port, s->name);
                add_conflict(look->list, what,
                             "stop it, or give the service another node-port: what comes from "
                             "outside goes to the service");
        }
}

/* The services' ports are known only where the configuration is valid. */
static json_t *conflicts_json(const char *root)
{
        struct port_look look = { .list = json_array() };
        struct diagnostics diagnostics = { 0 };
        struct config *c = NULL;

        net_others(add_conflict, look.list);
        if (config_load(root, &c, &diagnostics) == 0) {
                look.config = c;
                (void) net_listeners(on_listener, &look, NULL);
        }
        diagnostics_done(&diagnostics);
        (void) config_free(c);

        return look.list;
}

int probe_report(const char *root, const char *const *dirs, json_t **ret, struct weft_error *reterr)
{
        _cleanup_(survey_done) struct survey s = { 0 };
        json_t *modules = json_array();
        const struct fact *facts;
        struct utsname kernel;
        size_t n_facts;

        (void) uname(&kernel);
        facts = probe_facts(&n_facts);
        if (!any_helper(facts, n_facts)) {
                json_decref(modules);
                return weft_fail(reterr, -EPERM,
                                 "nothing may be tried on this kernel: run as root");
        }

        look(&s, dirs);
        for (size_t i = 0; i < s.n; i++)
                (void) json_array_append_new(modules, module_json(&s, &s.items[i], facts, n_facts));

        *ret = json_pack("{s:s, s:o, s:o, s:o}", "kernel", kernel.release, "facts",
                         facts_json(&s, facts, n_facts), "modules", modules, "conflicts",
                         conflicts_json(root));
        return *ret ? 0 : weft_fail(reterr, -ENOMEM, "out of memory");
}

/* ---- as people read it -------------------------------------------------------------------- */

static const char *text(const json_t *j, const char *key)
{
        return json_string_value(json_object_get(j, key)) ?: "";
}

static bool is_true(const json_t *j, const char *key)
{
        return json_is_true(json_object_get(j, key));
}

static void show_helper_count(const json_t *facts, FILE *f)
{
        size_t i, present = 0, all = 0;
        json_t *fact;

        json_array_foreach (facts, i, fact)
                if (strcmp(text(fact, "kind"), "helper") == 0) {
                        present += is_true(fact, "present");
                        all++;
                }

        (void) fprintf(f,
                       "Helpers  %zu of %zu known ones; shown are those that a module asks for\n\n",
                       present, all);
}

static void show_conflicts(const json_t *list, FILE *f, unsigned width)
{
        static const struct column columns[] = { { "OTHERS ON THIS NODE" },
                                                 { "REMEDY", .wrap = 1 },
                                                 {} };
        struct table *t;
        const json_t *j;
        size_t i;

        if (json_array_size(list) == 0)
                return;

        t = table_new(columns);
        json_array_foreach (list, i, j) {
                table_cell(t, "%s", text(j, "what"));
                table_cell(t, "%s", text(j, "remedy"));
        }
        (void) fputc('\n', f);
        table_print(t, f, width);
        (void) table_free(t);
}

void probe_show(const json_t *report, FILE *f, unsigned width)
{
        static const struct column fact_columns[] = {
                { "KIND", 0 }, { "FACT", 0 }, { "HERE", 0 }, { 0 }
        };
        static const struct column module_columns[] = {
                { "MODULE" }, { "VERDICT" }, { "REASON", .wrap = 1 }, {}
        };
        const json_t *list = json_object_get(report, "facts");
        struct table *facts = table_new(fact_columns), *modules = table_new(module_columns);
        json_t *j;
        size_t i;

        (void) fprintf(f, "Kernel   %s\n", text(report, "kernel"));
        show_helper_count(list, f);
        json_array_foreach (list, i, j) {
                if (strcmp(text(j, "kind"), "helper") == 0 && !is_true(j, "asked"))
                        continue;
                table_cell(facts, "%s", text(j, "kind"));
                table_cell(facts, "%s", text(j, "name"));
                table_cell(facts, "%s", is_true(j, "present") ? "yes" : "no");
        }
        json_array_foreach (json_object_get(report, "modules"), i, j) {
                table_cell(modules, "%s", text(j, "name"));
                table_state(modules, text(j, "verdict"));
                table_cell(modules, "%s", text(j, "reason"));
        }

        table_print(facts, f, width);
        (void) fputc('\n', f);
        table_print(modules, f, width);
        (void) table_free(facts);
        (void) table_free(modules);
        show_conflicts(json_object_get(report, "conflicts"), f, width);
}
