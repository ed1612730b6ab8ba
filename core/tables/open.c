/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Making, pinning and taking over the maps. Their definitions are those of the engine's object, so
 * that there is no second list of types and sizes. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>

#include <bpf/bpf.h>

#include "tables/internal.h"

#define RAM_PER_FLOW (64 << 10)
#define FLOWS_MIN (16 << 10)
#define FLOWS_MAX (1 << 20)
#define SMALL_ENTRIES 1024

static const char *const table_names[] = {
#define X(id, name) name,
        TABLES(X)
#undef X
};

static void close_object(struct bpf_object **o)
{
        bpf_object__close(*o);
}

static void closep_tables(struct tables **t)
{
        tables_close(*t);
}

/* ---- layouts ------------------------------------------------------------------------------ */

/* "type 1, key 16, value 120, 65536 entries, flags 0x0" */
void layout_text(const struct layout *l, char *buf, size_t size)
{
        (void) snprintf(buf, size, "type %u, key %u, value %u, %u entries, flags 0x%x", l->type,
                        l->key_size, l->value_size, l->max_entries, l->flags);
}

static int layout_of_fd(int fd, struct layout *ret)
{
        struct bpf_map_info info = {};
        uint32_t size = sizeof(info);

        if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                return -errno;

        *ret = (struct layout) { info.type, info.key_size, info.value_size, info.max_entries,
                                 info.map_flags };
        return 0;
}

static void layout_of_definition(const struct bpf_map *m, struct layout *ret)
{
        *ret = (struct layout) { bpf_map__type(m), bpf_map__key_size(m), bpf_map__value_size(m),
                                 bpf_map__max_entries(m), bpf_map__map_flags(m) };
}

static bool is_flow_table(const char *name)
{
        return strncmp(name, "flows", 5) == 0 || strncmp(name, "half_open", 9) == 0;
}

/* Is `here` good for a map that is defined as `wanted`? any_size: whatever its size;
 * may_have_grown: also where it holds more than a stage's author knew of. */
static int check_layout(const char *name, const struct layout *here, const struct layout *wanted,
                        bool any_size, bool may_have_grown, struct weft_error *reterr)
{
        struct layout expected = *wanted;
        char one[96], other[96];

        if (any_size)
                expected.max_entries = here->max_entries;
        if (may_have_grown && here->value_size > wanted->value_size)
                expected.value_size = here->value_size;
        if (memcmp(here, &expected, sizeof(expected)) == 0)
                return 0;

        layout_text(here, one, sizeof(one));
        layout_text(&expected, other, sizeof(other));
        return weft_fail(reterr, -EUCLEAN,
                         "map %s is pinned with another layout: there: %s; needed: %s. "
                         "'weftctl cleanup' removes it, with every flow",
                         name, one, other);
}

/* ---- the object's definitions ------------------------------------------------------------- */

/* Maps of one generation or of one object are not shared. */
static bool is_shared(const struct bpf_map *m)
{
        const char *name = bpf_map__name(m);

        return !bpf_map__is_internal(m) && strcmp(name, "chain") != 0 &&
               strcmp(name, "scratch") != 0;
}

static uint32_t power_of_two_below(uint64_t n)
{
        while (n & (n - 1))
                n &= n - 1;

        return n;
}

static uint32_t flows_by_ram(void)
{
        struct sysinfo s = {};
        uint64_t n;

        (void) sysinfo(&s);
        n = (uint64_t) s.totalram * s.mem_unit / RAM_PER_FLOW;
        return n < FLOWS_MIN ? FLOWS_MIN : n > FLOWS_MAX ? FLOWS_MAX : power_of_two_below(n);
}

/* Room for a handful of objects; what code indexes with a constant stays as large as it is. */
static int set_small_size(struct bpf_map *m)
{
        static const char *const large[] = { "nexthops", "filter", "world", "forwards", "events" };

        for (size_t i = 0; i < ELEMENTS(large); i++)
                if (strcmp(bpf_map__name(m), large[i]) == 0)
                        return 0;

        return bpf_map__set_max_entries(m, SMALL_ENTRIES);
}

