/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "daemon/exposition.h"

/* special: what has to be escaped besides the backslash and the end of a line. */
static void put_text(FILE *f, const char *text, char special)
{
        for (; *text != '\0'; text++) {
                if (*text == '\\' || *text == '\n' || (special && *text == special))
                        (void) fputc('\\', f);
                (void) fputc(*text == '\n' ? 'n' : *text, f);
        }
}

void exposition_family(FILE *f, const char *name, const char *type, const char *help)
{
        (void) fprintf(f, "# HELP %s ", name);
        put_text(f, help, '\0');
        (void) fprintf(f, "\n# TYPE %s %s\n", name, type);
}

void exposition_sample(FILE *f, const char *name, const struct label *labels, uint64_t value)
{
        (void) fputs(name, f);
        for (const struct label *l = labels; l->name; l++) {
                (void) fprintf(f, "%c%s=\"", l == labels ? '{' : ',', l->name);
                put_text(f, l->value, '"');
                (void) fputc('"', f);
        }
        (void) fprintf(f, "%s %llu\n", labels->name ? "}" : "", (unsigned long long) value);
}
