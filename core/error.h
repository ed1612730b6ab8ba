/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Why something failed. Functions return a negative errno and fill the reason in their last
 * parameter, reterr, untouched on success; whoever stands at the top logs it, once. */

struct weft_error {
        char text[512];
};

/* Fills the reason (reterr may be NULL) and returns r. */
int weft_fail(struct weft_error *reterr, int r, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " before the reason that is there already and returns r. */
int weft_fail_in(struct weft_error *reterr, int r, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
