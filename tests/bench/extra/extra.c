/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <weft/module.h>

WEFT_OBJECT("extra.bpf.o");

WEFT_MODULE(.name = NAME, .summary = "Has nothing to say", .object = weft_object,
            .object_end = weft_object_end);
