/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "measure.h"

static char restore_path[512];
static struct bpf_object *bare;

static bool complain(const char *what)
{
        fprintf(stderr, "bench: %s\n", what);
        return false;
}

/* The first of an object's constants: each has only one. */
static bool set_constant(struct bpf_object *o, const void *value, size_t size)
{
        struct bpf_map *m;

        bpf_object__for_each_map(m, o) {
                size_t have;

                if (!strstr(bpf_map__name(m), ".rodata"))
                        continue;
                if (!bpf_map__initial_value(m, &have) || have < size)
                        return complain("constant of another size");

                return bpf_map__set_initial_value(m, value, have) == 0;
        }

        return complain("object without constants");
}

static struct bpf_object *open_object(const char *path)
{
        struct bpf_object *o = bpf_object__open_file(path, NULL);

        return libbpf_get_error(o) ? NULL : o;
}

bool measure_open(const char *directory, bool by_helper)
{
        uint8_t constant[8] = { by_helper };
        char path[512];

        (void) snprintf(restore_path, sizeof(restore_path), "%s/restore.bpf.o", directory);
        (void) snprintf(path, sizeof(path), "%s/bare.bpf.o", directory);
        bare = open_object(path);
        if (!bare || !set_constant(bare, constant, 1) || bpf_object__load(bare) < 0)
                return complain(path);

        return true;
}

int bare_program(const char *name)
{
        return bpf_program__fd(bpf_object__find_program_by_name(bare, name));
}

int bare_map(const char *name)
{
        return bpf_object__find_map_fd_by_name(bare, name);
}

static bool load_restore(struct measured *m, const struct restored *is)
{
        const char *name = m->xdp ? "restore_xdp" : "restore_tc";
        struct bpf_program *p;

        if (!set_constant(m->object, is, sizeof(*is)))
                return false;

        bpf_object__for_each_program(p, m->object)
                bpf_program__set_autoload(p, strcmp(bpf_program__name(p), name) == 0);

        if (bpf_object__load(m->object) < 0)
                return complain("restore does not load");

        m->fd = bpf_program__fd(bpf_object__find_program_by_name(m->object, name));
        m->sequence = bpf_object__find_map_fd_by_name(m->object, "sequence");
        return true;
}

bool measured_with_restore(struct measured *m, const struct restored *is, bool xdp, int target)
{
        uint32_t zero = 0;

        *m = (struct measured) { .object = open_object(restore_path), .xdp = xdp };
        if (!m->object || !load_restore(m, is))
                return complain(restore_path);
        if (bpf_map_update_elem(bpf_object__find_map_fd_by_name(m->object, "target"), &zero, &target, 0) < 0)
                return complain("the restore cannot jump to its target");

        return true;
}

void measured_done(struct measured *m)
{
        bpf_object__close(m->object);
        m->object = NULL;
}

double measured_run(const struct measured *m, uint32_t ifindex, const void *packet, size_t size,
                    uint32_t repeat, int *ret_verdict)
{
        struct __sk_buff ctx = { .ifindex = ifindex };
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = size, .repeat = repeat);
        uint32_t zero = 0;

        if (!m->xdp) {
                opts.ctx_in = &ctx;
                opts.ctx_size_in = sizeof(ctx);
        }
        if (m->object)
                (void) bpf_map_update_elem(m->sequence, &zero, &zero, 0);
        if (bpf_prog_test_run_opts(m->fd, &opts) < 0)
                perror("bench: test run");

        *ret_verdict = (int) opts.retval;
        return opts.duration;
}

static int compare(const void *a, const void *b)
{
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

double median(double *values, size_t n)
{
        qsort(values, n, sizeof(*values), compare);
        return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
