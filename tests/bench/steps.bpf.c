/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Where the time of a replay goes: the bare program, and step by step what the engine does besides,
 * with the engine's own functions and tables. What is still missing at the end is entry's: which
 * hook, VLAN, fragments, lengths, and the ways to the long path. */

#include "../../bpf/replay.h"

#include "steps.h"

const volatile __u8 steps;

static __always_inline int is_plain(const struct short_packet *p)
{
        struct iphdr *ip = p->data + ETH_HLEN;

        return p->data + ETH_HLEN + WEFT_IP4_MIN + WEFT_TCP_MIN <= p->end && *(__u8 *) ip == 0x45 &&
               !(ip->frag_off & (WEFT_FRAG_MORE | WEFT_FRAG_OFFSET)) && ip->protocol == IPPROTO_TCP;
}

static __always_inline int is_valid(const struct weft_flow4 *flow, const struct weft_key4 *key,
                                    const struct short_packet *p)
{
        return is_current(&flow->f, p) && key4_is(&flow->key, key);
}

static __always_inline int find_hop(const struct weft_flow4 *flow, __u64 now, struct hop *ret)
{
        if (steps >= STEP_NEXTHOP)
                return read_hop(flow->f.route, now, ret);
        *ret = (struct hop) { .mac0 = 1, .mac1 = 2, .ifindex = 1 };
        return 1;
}

static __always_inline int rewrite_as_bare(struct __sk_buff *ctx, struct weft_flow4 *flow,
                                           const struct short_packet *p, const struct hop *hop)
{
        struct check_place c = { .off = ETH_HLEN + WEFT_IP4_MIN + WEFT_TCP_CHECK,
                                 .family = 4,
                                 .pseudo = 1 };
        void *l4 = p->data + ETH_HLEN + WEFT_IP4_MIN;
        __u16 addr_delta = flow->f.addr_delta, l4_delta = flow->f.l4_delta;

        write_macs(p->data, hop);
        rewrite_ip4(p->data + ETH_HLEN, flow->saddr, flow->daddr, addr_delta, 1);
        *(__u32 *) l4 = *(__u32 *) &flow->f.sport;
        c.at = p->data + c.off;
        if ((void *) (c.at + 1) > p->end)
                return 0;
        if (steps < STEP_CHECKSUM) {
                *c.at = ~weft_fold((__u16) ~*c.at + (__u32) l4_delta);
                return bpf_redirect(hop->ifindex, 0);
        }
        fix_check(ctx, &c, addr_delta, l4_delta);
        return redirect(ctx, hop);
}

SEC("tc") int steps_tc(struct __sk_buff *ctx)
{
        struct short_packet p = { .data = (void *) (long) ctx->data,
                                  .end = (void *) (long) ctx->data_end,
                                  .len = ctx->len - ETH_HLEN };
        struct iphdr *ip = p.data + ETH_HLEN;
        __be16 *ports = p.data + ETH_HLEN + WEFT_IP4_MIN;
        struct weft_flow4 *flow;
        struct weft_key4 key;
        struct hop hop;

        if (!is_plain(&p))
                return 0;
        key = (struct weft_key4) { .saddr = ip->saddr,
                                   .daddr = ip->daddr,
                                   .sport = ports[0],
                                   .dport = ports[1],
                                   .proto = IPPROTO_TCP,
                                   .side = WEFT_SIDE_UPLINK };
        flow = bpf_map_lookup_elem(&flows4, &key);
        if (!flow)
                return 0;
        if (steps >= STEP_VALIDITY) {
                p.epoch = epoch_now();
                p.now = bpf_jiffies64();
                p.flags = WEFT_WATCH_ALL | (((__u8 *) ports)[13] & 0x7f);
                if (!is_valid(flow, &key, &p))
                        return 0;
        }
        if (!find_hop(flow, p.now, &hop))
                return 0;
        if (steps >= STEP_ACCOUNT)
                account(&flow->f, p.now, p.len);
        if (steps >= STEP_COUNT)
                count_forward(WEFT_FROM_UPLINK, WEFT_WIRE, p.len);
        if (steps >= STEP_CHECKSUM && !fits(ctx, flow->f.route.mtu, p.len, 40))
                return 0;
        return rewrite_as_bare(ctx, flow, &p, &hop);
}

char _license[] SEC("license") = "Dual BSD/GPL";
