/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which modules run, and for each that does not, why; and the order of a hook's stages. Pure
 * functions over data: no eBPF, no files, no globals. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/module.h>

#include "error.h"

/* One stage in one hook, with what it said about its place. */
struct stage {
        const char *module, *name;
        uint32_t hook, phase;
        const char *const *after; /* module names, ended by NULL; may be NULL */
        const char *const *before;
};

/* Sorts stages of one hook in place: phase, then after/before by module name (an absent name has no
 * effect), then module name. Same input, same order. -ELOOP names every member of a cycle. */
int stages_order(struct stage *stages, size_t n, struct weft_error *reterr);

struct fact {
        enum weft_need_kind kind; /* WEFT_NEED_HELPER, _FEATURE, _LINK_KIND, _HOST */
        const char *name;
        bool present;
        const char *detail; /* what stands in the way; NULL: nothing more to say */
};

struct plan_input {
        const struct weft_module *const *named; /* modules asked for by a section */
        size_t n_named;
        const struct weft_module *const *available; /* all that were found, named ones too */
        size_t n_available;
        const struct fact *facts;
        size_t n_facts;
        const char *const *barred; /* for each of available: why it may not run, NULL: it may;
                                      NULL: all may */
        bool survey;               /* what is off is told and never refused */
        bool by_peer;              /* peers say how they are reached: see plan_modules() */
        uint32_t mode;             /* enum config_mode */
        bool choose;               /* no section names a module: see plan_modules() */
        uint32_t conditions; /* bit for each enum weft_condition that holds; WEFT_ALWAYS needs none
                              */
};

struct plan_row {
        const struct weft_module *module;
        bool on;
        int error; /* off: -EOPNOTSUPP, the kernel lacks something; -EBUSY, the host does what it
                      should not; -ENOENT, a module is missing;
                      -ECANCELED, it is barred */
        char reason[384]; /* why it is off; or which soft need is missing; or who brought it in */
};

/* 0 with rows for every named module and everything it brings in, in an order in which needs come
 * before who needs them; or a refusal. rows: room for n_available.
 *
 * A module that lacks a hard need is off, and so is what needs it. MODE_STRICT and MODE_PARTIAL
 * refuse then (-EOPNOTSUPP, -EBUSY, -ENOENT). MODE_PROBE refuses only where no kernel would help: a
 * module or role that is not there (-ENOENT). What is barred is off and refuses nothing. Two
 * modules that exclude each other are refused in every mode (-EEXIST): which of them is meant, only
 * the administrator knows. With `by_peer` that is known of a module of role "routing" that makes a
 * tunnel and one that makes none: each has the peers that are said to be its own.
 *
 * With `choose`, nothing is named: for each role that a module may be chosen for, the available one
 * of the highest rank whose condition holds is taken as if it were named; of equals, the first by
 * name. What the kernel has no room for is passed over, but in MODE_STRICT; MODE_PARTIAL chooses
 * nothing. */
int plan_modules(const struct plan_input *input, struct plan_row *rows, size_t *ret_n,
                 struct weft_error *reterr);
