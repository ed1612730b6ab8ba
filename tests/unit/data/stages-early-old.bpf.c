/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* An early stage as the headers of stage ABI 1.0 would have made it. */

#include <weft/stage.bpf.h>

#undef WEFT_STAGE_ABI_MINOR
#define WEFT_STAGE_ABI_MINOR 0

char _license[] SEC("license") = "Dual BSD/GPL";

WEFT_STAGE(too_early, FROM_UPLINK, EARLY)
{
        return WEFT_NEXT;
}
