/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The two ways to hang a program on an interface, one at a time. attach.c keeps the books. */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* ---- links: tcx, XDP ---------------------------------------------------------------------- */

/* Makes the link *fd (-1: none yet) run the program on the interface: updates it where it is alive
 * and on this interface, else makes a new one and pins it at path. tcx_first: a new one goes before
 * other people's programs. */
int link_attach(const char *path, int *fd, uint32_t ifindex, uint32_t hook, int prog_fd,
                bool tcx_first, struct weft_error *reterr);
bool link_is_alive(int fd);
void link_remove(const char *path, int *fd);

/* ---- filters: clsact ---------------------------------------------------------------------- */

/* Adds or replaces weft's filter. */
int filter_attach(uint32_t ifindex, uint32_t hook, int prog_fd, struct weft_error *reterr);
bool filter_is_there(uint32_t ifindex, uint32_t hook);
void filter_remove(uint32_t ifindex, uint32_t hook);

/* Makes the clsact qdisc; *ret_made says whether it was not there before. */
int qdisc_add(uint32_t ifindex, bool *ret_made, struct weft_error *reterr);
/* Removes it where nobody has a filter on it. */
void qdisc_remove(uint32_t ifindex);
