/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The order of the stages of one hook. */

#include <errno.h>
#include <string.h>

#include "plan/plan.h"
#include "util.h"

static bool lists(const char *const *list, const char *name)
{
        for (; list && *list; list++)
                if (strcmp(*list, name) == 0)
                        return true;

        return false;
}

/* Must a run before b? */
static bool precedes(const struct stage *a, const struct stage *b)
{
        if (a->phase != b->phase)
                return a->phase < b->phase;
        if (strcmp(a->module, b->module) == 0)
                return false;

        return lists(a->before, b->module) || lists(b->after, a->module);
}

static int by_name(const void *a, const void *b)
{
        const struct stage *x = a, *y = b;
        int r = strcmp(x->module, y->module);

        return r ? r : strcmp(x->name, y->name);
}

/* The first stage that must run before stage i, or n if none must. */
static size_t blocker(const struct stage *stages, size_t n, size_t i)
{
        size_t j = 0;

        while (j < n && (j == i || !precedes(&stages[j], &stages[i])))
                j++;

        return j;
}

/* Called when every stage waits for another: n steps back from anywhere end in a cycle. */
static int fail_cycle(const struct stage *stages, size_t n, struct weft_error *reterr)
{
        char text[384];
        size_t i = 0, at, len;

        for (size_t step = 0; step < n; step++)
                i = blocker(stages, n, i);

        len = (size_t) snprintf(text, sizeof(text), "%s", stages[i].module);
        at = i;
        do {
                at = blocker(stages, n, at);
                if (len < sizeof(text))
                        len += (size_t) snprintf(text + len, sizeof(text) - len, " after %s",
                                                 stages[at].module);
        } while (at != i);

        return weft_fail(reterr, -ELOOP, "the order of stages goes round in a circle: %s", text);
}

int stages_order(struct stage *stages, size_t n, struct weft_error *reterr)
{
        if (n > 0)
                qsort(stages, n, sizeof(*stages), by_name);

        for (size_t done = 0; done < n; done++) {
                struct stage *rest = stages + done, first;
                size_t i = 0;

                while (i < n - done && blocker(rest, n - done, i) < n - done)
                        i++;

                if (i == n - done)
                        return fail_cycle(rest, n - done, reterr);

                first = rest[i];
                memmove(rest + 1, rest, i * sizeof(*rest));
                rest[0] = first;
        }

        return 0;
}
