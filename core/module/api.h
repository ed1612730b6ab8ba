/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <weft/module.h>

struct instance;

/* What every callback of a module is given. */
extern const struct weft_api core_api;

/* Gives back what weft_api.nft_table() got. */
void instance_drop_table(struct instance *i);
