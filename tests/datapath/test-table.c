/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The flow table at its limits: full, out of ports, two CPUs at once. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "check.h"

static struct shape direct(int family, uint16_t sport)
{
        return from_outside(family, IPPROTO_TCP, CLIENT, sport, POD, 80);
}

/* Half-open connections until the table takes no more, or n. */
static void flood(struct world *w, int family, size_t n)
{
        struct shape in = direct(family, 0);

        for (size_t i = 0; i < n; i++) {
                in.sport = 1000 + i;
                run(w, FROM_UPLINK, &in);
        }
}

BOTH(table, half_open_flows_make_room_for_newcomers)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape late = direct(family, 60000), unused;

        flood(w, family, SMALL_TABLE * 4);
        cr_expect_gt(world_event(w, WEFT_EVENT_EVICTED), 0);
        cr_expect_leq(world_flows(w, NULL, 0), SMALL_TABLE);
        unused = late;
        cr_expect_eq(run(w, FROM_UPLINK, &unused).verdict, REDIRECT);
        cr_expect_eq(world_orphans(w), 0);
}

/* An established connection between the client and the pod. */
static void establish(struct world *w, int family, uint16_t sport)
{
        struct shape in = direct(family, sport), pod = delivered(in, POD), reply = answer(&pod);
        struct shape ack = later(&in, ACK);

        run(w, FROM_UPLINK, &in);
        run(w, FROM_POD, &reply);
        run(w, FROM_UPLINK, &ack);
}

BOTH(table, a_flood_of_half_open_flows_evicts_no_established_one)
{
        _cleanup_world_ struct world *w = world_open(SMALL);

        for (uint16_t i = 0; i < 20; i++)
                establish(w, family, 50000 + i);
        flood(w, family, SMALL_TABLE * 10);
        for (uint16_t i = 0; i < 20; i++) {
                struct shape in = direct(family, 50000 + i);

                cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED, "connection %u", i);
        }
        cr_expect_eq(world_orphans(w), 0);
}

/* Fills the table with established flows. */
static void fill(struct world *w, int family)
{
        size_t before;
        uint16_t port = 1000;

        do {
                before = world_flows(w, NULL, 0);
                for (int i = 0; i < 16; i++)
                        establish(w, family, port++);
        } while (world_flows(w, NULL, 0) > before);
}

BOTH(table, in_a_full_table_a_flow_that_needs_its_reply_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, SNAT_LOW, NODE, NODE_PORT);

        fill(w, family);
        expect_dropped(w, FROM_UPLINK, &in, FLOW_TABLE_FULL);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(table, in_a_full_table_a_flow_that_needs_no_entry_passes_without_one)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = direct(family, 60000), out = delivered(in, POD);

        fill(w, family);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_gt(world_event(w, WEFT_EVENT_UNTRACKED), 0);
}

BOTH(table, when_the_ports_towards_a_backend_are_used_up_newcomers_are_dropped)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 0, NODE, NODE_PORT), first;

        for (uint16_t i = 0; i < SMALL_PORTS; i++) {
                in.sport = 40000 + i;
                cr_assert_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT, "port %u", i);
        }
        in.sport = 50000;
        expect_dropped(w, FROM_UPLINK, &in, PORTS_EXHAUSTED);
        cr_expect_eq(world_flows(w, NULL, 0), 2 * SMALL_PORTS);
        first = in;
        first.sport = 40000;
        cr_expect_eq(run(w, FROM_UPLINK, &first).verdict, REDIRECT, "old flows go on");
}

BOTH(table, a_port_is_free_again_when_its_flow_has_ended)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 0, NODE, NODE_PORT), out, reply;

        for (uint16_t i = 0; i < SMALL_PORTS; i++) {
                in.sport = 40000 + i;
                run(w, FROM_UPLINK, &in);
        }
        in.sport = 40001;
        out = in;
        out.src = at(family, NODE);
        out.dst = at(family, REMOTE_POD);
        out.sport = flow_at(w, &in, UPLINK).new_sport;
        out.dport = BACKEND_PORT;
        reply = answer(&out);
        world_set_deadline(w, &in, WEFT_SIDE_UPLINK, -10);
        world_set_deadline(w, &reply, WEFT_SIDE_UPLINK, -10);
        in.sport = 50000;
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_expect_eq(flow_at(w, &in, UPLINK).new_sport, out.sport);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(table, the_port_of_a_closed_connection_is_given_out_before_a_newcomer_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 0, NODE, NODE_PORT), rst, out,
                     reply;

        for (uint16_t i = 0; i < SMALL_PORTS; i++) {
                in.sport = 40000 + i;
                run(w, FROM_UPLINK, &in);
        }
        in.sport = 40001;
        out = in;
        out.src = at(family, NODE);
        out.dst = at(family, REMOTE_POD);
        out.sport = flow_at(w, &in, UPLINK).new_sport;
        out.dport = BACKEND_PORT;
        reply = answer(&out);
        rst = later(&in, RST);
        run(w, FROM_UPLINK, &rst);

        in.sport = 50000;
        expect_dropped(w, FROM_UPLINK, &in, PORTS_EXHAUSTED); /* not at once */
        world_set_deadline(w, &reply, WEFT_SIDE_UPLINK, 60 - 5);
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_expect_eq(flow_at(w, &in, UPLINK).new_sport, out.sport);
        cr_expect_eq(world_orphans(w), 0);
}

