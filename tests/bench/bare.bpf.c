/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* What weft is measured beside. "bare": the least that a datapath with a flow table must do: parse,
 * one lookup, rewrite of addresses, ports, TTL, link-layer addresses and both checksums, redirect.
 * It knows no timers, counters, states, generations, fragments or options. "limit": the least that
 * any program does that sends a packet back. "nothing": the loop itself. */

#define WEFT_ENGINE /* no stage: its structs are its own */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <weft/packet.bpf.h>
#include <weft/types.h>

#include "restore.h"

/* 1: the transport checksum by helpers, right for every way the kernel holds it; 0: directly. */
const volatile __u8 by_helper;

#define FLOWS(name, key_type)                                                                      \
        struct {                                                                                   \
                __uint(type, BPF_MAP_TYPE_HASH);                                                   \
                __uint(max_entries, 65536);                                                        \
                __type(key, key_type);                                                             \
                __type(value, struct bare_flow);                                                   \
        } name SEC(".maps")

FLOWS(bare4, struct weft_key4);
FLOWS(bare6, struct weft_key6);

static __always_inline void write_macs(void *data, const __u8 *macs)
{
        *(__u64 *) data = *(__u64 *) macs;
        *(__u32 *) (data + 8) = *(__u32 *) (macs + 8);
}

static __always_inline void write_check(void *check, __u16 delta)
{
        *(__u16 *) check = ~weft_fold((__u16) ~*(__u16 *) check + (__u32) delta);
}

/* The helper invalidates packet pointers: last. */
static __always_inline void help_check(struct __sk_buff *ctx, __u32 off, const struct bare_flow *f)
{
        __u16 addr_delta = f->addr_delta,
              rest = weft_fold((__u16) ~addr_delta + (__u32) f->l4_delta);

        bpf_l4_csum_replace(ctx, off, 0, addr_delta, BPF_F_PSEUDO_HDR);
        bpf_l4_csum_replace(ctx, off, 0, rest, 0);
}

/* Returns the flow with the packet rewritten but for a checksum left to the helper. */
static __always_inline struct bare_flow *rewrite4(void *data, void *end, int direct)
{
        struct iphdr *ip = data + ETH_HLEN;
        __be16 *ports = data + ETH_HLEN + WEFT_IP4_MIN;
        struct weft_key4 key = {};
        struct bare_flow *f;
        __u32 sum;

        if (data + ETH_HLEN + WEFT_IP4_MIN + WEFT_TCP_MIN > end || *(__u8 *) ip != 0x45 ||
            ip->frag_off & (WEFT_FRAG_MORE | WEFT_FRAG_OFFSET) || ip->protocol != IPPROTO_TCP)
                return NULL;
        key.saddr = ip->saddr;
        key.daddr = ip->daddr;
        key.sport = ports[0];
        key.dport = ports[1];
        key.proto = IPPROTO_TCP;
        f = bpf_map_lookup_elem(&bare4, &key);
        if (!f)
                return NULL;
        sum = (__u16) ~ip->check + (__u32) f->addr_delta + (__u16) ~bpf_htons(0x0100);
        ip->check = ~weft_fold(sum);
        ip->ttl--;
        ip->saddr = f->saddr.w[3];
        ip->daddr = f->daddr.w[3];
        ports[0] = f->sport;
        ports[1] = f->dport;
        write_macs(data, f->macs);
        if (direct)
                write_check((void *) ports + WEFT_TCP_CHECK, f->l4_delta);
        return f;
}

static __always_inline struct bare_flow *rewrite6(void *data, void *end, int direct)
{
        struct ipv6hdr *ip = data + ETH_HLEN;
        __be16 *ports = data + ETH_HLEN + WEFT_IP6_LEN;
        struct weft_key6 key = {};
        struct bare_flow *f;

        if (data + ETH_HLEN + WEFT_IP6_LEN + WEFT_TCP_MIN > end || *(__u8 *) ip >> 4 != 6 ||
            ip->nexthdr != IPPROTO_TCP)
                return NULL;
        __builtin_memcpy(&key.saddr, &ip->saddr, 32);
        key.sport = ports[0];
        key.dport = ports[1];
        key.proto = IPPROTO_TCP;
        f = bpf_map_lookup_elem(&bare6, &key);
        if (!f)
                return NULL;
        ip->hop_limit--;
        __builtin_memcpy(&ip->saddr, &f->saddr, 32);
        ports[0] = f->sport;
        ports[1] = f->dport;
        write_macs(data, f->macs);
        if (direct)
                write_check((void *) ports + WEFT_TCP_CHECK, f->l4_delta);
        return f;
}

