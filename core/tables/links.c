/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uplinks, and a tunnel's device: each is one entry of one map. */

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "tables/internal.h"

int tables_set_link(struct tables *t, uint32_t ifindex, const struct weft_link *link)
{
        int r;

        r = keyset_add(&t->links, &ifindex);
        if (r < 0)
                return r;

        return bpf_map_update_elem(table_fd(t, TABLE_LINKS), &ifindex, link, BPF_ANY);
}

void tables_del_link(struct tables *t, uint32_t ifindex)
{
        (void) bpf_map_delete_elem(table_fd(t, TABLE_LINKS), &ifindex);
        keyset_del(&t->links, &ifindex);
        nexthops_forget_link(t, ifindex);
}

void links_settle(struct tables *t)
{
        _cleanup_free_ uint32_t *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_LINKS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!keyset_has(&t->links, &keys[i]))
                        tables_del_link(t, keys[i]);
}
