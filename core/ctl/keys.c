/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <string.h>

#include "ctl/describe.h"
#include "ctl/keys.h"
#include "ctl/wrap.h"
#include "util.h"

/* "a, b" */
static char *join(const char *const *words, char *buf, size_t size)
{
        size_t n = 0;

        buf[0] = '\0';
        for (size_t i = 0; words[i] && n < size; i++)
                n += (size_t) snprintf(buf + n, size - n, "%s%s", n > 0 ? ", " : "", words[i]);

        return buf;
}

char *key_type_text(const struct key *k, char *buf, size_t size)
{
        char words[160];

        if (k->is)
                (void) snprintf(buf, size, "%s", k->is);
        else if (k->o.choices)
                (void) snprintf(buf, size, "one of %s", join(k->o.choices, words, sizeof(words)));
        else
                (void) option_type_text(&k->o, buf, size);

        return buf;
}

const char *key_default_text(const struct key *k)
{
        return k->def ?: k->o.def;
}

/* ---- the sample --------------------------------------------------------------------------- */

static void sample_key(const struct key *k, FILE *f)
{
        char type[256], text[1024];
        const char *def = key_default_text(k);

        (void) snprintf(text, sizeof(text), "%s (%s)", k->o.help,
                        key_type_text(k, type, sizeof(type)));
        (void) fputc('\n', f);
        wrap_comment(f, text);
        (void) fprintf(f, "#%s =%s%s\n", k->o.key, def && *def ? " " : "", def ?: "");
}

void keys_sample(FILE *f)
{
        (void) fputs("# SPDX-License-Identifier: LGPL-2.1-or-later\n", f);
        wrap_comment(f, "Every key of weft.conf, with its default. Take the # off a section's line "
                        "and off the keys wanted in it; weftctl check says whether it is right. "
                        "Modules' options have samples of their own.");

        for (const struct section *s = sections; s->name; s++) {
                if (!s->keys)
                        continue;
                (void) fputs("\n\n", f);
                wrap_comment(f, s->help);
                (void) fprintf(f, "#[%s%s]\n", s->name, s->named ? " NAME" : "");
                for (const struct key *k = s->keys; k->o.key; k++)
                        sample_key(k, f);
        }
}
