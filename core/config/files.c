/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "config/files.h"
#include "config/values.h"
#include "error.h"
#include "util.h"

struct drop_in {
        char *path;       /* owned */
        const char *name; /* in path */
        size_t rank;      /* of the directory: the lowest counts */
};

struct drop_ins {
        struct drop_in *items;
        size_t n;
};

static void drop_ins_done(struct drop_ins *d)
{
        for (size_t i = 0; i < d->n; i++)
                free(d->items[i].path);
        free(d->items);
}

static bool is_conf(const char *name)
{
        size_t n = strlen(name);

        return name[0] != '.' && n > 5 && strcmp(name + n - 5, ".conf") == 0;
}

static int add_drop_in(struct drop_ins *d, const char *dir, const char *name, size_t rank)
{
        struct drop_in item = { .rank = rank };

        if (list_grow(&d->items, d->n, sizeof(item)) < 0)
                return -ENOMEM;
        if (asprintf(&item.path, "%s/%s", dir, name) < 0)
                return -ENOMEM;

        item.name = strrchr(item.path, '/') + 1;
        d->items[d->n++] = item;
        return 0;
}

static void closedirp(DIR **dir)
{
        if (*dir)
                (void) closedir(*dir);
}

static int scan(struct drop_ins *d, const char *path, size_t rank)
{
        _cleanup_(closedirp) DIR *dir = opendir(path);
        struct dirent *entry;
        int r;

        if (!dir)
                return errno == ENOENT ? 0 : -errno;

        while ((errno = 0, entry = readdir(dir))) {
                if (!is_conf(entry->d_name))
                        continue;
                r = add_drop_in(d, path, entry->d_name, rank);
                if (r < 0)
                        return r;
        }

        return -errno;
}

static int compare(const void *a, const void *b)
{
        const struct drop_in *x = a, *y = b;
        int r = strcmp(x->name, y->name);

        return r != 0 ? r : x->rank < y->rank ? -1 : 1;
}

static bool is_masked(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 && S_ISCHR(st.st_mode);
}

static int take_drop_ins(struct drop_ins *d, struct strings *ret)
{
        const char *last = "";
        int r;

        if (d->n > 0)
                qsort(d->items, d->n, sizeof(*d->items), compare);

        for (size_t i = 0; i < d->n; last = d->items[i++].name) {
                if (strcmp(d->items[i].name, last) == 0 || is_masked(d->items[i].path))
                        continue;
                r = strings_add(ret, d->items[i].path);
                if (r < 0)
                        return r;
        }

        return 0;
}

int config_files(const char *root, struct strings *ret, struct weft_error *reterr)
{
        static const char *const dirs[] = { "etc/weft", "run/weft", "usr/lib/weft" };
        _cleanup_(drop_ins_done) struct drop_ins drop_ins = {};
        _cleanup_free_ char *main = NULL;
        int r;

        if (asprintf(&main, "%s/etc/weft/weft.conf", root) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        if ((access(main, F_OK) == 0 || errno != ENOENT) && !is_masked(main)) {
                r = strings_add(ret, main);
                if (r < 0)
                        return weft_fail(reterr, r, "out of memory");
        }

        for (size_t i = 0; i < ELEMENTS(dirs); i++) {
                _cleanup_free_ char *path = NULL;

                if (asprintf(&path, "%s/%s/conf.d", root, dirs[i]) < 0)
                        return weft_fail(reterr, -ENOMEM, "out of memory");
                r = scan(&drop_ins, path, i);
                if (r < 0)
                        return weft_fail(reterr, r, "%s: cannot be read: %s", path, strerror(-r));
        }

        r = take_drop_ins(&drop_ins, ret);
        return r < 0 ? weft_fail(reterr, r, "out of memory") : 0;
}
