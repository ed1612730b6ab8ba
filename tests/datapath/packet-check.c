/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/param.h>

#include "packet.h"
#include "sum.h"
#include "util.h"

#define ETHERNET 14

/* A run of bytes that is an IP packet, perhaps cut short (as a quote is). */
struct span {
        const uint8_t *data;
        size_t len;
};

static bool layout4(struct span s, struct layout *ret)
{
        struct iphdr h;
        uint16_t fragment;

        if (s.len < sizeof(h))
                return false;
        memcpy(&h, s.data, sizeof(h));
        fragment = ntohs(h.frag_off);
        ret->family = AF_INET;
        ret->l4 = h.ihl * 4u;
        ret->end = ntohs(h.tot_len);
        ret->proto = h.protocol;
        ret->fragment = fragment & (IP_OFFMASK | IP_MF);
        ret->later = fragment & IP_OFFMASK;
        return h.version == 4 && h.ihl >= 5 && ret->l4 <= s.len && ret->end >= ret->l4;
}

static bool is_extension(uint8_t proto)
{
        return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS ||
               proto == IPPROTO_FRAGMENT;
}

/* Steps over one extension header. */
static bool step6(struct span s, struct layout *l)
{
        const uint8_t *h = s.data + l->l4;
        uint16_t word;

        if (l->l4 + 8 > s.len)
                return false;
        if (l->proto == IPPROTO_FRAGMENT) {
                memcpy(&word, h + 2, 2);
                l->fragment = ntohs(word) & 0xfff9;
                l->later = ntohs(word) & 0xfff8;
                l->l4 += 8;
        } else {
                l->l4 += 8 + h[1] * 8u;
        }
        l->proto = h[0];
        return l->l4 <= s.len;
}

static bool layout6(struct span s, struct layout *ret)
{
        struct ip6_hdr h;

        if (s.len < sizeof(h))
                return false;
        memcpy(&h, s.data, sizeof(h));
        ret->family = AF_INET6;
        ret->l4 = sizeof(h);
        ret->end = sizeof(h) + ntohs(h.ip6_plen);
        ret->proto = h.ip6_nxt;
        while (is_extension(ret->proto) && !ret->later)
                if (!step6(s, ret))
                        return false;
        return (ntohl(h.ip6_flow) >> 28) == 6 && ret->end >= ret->l4;
}

static bool layout_ip(struct span s, struct layout *ret)
{
        *ret = (struct layout) {};
        if (s.len < 1)
                return false;
        return s.data[0] >> 4 == 4 ? layout4(s, ret) : layout6(s, ret);
}

bool packet_layout(const struct packet *p, struct layout *ret)
{
        uint16_t type;

        if (p->len < ETHERNET)
                return false;
        memcpy(&type, p->data + 12, 2);
        if (type != htons(ETHERTYPE_IP) && type != htons(ETHERTYPE_IPV6))
                return false;
        if (!layout_ip((struct span) { p->data + ETHERNET, p->len - ETHERNET }, ret))
                return false;
        if (ret->family != (type == htons(ETHERTYPE_IP) ? AF_INET : AF_INET6))
                return false;
        ret->ip = ETHERNET;
        ret->l4 += ETHERNET;
        ret->end += ETHERNET;
        return ret->end <= p->len;
}

/* ---- checksums ---------------------------------------------------------------------------- */

static uint32_t pseudo_of(struct span s, const struct layout *l)
{
        struct weft_addr src = { .w[2] = htonl(0xffff) }, dst = src;
        size_t length = l->end - l->l4;

        if (l->family == AF_INET) {
                memcpy(&src.w[3], s.data + offsetof(struct iphdr, saddr), 4);
                memcpy(&dst.w[3], s.data + offsetof(struct iphdr, daddr), 4);
        } else {
                memcpy(&src, s.data + offsetof(struct ip6_hdr, ip6_src), 16);
                memcpy(&dst, s.data + offsetof(struct ip6_hdr, ip6_dst), 16);
        }
        return l->proto == IPPROTO_ICMP ? 0 : sum_pseudo(&src, &dst, l->proto, length);
}

