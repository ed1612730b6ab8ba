/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"
#include "world-internal.h"

/* ---- counters ----------------------------------------------------------------------------- */

uint64_t world_event(struct world *w, enum weft_event event)
{
        int cpus = libbpf_num_possible_cpus();
        _cleanup_free_ uint64_t *values = calloc(cpus, sizeof(*values));
        uint32_t key = event;
        uint64_t sum = 0;

        assert(bpf_map_lookup_elem(tables_fd(w->tables, "events"), &key, values) == 0);
        for (int i = 0; i < cpus; i++)
                sum += values[i];
        return sum;
}

static uint64_t packets_of(int fd, const struct weft_drop_key *key)
{
        int cpus = libbpf_num_possible_cpus();
        _cleanup_free_ struct weft_count *values = calloc(cpus, sizeof(*values));
        uint64_t sum = 0;

        if (bpf_map_lookup_elem(fd, key, values) < 0)
                return 0;
        for (int i = 0; i < cpus; i++)
                sum += values[i].packets;
        return sum;
}

/* Of one reason and hook, or of all where reason is WEFT_DROPS. */
static uint64_t drops(struct world *w, uint32_t reason, uint32_t hook)
{
        int fd = tables_fd(w->tables, "drops");
        struct weft_drop_key key, *last = NULL;
        uint64_t sum = 0;

        while (bpf_map_get_next_key(fd, last, &key) == 0) {
                if (reason == WEFT_DROPS || (key.reason == reason && key.hook == hook))
                        sum += packets_of(fd, &key);
                last = &key;
        }
        return sum;
}

uint64_t world_drops(struct world *w, enum weft_drop reason, enum weft_hook hook)
{
        return drops(w, reason, hook);
}

uint64_t world_all_drops(struct world *w)
{
        return drops(w, WEFT_DROPS, 0);
}

/* ---- flows -------------------------------------------------------------------------------- */

static struct flow flow_of(const struct flow_view *v)
{
        return (struct flow) {
                .src = v->saddr,
                .dst = v->daddr,
                .new_src = v->new_saddr,
                .new_dst = v->new_daddr,
                .sport = ntohs(v->sport),
                .dport = ntohs(v->dport),
                .new_sport = ntohs(v->flow->sport),
                .new_dport = ntohs(v->flow->dport),
                .proto = v->proto,
                .side = v->side,
                .f = *v->flow,
                .now = v->now,
        };
}

struct gathering {
        struct flow *flows;
        size_t n, max;
};

static int gather(void *data, const struct flow_view *v)
{
        struct gathering *g = data;

        if (v->expired)
                return 0;
        if (g->n < g->max)
                g->flows[g->n] = flow_of(v);
        g->n++;
        return 0;
}

size_t world_flows(struct world *w, struct flow *flows, size_t max)
{
        struct gathering g = { .flows = flows, .max = max };

        tables_each_flow(w->tables, gather, &g);
        return g.n;
}

/* The ports of the key that a packet of this shape has: of an echo, the identifier on the
 * requester's side. */
static void ports_of(const struct shape *s, uint16_t *ret_sport, uint16_t *ret_dport)
{
        bool request = s->type == ICMP_ECHO || s->type == ICMP6_ECHO_REQUEST;
        bool echo = s->proto == IPPROTO_ICMP || s->proto == IPPROTO_ICMPV6;

        *ret_sport = !echo ? s->sport : request ? s->rest >> 16 : 0;
        *ret_dport = !echo ? s->dport : request ? 0 : s->rest >> 16;
}

struct wanted {
        const struct shape *shape;
        enum weft_side side;
        struct flow *ret;
};

static int match(void *data, const struct flow_view *v)
{
        struct wanted *want = data;
        uint16_t sport, dport;

        ports_of(want->shape, &sport, &dport);
        if (v->expired || v->side != want->side || v->proto != want->shape->proto ||
            ntohs(v->sport) != sport || ntohs(v->dport) != dport ||
            memcmp(&v->saddr, &want->shape->src, 16) || memcmp(&v->daddr, &want->shape->dst, 16))
                return 0;
        *want->ret = flow_of(v);
        return 1;
}

bool world_flow(struct world *w, const struct shape *s, enum weft_side side, struct flow *ret)
{
        struct wanted want = { s, side, ret };

        return tables_each_flow(w->tables, match, &want) == 1;
}

static struct weft_key4 key4_of(const struct weft_addr *src, const struct weft_addr *dst,
                                uint16_t sport, uint16_t dport, uint8_t proto, uint8_t side)
{
        return (struct weft_key4) {
                .saddr = src->w[3],
                .daddr = dst->w[3],
                .sport = htons(sport),
                .dport = htons(dport),
                .proto = proto,
                .side = side,
        };
}

