/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "net/net.h"
#include "net/rtnl.h"

static bool prefix_is_ipv4(const struct weft_prefix *p)
{
        return address_family(&p->addr) == AF_INET && p->len >= 96;
}

bool prefix_equal(const struct weft_prefix *a, const struct weft_prefix *b)
{
        return a->len == b->len && address_equal(&a->addr, &b->addr);
}

static uint32_t parse_mtu(struct nlattr *metrics)
{
        struct nlattr *a[RTAX_MAX + 1] = { 0 };

        if (!metrics || nla_parse_nested(a, RTAX_MAX, metrics, NULL) < 0 || !a[RTAX_MTU])
                return 0;

        return nla_get_u32(a[RTAX_MTU]);
}

bool route_parse(const struct nlmsghdr *h, struct route *ret)
{
        const struct rtmsg *m = nlmsg_data(h);
        struct nlattr *a[RTA_MAX + 1];
        bool four = m->rtm_family == AF_INET;

        if ((h->nlmsg_type != RTM_NEWROUTE && h->nlmsg_type != RTM_DELROUTE) ||
            (!four && m->rtm_family != AF_INET6) || (m->rtm_flags & RTM_F_CLONED))
                return false;

        rtnl_parse(h, sizeof(*m), a, RTA_MAX);
        *ret = (struct route) {
                .dst = { .addr = address_of(a[RTA_DST]), .len = m->rtm_dst_len + (four ? 96u : 0) },
                .gateway = address_of(a[RTA_GATEWAY]),
                .src = address_of(a[RTA_PREFSRC]),
                .ifindex = a[RTA_OIF] ? nla_get_u32(a[RTA_OIF]) : 0,
                .mtu = parse_mtu(a[RTA_METRICS]),
                .table = a[RTA_TABLE] ? nla_get_u32(a[RTA_TABLE]) : m->rtm_table,
                .protocol = m->rtm_protocol,
                .type = m->rtm_type,
        };
        if (!a[RTA_DST] && four)
                ret->dst.addr.w[2] = htonl(0xffff);

        return true;
}

bool route_equal(const struct route *a, const struct route *b)
{
        return prefix_equal(&a->dst, &b->dst) && address_equal(&a->gateway, &b->gateway) &&
               address_equal(&a->src, &b->src) && a->mtu == b->mtu &&
               (a->ifindex == b->ifindex || !a->ifindex || !b->ifindex);
}

struct route_listener {
        void (*f)(void *data, const struct route *r, const struct nlmsghdr *h);
        void *data;
};

static void on_route(void *data, const struct nlmsghdr *h)
{
        const struct route_listener *l = data;
        struct route r;

        if (route_parse(h, &r) && r.table == RT_TABLE_MAIN && r.type == RTN_UNICAST)
                l->f(l->data, &r, h);
}

int routes_each(struct nl_sock *s,
                void (*f)(void *data, const struct route *r, const struct nlmsghdr *h), void *data,
                struct weft_error *reterr)
{
        struct route_listener l = { f, data };
        struct rtmsg head = { 0 };

        return rtnl_ask(s, rtnl_new(RTM_GETROUTE, NLM_F_DUMP, &head, sizeof(head)), on_route, &l,
                        reterr);
}

static void on_covering(void *data, const struct nlmsghdr *h)
{
        (void) route_parse(h, data);
}

int route_covering(struct nl_sock *s, const struct weft_prefix *dst, struct route *ret)
{
        struct rtmsg head = { .rtm_family = (uint8_t) address_family(&dst->addr),
                              .rtm_dst_len = address_bits(&dst->addr),
                              .rtm_flags = RTM_F_FIB_MATCH };
        struct nl_msg *m = rtnl_new(RTM_GETROUTE, 0, &head, sizeof(head));

        *ret = (struct route) { 0 };
        rtnl_put_address(m, RTA_DST, &dst->addr);

        return rtnl_ask(s, m, on_covering, ret, NULL);
}

