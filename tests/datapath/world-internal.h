/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What making a world and opening it have in common. */

#include "world.h"

struct blob {
        void *data;
        size_t size;
};

#define WORLD_BPFFS "/sys/fs/bpf"

extern const char *const device_names[DEVICES];

/* BPFFS directory of a variant, and the path of the pin of one of its hooks' programs; hook
 * WEFT_HOOKS: the exit hook of the tunnel's device. */
const char *variant_directory(enum variant v, char path[64]);
const char *variant_program(enum variant v, uint32_t hook, char path[64]);

/* The engine's object, as WEFT_ENGINE says. The reason goes to stderr. */
int engine_read(struct blob *ret);
void blob_done(struct blob *b);

int variant_tables(enum variant v, const struct blob *engine, struct tables **ret,
                   struct weft_error *reterr);

/* Jiffies per second: the tick of the coarse clocks is one jiffy. */
uint32_t machine_hz(void);
