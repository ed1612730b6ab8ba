/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Modules' maps from one generation to the next. */

#include <errno.h>
#include <sys/mount.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "generation-fixture.h"
#include "generation/maps.h"
#include "util.h"

static struct tables *tables;

static void setup(void)
{
        enter_namespaces();
        tables = open_tables();
}

static void teardown(void)
{
        (void) tables_close(tables);
}

TestSuite(maps, .init = setup, .fini = teardown);

/* An instance of module "counter", with one of its builds. */
static struct instance *counter(const char *object)
{
        struct instance *i = make_instance(object, 1);

        i->module->desc.name = "counter";
        return i;
}

static int try_build(uint32_t number, struct instance *i, struct generation **ret,
                     struct weft_error *why)
{
        struct generation_settings s = make_settings(number);

        *ret = NULL;
        s.bpffs = BPFFS;
        return generation_build(tables, &s, &i, 1, ret, why);
}

static struct generation *build_pinned(uint32_t number, struct instance *i)
{
        struct weft_error why = { 0 };
        struct generation *g;

        cr_assert_eq(try_build(number, i, &g, &why), 0, "%s", why.text);
        cr_assert_eq(generation_prepare(g, &why), 0, "%s", why.text);
        cr_assert_eq(generation_pin(g, BPFFS, &why), 0, "%s", why.text);
        generation_unpin_others(g, BPFFS);
        return g;
}

static uint32_t value(const struct instance *i, const char *map)
{
        uint32_t zero = 0, values[2] = { 0 };
        int fd = bpf_object__find_map_fd_by_name(i->object, map);

        cr_assert_eq(bpf_map_lookup_elem(fd, &zero, values), 0, "%s", map);
        return values[0];
}

static void run(const struct generation *g)
{
        (void) run_program(generation_hook_fd(g, WEFT_FROM_UPLINK), 0, NULL);
}

static void expect_values(const struct instance *i, uint32_t state, uint32_t stats, uint32_t config)
{
        cr_expect_eq(value(i, "state"), state);
        cr_expect_eq(value(i, "stats"), stats);
        cr_expect_eq(value(i, "config"), config);
        cr_expect_eq(value(i, "unmarked"), config);
}

Test(maps, state_and_stats_go_on_in_the_next_generation_and_config_does_not)
{
        struct instance *one = counter("stages-state-1"), *two = counter("stages-state-1");
        struct generation *g = build_pinned(1, one), *h;

        run(g);
        h = build_pinned(2, two);
        run(h);
        expect_values(two, 2, 2, 1);
        (void) generation_free(g);
        (void) generation_free(h);
}

Test(maps, state_goes_on_after_the_daemon_is_gone)
{
        struct instance *one = counter("stages-state-1"), *two = counter("stages-state-1");
        struct generation *g = build_pinned(1, one);

        run(g);
        (void) generation_free(g);
        g = build_pinned(2, two);
        expect_values(two, 1, 1, 0);
        (void) generation_free(g);
}

Test(maps, an_instance_that_is_kept_keeps_every_map)
{
        struct instance *i = counter("stages-state-1");
        struct generation *g = build_pinned(1, i), *h;

        run(g);
        i->kept = true;
        h = build_pinned(2, i);
        cr_expect_eq(value(i, "config"), 1, "the instance must have its maps during the build");
        generation_takeover(h);
        (void) generation_free(g);
        run(h);
        expect_values(i, 2, 2, 2);
        (void) generation_free(h);
}

Test(maps, a_failed_build_leaves_a_kept_instance_its_maps)
{
        struct instance *i = counter("stages-state-1"), *bad = make_instance("stages-refused", 2);
        struct generation_settings s = make_settings(2);
        struct generation *g = build_pinned(1, i), *h = NULL;

        i->kept = true;
        cr_assert_lt(generation_build(tables, &s, (struct instance *[]) { i, bad }, 2, &h, NULL),
                     0);
        expect_values(i, 0, 0, 0);
        (void) generation_free(g);
}

static void expect_refused(const char *build, const char *one, const char *other)
{
        struct instance *i = counter("stages-state-1"), *next = counter(build);
        struct weft_error why = { 0 };
        struct generation *g = build_pinned(1, i), *h;

        cr_assert_eq(try_build(2, next, &h, &why), -EUCLEAN, "%s", why.text);
        cr_expect_not_null(strstr(why.text, "map state"), "%s", why.text);
        cr_expect_not_null(strstr(why.text, one), "%s", why.text);
        cr_expect_not_null(strstr(why.text, other), "%s", why.text);
        cr_expect_not_null(strstr(why.text, "no migration"), "%s", why.text);
        (void) generation_free(g);
}

Test(maps, another_version_without_a_migration_is_refused_and_both_are_named)
{
        expect_refused("stages-state-2", "version 1 (type 2, key 4, value 4",
                       "version 2 (type 2, key 4, value 8");
}

Test(maps, another_layout_without_a_migration_is_refused_and_both_are_named)
{
        expect_refused("stages-state-wide", "version 1 (type 2, key 4, value 4",
                       "version 1 (type 2, key 4, value 8");
}

static unsigned migrated_from;

