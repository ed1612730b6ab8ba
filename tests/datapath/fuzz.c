/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random packets through every hook of the loaded programs: packets that make sense, answers to
 * what came out, errors about it, fragments of it, and all of these damaged. Whatever goes in, the
 * verdict is one of the known ones; what was a valid packet leaves as a valid packet; flow entries
 * are in pairs. The seed is printed; given back with --seed it repeats the packets, as far as they
 * do not answer what the programs chose at random. */

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "names.h"

#define MEMORY 64       /* packets that were seen lately */
#define CENSUS 8192     /* packets between two looks at the flow tables */
#define FLOWS_MAX 30000 /* start anew before the tables are full */

struct fuzz {
        struct world *w;
        uint64_t seed, state;
        struct packet seen[MEMORY];
        struct place seen_at[MEMORY];
        size_t n_seen;
        uint64_t packets, valid, verdicts[4], refused, most_flows;
};

/* xorshift64*: repeatable everywhere. */
static uint32_t pick(struct fuzz *z, uint32_t n)
{
        z->state ^= z->state >> 12;
        z->state ^= z->state << 25;
        z->state ^= z->state >> 27;
        return (uint32_t) ((z->state * 0x2545f4914f6cdd1dULL) >> 32) % n;
}

static bool chance(struct fuzz *z, uint32_t one_in)
{
        return pick(z, one_in) == 0;
}

#define ANY(z, list) (list)[pick(z, ELEMENTS(list))]

/* ---- packets that make sense -------------------------------------------------------------- */

static uint8_t a_protocol(struct fuzz *z)
{
        static const uint8_t protocols[] = { IPPROTO_TCP, IPPROTO_TCP,  IPPROTO_TCP,  IPPROTO_UDP,
                                             IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_SCTP, IPPROTO_GRE };

        return ANY(z, protocols);
}

static uint16_t a_port(struct fuzz *z)
{
        static const uint16_t ports[] = { NODE_PORT,    LOCAL_PORT,   EMPTY_PORT,
                                          SILENT_PORT,  SERVICE_PORT, LOCAL_SERVICE_PORT,
                                          BACKEND_PORT, 22,           0,
                                          SNAT_LOW,     SNAT_HIGH };

        return chance(z, 4) ? SNAT_LOW + pick(z, 50) : ANY(z, ports);
}

static struct place a_place(struct fuzz *z)
{
        static const struct place places[] = {
                { WEFT_FROM_UPLINK, UPLINK }, { WEFT_FROM_UPLINK, UPLINK },
                { WEFT_FROM_ENDPOINT, EP0 },  { WEFT_FROM_ENDPOINT, EP1 },
                { WEFT_TO_UPLINK, UPLINK },   { WEFT_TO_ENDPOINT, EP0 },
                { WEFT_XDP_UPLINK, UPLINK },
        };

        return ANY(z, places);
}

static const uint8_t options4[] = { 68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0 };

/* Options, or extension headers that end in the protocol. */
static void add_options(struct fuzz *z, struct shape *s, uint8_t chain[24])
{
        if (shape_family(s) == AF_INET) {
                s->options = options4;
                s->n_options = sizeof(options4);
                return;
        }
        memset(chain, 0, 24);
        memcpy(chain, (uint8_t[]) { IPPROTO_DSTOPTS, 0, 1, 4 }, 4);
        memcpy(chain + 8, (uint8_t[]) { s->proto, 1, 1, 12 }, 4);
        s->options = chain;
        s->n_options = 24;
        s->extension = chance(z, 2) ? IPPROTO_HOPOPTS : IPPROTO_ROUTING;
}

