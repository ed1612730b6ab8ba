/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tunnels, byte for byte: what the engine puts before a packet on its way to another node, what it
 * takes off, what it does not let in, and what it says about packets that do not fit. Each sentence
 * holds for both tunnels, over both families and of both. */

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ip6.h>

#include "check.h"
#include "watcher/watcher.h"

#define OWN_IDENTITY 1000u /* of the world's endpoints */
#define REMOTE_NODE 6u     /* what every host is to others */

/* ---- each tunnel over each family --------------------------------------------------------- */

/* One way of a packet: whose tunnel, over what, carrying what. */
struct way {
        struct world *w;
        enum variant kind;
        int underlay, family;
};

static void each_way(enum variant kind, void (*f)(const struct way *))
{
        static const int families[] = { AF_INET, AF_INET6 };
        _cleanup_world_ struct world *w = world_open(kind);

        for (int i = 0; i < 4; i++) {
                const struct way way = { w, kind, families[i / 2], families[i % 2] };

                world_forget(w);
                world_set_tunnel(w, way.underlay);
                f(&way);
        }
}

/* OVERLAY(a_sentence) { … }: the body gets `way`. */
#define OVERLAY(sentence)                                                                          \
        static void sentence(const struct way *way);                                               \
        Test(overlay, sentence)                                                                    \
        {                                                                                          \
                each_way(VXLAN, sentence);                                                         \
                each_way(GENEVE, sentence);                                                        \
        }                                                                                          \
        static void sentence(const struct way *way)

/* ---- frames in a tunnel ------------------------------------------------------------------- */

/* What stands around a frame. */
struct outer {
        enum who from, to;
        uint16_t sport, dport; /* dport 0: the tunnel's */
        uint32_t key;
        uint8_t ecn;
        uint8_t header[4]; /* of the tunnel's own, where `odd` */
        bool odd;
        const uint8_t *options;
        size_t n_options;
};

static uint16_t port_of(const struct way *way)
{
        return way->kind == VXLAN ? 8472 : 6081;
}

/* RFC 7348 §5, RFC 8926 §3.4. */
static void put_header(const struct way *way, const struct outer *o, uint8_t at[8])
{
        static const uint8_t vxlan[4] = { 0x08 }, geneve[4] = { 0, 0, 0x65, 0x58 };
        uint32_t key = htonl(o->key << 8);

        memcpy(at, way->kind == VXLAN ? vxlan : geneve, 4);
        if (o->odd)
                memcpy(at, o->header, 4);
        at[0] |= o->n_options / 4;
        memcpy(at + 4, &key, 4);
}

/* The frame in the tunnel, from one node to another. */
static struct packet wrapped(const struct way *way, const struct outer *o,
                             const struct packet *frame)
{
        struct shape s = { .smac = mac_of(o->from),
                           .dmac = mac_of(o->to),
                           .src = at(way->underlay, o->from),
                           .dst = at(way->underlay, o->to),
                           .proto = IPPROTO_UDP,
                           .sport = o->sport,
                           .dport = o->dport ?: port_of(way),
                           .tos = o->ecn,
                           .df = true,
                           .no_checksum = true,
                           .payload = 8 + o->n_options + frame->len };
        struct packet p = packet_build(&s);
        uint8_t *header = p.data + p.len - s.payload;

        put_header(way, o, header);
        if (o->n_options)
                memcpy(header + 8, o->options, o->n_options);
        memcpy(p.data + p.len - frame->len, frame->data, frame->len);
        return p;
}

/* Where the inner Ethernet header stands, without options. */
static size_t frame_at(const struct way *way)
{
        return (way->underlay == AF_INET ? 20 : 40) + 14 + 8 + 8;
}

/* A node's link-layer address inside: 02:57 and its IPv4 address, or its IPv6 address folded. */
static struct mac mac_inside(int underlay, enum who node)
{
        struct weft_addr a = at(underlay, node);
        uint32_t word = underlay == AF_INET ? a.w[3] : a.w[0] ^ a.w[1] ^ a.w[2] ^ a.w[3];
        struct mac m = { { 0x02, 0x57 } };

