/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The builder and the verifier are what every other test believes, so they are tested against bytes
 * that another program (scapy) made, and against every possible flipped bit. */

#include <criterion/criterion.h>
#include <string.h>

#include "packet.h"
#include "world.h"

static const struct mac one = { { 2, 0, 0, 0, 0, 1 } }, two = { { 2, 0, 0, 0, 0, 2 } };

static void cr_expect_bytes(const struct packet *p, const char *hex)
{
        char text[2 * PACKET_MAX + 1];

        for (size_t i = 0; i < p->len; i++)
                snprintf(text + 2 * i, 3, "%02x", p->data[i]);
        cr_expect_str_eq(text, hex);
}

Test(packet, an_ipv4_tcp_packet_has_the_bytes_that_scapy_gives_it)
{
        struct packet p = PACKET(.smac = two, .dmac = one, .src = at(AF_INET, ROUTER),
                                 .dst = at(AF_INET, CLIENT), .proto = IPPROTO_TCP, .sport = 1000,
                                 .dport = 80, .id = 7, .df = true, .flags = SYN, .seq = 1);

        cr_expect_bytes(&p, "02000000000102000000000208004500002800074000"
                            "40064e8fc0000201c633640503e800500000000100000000500220009f6f0000");
}

Test(packet, an_ipv6_udp_packet_has_the_bytes_that_scapy_gives_it)
{
        struct packet p = PACKET(.smac = two, .dmac = one, .src = at(AF_INET6, ROUTER),
                                 .dst = at(AF_INET6, CLIENT), .proto = IPPROTO_UDP, .sport = 1000,
                                 .dport = 53, .label = 0x12345, .payload = 3);

        cr_expect_bytes(&p, "02000000000102000000000286dd60012345000b1140"
                            "20010db8000100000000000000000001"
                            "20010db8000c0000000000000000000503e80035000b902e01080f");
}

static const uint8_t options4[] = { 0x94, 4, 0, 0 };

/* One of each kind that has a checksum over everything. */
static size_t samples(struct packet *p)
{
        struct shape tcp = { .src = at(AF_INET, CLIENT),
                             .dst = at(AF_INET, NODE),
                             .proto = IPPROTO_TCP,
                             .sport = 1,
                             .dport = 2,
                             .payload = 5 };
        struct shape udp = { .src = at(AF_INET6, CLIENT),
                             .dst = at(AF_INET6, NODE),
                             .proto = IPPROTO_UDP,
                             .sport = 1,
                             .dport = 2,
                             .payload = 4 };
        struct shape error = { .src = at(AF_INET, NODE), .dst = at(AF_INET, CLIENT) };
        struct shape error6 = { .src = at(AF_INET6, NODE), .dst = at(AF_INET6, CLIENT) };
        struct packet quoted = packet_build(&tcp), quoted6 = packet_build(&udp);
        size_t n = 0;

        p[n++] = quoted;
        p[n++] = quoted6;
        tcp.options = options4;
        tcp.n_options = sizeof(options4);
        p[n++] = packet_build(&tcp);
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        error.quote = &quoted;
        p[n++] = packet_build(&error);
        shape_icmp(&error6, ICMP_IS_TOO_BIG);
        error6.quote = &quoted6;
        p[n++] = packet_build(&error6);
        return n;
}

Test(packet, what_the_builder_makes_is_valid)
{
        struct packet p[8];
        size_t n = samples(p);
        const char *why;

        for (size_t i = 0; i < n; i++)
                cr_expect(packet_valid(&p[i], &why), "sample %zu: %s", i, why);
}

/* Bits that no checksum covers: Ethernet, and in IPv6 class, label and hop limit; nor can a
 * checksum be asked for when the next header names another protocol. */
static bool covered(const struct packet *p, size_t at)
{
        if (at < 14)
                return false;
        return p->data[12] == 8 || at > 14 + 7 || at == 14 + 4 || at == 14 + 5;
}

Test(packet, any_flipped_bit_makes_a_packet_invalid)
{
        struct packet p[8];
        size_t n = samples(p), checked = 0;

        for (size_t i = 0; i < n; i++)
                for (size_t bit = 0; bit < p[i].len * 8; bit++) {
                        if (!covered(&p[i], bit / 8))
                                continue;
                        p[i].data[bit / 8] ^= 1 << (bit % 8);
                        cr_expect(!packet_valid(&p[i], NULL), "sample %zu, bit %zu", i, bit);
                        p[i].data[bit / 8] ^= 1 << (bit % 8);
                        checked++;
                }
        cr_expect_gt(checked, 1000);
}

Test(packet, fragments_cover_the_payload_and_are_valid)
{
        for (int six = 0; six < 2; six++) {
                int family = six ? AF_INET6 : AF_INET;
                struct packet whole = PACKET(.src = at(family, CLIENT), .dst = at(family, NODE),
                                             .proto = IPPROTO_UDP, .payload = 1000);
                struct packet first = packet_fragment(&whole, 9, 0, 504);
                struct packet second = packet_fragment(&whole, 9, 504, 1000);
                struct layout a, b;

                cr_assert(packet_valid(&first, NULL) && packet_valid(&second, NULL));
                cr_assert(packet_layout(&first, &a) && packet_layout(&second, &b));
                cr_expect(a.fragment && !a.later && b.fragment && b.later);
                cr_expect_eq(a.end - a.l4, 504);
                cr_expect_eq(b.end - b.l4, 1008 - 504);
        }
}

Test(packet, a_difference_names_the_field)
{
        struct shape s = { .src = at(AF_INET, CLIENT),
                           .dst = at(AF_INET, NODE),
                           .proto = IPPROTO_UDP };
        struct packet want = packet_build(&s), got;
        char text[1024];

        cr_expect_str_eq(packet_diff(&want, &want, text, sizeof(text)), "");
        got = want;
        got.data[14 + 8] = 63;
        cr_expect_str_eq(packet_diff(&want, &got, text, sizeof(text)),
                         "   22 ip ttl: want 40, got 3f\n");
}
