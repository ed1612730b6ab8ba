/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which backend a new flow is given, and what becomes of it when the backend's state changes. All
 * backends are ports of a few addresses, so that the port tells which one was chosen. */

#include <bpf/bpf.h>

#include "check.h"

TestSuite(balance, .timeout = 60);

enum {
        BALANCED_PORT = 90,         /* of the service on EXTERNAL and SECOND, */
        BALANCED_NODE_PORT = 30090, /* and on the node */
        FIRST_BACKEND = 9000,       /* port of the first backend */
        MANY = 20,
        SIZE_16381 = 6, /* of CONFIG_MAGLEV_SIZES */
};

struct balanced {
        struct config_service s;
        struct config_backend backends[MANY];
        struct weft_addr external[2];
        struct weft_prefix range;
};

/* A service of n backends on the address, all active and of weight 1. */
static struct balanced balanced(int family, uint8_t proto, enum who where, size_t n)
{
        struct balanced b = { .external = { at(family, EXTERNAL), at(family, SECOND) } };

        for (size_t i = 0; i < n; i++)
                b.backends[i] = (struct config_backend) {
                        .addr = at(family, where),
                        .port = FIRST_BACKEND + i,
                        .weight = 1,
                };
        b.s = (struct config_service) {
                .name = (char *) "balanced",
                .port = BALANCED_PORT,
                .proto = proto,
                .node_port = BALANCED_NODE_PORT,
                .external_ip = { NULL, 2 },
                .n_backends = n,
                .maglev_size = SIZE_16381,
        };
        return b;
}

static void set(struct world *w, int family, struct balanced *b)
{
        struct weft_addr node = at(family, NODE);
        struct weft_error error = {};

        b->s.external_ip.items = b->external;
        b->s.backends = b->backends;
        cr_assert_eq(tables_set_service(w->tables, &b->s, &node, 1, &error), 0, "%s", error.text);
}

static struct shape opening(int family, uint8_t proto, enum who client, uint16_t sport)
{
        return from_outside(family, proto, client, sport, EXTERNAL, BALANCED_PORT);
}

/* Which backend a packet's flow has. */
static unsigned backend_of(struct world *w, const struct shape *s)
{
        unsigned port = flow_at(w, s, UPLINK).new_dport;

        cr_assert(port >= FIRST_BACKEND && port < FIRST_BACKEND + MANY, "port %u", port);
        return port - FIRST_BACKEND;
}

/* … that a new flow gets. */
static unsigned chosen(struct world *w, const struct shape *s)
{
        run(w, FROM_UPLINK, s);
        return backend_of(w, s);
}

/* Opens n flows from successive ports; how many each backend got. */
static void open_flows(struct world *w, int family, uint8_t proto, uint16_t from, size_t n,
                       unsigned count[MANY])
{
        for (size_t i = 0; i < MANY; i++)
                count[i] = 0;
        for (size_t i = 0; i < n; i++) {
                struct shape s = opening(family, proto, CLIENT, from + i);

                count[chosen(w, &s)]++;
        }
}

/* ---- random ------------------------------------------------------------------------------- */

BOTH(balance, by_chance_gives_each_backend_its_weights_share)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 3);
        unsigned count[MANY];

        b.backends[1].weight = 3;
        b.backends[2].weight = 0;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 400, count);
        /* 100 of 400 with a standard deviation of 9 */
        cr_expect(count[0] > 55 && count[0] < 145, "%u", count[0]);
        cr_expect_eq(count[0] + count[1], 400);
        cr_expect_eq(count[2], 0, "weight 0");
}

/* ---- Maglev ------------------------------------------------------------------------------- */

BOTH(balance, maglev_gives_a_flow_the_same_backend_at_every_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 10);

        b.s.algorithm = WEFT_MAGLEV;
        set(w, family, &b);
        for (uint16_t port = 20000; port < 20050; port++) {
                struct shape one = opening(family, IPPROTO_TCP, CLIENT, port);
                struct shape two =
                        from_outside(family, IPPROTO_TCP, CLIENT, port, SECOND, BALANCED_PORT);
                struct shape three =
                        from_outside(family, IPPROTO_TCP, CLIENT, port, NODE, BALANCED_NODE_PORT);
                unsigned first = chosen(w, &one);

                cr_expect_eq(chosen(w, &two), first);
                cr_expect_eq(chosen(w, &three), first);
        }
}

