/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "control/client.h"
#include "util.h"

struct control {
        sd_event *loop;
        int fd;
        sd_event_source *accept;
        const struct control_interface *interface;
        struct control_client *clients;
        size_t n_clients;
};

const struct control_interface *client_interface(const struct control_client *c)
{
        return c->control->interface;
}

static void client_free(struct control_client *c)
{
        if (c->previous)
                c->previous->next = c->next;
        else
                c->control->clients = c->next;
        if (c->next)
                c->next->previous = c->previous;
        c->control->n_clients--;

        if (c->stream.next)
                c->stream.free(c->stream.data);
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->idle);
        (void) close(c->fd);
        free(c->in);
        free(c->out);
        free(c);
}

void client_send(struct control_client *c, json_t *message)
{
        char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

        json_decref(message);
        if (!text) {
                c->broken = true;
                return;
        }

        free(c->out);
        c->out = text;
        c->n_out = strlen(text) + 1;
        c->out_taken = 0;
}

static void write_some(struct control_client *c)
{
        while (c->out_taken < c->n_out) {
                ssize_t n = send(c->fd, c->out + c->out_taken, c->n_out - c->out_taken,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        c->broken = errno != EAGAIN;
                        return;
                }
                c->out_taken += n;
        }

        c->out_taken = c->n_out = 0;
        free(TAKE(c->out));
}

static void read_some(struct control_client *c)
{
        ssize_t n = recv(c->fd, c->in + c->n_in, CONTROL_MESSAGE_MAX - c->n_in, MSG_DONTWAIT);

        if (n > 0)
                c->n_in += n;
        else if (n == 0)
                c->end_of_input = true;
        else
                c->broken = errno != EAGAIN && errno != EINTR;
}

/* Answers the first message of the input, if it is complete. */
static bool take_message(struct control_client *c)
{
        const char *end = memchr(c->in, '\0', c->n_in);
        size_t size;

        if (!end) {
                c->broken = c->end_of_input || c->n_in == CONTROL_MESSAGE_MAX;
                return false;
        }

        size = end - c->in;
        varlink_message(c, c->in, size);
        c->n_in -= size + 1;
        memmove(c->in, c->in + size + 1, c->n_in);

        return true;
}

/* One message, or one piece of a stream, for each turn of the loop: others get theirs between. */
static void client_step(struct control_client *c, uint32_t events)
{
        if ((events & EPOLLIN) && !c->end_of_input && c->n_in < CONTROL_MESSAGE_MAX)
                read_some(c);
        if (!c->broken && !c->out && c->stream.next)
                varlink_continue(c);
        else if (!c->broken && !c->out)
                (void) take_message(c);
        if (!c->broken && c->out)
                write_some(c);
        if (c->refused && !c->out)
                c->broken = true;
}

/* What the loop shall wake the client for. A complete message that waits for nothing but its turn
 * asks for EPOLLOUT, which an idle socket grants at once. */
static uint32_t client_interest(const struct control_client *c)
{
        bool waiting = c->out || c->stream.next || memchr(c->in, '\0', c->n_in) || c->end_of_input;
        bool room = !c->end_of_input && c->n_in < CONTROL_MESSAGE_MAX;

        return (waiting ? EPOLLOUT : 0) | (room ? EPOLLIN : 0);
}

/* Microseconds that a client may do nothing. */
static uint64_t patience(const struct control_client *c)
{
        unsigned seconds = c->access.right == CONTROL_NOTHING ? CONTROL_STRANGER_SECONDS
                                                              : CONTROL_IDLE_SECONDS;

        return seconds * 1000000ull;
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *data)
{
        struct control_client *c = data;

        (void) source;
        (void) fd;
        if (events & (EPOLLHUP | EPOLLERR))
                c->broken = true;
        else
                client_step(c, events);

        if (!c->broken)
                c->broken = sd_event_source_set_io_events(c->io, client_interest(c)) < 0 ||
                            sd_event_source_set_time_relative(c->idle, patience(c)) < 0;
        if (c->broken)
                client_free(c);

        return 0;
}

static int on_idle(sd_event_source *source, uint64_t now, void *data)
{
        (void) source;
        (void) now;
        client_free(data);

        return 0;
}

