/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The shipped modules' own packets on the real engine, and a refusal for each way to be wrong. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/criterion.h>

#include "generation-fixture.h"
#include "generation/selftest.h"
#include "probe/probe.h"
#include "util.h"

enum { HOST_ROUTING = 1, OTHERS = 2 };

static struct tables *tables;
static struct module *modules[4];
static struct instance *instances[4];
static size_t n;
static struct dry_network network;
static struct generation_settings settings;

static int route(void *data, const struct weft_prefix *prefix, const struct weft_addr *gateway,
                 struct weft_error *reterr)
{
        (void) data, (void) prefix, (void) gateway, (void) reterr;
        return 0;
}

static void unroute(void *data, const struct weft_prefix *prefix)
{
        (void) data, (void) prefix;
}

static void no_peers(void *data, void (*f)(void *, const struct weft_peer_info *), void *f_data)
{
        (void) data, (void) f, (void) f_data;
}

static void no_prefixes(void *data, void (*f)(void *, const struct weft_prefix *), void *f_data)
{
        (void) data, (void) f, (void) f_data;
}

static void no_log(void *data, const char *module, int level, const char *text)
{
        (void) data, (void) module, (void) level, (void) text;
}

static const struct core_services services = { .route = route,
                                               .unroute = unroute,
                                               .peers = no_peers,
                                               .cluster_prefixes = no_prefixes,
                                               .log = no_log };

static void load_engine(void)
{
        _cleanup_close_ int fd = open(ENGINE, O_RDONLY | O_CLOEXEC);
        struct stat st;
        char *bytes;

        cr_assert(fd >= 0 && fstat(fd, &st) == 0, "%s is not built", ENGINE);
        bytes = malloc((size_t) st.st_size);
        cr_assert_eq(read(fd, bytes, (size_t) st.st_size), st.st_size);
        settings = (struct generation_settings) { .number = 1,
                                                  .hz = probe_hz(),
                                                  .mark_mask = 0x100,
                                                  .can_cast = probe_has(WEFT_NEED_FEATURE,
                                                                        "cast-to-kern-ctx"),
                                                  .engine = bytes,
                                                  .engine_size = (size_t) st.st_size };
}

static void add_module(const char *name, const char *key, const char *value)
{
        static const char *const directories[] = { MODULE_DIR, NULL };
        struct config_assignment one = { .key = (char *) key, .value = (char *) value };
        struct config_module section = { .name = (char *) name,
                                         .assignments = &one,
                                         .n_assignments = key ? 1 : 0 };
        struct diagnostics d = { 0 };
        struct weft_error why = { 0 };

        cr_assert_eq(module_open(directories, name, &modules[n], &why), 0, "%s", why.text);
        cr_assert_eq(instance_new(modules[n], (uint16_t) (n + 1), &section, &services, &d,
                                  &instances[n], &why),
                     0, "%s", why.text);
        cr_assert_eq(instance_load(instances[n], &why), 0, "%s", why.text);
        n++;
}

static void setup(void)
{
        enter_namespaces();
        load_engine();
}

TestSuite(selftest, .init = setup);

static struct selftest *dry;

static struct generation *start(void)
{
        struct tables_settings t = { .bpffs = BPFFS, .flow_table_size = 1024, .hz = probe_hz() };
        struct weft_error why = { 0 };
        struct generation *g;

        cr_assert_eq(tables_open(&t, settings.engine, settings.engine_size, &tables, &why), 0, "%s",
                     why.text);
        cr_assert_eq(selftest_begin(&settings, instances, n, &dry, &why), 0, "%s", why.text);
        cr_assert_eq(generation_build(tables, &settings, instances, n, &g, &why), 0, "%s",
                     why.text);
        selftest_wait(dry);
        for (size_t i = 0; i < n; i++)
                cr_assert_eq(instance_attach(instances[i], &why), 0, "%s", why.text);
        cr_assert_eq(dry_network_open(&network, &why), 0, "%s", why.text);
        return g;
}

static void expect_all(size_t expected)
{
        struct generation *g = start();
        struct weft_error why = { 0 };
        size_t run = 0;

        cr_expect_eq(selftest_run(dry, &network, &run, &why), 0, "%s", why.text);
        cr_expect_eq(run, expected, "%zu ran", run);
        for (size_t i = 0; i < n; i++)
                cr_expect(!modules[i]->desc.object || instances[i]->object,
                          "the self-test took %s its maps", modules[i]->desc.name);
        dry = selftest_free(dry);
        (void) generation_free(g);
}

Test(selftest, the_shipped_modules_pass_together)
{
        add_module("nodeport-snat", NULL, NULL);
        add_module("bpf-masq", NULL, NULL);
        add_module("host-routing", NULL, NULL);
        expect_all(8);
}