BOTH(balance, maglev_spreads_flows_and_does_not_care_for_the_order_of_the_backends)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_UDP, REMOTE_POD, 10), turned = b;
        unsigned first[500], count[MANY] = {};

        b.s.algorithm = turned.s.algorithm = WEFT_MAGLEV;
        for (size_t i = 0; i < 10; i++)
                turned.backends[i] = b.backends[9 - i];
        set(w, family, &b);
        for (size_t i = 0; i < ELEMENTS(first); i++) {
                struct shape s = opening(family, IPPROTO_UDP, CLIENT, 20000 + i);

                count[first[i] = chosen(w, &s)]++;
        }
        for (size_t i = 0; i < 10; i++)
                cr_expect(count[i] > 20 && count[i] < 90, "%u of 500", count[i]);

        world_forget(w);
        set(w, family, &turned);
        for (size_t i = 0; i < ELEMENTS(first); i++) {
                struct shape s = opening(family, IPPROTO_UDP, CLIENT, 20000 + i);

                cr_expect_eq(chosen(w, &s), first[i]);
        }
}

BOTH(balance, maglev_gives_each_backend_its_share_of_flows_within_5_percent)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_UDP, REMOTE_POD, 2);
        unsigned count[MANY];

        b.s.algorithm = WEFT_MAGLEV;
        set(w, family, &b);
        /* the same flows, and so the same shares, in every run */
        open_flows(w, family, IPPROTO_UDP, 20000, 1000, count);
        cr_expect(count[0] >= 475 && count[0] <= 525, "%u and %u", count[0], count[1]);
}

BOTH(balance, maglev_with_affinity_does_not_look_at_the_clients_port)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 10);
        unsigned count[MANY], with[MANY];

        b.s.algorithm = WEFT_MAGLEV;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 50, count);
        b.s.affinity = 1; /* over at once: what agrees is the hash, and so every node */
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 21000, 50, with);

        bool spread = true, one = false;
        for (size_t i = 0; i < MANY; i++) {
                spread = spread && count[i] < 50;
                one = one || with[i] == 50;
        }
        cr_expect(spread);
        cr_expect(one);
}

/* ---- least connections -------------------------------------------------------------------- */

static struct shape answer_of(struct world *w, const struct shape *in)
{
        struct flow f = flow_at(w, in, UPLINK);
        struct shape out = *in;

        out.src = f.new_src;
        out.dst = f.new_dst;
        out.sport = f.new_sport;
        out.dport = f.new_dport;
        out = sent(out, REMOTE_POD);
        return answer(&out);
}

/* Both sides say that it is over. */
static void close_both(struct world *w, const struct shape *in)
{
        struct shape reply = answer_of(w, in), fin = later(in, FIN | ACK);
        struct shape reply_fin = later(&reply, FIN | ACK), ack = later(in, ACK);

        run(w, FROM_UPLINK, &reply);
        run(w, FROM_UPLINK, &ack);
        run(w, FROM_UPLINK, &fin);
        run(w, FROM_UPLINK, &reply_fin);
        cr_assert_eq(flow_at(w, in, UPLINK).f.state, WEFT_CLOSING);
}

BOTH(balance, least_connections_fills_the_backends_evenly)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 4);
        unsigned count[MANY];

        b.s.algorithm = WEFT_LEAST_CONNECTIONS;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 40, count);
        for (size_t i = 0; i < 4; i++)
                cr_expect_eq(count[i], 10);
}

BOTH(balance, least_connections_goes_by_weight)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_UDP, REMOTE_POD, 2);
        unsigned count[MANY];

        b.s.algorithm = WEFT_LEAST_CONNECTIONS;
        b.backends[1].weight = 3;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_UDP, 20000, 40, count);
        cr_expect_eq(count[0], 10);
        cr_expect_eq(count[1], 30);
}

BOTH(balance, least_connections_sees_connections_end)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 4);
        unsigned count[MANY], closed = 0;

        b.s.algorithm = WEFT_LEAST_CONNECTIONS;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 40, count);
        for (uint16_t port = 20000; port < 20040; port++) {
                struct shape s = opening(family, IPPROTO_TCP, CLIENT, port);

                if (backend_of(w, &s) == 2) {
                        close_both(w, &s);
                        closed++;
                }
        }
        cr_assert_eq(closed, 10);
        open_flows(w, family, IPPROTO_TCP, 21000, 10, count);
        cr_expect_eq(count[2], 10, "the one that has none left gets all");
}

