/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Headers and the arithmetic of their checksums (RFC 1071, RFC 1624). Sums are 32 bits wide and
 * folded to 16 when stored; a "difference" is what has to be added to a sum when one value takes
 * the place of another. */

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <weft/types.h>

#define WEFT_IP4_MIN 20u
#define WEFT_IP6_LEN 40u
#define WEFT_TCP_MIN 20u
#define WEFT_UDP_LEN 8u
#define WEFT_ICMP_LEN 8u

#define WEFT_TCP_FIN 0x01
#define WEFT_TCP_SYN 0x02
#define WEFT_TCP_RST 0x04
#define WEFT_TCP_ACK 0x10

/* ICMP and ICMPv6: an echo's header, and the length of every other one. */
struct weft_icmp {
        __u8 type, code;
        __u16 check;
        __be16 id, seq;
};

/* Where the checksum lies in a transport header. */
#define WEFT_TCP_CHECK 16
#define WEFT_UDP_CHECK 6
#define WEFT_ICMP_CHECK 2
#define WEFT_ICMP_ID 4

#define WEFT_FRAG_MORE bpf_htons(0x2000)
#define WEFT_FRAG_OFFSET bpf_htons(0x1fff)

/* What DSR tells the backend's node, right behind the fixed IP header: the service's address and
 * port, and the client's own port where the packet bears another (0: it does not). All in network
 * order; the numbers are those of RFC 4727 §2.2 and §3.2, for experiments, so that nobody else's
 * are met. The IPv4 option bears the flag that asks for it to be copied into fragments. */
#define WEFT_DSR_KIND4 0x9e
#define WEFT_DSR_KIND6 0x1e

struct weft_dsr_option4 {
        __u8 kind, len; /* 8, or 12 with the client's port */
        __be16 port;
        __be32 addr;
        __be16 client_port;
        __be16 zero;
};

struct weft_dsr_option6 {
        __u8 next, words; /* of the destination options header: 2, for 24 bytes */
        __u8 kind, len;   /* 20 */
        struct weft_addr addr;
        __be16 port, client_port;
};

/* The same as a Geneve option (RFC 8926 §3.5), which is Cilium's: its class, a type that must be
 * understood, and where it pads, the client's port. */
#define WEFT_DSR_CLASS 0x014b
#define WEFT_DSR_TYPE 0x81

struct weft_dsr_geneve4 {
        __be16 class;
        __u8 type, words; /* 2 */
        __be32 addr;
        __be16 port, client_port;
};

struct weft_dsr_geneve6 {
        __be16 class;
        __u8 type, words; /* 5 */
        struct weft_addr addr;
        __be16 port, client_port;
};

static __always_inline __u16 weft_fold(__u32 sum)
{
        sum = (sum & 0xffff) + (sum >> 16);
        return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u32 weft_diff16(__u16 from, __u16 to)
{
        return (__u16) ~from + (__u32) to;
}

static __always_inline __u32 weft_diff32(__u32 from, __u32 to)
{
        from = ~from;
        return (from & 0xffff) + (from >> 16) + (to & 0xffff) + (to >> 16);
}

/* Unfolded; of two mapped IPv4 addresses it is that of the IPv4 addresses. */
static __always_inline __u32 weft_diff_addr(const struct weft_addr *from,
                                            const struct weft_addr *to)
{
        return weft_diff32(from->w[0], to->w[0]) + weft_diff32(from->w[1], to->w[1]) +
               weft_diff32(from->w[2], to->w[2]) + weft_diff32(from->w[3], to->w[3]);
}

/* A checksum after a difference. */
static __always_inline __u16 weft_check_add(__u16 check, __u32 difference)
{
        return ~weft_fold((__u16) ~check + weft_fold(difference));
}

static __always_inline struct weft_addr weft_map_ip4(__be32 a)
{
        return (struct weft_addr) { { 0, 0, bpf_htonl(0xffff), a } };
}
