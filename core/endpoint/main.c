/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* weft-endpoint: what weft-endpoint@.service runs, see help. It is no verb of weftctl
 * since it is of use to the service manager only, which keeps what it makes. */

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "config/config.h"
#include "ctl/client.h"
#include "paths.h"
#include "util.h"

static const char help[] =
        "weft-endpoint up|down NAME\n"
        "\n"
        "up makes the network namespace of [endpoint NAME] if it is not there, and waits until "
        "weftd\n"
        "has made the endpoint in it. A weftd that does not know the section yet is told to "
        "reload.\n"
        "down takes the namespace away if up made it, which $RUNTIME_DIRECTORY remembers.\n"
        "\n"
        "Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage.\n";

enum { POLL_MICROSECONDS = 50000, LOOKS_ELSEWHERE = 20, PATIENCE_SECONDS = 60 };

/* ---- the section -------------------------------------------------------------------------- */

static void config_freep(struct config **c)
{
        (void) config_free(*c);
}

static int load(struct config **ret, struct weft_error *reterr)
{
        struct diagnostics diagnostics = { 0 };
        char place[ORIGIN_TEXT];
        int r = config_load("", ret, &diagnostics);

        for (size_t i = 0; i < diagnostics.n; i++)
                (void) fprintf(stderr, "%s: %s\n",
                               origin_format(&diagnostics.items[i].origin, place, sizeof(place)),
                               diagnostics.items[i].text);
        diagnostics_done(&diagnostics);

        return r < 0 ? weft_fail(reterr, r, "the configuration cannot be read: weftctl check") : 0;
}

/* What its section says of the endpoint. */
struct place {
        char *netns, *device;
};

static void place_done(struct place *p)
{
        free(p->netns);
        free(p->device);
}

static int find_place(const char *name, struct place *ret, struct weft_error *reterr)
{
        _cleanup_(config_freep) struct config *c = NULL;
        int r = load(&c, reterr);

        for (size_t i = 0; r == 0 && i < c->n_endpoints; i++) {
                const struct config_endpoint *e = &c->endpoints[i];

                if (strcmp(e->name, name) != 0)
                        continue;
                if (!e->netns)
                        return weft_fail(reterr, -EINVAL,
                                         "[endpoint %s] has no netns = that could be made", name);
                ret->netns = strdup(e->netns);
                ret->device = strdup(e->device);
                return ret->netns && ret->device ? 0 : weft_fail(reterr, -ENOMEM, "out of memory");
        }

        return r < 0 ? r
                     : weft_fail(reterr, -ENOENT,
                                 "there is no [endpoint %s] in weft.conf or in conf.d", name);
}

/* ---- the namespace ------------------------------------------------------------------------ */

