/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The configuration as its files have it: check and cat-config. Neither needs a daemon or root. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "config/option.h"
#include "config/written.h"
#include "ctl/keys.h"
#include "ctl/verbs.h"
#include "module/check.h"
#include "util.h"

/* Room for a line that the configuration's reader takes. */
enum { LINE_MAX_BYTES = 198 };

/* The files of one instance, read. */
struct reading {
        struct config *config; /* NULL: they cannot be read at all */
        struct written written;
        struct diagnostics diagnostics;
        const char **dirs; /* of modules */
        bool modules_known;
        int error;
};

static bool is_directory(const char *const *dirs)
{
        for (; *dirs; dirs++)
                if (access(*dirs, R_OK | X_OK) == 0)
                        return true;

        return false;
}

static void reading_begin(struct reading *r, const struct call *c)
{
        *r = (struct reading) { .dirs = call_values(c, &option_module_dir, WEFT_MODULE_DIR) };
        if (!r->dirs) {
                r->error = -ENOMEM;
                return;
        }

        r->modules_known = is_directory(r->dirs);
        r->error = config_read(c->paths.root, &r->config, &r->written, &r->diagnostics);
        if (r->error == 0 && r->modules_known)
                modules_check(r->config, r->dirs, &r->diagnostics);
}

static void reading_done(struct reading *r)
{
        written_done(&r->written);
        diagnostics_done(&r->diagnostics);
        (void) config_free(r->config);
        free(r->dirs);
}

static bool is_valid(const struct reading *r)
{
        return r->error == 0 && r->diagnostics.n == 0;
}

/* What is wrong, line by line, and what could not be looked at. */
static void tell_errors(const struct reading *r)
{
        char place[ORIGIN_TEXT];

        for (size_t i = 0; i < r->diagnostics.n; i++)
                (void) fprintf(stderr, "%s: %s\n",
                               origin_format(&r->diagnostics.items[i].origin, place, sizeof(place)),
                               r->diagnostics.items[i].text);
        if (r->error < 0 && r->diagnostics.n == 0)
                (void) fprintf(stderr, "weftctl: cannot read the configuration: %s\n",
                               strerror(-r->error));
        if (r->config && r->config->n_modules > 0 && !r->modules_known)
                (void) fprintf(stderr,
                               "weftctl: no module files in %s: the [module …] sections "
                               "are not checked; name the files' place with --module-dir\n",
                               WEFT_MODULE_DIR);
}

static json_t *errors_json(const struct diagnostics *diagnostics)
{
        json_t *list = json_array();

        for (size_t i = 0; i < diagnostics->n; i++) {
                const struct diagnostic *d = &diagnostics->items[i];

                (void) json_array_append_new(list,
                                             json_pack("{s:s, s:i, s:s}", "file", d->origin.file,
                                                       "line", d->origin.line, "text", d->text));
        }

        return list;
}

/* ---- check -------------------------------------------------------------------------------- */

static int check(const struct call *c)
{
        _cleanup_(reading_done) struct reading r;

        reading_begin(&r, c);
        if (call_has(c, &option_json)) {
                json_auto_t *j = json_pack("{s:o}", "diagnostics", errors_json(&r.diagnostics));

                (void) print_json(j);
        } else {
                tell_errors(&r);
                if (is_valid(&r))
                        (void) printf("the configuration is valid (%zu file%s)\n",
                                      r.config->files.n, r.config->files.n == 1 ? "" : "s");
                if (is_valid(&r) && r.config->files.n == 0)
                        (void) printf("there is no %s/etc/weft/weft.conf and no drop-in: these are "
                                      "the defaults, see weft.conf(5)\n",
                                      c->paths.root);
        }

        return is_valid(&r) ? EXIT_OK : EXIT_FAILED;
}

const struct verb verb_check = {
        .name = "check",
        .summary = "read the configuration and say what is wrong; needs no daemon",
        .text = "Reads ROOT/etc/weft/weft.conf and the drop-ins as weftd does, and the files of "
                "the modules that it names, and reports every error of all files on stderr, each "
                "with file, line, section, key, value and what would be right. Needs neither a "
                "daemon nor root, and changes nothing. What the kernel lacks is told by weftctl "
                "probe.",
        .options = (const struct ctl_option *const[]) { &option_module_dir, NULL },
        .run = check,
};

