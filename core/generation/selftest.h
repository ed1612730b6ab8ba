/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The modules' own test packets (module.h) on a dry load: the same object files with the same
 * constants, and maps that nobody else sees. */

#include "generation/generation.h"
#include "net/net.h"

struct selftest;

/* Begins the dry load of what generation_build() is about to load of s and modules, in a thread of
 * its own beside it where there are two CPUs: the kernel verifies two objects at once. Until
 * selftest_wait() the caller may call nothing that changes the instances. *ret is NULL where no
 * module ships a packet. */
int selftest_begin(const struct generation_settings *s, struct instance *const *modules,
                   size_t n_modules, struct selftest **ret, struct weft_error *reterr);
/* Ends the thread. t may be NULL. */
void selftest_wait(struct selftest *t);
/* Runs the packets, after the generation was built and attached, so that the modules' maps, which
 * are copied, are filled. t may be NULL. 0; -EBADMSG: a packet came out otherwise, and the reason
 * names module, test and difference; else why the dry load failed. ret_run (may be NULL): how many
 * ran. */
int selftest_run(struct selftest *t, const struct dry_network *network, size_t *ret_run,
                 struct weft_error *reterr);
/* t may be NULL and may still be loading. */
struct selftest *selftest_free(struct selftest *t);
