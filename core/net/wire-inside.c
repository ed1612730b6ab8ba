/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "net/wire-inside.h"

enum { FAMILIES = 2, ROUTES = 2 * FAMILIES };

static int lo_up(struct nl_sock *s, struct weft_error *reterr)
{
        struct link_info lo;
        int r = link_get(s, "lo", 0, &lo, reterr);

        return r < 0 || lo.link.up ? r : link_up(s, lo.link.ifindex, reterr);
}

static bool has_family(const struct weft_addr *addrs, size_t n, int family)
{
        for (size_t i = 0; i < n; i++)
                if (address_family(&addrs[i]) == family)
                        return true;

        return false;
}

/* The first gateway of each family that the endpoint has an address of. */
static size_t choose_gateways(const struct wire_request *q, struct weft_addr ret[static FAMILIES])
{
        size_t n = 0;

        for (size_t i = 0; i < q->n_gateways && n < FAMILIES; i++) {
                int family = address_family(&q->gateways[i]);

                if (has_family(q->addrs, q->n_addrs, family) && !has_family(ret, n, family))
                        ret[n++] = q->gateways[i];
        }

        return n;
}

/* ---- routes ------------------------------------------------------------------------------- */

struct routes {
        uint32_t ifindex;
        struct route wanted[ROUTES];
        size_t n_wanted;
        struct route *found; /* weft's on the device */
        size_t n_found;
        bool failed;
};

static void routes_done(struct routes *t)
{
        free(t->found);
}

static void want_routes(struct routes *t, const struct weft_addr *gateways, size_t n, uint32_t mtu)
{
        for (size_t i = 0; i < n; i++) {
                bool four = address_family(&gateways[i]) == AF_INET;

                t->wanted[t->n_wanted++] =
                        (struct route) { .dst = { gateways[i], 128 }, .ifindex = t->ifindex };
                t->wanted[t->n_wanted++] = (struct route) {
                        .dst = { .addr = { { 0, 0, four ? htonl(0xffff) : 0, 0 } },
                                 .len = four ? 96 : 0 },
                        .gateway = gateways[i],
                        .ifindex = t->ifindex,
                        .mtu = mtu,
                };
        }
}

static void on_route(void *data, const struct route *r, const struct nlmsghdr *h)
{
        struct routes *t = data;

        (void) h;
        if (r->ifindex != t->ifindex || r->protocol != WEFT_ROUTE_PROTOCOL)
                return;
        if (list_grow(&t->found, t->n_found, sizeof(*r)) < 0)
                t->failed = true;
        else
                t->found[t->n_found++] = *r;
}

static int make_route(struct nl_sock *s, const struct routes *t, const struct route *wanted,
                      struct weft_error *reterr)
{
        char text[PREFIX_TEXT];
        bool ours = false;
        int r;

        for (size_t i = 0; i < t->n_found; i++) {
                if (route_equal(&t->found[i], wanted))
                        return 0;
                ours |= prefix_equal(&t->found[i].dst, &wanted->dst);
        }

        r = route_add(s, wanted, ours, reterr);
        if (r == -EEXIST)
                (void) weft_fail(reterr, r, "the namespace has one of somebody else's");

        return r < 0 ? weft_fail_in(reterr, r, "route to %s",
                                    prefix_format(&wanted->dst, text, sizeof(text)))
                     : 0;
}

static bool is_wanted(const struct routes *t, const struct weft_prefix *dst)
{
        for (size_t i = 0; i < t->n_wanted; i++)
                if (prefix_equal(&t->wanted[i].dst, dst))
                        return true;

        return false;
}

static int routes_set(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *gateways,
                      size_t n, uint32_t mtu, struct weft_error *reterr)
{
        _cleanup_(routes_done) struct routes t = { .ifindex = ifindex };
        int r = routes_each(s, on_route, &t, reterr);

        if (r >= 0 && t.failed)
                r = weft_fail(reterr, -ENOMEM, "out of memory");

        want_routes(&t, gateways, n, mtu);
        for (size_t i = 0; i < t.n_wanted && r >= 0; i++)
                r = make_route(s, &t, &t.wanted[i], reterr);
        for (size_t i = 0; i < t.n_found && r >= 0; i++)
                if (!is_wanted(&t, &t.found[i].dst))
                        (void) route_delete(s, &t.found[i].dst, NULL);

        return r;
}

int ready_inside(struct nl_sock *s, const struct wire_request *q, const struct net_link *device,
                 const uint8_t gateway_mac[6], uint32_t mtu, struct weft_error *reterr)
{
        struct weft_addr gateways[FAMILIES];
        size_t n = choose_gateways(q, gateways);
        uint32_t ifindex = device->ifindex;
        int r = lo_up(s, reterr);

        if (r >= 0 && device->mtu != mtu)
                r = link_set_mtu(s, ifindex, mtu, reterr);
        if (r >= 0 && !device->up)
                r = link_up(s, ifindex, reterr);
        if (r >= 0)
                r = addresses_set(s, ifindex, q->addrs, q->n_addrs, reterr);
        if (r >= 0)
                r = neighbours_set(s, ifindex, gateways, n, gateway_mac, reterr);
        if (r >= 0)
                r = routes_set(s, ifindex, gateways, n, q->mtu, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "%s inside", device->name) : 0;
}
