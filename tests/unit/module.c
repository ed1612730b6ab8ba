/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "module/api.h"
#include "module/module.h"
#include "util.h"

/* ---- descriptors -------------------------------------------------------------------------- */

static void stray_unload(struct weft_instance *self, const struct weft_api *api)
{
        (void) self;
        (void) api;
        abort();
}

Test(adopt, an_older_module_reads_as_zero_where_it_was_silent)
{
        struct weft_module m, old = {
                .size = offsetof(struct weft_module, unload),
                .abi = WEFT_ABI,
                .name = "old",
                .summary = "s",
                .unload = stray_unload, /* beyond its size: must not be seen */
        };

        cr_assert_eq(module_adopt(&old, &m, NULL), 0);
        cr_assert_null(m.unload);
        cr_assert_eq(m.size, sizeof(m));
}

Test(adopt, a_newer_module_is_cut_to_what_we_know)
{
        struct {
                struct weft_module m;
                void *future;
        } new = {
                .m = { .size = sizeof(new), .abi = WEFT_ABI + 7, .name = "new", .summary = "s" }
        };
        struct weft_module m;

        cr_assert_eq(module_adopt(&new.m, &m, NULL), 0);
        cr_assert_eq(m.size, sizeof(m));
}

Test(adopt, another_major_is_refused_with_both_numbers)
{
        struct weft_module m,
                other = { .size = sizeof(m), .abi = 2u << 16, .name = "x", .summary = "s" };
        struct weft_error why = { 0 };

        cr_assert_eq(module_adopt(&other, &m, &why), -EPROTO);
        cr_assert_str_eq(why.text, "module ABI 2, this weftd speaks 1; build the module for it");
}

Test(adopt, what_cannot_be_right_is_refused)
{
        static const struct weft_option options[] = { { .key = "k" }, {} };
        const struct weft_module bad[] = {
                { .size = 8, .abi = WEFT_ABI, .name = "x", .summary = "s" },
                { .size = sizeof(bad[0]), .abi = WEFT_ABI, .summary = "s" },
                { .size = sizeof(bad[0]), .abi = WEFT_ABI, .name = "../x", .summary = "s" },
                { .size = sizeof(bad[0]),
                  .abi = WEFT_ABI,
                  .name = "x",
                  .summary = "s",
                  .options = options },
                { .size = sizeof(bad[0]),
                  .abi = WEFT_ABI,
                  .name = "x",
                  .summary = "s",
                  .object = "o" },
        };
        struct weft_module m;

        for (size_t i = 0; i < ELEMENTS(bad); i++)
                cr_expect_eq(module_adopt(&bad[i], &m, NULL), -EPROTO, "%zu", i);
}

struct two {
        uint32_t one, other;
};

static void expect_bad(const struct weft_option *options, const struct weft_named *reasons,
                       const struct weft_named *counters, const char *text)
{
        const struct weft_module bad = { .size = sizeof(bad),
                                         .abi = WEFT_ABI,
                                         .name = "x",
                                         .summary = "s",
                                         .options = options,
                                         .config_size = sizeof(struct two),
                                         .reasons = reasons,
                                         .counters = counters };
        struct weft_error why = { 0 };
        struct weft_module m;

        cr_expect_eq(module_adopt(&bad, &m, &why), -EPROTO, "%s", text);
        cr_expect_str_eq(why.text, text);
}

Test(adopt, options_lie_in_the_config_struct_and_have_a_type)
{
        static const struct weft_option beyond[] = {
                WEFT_OPT_U32(struct two, one, "one", "1", 0, 0, "One."),
                { .key = "other", .type = WEFT_TYPE_U32, .offset = sizeof(struct two) - 3 },
                {}
        };
        static const struct weft_option list[] = { { .key = "list", .type = WEFT_TYPE_PREFIXES },
                                                   {} };
        static const struct weft_option none[] = { { .key = "k" }, {} };
        static const struct weft_option unknown[] = { { .key = "k", .type = 99 }, {} };
        static const struct weft_option choiceless[] = { { .key = "k", .type = WEFT_TYPE_ENUM },
                                                         {} };

        expect_bad(beyond, NULL, NULL,
                   "module x: option other lies beyond its config_size of 8 bytes");
        expect_bad(list, NULL, NULL,
                   "module x: option list lies beyond its config_size of 8 bytes");
        expect_bad(none, NULL, NULL, "module x: option k is of type 0, which this weftd has not");
        expect_bad(unknown, NULL, NULL,
                   "module x: option k is of type 99, which this weftd has not");
        expect_bad(choiceless, NULL, NULL, "module x: option k is a choice of nothing");
}

