/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Stages of phase early: each packet of a hook meets them, whatever weft makes of it afterwards,
 * and what they say has its effect there and then. The watcher leaves what it saw in the mark. */

#include <arpa/inet.h>
#include <net/ethernet.h>

#include "check.h"
#include "watcher/watcher.h"

/* What both stages leave of a packet. */
static uint32_t trace(const struct shape *s, enum weft_hook hook)
{
        return (uint32_t) (shape_family(s) == AF_INET ? 4 : 6) << SEEN_FAMILY |
               (uint32_t) s->proto << SEEN_PROTO | (hook + 1u) << SEEN_HOOK | SEEN_TWICE;
}

static struct shape watched(int family, uint16_t order)
{
        return from_outside(family, IPPROTO_TCP, CLIENT, 40000, POD, order);
}

/* ---- which packets ------------------------------------------------------------------------ */

BOTH(early, every_packet_of_a_flow_is_seen_and_goes_where_it_would_go_otherwise)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_NEXT), next = later(&in, ACK);
        struct shape out = delivered(in, POD), next_out = delivered(next, POD);

        cr_expect_eq(expect(w, FROM_UPLINK, &in, REDIRECT, &out).mark,
                     trace(&in, WEFT_FROM_UPLINK));
        for (int i = 0; i < 3; i++) {
                struct outcome o = expect(w, FROM_UPLINK, &next, REDIRECT, &next_out);

                cr_expect_eq(o.mark, trace(&in, WEFT_FROM_UPLINK), "packet %d: %#x", i, o.mark);
        }
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

BOTH(early, what_is_none_of_wefts_is_seen_at_every_hook_and_left_alone)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, WATCH_NEXT);
        static const struct place places[] = { { WEFT_FROM_UPLINK, UPLINK },
                                               { WEFT_TO_UPLINK, UPLINK },
                                               { WEFT_TO_ENDPOINT, EP0 } };

        for (size_t i = 0; i < ELEMENTS(places); i++) {
                struct outcome o = expect_untouched(w, places[i], &in);

                cr_expect_eq(o.mark, trace(&in, places[i].hook), "hook %u: %#x", places[i].hook,
                             o.mark);
        }
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(early, a_packet_with_a_borrowed_source_is_seen_before_it_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, 40000, WORLD, WATCH_NEXT);
        struct outcome o;

        in.src = at(family, PRIVATE);
        o = run(w, FROM_POD, &in);
        cr_expect_eq(o.verdict, SHOT);
        cr_expect_eq(o.mark, trace(&in, WEFT_FROM_ENDPOINT), "%#x", o.mark);
        cr_expect_eq(world_drops(w, WEFT_DROP_SPOOFED, WEFT_FROM_ENDPOINT), 1);
}

BOTH(early, what_weft_sends_itself_is_seen_at_the_exit_hook_as_it_leaves)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape out =
                sent(from_pod(family, IPPROTO_TCP, POD, 40000, WORLD, WATCH_NEXT), WORLD);
        struct skb marked = { .mark = MARK };
        struct outcome o = expect_with(w, TO_UPLINK, &marked, &out, NEXT, &out);

        cr_expect_eq(o.mark, trace(&out, WEFT_TO_UPLINK), "%#x", o.mark);
}

BOTH(early, fragments_are_seen_as_such)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape whole = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, WATCH_NEXT);
        struct packet all, first;

        whole.payload = 64;
        all = packet_build(&whole);
        first = packet_fragment(&all, 7, 0, 32);
        cr_expect_eq(expect_untouched(w, FROM_UPLINK, &first).mark,
                     trace(&whole, WEFT_FROM_UPLINK) | 1 << SEEN_FRAGMENT);
}

/* A packet whose sender's address orders what the watcher does with what has no ports. */
static struct packet with_order(struct packet p, uint16_t order)
{
        p.data[10] = order >> 8;
        p.data[11] = order & 0xff;
        return p;
}

Test(early, what_is_not_ip_is_seen_and_can_be_dropped)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape s = watched(AF_INET, 1);
        struct packet arp = packet_build(&s), no;
        struct outcome o;

        arp.data[12] = 0x08;
        arp.data[13] = 0x06;
        arp = with_order(arp, WATCH_NEXT);
        no = with_order(arp, WATCH_REJECT);
        o = expect_untouched(w, FROM_UPLINK, &arp);
        cr_expect_eq(o.mark, (WEFT_FROM_UPLINK + 1) << SEEN_HOOK | SEEN_TWICE, "%#x", o.mark);
        expect_dropped(w, FROM_UPLINK, &no, POLICY);
}

BOTH(early, headers_that_are_cut_short_have_no_key)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape s = watched(family, WATCH_DROP);
        struct packet whole = packet_build(&s), cut;
        struct outcome o;

        cut = with_order(whole, WATCH_PASS);
        cut.len = 14 + (family == AF_INET ? 20 : 40) + 6;
        o = expect_untouched(w, FROM_UPLINK, &cut);
        cr_expect_eq(o.mark, (WEFT_FROM_UPLINK + 1) << SEEN_HOOK, "%#x", o.mark);
}

/* ---- what they say ------------------------------------------------------------------------ */

