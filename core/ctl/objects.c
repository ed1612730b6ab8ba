/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Verbs of endpoints, peers, services and backends. */

#include <errno.h>
#include <string.h>

#include "ctl/client.h"
#include "ctl/show.h"
#include "ctl/table.h"
#include "ctl/verbs.h"
#include "util.h"

/* Bytes of settings in one call, so that it fits into what the daemon takes. */
enum { CALL_MAX = 32 * 1024 };

/* ---- lists -------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
        const json_t *const *x = a, *const *y = b;

        return strverscmp(json_string_value(json_object_get(*x, "name")),
                          json_string_value(json_object_get(*y, "name")));
}

/* The daemon's order means nothing. */
static void sort_by_name(json_t *list)
{
        size_t n = json_array_size(list);
        _cleanup_free_ json_t **items = calloc(n + 1, sizeof(json_t *));

        if (!items)
                return;

        for (size_t i = 0; i < n; i++)
                items[i] = json_incref(json_array_get(list, i));
        qsort(items, n, sizeof(json_t *), compare_names);
        for (size_t i = 0; i < n; i++)
                (void) json_array_set_new(list, i, items[i]);
}

static int list(const struct call *c, const char *method, const char *key,
                void (*show)(const json_t *reply, FILE *f, unsigned width))
{
        json_auto_t *reply = NULL;
        json_t *names = c->n_operands > 0 ? json_array() : json_null();
        int code;

        for (size_t i = 0; i < c->n_operands; i++)
                (void) json_array_append_new(names, json_string(c->operands[i]));

        code = call_get(c, method, json_pack("{s:o}", "names", names), true, &reply);
        if (code != EXIT_OK)
                return code;

        sort_by_name(json_object_get(reply, key));
        return call_show(c, reply, show);
}

static int endpoint_list(const struct call *c)
{
        return list(c, "ListEndpoints", "endpoints", show_endpoints);
}

static int peer_list(const struct call *c)
{
        return list(c, "ListPeers", "peers", show_peers);
}

static int service_list(const struct call *c)
{
        return list(c, "ListServices", "services", show_services);
}

static int service_show(const struct call *c)
{
        return list(c, "ListServices", "services", show_service_details);
}

/* ---- setting ------------------------------------------------------------------------------ */

static json_t *setting(const char *word)
{
        const char *value = strchr(word, '=');

        return json_pack("{s:s%, s:s}", "key", word, (size_t) (value - word), "value", value + 1);
}

static int refuse_words(const struct call *c, const char *word)
{
        char text[160];

        (void) snprintf(text, sizeof(text),
                        "write NAME KEY=VALUE…, with the keys of the [%.*s NAME] section (see "
                        "weft.conf(5)), not",
                        (int) strcspn(c->verb->name, " "), c->verb->name);
        return usage(text, word);
}

/* Objects from operands: a word without "=" begins the next one. What is behind *i is left for the
 * next call when that many bytes are there. */
static json_t *take_objects(const struct call *c, size_t *i)
{
        json_t *objects = json_array(), *settings = NULL;
        size_t size = 0;

        for (; *i < c->n_operands; ++*i) {
                const char *word = c->operands[*i];

                if (strchr(word, '=')) {
                        (void) json_array_append_new(settings, setting(word));
                } else {
                        if (size > CALL_MAX)
                                break;
                        settings = json_array();
                        (void) json_array_append_new(objects, json_pack("{s:s, s:o}", "name", word,
                                                                        "settings", settings));
                }
                size += strlen(word) + sizeof("{\"key\":\"\",\"value\":\"\"},");
        }

        return objects;
}

static void extend(json_t *all, const char *key, const json_t *reply)
{
        (void) json_array_extend(json_object_get(all, key), json_object_get(reply, key));
}

