/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* A hook that does not exist. */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_STAGE(lost, FROM_ENDPOINT | FROM_NOWHERE, ROUTE)
{
        (void) pkt;
        return WEFT_NEXT;
}
