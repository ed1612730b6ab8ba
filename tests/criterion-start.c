/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Criterion shows differences of its new kind of assertion with libgit2, and starts it in the
 * process of each test, where it parses all certificates of the system: a tenth of the time in an
 * emulated guest. The tests here assert in the other way, and find these before libgit2's own. */

__attribute__((visibility("default"))) int git_libgit2_init(void);
__attribute__((visibility("default"))) int git_libgit2_shutdown(void);

int git_libgit2_init(void)
{
        return 1;
}

int git_libgit2_shutdown(void)
{
        return 0;
}
