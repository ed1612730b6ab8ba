/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <weft/module.h>

/* What every callback of a module is given. */
extern const struct weft_api core_api;