static void set_addresses(struct fuzz *z, const struct place *place, int family, struct shape *s)
{
        static const enum who outside[] = { CLIENT, WORLD, PRIVATE, REMOTE_POD, NODE2, ROUTER };
        static const enum who ours[] = { NODE, NODE, EXTERNAL, SECOND, POD, POD2, NOBODY };

        s->src = at(family, ANY(z, outside));
        s->dst = at(family, chance(z, 20) ? (enum who) pick(z, WHO) : ANY(z, ours));
        s->dmac = mac_of(NODE);
        s->smac = mac_of(ROUTER);
        if (place->hook == WEFT_FROM_ENDPOINT) {
                enum who pod = place->device == EP0 ? POD : POD2;

                s->src = at(family, pod);
                s->dst = at(family, (enum who) pick(z, WHO));
                s->dmac = gateway_mac(pod);
        }
        if (place->hook == WEFT_TO_UPLINK && chance(z, 2)) {
                s->src = at(family, NODE);
                s->dst = at(family, ANY(z, outside));
        }
        if (chance(z, 50))
                s->src = at(family, (enum who) pick(z, WHO));
}

static void set_icmp(struct fuzz *z, struct shape *s)
{
        static const enum icmp_kind kinds[] = { ICMP_IS_ECHO, ICMP_IS_ECHO, ICMP_IS_REPLY };

        shape_icmp(s, ANY(z, kinds));
        s->rest = pick(z, 8) << 16 | 1;
}

static struct packet a_packet(struct fuzz *z, const struct place *place)
{
        static const uint8_t flags[] = { SYN, SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST, 0xff, 0 };
        static const uint8_t hops[] = { 64, 64, 64, 2, 1, 255 };
        int family = chance(z, 2) ? AF_INET : AF_INET6;
        struct shape s = { .proto = a_protocol(z), .sport = a_port(z), .dport = a_port(z) };
        uint8_t chain[24];

        set_addresses(z, place, family, &s);
        s.ttl = ANY(z, hops);
        s.flags = ANY(z, flags);
        s.seq = pick(z, 1000);
        s.payload = chance(z, 30) ? 1600 : pick(z, 64);
        s.df = chance(z, 2);
        s.no_checksum = family == AF_INET && chance(z, 8);
        if (s.proto == IPPROTO_ICMP)
                set_icmp(z, &s);
        if (chance(z, 8))
                add_options(z, &s, chain);
        return packet_build(&s);
}

/* ---- packets about what was seen ---------------------------------------------------------- */

/* The first bytes of the packets that the shape describes, from what is in a packet. */
static bool shape_of(const struct packet *p, struct shape *ret)
{
        struct layout l;

        if (!packet_layout(p, &l) || l.later || l.l4 + 8 > p->len)
                return false;
        *ret = (struct shape) { .proto = l.proto };
        if (l.family == AF_INET) {
                ret->src.w[2] = ret->dst.w[2] = htonl(0xffff);
                memcpy(&ret->src.w[3], p->data + l.ip + 12, 4);
                memcpy(&ret->dst.w[3], p->data + l.ip + 16, 4);
        } else {
                memcpy(&ret->src, p->data + l.ip + 8, 16);
                memcpy(&ret->dst, p->data + l.ip + 24, 16);
        }
        memcpy(ret->dmac.b, p->data, 6);
        memcpy(ret->smac.b, p->data + 6, 6);
        ret->sport = p->data[l.l4] << 8 | p->data[l.l4 + 1];
        ret->dport = p->data[l.l4 + 2] << 8 | p->data[l.l4 + 3];
        ret->type = p->data[l.l4];
        ret->rest = (uint32_t) p->data[l.l4 + 4] << 24 | p->data[l.l4 + 5] << 16 | 1;
        return shape_family(ret) == l.family;
}

/* Where the answer to a packet that was sent to this link-layer address comes in. */
static struct place place_of(const struct mac *m)
{
        for (enum who pod = POD; pod <= POD2; pod++)
                if (m->b[4] == mac_of(pod).b[4] && m->b[5] == mac_of(pod).b[5])
                        return (struct place) { WEFT_FROM_ENDPOINT, pod == POD ? EP0 : EP1 };
        return FROM_UPLINK;
}

static struct packet an_answer(struct fuzz *z, const struct packet *p, struct place *place)
{
        static const uint8_t flags[] = { SYN | ACK, ACK, ACK, FIN | ACK, RST };
        struct shape s, a;

        if (!shape_of(p, &s))
                return a_packet(z, place);
        *place = place_of(&s.dmac);
        a = answer(&s);
        a.flags = ANY(z, flags);
        return packet_build(&a);
}

