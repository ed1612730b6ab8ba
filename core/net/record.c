/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The record of host changes: lines of words separated by tabs, read from the first to the last.
 *
 *   weft-host BOOT-ID NAMESPACE   where it holds: elsewhere its changes are not there
 *   sysctl PATH BEFORE VALUE
 *   sysctl-undone PATH
 *   route PREFIX
 *   route-undone PREFIX
 *   ports LIST                    all that weft reserved
 *   table NAME                    of nftables, family inet
 *   table-undone NAME
 *
 * A last line without its end was cut short by a crash, before its change was made. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "net/hold.h"
#include "paths.h"

enum { WORDS = 4, LINES_KEPT = 256 };

struct place {
        char boot[64];
        uint64_t namespace;
};

static void this_place(struct place *ret)
{
        _cleanup_free_ char *boot = NULL;

        *ret = (struct place) { .namespace = netns_number() };
        if (sysctl_read("kernel/random/boot_id", &boot) == 0)
                (void) snprintf(ret->boot, sizeof(ret->boot), "%s", boot);
}

static int add_sysctl(struct host *h, char *const words[WORDS])
{
        struct sysctl_hold *s = sysctl_find(h, words[1]);
        char *value;

        if (!s)
                return sysctl_add(h, words[1], words[2], words[3]) ? 0 : -ENOMEM;

        value = strdup(words[3]);
        if (!value)
                return -ENOMEM;
        free(s->value);
        s->value = value;

        return 0;
}

static int drop_sysctl(struct host *h, char *const words[WORDS])
{
        struct sysctl_hold *s = sysctl_find(h, words[1]);

        if (s) {
                sysctl_hold_done(s);
                h->n_sysctls--;
                memmove(s, s + 1, (size_t) (&h->sysctls[h->n_sysctls] - s) * sizeof(*s));
        }

        return 0;
}

static int add_route(struct host *h, char *const words[WORDS])
{
        struct route r = { 0 };

        if (parse_prefix(words[1], &r.dst) < 0 || route_find(h, &r.dst))
                return 0;

        return route_hold_add(h, &r) ? 0 : -ENOMEM;
}

static int drop_route(struct host *h, char *const words[WORDS])
{
        struct weft_prefix dst;
        struct route_hold *r = parse_prefix(words[1], &dst) < 0 ? NULL : route_find(h, &dst);

        if (r)
                *r = h->routes[--h->n_routes];

        return 0;
}

static int set_ports(struct host *h, char *const words[WORDS])
{
        (void) ports_parse(words[1], &h->own_ports);
        return 0;
}

static int add_table(struct host *h, char *const words[WORDS])
{
        return table_find(h, words[1]) || table_hold_add(h, words[1]) ? 0 : -ENOMEM;
}

static int drop_table(struct host *h, char *const words[WORDS])
{
        struct table_hold *t = table_find(h, words[1]);

        if (t) {
                table_hold_done(t);
                *t = h->tables[--h->n_tables];
        }

        return 0;
}

static int load_line(struct host *h, char *line)
{
        static const struct {
                const char *name;
                int words;
                int (*load)(struct host *h, char *const words[WORDS]);
        } kinds[] = {
                { "sysctl", 4, add_sysctl },       { "sysctl-undone", 2, drop_sysctl },
                { "route", 2, add_route },         { "route-undone", 2, drop_route },
                { "ports", 2, set_ports },         { "table", 2, add_table },
                { "table-undone", 2, drop_table },
        };
        char *words[WORDS] = { 0 };
        int n = 0;

        while (n < WORDS && (words[n] = strsep(&line, "\t")))
                n++;
        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                if (n >= kinds[i].words && strcmp(words[0], kinds[i].name) == 0)
                        return kinds[i].load(h, words);

        return 0;
}

static bool same_place(const char *line)
{
        struct place here, there;

        this_place(&here);

        return sscanf(line, "weft-host\t%63s\t%" SCNu64, there.boot, &there.namespace) == 2 &&
               strcmp(here.boot, there.boot) == 0 && here.namespace == there.namespace;
}

