/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "config/sections.h"
#include "config/store.h"
#include "config/values.h"
#include "paths.h"
#include "util.h"

#define OBJECTS "/var/lib/weft/objects"
#define HEADER "# weft object %u, uid %u\n"
#define SUFFIX ".conf"
#define STAGED ".new" /* behind a name that begins with a dot: no object's */

enum { VERSION = 1, PATH_TEXT = 4096 };

static bool is_kind(const struct section *s)
{
        return s->named && s->keys;
}

/* ---- reading ------------------------------------------------------------------------------ */

char *stored_path(const char *root, const char *kind, const char *name)
{
        char *path;

        return asprintf(&path, "%s" OBJECTS "/%s/%s" SUFFIX, root, kind, name) < 0 ? NULL : path;
}

void stored_files_done(struct stored_files *files)
{
        for (size_t i = 0; i < files->n; i++) {
                free(files->items[i].path);
                free(files->items[i].name);
        }
        free(files->items);
}

static int is_object_file(const struct dirent *e)
{
        size_t n = strlen(e->d_name);

        return e->d_name[0] != '.' && n > strlen(SUFFIX) &&
               strcmp(e->d_name + n - strlen(SUFFIX), SUFFIX) == 0;
}

static int add_file(struct stored_files *files, const char *root, const char *kind,
                    const char *file)
{
        struct stored_file f = {
                .kind = kind,
                .name = strndup(file, strlen(file) - strlen(SUFFIX)),
        };

        f.path = f.name ? stored_path(root, kind, f.name) : NULL;
        if (!f.path || list_grow(&files->items, files->n, sizeof(f)) < 0) {
                free(f.path);
                free(f.name);
                return -ENOMEM;
        }

        files->items[files->n++] = f;
        return 0;
}

static int list_kind(struct stored_files *files, const char *root, const char *kind,
                     struct weft_error *reterr)
{
        char dir[PATH_TEXT];
        struct dirent **entries;
        int n, r = 0;

        (void) snprintf(dir, sizeof(dir), "%s" OBJECTS "/%s", root, kind);
        n = scandir(dir, &entries, is_object_file, alphasort);
        if (n < 0)
                return errno == ENOENT
                               ? 0
                               : weft_fail(reterr, -errno,
                                           "objects set at run time are not known: %s: %m", dir);

        for (int i = 0; i < n; i++) {
                if (r == 0)
                        r = add_file(files, root, kind, entries[i]->d_name);
                free(entries[i]);
        }
        free(entries);

        return r < 0 ? weft_fail(reterr, r, "out of memory") : 0;
}

int stored_list(const char *root, struct stored_files *ret, struct weft_error *reterr)
{
        int r = 0;

        for (const struct section *s = sections; r == 0 && s->name; s++)
                if (is_kind(s))
                        r = list_kind(ret, root, s->name, reterr);

        return r;
}