BOTH(balance, least_connections_over_dsr_goes_by_what_the_client_says)
{
        _cleanup_world_ struct world *w = world_open(DIRECT);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 4);
        unsigned count[MANY], closed = 0;

        b.s.algorithm = WEFT_LEAST_CONNECTIONS;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 40, count);
        for (uint16_t port = 20000; port < 20040; port++) {
                struct shape s = opening(family, IPPROTO_TCP, CLIENT, port);
                struct shape ack = later(&s, ACK), end = later(&s, port % 2 ? RST : FIN | ACK);

                run(w, FROM_UPLINK, &ack);
                if (backend_of(w, &s) != 2)
                        continue;
                run(w, FROM_UPLINK, &end);
                run(w, FROM_UPLINK, &end);
                closed++;
        }
        cr_assert_eq(closed, 10);
        open_flows(w, family, IPPROTO_TCP, 21000, 10, count);
        cr_expect_eq(count[2], 10, "the one that has none left gets all");
        open_flows(w, family, IPPROTO_TCP, 22000, 40, count);
        for (size_t i = 0; i < 4; i++)
                cr_expect_eq(count[i], 10, "what is said twice counts once");
}

BOTH(balance, a_new_backend_of_least_connections_gets_the_next_connections)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 2);
        unsigned count[MANY];

        b.s.algorithm = WEFT_LEAST_CONNECTIONS;
        b.s.n_backends = 1;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 20000, 10, count);
        b.s.n_backends = 2;
        set(w, family, &b);
        open_flows(w, family, IPPROTO_TCP, 21000, 10, count);
        cr_expect_eq(count[1], 10);
}

/* ---- affinity ----------------------------------------------------------------------------- */

/* Makes it as if the client had come so many seconds ago. */
static void age_affinity(struct world *w, unsigned seconds)
{
        int fd = tables_fd(w->tables, "affinity");
        struct weft_affinity_key key;
        struct weft_affinity value;

        cr_assert_eq(bpf_map_get_next_key(fd, NULL, &key), 0);
        cr_assert_eq(bpf_map_lookup_elem(fd, &key, &value), 0);
        value.used -= (uint64_t) seconds * w->hz;
        cr_assert_eq(bpf_map_update_elem(fd, &key, &value, 0), 0);
}

BOTH(balance, affinity_keeps_a_client_at_its_backend_at_every_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 10);
        struct shape first = opening(family, IPPROTO_TCP, CLIENT, 20000);
        unsigned backend;

        b.s.affinity = 10000;
        set(w, family, &b);
        backend = chosen(w, &first);
        for (uint16_t port = 20001; port < 20020; port++) {
                struct shape one = opening(family, IPPROTO_TCP, CLIENT, port);
                struct shape two =
                        from_outside(family, IPPROTO_TCP, CLIENT, port, NODE, BALANCED_NODE_PORT);

                cr_expect_eq(chosen(w, &one), backend);
                cr_expect_eq(chosen(w, &two), backend);
        }
}

BOTH(balance, affinity_ends_after_its_time_and_not_before)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 10);
        struct shape s = opening(family, IPPROTO_TCP, CLIENT, 20000);
        unsigned backend, moved = 0;

        b.s.affinity = 10000;
        set(w, family, &b);
        backend = chosen(w, &s);
        for (s.sport++; s.sport < 20020; s.sport++) {
                age_affinity(w, 8);
                cr_expect_eq(chosen(w, &s), backend, "each connection renews it");
        }
        for (; s.sport < 20060; s.sport++) {
                age_affinity(w, 12);
                moved += chosen(w, &s) != backend;
        }
        cr_expect_gt(moved, 10);
}

