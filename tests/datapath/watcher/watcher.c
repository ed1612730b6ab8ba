/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A module of the tests, see watcher.bpf.c. */

#include <weft/module.h>

WEFT_OBJECT("watcher.bpf.o");

static const struct weft_named reasons[] = { { "WATCHED", "the watcher was told to drop it" }, {} };

WEFT_MODULE(.name = "watcher", .summary = "Early stages in every hook", .object = weft_object,
            .object_end = weft_object_end, .reasons = reasons);
