/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "generation/object.h"
#include "util.h"

/* libbpf says what is wrong with an object only through its global print function, which has no
 * parameter for us: the last warning of one of its calls is kept here. Two threads may load at once
 * (selftest.c), so the function stays once it is set. */
static _Thread_local char warning[256];

static int keep_warning(enum libbpf_print_level level, const char *format, va_list ap)
{
        if (level == LIBBPF_WARN)
                (void) vsnprintf(warning, sizeof(warning), format, ap);

        return 0;
}

static void keep_warnings(void)
{
        (void) libbpf_set_print(keep_warning);
        warning[0] = '\0';
}

/* The kept warning without "libbpf: " and the end of its line. */
static const char *last_warning(void)
{
        const char *text = strncmp(warning, "libbpf: ", 8) == 0 ? warning + 8 : warning;

        warning[strcspn(warning, "\n")] = '\0';
        return text;
}

int object_open(const void *bytes, size_t size, const char *name, char *log, const char *btf,
                struct bpf_object **ret, struct weft_error *reterr)
{
        LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = name, .btf_custom_path = btf,
                    .kernel_log_buf = log, .kernel_log_size = log ? OBJECT_LOG_SIZE : 0);
        struct bpf_object *o;
        int r;

        keep_warnings();
        o = bpf_object__open_mem(bytes, size, &opts);
        r = o ? 0 : -errno;

        if (r < 0)
                return weft_fail(reterr, r, "the eBPF object of %s cannot be read: %s", name,
                                 last_warning());

        *ret = o;
        return 0;
}

/* ---- constants ---------------------------------------------------------------------------- */

static bool has_suffix(const char *text, const char *suffix)
{
        size_t n = strlen(text), m = strlen(suffix);

        return n >= m && strcmp(text + n - m, suffix) == 0;
}

int object_map_is_constants(const struct bpf_map *map)
{
        const char *name = bpf_map__name(map);

        return has_suffix(name, ".rodata") || strstr(name, ".rodata.") ||
               has_suffix(name, ".kconfig");
}

static struct bpf_map *constants_of(const struct bpf_object *o)
{
        struct bpf_map *map;

        bpf_object__for_each_map (map, o)
                if (has_suffix(bpf_map__name(map), ".rodata"))
                        return map;

        return NULL;
}

static const struct btf_var_secinfo *find_constant(const struct btf *btf, const char *name)
{
        int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
        const struct btf_type *section = id > 0 ? btf__type_by_id(btf, (uint32_t) id) : NULL;

        for (size_t i = 0; section && i < btf_vlen(section); i++) {
                const struct btf_var_secinfo *info = btf_var_secinfos(section) + i;
                const struct btf_type *var = btf__type_by_id(btf, info->type);

                if (strcmp(btf__name_by_offset(btf, var->name_off), name) == 0)
                        return info;
        }

        return NULL;
}

/* Offset among all constants of the object. */
static int locate(const struct bpf_object *o, const char *name, size_t size)
{
        const struct btf *btf = bpf_object__btf(o);
        const struct btf_var_secinfo *info = btf ? find_constant(btf, name) : NULL;

        if (!info || !constants_of(o))
                return -ENOENT;

        return info->size == size ? (int) info->offset : -EINVAL;
}

int object_constant_check(const struct bpf_object *o, const char *name, size_t size)
{
        int offset = locate(o, name, size);

        return offset < 0 ? offset : 0;
}

int object_constant(struct bpf_object *o, const char *name, const void *value, size_t size)
{
        struct bpf_map *map = constants_of(o);
        _cleanup_free_ char *all = NULL;
        int offset = locate(o, name, size);
        const void *old;
        size_t n;

        if (offset < 0)
                return offset;

        old = bpf_map__initial_value(map, &n);
        if (!old || (size_t) offset > n || size > n - (size_t) offset)
                return -EINVAL;

        all = malloc(n);
        if (!all)
                return -ENOMEM;

        memcpy(all, old, n);
        memcpy(all + offset, value, size);
        return bpf_map__set_initial_value(map, all, n);
}

/* ---- loading ------------------------------------------------------------------------------ */

/* The log's last lines that say something, as many as fit; the statistics at its end do not. */
static const char *last_lines(char *log, size_t room)
{
        char *end, *from;

        end = strstr(log, "\nprocessed ");
        if (end)
                *end = '\0';

        from = log + strlen(log);
        while (from > log && from[-1] == '\n')
                *--from = '\0';

        for (char *p = from; p > log && (size_t) (log + strlen(log) - p) < room; p--)
                if (p[-1] == '\n')
                        from = p;

        return *from ? from : log;
}

#define SEPARATORS 32 /* bytes kept for what stands between the lines */

/* The tail of the log in one line: error texts are shown in lists. */
static void describe(const char *log, char *ret, size_t size)
{
        _cleanup_free_ char *copy = log ? strdup(log) : NULL;
        const char *text = copy && *copy ? last_lines(copy, size - SEPARATORS) : last_warning();
        size_t n = 0;

        for (ret[0] = '\0'; *text && n < size; text += strspn(text, "\n")) {
                size_t line = strcspn(text, "\n");

                n += (size_t) snprintf(ret + n, size - n, "%s%.*s", n ? " | " : "", (int) line,
                                       text);
                text += line;
        }
}

/* Loads may overlap. */
static struct {
        pthread_mutex_t lock;
        unsigned n;            /* that run now */
        uint64_t since, spent; /* since when one does */
} loads = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void count_load(int more)
{
        uint64_t now = monotonic_now();

        (void) pthread_mutex_lock(&loads.lock);
        if (loads.n > 0)
                loads.spent += now - loads.since;
        loads.since = now;
        loads.n += (unsigned) more;
        (void) pthread_mutex_unlock(&loads.lock);
}

uint64_t object_load_time(void)
{
        count_load(0);
        return loads.spent;
}

static _Thread_local char *refusal;

char *object_take_refusal(void)
{
        return TAKE(refusal);
}

void object_put_refusal(char *log)
{
        free(refusal);
        refusal = log;
}

int object_load(struct bpf_object *o, const char *log, struct weft_error *reterr)
{
        char text[320];
        int r;

        keep_warnings();
        count_load(1);
        r = bpf_object__load(o);
        count_load(-1);

        if (r >= 0)
                return 0;

        object_put_refusal(log && *log ? strdup(log) : NULL);
        describe(log, text, sizeof(text));
        return weft_fail(reterr, r, "%s: %s", strerror(-r), text);
}
