/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The world in which modules' test packets run: see module.h. */

#include <errno.h>
#include <fcntl.h>
#include <linux/veth.h>
#include <sched.h>
#include <string.h>

#include "net/hold.h"
#include "net/rtnl.h"

const uint8_t dry_endpoint_mac[6] = { 2, 0, 0, 0, 3, 0 }, dry_gateway_mac[6] = { 2, 0, 0, 0, 4, 0 };
static const uint8_t uplink_mac[6] = { 2, 0, 0, 0, 1, 0 }, router_mac[6] = { 2, 0, 0, 0, 2, 0 };

/* Destination, gateway; without one: on the link. */
struct way {
        const char *dst, *gateway;
};

struct device {
        const char *name, *peer;
        const uint8_t *mac, *peer_mac; /* peer_mac: of its permanent neighbours */
        const char *addresses[2], *neighbours[4];
        struct way ways[6];
};

/* In both families; those with a ':' are left out where the kernel has no IPv6. */
static const struct device devices[] = {
        { "uplink",
          "wire0",
          uplink_mac,
          router_mac,
          { DRY_ADDRESS4, DRY_ADDRESS6 },
          { "192.0.2.1", "192.0.2.12", "2001:db8::1", "2001:db8::12" },
          { { "192.0.2.0/24", NULL },
            { "0.0.0.0/0", "192.0.2.1" },
            { "10.244.2.0/24", "192.0.2.12" },
            { "2001:db8::/64", NULL },
            { "::/0", "2001:db8::1" },
            { "fd00:244:2::/64", "2001:db8::12" } } },
        { "endpoint",
          "wire1",
          dry_gateway_mac,
          dry_endpoint_mac,
          { NULL },
          { DRY_ENDPOINT4, DRY_ENDPOINT6 },
          { { DRY_ENDPOINT4 "/32", NULL }, { DRY_ENDPOINT6 "/128", NULL } } },
};

static int make_device(struct nl_sock *s, const struct device *d, struct weft_error *reterr)
{
        struct ifinfomsg head = { 0 };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
        struct nlattr *info, *data, *peer;

        rtnl_put_string(m, IFLA_IFNAME, d->name);
        rtnl_put(m, IFLA_ADDRESS, d->mac, 6);
        info = rtnl_begin(m, IFLA_LINKINFO);
        rtnl_put_string(m, IFLA_INFO_KIND, "veth");
        data = rtnl_begin(m, IFLA_INFO_DATA);
        peer = rtnl_begin(m, VETH_INFO_PEER);
        if (m)
                (void) nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO);
        rtnl_put_string(m, IFLA_IFNAME, d->peer);
        rtnl_end(m, peer);
        rtnl_end(m, data);
        rtnl_end(m, info);

        return rtnl_ask(s, m, NULL, NULL, reterr);
}

static int bring_up(struct nl_sock *s, const char *name, uint32_t *ret_ifindex,
                    struct weft_error *reterr)
{
        struct link_info link;
        int r = link_get(s, name, 0, &link, reterr);

        if (r < 0)
                return r;

        *ret_ifindex = link.link.ifindex;
        return link_up(s, link.link.ifindex, reterr);
}

static int make_devices(struct nl_sock *s, struct dry_network *n, struct weft_error *reterr)
{
        uint32_t peer, *indexes[] = { &n->uplink, &n->endpoint };
        int r = 0;

        for (size_t i = 0; r >= 0 && i < ELEMENTS(indexes); i++) {
                r = make_device(s, &devices[i], reterr);
                if (r >= 0)
                        r = bring_up(s, devices[i].peer, &peer, reterr);
                if (r >= 0)
                        r = bring_up(s, devices[i].name, indexes[i], reterr);
        }

        return r;
}

static int add_ways(struct nl_sock *s, const struct device *d, const struct dry_network *n,
                    uint32_t ifindex, struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < ELEMENTS(d->ways) && d->ways[i].dst; i++) {
                struct route route = { .ifindex = ifindex };

                if (!n->has6 && strchr(d->ways[i].dst, ':'))
                        continue;
                (void) parse_network(d->ways[i].dst, &route.dst);
                if (d->ways[i].gateway)
                        (void) parse_address(d->ways[i].gateway, &route.gateway);
                r = route_add(s, &route, false, reterr);
                if (r < 0)
                        r = weft_fail_in(reterr, r, "%s", d->ways[i].dst);
        }

        return r;
}

static size_t read_addresses(const char *const *texts, size_t max, bool has6, struct weft_addr *ret)
{
        size_t n = 0;

        for (size_t i = 0; i < max && texts[i]; i++)
                if (has6 || !strchr(texts[i], ':'))
                        (void) parse_address(texts[i], &ret[n++]);

        return n;
}

static int furnish(struct nl_sock *s, const struct device *d, const struct dry_network *n,
                   uint32_t ifindex, struct weft_error *reterr)
{
        struct weft_addr list[ELEMENTS(d->neighbours)];
        size_t count = read_addresses(d->addresses, ELEMENTS(d->addresses), n->has6, list);
        int r = addresses_set(s, ifindex, list, count, reterr);

        if (r >= 0)
                r = add_ways(s, d, n, ifindex, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "%s", d->name);

        count = read_addresses(d->neighbours, ELEMENTS(d->neighbours), n->has6, list);
        return neighbours_set(s, ifindex, list, count, d->peer_mac, reterr);
}

static int make_network(struct dry_network *n, struct weft_error *reterr)
{
        _cleanup_rtnl_ struct nl_sock *s = NULL;
        int r;

        n->has6 = sysctl_write("net/ipv6/conf/all/forwarding", "1") >= 0 &&
                  sysctl_write("net/ipv6/conf/default/forwarding", "1") >= 0;
        r = sysctl_write("net/ipv4/ip_forward", "1");
        if (r < 0)
                return weft_fail(reterr, r, "net/ipv4/ip_forward: %s", strerror(-r));

        r = rtnl_open(&s, reterr);
        if (r >= 0)
                r = make_devices(s, n, reterr);
        if (r >= 0)
                r = furnish(s, &devices[0], n, n->uplink, reterr);
        return r < 0 ? r : furnish(s, &devices[1], n, n->endpoint, reterr);
}

int dry_network_open(struct dry_network *ret, struct weft_error *reterr)
{
        struct dry_network n = { .ns = -1 };
        int r;

        n.home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (n.home < 0 || unshare(CLONE_NEWNET) < 0) {
                r = weft_fail(reterr, -errno, "network namespace for test packets: %s",
                              strerror(errno));
                closep(&n.home);
                return r;
        }

        n.ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        r = n.ns < 0 ? weft_fail(reterr, -errno, "%s", strerror(errno)) : make_network(&n, reterr);
        dry_network_leave(&n);
        if (r < 0) {
                dry_network_close(&n);
                return weft_fail_in(reterr, r, "network for test packets");
        }

        *ret = n;
        return 0;
}

void dry_network_close(struct dry_network *n)
{
        closep(&n->ns);
        closep(&n->home);
        n->ns = n->home = -1;
}

int dry_network_enter(const struct dry_network *n, struct weft_error *reterr)
{
        return setns(n->ns, CLONE_NEWNET) < 0
                       ? weft_fail(reterr, -errno, "network for test packets: %s", strerror(errno))
                       : 0;
}

/* There is no going on in the wrong namespace. */
void dry_network_leave(const struct dry_network *n)
{
        if (setns(n->home, CLONE_NEWNET) < 0)
                abort();
}
