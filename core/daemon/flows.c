/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/values.h"
#include "daemon/flows.h"
#include "names.h"
#include "util.h"

enum {
        LIMIT_DEFAULT = 1000,
        LIMIT_MORE = 1000000,
        TOP_MAX = 10000,
        PIECE = 64, /* flows of one reply of a stream */

        /* Microseconds that a walk may take before others get their turn: of one reply of a stream,
         * of the only reply, of the counts in the status. */
        STREAM_TIME = 2000,
        REPLY_TIME = 20000,
        COUNTS_TIME = 10000,
};

const char *const flow_side_names[] = { "uplink", "endpoint", "overlay", "host_out" };
const char *const flow_state_names[] = WEFT_FLOW_STATE_NAMES;

/* Flows in the order of the table, or (by) those with the most packets or bytes. */
struct listing {
        struct daemon *d;
        struct flow_filter filter;
        struct flow_walk *walk;
        uint64_t (*by)(const struct flow_record *r); /* NULL: no order */

        struct flow_record *records; /* to be told; with by: a heap, the least on top */
        size_t n, told;
        size_t found, limit;
        bool walked, truncated;
};

static void take_record(const struct daemon *d, const struct flow_view *v, struct flow_record *ret)
{
        const struct weft_flow *f = v->flow;
        bool source = f->set & WEFT_SET_SRC, destination = f->set & WEFT_SET_DST;

        *ret = (struct flow_record) {
                .saddr = v->saddr,
                .daddr = v->daddr,
                .sport = v->sport,
                .dport = v->dport,
                .new_saddr = source ? v->new_saddr : v->saddr,
                .new_daddr = destination ? v->new_daddr : v->daddr,
                .new_sport = source ? f->sport : v->sport,
                .new_dport = destination ? f->dport : v->dport,
                .module = f->module,
                .proto = v->proto,
                .side = v->flow->ifindex == WEFT_HOST ? SIDE_HOST_OUT : v->side,
                .state = f->state,
                .delivery = f->route.delivery,
                .reply = f->flags & WEFT_FLOW_REPLY,
                .expired = v->expired,
                .packets = f->packets,
                .bytes = f->bytes,
                .age = (int64_t) (v->now - f->created) / d->hz,
                .expires = ((int64_t) f->deadline - (int64_t) v->now) / (int64_t) d->hz,
        };
}

/* ---- finding them ------------------------------------------------------------------------- */

static uint64_t packets_of(const struct flow_record *r)
{
        return r->packets;
}

static uint64_t bytes_of(const struct flow_record *r)
{
        return r->bytes;
}

/* Lets the record at i sink to its place in a heap of n with the least on top. */
static void sink(struct listing *l, size_t i, size_t n)
{
        for (size_t child; (child = 2 * i + 1) < n; i = child) {
                if (child + 1 < n && l->by(&l->records[child + 1]) < l->by(&l->records[child]))
                        child++;
                if (l->by(&l->records[i]) <= l->by(&l->records[child]))
                        return;
                SWAP(l->records[i], l->records[child]);
        }
}

static int add_top(struct listing *l, const struct flow_record *r)
{
        if (l->n == l->limit) {
                if (l->by(r) > l->by(&l->records[0])) {
                        l->records[0] = *r;
                        sink(l, 0, l->n);
                }
                return 0;
        }

        if (list_grow(&l->records, l->n, sizeof(*r)) < 0)
                return -ENOMEM;
        l->records[l->n++] = *r;
        for (size_t i = l->n / 2; l->n == l->limit && i > 0; i--)
                sink(l, i - 1, l->n);

        return 0;
}

static int add_record(void *data, const struct flow_view *v)
{
        struct listing *l = data;
        struct flow_record r;

        take_record(l->d, v, &r);
        if (!flow_filter_match(&l->filter, &r))
                return 0;
        if (l->by)
                return add_top(l, &r);

        l->truncated = l->found == l->limit;
        if (l->truncated || list_grow(&l->records, l->n, sizeof(r)) < 0)
                return -ENOSPC;

        l->records[l->n++] = r;
        l->found++;
        return 0;
}

