/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* From a name to bytes that nobody can change any more. */

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* Opens NAME.so in the first directory that has it, checks the file, its directories and its
 * library search path, and copies it into a sealed memfd. Returns the memfd, owned by the caller,
 * and the path it came from in *ret_path (freed by the caller). -ENOENT: in none of them; -EPERM:
 * somebody else could change it; -ENOEXEC: not a shared object of this machine. */
int file_open(const char *const *dirs, const char *name, char **ret_path,
              struct weft_error *reterr);

/* Checks that the shared object in fd, of the given path, looks for libraries nowhere but in the
 * system's directories: they are opened and run by whoever loads it. */
int file_check_libraries(int fd, const char *path, struct weft_error *reterr);

/* Whether two such memfds have the same content. */
bool file_same(int a, int b);
/* Of the content of such a memfd; 0 if it cannot be read. */
uint64_t file_sum(int fd);
