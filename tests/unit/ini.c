/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "config/ini.h"
#include "util.h"

/* What was read, one line for each item: "LINE [SECTION] KEY=VALUE". */
struct reading {
        char items[8192];
        struct diagnostics diagnostics;
};

static void note(void *data, const struct ini_item *item)
{
        struct reading *r = data;
        size_t n = strlen(r->items);

        (void) snprintf(r->items + n, sizeof(r->items) - n, "%u [%s]%s%s%s%s\n", item->origin.line,
                        item->section, item->key ? " " : "", item->key ?: "", item->key ? "=" : "",
                        item->value ?: "");
}

static void read_bytes(struct reading *r, const char *bytes, size_t n)
{
        FILE *f = fmemopen((void *) bytes, n, "r");

        *r = (struct reading) {};
        cr_assert_not_null(f);
        cr_expect_eq(ini_read(f, "test.conf", note, r, &r->diagnostics), 0);
        (void) fclose(f);
}

static void read_text(struct reading *r, const char *text)
{
        read_bytes(r, text, strlen(text));
}

Test(ini, assignments_carry_their_section_and_line)
{
        struct reading r;

        read_text(&r, "# comment\n[weft]\nmode = strict\n\n[peer n2]\naddress=192.0.2.12\n");
        cr_expect_str_eq(r.items, "2 [weft]\n3 [weft] mode=strict\n5 [peer n2]\n"
                                  "6 [peer n2] address=192.0.2.12\n");
        cr_expect_eq(r.diagnostics.n, 0);
}

Test(ini, a_section_without_keys_is_seen)
{
        struct reading r;

        read_text(&r, "[module nodeport-snat]\n[module bpf-masq]");
        cr_expect_str_eq(r.items, "1 [module nodeport-snat]\n2 [module bpf-masq]\n");
}

Test(ini, what_is_allowed_is_read)
{
        static const struct {
                const char *text, *items;
        } rows[] = {
                { "[a]\nk = v ; comment\n", "1 [a]\n2 [a] k=v\n" },
                { "[a]\nk = v;no comment\n", "1 [a]\n2 [a] k=v;no comment\n" },
                { "[a]\nk = v # no comment\n", "1 [a]\n2 [a] k=v # no comment\n" },
                { "[a] ; comment\n", "1 [a]\n" },
                { "; comment\n#[b]\n[a]\n", "3 [a]\n" },
                { "[a]\nk =\n", "1 [a]\n2 [a] k=\n" },
                { "[a]\nk = ; comment\n", "1 [a]\n2 [a] k=\n" },
                { "[a]\nk = a=b\n", "1 [a]\n2 [a] k=a=b\n" },
                { "[a]\nk = [fd00::1]:80\n", "1 [a]\n2 [a] k=[fd00::1]:80\n" },
                { "[a]\r\nk = v\r\n", "1 [a]\n2 [a] k=v\n" },
                { "\xef\xbb\xbf[a]\nk = v\n", "1 [a]\n2 [a] k=v\n" },
                { "[a]\nk = \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\n",
                  "1 [a]\n2 [a] k=\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\n" },
                { "[a]\n   \n\t\nk = v", "1 [a]\n4 [a] k=v\n" },
                { "", "" },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct reading r;

                read_text(&r, rows[i].text);
                cr_expect_str_eq(r.items, rows[i].items, "row %zu gave %s", i, r.items);
                cr_expect_eq(r.diagnostics.n, 0, "row %zu: %s", i,
                             r.diagnostics.n ? r.diagnostics.items[0].text : "");
                diagnostics_done(&r.diagnostics);
        }
}

