/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "tables-fixture.h"

TestSuite(filter, .init = fixture_bpffs);

static void set(struct tables *t, const char *name, const struct weft_addr *addr)
{
        struct table_endpoint e = { .addrs = addr, .n_addrs = 1, .ifindex = 7 };
        struct weft_error error = {};

        cr_assert_eq(tables_set_endpoint(t, name, &e, &error), 0, "%s", error.text);
}

/* Two IPv4 addresses of one bit, which a filter of 2^20 bits has among a few thousand. */
static void find_twins(char one[16], char other[16])
{
        static uint32_t seen[1 << WEFT_FILTER_SHIFT];

        for (uint32_t i = 1; i < 1 << 24; i++) {
                uint32_t addr = htonl(0x0a000000 | i), bit = weft_filter_bit4(addr, 0, 0);

                if (seen[bit]) {
                        (void) inet_ntop(AF_INET, &seen[bit], one, 16);
                        (void) inet_ntop(AF_INET, &addr, other, 16);
                        return;
                }
                seen[bit] = addr;
        }
        cr_assert_fail("no two addresses share a bit");
}

static uint64_t bits(struct tables *t)
{
        uint64_t n = 0;

        for (uint32_t i = 0; i < WEFT_FILTER_WORDS; i++)
                n += __builtin_popcountll(*(uint64_t *) table_at(t, TABLE_FILTER, i));
        return n;
}

Test(filter, has_the_address_of_an_endpoint_as_long_as_it_is_there)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr four = fixture_addr("10.1.0.2"), six = fixture_addr("fd00::2");

        cr_assert_not(fixture_in_filter(t, "10.1.0.2", 0, 0));
        set(t, "four", &four);
        set(t, "six", &six);
        cr_assert(fixture_in_filter(t, "10.1.0.2", 0, 0));
        cr_assert(fixture_in_filter(t, "fd00::2", 0, 0));

        tables_del_endpoint(t, "four");
        cr_assert_not(fixture_in_filter(t, "10.1.0.2", 0, 0));
        cr_assert(fixture_in_filter(t, "fd00::2", 0, 0));
        tables_close(t);
}

Test(filter, a_bit_of_two_addresses_stays_until_both_are_gone)
{
        struct tables *t = fixture_open(4096);
        char one[16], other[16];
        struct weft_addr a, b;

        find_twins(one, other);
        a = fixture_addr(one);
        b = fixture_addr(other);
        set(t, "a", &a);
        set(t, "b", &b);
        tables_del_endpoint(t, "a");
        cr_assert(fixture_in_filter(t, other, 0, 0));
        tables_del_endpoint(t, "b");
        cr_assert_not(fixture_in_filter(t, one, 0, 0));
        tables_close(t);
}

Test(filter, is_counted_again_by_a_successor)
{
        struct tables *t = fixture_open(4096);
        char one[16], other[16];
        struct weft_addr a, b;

        find_twins(one, other);
        a = fixture_addr(one);
        b = fixture_addr(other);
        set(t, "a", &a);
        set(t, "b", &b);
        tables_close(t);

        t = fixture_open(4096);
        cr_assert_eq(bits(t), 1);
        set(t, "a", &a);
        tables_settle(t);
        cr_assert(fixture_in_filter(t, one, 0, 0));
        tables_del_endpoint(t, "a");
        cr_assert_eq(bits(t), 0);
        tables_close(t);
}

Test(filter, a_bit_that_a_killed_predecessor_left_is_cleared)
{
        struct tables *t = fixture_open(4096);
        uint32_t word = 17;
        uint64_t junk = ~0ULL;

        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "filter"), &word, &junk, 0), 0);
        tables_close(t);
        t = fixture_open(4096);
        cr_assert_eq(bits(t), 0);
        tables_close(t);
}

Test(filter, has_the_ports_of_a_service_and_its_address)
{
        struct weft_addr ip = fixture_addr("fd00::80"), node = fixture_addr("192.0.2.1");
        struct config_service s = {
                .name = "web",
                .port = 80,
                .proto = IPPROTO_TCP,
                .node_port = 30080,
                .external_ip = { &ip, 1 },
        };
        struct tables *t = fixture_open(4096);
        struct weft_error error = {};

        cr_assert_eq(tables_set_service(t, &s, &node, 1, &error), 0, "%s", error.text);
        cr_assert(fixture_in_filter(t, "fd00::80", 80, IPPROTO_TCP));
        cr_assert(fixture_in_filter(t, "fd00::80", 0, 0));
        cr_assert(fixture_in_filter(t, "192.0.2.1", 30080, IPPROTO_TCP));
        cr_assert_not(fixture_in_filter(t, "192.0.2.1", 0, 0));
        cr_assert(fixture_in_filter(t, "0.0.0.0", 30080, IPPROTO_TCP));
        cr_assert_eq(bits(t), 4);

        tables_del_service(t, "web");
        cr_assert_eq(bits(t), 0);
        tables_close(t);
}
