/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "tables-fixture.h"

TestSuite(collect, .init = fixture_bpffs);

enum { PAST = -100, AHEAD = 100 }; /* seconds from now */

static uint64_t when(const struct tables *t, int seconds)
{
        return tables_jiffies(t->hz) + (int64_t) seconds * t->hz;
}

/* Connection n of 10.0.0.1 with 10.0.0.2, translated to 10.0.0.9. */
static struct weft_key4 key4(uint16_t n, bool reply)
{
        uint32_t client = inet_addr("10.0.0.1"), service = inet_addr("10.0.0.2");
        uint32_t backend = inet_addr("10.0.0.9");

        return (struct weft_key4) { .saddr = reply ? backend : client,
                                    .daddr = reply ? client : service,
                                    .sport = reply ? htons(8080) : htons(n),
                                    .dport = reply ? htons(n) : htons(80),
                                    .proto = IPPROTO_TCP,
                                    .side = WEFT_SIDE_UPLINK };
}

/* One direction of it. */
static void put4(struct tables *t, uint16_t n, bool reply, int deadline, int created)
{
        struct weft_key4 other = key4(n, !reply);
        struct weft_flow4 f = {
                .f = { .deadline = when(t, deadline),
                       .created = when(t, created),
                       .partner_side = WEFT_SIDE_UPLINK,
                       .flags = reply ? WEFT_FLOW_REPLY : 0,
                       .sport = other.dport,
                       .dport = other.sport },
                .saddr = other.daddr,
                .daddr = other.saddr,
                .key = key4(n, reply),
        };

        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "flows4"), &f.key, &f, BPF_ANY), 0);
}

/* What put4() put becomes a flow of a backend, in this state. */
static void change4(struct tables *t, uint16_t n, bool reply, uint32_t backend,
                    enum weft_flow_state state)
{
        struct weft_key4 key = key4(n, reply);
        struct weft_flow4 f;

        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "flows4"), &key, &f), 0);
        f.f.backend = backend;
        f.f.backend_number = 7;
        f.f.state = state;
        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "flows4"), &key, &f, 0), 0);
}

static void put6(struct tables *t, uint16_t n, bool reply, int deadline)
{
        struct weft_addr a = fixture_addr("fd00::1"), b = fixture_addr("fd00::2");
        struct weft_flow6 f = {
                .f = { .deadline = when(t, deadline),
                       .created = when(t, PAST),
                       .partner_side = WEFT_SIDE_UPLINK,
                       .sport = reply ? htons(80) : htons(n),
                       .dport = reply ? htons(n) : htons(80) },
                .saddr = reply ? b : a,
                .daddr = reply ? a : b,
        };

        f.key = (struct weft_key6) { .saddr = f.saddr,
                                     .daddr = f.daddr,
                                     .sport = f.f.sport,
                                     .dport = f.f.dport,
                                     .proto = IPPROTO_TCP,
                                     .side = WEFT_SIDE_UPLINK };
        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "flows6"), &f.key, &f, BPF_ANY), 0);
}

static void put_pair(struct tables *t, uint16_t n, int forward, int reply)
{
        put4(t, n, true, reply, PAST);
        put4(t, n, false, forward, PAST);
}

static size_t pass(struct tables *t, size_t budget)
{
        size_t freed = 0;
        bool done = false;

        for (unsigned i = 0; !done; i++) {
                cr_assert_lt(i, 10000, "the pass does not end");
                freed += tables_collect(t, budget, &done);
        }
        return freed;
}

Test(collect, frees_pairs_of_which_both_are_over)
{
        struct tables *t = fixture_open(4096);

        put_pair(t, 1, PAST, PAST);
        put_pair(t, 2, PAST, AHEAD);
        put_pair(t, 3, AHEAD, PAST);
        put_pair(t, 4, AHEAD, AHEAD);
        put6(t, 1, true, PAST);
        put6(t, 1, false, PAST);
        put6(t, 2, true, AHEAD);
        put6(t, 2, false, PAST);
        cr_assert_eq(pass(t, 100), 4);
        cr_assert_eq(fixture_count(t, TABLE_FLOWS4), 6);
        cr_assert_eq(fixture_count(t, TABLE_FLOWS6), 2);
        cr_assert_eq(pass(t, 100), 0);
        tables_close(t);
}

Test(collect, leaves_a_young_reply_without_its_twin_alone)
{
        struct tables *t = fixture_open(4096);

        put4(t, 1, true, AHEAD, 0);
        cr_assert_eq(pass(t, 100), 0);
        put4(t, 1, true, AHEAD, -10);
        cr_assert_eq(pass(t, 100), 1);
        tables_close(t);
}

Test(collect, takes_an_entry_for_alone_whose_partner_has_gone_over_to_another)
{
        struct tables *t = fixture_open(4096);
        uint32_t client = inet_addr("10.0.0.1");
        struct weft_key4 key = { .saddr = client,
                                 .daddr = inet_addr("10.0.0.2"),
                                 .sport = htons(1),
                                 .dport = htons(80),
                                 .proto = IPPROTO_TCP,
                                 .side = WEFT_SIDE_UPLINK };
        struct weft_flow4 f;

        put_pair(t, 1, AHEAD, AHEAD);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "flows4"), &key, &f), 0);
        f.daddr = inet_addr("10.0.0.10");
        f.f.created = when(t, 0);
        cr_assert_eq(bpf_map_update_elem(tables_fd(t, "flows4"), &key, &f, BPF_EXIST), 0);

        cr_assert_eq(pass(t, 100), 1);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "flows4"), &key, &f), 0);
        tables_close(t);
}

