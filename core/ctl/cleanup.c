/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <systemd/sd-event.h>

#include "ctl/cleanup.h"
#include "generation/generation.h"
#include "net/net.h"
#include "util.h"

enum {
        STOP_MILLISECONDS = 10000,
        LISTENING = 1 << 16, /* __SO_ACCEPTCON in /proc/net/unix */
};

static void say(void *data, const char *what)
{
        (void) fprintf(data, "removed %s\n", what);
}

static void say_host(void *data, const char *what)
{
        (void) fprintf(data, "%s %s\n", strncmp(what, "/proc/", 6) == 0 ? "set" : "removed", what);
}

/* ---- the daemon --------------------------------------------------------------------------- */

/* Devices and routes are in the daemon's network namespace, whichever this command was called in.
 */
static int join_netns(pid_t pid, struct weft_error *reterr)
{
        _cleanup_close_ int fd = -1;
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/%d/ns/net", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
                return weft_fail(reterr, -errno,
                                 "cannot enter the network namespace of weftd (pid %d): %m; "
                                 "cleanup needs root",
                                 (int) pid);

        return 0;
}

static int stop_daemon(pid_t pid, FILE *f, struct weft_error *reterr)
{
        _cleanup_close_ int fd = (int) syscall(SYS_pidfd_open, pid, 0);
        struct pollfd gone = { .fd = fd, .events = POLLIN };
        int r;

        if (fd < 0)
                return errno == ESRCH ? 0
                                      : weft_fail(reterr, -errno, "weftd (pid %d): %m", (int) pid);

        r = join_netns(pid, reterr);
        if (r < 0)
                return r;
        if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) < 0)
                return weft_fail(reterr, -errno, "cannot stop weftd (pid %d): %m", (int) pid);
        if (poll(&gone, 1, STOP_MILLISECONDS) <= 0)
                return weft_fail(reterr, -ETIMEDOUT,
                                 "weftd (pid %d) does not stop: kill it and try again", (int) pid);

        (void) fprintf(f, "stopped weftd (pid %d)\n", (int) pid);
        return 0;
}

/* Without a daemon to follow, its devices can only be looked for here: then here has to be where it
 * ran. */
static int check_netns(const struct paths *p, struct weft_error *reterr)
{
        _cleanup_free_ char *path = NULL, *text = NULL;

        if (asprintf(&path, "%s/netns", p->run) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        if (file_read(path, &text) < 0 || strtoull(text, NULL, 10) == netns_number())
                return 0;

        return weft_fail(
                reterr, -EXDEV,
                "weftd ran in another network namespace (net:[%.*s]): call this "
                "there (nsenter --net=… weftctl cleanup), or, if that namespace is gone, remove "
                "%s and %s by hand",
                (int) strcspn(text, "\n"), text, p->bpffs, p->run);
}

/* ---- files -------------------------------------------------------------------------------- */

/* Whether somebody listens on a Unix socket's path, in the network namespace of a process. */
static bool is_listening(const char *process, const char *path)
{
        _cleanup_free_ char *list = NULL, *line = NULL;
        _cleanup_fclose_ FILE *f = NULL;
        size_t size = 0;

        if (asprintf(&list, "/proc/%s/net/unix", process) >= 0)
                f = fopen(list, "re");
        while (f && getline(&line, &size, f) > 0) {
                unsigned flags;
                int at = 0;

                (void) sscanf(line, "%*s %*s %*s %x %*s %*s %*s %n", &flags, &at);
                line[strcspn(line, "\n")] = '\0';
                if (at > 0 && (flags & LISTENING) && strcmp(line + at, path) == 0)
                        return true;
        }

        return false;
}

/* The service manager's: it hands the socket to the next daemon, and makes the file only once. */
static bool is_the_managers(const char *path)
{
        return is_listening("1", path) || is_listening("self", path);
}

/* Removes what is below a directory, and the directory itself, unless something is mounted on it.
 */
static void remove_tree(const char *path, FILE *f)
{
        DIR *d = opendir(path);
        struct dirent *e;

        while (d && (e = readdir(d))) {
                _cleanup_free_ char *entry = NULL;
                struct stat st;

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                    asprintf(&entry, "%s/%s", path, e->d_name) < 0)
                        continue;
                if (lstat(entry, &st) < 0)
                        continue;
                if (S_ISDIR(st.st_mode))
                        remove_tree(entry, f);
                else if (!(S_ISSOCK(st.st_mode) && is_the_managers(entry)) && unlink(entry) == 0)
                        say(f, entry);
        }

        if (d)
                (void) closedir(d);
        if (d && rmdir(path) == 0)
                say(f, path);
}

