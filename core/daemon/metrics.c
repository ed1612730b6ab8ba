/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the node counts, as Prometheus reads it: over the control socket, and at GET /metrics of the
 * socket that the service manager passed in, or else of [weft] metrics-listen. */

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "daemon/exposition.h"
#include "daemon/flows.h"
#include "daemon/http.h"
#include "log.h"
#include "names.h"
#include "probe/probe.h"
#include "util.h"

enum { EVENT_NAME = 64, MODULE_NAME = 64 };

/* The text in the making. */
struct page {
        FILE *f;
        struct daemon *d;
        const char *name; /* of the family */
        uint64_t events[WEFT_EVENTS];
        struct flow_counts flows;
};

#define SAMPLE(page, value, ...)                                                                   \
        exposition_sample((page)->f, (page)->name, (const struct label[]) { __VA_ARGS__ {} }, value)

static const char *const ip_families[] = { "ipv4", "ipv6" };

static const struct {
        const char *name, *text;
} reasons[] = {
#define WEFT_DROP_REASON(name, text) { #name, text },
#include <weft/drop-reasons.def>
#undef WEFT_DROP_REASON
};

/* ---- the daemon --------------------------------------------------------------------------- */

static void build_info(struct page *p)
{
        char abi[16];

        (void) snprintf(abi, sizeof(abi), "%u.%u", WEFT_ABI_MAJOR, WEFT_ABI_MINOR);
        SAMPLE(p, 1, { "version", WEFT_VERSION }, { "abi", abi }, );
}

static void running_generation(struct page *p)
{
        SAMPLE(p, generation_number(p->d->build->generation));
}

static void reloads(struct page *p)
{
        SAMPLE(p, p->d->reloads - p->d->reloads_refused, { "result", "success" }, );
        SAMPLE(p, p->d->reloads_refused, { "result", "failed" }, );
}

static void module_states(struct page *p)
{
        static const char *const states[] = { "on", "off", "degraded" };
        const struct build *b = p->d->build;

        for (size_t i = 0; i < b->n_rows; i++)
                for (size_t s = 0; s < ELEMENTS(states); s++)
                        SAMPLE(p, strcmp(module_state(b, &b->rows[i]), states[s]) == 0,
                               { "module", b->rows[i].module->name }, { "state", states[s] }, );
}

struct own_counters {
        struct page *page;
        const char *module;
};

static void add_own_counter(void *data, const struct weft_named *counter, uint64_t value)
{
        const struct own_counters *own = data;

        SAMPLE(own->page, value, { "module", own->module }, { "counter", counter->name }, );
}

static void module_counters(struct page *p)
{
        const struct build *b = p->d->build;

        for (size_t i = 0; i < b->n_rows; i++) {
                struct own_counters own = { p, b->rows[i].module->name };

                (void) module_each_counter(b, b->rows[i].module, add_own_counter, &own);
        }
}

static void kernel_facts(struct page *p)
{
        static const char *const kinds[] = {
                [WEFT_NEED_HELPER] = "helper",
                [WEFT_NEED_FEATURE] = "feature",
                [WEFT_NEED_LINK_KIND] = "link-kind",
                [WEFT_NEED_HOST] = "host",
        };
        size_t n;
        const struct fact *facts = probe_facts(&n);

        for (size_t i = 0; i < n; i++)
                SAMPLE(p, facts[i].present, { "kind", kinds[facts[i].kind] },
                       { "fact", facts[i].name }, );
}

static void table_bytes(struct page *p)
{
        SAMPLE(p, tables_memory(p->d->tables));
}

static void collection_passes(struct page *p)
{
        SAMPLE(p, p->d->collection_passes);
}

static void collected(struct page *p)
{
        SAMPLE(p, p->d->collected);
}

/* ---- flows -------------------------------------------------------------------------------- */

static void flow_states(struct page *p)
{
        for (size_t i = 0; i < ELEMENTS(p->flows.states); i++)
                SAMPLE(p, p->flows.states[i], { "state", flow_state_names[i] }, );
        SAMPLE(p, p->flows.expired, { "state", "expired" }, );
}

