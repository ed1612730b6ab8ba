/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One kind of packet, measured: the programs of its row, run in rounds. */

#include "kinds.h"
#include "measure.h"

#define ROUNDS 31
#define REPEAT FLOWS
#define REPEAT_NEW 4000 /* new flows of one run: few enough that ports and table have room */

/* The programs of one kind, in groups of three for one flow and for 64 K: restore, bare, weft. */
enum series { NOTHING, LIMIT, RESTORE, BARE, WEFT, RESTORE_MANY, BARE_MANY, WEFT_MANY, SERIES };

/* world, kind and family are the caller's, the rest begins as zero. */
struct run {
        struct world *world;
        const struct kind *kind;
        int family;
        struct ready ready;
        struct measured series[SERIES];
        bool use[SERIES];
        double ns[SERIES][ROUNDS];
        uint64_t slow; /* packets of measured runs that took the long path */
};

/* Opens the connection and loads the programs. False with the reason on stderr, as below. */
bool run_prepare(struct run *r);
/* One program of the row, once; false too where it does not do with the packet what it should. */
bool run_one(struct run *r, enum series s, unsigned round);
/* All of them, in every round, in an order that turns. */
bool run_rounds(struct run *r);
void run_done(struct run *r);

bool run_is_new(const struct run *r);
/* The bare program of this name for the packet's hook. */
int run_named(const struct run *r, const char *what);
/* Median over the rounds of one program less another, with the quarter and three-quarter marks. */
double run_net(const struct run *r, enum series s, enum series control, double *ret_low,
               double *ret_high);
