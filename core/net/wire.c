/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The wiring of one endpoint: a pair of devices whose one end lies in the endpoint's namespace. Its
 * name and both link-layer addresses come from a hash of the endpoint's name, so that they stay the
 * same when the pair is made anew, and no udev policy for random addresses touches them. */

#include <errno.h>
#include <inttypes.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>

#include "net/hold.h"
#include "net/namespace.h"
#include "net/wire-inside.h"

#define PREFIX "weft"
#define ALIAS "weft endpoint "

enum { HASH_DIGITS = 11, LEAST_MTU = 1500 };

/* "weft": devices that are about to be deleted, and nobody else's. */
#define GROUP_LEAVING 0x77656674

/* <linux/if_link.h> of Linux 6.7: enum netkit_mode, and the attribute of it; that of the peer is
 * veth's. */
enum { WITH_ETHERNET = 0, NETKIT_MODE_ATTRIBUTE = 5 };

/* FNV-1a, 64 bits, its high bits folded into the low ones. */
static uint64_t hash(const char *name)
{
        uint64_t h = UINT64_C(0xcbf29ce484222325);

        for (; *name; name++)
                h = (h ^ (uint8_t) *name) * UINT64_C(0x100000001b3);

        return h ^ h >> 44;
}

void wire_ifname(const char *name, char ret[static 16])
{
        (void) snprintf(ret, 16, PREFIX "%0*" PRIx64, HASH_DIGITS,
                        hash(name) & ((UINT64_C(1) << 4 * HASH_DIGITS) - 1));
}

/* Locally administered, unicast; the lowest bit tells the sides apart. */
static void wire_mac(const char *name, bool inside, uint8_t ret[static 6])
{
        uint64_t h = hash(name);

        ret[0] = 0x02;
        for (int i = 1; i < 6; i++)
                ret[i] = (uint8_t) (h >> 8 * i);
        ret[5] = (uint8_t) ((ret[5] & ~1) | inside);
}

static bool is_wire_name(const char *ifname)
{
        return strncmp(ifname, PREFIX, strlen(PREFIX)) == 0 &&
               strlen(ifname) == strlen(PREFIX) + HASH_DIGITS &&
               strspn(ifname + strlen(PREFIX), "0123456789abcdef") == HASH_DIGITS;
}

static const char *kind_of(const struct wire_request *r)
{
        return r->netkit ? "netkit" : "veth";
}

static bool is_wire(const struct link_info *i)
{
        return is_wire_name(i->link.name) &&
               (strcmp(i->link.kind, "veth") == 0 || strcmp(i->link.kind, "netkit") == 0);
}

/* ---- the pair ----------------------------------------------------------------------------- */

struct wiring {
        const struct wire_request *request;
        struct net *net;
        int ns;
        struct nl_sock *inside;
        struct link_info here, there;
        bool made; /* by this call: taken away again when it fails */
};

static void on_nsid(void *data, const struct nlmsghdr *h)
{
        struct nlattr *a[NETNSA_MAX + 1];

        rtnl_parse(h, sizeof(struct rtgenmsg), a, NETNSA_MAX);
        if (a[NETNSA_NSID])
                *(int32_t *) data = nla_get_s32(a[NETNSA_NSID]);
}

/* The number that links carry for the namespace; -1: none. */
static int32_t nsid_of(struct nl_sock *s, int ns)
{
        struct rtgenmsg head = { .rtgen_family = AF_UNSPEC };
        struct nl_msg *m = rtnl_new(RTM_GETNSID, 0, &head, sizeof(head));
        int32_t id = -1;

        rtnl_put_u32(m, NETNSA_FD, (uint32_t) ns);
        (void) rtnl_ask(s, m, on_nsid, &id, NULL);

        return id;
}

/* True where the host side is there and its other end is the wanted device. */
static bool pair_is_right(struct wiring *w)
{
        int32_t id = nsid_of(net_socket(w->net), w->ns);

        return id >= 0 && w->here.netnsid == id && w->here.peer &&
               link_get(w->inside, NULL, w->here.peer, &w->there, NULL) == 0 &&
               strcmp(w->there.link.kind, kind_of(w->request)) == 0 &&
               strcmp(w->there.link.name, w->request->device) == 0;
}

static uint32_t device_mtu(const struct wire_request *r)
{
        return r->mtu > LEAST_MTU ? r->mtu : LEAST_MTU;
}

