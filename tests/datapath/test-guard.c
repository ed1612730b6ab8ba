/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Stages of others at the exit hooks run where a packet is decided, in the same pass; at the hook
 * itself only for what nobody has decided before: the node's own packets to its endpoints. */

#include "check.h"

BOTH(guard, a_packet_that_the_exit_hook_refuses_is_dropped_where_it_came_in)
{
        _cleanup_world_ struct world *w = world_open(GUARDED);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, POD, SHUT_PORT);

        expect_dropped(w, FROM_UPLINK, &in, POLICY);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(guard, what_has_been_decided_passes_the_endpoints_exit_hook_by_its_mark)
{
        _cleanup_world_ struct world *w = world_open(GUARDED);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, LOCAL_PORT),
                     stack = in;
        struct shape at_device;
        struct skb marked = { .mark = MARK };
        struct outcome o;

        stack.dst = at(family, POD);
        stack.dport = BACKEND_PORT;
        for (int i = 0; i < 2; i++) {
                o = expect(w, FROM_UPLINK, &in, NEXT, &stack);
                cr_expect_eq(o.mark, MARK, "packet %d: mark %#x", i, o.mark);
        }
        at_device = delivered(stack, POD);
        o = expect_with(w, TO_POD, &marked, &at_device, NEXT, &at_device);
        cr_expect_eq(o.mark, 0);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

BOTH(guard, the_nodes_own_packets_meet_the_stage_at_the_endpoints_exit_hook)
{
        _cleanup_world_ struct world *w = world_open(GUARDED);
        struct shape in = from_outside(family, IPPROTO_TCP, NODE, 40000, POD, SHUT_PORT), shut,
                     open;

        shut = delivered(in, POD);
        in.dport = BACKEND_PORT;
        open = delivered(in, POD);
        expect_dropped(w, TO_POD, &shut, POLICY);
        expect_untouched(w, TO_POD, &open);
}

BOTH(guard, the_source_half_of_a_masqueraded_packet_is_applied_all_the_same)
{
        _cleanup_world_ struct world *w = world_open(GUARDED);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, WORLD, 443), out, want;
        struct outcome o = expect(w, FROM_POD, &in, NEXT, &in);
        struct flow f = flow_at(w, &in, INSIDE);

        cr_expect_eq(o.mark, 0, "mark %#x", o.mark);
        out = want = sent(in, WORLD);
        want.src = at(family, NODE);
        want.sport = f.new_sport;
        expect(w, TO_UPLINK, &out, NEXT, &want);
}

BOTH(guard, an_endpoint_is_refused_what_the_uplinks_exit_hook_refuses)
{
        _cleanup_world_ struct world *w = world_open(GUARDED);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, WORLD, SHUT_PORT);

        expect_dropped(w, FROM_POD, &in, POLICY);
}
