/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of this folder share: the maps themselves and what user space remembers about
 * them. Nothing outside core/tables includes this (but its unit tests). */

#include "tables/keyset.h"
#include "tables/tables.h"
#include "util.h"

#define TABLES(X)                                                                                  \
        X(FLOWS4, "flows4")                                                                        \
        X(FLOWS6, "flows6")                                                                        \
        X(HALF_OPEN4, "half_open4")                                                                \
        X(HALF_OPEN6, "half_open6")                                                                \
        X(NEXTHOPS, "nexthops")                                                                    \
        X(ENDPOINTS, "endpoints")                                                                  \
        X(SERVICES, "services")                                                                    \
        X(SERVICE_SLOTS, "service_slots")                                                          \
        X(BACKENDS, "backends")                                                                    \
        X(MAGLEV, "maglev")                                                                        \
        X(MEMBERS, "members")                                                                      \
        X(PLACED, "placed")                                                                        \
        X(SOURCE_RANGES, "source_ranges")                                                          \
        X(PEERS, "peers")                                                                          \
        X(REMOTES, "remotes")                                                                      \
        X(NODES, "nodes")                                                                          \
        X(OVERLAYS, "overlays")                                                                    \
        X(LINKS, "links")                                                                          \
        X(FILTER, "filter")                                                                        \
        X(WORLD, "world")                                                                          \
        X(FORWARDS, "forwards")                                                                    \
        X(DROPS, "drops")                                                                          \
        X(EVENTS, "events")

enum table {
#define X(id, name) TABLE_##id,
        TABLES(X)
#undef X
                TABLES_N
};

/* What must be equal for one map to stand for another. */
struct layout {
        uint32_t type, key_size, value_size, max_entries, flags;
};

struct shared_map {
        char *name;
        int fd;
        struct layout layout;
        void *memory; /* of BPF_F_MMAPABLE arrays: their elements, 8-byte strides */
        size_t memory_size;
};

/* A place in the walk over one hash map, good for stopping and going on later. */
struct walk {
        int fd;
        uint32_t key_size, value_size, max_entries;
        bool one_by_one; /* kernel without batches */
        bool started, done;
        uint32_t seen;
        unsigned char cursor[64];
        unsigned char *keys, *values; /* of the last piece */
        uint32_t room, n;
};

enum slot_state { SLOT_FREE, SLOT_INHERITED, SLOT_OWNED };

/* Run of entries in service_slots; entries of the services table that point at it hold it. */
struct range {
        uint32_t start, count, refs;
        struct range *next; /* among the retired */
};

/* A table of Maglev hashing; entries of the services table that point at it hold it. */
struct lookup {
        uint32_t number, size, refs;
        struct lookup *next; /* of all, or among the retired */
};

struct live;

struct tables {
        struct shared_map *maps;
        size_t n_maps;
        struct shared_map *by[TABLES_N];
        uint32_t hz;
        bool one_by_one; /* walk without batches */

        uint32_t *filter_counts; /* for each bit: how many keys of the tables need it */

        void *endpoints;     /* tree of struct endpoint, by name */
        void *addresses;     /* tree of struct owned_address */
        uint8_t *hop_states; /* enum slot_state of the slots below WEFT_NEXTHOP_OWN */
        uint32_t hop_cursor;

        void *services;        /* tree of struct service, by name */
        void *service_entries; /* tree of struct service_entry, by key */
        struct keyset service_ids;
        uint32_t service_round; /* moves when all of them are about to be set anew */

        void *backends;                         /* tree of struct backend, by key */
        uint32_t *backend_ring;                 /* removed indices, oldest first */
        uint32_t ring_start, ring_n, ring_safe; /* the first ring_safe may be used again */
        uint32_t backend_top;                   /* first index never used */

        uint8_t *slots_taken; /* of service_slots */
        uint32_t slot_cursor;
        struct range *retired; /* given back, perhaps still read by a running program */

        struct lookup *lookups, *retired_lookups;
        uint32_t last_lookup, n_retired_lookups;

        struct keyset links, peers, nodes; /* set since open */
        struct keyset peers_there;         /* in their table: a lookup finds shorter ones too */
        uint8_t *remotes_taken;            /* of remotes */
        uint32_t remote_cursor;
        struct keyset set_entries[TABLES_N]; /* of service-sets.c, ditto */

        struct live *live; /* for each backend, while a pass of collection counts; NULL: none */
        uint32_t n_live;
        struct walk collection;
        struct flow_counts counting, counted; /* in this pass, in the last one */
        uint8_t collection_family;
        uint32_t collections; /* passes that are complete */
};

/* ---- maps --------------------------------------------------------------------------------- */

static inline int table_fd(const struct tables *t, enum table id)
{
        return t->by[id]->fd;
}

static inline uint32_t table_size(const struct tables *t, enum table id)
{
        return t->by[id]->layout.max_entries;
}

/* Element I of an array that is mapped into memory. */
static inline void *table_at(const struct tables *t, enum table id, uint32_t i)
{
        const struct shared_map *m = t->by[id];

        return (char *) m->memory + (size_t) i * ((m->layout.value_size + 7) & ~7u);
}

/* One store that no program can see the half of; p and from: 8 bytes, p aligned. */
static inline void store64(void *p, const void *from)
{
        typedef uint64_t __attribute__((may_alias)) word;
        word v;

        __builtin_memcpy(&v, from, sizeof(v));
        __atomic_store_n((word *) p, v, __ATOMIC_RELEASE);
}

/* Every key of a hash map, one after the other in one allocation; caller frees. */
int table_keys(const struct tables *t, enum table id, void *ret_keys, size_t *ret_n);

