/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One module in one generation: its settings, and the calls of its callbacks. */

#include <errno.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "generation/object.h"
#include "module/api.h"
#include "module/module.h"
#include "util.h"

static struct weft_instance *self(struct instance *i)
{
        return (struct weft_instance *) i;
}

/* A callback that failed: its reason, with the module and what it was doing. */
static int fail_callback(const struct instance *i, const char *what, int r, const struct weft_error *why,
                         struct weft_error *reterr)
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

        r = f(self(i), &core_api, &why);
        return r < 0 ? fail_callback(i, what, r, &why, reterr) : 0;
}

static void instance_freep(struct instance **i)
{
        (void) instance_free(*i);
}

static int fill_config(struct instance *i, const struct config_module *section, struct diagnostics *d,
                       struct weft_error *reterr)
{
        const struct weft_module *m = &i->module->desc;
        char name[64];
        int r;

        (void) snprintf(name, sizeof(name), "module %s", m->name);
        r = options_fill(m->options, i->config, name, section ? section->assignments : NULL,
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
        i->config = calloc(1, m->desc.config_size + 1);
        if (!i->config)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = fill_config(i, section, diagnostics, reterr);
        if (r < 0)
                return r;

        r = call(i, "configure", m->desc.configure, reterr);
        if (r < 0 && section && section->origin.file)
                (void) weft_fail_in(reterr, r, "%s:%u", section->origin.file, section->origin.line);
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

struct instance *instance_free(struct instance *i)
{
        if (!i)
                return NULL;

        instance_detach(i);
        if (i->module->desc.unload)
                i->module->desc.unload(self(i), &core_api);

        free_constants(i);
        if (i->config)
                options_free(i->module->desc.options, i->config);
        free(i->config);
        free(i->routes);
        free(i);
        return NULL;
}

/* The object is open while load runs, so that weft_api.constant() can say what is wrong at once. */
int instance_load(struct instance *i, struct weft_error *reterr)
{
        const struct weft_module *m = &i->module->desc;
        int r;

        if (m->object) {
                r = object_open(m->object, (size_t) ((const char *) m->object_end - (const char *) m->object),
                                m->name, NULL, NULL, &i->opened, reterr);
                if (r < 0)
                        return r;
        }

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

        r = i->module->desc.event(self(i), &core_api, e, &why);
        i->degraded |= r < 0;
        return r < 0 ? fail_callback(i, "event", r, &why, reterr) : 0;
}

void instance_detach(struct instance *i)
{
        if (!i->attached)
                return;

        if (i->module->desc.detach)
                i->module->desc.detach(self(i), &core_api);

        while (i->n_routes > 0)
                i->services->unroute(i->services->data, &i->routes[--i->n_routes]);
        i->attached = false;
}
