/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "tables-fixture.h"

TestSuite(tables, .init = fixture_bpffs);

static uint32_t entries(int fd)
{
        struct bpf_map_info info = {};
        uint32_t size = sizeof(info);

        cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
        return info.max_entries;
}

static const struct weft_nexthop *hop(struct tables *t, uint32_t i)
{
        return table_at(t, TABLE_NEXTHOPS, i);
}

static struct table_endpoint web(const struct weft_addr *addrs, size_t n)
{
        return (struct table_endpoint) {
                .addrs = addrs,
                .n_addrs = n,
                .ifindex = 7,
                .identity = 1001,
                .mac = { 2, 0, 0, 0, 0, 1 },
                .gateway_mac = { 2, 0, 0, 0, 0, 2 },
                .has_peer = true,
        };
}

static void set(struct tables *t, const char *name, const struct table_endpoint *e)
{
        struct weft_error error = {};

        cr_assert_eq(tables_set_endpoint(t, name, e, &error), 0, "%s", error.text);
}

/* ---- maps --------------------------------------------------------------------------------- */

Test(tables, are_pinned_with_the_size_asked_for)
{
        struct tables *t = fixture_open(4096);
        int fd = bpf_obj_get(BPFFS "/maps/flows6");

        cr_assert_geq(fd, 0);
        cr_assert_eq(entries(fd), 4096);
        cr_assert_eq(entries(tables_fd(t, "half_open4")), 1024);
        cr_assert_eq(tables_fd(t, "scratch"), -ENOENT);
        cr_assert_eq(tables_fd(t, "nosuch"), -ENOENT);
        tables_close(t);
}

Test(tables, size_by_ram_is_a_power_of_two_within_bounds)
{
        struct tables *t = fixture_open(0);
        uint32_t n = entries(tables_fd(t, "flows4"));

        cr_assert(n >= 16384 && n <= 1048576 && (n & (n - 1)) == 0, "%u", n);
        cr_assert_gt(tables_memory(t),
                     (size_t) n * (sizeof(struct weft_flow4) + sizeof(struct weft_flow6)));
        tables_close(t);
}

Test(tables, a_place_that_is_no_bpffs_is_refused_with_the_mount_command)
{
        struct tables_settings s = { .bpffs = "/tmp", .hz = 250 };
        struct weft_error error = {};
        struct tables *t = NULL;

        cr_assert_eq(fixture_try(&s, &t, &error), -EMEDIUMTYPE);
        cr_assert_not_null(strstr(error.text, "mount -t bpf"), "%s", error.text);
}

Test(tables, a_successor_finds_what_is_there_and_keeps_the_size)
{
        struct tables *t = fixture_open(4096);
        uint32_t ifindex = 3;
        struct weft_link link = { .mtu = 1400 };

        cr_assert_eq(tables_set_link(t, ifindex, &link), 0);
        tables_close(t);

        t = fixture_open(65536);
        link.mtu = 0;
        cr_assert_eq(entries(tables_fd(t, "flows4")), 4096);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "links"), &ifindex, &link), 0);
        cr_assert_eq(link.mtu, 1400);
        tables_close(t);
}

Test(tables, a_pinned_map_of_another_layout_is_refused_by_name)
{
        struct tables_settings s = { .bpffs = BPFFS, .hz = 250 };
        struct weft_error error = {};
        struct tables *t = NULL;
        int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "links", 4, 16, 256, NULL);

        cr_assert_eq(mkdir(BPFFS, 0700), 0);
        cr_assert_eq(mkdir(BPFFS "/maps", 0700), 0);
        cr_assert_eq(bpf_obj_pin(fd, BPFFS "/maps/links"), 0);

        cr_assert_eq(fixture_try(&s, &t, &error), -EUCLEAN);
        cr_assert_not_null(strstr(error.text, "links"), "%s", error.text);
        cr_assert_not_null(strstr(error.text, "value 16"), "%s", error.text);
        cr_assert_not_null(strstr(error.text, "value 40"), "%s", error.text);
}

Test(tables, an_object_that_shares_them_counts_in_them)
{
        struct tables *t = fixture_open(4096);
        uint64_t sum = 0, *p = &sum;

        (void) fixture_run(t, "count_event");
        (void) fixture_run(t, "count_event");

        void add(void *data, const struct count_view *v)
        {
                if (strcmp(v->what, "COMMIT") == 0)
                        **(uint64_t **) data += v->packets;
        }
        tables_each_event(t, add, &p);
        cr_assert_eq(sum, 2);
        tables_close(t);
}

