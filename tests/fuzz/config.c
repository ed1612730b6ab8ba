/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libFuzzer target: any bytes as weft.conf. Whatever they are, a refused configuration says why,
 * with a line of the file, and an accepted one has nothing to say. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/written.h"

static char root[] = "/dev/shm/weft-fuzz-XXXXXX";

static void path_of(const char *name, char *ret, size_t size)
{
        (void) snprintf(ret, size, "%s/%s", root, name);
}

static void remove_root(void)
{
        static const char *const names[] = { "etc/weft/weft.conf", "etc/weft", "etc", "" };
        char path[128];

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                path_of(names[i], path, sizeof(path));
                (void) remove(path);
        }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
        char path[128];

        (void) argc;
        (void) argv;
        if (!mkdtemp(root))
                abort();
        path_of("etc", path, sizeof(path));
        if (mkdir(path, 0755) < 0)
                abort();
        path_of("etc/weft", path, sizeof(path));
        if (mkdir(path, 0755) < 0)
                abort();

        return atexit(remove_root);
}

static void write_file(const uint8_t *data, size_t size)
{
        char path[128];
        FILE *f;

        path_of("etc/weft/weft.conf", path, sizeof(path));
        f = fopen(path, "we");
        if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct diagnostics diagnostics = {};
        struct written written = {};
        struct config *c = NULL;

        write_file(data, size);
        if (config_read(root, &c, &written, &diagnostics) != 0 || !c)
                abort();

        for (size_t i = 0; i < written.n; i++)
                for (size_t k = 0; k < written.items[i]->n; k++)
                        if (written.items[i]->values[k].origin.line == 0)
                                abort();
        for (size_t i = 0; i < diagnostics.n; i++)
                if (diagnostics.items[i].origin.line == 0 || diagnostics.items[i].text[0] == '\0')
                        abort();

        written_done(&written);
        diagnostics_done(&diagnostics);
        config_free(c);
        return 0;
}
