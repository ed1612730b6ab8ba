/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets that are not plain: options, extension headers, fragments, cut short; and packets that
 * are none of weft's business. */

#include <errno.h>

#include "check.h"

static struct shape to_remote(int family, uint8_t proto)
{
        return from_outside(family, proto, CLIENT, 61234, NODE, NODE_PORT);
}

static struct shape at_backend(const struct shape *s)
{
        int family = shape_family(s);
        struct shape b = *s;

        b.src = at(family, NODE);
        b.dst = at(family, REMOTE_POD);
        b.dport = BACKEND_PORT;
        return sent(b, REMOTE_POD);
}

/* ---- headers ------------------------------------------------------------------------------ */

static const uint8_t timestamp_option[] = { 68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0 };

static void check_with_header(const uint8_t *options, size_t n, uint8_t extension, int family,
                              uint8_t proto)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, proto), out, reply, back;

        in.options = options;
        in.n_options = n;
        in.extension = extension;
        out = at_backend(&in);
        reply = answer(&out);
        back = sent(as_answer_to(&in, reply), CLIENT);
        for (int i = 0; i < 2; i++) {
                expect(w, FROM_UPLINK, &in, REDIRECT, &out);
                expect(w, FROM_UPLINK, &reply, REDIRECT, &back);
        }
        in.options = NULL;
        in.n_options = 0;
        out = at_backend(&in);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1, "the flow is the same with and without");
}

Test(headers, ipv4_options_are_stepped_over)
{
        static const uint8_t most[40] = { [0 ... 39] = 1 };

        check_with_header(timestamp_option, sizeof(timestamp_option), 0, AF_INET, IPPROTO_TCP);
        check_with_header(timestamp_option, sizeof(timestamp_option), 0, AF_INET, IPPROTO_UDP);
        check_with_header(most, sizeof(most), 0, AF_INET, IPPROTO_TCP);
}

Test(headers, ipv6_extension_headers_are_stepped_over)
{
        uint8_t chain[] = {
                IPPROTO_DSTOPTS, 0, 1, 4,  0, 0, 0, 0, /* hop-by-hop, then destination options */
                IPPROTO_TCP,     1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        };

        check_with_header(chain, sizeof(chain), IPPROTO_HOPOPTS, AF_INET6, IPPROTO_TCP);
        chain[8] = IPPROTO_UDP;
        check_with_header(chain, sizeof(chain), IPPROTO_HOPOPTS, AF_INET6, IPPROTO_UDP);
}

Test(headers, an_ipv6_fragment_header_of_a_whole_packet_is_stepped_over)
{
        static const uint8_t atomic[] = { IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 9 };

        check_with_header(atomic, sizeof(atomic), IPPROTO_FRAGMENT, AF_INET6, IPPROTO_UDP);
}

BOTH(headers, tcp_options_and_payload_are_left_alone)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP), out;

        in.payload = 1200;
        in.tos = 0xb8;
        out = at_backend(&in);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
}

/* ---- fragments ---------------------------------------------------------------------------- */

BOTH(fragment, all_fragments_follow_the_first)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_UDP), out;
        struct packet whole, whole_out;

        in.payload = 2400;
        out = at_backend(&in);
        whole = packet_build(&in);
        whole_out = packet_build(&out);
        for (size_t at = 0; at < 2408; at += 1000) {
                struct packet piece = packet_fragment(&whole, 99, at, 1000);
                struct packet piece_out = packet_fragment(&whole_out, 99, at, 1000);

                expect(w, FROM_UPLINK, &piece, REDIRECT, &piece_out);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

BOTH(fragment, fragments_of_an_established_flow_are_translated)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_UDP), out = at_backend(&in),
                     reply = answer(&out), back;
        struct packet whole, whole_out;

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        reply.payload = 1800;
        back = sent(as_answer_to(&in, reply), CLIENT);
        whole = packet_build(&reply);
        whole_out = packet_build(&back);
        for (size_t at = 0; at < 1808; at += 1000) {
                struct packet piece = packet_fragment(&whole, 7, at, 1000);
                struct packet piece_out = packet_fragment(&whole_out, 7, at, 1000);

                expect(w, FROM_UPLINK, &piece, REDIRECT, &piece_out);
        }
}

