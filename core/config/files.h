/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which files make up the configuration, and in which order they are read. */

#include "config/config.h"

/* ROOT/etc/weft/weft.conf where it exists, then the drop-ins conf.d/NAME.conf of ROOT/etc/weft,
 * ROOT/run/weft and ROOT/usr/lib/weft, sorted by name over all three. Of files with the same name
 * the first directory's counts; a link to /dev/null there stands for no file at all. Appends to
 * *ret. 0, or a negative errno with the directory that could not be read. */
int config_files(const char *root, struct strings *ret, struct weft_error *reterr);
