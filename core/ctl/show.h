/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Replies of io.weft.Node as people read them. width: of the terminal, 0 without one. */

#include <jansson.h>
#include <stdio.h>

#include "ctl/table.h"

void show_status(const json_t *reply, FILE *f, unsigned width);
void show_metrics(const json_t *reply, FILE *f, unsigned width);
void show_chain(const json_t *reply, FILE *f, unsigned width);
void show_modules(const json_t *reply, FILE *f, unsigned width);
void show_endpoints(const json_t *reply, FILE *f, unsigned width);
void show_peers(const json_t *reply, FILE *f, unsigned width);
void show_services(const json_t *reply, FILE *f, unsigned width);
void show_service_details(const json_t *reply, FILE *f, unsigned width);
void show_reload(const json_t *reply, FILE *f, unsigned width);
void show_plan(const json_t *reply, FILE *f, unsigned width);

/* For flows, which may be too many to be held at once: a table, and rows of it from an array. */
struct table *flow_table_new(void);
void show_flow_rows(struct table *t, const json_t *flows, FILE *f, unsigned width);