        memcpy(m.b + 2, &word, 4);
        return m;
}

/* S as it travels between the nodes; `hops`: it was routed. */
static struct shape inside(const struct way *way, struct shape s, enum who from, enum who to,
                           int hops)
{
        s.smac = mac_inside(way->underlay, from);
        s.dmac = mac_inside(way->underlay, to);
        s.ttl = (s.ttl ?: 64) - hops;
        return s;
}

/* What NODE2 sends for the pod. */
static const struct outer incoming = { .from = NODE2, .to = NODE, .sport = 50000, .key = 7 };

static struct packet arriving(const struct way *way, const struct outer *o, const struct shape *s)
{
        struct shape in = inside(way, *s, NODE2, NODE, 0);
        struct packet frame = packet_build(&in);

        return wrapped(way, o, &frame);
}

static struct shape to_pod(const struct way *way, uint8_t proto, uint16_t sport)
{
        return from_outside(way->family, proto, REMOTE_POD, sport, POD, 8080);
}

static struct shape to_remote(const struct way *way, uint8_t proto, uint16_t sport)
{
        return from_pod(way->family, proto, POD, sport, REMOTE_POD, 8080);
}

/* Runs IN and expects FRAME in the tunnel, and sent to NODE2 with weft's mark. Returns the source
 * port, which is any of the dynamic ones. */
static uint16_t expect_carried(const struct way *way, struct place place, const struct shape *in,
                               const struct shape *frame, uint32_t key)
{
        struct outer o = { .from = NODE, .to = NODE2, .key = key, .ecn = in->tos & 3 };
        struct packet inner = packet_build(frame), want, got_inner = {};
        struct outcome out = run(way->w, place, in);
        const char *why = "";
        char text[2048];
        uint16_t sport;

        cr_assert_eq(out.verdict, REDIRECT);
        cr_expect_eq(out.mark & MARK, MARK);
        cr_assert_gt(out.out.len, frame_at(way));
        memcpy(&sport, out.out.data + frame_at(way) - 16, 2);
        o.sport = ntohs(sport);
        cr_expect_geq(o.sport, 49152);
        want = wrapped(way, &o, &inner);
        cr_assert_str_eq(packet_diff(&want, &out.out, text, sizeof(text)), "");
        got_inner.len = out.out.len - frame_at(way);
        memcpy(got_inner.data, out.out.data + frame_at(way), got_inner.len);
        cr_assert(packet_valid(&got_inner, &why), "wrong %s inside", why);
        return o.sport;
}

/* ---- into the tunnel ---------------------------------------------------------------------- */

OVERLAY(an_endpoints_packets_are_carried_to_the_other_node_with_its_identity)
{
        static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_UDP };

        for (size_t i = 0; i < ELEMENTS(protocols); i++) {
                struct shape in = to_remote(way, protocols[i], 40000 + i), next = later(&in, ACK);
                struct shape out = inside(way, in, NODE, NODE2, 1),
                             next_out = inside(way, next, NODE, NODE2, 1);
                uint16_t port = expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);

                /* replayed, and of the flow all the same */
                for (int k = 0; k < 2; k++)
                        cr_expect_eq(expect_carried(way, FROM_POD, &next, &next_out, OWN_IDENTITY),
                                     port);
        }
}

OVERLAY(the_outer_packet_bears_the_congestion_bits_of_the_inner_one_and_no_more)
{
        struct shape in = to_remote(way, IPPROTO_UDP, 40010), out;

        for (int ecn = 0; ecn < 4; ecn++) {
                in.tos = 0xb8 | ecn;
                out = inside(way, in, NODE, NODE2, 1);
                expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);
        }
}

OVERLAY(flows_between_two_nodes_take_different_source_ports)
{
        uint16_t ports[16];
        int same = 0;

        for (uint16_t i = 0; i < ELEMENTS(ports); i++) {
                struct shape in = to_remote(way, IPPROTO_UDP, 41000 + i), out;

                in.label = i + 1;
                out = inside(way, in, NODE, NODE2, 1);
                ports[i] = expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);
                for (uint16_t k = 0; k < i; k++)
                        same += ports[k] == ports[i];
        }
        cr_expect_lt(same, 4);
}

