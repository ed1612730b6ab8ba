/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services reached from outside, with host-routing: every packet is translated whole at its first
 * hook and leaves by redirect. */

#include "check.h"

/* A client's packet to the node port of the remote backend. Its own port is in the range that SNAT
 * gives out, and so is kept: the packet that leaves can be told to the byte. */
static struct shape to_remote(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, 61234, NODE, NODE_PORT);
}

static struct shape to_local(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, 40000, NODE, LOCAL_PORT);
}

/* What becomes of a packet to_remote(). */
static struct shape at_backend(const struct shape *s, uint16_t sport)
{
        struct shape b = *s;
        int family = shape_family(s);

        b.src = at(family, NODE);
        b.dst = at(family, REMOTE_POD);
        b.sport = sport;
        b.dport = BACKEND_PORT;
        return sent(b, REMOTE_POD);
}

/* … and of one to_local(). */
static struct shape at_pod(const struct shape *s)
{
        struct shape b = *s;

        b.dst = at(shape_family(s), POD);
        b.dport = BACKEND_PORT;
        return delivered(b, POD);
}

static void check_remote(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, proto), out = at_backend(&in, 61234);
        struct shape reply = answer(&out), back = sent(as_answer_to(&in, reply), CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_all_drops(w), 0);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(nodeport, a_tcp_connection_to_a_remote_backend_is_translated_both_ways)
{
        check_remote(family, IPPROTO_TCP);
}

BOTH(nodeport, a_udp_exchange_with_a_remote_backend_is_translated_both_ways)
{
        check_remote(family, IPPROTO_UDP);
}

static void check_local(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_local(family, proto), out = at_pod(&in);
        struct shape reply = answer(&out), back = sent(as_answer_to(&in, reply), CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(nodeport, a_tcp_connection_to_a_local_backend_keeps_the_clients_address)
{
        check_local(family, IPPROTO_TCP);
}

BOTH(nodeport, a_udp_exchange_with_a_local_backend_keeps_the_clients_address)
{
        check_local(family, IPPROTO_UDP);
}

BOTH(nodeport, an_external_address_is_served_like_a_node_port)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 61234, EXTERNAL, SERVICE_PORT);
        struct shape out = at_backend(&in, 61234), reply = answer(&out);
        struct shape back = sent(as_answer_to(&in, reply), CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(nodeport, the_packet_towards_an_uplink_carries_the_mark_that_its_exit_program_obeys)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP), out = at_backend(&in, 61234);
        struct outcome o = expect(w, FROM_UPLINK, &in, REDIRECT, &out);

        cr_expect_eq(o.mark, MARK);
}

BOTH(nodeport, later_packets_are_replayed_without_another_decision)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP), out = at_backend(&in, 61234);
        struct shape reply = answer(&out), next = later(&in, ACK),
                     next_out = at_backend(&next, 61234);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        run(w, FROM_UPLINK, &reply);
        for (int i = 0; i < 3; i++)
                expect(w, FROM_UPLINK, &next, REDIRECT, &next_out);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
        cr_expect_leq(world_event(w, WEFT_EVENT_AGAIN), 1,
                      "only the reply entry finds its own way");
        cr_expect_eq(flow_at(w, &in, UPLINK).f.packets, 4);
}

BOTH(nodeport, a_client_port_outside_the_range_is_exchanged_for_one_inside)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, NODE_PORT), out;
        struct packet p = packet_build(&in), want;
        struct outcome o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        struct flow f = flow_at(w, &in, UPLINK);
        char text[2048];

        cr_expect(f.new_sport >= SNAT_LOW, "port %u", f.new_sport);
        out = at_backend(&in, f.new_sport);
        want = packet_build(&out);
        cr_expect_str_eq(packet_diff(&want, &o.out, text, sizeof(text)), "");
}

BOTH(nodeport, two_ports_of_one_client_are_two_flows)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = to_remote(family, IPPROTO_TCP), b = a, out_a, out_b;

        b.sport++;
        out_a = at_backend(&a, a.sport);
        out_b = at_backend(&b, b.sport);
        expect(w, FROM_UPLINK, &a, REDIRECT, &out_a);
        expect(w, FROM_UPLINK, &b, REDIRECT, &out_b);
        cr_expect_eq(world_flows(w, NULL, 0), 4);
}

