/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <string.h>

#include <bpf/libbpf.h>

#include "ctl/describe.h"
#include "ctl/table.h"
#include "ctl/wrap.h"
#include "names.h"
#include "util.h"


/* ---- lists as text ------------------------------------------------------------------------ */

struct text {
        char chars[256];
        size_t n;
};

static void __attribute__((format(printf, 3, 4)))
add(struct text *t, const char *between, const char *format, ...)
{
        va_list ap;

        if (t->n > 0 && t->n < sizeof(t->chars))
                t->n += (size_t) snprintf(t->chars + t->n, sizeof(t->chars) - t->n, "%s", between);
        if (t->n >= sizeof(t->chars))
                return;

        va_start(ap, format);
        t->n += (size_t) vsnprintf(t->chars + t->n, sizeof(t->chars) - t->n, format, ap);
        va_end(ap);
}

static struct text names_text(const char *const *names)
{
        struct text t = { 0 };

        for (; names && *names; names++)
                add(&t, ", ", "%s", *names);

        return t;
}

static struct text hooks_text(const struct stage_tags *s)
{
        struct text t = { 0 };

        for (unsigned i = 0; i < WEFT_HOOKS; i++)
                if (s->hooks >> i & 1)
                        add(&t, ", ", "%s", hook_names[i]);

        return t;
}

static struct text order_text(const struct stage_tags *s)
{
        struct text t = { 0 };

        for (char **name = s->after; name && *name; name++)
                add(&t, ", ", "after %s", *name);
        for (char **name = s->before; name && *name; name++)
                add(&t, ", ", "before %s", *name);

        return t;
}

/* When it runs without being named. */
static struct text chosen_text(const struct weft_module *m)
{
        struct text t = { 0 };

        if (!m->role)
                return t;

        add(&t, "", "for %s, rank %d, where no section names a module%s", m->role, m->rank,
            condition_text(m->condition));
        for (const char *const *p = m->chosen_options; p && p[0]; p += 2)
                add(&t, "", "; then with %s = %s", p[0], p[1]);

        return t;
}

static const char *map_type(const struct bpf_map *m)
{
        return libbpf_bpf_map_type_str(bpf_map__type(m)) ?: "unknown";
}

/* ---- facts of one line -------------------------------------------------------------------- */

/* What a module may say of itself in a line, as text and Markdown show it; an empty one is left
 * out. */
struct fact_line {
        const char *title;
        struct text value;
};

enum { FACTS = 10 };

static void facts_of(const struct description *d, struct fact_line ret[static FACTS])
{
        const struct weft_module *m = &d->module->desc;
        const uint32_t stage_abi = d->stages.n > 0 ? d->stages.items[0].abi : 0;
        struct fact_line facts[FACTS] = {
                { .title = "version" },
                { .title = "ABI" },
                { "provides", names_text(m->provides) },
                { .title = "exclusive" },
                { "conflicts", names_text(m->conflicts) },
                { .title = "divides" },
                { .title = "dsr" },
                { .title = "tracking" },
                { "chosen", chosen_text(m) },
                { .title = "self-tests" },
        };
        unsigned tests = 0;

        add(&facts[0].value, "", "%s", m->version ?: "that of weft");
        add(&facts[1].value, "", "module %u.%u", m->abi >> 16, m->abi & 0xffff);
        if (stage_abi)
                add(&facts[1].value, ", ", "stages %u.%u", stage_abi >> 16, stage_abi & 0xffff);
        if (m->exclusive)
                add(&facts[3].value, "", "%s", m->exclusive);
        if (m->divides)
                add(&facts[5].value, "", "%s, between the modules that it needs", m->divides);
        if (m->takes_dsr)
                add(&facts[6].value, "",
                    "packets may tell this node which address an answer comes from");
        if (m->tracks_replies)
                add(&facts[7].value, "", "every connection of an endpoint is remembered");
        while (m->tests && m->tests[tests].name)
                tests++;
        if (tests)
                add(&facts[9].value, "", "%u", tests);
        memcpy(ret, facts, sizeof(facts));
}

/* ---- text --------------------------------------------------------------------------------- */

