/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/daemon.h"
#include "engine-object.h"
#include "generation/selftest.h"
#include "log.h"
#include "module/check.h"
#include "module/crashes.h"
#include "probe/probe.h"
#include "util.h"

WEFT_OBJECT(ENGINE_OBJECT);

static size_t engine_size(void)
{
        return weft_object_end - weft_object;
}

int engine_tables_open(struct daemon *d, const struct config *c, struct weft_error *reterr)
{
        const struct tables_settings settings = {
                .bpffs = d->paths.bpffs,
                .flow_table_size = c->flow_table_size,
                .hz = d->hz,
        };

        return tables_open(&settings, weft_object, engine_size(), &d->tables, reterr);
}

/* ---- what instances ask for --------------------------------------------------------------- */

static int service_route(void *data, const struct weft_prefix *prefix,
                         const struct weft_addr *gateway, struct weft_error *reterr)
{
        struct build *b = data;

        return host_route(b->daemon->host, prefix, gateway, 0, 0, reterr);
}

static void service_unroute(void *data, const struct weft_prefix *prefix)
{
        struct build *b = data;

        host_unroute(b->daemon->host, prefix);
}

static int service_table(void *data, const char *name, const char *body, struct weft_error *reterr)
{
        struct build *b = data;

        return host_table(b->daemon->host, name, body, reterr);
}

static void service_untable(void *data, const char *name, const char *body)
{
        struct build *b = data;

        host_untable(b->daemon->host, name, body);
}

static struct instance *instance_by_name(const struct build *b, const char *name)
{
        for (size_t i = 0; b && i < b->n_instances; i++)
                if (strcmp(b->instances[i]->module->desc.name, name) == 0)
                        return b->instances[i];

        return NULL;
}

static const struct weft_prefixes *service_native_prefixes(void *data, const char *module)
{
        const struct instance *i = instance_by_name(data, module);

        return i ? &i->native : NULL;
}

static bool service_runs(void *data, const char *module)
{
        const struct build *b = data;

        for (size_t i = 0; i < b->n_rows; i++)
                if (b->rows[i].on && strcmp(b->rows[i].module->name, module) == 0)
                        return true;

        return false;
}

static bool service_wraps(void *data)
{
        const struct build *b = data;

        for (size_t i = 0; i < b->n_instances; i++)
                if (b->instances[i]->wraps)
                        return true;

        return false;
}

static void peer_info(const struct build *b, const struct config_peer *peer,
                      struct weft_peer_info *ret)
{
        config_peer_info(peer, ret);
        ret->tunnelled = build_peer_is_tunnelled(b, peer);
}

static void service_peers(void *data, void (*f)(void *, const struct weft_peer_info *),
                          void *f_data)
{
        const struct build *b = data;

        for (size_t i = 0; i < b->config->n_peers; i++) {
                struct weft_peer_info info;

                peer_info(b, &b->config->peers[i], &info);
                f(f_data, &info);
        }
}

static void service_cluster_prefixes(void *data, void (*f)(void *, const struct weft_prefix *),
                                     void *f_data)
{
        const struct build *b = data;

        config_each_cluster_prefix(b->config, f, f_data);
}

static void service_log(void *data, const char *module, int level, const char *text)
{
        const struct build *b = data;
        const struct log_fields fields = {
                .message = MESSAGE_MODULE_SAYS,
                .module = module,
                .generation = b->generation ? generation_number(b->generation) : 0,
        };

        log_line(level, &fields, "%s", text);
}

/* ---- configuration ------------------------------------------------------------------------ */

static void build_freep(struct build **b)
{
        (void) build_free(*b);
}

int build_config(struct daemon *d, struct build **ret, struct diagnostics *diagnostics,
                 struct weft_error *reterr)
{
        _cleanup_(build_freep) struct build *b = calloc(1, sizeof(*b));
        size_t before = diagnostics->n;
        int r;

        if (!b)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        b->daemon = d;
        b->services = (struct core_services) {
                .data = b,
                .route = service_route,
                .unroute = service_unroute,
                .table = service_table,
                .untable = service_untable,
                .native_prefixes = service_native_prefixes,
                .runs = service_runs,
                .wraps = service_wraps,
                .peers = service_peers,
                .cluster_prefixes = service_cluster_prefixes,
                .log = service_log,
        };

