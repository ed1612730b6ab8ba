/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The caller's side of the control socket. */

#include <jansson.h>
#include <stdbool.h>

#include "error.h"

/* Calls io.weft.Node.METHOD. parameters: stolen, may be NULL. With more, the replies' arrays are
 * put together. *ret: the reply's parameters (caller's). -ECONNREFUSED and -ENOENT: no daemon;
 * -EREMOTEIO: it answered with an error, whose text is in *reterr. */
int client_call(const char *socket_path, const char *method, json_t *parameters, bool more,
                json_t **ret, struct weft_error *reterr);

/* The same with "more", reply by reply: f returns 0 to go on; anything else ends it and is
 * returned.
 */
int client_stream(const char *socket_path, const char *method, json_t *parameters,
                  int (*f)(void *data, json_t *reply), void *data, struct weft_error *reterr);
