/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "config/config.h"
#include "plan/plan.h"
#include "util.h"

#define LIST(...)                                                                                  \
        (const char *const[])                                                                      \
        {                                                                                          \
                __VA_ARGS__, NULL                                                                  \
        }
#define MODULES(...)                                                                               \
        (const struct weft_module *const[])                                                        \
        {                                                                                          \
                __VA_ARGS__, NULL                                                                  \
        }
#define NEEDS(...)                                                                                 \
        (const struct weft_need[])                                                                 \
        {                                                                                          \
                __VA_ARGS__,                                                                       \
                {                                                                                  \
                        0                                                                          \
                }                                                                                  \
        }

static const struct fact facts[] = {
        { WEFT_NEED_HELPER, "fib_lookup", true },
        { WEFT_NEED_HELPER, "redirect_neigh", false },
        { WEFT_NEED_FEATURE, "tcx", false },
        { WEFT_NEED_HOST, "quiet", false, "somebody sings" },
};

static struct plan_row rows[8];
static size_t n_rows;
static struct weft_error why;

static size_t count(const struct weft_module *const *list)
{
        size_t n = 0;

        while (list[n])
                n++;
        return n;
}

static int plan(uint32_t mode, const struct weft_module *const *named,
                const struct weft_module *const *available)
{
        struct plan_input in = {
                .named = named,
                .n_named = count(named),
                .available = available,
                .n_available = count(available),
                .facts = facts,
                .n_facts = ELEMENTS(facts),
                .mode = mode,
        };

        return plan_modules(&in, rows, &n_rows, &why);
}

static const struct weft_module plain = { .name = "plain" };
static const struct weft_module routing = { .name = "routing", .provides = LIST("routing") };
static const struct weft_module tunnel = { .name = "tunnel", .exclusive = "routing" };
static const struct weft_module wire = {
        .name = "wire", .provides = LIST("routing"), .exclusive = "routing", .remedy = "say which"
};
static const struct weft_module pipe_a = { .name = "pipe-a",
                                           .provides = LIST("routing", "tunnel"),
                                           .exclusive = "routing" };
static const struct weft_module pipe_b = { .name = "pipe-b",
                                           .provides = LIST("routing", "tunnel"),
                                           .exclusive = "routing" };
static const struct weft_module user = {
        .name = "user", .needs = NEEDS(WEFT_NEEDS(MODULE, "plain", "stands on it"))
};
static const struct weft_module lonely = { .name = "lonely",
                                           .needs =
                                                   NEEDS(WEFT_NEEDS(ROLE, "routing", "forwards")) };
static const struct weft_module modern = {
        .name = "modern",
        .provides = LIST("routing"),
        .needs = NEEDS(WEFT_NEEDS(HELPER, "fib_lookup", "asks"),
                       WEFT_NEEDS(HELPER, "redirect_neigh", "sends")),
};
static const struct weft_module modest = {
        .name = "modest", .needs = NEEDS(WEFT_WANTS(FEATURE, "tcx", "else clsact"))
};
static const struct weft_module egg = { .name = "egg",
                                        .needs = NEEDS(WEFT_NEEDS(MODULE, "hen", "")) };
static const struct weft_module hen = { .name = "hen",
                                        .needs = NEEDS(WEFT_NEEDS(MODULE, "egg", "")) };
static const struct weft_module enemy = { .name = "enemy", .conflicts = LIST("plain") };

Test(plan, what_a_module_needs_is_brought_in_before_it_and_says_by_whom)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&user), MODULES(&user, &plain)), 0);
        cr_assert_eq(n_rows, 2);
        cr_assert_eq(rows[0].module, &plain);
        cr_assert_str_eq(rows[0].reason, "brought in by user");
        cr_assert(rows[1].on);
}

Test(plan, what_nobody_asked_for_is_not_there)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&plain), MODULES(&plain, &routing, &user)), 0);
        cr_assert_eq(n_rows, 1);
}

Test(plan, who_fills_a_role_stands_before_who_needs_it)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&lonely, &routing), MODULES(&lonely, &routing)), 0);
        cr_assert_eq(rows[0].module, &routing);
        cr_assert(rows[0].on && rows[1].on);
}

