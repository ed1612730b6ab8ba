/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "ctl/completion.h"
#include "ctl/verbs.h"
#include "util.h"

const char *const completion_shells[] = { "bash", "zsh", NULL };

/* In the order of their names. */
static void (*const scripts[])(FILE *f) = { completion_bash, completion_zsh };
_Static_assert(ELEMENTS(completion_shells) == ELEMENTS(scripts) + 1, "a script each");

int completion_print(const char *shell, FILE *f, struct weft_error *reterr)
{
        for (size_t i = 0; i < ELEMENTS(scripts); i++)
                if (strcmp(completion_shells[i], shell) == 0) {
                        scripts[i](f);
                        return 0;
                }

        return weft_fail(reterr, -EINVAL, "no completion for \"%s\"", shell);
}

int verb_leads_group(size_t i)
{
        size_t n = strcspn(verbs[i]->name, " ");

        if (verbs[i]->name[n] == '\0')
                return 0;
        for (size_t j = 0; j < i; j++)
                if (strncmp(verbs[j]->name, verbs[i]->name, n + 1) == 0)
                        return 0;

        return (int) n;
}