Test(adopt, a_name_stands_for_one_option_reason_or_counter)
{
        static const struct weft_option options[] = {
                WEFT_OPT_U32(struct two, one, "one", "1", 0, 0, "One."),
                WEFT_OPT_U32(struct two, other, "one", "1", 0, 0, "The other."),
                {}
        };
        static const struct weft_named reasons[] = { { "MANY", "a" }, { "MANY", "b" }, {} };
        static const struct weft_named counters[] = {
                { "one", "a" }, { "two", "b" }, { "one", "c" }, {}
        };

        expect_bad(options, NULL, NULL, "module x has two options one");
        expect_bad(NULL, reasons, NULL, "module x has two drop reasons MANY");
        expect_bad(NULL, NULL, counters, "module x has two counters one");
}

/* ---- files -------------------------------------------------------------------------------- */

static char dir[] = "/tmp/weft-module-XXXXXX";
static struct weft_error why;

static void setup(void)
{
        cr_assert_not_null(mkdtemp(dir));
}

static void sh(const char *format, const char *a)
{
        char line[1024];

        (void) snprintf(line, sizeof(line), format, dir, a);
        cr_assert_eq(system(line), 0, "%s", line);
}

static void teardown(void)
{
        sh("rm -rf %s%s", "");
}

TestSuite(file, .init = setup, .fini = teardown);

static int open_module(const char *name, struct module **ret)
{
        const char *const dirs[] = { "/nonexistent", dir, NULL };

        *ret = NULL;
        return module_open(dirs, name, ret, &why);
}

static void install(const char *so)
{
        sh("install -m 644 " TEST_DATA "/%2$s.so %1$s/sample.so", so);
}

static void expect_refusal(int r, const char *text)
{
        struct module *m;

        cr_assert_eq(open_module("sample", &m), r, "%s", why.text);
        cr_assert_not_null(strstr(why.text, text), "%s", why.text);
}

Test(file, a_module_is_found_in_the_first_directory_that_has_it)
{
        struct module *m;

        install("sample-1");
        cr_assert_eq(open_module("sample", &m), 0, "%s", why.text);
        cr_assert_str_eq(m->desc.name, "sample");
        cr_assert_str_eq(m->desc.version, "1");
        (void) module_close(m);
}

Test(file, the_modules_that_are_there_are_listed_once_each)
{
        const char *const dirs[] = { "/nonexistent", dir, dir, NULL };
        struct strings names;

        sh("touch %1$s/b.so %1$s/a.so %1$s/notes.txt %1$s/.so%2$s", "");
        cr_assert_eq(module_names(dirs, &names), 0);
        cr_assert_eq(names.n, 2);
        cr_expect_str_eq(names.items[0], "a");
        cr_expect_str_eq(names.items[1], "b");
        strings_done(&names);
}

Test(file, a_replaced_file_is_the_new_module_while_the_old_one_is_loaded)
{
        struct module *old, *new;

        install("sample-1");
        cr_assert_eq(open_module("sample", &old), 0, "%s", why.text);
        install("sample-2");
        cr_assert_eq(open_module("sample", &new), 0, "%s", why.text);
        cr_assert_str_eq(new->desc.version, "2");
        cr_assert_str_eq(old->desc.version, "1");
        (void) module_close(old);
        (void) module_close(new);
}

Test(file, writing_over_a_loaded_file_does_not_touch_the_module)
{
        struct module *m;

        install("sample-1");
        cr_assert_eq(open_module("sample", &m), 0, "%s", why.text);
        sh("head -c 100000 /dev/zero > %s/sample.so%s", "");
        cr_assert_str_eq(m->desc.summary, "a module for tests");
        (void) module_close(m);
}

Test(file, a_module_that_is_not_there_is_named_with_where_it_was_sought)
{
        expect_refusal(-ENOENT, "there is no sample.so in /nonexistent /tmp/weft-module-");
}

