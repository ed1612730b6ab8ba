/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>

#include "net-lab.h"
#include "util.h"

enum { EVENTS = 4096 };

#define ANY_LINK UINT32_MAX /* an event that names no link */

static struct net_event events[EVENTS];
static size_t n_events;

static void remember(void *data, const struct net_event *e)
{
        (void) data;
        if (n_events < EVENTS)
                events[n_events++] = *e;
}

/* Runs the loop until it has nothing to do. */
static void settle(void)
{
        while (sd_event_run(lab_loop, 100000) > 0)
                ;
}

/* The last event of the kind; ifindex 0: of whatever link. */
static const struct net_event *find(enum net_event_kind kind, uint32_t ifindex)
{
        for (size_t i = n_events; i-- > 0;)
                if (events[i].kind == kind &&
                    (!ifindex || events[i].ifindex == (ifindex == ANY_LINK ? 0 : ifindex)))
                        return &events[i];

        return NULL;
}

static struct net *n;
static uint32_t d0;

static void open_with_dummy(void)
{
        struct net_link l;

        lab_open();
        lab_device("d0");
        n = lab_net(remember);
        cr_assert_eq(net_link_by_name(n, "d0", &l), 0);
        d0 = l.ifindex;
}

static void close_net(void)
{
        n = net_close(n);
        lab_loop = sd_event_unref(lab_loop);
}

TestSuite(net, .init = open_with_dummy, .fini = close_net);

Test(net, a_link_is_found_by_name_and_by_index)
{
        struct net_link l;

        lab_run("ip link set d0 address 02:00:00:00:00:07 mtu 1400 up");

        cr_assert_eq(net_link_by_index(n, d0, &l), 0);
        cr_assert_str_eq(l.name, "d0");
        cr_assert_str_eq(l.kind, "veth");
        cr_assert(l.up && l.ethernet);
        cr_assert_eq(l.mtu, 1400);
        cr_assert_eq(l.mac[5], 7);

        cr_assert_eq(net_link_by_index(n, 1, &l), 0);
        cr_assert_str_eq(l.name, "lo");
        cr_assert(!l.ethernet);
}

Test(net, a_link_that_is_not_there_is_enodev)
{
        struct net_link l;

        cr_assert_eq(net_link_by_name(n, "nothing", &l), -ENODEV);
        cr_assert_eq(net_link_by_name(n, "a-name-longer-than-any", &l), -ENODEV);
        cr_assert_eq(net_link_by_name(n, "", &l), -ENODEV);
        cr_assert_eq(net_link_by_index(n, 999999, &l), -ENODEV);
        cr_assert_eq(net_link_by_index(n, 0, &l), -ENODEV);
}

Test(net, a_link_is_reported_when_it_comes_changes_and_goes)
{
        const struct net_event *e;

        lab_run("ip link set d0 up");
        settle();
        e = find(NET_LINK_NEW, d0);
        cr_assert(e && e->link.up);

        lab_run("ip link set d0 mtu 1300");
        settle();
        cr_assert_eq(find(NET_LINK_NEW, d0)->link.mtu, 1300);

        lab_run("ip link del d0");
        settle();
        e = find(NET_LINK_GONE, d0);
        cr_assert(e);
        cr_assert_str_eq(e->link.name, "d0");

        lab_run("ip link add d1 type bridge");
        settle();
        cr_assert_str_eq(find(NET_LINK_NEW, 0)->link.name, "d1");
}

Test(net, a_repetition_of_the_kernel_is_not_reported)
{
        settle();
        n_events = 0;

        lab_run("ip link set d0 alias nothing-that-matters-here");
        settle();

        cr_assert_null(find(NET_LINK_NEW, 0));
}

Test(net, addresses_of_the_host_are_reported)
{
        struct weft_addr four = lab_address("10.9.0.1"), six = lab_address("fd09::1");

        lab_run("ip addr add 10.9.0.1/24 dev d0");
        settle();
        cr_assert(address_equal(&find(NET_ADDRESS, d0)->addr, &four));

        n_events = 0;
        lab_run("ip addr del 10.9.0.1/24 dev d0");
        settle();
        cr_assert(address_equal(&find(NET_ADDRESS, d0)->addr, &four));

        lab_run("ip addr add fd09::1/64 dev d0 nodad");
        settle();
        cr_assert(address_equal(&find(NET_ADDRESS, d0)->addr, &six));
}

