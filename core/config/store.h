/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Objects set at run time, as they outlive the daemon: each has a file of its own,
 * ROOT/var/lib/weft/objects/KIND/NAME.conf, with its section as an operator would write it, below a
 * line that says which form that is and who set it. So a change costs one small file, however many
 * objects there are. Touches nothing but files. */

#include <stdio.h>
#include <sys/types.h>

#include "error.h"

struct stored_file {
        char *path, *name;
        const char *kind; /* "service" */
};

struct stored_files {
        struct stored_file *items;
        size_t n;
};

/* All of them, by kind and name. A directory that is not there is empty. */
int stored_list(const char *root, struct stored_files *ret, struct weft_error *reterr);
void stored_files_done(struct stored_files *files);
/* Where the object's file is or would be; caller frees. NULL: no memory. */
char *stored_path(const char *root, const char *kind, const char *name);
/* Reads the first line and goes back to it. -EINVAL: another version of weft's, or damaged. */
int stored_header(FILE *f, uid_t *ret_uid, struct weft_error *reterr);

struct store_change {
        const char *kind, *name;
        uid_t uid;        /* who wants it */
        const char *text; /* the section; NULL: the file goes */
};

/* Makes all changes or none, and returns when they would survive a loss of power: the new texts are
 * written and flushed under other names, take their places, and the directories are flushed. */
int store_apply(const char *root, const struct store_change *changes, size_t n,
                struct weft_error *reterr);
/* Removes what a writer that was killed left. */
void store_tidy(const char *root);
