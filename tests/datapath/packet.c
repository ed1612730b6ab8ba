/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <assert.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/param.h>

#include "packet.h"
#include "sum.h"

#define ETHERNET 14
#define IP6_MORE 1 /* in the offset word of a fragment header, host order */

int shape_family(const struct shape *s)
{
        bool mapped = !s->src.w[0] && !s->src.w[1] && s->src.w[2] == htonl(0xffff);

        return mapped ? AF_INET : AF_INET6;
}

void shape_icmp(struct shape *s, enum icmp_kind kind)
{
        static const uint8_t types[][2][2] = {
                /* type and code in IPv4, in IPv6 */
                [ICMP_IS_ECHO] = { { ICMP_ECHO }, { ICMP6_ECHO_REQUEST } },
                [ICMP_IS_REPLY] = { { ICMP_ECHOREPLY }, { ICMP6_ECHO_REPLY } },
                [ICMP_IS_UNREACHABLE] = { { ICMP_DEST_UNREACH, ICMP_PORT_UNREACH },
                                          { ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT } },
                [ICMP_IS_TOO_BIG] = { { ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED },
                                      { ICMP6_PACKET_TOO_BIG } },
                [ICMP_IS_EXCEEDED] = { { ICMP_TIME_EXCEEDED }, { ICMP6_TIME_EXCEEDED } },
        };
        bool six = shape_family(s) == AF_INET6;

        s->proto = six ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
        s->type = types[kind][six][0];
        s->code = types[kind][six][1];
}

static void put(struct packet *p, const void *bytes, size_t n)
{
        assert(p->len + n <= PACKET_MAX);
        if (n)
                memcpy(p->data + p->len, bytes, n);
        p->len += n;
}

static void put_pattern(struct packet *p, size_t n)
{
        assert(p->len + n <= PACKET_MAX);
        for (size_t i = 0; i < n; i++)
                p->data[p->len++] = (uint8_t) (i * 7 + 1);
}

/* The layer-4 checksum over everything from `at` on; the field must be zero. */
static uint16_t l4_sum(const struct packet *p, const struct shape *s, size_t at)
{
        uint32_t sum = 0;

        if (s->proto != IPPROTO_ICMP)
                sum = sum_pseudo(&s->src, &s->dst, s->proto, p->len - at);
        return sum_fold(sum_add(sum, p->data + at, p->len - at));
}

static void put_tcp(struct packet *p, const struct shape *s)
{
        struct tcphdr h = {
                .source = htons(s->sport),
                .dest = htons(s->dport),
                .seq = htonl(s->seq),
                .ack_seq = htonl(s->ack),
                .window = htons(s->flags & RST ? 0 : 8192),
        };
        size_t at = p->len;

        h.th_off = sizeof(h) / 4;
        h.th_flags = s->flags;
        put(p, &h, sizeof(h));
        put_pattern(p, s->payload);
        h.check = l4_sum(p, s, at);
        memcpy(p->data + at, &h, sizeof(h));
}

static void put_udp(struct packet *p, const struct shape *s)
{
        struct udphdr h = { .source = htons(s->sport),
                            .dest = htons(s->dport),
                            .len = htons(sizeof(h) + s->payload) };
        size_t at = p->len;

        put(p, &h, sizeof(h));
        put_pattern(p, s->payload);
        if (s->no_checksum)
                return;
        h.check = l4_sum(p, s, at);
        h.check = h.check ? h.check : 0xffff;
        memcpy(p->data + at, &h, sizeof(h));
}

static void put_icmp(struct packet *p, const struct shape *s)
{
        struct icmphdr h = { .type = s->type, .code = s->code, .un.gateway = htonl(s->rest) };
        size_t at = p->len;

        put(p, &h, sizeof(h));
        if (s->quote) {
                size_t whole = s->quote->len - ETHERNET;

                put(p, s->quote->data + ETHERNET, s->quoted ? MIN(s->quoted, whole) : whole);
        }
        put_pattern(p, s->payload);
        h.checksum = l4_sum(p, s, at);
        memcpy(p->data + at, &h, sizeof(h));
}

