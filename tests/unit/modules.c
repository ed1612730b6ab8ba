/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The user-space halves of the modules, each loaded as it is and run against an api that only notes
 * what it is asked for. */

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <weft/module.h>

#include "config/config.h"
#include "config/values.h"
#include "error.h"
#include "util.h"

#define PEERS_MAX 4

struct weft_instance {
        const struct weft_module *module;
        char config[256];
        void *data;
        int map;
        char notes[2048]; /* what was asked for, a line each */
        struct weft_peer_info peers[PEERS_MAX];
        size_t n_peers;
        int route_answer;
        struct weft_error why;
};

static void note(struct weft_instance *self, const char *format, ...)
{
        size_t n = strlen(self->notes);
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(self->notes + n, sizeof(self->notes) - n, format, ap);
        va_end(ap);
}

/* ---- the api ------------------------------------------------------------------------------ */

static void api_log(struct weft_instance *self, int level, const char *format, ...)
{
        char text[512];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        note(self, "log %d %s\n", level, text);
}

static const void *api_config(struct weft_instance *self)
{
        return self->config;
}

static int api_constant(struct weft_instance *self, const char *name, const void *value,
                        size_t size)
{
        char text[ADDRESS_TEXT];

        if (size == sizeof(struct weft_addr))
                note(self, "%s=%s\n", name, address_format(value, text, sizeof(text)));
        else
                note(self, "%s=%u\n", name,
                     size == 1 ? *(const uint8_t *) value : *(const uint16_t *) value);

        return 0;
}

static void api_give_out_ports(struct weft_instance *self, uint16_t low, uint16_t high)
{
        note(self, "gives out %u-%u\n", low, high);
}

static void api_node_ports(struct weft_instance *self, uint16_t low, uint16_t high)
{
        note(self, "serves node ports %u-%u\n", low, high);
}

static void api_free_ports(struct weft_instance *self, uint16_t *ret_low, uint16_t *ret_high)
{
        (void) self;
        *ret_low = 61000;
        *ret_high = 65535;
}

static int api_route(struct weft_instance *self, const struct weft_prefix *prefix,
                     const struct weft_addr *gateway, struct weft_error *reterr)
{
        char dst[PREFIX_TEXT], via[ADDRESS_TEXT];

        if (self->route_answer < 0)
                return weft_fail(reterr, self->route_answer, "no route");

        note(self, "route %s via %s\n", prefix_format(prefix, dst, sizeof(dst)),
             address_format(gateway, via, sizeof(via)));
        return 0;
}

static void api_unroute(struct weft_instance *self, const struct weft_prefix *prefix)
{
        char dst[PREFIX_TEXT];

        note(self, "unroute %s\n", prefix_format(prefix, dst, sizeof(dst)));
}

static void api_peers(struct weft_instance *self,
                      void (*f)(void *data, const struct weft_peer_info *peer), void *data)
{
        for (size_t i = 0; i < self->n_peers; i++)
                f(data, &self->peers[i]);
}

static int api_map(struct weft_instance *self, const char *name)
{
        (void) name;
        return self->map;
}

static void api_cluster_prefixes(struct weft_instance *self,
                                 void (*f)(void *data, const struct weft_prefix *prefix),
                                 void *data)
{
        for (size_t i = 0; i < self->n_peers; i++)
                for (size_t j = 0; j < self->peers[i].n_pod_cidrs; j++)
                        f(data, &self->peers[i].pod_cidrs[j]);
}

static void *api_data(struct weft_instance *self)
{
        return self->data;
}

static void api_set_data(struct weft_instance *self, void *data)
{
        self->data = data;
}

static const struct weft_api api = {
        .size = sizeof(struct weft_api),
        .abi = WEFT_ABI,
        .fail = weft_fail,
        .log = api_log,
        .config = api_config,
        .constant = api_constant,
        .give_out_ports = api_give_out_ports,
        .free_ports = api_free_ports,
        .route = api_route,
        .unroute = api_unroute,
        .peers = api_peers,
        .map = api_map,
        .cluster_prefixes = api_cluster_prefixes,
        .data = api_data,
        .set_data = api_set_data,
        .node_ports = api_node_ports,
};

/* ---- instances ---------------------------------------------------------------------------- */