static int set(const struct call *c, const char *method, const char *key,
               void (*show)(const json_t *reply, FILE *f, unsigned width))
{
        json_auto_t *all = json_pack("{s:[]}", key);
        int code = EXIT_OK;

        if (strchr(c->operands[0], '='))
                return refuse_words(c, c->operands[0]);

        for (size_t i = 0; code == EXIT_OK && i < c->n_operands;) {
                json_auto_t *reply = NULL;

                code = call_get(c, method, json_pack("{s:o}", key, take_objects(c, &i)), false,
                                &reply);
                if (code == EXIT_OK)
                        extend(all, key, reply);
                else if (json_array_size(json_object_get(all, key)) > 0)
                        (void) fprintf(stderr, "weftctl: %zu before it were set\n",
                                       json_array_size(json_object_get(all, key)));
        }

        return code == EXIT_OK ? call_show(c, all, show) : code;
}

/* What was asked for is there; what of it cannot be used, or not yet, is worth saying. */
static void show_reasons(const json_t *reply, const char *key, FILE *f)
{
        const json_t *list = json_object_get(reply, key), *o;
        size_t i;

        json_array_foreach (list, i, o) {
                const char *reason = json_string_value(json_object_get(o, "reason"));

                if (reason)
                        (void) fprintf(f, "%s is %s: %s\n",
                                       json_string_value(json_object_get(o, "name")),
                                       json_string_value(json_object_get(o, "state")), reason);
        }
}

static void show_set_endpoints(const json_t *reply, FILE *f, unsigned width)
{
        (void) width;
        show_reasons(reply, "endpoints", f);
}

static void show_set_services(const json_t *reply, FILE *f, unsigned width)
{
        (void) width;
        show_reasons(reply, "services", f);
}

static int endpoint_add(const struct call *c)
{
        return set(c, "AddEndpoints", "endpoints", show_set_endpoints);
}

static int peer_add(const struct call *c)
{
        return set(c, "AddPeers", "peers", NULL);
}

static int service_set(const struct call *c)
{
        return set(c, "SetServices", "services", show_set_services);
}

/* ---- removing ----------------------------------------------------------------------------- */

static int del(const struct call *c, const char *method)
{
        json_t *names = json_array();

        for (size_t i = 0; i < c->n_operands; i++)
                (void) json_array_append_new(names, json_string(c->operands[i]));

        return call_ask(c, method, json_pack("{s:o}", "names", names), false, NULL);
}

static int endpoint_del(const struct call *c)
{
        return del(c, "RemoveEndpoints");
}

static int peer_del(const struct call *c)
{
        return del(c, "RemovePeers");
}

static int service_del(const struct call *c)
{
        return del(c, "RemoveServices");
}

/* ---- backends ----------------------------------------------------------------------------- */

static int set_state(const struct call *c, const char *state)
{
        return call_ask(c, "SetBackendState",
                        json_pack("{s:s, s:s, s:s}", "service", c->operands[0], "backend",
                                  c->operands[1], "state", state),
                        false, NULL);
}

static int backend_drain(const struct call *c)
{
        return set_state(c, "draining");
}

static int backend_maintenance(const struct call *c)
{
        return set_state(c, "maintenance");
}

static int backend_activate(const struct call *c)
{
        return set_state(c, "active");
}

/* ---- the table ---------------------------------------------------------------------------- */

#define KEPT                                                                                       \
        "It takes effect at once, without a reload, and is kept in /var/lib/weft: it outlives "    \
        "reloads, restarts and reboots. What stands in a file of the configuration is changed "    \
        "there, not by this verb."

