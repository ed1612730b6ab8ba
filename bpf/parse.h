/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The parser for what entry leaves over: IPv4 options, IPv6 extension headers, fragments, ICMP,
 * other protocols, headers that are not linear. Reads by helper, so no bound needs a second
 * thought. */

#include "entry.h"

#define EXTENSIONS_MAX 6

/* Reads n bytes at an offset of the frame into *to; false where the packet is shorter. */
#define LOAD(ctx, off, to) (bpf_skb_load_bytes(ctx, off, &(to), sizeof(to)) == 0)

/* What became of parsing. */
enum parsed {
        PARSED,         /* the tuple is there */
        PARSED_ERROR,   /* an ICMP error: weft_icmp's */
        PARSED_NONE,    /* not for weft: neighbour discovery, echo of nobody, multicast control */
        PARSED_TOLD,    /* word of DSR, which is taken out first: weft_strip's */
        PARSED_WRAPPED, /* a packet in a packet, by DSR: weft_unwrap's */
        PARSED_BAD,     /* malformed */
};

static __always_inline void fragment_key(const struct weft_pkt *pkt, struct weft_fragment_key *ret)
{
        *ret = (struct weft_fragment_key) { .saddr = pkt->key.src,
                                            .daddr = pkt->key.dst,
                                            .id = pkt->fragment_id,
                                            .proto = pkt->key.proto,
                                            .side = pkt->key.side };
}

