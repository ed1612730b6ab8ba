/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "tables/maglev.h"
#include "tables/service-draft.h"

/* Choosing by weight repeats a backend's slot; what is beyond this is scaled down. */
#define SLOTS_BY_WEIGHT 1024

/* ---- what a service's keys are ------------------------------------------------------------ */

static int by_key(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_service_key));
}

static void add_key(struct draft *d, const struct weft_addr *addr, uint16_t port, uint8_t proto,
                    uint32_t flags)
{
        d->keys[d->n_keys++] = (struct service_key) {
                .key = { .addr = *addr, .port = htons(port), .proto = proto },
                .flags = flags,
        };
}

static bool is_node_address(const struct weft_addr *a, const struct weft_addr *node, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (memcmp(a, &node[i], sizeof(*a)) == 0)
                        return true;

        return false;
}

static void add_addresses(struct draft *d, const struct weft_addresses *list, uint32_t flags,
                          const struct weft_addr *node, size_t n_node)
{
        for (size_t i = 0; i < list->n; i++) {
                add_key(d, &list->items[i], d->config->port, d->config->proto, flags);
                if (!is_node_address(&list->items[i], node, n_node))
                        add_key(d, &list->items[i], 0, 0, flags | WEFT_SERVICE_ADDRESS);
        }
}

/* On the node, and under the zero of the family, where the node ports of all nodes stand. */
static void add_node_port(struct draft *d, const struct weft_addr *node)
{
        const struct weft_addr any = { .w = { 0, 0, address_is_ipv4(node) ? htonl(0xffff) : 0,
                                              0 } };

        add_key(d, node, d->config->node_port, d->config->proto, WEFT_SERVICE_NODE_PORT);
        add_key(d, &any, d->config->node_port, d->config->proto, WEFT_SERVICE_NODE_PORT);
}

/* Each once; what is written as two kinds of address is not for endpoints alone. */
static void sort_keys(struct draft *d)
{
        size_t n = 0;

        qsort(d->keys, d->n_keys, sizeof(*d->keys), by_key);
        for (size_t i = 0; i < d->n_keys; i++)
                if (n == 0 || by_key(&d->keys[n - 1], &d->keys[i]) != 0)
                        d->keys[n++] = d->keys[i];
                else
                        d->keys[n - 1].flags &= d->keys[i].flags;

        d->n_keys = n;
}

int draft_keys(struct draft *d, const struct weft_addr *node_addrs, size_t n_node_addrs)
{
        const struct config_service *s = d->config;
        size_t max =
                2 * (s->cluster_ip.n + s->external_ip.n + s->load_balancer_ip.n + n_node_addrs) + 1;

        d->keys = calloc(max, sizeof(*d->keys));
        if (!d->keys)
                return -ENOMEM;

        add_addresses(d, &s->cluster_ip, WEFT_SERVICE_CLUSTER_IP, node_addrs, n_node_addrs);
        add_addresses(d, &s->external_ip, 0, node_addrs, n_node_addrs);
        add_addresses(d, &s->load_balancer_ip, 0, node_addrs, n_node_addrs);
        for (size_t i = 0; s->node_port && i < n_node_addrs; i++)
                add_node_port(d, &node_addrs[i]);

        sort_keys(d);
        return 0;
}

/* ---- which backends take new flows -------------------------------------------------------- */

/* Those of one family, of the whole cluster or of this node alone. One that waits for its endpoint
 * would get packets that nobody can deliver. */
struct choice {
        bool ipv6, local;
        uint32_t state; /* enum backend_state that is chosen from */
};

static bool belongs(const struct config_backend *b, const struct choice *c)
{
        return address_is_ipv4(&b->addr) != c->ipv6 && (b->local || !c->local) && !b->waiting;
}

/* Draining backends take new flows only where no other would. */
static void choose_state(const struct config_service *s, struct choice *c)
{
        c->state = BACKEND_DRAINING;
        for (size_t i = 0; i < s->n_backends; i++)
                if (belongs(&s->backends[i], c) && s->backends[i].weight &&
                    s->backends[i].state == BACKEND_ACTIVE)
                        c->state = BACKEND_ACTIVE;
}

static uint32_t weight_of(const struct config_backend *b, const struct choice *c)
{
        return belongs(b, c) && b->state == c->state ? b->weight : 0;
}

static int draft_backends(struct tables *t, struct draft *d)
{
        const struct config_service *s = d->config;
        int r;

        d->backends = calloc(s->n_backends + 1, sizeof(*d->backends));
        if (!d->backends)
                return -ENOMEM;

        for (size_t i = 0; i < s->n_backends; i++) {
                struct backend_key key = {
                        .addr = s->backends[i].addr,
                        .port = htons(s->backends[i].port),
                        .proto = s->proto,
                        .service = d->id,
                };

                r = backend_take(t, &key, &d->backends[i]);
                if (r < 0)
                        return r;
                d->n_backends++;
        }

        return 0;
}

/* ---- slots -------------------------------------------------------------------------------- */

