/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Direct server return. The first node puts the service's address and port into a packet, right
 * behind the fixed IP header (weft_tell); the backend's node takes them out before anything else is
 * done with the packet (weft_strip). Layouts: packet.bpf.h. */

#include "icmp.h"

#define IP4_WORDS_MAX 15

/* Datagrams that travel as one GSO packet keep their length; segments of TCP make room. */
static __always_inline int adjust(struct __sk_buff *ctx, const struct weft_pkt *pkt, __s32 by)
{
        return bpf_skb_adjust_room(ctx, by, BPF_ADJ_ROOM_NET,
                                   pkt->key.proto == IPPROTO_TCP ? 0 : BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Stores n bytes; where the kernel has a sum of the whole packet, that follows. */
#define STORE(ctx, off, from, n) bpf_skb_store_bytes(ctx, off, from, n, BPF_F_RECOMPUTE_CSUM)

/* ---- telling ------------------------------------------------------------------------------ */

/* The client's port, where the packet bears another. */
static __always_inline __be16 client_port(const struct weft_pkt *pkt)
{
        return pkt->act.sport == pkt->key.sport ? 0 : pkt->key.sport;
}

static __always_inline __u32 option_length(const struct weft_pkt *pkt)
{
        if (is_tunnel(pkt->act.route.delivery))
                return pkt->key.family == 6 ? sizeof(struct weft_dsr_geneve6)
                                            : sizeof(struct weft_dsr_geneve4);
        return pkt->key.family == 6 ? sizeof(struct weft_dsr_option6) : client_port(pkt) ? 12 : 8;
}

static __always_inline int tell4(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        struct weft_dsr_option4 o = { .kind = WEFT_DSR_KIND4,
                                      .len = client_port(pkt) ? 12 : 8,
                                      .port = pkt->key.dport,
                                      .addr = pkt->key.dst.w[3],
                                      .client_port = client_port(pkt) };
        const __u16 *words = (const __u16 *) &o;
        struct iphdr ip, new;
        __u32 sum = 0;

        if (!LOAD(ctx, ETH_HLEN, ip) || ip.ihl + o.len / 4 > IP4_WORDS_MAX)
                return WEFT_DROP(UNSUPPORTED_PROTOCOL);
        if (adjust(ctx, pkt, o.len))
                return WEFT_DROP(INVALID);
        new = ip;
        new.ihl += o.len / 4;
        new.tot_len = bpf_htons(bpf_ntohs(ip.tot_len) + o.len);
        for (__u32 i = 0; i < sizeof(o) / 2; i++)
                sum += words[i]; /* what is not sent is 0 */
        new.check = weft_check_add(ip.check, weft_diff16(*(__u16 *) &ip, *(__u16 *) &new) +
                                                     weft_diff16(ip.tot_len, new.tot_len) + sum);
        STORE(ctx, ETH_HLEN, &new, sizeof(new));
        if (o.len == 12)
                STORE(ctx, ETH_HLEN + WEFT_IP4_MIN, &o, 12);
        else
                STORE(ctx, ETH_HLEN + WEFT_IP4_MIN, &o, 8);
        return 0;
}

static __always_inline int tell6(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        struct weft_dsr_option6 o = { .words = 2,
                                      .kind = WEFT_DSR_KIND6,
                                      .len = 20,
                                      .addr = pkt->key.dst,
                                      .port = pkt->key.dport,
                                      .client_port = client_port(pkt) };
        struct ipv6hdr ip;

        /* hop-by-hop options come first in every packet (RFC 8200 §4.1) */
        if (!LOAD(ctx, ETH_HLEN, ip) || ip.nexthdr == IPPROTO_HOPOPTS)
                return WEFT_DROP(UNSUPPORTED_PROTOCOL);
        if (adjust(ctx, pkt, sizeof(o)))
                return WEFT_DROP(INVALID);
        o.next = ip.nexthdr;
        ip.nexthdr = IPPROTO_DSTOPTS;
        ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) + sizeof(o));
        STORE(ctx, ETH_HLEN, &ip, 8);
        STORE(ctx, ETH_HLEN + WEFT_IP6_LEN, &o, sizeof(o));
        return 0;
}

