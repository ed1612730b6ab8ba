/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What others on the node change of that which weft needs is set again: sysctls, reserved ports,
 * routes, hooks. The kernel tells of routes and of forwarding; the rest is looked at after each
 * pass of collection. Somebody who insists is not fought without end: ten times in ten seconds,
 * each of them logged. */

#include <stdio.h>

#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

#define PERIOD 10000000ull /* microseconds */

enum { REPAIRS_MAX = 10 }; /* in a period */

static void say(void *data, const char *what)
{
        bool *some = data;

        *some = true;
        log_message(LOG_WARNING, SETTING_CHANGED, "set again what somebody else had changed: %s",
                    what);
}

static void attach_again(struct daemon *d, bool *some)
{
        char ifname[16], what[64];
        struct weft_error why = { 0 };

        if (attach_is_whole(d->attachments, ifname))
                return;

        if (daemon_hooks_switch(d, d->build, &why) < 0) {
                log_warning("%s: somebody detached programs of weft, and they cannot be attached "
                            "again: %s",
                            ifname, why.text);
                return;
        }
        (void) snprintf(what, sizeof(what), "programs of weft at %s were detached", ifname);
        say(some, what);
}

void daemon_repair(struct daemon *d)
{
        uint64_t now = monotonic_now();
        bool some = false;

        if (now - d->repairs_since > PERIOD) {
                d->repairs_since = now;
                d->repairs = 0;
        }
        if (d->repairs == REPAIRS_MAX)
                return;

        host_settings_again(d->host, say, &some);
        if (d->route_gone)
                host_routes_again(d->host, say, &some);
        d->route_gone = false;
        attach_again(d, &some);
        if (some) {
                d->repairs++;
                tables_move_epoch(d->tables); /* ways were decided without them */
        }
}
