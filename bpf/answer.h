/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* The end of packets: weft_replay sends them on, weft_drop_packet counts why they go no further,
 * and weft_answer says so to their sender where that is due: echo replies of service addresses,
 * ICMP errors (RFC 792, RFC 4443), TCP resets (RFC 9293 §3.10.7.1). Errors are rate limited. */

#include "dsr.h"

#define ANSWERS_PER_SECOND 100
#define ANSWERS_BURST 1000
#define ANSWER_TTL 64
#define ENOTSUPP 524
#define QUOTE_MAX 512 /* what bpf_csum_diff() takes at once; RFC 1812 §4.3.2.3 wants up to 548 */

/* A token bucket for each CPU, in units of 1/hz answers. */
static __always_inline int may_answer(struct weft_pkt *pkt)
{
        __u64 tokens = pkt->answer_tokens + (pkt->now - pkt->answer_last) * ANSWERS_PER_SECOND;

        if (tokens > (__u64) ANSWERS_BURST * weft_hz)
                tokens = (__u64) ANSWERS_BURST * weft_hz;
        pkt->answer_last = pkt->now;
        pkt->answer_tokens = tokens < weft_hz ? tokens : tokens - weft_hz;
        if (tokens < weft_hz)
                weft_event(WEFT_EVENT_ICMP_LIMITED);
        return tokens >= weft_hz;
}

/* The other node gets its answer as it sent the packet. */
static __always_inline int send_back_by_tunnel(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        pkt->act.tunnel = (union weft_tunnel) { .key = WEFT_IDENTITY_REMOTE_NODE << 8,
                                                .remote = pkt->remote,
                                                .number = pkt->remote_number };
        pkt->act.neighbour = 0;
        pkt->act.n_options = 0;
        return to_encap(ctx, pkt, 0);
}

/* Back to where the packet came from. What a tunnel carried came from here: the error about it goes
 * on as if the other end of the tunnel had sent it. */
static __always_inline int send_back(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u32 ifindex = pkt->ifindex;
        struct weft_link *link = bpf_map_lookup_elem(&links, &ifindex);
        __u8 macs[12], swapped[12];

        if (has_overlay() && pkt->relayed)
                return to_parse(ctx, WEFT_FROM_OVERLAY);
        if (!LOAD(ctx, 0, macs))
                return WEFT_TCX_DROP;
        __builtin_memcpy(swapped, macs + 6, 6);
        __builtin_memcpy(swapped + 6, macs, 6);
        bpf_skb_store_bytes(ctx, 0, swapped, sizeof(swapped), 0);
        weft_event(WEFT_EVENT_ICMP_SENT);
        if (has_overlay() && pkt->hook == WEFT_FROM_OVERLAY)
                return send_back_by_tunnel(ctx, pkt);
        if (link && link->flags & WEFT_NEXTHOP_MARK)
                ctx->mark |= weft_mark;
        /* whoever wrapped it is not on the way to its sender */
        return pkt->wrapped ? bpf_redirect_neigh(ifindex, NULL, 0, 0) : bpf_redirect(ifindex, 0);
}

/* Who speaks: the node, if it has an address on the way; else the address that was spoken to. A
 * tunnel's way is not the packet's. */
static __always_inline void speaker(const struct weft_pkt *pkt, struct weft_addr *ret)
{
        const struct weft_addr *a = pkt->relayed ? NULL : weft_node_address(pkt, pkt->ifindex);

        if (!a && pkt->way.asked && !(weft_tunnels && (pkt->relayed || pkt->act.tunnel.remote)))
                a = weft_node_address(pkt, pkt->way.ifindex);
        *ret = a ? *a : pkt->key.dst;
}

static __always_inline __u16 sum_of(void *data, __u32 len, __u32 seed)
{
        return ~weft_fold(weft_fold(bpf_csum_diff(NULL, 0, data, len, seed)));
}

/* ---- echo --------------------------------------------------------------------------------- */

