/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The node's own listening sockets, by the kernel's socket monitoring (sock_diag(7)): asking
 * changes nothing, where a trial bind() would take the port from a program that starts at that
 * moment. */

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>

#include "net/rtnl.h"

enum { MESSAGE_BYTES = 65536 };

struct asker {
        uint8_t proto;
        void (*f)(void *data, const struct net_listener *l);
        void *data;
};

static struct weft_addr address_from(const struct inet_diag_msg *m)
{
        struct weft_addr a = { 0 };

        if (m->idiag_family == AF_INET6) {
                memcpy(a.w, m->id.idiag_src, sizeof(a.w));
        } else {
                a.w[2] = htonl(0xffff);
                a.w[3] = m->id.idiag_src[0];
        }

        return a;
}

static void on_socket(void *data, const struct nlmsghdr *h)
{
        const struct inet_diag_msg *m = nlmsg_data(h);
        const struct asker *a = data;

        if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY || nlmsg_datalen(h) < (int) sizeof(*m))
                return;

        a->f(a->data, &(struct net_listener) {
                              .addr = address_from(m),
                              .port = ntohs(m->id.idiag_sport),
                              .proto = a->proto,
                              .uid = m->idiag_uid,
                              .inode = m->idiag_inode,
                      });
}

int net_listeners(void (*f)(void *data, const struct net_listener *l), void *data,
                  struct weft_error *reterr)
{
        /* States as a bit mask: a UDP socket that is not connected is in TCP_CLOSE. */
        static const struct inet_diag_req_v2 requests[] = {
                { AF_INET, IPPROTO_TCP, .idiag_states = 1 << TCP_LISTEN },
                { AF_INET6, IPPROTO_TCP, .idiag_states = 1 << TCP_LISTEN },
                { AF_INET, IPPROTO_UDP, .idiag_states = 1 << TCP_CLOSE },
                { AF_INET6, IPPROTO_UDP, .idiag_states = 1 << TCP_CLOSE },
        };
        _cleanup_rtnl_ struct nl_sock *s = nl_socket_alloc();
        int r;

        if (!s)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        r = nl_connect(s, NETLINK_SOCK_DIAG);
        if (r < 0)
                return weft_fail(reterr, -ENOENT, "cannot open a sock_diag socket: %s",
                                 nl_geterror(r));
        (void) nl_socket_set_msg_buf_size(s, MESSAGE_BYTES);

        for (size_t i = 0; i < ELEMENTS(requests); i++) {
                const struct inet_diag_req_v2 *q = &requests[i];
                struct asker a = { q->sdiag_protocol, f, data };

                r = rtnl_ask(s, rtnl_new(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, q, sizeof(*q)), on_socket,
                             &a, reterr);
                if (r < 0)
                        return weft_fail_in(reterr, r, "listening sockets");
        }

        return 0;
}
