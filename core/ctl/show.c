/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <string.h>

#include "ctl/show.h"
#include "ctl/table.h"
#include "util.h"

static void table_freep(struct table **t)
{
        (void) table_free(*t);
}

#define _cleanup_table_ _cleanup_(table_freep)

static const char *text(const json_t *o, const char *key)
{
        const char *s = json_string_value(json_object_get(o, key));

        return s ? s : "";
}

static long long number(const json_t *o, const char *key)
{
        return json_integer_value(json_object_get(o, key));
}

static void cell_text(struct table *t, const json_t *o, const char *key)
{
        table_cell(t, "%s", text(o, key));
}

static void cell_number(struct table *t, const json_t *o, const char *key)
{
        table_cell(t, "%lld", number(o, key));
}

/* "a, b, c" of an array of strings. */
static char *join(const json_t *list, const char *if_empty)
{
        char *buf = NULL;
        size_t size, i;
        FILE *f = open_memstream(&buf, &size);
        const json_t *item;

        if (!f)
                return NULL;
        if (json_array_size(list) == 0)
                (void) fputs(if_empty, f);
        json_array_foreach (list, i, item)
                (void) fprintf(f, "%s%s", i > 0 ? ", " : "", json_string_value(item));

        return fclose(f) == 0 ? buf : NULL;
}

static void cell_list(struct table *t, const json_t *o, const char *key)
{
        _cleanup_free_ char *s = join(json_object_get(o, key), "-");

        table_cell(t, "%s", s ? s : "");
}

/* One table under a heading; nothing where the list is empty. */
static void section(const json_t *reply, const char *key, const char *heading,
                    const struct column *columns, void (*row)(struct table *, const json_t *),
                    FILE *f, unsigned width)
{
        _cleanup_table_ struct table *t = table_new(columns);
        const json_t *list = json_object_get(reply, key), *item;
        size_t i;

        if (json_array_size(list) == 0)
                return;

        json_array_foreach (list, i, item)
                row(t, item);
        if (heading)
                (void) fprintf(f, "\n%s\n", heading);
        table_print(t, f, width);
}

/* ---- modules ------------------------------------------------------------------------------ */

static const struct column module_columns[] = {
        { "MODULE" },
        { "STATE" },
        { "VERSION", .drop = 2 },
        { "SUMMARY", .drop = 1 },
        { "STATUS", .wrap = 1 },
        {},
};

/* What it does, and why it is as it is. */
static void module_row(struct table *t, const json_t *m)
{
        cell_text(t, m, "name");
        table_state(t, text(m, "state"));
        cell_text(t, m, "version");
        cell_text(t, m, "summary");
        table_cell(t, "%s%s%s", text(m, "status"),
                   *text(m, "status") && *text(m, "reason") ? "; " : "", text(m, "reason"));
}

static const struct column module_counter_columns[] = {
        { "MODULE" }, { "COUNTER" }, { "VALUE", .right = 1 }, { "MEANING", .wrap = 1 }, {},
};

/* What modules count by themselves. */
static void show_module_counters(const json_t *reply, FILE *f, unsigned width)
{
        _cleanup_table_ struct table *t = table_new(module_counter_columns);
        const json_t *m, *c;
        bool any = false;
        size_t i, k;

        json_array_foreach (json_object_get(reply, "modules"), i, m)
                json_array_foreach (json_object_get(m, "counters"), k, c) {
                        cell_text(t, m, "name");
                        cell_text(t, c, "name");
                        cell_number(t, c, "value");
                        cell_text(t, c, "help");
                        any = true;
                }
        if (!any)
                return;

        (void) fputs("\nCounters\n", f);
        table_print(t, f, width);
}

static const char no_module[] = "no module is chosen, traffic goes the kernel's way: add a section "
                                "[module NAME] to weft.conf for each one wanted, and reload\n";

