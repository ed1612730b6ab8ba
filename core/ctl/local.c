/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs that need no daemon. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "ctl/cleanup.h"
#include "ctl/describe.h"
#include "ctl/probe.h"
#include "ctl/table.h"
#include "ctl/verbs.h"
#include "util.h"

/* ---- check -------------------------------------------------------------------------------- */

static json_t *diagnostics_json(const struct diagnostics *diagnostics)
{
        json_t *list = json_array();

        for (size_t i = 0; i < diagnostics->n; i++) {
                const struct diagnostic *d = &diagnostics->items[i];

                (void) json_array_append_new(list,
                                             json_pack("{s:s, s:i, s:s}", "file", d->origin.file,
                                                       "line", d->origin.line, "text", d->text));
        }

        return json_pack("{s:o}", "diagnostics", list);
}

static int check(const struct call *call)
{
        struct diagnostics diagnostics = { 0 };
        struct config *c = NULL;
        char place[ORIGIN_TEXT];
        int r = config_load(call->paths.root, &c, &diagnostics);
        int code = r < 0 ? EXIT_FAILED : EXIT_OK;

        if (call_has(call, &option_json)) {
                json_auto_t *j = diagnostics_json(&diagnostics);

                (void) print_json(j);
        } else {
                for (size_t i = 0; i < diagnostics.n; i++)
                        (void) fprintf(
                                stderr, "%s: %s\n",
                                origin_format(&diagnostics.items[i].origin, place, sizeof(place)),
                                diagnostics.items[i].text);
                if (r == 0)
                        (void) printf("the configuration is valid (%zu file%s)\n", c->files.n,
                                      c->files.n == 1 ? "" : "s");
        }
        if (r < 0 && diagnostics.n == 0)
                (void) fprintf(stderr, "weftctl: cannot read the configuration: %s\n",
                               strerror(-r));

        diagnostics_done(&diagnostics);
        (void) config_free(c);

        return code;
}

const struct verb verb_check = {
        .name = "check",
        .summary = "read the configuration and say what is wrong; needs no daemon",
        .run = check,
};

/* ---- probe -------------------------------------------------------------------------------- */

static int probe(const struct call *c)
{
        _cleanup_free_ const char **dirs = call_values(c, &option_module_dir, WEFT_MODULE_DIR);
        struct weft_error why = { 0 };
        json_auto_t *report = NULL;
        int r;

        if (!dirs)
                return fail("out of memory");

        r = probe_report(dirs, &report, &why);
        if (r < 0)
                return call_failed(r, &why);
        if (call_has(c, &option_json))
                return print_json(report);

        probe_show(report, stdout, terminal_width());
        return EXIT_OK;
}

const struct verb verb_probe = {
        .name = "probe",
        .summary = "what this kernel has and what each module makes of it; needs no daemon",
        .options = (const struct ctl_option *const[]) { &option_module_dir, NULL },
        .paged = true,
        .run = probe,
};

/* ---- module describe ---------------------------------------------------------------------- */

static const struct values formats = { .words = description_formats },
                           module_files = { .files = "*.so" };

static const struct ctl_option option_format = {
        "format",
        "F",
        "how to print it",
        &formats,
};

static int describe(const struct call *c)
{
        const char *format = call_value(c, &option_format);
        struct description *d = NULL;
        struct weft_error why = { 0 };
        int r;

        if (!format)
                format = call_has(c, &option_json) ? "json" : "text";

        r = description_open(c->operands[0], &d, &why);
        if (r >= 0)
                r = description_print(d, format, stdout, &why);
        (void) description_close(d);

        return r < 0 ? fail(why.text) : EXIT_OK;
}

const struct verb verb_module_describe = {
        .name = "module describe",
        .operands = "FILE.so",
        .summary = "what a module file says of itself; loads it, needs no daemon and no root",
        .least = 1,
        .most = 1,
        .values = { &module_files },
        .options = (const struct ctl_option *const[]) { &option_format, NULL },
        .paged = true,
        .run = describe,
};

/* ---- cleanup ------------------------------------------------------------------------------ */

static int clean(const struct call *c)
{
        struct weft_error why = { 0 };

        return cleanup(&c->paths, stdout, &why) < 0 ? fail(why.text) : EXIT_OK;
}

const struct verb verb_cleanup = {
        .name = "cleanup",
        .summary = "take everything of weft off this node; stops a daemon that runs",
        .run = clean,
};
