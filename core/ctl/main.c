/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "ctl/cleanup.h"
#include "ctl/client.h"
#include "ctl/completion.h"
#include "ctl/describe.h"
#include "ctl/probe.h"
#include "ctl/show.h"
#include "ctl/table.h"
#include "util.h"

enum { MODULE_DIRS_MAX = 8 };
enum exit_code { EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_DAEMON };

static const char help[] =
        "weftctl [OPTION…] VERB\n"
        "\n"
        "  status         node, generation, modules, endpoints, peers, services, flows, drops\n"
        "  chain [HOOK]   the computed order of stages\n"
        "  flows          live flows\n"
        "  modules        which modules run, and why others do not\n"
        "  reload         read the configuration again and switch to it\n"
        "  check          read the configuration and say what is wrong; needs no daemon\n"
        "  probe          what this kernel has and what each module makes of it; needs no daemon\n"
        "  module describe FILE.so\n"
        "                 what a module file says of itself; loads it, needs no daemon and no "
        "root\n"
        "  cleanup        take everything of weft off this node; stops a daemon that runs\n"
        "\n"
        "  --json         print the daemon's reply as it is\n"
        "  --dry-run      of reload: say what it would add, replace, reconfigure, remove and keep\n"
        "  --format F     of module describe: text, markdown, sample (for conf.d) or json\n"
        "  --module-dir DIR  of probe: look for modules here before the installed ones; "
        "repeatable\n"
        "  --root DIR     the instance of weftd --root DIR\n"
        "  --bpffs DIR    the instance of weftd --bpffs DIR (/sys/fs/bpf/weft)\n"
        "  --socket PATH  the control socket (ROOT/run/weft/control)\n"
        "  --completion SHELL  print the shell's completion of this command line: bash\n"
        "  --help         this text\n"
        "  --version      version\n"
        "\n"
        "Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage, 3 no daemon answers.\n";

struct arguments {
        const char *root, *bpffs, *socket;
        bool json, dry_run;
        const char *verb, *operand, *format;
        char **operands;                              /* all of them, ended by NULL */
        const char *module_dirs[MODULE_DIRS_MAX + 2]; /* ended by the installed one and NULL */
        size_t n_module_dirs;
};

/* ---- verbs that ask the daemon ------------------------------------------------------------ */

struct question {
        const char *verb, *method;
        const char *operand; /* name of the parameter that the operand is; NULL: takes none */
        bool more;
        void (*show)(const json_t *reply, FILE *f, unsigned width);
        const struct values *values; /* of the operand */
};

static const struct values hooks = {
        .words = (const char *const[WEFT_HOOKS + 1]) WEFT_HOOK_NAMES,
};

static const struct question questions[] = {
        { "status", "GetStatus", NULL, false, show_status },
        { "chain", "GetChain", "hook", false, show_chain, &hooks },
        { "flows", "ListFlows", NULL, true, show_flows },
        { "modules", "ListModules", NULL, false, show_modules },
        { "reload", "Reload", NULL, false, show_reload },
};

static const struct question dry_reload = { "reload", "PlanReload", NULL, false, show_plan };

static int fail(const char *text)
{
        (void) fprintf(stderr, "weftctl: %s\n", text);
        return EXIT_FAILED;
}

static int usage(const char *what, const char *which)
{
        (void) fprintf(stderr, "weftctl: %s%s%s%s; see weftctl --help\n", what, which ? " \"" : "",
                       which ? which : "", which ? "\"" : "");
        return EXIT_USAGE;
}

static int print_json(const json_t *j)
{
        if (json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) < 0)
                return fail("cannot write to stdout");

        (void) putchar('\n');
        return EXIT_OK;
}

static int ask(const struct question *q, const struct arguments *a, const struct paths *p)
{
        const char *socket = a->socket ? a->socket : p->control;
        json_t *parameters = a->operand ? json_pack("{s:s}", q->operand, a->operand) : NULL;
        json_auto_t *reply = NULL;
        struct weft_error why = { 0 };
        int r = client_call(socket, q->method, parameters, q->more, &reply, &why);

        if (r < 0) {
                (void) fail(why.text);
                return r == -ENOENT || r == -ECONNREFUSED ? EXIT_NO_DAEMON : EXIT_FAILED;
        }
        if (a->json)
                return print_json(reply);

        q->show(reply, stdout, terminal_width());
        return EXIT_OK;
}