/* Weft_encap takes the word along. */
static __always_inline void tell_by_tunnel(struct weft_pkt *pkt)
{
        if (pkt->key.family == 4) {
                struct weft_dsr_geneve4 *o = (void *) pkt->act.options;

                *o = (struct weft_dsr_geneve4) { .class = bpf_htons(WEFT_DSR_CLASS),
                                                 .type = WEFT_DSR_TYPE,
                                                 .words = 2,
                                                 .addr = pkt->key.dst.w[3],
                                                 .port = pkt->key.dport,
                                                 .client_port = client_port(pkt) };
                pkt->act.n_options = sizeof(*o);
        } else {
                struct weft_dsr_geneve6 *o = (void *) pkt->act.options;

                *o = (struct weft_dsr_geneve6) { .class = bpf_htons(WEFT_DSR_CLASS),
                                                 .type = WEFT_DSR_TYPE,
                                                 .words = 5,
                                                 .addr = pkt->key.dst,
                                                 .port = pkt->key.dport,
                                                 .client_port = client_port(pkt) };
                pkt->act.n_options = sizeof(*o);
        }
}

/* What it was told, the backend's node need not be told again. */
static __always_inline void note_told(__u8 family, const struct weft_pkt *pkt)
{
        struct weft_flow *f = flow_of(family, &pkt->key);

        if (f)
                f->flags &= ~WEFT_FLOW_TELL;
}

static __always_inline int tell(__u8 family, struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        __u32 mtu = pkt->act.route.mtu, room = option_length(pkt);
        int no;

        if (mtu)
                mtu -= room;
        if (!fits(ctx, mtu, pkt->len, header_length(ctx, pkt))) {
                pkt->act.route.mtu = mtu;
                return DROP(ctx, pkt, TOO_BIG);
        }
        if (rewrite(ctx, pkt, 1))
                return DROP(ctx, pkt, INVALID);
        if (is_tunnel(pkt->act.route.delivery))
                tell_by_tunnel(pkt);
        else if ((no = family == 4 ? tell4(ctx, pkt) : tell6(ctx, pkt)))
                return weft_verdict_drop(ctx, pkt, no, 0);
        note_told(family, pkt);
        count_forward(pkt->hook, pkt->act.route.delivery, pkt->len);
        if (is_tunnel(pkt->act.route.delivery))
                return to_encap(ctx, pkt, 1);
        return send(ctx, pkt, pkt->act.route);
}

SEC("tc") int weft_tell(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        return pkt ? BY_FAMILY(tell, ctx, pkt) : WEFT_TCX_NEXT;
}

/* ---- being told --------------------------------------------------------------------------- */

static __always_inline int strip4(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u32 n = pkt->told.given == 12 ? 12 : 8, sum = 0;
        struct iphdr ip, new;
        __u16 words[6] = {};

        if (!LOAD(ctx, ETH_HLEN, ip) ||
            bpf_skb_load_bytes(ctx, ETH_HLEN + WEFT_IP4_MIN, words, 8) ||
            (n == 12 && !LOAD(ctx, ETH_HLEN + WEFT_IP4_MIN, words)))
                return -1;
        for (__u32 i = 0; i < 6; i++)
                sum += (__u16) ~words[i];
        new = ip;
        new.ihl -= n / 4;
        new.tot_len = bpf_htons(bpf_ntohs(ip.tot_len) - n);
        new.check = weft_check_add(ip.check, weft_diff16(*(__u16 *) &ip, *(__u16 *) &new) +
                                                     weft_diff16(ip.tot_len, new.tot_len) + sum);
        if (adjust(ctx, pkt, n == 12 ? -12 : -8))
                return -1;
        return STORE(ctx, ETH_HLEN, &new, sizeof(new));
}

static __always_inline int strip6(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        struct ipv6hdr ip;

        if (!LOAD(ctx, ETH_HLEN, ip) ||
            bpf_skb_load_bytes(ctx, ETH_HLEN + WEFT_IP6_LEN, &ip.nexthdr, 1))
                return -1;
        ip.payload_len =
                bpf_htons(bpf_ntohs(ip.payload_len) - (__u16) sizeof(struct weft_dsr_option6));
        if (adjust(ctx, pkt, -(__s32) sizeof(struct weft_dsr_option6)))
                return -1;
        return STORE(ctx, ETH_HLEN, &ip, 8);
}

/* Takes the word out and has the packet parsed again, as it is without. */
SEC("tc") int weft_strip(struct __sk_buff *ctx)
{
        struct weft_pkt *pkt = weft_packet();

        if (!pkt)
                return WEFT_TCX_NEXT;
        if (pkt->key.family == 4 ? strip4(ctx, pkt) : strip6(ctx, pkt))
                return DROP(ctx, pkt, INVALID);
        pkt->fragment = 0;
        pkt->len = ctx->len - ETH_HLEN;
        weft_tail_call(ctx, WEFT_SLOT_PARSE);
        return BROKEN(ctx, pkt);
}