void show_modules(const json_t *reply, FILE *f, unsigned width)
{
        if (json_array_size(json_object_get(reply, "modules")) == 0)
                (void) fputs(no_module, f);
        section(reply, "modules", NULL, module_columns, module_row, f, width);
        show_module_counters(reply, f, width);
}

/* ---- chain -------------------------------------------------------------------------------- */

static const struct column chain_columns[] = { { "HOOK", 0 },  { "PHASE", 0 },   { "MODULE", 0 },
                                               { "STAGE", 0 }, { "PROGRAM", 1 }, { "RUNS", 1 },
                                               { 0 } };

static void chain_row(struct table *t, const json_t *s)
{
        cell_text(t, s, "hook");
        table_cell(t, "%s", json_object_get(s, "phase") ? text(s, "phase") : "entry");
        cell_text(t, s, "module");
        cell_text(t, s, "stage");
        cell_number(t, s, "program");
        if (number(s, "runs") > 0)
                cell_number(t, s, "runs");
        else
                table_cell(t, "-");
}

void show_chain(const json_t *reply, FILE *f, unsigned width)
{
        size_t i;
        json_t *n;

        section(reply, "stages", NULL, chain_columns, chain_row, f, width);
        json_array_foreach (json_object_get(reply, "not_replayed"), i, n)
                (void) fprintf(f,
                               "%s%s is not replayed in XDP: stage %s of module %s sees every "
                               "packet\n",
                               i == 0 ? "\n" : "", text(n, "hook"), text(n, "stage"),
                               text(n, "module"));
}

/* ---- status ------------------------------------------------------------------------------- */

static void uplink_row(struct table *t, const json_t *u)
{
        cell_text(t, u, "name");
        table_state(t, number(u, "ifindex") ? "up" : "missing");
        cell_list(t, u, "addresses");
        cell_number(t, u, "mtu");
        table_cell(t, "%s", json_is_true(json_object_get(u, "xdp")) ? "yes" : "no");
}

static void endpoint_row(struct table *t, const json_t *e)
{
        cell_text(t, e, "name");
        table_state(t, text(e, "state"));
        cell_list(t, e, "addresses");
        cell_text(t, e, "interface");
        cell_number(t, e, "identity");
        cell_text(t, e, "reason");
}

static void peer_row(struct table *t, const json_t *p)
{
        cell_text(t, p, "name");
        cell_list(t, p, "addresses");
        cell_list(t, p, "pod_cidrs");
}

static void service_row(struct table *t, const json_t *s)
{
        const json_t *backends = json_object_get(s, "backends"), *b;
        size_t i, active = 0;

        json_array_foreach (backends, i, b)
                active += strcmp(text(b, "state"), "active") == 0;

        cell_text(t, s, "name");
        table_state(t, text(s, "state"));
        table_cell(t, "%lld/%s", number(s, "port"), text(s, "protocol"));
        cell_list(t, s, "addresses");
        if (json_object_get(s, "node_port"))
                cell_number(t, s, "node_port");
        else
                table_cell(t, "-");
        table_cell(t, "%zu/%zu", active, json_array_size(backends));
        cell_text(t, s, "reason");
}

static void conflict_row(struct table *t, const json_t *c)
{
        cell_text(t, c, "what");
        cell_text(t, c, "remedy");
}

static void drop_row(struct table *t, const json_t *c)
{
        cell_text(t, c, "what");
        cell_text(t, c, "hook");
        cell_text(t, c, "module");
        cell_number(t, c, "last_minute");
        cell_number(t, c, "packets");
        cell_number(t, c, "bytes");
        cell_text(t, c, "help");
}

static void forward_row(struct table *t, const json_t *c)
{
        cell_text(t, c, "what");
        cell_text(t, c, "hook");
        cell_number(t, c, "packets");
        cell_number(t, c, "bytes");
}

static void event_row(struct table *t, const json_t *c)
{
        cell_text(t, c, "what");
        cell_number(t, c, "packets");
        cell_text(t, c, "help");
}