Test(collect, goes_through_a_table_in_small_pieces)
{
        struct tables *t = fixture_open(4096);
        bool done;

        for (uint16_t n = 1; n <= 1000; n++)
                put_pair(t, n, n % 2 ? PAST : AHEAD, PAST);
        cr_assert_leq(tables_collect(t, 10, &done), 20);
        cr_assert_not(done);
        (void) pass(t, 64);
        cr_assert_eq(fixture_count(t, TABLE_FLOWS4), 1000);
        tables_close(t);
}

Test(collect, does_the_same_on_a_kernel_without_batches)
{
        struct tables *t = fixture_open(4096);

        t->one_by_one = true;
        for (uint16_t n = 1; n <= 1000; n++)
                put_pair(t, n, n % 2 ? PAST : AHEAD, PAST);
        while (pass(t, 64) > 0)
                ;
        cr_assert_eq(fixture_count(t, TABLE_FLOWS4), 1000);
        tables_close(t);
}

struct sum {
        unsigned n, expired, translated;
};

static int look(void *data, const struct flow_view *v)
{
        struct weft_addr client = fixture_addr("10.0.0.1"), backend = fixture_addr("10.0.0.9");
        struct sum *s = data;

        s->n++;
        s->expired += v->expired;
        if (memcmp(&v->saddr, &client, sizeof(client)) == 0 &&
            memcmp(&v->new_daddr, &backend, sizeof(backend)) == 0 && v->dport == htons(80) &&
            v->flow->dport == htons(8080) && v->proto == IPPROTO_TCP)
                s->translated++;
        return 0;
}

static int stop(void *data, const struct flow_view *v __attribute__((unused)))
{
        return ++*(int *) data == 7 ? 42 : 0;
}

static void walk_all(struct tables *t)
{
        struct sum s = {};
        int n = 0;

        for (uint16_t i = 1; i <= 600; i++)
                put_pair(t, i, i <= 100 ? PAST : AHEAD, AHEAD);
        put6(t, 1, true, PAST);
        cr_assert_eq(tables_each_flow(t, look, &s), 0);
        cr_assert_eq(s.n, 1201);
        cr_assert_eq(s.expired, 101);
        cr_assert_eq(s.translated, 600);

        cr_assert_eq(tables_each_flow(t, stop, &n), 42);
        cr_assert_eq(n, 7);
        tables_close(t);
}

Test(collect, every_flow_is_shown_once)
{
        walk_all(fixture_open(4096));
}

Test(collect, every_flow_is_shown_once_without_batches)
{
        struct tables *t = fixture_open(4096);

        t->one_by_one = true;
        walk_all(t);
}

/* ---- how many flows a backend has --------------------------------------------------------- */

static struct weft_backend *backend_1(struct tables *t)
{
        return table_at(t, TABLE_BACKENDS, 1);
}

/* A backend of index 1 with n flows, of which the counters say something else. */
static void put_backend(struct tables *t, uint16_t n, uint32_t opened, uint32_t closed)
{
        *backend_1(t) = (struct weft_backend) {
                .port = 1, .number = 7, .opened = opened, .closed = closed
        };
        t->backend_top = 2;
        for (uint16_t i = 1; i <= n; i++) {
                put_pair(t, i, AHEAD, AHEAD);
                change4(t, i, false, 1, i % 4 ? WEFT_ESTABLISHED : WEFT_CLOSING);
        }
}

static int32_t live(struct tables *t)
{
        return backend_1(t)->opened - backend_1(t)->closed;
}

Test(collect, puts_the_counts_of_a_backends_flows_right)
{
        struct tables *t = fixture_open(4096);

        put_backend(t, 8, 100, 10);
        pass(t, 4096);
        cr_assert_eq(live(t), 6, "%d: those that close do not count", live(t));
        put_backend(t, 8, 3, UINT32_MAX);
        pass(t, 4096);
        cr_assert_eq(live(t), 6, "%d", live(t));
        tables_close(t);
}

Test(collect, leaves_counts_alone_that_what_happened_meanwhile_explains)
{
        struct tables *t = fixture_open(4096);
        bool done = false;

        put_backend(t, 8, 16, 10);
        tables_collect(t, 1, &done);
        cr_assert_not(done);
        backend_1(t)->opened += 5; /* and their flows lie where the walk was already */
        pass(t, 4096);
        cr_assert_eq(live(t), 11);
        pass(t, 4096);
        cr_assert_eq(live(t), 6, "with nothing going on they are exact");
        tables_close(t);
}

Test(collect, never_counts_flows_for_a_backend_that_has_another_number)
{
        struct tables *t = fixture_open(4096);

        put_backend(t, 8, 0, 0);
        backend_1(t)->number++;
        pass(t, 4096);
        cr_assert_eq(live(t), 0);
        tables_close(t);
}

Test(collect, finds_established_orphans_within_sixteen_passes)
{
        struct tables *t = fixture_open(4096);
        size_t freed = 0;

        for (uint16_t i = 1; i <= 64; i++) {
                put4(t, i, true, AHEAD, PAST);
                change4(t, i, true, 0, WEFT_ESTABLISHED);
        }
        put_pair(t, 100, AHEAD, AHEAD);
        change4(t, 100, true, 0, WEFT_ESTABLISHED);
        change4(t, 100, false, 0, WEFT_ESTABLISHED);
        for (int i = 0; i < 16; i++) {
                size_t n = pass(t, 4096);

                cr_assert_lt(n, 32, "some in each pass, not %zu at once", n);
                freed += n;
        }
        cr_assert_eq(freed, 64);
        cr_assert_eq(fixture_count(t, TABLE_FLOWS4), 2);
        tables_close(t);
}
