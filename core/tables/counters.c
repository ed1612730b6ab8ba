/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "names.h"
#include "tables/internal.h"

struct text {
        const char *name, *help;
};

static const struct text drop_texts[] = {
#define WEFT_DROP_REASON(name, text) { #name, text },
#include <weft/drop-reasons.def>
#undef WEFT_DROP_REASON
};

/* Until somebody who knows the module gives its own words. */
#define OWN(n)                                                                                     \
        {                                                                                          \
                "MODULE_REASON_" #n, "a reason of the module's own"                                \
        }
static const struct text own_texts[] = {
        OWN(0), OWN(1), OWN(2),  OWN(3),  OWN(4),  OWN(5),  OWN(6),  OWN(7),
        OWN(8), OWN(9), OWN(10), OWN(11), OWN(12), OWN(13), OWN(14), OWN(15),
};
#undef OWN
_Static_assert(ELEMENTS(own_texts) == WEFT_OWN_REASONS, "a text for each");

static const struct text event_texts[] = {
#define WEFT_EVENT(name, text) { #name, text },
#include <weft/events.def>
#undef WEFT_EVENT
};


int count_cpus(int fd, const void *key, uint64_t *ret, size_t n)
{
        int cpus = libbpf_num_possible_cpus();
        _cleanup_free_ uint64_t *values = NULL;

        if (cpus < 0)
                return cpus;

        values = calloc(cpus, n * sizeof(*values));
        if (!values)
                return -ENOMEM;
        if (bpf_map_lookup_elem(fd, key, values) < 0)
                return -errno;

        memset(ret, 0, n * sizeof(*ret));
        for (size_t i = 0; i < cpus * n; i++)
                ret[i % n] += values[i];

        return 0;
}

/* n + 1 of a module's own reason; 0: it is none. */
static uint16_t own_reason(uint16_t reason)
{
        uint16_t n = reason - WEFT_OWN_REASON;

        return reason >= WEFT_OWN_REASON && n < WEFT_OWN_REASONS ? n + 1 : 0;
}

void tables_each_drop(struct tables *t, void (*f)(void *data, const struct count_view *v),
                      void *data)
{
        _cleanup_free_ struct weft_drop_key *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_DROPS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++) {
                uint16_t own = own_reason(keys[i].reason);
                uint16_t reason = keys[i].reason < WEFT_DROPS ? keys[i].reason : 0;
                const struct text *text = own ? &own_texts[own - 1] : &drop_texts[reason];
                uint64_t count[2];

                if (count_cpus(table_fd(t, TABLE_DROPS), &keys[i], count, 2) == 0)
                        f(data, &(struct count_view) {
                                        .what = text->name,
                                        .help = text->help,
                                        .own = own,
                                        .module = keys[i].module,
                                        .hook = keys[i].hook,
                                        .packets = count[0],
                                        .bytes = count[1],
                                });
        }
}

void tables_each_forward(struct tables *t, void (*f)(void *data, const struct count_view *v),
                         void *data)
{
        for (uint32_t i = 0; i < WEFT_HOOKS * WEFT_DELIVERIES; i++) {
                uint64_t count[2];

                if (count_cpus(table_fd(t, TABLE_FORWARDS), &i, count, 2) == 0)
                        f(data, &(struct count_view) {
                                        .what = delivery_names[i % WEFT_DELIVERIES],
                                        .help = "packets forwarded",
                                        .hook = i / WEFT_DELIVERIES,
                                        .packets = count[0],
                                        .bytes = count[1],
                                });
        }
}

void tables_each_event(struct tables *t, void (*f)(void *data, const struct count_view *v),
                       void *data)
{
        for (uint32_t i = 0; i < WEFT_EVENTS; i++) {
                uint64_t count;

                if (count_cpus(table_fd(t, TABLE_EVENTS), &i, &count, 1) == 0)
                        f(data, &(struct count_view) {
                                        .what = event_texts[i].name,
                                        .help = event_texts[i].help,
                                        .packets = count,
                                });
        }
}

static size_t charged(int fd)
{
        _cleanup_fclose_ FILE *f = NULL;
        size_t bytes = 0;
        char path[40], line[128];

        (void) snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
                if (sscanf(line, "memlock: %zu", &bytes) == 1)
                        break;

        return bytes;
}

size_t tables_memory(const struct tables *t)
{
        size_t sum = 0;

        for (size_t i = 0; i < t->n_maps; i++)
                sum += charged(t->maps[i].fd);

        return sum;
}
