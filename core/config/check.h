/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What only the whole configuration can show to be wrong: two objects that want the same. */

#include "config/config.h"

/* Adds a diagnostic for every clash: addresses of nodes, peers and endpoints, service addresses
 * with port and protocol, node ports, pod CIDRs that overlap, devices and namespaces taken twice.
 */
void config_check(const struct config *c, struct diagnostics *diagnostics);
