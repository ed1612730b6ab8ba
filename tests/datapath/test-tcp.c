/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The life of a flow: states, lifetimes, expiry, and being decided again. */

#include "check.h"

/* A connection through the node port to the remote backend, and how far it has come. */
struct connection {
        struct world *w;
        struct shape in, out; /* the SYN as the client sends it and as the backend gets it */
};

static struct connection begin(struct world *w, int family, uint8_t proto)
{
        struct connection c = { w, from_outside(family, proto, CLIENT, 61234, NODE, NODE_PORT) };

        c.out = c.in;
        c.out.src = at(family, NODE);
        c.out.dst = at(family, REMOTE_POD);
        c.out.dport = BACKEND_PORT;
        c.out = sent(c.out, REMOTE_POD);
        expect(w, FROM_UPLINK, &c.in, REDIRECT, &c.out);
        return c;
}

static void client_says(const struct connection *c, uint8_t flags)
{
        struct shape in = later(&c->in, flags), out = later(&c->out, flags);

        expect(c->w, FROM_UPLINK, &in, REDIRECT, &out);
}

static void backend_says(const struct connection *c, uint8_t flags)
{
        struct shape in = answer(&c->out), out;

        in.flags = flags;
        out = sent(as_answer_to(&c->in, in), CLIENT);
        expect(c->w, FROM_UPLINK, &in, REDIRECT, &out);
}

/* Both directions of the flow. */
static void both(const struct connection *c, struct flow ret[2])
{
        struct shape reply = answer(&c->out);

        ret[0] = flow_at(c->w, &c->in, UPLINK);
        ret[1] = flow_at(c->w, &reply, UPLINK);
}

/* Seconds: user space computes jiffies, and the kernel's lag behind a little, or run ahead. */
#define LAG 2

static void check_life(const struct connection *c, enum weft_flow_state state, long seconds)
{
        struct flow f[2];

        both(c, f);
        for (int i = 0; i < 2; i++) {
                long left = flow_seconds(c->w, &f[i]);

                cr_expect_eq(f[i].f.state, state, "direction %d: state %u", i, f[i].f.state);
                cr_expect(left <= seconds + LAG && left > seconds - 5, "direction %d: %ld s left",
                          i, left);
        }
}

static struct connection established(struct world *w, int family)
{
        struct connection c = begin(w, family, IPPROTO_TCP);

        backend_says(&c, SYN | ACK);
        client_says(&c, ACK);
        backend_says(&c, ACK);
        return c;
}

BOTH(life, a_syn_alone_lives_for_a_minute)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_TCP);

        check_life(&c, WEFT_NEW, 60);
}

BOTH(life, an_established_connection_lives_for_8000_seconds)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);

        check_life(&c, WEFT_ESTABLISHED, 8000);
}

BOTH(life, udp_lives_for_a_minute_after_its_last_packet)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_UDP);
        struct shape reply = answer(&c.out);

        check_life(&c, WEFT_NEW, 60);
        run(w, FROM_UPLINK, &reply);
        run(w, FROM_UPLINK, &c.in);
        check_life(&c, WEFT_ESTABLISHED, 60);
        world_set_deadline(w, &c.in, WEFT_SIDE_UPLINK, 5);
        run(w, FROM_UPLINK, &c.in);
        cr_expect_gt(({
                             struct flow f = flow_at(w, &c.in, UPLINK);
                             flow_seconds(w, &f);
                     }),
                     55);
}

BOTH(life, one_fin_leaves_the_connection_open)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct flow f[2];

        client_says(&c, FIN | ACK);
        both(&c, f);
        cr_expect_eq(f[0].f.state, WEFT_ESTABLISHED);
        cr_expect_eq(f[1].f.state, WEFT_ESTABLISHED);
        cr_expect_gt(flow_seconds(w, &f[1]), 7000);
        backend_says(&c, ACK);
        client_says(&c, ACK);
}

BOTH(life, two_fins_close_it_and_the_port_is_kept_for_a_minute)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);

        client_says(&c, FIN | ACK);
        backend_says(&c, FIN | ACK);
        client_says(&c, ACK);
        check_life(&c, WEFT_CLOSING, 60);
}