/* As the stack hands it to the uplink. */
static struct shape of_the_node(const struct way *way, uint16_t sport)
{
        struct shape s = from_outside(way->family, IPPROTO_UDP, NODE, sport, REMOTE_POD, 8080);

        s.dmac = (struct mac) { { 2, 0x57, 0xff, 0xff, 0xff, 0xff } };
        return s;
}

OVERLAY(the_node_itself_goes_out_as_a_remote_node)
{
        struct shape in = of_the_node(way, 42000), out = inside(way, in, NODE, NODE2, 0);

        expect_carried(way, TO_UPLINK, &in, &out, REMOTE_NODE);
        expect_carried(way, TO_UPLINK, &in, &out, REMOTE_NODE);
}

/* As the stack of this node sends it, on behalf of an endpoint that passes it or on its own. */
static struct shape error_to_remote(const struct way *way, enum who from,
                                    const struct packet *quote)
{
        struct shape s = of_the_node(way, 0);

        shape_icmp(&s, ICMP_IS_UNREACHABLE);
        s.src = at(way->family, from);
        s.payload = 0;
        s.quote = quote;
        return s;
}

OVERLAY(an_error_about_no_known_flow_goes_to_the_other_nodes_pod_all_the_same)
{
        struct shape blamed = from_outside(way->family, IPPROTO_UDP, REMOTE_POD, 1, POD, 9);
        struct packet quote = packet_build(&blamed);
        struct shape in = error_to_remote(way, NODE, &quote), out = inside(way, in, NODE, NODE2, 0);

        expect_carried(way, TO_UPLINK, &in, &out, REMOTE_NODE);
        in = error_to_remote(way, POD, &quote);
        out = inside(way, in, NODE, NODE2, 0);
        expect_carried(way, TO_UPLINK, &in, &out, OWN_IDENTITY);
        cr_expect_eq(world_flows(way->w, NULL, 0), 0, "an error opens nothing");
}

OVERLAY(icmp_of_no_flow_goes_to_the_other_nodes_pod_all_the_same)
{
        struct shape in = of_the_node(way, 0), out;

        shape_icmp(&in, ICMP_IS_REPLY);
        in.type = way->family == AF_INET ? 13 : 200; /* a timestamp; private experimentation */
        out = inside(way, in, NODE, NODE2, 0);
        expect_carried(way, TO_UPLINK, &in, &out, REMOTE_NODE);
        cr_expect_eq(world_flows(way->w, NULL, 0), 0);
}

OVERLAY(a_flow_goes_on_to_the_new_address_of_its_node)
{
        int other = way->underlay == AF_INET ? AF_INET6 : AF_INET;
        const struct way moved = { way->w, way->kind, other, way->family };
        struct shape in = to_remote(way, IPPROTO_TCP, 42000), next = later(&in, ACK);
        struct shape out = inside(way, in, NODE, NODE2, 1), next_out;
        const struct weft_addr old = at(way->underlay, NODE2);
        uint64_t stored;

        expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);
        stored = world_event(way->w, WEFT_EVENT_COMMIT);
        world_set_tunnel(way->w, other);
        tables_del_node(way->w->tables, &old);
        next_out = inside(&moved, next, NODE, NODE2, 1);
        for (int i = 0; i < 2; i++)
                expect_carried(&moved, FROM_POD, &next, &next_out, OWN_IDENTITY);
        cr_expect_eq(world_event(way->w, WEFT_EVENT_COMMIT), stored);
}

/* ---- out of it ---------------------------------------------------------------------------- */

OVERLAY(what_the_other_node_carries_here_is_delivered_and_answered_through_the_tunnel)
{
        struct shape in = to_pod(way, IPPROTO_TCP, 43000), out = delivered(in, POD);
        struct shape reply = answer(&out), back = inside(way, reply, NODE, NODE2, 1);
        struct packet carried = arriving(way, &incoming, &in), want = packet_build(&out);

        for (int i = 0; i < 2; i++)
                expect(way->w, FROM_UPLINK, &carried, REDIRECT, &want);
        expect_carried(way, FROM_POD, &reply, &back, OWN_IDENTITY);
}

