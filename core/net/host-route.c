/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "net/hold.h"

struct route_hold *route_find(struct host *h, const struct weft_prefix *dst)
{
        for (size_t i = 0; i < h->n_routes; i++)
                if (prefix_equal(&h->routes[i].route.dst, dst))
                        return &h->routes[i];

        return NULL;
}

struct route_hold *route_hold_add(struct host *h, const struct route *r)
{
        if (list_grow(&h->routes, h->n_routes, sizeof(*h->routes)) < 0)
                return NULL;

        h->routes[h->n_routes] = (struct route_hold) { .route = *r };
        return &h->routes[h->n_routes++];
}

static int refuse(const struct route *wanted, int r, struct weft_error *reterr)
{
        char gateway[ADDRESS_TEXT];

        if (r == -EEXIST)
                return weft_fail(reterr, r, "a route of somebody else's is there already");
        if (r != -ENETUNREACH && r != -EHOSTUNREACH)
                return r;
        if (address_is_zero(&wanted->gateway))
                return weft_fail(reterr, -ENETUNREACH, "the device is down");

        return weft_fail(reterr, -ENETUNREACH, "gateway %s is not on the same link-layer network",
                         address_format(&wanted->gateway, gateway, sizeof(gateway)));
}

/* Makes the main table have the route; 1 if it had to be written. known: weft had one for this
 * prefix. */
static int route_make(struct host *h, const struct route *wanted, bool known,
                      struct weft_error *reterr)
{
        struct nl_sock *s = net_socket(h->net);
        struct route there;
        bool ours = false;
        int r = route_covering(s, &wanted->dst, &there);

        if (r == 0 && there.table == RT_TABLE_MAIN && prefix_equal(&there.dst, &wanted->dst)) {
                ours = there.protocol == WEFT_ROUTE_PROTOCOL;
                if (!ours)
                        return refuse(wanted, -EEXIST, reterr);
                if (route_equal(&there, wanted))
                        return 0;
        }

        r = route_add(s, wanted, ours, reterr);
        /* Rules or a narrower route may hide ours from the question above. */
        if (r == -EEXIST && known)
                r = route_add(s, wanted, true, reterr);

        return r < 0 ? refuse(wanted, r, reterr) : 1;
}

static int hold_route(struct host *h, const struct route *wanted, struct weft_error *reterr)
{
        const struct weft_prefix *dst = &wanted->dst;
        struct route_hold *hold = route_find(h, dst);
        bool known = hold;
        char text[PREFIX_TEXT];
        int r = 0;

        if (!hold) {
                hold = route_hold_add(h, wanted);
                if (!hold)
                        return weft_fail(reterr, -ENOMEM, "out of memory");
                r = record_add(h, reterr, "route\t%s", prefix_format(dst, text, sizeof(text)));
        }

        if (r >= 0)
                r = route_make(h, wanted, known, reterr);
        if (r < 0) {
                if (!known)
                        route_undo(h, hold);
                return weft_fail_in(reterr, r, "route to %s",
                                    prefix_format(dst, text, sizeof(text)));
        }

        hold->route = *wanted;
        hold->count++;

        return 0;
}

int host_route(struct host *h, const struct weft_prefix *dst, const struct weft_addr *gateway,
               uint32_t ifindex, uint32_t mtu, struct weft_error *reterr)
{
        struct route wanted = { .dst = *dst, .ifindex = ifindex, .mtu = mtu };

        if (gateway)
                wanted.gateway = *gateway;

        return hold_route(h, &wanted, reterr);
}

int host_overlay_route(struct host *h, const struct weft_prefix *dst,
                       const struct overlay_route *to, struct weft_error *reterr)
{
        const struct route wanted = {
                .dst = *dst,
                .ifindex = to->ifindex,
                .mtu = to->mtu,
                .src = to->src,
                .gateway = to->gateway ? overlay_gateway(address_family(&dst->addr))
                                       : (struct weft_addr) { { 0 } },
                .onlink = to->gateway,
        };

        return hold_route(h, &wanted, reterr);
}

bool host_holds_route(const struct host *h, const struct weft_prefix *dst)
{
        for (size_t i = 0; i < h->n_routes; i++)
                if (h->routes[i].count > 0 && prefix_equal(&h->routes[i].route.dst, dst))
                        return true;

        return false;
}

void host_routes_again(struct host *h, void (*f)(void *data, const char *what), void *data)
{
        for (size_t i = 0; i < h->n_routes; i++) {
                char text[PREFIX_TEXT], what[PREFIX_TEXT + 16];

                if (h->routes[i].count == 0 ||
                    route_make(h, &h->routes[i].route, false, NULL) <= 0 || !f)
                        continue;
                (void) snprintf(what, sizeof(what), "route to %s",
                                prefix_format(&h->routes[i].route.dst, text, sizeof(text)));
                f(data, what);
        }
}

void route_undo(struct host *h, struct route_hold *hold)
{
        char text[PREFIX_TEXT];

        (void) route_delete(net_socket(h->net), &hold->route.dst, NULL);
        (void) record_add(h, NULL, "route-undone\t%s",
                          prefix_format(&hold->route.dst, text, sizeof(text)));
        *hold = h->routes[--h->n_routes];
        record_trim(h);
}

void host_unroute(struct host *h, const struct weft_prefix *dst)
{
        struct route_hold *hold = route_find(h, dst);

        if (hold && (hold->count == 0 || --hold->count == 0))
                route_undo(h, hold);
}
