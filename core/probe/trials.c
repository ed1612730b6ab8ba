/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "probe/trials.h"
#include "util.h"

#define TCX_INGRESS 46 /* enum bpf_attach_type since Linux 6.6 */

#define CALL(kind, what)                                                                           \
        {                                                                                          \
                .code = BPF_JMP | BPF_CALL, .src_reg = kind, .imm = what                           \
        }
#define RETURN_0                                                                                   \
        {                                                                                          \
                .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0                          \
        }
#define EXIT                                                                                       \
        {                                                                                          \
                .code = BPF_JMP | BPF_EXIT                                                         \
        }

/* Program or negative errno; what the verifier said is in log. */
static int load(const struct bpf_insn *insns, size_t n, char *log, size_t size)
{
        LIBBPF_OPTS(bpf_prog_load_opts, opts, .log_buf = log, .log_size = (uint32_t) size,
                    .log_level = log ? 1 : 0);

        return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "weft_probe", "GPL", insns, n, &opts);
}

/* Called with no arguments most helpers are refused; what counts is why. The three texts are those
 * of kernels before 5.15, before 6.9, and since. */
bool try_helper(int id)
{
        static const char *const absent[] = { "unknown func", "invalid func", "cannot use helper" };
        const struct bpf_insn insns[] = { CALL(0, id), RETURN_0, EXIT };
        _cleanup_close_ int fd = -1;
        char log[4096] = "";

        if (id == BPF_FUNC_unspec)
                return false;

        fd = load(insns, ELEMENTS(insns), log, sizeof(log));
        if (fd >= 0)
                return true;

        for (size_t i = 0; i < ELEMENTS(absent); i++)
                if (strstr(log, absent[i]))
                        return false;

        return log[0] != '\0';
}

bool try_redirect_peer(void)
{
        return try_helper(BPF_FUNC_redirect_peer);
}

/* There is no such interface; only a kernel that knows the attach type looks for it. */
bool try_tcx(void)
{
        const struct bpf_insn insns[] = { RETURN_0, EXIT };
        _cleanup_close_ int prog = load(insns, ELEMENTS(insns), NULL, 0), link = -1;

        if (prog < 0)
                return false;

        link = bpf_link_create(prog, INT_MAX, TCX_INGRESS, NULL);
        return link == -ENODEV;
}

#define STORE_DOUBLE(at, value)                                                                    \
        {                                                                                          \
                .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = BPF_REG_10, .off = (at),             \
                .imm = (value)                                                                     \
        }
#define FLAG_SRC (1 << 4) /* BPF_FIB_LOOKUP_SRC */

/* A flag that the kernel does not know is refused when the lookup runs. The question itself has no
 * answer: on the loopback device there is nothing to forward. */
bool try_fib_lookup_src(void)
{
        const struct bpf_insn insns[] = {
                STORE_DOUBLE(-64, AF_INET),
                STORE_DOUBLE(-56, 1 /* ifindex: lo */),
                STORE_DOUBLE(-48, 0),
                STORE_DOUBLE(-40, 0),
                STORE_DOUBLE(-32, 0),
                STORE_DOUBLE(-24, 0),
                STORE_DOUBLE(-16, 0),
                STORE_DOUBLE(-8, 0),
                { .code = BPF_ALU64 | BPF_MOV | BPF_X,
                  .dst_reg = BPF_REG_2,
                  .src_reg = BPF_REG_10 },
                { .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_2, .imm = -64 },
                { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = 64 },
                { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_4, .imm = FLAG_SRC },
                CALL(0, BPF_FUNC_fib_lookup),
                EXIT,
        };
        _cleanup_close_ int fd = load(insns, ELEMENTS(insns), NULL, 0);
        unsigned char packet[64] = { 0 };
        LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet));

        _Static_assert(sizeof(struct bpf_fib_lookup) == 64, "as above");
        return fd >= 0 && bpf_prog_test_run_opts(fd, &run) == 0 && (int) run.retval >= 0;
}

/* There is no such link; only a kernel that knows the command looks for it. */
bool try_link_update(void)
{
        return bpf_link_update(-1, -1, NULL) == -EBADF;
}

#define MOVE(register, value)                                                                      \
        {                                                                                          \
                .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = register, .imm = value             \
        }
#define DECAP_L3_IPV6 (1 << 8) /* BPF_F_ADJ_ROOM_DECAP_L3_IPV6, since Linux 6.3 */

/* Takes 20 bytes out of an IPv4 packet and calls the rest IPv6. */
bool try_decap_protocol(void)
{
        const struct bpf_insn insns[] = { MOVE(BPF_REG_2, -20), MOVE(BPF_REG_3, BPF_ADJ_ROOM_MAC),
                                          MOVE(BPF_REG_4, DECAP_L3_IPV6),
                                          CALL(0, BPF_FUNC_skb_adjust_room), EXIT };
        _cleanup_close_ int fd = load(insns, ELEMENTS(insns), NULL, 0);
        char packet[128] = { [12] = 0x08, [14] = 0x45 };
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet));

        return fd >= 0 && bpf_prog_test_run_opts(fd, &opts) == 0 && opts.retval == 0;
}

bool try_cast_to_kern_ctx(void)
{
        struct btf *kernel = btf__load_vmlinux_btf();
        int id = kernel ? btf__find_by_name_kind(kernel, "bpf_cast_to_kern_ctx", BTF_KIND_FUNC)
                        : -ENOENT;
        const struct bpf_insn insns[] = { CALL(BPF_PSEUDO_KFUNC_CALL, id), RETURN_0, EXIT };
        _cleanup_close_ int fd = -1;

        btf__free(kernel);
        if (id < 0)
                return false;

        fd = load(insns, ELEMENTS(insns), NULL, 0);
        return fd >= 0;
}
