/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <bpf/libbpf.h>
#include <stdio.h>

#include "ctl/completion.h"
#include "ctl/output.h"
#include "ctl/verbs.h"

static int ask_plainly(const struct call *c)
{
        const struct verb *v = c->verb;
        json_t *parameters = v->operand && c->n_operands > 0
                                     ? json_pack("{s:s}", v->operand, c->operands[0])
                                     : NULL;

        return call_ask(c, v->method, parameters, false, v->show);
}

static int run_verb(const struct call *c)
{
        bool paged = c->verb->paged;
        int code;

        for (size_t i = 0; i < c->n_given; i++)
                paged &= !c->given[i].option->unpaged;
        output_open(paged);
        code = c->verb->run ? c->verb->run(c) : ask_plainly(c);
        output_close();

        return code;
}

static int run(const struct call *c)
{
        struct weft_error why = { 0 };

        if (call_has(c, &option_help))
                help_print(c->verb, c->group, stdout);
        else if (call_has(c, &option_version))
                (void) puts("weftctl " WEFT_VERSION);
        else if (call_has(c, &option_completion))
                return completion_print(call_value(c, &option_completion), stdout, &why) < 0
                               ? usage(why.text, NULL)
                               : EXIT_OK;
        else
                return run_verb(c);

        return EXIT_OK;
}

int main(int argc, char **argv)
{
        struct weft_error why = { 0 };
        struct call c = {};
        int code;

        (void) libbpf_set_print(NULL); /* what is worth saying comes back as an error */
        code = call_parse(&c, argc, argv, &why) < 0 ? usage(why.text, NULL) : run(&c);
        call_done(&c);

        return code;
}
