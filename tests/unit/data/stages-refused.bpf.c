/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* The verifier refuses it: the lookup may fail, and nobody looks. */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_STAGE(careless, FROM_UPLINK, ROUTE)
{
        const struct weft_link *link = bpf_map_lookup_elem(&links, &pkt->ifindex);

        return link->mtu ? WEFT_NEXT : WEFT_DONE;
}
