/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "config/option.h"
#include "config/values.h"
#include "util.h"

struct sample {
        bool flag;
        uint16_t port;
        uint32_t count;
        uint64_t size, time;
        uint32_t colour;
        char *text;
        struct weft_ports ports;
        struct weft_prefixes prefixes;
        struct weft_addresses addresses;
};

static const char *const colours[] = { "red", "green", "blue", NULL };

static const struct weft_option options[] = {
        WEFT_OPT_BOOL(struct sample, flag, "flag", "yes", ""),
        WEFT_OPT_U16(struct sample, port, "port", "8472", 1, 65535, ""),
        WEFT_OPT_U32(struct sample, count, "count", "3", 0, 10, ""),
        WEFT_OPT_SIZE(struct sample, size, "size", "64K", 1024, 1 << 20, ""),
        WEFT_OPT_TIME(struct sample, time, "time", "10s", 100, 3600000, ""),
        WEFT_OPT_ENUM(struct sample, colour, "colour", "green", colours, ""),
        WEFT_OPT_STRING(struct sample, text, "text", "hello", ""),
        WEFT_OPT_PORTS(struct sample, ports, "ports", "30000-32767", ""),
        WEFT_OPT_PREFIXES(struct sample, prefixes, "prefixes", "10.0.0.0/8, fd00::/8", ""),
        WEFT_OPT_ADDRESSES(struct sample, addresses, "addresses", "", ""),
        {}
};

struct filled {
        struct sample s;
        struct diagnostics diagnostics;
        int r;
};

/* Up to two assignments, on lines 1 and 2; key NULL: none. */
static struct filled fill(const char *key, const char *value, const char *key2, const char *value2)
{
        struct config_assignment a[] = {
                { (char *) key, (char *) value, { "m.conf", 1 } },
                { (char *) key2, (char *) value2, { "m.conf", 2 } },
        };
        struct filled f = {};

        f.r = options_fill(options, &f.s, "module sample", a, !!key + !!key2, &f.diagnostics);
        return f;
}

static void done(struct filled *f)
{
        options_free(options, &f->s);
        diagnostics_done(&f->diagnostics);
}

Test(option, an_empty_section_gives_the_defaults)
{
        struct filled f = fill(NULL, NULL, NULL, NULL);

        cr_expect_eq(f.r, 0);
        cr_expect(f.s.flag);
        cr_expect_eq(f.s.port, 8472);
        cr_expect_eq(f.s.count, 3);
        cr_expect_eq(f.s.size, 65536);
        cr_expect_eq(f.s.time, 10000);
        cr_expect_eq(f.s.colour, 1);
        cr_expect_str_eq(f.s.text, "hello");
        cr_expect_eq(f.s.ports.low, 30000);
        cr_expect_eq(f.s.ports.high, 32767);
        cr_expect_eq(f.s.prefixes.n, 2);
        cr_expect_eq(f.s.addresses.n, 0);
        done(&f);
}

Test(option, every_type_reads_its_values)
{
        struct filled f = fill("flag", "off", "port", "0x50");

        cr_expect_not(f.s.flag);
        cr_expect_eq(f.s.port, 80);
        done(&f);

        f = fill("size", "1M", "time", "500ms");
        cr_expect_eq(f.s.size, 1 << 20);
        cr_expect_eq(f.s.time, 500);
        done(&f);

        f = fill("colour", "blue", "text", "a, b");
        cr_expect_eq(f.s.colour, 2);
        cr_expect_str_eq(f.s.text, "a, b");
        done(&f);

        f = fill("ports", "auto", "addresses", "10.0.0.1 ,fd00::1");
        cr_expect_eq(f.s.ports.high, 0);
        cr_expect_eq(f.s.addresses.n, 2);
        done(&f);
}

Test(option, a_later_assignment_wins)
{
        struct filled f = fill("count", "4", "count", "5");

        cr_expect_eq(f.s.count, 5);
        done(&f);

        f = fill("text", "one", "text", "two");
        cr_expect_str_eq(f.s.text, "two");
        done(&f);
}

Test(option, an_empty_assignment_gives_the_default_back)
{
        struct filled f = fill("count", "4", "count", "");

        cr_expect_eq(f.s.count, 3);
        done(&f);
}

Test(option, an_empty_string_is_a_value)
{
        struct filled f = fill("text", "", NULL, NULL);

        cr_expect_str_eq(f.s.text, "");
        done(&f);
}

