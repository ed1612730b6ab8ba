/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Connections that endpoints open, connections that are only remembered, and sources that do not
 * belong where they appear. */

#include "check.h"

static struct shape opened(int family, uint8_t proto)
{
        return from_pod(family, proto, POD, 61234, WORLD, 443);
}

static struct shape masqueraded(struct shape s, uint16_t port)
{
        s.src = at(shape_family(&s), NODE);
        s.sport = port;
        return sent(s, WORLD);
}

static void check_masquerade(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = opened(family, proto), out = masqueraded(in, in.sport);
        struct shape reply = answer(&out), back = delivered(as_answer_to(&in, reply), POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(masquerade, a_tcp_connection_of_an_endpoint_leaves_with_the_nodes_address)
{
        check_masquerade(family, IPPROTO_TCP);
}

BOTH(masquerade, a_udp_exchange_of_an_endpoint_leaves_with_the_nodes_address)
{
        check_masquerade(family, IPPROTO_UDP);
}

BOTH(masquerade, an_echo_of_an_endpoint_leaves_with_the_nodes_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, POD, WORLD, 61234), out = masqueraded(in, 0);
        struct shape reply = answer(&out), back = delivered(as_answer_to(&in, reply), POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

/* Nothing forbids the identifier 0. */
BOTH(masquerade, an_echo_with_the_identifier_zero_is_no_exception)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, POD, WORLD, 0), out, reply, back;
        uint16_t id;

        run(w, FROM_POD, &in);
        id = flow_at(w, &in, INSIDE).new_sport;
        out = masqueraded(in, 0);
        out.rest = (uint32_t) id << 16 | 1;
        expect(w, FROM_POD, &in, REDIRECT, &out);
        reply = answer(&out);
        back = delivered(as_answer_to(&in, reply), POD);
        back.rest = in.rest;
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(masquerade, an_echo_reply_with_the_identifier_zero_is_not_taken_for_the_request)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, POD, WORLD, 0), stray = in;

        run(w, FROM_POD, &in);
        shape_icmp(&stray, ICMP_IS_REPLY);
        expect_untouched(w, FROM_POD, &stray);
}

BOTH(masquerade, echoes_of_two_endpoints_with_one_identifier_are_told_apart)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct place from_second = { WEFT_FROM_ENDPOINT, EP1 };
        struct shape one = echo(family, POD, WORLD, 61234), two = echo(family, POD2, WORLD, 61234);
        struct shape out, reply, back;
        struct flow f;

        run(w, FROM_POD, &one);
        run(w, from_second, &two);
        f = flow_at(w, &two, INSIDE);
        cr_expect_neq(f.new_sport, 61234);
        out = masqueraded(two, 0);
        out.rest = (uint32_t) f.new_sport << 16 | 1;
        expect(w, from_second, &two, REDIRECT, &out);
        reply = answer(&out);
        back = delivered(as_answer_to(&two, reply), POD2);
        back.rest = two.rest;
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(masquerade, two_endpoints_with_one_port_get_two)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct place from_second = { WEFT_FROM_ENDPOINT, EP1 };
        struct shape one = opened(family, IPPROTO_TCP);
        struct shape two = from_pod(family, IPPROTO_TCP, POD2, 61234, WORLD, 443), out, reply, back;
        struct flow f;

        run(w, FROM_POD, &one);
        run(w, from_second, &two);
        f = flow_at(w, &two, INSIDE);
        cr_expect_neq(f.new_sport, one.sport);
        out = masqueraded(two, f.new_sport);
        reply = answer(&out);
        back = delivered(as_answer_to(&two, reply), POD2);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(masquerade, a_destination_on_the_non_masquerade_list_sees_the_endpoints_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, PRIVATE, 443);
        struct shape out = sent(in, PRIVATE);

        expect(w, FROM_POD, &in, REDIRECT, &out);
}

