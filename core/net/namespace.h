/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "error.h"

/* Opens the network namespace at PATH, or of the process PID where path is NULL, after a check that
 * it is one, and not the daemon's own. started: what process_started() said of that process; 0:
 * whichever has the number. -ENOENT: not there (yet). -EINVAL: something else is there, or the
 * daemon's own. */
int namespace_open(const char *path, uint32_t pid, uint64_t started, int *ret_fd,
                   struct weft_error *reterr);

/* Tells namespaces apart; 0: it is not there. PATH and PID as above. */
uint64_t namespace_number(const char *path, uint32_t pid);

/* When the process began, in clock ticks since boot; 0: there is none. */
uint64_t process_started(uint32_t pid);
