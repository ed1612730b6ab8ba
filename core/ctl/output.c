/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/values.h"
#include "ctl/output.h"
#include "util.h"

enum { COLUMNS_MOST = 10000 };

static struct {
        unsigned width;
        bool colours;
        pid_t pager; /* 0: none */
} output;

static unsigned look_at_width(void)
{
        const char *columns = getenv("COLUMNS");
        struct winsize w;
        uint64_t n;

        if (columns && parse_number(columns, &n) == 0 && n > 0 && n < COLUMNS_MOST)
                return (unsigned) n;

        return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 ? 0 : w.ws_col;
}

static bool wants_colours(void)
{
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return (!no || *no == '\0') && term && strcmp(term, "dumb") != 0;
}

/* As systemctl(1) finds it; NULL: the user wants none. */
static const char *pager_command(void)
{
        const char *command = getenv("SYSTEMD_PAGER") ?: getenv("PAGER") ?: "less";

        return *command == '\0' || strcmp(command, "cat") == 0 ? NULL : command;
}

static void run_pager(const char *command, int in)
{
        (void) dup2(in, STDIN_FILENO);
        (void) setenv("LESS", getenv("SYSTEMD_LESS") ?: "FRSXMK", 1);
        if (getenv("SUDO_UID") || getenv("PKEXEC_UID")) /* no shell of root's from within less */
                (void) setenv("LESSSECURE", "1", 1);
        (void) execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
}

static void start_pager(void)
{
        const char *command = pager_command();
        int ends[2];

        if (!command || pipe(ends) < 0)
                return;

        output.pager = fork();
        if (output.pager == 0) {
                (void) close(ends[1]);
                run_pager(command, ends[0]);
        }
        if (output.pager > 0)
                (void) dup2(ends[1], STDOUT_FILENO);
        else
                output.pager = 0;
        (void) close(ends[0]);
        (void) close(ends[1]);
        (void) signal(SIGPIPE, SIG_IGN); /* who leaves the pager has seen enough */
        (void) signal(SIGINT, SIG_IGN);  /* the pager's */
}

void output_open(bool paged)
{
        if (!isatty(STDOUT_FILENO))
                return;

        output.width = look_at_width();
        output.colours = wants_colours();
        if (paged)
                start_pager();
}

void output_close(void)
{
        if (output.pager == 0)
                return;

        (void) fflush(stdout);
        (void) close(STDOUT_FILENO);
        while (waitpid(output.pager, NULL, 0) < 0 && errno == EINTR)
                ;
        output.pager = 0;
}

unsigned terminal_width(void)
{
        return output.width;
}

bool has_colours(void)
{
        return output.colours;
}

void output_colours(bool on)
{
        output.colours = on;
}
