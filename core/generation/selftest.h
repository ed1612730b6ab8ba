/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The modules' own test packets (module.h) on a dry load: the same object files with the same
 * constants, and maps that nobody else sees. */

#include "generation/generation.h"
#include "net/net.h"

/* g: built from s and modules and attached, so that the modules' maps, which are copied, are
 * filled. 0, also where no module ships a packet; -EBADMSG: a packet came out otherwise, and the
 * reason names module, test and difference. ret_run (may be NULL): how many ran. */
int generation_selftest(const struct generation_settings *s, struct instance *const *modules,
                        size_t n_modules, const struct dry_network *network, size_t *ret_run,
                        struct weft_error *reterr);
