/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A packet of a known flow costs its node one lookup, at the first hook that sees it, whatever is
 * done to it, and runs no stage. */

#include "check.h"

/* Every hook of the node that the packet of a known flow passes. */
static void pass(struct world *w, struct place place, const struct shape *s, bool leaves)
{
        struct skb skb = { .device = place.device };
        struct packet p = packet_build(s);
        struct outcome o = world_run(w, place.hook, &skb, &p);

        cr_assert_eq(o.verdict, REDIRECT);
        if (!leaves)
                return; /* to the peer device inside its namespace: no hook of the node */

        skb = (struct skb) { .device = UPLINK, .mark = o.mark };
        p = o.out;
        o = world_run(w, WEFT_TO_UPLINK, &skb, &p);
        cr_assert_eq(o.verdict, NEXT);
}

static uint64_t stages_started(struct world *w)
{
        return world_event(w, WEFT_EVENT_MISS) + world_event(w, WEFT_EVENT_AGAIN);
}

static void check_pass(struct world *w, struct place place, const struct shape *s, bool leaves)
{
        uint64_t lookups = world_event(w, WEFT_EVENT_LOOKUP), stages = stages_started(w);

        for (int i = 0; i < 10; i++)
                pass(w, place, s, leaves);
        cr_expect_eq(world_event(w, WEFT_EVENT_LOOKUP) - lookups, 10, "%llu lookups for 10 packets",
                     (unsigned long long) (world_event(w, WEFT_EVENT_LOOKUP) - lookups));
        cr_expect_eq(stages_started(w), stages, "a stage ran");
}

/* One direction of a connection. */
struct direction {
        struct place at;
        struct shape opening; /* the SYN, or what answers it */
        bool leaves;          /* by the wire */
};

static void say(struct world *w, const struct direction *d, uint8_t flags)
{
        struct shape s = later(&d->opening, flags);

        cr_assert_eq(run(w, d->at, &s).verdict, REDIRECT);
}

static void check(struct direction there, struct direction back)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape ack = later(&there.opening, ACK), answer;
        enum weft_side side =
                there.at.hook == WEFT_FROM_ENDPOINT ? WEFT_SIDE_INSIDE : WEFT_SIDE_UPLINK;
        struct flow f;

        cr_assert_eq(run(w, there.at, &there.opening).verdict, REDIRECT);
        cr_assert(world_flow(w, &there.opening, side, &f));
        back.opening.dport = f.new_sport;
        say(w, &back, SYN | ACK);
        say(w, &there, ACK);
        say(w, &back, ACK);

        answer = later(&back.opening, ACK);
        check_pass(w, there.at, &ack, there.leaves);
        check_pass(w, back.at, &answer, back.leaves);
}

static const struct place FROM_SECOND = { WEFT_FROM_ENDPOINT, EP1 };

#define OUTSIDE(...) from_outside(family, IPPROTO_TCP, __VA_ARGS__)
#define INSIDE(...) from_pod(family, IPPROTO_TCP, __VA_ARGS__)

BOTH(lookups, an_endpoints_masqueraded_packet_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_POD, INSIDE(POD, 61234, WORLD, 443), true },
              (struct direction) { FROM_UPLINK, OUTSIDE(WORLD, 443, NODE, 0), false });
}

BOTH(lookups, a_packet_for_a_backend_of_another_node_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_UPLINK, OUTSIDE(CLIENT, 61234, NODE, NODE_PORT), true },
              (struct direction) { FROM_UPLINK, OUTSIDE(REMOTE_POD, BACKEND_PORT, NODE, 0), true });
}

BOTH(lookups, a_packet_for_a_local_backend_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_UPLINK, OUTSIDE(CLIENT, 40000, NODE, LOCAL_PORT), false },
              (struct direction) { FROM_POD, INSIDE(POD, BACKEND_PORT, CLIENT, 0), true });
}

BOTH(lookups, an_endpoints_packet_for_a_service_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_POD, INSIDE(POD, 40000, CLUSTER, SERVICE_PORT), true },
              (struct direction) { FROM_UPLINK, OUTSIDE(REMOTE_POD, BACKEND_PORT, POD, 0), false });
}

BOTH(lookups, a_packet_between_two_local_endpoints_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_POD, INSIDE(POD, 40000, POD2, 80), false },
              (struct direction) { FROM_SECOND, INSIDE(POD2, 80, POD, 0), false });
}

BOTH(lookups, a_packet_from_the_wire_for_an_endpoint_is_decided_at_its_first_hook)
{
        check((struct direction) { FROM_UPLINK, OUTSIDE(CLIENT, 40000, POD, 80), false },
              (struct direction) { FROM_POD, INSIDE(POD, 80, CLIENT, 0), true });
}
