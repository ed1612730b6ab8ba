/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config/nearest.h"
#include "config/option.h"
#include "config/values.h"
#include "util.h"

#define BLANKS " \t\r\v\f"

/* How one type is read. set gets the field itself and a text that is not empty. */
struct type {
        const char *right; /* what a right value looks like */
        size_t size;       /* of the field */
        bool list, owner;  /* a repeated key appends; the field starts with a pointer to free */
        int (*set)(const struct weft_option *o, void *field, const char *text,
                   struct weft_error *reterr);
};

int each_item(const char *list, int (*f)(void *data, const char *item, struct weft_error *reterr),
              void *data, struct weft_error *reterr)
{
        _cleanup_free_ char *copy = strdup(list);
        char *next = copy, *item;
        size_t n;
        int r;

        if (!copy)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        while ((item = strsep(&next, ","))) {
                item += strspn(item, BLANKS);
                for (n = strlen(item); n > 0 && strchr(BLANKS, item[n - 1]); n--)
                        item[n - 1] = '\0';

                if (*item == '\0')
                        return weft_fail(reterr, -EINVAL,
                                         "nothing stands between two commas: take one away");
                r = f(data, item, reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

static int check_range(const struct weft_option *o, uint64_t v, uint64_t limit,
                       struct weft_error *reterr)
{
        uint64_t max = o->max > 0 && o->max < limit ? o->max : limit;

        if (v < o->min || v > max) {
                const char *unit = o->type == WEFT_TYPE_TIME ? "ms" : "";

                return weft_fail(reterr, -ERANGE, "must be from %" PRIu64 "%s to %" PRIu64 "%s",
                                 o->min, unit, max, unit);
        }

        return 0;
}

static int set_bool(const struct weft_option *o, void *field, const char *text,
                    struct weft_error *reterr)
{
        (void) o;
        (void) reterr;
        return parse_bool(text, field);
}

static int set_u16(const struct weft_option *o, void *field, const char *text,
                   struct weft_error *reterr)
{
        uint64_t v;
        int r;

        r = parse_number(text, &v);
        if (r == 0)
                r = check_range(o, v, UINT16_MAX, reterr);
        if (r < 0)
                return r;

        *(uint16_t *) field = (uint16_t) v;
        return 0;
}

static int set_u32(const struct weft_option *o, void *field, const char *text,
                   struct weft_error *reterr)
{
        uint64_t v;
        int r;

        r = parse_number(text, &v);
        if (r == 0)
                r = check_range(o, v, UINT32_MAX, reterr);
        if (r < 0)
                return r;

        *(uint32_t *) field = (uint32_t) v;
        return 0;
}

static int set_u64(const struct weft_option *o, uint64_t v, void *field, struct weft_error *reterr)
{
        int r = check_range(o, v, UINT64_MAX, reterr);

        if (r < 0)
                return r;

        *(uint64_t *) field = v;
        return 0;
}

static int set_size(const struct weft_option *o, void *field, const char *text,
                    struct weft_error *reterr)
{
        uint64_t v;
        int r = parse_size(text, &v);

        return r < 0 ? r : set_u64(o, v, field, reterr);
}

static int set_time(const struct weft_option *o, void *field, const char *text,
                    struct weft_error *reterr)
{
        uint64_t v;
        int r = parse_time(text, &v);

        return r < 0 ? r : set_u64(o, v, field, reterr);
}

/* "one of random, maglev" and the nearest of them to what was written. */
static int fail_choice(const struct weft_option *o, const char *text, struct weft_error *reterr)
{
        struct nearest near = { .word = text };
        char all[256] = "";
        size_t n = 0;

        for (size_t i = 0; o->choices[i] && n < sizeof(all); i++) {
                n += (size_t) snprintf(all + n, sizeof(all) - n, "%s%s", i > 0 ? ", " : "",
                                       o->choices[i]);
                nearest_try(&near, o->choices[i]);
        }

        return weft_fail(reterr, -EINVAL, "must be one of %s%s%s%s", all,
                         near.best ? "; did you mean \"" : "", near.best ?: "",
                         near.best ? "\"?" : "");
}

int option_choice(const struct weft_option *o, const char *text, uint32_t *ret,
                  struct weft_error *reterr)
{
        int r = parse_choice(text, o->choices, ret);

        return r < 0 ? fail_choice(o, text, reterr) : 0;
}

static int set_enum(const struct weft_option *o, void *field, const char *text,
                    struct weft_error *reterr)
{
        return option_choice(o, text, field, reterr);
}

static int set_string(const struct weft_option *o, void *field, const char *text,
                      struct weft_error *reterr)
{
        char *copy = strdup(text);

        (void) o;
        if (!copy)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        free(*(char **) field);
        *(char **) field = copy;
        return 0;
}

static int set_ports(const struct weft_option *o, void *field, const char *text,
                     struct weft_error *reterr)
{
        (void) o;
        (void) reterr;
        return parse_ports(text, field);
}

/* It looks like the prefix p and is none all the same. */
static int fail_prefix(const char *item, struct weft_prefix *p, struct weft_error *reterr)
{
        char right[PREFIX_TEXT];

        if (parse_prefix(prefix_format(p, right, sizeof(right)), p) == 0)
                return weft_fail(reterr, -EINVAL, "\"%s\" has bits set behind its length: write %s",
                                 item, right);

        return weft_fail(reterr, -EINVAL,
                         "\"%s\" would cover IPv4 as well: write 2000::/3 for the internet, "
                         "fc00::/7 for local addresses",
                         item);
}

static int add_prefix(void *list, const char *item, struct weft_error *reterr)
{
        struct nearest near = { .word = item };
        struct weft_prefix p;
        int r;

        r = prefixes_add_set(list, item);
        if (r != -ENOENT)
                return r;

        r = parse_prefix(item, &p);
        if (r < 0 && parse_network(item, &p) == 0)
                return fail_prefix(item, &p, reterr);
        if (r < 0) {
                prefix_sets_near(&near);
                return weft_fail(reterr, r,
                                 "\"%s\" is no prefix%s%s%s: write 10.0.0.0/8 or fd00::/8", item,
                                 near.best ? " (did you mean \"" : "", near.best ?: "",
                                 near.best ? "\"?)" : "");
        }

        return prefixes_add(list, &p);
}

static int set_prefixes(const struct weft_option *o, void *field, const char *text,
                        struct weft_error *reterr)
{
        (void) o;
        return each_item(text, add_prefix, field, reterr);
}

static int add_address(void *list, const char *item, struct weft_error *reterr)
{
        struct weft_addr a;

        if (parse_address(item, &a) < 0)
                return weft_fail(reterr, -EINVAL, "\"%s\" is no address: write 10.0.0.1 or fd00::1",
                                 item);
        if (!address_is_unicast(&a))
                return weft_fail(reterr, -EINVAL, "\"%s\" is no address that other hosts reach",
                                 item);

        return addresses_add(list, &a);
}

static int set_addresses(const struct weft_option *o, void *field, const char *text,
                         struct weft_error *reterr)
{
        (void) o;
        return each_item(text, add_address, field, reterr);
}

static const struct type types[] = {
        [WEFT_TYPE_BOOL] = { "must be yes or no", sizeof(bool), .set = set_bool },
        [WEFT_TYPE_U16] = { "must be a number", sizeof(uint16_t), .set = set_u16 },
        [WEFT_TYPE_U32] = { "must be a number", sizeof(uint32_t), .set = set_u32 },
        [WEFT_TYPE_SIZE] = { "must be a number, with K, M or G behind it where large",
                             sizeof(uint64_t), .set = set_size },
        [WEFT_TYPE_TIME] = { "must be a time with its unit, such as 500ms, 10s, 5min or 2h",
                             sizeof(uint64_t), .set = set_time },
        [WEFT_TYPE_ENUM] = { "", sizeof(uint32_t), .set = set_enum },
        [WEFT_TYPE_STRING] = { "", sizeof(char *), .owner = true, .set = set_string },
        [WEFT_TYPE_PORTS] = { "must be a port, a range LOW-HIGH within 1-65535, or auto",
                              sizeof(struct weft_ports), .set = set_ports },
        [WEFT_TYPE_PREFIXES] = { "must be prefixes", sizeof(struct weft_prefixes), .list = true,
                                 .owner = true, .set = set_prefixes },
        [WEFT_TYPE_ADDRESSES] = { "must be addresses", sizeof(struct weft_addresses), .list = true,
                                  .owner = true, .set = set_addresses },
};

size_t option_field_size(enum weft_option_type type)
{
        return type < ELEMENTS(types) ? types[type].size : 0;
}

void option_clear(const struct weft_option *o, void *config)
{
        const struct type *t = &types[o->type];
        void *field = (char *) config + o->offset, *owned;

        if (t->owner) {
                memcpy(&owned, field, sizeof(owned));
                free(owned);
        }
        memset(field, 0, t->size);
}

bool option_is_list(const struct weft_option *o)
{
        return types[o->type].list;
}

bool option_keeps_empty(const struct weft_option *o)
{
        return option_is_list(o) || o->type == WEFT_TYPE_STRING;
}

static int set_value(const struct weft_option *o, void *config, const char *text,
                     struct weft_error *reterr)
{
        const struct type *t = &types[o->type];
        struct weft_error why = {};
        int r;

        r = t->set(o, (char *) config + o->offset, text, &why);
        if (r < 0)
                return weft_fail(reterr, r, "%s", why.text[0] != '\0' ? why.text : t->right);

        return 0;
}

int option_set_default(const struct weft_option *o, void *config, struct weft_error *reterr)
{
        bool string = o->type == WEFT_TYPE_STRING;

        option_clear(o, config);
        if (!o->def || (*o->def == '\0' && !string))
                return 0;

        return set_value(o, config, o->def, reterr);
}

int option_set(const struct weft_option *o, void *config, const char *text,
               struct weft_error *reterr)
{
        if (*text == '\0' && !option_keeps_empty(o))
                return option_set_default(o, config, reterr);
        if (*text != '\0' || !option_is_list(o))
                return set_value(o, config, text, reterr);

        option_clear(o, config);
        return 0;
}

/* ---- a module's section ------------------------------------------------------------------- */

static const struct weft_option *find_option(const struct weft_option *options, const char *key)
{
        for (const struct weft_option *o = options; o && o->key; o++)
                if (strcmp(o->key, key) == 0)
                        return o;

        return NULL;
}

static bool is_assigned(const char *key, const struct config_assignment *assignments, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(assignments[i].key, key) == 0)
                        return true;

        return false;
}

static int fill_defaults(const struct weft_option *options, void *config, const char *section,
                         const struct config_assignment *assignments, size_t n,
                         struct diagnostics *diagnostics)
{
        static const struct origin nowhere = { .file = "default" };
        struct weft_error why;
        int r, ret = 0;

        for (const struct weft_option *o = options; o && o->key; o++) {
                option_clear(o, config);
                if (option_is_list(o) && is_assigned(o->key, assignments, n))
                        continue;

                r = option_set_default(o, config, &why);
                if (r < 0) {
                        diagnostics_add(diagnostics, &nowhere, "[%s] %s = %s: %s", section, o->key,
                                        o->def, why.text);
                        ret = -EINVAL;
                }
        }

        return ret;
}

static void refuse_key(const struct weft_option *options, const char *section,
                       const struct config_assignment *a, struct diagnostics *diagnostics)
{
        struct nearest near = { .word = a->key };
        char hint[NEAREST_HINT];

        for (const struct weft_option *o = options; o && o->key; o++)
                nearest_try(&near, o->key);
        nearest_try(&near, "enabled");

        diagnostics_add(diagnostics, &a->origin, "[%s] %s = %s: unknown key%s", section, a->key,
                        a->value, nearest_hint(&near, hint, sizeof(hint)));
}

int options_fill(const struct weft_option *options, void *config, const char *section,
                 const struct config_assignment *assignments, size_t n,
                 struct diagnostics *diagnostics)
{
        const struct config_assignment *a;
        const struct weft_option *o;
        struct weft_error why;
        int ret;

        ret = fill_defaults(options, config, section, assignments, n, diagnostics);

        for (size_t i = 0; i < n; i++) {
                a = &assignments[i];
                o = find_option(options, a->key);
                if (!o) {
                        refuse_key(options, section, a, diagnostics);
                        ret = -EINVAL;
                } else if (option_set(o, config, a->value, &why) < 0) {
                        diagnostics_add(diagnostics, &a->origin, "[%s] %s = %s: %s", section,
                                        a->key, a->value, why.text);
                        ret = -EINVAL;
                }
        }

        return ret;
}

void options_free(const struct weft_option *options, void *config)
{
        for (const struct weft_option *o = options; config && o && o->key; o++)
                option_clear(o, config);
}

size_t option_size(enum weft_option_type type)
{
        static const uint8_t sizes[] = {
                [WEFT_TYPE_BOOL] = sizeof(bool),
                [WEFT_TYPE_U16] = sizeof(uint16_t),
                [WEFT_TYPE_U32] = sizeof(uint32_t),
                [WEFT_TYPE_SIZE] = sizeof(uint64_t),
                [WEFT_TYPE_TIME] = sizeof(uint64_t),
                [WEFT_TYPE_ENUM] = sizeof(uint32_t),
                [WEFT_TYPE_PORTS] = sizeof(struct weft_ports),
        };

        return type < ELEMENTS(sizes) ? sizes[type] : 0;
}
