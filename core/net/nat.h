/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shared by nat.c, nat-legacy.c and others.c. */

#include <stdbool.h>

#include "net/net.h"

struct nat_search {
        enum nat_kind kind;
        const struct weft_prefix *pods;
        size_t n;
};

/* Does the prefix meet one of the pods'? */
bool nat_meets_pods(const struct nat_search *s, const struct weft_prefix *p);
/* What a rule says (MASQUERADE, dnat …) in any case of letters: is it of the kind looked for? */
bool nat_is_kind(const struct nat_search *s, const char *statement);

/* Every chain in the nat tables of iptables before nftables. */
void legacy_chains(void (*f)(void *data, const char *table, const char *name), void *data);

/* The same for the tables of iptables before nftables. */
int nat_legacy(const struct nat_search *s, char *ret, size_t size);
