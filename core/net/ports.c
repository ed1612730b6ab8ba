/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/hold.h"

#define RESERVED "net/ipv4/ip_local_reserved_ports"

enum { PORTS = 65536, RANGE_TEXT = 12 };

static bool port_is_set(const struct port_set *set, unsigned port)
{
        return set->bits[port / 64] >> (port % 64) & 1;
}

static void set_range(struct port_set *set, unsigned low, unsigned high)
{
        for (unsigned p = low; p <= high; p++)
                set->bits[p / 64] |= UINT64_C(1) << (p % 64);
}

bool ports_parse(const char *text, struct port_set *ret)
{
        struct port_set set = { 0 };
        unsigned long low, high;
        char *end;

        while (*text) {
                low = high = strtoul(text, &end, 10);
                if (*end == '-')
                        high = strtoul(end + 1, &end, 10);
                if (end == text || low > high || high >= PORTS || (*end && *end != ','))
                        return false;
                set_range(&set, (unsigned) low, (unsigned) high);
                text = *end ? end + 1 : end;
        }

        *ret = set;
        return true;
}

char *ports_format(const struct port_set *set)
{
        _cleanup_free_ char *text = NULL;
        _cleanup_fclose_ FILE *f = NULL;
        unsigned last;
        size_t size;

        f = open_memstream(&text, &size);
        if (!f)
                return NULL;

        for (unsigned p = 0; p < PORTS; p = last + 1) {
                for (last = p;
                     port_is_set(set, p) && last + 1 < PORTS && port_is_set(set, last + 1);)
                        last++;
                if (port_is_set(set, p))
                        (void) fprintf(f, last > p ? "%s%u-%u" : "%s%u", ftell(f) > 0 ? "," : "", p,
                                       last);
        }

        /* The text moves when the stream is closed. */
        return fclose(TAKE(f)) == 0 ? TAKE(text) : NULL;
}

static int read_reserved(struct port_set *ret, struct weft_error *reterr)
{
        _cleanup_free_ char *text = NULL;
        int r = sysctl_read(RESERVED, &text);

        if (r < 0)
                return weft_fail(reterr, r, "cannot read /proc/sys/" RESERVED ": %s", strerror(-r));
        if (!ports_parse(text, ret))
                return weft_fail(reterr, -EINVAL,
                                 "cannot understand /proc/sys/" RESERVED ": %.100s", text);

        return 0;
}

static int record(struct host *h, const struct port_set *own, struct weft_error *reterr)
{
        _cleanup_free_ char *text = ports_format(own);

        if (!text)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        return record_add(h, reterr, "ports\t%s", text);
}

static int write_reserved(const struct port_set *set, struct weft_error *reterr)
{
        _cleanup_free_ char *text = ports_format(set);
        int r = text ? sysctl_write(RESERVED, text) : -ENOMEM;

        return r < 0 ? weft_fail(reterr, r, "cannot write /proc/sys/" RESERVED ": %s", strerror(-r))
                     : 0;
}

/* 1 if there was something to write. */
int ports_apply(struct host *h, struct weft_error *reterr)
{
        struct port_set now, wanted = h->inherited_ports, next, own, both;
        int r = read_reserved(&now, reterr);

        if (r < 0)
                return r;

        for (size_t i = 0; i < h->n_ports; i++)
                set_range(&wanted, h->ports[i].low, h->ports[i].high);
        for (size_t i = 0; i < ELEMENTS(now.bits); i++) {
                uint64_t foreign = now.bits[i] & ~h->own_ports.bits[i];

                own.bits[i] = wanted.bits[i] & ~foreign;
                next.bits[i] = foreign | own.bits[i];
                both.bits[i] = h->own_ports.bits[i] | own.bits[i];
        }
        if (memcmp(&next, &now, sizeof(now)) == 0 && memcmp(&own, &h->own_ports, sizeof(own)) == 0)
                return 0;

        /* New ports are recorded before they are reserved, given back ones after. */
        r = record(h, &both, reterr);
        if (r >= 0)
                r = write_reserved(&next, reterr);
        if (r < 0)
                return r;

        h->own_ports = own;
        record_trim(h);
        r = record(h, &own, reterr);

        return r < 0 ? r : 1;
}

static struct port_hold *find(struct host *h, uint16_t low, uint16_t high)
{
        for (size_t i = 0; i < h->n_ports; i++)
                if (h->ports[i].low == low && h->ports[i].high == high)
                        return &h->ports[i];

        return NULL;
}

int host_reserve_ports(struct host *h, uint16_t low, uint16_t high, struct weft_error *reterr)
{
        struct port_hold *p = find(h, low, high);
        int r;

        if (p) {
                p->count++;
                return 0;
        }
        if (low > high || list_grow(&h->ports, h->n_ports, sizeof(*p)) < 0)
                return weft_fail(reterr, low > high ? -EINVAL : -ENOMEM,
                                 "cannot reserve ports %u-%u", low, high);

        h->ports[h->n_ports++] = (struct port_hold) { low, high, 1 };
        r = ports_apply(h, reterr);
        if (r < 0)
                h->n_ports--;

        return r < 0 ? r : 0;
}

void host_unreserve_ports(struct host *h, uint16_t low, uint16_t high)
{
        struct port_hold *p = find(h, low, high);

        if (!p || --p->count > 0)
                return;

        *p = h->ports[--h->n_ports];
        (void) ports_apply(h, NULL);
}
