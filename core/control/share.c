/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may connect: the socket file is 0660 root:weft, and has an entry more for group weft-ro. What
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
        struct posix_acl_xattr_entry entries[5]; /* in this order, as acl(5) has it */
};

static struct posix_acl_xattr_entry entry(uint16_t tag, uint16_t may, uint32_t id)
{
        return (struct posix_acl_xattr_entry) { htole16(tag), htole16(may), htole32(id) };
}

static int share_with(const char *path, gid_t readers)
{
        const uint32_t nobody = (uint32_t) ACL_UNDEFINED_ID;
        const struct acl acl = {
                { .a_version = htole32(POSIX_ACL_XATTR_VERSION) },
                {
                        entry(ACL_USER_OBJ, CONNECT, nobody),
                        entry(ACL_GROUP_OBJ, CONNECT, nobody),
                        entry(ACL_GROUP, CONNECT, readers),
                        entry(ACL_MASK, CONNECT, nobody),
                        entry(ACL_OTHER, 0, nobody),
                },
        };

        return setxattr(path, "system.posix_acl_access", &acl, sizeof(acl), 0) < 0 ? -errno : 0;
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
        gid_t group = group_number("weft"), readers = group_number("weft-ro");
        struct sockaddr_un address;
        struct stat st;
        int r;

        if (!path_of(fd, &address))
                return 0;
        if (stat(address.sun_path, &st) < 0)
                return weft_fail(reterr, -errno, "%s: %m", address.sun_path);

        if (group != NO_GROUP && st.st_gid != group && chown(address.sun_path, -1, group) < 0)
                return weft_fail(reterr, -errno, "%s: cannot be given to group weft: %m",
                                 address.sun_path);
        if (chmod(address.sun_path, MODE) < 0)
                return weft_fail(reterr, -errno, "%s: %m", address.sun_path);

        r = readers != NO_GROUP ? share_with(address.sun_path, readers) : 0;
        return r < 0 ? weft_fail(reterr, r, "%s: cannot be shared with group weft-ro: %s",
                                 address.sun_path, strerror(-r))
                     : 0;
}
