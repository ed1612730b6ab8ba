/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints the documents that are made from tables of the core: the build's own program, which is not
 * installed. */

#include <stdio.h>
#include <string.h>

#include "ctl/catalogue.h"
#include "ctl/keys.h"
#include "ctl/manual.h"
#include "util.h"

static const struct {
        const char *name;
        void (*print)(FILE *f);
} documents[] = {
        { "weft.catalog", catalogue_print },
        { "weft.conf.sample", keys_sample },
};

static int manual(int argc, char **argv)
{
        struct weft_error why = {};

        if (argc < 1)
                return 2;
        if (manual_print(argv[0], (const char *const *) argv + 1, stdout, &why) == 0)
                return 0;

        (void) fprintf(stderr, "write-docs: %s\n", why.text);
        return 1;
}

int main(int argc, char **argv)
{
        if (argc > 2 && strcmp(argv[1], "manual") == 0)
                return manual(argc - 2, argv + 2);

        for (size_t i = 0; argc == 2 && i < ELEMENTS(documents); i++)
                if (strcmp(documents[i].name, argv[1]) == 0) {
                        documents[i].print(stdout);
                        return 0;
                }

        (void) fprintf(stderr, "usage: write-docs DOCUMENT | manual TEMPLATE [SAMPLE…]\n");
        return 2;
}
