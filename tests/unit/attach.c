/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "generation-fixture.h"
#include "probe/probe.h"
#include "util.h"

#define DEV "up.lan-0" /* bpffs allows no dots */

static struct tables *tables;
static struct generation *generations[2];

static void setup(void)
{
        enter_namespaces();
        run_command("ip link add " DEV " type veth peer name peer0 && ip link set lo up"
                    " && ip link set " DEV " up && ip link set peer0 up");
        tables = open_tables();
}

static void teardown(void)
{
        for (size_t i = 0; i < ELEMENTS(generations); i++)
                (void) generation_free(generations[i]);
        (void) tables_close(tables);
}

/* A generation without modules; freed when the test ends. */
static struct generation *make(uint32_t number)
{
        return generations[number - 1] = build(tables, number, NULL, 0);
}

TestSuite(attach, .init = setup, .fini = teardown);

static struct attachments *open_books(uint32_t mode)
{
        struct attachments *a = NULL;
        struct weft_error why = { 0 };

        cr_assert_eq(attach_open(BPFFS, mode, &a, &why), 0, "%s", why.text);
        return a;
}

static void attach(struct attachments *a, uint32_t hook, const struct generation *g)
{
        struct weft_error why = { 0 };

        cr_assert_eq(
                attach_hook(a, if_nametoindex(DEV), DEV, hook, generation_hook_fd(g, hook), &why),
                0, "%s", why.text);
}

/* What a command prints contains a text. */
static bool shows(const char *command, const char *text)
{
        _cleanup_free_ char *line = NULL;
        bool found = false;
        size_t room = 0;
        FILE *f = popen(command, "re");

        while (getline(&line, &room, f) > 0)
                found |= strstr(line, text) != NULL;
        (void) pclose(f);
        return found;
}

static uint32_t prog_id(const struct generation *g, uint32_t hook)
{
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof(info);

        cr_assert_eq(bpf_obj_get_info_by_fd(generation_hook_fd(g, hook), &info, &size), 0);
        return info.id;
}

static uint32_t linked_prog(const char *pin)
{
        struct bpf_link_info info = { 0 };
        uint32_t size = sizeof(info);
        _cleanup_close_ int fd = bpf_obj_get(pin);

        if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                return 0;
        return info.xdp.ifindex == if_nametoindex(DEV) ? info.prog_id : 0;
}

#define PIN(hook) BPFFS "/links/up:lan-0-" hook
#define FILTER(hook) BPFFS "/filters/up:lan-0-" hook
#define SHOW(direction) "tc filter show dev " DEV " " direction
#define QDISCS "tc qdisc show dev " DEV

static bool filter_runs(const char *command, uint32_t id)
{
        char text[32];

        (void) snprintf(text, sizeof(text), " id %u ", id);
        return shows(command, text);
}

static void need_tcx(void)
{
        if (!probe_has(WEFT_NEED_FEATURE, "tcx"))
                cr_skip_test("this kernel has no tcx");
}

Test(attach, auto_is_tcx_where_the_kernel_has_it)
{
        struct attachments *a = open_books(ATTACH_AUTO);

        cr_assert_eq(attach_uses_tcx(a), probe_has(WEFT_NEED_FEATURE, "tcx"));
        (void) attach_close(a);
}

Test(attach, a_tcx_link_is_updated_in_place)
{
        struct generation *g = make(1), *h = make(2);
        struct attachments *a;

        need_tcx();
        a = open_books(ATTACH_TCX);
        attach(a, WEFT_FROM_UPLINK, g);
        attach(a, WEFT_TO_UPLINK, g);
        cr_assert_eq(linked_prog(PIN("from-uplink")), prog_id(g, WEFT_FROM_UPLINK));

        attach(a, WEFT_FROM_UPLINK, h);
        cr_assert_eq(linked_prog(PIN("from-uplink")), prog_id(h, WEFT_FROM_UPLINK));
        cr_assert_eq(linked_prog(PIN("to-uplink")), prog_id(g, WEFT_TO_UPLINK));
        (void) attach_close(a);
}