/* clang-format off: headings of a section together */
static const struct {
        const char *key, *heading;
        struct column columns[8];
        void (*row)(struct table *, const json_t *);
} status_sections[] = {
        { "modules",
          "Modules",
          { { "NAME" },
            { "STATE" },
            { "VERSION", .drop = 2 },
            { "SUMMARY", .drop = 1 },
            { "STATUS", .wrap = 1 } },
          module_row },
        { "uplinks",
          "Uplinks",
          { { "NAME", 0 }, { "STATE", 0 }, { "ADDRESSES", 0 }, { "MTU", 1 }, { "XDP", 0 } },
          uplink_row },
        { "endpoints",
          "Endpoints",
          { { "NAME", 0 },
            { "STATE", 0 },
            { "ADDRESSES", 0 },
            { "INTERFACE", 0 },
            { "IDENTITY", 1 },
            { "REASON", .wrap = 1 } },
          endpoint_row },
        { "peers", "Peers", { { "NAME", 0 }, { "ADDRESSES", 0 }, { "POD CIDRS", 0 } }, peer_row },
        { "services",
          "Services",
          { { "NAME", 0 },
            { "STATE", 0 },
            { "PORT", 0 },
            { "ADDRESSES", 0 },
            { "NODE PORT", 1 },
            { "ACTIVE", 1 },
            { "REASON", .wrap = 1 } },
          service_row },
        { "conflicts",
          "Others on this node",
          { { "WHAT", 0 }, { "REMEDY", .wrap = 1 } },
          conflict_row },
        { "drops",
          "Dropped",
          { { "REASON" },
            { "HOOK", .drop = 2 },
            { "MODULE", .drop = 1 },
            { "LAST MINUTE", 1 },
            { "PACKETS", 1 },
            { "BYTES", 1, .drop = 3 },
            { "WHAT HAPPENED", .wrap = 1 } },
          drop_row },
        { "forwards",
          "Forwarded",
          { { "DELIVERY", 0 }, { "HOOK", 0 }, { "PACKETS", 1 }, { "BYTES", 1 } },
          forward_row },
        { "events",
          "Events",
          { { "EVENT", 0 }, { "COUNT", 1 }, { "WHAT IS COUNTED", .wrap = 1 } },
          event_row },
};
/* clang-format on */

static void show_metrics_place(const json_t *metrics, FILE *f)
{
        const char *reason = text(metrics, "reason"), *at = text(metrics, "at");

        if (*reason || *at)
                (void) fprintf(f, "Metrics     %s%s\n", *reason ? "not served: " : "at ",
                               *reason ? reason : at);
}

void show_metrics(const json_t *reply, FILE *f, unsigned width)
{
        (void) width;
        (void) fputs(text(reply, "text"), f);
}

void show_status(const json_t *reply, FILE *f, unsigned width)
{
        _cleanup_free_ char *addresses = join(json_object_get(reply, "addresses"), "none");
        _cleanup_free_ char *cidrs = join(json_object_get(reply, "pod_cidrs"), "none");
        const json_t *flows = json_object_get(reply, "flows");
        char memory[24];

        (void) fprintf(f, "Node        %s, weft %s\n", text(reply, "node"), text(reply, "version"));
        (void) fprintf(f, "Generation  %lld, attached by %s\n", number(reply, "generation"),
                       text(reply, "attach"));
        (void) fprintf(f, "Addresses   %s; pods %s\n", addresses ? addresses : "",
                       cidrs ? cidrs : "");
        (void) fprintf(f, "Flows       %lld established, %lld new, %lld closing, %lld expired\n",
                       number(flows, "established"), number(flows, "new"), number(flows, "closing"),
                       number(flows, "expired"));
        (void) fprintf(f, "Tables      %s\n", size_text(number(reply, "table_bytes"), memory));
        show_metrics_place(json_object_get(reply, "metrics"), f);
        if (json_array_size(json_object_get(reply, "modules")) == 0)
                (void) fprintf(f, "\nModules\n%s", no_module);

        for (size_t i = 0; i < ELEMENTS(status_sections); i++)
                section(reply, status_sections[i].key, status_sections[i].heading,
                        status_sections[i].columns, status_sections[i].row, f, width);
}

