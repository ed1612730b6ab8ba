/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "config/check.h"
#include "config/edit.h"
#include "config/index.h"
#include "config/ini.h"
#include "config/store.h"
#include "config/values.h"
#include "util.h"

/* ---- text --------------------------------------------------------------------------------- */

static bool mentions(const struct setting *settings, size_t n, const char *key)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(settings[i].key, key) == 0)
                        return true;

        return false;
}

/* Lines that stay, on their way from the old text to the new one. */
struct keeping {
        FILE *to;
        const struct setting *settings;
        size_t n;
};

static void keep_line(void *data, const struct ini_item *item)
{
        struct keeping *k = data;

        if (item->key && !mentions(k->settings, k->n, item->key))
                (void) fprintf(k->to, "%s = %s\n", item->key, item->value);
}

static int keep_stored(struct keeping *k, const char *path, struct diagnostics *diagnostics)
{
        _cleanup_fclose_ FILE *f = fopen(path, "re");
        struct origin origin = { .file = path, .line = 1 };
        struct weft_error why;
        uid_t uid;

        if (!f) {
                diagnostics_add(diagnostics, &origin, "cannot be read: %s", strerror(errno));
                return -EIO;
        }
        if (stored_header(f, &uid, &why) < 0) {
                diagnostics_add(diagnostics, &origin, "%s", why.text);
                return -EIO;
        }

        return ini_read(f, path, keep_line, k, diagnostics);
}

/* A value becomes a line of a file: it must come out of it as it went in. */
static const char *refuse_value(const char *key, const char *value)
{
        if (strlen(key) + strlen(" = ") + strlen(value) > INI_LINE_MAX)
                return "too long: give the key several times, with a part of the list each";
        for (const char *c = value; *c != '\0'; c++)
                if ((unsigned char) *c < ' ' && *c != '\t')
                        return "a value is one line, without control characters";
        if (*value == ';' || strstr(value, " ;") || strstr(value, "\t;"))
                return "\";\" after a blank would begin a comment";

        return NULL;
}

static int write_settings(FILE *to, const struct section *s, const char *name,
                          const struct setting *settings, size_t n, const struct origin *origin,
                          struct diagnostics *diagnostics)
{
        int r = 0;

        for (size_t i = 0; i < n; i++) {
                const char *why = refuse_value(settings[i].key, settings[i].value);
                struct weft_error unknown = { 0 };

                if (!why && !keys_find(s->keys, settings[i].key, &unknown))
                        why = unknown.text;
                if (why) {
                        diagnostics_add(diagnostics, origin, "[%s %s] %s = %s: %s", s->name, name,
                                        settings[i].key, settings[i].value, why);
                        r = -EINVAL;
                } else if (settings[i].value[0] != '\0')
                        (void) fprintf(to, "%s = %s\n", settings[i].key, settings[i].value);
        }

        return r;
}

/* The section as it is to be. */
static int make_text(const struct edit *e, const struct section *s, const char *name,
                     const struct setting *settings, size_t n, const struct origin *origin,
                     char **ret, struct diagnostics *diagnostics)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        struct keeping k = { f, settings, n };
        int r = 0;

        if (!f)
                return -ENOMEM;

        (void) fprintf(f, "[%s %s]\n", s->name, name);
        if (config_object(e->config, s, name))
                r = keep_stored(&k, origin->file, diagnostics);
        if (r == 0)
                r = write_settings(f, s, name, settings, n, origin, diagnostics);
        if (fclose(f) != 0 && r == 0)
                r = -ENOMEM;
        if (r < 0)
                return r;

        *ret = TAKE(text);
        return 0;
}

/* ---- object ------------------------------------------------------------------------------- */

struct parsing {
        const struct section *section;
        void *object;
        const struct origin *origin;
        struct diagnostics *diagnostics;
};

static void parse_item(void *data, const struct ini_item *item)
{
        struct parsing *p = data;
        struct origin origin = *p->origin;
        struct weft_error why;

        if (!item->key)
                return;

        origin.line = item->origin.line + 1; /* below the header line of the file */
        keys_set_origin(p->section->keys, p->object, item->key, &origin);
        if (keys_set(p->section->keys, p->object, item->key, item->value, &why) < 0)
                diagnostics_add(p->diagnostics, p->origin, "[%s] %s = %s: %s", item->section,
                                item->key, item->value, why.text);
}