BOTH(nodeport, two_clients_with_the_same_port_get_different_ports_at_the_backend)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = to_remote(family, IPPROTO_TCP), b = a, reply, back;
        struct flow f, g;

        b.src = at(family, WORLD);
        run(w, FROM_UPLINK, &a);
        run(w, FROM_UPLINK, &b);
        f = flow_at(w, &a, UPLINK);
        g = flow_at(w, &b, UPLINK);
        cr_expect_eq(f.new_sport, a.sport);
        cr_expect_neq(g.new_sport, f.new_sport);
        cr_expect_geq(g.new_sport, SNAT_LOW);
        cr_expect_geq(world_event(w, WEFT_EVENT_PORT_BUSY), 1);
        struct shape out = at_backend(&b, g.new_sport);
        reply = answer(&out);
        back = sent(as_answer_to(&b, reply), WORLD);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(nodeport, one_client_port_through_two_service_addresses_stays_two_connections)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = from_outside(family, IPPROTO_TCP, CLIENT, 61234, EXTERNAL, SERVICE_PORT);
        struct shape b = from_outside(family, IPPROTO_TCP, CLIENT, 61234, SECOND, SERVICE_PORT);
        struct shape both[] = { a, b };

        run(w, FROM_UPLINK, &a);
        run(w, FROM_UPLINK, &b);
        cr_expect_neq(flow_at(w, &a, UPLINK).new_sport, flow_at(w, &b, UPLINK).new_sport);
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                struct flow f = flow_at(w, &both[i], UPLINK);
                struct shape out = at_backend(&both[i], f.new_sport), reply = answer(&out);
                struct shape back = sent(as_answer_to(&both[i], reply), CLIENT);

                expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        }
}

BOTH(nodeport, one_client_port_through_two_addresses_to_a_local_backend_stays_two_connections)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a =
                from_outside(family, IPPROTO_TCP, CLIENT, 61234, EXTERNAL, LOCAL_SERVICE_PORT);
        struct shape b = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, LOCAL_PORT);
        struct shape out_a = at_pod(&a), out_b, reply, back;
        struct flow f;

        expect(w, FROM_UPLINK, &a, REDIRECT, &out_a);
        run(w, FROM_UPLINK, &b);
        f = flow_at(w, &b, UPLINK);
        out_b = at_pod(&b);
        out_b.src = f.new_src;
        out_b.sport = f.new_sport;
        cr_expect(memcmp(&f.new_src, &a.src, 16) || f.new_sport != a.sport);
        expect(w, FROM_UPLINK, &b, REDIRECT, &out_b);
        reply = answer(&out_b);
        back = sent(as_answer_to(&b, reply), CLIENT);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

/* A connection to the pod through the node port until both have sent their FIN, the pod first. */
static struct shape closing(struct world *w, int family)
{
        struct shape a = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, LOCAL_PORT),
                     out = at_pod(&a), reply = answer(&out), s;

        run(w, FROM_UPLINK, &a);
        run(w, FROM_POD, &reply);
        s = later(&a, ACK);
        run(w, FROM_UPLINK, &s);
        s = later(&reply, FIN | ACK);
        run(w, FROM_POD, &s);
        s = later(&a, FIN | ACK);
        run(w, FROM_UPLINK, &s);
        return a;
}

BOTH(nodeport, a_closed_connection_keeps_its_tuple_until_its_last_answer)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = closing(w, family), out = at_pod(&a), reply = answer(&out), back;
        struct shape direct = from_outside(family, IPPROTO_TCP, CLIENT, 61234, POD, BACKEND_PORT);

        run(w, FROM_UPLINK, &direct);
        cr_expect_neq(flow_at(w, &direct, UPLINK).new_sport, direct.sport);
        reply = later(&reply, ACK);
        back = sent(as_answer_to(&a, reply), CLIENT);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(nodeport, the_tuple_of_a_closed_connection_is_free_after_its_last_answer)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = closing(w, family), out = at_pod(&a), reply = answer(&out);
        struct shape direct = from_outside(family, IPPROTO_TCP, CLIENT, 61234, POD, BACKEND_PORT);

        reply = later(&reply, ACK);
        run(w, FROM_POD, &reply);
        out = delivered(direct, POD);
        expect(w, FROM_UPLINK, &direct, REDIRECT, &out);
        cr_expect_eq(world_flows(w, NULL, 0), 2);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(nodeport, the_tuple_of_a_reset_connection_is_free_at_once)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = closing(w, family), rst = later(&a, RST), out;
        struct shape direct = from_outside(family, IPPROTO_TCP, CLIENT, 61234, POD, BACKEND_PORT);

        run(w, FROM_UPLINK, &rst);
        out = delivered(direct, POD);
        expect(w, FROM_UPLINK, &direct, REDIRECT, &out);
        cr_expect_eq(world_flows(w, NULL, 0), 2);
}

