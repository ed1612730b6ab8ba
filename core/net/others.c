/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who else on this node handles pods' packets or answers for services: told by the names that such
 * programs give to their devices, eBPF programs and netfilter chains. Nothing is changed. */

#include <bpf/bpf.h>
#include <errno.h>
#include <fnmatch.h>
#include <jansson.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <string.h>

#include "net/nat.h"
#include "net/nft.h"
#include "net/rtnl.h"

enum { PATTERNS = 3, PROGRAMS_MAX = 64 };

static const struct stranger {
        const char *name;
        const char *devices[PATTERNS], *programs[PATTERNS], *chains[PATTERNS];
        const char *remedy;
} strangers[] = {
#define NETWORK "take it off this node, or leave the node to it: both would carry the pods' packets"
        { "kube-proxy",
          { "kube-ipvs0" },
          { NULL },
          { "KUBE-*" },
          "stop it and take its rules away (kube-proxy --cleanup), or leave the services to it" },
        { "Cilium", { "cilium_*" }, { "cil_*" }, { "CILIUM_*" }, NETWORK },
        { "Calico",
          { "cali*", "vxlan.calico", "wireguard.cali" },
          { "cali_*", "calico_*" },
          { "cali-*" },
          NETWORK },
        { "flannel", { "flannel[.-]*" }, { NULL }, { "FLANNEL-*" }, NETWORK },
        { "Weave Net", { "weave", "vxlan-6784" }, { NULL }, { "WEAVE*" }, NETWORK },
        { "Antrea", { "antrea-gw0" }, { NULL }, { "ANTREA-*" }, NETWORK },
        { "OVN-Kubernetes", { "ovn-k8s-mp*" }, { NULL }, { "OVN-KUBE-*" }, NETWORK },
        { "kube-router", { "kube-bridge" }, { NULL }, { NULL }, NETWORK },
};

struct looking {
        void (*f)(void *data, const char *what, const char *remedy);
        void *data;
        struct nl_sock *socket;
};

__attribute__((format(printf, 3, 4))) static void say(const struct looking *l, const char *remedy,
                                                      const char *format, ...)
{
        char what[256];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(what, sizeof(what), format, ap);
        va_end(ap);
        l->f(l->data, what, remedy);
}

static bool matches(const char *const patterns[static PATTERNS], const char *name)
{
        for (size_t i = 0; i < PATTERNS && patterns[i]; i++)
                if (fnmatch(patterns[i], name, 0) == 0)
                        return true;

        return false;
}

/* ---- eBPF programs ------------------------------------------------------------------------ */

/* False: gone meanwhile. */
static bool program_name(uint32_t id, char ret[static BPF_OBJ_NAME_LEN])
{
        _cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof(info);

        if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                return false;

        memcpy(ret, info.name, BPF_OBJ_NAME_LEN);
        return true;
}

static void on_program(const struct looking *l, const char *ifname, uint32_t id, const char *how)
{
        char name[BPF_OBJ_NAME_LEN];

        if (!program_name(id, name) || strncmp(name, "weft_", 5) == 0)
                return;

        for (size_t i = 0; i < ELEMENTS(strangers); i++)
                if (matches(strangers[i].programs, name)) {
                        say(l, strangers[i].remedy, "%s: program %s at %s (%s)", strangers[i].name,
                            name, ifname, how);
                        return;
                }
        if (strcmp(how, "XDP") == 0)
                say(l,
                    "weft goes without XDP there; to let it have the place: ip link set dev "
                    "INTERFACE xdp off",
                    "XDP program %s at %s", name[0] ? name : "without a name", ifname);
}

static void look_at_tcx(const struct looking *l, const struct net_link *link)
{
        static const struct {
                enum bpf_attach_type type; /* of Linux 6.6 */
                const char *how;
        } sides[] = { { (enum bpf_attach_type) 46, "tcx ingress" },
                      { (enum bpf_attach_type) 47, "tcx egress" } };
        uint32_t ids[PROGRAMS_MAX];

        for (size_t i = 0; i < ELEMENTS(sides); i++) {
                uint32_t n = PROGRAMS_MAX;

                if (bpf_prog_query((int) link->ifindex, sides[i].type, 0, NULL, ids, &n) < 0)
                        continue;
                for (uint32_t k = 0; k < n && k < PROGRAMS_MAX; k++)
                        on_program(l, link->name, ids[k], sides[i].how);
        }
}

struct filters {
        const struct looking *l;
        const char *ifname, *how;
};

static void on_filter(void *data, const struct nlmsghdr *h)
{
        struct nlattr *a[TCA_MAX + 1], *o[TCA_BPF_MAX + 1];
        const struct filters *f = data;

        if (h->nlmsg_type != RTM_NEWTFILTER)
                return;

        rtnl_parse(h, sizeof(struct tcmsg), a, TCA_MAX);
        if (!a[TCA_KIND] || !a[TCA_OPTIONS] || strcmp(nla_get_string(a[TCA_KIND]), "bpf") != 0 ||
            nla_parse_nested(o, TCA_BPF_MAX, a[TCA_OPTIONS], NULL) < 0 || !o[TCA_BPF_ID])
                return;
        on_program(f->l, f->ifname, nla_get_u32(o[TCA_BPF_ID]), f->how);
}

