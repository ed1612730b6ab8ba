/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The flow-based device of a tunnel, and what takes its place where the engine encapsulates. The
 * device is known by its alias, so that a successor finds it. */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <string.h>

#include "net/hold.h"

#define ALIAS "weft overlay"

/* Greater than any attribute of a device that is asked for. */
enum { ATTRIBUTES = 64 };

static uint16_t port_of(const struct weft_tunnel_spec *spec)
{
        return ntohs(spec->header.port);
}

void overlay_ifname(const struct weft_tunnel_spec *spec, char ret[static 16])
{
        (void) snprintf(ret, 16, "weft%.6s%u", spec->kind, port_of(spec));
}

/* ---- looking ------------------------------------------------------------------------------ */

struct tunnel {
        struct link_info link;
        bool external, ours;
        uint16_t port; /* host order; 0: none */
};

/* What the device is set to, as its kind calls it. */
static void parse_data(const struct weft_tunnel_spec *spec, struct nlattr *info, struct tunnel *ret)
{
        struct nlattr *a[IFLA_INFO_MAX + 1] = { 0 }, *d[ATTRIBUTES + 1] = { 0 }, *external;

        if (!info || nla_parse_nested(a, IFLA_INFO_MAX, info, NULL) < 0 || !a[IFLA_INFO_DATA] ||
            nla_parse_nested(d, ATTRIBUTES, a[IFLA_INFO_DATA], NULL) < 0)
                return;

        external = d[spec->external_attribute];
        if (d[spec->port_attribute])
                ret->port = ntohs(nla_get_u16(d[spec->port_attribute]));
        ret->external = external && (spec->external_is_flag || nla_get_u8(external));
}

/* spec NULL: whatever its kind. */
static bool parse_tunnel(const struct nlmsghdr *h, const struct weft_tunnel_spec *spec,
                         struct tunnel *ret)
{
        struct nlattr *a[IFLA_MAX + 1];

        *ret = (struct tunnel) { 0 };
        if (!link_parse(h, &ret->link))
                return false;

        rtnl_parse(h, sizeof(struct ifinfomsg), a, IFLA_MAX);
        if (spec && strcmp(ret->link.link.kind, spec->kind) == 0)
                parse_data(spec, a[IFLA_LINKINFO], ret);
        ret->ours = strcmp(ret->link.alias, ALIAS) == 0;
        return true;
}

struct stranger {
        const struct weft_tunnel_spec *spec;
        char name[16];
};

static void on_stranger(void *data, const struct nlmsghdr *h)
{
        struct stranger *s = data;
        struct tunnel t;

        if (parse_tunnel(h, s->spec, &t) && !t.ours && t.port == port_of(s->spec))
                (void) snprintf(s->name, sizeof(s->name), "%s", t.link.link.name);
}

int overlay_check(struct net *n, const struct weft_tunnel_spec *spec, struct weft_error *reterr)
{
        struct stranger s = { .spec = spec };
        int r = links_each(net_socket(n), on_stranger, &s, reterr);

        if (r < 0 || !s.name[0])
                return r;

        return weft_fail(reterr, -EEXIST,
                         "the device %s of somebody else's has UDP port %u: remove it, or set "
                         "another port, on every node",
                         s.name, port_of(spec));
}

struct named {
        const struct weft_tunnel_spec *spec;
        struct tunnel tunnel;
};

static void on_named(void *data, const struct nlmsghdr *h)
{
        struct named *n = data;

        (void) parse_tunnel(h, n->spec, &n->tunnel);
}

/* spec NULL: whatever its kind. -ENODEV: no device of the name; -EEXIST: one of somebody else's. */
static int tunnel_get(struct net *n, const struct weft_tunnel_spec *spec, const char *name,
                      struct tunnel *ret, struct weft_error *reterr)
{
        struct ifinfomsg head = { 0 };
        struct nl_msg *m = rtnl_new(RTM_GETLINK, 0, &head, sizeof(head));
        struct named found = { .spec = spec };
        int r;

