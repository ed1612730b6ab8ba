/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <search.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tables/internal.h"
#include "config/values.h"

struct endpoint {
        char *name;
        struct weft_addr *addrs;
        size_t n_addrs;
        uint32_t slot;
};

struct owned_address {
        struct weft_addr addr;
        struct endpoint *endpoint;
};

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct endpoint *) a)->name, ((const struct endpoint *) b)->name);
}

static int by_address(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_addr));
}

static struct endpoint *find(struct tables *t, const char *name)
{
        struct endpoint **e =
                tfind(&(struct endpoint) { .name = (char *) name }, &t->endpoints, by_name);

        return e ? *e : NULL;
}

static struct owned_address *find_address(struct tables *t, const struct weft_addr *addr)
{
        struct owned_address **o = tfind(addr, &t->addresses, by_address);

        return o ? *o : NULL;
}

static void free_endpoint(void *p)
{
        struct endpoint *e = p;

        if (!e)
                return;

        free(e->name);
        free(e->addrs);
        free(e);
}

static void free_endpointp(struct endpoint **e)
{
        free_endpoint(*e);
}

void endpoints_done(struct tables *t)
{
        tdestroy(t->addresses, free);
        tdestroy(t->endpoints, free_endpoint);
}

/* ---- one address -------------------------------------------------------------------------- */

/* In the map and known as e's. 1 if it was not e's before. */
static int put_address(struct tables *t, struct endpoint *e, const struct weft_addr *addr,
                       const struct weft_endpoint *value)
{
        _cleanup_free_ struct owned_address *o = NULL;
        struct weft_endpoint old;
        bool known = bpf_map_lookup_elem(table_fd(t, TABLE_ENDPOINTS), addr, &old) == 0;
        bool mine = find_address(t, addr);
        int r;

        if (!mine) {
                o = malloc(sizeof(*o));
                if (!o)
                        return -ENOMEM;

                *o = (struct owned_address) { *addr, e };
                if (!tsearch(o, &t->addresses, by_address))
                        return -ENOMEM;
        }

        if (!known)
                filter_add(t, addr, 0, 0);
        r = bpf_map_update_elem(table_fd(t, TABLE_ENDPOINTS), addr, value, BPF_ANY);
        if (r < 0) {
                if (!known)
                        filter_del(t, addr, 0, 0);
                if (o)
                        (void) tdelete(o, &t->addresses, by_address);
                return r;
        }

        TAKE(o);
        return !mine;
}

static void remove_entry(struct tables *t, const struct weft_addr *addr)
{
        if (bpf_map_delete_elem(table_fd(t, TABLE_ENDPOINTS), addr) == 0)
                filter_del(t, addr, 0, 0);
}

static void remove_address(struct tables *t, const struct weft_addr *addr)
{
        struct owned_address *o = find_address(t, addr);

        remove_entry(t, addr);
        if (o) {
                (void) tdelete(o, &t->addresses, by_address);
                free(o);
        }
}

static bool listed(const struct weft_addr *addrs, size_t n, const struct weft_addr *addr)
{
        for (size_t i = 0; i < n; i++)
                if (memcmp(&addrs[i], addr, sizeof(*addr)) == 0)
                        return true;

        return false;
}

/* All of the new addresses, or none that were not there before. */
static int put_addresses(struct tables *t, struct endpoint *e, const struct table_endpoint *new)
{
        struct weft_endpoint value = {
                .ifindex = new->ifindex,
                .nexthop = nexthop_can_meet(new) ? e->slot : 0,
                .identity = new->identity,
        };
        int r;

        for (size_t i = 0; i < new->n_addrs; i++) {
                r = put_address(t, e, &new->addrs[i], &value);
                if (r >= 0)
                        continue;

                while (i-- > 0)
                        if (!listed(e->addrs, e->n_addrs, &new->addrs[i]))
                                remove_address(t, &new->addrs[i]);
                return r;
        }

        return 0;
}

/* ---- one endpoint ------------------------------------------------------------------------- */