static int widen(struct weft_instance *self, const struct weft_api *api, const char *map,
                 unsigned from_version, int old_fd, int new_fd, struct weft_error *reterr)
{
        uint32_t zero = 0, old;
        uint64_t new;

        (void) self;
        if (strcmp(map, "state") != 0 || bpf_map_lookup_elem(old_fd, &zero, &old) < 0)
                return api->fail(reterr, -EINVAL, "this is not the map");

        migrated_from = from_version;
        new = old;
        return bpf_map_update_elem(new_fd, &zero, &new, BPF_ANY);
}

Test(maps, a_migration_fills_the_new_map_from_the_old_one)
{
        struct instance *one = counter("stages-state-1"), *two = counter("stages-state-2"),
                        *three = counter("stages-state-2");
        struct generation *g = build_pinned(1, one), *h;

        run(g);
        two->module->desc.migrate = widen;
        h = build_pinned(2, two);
        cr_expect_eq(migrated_from, 1);
        expect_values(two, 1, 1, 0);
        cr_expect_eq(access(BPFFS "/modules/counter/state-1-1", F_OK), -1,
                     "the old map is still pinned");
        cr_expect_eq(access(BPFFS "/modules/counter/state-2-2", F_OK), 0);
        (void) generation_free(g);
        (void) generation_free(h);

        migrated_from = 0;
        h = build_pinned(3, three);
        cr_expect_eq(migrated_from, 0, "the same version must not be migrated again");
        expect_values(three, 1, 1, 0);
        (void) generation_free(h);
}

static int refuse(struct weft_instance *self, const struct weft_api *api, const char *map,
                  unsigned from_version, int old_fd, int new_fd, struct weft_error *reterr)
{
        (void) self, (void) map, (void) from_version, (void) old_fd, (void) new_fd;
        return api->fail(reterr, -ENOSPC, "there is no room");
}

Test(maps, a_failed_migration_leaves_the_old_map_pinned)
{
        struct instance *one = counter("stages-state-1"), *two = counter("stages-state-2");
        struct generation *g = build_pinned(1, one), *h;
        struct weft_error why = { 0 };

        two->module->desc.migrate = refuse;
        cr_assert_eq(try_build(2, two, &h, &why), 0, "%s", why.text);
        cr_assert_eq(generation_prepare(h, &why), -ENOSPC);
        cr_expect_str_eq(why.text, "module counter, migrate: there is no room");
        (void) generation_free(h);
        cr_expect_eq(access(BPFFS "/modules/counter/state-1-1", F_OK), 0);
        (void) generation_free(g);
}

/* A daemon that was killed between pinning and letting go. */
Test(maps, of_two_pins_the_younger_counts)
{
        struct instance *one = counter("stages-state-1"), *two = counter("stages-state-2"),
                        *three = counter("stages-state-2");
        struct generation *g = build_pinned(1, one), *h;

        two->module->desc.migrate = widen;
        cr_assert_eq(try_build(12, two, &h, NULL), 0);
        cr_assert_eq(generation_prepare(h, NULL), 0);
        cr_assert_eq(generation_pin(h, BPFFS, NULL), 0);
        run(h);
        (void) generation_free(g);
        (void) generation_free(h);

        h = build_pinned(13, three);
        cr_expect_eq(value(three, "state"), 1);
        (void) generation_free(h);
}

Test(maps, a_bpffs_that_takes_no_pin_is_a_refusal)
{
        struct instance *i = counter("stages-state-1");
        struct weft_error why = { 0 };
        struct generation *g;

        cr_assert_eq(try_build(1, i, &g, &why), 0, "%s", why.text);
        cr_assert_eq(mount(NULL, "/sys/fs/bpf", NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
        cr_assert_eq(generation_pin(g, BPFFS, &why), -EROFS, "%s", why.text);
        cr_expect_not_null(strstr(why.text, BPFFS), "%s", why.text);
        cr_assert_eq(mount(NULL, "/sys/fs/bpf", NULL, MS_REMOUNT, NULL), 0);
        (void) generation_free(g);
}

Test(maps, with_its_module_a_map_s_pin_goes)
{
        struct instance *i = counter("stages-state-1");
        struct generation *g = build_pinned(1, i), *h = build(tables, 2, NULL, 0);

        cr_assert_eq(access(BPFFS "/modules/counter/state-1-1", F_OK), 0);
        generation_unpin_others(h, BPFFS);
        cr_expect_eq(access(BPFFS "/modules", F_OK), -1);
        (void) generation_free(g);
        (void) generation_free(h);
}

Test(maps, cleanup_takes_every_pin)
{
        struct generation *g = build_pinned(1, counter("stages-state-1"));

        (void) generation_free(g);
        generation_unpin_all(BPFFS);
        cr_expect_eq(access(BPFFS "/modules", F_OK), -1);
}

Test(maps, a_class_that_does_not_exist_is_refused)
{
        struct instance *i = counter("stages-state-bad");
        struct weft_error why = { 0 };
        struct generation *g;

        cr_assert_eq(try_build(1, i, &g, &why), -EINVAL, "%s", why.text);
        cr_expect_not_null(strstr(why.text, "there is no map class STATE.x"), "%s", why.text);
}