/* An instance of the module with one or two options set. */
static struct weft_instance instance(const char *name, const char *key, const char *value,
                                     const char *key2, const char *value2)
{
        struct config_assignment a[] = {
                { (char *) key, (char *) value, { "m.conf", 1 } },
                { (char *) key2, (char *) value2, { "m.conf", 2 } },
        };
        struct weft_instance self = { .map = -ENOENT };
        struct diagnostics diagnostics = {};
        char path[512];
        void *dl;

        (void) snprintf(path, sizeof(path), "%s/%s.so", MODULE_DIR, name);
        dl = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        cr_assert_not_null(dl, "%s", dlerror());
        self.module = dlsym(dl, WEFT_MODULE_SYMBOL);
        cr_assert_not_null(self.module);
        cr_assert_str_eq(self.module->name, name);
        cr_assert_leq(self.module->config_size, sizeof(self.config));
        cr_assert_eq(options_fill(self.module->options, self.config, name, a, !!key + !!key2,
                                  &diagnostics),
                     0, "%s", diagnostics.n > 0 ? diagnostics.items[0].text : "");

        return self;
}

static void instance_done(struct weft_instance *self)
{
        options_free(self->module->options, self->config);
        if (self->map >= 0)
                (void) close(self->map);
}

static void make_map(struct weft_instance *self)
{
        LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);

        self->map = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "prefixes", sizeof(struct weft_peer_key),
                                   1, 64, &opts);
        cr_assert_geq(self->map, 0, "needs root: %s", strerror(-self->map));
}

/* Whether the map's longest match for the address is a prefix at all. */
static bool covers(const struct weft_instance *self, const char *address)
{
        struct weft_peer_key key = { .prefixlen = 128 };
        uint8_t value;

        cr_assert_eq(parse_address(address, &key.addr), 0);
        return bpf_map_lookup_elem(self->map, &key, &value) == 0;
}

static struct weft_peer_info peer(const char *name, const char *node4, const char *node6,
                                  const struct weft_prefixes *pods)
{
        struct weft_peer_info p = { .name = name,
                                    .pod_cidrs = pods->items,
                                    .n_pod_cidrs = pods->n };

        if (node4)
                cr_assert_eq(parse_address(node4, &p.node4), 0);
        if (node6)
                cr_assert_eq(parse_address(node6, &p.node6), 0);
        return p;
}

static struct weft_prefixes pods(const char *a, const char *b)
{
        struct weft_prefixes list = {};
        struct weft_prefix p;

        cr_assert_eq(parse_prefix(a, &p), 0);
        cr_assert_eq(prefixes_add(&list, &p), 0);
        if (b) {
                cr_assert_eq(parse_prefix(b, &p), 0);
                cr_assert_eq(prefixes_add(&list, &p), 0);
        }
        return list;
}

struct refusal {
        const char *key, *value, *key2, *value2, *says; /* NULL: accepted */
};

static void expect_configure(const char *name, const struct refusal *rows, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                struct weft_instance self =
                        instance(name, rows[i].key, rows[i].value, rows[i].key2, rows[i].value2);
                int r = self.module->configure(&self, &api, &self.why);

                cr_expect_eq(r, rows[i].says ? -EINVAL : 0, "%s = %s: %s", rows[i].key,
                             rows[i].value, self.why.text);
                if (rows[i].says)
                        cr_expect(strstr(self.why.text, rows[i].says), "%s = %s: %s", rows[i].key,
                                  rows[i].value, self.why.text);
                instance_done(&self);
        }
}

/* ---- nodeport-snat ------------------------------------------------------------------------ */

Test(nodeport_snat, gives_out_what_the_node_leaves)
{
        struct weft_instance self = instance("nodeport-snat", NULL, NULL, NULL, NULL);

        cr_assert_eq(self.module->configure(&self, &api, &self.why), 0);
        cr_assert_eq(self.module->load(&self, &api, &self.why), 0);
        cr_expect_str_eq(self.notes, "snat_low=61000\nsnat_high=65535\nnode_low=30000\n"
                                     "node_high=32767\ngives out 61000-65535\n"
                                     "serves node ports 30000-32767\n");
        instance_done(&self);
}

Test(nodeport_snat, gives_out_the_ports_it_is_told)
{
        struct weft_instance self =
                instance("nodeport-snat", "snat-ports", "20000-40000", "port-range", "8000-8999");

        cr_assert_eq(self.module->load(&self, &api, &self.why), 0);
        cr_expect_str_eq(self.notes, "snat_low=20000\nsnat_high=40000\nnode_low=8000\n"
                                     "node_high=8999\ngives out 20000-40000\n"
                                     "serves node ports 8000-8999\n");
        instance_done(&self);
}

Test(nodeport_snat, refuses_ranges_that_leave_nothing_or_hit_servers)
{
        static const struct refusal rows[] = {
                { "snat-ports", "20000-40000", NULL, NULL, NULL }, /* goes beyond port-range */
                { "snat-ports", "auto", NULL, NULL, NULL },
                { "port-range", "auto", NULL, NULL, "port-range cannot be auto" },
                { "snat-ports", "80-2000", NULL, NULL, "among the ports of servers" },
                { "snat-ports", "30000-32767", NULL, NULL, "lies within port-range" },
                { "snat-ports", "31000", NULL, NULL, "lies within port-range" },
                { "port-range", "60000-65535", NULL, NULL, "61000-65535 lies within port-range" },
        };

        expect_configure("nodeport-snat", rows, ELEMENTS(rows));
}

