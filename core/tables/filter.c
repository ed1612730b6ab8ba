/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The address filter. Keys share bits, so user space counts the keys of each bit: a bit is set
 * before the first of them is in its table and cleared after the last has left. */

#include <errno.h>

#include <bpf/bpf.h>

#include "tables/internal.h"
#include "config/values.h"

static uint32_t bit_of(const struct weft_addr *a, __be16 port, uint8_t proto)
{
        return address_is_ipv4(a) ? weft_filter_bit4(a->w[3], port, proto)
                                  : weft_filter_bit6(a->w, port, proto);
}

static void store_bit(struct tables *t, uint32_t bit)
{
        uint64_t word, *p = table_at(t, TABLE_FILTER, bit / 64);

        word = t->filter_counts[bit] ? *p | 1ULL << bit % 64 : *p & ~(1ULL << bit % 64);
        store64(p, &word);
}

static void add_bit(struct tables *t, uint32_t bit)
{
        if (t->filter_counts[bit]++ == 0)
                store_bit(t, bit);
}

static void del_bit(struct tables *t, uint32_t bit)
{
        if (--t->filter_counts[bit] == 0)
                store_bit(t, bit);
}

void filter_add(struct tables *t, const struct weft_addr *addr, __be16 port, uint8_t proto)
{
        add_bit(t, bit_of(addr, port, proto));
}

void filter_del(struct tables *t, const struct weft_addr *addr, __be16 port, uint8_t proto)
{
        del_bit(t, bit_of(addr, port, proto));
}

/* ---- networks of remote pods -------------------------------------------------------------- */

enum { NET4_BITS = 16, NET6_BITS = 48, NETS_MAX = 1 << 16 };

static uint32_t net_bit(const struct weft_addr *a)
{
        return address_is_ipv4(a) ? weft_filter_net4(a->w[3]) : weft_filter_net6(a->w);
}

/* The n-th network of the prefix. */
static struct weft_addr net_at(const struct weft_prefix *p, uint32_t n)
{
        struct weft_addr a = p->addr;
        uint8_t *b = (uint8_t *) &a + (address_is_ipv4(&a) ? 12 + NET4_BITS / 8 : NET6_BITS / 8);

        for (; n; n >>= 8)
                *--b |= (uint8_t) n;

        return a;
}

static int each_net(struct tables *t, const struct weft_prefix *p,
                    void (*f)(struct tables *t, uint32_t bit))
{
        uint32_t whole = address_is_ipv4(&p->addr) ? 96 + NET4_BITS : NET6_BITS;
        uint64_t n = p->len >= whole ? 1 : 1ULL << (whole - p->len);

        if (n > NETS_MAX)
                return -E2BIG;

        for (uint32_t i = 0; i < n; i++) {
                struct weft_addr a = net_at(p, i);

                f(t, net_bit(&a));
        }

        return 0;
}

static void count_bit(struct tables *t, uint32_t bit)
{
        t->filter_counts[bit]++;
}

int filter_add_net(struct tables *t, const struct weft_prefix *prefix)
{
        return each_net(t, prefix, add_bit);
}

void filter_del_net(struct tables *t, const struct weft_prefix *prefix)
{
        (void) each_net(t, prefix, del_bit);
}

int filter_count_net(struct tables *t, const struct weft_prefix *prefix)
{
        return each_net(t, prefix, count_bit);
}

/* ---- what a predecessor left -------------------------------------------------------------- */

static int count_endpoints(struct tables *t)
{
        _cleanup_free_ struct weft_addr *keys = NULL;
        size_t n;
        int r;

        r = table_keys(t, TABLE_ENDPOINTS, &keys, &n);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n; i++)
                t->filter_counts[bit_of(&keys[i], 0, 0)]++;

        return 0;
}

static uint64_t counted_word(const uint32_t *counts)
{
        uint64_t word = 0;

        for (unsigned i = 0; i < 64; i++)
                word |= (uint64_t) !!counts[i] << i;

        return word;
}

int filter_rebuild(struct tables *t)
{
        int r;

        r = count_endpoints(t);
        if (r < 0)
                return r;

        for (uint32_t i = 0; i < WEFT_FILTER_WORDS; i++) {
                uint64_t word = counted_word(t->filter_counts + (size_t) i * 64);

                store64(table_at(t, TABLE_FILTER, i), &word);
        }

        return 0;
}
