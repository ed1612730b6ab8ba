/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "kinds.h"

#define MARK 0x0100u /* mark-mask of the world */

const struct kind kinds[] = {
        { "host packet that is none of weft's", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE,
          40000, 22, false, VARY_NONE, NEXT },
        { "packet of the node itself, leaving", WEFT_TO_UPLINK, WEFT_FROM_UPLINK, NODE, WORLD,
          40000, 443, false, VARY_NONE, NEXT },
        { "redirected packet, leaving", WEFT_TO_UPLINK, WEFT_FROM_UPLINK, NODE, WORLD, 40000, 443,
          false, VARY_NONE, NEXT, true },
        { "NodePort, SNAT, to the backend", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE, 61234,
          NODE_PORT, false, VARY_SRC, REDIRECT },
        { "NodePort, SNAT, reply", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE, 61234,
          NODE_PORT, true, VARY_SRC, REDIRECT },
        { "NodePort, local endpoint", WEFT_FROM_UPLINK, WEFT_FROM_ENDPOINT, CLIENT, NODE, 40000,
          LOCAL_PORT, false, VARY_SRC, REDIRECT },
        { "NodePort, local endpoint, reply", WEFT_FROM_UPLINK, WEFT_FROM_ENDPOINT, CLIENT, NODE,
          40000, LOCAL_PORT, true, VARY_DST, REDIRECT },
        { "masquerade", WEFT_FROM_ENDPOINT, WEFT_FROM_UPLINK, POD, WORLD, 61234, 443, false,
          VARY_DST, REDIRECT },
        { "masquerade, reply to the endpoint", WEFT_FROM_ENDPOINT, WEFT_FROM_UPLINK, POD, WORLD,
          61234, 443, true, VARY_SRC, REDIRECT },
        { "endpoint to endpoint", WEFT_FROM_ENDPOINT, WEFT_FROM_ENDPOINT, POD, POD2, 40000, 80,
          false, VARY_NONE, REDIRECT },
        { "endpoint to endpoint, answer", WEFT_FROM_ENDPOINT, WEFT_FROM_ENDPOINT, POD, POD2, 40000,
          80, true, VARY_NONE, REDIRECT },
        { "endpoint to another node's", WEFT_FROM_ENDPOINT, WEFT_FROM_UPLINK, POD, REMOTE_POD,
          40000, 80, false, VARY_DST, REDIRECT },
        { "TRACK, delivery to an endpoint", WEFT_FROM_UPLINK, WEFT_FROM_ENDPOINT, CLIENT, POD,
          40000, 80, false, VARY_SRC, REDIRECT },
        { "TRACK, answer of an endpoint", WEFT_FROM_UPLINK, WEFT_FROM_ENDPOINT, CLIENT, POD, 40000,
          80, true, VARY_DST, REDIRECT },
        { "first packet, NodePort, SNAT", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE, 61000,
          NODE_PORT, false, VARY_NEW, REDIRECT },
        { "NodePort, SNAT, to the backend, XDP", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE,
          61234, NODE_PORT, false, VARY_SRC, XDP_REDIRECTED },
        { "NodePort, SNAT, reply, XDP", WEFT_FROM_UPLINK, WEFT_FROM_UPLINK, CLIENT, NODE, 61234,
          NODE_PORT, true, VARY_SRC, XDP_REDIRECTED },
};
const size_t n_kinds = sizeof(kinds) / sizeof(kinds[0]);

const struct way ways[] = {
        { "pod to pod on one node", { "endpoint to endpoint" }, 80, 757 },
        { "pod to pod on one node, answer", { "endpoint to endpoint, answer" }, 80, 757 },
        { "pod to a remote pod",
          { "endpoint to another node's", "redirected packet, leaving" },
          110,
          541 },
        { "NodePort, local backend", { "NodePort, local endpoint" }, 100, 572 },
        { "NodePort, local backend, reply",
          { "NodePort, local endpoint, reply", "redirected packet, leaving" },
          100,
          416 },
};
const size_t n_ways = sizeof(ways) / sizeof(ways[0]);

const struct kind *kind_named(const char *name)
{
        for (size_t i = 0; i < n_kinds; i++)
                if (strcmp(kinds[i].name, name) == 0)
                        return &kinds[i];

        return NULL;
}

/* ---- one connection ----------------------------------------------------------------------- */

static bool complain(const struct kind *k, const char *what)
{
        fprintf(stderr, "bench: %s: %s\n", k->name, what);
        return false;
}

/* The endpoint that sends the packet. */
static enum who sender(const struct shape *s)
{
        struct weft_addr second = at(shape_family(s), POD2);

        return memcmp(&s->src, &second, sizeof(second)) == 0 ? POD2 : POD;
}

