/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Small HTTP servers in the daemon's loop, for those who look from outside. Nothing here blocks: a
 * slow or silent client waits in its own connection, of which there are so many and each only so
 * long. */

#include <microhttpd.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include <weft/module.h>

struct http;

/* Answers GET and HEAD of a path; other methods are answered already. The response is the server's
 * from here on; NULL: no memory. */
typedef struct MHD_Response *(*http_answer_t)(void *data, const char *path, unsigned *ret_status);

/* Listens at an address and port; NULL: at all of the node's addresses, of both families where the
 * kernel has IPv6. */
int http_open(sd_event *loop, const struct weft_addr *addr, uint16_t port, http_answer_t answer,
              void *data, struct http **ret);
/* Serves a socket that listens already, which it owns from now on, on failure too. */
int http_open_fd(sd_event *loop, int fd, http_answer_t answer, void *data, struct http **ret);
struct http *http_close(struct http *h);

/* Why a server could not be opened, in words. */
const char *http_reason(int r);
