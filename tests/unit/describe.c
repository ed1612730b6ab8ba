/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What weftctl says of module files, and that the manual's chapters and the samples say the same.
 */

#include <criterion/criterion.h>
#include <errno.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>

#include "ctl/describe.h"
#include "ctl/probe.h"
#include "paths.h"
#include "util.h"

static struct description *d;
static struct weft_error why;

static void open_module(const char *name)
{
        _cleanup_free_ char *path = NULL;

        cr_assert_geq(asprintf(&path, "%s/%s.so", MODULE_DIR, name), 0);
        cr_assert_eq(description_open(path, &d, &why), 0, "%s", why.text);
}

static void close_module(void)
{
        d = description_close(d);
}

TestSuite(describe, .fini = close_module);

static char *printed(const char *format)
{
        char *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        cr_assert_eq(description_print(d, format, f, &why), 0, "%s", why.text);
        (void) fclose(f);

        return text;
}

static void expect_same_as(const char *path, const char *format)
{
        _cleanup_free_ char *made = printed(format), *there = NULL;

        cr_assert_eq(file_read(path, &there), 0, "%s is not there: ninja chapters", path);
        cr_expect_str_eq(made, there, "%s is not what the module says: ninja chapters", path);
}

/* Calls f with the name of each module of the tree. */
static size_t each_module(void (*f)(const char *name))
{
        glob_t found;
        size_t n;

        cr_assert_eq(glob(SOURCE "/modules/*", GLOB_ONLYDIR, NULL, &found), 0);
        n = found.gl_pathc;
        for (size_t i = 0; i < n; i++)
                f(basename(found.gl_pathv[i]));
        globfree(&found);

        return n;
}

static void compare(const char *name)
{
        _cleanup_free_ char *chapter = NULL, *sample = NULL;

        cr_assert_geq(asprintf(&chapter, SOURCE "/docs/modules/%s.md", name), 0);
        cr_assert_geq(asprintf(&sample, SOURCE "/conf.d/20-%s.conf.sample", name), 0);

        open_module(name);
        expect_same_as(chapter, "markdown");
        expect_same_as(sample, "sample");
        close_module();
}

Test(describe, chapters_and_samples_are_what_the_modules_say)
{
        cr_expect_geq(each_module(compare), 4);
}

static size_t count_files(const char *pattern)
{
        glob_t found;
        size_t n;

        cr_assert_eq(glob(pattern, 0, NULL, &found), 0);
        n = found.gl_pathc;
        globfree(&found);
        return n;
}

static void nothing(const char *name)
{
        (void) name;
}

Test(describe, no_chapter_and_no_sample_is_of_a_module_that_is_gone)
{
        size_t n = each_module(nothing);

        cr_expect_eq(count_files(SOURCE "/docs/modules/*.md"), n);
        cr_expect_eq(count_files(SOURCE "/conf.d/20-*.conf.sample"), n);
}

static const char *text_at(const json_t *j, const char *list, size_t i, const char *key)
{
        return json_string_value(json_object_get(json_array_get(json_object_get(j, list), i), key));
}

Test(describe, json_has_needs_options_stages_and_maps)
{
        json_auto_t *j = NULL;
        const json_t *hooks;

        open_module("bpf-masq");
        j = description_json(d);

        cr_assert_not_null(j);
        cr_expect_str_eq(json_string_value(json_object_get(j, "abi")), "1.0");
        cr_expect_str_eq(text_at(j, "needs", 0, "kind"), "helper");
        cr_expect_str_eq(text_at(j, "needs", 0, "name"), "fib_lookup");
        cr_expect_str_eq(text_at(j, "options", 4, "key"), "snat-ports");
        cr_expect_str_eq(text_at(j, "options", 4, "default"), "auto");
        cr_expect_str_eq(text_at(j, "stages", 0, "name"), "bpf_masq");
        cr_expect_str_eq(text_at(j, "stages", 0, "phase"), "masquerade");
        hooks = json_object_get(json_array_get(json_object_get(j, "stages"), 0), "hooks");
        cr_expect_eq(json_array_size(hooks), 1);
        cr_expect_str_eq(json_string_value(json_array_get(hooks, 0)), "from-endpoint");
        cr_expect_str_eq(text_at(j, "maps", 0, "name"), "no_masquerade");
        cr_expect_str_eq(text_at(j, "maps", 0, "class"), "config");
        cr_expect_eq(json_array_size(json_object_get(j, "maps")), 1);
}