        r = config_read(d->paths.root, &b->config, NULL, diagnostics);
        if (r == 0 && diagnostics->n > before) { /* then all of them at once */
                modules_check(b->config, d->module_dirs, diagnostics);
                r = -EINVAL;
        }
        if (r < 0 && diagnostics->n == 0)
                return weft_fail(reterr, r, "cannot read the configuration below %s/etc/weft: %s",
                                 d->paths.root, strerror(-r));
        if (r < 0)
                return weft_fail(reterr, r, "the configuration has %zu error%s", diagnostics->n,
                                 diagnostics->n == 1 ? "" : "s");

        daemon_states_apply(d, b->config);
        *ret = TAKE(b);
        return 0;
}

/* ---- modules and plan --------------------------------------------------------------------- */

static int open_module(struct build *b, const char *name, struct weft_error *reterr)
{
        return module_set_open(&b->modules, b->daemon->module_dirs, name,
                               b->running ? &b->running->modules : NULL, reterr);
}

static int open_named(struct build *b, struct diagnostics *diagnostics, struct weft_error *reterr)
{
        if (build_chooses(b))
                return build_open_installed(b, open_module, reterr);

        for (size_t i = 0; i < b->config->n_modules; i++) {
                const struct config_module *section = &b->config->modules[i];
                int r = section->enabled ? open_module(b, section->name, reterr) : 0;

                if (r < 0) {
                        modules_check(b->config, b->daemon->module_dirs, diagnostics);
                        return weft_fail_in(reterr, r, "a module cannot be loaded");
                }
        }

        return 0;
}

/* Why the module may not run; caller frees. NULL: it may, or memory ran out. */
static char *why_barred(const struct build *b, const struct module *m)
{
        const struct daemon *d = b->daemon;
        char callback[CRASH_TEXT], *why;
        unsigned n = crashes_of(d->paths.run, m->desc.name, m->sum, callback);

        if (m == b->barred)
                return strdup(b->why_barred.text);
        if (n < CRASHES_MAX ||
            asprintf(&why,
                     "it brought weftd down %u times, at last in %s; put another %s.so in its "
                     "place, or remove %s/crashes, then weftctl reload",
                     n, callback, m->desc.name, d->paths.run) < 0)
                return NULL;

        return why;
}

static int refuse_kernel(int r, struct weft_error *reterr)
{
        struct utsname kernel = { 0 };

        (void) uname(&kernel);
        return weft_fail_in(reterr, r, "on Linux %s", kernel.release);
}

static int plan(struct build *b, struct weft_error *reterr)
{
        const struct weft_module *named[MODULES_MAX], *available[MODULES_MAX];
        char *barred[MODULES_MAX];
        struct plan_input input = {
                .named = named,
                .available = available,
                .barred = (const char *const *) barred,
                .n_available = b->modules.n,
                .mode = b->config->mode,
                .choose = build_chooses(b),
                .by_peer = config_routes_by_peer(b->config),
        };
        int r;

        b->rows = calloc(b->modules.n + 1, sizeof(*b->rows));
        if (!b->rows)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        probe_host(b->config->node.pod_cidr.items, b->config->node.pod_cidr.n);
        input.facts = probe_facts(&input.n_facts);
        if (input.choose)
                input.conditions = build_conditions(b);
        for (size_t i = 0; i < b->modules.n; i++) {
                const struct config_module *section =
                        config_module_find(b->config, b->modules.items[i]->desc.name);

                available[i] = &b->modules.items[i]->desc;
                barred[i] = why_barred(b, b->modules.items[i]);
                if (section && section->enabled)
                        named[input.n_named++] = available[i];
        }

        r = plan_modules(&input, b->rows, &b->n_rows, reterr);
        for (size_t i = 0; i < b->modules.n; i++)
                free(barred[i]);
        if (r == -EOPNOTSUPP)
                return refuse_kernel(r, reterr);

        return r >= 0 && input.choose ? build_add_sections(b, reterr) : r;
}

/* A module keeps its number in every generation of this process: flows and drop counters carry it
 * longer than any of them. From 1; 0 where memory ran out. */
