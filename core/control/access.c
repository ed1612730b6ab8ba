/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "control/client.h"
#include "util.h"

enum { GROUPS_AT_FIRST = 64 };

/* A group's members are read with it, however many they are. */
gid_t group_number(const char *name)
{
        for (size_t size = 4096;; size *= 4) {
                _cleanup_free_ char *buf = malloc(size);
                struct group entry, *found = NULL;
                int r = buf ? getgrnam_r(name, &entry, buf, size, &found) : ENOMEM;

                if (r != ERANGE)
                        return r == 0 && found ? found->gr_gid : NO_GROUP;
        }
}

/* The supplementary groups the peer had when it connected. */
static int peer_groups(int fd, gid_t **ret, size_t *ret_n)
{
        socklen_t size = GROUPS_AT_FIRST * sizeof(gid_t);

        for (;;) {
                _cleanup_free_ gid_t *groups = malloc(size);

                if (!groups)
                        return -ENOMEM;
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) >= 0) {
                        *ret = TAKE(groups);
                        *ret_n = size / sizeof(gid_t);
                        return 0;
                }
                if (errno != ERANGE)
                        return -errno;
        }
}

static bool is_member(gid_t group, const struct ucred *peer, const gid_t *groups, size_t n)
{
        if (group == NO_GROUP)
                return false;
        if (peer->gid == group)
                return true;

        for (size_t i = 0; i < n; i++)
                if (groups[i] == group)
                        return true;

        return false;
}

/* The process may call itself anything: only what is harmless in a log is taken over. */
static void command_of(pid_t pid, char ret[static 17])
{
        char path[64];
        _cleanup_fclose_ FILE *f = NULL;
        size_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/comm", (int) pid);
        f = fopen(path, "re");
        n = f ? fread(ret, 1, 16, f) : 0;
        ret[n] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        for (char *c = ret; *c != '\0'; c++)
                if (!isalnum((unsigned char) *c) && !strchr("-_.:+", *c))
                        *c = '?';
}

int access_of(int fd, struct access *ret)
{
        char command[17];

        _cleanup_free_ gid_t *groups = NULL;
        struct ucred peer;
        socklen_t size = sizeof(peer);
        size_t n = 0;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;

        r = peer_groups(fd, &groups, &n);
        if (r < 0)
                return r;

        ret->uid = peer.uid;
        command_of(peer.pid, command);
        (void) snprintf(ret->who, sizeof(ret->who), "uid %u, pid %d (%s)", peer.uid, (int) peer.pid,
                        command);
        if (peer.uid == 0 || peer.uid == geteuid() ||
            is_member(group_number("weft"), &peer, groups, n))
                ret->right = CONTROL_CHANGE;
        else
                ret->right = is_member(group_number("weft-ro"), &peer, groups, n) ? CONTROL_READ
                                                                                  : CONTROL_NOTHING;

        return 0;
}