Test(plan, modules_that_need_each_other_both_run)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&egg), MODULES(&egg, &hen)), 0);
        cr_assert_eq(n_rows, 2);
        cr_assert(rows[0].on && rows[1].on);
}

Test(plan, a_missing_module_is_refused_by_name)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&user), MODULES(&user)), -ENOENT);
        cr_assert_str_eq(why.text, "module user needs module plain (stands on it)");
}

Test(plan, a_role_nobody_fills_is_refused)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&lonely), MODULES(&lonely, &routing)), -ENOENT);
        cr_assert_str_eq(why.text, "module lonely needs a module for the role routing (forwards)");
}

Test(plan, what_the_kernel_lacks_switches_off_the_module_and_its_users)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&lonely, &modern), MODULES(&lonely, &modern)), 0,
                     "%s", why.text);
        cr_assert_not(rows[0].on);
        cr_assert_str_eq(rows[0].reason, "needs the kernel's eBPF helper redirect_neigh (sends)");
        cr_assert_not(rows[1].on);
        cr_assert_str_eq(rows[1].reason, "needs a module for the role routing (forwards)");
}

Test(plan, strict_mode_refuses_what_probe_mode_switches_off)
{
        cr_assert_eq(plan(MODE_STRICT, MODULES(&modern), MODULES(&modern)), -EOPNOTSUPP);
        cr_assert_str_eq(why.text,
                         "module modern needs the kernel's eBPF helper redirect_neigh (sends)");
}

Test(plan, partial_mode_refuses_too)
{
        cr_assert_eq(plan(MODE_PARTIAL, MODULES(&modern, &routing), MODULES(&modern, &routing)),
                     -EOPNOTSUPP);
        cr_assert_str_eq(why.text,
                         "module modern needs the kernel's eBPF helper redirect_neigh (sends)");
}

Test(plan, a_survey_is_told_what_is_off_and_never_refused)
{
        const struct weft_module *const named[] = { &user, &routing };
        const struct plan_input in = {
                .named = named,
                .n_named = 2,
                .available = named,
                .n_available = 2,
                .facts = facts,
                .n_facts = ELEMENTS(facts),
                .mode = MODE_STRICT,
                .survey = true,
        };

        cr_assert_eq(plan_modules(&in, rows, &n_rows, &why), 0, "%s", why.text);
        cr_assert_not(rows[0].on);
        cr_assert(rows[1].on);
}

Test(plan, a_barred_module_is_off_with_what_needs_it_and_refuses_nothing_in_any_mode)
{
        const struct weft_module barred = { .name = "barred" }, needing = {
                .name = "needing",
                .needs = NEEDS({ WEFT_NEED_MODULE, "barred", .why = "leans on it" })
        };
        const struct weft_module *const named[] = { &barred, &needing, &routing };
        const char *const reasons[] = { "it crashed", NULL, NULL };

        for (uint32_t mode = MODE_PROBE; mode <= MODE_PARTIAL; mode++) {
                const struct plan_input in = {
                        .named = named,
                        .n_named = 3,
                        .available = named,
                        .n_available = 3,
                        .facts = facts,
                        .n_facts = ELEMENTS(facts),
                        .barred = reasons,
                        .mode = mode,
                };

                cr_assert_eq(plan_modules(&in, rows, &n_rows, &why), 0, "%s", why.text);
                cr_assert_not(rows[0].on);
                cr_assert_str_eq(rows[0].reason, "it crashed");
                cr_assert_not(rows[1].on);
                cr_assert_str_eq(rows[1].reason, "needs module barred (leans on it)");
                cr_assert(rows[2].on);
        }
}

Test(plan, a_soft_need_is_only_mentioned)
{
        cr_assert_eq(plan(MODE_STRICT, MODULES(&modest), MODULES(&modest)), 0);
        cr_assert(rows[0].on);
        cr_assert_str_eq(rows[0].reason, "without the kernel's feature tcx (else clsact)");
}

