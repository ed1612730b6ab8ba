/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "paths.h"
#include "util.h"

enum { FILE_MAX = 64 * 1024 };

static char *below(const char *dir, const char *name)
{
        char *path;

        return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

int paths_init(struct paths *p, const char *root, const char *bpffs, struct weft_error *reterr)
{
        root = root && strcmp(root, "/") != 0 ? root : "";
        bpffs = bpffs ? bpffs : "/sys/fs/bpf/weft";
        if ((root[0] && root[0] != '/') || bpffs[0] != '/')
                return weft_fail(reterr, -EINVAL, "%s: must be an absolute path",
                                 bpffs[0] != '/' ? bpffs : root);

        *p = (struct paths) {
                .root = strdup(root),
                .bpffs = strdup(bpffs),
                .run = below(root, "run/weft"),
                .state = below(root, "var/lib/weft"),
                .control = below(root, "run/weft/control"),
        };
        if (p->root && p->bpffs && p->run && p->state && p->control)
                return 0;

        paths_done(p);
        return weft_fail(reterr, -ENOMEM, "out of memory");
}

void paths_done(struct paths *p)
{
        free(p->root);
        free(p->bpffs);
        free(p->run);
        free(p->state);
        free(p->control);
        *p = (struct paths) { 0 };
}

int make_directories(const char *path, mode_t mode, struct weft_error *reterr)
{
        _cleanup_free_ char *copy = strdup(path);

        if (!copy)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        for (char *slash = strchr(copy + 1, '/');; slash = strchr(slash + 1, '/')) {
                if (slash)
                        *slash = '\0';
                if (mkdir(copy, slash ? 0755 : mode) < 0 && errno != EEXIST)
                        return weft_fail(reterr, -errno, "cannot make directory %s: %m", copy);
                if (!slash)
                        return 0;
                *slash = '/';
        }
}

static int write_whole(int fd, const char *text)
{
        size_t n = strlen(text);

        while (n > 0) {
                ssize_t k = write(fd, text, n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                text += k;
                n -= k;
        }

        return fsync(fd) < 0 ? -errno : 0;
}

/* The name of a file is in its directory. */
static int flush_directory(const char *file)
{
        _cleanup_free_ char *dir = strndup(file, strrchr(file, '/') - file + 1);
        _cleanup_close_ int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

        return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int file_replace(const char *path, const char *text, struct weft_error *reterr)
{
        _cleanup_free_ char *temporary = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        if (asprintf(&temporary, "%s.new", path) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot write %s: %m", temporary);

        r = write_whole(fd, text);
        if (r == 0 && rename(temporary, path) < 0)
                r = -errno;
        if (r < 0) {
                (void) unlink(temporary);
                return weft_fail(reterr, r, "cannot write %s: %s", path, strerror(-r));
        }

        r = flush_directory(path);
        return r < 0 ? weft_fail(reterr, r, "cannot write %s: %s", path, strerror(-r)) : 0;
}

int file_read(const char *path, char **ret)
{
        _cleanup_fclose_ FILE *f = fopen(path, "re");
        _cleanup_free_ char *text = malloc(FILE_MAX + 1);
        size_t n;

        if (!f)
                return -errno;
        if (!text)
                return -ENOMEM;

        n = fread(text, 1, FILE_MAX + 1, f);
        if (ferror(f))
                return -EIO;
        if (n > FILE_MAX)
                return -EFBIG;

        text[n] = '\0';
        *ret = TAKE(text);
        return 0;
}

static const struct flock whole_file = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

int lock_take(const struct paths *p, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_free_ char *path = below(p->run, "lock");
        _cleanup_close_ int fd = -1;
        struct flock lock = whole_file;

        if (!path)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot open %s: %m", path);

        if (fcntl(fd, F_SETLK, &lock) < 0) {
                (void) fcntl(fd, F_GETLK, &lock);
                return weft_fail(reterr, -EBUSY,
                                 "another weftd (pid %d) runs with root \"%s\": stop it first, or "
                                 "give this one a --root of its own",
                                 (int) lock.l_pid, p->root[0] ? p->root : "/");
        }

        *ret_fd = TAKE_FD(fd);
        return 0;
}

int pins_lock_take(const struct paths *p, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_close_ int fd = open(p->bpffs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot open %s: %m", p->bpffs);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return weft_fail(
                        reterr, errno == EWOULDBLOCK ? -EBUSY : -errno,
                        "another weftd has its pins in %s: stop it first, or give this one a "
                        "--bpffs of its own",
                        p->bpffs);

        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Asking needs no right to write. *ret_lock: F_UNLCK where nobody holds it. */
static void lock_ask(const struct paths *p, struct flock *ret_lock)
{
        _cleanup_free_ char *path = below(p->run, "lock");
        _cleanup_close_ int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

        *ret_lock = whole_file;
        if (fd < 0 || fcntl(fd, F_GETLK, ret_lock) < 0)
                ret_lock->l_type = F_UNLCK;
}

pid_t lock_holder(const struct paths *p)
{
        struct flock lock;

        lock_ask(p, &lock);
        return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

bool lock_is_held(const struct paths *p)
{
        struct flock lock;

        lock_ask(p, &lock);
        return lock.l_type != F_UNLCK;
}

uint64_t netns_number(void)
{
        struct stat st;

        return stat("/proc/self/ns/net", &st) < 0 ? 0 : st.st_ino;
}
