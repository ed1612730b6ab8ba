/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Errors that come back along the path of a flow, and the answers that weft gives itself. */

#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include "check.h"

/* ---- errors about translated packets ------------------------------------------------------ */

/* A flow through the node port to the remote backend: as the client sends, the backend gets it. */
static void begin_remote(struct world *w, int family, uint8_t proto, struct shape *in,
                         struct shape *out)
{
        *in = from_outside(family, proto, CLIENT, 61234, NODE, NODE_PORT);
        *out = *in;
        out->src = at(family, NODE);
        out->dst = at(family, REMOTE_POD);
        out->dport = BACKEND_PORT;
        *out = sent(*out, REMOTE_POD);
        expect(w, FROM_UPLINK, in, REDIRECT, out);
}

static struct shape error_from(int family, enum who router, enum icmp_kind kind, enum who to,
                               const struct packet *quote, size_t quoted)
{
        struct shape e = from_outside(family, IPPROTO_ICMP, router, 0, to, 0);

        shape_icmp(&e, kind);
        e.payload = 0;
        e.quote = quote;
        e.quoted = quoted;
        if (kind == ICMP_IS_TOO_BIG)
                e.rest = 1300;
        return e;
}

/* `quoted` bytes of the translated packet come back in an error of this kind from a router on the
 * way (or from the backend's node), and the client must see its own packet in it. */
static void check_error(int family, uint8_t proto, enum icmp_kind kind, size_t quoted)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in, out, error, want;
        struct packet quote, own;

        begin_remote(w, family, proto, &in, &out);
        out.ttl = 5;
        in.ttl = 5;
        quote = packet_build(&out);
        own = packet_build(&in);
        error = error_from(family, ROUTER, kind, NODE, &quote, quoted);
        want = error;
        want.dst = at(family, CLIENT);
        want.quote = &own;
        want = sent(want, CLIENT);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1, "an error opens nothing");
}

BOTH(icmp, an_unreachable_from_the_path_of_a_tcp_packet_reaches_the_client_in_its_own_terms)
{
        check_error(family, IPPROTO_TCP, ICMP_IS_UNREACHABLE, 0);
}

BOTH(icmp, an_unreachable_from_the_path_of_a_udp_packet_reaches_the_client_in_its_own_terms)
{
        check_error(family, IPPROTO_UDP, ICMP_IS_UNREACHABLE, 0);
}

BOTH(icmp, too_big_from_the_path_reaches_the_client_with_its_mtu)
{
        check_error(family, IPPROTO_UDP, ICMP_IS_TOO_BIG, 0);
        check_error(family, IPPROTO_TCP, ICMP_IS_TOO_BIG, 0);
}

BOTH(icmp, time_exceeded_from_the_path_reaches_the_client)
{
        check_error(family, IPPROTO_TCP, ICMP_IS_EXCEEDED, 0);
        check_error(family, IPPROTO_UDP, ICMP_IS_EXCEEDED, 0);
}

BOTH(icmp, a_quote_of_eight_bytes_is_enough)
{
        size_t header = family == AF_INET ? 20 : 40;

        check_error(family, IPPROTO_TCP, ICMP_IS_EXCEEDED, header + 8);
        check_error(family, IPPROTO_UDP, ICMP_IS_UNREACHABLE, header + 8);
}

/* The backend or its node says something about a reply that the client's packets have caused: the
 * error travels the way of the forward direction. */
BOTH(icmp, an_error_of_the_client_about_a_reply_reaches_the_backend_in_its_terms)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in, out, reply, back, error, want;
        struct packet quote, own;

        begin_remote(w, family, IPPROTO_UDP, &in, &out);
        reply = answer(&out);
        back = sent(as_answer_to(&in, reply), CLIENT);
        expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        reply.ttl = back.ttl = 9;
        quote = packet_build(&back);
        own = packet_build(&reply);
        error = error_from(family, CLIENT, ICMP_IS_UNREACHABLE, NODE, &quote, 0);
        want = error;
        want.src = at(family, NODE);
        want.dst = at(family, REMOTE_POD);
        want.quote = &own;
        want = sent(want, REMOTE_POD);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

