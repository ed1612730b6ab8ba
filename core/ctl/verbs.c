/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "ctl/completion.h"
#include "ctl/verbs.h"
#include "util.h"

/* Each is in the file of its noun. */
extern const struct verb verb_status, verb_modules, verb_module_describe, verb_probe, verb_check,
        verb_cat_config, verb_reload, verb_chain, verb_flows, verb_metrics, verb_cleanup,
        verb_endpoint_list, verb_endpoint_add, verb_endpoint_del, verb_peer_list, verb_peer_add,
        verb_peer_del, verb_service_list, verb_service_show, verb_service_set, verb_service_del,
        verb_backend_drain, verb_backend_maintenance, verb_backend_activate;

/* clang-format off: one for each line */
const struct verb *const verbs[] = {
        &verb_status,
        &verb_modules,
        &verb_module_describe,
        &verb_probe,
        &verb_check,
        &verb_cat_config,
        &verb_reload,
        &verb_chain,
        &verb_endpoint_list,
        &verb_endpoint_add,
        &verb_endpoint_del,
        &verb_peer_list,
        &verb_peer_add,
        &verb_peer_del,
        &verb_service_list,
        &verb_service_show,
        &verb_service_set,
        &verb_service_del,
        &verb_backend_drain,
        &verb_backend_maintenance,
        &verb_backend_activate,
        &verb_flows,
        &verb_metrics,
        &verb_cleanup,
        NULL,
};
/* clang-format on */

static const struct values any_file = { .files = "*" }, any_directory = { .directories = true },
                           shells = { .words = completion_shells };

const struct ctl_option option_json = {
        "json",
        NULL,
        "print the daemon's reply as it is",
};
const struct ctl_option option_no_pager = {
        "no-pager",
        NULL,
        "print long answers as they are, on a terminal, too",
        .unpaged = true,
};
const struct ctl_option option_root = {
        "root",
        "DIR",
        "the instance of weftd --root DIR",
        &any_directory,
};
const struct ctl_option option_bpffs = {
        "bpffs",
        "DIR",
        "the instance of weftd --bpffs DIR (/sys/fs/bpf/weft)",
        &any_directory,
};
const struct ctl_option option_socket = {
        "socket",
        "PATH",
        "the control socket (ROOT/run/weft/control)",
        &any_file,
};
const struct ctl_option option_completion = {
        "completion",
        "SHELL",
        "print the shell's completion of this command line",
        &shells,
};
const struct ctl_option option_help = {
        "help",
        NULL,
        "this text; with a verb, what is to be said of it",
};
const struct ctl_option option_version = {
        "version",
        NULL,
        "version",
};
const struct ctl_option option_module_dir = {
        "module-dir",
        "DIR",
        "look for modules here before the installed ones; repeatable",
        &any_directory,
        .repeatable = true,
};

const struct ctl_option *const global_options[] = {
        &option_json,       &option_no_pager, &option_root,    &option_bpffs, &option_socket,
        &option_completion, &option_help,     &option_version, NULL,
};

const struct exit_meaning exit_meanings[] = {
        { EXIT_OK, "done" },
        { EXIT_FAILED, "failed, or refused by the daemon; stderr says why" },
        { EXIT_USAGE, "wrong usage" },
        { EXIT_NO_DAEMON, "no daemon answers" },
        { EXIT_DENIED, "not permitted to this user" },
        {},
};

const char *verb_in_group(const struct verb *v, const char *group)
{
        size_t n = strlen(group);

        return strncmp(v->name, group, n) == 0 && v->name[n] == ' ' ? v->name + n + 1 : NULL;
}

static bool is_among(const struct ctl_option *const *list, const struct ctl_option *o)
{
        for (size_t i = 0; list && list[i]; i++)
                if (list[i] == o)
                        return true;

        return false;
}

bool verb_takes(const struct verb *v, const struct ctl_option *o)
{
        return is_among(global_options, o) || is_among(v->options, o);
}

/* Of several verbs that share an option, the first one brings it in. */
static bool is_new(size_t verb, const struct ctl_option *o)
{
        for (size_t i = 0; i < verb; i++)
                if (is_among(verbs[i]->options, o))
                        return false;

        return true;
}

const struct ctl_option *option_number(size_t i)
{
        size_t n = ELEMENTS(global_options) - 1;

        if (i < n)
                return global_options[i];

        for (size_t v = 0; verbs[v]; v++)
                for (size_t o = 0; verbs[v]->options && verbs[v]->options[o]; o++)
                        if (is_new(v, verbs[v]->options[o]) && n++ == i)
                                return verbs[v]->options[o];

        return NULL;
}