Test(plan, an_exclusive_role_has_one_holder_in_every_mode)
{
        cr_assert_eq(plan(MODE_PARTIAL, MODULES(&routing, &tunnel), MODULES(&routing, &tunnel)),
                     -EEXIST);
        cr_assert_str_eq(why.text, "modules routing and tunnel both do routing; take one away");
}

Test(plan, a_module_that_divides_an_exclusive_role_brings_in_both_and_lets_them_run)
{
        static const struct weft_module one = { .name = "one",
                                                .exclusive = "port",
                                                .remedy = "add [module both]" };
        static const struct weft_module two = { .name = "two", .exclusive = "port" };
        static const struct weft_need needs[] = { WEFT_NEEDS(MODULE, "one", "one way"),
                                                  WEFT_NEEDS(MODULE, "two", "another"),
                                                  {} };
        static const struct weft_module both = { .name = "both",
                                                 .divides = "port",
                                                 .needs = needs };

        cr_assert_eq(plan(MODE_PROBE, MODULES(&both), MODULES(&one, &two, &both)), 0, "%s",
                     why.text);
        cr_assert_eq(n_rows, 3);
        cr_assert_eq(plan(MODE_PROBE, MODULES(&one, &two), MODULES(&one, &two)), -EEXIST);
        cr_assert_str_eq(why.text,
                         "modules one and two both do port; take one away, or add [module both]");
}

Test(plan, a_third_that_nobody_divides_for_is_refused_as_ever)
{
        static const struct weft_module one = { .name = "one", .exclusive = "port" };
        static const struct weft_module two = { .name = "two", .exclusive = "port" };
        static const struct weft_need needs[] = { WEFT_NEEDS(MODULE, "one", "one way"), {} };
        static const struct weft_module half = { .name = "half",
                                                 .divides = "port",
                                                 .needs = needs };

        cr_assert_eq(plan(MODE_PROBE, MODULES(&half, &two), MODULES(&one, &two, &half)), -EEXIST);
}

Test(plan, a_module_that_is_off_excludes_nobody)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&modern, &tunnel), MODULES(&modern, &tunnel)), 0,
                     "%s", why.text);
        cr_assert(rows[1].on);
}

Test(plan, enemies_are_refused_whoever_says_so)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&plain, &enemy), MODULES(&plain, &enemy)), -EEXIST);
        cr_assert_eq(plan(MODE_PROBE, MODULES(&enemy, &plain), MODULES(&plain, &enemy)), -EEXIST);
        cr_assert_str_eq(why.text, "modules enemy and plain cannot run together; take one away");
}

/* ---- the automatic set -------------------------------------------------------------------- */

static const struct weft_module native = { .name = "native",
                                           .exclusive = "routing",
                                           .role = "routing",
                                           .rank = 20,
                                           .condition = WEFT_PEERS_SHARE_L2 };
static const struct weft_module overlay = {
        .name = "overlay", .exclusive = "routing", .role = "routing", .rank = 10
};
static const struct weft_module fast = { .name = "fast",
                                         .role = "delivery",
                                         .rank = 2,
                                         .needs = NEEDS(
                                                 WEFT_NEEDS(HELPER, "redirect_neigh", "sends")) };
static const struct weft_module slow = { .name = "slow", .role = "delivery", .rank = 1 };
static const struct weft_module twin_b = { .name = "b", .role = "twin" };
static const struct weft_module twin_a = { .name = "a", .role = "twin" };
static const struct weft_module orphan = { .name = "orphan",
                                           .role = "orphan",
                                           .needs = NEEDS(
                                                   WEFT_NEEDS(ROLE, "parents", "stands on them")) };

/* Names of the chosen modules that run, in order. */
static const char *chosen(uint32_t mode, uint32_t conditions,
                          const struct weft_module *const *available)
{
        static char names[128];
        struct plan_input in = {
                .available = available,
                .n_available = count(available),
                .facts = facts,
                .n_facts = ELEMENTS(facts),
                .mode = mode,
                .choose = true,
                .conditions = conditions,
        };

        names[0] = '\0';
        if (plan_modules(&in, rows, &n_rows, &why) < 0)
                return why.text;
        for (size_t i = 0; i < n_rows; i++)
                if (rows[i].on)
                        (void) strcat(strcat(names, names[0] ? " " : ""), rows[i].module->name);

        return names;
}

