/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "config/values.h"
#include "ctl/table.h"
#include "util.h"

enum { COLUMNS_MAX = 16, NARROWEST = 6, GAP = 2 };

struct table {
        const struct column *columns;
        size_t n_columns;
        char **cells;
        size_t n_cells;
};

struct table *table_new(const struct column *columns)
{
        struct table *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;

        t->columns = columns;
        while (t->n_columns < COLUMNS_MAX && columns[t->n_columns].title)
                t->n_columns++;

        return t;
}

struct table *table_free(struct table *t)
{
        if (!t)
                return NULL;

        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i]);
        free(t->cells);
        free(t);

        return NULL;
}

void table_cell(struct table *t, const char *format, ...)
{
        char *text;
        va_list ap;
        int r;

        if (!t || list_grow(&t->cells, t->n_cells, sizeof(*t->cells)) < 0)
                return;

        va_start(ap, format);
        r = vasprintf(&text, format, ap);
        va_end(ap);
        if (r >= 0)
                t->cells[t->n_cells++] = text;
}

static void measure(const struct table *t, size_t *widths)
{
        for (size_t c = 0; c < t->n_columns; c++)
                widths[c] = strlen(t->columns[c].title);

        for (size_t i = 0; i < t->n_cells; i++) {
                size_t n = strlen(t->cells[i]), *w = &widths[i % t->n_columns];

                *w = n > *w ? n : *w;
        }
}

/* Takes from the widest column, one by one, until the line fits. */
static void shrink(const struct table *t, size_t *widths, size_t limit)
{
        for (;;) {
                size_t total = (t->n_columns - 1) * GAP, widest = 0;

                for (size_t c = 0; c < t->n_columns; c++) {
                        total += widths[c];
                        if (widths[c] > widths[widest])
                                widest = c;
                }
                if (total <= limit || widths[widest] <= NARROWEST)
                        return;
                widths[widest]--;
        }
}

static void print_cell(FILE *f, const char *text, size_t width, bool right, bool last)
{
        int w = (int) width;

        if (strlen(text) > width)
                (void) fprintf(f, "%.*s…", w - 1, text);
        else if (right)
                (void) fprintf(f, "%*s", w, text);
        else
                (void) fprintf(f, "%-*s", last ? 0 : w, text);

        (void) fputs(last ? "\n" : "  ", f);
}

void table_print(const struct table *t, FILE *f, unsigned width)
{
        size_t widths[COLUMNS_MAX];

        if (!t || t->n_columns == 0)
                return;

        measure(t, widths);
        if (width)
                shrink(t, widths, width);

        for (size_t c = 0; c < t->n_columns; c++)
                print_cell(f, t->columns[c].title, widths[c], t->columns[c].right,
                           c + 1 == t->n_columns);
        for (size_t i = 0; i < t->n_cells; i++) {
                size_t c = i % t->n_columns;

                print_cell(f, t->cells[i], widths[c], t->columns[c].right, c + 1 == t->n_columns);
        }
}

unsigned terminal_width(void)
{
        struct winsize w;

        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 ? 0 : w.ws_col;
}

const char *size_text(unsigned long long n, char buf[static 24])
{
        static const char units[] = "KMGTP";
        double x = (double) n;
        int u = -1;

        while (x >= 1024 && u < 4) {
                x /= 1024;
                u++;
        }
        if (u < 0)
                (void) snprintf(buf, 24, "%llu", n);
        else
                (void) snprintf(buf, 24, x < 10 ? "%.1f%c" : "%.0f%c", x, units[u]);

        return buf;
}

const char *age_text(long long seconds, char buf[static 24])
{
        if (seconds < 120)
                (void) snprintf(buf, 24, "%llds", seconds);
        else if (seconds < 2 * 3600)
                (void) snprintf(buf, 24, "%lldmin", seconds / 60);
        else if (seconds < 2 * 86400)
                (void) snprintf(buf, 24, "%lldh", seconds / 3600);
        else
                (void) snprintf(buf, 24, "%lldd", seconds / 86400);

        return buf;
}
