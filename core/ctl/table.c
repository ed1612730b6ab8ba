/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <string.h>

#include "config/values.h"
#include "ctl/output.h"
#include "ctl/table.h"
#include "ctl/wrap.h"
#include "util.h"

enum { COLUMNS_MAX = 16, NARROWEST = 6, NARROWEST_WRAPPED = 24, GAP = 2 };

#define GREEN "\x1b[32m"
#define YELLOW "\x1b[33m"
#define RED "\x1b[31m"
#define UNDERLINED "\x1b[4m"
#define PLAIN "\x1b[0m"

struct cell {
        char *text;
        const char *colour; /* NULL: none */
};

struct table {
        const struct column *columns;
        size_t n_columns;
        size_t widths[COLUMNS_MAX];
        bool hidden[COLUMNS_MAX];
        struct cell *cells;
        size_t n_cells;
        bool begun; /* the title is printed */
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

static void forget(struct table *t)
{
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i].text);
        free(t->cells);
        t->cells = NULL;
        t->n_cells = 0;
}

struct table *table_free(struct table *t)
{
        if (t)
                forget(t);
        free(t);

        return NULL;
}

/* Steals text. */
static void add(struct table *t, char *text, const char *colour)
{
        if (!text || list_grow(&t->cells, t->n_cells, sizeof(*t->cells)) < 0)
                free(text);
        else
                t->cells[t->n_cells++] = (struct cell) { text, colour };
}

void table_cell(struct table *t, const char *format, ...)
{
        char *text = NULL;
        va_list ap;
        int r;

        if (!t)
                return;

        va_start(ap, format);
        r = vasprintf(&text, format, ap);
        va_end(ap);
        add(t, r >= 0 ? text : NULL, NULL);
}

static const char *colour_of(const char *word)
{
        static const struct {
                const char *word, *colour;
        } words[] = {
                { "on", GREEN },       { "ready", GREEN },        { "up", GREEN },
                { "use", GREEN },      { "active", GREEN },       { "degraded", YELLOW },
                { "pending", YELLOW }, { "fallback", YELLOW },    { "draining", YELLOW },
                { "off", RED },        { "missing", RED },        { "refused", RED },
                { "down", RED },       { "maintenance", YELLOW },
        };

        for (size_t i = 0; i < ELEMENTS(words); i++)
                if (strcmp(words[i].word, word) == 0)
                        return words[i].colour;

        return NULL;
}

void table_state(struct table *t, const char *word)
{
        if (t)
                add(t, strdup(word), has_colours() ? colour_of(word) : NULL);
}

/* ---- widths ------------------------------------------------------------------------------- */

static void measure(struct table *t)
{
        for (size_t c = 0; c < t->n_columns; c++)
                if (t->widths[c] < strlen(t->columns[c].title))
                        t->widths[c] = strlen(t->columns[c].title);

        for (size_t i = 0; i < t->n_cells; i++) {
                size_t n = text_length(t->cells[i].text), *w = &t->widths[i % t->n_columns];

                *w = n > *w ? n : *w;
        }
}

static size_t total(const struct table *t)
{
        size_t sum = 0;

        for (size_t c = 0; c < t->n_columns; c++)
                if (!t->hidden[c])
                        sum += t->widths[c] + GAP;

        return sum - GAP;
}

/* Takes columns out that may be missed, the highest drop first. */
static void drop_columns(struct table *t, size_t limit)
{
        while (total(t) > limit) {
                size_t first = t->n_columns;

                for (size_t c = 0; c < t->n_columns; c++)
                        if (!t->hidden[c] && t->columns[c].drop > 0 &&
                            (first == t->n_columns || t->columns[c].drop > t->columns[first].drop))
                                first = c;
                if (first == t->n_columns)
                        return;
                t->hidden[first] = true;
        }
}

static bool is_wrapped(const struct table *t, size_t column)
{
        return column + 1 == t->n_columns && t->columns[column].wrap;
}

/* Takes from the column that is broken into lines, then from the widest, until the line fits. */
static void shrink(struct table *t, size_t limit)
{
        size_t last = t->n_columns - 1, all = total(t);

        if (is_wrapped(t, last) && !t->hidden[last] && all > limit &&
            t->widths[last] > NARROWEST_WRAPPED) {
                size_t can = t->widths[last] - NARROWEST_WRAPPED, need = all - limit;

                t->widths[last] -= need < can ? need : can;
        }

        while (total(t) > limit) {
                size_t widest = 0;

                for (size_t c = 0; c < t->n_columns; c++)
                        if (!t->hidden[c] &&
                            (t->hidden[widest] || t->widths[c] > t->widths[widest]))
                                widest = c;
                if (t->widths[widest] <= NARROWEST)
                        return;
                t->widths[widest]--;
        }
}

/* ---- printing ----------------------------------------------------------------------------- */

static void print_cell(const struct table *t, FILE *f, size_t column, const char *text,
                       const char *colour, size_t at)
{
        size_t width = t->widths[column], n = text_length(text);
        bool last = column + 1 == t->n_columns;
        int blanks = n < width ? (int) (width - n) : 0;

        if (is_wrapped(t, column) && n > width) {
                wrap_print(f, text, (int) at, (int) (at + width));
                return;
        }

        if (t->columns[column].right)
                (void) fprintf(f, "%*s", blanks, "");
        (void) fputs(colour ?: "", f);
        if (n > width)
                (void) fprintf(f, "%.*s…", text_prefix(text, width - 1), text);
        else
                (void) fputs(text, f);
        (void) fputs(colour ? PLAIN : "", f);
        if (!t->columns[column].right && !last)
                (void) fprintf(f, "%*s", blanks, "");
        if (last)
                (void) fputc('\n', f);
}

/* cells NULL: the titles. */
static void print_row(const struct table *t, FILE *f, const struct cell *cells)
{
        const char *title = has_colours() ? UNDERLINED : NULL;
        size_t at = 0;

        for (size_t c = 0; c < t->n_columns; c++) {
                if (t->hidden[c]) {
                        if (c + 1 == t->n_columns)
                                (void) fputc('\n', f);
                        continue;
                }
                if (at > 0)
                        (void) fprintf(f, "%*s", GAP, "");
                at += at > 0 ? GAP : 0;
                print_cell(t, f, c, cells ? cells[c].text : t->columns[c].title,
                           cells ? cells[c].colour : title, at);
                at += t->widths[c];
        }
}

void table_print(struct table *t, FILE *f, unsigned width)
{
        if (!t || t->n_columns == 0)
                return;

        measure(t);
        if (width) {
                drop_columns(t, width);
                shrink(t, width);
        }

        if (!t->begun)
                print_row(t, f, NULL);
        t->begun = true;
        for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
                print_row(t, f, &t->cells[i]);
        forget(t);
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