int stored_header(FILE *f, uid_t *ret_uid, struct weft_error *reterr)
{
        char line[80] = "";
        unsigned version, uid;

        if (!fgets(line, sizeof(line), f) || sscanf(line, HEADER, &version, &uid) != 2)
                return weft_fail(reterr, -EINVAL,
                                 "is damaged: it does not begin with \"# weft object\"; repair or "
                                 "remove the file");
        if (version != VERSION)
                return weft_fail(
                        reterr, -EINVAL,
                        "is of form %u, and this version of weft reads form %d: remove the "
                        "file, or run the version that wrote it",
                        version, VERSION);

        rewind(f);
        *ret_uid = uid;
        return 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* A change on its way. */
struct step {
        const struct store_change *change;
        int dir;                    /* borrowed */
        char file[256], aside[256]; /* the object's, and where the other text is kept */
        int fd;                     /* of the new text */
        enum { UNTOUCHED, PLACED, EXCHANGED, PUT_ASIDE } done;
};

struct steps {
        struct step *items;
        size_t n;
        int *dirs; /* by number of the kind's section; -1: not opened */
        size_t n_dirs;
};

static size_t count_sections(void)
{
        size_t n = 0;

        while (sections[n].name)
                n++;

        return n;
}

/* Whatever is left aside is the text that counts no more. */
static void steps_done(struct steps *s)
{
        for (size_t i = 0; i < s->n; i++) {
                closep(&s->items[i].fd);
                (void) unlinkat(s->items[i].dir, s->items[i].aside, 0);
        }
        for (size_t i = 0; i < s->n_dirs; i++)
                closep(&s->dirs[i]);
        free(s->items);
        free(s->dirs);
}

static int open_kind(const char *root, const char *kind, int *ret, struct weft_error *reterr)
{
        char path[PATH_TEXT];
        int r;

        (void) snprintf(path, sizeof(path), "%s" OBJECTS "/%s", root, kind);
        r = make_directories(path, 0755, reterr);
        if (r < 0)
                return r;

        *ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return *ret < 0 ? weft_fail(reterr, -errno, "%s: %m", path) : 0;
}

static int add_step(struct steps *s, const char *root, const struct store_change *change,
                    struct weft_error *reterr)
{
        size_t kind = (size_t) (section_by_name(change->kind) - sections);
        struct step *step = &s->items[s->n];
        int r = 0;

        if (s->dirs[kind] < 0)
                r = open_kind(root, change->kind, &s->dirs[kind], reterr);
        if (r < 0)
                return r;

        *step = (struct step) { .change = change, .dir = s->dirs[kind], .fd = -1 };
        (void) snprintf(step->file, sizeof(step->file), "%.200s" SUFFIX, change->name);
        (void) snprintf(step->aside, sizeof(step->aside), ".%.200s" STAGED, change->name);
        s->n++;
        return 0;
}

static int write_text(struct step *s)
{
        int n;

        s->fd = openat(s->dir, s->aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                       0644);
        if (s->fd < 0)
                return -errno;

        n = dprintf(s->fd, HEADER "%s", VERSION, s->change->uid, s->change->text);
        if (n < 0)
                return -errno;

        /* So that many files go to the disk together, and flushing each finds it done. */
        (void) sync_file_range(s->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        return 0;
}

static int flush_one_by_one(const struct steps *s)
{
        for (size_t i = 0; i < s->n; i++)
                if (s->items[i].fd >= 0 && fsync(s->items[i].fd) < 0)
                        return -errno;

        return 0;
}

struct together {
        aio_context_t context;
        struct iocb *calls;
        struct iocb **list;
        struct io_event *events;
};

static void together_done(struct together *t)
{
        if (t->context)
                (void) syscall(SYS_io_destroy, t->context);
        free(t->calls);
        free(t->list);
        free(t->events);
}

/* The disk flushes its cache once for all that wait for it: a thousand files take the time of a
 * few. -ENOSYS where the kernel does not take them. */
static int flush_together(const struct steps *s)
{
        _cleanup_(together_done) struct together t = {
                .calls = calloc(s->n, sizeof(*t.calls)),
                .list = calloc(s->n, sizeof(*t.list)),
                .events = calloc(s->n, sizeof(*t.events)),
        };
        long n = 0;

        if (!t.calls || !t.list || !t.events || syscall(SYS_io_setup, s->n, &t.context) < 0)
                return -ENOSYS;

        for (size_t i = 0; i < s->n; i++)
                if (s->items[i].fd >= 0) {
                        t.calls[n].aio_lio_opcode = IOCB_CMD_FSYNC;
                        t.calls[n].aio_fildes = (uint32_t) s->items[i].fd;
                        t.list[n] = &t.calls[n];
                        n++;
                }
        if (syscall(SYS_io_submit, t.context, n, t.list) != n ||
            syscall(SYS_io_getevents, t.context, n, n, t.events, NULL) != n)
                return -ENOSYS;

        for (long i = 0; i < n; i++)
                if (t.events[i].res != 0)
                        return (int) t.events[i].res;

        return 0;
}

static int flush(const struct steps *s)
{
        int r = s->n > 1 ? flush_together(s) : -ENOSYS;

        return r == -ENOSYS ? flush_one_by_one(s) : r;
}

static int take_place(struct step *s)
{
        if (!s->change->text) {
                if (renameat(s->dir, s->file, s->dir, s->aside) < 0)
                        return errno == ENOENT ? 0 : -errno;
                s->done = PUT_ASIDE;
                return 0;
        }

        if (renameat2(s->dir, s->aside, s->dir, s->file, RENAME_EXCHANGE) == 0)
                s->done = EXCHANGED;
        else if (renameat(s->dir, s->aside, s->dir, s->file) == 0)
                s->done = PLACED;
        else
                return -errno;

        return 0;
}

static void give_back(struct step *s)
{
        if (s->done == PUT_ASIDE)
                (void) renameat(s->dir, s->aside, s->dir, s->file);
        else if (s->done == EXCHANGED)
                (void) renameat2(s->dir, s->aside, s->dir, s->file, RENAME_EXCHANGE);
        else if (s->done == PLACED)
                (void) unlinkat(s->dir, s->file, 0);
        s->done = UNTOUCHED;
}

/* The kinds' directories, and those that were made on the way to them. */
static int flush_directories(const struct steps *s, const char *root)
{
        static const char *const above[] = { OBJECTS, "/var/lib/weft" };
        char path[PATH_TEXT];
        int r = 0;

        for (size_t i = 0; r == 0 && i < s->n_dirs; i++)
                if (s->dirs[i] >= 0 && fsync(s->dirs[i]) < 0)
                        r = -errno;

        for (size_t i = 0; r == 0 && i < ELEMENTS(above); i++) {
                _cleanup_close_ int fd = -1;

                (void) snprintf(path, sizeof(path), "%s%s", root, above[i]);
                fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0 || fsync(fd) < 0)
                        r = -errno;
        }

        return r;
}

static int perform(struct steps *s, const char *root, struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < s->n; i++)
                if (s->items[i].change->text)
                        r = write_text(&s->items[i]);
        if (r == 0)
                r = flush(s);
        for (size_t i = 0; r == 0 && i < s->n; i++)
                r = take_place(&s->items[i]);
        if (r == 0)
                r = flush_directories(s, root);
        if (r == 0)
                return 0;

        for (size_t i = s->n; i-- > 0;)
                give_back(&s->items[i]);
        return weft_fail(reterr, r, "cannot write to %s" OBJECTS ": %s", root, strerror(-r));
}

