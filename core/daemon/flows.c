/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "util.h"

enum {
        LIMIT_DEFAULT = 1000,
        LIMIT_MORE = 1000000,
        PIECE = 64, /* flows of one reply of a stream */
};

/* As the interface file has them: what comes from inside is an endpoint's, or the node's own. */
enum { SIDE_HOST_OUT = WEFT_SIDE_OVERLAY + 1 };
static const char *const side_names[] = { "uplink", "endpoint", "overlay", "host_out" };
static const char *const state_names[] = WEFT_FLOW_STATE_NAMES;
static const char *const delivery_names[] = WEFT_DELIVERY_NAMES;

/* A flow as it was at one moment: a client takes its time, the tables do not wait. */
struct record {
        struct weft_addr saddr, daddr, new_saddr, new_daddr;
        __be16 sport, dport, new_sport, new_dport;
        uint16_t module;
        uint8_t proto, side, state, delivery;
        bool reply, expired;
        uint64_t packets, bytes;
        int64_t age, expires; /* seconds */
};

struct snapshot {
        struct daemon *d;
        struct record *records;
        size_t n, told, limit;
        bool truncated;
};

static void take_record(const struct daemon *d, const struct flow_view *v, struct record *ret)
{
        const struct weft_flow *f = v->flow;
        bool source = f->set & WEFT_SET_SRC, destination = f->set & WEFT_SET_DST;

        *ret = (struct record) {
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

static int add_record(void *data, const struct flow_view *v)
{
        struct snapshot *s = data;

        s->truncated = s->n == s->limit;
        if (s->truncated || list_grow(&s->records, s->n, sizeof(*s->records)) < 0)
                return 1;

        take_record(s->d, v, &s->records[s->n++]);
        return 0;
}

static const char *name_of(const char *const *names, size_t n, uint8_t i)
{
        return i < n ? names[i] : "unknown";
}

static const char *protocol_name(uint8_t proto, char buf[static 8])
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

static json_t *record_json(const struct daemon *d, const struct record *f)
{
        const char *module = generation_module_name(d->build->generation, f->module);
        char src[ADDRESS_TEXT], dst[ADDRESS_TEXT], new_src[ADDRESS_TEXT], new_dst[ADDRESS_TEXT],
                proto[8];

        /* clang-format off: a line for each field */
        return json_pack(
                "{s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:i, s:s, s:i, s:s, s:b, s:b, s:s, s:s, "
                "s:I, s:I, s:I, s:I}",
                "protocol", protocol_name(f->proto, proto), "side",
                name_of(side_names, ELEMENTS(side_names), f->side), "source",
                address_format(&f->saddr, src, sizeof(src)), "source_port", ntohs(f->sport),
                "destination", address_format(&f->daddr, dst, sizeof(dst)), "destination_port",
                ntohs(f->dport), "new_source",
                address_format(&f->new_saddr, new_src, sizeof(new_src)), "new_source_port",
                ntohs(f->new_sport), "new_destination",
                address_format(&f->new_daddr, new_dst, sizeof(new_dst)), "new_destination_port",
                ntohs(f->new_dport), "state", name_of(state_names, ELEMENTS(state_names), f->state),
                "reply", f->reply, "expired", f->expired, "module", module ? module : "gone",
                "delivery", name_of(delivery_names, ELEMENTS(delivery_names), f->delivery),
                "age_seconds", (json_int_t) f->age, "expires_seconds", (json_int_t) f->expires,
                "packets", (json_int_t) f->packets, "bytes", (json_int_t) f->bytes);
        /* clang-format on */
}

/* The next flows, at most max, as a reply's parameters. */
static json_t *tell(struct snapshot *s, size_t max)
{
        json_t *flows = json_array();
        size_t end = s->n - s->told > max ? s->told + max : s->n;

        for (; s->told < end; s->told++)
                (void) json_array_append_new(flows, record_json(s->d, &s->records[s->told]));

        return json_pack("{s:o, s:b}", "flows", flows, "truncated", s->truncated);
}

static json_t *snapshot_next(void *data, bool *ret_last)
{
        struct snapshot *s = data;
        json_t *piece = tell(s, PIECE);

        *ret_last = s->told == s->n;
        return piece;
}

static void snapshot_free(void *data)
{
        struct snapshot *s = data;

        free(s->records);
        free(s);
}

/* Absent: the default of the kind of call. */
static bool read_limit(struct control_call *call, json_t *parameters, size_t *ret)
{
        json_int_t most = control_wants_more(call) ? LIMIT_MORE : LIMIT_DEFAULT;
        json_t *limit = json_object_get(parameters, "limit");

        *ret = json_is_integer(limit) && json_integer_value(limit) < most
                       ? json_integer_value(limit)
                       : most;

        return !limit || json_is_null(limit) ||
               (json_is_integer(limit) && json_integer_value(limit) > 0);
}

void list_flows(void *data, struct control_call *call, json_t *parameters)
{
        struct snapshot *s = calloc(1, sizeof(*s));

        if (!s)
                return;

        s->d = data;
        if (!read_limit(call, parameters, &s->limit)) {
                control_invalid(call, "limit");
                snapshot_free(s);
                return;
        }

        (void) tables_each_flow(s->d->tables, add_record, s);
        if (control_wants_more(call)) {
                control_stream(call, &(struct control_stream) { snapshot_next, snapshot_free, s });
        } else {
                control_reply(call, tell(s, s->n));
                snapshot_free(s);
        }
}

/* ---- counts ------------------------------------------------------------------------------- */

struct counts {
        json_int_t states[3], expired;
};

static int count_flow(void *data, const struct flow_view *v)
{
        struct counts *c = data;

        if (v->expired)
                c->expired++;
        else if (v->flow->state < ELEMENTS(c->states))
                c->states[v->flow->state]++;

        return 0;
}

json_t *flow_counts(struct daemon *d)
{
        struct counts c = { 0 };

        (void) tables_each_flow(d->tables, count_flow, &c);
        return json_pack("{s:I, s:I, s:I, s:I}", "new", c.states[WEFT_NEW], "established",
                         c.states[WEFT_ESTABLISHED], "closing", c.states[WEFT_CLOSING], "expired",
                         c.expired);
}