BOTH(icmp, an_error_about_a_masqueraded_packet_reaches_the_endpoint)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, 61234, WORLD, 443), out = in, error,
                     want;
        struct packet quote, own;

        out.src = at(family, NODE);
        out = sent(out, WORLD);
        expect(w, FROM_POD, &in, REDIRECT, &out);
        in.ttl = out.ttl;
        quote = packet_build(&out);
        own = packet_build(&in);
        error = error_from(family, ROUTER, ICMP_IS_TOO_BIG, NODE, &quote, 0);
        want = error;
        want.dst = at(family, POD);
        want.quote = &own;
        want = delivered(want, POD);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

/* Routers fragment nothing over IPv6, so the fragments are what they find too big. */
Test(icmp, too_big_about_a_fragment_reaches_the_client)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in, out, error, want;
        struct packet quote, own;

        begin_remote(w, AF_INET6, IPPROTO_UDP, &in, &out);
        in.payload = out.payload = 1800;
        in.ttl = out.ttl = 5;
        quote = packet_build(&out);
        quote = packet_fragment(&quote, 7, 0, 1400);
        own = packet_build(&in);
        own = packet_fragment(&own, 7, 0, 1400);
        error = error_from(AF_INET6, ROUTER, ICMP_IS_TOO_BIG, NODE, &quote, 1232);
        want = error;
        want.dst = at(AF_INET6, CLIENT);
        want.quote = &own;
        want = sent(want, CLIENT);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

/* Destination options, a header of whose length nobody knows in advance, before UDP. */
Test(icmp, an_error_about_a_packet_with_extension_headers_reaches_the_client)
{
        static const uint8_t padding[16] = { IPPROTO_UDP, 1, 1, 12 };
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in, out, error, want;
        struct packet quote, own;

        begin_remote(w, AF_INET6, IPPROTO_UDP, &in, &out);
        in.options = out.options = padding;
        in.n_options = out.n_options = sizeof(padding);
        in.extension = out.extension = IPPROTO_DSTOPTS;
        in.ttl = out.ttl = 5;
        quote = packet_build(&out);
        own = packet_build(&in);
        error = error_from(AF_INET6, ROUTER, ICMP_IS_UNREACHABLE, NODE, &quote, 0);
        want = error;
        want.dst = at(AF_INET6, CLIENT);
        want.quote = &own;
        want = sent(want, CLIENT);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

BOTH(icmp, an_error_about_a_masqueraded_echo_reaches_the_endpoint)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, POD, WORLD, 61234), out = in, error, want;
        struct packet quote, own;

        out.src = at(family, NODE);
        out = sent(out, WORLD);
        expect(w, FROM_POD, &in, REDIRECT, &out);
        in.ttl = out.ttl;
        quote = packet_build(&out);
        own = packet_build(&in);
        error = error_from(family, ROUTER, ICMP_IS_EXCEEDED, NODE, &quote, 0);
        want = error;
        want.dst = at(family, POD);
        want.quote = &own;
        want = delivered(want, POD);
        expect(w, FROM_UPLINK, &error, REDIRECT, &want);
}

/* With the identifier 0 the request of one and the reply of the other have the same key. */
BOTH(icmp, an_error_about_anothers_echo_is_not_taken_for_one_about_the_endpoints_own)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape own = echo(family, POD, CLIENT, 0), theirs = echo(family, CLIENT, POD, 0);
        struct shape error;
        struct packet quote = packet_build(&theirs);

        run(w, FROM_POD, &own);
        error = from_pod(family, IPPROTO_ICMP, POD, 0, CLIENT, 0);
        shape_icmp(&error, ICMP_IS_EXCEEDED);
        error.payload = 0;
        error.quote = &quote;
        expect_untouched(w, FROM_POD, &error);
}

BOTH(icmp, an_error_of_a_local_backend_comes_from_the_service)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, LOCAL_PORT),
                     out = in;
        struct shape error, want;
        struct packet quote, own;

        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        out = delivered(out, POD);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        in.ttl = out.ttl;
        quote = packet_build(&out);
        own = packet_build(&in);
        error = from_pod(family, IPPROTO_ICMP, POD, 0, CLIENT, 0);
        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        error.payload = 0;
        error.quote = &quote;
        want = error;
        want.src = at(family, NODE);
        want.quote = &own;
        want = sent(want, CLIENT);
        expect(w, FROM_POD, &error, REDIRECT, &want);
}

