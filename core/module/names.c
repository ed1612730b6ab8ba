/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "module/module.h"
#include "util.h"

static bool has(const struct strings *s, const char *item)
{
        for (size_t i = 0; i < s->n; i++)
                if (strcmp(s->items[i], item) == 0)
                        return true;

        return false;
}

static int add_file(struct strings *names, char *file)
{
        size_t n = strlen(file);

        if (n <= 3 || strcmp(file + n - 3, ".so") != 0)
                return 0;

        file[n - 3] = '\0';
        return has(names, file) ? 0 : strings_add(names, file);
}

static int add_directory(struct strings *names, const char *dir)
{
        struct dirent **files;
        int r = 0, n = scandir(dir, &files, NULL, alphasort);

        for (int i = 0; i < n; i++) {
                if (r == 0)
                        r = add_file(names, files[i]->d_name);
                free(files[i]);
        }
        if (n >= 0)
                free(files);

        return r;
}

int module_names(const char *const *dirs, struct strings *ret)
{
        struct strings names = { 0 };
        int r = 0;

        for (const char *const *dir = dirs; *dir && r == 0; dir++)
                r = add_directory(&names, *dir);
        if (r < 0) {
                strings_done(&names);
                return r;
        }

        *ret = names;
        return 0;
}
