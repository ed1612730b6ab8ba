/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>

#include "generation/generation.h"
#include "generation/object.h"
#include "module/module.h"
#include "probe/probe.h"
#include "util.h"
#include "world-internal.h"

const char *const device_names[DEVICES] = { "up0", "ep0", "ep1" };

static bool complain(const char *what)
{
        fprintf(stderr, "world: %s: %s\n", what, strerror(errno));
        return false;
}

/* ---- network ------------------------------------------------------------------------------ */

static const char *name_of(int family, enum who who, char text[INET6_ADDRSTRLEN])
{
        struct weft_addr a = at(family, who);

        inet_ntop(family, family == AF_INET ? (void *) &a.w[3] : (void *) &a, text,
                  INET6_ADDRSTRLEN);
        return text;
}

static const char *mac_text(struct mac m, char text[18])
{
        snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", m.b[0], m.b[1], m.b[2], m.b[3], m.b[4],
                 m.b[5]);
        return text;
}

static void add_device(FILE *f, const char *name, struct mac ours, struct mac peer)
{
        char a[18], b[18];

        fprintf(f, "link add %s address %s type veth peer name %sp address %s\n", name,
                mac_text(ours, a), name, mac_text(peer, b));
        fprintf(f, "link set %s up\nlink set %sp up\n", name, name);
}

static void add_neighbour(FILE *f, int family, enum who who, const char *device)
{
        char mac[18], text[INET6_ADDRSTRLEN];

        fprintf(f, "neigh add %s lladdr %s dev %s nud permanent\n", name_of(family, who, text),
                mac_text(mac_of(who), mac), device);
}

static void add_pod(FILE *f, int family, enum who who, const char *device)
{
        char text[INET6_ADDRSTRLEN];

        fprintf(f, "route add %s dev %s\n", name_of(family, who, text), device);
        add_neighbour(f, family, who, device);
}

static void add_family(FILE *f, int family)
{
        bool six = family == AF_INET6;
        char text[INET6_ADDRSTRLEN];

        fprintf(f, "addr add %s/%s dev up0\n", name_of(family, NODE, text),
                six ? "64 nodad" : "24");
        add_neighbour(f, family, ROUTER, "up0");
        add_neighbour(f, family, NODE2, "up0");
        fprintf(f, "route add default via %s\n", name_of(family, ROUTER, text));
        fprintf(f, "route add %s via %s\n", six ? "fd00:2::/64" : "10.244.2.0/24",
                name_of(family, NODE2, text));
        add_pod(f, family, POD, "ep0");
        add_pod(f, family, POD2, "ep1");
}

static bool write_file(const char *path, const char *text)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        return fd >= 0 && write(fd, text, strlen(text)) >= 0 ? true : complain(path);
}

static bool set_sysctls(void)
{
        return write_file("/proc/sys/net/ipv6/conf/default/accept_dad", "0") &&
               write_file("/proc/sys/net/ipv6/conf/all/forwarding", "1") &&
               write_file("/proc/sys/net/ipv4/ip_forward", "1");
}

static bool make_network(void)
{
        FILE *f;

        if (!set_sysctls())
                return false;
        f = popen("ip -batch -", "w");
        if (!f)
                return complain("ip");
        fprintf(f, "link set lo up\n");
        add_device(f, "up0", mac_of(NODE), mac_of(ROUTER));
        add_device(f, "ep0", gateway_mac(POD), mac_of(POD));
        add_device(f, "ep1", gateway_mac(POD2), mac_of(POD2));
        add_family(f, AF_INET);
        add_family(f, AF_INET6);
        return pclose(f) == 0 ? true : complain("ip -batch");
}

#define FILES 16384 /* each program's object holds all maps that it uses */

static bool make_namespaces(void)
{
        struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY }, files = { FILES, FILES };

        if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
                return complain("unshare");
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return complain("private mounts");
        if (mount("bpf", WORLD_BPFFS, "bpf", 0, "mode=0700") < 0)
                return complain("mount bpffs");
        (void) setrlimit(RLIMIT_MEMLOCK, &all);
        (void) setrlimit(RLIMIT_NOFILE, &files);
        return true;
}

