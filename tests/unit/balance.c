/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What of a service says which backend a connection gets. */

#include "service-fixture.h"

TestSuite(balance, .init = fixture_bpffs);

/* ---- choice ------------------------------------------------------------------------------- */

Test(balance, weights_are_slots_in_lowest_terms)
{
        struct config_backend b[] = { backend("10.1.0.2", 200, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 300, BACKEND_ACTIVE),
                                      backend("10.1.0.4", 0, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 3);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.count, 5);
        cr_assert_eq(share(t, &v, "10.1.0.2"), 2);
        cr_assert_eq(share(t, &v, "10.1.0.3"), 3);
        tables_close(t);
}

Test(balance, great_weights_are_scaled_and_nobody_is_left_out)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1000003, BACKEND_ACTIVE),
                                      backend("10.1.0.4", 500001, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 3);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert(v.count > 900 && v.count <= 1027, "%u", v.count);
        cr_assert_eq(share(t, &v, "10.1.0.2"), 1);
        cr_assert_float_eq((double) share(t, &v, "10.1.0.3") / share(t, &v, "10.1.0.4"), 2.0, 0.02);
        tables_close(t);
}

Test(balance, draining_backends_are_chosen_only_where_none_is_active)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_DRAINING),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.4", 1, BACKEND_MAINTENANCE) };
        struct config_service s = service("web", b, 3);
        struct tables *t = fixture_open(4096);
        struct weft_service v;
        uint32_t index;

        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.count, 1);
        cr_assert_eq(share(t, &v, "10.1.0.3"), 1);

        b[1].state = BACKEND_MAINTENANCE;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.count, 1);
        cr_assert_eq(share(t, &v, "10.1.0.2"), 1);
        cr_assert_eq(fixture_slot(t, &v, 0, &index).state, 0);

        b[0].state = BACKEND_MAINTENANCE;
        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 0);
        cr_assert_eq(element(t, index).state, 0, "flows of a backend in maintenance stay");
        tables_close(t);
}

Test(balance, with_local_traffic_have_the_backends_of_this_node_apart)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 2, BACKEND_DRAINING),
                                      backend("10.1.0.4", 1, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 3);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        b[1].local = b[2].local = true;
        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).local, 0);

        s.external = TRAFFIC_LOCAL;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.flags, WEFT_SERVICE_NODE_PORT | WEFT_SERVICE_EXTERNAL_LOCAL);
        cr_assert_eq(v.count, 2);
        cr_assert_eq(v.local, 1);
        cr_assert_eq(fixture_slot(t, &v, 2, NULL).addr.w[3], b[2].addr.w[3]);

        b[2].state = BACKEND_MAINTENANCE;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.count, 1, "the cluster's has an active one");
        cr_assert_eq(v.local, 1, "this node's has only the draining one");
        cr_assert_eq(fixture_slot(t, &v, 1, NULL).addr.w[3], b[1].addr.w[3]);
        tables_close(t);
}

Test(balance, for_least_connections_have_each_backend_once_with_its_weight)
{
        struct config_backend b[] = { backend("10.1.0.2", 20, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 30, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service_slot slot;
        struct weft_service v;
        uint32_t at;

        s.algorithm = WEFT_LEAST_CONNECTIONS;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.algorithm, WEFT_LEAST_CONNECTIONS);
        cr_assert_eq(v.count, 2);
        at = v.slots + 1;
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "service_slots"), &at, &slot), 0);
        cr_assert_eq(slot.weight, 30);
        tables_close(t);
}

/* ---- Maglev ------------------------------------------------------------------------------- */

#define DEFAULT_SIZE 6 /* of CONFIG_MAGLEV_SIZES: 16381 */

/* How many places of the service's table lead to the address. */
static uint32_t places(struct tables *t, const struct weft_service *v, const char *addr)
{
        struct weft_addr a = fixture_addr(addr);
        uint32_t n = 0;

        for (uint32_t i = 0; i < v->maglev_size; i++) {
                struct weft_maglev_key key = { v->maglev, i / WEFT_MAGLEV_PIECE };
                static struct weft_maglev_piece piece;
                static uint32_t read = UINT32_MAX;

                if (read != key.piece)
                        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "maglev"), &key, &piece), 0);
                read = key.piece;

                struct weft_backend b = element(t, piece.backend[i % WEFT_MAGLEV_PIECE]);
                n += memcmp(&b.addr, &a, sizeof(a)) == 0;
        }
        return n;
}

Test(balance, of_maglev_have_a_lookup_table_of_their_active_backends)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 3, BACKEND_ACTIVE),
                                      backend("10.1.0.4", 1, BACKEND_DRAINING),
                                      backend("fd00::2", 1, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 4);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        s.algorithm = WEFT_MAGLEV;
        s.maglev_size = DEFAULT_SIZE;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.maglev_size, 16381);
        cr_assert_eq(fixture_count(t, TABLE_MAGLEV), 34 * 2, "one for each family");
        cr_assert_eq(places(t, &v, "10.1.0.2") + places(t, &v, "10.1.0.3"), 16381);
        cr_assert_float_eq((double) places(t, &v, "10.1.0.3") / places(t, &v, "10.1.0.2"), 3, 0.01);
        tables_close(t);
}

