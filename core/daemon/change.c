/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Objects set and removed at run time: the methods. A call is one batch, done whole or not at all:
 * checked and entered into the running configuration (config/edit.h), kept, and only then acted
 * upon. Acting cannot fail any more: what is not possible yet is pending. */

#include <errno.h>
#include <string.h>

#include "config/edit.h"
#include "config/index.h"
#include "config/ini.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "module/check.h"
#include "net/namespace.h"
#include "util.h"

#define INTERFACE "io.weft.Node."

/* Of one user who is not root. */
enum { OBJECTS_PER_USER = 4096, SETTINGS_MAX = 1024, TEXT_SHOWN = 400 };

struct batch {
        struct daemon *d;
        struct control_call *call;
        const struct section *section;
        struct edit edit;
        struct diagnostics diagnostics;
        struct weft_error why;
};

static void batch_begin(struct batch *b, struct daemon *d, struct control_call *call,
                        const char *kind)
{
        *b = (struct batch) {
                .d = d,
                .call = call,
                .section = section_by_name(kind),
                .edit = { .config = d->build->config,
                          .root = d->paths.root,
                          .uid = control_uid(call) },
        };
}

/* ---- refusals ----------------------------------------------------------------------------- */

static json_t *diagnostics_json(const struct diagnostics *diagnostics)
{
        json_t *list = json_array();

        for (size_t i = 0; i < diagnostics->n; i++) {
                const struct diagnostic *item = &diagnostics->items[i];
                char place[ORIGIN_TEXT];

                /* What was asked for stands in no file. */
                (void) json_array_append_new(
                        list,
                        item->origin.runtime
                                ? json_string(item->text)
                                : json_sprintf("%s: %s",
                                               origin_format(&item->origin, place, sizeof(place)),
                                               item->text));
        }

        return list;
}

static const char *error_of(int r)
{
        static const struct {
                int error;
                const char *name;
        } names[] = {
                { -EINVAL, INTERFACE "ObjectInvalid" },  { -EROFS, INTERFACE "ObjectConfigured" },
                { -EEXIST, INTERFACE "ObjectExists" },   { -ENOENT, INTERFACE "ObjectUnknown" },
                { -EDQUOT, INTERFACE "TooManyObjects" },
        };

        for (size_t i = 0; i < ELEMENTS(names); i++)
                if (names[i].error == r)
                        return names[i].name;

        return INTERFACE "StoreFailed";
}

static struct log_fields fields_of(enum message message, const struct batch *b, const char *section,
                                   const char *name)
{
        return (struct log_fields) {
                .message = message,
                .caller = control_caller(b->call),
                .endpoint = strcmp(section, "endpoint") == 0 ? name : NULL,
                .peer = strcmp(section, "peer") == 0 ? name : NULL,
                .service = strcmp(section, "service") == 0 ? name : NULL,
        };
}

/* name: the object at fault. */
static void refuse(struct batch *b, int r, const char *name)
{
        const struct log_fields fields =
                fields_of(MESSAGE_CHANGE_REFUSED, b, b->section->name, name);

        log_line(LOG_NOTICE, &fields, "%s %s: a change (asked for by %s) is refused: %s",
                 b->section->name, name, fields.caller, b->why.text);
        control_fail(b->call, error_of(r),
                     json_pack("{s:s, s:s, s:s, s:o}", "kind", b->section->name, "name", name,
                               "reason", b->why.text, "diagnostics",
                               diagnostics_json(&b->diagnostics)));
}

/* ---- acting ------------------------------------------------------------------------------- */

static void log_change(const struct batch *b, const struct edit_change *change)
{
        const struct log_fields fields =
                fields_of(MESSAGE_CHANGED, b, change->section->name, change->name);
        char text[TEXT_SHOWN] = "";
        const char *settings = change->text ? strchr(change->text, '\n') : NULL;

        if (settings)
                (void) snprintf(text, sizeof(text), ": %s", settings + 1);
        for (char *end = strchr(text, '\n'); end; end = strchr(end, '\n'))
                *end = end[1] != '\0' ? ',' : '\0';

        log_line(LOG_NOTICE, &fields, "%s %s %s at run time by %s%s", change->section->name,
                 change->name, change->removed ? "removed" : "set", fields.caller, text);
}

