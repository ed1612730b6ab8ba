/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* The core's tables without the engine, and the kernel's clock. */

#define WEFT_ENGINE /* no stage: its structs are its own */

#include <weft/tables.bpf.h>

/* As the engine has them: not shared. */
WEFT_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, scratch, __u32, __u64, 1, 0);

/* What the array of counters of a CPU is for a program. */
SEC("tc") int count_event(struct __sk_buff *ctx __attribute__((unused)))
{
        weft_event(WEFT_EVENT_COMMIT);
        return 0;
}

/* Low half of jiffies, as the engine reads them. */
SEC("tc") int read_jiffies(struct __sk_buff *ctx __attribute__((unused)))
{
        return bpf_jiffies64();
}

char _license[] SEC("license") = "Dual BSD/GPL";