BOTH(nodeport, the_tuple_of_a_closed_connection_is_free_after_a_second_without_an_answer)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape a = closing(w, family), out = at_pod(&a), reply = answer(&out);
        struct shape direct = from_outside(family, IPPROTO_TCP, CLIENT, 61234, POD, BACKEND_PORT);

        world_set_deadline(w, &reply, WEFT_SIDE_INSIDE, 10 - 5);
        out = delivered(direct, POD);
        expect(w, FROM_UPLINK, &direct, REDIRECT, &out);
        cr_expect_eq(world_flows(w, NULL, 0), 2);
}

static bool sums_up_to_zero(const struct shape *s)
{
        struct packet p = packet_build(s);
        struct layout l;

        return packet_layout(&p, &l) && p.data[l.l4 + 6] == 0xff && p.data[l.l4 + 7] == 0xff;
}

/* A packet whose translation has a checksum of 0, which UDP writes as all ones. */
static struct shape with_zero_sum(int family)
{
        struct shape s = to_remote(family, IPPROTO_UDP);

        for (s.payload = 0; s.payload < 400; s.payload += 2)
                for (uint32_t port = SNAT_LOW; port <= SNAT_HIGH; port += 7) {
                        struct shape out;

                        s.sport = port;
                        out = at_backend(&s, port);
                        if (sums_up_to_zero(&out))
                                return s;
                }
        cr_assert_fail("no packet of this kind was found");
        return s;
}

BOTH(nodeport, a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = with_zero_sum(family), out = at_backend(&in, in.sport);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, XDP, &in, XDP_REDIRECTED, &out);
}

Test(nodeport, a_udp_packet_without_a_checksum_stays_without)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(AF_INET, IPPROTO_UDP), out, reply, back;

        in.no_checksum = true;
        out = at_backend(&in, in.sport);
        reply = answer(&out);
        back = sent(as_answer_to(&in, reply), CLIENT);
        for (int i = 0; i < 2; i++) {
                expect(w, FROM_UPLINK, &in, REDIRECT, &out);
                expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        }
        expect(w, XDP, &in, XDP_REDIRECTED, &out);
}

BOTH(nodeport, an_unknown_port_of_a_service_address_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape tcp = from_outside(family, IPPROTO_TCP, CLIENT, 40000, EXTERNAL, 9999);
        struct shape udp = from_outside(family, IPPROTO_UDP, CLIENT, 40000, EXTERNAL, 9999);

        expect_dropped(w, FROM_UPLINK, &tcp, SERVICE_UNKNOWN_PORT);
        expect_dropped(w, FROM_UPLINK, &udp, SERVICE_UNKNOWN_PORT);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(nodeport, an_unknown_protocol_to_a_service_address_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape gre = from_outside(family, IPPROTO_GRE, CLIENT, 0, EXTERNAL, 0);
        struct outcome o = run(w, FROM_UPLINK, &gre);

        cr_expect_eq(o.verdict, SHOT);
        cr_expect_eq(world_all_drops(w), 1);
}

BOTH(nodeport, other_ports_of_the_nodes_own_address_are_left_to_the_stack)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, 22);

        expect_untouched(w, FROM_UPLINK, &in);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(nodeport, without_an_address_of_the_family_nothing_can_be_translated)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP);

        world_set_link(w, family != AF_INET, family != AF_INET6, 1500);
        expect_dropped(w, FROM_UPLINK, &in, NO_ADDRESS);
}

BOTH(nodeport, a_packet_for_another_machine_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP);

        in.dmac = mac_of(NODE2);
        expect_untouched(w, FROM_UPLINK, &in);
}

BOTH(nodeport, established_flows_are_replayed_by_xdp_to_the_same_bytes)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP), out = at_backend(&in, in.sport);
        struct shape reply = answer(&out), next = later(&in, ACK),
                     next_out = at_backend(&next, in.sport);
        struct shape more = later(&reply, ACK), back = sent(as_answer_to(&in, more), CLIENT);

        expect(w, XDP, &in, XDP_GOES_ON, &in);
        run(w, FROM_UPLINK, &in);
        run(w, FROM_UPLINK, &reply);
        run(w, FROM_UPLINK, &next);
        run(w, FROM_UPLINK, &more);
        expect(w, XDP, &next, XDP_REDIRECTED, &next_out);
        expect(w, XDP, &more, XDP_REDIRECTED, &back);
}

BOTH(nodeport, xdp_leaves_what_it_does_not_know_to_tc)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_UDP);
        struct shape host = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, 22);

        expect(w, XDP, &in, XDP_GOES_ON, &in);
        expect(w, XDP, &host, XDP_GOES_ON, &host);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}
