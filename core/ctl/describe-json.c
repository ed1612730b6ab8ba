/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <bpf/libbpf.h>

#include "ctl/describe.h"
#include "names.h"
#include "util.h"


static json_t *names_json(const char *const *names)
{
        json_t *list = json_array();

        for (; names && *names; names++)
                (void) json_array_append_new(list, json_string(*names));

        return list;
}

static json_t *abi_json(uint32_t abi)
{
        return json_sprintf("%u.%u", abi >> 16, abi & 0xffff);
}

static json_t *needs_json(const struct weft_module *m)
{
        json_t *list = json_array();

        for (const struct weft_need *n = m->needs; n && n->kind; n++)
                (void) json_array_append_new(
                        list, json_pack("{s:s, s:s, s:b, s:s?}", "kind", need_kind_word(n->kind),
                                        "name", n->name, "hard", !n->soft, "why", n->why));

        return list;
}

static json_t *options_json(const struct weft_module *m)
{
        json_t *list = json_array();
        char type[256];

        for (const struct weft_option *o = m->options; o && o->key; o++) {
                json_t *j = json_pack("{s:s, s:s, s:s?, s:s?}", "key", o->key, "type",
                                      option_type_text(o, type, sizeof(type)), "default", o->def,
                                      "help", o->help);

                if (o->min > 0 || o->max > 0)
                        (void) json_object_set_new(j, "min", json_integer((json_int_t) o->min));
                if (o->max > 0)
                        (void) json_object_set_new(j, "max", json_integer((json_int_t) o->max));
                if (o->type == WEFT_TYPE_ENUM)
                        (void) json_object_set_new(j, "choices", names_json(o->choices));
                (void) json_array_append_new(list, j);
        }

        return list;
}

static json_t *hooks_json(uint32_t hooks)
{
        json_t *list = json_array();

        for (unsigned i = 0; i < WEFT_HOOKS; i++)
                if (hooks >> i & 1)
                        (void) json_array_append_new(list, json_string(hook_names[i]));

        return list;
}

static json_t *stages_json(const struct description *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->stages.n; i++) {
                const struct stage_tags *s = &d->stages.items[i];
                json_t *after = names_json((const char *const *) s->after);
                json_t *before = names_json((const char *const *) s->before);

                (void) json_array_append_new(
                        list, json_pack("{s:s, s:o, s:o, s:s, s:o, s:o}", "name", s->name, "abi",
                                        abi_json(s->abi), "hooks", hooks_json(s->hooks), "phase",
                                        phase_names[s->phase], "after", after, "before", before));
        }

        return list;
}

static json_t *maps_json(const struct description *d)
{
        json_t *list = json_array();
        char class[16];

        for (struct bpf_map *m = NULL; (m = description_next_map(d, m));) {
                const char *type = libbpf_bpf_map_type_str(bpf_map__type(m));

                (void) json_array_append_new(list, json_pack("{s:s, s:s?, s:s, s:i, s:i, s:i}",
                                                             "name", bpf_map__name(m), "type", type,
                                                             "class", map_class_text(d, m, class),
                                                             "key_size", bpf_map__key_size(m),
                                                             "value_size", bpf_map__value_size(m),
                                                             "entries", bpf_map__max_entries(m)));
        }

        return list;
}

static json_t *chosen_json(const struct weft_module *m)
{
        json_t *options = json_object();

        for (const char *const *p = m->chosen_options; p && p[0]; p += 2)
                (void) json_object_set_new(options, p[0], json_string(p[1]));

        return json_pack("{s:s, s:i, s:b, s:o}", "role", m->role, "rank", m->rank, "peers_share_l2",
                         m->condition == WEFT_PEERS_SHARE_L2, "options", options);
}

static json_t *tests_json(const struct weft_module *m)
{
        json_t *list = json_array();

        for (const struct weft_test *t = m->tests; t && t->name; t++)
                (void) json_array_append_new(list, json_string(t->name));

        return list;
}

static json_t *named_json(const struct weft_named *named)
{
        json_t *list = json_array();

        for (; named && named->name; named++)
                (void) json_array_append_new(
                        list, json_pack("{s:s, s:s?}", "name", named->name, "help", named->help));

        return list;
}

json_t *description_json(const struct description *d)
{
        const struct weft_module *m = &d->module->desc;

        return json_pack("{s:s, s:s, s:s?, s:s, s:o, s:o, s:s?, s:o, s:s?, s:b, s:b, s:o, s:o, "
                         "s:o, s:o, s:o, s:o, s:o, s:o?}",
                         "name", m->name, "summary", m->summary, "version", m->version, "file",
                         d->module->path, "abi", abi_json(m->abi), "provides",
                         names_json(m->provides), "exclusive", m->exclusive, "conflicts",
                         names_json(m->conflicts), "divides", m->divides, "takes_dsr",
                         m->takes_dsr != 0, "tracks_replies", m->tracks_replies != 0, "needs",
                         needs_json(m), "options", options_json(m), "stages", stages_json(d),
                         "maps", maps_json(d), "tests", tests_json(m), "reasons",
                         named_json(m->reasons), "counters", named_json(m->counters), "chosen",
                         m->role ? chosen_json(m) : NULL);
}
