/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reads the dynamic section as the dynamic linker will, by program headers: section headers are
 * only for tools and may say something else. */

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "module/file.h"
#include "util.h"

struct image {
        const char *bytes;
        size_t size;
        const ElfW(Phdr) * segments;
        size_t n_segments;
        const char *path;
};

static void image_done(struct image *i)
{
        if (i->bytes)
                (void) munmap((void *) i->bytes, i->size);
}

/* offset .. offset+size of the file, or NULL where it does not reach so far. */
static const void *part(const struct image *i, uint64_t offset, uint64_t size)
{
        if (offset > i->size || size > i->size - offset)
                return NULL;

        return i->bytes + offset;
}

static int image_open(int fd, const char *path, struct image *ret, struct weft_error *reterr)
{
        const ElfW(Ehdr) * h;
        struct stat st;
        void *p;

        if (fstat(fd, &st) < 0)
                return weft_fail(reterr, -errno, "%s: %s", path, strerror(errno));

        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
                return weft_fail(reterr, -ENOEXEC, "%s is not a shared object: %s", path,
                                 strerror(errno));
        *ret = (struct image) { .bytes = p, .size = (size_t) st.st_size, .path = path };

        h = part(ret, 0, sizeof(*h));
        if (!h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_type != ET_DYN ||
            h->e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32))
                return weft_fail(reterr, -ENOEXEC, "%s is not a shared object of this machine",
                                 path);

        ret->n_segments = h->e_phnum;
        if (h->e_phoff % _Alignof(ElfW(Phdr)) == 0)
                ret->segments =
                        part(ret, h->e_phoff, (uint64_t) h->e_phnum * sizeof(*ret->segments));
        if (!ret->segments || h->e_phentsize != sizeof(*ret->segments))
                return weft_fail(reterr, -ENOEXEC, "%s: its program headers are broken", path);

        return 0;
}

/* Text at a virtual address, or NULL where none of the file is mapped, or it does not end. */
static const char *text_at(const struct image *i, uint64_t addr)
{
        for (size_t s = 0; s < i->n_segments; s++) {
                const ElfW(Phdr) *p = &i->segments[s];
                const char *text;

                if (p->p_type != PT_LOAD || addr < p->p_vaddr || addr - p->p_vaddr >= p->p_filesz)
                        continue;

                text = part(i, p->p_offset + (addr - p->p_vaddr), 1);
                return text && memchr(text, '\0', i->size - (size_t) (text - i->bytes)) ? text
                                                                                        : NULL;
        }

        return NULL;
}

static bool is_system(const char *dir, size_t n)
{
        static const char *const roots[] = { "/lib", "/lib64", "/usr/lib", "/usr/lib64" };

        if (memmem(dir, n, "/..", 3))
                return false;
        for (size_t i = 0; i < ELEMENTS(roots); i++) {
                size_t len = strlen(roots[i]);

                if (n >= len && memcmp(dir, roots[i], len) == 0 && (n == len || dir[len] == '/'))
                        return true;
        }

        return false;
}

/* Search path of DT_RPATH or DT_RUNPATH, entries separated by ':'. */
static int check_search(const struct image *i, const char *dirs, struct weft_error *reterr)
{
        for (;;) {
                size_t n = strcspn(dirs, ":");

                if (!is_system(dirs, n))
                        return weft_fail(
                                reterr, -EPERM,
                                "%s looks for libraries in \"%.*s\"; build it without rpath",
                                i->path, (int) n, dirs);
                if (dirs[n] == '\0')
                        return 0;
                dirs += n + 1;
        }
}

static int check_entry(const struct image *i, const ElfW(Dyn) * d, uint64_t strings,
                       struct weft_error *reterr)
{
        bool search = d->d_tag == DT_RPATH || d->d_tag == DT_RUNPATH;
        const char *text;

        if (!search && d->d_tag != DT_NEEDED)
                return 0;

        text = text_at(i, strings + d->d_un.d_val);
        if (!text)
                return weft_fail(reterr, -ENOEXEC, "%s: its dynamic section is broken", i->path);
        if (search)
                return check_search(i, text, reterr);
        if (strchr(text, '/') && !is_system(text, strlen(text)))
                return weft_fail(reterr, -EPERM, "%s needs the library %s; link it by name",
                                 i->path, text);

        return 0;
}

static int check_dynamic(const struct image *i, const ElfW(Dyn) * d, size_t n,
                         struct weft_error *reterr)
{
        uint64_t strings = 0;

        for (size_t k = 0; k < n && d[k].d_tag != DT_NULL; k++)
                if (d[k].d_tag == DT_STRTAB)
                        strings = d[k].d_un.d_ptr;

        for (size_t k = 0; k < n && d[k].d_tag != DT_NULL; k++) {
                int r = check_entry(i, &d[k], strings, reterr);

                if (r < 0)
                        return r;
        }

        return 0;
}

int file_check_libraries(int fd, const char *path, struct weft_error *reterr)
{
        _cleanup_(image_done) struct image i = { 0 };
        int r;

        r = image_open(fd, path, &i, reterr);
        if (r < 0)
                return r;

        for (size_t s = 0; s < i.n_segments; s++) {
                const ElfW(Phdr) *p = &i.segments[s];
                const ElfW(Dyn) *d = part(&i, p->p_offset, p->p_filesz);

                if (p->p_type != PT_DYNAMIC)
                        continue;
                if (!d || p->p_offset % _Alignof(ElfW(Dyn)) != 0)
                        return weft_fail(reterr, -ENOEXEC, "%s: its dynamic section is broken",
                                         path);

                r = check_dynamic(&i, d, p->p_filesz / sizeof(*d), reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}
