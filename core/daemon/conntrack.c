/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Connections of pods that a reload leads past the host's stack, or across it again: its conntrack
 * sees them in part. */

#include <stdlib.h>
#include <string.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"

/* A module that comes, goes or changes may lead connections past the stack, or did so; and while
 * the hooks are switched, one direction alone. */
static bool keeps_modules(const struct build *b, const struct build *old)
{
        bool kept = b->n_instances == old->n_instances;

        for (size_t i = 0; kept && i < b->n_instances; i++)
                kept = b->changes[i] == INSTANCE_KEPT;

        return kept;
}

static void add_all(struct weft_prefixes *ret, const struct weft_prefixes *more)
{
        for (size_t i = 0; i < more->n; i++)
                (void) prefixes_add(ret, &more->items[i]);
}

static int compare(const void *a, const void *b)
{
        return memcmp(a, b, sizeof(struct weft_addr));
}

/* Where pods are, of this node and of others: apart from one another, in order. */
static void pods(struct daemon *d, struct weft_prefixes *ret)
{
        const struct config *c = d->build->config;

        add_all(ret, &c->node.pod_cidr);
        for (size_t i = 0; i < d->n_endpoints; i++)
                for (size_t k = 0; k < d->endpoints[i].addrs.n; k++) {
                        const struct weft_addr *a = &d->endpoints[i].addrs.items[k];

                        if (!any_prefix_contains(c->node.pod_cidr.items, c->node.pod_cidr.n, a))
                                (void) prefixes_add(ret, &(struct weft_prefix) { *a, 128 });
                }
        for (size_t i = 0; i < c->n_peers; i++)
                add_all(ret, &c->peers[i].pod_cidr);
        if (ret->n > 0)
                qsort(ret->items, ret->n, sizeof(*ret->items), compare);
}

static bool is_pod(void *data, const struct weft_addr *a)
{
        const struct weft_prefixes *list = data;
        size_t low = 0, high = list->n;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (compare(&list->items[middle].addr, a) <= 0)
                        low = middle + 1;
                else
                        high = middle;
        }

        return low > 0 && prefix_contains(&list->items[low - 1], a);
}

void daemon_conntrack_follow(struct daemon *d, const struct build *b)
{
        struct weft_prefixes list = { 0 };
        struct weft_error why = { 0 };

        if (keeps_modules(b, d->build))
                return;

        pods(d, &list);
        if (net_conntrack_no_windows(is_pod, &list, &why) < 0)
                log_notice("connections that went past conntrack may be invalid to it: %s",
                           why.text);
        free(list.items);
}
