/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From argv to a struct call. */

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "config/nearest.h"
#include "config/option.h"
#include "config/values.h"
#include "ctl/verbs.h"
#include "util.h"

enum { UNKNOWN = '?', MISSING = ':', SHORT_HELP = 'h', FIRST_OPTION = 256 };

/* ---- options ------------------------------------------------------------------------------ */

static int refuse_option(const char *word, struct weft_error *reterr)
{
        char name[64];
        struct nearest near = { .word = name };
        const struct ctl_option *o;

        (void) snprintf(name, sizeof(name), "%.*s", (int) strcspn(word, "="), word);
        for (size_t i = 0; strncmp(name, "--", 2) == 0 && (o = option_number(i)); i++) {
                near.word = name + 2;
                nearest_try(&near, o->name);
        }

        return weft_fail(reterr, -EINVAL, "no such option \"%s\"%s%s%s", name,
                         near.best ? ", did you mean \"--" : "", near.best ?: "",
                         near.best ? "\"?" : "");
}

static int check_word(const char *const *words, const char *word, struct weft_error *reterr)
{
        const struct weft_option choice = { .choices = words };
        uint32_t ignored;

        return option_choice(&choice, word, &ignored, reterr);
}

static int take_option(struct call *c, const struct ctl_option *o, const char *value,
                       struct weft_error *reterr)
{
        struct weft_error why;

        if (o->values && o->values->words && !o->values->open &&
            check_word(o->values->words, value, &why) < 0)
                return weft_fail(reterr, -EINVAL, "--%s %s: %s", o->name, value, why.text);
        if (list_grow(&c->given, c->n_given, sizeof(*c->given)) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        c->given[c->n_given++] = (struct given) { o, value };
        return 0;
}

static struct option *getopt_table(void)
{
        struct option *table = NULL;
        size_t n = 0;

        for (const struct ctl_option *o; (o = option_number(n)); n++) {
                if (list_grow(&table, n, sizeof(*table)) < 0)
                        break;
                table[n] = (struct option) { o->name, o->argument ? required_argument : no_argument,
                                             NULL, (int) (FIRST_OPTION + n) };
        }
        if (list_grow(&table, n, sizeof(*table)) == 0)
                table[n] = (struct option) {};

        return table;
}

static int parse_options(struct call *c, int argc, char **argv, struct weft_error *reterr)
{
        _cleanup_free_ struct option *table = getopt_table();
        int o, r = 0;

        opterr = 0;
        optind = 0; /* GNU: begins anew */
        while (table && r == 0 && (o = getopt_long(argc, argv, ":h", table, NULL)) >= 0)
                if (o == MISSING)
                        r = weft_fail(reterr, -EINVAL, "%s needs an argument", argv[optind - 1]);
                else if (o == UNKNOWN)
                        r = refuse_option(argv[optind - 1], reterr);
                else
                        r = take_option(c,
                                        o == SHORT_HELP ? &option_help
                                                        : option_number((size_t) o - FIRST_OPTION),
                                        optarg, reterr);

        return table ? r : weft_fail(reterr, -ENOMEM, "out of memory");
}

/* ---- the verb ----------------------------------------------------------------------------- */

/* "must be followed by one of a, b" where word is a group of verbs; else 0. */
static int refuse_group(const char *word, struct weft_error *reterr)
{
        char all[256] = "";
        const char *second;
        size_t n = 0;

        for (size_t i = 0; verbs[i] && n < sizeof(all); i++)
                if ((second = verb_in_group(verbs[i], word)))
                        n += (size_t) snprintf(all + n, sizeof(all) - n, "%s%s", n > 0 ? ", " : "",
                                               second);

        return n == 0 ? 0
                      : weft_fail(reterr, -EINVAL, "\"%s\" must be followed by one of %s", word,
                                  all);
}

static int refuse_verb(const char *first, const char *second, struct weft_error *reterr)
{
        bool is_group = refuse_group(first, reterr) < 0;
        struct nearest near = {};
        char both[128];

        if (is_group && !second)
                return -EINVAL;

        (void) snprintf(both, sizeof(both), "%.60s %.60s", first, second ?: "");
        for (size_t i = 0; verbs[i]; i++) {
                if (is_group && !verb_in_group(verbs[i], first))
                        continue;
                near.word = second && strchr(verbs[i]->name, ' ') ? both : first;
                nearest_try(&near, verbs[i]->name);
        }
        if (near.best && strchr(near.best, ' '))
                is_group = true;

        return weft_fail(reterr, -EINVAL, "no such verb \"%s\"%s%s%s", is_group ? both : first,
                         near.best ? ", did you mean \"" : "", near.best ?: "",
                         near.best ? "\"?" : "");
}

static bool is_verb(const struct verb *v, const char *first, const char *second)
{
        const char *name = verb_in_group(v, first);

        return name ? second && strcmp(name, second) == 0 : strcmp(v->name, first) == 0;
}

static int parse_verb(struct call *c, char **words, struct weft_error *reterr)
{
        for (size_t i = 0; !c->verb && verbs[i]; i++)
                if (is_verb(verbs[i], words[0], words[1]))
                        c->verb = verbs[i];
        if (!c->verb && !words[1] && call_has(c, &option_help) && refuse_group(words[0], NULL)) {
                c->group = words[0];
                return 0;
        }
        if (!c->verb)
                return refuse_verb(words[0], words[1], reterr);

        c->operands = words + (strchr(c->verb->name, ' ') ? 2 : 1);
        while (c->operands[c->n_operands])
                c->n_operands++;

        return 0;
}

static int check_operand(const struct verb *v, size_t i, const char *word,
                         struct weft_error *reterr)
{
        const struct values *values = i < OPERANDS_MAX ? v->values[i] : NULL;
        struct weft_error why;