static void flow_entries(struct page *p)
{
        for (size_t i = 0; i < ELEMENTS(ip_families); i++)
                SAMPLE(p, p->flows.entries[i], { "family", ip_families[i] }, );
}

static void flow_capacity(struct page *p)
{
        for (size_t i = 0; i < ELEMENTS(ip_families); i++)
                SAMPLE(p, tables_flow_capacity(p->d->tables, i), { "family", ip_families[i] }, );
}

static void flows_created(struct page *p)
{
        SAMPLE(p, p->events[WEFT_EVENT_COMMIT]);
}

static void port_tries(struct page *p)
{
        SAMPLE(p, p->events[WEFT_EVENT_PORT_GIVEN], { "result", "given" }, );
        SAMPLE(p, p->events[WEFT_EVENT_PORT_BUSY], { "result", "taken-by-flow" }, );
        SAMPLE(p, p->events[WEFT_EVENT_PORT_SOCKET], { "result", "taken-by-socket" }, );
}

static void add_exhausted(void *data, const struct count_view *v)
{
        if (!v->own && strcmp(v->what, reasons[WEFT_DROP_PORTS_EXHAUSTED].name) == 0)
                *(uint64_t *) data += v->packets;
}

static void port_failures(struct page *p)
{
        uint64_t n = 0;

        tables_each_drop(p->d->tables, add_exhausted, &n);
        SAMPLE(p, n);
}

/* ---- packets ------------------------------------------------------------------------------ */

static const char *hook_name(uint32_t hook)
{
        return hook < WEFT_HOOKS ? hook_names[hook] : "unknown";
}

/* A name for each number, of modules that are gone, too: a counter keeps its labels. */
static const char *module_name(const struct daemon *d, uint16_t id, char buf[static MODULE_NAME])
{
        if (id == 0)
                return "engine";
        if (id <= d->module_numbers.n)
                return d->module_numbers.items[id - 1];

        (void) snprintf(buf, MODULE_NAME, "module-%u", id);
        return buf;
}

static void add_drop(const struct page *p, const struct count_view *v, uint64_t value)
{
        struct count_view named = *v;
        char buf[MODULE_NAME];

        count_name_reason(p->d->build, &named);
        SAMPLE(p, value, { "reason", named.what }, { "hook", hook_name(v->hook) },
               { "module", module_name(p->d, v->module, buf) }, );
}

static void add_drop_packets(void *data, const struct count_view *v)
{
        add_drop(data, v, v->packets);
}

static void add_drop_bytes(void *data, const struct count_view *v)
{
        add_drop(data, v, v->bytes);
}

static void drop_packets(struct page *p)
{
        tables_each_drop(p->d->tables, add_drop_packets, p);
}

static void drop_bytes(struct page *p)
{
        tables_each_drop(p->d->tables, add_drop_bytes, p);
}

static void drop_reasons(struct page *p)
{
        for (size_t i = 1; i < ELEMENTS(reasons); i++)
                SAMPLE(p, 1, { "reason", reasons[i].name }, { "meaning", reasons[i].text }, );
}

static void add_forward(const struct page *p, const struct count_view *v, uint64_t value)
{
        SAMPLE(p, value, { "delivery", v->what }, { "hook", hook_name(v->hook) }, );
}

static void add_forward_packets(void *data, const struct count_view *v)
{
        add_forward(data, v, v->packets);
}

static void add_forward_bytes(void *data, const struct count_view *v)
{
        add_forward(data, v, v->bytes);
}

static void forward_packets(struct page *p)
{
        tables_each_forward(p->d->tables, add_forward_packets, p);
}

static void forward_bytes(struct page *p)
{
        tables_each_forward(p->d->tables, add_forward_bytes, p);
}

/* ---- objects ------------------------------------------------------------------------------ */

