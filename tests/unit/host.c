/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net-lab.h"
#include "net/hold.h"

#define SYSCTL "net/ipv4/conf/d0/rp_filter"
#define RESERVED "net/ipv4/ip_local_reserved_ports"

static struct net *n;
static struct host *h;

static void open_host(void)
{
        lab_open();
        lab_device("d0");
        lab_run("ip link set d0 up && ip addr add 10.9.0.1/24 dev d0 && ip addr add fd09::1/64 dev "
                "d0 nodad");
        n = lab_net(lab_ignore);
        h = lab_host(n);
}

static void close_host(void)
{
        h = host_close(h);
        n = net_close(n);
        lab_loop = sd_event_unref(lab_loop);
}

TestSuite(host, .init = open_host, .fini = close_host);

/* The daemon is killed, and its successor starts. */
static void crash(void)
{
        h = host_close(h);
        h = lab_host(n);
}

#define MUST(call)                                                                                 \
        do {                                                                                       \
                struct weft_error reason = { "" };                                                 \
                int must_r = call;                                                                 \
                cr_assert_geq(must_r, 0, "%s: %s", #call, reason.text);                            \
        } while (0)

static void expect_sysctl(const char *path, const char *expected)
{
        lab_expect(expected, "cat /proc/sys/%s", path);
}

/* ---- sysctls ------------------------------------------------------------------------------ */

Test(host, a_sysctl_goes_back_when_the_last_who_asked_gives_it_back)
{
        expect_sysctl(SYSCTL, "0");
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        expect_sysctl(SYSCTL, "2");

        host_unsysctl(h, SYSCTL);
        expect_sysctl(SYSCTL, "2");
        host_unsysctl(h, SYSCTL);
        expect_sysctl(SYSCTL, "0");
}

Test(host, a_killed_daemons_sysctl_is_undone_by_a_successor_that_does_not_want_it)
{
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        crash();
        expect_sysctl(SYSCTL, "2");

        host_settle(h);

        expect_sysctl(SYSCTL, "0");

        /* What is undone is out of the record: whoever sets it now is somebody else. */
        crash();
        lab_run("sysctl -qw net.ipv4.conf.d0.rp_filter=2");
        host_settle(h);
        expect_sysctl(SYSCTL, "2");
}

Test(host, a_killed_daemons_sysctl_is_taken_over_by_a_successor_that_asks_for_it)
{
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        for (int i = 0; i < 3; i++) {
                crash();
                MUST(host_sysctl(h, SYSCTL, "2", &reason));
                host_settle(h);
                expect_sysctl(SYSCTL, "2");
        }

        host_unsysctl(h, SYSCTL);
        expect_sysctl(SYSCTL, "0");
}

Test(host, a_sysctl_that_somebody_else_changed_since_is_left_to_them)
{
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        lab_run("sysctl -qw net.ipv4.conf.d0.rp_filter=1");

        host_unsysctl(h, SYSCTL);

        expect_sysctl(SYSCTL, "1");
}

Test(host, a_sysctl_that_was_right_before_is_still_so_after)
{
        lab_run("sysctl -qw net.ipv4.conf.d0.rp_filter=2");
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        crash();
        host_settle(h);
        expect_sysctl(SYSCTL, "2");
}

Test(host, a_sysctl_that_does_not_exist_is_refused_by_name)
{
        struct weft_error error = { "" };

        cr_assert_eq(host_sysctl(h, "net/ipv4/conf/nothing/rp_filter", "1", &error), -ENOENT);
        cr_assert(strstr(error.text, "/proc/sys/net/ipv4/conf/nothing/rp_filter"), "%s",
                  error.text);
}

/* ---- the record --------------------------------------------------------------------------- */

Test(host, a_change_is_in_the_record_before_it_is_made)
{
        int full;

        /* A record that cannot be written stops the change. */
        full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        cr_assert_geq(dup2(full, h->record), 0);

        cr_assert_eq(host_sysctl(h, SYSCTL, "2", NULL), -ENOSPC);
        expect_sysctl(SYSCTL, "0");
        cr_assert_lt(host_route(h, &(struct weft_prefix) { lab_address("10.8.0.0"), 112 }, NULL,
                                if_nametoindex("d0"), 0, NULL),
                     0);
        lab_expect("", "ip route show 10.8.0.0/16");
        cr_assert_lt(host_reserve_ports(h, 30080, 30080, NULL), 0);
        expect_sysctl(RESERVED, "");
        (void) close(full);
}

Test(host, a_record_line_cut_short_by_a_crash_is_no_change)
{
        lab_run("printf 'sysctl\\t" SYSCTL "\\t1\\t' >> " LAB_RUN "/host");
        crash();
        host_settle(h);
        expect_sysctl(SYSCTL, "0");
}

Test(host, a_record_of_another_namespace_says_nothing_about_this_one)
{
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        lab_run("sed -i '1s/[0-9]*$/1/' " LAB_RUN "/host");
        crash();
        host_settle(h);
        expect_sysctl(SYSCTL, "2");
}

Test(host, the_record_does_not_grow_with_history)
{
        for (int i = 0; i < 2000; i++) {
                MUST(host_sysctl(h, SYSCTL, "2", &reason));
                host_unsysctl(h, SYSCTL);
        }
        MUST(host_sysctl(h, SYSCTL, "2", &reason));

        cr_assert_lt(atoi(lab_read("wc -l < " LAB_RUN "/host")), 400);
        crash();
        host_settle(h);
        expect_sysctl(SYSCTL, "0");
}

/* ---- ports -------------------------------------------------------------------------------- */

Test(host, reserved_ports_keep_what_others_reserved)
{
        lab_run("echo 8080,30080-30081 > /proc/sys/" RESERVED);

        MUST(host_reserve_ports(h, 30080, 30090, &reason));
        MUST(host_reserve_ports(h, 30085, 30100, &reason));
        expect_sysctl(RESERVED, "8080,30080-30100");

        host_unreserve_ports(h, 30085, 30100);
        expect_sysctl(RESERVED, "8080,30080-30090");
        host_unreserve_ports(h, 30080, 30090);
        expect_sysctl(RESERVED, "8080,30080-30081");
}

Test(host, a_killed_daemons_ports_are_taken_over_or_given_back)
{
        lab_run("echo 8080 > /proc/sys/" RESERVED);
        MUST(host_reserve_ports(h, 30080, 30080, &reason));
        MUST(host_reserve_ports(h, 30081, 30081, &reason));
        crash();
        MUST(host_reserve_ports(h, 30081, 30081, &reason));
        expect_sysctl(RESERVED, "8080,30080-30081");

        host_settle(h);

        expect_sysctl(RESERVED, "8080,30081");
        host_unreserve_ports(h, 30081, 30081);
        expect_sysctl(RESERVED, "8080");
}

Test(host, ports_that_others_reserve_meanwhile_stay)
{
        MUST(host_reserve_ports(h, 30080, 30080, &reason));
        lab_run("echo 30080,9000 > /proc/sys/" RESERVED);
        MUST(host_reserve_ports(h, 30090, 30090, &reason));
        host_unreserve_ports(h, 30080, 30080);
        host_unreserve_ports(h, 30090, 30090);
        expect_sysctl(RESERVED, "9000");
}

Test(host, a_list_of_ports_longer_than_a_page_is_written_whole)
{
        for (unsigned p = 30000; p < 32000; p += 2)
                MUST(host_reserve_ports(h, (uint16_t) p, (uint16_t) p, &reason));

        lab_expect("1000", "tr , '\\n' < /proc/sys/" RESERVED " | grep -c .");
        lab_expect("31998", "tr , '\\n' < /proc/sys/" RESERVED " | tail -1");
}

/* ---- routes ------------------------------------------------------------------------------- */

static int route(const char *dst, const char *gateway, uint32_t mtu, struct weft_error *reterr)
{
        struct weft_prefix p = lab_prefix(dst);
        struct weft_addr a;

        if (!gateway)
                return host_route(h, &p, NULL, if_nametoindex("d0"), mtu, reterr);

        a = lab_address(gateway);
        return host_route(h, &p, &a, 0, mtu, reterr);
}

static void unroute(const char *dst)
{
        struct weft_prefix p = lab_prefix(dst);

        host_unroute(h, &p);
}

Test(host, routes_of_both_families_are_made_and_given_back)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 1400, &reason));
        MUST(route("fd08::/32", "fd09::2", 1400, &reason));
        MUST(route("10.7.0.1/32", NULL, 0, &reason));
        MUST(route("fd07::1/128", NULL, 0, &reason));

        lab_expect("10.8.0.0/16 via 10.9.0.2 dev d0 proto 119 mtu 1400",
                   "ip route show 10.8.0.0/16");
        lab_expect("fd08::/32 via fd09::2 dev d0 proto 119 metric 1024 mtu 1400 pref medium",
                   "ip -6 route show fd08::/32");
        lab_expect("10.7.0.1 dev d0 proto 119 scope link", "ip route show 10.7.0.1");
        lab_expect("fd07::1 dev d0 proto 119 metric 1024 pref medium", "ip -6 route show fd07::1");

        unroute("10.8.0.0/16");
        unroute("fd08::/32");
        unroute("10.7.0.1/32");
        unroute("fd07::1/128");
        lab_expect("", "ip route show proto 119; ip -6 route show proto 119");
}

