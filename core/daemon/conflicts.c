/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who else on this node handles pods' packets or answers for services. They are left alone, and
 * told: in the log once, in status as long as they are there. */

#include <stdio.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

struct found {
        struct conflict *items;
        size_t n;
};

static void on_other(void *data, const char *what, const char *remedy)
{
        struct found *f = data;
        struct conflict *c;

        if (list_grow(&f->items, f->n, sizeof(*f->items)) < 0)
                return;

        c = &f->items[f->n++];
        (void) snprintf(c->what, sizeof(c->what), "%s", what);
        (void) snprintf(c->remedy, sizeof(c->remedy), "%s", remedy);
}

static bool is_known(const struct daemon *d, const char *what)
{
        for (size_t i = 0; i < d->n_conflicts; i++)
                if (strcmp(d->conflicts[i].what, what) == 0)
                        return true;

        return false;
}

void daemon_conflicts_look(struct daemon *d)
{
        struct found f = { 0 };

        net_others(on_other, &f);
        for (size_t i = 0; i < f.n; i++)
                if (!is_known(d, f.items[i].what))
                        log_message(LOG_WARNING, CONFLICT, "%s: %s", f.items[i].what,
                                    f.items[i].remedy);

        free(d->conflicts);
        d->conflicts = f.items;
        d->n_conflicts = f.n;
        d->passes = 0;
}

void daemon_conflicts_free(struct daemon *d)
{
        free(d->conflicts);
        d->conflicts = NULL;
        d->n_conflicts = 0;
}