Test(file, a_name_that_leads_elsewhere_is_refused)
{
        struct module *m;

        cr_assert_eq(open_module("../sample", &m), -EINVAL);
        cr_assert_eq(open_module("", &m), -EINVAL);
}

Test(file, a_symbolic_link_is_refused)
{
        sh("ln -s " TEST_DATA "/%2$s.so %1$s/sample.so", "sample-1");
        expect_refusal(-EPERM, "is a symbolic link");
}

Test(file, a_pipe_is_refused_and_waits_for_nobody)
{
        sh("mkfifo %s/sample.so%s", "");
        expect_refusal(-EPERM, "is not a regular file");
}

Test(file, a_file_of_somebody_else_is_refused)
{
        install("sample-1");
        sh("chown 1000 %s/sample.so%s", "");
        expect_refusal(-EPERM, "belongs to user 1000");
}

Test(file, a_file_that_others_can_write_is_refused)
{
        install("sample-1");
        sh("chmod 664 %s/sample.so%s", "");
        expect_refusal(-EPERM, "can be written by others");
}

Test(file, a_directory_of_somebody_else_is_refused)
{
        install("sample-1");
        sh("chown 1000 %s%s", "");
        expect_refusal(-EPERM, "belongs to user 1000 and not to root");
}

Test(file, a_directory_that_others_can_write_must_be_sticky)
{
        struct module *m;

        install("sample-1");
        sh("chmod 777 %s%s", "");
        expect_refusal(-EPERM, "is not sticky");
        sh("chmod 1777 %s%s", "");
        cr_assert_eq(open_module("sample", &m), 0, "%s", why.text);
        (void) module_close(m);
}

Test(file, a_directory_further_up_is_checked_too)
{
        const char *dirs[] = { NULL, NULL };
        _cleanup_free_ char *deep = NULL;
        struct module *m;

        sh("mkdir -p %s/a/b%s && chmod 777 %1$s/a", "");
        sh("install -m 644 " TEST_DATA "/%2$s.so %1$s/a/b/sample.so", "sample-1");
        cr_assert_gt(asprintf(&deep, "%s/a/b", dir), 0);
        dirs[0] = deep;
        cr_assert_eq(module_open(dirs, "sample", &m, &why), -EPERM);
        cr_assert_not_null(strstr(why.text, "(1 above it)"), "%s", why.text);
}

Test(file, a_library_path_outside_the_system_s_is_refused)
{
        install("sample-runpath");
        expect_refusal(-EPERM, "looks for libraries in \"/opt/lib\"");
        install("sample-origin");
        expect_refusal(-EPERM, "looks for libraries in \"$ORIGIN\"");
}

Test(file, a_library_path_of_the_system_is_not)
{
        struct module *m;

        install("sample-system");
        cr_assert_eq(open_module("sample", &m), 0, "%s", why.text);
        (void) module_close(m);
}

Test(file, what_is_no_shared_object_is_refused)
{
        sh("echo text > %s/sample.so%s", "");
        expect_refusal(-ENOEXEC, "is not a shared object");
        sh(": > %s/sample.so%s", "");
        expect_refusal(-ENOEXEC, "is not a shared object");
        sh("head -c 200 " TEST_DATA "/%2$s.so > %1$s/sample.so", "sample-1");
        expect_refusal(-ENOEXEC, "sample.so");
}

Test(file, a_shared_object_that_is_no_module_is_refused)
{
        install("silent");
        expect_refusal(-ENOEXEC, "does not export weft_module_v1");
}

Test(file, a_file_named_otherwise_than_its_module_is_refused)
{
        struct module *m;

        sh("install -m 644 " TEST_DATA "/%2$s.so %1$s/other.so", "sample-1");
        cr_assert_eq(open_module("other", &m), -ENOEXEC);
        cr_assert_not_null(strstr(why.text, "calls itself sample"), "%s", why.text);
}

/* ---- instances ---------------------------------------------------------------------------- */

static int held;
static char log_text[256];

static int hold(void *data, const struct weft_prefix *prefix, const struct weft_addr *gateway,
                struct weft_error *reterr)
{
        (void) data;
        (void) gateway;
        if (prefix->len > 128)
                return weft_fail(reterr, -EINVAL, "too long");
        held++;
        return 0;
}

