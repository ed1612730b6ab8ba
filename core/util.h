/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ownership in one line: _cleanup_(f) frees a variable when it goes out of scope, TAKE() hands its
 * value on. Destructors accept NULL and half-made objects. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

#define TAKE(p)                                                                                    \
        ({                                                                                         \
                __typeof__(p) *_p = &(p), _v = *_p;                                                \
                *_p = NULL;                                                                        \
                _v;                                                                                \
        })

#define TAKE_FD(fd)                                                                                \
        ({                                                                                         \
                int *_p = &(fd), _v = *_p;                                                         \
                *_p = -1;                                                                          \
                _v;                                                                                \
        })

#define SWAP(a, b)                                                                                 \
        do {                                                                                       \
                __typeof__(a) _a = (a);                                                            \
                (a) = (b);                                                                         \
                (b) = _a;                                                                          \
        } while (0)

/* Microseconds. */
static inline uint64_t monotonic_now(void)
{
        struct timespec t = { 0 };

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

static inline void freep(void *p)
{
        free(*(void **) p);
}

static inline void closep(int *fd)
{
        if (*fd >= 0)
                (void) close(*fd);
}

static inline void fclosep(FILE **f)
{
        if (*f)
                (void) fclose(*f);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)
