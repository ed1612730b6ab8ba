/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Services: the entries of one configured service share an id, a range of slots and a value. */

#include <arpa/inet.h>
#include <errno.h>
#include <search.h>
#include <string.h>

#include "config/values.h"
#include "tables/service-draft.h"

struct service {
        char *name;
        uint32_t id;
        struct service_key *keys; /* in order, each once */
        size_t n_keys;
        struct backend **backends; /* one reference each */
        size_t n_backends;
        struct service_set members, placed, sources;
        uint32_t round; /* when it was set */
};

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct service *) a)->name, ((const struct service *) b)->name);
}

static int by_key(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_service_key));
}

static bool contains(const struct service_key *keys, size_t n, const struct service_key *k)
{
        return n && bsearch(k, keys, n, sizeof(*k), by_key);
}

static struct service *find(struct tables *t, const char *name)
{
        struct service **s =
                tfind(&(struct service) { .name = (char *) name }, &t->services, by_name);

        return s ? *s : NULL;
}

/* May the draft have what is another's? From one that was not set in this round it may: what that
 * one is to be now is not known yet, but the configuration gives no address and port to two. And an
 * address that was given by name goes before a node port, which is on every address of the node. */
static bool may_take(const struct tables *t, const struct service_key *k,
                     const struct service_entry *e)
{
        bool names_it = !(k->flags & WEFT_SERVICE_NODE_PORT);

        return e->owner->round != t->service_round ||
               (names_it && e->value.flags & WEFT_SERVICE_NODE_PORT);
}

static bool must_leave(const struct service_key *k, const struct service_entry *e)
{
        return k->flags & WEFT_SERVICE_NODE_PORT && !(e->value.flags & WEFT_SERVICE_NODE_PORT);
}

/* Sees to it that each key of the draft is its own to write. */
static int check_owners(struct tables *t, struct draft *d, struct weft_error *reterr)
{
        char text[ADDRESS_TEXT];
        size_t kept = 0;

        for (size_t i = 0; i < d->n_keys; i++) {
                const struct service_key *k = &d->keys[i];
                const struct service_entry *e = service_entry_find(t, &k->key);
                bool other = e && e->owner && strcmp(e->owner->name, d->config->name) != 0;

                if (!other || may_take(t, k, e))
                        d->keys[kept++] = *k;
                else if (!must_leave(k, e))
                        return weft_fail(reterr, -EEXIST, "service %s: %s port %u is service %s's",
                                         d->config->name,
                                         address_format(&k->key.addr, text, sizeof(text)),
                                         ntohs(k->key.port), e->owner->name);
        }

        d->n_keys = kept;
        return 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* An address that another service has for the outside stays one. */
static int write_address(struct tables *t, const struct service_key *k)
{
        const struct service_entry *e = service_entry_find(t, &k->key);
        struct weft_service value = { .flags = k->flags };

        if (e && e->users > 0)
                value.flags &= e->value.flags;
        return service_entry_write(t, &k->key, &value, NULL, NULL);
}

static int write_key(struct tables *t, struct draft *d, const struct service_key *k)
{
        const struct face *f = draft_face(d, &k->key);
        struct weft_service value = f->value;

        if (is_address(&k->key))
                return write_address(t, k);

        value.flags |= k->flags;
        return service_entry_write(t, &k->key, &value, f->range, f->lookup);
}

/* Takes away the entries for which nobody but this attempt asked. */
static void unwrite_keys(struct tables *t, const struct draft *d)
{
        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i].key);

                if (e && e->fresh)
                        service_entry_remove(t, e);
        }
}

/* What may fail for want of room comes first: entries that are not in the map yet. From the last to
 * the first, so that an address is said to be a service's own after its ports are there. */
static int write_new_keys(struct tables *t, struct draft *d)
{
        for (size_t i = d->n_keys; i-- > 0;) {
                int r = service_entry_find(t, &d->keys[i].key) ? 0 : write_key(t, d, &d->keys[i]);

                if (r < 0) {
                        unwrite_keys(t, d);
                        return r;
                }
        }

        return 0;
}

static int write_keys(struct tables *t, struct draft *d)
{
        int r;

        r = write_new_keys(t, d);
        for (size_t i = 0; r == 0 && i < d->n_keys; i++)
                r = write_key(t, d, &d->keys[i]);

        return r;
}

/* Another service may have taken it. */
static void release_key(struct tables *t, const struct service *s, const struct weft_service_key *k)
{
        struct service_entry *e = service_entry_find(t, k);

        if (is_address(k) ? --e->users == 0 : e && e->owner == s)
                service_entry_remove(t, e);
}

static void adopt_keys(struct tables *t, struct service *s, struct draft *d)
{
        struct service old = *s;

        s->keys = TAKE(d->keys);
        s->n_keys = d->n_keys;
        for (size_t i = 0; i < s->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &s->keys[i].key);

                e->fresh = false;
                if (!is_address(&s->keys[i].key))
                        e->owner = s;
                else if (!contains(old.keys, old.n_keys, &s->keys[i]))
                        e->users++;
        }

        for (size_t i = 0; i < old.n_keys; i++)
                if (!contains(s->keys, s->n_keys, &old.keys[i]))
                        release_key(t, s, &old.keys[i].key);

        free(old.keys);
}

