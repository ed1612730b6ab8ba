/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* rtnetlink by libnl: one request at a time on a socket of its own, with the kernel's own errno and
 * its own words (extended acknowledgement). Inside core/net only. */

#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/values.h"
#include "error.h"
#include "net/net.h"
#include "util.h"

/* Opens a request socket in the network namespace this thread is in. */
int rtnl_open(struct nl_sock **ret, struct weft_error *reterr);
/* Of another protocol than rtnetlink: NETLINK_NETFILTER. */
int rtnl_open_protocol(int protocol, struct nl_sock **ret, struct weft_error *reterr);
/* An rtnetlink one in the namespace of an open nsfs file; the thread is back in its own on return.
 */
int rtnl_open_in(int ns_fd, struct nl_sock **ret, struct weft_error *reterr);

static inline void rtnl_closep(struct nl_sock **s)
{
        nl_socket_free(*s);
}

#define _cleanup_rtnl_ _cleanup_(rtnl_closep)

/* A request with its fixed part; NULL when out of memory, which everything below accepts. */
struct nl_msg *rtnl_new(int type, int flags, const void *head, size_t size);
void rtnl_put(struct nl_msg *m, int attribute, const void *data, size_t size);
void rtnl_put_u32(struct nl_msg *m, int attribute, uint32_t value);
void rtnl_put_string(struct nl_msg *m, int attribute, const char *text);
/* An address in its family's size. */
void rtnl_put_address(struct nl_msg *m, int attribute, const struct weft_addr *a);
/* Everything put until rtnl_end() lies inside the attribute; NULL when out of memory. */
struct nlattr *rtnl_begin(struct nl_msg *m, int attribute);
void rtnl_end(struct nl_msg *m, struct nlattr *nest);

typedef void (*rtnl_answer_fn)(void *data, const struct nlmsghdr *h);

/* Sends the request, frees it, and calls f (may be NULL) for each message of the answer, once all
 * of it is read: f may use the socket. A dump the kernel calls inconsistent is asked for again.
 * 0 or the kernel's errno with its reason. */
int rtnl_ask(struct nl_sock *s, struct nl_msg *m, rtnl_answer_fn f, void *data,
             struct weft_error *reterr);

/* ---- addresses ---------------------------------------------------------------------------- */

int address_family(const struct weft_addr *a); /* AF_INET or AF_INET6 */
/* Length of an address as a mapped prefix in its own family: 32 or 128. */
uint8_t address_bits(const struct weft_addr *a);
/* From an attribute of 4 or 16 bytes; zero otherwise. */
struct weft_addr address_of(const struct nlattr *a);

/* Attributes of a message behind a fixed part of `head` bytes; absent ones are NULL. */
void rtnl_parse(const struct nlmsghdr *h, size_t head, struct nlattr **table, int max);

/* ---- links (link.c) ----------------------------------------------------------------------- */

struct link_info {
        struct net_link link;
        uint32_t peer;   /* ifindex of a veth's other end; 0: none */
        int32_t netnsid; /* where that is, as this namespace numbers it; -1: here */
        char alias[128];
        uint32_t group;
};

/* False: no link message, or one about a bridge's port. */
bool link_parse(const struct nlmsghdr *h, struct link_info *ret);
/* name NULL: by index. -ENODEV. */
int link_get(struct nl_sock *s, const char *name, uint32_t ifindex, struct link_info *ret,
             struct weft_error *reterr);
int links_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr);
int link_up(struct nl_sock *s, uint32_t ifindex, struct weft_error *reterr);
int link_set_mtu(struct nl_sock *s, uint32_t ifindex, uint32_t mtu, struct weft_error *reterr);
int link_delete(struct nl_sock *s, uint32_t ifindex, struct weft_error *reterr);
int link_set_group(struct nl_sock *s, uint32_t ifindex, uint32_t group, struct weft_error *reterr);
/* Every link of the group. */
int links_delete(struct nl_sock *s, uint32_t group, struct weft_error *reterr);

/* ---- addresses and neighbours of one device (address.c) ----------------------------------- */

struct address_info {
        uint32_t ifindex;
        struct weft_addr addr;
        uint8_t bits, scope;
        uint32_t flags; /* IFA_F_* */
};

bool address_parse_message(const struct nlmsghdr *h, struct address_info *ret);
int addresses_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr);
/* Makes the device's /32 and /128 addresses of global scope be exactly these. */
int addresses_set(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *addrs, size_t n,
                  struct weft_error *reterr);

struct neighbour_info {
        uint32_t ifindex;
        struct weft_addr addr;
        uint16_t state;
        uint8_t mac[6];
};

/* False: no neighbour message, or one without an Ethernet address. */
bool neighbour_parse(const struct nlmsghdr *h, struct neighbour_info *ret);
int neighbours_each(struct nl_sock *s, rtnl_answer_fn f, void *data, struct weft_error *reterr);
/* Makes the device's permanent neighbours be exactly these, all with that link-layer address. */
int neighbours_set(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *addrs, size_t n,
                   const uint8_t mac[6], struct weft_error *reterr);

/* One permanent neighbour, beside others. */
int neighbour_add(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *a,
                  const uint8_t mac[6], struct weft_error *reterr);
void neighbour_delete(struct nl_sock *s, uint32_t ifindex, const struct weft_addr *a);

/* ---- routes (route.c) --------------------------------------------------------------------- */

struct route {
        struct weft_prefix dst;
        struct weft_addr gateway; /* zero: none */
        struct weft_addr src;     /* of the node's own packets; zero: as the kernel chooses */
        uint32_t ifindex, mtu, table;
        uint8_t protocol, type;
        bool onlink; /* the gateway need not be on a network of the interface */
};

bool route_parse(const struct nlmsghdr *h, struct route *ret);
bool route_equal(const struct route *a, const struct route *b); /* but table, protocol and type */
bool prefix_equal(const struct weft_prefix *a, const struct weft_prefix *b);
/* Unicast routes of the main table. */
int routes_each(struct nl_sock *s,
                void (*f)(void *data, const struct route *r, const struct nlmsghdr *h), void *data,
                struct weft_error *reterr);
/* The route of any table that the prefix's first address takes, as it stands there. */
int route_covering(struct nl_sock *s, const struct weft_prefix *dst, struct route *ret);
/* Writes a route of weft's into the main table. replace: ours for the same prefix is there. */
int route_add(struct nl_sock *s, const struct route *r, bool replace, struct weft_error *reterr);
int route_delete(struct nl_sock *s, const struct weft_prefix *dst, struct weft_error *reterr);

/* The request socket of the daemon's own namespace (monitor.c). */
struct nl_sock *net_socket(struct net *n);
