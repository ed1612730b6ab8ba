/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What stdout is: a terminal of some width, with colours or without, behind a pager or not. */

#include <stdbool.h>

/* Looks at stdout before anything is printed. paged: what is printed may be long; on a terminal it
 * goes through $SYSTEMD_PAGER, $PAGER or less then. */
void output_open(bool paged);
/* Waits for the pager, if there is one. */
void output_close(void);

/* Columns of the terminal, $COLUMNS first; 0 where stdout is none: no limit. */
unsigned terminal_width(void);
/* stdout is a terminal, and $NO_COLOR and $TERM do not speak against it. */
bool has_colours(void);
/* The tests' way of saying it. */
void output_colours(bool on);
