/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Turning a .so into a struct module: dlopen, the ABI check, the copy into our layout. */

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "config/option.h"
#include "module/file.h"
#include "module/module.h"
#include "util.h"

/* The least that must be there for the checks themselves to make sense. */
#define MODULE_SIZE_MIN offsetof(struct weft_module, provides)

static bool name_is_valid(const char *name)
{
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

        return name[0] >= 'a' && name[0] <= 'z' && name[n] == '\0';
}

static bool reasons_are_valid(const struct weft_named *reasons)
{
        size_t n = 0;

        for (; reasons && reasons[n].name; n++)
                if (!reasons[n].name[0] ||
                    reasons[n].name[strspn(reasons[n].name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_")])
                        return false;

        return n <= WEFT_OWN_REASONS;
}

/* The first name that stands there twice, or NULL. */
static const char *twice(const struct weft_named *list)
{
        for (size_t i = 0; list && list[i].name; i++)
                for (size_t k = 0; k < i; k++)
                        if (strcmp(list[k].name, list[i].name) == 0)
                                return list[i].name;

        return NULL;
}

static int check_named(const struct weft_module *m, const struct weft_named *list, const char *what,
                       struct weft_error *reterr)
{
        const char *name = twice(list);

        return name ? weft_fail(reterr, -EPROTO, "module %s has two %s %s", m->name, what, name)
                    : 0;
}

/* The core writes where they say. */
static int check_options(const struct weft_module *m, struct weft_error *reterr)
{
        for (const struct weft_option *o = m->options; o && o->key; o++) {
                size_t size = option_field_size(o->type);

                if (size == 0)
                        return weft_fail(reterr, -EPROTO,
                                         "module %s: option %s is of type %u, which this weftd "
                                         "has not",
                                         m->name, o->key, o->type);
                if (o->offset > m->config_size || size > m->config_size - o->offset)
                        return weft_fail(reterr, -EPROTO,
                                         "module %s: option %s lies beyond its config_size of %u "
                                         "bytes",
                                         m->name, o->key, m->config_size);
                if (o->type == WEFT_TYPE_ENUM && (!o->choices || !o->choices[0]))
                        return weft_fail(reterr, -EPROTO,
                                         "module %s: option %s is a choice of nothing", m->name,
                                         o->key);
                for (const struct weft_option *other = m->options; other < o; other++)
                        if (strcmp(other->key, o->key) == 0)
                                return weft_fail(reterr, -EPROTO, "module %s has two options %s",
                                                 m->name, o->key);
        }

        return 0;
}

static int check_desc(const struct weft_module *m, struct weft_error *reterr)
{
        int r;

        if (!m->name || !m->summary || !name_is_valid(m->name))
                return weft_fail(reterr, -EPROTO, "module without a valid name and summary");
        if (m->options && m->options->key && m->config_size == 0)
                return weft_fail(reterr, -EPROTO, "module %s has options and no config_size",
                                 m->name);
        if (!reasons_are_valid(m->reasons))
                return weft_fail(reterr, -EPROTO,
                                 "module %s has a drop reason that is not in capitals, or more "
                                 "than %d",
                                 m->name, WEFT_OWN_REASONS);
        if (m->object && (const char *) m->object_end <= (const char *) m->object)
                return weft_fail(reterr, -EPROTO, "module %s has an eBPF object without an end",
                                 m->name);

        r = check_options(m, reterr);
        if (r == 0)
                r = check_named(m, m->reasons, "drop reasons", reterr);
        return r < 0 ? r : check_named(m, m->counters, "counters", reterr);
}

int module_adopt(const struct weft_module *foreign, struct weft_module *ret,
                 struct weft_error *reterr)
{
        struct weft_module m = { 0 };
        uint32_t size = foreign->size;
        int r;

        if (foreign->abi >> 16 != WEFT_ABI_MAJOR)
                return weft_fail(reterr, -EPROTO,
                                 "module ABI %u, this weftd speaks %u; build the module for it",
                                 foreign->abi >> 16, WEFT_ABI_MAJOR);
        if (size < MODULE_SIZE_MIN)
                return weft_fail(reterr, -EPROTO, "module struct of %u bytes is too small", size);

        /* Older modules know fewer fields, newer ones more: keep what both sides know. */
        memcpy(&m, foreign, size < sizeof(m) ? size : sizeof(m));
        m.size = sizeof(m);

        r = check_desc(&m, reterr);
        if (r < 0)
                return r;

        *ret = m;
        return 0;
}

/* dlopen() gives back what is loaded already under a name, or by way of a name, that it has seen.
 * So every call gets a name of its own for the same file: 32 path components that are "" or ".",
 * one for each bit of a counter. */
static void *load(int fd)
{
        static uint32_t counter;
        char path[128] = "/proc/self/fd", *p = path + strlen(path);
        uint32_t n = counter++;

        for (unsigned bit = 0; bit < 32; bit++) {
                *p++ = '/';
                if (n >> bit & 1)
                        *p++ = '.';
        }
        (void) snprintf(p, sizeof(path) - (size_t) (p - path), "/%d", fd);

        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static int adopt_file(struct module *m, const char *name, struct weft_error *reterr)
{
        const struct weft_module *foreign = dlsym(m->dl, WEFT_MODULE_SYMBOL);
        int r;

        if (!foreign)
                return weft_fail(reterr, -ENOEXEC, "%s does not export %s", m->path,
                                 WEFT_MODULE_SYMBOL);

        r = module_adopt(foreign, &m->desc, reterr);
        if (r < 0)
                return weft_fail_in(reterr, r, "%s", m->path);
        if (strcmp(m->desc.name, name) != 0)
                return weft_fail(reterr, -ENOEXEC, "%s calls itself %s; name the file %s.so",
                                 m->path, m->desc.name, m->desc.name);

        return 0;
}

static void module_closep(struct module **m)
{
        (void) module_close(*m);
}

int module_open(const char *const *dirs, const char *name, struct module **ret,
                struct weft_error *reterr)
{
        return module_open_again(dirs, name, NULL, ret, reterr);
}

int module_open_again(const char *const *dirs, const char *name, struct module *running,
                      struct module **ret, struct weft_error *reterr)
{
        _cleanup_(module_closep) struct module *m = NULL;
        int r;

        if (!name_is_valid(name))
                return weft_fail(reterr, -EINVAL,
                                 "\"%s\" cannot be a module's name: a-z, 0-9 and -", name);

        m = calloc(1, sizeof(*m));
        if (!m)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        m->refs = 1;
        m->fd = file_open(dirs, name, &m->path, reterr);
        if (m->fd < 0)
                return m->fd;
        m->sum = file_sum(m->fd);

        if (running && strcmp(running->path, m->path) == 0 && file_same(running->fd, m->fd)) {
                running->refs++;
                *ret = running;
                return 0;
        }

        m->dl = load(m->fd);
        if (!m->dl)
                return weft_fail(reterr, -ELIBACC, "%s: %s", m->path, dlerror());

        r = adopt_file(m, name, reterr);
        if (r < 0)
                return r;

        *ret = TAKE(m);
        return 0;
}

struct module *module_close(struct module *m)
{
        if (!m || --m->refs > 0)
                return NULL;

        if (m->dl)
                (void) dlclose(m->dl);
        closep(&m->fd);
        free(m->path);
        free(m);
        return NULL;
}