Test(host, a_route_asked_for_twice_stays_until_given_back_twice)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        unroute("10.8.0.0/16");
        lab_expect("10.8.0.0/16 via 10.9.0.2 dev d0 proto 119", "ip route show 10.8.0.0/16");
        unroute("10.8.0.0/16");
        lab_expect("", "ip route show 10.8.0.0/16");
}

Test(host, a_changed_route_is_replaced)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        MUST(route("10.8.0.0/16", "10.9.0.3", 1400, &reason));
        lab_expect("10.8.0.0/16 via 10.9.0.3 dev d0 proto 119 mtu 1400",
                   "ip route show 10.8.0.0/16");
        MUST(route("fd08::/32", "fd09::2", 0, &reason));
        MUST(route("fd08::/32", "fd09::3", 0, &reason));
        lab_expect("fd08::/32 via fd09::3 dev d0 proto 119 metric 1024 pref medium",
                   "ip -6 route show fd08::/32");
}

Test(host, a_route_that_vanished_is_made_again_when_asked_for_again)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        lab_run("ip link set d0 down && ip link set d0 up");
        lab_expect("", "ip route show 10.8.0.0/16");
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        lab_expect("10.8.0.0/16 via 10.9.0.2 dev d0 proto 119", "ip route show 10.8.0.0/16");
}

