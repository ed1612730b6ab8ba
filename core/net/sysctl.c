/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "net/hold.h"

static int sysctl_open(const char *path, int flags)
{
        _cleanup_free_ char *whole = NULL;
        int fd;

        if (asprintf(&whole, "/proc/sys/%s", path) < 0) {
                whole = NULL;
                return -ENOMEM;
        }
        fd = open(whole, flags | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* The kernel gives a value to one read, cut off where that ends; another read gets nothing. */
int sysctl_read(const char *path, char **ret)
{
        static const size_t rooms[] = { 256, 256 * 1024 };
        _cleanup_close_ int fd = sysctl_open(path, O_RDONLY);
        _cleanup_free_ char *value = NULL;
        ssize_t n = 0;

        if (fd < 0)
                return fd;

        for (size_t i = 0; i < ELEMENTS(rooms); i++) {
                freep(&value);
                value = malloc(rooms[i]);
                if (!value)
                        return -ENOMEM;
                n = pread(fd, value, rooms[i] - 1, 0);
                if (n < 0)
                        return -errno;
                if ((size_t) n < rooms[i] - 1)
                        break;
        }

        value[n] = '\0';
        value[strcspn(value, "\n")] = '\0';
        for (char *c = value; (c = strchr(c, '\t'));)
                *c = ' ';

        *ret = TAKE(value);
        return 0;
}

/* The kernel takes a page of a long list at a time. */
static int write_plain(const char *path, const char *value)
{
        _cleanup_close_ int fd = sysctl_open(path, O_WRONLY);
        size_t left = strlen(value), at = 0;
        ssize_t n;

        if (fd < 0)
                return fd;

        do {
                /* An empty list is a line end; an empty write would not be seen. */
                n = left ? write(fd, value + at, left) : write(fd, "\n", 1);
                if (n < 0)
                        return -errno;
                at += (size_t) n;
                left -= (size_t) n < left ? (size_t) n : left;
        } while (left > 0);

        return 0;
}

struct kept {
        char *path, *value;
};

struct kept_list {
        struct kept *items;
        size_t n;
};

static void kept_done(struct kept_list *l)
{
        for (size_t i = 0; i < l->n; i++) {
                free(l->items[i].path);
                free(l->items[i].value);
        }
        free(l->items);
}

static void closedirp(DIR **d)
{
        if (*d)
                (void) closedir(*d);
}

static int keep_forwarding(struct kept_list *l)
{
        _cleanup_(closedirp) DIR *d = opendir("/proc/sys/net/ipv6/conf");
        struct dirent *e;
        struct kept k;

        while (d && (e = readdir(d))) {
                if (e->d_name[0] == '.' || strcmp(e->d_name, "all") == 0)
                        continue;
                if (list_grow(&l->items, l->n, sizeof(*l->items)) < 0 ||
                    asprintf(&k.path, "net/ipv6/conf/%s/forwarding", e->d_name) < 0)
                        return -ENOMEM;
                if (sysctl_read(k.path, &k.value) < 0)
                        free(k.path);
                else
                        l->items[l->n++] = k;
        }

        return 0;
}

/* The kernel copies a change of "all" to every interface and to "default", which makes routers of
 * interfaces that weft has nothing to do with. They are put back; the packets they receive are
 * forwarded all the same, for that the kernel asks only "all". */
static int write_forwarding_of_all(const char *path, const char *value)
{
        _cleanup_(kept_done) struct kept_list kept = { 0 };
        _cleanup_free_ char *now = NULL;
        int r = keep_forwarding(&kept);

        if (r >= 0)
                r = write_plain(path, value);
        if (r < 0)
                return r;

        for (size_t i = 0; i < kept.n; i++) {
                freep(&now);
                now = NULL;
                if (sysctl_read(kept.items[i].path, &now) == 0 &&
                    strcmp(now, kept.items[i].value) != 0)
                        (void) write_plain(kept.items[i].path, kept.items[i].value);
        }

        return 0;
}

int sysctl_write(const char *path, const char *value)
{
        if (strcmp(path, "net/ipv6/conf/all/forwarding") == 0)
                return write_forwarding_of_all(path, value);

        return write_plain(path, value);
}

struct sysctl_hold *sysctl_find(struct host *h, const char *path)
{
        for (size_t i = 0; i < h->n_sysctls; i++)
                if (strcmp(h->sysctls[i].path, path) == 0)
                        return &h->sysctls[i];

        return NULL;
}

void sysctl_hold_done(struct sysctl_hold *s)
{
        free(s->path);
        free(s->before);
        free(s->value);
}

struct sysctl_hold *sysctl_add(struct host *h, const char *path, const char *before,
                               const char *value)
{
        struct sysctl_hold s = { strdup(path), strdup(before), strdup(value), 0 };

        if (!s.path || !s.before || !s.value ||
            list_grow(&h->sysctls, h->n_sysctls, sizeof(s)) < 0) {
                sysctl_hold_done(&s);
                return NULL;
        }

        h->sysctls[h->n_sysctls] = s;
        return &h->sysctls[h->n_sysctls++];
}

static int replace(char **text, const char *by)
{
        char *copy = strdup(by);

        if (!copy)
                return -ENOMEM;
        free(*text);
        *text = copy;

        return 0;
}

/* A hold that found its value there already has altered nothing so far: what it finds on its first
 * write is what to go back to. */
static struct sysctl_hold *sysctl_want(struct host *h, const char *path, const char *now,
                                       const char *value)
{
        struct sysctl_hold *s = sysctl_find(h, path);

        if (!s)
                return sysctl_add(h, path, now, value);
        if (strcmp(s->before, s->value) == 0 && replace(&s->before, now) < 0)
                return NULL;

        return replace(&s->value, value) < 0 ? NULL : s;
}

static int sysctl_make(struct host *h, const struct sysctl_hold *s, struct weft_error *reterr)
{
        int r = record_add(h, reterr, "sysctl\t%s\t%s\t%s", s->path, s->before, s->value);

        if (r < 0)
                return r;

        r = sysctl_write(s->path, s->value);

        return r < 0 ? weft_fail(reterr, r, "cannot write %s to /proc/sys/%s: %s", s->value,
                                 s->path, strerror(-r))
                     : 0;
}

int host_sysctl(struct host *h, const char *path, const char *value, struct weft_error *reterr)
{
        _cleanup_free_ char *now = NULL;
        struct sysctl_hold *s;
        int r = sysctl_read(path, &now);

        if (r < 0)
                return weft_fail(reterr, r, "cannot read /proc/sys/%s: %s", path, strerror(-r));
        s = sysctl_want(h, path, now, value);
        if (!s)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        /* Where the value is right already nothing is written: for the kernel's forwarding switches
         * even a write that changes nothing has effects. */
        if (strcmp(now, value) != 0)
                r = sysctl_make(h, s, reterr);
        if (r >= 0)
                s->count++;
        else if (s->count == 0)
                sysctl_undo(h, s);

        return r;
}

/* True where it was something else, and is right now. */
static bool make_again(struct host *h, struct sysctl_hold *s, char *ret_what, size_t size)
{
        _cleanup_free_ char *now = NULL;

        if (s->count == 0 || sysctl_read(s->path, &now) < 0 || strcmp(now, s->value) == 0 ||
            !sysctl_want(h, s->path, now, s->value) || sysctl_make(h, s, NULL) < 0)
                return false;

        (void) snprintf(ret_what, size, "/proc/sys/%s = %s (it was set to %s)", s->path, s->value,
                        now);
        return true;
}

void host_settings_again(struct host *h, void (*f)(void *data, const char *what), void *data)
{
        char what[256];

        for (size_t i = 0; i < h->n_sysctls; i++)
                if (make_again(h, &h->sysctls[i], what, sizeof(what)) && f)
                        f(data, what);
        if (ports_apply(h, NULL) > 0 && f)
                f(data, "ports of services in /proc/sys/net/ipv4/ip_local_reserved_ports");
        tables_again(h, f, data);
}

void sysctl_undo(struct host *h, struct sysctl_hold *s)
{
        _cleanup_free_ char *now = NULL;

        if (strcmp(s->before, s->value) != 0) {
                if (sysctl_read(s->path, &now) == 0 && strcmp(now, s->value) == 0)
                        (void) sysctl_write(s->path, s->before);
                (void) record_add(h, NULL, "sysctl-undone\t%s", s->path);
        }

        sysctl_hold_done(s);
        h->n_sysctls--;
        memmove(s, s + 1, (size_t) (&h->sysctls[h->n_sysctls] - s) * sizeof(*s));
        record_trim(h);
}

void host_unsysctl(struct host *h, const char *path)
{
        struct sysctl_hold *s = sysctl_find(h, path);

        if (s && (s->count == 0 || --s->count == 0))
                sysctl_undo(h, s);
}