BOTH(fragment, fragments_of_an_endpoints_datagram_are_masqueraded)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, 61234, WORLD, 443), out;
        struct packet whole, whole_out;

        in.payload = 1800;
        out = in;
        out.src = at(family, NODE);
        out = sent(out, WORLD);
        whole = packet_build(&in);
        whole_out = packet_build(&out);
        for (size_t at = 0; at < 1808; at += 1000) {
                struct packet piece = packet_fragment(&whole, 7, at, 1000);
                struct packet piece_out = packet_fragment(&whole_out, 7, at, 1000);

                expect(w, FROM_POD, &piece, REDIRECT, &piece_out);
        }
}

BOTH(fragment, a_fragment_before_its_first_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, EXTERNAL, SERVICE_PORT);
        struct packet whole, second;

        in.payload = 1800;
        whole = packet_build(&in);
        second = packet_fragment(&whole, 3, 1000, 1000);
        expect_dropped(w, FROM_UPLINK, &second, FRAGMENT_BEFORE_FIRST);
}

BOTH(fragment, all_fragments_of_an_echo_reply_to_nothing_known_are_left_alone)
{
        _cleanup_world_ struct world *w = world_open(LEGACY);
        struct shape in = echo(family, POD, CLIENT, 40000);
        struct packet whole;

        shape_icmp(&in, ICMP_IS_REPLY);
        in.payload = 1800;
        whole = packet_build(&in);
        for (size_t at = 0; at < 1808; at += 1000) {
                struct packet piece = packet_fragment(&whole, 7, at, 1000);

                expect_untouched(w, FROM_POD, &piece);
        }
}

BOTH(fragment, an_endpoints_fragment_before_its_first_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, 40000, WORLD, 53);
        struct packet whole, second;

        in.payload = 1800;
        whole = packet_build(&in);
        second = packet_fragment(&whole, 3, 1000, 1000);
        expect_dropped(w, FROM_POD, &second, FRAGMENT_BEFORE_FIRST);
}

BOTH(fragment, fragments_to_the_node_itself_are_the_stacks)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, 5353);
        struct packet whole, first, second;

        in.payload = 1800;
        whole = packet_build(&in);
        first = packet_fragment(&whole, 3, 0, 1000);
        second = packet_fragment(&whole, 3, 1000, 1000);
        expect_untouched(w, FROM_UPLINK, &first);
        expect_untouched(w, FROM_UPLINK, &second);
}

BOTH(fragment, a_second_datagrams_fragments_are_not_taken_for_the_first_ones)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 61234, EXTERNAL, SERVICE_PORT);
        struct packet whole, first, second;

        in.payload = 1800;
        whole = packet_build(&in);
        first = packet_fragment(&whole, 3, 0, 1000);
        second = packet_fragment(&whole, 4, 1000, 1000);
        cr_expect_eq(world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &first).verdict, REDIRECT);
        expect_dropped(w, FROM_UPLINK, &second, FRAGMENT_BEFORE_FIRST);
}

/* ---- cut short ---------------------------------------------------------------------------- */

static bool is_known(int verdict)
{
        return verdict == NEXT || verdict == PASS || verdict == SHOT || verdict == REDIRECT;
}

/* Every shorter version of the packet, with its length fields as they were, gets a verdict. Newer
 * kernels refuse to run what has not even an IP header. */
static void cut_short(struct world *w, struct place place, const struct packet *whole)
{
        size_t refused = 14 + (whole->data[12] == 8 ? 20 : 40);

        for (size_t n = 14; n < whole->len; n++) {
                struct packet p = *whole;
                struct outcome o;

                p.len = n;
                o = world_run(w, place.hook, &(struct skb) { .device = place.device }, &p);
                cr_expect(o.error == 0 || (o.error == -EINVAL && n < refused), "length %zu: %s", n,
                          strerror(-o.error));
                cr_expect(o.error || is_known(o.verdict), "length %zu: verdict %d", n, o.verdict);
                cr_expect(o.error || o.verdict != NEXT || !memcmp(o.out.data, p.data, n),
                          "length %zu: changed and handed to the stack", n);
        }
}

