/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/values.h"

int strings_add(struct strings *s, const char *item)
{
        char *copy;

        if (list_grow(&s->items, s->n, sizeof(*s->items)) < 0)
                return -ENOMEM;

        copy = strdup(item);
        if (!copy)
                return -ENOMEM;

        s->items[s->n++] = copy;
        return 0;
}

void strings_done(struct strings *s)
{
        for (size_t i = 0; i < s->n; i++)
                free(s->items[i]);
        free(s->items);
        *s = (struct strings) {};
}
