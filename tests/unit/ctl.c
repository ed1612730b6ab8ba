/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <string.h>

#include "ctl/output.h"
#include "ctl/show.h"
#include "ctl/table.h"
#include "util.h"

/* What f prints, as a string. */
static char *printed(void (*show)(const json_t *, FILE *, unsigned), const char *json,
                     unsigned width)
{
        json_error_t why;
        json_auto_t *reply = json_loads(json, 0, &why);
        char *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        cr_assert_not_null(reply, "%s", why.text);
        show(reply, f, width);
        (void) fclose(f);

        return text;
}

static const struct column two[] = { { "NAME", 0 }, { "COUNT", 1 }, { 0 } };

static char *small_table(unsigned width)
{
        struct table *t = table_new(two);
        char *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        table_cell(t, "a");
        table_cell(t, "%d", 7);
        table_cell(t, "a-much-longer-name");
        table_cell(t, "%d", 123456);
        table_print(t, f, width);
        t = table_free(t);
        (void) fclose(f);

        return text;
}

Test(ctl, columns_are_as_wide_as_their_content_and_numbers_stand_right)
{
        _cleanup_free_ char *text = small_table(0);

        cr_expect_str_eq(text, "NAME                 COUNT\n"
                               "a                        7\n"
                               "a-much-longer-name  123456\n");
}

Test(ctl, on_a_narrow_terminal_the_widest_column_is_cut)
{
        _cleanup_free_ char *text = small_table(18);

        cr_expect_str_eq(text, "NAME         COUNT\n"
                               "a                7\n"
                               "a-much-lo…  123456\n");
}

Test(ctl, a_narrow_terminal_loses_the_columns_that_may_be_missed_first)
{
        static const struct column columns[] = {
                { "NAME" }, { "LESS", .drop = 1 }, { "LEAST", .drop = 2 }, { "WHY", .wrap = 1 }, {}
        };
        static const struct {
                unsigned width;
                const char *text;
        } rows[] = {
                { 0, "NAME  LESS  LEAST  WHY\n"
                     "web   no    no     it is a long story … of several words and more\n" },
                { 60, "NAME  LESS  WHY\n"
                      "web   no    it is a long story … of several words and more\n" },
                { 40, "NAME  WHY\n"
                      "web   it is a long story … of several\n"
                      "      words and more\n" },
        };

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct table *t = table_new(columns);
                _cleanup_free_ char *text = NULL;
                size_t size;
                FILE *f = open_memstream(&text, &size);

                table_cell(t, "web");
                table_cell(t, "no");
                table_cell(t, "no");
                table_cell(t, "it is a long story … of several words and more");
                table_print(t, f, rows[i].width);
                (void) table_free(t);
                (void) fclose(f);
                cr_expect_str_eq(text, rows[i].text);
        }
}

Test(ctl, rows_in_several_parts_are_one_table)
{
        struct table *t = table_new(two);
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        for (int i = 0; i < 2; i++) {
                table_cell(t, "%s", i == 0 ? "longer" : "a");
                table_cell(t, "%d", i);
                table_print(t, f, 0);
        }
        (void) table_free(t);
        (void) fclose(f);
        cr_expect_str_eq(text, "NAME    COUNT\nlonger      0\na           1\n");
}

Test(ctl, states_have_a_colour_where_there_are_colours_and_it_takes_no_room)
{
        static const struct column columns[] = { { "STATE" }, { "NAME" }, {} };

        for (int on = 0; on < 2; on++) {
                struct table *t = table_new(columns);
                _cleanup_free_ char *text = NULL;
                size_t size;
                FILE *f = open_memstream(&text, &size);

                output_colours(on);
                table_state(t, "on");
                table_cell(t, "x");
                table_print(t, f, 0);
                (void) table_free(t);
                (void) fclose(f);
                cr_expect_str_eq(text, on ? "\x1b[4mSTATE\x1b[0m  \x1b[4mNAME\x1b[0m\n"
                                            "\x1b[32mon\x1b[0m     x\n"
                                          : "STATE  NAME\non     x\n");
        }
        output_colours(false);
}

Test(ctl, sizes_and_ages_are_short)
{
        static const struct {
                unsigned long long n;
                const char *text;
        } sizes[] = { { 0, "0" },
                      { 1023, "1023" },
                      { 1024, "1.0K" },
                      { 10240, "10K" },
                      { 5 << 20, "5.0M" } },
          ages[] = {
                  { 0, "0s" }, { 119, "119s" }, { 120, "2min" }, { 7200, "2h" }, { 172800, "2d" }
          };
        char buf[24];

        for (size_t i = 0; i < ELEMENTS(sizes); i++)
                cr_expect_str_eq(size_text(sizes[i].n, buf), sizes[i].text);
        for (size_t i = 0; i < ELEMENTS(ages); i++)
                cr_expect_str_eq(age_text((long long) ages[i].n, buf), ages[i].text);
}

static void show_flows(const json_t *reply, FILE *f, unsigned width)
{
        struct table *t = flow_table_new();

        show_flow_rows(t, json_object_get(reply, "flows"), f, width);
        (void) table_free(t);
}