/* ---- verbs that need none ----------------------------------------------------------------- */

static json_t *diagnostics_json(const struct diagnostics *diagnostics)
{
        json_t *list = json_array();

        for (size_t i = 0; i < diagnostics->n; i++) {
                const struct diagnostic *d = &diagnostics->items[i];

                (void) json_array_append_new(list,
                                             json_pack("{s:s, s:i, s:s}", "file", d->origin.file,
                                                       "line", d->origin.line, "text", d->text));
        }

        return json_pack("{s:o}", "diagnostics", list);
}

static int check(const struct arguments *a, const struct paths *p)
{
        struct diagnostics diagnostics = { 0 };
        struct config *c = NULL;
        char place[ORIGIN_TEXT];
        int r = config_load(p->root, &c, &diagnostics);
        int code = r < 0 ? EXIT_FAILED : EXIT_OK;

        if (a->json) {
                json_auto_t *j = diagnostics_json(&diagnostics);

                (void) print_json(j);
        } else {
                for (size_t i = 0; i < diagnostics.n; i++)
                        (void) fprintf(
                                stderr, "%s: %s\n",
                                origin_format(&diagnostics.items[i].origin, place, sizeof(place)),
                                diagnostics.items[i].text);
                if (r == 0)
                        (void) printf("the configuration is valid (%zu file%s)\n", c->files.n,
                                      c->files.n == 1 ? "" : "s");
        }
        if (r < 0 && diagnostics.n == 0)
                (void) fprintf(stderr, "weftctl: cannot read the configuration: %s\n",
                               strerror(-r));

        diagnostics_done(&diagnostics);
        (void) config_free(c);

        return code;
}

static int clean(const struct arguments *a, const struct paths *p)
{
        struct weft_error why = { 0 };

        (void) a;
        return cleanup(p, stdout, &why) < 0 ? fail(why.text) : EXIT_OK;
}

static int probe(const struct arguments *a, const struct paths *p)
{
        struct weft_error why = { 0 };
        json_auto_t *report = NULL;

        (void) p;
        if (probe_report(a->module_dirs, &report, &why) < 0)
                return fail(why.text);
        if (a->json)
                return print_json(report);

        probe_show(report, stdout, terminal_width());
        return EXIT_OK;
}

static int module(const struct arguments *a, const struct paths *p)
{
        struct description *d = NULL;
        struct weft_error why = { 0 };
        int r;

        (void) p;
        if (!a->operand || !a->operands[1] || strcmp(a->operand, "describe") != 0)
                return usage("write: weftctl module describe FILE.so", NULL);

        r = description_open(a->operands[1], &d, &why);
        if (r >= 0)
                r = description_print(d, a->format ?: a->json ? "json" : "text", stdout, &why);
        (void) description_close(d);

        return r < 0 ? fail(why.text) : EXIT_OK;
}

static const struct values module_verbs = {
        .words = (const char *const[]) { "describe", NULL },
};
static const struct values module_files = { .files = "*.so" };

static const struct {
        const char *verb;
        int (*f)(const struct arguments *a, const struct paths *p);
        int operands; /* how many it takes at most */
        const struct values *values[OPERANDS_MAX];
} alone[] = {
        { "check", check, 0 },
        { "probe", probe, 0 },
        { "module", module, 2, { &module_verbs, &module_files } },
        { "cleanup", clean, 0 },
};

/* ---- command line ------------------------------------------------------------------------- */

static const struct values any_file = { .files = "*" }, any_directory = { 0 },
                           formats = { .words = description_formats },
                           shells = { .words = completion_shells };

static const struct {
        struct option option;
        const struct values *values; /* of its argument */
        const char *only_for;
} options[] = {
        { { "json", no_argument, NULL, 'j' } },
        { { "dry-run", no_argument, NULL, 'n' }, NULL, "reload" },
        { { "format", required_argument, NULL, 'f' }, &formats, "module" },
        { { "module-dir", required_argument, NULL, 'm' }, &any_directory, "probe" },
        { { "root", required_argument, NULL, 'r' }, &any_directory },
        { { "bpffs", required_argument, NULL, 'b' }, &any_directory },
        { { "socket", required_argument, NULL, 's' }, &any_file },
        { { "completion", required_argument, NULL, 'c' }, &shells },
        { { "help", no_argument, NULL, 'h' } },
        { { "version", no_argument, NULL, 'v' } },
};