static uint16_t module_number(struct daemon *d, const char *name)
{
        char *copy;

        for (size_t i = 0; i < d->module_numbers.n; i++)
                if (strcmp(d->module_numbers.items[i], name) == 0)
                        return i + 1;

        copy = strdup(name);
        if (!copy || list_grow(&d->module_numbers.items, d->module_numbers.n, sizeof(copy)) < 0) {
                free(copy);
                return 0;
        }

        d->module_numbers.items[d->module_numbers.n++] = copy;
        return d->module_numbers.n;
}

/* Instances ask for the node's addresses and prefixes when they are made, and are told of no
 * change. */
static bool same_node(const struct config_node *a, const struct config_node *b)
{
        return a->pod_cidr.n == b->pod_cidr.n && a->address.n == b->address.n &&
               (a->pod_cidr.n == 0 || memcmp(a->pod_cidr.items, b->pod_cidr.items,
                                             a->pod_cidr.n * sizeof(*a->pod_cidr.items)) == 0) &&
               (a->address.n == 0 || memcmp(a->address.items, b->address.items,
                                            a->address.n * sizeof(*a->address.items)) == 0);
}

/* Is one of the modules that this one needs by name another than before? It may have learnt
 * something of it. */
static bool needs_changed(const struct build *b, const struct weft_module *m)
{
        for (const struct weft_need *need = m->needs; need && need->kind; need++) {
                const struct instance *now, *before;

                if (need->kind != WEFT_NEED_MODULE)
                        continue;
                now = instance_by_name(b, need->name);
                before = instance_by_name(b->running, need->name);
                if (now != before || (now && now->next_config))
                        return true;
        }

        return false;
}

/* enum instance_change, or a refusal. An instance that failed at an event is made anew: so what it
 * was to do is tried again, and a failure is a refusal then. */
static int judge(const struct build *b, struct instance *old, const char *name,
                 struct diagnostics *diagnostics, struct weft_error *reterr)
{
        if (!old)
                return INSTANCE_ADDED;
        if (old->degraded || old->module != module_set_find(&b->modules, name) ||
            !same_node(&b->config->node, &b->running->config->node) ||
            needs_changed(b, &old->module->desc))
                return INSTANCE_REPLACED;

        return instance_ask(old, config_module_find(b->config, name), diagnostics, reterr);
}

static int make_instance(struct build *b, const char *name, struct diagnostics *diagnostics,
                         struct weft_error *reterr)
{
        struct instance *old = instance_by_name(b->running, name),
                        **new = &b->instances[b->n_instances];
        uint16_t number = module_number(b->daemon, name);
        int change, r;

        if (number == 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        change = judge(b, old, name, diagnostics, reterr);
        if (change < 0)
                return change;

        b->changes[b->n_instances] = change;
        if (change == INSTANCE_KEPT || change == INSTANCE_RECONFIGURED) {
                old->refs++;
                old->kept = true;
                *new = old;
                return 0;
        }

        r = instance_new(module_set_find(&b->modules, name), number,
                         config_module_find(b->config, name), &b->services, diagnostics, new,
                         reterr);
        if (r >= 0)
                (*new)->old = old;
        return r;
}

static int make_instances(struct build *b, struct diagnostics *diagnostics,
                          struct weft_error *reterr)
{
        int r = 0;

        b->instances = calloc(b->n_rows + 1, sizeof(*b->instances));
        b->changes = calloc(b->n_rows + 1, sizeof(*b->changes));
        if (!b->instances || !b->changes)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        for (size_t i = 0; i < b->n_rows; i++) {
                int k;

                if (!b->rows[i].on)
                        continue;
                k = make_instance(b, b->rows[i].module->name, diagnostics, reterr);
                if (k < 0)
                        r = k;
                else
                        b->n_instances++;
        }

        return r;
}

static void leave_instances(const struct build *b)
{
        for (size_t i = b->n_instances; i > 0; i--) {
                if (b->instances[i - 1]->refs == 1)
                        instance_detach(b->instances[i - 1]);
                else if (b->instances[i - 1]->kept)
                        instance_ask_undo(b->instances[i - 1]);
        }
}

/* After leave_instances(). */
static void free_instances(struct build *b)
{
        for (size_t i = b->n_instances; i > 0; i--)
                (void) instance_free(b->instances[i - 1]);
        b->n_instances = b->n_rows = 0;
        free(TAKE(b->instances));
        free(TAKE(b->changes));
        free(TAKE(b->rows));
}

/* What modules say in load is needed to judge the services. */
static int load_instances(struct build *b, struct diagnostics *diagnostics,
                          struct weft_error *reterr)
{
        size_t before = diagnostics->n;

