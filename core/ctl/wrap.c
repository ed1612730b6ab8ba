/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <string.h>

#include "ctl/wrap.h"

enum { COMMENT_WIDTH = 100 };

#define BLANKS " \n"

static bool is_inside(char c)
{
        return ((unsigned char) c & 0xc0) == 0x80; /* of a character of UTF-8, not its first byte */
}

size_t text_length(const char *text)
{
        size_t n = 0;

        for (; *text != '\0'; text++)
                n += !is_inside(*text);

        return n;
}

int text_prefix(const char *text, size_t n)
{
        const char *s = text;

        while (*s != '\0' && (is_inside(*s) || n > 0))
                n -= !is_inside(*s++);

        return (int) (s - text);
}

/* Characters of the first n bytes. */
static int word_length(const char *word, int n)
{
        int length = 0;

        for (int i = 0; i < n; i++)
                length += !is_inside(word[i]);

        return length;
}

/* begin: what begins a line after the first, filled with blanks to column. */
static void wrap(FILE *f, const char *text, const char *begin, int column, int width)
{
        bool begins = true;
        int at = column;

        while (*text != '\0') {
                int n = (int) strcspn(text, BLANKS), length = word_length(text, n);

                if (!begins && at + 1 + length > width) {
                        (void) fprintf(f, "\n%-*s", column, begin);
                        begins = true;
                        at = column;
                }
                (void) fprintf(f, "%s%.*s", begins ? "" : " ", n, text);
                at += length + !begins;
                begins = false;
                text += n;
                if (strncmp(text, "\n\n", 2) == 0) {
                        (void) fprintf(f, "\n%s\n%-*s", begin, column, begin);
                        begins = true;
                        at = column;
                }
                text += strspn(text, BLANKS);
        }
        (void) fputc('\n', f);
}

void wrap_print(FILE *f, const char *text, int column, int width)
{
        wrap(f, text, "", column, width);
}

void wrap_comment(FILE *f, const char *text)
{
        (void) fputs("# ", f);
        wrap(f, text, "#", 2, COMMENT_WIDTH);
}