Test(attach, a_successor_takes_over_the_links_and_drops_what_it_does_not_want)
{
        struct generation *g = make(1), *h = make(2);
        struct attachments *a;

        need_tcx();
        a = open_books(ATTACH_TCX);
        attach(a, WEFT_FROM_UPLINK, g);
        attach(a, WEFT_TO_UPLINK, g);
        (void) attach_close(a);
        cr_assert_eq(linked_prog(PIN("from-uplink")), prog_id(g, WEFT_FROM_UPLINK),
                     "a link went with its daemon");

        a = open_books(ATTACH_TCX);
        attach(a, WEFT_FROM_UPLINK, h);
        cr_assert_eq(linked_prog(PIN("from-uplink")), prog_id(h, WEFT_FROM_UPLINK));
        attach_settle(a);
        cr_assert_neq(linked_prog(PIN("from-uplink")), 0);
        cr_assert_eq(access(PIN("to-uplink"), F_OK), -1);
        (void) attach_close(a);
}

Test(attach, a_device_that_was_made_again_is_attached_again)
{
        struct generation *g = make(1);
        struct attachments *a;

        need_tcx();
        a = open_books(ATTACH_TCX);
        attach(a, WEFT_FROM_UPLINK, g);
        run_command("ip link del " DEV " && ip link add " DEV " type veth peer name peer1");
        cr_assert_eq(linked_prog(PIN("from-uplink")), 0);

        attach(a, WEFT_FROM_UPLINK, g);
        cr_assert_eq(linked_prog(PIN("from-uplink")), prog_id(g, WEFT_FROM_UPLINK));
        (void) attach_close(a);
}

Test(attach, clsact_filters_are_replaced_in_place)
{
        struct generation *g = make(1), *h = make(2);
        struct attachments *a = open_books(ATTACH_CLSACT);

        attach(a, WEFT_FROM_UPLINK, g);
        attach(a, WEFT_TO_UPLINK, g);
        cr_assert(filter_runs(SHOW("ingress"), prog_id(g, WEFT_FROM_UPLINK)));
        cr_assert(filter_runs(SHOW("egress"), prog_id(g, WEFT_TO_UPLINK)));

        attach(a, WEFT_FROM_UPLINK, h);
        cr_assert(filter_runs(SHOW("ingress"), prog_id(h, WEFT_FROM_UPLINK)));
        cr_assert_not(filter_runs(SHOW("ingress"), prog_id(g, WEFT_FROM_UPLINK)));
        cr_assert(shows(SHOW("ingress"), "direct-action"));
        (void) attach_close(a);
}

Test(attach, a_successor_finds_filters_and_takes_the_qdisc_with_the_last)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_CLSACT);

        attach(a, WEFT_FROM_UPLINK, g);
        attach(a, WEFT_TO_UPLINK, g);
        (void) attach_close(a);

        a = open_books(ATTACH_CLSACT);
        attach(a, WEFT_TO_UPLINK, g);
        attach_settle(a);
        cr_assert_not(shows(SHOW("ingress"), "bpf"));
        cr_assert(shows(SHOW("egress"), "bpf"));
        cr_assert_eq(access(FILTER("from-uplink"), F_OK), -1);

        attach_remove(a, DEV);
        cr_assert_not(shows(QDISCS, "clsact"));
        cr_assert_eq(access(FILTER("qdisc"), F_OK), -1);
        (void) attach_close(a);
}

Test(attach, a_qdisc_of_somebody_else_stays)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_CLSACT);

        run_command("tc qdisc add dev " DEV " clsact");
        attach(a, WEFT_FROM_UPLINK, g);
        attach_remove(a, DEV);
        cr_assert(shows(QDISCS, "clsact"));
        (void) attach_close(a);
}