/* The service is as the draft says now: what it had before and has no more goes, with the draft. */
static void adopt_draft(struct tables *t, struct service *s, struct draft *d)
{
        adopt_keys(t, s, d);
        service_set_leave(t, TABLE_MEMBERS, &s->members, &d->members);
        service_set_leave(t, TABLE_PLACED, &s->placed, &d->placed);
        service_set_leave(t, TABLE_SOURCE_RANGES, &s->sources, &d->sources);

        SWAP(s->backends, d->backends);
        SWAP(s->n_backends, d->n_backends);
        SWAP(s->members, d->members);
        SWAP(s->placed, d->placed);
        SWAP(s->sources, d->sources);
}

/* ---- one service -------------------------------------------------------------------------- */

/* Its predecessor's id if an entry still carries it, else one that its name gives, so that a
 * successor finds its backends again. */
static uint32_t choose_id(struct tables *t, const struct draft *d)
{
        uint32_t id;

        for (size_t i = 0; i < d->n_keys; i++) {
                struct service_entry *e = service_entry_find(t, &d->keys[i].key);

                if (e && !e->owner && e->value.id && !keyset_has(&t->service_ids, &e->value.id))
                        return e->value.id;
        }

        for (id = hash_name(d->config->name); !id || keyset_has(&t->service_ids, &id); id++)
                ;

        return id;
}

static void free_service(void *p)
{
        struct service *s = p;

        service_set_done(&s->members);
        service_set_done(&s->placed);
        service_set_done(&s->sources);
        free(s->name);
        free(s->keys);
        free(s->backends);
        free(s);
}

static int new_service(struct tables *t, const struct draft *d, struct service **ret)
{
        struct service *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;

        s->id = d->id;
        s->name = strdup(d->config->name);
        if (!s->name || keyset_add(&t->service_ids, &s->id) < 0 ||
            !tsearch(s, &t->services, by_name)) {
                free_service(s);
                return -ENOMEM;
        }

        *ret = s;
        return 0;
}

/* Sets before entries, so that no packet finds a service without its source ranges. */
static int write_draft(struct tables *t, struct draft *d)
{
        int r;

        r = service_set_enter(t, TABLE_MEMBERS, &d->members);
        if (r == 0)
                r = service_set_enter(t, TABLE_PLACED, &d->placed);
        if (r == 0)
                r = service_set_enter(t, TABLE_SOURCE_RANGES, &d->sources);
        if (r == 0)
                r = write_keys(t, d);

        return r;
}

static int set_service(struct tables *t, struct service *s, struct draft *d,
                       struct weft_error *reterr)
{
        int r;

        r = s ? 0 : new_service(t, d, &s);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: out of memory", d->config->name);

        r = write_draft(t, d);
        if (r < 0) {
                service_set_leave(t, TABLE_MEMBERS, &d->members, &s->members);
                service_set_leave(t, TABLE_PLACED, &d->placed, &s->placed);
                service_set_leave(t, TABLE_SOURCE_RANGES, &d->sources, &s->sources);
                if (!s->keys)
                        tables_del_service(t, s->name);
                return weft_fail(reterr, r, "service %s: table of services: %s", d->config->name,
                                 strerror(-r));
        }

        adopt_draft(t, s, d);
        s->round = t->service_round;
        return 0;
}

static int make_and_set(struct tables *t, struct draft *d, const struct weft_addr *node_addrs,
                        size_t n_node_addrs, struct weft_error *reterr)
{
        struct service *s = find(t, d->config->name);
        int r;

        r = draft_keys(d, node_addrs, n_node_addrs);
        if (r < 0)
                return weft_fail(reterr, r, "service %s: out of memory", d->config->name);

        r = check_owners(t, d, reterr);
        if (r < 0)
                return r;

        d->id = s ? s->id : choose_id(t, d);
        r = draft_make(t, d, reterr);
        return r < 0 ? r : set_service(t, s, d, reterr);
}

void tables_services_begin(struct tables *t)
{
        t->service_round++;
}

int tables_set_service(struct tables *t, const struct config_service *s,
                       const struct weft_addr *node_addrs, size_t n_node_addrs,
                       struct weft_error *reterr)
{
        struct draft d = { .config = s };
        int r;

        r = make_and_set(t, &d, node_addrs, n_node_addrs, reterr);
        draft_done(t, &d);
        return r;
}

uint32_t tables_backend_flows(struct tables *t, const struct config_service *service,
                              const struct config_backend *backend)
{
        const struct service *s = find(t, service->name);
        const struct backend_key key = {
                .addr = backend->addr,
                .port = htons(backend->port),
                .proto = service->proto,
                .service = s ? s->id : 0,
        };
        const struct backend *b = backend_find(t, &key);

        return b ? live_of(table_at(t, TABLE_BACKENDS, b->index)) : 0;
}

void tables_del_service(struct tables *t, const char *name)
{
        static const struct service_set none;
        struct service *s = find(t, name);

        if (!s)
                return;

        for (size_t i = 0; i < s->n_keys; i++)
                release_key(t, s, &s->keys[i].key);
        service_set_leave(t, TABLE_MEMBERS, &s->members, &none);
        service_set_leave(t, TABLE_PLACED, &s->placed, &none);
        service_set_leave(t, TABLE_SOURCE_RANGES, &s->sources, &none);
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
