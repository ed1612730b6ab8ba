/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Health-check node ports: an HTTP server for each service that has one, which says whether this
 * node has a backend of it. A load balancer in front asks, and sends the service's traffic only to
 * nodes that say yes. Each answer looks at what is configured at that moment. */

#include <errno.h>
#include <string.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "log.h"
#include "util.h"

struct health {
        struct daemon *d;
        char *service;
        uint16_t port;
        struct http *server; /* NULL: could not listen */
        char reason[128];
};

/* ---- answers ------------------------------------------------------------------------------ */

/* Backends here that take new flows. Those that are draining do not count, as the balancer in front
 * should go elsewhere in time; nor do those whose endpoint is pending. */
static unsigned count_local(const struct config_service *s)
{
        unsigned n = 0;

        for (size_t i = 0; s && i < s->n_backends; i++)
                n += s->backends[i].local && !s->backends[i].waiting && s->backends[i].weight &&
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

static struct MHD_Response *answer(void *data, const char *path, unsigned *ret_status)
{
        const struct health *h = data;
        unsigned n = count_local(config_service(h->d->build->config, h->service));

        (void) path;
        *ret_status = n ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
        return make_response(h, n);
}

/* ---- which there are ---------------------------------------------------------------------- */

/* Tried again whenever services change, and with every pass of the collection; said once. */
static void try_start(struct health *h, const struct config_service *s)
{
        const struct log_fields fields = { .message = MESSAGE_HEALTH_CHECK_PORT,
                                           .service = s->name,
                                           .origin = &s->health_check_origin };
        int r = h->server ? 0 : http_open(h->d->loop, NULL, h->port, answer, h, &h->server);
        char reason[sizeof(h->reason)] = "";

        if (r < 0)
                (void) snprintf(reason, sizeof(reason), "health-check-node-port %u: %s", h->port,
                                http_reason(r));
        if (r < 0 && strcmp(reason, h->reason) != 0)
                log_line(LOG_WARNING, &fields, "service %s: %s", s->name, reason);
        memcpy(h->reason, reason, sizeof(reason));
}

static struct health *find(const struct daemon *d, const char *service, uint16_t port)
{
        for (size_t i = 0; i < d->n_health; i++)
                if (d->health[i]->port == port && strcmp(d->health[i]->service, service) == 0)
                        return d->health[i];

        return NULL;
}

static struct health *health_free(struct health *h)
{
        (void) http_close(h->server);
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
