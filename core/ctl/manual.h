/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Manual pages in mdoc(7): written by hand where they tell a story, and made from the tables of the
 * code where there is one. A line "@NAME@" of the template stands for what is made. */

#include <stdio.h>

#include "error.h"

/* Prints the page. samples: files of conf.d with modules' options, ended by NULL. -EINVAL: a line
 * @NAME@ that nobody knows; or a negative errno. */
int manual_print(const char *template, const char *const *samples, FILE *f,
                 struct weft_error *reterr);