static int set_size(struct bpf_map *m, const struct tables_settings *s)
{
        uint64_t size = s->flow_table_size ? s->flow_table_size : flows_by_ram();
        bool flows = is_flow_table(bpf_map__name(m));

        if (s->small && (!flows || s->flow_table_size == 0))
                return set_small_size(m);
        if (!flows)
                return 0;
        if (size > UINT32_MAX)
                return -ERANGE;
        if (strncmp(bpf_map__name(m), "flows", 5) == 0)
                return bpf_map__set_max_entries(m, size);

        return bpf_map__set_max_entries(m, size / 4 ? size / 4 : 1);
}

/* A map that a predecessor pinned is used if it fits. */
static int adopt_pinned(struct bpf_map *m, const char *path, struct weft_error *reterr)
{
        _cleanup_close_ int fd = bpf_obj_get(path);
        struct layout here, wanted;
        int r;

        if (fd < 0)
                return fd == -ENOENT ? 0 : weft_fail(reterr, fd, "%s: %s", path, strerror(-fd));

        r = layout_of_fd(fd, &here);
        if (r < 0)
                return weft_fail(reterr, r, "%s: %s", path, strerror(-r));

        layout_of_definition(m, &wanted);
        r = check_layout(bpf_map__name(m), &here, &wanted, is_flow_table(bpf_map__name(m)), false,
                         reterr);
        if (r < 0)
                return r;

        r = bpf_map__reuse_fd(m, fd);
        return r < 0 ? weft_fail(reterr, r, "%s: %s", path, strerror(-r)) : 0;
}

static int pin_path(const struct tables_settings *s, const char *name, char *buf, size_t size,
                    struct weft_error *reterr)
{
        int n = snprintf(buf, size, "%s/maps/%s", s->bpffs, name);

        return n > 0 && (size_t) n < size
                       ? 0
                       : weft_fail(reterr, -ENAMETOOLONG, "%s: path too long", s->bpffs);
}

static int prepare_map(struct bpf_map *m, const struct tables_settings *s,
                       struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        if (!is_shared(m))
                return bpf_map__set_autocreate(m, false);
        if (s->dry)
                return set_size(m, s);

        r = pin_path(s, bpf_map__name(m), path, sizeof(path), reterr);
        if (r < 0)
                return r;

        r = set_size(m, s);
        if (r < 0)
                return weft_fail(reterr, r, "flow-table-size = %llu: %s",
                                 (unsigned long long) s->flow_table_size, strerror(-r));

        return adopt_pinned(m, path, reterr);
}

static int make_map(struct bpf_map *m)
{
        LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = bpf_map__map_flags(m));
        _cleanup_close_ int fd =
                bpf_map_create(bpf_map__type(m), bpf_map__name(m), bpf_map__key_size(m),
                               bpf_map__value_size(m), bpf_map__max_entries(m), &opts);

        return fd < 0 ? fd : bpf_map__reuse_fd(m, fd);
}

/* As bpf_object__load() would, but for their BTF, by which nobody looks at these. */
static int make_dry_maps(struct bpf_object *o)
{
        struct bpf_map *m;
        int r = 0;

        bpf_object__for_each_map (m, o)
                if (r >= 0 && is_shared(m))
                        r = make_map(m);

        return r;
}

/* A predecessor left every one of them. */
static bool all_are_there(const struct bpf_object *o)
{
        struct bpf_map *m;

        bpf_object__for_each_map (m, o)
                if (is_shared(m) && bpf_map__fd(m) < 0)
                        return false;

        return true;
}

/* Only the maps of the object, no program. To load it is to read the kernel's types, too, which
 * takes longer than all else: where there is nothing to make it is left be. */
static int load_maps(struct bpf_object *o, const struct tables_settings *s,
                     struct weft_error *reterr)
{
        struct bpf_program *p;
        struct bpf_map *m;
        int r;

        bpf_object__for_each_program (p, o)
                bpf_program__set_autoload(p, false);