BOTH(early, a_drop_is_counted_with_its_reason_at_the_hook)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape policy = watched(family, WATCH_DROP), own = watched(family, WATCH_DROP_OWN);

        expect_dropped(w, FROM_UPLINK, &policy, POLICY);
        cr_expect_eq(run(w, TO_UPLINK, &own).verdict, SHOT);
        cr_expect_eq(world_drops(w, WEFT_OWN_REASON, WEFT_TO_UPLINK), 1);
        cr_expect_eq(world_all_drops(w), 2);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
}

BOTH(early, a_drop_also_ends_what_an_established_flow_would_replay)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_pod(family, IPPROTO_UDP, POD, WATCH_DROP, WORLD, 443), out, reply;

        cr_assert_eq(run(w, FROM_POD, &in).verdict, REDIRECT);
        out = sent(in, WORLD);
        out.src = at(family, NODE);
        reply = answer(&out);
        cr_assert_eq(reply.dport, WATCH_DROP);
        expect_dropped(w, FROM_UPLINK, &reply, POLICY);
}

BOTH(early, pass_leads_past_all_of_weft)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_PASS);
        struct skb marked = { .mark = MARK };
        struct outcome o = expect_untouched(w, FROM_UPLINK, &in);

        cr_expect_eq(o.mark, trace(&in, WEFT_FROM_UPLINK) & ~SEEN_TWICE, "%#x", o.mark);
        o = expect_with(w, TO_UPLINK, &marked, &in, NEXT, &in);
        cr_expect_eq(o.mark, trace(&in, WEFT_TO_UPLINK) & ~SEEN_TWICE, "%#x", o.mark);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
        cr_expect_eq(world_all_drops(w), 0);
}

BOTH(early, done_leads_past_the_other_early_stages_alone)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_DONE), out = delivered(in, POD);
        struct outcome o = expect(w, FROM_UPLINK, &in, REDIRECT, &out);

        cr_expect_eq(o.mark, trace(&in, WEFT_FROM_UPLINK) & ~SEEN_TWICE, "%#x", o.mark);
}

BOTH(early, what_is_about_a_flow_is_no_verdict)
{
        static const uint16_t orders[] = { WATCH_TRACK, WATCH_PING, WATCH_NONSENSE };
        _cleanup_world_ struct world *w = world_open(WATCHED);

        for (size_t i = 0; i < ELEMENTS(orders); i++) {
                struct shape in = watched(family, orders[i]);

                cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, SHOT);
                cr_expect_eq(world_drops(w, WEFT_DROP_NO_VERDICT, WEFT_FROM_UPLINK), i + 1);
        }
}

BOTH(early, what_is_planned_has_no_effect)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_PLAN), out = delivered(in, POD);

        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_CLAIM_CONFLICT), 0);
}

BOTH(early, what_is_written_into_a_packet_is_what_weft_sees)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_WRITE), next = later(&in, ACK), out, next_out;

        out = delivered(in, POD);
        next_out = delivered(next, POD);
        out.dport = next_out.dport = WATCH_WRITTEN;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        for (int i = 0; i < 3; i++)
                expect(w, FROM_UPLINK, &next, REDIRECT, &next_out);
        expect(w, XDP, &next, XDP_GOES_ON, &next);
        cr_expect_eq(world_event(w, WEFT_EVENT_MISS), 1);
        in.dport = WATCH_WRITTEN;
        flow_at(w, &in, UPLINK);
}

BOTH(early, who_is_refused_is_told_with_tcp_by_a_reset)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = watched(family, WATCH_REJECT), want = answer(&in);
        struct outcome o = run(w, FROM_UPLINK, &in);
        struct layout l;

        cr_assert_eq(o.verdict, REDIRECT);
        cr_assert(packet_layout(&o.out, &l));
        cr_expect_eq(l.proto, IPPROTO_TCP);
        cr_expect_eq(o.out.data[l.l4 + 13], RST | ACK);
        cr_expect_eq(ntohs(*(uint16_t *) (o.out.data + l.l4 + 2)), want.dport);
        cr_expect_eq(world_drops(w, WEFT_DROP_POLICY, WEFT_FROM_UPLINK), 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 1);
}

BOTH(early, who_is_refused_is_told_with_udp_by_an_error)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, POD, WATCH_REJECT);
        struct outcome o = run(w, FROM_UPLINK, &in);
        const char *why = "";
        struct layout l;

        cr_assert_eq(o.verdict, REDIRECT);
        cr_assert(packet_valid(&o.out, &why), "%s", why);
        cr_assert(packet_layout(&o.out, &l));
        cr_expect_eq(l.proto, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
        cr_expect_eq(o.out.data[l.l4], family == AF_INET ? 3 : 1);
}

BOTH(early, nobody_is_told_at_an_exit_hook_nor_of_what_went_to_many)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, POD, WATCH_REJECT);

        expect_dropped(w, TO_UPLINK, &in, POLICY);
        in.dst = at(family, POD);
        if (family == AF_INET)
                in.dst.w[3] = htonl(0xe0000105);
        else
                in.dst.w[0] = htonl(0xff050000);
        expect_dropped(w, FROM_UPLINK, &in, POLICY);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 0);
}

/* ---- XDP ---------------------------------------------------------------------------------- */

BOTH(early, nothing_is_replayed_in_xdp_behind_them)
{
        _cleanup_world_ struct world *w = world_open(WATCHED);
        struct shape in = from_outside(family, IPPROTO_UDP, CLIENT, 40000, NODE, NODE_PORT);

        cr_assert_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        cr_assert_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        expect(w, XDP, &in, XDP_GOES_ON, &in);
}
