/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Tables on a bpffs of the test's own: each Criterion test is a process, which gets a mount
 * namespace, so that everything is gone when it ends. Needs root. */

#include "tables/internal.h"

#define BPFFS "/sys/fs/bpf/weft"

/* Mounts the bpffs. */
void fixture_bpffs(void);
/* Opens the tables there, those of a predecessor if one has been. flows: flow-table size. */
struct tables *fixture_open(uint64_t flows);
/* The same with other settings and the answer. */
int fixture_try(const struct tables_settings *s, struct tables **ret, struct weft_error *reterr);
/* Runs a program of the test's object that shares the tables; its return value. */
uint32_t fixture_run(struct tables *t, const char *program);

uint32_t fixture_hz(void);
struct weft_addr fixture_addr(const char *text);
/* Number of keys in a hash map. */
size_t fixture_count(struct tables *t, enum table id);
/* What the datapath would see. */
bool fixture_in_filter(struct tables *t, const char *addr, uint16_t port, uint8_t proto);
bool fixture_service(struct tables *t, const char *addr, uint16_t port, uint8_t proto,
                     struct weft_service *ret);
bool fixture_endpoint(struct tables *t, const char *addr, struct weft_endpoint *ret);
struct weft_backend fixture_slot(struct tables *t, const struct weft_service *s, uint32_t n,
                                 uint32_t *ret_index);
