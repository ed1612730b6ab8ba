/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Ranges of the service-slot table, handed out first fit from where the last search ended. A range
 * that no entry points at any more may still be read by a program that looked the entry up before:
 * it rests among the retired until space is short, then one grace period frees them all. */

#include <errno.h>
#include <string.h>

#include "generation/generation.h"
#include "tables/internal.h"

static bool is_free(const struct tables *t, uint32_t start, uint32_t count)
{
        return start + (uint64_t) count <= table_size(t, TABLE_SERVICE_SLOTS) &&
               !memchr(t->slots_taken + start, 1, count);
}

/* First free run of this length in [from, to); its start, or to. */
static uint32_t search(const struct tables *t, uint32_t from, uint32_t to, uint32_t count)
{
        uint32_t run = 0;

        for (uint32_t i = from; i < to; i++) {
                run = t->slots_taken[i] ? 0 : run + 1;
                if (run == count)
                        return i + 1 - count;
        }

        return to;
}

static bool first_fit(const struct tables *t, uint32_t count, uint32_t *ret)
{
        uint32_t end = table_size(t, TABLE_SERVICE_SLOTS);

        *ret = search(t, t->slot_cursor, end, count);
        if (*ret < end)
                return true;

        *ret = search(t, 0, end, count);
        return *ret < end;
}

static void free_retired(struct tables *t)
{
        struct range *next;

        for (struct range *r = t->retired; r; r = next) {
                next = r->next;
                memset(t->slots_taken + r->start, 0, r->count);
                free(r);
        }

        t->retired = NULL;
}

static bool find_room(struct tables *t, uint32_t count, uint32_t *ret)
{
        if (first_fit(t, count, ret))
                return true;
        if (!t->retired)
                return false;

        grace_period();
        free_retired(t);
        return first_fit(t, count, ret);
}

static struct range *claim(struct tables *t, uint32_t start, uint32_t count)
{
        struct range *r = malloc(sizeof(*r));

        if (!r)
                return NULL;

        *r = (struct range) { .start = start, .count = count, .refs = 1 };
        memset(t->slots_taken + start, 1, count);
        return r;
}

int range_new(struct tables *t, const struct weft_service_slot *contents, uint32_t count,
              struct range **ret)
{
        struct range *r;
        uint32_t start = 0;

        if (count && !find_room(t, count, &start))
                return -ENOSPC;

        r = claim(t, start, count);
        if (!r)
                return -ENOMEM;

        for (uint32_t i = 0; i < count; i++)
                store64(table_at(t, TABLE_SERVICE_SLOTS, start + i), &contents[i]);

        if (count)
                t->slot_cursor = start + count;
        *ret = r;
        return 0;
}

int range_adopt(struct tables *t, uint32_t start, uint32_t count, struct range **ret)
{
        *ret = NULL;
        if (!is_free(t, start, count))
                return 0;

        *ret = claim(t, start, count);
        return *ret ? 0 : -ENOMEM;
}

bool range_holds(const struct tables *t, const struct range *r,
                 const struct weft_service_slot *contents, uint32_t count)
{
        return r->count == count && memcmp(table_at(t, TABLE_SERVICE_SLOTS, r->start), contents,
                                           count * sizeof(*contents)) == 0;
}

struct range *range_ref(struct range *r)
{
        r->refs++;
        return r;
}

void range_unref(struct tables *t, struct range *r)
{
        if (!r || --r->refs > 0)
                return;

        r->next = t->retired;
        t->retired = r;
}

void ranges_done(struct tables *t)
{
        free_retired(t);
        free(t->slots_taken);
}
