/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The command line of weftctl, and the tables that it is read by. */

#include <criterion/criterion.h>
#include <string.h>

#include "ctl/verbs.h"
#include "util.h"

enum { WORDS_MAX = 8 };

static struct call call;
static struct weft_error why;

static int parse(const char *const *words)
{
        static char *argv[WORDS_MAX + 2]; /* the call points into it */
        int argc = 1;

        argv[0] = "weftctl";
        for (; words[argc - 1]; argc++)
                argv[argc] = (char *) words[argc - 1];

        argv[argc] = NULL;
        call_done(&call);
        why.text[0] = '\0';
        return call_parse(&call, argc, argv, &why);
}

#define PARSE(...) parse((const char *const[]) { __VA_ARGS__, NULL })

Test(verbs, options_may_stand_before_between_and_after_the_words)
{
        static const char *const orders[][WORDS_MAX] = {
                { "--json", "--root", "/r", "chain", "from-uplink" },
                { "chain", "--json", "from-uplink", "--root=/r" },
                { "chain", "from-uplink", "--root", "/r", "--json" },
        };

        for (size_t i = 0; i < ELEMENTS(orders); i++) {
                cr_assert_eq(parse(orders[i]), 0, "%s", why.text);
                cr_expect_str_eq(call.verb->name, "chain");
                cr_expect_eq(call.n_operands, 1);
                cr_expect_str_eq(call.operands[0], "from-uplink");
                cr_expect(call_has(&call, &option_json));
                cr_expect_str_eq(call.paths.root, "/r");
                cr_expect_str_eq(call_socket(&call), "/r/run/weft/control");
        }
        call_done(&call);
}

Test(verbs, a_verb_may_be_two_words)
{
        cr_assert_eq(PARSE("module", "describe", "x.so"), 0);
        cr_expect_str_eq(call.verb->name, "module describe");
        cr_expect_str_eq(call.operands[0], "x.so");
        call_done(&call);
}

Test(verbs, of_an_option_given_twice_the_last_counts_and_a_repeatable_one_keeps_all)
{
        _cleanup_free_ const char **dirs = NULL;

        cr_assert_eq(PARSE("--socket", "/a", "probe", "--module-dir", "/m", "--module-dir=/n",
                           "--socket", "/b"),
                     0);
        cr_expect_str_eq(call_socket(&call), "/b");

        dirs = call_values(&call, &option_module_dir, "/last");
        cr_expect_str_eq(dirs[0], "/m");
        cr_expect_str_eq(dirs[1], "/n");
        cr_expect_str_eq(dirs[2], "/last");
        cr_expect_null(dirs[3]);
        call_done(&call);
}

Test(verbs, what_cannot_be_meant_is_refused_with_what_would_be_right)
{
        static const struct {
                const char *words[WORDS_MAX], *why;
        } cases[] = {
                { { NULL }, "no verb given" },
                { { "stauts" }, "no such verb \"stauts\", did you mean \"status\"?" },
                { { "xyzzy" }, "no such verb \"xyzzy\"" },
                { { "module" }, "\"module\" must be followed by one of describe" },
                { { "module", "descibe", "x.so" },
                  "no such verb \"module descibe\", did you mean \"module describe\"?" },
                { { "modul", "describe", "x.so" },
                  "no such verb \"modul describe\", did you mean \"module describe\"?" },
                { { "module", "describe" }, "write: weftctl module describe FILE.so" },
                { { "chain", "from-uplnk" },
                  "from-uplnk: must be one of from-endpoint, to-endpoint, from-uplink, to-uplink, "
                  "from-overlay, xdp-uplink; did you mean \"from-uplink\"?" },
                { { "status", "x" }, "unexpected argument \"x\"" },
                { { "status", "--dry-run" }, "--dry-run is not for the verb status" },
                { { "status", "--jsn" }, "no such option \"--jsn\", did you mean \"--json\"?" },
                { { "status", "--jsn=yes" }, "no such option \"--jsn\", did you mean \"--json\"?" },
                { { "status", "-z" }, "no such option \"-z\"" },
                { { "status", "--root" }, "--root needs an argument" },
                { { "status", "--root", "r" }, "r: must be an absolute path" },
        };

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                cr_expect_lt(parse(cases[i].words), 0);
                cr_expect_str_eq(why.text, cases[i].why);
        }
        call_done(&call);
}

Test(verbs, help_needs_no_operand_and_may_be_asked_for_a_group)
{
        cr_expect_eq(PARSE("--help"), 0);
        cr_expect_null(call.verb);
        cr_expect_eq(PARSE("module", "describe", "--help"), 0);
        cr_expect_str_eq(call.verb->name, "module describe");
        cr_expect_eq(PARSE("module", "-h"), 0);
        cr_expect_null(call.verb);
        cr_expect_str_eq(call.group, "module");
        call_done(&call);
}

Test(verbs, the_tables_are_whole)
{
        const struct ctl_option *o, *other;

        for (size_t i = 0; verbs[i]; i++) {
                const struct verb *v = verbs[i];

                cr_expect_not_null(v->summary, "%s", v->name);
                cr_expect(v->run || (v->method && v->show), "%s does nothing", v->name);
                cr_expect_eq(v->most > 0, v->operands != NULL, "%s", v->name);
                cr_expect_leq(v->least, v->most, "%s", v->name);
                for (size_t j = 0; j < i; j++)
                        cr_expect_str_neq(v->name, verbs[j]->name);
        }

        for (size_t i = 0; (o = option_number(i)); i++)
                for (size_t j = 0; j < i; j++) {
                        other = option_number(j);
                        cr_expect_str_neq(o->name, other->name,
                                          "two verbs must share --%s, not each have its own",
                                          o->name);
                }
}
