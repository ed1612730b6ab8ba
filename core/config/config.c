/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config/check.h"
#include "config/files.h"
#include "config/index.h"
#include "config/ini.h"
#include "config/nearest.h"
#include "config/option.h"
#include "config/sections.h"
#include "config/store.h"
#include "config/values.h"
#include "config/written.h"
#include "util.h"

struct loader {
        struct config *config;
        struct diagnostics *diagnostics;
        struct handle *current; /* NULL: below a header that was refused */
        struct written *written;
        struct written_section *writing;
        const struct stored_file *stored; /* NULL: the file is an operator's */
        bool stored_seen;                 /* the section that it is to have stood in it */
        uid_t uid;                        /* who set what is stored */
        int error;                        /* what has nothing to do with what is written */
};

/* ---- objects ------------------------------------------------------------------------------ */

const char *config_keep_path(struct config *c, const char *path)
{
        char **found = tfind(path, &c->stored, (int (*)(const void *, const void *)) strcmp);
        char *copy;

        if (found)
                return *found;

        copy = strdup(path);
        if (copy && !tsearch(copy, &c->stored, (int (*)(const void *, const void *)) strcmp))
                free(TAKE(copy));
        return copy;
}

/* Appends an object of a named section, with defaults and origin; its number in *ret. */
static int add_object(struct config *c, const struct section *s, const char *name,
                      const struct origin *origin, size_t *ret)
{
        size_t *count = (size_t *) ((char *) c + s->count_at);
        void *object;

        if (list_grow((char *) c + s->at, *count, s->size) < 0)
                return -ENOMEM;

        object = section_object(s, c, *count);
        memset(object, 0, s->size);
        if (object_init(s, object, name, origin) < 0)
                return -ENOMEM;

        *ret = (*count)++;
        return 0;
}

/* The handle of a section, made where it is the first of its name; NULL without memory. */
static struct handle *get_handle(struct loader *l, const struct section *s, const char *name,
                                 const struct origin *origin)
{
        struct handle *h = index_find(l->config, s, name);
        size_t i = 0;

        if (h)
                return h;

        l->error = -ENOMEM;
        if (s->named && add_object(l->config, s, name, origin, &i) < 0)
                return NULL;

        h = index_add(l->config, s, object_name(s, section_object(s, l->config, i)), i);
        if (h)
                l->error = 0;
        return h;
}

/* ---- headers ------------------------------------------------------------------------------ */

static const struct section *find_section(const char *kind, struct nearest *near)
{
        for (const struct section *s = sections; s->name; s++) {
                if (strcmp(s->name, kind) == 0)
                        return s;
                nearest_try(near, s->name);
        }

        return NULL;
}

static void refuse_section(struct loader *l, const struct ini_item *item,
                           const struct nearest *near)
{
        char hint[NEAREST_HINT];

        diagnostics_add(l->diagnostics, &item->origin, "[%s]: unknown section%s", item->section,
                        nearest_hint(near, hint, sizeof(hint)));
}

static void refuse_name(struct loader *l, const struct ini_item *item, const struct section *s)
{
        const char *right =
                !s->named  ? "this section has no name"
                : !s->keys ? "a name of lower-case letters, digits and - must follow"
                           : "a name of letters, digits, \".\", \"_\" and \"-\" must follow";

        diagnostics_add(l->diagnostics, &item->origin, "[%s]: %s: write [%s%s]", item->section,
                        right, s->name, s->named ? " NAME" : "");
}

/* What is set at run time has a file to itself, and a name that no file of the operator's has. */
static bool may_stand(struct loader *l, const struct ini_item *item, const struct section *s,
                      const char *name)
{
        const struct handle *there = index_find(l->config, s, name);
        struct origin origin;

        if (!l->stored)
                return true;
        if (strcmp(s->name, l->stored->kind) != 0 || strcmp(name, l->stored->name) != 0) {
                diagnostics_add(l->diagnostics, &item->origin,
                                "[%s] does not belong here: the file is that of [%s %s]; "
                                "repair or remove it",
                                item->section, l->stored->kind, l->stored->name);
                return false;
        }
        l->stored_seen = true;
        if (!there)
                return true;

        origin = object_origin(s, section_object(s, l->config, there->index));
        if (!origin.runtime)
                diagnostics_add(l->diagnostics, &origin,
                                "[%s] was set at run time already, see %s: weftctl %s del %s "
                                "(or remove that file where no weftd runs), or take the "
                                "section away here",
                                item->section, l->stored->path, s->name, name);
        return origin.runtime;
}

