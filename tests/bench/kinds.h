/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is measured: connections, their flows as the engine itself stored them, and 64 K copies. */

#include "../datapath/world.h"
#include "restore.h"

#define FLOWS 65536u

struct kind {
        const char *name;
        enum weft_hook hook; /* where the opener's packets are seen, and the answers */
        enum weft_hook answer_hook;
        enum who from, to;
        uint16_t sport, dport;
        bool answer;    /* the answer's direction is measured */
        enum vary vary; /* what is different in each of 64 K flows; VARY_NONE: one flow only */
        int verdict;
        bool marked; /* the packet bears weft's mark: it was redirected here */
};

/* What a packet costs a node that has to run several programs for it. */
struct way {
        const char *name;
        const char *kinds[4]; /* in their order */
        unsigned aim, peer;   /* ns: what is aimed at, and the best of the peers measured */
};

extern const struct kind kinds[];
extern const size_t n_kinds;
extern const struct way ways[];
extern const size_t n_ways;
const struct kind *kind_named(const char *name);

/* One direction of an established connection, ready to be measured. */
struct ready {
        struct packet packet;
        uint32_t ifindex;
        struct restored is;
        enum weft_hook hook;
};

/* Opens the connection through the real programs until it is established. False with the reason on
 * stderr. */
bool kind_establish(struct world *w, const struct kind *k, int family, struct ready *ret);
/* Fills the flow table, and that of the bare program, with 64 K copies of the measured direction
 * that differ in one address. */
bool kind_multiply(struct world *w, const struct kind *k, int family, const struct ready *r,
                   int bare_fd);
/* A next hop is confirmed through the kernel's neighbour layer every few seconds, by one packet of
 * the long path. Copies have no partner and would not survive that: it is believed for ever. */
void believe_next_hops(struct world *w);
/* Empties the flow tables, in one walk. */
void forget_flows(struct world *w);
