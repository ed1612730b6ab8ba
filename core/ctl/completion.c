/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <string.h>

#include "ctl/completion.h"

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
        "                elif [[ $word != -* ]]; then\n"
        "                        verb=${verb:-$word}\n"
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

static void print_option_test(const struct word *options, FILE *f)
{
        const char *separator = "";

        (void) fputs("_weftctl_takes_argument()\n{\n        [[ $1 == @(", f);
        for (; options->name; options++)
                if (options->takes[0]) {
                        (void) fprintf(f, "%s--%s", separator, options->name);
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

static void print_verbs(const struct word *verbs, FILE *f)
{
        (void) fputs("        :0) words='", f);
        for (const struct word *v = verbs; v->name; v++)
                (void) fprintf(f, "%s%s", v > verbs ? " " : "", v->name);
        (void) fputs("' ;;\n", f);

        for (const struct word *v = verbs; v->name; v++)
                for (int i = 0; i < OPERANDS_MAX && v->takes[i]; i++) {
                        (void) fprintf(f, "        %s:%d) ", v->name, i + 1);
                        print_values(v->takes[i], f);
                }
}

static void print_options(const struct word *options, FILE *f)
{
        (void) fputs("        options)\n                words='", f);
        for (const struct word *o = options; o->name; o++)
                if (!o->only_for)
                        (void) fprintf(f, "--%s ", o->name);
        (void) fputs("'\n", f);
        for (const struct word *o = options; o->name; o++)
                if (o->only_for)
                        (void) fprintf(f,
                                       "                [[ ${verb:-%s} != %s ]] || "
                                       "words+='--%s '\n",
                                       o->only_for, o->only_for, o->name);
        (void) fputs("                ;;\n", f);

        for (const struct word *o = options; o->name; o++)
                if (o->takes[0]) {
                        (void) fprintf(f, "        --%s) ", o->name);
                        print_values(o->takes[0], f);
                }
}

const char *const completion_shells[] = { "bash", NULL };

int completion_print(const char *shell, const struct word *verbs, const struct word *options,
                     FILE *f, struct weft_error *reterr)
{
        if (strcmp(shell, completion_shells[0]) != 0)
                return weft_fail(reterr, -EINVAL, "no completion for \"%s\": there is one for bash",
                                 shell);

        (void) fputs(head, f);
        print_option_test(options, f);
        (void) fputs(before, f);
        print_verbs(verbs, f);
        print_options(options, f);
        (void) fputs(after, f);
        return 0;
}
