/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The control socket: Varlink (JSON messages, each ended by a NUL byte, https://varlink.org) with
 * org.varlink.service and one interface of our own. Nothing here blocks: a slow or silent client
 * waits in its own buffers, and its next call is read when the former reply has been taken. What a
 * client sent before it hung up is done. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "error.h"

enum {
        CONTROL_MESSAGE_MAX = 64 * 1024, /* a call, with its NUL */
        /* One client or stream more takes the place of the one that did nothing for longest. */
        CONTROL_CLIENTS_MAX = 128,
        CONTROL_USER_CLIENTS_MAX = 32, /* of one user who is not root */
        CONTROL_STRANGERS_MAX = 8,     /* of all who may do nothing, until they are told so */
        CONTROL_USER_STREAMS_MAX = 4,  /* of one user, root too: each keeps what it has to tell */
        CONTROL_IDLE_SECONDS = 60,     /* who neither ends a call nor takes an answer is dropped */
        CONTROL_STRANGER_SECONDS = 5,
};

struct control;      /* the listening socket and its clients */
struct control_call; /* one call; ends with its (last) reply */

enum control_right {
        CONTROL_NOTHING,
        CONTROL_READ,   /* group weft-ro */
        CONTROL_CHANGE, /* root, the daemon's own user, group weft */
};

struct control_method {
        const char *name; /* without the interface; NULL ends the table */
        enum control_right right;
        /* Must give exactly one answer: control_reply(), control_fail() or control_stream().
         * parameters: an object, borrowed. */
        void (*f)(void *data, struct control_call *call, json_t *parameters);
};

struct control_interface {
        const char *name;        /* "io.weft.Node" */
        const char *description; /* Varlink interface text */
        const struct control_method *methods;
        const char *version; /* of the product, for GetInfo */
        void *data;          /* for the methods */
};

/* A long answer, made piece by piece as the client takes it. */
struct control_stream {
        /* The next reply's parameters (new reference); *ret_last is set with the last one. */
        json_t *(*next)(void *data, bool *ret_last);
        void (*free)(void *data);
        void *data;
};

/* Makes the socket, replacing one that nobody serves; for the daemon's own user alone. */
int control_listen(const char *path, int *ret_fd, struct weft_error *reterr);
/* Lets groups weft and weft-ro connect to the socket file that FD listens on: 0660 with the group
 * weft, and an access control list with both. Groups that do not exist are left out; a socket
 * without a file is left alone. */
int control_share(int fd, struct weft_error *reterr);
/* Serves listen_fd, which it owns from now on. interface is borrowed. */
int control_open(sd_event *loop, int listen_fd, const struct control_interface *interface,
                 struct control **ret, struct weft_error *reterr);
/* Ends every client. The socket file stays: a successor, or the service manager, may own it. */
struct control *control_close(struct control *c);

/* ---- for methods -------------------------------------------------------------------------- */

/* Steals parameters; NULL is an empty object. */
void control_reply(struct control_call *call, json_t *parameters);
/* error: full name. Steals parameters. */
void control_fail(struct control_call *call, const char *error, json_t *parameters);
/* org.varlink.service.InvalidParameter */
void control_invalid(struct control_call *call, const char *parameter);
bool control_wants_more(const struct control_call *call);
/* Only where control_wants_more(). Owns s->data from now on. */
void control_stream(struct control_call *call, const struct control_stream *s);
/* "uid 0, pid 17 (weftctl)", for the journal. Valid during the call. */
const char *control_caller(const struct control_call *call);
uid_t control_uid(const struct control_call *call);
/* The answer, which the method gives all the same, is kept back until control_release() with this
 * number or a greater one: what it says has been decided and is not done yet. 0 is no number. */
void control_hold(struct control_call *call, uint64_t number);
/* c may be NULL. */
void control_release(struct control *c, uint64_t number);

/* Text of io.weft.Node.varlink. */
extern const char control_node_description[];
