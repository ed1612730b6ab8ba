/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* weftctl flows: which, in which order, and as they come. */

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <string.h>

#include <weft/types.h>

#include "config/values.h"
#include "ctl/client.h"
#include "ctl/output.h"
#include "ctl/show.h"
#include "ctl/verbs.h"
#include "names.h"
#include "util.h"

enum {
        CHUNK = 1000,      /* rows that a table's widths are found from */
        POLL_SECONDS = 1,  /* at least, between two looks of --follow */
        IDLE_FACTOR = 10,  /* and at least so many times what the last look took */
        SLACK_SECONDS = 2, /* ages are whole seconds */
};

/* ---- options ------------------------------------------------------------------------------ */

static const struct values protocols = {
        .words = (const char *const[]) { "tcp", "udp", "sctp", "icmp", "icmpv6", NULL },
        .open = true,
};
static const struct values sides = {
        .words = (const char *const[]) { "uplink", "endpoint", "overlay", "host_out", NULL },
};
static const struct values states = {
        .words = (const char *const[]) { "new", "established", "closing", NULL },
};
static const struct values deliveries = { .words = delivery_names };
static const struct values orders = { .words = (const char *const[]) { "bytes", "packets", NULL } };

static const struct ctl_option
        option_protocol = { "protocol", "NAME", "only this protocol, by name or number",
                            &protocols },
        option_side = { "side", "SIDE", "only where the packet comes in there", &sides },
        option_state = { "state", "STATE", "only in this state", &states },
        option_delivery = { "delivery", "WAY", "only what leaves this way", &deliveries },
        option_module = { "module", "NAME",
                          "only what this module decided; engine: none "
                          "did" },
        option_service = { "service", "NAME", "only to this service, and the replies" },
        option_source = { "source", "ADDRESS",
                          "only from this address or prefix, as packets "
                          "come in" },
        option_destination = { "destination", "ADDRESS",
                               "only to this address or prefix, as packets "
                               "come in" },
        option_address = { "address", "ADDRESS",
                           "only with this address or prefix at either "
                           "end, before or after translation" },
        option_port = { "port", "PORT",
                        "only with this port at either end, before or "
                        "after translation" },
        option_limit = { "limit", "N", "at most N" },
        option_top = { "top", "N", "the N with the most bytes" },
        option_by = { "by", "WHAT", "of --top: the most of this", &orders },
        option_follow = { "follow", NULL, "go on, with flows as they appear, until ^C",
                          .unpaged = true };

/* Options that are fields of FlowFilter by the same name. */
static const struct ctl_option *const filters[] = {
        &option_protocol, &option_side,   &option_state,       &option_delivery, &option_module,
        &option_service,  &option_source, &option_destination, &option_address,
};

static int read_count(const struct call *c, const struct ctl_option *o, uint64_t most, json_t **ret,
                      struct weft_error *reterr)
{
        const char *text = call_value(c, o);
        uint64_t n;

        if (!text)
                return 0;
        if (parse_number(text, &n) < 0 || n < 1 || n > most)
                return weft_fail(reterr, -EINVAL, "--%s %s: must be a number from 1 to %llu",
                                 o->name, text, (unsigned long long) most);

        *ret = json_integer((json_int_t) n);
        return 0;
}

static int check_prefix(const struct call *c, const struct ctl_option *o, struct weft_error *reterr)
{
        const char *text = call_value(c, o);
        struct weft_prefix p;

        return text && parse_network(text, &p) < 0
                       ? weft_fail(reterr, -EINVAL,
                                   "--%s %s: must be an address or a prefix, such as 10.0.0.9 or "
                                   "fd00::/8",
                                   o->name, text)
                       : 0;
}

