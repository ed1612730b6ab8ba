/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "net/rtnl.h"

/* Makes the endpoint's side right: loopback and device up, addresses, permanent neighbour and route
 * for each gateway that an address needs, default routes over them. s: a socket inside. */
int ready_inside(struct nl_sock *s, const struct wire_request *q, const struct net_link *device,
                 const uint8_t gateway_mac[6], uint32_t mtu, struct weft_error *reterr);