static int pair_make(struct wiring *w, const char *ifname, struct weft_error *reterr)
{
        struct ifinfomsg head = { 0 };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
        struct nlattr *info, *data, *peer;
        uint8_t mac[6];

        wire_mac(w->request->name, false, mac);
        rtnl_put_string(m, IFLA_IFNAME, ifname);
        rtnl_put(m, IFLA_ADDRESS, mac, sizeof(mac));
        rtnl_put_u32(m, IFLA_MTU, device_mtu(w->request));
        info = rtnl_begin(m, IFLA_LINKINFO);
        rtnl_put_string(m, IFLA_INFO_KIND, kind_of(w->request));
        data = rtnl_begin(m, IFLA_INFO_DATA);
        if (w->request->netkit)
                rtnl_put_u32(m, NETKIT_MODE_ATTRIBUTE, WITH_ETHERNET);
        peer = rtnl_begin(m, VETH_INFO_PEER);
        if (m)
                (void) nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO);
        wire_mac(w->request->name, true, mac);
        rtnl_put_string(m, IFLA_IFNAME, w->request->device);
        rtnl_put(m, IFLA_ADDRESS, mac, sizeof(mac));
        rtnl_put_u32(m, IFLA_MTU, device_mtu(w->request));
        rtnl_put_u32(m, IFLA_NET_NS_FD, (uint32_t) w->ns);
        rtnl_end(m, peer);
        rtnl_end(m, data);
        rtnl_end(m, info);

        return rtnl_ask(net_socket(w->net), m, NULL, NULL, reterr);
}

static int pair_find(struct wiring *w, const char *ifname, struct weft_error *reterr)
{
        char alias[sizeof(w->here.alias)];
        int r = link_get(net_socket(w->net), ifname, 0, &w->here, reterr);

        if (r < 0)
                return r;

        (void) snprintf(alias, sizeof(alias), ALIAS "%s", w->request->name);
        if (!is_wire(&w->here) || (w->here.alias[0] && strcmp(w->here.alias, alias) != 0))
                return weft_fail(reterr, -EEXIST, "%s (%s) is there already, and not its own",
                                 ifname, w->here.alias);
        if (w->here.group != GROUP_LEAVING && pair_is_right(w))
                return 0;

        r = link_delete(net_socket(w->net), w->here.link.ifindex, reterr);

        return r < 0 ? r : -ENODEV;
}

static int pair_ensure(struct wiring *w, struct weft_error *reterr)
{
        char ifname[IFNAMSIZ];
        int r;

        wire_ifname(w->request->name, ifname);
        r = pair_find(w, ifname, reterr);
        if (r != -ENODEV)
                return r;

        if (link_get(w->inside, w->request->device, 0, &w->there, NULL) == 0)
                return weft_fail(reterr, -EEXIST,
                                 "the namespace has a device %s of somebody else's",
                                 w->request->device);

        r = pair_make(w, ifname, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "%s pair %s, %s", kind_of(w->request), ifname,
                                    w->request->device);

        w->made = true;
        r = link_get(net_socket(w->net), ifname, 0, &w->here, reterr);
        if (r >= 0)
                r = link_get(w->inside, w->request->device, 0, &w->there, reterr);

        return r;
}

/* ---- the host side ------------------------------------------------------------------------ */

/* The host gets no address on the device, not even a link-local one, and takes no router
 * advertisements from the endpoint. */