static int compare(const void *a, const void *b, void *data)
{
        const struct listing *l = data;
        uint64_t x = l->by(a), y = l->by(b);

        return x > y ? -1 : x < y;
}

/* Walks until something was found (of the most: until everything was seen), the table ends or the
 * time is over. */
static void find(struct listing *l, size_t enough, uint64_t microseconds)
{
        uint64_t until = monotonic_now() + microseconds;

        while (!l->walked && (l->by || l->n - l->told < enough) && monotonic_now() < until)
                if (flow_walk_next(l->walk, add_record, l, &l->walked) < 0)
                        l->walked = true;

        if (l->walked && l->by && l->told == 0 && l->n > 0)
                qsort_r(l->records, l->n, sizeof(*l->records), compare, l);
}

/* ---- telling them ------------------------------------------------------------------------- */

static const char *name_of(const char *const *names, size_t n, uint8_t i)
{
        return i < n ? names[i] : "unknown";
}

const char *flow_protocol_name(uint8_t proto, char buf[static 8])
{
        static const struct {
                uint8_t number;
                const char *name;
        } known[] = {
                { IPPROTO_TCP, "tcp" },   { IPPROTO_UDP, "udp" },       { IPPROTO_SCTP, "sctp" },
                { IPPROTO_ICMP, "icmp" }, { IPPROTO_ICMPV6, "icmpv6" },
        };

        for (size_t i = 0; i < ELEMENTS(known); i++)
                if (known[i].number == proto)
                        return known[i].name;

        (void) snprintf(buf, 8, "%u", proto);
        return buf;
}

static json_t *record_json(const struct daemon *d, const struct flow_record *f)
{
        const char *module = generation_module_name(d->build->generation, f->module);
        char src[ADDRESS_TEXT], dst[ADDRESS_TEXT], new_src[ADDRESS_TEXT], new_dst[ADDRESS_TEXT],
                proto[8];

        /* clang-format off: a line for each field */
        return json_pack(
                "{s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:i, s:s, s:i, s:s, s:b, s:b, s:s, s:s, "
                "s:I, s:I, s:I, s:I}",
                "protocol", flow_protocol_name(f->proto, proto), "side",
                name_of(flow_side_names, ELEMENTS(flow_side_names), f->side), "source",
                address_format(&f->saddr, src, sizeof(src)), "source_port", ntohs(f->sport),
                "destination", address_format(&f->daddr, dst, sizeof(dst)), "destination_port",
                ntohs(f->dport), "new_source",
                address_format(&f->new_saddr, new_src, sizeof(new_src)), "new_source_port",
                ntohs(f->new_sport), "new_destination",
                address_format(&f->new_daddr, new_dst, sizeof(new_dst)), "new_destination_port",
                ntohs(f->new_dport), "state",
                name_of(flow_state_names, ELEMENTS(flow_state_names), f->state), "reply", f->reply,
                "expired", f->expired, "module", module ? module : "gone", "delivery",
                name_of(delivery_names, WEFT_DELIVERIES, f->delivery),
                "age_seconds", (json_int_t) f->age, "expires_seconds", (json_int_t) f->expires,
                "packets", (json_int_t) f->packets, "bytes", (json_int_t) f->bytes);
        /* clang-format on */
}

/* The next flows, at most max, as a reply's parameters. Half a heap is nothing to be told. */
static json_t *tell(struct listing *l, size_t max)
{
        json_t *flows = json_array();
        size_t have = l->by && !l->walked ? 0 : l->n - l->told;

        for (size_t end = l->told + (have > max ? max : have); l->told < end; l->told++)
                (void) json_array_append_new(flows, record_json(l->d, &l->records[l->told]));
        if (!l->by && l->told == l->n)
                l->told = l->n = 0; /* the room serves the next */

        return json_pack("{s:o, s:b}", "flows", flows, "truncated", l->truncated);
}

