/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uplinks and peers: each is one entry of one map. */

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

static void peer_key(const struct weft_prefix *p, struct weft_peer_key *ret)
{
        *ret = (struct weft_peer_key) { .prefixlen = p->len, .addr = p->addr };
}

int tables_set_peer(struct tables *t, const struct weft_prefix *prefix,
                    const struct weft_peer *peer)
{
        int r, fd = table_fd(t, TABLE_PEERS);
        struct weft_peer old, new = *peer;
        struct weft_peer_key key;

        peer_key(prefix, &key);
        r = keyset_add(&t->peers, &key);
        if (r < 0)
                return r;

        /* A lookup is by longest prefix and so may answer for a shorter one: harmless, the number
         * only has to differ from what this key had. */
        if (bpf_map_lookup_elem(fd, &key, &old) == 0) {
                new.number = old.number;
                if (memcmp(&old, &new, sizeof(new)) != 0)
                        new.number++;
        }

        return bpf_map_update_elem(fd, &key, &new, BPF_ANY);
}

void tables_del_peer(struct tables *t, const struct weft_prefix *prefix)
{
        struct weft_peer_key key;

        peer_key(prefix, &key);
        (void) bpf_map_delete_elem(table_fd(t, TABLE_PEERS), &key);
        keyset_del(&t->peers, &key);
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

void peers_settle(struct tables *t)
{
        _cleanup_free_ struct weft_peer_key *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_PEERS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!keyset_has(&t->peers, &keys[i]))
                        (void) bpf_map_delete_elem(table_fd(t, TABLE_PEERS), &keys[i]);
}