static enum device device_of(const struct shape *s, enum weft_hook hook)
{
        return hook != WEFT_FROM_ENDPOINT ? UPLINK : sender(s) == POD ? EP0 : EP1;
}

/* Link-layer addresses of a packet that arrives at a hook. */
static struct shape arrive(struct shape s, enum weft_hook hook)
{
        bool inside = hook == WEFT_FROM_ENDPOINT;

        s.smac = mac_of(inside ? sender(&s) : ROUTER);
        s.dmac = inside ? gateway_mac(sender(&s)) : mac_of(NODE);
        return s;
}

static struct shape opener(const struct kind *k, int family, uint8_t flags)
{
        return arrive((struct shape) { .src = at(family, k->from),
                                       .dst = at(family, k->to),
                                       .proto = IPPROTO_TCP,
                                       .sport = k->sport,
                                       .dport = k->dport,
                                       .flags = flags },
                      k->hook);
}

static enum weft_side side_of(enum weft_hook hook)
{
        return hook == WEFT_FROM_ENDPOINT ? WEFT_SIDE_INSIDE : WEFT_SIDE_UPLINK;
}

void believe_next_hops(struct world *w)
{
        int fd = tables_fd(w->tables, "nexthops");
        struct weft_nexthop n;

        for (uint32_t i = WEFT_NEXTHOP_OWN; i < WEFT_NEXTHOPS; i++)
                if (bpf_map_lookup_elem(fd, &i, &n) == 0 && n.ifindex) {
                        n.fresh = INT64_MAX;
                        (void) bpf_map_update_elem(fd, &i, &n, BPF_ANY);
                }
}

/* What the other end sends back: the translated tuple turned round. */
static bool answer_of(struct world *w, const struct kind *k, int family, uint8_t flags,
                      struct shape *ret)
{
        struct shape s = opener(k, family, SYN);
        struct flow f;

        if (!world_flow(w, &s, side_of(k->hook), &f))
                return complain(k, "the first packet left no flow");

        *ret = arrive((struct shape) { .src = f.new_dst,
                                       .dst = f.new_src,
                                       .proto = IPPROTO_TCP,
                                       .sport = f.new_dport,
                                       .dport = f.new_sport,
                                       .flags = flags },
                      k->answer_hook);
        return true;
}

static bool send_shape(struct world *w, const struct kind *k, enum weft_hook hook,
                       const struct shape *s)
{
        struct skb skb = { .device = device_of(s, hook) };
        struct packet p = packet_build(s);
        struct outcome o = world_run(w, hook, &skb, &p);

        return o.error || o.verdict != REDIRECT ? complain(k, "a packet was not forwarded") : true;
}

static bool handshake(struct world *w, const struct kind *k, int family)
{
        struct shape syn = opener(k, family, SYN), ack = opener(k, family, ACK), reply;

        return send_shape(w, k, k->hook, &syn) && answer_of(w, k, family, SYN | ACK, &reply) &&
               send_shape(w, k, k->answer_hook, &reply) && send_shape(w, k, k->hook, &ack) &&
               answer_of(w, k, family, ACK, &reply) && send_shape(w, k, k->answer_hook, &reply);
}

static void make_ready(struct world *w, const struct kind *k, const struct shape *s,
                       struct ready *ret)
{
        enum weft_hook hook = k->answer ? k->answer_hook : k->hook;

        *ret = (struct ready) {
                .packet = packet_build(s),
                .hook = k->verdict == XDP_REDIRECTED ? WEFT_XDP_UPLINK : hook,
                .ifindex = w->ifindex[device_of(s, hook)],
                .is = { .src = s->src,
                        .dst = s->dst,
                        .sport = htons(s->sport),
                        .dport = htons(s->dport),
                        .family = shape_family(s) == AF_INET ? 4 : 6,
                        .mark = k->marked ? MARK : 0 },
        };
}

bool kind_establish(struct world *w, const struct kind *k, int family, struct ready *ret)
{
        struct shape s = opener(k, family, k->vary == VARY_NEW ? SYN : ACK);

        if (k->verdict != NEXT && k->vary != VARY_NEW && !handshake(w, k, family))
                return false;
        if (k->answer && !answer_of(w, k, family, ACK, &s))
                return false;

        believe_next_hops(w);
        make_ready(w, k, &s, ret);
        return true;
}

/* ---- 64 K copies -------------------------------------------------------------------------- */

static void empty(int fd, size_t key_size)
{
        unsigned char key[64], next[64];
        bool more = bpf_map_get_next_key(fd, NULL, key) == 0;

        while (more) {
                more = bpf_map_get_next_key(fd, key, next) == 0;
                (void) bpf_map_delete_elem(fd, key);
                memcpy(key, next, key_size);
        }
}

void forget_flows(struct world *w)
{
        empty(tables_fd(w->tables, "flows4"), sizeof(struct weft_key4));
        empty(tables_fd(w->tables, "flows6"), sizeof(struct weft_key6));
}