/* ---- cat-config --------------------------------------------------------------------------- */

/* Who is told of the merged configuration. origin NULL: the value is a default. */
struct teller {
        void (*section)(struct teller *t, const struct written_section *s);
        void (*value)(struct teller *t, const char *key, const char *text,
                      const struct origin *origin);
        json_t *sections; /* of the one that makes JSON */
};

/* A key that was emptied has its default again, and the place where that was done. */
static void tell_values(struct teller *t, const struct written_section *s, const char *key,
                        bool keeps_empty, const char *def)
{
        for (size_t i = 0; i < s->n; i++) {
                const struct written_value *v = &s->values[i];

                if (strcmp(v->key, key) == 0)
                        t->value(t, key, *v->text != '\0' || keeps_empty ? v->text : def ?: "",
                                 &v->origin);
        }
        if (def && *def != '\0' && !written_has(s, key))
                t->value(t, key, def, NULL);
}

static void tell_keys(struct teller *t, const struct reading *r, const struct written_section *s)
{
        const bool node = strcmp(s->kind->name, "node") == 0;

        for (const struct key *k = s->kind->keys; k->o.key; k++)
                tell_values(t, s, k->o.key, key_keeps_empty(k),
                            node && strcmp(k->o.key, "name") == 0 ? r->config->node.name
                                                                  : key_default_text(k));
}

static const struct weft_option *find_option(const struct weft_option *options, const char *key)
{
        for (const struct weft_option *o = options; o && o->key; o++)
                if (strcmp(o->key, key) == 0)
                        return o;

        return NULL;
}

/* What stands in a module's section, once its options say which of them are lists. */
static void merge(const struct written_section *s, const struct weft_option *options,
                  struct written_section *ret)
{
        for (size_t i = 0; i < s->n; i++) {
                const struct written_value *v = &s->values[i];
                const struct weft_option *o = find_option(options, v->key);

                (void) written_put(ret, v->key, o && option_is_list(o), v->text, &v->origin);
        }
}

static void tell_options(struct teller *t, const struct reading *r, const struct module *m,
                         const struct written_section *s)
{
        struct written_section merged = { .kind = s->kind, .name = s->name };
        const struct config_module *section = config_module_find(r->config, s->name);

        merge(s, m->desc.options, &merged);
        tell_values(t, &merged, "enabled", false, "yes");
        for (const struct weft_option *o = m->desc.options; o && o->key; o++)
                tell_values(t, &merged, o->key, option_keeps_empty(o),
                            section && section->enabled ? o->def : NULL);
        written_section_done(&merged);
}

/* Where there is no file of the module, all that is known is what stands in the section. */
static void tell_module(struct teller *t, const struct reading *r, const struct module_set *modules,
                        const struct written_section *s)
{
        const struct module *m = module_set_find(modules, s->name);

        if (m) {
                tell_options(t, r, m, s);
                return;
        }

        for (size_t i = 0; i < s->n; i++)
                t->value(t, s->values[i].key, s->values[i].text, &s->values[i].origin);
}

static void tell_kind(struct teller *t, const struct reading *r, const struct module_set *modules,
                      const struct section *kind)
{
        const struct written_section unwritten = { .kind = kind, .name = "" };
        bool any = kind->named;

        for (size_t i = 0; i < r->written.n; i++) {
                const struct written_section *s = r->written.items[i];

                if (s->kind != kind)
                        continue;
                any = true;
                t->section(t, s);
                if (kind->keys)
                        tell_keys(t, r, s);
                else
                        tell_module(t, r, modules, s);
        }
        if (!any) {
                t->section(t, &unwritten);
                tell_keys(t, r, &unwritten);
        }
}

static void tell_all(struct teller *t, const struct reading *r)
{
        _cleanup_(module_set_close) struct module_set modules = {};
        struct weft_error ignored; /* the check told it */

        for (size_t i = 0; i < r->config->n_modules; i++)
                (void) module_set_open(&modules, r->dirs, r->config->modules[i].name, NULL,
                                       &ignored);
        for (const struct section *kind = sections; kind->name; kind++)
                tell_kind(t, r, &modules, kind);
}

