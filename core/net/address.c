/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <string.h>

#include "net/rtnl.h"

/* What one dump of a device found, beside what is wanted there. */
struct comparison {
        uint32_t ifindex;
        const struct weft_addr *wanted;
        size_t n_wanted;
        const uint8_t *mac; /* neighbours: of all wanted */
        bool *right;        /* one for each wanted address */
        struct weft_addr *stale;
        size_t n_stale;
        bool failed; /* out of memory */
};

static void comparison_done(struct comparison *c)
{
        free(c->right);
        free(c->stale);
}

static int comparison_init(struct comparison *c, struct weft_error *reterr)
{
        c->right = calloc(c->n_wanted + 1, sizeof(*c->right));

        return c->right ? 0 : weft_fail(reterr, -ENOMEM, "out of memory");
}

static void compare(struct comparison *c, const struct weft_addr *found, bool right)
{
        struct weft_addr *grown;

        for (size_t i = 0; i < c->n_wanted; i++)
                if (address_equal(&c->wanted[i], found)) {
                        c->right[i] = right;
                        return;
                }

        grown = reallocarray(c->stale, c->n_stale + 1, sizeof(*grown));
        if (!grown) {
                c->failed = true;
                return;
        }
        c->stale = grown;
        c->stale[c->n_stale++] = *found;
}

/* Adds what is not right and removes what is stale, by the device's own kind of change. */
static int reconcile(struct nl_sock *s, const struct comparison *c,
                     int (*change)(struct nl_sock *, const struct comparison *, bool add,
                                   const struct weft_addr *, struct weft_error *),
                     struct weft_error *reterr)
{
        char text[ADDRESS_TEXT];
        int r = c->failed ? weft_fail(reterr, -ENOMEM, "out of memory") : 0;

        for (size_t i = 0; i < c->n_wanted && r >= 0; i++) {
                if (!c->right[i])
                        r = change(s, c, true, &c->wanted[i], reterr);
                if (r < 0)
                        return weft_fail_in(reterr, r, "%s",
                                            address_format(&c->wanted[i], text, sizeof(text)));
        }
        for (size_t i = 0; i < c->n_stale && r >= 0; i++) {
                r = change(s, c, false, &c->stale[i], reterr);
                if (r == -ENOENT || r == -EADDRNOTAVAIL)
                        r = 0;
        }

        return r;
}

/* ---- addresses ---------------------------------------------------------------------------- */

bool address_parse_message(const struct nlmsghdr *h, struct address_info *ret)
{
        const struct ifaddrmsg *m = nlmsg_data(h);
        struct nlattr *a[IFA_MAX + 1];

        if ((h->nlmsg_type != RTM_NEWADDR && h->nlmsg_type != RTM_DELADDR) ||
            (m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
                return false;

        rtnl_parse(h, sizeof(*m), a, IFA_MAX);
        *ret = (struct address_info) {
                .ifindex = m->ifa_index,
                .bits = m->ifa_prefixlen,
                .scope = m->ifa_scope,
                .addr = address_of(a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS]),
                .flags = a[IFA_FLAGS] ? nla_get_u32(a[IFA_FLAGS]) : m->ifa_flags,
        };

        return true;
}

int addresses_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr)
{
        struct ifaddrmsg head = { 0 };

        return rtnl_ask(s, rtnl_new(RTM_GETADDR, NLM_F_DUMP, &head, sizeof(head)), f, data, reterr);
}

static void on_device_address(void *data, const struct nlmsghdr *h)
{
        struct comparison *c = data;
        struct address_info i;

        /* Somebody else's addresses on the device have other lengths; fe80:: is the kernel's. */
        if (address_parse_message(h, &i) && i.ifindex == c->ifindex &&
            i.scope == RT_SCOPE_UNIVERSE && i.bits == address_bits(&i.addr))
                compare(c, &i.addr, true);
}

static int address_change(struct nl_sock *s, const struct comparison *c, bool add,
                          const struct weft_addr *a, struct weft_error *reterr)
{
        struct ifaddrmsg head = {
                .ifa_family = (uint8_t) address_family(a),
                .ifa_prefixlen = address_bits(a),
                .ifa_scope = RT_SCOPE_UNIVERSE,
                .ifa_index = c->ifindex,
        };
        struct nl_msg *m = rtnl_new(add ? RTM_NEWADDR : RTM_DELADDR,
                                    add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &head, sizeof(head));

        rtnl_put_address(m, IFA_LOCAL, a);
        rtnl_put_address(m, IFA_ADDRESS, a);
        /* Nobody else is on this link, so there is no duplicate to wait for. */
        if (add && address_family(a) == AF_INET6)
                rtnl_put_u32(m, IFA_FLAGS, IFA_F_NODAD | IFA_F_PERMANENT);

        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int addresses_set(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *addrs, size_t n,
                  struct weft_error *reterr)
{
        _cleanup_(comparison_done) struct comparison c = { .ifindex = ifindex,
                                                           .wanted = addrs,
                                                           .n_wanted = n };
        int r = comparison_init(&c, reterr);

        if (r >= 0)
                r = addresses_each(s, on_device_address, &c, reterr);
        if (r >= 0)
                r = reconcile(s, &c, address_change, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "addresses") : 0;
}

struct first_address {
        uint32_t ifindex;
        int family;
        bool found;
        unsigned flaws; /* of addr */
        struct weft_addr addr;
};

/* What speaks against an address as the one that the node is known by; 0: nothing. */
static unsigned flaws_of(const struct address_info *i)
{
        if (i->flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED))
                return 3;
        if (i->flags & IFA_F_DEPRECATED)
                return 2;

        return address_family(&i->addr) == AF_INET6 && i->flags & IFA_F_TEMPORARY ? 1 : 0;
}

