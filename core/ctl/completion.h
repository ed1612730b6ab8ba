/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shell completion, made from the tables that the command line is parsed with. */

#include <stdio.h>

#include "error.h"

enum { OPERANDS_MAX = 2 };

/* What an operand, or the argument of an option, can be. */
struct values {
        const char *const *words; /* ended by NULL; NULL: names of files */
        const char *files;        /* those that match this, and directories; NULL: only these */
};

/* A verb, or an option without its dashes. */
struct word {
        const char *name;
        const char *only_for; /* the only verb of the option; NULL: any */
        const struct values *takes[OPERANDS_MAX];
};

/* The shells there are scripts for, ended by NULL. */
extern const char *const completion_shells[];

/* Prints the script; both lists end with a word without a name. -EINVAL: not such a shell. */
int completion_print(const char *shell, const struct word *verbs, const struct word *options,
                     FILE *f, struct weft_error *reterr);
