/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services as endpoints see them. Every packet is translated whole at its first hook, with and
 * without host-routing. */

#include "check.h"

static struct weft_addr loopback(int family)
{
        struct weft_addr a = { .w = { 0, 0, htonl(0xffff), htonl(0xa9fe2a01) } };

        return family == AF_INET ? a
                                 : (struct weft_addr) { .w = { htonl(0xfd776566), htonl(0x00740000),
                                                               0, htonl(1) } };
}

static struct shape to_backend(struct shape s, enum who backend)
{
        s.dst = at(shape_family(&s), backend);
        s.dport = BACKEND_PORT;
        return s;
}

static const enum variant both[] = { FULL, LEGACY };

/* POD asks for the service at `to`:port, whose backend is on the other node. */
static void check_remote(int family, uint8_t proto, enum variant v, enum who to, uint16_t port)
{
        _cleanup_world_ struct world *w = world_open(v);
        struct shape in = from_pod(family, proto, POD, 40000, to, port);
        struct shape out = sent(to_backend(in, REMOTE_POD), REMOTE_POD), reply = answer(&out);
        struct shape back = delivered(as_answer_to(&in, reply), POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_all_drops(w), 0);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(clusterip, a_remote_backend_sees_the_endpoints_own_address)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                check_remote(family, IPPROTO_TCP, both[i], CLUSTER, SERVICE_PORT);
                check_remote(family, IPPROTO_UDP, both[i], CLUSTER, SERVICE_PORT);
        }
}

BOTH(clusterip, addresses_for_the_outside_are_reached_from_inside_too)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                check_remote(family, IPPROTO_TCP, both[i], EXTERNAL, SERVICE_PORT);
                check_remote(family, IPPROTO_TCP, both[i], NODE, NODE_PORT);
        }
}

BOTH(clusterip, the_node_port_of_another_node_is_served_by_this_one)
{
        for (size_t i = 0; i < ELEMENTS(both); i++)
                check_remote(family, IPPROTO_TCP, both[i], NODE2, NODE_PORT);
}

BOTH(clusterip, another_nodes_pod_on_the_number_of_a_node_port_is_no_service)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, REMOTE_POD, NODE_PORT);
        struct shape out = sent(in, REMOTE_POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
}

BOTH(clusterip, a_backend_on_the_same_node_is_reached_past_the_stack)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in =
                        from_pod(family, IPPROTO_TCP, POD2, 40000, CLUSTER, LOCAL_SERVICE_PORT);
                struct shape out = delivered(to_backend(in, POD), POD), reply = answer(&out);
                struct shape back = delivered(as_answer_to(&in, reply), POD2);
                static const struct place from_pod2 = { WEFT_FROM_ENDPOINT, EP1 };

                expect(w, from_pod2, &in, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
                cr_expect_eq(world_orphans(w), 0);
        }
}

static void check_itself(int family, uint8_t proto, enum variant v)
{
        _cleanup_world_ struct world *w = world_open(v);
        struct shape in = from_pod(family, proto, POD, 40000, CLUSTER, LOCAL_SERVICE_PORT);
        struct shape out = to_backend(in, POD), reply, back;

        out.src = loopback(family);
        out = delivered(out, POD);
        reply = answer(&out);
        back = delivered(as_answer_to(&in, reply), POD);
        expect(w, FROM_POD, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(clusterip, an_endpoint_that_reaches_itself_sees_the_loopback_address)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                check_itself(family, IPPROTO_TCP, both[i]);
                check_itself(family, IPPROTO_UDP, both[i]);
        }
}

BOTH(clusterip, one_port_of_an_endpoint_through_two_addresses_stays_two_connections)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape ways[] = {
                from_pod(family, IPPROTO_TCP, POD, 40000, CLUSTER, SERVICE_PORT),
                from_pod(family, IPPROTO_TCP, POD, 40000, EXTERNAL, SERVICE_PORT),
                from_pod(family, IPPROTO_TCP, POD, 40000, REMOTE_POD, BACKEND_PORT),
        };

        for (size_t i = 0; i < ELEMENTS(ways); i++)
                run(w, FROM_POD, &ways[i]);
        for (size_t i = 0; i < ELEMENTS(ways); i++) {
                struct flow f = flow_at(w, &ways[i], INSIDE);
                struct shape out = to_backend(ways[i], REMOTE_POD), reply, back;

                out.sport = f.new_sport;
                out = sent(out, REMOTE_POD);
                reply = answer(&out);
                back = delivered(as_answer_to(&ways[i], reply), POD);
                cr_expect(memcmp(&f.new_src, &ways[i].src, sizeof(f.new_src)) == 0,
                          "the endpoint keeps its address");
                expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        }
}

