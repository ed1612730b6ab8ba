/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints the documents that are made from tables of the core: the build's own program, which is not
 * installed. */

#include <stdio.h>
#include <string.h>

#include "ctl/catalogue.h"
#include "ctl/keys.h"
#include "util.h"

static const struct {
        const char *name;
        void (*print)(FILE *f);
} documents[] = {
        { "weft.catalog", catalogue_print },
        { "weft.conf.sample", keys_sample },
};

int main(int argc, char **argv)
{
        for (size_t i = 0; argc == 2 && i < ELEMENTS(documents); i++)
                if (strcmp(documents[i].name, argv[1]) == 0) {
                        documents[i].print(stdout);
                        return 0;
                }

        (void) fprintf(stderr, "usage: write-docs DOCUMENT\n");
        return 2;
}