#define SHARED (1u << WEFT_PEERS_SHARE_L2)

Test(plan, with_nothing_named_each_role_gets_the_best_module_that_fits)
{
        const struct {
                uint32_t mode, conditions;
                const struct weft_module *const *available;
                const char *names;
        } cases[] = {
                { MODE_PROBE, SHARED, MODULES(&native, &overlay), "native" },
                { MODE_PROBE, 0, MODULES(&native, &overlay), "overlay" },
                { MODE_PROBE, 0, MODULES(&native), "" },
                { MODE_PROBE, 0, MODULES(&plain, &slow), "slow" },
                { MODE_PROBE, 0, MODULES(&fast, &slow), "slow" },
                { MODE_PROBE, 0, MODULES(&fast), "" },
                { MODE_PROBE, 0, MODULES(&twin_b, &twin_a), "a" },
                { MODE_PROBE, SHARED, MODULES(&native, &slow), "native slow" },
                { MODE_PROBE, 0, MODULES(&orphan, &slow), "slow" },
                { MODE_PROBE, 0, MODULES(NULL), "" },
                { MODE_PARTIAL, SHARED, MODULES(&native, &slow), "" },
                { MODE_STRICT, SHARED, MODULES(&native, &slow), "native slow" },
                { MODE_STRICT, 0, MODULES(&fast, &slow),
                  "module fast needs the kernel's eBPF helper redirect_neigh (sends)" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                cr_expect_str_eq(chosen(cases[i].mode, cases[i].conditions, cases[i].available),
                                 cases[i].names, "case %zu: %s", i, why.text);
}

Test(plan, a_chosen_module_says_what_for)
{
        cr_assert_str_eq(chosen(MODE_PROBE, SHARED, MODULES(&native)), "native");
        cr_expect_str_eq(rows[0].reason, "chosen for routing");
}

Test(plan, a_named_module_is_not_chosen_again)
{
        cr_assert_eq(plan(MODE_PROBE, MODULES(&slow), MODULES(&slow, &overlay)), 0);
        cr_expect_eq(n_rows, 1);
        cr_expect_str_empty(rows[0].reason);
}

static const struct weft_module sleeper = {
        .name = "sleeper",
        .needs = NEEDS(WEFT_NEEDS(HOST, "quiet", "wants to sleep")),
};

Test(plan, what_the_host_does_already_is_told_and_refused_as_such)
{
        cr_assert_eq(plan(MODE_STRICT, MODULES(&sleeper), MODULES(&sleeper)), -EBUSY);
        cr_assert(strstr(why.text, "sleeper needs the host to be quiet (wants to sleep): somebody "
                                   "sings"),
                  "%s", why.text);

        cr_assert_eq(plan(MODE_PROBE, MODULES(&sleeper), MODULES(&sleeper)), 0);
        cr_assert_eq(n_rows, 1);
        cr_assert_not(rows[0].on);
}

static int plan_by_peer(const struct weft_module *const *named, bool by_peer)
{
        struct plan_input in = {
                .named = named,
                .n_named = count(named),
                .available = named,
                .n_available = count(named),
                .mode = MODE_PROBE,
                .by_peer = by_peer,
        };

        return plan_modules(&in, rows, &n_rows, &why);
}

Test(plan, a_tunnel_and_native_routing_run_together_where_peers_say_how_they_are_reached)
{
        cr_assert_eq(plan_by_peer(MODULES(&pipe_a, &wire), false), -EEXIST);
        cr_assert_str_eq(why.text, "modules pipe-a and wire both do routing; take one away, or say "
                                   "which");
        cr_assert_eq(plan_by_peer(MODULES(&pipe_a, &wire), true), 0);
        cr_assert(rows[0].on && rows[1].on);
        cr_assert_eq(plan_by_peer(MODULES(&pipe_a, &pipe_b), true), -EEXIST);
}