static struct packet an_error(struct fuzz *z, const struct packet *p, struct place *place)
{
        static const size_t quotes[] = { 28, 48, 60, 0, 0 };
        struct shape s, e;

        if (!shape_of(p, &s))
                return a_packet(z, place);
        *place = place_of(&s.dmac);
        e = answer(&s);
        shape_icmp(&e, ICMP_IS_UNREACHABLE + pick(z, 3));
        e.rest = 1300;
        e.quote = p;
        e.quoted = ANY(z, quotes);
        e.payload = 0;
        e.ttl = chance(z, 10) ? 1 : 64;
        if (chance(z, 2))
                e.src = at(shape_family(&s), ROUTER);
        return p->len > 1500 ? *p : packet_build(&e);
}

static struct packet a_fragment(struct fuzz *z, const struct packet *p)
{
        struct layout l;
        size_t pieces;

        if (!packet_layout(p, &l) || l.fragment || l.end != p->len || l.end - l.l4 < 24 ||
            (l.family == AF_INET6 && l.l4 - l.ip != 40))
                return *p;
        pieces = (l.end - l.l4) / 8;
        return packet_fragment(p, pick(z, 3), chance(z, 2) ? 0 : pick(z, pieces) * 8,
                               8 + pick(z, pieces) * 8);
}

/* ---- damage ------------------------------------------------------------------------------- */

static void damage(struct fuzz *z, struct packet *p)
{
        switch (pick(z, 4)) {
        case 0:
                p->len = 15 + pick(z, p->len - 14);
                break;
        case 1:
                p->data[14 + pick(z, p->len - 14)] ^= 1 << pick(z, 8);
                break;
        case 2: /* the headers, where it hurts most */
                p->data[12 + pick(z, p->len - 12 < 60 ? p->len - 12 : 60)] = pick(z, 256);
                break;
        default:
                for (uint32_t i = pick(z, 16); i > 0; i--)
                        p->data[pick(z, p->len)] = pick(z, 256);
        }
}

static struct packet next_packet(struct fuzz *z, struct place *place)
{
        size_t which = z->n_seen ? pick(z, z->n_seen < MEMORY ? z->n_seen : MEMORY) : 0;
        const struct packet *seen = &z->seen[which];
        uint32_t choice = z->n_seen ? pick(z, 8) : 0;
        struct packet p;

        *place = a_place(z);
        if (choice < 3) {
                p = a_packet(z, place);
        } else if (choice < 5) {
                p = an_answer(z, seen, place);
        } else if (choice == 5) {
                p = an_error(z, seen, place);
        } else {
                *place = z->seen_at[which];
                p = choice == 6 ? a_fragment(z, seen) : *seen;
        }
        if (chance(z, 4))
                damage(z, &p);
        return p;
}

/* ---- judging ------------------------------------------------------------------------------ */

static void print_packet(const char *name, const struct packet *p)
{
        printf("%s (%zu): ", name, p->len);
        for (size_t i = 0; i < p->len; i++)
                printf("%02x", p->data[i]);
        printf("\n");
}

static bool broken(const struct fuzz *z, const struct place *place, const struct packet *in,
                   const struct outcome *o, const char *what)
{
        printf("packet %" PRIu64 " of seed %" PRIu64
               ", variant %d, hook %s, device %u, verdict %d: %s\n",
               z->packets, z->seed, z->w->variant, hook_names[place->hook], place->device, o->verdict,
               what);
        print_packet("in ", in);
        print_packet("out", &o->out);
        return false;
}

/* Index into fuzz.verdicts; -1: not a known one. */
static int verdict_index(enum weft_hook hook, int verdict)
{
        static const int tc[] = { NEXT, PASS, SHOT, REDIRECT }, xdp[] = { 2, 0, 1, 4 };

        for (int i = 0; i < 4; i++)
                if (verdict == (hook == WEFT_XDP_UPLINK ? xdp : tc)[i])
                        return i;
        return -1;
}

