/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a module file says of itself, without a daemon: the struct of its .so and the BTF of the
 * eBPF object in it. The file is checked as weftd checks it and then loaded into this process, so
 * its constructors run; no callback does. */

#include <stdio.h>

#include <jansson.h>

#include "error.h"
#include "generation/stages.h"
#include "module/module.h"

struct description {
        struct module *module;
        struct bpf_object *object; /* opened and not loaded; NULL: the module has none */
        struct stage_list stages;
};

/* Opens DIR/NAME.so. -EINVAL: not such a path; else as module_open(), and what stages_read()
 * refuses. */
int description_open(const char *file, struct description **ret, struct weft_error *reterr);
struct description *description_close(struct description *d);

/* The module's own maps: those of the core, which every stage object defines, are left out. Begin
 * with NULL; NULL ends. */
struct bpf_map *description_next_map(const struct description *d, struct bpf_map *map);

/* What becomes of such a map when the generation changes: "config", "state 1", "stats". Returns
 * buf. */
const char *map_class_text(const struct description *d, const struct bpf_map *map,
                           char buf[static 16]);

/* " and …", or "" where nothing more has to hold. */
const char *condition_text(enum weft_condition condition);

/* A need's kind as one word: "helper"; an option's type: "number 1-65535". Return buf. */
const char *need_kind_word(enum weft_need_kind kind);
const char *option_type_text(const struct weft_option *o, char *buf, size_t size);

/* What description_print() takes, ended by NULL. */
extern const char *const description_formats[];

/* Prints it as FORMAT: text, markdown (its chapter of the manual), sample (its file of conf.d) or
 * json. -EINVAL: none of these. */
int description_print(const struct description *d, const char *format, FILE *f,
                      struct weft_error *reterr);

/* The printers. */
json_t *description_json(const struct description *d);
void description_text(const struct description *d, FILE *f);
void description_markdown(const struct description *d, FILE *f);
void description_sample(const struct description *d, FILE *f);