OVERLAY(congestion_met_on_the_way_is_told_inside_or_the_packet_dropped)
{
        struct outer marked = incoming;
        struct shape in = to_pod(way, IPPROTO_UDP, 43010), out;
        struct packet carried;

        marked.ecn = 3;
        for (int ecn = 1; ecn < 4; ecn++) {
                in.tos = ecn;
                out = delivered(in, POD);
                out.tos = 3;
                carried = arriving(way, &marked, &in);
                expect(way->w, FROM_UPLINK, &carried, REDIRECT, &out);
        }
        in.tos = 0;
        carried = arriving(way, &marked, &in);
        expect_dropped(way->w, FROM_UPLINK, &carried, TUNNEL_INVALID);
}

OVERLAY(nobody_is_another_nodes_host_and_nobody_but_a_peer_speaks)
{
        struct outer host = incoming, stranger = incoming;
        struct shape in = to_pod(way, IPPROTO_UDP, 43020), own = in;
        struct packet carried;
        uint64_t spoofed = world_drops(way->w, WEFT_DROP_SPOOFED, WEFT_FROM_OVERLAY);

        host.key = 1;
        carried = arriving(way, &host, &in);
        expect_dropped(way->w, FROM_UPLINK, &carried, TUNNEL_IDENTITY);
        stranger.from = ROUTER;
        carried = arriving(way, &stranger, &in);
        expect_dropped(way->w, FROM_UPLINK, &carried, SPOOFED);
        /* nor with an address of this node's endpoints */
        own.src = at(way->family, POD2);
        carried = arriving(way, &incoming, &own);
        cr_expect_eq(world_run(way->w, WEFT_FROM_UPLINK, &(struct skb) {}, &carried).verdict, SHOT);
        cr_expect_eq(world_drops(way->w, WEFT_DROP_SPOOFED, WEFT_FROM_OVERLAY), spoofed + 1);
}

OVERLAY(a_header_that_is_not_understood_is_dropped)
{
        static const uint8_t vxlan[][4] = { { 0 }, { 0x04 } },
                             geneve[][4] = { { 0x40, 0, 0x65, 0x58 }, /* version 1 */
                                             { 0, 0x80, 0x65, 0x58 }, /* control */
                                             { 0, 0, 0x08, 0x00 } };  /* no Ethernet */
        size_t n = way->kind == VXLAN ? ELEMENTS(vxlan) : ELEMENTS(geneve);
        struct shape in = to_pod(way, IPPROTO_UDP, 43030);
        struct packet carried;

        for (size_t i = 0; i < n; i++) {
                struct outer odd = incoming;

                odd.odd = true;
                memcpy(odd.header, way->kind == VXLAN ? vxlan[i] : geneve[i], 4);
                carried = arriving(way, &odd, &in);
                expect_dropped(way->w, FROM_UPLINK, &carried, TUNNEL_INVALID);
        }
        /* no IP inside */
        carried = arriving(way, &incoming, &in);
        carried.data[frame_at(way) + 12] = 0x08;
        carried.data[frame_at(way) + 13] = 0x06;
        expect_dropped(way->w, FROM_UPLINK, &carried, TUNNEL_INVALID);
}

OVERLAY(bits_and_options_that_may_be_ignored_are)
{
        static const uint8_t unknown[8] = { 0x01, 0x00, 0x01, 0x01, 1, 2, 3, 4 };
        struct shape in = to_pod(way, IPPROTO_UDP, 43040), out = delivered(in, POD);
        struct outer odd = incoming;
        struct packet carried;

        odd.odd = true;
        memcpy(odd.header,
               way->kind == VXLAN ? (uint8_t[4]) { 0xff, 1, 2, 3 }
                                  : (uint8_t[4]) { 0, 0x40, 0x65, 0x58 },
               4);
        if (way->kind == GENEVE) {
                odd.options = unknown;
                odd.n_options = sizeof(unknown);
        }
        carried = arriving(way, &odd, &in);
        expect(way->w, FROM_UPLINK, &carried, REDIRECT, &out);
}