void layout_text(const struct layout *l, char *buf, size_t size);

/* ---- nouns -------------------------------------------------------------------------------- */

/* Counts the endpoints that are in their table (services_adopt() has counted its own), then makes
 * the bits agree with the counts. */
int filter_rebuild(struct tables *t);
void filter_add(struct tables *t, const struct weft_addr *addr, __be16 port, uint8_t proto);
void filter_del(struct tables *t, const struct weft_addr *addr, __be16 port, uint8_t proto);
/* The networks that a prefix covers or lies in. -E2BIG: too many. */
int filter_add_net(struct tables *t, const struct weft_prefix *prefix);
void filter_del_net(struct tables *t, const struct weft_prefix *prefix);
/* Before filter_rebuild(): counts, and stores nothing. */
int filter_count_net(struct tables *t, const struct weft_prefix *prefix);

int nexthops_adopt(struct tables *t);
void nexthops_settle(struct tables *t);
/* A slot for an endpoint: `wanted` if nobody holds it, else a free one. -ENOSPC. */
int nexthop_take(struct tables *t, uint32_t wanted, uint32_t *ret);
/* What does not go to the peer of a device needs the workload's link-layer address; until that is
 * known, the stack, which can ask for it, delivers. */
bool nexthop_can_meet(const struct table_endpoint *e);
void nexthop_write(struct tables *t, uint32_t slot, const struct table_endpoint *e);
void nexthop_release(struct tables *t, uint32_t slot);
void nexthops_forget_link(struct tables *t, uint32_t ifindex);

/* What a predecessor left and nobody set since open goes. */
void links_settle(struct tables *t);
void peers_settle(struct tables *t);
/* What a predecessor left; counts its filter bits. */
int peers_adopt(struct tables *t);
int nodes_adopt(struct tables *t);
void nodes_settle(struct tables *t);
void endpoints_settle(struct tables *t);
void endpoints_done(struct tables *t);

/* One backend of one service: what two services share has two indices, so that each can let go of
 * it alone. */
struct backend_key {
        struct weft_addr addr;
        __be16 port;
        uint8_t proto, zero;
        uint32_t service;
};

struct backend {
        struct backend_key key;
        uint32_t index, refs;
};

int backends_adopt(struct tables *t);
/* The backend of this key with one more reference, its element written. -ENOSPC, -ENOMEM. */
int backend_take(struct tables *t, const struct backend_key *key, struct backend **ret);
struct backend *backend_find(struct tables *t, const struct backend_key *key);
/* Gives one reference back; the last one removes the backend. */
void backend_drop(struct tables *t, struct backend *b);
void backends_settle(struct tables *t);
void backends_done(struct tables *t);

/* A range with these contents written; count may be 0. -ENOSPC. */
int range_new(struct tables *t, const struct weft_service_slot *contents, uint32_t count,
              struct range **ret);
/* The range at this place of the table, found there at open; *ret NULL where it is taken. */
int range_adopt(struct tables *t, uint32_t start, uint32_t count, struct range **ret);
bool range_holds(const struct tables *t, const struct range *r,
                 const struct weft_service_slot *contents, uint32_t count);
struct range *range_ref(struct range *r);
void range_unref(struct tables *t, struct range *r);
void ranges_done(struct tables *t);

/* A lookup table of Maglev hashing in its map, written before anything points at it. -E2BIG,
 * -ENOMEM. */
int lookup_new(struct tables *t, const uint32_t *contents, uint32_t size, struct lookup **ret);
/* Numbers that a predecessor gave are not given again. */
int lookups_adopt(struct tables *t);
/* The one of this number, that an entry points at. */
int lookup_adopt(struct tables *t, uint32_t number, uint32_t size, struct lookup **ret);
struct lookup *lookup_ref(struct lookup *l);
void lookup_unref(struct tables *t, struct lookup *l);
/* What a predecessor left and no entry points at goes. */
void lookups_settle(struct tables *t);
void lookups_done(struct tables *t);

void service_sets_init(struct tables *t);
void service_sets_settle(struct tables *t);
void service_sets_done(struct tables *t);

int services_adopt(struct tables *t);
void services_settle(struct tables *t);
void services_done(struct tables *t);

/* Flows that live, as the counters of the moment say. */
static inline uint32_t live_of(const struct weft_backend *b)
{
        int32_t live = __atomic_load_n(&b->opened, __ATOMIC_RELAXED) -
                       __atomic_load_n(&b->closed, __ATOMIC_RELAXED);

        return live < 0 ? 0 : live;
}

/* Counting of the flows of each backend in one pass over them all. */
void live_begin(struct tables *t);
void live_see(struct tables *t, const struct weft_flow *f, uint64_t now);
void live_end(struct tables *t);
/* The pass was not complete: the counters stay as they are. */
void live_forget(struct tables *t);

void walk_begin(const struct tables *t, enum table id, struct walk *w);
/* The next piece, at most max entries, in w->keys, w->values, w->n; w->done after the last. */
int walk_next(struct walk *w, uint32_t max);
void walk_done(struct walk *w);

/* The two flow tables, so that one code serves both. */
struct family {
        enum table table;
        uint32_t key_size, value_size;
        void (*partner)(const void *flow, void *ret_key);
        void (*view)(const void *flow, struct flow_view *ret);
};
extern const struct family flow_families[2];

/* Past its deadline, and so absent for every lookup of the datapath that begins after `now`. */
static inline bool flow_expired(const struct weft_flow *f, uint64_t now)
{
        return (int64_t) (now - f->deadline) > 0;
}
