/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>

#include "daemon/recent.h"

#define SECONDS 1000000ULL

static struct recent r;

static void forget(void)
{
        recent_done(&r);
}

TestSuite(recent, .fini = forget);

static struct count_view drops(uint64_t packets)
{
        return (struct count_view) {
                .what = "SPOOFED", .hook = 1, .module = 2, .packets = packets
        };
}

static void look(uint64_t second, uint64_t packets)
{
        struct count_view v = drops(packets);

        recent_begin(&r, second * SECONDS);
        recent_add(&r, &v);
}

static uint64_t recent_at(uint64_t second, uint64_t packets)
{
        struct count_view v = drops(packets);

        return recent_packets(&r, &v, second * SECONDS);
}

Test(recent, before_a_minute_is_over_it_counts_from_the_first_look)
{
        cr_expect_eq(recent_at(100, 7), 0, "nobody has looked");
        look(100, 7);
        cr_expect_eq(recent_at(100, 7), 0);
        look(105, 10);
        cr_expect_eq(recent_at(108, 12), 5);
}

Test(recent, of_a_long_time_only_the_last_minute_counts)
{
        for (uint64_t s = 0; s <= 1000; s += RECENT_STEP_SECONDS)
                look(s, s);

        cr_expect_eq(recent_at(1000, 1000), 60);
        cr_expect_eq(recent_at(1004, 1004), 64,
                     "the look at 940 is the last one that is old enough");
        cr_expect_eq(recent_at(1000, 5000), 4060);
}

Test(recent, a_counter_that_was_not_there_is_all_new_and_others_are_others)
{
        struct count_view other = drops(9), hook = drops(9), module = drops(9);

        other.what = "NO_ROUTE";
        hook.hook = 3;
        module.module = 0;
        look(0, 100);
        cr_expect_eq(recent_packets(&r, &other, SECONDS), 9);
        cr_expect_eq(recent_packets(&r, &hook, SECONDS), 9);
        cr_expect_eq(recent_packets(&r, &module, SECONDS), 9);
}
