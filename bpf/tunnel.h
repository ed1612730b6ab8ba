/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Tunnels: UDP to another node, the tunnel's header, and the packet as an Ethernet frame. A module
 * says what the header is like (weft_header); who was the sender stands in its key.
 *
 *   weft_underlay      finds the way to a remote where that was not done at entry
 *   weft_encap         into the tunnel, by the engine or with a key for the kernel's device
 *   weft_decap         out of it: a packet at the uplink that is for the tunnel's port
 *   weft_from_overlay  the same where the kernel's device took the headers off
 *   weft_overlay       the packet that came out, as entry does with every other
 *   weft_to_overlay    the exit hook of the kernel's device
 *   weft_relay         an error of the network between, told to the sender of the packet inside
 */

#include "answer.h"

#define TUNNEL_TTL 64
#define EALREADY 114
#define ENOMEM 12
/* UDP source ports: the dynamic ones, as RFC 7348 §5 asks. */
#define TUNNEL_PORTS_LOW 49152u
#define TUNNEL_PORTS 16384u

struct tunnel_udp {
        __be16 sport, dport, len;
        __u16 check;
};

/* What stands behind the outer IP header; then come options, if there are any. */
struct tunnel_head {
        struct tunnel_udp udp;
        __u8 header[WEFT_TUNNEL_HEADER];
};

/* All of it, without options. */
struct outer4 {
        struct iphdr ip;
        struct tunnel_head head;
        struct ethhdr inner;
};

struct outer6 {
        struct ipv6hdr ip;
        struct tunnel_head head;
        struct ethhdr inner;
};

/* Without the padding behind it. */
#define OUTER_SIZE(outer) (offsetof(__typeof__(outer), inner) + ETH_HLEN)

/* <linux/bpf.h> of Linux 6.3 */
#ifndef BPF_F_ADJ_ROOM_DECAP_L3_IPV4
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV4 (1ull << 7)
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV6 (1ull << 8)
#endif

/* ---- into a tunnel, by the engine --------------------------------------------------------- */

/* Flows of one pair of nodes take different ways through the network between, one flow always the
 * same. */
static __always_inline __be16 tunnel_sport(struct __sk_buff *ctx)
{
        __u32 hash = bpf_get_hash_recalc(ctx);

        return bpf_htons(TUNNEL_PORTS_LOW + ((hash ^ hash >> 16) & (TUNNEL_PORTS - 1)));
}

static __always_inline void fill_head(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                      struct tunnel_head *head, __u32 options)
{
        *head = (struct tunnel_head) { .udp = { .sport = tunnel_sport(ctx),
                                                .dport = weft_header.port,
                                                .len = bpf_htons(sizeof(*head) + options +
                                                                 ctx->len) } };
        for (int i = 0; i < WEFT_TUNNEL_HEADER; i++)
                head->header[i] = weft_header.header[i];
        head->header[0] |= options / 4;
        if (options) /* which are DSR's */
                head->header[1] |= weft_header.critical;
        *(__be32 *) (head->header + 4) |= bpf_htonl(pkt->act.tunnel.key);
}

static __always_inline void fill_inner(const struct weft_pkt *pkt, const struct weft_remote *r,
                                       struct ethhdr *inner)
{
        const struct weft_overlay *o = overlay_now();

        __builtin_memcpy(inner->h_dest, r->mac, 6);
        if (o)
                __builtin_memcpy(inner->h_source, o->mac, 6);
        inner->h_proto = bpf_htons(pkt->key.family == 4 ? ETH_P_IP : ETH_P_IPV6);
}

/* The inner packet's DSCP stays inside; congestion marks are the outer packet's too (RFC 6040). */
static __always_inline __u8 congestion(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u8 b[2];

        if (!LOAD(ctx, ETH_HLEN, b))
                return 0;
        return pkt->key.family == 4 ? b[1] & 3 : b[1] >> 4 & 3;
}

/* What a packet that shrinks is from then on. */
static __always_inline __u64 protocol_flag(__u8 family)
{
        return family == 4 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV4 : BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
}

