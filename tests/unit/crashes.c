/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "module/crashes.h"
#include "util.h"

static char run[] = "/tmp/weft-crashes-XXXXXX", last[CRASH_TEXT];
static struct weft_error why;

static void make(void)
{
        cr_assert_not_null(mkdtemp(run));
}

static void clean(void)
{
        char command[64];

        crashes_close();
        (void) snprintf(command, sizeof(command), "rm -r %s", run);
        cr_assert_eq(system(command), 0);
}

TestSuite(crashes, .init = make, .fini = clean);

/* A daemon that ends in, or after, a callback. */
static void live(bool inside)
{
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                if (crashes_open(run, last, &why) == 0) {
                        crashes_enter("quite-a-long-one", 7, "reconfigure");
                        crashes_leave();
                        crashes_enter("bad", 5, inside ? "event" : "attach");
                        if (!inside)
                                crashes_leave();
                }
                _exit(0);
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);
}

Test(crashes, the_end_outside_of_a_callback_leaves_nothing)
{
        live(false);
        cr_assert_eq(crashes_open(run, last, &why), 0, "%s", why.text);
        cr_assert_str_empty(last);
        cr_assert_eq(crashes_of(run, "bad", 5, last), 0);
}

Test(crashes, the_end_in_a_callback_is_counted_once_for_that_file)
{
        live(true);
        live(true);
        for (int i = 0; i < 2; i++) {
                cr_assert_eq(crashes_open(run, last, &why), 0, "%s", why.text);
                cr_assert_str_eq(last, i == 0 ? "bad 0000000000000005 event" : "");
                crashes_close();
        }

        cr_assert_eq(crashes_of(run, "bad", 5, last), 2);
        cr_assert_str_eq(last, "event");
        cr_assert_eq(crashes_of(run, "bad", 6, last), 0, "another file begins anew");
        cr_assert_eq(crashes_of(run, "good", 5, last), 0);
}
