/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is attached where. The books are the pins themselves, so that a successor finds them: links
 * in BPFFS/links, and, since a filter cannot be pinned, an empty directory for each in
 * BPFFS/filters. Entries are named IFNAME-HOOK; bpffs allows no '.' in a name, interfaces no ':',
 * so the one stands for the other. */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <string.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include "generation/attach.h"
#include "generation/generation.h"
#include "names.h"
#include "probe/probe.h"
#include "util.h"

struct attachment {
        char ifname[IF_NAMESIZE];
        uint32_t ifindex; /* the interface may have another name by now */
        uint32_t hook;
        bool is_link;
        int fd; /* links */
        bool wanted;
};

struct attachments {
        char *links, *filters; /* directories */
        bool tcx, tcx_only, tcx_first, many;
        struct attachment *items;
        size_t n;
};

/* ---- names -------------------------------------------------------------------------------- */

static void swap_dots(char *name, char from, char to)
{
        for (; *name; name++)
                if (*name == from)
                        *name = to;
}

static void entry_path(const char *dir, const char *ifname, const char *what,
                       char path[static PATH_MAX])
{
        char safe[IF_NAMESIZE];

        (void) snprintf(safe, sizeof(safe), "%s", ifname);
        swap_dots(safe, '.', ':');
        (void) snprintf(path, PATH_MAX, "%s/%s-%s", dir, safe, what);
}

static void item_path(const struct attachments *a, const struct attachment *i,
                      char path[static PATH_MAX])
{
        entry_path(i->is_link ? a->links : a->filters, i->ifname, hook_names[i->hook], path);
}

/* "eth0-from-uplink" -> eth0, WEFT_FROM_UPLINK. Interface names may hold a '-' too. */
static bool parse_entry(const char *entry, struct attachment *ret)
{
        size_t n = strlen(entry);

        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++) {
                size_t m = strlen(hook_names[hook]) + 1;

                if (n <= m || n - m >= sizeof(ret->ifname) || entry[n - m] != '-' ||
                    strcmp(entry + n - m + 1, hook_names[hook]) != 0)
                        continue;

                *ret = (struct attachment) { .hook = hook, .fd = -1 };
                memcpy(ret->ifname, entry, n - m);
                swap_dots(ret->ifname, ':', '.');
                return true;
        }

        return false;
}

/* ---- the books ---------------------------------------------------------------------------- */

static struct attachment *find(const struct attachments *a, const char *ifname, uint32_t hook,
                               bool is_link)
{
        for (size_t i = 0; i < a->n; i++)
                if (a->items[i].hook == hook && a->items[i].is_link == is_link &&
                    strcmp(a->items[i].ifname, ifname) == 0)
                        return &a->items[i];

        return NULL;
}

static struct attachment *add(struct attachments *a, const struct attachment *item)
{
        struct attachment *grown = reallocarray(a->items, a->n + 1, sizeof(*grown));

        if (!grown)
                return NULL;

        a->items = grown;
        grown[a->n] = *item;
        return &grown[a->n++];
}

static int take_over(struct attachments *a, bool links, struct weft_error *reterr)
{
        const char *dir = links ? a->links : a->filters;
        DIR *d = opendir(dir);
        struct dirent *e;
        int r = 0;

        if (!d)
                return weft_fail(reterr, -errno, "%s: %s", dir, strerror(errno));

        while (r >= 0 && (e = readdir(d))) {
                struct attachment item;
                char path[PATH_MAX];

                if (!parse_entry(e->d_name, &item))
                        continue;

                item.is_link = links;
                item.ifindex = if_nametoindex(item.ifname);
                item_path(a, &item, path);
                if (links)
                        item.fd = bpf_obj_get(path);
                if (!add(a, &item)) {
                        closep(&item.fd);
                        r = weft_fail(reterr, -ENOMEM, "out of memory");
                }
        }

        (void) closedir(d);
        return r;
}

static int make_directory(const char *path, struct weft_error *reterr)
{
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return weft_fail(reterr, -errno, "%s: %s", path, strerror(errno));

        return 0;
}

