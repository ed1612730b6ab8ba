/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between the parts of the control socket: server.c moves bytes, varlink.c understands them,
 * access.c says who may what, share.c who may connect. */

#include "control.h"

struct access {
        enum control_right right;
        uid_t uid;
        char who[64]; /* "uid 0, pid 17 (weftctl)" */
};

#define NO_GROUP ((gid_t) -1)

/* NO_GROUP where there is none of that name. */
gid_t group_number(const char *name);

/* Who is at the other end of a connected socket. -errno where the kernel does not say. */
int access_of(int fd, struct access *ret);

struct control_client {
        struct control *control;
        struct control_client *next, *previous;
        int fd;
        sd_event_source *io, *idle;
        uint64_t since; /* CLOCK_MONOTONIC microseconds: the last whole call or answer */
        bool progress;  /* one was since */
        struct access access;

        char *in; /* CONTROL_MESSAGE_MAX bytes */
        size_t n_in;
        bool end_of_input;

        char *out; /* the reply being taken */
        size_t n_out, out_taken;
        uint64_t held; /* the number that lets it go; 0: nobody holds it back */

        struct control_stream stream; /* next NULL: none */
        bool refused;                 /* to be dropped when its answer is taken */
        bool broken;                  /* to be dropped */
};

const struct control_interface *client_interface(const struct control_client *c);

/* Answers one message (text without its NUL). Marks the client broken where it is no Varlink call.
 */
void varlink_message(struct control_client *c, const char *text, size_t size);
/* Queues the stream's next reply. */
void varlink_continue(struct control_client *c);
/* The client is told the stream from here on; it may take another's place. */
void client_begin_stream(struct control_client *c, const struct control_stream *s);
/* Queues a message; steals it. */
void client_send(struct control_client *c, json_t *message);