        bpf_object__for_each_map (m, o) {
                r = prepare_map(m, s, reterr);
                if (r < 0)
                        return r;
        }

        r = s->dry ? make_dry_maps(o) : 0;
        if (r >= 0 && !all_are_there(o))
                r = bpf_object__load(o);
        if (r < 0)
                return weft_fail(reterr, r, "tables cannot be made: %s", strerror(-r));

        return 0;
}

static int pin_map(struct bpf_map *m, const struct tables_settings *s, struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        r = pin_path(s, bpf_map__name(m), path, sizeof(path), reterr);
        if (r < 0)
                return r;

        r = bpf_obj_pin(bpf_map__fd(m), path);
        if (r < 0 && r != -EEXIST)
                return weft_fail(reterr, r, "%s: cannot pin: %s", path, strerror(-r));

        return 0;
}

/* ---- our own view of them ----------------------------------------------------------------- */

static int map_memory(struct shared_map *m)
{
        size_t size = (size_t) m->layout.max_entries * ((m->layout.value_size + 7) & ~7u);

        m->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
        if (m->memory == MAP_FAILED) {
                m->memory = NULL;
                return -errno;
        }

        m->memory_size = size;
        return 0;
}

static int keep_map(struct tables *t, struct bpf_map *m)
{
        struct shared_map *s = &t->maps[t->n_maps];
        int r;

        *s = (struct shared_map) { .fd = fcntl(bpf_map__fd(m), F_DUPFD_CLOEXEC, 3) };
        if (s->fd < 0)
                return -errno;

        t->n_maps++;
        s->name = strdup(bpf_map__name(m));
        if (!s->name)
                return -ENOMEM;

        r = layout_of_fd(s->fd, &s->layout);
        if (r < 0)
                return r;

        return s->layout.flags & BPF_F_MMAPABLE ? map_memory(s) : 0;
}

static int keep_maps(struct tables *t, struct bpf_object *o, const struct tables_settings *s,
                     struct weft_error *reterr)
{
        struct bpf_map *m;
        size_t n = 0;
        int r;

        bpf_object__for_each_map (m, o)
                n++;

        t->maps = calloc(n + 1, sizeof(*t->maps));
        if (!t->maps)
                return -ENOMEM;

        bpf_object__for_each_map (m, o) {
                if (!is_shared(m))
                        continue;

                r = s->dry ? 0 : pin_map(m, s, reterr);
                if (r < 0)
                        return r;

                r = keep_map(t, m);
                if (r < 0)
                        return weft_fail(reterr, r, "map %s: %s", bpf_map__name(m), strerror(-r));
        }

        return 0;
}

static struct shared_map *find_map(const struct tables *t, const char *name)
{
        for (size_t i = 0; i < t->n_maps; i++)
                if (strcmp(t->maps[i].name, name) == 0)
                        return &t->maps[i];

        return NULL;
}

static bool needs_memory(enum table id)
{
        return id == TABLE_NEXTHOPS || id == TABLE_SERVICE_SLOTS || id == TABLE_BACKENDS ||
               id == TABLE_FILTER || id == TABLE_WORLD || id == TABLE_REMOTES ||
               id == TABLE_OVERLAYS;
}

static int find_tables(struct tables *t, struct weft_error *reterr)
{
        for (size_t i = 0; i < TABLES_N; i++) {
                t->by[i] = find_map(t, table_names[i]);
                if (!t->by[i])
                        return weft_fail(reterr, -EINVAL, "the engine defines no map %s",
                                         table_names[i]);
                if (needs_memory(i) && !t->by[i]->memory)
                        return weft_fail(reterr, -EINVAL, "map %s of the engine is not mmapable",
                                         table_names[i]);
        }

        return 0;
}

