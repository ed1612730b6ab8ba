/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

#include "error.h"
#include "paths.h"

/* Takes everything of this instance off the machine and writes a line to f for each thing taken: a
 * running daemon (which is stopped), links and filters, programs, devices, routes and other host
 * changes, maps, the run directory. What the administrator wrote, and lent addresses, stay. */
int cleanup(const struct paths *p, FILE *f, struct weft_error *reterr);
