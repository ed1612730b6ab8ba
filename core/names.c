/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "names.h"

const char *const hook_names[WEFT_HOOKS + 1] = WEFT_HOOK_NAMES;
const char *const phase_names[WEFT_PHASES + 1] = WEFT_PHASE_NAMES;
const char *const delivery_names[WEFT_DELIVERIES + 1] = WEFT_DELIVERY_NAMES;
