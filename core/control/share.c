/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may connect: the socket file is 0660 root:weft, and its access list names both groups. What
 * they may do there is decided by their credentials, see access.c. */

#include <endian.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "control/client.h"
#include "util.h"

enum { CONNECT = ACL_READ | ACL_WRITE, MODE = 0660 };

struct acl {
        struct posix_acl_xattr_header head;
        struct posix_acl_xattr_entry entries[6];
};

static void add(struct acl *acl, size_t *n, uint16_t tag, uint16_t may, uint32_t id)
{
        acl->entries[(*n)++] = (struct posix_acl_xattr_entry) { .e_tag = htole16(tag),
                                                                .e_perm = htole16(may),
                                                                .e_id = htole32(id) };
}

/* weft is named too: where the daemon may not give files away, the file is not the group's. */
static int share_with(const char *path, const gid_t *groups, size_t n_groups)
{
        const uint32_t nobody = (uint32_t) ACL_UNDEFINED_ID;
        struct acl acl = { { .a_version = htole32(POSIX_ACL_XATTR_VERSION) } };
        size_t n = 0;

        /* In this order, as acl(5) has it. */
        add(&acl, &n, ACL_USER_OBJ, CONNECT, nobody);
        add(&acl, &n, ACL_GROUP_OBJ, CONNECT, nobody);
        for (size_t i = 0; i < n_groups; i++)
                if (groups[i] != NO_GROUP)
                        add(&acl, &n, ACL_GROUP, CONNECT, groups[i]);
        add(&acl, &n, ACL_MASK, CONNECT, nobody);
        add(&acl, &n, ACL_OTHER, 0, nobody);

        return setxattr(path, "system.posix_acl_access", &acl,
                        sizeof(acl.head) + n * sizeof(acl.entries[0]), 0) < 0
                       ? -errno
                       : 0;
}

/* The path a Unix socket listens on; false: it has none. */
static bool path_of(int fd, struct sockaddr_un *ret)
{
        socklen_t size = sizeof(*ret) - 1; /* leaves a NUL */

        *ret = (struct sockaddr_un) { 0 };
        return getsockname(fd, (struct sockaddr *) ret, &size) == 0 && ret->sun_family == AF_UNIX &&
               ret->sun_path[0] == '/';
}

int control_share(int fd, struct weft_error *reterr)
{
        const gid_t groups[] = { group_number("weft"), group_number("weft-ro") };
        struct sockaddr_un address;
        int r;

        if (!path_of(fd, &address))
                return 0;

        if (groups[0] != NO_GROUP && chown(address.sun_path, -1, groups[0]) < 0 && errno != EPERM)
                return weft_fail(reterr, -errno, "%s: cannot be given to group weft: %m",
                                 address.sun_path);
        if (chmod(address.sun_path, MODE) < 0)
                return weft_fail(reterr, -errno, "%s: %m", address.sun_path);

        r = share_with(address.sun_path, groups, ELEMENTS(groups));
        return r < 0 ? weft_fail(reterr, r, "%s: cannot be shared with group weft-ro: %s",
                                 address.sun_path, strerror(-r))
                     : 0;
}
