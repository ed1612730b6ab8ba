/* SPDX-License-Identifier: LGPL-2.1-or-later OR GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What both halves of the module call by the same numbers. */

enum limiter_reason { TOO_MANY_CONNECTIONS };

enum limiter_counter { ADMITTED, REFUSED, OVER_LIMIT, EXCEPTED, COUNTERS };

enum { SOURCES_MAX = 65536, EXCEPT_MAX = 1024 };
