/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "generation/maps.h"
#include "util.h"

#define TAG "weft.map:"

/* ---- what the BTF says -------------------------------------------------------------------- */

static int read_tag(const char *map, const char *value, struct map_tag *ret,
                    struct weft_error *reterr)
{
        unsigned version;
        int end = 0;

        if (strcmp(value, "CONFIG") == 0)
                *ret = (struct map_tag) { .class = MAP_CONFIG };
        else if (strcmp(value, "STATS") == 0)
                *ret = (struct map_tag) { .class = MAP_STATS };
        else if (sscanf(value, "STATE.%u%n", &version, &end) == 1 && value[end] == '\0')
                *ret = (struct map_tag) { .class = MAP_STATE, .version = version };
        else
                return weft_fail(reterr, -EINVAL, "map %s: there is no map class %s", map, value);

        return 0;
}

int map_tag_read(const struct bpf_object *o, const char *map, struct map_tag *ret,
                 struct weft_error *reterr)
{
        const struct btf *btf = bpf_object__btf(o);

        *ret = (struct map_tag) { .class = MAP_CONFIG };
        for (uint32_t i = 1; btf && i < btf__type_cnt(btf); i++) {
                const struct btf_type *t = btf__type_by_id(btf, i), *owner;
                const char *text = btf__name_by_offset(btf, t->name_off);

                if (!btf_is_decl_tag(t) || strncmp(text, TAG, strlen(TAG)) != 0)
                        continue;

                owner = btf__type_by_id(btf, t->type);
                if (btf_is_var(owner) &&
                    strcmp(btf__name_by_offset(btf, owner->name_off), map) == 0)
                        return read_tag(map, text + strlen(TAG), ret, reterr);
        }

        return 0;
}

#define DRY_ENTRIES 1024

int map_make_dry(const struct bpf_object *o, struct bpf_map *map, struct weft_error *reterr)
{
        enum bpf_map_type type = bpf_map__type(map);
        struct map_tag tag;
        int r = map_tag_read(o, bpf_map__name(map), &tag, reterr);

        if (r < 0 || tag.class == MAP_CONFIG || bpf_map__max_entries(map) <= DRY_ENTRIES)
                return r;
        if (type != BPF_MAP_TYPE_HASH && type != BPF_MAP_TYPE_LRU_HASH)
                return 0; /* code may know the size of an array */

        return bpf_map__set_max_entries(map, DRY_ENTRIES);
}

static bool is_hash(enum bpf_map_type type)
{
        return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
               type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
               type == BPF_MAP_TYPE_LPM_TRIE;
}

static void empty(const struct bpf_map *map)
{
        _cleanup_free_ void *key = malloc(bpf_map__key_size(map));
        int fd = bpf_map__fd(map);

        while (key && bpf_map_get_next_key(fd, NULL, key) == 0)
                if (bpf_map_delete_elem(fd, key) < 0)
                        return;
}

void maps_forget(const struct bpf_object *o)
{
        struct bpf_map *map;
        struct map_tag tag;

        bpf_object__for_each_map (map, o)
                if (is_hash(bpf_map__type(map)) && !bpf_map__is_internal(map) &&
                    map_tag_read(o, bpf_map__name(map), &tag, NULL) >= 0 && tag.class != MAP_CONFIG)
                        empty(map);
}

/* ---- pins --------------------------------------------------------------------------------- */

/* "MAP-VERSION-GENERATION"; C names have no '-'. */
static bool parse_pin(const char *pin, const char *map, unsigned *ret_version,
                      uint32_t *ret_generation)
{
        size_t n = strlen(map);
        int end = 0;

        return strncmp(pin, map, n) == 0 &&
               sscanf(pin + n, "-%u-%u%n", ret_version, ret_generation, &end) == 2 &&
               pin[n + end] == '\0';
}

struct found {
        char *pin;
        unsigned version;
        uint32_t generation;
};

/* The youngest pin of the map; found->pin stays NULL where there is none. */
static int find_pin(const char *directory, const char *map, struct found *ret)
{
        DIR *d = opendir(directory);
        struct dirent *e;
        int r = 0;

        while (r == 0 && d && (e = readdir(d))) {
                struct found f = { 0 };

                if (!parse_pin(e->d_name, map, &f.version, &f.generation) ||
                    (ret->pin && f.generation < ret->generation))
                        continue;

                f.pin = strdup(e->d_name);
                free(ret->pin);
                *ret = f;
                r = f.pin ? 0 : -ENOMEM;
        }

        if (d)
                (void) closedir(d);
        return r;
}

