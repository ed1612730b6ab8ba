/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "ctl/verbs.h"
#include "ctl/wrap.h"
#include "util.h"

enum { INDENT = 2, VERB_COLUMN = 28, OPTION_COLUMN = 22, WIDTH = 80 };

static void print_row(const char *left, const char *right, int column, FILE *f)
{
        int at = INDENT + (int) text_length(left);

        (void) fprintf(f, "%*s%s", INDENT, "", left);
        if (at + 2 > column)
                (void) fprintf(f, "\n%*s", column, "");
        else
                (void) fprintf(f, "%*s", column - at, "");
        wrap_print(f, right, column, WIDTH);
}

/* of: whether to say of which verbs it is. */
static void print_option(const struct ctl_option *o, bool of, FILE *f)
{
        char left[64], right[512];
        size_t n = 0;

        (void) snprintf(left, sizeof(left), "--%s%s%s", o->name, o->argument ? " " : "",
                        o->argument ?: "");
        for (size_t i = 0, n_verbs = 0; of && verbs[i]; i++)
                if (verb_takes(verbs[i], o))
                        n += (size_t) snprintf(right + n, sizeof(right) - n, "%s%s",
                                               n_verbs++ > 0 ? ", " : "of ", verbs[i]->name);
        n += (size_t) snprintf(right + n, sizeof(right) - n, "%s%s", of ? ": " : "", o->help);
        for (size_t i = 0;
             o->values && o->values->words && o->values->words[i] && n < sizeof(right); i++)
                n += (size_t) snprintf(right + n, sizeof(right) - n, "%s%s", i > 0 ? ", " : ": ",
                                       o->values->words[i]);
        print_row(left, right, OPTION_COLUMN, f);
}

static void print_exit_codes(FILE *f)
{
        (void) fputs("\nExit codes:\n", f);
        for (const struct exit_meaning *m = exit_meanings; m->meaning; m++) {
                char code[8];

                (void) snprintf(code, sizeof(code), "%d", m->code);
                print_row(code, m->meaning, 2 * INDENT + 1, f);
        }
}

static void print_verb_help(const struct verb *v, FILE *f)
{
        (void) fprintf(f, "weftctl [OPTION…] %s%s%s\n\n", v->name, v->operands ? " " : "",
                       v->operands ?: "");
        wrap_print(f, v->summary, 0, WIDTH);
        if (v->text) {
                (void) fputc('\n', f);
                wrap_print(f, v->text, 0, WIDTH);
        }
        if (v->options)
                (void) fputc('\n', f);
        for (size_t i = 0; v->options && v->options[i]; i++)
                print_option(v->options[i], false, f);
}

static void print_all(FILE *f)
{
        const struct ctl_option *o;
        size_t i;

        (void) fputs("weftctl [OPTION…] VERB\n\nVerbs; weftctl VERB --help says more of one:\n", f);
        for (i = 0; verbs[i]; i++) {
                char left[160];

                (void) snprintf(left, sizeof(left), "%s%s%s", verbs[i]->name,
                                verbs[i]->operands ? " " : "", verbs[i]->operands ?: "");
                print_row(left, verbs[i]->summary, VERB_COLUMN, f);
        }

        (void) fputs("\nOptions of every verb:\n", f);
        for (i = 0; global_options[i]; i++)
                print_option(global_options[i], false, f);
        (void) fputs("\nOptions of some:\n", f);
        for (; (o = option_number(i)); i++)
                print_option(o, true, f);
        print_exit_codes(f);
}

void help_print(const struct verb *v, const char *group, FILE *f)
{
        const char *between = "";

        if (!v && !group) {
                print_all(f);
                return;
        }

        for (size_t i = 0; verbs[i]; i++)
                if (v ? v == verbs[i] : verb_in_group(verbs[i], group) != NULL) {
                        (void) fputs(between, f);
                        print_verb_help(verbs[i], f);
                        between = "\n";
                }
        (void) fputs("\nSee weftctl --help for the options of every verb.\n", f);
}
