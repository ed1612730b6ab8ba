/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#define SD_JOURNAL_SUPPRESS_LOCATION /* it would always be this file */
#include <systemd/sd-journal.h>
#include <systemd/sd-login.h>

#include "config/config.h"
#include "log.h"
#include "util.h"

enum { FIELDS_MAX = 16, LINE_SIZE = 2048 };

const struct message_entry message_entries[MESSAGES] = {
#define MESSAGE(name, id, subject, text) [MESSAGE_##name] = { id, subject, text },
#include "messages.def"
#undef MESSAGE
};

static struct {
        const char *identifier;
        char *unit; /* of the service manager that this process is */
        bool journal, terminal;
        uint32_t generation;
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
        if (target.journal && !target.unit)
                (void) sd_pid_get_unit(/* pid= */ 0, &target.unit);
}

void log_generation(uint32_t generation)
{
        target.generation = generation;
}

struct entry {
        struct iovec iov[FIELDS_MAX];
        int n;
};

static void entry_done(struct entry *e)
{
        for (int i = 0; i < e->n; i++)
                free(e->iov[i].iov_base);
}

/* A field for which there is no memory is left out: the others still tell something. */
__attribute__((format(printf, 2, 3))) static void field(struct entry *e, const char *format, ...)
{
        char *text;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);

        if (n >= 0)
                e->iov[e->n++] = (struct iovec) { text, (size_t) n };
}

static void text_fields(struct entry *e, const struct log_fields *fields)
{
        const struct {
                const char *name, *value;
        } texts[] = {
                { "MESSAGE_ID", message_entries[fields->message].id },
                { "WEFT_MODULE", fields->module },
                { "WEFT_UPLINK", fields->uplink },
                { "WEFT_ENDPOINT", fields->endpoint },
                { "WEFT_PEER", fields->peer },
                { "WEFT_SERVICE", fields->service },
                { "WEFT_CALLER", fields->caller },
                { "WEFT_VERIFIER_LOG", fields->verifier_log },
        };

        for (size_t i = 0; i < ELEMENTS(texts); i++)
                if (texts[i].value && texts[i].value[0])
                        field(e, "%s=%s", texts[i].name, texts[i].value);
}

static void send_to_journal(int level, const struct log_fields *fields, const char *line)
{
        static const struct log_fields none;
        _cleanup_(entry_done) struct entry e = { .n = 0 };
        uint32_t generation;

        fields = fields ?: &none;
        generation = fields->generation ?: target.generation;
        field(&e, "MESSAGE=%s", line);
        field(&e, "PRIORITY=%d", level);
        field(&e, "SYSLOG_IDENTIFIER=%s", target.identifier);
        /* The journal asks /proc who a sender is: of one that has ended by then, only this tells.
         */
        if (target.unit)
                field(&e, "OBJECT_SYSTEMD_UNIT=%s", target.unit);
        if (generation)
                field(&e, "WEFT_GENERATION=%u", generation);
        if (fields->origin) {
                field(&e, "CONFIG_FILE=%s", fields->origin->file);
                field(&e, "CONFIG_LINE=%u", fields->origin->line);
        }
        text_fields(&e, fields);

        (void) sd_journal_sendv(e.iov, e.n);
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