static void give_back(void *data, const struct weft_prefix *prefix)
{
        (void) data;
        (void) prefix;
        held--;
}

static void keep_log(void *data, const char *module, int level, const char *text)
{
        (void) data;
        (void) snprintf(log_text, sizeof(log_text), "%s %d %s", module, level, text);
}

static const struct core_services services = { .route = hold,
                                               .unroute = give_back,
                                               .log = keep_log };

static int two_routes(struct weft_instance *self, const struct weft_api *api,
                      struct weft_error *reterr)
{
        const struct weft_prefix a = { .len = 128 }, b = { .len = 120 }, c = { .len = 129 };
        struct weft_addr gateway = { 0 };

        (void) api->route(self, &a, &gateway, reterr);
        (void) api->route(self, &b, &gateway, reterr);
        api->unroute(self, &a);
        api->unroute(self, &a);
        api->give_out_ports(self, 2000, 3000);
        api->give_out_ports(self, 1000, 1500);
        api->node_ports(self, 30000, 30100);
        api->node_ports(self, 30050, 32767);
        api->log(self, 6, "%d ports", 3);
        api->set_data(self, &held);
        return api->route(self, &c, &gateway, reterr);
}

static struct instance *new_instance(struct module *m)
{
        struct diagnostics d = { 0 };
        struct instance *i = NULL;

        cr_assert_eq(instance_new(m, 1, NULL, &services, &d, &i, &why), 0, "%s", why.text);
        return i;
}

Test(instance, gives_back_the_routes_it_holds_when_attaching_fails)
{
        struct module m = { .desc = { .name = "m", .attach = two_routes } };
        struct instance *i = new_instance(&m);

        cr_assert_eq(instance_attach(i, &why), -EINVAL);
        cr_assert_str_eq(why.text, "module m, attach: too long");
        cr_assert_eq(held, 1);
        cr_assert_eq(i->given_out.low, 1000);
        cr_assert_eq(i->given_out.high, 3000);
        cr_assert_eq(i->node_ports.low, 30000);
        cr_assert_eq(i->node_ports.high, 32767);
        cr_assert_str_eq(log_text, "m 6 3 ports");
        cr_assert_eq(core_api.data((struct weft_instance *) i), &held);

        (void) instance_free(i);
        cr_assert_eq(held, 0);
}

static int silent_failure(struct weft_instance *self, const struct weft_api *api,
                          struct weft_error *reterr)
{
        (void) self;
        (void) api;
        (void) reterr;
        return -EPERM;
}

Test(instance, a_callback_that_fails_without_a_word_still_has_a_reason)
{
        struct module m = { .desc = { .name = "m", .load = silent_failure } };
        struct instance *i = new_instance(&m);

        cr_assert_eq(instance_load(i, &why), -EPERM);
        cr_assert_str_eq(why.text, "module m, load: Operation not permitted");
        (void) instance_free(i);
}

Test(instance, a_section_that_does_not_configure_is_named_with_its_line)
{
        struct module m = { .desc = { .name = "m", .configure = silent_failure } };
        const struct config_module section = { .origin = { .file = "/etc/weft/weft.conf",
                                                           .line = 12 } };
        struct diagnostics d = { 0 };
        struct instance *i = NULL;

        cr_assert_eq(instance_new(&m, 1, &section, &services, &d, &i, &why), -EPERM);
        cr_assert_null(i);
        cr_assert_eq(d.n, 1);
        cr_expect_str_eq(d.items[0].origin.file, "/etc/weft/weft.conf");
        cr_expect_eq(d.items[0].origin.line, 12);
        cr_expect_str_eq(d.items[0].text,
                         "[module m]: module m, configure: Operation not permitted");
        cr_expect_str_eq(why.text, "[module m] has settings that are not valid");
        diagnostics_done(&d);
}

static int failing_event(struct weft_instance *self, const struct weft_api *api,
                         const struct weft_module_event *event, struct weft_error *reterr)
{
        (void) self;
        return event->kind == WEFT_LINK_CHANGED ? api->fail(reterr, -EIO, "cannot follow") : 0;
}