OVERLAY(what_is_cut_short_goes_no_further_than_it_can_be_read)
{
        struct shape in = to_pod(way, IPPROTO_UDP, 43050);
        const struct packet whole = arriving(way, &incoming, &in);
        size_t frame = frame_at(way), l4 = frame + 14 + (way->family == AF_INET ? 20 : 40);
        struct packet cut = whole, rest = {};
        struct outcome o;

        /* in the outer headers: somebody else's */
        cut.len = frame - 4;
        expect_untouched(way->w, FROM_UPLINK, &cut);
        /* in the inner Ethernet header, in the inner IP header */
        cut.len = frame + 10;
        expect_dropped(way->w, FROM_UPLINK, &cut, TUNNEL_INVALID);
        cut.len = frame + 14 + 16;
        expect_dropped(way->w, FROM_UPLINK, &cut, TUNNEL_INVALID);
        /* behind that it is a packet, which the stack may judge */
        cut.len = l4 + 4;
        o = world_run(way->w, WEFT_FROM_UPLINK, &(struct skb) {}, &cut);
        rest.len = cut.len - frame - 14;
        memcpy(rest.data, cut.data + frame + 14, rest.len);
        cr_expect_eq(o.verdict, NEXT);
        cr_assert_eq(o.out.len, rest.len + 14);
        cr_expect_arr_eq(o.out.data + 14, rest.data, rest.len);
}

/* ---- what is not the tunnel's ------------------------------------------------------------- */

/* The frame goes on to the stack as it came. Zero UDP checksums over IPv6 are right for tunnels
 * alone (RFC 6936), which is why this is not expect_untouched(). */
static void expect_left_alone(const struct way *way, struct place place, uint32_t mark,
                              const struct packet *p)
{
        const struct skb skb = { .device = place.device, .mark = mark };
        struct outcome o = world_run(way->w, place.hook, &skb, p);
        char text[2048];

        cr_expect_eq(o.verdict, NEXT);
        cr_expect_eq(o.mark, 0);
        cr_assert_str_eq(packet_diff(p, &o.out, text, sizeof(text)), "");
}

OVERLAY(other_ports_other_addresses_and_fragments_are_left_alone)
{
        struct shape in = to_pod(way, IPPROTO_UDP, 43060);
        struct outer o = incoming;
        struct packet carried, piece;

        o.dport = 4789;
        carried = arriving(way, &o, &in);
        expect_left_alone(way, FROM_UPLINK, 0, &carried);
        o = incoming;
        o.to = WORLD;
        carried = arriving(way, &o, &in);
        memcpy(carried.data, mac_of(NODE).b, 6);
        expect_left_alone(way, FROM_UPLINK, 0, &carried);
        carried = arriving(way, &incoming, &in);
        piece = packet_fragment(&carried, 99, 0, 64);
        expect_left_alone(way, FROM_UPLINK, 0, &piece);
}

OVERLAY(outer_packets_are_neither_tracked_nor_masqueraded)
{
        struct shape in = to_remote(way, IPPROTO_UDP, 44000), out = inside(way, in, NODE, NODE2, 1);
        struct outer own = { .from = NODE, .to = NODE2, .key = 9, .sport = 61234 };
        struct packet frame = packet_build(&out), outer = wrapped(way, &own, &frame), carried;
        struct weft_addr node = at(way->underlay, NODE);
        struct flow flows[8];
        size_t n;

        expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);
        in = to_pod(way, IPPROTO_UDP, 44001);
        carried = arriving(way, &incoming, &in);
        cr_expect_eq(world_run(way->w, WEFT_FROM_UPLINK, &(struct skb) {}, &carried).verdict,
                     REDIRECT);
        /* as weft sends it, with its mark, and as a device of the kernel does */
        expect_left_alone(way, TO_UPLINK, MARK, &outer);
        expect_left_alone(way, TO_UPLINK, 0, &outer);
        n = world_flows(way->w, flows, ELEMENTS(flows));
        cr_expect_eq(n, 4);
        for (size_t i = 0; i < n; i++)
                cr_expect(memcmp(&flows[i].src, &node, sizeof(node)) != 0 &&
                          memcmp(&flows[i].dst, &node, sizeof(node)) != 0);
}

