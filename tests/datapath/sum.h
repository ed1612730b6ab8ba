/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The Internet checksum (RFC 1071), the slow and obvious way. */

#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/types.h>

/* Adds n bytes, taken as big-endian words, to a running sum. */
static inline uint32_t sum_add(uint32_t sum, const void *bytes, size_t n)
{
        const uint8_t *b = bytes;

        for (size_t i = 0; i < n; i++)
                sum += i & 1 ? b[i] : (uint32_t) b[i] << 8;
        return sum;
}

/* The pseudo header of RFC 793 and RFC 8200 §8.1. A mapped address sums up as its last word plus
 * the prefix 0xffff, which is the one's-complement zero: the same code does both families. */
static inline uint32_t sum_pseudo(const struct weft_addr *src, const struct weft_addr *dst,
                                  uint8_t proto, size_t length)
{
        return sum_add(sum_add((uint32_t) length + proto, src, sizeof(*src)), dst, sizeof(*dst));
}

/* The finished checksum as it goes into the header; 0 over a header that carries a right one. */
static inline uint16_t sum_fold(uint32_t sum)
{
        while (sum >> 16)
                sum = (sum & 0xffff) + (sum >> 16);
        return htons((uint16_t) ~sum);
}