static const struct column need_columns[] = {
        { "NEED", 0 }, { "NAME", 0 }, { "", 0 }, { "WHY", 0 }, { 0 }
};
static const struct column option_columns[] = {
        { "OPTION", 0 }, { "TYPE", 0 }, { "DEFAULT", 0 }, { "MEANING", 0 }, { 0 }
};
static const struct column reason_columns[] = { { "DROP REASON", 0 }, { "MEANING", 0 }, { 0 } };
static const struct column counter_columns[] = { { "COUNTER", 0 }, { "MEANING", 0 }, { 0 } };
static const struct column stage_columns[] = {
        { "STAGE", 0 }, { "HOOKS", 0 }, { "PHASE", 0 }, { "ORDER", 0 }, { 0 }
};
static const struct column map_columns[] = { { "MAP", 0 }, { "TYPE", 0 },  { "CLASS", 0 },
                                             { "KEY", 1 }, { "VALUE", 1 }, { "ENTRIES", 1 },
                                             { 0 } };

static void print_and_free(struct table *t, bool any, FILE *f)
{
        if (any) {
                (void) fputc('\n', f);
                table_print(t, f, 0);
        }
        (void) table_free(t);
}

static void text_needs(const struct weft_module *m, FILE *f)
{
        struct table *t = table_new(need_columns);

        for (const struct weft_need *n = m->needs; n && n->kind; n++) {
                table_cell(t, "%s", need_kind_word(n->kind));
                table_cell(t, "%s", n->name);
                table_cell(t, "%s", n->soft ? "wanted" : "needed");
                table_cell(t, "%s", n->why ?: "");
        }
        print_and_free(t, m->needs && m->needs->kind, f);
}

static void text_options(const struct weft_module *m, FILE *f)
{
        struct table *t = table_new(option_columns);
        char type[256];

        for (const struct weft_option *o = m->options; o && o->key; o++) {
                table_cell(t, "%s", o->key);
                table_cell(t, "%s", option_type_text(o, type, sizeof(type)));
                table_cell(t, "%s", o->def ?: "");
                table_cell(t, "%s", o->help ?: "");
        }
        print_and_free(t, m->options && m->options->key, f);
}

static void text_named(const struct weft_named *named, const struct column *columns, FILE *f)
{
        struct table *t = table_new(columns);
        bool any = named && named->name;

        for (; named && named->name; named++) {
                table_cell(t, "%s", named->name);
                table_cell(t, "%s", named->help ?: "");
        }
        print_and_free(t, any, f);
}

static void text_stages(const struct description *d, FILE *f)
{
        struct table *t = table_new(stage_columns);

        for (size_t i = 0; i < d->stages.n; i++) {
                const struct stage_tags *s = &d->stages.items[i];

                table_cell(t, "%s", s->name);
                table_cell(t, "%s", hooks_text(s).chars);
                table_cell(t, "%s", phase_names[s->phase]);
                table_cell(t, "%s", order_text(s).chars);
        }
        print_and_free(t, d->stages.n > 0, f);
}

static void text_maps(const struct description *d, FILE *f)
{
        struct table *t = table_new(map_columns);
        char class[16];

        for (struct bpf_map *m = NULL; (m = description_next_map(d, m));) {
                table_cell(t, "%s", bpf_map__name(m));
                table_cell(t, "%s", map_type(m));
                table_cell(t, "%s", map_class_text(d, m, class));
                table_cell(t, "%u", bpf_map__key_size(m));
                table_cell(t, "%u", bpf_map__value_size(m));
                table_cell(t, "%u", bpf_map__max_entries(m));
        }
        print_and_free(t, description_next_map(d, NULL), f);
}

void description_text(const struct description *d, FILE *f)
{
        const struct weft_module *m = &d->module->desc;
        struct fact_line facts[FACTS];

        (void) fprintf(f, "%s: %s\n", m->name, m->summary);
        (void) fprintf(f, "%-11s%s (loaded into weftctl to read it)\n", "file", d->module->path);
        facts_of(d, facts);
        for (size_t i = 0; i < FACTS; i++)
                if (facts[i].value.n > 0)
                        (void) fprintf(f, "%-11s%s\n", facts[i].title, facts[i].value.chars);

        text_needs(m, f);
        text_options(m, f);
        text_stages(d, f);
        text_maps(d, f);
        text_named(m->reasons, reason_columns, f);
        text_named(m->counters, counter_columns, f);
}

/* ---- Markdown ----------------------------------------------------------------------------- */

static void markdown_needs(const struct weft_module *m, FILE *f)
{
        if (!m->needs || !m->needs->kind)
                return;

        (void) fprintf(f, "\n## Needs\n\n| Kind | Name | | Why |\n|---|---|---|---|\n");
        for (const struct weft_need *n = m->needs; n->kind; n++)
                (void) fprintf(f, "| %s | `%s` | %s | %s |\n", need_kind_word(n->kind), n->name,
                               n->soft ? "wanted" : "needed", n->why ?: "");
}