static bool span_valid(struct span s, bool quote, const char **why);

/* Errors quote a packet; everything else does not. */
static bool quotes(const struct layout *l, uint8_t type)
{
        if (l->proto == IPPROTO_ICMP)
                return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
                       type == ICMP_PARAMETERPROB;
        return l->proto == IPPROTO_ICMPV6 && !(type & ICMP6_INFOMSG_MASK);
}

static size_t l4_minimum(uint8_t proto)
{
        switch (proto) {
        case IPPROTO_TCP:
                return sizeof(struct tcphdr);
        case IPPROTO_UDP:
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
                return 8;
        default:
                return 0;
        }
}

static bool has_sum(struct span s, const struct layout *l)
{
        uint16_t check;

        if (l->proto == IPPROTO_TCP || l->proto == IPPROTO_ICMP || l->proto == IPPROTO_ICMPV6)
                return true;
        if (l->proto != IPPROTO_UDP)
                return false;
        memcpy(&check, s.data + l->l4 + offsetof(struct udphdr, check), 2);
        return check || l->family == AF_INET6;
}

static bool l4_valid(struct span s, const struct layout *l, const char **why)
{
        size_t length = l->end - l->l4;

        *why = "length";
        if (length < l4_minimum(l->proto))
                return false;
        if (has_sum(s, l) && sum_fold(sum_add(pseudo_of(s, l), s.data + l->l4, length))) {
                *why = l->proto == IPPROTO_TCP   ? "TCP checksum"
                       : l->proto == IPPROTO_UDP ? "UDP checksum"
                                                 : "ICMP checksum";
                return false;
        }
        if (!quotes(l, s.data[l->l4]))
                return true;
        return span_valid((struct span) { s.data + l->l4 + 8, length - 8 }, true, why);
}

/* quote: the packet may be cut short, and then its layer 4 is not looked at. */
static bool span_valid(struct span s, bool quote, const char **why)
{
        struct layout l;

        *why = quote ? "quoted headers" : "headers";
        if (!layout_ip(s, &l) || (!quote && l.end > s.len))
                return quote && s.len < sizeof(struct ip6_hdr);
        *why = quote ? "quoted IPv4 header checksum" : "IPv4 header checksum";
        if (l.family == AF_INET && sum_fold(sum_add(0, s.data, l.l4)))
                return false;
        if (l.fragment || l.end > s.len)
                return true;
        return l4_valid(s, &l, why);
}

bool packet_valid(const struct packet *p, const char **why)
{
        const char *unused;
        struct layout l;

        why = why ?: &unused;
        *why = "headers";
        return packet_layout(p, &l) &&
               span_valid((struct span) { p->data + ETHERNET, p->len - ETHERNET }, false, why);
}

/* ---- differences -------------------------------------------------------------------------- */

struct field {
        const char *name;
        uint8_t at, len;
};

static const struct field ethernet[] = {
        { "dmac", 0, 6 }, { "smac", 6, 6 }, { "type", 12, 2 }, {}
};
static const struct field ip4[] = {
        { "version-ihl", 0, 1 },
        { "tos", 1, 1 },
        { "length", 2, 2 },
        { "id", 4, 2 },
        { "fragment", 6, 2 },
        { "ttl", 8, 1 },
        { "protocol", 9, 1 },
        { "checksum", 10, 2 },
        { "source", 12, 4 },
        { "destination", 16, 4 },
        {},
};
static const struct field ip6[] = {
        { "class-label", 0, 4 },
        { "length", 4, 2 },
        { "next-header", 6, 1 },
        { "hop-limit", 7, 1 },
        { "source", 8, 16 },
        { "destination", 24, 16 },
        {},
};
static const struct field tcp[] = {
        { "source-port", 0, 2 },     { "destination-port", 2, 2 }, { "sequence", 4, 4 },
        { "acknowledgement", 8, 4 }, { "offset-flags", 12, 2 },    { "window", 14, 2 },
        { "checksum", 16, 2 },       { "urgent", 18, 2 },          {},
};
static const struct field udp[] = {
        { "source-port", 0, 2 },
        { "destination-port", 2, 2 },
        { "length", 4, 2 },
        { "checksum", 6, 2 },
        {},
};
static const struct field icmp[] = {
        { "type", 0, 1 }, { "code", 1, 1 }, { "checksum", 2, 2 }, { "rest", 4, 4 }, {},
};