Test(host, routes_that_went_with_their_link_are_made_again_together)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 1400, &reason));
        MUST(route("10.7.0.0/16", "10.9.0.2", 0, &reason));
        MUST(route("10.6.0.0/16", "10.9.0.2", 0, &reason));
        crash();
        MUST(route("10.8.0.0/16", "10.9.0.2", 1400, &reason));
        MUST(route("10.7.0.0/16", "10.9.0.2", 0, &reason));
        lab_run("ip link set d0 down && ip link set d0 up && ip route add 10.7.0.0/16 via "
                "10.9.0.9");

        host_routes_again(h, NULL, NULL);

        lab_expect("10.8.0.0/16 via 10.9.0.2 dev d0 mtu 1400", "ip route show proto 119");
        lab_expect("10.7.0.0/16 via 10.9.0.9 dev d0", "ip route show 10.7.0.0/16");
        unroute("10.8.0.0/16");
        lab_expect("", "ip route show proto 119");
}

Test(host, a_foreign_route_in_the_way_is_eexist_and_untouched)
{
        static const char *const foreign[] = {
                "10.8.0.0/16 via 10.9.0.9 dev d0",
                "10.8.0.0/16 via 10.9.0.9 dev d0 proto bird metric 32",
                "fd08::/32 via fd09::9 dev d0 metric 1024 pref medium",
                "fd08::/32 via fd09::9 dev d0 proto bird metric 32 pref medium",
        };

        for (size_t i = 0; i < sizeof(foreign) / sizeof(*foreign); i++) {
                struct weft_error error = { "" };
                bool four = foreign[i][0] == '1';
                const char *dst = four ? "10.8.0.0/16" : "fd08::/32";

                lab_run("ip route flush 10.8.0.0/16; ip -6 route flush fd08::/32; ip route add %s",
                        foreign[i]);

                cr_assert_eq(route(dst, four ? "10.9.0.2" : "fd09::2", 0, &error), -EEXIST);
                cr_assert(strstr(error.text, dst), "%s", error.text);
                lab_expect(foreign[i], "ip %s route show %s", four ? "" : "-6", dst);

                crash();
                host_settle(h);
                lab_expect(foreign[i], "ip %s route show %s", four ? "" : "-6", dst);
        }
}

Test(host, the_devices_own_network_is_a_foreign_route)
{
        cr_assert_eq(route("10.9.0.0/24", "10.9.0.2", 0, NULL), -EEXIST);
        lab_expect("10.9.0.0/24 dev d0 proto kernel scope link src 10.9.0.1",
                   "ip route show 10.9.0.0/24");
}