Test(selftest, on_one_cpu_the_loads_come_one_after_the_other)
{
        cpu_set_t one;

        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
        add_module("host-routing", NULL, NULL);
        expect_all(2);
}

Test(selftest, without_host_routing_the_halves_are_tested)
{
        add_module("nodeport-snat", NULL, NULL);
        add_module("bpf-masq", NULL, NULL);
        expect_all(7);
}

Test(selftest, each_module_passes_alone)
{
        add_module("host-routing", NULL, NULL);
        expect_all(2);
}

Test(selftest, what_does_not_hold_for_the_settings_is_left_out)
{
        add_module("nodeport-snat", "snat-ports", "40000-40100");
        add_module("bpf-masq", "non-masquerade-cidr", "9.0.0.0/8");
        expect_all(3);
}

Test(selftest, native_routing_is_tested_as_far_as_its_list_reaches)
{
        add_module("native-routing", "cidr", "10.244.0.0/16, fd00:244::/32");
        add_module("bpf-masq", NULL, NULL);
        expect_all(7);
}

Test(selftest, native_routing_without_a_list_is_tested_too)
{
        add_module("native-routing", NULL, NULL);
        add_module("bpf-masq", NULL, NULL);
        add_module("host-routing", NULL, NULL);
        expect_all(4);
}

/* A list that is not in the map is one that the stage does not find: as with a stage that is
 * wrong, what is native is masqueraded. */
static void expect_native_refused(const char *test)
{
        const struct {
                uint32_t prefixlen;
                struct weft_addr addr;
        } key = { 96 + 16, { { 0, 0, htonl(0xffff), htonl(0x0af40000) } } };
        struct generation *g = start();
        struct weft_error why = { 0 };

        cr_assert_eq(bpf_map_delete_elem(
                             bpf_object__find_map_fd_by_name(instances[0]->object, "native_cidrs"),
                             &key),
                     0);
        cr_expect_eq(selftest_run(dry, &network, NULL, &why), -EBADMSG);
        cr_expect(strstr(why.text, test) == why.text, "%s", why.text);
        dry = selftest_free(dry);
        (void) generation_free(g);
}

Test(selftest, native_routing_that_lets_native_packets_be_masqueraded_is_refused)
{
        add_module("native-routing", "cidr", "10.244.0.0/16");
        add_module("bpf-masq", NULL, NULL);
        add_module("host-routing", NULL, NULL);
        expect_native_refused("module native-routing, self-test \"what is native keeps the "
                              "endpoint's address\": byte 24 came out");
}

Test(selftest, native_routing_is_refused_for_it_without_host_routing_too)
{
        add_module("native-routing", "cidr", "10.244.0.0/16");
        add_module("bpf-masq", NULL, NULL);
        expect_native_refused("module native-routing, self-test \"and leaves it with the "
                              "endpoint's address\": byte 24 came out");
}

static struct weft_test tests[2];

static void expect_refused(int r, const char *text)
{
        struct generation *g;
        struct weft_error why = { 0 };

        g = start();
        modules[0]->desc.tests = tests;
        cr_expect_eq(selftest_run(dry, &network, NULL, &why), r, "%s", why.text);
        cr_expect_str_eq(why.text, text);
        dry = selftest_free(dry);
        (void) generation_free(g);
}

Test(selftest, another_verdict_is_named)
{
        add_module("host-routing", NULL, NULL);
        tests[0] = modules[0]->desc.tests[0];
        tests[0].verdict = WEFT_TEST_DROP;
        expect_refused(-EBADMSG, "module host-routing, self-test \"a packet for an endpoint goes "
                                 "straight into it\": "
                                 "the verdict is redirect (7), and not drop");
}

Test(selftest, another_byte_is_named)
{
        static uint8_t other[256];

        add_module("host-routing", NULL, NULL);
        tests[0] = modules[0]->desc.tests[0];
        memcpy(other, tests[0].expected.data, tests[0].expected.size);
        other[22]++; /* TTL */
        tests[0].expected.data = other;
        expect_refused(-EBADMSG, "module host-routing, self-test \"a packet for an endpoint goes "
                                 "straight into it\": "
                                 "byte 22 came out as 0x3f, and not as 0x40");
}

Test(selftest, another_length_is_named)
{
        add_module("host-routing", NULL, NULL);
        tests[0] = modules[0]->desc.tests[0];
        tests[0].expected.size--;
        expect_refused(-EBADMSG, "module host-routing, self-test \"a packet for an endpoint goes "
                                 "straight into it\": "
                                 "54 bytes came out, and not 53");
}
