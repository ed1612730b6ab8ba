/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <linux/pkt_sched.h>
#include <string.h>

#include <bpf/libbpf.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/classifier.h>
#include <weft/types.h>

#include "generation/attach.h"
#include "util.h"

/* Weft's own: "weft", "we". What is there with others is not touched. */
#define HANDLE 0x77656674
#define PRIORITY 0x7765

static const enum bpf_tc_attach_point points[WEFT_HOOKS] = {
        [WEFT_FROM_ENDPOINT] = BPF_TC_INGRESS, [WEFT_TO_ENDPOINT] = BPF_TC_EGRESS,
        [WEFT_FROM_UPLINK] = BPF_TC_INGRESS,   [WEFT_TO_UPLINK] = BPF_TC_EGRESS,
        [WEFT_FROM_OVERLAY] = BPF_TC_INGRESS,
};

static int quiet(enum libbpf_print_level level, const char *format, va_list ap)
{
        (void) level;
        (void) format;
        (void) ap;
        return 0;
}

int filter_attach(uint32_t ifindex, uint32_t hook, int prog_fd, struct weft_error *reterr)
{
        LIBBPF_OPTS(bpf_tc_hook, where, .ifindex = (int) ifindex, .attach_point = points[hook]);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY, .prog_fd = prog_fd,
                    .flags = BPF_TC_F_REPLACE);
        int r = bpf_tc_attach(&where, &opts);

        return r < 0 ? weft_fail(reterr, r, "cannot add a filter to clsact: %s", strerror(-r)) : 0;
}

bool filter_is_there(uint32_t ifindex, uint32_t hook)
{
        LIBBPF_OPTS(bpf_tc_hook, where, .ifindex = (int) ifindex, .attach_point = points[hook]);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);
        libbpf_print_fn_t print = libbpf_set_print(quiet); /* one that is gone is no surprise */
        bool there = bpf_tc_query(&where, &opts) == 0;

        (void) libbpf_set_print(print);
        return there;
}

void filter_remove(uint32_t ifindex, uint32_t hook)
{
        LIBBPF_OPTS(bpf_tc_hook, where, .ifindex = (int) ifindex, .attach_point = points[hook]);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);

        (void) bpf_tc_detach(&where, &opts);
}

int qdisc_add(uint32_t ifindex, bool *ret_made, struct weft_error *reterr)
{
        LIBBPF_OPTS(bpf_tc_hook, where, .ifindex = (int) ifindex, .attach_point = BPF_TC_INGRESS);
        libbpf_print_fn_t print = libbpf_set_print(quiet);
        int r;

        r = bpf_tc_hook_create(&where); /* one that is there already is what libbpf warns about */
        (void) libbpf_set_print(print);

        if (r < 0 && r != -EEXIST)
                return weft_fail(reterr, r, "cannot add the clsact qdisc: %s", strerror(-r));

        *ret_made = r >= 0;
        return 0;
}

static bool has_filters(struct nl_sock *socket, uint32_t ifindex, uint32_t parent)
{
        struct nl_cache *filters;
        bool some;

        if (rtnl_cls_alloc_cache(socket, (int) ifindex, TC_H_MAKE(TC_H_CLSACT, parent), &filters) <
            0)
                return true;

        some = nl_cache_nitems(filters) > 0;
        nl_cache_free(filters);
        return some;
}

void qdisc_remove(uint32_t ifindex)
{
        LIBBPF_OPTS(bpf_tc_hook, where, .ifindex = (int) ifindex,
                    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
        struct nl_sock *socket = nl_socket_alloc();

        if (socket && nl_connect(socket, NETLINK_ROUTE) >= 0 &&
            !has_filters(socket, ifindex, TC_H_MIN_INGRESS) &&
            !has_filters(socket, ifindex, TC_H_MIN_EGRESS))
                (void) bpf_tc_hook_destroy(&where);

        nl_socket_free(socket);
}