static void markdown_options(const struct weft_module *m, FILE *f)
{
        char type[256];

        if (!m->options || !m->options->key) {
                (void) fprintf(f, "\nIt has no options.\n");
                return;
        }

        (void) fprintf(f, "\n## Options of `[module %s]`\n\n", m->name);
        (void) fprintf(f, "| Option | Type | Default | Meaning |\n|---|---|---|---|\n");
        for (const struct weft_option *o = m->options; o->key; o++) {
                const char *tick = o->def && *o->def ? "`" : "";

                (void) fprintf(f, "| `%s` | %s | %s%s%s | %s |\n", o->key,
                               option_type_text(o, type, sizeof(type)), tick, o->def ?: "", tick,
                               o->help ?: "");
        }
}

static void markdown_named(const struct weft_named *named, const char *heading, const char *what,
                           FILE *f)
{
        if (!named || !named->name)
                return;

        (void) fprintf(f, "\n## %s\n\n| %s | Meaning |\n|---|---|\n", heading, what);
        for (; named->name; named++)
                (void) fprintf(f, "| `%s` | %s |\n", named->name, named->help ?: "");
}

static void markdown_stages(const struct description *d, FILE *f)
{
        if (d->stages.n == 0)
                return;

        (void) fprintf(f, "\n## Stages\n\n| Stage | Hooks | Phase | Order |\n|---|---|---|---|\n");
        for (size_t i = 0; i < d->stages.n; i++) {
                const struct stage_tags *s = &d->stages.items[i];

                (void) fprintf(f, "| `%s` | %s | %s | %s |\n", s->name, hooks_text(s).chars,
                               phase_names[s->phase], order_text(s).chars);
        }
}

static void markdown_maps(const struct description *d, FILE *f)
{
        char class[16];

        if (!description_next_map(d, NULL))
                return;

        (void) fprintf(f, "\n## Maps\n\n| Map | Type | Class | Key | Value | Entries |\n");
        (void) fprintf(f, "|---|---|---|--:|--:|--:|\n");
        for (struct bpf_map *m = NULL; (m = description_next_map(d, m));)
                (void) fprintf(f, "| `%s` | %s | %s | %u | %u | %u |\n", bpf_map__name(m),
                               map_type(m), map_class_text(d, m, class), bpf_map__key_size(m),
                               bpf_map__value_size(m), bpf_map__max_entries(m));
}

void description_markdown(const struct description *d, FILE *f)
{
        const struct weft_module *m = &d->module->desc;
        struct fact_line facts[FACTS];

        (void) fprintf(f, "<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->\n");
        (void) fprintf(f, "<!-- Made by weftctl module describe --format markdown. -->\n");
        (void) fprintf(f, "# %s\n\n%s.\n\n| | |\n|---|---|\n", m->name, m->summary);
        facts_of(d, facts);
        for (size_t i = 0; i < FACTS; i++)
                if (facts[i].value.n > 0)
                        (void) fprintf(f, "| %s | %s |\n", facts[i].title, facts[i].value.chars);

        markdown_options(m, f);
        markdown_needs(m, f);
        markdown_stages(d, f);
        markdown_maps(d, f);
        markdown_named(m->reasons, "Drop reasons", "Reason", f);
        markdown_named(m->counters, "Counters", "Counter", f);
}

/* ---- the sample of conf.d ----------------------------------------------------------------- */

static void sample_option(const struct weft_option *o, FILE *f)
{
        char type[256], text[1024];

        (void) snprintf(text, sizeof(text), "%s (%s)", o->help ?: "",
                        option_type_text(o, type, sizeof(type)));
        (void) fputc('\n', f);
        wrap_comment(f, text);
        (void) fprintf(f, "#%s =%s%s\n", o->key, o->def && *o->def ? " " : "", o->def ?: "");
}

void description_sample(const struct description *d, FILE *f)
{
        const struct weft_module *m = &d->module->desc;
        const bool options = m->options && m->options->key;
        char text[1024];

        (void) snprintf(text, sizeof(text),
                        "%s. Copy to /etc/weft/conf.d/20-%s.conf and take the # off the section's "
                        "line, which "
                        "alone loads the module. %s",
                        m->summary, m->name,
                        options ? "The values below are the defaults." : "It has no options.");
        (void) fprintf(f, "# SPDX-License-Identifier: LGPL-2.1-or-later\n");
        wrap_comment(f, text);
        (void) fprintf(f, "\n#[module %s]\n", m->name);
        for (const struct weft_option *o = m->options; o && o->key; o++)
                sample_option(o, f);
}