static void take_header(struct loader *l, const struct ini_item *item)
{
        char kind[INI_SECTION_MAX + 1], *name;
        struct nearest near = { .word = kind };
        const struct section *s;

        (void) snprintf(kind, sizeof(kind), "%s", item->section);
        name = kind + strcspn(kind, " \t");
        if (*name != '\0')
                *name++ = '\0';
        name += strspn(name, " \t");

        l->current = NULL;
        l->writing = NULL;
        s = find_section(kind, &near);
        if (!s)
                refuse_section(l, item, &near);
        else if (s->named != (*name != '\0') || (s->named && !is_object_name(s, name)))
                refuse_name(l, item, s);
        else if (may_stand(l, item, s, name))
                l->current = get_handle(l, s, name, &item->origin);
        if (l->current) {
                l->writing = written_section(l->written, s, name, &item->origin);
                l->error = l->writing ? l->error : -ENOMEM;
        }

        if (l->current && s->at == offsetof(struct config, node) &&
            l->config->node.origin.line == 0)
                l->config->node.origin = item->origin;
}

/* ---- assignments -------------------------------------------------------------------------- */

static int set_enabled(struct config_module *m, const char *value, struct weft_error *reterr)
{
        int r = parse_bool(*value != '\0' ? value : "yes", &m->enabled);

        return r < 0 ? weft_fail(reterr, r, "must be yes or no") : 0;
}

static int keep_assignment(struct config_module *m, const struct ini_item *item,
                           struct weft_error *reterr)
{
        struct config_assignment a = {
                .key = strdup(item->key),
                .value = strdup(item->value),
                .origin = item->origin,
        };

        if (!a.key || !a.value ||
            list_grow(&m->assignments, m->n_assignments, sizeof(*m->assignments)) < 0) {
                free(a.key);
                free(a.value);
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        m->assignments[m->n_assignments++] = a;
        return 0;
}

static int assign(struct handle *e, void *object, const struct ini_item *item,
                  struct weft_error *reterr)
{
        if (e->section->keys) {
                keys_set_origin(e->section->keys, object, item->key, &item->origin);
                return keys_set(e->section->keys, object, item->key, item->value, reterr);
        }
        if (strcmp(item->key, "enabled") == 0)
                return set_enabled(object, item->value, reterr);

        return keep_assignment(object, item, reterr);
}

/* Of a module's options nothing is known here but that they are no "enabled". */
static int note(struct loader *l, const struct section *s, const struct ini_item *item)
{
        if (s->keys || strcmp(item->key, "enabled") == 0)
                return written_put(l->writing, item->key,
                                   s->keys && keys_is_list(s->keys, item->key), item->value,
                                   &item->origin);

        return written_append(l->writing, item->key, item->value, &item->origin);
}

static void take_assignment(struct loader *l, const struct ini_item *item)
{
        struct handle *e = l->current;
        struct weft_error why;

        if (!e)
                return;
        if (assign(e, section_object(e->section, l->config, e->index), item, &why) == 0) {
                if (l->writing && note(l, e->section, item) < 0)
                        l->error = -ENOMEM;
                return;
        }

        e->refused = true;
        diagnostics_add(l->diagnostics, &item->origin, "[%s] %s = %s: %s", item->section, item->key,
                        item->value, why.text);
}

static void take_item(void *data, const struct ini_item *from)
{
        struct ini_item item = *from;
        struct loader *l = data;

        item.origin.runtime = l->stored;
        item.origin.uid = l->uid;
        if (item.key)
                take_assignment(l, &item);
        else
                take_header(l, &item);
}

/* ---- files -------------------------------------------------------------------------------- */

static int open_file(const char *path, FILE **ret)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode)) /* a FIFO would hold the daemon up */
                return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;

        *ret = fopen(path, "re");
        return *ret ? 0 : -errno;
}

static int read_file(struct loader *l, const char *path)
{
        _cleanup_fclose_ FILE *f = NULL;
        struct origin origin = { .file = path };
        int r;

        l->current = NULL;
        r = open_file(path, &f);
        if (r == 0)
                r = ini_read(f, path, take_item, l, l->diagnostics);
        if (r < 0)
                diagnostics_add(l->diagnostics, &origin, "cannot be read: %s%s",
                                r == -EINVAL ? "not a file" : strerror(-r),
                                r == -EINVAL || r == -EISDIR ? ": take it away" : "");

        return r;
}

