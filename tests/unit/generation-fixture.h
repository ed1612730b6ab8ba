/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Tables and generations on a bpffs and in a network namespace of the test's own: each Criterion
 * test is a process, so that everything is gone when it ends. Needs root. Objects: tests/unit/data.
 */

#include "generation/generation.h"
#include "module/module.h"
#include "tables/tables.h"

#define BPFFS "/sys/fs/bpf/weft"

void enter_namespaces(void);
void run_command(const char *command); /* that must succeed */

/* Bytes of data/NAME.bpf.o; they live until the test ends. */
const void *object_bytes(const char *name, size_t *ret_size);

/* Tables of the fake engine on BPFFS. */
struct tables *open_tables(void);

/* An instance that was made by hand, of module NAME with the object data/NAME.bpf.o. */
struct instance *make_instance(const char *name, uint16_t id);

struct generation_settings make_settings(uint32_t number);
struct generation *build(struct tables *t, uint32_t number, struct instance *const *modules,
                         size_t n);

/* Runs a program on an empty packet; returns its value and the mark it leaves. */
uint32_t run_program(int fd, uint32_t mark, uint32_t *ret_mark);