static int make_memory(struct tables *t)
{
        t->filter_counts = calloc((size_t) WEFT_FILTER_WORDS * 64, sizeof(*t->filter_counts));
        t->hop_states = calloc(WEFT_NEXTHOP_OWN, sizeof(*t->hop_states));
        t->backend_ring = calloc(table_size(t, TABLE_BACKENDS), sizeof(*t->backend_ring));
        t->slots_taken = calloc(table_size(t, TABLE_SERVICE_SLOTS), sizeof(*t->slots_taken));
        service_sets_init(t);
        t->service_ids.size = sizeof(uint32_t);
        t->links.size = sizeof(uint32_t);
        t->peers.size = t->peers_there.size = sizeof(struct weft_peer_key);
        t->nodes.size = sizeof(struct weft_addr);
        t->remotes_taken = calloc(table_size(t, TABLE_REMOTES), sizeof(*t->remotes_taken));

        return t->filter_counts && t->hop_states && t->backend_ring && t->slots_taken &&
                               t->remotes_taken
                       ? 0
                       : -ENOMEM;
}

/* What a predecessor left in the tables. */
static int take_over(struct tables *t)
{
        int r;

        r = make_memory(t);
        if (r == 0)
                r = nexthops_adopt(t);
        if (r == 0)
                r = backends_adopt(t);
        if (r == 0)
                r = services_adopt(t);
        if (r == 0)
                r = nodes_adopt(t);
        if (r == 0)
                r = peers_adopt(t);
        if (r == 0)
                r = filter_rebuild(t);

        return r;
}

void tables_settle(struct tables *t)
{
        endpoints_settle(t);
        nexthops_settle(t);
        links_settle(t);
        peers_settle(t);
        nodes_settle(t);
        services_settle(t);
        service_sets_settle(t);
        lookups_settle(t);
        backends_settle(t);
}

/* ---- opening ------------------------------------------------------------------------------ */

/* Kernels before 5.11 count maps against this limit. */
static void lift_memory_limit(void)
{
        (void) setrlimit(RLIMIT_MEMLOCK, &(struct rlimit) { RLIM_INFINITY, RLIM_INFINITY });
}

static int no_bpffs(const char *path, struct weft_error *reterr)
{
        return weft_fail(reterr, -EMEDIUMTYPE,
                         "%s is not on a bpffs; mount one: mount -t bpf bpf %s", path, path);
}

static int make_directory(const char *path, struct weft_error *reterr)
{
        struct statfs fs;

        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
                /* sysfs, where a bpffs is usually mounted, lets nobody make directories. */
                if (errno == EPERM || errno == EACCES)
                        return no_bpffs(path, reterr);
                return weft_fail(reterr, -errno, "%s: cannot make the directory: %s", path,
                                 strerror(errno));
        }

        if (statfs(path, &fs) < 0)
                return weft_fail(reterr, -errno, "%s: %s", path, strerror(errno));
        if ((uint32_t) fs.f_type != BPF_FS_MAGIC)
                return no_bpffs(path, reterr);

        return 0;
}

static int make_pin_directory(const struct tables_settings *s, struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        r = make_directory(s->bpffs, reterr);
        if (r < 0)
                return r;

        r = pin_path(s, "", path, sizeof(path), reterr);
        return r < 0 ? r : make_directory(path, reterr);
}

static int open_object(const void *bytes, size_t size, struct bpf_object **ret,
                       struct weft_error *reterr)
{
        LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "weft");
        struct bpf_object *o;
        int r;

        o = bpf_object__open_mem(bytes, size, &opts);
        r = libbpf_get_error(o);
        if (r < 0)
                return weft_fail(reterr, r, "the engine's object: %s", strerror(-r));

        *ret = o;
        return 0;
}

int tables_open(const struct tables_settings *settings, const void *object, size_t size,
                struct tables **ret, struct weft_error *reterr)
{
        _cleanup_(closep_tables) struct tables *t = calloc(1, sizeof(*t));
        _cleanup_(close_object) struct bpf_object *o = NULL;
        int r;

        if (!t)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        t->hz = settings->hz;
        lift_memory_limit();
        r = settings->dry ? 0 : make_pin_directory(settings, reterr);
        if (r < 0)
                return r;

        r = open_object(object, size, &o, reterr);
        if (r < 0)
                return r;