static int open_books(struct attachments *a, const char *bpffs, struct weft_error *reterr)
{
        int r;

        if (asprintf(&a->links, "%s/links", bpffs) < 0 ||
            asprintf(&a->filters, "%s/filters", bpffs) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = make_directory(bpffs, reterr);
        if (r >= 0)
                r = make_directory(a->links, reterr);
        if (r >= 0)
                r = make_directory(a->filters, reterr);
        if (r >= 0)
                r = take_over(a, true, reterr);
        if (r >= 0)
                r = take_over(a, false, reterr);

        return r;
}

static void attach_closep(struct attachments **a)
{
        (void) attach_close(*a);
}

int attach_open(const char *bpffs, uint32_t mode, struct attachments **ret,
                struct weft_error *reterr)
{
        _cleanup_(attach_closep) struct attachments *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        a->tcx_only = mode == ATTACH_TCX;
        a->tcx = mode != ATTACH_CLSACT && probe_has(WEFT_NEED_FEATURE, "tcx");
        if (mode == ATTACH_TCX && !a->tcx)
                return weft_fail(reterr, -EOPNOTSUPP, "this kernel has no tcx (Linux 6.6)");

        r = open_books(a, bpffs, reterr);
        if (r < 0)
                return r;

        *ret = TAKE(a);
        return 0;
}

struct attachments *attach_close(struct attachments *a)
{
        if (!a)
                return NULL;

        for (size_t i = 0; i < a->n; i++)
                closep(&a->items[i].fd);
        free(a->items);
        free(a->links);
        free(a->filters);
        free(a);
        return NULL;
}

void attach_tcx_order(struct attachments *a, uint32_t order)
{
        a->tcx_first = order == TCX_FIRST;
}

void attach_many(struct attachments *a, bool many)
{
        a->many = many;
}

bool attach_uses_tcx(const struct attachments *a)
{
        return a->tcx;
}

static bool is_alive(const struct attachment *i)
{
        return i->is_link ? link_is_alive(i->fd) : filter_is_there(i->ifindex, i->hook);
}

bool attach_is_whole(const struct attachments *a, char ret_ifname[static 16])
{
        for (size_t i = 0; i < a->n; i++)
                if (a->items[i].wanted && !is_alive(&a->items[i])) {
                        memcpy(ret_ifname, a->items[i].ifname, IF_NAMESIZE);
                        return false;
                }

        return true;
}

/* ---- removing ----------------------------------------------------------------------------- */

static bool has_any(const struct attachments *a, const char *ifname, bool is_link)
{
        for (size_t i = 0; i < a->n; i++)
                if (a->items[i].is_link == is_link && strcmp(a->items[i].ifname, ifname) == 0)
                        return true;

        return false;
}

static bool has_filter(const struct attachments *a, const char *ifname)
{
        return has_any(a, ifname, false);
}

bool attach_has_link(const struct attachments *a, const char *ifname)
{
        return has_any(a, ifname, true);
}

bool attach_has_hook(const struct attachments *a, const char *ifname, uint32_t hook)
{
        return find(a, ifname, hook, true) || find(a, ifname, hook, false);
}

/* With the last filter goes the qdisc, where weft made it. */
static void drop_qdisc(const struct attachments *a, const struct attachment *last)
{
        char path[PATH_MAX];

        entry_path(a->filters, last->ifname, "qdisc", path);
        if (!has_filter(a, last->ifname) && rmdir(path) == 0)
                qdisc_remove(last->ifindex);
}

static void remove_item(struct attachments *a, struct attachment *item)
{
        struct attachment gone = *item;
        char path[PATH_MAX];

        item_path(a, &gone, path);
        *item = a->items[--a->n];

        if (gone.is_link) {
                link_remove(path, &gone.fd);
                return;
        }

        filter_remove(gone.ifindex, gone.hook);
        (void) rmdir(path);
        drop_qdisc(a, &gone);
}

void attach_unwant(struct attachments *a, const char *ifname)
{
        for (size_t i = 0; i < a->n; i++)
                if (strcmp(a->items[i].ifname, ifname) == 0)
                        a->items[i].wanted = false;
}

void attach_forget(struct attachments *a, const char *ifname)
{
        char path[PATH_MAX];

        for (size_t i = a->n; i > 0; i--) {
                struct attachment *item = &a->items[i - 1];

                if (strcmp(item->ifname, ifname) != 0)
                        continue;
                item_path(a, item, path);
                (void) (item->is_link ? unlink : rmdir)(path);
                closep(&item->fd);
                *item = a->items[--a->n];
        }

        entry_path(a->filters, ifname, "qdisc", path);
        (void) rmdir(path);
}

void attach_remove(struct attachments *a, const char *ifname)
{
        for (size_t i = a->n; i > 0; i--)
                if (strcmp(a->items[i - 1].ifname, ifname) == 0)
                        remove_item(a, &a->items[i - 1]);
}

void attach_remove_hook(struct attachments *a, const char *ifname, uint32_t hook)
{
        for (size_t i = a->n; i > 0; i--)
                if (a->items[i - 1].hook == hook && strcmp(a->items[i - 1].ifname, ifname) == 0)
                        remove_item(a, &a->items[i - 1]);
}

void attach_settle(struct attachments *a)
{
        for (size_t i = a->n; i > 0; i--)
                if (!a->items[i - 1].wanted)
                        remove_item(a, &a->items[i - 1]);
}

static const char *kind(const struct attachment *i)
{
        if (!i->is_link)
                return "clsact filter";

        return i->hook == WEFT_XDP_UPLINK ? "XDP link" : "tcx link";
}

void attach_cleanup(struct attachments *a, void (*f)(void *data, const char *what), void *data)
{
        while (a->n > 0) {
                struct attachment *i = &a->items[a->n - 1];
                char what[128];

                (void) snprintf(what, sizeof(what), "%s %s of %s", kind(i), hook_names[i->hook],
                                i->ifname);
                remove_item(a, i);
                f(data, what);
        }

        (void) rmdir(a->links);
        (void) rmdir(a->filters);
}

/* ---- attaching ---------------------------------------------------------------------------- */

static int attach_link(struct attachments *a, struct attachment *item, uint32_t ifindex,
                       int prog_fd, struct weft_error *reterr)
{
        char path[PATH_MAX];

        item_path(a, item, path);
        return link_attach(path, &item->fd, ifindex, item->hook, prog_fd, a->tcx_first, reterr);
}

static int add_qdisc(const struct attachments *a, const char *ifname, uint32_t ifindex,
                     struct weft_error *reterr)
{
        char path[PATH_MAX];
        bool made = false;
        int r;

        r = qdisc_add(ifindex, &made, reterr);
        if (r < 0 || !made)
                return r;

        entry_path(a->filters, ifname, "qdisc", path);
        return make_directory(path, reterr);
}

static int attach_filter(struct attachments *a, struct attachment *item, uint32_t ifindex,
                         int prog_fd, struct weft_error *reterr)
{
        char path[PATH_MAX];
        int r;

        item_path(a, item, path);
        r = make_directory(path, reterr);
        if (r >= 0)
                r = add_qdisc(a, item->ifname, ifindex, reterr);
        if (r >= 0)
                r = filter_attach(ifindex, item->hook, prog_fd, reterr);

        return r;
}

static struct attachment *find_or_add(struct attachments *a, const char *ifname, uint32_t hook,
                                      bool is_link)
{
        struct attachment item = { .hook = hook, .is_link = is_link, .fd = -1 };
        struct attachment *found = find(a, ifname, hook, is_link);

        if (found)
                return found;

        (void) snprintf(item.ifname, sizeof(item.ifname), "%s", ifname);
        return add(a, &item);
}

/* What hangs there as a filter because there were many stays one: in the change both would run. */
static bool is_to_be_link(const struct attachments *a, const char *ifname, uint32_t hook)
{
        bool endpoint = hook == WEFT_FROM_ENDPOINT || hook == WEFT_TO_ENDPOINT;

        if (hook == WEFT_XDP_UPLINK || !a->tcx)
                return hook == WEFT_XDP_UPLINK;
        if (!endpoint || a->tcx_only || a->tcx_first || find(a, ifname, hook, true))
                return true;

        return !a->many && !has_filter(a, ifname);
}

int attach_hook(struct attachments *a, uint32_t ifindex, const char *ifname, uint32_t hook,
                int prog_fd, struct weft_error *reterr)
{
        bool as_link = is_to_be_link(a, ifname, hook), known = find(a, ifname, hook, as_link);
        struct attachment *item = find_or_add(a, ifname, hook, as_link), *other;
        int r;

        if (!item)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        item->ifindex = ifindex;
        r = (as_link ? attach_link : attach_filter)(a, item, ifindex, prog_fd, reterr);
        if (r < 0) {
                /* What runs there already goes on running. */
                if (!known || (as_link && item->fd < 0))
                        remove_item(a, item);
                return weft_fail_in(reterr, r, "%s, %s", ifname, hook_names[hook]);
        }
        item->wanted = true;

        /* Left by a predecessor that attached the other way. */
        other = find(a, ifname, hook, !as_link);
        if (other)
                remove_item(a, other);

        return 0;
}
