/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>

#include "net/rtnl.h"

static void parse_kind(struct nlattr *info, char *ret, size_t size)
{
        struct nlattr *a[IFLA_INFO_MAX + 1] = { 0 };

        if (!info || nla_parse_nested(a, IFLA_INFO_MAX, info, NULL) < 0 || !a[IFLA_INFO_KIND])
                return;

        (void) nla_strlcpy(ret, a[IFLA_INFO_KIND], size);
}

bool link_parse(const struct nlmsghdr *h, struct link_info *ret)
{
        const struct ifinfomsg *m = nlmsg_data(h);
        struct nlattr *a[IFLA_MAX + 1];

        /* A bridge reports its ports with messages of the same type. */
        if ((h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK) ||
            m->ifi_family != AF_UNSPEC)
                return false;

        /* Whole structs are compared with memcmp(), hence the padding too. */
        memset(ret, 0, sizeof(*ret));
        rtnl_parse(h, sizeof(*m), a, IFLA_MAX);

        ret->link.ifindex = m->ifi_index;
        ret->link.up = m->ifi_flags & IFF_UP;
        ret->link.ethernet = m->ifi_type == ARPHRD_ETHER;
        if (a[IFLA_IFNAME])
                (void) nla_strlcpy(ret->link.name, a[IFLA_IFNAME], sizeof(ret->link.name));
        if (a[IFLA_MTU])
                ret->link.mtu = nla_get_u32(a[IFLA_MTU]);
        if (a[IFLA_ADDRESS] && nla_len(a[IFLA_ADDRESS]) == sizeof(ret->link.mac))
                memcpy(ret->link.mac, nla_data(a[IFLA_ADDRESS]), sizeof(ret->link.mac));
        parse_kind(a[IFLA_LINKINFO], ret->link.kind, sizeof(ret->link.kind));

        ret->peer = a[IFLA_LINK] ? nla_get_u32(a[IFLA_LINK]) : 0;
        ret->netnsid = a[IFLA_LINK_NETNSID] ? nla_get_s32(a[IFLA_LINK_NETNSID]) : -1;
        ret->group = a[IFLA_GROUP] ? nla_get_u32(a[IFLA_GROUP]) : 0;
        if (a[IFLA_IFALIAS])
                (void) nla_strlcpy(ret->alias, a[IFLA_IFALIAS], sizeof(ret->alias));

        return true;
}

static void on_link(void *data, const struct nlmsghdr *h)
{
        (void) link_parse(h, data);
}

int link_get(struct nl_sock *s, const char *name, uint32_t ifindex, struct link_info *ret,
             struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex };
        struct nl_msg *m = rtnl_new(RTM_GETLINK, 0, &head, sizeof(head));

        if (name)
                rtnl_put_string(m, IFLA_IFNAME, name);

        return rtnl_ask(s, m, on_link, ret, reterr);
}

int links_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr)
{
        struct ifinfomsg head = { 0 };

        return rtnl_ask(s, rtnl_new(RTM_GETLINK, NLM_F_DUMP, &head, sizeof(head)), f, data, reterr);
}

int link_up(struct nl_sock *s, uint32_t ifindex, struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex,
                                  .ifi_flags = IFF_UP,
                                  .ifi_change = IFF_UP };

        return rtnl_ask(s, rtnl_new(RTM_NEWLINK, 0, &head, sizeof(head)), NULL, NULL, reterr);
}

int link_set_mtu(struct nl_sock *s, uint32_t ifindex, uint32_t mtu, struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, 0, &head, sizeof(head));

        rtnl_put_u32(m, IFLA_MTU, mtu);
        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int link_delete(struct nl_sock *s, uint32_t ifindex, struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex };

        return rtnl_ask(s, rtnl_new(RTM_DELLINK, 0, &head, sizeof(head)), NULL, NULL, reterr);
}

int link_set_group(struct nl_sock *s, uint32_t ifindex, uint32_t group, struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, 0, &head, sizeof(head));

        rtnl_put_u32(m, IFLA_GROUP, group);
        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int links_delete(struct nl_sock *s, uint32_t group, struct weft_error *reterr)
{
        struct ifinfomsg head = { 0 };
        struct nl_msg *m = rtnl_new(RTM_DELLINK, 0, &head, sizeof(head));

        rtnl_put_u32(m, IFLA_GROUP, group);
        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int net_link_by_name(struct net *n, const char *name, struct net_link *ret)
{
        struct link_info info;
        int r;

        /* The kernel refuses a longer name with another error. */
        if (strlen(name) >= IFNAMSIZ || !*name)
                return -ENODEV;

        r = link_get(net_socket(n), name, 0, &info, NULL);
        if (r < 0)
                return r;

        *ret = info.link;
        return 0;
}

int net_link_by_index(struct net *n, uint32_t ifindex, struct net_link *ret)
{
        struct link_info info;
        int r;

        if (ifindex == 0)
                return -ENODEV;

        r = link_get(net_socket(n), NULL, ifindex, &info, NULL);
        if (r < 0)
                return r;

        *ret = info.link;
        return 0;
}
