/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "generation/object.h"
#include "measure.h"

static const char *directory;
static struct bpf_object *bare;

static bool complain(const char *what)
{
        fprintf(stderr, "bench: %s\n", what);
        return false;
}

struct bpf_object *measure_object(const char *name)
{
        struct bpf_object *o;
        char path[512];

        (void) snprintf(path, sizeof(path), "%s/%s.bpf.o", directory, name);
        o = bpf_object__open_file(path, NULL);
        return libbpf_get_error(o) ? NULL : o;
}

bool measure_open(const char *objects, bool by_helper)
{
        directory = objects;
        bare = measure_object("bare");
        if (!bare || object_constant(bare, "by_helper", &by_helper, 1) < 0 ||
            bpf_object__load(bare) < 0)
                return complain("bare.bpf.o does not load");

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

static bool load_restore(struct measured *m, const struct restored *is, const char *name)
{
        struct bpf_program *p;

        if (object_constant(m->object, "weft_packet_is", is, sizeof(*is)) < 0)
                return complain("the restore takes no packet");

        bpf_object__for_each_program (p, m->object)
                bpf_program__set_autoload(p, strcmp(bpf_program__name(p), name) == 0);

        if (bpf_object__load(m->object) < 0)
                return complain("restore does not load");

        m->fd = bpf_program__fd(bpf_object__find_program_by_name(m->object, name));
        m->sequence = bpf_object__find_map_fd_by_name(m->object, "sequence");
        return true;
}

static bool put_before(struct measured *m, const struct restored *is, const char *name, int target)
{
        uint32_t zero = 0;

        m->object = measure_object("restore");
        if (!m->object)
                return complain("no restore.bpf.o");
        if (!load_restore(m, is, name))
                return false;
        if (bpf_map_update_elem(bpf_object__find_map_fd_by_name(m->object, "target"), &zero,
                                &target, 0) < 0)
                return complain("the restore cannot jump to its target");

        return true;
}

bool measured_with_restore(struct measured *m, const struct restored *is, bool xdp, int target)
{
        *m = (struct measured) { .xdp = xdp };
        return put_before(m, is, xdp ? "restore_xdp" : "restore_tc", target);
}

bool measured_after(struct measured *m, const struct restored *is, const char *first, int target)
{
        *m = (struct measured) { 0 };
        return put_before(m, is, first, target);
}

void measured_done(struct measured *m)
{
        bpf_object__close(m->object);
        m->object = NULL;
}

double measured_run(const struct measured *m, uint32_t ifindex, const void *packet, size_t size,
                    uint32_t repeat, int *ret_verdict)
{
        struct __sk_buff ctx = { .ifindex = ifindex, .mark = m->mark };
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = size,
                    .repeat = repeat);
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
