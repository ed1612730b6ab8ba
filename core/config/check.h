/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What only the whole configuration can show to be wrong: two objects that want the same. */

#include "config/config.h"
#include "config/sections.h"
#include "config/written.h"

/* Adds a diagnostic for every clash: addresses of nodes, peers and endpoints, service addresses
 * with port and protocol, node ports, pod CIDRs that overlap or have another node's endpoint in
 * them, devices and namespaces taken twice.
 * What each object claims is remembered in the configuration from here on. written: what stands
 * where, for the places of keys; NULL: sections' places do. */
void config_check(struct config *c, const struct written *written, struct diagnostics *diagnostics);

/* The same for one object that is to join a configuration without a fault: what it claims is its
 * own afterwards, but for what another one has. No time is spent for each of the other services. */
void config_check_object(struct config *c, const struct section *s, const void *object,
                         struct diagnostics *diagnostics);
void config_claim(struct config *c, const struct section *s, const void *object,
                  struct diagnostics *diagnostics);
/* The object's claims are nobody's any more. */
void config_unclaim(struct config *c, const struct section *s, const void *object);
void config_unclaim_all(struct config *c);
/* Somebody has the address, or a port of it. */
bool config_address_is_taken(const struct config *c, const struct weft_addr *a);
