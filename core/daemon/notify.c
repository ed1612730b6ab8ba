/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the service manager is told: readiness once, and a line of status that follows the state. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "daemon/daemon.h"
#include "util.h"

struct line {
        char text[NOTIFY_STATUS];
        size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct line *l, const char *format, ...)
{
        va_list ap;
        int n;

        if (l->n >= sizeof(l->text))
                return;

        va_start(ap, format);
        n = vsnprintf(l->text + l->n, sizeof(l->text) - l->n, format, ap);
        va_end(ap);
        l->n += n > 0 ? (size_t) n : 0;
}

/* "generation 3; modules a, b; 1 of 2 endpoints ready" */
static void describe(const struct daemon *d, struct line *l)
{
        size_t ready = 0;

        for (size_t i = 0; i < d->n_endpoints; i++)
                ready += d->endpoints[i].ready;

        add(l, "generation %u; modules", generation_number(d->build->generation));
        for (size_t i = 0; i < d->build->n_instances; i++)
                add(l, "%s %s", i > 0 ? "," : "", d->build->instances[i]->module->desc.name);
        add(l, "%s; %zu of %zu endpoints ready", d->build->n_instances > 0 ? "" : " none", ready,
            d->n_endpoints);
        if (d->refused[0])
                add(l, "; last reload refused: %s", d->refused);
        l->text[strcspn(l->text, "\n")] = '\0';
}

/* After whatever was done in a turn of the loop, so that nobody who changes something has to think
 * of this. */
static int on_turn(sd_event_source *source, void *data)
{
        struct daemon *d = data;
        struct line l = { .n = 0 };

        (void) source;
        describe(d, &l);
        if (strcmp(l.text, d->status) == 0)
                return 0;

        memcpy(d->status, l.text, sizeof(d->status));
        (void) sd_notifyf(/* unset_environment= */ 0, "STATUS=%s", d->status);
        return 0;
}

void daemon_notify_alive(void)
{
        (void) sd_notify(/* unset_environment= */ 0, "WATCHDOG=1");
}

int daemon_notify_ready(struct daemon *d, struct weft_error *reterr)
{
        int r = sd_event_add_post(d->loop, &d->turn, on_turn, d);

        if (r < 0)
                return weft_fail(reterr, r, "event loop: %s", strerror(-r));

        (void) on_turn(NULL, d);
        (void) sd_notify(/* unset_environment= */ 0, "READY=1");
        return 0;
}

void daemon_notify_stop(struct daemon *d)
{
        d->turn = sd_event_source_disable_unref(d->turn);
}