/* A bpffs has files of the kernel's own in its root: only what weft makes is taken. */
static void remove_pins(const struct paths *p, FILE *f)
{
        static const char *const ours[] = { "maps", "links", "filters" };

        for (size_t i = 0; i < ELEMENTS(ours); i++) {
                _cleanup_free_ char *path = NULL;

                if (asprintf(&path, "%s/%s", p->bpffs, ours[i]) >= 0)
                        remove_tree(path, f);
        }

        if (rmdir(p->bpffs) == 0)
                say(f, p->bpffs);
}

static bool is_there(const char *path)
{
        return access(path, F_OK) == 0;
}

static bool has_pins(const struct paths *p)
{
        _cleanup_free_ char *maps = NULL;

        return asprintf(&maps, "%s/maps", p->bpffs) < 0 || is_there(maps);
}

/* ---- links, host changes ------------------------------------------------------------------ */

static int remove_attachments(const struct paths *p, FILE *f, struct weft_error *reterr)
{
        struct attachments *a;
        int r;

        if (!is_there(p->bpffs))
                return 0;

        r = attach_open(p->bpffs, ATTACH_AUTO, &a, reterr);
        if (r < 0)
                return r;

        attach_cleanup(a, say, f);
        (void) attach_close(a);
        grace_period();
        generation_unpin_all(p->bpffs);

        return 0;
}

static void ignore_event(void *data, const struct net_event *event)
{
        (void) data;
        (void) event;
}

static int undo_host_changes(const struct paths *p, FILE *f, struct weft_error *reterr)
{
        sd_event *loop = NULL;
        struct net *n = NULL;
        struct host *h = NULL;
        int r = sd_event_new(&loop);

        if (r < 0)
                return weft_fail(reterr, r, "cannot make an event loop: %s", strerror(-r));

        r = net_open(loop, ignore_event, NULL, &n, reterr);
        if (r == 0)
                r = host_open(n, p->run, &h, reterr);
        if (r == 0)
                host_cleanup(h, say_host, f);

        (void) host_close(h);
        (void) net_close(n);
        (void) sd_event_unref(loop);

        return r;
}

int cleanup(const struct paths *p, FILE *f, struct weft_error *reterr)
{
        _cleanup_close_ int lock = -1, pins = -1;
        pid_t pid = lock_holder(p);
        int r = pid > 0 ? stop_daemon(pid, f, reterr) : check_netns(p, reterr);

        if (r == 0 && !is_there(p->run) && !has_pins(p)) {
                (void) fprintf(f, "nothing of weft is here\n");
                return 0;
        }
        if (r == 0)
                r = make_directories(p->run, 0755, reterr);
        if (r == 0)
                r = lock_take(p, &lock, reterr); /* no daemon starts from here on */
        if (r == 0 && is_there(p->bpffs))
                r = pins_lock_take(p, &pins, reterr);
        if (r == 0)
                r = remove_attachments(p, f, reterr);
        if (r == 0)
                r = undo_host_changes(p, f, reterr);
        if (r < 0)
                return r;

        remove_pins(p, f);
        remove_tree(p->run, f);

        return 0;
}