        rtnl_put_string(m, IFLA_IFNAME, name);
        r = rtnl_ask(net_socket(n), m, on_named, &found, reterr);
        *ret = found.tunnel;
        if (r >= 0 && !ret->ours)
                return weft_fail(reterr, -EEXIST, "%s is there already, and not weft's", name);

        return r;
}

/* ---- making ------------------------------------------------------------------------------- */

static int make(struct net *n, const struct overlay_request *q, const char *name,
                struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_flags = IFF_NOARP, .ifi_change = IFF_NOARP };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
        const struct weft_tunnel_spec *spec = q->spec;
        uint8_t yes = 1;
        struct nlattr *info, *data;

        rtnl_put_string(m, IFLA_IFNAME, name);
        rtnl_put(m, IFLA_ADDRESS, q->mac, sizeof(q->mac));
        info = rtnl_begin(m, IFLA_LINKINFO);
        rtnl_put_string(m, IFLA_INFO_KIND, spec->kind);
        data = rtnl_begin(m, IFLA_INFO_DATA);
        rtnl_put(m, spec->port_attribute, &spec->header.port, sizeof(spec->header.port));
        rtnl_put(m, spec->external_attribute, &yes, spec->external_is_flag ? 0 : sizeof(yes));
        rtnl_put(m, spec->sums_attribute, &yes, sizeof(yes));
        rtnl_end(m, data);
        rtnl_end(m, info);

        return rtnl_ask(net_socket(n), m, NULL, NULL, reterr);
}

/* Its own by its alias; no address of its own, not even a link-local one. */
static int furnish(struct net *n, const struct overlay_request *q, uint32_t ifindex,
                   struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) ifindex };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, 0, &head, sizeof(head));
        uint8_t none = IN6_ADDR_GEN_MODE_NONE;
        _cleanup_free_ char *has6 = NULL;
        struct nlattr *spec, *six;

        rtnl_put_string(m, IFLA_IFALIAS, ALIAS);
        rtnl_put(m, IFLA_ADDRESS, q->mac, sizeof(q->mac));
        if (q->mtu)
                rtnl_put_u32(m, IFLA_MTU, q->mtu);
        if (sysctl_read("net/ipv6/conf/default/accept_ra", &has6) == 0) {
                spec = rtnl_begin(m, IFLA_AF_SPEC);
                six = rtnl_begin(m, AF_INET6);
                rtnl_put(m, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
                rtnl_end(m, six);
                rtnl_end(m, spec);
        }

        return rtnl_ask(net_socket(n), m, NULL, NULL, reterr);
}

static bool is_right(const struct tunnel *t, const struct overlay_request *q)
{
        return t->port == port_of(q->spec) && t->external;
}

static int make_and_furnish(struct net *n, const struct overlay_request *q, const char *name,
                            struct weft_error *reterr)
{
        struct link_info link;
        int r = make(n, q, name, reterr);

        if (r >= 0)
                r = link_get(net_socket(n), name, 0, &link, reterr);

        return r < 0 ? r : furnish(n, q, link.link.ifindex, reterr);
}

static int make_right(struct net *n, const struct overlay_request *q, const char *name,
                    struct weft_error *reterr)
{
        struct tunnel t;
        int r = tunnel_get(n, q->spec, name, &t, reterr);

        if (r == -ENODEV)
                return make_and_furnish(n, q, name, reterr);
        if (r < 0)
                return r;
        if (!is_right(&t, q)) {
                (void) link_delete(net_socket(n), t.link.link.ifindex, NULL);
                return make_and_furnish(n, q, name, reterr);
        }

        if (t.link.link.mtu != q->mtu || memcmp(t.link.link.mac, q->mac, sizeof(q->mac)) != 0)
                r = furnish(n, q, t.link.link.ifindex, reterr);

        return r;
}

int overlay_make(struct net *n, const struct overlay_request *q, struct net_link *ret,
               struct weft_error *reterr)
{
        char name[16];
        int r = overlay_check(n, q->spec, reterr);