/* One's-complement difference when one word takes the place of another. */
static uint16_t difference(uint32_t from, uint32_t to)
{
        uint32_t sum = (~from & 0xffff) + (~from >> 16) + (to & 0xffff) + (to >> 16);

        sum = (sum & 0xffff) + (sum >> 16);
        return (sum & 0xffff) + (sum >> 16);
}

static uint16_t add(uint16_t a, uint16_t b)
{
        uint32_t sum = (uint32_t) a + b;

        return (sum & 0xffff) + (sum >> 16);
}

/* Gives the copy another address in its key. Where the plan keeps the address, the translated one
 * is the same; where it changes it, the ready differences are other ones. */
static void readdress(struct weft_flow *f, __be32 *key_word, __be32 *new_word, uint32_t n)
{
        __be32 old = *key_word, word = (old & htonl(0xffff0000)) | htonl(n);
        uint16_t delta = difference(word, old);

        *key_word = word;
        if (*new_word == old) {
                *new_word = word;
                return;
        }

        f->addr_delta = add(f->addr_delta, delta);
        f->l4_delta = add(f->l4_delta, delta);
}

static int copy4(int fd, int bare_fd, const struct weft_flow4 *flow, bool vary_src, uint32_t n)
{
        struct weft_flow4 f = *flow;
        struct bare_flow b = { .ifindex = 1 };
        struct weft_key4 key;

        readdress(&f.f, vary_src ? &f.key.saddr : &f.key.daddr, vary_src ? &f.saddr : &f.daddr, n);
        b.saddr.w[3] = f.saddr;
        b.daddr.w[3] = f.daddr;
        b.sport = f.f.sport;
        b.dport = f.f.dport;
        b.addr_delta = f.f.addr_delta;
        b.l4_delta = f.f.l4_delta;
        key = f.key;
        key.side = 0;

        return bpf_map_update_elem(fd, &f.key, &f, BPF_ANY)
                       ?: bpf_map_update_elem(bare_fd, &key, &b, BPF_ANY);
}

static int copy6(int fd, int bare_fd, const struct weft_flow6 *flow, bool vary_src, uint32_t n)
{
        struct weft_flow6 f = *flow;
        struct bare_flow b = { .ifindex = 1 };
        struct weft_key6 key;

        readdress(&f.f, vary_src ? &f.key.saddr.w[3] : &f.key.daddr.w[3],
                  vary_src ? &f.saddr.w[3] : &f.daddr.w[3], n);
        b.saddr = f.saddr;
        b.daddr = f.daddr;
        b.sport = f.f.sport;
        b.dport = f.f.dport;
        b.addr_delta = f.f.addr_delta;
        b.l4_delta = f.f.l4_delta;
        key = f.key;
        key.side = 0;

        return bpf_map_update_elem(fd, &f.key, &f, BPF_ANY)
                       ?: bpf_map_update_elem(bare_fd, &key, &b, BPF_ANY);
}

static int find4(int fd, const struct restored *is, uint8_t side, struct weft_flow4 *ret)
{
        struct weft_key4 key = { .saddr = is->src.w[3],
                                 .daddr = is->dst.w[3],
                                 .sport = is->sport,
                                 .dport = is->dport,
                                 .proto = IPPROTO_TCP,
                                 .side = side };

        return bpf_map_lookup_elem(fd, &key, ret);
}

static int find6(int fd, const struct restored *is, uint8_t side, struct weft_flow6 *ret)
{
        struct weft_key6 key = { .saddr = is->src,
                                 .daddr = is->dst,
                                 .sport = is->sport,
                                 .dport = is->dport,
                                 .proto = IPPROTO_TCP,
                                 .side = side };

        return bpf_map_lookup_elem(fd, &key, ret);
}

bool kind_multiply(struct world *w, const struct kind *k, int family, const struct ready *r,
                   int bare_fd)
{
        bool four = family == AF_INET, src = k->vary == VARY_SRC;
        uint8_t side = side_of(k->answer ? k->answer_hook : k->hook);
        int error, fd = tables_fd(w->tables, four ? "flows4" : "flows6");
        struct weft_flow4 flow4 = {};
        struct weft_flow6 flow6 = {};

        error = four ? find4(fd, &r->is, side, &flow4) : find6(fd, &r->is, side, &flow6);
        if (error)
                return complain(k, "the measured direction left no flow");

        forget_flows(w);
        empty(bare_fd, four ? sizeof(struct weft_key4) : sizeof(struct weft_key6));
        for (uint32_t n = 0; !error && n < FLOWS; n++)
                error = four ? copy4(fd, bare_fd, &flow4, src, n)
                             : copy6(fd, bare_fd, &flow6, src, n);

        return error ? complain(k, "64 K flows do not fit") : true;
}