/* ---- the node's own connections from ports that weft gives out too ------------------------ */

static struct shape of_the_node(int family, uint16_t sport)
{
        struct shape s = from_outside(family, IPPROTO_TCP, NODE, sport, REMOTE_POD, BACKEND_PORT);

        s.smac = mac_of(NODE);
        s.dmac = mac_of(NODE2);
        return s;
}

BOTH(own, a_connection_of_the_node_keeps_its_port_from_being_given_out)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape own = of_the_node(family, SNAT_LOW), reply = answer(&own);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, SNAT_LOW, NODE, NODE_PORT);

        expect_untouched(w, TO_UPLINK, &own);
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_expect_neq(flow_at(w, &in, UPLINK).new_sport, SNAT_LOW);
        expect_untouched(w, FROM_UPLINK, &reply);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(own, a_connection_of_the_node_that_comes_second_gets_another_port)
{
        _cleanup_world_ struct world *w = world_open(SMALL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, SNAT_LOW, NODE, NODE_PORT);
        struct shape own = of_the_node(family, SNAT_LOW), out = own, reply, back;

        run(w, FROM_UPLINK, &in);
        cr_assert_eq(flow_at(w, &in, UPLINK).new_sport, SNAT_LOW);
        cr_expect_eq(run(w, TO_UPLINK, &own).verdict, NEXT);
        out.sport = flow_at(w, &own, INSIDE).new_sport;
        cr_expect_neq(out.sport, own.sport);
        expect(w, TO_UPLINK, &own, NEXT, &out);
        reply = answer(&out);
        back = reply;
        back.dport = own.sport;
        expect(w, FROM_UPLINK, &reply, NEXT, &back);
        cr_expect_eq(world_orphans(w), 0);
}

/* ---- two CPUs ----------------------------------------------------------------------------- */

#define ROUNDS 2000

struct racer {
        struct world *w;
        int family, cpu;
        atomic_int *ready;
        atomic_int *round; /* how far each of the two has come: they keep step */
        size_t odd;
};

static void pin_to(int cpu)
{
        cpu_set_t set;

        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        (void) sched_setaffinity(0, sizeof(set), &set);
}

static void *race(void *data)
{
        struct racer *r = data;

        pin_to(r->cpu);
        atomic_fetch_add(r->ready, 1);
        while (atomic_load(r->ready) < 2)
                ;
        for (int i = 0; i < ROUNDS; i++) {
                struct shape in =
                        from_outside(r->family, IPPROTO_UDP, CLIENT, 1024 + i, NODE, NODE_PORT);
                struct packet p = packet_build(&in);

                atomic_fetch_add(r->round, 1);
                while (atomic_load(r->round) < 2 * i + 1)
                        ;
                r->odd +=
                        world_run(r->w, WEFT_FROM_UPLINK, &(struct skb) {}, &p).verdict != REDIRECT;
        }
        return NULL;
}

BOTH(race, two_cpus_that_see_the_first_packet_at_once_leave_one_pair)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        atomic_int ready = 0, round = 0;
        struct racer a = { w, family, 0, &ready, &round, 0 },
                     b = { w, family, 1, &ready, &round, 0 };
        pthread_t thread;

        if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
                cr_skip_test("one CPU");
        cr_assert_eq(pthread_create(&thread, NULL, race, &b), 0);
        race(&a);
        pthread_join(thread, NULL);
        cr_expect_eq(a.odd + b.odd, 0, "%zu packets got another verdict", a.odd + b.odd);
        cr_expect_eq(world_flows(w, NULL, 0), 2 * ROUNDS);
        cr_expect_eq(world_orphans(w), 0);
}