/* ---- native-routing ----------------------------------------------------------------------- */

Test(native_routing, lists_the_native_cidrs)
{
        struct weft_instance self =
                instance("native-routing", "cidr", "10.0.0.0/8, fd00::/8", NULL, NULL);

        make_map(&self);
        cr_assert_eq(self.module->attach(&self, &api, &self.why), 0, "%s", self.why.text);
        cr_expect(covers(&self, "10.1.2.3"));
        cr_expect(covers(&self, "fd12::1"));
        cr_expect_not(covers(&self, "192.0.2.1"));
        cr_expect_not(covers(&self, "2001:db8::1"));
        cr_expect_str_empty(self.notes);
        instance_done(&self);
}

Test(native_routing, routes_to_peers_in_each_family_only_where_asked_to)
{
        struct weft_prefixes both = pods("10.244.2.0/24", "fd00:2::/64");

        for (int on = 0; on <= 1; on++) {
                struct weft_instance self = instance("native-routing", "direct-node-routes",
                                                     on ? "yes" : "no", NULL, NULL);
                struct weft_peer_info n2 = peer("n2", "192.0.2.12", "2001:db8::12", &both);
                struct weft_module_event gone = { WEFT_PEER_REMOVED, &n2 };

                make_map(&self);
                self.peers[self.n_peers++] = n2;
                cr_assert_eq(self.module->attach(&self, &api, &self.why), 0, "%s", self.why.text);
                cr_assert_eq(self.module->event(&self, &api, &gone, &self.why), 0);
                cr_expect_str_eq(self.notes, on ? "route 10.244.2.0/24 via 192.0.2.12\n"
                                                  "route fd00:2::/64 via 2001:db8::12\n"
                                                  "unroute 10.244.2.0/24\nunroute fd00:2::/64\n"
                                                : "");
                instance_done(&self);
        }
        free(both.items);
}

Test(native_routing, a_new_peer_gets_its_routes)
{
        struct weft_instance self =
                instance("native-routing", "direct-node-routes", "yes", NULL, NULL);
        struct weft_prefixes one = pods("10.244.3.0/24", NULL);
        struct weft_peer_info n3 = peer("n3", "192.0.2.13", NULL, &one);
        struct weft_module_event added = { WEFT_PEER_ADDED, &n3 };

        cr_assert_eq(self.module->event(&self, &api, &added, &self.why), 0);
        cr_expect_str_eq(self.notes, "route 10.244.3.0/24 via 192.0.2.13\n");
        instance_done(&self);
        free(one.items);
}

Test(native_routing, a_peer_that_cannot_be_routed_to_is_named)
{
        static const struct {
                int answer;
                const char *skip;
                const char *node6;
                int r;
                const char *says; /* in the reason, or in the log */
        } rows[] = {
                { -ENETUNREACH, "no", "2001:db8::12", -ENETUNREACH,
                  "peer n2 is not on the same link-layer network: set skip-unreachable" },
                { -ENETUNREACH, "yes", "2001:db8::12", 0, "peer n2 is not on the same" },
                { -EEXIST, "no", "2001:db8::12", 0, "peer n2: a route of somebody else" },
                { -EPERM, "yes", "2001:db8::12", -EPERM, "no route" },
                { 0, "yes", NULL, -EADDRNOTAVAIL, "peer n2 has a pod CIDR of a family" },
        };
        struct weft_prefixes one = pods("fd00:2::/64", NULL);

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct weft_instance self = instance("native-routing", "direct-node-routes", "yes",
                                                     "skip-unreachable", rows[i].skip);

                make_map(&self);
                self.route_answer = rows[i].answer;
                self.peers[self.n_peers++] = peer("n2", "192.0.2.12", rows[i].node6, &one);
                cr_expect_eq(self.module->attach(&self, &api, &self.why), rows[i].r, "row %zu", i);
                cr_expect(strstr(rows[i].r < 0 ? self.why.text : self.notes, rows[i].says),
                          "row %zu: %s %s", i, self.why.text, self.notes);
                instance_done(&self);
        }
        free(one.items);
}

/* ---- bpf-masq ----------------------------------------------------------------------------- */

Test(bpf_masq, tracks_replies)
{
        struct weft_instance self = instance("bpf-masq", NULL, NULL, NULL, NULL);

        cr_expect_eq(self.module->tracks_replies, 1);
        instance_done(&self);
}

