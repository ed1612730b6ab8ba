/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Health-check node ports: an HTTP server for each service that has one, which says whether this
 * node has a backend of it. A load balancer in front asks, and sends the service's traffic only to
 * nodes that say yes. Each answer looks at what is configured at that moment. */

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

enum { BACKLOG = 64, CONNECTIONS = 64, SECONDS = 5 };

struct health {
        struct daemon *d;
        char *service;
        uint16_t port;
        struct MHD_Daemon *server; /* NULL: could not listen */
        sd_event_source *io, *timer;
        char reason[128];
};

/* ---- answers ------------------------------------------------------------------------------ */

/* Backends here that take new flows. Those that are draining do not count: the balancer in front
 * should go elsewhere in time. */
static unsigned count_local(const struct config_service *s)
{
        unsigned n = 0;

        for (size_t i = 0; s && i < s->n_backends; i++)
                n += s->backends[i].local && s->backends[i].weight &&
                     s->backends[i].state == BACKEND_ACTIVE;

        return n;
}

static struct MHD_Response *make_response(const struct health *h, unsigned n)
{
        json_t *json = json_pack("{s:{s:s}, s:i}", "service", "name", h->service, "localEndpoints",
                                 (int) n);
        char *body = json ? json_dumps(json, JSON_COMPACT) : NULL, weight[16];
        struct MHD_Response *r = NULL;

        (void) snprintf(weight, sizeof(weight), "%u", n);
        if (body)
                r = MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
        if (r) {
                (void) MHD_add_response_header(r, "Content-Type", "application/json");
                (void) MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
                (void) MHD_add_response_header(r, "X-Load-Balancing-Endpoint-Weight", weight);
        }

        json_decref(json);
        return r;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
        const struct health *h = data;
        bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
        unsigned n = count_local(config_service(h->d->build->config, h->service));
        enum MHD_Result result = MHD_NO;
        struct MHD_Response *r;

        (void) url;
        (void) version;
        (void) upload;
        (void) upload_size;
        (void) state;
        r = make_response(h, n);
        if (r) {
                result = MHD_queue_response(connection,
                                            !reads ? MHD_HTTP_METHOD_NOT_ALLOWED
                                            : n    ? MHD_HTTP_OK
                                                   : MHD_HTTP_SERVICE_UNAVAILABLE,
                                            r);
                MHD_destroy_response(r);
        }

        return result;
}

/* ---- the server in the loop --------------------------------------------------------------- */

static void run(struct health *h)
{
        MHD_UNSIGNED_LONG_LONG left = 0;
        bool waits;

        (void) MHD_run(h->server);
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

/* All of the node's addresses, of both families where the kernel has IPv6. */
static int open_socket(uint16_t port)
{
        const struct sockaddr_in6 any6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        const struct sockaddr_in any4 = { .sin_family = AF_INET, .sin_port = htons(port) };
        _cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool ipv6 = fd >= 0;
        int r;

        if (!ipv6)
                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;

        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int) { 1 }, sizeof(int));
        (void) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int) { 0 }, sizeof(int));
        r = ipv6 ? bind(fd, (const struct sockaddr *) &any6, sizeof(any6))
                 : bind(fd, (const struct sockaddr *) &any4, sizeof(any4));
        if (r < 0 || listen(fd, BACKLOG) < 0)
                return -errno;

        return TAKE_FD(fd);
}

static int add_sources(struct health *h)
{
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->server, MHD_DAEMON_INFO_EPOLL_FD);
        int r;

        r = info ? sd_event_add_io(h->d->loop, &h->io, info->epoll_fd, EPOLLIN, on_io, h) : -EIO;
        if (r >= 0)
                r = sd_event_add_time_relative(h->d->loop, &h->timer, CLOCK_MONOTONIC, 0, 0,
                                               on_timer, h);
        if (r >= 0)
                r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);

        return r;
}

static void stop(struct health *h)
{
        sd_event_source_disable_unref(h->io);
        sd_event_source_disable_unref(h->timer);
        h->io = h->timer = NULL;
        if (h->server)
                MHD_stop_daemon(h->server);
        h->server = NULL;
}

static int start(struct health *h)
{
        _cleanup_close_ int fd = open_socket(h->port);
        int r;

        if (fd < 0)
                return fd;

        h->server = MHD_start_daemon(MHD_USE_EPOLL, h->port, NULL, NULL, answer, h,
                                     MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                                     (unsigned) CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
                                     (unsigned) SECONDS, MHD_OPTION_END);
        if (!h->server)
                return -EIO;

        (void) TAKE_FD(fd); /* the server's */
        r = add_sources(h);
        if (r < 0)
                stop(h);

        return r;
}

/* Tried again whenever services change; said once. */
static void try_start(struct health *h, const struct config_service *s)
{
        const struct log_fields fields = { .message = MESSAGE_HEALTH_CHECK_PORT,
                                           .service = s->name,
                                           .origin = &s->health_check_origin };
        int r = h->server ? 0 : start(h);
        char reason[sizeof(h->reason)] = "";

        if (r < 0)
                (void) snprintf(reason, sizeof(reason), "health-check-node-port %u: %s", h->port,
                                r == -EADDRINUSE ? "a program of the node listens there"
                                                 : strerror(-r));
        if (r < 0 && strcmp(reason, h->reason) != 0)
                log_line(LOG_WARNING, &fields, "service %s: %s", s->name, reason);
        memcpy(h->reason, reason, sizeof(reason));
}

/* ---- which there are ---------------------------------------------------------------------- */

static struct health *find(const struct daemon *d, const char *service, uint16_t port)
{
        for (size_t i = 0; i < d->n_health; i++)
                if (d->health[i]->port == port && strcmp(d->health[i]->service, service) == 0)
                        return d->health[i];

        return NULL;
}

static struct health *health_free(struct health *h)
{
        stop(h);
        free(h->service);
        free(h);
        return NULL;
}

static struct health *add(struct daemon *d, const struct config_service *s)
{
        struct health *h = calloc(1, sizeof(*h));

        if (!h)
                return NULL;

        h->d = d;
        h->port = s->health_check_node_port;
        h->service = strdup(s->name);
        if (!h->service || list_grow(&d->health, d->n_health, sizeof(h)) < 0)
                return health_free(h);

        return d->health[d->n_health++] = h;
}

/* Before others come: a port may go from one service to another. */
static void drop_unwanted(struct daemon *d)
{
        const struct config_service *s;
        size_t kept = 0;

        for (size_t i = 0; i < d->n_health; i++) {
                s = config_service(d->build->config, d->health[i]->service);
                if (s && s->health_check_node_port == d->health[i]->port)
                        d->health[kept++] = d->health[i];
                else
                        health_free(d->health[i]);
        }

        d->n_health = kept;
}

void daemon_health_apply(struct daemon *d)
{
        const struct config *c = d->build->config;

        drop_unwanted(d);
        for (size_t i = 0; i < c->n_services; i++) {
                const struct config_service *s = &c->services[i];
                struct health *h;

                if (!s->health_check_node_port)
                        continue;

                h = find(d, s->name, s->health_check_node_port) ?: add(d, s);
                if (h)
                        try_start(h, s);
        }
}

const char *daemon_health_reason(const struct daemon *d, const struct config_service *s)
{
        const struct health *h = find(d, s->name, s->health_check_node_port);

        return h && h->reason[0] != '\0' ? h->reason : NULL;
}

void daemon_health_free(struct daemon *d)
{
        for (size_t i = 0; i < d->n_health; i++)
                health_free(d->health[i]);
        free(d->health);
        d->health = NULL;
        d->n_health = 0;
}