bool net_is_on_link(struct net *n, const struct weft_addr *a)
{
        struct weft_prefix host = { .addr = *a, .len = 128 };
        struct route r;

        return route_covering(net_socket(n), &host, &r) == 0 && r.type == RTN_UNICAST &&
               r.ifindex != 0 && address_is_zero(&r.gateway);
}

uint32_t net_way_to(struct net *n, const struct weft_addr *a)
{
        struct weft_prefix host = { .addr = *a, .len = 128 };
        struct route r;

        return route_covering(net_socket(n), &host, &r) == 0 && r.type == RTN_UNICAST ? r.ifindex
                                                                                      : 0;
}

static struct nl_msg *route_message(int type, int flags, const struct weft_prefix *dst,
                                    uint8_t scope, bool onlink)
{
        bool four = prefix_is_ipv4(dst);
        struct rtmsg head = {
                .rtm_family = four ? AF_INET : AF_INET6,
                .rtm_dst_len = (uint8_t) (four ? dst->len - 96 : dst->len),
                .rtm_table = RT_TABLE_MAIN,
                .rtm_protocol = WEFT_ROUTE_PROTOCOL,
                .rtm_scope = scope,
                .rtm_type = RTN_UNICAST,
                .rtm_flags = onlink ? RTNH_F_ONLINK : 0,
        };
        struct nl_msg *m = rtnl_new(type, flags, &head, sizeof(head));

        if (head.rtm_dst_len > 0)
                rtnl_put_address(m, RTA_DST, &dst->addr);

        return m;
}

int route_add(struct nl_sock *s, const struct route *r, bool replace, struct weft_error *reterr)
{
        bool via = !address_is_zero(&r->gateway);
        struct nl_msg *m =
                route_message(RTM_NEWROUTE, NLM_F_CREATE | (replace ? NLM_F_REPLACE : NLM_F_EXCL),
                              &r->dst, via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK, r->onlink);
        struct nlattr *metrics;

        if (via)
                rtnl_put_address(m, RTA_GATEWAY, &r->gateway);
        if (r->ifindex)
                rtnl_put_u32(m, RTA_OIF, r->ifindex);
        if (!address_is_zero(&r->src))
                rtnl_put_address(m, RTA_PREFSRC, &r->src);
        if (r->mtu) {
                metrics = rtnl_begin(m, RTA_METRICS);
                rtnl_put_u32(m, RTAX_MTU, r->mtu);
                rtnl_end(m, metrics);
        }

        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int route_delete(struct nl_sock *s, const struct weft_prefix *dst, struct weft_error *reterr)
{
        return rtnl_ask(s, route_message(RTM_DELROUTE, 0, dst, RT_SCOPE_NOWHERE, false), NULL, NULL,
                        reterr);
}

struct link_set {
        uint32_t *ifindex;
        size_t n, max;
};

static void link_set_add(struct link_set *set, uint32_t ifindex)
{
        for (size_t i = 0; i < set->n; i++)
                if (set->ifindex[i] == ifindex)
                        return;

        if (ifindex && set->n < set->max)
                set->ifindex[set->n++] = ifindex;
}

static void on_default(void *data, const struct route *r, const struct nlmsghdr *h)
{
        struct nlattr *a[RTA_MAX + 1];
        struct rtnexthop *hop;
        int left;

        if (r->dst.len != (prefix_is_ipv4(&r->dst) ? 96u : 0u))
                return;

        link_set_add(data, r->ifindex);
        rtnl_parse(h, sizeof(struct rtmsg), a, RTA_MAX);
        if (!a[RTA_MULTIPATH])
                return;

        hop = nla_data(a[RTA_MULTIPATH]);
        left = nla_len(a[RTA_MULTIPATH]);
        for (; RTNH_OK(hop, left); left -= RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
                link_set_add(data, (uint32_t) hop->rtnh_ifindex);
}

size_t net_default_links(struct net *n, uint32_t *ret_ifindex, size_t max)
{
        struct link_set set = { .ifindex = ret_ifindex, .max = max };

        (void) routes_each(net_socket(n), on_default, &set, NULL);

        return set.n;
}
