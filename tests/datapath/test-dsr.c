/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Direct server return: what the first node tells the backend's node, and what that makes of it. */

#include "check.h"

#define CLIENT_PORT 40000
#define TOLD_MAX 24

static const enum variant both[] = { DIRECT, DIRECT_LEGACY };

/* ---- packets that tell -------------------------------------------------------------------- */

/* S with the word about service:port, made here by hand; client_port 0: that of the packet. */
static struct shape telling(struct shape s, enum who service, uint16_t port, uint16_t client_port)
{
        static uint8_t room[16][TOLD_MAX];
        static unsigned next;
        uint8_t *o = room[next++ % ELEMENTS(room)];
        struct weft_addr a = at(shape_family(&s), service);
        uint16_t ports[2] = { htons(port), htons(client_port) };

        s.options = o;
        if (shape_family(&s) == AF_INET) {
                s.n_options = client_port ? 12 : 8;
                memcpy(o, (uint8_t[]) { 0x9e, s.n_options }, 2);
                memcpy(o + 2, &ports[0], 2);
                memcpy(o + 4, &a.w[3], 4);
                memcpy(o + 8, &ports[1], 2);
                o[10] = o[11] = 0;
        } else {
                s.n_options = 24;
                s.extension = IPPROTO_DSTOPTS;
                memcpy(o, (uint8_t[]) { s.proto, 2, 0x1e, 20 }, 4);
                memcpy(o + 4, &a, 16);
                memcpy(o + 20, ports, 4);
        }
        return s;
}

static struct shape plain(struct shape s)
{
        s.options = NULL;
        s.n_options = 0;
        s.extension = 0;
        return s;
}

/* A client's packet to the node port of the remote backend, and what goes on to that. */
static struct shape to_remote(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, CLIENT_PORT, NODE, NODE_PORT);
}

static struct shape at_backend(struct shape s)
{
        s.dst = at(shape_family(&s), REMOTE_POD);
        s.dport = BACKEND_PORT;
        return sent(s, REMOTE_POD);
}

/* A packet that NODE2 sends on to POD, with its word about NODE2's node port. */
static struct shape from_first_node(int family, uint8_t proto)
{
        struct shape s = from_outside(family, proto, CLIENT, CLIENT_PORT, POD, BACKEND_PORT);

        s.smac = mac_of(NODE2);
        return telling(s, NODE2, NODE_PORT, 0);
}

/* The answer R of POD as it leaves: from the service of which this node was told. */
static struct shape directly(struct shape r, enum who service, uint16_t port)
{
        r.src = at(shape_family(&r), service);
        r.sport = port;
        return sent(r, CLIENT);
}

/* ---- the first node ----------------------------------------------------------------------- */

BOTH(dsr, the_first_packet_of_tcp_tells_and_later_ones_do_not)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = to_remote(family, IPPROTO_TCP);
        struct shape out = telling(at_backend(in), NODE, NODE_PORT, 0);
        struct shape next = later(&in, ACK), next_out = at_backend(next);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        for (int i = 0; i < 3; i++)
                expect(w, FROM_UPLINK, &next, REDIRECT, &next_out);
        expect(w, XDP, &next, XDP_REDIRECTED, &next_out);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.watch, FIN | SYN | RST, "the short path");
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(dsr, a_repeated_syn_tells_again)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = to_remote(family, IPPROTO_TCP);
        struct shape out = telling(at_backend(in), NODE, NODE_PORT, 0);

        for (int i = 0; i < 3; i++)
                expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_NEW, "half open, whoever repeats it");
}

BOTH(dsr, every_datagram_tells)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = to_remote(family, IPPROTO_UDP);
        struct shape out = telling(at_backend(in), NODE, NODE_PORT, 0);

        for (int i = 0; i < 4; i++)
                expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, XDP, &in, XDP_GOES_ON, &in);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED, "no newcomer evicts it");
}

