/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "service-fixture.h"

TestSuite(services, .init = fixture_bpffs);

Test(services, one_id_and_one_range_stand_behind_every_address)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE) };
        struct weft_addr ips[] = { fixture_addr("198.51.100.7"), fixture_addr("203.0.113.7") };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service v, w;

        s.external_ip = (struct weft_addresses) { ips, 1 };
        s.load_balancer_ip = (struct weft_addresses) { ips + 1, 1 };
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        cr_assert_eq(v.flags, WEFT_SERVICE_NODE_PORT);
        v.flags = 0;
        w = get(t, "198.51.100.7", 80);
        cr_assert_arr_eq(&v, &w, sizeof(v));
        w = get(t, "203.0.113.7", 80);
        cr_assert_arr_eq(&v, &w, sizeof(v));
        cr_assert_neq(v.id, 0);
        cr_assert_eq(v.count, 2);
        cr_assert_eq(share(t, &v, "10.1.0.2"), 1);
        cr_assert_eq(fixture_slot(t, &v, 1, NULL).port, htons(8080));
        cr_assert_eq(fixture_slot(t, &v, 1, NULL).proto, IPPROTO_TCP);
        tables_close(t);
}

Test(services, an_address_has_the_backends_of_its_family)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("fd00::2", 1, BACKEND_DRAINING),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE) };
        struct weft_addr ips[] = { fixture_addr("198.51.100.7"), fixture_addr("fd00::80"),
                                   fixture_addr("fd00::81") };
        struct config_service s = service("web", b, 3);
        struct tables *t = fixture_open(4096);
        struct weft_service four, six, other;

        s.external_ip = (struct weft_addresses) { ips, 3 };
        set(t, &s);
        four = get(t, "198.51.100.7", 80);
        six = get(t, "fd00::80", 80);
        other = get(t, "fd00::81", 80);
        cr_assert_eq(four.id, six.id);
        cr_assert_eq(four.count, 2);
        cr_assert_eq(six.count, 1, "the only one of its family, though it is draining");
        cr_assert_eq(share(t, &six, "fd00::2"), 1);
        cr_assert_arr_eq(&six, &other, sizeof(six));
        tables_close(t);
}

Test(services, an_address_of_the_node_is_never_the_services_own)
{
        struct weft_addr ips[] = { fixture_addr("198.51.100.7"), fixture_addr("192.0.2.1") };
        struct config_service s = service("web", NULL, 0);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        s.external_ip = (struct weft_addresses) { ips, 2 };
        set(t, &s);
        cr_assert(fixture_service(t, "198.51.100.7", 0, 0, &v));
        cr_assert_eq(v.flags, WEFT_SERVICE_ADDRESS);
        cr_assert_eq(v.id, 0);
        cr_assert_not(fixture_service(t, "192.0.2.1", 0, 0, &v));
        (void) get(t, "192.0.2.1", 80);
        (void) get(t, "192.0.2.1", 30080);
        tables_close(t);
}

Test(services, an_address_of_two_services_is_one_until_both_are_gone)
{
        struct weft_addr ip = fixture_addr("198.51.100.7");
        struct config_service one = service("one", NULL, 0), two = service("two", NULL, 0);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        one.node_port = two.node_port = 0;
        one.external_ip = two.external_ip = (struct weft_addresses) { &ip, 1 };
        two.port = 443;
        set(t, &one);
        set(t, &two);
        set(t, &two);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 3);
        tables_del_service(t, "one");
        cr_assert(fixture_service(t, "198.51.100.7", 0, 0, &v));
        cr_assert(fixture_in_filter(t, "198.51.100.7", 0, 0));
        tables_del_service(t, "two");
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 0);
        tables_close(t);
}

Test(services, a_port_belongs_to_one_service)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE) };
        struct config_service one = service("one", b, 1), two = service("two", b, 1);
        struct tables *t = fixture_open(4096);
        struct weft_error error = {};

        set(t, &one);
        cr_assert_eq(tables_set_service(t, &two, &node, 1, &error), -EEXIST);
        cr_assert_not_null(strstr(error.text, "one"), "%s", error.text);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 1);
        two.node_port = 30081;
        set(t, &two);
        tables_close(t);
}

