/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net-lab.h"
#include "net/namespace.h"

static struct net *n;
static struct host *h;
static unsigned n_events;

/* The kernel has things of its own to tell, at its own time: what a second wiring changes, it
 * changes each time. */
enum { TRIES = 5 };

static void count(void *data, const struct net_event *event)
{
        (void) data;
        (void) event;
        n_events++;
}

/* Until all has been told of: the kernel tells that a device is up some time after it was made. */
static void settle(void)
{
        lab_run("for i in $(seq 500); do ip -o link show type veth | grep -qv 'state UP' || exit 0;"
                "sleep 0.02; done; exit 1");
        while (sd_event_run(lab_loop, 500000) > 0)
                ;
}

static void open_node(void)
{
        lab_open();
        lab_run("ip netns add web-1 && ip netns add web-2");
        n = lab_net(count);
        h = lab_host(n);
}

static void close_node(void)
{
        h = host_close(h);
        n = net_close(n);
        lab_loop = sd_event_unref(lab_loop);
}

TestSuite(wire, .init = open_node, .fini = close_node);

/* An endpoint's request with one address of each family. */
struct endpoint {
        struct wire_request request;
        struct weft_addr addrs[4], gateways[2];
        struct wire wire;
        struct weft_error error;
};

static struct endpoint endpoint(const char *name, const char *netns, const char *four,
                                const char *six)
{
        return (struct endpoint) {
                .request = { .name = name,
                             .netns = netns,
                             .device = "eth0",
                             .n_addrs = 2,
                             .n_gateways = 2,
                             .mtu = 1400 },
                .addrs = { lab_address(four), lab_address(six) },
                .gateways = { lab_address("10.244.1.1"), lab_address("fd44:1::1") },
        };
}

static struct endpoint web1(void)
{
        return endpoint("web-1", "/run/netns/web-1", "10.244.1.10", "fd44:1::10");
}

static struct endpoint web2(void)
{
        return endpoint("web-2", "/run/netns/web-2", "10.244.1.11", "fd44:1::11");
}

static int try_up(struct endpoint *e)
{
        e->request.addrs = e->addrs;
        e->request.gateways = e->gateways;

        return wire_up(n, h, &e->request, &e->wire, &e->error);
}

static void up(struct endpoint *e)
{
        int r = try_up(e);

        cr_assert_eq(r, 0, "%s", e->error.text);
}

static void down(struct endpoint *e)
{
        wire_down(n, h, e->request.name, e->addrs, e->request.n_addrs);
}

static void crash(void)
{
        h = host_close(h);
        h = lab_host(n);
}

static void expect_nothing_left(void)
{
        lab_expect(
                "",
                "ip -o link show type veth; ip route show proto 119; ip -6 route show proto 119");
}

/* Reachable from the host, both families. */
static void ping(const char *four, const char *six)
{
        lab_run("ping -q -c 4 -i 0.2 -W 2 %s >/dev/null && ping -q -c 4 -i 0.2 -W 2 %s >/dev/null",
                four, six);
}

static void give_host_addresses(void)
{
        lab_device("d0");
        lab_run("ip addr add 192.0.2.1/24 dev d0 && ip addr add 2001:db8::1/64 dev d0 nodad &&"
                "ip link set d0 up");
}

/* ---- what a wired endpoint looks like ----------------------------------------------------- */

Test(wire, an_endpoint_gets_device_addresses_routes_and_neighbours)
{
        struct endpoint e = web1();

        up(&e);

        lab_expect("inet 10.244.1.10/32\ninet6 fd44:1::10/128",
                   "ip -n web-1 addr show dev eth0 scope global | awk '/inet/ { print $1, $2 }'");
        lab_expect("default via 10.244.1.1 dev eth0 proto 119 mtu 1400 \n"
                   "10.244.1.1 dev eth0 proto 119 scope link",
                   "ip -n web-1 route");
        lab_expect("fd44:1::1 dev eth0 proto 119 metric 1024 pref medium",
                   "ip -n web-1 -6 route show fd44:1::1");
        lab_expect("default via fd44:1::1 dev eth0 proto 119 metric 1024 mtu 1400 pref medium",
                   "ip -n web-1 -6 route show default");
        lab_expect("2", "ip -n web-1 -o link show up | grep -c ' lo: \\| eth0@'");
}