        return values && values->words && !values->open && check_word(values->words, word, &why) < 0
                       ? weft_fail(reterr, -EINVAL, "%s: %s", word, why.text)
                       : 0;
}

static int check_use(const struct call *c, struct weft_error *reterr)
{
        const struct verb *v = c->verb;
        for (size_t i = 0; i < c->n_given; i++)
                if (!verb_takes(v, c->given[i].option))
                        return weft_fail(reterr, -EINVAL, "--%s is not for the verb %s",
                                         c->given[i].option->name, v->name);
        if (call_has(c, &option_help))
                return 0;
        if (c->n_operands > v->most)
                return weft_fail(reterr, -EINVAL, "unexpected argument \"%s\"",
                                 c->operands[v->most]);
        for (size_t i = 0; i < c->n_operands; i++)
                if (check_operand(v, i, c->operands[i], reterr) < 0)
                        return -EINVAL;
        if (c->n_operands < v->least)
                return weft_fail(reterr, -EINVAL, "write: weftctl %s %s", v->name, v->operands);

        return 0;
}

int call_parse(struct call *c, int argc, char **argv, struct weft_error *reterr)
{
        int r = parse_options(c, argc, argv, reterr);

        if (r < 0)
                return r;
        if (optind == argc)
                return call_has(c, &option_help) || call_has(c, &option_version) ||
                                       call_has(c, &option_completion)
                               ? 0
                               : weft_fail(reterr, -EINVAL, "no verb given");

        r = parse_verb(c, argv + optind, reterr);
        if (r == 0 && c->verb)
                r = check_use(c, reterr);

        return r < 0 ? r
                     : paths_init(&c->paths, call_value(c, &option_root),
                                  call_value(c, &option_bpffs), reterr);
}

void call_done(struct call *c)
{
        free(c->given);
        paths_done(&c->paths);
        *c = (struct call) {};
}

/* ---- reading it --------------------------------------------------------------------------- */

bool call_has(const struct call *c, const struct ctl_option *o)
{
        for (size_t i = 0; i < c->n_given; i++)
                if (c->given[i].option == o)
                        return true;

        return false;
}

const char *call_value(const struct call *c, const struct ctl_option *o)
{
        const char *value = NULL;

        for (size_t i = 0; i < c->n_given; i++)
                if (c->given[i].option == o)
                        value = c->given[i].value;

        return value;
}

const char **call_values(const struct call *c, const struct ctl_option *o, const char *last)
{
        const char **values = calloc(c->n_given + 2, sizeof(*values));
        size_t n = 0;

        for (size_t i = 0; values && i < c->n_given; i++)
                if (c->given[i].option == o)
                        values[n++] = c->given[i].value;
        if (values)
                values[n] = last;

        return values;
}

const char *call_socket(const struct call *c)
{
        return call_value(c, &option_socket) ?: c->paths.control;
}
