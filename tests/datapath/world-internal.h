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

/* The object that an environment variable names. The reason goes to stderr. */
int object_read(const char *variable, struct blob *ret);
void blob_done(struct blob *b);

/* BPFFS directory of the tables that a variant is loaded with: tests have one open at a time, and
 * all but SMALL the same tables. */
const char *tables_directory(enum variant v, char path[64]);
int variant_tables(enum variant v, struct tables **ret, struct weft_error *reterr);

/* Loads a variant, once. False: it cannot be, and the reason went to stderr the first time. */
bool variant_load(enum variant v);
/* In a test's process: has world_serve() load it. */
bool variant_ask(enum variant v);

/* Jiffies per second: the tick of the coarse clocks is one jiffy. */
uint32_t machine_hz(void);
