/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "ctl/wrap.h"

enum { COMMENT_WIDTH = 100 };

#define BLANKS " \n"

/* begin: what begins a line after the first, filled with blanks to column. */
static void wrap(FILE *f, const char *text, const char *begin, int column, int width)
{
        int at = column;

        while (*text != '\0') {
                int n = (int) strcspn(text, BLANKS);

                if (at > column && at + 1 + n > width) {
                        (void) fprintf(f, "\n%-*s", column, begin);
                        at = column;
                }
                at += fprintf(f, "%s%.*s", at > column ? " " : "", n, text);
                text += n;
                if (strncmp(text, "\n\n", 2) == 0) {
                        (void) fprintf(f, "\n%s\n%-*s", begin, column, begin);
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
