/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* What stands before a measured program. A test run does not give each repeat a fresh packet, so
 * this puts back what the program before changed and jumps to the target. With a target that
 * returns at once it is measured alone, and taken off. */

#define WEFT_ENGINE /* no stage: its structs are its own */

#include <linux/bpf.h>

#include <weft/packet.bpf.h>
#include <weft/types.h>

#include "restore.h"

const volatile struct restored weft_packet_is;

struct {
        __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u32);
} target SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u32);
} sequence SEC(".maps");

/* Every number of 16 bits once, in no order that a cache could guess (a full-period generator: the
 * factor is 1 modulo 4, the addend odd). */
static __always_inline __u32 next_number(void)
{
        __u32 zero = 0, *n = bpf_map_lookup_elem(&sequence, &zero);

        if (!n)
                return 0;
        *n = weft_packet_is.vary == VARY_NEW ? *n + 1 : *n * 25173 + 13849;
        return *n;
}

/* The low 16 bits of the address that is different in each flow. */
static __always_inline __be32 vary(__be32 word, __u32 n)
{
        return (word & bpf_htonl(0xffff0000)) | bpf_htonl(n & 0xffff);
}

static __always_inline void restore(void *data, void *end)
{
        const volatile struct restored *is = &weft_packet_is;
        __u32 n, headers = is->family == 4 ? WEFT_IP4_MIN : WEFT_IP6_LEN;
        __be32 src = is->src.w[3], dst = is->dst.w[3];
        __be16 *ports, sport = is->sport;

        if (data + ETH_HLEN + headers + WEFT_TCP_MIN > end)
                return;
        if (is->vary != VARY_NONE) {
                n = next_number();
                if (is->vary == VARY_DST)
                        dst = vary(dst, n);
                else
                        src = vary(src, n);
                if (is->vary == VARY_NEW)
                        sport = bpf_htons(NEW_PORT_LOW + n % NEW_PORTS);
        }
        if (is->family == 4) {
                struct iphdr *ip = data + ETH_HLEN;

                ip->ttl = 64;
                ip->saddr = src;
                ip->daddr = dst;
        } else {
                struct ipv6hdr *ip = data + ETH_HLEN;
                __u32 *w = (__u32 *) &ip->saddr;

                ip->hop_limit = 64;
                w[0] = is->src.w[0];
                w[1] = is->src.w[1];
                w[2] = is->src.w[2];
                w[3] = src;
                w[4] = is->dst.w[0];
                w[5] = is->dst.w[1];
                w[6] = is->dst.w[2];
                w[7] = dst;
        }
        ports = data + ETH_HLEN + headers;
        ports[0] = sport;
        ports[1] = is->dport;
}

SEC("tc") int restore_tc(struct __sk_buff *ctx)
{
        restore((void *) (long) ctx->data, (void *) (long) ctx->data_end);
        if (weft_packet_is.mark)
                ctx->mark = weft_packet_is.mark;
        bpf_tail_call_static(ctx, &target, 0);
        return NO_TARGET;
}

SEC("xdp") int restore_xdp(struct xdp_md *ctx)
{
        restore((void *) (long) ctx->data, (void *) (long) ctx->data_end);
        bpf_tail_call_static(ctx, &target, 0);
        return NO_TARGET;
}

/* As a TCP socket sends it: with a hash of its flow. */
SEC("tc") int hash_tc(struct __sk_buff *ctx)
{
        bpf_set_hash(ctx, 0x12345678);
        bpf_tail_call_static(ctx, &target, 0);
        return NO_TARGET;
}

/* As the kernel's tunnel device hands a packet over: with a key that says who sent it. */
SEC("tc") int arrive_tc(struct __sk_buff *ctx)
{
        const volatile struct restored *is = &weft_packet_is;
        struct bpf_tunnel_key key = { .tunnel_id = is->identity };
        __u64 flags = is->family == 4 ? 0 : BPF_F_TUNINFO_IPV6;

        if (is->family == 4)
                key.local_ipv4 = bpf_ntohl(is->src.w[3]);
        else
                for (int i = 0; i < 4; i++)
                        key.local_ipv6[i] = is->src.w[i];
        bpf_skb_set_tunnel_key(ctx, &key, sizeof(key), flags);
        bpf_tail_call_static(ctx, &target, 0);
        return NO_TARGET;
}

char _license[] SEC("license") = "Dual BSD/GPL";
