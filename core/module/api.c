/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* struct weft_api: each function finds what it needs in the instance. */

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "config/values.h"
#include "generation/object.h"
#include "module/api.h"
#include "module/module.h"
#include "probe/probe.h"
#include "util.h"

#define PORT_RANGE_FILE "/proc/sys/net/ipv4/ip_local_port_range"
#define PORT_RANGE_DEFAULT_HIGH 60999 /* ip-sysctl.rst */

/* weft_instance is opaque to the module and struct instance to us. */
static struct instance *of(struct weft_instance *self)
{
        return (struct instance *) self;
}

static void api_log(struct weft_instance *self, int level, const char *format, ...)
{
        const struct instance *i = of(self);
        char text[512];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);

        i->services->log(i->services->data, i->module->desc.name, level, text);
}

static const void *api_config(struct weft_instance *self)
{
        return of(self)->config;
}

static struct constant *constant_slot(struct instance *i, const char *name)
{
        struct constant *c;

        for (size_t n = 0; n < i->n_constants; n++)
                if (strcmp(i->constants[n].name, name) == 0)
                        return &i->constants[n];

        c = reallocarray(i->constants, i->n_constants + 1, sizeof(*c));
        if (!c)
                return NULL;
        i->constants = c;

        c += i->n_constants;
        *c = (struct constant) { .name = strdup(name) };
        if (!c->name)
                return NULL;

        i->n_constants++;
        return c;
}

static int api_constant(struct weft_instance *self, const char *name, const void *value,
                        size_t size)
{
        struct instance *i = of(self);
        struct constant *c;
        void *copy;
        int r;

        r = i->opened ? object_constant_check(i->opened, name, size) : -ENOENT;
        if (r < 0)
                return r;

        copy = malloc(size);
        c = copy ? constant_slot(i, name) : NULL;
        if (!c) {
                free(copy);
                return -ENOMEM;
        }

        free(c->value);
        c->value = memcpy(copy, value, size);
        c->size = size;
        return 0;
}

static void widen(struct weft_ports *p, uint16_t low, uint16_t high)
{
        if (p->high == 0)
                *p = (struct weft_ports) { .low = low, .high = high };
        if (low < p->low)
                p->low = low;
        if (high > p->high)
                p->high = high;
}

static void api_give_out_ports(struct weft_instance *self, uint16_t low, uint16_t high)
{
        widen(&of(self)->given_out, low, high);
}

static void api_node_ports(struct weft_instance *self, uint16_t low, uint16_t high)
{
        widen(&of(self)->node_ports, low, high);
}

/* Where the node's own range leaves nothing above it, they overlap: the engine then tracks the
 * node's own connections from there. */
static void api_free_ports(struct weft_instance *self, uint16_t *ret_low, uint16_t *ret_high)
{
        _cleanup_fclose_ FILE *f = fopen(PORT_RANGE_FILE, "re");
        unsigned low, high;

        (void) self;

        if (!f || fscanf(f, "%u %u", &low, &high) != 2 || high > UINT16_MAX - 1024)
                high = PORT_RANGE_DEFAULT_HIGH;

        *ret_low = (uint16_t) (high + 1);
        *ret_high = UINT16_MAX;
}

static bool same_prefix(const struct weft_prefix *a, const struct weft_prefix *b)
{
        return a->len == b->len && memcmp(&a->addr, &b->addr, sizeof(a->addr)) == 0;
}

static int api_route(struct weft_instance *self, const struct weft_prefix *prefix,
                     const struct weft_addr *gateway, struct weft_error *reterr)
{
        struct instance *i = of(self);
        struct weft_prefix *routes;
        int r;

        routes = reallocarray(i->routes, i->n_routes + 1, sizeof(*routes));
        if (!routes)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        i->routes = routes;

        r = i->services->route(i->services->data, prefix, gateway, reterr);
        if (r < 0)
                return r;

        i->routes[i->n_routes++] = *prefix;
        return 0;
}

static void api_unroute(struct weft_instance *self, const struct weft_prefix *prefix)
{
        struct instance *i = of(self);

        for (size_t n = 0; n < i->n_routes; n++)
                if (same_prefix(&i->routes[n], prefix)) {
                        i->services->unroute(i->services->data, prefix);
                        i->routes[n] = i->routes[--i->n_routes];
                        return;
                }
}

static void api_peers(struct weft_instance *self, void (*f)(void *, const struct weft_peer_info *),
                      void *data)
{
        const struct core_services *s = of(self)->services;

        s->peers(s->data, f, data);
}

