/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the running kernel can do and what its host does already, found out by trying and never by
 * its version. Each answer is sought once and kept. Needs CAP_BPF and CAP_NET_ADMIN: what may not
 * be tried counts as absent.
 *
 * For tests of what a lesser kernel would get: WEFTD_DEBUG_FACTS="no-NAME no-NAME…" in the
 * environment of weftd or weftctl makes each fact of such a name absent; names are those that
 * weftctl probe prints ("no-redirect-peer no-fib_lookup"). */

#include "plan/plan.h"

/* Every fact that is known by name: the eBPF helpers of tc programs, the features
 *      tcx               ordered tc programs attached by links
 *      redirect-peer     redirect to the peer device in another namespace
 *      cast-to-kern-ctx  programs that read the kernel's own packet struct
 *      link-update       the program of a link can be replaced
 *      fib-lookup-src    the routing lookup of programs tells the source address, too
 *      decap-protocol    what a program takes out of a tunnel can be of another protocol
 *      nftables          tables of nftables, of both families at once
 * kinds of network devices, and of the host, as it was at the last probe_host()
 *      masquerade-free   nobody else masquerades packets from the pods
 *      redirect-free     nobody else translates connections to the pods
 * Owned by the probe, valid until the process ends. */
const struct fact *probe_facts(size_t *ret_n);

/* One of them; tries no other. False for a name that is not known. */
bool probe_has(enum weft_need_kind kind, const char *name);

/* Looks at the host anew. pods: the prefixes that matter; n 0: all. Where it is not called, the
 * host is looked at once, for all. */
void probe_host(const struct weft_prefix *pods, size_t n);

/* Jiffies per second. */
uint32_t probe_hz(void);
