/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "config/values.h"
#include "tables/service-sets.h"

static const enum table set_tables[] = { TABLE_MEMBERS, TABLE_PLACED, TABLE_SOURCE_RANGES };

static uint32_t key_size(const struct tables *t, enum table id)
{
        return t->by[id]->layout.key_size;
}

static const void *key_at(const struct tables *t, enum table id, const struct service_set *s,
                          size_t i)
{
        return s->keys + i * key_size(t, id);
}

static bool contains(const struct tables *t, enum table id, const struct service_set *s,
                     const void *key)
{
        for (size_t i = 0; i < s->n; i++)
                if (memcmp(key_at(t, id, s, i), key, key_size(t, id)) == 0)
                        return true;

        return false;
}

int service_set_add(const struct tables *t, enum table id, struct service_set *s, const void *key,
                    uint32_t value)
{
        uint32_t size = key_size(t, id);

        if (list_grow(&s->values, s->n, sizeof(*s->values)) < 0 ||
            list_grow(&s->keys, s->n, size) < 0)
                return -ENOMEM;

        memcpy(s->keys + s->n * size, key, size);
        s->values[s->n++] = value;
        return 0;
}

static void take_out(struct tables *t, enum table id, const void *key)
{
        (void) bpf_map_delete_elem(table_fd(t, id), key);
        keyset_del(&t->set_entries[id], key);
}

int service_set_enter(struct tables *t, enum table id, const struct service_set *s)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < s->n; i++) {
                const void *key = key_at(t, id, s, i);

                r = keyset_add(&t->set_entries[id], key);
                if (r == 0)
                        r = bpf_map_update_elem(table_fd(t, id), key, &s->values[i], BPF_ANY);
        }

        return r;
}

void service_set_leave(struct tables *t, enum table id, const struct service_set *old,
                       const struct service_set *new)
{
        for (size_t i = 0; i < old->n; i++)
                if (!contains(t, id, new, key_at(t, id, old, i)))
                        take_out(t, id, key_at(t, id, old, i));
}

void service_set_done(struct service_set *s)
{
        free(s->keys);
        free(s->values);
        *s = (struct service_set) {};
}

/* ---- taking over -------------------------------------------------------------------------- */

void service_sets_init(struct tables *t)
{
        for (size_t i = 0; i < ELEMENTS(set_tables); i++)
                t->set_entries[set_tables[i]].size = key_size(t, set_tables[i]);
}

static void settle(struct tables *t, enum table id)
{
        _cleanup_free_ unsigned char *keys = NULL;
        size_t n = 0;

        if (table_keys(t, id, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!keyset_has(&t->set_entries[id], keys + i * key_size(t, id)))
                        take_out(t, id, keys + i * key_size(t, id));
}

void service_sets_settle(struct tables *t)
{
        for (size_t i = 0; i < ELEMENTS(set_tables); i++)
                settle(t, set_tables[i]);
}

void service_sets_done(struct tables *t)
{
        for (size_t i = 0; i < ELEMENTS(set_tables); i++)
                keyset_done(&t->set_entries[set_tables[i]]);
}