static int read_stored(struct loader *l, const struct stored_file *file)
{
        _cleanup_fclose_ FILE *f = NULL;
        const char *path = config_keep_path(l->config, file->path);
        const struct origin origin = { .file = file->path, .line = 1 };
        struct weft_error why;
        int r;

        if (!path)
                return -ENOMEM;

        l->current = NULL;
        r = open_file(path, &f);
        if (r == 0 && stored_header(f, &l->uid, &why) < 0) {
                diagnostics_add(l->diagnostics, &origin, "%s", why.text);
                return 0;
        }

        l->stored = file;
        l->stored_seen = false;
        if (r == 0)
                r = ini_read(f, path, take_item, l, l->diagnostics);
        l->stored = NULL;
        l->uid = 0;

        if (r < 0)
                diagnostics_add(l->diagnostics, &origin, "cannot be read: %s", strerror(-r));
        else if (!l->stored_seen)
                diagnostics_add(l->diagnostics, &origin,
                                "there is no [%s %s] in it: repair or remove the file", file->kind,
                                file->name);

        return r;
}

static int read_objects(struct loader *l, const char *root)
{
        _cleanup_(stored_files_done) struct stored_files files = {};
        struct origin origin = { .file = root };
        struct weft_error why;
        int r = stored_list(root, &files, &why);

        if (r < 0)
                diagnostics_add(l->diagnostics, &origin, "%s", why.text);

        for (size_t i = 0; i < files.n; i++) {
                int k = read_stored(l, &files.items[i]);

                if (r == 0)
                        r = k;
        }

        return r;
}

/* Reads all of them, whatever is wrong with one; the first failure. */
static int read_files(struct loader *l, const char *root)
{
        struct origin origin = { .file = root };
        struct strings *files = &l->config->files;
        struct weft_error why;
        int r, ret;

        ret = config_files(root, files, &why);
        if (ret < 0)
                diagnostics_add(l->diagnostics, &origin, "%s", why.text);

        for (size_t i = 0; i < files->n; i++) {
                r = read_file(l, files->items[i]);
                if (r < 0 && ret == 0)
                        ret = r;
        }

        return ret;
}

/* ---- the whole ---------------------------------------------------------------------------- */

static void check_complete(const void *node, VISIT visit, void *data)
{
        const struct handle *e = *(struct handle *const *) node;
        struct loader *l = data;
        struct weft_error why;
        struct origin origin;
        void *object;

        if ((visit != leaf && visit != postorder) || e->refused || !e->section->complete)
                return;

        object = section_object(e->section, l->config, e->index);
        if (e->section->complete(object, &why) == 0)
                return;

        origin = object_origin(e->section, object);
        diagnostics_add(l->diagnostics, &origin, "[%s %s] %s", e->section->name, e->name, why.text);
}

static int name_node(struct config_node *n)
{
        char name[256] = "";

        if (n->name)
                return 0;

        (void) gethostname(name, sizeof(name) - 1);
        n->name = strdup(name[0] != '\0' ? name : "localhost");
        return n->name ? 0 : -ENOMEM;
}

static struct config *config_new(void)
{
        struct config *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;

        c->node.origin.file = "default";
        for (const struct section *s = sections; s->name; s++)
                if (!s->named && keys_default(s->keys, section_object(s, c, 0), NULL) < 0)
                        return config_free(c);

        return c;
}

static void config_freep(struct config **c)
{
        config_free(*c);
}

int config_read(const char *root, struct config **ret, struct written *written,
                struct diagnostics *diagnostics)
{
        _cleanup_(config_freep) struct config *c = config_new();
        _cleanup_(written_done) struct written own = {};
        struct loader l = {
                .config = c,
                .diagnostics = diagnostics,
                .written = written ?: &own,
        };
        int r;

        if (!c)
                return -ENOMEM;

        r = read_files(&l, root);
        if (r == 0)
                r = read_objects(&l, root);
        if (r == 0)
                r = l.error < 0 ? l.error : name_node(&c->node);
        if (r < 0)
                return r;

        twalk_r(c->index, check_complete, &l);
        config_check(c, l.written, diagnostics);

        *ret = TAKE(c);
        return 0;
}

int config_load(const char *root, struct config **ret, struct diagnostics *diagnostics)
{
        _cleanup_(config_freep) struct config *c = NULL;
        size_t before = diagnostics->n;
        int r = config_read(root, &c, NULL, diagnostics);

        if (r == 0 && diagnostics->n > before)
                r = -EINVAL;
        if (r == 0)
                *ret = TAKE(c);

        return r;
}

static void clear_section(const struct section *s, struct config *c)
{
        void *objects;

        for (size_t i = 0; i < section_count(s, c); i++)
                object_done(s, section_object(s, c, i));

        if (s->named) {
                memcpy(&objects, (char *) c + s->at, sizeof(objects));
                free(objects);
        }
}

struct config *config_free(struct config *c)
{
        if (!c)
                return NULL;

        for (const struct section *s = sections; s->name; s++)
                clear_section(s, c);
        strings_done(&c->files);
        tdestroy(c->stored, free);
        config_unclaim_all(c);
        index_done(c);
        free(c);

        return NULL;
}