BOTH(dsr, an_address_of_a_service_is_told_like_a_node_port)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct shape out = telling(at_backend(in), EXTERNAL, SERVICE_PORT, 0);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
}

BOTH(dsr, a_local_backend_is_told_nothing)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, NODE, LOCAL_PORT);
        struct shape out = in, reply, back;

        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        out = delivered(out, POD);
        reply = answer(&out);
        back = sent(as_answer_to(&in, reply), CLIENT);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(dsr, the_clients_own_options_stay_behind_the_word)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        static const uint8_t nops[4] = { 1, 1, 1, 0 };
        struct shape in = to_remote(family, IPPROTO_TCP), out;
        uint8_t all[12];

        if (family != AF_INET)
                return;
        in.options = nops;
        in.n_options = sizeof(nops);
        out = telling(at_backend(in), NODE, NODE_PORT, 0);
        memcpy(all, out.options, 8);
        memcpy(all + 8, nops, 4);
        out.options = all;
        out.n_options = sizeof(all);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
}

/* The error that tells CLIENT that `in` was too big for the way. */
static struct shape too_big(const struct shape *in, const struct packet *quote, uint32_t mtu)
{
        int family = shape_family(in);
        struct shape e = { .smac = in->dmac,
                           .dmac = in->smac,
                           .src = at(family, NODE),
                           .dst = in->src,
                           .tos = family == AF_INET ? 0xc0 : 0,
                           .quote = quote,
                           .quoted = 512,
                           .rest = mtu };

        shape_icmp(&e, ICMP_IS_TOO_BIG);
        return e;
}

BOTH(dsr, what_has_no_room_for_the_word_is_too_big)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        uint32_t headers = family == AF_INET ? 28 : 48, word = family == AF_INET ? 8 : 24;
        struct shape in = to_remote(family, IPPROTO_UDP), out, error;
        struct packet quote;

        in.payload = 1500 - headers - word + 1;
        quote = packet_build(&in);
        error = too_big(&in, &quote, 1500 - word);
        expect(w, FROM_UPLINK, &in, REDIRECT, &error);
        cr_expect_eq(world_drops(w, WEFT_DROP_TOO_BIG, WEFT_FROM_UPLINK), 1);
        in.payload--;
        out = telling(at_backend(in), NODE, NODE_PORT, 0);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
}

BOTH(dsr, a_connection_that_comes_here_in_its_middle_tells_with_its_first_packet)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape syn = to_remote(family, IPPROTO_TCP), in = later(&syn, ACK);
        struct shape out = telling(at_backend(in), NODE, NODE_PORT, 0), next = at_backend(in);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &in, REDIRECT, &next);
        expect(w, FROM_UPLINK, &in, REDIRECT, &next);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED);
}

BOTH(dsr, a_first_packet_that_was_too_big_leaves_the_word_to_the_next)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape syn = to_remote(family, IPPROTO_TCP), in = later(&syn, ACK), out, after;

        in.payload = 1500 - (family == AF_INET ? 40 : 60);
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_expect_eq(world_drops(w, WEFT_DROP_TOO_BIG, WEFT_FROM_UPLINK), 1);
        in.payload -= 24;
        out = telling(at_backend(in), NODE, NODE_PORT, 0);
        after = at_backend(in);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &in, REDIRECT, &after);
}