static int read_filter(const struct call *c, json_t *filter, struct weft_error *reterr)
{
        const struct ctl_option *const prefixes[] = { &option_source, &option_destination,
                                                      &option_address };
        json_t *port = NULL;

        for (size_t i = 0; i < ELEMENTS(prefixes); i++)
                if (check_prefix(c, prefixes[i], reterr) < 0)
                        return -EINVAL;
        if (read_count(c, &option_port, UINT16_MAX, &port, reterr) < 0)
                return -EINVAL;

        if (port)
                (void) json_object_set_new(filter, "port", port);
        for (size_t i = 0; i < ELEMENTS(filters); i++)
                if (call_has(c, filters[i]))
                        (void) json_object_set_new(filter, filters[i]->name,
                                                   json_string(call_value(c, filters[i])));

        return 0;
}

/* The parameters of ListFlows; *ret is the caller's. */
static int read_parameters(const struct call *c, json_t **ret, struct weft_error *reterr)
{
        json_auto_t *p = json_pack("{s:{}}", "filter"), *limit = NULL;

        if (read_filter(c, json_object_get(p, "filter"), reterr) < 0 ||
            read_count(c, &option_limit, 1000000, &limit, reterr) < 0 ||
            (!limit && read_count(c, &option_top, 10000, &limit, reterr) < 0))
                return -EINVAL;
        if (call_has(c, &option_top) && (call_has(c, &option_limit) || call_has(c, &option_follow)))
                return weft_fail(reterr, -EINVAL, "--top goes neither with --limit nor --follow");
        if (call_has(c, &option_by) && !call_has(c, &option_top))
                return weft_fail(reterr, -EINVAL, "--by is for --top");

        if (limit)
                (void) json_object_set(p, "limit", limit);
        if (call_has(c, &option_top))
                (void) json_object_set_new(p, "top",
                                           json_string(call_value(c, &option_by) ?: "bytes"));

        *ret = TAKE(p);
        return 0;
}

/* ---- printing ----------------------------------------------------------------------------- */

struct printer {
        bool json, follow, begun;
        json_t *flows; /* not printed yet */
        size_t n;      /* printed, or about to be */
        bool truncated;
        struct table *table;
        void *seen, *now; /* of --follow: keys of the flows of the last look and of this one */
};

static void print_chunk(struct printer *p)
{
        if (json_array_size(p->flows) == 0)
                return;

        show_flow_rows(p->table, p->flows, stdout, terminal_width());
        (void) json_array_clear(p->flows);
}

