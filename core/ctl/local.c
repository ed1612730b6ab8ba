/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs that need no daemon. */

#include <errno.h>
#include <stdio.h>

#include "ctl/cleanup.h"
#include "ctl/describe.h"
#include "ctl/probe.h"
#include "ctl/output.h"
#include "ctl/verbs.h"
#include "util.h"

/* ---- probe -------------------------------------------------------------------------------- */

static int probe(const struct call *c)
{
        _cleanup_free_ const char **dirs = call_values(c, &option_module_dir, WEFT_MODULE_DIR);
        struct weft_error why = { 0 };
        json_auto_t *report = NULL;
        int r;

        if (!dirs)
                return fail("out of memory");

        r = probe_report(c->paths.root, dirs, &report, &why);
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
        int r = cleanup(&c->paths, stdout, &why);

        if (r == -EACCES || r == -EPERM)
                return call_failed(r, &why);

        return r < 0 ? fail(why.text) : EXIT_OK;
}

const struct verb verb_cleanup = {
        .name = "cleanup",
        .summary = "take everything of weft off this node; stops a daemon that runs",
        .run = clean,
};
