/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "config/config.h"
#include "config/values.h"

void config_peer_info(const struct config_peer *p, struct weft_peer_info *ret)
{
        *ret = (struct weft_peer_info) {
                .name = p->name,
                .pod_cidrs = p->pod_cidr.items,
                .n_pod_cidrs = p->pod_cidr.n,
        };

        for (size_t i = p->address.n; i > 0; i--) {
                const struct weft_addr *a = &p->address.items[i - 1];

                *(address_is_ipv4(a) ? &ret->node4 : &ret->node6) = *a;
        }
}

bool config_routes_by_peer(const struct config *c)
{
        for (size_t i = 0; i < c->n_peers; i++)
                if (c->peers[i].routing != ROUTING_AUTO)
                        return true;

        return false;
}

void config_each_peer(const struct config *c, void (*f)(void *, const struct weft_peer_info *),
                      void *data)
{
        for (size_t i = 0; i < c->n_peers; i++) {
                struct weft_peer_info info;

                config_peer_info(&c->peers[i], &info);
                f(data, &info);
        }
}

static void each_prefix(const struct weft_prefixes *p,
                        void (*f)(void *, const struct weft_prefix *), void *f_data)
{
        for (size_t i = 0; i < p->n; i++)
                f(f_data, &p->items[i]);
}

void config_each_cluster_prefix(const struct config *c,
                                void (*f)(void *, const struct weft_prefix *), void *data)
{
        each_prefix(&c->node.pod_cidr, f, data);
        for (size_t i = 0; i < c->n_peers; i++) {
                const struct config_peer *p = &c->peers[i];

                each_prefix(&p->pod_cidr, f, data);
                for (size_t k = 0; k < p->address.n; k++)
                        f(data, &(struct weft_prefix) { p->address.items[k], 128 });
        }
}
