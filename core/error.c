/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

int weft_fail(struct weft_error *reterr, int r, const char *format, ...)
{
        va_list ap;

        if (!reterr)
                return r;

        va_start(ap, format);
        (void) vsnprintf(reterr->text, sizeof(reterr->text), format, ap);
        va_end(ap);

        return r;
}

int weft_fail_in(struct weft_error *reterr, int r, const char *format, ...)
{
        struct weft_error whole;
        va_list ap;
        size_t n;

        if (!reterr)
                return r;

        va_start(ap, format);
        (void) vsnprintf(whole.text, sizeof(whole.text), format, ap);
        va_end(ap);

        n = strlen(whole.text);
        (void) snprintf(whole.text + n, sizeof(whole.text) - n, ": %.*s",
                        (int) (sizeof(whole.text) - n), reterr->text);
        *reterr = whole;

        return r;
}
