/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* Stages that write a digit each into the mark. */

#include <weft/stage.bpf.h>

const volatile __u16 digit_port; /* option "digit-port" */
const volatile __u32 secret;     /* weft_api.constant() */

char _license[] SEC("license") = "Dual BSD/GPL";

/* The module's own: shared by its stages. */
WEFT_MAP(BPF_MAP_TYPE_ARRAY, a_runs, __u32, __u32, 1, 0);
WEFT_MAP(BPF_MAP_TYPE_ARRAY, a_told, __u32, __u32, 4, 0);

static __always_inline void count(void)
{
        __u32 zero = 0, *n = bpf_map_lookup_elem(&a_runs, &zero);

        if (n)
                __sync_fetch_and_add(n, 1);
}

static __always_inline void put(__u32 index, __u32 value)
{
        bpf_map_update_elem(&a_told, &index, &value, 0);
}

WEFT_STAGE(a_filter, FROM_UPLINK | TO_UPLINK, FILTER)
{
        (void) pkt;
        count();
        put(0, digit_port);
        put(1, secret);
        put(2, weft_module_id);
        put(3, weft_hook_id);
        ctx->mark = ctx->mark << 4 | 1;
        return WEFT_NEXT;
}

WEFT_STAGE(a_service, FROM_UPLINK, SERVICE, BEFORE("stages-b") AFTER("nobody"))
{
        (void) pkt;
        count();
        ctx->mark = ctx->mark << 4 | 2;
        return WEFT_DONE;
}

WEFT_STAGE(a_deliver, FROM_UPLINK, DELIVER)
{
        (void) pkt;
        count();
        ctx->mark = ctx->mark << 4 | 3;
        return WEFT_TRACK;
}