        overlay_ifname(q->spec, name);
        if (r >= 0)
                r = make_right(n, q, name, reterr);
        if (r >= 0)
                r = net_link_by_name(n, name, ret);

        return r < 0 ? weft_fail_in(reterr, r, "tunnel device %s", name) : 0;
}

int overlay_up(struct net *n, const struct net_link *l, struct weft_error *reterr)
{
        int r = l->up ? 0 : link_up(net_socket(n), l->ifindex, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "tunnel device %s", l->name) : 0;
}

void overlay_remove(struct net *n, const char *ifname)
{
        struct tunnel t;

        if (tunnel_get(n, NULL, ifname, &t, NULL) >= 0)
                (void) link_delete(net_socket(n), t.link.link.ifindex, NULL);
}

struct listener {
        void (*f)(void *data, const char *ifname);
        void *data;
};

static void on_own(void *data, const struct nlmsghdr *h)
{
        const struct listener *l = data;
        struct tunnel t;

        if (parse_tunnel(h, NULL, &t) && t.ours)
                l->f(l->data, t.link.link.name);
}

void overlay_each(struct net *n, void (*f)(void *data, const char *ifname), void *data)
{
        struct listener l = { f, data };

        (void) links_each(net_socket(n), on_own, &l, NULL);
}

/* ---- the gateway that there is not -------------------------------------------------------- */

static const uint8_t gateway_mac[6] = { 0x02, 0x57, 0xff, 0xff, 0xff, 0xff };

struct weft_addr overlay_gateway(int family)
{
        if (family == AF_INET)
                return (struct weft_addr) { { 0, 0, htonl(0xffff), htonl(0xa9fe5757) } };
        return (struct weft_addr) { { htonl(0xfe800000), 0, htonl(0x02570000), htonl(0x5757) } };
}

int overlay_gateway_set(struct net *n, uint32_t ifindex, struct weft_error *reterr)
{
        static const int families[] = { AF_INET, AF_INET6 };
        int r = 0;

        for (size_t i = 0; i < ELEMENTS(families) && r >= 0; i++) {
                const struct weft_addr a = overlay_gateway(families[i]);

                r = neighbour_add(net_socket(n), ifindex, &a, gateway_mac, reterr);
                if (families[i] == AF_INET6 && r < 0)
                        return 0; /* a kernel without, or an interface where it is off */
        }

        return r;
}

void overlay_gateway_drop(struct net *n, uint32_t ifindex)
{
        const struct weft_addr four = overlay_gateway(AF_INET), six = overlay_gateway(AF_INET6);

        neighbour_delete(net_socket(n), ifindex, &four);
        neighbour_delete(net_socket(n), ifindex, &six);
}

/* ---- cleanup ------------------------------------------------------------------------------ */

struct cleaner {
        struct net *net;
        void (*f)(void *data, const char *what);
        void *data;
};

static void clean_device(void *data, const char *ifname)
{
        const struct cleaner *c = data;
        char what[32];

        overlay_remove(c->net, ifname);
        (void) snprintf(what, sizeof(what), "device %s", ifname);
        if (c->f)
                c->f(c->data, what);
}

static void clean_gateway(void *data, const struct nlmsghdr *h)
{
        const struct cleaner *c = data;
        struct neighbour_info i;
        struct weft_addr gateway;

        if (!neighbour_parse(h, &i) || memcmp(i.mac, gateway_mac, sizeof(i.mac)) != 0)
                return;
        gateway = overlay_gateway(address_family(&i.addr));
        if (address_equal(&i.addr, &gateway))
                neighbour_delete(net_socket(c->net), i.ifindex, &i.addr);
}

void overlays_cleanup(struct net *n, void (*f)(void *data, const char *what), void *data)
{
        struct cleaner c = { n, f, data };

        overlay_each(n, clean_device, &c);
        (void) neighbours_each(net_socket(n), clean_gateway, &c, NULL);
}
