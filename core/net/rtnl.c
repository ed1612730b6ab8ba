/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "net/rtnl.h"

enum { MESSAGE_BYTES = 65536, DUMP_TRIES = 8 };

int rtnl_open_protocol(int protocol, struct nl_sock **ret, struct weft_error *reterr)
{
        _cleanup_rtnl_ struct nl_sock *s = nl_socket_alloc();
        int one = 1, r;

        if (!s)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = nl_connect(s, protocol);
        if (r < 0)
                return weft_fail(reterr, -EIO, "cannot open a netlink socket: %s", nl_geterror(r));

        (void) nl_socket_set_msg_buf_size(s, MESSAGE_BYTES);
        (void) nl_socket_set_buffer_size(s, 1 << 20, 0);
        (void) setsockopt(nl_socket_get_fd(s), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));

        *ret = TAKE(s);
        return 0;
}

int rtnl_open(struct nl_sock **ret, struct weft_error *reterr)
{
        return rtnl_open_protocol(NETLINK_ROUTE, ret, reterr);
}

int rtnl_open_in(int ns_fd, struct nl_sock **ret, struct weft_error *reterr)
{
        _cleanup_close_ int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        int r;

        if (own < 0)
                return weft_fail(reterr, -errno,
                                 "cannot open the daemon's own network namespace: %m");
        if (setns(ns_fd, CLONE_NEWNET) < 0)
                return weft_fail(reterr, -errno, "cannot enter the network namespace: %m");

        r = rtnl_open(ret, reterr);

        /* Going on in a foreign namespace would wire the wrong machine. */
        if (setns(own, CLONE_NEWNET) < 0)
                abort();

        return r;
}

struct nl_msg *rtnl_new(int type, int flags, const void *head, size_t size)
{
        struct nl_msg *m = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags);

        if (m && nlmsg_append(m, (void *) head, size, NLMSG_ALIGNTO) < 0) {
                nlmsg_free(m);
                return NULL;
        }

        return m;
}

void rtnl_put(struct nl_msg *m, int attribute, const void *data, size_t size)
{
        if (m)
                (void) nla_put(m, attribute, (int) size, data);
}

void rtnl_put_u32(struct nl_msg *m, int attribute, uint32_t value)
{
        rtnl_put(m, attribute, &value, sizeof(value));
}

void rtnl_put_string(struct nl_msg *m, int attribute, const char *text)
{
        rtnl_put(m, attribute, text, strlen(text) + 1);
}

void rtnl_put_address(struct nl_msg *m, int attribute, const struct weft_addr *a)
{
        if (address_family(a) == AF_INET)
                rtnl_put(m, attribute, &a->w[3], 4);
        else
                rtnl_put(m, attribute, a->w, 16);
}

struct nlattr *rtnl_begin(struct nl_msg *m, int attribute)
{
        return m ? nla_nest_start(m, attribute) : NULL;
}

void rtnl_end(struct nl_msg *m, struct nlattr *nest)
{
        if (m && nest)
                (void) nla_nest_end(m, nest);
}

/* The whole answer is read before anybody sees it, so that who sees it may ask again. */
struct answer {
        char *bytes; /* its messages, aligned, one behind the other */
        size_t size, room;
        int r;
        bool done, interrupted;
        char words[160]; /* the kernel's, of an error */
};

static int on_valid(struct nl_msg *m, void *data)
{
        const struct nlmsghdr *h = nlmsg_hdr(m);
        size_t size = NLMSG_ALIGN(h->nlmsg_len), room;
        struct answer *a = data;
        char *grown;

        if (a->size + size > a->room) {
                room = (a->size + size) * 2;
                grown = realloc(a->bytes, room);
                if (!grown) {
                        a->r = -ENOMEM;
                        return NL_OK;
                }
                a->bytes = grown;
                a->room = room;
        }
        memcpy(a->bytes + a->size, h, h->nlmsg_len);
        a->size += size;

        return NL_OK;
}

static void deliver(const struct answer *a, rtnl_answer_fn f, void *data)
{
        const struct nlmsghdr *h;

        for (size_t at = 0; f && at < a->size; at += NLMSG_ALIGN(h->nlmsg_len)) {
                h = (const void *) (a->bytes + at);
                f(data, h);
        }
}