BOTH(life, a_reset_closes_it_at_once)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);

        backend_says(&c, RST | ACK);
        check_life(&c, WEFT_CLOSING, 60);
}

BOTH(life, a_closed_connection_without_a_port_of_the_node_is_gone_in_ten_seconds)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, LOCAL_PORT), rst;
        struct flow f;

        run(w, FROM_UPLINK, &in);
        rst = later(&in, RST);
        run(w, FROM_UPLINK, &rst);
        f = flow_at(w, &in, UPLINK);
        cr_expect_eq(f.f.state, WEFT_CLOSING);
        cr_expect_leq(flow_seconds(w, &f), 10 + LAG);
}

BOTH(life, a_syn_on_a_closed_connection_begins_a_new_one)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct shape again = c.in;

        client_says(&c, FIN | ACK);
        backend_says(&c, FIN | ACK);
        run(w, FROM_UPLINK, &again);
        cr_expect_eq(flow_at(w, &again, UPLINK).f.state, WEFT_NEW);
        cr_expect_eq(world_event(w, WEFT_EVENT_REOPENED), 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 2);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(life, a_retransmitted_syn_does_not_begin_a_new_one)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_TCP);

        expect(w, FROM_UPLINK, &c.in, REDIRECT, &c.out);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        cr_expect_eq(world_flows(w, NULL, 0), 2);
}

BOTH(life, packets_of_a_connection_from_the_middle_are_taken_up)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, NODE_PORT);
        struct shape middle = later(&in, ACK);

        cr_expect_eq(run(w, FROM_UPLINK, &middle).verdict, REDIRECT);
        cr_expect_eq(world_flows(w, NULL, 0), 2);
}

BOTH(life, an_entry_past_its_deadline_is_absent)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_UDP);
        struct shape reply = answer(&c.out);

        world_set_deadline(w, &c.in, WEFT_SIDE_UPLINK, -10);
        world_set_deadline(w, &reply, WEFT_SIDE_UPLINK, -10);
        cr_expect_eq(world_flows(w, NULL, 0), 0);
        expect(w, FROM_UPLINK, &c.in, REDIRECT, &c.out);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 2, "it was decided anew");
        cr_expect_eq(world_flows(w, NULL, 0), 2);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(life, an_answer_past_its_deadline_is_nobodys)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_UDP);
        struct shape reply = answer(&c.out);

        world_set_deadline(w, &c.in, WEFT_SIDE_UPLINK, -10);
        world_set_deadline(w, &reply, WEFT_SIDE_UPLINK, -10);
        expect_untouched(w, FROM_UPLINK, &reply);
}

BOTH(life, a_connection_outlives_the_expiry_of_its_other_direction)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct shape reply = answer(&c.out);

        world_set_deadline(w, &reply, WEFT_SIDE_UPLINK, -10);
        client_says(&c, ACK);
        cr_expect_eq(flow_at(w, &c.in, UPLINK).new_sport, 61234);
        backend_says(&c, ACK);
}

/* ---- decided again ------------------------------------------------------------------------ */

BOTH(again, after_the_world_has_moved_the_way_is_decided_anew_and_the_translation_kept)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        uint64_t before = world_event(w, WEFT_EVENT_AGAIN);

        tables_move_epoch(w->tables);
        client_says(&c, ACK);
        backend_says(&c, ACK);
        cr_expect_eq(world_event(w, WEFT_EVENT_AGAIN) - before, 2);
        client_says(&c, ACK);
        backend_says(&c, ACK);
        cr_expect_eq(world_event(w, WEFT_EVENT_AGAIN) - before, 2);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
        check_life(&c, WEFT_ESTABLISHED, 8000);
}

BOTH(again, a_new_address_of_the_next_hop_needs_no_decision)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct mac fresh = { { 2, 0, 0, 9, 9, 9 } };
        struct weft_addr hop = at(family, NODE2);
        uint64_t before = world_event(w, WEFT_EVENT_AGAIN);
        struct shape in = later(&c.in, ACK), out = later(&c.out, ACK);

        tables_neighbour(w->tables, w->ifindex[UPLINK], &hop, fresh.b);
        out.dmac = fresh;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_AGAIN), before);
}