BOTH(dsr, a_removed_backend_resets_tcp_and_lets_datagrams_choose_again)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape tcp = to_remote(family, IPPROTO_TCP), next = later(&tcp, ACK);
        struct shape udp = to_remote(family, IPPROTO_UDP), out = udp;
        struct service s = { .name = "remote-tcp",
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = IPPROTO_TCP,
                             .external = { EXTERNAL, SECOND },
                             .n_external = 2,
                             .cluster = true,
                             .backends = { POD },
                             .n_backends = 1 };
        struct layout l;
        struct outcome o;

        run(w, FROM_UPLINK, &tcp);
        run(w, FROM_UPLINK, &next);
        run(w, FROM_UPLINK, &udp);
        world_set_service(w, family, &s);
        s.name = "remote-udp";
        s.proto = IPPROTO_UDP;
        world_set_service(w, family, &s);
        o = run(w, FROM_UPLINK, &next);
        cr_assert(packet_layout(&o.out, &l) && l.proto == IPPROTO_TCP);
        cr_expect(o.out.data[l.l4 + 13] & RST);
        cr_expect_eq(world_drops(w, WEFT_DROP_BACKEND_GONE, WEFT_FROM_UPLINK), 1);
        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        out = delivered(out, POD);
        expect(w, FROM_UPLINK, &udp, REDIRECT, &out);
}

BOTH(dsr, a_client_that_has_finished_is_remembered_a_while_and_may_begin_again)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = to_remote(family, IPPROTO_TCP), ack = later(&in, ACK);
        struct shape fin = later(&in, FIN | ACK), out = telling(at_backend(in), NODE, NODE_PORT, 0);
        struct shape ack_out = at_backend(ack);

        run(w, FROM_UPLINK, &in);
        run(w, FROM_UPLINK, &ack);
        run(w, FROM_UPLINK, &fin);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_CLOSING);
        expect(w, FROM_UPLINK, &ack, REDIRECT, &ack_out);
        struct flow f = flow_at(w, &in, UPLINK);
        cr_expect_eq(flow_seconds(w, &f), 120, "the server may have more to say");
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_NEW);
        cr_expect_eq(world_event(w, WEFT_EVENT_REOPENED), 1);
}

BOTH(dsr, one_client_port_through_two_addresses_tells_the_port_that_was_exchanged)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape a = to_remote(family, IPPROTO_TCP), out_a, out_b;
        struct shape b =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct packet p = packet_build(&b), want;
        struct outcome o;
        struct flow f;
        char text[2048];

        out_a = telling(at_backend(a), NODE, NODE_PORT, 0);
        expect(w, FROM_UPLINK, &a, REDIRECT, &out_a);
        o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        f = flow_at(w, &b, UPLINK);
        cr_expect_neq(f.new_sport, CLIENT_PORT);
        cr_expect(memcmp(&f.new_src, &b.src, sizeof(b.src)) == 0, "the client keeps its address");
        out_b = at_backend(b);
        out_b.sport = f.new_sport;
        out_b = telling(out_b, EXTERNAL, SERVICE_PORT, CLIENT_PORT);
        want = packet_build(&out_b);
        cr_expect_str_eq(packet_diff(&want, &o.out, text, sizeof(text)), "");
}

BOTH(dsr, fragments_follow_their_first_which_tells)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, CLIENT_PORT, EXTERNAL,
                                       SERVICE_PORT),
                     out;
        struct packet whole, first, last, want;
        struct outcome o;
        struct layout l;

        in.payload = 64;
        out = at_backend(in);
        whole = packet_build(&in);
        first = packet_fragment(&whole, 7, 0, 48);
        last = packet_fragment(&whole, 7, 48, 24);
        expect_dropped(w, FROM_UPLINK, &last, FRAGMENT_BEFORE_FIRST);
        o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &first);
        cr_expect_eq(o.verdict, REDIRECT);
        cr_assert(packet_layout(&o.out, &l));
        cr_expect_eq(o.out.len, first.len + (family == AF_INET ? 8 : 24));
        whole = packet_build(&out);
        want = packet_fragment(&whole, 7, 48, 24);
        expect(w, FROM_UPLINK, &last, REDIRECT, &want);
}