static bool is_namespace(const char *path)
{
        struct statfs fs;

        return statfs(path, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

/* $RUNTIME_DIRECTORY/made: the namespace is ours to take away. */
static char *mark_path(void)
{
        const char *directory = getenv("RUNTIME_DIRECTORY");
        char *path;

        return directory && asprintf(&path, "%s/made", directory) >= 0 ? path : NULL;
}

static int mount_new_namespace(const char *path, struct weft_error *reterr)
{
        _cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        int r = 0;

        if (home < 0 || unshare(CLONE_NEWNET) < 0)
                return weft_fail(reterr, -errno, "cannot make a network namespace: %m");
        if (mount("/proc/self/ns/net", path, NULL, MS_BIND, NULL) < 0)
                r = weft_fail(reterr, -errno, "cannot mount the namespace on %s: %m", path);
        if (setns(home, CLONE_NEWNET) < 0)
                abort(); /* there is no going on in the wrong namespace */

        return r;
}

static int make_namespace(const char *path, struct weft_error *reterr)
{
        _cleanup_free_ char *directory = strdup(path), *mark = mark_path();
        _cleanup_close_ int fd = -1;
        int r;

        if (is_namespace(path))
                return 0;
        if (!directory)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        *strrchr(directory, '/') = '\0';
        r = directory[0] ? make_directories(directory, 0755, reterr) : 0;
        if (r < 0)
                return r;
        fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
        if (fd < 0)
                return weft_fail(reterr, -errno, "%s: %m", path);
        if (mark && file_replace(mark, path, reterr) < 0)
                return -EIO;

        return mount_new_namespace(path, reterr);
}

/* ---- the endpoint ------------------------------------------------------------------------- */

/* What weftd says of an endpoint; NULL: nothing. Borrowed from the reply. */
static const json_t *find_endpoint(const json_t *status, const char *name)
{
        const json_t *e;
        size_t i;

        json_array_foreach (json_object_get(status, "endpoints"), i, e)
                if (strcmp(json_string_value(json_object_get(e, "name")) ?: "", name) == 0)
                        return e;

        return NULL;
}

static int ask(const struct paths *p, const char *method, json_t **ret, struct weft_error *reterr)
{
        return client_call(p->control, method, NULL, /* more= */ false, ret, reterr);
}

/* Whether the endpoint's device is in its namespace. The socket is there to be asked. */
static bool is_wired(const struct place *p)
{
        _cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        _cleanup_close_ int there = open(p->netns, O_RDONLY | O_CLOEXEC), fd = -1;
        struct ifreq device = {};
        bool found;

        (void) snprintf(device.ifr_name, sizeof(device.ifr_name), "%s", p->device);
        if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
                return false;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        found = fd >= 0 && ioctl(fd, SIOCGIFINDEX, &device) == 0;
        if (setns(home, CLONE_NEWNET) < 0)
                abort(); /* there is no going on in the wrong namespace */

        return found;
}

/* What weftd says, and what is there. */
struct view {
        bool known, ready;
        unsigned elsewhere; /* looks at which it was ready, but not in its namespace */
        char *reason;
};

static void view_done(struct view *v)
{
        free(v->reason);
}

static int look(const struct paths *p, const char *name, const struct place *place, struct view *v,
                struct weft_error *reterr)
{
        bool wired = is_wired(place); /* before weftd is asked: it says "ready" after it wired */
        json_auto_t *status = NULL;
        const char *reason;
        const json_t *e;
        int r = ask(p, "GetStatus", &status, reterr);

        if (r < 0)
                return r;

        e = find_endpoint(status, name);
        v->known = e != NULL;
        v->ready = strcmp(json_string_value(json_object_get(e, "state")) ?: "", "ready") == 0;
        reason = v->ready ? "weftd has it in another namespace"
                          : json_string_value(json_object_get(e, "reason"));
        v->elsewhere = v->ready && !wired ? v->elsewhere + 1 : 0;
        v->ready = v->ready && wired;
        free(v->reason);
        v->reason = strdup(reason ?: "no reason given");

        return 0;
}

static int wait_until_ready(const struct paths *p, const char *name, const struct place *place,
                            struct weft_error *reterr)
{
        uint64_t end = monotonic_now() + PATIENCE_SECONDS * 1000000ull;
        _cleanup_(view_done) struct view v = {};
        bool reloaded = false;
        int r;

        while ((r = look(p, name, place, &v, reterr)) == 0 && !v.ready) {
                /* A section that weftd does not know, or not as it is by now. */
                if ((!v.known || v.elsewhere > LOOKS_ELSEWHERE) && !reloaded) {
                        json_auto_t *ignored = NULL;

                        r = ask(p, "Reload", &ignored, reterr);
                        if (r < 0)
                                return r;
                        reloaded = true;
                        continue;
                }
                if (monotonic_now() > end)
                        return weft_fail(reterr, -ETIMEDOUT, "endpoint %s is pending: %s", name,
                                         v.reason);
                (void) usleep(POLL_MICROSECONDS);
        }

        return r;
}

/* ---- verbs -------------------------------------------------------------------------------- */

static int up(const char *name, struct weft_error *reterr)
{
        _cleanup_(paths_done) struct paths p = { 0 };
        _cleanup_(place_done) struct place place = { 0 };
        int r = find_place(name, &place, reterr);

        if (r == 0)
                r = make_namespace(place.netns, reterr);
        if (r == 0)
                r = paths_init(&p, NULL, NULL, reterr);

        return r < 0 ? r : wait_until_ready(&p, name, &place, reterr);
}

/* The path is the one that up wrote down: the section may have changed, or be gone. */
static int down(const char *name, struct weft_error *reterr)
{
        _cleanup_free_ char *mark = mark_path(), *path = NULL;

        (void) name;
        if (!mark || file_read(mark, &path) < 0)
                return 0;
        if (is_namespace(path) && umount2(path, MNT_DETACH) < 0)
                return weft_fail(reterr, -errno, "cannot unmount %s: %m", path);
        if (unlink(path) < 0 && errno != ENOENT)
                return weft_fail(reterr, -errno, "%s: %m", path);

        (void) unlink(mark);
        return 0;
}

/* systemd-escape(1) writes "-" as "\\x2d". No endpoint has a backslash in its name. */
static void unescape(char *name)
{
        char *to = name;

        for (const char *from = name; *from; to++)
                if (from[0] == '\\' && from[1] == 'x' && isxdigit(from[2]) && isxdigit(from[3])) {
                        const char digits[] = { from[2], from[3], '\0' };

                        *to = (char) strtoul(digits, NULL, 16);
                        from += 4;
                } else {
                        *to = *from++;
                }
        *to = '\0';
}

static const struct {
        const char *name;
        int (*f)(const char *endpoint, struct weft_error *reterr);
} verbs[] = { { "up", up }, { "down", down } };

int main(int argc, char **argv)
{
        struct weft_error why = { 0 };

        if (argc == 2 && strcmp(argv[1], "--help") == 0)
                return fputs(help, stdout) < 0;

        for (size_t i = 0; argc == 3 && i < ELEMENTS(verbs); i++) {
                if (strcmp(argv[1], verbs[i].name) != 0)
                        continue;
                unescape(argv[2]);
                if (verbs[i].f(argv[2], &why) == 0)
                        return 0;
                (void) fprintf(stderr, "weft-endpoint: %s\n", why.text);
                return 1;
        }

        (void) fputs(help, stderr);
        return 2;
}