#define FLOW(addr1, addr2, new2, extra)                                                            \
        "{\"flows\":[{\"protocol\":\"tcp\",\"side\":\"uplink\",\"source\":\"" addr1                \
        "\",\"source_port\":40000,"                                                                \
        "\"destination\":\"" addr2 "\",\"destination_port\":30080,\"new_source\":\"" addr1 "\","   \
        "\"new_source_port\":40000,\"new_destination\":\"" new2                                    \
        "\",\"new_destination_port\":30080,"                                                       \
        "\"state\":\"established\",\"reply\":false,\"expired\":false,\"module\":\"nodeport-"       \
        "snat\","                                                                                  \
        "\"delivery\":\"wire\",\"age_seconds\":5,\"expires_seconds\":100,\"packets\":3,\"bytes\":" \
        "2048}"                                                                                    \
        "]" extra "}"

Test(ctl, a_flow_shows_its_tuple_and_its_translation)
{
        _cleanup_free_ char *text =
                printed(show_flows, FLOW("10.0.0.9", "10.0.0.11", "10.244.2.10", ""), 0);

        cr_expect_not_null(strstr(text,
                                  "10.0.0.9:40000 -> 10.0.0.11:30080  "
                                  "=> 10.0.0.9:40000 -> 10.244.2.10:30080  uplink  established  "
                                  "nodeport-snat  wire"),
                           "%s", text);
        cr_expect_not_null(strstr(text, "5s        3   2.0K\n"), "%s", text);
}

Test(ctl, a_flow_that_is_not_translated_shows_a_dash_and_ipv6_has_brackets)
{
        _cleanup_free_ char *text =
                printed(show_flows, FLOW("fd00::1", "fd00::2", "fd00::2", ""), 0);

        cr_expect_not_null(strstr(text, "[fd00::1]:40000 -> [fd00::2]:30080  -  "), "%s", text);
        cr_expect_null(strstr(text, "=>"), "%s", text);
}

Test(ctl, a_chain_shows_hook_phase_module_stage_program_and_runs)
{
        _cleanup_free_ char *text =
                printed(show_chain,
                        "{\"stages\":[{\"hook\":\"from-uplink\",\"module\":\"engine\",\"stage\":"
                        "\"weft_from_"
                        "uplink\","
                        "\"program\":12,\"runs\":0},{\"hook\":\"from-uplink\",\"phase\":"
                        "\"service\",\"module\":"
                        "\"nodeport-snat\",\"stage\":\"nodeport\",\"program\":19,\"runs\":44}]}",
                        0);

        cr_expect_str_eq(text,
                         "HOOK         PHASE    MODULE         STAGE             PROGRAM  RUNS\n"
                         "from-uplink  entry    engine         weft_from_uplink       12     -\n"
                         "from-uplink  service  nodeport-snat  nodeport               19    44\n");
}

Test(ctl, a_chain_says_which_hooks_are_not_replayed_in_xdp)
{
        _cleanup_free_ char *text =
                printed(show_chain,
                        "{\"stages\":[{\"hook\":\"from-uplink\",\"phase\":\"early\",\"module\":"
                        "\"watcher\",\"stage\":\"watch\",\"program\":19,\"runs\":44}],"
                        "\"not_replayed\":[{\"hook\":\"from-uplink\",\"module\":\"watcher\","
                        "\"stage\":\"watch\",\"reason\":\"early\"}]}",
                        0);

        cr_expect_str_eq(text, "HOOK         PHASE  MODULE   STAGE  PROGRAM  RUNS\n"
                               "from-uplink  early  watcher  watch       19    44\n"
                               "\n"
                               "from-uplink is not replayed in XDP: stage watch of module watcher "
                               "sees every packet\n");
}

Test(ctl, status_shows_only_the_sections_that_have_something)
{
        _cleanup_free_ char *text = printed(
                show_status,
                "{\"node\":\"n1\",\"version\":\"0.1.0\",\"generation\":3,\"attach\":\"tcx\","
                "\"addresses\":[],"
                "\"pod_cidrs\":[\"10.244.1.0/"
                "24\"],\"uplinks\":[],\"modules\":[],\"peers\":[],\"services\":[],"
                "\"endpoints\":[{\"name\":\"web\",\"addresses\":[\"10.244.1.10\"],\"identity\":7,"
                "\"state\":\"pending\",\"reason\":\"no "
                "namespace\"}],\"flows\":{\"new\":1,\"established\":2,"
                "\"closing\":3,\"expired\":4},\"drops\":[],\"forwards\":[],\"events\":[],\"table_"
                "bytes\":2097152}",
                0);

        cr_expect_not_null(strstr(text, "Generation  3, attached by tcx\n"), "%s", text);
        cr_expect_not_null(strstr(text, "Addresses   none; pods 10.244.1.0/24\n"), "%s", text);
        cr_expect_not_null(strstr(text, "2 established, 1 new, 3 closing, 4 expired\n"), "%s",
                           text);
        cr_expect_not_null(strstr(text, "Tables      2.0M\n"), "%s", text);
        cr_expect_not_null(strstr(text, "web   pending  10.244.1.10"), "%s", text);
        cr_expect_null(strstr(text, "Dropped"), "%s", text);
        cr_expect_null(strstr(text, "Peers"), "%s", text);
}

Test(ctl, a_dry_run_shows_each_module_and_what_becomes_of_it)
{
        _cleanup_free_ char *text =
                printed(show_plan,
                        "{\"changes\": [{\"module\": \"bpf-masq\", \"change\": \"replaced\"},"
                        " {\"module\": \"other\", \"change\": \"removed\"}]}",
                        80);
        _cleanup_free_ char *none = printed(show_plan, "{\"changes\": []}", 80);

        cr_assert_str_eq(text, "MODULE    CHANGE\nbpf-masq  replaced\nother     removed\n");
        cr_assert_str_eq(none, "no module runs or would run\n");
}