static bool is_within_pod_cidrs(const struct daemon *d, const struct weft_addresses *list)
{
        const struct weft_prefixes *cidrs = &d->build->config->node.pod_cidr;

        for (size_t i = 0; i < list->n; i++)
                if (!any_prefix_contains(cidrs->items, cidrs->n, &list->items[i]))
                        return false;

        return true;
}

static void act_on_endpoints(struct batch *b)
{
        _cleanup_free_ const struct config_endpoint **added =
                calloc(b->edit.n + 1, sizeof(const struct config_endpoint *));
        struct weft_error why = { 0 };
        size_t n = 0;

        for (size_t i = 0; added && i < b->edit.n; i++)
                if (!b->edit.changes[i].removed)
                        added[n++] = edit_after(&b->edit, &b->edit.changes[i]);
        if (daemon_endpoints_changed(b->d, added, n, &why) < 0)
                log_warning("%s", why.text);

        /* A backend may be on this node now, or not any more. */
        for (size_t i = 0; i < b->edit.n; i++) {
                const struct config_endpoint *e =
                        b->edit.changes[i].before ?: edit_after(&b->edit, &b->edit.changes[i]);

                if (!is_within_pod_cidrs(b->d, &e->address)) {
                        daemon_services_apply(b->d);
                        return;
                }
        }
}

static bool same_node_port(const struct config_service *a, const struct config_service *b)
{
        return (a ? a->node_port : 0) == (b ? b->node_port : 0) &&
               (!a || !b || a->proto == b->proto);
}

static void act_on_service(struct batch *b, const struct edit_change *change, bool *ret_ports)
{
        const struct config_service *before = change->before;
        struct config_service *now = edit_after(&b->edit, change);

        daemon_service_changed(b->d, before, now);
        *ret_ports = *ret_ports || !same_node_port(before, now);
}

static void act(struct batch *b)
{
        bool ports = false, services = strcmp(b->section->name, "service") == 0;

        if (strcmp(b->section->name, "endpoint") == 0)
                act_on_endpoints(b);

        for (size_t i = 0; i < b->edit.n; i++) {
                const struct edit_change *change = &b->edit.changes[i];

                log_change(b, change);
                if (services)
                        act_on_service(b, change, &ports);
                else if (strcmp(b->section->name, "peer") == 0)
                        daemon_peer_changed(b->d, change->before, edit_after(&b->edit, change));
        }

        if (services) {
                daemon_states_prune(b->d);
                daemon_health_apply(b->d);
        }
        if (ports)
                daemon_ports_apply(b->d);
}

/* Ends the batch: keeps and acts, or takes everything back. r, name: whether it went well so far,
 * and which object did not. Returns whether it is done; else the call is answered. */
static bool batch_end(struct batch *b, int r, const char *name)
{
        if (r == 0) {
                r = edit_store(&b->edit, &b->why);
                r = r < 0 ? -EIO : 0;
        }
        if (r < 0)
                edit_undo(&b->edit);

        daemon_endpoints_repoint(b->d);
        if (r == 0)
                act(b);
        else
                refuse(b, r, name);

        return r == 0;
}

static void batch_done(struct batch *b)
{
        edit_done(&b->edit);
        diagnostics_done(&b->diagnostics);
}

/* ---- setting ------------------------------------------------------------------------------ */

static int read_settings(const json_t *object, struct setting **ret, size_t *ret_n)
{
        const json_t *list = json_object_get(object, "settings"), *item;
        _cleanup_free_ struct setting *settings = NULL;
        size_t i, n = json_array_size(list);

        if (!json_is_array(list) || n > SETTINGS_MAX)
                return -EINVAL;
        settings = calloc(n + 1, sizeof(*settings));
        if (!settings)
                return -ENOMEM;

        json_array_foreach (list, i, item) {
                settings[i].key = json_string_value(json_object_get(item, "key"));
                settings[i].value = json_string_value(json_object_get(item, "value"));
                if (!settings[i].key || !settings[i].value)
                        return -EINVAL;
        }

        *ret = TAKE(settings);
        *ret_n = n;
        return 0;
}