Test(wire, the_host_side_has_no_address_routes_to_the_endpoint_and_forwards)
{
        struct endpoint e = web1();
        struct net_link l;

        up(&e);

        cr_assert_eq(strlen(e.wire.ifname), 15);
        cr_assert_eq(net_link_by_name(n, e.wire.ifname, &l), 0);
        cr_assert_eq(l.ifindex, e.wire.ifindex);
        cr_assert_eq(memcmp(l.mac, e.wire.mac, 6), 0);
        cr_assert(l.up);
        lab_expect("", "ip -o addr show dev %s", e.wire.ifname);
        lab_expect("2",
                   "(ip route show 10.244.1.10; ip -6 route show fd44:1::10) |"
                   " grep -c 'dev %s proto 119'",
                   e.wire.ifname);
        lab_expect("1 1 0",
                   "cd /proc/sys/net; echo $(cat ipv4/conf/%s/forwarding ipv6/conf/%s/forwarding"
                   " ipv6/conf/%s/accept_ra)",
                   e.wire.ifname, e.wire.ifname, e.wire.ifname);
        lab_expect("weft endpoint web-1",
                   "cat /sys/class/net/%s/ifalias 2>/dev/null ||"
                   "ip -o link show %s | grep -o 'weft endpoint web-1'",
                   e.wire.ifname, e.wire.ifname);
}

Test(wire, the_gateway_inside_is_the_host_side_without_asking)
{
        struct endpoint e = web1();
        const uint8_t *m = e.wire.mac;
        char mac[32];

        up(&e);
        (void) snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
                        m[4], m[5]);

        lab_expect("2",
                   "(ip -n web-1 neigh show; ip -n web-1 -6 neigh show) | sort -u |"
                   " grep -c 'eth0 lladdr %s PERMANENT'",
                   mac);
        cr_assert_eq(e.wire.mac[0] & 3, 2, "locally administered, unicast");
        cr_assert_neq(memcmp(e.wire.mac, e.wire.peer_mac, 6), 0);
}

Test(wire, the_host_reaches_a_wired_endpoint_by_both_families)
{
        struct endpoint e = web1();

        give_host_addresses();
        up(&e);
        ping("10.244.1.10", "fd44:1::10");
}

Test(wire, two_endpoints_reach_each_other_through_the_host)
{
        struct endpoint a = web1(), b = web2();

        lab_run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
        up(&a);
        up(&b);
        lab_run("ip netns exec web-1 ping -q -c 4 -i 0.2 -W 2 10.244.1.11 >/dev/null");
        lab_run("ip netns exec web-1 ping -q -c 4 -i 0.2 -W 2 fd44:1::11 >/dev/null");
        lab_run("ip netns exec web-2 ping -q -c 4 -i 0.2 -W 2 127.0.0.1 >/dev/null");
}

Test(wire, an_endpoint_of_one_family_gets_nothing_of_the_other)
{
        struct endpoint e = web1();

        e.request.n_addrs = 1;
        up(&e);
        lab_expect("",
                   "ip -n web-1 -6 route show proto 119; ip -n web-1 -6 neigh show nud permanent;"
                   " ip -n web-1 -6 addr show scope global");
}

Test(wire, a_large_mtu_needs_large_devices)
{
        struct endpoint e = web1();
        struct net_link l;

        e.request.mtu = 9000;
        up(&e);
        cr_assert_eq(net_link_by_index(n, e.wire.ifindex, &l), 0);
        cr_assert_eq(l.mtu, 9000);
        lab_expect("1", "ip -n web-1 link show eth0 | grep -c 'mtu 9000'");
}

/* ---- once more, changed, taken over ------------------------------------------------------- */

