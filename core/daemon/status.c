/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "names.h"
#include "util.h"

const char *const backend_state_names[] = { "active", "draining", "maintenance", NULL };

enum { ROWS_MAX = WEFT_HOOKS * (WEFT_STAGES_PER_HOOK + 2) };

static void add(json_t *array, json_t *item)
{
        (void) json_array_append_new(array, item);
}

static json_t *address_json(const struct weft_addr *a)
{
        char text[ADDRESS_TEXT];

        return json_string(address_format(a, text, sizeof(text)));
}

static json_t *addresses_json(const struct weft_addr *a, size_t n)
{
        json_t *list = json_array();

        for (size_t i = 0; i < n; i++)
                if (!address_is_zero(&a[i]))
                        add(list, address_json(&a[i]));

        return list;
}

static json_t *prefixes_json(const struct weft_prefixes *p)
{
        json_t *list = json_array();
        char text[PREFIX_TEXT];

        for (size_t i = 0; i < p->n; i++)
                add(list, json_string(prefix_format(&p->items[i], text, sizeof(text))));

        return list;
}

/* ---- modules ------------------------------------------------------------------------------ */

static struct instance *instance_of(const struct build *b, const struct weft_module *m)
{
        for (size_t i = 0; i < b->n_instances; i++)
                if (&b->instances[i]->module->desc == m)
                        return b->instances[i];

        return NULL;
}

const char *module_state(const struct build *b, const struct plan_row *row)
{
        const struct instance *i = instance_of(b, row->module);

        return i && i->degraded ? "degraded" : row->on ? "on" : "off";
}

int module_each_counter(const struct build *b, const struct weft_module *m,
                        void (*f)(void *data, const struct weft_named *counter, uint64_t value),
                        void *data)
{
        const struct instance *i = instance_of(b, m);
        int fd = i && m->counters ? instance_map(i, "counters") : -1;

        for (uint32_t n = 0; fd >= 0 && m->counters[n].name; n++) {
                uint64_t value;

                if (count_cpus(fd, &n, &value, 1) == 0)
                        f(data, &m->counters[n], value);
        }

        return fd < 0 ? -ENOENT : 0;
}

static void add_module_counter(void *list, const struct weft_named *counter, uint64_t value)
{
        add(list, json_pack("{s:s, s:s, s:I}", "name", counter->name, "help",
                            counter->help ? counter->help : "", "value", (json_int_t) value));
}

/* What a module counts by itself; NULL: nothing. */
static json_t *module_counters(const struct build *b, const struct weft_module *m)
{
        json_t *list = json_array();

        if (module_each_counter(b, m, add_module_counter, list) == 0)
                return list;

        json_decref(list);
        return NULL;
}

static json_t *modules_json(const struct build *b)
{
        json_t *list = json_array();

        for (size_t i = 0; i < b->n_rows; i++) {
                const struct plan_row *row = &b->rows[i];
                const struct weft_module *m = row->module;
                struct instance *running = instance_of(b, m);
                _cleanup_free_ char *status = running ? instance_status(running) : NULL;

                add(list, json_pack("{s:s, s:s, s:s, s:s, s:s*, s:s*, s:o*}", "name", m->name,
                                    "version", m->version ? m->version : WEFT_VERSION, "summary",
                                    m->summary ? m->summary : "", "state", module_state(b, row),
                                    "reason", row->reason[0] ? row->reason : NULL, "status",
                                    status && status[0] ? status : NULL, "counters",
                                    module_counters(b, m)));
        }

        return list;
}

/* ---- objects ------------------------------------------------------------------------------ */

static json_t *uplinks_json(const struct daemon *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->n_uplinks; i++) {
                const struct uplink *u = &d->uplinks[i];
                const struct weft_addr addrs[] = { u->addr4, u->addr6 };

                add(list, json_pack("{s:s, s:i, s:o, s:i, s:b}", "name", u->name, "ifindex",
                                    u->link.ifindex, "addresses", addresses_json(addrs, 2), "mtu",
                                    u->link.mtu, "xdp", u->xdp));
        }

        return list;
}

/* Where an object comes from. */
static void set_origin(json_t *row, const struct origin *o)
{
        char place[ORIGIN_TEXT];

        (void) json_object_update_new(row, json_pack("{s:s, s:b}", "origin",
                                                     origin_format(o, place, sizeof(place)),
                                                     "runtime", o->runtime));
}