BOTH(clusterip, a_backend_that_is_a_socket_of_the_node_answers_from_the_services_address)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in =
                        from_pod(family, IPPROTO_TCP, POD, 40000, CLUSTER, SOCKET_SERVICE_PORT);
                struct shape local = to_backend(in, NODE), reply = answer(&local);
                struct shape back;

                reply.smac = gateway_mac(POD);
                reply.dmac = mac_of(POD);
                back = as_answer_to(&in, reply);
                expect(w, FROM_POD, &in, NEXT, &local);
                expect(w, TO_POD, &reply, NEXT, &back);
                expect(w, TO_POD, &reply, NEXT, &back);
        }
}

BOTH(clusterip, what_the_node_says_to_an_endpoint_is_left_alone)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, NODE, 22, POD, 40000);
        struct packet p = packet_build(&in), later = packet_fragment(&p, 7, 8, 8);

        expect_untouched(w, TO_POD, &in);
        expect_untouched(w, TO_POD, &later);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(clusterip, the_outside_does_not_reach_a_cluster_ip)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, CLUSTER, SERVICE_PORT);
        struct shape ping = echo(family, CLIENT, CLUSTER, 9);
        struct shape unknown = from_outside(family, IPPROTO_TCP, CLIENT, 40000, CLUSTER, 9999);

        expect_dropped(w, FROM_UPLINK, &in, SERVICE_INSIDE);
        expect_dropped(w, FROM_UPLINK, &ping, SERVICE_INSIDE);
        expect_dropped(w, FROM_UPLINK, &unknown, SERVICE_INSIDE);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(clusterip, an_unknown_port_is_dropped_and_a_ping_answered)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape unknown = from_pod(family, IPPROTO_TCP, POD, 40000, CLUSTER, 9999);
        struct shape ping = echo(family, POD, CLUSTER, 9), pong = answer(&ping);

        pong.id = ping.id; /* the request itself, turned round */
        expect_dropped(w, FROM_POD, &unknown, SERVICE_UNKNOWN_PORT);
        expect(w, FROM_POD, &ping, REDIRECT, &pong);
}

BOTH(clusterip, an_endpoint_is_told_that_there_is_no_backend)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape tcp = from_pod(family, IPPROTO_TCP, POD, 40000, CLUSTER, 82);
        struct outcome o = run(w, FROM_POD, &tcp);
        struct layout l;

        cr_expect_eq(o.verdict, REDIRECT);
        cr_assert(packet_layout(&o.out, &l) && l.proto == IPPROTO_TCP);
        cr_expect(o.out.data[l.l4 + 13] & RST);
        cr_expect_eq(world_drops(w, WEFT_DROP_NO_BACKEND, WEFT_FROM_ENDPOINT), 1);
}

BOTH(clusterip, an_error_about_the_endpoints_packet_quotes_what_the_endpoint_sent)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in = from_pod(family, IPPROTO_UDP, POD, 40000, CLUSTER, SERVICE_PORT);
                struct shape out = sent(to_backend(in, REMOTE_POD), REMOTE_POD);
                struct packet quote, wanted;
                struct shape error = { .smac = mac_of(NODE2),
                                       .dmac = mac_of(NODE),
                                       .src = at(family, REMOTE_POD),
                                       .dst = at(family, POD),
                                       .quote = &quote };
                struct shape want;

                run(w, FROM_POD, &in);
                out.ttl = 62;
                quote = packet_build(&out);
                shape_icmp(&error, ICMP_IS_UNREACHABLE);
                want = delivered(error, POD);
                want.src = at(family, CLUSTER);
                in.ttl = 62;
                wanted = packet_build(&in);
                want.quote = &wanted;
                expect(w, FROM_UPLINK, &error, REDIRECT, &want);
        }
}

BOTH(clusterip, fragments_follow_their_first_and_are_dropped_before_it)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, 40000, CLUSTER, SERVICE_PORT), out;
        struct packet whole, first, last, want;

        in.payload = 64;
        out = sent(to_backend(in, REMOTE_POD), REMOTE_POD);
        whole = packet_build(&in);
        first = packet_fragment(&whole, 7, 0, 48);
        last = packet_fragment(&whole, 7, 48, 24);
        expect_dropped(w, FROM_POD, &last, FRAGMENT_BEFORE_FIRST);
        whole = packet_build(&out);
        want = packet_fragment(&whole, 7, 0, 48);
        expect(w, FROM_POD, &first, REDIRECT, &want);
        want = packet_fragment(&whole, 7, 48, 24);
        expect(w, FROM_POD, &last, REDIRECT, &want);
}

BOTH(clusterip, later_packets_are_replayed_without_another_decision)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 40000, CLUSTER, SERVICE_PORT);
        struct shape out = sent(to_backend(in, REMOTE_POD), REMOTE_POD), reply = answer(&out);
        struct shape next = later(&in, ACK),
                     next_out = sent(to_backend(next, REMOTE_POD), REMOTE_POD);

        expect(w, FROM_POD, &in, REDIRECT, &out);
        run(w, FROM_UPLINK, &reply);
        for (int i = 0; i < 3; i++)
                expect(w, FROM_POD, &next, REDIRECT, &next_out);
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
        cr_expect_eq(flow_at(w, &in, INSIDE).f.watch, FIN | SYN | RST);
}
