/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* DSR by IPIP: which packets are wrapped and how, and what the backend's node makes of them. */

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "check.h"

#define CLIENT_PORT 40000
#define ETHERNET 14
#define HEADER(family) ((family) == AF_INET ? 20u : 40u)
#define CONGESTED 3

static const enum variant both[] = { WRAPPED, WRAPPED_LEGACY };

/* ---- packets in packets -------------------------------------------------------------------- */

/* P, on the way from one node's address to a backend's, with the link-layer addresses that it has.
 */
static struct packet wrap(int family, const struct packet *p, enum who from, enum who to,
                          uint8_t tos)
{
        struct shape outer = { .src = at(family, from),
                               .dst = at(family, to),
                               .proto = family == AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6,
                               .df = true,
                               .tos = tos,
                               .payload = p->len - ETHERNET };
        struct packet w = packet_build(&outer);

        memcpy(w.data, p->data, 12);
        memcpy(w.data + ETHERNET + HEADER(family), p->data + ETHERNET, p->len - ETHERNET);
        return w;
}

/* What NODE sends to REMOTE_POD for the packet IN of a client. */
static struct packet wrapped(const struct shape *in)
{
        struct shape s = sent(*in, REMOTE_POD);
        struct packet p = packet_build(&s);

        return wrap(shape_family(in), &p, NODE, REMOTE_POD, in->tos & CONGESTED);
}

/* A client's packet S, as NODE2 sends it for POD. */
static struct packet from_node2(const struct shape *s)
{
        struct shape one = *s;
        struct packet p;

        one.smac = mac_of(NODE2);
        p = packet_build(&one);
        return wrap(shape_family(s), &p, NODE2, POD, 0);
}

/* The outer flow label, a hash that nobody can foresee. */
static void clear_label(struct packet *p)
{
        if (p->data[ETHERNET] >> 4 == 6)
                memset(p->data + ETHERNET + 2, 0, 2), p->data[ETHERNET + 1] &= 0xf0;
}

static void check_wrapped(struct world *w, const struct packet *in, const struct packet *want,
                          int line)
{
        struct outcome o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, in);
        struct packet inside = { .len = o.out.len -
                                        HEADER(want->data[12] == 8 ? AF_INET : AF_INET6) };
        const char *why = "";
        char text[2048];

        cr_assert_eq(o.verdict, REDIRECT, "line %d: verdict %d", line, o.verdict);
        clear_label(&o.out);
        cr_assert_str_eq(packet_diff(want, &o.out, text, sizeof(text)), "", "line %d:\n%s", line,
                         text);
        cr_expect(packet_valid(&o.out, &why), "line %d: outer %s", line, why);
        memcpy(inside.data, o.out.data, ETHERNET);
        memcpy(inside.data + ETHERNET, o.out.data + o.out.len - (inside.len - ETHERNET),
               inside.len - ETHERNET);
        cr_expect(packet_valid(&inside, &why), "line %d: inner %s", line, why);
}

/* The client's packet IN goes on to the backend wrapped, and is otherwise as it came. */
#define expect_wrapped(w, in)                                                                      \
        ({                                                                                         \
                struct packet _in = packet_build(in), _want = wrapped(in);                         \
                check_wrapped(w, &_in, &_want, __LINE__);                                          \
        })

/* What was unwrapped is dropped at its own hook. */
#define expect_dropped_inside(w, in, reason)                                                       \
        ({                                                                                         \
                struct packet _in = TO_PACKET(in);                                                 \
                uint64_t _before = world_all_drops(w);                                             \
                struct outcome _o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &_in);        \
                cr_expect_eq(_o.verdict, SHOT);                                                    \
                cr_expect_eq(world_drops(w, WEFT_DROP_##reason, WEFT_FROM_OVERLAY), 1);            \
                cr_expect_eq(world_all_drops(w) - _before, 1);                                     \
        })

static struct shape to_remote(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, CLIENT_PORT, NODE, NODE_PORT);
}