static int make_directory(const char *path, struct weft_error *reterr)
{
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return weft_fail(reterr, -errno, "%s: cannot make the directory: %s", path,
                                 strerror(errno));

        return 0;
}

/* ---- layouts ------------------------------------------------------------------------------ */

struct layout {
        uint32_t type, key_size, value_size, max_entries, flags;
};

static void layout_text(const struct layout *l, unsigned version, char *ret, size_t size)
{
        (void) snprintf(ret, size, "version %u (type %u, key %u, value %u, %u entries, flags 0x%x)",
                        version, l->type, l->key_size, l->value_size, l->max_entries, l->flags);
}

static int layout_of_fd(int fd, struct layout *ret)
{
        struct bpf_map_info info = { 0 };
        uint32_t size = sizeof(info);

        if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                return -errno;

        *ret = (struct layout) { info.type, info.key_size, info.value_size, info.max_entries,
                                 info.map_flags };
        return 0;
}

static struct layout layout_of_map(const struct bpf_map *m)
{
        return (struct layout) { bpf_map__type(m), bpf_map__key_size(m), bpf_map__value_size(m),
                                 bpf_map__max_entries(m), bpf_map__map_flags(m) };
}

/* ---- using what is pinned ----------------------------------------------------------------- */

static int add(struct lasting_maps *l, const char *name, struct lasting_map **ret)
{
        struct lasting_map *grown = reallocarray(l->items, l->n + 1, sizeof(*grown));

        if (!grown)
                return -ENOMEM;

        l->items = grown;
        grown[l->n] = (struct lasting_map) { .name = strdup(name), .old_fd = -1 };
        if (!grown[l->n].name)
                return -ENOMEM;

        *ret = &grown[l->n++];
        return 0;
}

static int make_fresh(struct lasting_map *m, const struct map_tag *tag, uint32_t generation)
{
        m->fresh = true;
        return asprintf(&m->pin, "%s-%u-%u", m->name, tag->version, generation) < 0 ? -ENOMEM : 0;
}

/* What is pinned is another version or has another layout. */
static int refuse(const struct instance *i, const struct lasting_map *m, const struct layout *there,
                  const struct layout *wanted, unsigned version, struct weft_error *reterr)
{
        char one[128], other[128];

        layout_text(there, m->old_version, one, sizeof(one));
        layout_text(wanted, version, other, sizeof(other));
        return weft_fail(reterr, -EUCLEAN,
                         "map %s holds state of %s, this build of module %s has %s and no "
                         "migration; go back to "
                         "the other build, or take the module out and in again, without its state",
                         m->name, one, i->module->desc.name, other);
}

/* fd: the pinned map; taken over by m, or used by map. */
static int use_pinned(struct lasting_map *m, const struct instance *i, const struct map_tag *tag,
                      struct found *f, int fd, struct bpf_map *map, uint32_t generation,
                      struct weft_error *reterr)
{
        struct layout there, wanted = layout_of_map(map);
        int r = layout_of_fd(fd, &there);

        if (r < 0)
                return weft_fail(reterr, r, "map %s: %s", m->name, strerror(-r));

        m->old_version = f->version;
        if (f->version == tag->version && memcmp(&there, &wanted, sizeof(there)) == 0) {
                m->pin = TAKE(f->pin);
                return bpf_map__reuse_fd(map, fd);
        }
        if (!i->module->desc.migrate)
                return refuse(i, m, &there, &wanted, tag->version, reterr);

        m->old_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return m->old_fd < 0 ? -errno : make_fresh(m, tag, generation);
}

static int look_and_share(struct lasting_maps *l, struct lasting_map *m, const struct instance *i,
                          const struct map_tag *tag, struct bpf_map *map, uint32_t generation,
                          struct weft_error *reterr)
{
        _cleanup_close_ int fd = -1;
        struct found f = { 0 };
        char path[PATH_MAX];
        int r;

        r = find_pin(l->directory, m->name, &f);
        if (r < 0 || !f.pin)
                return r < 0 ? r : make_fresh(m, tag, generation);

        (void) snprintf(path, sizeof(path), "%s/%s", l->directory, f.pin);
        fd = bpf_obj_get(path);
        r = fd < 0 ? weft_fail(reterr, fd, "%s: %s", path, strerror(-fd))
                   : use_pinned(m, i, tag, &f, fd, map, generation, reterr);
        free(f.pin);
        return r;
}