struct slots {
        struct weft_service_slot *items;
        uint32_t n;
};

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
        while (b) {
                uint64_t rest = a % b;

                a = b;
                b = rest;
        }

        return a;
}

/* What each weight is divided by: lowest terms, or about SLOTS_BY_WEIGHT slots in all. */
static uint64_t find_divisor(const struct config_service *s, const struct choice *c)
{
        uint64_t sum = 0, divisor = 0;

        for (size_t i = 0; i < s->n_backends; i++) {
                sum += weight_of(&s->backends[i], c);
                divisor = greatest_common_divisor(divisor, weight_of(&s->backends[i], c));
        }

        return divisor && sum / divisor > SLOTS_BY_WEIGHT
                       ? (sum + SLOTS_BY_WEIGHT - 1) / SLOTS_BY_WEIGHT
                       : divisor;
}

/* Appends the backends of the choice, each as often as its weight asks and at least once; for least
 * connections, which weighs for itself, just once. Returns how many that made. */
static uint32_t add_slots(const struct draft *d, struct choice *c, struct slots *slots)
{
        const struct config_service *s = d->config;
        bool once = s->algorithm == WEFT_LEAST_CONNECTIONS;
        uint32_t before = slots->n;
        uint64_t divisor;

        choose_state(s, c);
        divisor = find_divisor(s, c);
        for (size_t i = 0; i < s->n_backends; i++) {
                uint32_t weight = weight_of(&s->backends[i], c);
                uint64_t times = weight == 0 ? 0 : once || weight < divisor ? 1 : weight / divisor;

                while (times-- > 0)
                        slots->items[slots->n++] =
                                (struct weft_service_slot) { d->backends[i]->index, weight };
        }

        return slots->n - before;
}

/* An entry of the service that has these slots already. */
static struct service_entry *find_same(struct tables *t, const struct draft *d,
                                       const struct slots *slots)
{
        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i].key);

                if (e && e->range && range_holds(t, e->range, slots->items, slots->n))
                        return e;
        }

        return NULL;
}

/* ---- Maglev ------------------------------------------------------------------------------- */

#define NUMBER(size) size,
static const uint32_t maglev_sizes[] = { CONFIG_MAGLEV_SIZES(NUMBER) };

static size_t list_for_maglev(const struct draft *d, const struct choice *c,
                              struct maglev_backend *ret, uint32_t *ret_indices)
{
        const struct config_service *s = d->config;
        size_t n = 0;

        for (size_t i = 0; i < s->n_backends; i++) {
                const struct config_backend *b = &s->backends[i];
                uint32_t weight = weight_of(b, c);

                if (!weight)
                        continue;
                ret[n] = (struct maglev_backend) { b->addr, htons(b->port), s->proto, weight };
                ret_indices[n++] = d->backends[i]->index;
        }

        return n;
}

static int make_lookup(struct tables *t, const struct draft *d, const struct choice *c,
                       struct lookup **ret)
{
        size_t max = d->config->n_backends;
        _cleanup_free_ struct maglev_backend *backends = calloc(max, sizeof(*backends));
        _cleanup_free_ uint32_t *indices = calloc(max, sizeof(*indices)), *table = NULL;
        uint32_t size = maglev_sizes[d->config->maglev_size];
        size_t n;
        int r;

        table = calloc(size, sizeof(*table));
        if (!backends || !indices || !table)
                return -ENOMEM;

        n = list_for_maglev(d, c, backends, indices);
        r = maglev_fill(backends, n, table, size);
        if (r < 0)
                return r;

        for (uint32_t i = 0; i < size; i++)
                table[i] = indices[table[i]];

        return lookup_new(t, table, size, ret);
}

/* Equal slots make an equal table: it is computed only where they are new. */
static int draft_lookup(struct tables *t, const struct draft *d, const struct choice *c,
                        const struct service_entry *same, struct face *f)
{
        int r = 0;

        if (d->config->algorithm != WEFT_MAGLEV || f->value.count == 0)
                return 0;

        if (same && same->lookup && same->lookup->size == maglev_sizes[d->config->maglev_size])
                f->lookup = lookup_ref(same->lookup);
        else
                r = make_lookup(t, d, c, &f->lookup);
        if (r < 0)
                return r;

        f->value.maglev = f->lookup->number;
        f->value.maglev_size = f->lookup->size;
        return 0;
}

/* ---- faces -------------------------------------------------------------------------------- */

static uint32_t service_flags(const struct config_service *s)
{
        return (s->no_backend == NO_BACKEND_DROP ? WEFT_SERVICE_DROP_EMPTY : 0) |
               (s->external == TRAFFIC_LOCAL ? WEFT_SERVICE_EXTERNAL_LOCAL : 0) |
               (s->internal == TRAFFIC_LOCAL ? WEFT_SERVICE_INTERNAL_LOCAL : 0) |
               (s->source_range.n > 0 ? WEFT_SERVICE_SOURCE_RANGE : 0);
}

