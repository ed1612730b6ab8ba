/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "config/values.h"
#include "daemon/http.h"
#include "util.h"

enum { BACKLOG = 64, CONNECTIONS = 64, SECONDS = 5 };

struct http {
        struct MHD_Daemon *server;
        sd_event_source *io, *timer;
        http_answer_t answer;
        void *data;
};

/* ---- answers ------------------------------------------------------------------------------ */

static struct MHD_Response *refuse_method(unsigned *ret_status)
{
        struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

        *ret_status = MHD_HTTP_METHOD_NOT_ALLOWED;
        if (r)
                (void) MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");

        return r;
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
        const struct http *h = data;
        bool reads = strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
                     strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
        enum MHD_Result result = MHD_NO;
        struct MHD_Response *r;
        unsigned status;

        (void) version;
        (void) upload;
        (void) upload_size;
        (void) state;
        r = reads ? h->answer(h->data, path, &status) : refuse_method(&status);
        if (r) {
                result = MHD_queue_response(connection, status, r);
                MHD_destroy_response(r);
        }

        return result;
}

/* ---- the server in the loop --------------------------------------------------------------- */

static unsigned connections(const struct http *h)
{
        const union MHD_DaemonInfo *info =
                MHD_get_daemon_info(h->server, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

        return info ? info->num_connections : 0;
}

static void run(struct http *h)
{
        MHD_UNSIGNED_LONG_LONG left = 0;
        unsigned before;
        bool waits;

        /* A server that is full does not watch its listening socket, and looks at it again only
         * when it runs the next time: after the last client has gone nothing else would make it
         * run. */
        do {
                before = connections(h);
                (void) MHD_run(h->server);
        } while (connections(h) < before);

        waits = MHD_get_timeout(h->server, &left) == MHD_YES;
        if (waits)
                (void) sd_event_source_set_time_relative(h->timer, left * 1000);
        (void) sd_event_source_set_enabled(h->timer, waits ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *data)
{
        (void) source;
        (void) fd;
        (void) events;
        run(data);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t now, void *data)
{
        (void) source;
        (void) now;
        run(data);
        return 0;
}

static int add_sources(struct http *h, sd_event *loop)
{
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->server, MHD_DAEMON_INFO_EPOLL_FD);
        int r = info ? sd_event_add_io(loop, &h->io, info->epoll_fd, EPOLLIN, on_io, h) : -EIO;

        if (r >= 0)
                r = sd_event_add_time_relative(loop, &h->timer, CLOCK_MONOTONIC, 0, 0, on_timer, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);

        return r;
}

static void http_freep(struct http **h)
{
        (void) http_close(*h);
}

int http_open_fd(sd_event *loop, int fd, http_answer_t answer, void *data, struct http **ret)
{
        _cleanup_(http_freep) struct http *h = calloc(1, sizeof(*h));
        _cleanup_close_ int listening = fd;
        int r;

        if (!h)
                return -ENOMEM;

        (void) fcntl(listening, F_SETFL, O_NONBLOCK); /* one that was passed in */
        h->answer = answer;
        h->data = data;
        h->server = MHD_start_daemon(
                MHD_USE_EPOLL, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, listening,
                MHD_OPTION_CONNECTION_LIMIT, (unsigned) CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
                (unsigned) SECONDS, MHD_OPTION_END);
        if (!h->server)
                return -EIO;

        (void) TAKE_FD(listening); /* the server's */
        r = add_sources(h, loop);
        if (r < 0)
                return r;

        *ret = TAKE(h);
        return 0;
}

/* *ret_ipv6: whether it is a socket of IPv6, on which IPv4 may come, too. */
static int make_socket(const struct weft_addr *addr, bool *ret_ipv6)
{
        const int flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
        int fd = addr && address_is_ipv4(addr) ? -1 : socket(AF_INET6, flags, 0);

        *ret_ipv6 = fd >= 0;
        if (fd < 0 && (!addr || address_is_ipv4(addr)))
                fd = socket(AF_INET, flags, 0);

        return fd < 0 ? -errno : fd;
}

int http_open(sd_event *loop, const struct weft_addr *addr, uint16_t port, http_answer_t answer,
              void *data, struct http **ret)
{
        struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
        bool ipv6;
        _cleanup_close_ int fd = make_socket(addr, &ipv6);
        int r;

        if (fd < 0)
                return fd;
        if (addr) {
                memcpy(&six.sin6_addr, addr, sizeof(six.sin6_addr));
                four.sin_addr.s_addr = addr->w[3];
        }

        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int) { 1 }, sizeof(int));
        if (ipv6)
                (void) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int) { 0 }, sizeof(int));
        r = ipv6 ? bind(fd, (const struct sockaddr *) &six, sizeof(six))
                 : bind(fd, (const struct sockaddr *) &four, sizeof(four));
        if (r < 0 || listen(fd, BACKLOG) < 0)
                return -errno;

        return http_open_fd(loop, TAKE_FD(fd), answer, data, ret);
}

struct http *http_close(struct http *h)
{
        if (!h)
                return NULL;

        sd_event_source_disable_unref(h->io);
        sd_event_source_disable_unref(h->timer);
        if (h->server)
                MHD_stop_daemon(h->server);
        free(h);
        return NULL;
}

const char *http_reason(int r)
{
        switch (r) {
        case -EADDRINUSE:
                return "a program of the node listens there";
        case -EADDRNOTAVAIL:
                return "the node has no such address";
        default:
                return strerror(-r);
        }
}
