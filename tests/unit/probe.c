/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/criterion.h>

#include "probe/probe.h"
#include "util.h"

static bool present(enum weft_need_kind kind, const char *name)
{
        size_t n;
        const struct fact *f = probe_facts(&n);

        for (size_t i = 0; i < n; i++)
                if (f[i].kind == kind && strcmp(f[i].name, name) == 0)
                        return f[i].present;

        cr_assert_fail("%s is not known", name);
        return false;
}

Test(probe, helpers_of_tc_programs_are_told_from_those_of_others)
{
        cr_assert(present(WEFT_NEED_HELPER, "fib_lookup"));
        cr_assert(present(WEFT_NEED_HELPER, "jiffies64"));
        cr_assert_not(present(WEFT_NEED_HELPER, "bind"), "bind is for cgroup programs");
        cr_assert_not(present(WEFT_NEED_HELPER, "unspec"));
}

Test(probe, a_fact_is_the_same_alone_and_in_the_table)
{
        size_t n;
        const struct fact *f = probe_facts(&n);

        for (size_t i = 0; i < n; i++)
                cr_assert_eq(probe_has(f[i].kind, f[i].name), f[i].present, "%s", f[i].name);
        cr_assert_not(probe_has(WEFT_NEED_FEATURE, "no-such-feature"));
}

Test(probe, facts_can_be_faked_to_be_absent_by_name)
{
        cr_assert_eq(setenv("WEFTD_DEBUG_FACTS", "no-fib_lookup  no-link-update no-vet", 1), 0);
        cr_assert_not(present(WEFT_NEED_HELPER, "fib_lookup"));
        cr_assert_not(probe_has(WEFT_NEED_FEATURE, "link-update"));
        cr_assert(present(WEFT_NEED_HELPER, "jiffies64"));
        cr_assert(probe_has(WEFT_NEED_LINK_KIND, "veth"), "part of a name is not the name");
}

Test(probe, tcx_is_there_where_the_kernels_types_know_it)
{
        FILE *f = popen(
                "bpftool btf dump file /sys/kernel/btf/vmlinux format c | grep -c BPF_TCX_INGRESS",
                "re");
        int n = -1;

        cr_assert_eq(fscanf(f, "%d", &n), 1);
        (void) pclose(f);
        cr_assert_eq(probe_has(WEFT_NEED_FEATURE, "tcx"), n > 0);
}

Test(probe, links_can_be_updated_since_before_our_oldest_kernel)
{
        cr_assert(probe_has(WEFT_NEED_FEATURE, "link-update"));
}

Test(probe, trying_a_kind_of_link_changes_nothing_here)
{
        char before[64] = "", after[64] = "";

        cr_assert_gt(readlink("/proc/self/ns/net", before, sizeof(before) - 1), 0);
        cr_assert(probe_has(WEFT_NEED_LINK_KIND, "veth"));
        cr_assert_gt(readlink("/proc/self/ns/net", after, sizeof(after) - 1), 0);
        cr_assert_str_eq(before, after);
}

Test(probe, hz_is_what_the_kernel_was_built_with)
{
        FILE *f = popen("{ zcat /proc/config.gz || cat /boot/config-$(uname -r); } 2>/dev/null |"
                        " sed -n 's/^CONFIG_HZ=//p'",
                        "re");
        unsigned hz = 0;

        if (fscanf(f, "%u", &hz) != 1)
                hz = 0;
        (void) pclose(f);
        if (hz == 0)
                cr_skip_test("this kernel does not say how it was built");
        cr_assert_eq(probe_hz(), hz);
}

/* The clock of the kernel's own programs: it starts five minutes before it wraps (INITIAL_JIFFIES).
 */
Test(probe, hz_fits_the_jiffies_that_programs_see)
{
        static const struct bpf_insn insns[] = {
                { .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_jiffies64 },
                { .code = BPF_JMP | BPF_EXIT },
        };
        LIBBPF_OPTS(bpf_prog_load_opts, load, .log_level = 0);
        int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "jiffies", "GPL", insns, ELEMENTS(insns),
                               &load);
        char packet[64] = { 0 };
        LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet));
        uint32_t hz = probe_hz(), expected;
        struct timespec t;

        cr_assert_geq(fd, 0);
        cr_assert_eq(bpf_prog_test_run_opts(fd, &run), 0);
        cr_assert_eq(clock_gettime(CLOCK_MONOTONIC, &t), 0);

        expected = (uint32_t) (-300 * (int64_t) hz + t.tv_sec * hz + t.tv_nsec / (1000000000 / hz));
        cr_assert_lt(abs((int32_t) (expected - run.retval)), (int) (hz * 2),
                     "%u jiffies and not %u", run.retval, expected);
}
