/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Packets for tests: made from a description, checked and compared independently of the engine. A
 * test says what goes in and what must come out as two descriptions, mostly the same one with a few
 * fields changed; every checksum is computed from scratch. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include <weft/types.h>

#define PACKET_MAX 3072

struct packet {
        size_t len;
        uint8_t align[2]; /* so that the IP header lies on a word */
        uint8_t data[PACKET_MAX];
};

struct mac {
        uint8_t b[6];
};

/* One packet. Zero means the usual: TTL 64, no options, not a fragment, no payload. Ports are in
 * host order. */
struct shape {
        struct mac smac, dmac;
        struct weft_addr src, dst; /* IPv4: mapped; decides the family */
        uint8_t proto;             /* IPPROTO_TCP, _UDP, _ICMP, _ICMPV6; others: payload only */
        uint16_t sport, dport;
        uint8_t ttl, tos;
        uint16_t id;    /* IPv4 */
        bool df;        /* IPv4 */
        uint32_t label; /* IPv6 */

        /* IPv4 options (n_options divisible by 4), or IPv6 extension headers of which the first has
         * the number `extension` and the last names the protocol. */
        const uint8_t *options;
        size_t n_options;
        uint8_t extension;

        /* TCP */
        uint8_t flags;
        uint32_t seq, ack;

        bool no_checksum; /* UDP over IPv4: 0 on the wire */

        /* ICMP: type, code and the second word (echo: identifier << 16 | sequence; errors: MTU). */
        uint8_t type, code;
        uint32_t rest;
        const struct packet *quote; /* errors: whose IP packet is quoted */
        size_t quoted;              /* how many of its bytes; 0: all */

        size_t payload; /* bytes of a fixed pattern after the headers */
};

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

/* Types of ICMP and ICMPv6 that the tests speak of. */
enum icmp_kind {
        ICMP_IS_ECHO,
        ICMP_IS_REPLY,
        ICMP_IS_UNREACHABLE,
        ICMP_IS_TOO_BIG,
        ICMP_IS_EXCEEDED
};

/* Sets proto, type and code (too big is a code of unreachable in IPv4) for the family of src. The
 * code of an unreachable is that of "port unreachable". */
void shape_icmp(struct shape *s, enum icmp_kind kind);

int shape_family(const struct shape *s); /* AF_INET, AF_INET6 */

struct packet packet_build(const struct shape *s);
#define PACKET(...) packet_build(&(const struct shape) { __VA_ARGS__ })

/* The piece of a packet's IP payload from `offset` (divisible by 8) of at most `length` bytes, as a
 * fragment of datagram `id`; for a packet without IPv6 extension headers. */
struct packet packet_fragment(const struct packet *whole, uint32_t id, size_t offset,
                              size_t length);

/* ---- looking at packets ------------------------------------------------------------------- */

/* Where the headers of an IP packet are. */
struct layout {
        int family;
        size_t ip, l4, end; /* offsets into the buffer; end: of what the length field says */
        uint8_t proto;      /* of the header at l4 */
        bool fragment;      /* any fragment */
        bool later;         /* not the first: no L4 header at l4 */
};

/* Reads the headers of the packet (after Ethernet). False where they are malformed, cut short or of
 * another EtherType. */
bool packet_layout(const struct packet *p, struct layout *ret);

/* True where every checksum that can be verified is right: IPv4 header, TCP, UDP, ICMP, and in ICMP
 * errors those of the quoted packet as far as it is quoted. Otherwise `why` names the wrong one.
 * False too where the headers do not parse. */
bool packet_valid(const struct packet *p, const char **why);

/* Says where two packets differ, a line for each field, into text; "" where they are equal. */
const char *packet_diff(const struct packet *want, const struct packet *got, char *text,
                        size_t size);