        r = load_maps(o, settings, reterr);
        if (r < 0)
                return r;

        r = keep_maps(t, o, settings, reterr);
        if (r == 0)
                r = find_tables(t, reterr);
        if (r < 0)
                return r;

        r = take_over(t);
        if (r < 0)
                return weft_fail(reterr, r, "tables cannot be taken over: %s", strerror(-r));

        *ret = TAKE(t);
        return 0;
}

static void close_map(struct shared_map *m)
{
        if (m->memory)
                (void) munmap(m->memory, m->memory_size);
        (void) close(m->fd);
        free(m->name);
}

struct tables *tables_close(struct tables *t)
{
        if (!t)
                return NULL;

        services_done(t);
        endpoints_done(t);
        backends_done(t);
        ranges_done(t);
        lookups_done(t);
        service_sets_done(t);
        keyset_done(&t->links);
        keyset_done(&t->peers);
        keyset_done(&t->peers_there);
        keyset_done(&t->nodes);
        live_forget(t);
        walk_done(&t->collection);
        free(t->filter_counts);
        free(t->hop_states);
        free(t->remotes_taken);
        for (size_t i = 0; i < t->n_maps; i++)
                close_map(&t->maps[i]);
        free(t->maps);
        free(t);

        return NULL;
}

/* ---- for others --------------------------------------------------------------------------- */

int tables_fd(const struct tables *t, const char *name)
{
        struct shared_map *m = find_map(t, name);

        return m ? m->fd : -ENOENT;
}

int tables_share(const struct tables *t, struct bpf_object *o, struct weft_error *reterr)
{
        struct bpf_map *m;

        bpf_object__for_each_map (m, o) {
                struct shared_map *s = is_shared(m) ? find_map(t, bpf_map__name(m)) : NULL;
                struct layout wanted;
                int r;

                if (!s)
                        continue;

                layout_of_definition(m, &wanted);
                r = check_layout(s->name, &s->layout, &wanted, true, true, reterr);
                if (r < 0)
                        return r;

                r = bpf_map__reuse_fd(m, s->fd);
                if (r < 0)
                        return weft_fail(reterr, r, "map %s: %s", s->name, strerror(-r));
        }

        return 0;
}

static void forget_all(int fd, uint32_t key_size)
{
        unsigned char key[64];

        while (key_size <= sizeof(key) && bpf_map_get_next_key(fd, NULL, key) == 0)
                if (bpf_map_delete_elem(fd, key) < 0)
                        return;
}

void tables_forget(const struct tables *t)
{
        forget_all(table_fd(t, TABLE_FLOWS4), sizeof(struct weft_key4));
        forget_all(table_fd(t, TABLE_FLOWS6), sizeof(struct weft_key6));
        forget_all(table_fd(t, TABLE_DROPS), sizeof(struct weft_drop_key));
}

void tables_set_world_flags(struct tables *t, uint32_t flags)
{
        struct weft_world *w = table_at(t, TABLE_WORLD, 0);

        if (__atomic_exchange_n(&w->flags, flags, __ATOMIC_RELEASE) != flags)
                tables_move_epoch(t);
}

void tables_move_epoch(struct tables *t)
{
        struct weft_world *w = table_at(t, TABLE_WORLD, 0);

        (void) __atomic_add_fetch(&w->epoch, 1, __ATOMIC_RELEASE);
}

int table_keys(const struct tables *t, enum table id, void *ret_keys, size_t *ret_n)
{
        uint32_t size = t->by[id]->layout.key_size;
        _cleanup_free_ unsigned char *keys = calloc((size_t) table_size(t, id) + 1, size);
        size_t n = 0;

        if (!keys)
                return -ENOMEM;

        while (n < table_size(t, id) &&
               bpf_map_get_next_key(table_fd(t, id), n ? keys + (n - 1) * size : NULL,
                                    keys + n * size) == 0)
                n++;

        memcpy(ret_keys, &(void *) { TAKE(keys) }, sizeof(void *));
        *ret_n = n;
        return 0;
}
