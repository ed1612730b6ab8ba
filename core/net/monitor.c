/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Two sockets: one asks, one listens. The listening one may overflow (ENOBUFS) when changes come
 * faster than the loop reads them; then everything is read again and reported as if it had changed.
 * Only links are kept here, to tell a change of theirs from the kernel's many repetitions. */

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <string.h>
#include <sys/socket.h>

#include "net/rtnl.h"

enum {
        WATCH_BUFFER = 1 << 20,
        DATAGRAMS_AT_ONCE = 64,
        DATAGRAMS_IN_QUEUE = 65536, /* more than the buffer can hold */
        DATAGRAM_BYTES = 65536,
};

struct net {
        struct nl_sock *ask, *watch;
        sd_event_source *source;
        net_event_fn f;
        void *data;
        struct net_link *links;
        size_t n_links;
        uint8_t buffer[DATAGRAM_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

struct nl_sock *net_socket(struct net *n)
{
        return n->ask;
}

static struct net_link *find_link(struct net *n, uint32_t ifindex)
{
        for (size_t i = 0; i < n->n_links; i++)
                if (n->links[i].ifindex == ifindex)
                        return &n->links[i];

        return NULL;
}

/* True where the link is new or not what it was. */
static bool keep_link(struct net *n, const struct net_link *l)
{
        struct net_link *known = find_link(n, l->ifindex), *grown;

        if (!known) {
                grown = reallocarray(n->links, n->n_links + 1, sizeof(*grown));
                if (!grown)
                        return true;
                n->links = grown;
                n->links[n->n_links++] = *l;
                return true;
        }
        if (memcmp(known, l, sizeof(*l)) == 0)
                return false;

        *known = *l;
        return true;
}

static void emit_link(struct net *n, enum net_event_kind kind, const struct net_link *l)
{
        n->f(n->data, &(struct net_event) { .kind = kind, .ifindex = l->ifindex, .link = *l });
}

static void forget_link(struct net *n, uint32_t ifindex)
{
        struct net_link *known = find_link(n, ifindex), gone;

        if (!known)
                return;

        gone = *known;
        *known = n->links[--n->n_links];
        emit_link(n, NET_LINK_GONE, &gone);
}

static void handle_link(struct net *n, const struct nlmsghdr *h)
{
        struct link_info i;

        if (!link_parse(h, &i))
                return;

        if (h->nlmsg_type == RTM_DELLINK)
                forget_link(n, i.link.ifindex);
        else if (keep_link(n, &i.link))
                emit_link(n, NET_LINK_NEW, &i.link);
}

static void handle_address(struct net *n, const struct nlmsghdr *h)
{
        struct address_info i;

        if (address_parse_message(h, &i))
                n->f(n->data, &(struct net_event) {
                                      .kind = NET_ADDRESS, .ifindex = i.ifindex, .addr = i.addr });
}

static void handle_route(struct net *n, const struct nlmsghdr *h)
{
        struct route r;

        /* The local table follows addresses, which are reported as such. */
        if (route_parse(h, &r) && r.table != RT_TABLE_LOCAL)
                n->f(n->data, &(struct net_event) { .kind = NET_ROUTE,
                                                    .ifindex = r.ifindex,
                                                    .dst = r.dst,
                                                    .gone = h->nlmsg_type == RTM_DELROUTE });
}

/* The kernel tells of more settings than forwarding, one in each message. */
static void handle_setting(struct net *n, const struct nlmsghdr *h)
{
        struct nlattr *a[NETCONFA_MAX + 1];

        rtnl_parse(h, sizeof(struct netconfmsg), a, NETCONFA_MAX);
        if (a[NETCONFA_FORWARDING] && a[NETCONFA_IFINDEX])
                n->f(n->data, &(struct net_event) { .kind = NET_SETTING,
                                                    .ifindex = nla_get_u32(a[NETCONFA_IFINDEX]) });
}

static void handle_neighbour(struct net *n, const struct nlmsghdr *h)
{
        struct net_event e = { .kind = NET_NEIGHBOUR };
        struct neighbour_info i;

        if (h->nlmsg_type != RTM_NEWNEIGH || !neighbour_parse(h, &i) ||
            (i.state & (NUD_FAILED | NUD_INCOMPLETE)))
                return;

        e.ifindex = i.ifindex;
        e.addr = i.addr;
        memcpy(e.mac, i.mac, sizeof(e.mac));
        n->f(n->data, &e);
}

/* A rule or an unknown number of routes: any destination may go another way now. */
static void emit_any_route(struct net *n)
{
        n->f(n->data, &(struct net_event) { .kind = NET_ROUTE, .gone = true });
}

static void handle(void *data, const struct nlmsghdr *h)
{
        struct net *n = data;

        switch (h->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_DELLINK:
                handle_link(n, h);
                break;
        case RTM_NEWADDR:
        case RTM_DELADDR:
                handle_address(n, h);
                break;
        case RTM_NEWROUTE:
        case RTM_DELROUTE:
                handle_route(n, h);
                break;
        case RTM_NEWNEIGH:
                handle_neighbour(n, h);
                break;
        case RTM_NEWNETCONF:
                handle_setting(n, h);
                break;
        case RTM_NEWRULE:
        case RTM_DELRULE:
                emit_any_route(n);
                break;
        }
}

struct seen {
        uint32_t *ifindex;
        size_t n;
        struct net *net;
        bool failed;
};

static void on_seen_link(void *data, const struct nlmsghdr *h)
{
        struct seen *seen = data;
        struct link_info i;
        uint32_t *grown;

        if (!link_parse(h, &i))
                return;

        grown = reallocarray(seen->ifindex, seen->n + 1, sizeof(*grown));
        if (grown) {
                seen->ifindex = grown;
                seen->ifindex[seen->n++] = i.link.ifindex;
        } else {
                seen->failed = true;
        }
        handle_link(seen->net, h);
}

static bool was_seen(const struct seen *seen, uint32_t ifindex)
{
        for (size_t i = 0; i < seen->n; i++)
                if (seen->ifindex[i] == ifindex)
                        return true;

        return false;
}

/* The queue holds what came before the loss, without what came after: handling it later than the
 * answers below would bring back what is gone. */
static void drain(struct net *n)
{
        int fd = nl_socket_get_fd(n->watch);
        ssize_t size;

        for (int i = 0; i < DATAGRAMS_IN_QUEUE; i++) {
                size = recv(fd, n->buffer, sizeof(n->buffer), MSG_DONTWAIT);
                if (size < 0 && errno != EINTR && errno != ENOBUFS)
                        return;
        }
}

/* Messages were lost: report links by what differs, the rest as "read it again". */
static void resync(struct net *n)
{
        struct seen seen = { .net = n };
        int r;

        drain(n);
        r = links_each(n->ask, on_seen_link, &seen, NULL);
        for (size_t i = n->n_links; r >= 0 && !seen.failed && i-- > 0;)
                if (!was_seen(&seen, n->links[i].ifindex))
                        forget_link(n, n->links[i].ifindex);
        free(seen.ifindex);

        n->f(n->data, &(struct net_event) { .kind = NET_ADDRESS });
        n->f(n->data, &(struct net_event) { .kind = NET_SETTING });
        emit_any_route(n);
        (void) neighbours_each(n->ask, handle, n, NULL);
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *data)
{
        struct net *n = data;
        ssize_t size;
        int left;

        (void) source;
        (void) revents;

        for (int i = 0; i < DATAGRAMS_AT_ONCE; i++) {
                size = recv(fd, n->buffer, sizeof(n->buffer), MSG_DONTWAIT | MSG_TRUNC);
                if (size < 0 && errno == EINTR)
                        continue;
                if (size < 0 && errno != ENOBUFS)
                        break;
                if (size < 0 || (size_t) size > sizeof(n->buffer)) {
                        resync(n);
                        continue;
                }

                left = (int) size;
                for (struct nlmsghdr *h = (void *) n->buffer; nlmsg_ok(h, left);
                     h = nlmsg_next(h, &left))
                        handle(n, h);
        }

        return 0;
}

static int watch_open(struct net *n, struct weft_error *reterr)
{
        static const int groups[] = {
                RTNLGRP_LINK,         RTNLGRP_NEIGH,      RTNLGRP_IPV4_IFADDR,
                RTNLGRP_IPV6_IFADDR,  RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
                RTNLGRP_IPV4_RULE,    RTNLGRP_IPV6_RULE,  RTNLGRP_IPV4_NETCONF,
                RTNLGRP_IPV6_NETCONF,
        };
        int r = rtnl_open(&n->watch, reterr);

        if (r < 0)
                return r;

        (void) nl_socket_set_buffer_size(n->watch, WATCH_BUFFER, 0);
        for (size_t i = 0; i < ELEMENTS(groups); i++) {
                r = nl_socket_add_memberships(n->watch, groups[i], 0);
                if (r < 0)
                        return weft_fail(reterr, -EIO, "cannot listen to rtnetlink group %d: %s",
                                         groups[i], nl_geterror(r));
        }

        return 0;
}

static void on_first_link(void *data, const struct nlmsghdr *h)
{
        struct link_info i;

        if (link_parse(h, &i))
                (void) keep_link(data, &i.link);
}

static void net_closep(struct net **n)
{
        (void) net_close(*n);
}

int net_open(sd_event *loop, net_event_fn f, void *data, struct net **ret,
             struct weft_error *reterr)
{
        _cleanup_(net_closep) struct net *n = calloc(1, sizeof(*n));
        int r;

        if (!n)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        n->f = f;
        n->data = data;

        r = rtnl_open(&n->ask, reterr);
        /* Listening begins before the links are read, so that no change falls in between. */
        if (r >= 0)
                r = watch_open(n, reterr);
        if (r >= 0)
                r = links_each(n->ask, on_first_link, n, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "network");

        r = sd_event_add_io(loop, &n->source, nl_socket_get_fd(n->watch), EPOLLIN, on_readable, n);
        if (r < 0)
                return weft_fail(reterr, r, "cannot watch the network: %s", strerror(-r));

        *ret = TAKE(n);
        return 0;
}

struct net *net_close(struct net *n)
{
        if (!n)
                return NULL;

        (void) sd_event_source_disable_unref(n->source);
        nl_socket_free(n->watch);
        nl_socket_free(n->ask);
        free(n->links);
        free(n);

        return NULL;
}