/* A client's packet to POD's service, at an address that every node has. */
static struct shape to_local(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, CLIENT_PORT, EXTERNAL, LOCAL_SERVICE_PORT);
}

/* S as POD gets it. */
static struct shape at_pod(struct shape s)
{
        s.dst = at(shape_family(&s), POD);
        s.dport = BACKEND_PORT;
        return delivered(s, POD);
}

/* ---- the first node ----------------------------------------------------------------------- */

BOTH(ipip, every_packet_of_a_connection_is_wrapped_as_it_came)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in = to_remote(family, IPPROTO_TCP), next = later(&in, ACK);

                expect_wrapped(w, &in);
                for (int n = 0; n < 3; n++)
                        expect_wrapped(w, &next);
                expect(w, XDP, &next, XDP_GOES_ON, &next);
                cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED);
                cr_expect_eq(flow_at(w, &in, UPLINK).f.watch, FIN | SYN | RST, "the short path");
                cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
                cr_expect_eq(world_all_drops(w), 0);
                cr_expect_eq(world_orphans(w), 0);
        }
}

BOTH(ipip, what_is_replayed_takes_one_lookup)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_remote(family, IPPROTO_TCP), next = later(&in, ACK);
        uint64_t before;

        run(w, FROM_UPLINK, &in);
        run(w, FROM_UPLINK, &next);
        run(w, FROM_UPLINK, &next);
        before = world_event(w, WEFT_EVENT_LOOKUP);
        expect_wrapped(w, &next);
        cr_expect_eq(world_event(w, WEFT_EVENT_LOOKUP) - before, 1);
}

BOTH(ipip, datagrams_are_wrapped_one_and_all)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_remote(family, IPPROTO_UDP);

        for (int i = 0; i < 4; i++)
                expect_wrapped(w, &in);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED, "no newcomer evicts it");
        cr_expect_eq(flow_at(w, &in, UPLINK).f.watch, 0, "the short path");
}

BOTH(ipip, an_address_of_a_service_is_wrapped_like_a_node_port)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);

        expect_wrapped(w, &in);
}

BOTH(ipip, a_backend_of_this_node_gets_nothing_wrapped)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_TCP), out = at_pod(in), reply = answer(&out);
        struct shape back = sent(as_answer_to(&in, reply), CLIENT);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(ipip, marks_of_congestion_are_on_both_headers)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_remote(family, IPPROTO_UDP);

        in.tos = 0xb8 | CONGESTED;
        expect_wrapped(w, &in);
        in.tos = 2;
        expect_wrapped(w, &in);
}

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

/* With the first packet of a flow as with later ones, and the sender's own packet quoted. */
BOTH(ipip, what_has_no_room_for_another_header_is_too_big)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_remote(family, IPPROTO_UDP), error;
        struct packet quote;

        for (int i = 0; i < 4; i++) {
                in.payload = 1500 - HEADER(family) - 8 - HEADER(family) + 1;
                quote = packet_build(&in);
                error = too_big(&in, &quote, 1500 - HEADER(family));
                expect(w, FROM_UPLINK, &in, REDIRECT, &error);
                in.payload--;
                expect_wrapped(w, &in);
        }
        cr_expect_eq(world_drops(w, WEFT_DROP_TOO_BIG, WEFT_FROM_UPLINK), 4);
}

BOTH(ipip, a_connection_in_its_middle_is_wrapped_like_a_new_one)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape syn = to_remote(family, IPPROTO_TCP), in = later(&syn, ACK);

        expect_wrapped(w, &in);
        expect_wrapped(w, &in);
        cr_expect_eq(flow_at(w, &in, UPLINK).f.state, WEFT_ESTABLISHED);
}

