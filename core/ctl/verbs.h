/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The verbs of weftctl as data. The command line is parsed by these tables, and --help, the shells'
 * completion and the manual are made from them. A new verb is a struct verb in the file of its
 * noun and a line in verbs.c. */

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "error.h"
#include "paths.h"

enum { OPERANDS_MAX = 4, OPERANDS_ANY = 4096 };

/* What an operand, or the argument of an option, can be: words, or names of files. */
struct values {
        const char *const *words; /* ended by NULL */
        const char *files;        /* those that match this, and directories */
        bool directories;         /* nothing but these */
        bool open;                /* words are only the usual ones */
};

struct ctl_option {
        const char *name;            /* without the dashes; one name means the same everywhere */
        const char *argument;        /* "DIR"; NULL: takes none */
        const char *help;            /* a line or two of --help and of the manual */
        const struct values *values; /* of the argument; NULL: nothing is known of it */
        bool repeatable;
        bool unpaged; /* what is printed then is to be seen at once */
};

struct call;

struct verb {
        const char *name;     /* "status", or of a group of verbs "endpoint list" */
        const char *operands; /* as a usage line has them: "[HOOK]"; NULL: takes none */
        const char *summary;  /* a line of --help */
        const char *text;     /* what the manual says beyond it, in sentences; "\n\n" begins a
                               * paragraph. NULL: nothing */
        unsigned least, most; /* operands; most 0: none, OPERANDS_ANY: no limit */
        const struct values *values[OPERANDS_MAX]; /* of the operands; the last one's repeats */
        const struct ctl_option *const *options;   /* its own, ended by NULL; or NULL */
        bool paged;                                /* what it prints may be long */
        /* Returns an exit code; everything has been printed then. NULL: asks method without
         * parameters but the operand, and shows the reply. */
        int (*run)(const struct call *c);
        const char *method;  /* of io.weft.Node */
        const char *operand; /* parameter that the operand is; NULL: none */
        void (*show)(const json_t *reply, FILE *f, unsigned width);
};

/* In the order of --help, ended by NULL. */
extern const struct verb *const verbs[];
/* Options of every verb, ended by NULL. */
extern const struct ctl_option *const global_options[];
extern const struct ctl_option option_json, option_no_pager, option_root, option_bpffs,
        option_socket, option_completion, option_help, option_version, option_module_dir;

enum exit_code { EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_DENIED };

struct exit_meaning {
        enum exit_code code;
        const char *meaning;
};
/* Ended by meaning NULL. */
extern const struct exit_meaning exit_meanings[];

/* The second word of a verb of this group; NULL: it is none of it. */
const char *verb_in_group(const struct verb *v, const char *group);
/* The verb may have the option. */
bool verb_takes(const struct verb *v, const struct ctl_option *o);
/* Every option there is, once, the global ones first. Begin with i 0; NULL ends. */
const struct ctl_option *option_number(size_t i);

/* ---- one use of it ------------------------------------------------------------------------ */

struct given {
        const struct ctl_option *option;
        const char *value; /* NULL where it takes none */
};

/* A command line that was understood. Strings are argv's. */
struct call {
        const struct verb *verb; /* NULL: none was given, which only some options allow */
        const char *group;       /* with --help and without a verb: a group of them, or NULL */
        char **operands;         /* ended by NULL */
        size_t n_operands;
        struct given *given;
        size_t n_given;
        struct paths paths;
};

/* Reads a command line. 0, or -EINVAL with what would be right. Ends with call_done() either way.
 */
int call_parse(struct call *c, int argc, char **argv, struct weft_error *reterr);
void call_done(struct call *c);

bool call_has(const struct call *c, const struct ctl_option *o);
/* The last one counts; NULL: not given. */
const char *call_value(const struct call *c, const struct ctl_option *o);
/* All values of a repeatable option, then last where it is not NULL; ended by NULL. The caller
 * frees the array. NULL: no memory. */
const char **call_values(const struct call *c, const struct ctl_option *o, const char *last);
const char *call_socket(const struct call *c);

/* ---- for verbs ---------------------------------------------------------------------------- */

/* Calls io.weft.Node.METHOD (parameters: stolen, may be NULL) and prints the reply: as JSON with
 * --json, else by show, which may be NULL for a method that answers nothing. Returns the exit code;
 * what went wrong has been said. */
int call_ask(const struct call *c, const char *method, json_t *parameters, bool more,
             void (*show)(const json_t *reply, FILE *f, unsigned width));
/* The two halves of it. *ret: the reply, for the caller to free. */
int call_get(const struct call *c, const char *method, json_t *parameters, bool more, json_t **ret);
int call_show(const struct call *c, const json_t *reply,
              void (*show)(const json_t *reply, FILE *f, unsigned width));
/* Before a connection: -ECONNREFUSED where the daemon does not run and a method that only reads
 * would make systemd start it. */
int call_check(const struct call *c, const char *method, struct weft_error *reterr);
/* What to answer the shell where client_call() failed with r. */
enum exit_code call_failed(int r, const struct weft_error *why);
int print_json(const json_t *j);
int fail(const char *text);
/* "weftctl: WHAT "WHICH" (see weftctl --help)"; which may be NULL. */
int usage(const char *what, const char *which);

/* --help: of one verb, of a group, or of all (both NULL). */
void help_print(const struct verb *v, const char *group, FILE *f);
