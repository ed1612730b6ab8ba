/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The daemon's log: one line for each event, to the journal with fields where stderr is the
 * journal, else to stderr with the "<level>" prefix of sd-daemon(3) (none on a terminal). Only the
 * daemon and the command line log; everything below them returns its reason. */

#include <stddef.h>
#include <stdint.h>
#include <syslog.h>

struct origin;

/* What happened, where it is worth looking for: messages.def. */
enum message {
        MESSAGE_NONE,
#define MESSAGE(name, id, subject, text) MESSAGE_##name,
#include "messages.def"
#undef MESSAGE
        MESSAGES
};

struct message_entry {
        const char *id, *subject, *text;
};

/* By enum message; MESSAGE_NONE has none of them. */
extern const struct message_entry message_entries[MESSAGES];

/* Fields of a journal entry; what is NULL or 0 is left out. */
struct log_fields {
        enum message message;
        uint32_t generation;         /* where it is not the one that runs */
        const struct origin *origin; /* where in the configuration; begins the line, too */
        const char *module;          /* begins the line where there is no origin */
        const char *uplink, *endpoint, *peer, *service; /* names */
        const char *caller;                             /* who asked for a change */
        const char *verifier_log;
};

/* Looks at what stderr is. identifier: name of the program, must outlive the log. */
void log_open(const char *identifier);

/* Generation of the entries from here on that name no other. */
void log_generation(uint32_t generation);

/* One line; fields may be NULL. level: LOG_ERR … LOG_DEBUG. */
void log_line(int level, const struct log_fields *fields, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(...) log_line(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, NULL, __VA_ARGS__)

/* The same with a number: log_message(LOG_NOTICE, STOPPED, "…"); and with the object it is about:
 * log_about(LOG_INFO, ENDPOINT_READY, endpoint, e->name, "…"). */
#define log_message(level, name, ...)                                                              \
        log_line((level), &(const struct log_fields) { .message = MESSAGE_##name }, __VA_ARGS__)
#define log_about(level, number, field, object, ...)                                               \
        log_line((level),                                                                          \
                 &(const struct log_fields) { .message = MESSAGE_##number, .field = (object) },    \
                 __VA_ARGS__)
