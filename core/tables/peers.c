/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Peers: prefixes that lead to other nodes, and the nodes themselves as the ends of tunnels, which
 * flows know by their index. */

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "config/values.h"
#include "tables/internal.h"

/* ---- prefixes ----------------------------------------------------------------------------- */

static void peer_key(const struct weft_prefix *p, struct weft_peer_key *ret)
{
        *ret = (struct weft_peer_key) { .prefixlen = p->len, .addr = p->addr };
}

/* Do pods live there that the stack's packets reach through a tunnel? */
static bool has_net(const struct weft_peer *peer)
{
        return peer->flags & WEFT_PEER_TUNNEL && !(peer->flags & WEFT_PEER_NODE);
}

static bool find_peer(const struct tables *t, const struct weft_peer_key *key,
                      struct weft_peer *ret)
{
        return keyset_has(&t->peers_there, key) &&
               bpf_map_lookup_elem(table_fd(t, TABLE_PEERS), key, ret) == 0;
}

static int put_peer(struct tables *t, const struct weft_peer_key *key, const struct weft_peer *p)
{
        int r = keyset_add(&t->peers_there, key);

        return r < 0 ? r : bpf_map_update_elem(table_fd(t, TABLE_PEERS), key, p, BPF_ANY);
}

int tables_set_peer(struct tables *t, const struct weft_prefix *prefix,
                    const struct weft_peer *peer)
{
        struct weft_peer old = { 0 }, new = *peer;
        struct weft_peer_key key;
        bool there;
        int r;

        peer_key(prefix, &key);
        r = keyset_add(&t->peers, &key);
        if (r < 0)
                return r;

        there = find_peer(t, &key, &old);
        new.number = old.number;
        if (there && memcmp(&old, &new, sizeof(new)) == 0)
                return 0;
        new.number += there;

        r = has_net(&new) && !has_net(&old) ? filter_add_net(t, prefix) : 0;
        if (r == 0)
                r = put_peer(t, &key, &new);
        if (r == 0 && has_net(&old) && !has_net(&new))
                filter_del_net(t, prefix);

        return r;
}

static void remove_peer(struct tables *t, const struct weft_peer_key *key)
{
        const struct weft_prefix prefix = { .addr = key->addr, .len = key->prefixlen };
        struct weft_peer old;

        if (!find_peer(t, key, &old))
                return;

        (void) bpf_map_delete_elem(table_fd(t, TABLE_PEERS), key);
        keyset_del(&t->peers_there, key);
        if (has_net(&old))
                filter_del_net(t, &prefix);
}

void tables_del_peer(struct tables *t, const struct weft_prefix *prefix)
{
        struct weft_peer_key key;

        peer_key(prefix, &key);
        remove_peer(t, &key);
        keyset_del(&t->peers, &key);
}

int peers_adopt(struct tables *t)
{
        _cleanup_free_ struct weft_peer_key *keys = NULL;
        struct weft_peer peer;
        size_t n = 0;
        int r = table_keys(t, TABLE_PEERS, &keys, &n);

        for (size_t i = 0; r == 0 && i < n; i++) {
                const struct weft_prefix prefix = { .addr = keys[i].addr,
                                                    .len = keys[i].prefixlen };

                r = keyset_add(&t->peers_there, &keys[i]);
                if (r == 0 && find_peer(t, &keys[i], &peer) && has_net(&peer))
                        r = filter_count_net(t, &prefix);
        }

        return r;
}

void peers_settle(struct tables *t)
{
        _cleanup_free_ struct weft_peer_key *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_PEERS, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!keyset_has(&t->peers, &keys[i]))
                        remove_peer(t, &keys[i]);
}

/* ---- nodes -------------------------------------------------------------------------------- */

static struct weft_remote *remote_at(const struct tables *t, uint32_t index)
{
        return table_at(t, TABLE_REMOTES, index);
}

static bool find_node(const struct tables *t, const struct weft_addr *node, uint32_t *ret)
{
        return bpf_map_lookup_elem(table_fd(t, TABLE_NODES), node, ret) == 0;
}

/* The one that was not used for longest. 0: none is free. */
static uint32_t free_remote(struct tables *t)
{
        uint32_t size = table_size(t, TABLE_REMOTES);

        for (uint32_t i = 0; i < size; i++) {
                t->remote_cursor = (t->remote_cursor + 1) % size;
                if (t->remote_cursor != 0 && !t->remotes_taken[t->remote_cursor])
                        return t->remote_cursor;
        }

        return 0;
}

void tunnel_mac(const struct weft_addr *node, uint8_t ret[static 6])
{
        const uint8_t *b = (const uint8_t *) node;

        ret[0] = 0x02;
        ret[1] = 0x57;
        for (int i = 0; i < 4; i++)
                ret[2 + i] =
                        address_is_ipv4(node) ? b[12 + i] : b[i] ^ b[4 + i] ^ b[8 + i] ^ b[12 + i];
}

int tables_set_node(struct tables *t, const struct weft_addr *node, uint32_t *ret)
{
        struct weft_remote *r;
        uint32_t index;
        int k = keyset_add(&t->nodes, node);

        if (k < 0 || find_node(t, node, ret))
                return k;

        index = free_remote(t);
        if (index == 0)
                return -ENOSPC;

        r = remote_at(t, index);
        r->epoch = 0;
        r->route.word = 0;
        r->node = *node;
        tunnel_mac(node, r->mac);
        (void) __atomic_add_fetch(&r->number, 1, __ATOMIC_RELEASE);

        k = bpf_map_update_elem(table_fd(t, TABLE_NODES), node, &index, BPF_ANY);
        if (k < 0)
                return k;

        t->remotes_taken[index] = 1;
        *ret = index;
        return 0;
}

void tables_del_node(struct tables *t, const struct weft_addr *node)
{
        uint32_t index;

        keyset_del(&t->nodes, node);
        if (!find_node(t, node, &index))
                return;

        (void) bpf_map_delete_elem(table_fd(t, TABLE_NODES), node);
        (void) __atomic_add_fetch(&remote_at(t, index)->number, 1, __ATOMIC_RELEASE);
        t->remotes_taken[index] = 0;
}

int nodes_adopt(struct tables *t)
{
        _cleanup_free_ struct weft_addr *keys = NULL;
        uint32_t index;
        size_t n = 0;
        int r = table_keys(t, TABLE_NODES, &keys, &n);

        for (size_t i = 0; r == 0 && i < n; i++)
                if (find_node(t, &keys[i], &index) && index < table_size(t, TABLE_REMOTES))
                        t->remotes_taken[index] = 1;

        return r;
}

void nodes_settle(struct tables *t)
{
        _cleanup_free_ struct weft_addr *keys = NULL;
        size_t n = 0;

        if (table_keys(t, TABLE_NODES, &keys, &n) < 0)
                return;

        for (size_t i = 0; i < n; i++)
                if (!keyset_has(&t->nodes, &keys[i]))
                        tables_del_node(t, &keys[i]);
}

/* ---- the tunnel itself -------------------------------------------------------------------- */

void tables_set_overlay(struct tables *t, uint32_t index, const struct weft_overlay *o)
{
        *(struct weft_overlay *) table_at(t, TABLE_OVERLAYS, index % WEFT_OVERLAYS) = *o;
}
