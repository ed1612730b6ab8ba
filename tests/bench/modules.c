/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The first packet of a connection runs the chain, a later one does not: what each costs with few
 * modules and with many. Those of a row are measured in the same rounds, in an order that turns. */

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "modules.h"
#include "series.h"
#include "util.h"

static const struct {
        enum variant variant;
        unsigned n;
} sets[] = { { MODULES_2, 2 }, { MODULES_4, 4 }, { MODULES_8, 8 }, { MODULES_16, 16 } };

enum { SETS = ELEMENTS(sets) };

/* 95 % of the differences' medians lie between these two of 31: binomial, 2.9 % outside. */
enum { LOW = 9, HIGH = ROUNDS - 1 - LOW };

static bool prepare(struct run runs[SETS], const struct kind *k)
{
        for (size_t i = 0; i < SETS; i++) {
                runs[i] = (struct run) { .world = world_open(sets[i].variant),
                                         .kind = k,
                                         .family = AF_INET };
                if (!run_prepare(&runs[i]))
                        return false;
        }

        return true;
}

static bool measure(struct run runs[SETS])
{
        static const enum series wanted[] = { RESTORE, WEFT };

        for (unsigned round = 0; round < ROUNDS; round++)
                for (unsigned i = 0; i < SETS * ELEMENTS(wanted); i++) {
                        unsigned n = (i + round) % (SETS * ELEMENTS(wanted));

                        if (!run_one(&runs[n / ELEMENTS(wanted)], wanted[n % ELEMENTS(wanted)],
                                     round))
                                return false;
                }

        return true;
}

static void print(const struct run runs[SETS], const char *what)
{
        double low, high, more[ROUNDS];

        for (size_t i = 0; i < SETS; i++) {
                printf("| %s | %u | **%.0f** ", what, sets[i].n,
                       run_net(&runs[i], WEFT, RESTORE, &low, &high));
                printf("(%.0f–%.0f) |", low, high);
                for (unsigned round = 0; round < ROUNDS; round++)
                        more[round] = runs[i].ns[WEFT][round] - runs[i].ns[RESTORE][round] -
                                      runs[0].ns[WEFT][round] + runs[0].ns[RESTORE][round];
                if (i > 0) {
                        double m = median(more, ROUNDS);

                        printf(" %+.0f (%+.0f to %+.0f)", m, more[LOW], more[HIGH]);
                }
                printf(" |\n");
        }
}

static bool bench_kind(const char *kind, const char *what)
{
        struct run runs[SETS] = {};
        bool good = prepare(runs, kind_named(kind)) && measure(runs);

        if (good)
                print(runs, what);
        for (size_t i = 0; i < SETS; i++) {
                run_done(&runs[i]);
                world_close(runs[i].world);
        }

        return good;
}

bool bench_modules(bool cast)
{
        (void) cast;
        printf("| packet | modules | net ns | more than with %u |\n|---|---|---|---|\n", sets[0].n);
        return bench_kind("first packet, NodePort, SNAT", "first of a connection") &&
               bench_kind("NodePort, SNAT, to the backend", "later");
}