static int print_completion(const char *shell)
{
        struct word verbs[ELEMENTS(questions) + ELEMENTS(alone) + 1] = { 0 }, *v = verbs;
        struct word words[ELEMENTS(options) + 1] = { 0 };
        struct weft_error why = { 0 };

        for (size_t i = 0; i < ELEMENTS(questions); i++)
                *v++ = (struct word) { questions[i].verb, NULL, { questions[i].values } };
        for (size_t i = 0; i < ELEMENTS(alone); i++)
                *v++ = (struct word) { alone[i].verb,
                                       NULL,
                                       { alone[i].values[0], alone[i].values[1] } };
        for (size_t i = 0; i < ELEMENTS(options); i++)
                words[i] = (struct word) { options[i].option.name,
                                           options[i].only_for,
                                           { options[i].values } };

        return completion_print(shell, verbs, words, stdout, &why) < 0 ? usage(why.text, NULL)
                                                                       : EXIT_OK;
}

/* 0: go on; else exit with code *ret_code. */
static int parse_options(int argc, char **argv, struct arguments *a, int *ret_code)
{
        struct option long_options[ELEMENTS(options) + 1] = { 0 };
        int c;

        for (size_t i = 0; i < ELEMENTS(options); i++)
                long_options[i] = options[i].option;

        *ret_code = EXIT_OK;
        while ((c = getopt_long(argc, argv, "h", long_options, NULL)) >= 0)
                switch (c) {
                case 'j':
                        a->json = true;
                        break;
                case 'r':
                        a->root = optarg;
                        break;
                case 'b':
                        a->bpffs = optarg;
                        break;
                case 's':
                        a->socket = optarg;
                        break;
                case 'f':
                        a->format = optarg;
                        break;
                case 'm':
                        if (a->n_module_dirs < MODULE_DIRS_MAX)
                                a->module_dirs[a->n_module_dirs++] = optarg;
                        break;
                case 'n':
                        a->dry_run = true;
                        break;
                case 'c':
                        *ret_code = print_completion(optarg);
                        return 1;
                case 'h':
                        (void) fputs(help, stdout);
                        return 1;
                case 'v':
                        (void) puts("weftctl " WEFT_VERSION);
                        return 1;
                default:
                        *ret_code = EXIT_USAGE;
                        return 1;
                }

        return 0;
}

/* 0, or EXIT_USAGE where there are more than max operands. */
static int excess(const struct arguments *a, int max)
{
        for (int i = 0; a->operands[i]; i++)
                if (i == max)
                        return usage("unexpected argument", a->operands[i]);

        return 0;
}

static int run(const struct arguments *a, const struct paths *p)
{
        if (a->dry_run && strcmp(a->verb, "reload") != 0)
                return usage("--dry-run is for the verb reload", NULL);
        if (a->dry_run)
                return excess(a, 0) ?: ask(&dry_reload, a, p);

        for (size_t i = 0; i < ELEMENTS(questions); i++) {
                const struct question *q = &questions[i];

                if (strcmp(q->verb, a->verb) != 0)
                        continue;
                return excess(a, q->operand != NULL) ?: ask(q, a, p);
        }

        for (size_t i = 0; i < ELEMENTS(alone); i++)
                if (strcmp(alone[i].verb, a->verb) == 0)
                        return excess(a, alone[i].operands) ?: alone[i].f(a, p);

        return usage("no such verb", a->verb);
}

int main(int argc, char **argv)
{
        struct arguments a = { 0 };
        struct weft_error why = { 0 };
        struct paths p;
        int code;

        (void) libbpf_set_print(NULL); /* what is worth saying comes back as an error */
        if (parse_options(argc, argv, &a, &code))
                return code;
        if (optind == argc)
                return usage("no verb given", NULL);

        a.verb = argv[optind];
        a.operands = argv + optind + 1;
        a.operand = a.operands[0];
        a.module_dirs[a.n_module_dirs] = WEFT_MODULE_DIR;
        if (paths_init(&p, a.root, a.bpffs, &why) < 0)
                return usage(why.text, NULL);

        code = run(&a, &p);
        paths_done(&p);

        return code;
}