static void endpoints(struct page *p)
{
        size_t ready = 0;

        for (size_t i = 0; i < p->d->n_endpoints; i++)
                ready += p->d->endpoints[i].ready;
        SAMPLE(p, ready, { "state", "ready" }, );
        SAMPLE(p, p->d->n_endpoints - ready, { "state", "pending" }, );
}

static void services(struct page *p)
{
        size_t pending = p->d->n_pending_services;

        SAMPLE(p, p->d->build->config->n_services - pending, { "state", "ready" }, );
        SAMPLE(p, pending, { "state", "pending" }, );
}

static void backends(struct page *p)
{
        const struct config *c = p->d->build->config;
        size_t counts[BACKEND_STATES] = { 0 };

        for (size_t i = 0; i < c->n_services; i++)
                for (size_t k = 0; k < c->services[i].n_backends; k++)
                        counts[c->services[i].backends[k].state]++;
        for (size_t s = 0; s < ELEMENTS(counts); s++)
                SAMPLE(p, counts[s], { "state", backend_state_names[s] }, );
}

static void peers(struct page *p)
{
        SAMPLE(p, p->d->build->config->n_peers);
}

static void conflicts(struct page *p)
{
        SAMPLE(p, p->d->n_conflicts);
}

/* ---- the page ----------------------------------------------------------------------------- */

/* clang-format off: one for each line or two */
static const struct {
        const char *name, *type, *help;
        void (*samples)(struct page *p);
} families[] = {
        { "weft_build_info", "gauge", "Version of weft and of its module ABI", build_info },
        { "weft_generation", "gauge", "Generation that runs", running_generation },
        { "weft_reloads_total", "counter", "Reloads since this daemon started", reloads },
        { "weft_module_state", "gauge", "1 for the state that the module is in", module_states },
        { "weft_module_counter_total", "counter", "What modules count by themselves",
          module_counters },
        { "weft_kernel_fact", "gauge", "1 where the kernel or the host has it", kernel_facts },
        { "weft_flows", "gauge", "Entries of the flow tables, one for each direction",
          flow_states },
        { "weft_flow_table_entries", "gauge", "Entries of a flow table, expired ones too",
          flow_entries },
        { "weft_flow_table_capacity", "gauge", "Entries that a flow table has room for",
          flow_capacity },
        { "weft_flows_created_total", "counter", "Flows stored", flows_created },
        { "weft_port_allocation_tries_total", "counter", "Source ports tried for new flows",
          port_tries },
        { "weft_port_allocation_failures_total", "counter",
          "Packets dropped because no source port was free", port_failures },
        { "weft_collection_passes_total", "counter",
          "Passes of collection over both flow tables since this daemon started",
          collection_passes },
        { "weft_collected_entries_total", "counter",
          "Entries of flow tables freed by collection since this daemon started", collected },
        { "weft_table_bytes", "gauge", "Memory of the tables, as the kernel accounts it",
          table_bytes },
        { "weft_drop_packets_total", "counter", "Packets dropped", drop_packets },
        { "weft_drop_bytes_total", "counter", "Bytes of packets dropped", drop_bytes },
        { "weft_drop_reason_info", "gauge", "What the engine's reasons to drop mean",
          drop_reasons },
        { "weft_forward_packets_total", "counter", "Packets forwarded", forward_packets },
        { "weft_forward_bytes_total", "counter", "Bytes of packets forwarded", forward_bytes },
        { "weft_endpoints", "gauge", "Endpoints of this node", endpoints },
        { "weft_peers", "gauge", "Peers of this node", peers },
        { "weft_services", "gauge", "Services", services },
        { "weft_backends", "gauge", "Backends of all services", backends },
        { "weft_conflicts", "gauge", "Others on this node who do what weft does", conflicts },
};
/* clang-format on */

struct event_list {
        struct page *page;
        size_t n;
};

static void take_event(void *data, const struct count_view *v)
{
        struct event_list *l = data;

        l->page->events[l->n++] = v->packets;
}

