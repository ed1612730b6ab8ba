/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Devices are tried in a network namespace that exists only as long as the socket into it. */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "probe/trials.h"
#include "util.h"

struct request {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct rtattr info;
        struct rtattr kind;
        char name[16];
};

static int socket_in_new_namespace(void)
{
        _cleanup_close_ int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd = -1;

        if (own < 0 || unshare(CLONE_NEWNET) < 0)
                return -errno;

        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

        /* A daemon in the wrong namespace would change somebody else's network. */
        if (setns(own, CLONE_NEWNET) < 0)
                abort();

        return fd < 0 ? -errno : TAKE_FD(fd);
}

static struct request make_request(const char *kind)
{
        struct request q = {
                .header = { .nlmsg_type = RTM_NEWLINK,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL },
                .info = { .rta_type = IFLA_LINKINFO },
                .kind = { .rta_type = IFLA_INFO_KIND,
                          .rta_len = (unsigned short) RTA_LENGTH(strlen(kind) + 1) },
        };

        q.info.rta_len = (unsigned short) (sizeof(q.info) + RTA_ALIGN(q.kind.rta_len));
        q.header.nlmsg_len = (uint32_t) (offsetof(struct request, info) + q.info.rta_len);
        (void) snprintf(q.name, sizeof(q.name), "%s", kind);
        return q;
}

/* Without its attributes a device may be refused; a kind nobody knows is refused as such. */
bool try_link_kind(const char *kind)
{
        _cleanup_close_ int fd = socket_in_new_namespace();
        const struct request q = make_request(kind);
        struct {
                struct nlmsghdr header;
                struct nlmsgerr error;
                char rest[512];
        } answer;

        if (fd < 0 || send(fd, &q, q.header.nlmsg_len, 0) < 0)
                return false;
        if (recv(fd, &answer, sizeof(answer), 0) < (ssize_t) offsetof(__typeof__(answer), rest) ||
            answer.header.nlmsg_type != NLMSG_ERROR)
                return false;

        return answer.error.error != -EOPNOTSUPP;
}