/* The place stands behind the value, or, where the reader would refuse so long a line, above. */
static void print_line(const char *line, const struct origin *origin)
{
        char place[ORIGIN_TEXT] = "default";

        if (origin && origin->file)
                (void) origin_format(origin, place, sizeof(place));
        if (strlen(line) + strlen(place) + 4 <= LINE_MAX_BYTES)
                (void) printf("%s  ; %s\n", line, place);
        else
                (void) printf("# %.*s\n%s\n", LINE_MAX_BYTES - 2, place, line);
}

static void print_section(struct teller *t, const struct written_section *s)
{
        char line[LINE_MAX_BYTES];

        (void) t;
        (void) snprintf(line, sizeof(line), "[%s%s%s]", s->kind->name, s->name[0] ? " " : "",
                        s->name);
        (void) putchar('\n');
        print_line(line, &s->origin);
}

static void print_value(struct teller *t, const char *key, const char *text,
                        const struct origin *origin)
{
        char line[LINE_MAX_BYTES + 1];

        (void) t;
        (void) snprintf(line, sizeof(line), "%s =%s%s", key, *text != '\0' ? " " : "", text);
        print_line(line, origin);
}

static void add_place(json_t *to, const struct origin *origin)
{
        if (origin && origin->file)
                (void) json_object_update_new(
                        to, json_pack("{s:s, s:i}", "file", origin->file, "line", origin->line));
}

static void add_section(struct teller *t, const struct written_section *s)
{
        json_t *j =
                json_pack("{s:s, s:s, s:[]}", "section", s->kind->name, "name", s->name, "values");

        add_place(j, &s->origin);
        (void) json_array_append_new(t->sections, j);
}

static void add_value(struct teller *t, const char *key, const char *text,
                      const struct origin *origin)
{
        json_t *last = json_array_get(t->sections, json_array_size(t->sections) - 1);
        json_t *j = json_pack("{s:s, s:s, s:b}", "key", key, "value", text, "default", !origin);

        add_place(j, origin);
        (void) json_array_append_new(json_object_get(last, "values"), j);
}

static json_t *files_json(const struct config *c)
{
        json_t *list = json_array();

        for (size_t i = 0; i < c->files.n; i++)
                (void) json_array_append_new(list, json_string(c->files.items[i]));

        return list;
}

static void print_as_json(const struct reading *r)
{
        struct teller t = { add_section, add_value, json_array() };
        json_auto_t *j = NULL;

        tell_all(&t, r);
        j = json_pack("{s:o, s:o, s:o}", "files", files_json(r->config), "sections", t.sections,
                      "diagnostics", errors_json(&r->diagnostics));
        (void) print_json(j);
}

static void print_as_text(const struct reading *r)
{
        struct teller t = { print_section, print_value, NULL };

        for (size_t i = 0; i < r->config->files.n; i++)
                (void) printf("# %.*s\n", LINE_MAX_BYTES - 2, r->config->files.items[i]);
        if (r->config->files.n == 0)
                (void) puts("# there is no file: these are the defaults");
        tell_all(&t, r);
        if (r->config->n_modules == 0)
                (void) puts("\n# no [module …] section: weftd chooses modules by itself, "
                            "but with mode = partial");
}

static int cat_config(const struct call *c)
{
        _cleanup_(reading_done) struct reading r;

        reading_begin(&r, c);
        if (r.config && call_has(c, &option_json))
                print_as_json(&r);
        else if (r.config)
                print_as_text(&r);
        (void) fflush(stdout);
        tell_errors(&r);

        return is_valid(&r) ? EXIT_OK : EXIT_FAILED;
}

const struct verb verb_cat_config = {
        .name = "cat-config",
        .summary = "print the merged configuration, each value with its place; needs no daemon",
        .text = "Prints what weft.conf and the drop-ins come to: each section, key and item of a "
                "list once, with file and line of the assignment that counts, and the defaults of "
                "all other keys. The output is a configuration file itself: places are comments. "
                "An empty value shows where a key or list was reset. Errors are told as by "
                "weftctl check, and the exit code is the same; what is wrong is left out.",
        .options = (const struct ctl_option *const[]) { &option_module_dir, NULL },
        .paged = true,
        .run = cat_config,
};
