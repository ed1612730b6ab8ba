/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Methods that list objects, and the one that sets a backend's state. */

#include <errno.h>
#include <string.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

enum { PIECE = 256 }; /* objects of one reply of a stream */

static json_t *endpoint_number(const struct daemon *d, size_t i)
{
        return i < d->n_endpoints ? endpoint_json(&d->endpoints[i]) : NULL;
}

static json_t *peer_number(const struct daemon *d, size_t i)
{
        const struct config *c = d->build->config;

        return i < c->n_peers ? peer_json(&c->peers[i]) : NULL;
}

static json_t *service_number(const struct daemon *d, size_t i)
{
        const struct config *c = d->build->config;

        return i < c->n_services ? service_json(d, &c->services[i]) : NULL;
}

static json_t *endpoint_named(const struct daemon *d, const char *name)
{
        const struct endpoint *e = endpoint_by_name(d, name);

        return e ? endpoint_json(e) : NULL;
}

static json_t *peer_named(const struct daemon *d, const char *name)
{
        const struct config_peer *p = config_peer(d->build->config, name);

        return p ? peer_json(p) : NULL;
}

static json_t *service_named(const struct daemon *d, const char *name)
{
        const struct config_service *s = config_service(d->build->config, name);

        return s ? service_json(d, s) : NULL;
}

struct kind {
        const char *name, *key;
        json_t *(*number)(const struct daemon *d, size_t i); /* NULL: past the last */
        json_t *(*named)(const struct daemon *d, const char *name);
};

static const struct kind endpoints = { "endpoint", "endpoints", endpoint_number, endpoint_named },
                         peers = { "peer", "peers", peer_number, peer_named },
                         services = { "service", "services", service_number, service_named };

/* ---- lists -------------------------------------------------------------------------------- */

/* A list on its way. It holds no object: between two pieces anything may change. */
struct listing {
        const struct daemon *d;
        const struct kind *kind;
        size_t next;
};

static json_t *next_piece(void *data, bool *ret_last)
{
        struct listing *l = data;
        json_t *list = json_array(), *row;

        for (size_t i = 0; i < PIECE && (row = l->kind->number(l->d, l->next)); i++, l->next++)
                (void) json_array_append_new(list, row);

        row = l->kind->number(l->d, l->next);
        *ret_last = !row;
        json_decref(row);
        return json_pack("{s:o}", l->kind->key, list);
}

static void list_all(struct daemon *d, struct control_call *call, const struct kind *kind)
{
        struct listing *l = malloc(sizeof(*l)), all = { d, kind, 0 };
        json_t *list, *row;

        if (control_wants_more(call) && l) {
                *l = all;
                control_stream(call, &(struct control_stream) { next_piece, free, l });
                return;
        }

        free(l);
        list = json_array();
        for (; (row = kind->number(d, all.next)); all.next++)
                (void) json_array_append_new(list, row);
        control_reply(call, json_pack("{s:o}", kind->key, list));
}

static void list_named(struct daemon *d, struct control_call *call, const struct kind *kind,
                       const json_t *names)
{
        json_auto_t *list = json_array();
        const json_t *name;
        size_t i;

        json_array_foreach (names, i, name) {
                json_t *row = kind->named(d, json_string_value(name));

                if (!row) {
                        control_fail(call, "io.weft.Node.ObjectUnknown",
                                     json_pack("{s:s, s:O, s:o}", "kind", kind->name, "name", name,
                                               "reason",
                                               json_sprintf("there is no %s %s: weftctl %s list "
                                                            "shows all",
                                                            kind->name, json_string_value(name),
                                                            kind->name)));
                        return;
                }
                (void) json_array_append_new(list, row);
        }

        control_reply(call, json_pack("{s:O}", kind->key, list));
}

static void list_objects(struct daemon *d, struct control_call *call, json_t *parameters,
                         const struct kind *kind)
{
        const json_t *names = json_object_get(parameters, "names");

        if (!names || json_is_null(names))
                list_all(d, call, kind);
        else if (are_strings(names))
                list_named(d, call, kind, names);
        else
                control_invalid(call, "names");
}

void list_endpoints(void *data, struct control_call *call, json_t *parameters)
{
        list_objects(data, call, parameters, &endpoints);
}

void list_peers(void *data, struct control_call *call, json_t *parameters)
{
        list_objects(data, call, parameters, &peers);
}

void list_services(void *data, struct control_call *call, json_t *parameters)
{
        list_objects(data, call, parameters, &services);
}

bool are_strings(const json_t *list)
{
        const json_t *item;
        size_t i;

        json_array_foreach (list, i, item)
                if (!json_is_string(item))
                        return false;

        return json_is_array(list);
}

/* ---- states of backends ------------------------------------------------------------------- */

/* why: what of the backend; NULL: there is not even the service. */
static void unknown_backend(struct control_call *call, const char *service, const char *backend,
                            const char *why)
{
        control_fail(call, "io.weft.Node.BackendUnknown",
                     json_pack("{s:s, s:s, s:o}", "service", service, "backend", backend, "reason",
                               why ? json_sprintf("service %s %s %s: weftctl service show %s lists "
                                                  "them",
                                                  service, why, backend, service)
                                   : json_sprintf("there is no service %s: weftctl service list "
                                                  "shows all",
                                                  service)));
}

/* ADDRESS:PORT, or an address that the service has one backend of. */
static struct config_backend *find_backend(struct config_service *s, const char *text,
                                           const char **ret_why)
{
        struct config_backend *found = NULL;
        struct weft_addr addr;
        uint16_t port = 0;

        *ret_why = "has no backend";
        if (parse_address_port(text, &addr, &port) < 0 && parse_address(text, &addr) < 0)
                return NULL;

        for (size_t i = 0; i < s->n_backends; i++) {
                struct config_backend *b = &s->backends[i];

                if (!address_equal(&b->addr, &addr) || (port && b->port != port))
                        continue;
                if (found) {
                        *ret_why = "has several backends, and a port would tell them apart, of";
                        return NULL;
                }
                found = b;
        }

        return found;
}

void set_backend_state(void *data, struct control_call *call, json_t *parameters)
{
        const char *name = json_string_value(json_object_get(parameters, "service"));
        const char *backend = json_string_value(json_object_get(parameters, "backend"));
        const char *state = json_string_value(json_object_get(parameters, "state"));
        struct daemon *d = data;
        struct config_service *s =
                name ? (struct config_service *) config_service(d->build->config, name) : NULL;
        struct weft_error why = { 0 };
        struct config_backend *b;
        const char *missing;
        uint32_t number;

        if (!name || !backend || !state || parse_choice(state, backend_state_names, &number) < 0) {
                control_invalid(call, !name ? "service" : !backend ? "backend" : "state");
                return;
        }
        b = s ? find_backend(s, backend, &missing) : NULL;
        if (!b) {
                unknown_backend(call, name, backend, s ? missing : NULL);
                return;
        }
        if (daemon_state_set(d, s, b, number, &why) < 0) {
                control_fail(call, "io.weft.Node.StoreFailed",
                             json_pack("{s:s}", "reason", why.text));
                return;
        }

        daemon_service_changed(d, s, s);
        log_line(LOG_NOTICE,
                 &(const struct log_fields) { .message = MESSAGE_CHANGED,
                                              .service = name,
                                              .caller = control_caller(call) },
                 "service %s: backend %s set %s by %s", name, backend, state, control_caller(call));
        control_reply(call, json_pack("{s:o}", "service", service_json(d, s)));
}
