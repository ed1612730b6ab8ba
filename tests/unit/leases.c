/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "daemon/leases.h"
#include "paths.h"
#include "util.h"

static struct weft_prefix prefix(const char *text)
{
        struct weft_prefix p;

        cr_assert_eq(parse_prefix(text, &p), 0, "%s", text);
        return p;
}

static bool nothing_in_use(void *data, const struct weft_addr *a)
{
        (void) data;
        (void) a;
        return false;
}

static bool equals_text(void *data, const struct weft_addr *a)
{
        char buf[ADDRESS_TEXT];

        return strcmp(address_format(a, buf, sizeof(buf)), data) == 0;
}

static void expect_taken(struct leases *l, const char *name, const char *cidr, const char *in_use,
                         const char *expected)
{
        struct weft_prefix p = prefix(cidr);
        char buf[ADDRESS_TEXT];
        struct weft_addr a;
        int r = leases_take(l, name, &p, in_use ? equals_text : nothing_in_use, (void *) in_use,
                            &a);

        if (!expected) {
                cr_expect_eq(r, -ENOSPC, "%s", cidr);
                return;
        }
        cr_assert_eq(r, 0, "%s", cidr);
        cr_expect_str_eq(address_format(&a, buf, sizeof(buf)), expected);
}

Test(leases, the_gateway_is_the_first_address_and_needs_a_prefix_with_room)
{
        static const struct {
                const char *cidr, *gateway;
        } rows[] = {
                { "10.244.1.0/24", "10.244.1.1" }, { "10.0.0.4/30", "10.0.0.5" },
                { "fd00:1::/64", "fd00:1::1" },    { "10.0.0.4/31", NULL },
                { "10.0.0.4/32", NULL },           { "fd00::/127", NULL },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct weft_prefix p = prefix(rows[i].cidr);
                char buf[ADDRESS_TEXT];
                struct weft_addr a;
                int r = pod_gateway(&p, &a);

                cr_expect_eq(r, rows[i].gateway ? 0 : -ERANGE, "%s", rows[i].cidr);
                if (r == 0)
                        cr_expect_str_eq(address_format(&a, buf, sizeof(buf)), rows[i].gateway);
        }
}

Test(leases, addresses_are_lent_from_the_bottom_past_gateway_and_those_in_use)
{
        _cleanup_(leases_done) struct leases l = { 0 };

        expect_taken(&l, "a", "10.1.0.0/24", NULL, "10.1.0.2");
        expect_taken(&l, "b", "10.1.0.0/24", "10.1.0.3", "10.1.0.4");
        expect_taken(&l, "c", "10.1.0.0/24", NULL, "10.1.0.3");
        expect_taken(&l, "c", "fd00::/64", NULL, "fd00::2");
}

Test(leases, the_last_address_is_never_lent_and_a_full_prefix_says_so)
{
        _cleanup_(leases_done) struct leases l = { 0 };

        expect_taken(&l, "a", "10.1.0.0/30", NULL, "10.1.0.2");
        expect_taken(&l, "b", "10.1.0.0/30", NULL, NULL);
        expect_taken(&l, "b", "10.1.0.0/32", NULL, NULL);
        cr_expect(leases_drop(&l, "a"));
        cr_expect_not(leases_drop(&l, "a"));
        expect_taken(&l, "b", "10.1.0.0/30", NULL, "10.1.0.2");
}

Test(leases, what_is_saved_is_found_again_by_name_and_prefix)
{
        _cleanup_(leases_done) struct leases l = { 0 }, again = { 0 };
        char path[] = "/tmp/weft-leases-XXXXXX";
        struct weft_prefix cidr = prefix("10.1.0.0/24"), other = prefix("10.2.0.0/24");
        struct weft_error why = { 0 };

        closep(&(int) { mkstemp(path) });
        expect_taken(&l, "a", "10.1.0.0/24", NULL, "10.1.0.2");
        expect_taken(&l, "a", "fd00::/64", NULL, "fd00::2");
        cr_assert_eq(leases_save(&l, path, &why), 0, "%s", why.text);
        cr_assert_eq(leases_load(path, &again, &why), 0, "%s", why.text);
        (void) unlink(path);

        cr_expect_eq(again.n, 2);
        cr_assert_not_null(leases_find(&again, "a", &cidr));
        cr_expect(address_equal(leases_find(&again, "a", &cidr), &l.items[0].addr));
        cr_expect_null(leases_find(&again, "a", &other));
        cr_expect_null(leases_find(&again, "b", &cidr));
}

Test(leases, a_missing_file_is_empty_and_a_broken_one_is_named_with_its_line)
{
        _cleanup_(leases_done) struct leases l = { 0 };
        char path[] = "/tmp/weft-leases-XXXXXX";
        struct weft_error why = { 0 };

        cr_expect_eq(leases_load("/nonexistent/weft", &l, &why), 0);
        cr_expect_eq(l.n, 0);

        closep(&(int) { mkstemp(path) });
        cr_assert_eq(file_replace(path, "a 10.1.0.2\nb\n", &why), 0);
        cr_expect_eq(leases_load(path, &l, &why), -EINVAL);
        cr_expect_not_null(strstr(why.text, ":2:"), "%s", why.text);
        (void) unlink(path);
}