/* A first fragment, of a datagram that is ours. */
static __always_inline void remember_fragment(const struct weft_pkt *pkt)
{
        struct weft_fragment value = { pkt->key.sport, pkt->key.dport };
        struct weft_fragment_key key;

        fragment_key(pkt, &key);
        bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* The ports of a later fragment, from its first; false: that was not seen. */
static __always_inline int recall_fragment(struct weft_pkt *pkt)
{
        struct weft_fragment_key key;
        struct weft_fragment *value;

        fragment_key(pkt, &key);
        value = bpf_map_lookup_elem(&fragments, &key);
        if (!value)
                return 0;
        pkt->key.sport = value->sport;
        pkt->key.dport = value->dport;
        return 1;
}

/* Is this DSR's word for this node? Of others' packets it is left alone. */
static __always_inline int is_for_us(const struct weft_pkt *pkt)
{
        return weft_takes_dsr && pkt->hook == WEFT_FROM_UPLINK && !pkt->told.given &&
               weft_endpoint_of(&pkt->key.dst);
}

/* Is this another node's packet around one for an endpoint of this node? From others, and to
 * others, it is a packet like any. */
static __always_inline int is_wrapped(const struct weft_pkt *pkt, __u8 inside)
{
        const struct weft_peer *from;

        if (weft_tunnels != WEFT_TUNNEL_WRAP || pkt->hook != WEFT_FROM_UPLINK ||
            pkt->key.proto != inside || pkt->fragment || !weft_endpoint_of(&pkt->key.dst))
                return 0;
        from = weft_peer_of(&pkt->key.src);
        return from && from->flags & WEFT_PEER_NODE;
}

static __always_inline void read_dsr4(struct __sk_buff *ctx, struct weft_pkt *pkt, __u32 ihl)
{
        struct weft_dsr_option4 o = {};
        __u32 off = ETH_HLEN + WEFT_IP4_MIN;

        if (ihl < 7 || bpf_skb_load_bytes(ctx, off, &o, 8) || o.kind != WEFT_DSR_KIND4 ||
            (o.len != 8 && (o.len != 12 || ihl < 8 || !LOAD(ctx, off, o))) || !is_for_us(pkt))
                return;
        pkt->told = (struct weft_told) { .addr = weft_map_ip4(o.addr),
                                         .port = o.port,
                                         .client_port = o.len == 12 ? o.client_port : 0,
                                         .given = o.len };
}

static __always_inline void read_dsr6(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_dsr_option6 o;

        if (!LOAD(ctx, ETH_HLEN + WEFT_IP6_LEN, o) || o.words != 2 || o.kind != WEFT_DSR_KIND6 ||
            o.len != 20 || !is_for_us(pkt))
                return;
        pkt->key.proto = o.next;
        pkt->told = (struct weft_told) {
                .addr = o.addr, .port = o.port, .client_port = o.client_port, .given = sizeof(o)
        };
}

/* Unreachable, time exceeded, parameter problem; for IPv6 also too big. What is left is the link's.
 */
static __always_inline int is_icmp_error(__u8 family, __u8 type)
{
        return family == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
}

/* ICMP: an echo has its identifier for a port, an error is about another packet. */
static __always_inline enum parsed parse_icmp(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                              __u32 off)
{
        struct weft_icmp icmp;

        if (!LOAD(ctx, off, icmp))
                return PARSED_BAD;
        pkt->icmp_type = icmp.type;
        if (icmp.type == (pkt->key.family == 4 ? ICMP4_ECHO : ICMP6_ECHO))
                pkt->key.sport = icmp.id;
        else if (icmp.type == (pkt->key.family == 4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY))
                pkt->key.dport = icmp.id;
        else
                return is_icmp_error(pkt->key.family, icmp.type) ? PARSED_ERROR : PARSED_NONE;
        return PARSED;
}

static __always_inline enum parsed parse_l4(struct __sk_buff *ctx, struct weft_pkt *pkt, __u32 off)
{
        __be16 ports[2];
        __u8 flags;

        pkt->key.sport = pkt->key.dport = 0;
        switch (pkt->key.proto) {
        case IPPROTO_TCP:
                if (!LOAD(ctx, off + 13, flags) || ctx->len < off + WEFT_TCP_MIN)
                        return PARSED_BAD;
                pkt->tcp_flags = flags & 0x7f;
                break;
        case IPPROTO_UDP:
        case IPPROTO_SCTP:
                break;
        case IPPROTO_ICMP:
                return pkt->key.family == 4 ? parse_icmp(ctx, pkt, off) : PARSED_NONE;
        case IPPROTO_ICMPV6:
                return pkt->key.family == 6 ? parse_icmp(ctx, pkt, off) : PARSED_NONE;
        default:
                return PARSED;
        }
        if (!LOAD(ctx, off, ports) || ctx->len < off + WEFT_UDP_LEN)
                return PARSED_BAD;
        pkt->key.sport = ports[0];
        pkt->key.dport = ports[1];
        return PARSED;
}

static __always_inline enum parsed parse_ip4(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct iphdr ip;

        if (!LOAD(ctx, ETH_HLEN, ip) || ip.version != 4 || ip.ihl < 5)
                return PARSED_BAD;
        pkt->key.src = weft_map_ip4(ip.saddr);
        pkt->key.dst = weft_map_ip4(ip.daddr);
        pkt->key.proto = ip.protocol;
        pkt->l4_off = ETH_HLEN + ip.ihl * 4;
        pkt->fragment_id = ip.id;
        if (ip.frag_off & WEFT_FRAG_OFFSET)
                pkt->fragment = 2;
        else if (ip.frag_off & WEFT_FRAG_MORE)
                pkt->fragment = 1;
        if (ip.ihl > 5 && !pkt->told.given) {
                read_dsr4(ctx, pkt, ip.ihl);
                if (pkt->told.given)
                        return PARSED_TOLD;
        }
        return is_wrapped(pkt, IPPROTO_IPIP) ? PARSED_WRAPPED : PARSED;
}

/* How IPv6's extension headers begin (RFC 8200 §4); a fragment's is all of this. */
struct extension {
        __u8 next, len; /* in 8 bytes, less the first */
        __be16 frag_off;
        __be32 id;
};

static __always_inline int is_extension(__u8 proto)
{
        return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS ||
               proto == IPPROTO_FRAGMENT;
}

/* Walks to the transport header. Everything past EXTENSIONS_MAX headers is somebody's experiment.
 */
static __always_inline enum parsed parse_ip6(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u32 off = ETH_HLEN + WEFT_IP6_LEN;
        struct extension ext;
        struct ipv6hdr ip;
        __u8 next;

        if (!LOAD(ctx, ETH_HLEN, ip) || ip.version != 6)
                return PARSED_BAD;
        __builtin_memcpy(&pkt->key.src, &ip.saddr, 16);
        __builtin_memcpy(&pkt->key.dst, &ip.daddr, 16);
        next = ip.nexthdr;
        if (next == IPPROTO_DSTOPTS && !pkt->told.given) {
                read_dsr6(ctx, pkt);
                if (pkt->told.given)
                        return PARSED_TOLD;
        }
        for (int i = 0; i < EXTENSIONS_MAX; i++) {
                if (!is_extension(next))
                        break;
                if (!LOAD(ctx, off, ext))
                        return PARSED_BAD;
                if (next == IPPROTO_FRAGMENT) {
                        pkt->fragment_id = ext.id;
                        pkt->fragment = ext.frag_off & bpf_htons(0xfff8) ? 2
                                        : ext.frag_off & bpf_htons(1)    ? 1
                                                                         : 0;
                        off += 8;
                } else {
                        off += 8 + ext.len * 8;
                }
                next = ext.next;
                if (pkt->fragment == 2 || off > 512)
                        break;
        }
        pkt->key.proto = next;
        pkt->l4_off = off;
        if (off > 512)
                return PARSED_BAD;
        return is_wrapped(pkt, IPPROTO_IPV6) ? PARSED_WRAPPED : PARSED;
}

static __always_inline int is_multicast(const struct weft_tuple *t)
{
        if (t->family == 6)
                return ((const __u8 *) &t->dst)[0] == 0xff;
        return (t->dst.w[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
               t->dst.w[3] == 0xffffffff;
}

/* Of IPv6's own making: never routed, so neither spoofed nor ours. */
static __always_inline int is_link_local(const struct weft_tuple *t)
{
        return t->family == 6 && (t->src.w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline int is_unspecified(const struct weft_addr *a)
{
        return !a->w[0] && !a->w[1] && !a->w[3] && (!a->w[2] || a->w[2] == bpf_htonl(0xffff));
}

/* Does the source belong to where the packet came from? Also remembers that it is an endpoint's. */
static __always_inline int source_is_right(const struct weft_pkt *pkt)
{
        struct weft_service_key service = { .addr = pkt->key.src };
        const struct weft_endpoint *e;

        if (pkt->host)
                return 1;
        e = weft_endpoint_of(&pkt->key.src);
        if (pkt->hook == WEFT_FROM_ENDPOINT)
                return e && e->ifindex == pkt->ifindex;
        return !e && !(weft_filtered(weft_filter_bit(&pkt->key.src, 0, 0)) &&
                       bpf_map_lookup_elem(&services, &service));
}

/* What an endpoint says to the link itself is not routed: let it go. */
static __always_inline int concerns_link_only(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        return is_multicast(&pkt->key) || is_link_local(&pkt->key) ||
               (is_unspecified(&pkt->key.src) && ctx->pkt_type != PACKET_HOST);
}

/* Towards an endpoint, with nothing to be decided there: only what has a flow matters. */
static __always_inline int is_unguarded(const struct weft_pkt *pkt)
{
        return pkt->hook == WEFT_TO_ENDPOINT && !weft_has_stages[WEFT_TO_ENDPOINT];
}

/* The stack's business; but not what was wrapped, which it would send back to where it was. */
static __always_inline int not_ours(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        return pkt->wrapped ? DROP(ctx, pkt, TUNNEL_INVALID) : WEFT_TCX_NEXT;
}

/* Of no flow, and none is made of it. Where the stack sends something into a tunnel it goes there
 * all the same. */
static __always_inline int without_flow(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        if (!has_overlay() || pkt->hook != WEFT_TO_UPLINK)
                return not_ours(ctx, pkt);
        pkt->absent = pkt->loose = 1;
        weft_tail_call(ctx, WEFT_SLOT_MISS);
        return BROKEN(ctx, pkt);
}

/* A later fragment whose first is not known: of ours it is dropped, of the node's own addresses the
 * stack's business. */
static __always_inline int orphan_fragment(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_service_key service = { .addr = pkt->key.dst };

        if (is_unguarded(pkt))
                return WEFT_TCX_NEXT;
        if (pkt->hook == WEFT_FROM_ENDPOINT || pkt->wrapped || weft_endpoint_of(&pkt->key.dst) ||
            bpf_map_lookup_elem(&services, &service))
                return DROP(ctx, pkt, FRAGMENT_BEFORE_FIRST);
        return without_flow(ctx, pkt);
}

static __always_inline int after_parse(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                       enum parsed parsed)
{
        switch (parsed) {
        case PARSED:
                weft_tail_call(ctx, WEFT_SLOT_MISS);
                return BROKEN(ctx, pkt);
        case PARSED_ERROR:
                weft_tail_call(ctx, WEFT_SLOT_ICMP);
                return BROKEN(ctx, pkt);
        case PARSED_TOLD:
                weft_tail_call(ctx, WEFT_SLOT_STRIP);
                return BROKEN(ctx, pkt);
        case PARSED_WRAPPED:
                weft_tail_call(ctx, WEFT_SLOT_UNWRAP);
                return BROKEN(ctx, pkt);
        case PARSED_NONE:
                return without_flow(ctx, pkt);
        default:
                /* cut short: an endpoint's is dropped, everybody else's is the stack's to judge */
                return pkt->hook == WEFT_FROM_ENDPOINT ? DROP(ctx, pkt, INVALID)
                                                       : not_ours(ctx, pkt);
        }
}

SEC("tc") int weft_parse(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        enum parsed parsed;

        if (!pkt)
                return WEFT_TCX_NEXT;
        pkt->epoch = epoch_now();
        pkt->now = bpf_jiffies64();
        pkt->key.family = ctx->protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
        parsed = pkt->key.family == 4 ? parse_ip4(ctx, pkt) : parse_ip6(ctx, pkt);
        if (parsed != PARSED)
                return after_parse(ctx, pkt, parsed);
        if (concerns_link_only(ctx, pkt))
                return not_ours(ctx, pkt);
        if (pkt->fragment != 2)
                parsed = parse_l4(ctx, pkt, pkt->l4_off);
        else if (!recall_fragment(pkt))
                return orphan_fragment(ctx, pkt);
        if (parsed != PARSED_BAD && !source_is_right(pkt))
                return DROP(ctx, pkt, SPOOFED);
        if (!pkt->host && ctx->pkt_type != PACKET_HOST)
                return WEFT_TCX_NEXT;
        return after_parse(ctx, pkt, parsed);
}
