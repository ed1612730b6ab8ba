/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Says in the log what newcomers are dropped for because something ran out: once when it begins,
 * and again as long as it goes on, at most once a minute. */

#include <string.h>

#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

enum { PRESSURE_SECONDS = 60 };

static const struct {
        const char *reason, *remedy;
} shortages[PRESSURES] = {
        { "PORTS_EXHAUSTED",
          "no source port is free towards a destination: widen snat-ports, or give "
          "the node more addresses" },
        { "FLOW_TABLE_FULL", "the flow table is full: make flow-table-size larger" },
};

static void sum(void *data, const struct count_view *v)
{
        uint64_t *counts = data;

        for (size_t i = 0; i < PRESSURES; i++)
                if (strcmp(v->what, shortages[i].reason) == 0)
                        counts[i] += v->packets;
}

void daemon_pressure_look(struct daemon *d)
{
        uint64_t counts[PRESSURES] = { 0 }, now = monotonic_now();

        tables_each_drop(d->tables, sum, counts);
        for (size_t i = 0; i < PRESSURES; i++) {
                struct pressure *p = &d->pressures[i];

                if (counts[i] <= p->told || now < p->quiet_until)
                        continue;
                log_message(LOG_WARNING, SHORTAGE, "%llu packets dropped %s: %s",
                            (unsigned long long) (counts[i] - p->told), shortages[i].reason,
                            shortages[i].remedy);
                p->told = counts[i];
                p->quiet_until = now + PRESSURE_SECONDS * 1000000ull;
        }
}