Test(host, a_gateway_beyond_the_link_is_enetunreach)
{
        struct weft_error error = { "" };

        cr_assert_eq(route("10.8.0.0/16", "192.0.2.1", 0, &error), -ENETUNREACH);
        cr_assert(strstr(error.text, "192.0.2.1"), "%s", error.text);
        cr_assert_eq(route("fd08::/32", "2001:db8::1", 0, NULL), -ENETUNREACH);

        lab_run("ip route add default via 10.9.0.9 && ip -6 route add default via fd09::9");
        cr_assert_eq(route("10.8.0.0/16", "192.0.2.1", 0, NULL), -ENETUNREACH);
        cr_assert_eq(route("fd08::/32", "2001:db8::1", 0, NULL), -ENETUNREACH);

        lab_expect("", "ip route show proto 119; ip -6 route show proto 119");
}

Test(host, a_killed_daemons_routes_are_taken_over_or_removed)
{
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        MUST(route("10.7.0.0/16", "10.9.0.2", 0, &reason));
        MUST(route("fd08::/32", "fd09::2", 0, &reason));
        crash();
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));

        host_settle(h);

        lab_expect("10.8.0.0/16 via 10.9.0.2 dev d0", "ip route show proto 119");
        lab_expect("", "ip -6 route show proto 119");
}

Test(host, a_route_of_weft_without_a_record_is_found_by_its_protocol)
{
        lab_run("ip route add 10.8.0.0/16 via 10.9.0.2 proto 119 && rm " LAB_RUN "/host");
        crash();
        host_settle(h);
        lab_expect("", "ip route show proto 119");
}

/* ---- forwarding --------------------------------------------------------------------------- */

/* A default route as the kernel itself makes it from a router advertisement. */
static void learn_default_route(void)
{
        struct in6_rtmsg m = {
                .rtmsg_flags = RTF_UP | RTF_GATEWAY | RTF_DEFAULT | RTF_ADDRCONF,
                .rtmsg_metric = 1024,
                .rtmsg_ifindex = (int) if_nametoindex("d0"),
        };
        struct weft_addr gateway = lab_address("fe80::9");
        int s = socket(AF_INET6, SOCK_DGRAM, 0);

        memcpy(&m.rtmsg_gateway, &gateway, sizeof(gateway));
        cr_assert_eq(ioctl(s, SIOCADDRT, &m), 0, "%s", strerror(errno));
        (void) close(s);
        lab_expect("1", "ip -6 route show default | grep -c 'via fe80::9 dev d0'");
}

Test(host, forwarding_of_both_families_is_set_and_goes_back)
{
        static const char print[] = "cd /proc/sys/net; grep -H . ipv4/conf/*/forwarding"
                                    " ipv6/conf/*/forwarding ipv6/conf/*/accept_ra"
                                    " $(ls ipv6/conf/*/force_forwarding 2>/dev/null) | md5sum";
        char before[64];

        (void) snprintf(before, sizeof(before), "%.60s", lab_read("%s", print));
        MUST(host_forwarding(h, "d0", &reason));
        MUST(host_forwarding(h, "d0-far", &reason));
        MUST(host_forwarding(h, "d0", &reason));
        expect_sysctl("net/ipv4/conf/d0/forwarding", "1");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "1");

        host_unforwarding(h, "d0");
        expect_sysctl("net/ipv4/conf/d0/forwarding", "1");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "1");
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "2");
        host_unforwarding(h, "d0");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "0");
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "2");
        host_unforwarding(h, "d0-far");
        lab_expect(before, "%s", print);
}

Test(host, default_routes_learned_from_advertisements_outlive_forwarding)
{
        learn_default_route();
        lab_device("d1");

        MUST(host_forwarding(h, "d1", &reason));
        lab_device("d2");
        MUST(host_forwarding(h, "d2", &reason));
        lab_expect("1", "ip -6 route show default | grep -c 'via fe80::9 dev d0'");
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "2");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "0");

        crash();
        MUST(host_forwarding(h, "d1", &reason));
        host_settle(h);
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "2");
        expect_sysctl("net/ipv6/conf/d2/forwarding", "0");

        host_unforwarding(h, "d1");
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "1");
        lab_expect("1", "ip -6 route show default | grep -c 'via fe80::9 dev d0'");
}

Test(host, advertisements_that_a_router_ignores_stay_ignored)
{
        lab_run("echo 1 > /proc/sys/net/ipv6/conf/d0/forwarding");
        lab_device("d1");
        MUST(host_forwarding(h, "d1", &reason));
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "1");
}

