/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prometheus' text format, as its parser wants it. */

#include <criterion/criterion.h>
#include <string.h>

#include "daemon/exposition.h"
#include "util.h"

static char *text;
static size_t size;
static FILE *f;

static void begin(void)
{
        f = open_memstream(&text, &size);
        cr_assert(f);
}

static void end(void)
{
        free(text);
}

TestSuite(exposition, .init = begin, .fini = end);

static void expect(const char *wanted)
{
        cr_assert_eq(fclose(f), 0);
        cr_expect_str_eq(text, wanted);
}

Test(exposition, a_family_begins_with_its_help_and_type)
{
        exposition_family(f, "weft_flows", "gauge", "Entries \"here\", back\\slash\nand line");
        expect("# HELP weft_flows Entries \"here\", back\\\\slash\\nand line\n"
               "# TYPE weft_flows gauge\n");
}

Test(exposition, a_sample_without_labels_has_no_braces)
{
        exposition_sample(f, "weft_peers", (const struct label[]) { {} }, 0);
        expect("weft_peers 0\n");
}

Test(exposition, counters_are_told_to_the_last_digit)
{
        exposition_sample(f, "weft_x_total", (const struct label[]) { {} }, UINT64_MAX);
        expect("weft_x_total 18446744073709551615\n");
}

Test(exposition, no_text_of_a_label_can_end_it)
{
        exposition_sample(f, "weft_x",
                          (const struct label[]) { { "a", "q\"}\\\n" }, { "b", "" }, {} }, 7);
        expect("weft_x{a=\"q\\\"}\\\\\\n\",b=\"\"} 7\n");
}