BOTH(balance, affinity_leads_only_to_backends_that_take_new_flows)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 3);
        struct shape s = opening(family, IPPROTO_TCP, CLIENT, 20000);
        unsigned first, second, third;

        b.s.affinity = 10000;
        set(w, family, &b);
        first = chosen(w, &s);
        b.backends[first].state = BACKEND_DRAINING;
        set(w, family, &b);
        s.sport++;
        second = chosen(w, &s);
        cr_expect_neq(second, first);
        for (int i = 0; i < 10; i++, s.sport++)
                cr_expect_eq(chosen(w, &s), second);

        b.backends[second] = b.backends[2];
        b.s.n_backends = 2;
        set(w, family, &b);
        s.sport++;
        third = chosen(w, &s);
        cr_expect_neq(third, second);
        b.backends[first].state = BACKEND_ACTIVE;
        set(w, family, &b);
        for (int i = 0; i < 10; i++, s.sport++)
                cr_expect_eq(chosen(w, &s), third, "who comes back takes no client away");
}

/* ---- who may come, and where to ------------------------------------------------------------- */

BOTH(balance, source_ranges_let_only_their_clients_in)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 1);
        struct shape in = opening(family, IPPROTO_TCP, CLIENT, 20000);
        struct shape out = opening(family, IPPROTO_TCP, WORLD, 20000);

        b.range = (struct weft_prefix) { at(family, CLIENT), 128 };
        b.s.source_range = (struct weft_prefixes) { &b.range, 1 };
        set(w, family, &b);
        expect_dropped(w, FROM_UPLINK, &out, SOURCE_REFUSED);
        (void) chosen(w, &in);

        b.s.source_range.n = 0;
        set(w, family, &b);
        (void) chosen(w, &out);
}

BOTH(balance, a_flow_goes_on_when_its_client_is_let_in_no_more)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_UDP, REMOTE_POD, 1);
        struct shape in = opening(family, IPPROTO_UDP, CLIENT, 20000);

        set(w, family, &b);
        (void) chosen(w, &in);
        b.range = (struct weft_prefix) { at(family, WORLD), 128 };
        b.s.source_range = (struct weft_prefixes) { &b.range, 1 };
        set(w, family, &b);
        cr_expect_eq(run(w, FROM_UPLINK, &in).verdict, REDIRECT);
        in.sport++;
        expect_dropped(w, FROM_UPLINK, &in, SOURCE_REFUSED);
}

BOTH(balance, local_traffic_stays_on_the_node_with_the_clients_address)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 4);
        struct shape s = opening(family, IPPROTO_TCP, CLIENT, 20000);

        b.backends[2].addr = at(family, POD);
        b.backends[2].local = true;
        b.s.external = TRAFFIC_LOCAL;
        for (uint32_t algorithm = WEFT_RANDOM; algorithm <= WEFT_LEAST_CONNECTIONS; algorithm++) {
                b.s.algorithm = algorithm;
                for (b.s.affinity = 0; b.s.affinity <= 10000; b.s.affinity += 10000) {
                        set(w, family, &b);
                        for (int i = 0; i < 10; i++, s.sport++) {
                                cr_expect_eq(chosen(w, &s), 2);
                                cr_expect_eq(flow_at(w, &s, UPLINK).f.set, WEFT_SET_DST);
                        }
                }
        }
}

BOTH(balance, local_traffic_without_a_backend_on_the_node_is_dropped)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 2);
        struct shape s = opening(family, IPPROTO_TCP, CLIENT, 20000);

        b.s.external = TRAFFIC_LOCAL;
        set(w, family, &b);
        expect_dropped(w, FROM_UPLINK, &s, NO_LOCAL_BACKEND);
        cr_expect_eq(world_event(w, WEFT_EVENT_ICMP_SENT), 0);
        b.s.internal = TRAFFIC_LOCAL;
        b.s.external = TRAFFIC_CLUSTER;
        set(w, family, &b);
        (void) chosen(w, &s);
}

/* The same from POD2, as a service's outside address is reached from inside. */
static struct shape opening_inside(int family, uint16_t sport)
{
        return from_pod(family, IPPROTO_TCP, POD2, sport, EXTERNAL, BALANCED_PORT);
}

static const struct place FROM_POD2 = { WEFT_FROM_ENDPOINT, EP1 };

static unsigned chosen_inside(struct world *w, const struct shape *s)
{
        run(w, FROM_POD2, s);
        return flow_at(w, s, INSIDE).new_dport - FIRST_BACKEND;
}

