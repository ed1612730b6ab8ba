/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/nearest.h"
#include "config/values.h"
#include "util.h"

Test(values, booleans_are_eight_words_and_nothing_else)
{
        static const struct {
                const char *text;
                int r;
                bool value;
        } rows[] = {
                { "yes", 0, true },        { "on", 0, true },       { "true", 0, true },
                { "1", 0, true },          { "no", 0, false },      { "off", 0, false },
                { "false", 0, false },     { "0", 0, false },       { "", -EINVAL, false },
                { "Yes", -EINVAL, false }, { "y", -EINVAL, false }, { "yess", -EINVAL, false },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                bool v = !rows[i].value;

                cr_expect_eq(parse_bool(rows[i].text, &v), rows[i].r, "\"%s\"", rows[i].text);
                if (rows[i].r == 0)
                        cr_expect_eq(v, rows[i].value, "\"%s\"", rows[i].text);
        }
}

struct number_row {
        const char *text;
        int r;
        uint64_t value;
};

static void expect_numbers(int (*parse)(const char *, uint64_t *), const struct number_row *rows,
                           size_t n)
{
        for (size_t i = 0; i < n; i++) {
                uint64_t v = 4711;

                cr_expect_eq(parse(rows[i].text, &v), rows[i].r, "\"%s\"", rows[i].text);
                cr_expect_eq(v, rows[i].r == 0 ? rows[i].value : 4711, "\"%s\" gave %lu",
                             rows[i].text, v);
        }
}

Test(values, numbers_are_decimal_or_hexadecimal_without_sign_or_blank)
{
        static const struct number_row rows[] = {
                { "0", 0, 0 },
                { "010", 0, 10 },
                { "0x0100", 0, 256 },
                { "18446744073709551615", 0, UINT64_MAX },
                { "18446744073709551616", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "+1", -EINVAL, 0 },
                { " 1", -EINVAL, 0 },
                { "1 ", -EINVAL, 0 },
                { "1K", -EINVAL, 0 },
                { "0x", -EINVAL, 0 },
                { "0x-1", -EINVAL, 0 },
                { "ff", -EINVAL, 0 },
        };

        expect_numbers(parse_number, rows, ELEMENTS(rows));
}

Test(values, sizes_take_K_M_and_G)
{
        static const struct number_row rows[] = {
                { "0", 0, 0 },
                { "512", 0, 512 },
                { "512K", 0, 512 << 10 },
                { "3M", 0, 3 << 20 },
                { "2G", 0, 2ull << 30 },
                { "0K", 0, 0 },
                { "17179869184G", -ERANGE, 0 },
                { "1k", -EINVAL, 0 },
                { "1KB", -EINVAL, 0 },
                { "1.5K", -EINVAL, 0 },
                { "K", -EINVAL, 0 },
                { "1 K", -EINVAL, 0 },
        };

        expect_numbers(parse_size, rows, ELEMENTS(rows));
}

Test(values, times_need_a_unit_but_for_zero)
{
        static const struct number_row rows[] = {
                { "0", 0, 0 },
                { "0s", 0, 0 },
                { "500ms", 0, 500 },
                { "10s", 0, 10000 },
                { "5min", 0, 300000 },
                { "2h", 0, 7200000 },
                { "10", -EINVAL, 0 },
                { "10m", -EINVAL, 0 },
                { "10S", -EINVAL, 0 },
                { "s", -EINVAL, 0 },
                { "9999999999999999999h", -ERANGE, 0 },
        };

        expect_numbers(parse_time, rows, ELEMENTS(rows));
}

Test(values, addresses_come_back_as_they_were_written)
{
        static const struct {
                const char *text, *printed; /* NULL: refused */
        } rows[] = {
                { "192.0.2.11", "192.0.2.11" },
                { "0.0.0.0", "0.0.0.0" },
                { "fd00::1", "fd00::1" },
                { "FD00:0:0:0:0:0:0:1", "fd00::1" },
                { "::", "::" },
                { "::ffff:192.0.2.1", NULL }, /* an IPv4 address has one name only */
                { "192.0.2", NULL },
                { "192.0.2.256", NULL },
                { "192.0.2.1/32", NULL },
                { "fe80::1%eth0", NULL },
                { "[fd00::1]", NULL },
                { "localhost", NULL },
                { "", NULL },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                char text[ADDRESS_TEXT];
                struct weft_addr a;
                int r = parse_address(rows[i].text, &a);

                cr_expect_eq(r, rows[i].printed ? 0 : -EINVAL, "\"%s\"", rows[i].text);
                if (r == 0)
                        cr_expect_str_eq(address_format(&a, text, sizeof(text)), rows[i].printed);
        }
}

Test(values, ipv4_is_kept_mapped_in_network_order)
{
        struct weft_addr a, b = { .w = { 0, 0, htonl(0xffff), htonl(0xc000020b) } };

        cr_assert_eq(parse_address("192.0.2.11", &a), 0);
        cr_expect(address_equal(&a, &b));
        cr_expect(address_is_ipv4(&a));
        cr_assert_eq(parse_address("fd00::1", &a), 0);
        cr_expect_not(address_is_ipv4(&a));
}

