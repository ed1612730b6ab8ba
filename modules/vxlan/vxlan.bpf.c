// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* VXLAN: what goes to a peer behind the tunnel is carried there. How is said in vxlan.c, and done
 * by the engine. */

#include <weft/stage.bpf.h>

WEFT_STAGE(vxlan, FROM_ENDPOINT | FROM_UPLINK | FROM_OVERLAY | TO_UPLINK, ENCAP)
{
        return weft_plan_tunnel_to_peer(pkt);
}

char _license[] SEC("license") = "Dual BSD/GPL";
