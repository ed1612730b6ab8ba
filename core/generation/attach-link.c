/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <linux/if_link.h>
#include <string.h>

#include <bpf/bpf.h>
#include <weft/types.h>

#include "generation/attach.h"
#include "util.h"

/* enum bpf_attach_type since Linux 6.6; Debian 12's headers are older. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define TCX_BEFORE (1u << 3) /* BPF_F_BEFORE */
#define TCX_AFTER (1u << 4)  /* BPF_F_AFTER */

static const uint32_t attach_types[WEFT_HOOKS] = {
        [WEFT_FROM_ENDPOINT] = TCX_INGRESS, [WEFT_TO_ENDPOINT] = TCX_EGRESS,
        [WEFT_FROM_UPLINK] = TCX_INGRESS,   [WEFT_TO_UPLINK] = TCX_EGRESS,
        [WEFT_FROM_OVERLAY] = TCX_INGRESS,  [WEFT_XDP_UPLINK] = BPF_XDP,
};

/* 0 where the device is gone. */
static uint32_t link_ifindex(int fd)
{
        struct bpf_link_info info = { 0 };
        uint32_t size = sizeof(info);

        if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                return 0;

        /* XDP and tcx both begin with it; old headers only know the former. */
        return info.xdp.ifindex;
}

/* Relative to no other program: first, or last. */
static uint32_t create_flags(uint32_t hook, bool tcx_first)
{
        if (hook == WEFT_XDP_UPLINK)
                return XDP_FLAGS_DRV_MODE;

        return tcx_first ? TCX_BEFORE : TCX_AFTER;
}

static int link_create(const char *path, uint32_t ifindex, uint32_t hook, int prog_fd,
                       bool tcx_first, struct weft_error *reterr)
{
        LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = create_flags(hook, tcx_first));
        _cleanup_close_ int fd = -1;
        int r;

        fd = bpf_link_create(prog_fd, (int) ifindex, attach_types[hook], &opts);
        if (fd == -EBUSY)
                return weft_fail(reterr, fd, "somebody else's XDP program is there");
        if (fd < 0)
                return weft_fail(reterr, fd, "%s", strerror(-fd));

        r = bpf_obj_pin(fd, path);
        if (r < 0)
                return weft_fail(reterr, r, "cannot pin the link to %s: %s", path, strerror(-r));

        return TAKE_FD(fd);
}

int link_attach(const char *path, int *fd, uint32_t ifindex, uint32_t hook, int prog_fd,
                bool tcx_first, struct weft_error *reterr)
{
        int r = -ENOLINK;

        if (*fd >= 0 && link_ifindex(*fd) == ifindex)
                r = bpf_link_update(*fd, prog_fd, NULL);
        if (r >= 0)
                return 0;
        if (r != -ENOLINK && r != -ENODEV)
                return weft_fail(reterr, r, "the link cannot be updated: %s", strerror(-r));

        link_remove(path, fd);
        *fd = link_create(path, ifindex, hook, prog_fd, tcx_first, reterr);
        return *fd < 0 ? *fd : 0;
}

bool link_is_alive(int fd)
{
        return link_ifindex(fd) != 0;
}

/* Detached and not only let go of: somebody may be looking at the link. */
void link_remove(const char *path, int *fd)
{
        if (*fd >= 0)
                (void) bpf_link_detach(*fd);

        (void) unlink(path);
        closep(fd);
        *fd = -1;
}