Test(wire, a_second_time_changes_nothing)
{
        struct endpoint e = web1();
        char before[2048];
        struct wire first;

        up(&e);
        first = e.wire;
        (void) snprintf(before, sizeof(before), "%s", lab_read("wc -l < " LAB_RUN "/host"));
        n_events = 1;
        for (unsigned i = 0; i < TRIES && n_events > 0; i++) {
                settle();
                n_events = 0;
                up(&e);
                settle();
        }

        cr_assert_eq(n_events, 0);
        cr_assert_eq(memcmp(&first, &e.wire, sizeof(first)), 0);
        lab_expect(before, "wc -l < " LAB_RUN "/host");
        down(&e);
        expect_nothing_left();
}

Test(wire, a_changed_mtu_is_changed_in_place)
{
        struct endpoint e = web1();
        uint32_t ifindex;

        up(&e);
        ifindex = e.wire.ifindex;
        e.request.mtu = 8950;
        up(&e);

        cr_assert_eq(e.wire.ifindex, ifindex);
        lab_expect("2", "(ip -n web-1 route; ip -n web-1 -6 route) | grep -c 'default.*mtu 8950'");
        lab_expect("1", "ip -n web-1 link show eth0 | grep -c 'mtu 8950'");
        lab_expect("1", "ip link show %s | grep -c 'mtu 8950'", e.wire.ifname);
}

Test(wire, changed_addresses_and_gateways_are_changed_in_place)
{
        struct endpoint e = web1();
        uint32_t ifindex;

        give_host_addresses();
        up(&e);
        ifindex = e.wire.ifindex;
        lab_run("ip -n web-1 addr add 172.30.0.1/24 dev eth0");

        e.addrs[0] = lab_address("10.244.1.20");
        e.addrs[1] = lab_address("fd44:1::20");
        e.gateways[0] = lab_address("10.244.1.254");
        up(&e);

        cr_assert_eq(e.wire.ifindex, ifindex);
        lab_expect(
                "172.30.0.1/24 10.244.1.20/32 fd44:1::20/128",
                "echo $(ip -n web-1 addr show dev eth0 scope global | awk '/inet/ { print $2 }')");
        lab_expect("default via 10.244.1.254 dev eth0 proto 119 mtu 1400 \n"
                   "10.244.1.254 dev eth0 proto 119 scope link \n"
                   "172.30.0.0/24 dev eth0 proto kernel scope link src 172.30.0.1",
                   "ip -n web-1 route");
        lab_expect("10.244.1.254", "ip -n web-1 -4 neigh show nud permanent | cut -d' ' -f1");
        lab_expect("10.244.1.20", "ip route show proto 119 | cut -d' ' -f1");
        ping("10.244.1.20", "fd44:1::20");
}

Test(wire, a_killed_daemons_wiring_is_taken_over)
{
        struct endpoint e = web1();
        struct wire first;

        give_host_addresses();
        up(&e);
        first = e.wire;
        n_events = 1;
        for (unsigned i = 0; i < TRIES && n_events > 0; i++) {
                crash();
                settle();
                n_events = 0;
                up(&e);
                host_settle(h);
                settle();
        }

        cr_assert_eq(n_events, 0);
        cr_assert_eq(memcmp(&first, &e.wire, sizeof(first)), 0);
        ping("10.244.1.10", "fd44:1::10");
        down(&e);
        lab_run("ip link del d0");
        expect_nothing_left();
}

Test(wire, a_killed_daemons_wiring_that_nobody_wants_is_found_and_taken_away)
{
        struct endpoint a = web1();
        char name[16], (*names)[16];
        size_t n_names;

        up(&a);
        wire_ifname("web-1", name);
        cr_assert_str_eq(name, a.wire.ifname);
        lab_run("ip link add weft0 type veth peer name weft1");
        crash();

        names = wires_list(n, &n_names);
        cr_assert_eq(n_names, 1);
        wires_remove(n, names, n_names);
        free(names);
        host_settle(h);

        lab_expect("2", "ip -o link show type veth | wc -l");
        lab_run("ip link del weft0");
        expect_nothing_left();
        lab_expect("", "ip -n web-1 -o link show type veth");
}