json_t *endpoint_json(const struct endpoint *e)
{
        json_t *row = json_pack("{s:s, s:o, s:i, s:s}", "name", e->name, "addresses",
                                addresses_json(e->addrs.items, e->addrs.n), "identity",
                                e->section->identity, "state", e->ready ? "ready" : "pending");

        if (e->ready)
                (void) json_object_update_new(row,
                                              json_pack("{s:s, s:i}", "interface", e->wire.ifname,
                                                        "ifindex", e->wire.ifindex));
        if (!e->ready || e->reason[0] != '\0')
                (void) json_object_set_new(row, "reason", json_string(e->reason));
        set_origin(row, &e->section->origin);

        return row;
}

static json_t *endpoints_json(const struct daemon *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->n_endpoints; i++)
                add(list, endpoint_json(&d->endpoints[i]));

        return list;
}

json_t *peer_json(const struct config_peer *p)
{
        json_t *row = json_pack("{s:s, s:o, s:o, s:i}", "name", p->name, "addresses",
                                addresses_json(p->address.items, p->address.n), "pod_cidrs",
                                prefixes_json(&p->pod_cidr), "identity", p->identity);

        set_origin(row, &p->origin);
        return row;
}

static json_t *peers_json(const struct config *c)
{
        json_t *list = json_array();

        for (size_t i = 0; i < c->n_peers; i++)
                add(list, peer_json(&c->peers[i]));

        return list;
}

static json_t *backends_json(const struct daemon *d, const struct config_service *s)
{
        json_t *list = json_array();

        for (size_t i = 0; i < s->n_backends; i++) {
                const struct config_backend *b = &s->backends[i];

                add(list, json_pack("{s:o, s:i, s:i, s:s, s:b, s:I}", "address",
                                    address_json(&b->addr), "port", b->port, "weight", b->weight,
                                    "state", backend_state_names[b->state], "runtime",
                                    daemon_state_is_set(d, s, b), "flows",
                                    (json_int_t) tables_backend_flows(d->tables, s, b)));
        }

        return list;
}

static json_t *service_addresses(const struct config_service *s)
{
        json_t *list = addresses_json(s->cluster_ip.items, s->cluster_ip.n);
        json_auto_t *external = addresses_json(s->external_ip.items, s->external_ip.n);
        json_auto_t *balanced = addresses_json(s->load_balancer_ip.items, s->load_balancer_ip.n);

        (void) json_array_extend(list, external);
        (void) json_array_extend(list, balanced);
        return list;
}

static const char *protocol_name(uint8_t proto)
{
        if (proto == IPPROTO_TCP)
                return "tcp";

        return proto == IPPROTO_UDP ? "udp" : "sctp";
}

static json_t *intruder_json(const struct net_listener *l)
{
        char text[ADDRESS_TEXT];

        return json_sprintf("%s listens on the node port, too (at %s): stop it, or choose another "
                            "node-port",
                            l->owner, address_format(&l->addr, text, sizeof(text)));
}

/* NULL: none of its backends waits. */
static json_t *waiting_json(const struct config_service *s)
{
        char text[ADDRESS_TEXT];

        for (size_t i = 0; i < s->n_backends; i++)
                if (s->backends[i].waiting)
                        return json_sprintf(
                                "backend %s gets no new flows: its endpoint is pending",
                                address_format(&s->backends[i].addr, text, sizeof(text)));

        return NULL;
}

json_t *service_json(const struct daemon *d, const struct config_service *s)
{
        const struct net_listener *intruder = daemon_ports_intruder(d, s);
        const char *reason = service_reason(d, s->name), *health = daemon_health_reason(d, s);
        json_t *waiting = reason ? NULL : waiting_json(s), *row;

        row = json_pack("{s:s, s:s, s:i, s:o, s:o, s:s, s:s*}", "name", s->name, "protocol",
                        protocol_name(s->proto), "port", s->port, "addresses", service_addresses(s),
                        "backends", backends_json(d, s), "state", reason ? "pending" : "ready",
                        "reason", reason);

        if (s->node_port)
                (void) json_object_set_new(row, "node_port", json_integer(s->node_port));
        if (waiting)
                (void) json_object_set_new(row, "reason", waiting);
        if (intruder && !reason)
                (void) json_object_set_new(row, "reason", intruder_json(intruder));
        if (health && !reason)
                (void) json_object_set_new(row, "reason", json_string(health));
        set_origin(row, &s->origin);

        return row;
}

static json_t *services_json(const struct daemon *d)
{
        const struct config *c = d->build->config;
        json_t *list = json_array();

        for (size_t i = 0; i < c->n_services; i++)
                add(list, service_json(d, &c->services[i]));

        return list;
}

static json_t *conflicts_json(const struct daemon *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->n_conflicts; i++)
                add(list, json_pack("{s:s, s:s}", "what", d->conflicts[i].what, "remedy",
                                    d->conflicts[i].remedy));

        return list;
}

