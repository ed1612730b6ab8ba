/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services: the entries of one configured service share an id, a range of slots and a value. */

#include <arpa/inet.h>
#include <errno.h>
#include <search.h>
#include <string.h>

#include "tables/internal.h"
#include "tables/service-entries.h"
#include "config/values.h"

/* Choosing by weight repeats a backend's slot; what is beyond this is scaled down. */
#define SLOTS_BY_WEIGHT 1024

struct service {
        char *name;
        uint32_t id;
        struct weft_service_key *keys; /* in order, each once */
        size_t n_keys;
        struct backend **backends; /* one reference each */
        size_t n_backends;
};

/* A service as it is to be, before anything but backends and slots is written. */
struct draft {
        const struct config_service *config;
        struct weft_service_key *keys;
        size_t n_keys;
        struct backend **backends;
        size_t n_backends;
        struct range *range;
        struct weft_service value;
};

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct service *) a)->name, ((const struct service *) b)->name);
}

static int by_key(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_service_key));
}

static bool contains(const struct weft_service_key *keys, size_t n,
                     const struct weft_service_key *k)
{
        return n && bsearch(k, keys, n, sizeof(*k), by_key);
}

static struct service *find(struct tables *t, const char *name)
{
        struct service **s =
                tfind(&(struct service) { .name = (char *) name }, &t->services, by_name);

        return s ? *s : NULL;
}

/* ---- what a service's keys are ------------------------------------------------------------ */

static void add_key(struct draft *d, const struct weft_addr *addr, uint16_t port, uint8_t proto)
{
        d->keys[d->n_keys++] = (struct weft_service_key) {
                .addr = *addr,
                .port = htons(port),
                .proto = proto,
        };
}

static bool is_node_address(const struct weft_addr *a, const struct weft_addr *node, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (memcmp(a, &node[i], sizeof(*a)) == 0)
                        return true;

        return false;
}

static void add_addresses(struct draft *d, const struct weft_addresses *list,
                          const struct weft_addr *node, size_t n_node)
{
        for (size_t i = 0; i < list->n; i++) {
                add_key(d, &list->items[i], d->config->port, d->config->proto);
                if (!is_node_address(&list->items[i], node, n_node))
                        add_key(d, &list->items[i], 0, 0);
        }
}

static void sort_keys(struct draft *d)
{
        size_t n = 0;

        qsort(d->keys, d->n_keys, sizeof(*d->keys), by_key);
        for (size_t i = 0; i < d->n_keys; i++)
                if (n == 0 || by_key(&d->keys[n - 1], &d->keys[i]) != 0)
                        d->keys[n++] = d->keys[i];

        d->n_keys = n;
}

static int draft_keys(struct draft *d, const struct weft_addr *node, size_t n_node)
{
        const struct config_service *s = d->config;
        size_t max = 2 * (s->external_ip.n + s->load_balancer_ip.n) + n_node + 1;

        d->keys = calloc(max, sizeof(*d->keys));
        if (!d->keys)
                return -ENOMEM;

        add_addresses(d, &s->external_ip, node, n_node);
        add_addresses(d, &s->load_balancer_ip, node, n_node);
        for (size_t i = 0; s->node_port && i < n_node; i++)
                add_key(d, &node[i], s->node_port, s->proto);

        sort_keys(d);
        return 0;
}

static int check_owner(struct tables *t, const struct draft *d, struct weft_error *reterr)
{
        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i]);
                char text[ADDRESS_TEXT];

                if (!e || !e->owner || strcmp(e->owner->name, d->config->name) == 0)
                        continue;

                (void) address_format(&e->key.addr, text, sizeof(text));
                return weft_fail(reterr, -EEXIST, "service %s: %s port %u is service %s's",
                                 d->config->name, text, ntohs(e->key.port), e->owner->name);
        }

        return 0;
}

/* ---- its backends and slots --------------------------------------------------------------- */

static int draft_backends(struct tables *t, struct draft *d)
{
        const struct config_service *s = d->config;
        int r;

        d->backends = calloc(s->n_backends + 1, sizeof(*d->backends));
        if (!d->backends)
                return -ENOMEM;

        for (size_t i = 0; i < s->n_backends; i++) {
                struct weft_service_key key = {
                        .addr = s->backends[i].addr,
                        .port = htons(s->backends[i].port),
                        .proto = s->proto,
                };

                r = backend_take(t, &key, &d->backends[i]);
                if (r < 0)
                        return r;
                d->n_backends++;
        }

        return 0;
}