static size_t count_objects(const struct config *c, uid_t uid)
{
        size_t n = 0;

        for (const struct section *s = sections; s->name; s++)
                for (size_t i = 0; s->named && i < section_count(s, c); i++) {
                        struct origin o =
                                object_origin(s, section_object(s, (struct config *) c, i));

                        n += o.runtime && o.uid == uid;
                }

        return n;
}

/* Those of a batch that are not the user's yet. */
static size_t count_more(const struct batch *b, const json_t *objects)
{
        const json_t *object;
        size_t i, n = 0;

        json_array_foreach (objects, i, object) {
                const void *there =
                        config_object(b->edit.config, b->section,
                                      json_string_value(json_object_get(object, "name")));
                struct origin o = there ? object_origin(b->section, there) : (struct origin) { 0 };

                n += !o.runtime || o.uid != b->edit.uid;
        }

        return n;
}

static int check_limit(struct batch *b, const json_t *objects)
{
        if (b->edit.uid == 0 ||
            count_more(b, objects) + count_objects(b->edit.config, b->edit.uid) <= OBJECTS_PER_USER)
                return 0;

        return weft_fail(&b->why, -EDQUOT,
                         "a user who is not root may set %d objects at most: remove others first",
                         OBJECTS_PER_USER);
}

static int check_name(struct batch *b, const char *name)
{
        if (strlen(b->section->name) + 1 + strlen(name) <= INI_SECTION_MAX &&
            is_object_name(b->section, name))
                return 0;

        return weft_fail(&b->why, -EINVAL,
                         "\"%.100s\" is no name: write letters, digits, \".\", \"_\" and \"-\", at "
                         "most %zu",
                         name, INI_SECTION_MAX - 1 - strlen(b->section->name));
}

/* Numbers of processes are used again: the one that is meant is the one that has it now. */
static int name_process(struct setting *settings, size_t n, char *buf, size_t size,
                        struct weft_error *reterr)
{
        for (size_t i = 0; i < n; i++) {
                uint64_t pid, started;

                if (strcmp(settings[i].key, "pid") != 0 ||
                    parse_number(settings[i].value, &pid) < 0 || pid > 1 << 22)
                        continue;
                started = process_started((uint32_t) pid);
                if (started == 0)
                        return weft_fail(reterr, -EINVAL, "there is no process %s",
                                         settings[i].value);
                (void) snprintf(buf, size, "%u started=%llu", (unsigned) pid,
                                (unsigned long long) started);
                settings[i].value = buf;
        }

        return 0;
}

static void check_lent(struct batch *b, const char *name, const struct weft_addresses *list)
{
        const struct origin asked = { .file = "", .runtime = true };
        char text[ADDRESS_TEXT];

        for (size_t i = 0; i < list->n; i++) {
                const char *holder = leases_holder(&b->d->leases, &list->items[i]);

                if (holder && strcmp(holder, name) != 0)
                        diagnostics_add(&b->diagnostics, &asked,
                                        "[%s %s] %s is lent to [endpoint %s]: choose another",
                                        b->section->name, name,
                                        address_format(&list->items[i], text, sizeof(text)),
                                        holder);
        }
}

/* What only the running node shows to be wrong. */
static int check_new(struct batch *b, const char *name)
{
        struct config_service *s = NULL;

        if (strcmp(b->section->name, "service") == 0) {
                s = config_object(b->edit.config, b->section, name);
                daemon_states_apply_service(b->d, s);
                check_service(s, b->d->build->instances, b->d->build->n_instances, &b->diagnostics);
                check_own_addresses(b->d->build, s, &b->diagnostics);
                check_lent(b, name, &s->cluster_ip);
                check_lent(b, name, &s->external_ip);
                check_lent(b, name, &s->load_balancer_ip);
        } else if (strcmp(b->section->name, "endpoint") == 0)
                check_lent(b, name, &config_endpoint(b->edit.config, name)->address);

        return b->diagnostics.n == 0
                       ? 0
                       : weft_fail(&b->why, -EINVAL, "%s %s is refused", b->section->name, name);
}

