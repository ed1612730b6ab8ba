/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One eBPF object between its bytes and the kernel: constants, maps, and why it was refused. */

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct bpf_map;
struct bpf_object;

/* Where the verifier writes while an object loads. Pages that it does not touch cost nothing. */
#define OBJECT_LOG_SIZE ((16u << 20) - 1) /* the most that Linux 5.10 takes */

/* Opens an object from its bytes, without loading it. log: OBJECT_LOG_SIZE bytes that live until
 * the object was loaded; NULL where it will not be. btf: file whose BTF the object's accesses are
 * relocated against when it is loaded; NULL: the kernel's. Freed with bpf_object__close(). */
int object_open(const void *bytes, size_t size, const char *name, char *log, const char *btf,
                struct bpf_object **ret, struct weft_error *reterr);

/* 0; -ENOENT: no `const volatile` of the name; -EINVAL: it has another size. */
int object_constant_check(const struct bpf_object *o, const char *name, size_t size);

/* Sets one before the object is loaded; returns as above. */
int object_constant(struct bpf_object *o, const char *name, const void *value, size_t size);

/* A map of constants: every object has its own. */
int object_map_is_constants(const struct bpf_map *map);

/* Loads what is set to autoload. A refusal ends with the last lines of the verifier's log. */
int object_load(struct bpf_object *o, const char *log, struct weft_error *reterr);
/* The verifier's whole log of this thread's last refusal, which is forgotten by this; NULL: there
 * was none since, or it says nothing. Caller frees. */
char *object_take_refusal(void);
/* Hands one on, from the thread that met it to the one that tells of it; log is taken. */
void object_put_refusal(char *log);
/* Microseconds spent so far in loading objects, by whichever threads, which is the verifier's time
 * but for a little. What overlaps counts once. */
uint64_t object_load_time(void);