/* Draining backends take new flows only where no other would. */
static uint32_t eligible_state(const struct config_service *s)
{
        for (size_t i = 0; i < s->n_backends; i++)
                if (s->backends[i].state == BACKEND_ACTIVE && s->backends[i].weight)
                        return BACKEND_ACTIVE;

        return BACKEND_DRAINING;
}

static uint32_t weight_of(const struct config_backend *b, uint32_t state)
{
        return b->state == state ? b->weight : 0;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
        while (b) {
                uint64_t rest = a % b;

                a = b;
                b = rest;
        }

        return a;
}

/* Backend indices, each as often as its weight asks: lowest terms, then scaled to about
 * SLOTS_BY_WEIGHT, at least one each. */
static int list_slots(const struct draft *d, uint32_t **ret, uint32_t *ret_n)
{
        const struct config_service *s = d->config;
        uint32_t state = eligible_state(s), n = 0, *list;
        uint64_t sum = 0, divisor = 0;

        for (size_t i = 0; i < s->n_backends; i++) {
                sum += weight_of(&s->backends[i], state);
                divisor = greatest_common_divisor(divisor, weight_of(&s->backends[i], state));
        }
        if (divisor && sum / divisor > SLOTS_BY_WEIGHT)
                divisor = (sum + SLOTS_BY_WEIGHT - 1) / SLOTS_BY_WEIGHT;

        list = calloc(SLOTS_BY_WEIGHT + s->n_backends, sizeof(*list));
        if (!list)
                return -ENOMEM;

        for (size_t i = 0; i < s->n_backends; i++) {
                uint32_t weight = weight_of(&s->backends[i], state);
                uint64_t times = weight ? weight / divisor : 0;

                do
                        if (weight)
                                list[n++] = d->backends[i]->index;
                while (times-- > 1);
        }

        *ret = list;
        *ret_n = n;
        return 0;
}

/* The range of one of these entries if it says the same already. */
static struct range *same_range(struct tables *t, const struct draft *d, const uint32_t *list,
                                uint32_t n)
{
        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i]);

                if (e && e->range && range_holds(t, e->range, list, n))
                        return range_ref(e->range);
        }

        return NULL;
}

static int draft_slots(struct tables *t, struct draft *d)
{
        _cleanup_free_ uint32_t *list = NULL;
        uint32_t n;
        int r;

        r = list_slots(d, &list, &n);
        if (r < 0)
                return r;

        d->range = same_range(t, d, list, n);
        if (!d->range) {
                r = range_new(t, list, n, &d->range);
                if (r < 0)
                        return r;
        }

        d->value.slots = d->range->start;
        d->value.count = n;
        d->value.flags = d->config->no_backend == NO_BACKEND_DROP ? WEFT_SERVICE_DROP_EMPTY : 0;
        return 0;
}

static int draft_make(struct tables *t, struct draft *d, const struct weft_addr *node,
                      size_t n_node, struct weft_error *reterr)
{
        const char *name = d->config->name;
        int r;

        r = draft_keys(d, node, n_node);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: out of memory", name);

        r = check_owner(t, d, reterr);
        if (r < 0)
                return r;

        r = draft_backends(t, d);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: table of backends: %s", name,
                                 strerror(-r));

        r = draft_slots(t, d);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: table of service slots: %s", name,
                                 strerror(-r));

        return 0;
}

/* Gives back what the draft holds. */
static void draft_done(struct tables *t, struct draft *d)
{
        for (size_t i = 0; i < d->n_backends; i++)
                backend_drop(t, d->backends[i]);

        range_unref(t, d->range);
        free(d->keys);
        free(d->backends);
}

/* ---- writing ------------------------------------------------------------------------------ */

static int write_key(struct tables *t, const struct draft *d, const struct weft_service_key *k)
{
        static const struct weft_service address = { .flags = WEFT_SERVICE_ADDRESS };

        return is_address(k) ? service_entry_write(t, k, &address, NULL)
                             : service_entry_write(t, k, &d->value, d->range);
}

/* Takes away the entries for which nobody but this attempt asked. */
static void unwrite_keys(struct tables *t, const struct draft *d)
{
        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i]);

                if (e && e->fresh)
                        service_entry_remove(t, e);
        }
}

/* What may fail for want of room comes first: entries that are not in the map yet. From the last to
 * the first, so that an address is said to be a service's own after its ports are there. */
