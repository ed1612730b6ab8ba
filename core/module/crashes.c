/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "module/crashes.h"
#include "paths.h"
#include "util.h"

/* The one marker of this process: a crash is the process's, and so is what it was doing. */
static int marker = -1;

static int open_below(const char *run, const char *name, int flags, struct weft_error *reterr)
{
        _cleanup_free_ char *path = NULL;
        int fd;

        if (asprintf(&path, "%s/%s", run, name) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        fd = open(path, flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        return fd < 0 ? weft_fail(reterr, -errno, "cannot open %s: %m", path) : fd;
}

static int count(const char *run, const char *line, struct weft_error *reterr)
{
        _cleanup_close_ int fd = open_below(run, "crashes", O_WRONLY | O_APPEND, reterr);
        char text[CRASH_TEXT + 1];
        int n = snprintf(text, sizeof(text), "%s\n", line);

        if (fd < 0)
                return fd;

        return write(fd, text, n) == n ? 0
                                       : weft_fail(reterr, -EIO, "cannot add to %s/crashes", run);
}

int crashes_open(const char *run, char ret[CRASH_TEXT], struct weft_error *reterr)
{
        ssize_t n;
        int r = 0;

        marker = open_below(run, "callback", O_RDWR, reterr);
        if (marker < 0)
                return marker;

        n = pread(marker, ret, CRASH_TEXT - 1, 0);
        ret[n > 0 ? n : 0] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        if (ret[0])
                r = count(run, ret, reterr);
        crashes_leave();

        return r;
}

void crashes_close(void)
{
        closep(&marker);
        marker = -1;
}

void crashes_enter(const char *module, uint64_t sum, const char *callback)
{
        char line[CRASH_TEXT];
        int n;

        if (marker < 0)
                return;

        n = snprintf(line, sizeof(line), "%.64s %016" PRIx64 " %s\n", module, sum, callback);
        if (pwrite(marker, line, n, 0) != n)
                crashes_leave();
}

void crashes_leave(void)
{
        if (marker >= 0 && ftruncate(marker, 0) < 0)
                crashes_close();
}

unsigned crashes_of(const char *run, const char *module, uint64_t sum, char callback[CRASH_TEXT])
{
        _cleanup_free_ char *path = NULL, *text = NULL;
        char name[65], last[33];
        unsigned n = 0;
        uint64_t of;

        callback[0] = '\0';
        if (asprintf(&path, "%s/crashes", run) < 0 || file_read(path, &text) < 0)
                return 0;

        for (char *save, *line = strtok_r(text, "\n", &save); line;
             line = strtok_r(NULL, "\n", &save))
                if (sscanf(line, "%64s %" SCNx64 " %32s", name, &of, last) == 3 && of == sum &&
                    strcmp(name, module) == 0) {
                        (void) strcpy(callback, last);
                        n++;
                }

        return n;
}
