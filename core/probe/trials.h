/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/* Each tries one thing on the running kernel and leaves nothing behind. */
bool try_helper(int id); /* of tc programs, enum bpf_func_id */
bool try_tcx(void);
bool try_redirect_peer(void);
bool try_cast_to_kern_ctx(void);
bool try_fib_lookup_src(void);
bool try_decap_protocol(void);
bool try_link_update(void);
bool try_link_kind(const char *kind);