static struct weft_key6 key6_of(const struct weft_addr *src, const struct weft_addr *dst,
                                uint16_t sport, uint16_t dport, uint8_t proto, uint8_t side)
{
        return (struct weft_key6) {
                .saddr = *src,
                .daddr = *dst,
                .sport = htons(sport),
                .dport = htons(dport),
                .proto = proto,
                .side = side,
        };
}

void world_set_deadline(struct world *w, const struct shape *s, enum weft_side side, int seconds)
{
        bool six = shape_family(s) == AF_INET6;
        int fd = tables_fd(w->tables, six ? "flows6" : "flows4");
        uint16_t sport, dport;
        struct flow found;
        union {
                struct weft_flow4 four;
                struct weft_flow6 six;
                struct weft_flow f;
        } value;

        ports_of(s, &sport, &dport);
        struct weft_key4 four = key4_of(&s->src, &s->dst, sport, dport, s->proto, side);
        struct weft_key6 key6 = key6_of(&s->src, &s->dst, sport, dport, s->proto, side);
        const void *key = six ? (void *) &key6 : (void *) &four;

        if (!world_flow(w, s, side, &found) || bpf_map_lookup_elem(fd, key, &value) < 0)
                abort();
        value.f.deadline = found.now + (int64_t) seconds * w->hz;
        if (bpf_map_update_elem(fd, key, &value, BPF_EXIST) < 0)
                abort();
}

long flow_seconds(struct world *w, const struct flow *f)
{
        return ((int64_t) (f->f.deadline - f->now) + w->hz - 1) / w->hz;
}

/* ---- partners ----------------------------------------------------------------------------- */

static bool paired4(int fd, const struct weft_key4 *own)
{
        struct weft_flow4 flow, other;
        struct weft_key4 key;

        if (bpf_map_lookup_elem(fd, own, &flow) < 0)
                return true; /* gone since it was listed */
        weft_partner4(&flow, &key);
        if (memcmp(&flow.key, own, sizeof(*own)) || bpf_map_lookup_elem(fd, &key, &other) < 0)
                return false;
        weft_partner4(&other, &key);
        return !memcmp(&key, own, sizeof(key));
}

static bool paired6(int fd, const struct weft_key6 *own)
{
        struct weft_flow6 flow, other;
        struct weft_key6 key;

        if (bpf_map_lookup_elem(fd, own, &flow) < 0)
                return true;
        weft_partner6(&flow, &key);
        if (memcmp(&flow.key, own, sizeof(*own)) || bpf_map_lookup_elem(fd, &key, &other) < 0)
                return false;
        weft_partner6(&other, &key);
        return !memcmp(&key, own, sizeof(key));
}

struct census {
        struct world *w;
        size_t orphans;
};

static int check_pair(void *data, const struct flow_view *v)
{
        struct census *c = data;
        uint16_t sport = ntohs(v->sport), dport = ntohs(v->dport);
        bool four = v->saddr.w[2] == htonl(0xffff) && !v->saddr.w[0] && !v->saddr.w[1];

        if (v->expired)
                return 0;
        if (four) {
                struct weft_key4 k = key4_of(&v->saddr, &v->daddr, sport, dport, v->proto, v->side);

                c->orphans += !paired4(tables_fd(c->w->tables, "flows4"), &k);
        } else {
                struct weft_key6 k = key6_of(&v->saddr, &v->daddr, sport, dport, v->proto, v->side);

                c->orphans += !paired6(tables_fd(c->w->tables, "flows6"), &k);
        }
        return 0;
}

size_t world_orphans(struct world *w)
{
        struct census c = { w, 0 };

        tables_each_flow(w->tables, check_pair, &c);
        return c.orphans;
}

void world_age_nexthop(struct world *w, const struct flow *f)
{
        int fd = tables_fd(w->tables, "nexthops");
        uint32_t index = f->f.route.nexthop;
        struct weft_nexthop hop;

        if (bpf_map_lookup_elem(fd, &index, &hop) < 0 || hop.ifindex != w->ifindex[UPLINK])
                abort();
        hop.fresh = f->now - w->hz;
        if (bpf_map_update_elem(fd, &index, &hop, BPF_EXIST) < 0)
                abort();
}

void world_forget(struct world *w)
{
        static const char *const maps[] = { "flows4", "flows6", "half_open4", "half_open6" };
        uint8_t key[64];

        for (size_t i = 0; i < ELEMENTS(maps); i++) {
                int fd = tables_fd(w->tables, maps[i]);

                while (bpf_map_get_next_key(fd, NULL, key) == 0)
                        if (bpf_map_delete_elem(fd, key) < 0)
                                break;
        }
}