/* Reads the text into a zeroed object, just as if it stood in a file. */
static int parse_text(const struct section *s, void *object, char *text,
                      const struct origin *origin, struct diagnostics *diagnostics)
{
        struct parsing p = { s, object, origin, diagnostics };
        _cleanup_fclose_ FILE *f = fmemopen(text, strlen(text), "r");
        size_t before = diagnostics->n;
        struct weft_error why;

        if (!f)
                return -ENOMEM;
        if (ini_read(f, origin->file, parse_item, &p, diagnostics) < 0)
                return -ENOMEM;
        if (diagnostics->n == before && s->complete && s->complete(object, &why) < 0)
                diagnostics_add(diagnostics, origin, "[%s %s] %s", s->name, object_name(s, object),
                                why.text);

        return diagnostics->n > before ? -EINVAL : 0;
}

static int make_object(const struct section *s, const char *name, char *text,
                       const struct origin *origin, void **ret, struct diagnostics *diagnostics)
{
        _cleanup_free_ void *object = calloc(1, s->size);
        int r;

        if (!object || object_init(s, object, name, origin) < 0)
                return -ENOMEM;

        r = parse_text(s, object, text, origin, diagnostics);
        if (r < 0) {
                object_done(s, object);
                return r;
        }

        *ret = TAKE(object);
        return 0;
}

/* ---- the configuration -------------------------------------------------------------------- */

static void *take_out(struct config *c, const struct section *s, size_t i)
{
        void *copy = malloc(s->size);

        if (copy)
                memcpy(copy, section_object(s, c, i), s->size);
        return copy;
}

static void put_in(struct config *c, const struct section *s, size_t i, const void *object)
{
        struct handle *h = index_find(c, s, object_name(s, object));

        memcpy(section_object(s, c, i), object, s->size);
        h->name = object_name(s, object);
        h->index = i;
}

static size_t *count_of(struct config *c, const struct section *s)
{
        return (size_t *) ((char *) c + s->count_at);
}

/* The object's bytes are the configuration's from now on. */
static int append(struct config *c, const struct section *s, const void *object)
{
        size_t i = section_count(s, c);

        if (list_grow((char *) c + s->at, i, s->size) < 0 ||
            !index_add(c, s, object_name(s, object), i))
                return -ENOMEM;

        memcpy(section_object(s, c, i), object, s->size);
        ++*count_of(c, s);
        return 0;
}

/* The last one takes the place of the one that goes, whose bytes are somebody else's by now. */
static void shrink(struct config *c, const struct section *s, size_t i)
{
        size_t last = --*count_of(c, s);

        index_del(c, index_find(c, s, object_name(s, section_object(s, c, i))));
        if (i != last)
                put_in(c, s, i, section_object(s, c, last));
}

/* ---- changes ------------------------------------------------------------------------------ */

static struct edit_change *new_change(struct edit *e, const struct section *s, const char *name)
{
        struct edit_change *change;

        if (list_grow(&e->changes, e->n, sizeof(*e->changes)) < 0)
                return NULL;

        change = &e->changes[e->n];
        *change = (struct edit_change) { .section = s, .name = strdup(name) };
        if (!change->name)
                return NULL;

        e->n++;
        return change;
}

static int check_origin(const struct section *s, const void *object, struct weft_error *reterr)
{
        struct origin origin = object_origin(s, object);
        char place[ORIGIN_TEXT];

        if (origin.runtime)
                return 0;

        return weft_fail(reterr, -EROFS,
                         "[%s %s] is configured in %.300s: change it there and reload", s->name,
                         object_name(s, object), origin_format(&origin, place, sizeof(place)));
}

/* Takes the draft over, also when it fails. */
static int join(struct edit *e, struct edit_change *change, void *draft,
                struct diagnostics *diagnostics)
{
        struct config *c = e->config;
        const struct section *s = change->section;
        const struct handle *there = index_find(c, s, change->name);
        size_t before = diagnostics->n;
        void *old = there ? take_out(c, s, there->index) : NULL;
        int r = there && !old ? -ENOMEM : 0;

        if (old)
                config_unclaim(c, s, old);
        if (r == 0)
                config_check_object(c, s, draft, diagnostics);
        if (r == 0 && diagnostics->n > before)
                r = -EINVAL;
        if (r == 0 && !there)
                r = append(c, s, draft);
        if (r < 0) {
                config_unclaim(c, s, draft);
                if (old)
                        config_claim(c, s, old, diagnostics);
                free(old);
                object_done(s, draft);
                return r;
        }

