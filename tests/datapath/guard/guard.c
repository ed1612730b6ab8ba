/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A module of the tests, see guard.bpf.c. */

#include <weft/module.h>

WEFT_OBJECT("guard.bpf.o");

WEFT_MODULE(.name = "guard", .summary = "Shuts one port at the exit hooks", .object = weft_object,
            .object_end = weft_object_end);