/* Fails when tables.bpf.h gets a map that description_next_map() does not know. */
Test(describe, the_maps_of_the_core_are_not_the_modules)
{
        open_module("host-routing");
        cr_expect_null(description_next_map(d, NULL));
}

Test(describe, an_unknown_format_is_refused_with_the_known_ones)
{
        open_module("host-routing");
        cr_expect_eq(description_print(d, "yaml", stdout, &why), -EINVAL);
        cr_expect(strstr(why.text, "markdown"));
}

Test(describe, a_name_without_so_is_refused)
{
        cr_expect_eq(description_open("/etc/passwd", &d, &why), -EINVAL);
        cr_expect(strstr(why.text, ".so"));
}

Test(describe, a_file_that_others_can_write_is_not_loaded)
{
        char dir[] = "/tmp/weft-describe-XXXXXX";
        _cleanup_free_ char *command = NULL, *path = NULL;

        cr_assert_not_null(mkdtemp(dir));
        cr_assert_geq(asprintf(&path, "%s/host-routing.so", dir), 0);
        cr_assert_geq(asprintf(&command, "cp " MODULE_DIR "/host-routing.so %s && chmod 666 %s",
                               path, path),
                      0);
        cr_assert_eq(system(command), 0);

        cr_expect_eq(description_open(path, &d, &why), -EPERM);
        cr_expect(strstr(why.text, "chmod"), "%s", why.text);

        (void) unlink(path);
        (void) rmdir(dir);
}

Test(describe, types_are_told_with_their_range_and_choices)
{
        static const char *const choices[] = { "slow", "fast", NULL };
        static const struct {
                struct weft_option option;
                const char *text;
        } rows[] = {
                { { .type = WEFT_TYPE_BOOL }, "yes or no" },
                { { .type = WEFT_TYPE_U16, .min = 1, .max = 100 }, "number 1-100" },
                { { .type = WEFT_TYPE_U32, .min = 8 }, "number from 8" },
                { { .type = WEFT_TYPE_TIME, .min = 1, .max = 9 }, "time 1-9 ms" },
                { { .type = WEFT_TYPE_ENUM, .choices = choices }, "one of slow, fast" },
                { { .type = WEFT_TYPE_PREFIXES }, "list of prefixes" },
        };
        char buf[64];

        for (size_t i = 0; i < ELEMENTS(rows); i++)
                cr_expect_str_eq(option_type_text(&rows[i].option, buf, sizeof(buf)), rows[i].text);
}

/* ---- probe -------------------------------------------------------------------------------- */

static const struct weft_need helper[] = { WEFT_NEEDS(HELPER, "fib_lookup", "asks for the way"),
                                           {} };
static const struct weft_need wish[] = { WEFT_WANTS(HELPER, "fib_lookup", "goes by the stack"),
                                         {} };
static const struct weft_need role[] = { WEFT_NEEDS(ROLE, "routing", "forwards"), {} };
static const struct weft_module needy = { .name = "needy", .needs = helper },
                                modest = { .name = "modest", .needs = wish },
                                user = { .name = "user", .needs = role },
                                router = { .name = "router", .exclusive = "routing" };
static const struct weft_module *const available[] = { &needy, &modest, &user, &router };

static const char *verdict(const struct weft_module *m, bool present, size_t n_available,
                           struct plan_row *ret_row)
{
        const struct fact fact = { WEFT_NEED_HELPER, "fib_lookup", present };

        return probe_verdict(m, available, n_available, &fact, 1, ret_row);
}

Test(probe, says_use_fallback_or_refused_with_the_reason)
{
        struct plan_row row;

        cr_expect_str_eq(verdict(&needy, true, 4, &row), "use");
        cr_expect_str_eq(verdict(&needy, false, 4, &row), "refused");
        cr_expect(strstr(row.reason, "asks for the way"), "%s", row.reason);
        cr_expect_str_eq(verdict(&modest, false, 4, &row), "fallback");
        cr_expect(strstr(row.reason, "goes by the stack"), "%s", row.reason);
}

Test(probe, a_role_is_filled_by_any_module_that_is_there)
{
        struct plan_row row;

        cr_expect_str_eq(verdict(&user, true, 4, &row), "use", "%s", row.reason);
        cr_expect_str_eq(verdict(&user, true, 3, &row), "refused");
}