int store_apply(const char *root, const struct store_change *changes, size_t n,
                struct weft_error *reterr)
{
        _cleanup_(steps_done) struct steps s = {
                .items = calloc(n + 1, sizeof(*s.items)),
                .dirs = calloc(count_sections(), sizeof(*s.dirs)),
        };
        int r = 0;

        if (!s.items || !s.dirs)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        s.n_dirs = count_sections();
        for (size_t i = 0; i < s.n_dirs; i++)
                s.dirs[i] = -1;
        for (size_t i = 0; r == 0 && i < n; i++)
                r = add_step(&s, root, &changes[i], reterr);

        return r < 0 ? r : perform(&s, root, reterr);
}

static int is_aside(const struct dirent *e)
{
        size_t n = strlen(e->d_name);

        return e->d_name[0] == '.' && n > strlen(STAGED) &&
               strcmp(e->d_name + n - strlen(STAGED), STAGED) == 0;
}

void store_tidy(const char *root)
{
        char path[PATH_TEXT];

        for (const struct section *s = sections; s->name; s++) {
                struct dirent **entries;
                int n;

                if (!is_kind(s))
                        continue;
                (void) snprintf(path, sizeof(path), "%s" OBJECTS "/%s", root, s->name);
                n = scandir(path, &entries, is_aside, NULL);
                for (int i = 0; i < n; i++) {
                        (void) snprintf(path, sizeof(path), "%s" OBJECTS "/%s/%s", root, s->name,
                                        entries[i]->d_name);
                        (void) unlink(path);
                        free(entries[i]);
                }
                if (n >= 0)
                        free(entries);
        }
}