Test(services, exchange_their_ports_when_all_are_set_anew)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE) };
        struct config_service one = service("one", b, 1), two = service("two", NULL, 0);
        struct tables *t = fixture_open(4096);
        uint32_t id;

        two.node_port = 30081;
        set(t, &one);
        set(t, &two);
        id = get(t, "192.0.2.1", 30080).id;
        tables_services_begin(t);
        one.node_port = 30081;
        two.node_port = 30080;
        set(t, &one);
        set(t, &two);
        cr_assert_eq(get(t, "192.0.2.1", 30081).id, id);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 0);

        tables_services_begin(t);
        one.name = "renamed";
        set(t, &one);
        cr_assert_neq(get(t, "192.0.2.1", 30081).id, id);
        tables_del_service(t, "one");
        cr_assert_eq(get(t, "192.0.2.1", 30081).count, 1);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 4, "each port here and at other nodes");
        tables_close(t);
}

Test(services, an_address_given_by_name_goes_before_a_node_port)
{
        struct weft_addr ip = fixture_addr("192.0.2.1");
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE) };
        struct config_service ports = service("ports", NULL, 0), named = service("named", b, 1);
        struct tables *t = fixture_open(4096);

        named.port = 30080;
        named.node_port = 0;
        named.external_ip = (struct weft_addresses) { &ip, 1 };
        set(t, &ports);
        set(t, &named);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 1);
        set(t, &ports);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 1);

        tables_del_service(t, "named");
        set(t, &ports);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 0);
        tables_del_service(t, "ports");
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 0);
        tables_close(t);
}

Test(services, what_a_changed_service_has_no_more_goes)
{
        struct weft_addr ip = fixture_addr("198.51.100.7");
        struct config_service s = service("web", NULL, 0);
        struct tables *t = fixture_open(4096);
        struct weft_service v;

        s.external_ip = (struct weft_addresses) { &ip, 1 };
        set(t, &s);
        s.external_ip.n = 0;
        s.node_port = 30081;
        set(t, &s);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 2, "of this node, and of every node");
        cr_assert_not(fixture_service(t, "192.0.2.1", 30080, IPPROTO_TCP, &v));
        cr_assert_not(fixture_in_filter(t, "198.51.100.7", 0, 0));
        tables_close(t);
}

Test(services, a_cluster_ip_and_the_node_port_of_every_node_are_for_endpoints_alone)
{
        struct weft_addr inside = fixture_addr("10.96.0.10"),
                         outside = fixture_addr("198.51.100.7");
        struct config_service s = service("web", NULL, 0), other = service("other", NULL, 0);
        struct tables *t = fixture_open(4096);

        s.cluster_ip = (struct weft_addresses) { &inside, 1 };
        s.external_ip = (struct weft_addresses) { &outside, 1 };
        set(t, &s);
        cr_expect(get(t, "10.96.0.10", 80).flags & WEFT_SERVICE_CLUSTER_IP);
        cr_expect(get(t, "0.0.0.0", 30080).flags & WEFT_SERVICE_NODE_PORT);
        cr_expect_not(get(t, "198.51.100.7", 80).flags & WEFT_SERVICE_CLUSTER_IP);
        cr_expect_not(get(t, "192.0.2.1", 30080).flags & WEFT_SERVICE_CLUSTER_IP);
        cr_expect(get_address(t, "10.96.0.10").flags & WEFT_SERVICE_CLUSTER_IP);
        cr_expect_not(get_address(t, "198.51.100.7").flags & WEFT_SERVICE_CLUSTER_IP);

        other.port = 81;
        other.node_port = 30081;
        other.external_ip = (struct weft_addresses) { &inside, 1 };
        set(t, &other);
        cr_expect_not(get_address(t, "10.96.0.10").flags & WEFT_SERVICE_CLUSTER_IP,
                      "to another service it is an address for the outside");
        set(t, &s);
        cr_expect_not(get_address(t, "10.96.0.10").flags & WEFT_SERVICE_CLUSTER_IP);
        cr_expect(get(t, "10.96.0.10", 80).flags & WEFT_SERVICE_CLUSTER_IP);
        tables_close(t);
}