static int write_new_keys(struct tables *t, const struct draft *d)
{
        for (size_t i = d->n_keys; i-- > 0;) {
                int r = service_entry_find(t, &d->keys[i]) ? 0 : write_key(t, d, &d->keys[i]);

                if (r < 0) {
                        unwrite_keys(t, d);
                        return r;
                }
        }

        return 0;
}

static int write_keys(struct tables *t, const struct draft *d)
{
        int r;

        r = write_new_keys(t, d);
        for (size_t i = 0; r == 0 && i < d->n_keys; i++)
                r = write_key(t, d, &d->keys[i]);

        return r;
}

static void release_key(struct tables *t, const struct weft_service_key *k)
{
        struct service_entry *e = service_entry_find(t, k);

        if (is_address(k) && --e->users > 0)
                return;

        service_entry_remove(t, e);
}

/* The service is as the draft says now: what it had before and has no more goes. */
static void adopt_draft(struct tables *t, struct service *s, struct draft *d)
{
        struct service old = *s;

        s->keys = TAKE(d->keys);
        s->n_keys = d->n_keys;
        for (size_t i = 0; i < s->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &s->keys[i]);

                e->fresh = false;
                if (!is_address(&s->keys[i]))
                        e->owner = s;
                else if (!contains(old.keys, old.n_keys, &s->keys[i]))
                        e->users++;
        }

        for (size_t i = 0; i < old.n_keys; i++)
                if (!contains(s->keys, s->n_keys, &old.keys[i]))
                        release_key(t, &old.keys[i]);

        free(old.keys);

        /* The draft's backends are the service's now, and the other way round. */
        s->backends = d->backends;
        s->n_backends = d->n_backends;
        d->backends = old.backends;
        d->n_backends = old.n_backends;
}

/* ---- one service -------------------------------------------------------------------------- */

/* Its predecessor's id if an entry still carries it, else a fresh one. */
static int choose_id(struct tables *t, struct draft *d)
{
        d->value.id = 0;
        for (size_t i = 0; i < d->n_keys && !d->value.id; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i]);

                if (e && !e->owner && !keyset_has(&t->service_ids, &e->value.id))
                        d->value.id = e->value.id;
        }

        if (!d->value.id)
                d->value.id = ++t->last_service_id;

        return keyset_add(&t->service_ids, &d->value.id);
}

static void free_service(void *p)
{
        struct service *s = p;

        free(s->name);
        free(s->keys);
        free(s->backends);
        free(s);
}

static int new_service(struct tables *t, struct draft *d, struct service **ret)
{
        struct service *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;

        s->name = strdup(d->config->name);
        if (!s->name || choose_id(t, d) < 0 || !tsearch(s, &t->services, by_name)) {
                free_service(s);
                return -ENOMEM;
        }

        s->id = d->value.id;
        *ret = s;
        return 0;
}

static int set_service(struct tables *t, struct draft *d, struct weft_error *reterr)
{
        struct service *s = find(t, d->config->name);
        int r;

        if (s) {
                d->value.id = s->id;
        } else {
                r = new_service(t, d, &s);
                if (r < 0)
                        return weft_fail(reterr, r, "service %s: out of memory", d->config->name);
        }

        r = write_keys(t, d);
        if (r < 0) {
                if (!s->keys)
                        tables_del_service(t, s->name);
                return weft_fail(reterr, r, "service %s: table of services: %s", d->config->name,
                                 strerror(-r));
        }

        adopt_draft(t, s, d);
        return 0;
}

int tables_set_service(struct tables *t, const struct config_service *s,
                       const struct weft_addr *node_addrs, size_t n_node_addrs,
                       struct weft_error *reterr)
{
        struct draft d = { .config = s };
        int r;

        r = draft_make(t, &d, node_addrs, n_node_addrs, reterr);
        if (r == 0)
                r = set_service(t, &d, reterr);

        draft_done(t, &d);
        return r;
}

void tables_del_service(struct tables *t, const char *name)
{
        struct service *s = find(t, name);

        if (!s)
                return;

        for (size_t i = 0; i < s->n_keys; i++)
                release_key(t, &s->keys[i]);
        for (size_t i = 0; i < s->n_backends; i++)
                backend_drop(t, s->backends[i]);

        keyset_del(&t->service_ids, &s->id);
        (void) tdelete(s, &t->services, by_name);
        free_service(s);
}

void services_done(struct tables *t)
{
        tdestroy(t->services, free_service);
        service_entries_done(t);
        keyset_done(&t->service_ids);
}