/* COMMIT is weft_event_commit_total. */
static void print_event(void *data, const struct count_view *v)
{
        struct page *p = data;
        char name[EVENT_NAME];

        (void) snprintf(name, sizeof(name), "weft_event_%s_total", v->what);
        for (char *c = name; *c != '\0'; c++)
                *c = (char) tolower((unsigned char) *c);
        exposition_family(p->f, name, "counter", v->help);
        exposition_sample(p->f, name, (const struct label[]) { {} }, v->packets);
}

/* NULL: no memory. */
static char *make_text(struct daemon *d, size_t *ret_size)
{
        struct page p = { .d = d, .flows = daemon_flow_counts(d) };
        char *text = NULL;

        p.f = open_memstream(&text, ret_size);
        if (!p.f)
                return NULL;

        tables_each_event(d->tables, take_event, &(struct event_list) { .page = &p });
        for (size_t i = 0; i < ELEMENTS(families); i++) {
                p.name = families[i].name;
                exposition_family(p.f, p.name, families[i].type, families[i].help);
                families[i].samples(&p);
        }
        tables_each_event(d->tables, print_event, &p);
        if (fclose(p.f) == 0)
                return text;

        free(text);
        return NULL;
}

void get_metrics(void *data, struct control_call *call, json_t *parameters)
{
        size_t size;
        _cleanup_free_ char *text = make_text(data, &size);

        (void) parameters;
        control_reply(call, json_pack("{s:s}", "text", text ? text : ""));
}

/* ---- the server --------------------------------------------------------------------------- */

static struct MHD_Response *answer(void *data, const char *path, unsigned *ret_status)
{
        static char missing[] = "weft's metrics are at /metrics\n";
        struct MHD_Response *r;
        size_t size;
        char *text;

        if (strcmp(path, "/metrics") != 0) {
                *ret_status = MHD_HTTP_NOT_FOUND;
                return MHD_create_response_from_buffer(strlen(missing), missing,
                                                       MHD_RESPMEM_PERSISTENT);
        }

        *ret_status = MHD_HTTP_OK;
        text = make_text(data, &size);
        r = text ? MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE) : NULL;
        if (r)
                (void) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, EXPOSITION_TYPE);
        else
                free(text);

        return r;
}

static void say(struct daemon *d, const char *where, int r)
{
        struct metrics *m = &d->metrics;
        char reason[sizeof(m->reason)] = "";

        if (r < 0)
                (void) snprintf(reason, sizeof(reason), "metrics-listen %s: %s", where,
                                http_reason(r));
        if (r < 0 && strcmp(reason, m->reason) != 0)
                log_message(LOG_WARNING, METRICS_PORT, "no metrics are served: %s", reason);
        memcpy(m->reason, reason, sizeof(reason));
}

void daemon_metrics_take(struct daemon *d, int fd)
{
        int r = http_open_fd(d->loop, fd, answer, d, &d->metrics.server);

        d->metrics.passed = r == 0;
        if (r < 0)
                log_warning("the metrics socket that was passed in: %s", http_reason(r));
}

void daemon_metrics_apply(struct daemon *d)
{
        struct metrics *m = &d->metrics;
        const char *listen = d->build->config->metrics_listen;
        struct weft_addr addr;
        uint16_t port;
        int r = 0;

        if (m->passed)
                return;

        if (strcmp(m->listen ? m->listen : "", listen) != 0)
                daemon_metrics_stop(d);
        if (*listen == '\0' || m->server)
                return;

        m->listen = m->listen ?: strdup(listen);
        r = m->listen ? parse_address_port(listen, &addr, &port) : -ENOMEM;
        if (r == 0)
                r = http_open(d->loop, &addr, port, answer, d, &m->server);
        say(d, listen, r);
}

json_t *metrics_json(const struct daemon *d)
{
        const struct metrics *m = &d->metrics;

        return json_pack("{s:s*, s:s*}", "at", m->passed ? "passed socket" : m->listen, "reason",
                         m->reason[0] != '\0' ? m->reason : NULL);
}

void daemon_metrics_stop(struct daemon *d)
{
        (void) http_close(d->metrics.server);
        free(d->metrics.listen);
        d->metrics = (struct metrics) {};
}
