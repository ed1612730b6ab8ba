/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <search.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tables/internal.h"
#include "tables/service-entries.h"

static int by_key(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_service_key));
}

struct service_entry *service_entry_find(struct tables *t, const struct weft_service_key *key)
{
        struct service_entry **e = tfind(key, &t->service_entries, by_key);

        return e ? *e : NULL;
}

/* Known here, not yet in the map. */
static struct service_entry *service_entry_new(struct tables *t, const struct weft_service_key *key)
{
        struct service_entry *e = calloc(1, sizeof(*e));

        if (!e)
                return NULL;

        e->key = *key;
        e->fresh = true;
        if (!tsearch(e, &t->service_entries, by_key)) {
                free(e);
                return NULL;
        }

        filter_add(t, &key->addr, key->port, key->proto);
        return e;
}

static void forget(struct tables *t, struct service_entry *e)
{
        filter_del(t, &e->key.addr, e->key.port, e->key.proto);
        range_unref(t, e->range);
        lookup_unref(t, e->lookup);
        (void) tdelete(e, &t->service_entries, by_key);
        free(e);
}

void service_entry_remove(struct tables *t, struct service_entry *e)
{
        (void) bpf_map_delete_elem(table_fd(t, TABLE_SERVICES), &e->key);
        forget(t, e);
}

int service_entry_write(struct tables *t, const struct weft_service_key *key,
                        const struct weft_service *value, struct range *range,
                        struct lookup *lookup)
{
        struct service_entry *e = service_entry_find(t, key);
        bool known = e;
        int r;

        if (known && memcmp(&e->value, value, sizeof(*value)) == 0)
                return 0;

        if (!known)
                e = service_entry_new(t, key);
        if (!e)
                return -ENOMEM;

        r = bpf_map_update_elem(table_fd(t, TABLE_SERVICES), key, value, BPF_ANY);
        if (r < 0) {
                if (!known)
                        forget(t, e);
                return r;
        }

        range_unref(t, e->range);
        lookup_unref(t, e->lookup);
        e->range = range ? range_ref(range) : NULL;
        e->lookup = lookup ? lookup_ref(lookup) : NULL;
        e->value = *value;
        return 0;
}

/* ---- taking over -------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
        const struct service_entry *x = *(struct service_entry *const *) a;
        const struct service_entry *y = *(struct service_entry *const *) b;

        return (x->value.slots > y->value.slots) - (x->value.slots < y->value.slots);
}

static uint32_t all_slots(const struct service_entry *e)
{
        return e->value.count + e->value.local;
}

/* Entries at the same place share one range, as the predecessor's did. */
static int adopt_ranges(struct tables *t, struct service_entry **entries, size_t n)
{
        struct service_entry *last = NULL;
        int r = 0;

        qsort(entries, n, sizeof(*entries), by_place);
        for (size_t i = 0; r == 0 && i < n; i++) {
                struct service_entry *e = entries[i];

                if (last && last->range && last->value.slots == e->value.slots &&
                    all_slots(last) == all_slots(e))
                        e->range = range_ref(last->range);
                else if (all_slots(e))
                        r = range_adopt(t, e->value.slots, all_slots(e), &e->range);
                if (r == 0 && e->value.maglev)
                        r = lookup_adopt(t, e->value.maglev, e->value.maglev_size, &e->lookup);
                last = e;
        }

        return r;
}

static struct service_entry *adopt_entry(struct tables *t, const struct weft_service_key *key)
{
        struct service_entry *e = service_entry_new(t, key);

        if (!e)
                return NULL;

        e->fresh = false;
        (void) bpf_map_lookup_elem(table_fd(t, TABLE_SERVICES), key, &e->value);
        return e;
}

int services_adopt(struct tables *t)
{
        _cleanup_free_ struct weft_service_key *keys = NULL;
        _cleanup_free_ struct service_entry **entries = NULL;
        size_t n;
        int r;

        r = lookups_adopt(t);
        if (r == 0)
                r = table_keys(t, TABLE_SERVICES, &keys, &n);
        if (r < 0)
                return r;

        entries = calloc(n + 1, sizeof(*entries));
        if (!entries)
                return -ENOMEM;

        for (size_t i = 0; i < n; i++) {
                entries[i] = adopt_entry(t, &keys[i]);
                if (!entries[i])
                        return -ENOMEM;
        }

        return adopt_ranges(t, entries, n);
}

void services_settle(struct tables *t)
{
        _cleanup_free_ struct weft_service_key *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_SERVICES, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++) {
                struct service_entry *e = service_entry_find(t, &keys[i]);

                if (e && !e->owner && e->users == 0)
                        service_entry_remove(t, e);
        }
}

static void free_entry(void *p)
{
        struct service_entry *e = p;

        if (e->range && --e->range->refs == 0)
                free(e->range);
        free(e);
}

void service_entries_done(struct tables *t)
{
        tdestroy(t->service_entries, free_entry);
}