struct layer {
        const char *name;
        const struct field *fields;
        size_t at;
};

static struct layer layer_of_l4(const struct layout *l)
{
        switch (l->proto) {
        case IPPROTO_TCP:
                return (struct layer) { "tcp", tcp, l->l4 };
        case IPPROTO_UDP:
                return (struct layer) { "udp", udp, l->l4 };
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
                return (struct layer) { "icmp", icmp, l->l4 };
        default:
                return (struct layer) {};
        }
}

/* The layers of a packet, those of a quoted packet too; the count. */
static size_t layers_of(const struct packet *p, struct layer layers[6])
{
        size_t n = 0, at = ETHERNET;
        struct layout l;

        layers[n++] = (struct layer) { "ethernet", ethernet, 0 };
        while (n < 5 && at < p->len && layout_ip((struct span) { p->data + at, p->len - at }, &l)) {
                bool six = l.family == AF_INET6;

                layers[n] = (struct layer) { n > 1 ? "quoted ip" : "ip", six ? ip6 : ip4, at };
                n++;
                l.l4 += at;
                if (l.later || !layer_of_l4(&l).name)
                        break;
                layers[n++] = layer_of_l4(&l);
                if (l.l4 >= p->len || !quotes(&l, p->data[l.l4]))
                        break;
                at = l.l4 + 8;
        }
        return n;
}

/* A field in its packet. */
struct place {
        const char *layer, *name;
        size_t at, len;
};

/* The field that the byte at `at` belongs to; the byte itself where none. */
static struct place field_at(const struct layer *layers, size_t n, size_t at)
{
        for (size_t i = n; i-- > 0;)
                for (const struct field *f = layers[i].fields; f->name; f++)
                        if (at >= layers[i].at + f->at && at < layers[i].at + f->at + f->len)
                                return (struct place) { layers[i].name, f->name,
                                                        layers[i].at + f->at, f->len };
        return (struct place) { "byte", "", at, 1 };
}

static void print_hex(FILE *f, const struct packet *p, size_t at, size_t n)
{
        for (size_t i = at; i < at + n; i++)
                if (i < p->len)
                        fprintf(f, "%02x", p->data[i]);
                else
                        fputs("--", f);
}

const char *packet_diff(const struct packet *want, const struct packet *got, char *text,
                        size_t size)
{
        _cleanup_fclose_ FILE *f = fmemopen(text, size, "w");
        size_t end = MAX(want->len, got->len);
        struct layer layers[6];
        size_t n = layers_of(want, layers), lines = 0;

        text[0] = '\0';
        if (want->len != got->len)
                fprintf(f, "  length: want %zu, got %zu\n", want->len, got->len);
        for (size_t at = 0; at < end && lines < 24; at++) {
                struct place where;

                if (at < want->len && at < got->len && want->data[at] == got->data[at])
                        continue;
                where = field_at(layers, n, at);
                fprintf(f, "  %3zu %s %s: want ", where.at, where.layer, where.name);
                print_hex(f, want, where.at, where.len);
                fputs(", got ", f);
                print_hex(f, got, where.at, where.len);
                fputc('\n', f);
                at = where.at + where.len - 1;
                lines++;
        }
        return text;
}