/* ---- what modules ask of the daemon ------------------------------------------------------- */

static int no_route(void *data, const struct weft_prefix *prefix, const struct weft_addr *gateway,
                    struct weft_error *reterr)
{
        (void) data, (void) prefix, (void) gateway, (void) reterr;
        return 0;
}

static void no_unroute(void *data, const struct weft_prefix *prefix)
{
        (void) data, (void) prefix;
}

static void no_peers(void *data, void (*f)(void *, const struct weft_peer_info *), void *f_data)
{
        (void) data, (void) f, (void) f_data;
}

static void cluster(void *data, void (*f)(void *, const struct weft_prefix *), void *f_data)
{
        static const struct {
                int family;
                enum who who;
                uint32_t len;
        } prefixes[] = {
                { AF_INET, POD, 120 }, { AF_INET, REMOTE_POD, 120 }, { AF_INET, NODE2, 128 },
                { AF_INET6, POD, 64 }, { AF_INET6, REMOTE_POD, 64 }, { AF_INET6, NODE2, 128 },
        };

        (void) data;
        for (size_t i = 0; i < ELEMENTS(prefixes); i++) {
                struct weft_prefix p = { at(prefixes[i].family, prefixes[i].who), prefixes[i].len };

                if (p.len == 120)
                        p.addr.w[3] &= htonl(0xffffff00);
                if (p.len == 64)
                        p.addr.w[2] = p.addr.w[3] = 0;
                f(f_data, &p);
        }
}

static void log_line(void *data, const char *module, int level, const char *text)
{
        (void) data, (void) level;
        fprintf(stderr, "%s: %s\n", module, text);
}

static bool runs(void *data, const char *module)
{
        (void) data, (void) module;
        return false;
}

static const struct core_services services = {
        .route = no_route,
        .unroute = no_unroute,
        .peers = no_peers,
        .cluster_prefixes = cluster,
        .runs = runs,
        .log = log_line,
};

/* ---- what is loaded ----------------------------------------------------------------------- */

static struct config_assignment masq_options[] = {
        { .key = "ipv6", .value = "yes" },
        { .key = "non-masquerade-cidr", .value = "198.18.0.0/15, 2001:db8:18::/48" },
        { .key = "snat-ports", .value = "61000-65535" },
};
static struct config_assignment small_masq_options[] = {
        { .key = "ipv6", .value = "yes" },
        { .key = "snat-ports", .value = "61000-61003" },
};
static struct config_assignment tunnel_options[] = { { .key = "mode", .value = "bpf" } };
static struct config_assignment device_options[] = { { .key = "mode", .value = "device" } };
static struct config_assignment snat_options[] = { { .key = "snat-ports",
                                                     .value = "61000-65535" } };
static struct config_assignment small_options[] = { { .key = "snat-ports",
                                                      .value = "61000-61003" } };

static struct config_assignment ipip_options[] = { { .key = "dispatch", .value = "ipip" } };

#define MODULES 16

/* clang-format off */
#define MODULES_OF_2 { .name = "native-routing" },                                                 \
                     { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 }
#define MODULES_OF_4 MODULES_OF_2, { .name = "host-routing" },                                     \
                     { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 }
#define MODULES_OF_8 MODULES_OF_4, { .name = "extra-1" }, { .name = "extra-2" },                   \
                     { .name = "extra-3" }, { .name = "extra-4" }
#define MODULES_OF_16 MODULES_OF_8, { .name = "extra-5" }, { .name = "extra-6" },                  \
                     { .name = "extra-7" }, { .name = "extra-8" }, { .name = "extra-9" },          \
                     { .name = "extra-10" }, { .name = "extra-11" }, { .name = "extra-12" }
/* clang-format on */