Test(option, a_list_replaces_its_default_and_grows_with_each_line)
{
        struct filled f = fill("prefixes", "192.0.2.0/24", "prefixes", "198.51.100.0/24,fd00::/64");

        cr_expect_eq(f.s.prefixes.n, 3);
        done(&f);
}

Test(option, an_empty_assignment_resets_a_list)
{
        struct filled f = fill("prefixes", "192.0.2.0/24", "prefixes", "");

        cr_expect_eq(f.s.prefixes.n, 0);
        done(&f);

        f = fill("prefixes", "", "prefixes", "192.0.2.0/24");
        cr_expect_eq(f.s.prefixes.n, 1);
        done(&f);
}

Test(option, a_set_of_prefixes_has_a_name)
{
        struct filled f = fill("prefixes", "rfc1918, fd00::/8", NULL, NULL);

        cr_expect_eq(f.r, 0);
        cr_expect_eq(f.s.prefixes.n, 12);
        done(&f);
}

Test(option, every_refusal_says_what_would_be_right)
{
        static const struct {
                const char *key, *value, *says;
        } rows[] = {
                { "flag", "maybe", "must be yes or no" },
                { "port", "0", "must be from 1 to 65535" },
                { "port", "65536", "must be from 1 to 65535" },
                { "port", "http", "must be a number" },
                { "count", "11", "must be from 0 to 10" },
                { "count", "-1", "must be a number" },
                { "size", "1", "must be from 1024 to 1048576" },
                { "size", "2M", "must be from 1024 to 1048576" },
                { "size", "64k", "K, M or G" },
                { "time", "10", "with its unit" },
                { "time", "99ms", "must be from 100ms to 3600000ms" },
                { "colour", "gren", "one of red, green, blue; did you mean \"green\"?" },
                { "colour", "mauve", "one of red, green, blue" },
                { "ports", "9-3", "a range LOW-HIGH" },
                { "prefixes", "10.0.0.1/8",
                  "\"10.0.0.1/8\" has bits set behind its length: write "
                  "10.0.0.0/8" },
                { "prefixes", "::/0", "would cover IPv4 as well" },
                { "prefixes", "rfc1819", "\"rfc1819\" is no prefix (did you mean \"rfc1918\"?)" },
                { "prefixes", "10.0.0.0/8,,fd00::/8", "between two commas" },
                { "prefixes", "10.0.0.0/8,", "between two commas" },
                { "addresses", "10.0.0.0/8", "\"10.0.0.0/8\" is no address" },
                { "addresses", "10.0.0.1, 224.0.0.1",
                  "\"224.0.0.1\" is no address that other hosts reach" },
                { "prot", "1", "unknown key, did you mean \"port\"?" },
                { "enable", "yes", "unknown key, did you mean \"enabled\"?" },
                { "weather", "1", "unknown key; known: " },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct filled f = fill(rows[i].key, rows[i].value, NULL, NULL);
                char start[128];

                (void) snprintf(start, sizeof(start), "[module sample] %s = %s: ", rows[i].key,
                                rows[i].value);
                cr_expect_eq(f.r, -EINVAL, "%s", start);
                cr_assert_eq(f.diagnostics.n, 1, "%s", start);
                cr_expect_eq(strncmp(f.diagnostics.items[0].text, start, strlen(start)), 0, "%s",
                             f.diagnostics.items[0].text);
                cr_expect(strstr(f.diagnostics.items[0].text, rows[i].says), "%s",
                          f.diagnostics.items[0].text);
                cr_expect_str_eq(f.diagnostics.items[0].origin.file, "m.conf");
                cr_expect_eq(f.diagnostics.items[0].origin.line, 1);
                done(&f);
        }
}

Test(option, all_refusals_are_collected)
{
        struct filled f = fill("port", "0", "wether", "fine");

        cr_expect_eq(f.r, -EINVAL);
        cr_expect_eq(f.diagnostics.n, 2);
        done(&f);
}

Test(option, a_module_without_options_knows_no_key)
{
        struct config_assignment a = { (char *) "port", (char *) "1", { "m.conf", 1 } };
        struct diagnostics diagnostics = {};

        cr_expect_eq(options_fill(NULL, NULL, "module m", NULL, 0, &diagnostics), 0);
        cr_expect_eq(options_fill(NULL, NULL, "module m", &a, 1, &diagnostics), -EINVAL);
        cr_expect_eq(diagnostics.n, 1);
        diagnostics_done(&diagnostics);
}