BOTH(odd, a_packet_cut_short_anywhere_gets_a_verdict)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        static const struct place places[] = { { WEFT_FROM_UPLINK, UPLINK },
                                               { WEFT_TO_UPLINK, UPLINK } };
        struct shape tcp = to_remote(family, IPPROTO_TCP), udp = to_remote(family, IPPROTO_UDP);
        struct shape ping = echo(family, CLIENT, EXTERNAL, 1),
                     error = echo(family, CLIENT, NODE, 1);
        struct packet quote = packet_build(&tcp), p;

        shape_icmp(&error, ICMP_IS_UNREACHABLE);
        error.quote = &quote;
        for (size_t i = 0; i < ELEMENTS(places); i++) {
                p = packet_build(&tcp);
                cut_short(w, places[i], &p);
                p = packet_build(&udp);
                cut_short(w, places[i], &p);
                p = packet_build(&ping);
                cut_short(w, places[i], &p);
                p = packet_build(&error);
                cut_short(w, places[i], &p);
        }
}

BOTH(odd, an_endpoints_packet_cut_short_anywhere_gets_a_verdict)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape tcp = from_pod(family, IPPROTO_TCP, POD, 1000, WORLD, 80);
        struct shape ping = echo(family, POD, WORLD, 1);
        struct packet p = packet_build(&tcp);

        cut_short(w, FROM_POD, &p);
        p = packet_build(&ping);
        cut_short(w, FROM_POD, &p);
}

BOTH(odd, a_packet_of_an_established_flow_cut_short_anywhere_gets_a_verdict)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(family, IPPROTO_TCP);
        struct packet p = packet_build(&in);

        run(w, FROM_UPLINK, &in);
        cut_short(w, FROM_UPLINK, &p);
}

BOTH(odd, an_endpoints_malformed_packet_is_dropped_and_counted)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(family, IPPROTO_TCP, POD, 1000, WORLD, 80);
        struct packet p = packet_build(&in);

        p.len -= 10; /* half of the TCP header is missing */
        expect_dropped(w, FROM_POD, &p, INVALID);
}

Test(odd, header_lengths_that_lie_get_a_verdict)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(AF_INET, IPPROTO_TCP);

        for (unsigned ihl = 0; ihl < 16; ihl++) {
                struct packet p = packet_build(&in);
                struct outcome o;

                p.data[14] = 0x40 | ihl;
                o = world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p);
                cr_expect(o.error == 0 && is_known(o.verdict), "ihl %u: verdict %d", ihl,
                          o.verdict);
        }
}

Test(odd, ipv6_header_chains_without_end_get_a_verdict)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = to_remote(AF_INET6, IPPROTO_TCP);
        uint8_t chain[800] = {};
        struct packet p;

        for (size_t i = 0; i < sizeof(chain); i += 8)
                memcpy(chain + i, (uint8_t[]) { IPPROTO_DSTOPTS, 0, 1, 4 }, 4);
        in.options = chain;
        in.n_options = sizeof(chain);
        in.extension = IPPROTO_HOPOPTS;
        p = packet_build(&in);
        cr_expect(is_known(world_run(w, WEFT_FROM_UPLINK, &(struct skb) {}, &p).verdict));
        cut_short(w, FROM_UPLINK, &p);
}

/* ---- none of ours ------------------------------------------------------------------------- */

static void expect_cheap(struct world *w, struct place place, const struct shape *s)
{
        uint64_t before = world_event(w, WEFT_EVENT_LOOKUP);

        expect_untouched(w, place, s);
        cr_expect_leq(world_event(w, WEFT_EVENT_LOOKUP) - before, 1);
}

BOTH(host, the_nodes_own_traffic_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, 22);
        struct shape answered = answer(&in), ping = echo(family, CLIENT, NODE, 1);
        struct shape udp = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, 500);

        expect_cheap(w, FROM_UPLINK, &in);
        expect_cheap(w, TO_UPLINK, &answered);
        expect_cheap(w, FROM_UPLINK, &udp);
        expect_untouched(w, FROM_UPLINK, &ping);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

/* A packet that the node's own stack sends. */
static struct shape of_the_node(struct shape s)
{
        s.src = at(shape_family(&s), NODE);
        s.smac = mac_of(NODE);
        s.dmac = mac_of(ROUTER);
        return s;
}