Test(wire, half_made_wiring_of_a_killed_daemon_is_completed)
{
        struct endpoint e = web1();

        give_host_addresses();
        up(&e);
        lab_run("ip link set %s down alias '' && ip -n web-1 addr flush dev eth0 &&"
                "ip -n web-1 link set eth0 down && ip -n web-1 link set lo down",
                e.wire.ifname);
        crash();
        up(&e);
        ping("10.244.1.10", "fd44:1::10");
        lab_run("ip netns exec web-1 ping -q -c 4 -i 0.2 -W 2 127.0.0.1 >/dev/null");
}

Test(wire, a_namespace_made_anew_is_wired_anew)
{
        struct endpoint e = web1();
        struct wire first;

        give_host_addresses();
        up(&e);
        first = e.wire;
        /* The old one lives on: a process is in it. */
        lab_run("ip netns exec web-1 sh -c 'echo $$ > /run/sleeper; exec sleep 60' &"
                "for i in $(seq 100); do test -s /run/sleeper && break; sleep 0.05; done;"
                "ip netns del web-1 && ip netns add web-1");
        up(&e);

        cr_assert_neq(e.wire.ifindex, first.ifindex);
        cr_assert_str_eq(e.wire.ifname, first.ifname);
        cr_assert_eq(memcmp(e.wire.mac, first.mac, 6), 0);
        ping("10.244.1.10", "fd44:1::10");
        lab_run("kill $(cat /run/sleeper)");
}

Test(wire, a_pair_whose_device_was_deleted_is_made_anew)
{
        struct endpoint e = web1();

        give_host_addresses();
        up(&e);
        lab_run("ip -n web-1 link del eth0");
        up(&e);
        ping("10.244.1.10", "fd44:1::10");
        down(&e);
        lab_run("ip link del d0");
        expect_nothing_left();
}

Test(wire, another_device_name_makes_the_pair_anew)
{
        struct endpoint e = web1();

        up(&e);
        e.request.device = "net1";
        up(&e);
        lab_expect("net1", "ip -n web-1 -o link show type veth | sed 's/^[0-9]*: //; s/@.*//'");
}

/* ---- refusals ----------------------------------------------------------------------------- */

Test(wire, a_namespace_that_is_not_there_is_pending_and_nothing_is_made)
{
        struct endpoint e = web1();

        e.request.netns = "/run/netns/later";
        cr_assert_eq(try_up(&e), -ENOENT);
        cr_assert(strstr(e.error.text, "/run/netns/later"), "%s", e.error.text);

        lab_run("touch /run/netns/later");
        cr_assert_eq(try_up(&e), -ENOENT, "ip-netns is still at it");
        expect_nothing_left();

        lab_run("rm /run/netns/later && ip netns add later");
        up(&e);
}

Test(wire, a_foreign_device_of_the_name_is_eexist_and_untouched)
{
        struct endpoint e = web1();

        lab_run("ip -n web-1 link add eth0 type bridge");
        cr_assert_eq(try_up(&e), -EEXIST);
        cr_assert(strstr(e.error.text, "eth0"), "%s", e.error.text);
        expect_nothing_left();
        lab_run("ip -n web-1 link show eth0 type bridge >/dev/null");
}

Test(wire, a_foreign_default_route_is_eexist_and_untouched)
{
        struct endpoint e = web1();

        lab_run("ip -n web-1 link add other type bridge && ip -n web-1 link set other up &&"
                "ip -n web-1 addr add 172.30.0.1/24 dev other &&"
                "ip -n web-1 route add default via 172.30.0.2");
        cr_assert_eq(try_up(&e), -EEXIST);
        cr_assert(strstr(e.error.text, "0.0.0.0/0"), "%s", e.error.text);
        lab_expect("default via 172.30.0.2 dev other", "ip -n web-1 route show default");
        expect_nothing_left();
        lab_expect("", "ip -n web-1 -o link show type veth");
}

Test(wire, what_is_no_other_network_namespace_is_einval)
{
        static const char *const paths[] = {
                "/proc/self/ns/net", "/proc/self/ns/mnt", "/etc/passwd", "/dev/null", "/run",
                "/run/fifo",
        };

        cr_assert_eq(mkfifo("/run/fifo", 0600), 0);
        for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
                struct endpoint e = web1();

                e.request.netns = paths[i];
                cr_assert_eq(try_up(&e), -EINVAL, "%s: %s", paths[i], e.error.text);
                cr_assert(strstr(e.error.text, paths[i]), "%s", e.error.text);
        }
        expect_nothing_left();
}