BOTH(icmp, an_error_about_the_nodes_own_packet_is_the_stacks)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape own = from_outside(family, IPPROTO_UDP, NODE, 5353, WORLD, 53), error;
        struct packet quote = packet_build(&own);

        error = error_from(family, ROUTER, ICMP_IS_UNREACHABLE, NODE, &quote, 0);
        expect_untouched(w, FROM_UPLINK, &error);
}

/* ---- answers ------------------------------------------------------------------------------ */

/* An answer goes back the way the packet came. */
static struct shape going_back(const struct shape *s)
{
        struct shape a = *s;

        a.smac = s->dmac;
        a.dmac = s->smac;
        a.src = s->dst;
        a.dst = s->src;
        a.flags = 0;
        a.payload = 0;
        a.id = 0;
        a.label = 0;
        a.ttl = 0;
        return a;
}

BOTH(answer, a_ping_of_a_service_address_is_answered)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, CLIENT, EXTERNAL, 7), out = going_back(&in);

        out.payload = in.payload;
        out.id = in.id;
        out.label = in.label;
        shape_icmp(&out, ICMP_IS_REPLY);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(answer, a_ping_with_the_identifier_zero_is_answered)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, CLIENT, EXTERNAL, 0);

        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 1);
}

BOTH(answer, a_ping_of_the_node_is_the_stacks)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = echo(family, CLIENT, NODE, 7);

        expect_untouched(w, FROM_UPLINK, &in);
}

BOTH(answer, a_syn_to_a_service_without_backends_is_reset)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, EMPTY_PORT);
        struct shape out = going_back(&in);

        out.sport = in.dport;
        out.dport = in.sport;
        out.df = true;
        out.flags = RST | ACK;
        out.seq = 0;
        out.ack = in.seq + 1;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_drops(w, WEFT_DROP_NO_BACKEND, WEFT_FROM_UPLINK), 1);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(answer, a_reset_for_a_segment_with_an_acknowledgement_takes_its_number)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, EMPTY_PORT),
                     middle, out;

        middle = later(&in, ACK);
        out = going_back(&middle);
        out.sport = in.dport;
        out.dport = in.sport;
        out.df = true;
        out.flags = RST;
        out.seq = middle.ack;
        out.ack = 0;
        expect(w, FROM_UPLINK, &middle, REDIRECT, &out);
}

BOTH(answer, a_reset_is_not_answered_with_a_reset)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, EMPTY_PORT);

        in.flags = RST;
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, SHOT);
}

/* How much of a packet an ICMP error of weft quotes: what keeps it at the size every host takes
 * (RFC 1812 §4.3.2.3: 576 bytes; RFC 4443 §2.4: 1280). */
static void expect_error(struct world *w, const struct shape *in, enum icmp_kind kind, uint8_t code,
                         uint32_t rest, enum who from, const char *what)
{
        int family = shape_family(in);
        struct packet p = packet_build(in), want;
        struct outcome o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) { .device = UPLINK }, &p);
        struct shape error = going_back(in);
        struct layout l;
        char text[2048];
        const char *why = "";
        size_t quoted;

        cr_assert_eq(o.verdict, REDIRECT, "%s: verdict %d", what, o.verdict);
        cr_assert(packet_valid(&o.out, &why), "%s: wrong %s", what, why);
        cr_assert(packet_layout(&o.out, &l));
        quoted = l.end - l.l4 - 8;
        cr_expect(quoted >= (family == AF_INET ? 28 : 48) &&
                          l.end - l.ip <= (family == AF_INET ? 576 : 1280),
                  "%s: quotes %zu bytes", what, quoted);
        shape_icmp(&error, kind);
        error.code = code;
        error.src = at(family, from);
        error.rest = rest;
        error.quote = &p;
        error.quoted = quoted;
        error.n_options = 0;
        error.df = false;
        error.tos = family == AF_INET ? 0xc0 : 0;
        want = packet_build(&error);
        cr_expect_str_eq(packet_diff(&want, &o.out, text, sizeof(text)), "", "%s:\n%s", what, text);
        cr_expect_eq(o.out.len, l.end, "%s: bytes after the packet", what);
}