/* What lies between the outer IP header and the packet: UDP, and a frame that is part of the room.
 */
#define IN_A_FRAME (BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN))

/* Opens the room between the Ethernet header and the packet. flags: IN_A_FRAME, or 0. A packet that
 * came out of a tunnel and never left the kernel in between (veth, virtual NICs) is taken for
 * encapsulated still: where its inner headers begin is known, and is the same again. */
static __always_inline int open_room(struct __sk_buff *ctx, const struct weft_pkt *pkt, __u32 size,
                                     __u8 family, __u64 flags)
{
        int r;

        flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
        flags |= family == 4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
        r = bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC, flags);
        if (r != -EALREADY)
                return r;
        if (family == pkt->key.family)
                return bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
        /* the packet's protocol is changed with those flags, or when it shrinks */
        if (!weft_can_decap)
                return r;
        r = bpf_skb_adjust_room(ctx, size + 8, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
        return r
                       ?: bpf_skb_adjust_room(ctx, -8, BPF_ADJ_ROOM_MAC,
                                              BPF_F_ADJ_ROOM_FIXED_GSO | protocol_flag(family));
}

/* verifier: 1 to WEFT_TUNNEL_OPTIONS bytes, which is what n is already, said in a way that does not
 * go lost when n is spilled, nor with a kernel that learns nothing from "is not 0". */
static __always_inline __u32 some_options(__u32 n)
{
        n--;
        asm volatile("" : "+r"(n));
        return (n & (WEFT_TUNNEL_OPTIONS - 1)) + 1;
}

static __always_inline int put_options(struct __sk_buff *ctx, struct weft_pkt *pkt, __u32 off,
                                       __u32 n)
{
        if (n > WEFT_TUNNEL_OPTIONS)
                return -1;
        return bpf_skb_store_bytes(ctx, off, pkt->act.options, some_options(n),
                                   BPF_F_RECOMPUTE_CSUM);
}

/* Writes what stands before the packet: `size` bytes, of which the last are the inner Ethernet
 * header, with the options before that. Without options all of it is written at once. */
static __always_inline int put_outer(struct __sk_buff *ctx, struct weft_pkt *pkt, const void *outer,
                                     __u32 size, __u8 family)
{
        __be16 proto = bpf_htons(family == 4 ? ETH_P_IP : ETH_P_IPV6);
        __u32 n = pkt->act.n_options, head = size - ETH_HLEN;

        /* not part of what the kernel has summed up */
        if (family != pkt->key.family && bpf_skb_store_bytes(ctx, 12, &proto, sizeof(proto), 0))
                return -1;
        if (!n)
                return bpf_skb_store_bytes(ctx, ETH_HLEN, outer, size, BPF_F_RECOMPUTE_CSUM);
        if (bpf_skb_store_bytes(ctx, ETH_HLEN, outer, head, BPF_F_RECOMPUTE_CSUM) ||
            put_options(ctx, pkt, ETH_HLEN + head, n))
                return -1;
        return bpf_skb_store_bytes(ctx, ETH_HLEN + head + n, outer + head, ETH_HLEN,
                                   BPF_F_RECOMPUTE_CSUM);
}

/* The outer header before `len` bytes. */
static __always_inline void fill_ip4(struct iphdr *ip, __u8 proto, __u32 len, __u8 tos,
                                     const struct weft_addr *from, const struct weft_addr *to)
{
        __u32 sum;

        *ip = (struct iphdr) { .version = 4,
                               .ihl = 5,
                               .tos = tos,
                               .tot_len = bpf_htons(sizeof(*ip) + len),
                               .frag_off = bpf_htons(0x4000),
                               .ttl = TUNNEL_TTL,
                               .protocol = proto,
                               .saddr = from->w[3],
                               .daddr = to->w[3] };
        sum = 0x4500u + tos + bpf_ntohs(ip->tot_len) + 0x4000u + (TUNNEL_TTL << 8) + proto;
        sum = weft_fold(bpf_htons(weft_fold(sum)) +
                        (__u32) weft_fold((ip->saddr & 0xffff) + (ip->saddr >> 16)) +
                        weft_fold((ip->daddr & 0xffff) + (ip->daddr >> 16)));
        ip->check = ~sum;
}

