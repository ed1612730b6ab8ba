/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What weft changes on the host, all of it undone by host_cleanup():
 *
 *   sysctls of forwarding   forwarding.c says which and why; recorded with what was there
 *   other sysctls           what the daemon asks for by host_sysctl(); recorded in the same way
 *   net/ipv4/ip_local_reserved_ports
 *                           ports that services or modules give out, so that no socket of the
 *                           node is given one; what others reserved is told apart and stays
 *   routes, protocol 119    to endpoints (scope link, their device) and what modules ask for, such
 *                           as pod CIDRs of peers; foreign routes are never replaced
 *   tables inet weft-*      of nftables, what modules ask for, each replaced as a whole
 *   devices weft*           host sides of endpoints' veth pairs, with a permanent neighbour for
 *                           each of the endpoint's addresses; no address, no router advertisements
 *
 * rp_filter of those devices stays as it is: an endpoint's source address has its route on the
 * device it comes from, so even the strict check passes. Nor is proxy_arp needed: the gateway is a
 * permanent neighbour inside. */

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "net/hold.h"

static void hostp(struct host **h)
{
        (void) host_close(*h);
}

/* Routes with weft's protocol number are weft's even where the record was lost. */
static void on_own_route(void *data, const struct route *r, const struct nlmsghdr *message)
{
        struct route_hold *hold;
        struct host *h = data;

        (void) message;
        if (r->protocol != WEFT_ROUTE_PROTOCOL)
                return;

        hold = route_find(h, &r->dst);
        if (hold)
                hold->route = *r;
        else
                (void) route_hold_add(h, r);
}

int host_open(struct net *n, const char *run_dir, struct host **ret, struct weft_error *reterr)
{
        _cleanup_(hostp) struct host *h = calloc(1, sizeof(*h));
        int r;

        if (!h)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        h->net = n;
        h->record = -1;
        if (asprintf(&h->path, "%s/host", run_dir) < 0) {
                h->path = NULL;
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }
        if (mkdir(run_dir, 0755) < 0 && errno != EEXIST)
                return weft_fail(reterr, -errno, "cannot make %s: %m", run_dir);

        r = record_open(h, reterr);
        if (r >= 0)
                r = routes_each(net_socket(n), on_own_route, h, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "host changes");

        *ret = TAKE(h);
        return 0;
}

struct host *host_close(struct host *h)
{
        if (!h)
                return NULL;

        for (size_t i = 0; i < h->n_sysctls; i++)
                sysctl_hold_done(&h->sysctls[i]);
        for (size_t i = 0; i < h->n_wires; i++)
                wire_hold_done(&h->wires[i]);
        closep(&h->record);
        for (size_t i = 0; i < h->n_tables; i++)
                table_hold_done(&h->tables[i]);
        free(h->tables);
        free(h->sysctls);
        free(h->routes);
        free(h->ports);
        free(h->wires);
        free(h->path);
        free(h);

        return NULL;
}

struct teller {
        void (*f)(void *data, const char *what);
        void *data;
};

static void tell(const struct teller *t, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

static void tell(const struct teller *t, const char *format, ...)
{
        char text[320];
        va_list ap;

        if (!t->f)
                return;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        t->f(t->data, text);
}

static void undo_routes(struct host *h, const struct teller *t)
{
        char text[PREFIX_TEXT];

        for (size_t i = h->n_routes; i-- > 0;) {
                if (h->routes[i].count > 0)
                        continue;
                tell(t, "route to %s", prefix_format(&h->routes[i].route.dst, text, sizeof(text)));
                route_undo(h, &h->routes[i]);
        }
}

static void undo_tables(struct host *h, const struct teller *t)
{
        for (size_t i = h->n_tables; i-- > 0;) {
                if (h->tables[i].n > 0)
                        continue;
                tell(t, "table inet %s of nftables", h->tables[i].name);
                table_undo(h, &h->tables[i]);
        }
}

static void undo_sysctls(struct host *h, bool advertisements, const struct teller *t)
{
        for (size_t i = h->n_sysctls; i-- > 0;) {
                const struct sysctl_hold *s = &h->sysctls[i];

                if (s->count > 0 || sysctl_keeps_advertisements(s) != advertisements)
                        continue;
                if (strcmp(s->before, s->value) != 0)
                        tell(t, "/proc/sys/%s back to %s", s->path, s->before);
                sysctl_undo(h, &h->sysctls[i]);
        }
}

static void undo_unwanted(struct host *h, const struct teller *t)
{
        undo_tables(h, t);
        undo_routes(h, t);
        undo_sysctls(h, false, t);
        undo_sysctls(h, true, t);
        h->inherited_ports = (struct port_set) { 0 };
        (void) ports_apply(h, NULL);
}

void host_settle(struct host *h)
{
        undo_unwanted(h, &(struct teller) { 0 });
}

void host_cleanup(struct host *h, void (*f)(void *data, const char *what), void *data)
{
        const struct teller t = { f, data };
        _cleanup_free_ char *ports = ports_format(&h->own_ports);

        for (size_t i = 0; i < h->n_sysctls; i++)
                h->sysctls[i].count = 0;
        for (size_t i = 0; i < h->n_routes; i++)
                h->routes[i].count = 0;
        for (size_t i = 0; i < h->n_tables; i++)
                table_release(&h->tables[i]);
        for (size_t i = 0; i < h->n_wires; i++)
                wire_hold_done(&h->wires[i]);
        h->n_wires = h->n_ports = h->forwarding6 = 0;

        if (ports && *ports)
                tell(&t, "reserved ports %.200s", ports);
        undo_unwanted(h, &t);
        wires_cleanup(h->net, f, data);
        overlays_cleanup(h->net, f, data);

        /* The record goes with what it recorded. */
        (void) unlink(h->path);
}
