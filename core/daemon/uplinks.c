/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

enum { UPLINKS_MAX = 32 };

/* Exit hooks first: what an entry hook decides must meet the exit hook that goes with it. */
static const uint32_t uplink_hooks[] = { WEFT_TO_UPLINK, WEFT_FROM_UPLINK };
const uint32_t endpoint_hooks[2] = { WEFT_TO_ENDPOINT, WEFT_FROM_ENDPOINT };

struct uplink *uplink_by_index(struct daemon *d, uint32_t ifindex)
{
        for (size_t i = 0; ifindex && i < d->n_uplinks; i++)
                if (d->uplinks[i].link.ifindex == ifindex)
                        return &d->uplinks[i];

        return NULL;
}

uint32_t uplink_mtu(const struct daemon *d)
{
        uint32_t mtu = 0;

        for (size_t i = 0; i < d->n_uplinks; i++) {
                const struct net_link *l = &d->uplinks[i].link;

                if (l->ifindex && (mtu == 0 || l->mtu < mtu))
                        mtu = l->mtu;
        }

        return mtu;
}

static size_t add_address(struct weft_addr *list, size_t n, size_t max, const struct weft_addr *a)
{
        if (address_is_zero(a) || n == max)
                return n;
        for (size_t i = 0; i < n; i++)
                if (address_equal(&list[i], a))
                        return n;

        list[n] = *a;
        return n + 1;
}

size_t node_addresses(struct daemon *d, struct weft_addr *ret, size_t max)
{
        const struct weft_addresses *configured = &d->build->config->node.address;
        size_t n = 0;

        for (size_t i = 0; i < configured->n; i++)
                n = add_address(ret, n, max, &configured->items[i]);
        if (configured->n > 0)
                return n;

        for (size_t i = 0; i < d->n_uplinks; i++) {
                n = add_address(ret, n, max, &d->uplinks[i].addr4);
                n = add_address(ret, n, max, &d->uplinks[i].addr6);
        }

        return n;
}

/* ---- hooks -------------------------------------------------------------------------------- */