Test(net, routes_rules_and_neighbours_are_reported)
{
        struct weft_prefix dst = lab_prefix("10.8.0.0/16");
        const struct net_event *e;

        lab_run("ip link set d0 up && ip addr add 10.9.0.1/24 dev d0");
        settle();
        n_events = 0;
        lab_run("ip route add 10.8.0.0/16 via 10.9.0.2");
        settle();
        e = find(NET_ROUTE, d0);
        cr_assert(e && e->dst.len == dst.len && address_equal(&e->dst.addr, &dst.addr));

        lab_run("ip route add default via 10.9.0.3");
        settle();
        cr_assert_eq(find(NET_ROUTE, d0)->dst.len, 96);

        n_events = 0;
        lab_run("ip rule add from 10.8.0.1 lookup 100");
        settle();
        e = find(NET_ROUTE, 0);
        cr_assert(e && e->dst.len == 0);

        lab_run("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev d0");
        settle();
        e = find(NET_NEIGHBOUR, d0);
        cr_assert(e && e->mac[5] == 9);
        cr_assert(address_is_ipv4(&e->addr));
}

Test(net, lost_messages_are_made_good_by_reading_everything_again)
{
        struct net_link l;

        lab_run("ip link set d0 up && ip addr add 10.9.0.1/16 dev d0 &&"
                "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev d0");
        settle();
        n_events = 0;

        /* More than the socket holds, so that what follows is lost, but not what came before. */
        lab_run("ip link set d0 mtu 1300; for i in $(seq 20000); do"
                " echo route add 10.$((i / 250 + 20)).$((i %% 250)).0/24 via 10.9.0.2; done |"
                "ip -batch - && ip link del d0 && ip link add late type bridge");
        settle();

        cr_assert_gt(find(NET_LINK_GONE, d0), find(NET_LINK_NEW, d0), "gone, and not come back");
        cr_assert_eq(net_link_by_name(n, "late", &l), 0);
        cr_assert(find(NET_LINK_NEW, l.ifindex));
        cr_assert(find(NET_ADDRESS, ANY_LINK), "any address may have changed");
}

Test(net, interfaces_of_default_routes_are_found_for_both_families)
{
        uint32_t found[4];

        cr_assert_eq(net_default_links(n, found, 4), 0);

        lab_device("d1");
        lab_device("d2");
        lab_run("ip link set d0 up && ip link set d1 up && ip link set d2 up &&"
                "ip addr add 10.9.0.1/24 dev d0 && ip addr add 10.7.0.1/24 dev d1 &&"
                "ip addr add fd09::1/64 dev d2 nodad &&"
                "ip route add default nexthop via 10.9.0.2 nexthop via 10.7.0.2 &&"
                "ip -6 route add default via fd09::2 && ip route add 10.6.0.0/16 via 10.9.0.2");

        cr_assert_eq(net_default_links(n, found, 4), 3);
        cr_assert_eq(found[0], d0);
        cr_assert_eq(net_default_links(n, found, 1), 1);
}

Test(net, the_first_global_address_of_a_link_is_its_address)
{
        struct weft_addr a, four = lab_address("10.9.0.1"), six = lab_address("fd09::1");

        lab_run("ip link set d0 up && ip addr add 169.254.1.1/16 scope link dev d0 &&"
                "ip addr add 10.9.0.1/24 dev d0 && ip addr add 10.9.0.5/24 dev d0 &&"
                "ip addr add fd09::1/64 dev d0 nodad && ip addr add fd09::5/64 dev d0 nodad &&"
                "ip addr add fd09:1::1/64 dev d0 nodad preferred_lft 0");

        cr_assert_eq(net_link_address(n, d0, AF_INET, &a), 0);
        cr_assert(address_equal(&a, &four));
        cr_assert_eq(net_link_address(n, d0, AF_INET6, &a), 0);
        cr_assert(address_equal(&a, &six));
        cr_assert_eq(net_link_address(n, 1, AF_INET, &a), -ENOENT);

        /* Without the first, the next one; one that is deprecated only where there is no other. */
        lab_run("ip addr del fd09::1/64 dev d0");
        six = lab_address("fd09::5");
        cr_assert_eq(net_link_address(n, d0, AF_INET6, &a), 0);
        cr_assert(address_equal(&a, &six));
        lab_run("ip addr del fd09::5/64 dev d0");
        six = lab_address("fd09:1::1");
        cr_assert_eq(net_link_address(n, d0, AF_INET6, &a), 0);
        cr_assert(address_equal(&a, &six));
}

