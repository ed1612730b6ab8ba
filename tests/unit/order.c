/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "plan/plan.h"
#include "util.h"

#define LIST(...)                                                                                  \
        (const char *const[])                                                                      \
        {                                                                                          \
                __VA_ARGS__, NULL                                                                  \
        }

static void expect(struct stage *s, size_t n, const char *const *modules)
{
        struct weft_error why = { 0 };

        cr_assert_eq(stages_order(s, n, &why), 0, "%s", why.text);
        for (size_t i = 0; i < n; i++)
                cr_expect_str_eq(s[i].module, modules[i]);
}

Test(order, nothing_is_in_order)
{
        cr_assert_eq(stages_order(NULL, 0, NULL), 0);
}

Test(order, the_phase_comes_before_everything_else)
{
        struct stage s[] = {
                { .module = "a", .name = "s", .phase = WEFT_DELIVER, .before = LIST("b") },
                { .module = "b", .name = "s", .phase = WEFT_FILTER, .after = LIST("a") },
        };

        expect(s, ELEMENTS(s), LIST("b", "a"));
}

Test(order, after_and_before_say_the_same_thing)
{
        struct stage s[] = {
                { .module = "a", .name = "s", .after = LIST("c") },
                { .module = "b", .name = "s", .before = LIST("c") },
                { .module = "c", .name = "s" },
        };

        expect(s, ELEMENTS(s), LIST("b", "c", "a"));
}

Test(order, an_absent_module_has_no_effect)
{
        struct stage s[] = { { .module = "b", .name = "s", .after = LIST("nobody") },
                             { .module = "a", .name = "s" } };

        expect(s, ELEMENTS(s), LIST("a", "b"));
}

Test(order, stages_of_one_module_stand_by_name)
{
        struct stage s[] = { { .module = "a", .name = "z", .after = LIST("a") },
                             { .module = "a", .name = "y", .after = LIST("a") } };

        expect(s, ELEMENTS(s), LIST("a", "a"));
        cr_assert_str_eq(s[0].name, "y");
}

Test(order, every_permutation_gives_the_same_order)
{
        static const char *const want[] = { "c", "d", "b", "a" };
        unsigned seed = 1;

        for (int round = 0; round < 200; round++) {
                struct stage s[] = {
                        { .module = "a", .name = "s", .phase = WEFT_ROUTE, .after = LIST("b") },
                        { .module = "b", .name = "s", .phase = WEFT_ROUTE },
                        { .module = "c", .name = "s", .phase = WEFT_ROUTE },
                        { .module = "d",
                          .name = "s",
                          .phase = WEFT_ROUTE,
                          .before = LIST("a", "b") },
                };

                for (size_t i = ELEMENTS(s) - 1; i > 0; i--) {
                        size_t j = (size_t) rand_r(&seed) % (i + 1);
                        struct stage t = s[i];

                        s[i] = s[j];
                        s[j] = t;
                }
                cr_assert_eq(stages_order(s, ELEMENTS(s), NULL), 0);
                for (size_t i = 0; i < ELEMENTS(s); i++)
                        cr_assert_str_eq(s[i].module, want[i], "round %d, place %zu", round, i);
        }
}

Test(order, a_cycle_is_refused_and_each_member_named)
{
        struct weft_error why = { 0 };
        struct stage s[] = {
                { .module = "bystander", .name = "s", .after = LIST("x") },
                { .module = "x", .name = "s", .after = LIST("y") },
                { .module = "y", .name = "s", .after = LIST("z") },
                { .module = "z", .name = "s", .after = LIST("x") },
        };

        cr_assert_eq(stages_order(s, ELEMENTS(s), &why), -ELOOP);
        cr_assert_not_null(strstr(why.text, "x after y"), "%s", why.text);
        cr_assert_not_null(strstr(why.text, "y after z"), "%s", why.text);
        cr_assert_not_null(strstr(why.text, "z after x"), "%s", why.text);
        cr_assert_null(strstr(why.text, "bystander"), "%s", why.text);
}