BOTH(answer, a_datagram_to_a_service_without_backends_is_told_port_unreachable)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, EMPTY_PORT);
        uint8_t code = family == AF_INET ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT;

        expect_error(w, &in, ICMP_IS_UNREACHABLE, code, 0, NODE, "short");
        in.payload = 1300;
        expect_error(w, &in, ICMP_IS_UNREACHABLE, code, 0, NODE, "long");
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 2);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(answer, a_service_that_is_silent_when_empty_drops)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape tcp = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, SILENT_PORT);
        struct shape udp = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, SILENT_PORT);

        expect_dropped(w, FROM_UPLINK, &tcp, NO_BACKEND);
        expect_dropped(w, FROM_UPLINK, &udp, NO_BACKEND);
}

BOTH(answer, a_hop_limit_that_ends_here_is_answered)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 61234, NODE, NODE_PORT);

        run(w, FROM_UPLINK, &in);
        run(w, FROM_UPLINK, &in);
        in.ttl = 1;
        expect(w, XDP, &in, XDP_GOES_ON, &in);
        expect_error(w, &in, ICMP_IS_EXCEEDED, 0, 0, NODE, "established");
        cr_expect_eq(world_drops(w, WEFT_DROP_TTL_EXPIRED, WEFT_FROM_UPLINK), 1);
}

BOTH(answer, a_hop_limit_that_ends_here_is_answered_for_a_first_packet_too)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 61234, NODE, NODE_PORT);

        in.ttl = 1;
        expect_error(w, &in, ICMP_IS_EXCEEDED, 0, 0, NODE, "first");
}

/* The MTU of the uplink in these tests. */
#define LINK_MTU 1500u

BOTH(answer, a_packet_larger_than_the_way_is_told_the_mtu)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 61234, NODE, NODE_PORT),
                     small = in;

        run(w, FROM_UPLINK, &small);
        in.payload = 1600;
        in.df = true;
        expect_error(w, &in, ICMP_IS_TOO_BIG, family == AF_INET ? ICMP_FRAG_NEEDED : 0, LINK_MTU,
                     NODE, "udp");
        cr_expect_eq(world_drops(w, WEFT_DROP_TOO_BIG, WEFT_FROM_UPLINK), 1);
}

BOTH(answer, segments_that_fit_one_by_one_pass_however_large_the_packet)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, NODE_PORT), big,
                     out;
        struct skb gso = { .gso_size = 1400, .gso_segs = 2 };

        run(w, FROM_UPLINK, &in);
        big = later(&in, ACK);
        big.payload = 2800;
        big.df = true;
        out = big;
        out.src = at(family, NODE);
        out.dst = at(family, REMOTE_POD);
        out.dport = BACKEND_PORT;
        out = sent(out, REMOTE_POD);
        expect_with(w, FROM_UPLINK, &gso, &big, REDIRECT, &out);
}

BOTH(answer, segments_larger_than_the_way_are_told_the_mtu)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, NODE_PORT), big;
        struct skb gso = { .gso_size = 1480, .gso_segs = 2 };
        struct packet p;
        struct outcome o;

        run(w, FROM_UPLINK, &in);
        big = later(&in, ACK);
        big.payload = 2900;
        big.df = true;
        p = packet_build(&big);
        o = world_run(w, WEFT_FROM_UPLINK, &gso, &p);
        cr_expect_eq(o.verdict, REDIRECT);
        cr_expect_eq(world_drops(w, WEFT_DROP_TOO_BIG, WEFT_FROM_UPLINK), 1);
}

BOTH(answer, errors_are_never_answered_with_errors)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in, out, error;
        struct packet quote;

        begin_remote(w, family, IPPROTO_UDP, &in, &out);
        quote = packet_build(&out);
        error = error_from(family, ROUTER, ICMP_IS_UNREACHABLE, NODE, &quote, 0);
        error.ttl = 1;
        cr_expect_eq(run(w, FROM_UPLINK, &error).verdict, SHOT);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 0);
}

BOTH(answer, answers_are_limited_and_go_on)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, EMPTY_PORT);
        uint64_t sent = 0, runs = 0;

        for (; runs < 200000 && world_event(w, WEFT_EVENT_ICMP_LIMITED) < 50; runs++)
                sent += run(w, FROM_UPLINK, &in).verdict == REDIRECT;
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_LIMITED), 50);
        cr_expect_eq(sent, runs - 50);
        for (int i = 0; i < 1000000 && world_event(w, WEFT_EVENT_ICMP_SENT) < sent + 20; i++)
                run(w, FROM_UPLINK, &in);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), sent + 20);
}