static bool judge(struct fuzz *z, const struct place *place, const struct packet *in,
                  const struct outcome *o)
{
        int verdict = verdict_index(place->hook, o->verdict);
        struct layout l;
        const char *why;

        if (o->error) {
                z->refused++;
                return true;
        }
        if (verdict < 0)
                return broken(z, place, in, o, "unknown verdict");
        z->verdicts[verdict]++;
        if (verdict == 2)
                return true;
        if (packet_layout(in, &l) && !packet_layout(&o->out, &l))
                return broken(z, place, in, o, "does not parse any more");
        if (!packet_valid(in, NULL))
                return true;
        z->valid++;
        return packet_valid(&o->out, &why) || broken(z, place, in, o, why);
}

static void remember(struct fuzz *z, const struct place *place, const struct packet *in,
                     const struct outcome *o)
{
        size_t slot = z->n_seen++ % MEMORY;
        bool out = !o->error && o->verdict == REDIRECT;

        z->seen[slot] = out ? o->out : *in;
        z->seen_at[slot] = out ? place_of((const struct mac *) o->out.data) : *place;
}

/* The world does not stand still either. */
static void stir(struct fuzz *z)
{
        struct weft_addr router = at(AF_INET, ROUTER);
        struct mac m = { { 2, 0, 0, 0, 1, pick(z, 4) } };

        switch (pick(z, 3)) {
        case 0:
                tables_move_epoch(z->w->tables);
                break;
        case 1:
                tables_neighbour(z->w->tables, z->w->ifindex[UPLINK], &router, m.b);
                break;
        default:
                world_set_services(z->w);
        }
}

static bool census(struct fuzz *z)
{
        size_t flows = world_flows(z->w, NULL, 0), orphans = world_orphans(z->w);

        z->most_flows = flows > z->most_flows ? flows : z->most_flows;
        if (orphans) {
                printf("packet %" PRIu64 " of seed %" PRIu64
                       ": %zu of %zu flow entries without partner\n",
                       z->packets, z->seed, orphans, flows);
                return false;
        }
        if (flows > FLOWS_MAX)
                world_forget(z->w);
        stir(z);
        return true;
}

static bool one(struct fuzz *z)
{
        struct place place;
        struct packet in = next_packet(z, &place);
        struct skb skb = { .device = place.device, .mark = chance(z, 20) ? MARK : 0 };
        struct outcome o = world_run(z->w, place.hook, &skb, &in);

        z->packets++;
        remember(z, &place, &in, &o);
        return judge(z, &place, &in, &o) && (z->packets % CENSUS || census(z));
}

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec + t.tv_nsec / 1e9;
}

static bool run_variant(struct fuzz *z, enum variant variant, double seconds)
{
        _cleanup_world_ struct world *w = world_open(variant);
        double end = now() + seconds;

        z->w = w;
        while (now() < end)
                for (int i = 0; i < 256; i++)
                        if (!one(z))
                                return false;
        return census(z);
}

/* Half of the time with all modules, the rest without host-routing, and with full tables. */
static bool run_for(struct fuzz *z, double seconds)
{
        return run_variant(z, FULL, seconds / 2) && run_variant(z, LEGACY, seconds / 4) &&
               run_variant(z, SMALL, seconds / 4);
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                { "seconds", required_argument, NULL, 't' },
                { "seed", required_argument, NULL, 's' },
                {},
        };
        struct fuzz *z = calloc(1, sizeof(*z));
        double seconds = 10;
        bool ok;
        int c;

        z->seed = (uint64_t) time(NULL) << 16 ^ (uint64_t) getpid();
        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                if (c == '?')
                        return 2;
                if (c == 't')
                        seconds = atof(optarg);
                else
                        z->seed = strtoull(optarg, NULL, 0);
        }
        z->state = z->seed ?: 1;
        printf("seed %" PRIu64 "\n", z->seed);
        ok = world_prepare(TESTED_VARIANTS) && run_for(z, seconds);
        printf("%" PRIu64 " packets: next %" PRIu64 ", pass %" PRIu64 ", drop %" PRIu64
               ", redirect %" PRIu64 ", refused by the kernel %" PRIu64 "; %" PRIu64
               " valid in and out; at most %" PRIu64 " flow entries\n",
               z->packets, z->verdicts[0], z->verdicts[1], z->verdicts[2], z->verdicts[3],
               z->refused, z->valid, z->most_flows);
        world_finish();
        free(z);
        return ok ? 0 : 1;
}