static const struct config_module sections[VARIANTS][MODULES] = {
        [DIRECT] = { { .name = "native-routing" },
                     { .name = "clusterip" },
                     { .name = "nodeport-dsr" },
                     { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                     { .name = "host-routing" } },
        [DIRECT_LEGACY] = { { .name = "native-routing" },
                            { .name = "clusterip" },
                            { .name = "nodeport-dsr" },
                            { .name = "bpf-masq",
                              .assignments = masq_options,
                              .n_assignments = 3 } },
        [WRAPPED] = { { .name = "native-routing" },
                      { .name = "clusterip" },
                      { .name = "nodeport-dsr", .assignments = ipip_options, .n_assignments = 1 },
                      { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                      { .name = "host-routing" } },
        [WRAPPED_LEGACY] = { { .name = "native-routing" },
                             { .name = "clusterip" },
                             { .name = "nodeport-dsr",
                               .assignments = ipip_options,
                               .n_assignments = 1 },
                             { .name = "bpf-masq",
                               .assignments = masq_options,
                               .n_assignments = 3 } },
        [DIVIDED] = { { .name = "native-routing" },
                      { .name = "clusterip" },
                      { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                      { .name = "nodeport-dsr" },
                      { .name = "hybrid" },
                      { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                      { .name = "host-routing" } },
        [FULL] = { { .name = "native-routing" },
                   { .name = "clusterip" },
                   { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                   { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                   { .name = "host-routing" } },
        [LEGACY] = { { .name = "native-routing" },
                     { .name = "clusterip" },
                     { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                     { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 } },
        [VXLAN] = { { .name = "vxlan", .assignments = tunnel_options, .n_assignments = 1 },
                    { .name = "clusterip" },
                    { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                    { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                    { .name = "host-routing" } },
        [GENEVE] = { { .name = "geneve", .assignments = tunnel_options, .n_assignments = 1 },
                     { .name = "host-routing" } },
        [VXLAN_DEVICE] = { { .name = "vxlan", .assignments = device_options, .n_assignments = 1 },
                           { .name = "host-routing" } },
        [MODULES_2] = { MODULES_OF_2 },
        [MODULES_4] = { MODULES_OF_4 },
        [MODULES_8] = { MODULES_OF_8 },
        [MODULES_16] = { MODULES_OF_16 },
        [GUARDED] = { { .name = "native-routing" },
                      { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                      { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                      { .name = "guard" } },
        [WATCHED] = { { .name = "native-routing" },
                      { .name = "clusterip" },
                      { .name = "nodeport-snat", .assignments = snat_options, .n_assignments = 1 },
                      { .name = "bpf-masq", .assignments = masq_options, .n_assignments = 3 },
                      { .name = "host-routing" },
                      { .name = "watcher" } },
        [WATCHED_VXLAN] = { { .name = "vxlan", .assignments = tunnel_options, .n_assignments = 1 },
                            { .name = "host-routing" },
                            { .name = "watcher" } },
        [SMALL] = { { .name = "native-routing" },
                    { .name = "nodeport-snat", .assignments = small_options, .n_assignments = 1 },
                    { .name = "bpf-masq", .assignments = small_masq_options, .n_assignments = 2 },
                    { .name = "host-routing" } },
};

#define LOG_TAIL 4000 /* bytes of what the verifier said */

static bool said(struct weft_error *e, const char *what)
{
        _cleanup_free_ char *log = object_take_refusal();
        size_t n = log ? strlen(log) : 0;

        fprintf(stderr, "world: %s: %s\n", what, e->text);
        if (log)
                fprintf(stderr, "%s\n", log + (n > LOG_TAIL ? n - LOG_TAIL : 0));
        return false;
}

/* What is loaded lives as long as the runner holds it: the prog array is emptied with its last
 * user-space reference. */
static struct loaded {
        struct tables *tables;
        struct module *modules[MODULES];
        struct instance *instances[MODULES];
        size_t n;
        struct generation *generation;
        bool tried, good;
} loaded[VARIANTS];

static bool load_module(struct loaded *l, const struct config_module *section)
{
        const char *directories[] = { getenv("WEFT_MODULES") ?: ".",
                                      getenv("WEFT_TEST_MODULES") ?: ".",
                                      getenv("WEFT_TEST_WATCHER") ?: ".", NULL };
        struct diagnostics diagnostics = {};
        struct weft_error error = {};
        int r;

        if (module_open(directories, section->name, &l->modules[l->n], &error) < 0)
                return said(&error, section->name);
        r = instance_new(l->modules[l->n], l->n + 1, section, &services, &diagnostics,
                         &l->instances[l->n], &error);
        l->n++;
        for (size_t i = 0; i < diagnostics.n; i++)
                fprintf(stderr, "world: %s\n", diagnostics.items[i].text);
        diagnostics_done(&diagnostics);
        if (r >= 0)
                r = instance_load(l->instances[l->n - 1], &error);
        return r < 0 ? said(&error, section->name) : true;
}

/* Whether programs may ask for the kernel's own view of a packet (from 6.2). With WEFT_NO_CAST in
 * the environment they are those of an older kernel. */
static bool kernel_can_cast(void)
{
        struct btf *btf = getenv("WEFT_NO_CAST") ? NULL : btf__load_vmlinux_btf();
        bool can = btf && btf__find_by_name_kind(btf, "bpf_cast_to_kern_ctx", BTF_KIND_FUNC) > 0;

        btf__free(btf);
        return can;
}

static bool pin_programs(enum variant v)
{
        struct generation *g = loaded[v].generation;
        char path[64];

        for (uint32_t hook = 0; hook <= WEFT_HOOKS; hook++) {
                int fd = hook < WEFT_HOOKS ? generation_hook_fd(g, hook) : generation_overlay_fd(g);

                if (fd >= 0 && bpf_obj_pin(fd, variant_program(v, hook, path)) < 0)
                        return complain(path);
        }
        return true;
}

/* Of the machine, once for all variants. */
static struct {
        struct blob engine;
        bool can_cast, can_decap;
} given;

static bool look_around(void)
{
        given.can_cast = kernel_can_cast();
        given.can_decap = !getenv("WEFT_NO_CAST") && probe_has(WEFT_NEED_FEATURE, "decap-protocol");
        return object_read("WEFT_ENGINE", &given.engine) == 0;
}

static bool build(enum variant v)
{
        struct generation_settings settings = {
                .number = v + 1,
                .hz = machine_hz(),
                .mark_mask = 0x0100,
                .can_cast = given.can_cast,
                .can_decap = given.can_decap,
                .count_lookups = !getenv("WEFT_BENCH"),
                .host_ports_low = 32768,
                .engine = given.engine.data,
                .host_ports_high = v == SMALL ? SNAT_LOW + SMALL_PORTS - 1 : SNAT_LOW - 1,
                .engine_size = given.engine.size,
        };
        struct loaded *l = &loaded[v];
        struct weft_error error = {};

        if (generation_build(l->tables, &settings, l->instances, l->n, &l->generation, &error) < 0)
                return said(&error, "generation");
        for (size_t i = 0; i < l->n; i++)
                if (instance_attach(l->instances[i], &error) < 0)
                        return said(&error, l->modules[i]->desc.name);
        return pin_programs(v);
}

static bool make_variant(enum variant v)
{
        struct weft_error error = {};
        char path[64];

        if (mkdir(variant_directory(v, path), 0700) < 0 && errno != EEXIST)
                return complain(path);
        if (variant_tables(v, &loaded[v].tables, &error) < 0)
                return said(&error, "tables");
        for (size_t i = 0; i < MODULES && sections[v][i].name; i++)
                if (!load_module(&loaded[v], &sections[v][i]))
                        return false;
        return build(v);
}

bool variant_load(enum variant v)
{
        struct loaded *l = &loaded[v];

        if (!l->tried)
                l->good = make_variant(v);
        l->tried = true;
        return l->good;
}

bool world_prepare(uint32_t variants)
{
        if (!make_namespaces() || !make_network() || !look_around())
                return false;
        for (enum variant v = 0; v < VARIANTS; v++)
                if (variants & 1u << v && !variant_load(v))
                        return false;
        return true;
}

void world_finish(void)
{
        for (enum variant v = 0; v < VARIANTS; v++) {
                struct loaded *l = &loaded[v];

                l->generation = generation_free(l->generation);
                for (size_t i = l->n; i-- > 0;)
                        l->instances[i] = instance_free(l->instances[i]);
                for (size_t i = l->n; i-- > 0;)
                        l->modules[i] = module_close(l->modules[i]);
                l->tables = tables_close(l->tables);
        }
        blob_done(&given.engine);
}
