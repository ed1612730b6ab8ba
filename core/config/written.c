/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "config/option.h"
#include "config/values.h"
#include "config/written.h"
#include "util.h"

static int compare_sections(const void *a, const void *b)
{
        const struct written_section *x = a, *y = b;

        return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : strcmp(x->name, y->name);
}

static void value_done(struct written_value *v)
{
        free(v->key);
        free(v->text);
}

void written_section_done(struct written_section *s)
{
        for (size_t i = 0; i < s->n; i++)
                value_done(&s->values[i]);
        free(s->values);
        s->values = NULL;
        s->n = 0;
}

static void section_freep(struct written_section **s)
{
        if (!*s)
                return;

        written_section_done(*s);
        free((*s)->name);
        free(*s);
}

struct written_section *written_section(struct written *w, const struct section *kind,
                                        const char *name, const struct origin *origin)
{
        const struct written_section wanted = { .kind = kind, .name = (char *) name };
        struct written_section *const *found = tfind(&wanted, &w->tree, compare_sections);
        _cleanup_(section_freep) struct written_section *s = NULL;

        if (found)
                return *found;

        s = calloc(1, sizeof(*s));
        if (!s || !(s->name = strdup(name)) || list_grow(&w->items, w->n, sizeof(*w->items)) < 0)
                return NULL;

        s->kind = kind;
        s->origin = *origin;
        if (!tsearch(s, &w->tree, compare_sections))
                return NULL;

        w->items[w->n++] = s;
        return TAKE(s);
}

static void drop(struct written_section *s, const char *key)
{
        size_t kept = 0;

        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->values[i].key, key) == 0)
                        value_done(&s->values[i]);
                else
                        s->values[kept++] = s->values[i];
        s->n = kept;
}

int written_append(struct written_section *s, const char *key, const char *text,
                   const struct origin *origin)
{
        struct written_value v = { strdup(key), strdup(text), *origin };

        if (!v.key || !v.text || list_grow(&s->values, s->n, sizeof(v)) < 0) {
                value_done(&v);
                return -ENOMEM;
        }

        s->values[s->n++] = v;
        return 0;
}

struct list_item {
        struct written_section *section;
        const char *key;
        const struct origin *origin;
};

static int append_item(void *data, const char *item, struct weft_error *reterr)
{
        const struct list_item *to = data;

        (void) reterr;
        return written_append(to->section, to->key, item, to->origin);
}

int written_put(struct written_section *s, const char *key, bool is_list, const char *text,
                const struct origin *origin)
{
        struct list_item to = { s, key, origin };

        if (is_list && *text != '\0')
                return each_item(text, append_item, &to, NULL);

        drop(s, key);
        return written_append(s, key, text, origin);
}

const struct origin *written_place(const struct written *w, const char *kind, const char *name,
                                   const char *key, size_t n)
{
        const struct written_section wanted = { .kind = section_by_name(kind),
                                                .name = (char *) name };
        struct written_section *const *found = tfind(&wanted, &w->tree, compare_sections);
        const struct origin *place = NULL;

        for (size_t i = 0; found && i < (*found)->n; i++) {
                const struct written_value *v = &(*found)->values[i];

                if (strcmp(v->key, key) != 0 || *v->text == '\0')
                        continue;
                place = &v->origin;
                if (n-- == 0)
                        break;
        }

        return place;
}

bool written_has(const struct written_section *s, const char *key)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->values[i].key, key) == 0)
                        return true;

        return false;
}

static void leave(void *section)
{
        (void) section; /* items has it, too */
}

void written_done(struct written *w)
{
        tdestroy(w->tree, leave);
        for (size_t i = 0; i < w->n; i++)
                section_freep(&w->items[i]);
        free(w->items);
        *w = (struct written) {};
}
