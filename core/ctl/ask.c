/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What verbs do: ask the daemon, print, fail. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ctl/client.h"
#include "ctl/output.h"
#include "ctl/verbs.h"
#include "util.h"

int fail(const char *text)
{
        (void) fprintf(stderr, "weftctl: %s\n", text);
        return EXIT_FAILED;
}

int usage(const char *what, const char *which)
{
        (void) fprintf(stderr, "weftctl: %s%s%s%s (see weftctl --help)\n", what, which ? " \"" : "",
                       which ?: "", which ? "\"" : "");
        return EXIT_USAGE;
}

int print_json(const json_t *j)
{
        if (json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) < 0)
                return fail("cannot write to stdout");

        (void) putchar('\n');
        return EXIT_OK;
}

enum exit_code call_failed(int r, const struct weft_error *why)
{
        (void) fail(why->text);
        if (r == -EACCES || r == -EPERM)
                return EXIT_DENIED;

        return r == -ENOENT || r == -ECONNREFUSED ? EXIT_NO_DAEMON : EXIT_FAILED;
}

/* Methods that only read bear such names. A socket that systemd listens on would start weftd for
 * them, too; who looks whether it runs must not make it run. */
static bool only_reads(const char *method)
{
        static const char *const prefixes[] = { "Get", "List", "Plan" };

        for (size_t i = 0; i < ELEMENTS(prefixes); i++)
                if (strncmp(method, prefixes[i], strlen(prefixes[i])) == 0)
                        return true;

        return false;
}

int call_check(const struct call *c, const char *method, struct weft_error *reterr)
{
        if (call_value(c, &option_socket) || !only_reads(method) || lock_is_held(&c->paths))
                return 0;

        return weft_fail(reterr, -ECONNREFUSED,
                         "weftd does not run, and looking does not start it: systemctl start "
                         "weftd, or name its --root or --socket");
}

int call_get(const struct call *c, const char *method, json_t *parameters, bool more, json_t **ret)
{
        struct weft_error why = { 0 };
        int r = call_check(c, method, &why);

        if (r == 0)
                r = client_call(call_socket(c), method, parameters, more, ret, &why);
        else
                json_decref(parameters);

        return r < 0 ? call_failed(r, &why) : EXIT_OK;
}

int call_show(const struct call *c, const json_t *reply,
              void (*show)(const json_t *reply, FILE *f, unsigned width))
{
        if (call_has(c, &option_json))
                return print_json(reply);

        if (show)
                show(reply, stdout, terminal_width());
        return EXIT_OK;
}

int call_ask(const struct call *c, const char *method, json_t *parameters, bool more,
             void (*show)(const json_t *reply, FILE *f, unsigned width))
{
        json_auto_t *reply = NULL;
        int code = call_get(c, method, parameters, more, &reply);

        return code == EXIT_OK ? call_show(c, reply, show) : code;
}