Test(values, unicast_is_what_a_host_can_have_and_others_reach)
{
        static const struct {
                const char *text;
                bool unicast;
        } rows[] = {
                { "10.0.0.1", true },   { "127.0.0.1", false },
                { "fd00::1", true },    { "fe80::1", true },
                { "0.0.0.0", false },   { "0.1.2.3", false },
                { "224.0.0.1", false }, { "255.255.255.255", false },
                { "::", false },        { "ff02::1", false },
                { "::1", false },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct weft_addr a;

                cr_assert_eq(parse_address(rows[i].text, &a), 0);
                cr_expect_eq(address_is_unicast(&a), rows[i].unicast, "%s", rows[i].text);
        }
}

Test(values, prefixes_come_back_as_they_were_written)
{
        static const struct {
                const char *text, *printed; /* NULL: refused */
                uint32_t len;
        } rows[] = {
                { "10.0.0.0/8", "10.0.0.0/8", 104 },
                { "0.0.0.0/0", "0.0.0.0/0", 96 },
                { "192.0.2.1", "192.0.2.1/32", 128 },
                { "192.0.2.1/32", "192.0.2.1/32", 128 },
                { "fd00:1::/64", "fd00:1::/64", 64 },
                { "fd00::1", "fd00::1/128", 128 },
                { "2000::/3", "2000::/3", 3 },
                { "8000::/1", "8000::/1", 1 },
                { "10.0.0.1/8", NULL, 0 }, /* bits behind the length */
                { "fd00::1/64", NULL, 0 },
                { "::/0", NULL, 0 }, /* covers ::ffff:0:0/96, that is all of IPv4 */
                { "::/80", NULL, 0 },
                { "10.0.0.0/33", NULL, 0 },
                { "fd00::/129", NULL, 0 },
                { "10.0.0.0/", NULL, 0 },
                { "10.0.0.0/-1", NULL, 0 },
                { "10.0.0.0/8/8", NULL, 0 },
                { "/8", NULL, 0 },
                { "", NULL, 0 },
                { "0123456789012345678901234567890123456789012345678901234567890/8", NULL, 0 },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                char text[PREFIX_TEXT];
                struct weft_prefix p;
                int r = parse_prefix(rows[i].text, &p);

                cr_expect_eq(r, rows[i].printed ? 0 : -EINVAL, "\"%s\"", rows[i].text);
                if (r < 0)
                        continue;
                cr_expect_eq(p.len, rows[i].len, "\"%s\"", rows[i].text);
                cr_expect_str_eq(prefix_format(&p, text, sizeof(text)), rows[i].printed);
        }
}

Test(values, a_network_is_what_was_probably_meant)
{
        struct weft_prefix p;
        char text[PREFIX_TEXT];

        cr_assert_eq(parse_network("10.244.1.77/20", &p), 0);
        cr_expect_str_eq(prefix_format(&p, text, sizeof(text)), "10.244.0.0/20");
}

Test(values, prefixes_contain_what_agrees_in_all_their_bits)
{
        static const struct {
                const char *prefix, *addr;
                bool contained;
        } rows[] = {
                { "10.244.1.0/24", "10.244.1.255", true },
                { "10.244.1.0/24", "10.244.2.0", false },
                { "0.0.0.0/0", "192.0.2.1", true },
                { "0.0.0.0/0", "fd00::1", false },
                { "2000::/3", "192.0.2.1", false },
                { "fd00::/65", "fd00::7fff:0:0:1", true },
                { "fd00::/65", "fd00::8000:0:0:1", false },
                { "fd00::1", "fd00::1", true },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct weft_prefix p;
                struct weft_addr a;

                cr_assert_eq(parse_prefix(rows[i].prefix, &p), 0);
                cr_assert_eq(parse_address(rows[i].addr, &a), 0);
                cr_expect_eq(prefix_contains(&p, &a), rows[i].contained, "%s %s", rows[i].prefix,
                             rows[i].addr);
        }
}

Test(values, port_ranges_run_from_low_to_high)
{
        static const struct {
                const char *text;
                int r;
                uint16_t low, high;
        } rows[] = {
                { "30000-32767", 0, 30000, 32767 },
                { "80", 0, 80, 80 },
                { "1-65535", 0, 1, 65535 },
                { "auto", 0, 0, 0 },
                { "0-10", -ERANGE, 0, 0 },
                { "0", -ERANGE, 0, 0 },
                { "1-65536", -ERANGE, 0, 0 },
                { "20-10", -EINVAL, 0, 0 },
                { "10-", -EINVAL, 0, 0 },
                { "-10", -EINVAL, 0, 0 },
                { "10 - 20", -EINVAL, 0, 0 },
                { "10-20-30", -EINVAL, 0, 0 },
                { "", -EINVAL, 0, 0 },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct weft_ports p = { 7, 7 };

                cr_expect_eq(parse_ports(rows[i].text, &p), rows[i].r, "\"%s\"", rows[i].text);
                cr_expect_eq(p.low, rows[i].r == 0 ? rows[i].low : 7, "\"%s\"", rows[i].text);
                cr_expect_eq(p.high, rows[i].r == 0 ? rows[i].high : 7, "\"%s\"", rows[i].text);
        }
}