        for (size_t i = 0; i < b->n_instances; i++) {
                int r = b->instances[i]->kept ? 0 : instance_load(b->instances[i], reterr);

                if (r < 0)
                        return r;
        }

        check_services(b->config, b->instances, b->n_instances, diagnostics);
        (void) daemon_own_addresses_refresh(b->daemon);
        for (size_t i = 0; i < b->config->n_services; i++)
                check_own_addresses(b, &b->config->services[i], diagnostics);
        return diagnostics->n > before ? weft_fail(reterr, -EINVAL, "a node port cannot be served")
                                       : 0;
}

static int plan_and_load(struct build *b, struct diagnostics *diagnostics,
                         struct weft_error *reterr)
{
        int r = plan(b, reterr);

        if (r >= 0)
                r = make_instances(b, diagnostics, reterr);

        return r < 0 ? r : load_instances(b, diagnostics, reterr);
}

/* Does a device of somebody else's have the port of a tunnel that does not run yet? */
static bool bar_tunnel(struct build *b)
{
        for (size_t i = 0; i < b->n_instances; i++) {
                const struct instance *in = b->instances[i];

                if (in->tunnel.mode == WEFT_TUNNEL_NONE || in->kept ||
                    overlay_check(b->daemon->net, &in->tunnel, &b->why_barred) != -EEXIST)
                        continue;
                b->barred = in->module;
                return true;
        }

        return false;
}

int build_modules(struct build *b, const struct build *running, struct diagnostics *diagnostics,
                  struct weft_error *reterr)
{
        int r;

        b->running = running;
        r = open_named(b, diagnostics, reterr);
        if (r >= 0)
                r = plan_and_load(b, diagnostics, reterr);
        if (r < 0 || b->config->mode != MODE_PROBE || !bar_tunnel(b))
                return r;

        /* which port it wants it said when it was loaded */
        leave_instances(b);
        free_instances(b);
        return plan_and_load(b, diagnostics, reterr);
}

/* ---- generation --------------------------------------------------------------------------- */

static void ephemeral_ports(uint16_t *ret_low, uint16_t *ret_high)
{
        _cleanup_free_ char *text = NULL;
        unsigned low = 32768, high = 60999; /* the kernel's default */

        if (file_read("/proc/sys/net/ipv4/ip_local_port_range", &text) == 0)
                (void) sscanf(text, "%u %u", &low, &high);

        *ret_low = low;
        *ret_high = high;
}

static struct generation_settings settings(const struct build *b, uint32_t number)
{
        struct generation_settings s = {
                .number = number,
                .hz = b->daemon->hz,
                .mark_mask = b->config->mark_mask,
                .can_cast = b->daemon->can_cast,
                .can_decap = b->daemon->can_decap,
                .count_lookups = getenv("WEFTD_DEBUG_LOOKUPS") != NULL,
                .bpffs = b->daemon->paths.bpffs,
                .engine = weft_object,
                .engine_size = engine_size(),
        };

