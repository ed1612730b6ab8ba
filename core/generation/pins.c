/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A prog array is emptied when the last user-space reference to it goes, also while programs that
 * call through it are attached. The pin is that reference once the daemon is gone. */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include "generation/generation.h"
#include "generation/maps.h"
#include "util.h"

#define PIN_PREFIX "chain-"

/* Calls f for every chain-N in the directory. */
static void each_pin(const char *bpffs, void (*f)(void *data, uint32_t number, const char *path),
                     void *data)
{
        DIR *d = opendir(bpffs);
        struct dirent *e;

        while (d && (e = readdir(d))) {
                char path[PATH_MAX];
                uint32_t number;
                int end = 0;

                if (sscanf(e->d_name, PIN_PREFIX "%u%n", &number, &end) != 1 ||
                    e->d_name[end] != '\0')
                        continue;

                (void) snprintf(path, sizeof(path), "%s/%s", bpffs, e->d_name);
                f(data, number, path);
        }

        if (d)
                (void) closedir(d);
}

int generation_pin(const struct generation *g, const char *bpffs, struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        if (mkdir(bpffs, 0700) < 0 && errno != EEXIST)
                return weft_fail(reterr, -errno, "%s: %s", bpffs, strerror(errno));

        r = generation_pin_maps(g, bpffs, reterr);
        if (r < 0)
                return r;

        (void) snprintf(path, sizeof(path), "%s/" PIN_PREFIX "%u", bpffs, generation_number(g));
        r = bpf_obj_pin(generation_chain_fd(g), path);

        return r < 0 ? weft_fail(reterr, r, "cannot pin the chain to %s: %s", path, strerror(-r))
                     : 0;
}

static void unpin_other(void *data, uint32_t number, const char *path)
{
        if (number != generation_number(data))
                (void) unlink(path);
}

static bool keep_map(const void *g, const char *module, const char *pin)
{
        return generation_has_pin(g, module, pin);
}

void generation_unpin_others(const struct generation *g, const char *bpffs)
{
        each_pin(bpffs, unpin_other, (void *) g);
        lasting_maps_unpin(bpffs, keep_map, g);
}

static void unpin(void *data, uint32_t number, const char *path)
{
        (void) data;
        (void) number;
        (void) unlink(path);
}

void generation_unpin_all(const char *bpffs)
{
        each_pin(bpffs, unpin, NULL);
        lasting_maps_unpin(bpffs, NULL, NULL);
}

static void greater(void *data, uint32_t number, const char *path)
{
        uint32_t *greatest = data;

        (void) path;
        if (number > *greatest)
                *greatest = number;
}

uint32_t generation_last(const char *bpffs)
{
        uint32_t greatest = 0;

        each_pin(bpffs, greater, &greatest);
        return greatest;
}
