/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <weft/types.h>

#include "generation/stages.h"
#include "names.h"
#include "util.h"

#define PREFIX "weft."

/* Is the enumerator TEXT[0..n) ("FROM_UPLINK") the one that is shown as NAME ("from-uplink")? */
static bool is_enumerator(const char *text, size_t n, const char *name)
{
        if (strlen(name) != n)
                return false;

        for (size_t i = 0; i < n; i++)
                if ((text[i] == '_' ? '-' : tolower(text[i])) != name[i])
                        return false;

        return true;
}

static int find_enumerator(const char *text, size_t n, const char *const *names, size_t n_names)
{
        for (size_t i = 0; i < n_names; i++)
                if (is_enumerator(text, n, names[i]))
                        return (int) i;

        return -EINVAL;
}

static int append(char ***list, const char *text)
{
        size_t n = 0;
        char **grown;

        while (*list && (*list)[n])
                n++;

        grown = reallocarray(*list, n + 2, sizeof(*grown));
        if (!grown)
                return -ENOMEM;

        *list = grown;
        grown[n] = strdup(text);
        grown[n + 1] = NULL;
        return grown[n] ? 0 : -ENOMEM;
}

static int read_hooks(struct stage_tags *s, const char *value, struct weft_error *reterr)
{
        for (;;) {
                size_t n;
                int hook;

                value += strspn(value, " |");
                n = strcspn(value, " |");
                if (n == 0)
                        return 0;

                hook = find_enumerator(value, n, hook_names, WEFT_HOOKS);
                if (hook < 0)
                        return weft_fail(reterr, -EINVAL, "stage %s: there is no hook %.*s",
                                         s->name, (int) n, value);
                s->hooks |= 1u << hook;
                value += n;
        }
}

static int read_phase(struct stage_tags *s, const char *value, struct weft_error *reterr)
{
        int phase = find_enumerator(value, strlen(value), phase_names, WEFT_PHASES);

        if (phase < 0)
                return weft_fail(reterr, -EINVAL, "stage %s: there is no phase %s", s->name, value);

        s->phase = (uint32_t) phase;
        return 0;
}

static int read_after(struct stage_tags *s, const char *value, struct weft_error *reterr)
{
        return append(&s->after, value) < 0 ? weft_fail(reterr, -ENOMEM, "out of memory") : 0;
}

static int read_before(struct stage_tags *s, const char *value, struct weft_error *reterr)
{
        return append(&s->before, value) < 0 ? weft_fail(reterr, -ENOMEM, "out of memory") : 0;
}

/* "1.0": the header that the stage was built with. Older minors are served by relocation. */
static int read_abi(struct stage_tags *s, const char *value, struct weft_error *reterr)
{
        unsigned major, minor;

        if (sscanf(value, "%u.%u", &major, &minor) != 2)
                return weft_fail(reterr, -EINVAL, "stage %s: there is no ABI %s", s->name, value);
        if (major != WEFT_STAGE_ABI_MAJOR || minor > WEFT_STAGE_ABI_MINOR)
                return weft_fail(reterr, -EPROTO,
                                 "stage %s was built for stage ABI %u.%u, this weft has %u.%u; "
                                 "build the module with the headers of this weft",
                                 s->name, major, minor, WEFT_STAGE_ABI_MAJOR, WEFT_STAGE_ABI_MINOR);

        s->abi = major << 16 | minor;
        return 0;
}

static const struct {
        const char *key;
        int (*read)(struct stage_tags *s, const char *value, struct weft_error *reterr);
} keys[] = {
        { PREFIX "abi:", read_abi },       { PREFIX "hooks:", read_hooks },
        { PREFIX "phase:", read_phase },   { PREFIX "after:", read_after },
        { PREFIX "before:", read_before },
};

static struct stage_tags *stage_of(struct stage_list *l, const char *name)
{
        struct stage_tags *grown;

        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->items[i].name, name) == 0)
                        return &l->items[i];

        grown = reallocarray(l->items, l->n + 1, sizeof(*grown));
        if (!grown)
                return NULL;
        l->items = grown;

        grown[l->n] = (struct stage_tags) { .name = strdup(name), .phase = WEFT_PHASES };
        return grown[l->n].name ? &grown[l->n++] : NULL;
}

/* Tags of other objects than functions (maps), and other keys, are not about places. */
static int read_tag(struct stage_list *l, const char *owner, const char *tag,
                    struct weft_error *reterr)
{
        for (size_t i = 0; i < ELEMENTS(keys); i++) {
                size_t n = strlen(keys[i].key);
                struct stage_tags *s;

                if (strncmp(tag, keys[i].key, n) != 0)
                        continue;

                s = stage_of(l, owner);
                return s ? keys[i].read(s, tag + n, reterr)
                         : weft_fail(reterr, -ENOMEM, "out of memory");
        }

        return 0;
}

static int read_tags(const struct btf *btf, struct stage_list *l, struct weft_error *reterr)
{
        for (uint32_t i = 1; i < btf__type_cnt(btf); i++) {
                const struct btf_type *t = btf__type_by_id(btf, i), *owner;
                int r;

                if (!btf_is_decl_tag(t) || btf_decl_tag(t)->component_idx >= 0)
                        continue;

                owner = btf__type_by_id(btf, t->type);
                if (!btf_is_func(owner))
                        continue;

                r = read_tag(l, btf__name_by_offset(btf, owner->name_off),
                             btf__name_by_offset(btf, t->name_off), reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int check(const struct bpf_object *o, const struct stage_tags *s, struct weft_error *reterr)
{
        if (!bpf_object__find_program_by_name(o, s->name))
                return weft_fail(reterr, -EINVAL, "stage %s is not a program", s->name);
        if (s->hooks == 0)
                return weft_fail(reterr, -EINVAL, "stage %s names no hook", s->name);
        if (s->phase == WEFT_PHASES)
                return weft_fail(reterr, -EINVAL, "stage %s names no phase", s->name);

        return 0;
}

int stages_read(const struct bpf_object *o, struct stage_list *ret, struct weft_error *reterr)
{
        _cleanup_(stages_done) struct stage_list l = { 0 };
        const struct btf *btf = bpf_object__btf(o);
        int r;

        if (!btf)
                return weft_fail(reterr, -EINVAL, "the eBPF object has no BTF; build it with -g");

        r = read_tags(btf, &l, reterr);
        for (size_t i = 0; r >= 0 && i < l.n; i++)
                r = check(o, &l.items[i], reterr);
        if (r < 0)
                return r;

        *ret = l;
        l = (struct stage_list) { 0 };
        return 0;
}

static void free_names(char **list)
{
        for (char **p = list; p && *p; p++)
                free(*p);
        free(list);
}

void stages_done(struct stage_list *l)
{
        for (size_t i = 0; i < l->n; i++) {
                free(l->items[i].name);
                free_names(l->items[i].after);
                free_names(l->items[i].before);
        }
        free(l->items);
        *l = (struct stage_list) { 0 };
}
