/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What steps.bpf.c does beyond the bare program; each step includes those before it. */
enum step {
        STEP_BARE,
        STEP_VALIDITY, /* epoch, deadline, watched TCP flags, backend's number, own key compared */
        STEP_NEXTHOP,  /* interface and link-layer addresses from the next-hop table */
        STEP_ACCOUNT,  /* deadline, packets and bytes written to the flow */
        STEP_COUNT,    /* per-CPU counter of forwarded packets */
        STEP_CHECKSUM, /* how the kernel holds the checksum, MTU, mark */
        STEPS,
};

#define STEP_TEXTS                                                                                 \
        {                                                                                          \
                "bare: parse, lookup, rewrite, redirect (with weft's own table)",                  \
                        "+ is it still valid: epoch, deadline, watched flags, backend, own key",   \
                        "+ next hop from its table", "+ deadline, packets, bytes of the flow",     \
                        "+ per-CPU counter of forwarded packets",                                  \
                        "+ how the kernel holds the checksum, MTU, mark"                           \
        }
