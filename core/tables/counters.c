/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tables/internal.h"

struct text {
        const char *name, *help;
};

static const struct text drop_texts[] = {
#define WEFT_DROP_REASON(name, text) { #name, text },
#include <weft/drop-reasons.def>
#undef WEFT_DROP_REASON
};

static const struct text event_texts[] = {
#define WEFT_EVENT(name, text) { #name, text },
#include <weft/events.def>
#undef WEFT_EVENT
};

static const char *const delivery_names[] = WEFT_DELIVERY_NAMES;

/* Sums over the CPUs one element of a per-CPU map whose value is n words. */
static int sum_cpus(int fd, const void *key, uint64_t *ret, size_t n)
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

void tables_each_drop(struct tables *t, void (*f)(void *data, const struct count_view *v),
                      void *data)
{
        _cleanup_free_ struct weft_drop_key *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_DROPS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++) {
                uint16_t reason = keys[i].reason < WEFT_DROPS ? keys[i].reason : 0;
                const struct text *text = &drop_texts[reason];
                uint64_t count[2];

                if (sum_cpus(table_fd(t, TABLE_DROPS), &keys[i], count, 2) == 0)
                        f(data, &(struct count_view) {
                                        .what = text->name,
                                        .help = text->help,
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

                if (sum_cpus(table_fd(t, TABLE_FORWARDS), &i, count, 2) == 0)
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

                if (sum_cpus(table_fd(t, TABLE_EVENTS), &i, &count, 1) == 0)
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
