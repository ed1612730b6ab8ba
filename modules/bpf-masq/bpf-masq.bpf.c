// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Masquerading: a connection that an endpoint opens to the world outside gets the address of the
 * node, of the interface by which it leaves. Answers to connections from outside belong to a flow
 * that is known, and never come here. */

#include <weft/stage.bpf.h>

const volatile __u8 masquerade_ipv6, route_source;
const volatile __u16 snat_low, snat_high;
const volatile struct weft_addr address4, address6; /* all zero: the interface's own */

struct no_masquerade_key {
        __u32 prefixlen; /* over 128 bits */
        struct weft_addr addr;
};

/* Destinations that keep the endpoint's address; filled by the module. */
WEFT_MAP(BPF_MAP_TYPE_LPM_TRIE, no_masquerade, struct no_masquerade_key, __u8, 16384,
         BPF_F_NO_PREALLOC);

static __always_inline int keeps_address(const struct weft_pkt *pkt)
{
        struct no_masquerade_key key = { .prefixlen = 128, .addr = pkt->plan.dst };

        return pkt->plan.endpoint || pkt->plan.flags & WEFT_PLAN_NATIVE ||
               (pkt->key.family == 6 && !masquerade_ipv6) ||
               bpf_map_lookup_elem(&no_masquerade, &key);
}

/* Does the packet leave the node? The routing table knows its own addresses. */
static __always_inline int leaves(struct __sk_buff *ctx, struct weft_pkt *pkt)
{
        int r = weft_route_of(ctx, pkt);

        return r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH;
}

#define LOOKUP_SRC (1u << 4) /* BPF_FIB_LOOKUP_SRC, Linux 6.7 */

/* The address that the route prefers for what the node sends by it, and what the kernel would
 * choose where it names none. 0: it cannot be told. */
static __always_inline int source_of_route(struct __sk_buff *ctx, const struct weft_pkt *pkt,
                                           struct weft_addr *ret)
{
        struct bpf_fib_lookup fib = {};

        weft_fill_lookup(ctx, pkt, &fib);
        if (bpf_fib_lookup(ctx, &fib, sizeof(fib), LOOKUP_SRC) < 0)
                return 0;
        if (pkt->key.family == 4)
                *ret = (struct weft_addr) { { 0, 0, bpf_htonl(0xffff), fib.ipv4_src } };
        else
                __builtin_memcpy(ret, fib.ipv6_src, 16);
        return !weft_same_addr(ret, &pkt->plan.src);
}

WEFT_STAGE(bpf_masq, FROM_ENDPOINT, MASQUERADE)
{
        struct weft_addr fixed = pkt->key.family == 4 ? address4 : address6;
        const struct weft_addr *node;
        struct weft_addr preferred;

        if (keeps_address(pkt) || !leaves(ctx, pkt))
                return WEFT_NEXT;
        node = weft_node_address(pkt, pkt->way.ifindex);
        /* not an uplink: nobody there knows the node by an address of ours */
        if (!node)
                return WEFT_NEXT;
        if (route_source && source_of_route(ctx, pkt, &preferred))
                node = &preferred;
        if (fixed.w[0] | fixed.w[1] | fixed.w[2] | fixed.w[3])
                node = &fixed;
        weft_plan_source(pkt, node, snat_low, snat_high, 1, 0);
        return WEFT_DONE;
}

char _license[] SEC("license") = "Dual BSD/GPL";
