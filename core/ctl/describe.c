/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "ctl/describe.h"
#include "generation/maps.h"
#include "generation/object.h"
#include "util.h"

/* What tables.bpf.h and stage.bpf.h define in every object. */
static const char *const core_maps[] = {
        "flows4",    "flows6",        "half_open4",    "half_open6", "ring_next", "nexthops",
        "endpoints", "services",      "service_slots", "backends",   "maglev",    "affinity",
        "members",   "placed",        "source_ranges", "peers",      "remotes",   "nodes",
        "overlays",  "links",         "fragments",     "filter",     "world",     "forwards",
        "drops",     "events",        "chain",         "scratch",
};

static bool is_core_map(const char *name)
{
        for (size_t i = 0; i < ELEMENTS(core_maps); i++)
                if (strcmp(core_maps[i], name) == 0)
                        return true;

        return false;
}

struct bpf_map *description_next_map(const struct description *d, struct bpf_map *map)
{
        if (!d->object)
                return NULL;

        do
                map = bpf_object__next_map(d->object, map);
        while (map && (bpf_map__is_internal(map) || is_core_map(bpf_map__name(map))));

        return map;
}

const char *map_class_text(const struct description *d, const struct bpf_map *map,
                           char buf[static 16])
{
        static const char *const words[] = {
                [MAP_CONFIG] = "config",
                [MAP_STATE] = "state",
                [MAP_STATS] = "stats",
        };
        struct map_tag tag = { .class = MAP_CONFIG };

        if (map_tag_read(d->object, bpf_map__name(map), &tag, NULL) < 0)
                (void) snprintf(buf, 16, "unknown");
        else if (tag.class == MAP_STATE)
                (void) snprintf(buf, 16, "state %u", tag.version);
        else
                (void) snprintf(buf, 16, "%s", words[tag.class]);

        return buf;
}

static int read_object(struct description *d, struct weft_error *reterr)
{
        const struct weft_module *m = &d->module->desc;
        size_t size;
        int r;

        if (!m->object)
                return 0;

        size = (size_t) ((const char *) m->object_end - (const char *) m->object);
        r = object_open(m->object, size, m->name, NULL, NULL, &d->object, reterr);
        if (r < 0)
                return r;

        return stages_read(d->object, &d->stages, reterr);
}

/* "DIR/NAME.so" as the two things that module_open() looks for; text is cut in place. */
static int split(char *text, const char **ret_dir, const char **ret_name)
{
        char *slash = strrchr(text, '/');
        char *base = slash ? slash + 1 : text;
        size_t n = strlen(base);

        if (n <= 3 || strcmp(base + n - 3, ".so") != 0)
                return -EINVAL;

        base[n - 3] = '\0';
        if (slash)
                *slash = '\0';
        *ret_dir = !slash ? "." : slash == text ? "/" : text;
        *ret_name = base;
        return 0;
}

static void description_closep(struct description **d)
{
        (void) description_close(*d);
}

int description_open(const char *file, struct description **ret, struct weft_error *reterr)
{
        _cleanup_(description_closep) struct description *d = calloc(1, sizeof(*d));
        _cleanup_free_ char *text = strdup(file);
        const char *dirs[2] = { NULL }, *name;
        int r;

        if (!d || !text)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        if (split(text, &dirs[0], &name) < 0)
                return weft_fail(reterr, -EINVAL,
                                 "%s is not the name of a module file: it ends in .so", file);

        r = module_open(dirs, name, &d->module, reterr);
        if (r >= 0)
                r = read_object(d, reterr);
        if (r < 0)
                return r;

        *ret = TAKE(d);
        return 0;
}

struct description *description_close(struct description *d)
{
        if (!d)
                return NULL;

        stages_done(&d->stages);
        bpf_object__close(d->object);
        (void) module_close(d->module);
        free(d);
        return NULL;
}

/* ---- words -------------------------------------------------------------------------------- */

const char *need_kind_word(enum weft_need_kind kind)
{
        static const char *const words[] = {
                [WEFT_NEED_MODULE] = "module",       [WEFT_NEED_ROLE] = "role",
                [WEFT_NEED_HELPER] = "helper",       [WEFT_NEED_FEATURE] = "feature",
                [WEFT_NEED_LINK_KIND] = "link-kind", [WEFT_NEED_HOST] = "host",
        };

        return (size_t) kind < ELEMENTS(words) && words[kind] ? words[kind] : "unknown";
}

const char *condition_text(enum weft_condition condition)
{
        switch (condition) {
        case WEFT_ALWAYS:
                return "";
        case WEFT_PEERS_SHARE_L2:
                return " and all peers share the link-layer network";
        case WEFT_PEERS_APART:
                return " and not all peers share the link-layer network";
        }

        return " and another condition holds";
}

static const char *const type_texts[] = {
        [WEFT_TYPE_BOOL] = "yes or no",
        [WEFT_TYPE_U16] = "number",
        [WEFT_TYPE_U32] = "number",
        [WEFT_TYPE_SIZE] = "size",
        [WEFT_TYPE_TIME] = "time",
        [WEFT_TYPE_ENUM] = "one of",
        [WEFT_TYPE_STRING] = "text",
        [WEFT_TYPE_PORTS] = "ports",
        [WEFT_TYPE_PREFIXES] = "list of prefixes",
        [WEFT_TYPE_ADDRESSES] = "list of addresses",
};

const char *option_type_text(const struct weft_option *o, char *buf, size_t size)
{
        bool known = (size_t) o->type < ELEMENTS(type_texts) && type_texts[o->type];
        const char *unit = o->type == WEFT_TYPE_TIME ? " ms" : "";
        size_t n = (size_t) snprintf(buf, size, "%s", known ? type_texts[o->type] : "unknown");

        for (size_t i = 0; o->type == WEFT_TYPE_ENUM && o->choices[i] && n < size; i++)
                n += (size_t) snprintf(buf + n, size - n, "%s %s", i > 0 ? "," : "", o->choices[i]);
        if (o->max > 0 && n < size)
                (void) snprintf(buf + n, size - n, " %" PRIu64 "-%" PRIu64 "%s", o->min, o->max,
                                unit);
        else if (o->min > 0 && n < size)
                (void) snprintf(buf + n, size - n, " from %" PRIu64 "%s", o->min, unit);

        return buf;
}

/* ---- formats ------------------------------------------------------------------------------ */

static void print_json(const struct description *d, FILE *f)
{
        json_auto_t *j = description_json(d);

        (void) json_dumpf(j, f, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        (void) fputc('\n', f);
}

const char *const description_formats[] = { "text", "markdown", "sample", "json", NULL };

/* In the order of their names. */
static void (*const printers[])(const struct description *d, FILE *f) = {
        description_text,
        description_markdown,
        description_sample,
        print_json,
};
_Static_assert(ELEMENTS(description_formats) == ELEMENTS(printers) + 1, "a printer each");

int description_print(const struct description *d, const char *format, FILE *f,
                      struct weft_error *reterr)
{
        for (size_t i = 0; i < ELEMENTS(printers); i++)
                if (strcmp(description_formats[i], format) == 0) {
                        printers[i](d, f);
                        return 0;
                }

        return weft_fail(reterr, -EINVAL, "no format \"%s\": text, markdown, sample or json",
                         format);
}
