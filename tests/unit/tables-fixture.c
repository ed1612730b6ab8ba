/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include <bpf/bpf.h>
#include <criterion/criterion.h>

#include "tables-fixture.h"

static char object[256 << 10];
static size_t object_size;

static void read_object(void)
{
        FILE *f = fopen(TABLES_OBJECT, "re");

        cr_assert_not_null(f, "%s is not built", TABLES_OBJECT);
        object_size = fread(object, 1, sizeof(object), f);
        cr_assert_gt(object_size, 0);
        (void) fclose(f);
}

void fixture_bpffs(void)
{
        cr_assert_eq(unshare(CLONE_NEWNS), 0, "needs root");
        cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
        cr_assert_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0);
        read_object();
}

int fixture_try(const struct tables_settings *s, struct tables **ret, struct weft_error *reterr)
{
        return tables_open(s, object, object_size, ret, reterr);
}

struct tables *fixture_open(uint64_t flows)
{
        struct tables_settings s = { .bpffs = BPFFS, .flow_table_size = flows, .hz = fixture_hz() };
        struct weft_error error = {};
        struct tables *t = NULL;

        cr_assert_eq(fixture_try(&s, &t, &error), 0, "%s", error.text);
        return t;
}

static void close_object(struct bpf_object **o)
{
        bpf_object__close(*o);
}

static uint32_t run(struct bpf_object *o, const char *program)
{
        char packet[64] = {};
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));

        cr_assert_eq(bpf_object__load(o), 0);
        cr_assert_eq(bpf_prog_test_run_opts(
                             bpf_program__fd(bpf_object__find_program_by_name(o, program)), &opts),
                     0);
        return opts.retval;
}

uint32_t fixture_run(struct tables *t, const char *program)
{
        _cleanup_(close_object) struct bpf_object *o =
                bpf_object__open_mem(object, object_size, NULL);
        struct weft_error error = {};

        cr_assert_eq(tables_share(t, o, &error), 0, "%s", error.text);
        return run(o, program);
}

/* Found by trying: with the right one, our jiffies are near those of the kernel. */
uint32_t fixture_hz(void)
{
        static const uint32_t known[] = { 100, 250, 300, 1000 };
        _cleanup_(close_object) struct bpf_object *o =
                bpf_object__open_mem(object, object_size, NULL);
        uint32_t now = run(o, "read_jiffies");

        for (size_t i = 0; i < ELEMENTS(known); i++)
                if (abs((int32_t) (now - (uint32_t) tables_jiffies(known[i]))) < (int) known[i])
                        return known[i];

        cr_assert_fail("no frequency of ticks fits the kernel's jiffies");
        return 0;
}

struct weft_addr fixture_addr(const char *text)
{
        struct weft_addr a = { { 0, 0, htonl(0xffff), 0 } };

        if (inet_pton(AF_INET, text, &a.w[3]) != 1)
                cr_assert_eq(inet_pton(AF_INET6, text, a.w), 1, "%s", text);

        return a;
}

size_t fixture_count(struct tables *t, enum table id)
{
        _cleanup_free_ void *keys = NULL;
        size_t n;

        cr_assert_eq(table_keys(t, id, &keys, &n), 0);
        return n;
}

bool fixture_in_filter(struct tables *t, const char *addr, uint16_t port, uint8_t proto)
{
        struct weft_addr a = fixture_addr(addr);
        uint32_t bit, word;
        uint64_t v;

        bit = strchr(addr, ':') ? weft_filter_bit6(a.w, htons(port), proto)
                                : weft_filter_bit4(a.w[3], htons(port), proto);
        word = bit / 64;
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "filter"), &word, &v), 0);
        return v >> bit % 64 & 1;
}

bool fixture_service(struct tables *t, const char *addr, uint16_t port, uint8_t proto,
                     struct weft_service *ret)
{
        struct weft_service_key key = {
                .addr = fixture_addr(addr),
                .port = htons(port),
                .proto = proto,
        };

        return bpf_map_lookup_elem(tables_fd(t, "services"), &key, ret) == 0;
}

bool fixture_endpoint(struct tables *t, const char *addr, struct weft_endpoint *ret)
{
        struct weft_addr a = fixture_addr(addr);

        return bpf_map_lookup_elem(tables_fd(t, "endpoints"), &a, ret) == 0;
}

struct weft_backend fixture_slot(struct tables *t, const struct weft_service *s, uint32_t n,
                                 uint32_t *ret_index)
{
        struct weft_service_slot slot;
        uint32_t at = s->slots + n;
        struct weft_backend b;

        cr_assert_lt(n, s->count + s->local);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "service_slots"), &at, &slot), 0);
        cr_assert_eq(bpf_map_lookup_elem(tables_fd(t, "backends"), &slot.backend, &b), 0);
        if (ret_index)
                *ret_index = slot.backend;

        return b;
}
