/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "config/index.h"
#include "config/values.h"
#include "daemon/flows.h"
#include "names.h"
#include "util.h"

enum { ANY = -1 };

/* ---- reading ------------------------------------------------------------------------------ */

static int read_word(const json_t *j, const char *const *names, size_t n, int *ret)
{
        const char *word = json_string_value(j);

        for (size_t i = 0; word && i < n; i++)
                if (strcmp(names[i], word) == 0) {
                        *ret = (int) i;
                        return 0;
                }

        return -EINVAL;
}

static int read_number(const json_t *j, json_int_t most, int64_t *ret)
{
        if (!json_is_integer(j) || json_integer_value(j) < 0 || json_integer_value(j) > most)
                return -EINVAL;

        *ret = json_integer_value(j);
        return 0;
}

/* "tcp", or a number as text. */
static int read_protocol(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        const char *word = json_string_value(j);
        char buf[8];
        uint64_t n;

        (void) d;
        if (word && parse_number(word, &n) == 0 && n <= UINT8_MAX) {
                f->proto = (int) n;
                return 0;
        }
        for (int proto = 0; word && proto <= UINT8_MAX; proto++)
                if (strcmp(flow_protocol_name((uint8_t) proto, buf), word) == 0) {
                        f->proto = proto;
                        return 0;
                }

        return -EINVAL;
}

static int read_side(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_word(j, flow_side_names, SIDES, &f->side);
}

static int read_state(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_word(j, flow_state_names, 3, &f->state);
}

static int read_delivery(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_word(j, delivery_names, WEFT_DELIVERIES, &f->delivery);
}

/* A module that never ran has no number, and no flow. */
static int read_module(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        const char *word = json_string_value(j);

        if (!word)
                return -EINVAL;

        f->module = INT32_MAX;
        if (strcmp(word, "engine") == 0)
                f->module = 0;
        for (size_t i = 0; i < d->module_numbers.n; i++)
                if (strcmp(d->module_numbers.items[i], word) == 0)
                        f->module = (int32_t) i + 1;

        return 0;
}

static int read_prefix(const json_t *j, struct weft_prefix *ret, bool *ret_given)
{
        const char *text = json_string_value(j);

        *ret_given = true;
        return text ? parse_network(text, ret) : -EINVAL;
}

static int read_source(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_prefix(j, &f->source, &f->by_source);
}

static int read_destination(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_prefix(j, &f->destination, &f->by_destination);
}

static int read_address(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_prefix(j, &f->addr, &f->by_addr);
}

static int read_port(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        int64_t port;
        int r = read_number(j, UINT16_MAX, &port);

        (void) d;
        if (r == 0)
                f->port = (int) port;
        return r;
}

static int read_max_age(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        (void) d;
        return read_number(j, INT32_MAX, &f->max_age);
}

static int add_fronts(struct flow_filter *f, const struct weft_addr *addrs, size_t n, uint16_t port,
                      uint8_t proto)
{
        for (size_t i = 0; i < n; i++) {
                if (list_grow(&f->fronts, f->n_fronts, sizeof(*f->fronts)) < 0)
                        return -ENOMEM;
                f->fronts[f->n_fronts++] = (struct front) { addrs[i], htons(port), proto };
        }

        return 0;
}

static int add_service(struct flow_filter *f, struct daemon *d, const struct config_service *s)
{
        const struct weft_addresses *lists[] = { &s->cluster_ip, &s->external_ip,
                                                 &s->load_balancer_ip };
        struct weft_addr node[NODE_ADDRESSES_MAX];
        size_t n = s->node_port ? node_addresses(d, node, NODE_ADDRESSES_MAX) : 0;
        int r = add_fronts(f, node, n, s->node_port, s->proto);

        for (size_t i = 0; i < ELEMENTS(lists) && r == 0; i++)
                r = add_fronts(f, lists[i]->items, lists[i]->n, s->port, s->proto);

        return r;
}

static int read_service(struct flow_filter *f, struct daemon *d, const json_t *j)
{
        const char *name = json_string_value(j);
        const struct config_service *s = name ? config_service(d->build->config, name) : NULL;

        f->by_service = true;
        return s ? add_service(f, d, s) : -EINVAL;
}

static const struct {
        const char *name;
        int (*read)(struct flow_filter *f, struct daemon *d, const json_t *j);
} fields[] = {
        { "protocol", read_protocol },
        { "side", read_side },
        { "state", read_state },
        { "delivery", read_delivery },
        { "module", read_module },
        { "source", read_source },
        { "destination", read_destination },
        { "address", read_address },
        { "port", read_port },
        { "service", read_service },
        { "max_age_seconds", read_max_age },
};

static int read_field(struct flow_filter *f, struct daemon *d, const char *name, const json_t *j)
{
        for (size_t i = 0; i < ELEMENTS(fields); i++)
                if (strcmp(fields[i].name, name) == 0)
                        return json_is_null(j) ? 0 : fields[i].read(f, d, j);

        return -EINVAL;
}

int flow_filter_read(struct flow_filter *f, struct daemon *d, const json_t *j,
                     const char **ret_field)
{
        const char *name;
        json_t *value;

        *f =
                (struct flow_filter) { ANY,        ANY, ANY, ANY, .module = ANY, .max_age = ANY,
                                       .port = ANY };
        *ret_field = "filter";
        if (!j || json_is_null(j))
                return 0;
        if (!json_is_object(j))
                return -EINVAL;

        json_object_foreach ((json_t *) j, name, value) {
                *ret_field = name;
                if (read_field(f, d, name, value) < 0)
                        return -EINVAL;
        }

        return 0;
}

void flow_filter_done(struct flow_filter *f)
{
        free(f->fronts);
        f->fronts = NULL;
        f->n_fronts = 0;
}

/* ---- matching ----------------------------------------------------------------------------- */

static bool is(int wanted, int is)
{
        return wanted == ANY || wanted == is;
}

static bool has_port(const struct flow_record *r, uint16_t port)
{
        __be16 p = htons(port);

        return r->sport == p || r->dport == p || r->new_sport == p || r->new_dport == p;
}

static bool has_address(const struct flow_record *r, const struct weft_prefix *p)
{
        return prefix_contains(p, &r->saddr) || prefix_contains(p, &r->daddr) ||
               prefix_contains(p, &r->new_saddr) || prefix_contains(p, &r->new_daddr);
}

/* The request comes in to the service's address, the reply goes out from it. */
static bool has_front(const struct flow_filter *f, const struct flow_record *r)
{
        for (size_t i = 0; i < f->n_fronts; i++) {
                const struct front *s = &f->fronts[i];

                if (r->proto == s->proto &&
                    ((r->dport == s->port && address_equal(&r->daddr, &s->addr)) ||
                     (r->new_sport == s->port && address_equal(&r->new_saddr, &s->addr))))
                        return true;
        }

        return false;
}

bool flow_filter_match(const struct flow_filter *f, const struct flow_record *r)
{
        return is(f->proto, r->proto) && is(f->side, r->side) && is(f->state, r->state) &&
               is(f->delivery, r->delivery) && is(f->module, r->module) &&
               (f->max_age == ANY || r->age <= f->max_age) &&
               (f->port == ANY || has_port(r, (uint16_t) f->port)) &&
               (!f->by_source || prefix_contains(&f->source, &r->saddr)) &&
               (!f->by_destination || prefix_contains(&f->destination, &r->daddr)) &&
               (!f->by_addr || has_address(r, &f->addr)) && (!f->by_service || has_front(f, r));
}
