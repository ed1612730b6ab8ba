/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How the tests say what they expect. */

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>

#include "packet.h"
#include "util.h"
#include "world.h"

/* BOTH(suite, a_sentence) { … }: one test for each family; the body gets `family`. */
#define BOTH(suite, sentence)                                                                      \
        static void suite##_##sentence(int family);                                                \
        Test(suite, sentence##_over_ipv4)                                                          \
        {                                                                                          \
                suite##_##sentence(AF_INET);                                                       \
        }                                                                                          \
        Test(suite, sentence##_over_ipv6)                                                          \
        {                                                                                          \
                suite##_##sentence(AF_INET6);                                                      \
        }                                                                                          \
        static void suite##_##sentence(int family)

/* Where a packet is run. */
struct place {
        enum weft_hook hook;
        enum device device;
};

static const struct place FROM_UPLINK = { WEFT_FROM_UPLINK, UPLINK };
static const struct place TO_UPLINK = { WEFT_TO_UPLINK, UPLINK };
static const struct place FROM_POD = { WEFT_FROM_ENDPOINT, EP0 };
static const struct place TO_POD = { WEFT_TO_ENDPOINT, EP0 };
static const struct place XDP = { WEFT_XDP_UPLINK, UPLINK };

#define MARK 0x100u /* [weft] mark-mask of the world */

/* ---- packets that arrive ------------------------------------------------------------------ */

/* TCP with SYN, or UDP with some payload, from somebody outside, as the node's uplink gets it. */
struct shape from_outside(int family, uint8_t proto, enum who src, uint16_t sport, enum who dst,
                          uint16_t dport);
/* The same as the host's side of POD's or POD2's device receives it. */
struct shape from_pod(int family, uint8_t proto, enum who pod, uint16_t sport, enum who dst,
                      uint16_t dport);
/* An echo request of `from` (a pod: from its device; else from outside). */
struct shape echo(int family, enum who from, enum who to, uint16_t identifier);

/* What answers a packet with the shape of S: turned round, SYN + ACK for a SYN, a reply for an echo
 * request; arrives at the uplink from S's next hop, or at the pod's device from the pod. */
struct shape answer(const struct shape *s);

/* The reply R as the one who sent S must see it: from where S went, to where S came from. */
struct shape as_answer_to(const struct shape *s, struct shape r);
/* The rest of a connection that began with the SYN S. */
struct shape later(const struct shape *s, uint8_t flags);

/* ---- packets that leave ------------------------------------------------------------------- */

/* S as the uplink sends it towards somebody: one hop further, link-layer addresses of that way. */
struct shape sent(struct shape s, enum who to);
/* S as a pod gets it past the host's stack. */
struct shape delivered(struct shape s, enum who pod);

/* ---- running and comparing ---------------------------------------------------------------- */

/* Runs IN and expects the verdict and exactly WANT, with valid checksums; returns the outcome. The
 * pointers may be to a shape or to a packet: */
struct outcome expect_packets(struct world *w, struct place place, const struct skb *skb,
                              const struct packet *in, int verdict, const struct packet *want,
                              const char *file, int line);

static inline struct packet to_packet_of_shape(const struct shape *s)
{
        return packet_build(s);
}

static inline struct packet to_packet_of_packet(const struct packet *p)
{
        return *p;
}

#define TO_PACKET(x)                                                                               \
        _Generic((x),                                                                              \
                 struct shape *: to_packet_of_shape,                                               \
                 const struct shape *: to_packet_of_shape,                                         \
                 struct packet *: to_packet_of_packet,                                             \
                 const struct packet *: to_packet_of_packet)(x)

#define expect_with(w, place, skb, in, verdict, want)                                              \
        ({                                                                                         \
                struct packet _in = TO_PACKET(in), _want = TO_PACKET(want);                        \
                expect_packets(w, place, skb, &_in, verdict, &_want, __FILE__, __LINE__);          \
        })

/* expect(world, place, in, verdict, want) */
#define expect(w, place, in, verdict, want) expect_with(w, place, NULL, in, verdict, want)

/* The packet goes on to the stack as it came. */
#define expect_untouched(w, place, in) expect(w, place, in, NEXT, in)

/* The packet is dropped, for this reason at this hook, once. */
#define expect_dropped(w, place, in, reason)                                                       \
        ({                                                                                         \
                struct packet _in = TO_PACKET(in);                                                 \
                expect_drop(w, place, &_in, WEFT_DROP_##reason, #reason, __FILE__, __LINE__);      \
        })
void expect_drop(struct world *w, struct place place, const struct packet *in,
                 enum weft_drop reason, const char *name, const char *file, int line);

/* Runs a packet of this shape; any verdict. */
struct outcome run(struct world *w, struct place place, const struct shape *in);

/* The flow that a packet of this shape would find; fails the test where there is none. */
#define flow_at(w, s, side)                                                                        \
        ({                                                                                         \
                struct flow _f;                                                                    \
                cr_assert(world_flow(w, s, WEFT_SIDE_##side, &_f), "no flow for this packet");     \
                _f;                                                                                \
        })
