/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shell completion, made from the tables that the command line is parsed with. */

#include <stdio.h>

#include "error.h"

/* The shells there are scripts for, ended by NULL. */
extern const char *const completion_shells[];

/* Prints the script. -EINVAL: not such a shell. */
int completion_print(const char *shell, FILE *f, struct weft_error *reterr);

/* The scripts. */
void completion_bash(FILE *f);
void completion_zsh(FILE *f);

/* Length of the group's name where verb number i is the first of its group: "module" of "module
 * describe"; 0: it is not. */
int verb_leads_group(size_t i);