/* clang-format off: one below the other */
const struct verb verb_endpoint_list = {
        .name = "endpoint list",
        .operands = "[NAME…]",
        .summary = "endpoints: state, addresses, interface, where they are set",
        .most = OPERANDS_ANY,
        .paged = true,
        .run = endpoint_list,
};
const struct verb verb_endpoint_add = {
        .name = "endpoint add",
        .operands = "NAME KEY=VALUE…",
        .summary = "make NAME an endpoint; the keys are those of [endpoint NAME]",
        .text = "For instance:\n\n"
                "weftctl endpoint add web-1 netns=/run/netns/web-1 address=10.244.1.10\n\n"
                "A name that follows the settings begins the next endpoint; all are added or "
                "none. " KEPT,
        .least = 1,
        .most = OPERANDS_ANY,
        .run = endpoint_add,
};
const struct verb verb_endpoint_del = {
        .name = "endpoint del",
        .operands = "NAME…",
        .summary = "take endpoints away, with what weft made for them",
        .least = 1,
        .most = OPERANDS_ANY,
        .run = endpoint_del,
};
const struct verb verb_peer_list = {
        .name = "peer list",
        .operands = "[NAME…]",
        .summary = "peers: addresses, pod CIDRs, where they are set",
        .most = OPERANDS_ANY,
        .paged = true,
        .run = peer_list,
};
const struct verb verb_peer_add = {
        .name = "peer add",
        .operands = "NAME KEY=VALUE…",
        .summary = "make NAME a peer; the keys are those of [peer NAME]",
        .text = "For instance:\n\n"
                "weftctl peer add n2 address=192.0.2.12 pod-cidr=10.244.2.0/24\n\n"
                "A name that follows the settings begins the next peer; all are added or none, up "
                "to "
                "some hundred at once. " KEPT,
        .least = 1,
        .most = OPERANDS_ANY,
        .run = peer_add,
};
const struct verb verb_peer_del = {
        .name = "peer del",
        .operands = "NAME…",
        .summary = "take peers away",
        .least = 1,
        .most = OPERANDS_ANY,
        .run = peer_del,
};
const struct verb verb_service_list = {
        .name = "service list",
        .operands = "[NAME…]",
        .summary = "services: state, port, addresses, backends, where they are set",
        .most = OPERANDS_ANY,
        .paged = true,
        .run = service_list,
};
const struct verb verb_service_show = {
        .name = "service show",
        .operands = "NAME…",
        .summary = "all of a service, and its backends",
        .least = 1,
        .most = OPERANDS_ANY,
        .paged = true,
        .run = service_show,
};
const struct verb verb_service_set = {
        .name = "service set",
        .operands = "NAME KEY=VALUE…",
        .summary = "make or change a service; the keys are those of [service NAME]",
        .text = "For instance:\n\n"
                "weftctl service set web port=80/tcp node-port=30080 backend='10.244.1.10:8080 "
                "weight=2' "
                "backend=10.244.2.10:8080\n\n"
                "Of a service that was set before, keys that are not mentioned stay as they are, "
                "mentioned ones lose what they were (a list is replaced), and KEY= alone gives the "
                "default. A name that follows the settings begins the next service; all are set or "
                "none. " KEPT,
        .least = 1,
        .most = OPERANDS_ANY,
        .run = service_set,
};
const struct verb verb_service_del = {
        .name = "service del",
        .operands = "NAME…",
        .summary = "take services away",
        .least = 1,
        .most = OPERANDS_ANY,
        .run = service_del,
};
const struct verb verb_backend_drain = {
        .name = "backend drain",
        .operands = "SERVICE ADDRESS[:PORT]",
        .summary = "no new flows for this backend; old ones go on",
        .text = "Whatever the service's section says, and until weftctl backend activate: over "
                "reloads, "
                "restarts and reboots. A service of which every backend is drained goes on using "
                "them.",
        .least = 2,
        .most = 2,
        .run = backend_drain,
};
const struct verb verb_backend_maintenance = {
        .name = "backend maintenance",
        .operands = "SERVICE ADDRESS[:PORT]",
        .summary = "the same, also where no other backend is left",
        .least = 2,
        .most = 2,
        .run = backend_maintenance,
};
const struct verb verb_backend_activate = {
        .name = "backend activate",
        .operands = "SERVICE ADDRESS[:PORT]",
        .summary = "new flows for this backend again",
        .least = 2,
        .most = 2,
        .run = backend_activate,
};
/* clang-format on */
