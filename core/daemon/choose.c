/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where no section names a module: what can be chosen from, and under which conditions. Which of
 * them run says the plan. */

#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "net/net.h"
#include "util.h"

bool build_chooses(const struct build *b)
{
        return b->config->n_modules == 0 && b->config->mode != MODE_PARTIAL;
}

int build_open_installed(struct build *b,
                         int (*open)(struct build *b, const char *name, struct weft_error *reterr),
                         struct weft_error *reterr)
{
        struct strings names;
        int r = module_names(b->daemon->module_dirs, &names);

        if (r < 0)
                return weft_fail(reterr, r, "cannot look for modules: %s", strerror(-r));

        /* Nobody asked for a file that cannot be loaded. */
        for (size_t i = 0; i < names.n; i++) {
                struct weft_error why = { 0 };

                if (open(b, names.items[i], &why) < 0)
                        log_warning("not to be chosen: %s", why.text);
        }
        strings_done(&names);

        return 0;
}

static bool is_near(const struct build *b, const struct config_peer *p)
{
        for (size_t i = 0; i < p->address.n; i++)
                if (!net_is_on_link(b->daemon->net, &p->address.items[i]))
                        return false;

        return true;
}

uint32_t build_conditions(const struct build *b)
{
        for (size_t i = 0; i < b->config->n_peers; i++)
                if (!is_near(b, &b->config->peers[i]))
                        return 1u << WEFT_PEERS_APART;

        return 1u << WEFT_PEERS_SHARE_L2;
}

static int add_option(struct config_module *section, const char *key, const char *value)
{
        struct config_assignment a = { .key = strdup(key),
                                       .value = strdup(value),
                                       .origin = section->origin };

        if (!a.key || !a.value ||
            list_grow(&section->assignments, section->n_assignments, sizeof(a)) < 0) {
                free(a.key);
                free(a.value);
                return -ENOMEM;
        }

        section->assignments[section->n_assignments++] = a;
        return 0;
}

static int add_section(struct config *c, const struct weft_module *m)
{
        struct config_module section = {
                .name = strdup(m->name),
                .enabled = true,
                .origin = { .file = "default" },
        };
        int r = 0;

        if (!section.name || list_grow(&c->modules, c->n_modules, sizeof(section)) < 0) {
                free(section.name);
                return -ENOMEM;
        }

        for (const char *const *p = m->chosen_options; p && p[0] && r == 0; p += 2)
                r = add_option(&section, p[0], p[1]);
        c->modules[c->n_modules++] = section;

        return r;
}

int build_add_sections(struct build *b, struct weft_error *reterr)
{
        for (size_t i = 0; i < b->n_rows; i++)
                if (b->rows[i].on && add_section(b->config, b->rows[i].module) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");

        return 0;
}
