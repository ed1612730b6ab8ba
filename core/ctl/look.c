/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs that look at a running daemon, and reload. */

#include <weft/types.h>

#include "ctl/show.h"
#include "ctl/verbs.h"
#include "names.h"

const struct verb verb_status = {
        .name = "status",
        .summary = "node, generation, modules, endpoints, peers, services, flows, drops",
        .paged = true,
        .method = "GetStatus",
        .show = show_status,
};

const struct verb verb_modules = {
        .name = "modules",
        .summary = "which modules run, what they do, and why others do not",
        .paged = true,
        .method = "ListModules",
        .show = show_modules,
};

const struct verb verb_metrics = {
        .name = "metrics",
        .summary = "what the node counts, as Prometheus reads it",
        .text = "The same text is served to Prometheus itself, see metrics-listen in weft.conf.",
        .paged = true,
        .method = "GetMetrics",
        .show = show_metrics,
};

static const struct values hooks = { .words = hook_names };

const struct verb verb_chain = {
        .name = "chain",
        .operands = "[HOOK]",
        .summary = "the computed order of stages",
        .most = 1,
        .values = { &hooks },
        .paged = true,
        .method = "GetChain",
        .operand = "hook",
        .show = show_chain,
};

static const struct ctl_option option_dry_run = {
        "dry-run",
        NULL,
        "say what it would add, replace, reconfigure, remove and keep",
};

static int reload(const struct call *c)
{
        return call_has(c, &option_dry_run) ? call_ask(c, "PlanReload", NULL, false, show_plan)
                                            : call_ask(c, "Reload", NULL, false, show_reload);
}

const struct verb verb_reload = {
        .name = "reload",
        .summary = "read the configuration again and switch to it",
        .options = (const struct ctl_option *const[]) { &option_dry_run, NULL },
        .run = reload,
};