static bool on_link(const char *text)
{
        const struct weft_addr a = lab_address(text);

        return net_is_on_link(n, &a);
}

Test(net, what_is_reached_without_a_gateway_is_on_the_link)
{
        cr_assert_not(on_link("10.9.0.7"), "there is no route");

        lab_device("d1");
        lab_run("ip link set d0 up && ip link set d1 up && ip addr add 10.9.0.1/24 dev d0 &&"
                "ip addr add fd09::1/64 dev d0 nodad && ip route add default via 10.9.0.2 &&"
                "ip route add blackhole 10.8.0.0/16 && ip route add 10.7.0.0/16 nexthop dev d0 "
                "nexthop dev d1");

        cr_expect(on_link("10.9.0.7"));
        cr_expect(on_link("fd09::7"));
        cr_expect_not(on_link("192.0.2.1"), "by a gateway");
        cr_expect_not(on_link("10.9.0.1"), "the node's own");
        cr_expect_not(on_link("10.8.0.1"), "not reached at all");
        cr_expect_not(on_link("10.7.0.1"), "by one of two interfaces");
        cr_expect_not(on_link("fd08::1"), "no route");
}

static unsigned n_addresses;

static void count_address(void *data, uint32_t ifindex, const struct weft_addr *a)
{
        struct net_link l;

        (void) data;
        (void) a;
        /* Asking in the middle of an answer must work. */
        cr_assert_eq(net_link_by_index(n, ifindex, &l), 0);
        n_addresses++;
}

Test(net, all_addresses_are_listed_and_the_listener_may_ask_more)
{
        lab_run("ip addr add 10.9.0.1/24 dev d0");

        net_addresses(n, count_address, NULL);

        cr_assert_eq(n_addresses, 3, "127.0.0.1, ::1 and 10.9.0.1");
}

/* ---- listening sockets -------------------------------------------------------------------- */

struct expected {
        struct weft_addr addr;
        uint16_t port;
        uint8_t proto;
        bool found;
};

static void look_for(void *data, const struct net_listener *l)
{
        struct expected *e = data;

        e->found = e->found || (l->port == e->port && l->proto == e->proto && l->uid == geteuid() &&
                                address_equal(&l->addr, &e->addr));
}

static bool is_listening(const char *address, uint16_t port, uint8_t proto)
{
        struct expected e = { .addr = lab_address(address), .port = port, .proto = proto };
        struct weft_error error = { "" };

        cr_assert_eq(net_listeners(look_for, &e, &error), 0, "%s", error.text);
        return e.found;
}

static int bound(int type, const char *address, uint16_t port)
{
        struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        struct weft_addr parsed = lab_address(address);
        int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), zero = 0;

        memcpy(&a.sin6_addr, parsed.w, sizeof(parsed.w));
        cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)), 0);
        cr_assert_eq(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0, "%s: %m", address);
        return fd;
}

Test(net, sockets_that_take_packets_are_told_and_others_are_not)
{
        int tcp = bound(SOCK_STREAM, "::", 30080), udp = bound(SOCK_DGRAM, "::1", 30053), connected;

        cr_expect_not(is_listening("::", 30080, IPPROTO_TCP), "bound, but not listening");
        cr_assert_eq(listen(tcp, 1), 0);
        cr_expect(is_listening("::", 30080, IPPROTO_TCP));
        cr_expect_not(is_listening("::", 30080, IPPROTO_UDP));
        cr_expect(is_listening("::1", 30053, IPPROTO_UDP));

        connected = bound(SOCK_DGRAM, "::1", 30054);
        cr_expect(is_listening("::1", 30054, IPPROTO_UDP));
        cr_assert_eq(connect(connected,
                             (struct sockaddr *) &(struct sockaddr_in6) {
                                     .sin6_family = AF_INET6,
                                     .sin6_port = htons(9),
                                     .sin6_addr = IN6ADDR_LOOPBACK_INIT },
                             sizeof(struct sockaddr_in6)),
                     0);
        cr_expect_not(is_listening("::1", 30054, IPPROTO_UDP), "it takes packets of one peer only");

        closep(&tcp);
        closep(&udp);
        closep(&connected);
        cr_expect_not(is_listening("::", 30080, IPPROTO_TCP));
}

