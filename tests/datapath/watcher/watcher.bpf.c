// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Two early stages in every hook, and what they think of a packet its destination port says (of one
 * that is not IP, its address). What they saw they leave in the mark: see watcher.h. All other
 * packets they let go on without a trace. */

#include <weft/packet.bpf.h>
#include <weft/stage.bpf.h>

#include "watcher.h"

static __always_inline __u32 what_is_seen(const struct weft_pkt *pkt)
{
        return pkt->key.family << SEEN_FAMILY | pkt->key.proto << SEEN_PROTO |
               pkt->fragment << SEEN_FRAGMENT | (pkt->hook + 1u) << SEEN_HOOK;
}

static __always_inline __u16 order_of(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __u8 mac[6];

        if (pkt->key.family)
                return bpf_ntohs(pkt->key.dport);
        return bpf_skb_load_bytes(ctx, 6, mac, sizeof(mac)) ? 0 : mac[4] << 8 | mac[5];
}

/* A byte of the packet that is the module's to write, and the checksum of TCP with it. */
static __always_inline int write(struct __sk_buff *ctx, const struct weft_pkt *pkt)
{
        __be16 port = bpf_htons(WATCH_WRITTEN);

        if (bpf_l4_csum_replace(ctx, pkt->l4_off + WEFT_TCP_CHECK, pkt->key.dport, port,
                                sizeof(port)) ||
            bpf_skb_store_bytes(ctx, pkt->l4_off + 2, &port, sizeof(port), 0))
                return WEFT_DROP(INVALID);
        return WEFT_NEXT;
}

WEFT_STAGE(watch_1, FROM_ENDPOINT | TO_ENDPOINT | FROM_UPLINK | TO_UPLINK | FROM_OVERLAY, EARLY)
{
        __u16 order = order_of(ctx, pkt);

        if (order < WATCH_FIRST || order > WATCH_LAST)
                return WEFT_NEXT;
        ctx->mark |= what_is_seen(pkt);
        switch (order) {
        case WATCH_DROP:
                return WEFT_DROP(POLICY);
        case WATCH_DROP_OWN:
                return WEFT_DROP_OWN(0);
        case WATCH_REJECT:
                return WEFT_REJECT(POLICY);
        case WATCH_PASS:
                return WEFT_PASS;
        case WATCH_DONE:
                return WEFT_DONE;
        case WATCH_TRACK:
                return WEFT_TRACK;
        case WATCH_PING:
                return WEFT_PING;
        case WATCH_NONSENSE:
                return 77;
        case WATCH_WRITE:
                return write(ctx, pkt);
        case WATCH_PLAN:
                weft_plan_destination(pkt, &pkt->key.src, bpf_htons(1));
                weft_plan_whole(pkt);
                break;
        }
        return WEFT_NEXT;
}

WEFT_STAGE(watch_2, FROM_ENDPOINT | TO_ENDPOINT | FROM_UPLINK | TO_UPLINK | FROM_OVERLAY, EARLY)
{
        __u16 order = order_of(ctx, pkt);

        if (order >= WATCH_FIRST && order <= WATCH_LAST)
                ctx->mark |= SEEN_TWICE;
        return WEFT_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
