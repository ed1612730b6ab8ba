/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the stages of an object say about their places, read from its BTF: declaration tags on the
 * function, "weft.abi:1.0", "weft.hooks:FROM_ENDPOINT | FROM_UPLINK", "weft.phase:ROUTE",
 * "weft.after:MODULE" and "weft.before:MODULE". */

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct bpf_object;

struct stage_tags {
        char *name;             /* of the program */
        uint32_t abi;           /* major << 16 | minor; 0: none given */
        uint32_t hooks;         /* bit for each enum weft_hook */
        uint32_t phase;         /* enum weft_phase */
        char **after, **before; /* ended by NULL; NULL for none */
};

struct stage_list {
        struct stage_tags *items;
        size_t n;
};

/* -EPROTO: another ABI, both numbers are named. -EINVAL: a tag names no hook or phase, or a stage
 * lacks one; the reason names the stage. */
int stages_read(const struct bpf_object *o, struct stage_list *ret, struct weft_error *reterr);
void stages_done(struct stage_list *l);
