/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One parser for each kind of value that is written in a file or on a command line, and the way
 * back to text. Parsers read the whole string, leave *ret alone on failure and return -EINVAL for
 * what is no such value and -ERANGE for what is one but cannot be held. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <weft/module.h>

/* Room for any address or prefix as text, with the NUL. */
#define ADDRESS_TEXT INET6_ADDRSTRLEN
#define PREFIX_TEXT (INET6_ADDRSTRLEN + 4)

int parse_bool(const char *s, bool *ret);
/* Decimal, or hexadecimal after 0x. */
int parse_number(const char *s, uint64_t *ret);
/* A decimal number, times 1024 for each step of K, M, G. */
int parse_size(const char *s, uint64_t *ret);
/* "500ms", "10s", "5min", "2h" in milliseconds. Without a unit only 0 is unmistakable. */
int parse_time(const char *s, uint64_t *ret);
/* Index into the names ended by NULL. */
int parse_choice(const char *s, const char *const *choices, uint32_t *ret);
int parse_address(const char *s, struct weft_addr *ret);
/* "10.0.0.0/8", or an address for itself alone. -EINVAL where bits are set behind the length, and
 * for IPv6 prefixes so short that they would cover the IPv4 addresses too (RFC 4291 §2.5.5.2). */
int parse_prefix(const char *s, struct weft_prefix *ret);
/* The same, but clears such bits: what somebody probably meant. */
int parse_network(const char *s, struct weft_prefix *ret);
/* "LOW-HIGH" or one port, host order; "auto" is 0, 0. */
int parse_ports(const char *s, struct weft_ports *ret);
/* "10.0.0.1:80" or "[fd00::1]:80"; the port in host order. */
int parse_address_port(const char *s, struct weft_addr *ret_addr, uint16_t *ret_port);
/* "80/tcp", "53/udp", "9/sctp"; the port in host order. */
int parse_port_proto(const char *s, uint16_t *ret_port, uint8_t *ret_proto);

bool address_is_ipv4(const struct weft_addr *a);
bool address_is_zero(const struct weft_addr *a);
/* Something that one host can have and others reach: not unspecified, loopback, multicast or
 * broadcast. */
bool address_is_unicast(const struct weft_addr *a);
bool address_equal(const struct weft_addr *a, const struct weft_addr *b);
bool prefix_contains(const struct weft_prefix *p, const struct weft_addr *a);
bool any_prefix_contains(const struct weft_prefix *prefixes, size_t n, const struct weft_addr *a);
bool prefixes_overlap(const struct weft_prefix *a, const struct weft_prefix *b);
/* Clears the bits behind the length. */
void prefix_trim(struct weft_prefix *p);
/* The node's own address in a pod CIDR: network + 1. -ERANGE where the prefix has no room for the
 * network, the gateway, one endpoint and the last address. */
int pod_gateway(const struct weft_prefix *cidr, struct weft_addr *ret);

/* Mapped IPv4 is printed as IPv4. Return buf. */
char *address_format(const struct weft_addr *a, char *buf, size_t size);
char *prefix_format(const struct weft_prefix *p, char *buf, size_t size);

/* Lists: items are added at the end, memory is the list's. 0 or -ENOMEM. */
int addresses_add(struct weft_addresses *list, const struct weft_addr *a);
bool addresses_have(const struct weft_addresses *list, const struct weft_addr *a);
int prefixes_add(struct weft_prefixes *list, const struct weft_prefix *p);

/* Prefixes that are known by one name ("rfc1918"): adds them all, or -ENOENT. */
int prefixes_add_set(struct weft_prefixes *list, const char *name);
struct nearest;
void prefix_sets_near(struct nearest *n);

/* Makes room for one more item behind the n that are there, growing at powers of two. 0 or -ENOMEM.
 */
int list_grow(void *items, size_t n, size_t item_size);
