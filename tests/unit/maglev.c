/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "tables/maglev.h"

enum { SIZE = 16381, MANY = 100 };

static struct maglev_backend backends[MANY];
static uint32_t table[131071], other[131071], count[MANY];

static void make(size_t n)
{
        for (size_t i = 0; i < n; i++)
                backends[i] = (struct maglev_backend) {
                        .addr = { { 0, 0, htonl(0xffff), htonl(0x0af40000 + i) } },
                        .port = htons(8080),
                        .proto = IPPROTO_TCP,
                        .weight = 1,
                };
}

static void fill(size_t n, uint32_t *ret, uint32_t size)
{
        cr_assert_eq(maglev_fill(backends, n, ret, size), 0);
        for (size_t i = 0; i < MANY; i++)
                count[i] = 0;
        for (uint32_t i = 0; i < size; i++) {
                cr_assert_lt(ret[i], n);
                count[ret[i]]++;
        }
}

Test(maglev, spreads_evenly_over_every_number_of_backends_and_size_of_table)
{
        static const uint32_t sizes[] = { 251,  509,   1021,  2039,  4093,
                                          8191, 16381, 32749, 65521, 131071 };

        make(MANY);
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
                for (size_t n = 1; n <= MANY; n += 11) {
                        fill(n, table, sizes[s]);
                        for (size_t i = 0; i < n; i++)
                                cr_assert(count[i] >= sizes[s] / n && count[i] <= sizes[s] / n + 1,
                                          "%u of %u for one of %zu", count[i], sizes[s], n);
                }
}

Test(maglev, gives_each_backend_what_its_weight_asks)
{
        static const uint32_t weights[] = { 1, 2, 3, 10, 1000, 7 };
        uint32_t sum = 0;

        make(6);
        for (size_t i = 0; i < 6; i++)
                sum += backends[i].weight = weights[i];
        fill(6, table, SIZE);
        for (size_t i = 0; i < 6; i++) {
                double fair = (double) SIZE * weights[i] / sum;

                cr_assert(count[i] > fair * 0.95 - 1 && count[i] < fair * 1.05 + 1, "%u, not %.1f",
                          count[i], fair);
        }
}

Test(maglev, is_the_same_whatever_the_order_of_the_backends)
{
        make(MANY);
        for (size_t i = 0; i < MANY; i++)
                backends[i].weight = 1 + i % 3;
        fill(MANY, table, SIZE);

        for (size_t i = 0; i < MANY / 2; i++) {
                struct maglev_backend b = backends[i];

                backends[i] = backends[MANY - 1 - i];
                backends[MANY - 1 - i] = b;
        }
        fill(MANY, other, SIZE);
        for (uint32_t i = 0; i < SIZE; i++)
                cr_assert_eq(table[i], MANY - 1 - other[i]);
}

Test(maglev, is_the_same_in_every_version)
{
        make(3);
        fill(3, table, 251);
        uint32_t sum = 0;

        for (uint32_t i = 0; i < 251; i++)
                sum = sum * 31 + table[i];
        cr_assert_eq(sum, 0x5fede2b6u, "nodes of another version would choose otherwise: %#x", sum);
}

/* Of each hundred: the part of the others' places that changed hands. */
static double moved_without(size_t gone)
{
        uint32_t moved = 0, kept = 0;

        make(MANY);
        fill(MANY, table, SIZE);
        backends[gone] = backends[MANY - 1];
        fill(MANY - 1, other, SIZE);
        for (uint32_t i = 0; i < SIZE; i++) {
                uint32_t now = other[i] == gone ? MANY - 1 : other[i];

                if (table[i] == gone)
                        continue;
                moved += now != table[i];
                kept += now == table[i];
        }
        return 100.0 * moved / (moved + kept);
}

Test(maglev, moves_at_most_two_in_a_hundred_flows_of_others_when_a_backend_goes)
{
        double sum = 0;

        for (size_t gone = 0; gone < MANY; gone++) {
                double moved = moved_without(gone);

                cr_expect_leq(moved, 2.0, "%zu gone: %.2f %%", gone, moved);
                sum += moved;
        }
        cr_log_info("%.2f %% on average", sum / MANY);
        cr_assert_gt(sum, 0.0, "nothing is moved at all?");
}