static __always_inline int answer_echo(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u8 reply = pkt->key.family == 4 ? 0 : 129, ttl = ANSWER_TTL, old;
        __u16 from = bpf_htons(pkt->icmp_type << 8), to = bpf_htons(reply << 8);

        bpf_l4_csum_replace(ctx, pkt->l4_off + WEFT_ICMP_CHECK, from, to, 2);
        bpf_skb_store_bytes(ctx, pkt->l4_off, &reply, 1, 0);
        if (pkt->key.family == 4) {
                __be32 addr[2] = { pkt->key.dst.w[3], pkt->key.src.w[3] };

                if (!LOAD(ctx, ETH_HLEN + 8, old))
                        return WEFT_TCX_DROP;
                bpf_l3_csum_replace(ctx, ETH_HLEN + 10, bpf_htons(old << 8), bpf_htons(ttl << 8),
                                    2);
                bpf_skb_store_bytes(ctx, ETH_HLEN + 8, &ttl, 1, 0);
                bpf_skb_store_bytes(ctx, ETH_HLEN + 12, addr, sizeof(addr), 0);
        } else {
                struct weft_addr addr[2] = { pkt->key.dst, pkt->key.src };

                bpf_skb_store_bytes(ctx, ETH_HLEN + 7, &ttl, 1, 0);
                bpf_skb_store_bytes(ctx, ETH_HLEN + 8, addr, sizeof(addr), 0);
        }
        return send_back(ctx, pkt);
}

/* ---- ICMP errors -------------------------------------------------------------------------- */

struct icmp_error {
        __u8 type, code;
        __u16 check;
        __be32 rest; /* the MTU, in its low half for IPv4 */
};

static __always_inline struct icmp_error error4(__u16 reason, __u32 mtu)
{
        switch (reason) {
        case WEFT_DROP_TTL_EXPIRED:
                return (struct icmp_error) { .type = 11 };
        case WEFT_DROP_TOO_BIG:
                return (struct icmp_error) { .type = 3, .code = 4, .rest = bpf_htonl(mtu) };
        default:
                return (struct icmp_error) { .type = 3, .code = 3 };
        }
}

static __always_inline struct icmp_error error6(__u16 reason, __u32 mtu)
{
        switch (reason) {
        case WEFT_DROP_TTL_EXPIRED:
                return (struct icmp_error) { .type = 3 };
        case WEFT_DROP_TOO_BIG:
                return (struct icmp_error) { .type = 2, .rest = bpf_htonl(mtu) };
        default:
                return (struct icmp_error) { .type = 1, .code = 4 };
        }
}

/* Makes it a packet of `size` bytes; what they are is nobody's business before they are written.
 * The kernel cuts nothing off the end of a packet that it takes for encapsulated still, as
 * open_room() says: there as much goes from the front. */