/* ---- counters ----------------------------------------------------------------------------- */

struct counter_list {
        const struct daemon *d;
        json_t *list;
};

void count_name_reason(const struct build *b, struct count_view *v)
{
        for (size_t i = 0; v->own && i < b->n_instances; i++) {
                const struct weft_named *reasons = b->instances[i]->module->desc.reasons;

                for (uint16_t n = 0; b->instances[i]->id == v->module && reasons && reasons[n].name;
                     n++)
                        if (n + 1 == v->own) {
                                v->what = reasons[n].name;
                                v->help = reasons[n].help;
                        }
        }
}

/* Hook and module say something only where a packet was decided; events are counted without. */
static void add_counter(struct counter_list *l, const struct count_view *v, bool placed,
                        bool by_module)
{
        const char *module =
                by_module ? generation_module_name(l->d->build->generation, v->module) : NULL;
        json_t *row;

        if (v->packets == 0)
                return;

        row = json_pack("{s:s, s:s, s:I, s:s*}", "what", v->what, "help", v->help ? v->help : "",
                        "packets", (json_int_t) v->packets, "module",
                        by_module && !module ? "gone" : module);
        if (placed)
                (void) json_object_update_new(
                        row, json_pack("{s:s, s:I}", "hook",
                                       v->hook < WEFT_HOOKS ? hook_names[v->hook] : "unknown",
                                       "bytes", (json_int_t) v->bytes));
        add(l->list, row);
}

static void add_drop(void *data, const struct count_view *v)
{
        const struct counter_list *l = data;
        uint64_t recent = recent_packets(&l->d->recent, v, monotonic_now());
        struct count_view named = *v;

        count_name_reason(l->d->build, &named);
        add_counter(data, &named, true, true);
        if (v->packets > 0)
                (void) json_object_set_new(json_array_get(l->list, json_array_size(l->list) - 1),
                                           "last_minute", json_integer((json_int_t) recent));
}

static void add_forward(void *data, const struct count_view *v)
{
        add_counter(data, v, true, false);
}

static void add_event(void *data, const struct count_view *v)
{
        add_counter(data, v, false, false);
}

static json_t *counters(struct daemon *d,
                        void (*each)(struct tables *, void (*)(void *, const struct count_view *),
                                     void *),
                        void (*f)(void *, const struct count_view *))
{
        struct counter_list l = { d, json_array() };

        each(d->tables, f, &l);
        return l.list;
}

/* ---- methods ------------------------------------------------------------------------------ */

static void get_status(void *data, struct control_call *call, json_t *parameters)
{
        struct daemon *d = data;
        const struct config *c = d->build->config;
        struct weft_addr addrs[NODE_ADDRESSES_MAX];
        size_t n = node_addresses(d, addrs, NODE_ADDRESSES_MAX);

        (void) parameters;
        daemon_ports_look(d);
        /* clang-format off: a line for each field */
        control_reply(call,
                      json_pack("{s:s, s:s, s:I, s:s, s:o, s:o, s:o, s:o,"
                                " s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o}",
                                "node", c->node.name, "version", WEFT_VERSION, "generation",
                                (json_int_t) generation_number(d->build->generation), "attach",
                                attach_uses_tcx(d->attachments) ? "tcx" : "clsact", "addresses",
                                addresses_json(addrs, n), "pod_cidrs",
                                prefixes_json(&c->node.pod_cidr), "uplinks", uplinks_json(d),
                                "modules", modules_json(d->build), "endpoints", endpoints_json(d),
                                "peers", peers_json(c), "services", services_json(d), "conflicts",
                                conflicts_json(d), "flows", flow_counts(d), "drops",
                                counters(d, tables_each_drop, add_drop), "forwards",
                                counters(d, tables_each_forward, add_forward), "events",
                                counters(d, tables_each_event, add_event), "table_bytes",
                                (json_int_t) tables_memory(d->tables), "metrics", metrics_json(d)));
        /* clang-format on */
}

static bool is_hook(const char *name)
{
        for (size_t i = 0; i < WEFT_HOOKS; i++)
                if (strcmp(hook_names[i], name) == 0)
                        return true;

        return false;
}

