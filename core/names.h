/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The words of types.h as strings, by number; ended by NULL. */

#include <weft/types.h>

extern const char *const hook_names[WEFT_HOOKS + 1];
extern const char *const phase_names[WEFT_PHASES + 1];
extern const char *const delivery_names[WEFT_DELIVERIES + 1];