/* ---- sizes -------------------------------------------------------------------------------- */

/* An IP packet of `size` bytes. */
static struct shape of_size(const struct way *way, uint16_t sport, size_t size)
{
        struct shape s = to_remote(way, IPPROTO_UDP, sport);

        s.df = true;
        s.payload = size - 8 - (way->family == AF_INET ? 20 : 40);
        return s;
}

/* The error about IN that says what fits, as weft sends it back to the pod: from whom the packet
 * was for, since the node has no address on its way. */
static struct shape too_big(const struct way *way, const struct packet *in, uint32_t mtu)
{
        struct shape e = { .smac = gateway_mac(POD),
                           .dmac = mac_of(POD),
                           .src = at(way->family, REMOTE_POD),
                           .dst = at(way->family, POD),
                           .tos = way->family == AF_INET ? 0xc0 : 0,
                           .rest = mtu,
                           .quote = in,
                           .quoted = 512 };

        shape_icmp(&e, ICMP_IS_TOO_BIG);
        return e;
}

OVERLAY(what_does_not_fit_is_answered_with_what_does)
{
        uint32_t mtu = way->underlay == AF_INET ? 1450 : 1430;
        struct shape fits = of_size(way, 45000, mtu), out = inside(way, fits, NODE, NODE2, 1);
        struct shape big = of_size(way, 45000, mtu + 1);
        struct packet in = packet_build(&big);
        struct shape error = too_big(way, &in, mtu);

        /* of a new flow, and replayed */
        expect(way->w, FROM_POD, &in, REDIRECT, &error);
        expect_carried(way, FROM_POD, &fits, &out, OWN_IDENTITY);
        expect(way->w, FROM_POD, &in, REDIRECT, &error);
}

OVERLAY(segments_count_where_a_packet_is_yet_to_be_cut)
{
        uint32_t mtu = way->underlay == AF_INET ? 1450 : 1430;
        size_t headers = (way->family == AF_INET ? 20 : 40) + 20;
        struct shape big = of_size(way, 45010, 2000 + headers);
        uint64_t dropped;
        struct packet in;
        struct shape error;

        big.proto = IPPROTO_TCP;
        big.flags = ACK;
        big.payload = 2000;
        in = packet_build(&big);
        error = too_big(way, &in, mtu);
        expect_with(way->w, FROM_POD,
                    (&(const struct skb) { .gso_size = mtu - headers + 1, .gso_segs = 2 }), &in,
                    REDIRECT, &error);
        /* Those that fit are not told so. That they arrive is for sockets to show: the test run
         * makes GSO packets of no kind, for which the kernel makes no room. */
        dropped = world_drops(way->w, WEFT_DROP_TOO_BIG, WEFT_FROM_ENDPOINT);
        world_run(way->w, WEFT_FROM_ENDPOINT,
                  &(const struct skb) { .device = EP0, .gso_size = mtu - headers, .gso_segs = 2 },
                  &in);
        cr_expect_eq(world_drops(way->w, WEFT_DROP_TOO_BIG, WEFT_FROM_ENDPOINT), dropped);
}

/* What a router between the nodes says of a packet in the tunnel. */
static struct shape from_between(const struct way *way, const struct packet *quote, size_t quoted,
                                 uint32_t mtu)
{
        struct shape e = { .smac = mac_of(ROUTER),
                           .dmac = mac_of(NODE),
                           .src = at(way->underlay, ROUTER),
                           .dst = at(way->underlay, NODE),
                           .rest = mtu,
                           .quote = quote,
                           .quoted = quoted };

        shape_icmp(&e, ICMP_IS_TOO_BIG);
        return e;
}