static void api_cluster_prefixes(struct weft_instance *self,
                                 void (*f)(void *, const struct weft_prefix *), void *data)
{
        const struct core_services *s = of(self)->services;

        s->cluster_prefixes(s->data, f, data);
}

int instance_map(const struct instance *i, const char *name)
{
        int fd;

        if (!i->object)
                return -ENOENT;

        fd = bpf_object__find_map_fd_by_name(i->object, name);
        return fd < 0 ? -ENOENT : fd;
}

static int api_map(struct weft_instance *self, const char *name)
{
        return instance_map(of(self), name);
}

/* ---- nftables, native prefixes ------------------------------------------------------------ */

#define TABLE_NAME_SIZE 64

static void table_name(const struct instance *i, char ret[static TABLE_NAME_SIZE])
{
        (void) snprintf(ret, TABLE_NAME_SIZE, "weft-%s", i->module->desc.name);
}

void instance_drop_table(struct instance *i)
{
        char name[TABLE_NAME_SIZE];

        if (!i->table)
                return;

        table_name(i, name);
        i->services->untable(i->services->data, name, i->table);
        free(i->table);
        i->table = NULL;
}

static int api_nft_table(struct weft_instance *self, const char *body, struct weft_error *reterr)
{
        struct instance *i = of(self);
        _cleanup_free_ char *copy = strdup(body);
        char name[TABLE_NAME_SIZE];
        int r;

        if (!copy)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        table_name(i, name);
        r = i->services->table(i->services->data, name, body, reterr);
        if (r < 0)
                return r;

        instance_drop_table(i);
        i->table = TAKE(copy);
        return 0;
}

static void api_set_native_prefixes(struct weft_instance *self, const struct weft_prefixes *p)
{
        struct instance *i = of(self);
        struct weft_prefixes copy = { 0 };

        for (size_t n = 0; n < p->n; n++)
                if (prefixes_add(&copy, &p->items[n]) < 0)
                        break;

        free(i->native.items);
        i->native = copy;
}

static void api_native_prefixes(struct weft_instance *self,
                                void (*f)(void *, const struct weft_prefix *), void *data)
{
        const struct core_services *s = of(self)->services;
        const struct weft_need *need = of(self)->module->desc.needs;

        for (; need && need->kind; need++) {
                const struct weft_prefixes *p = need->kind == WEFT_NEED_MODULE
                                                        ? s->native_prefixes(s->data, need->name)
                                                        : NULL;

                for (size_t n = 0; p && n < p->n; n++)
                        f(data, &p->items[n]);
        }
}

static int api_runs(struct weft_instance *self, const char *name)
{
        const struct core_services *s = of(self)->services;

        return s->runs(s->data, name);
}

/* ---- tunnels ------------------------------------------------------------------------------ */

static void api_tunnel(struct weft_instance *self, const struct weft_tunnel_spec *spec)
{
        struct instance *i = of(self);

        i->tunnel = *spec;
        if (spec->mode == WEFT_TUNNEL_NONE)
                i->tunnel.mode = probe_has(WEFT_NEED_LINK_KIND, spec->kind) ? WEFT_TUNNEL_DEVICE
                                                                            : WEFT_TUNNEL_ENGINE;
}

static void api_wrap(struct weft_instance *self)
{
        of(self)->wraps = true;
}

static int api_wraps(struct weft_instance *self)
{
        const struct core_services *s = of(self)->services;

        return s->wraps && s->wraps(s->data);
}

static void *api_data(struct weft_instance *self)
{
        return of(self)->data;
}

static void api_set_data(struct weft_instance *self, void *data)
{
        of(self)->data = data;
}

static const char *api_version(struct weft_instance *self)
{
        return of(self)->module->desc.version;
}

const struct weft_api core_api = {
        .size = sizeof(core_api),
        .abi = WEFT_ABI,
        .fail = weft_fail,
        .log = api_log,
        .config = api_config,
        .constant = api_constant,
        .give_out_ports = api_give_out_ports,
        .free_ports = api_free_ports,
        .route = api_route,
        .unroute = api_unroute,
        .peers = api_peers,
        .map = api_map,
        .cluster_prefixes = api_cluster_prefixes,
        .data = api_data,
        .set_data = api_set_data,
        .node_ports = api_node_ports,
        .version = api_version,
        .nft_table = api_nft_table,
        .set_native_prefixes = api_set_native_prefixes,
        .native_prefixes = api_native_prefixes,
        .tunnel = api_tunnel,
        .runs = api_runs,
        .wrap = api_wrap,
        .wraps = api_wraps,
};
