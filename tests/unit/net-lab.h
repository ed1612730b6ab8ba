/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A network of the test's own: every Criterion test is a process, so its namespaces, and all that
 * it put into them, end with it. */

#include <criterion/criterion.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <systemd/sd-event.h>

#include "config/values.h"
#include "net/net.h"

#define LAB_RUN "/run/weft"
#define UNUSED __attribute__((unused))

static sd_event *lab_loop UNUSED;

static inline int lab_try(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int lab_try(const char *format, ...)
{
        char command[1024];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(command, sizeof(command), format, ap);
        va_end(ap);

        return system(command);
}

/* A shell command that must succeed. */
#define lab_run(...) cr_assert_eq(lab_try(__VA_ARGS__), 0)

/* What a shell command prints, in one static buffer, without its last line end. */
static inline const char *lab_read(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline const char *lab_read(const char *format, ...)
{
        static char text[8192];
        char command[1024];
        size_t n;
        va_list ap;
        FILE *f;

        va_start(ap, format);
        (void) vsnprintf(command, sizeof(command), format, ap);
        va_end(ap);

        f = popen(command, "r");
        cr_assert_not_null(f);
        n = fread(text, 1, sizeof(text) - 1, f);
        text[n] = '\0';
        (void) pclose(f);
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
                text[--n] = '\0';

        return text;
}

#define lab_expect(expected, ...) cr_assert_str_eq(lab_read(__VA_ARGS__), expected)

static inline void lab_open(void)
{
        cr_assert_eq(unshare(CLONE_NEWNET | CLONE_NEWNS), 0, "needs root");
        cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        cr_assert_eq(mount("run", "/run", "tmpfs", 0, NULL), 0);
        cr_assert_geq(sd_event_new(&lab_loop), 0);
        /* Addresses that are tried first would be told of a second time, a second later. */
        lab_run("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
        lab_run("ip link set lo up");
}

/* A device with nobody on its other end; not every kernel has dummies. */
static inline void lab_device(const char *name)
{
        lab_run("ip link add %s type veth peer name %s-far && ip link set %s-far up", name, name,
                name);
}

static inline struct weft_addr lab_address(const char *text)
{
        struct weft_addr a;

        cr_assert_eq(parse_address(text, &a), 0);
        return a;
}

static inline struct weft_prefix lab_prefix(const char *text)
{
        struct weft_prefix p;

        cr_assert_eq(parse_prefix(text, &p), 0);
        return p;
}

static inline void lab_ignore(void *data, const struct net_event *event)
{
        (void) data;
        (void) event;
}

static inline struct net *lab_net(net_event_fn f)
{
        struct weft_error error = { "" };
        struct net *n = NULL;

        cr_assert_eq(net_open(lab_loop, f, NULL, &n, &error), 0, "%s", error.text);
        return n;
}

static inline struct host *lab_host(struct net *n)
{
        struct weft_error error = { "" };
        struct host *h = NULL;

        cr_assert_eq(host_open(n, LAB_RUN, &h, &error), 0, "%s", error.text);
        return h;
}
