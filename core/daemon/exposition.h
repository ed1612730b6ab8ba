/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Prometheus' text format, version 0.0.4: families of samples with labels. */

#include <stdint.h>
#include <stdio.h>

#define EXPOSITION_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct label {
        const char *name, *value; /* any text */
};

/* Begins a family, of which all samples have to follow. help: one line. */
void exposition_family(FILE *f, const char *name, const char *type, const char *help);
/* labels: ended by name NULL. */
void exposition_sample(FILE *f, const char *name, const struct label *labels, uint64_t value);
