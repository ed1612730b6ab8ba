/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Measured programs: a restore that jumps to a target, or a program that needs none. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/libbpf.h>

#include "restore.h"

struct measured {
        struct bpf_object *object; /* of the restore; NULL: none */
        int fd;                    /* of the program that is run */
        bool xdp;
        uint32_t mark; /* that the packet bears */
        int sequence;  /* fd of the restore's counter */
};

/* The objects beside the bench's program; by_helper: how bare writes checksums. */
bool measure_open(const char *directory, bool by_helper);
/* DIRECTORY/NAME.bpf.o, opened; NULL. */
struct bpf_object *measure_object(const char *name);
int bare_program(const char *name);
int bare_map(const char *name);

/* Puts a restore before a target; false where that does not load. */
bool measured_with_restore(struct measured *m, const struct restored *is, bool xdp, int target);
/* The same with another program of restore.bpf.c, of tc. */
bool measured_after(struct measured *m, const struct restored *is, const char *first, int target);
void measured_done(struct measured *m);

/* Runs the program `repeat` times on the packet, as if it came in on the interface; ns for each.
 * *ret_verdict: of the last one. */
double measured_run(const struct measured *m, uint32_t ifindex, const void *packet, size_t size,
                    uint32_t repeat, int *ret_verdict);

double median(double *values, size_t n);
