/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A module runs as root: whoever can write its file, or put another in its place, is root. */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "module/file.h"
#include "util.h"

/* Since Linux 6.3; without it vm.memfd_noexec=1 makes memfds that cannot be mapped executable. */
#define MFD_EXEC_FLAG 0x0010U

#define WRITABLE_BY_OTHERS (S_IWGRP | S_IWOTH)
#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

/* weftd is root; weftctl may run as somebody, who cannot do more to himself than he can already. */
static bool is_trusted(uid_t uid)
{
        return uid == 0 || uid == geteuid();
}

static int check_file(int fd, const char *path, struct weft_error *reterr)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return weft_fail(reterr, -errno, "%s: %s", path, strerror(errno));
        if (!S_ISREG(st.st_mode))
                return weft_fail(reterr, -EPERM, "%s is not a regular file", path);
        if (!is_trusted(st.st_uid))
                return weft_fail(reterr, -EPERM, "%s belongs to user %u; \"chown root\" it", path,
                                 st.st_uid);
        if (st.st_mode & WRITABLE_BY_OTHERS)
                return weft_fail(reterr, -EPERM, "%s can be written by others; \"chmod go-w\" it",
                                 path);

        return 0;
}

/* up: how many times ".." was followed from the directory. */
static int check_directory(const struct stat *st, const char *dir, unsigned up,
                           struct weft_error *reterr)
{
        if (!is_trusted(st->st_uid))
                return weft_fail(reterr, -EPERM,
                                 "directory %s (%u above it) belongs to user %u and not to root",
                                 dir, up, st->st_uid);
        if ((st->st_mode & WRITABLE_BY_OTHERS) && !(st->st_mode & S_ISVTX))
                return weft_fail(
                        reterr, -EPERM,
                        "directory %s (%u above it) can be written by others and is not sticky",
                        dir, up);

        return 0;
}

/* Follows ".." and not the path's text, so that no link on the way escapes the check. */
static int check_parents(int dirfd, const char *dir, struct weft_error *reterr)
{
        _cleanup_close_ int at = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
        struct stat st, below = { 0 };
        int r;

        for (unsigned up = 0;; up++) {
                int parent;

                if (at < 0 || fstat(at, &st) < 0)
                        return weft_fail(reterr, -errno, "%s: %s", dir, strerror(errno));
                if (up > 0 && st.st_dev == below.st_dev && st.st_ino == below.st_ino)
                        return 0;

                r = check_directory(&st, dir, up, reterr);
                if (r < 0)
                        return r;

                below = st;
                parent = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
                (void) close(at);
                at = parent;
        }
}

static int copy(int from, int to, const char *path, struct weft_error *reterr)
{
        ssize_t n;

        do
                n = sendfile(to, from, NULL, 1 << 20);
        while (n > 0);

        return n < 0 ? weft_fail(reterr, -errno, "%s: cannot copy: %s", path, strerror(errno)) : 0;
}

/* The bytes of fd in memory that nobody, weftd included, can change. */
static int seal(int fd, const char *path, struct weft_error *reterr)
{
        const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
        _cleanup_close_ int memfd = -1;
        int r;

        memfd = memfd_create("weft-module", flags | MFD_EXEC_FLAG);
        if (memfd < 0 && errno == EINVAL)
                memfd = memfd_create("weft-module", flags);
        if (memfd < 0)
                return weft_fail(reterr, -errno, "%s: memfd: %s", path, strerror(errno));

        r = copy(fd, memfd, path, reterr);
        if (r < 0)
                return r;
        if (fcntl(memfd, F_ADD_SEALS, SEALS) < 0)
                return weft_fail(reterr, -errno, "%s: cannot seal its copy: %s", path,
                                 strerror(errno));

        return TAKE_FD(memfd);
}

/* FNV-1a: tells one build from the next, and is no proof against anybody. */
uint64_t file_sum(int fd)
{
        uint64_t sum = 0xcbf29ce484222325;
        struct stat st;
        uint8_t *p;

        if (fstat(fd, &st) < 0 || st.st_size == 0)
                return 0;
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
                return 0;

        for (off_t i = 0; i < st.st_size; i++)
                sum = (sum ^ p[i]) * 0x100000001b3;
        (void) munmap(p, (size_t) st.st_size);

        return sum;
}

bool file_same(int a, int b)
{
        struct stat one, other;
        void *p, *q;
        bool same;

        if (fstat(a, &one) < 0 || fstat(b, &other) < 0 || one.st_size != other.st_size ||
            one.st_size == 0)
                return false;

        p = mmap(NULL, (size_t) one.st_size, PROT_READ, MAP_PRIVATE, a, 0);
        q = mmap(NULL, (size_t) one.st_size, PROT_READ, MAP_PRIVATE, b, 0);
        same = p != MAP_FAILED && q != MAP_FAILED && memcmp(p, q, (size_t) one.st_size) == 0;
        if (p != MAP_FAILED)
                (void) munmap(p, (size_t) one.st_size);
        if (q != MAP_FAILED)
                (void) munmap(q, (size_t) one.st_size);

        return same;
}

/* -ENOENT without a reason: not in this directory, try the next. */
static int open_in(const char *dir, const char *path, const char *base, struct weft_error *reterr)
{
        _cleanup_close_ int dirfd = -1, fd = -1, memfd = -1;
        int r;

        dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        fd = dirfd < 0 ? -1 : openat(dirfd, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return -ENOENT;
        if (fd < 0 && errno == ELOOP)
                return weft_fail(reterr, -EPERM, "%s is a symbolic link; put the file itself there",
                                 path);
        if (fd < 0)
                return weft_fail(reterr, -errno, "%s: %s", path, strerror(errno));

        r = check_file(fd, path, reterr);
        if (r >= 0)
                r = check_parents(dirfd, dir, reterr);
        if (r < 0)
                return r;

        memfd = seal(fd, path, reterr);
        if (memfd < 0)
                return memfd;

        r = file_check_libraries(memfd, path, reterr);
        return r < 0 ? r : TAKE_FD(memfd);
}

static int fail_absent(const char *const *dirs, const char *name, struct weft_error *reterr)
{
        char list[256] = "";

        for (size_t n = 0; *dirs && n < sizeof(list); dirs++)
                n += (size_t) snprintf(list + n, sizeof(list) - n, " %s", *dirs);

        return weft_fail(reterr, -ENOENT, "there is no %s.so in%s", name,
                         *list ? list : " any directory");
}

int file_open(const char *const *dirs, const char *name, char **ret_path, struct weft_error *reterr)
{
        for (const char *const *dir = dirs; *dir; dir++) {
                _cleanup_free_ char *path = NULL;
                int fd;

                if (asprintf(&path, "%s/%s.so", *dir, name) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");

                fd = open_in(*dir, path, strrchr(path, '/') + 1, reterr);
                if (fd == -ENOENT)
                        continue;
                if (fd >= 0)
                        *ret_path = TAKE(path);
                return fd;
        }

        return fail_absent(dirs, name, reterr);
}