static struct weft_service common_value(const struct tables *t, const struct draft *d)
{
        const struct config_service *s = d->config;

        return (struct weft_service) {
                .id = d->id,
                .flags = service_flags(s),
                .seed = hash_name(s->name),
                .affinity = (s->affinity * t->hz + 999) / 1000,
                .algorithm = s->algorithm,
                .forwarding = s->forwarding,
        };
}

static int draft_face_of(struct tables *t, struct draft *d, bool ipv6)
{
        const struct config_service *s = d->config;
        struct choice all = { .ipv6 = ipv6 }, local = { .ipv6 = ipv6, .local = true };
        struct slots slots = { .n = 0 };
        _cleanup_free_ struct weft_service_slot *items =
                calloc(2 * (SLOTS_BY_WEIGHT + s->n_backends), sizeof(*items));
        struct face *f = &d->faces[ipv6];
        struct service_entry *same;
        int r = 0;

        if (!items)
                return -ENOMEM;

        slots.items = items;
        f->value = common_value(t, d);
        f->value.count = add_slots(d, &all, &slots);
        if (s->external == TRAFFIC_LOCAL || s->internal == TRAFFIC_LOCAL)
                f->value.local = add_slots(d, &local, &slots);

        same = find_same(t, d, &slots);
        if (same)
                f->range = range_ref(same->range);
        else
                r = range_new(t, items, slots.n, &f->range);
        if (r < 0)
                return r;

        f->value.slots = f->range->start;
        return draft_lookup(t, d, &all, same, f);
}

/* ---- sets --------------------------------------------------------------------------------- */

static int add_members(struct tables *t, struct draft *d, bool ipv6, bool local_too)
{
        const struct config_service *s = d->config;
        struct choice all = { .ipv6 = ipv6 }, local = { .ipv6 = ipv6, .local = true };
        int r = 0;

        choose_state(s, &all);
        choose_state(s, &local);
        for (size_t i = 0; r == 0 && i < s->n_backends; i++) {
                struct weft_member_key key = { d->id, d->backends[i]->index };
                uint32_t value = weight_of(&s->backends[i], &all) ? WEFT_MEMBER : 0;

                if (local_too && weight_of(&s->backends[i], &local))
                        value |= WEFT_MEMBER_LOCAL;
                if (value)
                        r = service_set_add(t, TABLE_MEMBERS, &d->members, &key, value);
        }

        return r;
}

/* From the last to the first: of several ports at one address, the first one's stays. */
static int add_placed(struct tables *t, struct draft *d)
{
        const struct config_service *s = d->config;
        int r = 0;

        for (size_t i = s->n_backends; r == 0 && i-- > 0;) {
                struct weft_placed_key key = { d->id, s->backends[i].addr };

                if (s->backends[i].local)
                        r = service_set_add(t, TABLE_PLACED, &d->placed, &key,
                                            d->backends[i]->index);
        }

        return r;
}

static int add_sources(struct tables *t, struct draft *d)
{
        const struct weft_prefixes *list = &d->config->source_range;
        int r = 0;

        for (size_t i = 0; r == 0 && i < list->n; i++) {
                struct weft_source_key key = {
                        .prefixlen = 32 + list->items[i].len,
                        .service = d->id,
                        .addr = list->items[i].addr,
                };

                r = service_set_add(t, TABLE_SOURCE_RANGES, &d->sources, &key, 1);
        }

        return r;
}

static int draft_sets(struct tables *t, struct draft *d)
{
        bool local = d->config->external == TRAFFIC_LOCAL || d->config->internal == TRAFFIC_LOCAL;
        int r = 0;

        for (int ipv6 = 0; r == 0 && d->config->affinity && ipv6 < 2; ipv6++)
                r = add_members(t, d, ipv6, local);

        if (r == 0)
                r = add_placed(t, d);

        return r < 0 ? r : add_sources(t, d);
}

/* ---- the whole ---------------------------------------------------------------------------- */

int draft_make(struct tables *t, struct draft *d, struct weft_error *reterr)
{
        const char *name = d->config->name;
        int r;

        r = draft_backends(t, d);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: table of backends: %s", name,
                                 strerror(-r));

        for (int ipv6 = 0; r == 0 && ipv6 < 2; ipv6++)
                r = draft_face_of(t, d, ipv6);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: table of service slots: %s", name,
                                 strerror(-r));

        r = draft_sets(t, d);
        return r < 0 ? weft_fail(reterr, r, "service %s: out of memory", name) : 0;
}

void draft_done(struct tables *t, struct draft *d)
{
        for (size_t i = 0; i < d->n_backends; i++)
                backend_drop(t, d->backends[i]);

        for (size_t i = 0; i < ELEMENTS(d->faces); i++) {
                range_unref(t, d->faces[i].range);
                lookup_unref(t, d->faces[i].lookup);
        }

        service_set_done(&d->members);
        service_set_done(&d->placed);
        service_set_done(&d->sources);
        free(d->keys);
        free(d->backends);
}
