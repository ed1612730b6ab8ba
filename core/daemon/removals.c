/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Endpoints on their way out. They left the tables at once; their devices go a few at a time,
 * because the kernel waits for grace periods when it deletes a device, and the daemon with it. Who
 * asked for the removal has the answer when the last of them is gone. A daemon that dies meanwhile
 * leaves devices that nobody knows: its successor removes them (daemon_endpoints_settle()). */

#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "net/namespace.h"
#include "util.h"

#define PAUSE 5000ull /* microseconds that others have between two turns */

/* In one turn, which takes some 100 ms. For devices with tcx links the kernel waits for each. */
enum { BATCH = 32, BATCH_LINKS = 3 };

struct removal {
        struct endpoint endpoint; /* its name and addresses are owned here; no section any more */
        uint64_t number;          /* one for each, ascending */
};

static void let_go(struct daemon *d, struct endpoint *e)
{
        if (e->wired) {
                attach_forget(d->attachments, e->wire.ifname);
                wire_down(d->net, d->host, e->name, e->addrs.items, e->addrs.n);
        } else if (e->wire.ifname[0]) {
                attach_remove(d->attachments, e->wire.ifname);
        }
        if (e->forwarding)
                host_unforwarding(d->host, e->wire.ifname);

        free(e->name);
        free(e->addrs.items);
}

/* All removals with this number or a smaller one are done. */
static uint64_t done_until(const struct removals *r)
{
        uint64_t until = r->last;

        for (size_t i = 0; i < r->n; i++)
                if (r->items[i].number <= until)
                        until = r->items[i].number - 1;

        return until;
}

/* The first n, n at most BATCH. */
static void remove_first(struct daemon *d, size_t n)
{
        struct removals *r = &d->removals;
        char names[BATCH][16];
        size_t n_names = 0;

        for (size_t i = 0; i < n; i++)
                if (r->items[i].endpoint.wired)
                        memcpy(names[n_names++], r->items[i].endpoint.wire.ifname,
                               sizeof(names[0]));
        wires_remove(d->net, names, n_names);
        for (size_t i = 0; i < n; i++)
                let_go(d, &r->items[i].endpoint);

        r->n -= n;
        memmove(r->items, r->items + n, r->n * sizeof(*r->items));
        daemon_notify_alive();
        control_release(d->control, done_until(r));
}

/* How many of the first n are one turn's. */
static size_t batch(const struct daemon *d, size_t n)
{
        size_t links = 0, i;

        for (i = 0; i < n && i < BATCH; i++) {
                links += attach_has_link(d->attachments, d->removals.items[i].endpoint.wire.ifname);
                if (links > BATCH_LINKS)
                        break;
        }

        return i;
}

static int on_turn(sd_event_source *timer, uint64_t time, void *data)
{
        struct daemon *d = data;

        (void) time;
        remove_first(d, batch(d, d->removals.n));

        return d->removals.n > 0 ? daemon_timer_arm(timer, PAUSE) : 0;
}

int daemon_removals_add(struct daemon *d, const struct endpoint *e)
{
        struct removals *r = &d->removals;

        if (list_grow(&r->items, r->n, sizeof(*r->items)) < 0)
                return -ENOMEM;

        r->items[r->n++] = (struct removal) { *e, ++r->last };
        attach_unwant(d->attachments, e->wire.ifname);
        if (r->n == 1)
                (void) daemon_timer_arm(r->timer, 0);

        return 0;
}

/* The same device, or one of the same namespace, where both may want the same name. */
static bool is_in_the_way(const struct endpoint *gone, const struct endpoint *e, uint64_t namespace)
{
        return strcmp(gone->name, e->name) == 0 || (namespace && gone->wire.namespace == namespace);
}

static bool is_in_anyones_way(const struct daemon *d, const struct endpoint *gone,
                              const uint64_t *namespaces)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                if (!d->endpoints[i].ready &&
                    is_in_the_way(gone, &d->endpoints[i], namespaces ? namespaces[i] : 0))
                        return true;

        return false;
}

/* Those in the way move to the front: their number. */
static size_t move_forward(struct daemon *d, const uint64_t *namespaces)
{
        struct removals *r = &d->removals;
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                if (!is_in_anyones_way(d, &r->items[i].endpoint, namespaces))
                        continue;
                SWAP(r->items[i], r->items[n]);
                n++;
        }

        return n;
}

static void remove_now(struct daemon *d, size_t n)
{
        for (size_t some; n > 0; n -= some) {
                some = batch(d, n);
                remove_first(d, some);
        }
}

void daemon_removals_make_way(struct daemon *d)
{
        _cleanup_free_ uint64_t *namespaces = NULL;

        if (d->removals.n == 0)
                return;

        namespaces = calloc(d->n_endpoints + 1, sizeof(*namespaces));
        for (size_t i = 0; namespaces && i < d->n_endpoints; i++) {
                const struct config_endpoint *s = d->endpoints[i].section;

                if (!d->endpoints[i].ready && !s->interface)
                        namespaces[i] = namespace_number(s->netns, s->pid);
        }
        remove_now(d, move_forward(d, namespaces));
}

void daemon_removals_hold(struct daemon *d, struct control_call *call)
{
        if (d->removals.n > 0)
                control_hold(call, d->removals.last);
}

int daemon_removals_start(struct daemon *d, struct weft_error *reterr)
{
        int r = daemon_timer_add(d, &d->removals.timer, on_turn);

        return r < 0 ? weft_fail(reterr, r, "cannot set up a timer: %s", strerror(-r)) : 0;
}

void daemon_removals_stop(struct daemon *d)
{
        remove_now(d, d->removals.n);
        free(d->removals.items);
        sd_event_source_disable_unref(d->removals.timer);
}
