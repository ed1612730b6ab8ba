/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/* Into tunnels and out of them: every program that a node runs for a packet. */
bool bench_tunnels(bool cast);