Test(instance, a_failed_event_marks_it_as_degraded)
{
        struct module m = { .desc = { .name = "m", .event = failing_event } };
        struct instance *i = new_instance(&m);
        const struct weft_module_event fine = { .kind = WEFT_PEER_ADDED },
                                       bad = { .kind = WEFT_LINK_CHANGED };

        cr_assert_eq(instance_event(i, &fine, &why), 0);
        cr_assert_not(i->degraded);
        cr_assert_eq(instance_event(i, &bad, &why), -EIO);
        cr_assert(i->degraded);
        (void) instance_free(i);
}

static int set_constants(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr)
{
        uint32_t secret = 3;

        if (api->constant(self, "secret", &secret, sizeof(secret)) != 0 ||
            api->constant(self, "secret", &secret, sizeof(secret)) != 0)
                return api->fail(reterr, -EBADMSG, "the constant is not found");
        if (api->constant(self, "nothing", &secret, sizeof(secret)) != -ENOENT)
                return api->fail(reterr, -EBADMSG, "a constant that is not there is found");
        return api->constant(self, "secret", &secret, 1) == -EINVAL ? 0 : -EBADMSG;
}

Test(instance, constants_are_checked_against_the_object_at_once)
{
        static char bytes[512 << 10];
        _cleanup_fclose_ FILE *f = fopen(TEST_DATA "/stages-a.bpf.o", "re");
        struct module m = { .desc = { .name = "m", .object = bytes, .load = set_constants } };
        struct instance *i;

        cr_assert_not_null(f);
        m.desc.object_end = bytes + fread(bytes, 1, sizeof(bytes), f);
        i = new_instance(&m);
        cr_assert_eq(instance_load(i, &why), 0, "%s", why.text);
        cr_assert_eq(i->n_constants, 1);
        cr_assert_eq(core_api.map((struct weft_instance *) i, "a_runs"), -ENOENT,
                     "nothing is loaded yet");
        (void) instance_free(i);
}

static int load_counters(const char *file, const struct weft_named *counters)
{
        static char bytes[512 << 10];
        _cleanup_fclose_ FILE *f = fopen(file, "re");
        struct module m = { .desc = { .name = "m", .object = bytes, .counters = counters } };
        struct instance *i;
        int r;

        cr_assert_not_null(f);
        m.desc.object_end = bytes + fread(bytes, 1, sizeof(bytes), f);
        i = new_instance(&m);
        r = instance_load(i, &why);
        (void) instance_free(i);

        return r;
}

Test(instance, counters_that_cannot_be_read_are_refused)
{
        static const struct weft_named two[] = { { "a", "a" }, { "b", "b" }, {} };
        static const struct weft_named three[] = { { "a", "a" }, { "b", "b" }, { "c", "c" }, {} };

        cr_expect_eq(load_counters(TEST_DATA "/counters.bpf.o", two), 0, "%s", why.text);
        cr_expect_eq(load_counters(TEST_DATA "/counters.bpf.o", three), -EPROTO);
        cr_expect_str_eq(why.text, "module m: map counters must be a per-CPU array of 64-bit words,"
                                   " and have one for each of the 3 names");
        cr_expect_eq(load_counters(TEST_DATA "/counters-wide.bpf.o", two), -EPROTO);
        cr_expect_eq(load_counters(TEST_DATA "/stages-a.bpf.o", two), -EPROTO);
        cr_expect_str_eq(why.text, "module m: it names counters, and its object has no map "
                                   "\"counters\"");
        cr_expect_eq(load_counters(TEST_DATA "/stages-a.bpf.o", NULL), 0, "%s", why.text);
}

Test(instance, a_map_of_a_class_that_is_none_is_refused)
{
        cr_expect_eq(load_counters(TEST_DATA "/stages-state-bad.bpf.o", NULL), -EINVAL);
        cr_expect_str_eq(why.text, "module m: map state: there is no map class STATE.x");
}

Test(instance, free_ports_are_above_the_node_s_own)
{
        struct module m = { .desc = { .name = "m" } };
        struct instance *i = new_instance(&m);
        uint16_t low = 0, high = 0;

        core_api.free_ports((struct weft_instance *) i, &low, &high);
        cr_assert_gt(low, 1024);
        cr_assert_eq(high, 65535);
        (void) instance_free(i);
}
