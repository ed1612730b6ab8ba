/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "ctl/completion.h"
#include "ctl/verbs.h"

static const char head[] = "# SPDX-License-Identifier: LGPL-2.1-or-later\n"
                           "# Made by weftctl --completion bash.\n"
                           "\n";

/* Bash breaks words at "=", so "--format=te" comes as three words and the "=" is skipped. */
static const char before[] =
        "_weftctl()\n"
        "{\n"
        "        local word verb='' option='' place words='' files='' directories=''\n"
        "        local -i i n=0\n"
        "        local current=${COMP_WORDS[COMP_CWORD]}\n"
        "\n"
        "        for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "                word=${COMP_WORDS[i]}\n"
        "                if [[ $option && $word == = ]]; then\n"
        "                        continue\n"
        "                elif [[ $option ]]; then\n"
        "                        option=''\n"
        "                elif _weftctl_takes_argument \"$word\"; then\n"
        "                        option=$word\n"
        "                elif [[ $word == -* ]]; then\n"
        "                        continue\n"
        "                elif [[ ! $verb ]]; then\n"
        "                        verb=$word\n"
        "                elif [[ $verb != *' '* ]] && _weftctl_is_group \"$verb\"; then\n"
        "                        verb+=\" $word\"\n"
        "                else\n"
        "                        n+=1\n"
        "                fi\n"
        "        done\n"
        "\n"
        "        if [[ $option ]]; then\n"
        "                place=$option\n"
        "                [[ $current != = ]] || current=''\n"
        "        elif [[ $current == -* ]]; then\n"
        "                place=options\n"
        "        else\n"
        "                place=$verb:$n\n"
        "        fi\n"
        "\n"
        "        case $place in\n";

static const char after[] =
        "        esac\n"
        "\n"
        "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
        "        if [[ $directories ]]; then\n"
        "                compopt -o filenames\n"
        "                mapfile -t COMPREPLY < <(compgen -d -- \"$current\"\n"
        "                                         compgen -f -X \"!$files\" -- \"$current\")\n"
        "        fi\n"
        "}\n"
        "\n"
        "complete -F _weftctl weftctl\n";

static void print_option_test(FILE *f)
{
        const char *separator = "";
        const struct ctl_option *o;

        (void) fputs("_weftctl_takes_argument()\n{\n        [[ $1 == @(", f);
        for (size_t i = 0; (o = option_number(i)); i++)
                if (o->argument) {
                        (void) fprintf(f, "%s--%s", separator, o->name);
                        separator = "|";
                }
        (void) fputs(") ]]\n}\n\n", f);
}

static void print_group_test(FILE *f)
{
        const char *separator = "";

        (void) fputs("_weftctl_is_group()\n{\n        [[ $1 == @(", f);
        for (size_t i = 0; verbs[i]; i++)
                if (verb_leads_group(i)) {
                        (void) fprintf(f, "%s%.*s", separator, verb_leads_group(i), verbs[i]->name);
                        separator = "|";
                }
        (void) fputs(") ]]\n}\n\n", f);
}

static void print_values(const struct values *values, FILE *f)
{
        if (!values->words) {
                (void) fprintf(f, "directories=yes files='%s'", values->files ?: "");
        } else {
                (void) fputs("words='", f);
                for (size_t i = 0; values->words[i]; i++)
                        (void) fprintf(f, "%s%s", i > 0 ? " " : "", values->words[i]);
                (void) fputs("'", f);
        }
        (void) fputs(" ;;\n", f);
}

static void print_verb_words(FILE *f)
{
        (void) fputs("        :0) words='", f);
        for (size_t i = 0; verbs[i]; i++)
                if (!strchr(verbs[i]->name, ' '))
                        (void) fprintf(f, "%s ", verbs[i]->name);
                else if (verb_leads_group(i))
                        (void) fprintf(f, "%.*s ", verb_leads_group(i), verbs[i]->name);
        (void) fputs("' ;;\n", f);
}

static void print_group_words(size_t leader, FILE *f)
{
        int n = verb_leads_group(leader);

        (void) fprintf(f, "        %.*s:0) words='", n, verbs[leader]->name);
        for (size_t i = leader; verbs[i]; i++)
                if (strncmp(verbs[i]->name, verbs[leader]->name, (size_t) n + 1) == 0)
                        (void) fprintf(f, "%s ", verbs[i]->name + n + 1);
        (void) fputs("' ;;\n", f);
}

/* What follows a verb, operand by operand; what the last one can be may be given again. */
static void print_operands(const struct verb *v, FILE *f)
{
        for (int i = 0; i < OPERANDS_MAX && v->values[i]; i++) {
                bool last = i + 1 == OPERANDS_MAX || !v->values[i + 1];

                if (last && v->most == OPERANDS_ANY)
                        (void) fprintf(f, "        '%s:'*) ", v->name);
                else
                        (void) fprintf(f, "        '%s:%d') ", v->name, i);
                print_values(v->values[i], f);
        }
}

static void print_verbs(FILE *f)
{
        print_verb_words(f);
        for (size_t i = 0; verbs[i]; i++) {
                if (verb_leads_group(i))
                        print_group_words(i, f);
                print_operands(verbs[i], f);
        }
}

/* Options that not every verb has are offered to those that do, and before there is a verb. */
static void print_option_words(FILE *f)
{
        const struct ctl_option *o;
        size_t i;

        (void) fputs("        options)\n                words='", f);
        for (i = 0; (o = global_options[i]); i++)
                (void) fprintf(f, "--%s ", o->name);
        (void) fputs("'\n", f);
        for (; (o = option_number(i)); i++) {
                (void) fputs("                [[ $verb != @(", f);
                for (size_t j = 0; verbs[j]; j++)
                        if (verb_takes(verbs[j], o))
                                (void) fprintf(f, "|'%s'", verbs[j]->name);
                (void) fprintf(f, ") ]] || words+='--%s '\n", o->name);
        }
        (void) fputs("                ;;\n", f);
}

static void print_options(FILE *f)
{
        const struct ctl_option *o;

        print_option_words(f);
        for (size_t i = 0; (o = option_number(i)); i++)
                if (o->values) {
                        (void) fprintf(f, "        --%s) ", o->name);
                        print_values(o->values, f);
                }
}

void completion_bash(FILE *f)
{
        (void) fputs(head, f);
        print_option_test(f);
        print_group_test(f);
        (void) fputs(before, f);
        print_verbs(f);
        print_options(f);
        (void) fputs(after, f);
}
