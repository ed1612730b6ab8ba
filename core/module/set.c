/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "module/module.h"

struct module *module_set_find(const struct module_set *s, const char *name)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->items[i]->desc.name, name) == 0)
                        return s->items[i];

        return NULL;
}

int module_set_open(struct module_set *s, const char *const *dirs, const char *name,
                    const struct module_set *running, struct weft_error *reterr)
{
        struct module *m = running ? module_set_find(running, name) : NULL;
        const struct weft_need *need;
        int r;

        if (module_set_find(s, name))
                return 0;
        if (s->n == MODULES_MAX)
                return weft_fail(reterr, -E2BIG, "more than %d modules", MODULES_MAX);

        r = module_open_again(dirs, name, m, &m, reterr);
        if (r < 0)
                return r;
        s->items[s->n++] = m;

        for (need = m->desc.needs; need && need->kind; need++)
                if (need->kind == WEFT_NEED_MODULE) {
                        r = module_set_open(s, dirs, need->name, running, reterr);
                        if (r < 0 && r != -ENOENT)
                                return r;
                }

        return 0;
}

void module_set_close(struct module_set *s)
{
        while (s->n > 0)
                (void) module_close(s->items[--s->n]);
}
