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
        c->progress = true;
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
static void take_message(struct control_client *c)
{
        const char *end = memchr(c->in, '\0', c->n_in);
        size_t size;

        if (!end) {
                c->broken = c->end_of_input || c->n_in == CONTROL_MESSAGE_MAX;
                return;
        }

        size = end - c->in;
        varlink_message(c, c->in, size);
        c->n_in -= size + 1;
        memmove(c->in, c->in + size + 1, c->n_in);
        c->progress = true;
}

/* One message, or one piece of a stream, for each turn of the loop: others get theirs between. */
static void client_step(struct control_client *c, uint32_t events)
{
        if (events & (EPOLLHUP | EPOLLERR))
                c->held = 0; /* nobody waits any more */
        if ((events & EPOLLIN) && !c->end_of_input && c->n_in < CONTROL_MESSAGE_MAX)
                read_some(c);
        if (!c->broken && !c->out && c->stream.next)
                varlink_continue(c);
        else if (!c->broken && !c->out)
                take_message(c);
        if (!c->broken && c->out && !c->held)
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

        return (waiting && !c->held ? EPOLLOUT : 0) | (room ? EPOLLIN : 0);
}

/* Microseconds that a client may do nothing. */
static uint64_t patience(const struct control_client *c)
{
        unsigned seconds = c->access.right == CONTROL_NOTHING ? CONTROL_STRANGER_SECONDS
                                                              : CONTROL_IDLE_SECONDS;

        return seconds * 1000000ull;
}

/* What counts is whole calls and whole answers: a byte now and then keeps no place. */
static int note_progress(struct control_client *c)
{
        int r = sd_event_now(c->control->loop, CLOCK_MONOTONIC, &c->since);

        c->progress = false;
        return r < 0 ? r : sd_event_source_set_time_relative(c->idle, patience(c));
}

/* A client that hung up is served on: what it said before is done, and the first answer that nobody
 * takes ends it. */
static void client_turn(struct control_client *c, uint32_t events)
{
        client_step(c, events);
        if (!c->broken)
                c->broken = sd_event_source_set_io_events(c->io, client_interest(c)) < 0 ||
                            (c->progress && note_progress(c) < 0);
        if (c->broken)
                client_free(c);
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *data)
{
        (void) source;
        (void) fd;
        client_turn(data, events);

        return 0;
}

static int on_idle(sd_event_source *source, uint64_t now, void *data)
{
        struct control_client *c = data;

        (void) now;
        if (!c->held || note_progress(c) < 0 ||
            sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0)
                client_free(c);

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

static bool is_stranger(const struct control_client *c)
{
        return c->access.right == CONTROL_NOTHING;
}

/* Those whose places are counted together: the strangers', and each user's. */
static bool share_places(const struct control_client *a, const struct control_client *b)
{
        if (is_stranger(a) || is_stranger(b))
                return is_stranger(a) && is_stranger(b);

        return a->access.uid == b->access.uid;
}

static size_t places(const struct control_client *c)
{
        if (is_stranger(c))
                return CONTROL_STRANGERS_MAX;

        return c->access.uid == 0 ? CONTROL_CLIENTS_MAX : CONTROL_USER_CLIENTS_MAX;
}

/* The clients beside one that count against it, and who of them did nothing for longest. */
struct census {
        struct control_client *own, *any;
        size_t n_own;
};

static struct control_client *older(struct control_client *a, struct control_client *b)
{
        return !a || b->since < a->since ? b : a;
}

static struct census count_others(const struct control_client *c, bool streams_only)
{
        struct census census = { 0 };

        for (struct control_client *o = c->control->clients; o; o = o->next) {
                if (o == c || (streams_only && !o->stream.next))
                        continue;
                census.any = older(census.any, o);
                if (share_places(o, c)) {
                        census.own = older(census.own, o);
                        census.n_own++;
                }
        }

        return census;
}

/* Root takes anybody's place where all are taken. False: there is none for this one to take. */
static bool make_room(struct control_client *c)
{
        struct census others = count_others(c, /* streams_only= */ false);
        bool full = c->control->n_clients > CONTROL_CLIENTS_MAX;
        struct control_client *victim = others.own;

        if (others.n_own < places(c) && !full)
                return true;
        if (others.n_own < places(c) && c->access.uid == 0)
                victim = others.any;
        if (victim)
                client_free(victim);

        return victim;
}

void client_begin_stream(struct control_client *c, const struct control_stream *s)
{
        struct census others = count_others(c, /* streams_only= */ true);

        if (others.n_own >= CONTROL_USER_STREAMS_MAX)
                client_free(others.own);
        c->stream = *s;
}

/* Owns fd, also when it fails. What a newcomer has sent already is looked at at once, so that no
 * other can take its place before. */
static void client_new(struct control *control, int fd)
{
        struct control_client *c = calloc(1, sizeof(*c));

        if (!c) {
                (void) close(fd);
                return;
        }

        c->control = control;
        c->fd = fd;
        c->next = control->clients;
        if (c->next)
                c->next->previous = c;
        control->clients = c;
        control->n_clients++;

        c->in = malloc(CONTROL_MESSAGE_MAX);
        if (!c->in || access_of(fd, &c->access) < 0 || !make_room(c) || client_watch(c) < 0 ||
            note_progress(c) < 0)
                client_free(c);
        else
                client_turn(c, EPOLLIN);
}

/* Without a descriptor to spare the listening socket would stay readable and keep the loop busy. */
static void drop_oldest(struct control *control)
{
        struct control_client *oldest = NULL;

        for (struct control_client *c = control->clients; c; c = c->next)
                oldest = older(oldest, c);
        if (oldest)
                client_free(oldest);
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *data)
{
        struct control *control = data;
        int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void) source;
        (void) events;
        if (client >= 0)
                client_new(control, client);
        else if (errno == EMFILE || errno == ENFILE)
                drop_oldest(control);

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
        mode_t mask;
        int r;

        if (fd < 0)
                return weft_fail(reterr, -errno, "cannot make a socket: %m");
        if (strlen(path) >= sizeof(address.sun_path))
                return weft_fail(reterr, -ENAMETOOLONG,
                                 "%s: longer than the %zu bytes of a socket's name: "
                                 "use a shorter --root",
                                 path, sizeof(address.sun_path) - 1);

        (void) strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        mask = umask(0177); /* nobody else's before it is shared */
        r = bind_over(fd, &address);
        (void) umask(mask);
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

void control_release(struct control *c, uint64_t number)
{
        struct control_client *next;

        for (struct control_client *i = c ? c->clients : NULL; i; i = next) {
                next = i->next;
                if (i->held == 0 || i->held > number)
                        continue;
                i->held = 0;
                client_turn(i, 0);
        }
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
