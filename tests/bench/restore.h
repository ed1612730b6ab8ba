/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* What restore.bpf.c and the bench agree on. */

#include <weft/types.h>

enum vary {
        VARY_NONE, /* one flow */
        VARY_SRC,  /* 64 K flows: the low 16 bits of the source address */
        VARY_DST,  /* … of the destination */
        VARY_NEW,  /* a new flow each time: source address and port */
};

/* Source ports of new flows: a range that SNAT gives out, so that each keeps its own. */
#define NEW_PORT_LOW 61000
#define NEW_PORTS 4500

#define NO_TARGET 99 /* what a restore returns whose target is missing */

struct restored {
        struct weft_addr src, dst;
        __be16 sport, dport;
        __u8 family; /* 4 or 6 */
        __u8 vary;   /* enum vary */
        __u16 zero;
        __u32 mark;     /* 0: left as it is */
        __u32 identity; /* not 0: it comes out of the kernel's tunnel device, sent by the node src
                         */
};

/* A flow of the bare programs: what a packet is rewritten to, ready made. */
struct bare_flow {
        struct weft_addr saddr, daddr;
        __be16 sport, dport;
        __u16 addr_delta, l4_delta;
        __u8 macs[12];
        __u32 ifindex;
};
