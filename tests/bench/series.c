/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "series.h"

bool run_is_new(const struct run *r)
{
        return r->kind->vary == VARY_NEW;
}

static bool is_xdp(const struct run *r)
{
        return r->ready.hook == WEFT_XDP_UPLINK;
}

/* ---- preparing ---------------------------------------------------------------------------- */

int run_named(const struct run *r, const char *what)
{
        char name[32];

        (void) snprintf(name, sizeof(name), "%s_%s", what, is_xdp(r) ? "xdp" : "tc");
        return bare_program(name);
}

static bool plain(struct run *r, enum series s, int fd)
{
        r->series[s] = (struct measured) { .fd = fd, .xdp = is_xdp(r) };
        return r->use[s] = true;
}

static bool restored(struct run *r, enum series s, enum vary vary, int target)
{
        struct restored is = r->ready.is;

        is.vary = vary;
        return r->use[s] = measured_with_restore(&r->series[s], &is, is_xdp(r), target);
}

static bool prepare_programs(struct run *r)
{
        int weft = r->world->programs[r->ready.hook], nothing = run_named(r, "nothing");
        int bare = run_named(r, r->family == AF_INET ? "bare4" : "bare6");
        enum vary one = run_is_new(r) ? VARY_NEW : VARY_NONE, many = r->kind->vary;

        if (!plain(r, NOTHING, nothing) || !plain(r, LIMIT, run_named(r, "limit")) ||
            !restored(r, RESTORE, one, nothing) || !restored(r, WEFT, one, weft))
                return false;
        if (many == VARY_NONE || run_is_new(r))
                return true;

        return restored(r, BARE, VARY_NONE, bare) && restored(r, RESTORE_MANY, many, nothing) &&
               restored(r, BARE_MANY, many, bare) && restored(r, WEFT_MANY, many, weft);
}

bool run_prepare(struct run *r)
{
        bool many = r->kind->vary == VARY_SRC || r->kind->vary == VARY_DST;

        forget_flows(r->world);
        if (!kind_establish(r->world, r->kind, r->family, &r->ready))
                return false;
        if (many && !kind_multiply(r->world, r->kind, r->family, &r->ready,
                                   bare_map(r->family == AF_INET ? "bare4" : "bare6")))
                return false;

        return prepare_programs(r);
}

/* ---- measuring ---------------------------------------------------------------------------- */

static uint64_t slow_packets(struct world *w)
{
        return world_event(w, WEFT_EVENT_MISS) + world_event(w, WEFT_EVENT_AGAIN);
}

static bool check_verdict(const struct run *r, enum series s, int verdict)
{
        if ((s != WEFT && s != WEFT_MANY && s != BARE && s != BARE_MANY) ||
            verdict == r->kind->verdict)
                return true;

        fprintf(stderr, "bench: %s, IPv%c, program %d: verdict %d\n", r->kind->name,
                r->family == AF_INET ? '4' : '6', s, verdict);
        return false;
}

/* A first packet that is no first packet, or is dropped, must not be measured as one. */
static bool check_commits(const struct run *r, enum series s, uint64_t commits)
{
        if (s != WEFT || !run_is_new(r) || commits == REPEAT_NEW)
                return true;

        fprintf(stderr, "bench: %s: %llu of %d connections stored\n", r->kind->name,
                (unsigned long long) commits, REPEAT_NEW);
        return false;
}

bool run_one(struct run *r, enum series s, unsigned round)
{
        bool weft = s == WEFT || s == WEFT_MANY;
        uint64_t before, commits;
        int verdict;

        if (run_is_new(r))
                forget_flows(r->world);
        before = slow_packets(r->world);
        commits = world_event(r->world, WEFT_EVENT_COMMIT);
        r->ns[s][round] =
                measured_run(&r->series[s], r->ready.ifindex, r->ready.packet.data,
                             r->ready.packet.len, run_is_new(r) ? REPEAT_NEW : REPEAT, &verdict);
        if (weft)
                r->slow += slow_packets(r->world) - before;

        return check_verdict(r, s, verdict) &&
               check_commits(r, s, world_event(r->world, WEFT_EVENT_COMMIT) - commits);
}

bool run_rounds(struct run *r)
{
        for (unsigned round = 0; round < ROUNDS; round++)
                for (unsigned i = 0; i < SERIES; i++) {
                        enum series s = (i + round) % SERIES;

                        if (r->use[s] && !run_one(r, s, round))
                                return false;
                }

        return true;
}

double run_net(const struct run *r, enum series s, enum series control, double *ret_low,
               double *ret_high)
{
        double d[ROUNDS], m;

        for (unsigned i = 0; i < ROUNDS; i++)
                d[i] = r->ns[s][i] - r->ns[control][i];
        m = median(d, ROUNDS);
        *ret_low = d[ROUNDS / 4];
        *ret_high = d[ROUNDS - 1 - ROUNDS / 4];
        return m;
}

void run_done(struct run *r)
{
        for (unsigned s = 0; s < SERIES; s++)
                measured_done(&r->series[s]);
}