static int quieten(struct wiring *w, struct weft_error *reterr)
{
        struct ifinfomsg head = { .ifi_index = (int) w->here.link.ifindex };
        struct nl_msg *m = rtnl_new(RTM_NEWLINK, 0, &head, sizeof(head));
        uint8_t none = IN6_ADDR_GEN_MODE_NONE;
        _cleanup_free_ char *accepts = NULL;
        char text[128], path[64];
        struct nlattr *spec, *six;

        (void) snprintf(path, sizeof(path), "net/ipv6/conf/%s/accept_ra", w->here.link.name);
        (void) snprintf(text, sizeof(text), ALIAS "%s", w->request->name);
        rtnl_put_string(m, IFLA_IFALIAS, text);

        if (sysctl_read(path, &accepts) == 0) {
                spec = rtnl_begin(m, IFLA_AF_SPEC);
                six = rtnl_begin(m, AF_INET6);
                rtnl_put(m, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
                rtnl_end(m, six);
                rtnl_end(m, spec);
                (void) sysctl_write(path, "0");
        }

        return rtnl_ask(net_socket(w->net), m, NULL, NULL, reterr);
}

static int ready_host_side(struct wiring *w, struct weft_error *reterr)
{
        struct nl_sock *s = net_socket(w->net);
        const struct wire_request *q = w->request;
        const struct net_link *l = &w->here.link;
        int r = 0;

        if (l->mtu != device_mtu(q))
                r = link_set_mtu(s, l->ifindex, device_mtu(q), reterr);
        if (r >= 0 && !l->up) {
                r = quieten(w, reterr);
                if (r >= 0)
                        r = link_up(s, l->ifindex, reterr);
        }
        /* Without an address of its own the device cannot ask who has an IPv6 address. */
        if (r >= 0)
                r = neighbours_set(s, l->ifindex, q->addrs, q->n_addrs, w->there.link.mac, reterr);

        return r < 0 ? weft_fail_in(reterr, r, "%s", l->name) : 0;
}

/* ---- routes and forwarding, counted ------------------------------------------------------- */

void wire_hold_done(struct wire_hold *w)
{
        free(w->name);
        free(w->addrs.items);
}

static struct wire_hold *hold_find(struct host *h, const char *name)
{
        for (size_t i = 0; i < h->n_wires; i++)
                if (strcmp(h->wires[i].name, name) == 0)
                        return &h->wires[i];

        return NULL;
}

static void release(struct host *h, const char *name, const struct weft_addr *addrs, size_t n)
{
        char ifname[IFNAMSIZ];

        for (size_t i = 0; i < n; i++)
                host_unroute(h, &(struct weft_prefix) { addrs[i], 128 });

        wire_ifname(name, ifname);
        host_unforwarding(h, ifname);
}

static int acquire(struct host *h, const struct wiring *w, struct weft_error *reterr)
{
        const struct wire_request *q = w->request;
        size_t i;
        int r = host_forwarding(h, w->here.link.name, reterr);

        if (r < 0)
                return r;

        for (i = 0; i < q->n_addrs; i++) {
                r = host_route(h, &(struct weft_prefix) { q->addrs[i], 128 }, NULL,
                               w->here.link.ifindex, 0, reterr);
                if (r < 0) {
                        release(h, q->name, q->addrs, i);
                        return r;
                }
        }

        return 0;
}

/* Asks for everything and gives back what an earlier call asked for, in this order, so that nothing
 * that stays is taken away in between. */
static int hold(struct host *h, const struct wiring *w, struct weft_error *reterr)
{
        struct wire_hold *old = hold_find(h, w->request->name), new = { 0 };
        int r;

        if (!old && list_grow(&h->wires, h->n_wires, sizeof(new)) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        new.name = strdup(w->request->name);
        for (size_t i = 0; new.name &&i < w->request->n_addrs; i++)
                if (addresses_add(&new.addrs, &w->request->addrs[i]) < 0)
                        break;
        r = new.addrs.n == w->request->n_addrs &&new.name
                    ? acquire(h, w, reterr)
                    : weft_fail(reterr, -ENOMEM, "out of memory");
        if (r < 0) {
                wire_hold_done(&new);
                return r;
        }

        if (old) {
                release(h, old->name, old->addrs.items, old->addrs.n);
                wire_hold_done(old);
                *old = new;
        } else {
                h->wires[h->n_wires++] = new;
        }

        return 0;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void wiring_done(struct wiring *w)
{
        nl_socket_free(w->inside);
        closep(&w->ns);
}

static int wire(struct wiring *w, struct host *h, struct weft_error *reterr)
{
        int r = pair_ensure(w, reterr);

        if (r >= 0)
                r = ready_host_side(w, reterr);
        if (r >= 0)
                r = ready_inside(w->inside, w->request, &w->there.link, w->here.link.mac,
                                 device_mtu(w->request), reterr);
        if (r >= 0)
                r = hold(h, w, reterr);
        if (r < 0 && w->made)
                (void) link_delete(net_socket(w->net), w->here.link.ifindex, NULL);

        return r;
}

int wire_up(struct net *n, struct host *h, const struct wire_request *request, struct wire *ret,
            struct weft_error *reterr)
{
        _cleanup_(wiring_done) struct wiring w = { .request = request, .net = n, .ns = -1 };
        int r = namespace_open(request->netns, request->pid, request->started, &w.ns, reterr);

        if (r < 0)
                return r;

        r = rtnl_open_in(w.ns, &w.inside, reterr);
        if (r >= 0)
                r = wire(&w, h, reterr);
        if (r < 0)
                /* -ENOENT is kept for a namespace that is not there. */
                return r == -ENOENT ? -EIO : r;

        ret->ifindex = w.here.link.ifindex;
        ret->namespace = namespace_number(request->netns, request->pid);
        memcpy(ret->ifname, w.here.link.name, sizeof(ret->ifname));
        memcpy(ret->mac, w.here.link.mac, sizeof(ret->mac));
        memcpy(ret->peer_mac, w.there.link.mac, sizeof(ret->peer_mac));

        return 0;
}

/* ---- removing ----------------------------------------------------------------------------- */

static bool find_wire(struct net *n, const char *ifname, struct link_info *ret)
{
        return is_wire_name(ifname) && link_get(net_socket(n), ifname, 0, ret, NULL) == 0 &&
               is_wire(ret);
}

static void wire_remove(struct net *n, const char *ifname)
{
        struct link_info i;

        if (find_wire(n, ifname, &i))
                (void) link_delete(net_socket(n), i.link.ifindex, NULL);
}

struct group_count {
        size_t wires, others;
};

static void count_member(void *data, const struct nlmsghdr *h)
{
        struct group_count *count = data;
        struct link_info i;

        if (!link_parse(h, &i) || i.group != GROUP_LEAVING)
                return;
        count->wires += is_wire(&i);
        count->others += !is_wire(&i);
}

/* False: not all of them are in the group, or somebody else's is. */
static bool gather(struct net *n, char (*ifnames)[16], size_t n_ifnames)
{
        struct group_count count = { 0 };
        struct link_info link;
        size_t gathered = 0;

        for (size_t i = 0; i < n_ifnames; i++)
                if (find_wire(n, ifnames[i], &link) &&
                    link_set_group(net_socket(n), link.link.ifindex, GROUP_LEAVING, NULL) == 0)
                        gathered++;

        return links_each(net_socket(n), count_member, &count, NULL) == 0 &&
               count.wires == gathered && count.others == 0;
}

void wires_remove(struct net *n, char (*ifnames)[16], size_t n_ifnames)
{
        if (n_ifnames > 1 && gather(n, ifnames, n_ifnames) &&
            links_delete(net_socket(n), GROUP_LEAVING, NULL) == 0)
                return;

        for (size_t i = 0; i < n_ifnames; i++)
                wire_remove(n, ifnames[i]);
}

void wire_down(struct net *n, struct host *h, const char *name, const struct weft_addr *addrs,
               size_t n_addrs)
{
        struct wire_hold *held = hold_find(h, name);
        char ifname[IFNAMSIZ];

        if (held) {
                release(h, name, held->addrs.items, held->addrs.n);
                wire_hold_done(held);
                *held = h->wires[--h->n_wires];
        } else {
                release(h, name, addrs, n_addrs);
        }

        wire_ifname(name, ifname);
        wire_remove(n, ifname);
}

struct names {
        char (*items)[16];
        size_t n;
};

static void add_name(void *data, const struct nlmsghdr *h)
{
        struct names *names = data;
        struct link_info i;

        if (link_parse(h, &i) && is_wire(&i) &&
            list_grow(&names->items, names->n, sizeof(*names->items)) == 0)
                memcpy(names->items[names->n++], i.link.name, sizeof(*names->items));
}

char (*wires_list(struct net *n, size_t *ret_n))[16]
{
        struct names names = { 0 };

        (void) links_each(net_socket(n), add_name, &names, NULL);
        *ret_n = names.n;
        return names.items;
}

void wires_cleanup(struct net *n, void (*f)(void *data, const char *what), void *data)
{
        size_t n_names;
        _cleanup_free_ char(*names)[16] = wires_list(n, &n_names);
        char what[32];

        wires_remove(n, names, n_names);
        for (size_t i = 0; f && i < n_names; i++) {
                (void) snprintf(what, sizeof(what), "device %s", names[i]);
                f(data, what);
        }
}