BOTH(ipip, a_removed_backend_resets_tcp_and_lets_datagrams_choose_again)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape tcp = to_remote(family, IPPROTO_TCP), next = later(&tcp, ACK);
        struct shape udp = to_remote(family, IPPROTO_UDP), out = at_pod(udp);
        struct service s = { .name = "remote-tcp",
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = IPPROTO_TCP,
                             .backends = { POD },
                             .n_backends = 1 };
        struct layout l;
        struct outcome o;

        run(w, FROM_UPLINK, &tcp);
        run(w, FROM_UPLINK, &next);
        run(w, FROM_UPLINK, &udp);
        run(w, FROM_UPLINK, &udp);
        world_set_service(w, family, &s);
        s.name = "remote-udp";
        s.proto = IPPROTO_UDP;
        world_set_service(w, family, &s);
        o = run(w, FROM_UPLINK, &next);
        cr_assert(packet_layout(&o.out, &l) && l.proto == IPPROTO_TCP);
        cr_expect(o.out.data[l.l4 + 13] & RST);
        cr_expect_eq(world_drops(w, WEFT_DROP_BACKEND_GONE, WEFT_FROM_UPLINK), 1);
        expect(w, FROM_UPLINK, &udp, REDIRECT, &out);
}

BOTH(ipip, fragments_follow_their_first_each_wrapped)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, CLIENT_PORT, EXTERNAL,
                                       SERVICE_PORT),
                     out = sent(in, REMOTE_POD);
        struct packet whole, first, last, want;

        in.payload = out.payload = 64;
        whole = packet_build(&in);
        first = packet_fragment(&whole, 7, 0, 48);
        last = packet_fragment(&whole, 7, 48, 24);
        expect_dropped(w, FROM_UPLINK, &last, FRAGMENT_BEFORE_FIRST);
        whole = packet_build(&out);
        want = packet_fragment(&whole, 7, 0, 48);
        want = wrap(family, &want, NODE, REMOTE_POD, 0);
        check_wrapped(w, &first, &want, __LINE__);
        want = packet_fragment(&whole, 7, 48, 24);
        want = wrap(family, &want, NODE, REMOTE_POD, 0);
        check_wrapped(w, &last, &want, __LINE__);
}

/* An ICMP error from the router about the answer to IN. */
static struct shape error_about_answer(const struct shape *in, struct packet *quote)
{
        struct shape reply = answer(in), error = { .smac = mac_of(ROUTER),
                                                   .dmac = mac_of(NODE),
                                                   .src = at(shape_family(in), ROUTER),
                                                   .dst = in->dst,
                                                   .quote = quote,
                                                   .rest = 1400 };

        *quote = packet_build(&reply);
        shape_icmp(&error, ICMP_IS_TOO_BIG);
        return error;
}

BOTH(ipip, an_error_about_an_answer_is_wrapped_as_it_came)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct packet quote;
        struct shape error = error_about_answer(&in, &quote);

        run(w, FROM_UPLINK, &in);
        expect_wrapped(w, &error);
        run(w, FROM_UPLINK, &in);
        expect_wrapped(w, &error);
}

BOTH(ipip, what_cannot_be_translated_is_not_wrapped_either)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_remote(family, IPPROTO_TCP);
        struct service s = { .name = "sctp",
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = IPPROTO_SCTP,
                             .backends = { REMOTE_POD },
                             .n_backends = 1 };
        struct packet p;

        world_set_service(w, family, &s);
        in.proto = IPPROTO_SCTP;
        in.payload = 32;
        p = packet_build(&in);
        memcpy(p.data + ETHERNET + HEADER(family),
               (uint16_t[]) { htons(CLIENT_PORT), htons(NODE_PORT) }, 4);
        expect_dropped(w, FROM_UPLINK, &p, UNSUPPORTED_PROTOCOL);
}

/* ---- the backend's node ------------------------------------------------------------------- */