BOTH(host, the_nodes_own_packets_of_every_kind_leave_untouched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape ping = of_the_node(echo(family, CLIENT, WORLD, 7)), pong = ping;
        struct shape udp = of_the_node(from_outside(family, IPPROTO_UDP, CLIENT, 61234, WORLD, 53));
        struct shape gre = of_the_node(from_outside(family, IPPROTO_GRE, CLIENT, 0, WORLD, 0));
        struct packet whole, first, second;

        shape_icmp(&pong, ICMP_IS_REPLY);
        expect_untouched(w, TO_UPLINK, &ping);
        expect_untouched(w, TO_UPLINK, &pong);
        expect_untouched(w, TO_UPLINK, &gre);
        expect_untouched(w, TO_UPLINK, &udp);
        udp.payload = 1800;
        whole = packet_build(&udp);
        first = packet_fragment(&whole, 1, 0, 1000);
        second = packet_fragment(&whole, 1, 1000, 1000);
        expect_untouched(w, TO_UPLINK, &first);
        expect_untouched(w, TO_UPLINK, &second);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(host, the_nodes_traffic_to_an_endpoint_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, NODE, 40000, POD, 80);

        in.smac = gateway_mac(POD);
        in.dmac = mac_of(POD);
        expect_untouched(w, TO_POD, &in);
}

BOTH(host, an_endpoints_answer_to_the_node_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, NODE, 40000, POD, 80), reply;

        in.smac = gateway_mac(POD);
        in.dmac = mac_of(POD);
        run(w, TO_POD, &in);
        reply = answer(&in);
        expect_untouched(w, FROM_POD, &reply);
}

BOTH(host, a_marked_packet_passes_the_exit_hook_and_loses_the_mark)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, 22);
        struct skb marked = { .mark = MARK | 0x2 };
        struct outcome o = expect_with(w, TO_UPLINK, &marked, &in, NEXT, &in);

        cr_expect_eq(o.mark, 0x2, "mark %#x", o.mark);
}

BOTH(host, forwarded_traffic_of_others_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, WORLD, 22);

        in.dmac = mac_of(NODE);
        expect_cheap(w, FROM_UPLINK, &in);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

Test(host, what_is_not_ip_is_not_touched)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(AF_INET, IPPROTO_TCP, CLIENT, 40000, NODE, NODE_PORT);
        struct packet arp = packet_build(&in);

        memcpy(arp.data + 12, (uint8_t[]) { 8, 6 }, 2);
        expect(w, FROM_UPLINK, &arp, NEXT, &arp);
}

/* The tuple of such a packet, turned round, is itself: there cannot be two entries. */
BOTH(odd, an_endpoint_that_sends_to_itself_gets_its_packet_back)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape gre = from_pod(family, IPPROTO_GRE, POD, 0, POD, 0),
                     gre_out = delivered(gre, POD);
        struct shape udp = from_pod(family, IPPROTO_UDP, POD, 99, POD, 99),
                     udp_out = delivered(udp, POD);

        for (int i = 0; i < 3; i++) {
                expect(w, FROM_POD, &gre, REDIRECT, &gre_out);
                expect(w, FROM_POD, &udp, REDIRECT, &udp_out);
        }
        cr_expect_eq(world_orphans(w), 0);
}

/* ---- nowhere ------------------------------------------------------------------------------ */

Test(nowhere, an_endpoint_reaches_no_address_of_this_network)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(AF_INET, IPPROTO_UDP, POD, 40000, WORLD, 53);

        in.dst.w[3] = 0;
        expect_dropped(w, FROM_POD, &in, INVALID);
        in.dst.w[3] = htonl(1);
        expect_dropped(w, FROM_POD, &in, INVALID);
        in = from_pod(AF_INET6, IPPROTO_UDP, POD, 40000, WORLD, 53);
        in.dst = (struct weft_addr) {};
        expect_dropped(w, FROM_POD, &in, INVALID);
}

/* Which is how weft keeps IPv4 addresses; on a wire they are none. */
Test(nowhere, an_ipv6_packet_reaches_nothing_by_an_ipv4_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_pod(AF_INET6, IPPROTO_UDP, POD, 40000, WORLD, 53);
        struct weft_addr source = at(AF_INET, POD);
        struct packet p = packet_build(&in);

        memcpy(p.data + 14 + 8, &source, sizeof(source));
        expect_dropped(w, FROM_POD, &p, INVALID);
        in.dst = at(AF_INET, POD2);
        expect_dropped(w, FROM_POD, &in, INVALID);
        in.dst = at(AF_INET, EXTERNAL);
        in.dport = SERVICE_PORT;
        expect_dropped(w, FROM_POD, &in, INVALID);
        in = from_outside(AF_INET6, IPPROTO_UDP, CLIENT, 40000, NODE, NODE_PORT);
        in.dst = at(AF_INET, NODE);
        expect_untouched(w, FROM_UPLINK, &in);
        in.dst = at(AF_INET, POD);
        expect_untouched(w, FROM_UPLINK, &in);
}