Test(tables, drops_are_shown_by_reason_module_and_hook)
{
        struct tables *t = fixture_open(4096);
        struct weft_drop_key key = { .reason = WEFT_DROP_SPOOFED,
                                     .module = 3,
                                     .hook = WEFT_FROM_UPLINK };
        struct weft_count counts[libbpf_num_possible_cpus()];
        struct count_view seen = {};

        for (size_t i = 0; i < ELEMENTS(counts); i++)
                counts[i] = (struct weft_count) { 2, 100 };
        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "drops"), &key, counts, 0), 0);

        void keep(void *data, const struct count_view *v)
        {
                *(struct count_view *) data = *v;
        }
        tables_each_drop(t, keep, &seen);
        cr_assert_str_eq(seen.what, "SPOOFED");
        cr_assert_eq(seen.module, 3);
        cr_assert_eq(seen.hook, WEFT_FROM_UPLINK);
        cr_assert_eq(seen.packets, 2 * ELEMENTS(counts));
        cr_assert_eq(seen.bytes, 100 * ELEMENTS(counts));
        tables_close(t);
}

Test(tables, moving_the_epoch_is_seen_in_the_map)
{
        struct tables *t = fixture_open(4096);
        struct weft_world w;
        uint32_t zero = 0;

        tables_move_epoch(t);
        tables_move_epoch(t);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "world"), &zero, &w), 0);
        cr_assert_eq(w.epoch, 2);
        tables_close(t);
}

/* ---- endpoints ---------------------------------------------------------------------------- */

Test(tables, an_endpoint_has_a_filled_slot_and_an_entry_for_each_address)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr addrs[] = { fixture_addr("10.1.0.2"), fixture_addr("fd00::2") };
        struct table_endpoint e = web(addrs, 2);
        struct weft_endpoint four, six;

        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &four) && fixture_endpoint(t, "fd00::2", &six));
        cr_assert_eq(four.nexthop, six.nexthop);
        cr_assert(four.nexthop > 0 && four.nexthop < WEFT_NEXTHOP_OWN);
        cr_assert_eq(four.ifindex, 7);
        cr_assert_eq(four.identity, 1001);

        cr_assert_eq(hop(t, four.nexthop)->ifindex, 7);
        cr_assert_eq(hop(t, four.nexthop)->flags, WEFT_NEXTHOP_PEER);
        cr_assert_gt((int64_t) (hop(t, four.nexthop)->fresh - tables_jiffies(t->hz)),
                     INT64_MAX / 2);
        cr_assert_arr_eq(hop(t, four.nexthop)->dmac, e.mac, 6);
        cr_assert_arr_eq(hop(t, four.nexthop)->smac, e.gateway_mac, 6);
        tables_close(t);
}

Test(tables, an_endpoint_is_reached_by_its_device_where_that_is_asked_for_and_no_flow_is_renewed)
{
        struct tables *t = fixture_open(64);
        struct weft_addr addrs[] = { fixture_addr("10.1.0.2") };
        struct table_endpoint e = web(addrs, 1);
        struct weft_endpoint four;
        uint32_t number;

        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &four));
        number = hop(t, four.nexthop)->number;
        e.by_device = true;
        set(t, "web", &e);
        cr_assert_eq(hop(t, four.nexthop)->flags, WEFT_NEXTHOP_MARK);
        e.by_device = false;
        set(t, "web", &e);
        cr_assert_eq(hop(t, four.nexthop)->flags, WEFT_NEXTHOP_PEER);
        cr_assert_eq(hop(t, four.nexthop)->number, number);

        /* whose link-layer address is not known, the stack reaches */
        memset(e.mac, 0, sizeof(e.mac));
        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &four));
        cr_assert_gt(four.nexthop, 0);
        e.by_device = true;
        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &four));
        cr_assert_eq(four.nexthop, 0);
        tables_close(t);
}

Test(tables, setting_the_same_endpoint_again_moves_nothing)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr addr = fixture_addr("10.1.0.2");
        struct table_endpoint e = web(&addr, 1);
        struct weft_endpoint v;
        uint32_t number;

        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &v));
        number = hop(t, v.nexthop)->number;
        set(t, "web", &e);
        cr_assert_eq(hop(t, v.nexthop)->number, number);

        e.mac[5] = 9;
        set(t, "web", &e);
        cr_assert_neq(hop(t, v.nexthop)->number, number);
        cr_assert_eq(hop(t, v.nexthop)->dmac[5], 9);
        tables_close(t);
}