Test(host, forwarding_of_all_interfaces_leaves_each_as_it_was)
{
        lab_device("d1");
        lab_run("echo 1 > /proc/sys/net/ipv6/conf/d1/forwarding");

        MUST(host_sysctl(h, "net/ipv6/conf/all/forwarding", "1", &reason));
        expect_sysctl("net/ipv6/conf/all/forwarding", "1");
        expect_sysctl("net/ipv6/conf/default/forwarding", "0");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "0");

        crash();
        host_settle(h);
        expect_sysctl("net/ipv6/conf/all/forwarding", "0");
        expect_sysctl("net/ipv6/conf/d1/forwarding", "1");
}

Test(host, a_killed_daemons_forwarding_is_undone_by_a_successor_that_does_not_want_it)
{
        MUST(host_forwarding(h, "d0", &reason));
        crash();
        host_settle(h);
        expect_sysctl("net/ipv4/conf/d0/forwarding", "0");
        expect_sysctl("net/ipv6/conf/d0/forwarding", "0");
        expect_sysctl("net/ipv6/conf/d0/accept_ra", "1");
}

/* ---- cleanup ------------------------------------------------------------------------------ */

static unsigned n_told;

static void count_told(void *data, const char *what)
{
        (void) data;
        cr_assert_gt(strlen(what), 0);
        n_told++;
}

Test(host, cleanup_takes_everything_and_says_so)
{
        MUST(host_sysctl(h, SYSCTL, "2", &reason));
        MUST(host_reserve_ports(h, 30080, 30080, &reason));
        MUST(route("10.8.0.0/16", "10.9.0.2", 0, &reason));
        crash();
        lab_run("ip link add weft0123456789a type veth peer name far &&"
                "ip route add 10.7.0.0/16 via 10.9.0.2 && ip link add weft0 type veth peer name "
                "far0");

        host_cleanup(h, count_told, NULL);

        cr_assert_eq(n_told, 4);
        expect_sysctl(SYSCTL, "0");
        expect_sysctl(RESERVED, "");
        lab_expect("", "ip route show proto 119; ls " LAB_RUN);
        cr_assert_eq(if_nametoindex("weft0123456789a"), 0);
        cr_assert_neq(if_nametoindex("weft0"), 0, "somebody else's device stays");
        lab_expect("10.7.0.0/16 via 10.9.0.2 dev d0", "ip route show 10.7.0.0/16");
}

/* ---- tables of nftables ------------------------------------------------------------------- */

#define BODY(n) "chain c { counter packets " n " bytes 0; }"
#define RULE(n) "counter packets " n " bytes 0"

static void expect_rule(const char *rule)
{
        lab_expect(
                rule,
                "nft list table inet weft-x 2>/dev/null | sed -n 's/^[ \t]*\\(counter.*\\)/\\1/p'");
}

Test(host, a_table_is_replaced_whole_and_the_newest_holder_decides)
{
        lab_run("nft add table inet other");
        MUST(host_table(h, "weft-x", BODY("1"), &reason));
        expect_rule(RULE("1"));
        MUST(host_table(h, "weft-x", BODY("2"), &reason));
        expect_rule(RULE("2"));

        /* A new holder that fails later goes first; one that took over stays. */
        host_untable(h, "weft-x", BODY("2"));
        expect_rule(RULE("1"));
        MUST(host_table(h, "weft-x", BODY("3"), &reason));
        host_untable(h, "weft-x", BODY("1"));
        expect_rule(RULE("3"));

        host_untable(h, "weft-x", BODY("3"));
        lab_expect("table inet other {\n}", "nft list ruleset");
}

Test(host, a_table_that_the_kernel_refuses_leaves_what_was_there)
{
        struct weft_error why = { "" };

        cr_assert_eq(host_table(h, "weft-x", "chain c { no such words; }", &why), -EINVAL);
        cr_assert(strstr(why.text, "weft-x") && strstr(why.text, "nftables: "), "%s", why.text);
        lab_expect("", "nft list ruleset");

        MUST(host_table(h, "weft-x", BODY("1"), &reason));
        cr_assert_lt(host_table(h, "weft-x", "chain c { jump nowhere; }", &why), 0);
        expect_rule(RULE("1"));
}

Test(host, a_killed_daemons_table_is_taken_over_or_undone_and_nobody_elses_is_touched)
{
        lab_run("nft add table inet weft-y");
        MUST(host_table(h, "weft-x", BODY("1"), &reason));
        crash();
        MUST(host_table(h, "weft-x", BODY("2"), &reason));
        host_settle(h);
        expect_rule(RULE("2"));

        crash();
        host_settle(h);
        lab_expect("table inet weft-y {\n}", "nft list ruleset");
}