BOTH(dsr, an_error_about_an_answer_reaches_the_backend_by_the_first_node)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct shape reply = answer(&in), sent_reply = reply, error, want;
        struct packet quote, wanted;

        run(w, FROM_UPLINK, &in);
        quote = packet_build(&reply);
        error = (struct shape) { .smac = mac_of(ROUTER),
                                 .dmac = mac_of(NODE),
                                 .src = at(family, ROUTER),
                                 .dst = at(family, EXTERNAL),
                                 .quote = &quote,
                                 .rest = 1400 };
        shape_icmp(&error, ICMP_IS_TOO_BIG);
        want = sent(error, REMOTE_POD);
        want.dst = at(family, REMOTE_POD);
        sent_reply.src = at(family, REMOTE_POD);
        sent_reply.sport = BACKEND_PORT;
        wanted = packet_build(&sent_reply);
        want.quote = &wanted;
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

/* ---- the backend's node ------------------------------------------------------------------- */

static void check_told(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, proto), out = delivered(plain(in), POD);
        struct shape reply = answer(&out), back = directly(reply, NODE2, NODE_PORT);

        for (int i = 0; i < 2; i++) {
                expect(w, FROM_UPLINK, &in, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(dsr, the_word_is_taken_out_and_the_answer_leaves_from_the_services_address)
{
        check_told(family, IPPROTO_TCP);
        check_told(family, IPPROTO_UDP);
}

BOTH(dsr, through_the_stack_the_answer_changes_where_it_leaves)
{
        _cleanup_world_ struct world *w = world_open(DIRECT_LEGACY);
        struct shape in = from_first_node(family, IPPROTO_TCP), stack = plain(in);
        struct shape at_pod = delivered(stack, POD), reply = answer(&at_pod);
        struct shape leaves = sent(reply, CLIENT), back = directly(reply, NODE2, NODE_PORT);

        expect(w, FROM_UPLINK, &in, NEXT, &stack);
        expect_untouched(w, FROM_POD, &reply);
        expect(w, TO_UPLINK, &leaves, NEXT, &back);
}

BOTH(dsr, packets_without_a_word_belong_to_the_connection)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, IPPROTO_TCP), bare = plain(in);
        struct shape out = delivered(bare, POD), reply = answer(&out), next = later(&bare, ACK);
        struct shape next_out = delivered(next, POD), more = later(&reply, ACK);
        struct shape back = directly(more, NODE2, NODE_PORT);

        run(w, FROM_UPLINK, &in);
        run(w, FROM_POD, &reply);
        for (int i = 0; i < 3; i++) {
                expect(w, FROM_UPLINK, &next, REDIRECT, &next_out);
                expect(w, FROM_POD, &more, REDIRECT, &back);
        }
        cr_expect_eq(flow_at(w, &next, UPLINK).f.state, WEFT_ESTABLISHED);
        cr_expect_eq(flow_at(w, &next, UPLINK).f.watch, FIN | SYN | RST, "the short path");
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

BOTH(dsr, a_word_in_mid_connection_is_believed)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape syn = from_first_node(family, IPPROTO_TCP), in = later(&syn, ACK);
                struct shape out = delivered(plain(in), POD), reply = answer(&out);

                cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, i == 0 ? REDIRECT : NEXT);
                run(w, FROM_POD, &reply);
                if (i == 0) {
                        struct shape more = later(&reply, RST),
                                     back = directly(more, NODE2, NODE_PORT);

                        expect(w, FROM_POD, &more, REDIRECT, &back);
                }
        }
}

BOTH(dsr, a_syn_without_a_word_takes_it_back)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, IPPROTO_TCP), bare = plain(in);
        struct shape out = delivered(bare, POD), reply = answer(&out), back = sent(reply, CLIENT);

        run(w, FROM_UPLINK, &in);
        expect(w, FROM_UPLINK, &bare, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(dsr, what_is_established_is_no_newcomers)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, IPPROTO_TCP), bare = plain(in), next, reply, more;
        struct shape other = telling(bare, EXTERNAL, SERVICE_PORT, 0), out, back;

        out = delivered(bare, POD);
        reply = answer(&out);
        next = later(&bare, ACK);
        run(w, FROM_UPLINK, &in);
        run(w, FROM_POD, &reply);
        run(w, FROM_UPLINK, &next);
        expect(w, FROM_UPLINK, &other, REDIRECT, &out);
        more = later(&reply, ACK);
        back = directly(more, NODE2, NODE_PORT);
        expect(w, FROM_POD, &more, REDIRECT, &back);
}

