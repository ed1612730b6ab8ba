/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include <weft/types.h>

#include "ctl/keys.h"
#include "ctl/manual.h"
#include "ctl/verbs.h"
#include "names.h"
#include "paths.h"
#include "util.h"

struct manual {
        FILE *f;
        const char *const *samples;
        struct weft_error *reterr;
};

/* ---- mdoc --------------------------------------------------------------------------------- */

enum { WIDTH = 79 };

/* One word; what mdoc(7) would take for a command or an escape is none. */
static int print_word(const struct manual *m, const char *word, int n, bool begins_line,
                      bool capital)
{
        int printed = n;

        if (begins_line && (*word == '.' || *word == '\''))
                printed += fprintf(m->f, "\\&");
        for (int i = 0; i < n; i++) {
                (void) fputc(capital && i == 0 ? toupper((unsigned char) *word) : word[i], m->f);
                if (word[i] == '\\')
                        printed += fprintf(m->f, "e");
        }

        return printed;
}

/* Sentences as text lines, a new one for each: so mdoc(7) wants it. "\n\n" begins a paragraph.
 * capital: the first one begins with one. */
static void print_text(const struct manual *m, const char *text, bool capital)
{
        int at = 0;
        bool ended = false; /* a sentence */

        while (*text != '\0') {
                int n = (int) strcspn(text, " \n");

                if (at > 0 && (ended || at + 1 + n > WIDTH)) {
                        (void) fputc('\n', m->f);
                        at = 0;
                }
                if (at > 0)
                        at += fprintf(m->f, " ");
                at += print_word(m, text, n, at == 0, capital);
                capital = false;
                ended = n > 0 && text[n - 1] == '.';
                text += n;
                if (strncmp(text, "\n\n", 2) == 0) {
                        (void) fputs("\n.Pp\n", m->f);
                        at = 0;
                }
                text += strspn(text, " \n");
        }
        (void) fputs(ended ? "\n" : ".\n", m->f);
}

static void begin_list(const struct manual *m, const char *width)
{
        (void) fprintf(m->f, ".Bl -tag -width %s\n", width);
}

static void end_list(const struct manual *m)
{
        (void) fputs(".El\n", m->f);
}

/* ---- the command line --------------------------------------------------------------------- */

static void print_option(const struct manual *m, const struct ctl_option *o)
{
        (void) fprintf(m->f, ".It Fl -%s%s%s\n", o->name, o->argument ? " Ar " : "",
                       o->argument ?: "");
        print_text(m, o->help, true);
        if (!o->values || !o->values->words)
                return;

        (void) fputs(o->values->open ? "Usual ones:" : "One of", m->f);
        for (size_t i = 0; o->values->words[i]; i++)
                (void) fprintf(m->f, "%s\n.Cm %s", i > 0 ? " ," : "", o->values->words[i]);
        (void) fputs(" .\n", m->f);
}

static void print_global_options(const struct manual *m)
{
        begin_list(m, "Ds");
        for (size_t i = 0; global_options[i]; i++)
                print_option(m, global_options[i]);
        end_list(m);
}

static void print_verb(const struct manual *m, const struct verb *v)
{
        (void) fprintf(m->f, ".It Cm %s%s%s%s\n", v->name, v->operands ? " Ar \"" : "",
                       v->operands ?: "", v->operands ? "\"" : "");
        print_text(m, v->summary, true);
        if (v->text) {
                (void) fputs(".Pp\n", m->f);
                print_text(m, v->text, false);
        }
        if (!v->options)
                return;

        begin_list(m, "Ds");
        for (size_t i = 0; v->options[i]; i++)
                print_option(m, v->options[i]);
        end_list(m);
}

static void print_verbs(const struct manual *m)
{
        begin_list(m, "Ds");
        for (size_t i = 0; verbs[i]; i++)
                print_verb(m, verbs[i]);
        end_list(m);
}

static void print_exit_codes(const struct manual *m)
{
        begin_list(m, "Ds");
        for (const struct exit_meaning *e = exit_meanings; e->meaning; e++) {
                (void) fprintf(m->f, ".It %d\n", e->code);
                print_text(m, e->meaning, true);
        }
        end_list(m);
}

/* ---- the datapath ------------------------------------------------------------------------- */

struct named_text {
        const char *name, *text;
};

static const struct named_text drop_reasons[] = {
#define WEFT_DROP_REASON(name, text) { #name, text },
#include <weft/drop-reasons.def>
#undef WEFT_DROP_REASON
};

static const struct named_text events[] = {
#define WEFT_EVENT(name, text) { #name, text },
#include <weft/events.def>
#undef WEFT_EVENT
};

static void print_named(const struct manual *m, const struct named_text *items, size_t n)
{
        begin_list(m, "Ds");
        for (size_t i = 0; i < n; i++) {
                (void) fprintf(m->f, ".It Sy %s\n", items[i].name);
                print_text(m, items[i].text, true);
        }
        end_list(m);
}

static void print_drop_reasons(const struct manual *m)
{
        print_named(m, drop_reasons + 1, ELEMENTS(drop_reasons) - 1); /* without "not dropped" */
}

static void print_events(const struct manual *m)
{
        print_named(m, events, ELEMENTS(events));
}

static void print_words(const struct manual *m, const char *const *words, size_t n)
{
        for (size_t i = 0; i < n; i++)
                (void) fprintf(m->f, ".Cm %s%s\n", words[i], i + 1 < n ? " ," : " .");
}

