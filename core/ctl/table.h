/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Text tables as wide as their content, or as the terminal where that is narrower: then the widest
 * columns are cut and end in "…". */

#include <stdio.h>

struct column {
        const char *title; /* NULL ends the list */
        int right;         /* 1: numbers */
};

struct table;

struct table *table_new(const struct column *columns);
struct table *table_free(struct table *t);
/* The next cell; rows fill from left to right. */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* width: columns of the terminal; 0: no limit. */
void table_print(const struct table *t, FILE *f, unsigned width);

/* Columns of the terminal that stdout is; 0 where it is none. */
unsigned terminal_width(void);

/* "1.2K", "3.4M": powers of 1024. Returns buf. */
const char *size_text(unsigned long long n, char buf[static 24]);
/* "12s", "3min", "2h", "5d". Returns buf. */
const char *age_text(long long seconds, char buf[static 24]);