        if (there)
                put_in(c, s, there->index, draft);
        change->before = old;
        return 0;
}

int edit_set(struct edit *e, const struct section *s, const char *name,
             const struct setting *settings, size_t n, struct diagnostics *diagnostics,
             struct weft_error *reterr)
{
        _cleanup_free_ char *path = stored_path(e->root, s->name, name);
        struct origin origin = { .line = 2, .runtime = true, .uid = e->uid };
        const void *there = config_object(e->config, s, name);
        _cleanup_free_ void *draft = NULL;
        struct edit_change *change;
        int r;

        r = there ? check_origin(s, there, reterr) : 0;
        if (r < 0)
                return r;
        for (size_t i = 0; i < e->n; i++)
                if (e->changes[i].section == s && strcmp(e->changes[i].name, name) == 0)
                        return weft_fail(reterr, -EINVAL, "%s %s is named twice", s->name, name);

        origin.file = path ? config_keep_path(e->config, path) : NULL;
        change = origin.file ? new_change(e, s, name) : NULL;
        if (!change)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = make_text(e, s, name, settings, n, &origin, &change->text, diagnostics);
        if (r == 0)
                r = make_object(s, name, change->text, &origin, &draft, diagnostics);
        if (r == 0)
                r = join(e, change, draft, diagnostics);
        if (r < 0) {
                e->n--;
                free(change->name);
                free(change->text);
                return weft_fail(reterr, r, r == -ENOMEM ? "out of memory" : "%s %s is refused",
                                 s->name, name);
        }

        return 0;
}

int edit_remove(struct edit *e, const struct section *s, const char *name,
                struct weft_error *reterr)
{
        const struct handle *there = index_find(e->config, s, name);
        struct edit_change *change;
        int r;

        if (!there)
                return weft_fail(reterr, -ENOENT, "there is no %s %s: weftctl %s list shows all",
                                 s->name, name, s->name);
        r = check_origin(s, section_object(s, e->config, there->index), reterr);
        if (r < 0)
                return r;

        change = new_change(e, s, name);
        if (!change)
                return weft_fail(reterr, -ENOMEM, "out of memory");
        change->removed = true;
        change->before = take_out(e->config, s, there->index);
        if (!change->before) {
                e->n--;
                free(change->name);
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        config_unclaim(e->config, s, change->before);
        shrink(e->config, s, there->index);
        return 0;
}

int edit_store(const struct edit *e, struct weft_error *reterr)
{
        _cleanup_free_ struct store_change *changes = calloc(e->n + 1, sizeof(*changes));

        if (e->n == 0)
                return 0;
        if (!changes)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        for (size_t i = 0; i < e->n; i++)
                changes[i] = (struct store_change) {
                        .kind = e->changes[i].section->name,
                        .name = e->changes[i].name,
                        .uid = e->uid,
                        .text = e->changes[i].text,
                };

        return store_apply(e->root, changes, e->n, reterr);
}

/* Takes the object out of the configuration and frees it. */
static void forget(struct config *c, const struct section *s, const struct handle *h,
                   const void *instead)
{
        _cleanup_free_ void *now = take_out(c, s, h->index);

        if (!now)
                return;

        config_unclaim(c, s, now);
        if (instead)
                put_in(c, s, h->index, instead);
        else
                shrink(c, s, h->index);
        object_done(s, now);
}

static void undo(struct config *c, const struct edit_change *change)
{
        struct diagnostics none = { 0 };

        if (!change->removed)
                forget(c, change->section, index_find(c, change->section, change->name),
                       change->before);
        else
                (void) append(c, change->section, change->before);

        if (change->before)
                config_claim(c, change->section, change->before, &none);
        diagnostics_done(&none);
}

void edit_undo(struct edit *e)
{
        for (size_t i = e->n; i-- > 0;) {
                undo(e->config, &e->changes[i]);
                free(TAKE(e->changes[i].before)); /* its content is the configuration's again */
        }
}

void edit_done(struct edit *e)
{
        for (size_t i = 0; i < e->n; i++) {
                struct edit_change *change = &e->changes[i];

                if (change->before)
                        object_done(change->section, change->before);
                free(change->before);
                free(change->name);
                free(change->text);
        }
        free(e->changes);
        e->changes = NULL;
        e->n = 0;
}

void *edit_after(const struct edit *e, const struct edit_change *change)
{
        return change->removed ? NULL : config_object(e->config, change->section, change->name);
}
