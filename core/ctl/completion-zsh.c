/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "ctl/completion.h"
#include "ctl/verbs.h"

static const char head[] = "#compdef weftctl\n"
                           "# SPDX-License-Identifier: LGPL-2.1-or-later\n"
                           "# Made by weftctl --completion zsh.\n"
                           "\n"
                           "_weftctl()\n"
                           "{\n"
                           "        local word verb='' option=''\n"
                           "        local -a offers\n"
                           "        local -A takes groups\n"
                           "        integer i n=0\n"
                           "\n";

/* "--format=te" is one word here; what stands behind the "=" is completed. */
static const char between[] = "\n"
                              "        for ((i = 2; i < CURRENT; i++)); do\n"
                              "                word=${words[i]}\n"
                              "                if [[ -n $option ]]; then\n"
                              "                        option=''\n"
                              "                elif (( ${+takes[$word]} )); then\n"
                              "                        option=$word\n"
                              "                elif [[ $word == -* ]]; then\n"
                              "                        continue\n"
                              "                elif [[ -z $verb ]]; then\n"
                              "                        verb=$word\n"
                              "                elif (( ${+groups[$verb]} )); then\n"
                              "                        verb+=\" $word\"\n"
                              "                else\n"
                              "                        (( n += 1 ))\n"
                              "                fi\n"
                              "        done\n"
                              "        if [[ -z $option && ${words[CURRENT]} == --*=* ]]; then\n"
                              "                option=${words[CURRENT]%%=*}\n"
                              "                compset -P '*='\n"
                              "        fi\n"
                              "\n"
                              "        if [[ -n $option ]]; then\n"
                              "                case $option in\n";

/* The text of a word of zsh between single quotes; ":" ends a name for _describe. */
static void print_quoted(const char *text, FILE *f)
{
        for (; *text != '\0'; text++)
                if (*text == '\'')
                        (void) fputs("'\\''", f);
                else
                        (void) fputc(*text, f);
}

static void print_offer(const char *name, int length, const char *help, FILE *f)
{
        (void) fprintf(f, "                offers+=('%.*s:", length, name);
        print_quoted(help, f);
        (void) fputs("')\n", f);
}

static void print_values(const struct values *values, FILE *f)
{
        if (values->words) {
                (void) fputs("compadd --", f);
                for (size_t i = 0; values->words[i]; i++)
                        (void) fprintf(f, " %s", values->words[i]);
                (void) fputs(" ;;\n", f);
        } else if (values->directories) {
                (void) fputs("_files -/ ;;\n", f);
        } else {
                (void) fprintf(f, "_files -g '%s' ;;\n", values->files ?: "*");
        }
}

static void print_tables(FILE *f)
{
        const struct ctl_option *o;

        (void) fputs("        takes=(", f);
        for (size_t i = 0; (o = option_number(i)); i++)
                if (o->argument)
                        (void) fprintf(f, " --%s 1", o->name);
        (void) fputs(" )\n        groups=(", f);
        for (size_t i = 0; verbs[i]; i++)
                if (verb_leads_group(i))
                        (void) fprintf(f, " %.*s 1", verb_leads_group(i), verbs[i]->name);
        (void) fputs(" )\n", f);
}

static void print_arguments(FILE *f)
{
        const struct ctl_option *o;

        for (size_t i = 0; (o = option_number(i)); i++)
                if (o->values) {
                        (void) fprintf(f, "                --%s) ", o->name);
                        print_values(o->values, f);
                }
        (void) fputs("                esac\n", f);
}

static void print_options(FILE *f)
{
        const struct ctl_option *o;
        size_t i;

        (void) fputs("        elif [[ ${words[CURRENT]} == -* ]]; then\n", f);
        for (i = 0; (o = global_options[i]); i++) {
                char name[64];
                int n = snprintf(name, sizeof(name), "--%s", o->name);

                print_offer(name, n, o->help, f);
        }
        for (; (o = option_number(i)); i++) {
                (void) fputs("                [[ $verb != (", f);
                for (size_t j = 0; verbs[j]; j++)
                        if (verb_takes(verbs[j], o))
                                (void) fprintf(f, "|'%s'", verbs[j]->name);
                (void) fprintf(f, ") ]] || offers+=('--%s:", o->name);
                print_quoted(o->help, f);
                (void) fputs("')\n", f);
        }
        (void) fputs("                _describe -o option offers\n", f);
}

static void print_verb_words(FILE *f)
{
        (void) fputs("        elif [[ -z $verb ]]; then\n", f);
        for (size_t i = 0; verbs[i]; i++)
                if (!strchr(verbs[i]->name, ' '))
                        print_offer(verbs[i]->name, (int) strlen(verbs[i]->name), verbs[i]->summary,
                                    f);
                else if (verb_leads_group(i))
                        print_offer(verbs[i]->name, verb_leads_group(i), "a group of verbs", f);
        (void) fputs("                _describe verb offers\n", f);
}

static void print_group(size_t leader, FILE *f)
{
        int n = verb_leads_group(leader);

        (void) fprintf(f, "        elif [[ $verb == %.*s ]]; then\n", n, verbs[leader]->name);
        for (size_t i = leader; verbs[i]; i++)
                if (strncmp(verbs[i]->name, verbs[leader]->name, (size_t) n + 1) == 0)
                        print_offer(verbs[i]->name + n + 1, (int) strlen(verbs[i]->name + n + 1),
                                    verbs[i]->summary, f);
        (void) fputs("                _describe verb offers\n", f);
}

static void print_operands(FILE *f)
{
        (void) fputs("        else\n                case $verb:$n in\n", f);
        for (size_t v = 0; verbs[v]; v++)
                for (int i = 0; i < OPERANDS_MAX && verbs[v]->values[i]; i++) {
                        bool last = i + 1 == OPERANDS_MAX || !verbs[v]->values[i + 1];

                        if (last && verbs[v]->most == OPERANDS_ANY)
                                (void) fprintf(f, "                '%s:'*) ", verbs[v]->name);
                        else
                                (void) fprintf(f, "                '%s:%d') ", verbs[v]->name, i);
                        print_values(verbs[v]->values[i], f);
                }
        (void) fputs("                esac\n        fi\n}\n\n", f);
}

void completion_zsh(FILE *f)
{
        (void) fputs(head, f);
        print_tables(f);
        (void) fputs(between, f);
        print_arguments(f);
        print_options(f);
        print_verb_words(f);
        for (size_t i = 0; verbs[i]; i++)
                if (verb_leads_group(i))
                        print_group(i, f);
        print_operands(f);
        /* Found in $fpath, the file is the function; sourced, it says what it completes. */
        (void) fputs("if [[ $funcstack[1] == _weftctl ]]; then\n        _weftctl \"$@\"\nelse\n"
                     "        compdef _weftctl weftctl\nfi\n",
                     f);
}
