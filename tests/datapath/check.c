/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include "check.h"

static void start(struct shape *s)
{
        if (s->proto == IPPROTO_TCP) {
                s->flags = SYN;
                s->seq = 1000;
        } else {
                s->payload = 32;
        }
}

struct shape from_outside(int family, uint8_t proto, enum who src, uint16_t sport, enum who dst,
                          uint16_t dport)
{
        struct shape s = { .smac = mac_of(src),
                           .dmac = mac_of(NODE),
                           .src = at(family, src),
                           .dst = at(family, dst),
                           .proto = proto,
                           .sport = sport,
                           .dport = dport,
                           .id = 77,
                           .label = 0x12345 };

        start(&s);
        return s;
}

struct shape from_pod(int family, uint8_t proto, enum who pod, uint16_t sport, enum who dst,
                      uint16_t dport)
{
        struct shape s = { .smac = mac_of(pod),
                           .dmac = gateway_mac(pod),
                           .src = at(family, pod),
                           .dst = at(family, dst),
                           .proto = proto,
                           .sport = sport,
                           .dport = dport,
                           .id = 78,
                           .label = 0x12346 };

        start(&s);
        return s;
}

struct shape echo(int family, enum who from, enum who to, uint16_t identifier)
{
        bool pod = from == POD || from == POD2;
        struct shape s = pod ? from_pod(family, IPPROTO_ICMP, from, 0, to, 0)
                             : from_outside(family, IPPROTO_ICMP, from, 0, to, 0);

        shape_icmp(&s, ICMP_IS_ECHO);
        s.rest = (uint32_t) identifier << 16 | 1;
        return s;
}

struct shape answer(const struct shape *s)
{
        struct shape a = *s;
        bool syn = s->proto == IPPROTO_TCP && s->flags == SYN;

        a.smac = s->dmac;
        a.dmac = s->smac;
        a.src = s->dst;
        a.dst = s->src;
        a.sport = s->dport;
        a.dport = s->sport;
        a.ttl = 0;
        a.id = s->id + 1000;
        a.flags = syn ? SYN | ACK : s->flags;
        a.seq = s->ack ?: 5000;
        a.ack = s->proto == IPPROTO_TCP ? s->seq + syn : 0;
        if (s->proto == IPPROTO_ICMP || s->proto == IPPROTO_ICMPV6)
                shape_icmp(&a, ICMP_IS_REPLY);
        return a;
}

struct shape as_answer_to(const struct shape *s, struct shape r)
{
        r.src = s->dst;
        r.dst = s->src;
        r.sport = s->dport;
        r.dport = s->sport;
        return r;
}

struct shape later(const struct shape *s, uint8_t flags)
{
        struct shape l = *s;

        l.flags = flags;
        l.seq = s->seq + 1;
        l.ack = 5001;
        l.payload = 100;
        l.id++;
        return l;
}

struct shape sent(struct shape s, enum who to)
{
        s.smac = mac_of(NODE);
        s.dmac = mac_of(to);
        s.ttl = (s.ttl ?: 64) - 1;
        return s;
}

struct shape delivered(struct shape s, enum who pod)
{
        s.smac = gateway_mac(pod);
        s.dmac = mac_of(pod);
        s.ttl = (s.ttl ?: 64) - 1;
        return s;
}

static void compare(const struct outcome *o, int verdict, const struct packet *want,
                    const char *file, int line)
{
        char text[2048];
        const char *why = "";
        struct layout l;

        cr_assert(o->error == 0, "%s:%d: the run failed: %s", file, line, strerror(-o->error));
        cr_expect(o->verdict == verdict, "%s:%d: verdict: want %d, got %d", file, line, verdict,
                  o->verdict);
        packet_diff(want, &o->out, text, sizeof(text));
        cr_expect(text[0] == '\0', "%s:%d: packet:\n%s", file, line, text);
        cr_expect(!packet_layout(want, &l) || packet_valid(&o->out, &why), "%s:%d: wrong %s", file,
                  line, why);
        cr_assert(o->verdict == verdict && text[0] == '\0');
}

struct outcome expect_packets(struct world *w, struct place place, const struct skb *skb,
                              const struct packet *in, int verdict, const struct packet *want,
                              const char *file, int line)
{
        struct skb with = skb ? *skb : (struct skb) {};
        struct outcome o;

        with.device = place.device;
        o = world_run(w, place.hook, &with, in);
        compare(&o, verdict, want, file, line);
        return o;
}

void expect_drop(struct world *w, struct place place, const struct packet *in,
                 enum weft_drop reason, const char *name, const char *file, int line)
{
        uint64_t before = world_drops(w, reason, place.hook), all = world_all_drops(w);
        struct outcome o = world_run(w, place.hook, &(struct skb) { .device = place.device }, in);

        cr_assert(o.error == 0, "%s:%d: the run failed: %s", file, line, strerror(-o.error));
        cr_expect(o.verdict == SHOT, "%s:%d: verdict: want a drop, got %d", file, line, o.verdict);
        cr_expect(world_all_drops(w) - all <= 1, "%s:%d: counted more than once", file, line);
        cr_assert(world_drops(w, reason, place.hook) - before == 1, "%s:%d: not counted as %s",
                  file, line, name);
}

struct outcome run(struct world *w, struct place place, const struct shape *in)
{
        struct packet p = packet_build(in);
        struct outcome o = world_run(w, place.hook, &(struct skb) { .device = place.device }, &p);

        cr_assert(o.error == 0, "the run failed: %s", strerror(-o.error));
        return o;
}
