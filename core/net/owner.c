/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whose a socket is: the kernel knows sockets by their inodes, and processes by /proc. */

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "net/net.h"
#include "util.h"

static void closedirp(DIR **d)
{
        if (*d)
                (void) closedir(*d);
}

static bool has_socket(const char *pid, const char *link)
{
        _cleanup_(closedirp) DIR *d = NULL;
        char path[64], target[64];
        struct dirent *e;

        (void) snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
        d = opendir(path);
        while (d && (e = readdir(d))) {
                ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

                if (n < 0)
                        continue;
                target[n] = '\0';
                if (strcmp(target, link) == 0)
                        return true;
        }

        return false;
}

static void name_of(const char *pid, char *ret, size_t size)
{
        char path[64], name[32] = "";
        _cleanup_fclose_ FILE *f = NULL;

        (void) snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
        f = fopen(path, "re");
        if (!f || !fgets(name, sizeof(name), f))
                name[0] = '\0';
        name[strcspn(name, "\n")] = '\0';
        (void) snprintf(ret, size, "%s (pid %.20s)", name[0] ? name : "a program", pid);
}

void net_listener_owner(struct net_listener *l)
{
        _cleanup_(closedirp) DIR *d = opendir("/proc");
        struct dirent *e;
        char link[64];

        (void) snprintf(link, sizeof(link), "socket:[%u]", l->inode);
        while (d && (e = readdir(d)))
                if (isdigit(e->d_name[0]) && has_socket(e->d_name, link)) {
                        name_of(e->d_name, l->owner, sizeof(l->owner));
                        return;
                }

        (void) snprintf(l->owner, sizeof(l->owner), "a program of uid %u", l->uid);
}