static void look_at_filters(const struct looking *l, const struct net_link *link)
{
        static const struct {
                uint32_t parent;
                const char *how;
        } sides[] = { { TC_H_MIN_INGRESS, "ingress" }, { TC_H_MIN_EGRESS, "egress" } };

        for (size_t i = 0; i < ELEMENTS(sides); i++) {
                struct tcmsg head = {
                        .tcm_family = AF_UNSPEC,
                        .tcm_ifindex = (int) link->ifindex,
                        .tcm_parent = TC_H_MAKE(TC_H_CLSACT, sides[i].parent),
                };
                struct filters f = { l, link->name, sides[i].how };

                (void) rtnl_ask(l->socket,
                                rtnl_new(RTM_GETTFILTER, NLM_F_DUMP, &head, sizeof(head)),
                                on_filter, &f, NULL);
        }
}

/* ---- devices ------------------------------------------------------------------------------ */

/* What weft's own tunnels would take by default. */
static const struct {
        const char *kind;
        int port_attribute;
        uint16_t port;
} tunnels[] = {
        { "vxlan", IFLA_VXLAN_PORT, 8472 },
        { "geneve", IFLA_GENEVE_PORT, 6081 },
};

static void look_at_port(const struct looking *l, const struct net_link *link,
                         struct nlattr *link_info)
{
        struct nlattr *info[IFLA_INFO_MAX + 1] = { 0 }, *data[IFLA_VXLAN_MAX + 1] = { 0 };

        if (!link_info || nla_parse_nested(info, IFLA_INFO_MAX, link_info, NULL) < 0 ||
            !info[IFLA_INFO_DATA] ||
            nla_parse_nested(data, IFLA_VXLAN_MAX, info[IFLA_INFO_DATA], NULL) < 0)
                return;

        for (size_t i = 0; i < ELEMENTS(tunnels); i++) {
                const struct nlattr *port = data[tunnels[i].port_attribute];

                if (strcmp(link->kind, tunnels[i].kind) == 0 && port &&
                    ntohs(nla_get_u16(port)) == tunnels[i].port)
                        say(l,
                            "a tunnel of weft needs a port of its own: take the device away, or "
                            "give weft's another port on every node",
                            "%s device %s has UDP port %u", link->kind, link->name,
                            tunnels[i].port);
        }
}

static void look_at_xdp(const struct looking *l, const struct net_link *link, struct nlattr *xdp)
{
        static const int ids[] = { IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID };
        struct nlattr *a[IFLA_XDP_MAX + 1] = { 0 };

        if (!xdp || nla_parse_nested(a, IFLA_XDP_MAX, xdp, NULL) < 0)
                return;

        for (size_t i = 0; i < ELEMENTS(ids); i++)
                if (a[ids[i]]) {
                        on_program(l, link->name, nla_get_u32(a[ids[i]]), "XDP");
                        return;
                }
}

static void on_link(void *data, const struct nlmsghdr *h)
{
        const struct looking *l = data;
        struct nlattr *a[IFLA_MAX + 1];
        struct link_info i;

        if (!link_parse(h, &i) || strncmp(i.alias, "weft", 4) == 0)
                return;

        for (size_t k = 0; k < ELEMENTS(strangers); k++)
                if (matches(strangers[k].devices, i.link.name))
                        say(l, strangers[k].remedy, "%s: device %s", strangers[k].name,
                            i.link.name);

        rtnl_parse(h, sizeof(struct ifinfomsg), a, IFLA_MAX);
        look_at_port(l, &i.link, a[IFLA_LINKINFO]);
        look_at_xdp(l, &i.link, a[IFLA_XDP]);
        look_at_tcx(l, &i.link);
        look_at_filters(l, &i.link);
}

/* ---- netfilter ---------------------------------------------------------------------------- */

struct chains {
        const struct stranger *of;
        size_t n;
        char first[64], table[64];
};

static void count_chain(struct chains *c, const char *table, const char *name)
{
        if (!matches(c->of->chains, name))
                return;
        if (c->n++ > 0)
                return;

        (void) snprintf(c->first, sizeof(c->first), "%s", name);
        (void) snprintf(c->table, sizeof(c->table), "%s", table);
}

static void on_legacy_chain(void *data, const char *table, const char *name)
{
        count_chain(data, table, name);
}

static void count_chains(struct chains *c, const json_t *list)
{
        const json_t *item;
        size_t i;

        json_array_foreach (list, i, item) {
                const json_t *chain = json_object_get(item, "chain");
                const char *name = json_string_value(json_object_get(chain, "name"));
                char table[64];

                if (!name)
                        continue;
                (void) snprintf(table, sizeof(table), "table %s %s of nftables",
                                json_string_value(json_object_get(chain, "family")) ?: "",
                                json_string_value(json_object_get(chain, "table")) ?: "");
                count_chain(c, table, name);
        }
}

static void look_at_netfilter(const struct looking *l)
{
        _cleanup_free_ char *text = NULL;
        json_t *all =
                nft_run("list chains", true, &text, NULL) < 0 ? NULL : json_loads(text, 0, NULL);

        for (size_t i = 0; i < ELEMENTS(strangers); i++) {
                struct chains c = { .of = &strangers[i] };

                count_chains(&c, json_object_get(all, "nftables"));
                legacy_chains(on_legacy_chain, &c);
                if (c.n > 0)
                        say(l, strangers[i].remedy, "%s: %zu chain%s such as %s, in %s",
                            strangers[i].name, c.n, c.n == 1 ? "" : "s", c.first, c.table);
        }
        json_decref(all);
}

void net_others(void (*f)(void *data, const char *what, const char *remedy), void *data)
{
        _cleanup_rtnl_ struct nl_sock *s = NULL;
        struct looking l = { .f = f, .data = data };

        if (rtnl_open(&s, NULL) == 0) {
                l.socket = s;
                (void) links_each(s, on_link, &l, NULL);
        }
        look_at_netfilter(&l);
}