static __always_inline void fill_ip6(struct ipv6hdr *ip, __u8 proto, __u32 len, __u8 tos,
                                     const struct weft_addr *from, const struct weft_addr *to)
{
        *ip = (struct ipv6hdr) { .version = 6,
                                 .flow_lbl[0] = tos << 4,
                                 .payload_len = bpf_htons(len),
                                 .nexthdr = proto,
                                 .hop_limit = TUNNEL_TTL };
        __builtin_memcpy(&ip->saddr, from, 16);
        __builtin_memcpy(&ip->daddr, to, 16);
}

static __always_inline int encap4(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                  const struct weft_remote *r)
{
        __u32 n = pkt->act.n_options;
        struct outer4 o = {};

        fill_ip4(&o.ip, IPPROTO_UDP, sizeof(o.head) + n + ctx->len, congestion(ctx, pkt), &r->local,
                 &r->node);
        fill_head(ctx, pkt, &o.head, n);
        fill_inner(pkt, r, &o.inner);
        if (open_room(ctx, pkt, OUTER_SIZE(o) + n, 4, IN_A_FRAME))
                return -1;
        return put_outer(ctx, pkt, &o, OUTER_SIZE(o), 4);
}

static __always_inline int encap6(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                  const struct weft_remote *r)
{
        __u32 n = pkt->act.n_options;
        struct outer6 o = {};

        fill_ip6(&o.ip, IPPROTO_UDP, sizeof(o.head) + n + ctx->len, congestion(ctx, pkt), &r->local,
                 &r->node);
        fill_head(ctx, pkt, &o.head, n);
        fill_inner(pkt, r, &o.inner);
        if (open_room(ctx, pkt, OUTER_SIZE(o) + n, 6, IN_A_FRAME))
                return -1;
        return put_outer(ctx, pkt, &o, OUTER_SIZE(o), 6);
}

/* ---- into a tunnel, by the kernel's device ------------------------------------------------ */

#define TUNNEL_KEY_SIZE offsetof(struct bpf_tunnel_key, local_ipv4) /* what 5.10 knows */

static __always_inline int set_tunnel_key(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                          const struct weft_remote *r)
{
        struct bpf_tunnel_key key = { .tunnel_id = pkt->act.tunnel.key >> 8,
                                      .tunnel_ttl = TUNNEL_TTL };

        if (weft_is_ip4(&r->node)) {
                key.remote_ipv4 = bpf_ntohl(r->node.w[3]);
                return bpf_skb_set_tunnel_key(ctx, &key, TUNNEL_KEY_SIZE, BPF_F_ZERO_CSUM_TX);
        }
        __builtin_memcpy(key.remote_ipv6, &r->node, 16);
        return bpf_skb_set_tunnel_key(ctx, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6);
}

static __always_inline int set_tunnel_options(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u32 n = pkt->act.n_options;

        if (!n)
                return 0;
        if (n > WEFT_TUNNEL_OPTIONS)
                return -1;
        return bpf_skb_set_tunnel_opt(ctx, pkt->act.options, some_options(n));
}

/* The mark tells the exit hooks of the device and of the uplink that this is weft's own. */
static __always_inline int encap_by_device(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                           const struct weft_remote *r)
{
        const struct weft_overlay *o = overlay_now();
        struct ethhdr inner = {};

        if (!o || !o->ifindex)
                return DROP(ctx, pkt, NO_ROUTE);
        fill_inner(pkt, r, &inner);
        if (set_tunnel_key(ctx, pkt, r) || set_tunnel_options(ctx, pkt) ||
            bpf_skb_store_bytes(ctx, 0, &inner, sizeof(inner), 0))
                return DROP(ctx, pkt, INVALID);
        ctx->mark |= weft_mark;
        /* on its way into the device already? */
        if (pkt->hook == WEFT_TO_UPLINK && ctx->ifindex == o->ifindex)
                return WEFT_TCX_NEXT;
        return bpf_redirect(o->ifindex, 0);
}