static int check_owner(struct tables *t, const char *name, const struct table_endpoint *e,
                       struct weft_error *reterr)
{
        for (size_t i = 0; i < e->n_addrs; i++) {
                struct owned_address *o = find_address(t, &e->addrs[i]);
                char text[ADDRESS_TEXT];

                if (!o || strcmp(o->endpoint->name, name) == 0)
                        continue;

                (void) address_format(&e->addrs[i], text, sizeof(text));
                return weft_fail(reterr, -EEXIST, "endpoint %s: %s is the address of endpoint %s",
                                 name, text, o->endpoint->name);
        }

        return 0;
}

/* The slot that a predecessor used for one of these addresses; 0: none. */
static uint32_t inherited_slot(struct tables *t, const struct table_endpoint *e)
{
        struct weft_endpoint old;

        for (size_t i = 0; i < e->n_addrs; i++)
                if (bpf_map_lookup_elem(table_fd(t, TABLE_ENDPOINTS), &e->addrs[i], &old) == 0)
                        return old.nexthop;

        return 0;
}

static int new_endpoint(struct tables *t, const char *name, const struct table_endpoint *e,
                        struct endpoint **ret)
{
        _cleanup_(free_endpointp) struct endpoint *new = calloc(1, sizeof(*new));
        int r;

        if (!new)
                return -ENOMEM;

        new->name = strdup(name);
        if (!new->name)
                return -ENOMEM;

        r = nexthop_take(t, inherited_slot(t, e), &new->slot);
        if (r < 0)
                return r;

        if (!tsearch(new, &t->endpoints, by_name)) {
                nexthop_release(t, new->slot);
                return -ENOMEM;
        }

        *ret = TAKE(new);
        return 0;
}

/* Writes the new state; e keeps the old one on failure (a new endpoint has none). */
static int change(struct tables *t, struct endpoint *e, const struct table_endpoint *new)
{
        _cleanup_free_ struct weft_addr *addrs = calloc(new->n_addrs + 1, sizeof(*addrs));
        struct weft_addr *old = e->addrs;
        int r;

        if (!addrs)
                return -ENOMEM;

        if (new->n_addrs)
                memcpy(addrs, new->addrs, new->n_addrs * sizeof(*addrs));

        nexthop_write(t, e->slot, new);
        r = put_addresses(t, e, new);
        if (r < 0)
                return r;

        for (size_t i = 0; i < e->n_addrs; i++)
                if (!listed(addrs, new->n_addrs, &old[i]))
                        remove_address(t, &old[i]);

        e->addrs = TAKE(addrs);
        e->n_addrs = new->n_addrs;
        free(old);
        return 0;
}

int tables_set_endpoint(struct tables *t, const char *name, const struct table_endpoint *e,
                        struct weft_error *reterr)
{
        struct endpoint *endpoint;
        int r;

        r = check_owner(t, name, e, reterr);
        if (r < 0)
                return r;

        endpoint = find(t, name);
        if (!endpoint) {
                r = new_endpoint(t, name, e, &endpoint);
                if (r < 0)
                        return weft_fail(reterr, r, "endpoint %s: no next-hop slot: %s", name,
                                         strerror(-r));
        }

        r = change(t, endpoint, e);
        if (r < 0) {
                if (!endpoint->addrs)
                        tables_del_endpoint(t, name);
                return weft_fail(reterr, r, "endpoint %s: table of endpoints: %s", name,
                                 strerror(-r));
        }

        return 0;
}

void tables_del_endpoint(struct tables *t, const char *name)
{
        struct endpoint *e = find(t, name);

        if (!e)
                return;

        for (size_t i = 0; i < e->n_addrs; i++)
                remove_address(t, &e->addrs[i]);

        nexthop_release(t, e->slot);
        (void) tdelete(e, &t->endpoints, by_name);
        free_endpoint(e);
}

void endpoints_settle(struct tables *t)
{
        _cleanup_free_ struct weft_addr *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_ENDPOINTS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!find_address(t, &keys[i]))
                        remove_entry(t, &keys[i]);
}
