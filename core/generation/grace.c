/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/membarrier.h>
#include <sys/syscall.h>

#include <bpf/bpf.h>

#include "generation/generation.h"
#include "util.h"

/* Kernels with nohz_full CPUs refuse the global membarrier. Changing a map of maps waits for the
 * same grace period: the call must not return while a program can still see the map it replaced. */
static void replace_inner_map(void)
{
        _cleanup_close_ int inner = -1, outer = -1;
        uint32_t zero = 0;

        inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "weft_inner", sizeof(zero), sizeof(zero), 1,
                               NULL);
        if (inner < 0)
                return;

        LIBBPF_OPTS(bpf_map_create_opts, opts, .inner_map_fd = (uint32_t) inner);
        outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "weft_outer", sizeof(zero), sizeof(zero),
                               1, &opts);
        if (outer >= 0)
                (void) bpf_map_update_elem(outer, &zero, &inner, BPF_ANY);
}

void grace_period(void)
{
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
                replace_inner_map();
}