Test(wire, a_process_names_its_namespace)
{
        struct endpoint e = web1();
        pid_t pid = fork();

        if (pid == 0) {
                int fd = open("/run/netns/web-1", O_RDONLY | O_CLOEXEC);

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (setns(fd, CLONE_NEWNET) == 0)
                        (void) creat("/run/there", 0600);
                (void) pause();
                _exit(0);
        }
        lab_run("for i in $(seq 100); do test -e /run/there && exit 0; sleep 0.05; done; exit 1");

        e.request.netns = NULL;
        e.request.pid = (uint32_t) pid;
        up(&e);
        lab_run("ip -n web-1 link show eth0 >/dev/null");

        e.request.started = process_started((uint32_t) pid);
        cr_assert_neq(e.request.started, 0);
        up(&e);
        e.request.started++;
        cr_assert_eq(try_up(&e), -ENOENT);
        cr_assert(strstr(e.error.text, "another one has its number"), "%s", e.error.text);
        e.request.started--;

        cr_assert_eq(kill(pid, SIGKILL), 0);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        cr_assert_eq(try_up(&e), -ENOENT);

        e.request.started = 0;
        e.request.pid = (uint32_t) getpid();
        cr_assert_eq(try_up(&e), -EINVAL);
}

Test(wire, an_address_that_is_routed_elsewhere_is_eexist_and_nothing_stays)
{
        struct endpoint e = web1();

        give_host_addresses();
        lab_run("ip route add 10.244.1.10/32 via 192.0.2.9");
        cr_assert_eq(try_up(&e), -EEXIST);
        cr_assert(strstr(e.error.text, "10.244.1.10"), "%s", e.error.text);
        lab_expect("10.244.1.10 via 192.0.2.9 dev d0", "ip route show 10.244.1.10");
        lab_run("ip link del d0");
        expect_nothing_left();
}

/* ---- down --------------------------------------------------------------------------------- */

Test(wire, down_takes_away_what_up_made_and_nothing_else)
{
        struct endpoint a = web1(), b = web2();

        up(&a);
        up(&b);
        lab_run("ip -n web-1 link add other type bridge");
        down(&a);

        lab_expect("", "ip -n web-1 -o link show type veth");
        lab_run("ip -n web-1 link show other >/dev/null");
        lab_expect("10.244.1.11", "ip route show proto 119 | cut -d' ' -f1");
        down(&b);
        down(&b);
        expect_nothing_left();
        lab_expect("1", "cat /proc/sys/net/ipv6/conf/default/accept_ra");
}

Test(wire, down_works_for_what_a_killed_daemon_made_and_for_what_is_half_gone)
{
        struct endpoint a = web1(), b = web2();

        up(&a);
        up(&b);
        crash();
        lab_run("ip netns del web-2");
        down(&a);
        down(&b);
        host_settle(h);
        expect_nothing_left();
}

Test(wire, many_are_removed_at_once_and_nobody_elses_with_them)
{
        struct endpoint a = web1(), b = web2();
        char names[2][16];

        up(&a);
        up(&b);
        lab_run("ip link add other type veth peer name rehto && ip link set other group 77");
        memcpy(names[0], a.wire.ifname, sizeof(names[0]));
        memcpy(names[1], b.wire.ifname, sizeof(names[1]));
        wires_remove(n, names, 2);
        lab_expect(
                "other rehto",
                "ip -o link show type veth | sed 's/^[0-9]*: //; s/@.*//' | sort | paste -sd' '");

        /* somebody else's in the very group is no reason to delete it */
        lab_run("ip link set other group 0x77656674");
        up(&a);
        up(&b);
        wires_remove(n, names, 2);
        lab_expect(
                "other rehto",
                "ip -o link show type veth | sed 's/^[0-9]*: //; s/@.*//' | sort | paste -sd' '");
        lab_run("ip link del other");
        down(&a);
        down(&b);
        expect_nothing_left();
}