/* ---- objects ------------------------------------------------------------------------------ */

static void cell_origin(struct table *t, const json_t *o)
{
        if (json_is_true(json_object_get(o, "runtime")))
                table_cell(t, "run time");
        else
                cell_text(t, o, "origin");
}

static void endpoint_line(struct table *t, const json_t *e)
{
        endpoint_row(t, e);
        cell_origin(t, e);
}

static void peer_line(struct table *t, const json_t *p)
{
        peer_row(t, p);
        cell_number(t, p, "identity");
        cell_origin(t, p);
}

static void service_line(struct table *t, const json_t *s)
{
        service_row(t, s);
        cell_origin(t, s);
}

/* clang-format off: headings together */
static const struct column endpoint_columns[] = {
        { "NAME", 0 },     { "STATE", 0 },  { "ADDRESSES", 0 }, { "INTERFACE", 0 },
        { "IDENTITY", 1 }, { "REASON", 0 }, { "SET IN", 0 },    { 0 },
};
static const struct column peer_columns[] = {
        { "NAME", 0 },     { "ADDRESSES", 0 }, { "POD CIDRS", 0 },
        { "IDENTITY", 1 }, { "SET IN", 0 },    { 0 },
};
static const struct column service_columns[] = {
        { "NAME", 0 },      { "STATE", 0 },     { "PORT", 0 },
        { "ADDRESSES", 0 }, { "NODE PORT", 1 }, { "ACTIVE", 1 },
        { "REASON", 0 },    { "SET IN", 0 },    { 0 },
};
static const struct column backend_columns[] = {
        { "BACKEND", 0 }, { "WEIGHT", 1 }, { "STATE", 0 }, { "FLOWS", 1 }, { "SET IN", 0 }, { 0 },
};
/* clang-format on */

static void show_list(const json_t *reply, const char *key, const char *none,
                      const struct column *columns, void (*row)(struct table *, const json_t *),
                      FILE *f, unsigned width)
{
        if (json_array_size(json_object_get(reply, key)) == 0)
                (void) fprintf(f, "no %s\n", none);
        section(reply, key, NULL, columns, row, f, width);
}

void show_endpoints(const json_t *reply, FILE *f, unsigned width)
{
        show_list(reply, "endpoints", "endpoints", endpoint_columns, endpoint_line, f, width);
}

void show_peers(const json_t *reply, FILE *f, unsigned width)
{
        show_list(reply, "peers", "peers", peer_columns, peer_line, f, width);
}

void show_services(const json_t *reply, FILE *f, unsigned width)
{
        show_list(reply, "services", "services", service_columns, service_line, f, width);
}

static void backend_row(struct table *t, const json_t *b)
{
        const char *address = text(b, "address");

        table_cell(t, strchr(address, ':') ? "[%s]:%lld" : "%s:%lld", address, number(b, "port"));
        cell_number(t, b, "weight");
        cell_text(t, b, "state");
        cell_number(t, b, "flows");
        table_cell(t, "%s", json_is_true(json_object_get(b, "runtime")) ? "run time" : "");
}

static void show_service(const json_t *s, FILE *f, unsigned width)
{
        _cleanup_free_ char *addresses = join(json_object_get(s, "addresses"), "-");

        (void) fprintf(f, "Service     %s, %s%s%s\n", text(s, "name"), text(s, "state"),
                       json_object_get(s, "reason") ? ": " : "", text(s, "reason"));
        (void) fprintf(f, "Port        %lld/%s\n", number(s, "port"), text(s, "protocol"));
        (void) fprintf(f, "Addresses   %s\n", addresses ? addresses : "");
        if (json_object_get(s, "node_port"))
                (void) fprintf(f, "Node port   %lld\n", number(s, "node_port"));
        (void) fprintf(f, "Set in      %s%s\n\n", text(s, "origin"),
                       json_is_true(json_object_get(s, "runtime")) ? ", at run time" : "");
        show_list(s, "backends", "backends", backend_columns, backend_row, f, width);
}