Test(services, without_backends_the_flag_says_what_to_do)
{
        struct config_service s = service("web", NULL, 0);
        struct tables *t = fixture_open(4096);

        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 0);
        cr_assert_eq(get(t, "192.0.2.1", 30080).flags, WEFT_SERVICE_NODE_PORT);
        s.no_backend = NO_BACKEND_DROP;
        set(t, &s);
        cr_assert_eq(get(t, "192.0.2.1", 30080).flags,
                     WEFT_SERVICE_NODE_PORT | WEFT_SERVICE_DROP_EMPTY);
        tables_close(t);
}

/* ---- backends ----------------------------------------------------------------------------- */

Test(services, that_share_a_backend_let_go_of_it_each_for_itself)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE) };
        struct config_service one = service("one", b, 2), two = service("two", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service v, w;
        uint32_t first, second;
        uint16_t number, other;

        two.node_port = 30081;
        set(t, &one);
        set(t, &two);
        v = get(t, "192.0.2.1", 30080);
        w = get(t, "192.0.2.1", 30081);
        number = fixture_slot(t, &v, 0, &first).number;
        other = fixture_slot(t, &w, 0, &second).number;
        cr_assert_neq(first, second);

        one.backends = b + 1;
        one.n_backends = 1;
        set(t, &one);
        cr_assert_eq(element(t, first).state, 1);
        cr_assert_neq(element(t, first).number, number, "the first service's flows are over");
        cr_assert_eq(element(t, second).state, 0);
        cr_assert_eq(element(t, second).number, other, "the second one's go on");
        tables_close(t);
}

Test(services, a_changed_list_keeps_the_indices_of_those_that_stay)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.4", 1, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service v, w;
        uint32_t gone, before, after;

        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        (void) fixture_slot(t, &v, 0, &gone);
        uint16_t number = fixture_slot(t, &v, 1, &before).number;

        s.backends = b + 1;
        set(t, &s);
        w = get(t, "192.0.2.1", 30080);
        cr_assert_neq(w.slots, v.slots, "a range in use is never written");
        cr_assert_eq(fixture_slot(t, &w, 0, &after).number, number);
        cr_assert_eq(after, before);
        cr_assert_eq(element(t, gone).state, 1);
        tables_close(t);
}

Test(services, an_index_that_comes_to_mean_another_backend_has_another_number)
{
        struct config_backend b = backend("10.1.0.2", 1, BACKEND_ACTIVE);
        struct config_service s = service("web", &b, 1);
        struct tables *t = fixture_open(4096);
        struct weft_service v;
        uint32_t index;
        uint16_t number;

        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        number = fixture_slot(t, &v, 0, &index).number;

        /* As if every other index had been used: the next one must be an old one. */
        t->backend_top = table_size(t, TABLE_BACKENDS);
        tables_del_service(t, "web");
        b = backend("10.1.0.9", 1, BACKEND_ACTIVE);
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        uint32_t again;
        struct weft_backend now = fixture_slot(t, &v, 0, &again);
        cr_assert_eq(again, index);
        cr_assert_eq(now.state, 0);
        cr_assert_neq(now.number, number);
        tables_close(t);
}

/* ---- slots -------------------------------------------------------------------------------- */

Test(services, slots_of_old_ranges_are_used_again_when_there_are_no_others)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1023, BACKEND_ACTIVE) };
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        uint32_t size = table_size(t, TABLE_SERVICE_SLOTS);

        for (uint32_t i = 0; i < 3 * size / 1024; i++) {
                b[0].port = 8080 + i % 2;
                set(t, &s);
        }
        cr_assert_eq(get(t, "192.0.2.1", 30080).count, 1024);
        tables_close(t);
}

Test(services, a_full_slot_table_refuses_and_leaves_the_rest_alone)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 1023, BACKEND_ACTIVE) };
        struct tables *t = fixture_open(4096);
        uint32_t n = table_size(t, TABLE_SERVICE_SLOTS) / 1024;
        struct weft_error error = {};
        struct config_service s;
        char name[16];

        for (uint32_t i = 0; i < n; i++) {
                (void) snprintf(name, sizeof(name), "s%u", i);
                s = service(name, b, 2);
                s.node_port = 1000 + i;
                set(t, &s);
        }

        s = service("last", b, 2);
        cr_assert_eq(tables_set_service(t, &s, &node, 1, &error), -ENOSPC);
        cr_assert_not_null(strstr(error.text, "last"), "%s", error.text);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 2 * n);
        tables_del_service(t, "s0");
        set(t, &s);
        tables_close(t);
}