static void get_chain(void *data, struct control_call *call, json_t *parameters)
{
        const struct daemon *d = data;
        json_t *wanted = json_object_get(parameters, "hook");
        const char *hook = json_string_value(wanted);
        struct chain_row rows[ROWS_MAX];
        size_t n = generation_chain(d->build->generation, rows, ROWS_MAX);
        json_t *stages, *not_replayed;

        if ((wanted && !json_is_null(wanted) && !hook) || (hook && !is_hook(hook))) {
                control_invalid(call, "hook");
                return;
        }

        stages = json_array();
        not_replayed = json_array();
        for (size_t i = 0; i < n; i++) {
                const struct chain_row *row = &rows[i];

                if (hook && strcmp(hook_names[row->hook], hook) != 0)
                        continue;
                add(stages,
                    json_pack("{s:s, s:s*, s:s, s:s, s:I, s:I}", "hook", hook_names[row->hook],
                              "phase", row->phase < WEFT_PHASES ? phase_names[row->phase] : NULL,
                              "module", row->module, "stage", row->stage, "program",
                              (json_int_t) row->prog_id, "runs", (json_int_t) row->run_count));
                if (row->phase == WEFT_EARLY && !row->engine)
                        add(not_replayed, json_pack("{s:s, s:s, s:s, s:s}", "hook",
                                                    hook_names[row->hook], "module", row->module,
                                                    "stage", row->stage, "reason", "early"));
        }

        control_reply(call,
                      json_pack("{s:o, s:o}", "stages", stages, "not_replayed", not_replayed));
}

static void list_modules(void *data, struct control_call *call, json_t *parameters)
{
        const struct daemon *d = data;

        (void) parameters;
        control_reply(call, json_pack("{s:o}", "modules", modules_json(d->build)));
}

static json_t *diagnostics_json(const struct diagnostics *diagnostics)
{
        json_t *list = json_array();
        char place[ORIGIN_TEXT];

        for (size_t i = 0; i < diagnostics->n; i++)
                add(list,
                    json_sprintf("%s: %s",
                                 origin_format(&diagnostics->items[i].origin, place, sizeof(place)),
                                 diagnostics->items[i].text));

        return list;
}

static void refuse_reload(struct control_call *call, const char *reason,
                          const struct diagnostics *diagnostics)
{
        control_fail(call, "io.weft.Node.ReloadRefused",
                     json_pack("{s:s, s:o}", "reason", reason, "diagnostics",
                               diagnostics_json(diagnostics)));
}

static void add_change(void *data, const char *module, enum instance_change change)
{
        static const char *const names[] = INSTANCE_CHANGE_NAMES;

        add(data, json_pack("{s:s, s:s}", "module", module, "change", names[change]));
}

static void plan_reload(void *data, struct control_call *call, json_t *parameters)
{
        struct diagnostics diagnostics = { 0 };
        json_t *changes = json_array();
        struct weft_error why = { 0 };
        struct daemon *d = data;

        (void) parameters;
        if (daemon_reload_dry(d, add_change, changes, &diagnostics, &why) < 0) {
                refuse_reload(call, why.text, &diagnostics);
                json_decref(changes);
        } else
                control_reply(call, json_pack("{s:o}", "changes", changes));

        diagnostics_done(&diagnostics);
}

static void reload(void *data, struct control_call *call, json_t *parameters)
{
        struct diagnostics diagnostics = { 0 };
        struct weft_error why = { 0 };
        struct daemon *d = data;

        (void) parameters;
        if (daemon_reload(d, control_caller(call), &diagnostics, &why) < 0) {
                refuse_reload(call, why.text, &diagnostics);
        } else {
                daemon_removals_hold(d, call);
                control_reply(call,
                              json_pack("{s:I}", "generation",
                                        (json_int_t) generation_number(d->build->generation)));
        }

        diagnostics_done(&diagnostics);
}

const struct control_method node_methods[] = {
        { "GetStatus", CONTROL_READ, get_status },
        { "GetChain", CONTROL_READ, get_chain },
        { "ListFlows", CONTROL_READ, list_flows },
        { "GetMetrics", CONTROL_READ, get_metrics },
        { "ListModules", CONTROL_READ, list_modules },
        { "ListEndpoints", CONTROL_READ, list_endpoints },
        { "AddEndpoints", CONTROL_CHANGE, add_endpoints },
        { "RemoveEndpoints", CONTROL_CHANGE, remove_endpoints },
        { "ListPeers", CONTROL_READ, list_peers },
        { "AddPeers", CONTROL_CHANGE, add_peers },
        { "RemovePeers", CONTROL_CHANGE, remove_peers },
        { "ListServices", CONTROL_READ, list_services },
        { "SetServices", CONTROL_CHANGE, set_services },
        { "RemoveServices", CONTROL_CHANGE, remove_services },
        { "SetBackendState", CONTROL_CHANGE, set_backend_state },
        { "Reload", CONTROL_CHANGE, reload },
        { "PlanReload", CONTROL_CHANGE, plan_reload },
        { 0 },
};
