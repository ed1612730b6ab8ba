/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sentences in lines, broken between words. */

#include <stddef.h>
#include <stdio.h>

/* Prints the words of text from column on, which the cursor has reached already, in lines of at
 * most width columns, and a line feed. An empty line in text ("\n\n") begins a paragraph. */
void wrap_print(FILE *f, const char *text, int column, int width);

/* The same as comment lines of a configuration file. */
void wrap_comment(FILE *f, const char *text);

/* Characters of a text in UTF-8. */
size_t text_length(const char *text);
/* Bytes of the first n of them. */
int text_prefix(const char *text, size_t n);
