/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>

#include <bpf/libbpf.h>
#include <criterion/criterion.h>
#include <weft/types.h>

#include "generation-fixture.h"
#include "generation/object.h"
#include "generation/stages.h"

static struct bpf_object *open_object(const char *name)
{
        struct bpf_object *o = NULL;
        struct weft_error why = { 0 };
        size_t size;
        const void *bytes = object_bytes(name, &size);

        cr_assert_eq(object_open(bytes, size, name, NULL, NULL, &o, &why), 0, "%s", why.text);
        return o;
}

static const struct stage_tags *find(const struct stage_list *l, const char *name)
{
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->items[i].name, name) == 0)
                        return &l->items[i];

        cr_assert_fail("no stage %s", name);
        return NULL;
}

Test(tags, places_are_read_from_the_object)
{
        struct bpf_object *o = open_object("stages-a");
        const struct stage_tags *s;
        struct stage_list l;

        cr_assert_eq(stages_read(o, &l, NULL), 0);
        cr_assert_eq(l.n, 3);

        s = find(&l, "a_filter");
        cr_assert_eq(s->hooks, 1u << WEFT_FROM_UPLINK | 1u << WEFT_TO_UPLINK);
        cr_assert_eq(s->phase, WEFT_FILTER);
        cr_assert(!s->after && !s->before);

        s = find(&l, "a_service");
        cr_assert_str_eq(s->before[0], "stages-b");
        cr_assert_null(s->before[1]);
        cr_assert_str_eq(s->after[0], "nobody");

        stages_done(&l);
        bpf_object__close(o);
}

Test(tags, an_unknown_hook_is_refused_by_stage_and_name)
{
        struct bpf_object *o = open_object("stages-untagged");
        struct weft_error why = { 0 };
        struct stage_list l;

        cr_assert_eq(stages_read(o, &l, &why), -EINVAL);
        cr_assert_str_eq(why.text, "stage lost: there is no hook FROM_NOWHERE");
        bpf_object__close(o);
}

Test(tags, what_is_no_object_says_so)
{
        struct bpf_object *o = NULL;
        struct weft_error why = { 0 };

        cr_assert_lt(object_open("not an object", 13, "odd", NULL, NULL, &o, &why), 0);
        cr_assert_not_null(strstr(why.text, "the eBPF object of odd cannot be read"), "%s",
                           why.text);
}

Test(constants, are_found_by_name_and_size)
{
        struct bpf_object *o = open_object("stages-a");
        uint16_t port = 7;

        cr_assert_eq(object_constant(o, "digit_port", &port, sizeof(port)), 0);
        cr_assert_eq(object_constant_check(o, "secret", 4), 0);
        cr_assert_eq(object_constant_check(o, "secret", 8), -EINVAL);
        cr_assert_eq(object_constant_check(o, "nothing", 4), -ENOENT);
        bpf_object__close(o);
}
