/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>
#include <linux/bpf.h>

#include "generation-fixture.h"
#include "probe/probe.h"
#include "util.h"

void enter_namespaces(void)
{
        cr_assert_eq(unshare(CLONE_NEWNS | CLONE_NEWNET), 0, "needs root");
        cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        cr_assert_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0);
}

void run_command(const char *command)
{
        cr_assert_eq(system(command), 0, "%s", command);
}

const void *object_bytes(const char *name, size_t *ret_size)
{
        static char room[8][512 << 10];
        static size_t used;
        _cleanup_fclose_ FILE *f = NULL;
        char path[512];

        (void) snprintf(path, sizeof(path), "%s/%s.bpf.o", TEST_DATA, name);
        f = fopen(path, "re");
        cr_assert_not_null(f, "%s is not built", path);
        cr_assert_lt(used, ELEMENTS(room));

        *ret_size = fread(room[used], 1, sizeof(room[used]), f);
        cr_assert(*ret_size > 0 && *ret_size < sizeof(room[used]));
        return room[used++];
}

static const void *engine(size_t *ret_size)
{
        static const void *bytes;
        static size_t size;

        if (!bytes)
                bytes = object_bytes("fake-engine", &size);
        *ret_size = size;
        return bytes;
}

struct tables *open_tables(void)
{
        struct tables_settings s = { .bpffs = BPFFS, .flow_table_size = 1024, .hz = probe_hz() };
        struct weft_error why = { 0 };
        struct tables *t = NULL;
        size_t size;
        const void *bytes = engine(&size);

        cr_assert_eq(tables_open(&s, bytes, size, &t, &why), 0, "%s", why.text);
        return t;
}

struct instance *make_instance(const char *name, uint16_t id)
{
        static struct module modules[8];
        static struct instance instances[8];
        static size_t used;
        struct module *m = &modules[used];
        struct instance *i = &instances[used++];
        size_t size;

        cr_assert_leq(used, ELEMENTS(modules));

        m->desc = (struct weft_module) { .size = sizeof(m->desc),
                                         .abi = WEFT_ABI,
                                         .name = name,
                                         .summary = "a module for tests" };
        m->desc.object = object_bytes(name, &size);
        m->desc.object_end = (const char *) m->desc.object + size;

        *i = (struct instance) { .module = m, .id = id };
        return i;
}

struct generation_settings make_settings(uint32_t number)
{
        struct generation_settings s = { .number = number, .hz = probe_hz(), .mark_mask = 0x100 };

        s.engine = engine(&s.engine_size);
        return s;
}

struct generation *build(struct tables *t, uint32_t number, struct instance *const *modules,
                         size_t n)
{
        struct generation_settings s = make_settings(number);
        struct weft_error why = { 0 };
        struct generation *g = NULL;

        cr_assert_eq(generation_build(t, &s, modules, n, &g, &why), 0, "%s", why.text);
        return g;
}

uint32_t run_program(int fd, uint32_t mark, uint32_t *ret_mark)
{
        struct __sk_buff in = { .mark = mark }, out = { 0 };
        char packet[64] = { 0 };
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
                    .ctx_in = &in, .ctx_size_in = sizeof(in), .ctx_out = &out,
                    .ctx_size_out = sizeof(out));

        cr_assert_eq(bpf_prog_test_run_opts(fd, &opts), 0);
        if (ret_mark)
                *ret_mark = out.mark;
        return opts.retval;
}