static void check_unwrapped(int family, uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, proto), out = at_pod(in), reply = answer(&out);
        struct shape back = sent(as_answer_to(&in, reply), CLIENT);
        struct packet p = from_node2(&in);

        for (int i = 0; i < 3; i++) {
                expect(w, FROM_UPLINK, &p, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_orphans(w), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(ipip, the_packet_is_taken_out_and_answered_from_the_services_address)
{
        check_unwrapped(family, IPPROTO_TCP);
        check_unwrapped(family, IPPROTO_UDP);
}

BOTH(ipip, through_the_stack_the_answer_changes_where_it_leaves)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED_LEGACY);
        struct shape in = to_local(family, IPPROTO_TCP), stack = in, pod = at_pod(in);
        struct shape reply = answer(&pod), leaves = sent(reply, CLIENT);
        struct shape back = as_answer_to(&in, leaves);
        struct packet p = from_node2(&in);

        stack.smac = mac_of(NODE2);
        stack.dst = at(family, POD);
        stack.dport = BACKEND_PORT;
        expect(w, FROM_UPLINK, &p, NEXT, &stack);
        expect_untouched(w, FROM_POD, &reply);
        expect(w, TO_UPLINK, &leaves, NEXT, &back);
}

BOTH(ipip, a_node_port_of_the_other_node_is_known)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, NODE2, LOCAL_PORT);
        struct shape out = at_pod(in), reply = answer(&out);
        struct shape back = sent(as_answer_to(&in, reply), CLIENT);
        struct packet p = from_node2(&in);

        expect(w, FROM_UPLINK, &p, REDIRECT, &out);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(ipip, what_is_replayed_inside_takes_one_lookup)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_TCP), out = at_pod(in), reply = answer(&out);
        struct shape next = later(&in, ACK);
        struct packet p = from_node2(&in), q = from_node2(&next);
        uint64_t before;

        out = at_pod(next);
        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        run(w, FROM_POD, &reply);
        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &q);
        before = world_event(w, WEFT_EVENT_LOOKUP);
        expect(w, FROM_UPLINK, &q, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_LOOKUP) - before, 1);
        cr_expect_eq(flow_at(w, &in, OVERLAY).f.state, WEFT_ESTABLISHED);
}

BOTH(ipip, whoever_is_no_peer_sends_a_packet_like_any)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_TCP);
        struct packet p = packet_build(&in), mine = wrap(family, &p, CLIENT, POD, 0), want = mine;

        memcpy(want.data, (uint8_t[]) { 2, 0, 0, 0, 2, 0x10, 2, 0, 0, 0, 3, 0x10 }, 12);
        want.data[family == AF_INET ? 22 : 21]--;
        if (family == AF_INET)
                want.data[24]++;
        expect(w, FROM_UPLINK, &mine, REDIRECT, &want);
        mine = wrap(family, &p, NODE2, REMOTE_POD, 0);
        expect_untouched(w, FROM_UPLINK, &mine);
}

BOTH(ipip, an_endpoint_that_has_the_address_itself_gets_the_packet_as_it_was)
{
        for (size_t i = 0; i < ELEMENTS(both); i++) {
                _cleanup_world_ struct world *w = world_open(both[i]);
                struct shape in =
                        from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, PRIVATE, 443);
                struct shape out = delivered(in, POD), reply = answer(&out);
                struct shape back = sent(reply, CLIENT), foreign = reply;
                struct packet p = from_node2(&in);

                foreign.sport = 444;
                for (int n = 0; n < 3; n++) {
                        expect(w, FROM_UPLINK, &p, REDIRECT, &out);
                        expect(w, FROM_POD, &reply, REDIRECT, &back);
                }
                expect_dropped(w, FROM_POD, &foreign, SPOOFED);
                cr_expect_eq(world_orphans(w), 0);
        }
}