Test(balance, keep_their_lookup_table_while_nothing_changes_in_it)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 3, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service v, w;

        s.algorithm = WEFT_MAGLEV;
        s.maglev_size = DEFAULT_SIZE;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        s.no_backend = NO_BACKEND_DROP;
        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).maglev, v.maglev);
        tables_close(t);

        t = fixture_open(4096);
        set(t, &s);
        tables_settle(t);
        cr_assert_eq(get(t, "192.0.2.1", 30080).maglev, v.maglev, "over a restart, too");
        cr_assert_eq(fixture_count(t, TABLE_MAGLEV), 34);

        b[1].weight = 2;
        set(t, &s);
        w = get(t, "192.0.2.1", 30080);
        cr_assert_neq(w.maglev, v.maglev);
        s.algorithm = WEFT_RANDOM;
        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).maglev, 0);
        tables_close(t);

        t = fixture_open(4096);
        tables_settle(t);
        cr_assert_eq(fixture_count(t, TABLE_MAGLEV), 0);
        tables_close(t);
}

Test(balance, give_the_memory_of_old_lookup_tables_back)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 3, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);

        s.algorithm = WEFT_MAGLEV;
        s.maglev_size = DEFAULT_SIZE;
        for (int i = 0; i < 100; i++) {
                b[0].weight = 1 + i;
                set(t, &s);
                cr_assert_leq(fixture_count(t, TABLE_MAGLEV), 34 * 17);
        }
        tables_close(t);
}

/* ---- affinity and source ranges ----------------------------------------------------------- */

static uint32_t member(struct tables *t, const struct weft_service *v, uint32_t backend)
{
        struct weft_member_key key = { v->id, backend };
        uint32_t value = 0;

        (void) bpf_map_lookup_elem(tables_fd(t, "members"), &key, &value);
        return value;
}

Test(balance, with_affinity_say_which_backends_a_client_may_come_back_to)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service v;
        uint32_t first, second;

        b[1].local = true;
        set(t, &s);
        cr_assert_eq(fixture_count(t, TABLE_MEMBERS), 0);
        s.affinity = 10000;
        s.external = TRAFFIC_LOCAL;
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        (void) fixture_slot(t, &v, 0, &first);
        (void) fixture_slot(t, &v, 1, &second);
        cr_assert_eq(v.affinity, 10 * fixture_hz());
        cr_assert_eq(member(t, &v, first), WEFT_MEMBER);
        cr_assert_eq(member(t, &v, second), WEFT_MEMBER | WEFT_MEMBER_LOCAL);

        b[0].state = BACKEND_DRAINING;
        set(t, &s);
        cr_assert_eq(member(t, &v, first), 0);
        tables_close(t);

        t = fixture_open(4096);
        set(t, &s);
        tables_settle(t);
        cr_assert_eq(member(t, &v, second), WEFT_MEMBER | WEFT_MEMBER_LOCAL);
        tables_del_service(t, "web");
        cr_assert_eq(fixture_count(t, TABLE_MEMBERS), 0);
        tables_close(t);
}

Test(balance, have_their_source_ranges_each_for_itself)
{
        struct weft_prefix all = { fixture_addr("10.0.0.0"), 96 + 8 };
        struct weft_prefix two[] = { { fixture_addr("10.0.0.0"), 96 + 8 },
                                     { fixture_addr("fd00::"), 16 } };
        struct config_service one = service("one", NULL, 0), other = service("other", NULL, 0);
        struct tables *t = fixture_open(4096);

        one.source_range = (struct weft_prefixes) { &all, 1 };
        other.source_range = (struct weft_prefixes) { two, 2 };
        other.node_port = 30081;
        set(t, &one);
        set(t, &other);
        cr_assert_eq(get(t, "192.0.2.1", 30080).flags,
                     WEFT_SERVICE_NODE_PORT | WEFT_SERVICE_SOURCE_RANGE);
        cr_assert_eq(fixture_count(t, TABLE_SOURCE_RANGES), 3);
        other.source_range.n = 1;
        set(t, &other);
        cr_assert_eq(fixture_count(t, TABLE_SOURCE_RANGES), 2);
        tables_close(t);

        t = fixture_open(4096);
        set(t, &one);
        tables_settle(t);
        cr_assert_eq(fixture_count(t, TABLE_SOURCE_RANGES), 1);
        one.source_range.n = 0;
        set(t, &one);
        cr_assert_eq(fixture_count(t, TABLE_SOURCE_RANGES), 0);
        tables_close(t);
}
