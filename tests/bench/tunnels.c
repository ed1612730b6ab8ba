/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Into tunnels and out of them. A packet that has been encapsulated cannot be put back as it was
 * (the kernel remembers), so here each is a test run of its own, with a fresh packet: colder than
 * the loops of the other tables, and to be compared with the rows beside it only. */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <bpf/bpf.h>

#include "kinds.h"
#include "measure.h"
#include "tunnels.h"
#include "util.h"

#define ROUNDS 15
#define SHOTS 1000
#define MARK 0x0100u /* mark-mask of the world */
#define IDENTITY 6u  /* of the sender */

enum direction { OUT, IN, BARE_OUT, BARE_IN, DIRECTIONS };

/* A program of a packet's way, and what is taken off. */
struct part {
        struct measured program, control;
        enum direction direction;
        struct packet packet;
        uint32_t ifindex;
        int verdict;
        double ns[ROUNDS];
};

enum { PARTS = 8 };

struct row {
        const char *name;
        enum variant variant;
        uint16_t port; /* 0: no tunnel */
        bool no_hash;  /* the sender's socket does not know the hash of its flow */
        uint8_t header[4];
        int underlay, family;
        struct world *w;
        struct part parts[PARTS];
        size_t n;
};

/* ---- packets ------------------------------------------------------------------------------ */

static struct packet from_pod(const struct row *row, uint8_t flags)
{
        return packet_build(&(struct shape) { .smac = mac_of(POD),
                                              .dmac = gateway_mac(POD),
                                              .src = at(row->family, POD),
                                              .dst = at(row->family, REMOTE_POD),
                                              .proto = IPPROTO_TCP,
                                              .sport = 40000,
                                              .dport = 80,
                                              .flags = flags });
}

static struct packet answer(const struct row *row, uint8_t flags, struct mac to)
{
        return packet_build(&(struct shape) { .smac = mac_of(NODE2),
                                              .dmac = to,
                                              .src = at(row->family, REMOTE_POD),
                                              .dst = at(row->family, POD),
                                              .proto = IPPROTO_TCP,
                                              .sport = 80,
                                              .dport = 40000,
                                              .flags = flags });
}

/* The answer as it comes to the uplink. */
static struct packet arriving(const struct row *row, uint8_t flags)
{
        struct packet inner = answer(row, flags, mac_of(NODE)), p;
        uint32_t key = htonl(IDENTITY << 8);
        uint8_t *header;

        if (!row->port)
                return inner;
        p = packet_build(&(struct shape) { .smac = mac_of(NODE2),
                                           .dmac = mac_of(NODE),
                                           .src = at(row->underlay, NODE2),
                                           .dst = at(row->underlay, NODE),
                                           .proto = IPPROTO_UDP,
                                           .sport = 50000,
                                           .dport = row->port,
                                           .df = true,
                                           .no_checksum = true,
                                           .payload = 8 + inner.len });
        header = p.data + p.len - 8 - inner.len;
        memcpy(header, row->header, 4);
        memcpy(header + 4, &key, 4);
        memcpy(header + 8, inner.data, inner.len);
        return p;
}

/* ---- the programs of a row ---------------------------------------------------------------- */

static bool by_device(const struct row *row)
{
        return row->variant == VXLAN_DEVICE;
}

static struct part *add(struct row *row, enum direction direction, int fd, int verdict)
{
        struct part *p = &row->parts[row->n++];

        *p = (struct part) { .direction = direction,
                             .program = { .fd = fd },
                             .control = { .fd = bare_program("nothing_tc") },
                             .ifindex = row->w->ifindex[UPLINK],
                             .verdict = verdict };
        return p;
}

/* A part that another program comes before, and is taken off. */
static bool add_after(struct part *p, const struct restored *is, const char *first, int fd)
{
        return measured_after(&p->program, is, first, fd) &&
               measured_after(&p->control, is, first, bare_program("nothing_tc"));
}