static json_t *listing_next(void *data, bool *ret_last)
{
        struct listing *l = data;
        json_t *piece;

        find(l, 1, STREAM_TIME);
        piece = tell(l, PIECE);
        *ret_last = l->walked && l->told == l->n;

        return piece;
}

static void listing_free(void *data)
{
        struct listing *l = data;

        flow_filter_done(&l->filter);
        (void) flow_walk_free(l->walk);
        free(l->records);
        free(l);
}

static void listing_freep(struct listing **l)
{
        if (*l)
                listing_free(*l);
}

/* Absent: the default of the kind of call. */
static bool read_limit(struct listing *l, const json_t *limit, json_int_t most)
{
        json_int_t n = limit && !json_is_null(limit) ? json_integer_value(limit) : most;

        l->limit = n < most ? n : most;
        return n > 0;
}

static bool read_order(struct listing *l, const json_t *top)
{
        const char *word = json_string_value(top);

        if (word && strcmp(word, "packets") == 0)
                l->by = packets_of;
        else if (word && strcmp(word, "bytes") == 0)
                l->by = bytes_of;

        return !top || json_is_null(top) || l->by;
}

/* The parameter that is wrong, or NULL. */
static const char *read_parameters(struct listing *l, const json_t *parameters, bool more)
{
        const char *field;

        if (!read_order(l, json_object_get(parameters, "top")))
                return "top";
        if (!read_limit(l, json_object_get(parameters, "limit"),
                        l->by  ? TOP_MAX
                        : more ? LIMIT_MORE
                               : LIMIT_DEFAULT))
                return "limit";

        return flow_filter_read(&l->filter, l->d, json_object_get(parameters, "filter"), &field) < 0
                       ? field
                       : NULL;
}

void list_flows(void *data, struct control_call *call, json_t *parameters)
{
        _cleanup_(listing_freep) struct listing *l = calloc(1, sizeof(*l));
        bool more = control_wants_more(call);
        const char *wrong;

        if (!l)
                return;

        l->d = data;
        wrong = read_parameters(l, parameters, more);
        l->walk = flow_walk_new(l->d->tables);
        if (wrong || !l->walk) {
                if (wrong)
                        control_invalid(call, wrong);
                return;
        }

        if (more) {
                control_stream(call,
                               &(struct control_stream) { listing_next, listing_free, TAKE(l) });
                return;
        }

        find(l, l->limit + 1, REPLY_TIME);
        l->truncated |= !l->walked;
        l->walked = true;
        control_reply(call, tell(l, l->limit));
}

/* ---- counts ------------------------------------------------------------------------------- */

static int count_flow(void *data, const struct flow_view *v)
{
        flow_counts_add(data, v->flow, !address_is_ipv4(&v->saddr), v->expired);
        return 0;
}

struct flow_counts daemon_flow_counts(struct daemon *d)
{
        struct flow_walk *w = flow_walk_new(d->tables);
        uint64_t until = monotonic_now() + COUNTS_TIME;
        struct flow_counts c = {};
        bool done = !w;

        while (!done && monotonic_now() < until)
                if (flow_walk_next(w, count_flow, &c, &done) < 0)
                        break;
        (void) flow_walk_free(w);

        return w && done ? c : *tables_flow_counts(d->tables);
}

json_t *flow_counts(struct daemon *d)
{
        struct flow_counts c = daemon_flow_counts(d);

        return json_pack("{s:I, s:I, s:I, s:I}", "new", (json_int_t) c.states[WEFT_NEW],
                         "established", (json_int_t) c.states[WEFT_ESTABLISHED], "closing",
                         (json_int_t) c.states[WEFT_CLOSING], "expired", (json_int_t) c.expired);
}
