/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_STAGE(too_early, FROM_UPLINK, EARLY)
{
        (void) pkt;
        return WEFT_NEXT;
}