static bool add_out(struct row *row, uint8_t flags)
{
        int fd = row->w->programs[WEFT_FROM_ENDPOINT];
        const struct restored is = { 0 };
        struct part *p = add(row, OUT, fd, REDIRECT);

        p->packet = from_pod(row, flags);
        p->ifindex = row->w->ifindex[EP0];
        return row->no_hash || add_after(p, &is, "hash_tc", fd);
}

/* Exit hooks, which weft's own packets leave at once. */
static void add_exit(struct row *row, int fd)
{
        struct part *p = add(row, OUT, fd, NEXT);

        p->packet = from_pod(row, ACK);
        p->program.mark = p->control.mark = MARK;
}

static void add_in(struct row *row, uint8_t flags)
{
        struct part *p =
                add(row, IN, row->w->programs[WEFT_FROM_UPLINK], by_device(row) ? NEXT : REDIRECT);

        p->packet = arriving(row, flags);
}

/* What the kernel's device hands over bears a key. */
static bool add_from_device(struct row *row, uint8_t flags)
{
        const struct restored is = { .src = at(row->underlay, NODE2),
                                     .family = row->underlay == AF_INET ? 4 : 6,
                                     .identity = IDENTITY };
        struct part *p = add(row, IN, -1, REDIRECT);

        p->packet = answer(row, flags, gateway_mac(POD2));
        p->ifindex = row->w->ifindex[EP1];
        return add_after(p, &is, "arrive_tc", row->w->programs[WEFT_FROM_OVERLAY]);
}

static void add_bare(struct row *row)
{
        bool four = row->underlay == AF_INET;

        if (!row->port || by_device(row))
                return;
        add(row, BARE_OUT, bare_program(four ? "bare_out4" : "bare_out6"), REDIRECT)->packet =
                from_pod(row, ACK);
        add(row, BARE_IN, bare_program(four ? "bare_in4" : "bare_in6"), REDIRECT)->packet =
                arriving(row, ACK);
}

static bool fill(struct row *row, uint8_t flags)
{
        row->n = 0;
        if (!add_out(row, flags))
                return false;
        add_in(row, flags | ACK);
        if (by_device(row) && !add_from_device(row, flags | ACK))
                return false;
        if (by_device(row))
                add_exit(row, row->w->to_overlay);
        add_exit(row, row->w->programs[WEFT_TO_UPLINK]);
        add_bare(row);
        return true;
}

static void empty(struct row *row)
{
        for (size_t i = 0; i < row->n; i++) {
                measured_done(&row->parts[i].program);
                measured_done(&row->parts[i].control);
        }
        row->n = 0;
}

/* ---- measuring ---------------------------------------------------------------------------- */

static bool once(const struct row *row, const struct part *p, const struct measured *m, double *ret)
{
        int verdict;

        *ret = measured_run(m, p->ifindex, p->packet.data, p->packet.len, 1, &verdict);
        if (m == &p->control || verdict == p->verdict)
                return true;

        fprintf(stderr, "bench: %s, program %zd: verdict %d\n", row->name, p - row->parts, verdict);
        return false;
}

/* Opens the connection through the programs, until nothing is left to be learnt from its packets.
 */
static bool establish(struct row *row)
{
        static const uint8_t flags[] = { SYN, ACK, ACK };
        bool good = true;
        double ns;

        for (size_t i = 0; i < ELEMENTS(flags) && good; i++) {
                good = fill(row, flags[i]);
                for (size_t k = 0; k < row->n && good; k++)
                        good = once(row, &row->parts[k], &row->parts[k].program, &ns);
                empty(row);
        }
        believe_next_hops(row->w);

        return good;
}

static bool shoot(const struct row *row, const struct part *p, const struct measured *m,
                  double *ret)
{
        double ns[SHOTS];

        for (size_t i = 0; i < SHOTS; i++)
                if (!once(row, p, m, &ns[i]))
                        return false;
        *ret = median(ns, SHOTS);

        return true;
}

static bool measure(struct row *row)
{
        double with, without;

        for (unsigned round = 0; round < ROUNDS; round++)
                for (size_t i = 0; i < row->n; i++) {
                        struct part *p = &row->parts[(i + round) % row->n];

                        if (!shoot(row, p, &p->program, &with) ||
                            !shoot(row, p, &p->control, &without))
                                return false;
                        p->ns[round] = with - without;
                }

        return true;
}

