/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/values.h"

char *origin_format(const struct origin *o, char *buf, size_t size)
{
        if (o->line > 0)
                (void) snprintf(buf, size, "%s:%u", o->file, o->line);
        else
                (void) snprintf(buf, size, "%s", o->file);

        return buf;
}

void diagnostics_add(struct diagnostics *d, const struct origin *origin, const char *format, ...)
{
        struct diagnostic item = { .origin = *origin };
        char *file; /* a copy: the diagnostics outlive a refused configuration */
        va_list ap;
        int r;

        if (list_grow(&d->items, d->n, sizeof(item)) < 0)
                return;

        va_start(ap, format);
        r = vasprintf(&item.text, format, ap);
        va_end(ap);
        if (r < 0)
                return;

        file = strdup(origin->file);
        if (!file) {
                free(item.text);
                return;
        }

        item.origin.file = file;
        d->items[d->n++] = item;
}

void diagnostics_done(struct diagnostics *d)
{
        for (size_t i = 0; i < d->n; i++) {
                free((char *) d->items[i].origin.file);
                free(d->items[i].text);
        }
        free(d->items);
        *d = (struct diagnostics) {};
}