static void put_l4(struct packet *p, const struct shape *s)
{
        switch (s->proto) {
        case IPPROTO_TCP:
                return put_tcp(p, s);
        case IPPROTO_UDP:
                return put_udp(p, s);
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
                return put_icmp(p, s);
        default:
                return put_pattern(p, s->payload);
        }
}

static void build4(struct packet *p, const struct shape *s)
{
        size_t header = sizeof(struct iphdr) + s->n_options;
        struct iphdr h = {
                .version = 4,
                .ihl = header / 4,
                .tos = s->tos,
                .id = htons(s->id),
                .frag_off = htons(s->df ? IP_DF : 0),
                .ttl = s->ttl ?: 64,
                .protocol = s->proto,
                .saddr = s->src.w[3],
                .daddr = s->dst.w[3],
        };
        size_t at = p->len;

        put(p, &h, sizeof(h));
        put(p, s->options, s->n_options);
        put_l4(p, s);
        h.tot_len = htons(p->len - at);
        memcpy(p->data + at, &h, sizeof(h));
        h.check = sum_fold(sum_add(0, p->data + at, header));
        memcpy(p->data + at, &h, sizeof(h));
}

static void build6(struct packet *p, const struct shape *s)
{
        struct ip6_hdr h = {
                .ip6_nxt = s->n_options ? s->extension : s->proto,
                .ip6_hlim = s->ttl ?: 64,
        };
        size_t at = p->len;

        h.ip6_flow = htonl(6u << 28 | (uint32_t) s->tos << 20 | s->label);
        memcpy(&h.ip6_src, &s->src, 16);
        memcpy(&h.ip6_dst, &s->dst, 16);
        put(p, &h, sizeof(h));
        put(p, s->options, s->n_options);
        put_l4(p, s);
        h.ip6_plen = htons(p->len - at - sizeof(h));
        memcpy(p->data + at, &h, sizeof(h));
}

struct packet packet_build(const struct shape *s)
{
        struct ether_header h = {};
        struct packet p = {};
        bool six = shape_family(s) == AF_INET6;

        memcpy(h.ether_dhost, s->dmac.b, 6);
        memcpy(h.ether_shost, s->smac.b, 6);
        h.ether_type = htons(six ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
        put(&p, &h, sizeof(h));
        if (six)
                build6(&p, s);
        else
                build4(&p, s);
        return p;
}

static void fragment4(struct packet *p, uint32_t id, size_t offset, bool more)
{
        struct iphdr *h = (struct iphdr *) (p->data + ETHERNET);

        h->id = htons(id);
        h->frag_off = htons(offset / 8 | (more ? IP_MF : 0));
        h->tot_len = htons(p->len - ETHERNET);
        h->check = 0;
        h->check = sum_fold(sum_add(0, h, h->ihl * 4));
}

static void put_fragment6(struct packet *p, uint32_t id, size_t offset, bool more)
{
        struct ip6_hdr *h = (struct ip6_hdr *) (p->data + ETHERNET);
        struct ip6_frag f = {
                .ip6f_nxt = h->ip6_nxt,
                .ip6f_offlg = htons(offset | (more ? IP6_MORE : 0)),
                .ip6f_ident = htonl(id),
        };

        h->ip6_nxt = IPPROTO_FRAGMENT;
        put(p, &f, sizeof(f));
}

struct packet packet_fragment(const struct packet *whole, uint32_t id, size_t offset, size_t length)
{
        struct packet p = {};
        struct layout l;
        size_t n;
        bool more;

        if (!packet_layout(whole, &l))
                assert(!"only whole packets can be cut");
        n = MIN(length, whole->len - l.l4 - offset);
        more = l.l4 + offset + n < whole->len;
        put(&p, whole->data, l.l4);
        if (l.family == AF_INET6)
                put_fragment6(&p, id, offset, more);
        put(&p, whole->data + l.l4 + offset, n);
        if (l.family == AF_INET)
                fragment4(&p, id, offset, more);
        else
                ((struct ip6_hdr *) (p.data + ETHERNET))->ip6_plen =
                        htons(p.len - ETHERNET - sizeof(struct ip6_hdr));
        return p;
}