/* ---- telling ------------------------------------------------------------------------------ */

/* All programs of the direction together. */
static void print_sum(const struct row *row, enum direction direction)
{
        double sum[ROUNDS] = {}, m;
        unsigned n = 0;

        for (size_t i = 0; i < row->n; i++) {
                if (row->parts[i].direction != direction)
                        continue;
                n++;
                for (unsigned round = 0; round < ROUNDS; round++)
                        sum[round] += row->parts[i].ns[round];
        }
        m = median(sum, ROUNDS);
        if (n == 0)
                printf("| ");
        else if (direction == BARE_OUT || direction == BARE_IN)
                printf("| %.0f ", m);
        else
                printf("| %u | **%.0f** (%.0f–%.0f) ", n, m, sum[ROUNDS / 4],
                       sum[ROUNDS - 1 - ROUNDS / 4]);
}

static uint64_t slow_packets(struct world *w)
{
        return world_event(w, WEFT_EVENT_MISS) + world_event(w, WEFT_EVENT_AGAIN);
}

static void print_row(const struct row *row, uint64_t slow)
{
        printf("| %s | %s | IPv%c ", row->name,
               !row->port                 ? ""
               : row->underlay == AF_INET ? "IPv4"
                                          : "IPv6",
               row->family == AF_INET ? '4' : '6');
        print_sum(row, OUT);
        print_sum(row, BARE_OUT);
        print_sum(row, IN);
        print_sum(row, BARE_IN);
        printf("|");
        if (slow)
                printf(" <!-- %llu packets took the long path -->", (unsigned long long) slow);
        printf("\n");
        (void) fflush(stdout);
}

/* ---- the table ---------------------------------------------------------------------------- */

static void set_device(struct row *row)
{
        struct weft_overlay o = { .ifindex = row->w->ifindex[EP1],
                                  .mtu = row->underlay == AF_INET ? 1450 : 1430 };
        struct mac mac = gateway_mac(POD2);

        memcpy(o.mac, mac.b, sizeof(o.mac));
        tables_set_overlay(row->w->tables, row->variant + 1, &o);
}

static bool bench_row(struct row row)
{
        uint64_t slow = 0;
        bool good;

        row.w = world_open(row.variant);
        if (row.port)
                world_set_tunnel(row.w, row.underlay);
        if (by_device(&row))
                set_device(&row);
        good = establish(&row) && fill(&row, ACK);
        if (good) {
                slow = slow_packets(row.w);
                good = measure(&row);
        }
        if (good)
                print_row(&row, slow_packets(row.w) - slow);
        empty(&row);
        world_close(row.w);

        return good;
}

bool bench_tunnels(bool cast)
{
        static const struct row rows[] = {
                { .name = "no tunnel", .variant = FULL },
                { .name = "vxlan, bpf", .variant = VXLAN, .port = 8472, .header = { 0x08 } },
                { .name = "vxlan, bpf, no hash",
                  .variant = VXLAN,
                  .port = 8472,
                  .no_hash = true,
                  .header = { 0x08 } },
                { .name = "geneve, bpf",
                  .variant = GENEVE,
                  .port = 6081,
                  .header = { 0, 0, 0x65, 0x58 } },
                { .name = "vxlan, device",
                  .variant = VXLAN_DEVICE,
                  .port = 8472,
                  .header = { 0x08 } },
        };
        static const int families[] = { AF_INET, AF_INET6 };
        bool good = true;

        (void) cast;
        printf("| way | underlay | packet | programs, out | ns | bare | programs, in | ns | bare "
               "|\n"
               "|---|---|---|---|---|---|---|---|---|\n");
        for (size_t i = 0; i < ELEMENTS(rows) * 4; i++) {
                struct row row = rows[i / 4];

                row.underlay = families[i / 2 % 2];
                row.family = families[i % 2];
                if (row.port || row.underlay == AF_INET)
                        good &= bench_row(row);
        }

        return good;
}
