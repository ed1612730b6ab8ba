/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Forwarding, and what has to be so around it (below /proc/sys):
 *
 *   net/ipv4/conf/IF/forwarding = 1
 *           The stack forwards, and the FIB lookup of eBPF answers, for packets received on an
 *           interface only where this is set.
 *   net/ipv6/conf/IF/forwarding = 1
 *           The FIB lookup of eBPF asks this; the stack does not.
 *   net/ipv6/conf/IF/force_forwarding = 1     where the kernel has it (6.17)
 *   net/ipv6/conf/all/forwarding = 1          where it has not
 *           The stack forwards IPv6 packets by these alone. The second is for all interfaces; their
 *           own `forwarding` and that of "default" are put back to what they were.
 *   net/ipv6/conf/X/accept_ra 1 -> 2          every X that forwards nothing yet, "default" too
 *           Whenever 1 is written to any interface's `forwarding`, the kernel removes the default
 *           routes learned from router advertisements of every interface whose accept_ra is not 2,
 *           and an interface that forwards takes no advertisements with 1. An X that forwards
 *           already ignores advertisements by its administrator's choice and is left alone.
 *
 * All go back, in the other order, when the last interface is given back. */

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "net/hold.h"

#define CONF6 "net/ipv6/conf/"
#define ALL6 CONF6 "all/forwarding"

enum { PATH_BYTES = 96 };

static bool reads(const char *path, const char *value)
{
        _cleanup_free_ char *now = NULL;

        return sysctl_read(path, &now) == 0 && strcmp(now, value) == 0;
}

static bool kernel_has(const char *path)
{
        _cleanup_free_ char *now = NULL;

        return sysctl_read(path, &now) == 0;
}

static bool kernel_forces(void)
{
        return kernel_has(CONF6 "default/force_forwarding");
}

static const char *name_path(char buf[static PATH_BYTES], const char *format, const char *ifname)
{
        (void) snprintf(buf, PATH_BYTES, format, ifname);
        return buf;
}

/* Once for each interface however often it is asked for: all of them go back together. */
static int keep_advertisements_of(struct host *h, const char *ifname, struct weft_error *reterr)
{
        char accept[PATH_BYTES], forwarding[PATH_BYTES];
        struct sysctl_hold *s;

        (void) snprintf(accept, sizeof(accept), CONF6 "%s/accept_ra", ifname);
        (void) snprintf(forwarding, sizeof(forwarding), CONF6 "%s/forwarding", ifname);

        s = sysctl_find(h, accept);
        if (s && s->count > 0 && !reads(accept, "1"))
                return 0;
        if (!s && !(reads(accept, "1") && reads(forwarding, "0")))
                return 0;

        return host_sysctl(h, accept, "2", reterr);
}

static void closedirp(DIR **d)
{
        if (*d)
                (void) closedir(*d);
}

static int keep_advertisements(struct host *h, const char *ifname, struct weft_error *reterr)
{
        _cleanup_(closedirp) DIR *d = NULL;
        struct dirent *e;
        int r;

        /* Later interfaces begin with what "default" says. */
        if (h->forwarding6 > 0)
                return keep_advertisements_of(h, ifname, reterr);

        d = opendir("/proc/sys/" CONF6);
        if (!d)
                return weft_fail(reterr, -errno, "cannot read /proc/sys/" CONF6 ": %m");
        while ((e = readdir(d))) {
                if (e->d_name[0] == '.' || strcmp(e->d_name, "all") == 0)
                        continue;
                r = keep_advertisements_of(h, e->d_name, reterr);
                /* An interface may go while the folder is read. */
                if (r < 0 && r != -ENOENT)
                        return r;
        }

        return 0;
}

bool sysctl_keeps_advertisements(const struct sysctl_hold *s)
{
        static const char end[] = "/accept_ra";
        size_t n = strlen(s->path);

        return strncmp(s->path, CONF6, strlen(CONF6)) == 0 && n > sizeof(end) &&
               strcmp(s->path + n + 1 - sizeof(end), end) == 0;
}

static void release_advertisements(struct host *h)
{
        for (size_t i = h->n_sysctls; i-- > 0;)
                if (sysctl_keeps_advertisements(&h->sysctls[i]))
                        sysctl_undo(h, &h->sysctls[i]);
}

static void unforward6(struct host *h, const char *ifname)
{
        char path[PATH_BYTES];
        const struct sysctl_hold *s =
                sysctl_find(h, name_path(path, CONF6 "%s/forwarding", ifname));

        if (!s || s->count == 0)
                return;

        host_unsysctl(h, path);
        if (kernel_forces())
                host_unsysctl(h, name_path(path, CONF6 "%s/force_forwarding", ifname));
        else
                host_unsysctl(h, ALL6);

        if (--h->forwarding6 == 0)
                release_advertisements(h);
}

static int forward6(struct host *h, const char *ifname, struct weft_error *reterr)
{
        char path[PATH_BYTES];
        int r;

        /* An interface with a tiny MTU has no IPv6. */
        if (!kernel_has(name_path(path, CONF6 "%s/forwarding", ifname)))
                return 0;

        r = keep_advertisements(h, ifname, reterr);
        if (r < 0)
                return r;

        if (kernel_forces())
                r = host_sysctl(h, name_path(path, CONF6 "%s/force_forwarding", ifname), "1",
                                reterr);
        else
                r = host_sysctl(h, ALL6, "1", reterr);
        if (r < 0)
                return r;

        r = host_sysctl(h, name_path(path, CONF6 "%s/forwarding", ifname), "1", reterr);
        if (r >= 0)
                h->forwarding6++;

        return r;
}

int host_forwarding(struct host *h, const char *ifname, struct weft_error *reterr)
{
        char path[PATH_BYTES];
        int r = host_sysctl(h, name_path(path, "net/ipv4/conf/%s/forwarding", ifname), "1", reterr);

        if (r >= 0) {
                r = forward6(h, ifname, reterr);
                if (r < 0)
                        host_unsysctl(h, name_path(path, "net/ipv4/conf/%s/forwarding", ifname));
        }

        return r < 0 ? weft_fail_in(reterr, r, "forwarding on %s", ifname) : 0;
}

void host_unforwarding(struct host *h, const char *ifname)
{
        char path[PATH_BYTES];

        unforward6(h, ifname);
        host_unsysctl(h, name_path(path, "net/ipv4/conf/%s/forwarding", ifname));
}