BOTH(ipip, a_backend_that_is_not_known_here_is_refused_past_the_first_node)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct packet p = from_node2(&in);
        struct outcome o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        struct shape reset = answer(&in);

        reset.flags = RST | ACK;
        reset.smac = mac_of(NODE);
        reset.dmac = mac_of(NODE2); /* what the neighbour layer puts over */
        reset.id = 0;
        reset.df = true;
        reset.seq = 0;
        reset.ack = in.seq + 1;
        reset.label = 0;
        struct packet want = packet_build(&reset);
        char text[2048];

        cr_expect_eq(o.verdict, REDIRECT);
        cr_expect_str_eq(packet_diff(&want, &o.out, text, sizeof(text)), "", "%s", text);
        cr_expect_eq(world_drops(w, WEFT_DROP_NO_BACKEND, WEFT_FROM_OVERLAY), 1);
}

BOTH(ipip, one_client_port_through_two_addresses_is_kept_apart)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape a = to_local(family, IPPROTO_TCP), b = a, out_a = at_pod(a), out_b, reply,
                     back;
        struct packet p = from_node2(&a), q;
        struct flow f;

        b.dst = at(family, NODE2);
        b.dport = LOCAL_PORT;
        q = from_node2(&b);
        expect(w, FROM_UPLINK, &p, REDIRECT, &out_a);
        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &q);
        f = flow_at(w, &b, OVERLAY);
        cr_assert_neq(f.new_sport, CLIENT_PORT);
        out_b = at_pod(b);
        out_b.sport = f.new_sport;
        expect(w, FROM_UPLINK, &q, REDIRECT, &out_b);
        reply = answer(&out_b);
        back = sent(as_answer_to(&b, reply), CLIENT);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
        reply = answer(&out_a);
        back = sent(as_answer_to(&a, reply), CLIENT);
        expect(w, FROM_POD, &reply, REDIRECT, &back);
}

BOTH(ipip, a_connection_goes_on_when_its_first_node_becomes_this_one_and_back)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape syn = to_local(family, IPPROTO_TCP), here = later(&syn, ACK);
        struct shape out = at_pod(here), reply = answer(&out);
        struct shape back = sent(as_answer_to(&here, reply), CLIENT);
        struct packet p = from_node2(&syn), next = from_node2(&here);

        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        for (int i = 0; i < 3; i++) {
                expect(w, FROM_UPLINK, &here, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
                expect(w, FROM_UPLINK, &next, REDIRECT, &out);
                expect(w, FROM_POD, &reply, REDIRECT, &back);
        }
}

/* This node may itself have chosen another one's backend for the same client and address: the
 * packet must not go round. */
BOTH(ipip, what_was_wrapped_for_an_endpoint_goes_nowhere_else)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct service s = { .name = "remote-tcp",
                             .port = SERVICE_PORT,
                             .proto = IPPROTO_TCP,
                             .external = { EXTERNAL },
                             .n_external = 1,
                             .backends = { REMOTE_POD, POD },
                             .n_backends = 2 };
        struct shape in =
                from_outside(family, IPPROTO_TCP, CLIENT, CLIENT_PORT, EXTERNAL, SERVICE_PORT);
        struct shape out = at_pod(in);
        struct packet p = from_node2(&in);

        expect_wrapped(w, &in);
        world_set_service(w, family, &s);
        expect(w, FROM_UPLINK, &p, REDIRECT, &out);
        expect_wrapped(w, &in);
        expect(w, FROM_UPLINK, &p, REDIRECT, &out);
}

BOTH(ipip, fragments_are_taken_out_behind_their_first)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_UDP), out;
        struct packet whole, first, last, outer, want;

        in.payload = 64;
        in.smac = mac_of(NODE2);
        out = at_pod(in);
        whole = packet_build(&in);
        first = packet_fragment(&whole, 7, 0, 48);
        last = packet_fragment(&whole, 7, 48, 24);
        outer = wrap(family, &last, NODE2, POD, 0);
        expect_dropped_inside(w, &outer, FRAGMENT_BEFORE_FIRST);
        whole = packet_build(&out);
        want = packet_fragment(&whole, 7, 0, 48);
        first = wrap(family, &first, NODE2, POD, 0);
        expect(w, FROM_UPLINK, &first, REDIRECT, &want);
        want = packet_fragment(&whole, 7, 48, 24);
        expect(w, FROM_UPLINK, &outer, REDIRECT, &want);
}