int lasting_map_share(struct lasting_maps *l, const char *bpffs, const struct instance *i,
                      uint32_t generation, const struct bpf_object *o, struct bpf_map *map,
                      struct weft_error *reterr)
{
        struct lasting_map *m;
        struct map_tag tag;
        int r;

        r = map_tag_read(o, bpf_map__name(map), &tag, reterr);
        if (r < 0 || tag.class == MAP_CONFIG)
                return r;

        if (!l->directory &&
            asprintf(&l->directory, "%s/modules/%s", bpffs, i->module->desc.name) < 0) {
                l->directory = NULL;
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        r = add(l, bpf_map__name(map), &m);
        return r < 0 ? weft_fail(reterr, r, "out of memory")
                     : look_and_share(l, m, i, &tag, map, generation, reterr);
}

int lasting_maps_migrate(const struct lasting_maps *l, struct instance *i,
                         const struct bpf_object *o, struct weft_error *reterr)
{
        int r = 0;

        for (size_t n = 0; r >= 0 && n < l->n; n++) {
                const struct lasting_map *m = &l->items[n];

                if (m->old_fd >= 0)
                        r = instance_migrate(i, m->name, m->old_version, m->old_fd,
                                             bpf_object__find_map_fd_by_name(o, m->name), reterr);
        }

        return r;
}

/* ---- pinning ------------------------------------------------------------------------------ */

static int make_directories(const struct lasting_maps *l, const char *bpffs,
                            struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        (void) snprintf(path, sizeof(path), "%s/modules", bpffs);
        r = make_directory(path, reterr);
        return r < 0 ? r : make_directory(l->directory, reterr);
}

int lasting_maps_pin(const struct lasting_maps *l, const char *bpffs, const struct bpf_object *o,
                     struct weft_error *reterr)
{
        int r = l->n > 0 ? make_directories(l, bpffs, reterr) : 0;

        for (size_t n = 0; r >= 0 && n < l->n; n++) {
                const struct lasting_map *m = &l->items[n];
                char path[PATH_MAX];

                if (!m->fresh)
                        continue;

                (void) snprintf(path, sizeof(path), "%s/%s", l->directory, m->pin);
                r = bpf_obj_pin(bpf_object__find_map_fd_by_name(o, m->name), path);
                if (r < 0)
                        return weft_fail(reterr, r, "cannot pin map %s to %s: %s", m->name, path,
                                         strerror(-r));
        }

        return r;
}

bool lasting_maps_have(const struct lasting_maps *l, const char *pin)
{
        for (size_t n = 0; n < l->n; n++)
                if (strcmp(l->items[n].pin, pin) == 0)
                        return true;

        return false;
}

void lasting_maps_done(struct lasting_maps *l)
{
        for (size_t n = 0; n < l->n; n++) {
                free(l->items[n].name);
                free(l->items[n].pin);
                closep(&l->items[n].old_fd);
        }
        free(l->items);
        free(l->directory);
        *l = (struct lasting_maps) { 0 };
}

/* Calls f for each entry of the directory but "." and "..". */
static void each_entry(const char *directory,
                       void (*f)(void *data, const char *path, const char *name), void *data)
{
        DIR *d = opendir(directory);
        struct dirent *e;

        while (d && (e = readdir(d))) {
                char path[PATH_MAX];

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;

                (void) snprintf(path, sizeof(path), "%s/%s", directory, e->d_name);
                f(data, path, e->d_name);
        }

        if (d)
                (void) closedir(d);
}

struct unpin {
        bool (*keep)(const void *data, const char *module, const char *pin);
        const void *data;
        const char *module;
};

static void unpin_map(void *data, const char *path, const char *name)
{
        const struct unpin *u = data;

        if (!u->keep || !u->keep(u->data, u->module, name))
                (void) unlink(path);
}

static void unpin_module(void *data, const char *path, const char *name)
{
        struct unpin *u = data;

        u->module = name;
        each_entry(path, unpin_map, u);
        (void) rmdir(path);
}

void lasting_maps_unpin(const char *bpffs,
                        bool (*keep)(const void *data, const char *module, const char *pin),
                        const void *data)
{
        struct unpin u = { .keep = keep, .data = data };
        char path[PATH_MAX];

        (void) snprintf(path, sizeof(path), "%s/modules", bpffs);
        each_entry(path, unpin_module, &u);
        (void) rmdir(path);
}
