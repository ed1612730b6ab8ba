/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "tables/maglev.h"
#include "util.h"

#define NOBODY UINT32_MAX

/* One backend on its walk through the table: the places it would like, one after the other. */
struct walker {
        const struct maglev_backend *backend;
        uint32_t position, place, skip;
        uint64_t credit; /* for a place, at as much as the greatest weight */
};

/* The nodes of a cluster compute the same table, whatever their version of weft: what follows is as
 * fixed as a wire format. (The finalizer is that of SplitMix64, Steele et al., OOPSLA 2014.) */
static uint64_t mix(uint64_t h)
{
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
        h = (h ^ h >> 27) * 0x94d049bb133111eb;
        return h ^ h >> 31;
}

static uint64_t hash(const struct maglev_backend *b, uint64_t seed)
{
        const uint8_t *bytes = (const uint8_t *) &b->addr, *port = (const uint8_t *) &b->port;
        uint64_t high = 0, low = 0;

        for (int i = 0; i < 8; i++) {
                high = high << 8 | bytes[i];
                low = low << 8 | bytes[i + 8];
        }

        seed = mix(seed + (uint32_t) (port[0] << 16 | port[1] << 8 | b->proto));
        return mix(mix(seed ^ high) ^ low);
}

static int compare(const void *a, const void *b)
{
        const struct maglev_backend *x = ((const struct walker *) a)->backend;
        const struct maglev_backend *y = ((const struct walker *) b)->backend;
        int r = memcmp(&x->addr, &y->addr, sizeof(x->addr));

        if (r == 0)
                r = memcmp(&x->port, &y->port, sizeof(x->port));
        return r ? r : x->proto - y->proto;
}

/* The next place on the walk that nobody has taken yet. */
static uint32_t *step(struct walker *w, uint32_t *table, uint32_t size)
{
        uint32_t *place;

        do {
                place = &table[w->place];
                w->place += w->skip;
                w->place -= w->place >= size ? size : 0;
        } while (*place != NOBODY);

        return place;
}

int maglev_fill(const struct maglev_backend *backends, size_t n, uint32_t *ret, uint32_t size)
{
        _cleanup_free_ struct walker *walkers = calloc(n, sizeof(*walkers));
        uint32_t left = size, greatest = 0;

        if (!walkers)
                return -ENOMEM;

        for (size_t i = 0; i < n; i++) {
                walkers[i] = (struct walker) {
                        .backend = &backends[i],
                        .position = i,
                        .place = hash(&backends[i], 0) % size,
                        .skip = hash(&backends[i], 1) % (size - 1) + 1,
                };
                if (backends[i].weight > greatest)
                        greatest = backends[i].weight;
        }

        qsort(walkers, n, sizeof(*walkers), compare);
        memset(ret, 0xff, size * sizeof(*ret));
        for (size_t i = 0; left > 0; i = (i + 1) % n) {
                struct walker *w = &walkers[i];

                w->credit += w->backend->weight;
                if (w->credit < greatest)
                        continue;

                w->credit -= greatest;
                *step(w, ret, size) = w->position;
                left--;
        }

        return 0;
}
