// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* The engine: every program of weft's own, in the order in which a packet meets them.
 * docs/packet-path.md walks through it.
 *
 *   entry.h   first program of each hook; replays what is decided, lets pass what is none of ours
 *   parse.h   headers that are not plain
 *   decide.h  what a packet means to its flow; the start of the chain
 *   way.h     its end: delivery, route, next hop
 *   commit.h  a plan becomes two entries
 *   icmp.h    errors about packets of a flow
 *   dsr.h     direct server return: what the first node tells the backend's
 *   answer.h  the long replay, drops, and what weft says itself
 *   tunnel.h  into a tunnel and out of it
 *   wrap.h    direct server return by packets in packets
 *   xdp.h     replay before there is an skb
 *   early.h   in front of all that, where a module must see every packet
 */

#include "answer.h"
#include "wrap.h"
#include "xdp.h"
#include "early.h"

char _license[] SEC("license") = "Dual BSD/GPL";