/* A packet that waits for its neighbour is sent, once that is known, to the one that the stack's
 * route for it names; of the inner packet that is another one. Any tunnel key takes the route's
 * place. */
static __always_inline void forget_route(struct __sk_buff *ctx)
{
        struct bpf_tunnel_key none = {};

        bpf_skb_set_tunnel_key(ctx, &none, TUNNEL_KEY_SIZE, 0);
}

/* ---- the programs ------------------------------------------------------------------------- */

SEC("tc") int weft_encap(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        struct weft_remote *r = pkt ? remote_at(pkt->act.tunnel.remote) : NULL;

        if (!r)
                return WEFT_TCX_DROP;
        if (!remote_is_same(r, pkt->act.tunnel))
                return DROP(ctx, pkt, PEER_GONE);
        if (weft_tunnels == WEFT_TUNNEL_DEVICE)
                return encap_by_device(ctx, pkt, r);
        if (weft_is_ip4(&r->node) ? encap4(ctx, pkt, r) : encap6(ctx, pkt, r))
                return DROP(ctx, pkt, INVALID);
        if (pkt->act.neighbour && pkt->hook == WEFT_TO_UPLINK)
                forget_route(ctx);
        return send(ctx, pkt, r->route);
}

SEC("tc") int weft_underlay(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        struct weft_remote *r = pkt ? remote_at(pkt->act.tunnel.remote) : NULL;
        int no;

        if (!r)
                return WEFT_TCX_DROP;
        if (!remote_is_current(pkt->act.tunnel, pkt->epoch, pkt->now) &&
            remote_is_same(r, pkt->act.tunnel)) {
                no = find_remote(ctx, pkt, r);
                if (no)
                        return weft_verdict_drop(ctx, pkt, no, 0);
        }
        weft_tail_call(ctx, WEFT_SLOT_ENCAP);
        return BROKEN(ctx, pkt);
}

/* ---- out of a tunnel ---------------------------------------------------------------------- */

/* Nobody but a peer speaks through the tunnel, and nobody is another node's host. Returns 0 or the
 * drop. */
static __always_inline int admit(struct weft_pkt *pkt, const struct weft_addr *from, __u32 identity)
{
        __u32 *index = bpf_map_lookup_elem(&nodes, from);
        struct weft_remote *r = index ? remote_at(*index) : NULL;

        if (!r)
                return WEFT_DROP(SPOOFED);
        if (identity == WEFT_IDENTITY_HOST)
                return WEFT_DROP(TUNNEL_IDENTITY);
        pkt->remote = *index;
        pkt->remote_number = r->number;
        pkt->identity = identity;
        return 0;
}

/* What lies between the outer Ethernet header and the inner packet. */
struct outer {
        struct weft_addr src, dst;
        struct tunnel_head head;
        struct ethhdr inner;
        __u32 room; /* bytes of it */
        __u8 family;
        __u8 congested;
};

static __always_inline int read_outer(struct __sk_buff *ctx, struct outer *o)
{
        __u32 off;

        if (ctx->protocol == bpf_htons(ETH_P_IP)) {
                struct iphdr ip;

                if (!LOAD(ctx, ETH_HLEN, ip))
                        return 0;
                o->src = weft_map_ip4(ip.saddr);
                o->dst = weft_map_ip4(ip.daddr);
                o->congested = (ip.tos & 3) == 3;
                o->family = 4;
                o->room = sizeof(ip);
        } else {
                struct ipv6hdr ip;

                if (!LOAD(ctx, ETH_HLEN, ip))
                        return 0;
                __builtin_memcpy(&o->src, &ip.saddr, 16);
                __builtin_memcpy(&o->dst, &ip.daddr, 16);
                o->congested = (((__u8 *) &ip)[1] >> 4 & 3) == 3;
                o->family = 6;
                o->room = sizeof(ip);
        }
        off = ETH_HLEN + o->room;
        o->room += sizeof(o->head) + ETH_HLEN;
        return LOAD(ctx, off, o->head);
}

