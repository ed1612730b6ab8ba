/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* nftables through libnftables, in the calling thread's network namespace. Inside core/net. */

#include <stdbool.h>

#include "error.h"

/* Runs commands in nft's own words, as one transaction. ret: what they printed, to be freed (NULL:
 * not wanted); json: in that form. -EOPNOTSUPP: the kernel has no nftables; -EINVAL: it, or the
 * library, refused, and reterr has its first line. */
int nft_run(const char *commands, bool json, char **ret, struct weft_error *reterr);