static int client_watch(struct control_client *c)
{
        sd_event *loop = c->control->loop;
        int r = sd_event_add_io(loop, &c->io, c->fd, EPOLLIN, on_client, c);

        if (r < 0)
                return r;

        return sd_event_add_time_relative(loop, &c->idle, CLOCK_MONOTONIC, patience(c), 1000000,
                                          on_idle, c);
}

/* Whoever it is, others must still be able to connect: root above all. */
static bool is_one_too_many(const struct control_client *c)
{
        bool stranger = c->access.right == CONTROL_NOTHING;
        size_t n = 0;

        if (c->access.uid == 0)
                return false;

        for (const struct control_client *o = c->control->clients; o; o = o->next)
                n += stranger ? o->access.right == CONTROL_NOTHING : o->access.uid == c->access.uid;

        return n > (stranger ? CONTROL_STRANGERS_MAX : CONTROL_USER_CLIENTS_MAX);
}

/* Owns fd, also when it fails. */
static int client_new(struct control *control, int fd)
{
        struct control_client *c = calloc(1, sizeof(*c));

        if (!c) {
                (void) close(fd);
                return -ENOMEM;
        }

        c->control = control;
        c->fd = fd;
        c->next = control->clients;
        if (c->next)
                c->next->previous = c;
        control->clients = c;
        control->n_clients++;

        c->in = malloc(CONTROL_MESSAGE_MAX);
        if (!c->in || access_of(fd, &c->access) < 0 || is_one_too_many(c) || client_watch(c) < 0) {
                client_free(c);
                return -EIO;
        }

        return 0;
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *data)
{
        struct control *control = data;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void) source;
        (void) events;
        if (client < 0)
                return 0;
        if (control->n_clients >= CONTROL_CLIENTS_MAX)
                (void) close(client);
        else
                (void) client_new(control, client);

        return 0;
}

static int bind_over(int fd, const struct sockaddr_un *address)
{
        _cleanup_close_ int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct sockaddr *a = (const struct sockaddr *) address;

        if (bind(fd, a, sizeof(*address)) == 0)
                return 0;
        if (errno != EADDRINUSE)
                return -errno;
        if (probe < 0 || connect(probe, a, sizeof(*address)) == 0 || errno != ECONNREFUSED)
                return -EADDRINUSE;

        (void) unlink(address->sun_path);
        return bind(fd, a, sizeof(*address)) < 0 ? -errno : 0;
}

int control_listen(const char *path, int *ret_fd, struct weft_error *reterr)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int r;

        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot make a socket: %m");
        if (strlen(path) >= sizeof(address.sun_path))
                return weft_fail(reterr, -ENAMETOOLONG,
                                 "%s: longer than the %zu bytes of a socket's name: "
                                 "use a shorter --root",
                                 path, sizeof(address.sun_path) - 1);

        (void) strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        r = bind_over(fd, &address);
        if (r == 0 && chmod(path, 0666) < 0)
                r = -errno;
        if (r == 0 && listen(fd, CONTROL_CLIENTS_MAX) < 0)
                r = -errno;
        if (r < 0)
                return weft_fail(reterr, r, "cannot listen on %s: %s", path, strerror(-r));

        *ret_fd = TAKE_FD(fd);
        return 0;
}

static void controlp(struct control **c)
{
        (void) control_close(*c);
}

int control_open(sd_event *loop, int listen_fd, const struct control_interface *interface,
                 struct control **ret, struct weft_error *reterr)
{
        _cleanup_(controlp) struct control *c = calloc(1, sizeof(*c));
        int r;

        if (!c) {
                (void) close(listen_fd);
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        c->loop = sd_event_ref(loop);
        c->fd = listen_fd;
        c->interface = interface;
        r = sd_event_add_io(loop, &c->accept, listen_fd, EPOLLIN, on_accept, c);
        if (r < 0)
                return weft_fail(reterr, r, "cannot watch the control socket: %s", strerror(-r));

        *ret = TAKE(c);
        return 0;
}

struct control *control_close(struct control *c)
{
        if (!c)
                return NULL;

        while (c->clients)
                client_free(c->clients);
        sd_event_source_disable_unref(c->accept);
        (void) close(c->fd);
        (void) sd_event_unref(c->loop);
        free(c);

        return NULL;
}