/* The kernel writes the link-layer addresses of such a packet, after the program. */
BOTH(again, a_next_hop_not_heard_of_lately_is_confirmed_by_the_kernel_once)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct flow f = flow_at(w, &c.in, UPLINK);
        struct shape in = later(&c.in, ACK), out = later(&c.out, ACK);
        uint64_t before = world_event(w, WEFT_EVENT_NEIGHBOUR);

        world_age_nexthop(w, &f);
        out.smac = in.smac;
        out.dmac = in.dmac;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_NEIGHBOUR) - before, 1);
        client_says(&c, ACK);
        cr_expect_eq(world_event(w, WEFT_EVENT_NEIGHBOUR) - before, 1);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

BOTH(again, a_new_address_of_an_endpoint_reaches_its_flows)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct shape in = from_outside(family, IPPROTO_TCP, CLIENT, 40000, NODE, LOCAL_PORT),
                     out = in;
        struct weft_addr addrs[] = { at(AF_INET, POD), at(AF_INET6, POD) };
        struct mac fresh = { { 2, 0, 0, 8, 8, 8 } }, gateway = gateway_mac(POD);
        struct table_endpoint e = { .addrs = addrs,
                                    .n_addrs = 2,
                                    .ifindex = w->ifindex[EP0],
                                    .identity = 1000,
                                    .has_peer = true };

        run(w, FROM_UPLINK, &in);
        memcpy(e.mac, fresh.b, 6);
        memcpy(e.gateway_mac, gateway.b, 6);
        cr_assert_eq(tables_set_endpoint(w->tables, "pod", &e, NULL), 0);
        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        out = delivered(out, POD);
        out.dmac = fresh;
        expect(w, FROM_UPLINK, &in, REDIRECT, &out);
        cr_expect_eq(world_event(w, WEFT_EVENT_COMMIT), 1);
}

static void without_backends(struct world *w, int family, uint8_t proto, const char *name)
{
        struct service s = { .name = name,
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = proto,
                             .external = { EXTERNAL, SECOND },
                             .n_external = 2 };

        world_set_service(w, family, &s);
}

BOTH(again, a_tcp_connection_to_a_removed_backend_is_told_so)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct shape next = later(&c.in, ACK);
        struct outcome o;

        without_backends(w, family, IPPROTO_TCP, "remote-tcp");
        o = run(w, FROM_UPLINK, &next);
        cr_expect(o.verdict == REDIRECT || o.verdict == SHOT, "verdict %d", o.verdict);
        cr_expect_eq(world_drops(w, WEFT_DROP_BACKEND_GONE, WEFT_FROM_UPLINK), 1);
}

BOTH(again, a_udp_flow_to_a_removed_backend_chooses_another)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = begin(w, family, IPPROTO_UDP);
        struct service s = { .name = "remote-udp",
                             .port = SERVICE_PORT,
                             .node_port = NODE_PORT,
                             .proto = IPPROTO_UDP,
                             .external = { EXTERNAL, SECOND },
                             .n_external = 2,
                             .backends = { POD },
                             .n_backends = 1 };
        struct shape out = c.in;

        world_set_service(w, family, &s);
        out.dst = at(family, POD);
        out.dport = BACKEND_PORT;
        out = delivered(out, POD);
        expect(w, FROM_UPLINK, &c.in, REDIRECT, &out);
        expect(w, FROM_UPLINK, &c.in, REDIRECT, &out);
        cr_expect_eq(world_orphans(w), 0);
}

BOTH(again, another_service_losing_its_backend_does_not_disturb)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct connection c = established(w, family);
        struct service s = { .name = "local-tcp",
                             .port = LOCAL_SERVICE_PORT,
                             .node_port = LOCAL_PORT,
                             .proto = IPPROTO_TCP,
                             .external = { EXTERNAL },
                             .n_external = 1 };
        uint64_t before = world_event(w, WEFT_EVENT_AGAIN);

        world_set_service(w, family, &s);
        client_says(&c, ACK);
        cr_expect_eq(world_event(w, WEFT_EVENT_AGAIN), before);
}
