/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/* What a first packet and a later one cost by the number of loaded modules. */
bool bench_modules(bool cast);
