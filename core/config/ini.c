/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdbool.h>
#include <string.h>

#include "config/ini.h"
#include "util.h"

#define BLANKS " \t\r\v\f"
#define UTF8_BOM "\xef\xbb\xbf"

struct reader {
        FILE *stream;
        char *line; /* getline()'s; without the line feed */
        size_t size;
        struct origin origin;
        char section[INI_SECTION_MAX + 1];
        enum { BEFORE_SECTIONS, IN_SECTION, IN_REFUSED_SECTION } where;

        ini_item_fn f;
        void *data;
        struct diagnostics *diagnostics;
};

/* Length of the UTF-8 sequence at s, 0 for none (RFC 3629: shortest form, no surrogates, up to
 * U+10FFFF). s ends with a NUL, which is no continuation byte. */
static size_t utf8_length(const unsigned char *s)
{
        size_t n = s[0] < 0x80   ? 1
                   : s[0] < 0xc2 ? 0
                   : s[0] < 0xe0 ? 2
                   : s[0] < 0xf0 ? 3
                   : s[0] < 0xf5 ? 4
                                 : 0;

        for (size_t i = 1; i < n; i++)
                if ((s[i] & 0xc0) != 0x80)
                        return 0;

        if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
            (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
                return 0;

        return n;
}

static bool is_utf8(const char *line)
{
        const unsigned char *s = (const unsigned char *) line;
        size_t n;

        for (; *s != '\0'; s += n) {
                n = utf8_length(s);
                if (n == 0)
                        return false;
        }

        return true;
}

static bool is_comment(const char *s)
{
        return *s == '#' || *s == ';';
}

/* True where s holds nothing but blanks, or blanks and a comment after them. */
static bool is_empty_rest(const char *s)
{
        size_t blanks = strspn(s, BLANKS);

        return s[blanks] == '\0' || (blanks > 0 && s[blanks] == ';');
}

/* The character that ends the key: '=' or ':', or NUL where a comment or the end comes first. */
static char separator(const char *line)
{
        for (const char *s = line; *s != '\0'; s++) {
                if (*s == '=' || *s == ':')
                        return *s;
                if (*s == ';' && s > line && isspace((unsigned char) s[-1]))
                        break;
        }

        return '\0';
}

/* Why the bytes of a line cannot be taken, or NULL. */
static const char *refuse_bytes(const char *line, size_t n)
{
        if (strlen(line) < n)
                return "the line has a NUL byte: write plain text";
        if (!is_utf8(line))
                return "the line is not UTF-8: save the file in this encoding";
        if (n > INI_LINE_MAX)
                return "the line is longer than 198 bytes: lists may be spread over several lines, "
                       "each repeating the key";
        if (isspace((unsigned char) *line) && !is_empty_rest(line))
                return "the line is indented, but lines are never continued: begin it at the left "
                       "edge, and repeat the key for a list";

        return NULL;
}

/* Why a line that is no header cannot be taken, or NULL. */
static const char *refuse_assignment(const struct reader *r)
{
        char c = separator(r->line);

        if (c == ':')
                return "the key is followed by \":\": write KEY = VALUE";
        if (c == '\0')
                return "neither [SECTION] nor KEY = VALUE: comments begin with # or ;";
        if (*r->line == '=')
                return "there is no key before \"=\": write KEY = VALUE";
        if (r->where == BEFORE_SECTIONS)
                return "the assignment stands before the first section: put a [SECTION] above it";

        return NULL;
}

static const char *refuse_header(const char *line)
{
        const char *end = strchr(line, ']');

        if (!end)
                return "the section header has no \"]\": write [SECTION]";
        if (!is_empty_rest(end + 1))
                return "text follows the \"]\" of a section header: put it on a line of its own";
        if (end - line - 1 > INI_SECTION_MAX)
                return "the section name is longer than 48 bytes: choose a shorter one";

        return NULL;
}

static void refuse(struct reader *r, const char *why)
{
        diagnostics_add(r->diagnostics, &r->origin, "%s", why);
}

static void take_header(struct reader *r)
{
        const char *why = refuse_header(r->line);
        struct ini_item item = { .origin = r->origin, .section = r->section };

        if (why) {
                r->where = IN_REFUSED_SECTION;
                refuse(r, why);
                return;
        }

        r->where = IN_SECTION;
        (void) snprintf(r->section, sizeof(r->section), "%.*s",
                        (int) (strchr(r->line, ']') - r->line - 1), r->line + 1);
        r->f(r->data, &item);
}

/* Looks at the line that was read; true where inih is to have it. */
static bool admit(struct reader *r, size_t n)
{
        const char *why = refuse_bytes(r->line, n);

        if (why) {
                if (r->line[strspn(r->line, BLANKS)] == '[') /* may have been a header */
                        r->where = IN_REFUSED_SECTION;
                refuse(r, why);
                return false;
        }

        if (is_empty_rest(r->line) || is_comment(r->line))
                return false;

        if (*r->line == '[') {
                take_header(r);
                return false;
        }

        why = refuse_assignment(r);
        if (why)
                refuse(r, why);

        return !why;
}

/* inih's fgets(): the next line, or an empty one where inih has no business with it. */
static char *next_line(char *buf, int size, void *stream)
{
        struct reader *r = stream;
        ssize_t n = getline(&r->line, &r->size, r->stream);

        if (n < 0)
                return NULL;

        if (r->line[n - 1] == '\n')
                r->line[--n] = '\0';
        if (r->origin.line++ == 0 && strncmp(r->line, UTF8_BOM, 3) == 0) {
                n -= 3;
                memmove(r->line, r->line + 3, (size_t) n + 1);
        }

        (void) snprintf(buf, (size_t) size, "%s\n", admit(r, (size_t) n) ? r->line : "");
        return buf;
}

/* inih's section is ignored: the reader knows better. */
static int take_assignment(void *data, const char *section, const char *key, const char *value)
{
        struct reader *r = data;
        struct ini_item item = {
                .origin = r->origin,
                .section = r->section,
                .key = key,
                .value = value,
        };

        (void) section;
        if (r->where == IN_SECTION)
                r->f(r->data, &item);

        return 1;
}

int ini_read(FILE *stream, const char *file, ini_item_fn f, void *data,
             struct diagnostics *diagnostics)
{
        struct reader r = {
                .stream = stream,
                .origin.file = file,
                .f = f,
                .data = data,
                .diagnostics = diagnostics,
        };
        int line;

        line = ini_parse_stream(next_line, &r, take_assignment, &r);
        free(r.line);

        if (line > 0) {
                r.origin.line = (unsigned) line;
                refuse(&r, "the line is neither a section, an assignment nor a comment");
        }

        return line < 0 || ferror(stream) ? -EIO : 0;
}