Test(tables, an_endpoint_that_loses_an_address_loses_its_entry)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr addrs[] = { fixture_addr("10.1.0.2"), fixture_addr("fd00::2") };
        struct table_endpoint e = web(addrs, 2);
        struct weft_endpoint v;

        set(t, "web", &e);
        e.n_addrs = 1;
        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &v));
        cr_assert_not(fixture_endpoint(t, "fd00::2", &v));
        cr_assert_not(fixture_in_filter(t, "fd00::2", 0, 0));
        tables_close(t);
}

Test(tables, a_removed_endpoint_leaves_a_free_slot_with_a_moved_number)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr addr = fixture_addr("10.1.0.2");
        struct table_endpoint e = web(&addr, 1);
        struct weft_endpoint v, gone;
        uint32_t number;

        set(t, "web", &e);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &v));
        number = hop(t, v.nexthop)->number;
        tables_del_endpoint(t, "web");
        cr_assert_not(fixture_endpoint(t, "10.1.0.2", &gone));
        cr_assert_eq(hop(t, v.nexthop)->ifindex, 0);
        cr_assert_neq(hop(t, v.nexthop)->number, number);
        tables_del_endpoint(t, "web");
        tables_close(t);
}

Test(tables, an_address_belongs_to_one_endpoint)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr addr = fixture_addr("10.1.0.2");
        struct table_endpoint e = web(&addr, 1);
        struct weft_error error = {};

        set(t, "web", &e);
        cr_assert_eq(tables_set_endpoint(t, "other", &e, &error), -EEXIST);
        cr_assert_not_null(strstr(error.text, "web"), "%s", error.text);
        tables_close(t);
}

Test(tables, a_successor_gives_an_endpoint_its_old_slot_and_removes_what_nobody_wants)
{
        struct tables *t = fixture_open(4096);
        struct weft_addr one = fixture_addr("10.1.0.2"), two = fixture_addr("10.1.0.3");
        struct table_endpoint first = web(&one, 1), second = web(&two, 1);
        struct weft_endpoint v1, v2, now;
        uint32_t number;

        set(t, "first", &first);
        set(t, "second", &second);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &v1) && fixture_endpoint(t, "10.1.0.3", &v2));
        number = hop(t, v2.nexthop)->number;
        tables_close(t);

        t = fixture_open(4096);
        set(t, "second", &second);
        cr_assert(fixture_endpoint(t, "10.1.0.2", &now), "gone before tables_settle()");
        tables_settle(t);
        cr_assert_not(fixture_endpoint(t, "10.1.0.2", &now));
        cr_assert_not(fixture_in_filter(t, "10.1.0.2", 0, 0));
        cr_assert_eq(hop(t, v1.nexthop)->ifindex, 0);
        cr_assert(fixture_endpoint(t, "10.1.0.3", &now));
        cr_assert_eq(now.nexthop, v2.nexthop);
        cr_assert_eq(hop(t, v2.nexthop)->number, number);
        tables_close(t);
}

Test(tables, no_slot_is_given_to_two_endpoints)
{
        struct tables *t = fixture_open(4096);
        struct weft_error error = {};
        uint32_t i;
        int r = 0;

        for (i = 0; r == 0 && i < WEFT_NEXTHOP_OWN; i++) {
                struct weft_addr addr = { { 0, 0, 0, i + 1 } };
                struct table_endpoint e = web(&addr, 1);
                char name[16];

                (void) snprintf(name, sizeof(name), "e%u", i);
                r = tables_set_endpoint(t, name, &e, &error);
        }
        cr_assert_eq(r, -ENOSPC);
        cr_assert_eq(i, WEFT_NEXTHOP_OWN);
        cr_assert_eq(fixture_count(t, TABLE_ENDPOINTS), WEFT_NEXTHOP_OWN - 1);

        tables_del_endpoint(t, "e100");
        struct weft_addr addr = fixture_addr("10.1.0.2");
        struct table_endpoint e = web(&addr, 1);
        set(t, "late", &e);
        tables_close(t);
}

/* ---- links, next hops, peers -------------------------------------------------------------- */

