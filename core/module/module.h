/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Module files and their instances. A file is loaded once for each content; an instance is one
 * module in one generation, with its config struct and what it asked of the core. */

#include <weft/module.h>

#include "config/config.h"
#include "error.h"

/* A loaded file: the descriptor in the core's own layout, whatever the author's was. */
struct module {
        struct weft_module desc;
        char *path;
        void *dl;
        int fd;        /* sealed memfd with the file's content */
        uint64_t sum;  /* of that content */
        unsigned refs; /* of builds that have it */
};

/* Finds NAME.so in the directories (in order), checks the file (regular, root's, writable by nobody
 * else, parents root-owned or sticky, no RUNPATH outside the system's), copies it into a sealed
 * memfd and dlopens that. Every refusal says what to do. */
int module_open(const char *const *dirs, const char *name, struct module **ret,
                struct weft_error *reterr);
struct module *module_close(struct module *m);
/* The same, but where the file found has the content of `running`, that is what is given out. */
int module_open_again(const char *const *dirs, const char *name, struct module *running,
                      struct module **ret, struct weft_error *reterr);

/* Names of the module files in the directories, each once; freed by strings_done(). 0 or -ENOMEM.
 */
int module_names(const char *const *dirs, struct strings *ret);

/* Modules that are open together, none twice. */
enum { MODULES_MAX = 64 };

struct module_set {
        struct module *items[MODULES_MAX];
        size_t n;
};

struct module *module_set_find(const struct module_set *s, const char *name);
/* Opens NAME, and what it needs by name; a needed file that is missing is the plan's to complain
 * about, which knows who needs it. running: whose files may be given out again; NULL: none. */
int module_set_open(struct module_set *s, const char *const *dirs, const char *name,
                    const struct module_set *running, struct weft_error *reterr);
void module_set_close(struct module_set *s);

/* Copies a foreign descriptor into our layout: ABI and size checks. Exposed for the tests. */
int module_adopt(const struct weft_module *foreign, struct weft_module *ret,
                 struct weft_error *reterr);

/* What instances ask of the daemon; filled in by it, called through struct weft_api. */
struct core_services {
        void *data;
        int (*route)(void *data, const struct weft_prefix *prefix, const struct weft_addr *gateway,
                     struct weft_error *reterr);
        void (*unroute)(void *data, const struct weft_prefix *prefix);
        int (*table)(void *data, const char *name, const char *body, struct weft_error *reterr);
        void (*untable)(void *data, const char *name, const char *body);
        void (*peers)(void *data, void (*f)(void *, const struct weft_peer_info *), void *f_data);
        void (*cluster_prefixes)(void *data, void (*f)(void *, const struct weft_prefix *),
                                 void *f_data);
        const struct weft_prefixes *(*native_prefixes)(void *data, const char *module);
        bool (*runs)(void *data, const char *module);
        bool (*wraps)(void *data); /* NULL: nothing is tested */
        void (*log)(void *data, const char *module, int level, const char *text);
};

struct constant {
        char *name;
        void *value;
        size_t size;
};

struct instance {
        struct module *module; /* not owned */
        uint16_t id;           /* in its generation, from 1 */
        void *config;          /* desc.config_size bytes, filled by the option table; owned */
        void *data;            /* the module's */
        const struct core_services *services;
        struct constant *constants; /* from weft_api.constant(); owned */
        size_t n_constants;
        struct bpf_object *opened;    /* only while load runs: what weft_api.constant() looks at */
        struct weft_ports given_out;  /* from weft_api.give_out_ports() */
        struct weft_ports node_ports; /* from weft_api.node_ports(); 0, 0: serves none */
        struct bpf_object *object;    /* loaded, set by the generation; not owned */
        struct weft_prefix *routes;   /* held through weft_api.route(); owned */
        size_t n_routes;
        char *table;                    /* body held through weft_api.nft_table(); owned */
        struct weft_prefixes native;    /* from weft_api.set_native_prefixes(); items owned */
        struct weft_tunnel_spec tunnel; /* from weft_api.tunnel(); mode NONE: none */
        bool wraps;                     /* from weft_api.wrap() */
        bool attached, degraded;

        /* On a reload. An instance that goes on stands in both builds. */
        unsigned refs;
        bool kept;            /* a generation is built for an instance that has maps already */
        void *next_config;    /* reconfigured: takes the place of config at the takeover; owned */
        struct instance *old; /* the one it replaces, until the takeover; not owned */
};

/* Fills the config from the section (NULL: all defaults) and calls configure. */
int instance_new(struct module *m, uint16_t id, const struct config_module *section,
                 const struct core_services *services, struct diagnostics *diagnostics,
                 struct instance **ret, struct weft_error *reterr);
/* detach, unload, free; of one that stands in another build too, only this reference. */
struct instance *instance_free(struct instance *i);

/* What becomes of a running instance whose file is the same, under the options of section. */
enum instance_change {
        INSTANCE_KEPT,         /* the options are the same */
        INSTANCE_RECONFIGURED, /* it takes the new ones at the takeover: next_config */
        INSTANCE_REPLACED,     /* a new instance is needed */
        INSTANCE_ADDED,        /* none was running */
        INSTANCE_REMOVED,      /* none is wanted */
};
#define INSTANCE_CHANGE_NAMES                                                                      \
        {                                                                                          \
                "kept", "reconfigured", "replaced", "added", "removed"                             \
        }
/* The answer, or a refusal. Changes nothing but next_config. */
int instance_ask(struct instance *i, const struct config_module *section,
                 struct diagnostics *diagnostics, struct weft_error *reterr);
void instance_ask_undo(struct instance *i);
int instance_prepare(struct instance *i, struct weft_error *reterr);
void instance_takeover(struct instance *i);
/* The fd of a map of its objects, theirs; -ENOENT. */
int instance_map(const struct instance *i, const char *name);
int instance_migrate(struct instance *i, const char *map, unsigned from_version, int old_fd,
                     int new_fd, struct weft_error *reterr);
int instance_load(struct instance *i, struct weft_error *reterr);
int instance_attach(struct instance *i, struct weft_error *reterr);
int instance_event(struct instance *i, const struct weft_module_event *e,
                   struct weft_error *reterr);
void instance_detach(struct instance *i);
/* One line of what a running instance does: what it holds, then its own words. NULL: no memory. */
char *instance_status(struct instance *i);