BOTH(balance, endpoints_go_by_internal_traffic_alone)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 2);
        struct shape s = opening_inside(family, 20000);

        b.range = (struct weft_prefix) { at(family, WORLD), 128 };
        b.s.source_range = (struct weft_prefixes) { &b.range, 1 };
        b.s.external = TRAFFIC_LOCAL;
        set(w, family, &b);
        cr_expect_lt(chosen_inside(w, &s), 2);

        b.s.internal = TRAFFIC_LOCAL;
        set(w, family, &b);
        s.sport++;
        expect_dropped(w, FROM_POD2, &s, NO_LOCAL_BACKEND);
        b.backends[1].addr = at(family, POD);
        b.backends[1].local = true;
        set(w, family, &b);
        for (int i = 0; i < 10; i++, s.sport++)
                cr_expect_eq(chosen_inside(w, &s), 1);
}

BOTH(balance, affinity_is_an_endpoints_too)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 10);
        struct shape s = opening_inside(family, 20000);
        unsigned backend;

        b.s.affinity = 10000;
        set(w, family, &b);
        backend = chosen_inside(w, &s);
        for (s.sport++; s.sport < 20020; s.sport++)
                cr_expect_eq(chosen_inside(w, &s), backend);
}

BOTH(balance, a_node_port_and_an_address_of_the_same_number_are_two_services)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced one = balanced(family, IPPROTO_TCP, REMOTE_POD, 1), two = one;
        struct shape a = from_outside(family, IPPROTO_TCP, CLIENT, 61234, NODE, BALANCED_NODE_PORT);
        struct shape b =
                from_outside(family, IPPROTO_TCP, CLIENT, 61234, EXTERNAL, BALANCED_NODE_PORT);

        one.s.external_ip.n = 0;
        two.s.name = (char *) "two";
        two.s.node_port = 0;
        two.s.port = BALANCED_NODE_PORT;
        two.backends[0].port++;
        set(w, family, &one);
        set(w, family, &two);
        cr_expect_eq(chosen(w, &a), 0);
        cr_expect_eq(chosen(w, &b), 1);

        /* and to the same backend, from the same port of the client */
        two.backends[0].port--;
        set(w, family, &two);
        a.sport = b.sport = 61235;
        cr_expect_eq(chosen(w, &a), 0);
        cr_expect_eq(chosen(w, &b), 0);
        cr_expect_neq(flow_at(w, &a, UPLINK).new_sport, flow_at(w, &b, UPLINK).new_sport);
}

BOTH(balance, a_client_is_given_a_backend_of_its_family)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 4);

        for (size_t i = 0; i < 3; i++)
                b.backends[i].addr = at(family == AF_INET ? AF_INET6 : AF_INET, REMOTE_POD);
        for (uint32_t algorithm = WEFT_RANDOM; algorithm <= WEFT_LEAST_CONNECTIONS; algorithm++) {
                unsigned count[MANY];

                b.s.algorithm = algorithm;
                set(w, family, &b);
                open_flows(w, family, IPPROTO_TCP, 20000 + 100 * algorithm, 20, count);
                cr_expect_eq(count[3], 20);
        }
}

/* ---- states ------------------------------------------------------------------------------- */

static void check_old_flows_stay(int family, uint8_t proto, enum backend_state state)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, proto, REMOTE_POD, 2);
        struct shape old = opening(family, proto, CLIENT, 20000), next = old, reply;
        unsigned count[MANY], was;

        if (proto == IPPROTO_TCP)
                next = later(&old, ACK);
        for (uint32_t algorithm = WEFT_RANDOM; algorithm <= WEFT_LEAST_CONNECTIONS; algorithm++) {
                world_forget(w);
                b.s.algorithm = algorithm;
                b.backends[0].state = b.backends[1].state = BACKEND_ACTIVE;
                set(w, family, &b);
                was = chosen(w, &old);
                reply = answer_of(w, &old);
                run(w, FROM_UPLINK, &reply);
                run(w, FROM_UPLINK, &next);

                b.backends[was].state = state;
                set(w, family, &b);
                open_flows(w, family, proto, 21000, 20, count);
                cr_expect_eq(count[was], 0, "algorithm %u", algorithm);
                cr_expect_eq(run(w, FROM_UPLINK, &next).verdict, REDIRECT);
                cr_expect_eq(backend_of(w, &old), was);

                b.backends[was].state = BACKEND_ACTIVE;
                set(w, family, &b);
                open_flows(w, family, proto, 22000, 60, count);
                cr_expect_gt(count[was], 0, "algorithm %u", algorithm);
        }
}