Test(services, a_full_table_refuses_a_service_whole)
{
        struct weft_addr ips[3] = { fixture_addr("198.51.100.1"), fixture_addr("198.51.100.2"),
                                    fixture_addr("198.51.100.3") };
        struct config_service s = service("web", NULL, 0);
        struct tables *t = fixture_open(4096);
        struct weft_error error = {};
        struct weft_service v = {};
        uint32_t size = table_size(t, TABLE_SERVICES);

        for (uint32_t i = 0; i < size - 3; i++) {
                struct weft_service_key key = { .addr = { { 1, i, 0, 0 } }, .port = 1, .proto = 6 };

                cr_assert_eq(bpf_map_update_elem(tables_fd(t, "services"), &key, &v, 0), 0);
        }
        s.node_port = 0;
        s.external_ip = (struct weft_addresses) { ips, 3 };
        cr_assert_eq(tables_set_service(t, &s, &node, 1, &error), -E2BIG, "%s", error.text);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), size - 3);
        cr_assert_not(fixture_in_filter(t, "198.51.100.3", 80, IPPROTO_TCP));

        s.external_ip.n = 1;
        set(t, &s);
        tables_close(t);
}

/* ---- taking over -------------------------------------------------------------------------- */

Test(services, a_successor_keeps_ids_ranges_backends_and_numbers)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE),
                                      backend("10.1.0.3", 2, BACKEND_ACTIVE) };
        struct weft_addr ip = fixture_addr("198.51.100.7");
        struct config_service s = service("web", b, 2);
        struct tables *t = fixture_open(4096);
        struct weft_service before, after;
        struct weft_backend was, is;
        uint32_t index, again;

        s.external_ip = (struct weft_addresses) { &ip, 1 };
        set(t, &s);
        before = get(t, "198.51.100.7", 80);
        was = fixture_slot(t, &before, 0, &index);
        tables_close(t);

        t = fixture_open(4096);
        after = get(t, "198.51.100.7", 80);
        cr_assert_arr_eq(&before, &after, sizeof(before));
        set(t, &s);
        tables_settle(t);
        after = get(t, "198.51.100.7", 80);
        cr_assert_arr_eq(&before, &after, sizeof(before));
        is = fixture_slot(t, &after, 0, &again);
        cr_assert_eq(index, again);
        cr_assert_arr_eq(&was, &is, sizeof(was));
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 4);
        tables_close(t);
}

Test(services, a_successor_never_gives_out_what_still_serves)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE) };
        struct config_backend c[] = { backend("10.1.0.3", 1, BACKEND_ACTIVE) };
        struct config_service old = service("old", b, 1), new = service("new", c, 1);
        struct tables *t = fixture_open(4096);
        struct weft_service was, is, fresh;

        set(t, &old);
        was = get(t, "192.0.2.1", 30080);
        tables_close(t);

        t = fixture_open(4096);
        new.node_port = 30081;
        set(t, &new);
        is = get(t, "192.0.2.1", 30080);
        fresh = get(t, "192.0.2.1", 30081);
        cr_assert_arr_eq(&was, &is, sizeof(was));
        cr_assert_eq(share(t, &is, "10.1.0.2"), 1);
        cr_assert_neq(fresh.id, is.id);
        cr_assert_neq(fresh.slots, is.slots);
        tables_close(t);
}

Test(services, what_nobody_sets_again_goes_with_its_backends)
{
        struct config_backend b[] = { backend("10.1.0.2", 1, BACKEND_ACTIVE) };
        struct weft_addr ip = fixture_addr("198.51.100.7");
        struct config_service s = service("web", b, 1);
        struct tables *t = fixture_open(4096);
        struct weft_service v;
        uint32_t index;
        uint16_t number;

        s.load_balancer_ip = (struct weft_addresses) { &ip, 1 };
        set(t, &s);
        v = get(t, "192.0.2.1", 30080);
        number = fixture_slot(t, &v, 0, &index).number;
        tables_close(t);

        t = fixture_open(4096);
        tables_settle(t);
        cr_assert_eq(fixture_count(t, TABLE_SERVICES), 0);
        cr_assert_eq(element(t, index).state, 1);
        cr_assert_neq(element(t, index).number, number);
        cr_assert_not(fixture_in_filter(t, "198.51.100.7", 80, IPPROTO_TCP));
        tables_close(t);
}