Test(bpf_masq, sets_the_constants_of_its_stage)
{
        struct weft_instance self = instance("bpf-masq", "address", "198.51.100.1", NULL, NULL);

        cr_assert_eq(self.module->load(&self, &api, &self.why), 0);
        cr_expect_str_eq(self.notes, "masquerade_ipv6=0\nsnat_low=61000\nsnat_high=65535\n"
                                     "address4=198.51.100.1\naddress6=::\ngives out 61000-65535\n");
        instance_done(&self);

        self = instance("bpf-masq", "ipv6", "yes", "address", "2001:db8::1");
        cr_assert_eq(self.module->load(&self, &api, &self.why), 0);
        cr_expect(strstr(self.notes, "masquerade_ipv6=1\n"));
        cr_expect(strstr(self.notes, "address4=::\naddress6=2001:db8::1\n"));
        instance_done(&self);
}

Test(bpf_masq, refuses_addresses_and_ports_that_make_no_sense)
{
        static const struct refusal rows[] = {
                { "address", "198.51.100.1", NULL, NULL, NULL },
                { "address", "198.51.100.1, 2001:db8::1", "ipv6", "yes", NULL },
                { "address", "2001:db8::1", NULL, NULL, "set ipv6 = yes" },
                { "address", "198.51.100.1, 198.51.100.2", NULL, NULL, "several of one family" },
                { "snat-ports", "80-90", NULL, NULL, "among the ports of servers" },
        };

        expect_configure("bpf-masq", rows, ELEMENTS(rows));
}

Test(bpf_masq, leaves_the_cluster_the_list_and_link_local_alone)
{
        struct weft_instance self =
                instance("bpf-masq", "non-masquerade-cidr", "172.16.0.0/12", NULL, NULL);
        struct weft_prefixes two = pods("10.244.2.0/24", "fd00:2::/64");

        make_map(&self);
        self.peers[self.n_peers++] = peer("n2", "192.0.2.12", NULL, &two);
        cr_assert_eq(self.module->attach(&self, &api, &self.why), 0, "%s", self.why.text);
        cr_expect(covers(&self, "172.31.0.1"));
        cr_expect(covers(&self, "10.244.2.9"));
        cr_expect(covers(&self, "fd00:2::9"));
        cr_expect(covers(&self, "169.254.169.254"));
        cr_expect(covers(&self, "fe80::1"));
        cr_expect_not(covers(&self, "169.253.0.1"));
        cr_expect_not(covers(&self, "10.244.3.9"));
        cr_expect_not(covers(&self, "8.8.8.8"));
        instance_done(&self);
        free(two.items);
}

Test(bpf_masq, masquerades_link_local_where_asked_to)
{
        struct weft_instance self =
                instance("bpf-masq", "masquerade-link-local", "yes", NULL, NULL);

        make_map(&self);
        cr_assert_eq(self.module->attach(&self, &api, &self.why), 0, "%s", self.why.text);
        cr_expect_not(covers(&self, "169.254.169.254"));
        cr_expect_not(covers(&self, "fe80::1"));
        instance_done(&self);
}

Test(bpf_masq, follows_peers_as_they_come_and_go)
{
        struct weft_instance self = instance("bpf-masq", NULL, NULL, NULL, NULL);
        struct weft_prefixes one = pods("10.244.2.0/24", NULL);
        struct weft_peer_info n2 = peer("n2", "192.0.2.12", NULL, &one);
        struct weft_module_event added = { WEFT_PEER_ADDED, &n2 },
                                 gone = { WEFT_PEER_REMOVED, &n2 };

        make_map(&self);
        cr_assert_eq(self.module->attach(&self, &api, &self.why), 0, "%s", self.why.text);

        for (int i = 0; i < 300; i++) { /* more often than the pass has values */
                self.peers[0] = n2;
                self.n_peers = 1;
                cr_assert_eq(self.module->event(&self, &api, &added, &self.why), 0);
                cr_assert(covers(&self, "10.244.2.9"), "%d", i);

                self.n_peers = 0;
                cr_assert_eq(self.module->event(&self, &api, &gone, &self.why), 0);
                cr_assert_not(covers(&self, "10.244.2.9"), "%d", i);
                cr_assert(covers(&self, "169.254.169.254"), "%d", i);
        }
        instance_done(&self);
        free(one.items);
}

/* ---- host-routing ------------------------------------------------------------------------- */

Test(host_routing, says_what_it_needs_and_why)
{
        struct weft_instance self = instance("host-routing", NULL, NULL, NULL, NULL);
        const struct weft_need *need = self.module->needs;

        cr_expect_str_eq(need->name, "redirect-peer");
        cr_expect_eq(need->kind, WEFT_NEED_FEATURE);
        cr_expect_eq(need->soft, 0);
        for (; need->kind; need++)
                cr_expect_not_null(need->why, "%s", need->name);
        instance_done(&self);
}
