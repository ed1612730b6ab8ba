/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "net/namespace.h"
#include "util.h"

/* Opened without effect first: a path may be a device or a pipe, for which opening alone does
 * something. */
static int open_checked(const char *path, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_close_ int place = open(path, O_PATH | O_CLOEXEC);
        char again[64];
        struct statfs fs;
        struct stat st;
        int fd;

        if (place < 0)
                return weft_fail(reterr, errno == ENOTDIR ? -EINVAL : -errno, "%s: %m", path);
        if (fstatfs(place, &fs) < 0 || fstat(place, &st) < 0)
                return weft_fail(reterr, -errno, "%s: %m", path);

        /* ip-netns(8) makes an empty file and mounts the namespace on it afterwards. */
        if (fs.f_type != NSFS_MAGIC && S_ISREG(st.st_mode) && st.st_size == 0)
                return weft_fail(reterr, -ENOENT, "%s: no namespace is mounted there", path);
        if (fs.f_type != NSFS_MAGIC)
                return weft_fail(reterr, -EINVAL, "%s is not a network namespace", path);

        (void) snprintf(again, sizeof(again), "/proc/self/fd/%d", place);
        fd = open(again, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return weft_fail(reterr, -errno, "%s: %m", path);

        *ret_fd = fd;
        return 0;
}

static int check_kind(int fd, const char *path, struct weft_error *reterr)
{
        struct stat own, st;

        if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
                return weft_fail(reterr, -EINVAL, "%s is not a network namespace", path);
        if (stat("/proc/thread-self/ns/net", &own) < 0 || fstat(fd, &st) < 0)
                return weft_fail(reterr, -errno, "%s: %m", path);
        if (own.st_ino == st.st_ino && own.st_dev == st.st_dev)
                return weft_fail(reterr, -EINVAL, "%s is the daemon's own network namespace", path);

        return 0;
}

static int open_and_check(const char *path, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_close_ int fd = -1;
        int r = open_checked(path, &fd, reterr);

        if (r >= 0)
                r = check_kind(fd, path, reterr);
        if (r < 0)
                return r;

        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* The 22nd word of proc(5)'s stat; the second one, in brackets, may hold anything. */
uint64_t process_started(uint32_t pid)
{
        unsigned long long started = 0;
        char path[64], text[1024];
        _cleanup_fclose_ FILE *f = NULL;
        const char *rest;

        (void) snprintf(path, sizeof(path), "/proc/%u/stat", pid);
        f = fopen(path, "re");
        if (!f || !fgets(text, sizeof(text), f) || !(rest = strrchr(text, ')')))
                return 0;

        (void) sscanf(rest,
                      ") %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                      "%*s %llu",
                      &started);
        return started;
}

static int open_of_process(uint32_t pid, uint64_t started, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_close_ int process = (int) syscall(SYS_pidfd_open, (pid_t) pid, 0), fd = -1;
        struct pollfd ended = { .fd = process, .events = POLLIN };
        char path[64];
        int r;

        if (process < 0)
                return weft_fail(reterr, errno == ESRCH ? -ENOENT : -errno, "process %u: %m", pid);
        if (started && process_started(pid) != started)
                return weft_fail(reterr, -ENOENT,
                                 "process %u has ended, and another one has its number", pid);

        (void) snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
        r = open_and_check(path, &fd, reterr);

        /* Had it ended by now, the number could have meant another process when it was opened. */
        if (poll(&ended, 1, 0) != 0)
                return weft_fail(reterr, -ENOENT, "process %u has ended", pid);
        if (r < 0)
                return r;

        *ret_fd = TAKE_FD(fd);
        return 0;
}

uint64_t namespace_number(const char *path, uint32_t pid)
{
        char of_process[64];
        struct stat st;

        (void) snprintf(of_process, sizeof(of_process), "/proc/%u/ns/net", pid);

        return stat(path ?: of_process, &st) < 0 ? 0 : st.st_ino;
}

int namespace_open(const char *path, uint32_t pid, uint64_t started, int *ret_fd,
                   struct weft_error *reterr)
{
        return path ? open_and_check(path, ret_fd, reterr)
                    : open_of_process(pid, started, ret_fd, reterr);
}
