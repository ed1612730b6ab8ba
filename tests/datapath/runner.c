/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "world.h"

static int run_tests(void *tests)
{
        return criterion_run_all_tests(tests) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Tests share the loaded programs and the tables, and so run one after the other. The symbol is
 * exported because that is how Criterion finds what not to run again in the tests' processes. */
__attribute__((visibility("default"))) int main(int argc, char **argv)
{
        struct criterion_test_set *tests = criterion_initialize();
        int r = EXIT_SUCCESS;

        criterion_options.jobs = 1;
        if (criterion_handle_args(argc, argv, true)) {
                r = world_prepare(0) ? world_serve(run_tests, tests) : EXIT_FAILURE;
                world_finish();
        }
        criterion_finalize(tests);
        return r;
}