BOTH(dsr, datagrams_of_one_port_through_two_services_are_answered_by_turns)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape one = from_first_node(family, IPPROTO_UDP), bare = plain(one);
        struct shape two = telling(bare, EXTERNAL, SERVICE_PORT, 0);
        struct shape out = delivered(bare, POD), reply = answer(&out);
        struct shape back_one = directly(reply, NODE2, NODE_PORT);
        struct shape back_two = directly(reply, EXTERNAL, SERVICE_PORT);
        struct shape back_none = sent(reply, CLIENT);

        for (int i = 0; i < 2; i++) {
                expect(w, FROM_UPLINK, &one, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back_one);
                expect(w, FROM_UPLINK, &two, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back_two);
                expect(w, FROM_UPLINK, &bare, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back_none);
        }
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(dsr, an_exchanged_port_is_the_clients_own_again_in_the_answer)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in = from_first_node(family, IPPROTO_TCP), out, reply, back;

                in = telling(plain(in), EXTERNAL, SERVICE_PORT, 50000);
                out = delivered(plain(in), POD);
                reply = answer(&out);
                back = directly(reply, EXTERNAL, SERVICE_PORT);
                back.dport = 50000;
                run(w, FROM_UPLINK, &in);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
                cr_expect_eq(world_orphans(w), 0);
        }
}

BOTH(dsr, a_client_that_the_backend_knows_by_another_way_gets_another_port)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape here =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, NODE, LOCAL_PORT);
        struct shape in = from_first_node(family, IPPROTO_TCP), out = delivered(plain(in), POD);
        struct shape reply, back;
        struct flow f;

        run(w, FROM_UPLINK, &here);
        run(w, FROM_UPLINK, &in);
        f = flow_at(w, &out, UPLINK);
        cr_assert_neq(f.new_sport, CLIENT_PORT);
        out.sport = f.new_sport;
        reply = answer(&out);
        back = directly(reply, NODE2, NODE_PORT);
        back.dport = CLIENT_PORT;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(dsr, a_connection_goes_on_when_its_first_node_becomes_this_one_and_back)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, IPPROTO_TCP), out, reply, back, here, told;

        in = telling(plain(in), EXTERNAL, LOCAL_SERVICE_PORT, 0);
        out = delivered(plain(in), POD);
        reply = answer(&out);
        back = directly(reply, EXTERNAL, LOCAL_SERVICE_PORT);
        run(w, FROM_UPLINK, &in);
        expect(w, FROM_POD, &reply, REDIRECT, &back);

        here = from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, LOCAL_SERVICE_PORT);
        here = later(&here, ACK);
        out = here;
        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        told = out;
        out = delivered(out, POD);
        told.smac = mac_of(NODE2);
        for (int i = 0; i < 3; i++) {
                expect(w, FROM_UPLINK, &here, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
                expect(w, FROM_UPLINK, &told, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
        }
        told = telling(told, EXTERNAL, LOCAL_SERVICE_PORT, 0);
        expect(w, FROM_UPLINK, &told, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(dsr, an_error_of_the_backend_comes_from_the_service)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_first_node(family, IPPROTO_UDP), out = delivered(plain(in), POD);
        struct packet quote, wanted;
        struct shape told = plain(in), error, want;

        run(w, FROM_UPLINK, &in);
        quote = packet_build(&out);
        error = (struct shape) { .smac = mac_of(POD),
                                 .dmac = gateway_mac(POD),
                                 .src = at(family, POD),
                                 .dst = at(family, CLIENT),
                                 .quote = &quote };
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        want = sent(error, CLIENT);
        want.src = at(family, NODE2);
        told.dst = at(family, NODE2);
        told.dport = NODE_PORT;
        told.ttl = 63;
        wanted = packet_build(&told);
        want.quote = &wanted;
        expect(w, FROM_POD, &error, REDIRECT, &want);
}

BOTH(dsr, a_word_for_somebody_else_is_passed_on)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, NOBODY, 80);

        in = telling(in, NODE2, NODE_PORT, 0);
        expect_untouched(w, FROM_UPLINK, &in);
}

