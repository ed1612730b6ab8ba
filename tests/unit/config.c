/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#include "config/config.h"
#include "config/values.h"
#include "util.h"

#define MAIN "etc/weft/weft.conf"

/* An installation in a directory of its own, and what config_load() made of it. */
struct site {
        char root[64];
        struct config *config;
        struct diagnostics diagnostics;
};

static struct site site_new(void)
{
        struct site s = { .root = "/tmp/weft-test-config-XXXXXX" };

        cr_assert_not_null(mkdtemp(s.root));
        return s;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        (void) st;
        (void) flag;
        (void) ftw;
        return remove(path);
}

static void site_done(struct site *s)
{
        config_free(s->config);
        diagnostics_done(&s->diagnostics);
        (void) nftw(s->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ROOT/NAME with every directory above it. */
static void make_path(const struct site *s, const char *name, char *ret, size_t size)
{
        (void) snprintf(ret, size, "%s/%s", s->root, name);
        for (char *slash = ret + strlen(s->root) + 1; (slash = strchr(slash, '/'));
             *slash++ = '/') {
                *slash = '\0';
                (void) mkdir(ret, 0755);
        }
}

static void put(const struct site *s, const char *name, const char *text)
{
        char path[256];
        FILE *f;

        make_path(s, name, path, sizeof(path));
        f = fopen(path, "we");
        cr_assert_not_null(f, "%s", path);
        cr_assert_geq(fputs(text, f), 0);
        cr_assert_eq(fclose(f), 0);
}

static void put_link(const struct site *s, const char *name, const char *target)
{
        char path[256];

        make_path(s, name, path, sizeof(path));
        cr_assert_eq(symlink(target, path), 0);
}

static int load(struct site *s)
{
        s->config = config_free(s->config);
        diagnostics_done(&s->diagnostics);
        return config_load(s->root, &s->config, &s->diagnostics);
}

static void load_well(struct site *s)
{
        int r = load(s);

        cr_assert_eq(r, 0, "%d: %s", r, s->diagnostics.n ? s->diagnostics.items[0].text : "");
}

static const char *text_of(const struct weft_addr *a)
{
        static char text[ADDRESS_TEXT];

        return address_format(a, text, sizeof(text));
}

/* ---- what is read ------------------------------------------------------------------------- */

Test(config, without_any_file_everything_has_its_default)
{
        struct site s = site_new();
        char host[256] = "";

        load_well(&s);
        (void) gethostname(host, sizeof(host) - 1);
        cr_expect_eq(s.config->mode, MODE_PROBE);
        cr_expect_eq(s.config->xdp, XDP_AUTO);
        cr_expect_eq(s.config->attach, ATTACH_AUTO);
        cr_expect_eq(s.config->flow_table_size, 0);
        cr_expect_eq(s.config->mark_mask, 0x100);
        cr_expect_str_eq(s.config->metrics_listen, "127.0.0.1:9964");
        cr_expect_str_eq(s.config->node.name, host);
        cr_expect_eq(s.config->n_services + s.config->n_peers + s.config->n_endpoints, 0);
        site_done(&s);
}

static const char every_section[] =
        "[weft]\nmode = strict\nxdp = off\nflow-table-size = 64K\nmark-mask = 0x0200\n"
        "metrics-listen =\ndebug-attach = clsact\n"
        "[node]\nname = n1\naddress = 192.0.2.11, 2001:db8::11\npod-cidr = 10.244.1.0/24\n"
        "uplink = eth0, eth1\nuplink = eth2\n"
        "[peer n2]\naddress = 192.0.2.12\npod-cidr = 10.244.2.0/24, fd00:2::/64\n"
        "[endpoint web-1]\nnetns = /run/netns/web-1\naddress = 10.244.1.10\n"
        "identity = 1001\n"
        "[endpoint web-2]\npid = 4711\naddress = 10.244.1.11\ndevice = net1\n"
        "[service web]\nport = 80/tcp\ncluster-ip = 10.96.0.10\nnode-port = 30080\n"
        "external-ip = 198.51.100.7\nload-balancer-ip = 203.0.113.10\n"
        "backend = 10.244.1.10:8080 weight=2 state=draining node=n1, [fd00:2::10]:8080\n"
        "no-backend = drop\n"
        "[module nodeport-snat]\n[module bpf-masq]\nipv6 = yes\nenabled = no\n";

Test(config, every_section_is_read)
{
        struct site s = site_new();
        const struct config *c;

        put(&s, MAIN, every_section);
        load_well(&s);
        c = s.config;
        cr_expect_eq(c->mode, MODE_STRICT);
        cr_expect_eq(c->xdp, XDP_OFF);
        cr_expect_eq(c->flow_table_size, 65536);
        cr_expect_eq(c->mark_mask, 0x200);
        cr_expect_str_eq(c->metrics_listen, "");
        cr_expect_eq(c->attach, ATTACH_CLSACT);

        cr_expect_str_eq(c->node.name, "n1");
        cr_expect_eq(c->node.address.n, 2);
        cr_assert_eq(c->node.uplink.n, 3);
        cr_expect_str_eq(c->node.uplink.items[2], "eth2");
        cr_assert_eq(c->n_peers, 1);
        cr_expect_eq(c->peers[0].pod_cidr.n, 2);
        cr_expect_eq(c->peers[0].identity, 6);
        cr_expect_eq(c->peers[0].origin.line, 14);

        cr_assert_eq(c->n_endpoints, 2);
        cr_expect_str_eq(c->endpoints[0].netns, "/run/netns/web-1");
        cr_expect_str_eq(c->endpoints[0].device, "eth0");
        cr_expect_eq(c->endpoints[0].identity, 1001);
        cr_expect_eq(c->endpoints[1].pid, 4711);
        cr_expect_str_eq(c->endpoints[1].device, "net1");

        cr_assert_eq(c->n_services, 1);
        cr_expect_eq(c->services[0].port, 80);
        cr_expect_eq(c->services[0].proto, IPPROTO_TCP);
        cr_expect_eq(c->services[0].node_port, 30080);
        cr_expect_eq(c->services[0].no_backend, NO_BACKEND_DROP);
        cr_expect_str_eq(text_of(&c->services[0].cluster_ip.items[0]), "10.96.0.10");
        cr_assert_eq(c->services[0].n_backends, 2);
        cr_expect_eq(c->services[0].backends[0].weight, 2);
        cr_expect_eq(c->services[0].backends[0].state, BACKEND_DRAINING);
        cr_expect_str_eq(c->services[0].backends[0].node, "n1");
        cr_expect_str_eq(text_of(&c->services[0].backends[1].addr), "fd00:2::10");
        cr_expect_eq(c->services[0].backends[1].weight, 1);
        cr_expect_null(c->services[0].backends[1].node);

        cr_assert_eq(c->n_modules, 2);
        cr_expect_str_eq(c->modules[0].name, "nodeport-snat");
        cr_expect(c->modules[0].enabled);
        cr_expect_not(c->modules[1].enabled);
        cr_assert_eq(c->modules[1].n_assignments, 1);
        cr_expect_str_eq(c->modules[1].assignments[0].value, "yes");
        cr_expect_eq(c->modules[1].assignments[0].origin.line, 35);
        site_done(&s);
}

Test(config, keys_of_later_versions_are_taken_with_the_value_they_have_anyway)
{
        struct site s = site_new();

        put(&s, MAIN,
            "[weft]\nunderlay = auto\nmetrics-listen = 127.0.0.1:9964\n"
            "[peer n2]\naddress = 192.0.2.12\nrouting = auto\n"
            "[service web]\nport = 80/tcp\nnode-port = 30080\nalgorithm = random\n"
            "affinity = 0\nforwarding = snat\nexternal-traffic = cluster\n"
            "internal-traffic = cluster\nsource-range =\nhealth-check-node-port =\n");
        load_well(&s);
        site_done(&s);
}

Test(config, sections_of_one_name_are_one_object)
{
        struct site s = site_new();

        put(&s, MAIN,
            "[service web]\nport = 80/tcp\n[service dns]\nport = 53/udp\nnode-port = 30053\n"
            "[service web]\nnode-port = 30080\n");
        load_well(&s);
        cr_assert_eq(s.config->n_services, 2);
        cr_expect_eq(s.config->services[0].node_port, 30080);
        cr_expect_eq(s.config->services[0].origin.line, 1);
        site_done(&s);
}

Test(config, the_place_of_a_node_port_is_where_it_was_written_last)
{
        struct site s = site_new();

        put(&s, MAIN,
            "[service web]\nport = 80/tcp\nnode-port = 30080\n[service dns]\nport = 53/udp\n"
            "external-ip = 198.51.100.7\n[service web]\n\nnode-port = 30081\n");
        load_well(&s);
        cr_expect_eq(s.config->services[0].node_port_origin.line, 9);
        cr_expect(strstr(s.config->services[0].node_port_origin.file, MAIN));
        cr_expect_null(s.config->services[1].node_port_origin.file);
        site_done(&s);
}

Test(config, an_empty_assignment_resets_what_it_names)
{
        struct site s = site_new();

        put(&s, MAIN,
            "[node]\nuplink = eth0\naddress = 192.0.2.11\nname = n1\n"
            "[endpoint e]\nnetns = /run/netns/e\naddress = 10.0.0.1\ndevice = net1\n"
            "[service web]\nport = 80/tcp\nnode-port = 30080\nbackend = 10.0.0.1:80\n");
        put(&s, "etc/weft/conf.d/10.conf",
            "[node]\nuplink =\naddress =\nname =\n"
            "[endpoint e]\nnetns =\npid = 7\ndevice =\n"
            "[service web]\nnode-port =\nexternal-ip = 198.51.100.7\nbackend =\n"
            "backend = 10.0.0.2:80\n");
        load_well(&s);
        cr_expect_eq(s.config->node.uplink.n, 0);
        cr_expect_eq(s.config->node.address.n, 0);
        cr_expect_str_neq(s.config->node.name, "n1");
        cr_expect_null(s.config->endpoints[0].netns);
        cr_expect_str_eq(s.config->endpoints[0].device, "eth0");
        cr_expect_eq(s.config->services[0].node_port, 0);
        cr_assert_eq(s.config->services[0].n_backends, 1);
        cr_expect_str_eq(text_of(&s.config->services[0].backends[0].addr), "10.0.0.2");
        site_done(&s);
}

Test(config, thousands_of_services_are_read)
{
        struct site s = site_new();
        char path[256];
        FILE *f;

        make_path(&s, MAIN, path, sizeof(path));
        f = fopen(path, "we");
        cr_assert_not_null(f);
        for (int i = 0; i < 10000; i++)
                (void) fprintf(f,
                               "[service s%d]\nport = 80/tcp\nexternal-ip = 198.18.%d.%d\n"
                               "backend = 10.0.0.1:80, 10.0.0.2:80\n",
                               i, i / 250, i % 250 + 1);
        cr_assert_eq(fclose(f), 0);
        load_well(&s);
        cr_assert_eq(s.config->n_services, 10000);
        cr_expect_str_eq(s.config->services[9999].name, "s9999");
        site_done(&s);
}

/* ---- files -------------------------------------------------------------------------------- */

Test(config, drop_ins_are_read_in_the_order_of_their_names_whatever_their_directory)
{
        struct site s = site_new();

        put(&s, "etc/weft/conf.d/10-a.conf", "[node]\nuplink = from-etc\n");
        put(&s, "run/weft/conf.d/20-b.conf", "[node]\nuplink = from-run\n");
        put(&s, "usr/lib/weft/conf.d/15-c.conf", "[node]\nuplink = from-usr\n");
        put(&s, MAIN, "[node]\nuplink = main\n");
        load_well(&s);
        cr_assert_eq(s.config->node.uplink.n, 4);
        cr_expect_str_eq(s.config->node.uplink.items[0], "main");
        cr_expect_str_eq(s.config->node.uplink.items[1], "from-etc");
        cr_expect_str_eq(s.config->node.uplink.items[2], "from-usr");
        cr_expect_str_eq(s.config->node.uplink.items[3], "from-run");
        cr_expect_eq(s.config->files.n, 4);
        site_done(&s);
}

Test(config, of_files_with_one_name_etc_goes_before_run_and_run_before_usr)
{
        static const char *const dirs[] = { "usr/lib/weft", "run/weft", "etc/weft" };
        static const char *const modes[] = { "strict", "partial", "probe" };
        static const uint32_t expected[] = { MODE_STRICT, MODE_PARTIAL, MODE_PROBE };
        struct site s = site_new();
        char path[64], text[64];

        for (size_t i = 0; i < ELEMENTS(dirs); i++) {
                (void) snprintf(path, sizeof(path), "%s/conf.d/10.conf", dirs[i]);
                (void) snprintf(text, sizeof(text), "[weft]\nmode = %s\n", modes[i]);
                put(&s, path, text);
                load_well(&s);
                cr_expect_eq(s.config->mode, expected[i], "%s", dirs[i]);
                cr_expect_eq(s.config->files.n, 1);
        }
        site_done(&s);
}

Test(config, a_link_to_dev_null_masks_the_file_of_its_name)
{
        struct site s = site_new();

        put(&s, "usr/lib/weft/conf.d/10.conf", "[module vxlan]\n");
        put(&s, "run/weft/conf.d/20.conf", "[module geneve]\n");
        put_link(&s, "etc/weft/conf.d/10.conf", "/dev/null");
        load_well(&s);
        cr_assert_eq(s.config->n_modules, 1);
        cr_expect_str_eq(s.config->modules[0].name, "geneve");
        site_done(&s);
}

Test(config, a_mask_below_a_file_of_its_name_masks_nothing)
{
        struct site s = site_new();

        put(&s, "etc/weft/conf.d/10.conf", "[module vxlan]\n");
        put_link(&s, "run/weft/conf.d/10.conf", "/dev/null");
        load_well(&s);
        cr_expect_eq(s.config->n_modules, 1);
        site_done(&s);
}

Test(config, only_visible_files_that_end_in_conf_are_read)
{
        struct site s = site_new();

        put(&s, "etc/weft/conf.d/10.conf.sample", "nonsense\n");
        put(&s, "etc/weft/conf.d/.20.conf", "nonsense\n");
        put(&s, "etc/weft/conf.d/conf", "nonsense\n");
        load_well(&s);
        cr_expect_eq(s.config->files.n, 0);
        site_done(&s);
}

Test(config, a_later_file_switches_a_module_off)
{
        struct site s = site_new();

        put(&s, "usr/lib/weft/conf.d/20-vxlan.conf", "[module vxlan]\nport = 8472\n");
        put(&s, "etc/weft/conf.d/90-local.conf", "[module vxlan]\nenabled = no\n");
        load_well(&s);
        cr_assert_eq(s.config->n_modules, 1);
        cr_expect_not(s.config->modules[0].enabled);
        site_done(&s);
}

Test(config, a_file_that_cannot_be_read_is_named_beside_the_errors_of_the_others)
{
        struct site s = site_new();
        char path[256];

        put_link(&s, "etc/weft/conf.d/10.conf", "nowhere");
        make_path(&s, "etc/weft/conf.d/20.conf/x", path, sizeof(path));
        put(&s, "etc/weft/conf.d/30.conf", "nonsense\n");
        cr_expect_eq(load(&s), -ENOENT);
        cr_expect_null(s.config);
        cr_assert_eq(s.diagnostics.n, 3);
        cr_expect(strstr(s.diagnostics.items[0].origin.file, "10.conf"));
        cr_expect(strstr(s.diagnostics.items[1].text, "directory"));
        cr_expect(strstr(s.diagnostics.items[2].origin.file, "30.conf"));
        site_done(&s);
}

/* ---- what is refused ---------------------------------------------------------------------- */

struct refusal {
        const char *text;
        unsigned line;
        const char *says;
};

static void expect_refusals(const struct refusal *rows, size_t n)
{
        struct site s = site_new();

        for (size_t i = 0; i < n; i++) {
                const struct diagnostic *d;

                put(&s, MAIN, rows[i].text);
                cr_expect_eq(load(&s), -EINVAL, "%s", rows[i].text);
                cr_assert_eq(s.diagnostics.n, 1, "%zu for %s: %s; %s", s.diagnostics.n,
                             rows[i].text, s.diagnostics.n > 0 ? s.diagnostics.items[0].text : "",
                             s.diagnostics.n > 1 ? s.diagnostics.items[1].text : "");
                d = &s.diagnostics.items[0];
                cr_expect_eq(d->origin.line, rows[i].line, "line %u for %s", d->origin.line,
                             rows[i].text);
                cr_expect(strstr(d->text, rows[i].says), "\"%s\" for %s", d->text, rows[i].text);
                cr_expect(strstr(d->origin.file, "/etc/weft/weft.conf"));
        }
        site_done(&s);
}

Test(config, sections_that_are_none_are_refused)
{
        static const struct refusal rows[] = {
                { "[wefd]\nmode = probe\n", 1, "[wefd]: unknown section, did you mean \"weft\"?" },
                { "[serivce web]\nport = 80/tcp\n", 1, "did you mean \"service\"?" },
                { "[NODE]\n", 1, "[NODE]: unknown section, did you mean \"node\"?" },
                { "[quagga]\n", 1,
                  "[quagga]: unknown section; known: weft, node, peer, endpoint, service, module" },
                { "[]\n", 1, "unknown section" },
                { "[weft main]\n", 1, "has no name: write [weft]" },
                { "[service]\nport = 80/tcp\n", 1, "must follow: write [service NAME]" },
                { "[service a b]\n", 1, "letters, digits" },
                { "[service ../x]\n", 1, "letters, digits" },
                { "[module VXLAN]\n", 1, "lower-case letters" },
                { "[module a.b]\n", 1, "lower-case letters" },
        };

        expect_refusals(rows, ELEMENTS(rows));
}

#define SERVICE "[service s]\nport = 80/tcp\nnode-port = 30080\n"
#define ENDPOINT "[endpoint e]\nnetns = /run/netns/e\naddress = 10.0.0.1\n"
#define PEER "[peer p]\naddress = 192.0.2.12\n"

Test(config, keys_and_values_that_are_wrong_are_refused_with_what_would_be_right)
{
        static const struct refusal rows[] = {
                { "[weft]\nmdoe = probe\n", 2,
                  "[weft] mdoe = probe: unknown key, did you mean \"mode\"?" },
                { "[node]\ngateway = 10.0.0.1\n", 2,
                  "unknown key; known: name, address, pod-cidr, uplink" },
                { "[weft]\nmode = lenient\n", 2, "must be one of probe, strict, partial" },
                { "[weft]\nmode = STRICT\n", 2, "did you mean \"strict\"?" },
                { "[weft]\nxdp = on\n", 2, "one of auto, off, best-effort, native" },
                { "[weft]\nflow-table-size = big\n", 2, "must be auto or a number" },
                { "[weft]\nflow-table-size = 12\n", 2, "from 1K to 256M" },
                { "[weft]\nmark-mask = 0\n", 2, "must be from 1 to 4294967295" },
                { "[weft]\ndebug-attach = xdp\n", 2, "one of auto, tcx, clsact" },
                { "[node]\naddress = 192.0.2\n", 2, "\"192.0.2\" is no address" },
                { "[node]\npod-cidr = 10.244.1.1/24\n", 2, "write 10.244.1.0/24" },
                { "[node]\nuplink = eth0,a-name-too-long-for-linux\n", 2,
                  "no name of an interface" },
                { "[node]\nuplink = eth0/1\n", 2, "no name of an interface" },
                { PEER "identity = 2\n", 3, "must be from 3 to 16777215" },
                { ENDPOINT "identity = 16777216\n", 4, "must be from 0 to 16777215" },
                { ENDPOINT "device = ..\n", 4, "no name of an interface" },
                { "[endpoint e]\naddress = 10.0.0.1\nnetns = web-1\n", 3, "whole path" },
                { "[endpoint e]\naddress = 10.0.0.1\npid = 0\n", 3, "must be from 1" },
                { "[service s]\nnode-port = 30080\nport = 80\n", 3, "such as 80/tcp" },
                { "[service s]\nport = 80/tcp\nnode-port = 70000\n", 3, "must be from 1 to 65535" },
                { SERVICE "backend = 10.0.0.1\n", 4, "\"10.0.0.1\" is no backend" },
                { SERVICE "backend = fd00::1:80\n", 4, "[fd00::1]:8080" },
                { SERVICE "backend = 10.0.0.1:80,\n", 4, "between two commas" },
                { SERVICE "backend = 224.0.0.1:80\n", 4, "no address that other hosts reach" },
                { SERVICE "external-ip = 127.0.0.1\n", 4, "no address that other hosts reach" },
                { SERVICE "backend = 10.0.0.1:80 weigth=2\n", 4, "did you mean \"weight\"?" },
                { SERVICE "backend = 10.0.0.1:80 weight=1001\n", 4,
                  "weight=1001: must be from 0 to 1000" },
                { SERVICE "maglev-table-size = 1000\n", 4, "must be one of" },
                { SERVICE "affinity = 10\n", 4, "must be a time with its unit" },
                { SERVICE "source-range = 10.0.0.1/8\n", 4, "10.0.0.0/8" },
                { SERVICE "backend = 10.0.0.1:80 state=up\n", 4,
                  "one of active, draining, maintenance" },
                { SERVICE "backend = 10.0.0.1:80 fast\n", 4, "\"fast\" is no option of a backend" },
                { SERVICE "backend = 10.0.0.1:80 node=\n", 4, "\"node=\" is no option" },
                { SERVICE "no-backend = ignore\n", 4, "one of reject, drop" },
                { SERVICE "algorithm = rnadom\n", 4, "did you mean \"random\"?" },
                { "[module vxlan]\nenabled = maybe\n", 2, "must be yes or no" },
                { "[weft]\nmetrics-listen = 9964\n", 2, "an address and a port" },
                { "[weft]\nmetrics-listen = ::1:9964\n", 2, "[::1]:9964" },
        };

        expect_refusals(rows, ELEMENTS(rows));
}

Test(config, names_and_prefixes_that_no_node_can_have_are_refused)
{
        static const struct refusal rows[] = {
                { "[node]\nname = \"n1\"\n", 2, "[node] name = \"n1\": is no name of a node" },
                { "[node]\nname = n 1\n", 2, "is no name of a node" },
                { "[node]\nname = n\x01\n", 2, "is no name of a node" },
                { "[node]\nname = -n1\n", 2, "beginning with a letter or digit" },
                { "[node]\nname = kn\xc3\xb6terich\n", 2, "is no name of a node" },
                { SERVICE "backend = 10.0.0.1:80 node='n1'\n", 4,
                  "node='n1': is no name of a node" },
                { "[node]\nuplink = eth0, eth0\n", 2, "uplink = eth0, eth0: eth0 is given twice" },
                { "[node]\nuplink = eth0\nuplink = eth1, eth2, eth1\n", 3, "eth1 is given twice" },
                { "[node]\npod-cidr = 0.0.0.0/0\n", 2,
                  "[node] pod-cidr = 0.0.0.0/0: \"0.0.0.0/0\" overlaps 0.0.0.0/8" },
                { "[node]\npod-cidr = 0.1.0.0/16\n", 2, "overlaps 0.0.0.0/8" },
                { "[node]\npod-cidr = 10.1.0.0/24, 127.0.0.0/8\n", 2, "(loopback)" },
                { "[node]\npod-cidr = 127.1.0.0/16\n", 2, "such as 10.244.1.0/24 or fd00:1::/64" },
                { "[node]\npod-cidr = 169.254.1.0/24\n", 2, "(link-local)" },
                { "[node]\npod-cidr = 224.0.0.0/4\n", 2, "(multicast)" },
                { "[node]\npod-cidr = 128.0.0.0/1\n", 2, "overlaps 169.254.0.0/16" },
                { "[node]\npod-cidr = ::/0\n", 2, "would cover IPv4 as well" },
                { "[node]\npod-cidr = ::1/128\n", 2, "(no address and loopback)" },
                { "[node]\npod-cidr = fe80::/10\n", 2, "(link-local)" },
                { "[node]\npod-cidr = fe80:1::/64\n", 2, "(link-local)" },
                { PEER "pod-cidr = ff00::/8\n", 3, "[peer p] pod-cidr = ff00::/8: " },
                { PEER "pod-cidr = 127.0.0.0/24\n", 3, "(loopback)" },
        };

        expect_refusals(rows, ELEMENTS(rows));
}

Test(config, objects_that_lack_something_are_refused_where_they_begin)
{
        static const struct refusal rows[] = {
                { "\n[peer p]\npod-cidr = 10.0.0.0/24\n", 2, "[peer p] has no address" },
                { "[endpoint e]\naddress = 10.0.0.1\n", 1,
                  "exactly one of netns, pid and interface" },
                { ENDPOINT "pid = 1\n", 1, "exactly one of netns, pid and interface" },
                { ENDPOINT "interface = veth0\n", 1, "exactly one of netns, pid and interface" },
                { "[endpoint e]\ninterface = veth0\n", 1, "add address = ADDRESS" },
                { ENDPOINT "identity = 6\n", 4, "identity = 6: is reserved" },
                { "[service s]\nnode-port = 30080\n", 1, "has no port" },
                { "[service s]\nport = 80/tcp\n", 1, "cannot be reached" },
        };

        expect_refusals(rows, ELEMENTS(rows));
}

Test(config, two_objects_that_want_the_same_are_refused_at_the_later_one_or_the_service)
{
        static const struct refusal rows[] = {
                { "[node]\naddress = 192.0.2.12\n" PEER, 4,
                  "[peer p] address = 192.0.2.12: is taken by [node] in" },
                { "[node]\npod-cidr = 10.0.0.0/24\n" ENDPOINT, 5,
                  "[endpoint e] address = 10.0.0.1: is taken by [node]" },
                { ENDPOINT "[endpoint f]\npid = 1\naddress = 10.0.0.1\n", 6,
                  "[endpoint f] address = 10.0.0.1: is taken by [endpoint e]" },
                { ENDPOINT "address = 10.0.0.1\n", 4, "taken by [endpoint e]" },
                { SERVICE "[service t]\nport = 81/tcp\nnode-port = 30080\n", 6,
                  "[service t] node-port = 30080: is taken by [service s]" },
                { SERVICE "[service t]\nport = 81/tcp\nexternal-ip = 198.51.100.7\n"
                          "health-check-node-port = 30080\n",
                  7, "[service t] health-check-node-port = 30080: is taken by [service s]" },
                { SERVICE "external-ip = 198.51.100.7\n"
                          "[service t]\nport = 80/tcp\nload-balancer-ip = 198.51.100.7\n",
                  7,
                  "[service t] load-balancer-ip = 198.51.100.7: port 80 of it is taken by "
                  "[service s]" },
                { ENDPOINT "[service t]\nport = 80/tcp\nexternal-ip = 10.0.0.1\n", 6,
                  "[service t] external-ip = 10.0.0.1: port 80 of it is taken by [endpoint e]" },
                { "[service t]\nport = 80/tcp\nexternal-ip = 10.0.0.1\n" ENDPOINT, 3,
                  "[service t] external-ip = 10.0.0.1: port 80 of it is taken by [endpoint e]" },
                { "[node]\npod-cidr = 10.244.0.0/16\n" PEER "pod-cidr = 10.244.2.0/24\n", 5,
                  "[peer p] pod-cidr = 10.244.2.0/24 overlaps 10.244.0.0/16 of [node]" },
                { "[node]\npod-cidr = 10.1.0.0/31\n", 2,
                  "[node] pod-cidr = 10.1.0.0/31: has no room" },
                { PEER "pod-cidr = 10.244.2.0/24\n[peer q]\naddress = 192.0.2.13\n"
                       "pod-cidr = 10.244.2.0/24\n",
                  6, "give each node its own" },
                { PEER "pod-cidr = 10.244.2.0/24\n[peer q]\naddress = 192.0.2.13\n"
                       "pod-cidr = fd00::/64, 10.244.2.128/25\n",
                  6, "[peer q] pod-cidr = 10.244.2.128/25 overlaps 10.244.2.0/24 of [peer p]" },
                { PEER "pod-cidr = 10.244.2.0/24, 10.244.2.0/25\n", 3, "take one of them away" },
                { "[node]\npod-cidr = 10.244.1.0/24\npod-cidr = 10.244.1.0/24\n", 3,
                  "of [node] in" },
                { ENDPOINT PEER "pod-cidr = 10.0.0.0/30\n", 3,
                  "[endpoint e] address = 10.0.0.1: is in pod-cidr 10.0.0.0/30 of [peer p] in" },
                { "[node]\nname = p\n" PEER, 3, "has the name of this node" },
                { "[node]\naddress = 192.0.2.1\naddress = 192.0.2.2\n", 3,
                  "several addresses of one family" },
                { PEER "address = 192.0.2.13\n", 3, "several addresses of one family" },
                { ENDPOINT "[endpoint f]\nnetns = /run/netns/e\naddress = 10.0.0.2\n", 5,
                  "same netns and device as [endpoint e]" },
                { SERVICE "backend = 10.0.0.1:80\nbackend = 10.0.0.1:80 weight=2\n", 5,
                  "backend 10.0.0.1 port 80 is given twice" },
        };

        expect_refusals(rows, ELEMENTS(rows));
}

Test(config, what_only_looks_alike_is_accepted)
{
        static const char *const texts[] = {
                SERVICE "[service t]\nport = 80/udp\nnode-port = 30080\n",
                SERVICE "external-ip = 198.51.100.7\n"
                        "[service t]\nport = 81/tcp\nexternal-ip = 198.51.100.7\n",
                ENDPOINT "[endpoint f]\nnetns = /run/netns/e\naddress = 10.0.0.2\ndevice = eth1\n",
                SERVICE "backend = 10.0.0.1:80, 10.0.0.1:81, [fd00::1]:80\n",
                "[node]\nname = n1\npod-cidr = 10.244.1.0/24\n" PEER "pod-cidr = 10.244.2.0/24\n",
                "[node]\naddress = 192.0.2.11, 2001:db8::11\n",
                "[node]\nname = n_1.example\nuplink = eth0\nuplink =\nuplink = eth0, eth1\nuplink "
                "= eth1\n",
                "[node]\npod-cidr = 240.0.0.0/8, 100.64.0.0/10, 2000::/16, 64:ff9b:1::/64\n",
                ENDPOINT PEER "pod-cidr = 10.0.0.4/30, fd00::/64\n",
                "[peer weft]\naddress = 192.0.2.12\n[endpoint weft]\npid = 1\naddress = 10.0.0.1\n",
        };
        struct site s = site_new();

        for (size_t i = 0; i < ELEMENTS(texts); i++) {
                put(&s, MAIN, texts[i]);
                load_well(&s);
        }
        site_done(&s);
}

Test(config, all_errors_of_all_files_come_at_once_with_their_places)
{
        static const struct {
                const char *file;
                unsigned line;
        } places[] = {
                { "etc/weft/weft.conf", 2 },          { "etc/weft/weft.conf", 4 },
                { "usr/lib/weft/conf.d/10.conf", 3 }, { "etc/weft/conf.d/20.conf", 1 },
                { "etc/weft/weft.conf", 5 },
        };
        struct site s = site_new();

        put(&s, MAIN,
            "[weft]\nmode = x\n[node]\n address = 192.0.2.1\n[endpoint e]\ndevice = eth1\n");
        put(&s, "usr/lib/weft/conf.d/10.conf", "[service s]\nnode-port = 30080\nport = 80\n");
        put(&s, "etc/weft/conf.d/20.conf", "[nod]\n");
        cr_expect_eq(load(&s), -EINVAL);
        cr_assert_eq(s.diagnostics.n, ELEMENTS(places));
        for (size_t i = 0; i < ELEMENTS(places); i++) {
                cr_expect(strstr(s.diagnostics.items[i].origin.file, places[i].file), "%zu: %s", i,
                          s.diagnostics.items[i].origin.file);
                cr_expect_eq(s.diagnostics.items[i].origin.line, places[i].line, "%zu", i);
        }
        site_done(&s);
}

Test(config, a_refused_line_is_not_reported_again_as_missing)
{
        struct refusal row = { "[endpoint e]\nnetns = /run/netns/e\naddress = 10.0.0\n", 3,
                               "is no address" };

        expect_refusals(&row, 1);
}
