/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_STAGE(b_service, FROM_UPLINK, SERVICE)
{
        (void) pkt;
        ctx->mark = ctx->mark << 4 | 8;
        return WEFT_NEXT;
}

WEFT_STAGE(b_route, FROM_UPLINK, ROUTE)
{
        (void) pkt;
        ctx->mark = ctx->mark << 4 | 9;
        return WEFT_NEXT;
}

WEFT_STAGE(b_masquerade, FROM_UPLINK, MASQUERADE)
{
        (void) pkt;
        ctx->mark = ctx->mark << 4 | 10;
        return WEFT_NEXT;
}