static int on_end(struct nl_msg *m, void *data)
{
        (void) m;
        ((struct answer *) data)->done = true;
        return NL_STOP;
}

static int on_interrupted(struct nl_msg *m, void *data)
{
        (void) m;
        ((struct answer *) data)->interrupted = true;
        return NL_OK;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *data)
{
        const struct nlmsghdr *h = (const void *) ((const char *) e - NLMSG_HDRLEN);
        size_t size = sizeof(*e), whole = h->nlmsg_len - NLMSG_HDRLEN;
        struct answer *a = data;
        struct nlattr *text = NULL;

        (void) from;
        if (!(h->nlmsg_flags & NLM_F_CAPPED))
                size += e->msg.nlmsg_len - NLMSG_HDRLEN;
        size = NLMSG_ALIGN(size);
        if ((h->nlmsg_flags & NLM_F_ACK_TLVS) && size < whole)
                text = nla_find((struct nlattr *) ((char *) e + size), (int) (whole - size),
                                NLMSGERR_ATTR_MSG);
        if (text)
                (void) nla_strlcpy(a->words, text, sizeof(a->words));

        a->r = e->error;
        a->done = true;
        return NL_STOP;
}

static void callbackp(struct nl_cb **cb)
{
        nl_cb_put(*cb);
}

static int receive(struct nl_sock *s, struct answer *a, struct weft_error *reterr)
{
        _cleanup_(callbackp) struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
        int r;

        if (!cb)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, a);
        (void) nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_end, a);
        (void) nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_end, a);
        (void) nl_cb_set(cb, NL_CB_DUMP_INTR, NL_CB_CUSTOM, on_interrupted, a);
        (void) nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);

        while (!a->done) {
                r = nl_recvmsgs(s, cb);
                if (r < 0 && !a->done)
                        return weft_fail(reterr, -EIO, "rtnetlink: %s", nl_geterror(r));
        }
        if (a->r < 0)
                return weft_fail(reterr, a->r, "%s%s%s%s", strerror(-a->r), a->words[0] ? " (" : "",
                                 a->words, a->words[0] ? ")" : "");

        return 0;
}

static void messagep(struct nl_msg **m)
{
        nlmsg_free(*m);
}

static void answer_done(struct answer *a)
{
        free(a->bytes);
}

int rtnl_ask(struct nl_sock *s, struct nl_msg *m, rtnl_answer_fn f, void *data,
             struct weft_error *reterr)
{
        _cleanup_(messagep) struct nl_msg *owned = m;
        _cleanup_(answer_done) struct answer a = { 0 };
        int r, tries = 0;

        if (!m)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        do {
                a = (struct answer) { .bytes = a.bytes, .room = a.room };
                nlmsg_hdr(m)->nlmsg_seq = NL_AUTO_SEQ;
                r = nl_send_auto(s, m);
                if (r < 0)
                        return weft_fail(reterr, -EIO, "rtnetlink: %s", nl_geterror(r));

                r = receive(s, &a, reterr);
        } while (r == 0 && a.interrupted && ++tries < DUMP_TRIES);

        if (r == 0)
                deliver(&a, f, data);

        return r;
}

int address_family(const struct weft_addr *a)
{
        return address_is_ipv4(a) ? AF_INET : AF_INET6;
}

uint8_t address_bits(const struct weft_addr *a)
{
        return address_family(a) == AF_INET ? 32 : 128;
}

struct weft_addr address_of(const struct nlattr *a)
{
        struct weft_addr ret = { 0 };

        if (a && nla_len(a) == 4) {
                ret.w[2] = htonl(0xffff);
                memcpy(&ret.w[3], nla_data(a), 4);
        } else if (a && nla_len(a) == 16) {
                memcpy(ret.w, nla_data(a), 16);
        }

        return ret;
}

void rtnl_parse(const struct nlmsghdr *h, size_t head, struct nlattr **table, int max)
{
        memset(table, 0, sizeof(*table) * (max + 1));
        (void) nlmsg_parse((struct nlmsghdr *) h, (int) head, table, max, NULL);
}
