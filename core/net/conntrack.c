/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's connection tracking, by nfnetlink. It compares a TCP segment with the window that it
 * saw last. Of a connection that went past it for a while it takes every one for invalid; of one
 * that it finds begun it asks no window (tcp_new() in nf_conntrack_proto_tcp.c). Here the former is
 * made like the latter. */

#include <errno.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

#include "net/hold.h"

struct walk {
        struct nl_sock *second; /* the first one is listing */
        bool (*f)(void *data, const struct weft_addr *a);
        void *data;
};

static bool is_wanted(const struct walk *w, struct nlattr *tuple)
{
        static const int addresses[] = { CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC,
                                         CTA_IP_V6_DST };
        struct nlattr *t[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1];

        if (!tuple || nla_parse_nested(t, CTA_TUPLE_MAX, tuple, NULL) < 0 || !t[CTA_TUPLE_IP] ||
            nla_parse_nested(ip, CTA_IP_MAX, t[CTA_TUPLE_IP], NULL) < 0)
                return false;

        for (size_t i = 0; i < ELEMENTS(addresses); i++) {
                struct weft_addr a = address_of(ip[addresses[i]]);

                if (ip[addresses[i]] && w->f(w->data, &a))
                        return true;
        }

        return false;
}

static bool is_liberal(const struct nlattr *flags)
{
        return flags && ((const struct nf_ct_tcp_flags *) nla_data(flags))->flags &
                                IP_CT_TCP_FLAG_BE_LIBERAL;
}

static bool asks_windows(struct nlattr *info)
{
        struct nlattr *i[CTA_PROTOINFO_MAX + 1], *tcp[CTA_PROTOINFO_TCP_MAX + 1];

        if (!info || nla_parse_nested(i, CTA_PROTOINFO_MAX, info, NULL) < 0 ||
            !i[CTA_PROTOINFO_TCP] ||
            nla_parse_nested(tcp, CTA_PROTOINFO_TCP_MAX, i[CTA_PROTOINFO_TCP], NULL) < 0)
                return false;

        return !is_liberal(tcp[CTA_PROTOINFO_TCP_FLAGS_ORIGINAL]) ||
               !is_liberal(tcp[CTA_PROTOINFO_TCP_FLAGS_REPLY]);
}

static void copy(struct nl_msg *m, int attribute, const struct nlattr *a)
{
        if (a)
                rtnl_put(m, attribute, nla_data(a), (size_t) nla_len(a));
}

/* One that ended meanwhile is no loss. */
static void ask_no_windows(struct nl_sock *s, const struct nfgenmsg *of, struct nlattr **a)
{
        static const struct nf_ct_tcp_flags liberal = { .flags = IP_CT_TCP_FLAG_BE_LIBERAL,
                                                        .mask = IP_CT_TCP_FLAG_BE_LIBERAL };
        const struct nfgenmsg head = { .nfgen_family = of->nfgen_family, .version = NFNETLINK_V0 };
        struct nl_msg *m = rtnl_new(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_ACK,
                                    &head, sizeof(head));
        struct nlattr *info, *tcp;

        copy(m, CTA_TUPLE_ORIG | NLA_F_NESTED, a[CTA_TUPLE_ORIG]);
        copy(m, CTA_ZONE, a[CTA_ZONE]);
        info = rtnl_begin(m, CTA_PROTOINFO);
        tcp = rtnl_begin(m, CTA_PROTOINFO_TCP);
        rtnl_put(m, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &liberal, sizeof(liberal));
        rtnl_put(m, CTA_PROTOINFO_TCP_FLAGS_REPLY, &liberal, sizeof(liberal));
        rtnl_end(m, tcp);
        rtnl_end(m, info);
        (void) rtnl_ask(s, m, NULL, NULL, NULL);
}

static int on_entry(struct nl_msg *m, void *data)
{
        const struct nfgenmsg *head = nlmsg_data(nlmsg_hdr(m));
        struct nlattr *a[CTA_MAX + 1];
        const struct walk *w = data;

        rtnl_parse(nlmsg_hdr(m), sizeof(*head), a, CTA_MAX);
        if (asks_windows(a[CTA_PROTOINFO]) &&
            (is_wanted(w, a[CTA_TUPLE_ORIG]) || is_wanted(w, a[CTA_TUPLE_REPLY])))
                ask_no_windows(w->second, head, a);

        return NL_OK;
}

static void messagep(struct nl_msg **m)
{
        nlmsg_free(*m);
}

/* Entry by entry, for there may be many. */
static int list(struct nl_sock *s, struct walk *w, struct weft_error *reterr)
{
        const struct nfgenmsg head = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };
        _cleanup_(messagep) struct nl_msg *m = rtnl_new(
                NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_DUMP, &head, sizeof(head));
        int r;

        if (!m)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) nl_socket_modify_cb(s, NL_CB_VALID, NL_CB_CUSTOM, on_entry, w);
        r = nl_send_auto(s, m);
        if (r >= 0)
                r = nl_recvmsgs_default(s);

        return r < 0 ? weft_fail(reterr, -EIO, "conntrack: %s", nl_geterror(r)) : 0;
}

int net_conntrack_no_windows(bool (*f)(void *data, const struct weft_addr *a), void *data,
                             struct weft_error *reterr)
{
        _cleanup_rtnl_ struct nl_sock *first = NULL, *second = NULL;
        _cleanup_free_ char *count = NULL;
        struct walk w = { .f = f, .data = data };
        int r;

        if (sysctl_read("net/netfilter/nf_conntrack_count", &count) < 0 || strcmp(count, "0") == 0)
                return 0;

        r = rtnl_open_protocol(NETLINK_NETFILTER, &first, reterr);
        if (r == 0)
                r = rtnl_open_protocol(NETLINK_NETFILTER, &second, reterr);
        w.second = second;

        return r < 0 ? r : list(first, &w, reterr);
}