        ephemeral_ports(&s.host_ports_low, &s.host_ports_high);
        return s;
}

/* A sandbox that forbids network namespaces is no fault of the modules. */
static bool can_test(struct daemon *d)
{
        struct weft_error why = { 0 };

        if (d->dry.ns < 0 && dry_network_open(&d->dry, &why) < 0)
                log_message(LOG_WARNING, SELFTEST_SKIPPED, "no self-tests: %s", why.text);

        return d->dry.ns >= 0;
}

int build_generation(struct build *b, struct weft_error *reterr)
{
        struct daemon *d = b->daemon;
        struct generation_settings s = settings(b, generation_last(d->paths.bpffs) + 1);
        int r = 0;

        if (can_test(d))
                r = selftest_begin(&s, b->instances, b->n_instances, &b->selftest, reterr);
        if (r >= 0)
                r = generation_build(d->tables, &s, b->instances, b->n_instances, &b->generation,
                                     reterr);

        selftest_wait(b->selftest);
        if (r >= 0 && b->config->xdp == XDP_NATIVE && !generation_replays_in_xdp(b->generation))
                r = weft_fail(reterr, -EBUSY,
                              "a module has an early stage at an uplink, so that nothing can be "
                              "replayed in XDP there, and [weft] xdp = native asks for it");
        return r;
}

int build_prepare(struct build *b, struct weft_error *reterr)
{
        return generation_prepare(b->generation, reterr);
}

int build_attach(struct build *b, struct weft_error *reterr)
{
        for (size_t i = 0; i < b->n_instances; i++) {
                int r = b->instances[i]->kept ? 0 : instance_attach(b->instances[i], reterr);

                if (r < 0) {
                        for (size_t k = i + 1; k > 0; k--)
                                if (!b->instances[k - 1]->kept)
                                        instance_detach(b->instances[k - 1]);
                        return r;
                }
        }

        return 0;
}

int build_selftest(struct build *b, struct weft_error *reterr)
{
        int r = selftest_run(b->selftest, &b->daemon->dry, NULL, reterr);

        b->selftest = selftest_free(b->selftest);
        return r;
}

void build_takeover(struct build *b)
{
        for (size_t i = 0; i < b->n_instances; i++)
                b->instances[i]->services = &b->services;

        generation_takeover(b->generation);
        b->running = NULL;
}

static void tell(const struct build *b, struct instance *i, const struct weft_module_event *event)
{
        const struct log_fields fields = {
                .message = MESSAGE_MODULE_DEGRADED,
                .module = i->module->desc.name,
                .generation = generation_number(b->generation),
        };
        struct weft_error why = { 0 };

        if (instance_event(i, event, &why) < 0)
                log_line(LOG_WARNING, &fields, "%s", why.text);
}

void build_event(struct build *b, enum weft_event_kind kind)
{
        const struct weft_module_event event = { .kind = kind };

        for (size_t i = 0; i < b->n_instances; i++)
                tell(b, b->instances[i], &event);
}

static bool same_peer(const struct config_peer *a, const struct config_peer *b)
{
        return a->address.n == b->address.n && a->pod_cidr.n == b->pod_cidr.n &&
               a->routing == b->routing &&
               (a->address.n == 0 || memcmp(a->address.items, b->address.items,
                                            a->address.n * sizeof(*a->address.items)) == 0) &&
               (a->pod_cidr.n == 0 || memcmp(a->pod_cidr.items, b->pod_cidr.items,
                                             a->pod_cidr.n * sizeof(*a->pod_cidr.items)) == 0);
}

static bool has_peer(const struct config *c, const struct config_peer *p)
{
        const struct config_peer *there = config_peer(c, p->name);

        return there && same_peer(there, p);
}

/* Peers of `of` that are not the same in `other`. A new instance has seen the peers as they are
 * now. */
static void tell_of_peers(struct build *b, const struct config *of, const struct config *other,
                          enum weft_event_kind kind)
{
        for (size_t n = 0; n < of->n_peers; n++) {
                struct weft_peer_info info;

                if (has_peer(other, &of->peers[n]))
                        continue;

                peer_info(b, &of->peers[n], &info);
                for (size_t i = 0; i < b->n_instances; i++)
                        if (b->changes[i] == INSTANCE_KEPT ||
                            b->changes[i] == INSTANCE_RECONFIGURED)
                                tell(b, b->instances[i],
                                     &(struct weft_module_event) { .kind = kind, .peer = &info });
        }
}

void build_peer_event(struct build *b, enum weft_event_kind kind, const struct config_peer *peer)
{
        struct weft_peer_info info;

        peer_info(b, peer, &info);
        for (size_t i = 0; i < b->n_instances; i++)
                tell(b, b->instances[i],
                     &(struct weft_module_event) { .kind = kind, .peer = &info });
}

void build_peer_events(struct build *b, const struct config *before)
{
        tell_of_peers(b, before, b->config, WEFT_PEER_REMOVED);
        tell_of_peers(b, b->config, before, WEFT_PEER_ADDED);
}

struct build *build_free(struct build *b)
{
        if (!b)
                return NULL;

        /* What an instance undoes in detach may need its maps, which go with the generation. */
        leave_instances(b);
        (void) selftest_free(b->selftest);
        (void) generation_free(b->generation);
        free_instances(b);
        module_set_close(&b->modules);
        (void) config_free(b->config);
        free(b);

        return NULL;
}
