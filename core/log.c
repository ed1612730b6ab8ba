/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>

#include "config/config.h"
#include "log.h"
#include "util.h"

enum { FIELDS_MAX = 8, FIELD_SIZE = 256, LINE_SIZE = 2048 };

static struct {
        const char *identifier;
        bool journal, terminal;
} target = { .identifier = "weft" };

/* JOURNAL_STREAM holds device and inode of the socket that the service manager made stderr; it is
 * inherited by those whose stderr is something else by now, so the numbers are compared. */
static bool stderr_is_journal(void)
{
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long device, inode;
        struct stat st;

        if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
                return false;
        if (fstat(STDERR_FILENO, &st) < 0)
                return false;

        return st.st_dev == device && st.st_ino == inode;
}

void log_open(const char *identifier)
{
        target.identifier = identifier;
        target.journal = stderr_is_journal();
        target.terminal = isatty(STDERR_FILENO) > 0;
}

struct fields {
        char text[FIELDS_MAX][FIELD_SIZE];
        struct iovec iov[FIELDS_MAX + 1];
        int n;
};

__attribute__((format(printf, 2, 3))) static void field(struct fields *f, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(f->text[f->n], FIELD_SIZE, format, ap);
        va_end(ap);

        f->iov[f->n] = (struct iovec) { f->text[f->n], strlen(f->text[f->n]) };
        f->n++;
}

static void send_to_journal(int level, const struct log_fields *fields, const char *line)
{
        char message[LINE_SIZE + sizeof("MESSAGE=")];
        struct fields f = { .n = 0 };

        field(&f, "PRIORITY=%d", level);
        field(&f, "SYSLOG_IDENTIFIER=%s", target.identifier);
        if (fields && fields->module)
                field(&f, "WEFT_MODULE=%s", fields->module);
        if (fields && fields->generation)
                field(&f, "WEFT_GENERATION=%u", fields->generation);
        if (fields && fields->origin) {
                field(&f, "CONFIG_FILE=%s", fields->origin->file);
                field(&f, "CONFIG_LINE=%u", fields->origin->line);
        }

        (void) snprintf(message, sizeof(message), "MESSAGE=%s", line);
        f.iov[f.n++] = (struct iovec) { message, strlen(message) };
        (void) sd_journal_sendv(f.iov, f.n);
}

void log_line(int level, const struct log_fields *fields, const char *format, ...)
{
        char line[LINE_SIZE] = "", place[ORIGIN_TEXT];
        va_list ap;
        int n = 0;

        if (fields && fields->origin)
                n = snprintf(line, sizeof(line),
                             "%s: ", origin_format(fields->origin, place, sizeof(place)));
        else if (fields && fields->module)
                n = snprintf(line, sizeof(line), "%.64s: ", fields->module);

        va_start(ap, format);
        (void) vsnprintf(line + n, sizeof(line) - n, format, ap);
        va_end(ap);

        if (target.journal)
                send_to_journal(level, fields, line);
        else if (target.terminal)
                (void) fprintf(stderr, "%s\n", line);
        else
                (void) fprintf(stderr, "<%d>%s\n", level, line);
}