Test(values, ipv6_with_a_port_needs_brackets_and_ipv4_takes_none)
{
        static const struct {
                const char *text;
                int r;
                const char *addr;
                uint16_t port;
        } rows[] = {
                { "10.244.1.10:8080", 0, "10.244.1.10", 8080 },
                { "[fd00:1::10]:8080", 0, "fd00:1::10", 8080 },
                { "[10.0.0.1]:80", -EINVAL, NULL, 0 },
                { "fd00::1:80", -EINVAL, NULL, 0 },
                { "10.0.0.1", -EINVAL, NULL, 0 },
                { "10.0.0.1:", -EINVAL, NULL, 0 },
                { "10.0.0.1:0", -ERANGE, NULL, 0 },
                { "10.0.0.1:65536", -ERANGE, NULL, 0 },
                { "[fd00::1]", -EINVAL, NULL, 0 },
                { "[fd00::1:80", -EINVAL, NULL, 0 },
                { "[]:80", -EINVAL, NULL, 0 },
                { "[:80", -EINVAL, NULL, 0 },
                { ":80", -EINVAL, NULL, 0 },
                { "", -EINVAL, NULL, 0 },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                char text[ADDRESS_TEXT];
                struct weft_addr a;
                uint16_t port;
                int r = parse_address_port(rows[i].text, &a, &port);

                cr_expect_eq(r, rows[i].r, "\"%s\" gave %d", rows[i].text, r);
                if (r < 0)
                        continue;
                cr_expect_str_eq(address_format(&a, text, sizeof(text)), rows[i].addr);
                cr_expect_eq(port, rows[i].port);
        }
}

Test(values, a_service_port_names_its_protocol)
{
        static const struct {
                const char *text;
                int r;
                uint16_t port;
                uint8_t proto;
        } rows[] = {
                { "80/tcp", 0, 80, IPPROTO_TCP }, { "53/udp", 0, 53, IPPROTO_UDP },
                { "9/sctp", 0, 9, IPPROTO_SCTP }, { "80", -EINVAL, 0, 0 },
                { "80/TCP", -EINVAL, 0, 0 },      { "0/tcp", -ERANGE, 0, 0 },
                { "65536/tcp", -ERANGE, 0, 0 },   { "80/", -EINVAL, 0, 0 },
                { "/tcp", -EINVAL, 0, 0 },        { "80/icmp", -EINVAL, 0, 0 },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                uint16_t port = 0;
                uint8_t proto = 0;

                cr_expect_eq(parse_port_proto(rows[i].text, &port, &proto), rows[i].r, "\"%s\"",
                             rows[i].text);
                cr_expect_eq(port, rows[i].port, "\"%s\"", rows[i].text);
                cr_expect_eq(proto, rows[i].proto, "\"%s\"", rows[i].text);
        }
}

Test(values, rfc1918_names_eleven_networks)
{
        struct weft_prefixes list = {};
        struct weft_addr inside, outside;
        bool in = false, out = false;

        cr_assert_eq(prefixes_add_set(&list, "rfc1918"), 0);
        cr_expect_eq(list.n, 11);
        cr_assert_eq(parse_address("172.31.255.255", &inside), 0);
        cr_assert_eq(parse_address("172.32.0.0", &outside), 0);
        for (size_t i = 0; i < list.n; i++) {
                in |= prefix_contains(&list.items[i], &inside);
                out |= prefix_contains(&list.items[i], &outside);
        }
        cr_expect(in);
        cr_expect_not(out);
        cr_expect_eq(prefixes_add_set(&list, "rfc1819"), -ENOENT);
        free(list.items);
}

Test(values, lists_keep_what_they_hold_while_they_grow)
{
        struct weft_addresses list = {};

        for (uint32_t i = 0; i < 1000; i++) {
                struct weft_addr a = { .w = { 1, 2, 3, i } };

                cr_assert_eq(addresses_add(&list, &a), 0);
        }
        for (uint32_t i = 0; i < 1000; i++)
                cr_assert_eq(list.items[i].w[3], i);
        free(list.items);
}

Test(values, the_nearest_word_is_the_one_with_the_fewest_edits)
{
        static const char *const words[] = { "port", "node-port", "backend", "external-ip",
                                             "no-backend" };
        static const struct {
                const char *word, *best;
        } rows[] = {
                { "prot", "port" },
                { "nodeport", "node-port" },
                { "backends", "backend" },
                { "backnd", "backend" },
                { "externl-ip", "external-ip" },
                { "colour", NULL },
                { "x", NULL },
                { "", NULL },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct nearest near = { .word = rows[i].word };

                for (size_t j = 0; j < ELEMENTS(words); j++)
                        nearest_try(&near, words[j]);
                if (rows[i].best)
                        cr_expect_str_eq(near.best ?: "nothing", rows[i].best, "%s gave %s",
                                         rows[i].word, near.best);
                else
                        cr_expect_null(near.best, "%s gave %s", rows[i].word, near.best);
        }
}
