/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Text tables as wide as their content, or as the terminal where that is narrower: then columns
 * that may be left out are, then the widest ones are cut and end in "…". */

#include <stdio.h>

struct column {
        const char *title; /* NULL ends the list */
        int right;         /* 1: numbers */
        unsigned drop;     /* left out where the table is too wide, the highest first; 0: never */
        int wrap;          /* 1: sentences; the last column's are broken into lines, not cut */
};

struct table;

struct table *table_new(const struct column *columns);
struct table *table_free(struct table *t);
/* The next cell; rows fill from left to right. */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with a word for a state: on a terminal it has the colour of what it means. */
void table_state(struct table *t, const char *word);
/* Prints the rows that there are and forgets them. Called again for more of them, the title is not
 * repeated and columns get wider, never narrower. width: columns of the terminal; 0: no limit. */
void table_print(struct table *t, FILE *f, unsigned width);

/* "1.2K", "3.4M": powers of 1024. Returns buf. */
const char *size_text(unsigned long long n, char buf[static 24]);
/* "12s", "3min", "2h", "5d". Returns buf. */
const char *age_text(long long seconds, char buf[static 24]);