Test(attach, our_qdisc_stays_while_somebody_else_has_a_filter_on_it)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_CLSACT);
        LIBBPF_OPTS(bpf_tc_hook, egress, .ifindex = (int) if_nametoindex(DEV),
                    .attach_point = BPF_TC_EGRESS);
        LIBBPF_OPTS(bpf_tc_opts, foreign, .priority = 7,
                    .prog_fd = generation_hook_fd(g, WEFT_TO_UPLINK));

        attach(a, WEFT_FROM_UPLINK, g);
        cr_assert_eq(bpf_tc_attach(&egress, &foreign), 0);
        attach_remove(a, DEV);
        cr_assert_not(shows(SHOW("ingress"), "bpf"));
        cr_assert(shows(SHOW("egress"), "pref 7 bpf"));
        (void) attach_close(a);
}

Test(attach, changing_the_way_leaves_one_of_them)
{
        struct generation *g = make(1);
        struct attachments *a;

        need_tcx();
        a = open_books(ATTACH_CLSACT);
        attach(a, WEFT_FROM_UPLINK, g);
        (void) attach_close(a);

        a = open_books(ATTACH_TCX);
        attach(a, WEFT_FROM_UPLINK, g);
        cr_assert_neq(linked_prog(PIN("from-uplink")), 0);
        cr_assert_not(shows(QDISCS, "clsact"));
        (void) attach_close(a);

        a = open_books(ATTACH_CLSACT);
        attach(a, WEFT_FROM_UPLINK, g);
        cr_assert_eq(access(PIN("from-uplink"), F_OK), -1);
        cr_assert(shows(SHOW("ingress"), "bpf"));
        (void) attach_close(a);
}

Test(attach, xdp_is_a_pinned_link_in_either_way)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_CLSACT);

        attach(a, WEFT_XDP_UPLINK, g);
        cr_assert_eq(linked_prog(PIN("xdp-uplink")), prog_id(g, WEFT_XDP_UPLINK));
        attach(a, WEFT_XDP_UPLINK, g);
        attach_remove(a, DEV);
        cr_assert_not(shows("ip link show " DEV, "xdp"));
        (void) attach_close(a);
}

Test(attach, a_failure_leaves_what_runs_and_no_trace_of_what_does_not)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_AUTO);
        struct weft_error why = { 0 };

        cr_assert_lt(attach_hook(a, 9999, "nodev", WEFT_FROM_UPLINK,
                                 generation_hook_fd(g, WEFT_FROM_UPLINK), &why),
                     0);
        cr_assert_not_null(strstr(why.text, "nodev, from-uplink"), "%s", why.text);
        cr_assert_eq(access(BPFFS "/links/nodev-from-uplink", F_OK), -1);
        cr_assert_eq(access(BPFFS "/filters/nodev-from-uplink", F_OK), -1);

        attach(a, WEFT_FROM_UPLINK, g);
        cr_assert_lt(attach_hook(a, if_nametoindex(DEV), DEV, WEFT_FROM_UPLINK, -1, &why), 0);
        cr_assert(attach_uses_tcx(a) ? linked_prog(PIN("from-uplink")) != 0
                                     : shows(SHOW("ingress"), "bpf"));
        (void) attach_close(a);
}

static void count(void *data, const char *what)
{
        cr_assert_not_null(strstr(what, DEV), "%s", what);
        (*(int *) data)++;
}

Test(attach, cleanup_takes_everything_and_says_what)
{
        struct generation *g = make(1);
        struct attachments *a = open_books(ATTACH_CLSACT);
        int n = 0;

        attach(a, WEFT_FROM_UPLINK, g);
        attach(a, WEFT_TO_UPLINK, g);
        attach(a, WEFT_XDP_UPLINK, g);
        (void) attach_close(a);

        a = open_books(ATTACH_AUTO);
        attach_cleanup(a, count, &n);
        cr_assert_eq(n, 3);
        cr_assert_not(shows(QDISCS, "clsact"));
        cr_assert_not(shows("ip link show " DEV, "xdp"));
        cr_assert_eq(access(BPFFS "/links", F_OK), -1);
        (void) attach_close(a);
}