BOTH(balance, a_draining_backend_keeps_its_tcp_flows_and_gets_no_others)
{
        check_old_flows_stay(family, IPPROTO_TCP, BACKEND_DRAINING);
}

BOTH(balance, a_draining_backend_keeps_its_udp_flows_and_gets_no_others)
{
        check_old_flows_stay(family, IPPROTO_UDP, BACKEND_DRAINING);
}

BOTH(balance, a_backend_in_maintenance_keeps_its_flows_and_gets_no_others)
{
        check_old_flows_stay(family, IPPROTO_TCP, BACKEND_MAINTENANCE);
}

BOTH(balance, a_backend_that_waits_for_its_endpoint_gets_no_flows)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, POD, 3);
        struct shape s = opening(family, IPPROTO_TCP, CLIENT, 30000);
        unsigned count[MANY];

        for (size_t i = 0; i < 3; i++)
                b.backends[i].local = true;
        b.s.external = TRAFFIC_LOCAL;
        b.backends[0].state = BACKEND_DRAINING;
        b.backends[1].waiting = true;
        for (uint32_t algorithm = WEFT_RANDOM; algorithm <= WEFT_LEAST_CONNECTIONS; algorithm++)
                for (b.s.affinity = 0; b.s.affinity <= 10000; b.s.affinity += 10000) {
                        b.s.algorithm = algorithm;
                        set(w, family, &b);
                        open_flows(w, family, IPPROTO_TCP,
                                   20000 + 100 * algorithm + (b.s.affinity ? 50 : 0), 20, count);
                        cr_expect_eq(count[2], 20);
                }

        b.backends[2].waiting = true;
        set(w, family, &b);
        cr_expect_eq(chosen(w, &s), 0, "who is draining serves where no other can");
        b.backends[0].waiting = true;
        set(w, family, &b);
        s.sport++;
        run(w, FROM_UPLINK, &s);
        cr_expect_eq(world_drops(w, WEFT_DROP_NO_BACKEND, WEFT_FROM_UPLINK), 1);
}

BOTH(balance, where_all_are_draining_they_serve)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced b = balanced(family, IPPROTO_TCP, REMOTE_POD, 3);

        b.backends[0].state = b.backends[1].state = BACKEND_DRAINING;
        b.backends[2].state = BACKEND_MAINTENANCE;
        for (uint32_t algorithm = WEFT_RANDOM; algorithm <= WEFT_LEAST_CONNECTIONS; algorithm++) {
                unsigned count[MANY];

                b.s.algorithm = algorithm;
                set(w, family, &b);
                open_flows(w, family, IPPROTO_TCP, 20000 + 100 * algorithm, 40, count);
                cr_expect(count[0] && count[1] && count[0] + count[1] == 40);
        }
}

BOTH(balance, a_backend_that_one_service_removes_goes_on_in_the_other)
{
        _cleanup_world_ struct world *w = world_open(FULL);
        struct balanced one = balanced(family, IPPROTO_TCP, REMOTE_POD, 1), two = one;
        struct shape a = opening(family, IPPROTO_TCP, CLIENT, 20000);
        struct shape b = from_outside(family, IPPROTO_TCP, CLIENT, 20001, NODE, 30091);
        struct shape a_next = later(&a, ACK), b_next = later(&b, ACK);

        two.s.name = (char *) "two";
        two.s.external_ip.n = 0;
        two.s.node_port = 30091;
        set(w, family, &one);
        set(w, family, &two);
        (void) chosen(w, &a);
        (void) chosen(w, &b);

        one.backends[0].port++;
        set(w, family, &one);
        run(w, FROM_UPLINK, &a_next);
        cr_expect_eq(world_drops(w, WEFT_DROP_BACKEND_GONE, WEFT_FROM_UPLINK), 1, "reset");
        cr_expect_eq(run(w, FROM_UPLINK, &b_next).verdict, REDIRECT);
        cr_expect_eq(world_drops(w, WEFT_DROP_BACKEND_GONE, WEFT_FROM_UPLINK), 1, "goes on");
}