Test(net, listeners_of_an_IPv4_address_are_told_by_their_mapped_address)
{
        struct sockaddr_in a = { .sin_family = AF_INET,
                                 .sin_port = htons(30081),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        cr_assert_eq(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0, "%m");
        cr_assert_eq(listen(fd, 1), 0);
        cr_expect(is_listening("127.0.0.1", 30081, IPPROTO_TCP));
        closep(&fd);
}

/* ---- who else translates addresses -------------------------------------------------------- */

static void expect_nat(enum nat_kind kind, const char *where)
{
        static const char *const pods[] = { "10.244.1.0/24", "fd00:244:1::/64" };
        struct weft_prefix prefixes[ELEMENTS(pods)];
        char found[128] = "";
        int r;

        for (size_t i = 0; i < ELEMENTS(pods); i++)
                cr_assert_eq(parse_prefix(pods[i], &prefixes[i]), 0);
        r = nat_of_others(kind, prefixes, ELEMENTS(pods), found, sizeof(found));
        cr_assert_eq(r, where != NULL, "%s", found);
        if (where)
                cr_assert(strstr(found, where), "%s", found);
}

Test(net, rules_of_others_that_masquerade_pods_are_told_from_those_that_do_not)
{
        static const struct {
                const char *rule, *where;
        } rules[] = {
                { "masquerade", "table ip t, chain post, handle " },
                { "ip saddr 10.244.0.0/16 counter masquerade", "chain post" },
                { "ip saddr 10.244.1.128/25 snat to 192.0.2.1", "chain post" },
                { "ip saddr { 10.1.0.0/16, 10.244.1.7 } masquerade", "chain post" },
                { "ip saddr != 10.1.0.0/16 masquerade", "chain post" },
                { "ip saddr @some masquerade", "chain post" },
                { "ip saddr 10.244.0.0/16 jump mine", "chain mine" },
                { "ip saddr 10.1.0.0/16 jump mine", NULL },
                { "ip saddr 10.244.2.0/24 masquerade", NULL },
                { "ip saddr { 10.1.0.0/16, 10.2.0.1 } masquerade", NULL },
                { "ip saddr 10.244.1.0/24 accept", NULL },
        };

        lab_open();
        for (size_t i = 0; i < ELEMENTS(rules); i++) {
                lab_run("nft -f - <<E\n"
                        "flush ruleset\n"
                        "table ip t {\n set some { type ipv4_addr; }\n"
                        "chain mine { %s\n}\n"
                        "chain post { type nat hook postrouting priority srcnat; %s\n}\n}\nE",
                        strstr(rules[i].rule, "jump") ? "masquerade" : "", rules[i].rule);
                expect_nat(NAT_SOURCE, rules[i].where);
                expect_nat(NAT_DESTINATION, NULL);
        }
}

Test(net, rules_of_others_that_lead_connections_to_pods_are_told_from_those_that_do_not)
{
        static const struct {
                const char *rule, *where;
        } rules[] = {
                { "tcp dport 80 dnat to 10.244.1.10:8080", "chain pre" },
                { "tcp dport 80 redirect to 8080", "chain pre" },
                { "dnat to tcp dport map { 80 : 10.244.1.10 }", "chain pre" },
                { "tcp dport 80 dnat to 10.88.0.5:80", NULL },
        };

        lab_open();
        for (size_t i = 0; i < ELEMENTS(rules); i++) {
                lab_run("nft -f - <<E\nflush ruleset\ntable ip t { chain pre { type nat hook "
                        "prerouting priority dstnat; %s\n}; }\nE",
                        rules[i].rule);
                expect_nat(NAT_DESTINATION, rules[i].where);
                expect_nat(NAT_SOURCE, NULL);
        }
}

Test(net, rules_in_the_tables_of_old_iptables_are_found_and_looking_makes_no_table)
{
        lab_open();
        expect_nat(NAT_SOURCE, NULL);
        lab_expect("", "cat /proc/net/ip_tables_names");

        lab_run("iptables-legacy -t nat -A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE");
        expect_nat(NAT_SOURCE, NULL);
        lab_run("ip6tables-legacy -t nat -A POSTROUTING -s fd00:244::/32 -j MASQUERADE");
        expect_nat(NAT_SOURCE, "ip6tables-legacy");
        lab_run("iptables-legacy -t nat -A POSTROUTING ! -s 10.1.0.0/16 -j MASQUERADE");
        expect_nat(NAT_SOURCE, "nat table of iptables-legacy");
        lab_run("iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 10.244.1.1");
        expect_nat(NAT_DESTINATION, "iptables-legacy");
}