Test(ini, what_inih_would_cut_or_join_is_refused_by_line)
{
        static const struct {
                const char *text;
                unsigned line;
                const char *says, *items;
        } rows[] = {
                { "[a]\nkey: value\n", 2, "write KEY = VALUE", "1 [a]\n" },
                { "[a]\nkey : a=b\n", 2, "write KEY = VALUE", "1 [a]\n" },
                { "[a]\n  k = v\n", 2, "indented", "1 [a]\n" },
                { "[a]\nk = v\n\tmore\n", 3, "indented", "1 [a]\n2 [a] k=v\n" },
                { " [a]\nk = v\n", 1, "indented", "" },
                { "[a] b\nk = v\n", 1, "text follows", "" },
                { "[a]b\nk = v\n", 1, "text follows", "" },
                { "[a\nk = v\n", 1, "no \"]\"", "" },
                { "[a]\nword\n", 2, "neither", "1 [a]\n" },
                { "[a]\nword ; k = v\n", 2, "neither", "1 [a]\n" },
                { "[a]\n= v\n", 2, "no key", "1 [a]\n" },
                { "k = v\n[a]\n", 1, "before the first section", "2 [a]\n" },
                { "[a]\nk = \xff\nl = w\n", 2, "not UTF-8", "1 [a]\n3 [a] l=w\n" },
                { "[a]\nk = \xc0\xaf\n", 2, "not UTF-8", "1 [a]\n" },
                { "[a]\nk = \xed\xa0\x80\n", 2, "not UTF-8", "1 [a]\n" },
                { "[a]\nk = \xf4\x90\x80\x80\n", 2, "not UTF-8", "1 [a]\n" },
                { "[a]\nk = \xe2\x82\n", 2, "not UTF-8", "1 [a]\n" },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct reading r;

                read_text(&r, rows[i].text);
                cr_expect_str_eq(r.items, rows[i].items, "row %zu gave %s", i, r.items);
                cr_assert_eq(r.diagnostics.n, 1, "row %zu: %zu diagnostics", i, r.diagnostics.n);
                cr_expect_eq(r.diagnostics.items[0].origin.line, rows[i].line, "row %zu", i);
                cr_expect_str_eq(r.diagnostics.items[0].origin.file, "test.conf");
                cr_expect(strstr(r.diagnostics.items[0].text, rows[i].says), "row %zu says %s", i,
                          r.diagnostics.items[0].text);
                diagnostics_done(&r.diagnostics);
        }
}

Test(ini, nul_bytes_are_refused)
{
        static const char bytes[] = "[a]\nk = v\0w\nl = x\n";
        struct reading r;

        read_bytes(&r, bytes, sizeof(bytes) - 1);
        cr_expect_str_eq(r.items, "1 [a]\n3 [a] l=x\n");
        cr_assert_eq(r.diagnostics.n, 1);
        cr_expect_eq(r.diagnostics.items[0].origin.line, 2);
        cr_expect(strstr(r.diagnostics.items[0].text, "NUL"));
        diagnostics_done(&r.diagnostics);
}

Test(ini, a_line_of_198_bytes_is_whole_and_one_of_199_refused)
{
        char text[512], value[256];
        struct reading r;

        for (int n = 198; n <= 199; n++) {
                (void) snprintf(value, sizeof(value), "%0*d", n - 4, 7);
                (void) snprintf(text, sizeof(text), "[a]\nk = %s\nl = w\n", value);
                read_text(&r, text);
                cr_expect_eq(strstr(r.items, value) != NULL, n == 198, "%d bytes", n);
                cr_expect_not_null(strstr(r.items, "3 [a] l=w"), "%d bytes", n);
                cr_assert_eq(r.diagnostics.n, n == 198 ? 0 : 1, "%d bytes", n);
                if (n == 199)
                        cr_expect(strstr(r.diagnostics.items[0].text, "repeating the key"));
                diagnostics_done(&r.diagnostics);
        }
}

Test(ini, a_section_name_of_48_bytes_is_whole_and_one_of_49_refused)
{
        char text[512];
        struct reading r;

        for (int n = 48; n <= 49; n++) {
                (void) snprintf(text, sizeof(text), "[%0*d]\nk = v\n", n, 7);
                read_text(&r, text);
                cr_expect_eq(r.diagnostics.n, n == 48 ? 0 : 1, "%d bytes", n);
                cr_expect_eq(strstr(r.items, "k=v") != NULL, n == 48, "%d bytes", n);
                diagnostics_done(&r.diagnostics);
        }
}

Test(ini, keys_below_a_refused_header_belong_to_nobody_until_the_next_one)
{
        struct reading r;

        read_text(&r, "[a]\nk = v\n[b] junk\nl = w\n[c]\nm = x\n");
        cr_expect_str_eq(r.items, "1 [a]\n2 [a] k=v\n5 [c]\n6 [c] m=x\n");
        cr_expect_eq(r.diagnostics.n, 1);
        diagnostics_done(&r.diagnostics);
}

Test(ini, every_bad_line_is_reported)
{
        struct reading r;

        read_text(&r, "[a]\nx\nk: v\n y = z\nk = v\n");
        cr_expect_eq(r.diagnostics.n, 3);
        cr_expect_str_eq(r.items, "1 [a]\n5 [a] k=v\n");
        diagnostics_done(&r.diagnostics);
}
