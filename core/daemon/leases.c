/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "config/values.h"
#include "daemon/leases.h"
#include "paths.h"
#include "util.h"

enum { TRIES_MAX = 65536 }; /* of one prefix; an IPv6 /64 has more than anybody looks through */

/* The address that many behind the network's. */
static struct weft_addr address_in(const struct weft_prefix *cidr, uint32_t offset)
{
        struct weft_addr a = cidr->addr;

        a.w[3] = htonl(ntohl(a.w[3]) + offset);
        return a;
}

static uint32_t addresses_of(const struct weft_prefix *cidr)
{
        uint32_t bits = 128 - cidr->len;

        return bits > 16 ? TRIES_MAX : 1u << bits;
}

static int leases_add(struct leases *l, const char *name, const struct weft_addr *addr)
{
        struct lease lease = { strdup(name), *addr };

        if (!lease.name || list_grow(&l->items, l->n, sizeof(*l->items)) < 0) {
                free(lease.name);
                return -ENOMEM;
        }

        l->items[l->n++] = lease;
        return 0;
}

static int leases_read(struct leases *l, char *text)
{
        char *rest = NULL;
        int line_number = 0;

        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                char *space = strchr(line, ' ');
                struct weft_addr addr;

                line_number++;
                if (!space || parse_address(space + 1, &addr) < 0)
                        return line_number;
                *space = '\0';
                if (leases_add(l, line, &addr) < 0)
                        return -ENOMEM;
        }

        return 0;
}

int leases_load(const char *path, struct leases *ret, struct weft_error *reterr)
{
        _cleanup_(leases_done) struct leases l = { 0 };
        _cleanup_free_ char *text = NULL;
        int r = file_read(path, &text);

        if (r == -ENOENT) {
                *ret = l;
                return 0;
        }
        if (r == 0)
                r = leases_read(&l, text);
        if (r > 0)
                return weft_fail(reterr, -EINVAL,
                                 "%s:%d: not \"NAME ADDRESS\": repair or remove the file", path, r);
        if (r < 0)
                return weft_fail(reterr, r, "cannot read %s: %s", path, strerror(-r));

        *ret = l;
        l = (struct leases) { 0 };
        return 0;
}

int leases_save(const struct leases *l, const char *path, struct weft_error *reterr)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        if (!f)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        for (size_t i = 0; i < l->n; i++) {
                char buf[ADDRESS_TEXT];

                (void) fprintf(f, "%s %s\n", l->items[i].name,
                               address_format(&l->items[i].addr, buf, sizeof(buf)));
        }
        if (fclose(f) != 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        return file_replace(path, text, reterr);
}

void leases_done(struct leases *l)
{
        for (size_t i = 0; i < l->n; i++)
                free(l->items[i].name);
        free(l->items);
        *l = (struct leases) { 0 };
}

const struct weft_addr *leases_find(const struct leases *l, const char *name,
                                    const struct weft_prefix *cidr)
{
        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->items[i].name, name) == 0 && prefix_contains(cidr, &l->items[i].addr))
                        return &l->items[i].addr;

        return NULL;
}

const char *leases_holder(const struct leases *l, const struct weft_addr *a)
{
        for (size_t i = 0; i < l->n; i++)
                if (address_equal(&l->items[i].addr, a))
                        return l->items[i].name;

        return NULL;
}

int leases_take(struct leases *l, const char *name, const struct weft_prefix *cidr,
                bool (*in_use)(void *data, const struct weft_addr *a), void *data,
                struct weft_addr *ret)
{
        uint32_t n = cidr->len > 126 ? 0 : addresses_of(cidr);

        for (uint32_t offset = 2; offset + 1 < n; offset++) {
                struct weft_addr a = address_in(cidr, offset);

                if (leases_holder(l, &a) || in_use(data, &a))
                        continue;
                if (leases_add(l, name, &a) < 0)
                        return -ENOMEM;
                *ret = a;
                return 0;
        }

        return -ENOSPC;
}

bool leases_drop(struct leases *l, const char *name)
{
        size_t kept = 0;

        for (size_t i = 0; i < l->n; i++)
                if (strcmp(l->items[i].name, name) == 0)
                        free(l->items[i].name);
                else
                        l->items[kept++] = l->items[i];

        if (kept == l->n)
                return false;

        l->n = kept;
        return true;
}
