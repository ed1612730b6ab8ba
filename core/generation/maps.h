/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A module's own maps that outlive generations and the daemon: those of class STATE and STATS. They
 * are pinned as BPFFS/modules/MODULE/MAP-VERSION-GENERATION, by the generation that made them; of
 * several, the youngest counts (the daemon was killed between pinning and letting go). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "module/module.h"

struct bpf_map;
struct bpf_object;

enum map_class { MAP_CONFIG, MAP_STATE, MAP_STATS };

struct map_tag {
        enum map_class class;
        unsigned version; /* STATE; else 0 */
};

/* What the object's BTF says of a map; MAP_CONFIG where it says nothing. -EINVAL: there is no such
 * class. */
int map_tag_read(const struct bpf_object *o, const char *map, struct map_tag *ret,
                 struct weft_error *reterr);

/* For a self-test: a hash of a class that outlives generations begins empty, and need not be large.
 */
int map_make_dry(const struct bpf_object *o, struct bpf_map *map, struct weft_error *reterr);
/* The same between two of its tests: hashes of these classes are emptied. */
void maps_forget(const struct bpf_object *o);

/* One such map of one module in one generation. */
struct lasting_map {
        char *name, *pin; /* pin: its entry in the module's directory */
        bool fresh;       /* made by this generation: to be pinned */
        int old_fd;       /* fresh: what it is to be filled from; -1: nothing */
        unsigned old_version;
};

struct lasting_maps {
        char *directory; /* BPFFS/modules/MODULE */
        struct lasting_map *items;
        size_t n;
};

/* For a map of an object that is open: the pinned one is used where version and layout are the
 * same. Otherwise there will be a new one, if the module can migrate or nothing is pinned; -EUCLEAN
 * names both. A CONFIG map is left alone. */
int lasting_map_share(struct lasting_maps *l, const char *bpffs, const struct instance *i,
                      uint32_t generation, const struct bpf_object *o, struct bpf_map *map,
                      struct weft_error *reterr);

/* o: the loaded object. Fills new maps from old ones by the module's callback. */
int lasting_maps_migrate(const struct lasting_maps *l, struct instance *i,
                         const struct bpf_object *o, struct weft_error *reterr);
/* Pins the new ones; those that lie there already stay. */
int lasting_maps_pin(const struct lasting_maps *l, const char *bpffs, const struct bpf_object *o,
                     struct weft_error *reterr);
bool lasting_maps_have(const struct lasting_maps *l, const char *pin);
void lasting_maps_done(struct lasting_maps *l);

/* Unlinks the pins of BPFFS/modules for which keep says no (NULL: all), and directories left empty.
 */
void lasting_maps_unpin(const char *bpffs,
                        bool (*keep)(const void *data, const char *module, const char *pin),
                        const void *data);