static __always_inline int header_is_right(const __u8 *header)
{
        for (int i = 0; i < WEFT_TUNNEL_HEADER; i++)
                if ((header[i] ^ weft_header.header[i]) & weft_header.mask[i])
                        return 0;
        return 1;
}

/* How each option begins (RFC 8926 §3.5). */
struct option_head {
        __be16 class;
        __u8 type, words; /* of what follows */
};

#define OPTION_CRITICAL 0x80
#define OPTION_WORDS 0x1f

/* Nothing is delivered whose options do not add up, or say that they must be understood and are
 * not: all but DSR's word, where a module wants that. */
static __always_inline int look_at_options(struct weft_pkt *pkt)
{
        __u32 at = 0, n = pkt->n_options;

        pkt->word_at = WEFT_TUNNEL_OPTIONS;
        for (int i = 0; i < WEFT_TUNNEL_OPTIONS / 4 && at < n; i++) {
                const struct option_head *o =
                        (const void *) (pkt->options + (at & (WEFT_TUNNEL_OPTIONS - 4)));

                if (weft_takes_dsr && o->class == bpf_htons(WEFT_DSR_CLASS) &&
                    o->type == WEFT_DSR_TYPE)
                        pkt->word_at = at;
                else if (o->type & OPTION_CRITICAL)
                        return 0;
                at += sizeof(*o) + (o->words & OPTION_WORDS) * 4;
        }
        return at == n;
}

/* Options come along for the stages to read; too many of them are passed over, unless the header
 * says that one is critical. */
static __always_inline int read_options(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                        struct outer *o)
{
        __u32 n = (o->head.header[0] & weft_header.options) * 4, off = o->room;

        pkt->n_options = 0;
        if (!n)
                return 1;
        o->room += n;
        if (n > WEFT_TUNNEL_OPTIONS)
                return !(o->head.header[1] & weft_header.critical);
        if (bpf_skb_load_bytes(ctx, off, pkt->options, some_options(n)))
                return 0;
        pkt->n_options = n;
        return look_at_options(pkt);
}

/* Takes the room away; what is left has the outer frame's addresses. From 6.3 on the kernel changes
 * the protocol with it; before, only the change of an IPv4 header for an IPv6 one does, and the
 * other way round. */
static __always_inline int strip(struct __sk_buff *ctx, const struct outer *o, __u8 family)
{
        __be16 proto = bpf_htons(family == 4 ? ETH_P_IP : ETH_P_IPV6);
        __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
        __s32 room = o->room;

        if (family != o->family && weft_can_decap)
                flags |= protocol_flag(family);
        else if (family != o->family) {
                if (bpf_skb_change_proto(ctx, proto, 0))
                        return -1;
                room += family == 6 ? WEFT_IP6_LEN - WEFT_IP4_MIN : WEFT_IP4_MIN - WEFT_IP6_LEN;
        }
        if (bpf_skb_adjust_room(ctx, -room, BPF_ADJ_ROOM_MAC, flags))
                return -1;
        return family == o->family ? 0 : bpf_skb_store_bytes(ctx, 12, &proto, sizeof(proto), 0);
}

/* Other implementations look at the inner destination address, so it is the one that they use. */
static __always_inline void learn_mac(__u32 index, const __u8 *mac)
{
        struct weft_remote *r = remote_at(index);
        union {
                __u8 mac[8];
                __u64 word;
        } new = {};

        if (!r)
                return;
        __builtin_memcpy(new.mac, mac, 6);
        if (READ_ONCE(*(__u64 *) r->mac) != new.word)
                WRITE_ONCE(*(__u64 *) r->mac, new.word);
}

/* 0: a congestion mark that the packet inside cannot bear (RFC 6040 §4.2). */
static __always_inline int keep_congestion(struct __sk_buff *ctx, const struct outer *o)
{
        return !o->congested || bpf_skb_ecn_set_ce(ctx);
}

