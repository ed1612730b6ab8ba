/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where one instance of weft keeps its things: below --root and --bpffs. Shared by the daemon and
 * the command line, so that both mean the same files. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct paths {
        char *root;    /* "" for the system's own */
        char *bpffs;   /* pins */
        char *run;     /* ROOT/run/weft */
        char *state;   /* ROOT/var/lib/weft */
        char *control; /* RUN/control */
};

/* NULL: the system's own. Makes nothing. -ENOMEM, -EINVAL for a relative path. */
int paths_init(struct paths *p, const char *root, const char *bpffs, struct weft_error *reterr);
void paths_done(struct paths *p);

/* mkdir -p. */
int make_directories(const char *path, mode_t mode, struct weft_error *reterr);

/* Replaces a small file as a whole: a reader or a crash sees the old or the new text; after it
 * returned, a loss of power leaves the new one. */
int file_replace(const char *path, const char *text, struct weft_error *reterr);
/* Reads a small file (64 KiB at most) as a string; caller frees. -ENOENT. */
int file_read(const char *path, char **ret);

/* Takes the lock RUN/lock for this process's life. -EBUSY with the holder's pid. *ret_fd must stay
 * open, and no other descriptor of the file may be closed meanwhile (POSIX record lock). */
int lock_take(const struct paths *p, int *ret_fd, struct weft_error *reterr);
/* The same for the pins, which instances of other roots may name too: a lock of the directory
 * BPFFS, which is there already. */
int pins_lock_take(const struct paths *p, int *ret_fd, struct weft_error *reterr);
/* Pid of the daemon that holds the lock; 0: none, or of another pid namespace. */
pid_t lock_holder(const struct paths *p);
bool lock_is_held(const struct paths *p);

/* Number of the network namespace this process is in (inode of its nsfs file); 0 if unknown. */
uint64_t netns_number(void);