static __always_inline int resize(struct __sk_buff *ctx, const struct weft_pkt *pkt, __u32 size)
{
        int r = bpf_skb_change_tail(ctx, ETH_HLEN + size, 0);

        if (r != -ENOTSUPP || size == pkt->len)
                return r == -ENOTSUPP ? 0 : r;
        return bpf_skb_adjust_room(ctx, (__s32) (size - pkt->len), BPF_ADJ_ROOM_MAC,
                                   BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Cuts the packet down to what is quoted, sums that up and makes room for `headers` bytes in front.
 * Returns the length of the quote, or 0. */
static __always_inline __u32 quote_packet(struct __sk_buff *ctx, struct weft_pkt *pkt,
                                          __u32 headers, __u32 *ret_sum)
{
        __u32 len = pkt->len;

        if (len > QUOTE_MAX)
                len = QUOTE_MAX;
        len &= ~3u;
        if (len < WEFT_IP4_MIN + WEFT_ICMP_LEN)
                return 0;
        /* verifier: len is spilled and its bounds with it */
        asm volatile("" : "+r"(len));
        if (len > QUOTE_MAX || bpf_skb_load_bytes(ctx, ETH_HLEN, pkt->buffer, len))
                return 0;
        *ret_sum = bpf_csum_diff(NULL, 0, (__be32 *) pkt->buffer, len, 0);
        if (resize(ctx, pkt, len) ||
            bpf_skb_store_bytes(ctx, ETH_HLEN, pkt->buffer, len, BPF_F_RECOMPUTE_CSUM) ||
            bpf_skb_adjust_room(ctx, headers, BPF_ADJ_ROOM_MAC, 0))
                return 0;
        return len;
}

static __always_inline int answer_error4(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct {
                struct iphdr ip;
                struct icmp_error icmp;
        } h = { .icmp = error4(pkt->drop_reason, pkt->act.route.mtu) };
        struct weft_addr from;
        __u32 sum, len;

        speaker(pkt, &from);
        len = quote_packet(ctx, pkt, sizeof(h), &sum);
        if (!len)
                return WEFT_TCX_DROP;
        h.ip.version = 4;
        h.ip.ihl = 5;
        h.ip.tos = 0xc0; /* internetwork control, RFC 1812 §4.3.2.5 */
        h.ip.tot_len = bpf_htons(sizeof(h) + len);
        h.ip.ttl = ANSWER_TTL;
        h.ip.protocol = IPPROTO_ICMP;
        h.ip.saddr = from.w[3];
        h.ip.daddr = pkt->key.src.w[3];
        h.ip.check = sum_of(&h.ip, sizeof(h.ip), 0);
        h.icmp.check = sum_of(&h.icmp, sizeof(h.icmp), sum);
        bpf_skb_store_bytes(ctx, ETH_HLEN, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
        return send_back(ctx, pkt);
}

static __always_inline int answer_error6(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct {
                struct ipv6hdr ip;
                struct icmp_error icmp;
        } h = { .icmp = error6(pkt->drop_reason, pkt->act.route.mtu) };
        struct {
                struct weft_addr src, dst;
                __be32 len, proto;
        } pseudo;
        __u32 sum, len;

        speaker(pkt, &pseudo.src);
        len = quote_packet(ctx, pkt, sizeof(h), &sum);
        if (!len)
                return WEFT_TCX_DROP;
        pseudo.dst = pkt->key.src;
        pseudo.len = bpf_htonl(sizeof(h.icmp) + len);
        pseudo.proto = bpf_htonl(IPPROTO_ICMPV6);
        h.ip.version = 6;
        h.ip.payload_len = bpf_htons(sizeof(h.icmp) + len);
        h.ip.nexthdr = IPPROTO_ICMPV6;
        h.ip.hop_limit = ANSWER_TTL;
        __builtin_memcpy(&h.ip.saddr, &pseudo.src, 16);
        __builtin_memcpy(&h.ip.daddr, &pseudo.dst, 16);
        sum = bpf_csum_diff(NULL, 0, (__be32 *) &pseudo, sizeof(pseudo), sum);
        h.icmp.check = sum_of(&h.icmp, sizeof(h.icmp), sum);
        bpf_skb_store_bytes(ctx, ETH_HLEN, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
        return send_back(ctx, pkt);
}

/* ---- TCP resets --------------------------------------------------------------------------- */

struct tcp_header {
        __be16 sport, dport;
        __be32 seq, ack;
        __u8 off, flags;
        __be16 window;
        __u16 check;
        __be16 urgent;
};

/* The reset that answers a segment of `len` bytes, SYN and FIN counted. */
static __always_inline struct tcp_header reset_for(const struct tcp_header *t, __u32 len)
{
        struct tcp_header r = {
                .sport = t->dport, .dport = t->sport, .off = 5 << 4, .flags = WEFT_TCP_RST
        };

        if (t->flags & WEFT_TCP_ACK) {
                r.seq = t->ack;
        } else {
                r.flags |= WEFT_TCP_ACK;
                r.ack = bpf_htonl(bpf_ntohl(t->seq) + len);
        }
        return r;
}

static __always_inline int read_segment(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                        struct tcp_header *ret, __u32 *ret_len)
{
        __u32 off = pkt->l4_off;
        __be16 total;

        if (!LOAD(ctx, off, *ret) || !LOAD(ctx, ETH_HLEN + (pkt->key.family == 4 ? 2 : 4), total))
                return 0;
        *ret_len = bpf_ntohs(total) + (pkt->key.family == 4 ? 0 : WEFT_IP6_LEN) - (off - ETH_HLEN) -
                   (ret->off >> 2 & 0x3c) + !!(ret->flags & WEFT_TCP_SYN) +
                   !!(ret->flags & WEFT_TCP_FIN);
        return !(ret->flags & WEFT_TCP_RST);
}

static __always_inline int answer_reset4(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct {
                __be32 saddr, daddr;
                __be16 proto, len;
                struct tcp_header tcp;
        } pseudo;
        struct {
                struct iphdr ip;
                struct tcp_header tcp;
        } h = {};
        struct tcp_header segment;
        __u32 len;

        if (!read_segment(ctx, pkt, &segment, &len) || resize(ctx, pkt, sizeof(h)))
                return WEFT_TCX_DROP;
        h.tcp = reset_for(&segment, len);
        h.ip.version = 4;
        h.ip.ihl = 5;
        h.ip.frag_off = bpf_htons(0x4000);
        h.ip.tot_len = bpf_htons(sizeof(h));
        h.ip.ttl = ANSWER_TTL;
        h.ip.protocol = IPPROTO_TCP;
        h.ip.saddr = pkt->key.dst.w[3];
        h.ip.daddr = pkt->key.src.w[3];
        h.ip.check = sum_of(&h.ip, sizeof(h.ip), 0);
        pseudo.saddr = h.ip.saddr;
        pseudo.daddr = h.ip.daddr;
        pseudo.proto = bpf_htons(IPPROTO_TCP);
        pseudo.len = bpf_htons(sizeof(h.tcp));
        pseudo.tcp = h.tcp;
        h.tcp.check = sum_of(&pseudo, sizeof(pseudo), 0);
        bpf_skb_store_bytes(ctx, ETH_HLEN, &h, sizeof(h), 0);
        return send_back(ctx, pkt);
}

static __always_inline int answer_reset6(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        struct {
                struct weft_addr src, dst;
                __be32 len, proto;
                struct tcp_header tcp;
        } pseudo;
        struct {
                struct ipv6hdr ip;
                struct tcp_header tcp;
        } h = {};
        struct tcp_header segment;
        __u32 len;

        if (!read_segment(ctx, pkt, &segment, &len) || resize(ctx, pkt, sizeof(h)))
                return WEFT_TCX_DROP;
        h.tcp = reset_for(&segment, len);
        h.ip.version = 6;
        h.ip.payload_len = bpf_htons(sizeof(h.tcp));
        h.ip.nexthdr = IPPROTO_TCP;
        h.ip.hop_limit = ANSWER_TTL;
        __builtin_memcpy(&h.ip.saddr, &pkt->key.dst, 16);
        __builtin_memcpy(&h.ip.daddr, &pkt->key.src, 16);
        pseudo.src = pkt->key.dst;
        pseudo.dst = pkt->key.src;
        pseudo.len = bpf_htonl(sizeof(h.tcp));
        pseudo.proto = bpf_htonl(IPPROTO_TCP);
        pseudo.tcp = h.tcp;
        h.tcp.check = sum_of(&pseudo, sizeof(pseudo), 0);
        bpf_skb_store_bytes(ctx, ETH_HLEN, &h, sizeof(h), 0);
        return send_back(ctx, pkt);
}

SEC("tc") int weft_answer(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        int errand;

        if (!pkt || pkt->fragment == 2 || pkt->host || pkt->silent)
                return WEFT_TCX_DROP;
        if (pkt->drop_reason == WEFT_PING)
                return answer_echo(ctx, pkt);
        if (!may_answer(pkt))
                return WEFT_TCX_DROP;
        errand = pkt->drop_reason == WEFT_DROP_TTL_EXPIRED || pkt->drop_reason == WEFT_DROP_TOO_BIG;
        if (pkt->key.proto == IPPROTO_TCP && !errand)
                return pkt->key.family == 4 ? answer_reset4(ctx, pkt) : answer_reset6(ctx, pkt);
        return pkt->key.family == 4 ? answer_error4(ctx, pkt) : answer_error6(ctx, pkt);
}

/* ---- drop --------------------------------------------------------------------------------- */

static __always_inline void count_drop(const struct weft_pkt *pkt)
{
        struct weft_drop_key key = { .reason = pkt->drop_reason,
                                     .module = pkt->drop_module,
                                     .hook = pkt->hook };
        struct weft_count *c = bpf_map_lookup_elem(&drops, &key), fresh = { 1, pkt->len };

        if (c) {
                c->packets++;
                c->bytes += pkt->len;
        } else {
                bpf_map_update_elem(&drops, &key, &fresh, BPF_ANY);
        }
}

SEC("tc") int weft_drop_packet(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        int answer;

        if (!pkt)
                return WEFT_TCX_DROP;
        /* an echo in fragments would have to be put together first */
        if (pkt->drop_reason == WEFT_PING && pkt->fragment)
                pkt->drop_reason = WEFT_DROP(UNSUPPORTED_PROTOCOL);
        answer = pkt->drop_reason == WEFT_PING;
        if (!answer) {
                answer = pkt->drop_reason & WEFT_REJECT_BASE;
                pkt->drop_reason &= WEFT_DROP_BASE - 1;
                answer |= pkt->drop_reason == WEFT_DROP_TTL_EXPIRED ||
                          pkt->drop_reason == WEFT_DROP_TOO_BIG;
                count_drop(pkt);
        }
        if (answer)
                weft_tail_call(ctx, WEFT_SLOT_ANSWER);
        return WEFT_TCX_DROP;
}

/* Too big for its way, and its sender lets routers cut it up: the stack can, where it may see the
 * packet as it is because the source half is applied where it leaves. */
static __always_inline int can_be_cut(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __be16 frag_off;

        return pkt->hook == WEFT_FROM_ENDPOINT && pkt->key.family == 4 &&
               pkt->act.route.delivery == WEFT_WIRE && !(pkt->act.set & WEFT_SET_DST) &&
               LOAD(ctx, ETH_HLEN + 6, frag_off) && !(frag_off & bpf_htons(0x4000));
}

/* ---- replay, the long way ----------------------------------------------------------------- */

SEC("tc") int weft_replay(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();
        union weft_route route;
        int hops, no;

        if (!pkt)
                return WEFT_TCX_NEXT;
        route = pkt->act.route;
        hops = !pkt->host && is_hop(route.delivery);
        no = hops ? hop_refusal(ctx, pkt) : 0;
        if (no == WEFT_DROP(TOO_BIG) && can_be_cut(ctx, pkt)) {
                count_forward(pkt->hook, WEFT_STACK, pkt->len);
                return to_stack(ctx, 0);
        }
        if (no)
                return weft_verdict_drop(ctx, pkt, no, 0);
        route.exit |= pkt->host && pkt->act.set == WEFT_SET_SRC;
        if (hops && pkt->act.tell) {
                weft_tail_call(ctx, WEFT_SLOT_TELL);
                return BROKEN(ctx, pkt);
        }
        count_forward(pkt->hook, route.delivery, pkt->len);
        if (pkt->host != route.exit && !(pkt->host && enters_tunnel(pkt, route)))
                return pkt->host ? WEFT_TCX_NEXT : to_stack(ctx, pkt->act.to_endpoint);
        if (pkt->host == route.exit && (hops || pkt->act.set) && rewrite(ctx, pkt, hops))
                return DROP(ctx, pkt, INVALID);
        if (enters_tunnel(pkt, route))
                return to_encap(ctx, pkt, is_tunnel(route.delivery));
        return hops ? send(ctx, pkt, route) : to_stack(ctx, pkt->act.to_endpoint);
}