int daemon_hooks_attach(struct daemon *d, const struct build *b, uint32_t ifindex,
                        const char *ifname, const uint32_t *hooks, size_t n,
                        struct weft_error *reterr)
{
        for (size_t i = 0; i < n; i++) {
                int r, fd = generation_hook_fd(b->generation, hooks[i]);

                if (fd < 0)
                        continue;
                r = attach_hook(d->attachments, ifindex, ifname, hooks[i], fd, reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

static bool wants_xdp(const struct uplink *u, uint32_t mode)
{
        static const char *const software[] = { "veth", "tun", "bridge", "macvlan" };

        if (mode != XDP_AUTO)
                return mode != XDP_OFF;

        for (size_t i = 0; i < ELEMENTS(software); i++)
                if (strcmp(u->link.kind, software[i]) == 0)
                        return false;

        return true;
}

/* XDP only makes the same decisions earlier, so doing without it is no failure unless the
 * configuration says that it is. */
static int attach_xdp(struct daemon *d, const struct build *b, struct uplink *u,
                      struct weft_error *reterr)
{
        int r, fd = generation_hook_fd(b->generation, WEFT_XDP_UPLINK);
        bool replays = generation_replays_in_xdp(b->generation);
        uint32_t mode = b->config->xdp;
        struct weft_error why = { 0 };

        u->xdp = false;
        if (fd < 0 || !wants_xdp(u, mode)) {
                attach_remove_hook(d->attachments, u->name, WEFT_XDP_UPLINK);
                return 0;
        }
        /* Taking a program away may reset a network card; one that is not there yet stays away. */
        if (!replays && !attach_has_hook(d->attachments, u->name, WEFT_XDP_UPLINK))
                return 0;

        r = attach_hook(d->attachments, u->link.ifindex, u->name, WEFT_XDP_UPLINK, fd, &why);
        u->xdp = r >= 0 && replays;
        if (r < 0 && mode == XDP_NATIVE)
                return weft_fail(reterr, r,
                                 "%s: no XDP here, and [weft] xdp = native asks for it: %.300s",
                                 u->name, why.text);
        if (r < 0)
                log_about(LOG_INFO, NO_XDP, uplink, u->name, "%s: goes without XDP: %s", u->name,
                          why.text);

        return 0;
}

static int hook_uplink(struct daemon *d, struct uplink *u, struct weft_error *reterr)
{
        int r = daemon_hooks_attach(d, d->build, u->link.ifindex, u->name, uplink_hooks,
                                    ELEMENTS(uplink_hooks), reterr);

        if (r == 0)
                r = attach_xdp(d, d->build, u, reterr);
        u->hooked = r == 0;

        return r < 0 ? weft_fail_in(reterr, r, "uplink %s", u->name) : 0;
}

static int switch_uplinks(struct daemon *d, const struct build *b, uint32_t hook,
                          struct weft_error *reterr)
{
        for (size_t i = 0; i < d->n_uplinks; i++) {
                struct uplink *u = &d->uplinks[i];
                int r;

                if (!u->link.ifindex)
                        continue;
                r = hook == WEFT_XDP_UPLINK
                            ? attach_xdp(d, b, u, reterr)
                            : daemon_hooks_attach(d, b, u->link.ifindex, u->name, &hook, 1, reterr);
                if (r < 0)
                        return weft_fail_in(reterr, r, "uplink %s", u->name);
                u->hooked = true;
        }

        return 0;
}

static int switch_endpoints(struct daemon *d, const struct build *b, uint32_t hook,
                            struct weft_error *reterr)
{
        daemon_endpoints_count_new(d);
        for (size_t i = 0; i < d->n_endpoints; i++) {
                struct endpoint *e = &d->endpoints[i];
                int r;

                if (!e->ready && !e->hooked)
                        continue;
                r = daemon_hooks_attach(d, b, e->wire.ifindex, e->wire.ifname, &hook, 1, reterr);
                if (r < 0)
                        return weft_fail_in(reterr, r, "endpoint %s", e->name);
                e->hooked = true;
        }

        return 0;
}

/* One hook everywhere before the next one anywhere. */
static const struct {
        uint32_t hook;
        int (*f)(struct daemon *, const struct build *, uint32_t, struct weft_error *);
} order[] = {
        { WEFT_TO_UPLINK, switch_uplinks },           { WEFT_TO_UPLINK, daemon_overlay_switch },
        { WEFT_TO_ENDPOINT, switch_endpoints },       { WEFT_FROM_UPLINK, switch_uplinks },
        { WEFT_FROM_OVERLAY, daemon_overlay_switch }, { WEFT_FROM_ENDPOINT, switch_endpoints },
        { WEFT_XDP_UPLINK, switch_uplinks },
};

int daemon_hooks_switch(struct daemon *d, const struct build *b, struct weft_error *reterr)
{
        for (size_t i = 0; i < ELEMENTS(order); i++) {
                int r = order[i].f(d, b, order[i].hook, reterr);

                if (r < 0)
                        return r;
                if (order[i].hook == WEFT_TO_ENDPOINT && d->hooks_on)
                        debug_switch("exit-hooks");
        }

        return 0;
}

int daemon_hooks_undo(struct daemon *d, const struct build *b, struct weft_error *reterr)
{
        int first_failure = 0;

        for (size_t i = ELEMENTS(order); i > 0; i--) {
                int r = order[i - 1].f(d, b, order[i - 1].hook, first_failure ? NULL : reterr);

                if (first_failure == 0)
                        first_failure = r;
        }

        return first_failure;
}

/* ---- which -------------------------------------------------------------------------------- */

struct address_search {
        uint32_t ifindex;
        const struct weft_addr *wanted;
        bool found;
};

static void look_for_address(void *data, uint32_t ifindex, const struct weft_addr *a)
{
        struct address_search *s = data;

        s->found = s->found || (ifindex == s->ifindex && address_equal(a, s->wanted));
}

/* The node's address on the link: a configured one that the link has, else the link's first, else a
 * configured one that is elsewhere on the node. */
static struct weft_addr address_on(struct daemon *d, uint32_t ifindex, int family)
{
        const struct weft_addresses *configured = &d->build->config->node.address;
        struct weft_addr fallback = { 0 }, first;

        for (size_t i = 0; i < configured->n; i++) {
                const struct weft_addr *a = &configured->items[i];
                struct address_search s = { .ifindex = ifindex, .wanted = a };

                if (address_is_ipv4(a) != (family == AF_INET))
                        continue;
                net_addresses(d->net, look_for_address, &s);
                if (s.found)
                        return *a;
                if (address_is_zero(&fallback))
                        fallback = *a;
        }

        return net_link_address(d->net, ifindex, family, &first) == 0 ? first : fallback;
}

static void link_gone(struct daemon *d, struct uplink *u)
{
        if (u->link.ifindex)
                tables_del_link(d->tables, u->link.ifindex);
        if (u->forwarding)
                host_unforwarding(d->host, u->name);

        u->forwarding = u->hooked = u->xdp = false;
        u->link = (struct net_link) { 0 };
        u->addr4 = u->addr6 = (struct weft_addr) { 0 };
}

static int set_table(struct daemon *d, struct uplink *u, const struct net_link *now)
{
        struct weft_link link = {
                .addr4 = address_on(d, now->ifindex, AF_INET),
                .addr6 = address_on(d, now->ifindex, AF_INET6),
                .flags = WEFT_NEXTHOP_MARK,
                .mtu = now->mtu,
        };
        bool moved = !address_equal(&u->addr4, &link.addr4) ||
                     !address_equal(&u->addr6, &link.addr6) || u->link.mtu != now->mtu;
        int r;

        u->link = *now;
        u->addr4 = link.addr4;
        u->addr6 = link.addr6;
        r = tables_set_link(d->tables, now->ifindex, &link);
        if (r == 0 && moved)
                d->move_epoch = true;

        return r;
}

/* Without modules weft carries nothing and needs no forwarding. */
static int follow_forwarding(struct daemon *d, struct uplink *u, struct weft_error *reterr)
{
        bool wanted = d->build->n_instances > 0;
        int r;

        if (wanted && !u->forwarding) {
                r = host_forwarding(d->host, u->name, reterr);
                if (r < 0)
                        return r;
        } else if (!wanted && u->forwarding)
                host_unforwarding(d->host, u->name);

        u->forwarding = wanted;
        return 0;
}

/* An interface that only has another name now still has weft's programs, and could not be given
 * them under that name: so they are taken from it before any uplink gets some. */
static void let_go_if_missing(struct daemon *d, struct uplink *u)
{
        struct net_link now;

        if (net_link_by_name(d->net, u->name, &now) == 0)
                return;

        if (!u->missed)
                log_about(LOG_NOTICE, UPLINK_GONE, uplink, u->name,
                          "uplink %s is %s: waiting for it", u->name,
                          u->link.ifindex ? "gone" : "not there");
        u->missed = true;
        attach_remove(d->attachments, u->name);
        link_gone(d, u);
}

/* Makes everything about one uplink be as the kernel has it now. */
static int follow(struct daemon *d, struct uplink *u, struct weft_error *reterr)
{
        struct net_link now;
        int r;

        if (net_link_by_name(d->net, u->name, &now) < 0)
                return 0;
        if (u->link.ifindex && u->link.ifindex != now.ifindex)
                link_gone(d, u);
        if (u->missed)
                log_about(LOG_NOTICE, UPLINK_BACK, uplink, u->name, "uplink %s is there", u->name);
        u->missed = false;

        r = set_table(d, u, &now);
        if (r < 0)
                return weft_fail(reterr, r, "uplink %s: cannot enter it into the links table: %s",
                                 u->name, strerror(-r));

        r = follow_forwarding(d, u, reterr);
        if (r < 0)
                return r;

        return u->hooked || !d->hooks_on ? 0 : hook_uplink(d, u, reterr);
}

static size_t wanted_names(struct daemon *d, char names[][16], size_t max)
{
        const struct strings *configured = &d->build->config->node.uplink;
        uint32_t indexes[UPLINKS_MAX];
        struct net_link link;
        size_t n = 0, found;

        for (size_t i = 0; i < configured->n && n < max; i++)
                (void) snprintf(names[n++], sizeof(names[0]), "%s", configured->items[i]);
        if (configured->n > 0)
                return n;

        found = net_default_links(d->net, indexes, max);
        for (size_t i = 0; i < found; i++)
                if (net_link_by_index(d->net, indexes[i], &link) == 0)
                        (void) snprintf(names[n++], sizeof(names[0]), "%s", link.name);

        return n;
}

static bool is_among(const char *name, char names[][16], size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return true;

        return false;
}

static bool have_uplink(const struct daemon *d, const char *name)
{
        for (size_t i = 0; i < d->n_uplinks; i++)
                if (strcmp(d->uplinks[i].name, name) == 0)
                        return true;

        return false;
}

/* A default route that went leaves its uplink in place: it may come back in a moment, and what runs
 * over the interface still does. Only a configuration that names other uplinks lets one go. */
static void drop_unwanted(struct daemon *d, char names[][16], size_t n)
{
        size_t kept = 0;

        for (size_t i = 0; i < d->n_uplinks; i++) {
                struct uplink *u = &d->uplinks[i];

                if (d->build->config->node.uplink.n == 0 || is_among(u->name, names, n)) {
                        d->uplinks[kept++] = *u;
                        continue;
                }
                attach_remove(d->attachments, u->name);
                link_gone(d, u);
        }

        d->n_uplinks = kept;
}

static uint32_t world_flags(struct daemon *d)
{
        unsigned marks = net_mark_rules(d->net);

        return (marks & 1 ? WEFT_WORLD_MARKS4 : 0) | (marks & 2 ? WEFT_WORLD_MARKS6 : 0);
}

int daemon_uplinks_refresh(struct daemon *d, struct weft_error *reterr)
{
        char names[UPLINKS_MAX][16];
        size_t n = wanted_names(d, names, UPLINKS_MAX);
        int first_failure = 0;

        tables_set_world_flags(d->tables, world_flags(d));
        drop_unwanted(d, names, n);
        for (size_t i = 0; i < n; i++) {
                if (have_uplink(d, names[i]))
                        continue;
                if (list_grow(&d->uplinks, d->n_uplinks, sizeof(*d->uplinks)) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");
                d->uplinks[d->n_uplinks] = (struct uplink) { 0 };
                (void) snprintf(d->uplinks[d->n_uplinks++].name, sizeof(names[0]), "%s", names[i]);
        }

        for (size_t i = 0; i < d->n_uplinks; i++)
                let_go_if_missing(d, &d->uplinks[i]);
        for (size_t i = 0; i < d->n_uplinks; i++) {
                struct weft_error why = { 0 };
                int r = follow(d, &d->uplinks[i], &why);

                if (r < 0 && first_failure == 0)
                        first_failure = weft_fail(reterr, r, "%s", why.text);
        }

        return first_failure;
}
