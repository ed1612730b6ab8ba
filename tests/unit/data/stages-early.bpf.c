/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Early stages that write a digit each into the highest byte of the mark, and one that is none. */

#include <weft/stage.bpf.h>

char _license[] SEC("license") = "Dual BSD/GPL";

#define DIGIT(mark, digit) ((mark) << 4 & 0xf0000000 | (digit) << 24 | (mark) &0x00ffffff)

WEFT_STAGE(e_1, FROM_UPLINK | FROM_ENDPOINT, EARLY)
{
        ctx->mark = DIGIT(ctx->mark, 1);
        return weft_hook_id == WEFT_FROM_ENDPOINT ? WEFT_DONE : WEFT_NEXT;
}

WEFT_STAGE(e_2, FROM_UPLINK | FROM_ENDPOINT, EARLY)
{
        ctx->mark = DIGIT(ctx->mark, 2);
        return WEFT_NEXT;
}

WEFT_STAGE(late, TO_ENDPOINT, FILTER)
{
        return WEFT_NEXT;
}