static __always_inline int finish(struct __sk_buff *ctx, const struct bare_flow *f, __u32 l4)
{
        __u32 ifindex;

        if (!f)
                return 0;
        ifindex = f->ifindex;
        if (by_helper)
                help_check(ctx, l4 + WEFT_TCP_CHECK, f);
        return bpf_redirect(ifindex, 0);
}

#define DATA(ctx) (void *) (long) (ctx)->data, (void *) (long) (ctx)->data_end

SEC("tc") int bare4_tc(struct __sk_buff *ctx)
{
        return finish(ctx, rewrite4(DATA(ctx), !by_helper), ETH_HLEN + WEFT_IP4_MIN);
}

SEC("tc") int bare6_tc(struct __sk_buff *ctx)
{
        return finish(ctx, rewrite6(DATA(ctx), !by_helper), ETH_HLEN + WEFT_IP6_LEN);
}

SEC("xdp") int bare4_xdp(struct xdp_md *ctx)
{
        struct bare_flow *f = rewrite4(DATA(ctx), 1);

        return f ? bpf_redirect(f->ifindex, 0) : XDP_PASS;
}

SEC("xdp") int bare6_xdp(struct xdp_md *ctx)
{
        struct bare_flow *f = rewrite6(DATA(ctx), 1);

        return f ? bpf_redirect(f->ifindex, 0) : XDP_PASS;
}

static __always_inline void swap_macs(void *data, void *end)
{
        __u16 *mac = data, swap;

        if (data + ETH_HLEN > end)
                return;
        for (int i = 0; i < 3; i++) {
                swap = mac[i];
                mac[i] = mac[i + 3];
                mac[i + 3] = swap;
        }
}

SEC("tc") int limit_tc(struct __sk_buff *ctx)
{
        swap_macs(DATA(ctx));
        return bpf_redirect(ctx->ifindex, 0);
}

SEC("xdp") int limit_xdp(struct xdp_md *ctx)
{
        swap_macs(DATA(ctx));
        return XDP_TX;
}

SEC("tc") int nothing_tc(struct __sk_buff *ctx __attribute__((unused)))
{
        return 0;
}

SEC("xdp") int nothing_xdp(struct xdp_md *ctx __attribute__((unused)))
{
        return XDP_PASS;
}

/* ---- tunnels ------------------------------------------------------------------------------ */

/* Ready-made headers put before a packet, or taken off, and a redirect. */
static __always_inline int bare_out(struct __sk_buff *ctx, __u32 size, __u64 family_flag)
{
        static const __u8 outer[WEFT_IP6_LEN + WEFT_UDP_LEN + 8 + ETH_HLEN];

        if (bpf_skb_adjust_room(ctx, size, BPF_ADJ_ROOM_MAC,
                                BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
                                        BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | family_flag) ||
            bpf_skb_store_bytes(ctx, ETH_HLEN, outer, size, BPF_F_RECOMPUTE_CSUM))
                return TC_ACT_SHOT;
        return bpf_redirect(1, 0);
}

static __always_inline int bare_in(struct __sk_buff *ctx, __s32 size)
{
        if (bpf_skb_adjust_room(ctx, -size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
                return TC_ACT_SHOT;
        return bpf_redirect(1, 0);
}

#define OVERHEAD(ip) ((ip) + WEFT_UDP_LEN + 8 + ETH_HLEN)

SEC("tc") int bare_out4(struct __sk_buff *ctx)
{
        return bare_out(ctx, OVERHEAD(WEFT_IP4_MIN), BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
}

SEC("tc") int bare_out6(struct __sk_buff *ctx)
{
        return bare_out(ctx, OVERHEAD(WEFT_IP6_LEN), BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
}

SEC("tc") int bare_in4(struct __sk_buff *ctx)
{
        return bare_in(ctx, OVERHEAD(WEFT_IP4_MIN));
}

SEC("tc") int bare_in6(struct __sk_buff *ctx)
{
        return bare_in(ctx, OVERHEAD(WEFT_IP6_LEN));
}

char _license[] SEC("license") = "Dual BSD/GPL";