BOTH(dsr, a_first_fragment_that_tells_is_followed_by_the_others)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct shape s = plain(from_first_node(family, IPPROTO_UDP)), out = delivered(s, POD);
        struct packet whole, first, last, want;

        if (family != AF_INET)
                return;
        s.payload = out.payload = 64;
        whole = packet_build(&s);
        last = packet_fragment(&whole, 7, 48, 24);
        first = packet_fragment(&whole, 7, 0, 48);
        /* the word, by hand */
        memmove(first.data + 42, first.data + 34, first.len - 34);
        first.len += 8;
        struct shape word = telling(s, NODE2, NODE_PORT, 0);
        memcpy(first.data + 34, word.options, 8);
        first.data[14] = 0x47;
        first.data[17] += 8;
        first.data[24] = first.data[25] = 0;
        uint32_t sum = 0;
        for (int i = 14; i < 42; i += 2)
                sum += first.data[i] << 8 | first.data[i + 1];
        sum = ~((sum & 0xffff) + (sum >> 16));
        first.data[24] = sum >> 8;
        first.data[25] = sum;
        expect_dropped(w, FROM_UPLINK, &last, FRAGMENT_BEFORE_FIRST);
        whole = packet_build(&out);
        want = packet_fragment(&whole, 7, 0, 48);
        expect(w, FROM_UPLINK, &first, REDIRECT, &want);
        want = packet_fragment(&whole, 7, 48, 24);
        expect(w, FROM_UPLINK, &last, REDIRECT, &want);
}

/* ---- hybrid ------------------------------------------------------------------------------- */

BOTH(dsr, hybrid_sends_tcp_by_dsr_and_udp_by_snat)
{
        _cleanup_world_ struct world *w = world_open(DIVIDED);
        struct shape tcp = to_remote(family, IPPROTO_TCP), udp = to_remote(family, IPPROTO_UDP);
        struct shape tcp_out = telling(at_backend(tcp), NODE, NODE_PORT, 0), udp_out, back, reply;

        udp.sport = 61234;
        udp_out = at_backend(udp);
        udp_out.src = at(family, NODE);
        expect(w, FROM_UPLINK, &tcp, REDIRECT, &tcp_out);
        expect(w, FROM_UPLINK, &udp, REDIRECT, &udp_out);
        reply = answer(&udp_out);
        back = sent(as_answer_to(&udp, reply), CLIENT);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
}

BOTH(dsr, a_services_own_word_goes_before_hybrids)
{
        _cleanup_world_ struct world *w = world_open(DIVIDED);
        struct shape tcp = to_remote(family, IPPROTO_TCP), udp = to_remote(family, IPPROTO_UDP);
        struct service s = { .name = "remote-tcp",
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = IPPROTO_TCP,
                             .backends = { REMOTE_POD },
                             .n_backends = 1,
                             .forwarding = WEFT_FORWARDING_SNAT };
        struct shape tcp_out, udp_out = telling(at_backend(udp), NODE, NODE_PORT, 0);

        world_set_service(w, family, &s);
        s.name = "remote-udp";
        s.proto = IPPROTO_UDP;
        s.forwarding = WEFT_FORWARDING_DSR;
        world_set_service(w, family, &s);
        tcp.sport = 61234;
        tcp_out = at_backend(tcp);
        tcp_out.src = at(family, NODE);
        expect(w, FROM_UPLINK, &tcp, REDIRECT, &tcp_out);
        expect(w, FROM_UPLINK, &udp, REDIRECT, &udp_out);
}