static void print_hooks(const struct manual *m)
{
        print_words(m, hook_names, WEFT_HOOKS);
}

static void print_phases(const struct manual *m)
{
        print_words(m, phase_names, WEFT_PHASES);
}

/* ---- the configuration -------------------------------------------------------------------- */

static void print_key(const struct manual *m, const struct key *k)
{
        const char *def = key_default_text(k);
        char type[256];

        (void) fprintf(m->f, ".It Ic %s No =", k->o.key);
        (void) fprintf(m->f, " Ar \"%s\"\n", key_type_text(k, type, sizeof(type)));
        print_text(m, k->o.help, true);
        if (def && *def != '\0')
                (void) fprintf(m->f, "Default:\n.Ql %s .\n", def);
}

static void print_keys(const struct manual *m)
{
        for (const struct section *s = sections; s->name; s++) {
                if (!s->keys)
                        continue;
                (void) fprintf(m->f, ".Ss [%s%s]\n", s->name, s->named ? " NAME" : "");
                print_text(m, s->help, true);
                begin_list(m, "Ds");
                for (const struct key *k = s->keys; k->o.key; k++)
                        print_key(m, k);
                end_list(m);
        }
}

/* A sample of conf.d: comment lines, "#[module NAME]", then for each option its comment, whose end
 * is the type in parentheses, and "#KEY = DEFAULT". */
struct sample {
        char comment[2048];
        bool listed; /* an option was printed */
};

static void add_comment(struct sample *s, const char *line)
{
        size_t n = strlen(s->comment);

        (void) snprintf(s->comment + n, sizeof(s->comment) - n, "%s%s", n > 0 ? " " : "", line);
}

static void print_sample_option(const struct manual *m, struct sample *s, char *line)
{
        char *def = strstr(line, " ="), *type = strrchr(s->comment, '(');
        char *end = type ? strrchr(type, ')') : NULL;

        if (!def || !end)
                return;

        *def = *end = '\0';
        type[-1] = '\0';
        def += 2 + strspn(def + 2, " ");
        if (!s->listed)
                begin_list(m, "Ds");
        s->listed = true;
        (void) fprintf(m->f, ".It Ic %s No = Ar \"%s\"\n", line, type + 1);
        print_text(m, s->comment, true);
        if (*def != '\0')
                (void) fprintf(m->f, "Default:\n.Ql %s .\n", def);
}

/* Of the first comment only the first sentence is about the module. */
static void print_sample_header(const struct manual *m, struct sample *s, const char *line)
{
        char *end = strstr(s->comment, ". Copy to ");

        if (end)
                end[1] = '\0';
        (void) fprintf(m->f, ".Ss %s\n", line);
        print_text(m, s->comment, true);
}

static void print_sample_line(const struct manual *m, struct sample *s, char *line)
{
        if (strncmp(line, "# SPDX", 6) == 0 || *line == '\0')
                return;
        if (strncmp(line, "# ", 2) == 0) {
                add_comment(s, line + 2);
                return;
        }

        if (strncmp(line, "#[", 2) == 0)
                print_sample_header(m, s, line + 1);
        else
                print_sample_option(m, s, line + 1);
        s->comment[0] = '\0';
}

static int print_sample(const struct manual *m, const char *path)
{
        _cleanup_free_ char *text = NULL;
        struct sample s = {};
        int r = file_read(path, &text);
        char *next = text, *line;

        if (r < 0)
                return weft_fail(m->reterr, r, "%s: %s", path, strerror(-r));

        while ((line = strsep(&next, "\n")))
                print_sample_line(m, &s, line);
        if (s.listed)
                end_list(m);

        return 0;
}

static int print_modules(const struct manual *m)
{
        for (const char *const *path = m->samples; *path; path++) {
                int r = print_sample(m, *path);

                if (r < 0)
                        return r;
        }

        return 0;
}

/* ---- the page ----------------------------------------------------------------------------- */

static const struct {
        const char *name;
        void (*print)(const struct manual *m);
} parts[] = {
        { "global-options", print_global_options },
        { "verbs", print_verbs },
        { "exit-codes", print_exit_codes },
        { "drop-reasons", print_drop_reasons },
        { "events", print_events },
        { "hooks", print_hooks },
        { "phases", print_phases },
        { "keys", print_keys },
};

static int print_part(const struct manual *m, char *name)
{
        name[strcspn(name, "@")] = '\0';
        if (strcmp(name, "modules") == 0)
                return print_modules(m);

        for (size_t i = 0; i < ELEMENTS(parts); i++)
                if (strcmp(parts[i].name, name) == 0) {
                        parts[i].print(m);
                        return 0;
                }

        return weft_fail(m->reterr, -EINVAL, "nothing is made for @%s@", name);
}

int manual_print(const char *template, const char *const *samples, FILE *f,
                 struct weft_error *reterr)
{
        const struct manual m = { f, samples, reterr };
        _cleanup_free_ char *text = NULL;
        int r = file_read(template, &text);
        char *next = text, *line;

        if (r < 0)
                return weft_fail(reterr, r, "%s: %s", template, strerror(-r));

        while (r == 0 && (line = strsep(&next, "\n")))
                if (*line == '@')
                        r = print_part(&m, line + 1);
                else if (next)
                        (void) fprintf(f, "%s\n", line);

        return r;
}