void show_service_details(const json_t *reply, FILE *f, unsigned width)
{
        const json_t *list = json_object_get(reply, "services"), *s;
        size_t i;

        json_array_foreach (list, i, s) {
                if (i > 0)
                        (void) fputs("\n", f);
                show_service(s, f, width);
        }
}

/* ---- flows -------------------------------------------------------------------------------- */

static const struct column flow_columns[] = {
        { "PROTO" },
        { "FLOW" },
        { "TRANSLATION", .drop = 1 },
        { "SIDE", .drop = 5 },
        { "STATE" },
        { "MODULE" },
        { "DELIVERY", .drop = 4 },
        { "AGE", 1, .drop = 2 },
        { "PACKETS", 1, .drop = 3 },
        { "BYTES", 1 },
        {},
};

/* "10.0.0.9:40000 -> 10.0.0.11:30080"; ICMP has an identifier for ports, which stands there too. */
static void tuple_text(const json_t *flow, const char *prefix, char *buf, size_t size)
{
        static const char *const ends[] = { "source", "destination" };
        int n = 0;

        for (size_t i = 0; i < 2 && n < (int) size; i++) {
                char key[40], port[40];
                const char *address;

                (void) snprintf(key, sizeof(key), "%s%s", prefix, ends[i]);
                (void) snprintf(port, sizeof(port), "%s%s_port", prefix, ends[i]);
                address = text(flow, key);
                n += snprintf(buf + n, size - n, strchr(address, ':') ? "%s[%s]:%lld" : "%s%s:%lld",
                              i > 0 ? " -> " : "", address, number(flow, port));
        }
}

static void flow_row(struct table *t, const json_t *flow)
{
        char was[160], becomes[160], age[24], size[24];

        tuple_text(flow, "", was, sizeof(was));
        tuple_text(flow, "new_", becomes, sizeof(becomes));

        cell_text(t, flow, "protocol");
        table_cell(t, "%s", was);
        if (strcmp(was, becomes) == 0)
                table_cell(t, "-");
        else
                table_cell(t, "=> %s", becomes);
        cell_text(t, flow, "side");
        table_cell(t, "%s%s", text(flow, "state"),
                   json_is_true(json_object_get(flow, "expired")) ? ", expired" : "");
        cell_text(t, flow, "module");
        cell_text(t, flow, "delivery");
        table_cell(t, "%s", age_text(number(flow, "age_seconds"), age));
        cell_number(t, flow, "packets");
        table_cell(t, "%s", size_text(number(flow, "bytes"), size));
}

struct table *flow_table_new(void)
{
        return table_new(flow_columns);
}

void show_flow_rows(struct table *t, const json_t *flows, FILE *f, unsigned width)
{
        const json_t *flow;
        size_t i;

        json_array_foreach (flows, i, flow)
                flow_row(t, flow);
        table_print(t, f, width);
}

static const struct column change_columns[] = { { "MODULE", 0 }, { "CHANGE", 0 }, { 0 } };

static void change_row(struct table *t, const json_t *change)
{
        cell_text(t, change, "module");
        cell_text(t, change, "change");
}

void show_plan(const json_t *reply, FILE *f, unsigned width)
{
        if (json_array_size(json_object_get(reply, "changes")) == 0)
                (void) fputs("no module runs or would run\n", f);
        section(reply, "changes", NULL, change_columns, change_row, f, width);
}

void show_reload(const json_t *reply, FILE *f, unsigned width)
{
        (void) width;
        (void) fprintf(f, "generation %lld runs\n", number(reply, "generation"));
}