BOTH(masquerade, endpoints_of_other_nodes_and_the_nodes_see_the_endpoints_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape pod = from_pod(family, IPPROTO_TCP, POD, 40000, REMOTE_POD, 80);
        struct shape node = from_pod(family, IPPROTO_TCP, POD, 40000, NODE2, 22);
        struct shape pod_out = sent(pod, REMOTE_POD), node_out = sent(node, NODE2);

        expect(w, FROM_POD, &pod, REDIRECT, &pod_out);
        expect(w, FROM_POD, &node, REDIRECT, &node_out);
}

BOTH(masquerade, endpoints_of_one_node_reach_each_other_unchanged)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct place from_second = { WEFT_FROM_ENDPOINT, EP1 };
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, POD2, 80);
        struct shape out = delivered(in, POD2), reply = answer(&out), back = delivered(reply, POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
        expect(w, from_second, &reply, REDIRECT, &back);
}

BOTH(masquerade, an_endpoint_reaches_the_node_itself_through_the_stack)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, NODE, 22);

        expect_untouched(w, FROM_POD, &in);
}

BOTH(masquerade, the_answer_to_a_connection_from_outside_is_not_masqueraded)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, POD, 80);
        struct shape out = delivered(in, POD), reply = answer(&out), back = sent(reply, CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.set, 0);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(masquerade, the_answer_to_an_echo_from_outside_is_not_masqueraded)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, CLIENT, POD, 7), out = delivered(in, POD);
        struct shape reply = answer(&out), back = sent(reply, CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(masquerade, without_host_routing_the_answer_from_a_pod_passes_untouched)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, POD, 80);
        struct shape out = delivered(in, POD), reply = answer(&out), leaving = sent(reply, CLIENT);

        expect_untouched(w, FROM_UPLINK, &in);
        expect_untouched(w, FROM_POD, &reply);
        expect_untouched(w, TO_UPLINK, &leaving);
}

/* ---- sources ------------------------------------------------------------------------------ */

BOTH(source, an_endpoint_cannot_speak_with_anothers_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = opened(family, IPPROTO_TCP);

        in.src = at(family, POD2);
        expect_dropped(w, FROM_POD, &in, SPOOFED);
        in.src = at(family, CLIENT);
        expect_dropped(w, FROM_POD, &in, SPOOFED);
        in.src = at(family, NODE);
        expect_dropped(w, FROM_POD, &in, SPOOFED);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(source, an_endpoint_cannot_ride_on_anothers_flow)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct place from_second = { WEFT_FROM_ENDPOINT, EP1 };
        struct shape in = opened(family, IPPROTO_UDP), stolen = in;

        run(w, FROM_POD, &in);
        stolen.dmac = gateway_mac(POD2);
        expect_dropped(w, from_second, &stolen, SPOOFED);
}

BOTH(source, nobody_outside_speaks_with_an_endpoints_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, POD, 40000, POD2, 80);

        in.dmac = mac_of(NODE);
        expect_dropped(w, FROM_UPLINK, &in, SPOOFED);
        in.dst = at(family, NODE);
        in.dport = NODE_PORT;
        expect_dropped(w, FROM_UPLINK, &in, SPOOFED);
        in.dport = 22;
        expect_dropped(w, FROM_UPLINK, &in, SPOOFED);
}

BOTH(source, nobody_outside_speaks_with_a_services_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, EXTERNAL, SERVICE_PORT, POD, 80);

        in.dmac = mac_of(NODE);
        expect_dropped(w, FROM_UPLINK, &in, SPOOFED);
}

BOTH(source, fragments_and_errors_are_checked_too)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = opened(family, IPPROTO_UDP), error;
        struct packet whole, first, later, quoted = packet_build(&in);

        in.src = at(family, POD2);
        in.payload = 1000;
        whole = packet_build(&in);
        first = packet_fragment(&whole, 5, 0, 400);
        later = packet_fragment(&whole, 6, 400, 1000);
        expect_dropped(w, FROM_POD, &first, SPOOFED);
        cr_expect_eq(
                world_run(w, WEFT_FROM_ENDPOINT, &(struct skb) { .device = EP0 }, &later).verdict,
                SHOT);
        error = from_pod(family, IPPROTO_ICMP, POD, 0, WORLD, 0);
        error.src = at(family, POD2);
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        error.quote = &quoted;
        expect_dropped(w, FROM_POD, &error, SPOOFED);
}