static int set_one(struct batch *b, const json_t *object, bool must_be_new)
{
        const char *name = json_string_value(json_object_get(object, "name"));
        _cleanup_free_ struct setting *settings = NULL;
        const void *there;
        char process[64];
        size_t n = 0;
        int r;

        r = check_name(b, name);
        if (r < 0)
                return r;
        there = config_object(b->edit.config, b->section, name);
        if (there && must_be_new && object_origin(b->section, there).runtime)
                return weft_fail(&b->why, -EEXIST,
                                 "%s %s is there already: weftctl %s del %s first",
                                 b->section->name, name, b->section->name, name);

        r = read_settings(object, &settings, &n);
        if (r < 0)
                return weft_fail(&b->why, r, "settings must be a list of key and value, at most %d",
                                 SETTINGS_MAX);

        if (strcmp(b->section->name, "endpoint") == 0)
                r = name_process(settings, n, process, sizeof(process), &b->why);
        if (r == 0)
                r = edit_set(&b->edit, b->section, name, settings, n, &b->diagnostics, &b->why);
        if (r == 0)
                r = check_new(b, name);

        return r;
}

static bool are_named(const json_t *objects)
{
        const json_t *object;
        size_t i;

        json_array_foreach (objects, i, object)
                if (!json_is_string(json_object_get(object, "name")))
                        return false;

        return json_is_array(objects);
}

/* The changed objects as the reply has them. */
static json_t *changed_json(const struct batch *b)
{
        json_t *list = json_array();

        for (size_t i = 0; i < b->edit.n; i++) {
                const struct edit_change *change = &b->edit.changes[i];
                const struct endpoint *e = endpoint_by_name(b->d, change->name);
                json_t *row = NULL;

                if (strcmp(b->section->name, "service") == 0)
                        row = service_json(b->d, edit_after(&b->edit, change));
                else if (strcmp(b->section->name, "peer") == 0)
                        row = peer_json(edit_after(&b->edit, change));
                else if (e)
                        row = endpoint_json(e);
                (void) json_array_append_new(list, row);
        }

        return list;
}

static void set_objects(struct daemon *d, struct control_call *call, json_t *parameters,
                        const char *kind, const char *key, bool must_be_new)
{
        const json_t *objects = json_object_get(parameters, key), *object;
        const char *name = "";
        struct batch b;
        size_t i;
        int r;

        if (!are_named(objects)) {
                control_invalid(call, key);
                return;
        }

        batch_begin(&b, d, call, kind);
        if (daemon_own_addresses_refresh(d))
                daemon_events_look(d);
        r = check_limit(&b, objects);
        json_array_foreach (objects, i, object)
                if (r == 0) {
                        name = json_string_value(json_object_get(object, "name"));
                        r = set_one(&b, object, must_be_new);
                }

        if (batch_end(&b, r, name))
                control_reply(call, json_pack("{s:o}", key, changed_json(&b)));
        batch_done(&b);
}

void add_endpoints(void *data, struct control_call *call, json_t *parameters)
{
        set_objects(data, call, parameters, "endpoint", "endpoints", true);
}

void add_peers(void *data, struct control_call *call, json_t *parameters)
{
        set_objects(data, call, parameters, "peer", "peers", true);
}

void set_services(void *data, struct control_call *call, json_t *parameters)
{
        set_objects(data, call, parameters, "service", "services", false);
}

/* ---- removing ----------------------------------------------------------------------------- */

static void remove_objects(struct daemon *d, struct control_call *call, json_t *parameters,
                           const char *kind)
{
        const json_t *names = json_object_get(parameters, "names"), *item;
        const char *name = "";
        struct batch b;
        size_t i;
        int r = 0;

        if (!are_strings(names)) {
                control_invalid(call, "names");
                return;
        }

        batch_begin(&b, d, call, kind);
        json_array_foreach (names, i, item)
                if (r == 0) {
                        name = json_string_value(item);
                        r = edit_remove(&b.edit, b.section, name, &b.why);
                }

        if (batch_end(&b, r, name)) {
                if (strcmp(kind, "endpoint") == 0)
                        daemon_removals_hold(d, call);
                control_reply(call, NULL);
        }
        batch_done(&b);
}

void remove_endpoints(void *data, struct control_call *call, json_t *parameters)
{
        remove_objects(data, call, parameters, "endpoint");
}

void remove_peers(void *data, struct control_call *call, json_t *parameters)
{
        remove_objects(data, call, parameters, "peer");
}

void remove_services(void *data, struct control_call *call, json_t *parameters)
{
        remove_objects(data, call, parameters, "service");
}