static uint32_t fill_hop(struct tables *t, uint32_t i, uint32_t ifindex, const char *gateway)
{
        struct weft_nexthop n = {
                .ifindex = ifindex,
                .number = 5,
                .gateway = fixture_addr(gateway),
                .dmac = { 1, 1, 1, 1, 1, 1 },
                .smac = { 2, 2, 2, 2, 2, 2 },
        };

        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "nexthops"), &i, &n, 0), 0);
        return i;
}

Test(tables, a_neighbour_moves_the_address_of_its_next_hops_and_nothing_else)
{
        struct tables *t = fixture_open(4096);
        uint32_t its = fill_hop(t, WEFT_NEXTHOP_OWN, 3, "192.0.2.1");
        uint32_t other = fill_hop(t, WEFT_NEXTHOP_OWN + 1, 4, "192.0.2.1");
        uint32_t last = fill_hop(t, WEFT_NEXTHOPS - 1, 3, "192.0.2.1");
        struct weft_addr gateway = fixture_addr("192.0.2.1");

        tables_neighbour(t, 3, &gateway, (uint8_t[6]) { 9, 9, 9, 9, 9, 9 });
        cr_assert_arr_eq(hop(t, its)->dmac, ((uint8_t[6]) { 9, 9, 9, 9, 9, 9 }), 6);
        cr_assert_arr_eq(hop(t, its)->smac, ((uint8_t[6]) { 2, 2, 2, 2, 2, 2 }), 6);
        cr_assert_eq(hop(t, its)->number, 5);
        cr_assert_eq(hop(t, last)->dmac[0], 9);
        cr_assert_eq(hop(t, other)->dmac[0], 1);
        tables_close(t);
}

Test(tables, a_removed_link_takes_its_next_hops_along)
{
        struct tables *t = fixture_open(4096);
        uint32_t its = fill_hop(t, WEFT_NEXTHOP_OWN + 5, 3, "192.0.2.1");
        uint32_t other = fill_hop(t, WEFT_NEXTHOP_OWN + 6, 4, "192.0.2.1");
        struct weft_link link = { .mtu = 1500 };
        uint32_t ifindex = 3;

        cr_assert_eq(tables_set_link(t, ifindex, &link), 0);
        tables_del_link(t, ifindex);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "links"), &ifindex, &link), -ENOENT);
        cr_assert_eq(hop(t, its)->ifindex, 0);
        cr_assert_eq(hop(t, its)->number, 6);
        cr_assert_eq(hop(t, other)->ifindex, 4);
        tables_close(t);
}

Test(tables, a_changed_peer_moves_its_number_and_an_unwanted_one_goes)
{
        struct tables *t = fixture_open(4096);
        struct weft_prefix a = { fixture_addr("10.2.0.0"), 120 },
                           b = { fixture_addr("10.3.0.0"), 120 };
        struct weft_peer peer = { .node = fixture_addr("192.0.2.2"), .identity = 6 }, got;
        struct weft_peer_key key = { .prefixlen = 128, .addr = fixture_addr("10.2.0.9") };

        cr_assert_eq(tables_set_peer(t, &a, &peer), 0);
        cr_assert_eq(tables_set_peer(t, &b, &peer), 0);
        cr_assert_eq(tables_set_peer(t, &a, &peer), 0);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "peers"), &key, &got), 0);
        cr_assert_eq(got.number, 0);

        peer.node = fixture_addr("192.0.2.3");
        cr_assert_eq(tables_set_peer(t, &a, &peer), 0);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "peers"), &key, &got), 0);
        cr_assert_eq(got.number, 1);
        tables_close(t);

        t = fixture_open(4096);
        cr_assert_eq(tables_set_peer(t, &b, &peer), 0);
        tables_settle(t);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "peers"), &key, &got), -ENOENT);
        cr_assert_eq(fixture_count(t, TABLE_PEERS), 1);
        tables_del_peer(t, &b);
        cr_assert_eq(fixture_count(t, TABLE_PEERS), 0);
        tables_close(t);
}

Test(tables, our_jiffies_are_the_kernels)
{
        struct tables *t = fixture_open(4096);
        uint32_t kernel = fixture_run(t, "read_jiffies"), ours = tables_jiffies(t->hz);

        cr_assert_lt((uint32_t) abs((int32_t) (kernel - ours)), t->hz);
        tables_close(t);
}
