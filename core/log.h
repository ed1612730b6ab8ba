/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The daemon's log: one line for each event, to the journal with fields where stderr is the
 * journal, else to stderr with the "<level>" prefix of sd-daemon(3) (none on a terminal). Only the
 * daemon and the command line log; everything below them returns its reason. */

#include <stdint.h>
#include <syslog.h>

struct origin;

/* Fields of a journal entry; what is NULL or 0 is left out. */
struct log_fields {
        const char *module;
        uint32_t generation;
        const struct origin *origin; /* where in the configuration; begins the line, too */
};

/* Looks at what stderr is. identifier: name of the program, must outlive the log. */
void log_open(const char *identifier);

/* One line; fields may be NULL. level: LOG_ERR … LOG_DEBUG. */
void log_line(int level, const struct log_fields *fields, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(...) log_line(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, NULL, __VA_ARGS__)