OVERLAY(a_router_on_the_way_is_heard_by_the_sender_of_the_packet_inside)
{
        uint32_t over = way->underlay == AF_INET ? 50 : 70;
        struct shape in = of_size(way, 46000, 1400), out = inside(way, in, NODE, NODE2, 1);
        struct outer o = { .from = NODE, .to = NODE2, .key = OWN_IDENTITY };
        struct packet frame = packet_build(&out), outer;
        struct shape said, error;

        o.sport = expect_carried(way, FROM_POD, &in, &out, OWN_IDENTITY);
        outer = wrapped(way, &o, &frame);
        said = from_between(way, &outer, 548, 1300);
        error = too_big(way, &frame, 1300 - over);
        error.ttl = 63;
        error.quoted = (548 - over) & ~3u;
        expect(way->w, FROM_UPLINK, &said, REDIRECT, &error);
}

OVERLAY(what_a_router_says_of_other_packets_or_too_shortly_is_the_stacks)
{
        struct shape in = of_size(way, 46010, 1400), out = inside(way, in, NODE, NODE2, 1);
        struct outer o = { .from = NODE, .to = NODE2, .key = OWN_IDENTITY, .sport = 50001 };
        struct packet frame = packet_build(&out), outer = wrapped(way, &o, &frame);
        struct shape said = from_between(way, &outer, frame_at(way) - 14, 1300);

        expect_untouched(way->w, FROM_UPLINK, &said);
        said = from_between(way, &outer, 548, 0);
        expect_untouched(way->w, FROM_UPLINK, &said);
        shape_icmp(&said, ICMP_IS_UNREACHABLE);
        expect_untouched(way->w, FROM_UPLINK, &said);
        o.to = WORLD;
        outer = wrapped(way, &o, &frame);
        said = from_between(way, &outer, 548, 1300);
        expect_untouched(way->w, FROM_UPLINK, &said);
}

/* ---- services ----------------------------------------------------------------------------- */

static void serve(const struct way *way)
{
        struct shape in = from_outside(way->family, IPPROTO_TCP, CLIENT, 61500, NODE, NODE_PORT);
        struct shape there = in, frame, reply, back;
        struct packet carried;

        there.src = at(way->family, NODE);
        there.dst = at(way->family, REMOTE_POD);
        there.dport = BACKEND_PORT;
        frame = inside(way, there, NODE, NODE2, 1);
        expect_carried(way, FROM_UPLINK, &in, &frame, 2 /* the world */);
        reply = answer(&there);
        back = sent(as_answer_to(&in, reply), CLIENT);
        carried = arriving(way, &incoming, &reply);
        expect(way->w, FROM_UPLINK, &carried, REDIRECT, &back);
}

Test(overlay, a_service_with_a_backend_on_the_other_node_is_reached_through_the_tunnel)
{
        each_way(VXLAN, serve);
}

/* ---- early stages ------------------------------------------------------------------------- */

Test(overlay, an_early_stage_sees_each_packet_that_came_out_of_the_tunnel_and_may_drop_it)
{
        _cleanup_world_ struct world *w = world_open(WATCHED_VXLAN);
        const struct way way = { w, VXLAN, AF_INET, AF_INET };
        struct shape in = from_outside(AF_INET, IPPROTO_UDP, REMOTE_POD, 40000, POD, WATCH_NEXT),
                     no = in, out = delivered(in, POD);
        struct packet frame = arriving(&way, &incoming, &in), shut;

        no.dport = WATCH_DROP;
        shut = arriving(&way, &incoming, &no);
        world_set_tunnel(w, AF_INET);
        for (int i = 0; i < 3; i++) {
                struct outcome o = expect(w, FROM_UPLINK, &frame, REDIRECT, &out);

                cr_expect_eq(o.mark >> SEEN_HOOK & 7, WEFT_FROM_OVERLAY + 1, "packet %d: %#x", i,
                             o.mark);
                cr_expect(o.mark & SEEN_TWICE);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
        cr_expect_eq(world_run(w, WEFT_FROM_UPLINK, &(struct skb) { .device = UPLINK }, &shut)
                             .verdict,
                     SHOT);
        cr_expect_eq(world_drops(w, WEFT_DROP_POLICY, WEFT_FROM_OVERLAY), 1);
}