static int load(struct host *h)
{
        _cleanup_fclose_ FILE *f = fopen(h->path, "re");
        _cleanup_free_ char *line = NULL;
        size_t room = 0;
        bool first = true;
        ssize_t n;
        int r = 0;

        if (!f)
                return errno == ENOENT ? 0 : -errno;

        while (r >= 0 && (n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n') {
                line[n - 1] = '\0';
                if (first && !same_place(line))
                        break;
                if (!first)
                        r = load_line(h, line);
                first = false;
        }

        return r;
}

static int print(FILE *f, struct host *h)
{
        _cleanup_free_ char *ports = ports_format(&h->own_ports);
        char text[PREFIX_TEXT];
        struct place here;

        if (!ports)
                return -ENOMEM;

        this_place(&here);
        (void) fprintf(f, "weft-host\t%s\t%" PRIu64 "\n", here.boot, here.namespace);
        for (size_t i = 0; i < h->n_sysctls; i++)
                if (strcmp(h->sysctls[i].before, h->sysctls[i].value) != 0)
                        (void) fprintf(f, "sysctl\t%s\t%s\t%s\n", h->sysctls[i].path,
                                       h->sysctls[i].before, h->sysctls[i].value);
        for (size_t i = 0; i < h->n_routes; i++)
                (void) fprintf(f, "route\t%s\n",
                               prefix_format(&h->routes[i].route.dst, text, sizeof(text)));
        for (size_t i = 0; i < h->n_tables; i++)
                (void) fprintf(f, "table\t%s\n", h->tables[i].name);
        if (*ports)
                (void) fprintf(f, "ports\t%s\n", ports);

        return fflush(f) == 0 && !ferror(f) ? 0 : -EIO;
}

static int write_anew(struct host *h)
{
        _cleanup_free_ char *temporary = NULL;
        _cleanup_fclose_ FILE *f = NULL;
        _cleanup_close_ int fd = -1;
        int r;

        if (asprintf(&temporary, "%s.new", h->path) < 0)
                return TAKE(temporary), -ENOMEM;

        f = fopen(temporary, "we");
        if (!f)
                return -errno;
        r = print(f, h);
        if (r < 0)
                return r;

        fd = open(temporary, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (fd < 0 || rename(temporary, h->path) < 0)
                return -errno;

        closep(&h->record);
        h->record = TAKE_FD(fd);
        h->lines = 1 + h->n_sysctls + h->n_routes + h->n_tables;

        return 0;
}

int record_open(struct host *h, struct weft_error *reterr)
{
        int r = load(h);

        if (r < 0)
                return weft_fail(reterr, r, "cannot read %s: %s", h->path, strerror(-r));

        h->inherited_ports = h->own_ports;
        r = write_anew(h);

        return r < 0 ? weft_fail(reterr, r, "cannot write %s: %s", h->path, strerror(-r)) : 0;
}

int record_add(struct host *h, struct weft_error *reterr, const char *format, ...)
{
        _cleanup_free_ char *line = NULL;
        va_list ap;
        ssize_t n;
        int size;

        va_start(ap, format);
        size = vasprintf(&line, format, ap);
        va_end(ap);
        if (size < 0) {
                line = NULL;
                return weft_fail(reterr, -ENOMEM, "out of memory");
        }

        line[size] = '\n'; /* in the place of the NUL: one write is one line */
        n = write(h->record, line, (size_t) size + 1);
        if (n != size + 1)
                return weft_fail(reterr, n < 0 ? -errno : -ENOSPC, "cannot write %s", h->path);
        h->lines++;

        return 0;
}

void record_trim(struct host *h)
{
        /* The old file stays whole and right when this fails. */
        if (h->lines > LINES_KEPT + 4 * (h->n_sysctls + h->n_routes + h->n_tables))
                (void) write_anew(h);
}