/* Pieces of {"flows": […], "truncated": …}, which may be too large to be held. */
static void print_json_flow(const struct printer *p, const json_t *flow)
{
        if (!p->follow)
                (void) fputs(p->n == 1 ? "\n" : ",\n", stdout);
        (void) json_dumpf(flow, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        if (p->follow)
                (void) putchar('\n');
}

static void print_flow(struct printer *p, json_t *flow)
{
        p->n++;
        if (p->json) {
                print_json_flow(p, flow);
                return;
        }

        (void) json_array_append(p->flows, flow);
        if (json_array_size(p->flows) == CHUNK)
                print_chunk(p);
}

static int compare_keys(const void *a, const void *b)
{
        return strcmp(a, b);
}

/* The flow was not there at the last look; remembers it for the next one. */
static bool is_news(struct printer *p, const json_t *flow)
{
        char *key = NULL;
        bool news;

        if (asprintf(&key, "%s %s %s %lld %s %lld",
                     json_string_value(json_object_get(flow, "protocol")),
                     json_string_value(json_object_get(flow, "side")),
                     json_string_value(json_object_get(flow, "source")),
                     json_integer_value(json_object_get(flow, "source_port")),
                     json_string_value(json_object_get(flow, "destination")),
                     json_integer_value(json_object_get(flow, "destination_port"))) < 0)
                return true;

        news = !tfind(key, &p->seen, compare_keys);
        if (tfind(key, &p->now, compare_keys) || !tsearch(key, &p->now, compare_keys))
                free(key);

        return news;
}

static int print_reply(void *data, json_t *reply)
{
        struct printer *p = data;
        json_t *flow;
        size_t i;

        if (p->json && !p->follow && !p->begun)
                (void) fputs("{\"flows\": [", stdout);
        p->begun = true;
        json_array_foreach (json_object_get(reply, "flows"), i, flow)
                if (!p->follow || is_news(p, flow))
                        print_flow(p, flow);
        p->truncated |= json_is_true(json_object_get(reply, "truncated"));

        return ferror(stdout) ? -EPIPE : 0;
}

/* ---- the verb ----------------------------------------------------------------------------- */

static int list(const struct call *c, struct printer *p, const json_t *parameters)
{
        struct weft_error why = {};
        int r = call_check(c, "ListFlows", &why);

        if (r == 0)
                r = client_stream(call_socket(c), "ListFlows", json_deep_copy(parameters),
                                  print_reply, p, &why);
        if (!p->json)
                print_chunk(p);
        if (r == -EPIPE && ferror(stdout)) /* who left the pager has seen enough */
                return EXIT_OK;

        return r < 0 ? (int) call_failed(r, &why) : EXIT_OK;
}

static int list_once(const struct call *c, struct printer *p, const json_t *parameters)
{
        int code = list(c, p, parameters);

        if (p->json && p->begun)
                (void) printf("%s], \"truncated\": %s}\n", p->n > 0 ? "\n" : "",
                              p->truncated ? "true" : "false");
        else if (!p->json && code == EXIT_OK && p->n == 0)
                (void) puts("no flows");
        else if (!p->json && p->truncated)
                (void) puts("… and more");

        return code;
}

/* Everything, then again and again what is young: old flows have been seen. */
static int follow(const struct call *c, struct printer *p, json_t *parameters)
{
        for (;;) {
                uint64_t begin = monotonic_now(), took;
                int code = list(c, p, parameters);

                if (code != EXIT_OK || fflush(stdout) != 0)
                        return code;

                tdestroy(p->seen, free);
                p->seen = TAKE(p->now);
                took = monotonic_now() - begin;
                (void) usleep((useconds_t) (POLL_SECONDS * 1000000 + IDLE_FACTOR * took));
                (void) json_object_set_new(
                        json_object_get(parameters, "filter"), "max_age_seconds",
                        json_integer((json_int_t) ((monotonic_now() - begin) / 1000000) +
                                     SLACK_SECONDS));
        }
}

static int flows(const struct call *c)
{
        json_auto_t *parameters = NULL, *pending = json_array();
        struct weft_error why = {};
        struct printer p = {
                .json = call_has(c, &option_json),
                .follow = call_has(c, &option_follow),
                .flows = pending,
        };
        int code;

        if (read_parameters(c, &parameters, &why) < 0)
                return usage(why.text, NULL);

        p.table = flow_table_new();
        code = p.follow ? follow(c, &p, parameters) : list_once(c, &p, parameters);
        p.table = table_free(p.table);
        tdestroy(p.seen, free);
        tdestroy(p.now, free);

        return code;
}

const struct verb verb_flows = {
        .name = "flows",
        .summary = "live flows: all, or those that the options let through",
        .text = "Each line is one direction of a connection: the tuple as its packets come in, and "
                "=> what they leave with. Several options must all hold. The node selects, so "
                "that large tables are cheap to ask; --top looks at every flow, in pieces.\n\n"
                "With --follow, what is there is followed by flows as they appear, looked for "
                "every second; a flow that comes and goes between two looks is not seen. With "
                "--json, each is a line then.",
        .options =
                (const struct ctl_option *const[]) {
                        &option_service, &option_state, &option_protocol, &option_source,
                        &option_destination, &option_address, &option_port, &option_module,
                        &option_side, &option_delivery, &option_limit, &option_top, &option_by,
                        &option_follow, NULL },
        .paged = true,
        .run = flows,
};