/* The kernel lists IPv4 addresses in the order of their making, and IPv6 addresses in the other:
 * the one that was there first stays the node's. */
static void on_first_address(void *data, const struct nlmsghdr *h)
{
        struct first_address *f = data;
        struct address_info i;

        unsigned flaws;

        if (!address_parse_message(h, &i) || i.ifindex != f->ifindex ||
            i.scope != RT_SCOPE_UNIVERSE || address_family(&i.addr) != f->family)
                return;

        flaws = flaws_of(&i);
        if (f->found && flaws >= f->flaws + (f->family == AF_INET6))
                return;

        f->found = true;
        f->flaws = flaws;
        f->addr = i.addr;
}

int net_link_address(struct net *n, uint32_t ifindex, int family, struct weft_addr *ret)
{
        struct first_address f = { .ifindex = ifindex, .family = family };
        int r = addresses_each(net_socket(n), on_first_address, &f, NULL);

        if (r < 0)
                return r;
        if (!f.found)
                return -ENOENT;

        *ret = f.addr;
        return 0;
}

struct address_listener {
        void (*f)(void *data, uint32_t ifindex, const struct weft_addr *a);
        void *data;
};

static void on_any_address(void *data, const struct nlmsghdr *h)
{
        const struct address_listener *l = data;
        struct address_info i;

        if (address_parse_message(h, &i))
                l->f(l->data, i.ifindex, &i.addr);
}

void net_addresses(struct net *n,
                   void (*f)(void *data, uint32_t ifindex, const struct weft_addr *a), void *data)
{
        struct address_listener l = { f, data };

        (void) addresses_each(net_socket(n), on_any_address, &l, NULL);
}

/* ---- neighbours --------------------------------------------------------------------------- */

bool neighbour_parse(const struct nlmsghdr *h, struct neighbour_info *ret)
{
        const struct ndmsg *m = nlmsg_data(h);
        struct nlattr *a[NDA_MAX + 1];

        if ((h->nlmsg_type != RTM_NEWNEIGH && h->nlmsg_type != RTM_DELNEIGH) ||
            (m->ndm_family != AF_INET && m->ndm_family != AF_INET6))
                return false;

        rtnl_parse(h, sizeof(*m), a, NDA_MAX);
        if (!a[NDA_DST] || !a[NDA_LLADDR] || nla_len(a[NDA_LLADDR]) != sizeof(ret->mac))
                return false;

        *ret = (struct neighbour_info) { .ifindex = (uint32_t) m->ndm_ifindex,
                                         .state = m->ndm_state,
                                         .addr = address_of(a[NDA_DST]) };
        memcpy(ret->mac, nla_data(a[NDA_LLADDR]), sizeof(ret->mac));

        return true;
}

int neighbours_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr)
{
        struct ndmsg head = { 0 };

        return rtnl_ask(s, rtnl_new(RTM_GETNEIGH, NLM_F_DUMP, &head, sizeof(head)), f, data,
                        reterr);
}

static void on_device_neighbour(void *data, const struct nlmsghdr *h)
{
        struct comparison *c = data;
        struct neighbour_info i;

        if (neighbour_parse(h, &i) && i.ifindex == c->ifindex && (i.state & NUD_PERMANENT))
                compare(c, &i.addr, memcmp(i.mac, c->mac, sizeof(i.mac)) == 0);
}

static int neighbour_change(struct nl_sock *s, const struct comparison *c, bool add,
                            const struct weft_addr *a, struct weft_error *reterr)
{
        struct ndmsg head = { .ndm_family = (uint8_t) address_family(a),
                              .ndm_ifindex = (int) c->ifindex,
                              .ndm_state = NUD_PERMANENT };
        struct nl_msg *m = rtnl_new(add ? RTM_NEWNEIGH : RTM_DELNEIGH,
                                    add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &head, sizeof(head));

        rtnl_put_address(m, NDA_DST, a);
        if (add)
                rtnl_put(m, NDA_LLADDR, c->mac, 6);

        return rtnl_ask(s, m, NULL, NULL, reterr);
}

int neighbour_add(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *a,
                  const uint8_t mac[6], struct weft_error *reterr)
{
        const struct comparison c = { .ifindex = ifindex, .mac = mac };

        return neighbour_change(s, &c, true, a, reterr);
}

void neighbour_delete(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *a)
{
        const struct comparison c = { .ifindex = ifindex };

        (void) neighbour_change(s, &c, false, a, NULL);
}

int neighbours_set(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *addrs, size_t n,
                   const uint8_t mac[6], struct weft_error *reterr)
{
        _cleanup_(comparison_done) struct comparison c = {
                .ifindex = ifindex, .wanted = addrs, .n_wanted = n, .mac = mac
        };
        int r = comparison_init(&c, reterr);

        if (r >= 0)
                r = neighbours_each(s, on_device_neighbour, &c, reterr);
        if (r >= 0)
                r = reconcile(s, &c, neighbour_change, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "permanent neighbours") : 0;
}