static __always_inline int decap(struct __sk_buff *ctx, struct weft_pkt *pkt, struct outer *o)
{
        int no = admit(pkt, &o->src, bpf_ntohl(*(__be32 *) (o->head.header + 4)) >> 8);
        __u8 family;

        if (no)
                return weft_verdict_drop(ctx, pkt, no, 0);
        if (!header_is_right(o->head.header) || !read_options(ctx, pkt, o) ||
            !LOAD(ctx, o->room, o->inner))
                return DROP(ctx, pkt, TUNNEL_INVALID);
        if (o->inner.h_proto == bpf_htons(ETH_P_IP))
                family = 4;
        else if (o->inner.h_proto == bpf_htons(ETH_P_IPV6))
                family = 6;
        else
                return DROP(ctx, pkt, TUNNEL_INVALID);
        learn_mac(pkt->remote, o->inner.h_source);
        if (strip(ctx, o, family) || !keep_congestion(ctx, o))
                return DROP(ctx, pkt, TUNNEL_INVALID);
        weft_tail_call(ctx, WEFT_SLOT_OVERLAY);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_decap(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        const struct weft_addr *own;
        __u32 ifindex = ctx->ifindex;
        struct weft_link *link;
        struct outer o = {};

        if (!pkt || !read_outer(ctx, &o))
                return WEFT_TCX_NEXT;
        link = bpf_map_lookup_elem(&links, &ifindex);
        own = link ? o.family == 4 ? &link->addr4 : &link->addr6 : NULL;
        if (own && weft_same_addr(own, &o.dst))
                return decap(ctx, pkt, &o);
        /* to somebody else, a packet as any other */
        weft_tail_call(ctx, WEFT_SLOT_PARSE);
        return BROKEN(ctx, pkt);
}

SEC("tc") int weft_overlay(struct __sk_buff *ctx)
{
        return entry(ctx, WEFT_FROM_OVERLAY);
}

/* ---- what the network between says -------------------------------------------------------- */

/* The MTU that "too big" names; 0: another error, or from a router before RFC 1191. */
static __always_inline __u32 named_mtu(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        struct icmp_error e;

        if (!LOAD(ctx, pkt->l4_off, e))
                return 0;
        if (pkt->key.family == 4)
                return e.type == 3 && e.code == 4 ? bpf_ntohl(e.rest) & 0xffff : 0;
        return e.type == 2 ? bpf_ntohl(e.rest) : 0;
}

/* What the quoted packet, one of this node's to a peer, has before the packet inside: from the
 * error's IP header on. Returns the family of the packet inside; 0: the quote does not go so far,
 * or is of somebody else's. */
static __always_inline __u8 read_quoted(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                        const struct quote *q, struct outer *o)
{
        const struct weft_addr *own = weft_node_address(pkt, pkt->ifindex);
        __u32 *index = bpf_map_lookup_elem(&nodes, &q->inner.dst);
        struct weft_remote *r = index ? remote_at(*index) : NULL;
        __u32 off = q->l4_off;

        if (!r || !own || !weft_same_addr(own, &q->inner.src) ||
            !weft_same_addr(own, &pkt->key.dst) || !LOAD(ctx, off, o->head) ||
            !header_is_right(o->head.header))
                return 0;
        off += sizeof(o->head) + (o->head.header[0] & weft_header.options) * 4;
        if (!LOAD(ctx, off, o->inner))
                return 0;
        pkt->remote = *index;
        pkt->remote_number = r->number;
        o->family = pkt->key.family;
        o->room = off; /* to the end of the inner Ethernet header, less the outer one */
        return o->inner.h_proto == bpf_htons(ETH_P_IP)     ? 4
               : o->inner.h_proto == bpf_htons(ETH_P_IPV6) ? 6
                                                           : 0;
}

static __always_inline int read_addresses(struct __sk_buff *ctx, struct weft_tuple *key)
{
        if (key->family == 4) {
                __be32 addr[2];

                if (!LOAD(ctx, ETH_HLEN + 12, addr))
                        return 0;
                key->src = weft_map_ip4(addr[0]);
                key->dst = weft_map_ip4(addr[1]);
        } else {
                struct weft_addr addr[2];

                if (!LOAD(ctx, ETH_HLEN + 8, addr))
                        return 0;
                key->src = addr[0];
                key->dst = addr[1];
        }
        return 1;
}

/* A router on the way to a peer said that a packet in the tunnel is too big: its sender is told, by
 * an error about the packet inside that takes the way of every other. What cannot be told so is the
 * stack's. */
SEC("tc") int weft_relay(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        struct outer o = {};
        struct quote q;
        __u32 mtu, over;
        __u8 family;

        if (!pkt)
                return WEFT_TCX_NEXT;
        q = *(struct quote *) pkt->buffer;
        mtu = named_mtu(ctx, pkt);
        family = read_quoted(ctx, pkt, &q, &o);
        over = ETH_HLEN + o.room - q.ip_off;
        if (!family || mtu <= over)
                return WEFT_TCX_NEXT;
        if (strip(ctx, &o, family))
                return DROP(ctx, pkt, INVALID);
        pkt->key.family = family;
        if (!read_addresses(ctx, &pkt->key))
                return DROP(ctx, pkt, INVALID);
        pkt->len = ctx->len - ETH_HLEN;
        pkt->identity = WEFT_IDENTITY_REMOTE_NODE;
        pkt->n_options = 0;
        pkt->act.route.mtu = mtu - over;
        pkt->drop_reason = WEFT_DROP_TOO_BIG;
        pkt->relayed = 1;
        weft_tail_call(ctx, WEFT_SLOT_ANSWER);
        return BROKEN(ctx, pkt);
}

/* ---- the kernel's device ------------------------------------------------------------------ */

static __always_inline int get_tunnel_key(struct __sk_buff *ctx, struct weft_addr *ret_from,
                                          __u32 *ret_identity)
{
        struct bpf_tunnel_key key = {};

        if (bpf_skb_get_tunnel_key(ctx, &key, TUNNEL_KEY_SIZE, 0) == 0) {
                *ret_from = weft_map_ip4(bpf_htonl(key.remote_ipv4));
        } else {
                if (bpf_skb_get_tunnel_key(ctx, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6))
                        return -1;
                __builtin_memcpy(ret_from, key.remote_ipv6, 16);
        }
        *ret_identity = key.tunnel_id;
        return 0;
}

/* Reads what the device took off. Returns 0 or the drop. */
static __always_inline int receive(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct weft_addr from;
        struct ethhdr eth;
        __u32 identity;
        int no, n;

        if (get_tunnel_key(ctx, &from, &identity) || !LOAD(ctx, 0, eth))
                return WEFT_DROP(TUNNEL_INVALID);
        no = admit(pkt, &from, identity);
        if (no)
                return no;
        n = weft_header.options ? bpf_skb_get_tunnel_opt(ctx, pkt->options, sizeof(pkt->options))
                                : 0;
        /* whether one of too many is critical the kernel does not say */
        pkt->n_options = n > 0 ? n : 0;
        if (n == -ENOMEM || (n > 0 && !look_at_options(pkt)))
                return WEFT_DROP(TUNNEL_INVALID);
        learn_mac(pkt->remote, eth.h_source);
        /* whatever link-layer address the other side believes this one to have */
        if (!(eth.h_dest[0] & 1) && ctx->pkt_type != PACKET_HOST)
                bpf_skb_change_type(ctx, PACKET_HOST);
        return 0;
}

SEC("tc") int weft_from_overlay(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = begin(ctx, WEFT_FROM_OVERLAY);
        int no;

        if (!pkt)
                return WEFT_TCX_NEXT;
        no = receive(ctx, pkt);
        return no ? weft_verdict_drop(ctx, pkt, no, 0) : entry(ctx, WEFT_FROM_OVERLAY);
}

/* What the stack sends to the device: the node's own packets, and those of endpoints that pass the
 * stack. */
SEC("tc") int weft_to_overlay(struct __sk_buff *ctx)
{
        if (ctx->mark & weft_mark)
                return WEFT_TCX_NEXT;
        return entry(ctx, WEFT_TO_UPLINK);
}