BOTH(ipip, an_error_about_an_answer_reaches_the_backend)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_TCP), pod = at_pod(in), reply = answer(&pod);
        struct packet p = from_node2(&in), quote, wanted = packet_build(&reply);
        struct shape error = error_about_answer(&in, &quote), want;
        struct packet outer;

        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        run(w, FROM_POD, &reply);
        reply.src = at(family, EXTERNAL);
        reply.sport = LOCAL_SERVICE_PORT;
        quote = packet_build(&reply);
        want = delivered(error, POD);
        want.dst = at(family, POD);
        want.quote = &wanted;
        error.smac = mac_of(NODE2);
        outer = from_node2(&error);
        expect(w, FROM_UPLINK, &outer, REDIRECT, &want);
}

BOTH(ipip, an_error_of_the_backend_comes_from_the_service)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_UDP), pod = at_pod(in), told = in, error, want;
        struct packet p = from_node2(&in), quote = packet_build(&pod), wanted;

        world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
        error = (struct shape) { .smac = mac_of(POD),
                                 .dmac = gateway_mac(POD),
                                 .src = at(family, POD),
                                 .dst = at(family, CLIENT),
                                 .quote = &quote };
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        told.ttl = 63;
        wanted = packet_build(&told);
        want = sent(error, CLIENT);
        want.src = at(family, EXTERNAL);
        want.quote = &wanted;
        expect(w, FROM_POD, &error, REDIRECT, &want);
}

/* ---- what should not be in there ---------------------------------------------------------- */

BOTH(ipip, what_the_stack_would_send_back_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape reply = echo(family, CLIENT, EXTERNAL, 9), error, in = to_remote(family, 6);
        struct packet p, quote;

        shape_icmp(&reply, ICMP_IS_REPLY);
        p = from_node2(&reply);
        cr_expect_eq(world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p).verdict, SHOT);
        error = error_about_answer(&in, &quote);
        p = from_node2(&error);
        cr_expect_eq(world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p).verdict, SHOT);
        p = from_node2(&in);
        p.data[ETHERNET + HEADER(family)] ^= 0xf0; /* neither IPv4 nor IPv6 */
        cr_expect_eq(world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p).verdict, SHOT);
        cr_expect_eq(world_drops(w, WEFT_DROP_TUNNEL_INVALID, WEFT_FROM_OVERLAY), 3);
}

BOTH(ipip, nobody_borrows_an_address_of_this_node_inside)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in =
                from_outside(family, IPPROTO_TCP, POD2, CLIENT_PORT, EXTERNAL, LOCAL_SERVICE_PORT);
        struct packet p = from_node2(&in);

        expect_dropped_inside(w, &p, SPOOFED);
}

BOTH(ipip, a_mark_of_congestion_goes_inside_or_nowhere)
{
        _cleanup_world_ struct world *w = world_open(WRAPPED);
        struct shape in = to_local(family, IPPROTO_TCP), out;
        struct packet p, q;

        in.smac = mac_of(NODE2);
        in.tos = 2;
        p = packet_build(&in);
        q = wrap(family, &p, NODE2, POD, CONGESTED);
        out = at_pod(in);
        out.tos = CONGESTED;
        expect(w, FROM_UPLINK, &q, REDIRECT, &out);
        in.tos = 0;
        p = packet_build(&in);
        q = wrap(family, &p, NODE2, POD, CONGESTED);
        expect_dropped(w, FROM_UPLINK, &q, TUNNEL_INVALID);
}
