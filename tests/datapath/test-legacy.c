/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Without host-routing a packet for a local endpoint passes the host's stack, and its translation
 * is applied in two halves: the destination where it enters, the source where it leaves. What never
 * belongs to this host goes straight to the wire all the same. */

#include "check.h"

static struct shape to_local(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, 40000, NODE, LOCAL_PORT);
}

/* The destination half of to_local(): what the stack gets. */
static struct shape for_stack(const struct shape *s)
{
        struct shape b = *s;

        b.dst = at(shape_family(s), POD);
        b.dport = BACKEND_PORT;
        return b;
}

/* A packet as the stack hands it to the uplink: routed, so one hop further. */
static struct shape leaving(struct shape s)
{
        return sent(s, ROUTER);
}

static void check_halves(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = to_local(family, proto), stack = for_stack(&in);
        struct shape at_device = delivered(stack, POD), reply = answer(&at_device);
        struct shape out = leaving(reply), back = out;

        back.src = in.dst;
        back.sport = in.dport;
        expect(w, FROM_UPLINK, &in, NEXT, &stack);
        expect_untouched(w, TO_POD, &at_device);
        expect_untouched(w, FROM_POD, &reply);
        expect(w, TO_UPLINK, &out, NEXT, &back);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(legacy, a_tcp_connection_to_a_local_backend_is_translated_in_two_halves)
{
        check_halves(family, IPPROTO_TCP);
}

BOTH(legacy, a_udp_exchange_with_a_local_backend_is_translated_in_two_halves)
{
        check_halves(family, IPPROTO_UDP);
}

BOTH(legacy, both_halves_are_replayed)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = to_local(family, IPPROTO_TCP), stack = for_stack(&in);
        struct shape reply = answer(&stack), out, next = later(&in, ACK),
                     next_stack = for_stack(&next);

        reply.smac = mac_of(POD);
        reply.dmac = gateway_mac(POD);
        out = leaving(reply);
        run(w, FROM_UPLINK, &in);
        run(w, FROM_POD, &reply);
        run(w, TO_UPLINK, &out);
        for (int i = 0; i < 3; i++) {
                struct shape more = later(&reply, ACK), leave = leaving(more), back = leave;

                back.src = in.dst;
                back.sport = in.dport;
                expect(w, FROM_UPLINK, &next, NEXT, &next_stack);
                expect_untouched(w, FROM_POD, &more);
                expect(w, TO_UPLINK, &leave, NEXT, &back);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
}

BOTH(legacy, a_remote_backend_is_reached_by_the_wire_all_the_same)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, NODE_PORT),
                     out = in;
        struct shape reply, back;

        out.src = at(family, NODE);
        out.dst = at(family, REMOTE_POD);
        out.dport = BACKEND_PORT;
        out = sent(out, REMOTE_POD);
        reply = answer(&out);
        back = sent(as_answer_to(&in, reply), CLIENT);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(legacy, masquerading_happens_where_the_packet_leaves)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 61234, WORLD, 443), out = leaving(in);
        struct shape changed = out, reply, stack;

        changed.src = at(family, NODE);
        expect_untouched(w, FROM_POD, &in);
        expect(w, TO_UPLINK, &out, NEXT, &changed);
        reply = answer(&changed);
        stack = reply;
        stack.dst = in.src;
        stack.dport = in.sport;
        expect(w, FROM_UPLINK, &reply, NEXT, &stack);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(legacy, an_echo_of_an_endpoint_is_masqueraded_where_it_leaves)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = echo(family, POD, WORLD, 61234), out = leaving(in), changed = out, reply,
                     stack;

        changed.src = at(family, NODE);
        expect_untouched(w, FROM_POD, &in);
        expect(w, TO_UPLINK, &out, NEXT, &changed);
        reply = answer(&changed);
        stack = reply;
        stack.dst = in.src;
        expect(w, FROM_UPLINK, &reply, NEXT, &stack);
}

BOTH(legacy, a_packet_too_big_for_the_way_is_left_to_the_stack_to_refuse)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = to_local(family, IPPROTO_UDP), stack;

        in.payload = 1600;
        in.df = true;
        stack = for_stack(&in);
        expect(w, FROM_UPLINK, &in, NEXT, &stack);
}

BOTH(legacy, an_expiring_packet_is_left_to_the_stack_to_refuse)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = to_local(family, IPPROTO_TCP), stack;

        in.ttl = 1;
        stack = for_stack(&in);
        expect(w, FROM_UPLINK, &in, NEXT, &stack);
}

BOTH(legacy, an_icmp_error_about_a_half_translated_packet_is_translated_in_halves)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = to_local(family, IPPROTO_TCP), stack = for_stack(&in), at_device, error,
                     out, want;
        struct packet quoted, quoted_want;

        expect(w, FROM_UPLINK, &in, NEXT, &stack);
        at_device = delivered(stack, POD);
        quoted = packet_build(&at_device);
        error = from_pod(family, IPPROTO_ICMP, POD, 0, CLIENT, 0);
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        error.quote = &quoted;
        error.payload = 0;
        expect_untouched(w, FROM_POD, &error);
        out = leaving(error);
        want = out;
        in.ttl = 63;
        quoted_want = packet_build(&in);
        want.src = at(family, NODE);
        want.quote = &quoted_want;
        expect(w, TO_UPLINK, &out, NEXT, &want);
}
