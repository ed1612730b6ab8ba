/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* weftctl probe: what this kernel has, and what each module that is found would make of it. */

#include <stdio.h>

#include <jansson.h>

#include "error.h"
#include "plan/plan.h"

/* {kernel, facts: [{kind, name, present, asked}], modules: [{name, file, verdict, reason}],
 * conflicts: [{what, remedy}]}; *ret is the caller's. root: whose configuration says which node
 * ports are in use. verdict: "use", "fallback" (something it wants is missing) or "refused". dirs:
 * of module files, ended by NULL; of one name the first counts. asked: by one of them. -EPERM:
 * nothing may be tried. */
int probe_report(const char *root, const char *const *dirs, json_t **ret,
                 struct weft_error *reterr);

/* The verdict on one module if it were asked for alone, but for what fills the roles that it needs.
 * row: what the plan says. available: all modules that were found. */
const char *probe_verdict(const struct weft_module *m, const struct weft_module *const *available,
                          size_t n_available, const struct fact *facts, size_t n_facts,
                          struct plan_row *ret_row);

void probe_show(const json_t *report, FILE *f, unsigned width);
