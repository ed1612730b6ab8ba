/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Addresses of the host that go while flows bear them. One that comes back in a moment (a lease
 * renewed, an interface made again) is none that went. */

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"

enum { GRACE_MILLISECONDS = 3000 };

static void remember(void *data, uint32_t ifindex, const struct weft_addr *a)
{
        (void) ifindex;
        (void) addresses_add(data, a);
}

static bool has(const struct weft_addresses *list, const struct weft_addr *a)
{
        for (size_t i = 0; i < list->n; i++)
                if (address_equal(&list->items[i], a))
                        return true;

        return false;
}

static void forget(struct daemon *d, const struct weft_addr *a)
{
        size_t n = tables_forget_address(d->tables, a);
        char text[ADDRESS_TEXT];

        if (n > 0)
                log_message(LOG_NOTICE, ADDRESS_GONE,
                            "address %s is gone, and %zu flow%s that bore it end",
                            address_format(a, text, sizeof(text)), n, n == 1 ? "" : "s");
}

static int look(sd_event_source *timer, uint64_t time, void *data)
{
        struct weft_addresses now = { 0 };
        struct daemon *d = data;

        (void) timer;
        (void) time;
        net_addresses(d->net, remember, &now);
        for (size_t i = 0; now.n > 0 && i < d->host_addresses.n; i++)
                if (!has(&now, &d->host_addresses.items[i]))
                        forget(d, &d->host_addresses.items[i]);

        free(d->host_addresses.items);
        d->host_addresses = now;

        return 0;
}

void daemon_addresses_changed(struct daemon *d)
{
        if (d->addresses && sd_event_source_get_enabled(d->addresses, NULL) <= 0 &&
            sd_event_source_set_time_relative(d->addresses, GRACE_MILLISECONDS * 1000) >= 0)
                (void) sd_event_source_set_enabled(d->addresses, SD_EVENT_ONESHOT);
}

int daemon_addresses_start(struct daemon *d, struct weft_error *reterr)
{
        int r = sd_event_add_time_relative(d->loop, &d->addresses, CLOCK_MONOTONIC, 0, 0, look, d);

        if (r >= 0)
                r = sd_event_source_set_enabled(d->addresses, SD_EVENT_OFF);
        if (r < 0)
                return weft_fail(reterr, r, "cannot make a timer");

        return look(d->addresses, 0, d);
}

void daemon_addresses_stop(struct daemon *d)
{
        d->addresses = sd_event_source_disable_unref(d->addresses);
        free(d->host_addresses.items);
        d->host_addresses = (struct weft_addresses) { 0 };
}
